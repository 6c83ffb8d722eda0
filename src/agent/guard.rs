//! Notices when a model goes in circles.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::message::{Arguments, ToolCall, ToolResult};
use crate::tool;

/// The same thing this often is a circle.
const TIMES: usize = 3;
/// Rounds that are remembered: two pairs of them.
const ROUNDS: usize = 4;

/// Watches the calls of one turn.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    rounds: VecDeque<u64>,
    calls: VecDeque<u64>,
    refusals: HashMap<String, usize>,
    warned: bool,
}

/// What the guard makes of a round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Nothing.
    Fine,
    /// The model should hear this; it is said once a turn.
    Warn(String),
    /// It was told and goes on.
    Stop(String),
}

impl Guard {
    /// Looks at one more round: its calls and, in the same order, what they came to.
    pub fn observe(&mut self, calls: &[ToolCall], results: &[ToolResult]) -> Finding {
        let mut circle = None;
        let mut round = DefaultHasher::new();
        for (call, result) in calls.iter().zip(results) {
            let print = fingerprint(call, result);
            print.hash(&mut round);
            remember(&mut self.calls, print, TIMES);
            let same = self.calls.len() == TIMES && self.calls.iter().all(|other| *other == print);
            if same {
                circle = Some(format!("`{}` was called {TIMES} times with the same result", call.name));
            }
            circle = self.refusal(call, result).or(circle);
        }
        if !calls.is_empty() {
            remember(&mut self.rounds, round.finish(), ROUNDS);
        }
        let Some(circle) = circle.or_else(|| self.repetition()) else { return Finding::Fine };
        if self.warned {
            return Finding::Stop(circle);
        }
        self.warned = true;
        Finding::Warn(format!(
            "You are going in circles: {circle}. Do not repeat it: try something else, or answer with what you have."
        ))
    }

    fn refusal(&mut self, call: &ToolCall, result: &ToolResult) -> Option<String> {
        if !tool::refused(result) {
            self.refusals.remove(&call.name);
            return None;
        }
        let count = self.refusals.entry(call.name.clone()).or_default();
        *count += 1;
        (*count >= TIMES).then(|| format!("`{}` was refused {count} times", call.name))
    }

    fn repetition(&self) -> Option<String> {
        let rounds: Vec<u64> = self.rounds.iter().rev().copied().collect();
        if rounds.len() >= TIMES && rounds[..TIMES].iter().all(|round| *round == rounds[0]) {
            return Some(format!("the same calls were made {TIMES} times with the same results"));
        }
        let pairs = rounds.len() == ROUNDS && rounds[..2] == rounds[2..];
        pairs.then(|| "the same two steps were made twice with the same results".to_owned())
    }
}

fn remember(list: &mut VecDeque<u64>, print: u64, limit: usize) {
    list.push_back(print);
    if list.len() > limit {
        list.pop_front();
    }
}

fn fingerprint(call: &ToolCall, result: &ToolResult) -> u64 {
    let mut hasher = DefaultHasher::new();
    call.name.hash(&mut hasher);
    match &call.arguments {
        Arguments::Object(map) => {
            // The order of the keys says nothing.
            let mut keys: Vec<_> = map.iter().collect();
            keys.sort_by_key(|(key, _)| key.as_str());
            keys.iter().for_each(|(key, value)| (key, value.to_string()).hash(&mut hasher));
        }
        Arguments::Unreadable(text) => text.hash(&mut hasher),
    }
    result.is_error.hash(&mut hasher);
    result.text().hash(&mut hasher);
    hasher.finish()
}
