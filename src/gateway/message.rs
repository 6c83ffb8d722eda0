//! `POST /message`: one message, one answer.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response, sse};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Gateway;
use super::body::Sent;
use super::error::Error;
use super::guard::RequestId;
use super::key::{Again, replayed};
use super::openapi;
use crate::hub::{Order, session_id};
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
        Some(name) => Some(session_id(name)),
        None => None,
    };
    let incoming = Incoming { session, message: Message::user(message) };
    let order = Order { begins: true, ..Order::new(incoming) };
    let key = again.key(&json!({"message": message, "session": name}));
    let turn = gateway.begin(order, key).await?;
    let (is_known, session) = (turn.is_known, name.unwrap_or(&turn.session).to_owned());
    let response = match request.stream {
        true => turn.stream(Vec::new(), move |event| vec![native(event, &id.0)]),
        false => Json(answer(turn.finished().await?, &session)).into_response(),
    };
    Ok(replayed(response, is_known))
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
