//! Sessions in flight: every face hands its messages here and gets events back.
//!
//! A session is a lane: one turn at a time, in the order of arrival, also across processes
//! that share the database, by a lease. Turns run in tasks of their own; a face that goes
//! away loses nothing. How many go on at once is bounded, and so is how many wait; a session
//! that is asked a lot takes one place in that queue, so the others come to their turn.

mod aside;
pub mod budget;
pub mod command;
mod export;
pub mod file;
mod mode;
pub mod outbox;
mod past;
pub mod report;
pub mod run;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use crate::agent::{Agent, Play};
use crate::config::{self, Config};
use crate::message::event::{EventKind, Finished, StopReason};
use crate::message::{Incoming, Message, Usage};
use crate::session::{self, Session, Sessions, log};
use crate::shutdown::Shutdown;
use crate::store::job::Jobs;
use crate::store::lease::{self, Acquired, Lease, Owner};
use crate::store::ledger::Ledger;
use crate::store::{self, Store};
use crate::tool::nested::Editor;
use crate::tool::{Scope, Toolbox};
use crate::{measure, trace};

pub use crate::session::Error as SessionError;
use budget::{Calendar, Exhausted, Purse};
pub use mode::Mode;
pub use outbox::Events;
use outbox::Outbox;
pub use past::Past;
pub use report::said;
pub use run::Run;
use run::{Ground, Here, Runs};

/// How long a lease lasts without renewal: what a killed process leaves behind blocks its
/// session for this long at most.
const LEASE: Duration = Duration::from_secs(10);
/// How long a turn waits for another process to finish with its session.
const PATIENCE: Duration = Duration::from_secs(600);
/// Turns of one session: the one that goes on, and those that wait for it.
const LANE: usize = 16;

/// How much may go on, and be used.
#[derive(Clone)]
pub struct Bounds {
    /// Turns at once.
    pub turns: usize,
    /// Turns that wait, of all sessions together.
    pub waiting: usize,
    /// What may be used of models.
    pub budget: config::Budget,
    /// By which a day is one.
    pub calendar: Calendar,
}

impl Default for Bounds {
    fn default() -> Self {
        let (budget, calendar) = (Config::default().budget, Calendar::default());
        Self { turns: 16, waiting: 256, budget, calendar }
    }
}

/// The house: sessions in flight.
pub struct Hub {
    agent: Arc<Agent>,
    sessions: Sessions,
    runs: Runs,
    store: Store,
    jobs: Jobs,
    purse: Arc<Purse>,
    owner: Owner,
    lanes: Mutex<HashMap<String, Weak<Lane>>>,
    bounds: Bounds,
    /// For those that go on.
    turns: Semaphore,
    /// For those that go on or wait.
    places: Arc<Semaphore>,
    draining: AtomicBool,
    shutdown: Shutdown,
}

/// What outlives a turn of a session in this process. A face that holds it across turns keeps
/// what was said "always" or "never" to.
pub struct Lane {
    turn: tokio::sync::Mutex<()>,
    places: Arc<Semaphore>,
    consents: Arc<crate::agent::Consents>,
}

impl Lane {
    /// A place for one more turn.
    fn place(&self, session: &str) -> Result<OwnedSemaphorePermit, Error> {
        self.places.clone().try_acquire_owned().map_err(|_| Error::Full(session.to_owned()))
    }
}

impl Default for Lane {
    fn default() -> Self {
        let places = Arc::new(Semaphore::new(LANE));
        Self { turn: tokio::sync::Mutex::default(), places, consents: Arc::default() }
    }
}

/// A message, and what is to be known about it.
#[derive(Debug, Clone)]
pub struct Order {
    /// What was said, and where.
    pub incoming: Incoming,
    /// Whether the session is begun where there is none of exactly this id.
    pub begins: bool,
    /// Whether the face will answer [`EventKind::Approval`].
    pub asks: bool,
    /// What the program that asks wants of the answer; the end of the system prompt.
    pub instructions: Option<String>,
    /// What was said before, where the one who asks keeps the conversation: the turn then belongs
    /// to no session, and nothing of it is kept but what it teaches.
    pub earlier: Option<Vec<Message>>,
    /// Of what it is paid; `None` for that of people and programs.
    pub purse: Option<Arc<Purse>>,
    /// How long a question waits for a person in a run; ten minutes where nothing is said.
    pub patience: Option<Duration>,
}

impl Order {
    /// A message, and nothing more about it.
    pub fn new(incoming: Incoming) -> Self {
        Self {
            incoming,
            begins: false,
            asks: false,
            instructions: None,
            earlier: None,
            purse: None,
            patience: None,
        }
    }
}

/// A turn that was accepted.
pub struct Running {
    /// Its session.
    pub session: String,
    /// Its id.
    pub turn: String,
    /// What happens in it; ends with [`EventKind::Finished`].
    pub events: Events,
    /// Ends it early; what it had is kept.
    pub cancel: CancellationToken,
    /// The lane of its session.
    pub lane: Arc<Lane>,
}

/// Why a message was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The session cannot be had.
    #[error(transparent)]
    Session(#[from] session::Error),
    /// Too many messages of this session wait.
    #[error("{LANE} messages wait in the session `{0}` already; say it again when there are answers")]
    Full(String),
    /// Too many messages wait.
    #[error("too many messages wait for their turn; say it again later")]
    Busy,
    /// Nothing more may be used of models.
    #[error(transparent)]
    Spent(Exhausted),
    /// The program is about to end.
    #[error("omni is about to stop and takes no more messages")]
    Draining,
    /// Nothing was kept by that name.
    #[error("nothing was kept as `{name}`; {}", known_as(.known))]
    Snapshot {
        /// The name.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// It is no name.
    #[error("a name has 1 to 64 letters, all in one line")]
    Name,
    /// Another process does not let go of the session.
    #[error("{0}")]
    Held(String),
    /// A key stands for something else.
    #[error("the key was used for another message; take a new one for each message")]
    Reused,
    /// The database does not do it.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Hub {
    /// A hub for this agent.
    pub fn new(agent: Arc<Agent>, sessions: Sessions, store: Store, shutdown: Shutdown) -> Arc<Self> {
        Self::bounded(agent, sessions, store, shutdown, Bounds::default())
    }

    /// A hub where this much may go on.
    pub fn bounded(
        agent: Arc<Agent>,
        sessions: Sessions,
        store: Store,
        shutdown: Shutdown,
        bounds: Bounds,
    ) -> Arc<Self> {
        let most = Semaphore::MAX_PERMITS / 2;
        let (turns, waiting) = (bounds.turns.clamp(1, most), bounds.waiting.min(most));
        let ledger = Ledger::new(store.clone());
        Arc::new(Self {
            agent,
            sessions,
            jobs: Jobs::new(store.clone()),
            runs: Runs::new(store::run::Runs::new(store.clone())),
            purse: Purse::talk(ledger, &bounds.budget, bounds.calendar.clone()),
            store,
            owner: Owner::new(),
            lanes: Mutex::default(),
            turns: Semaphore::new(turns),
            places: Arc::new(Semaphore::new(turns + waiting)),
            bounds: Bounds { turns, waiting, ..bounds },
            draining: AtomicBool::new(false),
            shutdown,
        })
    }

    /// The sessions there are.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// The jobs there are.
    pub fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    /// The folder that is worked in.
    pub fn workspace(&self) -> &std::path::Path {
        self.agent.workspace()
    }

    /// All tools there are now.
    pub fn toolbox(&self) -> Arc<Toolbox> {
        self.agent.toolbox()
    }

    /// A scope for calls outside of a turn, which end with the program.
    pub fn scope(&self) -> Scope {
        let mut scope = Scope::new(self.agent.workspace());
        scope.cancel = self.shutdown.signal().child_token();
        scope
    }

    /// The id of the session that a client calls `key`; started if there is none. A key that
    /// cannot be an id stands for one that is made of it.
    pub async fn session(&self, key: &str) -> Result<String, Error> {
        let id = session_id(key);
        Ok(self.sessions.ensured(&id, self.agent.workspace(), Timestamp::now()).await?.id)
    }

    /// The model that answers.
    pub fn model(&self) -> &str {
        self.agent.model()
    }

    /// Tokens that its model can be shown.
    pub fn window(&self) -> usize {
        self.agent.window()
    }

    /// Accepts a message. The turn begins when the session is free; `asks` says whether the
    /// face will answer [`EventKind::Approval`].
    pub async fn submit(self: &Arc<Self>, incoming: Incoming, asks: bool) -> Result<Running, Error> {
        self.order(Order { asks, ..Order::new(incoming) }).await
    }

    /// Accepts a message from an editor, which answers [`EventKind::Approval`] and may have files of its own.
    pub async fn edit(
        self: &Arc<Self>,
        incoming: Incoming,
        editor: Option<Editor>,
    ) -> Result<Running, Error> {
        self.accept(Order { asks: true, ..Order::new(incoming) }, editor).await
    }

    /// Accepts a message with more about it.
    pub async fn order(self: &Arc<Self>, order: Order) -> Result<Running, Error> {
        self.accept(order, None).await
    }

    async fn accept(self: &Arc<Self>, order: Order, editor: Option<Editor>) -> Result<Running, Error> {
        let place = self.place()?;
        let Order { incoming, begins, asks, instructions, earlier, purse, .. } = order;
        let id = match earlier {
            Some(_) => {
                self.tab("", purse.clone()).spend(Usage::default()).await?;
                String::new()
            }
            None => self.addressed(incoming.session, begins, purse.clone()).await?,
        };
        let turn = uuid::Uuid::now_v7().to_string();
        let cancel = self.shutdown.signal().child_token();
        let (outbox, events) = Outbox::new(id.clone(), turn.clone());
        let lane = match earlier {
            Some(_) => Arc::default(),
            None => self.lane(&id),
        };
        let queued = lane.place(&id)?;
        let running = Running {
            session: id.clone(),
            turn: turn.clone(),
            events,
            cancel: cancel.clone(),
            lane: lane.clone(),
        };
        let hub = self.clone();
        let play = Play {
            turn: turn.clone(),
            message: incoming.message,
            cancel,
            events: Arc::new(move |kind| outbox.send(kind)),
            asks,
            consents: lane.consents.clone(),
            instructions,
            editor,
            meter: self.tab(&id, purse).meter(),
        };
        let traced = traced(&turn, &id);
        let playing = async move {
            let events = play.events.clone();
            let finished = match earlier {
                Some(earlier) => hub.pass(earlier, play).await,
                None => hub.play(&id, &lane, play, None).await,
            };
            counted(&finished);
            // Whoever hears of the end may come again at once.
            drop((place, queued));
            events(EventKind::Finished(finished));
            // Nobody waits for this but the end of the program.
            hub.agent.settle().await;
        };
        self.shutdown.spawn(traced.follow(playing));
        Ok(running)
    }

    /// The id of the session that a message goes to: the one it names, or a new one. What cannot be paid
    /// is refused before there is a new one.
    async fn addressed(
        &self,
        session: Option<String>,
        begins: bool,
        purse: Option<Arc<Purse>>,
    ) -> Result<String, Error> {
        let named = match session {
            Some(id) if !begins => Some(self.sessions.resolve(&id).await?.id),
            named => named,
        };
        self.tab(named.as_deref().unwrap_or_default(), purse).spend(Usage::default()).await?;
        match named {
            Some(id) if begins => self.session(&id).await,
            Some(id) => Ok(id),
            None => Ok(self.sessions.create(self.agent.workspace(), Timestamp::now()).await?.id().to_owned()),
        }
    }

    /// A place among those that go on or wait.
    fn place(&self) -> Result<OwnedSemaphorePermit, Error> {
        if self.draining.load(Ordering::SeqCst) || self.shutdown.signal().is_cancelled() {
            return Err(Error::Draining);
        }
        self.places.clone().try_acquire_owned().map_err(|_| Error::Busy)
    }

    /// How many turns go on, and how many wait.
    pub fn load(&self) -> (usize, usize) {
        let Bounds { turns, waiting, .. } = self.bounds;
        let going = turns - self.turns.available_permits();
        let places = turns + waiting - self.places.available_permits();
        (going, places.saturating_sub(going))
    }

    /// Takes no more messages, and returns when all turns are over and what happened is written down.
    pub async fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        let all = u32::try_from(self.bounds.turns + self.bounds.waiting).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        let _ = self.places.acquire_many(all).await;
        self.runs.written().await;
    }

    /// Whether no more messages are taken.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Ends all turns early; what they had is kept.
    pub fn cancel(&self) {
        self.shutdown.signal().cancel();
    }

    /// The lane of a session. While somebody holds it, what was agreed to "always" stays agreed to.
    pub fn lane(&self, session: &str) -> Arc<Lane> {
        let mut lanes = self.lanes.lock().expect("no panic while held");
        lanes.retain(|_, lane| lane.strong_count() > 0);
        if let Some(lane) = lanes.get(session).and_then(Weak::upgrade) {
            return lane;
        }
        let lane = Arc::new(Lane::default());
        lanes.insert(session.to_owned(), Arc::downgrade(&lane));
        lane
    }

    /// Whether something goes on or waits in a session here.
    fn is_busy(&self, session: &str) -> bool {
        let lanes = self.lanes.lock().expect("no panic while held");
        lanes.get(session).is_some_and(|lane| lane.strong_count() > 0)
    }

    /// One turn from the wait for its session to its end.
    async fn play(self: &Arc<Self>, id: &str, lane: &Lane, play: Play, run: Option<&Here>) -> Finished {
        let _alone = tokio::select! {
            alone = lane.turn.lock() => alone,
            () = play.cancel.cancelled() => return cancelled(),
        };
        self.leased(id, lane, play, run).await
    }

    /// One turn that belongs to no session.
    async fn pass(&self, mut messages: Vec<Message>, play: Play) -> Finished {
        let Some(_room) = self.room(&play).await else { return cancelled() };
        if let Some(reason) = unaffordable(&play).await {
            return exhausted(reason);
        }
        messages.push(play.message.clone());
        let session = Session::passing(self.agent.workspace(), messages, Timestamp::now());
        (play.events)(EventKind::Started { model: self.agent.model().to_owned() });
        self.agent.turn(&self.sessions, session, play).await
    }

    /// Waits until one more turn may go on; `None` if it was cancelled before.
    async fn room(&self, play: &Play) -> Option<tokio::sync::SemaphorePermit<'_>> {
        tokio::select! {
            room = self.turns.acquire() => room.ok(),
            () = play.cancel.cancelled() => None,
        }
    }

    /// A person's verdict on the last turn of a session. Returns whether there was one.
    pub async fn judge(&self, session: &str, good: bool) -> Result<bool, String> {
        self.agent.judge(session, good).await.map_err(|error| error.to_string())
    }

    /// Plays the turn while the session is leased.
    async fn leased(self: &Arc<Self>, id: &str, lane: &Lane, play: Play, run: Option<&Here>) -> Finished {
        let lease = match self.claim(id, &play.cancel, &*play.events).await {
            Ok(lease) => lease,
            Err(finished) => return finished,
        };
        self.catch_up(id, lane, &lease).await;
        let finished = self.held(id, play, &lease, run).await;
        self.release(id, &lease).await;
        finished
    }

    async fn release(&self, id: &str, lease: &Lease) {
        if let Err(error) = lease::release(&self.store, lease).await {
            tracing::warn!(session = id, "the lease of a session stays until it ends: {error}");
        }
    }

    /// Plays the turn while the lease is kept alive; a lease that is lost ends it.
    async fn held(&self, id: &str, play: Play, lease: &Lease, run: Option<&Here>) -> Finished {
        let cancel = play.cancel.clone();
        // Side by side: a turn that stands still in the middle of a transaction, while the lease waits
        // for the database, would have the lease wait for itself.
        tokio::select! {
            finished = self.begun(id, play, run) => finished,
            never = self.kept(id, lease, &cancel) => match never {},
        }
    }

    /// Keeps a lease alive for as long as it is asked to; once it is lost, the turn is told to end.
    async fn kept(&self, id: &str, lease: &Lease, cancel: &CancellationToken) -> Infallible {
        loop {
            tokio::time::sleep(LEASE / 3).await;
            if let Ok(None) = lease::renew(&self.store, lease, LEASE, Timestamp::now()).await {
                tracing::error!(session = id, "another process took the session; the turn ends");
                cancel.cancel();
                return std::future::pending().await;
            }
        }
    }

    /// Stores the message and lets the agent play.
    async fn begun(&self, id: &str, play: Play, run: Option<&Here>) -> Finished {
        let Some(_room) = self.room(&play).await else { return cancelled() };
        if let Some(reason) = unaffordable(&play).await {
            return exhausted(reason);
        }
        let again = run.is_some_and(|run| !run.is_new);
        match self.ground(id, &play, again, run).await {
            Ok(Ground::Ready(session)) => {
                (play.events)(EventKind::Started { model: self.agent.model().to_owned() });
                self.agent.turn(&self.sessions, session, play).await
            }
            Ok(Ground::Over(finished)) => finished,
            Err(error) => failed(error.to_string()),
        }
    }

    /// Waits for the session's lease.
    async fn claim(
        &self,
        id: &str,
        cancel: &CancellationToken,
        events: &(dyn Fn(EventKind) + Send + Sync),
    ) -> Result<Lease, Finished> {
        let name = format!("session:{id}");
        // A lease of its own for each turn: lanes of one process must not share one.
        let (owner, began) = (&self.owner, Timestamp::now());
        let mut told = false;
        loop {
            let now = Timestamp::now();
            match lease::acquire(&self.store, &name, owner, LEASE, now).await {
                Ok(Acquired::Mine(lease)) => return Ok(lease),
                Ok(Acquired::Held { .. }) if now.duration_since(began).unsigned_abs() > PATIENCE => {
                    return Err(failed(format!(
                        "another omni has been at session `{id}` for {} minutes; try again later",
                        PATIENCE.as_secs() / 60
                    )));
                }
                Ok(Acquired::Held { .. }) if !std::mem::replace(&mut told, true) => {
                    let text = "another omni is at this session; waiting for it".to_owned();
                    events(EventKind::Notice { text });
                }
                Ok(Acquired::Held { .. }) => {}
                Err(store::Error::Busy { .. }) => {}
                Err(error) => return Err(failed(error.to_string())),
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
                () = cancel.cancelled() => return Err(cancelled()),
            }
        }
    }
}

/// The id of the session that a client calls `key`: the key itself, if it can be one.
pub fn session_id(key: &str) -> String {
    match log::check(key) {
        Ok(()) => key.to_owned(),
        Err(_) => Sha256::digest(key).iter().fold("key.".to_owned(), |id, byte| format!("{id}{byte:02x}")),
    }
}

fn known_as(known: &[String]) -> String {
    match known {
        [] => "nothing was kept in this session yet".to_owned(),
        known => format!("there are: {}", known.join(", ")),
    }
}

/// Where a turn is found in the log, and where traces are collected.
struct Traced {
    request: Arc<str>,
    span: Span,
    detail: Span,
}

fn traced(turn: &str, session: &str) -> Traced {
    let request = trace::request().unwrap_or_else(|| turn.into());
    let span = tracing::info_span!("turn", id = turn, session, request = &*request);
    let detail = span.in_scope(|| {
        tracing::debug_span!(
            target: trace::DETAIL, "agent", otel.name = "invoke_agent omni",
            gen_ai.operation.name = "invoke_agent", gen_ai.agent.name = "omni",
            gen_ai.conversation.id = session, omni.request = &*request, omni.turn = turn,
        )
    });
    Traced { request, span, detail }
}

impl Traced {
    async fn follow<T>(self, playing: impl Future<Output = T>) -> T {
        trace::within(self.request, playing.instrument(self.detail).instrument(self.span)).await
    }
}

/// Counts a turn that ended.
fn counted(finished: &Finished) {
    let Finished { stop, usage, rounds, tool_calls, milliseconds, .. } = finished;
    let time = Duration::from_secs_f64(milliseconds.max(0.0) / 1000.0);
    let (stop, Usage { input, cached, output, cost }) = (stop.name(), *usage);
    measure::turn(stop, time, *rounds, input, cached, output, cost);
    tracing::info!(stop, rounds, tool_calls, input, cached, output, cost, milliseconds, "a turn ended");
}

/// Why a turn that has waited may not begin any more.
async fn unaffordable(play: &Play) -> Option<String> {
    match &play.meter {
        Some(meter) => meter(Usage::default()).await,
        None => None,
    }
}

fn exhausted(reason: String) -> Finished {
    Finished { error: Some(reason), ..ended(StopReason::Exhausted) }
}

fn failed(error: String) -> Finished {
    Finished { error: Some(error), ..ended(StopReason::Failed) }
}

fn cancelled() -> Finished {
    ended(StopReason::Cancelled)
}

/// A turn that ended before it began.
fn ended(stop: StopReason) -> Finished {
    Finished {
        text: String::new(),
        stop,
        error: None,
        usage: Usage::default(),
        rounds: 0,
        tool_calls: 0,
        milliseconds: 0.0,
    }
}
