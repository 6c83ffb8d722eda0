//! How well questions about long conversations find the turns that answer them, without a model:
//! LoCoMo, whose questions name their evidence.
//!
//! The file is data/locomo10.json of snap-research/LoCoMo (CC BY-NC 4.0); it is read and not part
//! of the program. Each conversation has a memory of its own, with a note for every turn.

use std::collections::HashMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::Value;

use super::{By, Episode, Error, Kind, Memory, Outcome, Reader, SEARCH, Scope, Trust, store};

/// Conversations that weights were chosen on. All others are the test.
pub const TUNED_ON: [&str; 3] = ["conv-26", "conv-30", "conv-41"];
/// Depths at which evidence is counted.
pub const DEPTHS: [usize; 3] = [5, 10, 20];

/// A conversation with its questions.
#[derive(Debug, Clone)]
pub struct Conversation {
    /// Its name.
    pub id: String,
    turns: Vec<Turn>,
    questions: Vec<Question>,
}

#[derive(Debug, Clone)]
struct Turn {
    session: usize,
    text: String,
}

#[derive(Debug, Clone)]
struct Question {
    asked: String,
    category: Category,
    /// The turns that answer it.
    evidence: Vec<usize>,
}

/// What a question asks for, with the names of LoCoMo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Category {
    /// One turn answers it.
    SingleHop,
    /// Several together do.
    MultiHop,
    /// It is about when.
    Temporal,
    /// It needs knowledge of the world as well.
    OpenDomain,
    /// It asks for what was said by the other one.
    Adversarial,
}

/// How turns are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// By BM25 alone.
    Words,
    /// And what neighbours lend.
    Neighbours,
    /// By the cosine of meanings alone, where there is an encoder.
    Meaning,
    /// By the sum of 1 / (60 + rank) over both, where there is an encoder.
    Ranks,
    /// As the memory is searched.
    Ours,
}

/// All of them.
pub const METHODS: [Method; 5] =
    [Method::Words, Method::Neighbours, Method::Meaning, Method::Ranks, Method::Ours];

impl Method {
    fn is_by_meaning(self) -> bool {
        matches!(self, Self::Meaning | Self::Ranks)
    }
}

/// How well one question did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer {
    /// How it was looked for.
    pub method: Method,
    /// What kind of question it was.
    pub category: Category,
    /// The part of its evidence that is among the first, for each of [`DEPTHS`].
    pub recall: [f64; 3],
    /// One over the place of the first evidence.
    pub reciprocal: f64,
    /// The discounted gain of the first ten, over the best there could be.
    pub gain: f64,
}

/// Reads the conversations. Questions without evidence that exists are left out.
pub fn read(json: &str) -> Result<Vec<Conversation>, String> {
    let json: Value = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let list = json.as_array().ok_or("it is no list of conversations")?;
    list.iter().enumerate().map(|(place, value)| conversation(place, value)).collect()
}

fn conversation(place: usize, value: &Value) -> Result<Conversation, String> {
    let missing = |what: &str| format!("conversation {} has no `{what}`", place + 1);
    let id = value["sample_id"].as_str().ok_or_else(|| missing("sample_id"))?.to_owned();
    let talk = value["conversation"].as_object().ok_or_else(|| missing("conversation"))?;
    let (mut turns, mut places) = (Vec::new(), HashMap::new());
    for session in 1.. {
        let Some(said) = talk.get(&format!("session_{session}")) else {
            // Sessions are numbered without a gap, but for some that have a date alone.
            match talk.contains_key(&format!("session_{session}_date_time")) {
                true => continue,
                false => break,
            }
        };
        for turn in said.as_array().ok_or_else(|| missing("session"))? {
            let text = |name: &str| turn[name].as_str().unwrap_or_default();
            let caption = match text("blip_caption") {
                "" => String::new(),
                caption => format!(" [shares a photo: {caption}]"),
            };
            let evidence = mentions(text("dia_id")).first().copied().ok_or_else(|| missing("dia_id"))?;
            places.insert(evidence, turns.len());
            turns.push(Turn { session, text: format!("{}: {}{caption}", text("speaker"), text("text")) });
        }
    }
    let mut questions = Vec::new();
    for question in value["qa"].as_array().ok_or_else(|| missing("qa"))? {
        let named = question["evidence"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let mut evidence: Vec<usize> =
            named.flat_map(mentions).filter_map(|name| places.get(&name).copied()).collect();
        evidence.sort_unstable();
        evidence.dedup();
        let category = category(&question["category"]).ok_or_else(|| missing("category"))?;
        if !evidence.is_empty() {
            let asked = question["question"].as_str().ok_or_else(|| missing("question"))?.to_owned();
            questions.push(Question { asked, category, evidence });
        }
    }
    Ok(Conversation { id, turns, questions })
}

fn category(value: &Value) -> Option<Category> {
    Some(match value.as_u64()? {
        1 => Category::MultiHop,
        2 => Category::Temporal,
        3 => Category::OpenDomain,
        4 => Category::SingleHop,
        5 => Category::Adversarial,
        _ => return None,
    })
}

/// The turns that a text names: `D8:6`, several in one text, and as one file has it, `D:11:26`.
fn mentions(text: &str) -> Vec<(u32, u32)> {
    let named = text.split('D').skip(1).filter_map(|rest| {
        let rest = rest.strip_prefix(':').unwrap_or(rest);
        let (session, rest) = rest.split_once(':')?;
        let end = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
        Some((session.parse().ok()?, rest[..end].parse().ok()?))
    });
    named.collect()
}

/// Fills an empty memory with the conversation and asks it all questions, in every way.
pub async fn run(conversation: &Conversation, memory: &Memory) -> Result<Vec<Answer>, Error> {
    let turns = conversation.turns.iter().enumerate();
    let episodes: Vec<Episode> = turns.map(|(place, turn)| episode(place, turn)).collect();
    memory.put(&episodes).await?;
    memory.backfill(Duration::MAX).await?;
    // The table is read with the first search.
    find(memory, "?", Method::Ours).await?;
    let mut answers = Vec::new();
    for question in &conversation.questions {
        for method in
            METHODS.into_iter().filter(|method| memory.embedder.is_some() || !method.is_by_meaning())
        {
            let found = find(memory, &question.asked, method).await?;
            let mut places: Vec<usize> = question
                .evidence
                .iter()
                .map(|turn| found.iter().position(|found| found == turn).map_or(usize::MAX, |at| at + 1))
                .collect();
            places.sort_unstable();
            answers.push(answer(method, question.category, &places));
        }
    }
    Ok(answers)
}

fn episode(place: usize, turn: &Turn) -> Episode {
    Episode {
        id: format!("{place:06}"),
        kind: Kind::Note,
        scope: Scope::Person(Reader::HERE.to_owned()),
        intent: String::new(),
        experience: turn.text.clone(),
        outcome: Outcome::Unknown,
        trust: Trust::Said,
        session: format!("session {}", turn.session),
        turn: String::new(),
        workspace: String::new(),
        created: Timestamp::UNIX_EPOCH + SignedDuration::from_secs(60 * place as i64),
        pinned: false,
        superseded: None,
        until: None,
    }
}

/// The turns that were found, the best first.
async fn find(memory: &Memory, asked: &str, method: Method) -> Result<Vec<usize>, Error> {
    if method == Method::Ours {
        let found = memory.find(asked, &Reader::here("none"), By::Fit).await?;
        return Ok(found.iter().map(|found| number(&found.episode)).collect());
    }
    let words = store::words(asked);
    if !method.is_by_meaning() {
        let mirror = memory.mirror.lock().await;
        let found = match method {
            Method::Words => mirror.index.compare(&words, |_| true),
            _ => mirror.index.search(&words, |_| true, None),
        };
        return Ok(ordered(found.iter().map(|found| (found.score, number(&found.episode)))));
    }
    let (meant, _) = memory.meant(Some(asked), memory.table().await?.as_ref(), SEARCH).await?;
    let mut mirror = memory.mirror.lock().await;
    let alike = meant.map(|meant| mirror.meanings.alike(&meant));
    let all = mirror.index.all(|_| true);
    let meant = all.filter_map(|episode| {
        Some((alike.as_ref()?.at(mirror.meanings.place(&episode.id))?, number(episode)))
    });
    let meant = ordered(meant);
    if method == Method::Meaning {
        return Ok(meant);
    }
    let found = mirror.index.compare(&words, |_| true);
    let said = ordered(found.iter().map(|found| (found.score, number(&found.episode))));
    let mut ranks: HashMap<usize, f64> = HashMap::new();
    for leg in [&said, &meant] {
        for (rank, turn) in leg.iter().enumerate() {
            *ranks.entry(*turn).or_default() += 1.0 / (61.0 + rank as f64);
        }
    }
    Ok(ordered(ranks.into_iter().map(|(turn, score)| (score, turn))))
}

fn number(episode: &Episode) -> usize {
    episode.id.parse().expect("an id is a number here")
}

/// The best first; of equals the younger.
fn ordered(scores: impl Iterator<Item = (f64, usize)>) -> Vec<usize> {
    let mut scores: Vec<_> = scores.collect();
    scores.sort_by(|(a, one), (b, other)| b.total_cmp(a).then(other.cmp(one)));
    scores.into_iter().map(|(_, turn)| turn).collect()
}

/// `places` are those of the evidence, in order; what was not found is at the very end.
fn answer(method: Method, category: Category, places: &[usize]) -> Answer {
    let part =
        |depth: usize| places.iter().filter(|place| **place <= depth).count() as f64 / places.len() as f64;
    let discount = |place: usize| 1.0 / (place as f64 + 1.0).log2();
    let gain: f64 = places.iter().filter(|place| **place <= 10).map(|place| discount(*place)).sum();
    let most: f64 = (1..=places.len().min(10)).map(discount).sum();
    let first = places.first().copied().unwrap_or(usize::MAX);
    let reciprocal = if first == usize::MAX { 0.0 } else { 1.0 / first as f64 };
    Answer { method, category, recall: DEPTHS.map(part), reciprocal, gain: gain / most }
}
