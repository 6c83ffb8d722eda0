//! Forms: what a tool wants to know, asked one field after the other (pure).
//!
//! Choices have buttons; everything can be said in words. What is left out has its default, where the form names one.

use std::fmt::Write;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::format::{self, Text};

/// Choices that have buttons; of more, the names are written.
const BUTTONS: usize = 20;
/// Letters of a button.
const LABEL: usize = 60;

/// A question of a tool, as a run tells it.
#[derive(Debug, Clone, Deserialize)]
pub struct Wish {
    /// The call's id.
    pub call: String,
    /// The tool.
    pub tool: String,
    /// The question.
    pub message: String,
    /// JSON Schema of the answer: an object of plain values.
    pub schema: Value,
}

/// A form that is filled in.
#[derive(Debug, Clone)]
pub struct Form {
    wish: Wish,
    fields: Vec<Field>,
    given: Map<String, Value>,
}

/// What is asked at once.
#[derive(Debug, Clone)]
struct Field {
    name: String,
    /// What it is called for people.
    title: String,
    about: String,
    kind: Kind,
    required: bool,
    default: Option<Value>,
}

#[derive(Debug, Clone)]
enum Kind {
    Text,
    Whole,
    Number,
    /// One of these; each has a name for people.
    One(Vec<(String, Value)>),
    /// Any of these.
    Some(Vec<(String, Value)>),
    /// Nothing: the question is all there is.
    Read,
}

/// How a field is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// With the choice at this place.
    Choice(usize),
    /// In words.
    Words(String),
    /// It is left out.
    Nothing,
}

impl Form {
    /// A form in which nothing is filled in yet.
    pub fn new(wish: Wish) -> Self {
        let required: Vec<&str> =
            wish.schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let properties = wish.schema["properties"].as_object().into_iter().flatten();
        let mut fields: Vec<Field> = properties
            .map(|(name, schema)| Field::of(name, schema, required.contains(&name.as_str())))
            .collect();
        if fields.is_empty() {
            fields.push(Field::to_read());
        }
        Self { wish, fields, given: Map::new() }
    }

    /// The call that asks.
    pub fn call(&self) -> &str {
        &self.wish.call
    }

    /// How many fields there are, at least one.
    pub fn fields(&self) -> usize {
        self.fields.len()
    }

    /// All that is asked.
    pub fn asked(&self) -> Value {
        json!([self.wish.tool, self.wish.message, self.wish.schema])
    }

    /// The question about the field at a place.
    pub fn texts(&self, at: usize, group: bool, room: usize) -> Vec<Text> {
        let Some(field) = self.fields.get(at) else { return Vec::new() };
        let tool = self.wish.tool.replace('`', "'");
        let mut markdown = format!("`{tool}` asks: {}", format::escaped(&self.wish.message));
        if !matches!(field.kind, Kind::Read) {
            let place = match self.fields.len() {
                1 => String::new(),
                many => format!(" ({} of {many})", at + 1),
            };
            let _ = write!(markdown, "\n\n**{}**{place}", format::escaped(&field.title));
            if !field.about.is_empty() {
                let _ = write!(markdown, ": {}", format::escaped(&field.about));
            }
        }
        if let Some(hint) = field.hint(group) {
            let _ = write!(markdown, "\n\n{}", format::escaped(&hint));
        }
        format::messages_of(&markdown, room)
    }

    /// The names of the buttons for the field at a place.
    pub fn choices(&self, at: usize) -> Vec<String> {
        match self.fields.get(at).map(|field| &field.kind) {
            Some(Kind::One(choices)) if choices.len() <= BUTTONS => {
                choices.iter().map(|(name, _)| clipped(name, LABEL)).collect()
            }
            Some(Kind::Read) => vec!["✅ OK".to_owned()],
            _ => Vec::new(),
        }
    }

    /// What the button says that leaves the field out, if it may be.
    pub fn skip(&self, at: usize) -> Option<String> {
        let field = self.fields.get(at).filter(|field| !matches!(field.kind, Kind::Read))?;
        match &field.default {
            Some(Value::String(text)) if text.is_empty() => Some("Leave it out".to_owned()),
            Some(default) => Some(clipped(&format!("Leave it at {}", field.named(default)), LABEL)),
            None => (!field.required).then(|| "Leave it out".to_owned()),
        }
    }

    /// Fills in the field at a place. Returns what a person reads of it; the error says what would do.
    pub fn fill(&mut self, at: usize, reply: &Reply) -> Result<String, String> {
        let field = self.fields.get(at).ok_or("there is no such field")?;
        let value = match reply {
            Reply::Nothing if self.skip(at).is_some() => None,
            Reply::Nothing => return Err(field.expected()),
            Reply::Choice(number) => match &field.kind {
                Kind::Read => None,
                Kind::One(choices) => Some(
                    choices.get(*number).map(|(_, value)| value.clone()).ok_or_else(|| field.expected())?,
                ),
                _ => return Err(field.expected()),
            },
            Reply::Words(words) => Some(field.read(words.trim()).ok_or_else(|| field.expected())?),
        };
        let Some(value) = value else {
            return Ok(if matches!(field.kind, Kind::Read) { "yes" } else { "left out" }.to_owned());
        };
        let told = field.named(&value);
        if let Some(schema) = self.wish.schema["properties"].get(&field.name) {
            crate::hub::run::fits(&field.name, schema, &value)?;
        }
        self.given.insert(field.name.clone(), value);
        Ok(told)
    }

    /// All that was filled in.
    pub fn filled(&self) -> Map<String, Value> {
        self.given.clone()
    }
}

impl Field {
    fn of(name: &str, schema: &Value, required: bool) -> Self {
        let text = |key: &str| schema[key].as_str().unwrap_or_default().to_owned();
        let title = Some(text("title")).filter(|title| !title.is_empty()).unwrap_or_else(|| name.to_owned());
        let choices = choices(schema);
        let kind = match schema["type"].as_str() {
            _ if !choices.is_empty() => Kind::One(choices),
            Some("boolean") => {
                Kind::One(vec![("Yes".to_owned(), true.into()), ("No".to_owned(), false.into())])
            }
            Some("integer") => Kind::Whole,
            Some("number") => Kind::Number,
            Some("array") => Kind::Some(self::choices(&schema["items"])),
            _ => Kind::Text,
        };
        let default = schema.get("default").filter(|default| !default.is_null()).cloned();
        Self { name: name.to_owned(), title, about: text("description"), kind, required, default }
    }

    fn to_read() -> Self {
        let (name, title, about) = (String::new(), String::new(), String::new());
        Self { name, title, about, kind: Kind::Read, required: true, default: None }
    }

    /// How it is answered in words, where that is how.
    fn hint(&self, group: bool) -> Option<String> {
        let how = if group { "Answer this message with" } else { "Write" };
        let what = match &self.kind {
            Kind::Text => "your answer".to_owned(),
            Kind::Whole => "a whole number".to_owned(),
            Kind::Number => "a number".to_owned(),
            Kind::One(choices) if choices.len() > BUTTONS => format!("one of: {}", listed(choices)),
            Kind::Some(choices) => format!("one or more of these, with commas: {}", listed(choices)),
            Kind::One(_) | Kind::Read => return None,
        };
        Some(format!("{how} {what}."))
    }

    /// What would be an answer.
    fn expected(&self) -> String {
        match &self.kind {
            Kind::Text => "it has to be a text".to_owned(),
            Kind::Whole => "it has to be a whole number".to_owned(),
            Kind::Number => "it has to be a number".to_owned(),
            Kind::One(choices) => format!("it has to be one of: {}", listed(choices)),
            Kind::Some(choices) => format!("it has to be one or more of: {}", listed(choices)),
            Kind::Read => "there is a button for it".to_owned(),
        }
    }

    fn read(&self, words: &str) -> Option<Value> {
        match &self.kind {
            Kind::Text => Some(words.into()),
            Kind::Whole => words.parse::<i64>().ok().map(Value::from),
            Kind::Number => words.parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::from),
            Kind::One(choices) => chosen(choices, words),
            Kind::Some(choices) => words.split(',').map(|word| chosen(choices, word.trim())).collect(),
            Kind::Read => None,
        }
    }

    /// A value as people call it.
    fn named(&self, value: &Value) -> String {
        let (Kind::One(choices) | Kind::Some(choices)) = &self.kind else { return plain(value) };
        let name = |value: &Value| {
            let found = choices.iter().find(|(_, choice)| choice == value);
            found.map_or_else(|| plain(value), |(name, _)| name.clone())
        };
        match value.as_array() {
            Some(values) => values.iter().map(name).collect::<Vec<_>>().join(", "),
            None => name(value),
        }
    }
}

/// What may be chosen, by name: `enum` with `enumNames`, or `oneOf` and `anyOf` of constants with titles.
fn choices(schema: &Value) -> Vec<(String, Value)> {
    if let Some(values) = schema["enum"].as_array() {
        let name = |(number, value): (usize, &Value)| {
            let name = schema["enumNames"][number].as_str().map_or_else(|| plain(value), str::to_owned);
            (name, value.clone())
        };
        return values.iter().enumerate().map(name).collect();
    }
    let titled = schema["oneOf"].as_array().or_else(|| schema["anyOf"].as_array());
    let constant = schema.get("const").map(|value| (plain(value), value.clone()));
    let titled = titled.into_iter().flatten().filter_map(|choice| {
        let value = choice.get("const")?;
        Some((choice["title"].as_str().map_or_else(|| plain(value), str::to_owned), value.clone()))
    });
    titled.chain(constant).collect()
}

fn chosen(choices: &[(String, Value)], word: &str) -> Option<Value> {
    let same = |name: &str| name.to_lowercase() == word.to_lowercase();
    choices.iter().find(|(name, value)| same(name) || same(&plain(value))).map(|(_, value)| value.clone())
}

fn listed(choices: &[(String, Value)]) -> String {
    choices.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The beginning of a text, on one line.
pub fn clipped(text: &str, most: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", line[..end].trim_end()),
        None => line,
    }
}
