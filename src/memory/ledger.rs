//! What was shown, what it earned, and from whom: in the SQL database, only ever added to.
//!
//! A turn's part is written in the transaction that ends the turn, so it is there exactly once
//! or not at all. What an episode is worth is computed from here whenever it is asked for
//! ([`value`](super::value)): it can be explained, and undone.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;
use serde::Serialize;
use sqlx::any::AnyRow;
use sqlx::{Any, AssertSqlSafe, Row};

use super::Error;
use super::episode::Episode;
use super::rank::Ranked;
use super::text;
use super::value::{Reward, Source, verdict};
use crate::store::{Store, Write};

/// Numbers are kept in millionths: the portable columns are texts and whole numbers.
const UNIT: f64 = 1e6;
/// Placeholders in one statement.
const CHUNK: usize = 500;
/// Characters that are kept of a question, to explain a turn by.
const ASKED: usize = 1000;

/// The ledger in the database. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Ledger {
    store: Store,
}

/// What one turn adds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Learning {
    /// The turn.
    pub turn: String,
    /// Its session.
    pub session: String,
    /// What was asked.
    pub asked: String,
    /// What was in the prompt.
    pub shown: Vec<Ranked>,
    /// What turns have earned: this one, and the one before it where this one says so.
    pub rewards: Vec<(String, Reward)>,
    /// What is new.
    pub episodes: Vec<Episode>,
}

/// What the ledger says of one episode.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// How the turn went that it was born in.
    pub birth: Option<Reward>,
    /// How the turns went that it was shown in, in their order.
    pub uses: Vec<Reward>,
    /// Turns since it was last shown, or born; all of them where neither is known.
    pub idle: u64,
    /// The turn it was born in was undone.
    pub undone: bool,
}

/// A turn, explained.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Told {
    /// Its id.
    pub turn: String,
    /// Its session.
    pub session: String,
    /// What was asked.
    pub asked: String,
    /// When it ended.
    pub created: Timestamp,
    /// Whether its rewards do not count any more.
    pub undone: bool,
    /// What was in the prompt.
    pub shown: Vec<Ranked>,
    /// What it earned, the last word last.
    pub rewards: Vec<Reward>,
}

impl Ledger {
    /// The ledger in `store`.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Adds a turn's part. It is there when `write` is committed; a second time changes nothing.
    pub async fn add(&self, write: &mut Write, learning: &Learning, now: Timestamp) -> Result<(), Error> {
        let (turn, now) = (&learning.turn, now.as_millisecond());
        let new = sqlx::query(
            "INSERT INTO memory_turn (turn, session, asked, tick, undone, created) \
             VALUES ($1, $2, $3, (SELECT COALESCE(MAX(tick), 0) + 1 FROM memory_turn), 0, $4) \
             ON CONFLICT (turn) DO NOTHING",
        );
        let new = new.bind(turn).bind(&learning.session).bind(text::cut(&learning.asked, ASKED)).bind(now);
        self.execute(write, new).await?;
        for (place, ranked) in (1i64..).zip(&learning.shown) {
            let shown = sqlx::query(
                "INSERT INTO memory_shown (turn, episode, place, similarity, value, score) \
                 VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (turn, episode) DO NOTHING",
            );
            let shown = shown.bind(turn).bind(&ranked.id).bind(place).bind(fixed(ranked.similarity));
            self.execute(write, shown.bind(fixed(ranked.value)).bind(fixed(ranked.score))).await?;
        }
        for (turn, reward) in &learning.rewards {
            self.earn(write, turn, *reward, 0, now).await?;
        }
        for episode in &learning.episodes {
            let body = serde_json::to_string(episode).expect("an episode is texts");
            let pending = sqlx::query(
                "INSERT INTO memory_pending (episode, body, created) VALUES ($1, $2, $3) \
                 ON CONFLICT (episode) DO NOTHING",
            );
            self.execute(write, pending.bind(&episode.id).bind(body).bind(now)).await?;
        }
        Ok(())
    }

    /// Writes down a person's verdict on a turn; the last one counts.
    pub async fn judge(&self, turn: &str, amount: f64, now: Timestamp) -> Result<(), Error> {
        let mut write = self.store.write().await?;
        let query = sqlx::query_scalar::<Any, i64>(
            "SELECT COUNT(*) FROM memory_reward WHERE turn = $1 AND source = 'person'",
        );
        let number =
            query.bind(turn).fetch_one(&mut *write).await.map_err(|error| self.store.explain(error))?;
        self.earn(&mut write, turn, Reward::new(Source::Person, amount), number, now.as_millisecond())
            .await?;
        Ok(write.commit().await?)
    }

    async fn earn(
        &self,
        write: &mut Write,
        turn: &str,
        reward: Reward,
        number: i64,
        now: i64,
    ) -> Result<(), Error> {
        let earned = sqlx::query(
            "INSERT INTO memory_reward (turn, source, number, amount, created) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (turn, source, number) DO NOTHING",
        );
        let earned = earned.bind(turn).bind(reward.source.name()).bind(number);
        self.execute(write, earned.bind(fixed(reward.amount)).bind(now)).await
    }

    /// Takes back what a turn taught, or lets it count again.
    pub async fn undo(&self, turn: &str, undone: bool) -> Result<(), Error> {
        let mut write = self.store.write().await?;
        let query = sqlx::query("UPDATE memory_turn SET undone = $2 WHERE turn = $1");
        self.execute(&mut write, query.bind(turn).bind(i64::from(undone))).await?;
        Ok(write.commit().await?)
    }

    /// The last turns of a session.
    pub async fn recent(&self, session: &str, count: i64) -> Result<Vec<String>, Error> {
        let query = sqlx::query_scalar(
            "SELECT turn FROM memory_turn WHERE session = $1 ORDER BY tick DESC, turn DESC LIMIT $2",
        );
        let query = query.bind(session).bind(count);
        query.fetch_all(self.store.pool()).await.map_err(|error| self.store.explain(error).into())
    }

    /// The last turn of a session, or of all.
    pub async fn last(&self, session: Option<&str>) -> Result<Option<String>, Error> {
        let query = match session {
            Some(session) => sqlx::query_scalar(
                "SELECT turn FROM memory_turn WHERE session = $1 ORDER BY tick DESC, turn DESC LIMIT 1",
            )
            .bind(session),
            None => sqlx::query_scalar("SELECT turn FROM memory_turn ORDER BY tick DESC, turn DESC LIMIT 1"),
        };
        query.fetch_optional(self.store.pool()).await.map_err(|error| self.store.explain(error).into())
    }

    /// The turns since a moment, the first of them first.
    pub async fn since(&self, moment: Timestamp) -> Result<Vec<String>, Error> {
        let query =
            sqlx::query_scalar("SELECT turn FROM memory_turn WHERE created >= $1 ORDER BY tick, turn");
        let query = query.bind(moment.as_millisecond());
        query.fetch_all(self.store.pool()).await.map_err(|error| self.store.explain(error).into())
    }

    /// What is known of these episodes.
    pub async fn histories(&self, episodes: &[&Episode]) -> Result<HashMap<String, History>, Error> {
        let now = self.tick().await?;
        let mut histories = HashMap::new();
        for episodes in episodes.chunks(CHUNK) {
            let ids: Vec<&str> = episodes.iter().map(|episode| episode.id.as_str()).collect();
            let mut uses: HashMap<String, BTreeMap<(i64, String), Vec<Reward>>> = HashMap::new();
            for row in self.rows(SHOWN, &ids).await? {
                let (episode, turn, tick): (String, String, i64) =
                    (self.get(&row, "episode")?, self.get(&row, "turn")?, self.get(&row, "tick")?);
                let said = uses.entry(episode).or_default().entry((tick, turn)).or_default();
                said.extend(self.reward(&row)?);
            }
            let turns: Vec<&str> = episodes.iter().map(|episode| episode.turn.as_str()).collect();
            let mut births: HashMap<String, Birth> = HashMap::new();
            for row in self.rows(BORN, &turns).await? {
                let birth = births.entry(self.get(&row, "turn")?).or_default();
                birth.tick = self.get(&row, "tick")?;
                birth.undone = self.get::<i64>(&row, "undone")? != 0;
                birth.said.extend(self.reward(&row)?);
            }
            for episode in episodes {
                let birth = births.remove(&episode.turn).unwrap_or_default();
                let uses = uses.remove(&episode.id).unwrap_or_default();
                let last = uses.keys().last().map_or(birth.tick, |(tick, _)| *tick);
                let history = History {
                    birth: verdict(birth.said).filter(|_| !birth.undone),
                    uses: uses.into_values().filter_map(verdict).collect(),
                    idle: u64::try_from(now - last).unwrap_or_default(),
                    undone: birth.undone,
                };
                histories.insert(episode.id.clone(), history);
            }
        }
        Ok(histories)
    }

    /// How many turns there were.
    async fn tick(&self) -> Result<i64, Error> {
        sqlx::query_scalar("SELECT COALESCE(MAX(tick), 0) FROM memory_turn")
            .fetch_one(self.store.pool())
            .await
            .map_err(|error| self.store.explain(error).into())
    }

    /// A turn, explained.
    pub async fn tell(&self, turn: &str) -> Result<Told, Error> {
        let row =
            sqlx::query("SELECT turn, session, asked, undone, created FROM memory_turn WHERE turn = $1")
                .bind(turn)
                .fetch_optional(self.store.pool())
                .await
                .map_err(|error| self.store.explain(error))?;
        let row = row.ok_or_else(|| Error::Turn(turn.to_owned()))?;
        let shown =
            "SELECT episode, similarity, value, score FROM memory_shown WHERE turn IN ({}) ORDER BY place";
        let shown =
            self.rows(shown, &[turn]).await?.iter().map(|row| self.ranked(row)).collect::<Result<_, _>>();
        let said = "SELECT source, amount FROM memory_reward WHERE turn IN ({}) ORDER BY created, number";
        let rewards = self
            .rows(said, &[turn])
            .await?
            .iter()
            .map(|row| self.reward(row))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Told {
            turn: self.get(&row, "turn")?,
            session: self.get(&row, "session")?,
            asked: self.get(&row, "asked")?,
            created: Timestamp::from_millisecond(self.get(&row, "created")?).unwrap_or(Timestamp::MIN),
            undone: self.get::<i64>(&row, "undone")? != 0,
            shown: shown?,
            rewards: rewards.into_iter().flatten().collect(),
        })
    }

    /// Episodes that are not in their table yet, the oldest first.
    pub async fn pending(&self) -> Result<Vec<Episode>, Error> {
        let bodies: Vec<String> =
            sqlx::query_scalar("SELECT body FROM memory_pending ORDER BY created, episode")
                .fetch_all(self.store.pool())
                .await
                .map_err(|error| self.store.explain(error))?;
        let read = |body: &String| match serde_json::from_str(body) {
            Ok(episode) => Some(episode),
            Err(error) => {
                tracing::error!("an episode that waits to be learned cannot be read: {error}");
                None
            }
        };
        Ok(bodies.iter().filter_map(read).collect())
    }

    /// These are in their table now.
    pub async fn arrived(&self, ids: &[&str]) -> Result<(), Error> {
        self.erase(&["DELETE FROM memory_pending WHERE episode IN ({})"], ids).await
    }

    /// Removes every trace of these episodes; `turns` are those they were born in.
    pub async fn forget(&self, ids: &[&str], turns: &[&str]) -> Result<(), Error> {
        let of = [
            "DELETE FROM memory_pending WHERE episode IN ({})",
            "DELETE FROM memory_shown WHERE episode IN ({})",
        ];
        self.erase(&of, ids).await?;
        self.erase(&["UPDATE memory_turn SET asked = '' WHERE turn IN ({})"], turns).await?;
        self.store.wipe().await.map_err(Error::from)
    }

    /// Removes what was asked in a session, or in all.
    pub async fn blank(&self, session: Option<&str>) -> Result<(), Error> {
        let mut write = self.store.write().await?;
        let query = match session {
            Some(session) => {
                sqlx::query("UPDATE memory_turn SET asked = '' WHERE session = $1").bind(session)
            }
            None => sqlx::query("UPDATE memory_turn SET asked = ''"),
        };
        self.execute(&mut write, query).await?;
        write.commit().await?;
        self.store.wipe().await.map_err(Error::from)
    }

    async fn erase(&self, statements: &[&str], ids: &[&str]) -> Result<(), Error> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut write = self.store.write().await?;
        for statement in statements {
            for ids in ids.chunks(CHUNK) {
                let query =
                    ids.iter().fold(sqlx::query(spelled(statement, ids.len())), |query, id| query.bind(*id));
                self.execute(&mut write, query).await?;
            }
        }
        Ok(write.commit().await?)
    }

    async fn execute(
        &self,
        write: &mut Write,
        query: sqlx::query::Query<'_, Any, sqlx::any::AnyArguments>,
    ) -> Result<(), Error> {
        let done = query.execute(&mut **write).await;
        done.map(drop).map_err(|error| self.store.explain(error).into())
    }

    async fn rows(&self, statement: &str, ids: &[&str]) -> Result<Vec<AnyRow>, Error> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<&str> = ids.iter().copied().collect::<HashSet<_>>().into_iter().collect();
        let query = ids.iter().fold(sqlx::query(spelled(statement, ids.len())), |query, id| query.bind(*id));
        query.fetch_all(self.store.pool()).await.map_err(|error| self.store.explain(error).into())
    }

    fn get<'r, T>(&self, row: &'r AnyRow, column: &str) -> Result<T, Error>
    where
        T: sqlx::Decode<'r, Any> + sqlx::Type<Any>,
    {
        row.try_get(column).map_err(|error| self.store.explain(error).into())
    }

    /// The reward in a row. What a newer program has written down is of no use to this one.
    fn reward(&self, row: &AnyRow) -> Result<Option<Reward>, Error> {
        let (source, amount): (String, i64) = (self.get(row, "source")?, self.get(row, "amount")?);
        Ok(Source::named(&source).map(|source| Reward::new(source, real(amount))))
    }

    fn ranked(&self, row: &AnyRow) -> Result<Ranked, Error> {
        Ok(Ranked {
            id: self.get(row, "episode")?,
            similarity: real(self.get(row, "similarity")?),
            value: real(self.get(row, "value")?),
            score: real(self.get(row, "score")?),
        })
    }
}

/// What is known of the turn an episode was born in.
#[derive(Default)]
struct Birth {
    tick: i64,
    undone: bool,
    said: Vec<Reward>,
}

/// Where episodes were shown, and what that earned.
const SHOWN: &str = "SELECT s.episode AS episode, s.turn AS turn, t.tick AS tick, \
     COALESCE(r.source, '') AS source, COALESCE(r.amount, 0) AS amount \
     FROM memory_shown s JOIN memory_turn t ON t.turn = s.turn AND t.undone = 0 \
     LEFT JOIN memory_reward r ON r.turn = s.turn \
     WHERE s.episode IN ({}) ORDER BY t.tick, s.turn, r.created, r.number";

/// The turns they were born in, and what those earned.
const BORN: &str = "SELECT t.turn AS turn, t.tick AS tick, t.undone AS undone, \
     COALESCE(r.source, '') AS source, COALESCE(r.amount, 0) AS amount \
     FROM memory_turn t LEFT JOIN memory_reward r ON r.turn = t.turn \
     WHERE t.turn IN ({}) ORDER BY r.created, r.number";

/// The statement with as many placeholders. Only numbers are spelled into it.
fn spelled(statement: &str, count: usize) -> AssertSqlSafe<String> {
    let places = (1..=count).map(|place| format!("${place}")).collect::<Vec<_>>().join(", ");
    AssertSqlSafe(statement.replace("{}", &places))
}

fn fixed(number: f64) -> i64 {
    (number * UNIT).round() as i64
}

fn real(number: i64) -> f64 {
    number as f64 / UNIT
}
