//! Models: one trait, and who is behind it.

pub mod catalog;
pub mod detect;
pub mod embed;
pub mod encoder;
pub mod retry;
pub mod schema;

mod chain;
mod convert;
mod fault;
mod offline;
mod provider;
mod scripted;
mod watch;

pub use chain::Resilient;
pub use offline::Offline;
pub use provider::{Provider, Server};
pub use scripted::Scripted;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use crate::message::{Message, Usage};

/// Something that answers.
#[async_trait]
pub trait Model: Send + Sync {
    /// What people call it: `anthropic/claude-sonnet-4-5`, `offline`.
    fn name(&self) -> &str;

    /// Tokens that fit into its context, prompt and answer together.
    fn window(&self) -> usize;

    /// The name of a model, this one or one that steps in, of which nobody has said what it costs.
    fn unpriced(&self) -> Option<&str> {
        None
    }

    /// Answers one request. Pieces go to `sink` as they arrive; the reply repeats them whole.
    ///
    /// Dropping the future closes the connection.
    async fn reply(&self, request: &Request, sink: &Sink<'_>) -> Result<Reply, Error>;
}

/// Takes the pieces of an answer while they arrive.
pub type Sink<'a> = dyn Fn(Delta) + Send + Sync + 'a;

/// A piece of an answer, or a word about how it is going.
#[derive(Debug, Clone, PartialEq)]
pub enum Delta {
    /// Of the answer.
    Text(String),
    /// Of the reasoning.
    Reasoning(String),
    /// Something a person should know: a retry, a fallback model.
    Notice(String),
}

/// What a model is asked.
#[derive(Debug, Clone)]
pub struct Request {
    /// The system prompt.
    pub system: String,
    /// The conversation; the last message is the user's, or the results of a round.
    pub messages: Vec<Message>,
    /// The tools it may call; empty for none.
    pub tools: Arc<[ToolDefinition]>,
}

/// A tool as a model sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolDefinition {
    /// Its name on the wire: `[A-Za-z0-9_-]`, at most 64.
    pub name: String,
    /// Its own name, for people: `git.status`.
    pub title: String,
    /// What it does.
    pub description: String,
    /// JSON Schema of its arguments.
    pub parameters: Value,
    /// Sentences a person might say when this tool is wanted; never sent to a vendor.
    pub examples: Vec<String>,
    /// Whether it changes nothing; never sent to a vendor.
    pub read_only: bool,
    /// Whether the workspace has files that it is about; never sent to a vendor.
    pub fits: bool,
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The assistant's message, calls included.
    pub message: Message,
    /// Why it ended there.
    pub stop: Stop,
    /// What it cost, if the provider said.
    pub usage: Option<Usage>,
    /// The model that wrote it: a fallback may have stepped in.
    pub model: String,
}

/// Why a model stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// It had said everything, or wants tools called.
    Done,
    /// The provider's length limit.
    Length,
    /// The provider's content filter.
    Filtered,
}

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The key is missing, wrong or may not do this (401, 403).
    #[error("{provider} refused the key: {message}")]
    Unauthorized {
        /// Who refused.
        provider: String,
        /// What it said.
        message: String,
    },
    /// The request itself is wrong (other 4xx): repeating it is of no use.
    #[error("{provider} rejected the request ({status}): {message}")]
    Rejected {
        /// Who rejected.
        provider: String,
        /// HTTP status.
        status: u16,
        /// What it said.
        message: String,
    },
    /// It may work later (408, 409, 429, 5xx).
    #[error("{provider} is unavailable ({status}): {message}")]
    Unavailable {
        /// Who.
        provider: String,
        /// HTTP status.
        status: u16,
        /// What it said.
        message: String,
        /// How long it asked us to wait.
        retry_after: Option<Duration>,
    },
    /// No connection, or it broke.
    #[error("no connection to {provider}: {message}")]
    Network {
        /// Who.
        provider: String,
        /// What happened.
        message: String,
    },
    /// It did not answer in time.
    #[error("{provider} sent nothing for {} s", waited.as_secs_f64())]
    Silent {
        /// Who.
        provider: String,
        /// How long we waited.
        waited: Duration,
    },
    /// The answer broke off; this is what had arrived.
    #[error("the answer of {provider} broke off: {message}")]
    Interrupted {
        /// Who.
        provider: String,
        /// What happened.
        message: String,
        /// What had arrived. Calls in it are incomplete and left out.
        partial: Box<Message>,
    },
    /// It answered with something that is no answer.
    #[error("{provider} answered with something unreadable: {message}")]
    Unreadable {
        /// Who.
        provider: String,
        /// An excerpt, and what is wrong with it.
        message: String,
    },
    /// The name, URL or key in the configuration cannot work.
    #[error("{0}")]
    Setup(String),
}
