//! A turn as somebody waits for it.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{Response, sse};
use futures::stream::{self, StreamExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Gateway;
use super::error::Error;
use super::stream::stream;
use crate::hub::{Events, Order};
use crate::message::Event;
use crate::message::event::{EventKind, Finished, StopReason};

/// How long a turn goes on when whoever asked has gone.
const GRACE: Duration = Duration::from_secs(5);

/// A turn that somebody waits for. When this is dropped it ends soon.
pub(super) struct Turn {
    pub(super) session: String,
    pub(super) id: String,
    events: Events,
    cancel: CancellationToken,
    timeout: Duration,
    deadline: Instant,
    over: bool,
}

impl Gateway {
    /// Gives a message to the hub.
    pub(super) async fn begin(self: &Arc<Self>, order: Order) -> Result<Turn, Error> {
        let timeout = self.setting.turn_timeout;
        let deadline = Instant::now() + timeout;
        let running = self.hub.order(order).await?;
        let (session, id) = (running.session, running.turn);
        let (events, cancel) = (running.events, running.cancel);
        Ok(Turn { session, id, events, cancel, timeout, deadline, over: false })
    }
}

impl Turn {
    /// What happens next, `None` after the end; an error when the time is over, which ends the turn.
    pub(super) async fn next(&mut self) -> Option<Result<Event, Error>> {
        if self.over {
            return None;
        }
        match tokio::time::timeout_at(self.deadline, self.events.next()).await {
            Ok(event) => {
                self.over = event.as_ref().is_none_or(|event| matches!(event.kind, EventKind::Finished(_)));
                event.map(Ok)
            }
            Err(_) => {
                self.over = true;
                self.cancel.cancel();
                Some(Err(Error::elapsed(self.timeout.as_secs_f64())))
            }
        }
    }

    /// Waits for the end.
    pub(super) async fn finished(mut self) -> Result<Finished, Error> {
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

impl Drop for Turn {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let cancel = self.cancel.clone();
        tokio::spawn(async move {
            tokio::time::sleep(GRACE).await;
            cancel.cancel();
        });
    }
}

/// Whether a turn that ended has an answer.
pub(super) fn outcome(finished: Finished) -> Result<Finished, Error> {
    let bad = |code, detail| {
        let reason = finished.error.as_deref().unwrap_or_default();
        tracing::warn!("a turn has no answer: {code}: {reason}");
        Err(Error::new(StatusCode::BAD_GATEWAY, code, detail))
    };
    match finished.stop {
        stop if stop.is_answer() => Ok(finished),
        StopReason::Cancelled => {
            let detail = "the turn was cancelled before there was an answer";
            Err(Error::new(StatusCode::SERVICE_UNAVAILABLE, "cancelled", detail).after(5))
        }
        StopReason::Unauthorized => {
            bad("model_unauthorized", "the model's provider refused the key it was given")
        }
        StopReason::ModelFailed => bad("model_failed", "no model gave an answer; the log says why"),
        _ => Err(Error::broken(finished.error.unwrap_or_default())),
    }
}
