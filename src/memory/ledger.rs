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
use crate::store::{Statement, Store, Write};

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
    /// The [tick](Now::tick) at which it was last shown, or born; 0 where neither is known.
    pub last: i64,
    /// The turn it was born in was undone.
    pub undone: bool,
}

impl History {
    /// Turns since it was last shown or born.
    pub fn idle(&self, tick: i64) -> u64 {
        u64::try_from(tick - self.last).unwrap_or_default()
    }
}

/// How far the ledger has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    /// Turns so far.
    pub tick: i64,
    /// Changes so far: turns, and what is said of turns later.
    pub change: i64,
}

/// What has changed in the ledger.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    /// How far it has come.
    pub now: Now,
    /// Turns that are new, or of which something is said.
    pub turns: Vec<String>,
    /// What was shown in them.
    pub episodes: Vec<String>,
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
        for statement in self.lines(learning, now) {
            self.execute(write, statement).await?;
        }
        Ok(())
    }

    /// The statements that do so, in one transaction.
    pub fn lines(&self, learning: &Learning, now: Timestamp) -> Vec<Statement> {
        let (turn, now) = (&learning.turn, now.as_millisecond());
        let new = sqlx::query(
            "INSERT INTO memory_turn (turn, session, asked, tick, undone, created, changed) \
             VALUES ($1, $2, $3, (SELECT COALESCE(MAX(tick), 0) + 1 FROM memory_turn), 0, $4, \
             (SELECT now FROM memory_clock)) ON CONFLICT (turn) DO NOTHING",
        );
        let new = new.bind(turn).bind(&learning.session).bind(text::cut(&learning.asked, ASKED)).bind(now);
        let mut all = vec![advance(), new];
        all.extend((1i64..).zip(&learning.shown).map(|(place, ranked)| {
            let shown = sqlx::query(
                "INSERT INTO memory_shown (turn, episode, place, similarity, value, score) \
                 VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (turn, episode) DO NOTHING",
            );
            let shown = shown.bind(turn).bind(&ranked.id).bind(place).bind(fixed(ranked.similarity));
            shown.bind(fixed(ranked.value)).bind(fixed(ranked.score))
        }));
        for (about, reward) in &learning.rewards {
            all.push(earn(about, *reward, 0, now));
            all.extend((about != turn).then(|| touch(about)));
        }
        all.extend(learning.episodes.iter().map(|episode| {
            let body = serde_json::to_string(episode).expect("an episode is texts");
            let pending = sqlx::query(
                "INSERT INTO memory_pending (episode, body, created) VALUES ($1, $2, $3) \
                 ON CONFLICT (episode) DO NOTHING",
            );
            pending.bind(&episode.id).bind(body).bind(now)
        }));
        all
    }

    /// Writes down a person's verdict on a turn; the last one counts.
    pub async fn judge(&self, turn: &str, amount: f64, now: Timestamp) -> Result<(), Error> {
        let mut write = self.store.write().await?;
        let query = sqlx::query_scalar::<Any, i64>(
            "SELECT COUNT(*) FROM memory_reward WHERE turn = $1 AND source = 'person'",
        );
        let number =
            query.bind(turn).fetch_one(&mut *write).await.map_err(|error| self.store.explain(error))?;
        let reward = Reward::new(Source::Person, amount);
        self.execute(&mut write, earn(turn, reward, number, now.as_millisecond())).await?;
        self.execute(&mut write, advance()).await?;
        self.execute(&mut write, touch(turn)).await?;
        Ok(write.commit().await?)
    }

    /// How far it has come, and what has changed since a change; with what waits for its table.
    pub async fn look(&self, since: i64) -> Result<(Vec<String>, Changes), Error> {
        let now = sqlx::query(
            "SELECT now AS change, (SELECT COALESCE(MAX(tick), 0) FROM memory_turn) AS tick FROM memory_clock",
        );
        let changed = sqlx::query(
            "SELECT t.turn AS turn, COALESCE(s.episode, '') AS episode FROM memory_turn t \
             LEFT JOIN memory_shown s ON s.turn = t.turn WHERE t.changed > $1",
        );
        // To whom nothing is known nothing is new.
        let changed = changed.bind(if since == 0 { i64::MAX } else { since });
        let found = self.store.rows(vec![sqlx::query(WAITING), now, changed]).await?;
        let mut changes = Changes::default();
        for row in &found[1] {
            changes.now = Now { tick: self.get(row, "tick")?, change: self.get(row, "change")? };
        }
        for row in &found[2] {
            changes.turns.push(self.get(row, "turn")?);
            changes.episodes.push(self.get(row, "episode")?);
        }
        let waiting = found[0].iter().map(|row| self.get(row, "episode")).collect::<Result<_, _>>()?;
        Ok((waiting, changes))
    }

    /// Takes back what a turn taught, or lets it count again.
    pub async fn undo(&self, turn: &str, undone: bool) -> Result<(), Error> {
        let mut write = self.store.write().await?;
        let query = sqlx::query("UPDATE memory_turn SET undone = $2 WHERE turn = $1");
        self.execute(&mut write, query.bind(turn).bind(i64::from(undone))).await?;
        self.execute(&mut write, advance()).await?;
        self.execute(&mut write, touch(turn)).await?;
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

    /// How the turns went of which something is known, in their order.
    pub async fn course(&self) -> Result<Vec<Reward>, Error> {
        let rows = sqlx::query(
            "SELECT t.turn AS turn, r.source AS source, r.amount AS amount FROM memory_turn t \
             JOIN memory_reward r ON r.turn = t.turn WHERE t.undone = 0 \
             ORDER BY t.tick, t.turn, r.created, r.number",
        );
        let rows = rows.fetch_all(self.store.pool()).await.map_err(|error| self.store.explain(error))?;
        let mut turns: Vec<(String, Vec<Reward>)> = Vec::new();
        for row in &rows {
            let (turn, reward): (String, _) = (self.get(row, "turn")?, self.reward(row)?);
            match turns.last_mut() {
                Some((last, said)) if *last == turn => said.extend(reward),
                _ => turns.push((turn, reward.into_iter().collect())),
            }
        }
        Ok(turns.into_iter().filter_map(|(_, said)| verdict(said)).collect())
    }

    /// What is known of these episodes.
    pub async fn histories(&self, episodes: &[&Episode]) -> Result<HashMap<String, History>, Error> {
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
                    last,
                    undone: birth.undone,
                };
                histories.insert(episode.id.clone(), history);
            }
        }
        Ok(histories)
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

    /// The ids of episodes that are not in their table yet, the oldest first.
    pub async fn waiting(&self) -> Result<Vec<String>, Error> {
        sqlx::query_scalar(WAITING)
            .fetch_all(self.store.pool())
            .await
            .map_err(|error| self.store.explain(error).into())
    }

    /// Those of these episodes that are not in their table yet, the oldest first.
    pub async fn pending(&self, ids: &[&str]) -> Result<Vec<Episode>, Error> {
        let mut episodes = Vec::new();
        for ids in ids.chunks(CHUNK) {
            let rows = "SELECT body FROM memory_pending WHERE episode IN ({}) ORDER BY created, episode";
            for row in self.rows(rows, ids).await? {
                match serde_json::from_str(&self.get::<String>(&row, "body")?) {
                    Ok(episode) => episodes.push(episode),
                    Err(error) => {
                        tracing::error!("an episode that waits to be learned cannot be read: {error}");
                    }
                }
            }
        }
        Ok(episodes)
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

/// What waits for its table, the oldest first.
const WAITING: &str = "SELECT episode FROM memory_pending ORDER BY created, episode";

/// Counts a change. Until the transaction ends nobody else can count one, so changes are numbered in
/// the order in which they can be seen.
fn advance() -> Statement {
    sqlx::query("UPDATE memory_clock SET now = now + 1")
}

/// Says that a turn has changed with the present change.
fn touch(turn: &str) -> Statement {
    sqlx::query("UPDATE memory_turn SET changed = (SELECT now FROM memory_clock) WHERE turn = $1").bind(turn)
}

fn earn(turn: &str, reward: Reward, number: i64, now: i64) -> Statement {
    let earned = sqlx::query(
        "INSERT INTO memory_reward (turn, source, number, amount, created) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (turn, source, number) DO NOTHING",
    );
    earned.bind(turn).bind(reward.source.name()).bind(number).bind(fixed(reward.amount)).bind(now)
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
