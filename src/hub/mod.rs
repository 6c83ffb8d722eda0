//! Sessions in flight: every face hands its messages here and gets events back.
//!
//! A session is a lane: one turn at a time, in the order of arrival, also across processes
//! that share the database, by a lease. Turns run in tasks of their own; a face that goes
//! away loses nothing.

pub mod outbox;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::agent::{Agent, Play};
use crate::message::event::{EventKind, Finished, StopReason};
use crate::message::{Incoming, Usage};
use crate::session::{self, Began, Entry, Session, Sessions};
use crate::shutdown::Shutdown;
use crate::store::lease::{self, Acquired, Lease, Owner};
use crate::store::{self, Store};

pub use outbox::Events;
use outbox::Outbox;

/// How long a lease lasts without renewal: what a killed process leaves behind blocks its
/// session for this long at most.
const LEASE: Duration = Duration::from_secs(10);
/// How long a turn waits for another process to finish with its session.
const PATIENCE: Duration = Duration::from_secs(600);

/// The house: sessions in flight.
pub struct Hub {
    agent: Arc<Agent>,
    sessions: Sessions,
    store: Store,
    owner: Owner,
    lanes: Mutex<HashMap<String, Weak<Lane>>>,
    shutdown: Shutdown,
}

/// What outlives a turn of a session in this process. A face that holds it across turns keeps
/// what was agreed to "always".
#[derive(Default)]
pub struct Lane {
    turn: tokio::sync::Mutex<()>,
    consents: Arc<crate::agent::Consents>,
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
}

impl Hub {
    /// A hub for this agent.
    pub fn new(agent: Arc<Agent>, sessions: Sessions, store: Store, shutdown: Shutdown) -> Arc<Self> {
        let lanes = Mutex::default();
        Arc::new(Self { agent, sessions, store, owner: Owner::new(), lanes, shutdown })
    }

    /// Accepts a message. The turn begins when the session is free; `asks` says whether the
    /// face will answer [`EventKind::Approval`].
    pub async fn submit(self: &Arc<Self>, incoming: Incoming, asks: bool) -> Result<Running, Error> {
        let id = match incoming.session {
            Some(id) => self.sessions.resolve(&id).await?.id,
            None => self.sessions.create(self.agent.workspace(), Timestamp::now()).await?.id().to_owned(),
        };
        let turn = uuid::Uuid::now_v7().to_string();
        let cancel = self.shutdown.signal().child_token();
        let (outbox, events) = Outbox::new(id.clone(), turn.clone());
        let lane = self.lane(&id);
        let running = Running {
            session: id.clone(),
            turn: turn.clone(),
            events,
            cancel: cancel.clone(),
            lane: lane.clone(),
        };
        let hub = self.clone();
        let play = Play {
            turn,
            message: incoming.message,
            cancel,
            events: Arc::new(move |kind| outbox.send(kind)),
            asks,
            consents: lane.consents.clone(),
        };
        self.shutdown.spawn(async move { hub.play(&id, &lane, play).await });
        Ok(running)
    }

    fn lane(&self, session: &str) -> Arc<Lane> {
        let mut lanes = self.lanes.lock().expect("no panic while held");
        lanes.retain(|_, lane| lane.strong_count() > 0);
        if let Some(lane) = lanes.get(session).and_then(Weak::upgrade) {
            return lane;
        }
        let lane = Arc::new(Lane::default());
        lanes.insert(session.to_owned(), Arc::downgrade(&lane));
        lane
    }

    /// One turn from the wait for its session to the last event.
    async fn play(&self, id: &str, lane: &Lane, play: Play) {
        let events = play.events.clone();
        let alone = tokio::select! {
            alone = lane.turn.lock() => alone,
            () = play.cancel.cancelled() => return events(EventKind::Finished(cancelled())),
        };
        let finished = self.leased(id, play).await;
        drop(alone);
        events(EventKind::Finished(finished));
        // Nobody waits for this but the end of the program.
        self.agent.settle().await;
    }

    /// A person's verdict on the last turn of a session. Returns whether there was one.
    pub async fn judge(&self, session: &str, good: bool) -> Result<bool, String> {
        self.agent.judge(session, good).await.map_err(|error| error.to_string())
    }

    /// Plays the turn while the session is leased.
    async fn leased(&self, id: &str, play: Play) -> Finished {
        let lease = match self.claim(id, &play).await {
            Ok(lease) => lease,
            Err(finished) => return finished,
        };
        let finished = self.held(id, play, &lease).await;
        if let Err(error) = lease::release(&self.store, &lease).await {
            tracing::warn!(session = id, "the lease of a session stays until it ends: {error}");
        }
        finished
    }

    /// Plays the turn while the lease is kept alive; a lease that is lost ends it.
    async fn held(&self, id: &str, play: Play, lease: &Lease) -> Finished {
        let cancel = play.cancel.clone();
        let mut work = std::pin::pin!(self.begun(id, play));
        loop {
            tokio::select! {
                finished = &mut work => return finished,
                () = tokio::time::sleep(LEASE / 3) => {
                    if let Ok(None) = lease::renew(&self.store, lease, LEASE, Timestamp::now()).await {
                        tracing::error!(session = id, "another process took the session; the turn ends");
                        cancel.cancel();
                    }
                }
            }
        }
    }

    /// Stores the message, which is what acknowledges it, and lets the agent play.
    async fn begun(&self, id: &str, play: Play) -> Finished {
        let stored = async {
            let mut session = self.sessions.open(id).await?;
            let began = Entry::TurnBegan(Began { model: self.agent.model().to_owned() });
            let entries = vec![began, Entry::Message(play.message.clone())];
            self.sessions.append(&mut session, &play.turn, entries, Timestamp::now()).await?;
            Ok::<Session, session::Error>(session)
        };
        match stored.await {
            Ok(session) => {
                (play.events)(EventKind::Started { model: self.agent.model().to_owned() });
                self.agent.turn(&self.sessions, session, play).await
            }
            Err(error) => failed(error.to_string()),
        }
    }

    /// Waits for the session's lease.
    async fn claim(&self, id: &str, play: &Play) -> Result<Lease, Finished> {
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
                    (play.events)(EventKind::Notice { text });
                }
                Ok(Acquired::Held { .. }) => {}
                Err(store::Error::Busy { .. }) => {}
                Err(error) => return Err(failed(error.to_string())),
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
                () = play.cancel.cancelled() => return Err(cancelled()),
            }
        }
    }
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
