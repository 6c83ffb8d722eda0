//! Asking people: a question is put, answered by somebody who may, or over.
//!
//! A question dies with the process that has asked it, because the call that waits does. What is left of it in the chat
//! is closed when its run goes on.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::Telegram;
use super::access::Access;
use super::form::{self, Form, Reply};
use super::outbox::{self, Body};
use super::question::{self, Asked, Sheet, What};
use super::update::{Person, Pressed, Said};
use crate::hub::run::{self, Run};
use crate::message::event::Consent;
use crate::store;
use crate::store::mail::State;

/// How much longer than here a question waits in its run, so that here is where it ends.
pub const SLACK: Duration = Duration::from_secs(5);
/// How long an answer to a question waits for the question to have arrived.
const ARRIVAL: Duration = Duration::from_secs(2);
/// Letters of an answer that are shown under its question.
const SHOWN: usize = 80;
const OVER: &str = "This question is over.";

impl Telegram {
    /// How long a question waits.
    pub(super) fn patience(&self) -> Duration {
        Duration::from_secs_f64(self.config.patience)
    }

    /// Asks a person what a run wants to know, if that is still to be known.
    pub(super) async fn wanted(self: &Arc<Self>, event: Value, said: &Said, run: &Run) {
        let number = event["id"].as_u64().unwrap_or(0);
        let read = match event["type"].as_str() {
            Some("approval.requested") => serde_json::from_value(event).map(What::Consent),
            _ => serde_json::from_value(event).map(|wish| What::Field(Box::new(Form::new(wish)), 0)),
        };
        let Ok(what) = read else { return };
        let call = match &what {
            What::Consent(wanted) => wanted.call.clone(),
            What::Field(form, _) => form.call().to_owned(),
        };
        let until = Instant::now() + self.patience();
        let (spot, user, run) = (said.spot, said.user.clone(), run.clone());
        let asked = Asked { spot, user, run, event: number, call, what, until };
        match asked.run.asks(&asked.call).await {
            Ok(Some(_)) => self.put(asked).await,
            Ok(None) => self.left(asked).await,
            Err(error) => tracing::warn!("a question waits in vain: {error}"),
        }
    }

    /// Puts a question. What cannot be asked is refused.
    async fn put(self: &Arc<Self>, asked: Asked) {
        let Sheet { name, texts, buttons } = asked.sheet();
        if !self.questions.keep(&name, asked.clone()) {
            asked.refuse().await;
            return;
        }
        let (count, id) = (texts.len(), asked.parcel());
        let parcel = |(number, text)| {
            let last = number + 1 == count;
            let message = outbox::message(asked.spot, text, None, last.then(|| buttons.clone()));
            let id = if last { id.clone() } else { format!("{id}.{number}") };
            outbox::parcel(id, asked.spot.chat, &asked.run.id, &Body::Text { message: Box::new(message) })
        };
        let parcels: Vec<_> = texts.into_iter().enumerate().map(parcel).collect();
        if let Err(error) = self.outbox.post(&parcels).await {
            tracing::warn!("a question is refused, it cannot be asked: {error}");
            self.questions.take(&name);
            asked.refuse().await;
            return;
        }
        let telegram = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep_until(asked.until).await;
            if let Some(asked) = telegram.questions.take(&name) {
                asked.refuse().await;
                let how = match asked.what {
                    What::Consent(_) => "⌛ Nobody answered in time, so it did not run.",
                    What::Field(..) => "⌛ Nobody answered in time.",
                };
                telegram.close(&asked, how).await;
            }
        });
    }

    /// Closes what a process that is gone has asked and not closed.
    async fn left(&self, mut asked: Asked) {
        let fields = match &asked.what {
            What::Consent(_) => 1,
            What::Field(form, _) => form.fields(),
        };
        for place in 0..fields {
            if let What::Field(_, at) = &mut asked.what {
                *at = place;
            }
            if matches!(self.mail.parcel(&asked.parcel()).await, Ok(Some(_))) {
                self.close(&asked, "omni was started anew, so this question is over.").await;
            }
        }
    }

    /// Writes under a question what came of it, and takes its buttons away. What is closed stays as it is.
    pub(super) async fn close(&self, asked: &Asked, how: &str) {
        let Some(text) = asked.sheet().texts.pop() else { return };
        let message = outbox::message(asked.spot, question::closed(&text, how), None, None);
        let (of, chat) = (asked.parcel(), asked.spot.chat);
        let id = format!("{of}.end");
        let parcel = outbox::parcel(id, chat, &asked.run.id, &Body::Edit { of, message: Box::new(message) });
        if let Err(error) = self.outbox.post(&[parcel]).await {
            tracing::warn!("the buttons of a question stay: {error}");
        }
    }

    /// A button under a call was pressed; returns what is told to whoever has pressed it.
    pub(super) async fn consented(
        &self,
        name: &str,
        consent: Consent,
        pressed: &Pressed,
        access: &Access,
    ) -> String {
        if let Err(told) = self.may(name, pressed, access) {
            return told;
        }
        let Some(asked) = self.questions.take(name) else { return OVER.to_owned() };
        if !asked.answer(run::Said { consent: Some(consent), answer: None }).await {
            self.close(&asked, OVER).await;
            return OVER.to_owned();
        }
        let (how, told) = match consent {
            Consent::Once => ("✅ Once", "It runs."),
            Consent::Always => {
                ("♾ Always in this conversation", "It runs, and is not asked about again here.")
            }
            Consent::No | Consent::Never => ("❌ No", "It does not run."),
        };
        self.close(&asked, &format!("{how}: {}", pressed.user.name)).await;
        told.to_owned()
    }

    /// A button under a field was pressed.
    pub(super) async fn picked(
        self: &Arc<Self>,
        name: &str,
        reply: Option<Reply>,
        pressed: &Pressed,
        access: &Access,
    ) -> String {
        if let Err(told) = self.may(name, pressed, access) {
            return told;
        }
        let Some(reply) = reply else {
            let Some(asked) = self.questions.take(name) else { return OVER.to_owned() };
            asked.refuse().await;
            self.close(&asked, &format!("❌ Declined: {}", pressed.user.name)).await;
            return "Declined.".to_owned();
        };
        match self.filled(name, &reply, &pressed.user).await {
            Ok(()) => "Thank you.".to_owned(),
            Err(told) => told,
        }
    }

    /// Whether whoever has pressed a button may answer; else what they are told.
    fn may(&self, name: &str, pressed: &Pressed, access: &Access) -> Result<(), String> {
        let asked = self.questions.get(name).ok_or(OVER)?;
        let here = pressed.at.is_some_and(|(spot, _)| spot.chat == asked.spot.chat);
        match here && may_answer(&pressed.user, &asked.user, access) {
            true => Ok(()),
            false => Err(format!("Only {} can answer this, or an admin.", asked.user.name)),
        }
    }

    /// The question that a message answers: in a group the one it replies to, else the one that waits.
    pub(super) async fn asks(&self, said: &Said, access: &Access) -> Result<Option<String>, store::Error> {
        if said.command.is_some() || !said.files.is_empty() || said.text.is_empty() {
            return Ok(None);
        }
        let mut found = None::<(i64, String)>;
        for (name, asked) in self.questions.forms(said.spot) {
            let Some(posted) = self.mail.parcel(&asked.parcel()).await? else { continue };
            // Somebody may be quicker than Telegram is in telling us the number of the question.
            let (since, sent) = match posted.state {
                State::Sent => (posted.message, Some(posted.message)),
                State::Sending => (posted.after, None),
                State::Waits | State::Failed => continue,
            };
            let is_meant = match said.answers.map(i64::from) {
                Some(message) => sent.map_or(message > since, |sent| message == sent),
                None => !said.group,
            };
            // What was said before it was asked is no answer.
            if is_meant && i64::from(said.message) > since && may_answer(&said.user, &asked.user, access) {
                found = found.filter(|(earlier, _)| *earlier < since).or(Some((since, name)));
            }
        }
        Ok(found.map(|(_, name)| name))
    }

    /// The same, when what is asked there has its number.
    pub(super) async fn surely_asks(
        &self,
        said: &Said,
        access: &Access,
    ) -> Result<Option<String>, store::Error> {
        let deadline = Instant::now() + ARRIVAL;
        while Instant::now() < deadline {
            let mut is_sending = false;
            for (_, asked) in self.questions.forms(said.spot) {
                let posted = self.mail.parcel(&asked.parcel()).await?;
                is_sending |= posted.is_some_and(|posted| posted.state == State::Sending);
            }
            if !is_sending {
                break;
            }
            tokio::time::sleep(ARRIVAL / 40).await;
        }
        self.asks(said, access).await
    }

    /// A question is answered in words; returns what is to be said to that, if anything.
    pub(super) async fn worded(self: &Arc<Self>, name: &str, said: &Said) -> Option<String> {
        let filled = self.filled(name, &Reply::Words(said.text.clone()), &said.user).await;
        filled.err().map(|reason| format!("That does not do: {}", form::clipped(&reason, 500)))
    }

    /// Fills in the field that is asked about, and asks about the next one.
    async fn filled(self: &Arc<Self>, name: &str, reply: &Reply, person: &Person) -> Result<(), String> {
        let mut asked = self.questions.get(name).ok_or(OVER)?;
        let What::Field(form, at) = &mut asked.what else { return Err(OVER.to_owned()) };
        let told = form.fill(*at, reply)?;
        let before = self.questions.take(name).ok_or(OVER)?;
        *at += 1;
        let whole = (*at == form.fields()).then(|| form.filled());
        let how = match whole {
            Some(answer) => match asked.answer(run::Said { consent: None, answer: Some(answer) }).await {
                true => format!("✅ {}: {}", form::clipped(&told, SHOWN), person.name),
                false => OVER.to_owned(),
            },
            None => {
                let how = format!("✅ {}: {}", form::clipped(&told, SHOWN), person.name);
                self.put(asked).await;
                how
            }
        };
        self.close(&before, &how).await;
        Ok(())
    }
}

/// Whether somebody may answer a question that came of what another has asked for: that person, if they
/// are known by themselves, or an admin. Being in a group is not enough.
fn may_answer(person: &Person, asker: &Person, access: &Access) -> bool {
    access.is_admin(person.id) || (person.id == asker.id && access.knows(person.id))
}
