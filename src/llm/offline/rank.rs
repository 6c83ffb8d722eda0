//! Which tool a sentence is about. Pure.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::fill::Sentence;
use crate::llm::ToolDefinition;
use crate::words::{Index, split, stem, stems};

/// How much of what a sentence says has to be known to a tool: the share of its words,
/// rare ones counting more.
const KNOWN: f32 = 0.5;
/// How much better a tool is for being about files of the workspace.
const FITS: f32 = 1.2;

/// The tool that `sentence` asks for, if it is clear enough. `plain` is the sentence without
/// its paths, quotes, numbers and addresses: those are values, not words.
///
/// A tool that changes something is only found by the words of its own name, and only in a
/// sentence that is an order: neither a question nor a prohibition.
pub fn find<'a>(tools: &'a [ToolDefinition], sentence: &str, plain: &str) -> Option<&'a ToolDefinition> {
    if let Some(tool) = named(tools, sentence) {
        return Some(tool);
    }
    // Talk about a tool is no order to any.
    let is_tool = |word: &str| tools.iter().any(|tool| word == tool.title || word == tool.name);
    if sentence.split_whitespace().any(is_tool) {
        return None;
    }
    let is_order = is_order(sentence);
    let query = stems(plain);
    if query.is_empty() {
        return None;
    }
    let books: Vec<String> = tools.iter().map(document).collect();
    let scores = Index::new(&books).scores(&query);
    let vocabulary = Vocabulary::of(&books);
    let mut best: Option<(f32, &ToolDefinition)> = None;
    for (place, tool) in tools.iter().enumerate() {
        let score = scores[place] * (1.0 + likeness(tool, &query)) * if tool.fits { FITS } else { 1.0 };
        let allowed = tool.read_only || (is_order && says_action(tool, &query));
        // Strictly better, so the order of the tools settles a draw.
        if allowed && vocabulary.share(place, &query) >= KNOWN && best.is_none_or(|(most, _)| score > most) {
            best = Some((score, tool));
        }
    }
    best.filter(|(score, _)| *score > 0.0).map(|(_, tool)| tool)
}

/// The tool whose own name is said: `git.status` or `git__status` anywhere, `git status` and
/// names of one word only at the beginning; what changes something always at the beginning.
pub fn named<'a>(tools: &'a [ToolDefinition], sentence: &str) -> Option<&'a ToolDefinition> {
    let lower = sentence.to_lowercase();
    let marks = ['`', '"', '\'', ',', ':', '?', '!'];
    let words: Vec<&str> = lower.split_whitespace().map(|word| word.trim_matches(marks)).collect();
    let words = match words.as_slice() {
        ["please" | "call" | "use" | "run" | "execute", rest @ ..] if !rest.is_empty() => rest,
        words => words,
    };
    let is_special = |word: &str| word.contains('.') || word.contains("__");
    let says = |tool: &&ToolDefinition| {
        let title = tool.title.to_lowercase();
        let name = tool.name.to_lowercase();
        let parts: Vec<&str> = title.split('.').collect();
        let is_it = |word: &&str| *word == title || *word == name;
        let leads = words.starts_with(&parts) || words.first().is_some_and(is_it);
        match tool.read_only {
            true => leads || words.iter().any(|word| is_special(word) && is_it(word)),
            false => leads && is_order(sentence),
        }
    };
    tools.iter().find(says)
}

fn is_order(sentence: &str) -> bool {
    let lower = sentence.to_lowercase().replace('’', "'");
    let words: Vec<&str> =
        lower.split(|c: char| !c.is_alphanumeric() && c != '\'').filter(|word| !word.is_empty()).collect();
    let asks = [
        "how", "what", "why", "when", "where", "who", "which", "should", "did", "does", "do", "is", "are",
        "was",
    ];
    let forbids = ["don't", "dont", "not", "never", "without"];
    let polite = words.iter().any(|word| matches!(*word, "please" | "can" | "could" | "would" | "will"));
    let is_question = lower.trim_end().ends_with('?') && !polite;
    !is_question
        && words.first().is_none_or(|word| !asks.contains(word))
        && !words.iter().take(4).any(|word| forbids.contains(word))
}

// What the tool does, as its name has it (`status` of `git.status`), or an order that begins
// as one of its examples does: `remember that …`.
fn says_action(tool: &ToolDefinition, query: &[String]) -> bool {
    let action = tool.title.rsplit('.').next().unwrap_or(&tool.title);
    let action = split(action).map(|word| stem(&word)).collect::<Vec<_>>();
    let begins_so = |example: &String| stems(example).first() == query.first();
    action.iter().all(|word| query.contains(word)) || tool.examples.iter().any(begins_so)
}

// How close the sentence comes to one that people are known to say: 1 for the same words.
fn likeness(tool: &ToolDefinition, query: &[String]) -> f32 {
    let query: HashSet<&String> = query.iter().collect();
    let shares = tool.examples.iter().map(|example| {
        let example = stems(&Sentence::read(example).plain);
        let example: HashSet<&String> = example.iter().collect();
        let all = example.union(&query).count().max(1);
        example.intersection(&query).count() as f32 / all as f32
    });
    shares.fold(0.0, f32::max)
}

// The name counts most, then what people say, then the description.
fn document(tool: &ToolDefinition) -> String {
    let examples = tool.examples.join(" ");
    let mut text = format!("{0} {0} {0} {1} {1} {2}", tool.title, examples, tool.description);
    let properties = tool.parameters.get("properties").and_then(Value::as_object);
    for (name, schema) in properties.into_iter().flatten() {
        let description = schema.get("description").and_then(Value::as_str).unwrap_or_default();
        text.push_str(&format!(" {name} {description}"));
    }
    text
}

struct Vocabulary {
    documents: Vec<HashSet<String>>,
    rarity: HashMap<String, f32>,
    rarest: f32,
}

impl Vocabulary {
    fn of(lines: &[String]) -> Self {
        let documents: Vec<HashSet<String>> =
            lines.iter().map(|line| stems(line).into_iter().collect()).collect();
        let mut counts: HashMap<String, f32> = HashMap::new();
        for word in documents.iter().flatten() {
            *counts.entry(word.clone()).or_default() += 1.0;
        }
        let all = documents.len() as f32;
        let rarity = |count: f32| (1.0 + (all - count + 0.5) / (count + 0.5)).ln();
        let rarest = rarity(1.0);
        let rarity = counts.into_iter().map(|(word, count)| (word, rarity(count))).collect();
        Self { documents, rarity, rarest }
    }

    fn share(&self, place: usize, query: &[String]) -> f32 {
        let weight = |word: &String| self.rarity.get(word).copied().unwrap_or(self.rarest);
        let known =
            query.iter().filter(|word| self.documents[place].contains(*word)).map(weight).sum::<f32>();
        known / query.iter().map(weight).sum::<f32>().max(f32::EPSILON)
    }
}
