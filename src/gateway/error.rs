//! Why a request got no answer, in the words of the caller's protocol: OpenAI's envelope below
//! `/v1`, problem details (RFC 9457) elsewhere.
//!
//! Handlers return an [`Error`]; it travels in the response until the one place that knows path and
//! request id writes it down. What went wrong inside is for the log, under that id.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::hub::{self, SessionError};
use crate::store;

/// Why a request got no answer.
#[derive(Debug, Clone)]
pub(super) struct Error {
    status: StatusCode,
    /// The same for programs.
    code: &'static str,
    detail: String,
    /// The field of the request that is to blame.
    param: Option<&'static str>,
    /// Seconds after which it may work.
    again: Option<u64>,
}

impl Error {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), param: None, again: None }
    }

    pub(super) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", detail)
    }

    /// Something that was asked for and cannot be had here.
    pub(super) fn unsupported(param: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "unsupported_parameter", detail).of(param)
    }

    pub(super) fn unknown(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, detail)
    }

    pub(super) fn forbidden(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, detail)
    }

    pub(super) fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    pub(super) fn draining() -> Self {
        let detail = "omni is about to stop; come back when it has started again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "draining", detail).after(5)
    }

    pub(super) fn elapsed(seconds: f64) -> Self {
        let detail = format!("there was no answer within {seconds} s, and the turn was ended");
        Self::new(StatusCode::GATEWAY_TIMEOUT, "turn_timeout", detail)
    }

    /// Our own failure. What it was is logged, and not told.
    pub(super) fn broken(reason: impl std::fmt::Display) -> Self {
        tracing::error!("a request failed: {reason}");
        Self::internal()
    }

    pub(super) fn internal() -> Self {
        let detail = "something failed inside; the log has more under the id of this request";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    pub(super) fn of(mut self, param: &'static str) -> Self {
        self.param = Some(param);
        self
    }

    pub(super) fn after(mut self, seconds: u64) -> Self {
        self.again = Some(seconds);
        self
    }

    /// What is told of it.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// As OpenAI's clients read it.
    pub(super) fn envelope(&self) -> Value {
        let kind = match self.status.as_u16() {
            // What OpenAI calls it where trying again is of no use.
            429 if self.code == "budget_spent" => "insufficient_quota",
            401 => "authentication_error",
            403 => "permission_error",
            429 => "rate_limit_error",
            status if status < 500 => "invalid_request_error",
            _ => "server_error",
        };
        json!({"error": {"message": self.detail, "type": kind, "param": self.param, "code": self.code}})
    }

    /// As problem details.
    pub(super) fn problem(&self, request: &str) -> Value {
        json!({
            "type": "about:blank",
            "title": self.status.canonical_reason(),
            "status": self.status.as_u16(),
            "detail": self.detail,
            "code": self.code,
            "request_id": request,
        })
    }
}

impl From<hub::Error> for Error {
    fn from(error: hub::Error) -> Self {
        let detail = error.to_string();
        match error {
            hub::Error::Full(_) => Self::new(StatusCode::TOO_MANY_REQUESTS, "session_busy", detail).after(1),
            hub::Error::Busy => Self::new(StatusCode::TOO_MANY_REQUESTS, "busy", detail).after(1),
            hub::Error::Spent(hub::budget::Exhausted { wait, .. }) => {
                let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "budget_spent", detail);
                wait.into_iter().fold(error, |error, wait| error.after(wait.as_secs() + 1))
            }
            hub::Error::Draining => Self::draining(),
            hub::Error::Snapshot { .. } => Self::unknown("snapshot_not_found", detail),
            hub::Error::Name => Self::invalid(detail),
            hub::Error::Held(_) => Self::new(StatusCode::TOO_MANY_REQUESTS, "session_busy", detail).after(10),
            hub::Error::Reused => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", detail)
            }
            hub::Error::Store(error) => error.into(),
            hub::Error::Session(error) => error.into(),
        }
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Busy { .. } => {
                tracing::warn!("{error}");
                let detail = "the database is busy with other work; come back in a moment";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "database_busy", detail).after(1)
            }
            error => Self::broken(error),
        }
    }
}

impl From<SessionError> for Error {
    fn from(error: SessionError) -> Self {
        let detail = error.to_string();
        match error {
            SessionError::Unknown(_) => Self::unknown("session_not_found", detail),
            SessionError::Id(_) | SessionError::Ambiguous { .. } => Self::invalid(detail),
            SessionError::Moved(_) => Self::new(StatusCode::CONFLICT, "session_moved", detail),
            SessionError::Store(error) => error.into(),
            SessionError::Unreadable { .. } => Self::broken(detail),
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Writes down why there is no answer, where a handler has not done so.
pub(super) fn told(mut response: Response, path: &str, request: &str) -> Response {
    let status = response.status();
    let error = match response.extensions_mut().remove::<Error>() {
        Some(error) => error,
        None if is_bare(&response) => bare(status),
        None => return response,
    };
    let is_openai = path == "/v1" || path.starts_with("/v1/");
    let (kind, body) = match is_openai {
        true => ("application/json", error.envelope()),
        false => ("application/problem+json", error.problem(request)),
    };
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Some(seconds) = error.again {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    *response.body_mut() = Body::from(body.to_string());
    response
}

/// An error of the framework's own: a status, and a sentence at most.
fn is_bare(response: &Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let status = response.status();
    (status.is_client_error() || status.is_server_error())
        && kind.is_none_or(|kind| kind.starts_with(b"text/plain"))
}

fn bare(status: StatusCode) -> Error {
    match status {
        StatusCode::NOT_FOUND => Error::unknown("route_not_found", "there is nothing at this path"),
        StatusCode::METHOD_NOT_ALLOWED => Error::new(
            status,
            "method_not_allowed",
            "this path does not know the method; `Allow` names those",
        ),
        _ => Error::new(status, "invalid_request", status.canonical_reason().unwrap_or("it cannot be done")),
    }
}

/// The header that names a request, in and out.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
