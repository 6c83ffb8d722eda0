//! One conversation: its log in the store, and how it becomes what a model is shown.
//!
//! The log is only ever appended to. What a model needs is made from it when it is read:
//! [`repair`] mends what a killed process left half done, [`window`] picks what fits.

pub mod error;
pub mod log;
pub mod markdown;
pub mod repair;
pub mod view;
pub mod window;

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::message::event::{Finished, StopReason};
use crate::message::{Message, Usage};

pub use error::Error;
pub use log::Sessions;

/// What is known of a session without reading it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Its id: a UUID of version 7, or what a client called it.
    pub id: String,
    /// The first line of the first thing the user said.
    pub title: String,
    /// The folder it was started in.
    pub workspace: PathBuf,
    /// Messages in its log.
    pub messages: u64,
    /// The beginning of the last text in it.
    pub last: String,
    /// When it was started.
    pub created: Timestamp,
    /// When it was last added to.
    pub updated: Timestamp,
}

/// A session, read.
#[derive(Debug, Clone, PartialEq)]
pub struct Session {
    /// What the list says of it.
    pub summary: Summary,
    /// What was said, repaired: every call is followed by its result.
    pub messages: Vec<Message>,
    /// What stands for all that was said before these.
    pub digest: Option<Digest>,
    /// The place the next entry is expected to get; see [`Sessions::append`].
    next: i64,
    /// Whether it has a log.
    kept: bool,
}

impl Session {
    /// A session without a log: what is added to it is forgotten with it.
    pub fn passing(workspace: &Path, messages: Vec<Message>, now: Timestamp) -> Self {
        let summary = Summary {
            id: uuid::Uuid::now_v7().to_string(),
            title: String::new(),
            workspace: workspace.to_owned(),
            messages: messages.len() as u64,
            last: String::new(),
            created: now,
            updated: now,
        };
        Self { summary, messages: repair::repair(messages), digest: None, next: 1, kept: false }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.summary.id
    }

    /// Whether it has a log.
    pub fn is_kept(&self) -> bool {
        self.kept
    }
}

/// Something to remember.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "body", rename_all = "snake_case")]
pub enum Entry {
    /// Somebody said something.
    Message(Message),
    /// A turn begins.
    TurnBegan(Began),
    /// A turn ended. A turn without this entry was killed.
    TurnEnded(Ended),
    /// Something a person should find in the log: a model was changed.
    Note(Note),
    /// What was said up to here, in short: a model is shown this in its place.
    Digest(Digest),
    /// What counts up to here can be come back to by this name.
    Kept(Mark),
    /// The conversation begins anew.
    Reset,
    /// What counted at that name counts again; with no name, what did before it was begun anew.
    Restored(Mark),
}

/// A place in a conversation that has a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Its name.
    pub name: String,
}

/// What stands for the beginning of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// The place of the last entry that it stands for.
    pub upto: i64,
    /// The summary, with all that earlier ones said.
    pub text: String,
    /// The model that wrote it; empty if it was put together from what was said.
    pub by: String,
}

/// How a turn began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Began {
    /// The model that was asked first.
    pub model: String,
}

/// How a turn ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// Why.
    pub stop: StopReason,
    /// What went wrong, where `stop` says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What it cost.
    pub usage: Usage,
    /// Model calls made.
    pub rounds: u32,
    /// Tool calls made.
    pub tool_calls: u32,
    /// Wall clock time.
    pub milliseconds: f64,
}

impl From<&Finished> for Ended {
    fn from(finished: &Finished) -> Self {
        Self {
            stop: finished.stop,
            error: finished.error.clone(),
            usage: finished.usage,
            rounds: finished.rounds,
            tool_calls: finished.tool_calls,
            milliseconds: finished.milliseconds,
        }
    }
}

/// A line for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The line.
    pub text: String,
}

/// An entry in its place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    /// Its place in the session, from 1, without gaps.
    pub seq: i64,
    /// The turn it belongs to.
    pub turn: String,
    /// When it was written.
    pub created: Timestamp,
    /// The entry.
    #[serde(flatten)]
    pub entry: Entry,
}
