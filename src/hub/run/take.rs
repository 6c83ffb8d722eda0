//! Runs that are taken, and played when their session is free.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::here::{End, Here};
use super::left::{Left, is_said, left};
use super::{Key, Run};
use crate::agent::Play;
use crate::hub::{Error, Hub, Lane, Order, counted, traced};
use crate::message::Message;
use crate::message::event::{Finished, StopReason};
use crate::session::{self, Began, Entry, Session};
use crate::store::run as table;
use crate::trace;

/// How long a question waits for a person where nobody says so; it is refused then.
const PATIENCE: Duration = Duration::from_secs(600);

/// What was asked for, as it is stored.
#[derive(Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) message: Message,
    pub(super) instructions: Option<String>,
    pub(super) asks: bool,
    #[serde(default)]
    pub(super) patience: Option<Duration>,
}

/// What a turn begins with.
pub(in crate::hub) enum Ground {
    /// The session, with the message in it.
    Ready(Session),
    /// The turn has ended already.
    Over(Finished),
}

impl Hub {
    /// Begins a run, or finds the one that was asked for by this key. It goes on when nobody listens,
    /// and it is taken whole or not at all, also when this future is dropped meanwhile.
    pub async fn run(self: &Arc<Self>, order: Order, key: Option<Key>) -> Result<Run, Error> {
        let hub = self.clone();
        self.undisturbed(async move { hub.take(order, key.as_ref()).await }).await
    }

    /// Does something to its end, even if whoever wants it is gone.
    pub(super) async fn undisturbed<T: Send + 'static>(
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
            && let Some(known) = self.asked(key).await?
        {
            return Ok(known);
        }
        let place = self.place()?;
        let Order { incoming, begins, asks, instructions, patience, .. } = order;
        let session = self.addressed(incoming.session, begins, None).await?;
        let lane = self.lane(&session);
        let queued = lane.place(&session)?;
        let id = uuid::Uuid::now_v7().to_string();
        let request = Request { message: incoming.message, instructions, asks, patience };
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
        Ok(Run { hub: self.clone(), id, session, is_known: false, before: 0 })
    }

    /// The run that was asked for by this key, if there is one.
    pub async fn asked(self: &Arc<Self>, key: &Key) -> Result<Option<Run>, Error> {
        let known = self.runs.table.asked(&key.asked).await?;
        known.map(|row| self.known(&row, key)).transpose()
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
        let (id, session) = (row.id.clone(), row.session.clone());
        Run { hub: self.clone(), id, session, is_known: false, before: 0 }
    }

    /// Takes note that a run is played here.
    pub(super) fn enter(&self, row: &table::Run, last: u64, is_new: bool) -> Arc<Here> {
        let here = Arc::new(Here::new(row, last, is_new, self.shutdown.signal().child_token()));
        self.runs.here().insert(row.id.clone(), here.clone());
        here
    }

    /// Plays a run when its session is free. `held` is given back at its end.
    pub(super) fn go<P: Send + 'static>(
        self: &Arc<Self>,
        here: Arc<Here>,
        request: Request,
        lane: Arc<Lane>,
        held: P,
    ) {
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

    pub(super) fn play_of(self: &Arc<Self>, here: &Arc<Here>, request: Request, lane: &Lane) -> Play {
        let (hub, heard) = (self.clone(), here.clone());
        here.wait(request.patience.unwrap_or(PATIENCE));
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
            meter: self.tab(&here.session, None).meter(),
        }
    }

    /// Says how a run ended. One that ends with the program, and not because somebody wanted it to,
    /// has not ended: it is taken up again.
    pub(super) fn ended(&self, here: &Here, finished: Finished) {
        counted(&finished);
        let is_wanted = !here.is_unwanted();
        here.end(match finished.stop {
            StopReason::Cancelled if is_wanted => End::Left,
            _ => End::Over(finished),
        });
        self.runs.news.notify_one();
    }

    /// Stores the message of a turn, and says from where it goes on. `again`: it may have begun before;
    /// what is stored is not stored twice then, and what has ended is not played again.
    pub(in crate::hub) async fn ground(
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
        if run.is_none() {
            self.sessions.append(&mut session, &play.turn, entries, now).await?;
            return Ok(Ground::Ready(session));
        }
        let mut write = self.sessions.begin().await?;
        if !self.runs.table.begin(&mut write, &play.turn, &self.owner).await? {
            return Err(session::Error::Moved(id.to_owned()));
        }
        self.sessions.add(&mut write, &session, &play.turn, &entries, now).await?;
        self.sessions.commit(write, &mut session, entries, now).await?;
        Ok(Ground::Ready(session))
    }
}
