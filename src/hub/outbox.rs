//! Events on their way to a face.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::message::{Event, EventKind};

/// Events that wait before pieces of text are joined.
const SEPARATE: usize = 256;

/// The sending end. It never waits: when a face is slow, pieces of text that follow one
/// another are joined, and everything else is bounded by the limits of a turn.
#[derive(Clone)]
pub(super) struct Outbox(Arc<Shared>);

/// The receiving end. Dropping it changes nothing for the turn.
pub struct Events(Arc<Shared>);

struct Shared {
    session: String,
    turn: String,
    queue: Mutex<Queue>,
    arrived: Notify,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Event>,
    last: u64,
    closed: bool,
    abandoned: bool,
}

impl Outbox {
    pub(super) fn new(session: String, turn: String) -> (Self, Events) {
        let shared = Arc::new(Shared { session, turn, queue: Mutex::default(), arrived: Notify::new() });
        (Self(shared.clone()), Events(shared))
    }

    /// Takes an event. After [`EventKind::Finished`] there are no more.
    pub(super) fn send(&self, kind: EventKind) {
        let mut queue = self.0.queue.lock().expect("no panic while held");
        if queue.closed || queue.abandoned {
            return;
        }
        queue.closed = matches!(kind, EventKind::Finished(_));
        if queue.waiting.len() >= SEPARATE && joined(queue.waiting.back_mut(), &kind) {
            return;
        }
        queue.last += 1;
        let event =
            Event { id: queue.last, session: self.0.session.clone(), turn: self.0.turn.clone(), kind };
        queue.waiting.push_back(event);
        drop(queue);
        self.0.arrived.notify_one();
    }
}

/// Adds a piece of text to the one before it.
fn joined(last: Option<&mut Event>, kind: &EventKind) -> bool {
    match (last.map(|event| &mut event.kind), kind) {
        (Some(EventKind::Text { text }), EventKind::Text { text: more })
        | (Some(EventKind::Reasoning { text }), EventKind::Reasoning { text: more }) => {
            text.push_str(more);
            true
        }
        _ => false,
    }
}

impl Events {
    /// The next event; `None` after the last one.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let arrived = self.0.arrived.notified();
            {
                let mut queue = self.0.queue.lock().expect("no panic while held");
                if let Some(event) = queue.waiting.pop_front() {
                    return Some(event);
                }
                if queue.closed {
                    return None;
                }
            }
            arrived.await;
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let mut queue = self.0.queue.lock().expect("no panic while held");
        queue.abandoned = true;
        // An approval nobody will see is refused by dropping it.
        queue.waiting.clear();
    }
}
