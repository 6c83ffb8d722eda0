//! A run that is played here: what happens in it until that is written down, and what it waits for.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Question, Said};
use crate::message::Event;
use crate::message::event::{Answer, Consent, EventKind, Finished};
use crate::store::run::{self as table, Page};

/// Bytes of a run's events; when there are more, pieces of text are left out, as its result has it whole.
const RECORD: usize = 1 << 20;

/// A run that is played here.
pub(in crate::hub) struct Here {
    pub(super) id: String,
    pub(super) session: String,
    /// Nothing of it can be in the log yet.
    pub(in crate::hub) is_new: bool,
    pub(super) cancel: CancellationToken,
    /// Somebody has said that it is to end.
    unwanted: AtomicBool,
    desk: Mutex<Desk>,
    told: watch::Sender<()>,
}

#[derive(Default)]
struct Desk {
    last: u64,
    bytes: usize,
    /// What is to be written down.
    events: Vec<(u64, String)>,
    waiting: BTreeMap<String, (Asked, Instant)>,
    end: Option<End>,
    changed: bool,
    /// How long a question waits for a person.
    patience: Duration,
}

/// A place for what a person says.
enum Asked {
    Consent(Answer),
    Answer(Answer<Option<Map<String, Value>>>),
}

/// How it ends here.
#[derive(Clone)]
pub(super) enum End {
    Over(Finished),
    /// Somebody else may take it up.
    Left,
}

impl Here {
    /// One that goes on after the event of this number.
    pub(super) fn new(row: &table::Run, last: u64, is_new: bool, cancel: CancellationToken) -> Self {
        Self {
            id: row.id.clone(),
            session: row.session.clone(),
            is_new,
            cancel,
            unwanted: AtomicBool::new(false),
            desk: Mutex::new(Desk { last, ..Desk::default() }),
            told: watch::Sender::new(()),
        }
    }

    /// Hears when more is written down, until it is over.
    pub(super) fn news(&self) -> watch::Receiver<()> {
        self.told.subscribe()
    }

    /// Says that more is written down.
    pub(super) fn tell(&self) {
        self.told.send_replace(());
    }

    /// Whether somebody has said that it is to end.
    pub(super) fn is_unwanted(&self) -> bool {
        self.unwanted.load(Ordering::SeqCst)
    }

    /// The calls that wait for a person.
    pub(super) fn waiting(&self) -> Vec<String> {
        self.desk().waiting.keys().cloned().collect()
    }

    /// What a call waits for, if it does.
    pub(super) fn asks(&self, call: &str) -> Option<Question> {
        self.desk().waiting.get(call).map(|(asked, _)| match asked {
            Asked::Consent(_) => Question::Consent,
            Asked::Answer(_) => Question::Answer,
        })
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().expect("no panic while held")
    }

    /// Takes note of an event.
    pub(super) fn hear(&self, kind: EventKind) {
        let mut desk = self.desk();
        if desk.end.is_some() {
            return;
        }
        match &kind {
            EventKind::Approval(approval) => {
                let asked = (Asked::Consent(approval.answer.clone()), Instant::now());
                desk.waiting.insert(approval.call.clone(), asked);
            }
            EventKind::Elicitation(question) => {
                let asked = (Asked::Answer(question.answer.clone()), Instant::now());
                desk.waiting.insert(question.call.clone(), asked);
            }
            EventKind::ToolFinished { call, .. } => drop(desk.waiting.remove(call)),
            EventKind::Finished(_) => desk.waiting.clear(),
            _ => {}
        }
        let is_piece = matches!(
            kind,
            EventKind::Text { .. } | EventKind::Reasoning { .. } | EventKind::ToolProgress { .. }
        );
        desk.last += 1;
        let event = Event { id: desk.last, session: self.session.clone(), turn: self.id.clone(), kind };
        let text = serde_json::to_string(&event).expect("keys are texts");
        desk.bytes += text.len();
        if desk.bytes <= RECORD || !is_piece {
            desk.events.push((event.id, text));
        }
        desk.changed = true;
    }

    pub(super) fn end(&self, end: End) {
        if let End::Over(finished) = &end {
            self.hear(EventKind::Finished(finished.clone()));
        }
        let mut desk = self.desk();
        desk.end.get_or_insert(end);
        desk.changed = true;
    }

    /// What is to be written down, if there is something.
    pub(super) fn page(&self) -> Option<Page> {
        let mut desk = self.desk();
        if !std::mem::take(&mut desk.changed) {
            return None;
        }
        Some(Page {
            run: self.id.clone(),
            events: std::mem::take(&mut desk.events),
            waiting: desk.waiting.keys().cloned().collect(),
            result: match &desk.end {
                Some(End::Over(finished)) => serde_json::to_string(finished).ok(),
                _ => None,
            },
            left: matches!(desk.end, Some(End::Left)),
        })
    }

    /// Takes back what could not be written down.
    pub(super) fn again(&self, page: Page) {
        let mut desk = self.desk();
        let later = std::mem::replace(&mut desk.events, page.events);
        desk.events.extend(later);
        desk.changed = true;
    }

    /// Ends the turn, as somebody wants.
    pub(super) fn stop(&self) {
        self.unwanted.store(true, Ordering::SeqCst);
        self.cancel.cancel();
    }

    /// Answers a call. Returns whether it waited for that.
    pub(super) fn say(&self, call: &str, said: Said) -> bool {
        let mut desk = self.desk();
        let Some((asked, _)) = desk.waiting.remove(call) else { return false };
        desk.changed = true;
        match asked {
            Asked::Consent(place) => place.give(said.consent.unwrap_or(Consent::No)),
            Asked::Answer(place) => place.give(said.answer),
        }
    }

    /// How long a question waits for a person from now on.
    pub(super) fn wait(&self, patience: Duration) {
        self.desk().patience = patience;
    }

    /// Says no to everything that has waited for too long.
    pub(super) fn refuse(&self, now: Instant) {
        let overdue: Vec<_> = {
            let desk = self.desk();
            let is_long = |since: &Instant| now.saturating_duration_since(*since) > desk.patience;
            let overdue = desk.waiting.iter().filter(|(_, (_, since))| is_long(since));
            overdue.map(|(call, _)| call.clone()).collect()
        };
        for call in overdue {
            self.say(&call, Said { consent: None, answer: None });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::event::Elicitation;

    #[test]
    fn a_question_waits_as_long_as_whoever_asks_wants() {
        const HOUR: Duration = Duration::from_secs(3600);
        let row = table::Run {
            id: "r".to_owned(),
            session: "s".to_owned(),
            digest: String::new(),
            request: String::new(),
            is_over: false,
            owner: String::new(),
            tries: 0,
            waiting: Vec::new(),
            result: String::new(),
            created: jiff::Timestamp::UNIX_EPOCH,
        };
        let here = Here::new(&row, 0, true, CancellationToken::new());
        here.wait(8 * HOUR);
        let (answer, mut answered) = Answer::channel();
        let (call, tool, message) = ("c".to_owned(), "t".to_owned(), "?".to_owned());
        here.hear(EventKind::Elicitation(Elicitation { call, tool, message, schema: Value::Null, answer }));
        here.refuse(Instant::now() + 7 * HOUR);
        assert_eq!((here.waiting(), answered.try_recv().ok()), (vec!["c".to_owned()], None));
        here.refuse(Instant::now() + 9 * HOUR);
        assert_eq!((here.waiting(), answered.try_recv().ok()), (Vec::new(), Some(None)));
    }
}
