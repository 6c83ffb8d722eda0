//! `omni job`: work that goes on by itself.

use std::path::Path;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::error::{Failure, code};
use super::ui::Screen;
use crate::app::App;
use crate::clock::Reach;
use crate::hub::command::{line, shown};
use crate::schedule::{self, Schedule};
use crate::store::job::{Deliver, Error, Job as Row, Jobs, New, Overlap, Stage, State, Task};

/// Plan, show and stop jobs: work at set times.
///
/// A job asks the assistant something, in a session of its own, or calls a tool without a model. `omni serve` runs the
/// jobs of the folder it runs in. Nobody can be asked then: what a tool needs consent for is refused, unless
/// `policy.allow` names it. See docs/jobs.md.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Job {
    Add(Add),
    /// List the jobs of this folder
    List {
        /// Those of all folders
        #[arg(short, long)]
        all: bool,
    },
    /// Show a job, and what came of it
    Show {
        /// Its id, or the beginning of it
        id: String,
        /// Runs that are shown
        #[arg(short, long, default_value_t = 3)]
        limit: usize,
    },
    /// Run a job here and now, whatever its schedule says, and print what came of it
    Run {
        /// Its id, or the beginning of it
        id: String,
    },
    /// End what goes on of a job; a schedule keeps its next time
    Cancel {
        /// Its id, or the beginning of it
        id: String,
    },
    /// Leave out the times of a job until it is resumed
    Pause {
        /// Its id, or the beginning of it
        id: String,
    },
    /// Take a paused job up again, with its next time
    Resume {
        /// Its id, or the beginning of it
        id: String,
    },
    /// Remove a job and all that came of it
    Remove {
        /// Its id, or the beginning of it
        id: String,
    },
}

/// Plan a job
///
/// WHEN is `now`, `in 20m`, `at 18:00`, `at 2026-12-24 18:00`, `every 2h`, `every day at 8:00`, `every monday at 9:30`, or
/// a cron pattern as in `0 8 * * mon-fri`.
#[derive(Debug, clap::Args)]
pub(super) struct Add {
    /// When
    when: String,
    /// What the assistant is asked then; several words are joined
    #[arg(required_unless_present = "tool", conflicts_with = "tool")]
    ask: Vec<String>,
    /// A tool that is called instead, without a model
    #[arg(long, value_name = "NAME")]
    tool: Option<String>,
    /// What the tool is given, as a JSON object
    #[arg(long, value_name = "JSON", requires = "tool")]
    arguments: Option<String>,
    /// What to call it
    #[arg(long)]
    name: Option<String>,
    /// The time zone that WHEN is meant in, by its IANA name [default: this machine's]
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
    /// Who is told: `nobody`, `chat:SESSION`, `file:PATH` in the output folder ({date} and {time} are filled in),
    /// or a webhook's URL
    #[arg(long, value_name = "WHO", default_value = "nobody")]
    deliver: Deliver,
    /// What happens when it is due and still goes on: `skip` that time, or `queue` it
    #[arg(long, value_name = "WORD", default_value = "skip")]
    overlap: Overlap,
}

pub(super) async fn run(job: Job, app: &App, screen: &Screen) -> Result<u8, Failure> {
    let done = done(job, app, screen).await;
    app.finish().await;
    done
}

async fn done(job: Job, app: &App, screen: &Screen) -> Result<u8, Failure> {
    let (jobs, now) = (app.jobs().await?, Timestamp::now());
    match job {
        Job::Add(job) => return add(job, app, &jobs, screen, now).await,
        Job::List { all } => return list(all, app, &jobs, screen, now).await,
        Job::Show { id, limit } => {
            let job = jobs.find(&id).await?;
            let runs = jobs.runs(&job.id, limit).await?;
            match screen.json {
                true => screen.value(&json!({"job": job, "runs": runs}))?,
                false => screen.line(&shown(&job, &runs))?,
            }
        }
        Job::Run { id } => return run_now(&id, app, screen).await,
        Job::Cancel { id } => {
            let ended = jobs.cancel(&jobs.find(&id).await?, now).await?;
            screen.remark(if ended == 0 { "nothing of it went on" } else { "it ends" });
        }
        Job::Pause { id } => {
            jobs.pause(&jobs.find(&id).await?, now).await?;
            screen.remark("paused; `omni job resume` takes it up again");
        }
        Job::Resume { id } => {
            jobs.resume(&jobs.find(&id).await?, now).await?;
            screen.line(&line(&jobs.find(&id).await?, None))?;
        }
        Job::Remove { id } => {
            let job = jobs.find(&id).await?;
            jobs.remove(&job).await?;
            screen.remark(&format!("removed {}: {}", job.id, job.name));
        }
    }
    Ok(code::OK)
}

async fn add(add: Add, app: &App, jobs: &Jobs, screen: &Screen, now: Timestamp) -> Result<u8, Failure> {
    let usage = |error: &dyn std::fmt::Display| Failure::new(code::USAGE, error.to_string());
    let zone = add.zone.unwrap_or_else(schedule::local_zone);
    let schedule = Schedule::parse(&add.when, &zone, now).map_err(|error| usage(&error))?;
    let task = match add.tool {
        None => Task::Ask { ask: add.ask.join(" ") },
        Some(tool) => {
            let toolbox = app.toolbox().await?;
            let Some(spec) = toolbox.find(&tool) else {
                return Err(Failure::new(code::USAGE, format!("there is no tool `{tool}`"))
                    .hint("`omni tool list` shows those there are"));
            };
            let arguments = add.arguments.as_deref().map(serde_json::from_str::<Map<String, Value>>);
            let arguments = arguments
                .transpose()
                .map_err(|error| usage(&format!("--arguments is no JSON object: {error}")))?;
            Task::Call { tool: spec.name.clone(), arguments: arguments.unwrap_or_default() }
        }
    };
    if matches!(add.deliver, Deliver::Webhook(_)) && app.loaded.config.jobs.webhook_secret.is_empty() {
        return Err(Failure::new(code::SETUP, "a webhook has to be signed, and there is no secret for that")
            .hint("set `jobs.webhook_secret` to `env:NAME` or `file:PATH`"));
    }
    let workspace = app.paths.workspace.clone();
    let new = New {
        name: add.name.unwrap_or_default(),
        workspace,
        session: String::new(),
        task,
        schedule,
        overlap: add.overlap,
        deliver: add.deliver,
    };
    let job = jobs.add(&new, now).await?;
    match screen.json {
        true => screen.value(&job)?,
        false => screen.line(&line(&job, None))?,
    }
    attended(jobs, &job.workspace, screen, now).await?;
    Ok(code::OK)
}

async fn list(all: bool, app: &App, jobs: &Jobs, screen: &Screen, now: Timestamp) -> Result<u8, Failure> {
    let workspace = app.paths.workspace.as_path();
    let found = jobs.list((!all).then_some(workspace)).await?;
    match found.is_empty() {
        true if all => screen.remark("there is no job; `omni job add` plans one"),
        true => {
            screen.remark("this folder has no job; `omni job add` plans one, `--all` shows those of others")
        }
        false => {}
    }
    for job in &found {
        if screen.json {
            screen.value(job)?;
            continue;
        }
        let folder = if all { format!("  {}", job.workspace.display()) } else { String::new() };
        let last = jobs.runs(&job.id, 1).await?;
        screen.line(&format!("{}{folder}", line(job, last.first())))?;
    }
    if found.iter().any(|job| job.state == State::Active && job.workspace == workspace) {
        attended(jobs, workspace, screen, now).await?;
    }
    Ok(code::OK)
}

/// Says so if nobody runs the jobs of a folder.
async fn attended(jobs: &Jobs, workspace: &Path, screen: &Screen, now: Timestamp) -> Result<(), Failure> {
    if !jobs.is_attended(workspace, now).await? {
        screen.remark(
            "nothing runs these jobs now: start `omni serve` in this folder, or `omni service install`; what is \
             missed until then is made up for once",
        );
    }
    Ok(())
}

async fn run_now(id: &str, app: &App, screen: &Screen) -> Result<u8, Failure> {
    let hub = app.hub().await?;
    let jobs = hub.jobs().clone();
    let job: Row = jobs.find_in(hub.workspace(), id).await?;
    let clock = app.clock(hub, Reach::Own)?;
    let run = jobs.hasten(&job, Timestamp::now()).await?;
    let mut stop = super::signal::Stop::listen()?;
    let ended = loop {
        clock.tick().await?;
        let found = jobs.run(&run).await?.ok_or_else(|| Failure::new(code::FAILED, "the job was removed"))?;
        if !matches!(found.state, Stage::Queued | Stage::Running) {
            break found;
        }
        tokio::select! {
            () = tokio::time::sleep(std::time::Duration::from_millis(100)) => {}
            code = stop.told() => {
                jobs.cancel(&job, Timestamp::now()).await?;
                app.finish().await;
                return Ok(code);
            }
        }
    };
    clock.tick().await?;
    clock.settled().await;
    match screen.json {
        true => screen.value(&ended)?,
        false if !ended.output.is_empty() => screen.line(ended.output.trim_end())?,
        false => {}
    }
    match ended.state {
        Stage::Done => Ok(code::OK),
        Stage::Cancelled => Ok(code::INTERRUPTED),
        _ => Err(Failure::new(code::FAILED, ended.error)),
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Store(error) => error.into(),
            Error::Unreadable { .. } => Self::new(code::FAILED, error.to_string()),
            Error::Unknown(_) | Error::Ambiguous(_) | Error::Wrong(_) => {
                Self::new(code::USAGE, error.to_string())
            }
        }
    }
}
