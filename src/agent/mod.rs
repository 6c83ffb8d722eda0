//! The mind: one turn from a message to an answer.
//!
//! What to do next is decided by [`turn`], a state machine without I/O; this driver asks the
//! model, calls the tools, and stores each step before it takes the next one.

pub mod guard;
pub mod prompt;
pub mod turn;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::config::Limits;
use crate::llm::{self, Delta, Model, Reply, Request, ToolDefinition};
use crate::message::event::{EventKind, Finished, StopReason};
use crate::message::{Message, ToolCall, ToolResult};
use crate::session::{Ended, Entry, Session, Sessions, window};
use crate::tool::{self, Scope, Toolbox};

pub use crate::tool::Consents;
use turn::{Ask, Step, Turn};

/// The part of a model's window that an answer may need.
const ANSWER: usize = 4;

/// A model with its tools.
pub struct Agent {
    model: Arc<dyn Model>,
    toolbox: Arc<Toolbox>,
    tools: Arc<[ToolDefinition]>,
    limits: Limits,
    workspace: Arc<PathBuf>,
    skills: Vec<(String, String)>,
}

/// What a turn is played with.
pub struct Play {
    /// Its id.
    pub turn: String,
    /// What was said; stored already.
    pub message: Message,
    /// Ends it early.
    pub cancel: CancellationToken,
    /// Hears what happens.
    pub events: tool::Events,
    /// Whether somebody answers [`EventKind::Approval`].
    pub asks: bool,
    /// What the person has agreed to in this session.
    pub consents: Arc<Consents>,
}

impl Agent {
    /// Puts a model and its tools together. `skills` are those it may read up on.
    pub fn new(
        model: Arc<dyn Model>,
        toolbox: Arc<Toolbox>,
        limits: Limits,
        workspace: PathBuf,
        skills: Vec<(String, String)>,
    ) -> Self {
        let tools = toolbox.definitions().iter().map(definition).collect();
        Self { model, toolbox, tools, limits, workspace: Arc::new(workspace), skills }
    }

    /// The name of the model that is asked first.
    pub fn model(&self) -> &str {
        self.model.name()
    }

    /// The folder it works in.
    pub fn workspace(&self) -> &Path {
        &self.workspace
    }

    /// Plays one turn to its end; the user's message is in `session` already. Whatever
    /// happens, the way it ended is stored and returned.
    pub async fn turn(&self, sessions: &Sessions, session: Session, play: Play) -> Finished {
        let began = Instant::now();
        let mut stage = Stage { agent: self, sessions, session, play, spent: 0 };
        let mut turn = Turn::begin(&self.limits, Duration::ZERO);
        let ending = loop {
            if stage.play.cancel.is_cancelled() {
                turn.cancelled();
            }
            let taken = match turn.next(began.elapsed()) {
                Step::Ask(ask) => stage.ask(&mut turn, &ask).await,
                Step::Call(calls) => stage.call(&mut turn, calls).await,
                Step::Done(ending) => break Ok(ending),
            };
            if let Err(error) = taken {
                break Err(error);
            }
        };
        stage.end(&turn, ending, began.elapsed()).await
    }

    fn system(&self, session: &Session) -> String {
        prompt::system(&prompt::Facts {
            workspace: self.workspace.to_string_lossy().into_owned(),
            day: session.summary.created.strftime("%Y-%m-%d").to_string(),
            skills: self.skills.clone(),
        })
    }
}

/// A turn while it is played.
struct Stage<'a> {
    agent: &'a Agent,
    sessions: &'a Sessions,
    session: Session,
    play: Play,
    scope: Scope,
    began: Instant,
    /// What the provider counted for the last prompt, over what we had estimated.
    factor: f64,
}

impl Stage<'_> {
    /// One model call.
    async fn ask(&mut self, turn: &mut Turn, ask: &Ask) -> Result<(), session::Error> {
        let (request, estimate) = self.request(ask);
        let partial = Arc::new(Mutex::new(String::new()));
        let sink = self.sink(partial.clone());
        let cancel = self.play.cancel.clone();
        let reply = tokio::select! {
            reply = self.agent.model.reply(&request, &*sink) => Some(reply),
            () = cancel.cancelled() => None,
            () = tokio::time::sleep(self.left()) => None,
        };
        let partial = std::mem::take(&mut *partial.lock().expect("no panic while held"));
        match reply {
            Some(Ok(reply)) => self.replied(turn, reply, estimate).await,
            Some(Err(error)) => self.failed(turn, error, partial).await,
            None => self.stopped(turn, partial).await,
        }
    }

    async fn replied(&mut self, turn: &mut Turn, reply: Reply, estimate: usize) -> Result<(), session::Error> {
        if let Some(usage) = reply.usage {
            self.factor = (usage.input as f64 / estimate.max(1) as f64).clamp(0.5, 4.0);
            (self.play.events)(EventKind::Usage(usage));
        }
        let message = turn.replied(reply);
        self.store(message.map(Entry::Message)).await
    }

    async fn failed(&mut self, turn: &mut Turn, error: llm::Error, partial: String) -> Result<(), session::Error> {
        let stop = match &error {
            llm::Error::Unauthorized { .. } | llm::Error::Setup(_) => StopReason::Unauthorized,
            _ => StopReason::ModelFailed,
        };
        turn.model_failed(stop, error.to_string(), &partial);
        self.store(said(partial)).await
    }

    /// The turn was cancelled, or its time is up, in the middle of an answer.
    async fn stopped(&mut self, turn: &mut Turn, partial: String) -> Result<(), session::Error> {
        turn.broke_off(&partial);
        self.store(said(partial)).await
    }

    /// One round of tool calls.
    async fn call(&mut self, turn: &mut Turn, calls: Vec<ToolCall>) -> Result<(), session::Error> {
        let results = self.agent.toolbox.call_all(calls, &self.scope).await;
        turn.called(results.clone());
        self.store(Some(Entry::Message(Message::results(results)))).await
    }

    async fn store(&mut self, entry: Option<Entry>) -> Result<(), session::Error> {
        let entries = entry.into_iter().collect();
        self.sessions.append(&mut self.session, &self.play.turn, entries, Timestamp::now()).await
    }
}
