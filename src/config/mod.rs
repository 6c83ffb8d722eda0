//! Settings: read once, resolved once, trusted afterwards.
//!
//! [`DEFAULTS`] is the reference: every key with its default and a comment. A test holds it
//! equal to these types, and `docs/configuration.md` is made from it.

pub mod edit;
pub mod environment;
pub mod error;
pub mod layers;
mod page;
pub mod paths;
pub mod secret;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use error::ConfigError;
pub use layers::{Loaded, Origin, load};
pub use page::{reference, show};
pub use paths::Paths;
pub use secret::{Private, Secret};

/// Every setting with its default and what it means, as TOML.
pub const DEFAULTS: &str = include_str!("defaults.toml");

/// Everything that two sensible people might set differently.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Which model answers.
    pub model: Model,
    /// Model servers by name, beside the ones that are built in.
    pub provider: BTreeMap<String, Provider>,
    /// How far one turn may go.
    pub limits: Limits,
    /// What may be used of models.
    pub budget: Budget,
    /// How tools run.
    pub tools: Tools,
    /// What may run without asking.
    pub policy: Policy,
    /// What each skill is set to, by its name and by key.
    pub skill: BTreeMap<String, BTreeMap<String, Private>>,
    /// Where skills are.
    pub skills: Skills,
    /// Servers of others.
    pub mcp: Mcp,
    /// The HTTP server.
    pub gateway: Gateway,
    /// Work that goes on by itself.
    pub jobs: Jobs,
    /// Telegram.
    pub telegram: Telegram,
    /// Where conversations are kept.
    pub store: Store,
    /// What is learned from turns.
    pub memory: Memory,
    /// What is written to the log.
    pub log: Log,
    /// What is told to those who watch many programs.
    pub telemetry: Telemetry,
    /// Where newer versions are.
    pub update: Update,
}

impl Default for Config {
    /// What [`DEFAULTS`] says.
    fn default() -> Self {
        toml::from_str(DEFAULTS).expect("the defaults are settings; a test reads them")
    }
}

/// Which model answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// `provider/model`, `offline`, or `scripted:FILE`. Empty: the first that is found.
    pub name: String,
    /// Asked in this order when `name` gives no answer.
    pub fallback: Vec<String>,
    /// Tokens of the context window; 0 for what is known of the model.
    pub window: usize,
    /// Tokens an answer may have; 0 for the provider's own limit.
    pub max_output: u32,
    /// How much it thinks before it answers: `low`, `medium`, `high`. Empty: as the model does by itself.
    pub effort: String,
    /// Tries after the first, before any token has arrived.
    pub retries: u32,
    /// Seconds to wait for a connection.
    pub connect_timeout: f64,
    /// Seconds to wait for the first byte of an answer.
    pub first_byte_timeout: f64,
    /// Seconds a stream may be silent.
    pub idle_timeout: f64,
    /// What tokens cost.
    pub price: Vec<Price>,
}

/// What a million tokens of a model cost, in dollars: `openai/gpt-5.6 2.0 0.2 10.0`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Price {
    /// `provider/model`.
    pub model: String,
    /// Of the prompt.
    pub input: f64,
    /// Of the prompt, where the provider has it in its cache.
    pub cached: f64,
    /// Of the answer.
    pub output: f64,
}

impl TryFrom<String> for Price {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let dollars = |word: &str| word.parse::<f64>().ok().filter(|dollars| (0.0..=1e6).contains(dollars));
        match words[..] {
            [model, input, cached, output] => (|| {
                let (input, cached, output) = (dollars(input)?, dollars(cached)?, dollars(output)?);
                Some(Self { model: model.to_owned(), input, cached, output })
            })(),
            _ => None,
        }
        .ok_or_else(|| format!("`{text}` is no price"))
    }
}

impl From<Price> for String {
    fn from(Price { model, input, cached, output }: Price) -> Self {
        format!("{model} {input:?} {cached:?} {output:?}")
    }
}

/// A model server.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// The protocol it speaks: `openai`, `openai-responses`, `anthropic`, `gemini`, `ollama`, …
    /// Empty: as the provider's name says, `openai` if that says nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Where it is. Empty: the vendor's own address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub base_url: String,
    /// Its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<Secret>,
}

/// How far one turn may go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Model calls.
    pub rounds: u32,
    /// Tool calls.
    pub tool_calls: u32,
    /// Tokens, prompts and answers of all its model calls together.
    pub tokens: u64,
    /// Dollars, where prices are known; 0 for no limit.
    pub dollars: f64,
    /// Seconds of wall clock time.
    pub seconds: f64,
}

/// What may be used of models, beside what one turn may; 0 for no limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Tokens of one conversation.
    pub session_tokens: u64,
    /// Dollars of one conversation.
    pub session_dollars: f64,
    /// Tokens of a day, jobs left out.
    pub day_tokens: u64,
    /// Dollars of a day, jobs left out.
    pub day_dollars: f64,
}

/// How tools run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tools {
    /// Seconds a call may take where the tool says nothing; 0 for no limit.
    pub timeout: f64,
    /// Seconds a call may go without a sign of life where the tool says nothing; 0 for no limit.
    pub idle_timeout: f64,
    /// Bytes of a result that go to the model; the rest is kept and can be paged through.
    pub result_bytes: usize,
}

/// What may run without asking. Patterns are tool names with `*`; the narrowest list that
/// matches decides: deny, then ask, then allow, then the tool's own annotations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Runs at once.
    pub allow: Vec<String>,
    /// Waits for a person's consent.
    pub ask: Vec<String>,
    /// Never runs.
    pub deny: Vec<String>,
}

/// Where skills are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skills {
    /// Folders of skills beside the built-in, the user's and the project's; later ones win.
    pub folders: Vec<PathBuf>,
    /// Skills that are left out, by name.
    pub disabled: Vec<String>,
}

/// Servers of others, whose tools are used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mcp {
    /// Servers that are left out, by name.
    pub disabled: Vec<String>,
}

/// The HTTP server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    /// Where it listens.
    pub bind: String,
    /// A token of its callers, beside those in the database; may be `env:NAME` or `file:PATH`.
    pub token: Secret,
    /// Turns that go on at once.
    pub turns: usize,
    /// Messages that may wait, of all sessions together.
    pub waiting: usize,
    /// Seconds until there is an answer, waiting included.
    pub turn_timeout: f64,
    /// Requests of one token in a minute; 0 for no limit.
    pub rate: u32,
    /// Whether models are answered for that are not there.
    pub any_model: bool,
}

/// Work that goes on by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jobs {
    /// Tokens that it may use in a day; 0 for no limit.
    pub tokens: u64,
    /// What webhooks are signed with; may be `env:NAME` or `file:PATH`. Empty: there are none.
    pub webhook_secret: Secret,
    /// Hosts of webhooks that may be of this machine or of a private network.
    pub webhook_hosts: Vec<String>,
}

/// Telegram.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Telegram {
    /// The token of the bot; may be `env:NAME` or `file:PATH`. Empty: there is none.
    pub token: Secret,
    /// People who may talk, by Telegram's numbers.
    pub users: Vec<i64>,
    /// Groups in which everybody may talk.
    pub groups: Vec<i64>,
    /// People who may talk, and change things for others.
    pub admins: Vec<i64>,
    /// Whether everybody in a group is in one conversation.
    pub shared_groups: bool,
    /// Whether answers have buttons to judge them.
    pub feedback: bool,
    /// Seconds a question waits for a person.
    pub patience: f64,
    /// Where Telegram reaches the gateway; empty: it is asked.
    pub webhook: String,
    /// Seconds it may think about it when it is asked.
    pub poll: f64,
    /// The server of the Bot API.
    pub server: String,
}

/// Where conversations are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// `sqlite:PATH` or `postgres://…`; may be `env:NAME` or `file:PATH`. Empty: a SQLite
    /// file in the data folder.
    pub url: Secret,
}

/// What is learned from turns, and how it is recalled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Whether anything is learned or recalled.
    pub enabled: bool,
    /// What turns texts into vectors: an encoder of this machine, or `provider/model`; empty for
    /// words alone.
    pub encoder: String,
    /// Candidates by similarity.
    pub k1: usize,
    /// Shown at most.
    pub k2: usize,
    /// The weight of what helped before against similarity, from 0 to 1.
    pub lambda: f64,
    /// Tokens that may be shown.
    pub tokens: usize,
    /// Episodes that are kept; 0 for no limit.
    pub capacity: usize,
}

/// What is written to the log file in the state folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug` or `trace`, or directives as `tracing` knows them.
    pub level: String,
    /// `text`, or `json`, one object a line.
    pub format: String,
}

/// What is told to those who watch many programs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// An OpenTelemetry collector that takes OTLP over HTTP; empty for none.
    pub endpoint: String,
}

/// Where newer versions are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Update {
    /// The folder of releases on the web; empty for the one that was built in.
    pub url: String,
    /// The public key of minisign that they are signed with; empty for the one that was built in.
    pub key: String,
}
