//! The words everybody uses: messages, tool calls and their results.
//!
//! These are the inner types. Vendors' wire formats are made from them in `llm`, rows in
//! `session`, JSON lines in the faces; nothing here knows of any of those.

pub mod event;
pub mod spec;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use event::{Event, EventKind};
pub use spec::Spec;

/// What a face hands to the hub: somebody said something in a session.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// The session it belongs to; `None` starts a new one.
    pub session: Option<String>,
    /// The message itself.
    pub message: Message,
}

/// One entry of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What was said, in order.
    pub parts: Vec<Part>,
    /// The provider's own form of an assistant message, sent back verbatim to the same
    /// provider: signed reasoning and encrypted blocks do not survive a translation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<Replay>,
}

/// Who speaks. The system prompt is no message: it is composed anew for each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The person, or the program, that asks.
    User,
    /// The model.
    Assistant,
    /// Results of the calls of the assistant message before.
    Tool,
}

/// A piece of a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Part {
    /// Plain text or markdown.
    Text {
        /// The text.
        text: String,
    },
    /// What a reasoning model showed of its thoughts. Never part of the answer.
    Reasoning {
        /// The text.
        text: String,
    },
    /// A picture.
    Image {
        /// Its media type, `image/png` for one.
        mime: String,
        /// Its bytes in base64.
        data: String,
    },
    /// The assistant wants a tool called.
    Call(ToolCall),
    /// What the call came to.
    Result(ToolResult),
}

/// A provider's opaque form of a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Replay {
    /// The provider that wrote it; no other one is shown it.
    pub provider: String,
    /// Its content, whatever that is.
    pub content: Value,
}

/// A request by the model to run a tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Ties the result to the call; unique in its turn.
    pub id: String,
    /// The name as the model knows it (`git__status`).
    pub name: String,
    /// What the tool is given.
    pub arguments: Arguments,
}

/// The arguments of a call as the model wrote them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Arguments {
    /// A JSON object, as it should be.
    Object(Map<String, Value>),
    /// Text that is no JSON object. It goes back to the model with an explanation.
    Unreadable(String),
}

impl Arguments {
    /// Reads what a model sent. An empty text counts as no arguments: several servers send
    /// `""` for a tool without parameters.
    pub fn parse(text: &str) -> Self {
        if text.trim().is_empty() {
            return Self::Object(Map::new());
        }
        match serde_json::from_str(text) {
            Ok(Value::Object(map)) => Self::Object(map),
            _ => Self::Unreadable(text.to_owned()),
        }
    }

    /// What the model wrote, or the same as JSON.
    pub fn text(&self) -> String {
        match self {
            Self::Object(map) => serde_json::to_string(map).unwrap_or_default(),
            Self::Unreadable(text) => text.clone(),
        }
    }
}

impl From<Value> for Arguments {
    fn from(value: Value) -> Self {
        match value {
            Value::Object(map) => Self::Object(map),
            Value::Null => Self::Object(Map::new()),
            Value::String(text) => Self::parse(&text),
            other => Self::Unreadable(other.to_string()),
        }
    }
}

/// What a tool call came to, as the model and the session log see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolResult {
    /// The id of the call.
    pub call: String,
    /// The name as the model knows it.
    pub name: String,
    /// What the tool returned, or a sentence about what went wrong.
    pub content: Vec<Block>,
    /// The same as one JSON value, where the tool returned one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub structured: Option<Value>,
    /// Whether the call failed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_error: bool,
    /// What it has changed in files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
}

/// What a call has changed in a file, as its tool says. It is for people who look on, now or later: a model
/// is not shown it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The file, below the workspace.
    pub path: PathBuf,
    /// What was in its place; `None` where nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<String>,
    /// What is there now.
    pub new: String,
}

/// A piece of a tool's result, after the content blocks of MCP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Block {
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// A picture.
    Image {
        /// Media type.
        mime: String,
        /// Bytes in base64.
        data: String,
    },
    /// A recording.
    Audio {
        /// Media type.
        mime: String,
        /// Bytes in base64.
        data: String,
    },
    /// A document with its content: text, or bytes in base64.
    Resource {
        /// Where it lives.
        uri: String,
        /// Media type, if known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mime: Option<String>,
        /// Its text.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
        /// Its bytes in base64.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        blob: Option<String>,
    },
    /// A pointer to a document.
    ResourceLink {
        /// Where it lives.
        uri: String,
        /// A short name.
        name: String,
        /// Media type, if known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mime: Option<String>,
    },
}

impl Message {
    /// A user's message of plain text.
    pub fn user(text: impl Into<String>) -> Self {
        Self::of(Role::User, vec![Part::text(text)])
    }

    /// An assistant's message of plain text.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self::of(Role::Assistant, vec![Part::text(text)])
    }

    /// The results of a round, in the order of its calls.
    pub fn results(results: Vec<ToolResult>) -> Self {
        Self::of(Role::Tool, results.into_iter().map(Part::Result).collect())
    }

    /// A message of these parts.
    pub fn of(role: Role, parts: Vec<Part>) -> Self {
        Self { role, parts, replay: None }
    }

    /// Everything said in it as one text; reasoning, calls and results left out.
    pub fn text(&self) -> String {
        let texts = self.parts.iter().filter_map(|part| match part {
            Part::Text { text } => Some(text.as_str()),
            _ => None,
        });
        texts.collect::<Vec<_>>().join("\n")
    }

    /// The calls it asks for.
    pub fn calls(&self) -> impl Iterator<Item = &ToolCall> {
        self.parts.iter().filter_map(|part| match part {
            Part::Call(call) => Some(call),
            _ => None,
        })
    }

    /// The results it carries.
    pub fn tool_results(&self) -> impl Iterator<Item = &ToolResult> {
        self.parts.iter().filter_map(|part| match part {
            Part::Result(result) => Some(result),
            _ => None,
        })
    }
}

impl Part {
    /// A piece of text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into() }
    }
}

impl Block {
    /// A piece of text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into() }
    }
}

impl ToolResult {
    /// The answer to `call` when it failed: one sentence for the model.
    pub fn error(call: &ToolCall, sentence: impl Into<String>) -> Self {
        Self {
            call: call.id.clone(),
            name: call.name.clone(),
            content: vec![Block::text(sentence)],
            structured: None,
            is_error: true,
            changes: Vec::new(),
        }
    }

    /// Its text blocks, joined; what has no text is named by its kind.
    pub fn text(&self) -> String {
        let lines = self.content.iter().map(|block| match block {
            Block::Text { text } => text.clone(),
            Block::Image { mime, .. } => format!("[image {mime}]"),
            Block::Audio { mime, .. } => format!("[audio {mime}]"),
            Block::Resource { text: Some(text), .. } => text.clone(),
            Block::Resource { uri, .. } => format!("[resource {uri}]"),
            Block::ResourceLink { uri, name, .. } => format!("[{name}]({uri})"),
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// What a model call cost, in tokens, as the provider counted them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt, cached ones included.
    pub input: u64,
    /// Of these, read from the provider's cache.
    #[serde(default)]
    pub cached: u64,
    /// Tokens of the answer, reasoning included.
    pub output: u64,
    /// What all of it costs, in millionths of a dollar; `None` where a price is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<u64>,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.cost = match (self.total(), other.total()) {
            // Nothing costs nothing, whatever it is asked.
            (0, _) => other.cost,
            (_, 0) => self.cost,
            _ => self.cost.zip(other.cost).map(|(one, more)| one + more),
        };
        self.input += other.input;
        self.cached += other.cached;
        self.output += other.output;
    }
}

impl Usage {
    /// What it costs, in dollars, where that is known.
    pub fn dollars(&self) -> Option<f64> {
        let cost = if self.total() == 0 { Some(0) } else { self.cost };
        cost.map(|millionths| millionths as f64 / 1e6)
    }

    /// Input and output together.
    pub fn total(&self) -> u64 {
        self.input + self.output
    }
}
