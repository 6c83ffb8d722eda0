//! Reads over the client's shoulder: what the raw frames of a stream say that its events do
//! not. Pure.
//!
//! Three things need it. Only OpenAI's and Anthropic's streams are told apart from broken ones
//! by the client itself. Error objects in the middle of a stream lose their status on the way.
//! And several copies of OpenAI's chat completions number their tool calls wrongly or not at
//! all, which the client takes for no calls, or for one.

use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use super::catalog::Kind;

/// Takes the frames of one stream.
#[derive(Debug)]
pub struct Watch {
    kind: Kind,
    seen: Mutex<Seen>,
}

/// What was seen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen {
    /// Frames that were JSON.
    pub frames: usize,
    /// Whether the answer came to its end.
    pub ended: bool,
    /// The reason it gave for ending.
    pub reason: Option<String>,
    /// An error object.
    pub error: Option<Value>,
    /// The first frame that was no JSON.
    pub garbage: Option<String>,
    /// The tool calls, put together from their pieces; for chat completions alone.
    pub calls: Vec<Pieces>,
}

/// A tool call as it came in.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pieces {
    /// Its place among the calls, if the server counts.
    pub index: Option<u64>,
    /// Its id, if it has one.
    pub id: String,
    /// The tool.
    pub name: String,
    /// The text of its arguments.
    pub arguments: String,
}

impl Watch {
    /// For a stream of this kind.
    pub fn new(kind: Kind) -> Self {
        Self { kind, seen: Mutex::default() }
    }

    /// What was seen so far.
    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes one frame: the `data` of a server-sent event, or a line.
    pub fn frame(&self, event: Option<&str>, data: &str) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let data = data.trim();
        if data.is_empty() {
            return;
        }
        if data == "[DONE]" {
            seen.ended = true;
            return;
        }
        let Ok(frame) = serde_json::from_str::<Value>(data) else {
            seen.garbage.get_or_insert_with(|| data.chars().take(600).collect());
            return;
        };
        seen.frames += 1;
        let at = |pointer: &str| frame.pointer(pointer).filter(|value| !value.is_null());
        if let Some(error) = at("/error").or_else(|| at("/response/error")) {
            seen.error = Some(error.clone());
        } else if event == Some("error") {
            seen.error = Some(frame.clone());
        }
        let reason = match self.kind {
            Kind::Anthropic => at("/delta/stop_reason"),
            Kind::Gemini => at("/candidates/0/finishReason").or_else(|| at("/promptFeedback/blockReason")),
            Kind::Ollama => at("/done_reason"),
            Kind::Responses => at("/response/incomplete_details/reason"),
            _ => at("/choices/0/finish_reason"),
        };
        if let Some(reason) = reason.and_then(Value::as_str) {
            // Responses has a word of its own for the limit.
            let reason = if reason == "max_output_tokens" { "length" } else { reason };
            seen.reason = Some(reason.to_owned());
        }
        seen.ended |= match self.kind {
            Kind::Anthropic => at("/type").is_some_and(|kind| kind == "message_stop"),
            Kind::Responses => {
                at("/type").is_some_and(|kind| kind == "response.completed" || kind == "response.incomplete")
            }
            Kind::Ollama => at("/done").is_some_and(|done| done == true),
            _ => reason.is_some(),
        };
        if self.kind.is_chat_completions()
            && let Some(deltas) = at("/choices/0/delta/tool_calls").and_then(Value::as_array)
        {
            deltas.iter().for_each(|delta| seen.piece(delta));
        }
    }
}

impl Seen {
    fn piece(&mut self, delta: &Value) {
        let word = |pointer: &str| delta.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (id, name) = (word("/id"), word("/function/name"));
        let index = delta.get("index").and_then(Value::as_u64);
        let place = match index {
            Some(_) => self.calls.iter().rposition(|call| call.index == index),
            None => self.calls.len().checked_sub(1),
        };
        // A name begins a call, unless it is repeated with every piece of the same one.
        let continued = place.filter(|&place| {
            let call = &self.calls[place];
            let repeated = match id {
                "" => !is_complete(&call.arguments),
                id => call.id == id,
            };
            name.is_empty() || (call.name == name && repeated)
        });
        let place = continued.unwrap_or_else(|| {
            self.calls.push(Pieces {
                index,
                id: id.to_owned(),
                name: name.to_owned(),
                arguments: String::new(),
            });
            self.calls.len() - 1
        });
        match delta.pointer("/function/arguments") {
            Some(Value::String(text)) => self.calls[place].arguments.push_str(text),
            Some(Value::Null) | None => {}
            Some(whole) => self.calls[place].arguments.push_str(&whole.to_string()),
        }
    }
}

fn is_complete(arguments: &str) -> bool {
    serde_json::from_str::<Value>(arguments).is_ok_and(|value| value.is_object())
}

/// The message in an answer of chat completions that was not streamed: its text, reasoning,
/// calls and the reason it ended. Read here because the client insists on a `type` and on
/// arguments that parse.
pub fn whole(body: &Value) -> Option<(String, String, Vec<Pieces>, Option<String>)> {
    let choice = body.pointer("/choices/0")?;
    let message = choice.get("message")?;
    let word = |key: &str| message.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut seen = Seen::default();
    for (place, call) in message.get("tool_calls").and_then(Value::as_array).into_iter().flatten().enumerate()
    {
        let mut call = call.clone();
        if let Some(call) = call.as_object_mut() {
            call.insert("index".to_owned(), place.into());
        }
        seen.piece(&call);
    }
    let reasoning = Some(word("reasoning_content")).filter(|text| !text.is_empty());
    let reason = choice.get("finish_reason").and_then(Value::as_str).map(str::to_owned);
    Some((word("content"), reasoning.unwrap_or_else(|| word("reasoning")), seen.calls, reason))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The calls in these pieces, each `index id name arguments`, `-` for what is not sent.
    fn calls(pieces: &[&str]) -> String {
        let watch = Watch::new(Kind::OpenAi);
        for piece in pieces {
            let [index, id, name, arguments] = piece.splitn(4, ' ').collect::<Vec<_>>()[..] else {
                panic!("{piece}")
            };
            let mut call = json!({ "function": {} });
            if index != "-" {
                call["index"] = json!(index.parse::<u64>().expect("a number"));
            }
            for (word, target) in [(id, "/id"), (name, "/function/name"), (arguments, "/function/arguments")]
            {
                let (parent, key) = target.rsplit_once('/').expect("a slash");
                if word != "-" {
                    call.pointer_mut(parent).expect("an object")[key] = json!(word);
                }
            }
            let frame = json!({ "choices": [{ "index": 0, "delta": { "tool_calls": [call] } }] });
            watch.frame(None, &frame.to_string());
        }
        let seen = watch.seen().calls;
        let shown = seen.iter().map(|call| format!("{}:{}{}", call.id, call.name, call.arguments));
        shown.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn pieces_find_their_call() {
        for (pieces, wanted) in [
            (&["0 a f -", "0 - - {\"x\":", "0 - - 1}"][..], "a:f{\"x\":1}"),
            (&["0 a f -", "1 b g -", "0 - - {}", "1 - - {}"], "a:f{} b:g{}"),
            (&["- a f -", "- - - {}", "- b f -", "- - - {}"], "a:f{} b:f{}"),
            (&["0 a f {}", "0 b g {}"], "a:f{} b:g{}"),
            (&["0 a f {\"x\":", "0 a f 1}"], "a:f{\"x\":1}"),
            (&["0 - f {\"x\":", "0 - f 1}"], ":f{\"x\":1}"),
            (&["- - f {}", "- - f {}"], ":f{} :f{}"),
            (&["7 a f {}"], "a:f{}"),
        ] {
            assert_eq!(calls(pieces), wanted, "{pieces:?}");
        }
    }
}
