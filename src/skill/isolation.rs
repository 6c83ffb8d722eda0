//! Where a skill's tools run, and what they may do there.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::extension::Runtime;
use super::manifest::{Skill, Source};

/// Bytes of memory a worker has where the skill asks for no other number.
const MEMORY: u64 = 2 << 30;

/// Where tools run, from near to far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// In this process. For what we would vouch for: nothing here can be killed or confined.
    Thread,
    /// In a process that is kept for the next call.
    Worker,
    /// In a process for this call alone.
    Oneshot,
}

/// What the `metadata` of a skill's `SKILL.md` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Isolation {
    /// `isolation`: `thread`, `worker` or `oneshot`.
    pub level: Level,
    /// `network`: whether tools may open connections.
    pub network: bool,
    /// `processes`: whether tools may start processes.
    pub processes: bool,
    /// `memory`, in MiB: what a worker may use. Here in bytes.
    pub memory: u64,
    /// `environment`: names of variables that tools may see, separated by spaces.
    pub environment: Vec<String>,
}

impl Default for Isolation {
    fn default() -> Self {
        Self {
            level: Level::Worker,
            network: false,
            processes: false,
            memory: MEMORY,
            environment: Vec::new(),
        }
    }
}

impl Isolation {
    /// Reads the metadata; the error says which key is wrong and what it may be.
    pub fn read(metadata: &Map<String, Value>) -> Result<Self, String> {
        let mut isolation = Self::default();
        let flag = |key: &str, value: &Value| match value {
            Value::Bool(flag) => Ok(*flag),
            Value::String(text) if text == "true" => Ok(true),
            Value::String(text) if text == "false" => Ok(false),
            other => Err(format!("`metadata.{key}` is `true` or `false`, not {other}")),
        };
        for (key, value) in metadata {
            match key.as_str() {
                "isolation" => {
                    isolation.level = match value.as_str() {
                        Some("thread") => Level::Thread,
                        Some("worker") => Level::Worker,
                        Some("oneshot") => Level::Oneshot,
                        _ => {
                            let may = "`thread`, `worker` or `oneshot`";
                            return Err(format!("`metadata.isolation` is {may}, not {value}"));
                        }
                    }
                }
                "network" => isolation.network = flag(key, value)?,
                "processes" => isolation.processes = flag(key, value)?,
                "memory" => {
                    let mebibytes = match value {
                        Value::String(text) => text.parse().ok(),
                        other => other.as_u64(),
                    };
                    let mebibytes = mebibytes.filter(|number| (64..=1 << 24).contains(number));
                    let told = || format!("`metadata.memory` is a number of MiB from 64, not {value}");
                    isolation.memory = mebibytes.ok_or_else(told)? << 20;
                }
                "environment" => {
                    let names = value.as_str().ok_or_else(|| {
                        format!("`metadata.environment` is names separated by spaces, not {value}")
                    })?;
                    isolation.environment = names.split_whitespace().map(str::to_owned).collect();
                }
                _ => {}
            }
        }
        Ok(isolation)
    }

    /// Of this skill: only what is built in, or vouched for and Python alone, runs in this process,
    /// and nothing that brings packages. What is asked for in words that cannot be read is not
    /// granted.
    pub fn of(skill: &Skill) -> Self {
        let mut isolation = Self::read(&skill.card.metadata).unwrap_or_default();
        if skill.source == Source::Builtin {
            // Our own tools start programs and open connections by themselves, where that is their work.
            isolation = Self { level: Level::Thread, network: true, processes: true, ..isolation };
        } else if isolation.level == Level::Thread && !may_be_inside(skill) {
            isolation.level = Level::Worker;
        }
        isolation
    }

    /// The same for a tool that is to be kept further away than its skill.
    pub fn at_least(mut self, level: Option<Level>) -> Self {
        self.level = self.level.max(level.unwrap_or(self.level));
        self
    }

    /// Whether a process is used for more than one call.
    pub fn keeps_workers(&self) -> bool {
        self.level == Level::Worker
    }
}

/// Whether somebody has vouched for it, and it is Python alone: machine code can take down the
/// process that runs it, and packages are not ours to import.
fn may_be_inside(skill: &Skill) -> bool {
    let has_library = skill.extensions.iter().any(|extension| extension.text.runtime == Runtime::Rust);
    skill.trusted && skill.packages.is_empty() && !has_library
}
