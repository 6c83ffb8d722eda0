//! Runs: turns that go on when nobody listens, and that whoever comes back is told of from any event on.
//!
//! A run is in the database before its turn begins, and an event before anybody hears of it, so what
//! was told is the same after a restart and from another process. Events of all runs are written
//! down together, some times in a second: a hundred runs cost no more commits than one.
//!
//! A run whose process is gone is taken up by one that is there. It goes on from what the log of its
//! session has: the message is not said twice, and a turn that had come to its end is not played
//! again. What is left undone in a session comes before what is said in it later.

mod here;
mod keep;
mod left;
mod take;

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::{Error, Hub};
use crate::message::Event;
use crate::message::event::{Consent, EventKind, Finished};
use crate::store::run::Word;

pub use crate::tool::schema::fits;
pub(super) use here::Here;
pub(super) use keep::Runs;
pub(super) use take::Ground;

/// When one looks first how far a run is that another process plays; later less often, up to
/// [`keep::LOOK`].
const SOON: Duration = Duration::from_millis(50);

/// By what a caller may ask for the same run again.
#[derive(Debug, Clone)]
pub struct Key {
    asked: String,
    digest: String,
}

impl Key {
    /// The key that this caller calls `name`, for this.
    pub fn new(caller: &str, name: &str, what: &Value) -> Self {
        Self { asked: digest(&format!("{caller}\0{name}")), digest: digest(&what.to_string()) }
    }
}

/// A run, wherever it is played.
#[derive(Clone)]
pub struct Run {
    hub: Arc<Hub>,
    /// Its id, which is that of its turn.
    pub id: String,
    /// Its session.
    pub session: String,
    /// Whether it was asked for before, by the same key.
    pub is_known: bool,
    /// The last event of its earlier tries, which came to nothing; 0 if this is the first.
    pub before: u64,
}

/// How a run stands.
#[derive(Debug, Clone, Serialize)]
pub struct Standing {
    /// Whether it goes on.
    pub status: Status,
    /// The calls that wait for a person.
    pub waiting: Vec<String>,
    /// How it ended, once it has.
    pub result: Option<Finished>,
}

/// Whether a run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It goes on, or waits for its turn.
    Running,
    /// It waits for a person.
    Waiting,
    /// Its process is gone; another one will take it up.
    Interrupted,
    /// It has ended.
    Finished,
}

/// What a person says to a call that waits.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Said {
    /// To an approval.
    pub consent: Option<Consent>,
    /// To a question.
    pub answer: Option<Map<String, Value>>,
}

/// What a call waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// A [`Consent`].
    Consent,
    /// An answer, or none.
    Answer,
}

impl Run {
    /// How it stands; `None` if it is known no more, as when its session was deleted.
    pub async fn standing(&self) -> Result<Option<Standing>, Error> {
        let runs = &self.hub.runs;
        let here = runs.find(&self.id);
        let Some(row) = runs.table.get(&self.id).await? else { return Ok(None) };
        let waiting = here.as_ref().map_or(row.waiting, |here| here.waiting());
        let is_there = here.is_some() || runs.table.is_alive(&row.owner, Timestamp::now()).await?;
        let status = match (row.is_over, is_there, waiting.is_empty()) {
            (true, ..) => Status::Finished,
            (_, false, _) => Status::Interrupted,
            (.., false) => Status::Waiting,
            _ => Status::Running,
        };
        Ok(Some(Standing { status, waiting, result: serde_json::from_str(&row.result).ok() }))
    }

    /// Waits for its end. `None` if nobody will see that any more: the program ends, or the session
    /// was deleted.
    pub async fn finished(&self) -> Result<Option<Finished>, Error> {
        let mut news = self.news();
        loop {
            match self.hub.runs.table.get(&self.id).await? {
                None => return Ok(None),
                Some(row) if row.is_over => return Ok(serde_json::from_str(&row.result).ok()),
                Some(_) => {}
            }
            loop {
                if !news.next().await {
                    return Ok(None);
                }
                if self.hub.runs.find(&self.id).is_none() {
                    break;
                }
            }
        }
    }

    /// What has happened so far.
    pub async fn happened(&self) -> Result<Vec<Event>, Error> {
        let mut all: Vec<Event> = Vec::new();
        loop {
            let last = all.last().map_or(0, |event| event.id);
            let page = self.hub.runs.table.events(&self.id, last).await?;
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page);
        }
    }

    /// The events after this number, and those that come. It ends with the run, or with the program.
    pub fn events(&self, after: u64) -> impl Stream<Item = Event> + Send + use<> {
        let run = self.clone();
        let news = run.news();
        let pages = stream::unfold((run, news, after), async |(run, mut news, after)| {
            let table = &run.hub.runs.table;
            loop {
                // In this order: what is over has no more events than are read then.
                let row = table.get(&run.id).await;
                let page = match table.events(&run.id, after).await {
                    Ok(page) => page,
                    Err(error) => {
                        tracing::error!(run = run.id, "its events cannot be read: {error}");
                        return None;
                    }
                };
                if let Some(last) = page.last().map(|event| event.id) {
                    return Some((stream::iter(page), (run, news, last)));
                }
                let is_over = row.is_ok_and(|row| row.is_none_or(|row| row.is_over));
                if is_over || !news.next().await {
                    return None;
                }
            }
        });
        pages.flatten()
    }

    fn news(&self) -> News {
        let told = self.hub.runs.find(&self.id).map(|here| here.news());
        News { hub: self.hub.clone(), id: self.id.clone(), told, pause: SOON }
    }

    /// Ends it early; what it had is kept.
    pub async fn cancel(&self) -> Result<(), Error> {
        match self.hub.runs.find(&self.id) {
            Some(here) => here.stop(),
            None => self.leave_word("", "{}".to_owned()).await?,
        }
        Ok(())
    }

    /// What a call waits for, if it does.
    pub async fn asks(&self, call: &str) -> Result<Option<Question>, Error> {
        if let Some(here) = self.hub.runs.find(&self.id) {
            return Ok(here.asks(call));
        }
        let row = self.hub.runs.table.get(&self.id).await?;
        if !row.is_some_and(|row| row.waiting.iter().any(|waiting| waiting == call)) {
            return Ok(None);
        }
        // Played elsewhere: what was asked is among the events.
        let asked = |event: Event| match event.kind {
            EventKind::Approval(approval) if approval.call == call => Some(Question::Consent),
            EventKind::Elicitation(question) if question.call == call => Some(Question::Answer),
            _ => None,
        };
        Ok(self.happened().await?.into_iter().rev().find_map(asked))
    }

    /// Answers a call. Returns whether it waited for that.
    pub async fn answer(&self, call: &str, said: Said) -> Result<bool, Error> {
        if let Some(here) = self.hub.runs.find(&self.id) {
            let was_asked = here.say(call, said);
            self.hub.runs.news.notify_one();
            return Ok(was_asked);
        }
        let is_asked = self.asks(call).await?.is_some();
        if is_asked {
            self.leave_word(call, serde_json::to_string(&said).expect("keys are texts")).await?;
        }
        Ok(is_asked)
    }

    async fn leave_word(&self, call: &str, body: String) -> Result<(), Error> {
        let word = Word { run: self.id.clone(), call: call.to_owned(), body };
        Ok(self.hub.runs.table.say(&word).await?)
    }

    /// The same run; where it has ended without an answer, it is taken up once more.
    pub async fn retried(mut self) -> Result<Self, Error> {
        if !self.is_known {
            return Ok(self);
        }
        let hub = self.hub.clone();
        if hub.runs.find(&self.id).is_some_and(|here| here.is_unwanted()) {
            // It was given up a moment ago.
            self.finished().await?;
        }
        let Some(row) = hub.runs.table.get(&self.id).await? else { return Ok(self) };
        let finished: Option<Finished> = serde_json::from_str(&row.result).ok();
        if !row.is_over || finished.is_some_and(|finished| finished.stop.is_answer()) {
            return Ok(self);
        }
        self.before = hub.runs.table.last(&self.id).await?;
        let retrying = hub.clone();
        hub.undisturbed(async move { retrying.retry(&row).await }).await?;
        Ok(self)
    }
}

/// Says when there may be more to read of a run.
struct News {
    hub: Arc<Hub>,
    id: String,
    told: Option<watch::Receiver<()>>,
    pause: Duration,
}

impl News {
    /// Returns `false` when nothing will come from here any more.
    async fn next(&mut self) -> bool {
        if let Some(told) = &mut self.told {
            if told.changed().await.is_err() {
                self.told = None;
            }
            return true;
        }
        self.told = self.hub.runs.find(&self.id).map(|here| here.news());
        if self.told.is_some() {
            return true;
        }
        if self.hub.is_draining() {
            return false;
        }
        tokio::time::sleep(self.pause).await;
        self.pause = keep::LOOK.min(self.pause * 2);
        true
    }
}

fn digest(text: &str) -> String {
    Sha256::digest(text).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
}
