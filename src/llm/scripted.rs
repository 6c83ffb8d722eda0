//! A model that plays a script: for tests and demonstrations.
//!
//! A script is a JSON array of steps, or one step per line (empty lines and lines that begin
//! with `#` are skipped). Each request plays the next step:
//!
//! ```json
//! {"calls": [{"name": "git__status", "arguments": {}}], "expect": {"contains": "changed"}}
//! {"text": "Two files.", "reasoning": "Easy.", "delay_ms": 50, "usage": {"input": 10, "output": 3}}
//! {"error": {"kind": "unavailable", "status": 503, "retry_after": 0.1}}
//! {"text": "and from the top", "stop": "done", "loop": true}
//! ```
//!
//! `arguments` may be a string, as a model that writes broken JSON would send it. `expect`
//! looks at the last message of the request, results included. `loop` is for the last step
//! and means: begin again. The position is that of the process: all sessions share it.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::Value;

use super::{Delta, Error, Model, Reply, Request, Sink, Stop};
use crate::message::{Message, Part, Role, ToolCall, Usage};

/// A model that plays a script.
#[derive(Debug)]
pub struct Scripted {
    name: String,
    steps: Vec<Step>,
    next: AtomicUsize,
    window: usize,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Step {
    text: String,
    reasoning: String,
    calls: Vec<Call>,
    expect: Option<Expect>,
    delay_ms: u64,
    error: Option<Fault>,
    stop: Ending,
    usage: Option<Usage>,
    #[serde(rename = "loop")]
    again: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    name: String,
    #[serde(default)]
    arguments: Value,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    contains: String,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Ending {
    #[default]
    Done,
    Length,
    Filtered,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "snake_case")]
enum Fault {
    Unauthorized {
        #[serde(default)]
        message: String,
    },
    Rejected {
        #[serde(default = "bad_request")]
        status: u16,
        #[serde(default)]
        message: String,
    },
    Unavailable {
        #[serde(default = "unavailable")]
        status: u16,
        #[serde(default)]
        message: String,
        retry_after: Option<f64>,
    },
    Network {
        #[serde(default)]
        message: String,
    },
    Silent {
        #[serde(default)]
        waited: f64,
    },
    /// `text` and `reasoning` of the step are what had arrived.
    Interrupted {
        #[serde(default)]
        message: String,
    },
    Unreadable {
        #[serde(default)]
        message: String,
    },
}

fn bad_request() -> u16 {
    400
}

fn unavailable() -> u16 {
    503
}

impl Scripted {
    /// Reads the script in a file.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error::Setup(format!("cannot read the script `{}`: {error}", path.display())))?;
        Self::parse(&path.display().to_string(), &text)
    }

    /// Reads a script; `file` is for messages.
    pub fn parse(file: &str, text: &str) -> Result<Self, Error> {
        let steps = steps(text).map_err(|problem| Error::Setup(format!("the script `{file}`, {problem}")))?;
        if let Some(place) = steps.iter().rev().skip(1).rposition(|step| step.again) {
            let step = place + 1;
            return Err(Error::Setup(format!(
                "the script `{file}`, step {step}: only the last step can `loop`"
            )));
        }
        let name = format!("scripted:{file}");
        Ok(Self { name, steps, next: AtomicUsize::new(0), window: 128_000 })
    }

    /// The same with another window.
    pub fn with_window(self, window: usize) -> Self {
        Self { window, ..self }
    }

    fn step(&self) -> Result<(usize, &Step), Error> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let again = self.steps.last().is_some_and(|step| step.again);
        let place = if again { number % self.steps.len() } else { number };
        let step = self.steps.get(place).ok_or_else(|| {
            let length = self.steps.len();
            Error::Setup(format!(
                "{} is used up: it has {length} steps and this is request {}",
                self.name,
                number + 1
            ))
        });
        step.map(|step| (number, step))
    }

    fn check(&self, number: usize, step: &Step, request: &Request) -> Result<(), Error> {
        let Some(expect) = &step.expect else { return Ok(()) };
        let said = request.messages.last().map(said).unwrap_or_default();
        if said.contains(&expect.contains) {
            return Ok(());
        }
        let said: String = said.chars().take(400).collect();
        Err(Error::Setup(format!(
            "{}, step {}: the last message should contain `{}`, but it says: {said}",
            self.name,
            number + 1,
            expect.contains
        )))
    }
}

#[async_trait]
impl Model for Scripted {
    fn name(&self) -> &str {
        &self.name
    }

    fn window(&self) -> usize {
        self.window
    }

    async fn reply(&self, request: &Request, sink: &Sink<'_>) -> Result<Reply, Error> {
        let (number, step) = self.step()?;
        self.check(number, step, request)?;
        if step.delay_ms > 0 {
            tokio::time::sleep(Duration::from_millis(step.delay_ms)).await;
        }
        step.reasoning.split_inclusive(' ').for_each(|piece| sink(Delta::Reasoning(piece.to_owned())));
        step.text.split_inclusive(' ').for_each(|piece| sink(Delta::Text(piece.to_owned())));
        let mut message = step.message();
        if let Some(fault) = &step.error {
            return Err(fault.error(&self.name, message));
        }
        let calls = step.calls.iter().enumerate().map(|(place, call)| {
            Part::Call(ToolCall {
                id: format!("call_{}_{}", number + 1, place + 1),
                name: call.name.clone(),
                arguments: call.arguments.clone().into(),
            })
        });
        message.parts.extend(calls);
        let stop = match step.stop {
            Ending::Done => Stop::Done,
            Ending::Length => Stop::Length,
            Ending::Filtered => Stop::Filtered,
        };
        Ok(Reply { message, stop, usage: step.usage, model: self.name.clone() })
    }
}

impl Step {
    fn message(&self) -> Message {
        let mut parts = Vec::new();
        if !self.reasoning.is_empty() {
            parts.push(Part::Reasoning { text: self.reasoning.clone() });
        }
        if !self.text.is_empty() {
            parts.push(Part::text(&self.text));
        }
        Message::of(Role::Assistant, parts)
    }
}

impl Fault {
    fn error(&self, provider: &str, partial: Message) -> Error {
        let provider = provider.to_owned();
        match self.clone() {
            Self::Unauthorized { message } => Error::Unauthorized { provider, message },
            Self::Rejected { status, message } => Error::Rejected { provider, status, message },
            Self::Unavailable { status, message, retry_after } => {
                let retry_after = retry_after.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                Error::Unavailable { provider, status, message, retry_after }
            }
            Self::Network { message } => Error::Network { provider, message },
            Self::Silent { waited } => {
                Error::Silent { provider, waited: Duration::try_from_secs_f64(waited).unwrap_or_default() }
            }
            Self::Interrupted { message } => {
                Error::Interrupted { provider, message, partial: Box::new(partial) }
            }
            Self::Unreadable { message } => Error::Unreadable { provider, message },
        }
    }
}

fn steps(text: &str) -> Result<Vec<Step>, String> {
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text).map_err(|error| format!("line {}: {error}", error.line()));
    }
    let lines = text.lines().enumerate().map(|(place, line)| (place + 1, line.trim()));
    let steps = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let steps = steps
        .map(|(number, line)| serde_json::from_str(line).map_err(|error| format!("line {number}: {error}")));
    steps.collect()
}

fn said(message: &Message) -> String {
    let results = message.tool_results().map(|result| result.text());
    std::iter::once(message.text()).chain(results).collect::<Vec<_>>().join("\n")
}
