//! Questions to people: may this call run? Asked with buttons under exactly what would run.
//!
//! A question is named by the digest of its run, its call and the arguments, which is what a button
//! carries. It is answered once, by somebody who may, and in time; what is not answered is a no.

use std::collections::HashMap;
use std::sync::Mutex;

use frankenstein::types::{InlineKeyboardButton, InlineKeyboardMarkup};
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::format::{self, Text};
use super::update::{Person, Spot};
use crate::hub::run::{Run, Said};
use crate::message::event::Consent;

/// Questions that wait at once.
const WAITING: usize = 256;
/// UTF-16 units that a question's text may have, so that its end can be added.
const ROOM: usize = format::LIMIT - 200;

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
    /// The call it is about.
    pub call: String,
    /// The parcel it was sent with.
    pub parcel: String,
    /// Its text.
    pub text: Text,
}

impl Questions {
    /// Takes a question in. Returns its name, its messages, the last of which is the one for the
    /// buttons, and whether there was room.
    pub fn ask(&self, wanted: Wanted, spot: Spot, user: &Person, run: &Run) -> Option<(String, Vec<Text>)> {
        let name = name(&wanted, &run.id);
        let texts = texts(&wanted);
        let text = texts.last()?.clone();
        let parcel = format!("{}.ask.{name}", run.id);
        let asked = Asked { spot, user: user.clone(), run: run.clone(), call: wanted.call, parcel, text };
        let mut waiting = self.0.lock().expect("no panic while held");
        if waiting.len() >= WAITING {
            return None;
        }
        waiting.insert(name.clone(), asked);
        Some((name, texts))
    }

    /// The question of this name, if it waits.
    pub fn get(&self, name: &str) -> Option<Asked> {
        self.0.lock().expect("no panic while held").get(name).cloned()
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
    pub async fn answer(&self, consent: Consent) -> bool {
        let said = Said { consent: Some(consent), answer: None };
        self.run.answer(&self.call, said).await.unwrap_or_else(|error| {
            tracing::warn!("an answer is lost: {error}");
            false
        })
    }
}

/// The name of a question: the same for the same call with the same arguments alone.
fn name(wanted: &Wanted, run: &str) -> String {
    let said = serde_json::json!([run, wanted.call, wanted.tool, wanted.arguments]);
    let digest = Sha256::digest(said.to_string());
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
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

/// The buttons of a question.
pub fn buttons(name: &str) -> InlineKeyboardMarkup {
    let button = |text: &str, answer: &str| {
        InlineKeyboardButton::builder().text(text).callback_data(format!("q:{name}:{answer}")).build()
    };
    let rows = vec![
        vec![button("✅ Once", "once"), button("❌ No", "no")],
        vec![button("♾ Always in this conversation", "always")],
    ];
    InlineKeyboardMarkup::builder().inline_keyboard(rows).build()
}

/// The buttons that judge an answer.
pub fn thumbs(turn: &str) -> InlineKeyboardMarkup {
    let button = |text: &str, sign: &str| {
        InlineKeyboardButton::builder().text(text).callback_data(format!("j:{turn}:{sign}")).build()
    };
    InlineKeyboardMarkup::builder().inline_keyboard(vec![vec![button("👍", "+"), button("👎", "-")]]).build()
}

/// What a button says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Button {
    /// An answer to a question.
    Answer(String, Consent),
    /// A verdict on a turn.
    Verdict(String, bool),
}

/// Reads what a button carries.
pub fn button(data: &str) -> Option<Button> {
    let mut parts = data.splitn(3, ':');
    let (kind, name, answer) = (parts.next()?, parts.next()?.to_owned(), parts.next()?);
    Some(match (kind, answer) {
        ("q", "once") => Button::Answer(name, Consent::Once),
        ("q", "always") => Button::Answer(name, Consent::Always),
        ("q", "no") => Button::Answer(name, Consent::No),
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
