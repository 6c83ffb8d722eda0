//! The table of episodes: a LanceDB folder, with a full-text index where it is large.
//!
//! The words are made here, once, when an episode is written, and the same way for a question:
//! lower case, no accents, English stems, no stop words, pairs of letters where there are no
//! spaces. An index takes them as they are, so what is searched and what is compared is the
//! same.
//!
//! What changes often is not in here. Updated in place, values were measured to make a search
//! six times slower and to leave hundreds of files.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Int64Type};
use arrow_array::{
    Array, ArrayRef, BooleanArray, FixedSizeListArray, Float32Array, Int64Array, RecordBatch,
    RecordBatchIterator, StringArray,
};
use arrow_schema::{DataType, Field, Schema};
use futures::TryStreamExt;
use jiff::Timestamp;
use lancedb::index::Index;
use lancedb::index::scalar::{FtsIndexBuilder, FullTextSearchQuery};
use lancedb::query::{ExecutableQuery, QueryBase};
use lancedb::table::{OptimizeAction, tokenize};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::Error;
use super::episode::{Episode, Kind, Outcome, Scope};
use super::text::spaced;
use super::value::Trust;

const TABLE: &str = "episodes";
/// The column that is searched.
const WORDS: &str = "words";
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
    /// first. Who may not see an episode does not make it rank lower: it is left out before.
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
        let scopes = listed(scopes.iter().map(ToString::to_string));
        let found = self.table.query().full_text_search(query).limit(limit);
        self.read(found.only_if(format!("scope IN ({scopes}) AND superseded IS NULL"))).await
    }

    /// The episodes of these ids.
    pub async fn get(&self, ids: &[&str]) -> Result<Vec<Episode>, Error> {
        let mut found = Vec::new();
        for ids in ids.chunks(CHUNK) {
            let ids = listed(ids.iter().copied());
            let rows = self.read(self.table.query().only_if(format!("id IN ({ids})"))).await?;
            found.extend(rows.into_iter().map(|found| found.episode));
        }
        Ok(found)
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
            self.table.drop_index(INDEX).await.map_err(|error| self.failed(error))?;
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

    /// Makes the index if there is none. Rows that come later are found without it until
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
        let made = self.table.create_index(&[WORDS], Index::FTS(plain)).name(INDEX.to_owned()).execute();
        made.await.map_err(|error| self.failed(error))
    }

    async fn batches(&self, query: lancedb::query::Query) -> Result<Vec<RecordBatch>, Error> {
        let batches = query.execute().await.map_err(|error| self.failed(error))?;
        batches.try_collect().await.map_err(|error| self.failed(error))
    }

    async fn read(&self, query: lancedb::query::Query) -> Result<Vec<Found>, Error> {
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

/// The vectors of one embedder, by the ids of episodes. Each embedder and length has a table of
/// its own: what cannot be compared is never in one.
#[derive(Debug, Clone)]
pub struct Vectors(Table);

impl Vectors {
    /// The table of this embedder's vectors of that length, made if there is none.
    pub async fn open(folder: &Path, identity: &str, length: usize) -> Result<Self, Error> {
        let place: Arc<str> = folder.display().to_string().into();
        let name = format!("{}{length}", named_for(identity));
        let connection = connect(&place).await?;
        let table = match connection.open_table(&name).execute().await {
            Err(lancedb::Error::TableNotFound { .. }) => {
                connection.create_empty_table(&name, vector_schema(length)).execute().await
            }
            other => other,
        };
        Ok(Self(Table { table: table.map_err(|error| failed(&place, error))?, place }))
    }

    /// How long this embedder's vectors were when it was last heard of.
    pub async fn length(folder: &Path, identity: &str) -> Result<Option<usize>, Error> {
        let (place, prefix) = (folder.display().to_string(), named_for(identity));
        let names = connect(&place).await?.table_names().execute().await;
        let names = names.map_err(|error| failed(&place, error))?;
        Ok(names.iter().find_map(|name| name.strip_prefix(&prefix)?.parse().ok()))
    }

    /// Adds vectors; those of ids that are there already take their place.
    pub async fn put(&self, vectors: &[(&str, &[f32])]) -> Result<(), Error> {
        let Some((_, first)) = vectors.first() else { return Ok(()) };
        let ids = StringArray::from_iter_values(vectors.iter().map(|(id, _)| *id));
        let numbers =
            Float32Array::from_iter_values(vectors.iter().flat_map(|(_, vector)| vector.iter().copied()));
        let (field, length) = (number(), first.len() as i32);
        let list = FixedSizeListArray::try_new(field, length, Arc::new(numbers), None);
        let list = list.map_err(|error| self.0.failed(error.into()))?;
        let batch = RecordBatch::try_new(vector_schema(first.len()), vec![Arc::new(ids), Arc::new(list)]);
        self.0.merge(batch.map_err(|error| self.0.failed(error.into()))?).await?;
        self.0.tend(false).await
    }

    /// All of them.
    pub async fn all(&self) -> Result<HashMap<String, Vec<f32>>, Error> {
        let mut vectors = HashMap::new();
        for batch in self.0.batches(self.0.table.query()).await? {
            let columns = (batch["id"].as_string_opt::<i32>(), batch["vector"].as_fixed_size_list_opt());
            let (Some(ids), Some(list)) = columns else { continue };
            let Some(numbers) = list.values().as_primitive_opt::<Float32Type>() else { continue };
            let length = list.value_length() as usize;
            for row in 0..batch.num_rows() {
                let vector = numbers.values()[row * length..(row + 1) * length].to_vec();
                vectors.insert(ids.value(row).to_owned(), vector);
            }
        }
        Ok(vectors)
    }

    /// A number that changes with everything that is written.
    pub async fn version(&self) -> Result<u64, Error> {
        self.0.version().await
    }
}

/// Removes the vectors of episodes for good, those of embedders that are in use no more as well.
pub async fn erase_vectors(folder: &Path, ids: &[&str]) -> Result<(), Error> {
    let place: Arc<str> = folder.display().to_string().into();
    let connection = connect(&place).await?;
    let names = connection.table_names().execute().await.map_err(|error| failed(&place, error))?;
    for name in names.iter().filter(|name| name.starts_with(VECTORS)) {
        let table = connection.open_table(name).execute().await.map_err(|error| failed(&place, error))?;
        Table { table, place: place.clone() }.erase(ids).await?;
    }
    Ok(())
}

/// How names of tables of vectors begin.
const VECTORS: &str = "vectors_";

/// How the names of this embedder's tables begin.
fn named_for(identity: &str) -> String {
    let hash = Sha256::digest(identity.as_bytes());
    let hash: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{VECTORS}{hash}_")
}

fn number() -> Arc<Field> {
    Arc::new(Field::new("item", DataType::Float32, true))
}

fn vector_schema(length: usize) -> Arc<Schema> {
    let vector = DataType::FixedSizeList(number(), length as i32);
    Arc::new(Schema::new(vec![Field::new("id", DataType::Utf8, false), Field::new("vector", vector, false)]))
}

/// The index of [`WORDS`].
const INDEX: &str = "words_index";

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

/// Texts of a row, in their order; `superseded` alone may be missing.
const TEXTS: [&str; 13] = [
    "id",
    "kind",
    "scope",
    "intent",
    "experience",
    "outcome",
    "trust",
    "session",
    "turn",
    "workspace",
    "superseded",
    "key",
    WORDS,
];

fn schema() -> Arc<Schema> {
    let texts = TEXTS.map(|name| Field::new(name, DataType::Utf8, name == "superseded"));
    let others =
        [Field::new("created", DataType::Int64, false), Field::new("pinned", DataType::Boolean, false)];
    Arc::new(Schema::new(texts.into_iter().chain(others).collect::<Vec<_>>()))
}

fn batch(episodes: &[Episode]) -> RecordBatch {
    let texts: Vec<[Option<String>; 13]> = episodes.iter().map(texts).collect();
    let text = |place: usize| -> ArrayRef {
        Arc::new(StringArray::from_iter(texts.iter().map(|row| row[place].as_deref())))
    };
    let created = episodes.iter().map(|episode| episode.created.as_millisecond());
    let pinned = episodes.iter().map(|episode| Some(episode.pinned));
    let others: [ArrayRef; 2] =
        [Arc::new(Int64Array::from_iter_values(created)), Arc::new(BooleanArray::from_iter(pinned))];
    let columns = (0..TEXTS.len()).map(text).chain(others).collect();
    RecordBatch::try_new(schema(), columns).expect("the columns are those of the schema")
}

fn texts(episode: &Episode) -> [Option<String>; 13] {
    let (key, all) = told(episode);
    let Episode { id, scope, intent, experience, session, turn, workspace, .. } = episode;
    [
        Some(id.clone()),
        Some(episode.kind.name().to_owned()),
        Some(scope.to_string()),
        Some(intent.clone()),
        Some(experience.clone()),
        Some(episode.outcome.name().to_owned()),
        Some(episode.trust.name().to_owned()),
        Some(session.clone()),
        Some(turn.clone()),
        Some(workspace.clone()),
        episode.superseded.clone(),
        Some(key),
        Some(all),
    ]
}

/// The rows of a batch; an error says what is not as it was written.
fn rows(batch: &RecordBatch) -> Result<Vec<Found>, String> {
    let column =
        |name: &str| batch.column_by_name(name).ok_or_else(|| format!("there is no column `{name}`"));
    let texts = TEXTS.iter().map(|name| {
        column(name)?.as_string_opt::<i32>().ok_or_else(|| format!("the column `{name}` is no text"))
    });
    let texts: Vec<&StringArray> = texts.collect::<Result<_, _>>()?;
    let created = column("created")?.as_primitive_opt::<Int64Type>().ok_or("`created` is no number")?;
    let pinned = column("pinned")?.as_boolean_opt().ok_or("`pinned` is no truth value")?;
    let scores = batch.column_by_name("_score").and_then(|scores| scores.as_primitive_opt::<Float32Type>());
    let row = |row: usize| -> Result<Found, String> {
        let [id, kind, scope, intent, experience, outcome, trust, session, turn, workspace, _, key, words] =
            std::array::from_fn(|place| texts[place].value(row).to_owned());
        let superseded = texts[10];
        let episode = Episode {
            kind: named::<Kind>(&kind)?,
            scope: Scope::try_from(scope)?,
            outcome: named::<Outcome>(&outcome)?,
            trust: named::<Trust>(&trust)?,
            created: Timestamp::from_millisecond(created.value(row)).map_err(|error| error.to_string())?,
            pinned: pinned.value(row),
            superseded: (!superseded.is_null(row)).then(|| superseded.value(row).to_owned()),
            id,
            intent,
            experience,
            session,
            turn,
            workspace,
        };
        let score = scores.map_or(0.0, |scores| f64::from(scores.value(row)));
        Ok(Found { episode, key, words, score })
    };
    (0..batch.num_rows()).map(row).collect()
}

fn named<T: DeserializeOwned>(name: &str) -> Result<T, String> {
    serde_json::from_value(name.into()).map_err(|error| error.to_string())
}
