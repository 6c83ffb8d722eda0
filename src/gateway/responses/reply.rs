//! A turn as a response: an object that grows, and the events that say how.
//!
//! Both are made from the turn's events and nothing else, so whoever comes back later gets the same
//! events under the same numbers. What the assistant does with its tools stands in the field `omni`
//! of events that are otherwise fine, never among the items: a `function_call` is for the caller to
//! run, and clients that do not know the tool fail, whether or not its output follows.

use axum::response::sse;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::openai::progress;
use super::super::turn::refusal;
use crate::message::Usage;
use crate::message::event::StopReason;

/// A response while it is written.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    turn: String,
    session: String,
    created: i64,
    /// What was asked for.
    echo: Map<String, Value>,
    /// The number of the next event.
    number: u64,
    status: &'static str,
    /// The items that are written.
    output: Vec<Value>,
    /// The item that is being written.
    open: Option<Open>,
    finished: Option<Finished>,
    /// Why there is no end of its own.
    fault: Option<String>,
}

/// How the turn ended.
#[derive(Debug, Clone, Deserialize)]
struct Finished {
    text: String,
    stop: StopReason,
    error: Option<String>,
    usage: Usage,
    rounds: u32,
    tool_calls: u32,
    milliseconds: f64,
}

/// An item that is being written.
#[derive(Debug, Clone)]
struct Open {
    is_message: bool,
    id: String,
    text: String,
}

impl Open {
    /// The item as it is now.
    fn item(&self, status: &str) -> Value {
        let (id, text) = (&self.id, &self.text);
        match self.is_message {
            true => {
                let content: &[Value] = if text.is_empty() { &[] } else { &[spoken(text)] };
                json!({"type": "message", "id": id, "status": status, "role": "assistant", "content": content})
            }
            false => {
                let summary: &[Value] = if text.is_empty() { &[] } else { &[thought(text)] };
                json!({"type": "reasoning", "id": id, "summary": summary})
            }
        }
    }
}

impl Reply {
    /// A response that begins.
    pub(super) fn new(turn: &str, session: &str, created: i64, echo: Map<String, Value>) -> Self {
        Self {
            turn: turn.to_owned(),
            session: session.to_owned(),
            created,
            echo,
            number: 0,
            status: "in_progress",
            output: Vec::new(),
            open: None,
            finished: None,
            fault: None,
        }
    }

    pub(super) fn id(&self) -> String {
        format!("resp_{}", self.turn)
    }

    pub(super) fn turn(&self) -> &str {
        &self.turn
    }

    pub(super) fn session(&self) -> &str {
        &self.session
    }

    pub(super) fn is_over(&self) -> bool {
        self.finished.is_some() || self.fault.is_some()
    }

    /// The object as it is now.
    pub(super) fn object(&self) -> Value {
        let finished = self.finished.as_ref();
        let completed = finished.filter(|_| self.status == "completed");
        let completed = completed.map(|finished| self.created + (finished.milliseconds / 1000.0) as i64);
        let reason = (self.status == "incomplete").then(|| json!({"reason": "max_output_tokens"}));
        let open = self.open.iter().map(|open| open.item("in_progress"));
        let output: Vec<_> = self.output.iter().cloned().chain(open).collect();
        let mut object = json!({
            "id": self.id(),
            "object": "response",
            "created_at": self.created,
            "completed_at": completed,
            "status": self.status,
            "incomplete_details": reason,
            "error": self.error(),
            "output": output,
            "usage": finished.map(|finished| usage(finished.usage)),
        });
        let fields = object.as_object_mut().expect("it is written as an object");
        fields.extend(self.echo.clone());
        if !self.session.is_empty() {
            fields.insert("conversation".to_owned(), json!({"id": self.session}));
        }
        if let Some(finished) = finished {
            let ended = json!({
                "type": "result",
                "turn": self.turn,
                "stop": finished.stop,
                "rounds": finished.rounds,
                "tool_calls": finished.tool_calls,
            });
            fields.insert("omni".to_owned(), ended);
        }
        object
    }

    /// Why there is no answer.
    fn error(&self) -> Option<Value> {
        let refused =
            self.finished.as_ref().and_then(|finished| refusal(finished.stop, finished.error.as_deref()));
        let told = refused.map(|error| error.detail().to_owned()).or_else(|| self.fault.clone());
        let message = told.filter(|_| self.status == "failed")?;
        Some(json!({"code": "server_error", "message": message}))
    }

    /// What comes at once.
    pub(super) fn begin(&mut self) -> Vec<Value> {
        ["response.created", "response.in_progress"].map(|kind| self.whole(kind)).into()
    }

    /// What an event of the turn is told as; it is given as it is told elsewhere.
    pub(super) fn of(&mut self, event: &Value) -> Vec<Value> {
        let text = || event["text"].as_str().unwrap_or_default();
        match event["type"].as_str().unwrap_or_default() {
            "message.delta" => self.piece(true, text()),
            "reasoning.delta" => self.piece(false, text()),
            "result" => match Finished::deserialize(event) {
                Ok(finished) => self.end(finished),
                Err(error) => self.elapsed(&format!("its end cannot be read: {error}")),
            },
            "turn.started" | "usage" | "approval.requested" | "elicitation.requested" => Vec::new(),
            kind => {
                let mut events = if kind == "tool.started" { self.close("completed") } else { Vec::new() };
                let mut told = self.whole("response.in_progress");
                told["omni"] = progress(event.clone());
                events.push(told);
                events
            }
        }
    }

    /// The end of a response whose time is over.
    pub(super) fn elapsed(&mut self, message: &str) -> Vec<Value> {
        let mut events = self.close("incomplete");
        self.status = "failed";
        self.fault = Some(message.to_owned());
        events.push(self.whole("response.failed"));
        events
    }

    /// The end of a response that was left unfinished by a program that is no more.
    pub(super) fn abandon(&mut self) -> Vec<Value> {
        self.elapsed("omni was stopped before there was an answer")
    }

    /// A piece of a message, or of what is thought.
    fn piece(&mut self, is_message: bool, text: &str) -> Vec<Value> {
        let mut events = match &self.open {
            Some(open) if open.is_message == is_message => Vec::new(),
            _ => {
                let mut events = self.close("completed");
                events.extend(self.opened(is_message));
                events
            }
        };
        let open = self.open.as_mut().expect("it was opened");
        open.text.push_str(text);
        events.push(match is_message {
            true => self.part("response.output_text.delta", json!({"delta": text, "logprobs": []})),
            false => self.part("response.reasoning_summary_text.delta", json!({"delta": text})),
        });
        events
    }

    fn opened(&mut self, is_message: bool) -> [Value; 2] {
        let kind = if is_message { "msg" } else { "rs" };
        let id = format!("{kind}_{}_{}", self.turn, self.output.len());
        let open = self.open.insert(Open { is_message, id, text: String::new() });
        let item = open.item("in_progress");
        let added = self.event("response.output_item.added", json!({"item": item}));
        let part = match is_message {
            true => self.part("response.content_part.added", json!({"part": spoken("")})),
            false => self.part("response.reasoning_summary_part.added", json!({"part": thought("")})),
        };
        [added, part]
    }

    /// Ends the item that is being written.
    fn close(&mut self, status: &str) -> Vec<Value> {
        let Some(Open { is_message, text, .. }) = self.open.clone() else { return Vec::new() };
        let mut events = match is_message {
            true => vec![
                self.part("response.output_text.done", json!({"text": text, "logprobs": []})),
                self.part("response.content_part.done", json!({"part": spoken(&text)})),
            ],
            false => vec![
                self.part("response.reasoning_summary_text.done", json!({"text": text})),
                self.part("response.reasoning_summary_part.done", json!({"part": thought(&text)})),
            ],
        };
        let item = self.open.as_ref().expect("seen above").item(status);
        events.push(self.event("response.output_item.done", json!({"item": item})));
        self.output.push(item);
        self.open = None;
        events
    }

    fn end(&mut self, finished: Finished) -> Vec<Value> {
        let (status, kind) = match finished.stop {
            StopReason::Answered | StopReason::Loop => ("completed", "response.completed"),
            StopReason::Length | StopReason::Limit => ("incomplete", "response.incomplete"),
            StopReason::Cancelled => ("cancelled", "response.incomplete"),
            StopReason::Unauthorized
            | StopReason::ModelFailed
            | StopReason::Exhausted
            | StopReason::Failed => ("failed", "response.failed"),
        };
        let mut events = Vec::new();
        let silent = self.open.is_none() && !self.output.iter().any(|item| item["type"] == "message");
        match &mut self.open {
            // Of a long answer not every piece is kept, and a turn that is taken up says some of them anew.
            Some(open) if open.is_message && !finished.text.is_empty() => {
                open.text.clone_from(&finished.text);
            }
            _ if silent && !finished.text.is_empty() => events.extend(self.piece(true, &finished.text)),
            _ => {}
        }
        events.extend(self.close(if status == "completed" { "completed" } else { "incomplete" }));
        self.status = status;
        self.finished = Some(finished);
        events.push(self.whole(kind));
        events
    }

    /// An event about the part that is being written.
    fn part(&mut self, kind: &str, fields: Value) -> Value {
        let open = self.open.as_ref().expect("a part is of an item");
        let place = if open.is_message { "content_index" } else { "summary_index" };
        let mut event = json!({"item_id": open.id, place: 0});
        extend(&mut event, fields);
        self.event(kind, event)
    }

    /// An event about the item that is being written.
    fn event(&mut self, kind: &str, fields: Value) -> Value {
        let mut event = self.numbered(kind);
        event["output_index"] = json!(self.output.len());
        extend(&mut event, fields);
        event
    }

    /// An event with the whole response.
    fn whole(&mut self, kind: &str) -> Value {
        let mut event = self.numbered(kind);
        event["response"] = self.object();
        event
    }

    fn numbered(&mut self, kind: &str) -> Value {
        let event = json!({"type": kind, "sequence_number": self.number});
        self.number += 1;
        event
    }
}

fn extend(event: &mut Value, fields: Value) {
    if let (Some(event), Value::Object(fields)) = (event.as_object_mut(), fields) {
        event.extend(fields);
    }
}

fn spoken(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

fn thought(text: &str) -> Value {
    json!({"type": "summary_text", "text": text})
}

fn usage(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": 0},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.total(),
    })
}

/// An event as it is sent.
pub(super) fn sent(event: &Value) -> sse::Event {
    let kind = event["type"].as_str().unwrap_or_default();
    sse::Event::default().event(kind).data(event.to_string())
}
