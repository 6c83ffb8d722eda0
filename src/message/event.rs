//! What a turn reports while it goes on.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::oneshot;

use super::{ToolResult, Usage};

/// Something that happened in a turn. Ids rise by one within a turn, so a reader can say
/// from where it wants to go on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Event {
    /// Position in the turn, from 1.
    pub id: u64,
    /// The session.
    pub session: String,
    /// The turn.
    pub turn: String,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened. The serialised names are those of `--json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum EventKind {
    /// The user's message is on disk and the turn begins.
    #[serde(rename = "turn.started")]
    Started {
        /// The model that will answer.
        model: String,
    },
    /// What earlier turns taught was put in front of the question.
    #[serde(rename = "memory.recalled")]
    Recalled {
        /// The ids of what was recalled, the best first.
        episodes: Vec<String>,
    },
    /// A piece of the answer.
    #[serde(rename = "message.delta")]
    Text {
        /// The piece.
        text: String,
    },
    /// A piece of the model's reasoning.
    #[serde(rename = "reasoning.delta")]
    Reasoning {
        /// The piece.
        text: String,
    },
    /// A tool call begins.
    #[serde(rename = "tool.started")]
    ToolStarted {
        /// The call's id.
        call: String,
        /// The call that has made it, where a tool calls a tool.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<String>,
        /// The tool's own name (`git.status`).
        tool: String,
        /// What it is given.
        arguments: Map<String, Value>,
    },
    /// A tool reports how far it is.
    #[serde(rename = "tool.progress")]
    ToolProgress {
        /// The call's id.
        call: String,
        /// How much is done.
        progress: f64,
        /// Of how much, if known.
        total: Option<f64>,
        /// A word about it.
        message: Option<String>,
    },
    /// A tool call ended.
    #[serde(rename = "tool.completed")]
    ToolFinished {
        /// The call's id.
        call: String,
        /// The call that has made it, where a tool calls a tool.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<String>,
        /// The tool's own name.
        tool: String,
        /// What it came to.
        result: ToolResult,
        /// How long it took.
        milliseconds: f64,
    },
    /// A tool waits for a person's consent.
    #[serde(rename = "approval.requested")]
    Approval(Approval),
    /// A tool wants to know something from a person.
    #[serde(rename = "elicitation.requested")]
    Elicitation(Elicitation),
    /// What one model call cost.
    #[serde(rename = "usage")]
    Usage(Usage),
    /// Something worth a line that ends nothing: a retry, a fallback, a loop that was broken.
    #[serde(rename = "notice")]
    Notice {
        /// The line.
        text: String,
    },
    /// The turn ended; always the last event.
    #[serde(rename = "result")]
    Finished(Finished),
}

/// A question to a person: may this call run?
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Approval {
    /// The call's id.
    pub call: String,
    /// The tool's own name.
    pub tool: String,
    /// Exactly what would run.
    pub arguments: Map<String, Value>,
    /// Where it would run.
    #[serde(default)]
    pub folder: PathBuf,
    /// Why it is asked.
    pub reason: String,
    /// Where the answer goes. A face that cannot ask drops it, which is a refusal.
    #[serde(skip)]
    pub answer: Answer,
}

/// A question of a tool to a person.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Elicitation {
    /// The call's id.
    pub call: String,
    /// The tool's own name.
    pub tool: String,
    /// The question.
    pub message: String,
    /// JSON Schema of the answer: an object of texts, numbers, yes or no, choices.
    pub schema: Value,
    /// Where the answer goes; `None` declines. A face that cannot ask drops it.
    #[serde(skip)]
    pub answer: Answer<Option<Map<String, Value>>>,
}

/// A place for one answer; dropping every copy of it refuses.
#[derive(Debug)]
pub struct Answer<T = Consent>(Arc<Mutex<Option<oneshot::Sender<T>>>>);

impl<T> Default for Answer<T> {
    /// Where nobody waits for an answer, as in an event that was read again.
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Clone for Answer<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// What a person says to an [`Approval`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consent {
    /// Yes, this once.
    Once,
    /// Yes, and do not ask again for this tool in this session.
    Always,
    /// No, this once.
    No,
    /// No, and do not ask again for this tool in this session.
    Never,
}

impl<T> Answer<T> {
    /// A place for an answer, and where it will arrive.
    pub fn channel() -> (Self, oneshot::Receiver<T>) {
        let (sender, receiver) = oneshot::channel();
        (Self(Arc::new(Mutex::new(Some(sender)))), receiver)
    }

    /// Gives the answer. The first one counts; returns whether this was it.
    pub fn give(&self, answer: T) -> bool {
        let sender = self.0.lock().expect("no panic while held").take();
        sender.is_some_and(|sender| sender.send(answer).is_ok())
    }
}

/// How a turn ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Finished {
    /// The answer, whole.
    pub text: String,
    /// Why it ended.
    pub stop: StopReason,
    /// What went wrong, where `stop` says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What the turn cost.
    pub usage: Usage,
    /// Model calls made.
    pub rounds: u32,
    /// Tool calls made.
    pub tool_calls: u32,
    /// Wall clock time.
    pub milliseconds: f64,
}

/// Why a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The model had nothing more to do.
    Answered,
    /// The provider cut the answer at its length limit.
    Length,
    /// A limit of ours: rounds, calls, tokens or time.
    Limit,
    /// The model went in circles.
    Loop,
    /// Somebody cancelled it.
    Cancelled,
    /// The provider refused the key or its use.
    Unauthorized,
    /// No model answered.
    ModelFailed,
    /// It did not begin: a budget was used up while it waited.
    Exhausted,
    /// Something of ours failed: the disk, the database.
    Failed,
}

impl StopReason {
    /// Whether there is an answer, if only a part of one.
    pub fn is_answer(self) -> bool {
        matches!(self, Self::Answered | Self::Length | Self::Limit | Self::Loop)
    }

    /// Its name, as it is serialised.
    pub fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Length => "length",
            Self::Limit => "limit",
            Self::Loop => "loop",
            Self::Cancelled => "cancelled",
            Self::Unauthorized => "unauthorized",
            Self::ModelFailed => "model_failed",
            Self::Exhausted => "exhausted",
            Self::Failed => "failed",
        }
    }
}
