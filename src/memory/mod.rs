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
pub mod fact;
pub mod index;
pub mod ledger;
pub mod locomo;
mod manage;
pub mod meaning;
pub mod mirror;
pub mod plot;
pub mod rank;
pub mod recall;
pub mod store;
pub mod text;
pub mod tools;
mod upkeep;
pub mod value;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config;
use crate::llm::embed::{Embedder, TEXTS};
use crate::store::lease::Owner;
use crate::store::{Statement, Store, Write};

pub use episode::{Episode, Kind, Outcome, Reader, Scope};
pub use error::Error;
pub use ledger::{History, Learning, Ledger, Told};
pub use manage::Noted;
pub use rank::Ranked;
pub use recall::Recall;
pub use value::{Reward, Source, Trust, Value};

use index::Common;
use mirror::Mirror;
use recall::Picked;
use store::{Found, Table, Vectors};

/// Looked at more closely, of those that have words of the question.
const DEPTH: usize = 100;
/// Turns of a session that its conversation still shows.
const RECENT: i64 = 8;
/// Characters of a question that are looked at.
const QUESTION: usize = 4000;
/// How long a turn waits for the vector of a question before it goes by words alone; a search of
/// people's, who want the best there is; and what is done in the background.
const TURN: Duration = Duration::from_secs(2);
const SEARCH: Duration = Duration::from_secs(10);
const BACKGROUND: Duration = Duration::from_secs(30);

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
    vectors: tokio::sync::Mutex<Option<Vectors>>,
    /// There may be more that waits for the table than when it was last looked at.
    has_news: AtomicBool,
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
    /// Episodes up to which all are searched in RAM. Beyond, the table's own indexes are slower to
    /// ask but need not be read first.
    pub room: usize,
}

/// As turns have it.
const ROOM: usize = 200_000;

impl From<&config::Memory> for Settings {
    fn from(memory: &config::Memory) -> Self {
        let config::Memory { k1, k2, lambda, tokens, capacity, .. } = *memory;
        let rank = rank::Settings { k1, k2, lambda, probation: rank::PROBATION };
        Self { rank, value: value::RULE, tokens, capacity, room: ROOM }
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
            mirror: tokio::sync::Mutex::new(Mirror::new(settings.room)),
            writer: tokio::sync::Mutex::default(),
            embedder: None,
            vectors: tokio::sync::Mutex::default(),
            has_news: AtomicBool::new(true),
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
        let patience = if by == By::Worth { TURN } else { SEARCH };
        let (meant, _) = self.meant(Some(asked), table.as_ref(), patience).await?;
        let mut mirror = self.mirror.lock().await;
        mirror.refresh(&self.ledger, table.as_ref()).await?;
        let alike = meant.as_ref().map(|meant| mirror.meanings.alike(meant));
        let question = if by == By::Fit { text::asked(question) } else { question };
        let mut common = match by {
            By::Fit if !mirror.is_large() => mirror.index.search(&question, may, alike.as_ref()),
            _ => mirror.index.nearest(&question, may, alike.as_ref(), DEPTH),
        };
        if let Some(table) = table.filter(|_| mirror.is_large()) {
            // Reading them is most of the work, so for a turn no more than it compares.
            let depth = if by == By::Worth { self.settings.rank.k1 } else { DEPTH };
            let mut far = self.far(&table, &question, meant.as_deref(), &scopes, depth).await?;
            far.retain(|found| may(&found.0.episode) && !mirror.index.has(&found.0.episode.id));
            let far = far.into_iter().map(|(found, alike)| {
                let Found { episode, key, words, score } = found;
                let common =
                    Common { share: rank::share(&question, &key), score, alike, episode: Arc::new(episode) };
                (common, words)
            });
            common = index::together(common, far.collect(), &question);
        }
        let scale = alike.and_then(|alike| alike.scale);
        let order = |common: &Common| match by {
            By::Fit => common.score,
            By::Worth => rank::closeness(Some(common.share), common.alike, rank::WORDS, scale),
        };
        common.sort_by(|a, b| order(b).total_cmp(&order(a)).then_with(|| b.episode.id.cmp(&a.episode.id)));
        common.truncate(DEPTH);
        let episodes: Vec<_> = common.iter().map(|common| common.episode.clone()).collect();
        let histories = mirror.histories(&self.ledger, &episodes).await?;
        let compared = common.into_iter().zip(histories).map(|(common, history)| {
            let idle = history.idle(mirror.now.tick);
            let Common { episode, share: words, alike: meaning, .. } = common;
            Compared { episode, words, meaning, scale, history, idle }
        });
        Ok(compared.filter(|found| !found.history.undone).collect())
    }

    /// What a large table has that is like the question, so much by words and so much by meaning,
    /// with the cosine where it is known.
    async fn far(
        &self,
        table: &Table,
        question: &[String],
        meant: Option<&[f32]>,
        scopes: &[Scope],
        depth: usize,
    ) -> Result<Vec<(Found, Option<f64>)>, Error> {
        let by_meaning = async {
            let Some(meant) = meant else { return Ok(Vec::new()) };
            match self.vectors(Some(meant.len())).await? {
                Some(stored) => stored.nearest(meant, scopes, depth).await,
                None => Ok(Vec::new()),
            }
        };
        let by_words = table.search(question, scopes, depth);
        let (alike, mut found) = tokio::try_join!(by_meaning, by_words)?;
        let alike: HashMap<String, f64> = alike.into_iter().collect();
        let there: HashSet<&str> = found.iter().map(|found| found.episode.id.as_str()).collect();
        let others: Vec<&str> = alike.keys().map(String::as_str).filter(|id| !there.contains(id)).collect();
        let others = table.named(&others).await?;
        found.extend(others);
        let known = |found: Found| {
            let alike = alike.get(&found.episode.id).copied();
            (found, alike)
        };
        Ok(found.into_iter().map(known).collect())
    }

    /// The vector of a question, if there is an embedder that answers in time. Episodes that have
    /// none yet go along; how many did is returned with it. Where there is no question and no such
    /// episode, nobody is asked.
    async fn meant(
        &self,
        asked: Option<&str>,
        table: Option<&Table>,
        patience: Duration,
    ) -> Result<(Option<Vec<f32>>, usize), Error> {
        let Some(embedder) = &self.embedder else { return Ok((None, 0)) };
        let room = if asked.is_some() { embedder.along() } else { TEXTS };
        let new = {
            let mut mirror = self.mirror.lock().await;
            if room > 0 || mirror.is_unmeant() {
                mirror.refresh(&self.ledger, table).await?;
            }
            let stored = self.vectors(None).await?;
            if let Some(stored) = stored.as_ref().filter(|_| mirror.is_unmeant()) {
                mirror.refresh_meanings(stored).await?;
            }
            mirror.unmeant(table, stored.as_ref(), room).await?
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
        let mut vectors = match tokio::time::timeout(patience, embedder.embed(&texts)).await {
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
        let stored = self.vectors(Some(length)).await?;
        let mut mirror = self.mirror.lock().await;
        if let Some(stored) = &stored {
            mirror.refresh_meanings(stored).await?;
        }
        for (episode, vector) in new.iter().zip(vectors) {
            mirror.mean(episode, vector);
        }
        Ok((question, new.len()))
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
        for statement in self.lines(learning, now) {
            statement.execute(&mut **write).await.map_err(|error| self.store.explain(error))?;
        }
        Ok(())
    }

    /// The statements that do so.
    pub fn lines(&self, learning: &Learning, now: Timestamp) -> Vec<Statement> {
        self.has_news.fetch_or(!learning.episodes.is_empty(), Ordering::SeqCst);
        self.ledger.lines(learning, now)
    }

    /// The table of the embedder's vectors, if there is one; with a `length` it is made where there
    /// is none.
    async fn vectors(&self, length: Option<usize>) -> Result<Option<Vectors>, Error> {
        let Some(embedder) = &self.embedder else { return Ok(None) };
        let mut vectors = self.vectors.lock().await;
        let fits = |open: &Vectors| length.is_none_or(|length| length == open.length);
        if !vectors.as_ref().is_some_and(fits) {
            *vectors = match length {
                Some(length) => Some(Vectors::open(&self.folder, embedder.identity(), length).await?),
                None => Vectors::find(&self.folder, embedder.identity()).await?,
            };
        }
        Ok(vectors.clone())
    }

    /// Whether a table has more than is kept in RAM.
    async fn is_large(&self, table: &Table) -> Result<bool, Error> {
        Ok(table.count().await? > self.settings.room)
    }

    /// The table, if there is one yet.
    async fn table(&self) -> Result<Option<Table>, Error> {
        let mut table = self.table.lock().await;
        if table.is_none() {
            *table = Table::open(&self.folder).await?;
        }
        Ok(table.clone())
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
