//! Which episodes are shown (pure): those that resemble the question, then those that helped.
//!
//! Both phases, and the names k1, k2 and λ, are those of MemRL (arXiv 2601.03192). Similarity is
//! measured against what is usual in the whole store, never among the candidates alone: among
//! forty that are all alike, differences that mean nothing would decide.

use std::cmp::Ordering;
use std::collections::HashSet;

use serde::Serialize;

/// Uses before an episode is no longer on probation.
const TRIED: usize = 2;
/// Episodes on probation that may be shown at once: new ones come in with every turn, which is
/// exploration enough, and they are where what misleads is found.
pub const PROBATION: usize = 1;
/// What counts as one step of value: as much as one deviation of similarity. The share of
/// words is coarse, so value may say more than it would beside an encoder.
const VALUE: f64 = 0.2;

/// How many, and what decides.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Candidates by similarity.
    pub k1: usize,
    /// Shown at most.
    pub k2: usize,
    /// The weight of value against similarity, from 0 to 1.
    pub lambda: f64,
    /// Shown at once of those that were tried little.
    pub probation: usize,
}

/// How similar two things of the store usually are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    /// The mean over pairs.
    pub mean: f64,
    /// The standard deviation.
    pub deviation: f64,
    /// Less than this is no candidate.
    pub gate: f64,
}

/// Of [`share`], between the 500 + 500 task texts of LifelongAgentBench.
pub const WORDS: Scale = Scale { mean: 0.2, deviation: 0.13, gate: 0.3 };

/// Something that may be shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Its id.
    pub id: String,
    /// How much of the question's words it has, by [`share`].
    pub words: Option<f64>,
    /// The cosine of its meaning, where there is an encoder.
    pub meaning: Option<f64>,
    /// What it has earned, [faded](super::value::Rule::faded).
    pub value: f64,
    /// How often it was tried.
    pub tries: usize,
    /// The same for duplicates.
    pub print: u64,
    /// Something a person or the assistant noted: it is not judged by how turns went.
    pub is_note: bool,
}

/// A candidate in its place.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ranked {
    /// Its id.
    pub id: String,
    /// How similar, in deviations above what is usual.
    pub similarity: f64,
    /// Its value.
    pub value: f64,
    /// Both together.
    pub score: f64,
}

/// Phase 1: how similar a candidate is, in deviations above what is usual; `None` if it does not
/// pass the gate of either.
pub fn similarity(candidate: &Candidate, words: Scale, meaning: Option<Scale>) -> Option<f64> {
    let (common, alike) = (candidate.words.unwrap_or(0.0), candidate.meaning);
    let passes = common >= words.gate || alike.zip(meaning).is_some_and(|(alike, scale)| alike >= scale.gate);
    passes.then(|| closeness(candidate.words, alike, words, meaning))
}

/// How similar something is by its words and, where it is known, its meaning.
pub fn closeness(words: Option<f64>, alike: Option<f64>, usual: Scale, meaning: Option<Scale>) -> f64 {
    let scaled = |value: f64, scale: Scale| (value - scale.mean) / scale.deviation.max(1e-6);
    // Words that found nothing found nothing in common.
    let words = scaled(words.unwrap_or(0.0), usual);
    match alike.zip(meaning) {
        Some((alike, scale)) => (words + scaled(alike, scale)) / 2.0,
        None => words,
    }
}

/// Both phases: the candidates to show, the best first. It may well be none.
pub fn pick(
    candidates: &[Candidate],
    settings: Settings,
    words: Scale,
    meaning: Option<Scale>,
) -> Vec<Ranked> {
    let similar = candidates.iter().filter_map(|candidate| {
        similarity(candidate, words, meaning).map(|similarity| (candidate, similarity))
    });
    let mut similar: Vec<_> = similar.collect();
    similar.sort_by(|(a, x), (b, y)| first(*x, &a.id, *y, &b.id));
    similar.truncate(settings.k1);

    let mut ranked: Vec<_> = similar
        .into_iter()
        .map(|(candidate, similarity)| (candidate, rank(candidate, similarity, settings)))
        .collect();
    ranked.sort_by(|(_, a), (_, b)| first(a.score, &a.id, b.score, &b.id));
    let (mut seen, mut fresh) = (HashSet::new(), 0);
    let shown = ranked.into_iter().filter(|(candidate, _)| {
        let on_probation = candidate.tries < TRIED && !candidate.is_note;
        if (on_probation && fresh >= settings.probation) || !seen.insert(candidate.print) {
            return false;
        }
        fresh += usize::from(on_probation);
        true
    });
    shown.map(|(_, ranked)| ranked).take(settings.k2).collect()
}

/// Phase 2.
fn rank(candidate: &Candidate, similarity: f64, settings: Settings) -> Ranked {
    let lambda = settings.lambda.clamp(0.0, 1.0);
    let score = (1.0 - lambda) * similarity + lambda * candidate.value / VALUE;
    Ranked { id: candidate.id.clone(), similarity, value: candidate.value, score }
}

/// The higher first; of equals the younger, whose id is the greater.
fn first(a: f64, a_id: &str, b: f64, b_id: &str) -> Ordering {
    b.total_cmp(&a).then_with(|| b_id.cmp(a_id))
}

/// How many of the question's words are in the other text, from 0 to 1. Each counts once, and all
/// the same: on the task texts of LifelongAgentBench this led to better choices than BM25 and than
/// cosines of words, weighted or not.
pub fn share(question: &[String], text: &str) -> f64 {
    let question: HashSet<&str> = question.iter().map(String::as_str).collect();
    let text: HashSet<&str> = text.split_whitespace().collect();
    match question.len() {
        0 => 0.0,
        words => question.intersection(&text).count() as f64 / words as f64,
    }
}
