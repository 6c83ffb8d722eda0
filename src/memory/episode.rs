//! What is remembered: one episode of a turn, or a note.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::value::Trust;

/// Characters of what was wanted, and of what came of it.
pub const INTENT: usize = 1000;
/// The same for the experience.
pub const EXPERIENCE: usize = 1500;

/// Something that was learned. It is never changed in place: an edit is another one that
/// supersedes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Episode {
    /// Its id: that of the turn it was born in, or one of its own.
    pub id: String,
    /// What it is.
    pub kind: Kind,
    /// Who may be shown it.
    pub scope: Scope,
    /// What was wanted, in the person's words. Empty for a note.
    pub intent: String,
    /// What was done and what came of it, or what is noted.
    pub experience: String,
    /// How it went.
    pub outcome: Outcome,
    /// How far its words are trusted.
    pub trust: Trust,
    /// The session it comes from.
    #[serde(default)]
    pub session: String,
    /// The turn it comes from.
    #[serde(default)]
    pub turn: String,
    /// The folder it was learned in.
    #[serde(default)]
    pub workspace: String,
    /// When.
    pub created: Timestamp,
    /// Whether a person wants it kept.
    #[serde(default)]
    pub pinned: bool,
    /// The id of what took its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub superseded: Option<String>,
    /// Until when it held, where it holds no longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl Episode {
    /// The same for two that say the same; the scope belongs to it.
    pub fn print(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.scope.hash(&mut hasher);
        self.outcome.hash(&mut hasher);
        let told = if self.intent.is_empty() { &self.experience } else { &self.intent };
        told.split_whitespace().for_each(|word| word.to_lowercase().hash(&mut hasher));
        hasher.finish()
    }

    /// The same for two that [repeat](Self::repeats) each other.
    pub fn told(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.scope, &self.intent, &self.experience).hash(&mut hasher);
        hasher.finish()
    }

    /// Whether it was there at that moment, and held.
    pub fn held(&self, at: Timestamp) -> bool {
        match self.until {
            Some(until) => self.created <= at && at < until,
            None => self.created <= at && self.superseded.is_none(),
        }
    }

    /// Whether it says the same to the letter.
    pub fn repeats(&self, other: &Self) -> bool {
        (&self.scope, &self.intent, &self.experience) == (&other.scope, &other.intent, &other.experience)
    }
}

/// What is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A task and what came of it.
    Episode,
    /// A fact or a wish that somebody wanted kept.
    Note,
}

impl Kind {
    /// As it is stored.
    pub fn name(self) -> &'static str {
        match self {
            Self::Episode => "episode",
            Self::Note => "note",
        }
    }
}

/// How a turn went, when the episode was written. What is said of the turn later is in the
/// [`ledger`](super::ledger).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Well.
    Success,
    /// Wrong.
    Failure,
    /// Nobody has said.
    Unknown,
}

impl Outcome {
    /// As it is stored and shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Unknown => "unknown",
        }
    }
}

/// Who may be shown something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Scope {
    /// Everybody who uses this omni.
    Everyone,
    /// One person, in all of their sessions.
    Person(String),
    /// One session: what is said in a group stays there.
    Session(String),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everyone => f.write_str("everyone"),
            Self::Person(id) => write!(f, "person:{id}"),
            Self::Session(id) => write!(f, "session:{id}"),
        }
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        scope.to_string()
    }
}

impl TryFrom<String> for Scope {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("person", id)) if !id.is_empty() => Ok(Self::Person(id.to_owned())),
            Some(("session", id)) if !id.is_empty() => Ok(Self::Session(id.to_owned())),
            None if text == "everyone" => Ok(Self::Everyone),
            _ => Err(format!("`{text}` is no scope; use `everyone`, `person:ID` or `session:ID`")),
        }
    }
}

/// For whom something is recalled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reader {
    /// The person; `None` where several listen.
    pub person: Option<String>,
    /// The session.
    pub session: String,
}

impl Reader {
    /// The person at this machine.
    pub const HERE: &'static str = "here";

    /// The person at this machine, in this session.
    pub fn here(session: &str) -> Self {
        Self { person: Some(Self::HERE.to_owned()), session: session.to_owned() }
    }

    /// What this reader may be shown.
    pub fn scopes(&self) -> Vec<Scope> {
        let person = self.person.iter().cloned().map(Scope::Person);
        [Scope::Everyone, Scope::Session(self.session.clone())].into_iter().chain(person).collect()
    }

    /// Where what is learned with this reader belongs.
    pub fn own(&self) -> Scope {
        match &self.person {
            Some(person) => Scope::Person(person.clone()),
            None => Scope::Session(self.session.clone()),
        }
    }
}
