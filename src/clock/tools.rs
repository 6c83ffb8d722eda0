//! Jobs as tools: what the assistant can plan, look at, stop and, if a person agrees, set up or remove.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::hub::command::{line, shown};
use crate::schedule::{self, Schedule};
use crate::store::job::{Deliver, Error, Jobs, New, Overlap, Task};
use crate::tool::{self, Annotations, Call, Context, Output, Spec, Toolset};

/// Runs that are shown of a job.
const SHOWN: usize = 3;

/// Opens the jobs: a list of tools must not open a database.
pub type Open = Arc<dyn Fn() -> BoxFuture<'static, Result<Jobs, String>> + Send + Sync>;

/// The tools for jobs.
pub struct Tools {
    open: Open,
    specs: [Arc<Spec>; 4],
}

impl Tools {
    /// The tools of the jobs that `open` opens when one of them is called.
    pub fn new(open: Open) -> Self {
        Self { open, specs: [add(), list(), change(), remove()].map(Arc::new) }
    }
}

fn add() -> Spec {
    let properties = json!({
        "when": {"type": "string", "description": "`in 20m`, `at 18:00`, `at 2026-12-24 18:00`, `every 2h`, \
            `every day at 8:00`, `every monday at 9:30`, or a cron pattern"},
        "zone": {"type": "string", "description": "IANA time zone that `when` is meant in; the machine's own if left out"},
        "ask": {"type": "string", "description": "What you are asked then. Put everything in that you have to know: \
            you will not see this conversation"},
        "tool": {"type": "string", "description": "Instead of `ask`: a tool that is called without a model, as `time.now`"},
        "arguments": {"type": "object", "description": "What the tool is given"},
        "name": {"type": "string", "description": "What to call it"},
        "deliver": {"type": "string", "description": "Who is told: `chat` (this conversation, the default), `nobody`, \
            `file:PATH` (in the output folder; {date} and {time} are filled in) or an https address"},
        "overlap": {"type": "string", "enum": ["skip", "queue"], "description": "When it is due and still goes on"},
    });
    Spec {
        name: "schedule.add".to_owned(),
        description: "Do something later or again and again, unattended.".to_owned(),
        input: json!({"type": "object", "properties": properties, "required": ["when"]}),
        annotations: Annotations {
            read_only: false,
            destructive: false,
            idempotent: false,
            open_world: true,
        },
        // It will act when nobody looks.
        confirm: true,
        examples: vec!["remind me every day at eight to water the plants".to_owned()],
        ..Spec::default()
    }
}

fn list() -> Spec {
    Spec {
        name: "schedule.list".to_owned(),
        description: "List scheduled and background jobs, or show one with its last results.".to_owned(),
        input: json!({"type": "object", "properties": {
            "id": {"type": "string", "description": "The job to show; all if left out"},
        }}),
        annotations: Annotations { read_only: true, destructive: false, idempotent: true, open_world: false },
        examples: vec!["which jobs are scheduled".to_owned()],
        ..Spec::default()
    }
}

fn change() -> Spec {
    Spec {
        name: "schedule.change".to_owned(),
        description: "Pause, resume or cancel a job, or run it now.".to_owned(),
        input: json!({"type": "object", "required": ["id", "to"], "properties": {
            "id": {"type": "string"},
            "to": {"type": "string", "enum": ["pause", "resume", "cancel", "run"]},
        }}),
        annotations: Annotations {
            read_only: false,
            destructive: false,
            idempotent: false,
            open_world: false,
        },
        examples: vec!["pause the daily report".to_owned()],
        ..Spec::default()
    }
}

fn remove() -> Spec {
    Spec {
        name: "schedule.remove".to_owned(),
        description: "Remove a job and all that came of it.".to_owned(),
        input: json!({"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}}),
        annotations: Annotations { read_only: false, destructive: true, idempotent: true, open_world: false },
        examples: vec!["remove the daily reminder".to_owned()],
        ..Spec::default()
    }
}

#[async_trait]
impl Toolset for Tools {
    fn specs(&self) -> Vec<Arc<Spec>> {
        self.specs.to_vec()
    }

    async fn call(&self, call: Call) -> Result<Output, tool::Error> {
        let jobs = (self.open)().await.map_err(tool::Error::Failed)?;
        let (arguments, context, now) = (&call.arguments, &call.context, Timestamp::now());
        let folder = context.workspace.as_path();
        let done = match call.spec.name.as_str() {
            "schedule.add" => added(&jobs, arguments, context, now).await,
            "schedule.list" => listed(&jobs, text(arguments, "id"), folder).await,
            "schedule.change" => changed(&jobs, arguments, folder, now).await,
            _ => removed(&jobs, text(arguments, "id"), folder).await,
        };
        done.map(Output::text).map_err(|error| match error {
            Error::Store(_) | Error::Unreadable { .. } => tool::Error::Failed(error.to_string()),
            _ => tool::Error::Retry(error.to_string()),
        })
    }
}

fn text<'a>(arguments: &'a Map<String, Value>, name: &str) -> &'a str {
    arguments.get(name).and_then(Value::as_str).unwrap_or_default().trim()
}

async fn added(
    jobs: &Jobs,
    arguments: &Map<String, Value>,
    context: &Context,
    now: Timestamp,
) -> Result<String, Error> {
    let session = context.session.clone().unwrap_or_default();
    let zone = match text(arguments, "zone") {
        "" => schedule::local_zone(),
        zone => zone.to_owned(),
    };
    let task = match (text(arguments, "ask"), text(arguments, "tool")) {
        (ask, "") => Task::Ask { ask: ask.to_owned() },
        ("", tool) => {
            let given = arguments.get("arguments").and_then(Value::as_object);
            Task::Call { tool: tool.to_owned(), arguments: given.cloned().unwrap_or_default() }
        }
        _ => return Err(Error::Wrong("give `ask` or `tool`, not both".to_owned())),
    };
    let deliver = match text(arguments, "deliver") {
        "" | "chat" if session.is_empty() => Deliver::Nobody,
        "" | "chat" => Deliver::Chat(session.clone()),
        other => other.parse().map_err(Error::Wrong)?,
    };
    let overlap = match text(arguments, "overlap") {
        "" => Overlap::Skip,
        overlap => overlap.parse().map_err(Error::Wrong)?,
    };
    let schedule = Schedule::parse(text(arguments, "when"), &zone, now);
    let schedule = schedule.map_err(|error| Error::Wrong(error.to_string()))?;
    let name = text(arguments, "name").to_owned();
    let workspace = context.workspace.to_path_buf();
    let job = jobs.add(&New { name, workspace, session, task, schedule, overlap, deliver }, now).await?;
    let attended = match jobs.is_attended(&job.workspace, now).await? {
        true => "",
        false => "\nTell the user: it runs as long as `omni serve` runs in this folder, and it does not now.",
    };
    Ok(format!("{}\ntells: {}{attended}", line(&job, None), job.deliver))
}

async fn listed(jobs: &Jobs, id: &str, folder: &Path) -> Result<String, Error> {
    if !id.is_empty() {
        let job = jobs.find_in(folder, id).await?;
        let runs = jobs.runs(&job.id, SHOWN).await?;
        return Ok(shown(&job, &runs));
    }
    let mut lines = Vec::new();
    for job in jobs.list(Some(folder)).await? {
        lines.push(line(&job, jobs.runs(&job.id, 1).await?.first()));
    }
    Ok(if lines.is_empty() { "There is no job.".to_owned() } else { lines.join("\n") })
}

async fn changed(
    jobs: &Jobs,
    arguments: &Map<String, Value>,
    folder: &Path,
    now: Timestamp,
) -> Result<String, Error> {
    let job = jobs.find_in(folder, text(arguments, "id")).await?;
    match text(arguments, "to") {
        "pause" => jobs.pause(&job, now).await?,
        "resume" => drop(jobs.resume(&job, now).await?),
        "cancel" => drop(jobs.cancel(&job, now).await?),
        _ => drop(jobs.hasten(&job, now).await?),
    }
    let job = jobs.find(&job.id).await?;
    Ok(line(&job, jobs.runs(&job.id, 1).await?.first()))
}

async fn removed(jobs: &Jobs, id: &str, folder: &Path) -> Result<String, Error> {
    let job = jobs.find_in(folder, id).await?;
    jobs.remove(&job).await?;
    Ok(format!("Removed {}: {}.", job.id, job.name))
}
