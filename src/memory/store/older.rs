//! A table as it was when each part of an episode had a column.

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, RecordBatch};
use jiff::Timestamp;
use serde::de::DeserializeOwned;

use super::{column, strings};
use crate::memory::episode::{Episode, Scope};

/// The episodes of a batch; an error says what is not as it was written.
pub(super) fn episodes(batch: &RecordBatch) -> Result<Vec<Episode>, String> {
    let created =
        column(batch, "created")?.as_primitive_opt::<Int64Type>().ok_or("`created` is no number")?;
    let pinned = column(batch, "pinned")?.as_boolean_opt().ok_or("`pinned` is no truth value")?;
    // Older still: before things could cease to hold.
    let until = batch.column_by_name("until").and_then(|until| until.as_primitive_opt::<Int64Type>());
    let superseded = strings(batch, "superseded")?;
    let moment = |at: i64| Timestamp::from_millisecond(at).map_err(|error| error.to_string());
    let episode = |row: usize| {
        let text = |name: &str| strings(batch, name).map(|texts| texts.value(row).to_owned());
        let until = until.filter(|until| !until.is_null(row)).map(|until| moment(until.value(row)));
        Ok(Episode {
            id: text("id")?,
            kind: named(&text("kind")?)?,
            scope: Scope::try_from(text("scope")?)?,
            intent: text("intent")?,
            experience: text("experience")?,
            outcome: named(&text("outcome")?)?,
            trust: named(&text("trust")?)?,
            session: text("session")?,
            turn: text("turn")?,
            workspace: text("workspace")?,
            created: moment(created.value(row))?,
            pinned: pinned.value(row),
            superseded: (!superseded.is_null(row)).then(|| superseded.value(row).to_owned()),
            until: until.transpose()?,
        })
    };
    (0..batch.num_rows()).map(episode).collect()
}

fn named<T: DeserializeOwned>(name: &str) -> Result<T, String> {
    serde_json::from_value(name.into()).map_err(|error| error.to_string())
}
