//! A turn as somebody waits for it.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{Response, sse};
use futures::stream::{self, BoxStream, StreamExt};
use tokio::time::Instant;

use super::Gateway;
use super::error::Error;
use super::stream::stream;
use crate::hub::run::Key;
use crate::hub::{Events, Order, Run};
use crate::message::Event;
use crate::message::event::{EventKind, Finished, StopReason};

/// How long a turn goes on when whoever asked has gone.
const GRACE: Duration = Duration::from_secs(5);

/// Ends a turn, by itself soon after whoever waited for it has gone.
pub(super) struct Leash {
    stop: Option<Box<dyn FnOnce() + Send>>,
    /// Whoever has gone may come again.
    is_loose: bool,
}

/// A turn that somebody waits for. When this is dropped it ends soon, unless they have a key to come
/// again with.
pub(super) struct Turn {
    pub(super) session: String,
    pub(super) id: String,
    /// Whether it was asked for before, by the same key.
    pub(super) is_known: bool,
    source: Source,
    leash: Leash,
    timeout: Duration,
    deadline: Instant,
}

/// Who tells what happens in a turn.
enum Source {
    /// The hub, once, to whoever waits.
    Hub(Events),
    /// The database, to whoever comes again as well.
    Run(BoxStream<'static, Event>, Run),
}

impl Source {
    async fn next(&mut self) -> Result<Option<Event>, Error> {
        let (events, run) = match self {
            Self::Hub(events) => return Ok(events.next().await),
            Self::Run(events, run) => (events, run),
        };
        if let Some(event) = events.next().await {
            return Ok(Some(event));
        }
        // Its events are known less long than how it ended, and nothing of it where the program stops.
        let finished = run.finished().await?.ok_or_else(Error::draining)?;
        let (session, turn) = (run.session.clone(), run.id.clone());
        Ok(Some(Event { id: run.before + 1, session, turn, kind: EventKind::Finished(finished) }))
    }
}

impl Gateway {
    /// Gives a message to the hub; with a key, the turn is the one that was asked for by it before.
    pub(super) async fn begin(self: &Arc<Self>, order: Order, key: Option<Key>) -> Result<Turn, Error> {
        let timeout = self.setting.turn_timeout;
        let deadline = Instant::now() + timeout;
        let Some(key) = key else {
            let running = self.hub.order(order).await?;
            let (session, id, source) = (running.session, running.turn, Source::Hub(running.events));
            let leash = Leash::new(move || running.cancel.cancel());
            return Ok(Turn { session, id, is_known: false, source, leash, timeout, deadline });
        };
        let run = self.hub.run(order, Some(key)).await?.retried().await?;
        let (session, id, is_known) = (run.session.clone(), run.id.clone(), run.is_known);
        let leash = Leash::new(|| ()).loose();
        let source = Source::Run(run.events(run.before).boxed(), run);
        Ok(Turn { session, id, is_known, source, leash, timeout, deadline })
    }
}

impl Leash {
    /// `stop` is what ends the turn.
    pub(super) fn new(stop: impl FnOnce() + Send + 'static) -> Self {
        Self { stop: Some(Box::new(stop)), is_loose: false }
    }

    /// The same for a turn that goes on when whoever asked has gone.
    pub(super) fn loose(mut self) -> Self {
        self.is_loose = true;
        self
    }

    /// The turn is over.
    pub(super) fn slip(&mut self) {
        self.stop = None;
    }

    fn is_off(&self) -> bool {
        self.stop.is_none()
    }

    /// Ends the turn now.
    pub(super) fn pull(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop();
        }
    }
}

impl Turn {
    /// What happens next, `None` after the end; an error when the time is over, which ends the turn.
    pub(super) async fn next(&mut self) -> Option<Result<Event, Error>> {
        if self.leash.is_off() {
            return None;
        }
        match tokio::time::timeout_at(self.deadline, self.source.next()).await {
            Ok(Ok(Some(event))) => {
                if matches!(event.kind, EventKind::Finished(_)) {
                    self.leash.slip();
                }
                Some(Ok(event))
            }
            Ok(end) => {
                self.leash.slip();
                end.transpose()
            }
            Err(_) => Some(Err(self.late().await)),
        }
    }

    /// The time is over.
    async fn late(&mut self) -> Error {
        self.leash.pull();
        // Whoever hears of it and comes again at once finds it given up.
        if let Source::Run(_, run) = &self.source
            && let Err(error) = run.cancel().await
        {
            return error.into();
        }
        Error::elapsed(self.timeout.as_secs_f64())
    }

    /// Waits for the end.
    pub(super) async fn finished(mut self) -> Result<Finished, Error> {
        if let Source::Run(_, run) = &self.source {
            let Ok(finished) = tokio::time::timeout_at(self.deadline, run.finished()).await else {
                return Err(self.late().await);
            };
            return outcome(finished?.ok_or_else(Error::draining)?);
        }
        while let Some(event) = self.next().await {
            if let EventKind::Finished(finished) = event?.kind {
                return outcome(finished);
            }
        }
        Err(Error::broken("a turn ended without a result"))
    }

    /// Everything that happens as a stream; `told` says what of it, and in which form.
    pub(super) fn stream<F>(self, first: Vec<sse::Event>, told: F) -> Response
    where
        F: FnMut(Result<Event, Error>) -> Vec<sse::Event> + Send + 'static,
    {
        let later = stream::unfold((self, told), async |(mut turn, mut told)| {
            let events = told(turn.next().await?);
            Some((stream::iter(events), (turn, told)))
        });
        stream(stream::iter(first).chain(later.flatten()))
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        let Some(stop) = self.stop.take().filter(|_| !self.is_loose) else { return };
        tokio::spawn(async move {
            tokio::time::sleep(GRACE).await;
            stop();
        });
    }
}

/// Whether a turn that ended has an answer. Why it has none is for the log.
pub(super) fn outcome(finished: Finished) -> Result<Finished, Error> {
    let Some(error) = refusal(finished.stop, finished.error.as_deref()) else { return Ok(finished) };
    tracing::warn!("a turn has no answer: {}", finished.error.as_deref().unwrap_or(error.detail()));
    Err(error)
}

/// Why a turn that ended so has no answer.
pub(super) fn refusal(stop: StopReason, error: Option<&str>) -> Option<Error> {
    let bad = |code, detail| Some(Error::new(StatusCode::BAD_GATEWAY, code, detail));
    match stop {
        stop if stop.is_answer() => None,
        StopReason::Cancelled => {
            let detail = "the turn was cancelled before there was an answer";
            Some(Error::new(StatusCode::SERVICE_UNAVAILABLE, "cancelled", detail).after(5))
        }
        StopReason::Exhausted => {
            let detail = error.unwrap_or("a budget was used up while the message waited");
            Some(Error::new(StatusCode::TOO_MANY_REQUESTS, "budget_spent", detail))
        }
        StopReason::Unauthorized => {
            bad("model_unauthorized", "the model's provider refused the key it was given")
        }
        StopReason::ModelFailed => bad("model_failed", "no model gave an answer; the log says why"),
        _ => Some(Error::internal()),
    }
}
