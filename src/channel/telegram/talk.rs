//! Conversations: the letters of each are answered in order, each once.
//!
//! A letter is answered by a run, and is the key by which it is asked for. Whatever is killed in between,
//! the same run is asked for again: the hub goes on with it, or tells its end once more. The answer is
//! kept, and the letter taken off the pile, in one transaction.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use frankenstein::methods::{AnswerCallbackQueryParams, EditMessageReplyMarkupParams};
use frankenstein::updates::Update;
use futures::StreamExt;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::Telegram;
use super::access::Access;
use super::ask;
use super::files;
use super::format::{self, Text};
use super::inbox::{self, AT_ONCE};
use super::live::{Live, Stage};
use super::outbox::{self, Body};
use super::question::{self, Button};
use super::update::{self, Heard, Me, Pressed, Said, Spot};
use crate::config::paths::OUTPUT;
use crate::hub::run::{Key, Run};
use crate::hub::{self, Order, command};
use crate::message::event::{Finished, StopReason};
use crate::message::{Incoming, Message, Part, Role};
use crate::store::mail::{Letter, Parcel};

/// How long the rest of what was sent together may take to come.
const BUNDLE: Duration = Duration::from_secs(1);
/// How often an answer that is written is looked at.
const TICK: Duration = Duration::from_millis(250);
/// How long to wait where there is no room for another turn.
const ROOM: Duration = Duration::from_secs(1);
/// How long to wait after the database did not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// Commands that only a chat has; [`command::COMMANDS`] are those that every face has.
pub const OWN: [(&str, &str); 3] = [
    ("new", "begin another conversation"),
    ("stop", "stop the answer that is being written"),
    ("start", "say hello"),
];

/// Why a letter stays where it is.
pub(super) enum Left {
    /// The program ends.
    Stopping,
    /// The database does not answer.
    Store(crate::store::Error),
    /// It belongs to this lane.
    Elsewhere(String),
}

/// The first message of an answer, which may be there already.
#[derive(Clone, Copy)]
enum Grown {
    /// It is not.
    No,
    /// It is, and becomes the answer.
    Yes,
    /// It is, and an edit of it is under way of which nobody knows when it is done. It makes room for another.
    Astray,
}

impl From<crate::store::Error> for Left {
    fn from(error: crate::store::Error) -> Self {
        Self::Store(error)
    }
}

impl Telegram {
    /// The conversation a message belongs to.
    pub(super) fn lane(&self, said: &Said) -> String {
        said.spot.lane((said.group && !self.config.shared_groups).then_some(said.user.id))
    }

    /// Answers the letters of a lane until there are none.
    pub(super) async fn converse(self: &Arc<Self>, lane: &str, me: &Me, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            let done = match self.mail.waiting(lane).await {
                Ok(letters) if letters.is_empty() => return,
                Ok(letters) => self.next(lane, letters, me, stop).await,
                Err(error) => Err(Left::Store(error)),
            };
            match done {
                Ok(()) => {}
                Err(Left::Stopping | Left::Elsewhere(_)) => return,
                Err(Left::Store(error)) => {
                    tracing::warn!("a letter waits: {error}");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Answers the first of these letters, with those that belong to it.
    async fn next(
        self: &Arc<Self>,
        lane: &str,
        mut letters: Vec<Letter>,
        me: &Me,
        stop: &CancellationToken,
    ) -> Result<(), Left> {
        let first = letters[0].clone();
        if !first.bundle.is_empty() {
            tokio::time::sleep(BUNDLE).await;
            letters = self.mail.waiting(lane).await?;
        }
        letters.retain(|letter| {
            letter.id == first.id
                || letter.turn == first.turn
                || (!first.bundle.is_empty() && letter.bundle == first.bundle)
        });
        self.mail.join(&letters).await?;
        let heard = letters.iter().filter_map(|letter| {
            let update = serde_json::from_str::<Update>(&letter.body).ok()?;
            update::read(&update, me)
        });
        let heard: Vec<Heard> = heard.collect();
        let ids: Vec<i64> = letters.iter().map(|letter| letter.id).collect();
        // What panics at one letter must not come back to it for ever.
        let (telegram, turn, stop) = (self.clone(), first.turn.clone(), stop.clone());
        let lane = lane.to_owned();
        let answering = async move { telegram.answered(&lane, &turn, heard, &stop).await };
        let parcels = match tokio::spawn(answering).await {
            Ok(Err(Left::Elsewhere(lane))) => {
                self.mail.readdress(&ids, &lane).await?;
                self.arrived.notify_one();
                return Ok(());
            }
            Ok(parcels) => parcels?,
            Err(error) => {
                tracing::error!("a letter is given up, it broke what reads it: {error}");
                Vec::new()
            }
        };
        self.mail.answer(&ids, &parcels, Timestamp::now()).await?;
        self.outbox.hurry();
        Ok(())
    }

    /// What answers these.
    async fn answered(
        self: &Arc<Self>,
        lane: &str,
        turn: &str,
        heard: Vec<Heard>,
        stop: &CancellationToken,
    ) -> Result<Vec<Parcel>, Left> {
        let access = Access::read(&self.config, &self.mail).await?;
        let mut said = Vec::new();
        for heard in heard {
            match heard {
                Heard::Said(one) if lane == AT_ONCE => {
                    let lane = self.lane(&one);
                    if inbox::stops(&one) {
                        return Ok(vec![self.note(one.spot, turn, self.stop(&lane).await)]);
                    }
                    let Some(name) = self.surely_asks(&one, &access).await? else {
                        // What it was an answer to is over, so it is a message like any other.
                        return Err(Left::Elsewhere(lane));
                    };
                    let told = self.worded(&name, &one).await;
                    return Ok(told.map(|told| self.note(one.spot, turn, &told)).into_iter().collect());
                }
                Heard::Said(one) => said.push(*one),
                Heard::Pressed(pressed) => self.pressed(&pressed, &access).await?,
                Heard::Judged(judged) => {
                    let spot = Spot { chat: judged.chat, thread: None };
                    if access.admits(spot, judged.user)
                        && let Some(sent) = self.mail.sent(judged.chat, judged.message.into()).await?
                    {
                        self.judge(&sent.parcel.turn, judged.good).await;
                    }
                }
                Heard::Stopped(spot) => {
                    self.stop(&spot.lane(None)).await;
                }
                // Followed when it came.
                Heard::Moved { .. } => {}
            }
        }
        let Some(first) = said.first() else { return Ok(Vec::new()) };
        let may = access.admits(first.spot, first.user.id) && said.iter().any(|said| said.addressed);
        match &first.command {
            _ if !may => Ok(Vec::new()),
            Some((name, words)) => self.command(lane, turn, first, name, words, &access).await,
            None => self.turn(lane, turn, &said, stop).await,
        }
    }

    /// Does what a slash command says.
    async fn command(
        &self,
        lane: &str,
        turn: &str,
        said: &Said,
        name: &str,
        words: &str,
        access: &Access,
    ) -> Result<Vec<Parcel>, Left> {
        let session = self.session(lane).await?;
        let told = match name {
            "start" => format!("Hello {}. Ask me anything; /help shows what else there is.", said.user.name),
            "new" => {
                let session = format!("{}.{}", self.first_session(lane), Timestamp::now().as_millisecond());
                self.mail.turn_to(lane, &session).await?;
                "A new conversation begins.".to_owned()
            }
            "help" => help(),
            name => match command::named(format!("/{name} {words}").trim()) {
                Some((command, _)) if command.admin && !access.is_admin(said.user.id) => {
                    format!("/{name} is for admins, and you ({}) are none.", said.user.id)
                }
                Some((command, words)) if command.name == "export" => {
                    return Ok(self.export(said, turn, &session, words, access).await);
                }
                Some((command, words)) => match self.hub.session(&session).await {
                    Ok(session) => {
                        let lane = self.hold(&session);
                        self.hub.command(command, words, &session, Some(&lane)).await
                    }
                    Err(error) => error.to_string(),
                },
                None => format!("There is no /{name}.\n\n{}", help()),
            },
        };
        let reply = said.group.then_some(said.message);
        Ok(self.texts(said.spot, turn, format::plain(&told), reply, false))
    }

    /// Sends a conversation as a file. One that stays in the workspace, under a name of its own, is for admins.
    async fn export(
        &self,
        said: &Said,
        turn: &str,
        session: &str,
        words: &str,
        access: &Access,
    ) -> Vec<Parcel> {
        let reply = said.group.then_some(said.message);
        let file = match self.hub.session(session).await {
            Ok(_) if !words.is_empty() && !access.is_admin(said.user.id) => Err(format!(
                "Where it goes is for admins to say, and you ({}) are none; /export sends it.",
                said.user.id
            )),
            Ok(session) => self.hub.export(words, &session).await,
            Err(error) => Err(error.to_string()),
        };
        let told = match &file {
            Ok(file) => format!("the conversation is in `{}`", file.display()),
            Err(reason) => reason.clone(),
        };
        let mut parcels = self.texts(said.spot, turn, format::plain(&told), reply, false);
        let inside = file.ok().and_then(|file| file.strip_prefix(OUTPUT).map(Path::to_owned).ok());
        parcels.extend(inside.map(|path| {
            let body = Body::File { thread: said.spot.thread, reply, path };
            outbox::parcel(format!("{turn}.file.0"), said.spot.chat, turn, &body)
        }));
        parcels
    }

    /// The session a conversation is in.
    async fn session(&self, lane: &str) -> Result<String, Left> {
        Ok(self.mail.session(lane).await?.unwrap_or_else(|| self.first_session(lane)))
    }

    fn first_session(&self, lane: &str) -> String {
        self.sessions() + lane
    }

    /// What the ids of all its sessions begin with; the lane follows.
    pub(super) fn sessions(&self) -> String {
        format!("telegram.{}.", self.api.bot())
    }

    /// Has the assistant answer, and returns the answer.
    async fn turn(
        self: &Arc<Self>,
        lane: &str,
        letter: &str,
        said: &[Said],
        stop: &CancellationToken,
    ) -> Result<Vec<Parcel>, Left> {
        let first = &said[0];
        let reply = first.group.then_some(first.message);
        let plain = |told: &str| self.texts(first.spot, letter, format::plain(told), reply, false);
        let message = self.message(said).await;
        let session = self.session(lane).await?;
        self.hold(&session);
        let run = match self.begin(&session, letter, message, stop).await {
            Ok(run) => run,
            Err(hub::Error::Draining) => return Err(Left::Stopping),
            Err(error) => return Ok(plain(&error.to_string())),
        };
        self.running.lock().expect("no panic while held").insert(lane.to_owned(), run.clone());
        let finished = self.follow(&run, first, reply).await;
        self.running.lock().expect("no panic while held").remove(lane);
        for asked in self.questions.over(&run.id) {
            self.close(&asked, "This question is over.").await;
        }
        let Some((finished, astray)) = finished else {
            // The program ends, or the session is gone.
            return match stop.is_cancelled() || self.hub.is_draining() {
                true => Err(Left::Stopping),
                false => Ok(plain("This conversation was deleted before there was an answer.")),
            };
        };
        let grown = match self.mail.parcel(&format!("{}.0", run.id)).await? {
            None => Grown::No,
            Some(_) if astray => Grown::Astray,
            Some(_) => Grown::Yes,
        };
        let mut parcels = self.answer(first.spot, &run.id, &finished, reply, grown);
        parcels.extend(self.files(first.spot, &run.id, &finished.text, reply));
        Ok(parcels)
    }

    /// The files of the output folder that a text leads to.
    pub(super) fn files(&self, spot: Spot, turn: &str, text: &str, reply: Option<i32>) -> Vec<Parcel> {
        if !self.workspace.join(OUTPUT).is_dir() {
            return Vec::new();
        }
        let parcel = |(number, path)| {
            let body = Body::File { thread: spot.thread, reply, path };
            outbox::parcel(format!("{turn}.file.{number}"), spot.chat, turn, &body)
        };
        files::linked(text, &self.workspace).into_iter().enumerate().map(parcel).collect()
    }

    /// What was said, as a message for the assistant.
    async fn message(&self, said: &[Said]) -> Message {
        let (mut texts, mut parts) = (Vec::new(), Vec::new());
        for said in said {
            if let Some(quoted) = &said.quoted {
                let lines: Vec<_> = quoted.lines().map(|line| format!("> {line}")).collect();
                texts.push(lines.join("\n"));
            }
            let who = match said.group && self.config.shared_groups {
                true => format!("{}: ", said.user.name),
                false => String::new(),
            };
            if !said.text.is_empty() {
                texts.push(format!("{who}{}", said.text));
            }
            let (lines, pictures) = files::incoming(&self.api, &self.workspace, said).await;
            texts.extend(lines);
            parts.extend(pictures);
        }
        if texts.is_empty() {
            texts.push("(They said nothing but your name.)".to_owned());
        }
        parts.insert(0, Part::text(texts.join("\n")));
        Message::of(Role::User, parts)
    }

    /// Hands a message to the hub once there is room; the same letter gets the same run.
    async fn begin(
        &self,
        session: &str,
        letter: &str,
        message: Message,
        stop: &CancellationToken,
    ) -> Result<Run, hub::Error> {
        let session = self.hub.session(session).await?;
        let key = Key::new(self.mail.account(), letter, &Value::Null);
        loop {
            let order = Order {
                incoming: Incoming { session: Some(session.clone()), message: message.clone() },
                begins: false,
                asks: true,
                instructions: Some(INSTRUCTIONS.to_owned()),
                earlier: None,
                purse: None,
                patience: Some(self.patience() + ask::SLACK),
            };
            match self.hub.run(order, Some(key.clone())).await {
                Err(hub::Error::Full(_) | hub::Error::Busy) => tokio::select! {
                    () = tokio::time::sleep(ROOM) => {}
                    () = stop.cancelled() => return Err(hub::Error::Draining),
                },
                other => return other,
            }
        }
    }

    /// Shows what happens in a run until it is over.
    /// Returns its end, and whether what was shown of it may still change.
    async fn follow(
        self: &Arc<Self>,
        run: &Run,
        said: &Said,
        reply: Option<i32>,
    ) -> Option<(Finished, bool)> {
        let stage = Stage {
            api: self.api.clone(),
            pace: self.pace.clone(),
            outbox: self.outbox.clone(),
            mail: self.mail.clone(),
        };
        let mut live = Live::new(stage, said.spot, &run.id, reply);
        let mut tick = tokio::time::interval(TICK);
        let mut events = std::pin::pin!(run.events(0));
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                _ = tick.tick() => {
                    // Somebody is asked something, so nobody is writing.
                    if !self.questions.waits(&run.id) {
                        live.show().await;
                    }
                    continue;
                }
            };
            let Some(event) = event else { break };
            let event = json!(event);
            match event["type"].as_str().unwrap_or_default() {
                // It goes on after it was killed: what it had said is said anew.
                "turn.started" => live.begin(),
                "message.delta" => live.push(event["text"].as_str().unwrap_or_default()),
                "tool.started" if event["parent"].is_null() => {
                    live.works(event["tool"].as_str().unwrap_or_default());
                }
                "approval.requested" | "elicitation.requested" => self.wanted(event, said, run).await,
                _ => {}
            }
        }
        let astray = live.end().await;
        match run.finished().await {
            Ok(finished) => finished.map(|finished| (finished, astray)),
            Err(error) => {
                tracing::warn!("how a run ended is not known yet: {error}");
                None
            }
        }
    }

    /// An answer as what is sent.
    fn answer(
        &self,
        spot: Spot,
        turn: &str,
        finished: &Finished,
        reply: Option<i32>,
        grown: Grown,
    ) -> Vec<Parcel> {
        let mut texts = format::messages(&finished.text);
        let told = match finished.stop {
            StopReason::Answered | StopReason::Limit | StopReason::Loop if texts.is_empty() => {
                Some("There is nothing to say.".to_owned())
            }
            // Where a budget is used up, whoever reads it can do something about it.
            StopReason::Answered | StopReason::Limit | StopReason::Loop => {
                finished.error.as_ref().map(|reason| format!("({reason})"))
            }
            StopReason::Length => Some("(The model's limit for answers cut this off.)".to_owned()),
            StopReason::Cancelled => Some("(Stopped.)".to_owned()),
            StopReason::Unauthorized => {
                Some("I cannot answer: the model's provider refuses the key it was given.".to_owned())
            }
            StopReason::ModelFailed | StopReason::Exhausted | StopReason::Failed => {
                let reason = finished.error.as_deref().unwrap_or("the log says why");
                Some(format!("I cannot answer: {reason}"))
            }
        };
        texts.extend(told.into_iter().flat_map(|told| format::plain(&told)));
        let parcels = self.texts(spot, turn, texts, reply, self.config.feedback);
        let first = format!("{turn}.0");
        let sent = |id: &str, body: &Body| outbox::parcel(format!("{turn}.{id}"), spot.chat, turn, body);
        let ended = |mut parcel: Parcel| {
            if parcel.id == first
                && let Ok(Body::Text { message }) = serde_json::from_str(&parcel.body)
            {
                let body = match grown {
                    Grown::Yes => Body::Edit { of: first.clone(), message },
                    Grown::No | Grown::Astray => Body::Text { message },
                };
                parcel = sent("end", &body);
            }
            parcel
        };
        match grown {
            Grown::No => parcels,
            Grown::Yes => parcels.into_iter().map(ended).collect(),
            Grown::Astray => {
                let gone = sent("gone", &Body::Gone { of: first.clone() });
                std::iter::once(gone).chain(parcels.into_iter().map(ended)).collect()
            }
        }
    }

    /// Texts as what is sent, the first as a reply, with buttons to judge it under the last.
    pub(super) fn texts(
        &self,
        spot: Spot,
        turn: &str,
        texts: Vec<Text>,
        reply: Option<i32>,
        judged: bool,
    ) -> Vec<Parcel> {
        let count = texts.len();
        let parcel = |(number, text): (usize, Text)| {
            let buttons = (judged && number + 1 == count).then(|| question::thumbs(turn));
            let message = outbox::message(spot, text, reply.filter(|_| number == 0), buttons);
            let body = Body::Text { message: Box::new(message) };
            outbox::parcel(format!("{turn}.{number}"), spot.chat, turn, &body)
        };
        texts.into_iter().enumerate().map(parcel).collect()
    }

    pub(super) fn note(&self, spot: Spot, turn: &str, text: &str) -> Parcel {
        let text = Text { text: text.to_owned(), entities: Vec::new() };
        let body = Body::Text { message: Box::new(outbox::message(spot, text, None, None)) };
        outbox::parcel(format!("{turn}.note"), spot.chat, turn, &body)
    }

    /// Ends the run of a lane, if one goes on.
    async fn stop(&self, lane: &str) -> &'static str {
        let run = self.running.lock().expect("no panic while held").get(lane).cloned();
        match run {
            Some(run) => match run.cancel().await {
                Ok(()) => "Stopped.",
                Err(_) => "It cannot be stopped at the moment.",
            },
            None => "There is nothing to stop.",
        }
    }

    /// A button was pressed.
    async fn pressed(self: &Arc<Self>, pressed: &Pressed, access: &Access) -> Result<(), Left> {
        let told = match question::pressed(&pressed.data) {
            Some(Button::Answer(name, consent)) => self.consented(&name, consent, pressed, access).await,
            Some(Button::Pick(name, reply)) => self.picked(&name, reply, pressed, access).await,
            Some(Button::Verdict(turn, good)) => self.verdict(&turn, good, pressed, access).await?,
            None => "This button is of another time.".to_owned(),
        };
        let parameters =
            AnswerCallbackQueryParams::builder().callback_query_id(&pressed.id).text(told).build();
        let (api, pace) = (self.api.clone(), self.pace.clone());
        // The sign that it was seen; a button that goes on spinning harms nobody.
        tokio::spawn(async move {
            let _leave = pace.call().await;
            let told = api.call::<Value>("answerCallbackQuery", &parameters).await;
            told.inspect_err(|error| tracing::debug!("a press is not acknowledged: {error}"))
        });
        Ok(())
    }

    async fn verdict(
        &self,
        turn: &str,
        good: bool,
        pressed: &Pressed,
        access: &Access,
    ) -> Result<String, Left> {
        let Some((spot, message)) = pressed.at else { return Ok("This answer is too old.".to_owned()) };
        let sent = self.mail.sent(spot.chat, message.into()).await?;
        if !access.admits(spot, pressed.user.id) || sent.is_none_or(|sent| sent.parcel.turn != turn) {
            return Ok("This is not yours to judge.".to_owned());
        }
        self.judge(turn, good).await;
        let parameters =
            EditMessageReplyMarkupParams::builder().chat_id(spot.chat).message_id(message).build();
        let (api, pace) = (self.api.clone(), self.pace.clone());
        tokio::spawn(async move {
            let _leave = pace.speak(spot.chat).await;
            let _ = api.call::<Value>("editMessageReplyMarkup", &parameters).await;
        });
        Ok(if good {
            "Thank you, I remember what helped."
        } else {
            "Thank you, I remember that it did not help."
        }
        .to_owned())
    }

    async fn judge(&self, turn: &str, good: bool) {
        if let Err(error) = self.hub.judge_turn(turn, good).await {
            tracing::warn!("a verdict is not kept: {error}");
        }
    }
}

/// What the model is told of where it is; the same in every turn.
const INSTRUCTIONS: &str = "You talk with people on Telegram: be brief, and write markdown without wide tables. Files that \
    people send are in the folder `inbox` of the workspace. To send a file, put it into the folder `output` of the \
    workspace and link to it in your answer: [name](output/name).";

fn help() -> String {
    let own = OWN.iter().map(|(name, about)| format!("/{name}: {about}"));
    let common = command::COMMANDS.iter().map(|command| command.to_string());
    common.chain(own).collect::<Vec<_>>().join("\n")
}
