//! What a sentence says about a tool's parameters. Pure.

use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::llm::ToolDefinition;
use crate::words::{is_filler, stems};

/// A sentence taken apart: its values, and what is left of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sentence {
    /// The values in the order they stand there.
    pub values: Vec<Found>,
    /// Its words without them.
    pub plain: String,
    text: String,
}

/// A value in a sentence.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// Something in quotes.
    Quoted(String),
    /// An address.
    Url(String),
    /// `name=value`.
    Pair(String, String),
    /// A number as it is written.
    Number(String),
    /// Something that looks like a path.
    Path(String),
}

/// What could be filled in, and which required parameters are missing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filled {
    /// The arguments so far.
    pub arguments: Map<String, Value>,
    /// The required ones that are not among them.
    pub missing: Vec<String>,
}

impl Sentence {
    /// Takes a sentence apart.
    pub fn read(text: &str) -> Self {
        let mut sentence = Self { text: text.trim().to_owned(), ..Self::default() };
        let mut rest = text;
        while let Some((before, quoted, after)) = next_quoted(rest) {
            sentence.bare(before);
            sentence.values.push(Found::Quoted(quoted.to_owned()));
            rest = after;
        }
        sentence.bare(rest);
        sentence
    }

    fn bare(&mut self, text: &str) {
        for word in text.split_whitespace() {
            match value_in(word) {
                Some(found) => self.values.push(found),
                None => {
                    self.plain.push_str(word);
                    self.plain.push(' ');
                }
            }
        }
    }

    fn has_word(&self, word: &str) -> bool {
        let wanted = stems(word);
        let said = stems(&self.plain);
        !wanted.is_empty() && wanted.iter().all(|word| said.contains(word))
    }

    // The sentence from the first word on that is neither filler nor the tool's own: of
    // "search my notes for milk", "milk".
    fn rest(&self, vocabulary: &HashSet<String>) -> Option<String> {
        let is_known = |word: &str| {
            let found = stems(word);
            is_filler(word.trim_matches(|c: char| !c.is_alphanumeric()))
                || found.iter().all(|stem| vocabulary.contains(stem))
        };
        let mut rest = self.text.trim_end_matches(['?', '!']);
        while let Some(word) = rest.split_whitespace().next().filter(|word| is_known(word)) {
            rest = rest[rest.find(word)? + word.len()..].trim_start();
        }
        let rest = rest.trim().trim_matches('"').trim();
        (!rest.is_empty()).then(|| rest.to_owned())
    }
}

/// Fills the parameters of `tool` from a sentence; `known` were filled before.
pub fn fill(tool: &ToolDefinition, sentence: &Sentence, known: &Map<String, Value>) -> Filled {
    let mut form = Form::of(tool, sentence, known);
    form.pairs();
    form.choices();
    form.typed();
    form.free();
    form.done()
}

/// Takes a whole sentence for the value of one parameter: the answer to a question.
pub fn answer(tool: &ToolDefinition, name: &str, text: &str) -> Option<Value> {
    let schema = tool.parameters.pointer(&format!("/properties/{name}"))?;
    let text = text.trim();
    let bare = text.trim_matches(['"', '\'', '`', '“', '”']).trim();
    (!bare.is_empty()).then(|| typed(schema, bare)).flatten()
}

struct Form<'a> {
    tool: &'a ToolDefinition,
    sentence: &'a Sentence,
    required: Vec<String>,
    // Required ones first, then as the schema lists them.
    names: Vec<String>,
    arguments: Map<String, Value>,
    // Which values have found their place.
    used: Vec<bool>,
}

impl<'a> Form<'a> {
    fn of(tool: &'a ToolDefinition, sentence: &'a Sentence, known: &Map<String, Value>) -> Self {
        let list = tool.parameters.get("required").and_then(Value::as_array);
        let required: Vec<String> =
            list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        let properties = tool.parameters.get("properties").and_then(Value::as_object);
        let all = properties.into_iter().flat_map(Map::keys).filter(|name| !required.contains(name));
        let names = required.iter().chain(all).cloned().collect();
        // `fs.read` looks like a file, but it is the tool.
        let is_tool =
            |found: &Found| matches!(found, Found::Path(text) if *text == tool.title || *text == tool.name);
        let used = sentence.values.iter().map(is_tool).collect();
        Self { tool, sentence, required, names, arguments: known.clone(), used }
    }

    fn schema(&self, name: &str) -> &'a Value {
        let properties = self.tool.parameters.get("properties");
        properties.and_then(|properties| properties.get(name)).unwrap_or(&Value::Null)
    }

    fn open(&self) -> Vec<String> {
        self.names.iter().filter(|name| !self.arguments.contains_key(*name)).cloned().collect()
    }

    fn is_required(&self, name: &str) -> bool {
        self.required.iter().any(|required| required == name)
    }

    fn set(&mut self, name: &str, value: Value) {
        self.arguments.insert(name.to_owned(), value);
    }

    fn take(&mut self, wanted: impl Fn(&Found) -> Option<String>) -> Option<String> {
        let values = self.sentence.values.iter().enumerate();
        let (place, text) = values
            .filter(|(place, _)| !self.used[*place])
            .find_map(|(place, found)| Some((place, wanted(found)?)))?;
        self.used[place] = true;
        Some(text)
    }

    fn pairs(&mut self) {
        for name in self.open() {
            let same = |key: &str| key.trim_start_matches('-').replace('-', "_").eq_ignore_ascii_case(&name);
            let value = self.take(|found| match found {
                Found::Pair(key, value) if same(key) => Some(value.clone()),
                _ => None,
            });
            if let Some(value) = value.and_then(|text| typed(self.schema(&name), &text)) {
                self.set(&name, value);
            }
        }
    }

    // Enumerations and yes-or-no: their words stand among the others.
    fn choices(&mut self) {
        for name in self.open() {
            let schema = self.schema(&name);
            if let Some(options) = schema.get("enum").and_then(Value::as_array) {
                let said = options
                    .iter()
                    .find(|option| option.as_str().is_some_and(|word| self.sentence.has_word(word)));
                if let Some(option) = said {
                    self.set(&name, option.clone());
                }
            } else if kind(schema) == "boolean" && self.sentence.has_word(&name.replace('_', " ")) {
                let plain = format!(" {} ", self.sentence.plain.to_lowercase());
                let spoken = name.replace('_', " ").to_lowercase();
                let denied = ["no", "not", "without", "non"]
                    .iter()
                    .any(|no| plain.contains(&format!(" {no} {spoken}")));
                self.set(&name, Value::Bool(!denied));
            }
        }
    }

    // Numbers, addresses and paths go by their looks.
    fn typed(&mut self) {
        for name in self.open() {
            let schema = self.schema(&name);
            let taken = match kind(schema) {
                "integer" | "number" => self.take(|found| match found {
                    Found::Number(number) => Some(number.clone()),
                    _ => None,
                }),
                "string" if is_address(&name, schema) => self.take(|found| match found {
                    Found::Url(url) => Some(url.clone()),
                    _ => None,
                }),
                "string" | "array" if is_place(&name) => self.take(|found| match found {
                    Found::Path(path) => Some(path.clone()),
                    _ => None,
                }),
                _ => None,
            };
            if let Some(value) = taken.and_then(|text| typed(schema, &text)) {
                self.set(&name, value);
            }
        }
        let place = self.open().into_iter().find(|name| is_place(name));
        if let (Some(name), Some(folder)) = (place, self.last_place()) {
            self.set(&name, Value::String(folder));
        }
    }

    // "…in src": one word after a preposition at the end is a place, where a place is wanted
    // and another word is left for what is looked for.
    fn last_place(&self) -> Option<String> {
        let words: Vec<&str> = self.sentence.plain.split_whitespace().collect();
        let [.., preposition, last] = words.as_slice() else { return None };
        let last = last.trim_end_matches(['?', '!', '.', ',']);
        let vocabulary = self.vocabulary();
        let is_new = !is_filler(last) && stems(last).iter().any(|word| !vocabulary.contains(word));
        (matches!(*preposition, "in" | "under" | "inside" | "within") && is_new).then(|| last.to_owned())
    }

    // Free text: quoted first, then what is left of the sentence.
    fn free(&mut self) {
        let is_text = |form: &Self, name: &str| {
            matches!(kind(form.schema(name)), "string" | "array") && form.schema(name).get("enum").is_none()
        };
        for name in self.open().into_iter().filter(|name| is_text(self, name)).collect::<Vec<_>>() {
            // An optional place or address is not what a quotation is about.
            let takes =
                self.is_required(&name) || !(is_place(&name) || is_address(&name, self.schema(&name)));
            let quoted = takes.then(|| {
                self.take(|found| match found {
                    Found::Quoted(text) => Some(text.clone()),
                    _ => None,
                })
            });
            if let Some(value) = quoted.flatten().and_then(|text| typed(self.schema(&name), &text)) {
                self.set(&name, value);
            }
        }
        let open: Vec<String> =
            self.open().into_iter().filter(|name| self.is_required(name) && is_text(self, name)).collect();
        let [name] = open.as_slice() else { return };
        let Some(rest) = self.rest() else { return };
        let is_one_word = !rest.contains(char::is_whitespace);
        if is_address(name, self.schema(name)) || (is_place(name) && !is_one_word) {
            return;
        }
        if let Some(value) = typed(self.schema(name), &rest) {
            self.set(name, value);
        }
    }

    // What is left: of a sentence whose values all found a place, only the words between them.
    fn rest(&self) -> Option<String> {
        if !self.used.contains(&true) && !self.arguments.values().any(Value::is_string) {
            return self.sentence.rest(&self.vocabulary());
        }
        let mut left = Sentence::read(&self.sentence.plain);
        let places =
            self.arguments.iter().filter(|(name, _)| is_place(name)).filter_map(|(_, value)| value.as_str());
        for place in places {
            for preposition in [" in ", " under ", " inside ", " within ", " from ", " to "] {
                left.text = left.text.replace(&format!("{preposition}{place}"), "");
            }
        }
        for dangling in [" in", " under", " inside", " within", " from", " to", " into"] {
            left.text = left.text.trim_end().strip_suffix(dangling).unwrap_or(&left.text).to_owned();
        }
        left.rest(&self.vocabulary())
    }

    // The words that name the tool, its parameters and what it does. Of what people say to it
    // only the first word: the others may be values.
    fn vocabulary(&self) -> HashSet<String> {
        let mut words: HashSet<String> = stems(&self.tool.title).into_iter().collect();
        words.extend(stems(&self.tool.description));
        words.extend(self.names.iter().flat_map(|name| stems(name)));
        words.extend(self.tool.examples.iter().filter_map(|example| stems(example).into_iter().next()));
        words.extend(OPENERS.iter().map(|word| (*word).to_owned()));
        words
    }

    fn done(self) -> Filled {
        let Self { names, required, mut arguments, .. } = self;
        let missing = required.into_iter().filter(|name| !arguments.contains_key(name)).collect();
        let in_order =
            names.into_iter().filter_map(|name| arguments.remove(&name).map(|value| (name, value)));
        Filled { arguments: in_order.collect(), missing }
    }
}

// Words that begin a request and are no part of its value, as `stems` has them.
const OPENERS: &[&str] =
    &["file", "folder", "directory", "directori", "page", "new", "called", "call", "nam", "titl"];

fn next_quoted(text: &str) -> Option<(&str, &str, &str)> {
    let marks = [('"', '"'), ('“', '”'), ('«', '»'), ('`', '`'), ('\'', '\'')];
    let starts = text.char_indices().filter_map(|(start, letter)| {
        let close = marks.iter().find(|(open, _)| *open == letter)?.1;
        // An apostrophe is no quotation mark.
        let before = text[..start].chars().next_back();
        (before.is_none_or(|before| !before.is_alphanumeric())).then_some((start, letter, close))
    });
    starts.into_iter().find_map(|(start, open, close)| {
        let inner = &text[start + open.len_utf8()..];
        let end = inner.find(close).filter(|end| *end > 0)?;
        Some((&text[..start], &inner[..end], &inner[end + close.len_utf8()..]))
    })
}

fn value_in(word: &str) -> Option<Found> {
    let word = word.trim_end_matches([',', ';', '?', '!', ')', '`']).trim_start_matches(['(', '`']);
    let word = word.strip_suffix('.').filter(|rest| !rest.is_empty() && !rest.ends_with('.')).unwrap_or(word);
    if word.starts_with("http://") || word.starts_with("https://") {
        return Some(Found::Url(word.to_owned()));
    }
    if let Some((key, value)) = word.split_once('=')
        && !value.is_empty()
        && key.chars().any(char::is_alphabetic)
        && key.chars().all(|letter| letter.is_alphanumeric() || "_-".contains(letter))
    {
        return Some(Found::Pair(key.to_owned(), value.trim_matches(['"', '\'']).to_owned()));
    }
    if word.parse::<f64>().is_ok_and(f64::is_finite)
        && word.starts_with(|letter: char| letter.is_ascii_digit() || "-+.".contains(letter))
    {
        return Some(Found::Number(word.trim_start_matches('+').to_owned()));
    }
    is_path(word).then(|| Found::Path(word.to_owned()))
}

fn is_path(word: &str) -> bool {
    if matches!(word, "." | ".." | "~")
        || word.starts_with("./")
        || word.starts_with("~/")
        || word.starts_with("../")
    {
        return true;
    }
    if word.contains('/') {
        // "and/or" is no path, "src/main.rs" and "/etc" are.
        return !matches!(word.to_lowercase().as_str(), "/" | "and/or" | "yes/no" | "he/she" | "i/o");
    }
    let Some((stem, extension)) = word.rsplit_once('.') else {
        return matches!(word, "Makefile" | "Dockerfile" | "LICENSE" | "README" | "CHANGELOG");
    };
    let is_extension = (1..=5).contains(&extension.len())
        && extension.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && !extension.bytes().all(|byte| byte.is_ascii_digit());
    is_extension
        && (stem.is_empty() || stem.chars().all(|letter| letter.is_alphanumeric() || "_-.".contains(letter)))
}

fn kind(schema: &Value) -> &str {
    match schema.get("type") {
        Some(Value::String(kind)) => kind,
        // A type that may also be null is the other one.
        Some(Value::Array(kinds)) => {
            kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null").unwrap_or_default()
        }
        _ => {
            let options = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array);
            options
                .into_iter()
                .flatten()
                .map(kind)
                .find(|kind| !matches!(*kind, "null" | ""))
                .unwrap_or_default()
        }
    }
}

fn is_address(name: &str, schema: &Value) -> bool {
    let format = schema.get("format").and_then(Value::as_str);
    matches!(format, Some("uri" | "url")) || matches!(name, "url" | "uri" | "link" | "href" | "address")
}

fn is_place(name: &str) -> bool {
    const PLACES: &[&str] =
        &["path", "paths", "file", "files", "filename", "folder", "directory", "dir", "cwd"];
    PLACES.contains(&name) || ["_path", "_file", "_dir", "_folder"].iter().any(|end| name.ends_with(end))
}

// The text as the schema wants it; `None` if it cannot be that.
fn typed(schema: &Value, text: &str) -> Option<Value> {
    if let Some(options) = schema.get("enum").and_then(Value::as_array) {
        return options
            .iter()
            .find(|option| option.as_str().is_some_and(|word| word.eq_ignore_ascii_case(text)))
            .cloned();
    }
    match kind(schema) {
        "integer" => text.parse::<i64>().ok().map(Value::from),
        "number" => text.parse::<f64>().ok().map(Value::from),
        "boolean" => match text.to_lowercase().as_str() {
            "true" | "yes" | "on" | "1" | "y" => Some(Value::Bool(true)),
            "false" | "no" | "off" | "0" | "n" => Some(Value::Bool(false)),
            _ => None,
        },
        "array" => match schema.get("items").map(kind) {
            Some("string" | "") | None => {
                let words = text
                    .split(|letter: char| letter == ',' || letter.is_whitespace())
                    .filter(|word| !word.is_empty());
                Some(Value::Array(words.map(Value::from).collect()))
            }
            _ => serde_json::from_str(text).ok().filter(Value::is_array),
        },
        "object" => serde_json::from_str(text).ok().filter(Value::is_object),
        _ => Some(Value::String(text.to_owned())),
    }
}
