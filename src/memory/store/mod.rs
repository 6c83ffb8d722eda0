//! The table of episodes: a LanceDB folder, with a full-text index where it is large.
//!
//! A row is an episode, whole, as text, beside what it is searched by: to read a row costs as many
//! looks at the disk as it has columns.
//!
//! The words are made here, once, when an episode is written, and the same way for a question:
//! lower case, no accents, English stems, no stop words, pairs of letters where there are no
//! spaces. An index takes them as they are, so what is searched and what is compared is the
//! same.
//!
//! What changes often is not in here. Updated in place, values were measured to make a search
//! six times slower and to leave hundreds of files.

mod older;
mod vectors;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::Float32Type;
use arrow_array::{ArrayRef, RecordBatch, RecordBatchIterator, StringArray};
use arrow_schema::{DataType, Field, Schema};
use futures::TryStreamExt;
use lancedb::database::CreateTableMode;
use lancedb::index::Index;
use lancedb::index::scalar::{BTreeIndexBuilder, FtsIndexBuilder, FullTextSearchQuery};
use lancedb::query::{ExecutableQuery, QueryBase, Select};
use lancedb::table::{OptimizeAction, tokenize};

use super::Error;
use super::episode::{Episode, Kind, Scope};
use super::text::spaced;

pub use vectors::{Meant, Vectors, erase_vectors};

const TABLE: &str = "episodes";
/// The column that is searched.
const WORDS: &str = "words";
/// The whole of it, as JSON.
const EPISODE: &str = "episode";
/// The words it is compared by.
const KEY: &str = "key";
/// Files after which they are put in order, and rows that an index may be behind.
const FILES: usize = 16;
const BEHIND: usize = 1024;
/// Words of a question that are looked for: what is piped in may be long.
const QUESTION: usize = 64;
/// Ids in one condition.
const CHUNK: usize = 500;

/// The table of episodes. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Table {
    table: lancedb::Table,
    place: Arc<str>,
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// What.
    pub episode: Episode,
    /// The words it is compared by, with spaces between: those of what was wanted, or of the note.
    pub key: String,
    /// All of its words.
    pub words: String,
    /// How well it fits the question, by BM25; zero where nothing was asked.
    pub score: f64,
}

/// The folder of the table in the data folder.
pub fn folder(data: &Path) -> PathBuf {
    data.join("memory")
}

/// The words an episode is compared by, and all of its words, with spaces between.
pub fn told(episode: &Episode) -> (String, String) {
    let (intent, experience) = (words(&episode.intent), words(&episode.experience));
    let key = if intent.is_empty() { &experience } else { &intent }.join(" ");
    (key, [intent, experience].concat().join(" "))
}

/// The words of a text, as they are searched and compared.
pub fn words(text: &str) -> Vec<String> {
    let tokens = tokenize(&spaced(text), &FtsIndexBuilder::default());
    tokens.expect("the default analyser is built in").into_iter().map(|token| token.text).collect()
}

impl Table {
    /// Opens the table in `folder`, if there is one. Where there is none nothing is made.
    pub async fn open(folder: &Path) -> Result<Option<Self>, Error> {
        if !folder.join(format!("{TABLE}.lance")).is_dir() {
            return Ok(None);
        }
        let place: Arc<str> = folder.display().to_string().into();
        let connection = connect(&place).await?;
        match connection.open_table(TABLE).execute().await {
            Ok(table) => Ok(Some(Self { table, place })),
            // What a process that was killed while it made the table has left.
            Err(lancedb::Error::TableNotFound { .. }) => Ok(None),
            Err(error) => Err(failed(&place, error)),
        }
    }

    /// The table, written anew where an older program has made it. Only who may write may do so.
    pub async fn renewed(self) -> Result<Self, Error> {
        if !self.is_older().await? {
            return Ok(self);
        }
        let all: Vec<Episode> = self.whole().await?.into_iter().map(|found| found.episode).collect();
        let connection = connect(&self.place).await?;
        // All at once: until then it is the old one.
        let made = connection.create_table(TABLE, batch(&all)).mode(CreateTableMode::Overwrite);
        let table = made.execute().await.map_err(|error| self.failed(error))?;
        Ok(Self { table, ..self })
    }

    async fn is_older(&self) -> Result<bool, Error> {
        let schema = self.table.schema().await.map_err(|error| self.failed(error))?;
        Ok(schema.column_with_name(EPISODE).is_none())
    }

    /// Opens the table in `folder`, made if there is none.
    pub async fn create(folder: &Path) -> Result<Self, Error> {
        if let Some(table) = Self::open(folder).await? {
            return Ok(table);
        }
        let place: Arc<str> = folder.display().to_string().into();
        private(folder)
            .map_err(|error| Error::Table { place: place.to_string(), reason: error.to_string() })?;
        let made = connect(&place).await?.create_empty_table(TABLE, schema()).execute().await;
        Ok(Self { table: made.map_err(|error| failed(&place, error))?, place })
    }

    /// Adds episodes; one whose id is there already takes the place of it. They are there, all
    /// or none, when this returns.
    pub async fn put(&self, episodes: &[Episode]) -> Result<(), Error> {
        if episodes.is_empty() {
            return Ok(());
        }
        self.merge(batch(episodes)).await
    }

    async fn merge(&self, batch: RecordBatch) -> Result<(), Error> {
        let schema = batch.schema();
        let mut merge = self.table.merge_insert(&["id"]);
        merge.when_matched_update_all(None).when_not_matched_insert_all();
        let rows = RecordBatchIterator::new([Ok(batch)], schema);
        merge.execute(Box::new(rows)).await.map(drop).map_err(|error| self.failed(error))
    }

    /// A number that changes with everything that is written, by whatever process.
    pub async fn version(&self) -> Result<u64, Error> {
        self.table.version().await.map_err(|error| self.failed(error))
    }

    /// At most `limit` episodes of these scopes that share words with the question, the best
    /// first. What may not be seen takes no place of what may: where too much of the best is of
    /// that kind it is left out before. To look through all of them for it takes longer than to
    /// search, and mostly there is little.
    pub async fn search(
        &self,
        question: &[String],
        scopes: &[Scope],
        limit: usize,
    ) -> Result<Vec<Found>, Error> {
        let mut seen = HashSet::new();
        let words = question.iter().filter(|word| seen.insert(word.as_str())).take(QUESTION);
        let words: Vec<&str> = words.map(String::as_str).collect();
        if words.is_empty() || scopes.is_empty() || !self.is_indexed().await? {
            return Ok(Vec::new());
        }
        let query = FullTextSearchQuery::new(words.join(" "))
            .with_column(WORDS.to_owned())
            .map_err(|error| self.failed(error.into()))?;
        let query = self.table.query().full_text_search(query);
        let ahead = limit + limit / 2;
        let mut found = self.read_with(query.clone().limit(ahead), &[SCORE]).await?;
        let is_all = found.len() < ahead;
        found.retain(|found| found.episode.superseded.is_none() && scopes.contains(&found.episode.scope));
        if is_all || found.len() >= limit {
            found.truncate(limit);
            return Ok(found);
        }
        let scopes = listed(scopes.iter().map(ToString::to_string));
        let query = query.limit(limit).only_if(format!("scope IN ({scopes}) AND superseded IS NULL"));
        self.read_with(query, &[SCORE]).await
    }

    /// The episodes of these ids.
    pub async fn get(&self, ids: &[&str]) -> Result<Vec<Episode>, Error> {
        Ok(self.named(ids).await?.into_iter().map(|found| found.episode).collect())
    }

    /// The same with their words.
    pub async fn named(&self, ids: &[&str]) -> Result<Vec<Found>, Error> {
        let mut found = Vec::new();
        for ids in ids.chunks(CHUNK) {
            let ids = listed(ids.iter().copied());
            found.extend(self.read(self.table.query().only_if(format!("id IN ({ids})"))).await?);
        }
        Ok(found)
    }

    /// The notes of a scope that hold.
    pub async fn notes(&self, scope: &Scope) -> Result<Vec<Episode>, Error> {
        let (kind, scope) = (Kind::Note.name(), listed([scope.to_string()]));
        let condition = format!("kind = '{kind}' AND scope = {scope} AND superseded IS NULL");
        let found = self.read(self.table.query().only_if(condition)).await?;
        Ok(found.into_iter().map(|found| found.episode).collect())
    }

    /// All episodes, the youngest first.
    pub async fn all(&self) -> Result<Vec<Episode>, Error> {
        let mut found = self.whole().await?;
        found.reverse();
        Ok(found.into_iter().map(|found| found.episode).collect())
    }

    /// All episodes with their words, the oldest first.
    pub async fn whole(&self) -> Result<Vec<Found>, Error> {
        let mut found = self.read(self.table.query()).await?;
        found.sort_by(|a, b| (a.episode.created, &a.episode.id).cmp(&(b.episode.created, &b.episode.id)));
        Ok(found)
    }

    /// The ids of all of them.
    pub async fn ids(&self) -> Result<Vec<String>, Error> {
        let mut all = Vec::new();
        for batch in &self.batches(self.table.query().select(Select::columns(&["id"]))).await? {
            let ids = strings(batch, "id");
            let ids = ids.map_err(|reason| Error::Table { place: self.place.to_string(), reason })?;
            all.extend(ids.iter().flatten().map(str::to_owned));
        }
        Ok(all)
    }

    /// How many there are.
    pub async fn count(&self) -> Result<usize, Error> {
        self.table.count_rows(None).await.map_err(|error| self.failed(error))
    }

    /// Removes episodes for good. A deleted row stays in older versions of a table and in its
    /// index, so both are written anew and everything older is removed from the disk.
    pub async fn erase(&self, ids: &[&str]) -> Result<(), Error> {
        for ids in ids.chunks(CHUNK) {
            let condition = format!("id IN ({})", listed(ids.iter().copied()));
            self.table.delete(condition.as_str()).await.map_err(|error| self.failed(error))?;
        }
        // A deletion is a mark beside the file until the file is written anew.
        let options = lancedb::table::CompactionOptions {
            materialize_deletions: true,
            materialize_deletions_threshold: 0.0,
            ..Default::default()
        };
        self.optimize(OptimizeAction::Compact { options, remap_options: None }).await?;
        if self.is_indexed().await? {
            for index in [INDEX, BY_ID] {
                self.table.drop_index(index).await.map_err(|error| self.failed(error))?;
            }
            self.index().await?;
        }
        self.prune(Duration::ZERO).await
    }

    /// Puts the files in order if there are many: one file instead of many, versions older than a
    /// day removed. A table that is `large` has an index, which is brought up to date.
    pub async fn tend(&self, large: bool) -> Result<(), Error> {
        if large {
            self.index().await?;
        }
        let stats = self.table.index_stats(INDEX).await.map_err(|error| self.failed(error))?;
        if stats.is_some_and(|stats| stats.num_unindexed_rows > BEHIND) {
            self.optimize(OptimizeAction::Index(lancedb::table::OptimizeOptions::default())).await?;
        }
        let stats = self.table.stats().await.map_err(|error| self.failed(error))?;
        if stats.fragment_stats.num_small_fragments < FILES {
            return Ok(());
        }
        let options = lancedb::table::CompactionOptions::default();
        self.optimize(OptimizeAction::Compact { options, remap_options: None }).await?;
        self.prune(Duration::from_secs(24 * 3600)).await
    }

    async fn prune(&self, age: Duration) -> Result<(), Error> {
        let older_than = lancedb::table::Duration::from_std(age).expect("a day at most");
        let action = OptimizeAction::Prune {
            older_than: Some(older_than),
            // Whoever writes holds the lease of the memory, so no file is one that is being written.
            delete_unverified: Some(age.is_zero()),
            error_if_tagged_old_versions: Some(false),
        };
        self.optimize(action).await
    }

    async fn optimize(&self, action: OptimizeAction) -> Result<(), Error> {
        self.table.optimize(action).await.map(drop).map_err(|error| self.failed(error))
    }

    async fn is_indexed(&self) -> Result<bool, Error> {
        let indices = self.table.list_indices().await.map_err(|error| self.failed(error))?;
        Ok(indices.iter().any(|index| index.name == INDEX))
    }

    /// Makes the indexes if there are none. Rows that come later are found without it until
    /// [`Table::tend`] takes them in.
    async fn index(&self) -> Result<(), Error> {
        if self.is_indexed().await? {
            return Ok(());
        }
        let plain = FtsIndexBuilder::default()
            .base_tokenizer("whitespace".to_owned())
            .stem(false)
            .remove_stop_words(false)
            .lower_case(false)
            .ascii_folding(false)
            .max_token_length(None);
        let by_id = Index::BTree(BTreeIndexBuilder::default());
        // The one that says whether there are any comes last.
        for (column, index, name) in [("id", by_id, BY_ID), (WORDS, Index::FTS(plain), INDEX)] {
            let made = self.table.create_index(&[column], index).name(name.to_owned()).execute();
            made.await.map_err(|error| self.failed(error))?;
        }
        Ok(())
    }

    async fn batches(&self, query: impl ExecutableQuery) -> Result<Vec<RecordBatch>, Error> {
        let batches = query.execute().await.map_err(|error| self.failed(error))?;
        batches.try_collect().await.map_err(|error| self.failed(error))
    }

    async fn read(&self, query: lancedb::query::Query) -> Result<Vec<Found>, Error> {
        self.read_with(query, &[]).await
    }

    /// The same, with columns that the query makes.
    async fn read_with(&self, query: lancedb::query::Query, made: &[&str]) -> Result<Vec<Found>, Error> {
        let query = match self.is_older().await? {
            true => query,
            false => query.select(Select::columns(&[&READ, made].concat())),
        };
        let mut found = Vec::new();
        for batch in &self.batches(query).await? {
            let rows =
                rows(batch).map_err(|reason| Error::Table { place: self.place.to_string(), reason })?;
            found.extend(rows);
        }
        Ok(found)
    }

    fn failed(&self, error: lancedb::Error) -> Error {
        failed(&self.place, error)
    }
}

/// The index of [`WORDS`].
const INDEX: &str = "words_index";
/// The index of ids.
const BY_ID: &str = "id_index";

async fn connect(place: &str) -> Result<lancedb::Connection, Error> {
    // Zero: every search looks for what other processes have written.
    let connection = lancedb::connect(place).read_consistency_interval(Duration::ZERO);
    connection.execute().await.map_err(|error| failed(place, error))
}

fn failed(place: &str, error: lancedb::Error) -> Error {
    Error::Table { place: place.to_owned(), reason: error.to_string() }
}

fn private(folder: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(folder)
}

/// Texts as SQL writes them in a list.
fn listed(texts: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let quoted = texts.into_iter().map(|text| format!("'{}'", text.as_ref().replace('\'', "''")));
    quoted.collect::<Vec<_>>().join(", ")
}

/// The columns, all of them text; `superseded` alone may be missing.
const COLUMNS: [&str; 7] = ["id", "kind", "scope", "superseded", KEY, WORDS, EPISODE];
/// Of these, what is read.
const READ: [&str; 3] = [EPISODE, KEY, WORDS];
const SCORE: &str = "_score";

fn schema() -> Arc<Schema> {
    let columns = COLUMNS.map(|name| Field::new(name, DataType::Utf8, name == "superseded"));
    Arc::new(Schema::new(columns.to_vec()))
}

fn batch(episodes: &[Episode]) -> RecordBatch {
    let rows: Vec<[Option<String>; 7]> = episodes.iter().map(row).collect();
    let column = |place: usize| -> ArrayRef {
        Arc::new(StringArray::from_iter(rows.iter().map(|row| row[place].as_deref())))
    };
    let columns = (0..COLUMNS.len()).map(column).collect();
    RecordBatch::try_new(schema(), columns).expect("the columns are those of the schema")
}

fn row(episode: &Episode) -> [Option<String>; 7] {
    let (key, words) = told(episode);
    [
        Some(episode.id.clone()),
        Some(episode.kind.name().to_owned()),
        Some(episode.scope.to_string()),
        episode.superseded.clone(),
        Some(key),
        Some(words),
        Some(serde_json::to_string(episode).expect("an episode is JSON")),
    ]
}

/// The rows of a batch; an error says what is not as it was written.
fn rows(batch: &RecordBatch) -> Result<Vec<Found>, String> {
    let (keys, words) = (strings(batch, KEY)?, strings(batch, WORDS)?);
    let scores = batch.column_by_name(SCORE).and_then(|scores| scores.as_primitive_opt::<Float32Type>());
    let episodes: Vec<Episode> = match batch.column_by_name(EPISODE) {
        Some(_) => {
            let texts = strings(batch, EPISODE)?.iter().flatten();
            texts.map(serde_json::from_str).collect::<Result<_, _>>().map_err(|error| error.to_string())?
        }
        None => older::episodes(batch)?,
    };
    let found = episodes.into_iter().enumerate().map(|(row, episode)| Found {
        episode,
        key: keys.value(row).to_owned(),
        words: words.value(row).to_owned(),
        score: scores.map_or(0.0, |scores| f64::from(scores.value(row))),
    });
    Ok(found.collect())
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, String> {
    batch.column_by_name(name).ok_or_else(|| format!("there is no column `{name}`"))
}

fn strings<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a StringArray, String> {
    column(batch, name)?.as_string_opt::<i32>().ok_or_else(|| format!("the column `{name}` is no text"))
}
