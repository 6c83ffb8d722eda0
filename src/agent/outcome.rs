//! What a turn teaches: how it went, and what is worth keeping of it (pure).
//!
//! Only what happened counts: results of tools, exit codes, the guard, and what the person says
//! next. What the assistant says of itself is no sign of anything.

use serde_json::Value;

use crate::memory::{Outcome, Reward, Source, Trust, episode};
use crate::message::event::StopReason;
use crate::message::{Arguments, Message, Role, ToolCall, ToolResult};
use crate::tool::find;

/// Steps that are kept of a turn: its last ones.
const STEPS: usize = 8;
/// Steps that are kept of the turn before, which was corrected.
const BEFORE: usize = 3;
/// Characters of a call's arguments, and of the reason why it failed.
const ARGUMENTS: usize = 160;
const REASON: usize = 120;

/// How a step begins, and how one ends that has worked.
const THEN: &str = "then: ";
const WORKED: &str = ", which worked";

/// What was read from a turn.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    /// How it went; `None` if nothing says so.
    pub reward: Option<Reward>,
    /// What it says of the turn before it.
    pub before: Option<Reward>,
    /// What is worth keeping, if there is anything.
    pub lesson: Option<Lesson>,
}

/// Something worth keeping.
#[derive(Debug, Clone, PartialEq)]
pub struct Lesson {
    /// What was wanted.
    pub intent: String,
    /// What was done, and what was said of it.
    pub experience: String,
    /// How it went.
    pub outcome: Outcome,
    /// How far its words are trusted.
    pub trust: Trust,
}

/// Reads a turn that ended: what was said before it, its own messages, the person's first, and why
/// it ended.
pub fn read(earlier: &[Message], turn: &[Message], stop: StopReason) -> Reading {
    let asked = turn.first().map(Message::text).unwrap_or_default();
    let steps: Vec<(&ToolCall, &ToolResult)> = steps(turn);
    let corrects = !earlier.is_empty() && corrects(&asked);
    let repeats = earlier.iter().rev().find(|message| message.role == Role::User);
    let repeats = repeats.is_some_and(|before| same(&before.text(), &asked));
    let reward = match stop {
        StopReason::Loop => Some(Reward::new(Source::Loop, -1.0)),
        StopReason::Answered => earned(&steps),
        // A limit, a cancel, a model that is gone: none of them says how well it went.
        _ => None,
    };
    let lesson = (corrects || !steps.is_empty()).then(|| Lesson {
        intent: if corrects { wanted(earlier) } else { asked.clone() },
        experience: experience(earlier, corrects.then_some(asked.as_str()), &steps),
        outcome: match reward.map(|reward| reward.amount) {
            Some(amount) if amount > 0.0 => Outcome::Success,
            Some(amount) if amount < 0.0 => Outcome::Failure,
            _ => Outcome::Unknown,
        },
        trust: if corrects { Trust::Said } else { Trust::Inferred },
    });
    let before = (corrects || repeats).then(|| Reward::new(Source::Corrected, -0.5));
    Reading { reward, before, lesson }
}

/// What the last results say: those of the last call of each tool, since a failure that was
/// mended is none. A program that checks something, and its exit code, outranks the rest.
fn earned(steps: &[(&ToolCall, &ToolResult)]) -> Option<Reward> {
    let check = steps.iter().rev().find(|(call, _)| is_check(call));
    if let Some((_, result)) = check {
        return Some(Reward::new(Source::Verified, if failed(result) { -1.0 } else { 1.0 }));
    }
    let (_, last) = steps.last()?;
    Some(Reward::new(Source::Tools, if failed(last) { -1.0 } else { 1.0 }))
}

fn failed(result: &ToolResult) -> bool {
    let code = result.structured.as_ref().and_then(|value| value.get("exit_code"));
    result.is_error || code.is_some_and(|code| *code != 0)
}

/// Whether a call runs a program that checks something: its words say `test`, `check` and such.
fn is_check(call: &ToolCall) -> bool {
    let Arguments::Object(arguments) = &call.arguments else { return false };
    let Some(argv) = arguments.get("argv").and_then(Value::as_array) else { return false };
    let word = |word: &str| {
        let name = word.rsplit('/').next().unwrap_or(word).to_lowercase();
        [
            "test", "tests", "check", "lint", "clippy", "pytest", "tox", "ctest", "mypy", "ruff", "build",
            "verify",
        ]
        .contains(&name.as_str())
    };
    argv.iter().take(4).filter_map(Value::as_str).any(word)
}

/// The last thing that was wanted before it came to corrections.
fn wanted(earlier: &[Message]) -> String {
    let said = earlier.iter().rev().filter(|message| message.role == Role::User).map(Message::text);
    let mut asked = String::new();
    for text in said {
        asked = text;
        if !corrects(&asked) {
            break;
        }
    }
    asked
}

fn experience(earlier: &[Message], correction: Option<&str>, steps: &[(&ToolCall, &ToolResult)]) -> String {
    let mut lines = Vec::new();
    if let Some(correction) = correction {
        let from = earlier.iter().rposition(|message| message.role == Role::User).unwrap_or(0);
        let before = self::steps(&earlier[from..]);
        lines.extend(
            before
                .iter()
                .rev()
                .take(BEFORE)
                .rev()
                .map(|step| format!("first, which was not right: {}", told(step))),
        );
        lines.push(format!("the user then said: {}", one_line(correction, episode::EXPERIENCE / 2)));
    }
    lines.extend(steps.iter().rev().take(STEPS).rev().map(|step| format!("{THEN}{}", told(step))));
    lines.join("\n")
}

/// The tools that an experience tells of as having worked, in their order.
pub fn worked(experience: &str) -> impl Iterator<Item = &str> {
    let steps = experience.lines().filter_map(|line| line.strip_prefix(THEN)?.strip_suffix(WORKED));
    steps.filter_map(|step| step.split_once(' ').map(|(tool, _)| tool))
}

/// Calls with their results, in their order. What was done with the memory itself is no experience.
fn steps(messages: &[Message]) -> Vec<(&ToolCall, &ToolResult)> {
    let mut steps = Vec::new();
    for call in messages.iter().flat_map(Message::calls).filter(|call| !call.name.starts_with("memory__")) {
        let mut results = messages.iter().flat_map(Message::tool_results);
        steps.extend(results.find(|result| result.call == call.id).map(|result| (call, result)));
    }
    steps
}

/// A step in one line. Of what a tool returned, only why it failed, and that quoted: anybody may
/// have written the rest.
fn told((call, result): &(&ToolCall, &ToolResult)) -> String {
    // By whatever way it was called.
    let call = find::meant(ToolCall::clone(call));
    let name = call.name.replace("__", ".");
    let arguments = one_line(&call.arguments.text(), ARGUMENTS);
    match failed(result) {
        false => format!("{name} {arguments}{WORKED}"),
        true => format!("{name} {arguments}, which failed with “{}”", one_line(&result.text(), REASON)),
    }
}

fn one_line(text: &str, limit: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    crate::memory::text::cut(&line, limit)
}

/// Words that a correction begins with. A word that may also begin something else needs the
/// comma or what else stands here with it.
const OPENINGS: &[&str] = &[
    "no,",
    "no.",
    "no!",
    "no:",
    "no -",
    "no that",
    "no, that",
    "no use ",
    "no you",
    "nope",
    "wrong",
    "not like that",
    "not what i",
    "not that",
    "that's wrong",
    "that is wrong",
    "thats wrong",
    "that was wrong",
    "that's not",
    "that is not",
    "that was not",
    "this is wrong",
    "this is not what",
    "incorrect",
    "i meant",
    "i said",
    "i asked for",
    "you forgot",
    "you should have",
    "you misunderstood",
    "you did not",
    "you didn't",
    "it didn't work",
    "it did not work",
    "that didn't work",
    "that did not work",
    "doesn't work",
    "does not work",
    "still wrong",
    "still not",
    "actually,",
    "instead,",
    "do it again",
    "try again",
    "nein",
    "falsch",
    "das ist falsch",
    "das war falsch",
    "das stimmt nicht",
    "nicht so",
    "so nicht",
    "ich meinte",
    "ich sagte",
    "du hast vergessen",
    "das geht nicht",
    "das ging nicht",
    "stattdessen",
    "immer noch falsch",
    "eigentlich,",
    "non,",
    "faux",
    "c'est faux",
    "ce n'est pas",
    "no es ",
    "está mal",
    "incorrecto",
    "不对",
    "不是",
    "错了",
    "不要",
    "違う",
    "違います",
    "いいえ",
    "아니",
    "틀렸",
];

/// Whether the person's words correct what was done before.
pub fn corrects(said: &str) -> bool {
    let said = said.trim().to_lowercase().replace('’', "'");
    said == "no" || OPENINGS.iter().any(|opening| said.starts_with(opening))
}

/// Whether two requests are the same but for case, space and what ends them.
fn same(a: &str, b: &str) -> bool {
    let plain = |text: &str| {
        let words = text.to_lowercase();
        words.split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches(['.', '!', '?']).to_owned()
    };
    let (a, b) = (plain(a), plain(b));
    !a.is_empty() && a == b
}
