//! Questions to people: may this call run, and what does a tool want to know (pure, but for who waits).
//!
//! A question is named by the digest of its run, of where in it it was asked, and of all that is asked, which is what
//! a button carries. It is answered once, by somebody who may, and in time; what is not answered is a no.

use std::collections::HashMap;
use std::sync::Mutex;

use frankenstein::types::{InlineKeyboardButton, InlineKeyboardMarkup};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::form::{Form, Reply};
use super::format::{self, Text};
use super::update::{Person, Spot};
use crate::hub::run::{Run, Said};
use crate::message::event::Consent;

/// Questions that wait at once.
const WAITING: usize = 256;
/// UTF-16 units that a question's text may have, so that its end can be added.
const ROOM: usize = format::LIMIT - 200;
/// Letters of buttons that stand side by side.
const ROW: usize = 24;

/// The questions that wait.
#[derive(Default)]
pub struct Questions(Mutex<HashMap<String, Asked>>);

/// A call that wants to be agreed to, as a run tells it.
#[derive(Debug, Clone, Deserialize)]
pub struct Wanted {
    /// The call's id.
    pub call: String,
    /// The tool.
    pub tool: String,
    /// Exactly what would run.
    pub arguments: Map<String, Value>,
    /// Why it is asked.
    pub reason: String,
}

/// A question.
#[derive(Clone)]
pub struct Asked {
    /// Where it was asked.
    pub spot: Spot,
    /// Who has asked for what it is about.
    pub user: Person,
    /// The run it belongs to.
    pub run: Run,
    /// The event of the run that asks.
    pub event: u64,
    /// The call it is about.
    pub call: String,
    /// What is asked.
    pub what: What,
    /// Until when it waits.
    pub until: Instant,
}

/// What is asked.
#[derive(Debug, Clone)]
pub enum What {
    /// Whether it may run.
    Consent(Wanted),
    /// The field at this place of a form.
    Field(Box<Form>, usize),
}

/// A question as it is shown.
pub struct Sheet {
    /// Its name.
    pub name: String,
    /// Its messages, the last of which has the buttons.
    pub texts: Vec<Text>,
    /// Its buttons.
    pub buttons: InlineKeyboardMarkup,
}

impl Questions {
    /// Takes a question in. Returns whether there was room.
    pub fn keep(&self, name: &str, asked: Asked) -> bool {
        let mut waiting = self.0.lock().expect("no panic while held");
        let is_room = waiting.len() < WAITING;
        if is_room {
            waiting.insert(name.to_owned(), asked);
        }
        is_room
    }

    /// The question of this name, if it waits.
    pub fn get(&self, name: &str) -> Option<Asked> {
        self.0.lock().expect("no panic while held").get(name).cloned()
    }

    /// The forms that wait in a place.
    pub fn forms(&self, spot: Spot) -> Vec<(String, Asked)> {
        let waiting = self.0.lock().expect("no panic while held");
        let here =
            waiting.iter().filter(|(_, asked)| asked.spot == spot && matches!(asked.what, What::Field(..)));
        here.map(|(name, asked)| (name.clone(), asked.clone())).collect()
    }

    /// Whether a question of this run waits.
    pub fn waits(&self, run: &str) -> bool {
        self.0.lock().expect("no panic while held").values().any(|asked| asked.run.id == run)
    }

    /// Takes a question away that is answered, or will not be.
    pub fn take(&self, name: &str) -> Option<Asked> {
        self.0.lock().expect("no panic while held").remove(name)
    }

    /// Forgets what a run has asked that is over; returns those questions.
    pub fn over(&self, run: &str) -> Vec<Asked> {
        let mut waiting = self.0.lock().expect("no panic while held");
        let names: Vec<_> =
            waiting.iter().filter(|(_, asked)| asked.run.id == run).map(|(name, _)| name.clone()).collect();
        names.iter().filter_map(|name| waiting.remove(name)).collect()
    }
}

impl Asked {
    /// Gives the answer. Returns whether it was waited for.
    pub async fn answer(&self, said: Said) -> bool {
        self.run.answer(&self.call, said).await.unwrap_or_else(|error| {
            tracing::warn!("an answer is lost: {error}");
            false
        })
    }

    /// Says no.
    pub async fn refuse(&self) -> bool {
        self.answer(Said { consent: Some(Consent::No), answer: None }).await
    }

    /// As it is shown.
    pub fn sheet(&self) -> Sheet {
        let name = self.name();
        match &self.what {
            What::Consent(wanted) => Sheet { texts: texts(wanted), buttons: consents(&name), name },
            What::Field(form, at) => Sheet {
                texts: form.texts(*at, self.spot.chat < 0, ROOM),
                buttons: picks(&name, form, *at),
                name,
            },
        }
    }

    /// What it is called: the same for the same question, and for no other.
    pub fn name(&self) -> String {
        let what = match &self.what {
            What::Consent(wanted) => json!([wanted.tool, wanted.arguments]),
            What::Field(form, at) => json!([form.asked(), at]),
        };
        let digest = Sha256::digest(json!([self.run.id, self.event, self.call, what]).to_string());
        digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The parcel it is sent with.
    pub fn parcel(&self) -> String {
        format!("{}.ask.{}", self.run.id, self.name())
    }
}

/// What a person reads: the tool, why it asks, and exactly what it is given.
fn texts(wanted: &Wanted) -> Vec<Text> {
    let shown = serde_json::to_string_pretty(&Value::Object(wanted.arguments.clone())).unwrap_or_default();
    // A fence that is not in it.
    let fence = "`".repeat(3.max(1 + longest_run(&shown)));
    let tool = wanted.tool.replace('`', "'");
    let markdown =
        format!("May `{tool}` run? ({})\n\n{fence}json\n{shown}\n{fence}", format::escaped(&wanted.reason));
    format::messages_of(&markdown, ROOM)
}

fn longest_run(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

fn button(text: &str, data: String) -> InlineKeyboardButton {
    InlineKeyboardButton::builder().text(text).callback_data(data).build()
}

fn keyboard(rows: Vec<Vec<InlineKeyboardButton>>) -> InlineKeyboardMarkup {
    InlineKeyboardMarkup::builder().inline_keyboard(rows).build()
}

/// The buttons of a question for consent.
fn consents(name: &str) -> InlineKeyboardMarkup {
    let button = |text: &str, answer: &str| button(text, format!("q:{name}:{answer}"));
    keyboard(vec![
        vec![button("✅ Once", "once"), button("❌ No", "no")],
        vec![button("♾ Always in this conversation", "always")],
    ])
}

/// The buttons of a field.
fn picks(name: &str, form: &Form, at: usize) -> InlineKeyboardMarkup {
    let choices = form.choices(at);
    let side_by_side = choices.iter().map(|choice| choice.chars().count()).sum::<usize>() <= ROW;
    let button = |text: &str, answer: &str| button(text, format!("f:{name}:{answer}"));
    let choices: Vec<_> =
        choices.iter().enumerate().map(|(number, text)| button(text, &number.to_string())).collect();
    let mut rows: Vec<Vec<_>> = match side_by_side {
        true => Some(choices).filter(|choices| !choices.is_empty()).into_iter().collect(),
        false => choices.into_iter().map(|choice| vec![choice]).collect(),
    };
    let skip = form.skip(at).map(|text| button(&text, "-"));
    rows.push(skip.into_iter().chain([button("❌ Decline", "x")]).collect());
    keyboard(rows)
}

/// The buttons that judge an answer.
pub fn thumbs(turn: &str) -> InlineKeyboardMarkup {
    let button = |text: &str, sign: &str| button(text, format!("j:{turn}:{sign}"));
    keyboard(vec![vec![button("👍", "+"), button("👎", "-")]])
}

/// What a button says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Button {
    /// An answer to a question for consent.
    Answer(String, Consent),
    /// An answer to a field; `None` declines the form.
    Pick(String, Option<Reply>),
    /// A verdict on a turn.
    Verdict(String, bool),
}

/// Reads what a button carries.
pub fn pressed(data: &str) -> Option<Button> {
    let mut parts = data.splitn(3, ':');
    let (kind, name, answer) = (parts.next()?, parts.next()?.to_owned(), parts.next()?);
    Some(match (kind, answer) {
        ("q", "once") => Button::Answer(name, Consent::Once),
        ("q", "always") => Button::Answer(name, Consent::Always),
        ("q", "no") => Button::Answer(name, Consent::No),
        ("f", "x") => Button::Pick(name, None),
        ("f", "-") => Button::Pick(name, Some(Reply::Nothing)),
        ("f", number) => Button::Pick(name, Some(Reply::Choice(number.parse().ok()?))),
        ("j", "+") => Button::Verdict(name, true),
        ("j", "-") => Button::Verdict(name, false),
        _ => return None,
    })
}

/// The text of a question that is over, with what came of it.
pub fn closed(text: &Text, how: &str) -> Text {
    let mut text = text.clone();
    text.text = format!("{}\n\n{how}", text.text);
    text
}
