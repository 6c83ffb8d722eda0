//! How far a turn came whose process is gone (pure).

use crate::message::event::Finished;
use crate::message::{Message, Role};
use crate::session::{Ended, Entry, Stored};

/// What the log has of a turn that was left.
pub(super) enum Left {
    /// It had an answer.
    Over(Finished),
    /// It goes on from here.
    Open,
}

/// How far a turn came. `None`: it has to begin; it did not yet, or something else was said since.
pub(super) fn left(log: &[Stored], turn: &str) -> Option<Left> {
    let own = || log.iter().filter(|stored| stored.turn == turn);
    let ended = own().rev().find_map(|stored| match &stored.entry {
        Entry::TurnEnded(ended) => Some(ended),
        _ => None,
    });
    if let Some(ended) = ended.filter(|ended| ended.stop.is_answer()) {
        return Some(Left::Over(told(own(), ended)));
    }
    let last = log.iter().rev().find(|stored| matches!(stored.entry, Entry::Message(_)))?;
    (last.turn == turn).then_some(Left::Open)
}

/// The end of a turn, as it was told or would have been.
fn told<'a>(own: impl DoubleEndedIterator<Item = &'a Stored>, ended: &Ended) -> Finished {
    let text = own.rev().find_map(|stored| match &stored.entry {
        Entry::Message(message) if message.role == Role::Assistant => Some(message.text()),
        _ => None,
    });
    Finished {
        text: text.unwrap_or_default(),
        stop: ended.stop,
        error: ended.error.clone(),
        usage: ended.usage,
        rounds: ended.rounds,
        tool_calls: ended.tool_calls,
        milliseconds: ended.milliseconds,
    }
}

/// Whether a message only says something.
pub(super) fn is_said(message: &Message) -> bool {
    message.role == Role::Assistant && message.calls().next().is_none()
}
