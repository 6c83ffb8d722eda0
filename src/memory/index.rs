//! The words of episodes, in RAM (pure): what a question has in common with each of them.
//!
//! A search walks the lists of the question's words. It costs what there is in common, not what
//! there is.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;

use super::episode::Episode;
use super::meaning::Alike;
use super::{rank, store};

/// BM25: how soon a word that is said again says nothing new, and how much long texts are held
/// back. Chosen on three conversations of LoCoMo; see `docs/memory.md`.
const SATURATION: f64 = 0.9;
const LENGTH: f64 = 0.4;
/// What the neighbours of a turn lend it, and how many on either side do: the answer often stands
/// beside the words that were asked for.
const LENT: f64 = 0.5;
const SPAN: usize = 2;

/// Episodes by their words.
#[derive(Debug, Default)]
pub struct Index {
    numbers: HashMap<String, usize>,
    /// For each word, where it is said.
    lists: Vec<Vec<Mention>>,
    rows: Vec<Row>,
    places: HashMap<String, u32>,
    /// The rows of each session, as they came.
    sessions: HashMap<String, Vec<u32>>,
    /// Rows by what they say.
    told: HashMap<u64, u32>,
    words: u64,
    living: usize,
}

#[derive(Debug)]
struct Row {
    episode: Arc<Episode>,
    words: u32,
    gone: bool,
    /// Where its vector is.
    meaning: Option<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Mention {
    row: u32,
    count: u16,
    in_key: bool,
}

/// What a row has of a question, while it is counted.
#[derive(Debug, Clone, Copy, Default)]
struct Score {
    score: f64,
    shared: u32,
}

/// What a question and an episode have in common.
#[derive(Debug, Clone)]
pub struct Common {
    /// The episode.
    pub episode: Arc<Episode>,
    /// The share of the question's words that its key has, from 0 to 1.
    pub share: f64,
    /// How well all of its words fit, by BM25, with what its neighbours lend.
    pub score: f64,
    /// The cosine of their meanings, where both are known.
    pub alike: Option<f64>,
}

/// A row and how close it is: the closer is the greater, of equals the younger.
struct Near(f64, u32);

impl PartialEq for Near {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Near {}

impl PartialOrd for Near {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Near {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0).then(self.1.cmp(&other.1))
    }
}

impl Index {
    /// Adds an episode with the words it is compared by and all of its words. Returns false where
    /// another one says the same to the letter; then nothing is added.
    pub fn add<'a>(
        &mut self,
        episode: Arc<Episode>,
        key: impl Iterator<Item = &'a str>,
        words: impl Iterator<Item = &'a str>,
    ) -> bool {
        self.remove(&episode.id);
        let told = episode.told();
        if let Some(other) = self.told.get(&told).map(|row| &self.rows[*row as usize])
            && !other.gone
            && other.episode.repeats(&episode)
        {
            return false;
        }
        let row = u32::try_from(self.rows.len()).expect("fewer episodes than fit into the memory");
        let key: HashSet<&str> = key.collect();
        let mut counts: HashMap<&str, u16> = HashMap::new();
        for word in words {
            let count = counts.entry(word).or_default();
            *count = count.saturating_add(1);
        }
        let total: u32 = counts.values().map(|count| u32::from(*count)).sum();
        for (word, count) in counts {
            let number = self.number(word);
            self.lists[number].push(Mention { row, count, in_key: key.contains(word) });
        }
        self.places.insert(episode.id.clone(), row);
        self.told.insert(told, row);
        if !episode.session.is_empty() {
            self.sessions.entry(episode.session.clone()).or_default().push(row);
        }
        self.rows.push(Row { episode, words: total, gone: false, meaning: None });
        self.words += u64::from(total);
        self.living += 1;
        true
    }

    fn number(&mut self, word: &str) -> usize {
        if let Some(number) = self.numbers.get(word) {
            return *number;
        }
        self.numbers.insert(word.to_owned(), self.lists.len());
        self.lists.push(Vec::new());
        self.lists.len() - 1
    }

    /// Leaves an episode out from now on.
    pub fn remove(&mut self, id: &str) {
        let Some(row) = self.places.remove(id) else { return };
        let row = &mut self.rows[row as usize];
        row.gone = true;
        self.words -= u64::from(row.words);
        self.living -= 1;
    }

    /// Says where the vector of an episode is.
    pub fn mean(&mut self, id: &str, place: u32) {
        if let Some(row) = self.places.get(id) {
            self.rows[*row as usize].meaning = Some(place);
        }
    }

    /// The same of all, where vectors have moved.
    pub fn mean_all(&mut self, place: impl Fn(&str) -> Option<u32>) {
        self.rows.iter_mut().for_each(|row| row.meaning = place(&row.episode.id));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.living
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.living == 0
    }

    /// Whether there is an episode of this id.
    pub fn has(&self, id: &str) -> bool {
        self.places.contains_key(id)
    }

    /// At most `limit` episodes that are closest to the question by what was wanted, the closest
    /// first: by the words they share with it, and by what they mean.
    pub fn nearest(
        &self,
        question: &[String],
        readable: impl Fn(&Episode) -> bool,
        alike: Option<&Alike>,
        limit: usize,
    ) -> Vec<Common> {
        let question = distinct(question);
        let (found, scores) = self.scores(&question);
        let usual = alike.and_then(|alike| alike.scale);
        let near = |row: u32| {
            let share = f64::from(scores[row as usize].shared) / question.len().max(1) as f64;
            let alike = alike.and_then(|alike| alike.at(self.rows[row as usize].meaning));
            Near(rank::closeness(Some(share), alike, rank::WORDS, usual), row)
        };
        let mut nearest: BinaryHeap<Near> = match usual {
            // Without a word in common as well.
            Some(_) => (0..self.rows.len() as u32).map(near).collect(),
            None => found.into_iter().map(near).collect(),
        };
        let mut common = Vec::new();
        while common.len() < limit
            && let Some(Near(_, row)) = nearest.pop()
        {
            if self.is_readable(row, &readable) {
                let score = scores[row as usize];
                common.push(self.common(row, score, question.len(), alike));
            }
        }
        common
    }

    /// The episodes that have words of the question, in no order, without those that are not
    /// `readable`.
    pub fn compare(&self, question: &[String], readable: impl Fn(&Episode) -> bool) -> Vec<Common> {
        let question = distinct(question);
        let (found, scores) = self.readable(&question, &readable);
        found.into_iter().map(|row| self.common(row, scores[row as usize], question.len(), None)).collect()
    }

    /// The same, with what neighbours lend; and the neighbours. Where meanings are known as well,
    /// they count as much as words, each as deviations from the mean of all.
    pub fn search(
        &self,
        question: &[String],
        readable: impl Fn(&Episode) -> bool,
        alike: Option<&Alike>,
    ) -> Vec<Common> {
        let question = distinct(question);
        let (mut found, mut scores) = self.readable(&question, &readable);
        if let Some(alike) = alike {
            found = (0..scores.len() as u32).filter(|row| self.is_readable(*row, &readable)).collect();
            let meant = |row: &u32| alike.at(self.rows[*row as usize].meaning);
            let words = Spread::of(found.iter().map(|row| scores[*row as usize].score));
            let means = Spread::of(found.iter().filter_map(meant));
            for row in &found {
                let score = &mut scores[*row as usize].score;
                // What has no vector yet is neither near nor far.
                *score = words.scaled(*score) + meant(row).map_or(0.0, |alike| means.scaled(alike));
            }
        }
        self.with_neighbours(found, &scores, question.len(), alike, &readable)
    }

    fn with_neighbours(
        &self,
        mut found: Vec<u32>,
        scores: &[Score],
        asked: usize,
        alike: Option<&Alike>,
        readable: &impl Fn(&Episode) -> bool,
    ) -> Vec<Common> {
        let lent = self.lent(&found, scores, readable);
        let there: HashSet<u32> = found.iter().copied().collect();
        found.extend(lent.keys().filter(|row| !there.contains(row)));
        let common = found.into_iter().map(|row| {
            let mut common = self.common(row, scores[row as usize], asked, alike);
            common.score += lent.get(&row).copied().unwrap_or_default();
            common
        });
        common.collect()
    }

    /// All episodes that are readable.
    pub fn all(&self, readable: impl Fn(&Episode) -> bool) -> impl Iterator<Item = &Arc<Episode>> {
        self.rows.iter().filter(move |row| !row.gone && readable(&row.episode)).map(|row| &row.episode)
    }

    /// The episodes in use whose meaning is not known.
    pub fn unmeant(&self) -> impl Iterator<Item = &Arc<Episode>> {
        let lacking = |row: &&Row| row.meaning.is_none() && !row.gone && row.episode.superseded.is_none();
        self.rows.iter().filter(lacking).map(|row| &row.episode)
    }

    fn common(&self, row: u32, score: Score, asked: usize, alike: Option<&Alike>) -> Common {
        let row = &self.rows[row as usize];
        let share = f64::from(score.shared) / asked.max(1) as f64;
        let alike = alike.and_then(|alike| alike.at(row.meaning));
        Common { episode: row.episode.clone(), share, score: score.score, alike }
    }

    /// The rows that have words of the question and are readable, and the scores of all.
    fn readable(&self, question: &[&str], readable: &impl Fn(&Episode) -> bool) -> (Vec<u32>, Vec<Score>) {
        let (mut found, scores) = self.scores(question);
        found.retain(|row| self.is_readable(*row, readable));
        (found, scores)
    }

    /// The rows that have words of the question, and for every row there is, how many.
    fn scores(&self, question: &[&str]) -> (Vec<u32>, Vec<Score>) {
        let mut scores = vec![Score::default(); self.rows.len()];
        let mut found = Vec::new();
        let mean = (self.words as f64 / self.living.max(1) as f64).max(1.0);
        for word in question {
            let Some(list) = self.numbers.get(*word).map(|number| &self.lists[*number]) else { continue };
            let (count, all) = (list.len() as f64, self.rows.len() as f64);
            let rare = (1.0 + (all - count + 0.5) / (count + 0.5)).ln();
            for mention in list {
                let (row, score) = (&self.rows[mention.row as usize], &mut scores[mention.row as usize]);
                if score.score == 0.0 {
                    found.push(mention.row);
                }
                let often = f64::from(mention.count);
                let long = 1.0 - LENGTH + LENGTH * f64::from(row.words) / mean;
                score.score += rare * often * (SATURATION + 1.0) / (often + SATURATION * long);
                score.shared += u32::from(mention.in_key);
            }
        }
        (found, scores)
    }

    fn is_readable(&self, row: u32, readable: impl Fn(&Episode) -> bool) -> bool {
        let row = &self.rows[row as usize];
        !row.gone && readable(&row.episode)
    }

    /// What rows get from their neighbours in the same session.
    fn lent(
        &self,
        found: &[u32],
        scores: &[Score],
        readable: &impl Fn(&Episode) -> bool,
    ) -> HashMap<u32, f64> {
        let mut lent = HashMap::new();
        for row in found {
            let session = &self.rows[*row as usize].episode.session;
            let Some(rows) = self.sessions.get(session).filter(|rows| rows.len() > 1) else { continue };
            let Ok(place) = rows.binary_search(row) else { continue };
            for far in 1..=SPAN {
                let beside = [place.checked_sub(far), place.checked_add(far)];
                let beside = beside.into_iter().flatten().filter_map(|place| rows.get(place));
                for other in beside.filter(|other| self.is_readable(**other, readable)) {
                    *lent.entry(*other).or_insert(0.0) += LENT / far as f64 * scores[*row as usize].score;
                }
            }
        }
        lent
    }
}

/// What was found here and in a table, as if it had been found in one place; `far` with its words.
///
/// How rare a word is differs from place to place, and so do scores: those from here are counted
/// among all of these, in the measure of the table. Meanings count as much as words, each as
/// deviations among these; what is not known to be alike is as little as any of them.
pub fn together(near: Vec<Common>, far: Vec<(Common, String)>, question: &[String]) -> Vec<Common> {
    let mut index = Index::default();
    for common in &near {
        let (key, words) = store::told(&common.episode);
        index.add(common.episode.clone(), key.split_whitespace(), words.split_whitespace());
    }
    for (common, words) in &far {
        index.add(common.episode.clone(), std::iter::empty(), words.split_whitespace());
    }
    let counted = index.compare(question, |_| true);
    let counted: HashMap<&str, f64> =
        counted.iter().map(|common| (common.episode.id.as_str(), common.score)).collect();
    let here = |common: &Common| counted.get(common.episode.id.as_str()).copied().unwrap_or_default();
    let there = far.iter().map(|(common, _)| common.score).sum::<f64>();
    let measure = there / far.iter().map(|(common, _)| here(common)).sum::<f64>().max(1e-9);
    let measure = if there > 0.0 { measure } else { 1.0 };
    let near = near.iter().map(|common| Common { score: measure * here(common), ..common.clone() });
    let mut all: Vec<Common> = near.chain(far.iter().map(|(common, _)| common.clone())).collect();
    let least = all.iter().filter_map(|common| common.alike).fold(f64::INFINITY, f64::min);
    if least.is_finite() {
        let alike = |common: &Common| common.alike.unwrap_or(least);
        let words = Spread::of(all.iter().map(|common| common.score));
        let means = Spread::of(all.iter().map(alike));
        for common in &mut all {
            common.score = words.scaled(common.score) + means.scaled(alike(common));
        }
    }
    all
}

/// Where numbers lie.
struct Spread {
    mean: f64,
    deviation: f64,
}

impl Spread {
    fn of(numbers: impl Iterator<Item = f64> + Clone) -> Self {
        let count = numbers.clone().count().max(1) as f64;
        let mean = numbers.clone().sum::<f64>() / count;
        let spread = numbers.map(|number| (number - mean).powi(2)).sum::<f64>() / count;
        Self { mean, deviation: spread.sqrt().max(1e-9) }
    }

    fn scaled(&self, number: f64) -> f64 {
        (number - self.mean) / self.deviation
    }
}

/// Words without those that were there before.
fn distinct(words: &[String]) -> Vec<&str> {
    let mut seen = HashSet::new();
    words.iter().map(String::as_str).filter(|word| seen.insert(*word)).collect()
}
