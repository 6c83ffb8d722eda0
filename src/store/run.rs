//! Runs: turns that somebody may come back to, with what happened in them.
//!
//! A row is there before the turn begins, so a message that was taken is not lost with the process
//! that took it. Who plays a run is its owner; it changes hands by compare-and-set, and whoever has
//! lost it can write nothing more to it.

use jiff::Timestamp;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::lease::{self, Owner};
use super::{Error, Store, Write};
use crate::message::Event;

/// Rows of events that are read at once.
const PAGE: i64 = 64;

/// A question for runs, with the condition and the order it wants.
macro_rules! runs {
    ($rest:literal) => {
        concat!(
            "SELECT id, session, digest, request, state, owner, tries, waiting, result, created FROM run ",
            $rest
        )
    };
}

/// A turn that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its id, which is that of its turn.
    pub id: String,
    /// The session it belongs to.
    pub session: String,
    /// The digest of what was asked.
    pub digest: String,
    /// What was asked, as JSON.
    pub request: String,
    /// Whether it has come to its end.
    pub is_over: bool,
    /// Who plays it; empty for nobody.
    pub owner: String,
    /// How often its turn has begun since it was last asked for.
    pub tries: i64,
    /// The calls that wait for a person.
    pub waiting: Vec<String>,
    /// How it ended, as JSON; empty before.
    pub result: String,
    /// When it was asked for.
    pub created: Timestamp,
}

/// More of what happened in a run.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The run.
    pub run: String,
    /// Its events as JSON, each with its number, rising.
    pub events: Vec<(u64, String)>,
    /// The calls that wait for a person now.
    pub waiting: Vec<String>,
    /// How it ended, if it did.
    pub result: Option<String>,
    /// It ends here without having ended; somebody else may take it up.
    pub left: bool,
}

/// Something a person said to a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The run.
    pub run: String,
    /// The call that waits for it; empty where the run is to end.
    pub call: String,
    /// What was said, as JSON.
    pub body: String,
}

/// The runs in the database.
#[derive(Debug, Clone)]
pub struct Runs {
    store: Store,
}

impl Runs {
    /// Those in `store`.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Adds one, unless there is one that was asked for by the same key; that one is returned then.
    pub async fn add(&self, run: &Run, asked: &str) -> Result<Option<Run>, Error> {
        let add = sqlx::query(
            "INSERT INTO run (id, session, asked, digest, request, state, owner, tries, waiting, result, created, updated) \
             VALUES ($1, $2, $3, $4, $5, 'open', $6, 0, '[]', '', $7, $7) ON CONFLICT (asked) DO NOTHING",
        )
        .bind(&run.id)
        .bind(&run.session)
        .bind(asked)
        .bind(&run.digest)
        .bind(&run.request)
        .bind(&run.owner)
        .bind(run.created.as_millisecond());
        match self.store.once(add).await? {
            1 => Ok(None),
            _ => self.asked(asked).await,
        }
    }

    /// The run that was asked for by this key.
    pub async fn asked(&self, asked: &str) -> Result<Option<Run>, Error> {
        Ok(self.read(sqlx::query(runs!("WHERE asked = $1")).bind(asked.to_owned())).await?.pop())
    }

    /// The run of this id.
    pub async fn get(&self, id: &str) -> Result<Option<Run>, Error> {
        Ok(self.read(sqlx::query(runs!("WHERE id = $1")).bind(id.to_owned())).await?.pop())
    }

    /// Those of a session that are not over, in the order they were asked for.
    pub async fn open(&self, session: &str) -> Result<Vec<Run>, Error> {
        let query = sqlx::query(runs!("WHERE session = $1 AND state = 'open' ORDER BY created, id"));
        self.read(query.bind(session.to_owned())).await
    }

    /// Those that are not over and that `owner` does not play, in the order they were asked for.
    pub async fn elsewhere(&self, owner: &Owner) -> Result<Vec<Run>, Error> {
        let query = sqlx::query(runs!("WHERE state = 'open' AND owner <> $1 ORDER BY created, id"));
        self.read(query.bind(owner.as_str().to_owned())).await
    }

    /// Whether whoever played a run is still there to do so.
    pub async fn is_alive(&self, owner: &str, now: Timestamp) -> Result<bool, Error> {
        if owner.is_empty() || Owner::named(owner).is_dead() {
            return Ok(false);
        }
        lease::is_held(&self.store, &presence(owner), now).await
    }

    /// Makes a run one's own, as it was read: `false` if somebody was faster. One that was over is
    /// opened again.
    pub async fn claim(&self, run: &Run, owner: &Owner, now: Timestamp) -> Result<bool, Error> {
        let tries = if run.is_over { 0 } else { run.tries };
        let statement = sqlx::query(
            "UPDATE run SET owner = $4, state = 'open', tries = $5, waiting = '[]', result = '', updated = $6 \
             WHERE id = $1 AND owner = $2 AND state = $3",
        )
        .bind(&run.id)
        .bind(&run.owner)
        .bind(if run.is_over { "over" } else { "open" })
        .bind(owner.as_str())
        .bind(tries)
        .bind(now.as_millisecond());
        Ok(self.store.once(statement).await? == 1)
    }

    /// Says in a transaction that the turn begins: `false` if the run is somebody else's by now.
    pub async fn begin(&self, write: &mut Write, id: &str, owner: &Owner) -> Result<bool, Error> {
        let begun =
            sqlx::query("UPDATE run SET tries = tries + 1 WHERE id = $1 AND owner = $2 AND state = 'open'")
                .bind(id)
                .bind(owner.as_str())
                .execute(&mut **write)
                .await
                .map_err(|error| self.store.explain(error))?;
        Ok(begun.rows_affected() == 1)
    }

    /// Writes down what happened, all of it or nothing. Returns the runs that are somebody else's
    /// by now, of which nothing was written.
    pub async fn write(&self, pages: &[Page], owner: &Owner, now: Timestamp) -> Result<Vec<String>, Error> {
        let mut write = self.store.write().await?;
        let mut lost = Vec::new();
        for page in pages {
            let state = if page.result.is_some() { "over" } else { "open" };
            let kept = sqlx::query(
                "UPDATE run SET state = $3, waiting = $4, result = $5, owner = $6, updated = $7 \
                 WHERE id = $1 AND owner = $2 AND state = 'open'",
            )
            .bind(&page.run)
            .bind(owner.as_str())
            .bind(state)
            .bind(serde_json::to_string(&page.waiting).unwrap_or_default())
            .bind(page.result.as_deref().unwrap_or_default())
            .bind(if page.left { "" } else { owner.as_str() })
            .bind(now.as_millisecond())
            .execute(&mut *write)
            .await
            .map_err(|error| self.store.explain(error))?;
            if kept.rows_affected() == 0 {
                lost.push(page.run.clone());
                continue;
            }
            let Some((last, _)) = page.events.last() else { continue };
            let events: Vec<_> = page.events.iter().map(|(_, event)| event.as_str()).collect();
            sqlx::query("INSERT INTO run_event (run, last, body) VALUES ($1, $2, $3)")
                .bind(&page.run)
                .bind(*last as i64)
                .bind(format!("[{}]", events.join(",")))
                .execute(&mut *write)
                .await
                .map_err(|error| self.store.explain(error))?;
        }
        write.commit().await?;
        Ok(lost)
    }

    /// Some of the events after this number, in order; none if there are no more yet.
    pub async fn events(&self, id: &str, after: u64) -> Result<Vec<Event>, Error> {
        let explain = |error| self.store.explain(error);
        let rows =
            sqlx::query("SELECT body FROM run_event WHERE run = $1 AND last > $2 ORDER BY last LIMIT $3")
                .bind(id.to_owned())
                .bind(i64::try_from(after).unwrap_or(i64::MAX))
                .bind(PAGE)
                .fetch_all(self.store.pool())
                .await
                .map_err(explain)?;
        let mut events = Vec::new();
        for row in rows {
            let body: String = row.try_get("body").map_err(explain)?;
            let page: Vec<Event> =
                serde_json::from_str(&body).map_err(|error| explain(sqlx::Error::Decode(error.into())))?;
            events.extend(page.into_iter().filter(|event| event.id > after));
        }
        Ok(events)
    }

    /// The number of the last event that was written down; 0 for none.
    pub async fn last(&self, id: &str) -> Result<u64, Error> {
        let last: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(last), 0) FROM run_event WHERE run = $1")
            .bind(id)
            .fetch_one(self.store.pool())
            .await
            .map_err(|error| self.store.explain(error))?;
        Ok(last.unsigned_abs())
    }

    /// Leaves a word for whoever plays the run. The first one to a call counts.
    pub async fn say(&self, word: &Word) -> Result<(), Error> {
        let say = sqlx::query(
            "INSERT INTO run_word (run, call, body) VALUES ($1, $2, $3) ON CONFLICT (run, call) DO NOTHING",
        );
        self.store.once(say.bind(&word.run).bind(&word.call).bind(&word.body)).await.map(drop)
    }

    /// Takes the words that were left for the runs of `owner`.
    pub async fn heard(&self, owner: &Owner) -> Result<Vec<Word>, Error> {
        let explain = |error| self.store.explain(error);
        let rows = sqlx::query(
            "SELECT run, call, body FROM run_word WHERE run IN (SELECT id FROM run WHERE owner = $1 AND state = 'open')",
        )
        .bind(owner.as_str())
        .fetch_all(self.store.pool())
        .await
        .map_err(explain)?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let word = |row: &AnyRow| {
            Ok(Word { run: row.try_get("run")?, call: row.try_get("call")?, body: row.try_get("body")? })
        };
        let words: Vec<Word> = rows.iter().map(word).collect::<Result<_, _>>().map_err(explain)?;
        let mut write = self.store.write().await?;
        for word in &words {
            sqlx::query("DELETE FROM run_word WHERE run = $1 AND call = $2")
                .bind(&word.run)
                .bind(&word.call)
                .execute(&mut *write)
                .await
                .map_err(explain)?;
        }
        write.commit().await?;
        Ok(words)
    }

    /// Forgets the runs that were over before this, and the events of all that are over but the
    /// last `kept`.
    pub async fn forget(&self, before: Timestamp, kept: usize) -> Result<(), Error> {
        let explain = |error| self.store.explain(error);
        let mut write = self.store.write().await?;
        sqlx::query("DELETE FROM run WHERE state = 'over' AND updated < $1")
            .bind(before.as_millisecond())
            .execute(&mut *write)
            .await
            .map_err(explain)?;
        sqlx::query(
            "DELETE FROM run_event WHERE run IN (SELECT id FROM run WHERE state = 'over' AND updated < \
             (SELECT MIN(updated) FROM (SELECT updated FROM run WHERE state = 'over' ORDER BY updated DESC LIMIT $1) AS newest))",
        )
        .bind(i64::try_from(kept).unwrap_or(i64::MAX))
        .execute(&mut *write)
        .await
        .map_err(explain)?;
        write.commit().await
    }

    async fn read(
        &self,
        query: sqlx::query::Query<'_, sqlx::Any, sqlx::any::AnyArguments>,
    ) -> Result<Vec<Run>, Error> {
        let explain = |error| self.store.explain(error);
        let rows = query.fetch_all(self.store.pool()).await.map_err(explain)?;
        rows.iter().map(run).collect::<Result<_, _>>().map_err(explain)
    }
}

/// The lease that says that an owner of runs is there.
pub fn presence(owner: &str) -> String {
    format!("runs:{owner}")
}

fn run(row: &AnyRow) -> Result<Run, sqlx::Error> {
    let waiting: String = row.try_get("waiting")?;
    Ok(Run {
        id: row.try_get("id")?,
        session: row.try_get("session")?,
        digest: row.try_get("digest")?,
        request: row.try_get("request")?,
        is_over: row.try_get::<String, _>("state")? == "over",
        owner: row.try_get("owner")?,
        tries: row.try_get("tries")?,
        waiting: serde_json::from_str(&waiting).unwrap_or_default(),
        result: row.try_get("result")?,
        created: Timestamp::from_millisecond(row.try_get("created")?).unwrap_or(Timestamp::UNIX_EPOCH),
    })
}
