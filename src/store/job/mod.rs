//! Jobs: work that goes on by itself, at its time, and what became of it.
//!
//! A job says what is to be done, when, and who is told. Each time it is due it has a run. All of it
//! is in the database, so that it outlives the process; which of several processes does a run is
//! settled by compare-and-set and by a [lease](super::lease) for each job.

mod queue;
mod row;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::watch;

use super::Store;
use crate::schedule::{self, Schedule};

pub use queue::{Ending, LEASE, Outlook, Taken};

/// Characters of a name, and bytes of what is asked.
const NAME: usize = 80;
const TEXT: usize = 64 << 10;
/// Jobs of one folder that are not over.
const MOST: i64 = 1000;

/// Work that goes on by itself.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Job {
    /// Its id: eight letters and digits.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// The folder it works in.
    pub workspace: PathBuf,
    /// The session it was asked for in; empty for none.
    pub session: String,
    /// What is to be done.
    pub task: Task,
    /// When.
    pub schedule: Schedule,
    /// What happens when it is due and still goes on.
    pub overlap: Overlap,
    /// Who is told.
    pub deliver: Deliver,
    /// Whether it waits for its next time.
    pub state: State,
    /// When it is due; `None` when it is not any more.
    pub next: Option<Timestamp>,
    /// How often it was due and left out, because it still went on.
    pub skipped: u64,
    /// When it was made.
    pub created: Timestamp,
}

/// A job that is to be made.
#[derive(Debug, Clone)]
pub struct New {
    /// What it is called; empty for the beginning of its task.
    pub name: String,
    /// The folder it works in.
    pub workspace: PathBuf,
    /// The session it is asked for in.
    pub session: String,
    /// What is to be done.
    pub task: Task,
    /// When.
    pub schedule: Schedule,
    /// What happens when it is due and still goes on.
    pub overlap: Overlap,
    /// Who is told.
    pub deliver: Deliver,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Task {
    /// The assistant is asked, in a session of the run's own.
    Ask {
        /// What it is asked.
        ask: String,
    },
    /// A tool is called, without a model.
    Call {
        /// Its own name.
        tool: String,
        /// What it is given.
        #[serde(default)]
        arguments: Map<String, Value>,
    },
}

/// Whether a job waits for its next time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It does, or what it was due for goes on.
    Active,
    /// Somebody has stopped it for now.
    Paused,
    /// There is no next time.
    Over,
}

/// What happens when a job is due and still goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// That time is left out.
    #[default]
    Skip,
    /// It waits its turn; there is a bound to how many wait.
    Queue,
}

/// Who is told what came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deliver {
    /// Nobody; the job keeps it.
    #[default]
    Nobody,
    /// A conversation.
    Chat(String),
    /// An address on the net, which gets a signed POST.
    Webhook(String),
    /// A file in the output folder of the workspace.
    File(String),
}

/// One time that a job was due.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    /// Its id.
    pub id: String,
    /// Its job.
    pub job: String,
    /// The session its turn is in; empty for a tool that was called.
    pub session: String,
    /// How far it is.
    pub state: Stage,
    /// When it was due.
    pub due: Timestamp,
    /// How often it was begun; more than once if a process was killed in the middle of it.
    pub attempt: u32,
    /// When it was last begun.
    pub began: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// What came of it.
    pub output: String,
    /// What went wrong.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// Tokens it took.
    pub tokens: u64,
    /// Whether somebody was told.
    pub delivery: Delivery,
    /// How often that was tried.
    pub tries: u32,
    /// Why it did not work the last time.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub refusal: String,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It waits.
    Queued,
    /// It goes on.
    Running,
    /// There is a result.
    Done,
    /// There is none.
    Failed,
    /// Somebody ended it.
    Cancelled,
}

/// Whether somebody was told of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Nobody wants to be told.
    None,
    /// It is tried, again if need be.
    Pending,
    /// They know.
    Done,
    /// It did not work.
    Failed,
}

/// Why a job cannot be had, or not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is none of that id.
    #[error("there is no job `{0}`; `omni job list --all` and `/jobs` show those there are")]
    Unknown(String),
    /// The beginning of an id fits several.
    #[error("`{0}` is the beginning of several jobs; give more of the id")]
    Ambiguous(String),
    /// It cannot be made, or not be done, as it was asked for.
    #[error("{0}")]
    Wrong(String),
    /// A row is damaged, or of a newer program.
    #[error("the job `{id}` cannot be read: {reason}")]
    Unreadable {
        /// The job.
        id: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The database did not do it.
    #[error(transparent)]
    Store(#[from] super::Error),
}

/// The jobs in the database. Cloning shares what is known in this process.
#[derive(Debug, Clone)]
pub struct Jobs {
    store: Store,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    changed: watch::Sender<()>,
    /// Jobs that were made here, and runs that were begun here by hand.
    own: Mutex<Vec<String>>,
}

impl Jobs {
    /// The jobs in `store`.
    pub fn new(store: Store) -> Self {
        Self { store, shared: Arc::default() }
    }

    /// Hears of every change that is made through this.
    pub fn changed(&self) -> watch::Receiver<()> {
        self.shared.changed.subscribe()
    }

    /// Whether the job was made through this, or the run of this id was begun by hand.
    pub fn is_own(&self, id: &str) -> bool {
        self.shared.own.lock().expect("no panic while held").iter().any(|own| own == id)
    }

    /// Has those look who hear of changes.
    pub fn nudge(&self) {
        self.shared.changed.send_replace(());
    }
}

impl New {
    /// What is to be done once, now, for the session it is asked for in.
    pub fn background(text: &str, session: &str, workspace: &Path, now: Timestamp) -> Self {
        Self {
            name: String::new(),
            workspace: workspace.to_owned(),
            session: session.to_owned(),
            task: Task::Ask { ask: text.to_owned() },
            schedule: Schedule::Once { at: schedule::whole(now) },
            overlap: Overlap::Skip,
            deliver: if session.is_empty() { Deliver::Nobody } else { Deliver::Chat(session.to_owned()) },
        }
    }

    fn check(&self) -> Result<(), Error> {
        let wrong = |reason: &str| Err(Error::Wrong(reason.to_owned()));
        let text = match &self.task {
            Task::Ask { ask } => ask,
            Task::Call { tool, .. } => tool,
        };
        if text.trim().is_empty() {
            return wrong("there is nothing to do; say what the job is");
        }
        let task = serde_json::to_string(&self.task).map_or(0, |text| text.len());
        if task > TEXT || text.contains('\0') {
            return wrong("what the job is to do has more than 64 kB; name a file in it instead");
        }
        self.deliver.check().map_err(Error::Wrong)
    }

    fn title(&self) -> String {
        let text = match (&self.name, &self.task) {
            (name, _) if !name.trim().is_empty() => name,
            (_, Task::Ask { ask }) => ask,
            (_, Task::Call { tool, .. }) => tool,
        };
        let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
        let mut title: String = line.chars().filter(|letter| !letter.is_control()).take(NAME).collect();
        if line.chars().count() > NAME {
            title.pop();
            title.push('…');
        }
        title
    }
}

impl Deliver {
    /// Whether it can be delivered to at all. Whether it may is looked at when it is.
    fn check(&self) -> Result<(), String> {
        match self {
            Self::Nobody | Self::Chat(_) => Ok(()),
            Self::Webhook(url) => {
                let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
                let host = rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
                match host {
                    Some(host) if !host.is_empty() && !host.contains('@') && url.len() <= 2048 => Ok(()),
                    _ => Err(format!("`{url}` is no address for a webhook; write `https://HOST/PATH`")),
                }
            }
            Self::File(path) => {
                let is_inside = |part: std::path::Component<'_>| {
                    matches!(part, std::path::Component::Normal(_) | std::path::Component::CurDir)
                };
                let path = Path::new(path);
                match path.components().all(is_inside) && path.file_name().is_some() {
                    true => Ok(()),
                    false => Err(format!(
                        "`{}` is no file of the output folder; write a relative path without `..`",
                        path.display()
                    )),
                }
            }
        }
    }
}

impl FromStr for Deliver {
    type Err = String;

    /// As people write it: `nobody`, `chat:SESSION`, `https://…`, `file:PATH`.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let deliver = match text.split_once(':').unwrap_or((text, "")) {
            ("nobody" | "none", "") => Self::Nobody,
            ("chat", session) if !session.is_empty() => Self::Chat(session.to_owned()),
            ("file", path) if !path.is_empty() => Self::File(path.to_owned()),
            ("webhook", url) => Self::Webhook(url.to_owned()),
            ("http" | "https", _) => Self::Webhook(text.to_owned()),
            _ => {
                return Err(format!(
                    "`{text}` is nobody to tell; write `nobody`, `chat:SESSION`, `file:PATH` or `https://…`"
                ));
            }
        };
        deliver.check().map(|()| deliver)
    }
}

impl fmt::Display for Deliver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("nobody"),
            Self::Chat(session) => write!(f, "chat:{session}"),
            Self::Webhook(url) => f.write_str(url),
            Self::File(path) => write!(f, "file:{path}"),
        }
    }
}

impl FromStr for Overlap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "skip" => Ok(Self::Skip),
            "queue" => Ok(Self::Queue),
            _ => Err(format!("`{text}` is not `skip` or `queue`")),
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ask { ask } => f.write_str(ask),
            Self::Call { tool, arguments } if arguments.is_empty() => f.write_str(tool),
            Self::Call { tool, arguments } => {
                write!(f, "{tool} {}", serde_json::to_string(arguments).unwrap_or_default())
            }
        }
    }
}

/// Words for the columns, both ways.
macro_rules! words {
    ($type:ident { $($variant:ident = $word:literal),* $(,)? }) => {
        impl $type {
            /// As it is stored and shown.
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }

            fn read(word: &str) -> Result<Self, String> {
                match word {
                    $($word => Ok(Self::$variant),)*
                    other => Err(format!("it is `{other}`, which this omni does not know")),
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.word())
            }
        }
    };
}

words!(State { Active = "active", Paused = "paused", Over = "over" });
words!(Overlap { Skip = "skip", Queue = "queue" });
words!(Stage {
    Queued = "queued",
    Running = "running",
    Done = "done",
    Failed = "failed",
    Cancelled = "cancelled",
});
words!(Delivery { None = "none", Pending = "pending", Done = "done", Failed = "failed" });
