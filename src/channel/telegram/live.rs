//! An answer while it is written: a draft in a private chat, a message that is edited in a group.
//!
//! Nothing of this is needed for the answer to arrive; what fails here is left out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use frankenstein::methods::{SendChatActionParams, SendMessageDraftParams, SendMessageParams};
use frankenstein::types::ChatAction;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::api::{Api, Error};
use super::format::{self, Text};
use super::outbox::{self, Body, Outbox};
use super::pace::Pace;
use super::update::Spot;
use crate::store::mail::Mail;

/// Between two drafts, and between two signs that somebody is writing, which fade after five seconds.
const DRAFT: Duration = Duration::from_millis(1000);
const TYPING: Duration = Duration::from_millis(4500);
/// What takes longer than this in a group is shown while it is written.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long one of these calls may take.
const CALL: Duration = Duration::from_secs(5);

/// What all answers are shown with.
#[derive(Clone)]
pub struct Stage {
    /// The bot.
    pub api: Arc<Api>,
    /// Its limits.
    pub pace: Arc<Pace>,
    /// Its post.
    pub outbox: Arc<Outbox>,
    /// Its mail.
    pub mail: Mail,
}

/// An answer that is written.
pub struct Live {
    stage: Stage,
    spot: Spot,
    turn: String,
    reply: Option<i32>,
    text: String,
    tool: Option<String>,
    began: Instant,
    shown: String,
    next: Instant,
    typed: Instant,
    /// An edit may have been done, or may still be: it could come after the last one.
    astray: Arc<AtomicBool>,
    /// One call at a time.
    showing: Option<JoinHandle<Option<Duration>>>,
}

impl Live {
    /// An answer in this place to this message.
    pub fn new(stage: Stage, spot: Spot, turn: &str, reply: Option<i32>) -> Self {
        let now = Instant::now();
        Self {
            stage,
            spot,
            turn: turn.to_owned(),
            reply,
            text: String::new(),
            tool: None,
            began: now,
            shown: String::new(),
            next: now,
            typed: now - TYPING,
            astray: Arc::default(),
            showing: None,
        }
    }

    /// It begins, or begins anew.
    pub fn begin(&mut self) {
        self.text.clear();
        self.tool = None;
    }

    /// A piece of it.
    pub fn push(&mut self, text: &str) {
        self.tool = None;
        self.text.push_str(text);
    }

    /// A tool works.
    pub fn works(&mut self, tool: &str) {
        self.tool = Some(tool.to_owned());
        if !self.text.is_empty() && !self.text.ends_with("\n\n") {
            self.text.push_str("\n\n");
        }
    }

    /// Shows what there is, if it is time.
    pub async fn show(&mut self) {
        let now = Instant::now();
        if let Some(showing) = self.showing.take_if(|showing| showing.is_finished())
            && let Ok(Some(wait)) = showing.await
        {
            // What was not shown is still to be.
            self.shown.clear();
            self.next = now + wait;
        }
        if self.showing.is_some() || now < self.next {
            return;
        }
        let Some(text) = self.news() else { return self.typing(now) };
        let (stage, spot) = (self.stage.clone(), self.spot);
        if spot.chat > 0 {
            self.next = now + DRAFT;
            let draft = draft(spot, &self.turn, text);
            self.showing = Some(tokio::spawn(async move {
                let Some(_leave) = stage.pace.spare() else { return Some(DRAFT) };
                let shown = stage.api.patiently("sendMessageDraft", &draft, CALL).await;
                pause(shown.map(|_: serde_json::Value| ()))
            }));
        } else if now.duration_since(self.began) > PATIENCE {
            self.next = now + DRAFT;
            let (turn, astray) = (self.turn.clone(), self.astray.clone());
            let message = outbox::message(spot, text, self.reply, None);
            self.showing =
                Some(tokio::spawn(async move { edit(&stage, spot, &turn, message, &astray).await }));
        } else {
            self.shown.clear();
            self.typing(now);
        }
    }

    /// What is to be seen, if it is not seen yet.
    fn news(&mut self) -> Option<Text> {
        let mut markdown = self.text.clone();
        if let Some(tool) = &self.tool {
            markdown.push_str(&format!("\n\n⚙ `{}`…", tool.replace('`', "'")));
        }
        if markdown.trim().is_empty() || markdown == self.shown {
            return None;
        }
        self.shown = markdown;
        // In a group the first message grows; what comes after it waits for the end.
        let mut messages = format::messages(&self.shown);
        if self.spot.chat > 0 { messages.pop() } else { messages.into_iter().next() }
    }

    fn typing(&mut self, now: Instant) {
        if now.duration_since(self.typed) < TYPING {
            return;
        }
        self.typed = now;
        let (stage, spot) = (self.stage.clone(), self.spot);
        let parameters = SendChatActionParams::builder()
            .chat_id(spot.chat)
            .maybe_message_thread_id(spot.thread)
            .action(ChatAction::Typing)
            .build();
        self.showing = Some(tokio::spawn(async move {
            let _leave = stage.pace.spare()?;
            pause(
                stage.api.patiently("sendChatAction", &parameters, CALL).await.map(|_: serde_json::Value| ()),
            )
        }));
    }

    /// Waits until nothing is on its way: what comes after must not be overtaken. Returns whether it could be: of an
    /// edit that had no answer nobody knows when it is done.
    pub async fn end(&mut self) -> bool {
        if let Some(showing) = self.showing.take() {
            let _ = showing.await;
        }
        self.astray.load(Ordering::SeqCst)
    }
}

/// How long to show nothing after this.
fn pause(shown: Result<(), Error>) -> Option<Duration> {
    match shown {
        Ok(()) => None,
        Err(Error::Refused(refusal)) => Some(refusal.after.unwrap_or(Duration::from_secs(30))),
        Err(_) => Some(CALL),
    }
}

fn draft(spot: Spot, turn: &str, text: Text) -> SendMessageDraftParams {
    // Any number but 0, the same for all drafts of an answer.
    let number = uuid::Uuid::parse_str(turn).map_or(1, |turn| turn.as_u128() as u32 >> 1 | 1);
    SendMessageDraftParams::builder()
        .chat_id(spot.chat)
        .maybe_message_thread_id(spot.thread)
        .draft_id(i32::try_from(number).unwrap_or(1))
        .text(text.text)
        .maybe_entities(Some(text.entities).filter(|entities| !entities.is_empty()))
        .can_stop(true)
        .build()
}

/// The message of a group that grows; it is sent like every other, and edited when it has arrived. Returns how long to
/// wait if it does not show this yet.
async fn edit(
    stage: &Stage,
    spot: Spot,
    turn: &str,
    message: SendMessageParams,
    astray: &AtomicBool,
) -> Option<Duration> {
    let id = format!("{turn}.0");
    let posted = stage.mail.parcel(&id).await.ok()?;
    let Some(posted) = posted else {
        let body = Body::Text { message: Box::new(message) };
        stage.outbox.post(&[outbox::parcel(id, spot.chat, turn, &body)]).await.ok()?;
        return None;
    };
    if posted.message == 0 {
        return Some(DRAFT);
    }
    let Some(mut leave) = stage.pace.perhaps(spot.chat) else { return Some(DRAFT) };
    let edit = outbox::edit(&message, posted.message);
    let edited = stage.api.patiently("editMessageText", &edit, CALL).await.map(|_: serde_json::Value| ());
    let edited = match edited {
        Err(error) if error.says(400, "not modified") => Ok(()),
        other => other,
    };
    if matches!(edited, Err(Error::Unclear(_))) {
        astray.store(true, Ordering::SeqCst);
    }
    let pause = pause(edited);
    if let Some(wait) = pause {
        leave.refused(wait);
    }
    pause
}
