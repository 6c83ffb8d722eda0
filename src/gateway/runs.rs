//! Turns that go on by themselves: begun, left, come back to, agreed to, cancelled.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures::StreamExt;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::Gateway;
use super::body::Sent;
use super::error::Error;
use super::guard::RequestId;
use super::key::{Again, replayed};
use super::message::native;
use super::openapi::{self, Described};
use super::stream::stream;
use crate::hub::run::{Question, Said};
use crate::hub::{Order, Run};
use crate::message::event::Consent;
use crate::message::{Incoming, Message};

#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = Turn)]
pub(super) struct Request {
    message: String,
    instructions: Option<String>,
}

/// Begin a turn that goes on by itself.
#[utoipa::path(
    post, path = "/api/v1/sessions/{id}/turns", params(("id" = String, Path)), request_body = Request,
    responses(
        (status = 202, body = Described), (status = 200, body = openapi::Told, content_type = "text/event-stream"),
    ),
)]
pub(super) async fn begin(
    State(gateway): State<Arc<Gateway>>,
    Path(name): Path<String>,
    again: Again,
    Extension(request): Extension<RequestId>,
    headers: HeaderMap,
    Sent(sent): Sent<Request>,
) -> Result<Response, Error> {
    let message = sent.message.trim();
    if message.is_empty() {
        return Err(Error::invalid("`message` is empty").of("message"));
    }
    let what = json!({"turn": message, "session": name, "instructions": sent.instructions});
    let key = again.key(&what);
    let session = Some(gateway.hub.session(&name).await?);
    let incoming = Incoming { session, message: Message::user(message) };
    let order = Order { asks: true, instructions: sent.instructions, ..Order::new(incoming) };
    let run = gateway.hub.run(order, key).await?;
    let response = match headers.get(header::ACCEPT).is_some_and(|kind| kind == "text/event-stream") {
        true => events_after(&run, 0, request),
        false => {
            let place = [(header::LOCATION, format!("/api/v1/runs/{}", run.id))];
            (StatusCode::ACCEPTED, place, described(&run).await?).into_response()
        }
    };
    Ok(replayed(response, run.is_known))
}

/// What became of a run.
#[utoipa::path(
    get, path = "/api/v1/runs/{id}", params(("id" = String, Path)), responses((status = 200, body = Described)),
)]
pub(super) async fn get(
    State(gateway): State<Arc<Gateway>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Error> {
    described(&known(&gateway, &id).await?).await
}

/// The events of a run, from the one after `Last-Event-ID`.
#[utoipa::path(
    get, path = "/api/v1/runs/{id}/events",
    params(("id" = String, Path), ("last-event-id" = Option<u64>, Header)),
    responses((status = 200, body = openapi::Told, content_type = "text/event-stream")),
)]
pub(super) async fn events(
    State(gateway): State<Arc<Gateway>>,
    Path(id): Path<String>,
    Extension(request): Extension<RequestId>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let run = known(&gateway, &id).await?;
    let last = match headers.get("last-event-id") {
        None => 0,
        Some(last) => last
            .to_str()
            .ok()
            .and_then(|last| last.parse().ok())
            .ok_or_else(|| Error::invalid("`Last-Event-ID` is not the number of an event"))?,
    };
    Ok(events_after(&run, last, request))
}

/// End a run early.
#[utoipa::path(
    post, path = "/api/v1/runs/{id}/cancel", params(("id" = String, Path)),
    responses((status = 202, body = Described)),
)]
pub(super) async fn cancel(
    State(gateway): State<Arc<Gateway>>,
    Path(id): Path<String>,
) -> Result<Response, Error> {
    let run = known(&gateway, &id).await?;
    run.cancel().await?;
    Ok((StatusCode::ACCEPTED, described(&run).await?).into_response())
}

/// How it went, as a person sees it.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct Feedback {
    good: bool,
}

/// Say whether a turn went well, which is remembered. Its answer may be long ago.
#[utoipa::path(
    post, path = "/api/v1/runs/{id}/feedback", params(("id" = String, Path)), request_body = Feedback,
    responses((status = 204)),
)]
pub(super) async fn judge(
    State(gateway): State<Arc<Gateway>>,
    Path(id): Path<String>,
    Sent(feedback): Sent<Feedback>,
) -> Result<StatusCode, Error> {
    match gateway.hub.judge_turn(&id, feedback.good).await.map_err(Error::broken)? {
        true => Ok(StatusCode::NO_CONTENT),
        false => {
            let detail =
                format!("there is no turn `{id}` to judge, or nothing is remembered: see `memory.enabled`");
            Err(Error::unknown("run_not_found", detail))
        }
    }
}

/// What a person says: `consent` to an approval, `answer` to a question.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = Approval)]
pub(super) struct Word {
    /// `once`, `always`, `no` or `never`.
    #[schema(value_type = Option<String>)]
    consent: Option<Consent>,
    answer: Option<Map<String, Value>>,
}

/// Answer what a call of a run waits for.
#[utoipa::path(
    post, path = "/api/v1/runs/{id}/approvals/{call}", params(("id" = String, Path), ("call" = String, Path)),
    request_body = Word, responses((status = 204)),
)]
pub(super) async fn approve(
    State(gateway): State<Arc<Gateway>>,
    Path((id, call)): Path<(String, String)>,
    Sent(word): Sent<Word>,
) -> Result<StatusCode, Error> {
    let nothing =
        || Error::unknown("nothing_asked", format!("the call `{call}` does not wait for an answer"));
    let run = known(&gateway, &id).await?;
    match run.asks(&call).await? {
        None => return Err(nothing()),
        Some(Question::Consent) if word.consent.is_none() => {
            return Err(Error::invalid("`consent` has to be once, always, no or never").of("consent"));
        }
        Some(_) => {}
    }
    let said = Said { consent: word.consent, answer: word.answer };
    match run.answer(&call, said).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(nothing()),
    }
}

async fn known(gateway: &Gateway, id: &str) -> Result<Run, Error> {
    gateway.hub.find_run(id).await?.ok_or_else(|| unknown(id))
}

fn unknown(id: &str) -> Error {
    let detail =
        format!("there is no run `{id}`, or it has been over for long; its session has what was said");
    Error::unknown("run_not_found", detail)
}

async fn described(run: &Run) -> Result<Json<Value>, Error> {
    let standing = run.standing().await?.ok_or_else(|| unknown(&run.id))?;
    let mut described = json!({"id": run.id, "session_id": run.session});
    if let (Value::Object(described), Value::Object(standing)) = (&mut described, json!(standing)) {
        described.extend(standing);
    }
    Ok(Json(described))
}

fn events_after(run: &Run, last: u64, RequestId(request): RequestId) -> Response {
    stream(run.events(last).map(move |event| native(Ok(event), &request)))
}
