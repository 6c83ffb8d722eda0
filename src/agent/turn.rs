//! One turn as a state machine: every decision, no waiting.
//!
//! A driver asks [`Turn::next`] what to do, does it, and says what came of it. The idea of a
//! loop that is driven from outside is that of rig's `AgentRun`.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use crate::config::Limits;
use crate::llm::{self, Reply, Stop};
use crate::message::event::StopReason;
use crate::message::{Arguments, Message, Part, Role, ToolCall, ToolResult, Usage};

use super::guard::{Finding, Guard};

/// What the driver does next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Ask the model, then say [`Turn::replied`] or [`Turn::model_failed`].
    Ask(Ask),
    /// Run these calls, then say [`Turn::called`].
    Call(Vec<ToolCall>),
    /// Stop: the turn is over.
    Done(Ending),
}

/// A question to the model. The conversation is the session's, then [`Turn::messages`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Whether it may call tools.
    pub with_tools: bool,
    /// A word to the model after the conversation; not part of the log.
    pub extra: Option<String>,
}

/// How the turn ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ending {
    /// The answer, or an honest word about why there is none. Empty only if cancelled.
    pub text: String,
    /// Why it ended.
    pub stop: StopReason,
    /// What went wrong, where something did.
    pub error: Option<String>,
    /// Model calls made.
    pub rounds: u32,
    /// Tool calls made.
    pub tool_calls: u32,
    /// What it cost.
    pub usage: Usage,
}

/// One turn. What it is told out of turn it ignores.
#[derive(Debug, Clone)]
pub struct Turn {
    limits: Limits,
    began: Duration,
    messages: Vec<Message>,
    state: State,
    guard: Guard,
    /// Why the next answer has to be the last.
    last: Option<Last>,
    hints: Vec<String>,
    nudged: bool,
    ids: HashSet<String>,
    tools: BTreeMap<String, Tally>,
    rounds: u32,
    tool_calls: u32,
    usage: Usage,
}

#[derive(Debug, Clone)]
enum State {
    Asking,
    /// `run` of the calls in the last message run; the others had no room.
    Calling {
        calls: Vec<ToolCall>,
        run: usize,
    },
    Done(Ending),
}

#[derive(Debug, Clone)]
struct Last {
    stop: StopReason,
    /// For the model.
    reason: String,
    /// For people, where they can do something about it.
    error: Option<String>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    calls: u32,
    failed: u32,
}

impl Turn {
    /// Begins a turn. `now` is any clock that only goes forward, the same for all calls.
    pub fn begin(limits: &Limits, now: Duration) -> Self {
        Self {
            limits: limits.clone(),
            began: now,
            messages: Vec::new(),
            state: State::Asking,
            guard: Guard::default(),
            last: None,
            hints: Vec::new(),
            nudged: false,
            ids: HashSet::new(),
            tools: BTreeMap::new(),
            rounds: 0,
            tool_calls: 0,
            usage: Usage::default(),
        }
    }

    /// What the turn has added to the conversation. It only grows, and every call in it is
    /// followed by its result once the calls have run.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Whether there is nothing left to do.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Done(_))
    }

    /// When its time is up, on the clock of [`Turn::begin`]. A driver that waits until then
    /// stops waiting and asks for the next step.
    pub fn deadline(&self) -> Duration {
        let limit = Duration::try_from_secs_f64(self.limits.seconds).unwrap_or(Duration::MAX);
        self.began.saturating_add(limit)
    }

    /// What to do now. Asking twice gives the same answer while nothing has happened.
    pub fn next(&mut self, now: Duration) -> Step {
        if !self.is_over() && now >= self.deadline() {
            let reason = format!("the time limit of {} s was reached", self.limits.seconds);
            self.abandon("not run to its end: the time of this turn was up");
            let text = self.account(&reason);
            self.messages.push(Message::assistant(text.clone()));
            self.finish(text, StopReason::Limit, None);
        }
        match &self.state {
            State::Done(ending) => Step::Done(ending.clone()),
            State::Calling { calls, run } => Step::Call(calls[..*run].to_vec()),
            State::Asking => Step::Ask(self.ask()),
        }
    }

    fn ask(&mut self) -> Ask {
        // Tokens are looked at here and not in the answer that used them up: its calls cost none.
        if self.rounds > 0 && self.usage.total() >= self.limits.tokens {
            self.close(StopReason::Limit, format!("the limit of {} tokens", self.limits.tokens));
        }
        let dollars = self.usage.dollars().unwrap_or_default();
        if self.rounds > 0 && self.limits.dollars > 0.0 && dollars >= self.limits.dollars {
            self.close(StopReason::Limit, format!("the limit of {} dollars", self.limits.dollars));
        }
        if self.rounds + 1 >= self.limits.rounds {
            self.close(StopReason::Limit, format!("the limit of {} model calls", self.limits.rounds));
        }
        let mut words = self.hints.clone();
        // Whoever is asked for the first time has used up nothing.
        if let Some(last) = self.last.as_ref().filter(|_| self.rounds > 0) {
            words.push(format!(
                "This is your last answer in this turn, because of {}. You cannot call tools any more: \
                 answer with what you have and say plainly what is not done.",
                last.reason
            ));
        }
        let extra = (!words.is_empty()).then(|| words.join("\n"));
        Ask { with_tools: self.last.is_none(), extra }
    }

    /// The model has answered.
    pub fn replied(&mut self, reply: Reply) {
        if !matches!(self.state, State::Asking) {
            return;
        }
        self.count(reply.usage);
        self.hints.clear();
        let mut message = reply.message;
        message.role = Role::Assistant;
        let mut dropped = Vec::new();
        match reply.stop {
            _ if self.last.is_some() => dropped = drop_calls(&mut message, |_, _| true),
            Stop::Filtered => dropped = drop_calls(&mut message, |_, _| true),
            Stop::Length => dropped = drop_calls(&mut message, cut),
            Stop::Done => {}
        }
        self.rename(&mut message);
        let calls: Vec<ToolCall> = message.calls().cloned().collect();
        let text = message.text();
        // Without its calls the answer is one to be given again: the model is asked after a
        // user's message or after results, never after its own.
        let again =
            calls.is_empty() && !dropped.is_empty() && self.last.is_none() && reply.stop == Stop::Length;
        if !again && (!calls.is_empty() || !text.trim().is_empty()) {
            self.nudged = false;
            self.messages.push(message);
        }
        if !calls.is_empty() {
            self.tell_dropped(&dropped);
            self.begin_calls(calls);
        } else if let Some(last) = self.last.clone() {
            self.answer_last(text, &last);
        } else if reply.stop == Stop::Filtered {
            self.fail(text, StopReason::ModelFailed, "the provider's content filter stopped the answer");
        } else if again {
            self.tell_dropped(&dropped);
        } else if text.trim().is_empty() {
            self.nudge(reply.stop);
        } else {
            let stop = if reply.stop == Stop::Length { StopReason::Length } else { StopReason::Answered };
            self.finish(text, stop, None);
        }
    }

    /// How many more tool calls there may be.
    pub fn calls_left(&self) -> u32 {
        self.limits.tool_calls.saturating_sub(self.tool_calls)
    }

    /// The calls of the last step have made others of their own, and asked the model.
    pub fn nested(&mut self, calls: u32, usage: Usage) {
        self.tool_calls = self.tool_calls.saturating_add(calls);
        self.usage += usage;
    }

    /// Nothing more may be used after the next answer, for this reason.
    pub fn exhausted(&mut self, reason: String) {
        let told = "a budget that is used up".to_owned();
        self.last.get_or_insert(Last { stop: StopReason::Limit, reason: told, error: Some(reason) });
    }

    /// The calls of the last step have run. A result that is missing counts as failed.
    pub fn called(&mut self, results: Vec<ToolResult>) {
        let State::Calling { calls, run } = &mut self.state else { return };
        let (calls, run) = (std::mem::take(calls), *run);
        self.settle(calls, run, results, "no result came back");
    }

    /// No model answered, after all retries. What had arrived of an answer is kept.
    pub fn model_failed(&mut self, error: &llm::Error) {
        if !matches!(self.state, State::Asking) {
            return;
        }
        self.count(None);
        let stop = match error {
            llm::Error::Unauthorized { .. } => StopReason::Unauthorized,
            _ => StopReason::ModelFailed,
        };
        let partial = match error {
            llm::Error::Interrupted { partial, .. } => self.keep_partial(partial.as_ref().clone()),
            _ => String::new(),
        };
        self.fail(partial, stop, &error.to_string());
    }

    /// Somebody cancelled the turn. `partial` is what had arrived of an answer.
    pub fn cancelled(&mut self, partial: Option<Message>) {
        if self.is_over() {
            return;
        }
        let partial = match (&self.state, partial) {
            (State::Asking, Some(partial)) => self.keep_partial(partial),
            _ => String::new(),
        };
        self.abandon("cancelled");
        let text = if partial.is_empty() { self.last_words() } else { partial };
        self.finish(text, StopReason::Cancelled, None);
    }

    /// The end where something of ours failed, the database say: nothing more can be done.
    pub fn broken(&mut self, error: &str) -> Ending {
        let (rounds, tool_calls, usage) = (self.rounds, self.tool_calls, self.usage);
        let (text, error) = (self.last_words(), Some(error.to_owned()));
        let ending = Ending { text, stop: StopReason::Failed, error, rounds, tool_calls, usage };
        self.state = State::Done(ending.clone());
        ending
    }

    fn count(&mut self, usage: Option<Usage>) {
        self.rounds += 1;
        self.usage += usage.unwrap_or_default();
    }

    fn close(&mut self, stop: StopReason, reason: String) {
        self.last.get_or_insert(Last { stop, reason, error: None });
    }

    /// Makes ids unique: a result has to find its one call.
    fn rename(&mut self, message: &mut Message) {
        let mut renamed = false;
        for part in &mut message.parts {
            let Part::Call(call) = part else { continue };
            let (given, mut number) = (call.id.clone(), 1);
            while call.id.is_empty() || !self.ids.insert(call.id.clone()) {
                number += 1;
                call.id = format!("{given}-{number}");
                renamed = true;
            }
        }
        if renamed {
            message.replay = None;
        }
    }

    fn begin_calls(&mut self, calls: Vec<ToolCall>) {
        let room = self.limits.tool_calls.saturating_sub(self.tool_calls) as usize;
        let run = calls.len().min(room);
        self.tool_calls += run as u32;
        if run == 0 {
            self.settle(calls, 0, Vec::new(), "");
        } else {
            self.state = State::Calling { calls, run };
        }
    }

    fn settle(&mut self, calls: Vec<ToolCall>, run: usize, results: Vec<ToolResult>, missing: &str) {
        let mut given: BTreeMap<String, ToolResult> =
            results.into_iter().rev().map(|result| (result.call.clone(), result)).collect();
        let results: Vec<ToolResult> = calls
            .iter()
            .enumerate()
            .map(|(index, call)| {
                if index >= run {
                    return ToolResult::error(call, "not run: this turn has no tool calls left");
                }
                let result = given.remove(&call.id).unwrap_or_else(|| ToolResult::error(call, missing));
                let tally = self.tools.entry(call.name.clone()).or_default();
                tally.calls += 1;
                tally.failed += u32::from(result.is_error);
                result
            })
            .collect();
        match self.guard.observe(&calls, &results) {
            Finding::Fine => {}
            Finding::Warn(hint) => self.hints.push(hint),
            Finding::Stop(circle) => self.close(StopReason::Loop, format!("a circle: {circle}")),
        }
        if self.tool_calls >= self.limits.tool_calls {
            self.close(StopReason::Limit, format!("the limit of {} tool calls", self.limits.tool_calls));
        }
        self.messages.push(Message::results(results));
        self.state = State::Asking;
    }

    /// Gives every call that has no result the same one.
    fn abandon(&mut self, reason: &str) {
        if let State::Calling { calls, run } = &mut self.state {
            let (calls, run) = (std::mem::take(calls), *run);
            self.settle(calls, run, Vec::new(), reason);
        }
    }

    fn tell_dropped(&mut self, names: &[String]) {
        if !names.is_empty() {
            self.hints.push(format!(
                "Your answer was cut at the length limit; these calls were incomplete and did not run: {}. \
                 Call them again with shorter arguments, or in several steps.",
                names.join(", ")
            ));
        }
    }

    fn nudge(&mut self, stop: Stop) {
        if self.nudged {
            let text = self.account("the model gave an empty answer twice");
            self.messages.push(Message::assistant(text.clone()));
            let stop = if stop == Stop::Length { StopReason::Length } else { StopReason::ModelFailed };
            return self.finish(text, stop, Some("the model gave an empty answer twice".to_owned()));
        }
        self.nudged = true;
        self.hints.push("Your answer was empty. Answer the user, or call a tool.".to_owned());
    }

    fn answer_last(&mut self, text: String, last: &Last) {
        if !text.trim().is_empty() {
            // A turn that may take one step and takes it has hit no limit.
            let stop =
                if self.rounds == 1 && self.limits.rounds <= 1 { StopReason::Answered } else { last.stop };
            return self.finish(text, stop, last.error.clone());
        }
        let text = self.account(&format!("it had to end because of {}, without a last answer", last.reason));
        self.messages.push(Message::assistant(text.clone()));
        self.finish(text, last.stop, last.error.clone());
    }

    /// Keeps what had arrived of an answer and returns its text. Calls in it may be incomplete.
    fn keep_partial(&mut self, mut partial: Message) -> String {
        drop_calls(&mut partial, |_, _| true);
        partial.role = Role::Assistant;
        partial.replay = None;
        let text = partial.text();
        if text.trim().is_empty() {
            return String::new();
        }
        self.messages.push(partial);
        text
    }

    fn fail(&mut self, partial: String, stop: StopReason, error: &str) {
        let text = match partial.trim().is_empty() {
            true => self.account(error),
            false => format!("{partial}\n\n[The answer is not complete: {error}.]"),
        };
        self.finish(text, stop, Some(error.to_owned()));
    }

    fn finish(&mut self, text: String, stop: StopReason, error: Option<String>) {
        let (rounds, tool_calls, usage) = (self.rounds, self.tool_calls, self.usage);
        self.state = State::Done(Ending { text, stop, error, rounds, tool_calls, usage });
    }

    /// What was done before the turn ended without an answer.
    fn account(&self, reason: &str) -> String {
        let tool = |(name, tally): (&String, &Tally)| match tally.failed {
            0 => format!("`{name}` ×{}", tally.calls),
            failed => format!("`{name}` ×{} ({failed} failed)", tally.calls),
        };
        let done = match self.tools.is_empty() {
            true => "No tool had run.".to_owned(),
            false => format!(
                "These tools had run: {}.",
                self.tools.iter().map(tool).collect::<Vec<_>>().join(", ")
            ),
        };
        let words = self.last_words();
        let words = if words.is_empty() { words } else { format!("\n\nThe last words were: {words}") };
        format!("There is no finished answer: {reason}. {done}{words}")
    }

    fn last_words(&self) -> String {
        let spoken = self.messages.iter().rev().filter(|message| message.role == Role::Assistant);
        spoken.map(Message::text).find(|text| !text.trim().is_empty()).unwrap_or_default()
    }
}

/// Whether a call of an answer that was cut is itself cut. One that had no arguments yet looks
/// like one that needs none; only the last one can be.
fn cut(call: &ToolCall, is_last: bool) -> bool {
    match &call.arguments {
        Arguments::Object(map) => is_last && map.is_empty(),
        Arguments::Unreadable(_) => true,
    }
}

/// Takes calls out of a message and returns their names. The provider's own form goes with
/// them: it would bring them back.
fn drop_calls(message: &mut Message, drop: impl Fn(&ToolCall, bool) -> bool) -> Vec<String> {
    let mut left = message.calls().count();
    let mut names = Vec::new();
    message.parts.retain(|part| {
        let Part::Call(call) = part else { return true };
        left -= 1;
        let dropped = drop(call, left == 0);
        if dropped {
            names.push(format!("`{}`", call.name));
        }
        !dropped
    });
    if !names.is_empty() {
        message.replay = None;
    }
    names
}
