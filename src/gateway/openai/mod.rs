//! What programs expect that were written for OpenAI: the list of models, and chat completions.
//!
//! The assistant calls its own tools and says so in the field `omni`, never in `tool_calls`: there
//! they would be for the caller to run. Other fields and events are avoided where a client that
//! does not know us would stumble over them.

mod answer;
mod request;

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::Gateway;
use super::body::{LARGE, Sent};
use super::error::Error;
use super::key::{Again, replayed, unkept};
use super::openapi;
use crate::hub::{Order, session_id};
use crate::message::Incoming;
use answer::{Answer, Chunks};
use request::Request;

pub(super) use answer::progress;
pub(super) use request::picture;

/// The only model there is: the assistant.
pub(super) const MODEL: &str = "omni";
/// Names the session that a request belongs to.
const SESSION: &str = "x-omni-session";

/// The models: the assistant is the only one.
#[utoipa::path(get, path = "/v1/models", responses((status = 200, body = openapi::Models)))]
pub(super) async fn models(State(gateway): State<Arc<Gateway>>) -> Json<Value> {
    Json(json!({"object": "list", "data": [described(&gateway)]}))
}

/// A model.
#[utoipa::path(
    get, path = "/v1/models/{id}", params(("id" = String, Path)), responses((status = 200, body = openapi::Model)),
)]
pub(super) async fn model(
    State(gateway): State<Arc<Gateway>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Error> {
    match id == MODEL {
        true => Ok(Json(described(&gateway))),
        false => Err(no_model(&id)),
    }
}

fn described(gateway: &Gateway) -> Value {
    json!({"id": MODEL, "object": "model", "created": gateway.began.as_second(), "owned_by": "omni"})
}

pub(super) fn no_model(id: &str) -> Error {
    Error::unknown("model_not_found", format!("there is no model `{id}`; it is called `{MODEL}` here"))
        .of("model")
}

/// Chat, in OpenAI's protocol.
#[utoipa::path(
    post, path = "/v1/chat/completions", request_body = Request,
    responses((status = 200, content((openapi::Completion = "application/json"), (openapi::Told = "text/event-stream")))),
)]
pub(super) async fn chat(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    again: Again,
    Sent(request): Sent<Request, LARGE>,
) -> Result<Response, Error> {
    let model = request.model.clone().unwrap_or_else(|| MODEL.to_owned());
    if model != MODEL && !gateway.setting.any_model {
        return Err(no_model(&model));
    }
    let header = headers.get(SESSION).map(|key| key.to_str().map_err(|_| unreadable())).transpose()?;
    let key = header.map(str::to_owned).or_else(|| request.session());
    let (stream, usage) = (request.stream, request.counts_usage());
    let said = request.said()?;
    let session = match &key {
        Some(key) if key.trim().is_empty() => return Err(Error::invalid("the id of the session is empty")),
        Some(key) => Some(session_id(key.trim())),
        None => None,
    };
    // Where the session is ours, so is the conversation.
    let earlier = session.is_none().then_some(said.earlier);
    let incoming = Incoming { session, message: said.message };
    let order = Order { begins: true, instructions: said.instructions, earlier, ..Order::new(incoming) };
    let again = again
        .key(&json!({"chat": order.incoming.message, "session": key, "instructions": order.instructions}));
    if again.is_some() && key.is_none() {
        return Err(unkept(
            "a chat is not kept here, so there is no answer to come back to; name a session with it: `X-Omni-Session`",
        ));
    }
    let turn = gateway.begin(order, again).await?;
    let (is_known, answer) = (turn.is_known, Answer::new(model, key, &turn));
    let response = match stream {
        true => {
            let mut chunks = Chunks::new(answer, usage);
            turn.stream(vec![chunks.first()], move |event| chunks.of(event))
        }
        false => Json(answer.whole(&turn.finished().await?)).into_response(),
    };
    Ok(replayed(response, is_known))
}

fn unreadable() -> Error {
    Error::invalid(format!("the header `{SESSION}` is no plain text"))
}
