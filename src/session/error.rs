//! Why a session cannot be had.

use crate::store;

/// What went wrong with a session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The id cannot be one.
    #[error("`{0}` cannot be the id of a session; use 1 to 128 of the letters `A-Z a-z 0-9 _ . : -`")]
    Id(String),
    /// There is none of that id.
    #[error("there is no session `{0}`; `omni session list` shows what there is")]
    Unknown(String),
    /// The beginning of an id fits several.
    #[error("`{prefix}` is the beginning of {count} sessions or more; give more of the id")]
    Ambiguous {
        /// What was asked for.
        prefix: String,
        /// How many were found before the search ended.
        count: usize,
    },
    /// Somebody else wrote to it since it was loaded. Load it again, and decide again.
    #[error("somebody else wrote to the session `{0}` meanwhile; nothing was saved, say it again")]
    Moved(String),
    /// An entry is no entry: damaged, or of a newer program.
    #[error("entry {seq} of the session `{id}` cannot be read: {reason}")]
    Unreadable {
        /// The session.
        id: String,
        /// The entry's place.
        seq: i64,
        /// What is wrong with it.
        reason: String,
    },
    /// The database did not do it.
    #[error(transparent)]
    Store(#[from] store::Error),
}
