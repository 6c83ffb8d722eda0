//! What a tool is, and the one box that holds them all.
//!
//! A [`Toolset`] brings tools (the Python kernel, an MCP server, the memory); the
//! [`Toolbox`] merges them and is the only way to call one: it finds the tool, checks the
//! arguments against the schema, asks the policy, keeps the time, and spills what is too long.

pub mod audit;
mod cache;
mod changes;
mod clock;
pub mod find;
pub mod meaning;
pub mod nested;
pub mod plan;
pub mod policy;
pub mod schema;
pub mod scope;
pub mod spill;
pub mod toolbox;
pub mod uri;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use crate::message::{Block, Change};

pub use crate::message::spec::{Annotations, Kind, Spec};
pub use audit::Audit;
pub use nested::{Nested, Request};
pub use policy::{Policy, Verdict};
pub use scope::{Approver, Consents, Events, Scope};
pub use toolbox::{Definition, Settings, Toolbox, refused, result};

/// Something that brings tools.
#[async_trait]
pub trait Toolset: Send + Sync {
    /// The tools it has now, without starting anything.
    fn specs(&self) -> Vec<Arc<Spec>>;

    /// Runs one of them. The [`Toolbox`] has checked the arguments and the permission.
    ///
    /// Dropping the future, or cancelling `call.context.cancel`, must stop the work.
    async fn call(&self, call: Call) -> Result<Output, Error>;

    /// The servers of others that it has them from, for people who ask.
    fn servers(&self) -> Vec<Server> {
        Vec::new()
    }
}

/// A server of others, as people are told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Its name.
    pub name: String,
    /// How it is, in a word or two.
    pub state: &'static str,
    /// What its tools are called there, as far as that is known.
    pub tools: Vec<String>,
    /// Why it is not used.
    pub problem: Option<String>,
    /// What it has said last of itself before it was not there any more.
    pub last: Vec<String>,
}

/// A call that may run.
#[derive(Debug, Clone)]
pub struct Call {
    /// What is called.
    pub spec: Arc<Spec>,
    /// Its arguments; they satisfy `spec.input`.
    pub arguments: Map<String, Value>,
    /// Around the call.
    pub context: Context,
}

/// Where a call comes from, and how it reports.
#[derive(Clone)]
pub struct Context {
    /// The id of the call, for events and logs.
    pub id: String,
    /// The session it belongs to, if any.
    pub session: Option<String>,
    /// The folder that file tools may not leave.
    pub workspace: Arc<PathBuf>,
    /// Cancels the call.
    pub cancel: CancellationToken,
    /// The request that has led to it, for logs and for whoever it goes to.
    pub request: Option<Arc<str>>,
    /// Takes reports of progress, each a sign of life.
    pub progress: Arc<dyn Fn(Progress) + Send + Sync>,
    /// Takes what the tool says to whoever called; `None` where nobody would listen.
    pub logger: Option<nested::Logger>,
    /// The way to other tools, to the person and to the model; `None` where nobody would listen.
    pub nested: Option<Nested>,
}

impl Context {
    /// Takes note of what the tool has changed in a file.
    pub fn edited(&self, change: Change) {
        if let Some(nested) = &self.nested {
            nested.edited(change);
        }
    }

    /// Does what the tool asks for.
    pub async fn ask(&self, request: Request) -> Result<Value, Error> {
        let nobody = || Error::Failed("a tool cannot ask for anything here".to_owned());
        self.nested.as_ref().ok_or_else(nobody)?.ask(self, request).await
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("id", &self.id)
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

/// How far a tool is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// How much is done.
    pub progress: f64,
    /// Of how much, if known.
    pub total: Option<f64>,
    /// A word about it.
    pub message: Option<String>,
}

/// What a tool returns.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// Text, images, resources.
    pub content: Vec<Block>,
    /// The same as one JSON value, where there is one.
    pub structured: Option<Value>,
    /// The result as a server of its own protocol wrote it, where the above say less than it did:
    /// handed on to those who speak that protocol.
    #[serde(skip)]
    pub verbatim: Option<Arc<Value>>,
    /// What was changed in files meanwhile; the [`Toolbox`] fills it in.
    #[serde(skip)]
    pub changes: Vec<Change>,
}

impl Output {
    /// What a tool says: in blocks, and as one value.
    pub fn new(content: Vec<Block>, structured: Option<Value>) -> Self {
        Self { content, structured, verbatim: None, changes: Vec::new() }
    }

    /// A result of text alone.
    pub fn text(text: impl Into<String>) -> Self {
        Self::new(vec![Block::text(text)], None)
    }
}

/// Why a call came to nothing. The first three say who acts next: the model tries again, the
/// model moves on, or we mend a bug.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// The model can correct itself: the sentence says how.
    #[error("{0}")]
    Retry(String),
    /// It cannot be done; the sentence says why.
    #[error("{0}")]
    Failed(String),
    /// The tool broke. The log has the traceback under this id; the model gets no detail.
    #[error("the tool broke and its author has to look (log id `{id}`); do something else")]
    Broken {
        /// Where the log tells more.
        id: String,
    },
    /// The tool took longer than it may.
    #[error("the tool was stopped after {} s, its time limit", .0.as_secs_f64())]
    Elapsed(Duration),
    /// The tool was silent for longer than it may.
    #[error("the tool was stopped: it gave no sign of life for {} s", .0.as_secs_f64())]
    Idle(Duration),
    /// The policy or a person refused it. [`refused`] knows a result by these words.
    #[error("refused: {0}")]
    Denied(String),
    /// The turn was cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// A word for what it is, where errors are counted.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Retry(_) => "retry",
            Self::Failed(_) => "failed",
            Self::Broken { .. } => "broken",
            Self::Elapsed(_) => "elapsed",
            Self::Idle(_) => "idle",
            Self::Denied(_) => "denied",
            Self::Cancelled => "cancelled",
        }
    }
}
