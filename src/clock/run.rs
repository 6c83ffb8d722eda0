//! One run of a job: a turn in a session of its own, or a tool that is called without a model.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Clock, LOOK};
use crate::hub::{self, Order};
use crate::message::event::{EventKind, Finished, StopReason};
use crate::message::{Arguments, Incoming, Message, ToolCall};
use crate::store::job::{Ending, LEASE, Run, Taken, Task};
use crate::tool;

/// What the assistant has to know of it.
const UNATTENDED: &str = "This is a job that runs by itself: nobody reads along and nobody can be asked. Do what is \
    asked, and answer with the result alone, for somebody who reads it later.";
/// What it is told when it begins anew.
const AGAIN: &str = "The program was stopped while you worked on this. Look at what is done already, do not do it twice, \
    and go on:";

/// Why a run is ended from outside.
#[derive(PartialEq, Eq)]
enum Word {
    /// Somebody wants it to end.
    Wish,
    /// Another process has it.
    Lost,
}

impl Clock {
    /// Plays a run to its end, and writes down how it ended.
    pub(super) async fn play(&self, taken: Taken) {
        let cancel = self.shutdown.signal().child_token();
        let mut word = None;
        let ending = {
            let mut work = std::pin::pin!(self.work(&taken, &cancel));
            let mut watch = std::pin::pin!(self.watch(&taken));
            loop {
                tokio::select! {
                    ending = &mut work => break ending,
                    heard = &mut watch, if word.is_none() => {
                        word = Some(heard);
                        cancel.cancel();
                    }
                }
            }
        };
        let is_wish = word == Some(Word::Wish);
        let done = match ending {
            _ if word == Some(Word::Lost) => {
                tracing::error!(job = taken.job.id, "another process took the job; this one leaves it");
                return;
            }
            // Nobody wanted that but the end of the program.
            Ending { is_cancelled: true, .. } if !is_wish => self.jobs().leave(&taken).await,
            ending => self.jobs().ended(&taken, &ending, self.now()).await,
        };
        if let Err(error) = done {
            // Its lease ends, and it is taken up once more.
            tracing::error!(job = taken.job.id, "how a job ended was not written down: {error}");
        }
    }

    /// Keeps the job ours until somebody wants it to end.
    async fn watch(&self, taken: &Taken) -> Word {
        let (mut lease, mut renewed) = (taken.lease.clone(), self.now());
        loop {
            tokio::time::sleep(LOOK).await;
            if matches!(self.jobs().wished(&taken.run.id).await, Ok(true)) {
                return Word::Wish;
            }
            if self.now().duration_since(renewed).unsigned_abs() < LEASE / 3 {
                continue;
            }
            match self.jobs().keep(&lease, self.now()).await {
                Ok(Some(kept)) => (lease, renewed) = (kept, self.now()),
                Ok(None) => return Word::Lost,
                Err(error) => tracing::warn!(job = taken.job.id, "a job could not be kept: {error}"),
            }
        }
    }

    async fn work(&self, taken: &Taken, cancel: &CancellationToken) -> Ending {
        let worked = match &taken.job.task {
            Task::Ask { ask } => self.ask(&taken.run, ask, cancel).await,
            Task::Call { tool, arguments } => {
                Ok(self.call(tool, Arguments::Object(arguments.clone()), cancel).await)
            }
        };
        worked.unwrap_or_else(|error| Ending { error: Some(error), ..Ending::default() })
    }

    async fn call(&self, tool: &str, arguments: Arguments, cancel: &CancellationToken) -> Ending {
        let mut scope = self.hub.scope();
        scope.cancel = cancel.clone();
        scope.whole = true;
        let call = ToolCall { id: uuid::Uuid::now_v7().to_string(), name: tool.to_owned(), arguments };
        let outcome = self.hub.toolbox().call(call.clone(), &Arc::new(scope)).await;
        match outcome {
            Ok(output) => Ending { output: tool::result(&call, Ok(output)).text(), ..Ending::default() },
            Err(error) => Ending {
                is_cancelled: error == tool::Error::Cancelled,
                error: Some(error.to_string()),
                ..Ending::default()
            },
        }
    }

    async fn ask(&self, run: &Run, ask: &str, cancel: &CancellationToken) -> Result<Ending, String> {
        let session = self.hub.session(&run.session).await.map_err(|error| error.to_string())?;
        let before = self.hub.sessions().resolve(&session).await.map_err(|error| error.to_string())?;
        let text = if before.messages > 0 { format!("{AGAIN}\n\n{ask}") } else { ask.to_owned() };
        let incoming = Incoming { session: Some(session), message: Message::user(text) };
        let instructions = Some(UNATTENDED.to_owned());
        let order = Order { instructions, purse: Some(self.purse.clone()), ..Order::new(incoming) };
        let Some(mut running) = self.order(order, cancel).await? else {
            return Ok(Ending { is_cancelled: true, ..Ending::default() });
        };
        let mut is_told = false;
        loop {
            let event = tokio::select! {
                event = running.events.next() => event,
                () = cancel.cancelled(), if !is_told => {
                    is_told = true;
                    running.cancel.cancel();
                    continue;
                }
            };
            match event.map(|event| event.kind) {
                Some(EventKind::Finished(finished)) => return Ok(ending(finished)),
                Some(_) => {}
                None => return Err("the turn ended without a result".to_owned()),
            }
        }
    }

    /// Hands an order to the hub, which may have no room for a while; `None` if it is cancelled.
    async fn order(&self, order: Order, cancel: &CancellationToken) -> Result<Option<hub::Running>, String> {
        loop {
            match self.hub.order(order.clone()).await {
                Ok(running) => return Ok(Some(running)),
                Err(hub::Error::Draining) => return Ok(None),
                Err(hub::Error::Busy | hub::Error::Full(_)) => {}
                Err(error) => return Err(error.to_string()),
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = cancel.cancelled() => return Ok(None),
            }
        }
    }
}

fn ending(finished: Finished) -> Ending {
    let Finished { text, stop, error, usage, .. } = finished;
    let ending = Ending { output: text, tokens: usage.total(), ..Ending::default() };
    let error = |otherwise: &str| Some(error.unwrap_or_else(|| otherwise.to_owned()));
    match stop {
        StopReason::Answered | StopReason::Length => ending,
        StopReason::Cancelled => Ending { is_cancelled: true, error: Some("cancelled".to_owned()), ..ending },
        StopReason::Limit | StopReason::Loop => {
            Ending { error: error("it reached a limit before it was done"), ..ending }
        }
        StopReason::Unauthorized | StopReason::ModelFailed | StopReason::Exhausted | StopReason::Failed => {
            Ending { error: error("no model gave an answer"), ..ending }
        }
    }
}
