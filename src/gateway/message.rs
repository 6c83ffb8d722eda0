//! `POST /message`: one message, one answer.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response, sse};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Gateway;
use super::body::Sent;
use super::error::Error;
use super::guard::RequestId;
use crate::hub::Order;
use crate::message::event::StopReason;
use crate::message::{Event, Incoming, Message};

/// What is said, and where: the session is whatever the caller calls it, and a new one if it does not.
#[derive(Debug, Deserialize)]
pub(super) struct Request {
    session_id: Option<String>,
    message: String,
    #[serde(default)]
    stream: bool,
}

pub(super) async fn post(
    State(gateway): State<Arc<Gateway>>,
    Extension(id): Extension<RequestId>,
    Sent(request): Sent<Request>,
) -> Result<Response, Error> {
    let message = request.message.trim();
    if message.is_empty() {
        return Err(Error::invalid("`message` is empty").of("message"));
    }
    let key = request.session_id.as_deref().map(str::trim);
    let session = match key {
        Some("") => return Err(Error::invalid("`session_id` is empty").of("session_id")),
        Some(key) => Some(gateway.hub.session(key).await?),
        None => None,
    };
    let incoming = Incoming { session, message: Message::user(message) };
    let turn = gateway.begin(Order { incoming, asks: false, instructions: None, earlier: None }).await?;
    if request.stream {
        return Ok(turn.stream(Vec::new(), move |event| vec![native(event, &id.0)]));
    }
    let session = key.unwrap_or(&turn.session).to_owned();
    let finished = turn.finished().await?;
    let mut answer = json!({"output": finished.text, "session_id": session});
    if finished.stop != StopReason::Answered {
        answer["stop"] = json!(finished.stop);
    }
    Ok(Json(answer).into_response())
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
