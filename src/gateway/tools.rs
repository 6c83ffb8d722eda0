//! Tools without the assistant: what there is, and `POST /run_tool`, which calls one.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response, sse};
use futures::future::FusedFuture;
use futures::{FutureExt, stream};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::{Notify, mpsc};
use utoipa::ToSchema;

use super::Gateway;
use super::body::Sent;
use super::error::Error;
use super::guard::RequestId;
use super::openapi;
use super::stream::stream;
use crate::message::event::EventKind;
use crate::message::{Arguments, Block, ToolCall};
use crate::tool::{self, Output, Scope, Toolbox, Verdict};

/// Reports of progress that wait for a reader; more are left out.
const REPORTS: usize = 64;

/// The tools there are.
#[utoipa::path(get, path = "/api/v1/tools", responses((status = 200, body = openapi::Tools)))]
pub(super) async fn list(State(gateway): State<Arc<Gateway>>) -> Json<Value> {
    let toolbox = gateway.hub.toolbox();
    let tools: Vec<_> = toolbox.specs().map(|spec| described(&toolbox, spec)).collect();
    Json(json!({"tools": tools}))
}

fn described(toolbox: &Toolbox, spec: &tool::Spec) -> Value {
    let mut tool = serde_json::to_value(spec).unwrap_or_default();
    tool["policy"] = match toolbox.verdict(&spec.name) {
        Some(Verdict::Ask(_)) => "ask".into(),
        Some(Verdict::Deny(_)) => "deny".into(),
        _ => "allow".into(),
    };
    tool
}

/// What is to be run, and how long it may take and be silent, in seconds.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = Command)]
pub(super) struct Request {
    command: String,
    #[serde(default)]
    arguments: Map<String, Value>,
    timeout: Option<f64>,
    idle_timeout: Option<f64>,
}

/// Call a tool without the assistant.
#[utoipa::path(
    post, path = "/run_tool", request_body = Request,
    responses((status = 200, content((openapi::Ran = "application/json"), (openapi::Told = "text/event-stream")))),
)]
pub(super) async fn run(
    State(gateway): State<Arc<Gateway>>,
    axum::Extension(id): axum::Extension<RequestId>,
    headers: axum::http::HeaderMap,
    Sent(request): Sent<Request>,
) -> Result<Response, Error> {
    let toolbox = gateway.hub.toolbox();
    if toolbox.find(&request.command).is_none() {
        let detail =
            format!("there is no tool `{}`; `GET /api/v1/tools` names those there are", request.command);
        return Err(Error::unknown("tool_not_found", detail));
    }
    let (timeout, idle) = (seconds(request.timeout)?, seconds(request.idle_timeout)?);
    if gateway.hub.is_draining() {
        return Err(Error::draining());
    }
    let (reports, heard) = mpsc::channel(REPORTS);
    let run = Run { gateway, toolbox, request, timeout, idle, reports };
    let is_stream = headers.get(header::ACCEPT).is_some_and(|kind| kind == "text/event-stream");
    match is_stream {
        true => Ok(streamed(run, heard, id)),
        false => Ok(Json(run.end().await?).into_response()),
    }
}

/// A time limit; none where it is not given or 0.
fn seconds(given: Option<f64>) -> Result<Option<Duration>, Error> {
    let Some(seconds) = given.filter(|seconds| *seconds != 0.0) else { return Ok(None) };
    match Duration::try_from_secs_f64(seconds) {
        Ok(time) if seconds <= 1e9 => Ok(Some(time)),
        _ => Err(Error::invalid("`timeout` and `idle_timeout` are numbers of seconds, 0 for none")),
    }
}

/// A call that goes on. Dropping it stops it.
struct Run {
    gateway: Arc<Gateway>,
    toolbox: Arc<Toolbox>,
    request: Request,
    timeout: Option<Duration>,
    idle: Option<Duration>,
    reports: mpsc::Sender<Value>,
}

impl Run {
    async fn end(self) -> Result<Value, Error> {
        let Self { gateway, toolbox, request, timeout, idle, reports } = self;
        let sign = Arc::new(Notify::new());
        let mut scope = gateway.hub.scope();
        scope.whole = true;
        let cancel = scope.cancel.clone().drop_guard();
        scope.events = Some(listener(reports, sign.clone()));
        let arguments = Arguments::Object(request.arguments);
        let call =
            ToolCall { id: uuid::Uuid::now_v7().to_string(), name: request.command.clone(), arguments };
        let scope: Arc<Scope> = Arc::new(scope);
        let outcome = tokio::select! {
            outcome = toolbox.call(call, &scope) => outcome,
            limit = elapsed(timeout) => Err(tool::Error::Elapsed(limit)),
            limit = silent(idle, &sign) => Err(tool::Error::Idle(limit)),
        };
        drop(cancel);
        outcome.map(|output| answer(&request.command, output)).map_err(Error::from)
    }
}

/// Takes note of signs of life, and passes them on.
fn listener(reports: mpsc::Sender<Value>, sign: Arc<Notify>) -> tool::Events {
    Arc::new(move |kind| {
        if let EventKind::ToolProgress { progress, total, message, .. } = kind {
            sign.notify_one();
            let _ = reports.try_send(json!({"progress": progress, "total": total, "message": message}));
        }
    })
}

async fn elapsed(limit: Option<Duration>) -> Duration {
    let Some(limit) = limit else { return std::future::pending().await };
    tokio::time::sleep(limit).await;
    limit
}

/// Waits until there was no sign for so long.
async fn silent(limit: Option<Duration>, sign: &Notify) -> Duration {
    let Some(limit) = limit else { return std::future::pending().await };
    while tokio::time::timeout(limit, sign.notified()).await.is_ok() {}
    limit
}

fn answer(command: &str, output: Output) -> Value {
    let texts = output.content.iter().filter_map(|block| match block {
        Block::Text { text } => Some(text.as_str()),
        _ => None,
    });
    let text = texts.collect::<Vec<_>>().join("\n");
    json!({"command": command, "output": text, "content": output.content, "structured": output.structured})
}

/// Progress as it comes, then the result or why there is none.
fn streamed(run: Run, heard: mpsc::Receiver<Value>, id: RequestId) -> Response {
    let end = async move {
        match run.end().await {
            Ok(result) => sse::Event::default().event("result").data(result.to_string()),
            Err(error) => sse::Event::default().event("error").data(error.problem(&id.0).to_string()),
        }
    };
    let events = stream::unfold((heard, end.boxed().fuse(), None), async |(mut heard, mut end, mut last)| {
        loop {
            tokio::select! {
                biased;
                Some(report) = heard.recv() => {
                    let event = sse::Event::default().event("progress").data(report.to_string());
                    return Some((event, (heard, end, last)));
                }
                ended = &mut end, if !end.is_terminated() => last = Some(ended),
                // What was reported before the end has been told.
                else => return Some((last.take()?, (heard, end, last))),
            }
        }
    });
    stream(events)
}

impl From<tool::Error> for Error {
    fn from(error: tool::Error) -> Self {
        let detail = error.to_string();
        let (status, code) = match error {
            tool::Error::Retry(_) => (StatusCode::UNPROCESSABLE_ENTITY, "wrong_arguments"),
            tool::Error::Failed(_) => (StatusCode::UNPROCESSABLE_ENTITY, "tool_failed"),
            tool::Error::Broken { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "tool_broken"),
            tool::Error::Elapsed(_) => (StatusCode::GATEWAY_TIMEOUT, "tool_timeout"),
            tool::Error::Idle(_) => (StatusCode::GATEWAY_TIMEOUT, "tool_idle"),
            tool::Error::Denied(_) => (StatusCode::FORBIDDEN, "tool_denied"),
            tool::Error::Cancelled => (StatusCode::SERVICE_UNAVAILABLE, "cancelled"),
        };
        Self::new(status, code, detail)
    }
}
