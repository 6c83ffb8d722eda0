//! The SQL database: a SQLite file by default, PostgreSQL by URL, one portable SQL text for both.
//!
//! Portable means: `$1` placeholders, columns of `TEXT` and `BIGINT` alone, no `RETURNING`, no
//! `SUM` over `BIGINT` (PostgreSQL makes it `NUMERIC`, which sqlx's `Any` cannot carry).

pub mod error;
pub mod job;
pub mod lease;
pub mod ledger;
pub mod mail;
mod migrate;
pub mod response;
pub mod run;
mod together;
pub mod token;

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};
use std::time::Duration;

use sqlx::any::{AnyArguments, AnyConnectOptions, AnyPoolOptions};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, AnyPool, ConnectOptions, Connection, Executor, Transaction};

pub use error::Error;
pub use together::Undone;

/// Connections one process holds at most: a PostgreSQL server's default of 100 is shared by many.
const CONNECTIONS: u32 = 8;
/// Connections to a file that read: each has a thread, and reads anew what others have written.
const READERS: u32 = 4;
/// How long one statement waits for another process, and one task for a connection.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a server has to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// A statement with its values.
pub type Statement = Query<'static, Any, AnyArguments>;

/// The database, open and migrated. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Store {
    pool: AnyPool,
    /// For what writes. A file's is one connection: what it has in RAM of the file stays true, as
    /// long as no other process writes.
    writer: AnyPool,
    kind: Kind,
    place: Arc<str>,
}

/// Which database it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file of ours.
    Sqlite,
    /// A server.
    Postgres,
}

impl Store {
    /// The SQLite that is built in.
    pub async fn sqlite() -> Result<String, Error> {
        sqlx::any::install_default_drivers();
        let failed = |error| Error::connecting("sqlite::memory:", error);
        let mut connection = AnyConnection::connect("sqlite::memory:").await.map_err(failed)?;
        sqlx::query_scalar("SELECT sqlite_version()").fetch_one(&mut connection).await.map_err(failed)
    }

    /// Opens the database at `url`, or the file `omni.db` in the folder `data`, and brings its
    /// tables up to date.
    ///
    /// `url` is `sqlite:PATH` (the path is taken literally) or `postgres://…`. A missing SQLite
    /// file and its folder are created, readable by their owner alone. Several processes may
    /// open a new database at the same moment.
    pub async fn open(url: Option<&str>, data: &Path) -> Result<Self, Error> {
        static DRIVERS: Once = Once::new();
        DRIVERS.call_once(sqlx::any::install_default_drivers);

        let target = Target::parse(url, data)?;
        target.prepare()?;
        migrate::bring_up_to_date(&target).await?;
        let (pool, writer) = match target.kind {
            // SQLite has one writer. Queueing for it here is fair; its own busy handler polls.
            Kind::Sqlite => (target.pool(READERS).await?, target.pool(1).await?),
            Kind::Postgres => {
                let pool = target.pool(CONNECTIONS).await?;
                (pool.clone(), pool)
            }
        };
        Ok(Self { pool, writer, kind: target.kind, place: target.place.into() })
    }

    /// Which database it is, for the rare statement that cannot be portable.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where it is: a path, or a URL without its password.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// For statements that read.
    pub fn pool(&self) -> &AnyPool {
        &self.pool
    }

    /// Begins a transaction that writes. It is durable when [`Write::commit`] returns; dropped
    /// before that, it never happened.
    pub async fn write(&self) -> Result<Write, Error> {
        let transaction = match self.kind {
            // IMMEDIATE takes the write lock at once: a transaction that reads first and wants
            // to write later is refused without waiting when somebody else wrote in between.
            Kind::Sqlite => self.writer.begin_with("BEGIN IMMEDIATE").await,
            Kind::Postgres => self.writer.begin().await,
        };
        let transaction = transaction.map_err(|error| self.explain(error))?;
        Ok(Write { transaction, store: self.clone() })
    }

    /// Runs one statement that writes, in a transaction of its own: one way to the database and back
    /// where [`Store::write`] takes three. It is durable when this returns; returns the rows it has
    /// changed. Dropped before that, it may have happened or not.
    pub async fn once(&self, statement: Query<'_, Any, AnyArguments>) -> Result<u64, Error> {
        let done = statement.execute(&self.writer).await.map_err(|error| self.explain(error))?;
        Ok(done.rows_affected())
    }

    /// Takes deleted texts off the disk that the log still has.
    pub async fn wipe(&self) -> Result<(), Error> {
        match self.kind {
            // TRUNCATE waits for readers as long as the busy timeout says.
            Kind::Sqlite => self.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").await,
            // VACUUM is the server's own business, and so are its backups.
            Kind::Postgres => return Ok(()),
        }
        .map(drop)
        .map_err(|error| self.explain(error))
    }

    /// Turns what the driver says into what a person can act on.
    pub fn explain(&self, error: sqlx::Error) -> Error {
        Error::explain(&self.place, error)
    }

    /// Closes every connection; a SQLite log is folded into its file.
    pub async fn close(&self) {
        self.pool.close().await;
        self.writer.close().await;
    }
}

/// A transaction that writes; use it as a connection.
#[derive(Debug)]
pub struct Write {
    transaction: Transaction<'static, Any>,
    store: Store,
}

impl Write {
    /// Makes it durable.
    pub async fn commit(self) -> Result<(), Error> {
        self.transaction.commit().await.map_err(|error| self.store.explain(error))
    }
}

impl Deref for Write {
    type Target = AnyConnection;

    fn deref(&self) -> &AnyConnection {
        &self.transaction
    }
}

impl DerefMut for Write {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        &mut self.transaction
    }
}

/// Where a database is, before it is open. Not `Debug`: the options hold the password.
struct Target {
    kind: Kind,
    place: String,
    file: Option<PathBuf>,
    options: AnyConnectOptions,
}

impl Target {
    fn parse(url: Option<&str>, data: &Path) -> Result<Self, Error> {
        let url = url.map(str::trim).filter(|url| !url.is_empty());
        if let Some(server) = url.filter(|url| url.starts_with("postgres:") || url.starts_with("postgresql:"))
        {
            let place = without_password(server);
            return Ok(Self { kind: Kind::Postgres, options: options(server, &place)?, place, file: None });
        }
        let file = match url {
            None => data.join("omni.db"),
            Some(url) => match url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:")) {
                Some(path) if !path.is_empty() && !path.starts_with(":memory:") => PathBuf::from(path),
                _ => return Err(Error::Url { url: without_password(url) }),
            },
        };
        let file = std::path::absolute(&file).unwrap_or(file);
        let place = file.display().to_string();
        let url = format!("sqlite://{}?mode=rwc", escape(&file));
        Ok(Self { kind: Kind::Sqlite, options: options(&url, &place)?, place, file: Some(file) })
    }

    /// Creates the file and its folder, for its owner alone: conversations are private.
    fn prepare(&self) -> Result<(), Error> {
        let Some(file) = &self.file else { return Ok(()) };
        let create = || -> std::io::Result<()> {
            if let Some(folder) = file.parent() {
                private_folder(folder)?;
            }
            if !file.exists() {
                private_file(file)?;
            }
            Ok(())
        };
        create().map_err(|error| Error::Unavailable {
            place: self.place.clone(),
            reason: error.to_string(),
            hint: "check that the folder exists and is yours to write, or set `store.url`".to_owned(),
        })
    }

    async fn pool(&self, connections: u32) -> Result<AnyPool, Error> {
        let kind = self.kind;
        let pool = AnyPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(PATIENCE)
            // A server may have gone meanwhile. A file has not.
            .test_before_acquire(kind == Kind::Postgres)
            .after_connect(move |connection, _| Box::pin(tune(kind, connection)))
            .after_release(|connection, _| Box::pin(is_clean(connection)));
        let pool = pool.connect_with(self.options.clone()).await;
        pool.map_err(|error| Error::connecting(&self.place, error))
    }

    async fn connect(&self) -> Result<AnyConnection, Error> {
        let connecting = AnyConnection::connect_with(&self.options);
        let mut connection = match tokio::time::timeout(CONNECT, connecting).await {
            Ok(connected) => connected.map_err(|error| Error::connecting(&self.place, error))?,
            Err(_) => {
                return Err(Error::Unavailable {
                    place: self.place.clone(),
                    reason: format!("no answer within {} s", CONNECT.as_secs()),
                    hint: "check that the database runs and `store.url` is right".to_owned(),
                });
            }
        };
        tune(self.kind, &mut connection).await.map_err(|error| Error::explain(&self.place, error))?;
        Ok(connection)
    }
}

/// Settings of one connection.
///
/// FULL makes every commit of SQLite wait for the disk, so that what was acknowledged survives
/// a power cut and not only the end of the process, which NORMAL would do as well. On a cloud
/// disk that is 3.4 ms a commit instead of 0.03; a turn commits a handful of times and waits
/// seconds for a model, so it cannot be felt. PostgreSQL waits for its disk by default. What is
/// deleted is overwritten: a deleted conversation shall not be in the file.
async fn tune(kind: Kind, connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    let settings = match kind {
        Kind::Sqlite => {
            "PRAGMA busy_timeout = 10000; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; \
             PRAGMA secure_delete = ON"
        }
        Kind::Postgres => "SET lock_timeout = '10s'",
    };
    connection.execute(settings).await.map(drop)
}

/// Whether a connection may be used again.
///
/// SQLite ends a transaction by itself when the disk is full; the driver's own rollback then
/// fails, and it would refuse to begin another on this connection for ever. The ping waits for
/// a rollback that is under way.
async fn is_clean(connection: &mut AnyConnection) -> Result<bool, sqlx::Error> {
    if connection.is_in_transaction() {
        connection.ping().await?;
    }
    Ok(!connection.is_in_transaction())
}

fn options(url: &str, place: &str) -> Result<AnyConnectOptions, Error> {
    let options: AnyConnectOptions = url.parse().map_err(|_| Error::Url { url: place.to_owned() })?;
    // Statements carry conversations, which do not belong into a log.
    Ok(options.disable_statement_logging())
}

/// Percent-encodes what has a meaning in a URL.
fn escape(path: &Path) -> String {
    let mut text = String::new();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'~' => {
                text.push(*byte as char)
            }
            other => text.push_str(&format!("%{other:02X}")),
        }
    }
    text
}

/// `postgres://ann:secret@host/db?password=x` as `postgres://ann:****@host/db`.
fn without_password(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    // The last `@` first: a password that should have been encoded may have any letter.
    let (who, place) = rest.rsplit_once('@').map_or((None, rest), |(who, place)| (Some(who), place));
    let place = place.split('?').next().unwrap_or(place);
    let scheme = if scheme.is_empty() { String::new() } else { format!("{scheme}://") };
    match who.map(|who| who.split_once(':').map_or((who, ""), |(user, _)| (user, ":****"))) {
        Some((user, stars)) => format!("{scheme}{user}{stars}@{place}"),
        None => format!("{scheme}{place}"),
    }
}

#[cfg(unix)]
fn private_folder(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(not(unix))]
fn private_folder(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)
}

fn private_file(file: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(file).map(drop)
}
