//! Why the database did not do it, by who acts next.

use std::borrow::Cow;

use sqlx::postgres::PgDatabaseError;
use sqlx::sqlite::SqliteError;

/// What went wrong, where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The setting is no address of a database.
    #[error(
        "`{url}` is no database; set `store.url` to `sqlite:PATH` or `postgres://USER@HOST/DATABASE`, or leave it empty"
    )]
    Url {
        /// What it is set to, without a password.
        url: String,
    },
    /// It cannot be opened or reached.
    #[error("cannot open the database `{place}`: {reason}; {hint}")]
    Unavailable {
        /// Which database.
        place: String,
        /// What was met.
        reason: String,
        /// What a person can do.
        hint: String,
    },
    /// No space is left.
    #[error(
        "the disk of the database `{place}` is full; nothing was saved, free some space and say it again"
    )]
    Full {
        /// Which database.
        place: String,
    },
    /// It can be read but not written.
    #[error("the database `{place}` is read-only; make it writable or set `store.url` to another one")]
    ReadOnly {
        /// Which database.
        place: String,
    },
    /// Others hold it for too long. Trying again may help.
    #[error("the database `{place}` is busy with somebody else's work; try again in a moment")]
    Busy {
        /// Which database.
        place: String,
    },
    /// A newer program has changed its tables.
    #[error(
        "the database `{place}` is of a newer omni (its tables are version {found}, this program knows {known}); update omni"
    )]
    Newer {
        /// Which database.
        place: String,
        /// The version of its tables.
        found: i64,
        /// The newest version this program knows.
        known: i64,
    },
    /// Its content is damaged, or it is something else.
    #[error(
        "the database `{place}` is damaged or no database at all ({reason}); move it away to start anew, or restore a copy"
    )]
    Corrupt {
        /// Which database.
        place: String,
        /// What was met.
        reason: String,
    },
    /// Anything else: most likely a mistake of ours.
    #[error("the database `{place}` failed: {reason}")]
    Other {
        /// Which database.
        place: String,
        /// What was met.
        reason: String,
    },
}

impl Error {
    /// An error while the connection is made: what is no better known is [`Error::Unavailable`].
    pub(super) fn connecting(place: &str, error: sqlx::Error) -> Self {
        match Self::explain(place, error) {
            Self::Other { place, reason } => Self::Unavailable { place, reason, hint: LOOK.to_owned() },
            other => other,
        }
    }

    pub(super) fn explain(place: &str, error: sqlx::Error) -> Self {
        let place = place.to_owned();
        match &error {
            sqlx::Error::Database(inner) => {
                let reason = inner.message().to_owned();
                let code = inner.code().unwrap_or(Cow::Borrowed(""));
                if inner.try_downcast_ref::<SqliteError>().is_some() {
                    return sqlite(place, &code, reason);
                }
                if inner.try_downcast_ref::<PgDatabaseError>().is_some() {
                    return postgres(place, &code, reason);
                }
                Self::Other { place, reason }
            }
            sqlx::Error::PoolTimedOut => Self::Busy { place },
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => {
                Self::Unavailable { place, reason: error.to_string(), hint: LOOK.to_owned() }
            }
            _ => Self::Other { place, reason: error.to_string() },
        }
    }
}

const LOOK: &str = "check that it is there, runs, and `store.url` is right";

/// After <https://www.sqlite.org/rescode.html>; the low byte is the primary code.
fn sqlite(place: String, code: &str, reason: String) -> Error {
    let code: i32 = code.parse().unwrap_or(0);
    match code & 0xff {
        // SQLITE_IOERR_SHMSIZE: the index of the log, which every process maps, cannot grow.
        _ if code == 4874 => Error::Full { place },
        5 | 6 => Error::Busy { place },
        8 => Error::ReadOnly { place },
        11 | 26 => Error::Corrupt { place, reason },
        13 => Error::Full { place },
        3 | 14 | 23 => Error::Unavailable {
            place,
            reason,
            hint: "check that the folder exists and is yours to write, or set `store.url`".to_owned(),
        },
        _ => Error::Other { place, reason: format!("{reason} (SQLite code {code})") },
    }
}

/// After <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn postgres(place: String, code: &str, reason: String) -> Error {
    match code {
        "53100" => Error::Full { place },
        "25006" => Error::ReadOnly { place },
        "55P03" | "40001" | "40P01" | "57014" => Error::Busy { place },
        "XX001" | "XX002" => Error::Corrupt { place, reason },
        "3D000" => Error::Unavailable { place, reason, hint: "create it, or correct `store.url`".to_owned() },
        "42501" => Error::Unavailable {
            place,
            reason,
            hint: "grant it to this user, or correct `store.url`".to_owned(),
        },
        _ if code.starts_with("28") => {
            Error::Unavailable { place, reason, hint: "correct user and password in `store.url`".to_owned() }
        }
        _ if code.starts_with("08") || code.starts_with("53") || code.starts_with("57P") => {
            Error::Unavailable { place, reason, hint: LOOK.to_owned() }
        }
        _ => Error::Other { place, reason: format!("{reason} (SQLSTATE {code})") },
    }
}
