//! Leases: which of several processes owns a thing for now.
//!
//! One row per name, changed by compare-and-set. A lease ends when its time is over, so what
//! a dead process held becomes free by itself; what a dead process of this machine held is
//! free at once. Clocks of machines that share a database should agree within the time a
//! lease lasts.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::{Error, Store};

/// Who holds a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner(String);

impl Owner {
    /// A new owner in this process.
    pub fn new() -> Self {
        Self::of(std::process::id())
    }

    /// A new owner in the process of this id, on this machine.
    ///
    /// It is written as `PROCESS.BEGAN.MACHINE.RANDOM`. Ids of processes are used again, so the
    /// time it began belongs to it; the random part tells owners in one process apart. Where
    /// the system does not say when it began or what this machine is, `?` stands instead.
    pub fn of(process: u32) -> Self {
        let unknown = || "?".to_owned();
        let began = Stat::read(process).map_or_else(unknown, |stat| stat.began.to_string());
        let machine = machine().unwrap_or_else(unknown);
        Self(format!("{process}.{began}.{machine}.{}", uuid::Uuid::now_v7().simple()))
    }

    /// The owner of this name, which may be of another machine, or of another program.
    pub fn named(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// As it is stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether its process has surely ended. `false` for one of another machine, of another
    /// container, or of which too little is known.
    ///
    /// Machines cloned while they ran call themselves the same, and one would take the other's
    /// processes for dead. What a lease protects there has to stand two owners, as the log of
    /// a session does.
    pub fn is_dead(&self) -> bool {
        let Some((process, began, place)) = self.parts() else { return false };
        if machine().is_none_or(|here| here != place) {
            return false;
        }
        // SAFETY: plain system call; signal 0 only asks.
        let asked = unsafe { libc::kill(process, 0) };
        if asked != 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH) {
            return true;
        }
        let stat = u32::try_from(process).ok().and_then(Stat::read);
        // A process that may not be looked at is one that is there.
        stat.is_some_and(|stat| stat.ended || stat.began != began)
    }

    fn parts(&self) -> Option<(libc::pid_t, u64, &str)> {
        let mut parts = self.0.split('.');
        let (process, began, place) = (parts.next()?, parts.next()?, parts.next()?);
        // 0 and negative numbers name groups of processes.
        let process = process.parse().ok().filter(|process| *process > 0)?;
        Some((process, began.parse().ok()?, place))
    }
}

/// What names this machine since it was started, and in it the namespace that ids of processes
/// belong to: containers of one machine have their own. `None` where `/proc` does not tell, or
/// is that of another namespace.
fn machine() -> Option<String> {
    let own = std::fs::read_link("/proc/self").ok()?;
    if own != Path::new(&std::process::id().to_string()) {
        return None;
    }
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?;
    let digits: String = namespace.to_str()?.chars().filter(char::is_ascii_digit).collect();
    Some(format!("{}-{digits}", boot.trim().replace('-', "")))
}

/// What the system says of a process.
struct Stat {
    /// In ticks of its clock, since the machine was started.
    began: u64,
    /// It has ended, only its parent has not asked yet how.
    ended: bool,
}

impl Stat {
    fn read(process: u32) -> Option<Self> {
        let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // After proc_pid_stat(5). The second field is a name in parentheses that may have
        // anything in it, these included; the rest are numbers, the third field first.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let threads: i64 = fields.get(17)?.parse().ok()?;
        // The first thread of a process that goes on without it looks like a dead process.
        let ended = matches!(*fields.first()?, "Z" | "X") && threads < 2;
        Some(Self { began: fields.get(19)?.parse().ok()?, ended })
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

/// Takes `name` for `ttl` from `now` on, if nobody has it, its time is over, or its owner
/// [is dead](Owner::is_dead). An owner that has it already gets it anew.
pub async fn acquire(
    store: &Store,
    name: &str,
    owner: &Owner,
    ttl: Duration,
    now: Timestamp,
) -> Result<Acquired, Error> {
    let expires = after(now, ttl);
    let mine = || Acquired::Mine(Lease { name: name.to_owned(), owner: owner.clone(), expires });
    let take = || {
        sqlx::query(
            "INSERT INTO lease (name, owner, expires) VALUES ($1, $2, $3) \
             ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, expires = excluded.expires \
             WHERE lease.owner = excluded.owner OR lease.expires <= $4",
        )
        .bind(name)
        .bind(owner.as_str())
        .bind(expires.as_millisecond())
        .bind(now.as_millisecond())
    };
    if store.once(take()).await? == 1 {
        return Ok(mine());
    }
    let mut write = store.write().await?;
    // It may have become free meanwhile.
    let taken = take().execute(&mut *write).await.map_err(|error| store.explain(error))?;
    if taken.rows_affected() == 1 {
        write.commit().await?;
        return Ok(mine());
    }
    // In the same transaction: the row that was in the way is still there, locked.
    let (holder, until): (String, i64) = sqlx::query_as("SELECT owner, expires FROM lease WHERE name = $1")
        .bind(name)
        .fetch_one(&mut *write)
        .await
        .map_err(|error| store.explain(error))?;
    if Owner::named(&holder).is_dead() {
        let inherited =
            sqlx::query("UPDATE lease SET owner = $3, expires = $4 WHERE name = $1 AND owner = $2")
                .bind(name)
                .bind(&holder)
                .bind(owner.as_str())
                .bind(expires.as_millisecond())
                .execute(&mut *write)
                .await
                .map_err(|error| store.explain(error))?;
        if inherited.rows_affected() == 1 {
            write.commit().await?;
            return Ok(mine());
        }
    }
    write.commit().await?;
    Ok(Acquired::Held { owner: holder, expires: time(until) })
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
    let keep = sqlx::query("UPDATE lease SET expires = $3 WHERE name = $1 AND owner = $2")
        .bind(&lease.name)
        .bind(lease.owner.as_str())
        .bind(expires.as_millisecond());
    Ok((store.once(keep).await? == 1).then(|| Lease { expires, ..lease.clone() }))
}

/// Gives a lease back. One that was lost is left to its new owner.
pub async fn release(store: &Store, lease: &Lease) -> Result<(), Error> {
    let give = sqlx::query("DELETE FROM lease WHERE name = $1 AND owner = $2");
    store.once(give.bind(&lease.name).bind(lease.owner.as_str())).await.map(drop)
}

/// Whether somebody has it.
pub async fn is_held(store: &Store, name: &str, now: Timestamp) -> Result<bool, Error> {
    let held: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM lease WHERE name = $1 AND expires > $2")
        .bind(name)
        .bind(now.as_millisecond())
        .fetch_one(store.pool())
        .await
        .map_err(|error| store.explain(error))?;
    Ok(held > 0)
}

fn after(now: Timestamp, ttl: Duration) -> Timestamp {
    now.checked_add(ttl).unwrap_or(Timestamp::MAX)
}

fn time(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap_or(Timestamp::MAX)
}
