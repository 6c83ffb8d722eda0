//! What is said of a tool before it is called.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What is called by the name of a [`Spec`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A tool, for the model.
    #[default]
    Tool,
    /// A document to read, for programs and people.
    Resource {
        /// Its URI, or a template for many (RFC 6570, simple expansion) whose variables are the
        /// arguments.
        uri: String,
        /// The media type of its content.
        mime: Option<String>,
    },
    /// A text to begin with, for people; its arguments are texts.
    Prompt,
}

impl Kind {
    fn is_tool(&self) -> bool {
        *self == Self::Tool
    }
}

/// Everything known of a tool before it is called; of a document and a prompt as well.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// Its own name: `skill.tool`, or `server.tool` for a remote one.
    pub name: String,
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What it is.
    #[serde(default, skip_serializing_if = "Kind::is_tool")]
    pub kind: Kind,
    /// What it does, for the model.
    pub description: String,
    /// JSON Schema (2020-12) of its arguments; always of type `object`.
    pub input: Value,
    /// JSON Schema of its structured result, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// What a caller may expect of it.
    #[serde(default)]
    pub annotations: Annotations,
    /// Total time it may take, in seconds; `None` is the configured default, 0 no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<f64>,
    /// Seconds it may go without a sign of life; `None` is the configured default, 0 no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<f64>,
    /// Whether a person is asked even where its annotations would let it run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub confirm: bool,
    /// Seconds for which a result is good for the same call; `None` runs it each time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_ttl: Option<f64>,
    /// Calls of it that run at once; the others wait. `None` is no limit of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Whether the workspace has files that its skill is about.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fits: bool,
    /// Sentences a person might say when this tool is wanted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<String>,
}

/// Hints about a tool's effects, with MCP's names and defaults: what says nothing of itself
/// is taken to change things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Annotations {
    /// It changes nothing.
    pub read_only: bool,
    /// What it changes may be lost.
    pub destructive: bool,
    /// Calling it twice is as good as once.
    pub idempotent: bool,
    /// It reaches out of this machine.
    pub open_world: bool,
}

impl Default for Annotations {
    fn default() -> Self {
        Self { read_only: false, destructive: true, idempotent: false, open_world: true }
    }
}
