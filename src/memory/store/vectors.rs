//! What episodes mean, as an embedder has it: a table for each embedder, with an index where it is
//! large.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Float32Type;
use arrow_array::{FixedSizeListArray, Float32Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use lancedb::DistanceType;
use lancedb::index::scalar::BitmapIndexBuilder;
use lancedb::index::vector::IvfSqIndexBuilder;
use lancedb::index::{Index, IndexType};
use lancedb::query::{Query, QueryBase, Select};
use lancedb::table::{OptimizeAction, OptimizeOptions};
use sha2::{Digest, Sha256};

use super::{BEHIND, Error, Scope, Table, connect, failed, listed, strings};

/// How names of tables of vectors begin.
const VECTORS: &str = "vectors_";
const VECTOR: &str = "vector";
const SCOPE: &str = "scope";
/// Candidates of the index for each that is wanted, which are then compared as they are.
const REFINE: u32 = 2;
/// Lists of the index that are looked into: one in six among a million.
const LISTS: usize = 20;

/// The vectors of one embedder, by the ids of episodes. Each embedder and length has a table of
/// its own: what cannot be compared is never in one.
#[derive(Debug, Clone)]
pub struct Vectors {
    table: Table,
    /// How long each of them is.
    pub length: usize,
}

/// A vector, and whose it is.
#[derive(Debug, Clone, Copy)]
pub struct Meant<'a> {
    /// The episode.
    pub id: &'a str,
    /// Who may be shown it.
    pub scope: &'a Scope,
    /// What it means.
    pub vector: &'a [f32],
}

/// What is near to a vector.
struct Near {
    id: String,
    scope: String,
    cosine: f64,
}

impl Vectors {
    /// The table of this embedder's vectors of that length, made if there is none.
    pub async fn open(folder: &Path, identity: &str, length: usize) -> Result<Self, Error> {
        let place: Arc<str> = folder.display().to_string().into();
        let name = format!("{}{length}", named_for(identity));
        let connection = connect(&place).await?;
        let make = || connection.create_empty_table(&name, schema(length)).execute();
        let table = match connection.open_table(&name).execute().await {
            Err(lancedb::Error::TableNotFound { .. }) => make().await,
            other => other,
        };
        let table = table.map_err(|error| failed(&place, error))?;
        let columns = table.schema().await.map_err(|error| failed(&place, error))?;
        if columns == schema(length) {
            return Ok(Self { table: Table { table, place }, length });
        }
        // That of an older program. Vectors can be made again.
        connection.drop_table(&name, &[]).await.map_err(|error| failed(&place, error))?;
        let table = make().await.map_err(|error| failed(&place, error))?;
        Ok(Self { table: Table { table, place }, length })
    }

    /// The table of this embedder's vectors, if there is one.
    pub async fn find(folder: &Path, identity: &str) -> Result<Option<Self>, Error> {
        let (place, prefix) = (folder.display().to_string(), named_for(identity));
        let names = connect(&place).await?.table_names().execute().await;
        let names = names.map_err(|error| failed(&place, error))?;
        match names.iter().find_map(|name| name.strip_prefix(&prefix)?.parse().ok()) {
            Some(length) => Self::open(folder, identity, length).await.map(Some),
            None => Ok(None),
        }
    }

    /// Adds vectors; those of ids that are there already take their place.
    pub async fn put(&self, vectors: &[Meant<'_>], large: bool) -> Result<(), Error> {
        let Some(first) = vectors.first() else { return Ok(()) };
        let ids = StringArray::from_iter_values(vectors.iter().map(|meant| meant.id));
        let scopes = StringArray::from_iter_values(vectors.iter().map(|meant| meant.scope.to_string()));
        let numbers = vectors.iter().flat_map(|meant| meant.vector.iter().copied());
        let numbers = Float32Array::from_iter_values(numbers);
        let length = first.vector.len();
        let list = FixedSizeListArray::try_new(number(), length as i32, Arc::new(numbers), None);
        let list = list.map_err(|error| self.table.failed(error.into()))?;
        let columns = vec![Arc::new(ids) as _, Arc::new(scopes) as _, Arc::new(list) as _];
        let batch = RecordBatch::try_new(schema(length), columns);
        self.table.merge(batch.map_err(|error| self.table.failed(error.into()))?).await?;
        if large {
            self.index().await?;
        }
        self.table.tend(false).await
    }

    /// At most `limit` ids of these scopes whose vectors are nearest to this one, with the cosines,
    /// the nearest first. What may not be seen takes no place of what may, as with
    /// [`Table::search`].
    pub async fn nearest(
        &self,
        vector: &[f32],
        scopes: &[Scope],
        limit: usize,
    ) -> Result<Vec<(String, f64)>, Error> {
        let scopes: Vec<String> = scopes.iter().map(ToString::to_string).collect();
        let ahead = limit + limit / 2;
        let mut found = self.near(self.table.table.query().limit(ahead), vector).await?;
        let is_all = found.len() < ahead;
        found.retain(|near| scopes.contains(&near.scope));
        if !is_all && found.len() < limit {
            let query = self.table.table.query().only_if(format!("{SCOPE} IN ({})", listed(scopes)));
            found = self.near(query.limit(limit), vector).await?;
        }
        found.truncate(limit);
        Ok(found.into_iter().map(|near| (near.id, near.cosine)).collect())
    }

    async fn near(&self, query: Query, vector: &[f32]) -> Result<Vec<Near>, Error> {
        let query = query.select(Select::columns(&["id", SCOPE, DISTANCE])).nearest_to(vector);
        let query = query.and_then(|query| query.nprobes(LISTS)).map_err(|error| self.table.failed(error))?;
        let query = query.column(VECTOR).distance_type(DistanceType::Cosine).refine_factor(REFINE);
        let mut found = Vec::new();
        for batch in &self.table.batches(query).await? {
            let unlike = |reason| Error::Table { place: self.table.place.to_string(), reason };
            let (ids, scopes) = (strings(batch, "id"), strings(batch, SCOPE));
            let (ids, scopes) = (ids.map_err(unlike)?, scopes.map_err(unlike)?);
            let distances =
                batch.column_by_name(DISTANCE).and_then(|list| list.as_primitive_opt::<Float32Type>());
            let distances = distances.ok_or_else(|| unlike(format!("there is no `{DISTANCE}`")))?;
            found.extend((0..batch.num_rows()).map(|row| Near {
                id: ids.value(row).to_owned(),
                scope: scopes.value(row).to_owned(),
                cosine: 1.0 - f64::from(distances.value(row)),
            }));
        }
        Ok(found)
    }

    /// All of them, or if there is a limit so many.
    pub async fn all(&self, limit: Option<usize>) -> Result<HashMap<String, Vec<f32>>, Error> {
        let mut vectors = HashMap::new();
        let query = self.table.table.query();
        let query = match limit {
            Some(limit) => query.limit(limit),
            None => query,
        };
        for batch in &self.table.batches(query).await? {
            let Ok(ids) = strings(batch, "id") else { continue };
            let list = batch.column_by_name(VECTOR).and_then(|list| list.as_fixed_size_list_opt());
            let (Some(list), Some(numbers)) =
                (list, list.and_then(|list| list.values().as_primitive_opt::<Float32Type>()))
            else {
                continue;
            };
            let length = list.value_length() as usize;
            for row in 0..batch.num_rows() {
                let vector = numbers.values()[row * length..(row + 1) * length].to_vec();
                vectors.insert(ids.value(row).to_owned(), vector);
            }
        }
        Ok(vectors)
    }

    /// The ids of all of them.
    pub async fn ids(&self) -> Result<Vec<String>, Error> {
        self.table.ids().await
    }

    /// A number that changes with everything that is written.
    pub async fn version(&self) -> Result<u64, Error> {
        self.table.version().await
    }

    /// Makes the indexes if there are none, and brings them up to date.
    async fn index(&self) -> Result<(), Error> {
        let indices = self.table.table.list_indices().await.map_err(|error| self.table.failed(error))?;
        let has = |column: &str, kind: IndexType| {
            indices.iter().any(|index| index.columns == [column] && index.index_type == kind)
        };
        // A million are in it within seconds. A graph of them, which older programs made, takes a
        // quarter of an hour; it is replaced.
        if !has(VECTOR, IndexType::IvfSq) {
            let near = IvfSqIndexBuilder::default().distance_type(DistanceType::Cosine);
            let made = self.table.table.create_index(&[VECTOR], Index::IvfSq(near)).execute().await;
            made.map_err(|error| self.table.failed(error))?;
        }
        if !has(SCOPE, IndexType::Bitmap) {
            let scopes = Index::Bitmap(BitmapIndexBuilder::default());
            let made = self.table.table.create_index(&[SCOPE], scopes).execute().await;
            made.map_err(|error| self.table.failed(error))?;
        }
        let mut behind = 0;
        for index in &indices {
            let stats =
                self.table.table.index_stats(&index.name).await.map_err(|error| self.table.failed(error))?;
            behind = behind.max(stats.map_or(0, |stats| stats.num_unindexed_rows));
        }
        if behind > BEHIND {
            self.table.optimize(OptimizeAction::Index(OptimizeOptions::default())).await?;
        }
        Ok(())
    }
}

/// Removes the vectors of episodes for good, those of embedders that are in use no more as well.
pub async fn erase_vectors(folder: &Path, ids: &[&str]) -> Result<(), Error> {
    let place: Arc<str> = folder.display().to_string().into();
    let connection = connect(&place).await?;
    let names = connection.table_names().execute().await.map_err(|error| failed(&place, error))?;
    for name in names.iter().filter(|name| name.starts_with(VECTORS)) {
        let table = connection.open_table(name).execute().await.map_err(|error| failed(&place, error))?;
        let table = Table { table, place: place.clone() };
        let indices = table.table.list_indices().await.map_err(|error| table.failed(error))?;
        for index in &indices {
            table.table.drop_index(&index.name).await.map_err(|error| table.failed(error))?;
        }
        table.erase(ids).await?;
        if !indices.is_empty() {
            Vectors { table, length: 0 }.index().await?;
        }
    }
    Ok(())
}

const DISTANCE: &str = "_distance";

/// How the names of this embedder's tables begin.
fn named_for(identity: &str) -> String {
    let hash = Sha256::digest(identity.as_bytes());
    let hash: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{VECTORS}{hash}_")
}

fn number() -> Arc<Field> {
    Arc::new(Field::new("item", DataType::Float32, true))
}

fn schema(length: usize) -> Arc<Schema> {
    let vector = DataType::FixedSizeList(number(), length as i32);
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Utf8, false),
        Field::new(SCOPE, DataType::Utf8, false),
        Field::new(VECTOR, vector, false),
    ]))
}
