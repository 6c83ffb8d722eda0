//! Looking after runs: writing down what happens in them, hearing what is said to them elsewhere, and
//! taking up those whose process is gone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{Notify, OnceCell};

use super::SOON;
use super::here::Here;
use super::take::Request;
use crate::hub::{Error, Hub, LEASE, Lane, failed};
use crate::store::lease::{self, Acquired, Lease, Owner};
use crate::store::run::{self as table, Page};

/// How long events wait for others, to be written down with them.
const PACE: Duration = Duration::from_millis(40);
/// How often a turn is begun before it is taken for what ends its process.
const TRIES: i64 = 5;
/// How often one looks after runs of others, and for what is said to one's own elsewhere.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// How long a run that is over is known, and of how many all events are.
const KNOWN: Duration = Duration::from_secs(24 * 60 * 60);
const TOLD: usize = 1000;
/// How often what is no longer known is looked for.
const SWEEP: Duration = Duration::from_secs(600);

/// The runs of a database, and those that are played here.
pub(in crate::hub) struct Runs {
    pub(super) table: table::Runs,
    here: Mutex<HashMap<String, Arc<Here>>>,
    /// Something is to be written down.
    pub(super) news: Notify,
    /// One of those that were here is not any more.
    gone: Notify,
    pub(super) kept: OnceCell<()>,
}

impl Runs {
    pub(in crate::hub) fn new(table: table::Runs) -> Self {
        let (news, gone) = (Notify::new(), Notify::new());
        Self { table, here: Mutex::default(), news, gone, kept: OnceCell::new() }
    }

    pub(super) fn here(&self) -> MutexGuard<'_, HashMap<String, Arc<Here>>> {
        self.here.lock().expect("no panic while held")
    }

    pub(super) fn find(&self, id: &str) -> Option<Arc<Here>> {
        self.here().get(id).cloned()
    }

    fn is_empty(&self) -> bool {
        self.here().is_empty()
    }

    /// Returns when nothing is left to be written down.
    pub(in crate::hub) async fn written(&self) {
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

    /// Plays what others have left undone in a session whose lease is held.
    pub(in crate::hub) async fn catch_up(self: &Arc<Self>, id: &str, lane: &Lane, lease: &Lease) {
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
    pub(super) async fn taken(&self, row: &table::Run) -> Option<(Arc<Here>, Request)> {
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
    pub(super) async fn retry(self: &Arc<Self>, row: &table::Run) -> Result<(), Error> {
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
        all.iter().for_each(|here| here.refuse(Instant::now()));
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
        here.tell();
    }
}
