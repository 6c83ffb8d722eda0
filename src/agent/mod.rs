//! The mind: one turn from a message to an answer.
//!
//! What to do next is decided by [`turn`], a state machine without I/O; this driver asks the
//! model, calls the tools, and stores each step before it takes the next one. What earlier turns
//! taught is recalled before the first step, and what this one teaches is stored with its end.

pub mod compact;
pub mod guard;
mod offer;
pub mod outcome;
pub mod prompt;
pub mod turn;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, field};

use crate::config::Limits;
use crate::llm::{Delta, Model, Reply, Request, ToolDefinition};
use crate::memory::{self, Episode, Kind, Learning, Memory, Reader, Recall, Worth, episode};
use crate::message::event::{EventKind, Finished, StopReason};
use crate::message::{Message, ToolCall, Usage};
use crate::session::{self, Digest, Ended, Entry, Session, Sessions, window};
use crate::tool::nested::{Asker, Budget, Editor, Sample, Sampler};
use crate::tool::{self, Scope, Toolbox};
use crate::{measure, trace};

pub use crate::tool::Consents;
use offer::Offer;
use turn::{Ask, Ending, Step, Turn};

/// An answer may need this part of a model's window: one fourth.
const ANSWER: usize = 4;
/// How long a turn waits for its memory before it goes on without.
const RECALL: Duration = Duration::from_secs(3);
/// Sessions of which it is remembered which tools were shown because they had worked, and tools of each.
const SESSIONS: usize = 256;
const USED: usize = 16;

/// A model with its tools.
pub struct Agent {
    model: Arc<dyn Model>,
    offer: Mutex<Offer>,
    /// The tools that earlier turns have told of, by session, the latest last.
    used: Mutex<Vec<(String, Vec<String>)>>,
    limits: Limits,
    workspace: Arc<PathBuf>,
    skills: Skills,
    memory: Option<Arc<Memory>>,
}

/// Says which skills one may read up on at the moment: name and description.
pub type Skills = Arc<dyn Fn() -> Vec<(String, String)> + Send + Sync>;

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
    /// What the program that asks wants of the answer.
    pub instructions: Option<String>,
    /// The editor that asks, where it reads and writes files.
    pub editor: Option<Editor>,
    /// Counts what it uses; `None` where there is no limit.
    pub meter: Option<Meter>,
}

/// Counts what a model call has used. Where nothing is left it says why: there is one more answer then.
pub type Meter = Arc<dyn Fn(Usage) -> BoxFuture<'static, Option<String>> + Send + Sync>;

impl Agent {
    /// Puts a model and its tools together. `skills` are those it may read up on.
    pub fn new(
        model: Arc<dyn Model>,
        toolbox: Arc<Toolbox>,
        limits: Limits,
        workspace: PathBuf,
        skills: Skills,
    ) -> Self {
        let offer = Mutex::new(Offer::new(toolbox));
        let (workspace, used) = (Arc::new(workspace), Mutex::default());
        Self { model, offer, used, limits, workspace, skills, memory: None }
    }

    /// The same, with a memory of earlier turns.
    pub fn with_memory(self, memory: Arc<Memory>) -> Self {
        Self { memory: Some(memory), ..self }
    }

    /// The tools there are now, for a turn that begins.
    fn offer(&self) -> Offer {
        let mut offer = self.offer.lock().expect("no panic while held");
        let toolbox = offer.toolbox.renewed();
        if !Arc::ptr_eq(&toolbox, &offer.toolbox) {
            *offer = Offer::new(toolbox);
        }
        offer.clone()
    }

    /// The tools that have worked where something was asked like what is asked in this session: those that are
    /// told of now, and those of turns before. What is shown once stays, for as long as sessions are remembered.
    fn used<'a>(&self, session: &str, worked: impl Iterator<Item = &'a str>) -> Vec<String> {
        let mut sessions = self.used.lock().expect("no panic while held");
        let before = sessions.iter().position(|(known, _)| known == session);
        let mut used = before.map(|place| sessions.remove(place).1).unwrap_or_default();
        for tool in worked {
            if !used.iter().any(|known| known == tool) {
                used.push(tool.to_owned());
            }
        }
        used.drain(..used.len().saturating_sub(USED));
        sessions.push((session.to_owned(), used.clone()));
        let surplus = sessions.len().saturating_sub(SESSIONS);
        sessions.drain(..surplus);
        used
    }

    /// The tools there are now.
    pub fn toolbox(&self) -> Arc<Toolbox> {
        self.offer().toolbox
    }

    /// The name of the model that is asked first.
    pub fn model(&self) -> &str {
        self.model.name()
    }

    /// Tokens that model can be shown.
    pub fn window(&self) -> usize {
        self.model.window()
    }

    /// The folder it works in.
    pub fn workspace(&self) -> &Path {
        &self.workspace
    }

    /// Plays one turn to its end; the user's message is in `session` already. Whatever
    /// happens, the way it ended is stored and returned.
    pub async fn turn(&self, sessions: &Sessions, session: Session, play: Play) -> Finished {
        let mut stage = Stage::new(self, sessions, session, play);
        let mut turn = Turn::begin(&self.limits, Duration::ZERO);
        stage.recall().await;
        stage.choose().await;
        stage.compact(&mut turn).await;
        let ending = loop {
            if stage.play.cancel.is_cancelled() {
                turn.cancelled(None);
            }
            match turn.next(stage.began.elapsed()) {
                Step::Ask(ask) => stage.ask(&mut turn, &ask).await,
                Step::Call(calls) => stage.call(&mut turn, calls).await,
                Step::Done(ending) => break ending,
            }
            // What comes last is stored with the end.
            if !turn.is_over()
                && let Err(error) = stage.store(&turn).await
            {
                // What cannot be stored must not go on: the next step would stand on nothing.
                break turn.broken(&error.to_string());
            }
        };
        stage.end(&turn, ending).await
    }

    /// Takes what turns have taught to where it can be found. For after the reply: it may take a
    /// moment, and what is not done is done by the next turn.
    pub async fn settle(&self) {
        let Some(memory) = &self.memory else { return };
        if let Err(error) = memory.settle().await {
            tracing::warn!("what was learned waits for the next turn: {error}");
        }
    }

    /// A person's verdict on the last turn of a session. Returns whether there was one.
    pub async fn judge(&self, session: &str, good: bool) -> Result<bool, memory::Error> {
        let Some(memory) = &self.memory else { return Ok(false) };
        let Some(turn) = memory.last(session).await? else { return Ok(false) };
        memory.judge(&turn, good).await?;
        Ok(true)
    }

    /// Tells all turns of a session but the last in short, whether they would have room or not. Returns
    /// how many, and what that has used.
    pub async fn compact(&self, sessions: &Sessions, id: &str) -> Result<(usize, Usage), session::Error> {
        let mut session = sessions.open(id).await?;
        let after = session.digest.as_ref().map_or(0, |before| before.upto);
        let mut turns = compact::turns(sessions.shown(id).await?, after);
        // What was noted between turns is none.
        turns.retain(|turn| !turn.messages.is_empty());
        turns.pop();
        let Some(upto) = turns.last().map(|last| last.last) else { return Ok((0, Usage::default())) };
        let before = session.digest.as_ref().map(|before| before.text.as_str());
        let (text, by, usage) = compact::digest(&*self.model, before, &turns).await;
        let (turn, entries) =
            (uuid::Uuid::now_v7().to_string(), vec![Entry::Digest(Digest { upto, text, by })]);
        sessions.append(&mut session, &turn, entries, Timestamp::now()).await?;
        Ok((turns.len(), usage))
    }

    /// A person's verdict on a turn. Returns whether it is known.
    pub async fn judge_turn(&self, turn: &str, good: bool) -> Result<bool, memory::Error> {
        let Some(memory) = &self.memory else { return Ok(false) };
        match memory.judge(turn, good).await {
            Ok(()) => Ok(true),
            Err(memory::Error::Turn(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What is remembered that fits a question, or the latest; `None` where nothing is remembered.
    pub async fn memories(
        &self,
        asked: Option<&str>,
        limit: usize,
    ) -> Result<Option<Vec<Worth>>, memory::Error> {
        let Some(memory) = &self.memory else { return Ok(None) };
        if let Some(asked) = asked {
            return memory.search(asked, &Reader::here(""), limit).await.map(Some);
        }
        let mut found = memory.list().await?;
        found.retain(|worth| worth.episode.superseded.is_none());
        found.truncate(limit);
        Ok(Some(found))
    }

    fn system(&self, session: &Session, instructions: Option<&str>) -> String {
        prompt::system(&prompt::Facts {
            workspace: self.workspace.to_string_lossy().into_owned(),
            day: session.summary.created.strftime("%Y-%m-%d").to_string(),
            skills: (self.skills)(),
            instructions: instructions.unwrap_or_default().to_owned(),
        })
    }
}

/// A turn while it is played.
struct Stage<'a> {
    agent: &'a Agent,
    offer: Offer,
    system: String,
    sessions: &'a Sessions,
    session: Session,
    play: Play,
    scope: Arc<Scope>,
    began: Instant,
    /// What earlier turns taught that may help.
    recall: Recall,
    /// Where in the conversation the user's message is.
    place: usize,
    /// How many of the turn's messages are stored.
    stored: usize,
    /// What the provider counted for the last prompt, over what we had estimated.
    factor: f64,
}

impl<'a> Stage<'a> {
    fn new(agent: &'a Agent, sessions: &'a Sessions, session: Session, play: Play) -> Self {
        let (events, budget) = (play.events.clone(), Arc::<Budget>::default());
        let scope = Arc::new(Scope {
            session: Some(session.id().to_owned()),
            turn: Some(play.turn.clone()),
            request: trace::request(),
            workspace: agent.workspace.clone(),
            cancel: play.cancel.clone(),
            approver: play.asks.then(|| -> tool::Approver {
                let events = events.clone();
                Arc::new(move |approval| events(EventKind::Approval(approval)))
            }),
            asker: play.asks.then(|| -> Asker {
                let events = events.clone();
                Arc::new(move |question| events(EventKind::Elicitation(question)))
            }),
            sampler: Some(sampler(agent.model.clone(), events.clone(), budget.clone())),
            client: None,
            editor: play.editor.clone(),
            logger: None,
            events: Some(events),
            budget,
            within: Vec::new(),
            consents: play.consents.clone(),
            whole: false,
        });
        let offer = agent.offer();
        let system = agent.system(&session, play.instructions.as_deref());
        let began = Instant::now();
        let place = asked_at(&session.messages, &play.message);
        let recall = Recall::default();
        Self {
            agent,
            offer,
            system,
            sessions,
            session,
            play,
            scope,
            began,
            recall,
            place,
            stored: 0,
            factor: 1.0,
        }
    }

    /// Tells the oldest turns in short where the conversation has outgrown its room. What fails here
    /// costs nothing but those turns: they are left out of the prompt then.
    async fn compact(&mut self, turn: &mut Turn) {
        let tokens = self.session.messages.iter().map(window::estimate).sum();
        let room = self.room().saturating_sub(self.fixed(&self.offer.tools));
        if !self.session.is_kept() || !compact::is_full(tokens, room) {
            return;
        }
        let cancel = self.play.cancel.clone();
        let told = tokio::select! {
            told = self.shorten(turn, room) => told,
            () = cancel.cancelled() => return,
        };
        match told {
            Ok(0) => {}
            Ok(count) => {
                let text =
                    format!("{count} earlier turns are told in short from here on; the log keeps them");
                (self.play.events)(EventKind::Notice { text });
            }
            Err(error) => tracing::warn!("earlier turns are left out without a summary: {error}"),
        }
    }

    /// Returns how many turns were told in short.
    async fn shorten(&mut self, turn: &mut Turn, room: usize) -> Result<usize, session::Error> {
        let (id, before) = (self.session.id().to_owned(), self.session.digest.clone());
        let after = before.as_ref().map_or(0, |before| before.upto);
        let mut turns = compact::turns(self.sessions.shown(&id).await?, after);
        turns.truncate(compact::surplus(&turns, room));
        let Some(upto) = turns.last().map(|last| last.last) else { return Ok(0) };
        let before = before.as_ref().map(|before| before.text.as_str());
        let (text, by, usage) = compact::digest(&*self.agent.model, before, &turns).await;
        if usage.total() > 0 {
            turn.nested(0, usage);
            (self.play.events)(EventKind::Usage(usage));
            self.count(turn, usage).await;
        }
        let entries = vec![Entry::Digest(Digest { upto, text, by })];
        self.sessions.append(&mut self.session, &self.play.turn, entries, Timestamp::now()).await?;
        self.session = self.sessions.open(&id).await?;
        self.place = asked_at(&self.session.messages, &self.play.message);
        Ok(turns.len())
    }

    /// Tokens that a prompt may have.
    fn room(&self) -> usize {
        let window = self.agent.model.window();
        ((window - window / ANSWER) as f64 / self.factor) as usize
    }

    /// Tokens of a prompt before anything is said.
    fn fixed(&self, tools: &[ToolDefinition]) -> usize {
        window::tokens(&self.system) + offer::weight(tools)
    }

    fn reader(&self) -> Reader {
        Reader::here(self.session.id())
    }

    /// Asks the memory what may help. Without an answer in time the turn goes on without.
    async fn recall(&mut self) {
        let Some(memory) = &self.agent.memory else { return };
        let (asked, reader, began) = (self.play.message.text(), self.reader(), measure::now());
        let recall = memory.recall(&asked, &reader, &window::tokens);
        let recalled = tokio::time::timeout(RECALL, recall).await;
        measure::recall(began);
        self.recall = match recalled {
            Ok(Ok(recall)) => recall,
            Ok(Err(error)) => return tracing::warn!("nothing is recalled: {error}"),
            Err(_) => return tracing::warn!("nothing is recalled: the memory took too long"),
        };
        if !self.recall.shown.is_empty() {
            let episodes = self.recall.shown.iter().map(|shown| shown.id.clone()).collect();
            (self.play.events)(EventKind::Recalled { episodes });
        }
    }

    /// Chooses the tools that the model is shown, where it is not shown all.
    async fn choose(&mut self) {
        let window = self.agent.model.window();
        if self.offer.fits(window) {
            return;
        }
        let worked = self.recall.fine.iter().flat_map(|experience| outcome::worked(experience));
        let used = self.agent.used(self.session.id(), worked);
        self.offer = self.offer.clone().for_turn(window, &self.session.messages, &used).await;
    }

    /// What the model is asked, and how many tokens we take it for.
    fn request(&self, ask: &Ask) -> (Request, usize) {
        let system = self.system.clone();
        let tools = if ask.with_tools { self.offer.tools.clone() } else { Arc::default() };
        let digest = self.session.digest.as_ref().map(compact::shown);
        let fixed = self.fixed(&tools) + digest.as_ref().map_or(0, window::estimate);
        let mut messages = self.session.messages.clone();
        if !self.recall.shown.is_empty() {
            // In front of the question: what comes after stays the same in every round.
            messages.insert(self.place, Message::user(self.recall.text.clone()));
        }
        messages.extend(ask.extra.as_ref().map(|extra| Message::user(format!("[note from omni: {extra}]"))));
        let packed = window::pack(&messages, self.room().saturating_sub(fixed), &window::estimate);
        let estimate = fixed + packed.messages.iter().map(window::estimate).sum::<usize>();
        let messages = digest.into_iter().chain(packed.messages).collect();
        (Request { system, messages, tools }, estimate)
    }

    /// One model call. It ends with an answer, a failure, the turn's cancellation or its time.
    async fn ask(&mut self, turn: &mut Turn, ask: &Ask) {
        let (request, estimate) = self.request(ask);
        let partial = Arc::new(Mutex::new(String::new()));
        let sink = sink(self.play.events.clone(), partial.clone());
        let cancel = self.play.cancel.clone();
        let name = self.agent.model.name();
        let span = tracing::debug_span!(
            target: trace::DETAIL, "model", otel.name = format!("chat {name}"), otel.kind = "client",
            gen_ai.operation.name = "chat", gen_ai.request.model = name,
            gen_ai.usage.input_tokens = field::Empty, gen_ai.usage.output_tokens = field::Empty,
            otel.status_code = field::Empty,
        );
        let left = turn.deadline().saturating_sub(self.began.elapsed());
        tokio::select! {
            reply = self.agent.model.reply(&request, &sink).instrument(span.clone()) => match reply {
                Ok(reply) => {
                    if let Some(usage) = reply.usage {
                        span.record("gen_ai.usage.input_tokens", usage.input);
                        span.record("gen_ai.usage.output_tokens", usage.output);
                    }
                    let usage = reply.usage.unwrap_or_default();
                    self.learn(&reply, estimate);
                    turn.replied(reply);
                    self.count(turn, usage).await;
                }
                Err(error) => {
                    span.record("otel.status_code", "ERROR");
                    turn.model_failed(&error);
                }
            },
            () = cancel.cancelled() => {
                let partial = std::mem::take(&mut *partial.lock().expect("no panic while held"));
                turn.cancelled(Some(Message::assistant(partial)));
            }
            // The next step is the end.
            () = tokio::time::sleep(left) => {}
        }
    }

    /// Corrects the estimate of prompts by what the provider counted.
    fn learn(&mut self, reply: &Reply, estimate: usize) {
        if let Some(usage) = reply.usage {
            self.factor = (usage.input as f64 / estimate.max(1) as f64).clamp(0.5, 4.0);
            (self.play.events)(EventKind::Usage(usage));
        }
    }

    /// One round of tool calls.
    async fn call(&mut self, turn: &mut Turn, calls: Vec<ToolCall>) {
        let budget = &self.scope.budget;
        budget.grant(turn.calls_left());
        let results = self.offer.toolbox.call_all(calls, &self.scope).await;
        let (asked, usage) = budget.spent();
        turn.nested(asked, usage);
        turn.called(results);
        self.count(turn, usage).await;
    }

    /// Has what was used counted; a turn that has used up what there was has one more answer.
    async fn count(&self, turn: &mut Turn, usage: Usage) {
        if let Some(meter) = self.play.meter.as_ref().filter(|_| usage.total() > 0)
            && let Some(reason) = meter(usage).await
        {
            turn.exhausted(reason);
        }
    }

    /// Stores what the turn has added to the conversation.
    async fn store(&mut self, turn: &Turn) -> Result<(), session::Error> {
        let added = &turn.messages()[self.stored..];
        let entries = added.iter().cloned().map(Entry::Message).collect();
        self.sessions.append(&mut self.session, &self.play.turn, entries, Timestamp::now()).await?;
        self.stored = turn.messages().len();
        Ok(())
    }

    /// What the turn teaches, with what it says last.
    async fn learning(&self, memory: &Memory, last: &[Message], stop: StopReason) -> Learning {
        let (earlier, turn) = self.session.messages.split_at(self.place.min(self.session.messages.len()));
        let reading = outcome::read(earlier, &[turn, last].concat(), stop);
        let id = &self.play.turn;
        let mut rewards: Vec<_> = reading.reward.into_iter().map(|reward| (id.clone(), reward)).collect();
        if let Some(reward) = reading.before {
            match memory.last(self.session.id()).await {
                Ok(before) => rewards.extend(before.map(|before| (before, reward))),
                Err(error) => tracing::warn!("a correction is not counted: {error}"),
            }
        }
        let episodes = reading.lesson.map(|lesson| Episode {
            id: id.clone(),
            kind: Kind::Episode,
            scope: self.reader().own(),
            intent: memory::kept(&lesson.intent, episode::INTENT),
            experience: memory::kept(&lesson.experience, episode::EXPERIENCE),
            outcome: lesson.outcome,
            trust: lesson.trust,
            session: self.session.id().to_owned(),
            turn: id.clone(),
            workspace: self.agent.workspace.display().to_string(),
            created: Timestamp::now(),
            pinned: false,
            superseded: None,
            until: None,
        });
        Learning {
            turn: id.clone(),
            session: self.session.id().to_owned(),
            asked: memory::kept(&self.play.message.text(), episode::INTENT),
            shown: self.recall.shown.clone(),
            rewards,
            episodes: episodes.into_iter().collect(),
        }
    }

    /// Stores what the turn says last, how it ended and what it teaches, all or nothing: a turn that
    /// has an answer in the log has an end. A memory that cannot be written must not keep it from that.
    async fn conclude(&mut self, turn: &Turn, ended: Ended) -> Result<(), session::Error> {
        let (last, now) = (&turn.messages()[self.stored..], Timestamp::now());
        let mut entries: Vec<_> = last.iter().cloned().map(Entry::Message).collect();
        entries.push(Entry::TurnEnded(ended.clone()));
        if let Some(memory) = &self.agent.memory {
            let taught = memory.lines(&self.learning(memory, last, ended.stop).await, now);
            let (session, turn) = (&mut self.session, &self.play.turn);
            if !self.sessions.append_with(session, turn, entries, taught, now).await? {
                tracing::error!("the turn taught nothing");
            }
            return Ok(());
        }
        self.sessions.append(&mut self.session, &self.play.turn, entries, now).await
    }

    /// Stores how the turn ended.
    async fn end(&mut self, turn: &Turn, ending: Ending) -> Finished {
        let Ending { text, stop, error, rounds, tool_calls, usage } = ending;
        let milliseconds = self.began.elapsed().as_secs_f64() * 1000.0;
        let mut finished = Finished { text, stop, error, usage, rounds, tool_calls, milliseconds };
        if let Err(error) = self.conclude(turn, Ended::from(&finished)).await {
            tracing::error!(session = self.session.id(), "the end of a turn was not stored: {error}");
            finished.error.get_or_insert(error.to_string());
            finished.stop = StopReason::Failed;
        }
        finished
    }
}

/// Where in a conversation the question is. It is the last message, unless the turn was interrupted.
fn asked_at(messages: &[Message], question: &Message) -> usize {
    let found = messages.iter().rposition(|message| message == question);
    found.unwrap_or_else(|| messages.len().saturating_sub(1))
}

/// Passes pieces of an answer on as events, and keeps them in case it breaks off.
fn sink(events: tool::Events, partial: Arc<Mutex<String>>) -> impl Fn(Delta) + Send + Sync {
    move |delta| {
        events(match delta {
            Delta::Text(text) => {
                partial.lock().expect("no panic while held").push_str(&text);
                EventKind::Text { text }
            }
            Delta::Reasoning(text) => EventKind::Reasoning { text },
            Delta::Notice(text) => EventKind::Notice { text },
        });
    }
}

/// Asks the model what a tool wants to know, outside of the conversation.
fn sampler(model: Arc<dyn Model>, events: tool::Events, budget: Arc<Budget>) -> Sampler {
    Arc::new(move |sample| {
        let (model, events, budget) = (model.clone(), events.clone(), budget.clone());
        Box::pin(async move {
            let Sample { system, prompt } = sample;
            let system = system.unwrap_or_default();
            let request = Request { system, messages: vec![Message::user(prompt)], tools: Arc::default() };
            let reply = model.reply(&request, &|_| ()).await;
            let reply = reply.map_err(|error| tool::Error::Failed(error.to_string()))?;
            if let Some(usage) = reply.usage {
                budget.charge(usage);
                events(EventKind::Usage(usage));
            }
            Ok(reply.message.text())
        })
    })
}
