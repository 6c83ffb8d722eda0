//! Brings the tables of a database up to date.

use std::time::{Duration, Instant};

use sqlx::{AnyConnection, Connection, Executor, Row};

use super::{Error, Kind, Target};

/// What made the tables, oldest first. Append only: a database remembers how many it has seen.
const MIGRATIONS: &[(&str, &str)] = &[
    ("sessions", include_str!("migrations/0001_sessions.sql")),
    ("leases", include_str!("migrations/0002_leases.sql")),
    ("memory", include_str!("migrations/0003_memory.sql")),
    ("memory changes", include_str!("migrations/0004_memory_changes.sql")),
    ("tokens", include_str!("migrations/0005_tokens.sql")),
    ("runs", include_str!("migrations/0006_runs.sql")),
    ("responses", include_str!("migrations/0007_responses.sql")),
    ("jobs", include_str!("migrations/0008_jobs.sql")),
    ("mail", include_str!("migrations/0009_mail.sql")),
    ("spent", include_str!("migrations/0010_spent.sql")),
];

/// How long a start waits for others that migrate the same database, and how long it pauses in
/// between: where waiting by itself would be a deadlock, SQLite is busy at once.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);

pub(super) async fn bring_up_to_date(target: &Target) -> Result<(), Error> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match once(target).await {
            Err(Error::Busy { .. }) if Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
            done => return done,
        }
    }
}

async fn once(target: &Target) -> Result<(), Error> {
    let mut connection = target.connect().await?;
    let result = migrate(target, &mut connection).await;
    // Whatever happened, nothing is gained from an error while hanging up.
    let _ = connection.close().await;
    result
}

async fn migrate(target: &Target, connection: &mut AnyConnection) -> Result<(), Error> {
    let explain = |error| Error::explain(&target.place, error);
    if target.kind == Kind::Sqlite && journal(connection).await.map_err(explain)? != "wal" {
        connection.execute("PRAGMA journal_mode = WAL").await.map_err(explain)?;
    }
    // Most starts find everything done and need no lock; a read-only database can be read.
    if version(target, connection).await? == known() {
        return Ok(());
    }
    let mut transaction = match target.kind {
        Kind::Sqlite => connection.begin_with("BEGIN IMMEDIATE").await.map_err(explain)?,
        Kind::Postgres => {
            let mut transaction = connection.begin().await.map_err(explain)?;
            // An arbitrary number of our own; the lock ends with the transaction.
            transaction
                .execute("SELECT pg_advisory_xact_lock(7305804385101114740)::text")
                .await
                .map_err(explain)?;
            transaction
        }
    };
    let done = version(target, &mut transaction).await?;
    transaction
        .execute("CREATE TABLE IF NOT EXISTS migration (version BIGINT PRIMARY KEY, name TEXT NOT NULL, applied BIGINT NOT NULL)")
        .await
        .map_err(explain)?;
    for (version, (name, sql)) in (1i64..).zip(MIGRATIONS).skip(done as usize) {
        sqlx::raw_sql(*sql).execute(&mut *transaction).await.map_err(explain)?;
        sqlx::query("INSERT INTO migration (version, name, applied) VALUES ($1, $2, $3)")
            .bind(version)
            .bind(*name)
            .bind(jiff::Timestamp::now().as_millisecond())
            .execute(&mut *transaction)
            .await
            .map_err(explain)?;
    }
    transaction.commit().await.map_err(explain)
}

fn known() -> i64 {
    MIGRATIONS.len() as i64
}

async fn journal(connection: &mut AnyConnection) -> Result<String, sqlx::Error> {
    sqlx::query("PRAGMA journal_mode").fetch_one(connection).await?.try_get(0)
}

/// How many migrations a database has seen; an error if it has seen more than there are.
async fn version(target: &Target, connection: &mut AnyConnection) -> Result<i64, Error> {
    let explain = |error| Error::explain(&target.place, error);
    let tables = match target.kind {
        Kind::Sqlite => "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = 'migration'",
        Kind::Postgres => {
            "SELECT COUNT(*) FROM pg_tables WHERE schemaname = current_schema() AND tablename = 'migration'"
        }
    };
    let tables: i64 = sqlx::query_scalar(tables).fetch_one(&mut *connection).await.map_err(explain)?;
    if tables == 0 {
        return Ok(0);
    }
    let row = sqlx::query("SELECT COALESCE(MAX(version), 0) FROM migration")
        .fetch_one(connection)
        .await
        .map_err(explain)?;
    let found: i64 = row.try_get(0).map_err(explain)?;
    match found > known() {
        true => Err(Error::Newer { place: target.place.clone(), found, known: known() }),
        false => Ok(found),
    }
}
