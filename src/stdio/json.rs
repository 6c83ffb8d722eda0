//! Events as JSON lines, both ways: for programs that want to see what goes on, be asked, and cancel.
//!
//! What is written is what `--json` writes everywhere, and three kinds of lines more: a message was
//! accepted, it was not, or a line could not be understood. Each message ends in exactly one `result`.
//! `docs/scripts.md` has every field.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::line::{Line, Lines};
use crate::hub::{Hub, Lane, Running, command};
use crate::message::event::{Answer, Approval, Consent, Elicitation, EventKind};
use crate::message::{Incoming, Message};

/// Lines that wait to be written; then turns wait for whoever reads.
const AHEAD: usize = 64;
/// Sessions in which what was agreed to "always" stays agreed to; then it is forgotten where it is oldest.
const LANES: usize = 64;

/// What a line says.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum Said {
    /// Something is said in a session: this one, or else the one that the first message has begun.
    Message { text: String, session: Option<String>, id: Option<Value> },
    /// The answer to `approval.requested`.
    Consent { call: String, turn: Option<String>, consent: Consent },
    /// The answer to `elicitation.requested`; none declines.
    Answer { call: String, turn: Option<String>, answer: Option<Map<String, Value>> },
    /// A turn, or all of them, shall end.
    Cancel { turn: Option<String> },
}

/// Plays the messages that come in until there are no more and all have their result, or `stop` is
/// given. An error means that nobody reads any more, or that nothing can be read.
pub async fn serve(
    hub: Arc<Hub>,
    session: Option<String>,
    input: File,
    output: File,
    stop: CancellationToken,
) -> io::Result<()> {
    let mut lines = Lines::new(input, b'\n');
    let (out, written) = mpsc::channel(AHEAD);
    // When it is told to stop, and when nobody reads any more.
    let over = stop.child_token();
    let writer = tokio::spawn(write(tokio::fs::File::from_std(output), written, over.clone()));
    let desk = Arc::new(Desk { hub, out, open: Mutex::default() });
    let mut turns = JoinSet::new();
    let mut talk = Talk { desk: desk.clone(), session, lanes: VecDeque::new() };
    let listen = async {
        loop {
            let line = tokio::select! {
                line = lines.next() => line?,
                // So that those that are over are not collected.
                Some(_) = turns.join_next() => continue,
            };
            match line {
                Some(Line::Text(text)) if text.trim().is_empty() => {}
                Some(Line::Text(text)) => match serde_json::from_str(&text) {
                    Ok(said) => talk.hear(said, lines.count(), &mut turns).await,
                    Err(error) => desk.complain(lines.count(), format!("this is no message: {error}")).await,
                },
                Some(Line::Bad(reason)) => desk.complain(lines.count(), reason).await,
                None => return Ok(()),
            }
        }
    };
    let read = tokio::select! {
        biased;
        () = over.cancelled() => Ok(()),
        read = listen => read,
    };
    drop(talk);
    desk.refuse_all().await;
    let mut told = false;
    while !turns.is_empty() {
        tokio::select! {
            _ = turns.join_next() => {}
            () = over.cancelled(), if !told => {
                told = true;
                drop(desk.cancel(None));
            }
        }
    }
    drop(desk);
    let written = writer.await.unwrap_or_else(|error| Err(io::Error::other(error)));
    written.and(read)
}

/// What messages are played with.
struct Talk {
    desk: Arc<Desk>,
    /// The session of messages that name none.
    session: Option<String>,
    lanes: VecDeque<Arc<Lane>>,
}

impl Talk {
    async fn hear(&mut self, said: Said, line: u64, turns: &mut JoinSet<()>) {
        let heard = match said {
            Said::Message { text, session, id } => {
                self.begin(&text, session, id, turns).await;
                Ok(())
            }
            Said::Consent { call, turn, consent } => {
                self.desk.answer(&call, turn.as_deref(), Given::Consent(consent))
            }
            Said::Answer { call, turn, answer } => {
                self.desk.answer(&call, turn.as_deref(), Given::Answer(answer))
            }
            Said::Cancel { turn } => self.desk.cancel(turn.as_deref()),
        };
        if let Err(reason) = heard {
            self.desk.complain(line, reason).await;
        }
    }

    /// Hands a message to the hub. One that is not accepted has its result at once.
    async fn begin(
        &mut self,
        text: &str,
        session: Option<String>,
        id: Option<Value>,
        turns: &mut JoinSet<()>,
    ) {
        let hub = self.desk.hub.clone();
        let is_ours = session.is_none();
        let session = match session {
            Some(key) => match hub.session(&key).await {
                Ok(session) => Some(session),
                Err(error) => return self.desk.end(&id, &key, Err(error.to_string())).await,
            },
            None => self.session.clone(),
        };
        let name = session.clone().unwrap_or_default();
        if text.trim().is_empty() {
            return self.desk.end(&id, &name, Err("`text` is empty".to_owned())).await;
        }
        if let Some((command, words)) = command::named(text) {
            let said = hub.command(command, words, &name, None).await;
            return self.desk.end(&id, &name, Ok(said)).await;
        }
        match hub.submit(Incoming { session, message: Message::user(text) }, true).await {
            Ok(running) => {
                if is_ours {
                    self.session = Some(running.session.clone());
                }
                self.keep(&running.lane);
                self.desk.open().turns.insert(running.turn.clone(), running.cancel.clone());
                turns.spawn(self.desk.clone().follow(running, id));
            }
            Err(error) => self.desk.end(&id, &name, Err(error.to_string())).await,
        }
    }

    fn keep(&mut self, lane: &Arc<Lane>) {
        self.lanes.retain(|kept| !Arc::ptr_eq(kept, lane));
        self.lanes.push_back(lane.clone());
        if self.lanes.len() > LANES {
            self.lanes.pop_front();
        }
    }
}

/// Where turns and lines meet.
struct Desk {
    hub: Arc<Hub>,
    out: mpsc::Sender<String>,
    open: Mutex<Open>,
}

/// What goes on, and what is waited for.
#[derive(Default)]
struct Open {
    turns: HashMap<String, CancellationToken>,
    /// By turn and call.
    asked: HashMap<(String, String), Asked>,
    /// Nobody answers any more.
    is_silent: bool,
}

/// A question, and the place for its answer.
enum Asked {
    Consent(Answer),
    Answer(Answer<Option<Map<String, Value>>>),
}

/// An answer.
enum Given {
    Consent(Consent),
    Answer(Option<Map<String, Value>>),
}

impl Desk {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().expect("no panic while held")
    }

    /// Writes a line. That nobody reads it is seen elsewhere.
    async fn say(&self, line: &impl Serialize) {
        let line = serde_json::to_string(line).expect("our own types are JSON");
        let _ = self.out.send(line).await;
    }

    async fn complain(&self, line: u64, reason: String) {
        self.say(&json!({"type": "error", "line": line, "error": reason})).await;
    }

    /// The result of a message that was no turn.
    async fn end(&self, message: &Option<Value>, session: &str, said: Result<String, String>) {
        let mut line = json!({"type": "result", "message": message, "session": session});
        match said {
            Ok(text) => (line["text"], line["stop"]) = (text.into(), "answered".into()),
            Err(error) => {
                (line["text"], line["stop"], line["error"]) = ("".into(), "failed".into(), error.into());
            }
        }
        self.say(&line).await;
    }

    /// Says what happens in a turn until it is over. `message` is what its program calls it.
    async fn follow(self: Arc<Self>, mut running: Running, message: Option<Value>) {
        let turn = &running.turn;
        let accepted = json!({
            "type": "message.accepted", "message": message, "session": running.session, "turn": turn,
        });
        self.say(&accepted).await;
        while let Some(event) = running.events.next().await {
            // Whoever reads of a question may answer it at once.
            let refused = match &event.kind {
                EventKind::Approval(Approval { call, answer, .. }) => {
                    self.await_answer(turn, call, Asked::Consent(answer.clone()))
                }
                EventKind::Elicitation(Elicitation { call, answer, .. }) => {
                    self.await_answer(turn, call, Asked::Answer(answer.clone()))
                }
                EventKind::ToolFinished { call, .. } => {
                    self.open().asked.remove(&(turn.clone(), call.clone()));
                    None
                }
                EventKind::Finished(_) => {
                    let mut open = self.open();
                    open.asked.retain(|(its, _), _| its != turn);
                    open.turns.remove(turn);
                    None
                }
                _ => None,
            };
            self.say(&event).await;
            if let Some((call, asked)) = refused {
                self.refuse(turn, &call, asked).await;
            }
        }
    }

    /// Keeps the place for an answer. Where nobody can give one any more it is handed back.
    fn await_answer(&self, turn: &str, call: &str, asked: Asked) -> Option<(String, Asked)> {
        let mut open = self.open();
        if open.is_silent {
            return Some((call.to_owned(), asked));
        }
        open.asked.insert((turn.to_owned(), call.to_owned()), asked);
        None
    }

    /// Says no in place of somebody.
    async fn refuse(&self, turn: &str, call: &str, asked: Asked) {
        match asked {
            Asked::Consent(place) => drop(place.give(Consent::No)),
            Asked::Answer(place) => drop(place.give(None)),
        }
        let error = "standard input has ended, so nobody can answer what is asked: it is a no";
        self.say(&json!({"type": "error", "turn": turn, "call": call, "error": error})).await;
    }

    /// Says no to everything that waits, and to everything that will.
    async fn refuse_all(&self) {
        let waiting = {
            let mut open = self.open();
            open.is_silent = true;
            std::mem::take(&mut open.asked)
        };
        for ((turn, call), asked) in waiting {
            self.refuse(&turn, &call, asked).await;
        }
    }

    /// Passes an answer on to the call that waits for it.
    fn answer(&self, call: &str, turn: Option<&str>, given: Given) -> Result<(), String> {
        let mut open = self.open();
        let is_meant = |(its, id): &&(String, String)| id == call && turn.is_none_or(|turn| turn == its);
        let found: Vec<_> = open.asked.keys().filter(is_meant).cloned().collect();
        let key = match &found[..] {
            [] => return Err(format!("the call `{call}` does not wait for an answer")),
            [key] => key,
            _ => {
                return Err(format!(
                    "several turns have a call `{call}` that waits; say which `turn` is meant"
                ));
            }
        };
        match (&open.asked[key], given) {
            (Asked::Consent(place), Given::Consent(consent)) => drop(place.give(consent)),
            (Asked::Answer(place), Given::Answer(answer)) => drop(place.give(answer)),
            (Asked::Consent(_), _) => {
                return Err(format!("the call `{call}` waits for `consent`: once, always, no or never"));
            }
            (Asked::Answer(_), _) => return Err(format!("the call `{call}` waits for an `answer`")),
        }
        open.asked.remove(key);
        Ok(())
    }

    /// Ends a turn, or all of them, early.
    fn cancel(&self, turn: Option<&str>) -> Result<(), String> {
        let open = self.open();
        match turn {
            None => open.turns.values().for_each(CancellationToken::cancel),
            Some(turn) => match open.turns.get(turn) {
                Some(cancel) => cancel.cancel(),
                None => return Err(format!("no turn `{turn}` goes on")),
            },
        }
        Ok(())
    }
}

/// Writes lines until there are no more; whoever says one need not look after it.
async fn write(
    mut to: tokio::fs::File,
    mut lines: mpsc::Receiver<String>,
    over: CancellationToken,
) -> io::Result<()> {
    while let Some(mut line) = lines.recv().await {
        line.push('\n');
        let written = async {
            to.write_all(line.as_bytes()).await?;
            to.flush().await
        };
        if let Err(error) = written.await {
            lines.close();
            over.cancel();
            return Err(error);
        }
    }
    Ok(())
}
