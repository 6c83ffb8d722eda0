//! A model that is none: it matches sentences with tools by their words, and says so.
//!
//! With it everything but conversation can be tried before a key is set. It never guesses: a
//! sentence that fits no tool well gets an explanation, a parameter it cannot find in the
//! sentence gets a question, and a tool that changes something is only called by its name.

mod fill;
mod rank;
mod show;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Delta, Error, Model, Reply, Request, Sink, Stop, ToolDefinition};
use crate::message::{Arguments, Message, Part, Replay, Role, ToolCall};
use fill::Sentence;

const NAME: &str = "offline";

/// A model that is none. The same request gets the same answer.
#[derive(Debug, Clone, Default)]
pub struct Offline;

/// A question that waits for its answer, kept in the message that asked it.
#[derive(Debug, Serialize, Deserialize)]
struct Pending {
    tool: String,
    arguments: Map<String, Value>,
    asked: String,
}

#[async_trait]
impl Model for Offline {
    fn name(&self) -> &str {
        NAME
    }

    fn window(&self) -> usize {
        // As if there were no end: it reads what it is asked, and all tools at once.
        1 << 30
    }

    async fn reply(&self, request: &Request, sink: &Sink<'_>) -> Result<Reply, Error> {
        let message = answer(request);
        message.text().split_inclusive('\n').for_each(|line| sink(Delta::Text(line.to_owned())));
        Ok(Reply { message, stop: Stop::Done, usage: None, model: NAME.to_owned() })
    }
}

fn answer(request: &Request) -> Message {
    let Some(last) = request.messages.last() else {
        return Message::assistant(show::help(&request.tools));
    };
    if last.role == Role::Tool {
        return Message::assistant(show::results(last, &request.tools));
    }
    let text = last.text();
    let text = asked(&text);
    let sentence = Sentence::read(text);
    if let Some(pending) = pending(request) {
        return resume(request, pending, text, &sentence);
    }
    match rank::find(&request.tools, text, &sentence.plain) {
        Some(tool) => go_on(request, tool, &sentence, &Map::new()),
        None => Message::assistant(show::help(&request.tools)),
    }
}

// What is asked, without the block of text that was sent with it: its words are not the question's.
fn asked(text: &str) -> &str {
    match text.split_once("\n\n```") {
        Some((words, _)) if !words.trim().is_empty() => words,
        _ => text,
    }
}

fn resume(request: &Request, pending: Pending, text: &str, sentence: &Sentence) -> Message {
    let word = text.trim().trim_end_matches(['.', '!']).to_lowercase();
    if matches!(word.as_str(), "cancel" | "stop" | "never mind" | "nevermind" | "forget it" | "abort") {
        return Message::assistant("Dropped.");
    }
    let Some(tool) = request.tools.iter().find(|tool| tool.name == pending.tool) else {
        return Message::assistant(show::help(&request.tools));
    };
    if let Some(other) = rank::named(&request.tools, text).filter(|other| other.name != tool.name) {
        return go_on(request, other, sentence, &Map::new());
    }
    let mut known = pending.arguments;
    let found = fill::fill(tool, sentence, &known);
    // What looks like the value is the value; otherwise the whole answer is.
    let spoken = found.arguments.get(&pending.asked).cloned().filter(|_| !sentence.values.is_empty());
    match spoken.or_else(|| fill::answer(tool, &pending.asked, text)) {
        Some(value) => {
            known.insert(pending.asked, value);
            go_on(request, tool, &Sentence::default(), &known)
        }
        None => ask(tool, known, pending.asked),
    }
}

fn go_on(
    request: &Request,
    tool: &ToolDefinition,
    sentence: &Sentence,
    known: &Map<String, Value>,
) -> Message {
    let filled = fill::fill(tool, sentence, known);
    match filled.missing.into_iter().next() {
        Some(missing) => ask(tool, filled.arguments, missing),
        None => call(request, tool, filled.arguments),
    }
}

fn call(request: &Request, tool: &ToolDefinition, arguments: Map<String, Value>) -> Message {
    let number = request.messages.iter().flat_map(Message::calls).count() + 1;
    let call = ToolCall {
        id: format!("call_{number}"),
        name: tool.name.clone(),
        arguments: Arguments::Object(arguments),
    };
    Message::of(Role::Assistant, vec![Part::Call(call)])
}

fn ask(tool: &ToolDefinition, arguments: Map<String, Value>, asked: String) -> Message {
    let mut message = Message::assistant(show::question(tool, &asked));
    let pending = Pending { tool: tool.name.clone(), arguments, asked };
    message.replay =
        serde_json::to_value(pending).ok().map(|content| Replay { provider: NAME.to_owned(), content });
    message
}

// The question of the message before, if that was one.
fn pending(request: &Request) -> Option<Pending> {
    let [.., before, _] = request.messages.as_slice() else { return None };
    let replay = before.replay.as_ref().filter(|replay| replay.provider == NAME)?;
    serde_json::from_value(replay.content.clone()).ok()
}
