//! Makes a conversation whole again (pure).
//!
//! A process can be killed between any two writes, and a vendor refuses a conversation in
//! which a call has no result or a result no call. The log stays as it is; what is read from
//! it goes through here.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::message::{Message, Part, Role, ToolCall, ToolResult};

/// What the model is told of a call whose end nobody saw.
pub const INTERRUPTED: &str =
    "interrupted: the outcome is unknown; it may have had its effect, so look before calling it again";

/// The same conversation such that every assistant message with calls is followed by one tool
/// message with exactly their results, in the order of the calls, and no other results exist.
///
/// * A call without a result gets an error that says the outcome is unknown.
/// * A result belongs to the nearest call before it that has its id; a second result for the
///   same call is dropped, and so is one without a call.
/// * A call that repeats an id gets a new one, together with its result, because vendors want
///   ids unique in a request. Its message then loses the provider's own form, which has the old.
/// * An assistant message that says nothing and calls nothing is dropped.
///
/// What the user said is never touched. Repairing twice is the same as once.
pub fn repair(messages: Vec<Message>) -> Vec<Message> {
    let mut results = match_results(&messages);
    let mut ids = Ids::new(&messages);
    let mut whole = Vec::with_capacity(messages.len());
    for (place, mut message) in messages.into_iter().enumerate() {
        match message.role {
            Role::Tool => continue,
            Role::User => {
                message.parts.retain(|part| !matches!(part, Part::Call(_) | Part::Result(_)));
                if !message.parts.is_empty() {
                    whole.push(message);
                }
            }
            Role::Assistant => {
                message.parts.retain(|part| !matches!(part, Part::Result(_)));
                let answers = answer(place, &mut message, &mut results, &mut ids);
                if says_something(&message) {
                    whole.push(message);
                }
                if !answers.is_empty() {
                    whole.push(Message::results(answers));
                }
            }
        }
    }
    whole
}

/// Where a call is: the message, and which of its calls.
type Place = (usize, usize);

/// Finds the result of each call.
fn match_results(messages: &[Message]) -> HashMap<Place, ToolResult> {
    // Calls of an id that wait for a result. Those of one message are answered in order; a
    // call in a later message takes over, because nobody answers the earlier any more.
    let mut open: HashMap<&str, (usize, VecDeque<Place>)> = HashMap::new();
    let mut found = HashMap::new();
    for (message_place, message) in messages.iter().enumerate() {
        if message.role == Role::Assistant {
            for (call_place, call) in message.calls().enumerate() {
                let waiting = open.entry(&call.id).or_insert((message_place, VecDeque::new()));
                if waiting.0 != message_place {
                    *waiting = (message_place, VecDeque::new());
                }
                waiting.1.push_back((message_place, call_place));
            }
        }
        for result in message.tool_results() {
            let call = open.get_mut(result.call.as_str()).and_then(|(_, waiting)| waiting.pop_front());
            if let Some(place) = call {
                found.insert(place, result.clone());
            }
        }
    }
    found
}

/// The results of a message's calls, and new ids where a call repeats one.
fn answer(
    place: usize,
    message: &mut Message,
    results: &mut HashMap<Place, ToolResult>,
    ids: &mut Ids,
) -> Vec<ToolResult> {
    let calls = message.parts.iter_mut().filter_map(|part| match part {
        Part::Call(call) => Some(call),
        _ => None,
    });
    let mut renamed = false;
    let mut answers = Vec::new();
    for (call_place, call) in calls.enumerate() {
        let result = results.remove(&(place, call_place));
        if let Some(fresh) = ids.claim(call) {
            call.id = fresh;
            renamed = true;
        }
        let mut result = result.unwrap_or_else(|| ToolResult::error(call, INTERRUPTED));
        result.call.clone_from(&call.id);
        answers.push(result);
    }
    if renamed {
        message.replay = None;
    }
    answers
}

/// Reasoning alone is nothing: it is never part of the answer, and vendors refuse it alone.
fn says_something(message: &Message) -> bool {
    message.parts.iter().any(|part| match part {
        Part::Text { text } => !text.trim().is_empty(),
        Part::Image { .. } | Part::Call(_) => true,
        Part::Reasoning { .. } | Part::Result(_) => false,
    })
}

/// Gives every call an id of its own.
struct Ids {
    known: HashSet<String>,
    used: HashSet<String>,
}

impl Ids {
    fn new(messages: &[Message]) -> Self {
        let known = messages.iter().flat_map(Message::calls).map(|call| call.id.clone()).collect();
        Self { known, used: HashSet::new() }
    }

    /// `None` if the call can keep its id, else the new one.
    fn claim(&mut self, call: &ToolCall) -> Option<String> {
        if !call.id.is_empty() && self.used.insert(call.id.clone()) {
            return None;
        }
        let stem = if call.id.is_empty() { "call" } else { call.id.as_str() };
        let fresh = (2u64..)
            .map(|number| format!("{stem}-{number}"))
            .find(|id| !self.known.contains(id))
            .expect("there are more numbers than calls");
        self.known.insert(fresh.clone());
        self.used.insert(fresh.clone());
        Some(fresh)
    }
}
