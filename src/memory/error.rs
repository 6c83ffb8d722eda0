//! Why the memory did not do it.

use crate::store;

/// What went wrong with the memory.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database with the ledger did not do it.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The table of episodes did not do it.
    #[error("the memory in `{place}` failed: {reason}; move the folder away to start anew")]
    Table {
        /// Where it is.
        place: String,
        /// What was met.
        reason: String,
    },
    /// There is no such episode.
    #[error("there is no memory `{0}`; `omni memory list` shows what there is")]
    Unknown(String),
    /// The beginning of an id fits several.
    #[error("`{0}` is the beginning of several memories; give more of the id")]
    Ambiguous(String),
    /// The turn used no memory and taught nothing.
    #[error(
        "the memory knows nothing of the turn `{0}`; `omni memory why` without a turn shows the last one"
    )]
    Turn(String),
    /// A line of an import is no episode.
    #[error("line {line} is no memory: {reason}")]
    Line {
        /// Which.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// Another process is at it.
    #[error("another omni is writing to the memory; try again in a moment")]
    Busy,
}
