//! What can be recalled, in RAM, and how it is kept in step.
//!
//! Three things change without us, in this process or another: the table, what waits to be taken
//! there, and the ledger. Each says cheaply whether it has: by its version, by ids, by the number of
//! its last change.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::episode::Episode;
use super::error::Error;
use super::index::Index;
use super::ledger::{History, Ledger, Now};
use super::rank::Scale;
use super::store::{self, Table, Vectors};

/// Vectors from which on it is known how alike they usually are, and pairs that are compared for
/// it.
const FEW: usize = 20;
const SAMPLE: usize = 500;
/// Deviations above what is usual from which on something may be meant: one in five is.
const GATE: f64 = 0.84;
/// Episodes up to which the whole table is kept here. Beyond, the table's own index is slower to
/// ask but need not be read first.
const LARGE: usize = 200_000;

/// Episodes and what is known of them, as they were when they were last looked at.
#[derive(Debug, Default)]
pub struct Mirror {
    /// The episodes: all of them, or if the table is large those that wait.
    pub index: Index,
    /// How far the ledger had come.
    pub now: Now,
    /// Ids of what waits for the table.
    pub waiting: Vec<String>,
    version: Option<u64>,
    large: bool,
    /// What waits and is not to be found: it repeats another one, or cannot be read.
    skipped: HashSet<String>,
    histories: HashMap<String, History>,
    /// The ids in [`Self::histories`], by the turns they were born in.
    born: HashMap<String, Vec<String>>,
    /// What episodes mean, by their ids.
    pub meanings: Meanings,
}

/// Vectors of episodes, all from one embedder.
#[derive(Debug, Default)]
pub struct Meanings {
    vectors: HashMap<String, Vec<f32>>,
    length: usize,
    version: Option<u64>,
    unsaved: HashSet<String>,
    scale: Option<Scale>,
}

impl Meanings {
    /// Vectors of this length, as the table has them.
    pub async fn refresh(&mut self, table: &Vectors, length: usize) -> Result<(), Error> {
        let version = Some(table.version().await?);
        if (self.length, self.version) != (length, version) {
            let mut vectors = table.all().await?;
            if self.length == length {
                let unsaved = self.unsaved.iter();
                vectors.extend(unsaved.filter_map(|id| Some((id.clone(), self.vectors.get(id)?.clone()))));
            }
            (self.vectors, self.length, self.version, self.scale) = (vectors, length, version, None);
        }
        Ok(())
    }

    /// Whether no table was looked at yet.
    pub fn is_unread(&self) -> bool {
        self.version.is_none()
    }

    /// Keeps the vector of an episode.
    pub fn add(&mut self, id: &str, vector: Vec<f32>) {
        if vector.len() == self.length {
            self.vectors.insert(id.to_owned(), vector);
            self.unsaved.insert(id.to_owned());
            // It moves little with each, but it should move.
            if self.unsaved.len().is_multiple_of(SAMPLE) {
                self.scale = None;
            }
        }
    }

    /// Whether an episode has a vector.
    pub fn has(&self, id: &str) -> bool {
        self.vectors.contains_key(id)
    }

    /// Those that are in no table yet, and the length of all.
    pub fn unsaved(&self) -> (Vec<(&str, &[f32])>, usize) {
        let unsaved =
            self.unsaved.iter().filter_map(|id| Some((id.as_str(), self.vectors.get(id)?.as_slice())));
        (unsaved.collect(), self.length)
    }

    /// All of them are in their table, whose version is this.
    pub fn saved(&mut self, version: u64) {
        self.unsaved.clear();
        self.version = Some(version);
    }

    /// How alike an episode and a vector are: the cosine.
    pub fn alike(&self, id: &str, other: &[f32]) -> Option<f64> {
        let vector = self.vectors.get(id).filter(|vector| vector.len() == other.len())?;
        Some(f64::from(vector.iter().zip(other).map(|(a, b)| a * b).sum::<f32>()))
    }

    /// How alike two episodes usually are, from pairs of them: each with one that is far from it in
    /// the order of ids.
    pub fn scale(&mut self) -> Option<Scale> {
        if self.scale.is_none() && self.vectors.len() >= FEW {
            let mut ids: Vec<&String> = self.vectors.keys().collect();
            ids.sort_unstable();
            let (half, step) = (ids.len() / 2, (ids.len() / SAMPLE).max(1));
            let pairs = ids.iter().zip(&ids[half..]).step_by(step);
            let alike: Vec<f64> = pairs.filter_map(|(a, b)| self.alike(a, &self.vectors[*b])).collect();
            let mean = alike.iter().sum::<f64>() / alike.len() as f64;
            let spread = alike.iter().map(|alike| (alike - mean).powi(2)).sum::<f64>() / alike.len() as f64;
            let deviation = spread.sqrt().max(0.01);
            self.scale = Some(Scale { mean, deviation, gate: (mean + GATE * deviation).min(0.9) });
        }
        self.scale
    }
}

impl Mirror {
    /// Looks at what has changed.
    pub async fn refresh(&mut self, ledger: &Ledger, table: Option<&Table>) -> Result<(), Error> {
        // What is on its way is seen twice rather than not at all.
        let waiting = ledger.waiting().await?;
        let version = match table {
            Some(table) => Some(table.version().await?),
            None => None,
        };
        if version != self.version {
            let large = match table {
                Some(table) => is_large(table).await?,
                None => false,
            };
            let mut index = Index::default();
            if let Some(table) = table.filter(|_| !large) {
                for found in table.whole().await? {
                    add(&mut index, found.episode, &found.key, &found.words);
                }
            }
            self.skipped.clear();
            (self.index, self.version, self.large) = (index, version, large);
        }
        let new = waiting.iter().filter(|id| !self.index.has(id) && !self.skipped.contains(*id));
        let new: Vec<&str> = new.map(String::as_str).collect();
        if !new.is_empty() {
            let mut skipped: HashSet<String> = new.iter().map(|id| (*id).to_owned()).collect();
            for episode in ledger.pending(&new).await? {
                let (id, (key, words)) = (episode.id.clone(), store::told(&episode));
                if add(&mut self.index, episode, &key, &words) {
                    skipped.remove(&id);
                }
            }
            self.skipped.extend(skipped);
        }
        self.waiting = waiting;
        let changes = ledger.changes(self.now.change).await?;
        let born = changes.turns.iter().filter_map(|turn| self.born.remove(turn)).flatten();
        for id in born.chain(changes.episodes) {
            self.histories.remove(&id);
        }
        self.now = changes.now;
        Ok(())
    }

    /// Whether the table has to be asked as well.
    pub fn is_large(&self) -> bool {
        self.large
    }

    /// Whether this episode, which waits, is worth its place in the table.
    pub fn is_new(&self, id: &str) -> bool {
        !self.skipped.contains(id)
    }

    /// The table has changed in no other way than this process wanted.
    pub fn follow(&mut self, version: u64) {
        self.version = Some(version);
        if self.large {
            self.index = Index::default();
        }
    }

    /// What is known of these episodes.
    pub async fn histories(
        &mut self,
        ledger: &Ledger,
        episodes: &[Arc<Episode>],
    ) -> Result<Vec<History>, Error> {
        let missing = episodes.iter().filter(|episode| !self.histories.contains_key(&episode.id));
        let missing: Vec<&Episode> = missing.map(AsRef::as_ref).collect();
        let mut found = ledger.histories(&missing).await?;
        for episode in missing {
            let history = found.remove(&episode.id).unwrap_or_default();
            self.histories.insert(episode.id.clone(), history);
            self.born.entry(episode.turn.clone()).or_default().push(episode.id.clone());
        }
        Ok(episodes.iter().map(|episode| self.histories[&episode.id].clone()).collect())
    }
}

/// Whether a table has more than is kept in RAM.
pub async fn is_large(table: &Table) -> Result<bool, Error> {
    Ok(table.count().await? > LARGE)
}

fn add(index: &mut Index, episode: Episode, key: &str, words: &str) -> bool {
    index.add(Arc::new(episode), key.split_whitespace(), words.split_whitespace())
}
