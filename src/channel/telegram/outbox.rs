//! What goes out: kept until it has arrived, in order in each chat, and there once.
//!
//! Telegram has no key that makes a second sending harmless. A parcel is therefore marked before it
//! goes; one that is found marked may have arrived, and is looked for: messages in a place are
//! numbered, so it has one of the next numbers, and only a message of ours answers an edit that changes
//! nothing with "not modified". What is not there is sent again.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use frankenstein::methods::{
    DeleteMessageParams, EditMessageReplyMarkupParams, EditMessageTextParams, SendMessageParams,
};
use frankenstein::types::{ChatId, InlineKeyboardMarkup, LinkPreviewOptions, ReplyMarkup, ReplyParameters};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::api::{Api, Error};
use super::files;
use super::format::Text;
use super::pace::Pace;
use super::update::{Spot, place};
use crate::store;
use crate::store::mail::{Mail, Parcel, Posted, State};

/// Numbers a parcel may have got, beyond the newest that was known.
const SEARCHED: i64 = 32;
/// How long a message may be on its way whose sender is gone: only then is it looked for.
const SETTLED: Duration = Duration::from_secs(3);
/// How long something is tried that cannot be delivered.
const KEPT: SignedDuration = SignedDuration::from_hours(24);
/// Between two tries, at first and at last.
const FIRST: Duration = Duration::from_secs(1);
const LAST: Duration = Duration::from_secs(60);
/// How often the pile is looked at though nobody has said that there is something.
const LOOK: Duration = Duration::from_secs(5);

/// What a parcel says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Body {
    /// A message.
    Text {
        /// All of it.
        message: Box<SendMessageParams>,
    },
    /// Another text for the message that a parcel before became.
    Edit {
        /// That parcel.
        of: String,
        /// The text; a message of its own where there is no other.
        message: Box<SendMessageParams>,
    },
    /// The message that a parcel before became goes.
    Gone {
        /// That parcel.
        of: String,
    },
    /// A file of the output folder.
    File {
        /// The topic it goes to.
        thread: Option<i32>,
        /// The message it answers.
        reply: Option<i32>,
        /// Its place in that folder.
        path: PathBuf,
    },
}

/// The number of a message that was sent.
#[derive(Debug, Deserialize)]
struct Numbered {
    message_id: i64,
}

/// What came of one try.
enum Outcome {
    /// It is off the pile.
    Done,
    /// Once more, at once: it was written anew, or the server named the time to wait.
    Again,
    /// Once more, after a while.
    Later,
}

/// The post.
pub struct Outbox {
    api: Arc<Api>,
    mail: Mail,
    pace: Arc<Pace>,
    /// The folder files may be sent from.
    output: PathBuf,
    /// The newest message that is known in each place.
    newest: Mutex<HashMap<String, i64>>,
    /// Chats that somebody is at.
    busy: Mutex<HashSet<i64>>,
    posted: Notify,
}

impl Outbox {
    /// The post of a bot.
    pub async fn new(
        api: Arc<Api>,
        mail: Mail,
        pace: Arc<Pace>,
        output: PathBuf,
    ) -> Result<Arc<Self>, store::Error> {
        let newest = Mutex::new(mail.newest().await?);
        let (busy, posted) = (Mutex::default(), Notify::new());
        Ok(Arc::new(Self { api, mail, pace, output, newest, busy, posted }))
    }

    /// Takes note of a message that was seen.
    pub fn saw(&self, place: &str, message: i64) {
        let mut newest = self.newest.lock().expect("no panic while held");
        let known = newest.entry(place.to_owned()).or_insert(message);
        *known = message.max(*known);
    }

    /// Something is to be sent.
    pub fn hurry(&self) {
        self.posted.notify_one();
    }

    /// Keeps parcels and sends them.
    pub async fn post(&self, parcels: &[Parcel]) -> Result<(), store::Error> {
        self.mail.post(parcels, Timestamp::now()).await?;
        self.hurry();
        Ok(())
    }

    /// Delivers until it is told to stop; what is on its way then is waited for.
    pub async fn run(self: &Arc<Self>, stop: CancellationToken) {
        let mut carriers = JoinSet::new();
        while !stop.is_cancelled() {
            match self.mail.chats().await {
                Ok(chats) => {
                    for chat in chats {
                        if self.busy.lock().expect("no panic while held").insert(chat) {
                            let (outbox, stop) = (self.clone(), stop.clone());
                            carriers.spawn(async move { outbox.carry(chat, &stop).await });
                        }
                    }
                }
                Err(error) => tracing::warn!("the outbox cannot be read: {error}"),
            }
            while carriers.try_join_next().is_some() {}
            tokio::select! {
                () = self.posted.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
                () = stop.cancelled() => {}
            }
        }
        while carriers.join_next().await.is_some() {}
    }

    /// Waits until nothing is to be sent any more, or nothing can be at the moment.
    pub async fn emptied(&self, patience: Duration) {
        let empty = async {
            while !self.mail.chats().await.is_ok_and(|chats| chats.is_empty()) {
                self.hurry();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        // What is left is sent after the next start.
        let _ = tokio::time::timeout(patience, empty).await;
    }

    /// Delivers what there is for a chat, one by one.
    async fn carry(&self, chat: i64, stop: &CancellationToken) {
        let _at_it = AtIt { outbox: self, chat };
        let mut wait = FIRST;
        while !stop.is_cancelled() {
            let outcome = match self.mail.next(chat).await {
                Ok(None) => return,
                Ok(Some(posted)) => self.deliver(&posted).await,
                Err(error) => Err(error),
            };
            match outcome {
                Ok(Outcome::Done | Outcome::Again) => wait = FIRST,
                Ok(Outcome::Later) | Err(_) => {
                    if let Err(error) = outcome {
                        tracing::warn!("what is to be sent cannot be read or marked: {error}");
                    }
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = stop.cancelled() => {}
                    }
                    wait = (wait * 2).min(LAST);
                }
            }
        }
    }

    async fn deliver(&self, posted: &Posted) -> Result<Outcome, store::Error> {
        let parcel = &posted.parcel;
        let Ok(body) = serde_json::from_str::<Body>(&parcel.body) else {
            return self.fail(parcel, "it cannot be read").await;
        };
        if Timestamp::now().duration_since(posted.created) > KEPT {
            return self.fail(parcel, "it could not be delivered in a day").await;
        }
        if posted.state == State::Sending {
            tokio::time::sleep(SETTLED).await;
            match self.look(posted, &body).await? {
                Looked::There(message) => return self.arrived(parcel, message).await,
                Looked::Nowhere => {}
                Looked::Unknown => return Ok(Outcome::Later),
            }
        }
        let mut leave = self.pace.speak(parcel.chat).await;
        let newest = self.newest.lock().expect("no panic while held").get(&parcel.place).copied();
        self.mail.set(&parcel.id, State::Sending, newest.unwrap_or(0)).await?;
        let sent = self.send(parcel, &body).await;
        if let Some(after) = sent.as_ref().err().and_then(|error| error.refusal()?.after) {
            leave.refused(after);
        }
        drop(leave);
        match sent {
            Ok(message) => self.arrived(parcel, message).await,
            Err(error) => self.returned(parcel, body, &error).await,
        }
    }

    async fn arrived(&self, parcel: &Parcel, message: i64) -> Result<Outcome, store::Error> {
        self.saw(&parcel.place, message);
        self.mail.set(&parcel.id, State::Sent, message).await?;
        Ok(Outcome::Done)
    }

    async fn fail(&self, parcel: &Parcel, reason: &str) -> Result<Outcome, store::Error> {
        tracing::warn!(chat = parcel.chat, "a message is given up: {reason}");
        self.mail.set(&parcel.id, State::Failed, 0).await?;
        Ok(Outcome::Done)
    }

    /// Sends it; returns the number of its message.
    async fn send(&self, parcel: &Parcel, body: &Body) -> Result<i64, Error> {
        let (message, number) = match body {
            Body::Text { message } => (message, None),
            Body::Edit { of, message } => (message, self.became(of).await),
            Body::Gone { of } => return self.delete(parcel.chat, of).await,
            Body::File { thread, reply, path } => {
                return self.upload(parcel.chat, *thread, *reply, path).await;
            }
        };
        // The chat may have got another number since it was written.
        let message =
            SendMessageParams { chat_id: ChatId::Integer(parcel.chat), ..SendMessageParams::clone(message) };
        let Some(number) = number else {
            return Ok(self.api.call::<Numbered>("sendMessage", &message).await?.message_id);
        };
        match self.api.call::<serde_json::Value>("editMessageText", &edit(&message, number)).await {
            Ok(_) => Ok(number),
            Err(error) if error.says(400, "not modified") => Ok(number),
            Err(error) => Err(error),
        }
    }

    /// Takes the message away that a parcel became; it has no number then.
    async fn delete(&self, chat: i64, of: &str) -> Result<i64, Error> {
        let Some(message) = self.became(of).await.and_then(|message| i32::try_from(message).ok()) else {
            return Ok(0);
        };
        let parameters = DeleteMessageParams::builder().chat_id(chat).message_id(message).build();
        match self.api.call::<serde_json::Value>("deleteMessage", &parameters).await {
            Err(error) if !error.says(400, "not found") => Err(error),
            _ => Ok(0),
        }
    }

    /// The message that a parcel became.
    async fn became(&self, parcel: &str) -> Option<i64> {
        let posted = self.mail.parcel(parcel).await.ok()??;
        Some(posted.message).filter(|message| *message != 0)
    }

    async fn upload(
        &self,
        chat: i64,
        thread: Option<i32>,
        reply: Option<i32>,
        path: &std::path::Path,
    ) -> Result<i64, Error> {
        let refused = |reason: String| {
            Error::Refused(super::api::Refusal { code: 0, reason, after: None, moved: None })
        };
        let file = files::outgoing(&self.output, path).map_err(refused)?;
        let mut fields = vec![("chat_id", chat.to_string())];
        fields.extend(thread.map(|thread| ("message_thread_id", thread.to_string())));
        fields.extend(reply.map(|reply| ("reply_parameters", to_json(&replying(reply)))));
        let (method, field) = if file.photo { ("sendPhoto", "photo") } else { ("sendDocument", "document") };
        let sent = self.api.upload::<Numbered>(method, &fields, (field, &file.name, file.bytes)).await;
        Ok(sent?.message_id)
    }

    /// What becomes of a parcel that came back.
    async fn returned(&self, parcel: &Parcel, body: Body, error: &Error) -> Result<Outcome, store::Error> {
        let Error::Refused(refusal) = error else {
            tracing::info!(chat = parcel.chat, "a message is tried again: {error}");
            if matches!(error, Error::Unreached(_)) {
                self.mail.set(&parcel.id, State::Waits, 0).await?;
            }
            return Ok(Outcome::Later);
        };
        if refusal.after.is_some() || refusal.code == 429 {
            self.mail.set(&parcel.id, State::Waits, 0).await?;
            return Ok(Outcome::Again);
        }
        if let Some(to) = refusal.moved {
            self.mail.set(&parcel.id, State::Waits, 0).await?;
            self.mail.moved(parcel.chat, to, &place(to)).await?;
            self.hurry();
            return Ok(Outcome::Again);
        }
        if matches!(refusal.code, 401 | 404) {
            self.mail.set(&parcel.id, State::Waits, 0).await?;
            return Ok(Outcome::Later);
        }
        match simpler(body, error) {
            Some(body) => {
                tracing::info!(chat = parcel.chat, "a message is written in another way: {error}");
                self.mail.rewrite(&parcel.id, &to_json(&body)).await?;
                self.mail.set(&parcel.id, State::Waits, 0).await?;
                Ok(Outcome::Again)
            }
            None => self.fail(parcel, &error.to_string()).await,
        }
    }

    /// Looks for a message that may have arrived.
    async fn look(&self, posted: &Posted, body: &Body) -> Result<Looked, store::Error> {
        let markup = match body {
            // An edit does no harm when it is done again.
            Body::Edit { of, .. } if self.became(of).await.is_some() => return Ok(Looked::Nowhere),
            Body::Gone { .. } => return Ok(Looked::Nowhere),
            Body::Edit { message, .. } | Body::Text { message } => keyboard(message),
            Body::File { .. } => None,
        };
        let chat = posted.parcel.chat;
        for number in posted.after + 1..=posted.after + SEARCHED {
            let Ok(message_id) = i32::try_from(number) else { break };
            if self.mail.sent(chat, number).await?.is_some() {
                continue;
            }
            let parameters = EditMessageReplyMarkupParams::builder()
                .chat_id(chat)
                .message_id(message_id)
                .maybe_reply_markup(markup.clone())
                .build();
            let _leave = self.pace.call().await;
            match self.api.call::<serde_json::Value>("editMessageReplyMarkup", &parameters).await {
                Ok(_) => return Ok(Looked::There(number)),
                Err(error) if error.says(400, "not modified") => return Ok(Looked::There(number)),
                Err(error) if error.says(400, "message") => {}
                Err(Error::Refused(refusal)) if refusal.after.is_none() => return Ok(Looked::Nowhere),
                Err(Error::Refused(refusal)) => {
                    tokio::time::sleep(refusal.after.unwrap_or(FIRST)).await;
                    return Ok(Looked::Unknown);
                }
                Err(_) => return Ok(Looked::Unknown),
            }
        }
        Ok(Looked::Nowhere)
    }
}

enum Looked {
    There(i64),
    Nowhere,
    Unknown,
}

/// Whoever is at a chat leaves it.
struct AtIt<'a> {
    outbox: &'a Outbox,
    chat: i64,
}

impl Drop for AtIt<'_> {
    fn drop(&mut self) {
        self.outbox.busy.lock().expect("no panic while held").remove(&self.chat);
        // Something may have come meanwhile.
        self.outbox.hurry();
    }
}

/// The same with less, where that may help; `None` where it will not.
fn simpler(body: Body, error: &Error) -> Option<Body> {
    let known = |words: &str| error.says(400, words);
    match body {
        Body::Edit { message, .. } if known("message to edit") || known("can't be edited") => {
            Some(Body::Text { message })
        }
        Body::Text { mut message } => {
            simpler_message(&mut message, error)?;
            Some(Body::Text { message })
        }
        Body::Edit { of, mut message } => {
            simpler_message(&mut message, error)?;
            Some(Body::Edit { of, message })
        }
        Body::File { thread: Some(_), reply, path } if known("thread not found") => {
            Some(Body::File { thread: None, reply, path })
        }
        Body::File { .. } | Body::Gone { .. } => None,
    }
}

fn simpler_message(message: &mut SendMessageParams, error: &Error) -> Option<()> {
    if error.says(400, "thread not found") {
        return message.message_thread_id.take().map(drop);
    }
    if error.says(400, "repl") {
        return message.reply_parameters.take().map(drop);
    }
    if error.refusal().is_none_or(|refusal| refusal.code != 400) || error.says(400, "chat not found") {
        return None;
    }
    // Whatever it does not like about the text, it will like it plain.
    message.entities.take().map(drop)
}

/// A message, ready to be sent.
pub fn message(
    spot: Spot,
    text: Text,
    reply: Option<i32>,
    buttons: Option<InlineKeyboardMarkup>,
) -> SendMessageParams {
    let previews = LinkPreviewOptions::builder().is_disabled(true).build();
    SendMessageParams::builder()
        .chat_id(spot.chat)
        .maybe_message_thread_id(spot.thread)
        .text(text.text)
        .maybe_entities(Some(text.entities).filter(|entities| !entities.is_empty()))
        .link_preview_options(previews)
        .maybe_reply_parameters(reply.map(replying))
        .maybe_reply_markup(buttons.map(ReplyMarkup::InlineKeyboardMarkup))
        .build()
}

/// The edit that makes a message this one.
pub fn edit(message: &SendMessageParams, number: i64) -> EditMessageTextParams {
    EditMessageTextParams::builder()
        .chat_id(message.chat_id.clone())
        .message_id(i32::try_from(number).unwrap_or(0))
        .text(message.text.clone())
        .maybe_entities(message.entities.clone())
        .maybe_link_preview_options(message.link_preview_options.clone())
        .maybe_reply_markup(keyboard(message))
        .build()
}

/// The parcel with this in it.
pub fn parcel(id: String, chat: i64, turn: &str, body: &Body) -> Parcel {
    Parcel { id, chat, place: place(chat), turn: turn.to_owned(), body: to_json(body) }
}

fn keyboard(message: &SendMessageParams) -> Option<InlineKeyboardMarkup> {
    match &message.reply_markup {
        Some(ReplyMarkup::InlineKeyboardMarkup(keyboard)) => Some(keyboard.clone()),
        _ => None,
    }
}

fn replying(message: i32) -> ReplyParameters {
    ReplyParameters::builder().message_id(message).allow_sending_without_reply(true).build()
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("keys are texts and numbers are JSON's own")
}
