//! A call that its server has made a task: it is not waited for, but looked after. It is looked at
//! now and then, what it asks is answered, and when nobody wants it any more it is cancelled.
//! (SEP-2663, `io.modelcontextprotocol/tasks`.)

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use rmcp::model::{
    CallToolResult, CancelTaskParams, ErrorCode, ErrorData, GetTaskParams, ProgressToken, Task, TaskPayload,
    UpdateTaskParams,
};
use rmcp::service::{Peer, RoleClient, ServiceError};
use serde::Deserialize as _;
use serde_json::Value;

use super::asked::{self, Calls};
use super::client::Fault;
use super::convert;
use super::open::{Refusal, short};
use crate::tool::{Context, Error, Output, Progress};

/// Between two looks: where the server says nothing, and whatever it says.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(30));
/// How long one look may take.
const LOOK: Duration = Duration::from_secs(30);
/// Looks in a row that may come to nothing: a server behind an address may be away for a moment.
const MISSES: u32 = 5;
/// How many things a task may ask for.
const QUESTIONS: usize = 100;
/// How long it may take to say that nobody wants it any more.
const PARTING: Duration = Duration::from_secs(5);

/// A task of a server. Dropping it cancels it, unless it is over.
pub(super) struct Tended {
    peer: Peer<RoleClient>,
    id: String,
    /// The calls that go on, where its own stays until it is over, and the word it is found by there.
    calls: Calls,
    token: ProgressToken,
    over: bool,
}

impl Tended {
    pub(super) fn new(peer: Peer<RoleClient>, id: &str, calls: Calls, token: ProgressToken) -> Self {
        Self { peer, id: id.to_owned(), calls, token, over: false }
    }

    /// Looks after it until it is over, or the call is cancelled.
    pub(super) async fn end(
        mut self,
        task: Task,
        context: &Context,
        roots: Option<&Path>,
    ) -> Result<Output, Fault> {
        let cancel = context.cancel.clone();
        let ended = cancel.run_until_cancelled(self.watch(task, context, roots)).await;
        ended.unwrap_or(Err(Fault::Told(Error::Cancelled)))
    }

    async fn watch(
        &mut self,
        mut task: Task,
        context: &Context,
        roots: Option<&Path>,
    ) -> Result<Output, Fault> {
        let (mut misses, mut news, mut answered) = (0, 0.0, HashSet::new());
        loop {
            if !task.status.is_terminal() {
                let pause = task.poll_interval_ms.map_or(PAUSE, Duration::from_millis);
                tokio::time::sleep(pause.clamp(PAUSES.0, PAUSES.1)).await;
            }
            let looked = self.peer.get_task(GetTaskParams::new(&self.id));
            let now = match tokio::time::timeout(LOOK, looked).await {
                Ok(Ok(found)) => found.task,
                // It does not know it, or not any more.
                Ok(Err(ServiceError::McpError(error))) => {
                    self.over = true;
                    return Err(told(error));
                }
                Err(_) | Ok(Err(ServiceError::TransportSend(_))) if misses < MISSES => {
                    misses += 1;
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                // To call again, signed in anew, would be to do it twice.
                Ok(Err(error)) => match Refusal::of_request(&error) {
                    Refusal { challenge: Some(_), reason } => {
                        return Err(Fault::Told(Error::Failed(reason)));
                    }
                    _ => return Err(Fault::Lost),
                },
                Err(_) => return Err(Fault::Lost),
            };
            misses = 0;
            let (before, payload) = (std::mem::replace(&mut task, now.task), now.payload);
            self.over = task.status.is_terminal();
            // That it goes on working is no sign of life; that it says something is.
            let said = |task: &Task| (task.last_updated_at.clone(), task.status_message.clone());
            if said(&before) != said(&task) {
                news += 1.0;
                let message = task.status_message.as_deref().map(short);
                (context.progress)(Progress { progress: news, total: None, message });
            }
            match payload {
                TaskPayload::InputRequired { mut input_requests } => {
                    input_requests.retain(|key, _| !answered.contains(key));
                    answered.extend(input_requests.keys().cloned());
                    if answered.len() > QUESTIONS {
                        let reason = format!("the tool has asked {QUESTIONS} times and has no result");
                        return Err(Fault::Told(Error::Failed(reason)));
                    }
                    if input_requests.is_empty() {
                        continue;
                    }
                    let answers =
                        asked::answers(context, input_requests, roots).await.map_err(Fault::Told)?;
                    // Whether it has arrived is seen at the next look.
                    let _ = self.peer.update_task(UpdateTaskParams::new(&self.id, answers)).await;
                }
                TaskPayload::Completed { result } => {
                    let none =
                        |error| Error::Failed(format!("the server has answered with no result: {error}"));
                    let result = CallToolResult::deserialize(Value::Object(result));
                    let result = result.map_err(|error| Fault::Told(none(error)))?;
                    return convert::from_result(result).map_err(Fault::Told);
                }
                TaskPayload::Failed { error } => {
                    let error = ErrorData::deserialize(Value::Object(error));
                    return Err(error.map_or_else(
                        |_| Fault::Told(Error::Failed("it has failed, and does not say why".to_owned())),
                        told,
                    ));
                }
                TaskPayload::Cancelled => {
                    return Err(Fault::Told(Error::Failed("the server has given it up".to_owned())));
                }
                _ => {}
            }
        }
    }
}

impl Drop for Tended {
    fn drop(&mut self) {
        let (peer, calls, token) = (self.peer.clone(), self.calls.clone(), self.token.clone());
        let cancelled = (!self.over).then(|| CancelTaskParams::new(&self.id));
        tokio::spawn(async move {
            calls.remove(&token).await;
            if let Some(cancelled) = cancelled {
                let _ = tokio::time::timeout(PARTING, peer.cancel_task(cancelled)).await;
            }
        });
    }
}

/// What the server says of why there is no result.
pub(super) fn told(error: ErrorData) -> Fault {
    let reason = short(&error.message);
    Fault::Told(if error.code == ErrorCode::INVALID_PARAMS {
        Error::Retry(reason)
    } else {
        Error::Failed(reason)
    })
}
