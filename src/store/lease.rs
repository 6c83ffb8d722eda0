//! Leases: which of several processes owns a thing for now.
//!
//! One row per name, changed by compare-and-set. A lease ends when its time is over, so what
//! a dead process held becomes free by itself. Clocks of machines that share a database
//! should agree within the time a lease lasts.

use std::time::Duration;

use jiff::Timestamp;

use super::{Error, Store};

/// Who holds a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner(String);

impl Owner {
    /// A new owner in this process: its id, for people, and a random part, because ids of
    /// processes are used again.
    pub fn new() -> Self {
        Self(format!("{}-{}", std::process::id(), uuid::Uuid::now_v7().simple()))
    }

    /// As it is stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Owner {
    fn default() -> Self {
        Self::new()
    }
}

/// Something that is ours until `expires`, or a renewal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// What is held: `session:ID`.
    pub name: String,
    /// By whom.
    pub owner: Owner,
    /// Until when.
    pub expires: Timestamp,
}

/// What came of wanting a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acquired {
    /// It is ours.
    Mine(Lease),
    /// Somebody else has it.
    Held {
        /// Who, as [`Owner::as_str`].
        owner: String,
        /// Until when, unless it is renewed.
        expires: Timestamp,
    },
}

/// Takes `name` for `ttl` from `now` on, if nobody has it or its time is over. An owner that
/// has it already gets it anew.
pub async fn acquire(
    store: &Store,
    name: &str,
    owner: &Owner,
    ttl: Duration,
    now: Timestamp,
) -> Result<Acquired, Error> {
    let expires = after(now, ttl);
    let mut write = store.write().await?;
    let taken = sqlx::query(
        "INSERT INTO lease (name, owner, expires) VALUES ($1, $2, $3) \
         ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, expires = excluded.expires \
         WHERE lease.owner = excluded.owner OR lease.expires <= $4",
    )
    .bind(name)
    .bind(owner.as_str())
    .bind(expires.as_millisecond())
    .bind(now.as_millisecond())
    .execute(&mut *write)
    .await
    .map_err(|error| store.explain(error))?;
    if taken.rows_affected() == 1 {
        write.commit().await?;
        return Ok(Acquired::Mine(Lease { name: name.to_owned(), owner: owner.clone(), expires }));
    }
    // In the same transaction: the row that was in the way is still there, locked.
    let (owner, until): (String, i64) = sqlx::query_as("SELECT owner, expires FROM lease WHERE name = $1")
        .bind(name)
        .fetch_one(&mut *write)
        .await
        .map_err(|error| store.explain(error))?;
    write.commit().await?;
    Ok(Acquired::Held { owner, expires: time(until) })
}

/// Prolongs a lease to `ttl` from `now` on. `None`: it was lost, somebody else has taken it;
/// stop what it protected.
pub async fn renew(
    store: &Store,
    lease: &Lease,
    ttl: Duration,
    now: Timestamp,
) -> Result<Option<Lease>, Error> {
    let expires = after(now, ttl);
    let mut write = store.write().await?;
    let kept = sqlx::query("UPDATE lease SET expires = $3 WHERE name = $1 AND owner = $2")
        .bind(&lease.name)
        .bind(lease.owner.as_str())
        .bind(expires.as_millisecond())
        .execute(&mut *write)
        .await
        .map_err(|error| store.explain(error))?;
    write.commit().await?;
    Ok((kept.rows_affected() == 1).then(|| Lease { expires, ..lease.clone() }))
}

/// Gives a lease back. One that was lost is left to its new owner.
pub async fn release(store: &Store, lease: &Lease) -> Result<(), Error> {
    let mut write = store.write().await?;
    sqlx::query("DELETE FROM lease WHERE name = $1 AND owner = $2")
        .bind(&lease.name)
        .bind(lease.owner.as_str())
        .execute(&mut *write)
        .await
        .map_err(|error| store.explain(error))?;
    write.commit().await
}

fn after(now: Timestamp, ttl: Duration) -> Timestamp {
    now.checked_add(ttl).unwrap_or(Timestamp::MAX)
}

fn time(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap_or(Timestamp::MAX)
}
