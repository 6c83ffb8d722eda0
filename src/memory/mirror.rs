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
use super::meaning::{Meanings, Unsaved};
use super::store::{self, Table, Vectors};

/// Vectors of a large table that are looked at.
const SAMPLE: usize = 1000;

/// Episodes and what is known of them, as they were when they were last looked at.
#[derive(Debug, Default)]
pub struct Mirror {
    /// The episodes: all of them, or if the table is large those that wait.
    pub index: Index,
    /// How far the ledger had come.
    pub now: Now,
    /// Ids of what waits for the table.
    pub waiting: Vec<String>,
    /// Episodes up to which the whole table is kept here.
    room: usize,
    version: Option<u64>,
    large: bool,
    /// What waits and is not to be found: it repeats another one, or cannot be read.
    skipped: HashSet<String>,
    histories: HashMap<String, History>,
    /// The ids in [`Self::histories`], by the turns they were born in.
    born: HashMap<String, Vec<String>>,
    /// What episodes mean.
    pub meanings: Meanings,
    /// Which version of their table was read.
    meant: Option<u64>,
    /// Of a large table, the episodes that have no vector, where that is known.
    lacking: Option<Vec<String>>,
}

impl Mirror {
    /// Nothing yet, with room for so many episodes.
    pub fn new(room: usize) -> Self {
        Self { room, ..Self::default() }
    }

    /// Looks at what has changed.
    pub async fn refresh(&mut self, ledger: &Ledger, table: Option<&Table>) -> Result<(), Error> {
        // What is on its way is seen twice rather than not at all.
        let (waiting, changes) = ledger.look(self.now.change).await?;
        let version = match table {
            Some(table) => Some(table.version().await?),
            None => None,
        };
        if version != self.version {
            let large = match table {
                Some(table) => table.count().await? > self.room,
                None => false,
            };
            let mut index = Index::default();
            if let Some(table) = table.filter(|_| !large) {
                for found in table.whole().await? {
                    add(&mut index, &self.meanings, found.episode, &found.key, &found.words);
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
                if add(&mut self.index, &self.meanings, episode, &key, &words) {
                    skipped.remove(&id);
                }
            }
            self.skipped.extend(skipped);
        }
        self.waiting = waiting;
        let born = changes.turns.iter().filter_map(|turn| self.born.remove(turn)).flatten();
        for id in born.chain(changes.episodes) {
            self.histories.remove(&id);
        }
        self.now = changes.now;
        Ok(())
    }

    /// Whether no table of vectors was looked at yet.
    pub fn is_unmeant(&self) -> bool {
        self.meant.is_none()
    }

    /// Reads the vectors of this length anew, if others have written some. Of a large table only so
    /// many that it is known how alike they are.
    pub async fn refresh_meanings(&mut self, table: &Vectors) -> Result<(), Error> {
        let (length, version) = (table.length, Some(table.version().await?));
        if (self.meanings.length(), self.meant) == (length, version) {
            return Ok(());
        }
        let mut meanings = if self.large {
            Meanings::sampled(length, table.all(Some(SAMPLE)).await?.values())
        } else {
            let mut meanings = Meanings::new(length);
            for (id, vector) in table.all(None).await? {
                meanings.add(&id, &vector);
            }
            meanings
        };
        for unsaved in self.meanings.unsaved() {
            meanings.learn(unsaved.clone());
        }
        self.index.mean_all(|id| meanings.place(id));
        (self.meanings, self.meant, self.lacking) = (meanings, version, None);
        Ok(())
    }

    /// Keeps the vector of an episode.
    pub fn mean(&mut self, episode: &Episode, vector: Vec<f32>) {
        let (id, scope) = (episode.id.clone(), episode.scope.clone());
        if let Some(place) = self.meanings.learn(Unsaved { id, scope, vector }) {
            self.index.mean(&episode.id, place);
        }
    }

    /// At most `limit` episodes that have no vector yet.
    pub async fn unmeant(
        &mut self,
        table: Option<&Table>,
        vectors: Option<&Vectors>,
        limit: usize,
    ) -> Result<Vec<Arc<Episode>>, Error> {
        let mut found: Vec<Arc<Episode>> = self.index.unmeant().take(limit).cloned().collect();
        if let Some(table) = table.filter(|_| self.large && found.len() < limit) {
            if self.lacking.is_none() {
                let known: HashSet<String> = match vectors {
                    Some(vectors) => vectors.ids().await?.into_iter().collect(),
                    None => HashSet::new(),
                };
                let all = table.ids().await?.into_iter();
                self.lacking = Some(all.filter(|id| !known.contains(id)).collect());
            }
            let lacking = self.lacking.as_mut().expect("just looked");
            let ids = lacking.split_off(lacking.len().saturating_sub(limit - found.len()));
            let ids: Vec<&str> = ids.iter().map(String::as_str).filter(|id| !self.meanings.has(id)).collect();
            found.extend(table.get(&ids).await?.into_iter().map(Arc::new));
        }
        Ok(found)
    }

    /// The table of vectors has changed in no other way than this process wanted.
    pub fn follow_meanings(&mut self, version: u64) {
        self.meant = Some(version);
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

fn add(index: &mut Index, meanings: &Meanings, episode: Episode, key: &str, words: &str) -> bool {
    let episode = Arc::new(episode);
    let is_new = index.add(episode.clone(), key.split_whitespace(), words.split_whitespace());
    if let Some(place) = meanings.place(&episode.id) {
        index.mean(&episode.id, place);
    }
    is_new
}
