//! Runs: turns that go on when nobody listens, and that whoever comes back is told of from any event on.
//!
//! A run is in the database before its turn begins, and an event before anybody hears of it, so what
//! was told is the same after a restart and from another process. Events of all runs are written
//! down together, some times in a second: a hundred runs cost no more commits than one.
//!
//! A run whose process is gone is taken up by one that is there. It goes on from what the log of its
//! session has: the message is not said twice, and a turn that had come to its end is not played
//! again. What is left undone in a session comes before what is said in it later.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt, stream};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tokio::sync::{Notify, OnceCell, watch};
use tokio_util::sync::CancellationToken;

use super::{Error, Hub, LEASE, Lane, Order, counted, failed, traced};
use crate::agent::Play;
use crate::message::event::{Answer, Consent, EventKind, Finished, StopReason};
use crate::message::{Event, Message, Role};
use crate::session::{self, Began, Ended, Entry, Session, Stored};
use crate::store::lease::{self, Acquired, Lease, Owner};
use crate::store::run::{self as table, Page, Word};
use crate::trace;

/// Bytes of a run's events; when there are more, pieces of text are left out, as its result has it whole.
const RECORD: usize = 1 << 20;
/// How long events wait for others, to be written down with them.
const PACE: Duration = Duration::from_millis(40);
/// How long a question waits for a person; it is refused then.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often a turn is begun before it is taken for what ends its process.
const TRIES: i64 = 5;
/// How often one looks after runs of others, and for what is said to one's own elsewhere.
const LOOK: Duration = Duration::from_secs(1);
/// When one looks first how far a run is that another process plays; later less often.
const SOON: Duration = Duration::from_millis(50);
/// How long a run that is over is known, and of how many all events are.
const KNOWN: Duration = Duration::from_secs(24 * 60 * 60);
const TOLD: usize = 1000;
/// How often what is no longer known is looked for.
const SWEEP: Duration = Duration::from_secs(600);

/// The runs of a database, and those that are played here.
pub(super) struct Runs {
    table: table::Runs,
    here: Mutex<HashMap<String, Arc<Here>>>,
    /// Something is to be written down.
    news: Notify,
    /// One of those that were here is not any more.
    gone: Notify,
    kept: OnceCell<()>,
}

/// By what a caller may ask for the same run again.
#[derive(Debug, Clone)]
pub struct Key {
    asked: String,
    digest: String,
}

impl Key {
    /// The key that this caller calls `name`, for this.
    pub fn new(caller: &str, name: &str, what: &Value) -> Self {
        Self { asked: digest(&format!("{caller}\0{name}")), digest: digest(&what.to_string()) }
    }
}

/// A run, wherever it is played.
#[derive(Clone)]
pub struct Run {
    hub: Arc<Hub>,
    /// Its id, which is that of its turn.
    pub id: String,
    /// Its session.
    pub session: String,
    /// Whether it was asked for before, by the same key.
    pub is_known: bool,
}

/// How a run stands.
#[derive(Debug, Clone, Serialize)]
pub struct Standing {
    /// Whether it goes on.
    pub status: Status,
    /// The calls that wait for a person.
    pub waiting: Vec<String>,
    /// How it ended, once it has.
    pub result: Option<Finished>,
}

/// Whether a run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It goes on, or waits for its turn.
    Running,
    /// It waits for a person.
    Waiting,
    /// Its process is gone; another one will take it up.
    Interrupted,
    /// It has ended.
    Finished,
}

/// What a person says to a call that waits.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Said {
    /// To an approval.
    pub consent: Option<Consent>,
    /// To a question.
    pub answer: Option<Map<String, Value>>,
}

/// What a call waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// A [`Consent`].
    Consent,
    /// An answer, or none.
    Answer,
    /// Something that only the process which plays the run knows.
    Elsewhere,
}

/// What was asked for, as it is stored.
#[derive(Serialize, Deserialize)]
struct Request {
    message: Message,
    instructions: Option<String>,
    asks: bool,
}

/// A run that is played here.
pub(super) struct Here {
    id: String,
    session: String,
    /// Nothing of it can be in the log yet.
    pub(super) is_new: bool,
    cancel: CancellationToken,
    /// Somebody has said that it is to end.
    unwanted: AtomicBool,
    desk: Mutex<Desk>,
    told: watch::Sender<()>,
}

#[derive(Default)]
struct Desk {
    last: u64,
    bytes: usize,
    /// What is to be written down.
    events: Vec<(u64, String)>,
    waiting: BTreeMap<String, (Asked, Instant)>,
    end: Option<End>,
    changed: bool,
}

/// A place for what a person says.
enum Asked {
    Consent(Answer),
    Answer(Answer<Option<Map<String, Value>>>),
}

#[derive(Clone)]
enum End {
    Over(Finished),
    /// Somebody else may take it up.
    Left,
}

/// What a turn begins with.
pub(super) enum Ground {
    /// The session, with the message in it.
    Ready(Session),
    /// The turn has ended already.
    Over(Finished),
}

impl Runs {
    pub(super) fn new(table: table::Runs) -> Self {
        let (news, gone) = (Notify::new(), Notify::new());
        Self { table, here: Mutex::default(), news, gone, kept: OnceCell::new() }
    }

    fn here(&self) -> MutexGuard<'_, HashMap<String, Arc<Here>>> {
        self.here.lock().expect("no panic while held")
    }

    fn find(&self, id: &str) -> Option<Arc<Here>> {
        self.here().get(id).cloned()
    }

    fn is_empty(&self) -> bool {
        self.here().is_empty()
    }

    /// Returns when nothing is left to be written down.
    pub(super) async fn written(&self) {
        loop {
            let gone = self.gone.notified();
            if self.is_empty() {
                return;
            }
            gone.await;
        }
    }
}

impl Hub {
    /// Looks after runs: takes up what others have left, now and later, until the program ends.
    pub async fn keep(self: &Arc<Self>) -> Result<(), Error> {
        self.runs.kept.get_or_try_init(|| self.begin_keeping()).await.copied()
    }

    async fn begin_keeping(self: &Arc<Self>) -> Result<(), Error> {
        let presence = self.present().await?;
        let (recording, keeping) = (self.clone(), self.clone());
        self.shutdown.spawn(async move { recording.record().await });
        self.shutdown.spawn(async move { keeping.look_after(presence).await });
        Ok(())
    }

    /// Begins a run, or finds the one that was asked for by this key. It goes on when nobody listens,
    /// and it is taken whole or not at all, also when this future is dropped meanwhile.
    pub async fn run(self: &Arc<Self>, order: Order, key: Option<Key>) -> Result<Run, Error> {
        let hub = self.clone();
        self.undisturbed(async move { hub.take(order, key.as_ref()).await }).await
    }

    /// Does something to its end, even if whoever wants it is gone.
    async fn undisturbed<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let work = self.shutdown.spawn(trace::carried(work));
        work.await.unwrap_or_else(|error| match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::Draining),
        })
    }

    async fn take(self: &Arc<Self>, order: Order, key: Option<&Key>) -> Result<Run, Error> {
        self.keep().await?;
        if let Some(key) = key
            && let Some(known) = self.runs.table.asked(&key.asked).await?
        {
            return self.known(&known, key);
        }
        let place = self.place()?;
        let Order { incoming, asks, instructions, .. } = order;
        let session = self.addressed(incoming.session).await?;
        let lane = self.lane(&session);
        let queued = lane.place(&session)?;
        let id = uuid::Uuid::now_v7().to_string();
        let request = Request { message: incoming.message, instructions, asks };
        let row = table::Run {
            id: id.clone(),
            session: session.clone(),
            digest: key.map_or_else(String::new, |key| key.digest.clone()),
            request: serde_json::to_string(&request).expect("keys are texts"),
            is_over: false,
            owner: self.owner.as_str().to_owned(),
            tries: 0,
            waiting: Vec::new(),
            result: String::new(),
            created: Timestamp::now(),
        };
        let asked = key.map_or(id.as_str(), |key| key.asked.as_str());
        // It is taken from here on.
        if let (Some(known), Some(key)) = (self.runs.table.add(&row, asked).await?, key) {
            return self.known(&known, key);
        }
        let here = self.enter(&row, 0, true);
        self.go(here, request, lane, (place, queued));
        Ok(Run { hub: self.clone(), id, session, is_known: false })
    }

    fn known(self: &Arc<Self>, row: &table::Run, key: &Key) -> Result<Run, Error> {
        match row.digest == key.digest {
            true => Ok(Run { is_known: true, ..self.handle(row) }),
            false => Err(Error::Reused),
        }
    }

    /// The run of this id.
    pub async fn find_run(self: &Arc<Self>, id: &str) -> Result<Option<Run>, Error> {
        Ok(self.runs.table.get(id).await?.map(|row| self.handle(&row)))
    }

    fn handle(self: &Arc<Self>, row: &table::Run) -> Run {
        Run { hub: self.clone(), id: row.id.clone(), session: row.session.clone(), is_known: false }
    }

    /// Takes note that a run is played here.
    fn enter(&self, row: &table::Run, last: u64, is_new: bool) -> Arc<Here> {
        let here = Arc::new(Here {
            id: row.id.clone(),
            session: row.session.clone(),
            is_new,
            cancel: self.shutdown.signal().child_token(),
            unwanted: AtomicBool::new(false),
            desk: Mutex::new(Desk { last, ..Desk::default() }),
            told: watch::Sender::new(()),
        });
        self.runs.here().insert(row.id.clone(), here.clone());
        here
    }

    /// Plays a run when its session is free. `held` is given back at its end.
    fn go<P: Send + 'static>(self: &Arc<Self>, here: Arc<Here>, request: Request, lane: Arc<Lane>, held: P) {
        let (hub, traced) = (self.clone(), traced(&here.id, &here.session));
        let playing = async move {
            let play = hub.play_of(&here, request, &lane);
            let finished = hub.play(&here.session, &lane, play, Some(&here)).await;
            // Whoever hears of the end may come again at once.
            drop((held, lane));
            hub.ended(&here, finished);
            // Nobody waits for this but the end of the program.
            hub.agent.settle().await;
        };
        self.shutdown.spawn(traced.follow(playing));
    }

    fn play_of(self: &Arc<Self>, here: &Arc<Here>, request: Request, lane: &Lane) -> Play {
        let (hub, heard) = (self.clone(), here.clone());
        Play {
            turn: here.id.clone(),
            message: request.message,
            cancel: here.cancel.clone(),
            events: Arc::new(move |kind| {
                heard.hear(kind);
                hub.runs.news.notify_one();
            }),
            asks: request.asks,
            consents: lane.consents.clone(),
            instructions: request.instructions,
            // A run may be played by another process than the one an editor is connected to.
            editor: None,
        }
    }

    /// Says how a run ended. One that ends with the program, and not because somebody wanted it to,
    /// has not ended: it is taken up again.
    fn ended(&self, here: &Here, finished: Finished) {
        counted(&finished);
        let is_wanted = !here.unwanted.load(Ordering::SeqCst);
        here.end(match finished.stop {
            StopReason::Cancelled if is_wanted => End::Left,
            _ => End::Over(finished),
        });
        self.runs.news.notify_one();
    }

    /// Stores the message of a turn, and says from where it goes on. `again`: it may have begun before;
    /// what is stored is not stored twice then, and what has ended is not played again.
    pub(super) async fn ground(
        &self,
        id: &str,
        play: &Play,
        again: bool,
        run: Option<&Here>,
    ) -> Result<Ground, session::Error> {
        let log = if again { self.sessions.show(id).await? } else { Vec::new() };
        let mut session = self.sessions.open(id).await?;
        let mut entries = vec![Entry::TurnBegan(Began { model: self.agent.model().to_owned() })];
        match left(&log, &play.turn) {
            Some(Left::Over(finished)) => return Ok(Ground::Over(finished)),
            Some(Left::Open) => {
                // What it was about to say is said anew.
                while session.messages.last().is_some_and(is_said) {
                    session.messages.pop();
                }
            }
            None => entries.push(Entry::Message(play.message.clone())),
        }
        let now = Timestamp::now();
        let mut write = self.sessions.begin().await?;
        if run.is_some() && !self.runs.table.begin(&mut write, &play.turn, &self.owner).await? {
            return Err(session::Error::Moved(id.to_owned()));
        }
        self.sessions.add(&mut write, &session, &play.turn, &entries, now).await?;
        self.sessions.commit(write, &mut session, entries, now).await?;
        Ok(Ground::Ready(session))
    }

    /// Plays what others have left undone in a session whose lease is held.
    pub(super) async fn catch_up(self: &Arc<Self>, id: &str, lane: &Lane, lease: &Lease) {
        if self.runs.kept.get().is_none() {
            return;
        }
        let open = match self.runs.table.open(id).await {
            Ok(open) => open,
            Err(error) => return tracing::warn!(session = id, "what is left undone waits: {error}"),
        };
        for row in open {
            if let Some(row) = self.left_alone(row).await
                && let Some((here, request)) = self.taken(&row).await
            {
                let play = self.play_of(&here, request, lane);
                let finished = self.held(id, play, lease, Some(&here)).await;
                self.ended(&here, finished);
            }
        }
    }

    /// The run, if nobody plays it any more. One that has begun and whose process is there is waited
    /// for: it is not played without the lease, so its end is about to be written down.
    async fn left_alone(&self, mut row: table::Run) -> Option<table::Run> {
        let began = Instant::now();
        loop {
            if row.is_over || row.owner == self.owner.as_str() {
                return None;
            }
            let is_alive = self.runs.table.is_alive(&row.owner, Timestamp::now()).await;
            if !is_alive.unwrap_or(true) {
                return Some(row);
            }
            if row.tries == 0 || began.elapsed() > 2 * LEASE {
                return None;
            }
            tokio::time::sleep(SOON).await;
            row = self.runs.table.get(&row.id).await.ok()??;
        }
    }

    /// Makes a run that was left one's own, to be played.
    async fn taken(&self, row: &table::Run) -> Option<(Arc<Here>, Request)> {
        let claimed = async {
            let claimed = self.runs.table.claim(row, &self.owner, Timestamp::now()).await?;
            Ok::<_, Error>((claimed, self.runs.table.last(&row.id).await?))
        };
        let last = match claimed.await {
            Ok((true, last)) => last,
            Ok((false, _)) => return None,
            Err(error) => {
                tracing::warn!(run = row.id, "a run that was left waits: {error}");
                return None;
            }
        };
        let here = self.enter(row, last, false);
        match serde_json::from_str(&row.request) {
            Ok(_) if row.tries >= TRIES && !row.is_over => {
                let reason = format!("its process ended {TRIES} times while the turn went on");
                self.ended(&here, failed(reason));
                None
            }
            Ok(request) => Some((here, request)),
            Err(error) => {
                self.ended(&here, failed(format!("what was asked cannot be read: {error}")));
                None
            }
        }
    }

    /// Plays a run once more.
    async fn retry(self: &Arc<Self>, row: &table::Run) -> Result<(), Error> {
        let place = self.place()?;
        let lane = self.lane(&row.session);
        let queued = lane.place(&row.session)?;
        if let Some((here, request)) = self.taken(row).await {
            self.go(here, request, lane, (place, queued));
        }
        Ok(())
    }

    /// Takes up the runs whose process is gone. Where something goes on in their session, that does it.
    async fn take_up(self: &Arc<Self>) -> Result<(), Error> {
        for row in self.runs.table.elsewhere(&self.owner).await? {
            if self.is_draining() || self.is_busy(&row.session) {
                continue;
            }
            if self.runs.table.is_alive(&row.owner, Timestamp::now()).await? {
                continue;
            }
            let Ok(place) = self.places.clone().try_acquire_owned() else { return Ok(()) };
            let (hub, lane) = (self.clone(), self.lane(&row.session));
            tracing::info!(run = row.id, "a run is taken up whose process is gone");
            self.shutdown.spawn(async move {
                hub.visit(&row.session, &lane).await;
                drop((place, lane));
                hub.agent.settle().await;
            });
        }
        Ok(())
    }

    /// Does what is left undone in a session, and nothing else.
    async fn visit(self: &Arc<Self>, session: &str, lane: &Lane) {
        let _alone = lane.turn.lock().await;
        let (cancel, unheard) = (self.shutdown.signal(), |_| ());
        let Ok(lease) = self.claim(session, cancel, &unheard).await else { return };
        self.catch_up(session, lane, &lease).await;
        self.release(session, &lease).await;
    }

    /// Says that there is somebody to play the runs that are ours.
    async fn present(&self) -> Result<Lease, Error> {
        let name = table::presence(self.owner.as_str());
        match lease::acquire(&self.store, &name, &self.owner, LEASE, Timestamp::now()).await? {
            Acquired::Mine(lease) => Ok(lease),
            Acquired::Held { owner, expires } => Ok(Lease { name, owner: Owner::named(&owner), expires }),
        }
    }

    async fn look_after(self: Arc<Self>, mut presence: Lease) {
        let (mut renewed, mut swept) = (Instant::now(), None::<Instant>);
        let stop = self.shutdown.signal().clone();
        while !(stop.is_cancelled() && self.runs.is_empty()) {
            if renewed.elapsed() > LEASE / 3 {
                match self.present().await {
                    Ok(lease) => (presence, renewed) = (lease, Instant::now()),
                    Err(error) => tracing::warn!("others may take our runs for left: {error}"),
                }
            }
            self.listen().await;
            if let Err(error) = self.take_up().await {
                tracing::warn!("runs that were left wait: {error}");
            }
            if swept.is_none_or(|swept| swept.elapsed() > SWEEP) {
                swept = Some(Instant::now());
                let before = Timestamp::now().checked_sub(KNOWN).unwrap_or(Timestamp::UNIX_EPOCH);
                if let Err(error) = self.runs.table.forget(before, TOLD).await {
                    tracing::warn!("runs that are long over are still kept: {error}");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = stop.cancelled() => self.runs.written().await,
            }
        }
        if let Err(error) = lease::release(&self.store, &presence).await {
            tracing::warn!("our runs are ours for some seconds more: {error}");
        }
    }

    /// Hears what was said elsewhere to runs that are played here, and says no to what waits for long.
    async fn listen(&self) {
        let all: Vec<_> = self.runs.here().values().cloned().collect();
        if all.is_empty() {
            return;
        }
        all.iter().for_each(|here| here.refuse(PATIENCE));
        match self.runs.table.heard(&self.owner).await {
            Ok(words) => {
                for word in words {
                    let Some(here) = self.runs.find(&word.run) else { continue };
                    match serde_json::from_str(&word.body) {
                        Ok(said) if !word.call.is_empty() => drop(here.say(&word.call, said)),
                        _ => here.stop(),
                    }
                }
            }
            Err(error) => tracing::warn!("what is said to runs elsewhere waits: {error}"),
        }
    }

    /// Writes down what happens in the runs that are played here.
    async fn record(self: Arc<Self>) {
        let stop = self.shutdown.signal().clone();
        loop {
            tokio::select! {
                () = self.runs.news.notified() => {}
                () = stop.cancelled(), if self.runs.is_empty() => return,
            }
            if !self.write_down().await {
                // It is tried again; what waits is bounded for each run.
                self.runs.news.notify_one();
                tokio::time::sleep(LOOK).await;
            }
            if !stop.is_cancelled() {
                tokio::time::sleep(PACE).await;
            }
        }
    }

    /// Writes down what is new. Returns whether all of it could be.
    async fn write_down(&self) -> bool {
        let all: Vec<_> = self.runs.here().values().cloned().collect();
        let new: Vec<_> = all.into_iter().filter_map(|here| here.page().map(|page| (here, page))).collect();
        if new.is_empty() {
            return true;
        }
        let pages: Vec<_> = new.iter().map(|(_, page)| page.clone()).collect();
        if let Ok(lost) = self.runs.table.write(&pages, &self.owner, Timestamp::now()).await {
            new.into_iter().for_each(|(here, page)| self.told(&here, &page, &lost));
            return true;
        }
        // One that cannot be written must not keep the others from it.
        let mut is_done = true;
        for (here, page) in new {
            match self.runs.table.write(std::slice::from_ref(&page), &self.owner, Timestamp::now()).await {
                Ok(lost) => self.told(&here, &page, &lost),
                Err(error) => {
                    tracing::error!(run = here.id, "what happens in a run is not written down yet: {error}");
                    here.again(page);
                    is_done = false;
                }
            }
        }
        is_done
    }

    /// Tells those who listen what is written down.
    fn told(&self, here: &Here, page: &Page, lost: &[String]) {
        let is_lost = lost.contains(&here.id);
        if is_lost {
            tracing::error!(run = here.id, "another process took the run; its turn ends here");
            here.cancel.cancel();
        }
        if is_lost || page.result.is_some() || page.left {
            self.runs.here().remove(&here.id);
            self.runs.gone.notify_waiters();
        }
        here.told.send_replace(());
    }
}

impl Run {
    /// How it stands; `None` if it is known no more, as when its session was deleted.
    pub async fn standing(&self) -> Result<Option<Standing>, Error> {
        let runs = &self.hub.runs;
        let here = runs.find(&self.id);
        let Some(row) = runs.table.get(&self.id).await? else { return Ok(None) };
        let waiting = here.as_ref().map_or(row.waiting, |here| here.desk().waiting.keys().cloned().collect());
        let is_there = here.is_some() || runs.table.is_alive(&row.owner, Timestamp::now()).await?;
        let status = match (row.is_over, is_there, waiting.is_empty()) {
            (true, ..) => Status::Finished,
            (_, false, _) => Status::Interrupted,
            (.., false) => Status::Waiting,
            _ => Status::Running,
        };
        Ok(Some(Standing { status, waiting, result: serde_json::from_str(&row.result).ok() }))
    }

    /// Waits for its end. `None` if nobody will see that any more: the program ends, or the session
    /// was deleted.
    pub async fn finished(&self) -> Result<Option<Finished>, Error> {
        let mut news = self.news();
        loop {
            match self.hub.runs.table.get(&self.id).await? {
                None => return Ok(None),
                Some(row) if row.is_over => return Ok(serde_json::from_str(&row.result).ok()),
                Some(_) => {}
            }
            loop {
                if !news.next().await {
                    return Ok(None);
                }
                if self.hub.runs.find(&self.id).is_none() {
                    break;
                }
            }
        }
    }

    /// What has happened so far.
    pub async fn happened(&self) -> Result<Vec<Event>, Error> {
        let mut all: Vec<Event> = Vec::new();
        loop {
            let last = all.last().map_or(0, |event| event.id);
            let page = self.hub.runs.table.events(&self.id, last).await?;
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page);
        }
    }

    /// The events after this number, and those that come. It ends with the run, or with the program.
    pub fn events(&self, after: u64) -> impl Stream<Item = Event> + Send + use<> {
        let run = self.clone();
        let news = run.news();
        let pages = stream::unfold((run, news, after), async |(run, mut news, after)| {
            let table = &run.hub.runs.table;
            loop {
                // In this order: what is over has no more events than are read then.
                let row = table.get(&run.id).await;
                let page = match table.events(&run.id, after).await {
                    Ok(page) => page,
                    Err(error) => {
                        tracing::error!(run = run.id, "its events cannot be read: {error}");
                        return None;
                    }
                };
                if let Some(last) = page.last().map(|event| event.id) {
                    return Some((stream::iter(page), (run, news, last)));
                }
                let is_over = row.is_ok_and(|row| row.is_none_or(|row| row.is_over));
                if is_over || !news.next().await {
                    return None;
                }
            }
        });
        pages.flatten()
    }

    fn news(&self) -> News {
        let told = self.hub.runs.find(&self.id).map(|here| here.told.subscribe());
        News { hub: self.hub.clone(), id: self.id.clone(), told, pause: SOON }
    }

    /// Ends it early; what it had is kept.
    pub async fn cancel(&self) -> Result<(), Error> {
        match self.hub.runs.find(&self.id) {
            Some(here) => here.stop(),
            None => self.leave_word("", "{}".to_owned()).await?,
        }
        Ok(())
    }

    /// What a call waits for, if it does.
    pub async fn asks(&self, call: &str) -> Result<Option<Question>, Error> {
        if let Some(here) = self.hub.runs.find(&self.id) {
            return Ok(here.desk().waiting.get(call).map(|(asked, _)| match asked {
                Asked::Consent(_) => Question::Consent,
                Asked::Answer(_) => Question::Answer,
            }));
        }
        let row = self.hub.runs.table.get(&self.id).await?;
        let waits = row.is_some_and(|row| row.waiting.iter().any(|waiting| waiting == call));
        Ok(waits.then_some(Question::Elsewhere))
    }

    /// Answers a call. Returns whether it waited for that.
    pub async fn answer(&self, call: &str, said: Said) -> Result<bool, Error> {
        if let Some(here) = self.hub.runs.find(&self.id) {
            let was_asked = here.say(call, said);
            self.hub.runs.news.notify_one();
            return Ok(was_asked);
        }
        let is_asked = self.asks(call).await?.is_some();
        if is_asked {
            self.leave_word(call, serde_json::to_string(&said).expect("keys are texts")).await?;
        }
        Ok(is_asked)
    }

    async fn leave_word(&self, call: &str, body: String) -> Result<(), Error> {
        let word = Word { run: self.id.clone(), call: call.to_owned(), body };
        Ok(self.hub.runs.table.say(&word).await?)
    }

    /// The same run; where it has ended without an answer, it is taken up once more.
    pub async fn retried(self) -> Result<Self, Error> {
        let hub = &self.hub;
        if hub.runs.find(&self.id).is_some_and(|here| here.unwanted.load(Ordering::SeqCst)) {
            // It was given up a moment ago.
            self.finished().await?;
        }
        let Some(row) = hub.runs.table.get(&self.id).await? else { return Ok(self) };
        let finished: Option<Finished> = serde_json::from_str(&row.result).ok();
        if !row.is_over || finished.is_some_and(|finished| finished.stop.is_answer()) {
            return Ok(self);
        }
        let retrying = hub.clone();
        hub.undisturbed(async move { retrying.retry(&row).await }).await?;
        Ok(self)
    }
}

/// Says when there may be more to read of a run.
struct News {
    hub: Arc<Hub>,
    id: String,
    told: Option<watch::Receiver<()>>,
    pause: Duration,
}

impl News {
    /// Returns `false` when nothing will come from here any more.
    async fn next(&mut self) -> bool {
        if let Some(told) = &mut self.told {
            if told.changed().await.is_err() {
                self.told = None;
            }
            return true;
        }
        self.told = self.hub.runs.find(&self.id).map(|here| here.told.subscribe());
        if self.told.is_some() {
            return true;
        }
        if self.hub.is_draining() {
            return false;
        }
        tokio::time::sleep(self.pause).await;
        self.pause = LOOK.min(self.pause * 2);
        true
    }
}

impl Here {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().expect("no panic while held")
    }

    /// Takes note of an event.
    fn hear(&self, kind: EventKind) {
        let mut desk = self.desk();
        if desk.end.is_some() {
            return;
        }
        match &kind {
            EventKind::Approval(approval) => {
                let asked = (Asked::Consent(approval.answer.clone()), Instant::now());
                desk.waiting.insert(approval.call.clone(), asked);
            }
            EventKind::Elicitation(question) => {
                let asked = (Asked::Answer(question.answer.clone()), Instant::now());
                desk.waiting.insert(question.call.clone(), asked);
            }
            EventKind::ToolFinished { call, .. } => drop(desk.waiting.remove(call)),
            EventKind::Finished(_) => desk.waiting.clear(),
            _ => {}
        }
        let is_piece = matches!(
            kind,
            EventKind::Text { .. } | EventKind::Reasoning { .. } | EventKind::ToolProgress { .. }
        );
        desk.last += 1;
        let event = Event { id: desk.last, session: self.session.clone(), turn: self.id.clone(), kind };
        let text = serde_json::to_string(&event).expect("keys are texts");
        desk.bytes += text.len();
        if desk.bytes <= RECORD || !is_piece {
            desk.events.push((event.id, text));
        }
        desk.changed = true;
    }

    fn end(&self, end: End) {
        if let End::Over(finished) = &end {
            self.hear(EventKind::Finished(finished.clone()));
        }
        let mut desk = self.desk();
        desk.end.get_or_insert(end);
        desk.changed = true;
    }

    /// What is to be written down, if there is something.
    fn page(&self) -> Option<Page> {
        let mut desk = self.desk();
        if !std::mem::take(&mut desk.changed) {
            return None;
        }
        Some(Page {
            run: self.id.clone(),
            events: std::mem::take(&mut desk.events),
            waiting: desk.waiting.keys().cloned().collect(),
            result: match &desk.end {
                Some(End::Over(finished)) => serde_json::to_string(finished).ok(),
                _ => None,
            },
            left: matches!(desk.end, Some(End::Left)),
        })
    }

    /// Takes back what could not be written down.
    fn again(&self, page: Page) {
        let mut desk = self.desk();
        let later = std::mem::replace(&mut desk.events, page.events);
        desk.events.extend(later);
        desk.changed = true;
    }

    /// Ends the turn, as somebody wants.
    fn stop(&self) {
        self.unwanted.store(true, Ordering::SeqCst);
        self.cancel.cancel();
    }

    /// Answers a call. Returns whether it waited for that.
    fn say(&self, call: &str, said: Said) -> bool {
        let mut desk = self.desk();
        let Some((asked, _)) = desk.waiting.remove(call) else { return false };
        desk.changed = true;
        match asked {
            Asked::Consent(place) => place.give(said.consent.unwrap_or(Consent::No)),
            Asked::Answer(place) => place.give(said.answer),
        }
    }

    /// Says no to everything that has waited for so long.
    fn refuse(&self, patience: Duration) {
        let overdue: Vec<_> = {
            let desk = self.desk();
            let overdue = desk.waiting.iter().filter(|(_, (_, since))| since.elapsed() > patience);
            overdue.map(|(call, _)| call.clone()).collect()
        };
        for call in overdue {
            self.say(&call, Said { consent: None, answer: None });
        }
    }
}

/// What the log has of a turn that was left.
enum Left {
    /// It had an answer.
    Over(Finished),
    /// It goes on from here.
    Open,
}

/// How far a turn came (pure). `None`: it has to begin; it did not yet, or something else was said since.
fn left(log: &[Stored], turn: &str) -> Option<Left> {
    let own = || log.iter().filter(|stored| stored.turn == turn);
    let ended = own().rev().find_map(|stored| match &stored.entry {
        Entry::TurnEnded(ended) => Some(ended),
        _ => None,
    });
    if let Some(ended) = ended.filter(|ended| ended.stop.is_answer()) {
        return Some(Left::Over(told(own(), ended)));
    }
    let last = log.iter().rev().find(|stored| matches!(stored.entry, Entry::Message(_)))?;
    (last.turn == turn).then_some(Left::Open)
}

/// The end of a turn, as it was told or would have been.
fn told<'a>(own: impl DoubleEndedIterator<Item = &'a Stored>, ended: &Ended) -> Finished {
    let text = own.rev().find_map(|stored| match &stored.entry {
        Entry::Message(message) if message.role == Role::Assistant => Some(message.text()),
        _ => None,
    });
    Finished {
        text: text.unwrap_or_default(),
        stop: ended.stop,
        error: ended.error.clone(),
        usage: ended.usage,
        rounds: ended.rounds,
        tool_calls: ended.tool_calls,
        milliseconds: ended.milliseconds,
    }
}

/// Whether a message only says something.
fn is_said(message: &Message) -> bool {
    message.role == Role::Assistant && message.calls().next().is_none()
}

fn digest(text: &str) -> String {
    Sha256::digest(text).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
}
