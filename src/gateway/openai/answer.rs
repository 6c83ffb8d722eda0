//! A turn as a chat completion, whole or in chunks.
//!
//! What a client does not know stands in the field `omni` of chunks that are otherwise fine: an
//! event of another name, or without `choices`, breaks those that are written for OpenAI.

use axum::response::sse;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::super::error::Error;
use super::super::turn::{Turn, outcome};
use crate::message::event::{EventKind, Finished, StopReason};
use crate::message::{Event, Usage};

/// What every piece of an answer says.
pub(super) struct Answer {
    id: String,
    turn: String,
    model: String,
    session: Option<String>,
    created: i64,
}

impl Answer {
    pub(super) fn new(model: String, session: Option<String>, turn: &Turn) -> Self {
        let id = format!("chatcmpl-{}", turn.id);
        Self { id, turn: turn.id.clone(), model, session, created: Timestamp::now().as_second() }
    }

    /// All of it at once.
    pub(super) fn whole(&self, finished: &Finished) -> Value {
        let message = json!({"role": "assistant", "content": finished.text, "refusal": null});
        let choice = json!({
            "index": 0, "message": message, "logprobs": null, "finish_reason": reason(finished.stop),
        });
        json!({
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": [choice],
            "usage": usage(finished.usage),
            "omni": self.ended(finished),
        })
    }

    fn ended(&self, finished: &Finished) -> Value {
        json!({
            "type": "result",
            "turn": self.turn,
            "session_id": self.session,
            "stop": finished.stop,
            "rounds": finished.rounds,
            "tool_calls": finished.tool_calls,
        })
    }

    fn chunk(&self, choices: Value) -> Map<String, Value> {
        let chunk = json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        });
        match chunk {
            Value::Object(chunk) => chunk,
            _ => unreachable!("it is written as an object"),
        }
    }
}

/// The same in chunks.
pub(super) struct Chunks {
    answer: Answer,
    /// Whether the last chunk says what it cost.
    usage: bool,
    /// Whether there was text.
    spoken: bool,
    /// Whether the next text begins a paragraph: tools were called since the last one.
    apart: bool,
}

impl Chunks {
    pub(super) fn new(answer: Answer, usage: bool) -> Self {
        Self { answer, usage, spoken: false, apart: false }
    }

    /// What comes at once, so that the caller knows that somebody is there.
    pub(super) fn first(&self) -> sse::Event {
        self.delta(json!({"role": "assistant", "content": ""}), None, None)
    }

    /// What an event is told as.
    pub(super) fn of(&mut self, event: Result<Event, Error>) -> Vec<sse::Event> {
        let kind = match event {
            Ok(event) => event.kind,
            Err(error) => return vec![data(&error.envelope())],
        };
        match kind {
            EventKind::Text { text } => vec![self.text(&text)],
            EventKind::Reasoning { text } => vec![self.delta(json!({"reasoning_content": text}), None, None)],
            EventKind::Finished(finished) => self.last(finished),
            EventKind::Started { .. } | EventKind::Usage(_) => Vec::new(),
            EventKind::Approval(_) | EventKind::Elicitation(_) => Vec::new(),
            other => {
                self.apart |= self.spoken && matches!(other, EventKind::ToolStarted { .. });
                vec![self.delta(json!({}), None, Some(progress(json!(other))))]
            }
        }
    }

    fn text(&mut self, text: &str) -> sse::Event {
        let gap = if std::mem::take(&mut self.apart) { "\n\n" } else { "" };
        self.spoken = true;
        self.delta(json!({"content": format!("{gap}{text}")}), None, None)
    }

    fn last(&mut self, finished: Finished) -> Vec<sse::Event> {
        let finished = match outcome(finished) {
            Ok(finished) => finished,
            Err(error) => return vec![data(&error.envelope())],
        };
        let mut events = Vec::new();
        if !self.spoken && !finished.text.is_empty() {
            events.push(self.text(&finished.text));
        }
        let ended = self.answer.ended(&finished);
        events.push(self.delta(json!({}), Some(reason(finished.stop)), Some(ended)));
        if self.usage {
            let mut chunk = self.answer.chunk(json!([]));
            chunk.insert("usage".to_owned(), usage(finished.usage));
            events.push(data(&Value::Object(chunk)));
        }
        events.push(sse::Event::default().data("[DONE]"));
        events
    }

    fn delta(&self, delta: Value, finish: Option<&str>, omni: Option<Value>) -> sse::Event {
        let choice = json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish});
        let mut chunk = self.answer.chunk(json!([choice]));
        chunk.extend(omni.map(|omni| ("omni".to_owned(), omni)));
        data(&Value::Object(chunk))
    }
}

/// What happens besides the answer. What a tool returned is the model's business, and may be long.
pub(in crate::gateway) fn progress(mut event: Value) -> Value {
    let Some(fields) = event.as_object_mut() else { return event };
    fields.retain(|name, _| !matches!(name.as_str(), "id" | "session" | "turn"));
    if let Some(result) = fields.remove("result") {
        fields.insert("is_error".to_owned(), json!(result["is_error"] == true));
    }
    event
}

fn data(value: &Value) -> sse::Event {
    sse::Event::default().data(value.to_string())
}

fn reason(stop: StopReason) -> &'static str {
    match stop {
        StopReason::Length | StopReason::Limit => "length",
        _ => "stop",
    }
}

fn usage(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.total(),
        "prompt_tokens_details": {"cached_tokens": usage.cached},
    })
}
