//! Jobs over HTTP: planned, looked at, stopped.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::{IntoParams, ToSchema};

use super::Gateway;
use super::body::Sent;
use super::error::Error;
use crate::schedule::{self, Schedule};
use crate::store::job::{self, Job, New, Overlap, Task};

/// Runs of one job, unless another number is asked for, and at most.
const USUAL: usize = 10;
const MOST: usize = 50;

/// The jobs of the folder that is served, the one that is due next first.
#[utoipa::path(get, path = "/api/v1/jobs", responses((status = 200, body = Object)))]
pub(super) async fn list(State(gateway): State<Arc<Gateway>>) -> Result<Json<Value>, Error> {
    let hub = &gateway.hub;
    Ok(Json(json!({"jobs": hub.jobs().list(Some(hub.workspace())).await?})))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// At most this many of its last runs.
    runs: Option<usize>,
}

/// A job with its last runs.
#[utoipa::path(
    get, path = "/api/v1/jobs/{id}", params(("id" = String, Path), Page),
    responses((status = 200, body = Object)),
)]
pub(super) async fn get(
    State(gateway): State<Arc<Gateway>>,
    Path(id): Path<String>,
    Query(page): Query<Page>,
) -> Result<Json<Value>, Error> {
    let job = known(&gateway, &id).await?;
    let runs = gateway.hub.jobs().runs(&job.id, page.runs.unwrap_or(USUAL).min(MOST)).await?;
    Ok(Json(json!({"job": job, "runs": runs})))
}

/// A job that is to be planned.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = NewJob)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    when: String,
    zone: Option<String>,
    ask: Option<String>,
    tool: Option<String>,
    #[serde(default)]
    #[schema(value_type = Object)]
    arguments: Map<String, Value>,
    #[serde(default)]
    name: String,
    #[serde(default = "nobody")]
    deliver: String,
    #[serde(default)]
    #[schema(value_type = String)]
    overlap: Overlap,
}

fn nobody() -> String {
    "nobody".to_owned()
}

/// Plan a job.
#[utoipa::path(
    post, path = "/api/v1/jobs", request_body = Request, responses((status = 201, body = Object)),
)]
pub(super) async fn add(
    State(gateway): State<Arc<Gateway>>,
    Sent(sent): Sent<Request>,
) -> Result<Response, Error> {
    let now = Timestamp::now();
    let zone = sent.zone.unwrap_or_else(schedule::local_zone);
    let schedule = Schedule::parse(&sent.when, &zone, now);
    let schedule = schedule.map_err(|error| Error::invalid(error.to_string()).of("when"))?;
    let task = match (sent.ask, sent.tool) {
        (Some(ask), None) => Task::Ask { ask },
        (None, Some(tool)) => {
            let spec = gateway.hub.toolbox().find(&tool).map(|spec| spec.name.clone());
            let unknown = || Error::unknown("tool_not_found", format!("there is no tool `{tool}`"));
            Task::Call { tool: spec.ok_or_else(unknown)?, arguments: sent.arguments }
        }
        _ => return Err(Error::invalid("give either `ask` or `tool`").of("ask")),
    };
    let new = New {
        name: sent.name,
        workspace: gateway.hub.workspace().to_owned(),
        session: String::new(),
        task,
        schedule,
        overlap: sent.overlap,
        deliver: sent.deliver.parse().map_err(|error: String| Error::invalid(error).of("deliver"))?,
    };
    let job = gateway.hub.jobs().add(&new, now).await.map_err(|error| match error {
        job::Error::Wrong(detail) => Error::invalid(detail),
        other => other.into(),
    })?;
    let place = [(header::LOCATION, format!("/api/v1/jobs/{}", job.id))];
    Ok((StatusCode::CREATED, place, Json(job)).into_response())
}

/// Run a job now, or cancel, pause or resume it: `run`, `cancel`, `pause` or `resume`.
#[utoipa::path(
    post, path = "/api/v1/jobs/{id}/{word}", params(("id" = String, Path), ("word" = String, Path)),
    responses((status = 202, body = Object)),
)]
pub(super) async fn change(
    State(gateway): State<Arc<Gateway>>,
    Path((id, word)): Path<(String, String)>,
) -> Result<Response, Error> {
    let (jobs, now) = (gateway.hub.jobs(), Timestamp::now());
    let job = known(&gateway, &id).await?;
    match word.as_str() {
        "run" => drop(jobs.hasten(&job, now).await?),
        "cancel" => drop(jobs.cancel(&job, now).await?),
        "pause" => jobs.pause(&job, now).await?,
        "resume" => drop(jobs.resume(&job, now).await?),
        _ => return Err(Error::unknown("route_not_found", "a job knows run, cancel, pause and resume")),
    }
    let job = jobs.find(&job.id).await?;
    Ok((StatusCode::ACCEPTED, Json(job)).into_response())
}

/// Remove a job, and what is kept of its runs.
#[utoipa::path(
    delete, path = "/api/v1/jobs/{id}", params(("id" = String, Path)), responses((status = 204)),
)]
pub(super) async fn remove(
    State(gateway): State<Arc<Gateway>>,
    Path(id): Path<String>,
) -> Result<StatusCode, Error> {
    let job = known(&gateway, &id).await?;
    gateway.hub.jobs().remove(&job).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The job that is called exactly so, of the folder that is served.
async fn known(gateway: &Gateway, id: &str) -> Result<Job, Error> {
    let unknown = || Error::unknown("job_not_found", format!("there is no job `{id}`"));
    match gateway.hub.jobs().find_in(gateway.hub.workspace(), id).await {
        Ok(job) if job.id == id => Ok(job),
        Ok(_) => Err(unknown()),
        Err(error) => Err(error.into()),
    }
}

impl From<job::Error> for Error {
    fn from(error: job::Error) -> Self {
        let detail = error.to_string();
        match error {
            job::Error::Unknown(_) | job::Error::Ambiguous(_) => Self::unknown("job_not_found", detail),
            job::Error::Wrong(_) => Self::new(StatusCode::CONFLICT, "job_refused", detail),
            job::Error::Unreadable { .. } | job::Error::Store(_) => Self::broken(detail),
        }
    }
}
