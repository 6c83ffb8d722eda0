//! Time as a face: what is due is handed to the hub, and what came of it to whoever wants to know.
//!
//! [`Clock::tick`] does all there is to do at a moment, and takes the moment from a function that it
//! is given; [`Clock::run`] calls it again and again. Everything that was decided is in the database
//! before it is done, so a clock that is killed is taken over by the next one.

mod deliver;
mod file;
mod run;
pub mod tools;
pub mod webhook;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;

use crate::hub::Hub;
use crate::hub::budget::{Calendar, Purse};
use crate::shutdown::Shutdown;
use crate::store::job::{Error, Job, Jobs, Run};
use crate::store::lease::Owner;

/// How often it looks for what other processes have asked for.
const LOOK: Duration = Duration::from_secs(1);
/// How long it rests when the database did not answer.
const REST: Duration = Duration::from_secs(5);
/// How often it says that it is there, and how often it forgets what was long ago.
const SIGN: SignedDuration = SignedDuration::from_secs(10);
const TIDY: SignedDuration = SignedDuration::from_hours(1);
/// Runs that go on at once, and deliveries.
const RUNS: usize = 4;
const DELIVERIES: usize = 8;

/// How it works.
#[derive(Clone)]
pub struct Setting {
    /// Tokens that jobs may use in a day; 0 for no limit.
    pub tokens: u64,
    /// Which day it is, and what time.
    pub calendar: Calendar,
    /// The folder of files that jobs write.
    pub output: PathBuf,
    /// How results are sent out.
    pub webhook: webhook::Setting,
}

/// Which jobs it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Those of the folder.
    All,
    /// Those that were asked for in this process, for one that soon ends.
    Own,
}

/// Runs the jobs of a folder.
pub struct Clock {
    hub: Arc<Hub>,
    setting: Setting,
    /// Of which their turns are paid.
    purse: Arc<Purse>,
    reach: Reach,
    owner: Owner,
    shutdown: Shutdown,
    runs: Crowd,
    deliveries: Crowd,
    past: Mutex<Past>,
}

/// When it last did what it does now and then.
#[derive(Default)]
struct Past {
    signed: Timestamp,
    tidied: Timestamp,
}

impl Clock {
    /// A clock that hands the jobs of the hub's folder to it.
    pub fn new(hub: Arc<Hub>, setting: Setting, reach: Reach, shutdown: Shutdown) -> Arc<Self> {
        let (runs, deliveries) = (Crowd::of(RUNS), Crowd::of(DELIVERIES));
        let past = Mutex::default();
        let purse = hub.jobs_purse(setting.tokens, setting.calendar.clone());
        Arc::new(Self { hub, setting, purse, reach, owner: Owner::new(), shutdown, runs, deliveries, past })
    }

    /// Goes on until the program is to stop.
    pub async fn run(self: Arc<Self>) {
        let (stop, mut changed) = (self.shutdown.signal().clone(), self.jobs().changed());
        while !stop.is_cancelled() {
            let wait = match self.tick().await {
                Ok(next) => self.wait(next),
                Err(error) => {
                    tracing::error!("the jobs were not looked at: {error}");
                    Some(REST)
                }
            };
            let waited = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = waited => {}
                _ = changed.changed() => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// How long there is nothing to do; `None` if somebody has to ask for something first. Whoever has
    /// only its own jobs hears of those.
    fn wait(&self, next: Option<Timestamp>) -> Option<Duration> {
        let until = next.map(|next| next.duration_since(self.now()));
        let until = until.map(|until| Duration::try_from(until).unwrap_or_default().min(LOOK));
        until.or((self.reach == Reach::All).then_some(LOOK))
    }

    /// Does what there is to do now. Returns when there is more, as far as is known.
    pub async fn tick(self: &Arc<Self>) -> Result<Option<Timestamp>, Error> {
        let (jobs, folder, now) = (self.jobs(), self.hub.workspace(), self.now());
        if self.reach == Reach::Own && !jobs.has_own().await? {
            return Ok(None);
        }
        self.now_and_then(now).await?;
        let outlook = jobs.outlook(folder).await?;
        if outlook.next.is_some_and(|next| next <= now) {
            jobs.fall_due(folder, &|job| self.is_mine(job), now).await?;
        }
        if jobs.outlook(folder).await?.live > 0 {
            self.begin(now).await?;
        }
        if outlook.again.is_some_and(|again| again <= now) {
            self.deliver(now).await?;
        }
        let outlook = jobs.outlook(folder).await?;
        let look = now.checked_add(LOOK).unwrap_or(Timestamp::MAX);
        // What could not be done for want of room is looked at again, and not at once.
        let live = (outlook.live > 0 || self.reach == Reach::Own).then_some(look);
        let again = outlook.again.map(|again| again.max(look));
        let next = outlook.next.filter(|_| self.reach == Reach::All);
        Ok([next, again, live].into_iter().flatten().min())
    }

    /// Waits until nothing goes on that this clock has begun.
    pub async fn settled(&self) {
        self.runs.empty().await;
        self.deliveries.empty().await;
    }

    async fn now_and_then(&self, now: Timestamp) -> Result<(), Error> {
        if self.reach == Reach::Own {
            return Ok(());
        }
        let (sign, tidy) = {
            let mut past = self.past.lock().expect("no panic while held");
            let is_over = |since: Timestamp, span| now.duration_since(since) >= span || since > now;
            let (sign, tidy) = (is_over(past.signed, SIGN), is_over(past.tidied, TIDY));
            past.signed = if sign { now } else { past.signed };
            past.tidied = if tidy { now } else { past.tidied };
            (sign, tidy)
        };
        if sign {
            self.jobs().present(self.hub.workspace(), &self.owner, now).await?;
        }
        if tidy {
            self.jobs().tidy(now).await?;
        }
        Ok(())
    }

    /// Takes up what a killed process has left, and begins what waits, as far as there is room.
    async fn begin(self: &Arc<Self>, now: Timestamp) -> Result<(), Error> {
        let (jobs, folder) = (self.jobs(), self.hub.workspace());
        if self.hub.is_draining() {
            return Ok(());
        }
        for run in jobs.running(folder).await? {
            if self.does(&run) && !self.runs.has(&run.job) && jobs.inherit(&run, &self.owner, now).await? {
                tracing::warn!(job = run.job, run = run.id, "a run was left in the middle and is taken up");
            }
        }
        for run in jobs.queued(folder).await? {
            if !self.does(&run) {
                continue;
            }
            let Some(place) = self.runs.enter(&run.job) else { continue };
            if let Some(taken) = jobs.take(&run, &self.owner, now).await? {
                let clock = self.clone();
                self.shutdown.spawn(async move {
                    clock.play(taken).await;
                    drop(place);
                    clock.jobs().nudge();
                });
            }
        }
        Ok(())
    }

    /// Tells those who are to be told now.
    async fn deliver(self: &Arc<Self>, now: Timestamp) -> Result<(), Error> {
        for (job, run) in self.jobs().mail(self.hub.workspace(), now).await? {
            if !self.does(&run) {
                continue;
            }
            let Some(place) = self.deliveries.enter(&run.id) else { continue };
            let clock = self.clone();
            self.shutdown.spawn(async move {
                clock.tell(&job, &run).await;
                drop(place);
            });
        }
        Ok(())
    }

    fn is_mine(&self, job: &str) -> bool {
        self.reach == Reach::All || self.jobs().is_own(job)
    }

    fn does(&self, run: &Run) -> bool {
        self.is_mine(&run.job) || self.jobs().is_own(&run.id)
    }

    fn jobs(&self) -> &Jobs {
        self.hub.jobs()
    }

    fn now(&self) -> Timestamp {
        (self.setting.calendar.now)()
    }

    async fn tell(&self, job: &Job, run: &Run) {
        if let Err(error) = self.delivered(job, run).await {
            tracing::error!(job = job.id, run = run.id, "nobody was told what came of a job: {error}");
        }
    }
}

/// What goes on: no more than so much, and nothing twice.
#[derive(Clone)]
struct Crowd(Arc<Inside>);

struct Inside {
    most: usize,
    names: Mutex<HashSet<String>>,
    left: Notify,
}

/// A place in a crowd, given back when it is dropped.
struct Seat {
    crowd: Crowd,
    name: String,
}

impl Crowd {
    fn of(most: usize) -> Self {
        Self(Arc::new(Inside { most, names: Mutex::default(), left: Notify::new() }))
    }

    fn has(&self, name: &str) -> bool {
        self.0.names.lock().expect("no panic while held").contains(name)
    }

    fn enter(&self, name: &str) -> Option<Seat> {
        let mut names = self.0.names.lock().expect("no panic while held");
        let enters = names.len() < self.0.most && names.insert(name.to_owned());
        enters.then(|| Seat { crowd: self.clone(), name: name.to_owned() })
    }

    async fn empty(&self) {
        loop {
            let left = self.0.left.notified();
            let mut left = std::pin::pin!(left);
            // Heard from here on, even if it is not waited for yet.
            left.as_mut().enable();
            if self.0.names.lock().expect("no panic while held").is_empty() {
                return;
            }
            left.await;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.crowd.0.names.lock().expect("no panic while held").remove(&self.name);
        self.crowd.0.left.notify_waiters();
    }
}
