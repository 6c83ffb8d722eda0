//! What was learned: episodes of earlier turns, ranked by how well they fit and how often they
//! helped.
//!
//! A turn begins with [`Memory::recall`] and ends with [`Memory::add`], in the transaction that
//! ends it; [`Memory::settle`] takes what is new from the database to the table of episodes,
//! after the reply. What is acknowledged is in the database, so a process that is killed in
//! between loses nothing: the next one settles.

pub mod episode;
pub mod error;
pub mod evolve;
pub mod ledger;
pub mod rank;
pub mod recall;
pub mod store;
pub mod text;
pub mod tools;
pub mod value;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config;
use crate::store::lease::{self, Acquired, Lease, Owner};
use crate::store::{Store, Write};

pub use episode::{Episode, Kind, Outcome, Reader, Scope};
pub use error::Error;
pub use ledger::{History, Learning, Ledger, Told};
pub use rank::Ranked;
pub use recall::Recall;
pub use value::{Reward, Source, Trust, Value};

use recall::Picked;
use store::{Found, Table};

/// Found by their words, before anything is compared.
const DEPTH: usize = 100;
/// Turns of a session that its conversation still shows.
const RECENT: i64 = 8;
/// Characters of a question that are looked at.
const QUESTION: usize = 4000;
/// How long a writer may take, and how long another one waits for it.
const WRITING: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(5);
/// Turns in which a new episode is not evicted.
const PROTECTED: u64 = 100;

/// The memory. It opens its table when there is something in it.
#[derive(Debug)]
pub struct Memory {
    ledger: Ledger,
    store: Store,
    folder: PathBuf,
    settings: Settings,
    owner: Owner,
    table: tokio::sync::Mutex<Option<Table>>,
    writer: tokio::sync::Mutex<()>,
}

/// How it recalls, and how much it keeps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// How many are compared and shown.
    pub rank: rank::Settings,
    /// Tokens that may be shown.
    pub tokens: usize,
    /// Episodes that are kept.
    pub capacity: usize,
}

impl From<&config::Memory> for Settings {
    fn from(memory: &config::Memory) -> Self {
        let config::Memory { k1, k2, lambda, tokens, capacity, .. } = *memory;
        Self { rank: rank::Settings { k1, k2, lambda }, tokens, capacity }
    }
}

/// An episode with what it is worth now, as it is shown and exported.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Worth {
    /// The episode.
    #[serde(flatten)]
    pub episode: Episode,
    /// What it has earned, from −1 to 1.
    #[serde(default)]
    pub value: f64,
    /// Turns it was judged by.
    #[serde(default)]
    pub tries: usize,
    /// Of these, the ones that went well.
    #[serde(default)]
    pub wins: usize,
    /// How similar it is to what was searched for, in deviations above what is usual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub similarity: Option<f64>,
}

impl Memory {
    /// The memory in the database and the data folder.
    pub fn new(store: Store, data: &Path, settings: Settings) -> Self {
        Self {
            ledger: Ledger::new(store.clone()),
            store,
            folder: store::folder(data),
            settings,
            owner: Owner::new(),
            table: tokio::sync::Mutex::default(),
            writer: tokio::sync::Mutex::default(),
        }
    }

    /// What helps with this question, ready for the prompt. Nothing, if nothing fits.
    pub async fn recall(
        &self,
        asked: &str,
        reader: &Reader,
        cost: &(dyn Fn(&str) -> usize + Sync),
    ) -> Result<Recall, Error> {
        // What the last process had no time for.
        self.settle().await?;
        let mut found = self.find(asked, reader).await?;
        let ranked = self.pick(&found, self.settings.rank);
        let picked = ranked.into_iter().filter_map(|ranked| {
            let place = found.iter().position(|(found, _)| found.episode.id == ranked.id)?;
            let (found, history) = found.swap_remove(place);
            Some(Picked { episode: found.episode, ranked, birth: history.birth })
        });
        Ok(recall::render(picked.collect(), self.settings.tokens, cost))
    }

    /// Episodes that share words with the question, and that its conversation does not show.
    async fn find(&self, asked: &str, reader: &Reader) -> Result<Vec<(Compared, History)>, Error> {
        let Some(table) = self.table().await? else { return Ok(Vec::new()) };
        let question = store::words(&text::cut(asked, QUESTION));
        let mut found = table.search(&question, &reader.scopes(), DEPTH).await?;
        let recent: HashSet<String> =
            self.ledger.recent(&reader.session, RECENT).await?.into_iter().collect();
        found.retain(|found| found.episode.kind == Kind::Note || !recent.contains(&found.episode.turn));
        let histories =
            self.ledger.histories(&found.iter().map(|found| &found.episode).collect::<Vec<_>>()).await?;
        let compared = found.into_iter().map(|Found { episode, key, .. }| {
            let history = histories.get(&episode.id).cloned().unwrap_or_default();
            (Compared { words: rank::share(&question, &key), episode }, history)
        });
        Ok(compared.filter(|(_, history)| !history.undone).collect())
    }

    fn pick(&self, found: &[(Compared, History)], settings: rank::Settings) -> Vec<Ranked> {
        let candidates: Vec<_> = found.iter().map(|(found, history)| found.candidate(history)).collect();
        rank::pick(&candidates, settings, rank::WORDS, None)
    }

    /// Writes down what a turn teaches, in the transaction that ends it.
    pub async fn add(&self, write: &mut Write, learning: &Learning, now: Timestamp) -> Result<(), Error> {
        self.ledger.add(write, learning, now).await
    }

    /// Takes what is new to the table of episodes, where it can be found. What another process
    /// is just doing is left to it.
    pub async fn settle(&self) -> Result<(), Error> {
        if self.ledger.pending().await?.is_empty() {
            return Ok(());
        }
        let settled = self.writing(async |table| {
            let pending = self.ledger.pending().await?;
            let mut new = Vec::new();
            for episode in &pending {
                if !self.is_known(table, episode).await? {
                    new.push(episode.clone());
                }
            }
            table.put(&new).await?;
            let ids: Vec<&str> = pending.iter().map(|episode| episode.id.as_str()).collect();
            self.ledger.arrived(&ids).await?;
            self.evict(table).await?;
            table.tend().await
        });
        match settled.await {
            Err(Error::Busy) => Ok(()),
            other => other,
        }
    }

    /// Whether the same was learned before, to the letter.
    async fn is_known(&self, table: &Table, episode: &Episode) -> Result<bool, Error> {
        let told = if episode.intent.is_empty() { &episode.experience } else { &episode.intent };
        let alike = table.search(&store::words(told), std::slice::from_ref(&episode.scope), 10).await?;
        Ok(alike.iter().any(|found| found.episode.id != episode.id && found.episode.repeats(episode)))
    }

    /// Removes the least valuable episodes where there are too many: those that are pinned, noted
    /// or young stay.
    async fn evict(&self, table: &Table) -> Result<(), Error> {
        let capacity = self.settings.capacity;
        if capacity == 0 || table.count().await? <= capacity {
            return Ok(());
        }
        let all = table.all().await?;
        let histories = self.ledger.histories(&all.iter().collect::<Vec<_>>()).await?;
        let mut worth: Vec<(f64, &Episode)> = Vec::new();
        for episode in all.iter().filter(|episode| !episode.pinned && episode.kind == Kind::Episode) {
            let history = &histories[&episode.id];
            let known = value::value(episode.trust, history.birth, history.uses.iter().copied());
            if history.idle >= PROTECTED {
                // Little is known of what was tried little.
                worth.push((known.value - 0.3 / (known.tries as f64 + 1.0).sqrt(), episode));
            }
        }
        worth.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        // A tenth more than has to go, so that not every turn evicts.
        let surplus = all.len() - capacity + capacity / 10;
        let gone: Vec<&Episode> = worth.into_iter().take(surplus).map(|(_, episode)| episode).collect();
        self.remove(table, &gone).await
    }

    async fn remove(&self, table: &Table, episodes: &[&Episode]) -> Result<(), Error> {
        if episodes.is_empty() {
            return Ok(());
        }
        let ids: Vec<&str> = episodes.iter().map(|episode| episode.id.as_str()).collect();
        let turns: Vec<&str> = episodes.iter().map(|episode| episode.turn.as_str()).collect();
        table.erase(&ids).await?;
        self.ledger.forget(&ids, &turns).await
    }

    /// The table, if there is one yet.
    async fn table(&self) -> Result<Option<Table>, Error> {
        let mut table = self.table.lock().await;
        if table.is_none() {
            *table = Table::open(&self.folder).await?;
        }
        Ok(table.clone())
    }

    /// Does something to the table while nobody else does, in this process or another.
    async fn writing<T>(&self, work: impl AsyncFnOnce(&Table) -> Result<T, Error>) -> Result<T, Error> {
        let _alone = self.writer.lock().await;
        let lease = self.lease().await?;
        let done = async {
            let mut table = self.table.lock().await;
            if table.is_none() {
                *table = Some(Table::create(&self.folder).await?);
            }
            let open = table.clone().expect("just made");
            drop(table);
            work(&open).await
        };
        // Longer than its lease it must not take.
        let done = tokio::time::timeout(WRITING, done).await.unwrap_or(Err(Error::Busy));
        if let Err(error) = lease::release(&self.store, &lease).await {
            tracing::warn!("the lease of the memory stays until it ends: {error}");
        }
        done
    }

    async fn lease(&self) -> Result<Lease, Error> {
        let name = format!("memory:{}", self.folder.display());
        let began = tokio::time::Instant::now();
        loop {
            let lease =
                lease::acquire(&self.store, &name, &self.owner, 2 * WRITING, Timestamp::now()).await?;
            match lease {
                Acquired::Mine(lease) => return Ok(lease),
                Acquired::Held { .. } if began.elapsed() > PATIENCE => return Err(Error::Busy),
                Acquired::Held { .. } => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

/// What people do with it.
impl Memory {
    /// Everything there is, the youngest first.
    pub async fn list(&self) -> Result<Vec<Worth>, Error> {
        self.settle().await?;
        let Some(table) = self.table().await? else { return Ok(Vec::new()) };
        let all = table.all().await?;
        self.worth(all).await
    }

    /// What fits the question, the best first, without the limits of a prompt.
    pub async fn search(&self, asked: &str, reader: &Reader, limit: usize) -> Result<Vec<Worth>, Error> {
        self.settle().await?;
        let mut found = self.find(asked, reader).await?;
        found.sort_by(|(a, _), (b, _)| b.words.total_cmp(&a.words));
        found.truncate(limit);
        let found = found.into_iter().map(|(found, history)| {
            let similarity = rank::similarity(&found.candidate(&history), rank::WORDS, None);
            Worth { similarity, ..judged(found.episode, &history) }
        });
        Ok(found.collect())
    }

    /// The one memory of this id, or whose id begins so.
    pub async fn get(&self, id: &str) -> Result<Worth, Error> {
        let mut found = self.list().await?;
        found.retain(|worth| worth.episode.id.starts_with(id));
        if let Some(place) = found.iter().position(|worth| worth.episode.id == id) {
            return Ok(found.swap_remove(place));
        }
        match found.len() {
            0 => Err(Error::Unknown(id.to_owned())),
            1 => Ok(found.remove(0)),
            _ => Err(Error::Ambiguous(id.to_owned())),
        }
    }

    /// What these are worth now.
    pub async fn worth(&self, episodes: Vec<Episode>) -> Result<Vec<Worth>, Error> {
        let histories = self.ledger.histories(&episodes.iter().collect::<Vec<_>>()).await?;
        Ok(episodes
            .into_iter()
            .map(|episode| {
                let history = histories.get(&episode.id).cloned().unwrap_or_default();
                judged(episode, &history)
            })
            .collect())
    }

    /// The episodes of these ids that are still there.
    pub async fn named(&self, ids: &[&str]) -> Result<Vec<Worth>, Error> {
        self.settle().await?;
        let Some(table) = self.table().await? else { return Ok(Vec::new()) };
        let episodes = table.get(ids).await?;
        self.worth(episodes).await
    }

    /// What the memory did in a turn; without one, in the last.
    pub async fn why(&self, turn: Option<&str>) -> Result<Told, Error> {
        let last = match turn {
            Some(turn) => turn.to_owned(),
            None => self.ledger.last(None).await?.ok_or_else(|| Error::Turn("(the last)".to_owned()))?,
        };
        self.ledger.tell(&last).await
    }

    /// The last turn of a session.
    pub async fn last(&self, session: &str) -> Result<Option<String>, Error> {
        self.ledger.last(Some(session)).await
    }

    /// A person's verdict on a turn.
    pub async fn judge(&self, turn: &str, good: bool) -> Result<(), Error> {
        self.ledger.tell(turn).await?;
        self.ledger.judge(turn, if good { 1.0 } else { -1.0 }, Timestamp::now()).await
    }

    /// Takes back what a turn taught, or lets it count again.
    pub async fn undo(&self, turn: &str, undone: bool) -> Result<(), Error> {
        self.ledger.tell(turn).await?;
        self.ledger.undo(turn, undone).await
    }

    /// The turns since a moment.
    pub async fn since(&self, moment: Timestamp) -> Result<Vec<String>, Error> {
        self.ledger.since(moment).await
    }

    /// Keeps a note.
    pub async fn note(
        &self,
        note: &str,
        reader: &Reader,
        trust: Trust,
        workspace: &Path,
    ) -> Result<Episode, Error> {
        let note = Episode {
            id: uuid::Uuid::now_v7().to_string(),
            kind: Kind::Note,
            scope: reader.own(),
            intent: String::new(),
            experience: kept(note, episode::EXPERIENCE),
            outcome: Outcome::Unknown,
            trust,
            session: reader.session.clone(),
            turn: String::new(),
            workspace: workspace.display().to_string(),
            created: Timestamp::now(),
            pinned: false,
            superseded: None,
        };
        self.put(std::slice::from_ref(&note)).await?;
        Ok(note)
    }

    /// Puts other words in the place of an episode's. The old one is kept, out of sight.
    pub async fn edit(&self, id: &str, experience: &str) -> Result<Episode, Error> {
        let old = self.get(id).await?.episode;
        let new = Episode {
            id: uuid::Uuid::now_v7().to_string(),
            experience: kept(experience, episode::EXPERIENCE),
            trust: Trust::Said,
            created: Timestamp::now(),
            ..old.clone()
        };
        let old = Episode { superseded: Some(new.id.clone()), ..old };
        self.put(&[new.clone(), old]).await?;
        Ok(new)
    }

    /// Keeps an episode from eviction, or no longer.
    pub async fn pin(&self, id: &str, pinned: bool) -> Result<Episode, Error> {
        let episode = Episode { pinned, ..self.get(id).await?.episode };
        self.put(std::slice::from_ref(&episode)).await?;
        Ok(episode)
    }

    /// Adds episodes that come from elsewhere: anybody may have written them.
    pub async fn import(&self, lines: &str) -> Result<usize, Error> {
        let lines = lines.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let read = lines.map(|(place, line)| {
            let read: Result<Worth, _> = serde_json::from_str(line);
            let episode =
                read.map_err(|error| Error::Line { line: place + 1, reason: error.to_string() })?.episode;
            Ok(Episode {
                trust: Trust::Foreign,
                intent: kept(&episode.intent, episode::INTENT),
                experience: kept(&episode.experience, episode::EXPERIENCE),
                ..episode
            })
        });
        let episodes: Vec<Episode> = read.collect::<Result<_, Error>>()?;
        self.put(&episodes).await?;
        Ok(episodes.len())
    }

    async fn put(&self, episodes: &[Episode]) -> Result<(), Error> {
        self.settle().await?;
        self.writing(async |table| {
            table.put(episodes).await?;
            table.tend().await
        })
        .await
    }

    /// Removes memories for good: from the table, its index and its older versions, and from the
    /// ledger. The conversations they come from stay.
    pub async fn forget(&self, ids: &[&str]) -> Result<Vec<Episode>, Error> {
        self.settle().await?;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        self.writing(async |table| {
            let mut all = table.all().await?;
            // What an edit has put out of sight goes with what took its place.
            all.retain(|episode| {
                ids.contains(&episode.id.as_str())
                    || episode.superseded.as_deref().is_some_and(|other| ids.contains(&other))
            });
            self.remove(table, &all.iter().collect::<Vec<_>>()).await?;
            Ok(all)
        })
        .await
    }

    /// Removes all that comes from a session, or everything; also what was asked in turns that
    /// taught nothing.
    pub async fn forget_all(&self, session: Option<&str>) -> Result<Vec<Episode>, Error> {
        let mut found = self.list().await?;
        found.retain(|worth| session.is_none_or(|session| worth.episode.session == session));
        let gone =
            self.forget(&found.iter().map(|worth| worth.episode.id.as_str()).collect::<Vec<_>>()).await?;
        self.ledger.blank(session).await?;
        Ok(gone)
    }

    /// Where the table is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// An episode that was found, with the words it has in common with the question.
struct Compared {
    episode: Episode,
    words: f64,
}

impl Compared {
    fn candidate(&self, history: &History) -> rank::Candidate {
        let known = value::value(self.episode.trust, history.birth, history.uses.iter().copied());
        let faded = value::faded(known.value, history.idle);
        rank::Candidate {
            id: self.episode.id.clone(),
            words: Some(self.words),
            meaning: None,
            value: if self.episode.pinned { faded.max(0.0) } else { faded },
            tries: known.tries,
            print: self.episode.print(),
            is_note: self.episode.kind == Kind::Note,
        }
    }
}

fn judged(episode: Episode, history: &History) -> Worth {
    let Value { value, tries, wins } =
        value::value(episode.trust, history.birth, history.uses.iter().copied());
    Worth { episode, value, tries, wins, similarity: None }
}

/// A text as it is kept: without secrets, and not longer than `limit` characters.
pub fn kept(text: &str, limit: usize) -> String {
    text::cut(&text::without_secrets(text), limit)
}
