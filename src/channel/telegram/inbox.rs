//! What comes in: asked for, kept, and only then acknowledged.
//!
//! The next question to Telegram names the update it has got to, which is what acknowledges all before
//! it. That number is stored with the updates, in one transaction. Whether Telegram is there is said by
//! one thing alone: when it last answered this question.

use std::sync::Arc;
use std::time::{Duration, Instant};

use frankenstein::methods::GetUpdatesParams;
use frankenstein::types::AllowedUpdate;
use frankenstein::updates::Update;
use jiff::Timestamp;
use serde_json::Value;

use super::Telegram;
use super::access::Access;
use super::api::{CALL, Error};
use super::outbox::{self, Body};
use super::update::{self, Heard, Me, Said, place};
use crate::store;
use crate::store::mail::Letter;

/// How much longer than it was asked to Telegram may take.
const SLACK: Duration = Duration::from_secs(10);
/// Between two tries, at first and at last; when the token is refused, or somebody else asks.
const FIRST: Duration = Duration::from_secs(1);
const LAST: Duration = Duration::from_secs(30);
const REFUSED: Duration = Duration::from_secs(60);
const CONFLICT: Duration = Duration::from_secs(10);
/// How often it is written down that Telegram answers, when there is nothing else to write.
const NOTE: Duration = Duration::from_secs(60);

/// What Telegram is to tell.
pub const WANTED: [AllowedUpdate; 4] = [
    AllowedUpdate::Message,
    AllowedUpdate::CallbackQuery,
    AllowedUpdate::MessageReaction,
    AllowedUpdate::StoppedMessageGeneration,
];

/// The lane of what is done at once, whatever else goes on.
pub const AT_ONCE: &str = "";

impl Telegram {
    /// Asks for updates for ever.
    pub(super) async fn poll(self: &Arc<Self>, me: &Me) {
        let patience = Duration::from_secs_f64(self.config.poll);
        let (mut failures, mut noted) = (0u32, None::<Instant>);
        loop {
            let next = match self.mail.cursor().await {
                Ok(cursor) => cursor.next,
                Err(error) => {
                    tracing::warn!("the inbox cannot be read: {error}");
                    tokio::time::sleep(FIRST).await;
                    continue;
                }
            };
            let parameters = GetUpdatesParams::builder()
                .offset(next)
                .timeout(patience.as_secs() as u32)
                .allowed_updates(WANTED.to_vec())
                .build();
            let heard = self.api.patiently::<Vec<Value>>("getUpdates", &parameters, patience + SLACK).await;
            let wait = match heard {
                Ok(updates) => {
                    failures = 0;
                    self.well();
                    let silent = updates.is_empty() && noted.is_some_and(|noted| noted.elapsed() < NOTE);
                    match if silent { Ok(()) } else { self.keep(&updates, next, me).await } {
                        Ok(()) => {
                            if !silent {
                                noted = Some(Instant::now());
                            }
                            continue;
                        }
                        Err(error) => {
                            self.unwell(&format!("what came in cannot be kept: {error}"));
                            FIRST
                        }
                    }
                }
                Err(error) => {
                    failures += 1;
                    if failures % 2 == 0 {
                        self.api.renew();
                    }
                    self.unwell(&explained(&error));
                    pause(&error, failures)
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Keeps updates, and from where the next ones are asked for.
    async fn keep(self: &Arc<Self>, updates: &[Value], next: i64, me: &Me) -> Result<(), store::Error> {
        let mut letters = Vec::new();
        let last = updates.iter().filter_map(|update| update["update_id"].as_i64()).max();
        let mut access = Access::read(&self.config, &self.mail).await?;
        for raw in updates {
            // One update in a form that is not known must not keep the others.
            let update = match serde_json::from_value::<Update>(raw.clone()) {
                Ok(update) => update,
                Err(error) => {
                    tracing::info!("an update is left out: {error}");
                    continue;
                }
            };
            match update::read(&update, me) {
                // What comes after it is from there.
                Some(Heard::Moved { from, to }) => {
                    self.mail.moved(from, to, &place(to)).await?;
                    access = Access::read(&self.config, &self.mail).await?;
                }
                Some(heard) => {
                    // Also what is not for us takes a number.
                    if let Heard::Said(said) = &heard {
                        self.outbox.saw(&place(said.spot.chat), said.message.into());
                    }
                    letters.extend(self.letter(raw, &heard, &access).await?);
                }
                None => {}
            }
        }
        let next = last.map_or(next, |last| last + 1);
        self.mail.take(&letters, next, Timestamp::now()).await?;
        if !letters.is_empty() {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Takes one update that Telegram has brought by itself.
    pub(super) async fn brought(self: &Arc<Self>, update: &Value, me: &Me) -> Result<(), store::Error> {
        self.keep(std::slice::from_ref(update), 0, me).await?;
        self.well();
        Ok(())
    }

    /// An update as a letter; `None` for what nobody may say.
    async fn letter(
        &self,
        raw: &Value,
        heard: &Heard,
        access: &Access,
    ) -> Result<Option<Letter>, store::Error> {
        let Some(id) = raw["update_id"].as_i64() else { return Ok(None) };
        let (lane, chat, message, bundle) = match heard {
            Heard::Said(said) if !access.admits(said.spot, said.user.id) => {
                let told = self.strangers.meet(said, &self.mail, Instant::now()).await?;
                if let Some(told) = told {
                    let text = super::format::plain(&told).into_iter().next().unwrap_or_default();
                    let message = Box::new(outbox::message(said.spot, text, None, None));
                    let body = Body::Text { message };
                    self.outbox
                        .post(&[outbox::parcel(format!("met.{id}"), said.spot.chat, "", &body)])
                        .await?;
                }
                return Ok(None);
            }
            Heard::Said(said) => {
                if said.foreign || (!said.addressed && said.bundle.is_none()) {
                    return Ok(None);
                }
                let at_once = stops(said) || self.asks(said, access).await?.is_some();
                let lane = if at_once { AT_ONCE.to_owned() } else { self.lane(said) };
                (lane, said.spot.chat, said.message, said.bundle.clone())
            }
            Heard::Pressed(pressed) => {
                let chat = pressed.at.map_or(0, |(spot, _)| spot.chat);
                (AT_ONCE.to_owned(), chat, 0, None)
            }
            Heard::Judged(judged) => (AT_ONCE.to_owned(), judged.chat, 0, None),
            Heard::Stopped(spot) => (AT_ONCE.to_owned(), spot.chat, 0, None),
            Heard::Moved { .. } => return Ok(None),
        };
        Ok(Some(Letter {
            id,
            lane,
            bundle: bundle.unwrap_or_default(),
            place: place(chat),
            message: message.into(),
            turn: uuid::Uuid::now_v7().to_string(),
            body: raw.to_string(),
        }))
    }

    fn well(&self) {
        if self.trouble.send_if_modified(|trouble| trouble.take().is_some()) {
            tracing::info!("Telegram answers again");
        }
    }

    fn unwell(&self, reason: &str) {
        let news =
            |trouble: &mut Option<String>| trouble.replace(reason.to_owned()).as_deref() != Some(reason);
        if self.trouble.send_if_modified(news) {
            tracing::warn!("nothing is heard from Telegram: {reason}");
        }
    }
}

/// Whether a message is the word that ends an answer.
pub fn stops(said: &Said) -> bool {
    said.command.as_ref().is_some_and(|(name, _)| name == "stop")
}

/// What a person reads who wants to know why nothing comes.
pub fn explained(error: &Error) -> String {
    if error.says(409, "webhook") {
        return "a webhook is set for this bot, so it cannot be asked for news; `omni channel unhook` takes it away"
            .to_owned();
    }
    match error.refusal().map(|refusal| refusal.code) {
        Some(409) => {
            "another program asks for the news of this bot; stop it, or make a bot of its own for each \
                      at @BotFather"
                .to_owned()
        }
        Some(401 | 404) => {
            "the token is refused; @BotFather on Telegram shows the one that is good, for `telegram.token`"
                .to_owned()
        }
        _ => error.to_string(),
    }
}

/// How long to wait after this.
fn pause(error: &Error, failures: u32) -> Duration {
    match error.refusal() {
        Some(refusal) if refusal.after.is_some() => {
            refusal.after.unwrap_or(CALL).min(Duration::from_secs(600))
        }
        Some(refusal) if matches!(refusal.code, 401 | 404) => REFUSED,
        Some(refusal) if refusal.code == 409 => CONFLICT,
        _ => {
            let longest = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(5)).min(LAST);
            // Many bots of one network come back at the same moment.
            longest.mul_f64(0.5 + f64::from(uuid::Uuid::new_v4().as_bytes()[0]) / 512.0)
        }
    }
}
