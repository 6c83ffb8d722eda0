//! `POST /message`: one message, one answer.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderValue;
use axum::response::{IntoResponse, Response, sse};
use axum::{Extension, Json};
use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;
use utoipa::ToSchema;

use super::Gateway;
use super::body::Sent;
use super::error::Error;
use super::guard::RequestId;
use super::key::{Again, REPLAYED};
use super::openapi;
use super::turn::outcome;
use crate::hub::Order;
use crate::hub::run::Key;
use crate::message::event::{Finished, StopReason};
use crate::message::{Event, Incoming, Message};

/// What is said, and where: the session is whatever the caller calls it, and a new one if it does not.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = Message)]
pub(super) struct Request {
    session_id: Option<String>,
    message: String,
    #[serde(default)]
    stream: bool,
}

/// The answer, and the session it is in.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Answer {
    output: String,
    session_id: String,
    /// Why the turn ended before the assistant was done: `length`, `limit` or `loop`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    stop: Option<StopReason>,
}

/// Say something, and get the answer, or with `stream` everything that happens.
#[utoipa::path(
    post, path = "/message", request_body = Request,
    responses((status = 200, content((Answer = "application/json"), (openapi::Told = "text/event-stream")))),
)]
pub(super) async fn post(
    State(gateway): State<Arc<Gateway>>,
    Extension(id): Extension<RequestId>,
    again: Again,
    Sent(request): Sent<Request>,
) -> Result<Response, Error> {
    let message = request.message.trim();
    if message.is_empty() {
        return Err(Error::invalid("`message` is empty").of("message"));
    }
    let name = request.session_id.as_deref().map(str::trim);
    let session = match name {
        Some("") => return Err(Error::invalid("`session_id` is empty").of("session_id")),
        Some(name) => Some(gateway.hub.session(name).await?),
        None => None,
    };
    let incoming = Incoming { session, message: Message::user(message) };
    let order = Order::new(incoming);
    if let Some(key) = again.key(&json!({"message": message, "session": name})) {
        return kept(&gateway, order, key, request.stream, name, id.0).await;
    }
    let turn = gateway.begin(order).await?;
    if request.stream {
        return Ok(turn.stream(Vec::new(), move |event| vec![native(event, &id.0)]));
    }
    let session = name.unwrap_or(&turn.session).to_owned();
    Ok(Json(answer(turn.finished().await?, &session)).into_response())
}

/// The same, for a message that may be sent again: its turn is a run, which goes on when the caller
/// is gone, and whose answer is there for whoever comes again with the key.
async fn kept(
    gateway: &Gateway,
    order: Order,
    key: Key,
    stream: bool,
    name: Option<&str>,
    request: Arc<str>,
) -> Result<Response, Error> {
    let timeout = gateway.setting.turn_timeout;
    let deadline = Instant::now() + timeout;
    let run = gateway.hub.run(order, Some(key)).await?.retried().await?;
    let (known, session) = (run.is_known, name.unwrap_or(&run.session).to_owned());
    let mut response = match stream {
        true => {
            let events = run.events(0);
            let late = async move {
                tokio::time::sleep_until(deadline).await;
                run.cancel().await.err().map_or_else(|| Error::elapsed(timeout.as_secs_f64()), Into::into)
            };
            let ended = stream::unfold(Some((Box::pin(events), Box::pin(late))), move |open| {
                let request = request.clone();
                async move {
                    let (mut events, mut late) = open?;
                    tokio::select! {
                        event = events.next() => Some((native(Ok(event?), &request), Some((events, late)))),
                        error = &mut late => Some((native(Err(error), &request), None)),
                    }
                }
            });
            super::stream::stream(ended)
        }
        false => match tokio::time::timeout_at(deadline, run.finished()).await {
            Ok(finished) => match finished? {
                Some(finished) => Json(answer(outcome(finished)?, &session)).into_response(),
                None => return Err(Error::draining()),
            },
            Err(_) => {
                run.cancel().await?;
                return Err(Error::elapsed(timeout.as_secs_f64()));
            }
        },
    };
    if known {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

fn answer(finished: Finished, session: &str) -> Answer {
    let stop = Some(finished.stop).filter(|stop| *stop != StopReason::Answered);
    Answer { output: finished.text, session_id: session.to_owned(), stop }
}

/// An event as `omni ask --json` prints it; the last one is of type `result`, or an error.
pub(super) fn native(event: Result<Event, Error>, request: &str) -> sse::Event {
    let (id, kind, value) = match event {
        Ok(event) => {
            let value = serde_json::to_value(&event).unwrap_or_default();
            let kind = value["type"].as_str().unwrap_or_default().to_owned();
            (event.id.to_string(), kind, value)
        }
        Err(error) => return sse::Event::default().event("error").data(error.problem(request).to_string()),
    };
    sse::Event::default().id(id).event(kind).data(Value::to_string(&value))
}
