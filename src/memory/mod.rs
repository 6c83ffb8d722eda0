//! What was learned: episodes of earlier turns, ranked by how well they fit and how often they
//! helped.
//!
//! A turn begins with [`Memory::recall`] and ends with [`Memory::add`], in the transaction that
//! ends it; what was added is found at once. [`Memory::settle`] takes what is new from the database
//! to the table of episodes, many at a time, after a reply. What is acknowledged is in the
//! database, so a process that is killed in between loses nothing: the next one settles.

pub mod episode;
pub mod error;
pub mod evolve;
pub mod index;
pub mod ledger;
pub mod locomo;
pub mod mirror;
pub mod plot;
pub mod rank;
pub mod recall;
pub mod store;
pub mod text;
pub mod tools;
pub mod value;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config;
use crate::llm::embed::{Embedder, TEXTS};
use crate::store::lease::{self, Acquired, Lease, Owner};
use crate::store::{Store, Write};

pub use episode::{Episode, Kind, Outcome, Reader, Scope};
pub use error::Error;
pub use ledger::{History, Learning, Ledger, Told};
pub use rank::Ranked;
pub use recall::Recall;
pub use value::{Reward, Source, Trust, Value};

use index::Common;
use mirror::Mirror;
use recall::Picked;
use store::{Table, Vectors};

/// Looked at more closely, of those that have words of the question.
const DEPTH: usize = 100;
/// Episodes that wait in the database before they are taken to the table: each time is a file.
const BATCH: usize = 64;
/// Turns of a session that its conversation still shows.
const RECENT: i64 = 8;
/// Characters of a question that are looked at.
const QUESTION: usize = 4000;
/// How long a writer may take, and how long another one waits for it.
const WRITING: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(5);
/// Requests for vectors after one turn, where an embedder is new to what is there.
const REQUESTS: usize = 16;
/// How long a search waits for the vector of a question before it goes by words alone.
const EMBEDDING: Duration = Duration::from_secs(2);
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
    mirror: tokio::sync::Mutex<Mirror>,
    writer: tokio::sync::Mutex<()>,
    embedder: Option<Arc<dyn Embedder>>,
}

/// How it recalls, and how much it keeps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// How many are compared and shown.
    pub rank: rank::Settings,
    /// What they are worth.
    pub value: value::Rule,
    /// Tokens that may be shown.
    pub tokens: usize,
    /// Episodes that are kept.
    pub capacity: usize,
}

impl From<&config::Memory> for Settings {
    fn from(memory: &config::Memory) -> Self {
        let config::Memory { k1, k2, lambda, tokens, capacity, .. } = *memory;
        let rank = rank::Settings { k1, k2, lambda, probation: rank::PROBATION };
        Self { rank, value: value::RULE, tokens, capacity }
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
            mirror: tokio::sync::Mutex::default(),
            writer: tokio::sync::Mutex::default(),
            embedder: None,
        }
    }

    /// The same, with meanings beside words.
    pub fn with_embedder(self, embedder: Arc<dyn Embedder>) -> Self {
        Self { embedder: Some(embedder), ..self }
    }

    /// What helps with this question, ready for the prompt. Nothing, if nothing fits.
    pub async fn recall(
        &self,
        asked: &str,
        reader: &Reader,
        cost: &(dyn Fn(&str) -> usize + Sync),
    ) -> Result<Recall, Error> {
        let found = self.find(asked, reader, By::Worth).await?;
        let ranked = self.pick(&found, self.settings.rank);
        let picked = ranked.into_iter().filter_map(|ranked| {
            let found = found.iter().find(|found| found.episode.id == ranked.id)?;
            Some(Picked { episode: Episode::clone(&found.episode), ranked, birth: found.history.birth })
        });
        Ok(recall::render(picked.collect(), self.settings.tokens, cost))
    }

    /// The episodes that have most in common with the question, and that its conversation does
    /// not show.
    async fn find(&self, asked: &str, reader: &Reader, by: By) -> Result<Vec<Compared>, Error> {
        let (question, scopes) = (store::words(&text::cut(asked, QUESTION)), reader.scopes());
        let recent: HashSet<String> =
            self.ledger.recent(&reader.session, RECENT).await?.into_iter().collect();
        let may = |episode: &Episode| {
            let shown = episode.kind == Kind::Episode && recent.contains(&episode.turn);
            !shown && episode.superseded.is_none() && scopes.contains(&episode.scope)
        };
        let table = self.table().await?;
        let (meant, _) = self.meant(Some(asked), table.as_ref()).await?;
        let mut mirror = self.mirror.lock().await;
        mirror.refresh(&self.ledger, table.as_ref()).await?;
        let question = if by == By::Fit { text::asked(question) } else { question };
        let alike = |id: &str| mirror.meanings.alike(id, meant.as_ref()?);
        let mut common = match by {
            By::Worth => mirror.index.compare(&question, may),
            By::Fit if meant.is_some() => mirror.index.search_with(&question, may, alike),
            By::Fit => mirror.index.search(&question, may),
        };
        if by == By::Worth && meant.is_some() {
            // What means the same in other words.
            let seen: HashSet<String> = common.iter().map(|common| common.episode.id.clone()).collect();
            let others = mirror.index.all(may).filter(|episode| !seen.contains(&episode.id));
            common.extend(others.map(|episode| Common::nothing(episode.clone())));
        }
        if let Some(table) = table.filter(|_| mirror.is_large()) {
            let found = table.search(&question, &scopes, DEPTH).await?.into_iter();
            let found = found.filter(|found| may(&found.episode) && !mirror.index.has(&found.episode.id));
            common.extend(found.map(|found| Common {
                share: rank::share(&question, &found.key),
                score: found.score,
                episode: Arc::new(found.episode),
            }));
        }
        let alike: Vec<Option<f64>> = common.iter().map(|common| alike(&common.episode.id)).collect();
        let scale = mirror.meanings.scale().filter(|_| meant.is_some());
        let mut common: Vec<_> = common.into_iter().zip(alike).collect();
        let order = |(common, alike): &(Common, Option<f64>)| match by {
            By::Fit => common.score,
            By::Worth => rank::closeness(Some(common.share), *alike, rank::WORDS, scale),
        };
        common
            .sort_by(|a, b| order(b).total_cmp(&order(a)).then_with(|| b.0.episode.id.cmp(&a.0.episode.id)));
        common.truncate(DEPTH);
        let episodes: Vec<_> = common.iter().map(|(common, _)| common.episode.clone()).collect();
        let histories = mirror.histories(&self.ledger, &episodes).await?;
        let compared = common.into_iter().zip(histories).map(|((common, meaning), history)| {
            let idle = history.idle(mirror.now.tick);
            Compared { episode: common.episode, words: common.share, meaning, scale, history, idle }
        });
        Ok(compared.filter(|found| !found.history.undone).collect())
    }

    /// The vector of a question, if there is an embedder that answers in time. Episodes that have
    /// none yet go along; how many did is returned with it. Where there is no question and no such
    /// episode, nobody is asked.
    async fn meant(
        &self,
        asked: Option<&str>,
        table: Option<&Table>,
    ) -> Result<(Option<Vec<f32>>, usize), Error> {
        let Some(embedder) = &self.embedder else { return Ok((None, 0)) };
        let new = {
            let mut mirror = self.mirror.lock().await;
            mirror.refresh(&self.ledger, table).await?;
            if mirror.meanings.is_unread()
                && let Some(length) = Vectors::length(&self.folder, embedder.identity()).await?
            {
                let stored = Vectors::open(&self.folder, embedder.identity(), length).await?;
                mirror.meanings.refresh(&stored, length).await?;
            }
            let new = mirror.index.all(|episode| episode.superseded.is_none());
            let new = new.filter(|episode| !mirror.meanings.has(&episode.id));
            new.take(TEXTS - 1).cloned().collect::<Vec<_>>()
        };
        let key = |episode: &Arc<Episode>| match episode.intent.is_empty() {
            true => episode.experience.clone(),
            false => episode.intent.clone(),
        };
        let question = asked.map(|asked| text::cut(asked, episode::INTENT));
        let texts: Vec<String> = question.into_iter().chain(new.iter().map(key)).collect();
        if texts.is_empty() {
            return Ok((None, 0));
        }
        let mut vectors = match tokio::time::timeout(EMBEDDING, embedder.embed(&texts)).await {
            Ok(Ok(vectors)) => vectors,
            Ok(Err(error)) => {
                tracing::warn!("the memory goes by words alone: {error}");
                return Ok((None, 0));
            }
            Err(_) => {
                tracing::warn!("the memory goes by words alone: {} takes too long", embedder.identity());
                return Ok((None, 0));
            }
        };
        let Some(length) = vectors.first().map(Vec::len) else { return Ok((None, 0)) };
        let question = asked.map(|_| vectors.remove(0));
        let stored = Vectors::open(&self.folder, embedder.identity(), length).await?;
        let mut mirror = self.mirror.lock().await;
        mirror.meanings.refresh(&stored, length).await?;
        for (episode, vector) in new.iter().zip(vectors) {
            mirror.meanings.add(&episode.id, vector);
        }
        Ok((question, new.len()))
    }

    /// Gives vectors to episodes that have none yet, in at most so many requests.
    async fn backfill(&self, requests: usize) -> Result<(), Error> {
        let table = self.table().await?;
        for _ in 0..requests {
            let (_, embedded) = self.meant(None, table.as_ref()).await?;
            if embedded < TEXTS - 1 {
                break;
            }
        }
        Ok(())
    }

    /// Takes new vectors to their table, but for those of what was forgotten meanwhile.
    async fn keep_meanings(&self, mirror: &mut Mirror) -> Result<(), Error> {
        let Some(embedder) = &self.embedder else { return Ok(()) };
        let (unsaved, length) = mirror.meanings.unsaved();
        let unsaved: Vec<_> = unsaved.into_iter().filter(|(id, _)| mirror.index.has(id)).collect();
        if unsaved.is_empty() {
            return Ok(());
        }
        let stored = Vectors::open(&self.folder, embedder.identity(), length).await?;
        stored.put(&unsaved).await?;
        let version = stored.version().await?;
        mirror.meanings.saved(version);
        Ok(())
    }

    fn pick(&self, found: &[Compared], settings: rank::Settings) -> Vec<Ranked> {
        let candidates: Vec<_> = found.iter().map(|found| self.candidate(found)).collect();
        let scale = found.first().and_then(|found| found.scale);
        rank::pick(&candidates, settings, rank::WORDS, scale)
    }

    fn candidate(&self, found: &Compared) -> rank::Candidate {
        let (episode, rule) = (&found.episode, self.settings.value);
        let known = rule.value(episode.trust, found.history.birth, found.history.uses.iter().copied());
        let faded = rule.faded(known.value, found.idle);
        rank::Candidate {
            id: episode.id.clone(),
            words: Some(found.words),
            meaning: found.meaning,
            value: if episode.pinned { faded.max(0.0) } else { faded },
            tries: known.tries,
            print: episode.print(),
            is_note: episode.kind == Kind::Note,
        }
    }

    /// Writes down what a turn teaches, in the transaction that ends it.
    pub async fn add(&self, write: &mut Write, learning: &Learning, now: Timestamp) -> Result<(), Error> {
        self.ledger.add(write, learning, now).await
    }

    /// Takes what is new to the table of episodes if there is much of it.
    pub async fn settle(&self) -> Result<(), Error> {
        self.backfill(REQUESTS).await?;
        let unsaved = self.mirror.lock().await.meanings.unsaved().0.len();
        if self.ledger.waiting().await?.len() < BATCH && unsaved < BATCH {
            return Ok(());
        }
        self.flush().await
    }

    /// Takes what is new to the table of episodes. What another process is just doing is left to
    /// it.
    pub async fn flush(&self) -> Result<(), Error> {
        let unsaved = self.mirror.lock().await.meanings.unsaved().0.len();
        if self.ledger.waiting().await?.is_empty() && unsaved == 0 {
            return Ok(());
        }
        let flushed = self.writing(async |table| {
            let mut mirror = self.mirror.lock().await;
            mirror.refresh(&self.ledger, Some(table)).await?;
            let waiting: Vec<&str> = mirror.waiting.iter().map(String::as_str).collect();
            let pending = self.ledger.pending(&waiting).await?;
            // The same was learned before, to the letter.
            let new: Vec<_> = pending.iter().filter(|episode| mirror.is_new(&episode.id)).cloned().collect();
            table.put(&new).await?;
            let ids: Vec<&str> = pending.iter().map(|episode| episode.id.as_str()).collect();
            self.ledger.arrived(&ids).await?;
            mirror.follow(table.version().await?);
            self.keep_meanings(&mut mirror).await?;
            let evicted = self.evict(table).await?;
            table.tend(mirror::is_large(table).await?).await?;
            if !evicted {
                mirror.follow(table.version().await?);
            }
            Ok(())
        });
        match flushed.await {
            Err(Error::Busy) => Ok(()),
            other => other,
        }
    }

    /// Removes the least valuable episodes where there are too many: those that are pinned, noted
    /// or young stay. Returns whether there were any.
    async fn evict(&self, table: &Table) -> Result<bool, Error> {
        let capacity = self.settings.capacity;
        if capacity == 0 || table.count().await? <= capacity {
            return Ok(false);
        }
        let all = table.all().await?;
        let histories = self.ledger.histories(&all.iter().collect::<Vec<_>>()).await?;
        let tick = self.ledger.changes(0).await?.now.tick;
        let mut worth: Vec<(f64, &Episode)> = Vec::new();
        for episode in all.iter().filter(|episode| !episode.pinned && episode.kind == Kind::Episode) {
            let history = &histories[&episode.id];
            let known = self.settings.value.value(episode.trust, history.birth, history.uses.iter().copied());
            if history.idle(tick) >= PROTECTED {
                // Little is known of what was tried little.
                worth.push((known.value - 0.3 / (known.tries as f64 + 1.0).sqrt(), episode));
            }
        }
        worth.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        // A tenth more than has to go, so that not every turn evicts.
        let surplus = all.len() - capacity + capacity / 10;
        let gone: Vec<&Episode> = worth.into_iter().take(surplus).map(|(_, episode)| episode).collect();
        self.remove(table, &gone).await?;
        Ok(!gone.is_empty())
    }

    async fn remove(&self, table: &Table, episodes: &[&Episode]) -> Result<(), Error> {
        if episodes.is_empty() {
            return Ok(());
        }
        let ids: Vec<&str> = episodes.iter().map(|episode| episode.id.as_str()).collect();
        let turns: Vec<&str> = episodes.iter().map(|episode| episode.turn.as_str()).collect();
        table.erase(&ids).await?;
        store::erase_vectors(&self.folder, &ids).await?;
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
        self.flush().await?;
        let Some(table) = self.table().await? else { return Ok(Vec::new()) };
        let all = table.all().await?;
        self.worth(all).await
    }

    /// What fits the question, the best first, without the limits of a prompt.
    pub async fn search(&self, asked: &str, reader: &Reader, limit: usize) -> Result<Vec<Worth>, Error> {
        let mut found = self.find(asked, reader, By::Fit).await?;
        found.truncate(limit);
        let found = found.into_iter().map(|found| {
            let similarity = rank::similarity(&self.candidate(&found), rank::WORDS, found.scale);
            Worth { similarity, ..self.judged(Episode::clone(&found.episode), &found.history) }
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
                self.judged(episode, &history)
            })
            .collect())
    }

    /// The episodes of these ids that are still there.
    pub async fn named(&self, ids: &[&str]) -> Result<Vec<Worth>, Error> {
        self.flush().await?;
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

    /// How turns went, and what episodes are worth, as an image in SVG.
    pub async fn plot(&self) -> Result<String, Error> {
        let mut worth = self.list().await?;
        worth.retain(|worth| worth.episode.superseded.is_none() && worth.episode.kind == Kind::Episode);
        let values: Vec<f64> = worth.iter().map(|worth| worth.value).collect();
        Ok(plot::svg(&self.ledger.course().await?, &values))
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

    fn judged(&self, episode: Episode, history: &History) -> Worth {
        let uses = history.uses.iter().copied();
        let Value { value, tries, wins } = self.settings.value.value(episode.trust, history.birth, uses);
        Worth { episode, value, tries, wins, similarity: None }
    }

    async fn put(&self, episodes: &[Episode]) -> Result<(), Error> {
        self.flush().await?;
        self.writing(async |table| {
            table.put(episodes).await?;
            table.tend(mirror::is_large(table).await?).await
        })
        .await
    }

    /// Removes memories for good: from the table, its index and its older versions, and from the
    /// ledger. The conversations they come from stay.
    pub async fn forget(&self, ids: &[&str]) -> Result<Vec<Episode>, Error> {
        self.flush().await?;
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

/// What a search is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// For a prompt: what is most like what is asked, to be weighed by what it has earned.
    Worth,
    /// For people: what answers the question best.
    Fit,
}

/// An episode that was found, with what it has in common with the question.
struct Compared {
    episode: Arc<Episode>,
    words: f64,
    meaning: Option<f64>,
    /// How alike meanings usually are.
    scale: Option<rank::Scale>,
    history: History,
    idle: u64,
}

/// A text as it is kept: without secrets, and not longer than `limit` characters.
pub fn kept(text: &str, limit: usize) -> String {
    text::cut(&text::without_secrets(text), limit)
}
