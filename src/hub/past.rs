//! What was said and done in a session before, for those who go on from any point of it.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Error, Hub};
use crate::message::event::{EventKind, Finished};
use crate::message::{Arguments, Message, Part, Role};
use crate::session::{Ended, Entry, Stored};

/// A session up to the end of one of its turns.
#[derive(Debug)]
pub struct Past {
    /// What was said in it.
    pub messages: Vec<Message>,
    /// Whether nothing was said since.
    pub is_last: bool,
}

impl Hub {
    /// What was said in a session up to the end of a turn; `None` where there is no such turn.
    pub async fn past(&self, session: &str, turn: &str) -> Result<Option<Past>, Error> {
        let mut log = self.sessions.show(session).await?;
        let Some(last) = log.iter().rposition(|stored| stored.turn == turn) else { return Ok(None) };
        let is_last = last + 1 == log.len();
        log.truncate(last + 1);
        let messages = log.into_iter().filter_map(|stored| match stored.entry {
            Entry::Message(message) => Some(message),
            _ => None,
        });
        Ok(Some(Past { messages: messages.collect(), is_last }))
    }

    /// Begins a session in which this was said before, and returns its id.
    pub async fn branch(&self, earlier: Vec<Message>) -> Result<String, Error> {
        let now = Timestamp::now();
        let mut session = self.sessions.create(self.agent.workspace(), now).await?;
        let mut rest = earlier.into_iter().peekable();
        while let Some(first) = rest.next() {
            // A turn is what a user says and what comes of it.
            let mut turn = vec![Entry::Message(first)];
            while let Some(next) = rest.next_if(|next| next.role != Role::User) {
                turn.push(Entry::Message(next));
            }
            let id = uuid::Uuid::now_v7().to_string();
            self.sessions.append(&mut session, &id, turn, now).await?;
        }
        Ok(session.id().to_owned())
    }

    /// What happened in a turn, as far as its log says: pieces of text are told as one.
    pub async fn replay(&self, session: &str, turn: &str) -> Result<Vec<EventKind>, Error> {
        let log = self.sessions.show(session).await?;
        Ok(replayed(log.into_iter().filter(|stored| stored.turn == turn)))
    }

    /// A person's verdict on a turn. Returns whether it is known.
    pub async fn judge_turn(&self, turn: &str, good: bool) -> Result<bool, String> {
        self.agent.judge_turn(turn, good).await.map_err(|error| error.to_string())
    }

    /// What is remembered that fits a question, or the latest, as JSON; `None` where nothing is
    /// remembered.
    pub async fn memories(&self, asked: Option<&str>, limit: usize) -> Result<Option<Value>, String> {
        let found = self.agent.memories(asked, limit).await.map_err(|error| error.to_string())?;
        Ok(found.map(|found| json!(found)))
    }
}

fn replayed(entries: impl Iterator<Item = Stored>) -> Vec<EventKind> {
    let (mut events, mut answer) = (Vec::new(), String::new());
    for Stored { entry, .. } in entries {
        match entry {
            Entry::TurnBegan(began) => events.push(EventKind::Started { model: began.model }),
            Entry::Message(message) if message.role != Role::User => {
                if message.role == Role::Assistant {
                    answer = message.text();
                }
                events.extend(message.parts.into_iter().filter_map(told));
            }
            Entry::TurnEnded(ended) => {
                events.push(EventKind::Finished(finished(std::mem::take(&mut answer), ended)));
            }
            Entry::Message(_)
            | Entry::Note(_)
            | Entry::Digest(_)
            | Entry::Kept(_)
            | Entry::Reset
            | Entry::Restored(_) => {}
        }
    }
    events
}

/// What a part of a message was told as when it was said.
fn told(part: Part) -> Option<EventKind> {
    match part {
        Part::Text { text } => Some(EventKind::Text { text }),
        Part::Reasoning { text } => Some(EventKind::Reasoning { text }),
        Part::Image { .. } => None,
        Part::Call(call) => {
            let arguments = match call.arguments {
                Arguments::Object(arguments) => arguments,
                Arguments::Unreadable(_) => Default::default(),
            };
            Some(EventKind::ToolStarted { call: call.id, parent: None, tool: call.name, arguments })
        }
        Part::Result(result) => Some(EventKind::ToolFinished {
            call: result.call.clone(),
            parent: None,
            tool: result.name.clone(),
            result,
            milliseconds: 0.0,
        }),
    }
}

fn finished(text: String, ended: Ended) -> Finished {
    let Ended { stop, error, usage, rounds, tool_calls, milliseconds } = ended;
    Finished { text, stop, error, usage, rounds, tool_calls, milliseconds }
}
