//! Tools that are found by what they are for, where there are too many to show them all.
//!
//! The ranking is BM25 over three texts of a tool: its name, the beginning of its description,
//! and everything it says of itself; and, where an encoder is installed, how alike what was said and
//! the tool are in meaning. `tests/find` has the questions it is measured with.

use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use super::meaning::{self, Key, Meanings};
use super::toolbox::Definition;
use super::{Annotations, Call, Error, Output, Spec, Toolset};
use crate::message::{Arguments, ToolCall};
use crate::words::{Index, stem, stems};

/// The name of the tool that finds others.
pub const FIND: &str = "find_tool";
/// The name of the tool that calls what was found.
pub const CALL: &str = "call_tool";

/// Tools that one search shows.
const SHOWN: usize = 8;
/// Characters of a description that say what a tool is; the rest is about how it is used.
const BEGINNING: usize = 600;
/// What a word counts that means much the same as one that was said.
const ALIKE: f32 = 0.35;
/// Characters of a description that are compared in meaning.
const MEANT: usize = 200;
/// What a cosine counts beside words, and from which on it does without any.
const MEANING: f32 = 50.0;
const GATE: f32 = 0.3;

/// Words that people and authors of tools use for the same thing.
const SAME: &[&[&str]] = &[
    &["make", "create", "add", "new", "set"],
    &["remove", "delete", "drop", "erase"],
    &["show", "get", "read", "display", "view"],
    &["find", "search", "look", "query"],
    &["change", "update", "edit", "modify", "replace"],
    &["folder", "directory"],
    &["picture", "image", "photo", "screenshot"],
    &["save", "write", "store"],
    &["start", "run", "launch", "execute"],
    &["stop", "kill", "end", "terminate", "close"],
    &["rename", "move"],
    &["send", "post"],
    &["page", "website", "site"],
    &["repo", "repository"],
    &["answer", "reply", "comment"],
    &["press", "click"],
    &["big", "size", "large"],
    &["address", "location", "place"],
];

/// Tools, ready to be searched.
pub struct Finder {
    names: Index,
    beginnings: Index,
    texts: Index,
    /// What is compared in meaning.
    meant: Vec<(Key, String)>,
}

impl Finder {
    /// Takes in tools: their place among `tools` is what is found.
    pub fn new(tools: &[Definition]) -> Self {
        let index = |text: fn(&Definition) -> String| Index::new(&tools.iter().map(text).collect::<Vec<_>>());
        let meant = |tool: &Definition| {
            let begins: String = tool.description.chars().take(MEANT).collect();
            let text = format!("{}: {begins}", name(tool).replace(['.', '-'], " "));
            (meaning::key(&text), text)
        };
        let meant = tools.iter().map(meant).collect();
        Self { names: index(name), beginnings: index(beginning), texts: index(text), meant }
    }

    /// The places of the tools that each sentence may be about, the likeliest first. What they mean
    /// counts where it is known.
    pub async fn find(&self, sentences: &[&str], meanings: Option<&Arc<Meanings>>) -> Vec<Vec<usize>> {
        let tools = meanings.and_then(|meanings| meanings.of_tools(&self.meant));
        let said = match meanings.filter(|_| tools.is_some()) {
            Some(meanings) => meanings.of_words(sentences).await,
            None => vec![None; sentences.len()],
        };
        let ranked = sentences.iter().zip(said).map(|(sentence, said)| {
            let alike = |(said, tools): (Arc<[f32]>, &Vec<Arc<[f32]>>)| -> Vec<f32> {
                tools.iter().map(|tool| meaning::alike(tool, &said)).collect()
            };
            self.rank(sentence, said.zip(tools.as_ref()).map(alike).as_deref())
        });
        ranked.collect()
    }

    fn rank(&self, sentence: &str, alike: Option<&[f32]>) -> Vec<usize> {
        let said = stems(sentence);
        // Words that say nothing mean nothing either.
        if said.is_empty() {
            return Vec::new();
        }
        let meant: Vec<String> =
            said.iter().flat_map(|word| others(word)).filter(|word| !said.contains(word)).collect();
        let score = |query: &[String]| -> Vec<f32> {
            let parts = [(1.0, &self.names), (0.5, &self.beginnings), (0.5, &self.texts)];
            let mut sum = Vec::new();
            for (weight, index) in parts {
                let scores = index.scores(query);
                sum.resize(scores.len(), 0.0);
                sum.iter_mut().zip(scores).for_each(|(sum, score)| *sum += weight * score);
            }
            sum
        };
        let mut scores = score(&said);
        scores.iter_mut().zip(score(&meant)).for_each(|(said, meant)| *said += ALIKE * meant);
        let cosine = |place: usize| alike.map_or(0.0, |alike| alike[place]);
        let is_about = |place: &usize| scores[*place] > 0.0 || cosine(*place) >= GATE;
        let mut found: Vec<usize> = (0..scores.len()).filter(is_about).collect();
        scores.iter_mut().enumerate().for_each(|(place, score)| *score += MEANING * cosine(place));
        found.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
        found
    }
}

/// Words that mean much the same, as they are compared.
fn others(word: &str) -> Vec<String> {
    static STEMS: LazyLock<Vec<Vec<String>>> =
        LazyLock::new(|| SAME.iter().map(|words| words.iter().map(|word| stem(word)).collect()).collect());
    let others = STEMS.iter().filter(|words| words.iter().any(|other| other == word)).flatten();
    others.filter(|other| *other != word).cloned().collect()
}

/// Its name in words: `createIssue` is two.
fn name(tool: &Definition) -> String {
    let mut words = String::new();
    let mut was_lower = false;
    for letter in tool.name.chars() {
        if was_lower && letter.is_uppercase() {
            words.push(' ');
        }
        was_lower = letter.is_lowercase();
        words.push(if letter == '_' { ' ' } else { letter });
    }
    words
}

fn beginning(tool: &Definition) -> String {
    tool.description.chars().take(BEGINNING).collect()
}

fn text(tool: &Definition) -> String {
    let mut text = tool.description.clone();
    let properties = tool.parameters.get("properties").and_then(Value::as_object);
    for (name, schema) in properties.into_iter().flatten() {
        let description = schema.get("description").and_then(Value::as_str).unwrap_or_default();
        text.push_str(&format!(" {name} {description}"));
    }
    tool.examples.iter().for_each(|example| text.push_str(&format!(" {example}")));
    text
}

/// The name of the tool that a call is about.
pub fn about(call: &ToolCall) -> &str {
    let named = match &call.arguments {
        Arguments::Object(map) if call.name == CALL => map.get("name").and_then(Value::as_str),
        _ => None,
    };
    named.unwrap_or(&call.name)
}

/// The call that a call of [`CALL`] is about; any other call as it is. What cannot be made out is left
/// to [`CALL`] and its schema, which say why.
pub fn meant(call: ToolCall) -> ToolCall {
    let Arguments::Object(map) = &call.arguments else { return call };
    let name = about(&call);
    if call.name != CALL || name == CALL {
        return call;
    }
    let arguments = match map.get("arguments") {
        None => Map::new(),
        Some(Value::Object(given)) => given.clone(),
        Some(_) => return call,
    };
    ToolCall { name: name.to_owned(), arguments: Arguments::Object(arguments), id: call.id.clone() }
}

/// Brings the two tools. They are offered only where not all others are.
#[derive(Debug)]
pub(super) struct Desk;

#[async_trait]
impl Toolset for Desk {
    fn specs(&self) -> Vec<Arc<Spec>> {
        let annotations =
            Annotations { read_only: true, destructive: false, idempotent: true, open_world: false };
        let spec = |name: &str, description: &str, input: Value| {
            Arc::new(Spec {
                name: name.to_owned(),
                description: description.to_owned(),
                input,
                annotations,
                ..Spec::default()
            })
        };
        vec![
            spec(
                FIND,
                "Finds tools by what they do; there are more than you see. Look here before you say that something cannot be done.",
                json!({
                    "type": "object",
                    "properties": {"query": {"type": "string", "description": "what the tool should do, in a few words"}},
                    "required": ["query"],
                }),
            ),
            spec(
                CALL,
                "Calls a tool that find_tool has found.",
                json!({
                    "type": "object",
                    "properties": {
                        "name": {"type": "string", "description": "as find_tool has it"},
                        "arguments": {"type": "object", "description": "as its parameters say"},
                    },
                    "required": ["name"],
                }),
            ),
        ]
    }

    async fn call(&self, call: Call) -> Result<Output, Error> {
        if call.spec.name != FIND {
            return Err(Error::Retry(format!("`{CALL}` cannot call itself; name another tool")));
        }
        let query = call.arguments.get("query").and_then(Value::as_str).unwrap_or_default();
        let Some(nested) = &call.context.nested else { return Ok(Output::text("There are no tools.")) };
        let found: Vec<Value> = nested
            .find(query)
            .await
            .take(SHOWN)
            .map(|tool| json!({"name": tool.wire, "description": tool.description, "parameters": tool.parameters}))
            .collect();
        Ok(match found.is_empty() {
            true => Output::text("No tool is about that. Try other words."),
            false => Output::text(Value::Array(found).to_string()),
        })
    }
}
