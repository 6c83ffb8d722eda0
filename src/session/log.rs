//! Sessions in the store: an append-only log each.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use sqlx::any::AnyRow;
use sqlx::{Any, AssertSqlSafe, Row};

use super::view::view;
use super::{Entry, Error, Session, Stored, Summary, repair};
use crate::message::{Message, Role, Usage};
use crate::store::{Statement, Store, Undone, Write};

/// Characters of a title, and of the last text in a list.
const TITLE: usize = 80;
const LAST: usize = 200;
/// Sessions that are named when a prefix fits several.
const CANDIDATES: i64 = 10;

/// A question for entries, with the condition and the order it wants.
macro_rules! entries {
    ($rest:literal) => {
        concat!("SELECT seq, turn, kind, body, created FROM entry ", $rest)
    };
}

/// The same for summaries.
macro_rules! summaries {
    ($rest:literal) => {
        concat!("SELECT id, title, workspace, messages, last, created, updated FROM session ", $rest)
    };
}

/// Every session there is. Cloning shares the store.
#[derive(Debug, Clone)]
pub struct Sessions {
    store: Store,
}

impl Sessions {
    /// The sessions in `store`.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Starts a new session with an id of its own.
    pub async fn create(&self, workspace: &Path, now: Timestamp) -> Result<Session, Error> {
        let id = uuid::Uuid::now_v7().to_string();
        self.ensure(&id, workspace, now).await
    }

    /// The session of exactly this id, which a client may have made up; started if there is none.
    pub async fn ensure(&self, id: &str, workspace: &Path, now: Timestamp) -> Result<Session, Error> {
        let summary = self.ensured(id, workspace, now).await?;
        self.load(summary).await
    }

    /// What is known of that session, without reading it.
    pub async fn ensured(&self, id: &str, workspace: &Path, now: Timestamp) -> Result<Summary, Error> {
        check(id)?;
        if let Some(summary) = self.find(id).await? {
            return Ok(summary);
        }
        let start = sqlx::query(
            "INSERT INTO session (id, title, workspace, messages, last, created, updated) \
             VALUES ($1, '', $2, 0, '', $3, $3) ON CONFLICT (id) DO NOTHING",
        );
        let start = start.bind(id).bind(path_text(workspace)).bind(now.as_millisecond());
        self.store.once(start).await?;
        // Read back rather than made up: somebody else may have started it in the same moment.
        self.resolve(id).await
    }

    /// The session of this id, or the only one whose id begins so.
    pub async fn open(&self, id: &str) -> Result<Session, Error> {
        check(id)?;
        let explain = |error| Error::from(self.store.explain(error));
        let found = sqlx::query(summaries!("WHERE id = $1")).bind(id);
        let entries = sqlx::query(entries!("WHERE session = $1 ORDER BY seq")).bind(id);
        if let [found, entries] = &self.store.rows(vec![found, entries]).await?[..]
            && let Some(found) = found.first()
        {
            let entries = entries.iter().map(|row| stored(id, row, &self.store)).collect::<Result<_, _>>()?;
            return Ok(Self::loaded(summary(found).map_err(explain)?, entries));
        }
        let summary = self.resolve(id).await?;
        self.load(summary).await
    }

    /// The session of this workspace that was last added to. Those of jobs are nobody's conversation.
    pub async fn latest(&self, workspace: &Path) -> Result<Option<Session>, Error> {
        let query = sqlx::query(summaries!(
            "WHERE workspace = $1 AND substr(id, 1, 4) <> 'job:' ORDER BY updated DESC, id DESC LIMIT 1"
        ));
        let query = query.bind(path_text(workspace));
        match self.summaries(query).await?.pop() {
            Some(summary) => Ok(Some(self.load(summary).await?)),
            None => Ok(None),
        }
    }

    /// At most `limit` sessions, of one workspace or of all, those last added to first.
    pub async fn list(&self, workspace: Option<&Path>, limit: usize) -> Result<Vec<Summary>, Error> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let query = match workspace {
            Some(folder) => {
                sqlx::query(summaries!("WHERE workspace = $1 ORDER BY updated DESC, id DESC LIMIT $2"))
                    .bind(path_text(folder))
                    .bind(limit)
            }
            None => sqlx::query(summaries!("ORDER BY updated DESC, id DESC LIMIT $1")).bind(limit),
        };
        self.summaries(query).await
    }

    /// What is known of a session, by its id or the beginning of it.
    pub async fn resolve(&self, id: &str) -> Result<Summary, Error> {
        check(id)?;
        if let Some(summary) = self.find(id).await? {
            return Ok(summary);
        }
        // Not LIKE: `_` is a letter of ids.
        let query = sqlx::query(summaries!("WHERE substr(id, 1, length($1)) = $1 ORDER BY id LIMIT $2"))
            .bind(id.to_owned())
            .bind(CANDIDATES);
        let mut found = self.summaries(query).await?;
        match found.len() {
            0 => Err(Error::Unknown(id.to_owned())),
            1 => Ok(found.remove(0)),
            count => Err(Error::Ambiguous { prefix: id.to_owned(), count }),
        }
    }

    /// The whole log of a session, as it was written.
    pub async fn show(&self, id: &str) -> Result<Vec<Stored>, Error> {
        let summary = self.resolve(id).await?;
        self.entries(&summary.id).await
    }

    /// What the turns of a session have used.
    pub async fn usage(&self, id: &str) -> Result<Usage, Error> {
        let mut sum = Usage::default();
        for usage in self.usages(&self.resolve(id).await?.id).await? {
            sum += usage;
        }
        Ok(sum)
    }

    /// The same turn by turn.
    pub async fn usages(&self, id: &str) -> Result<Vec<Usage>, Error> {
        let ended =
            self.read(id, entries!("WHERE session = $1 AND kind = 'turn_ended' ORDER BY seq")).await?;
        Ok(ended.into_iter().filter_map(used).collect())
    }

    /// What turns have used that ended since then, in all sessions.
    pub async fn usages_since(&self, time: Timestamp) -> Result<Vec<Usage>, Error> {
        let explain = |error| self.store.explain(error);
        // The sessions first, in this order: there are few of them that were added to since.
        let rows = sqlx::query(
            "SELECT e.session AS session, e.seq AS seq, e.turn AS turn, e.kind AS kind, e.body AS body, \
             e.created AS created FROM session s CROSS JOIN entry e \
             WHERE s.updated >= $1 AND e.session = s.id AND e.kind = 'turn_ended' AND e.created >= $1",
        )
        .bind(time.as_millisecond())
        .fetch_all(self.store.pool())
        .await
        .map_err(explain)?;
        let usage = |row: &AnyRow| {
            let id: String = row.try_get("session").map_err(explain)?;
            Ok(used(stored(&id, row, &self.store)?))
        };
        rows.iter().filter_map(|row| usage(row).transpose()).collect()
    }

    /// What of the log a model is shown, in full: without what was set aside.
    pub async fn shown(&self, id: &str) -> Result<Vec<Stored>, Error> {
        Ok(view(self.show(id).await?))
    }

    /// A session as JSON lines: first what the list says of it, then every entry.
    pub async fn export(&self, id: &str) -> Result<String, Error> {
        let summary = self.resolve(id).await?;
        let entries = self.entries(&summary.id).await?;
        let mut text = String::new();
        let mut line = |json: Result<String, serde_json::Error>| {
            let json = json.expect("keys are texts and numbers are finite");
            writeln!(text, "{json}").expect("a String takes everything");
        };
        line(serde_json::to_string(&summary));
        entries.iter().for_each(|entry| line(serde_json::to_string(entry)));
        Ok(text)
    }

    /// Removes a session and its log, by its id or the beginning of it; says which it was.
    pub async fn delete(&self, id: &str) -> Result<Summary, Error> {
        let summary = self.resolve(id).await?;
        let mut write = self.store.write().await?;
        for statement in ["DELETE FROM entry WHERE session = $1", "DELETE FROM session WHERE id = $1"] {
            sqlx::query(statement)
                .bind(&summary.id)
                .execute(&mut *write)
                .await
                .map_err(|error| self.store.explain(error))?;
        }
        write.commit().await?;
        Ok(summary)
    }

    /// Adds entries to the end of the log, all or none. They are durable when this returns.
    ///
    /// They must follow what `session` has seen: if another writer was faster, nothing is
    /// written and the error is [`Error::Moved`]. So it is after this future was dropped while
    /// it committed, because then nobody knows; load the session again.
    pub async fn append(
        &self,
        session: &mut Session,
        turn: &str,
        entries: Vec<Entry>,
        now: Timestamp,
    ) -> Result<(), Error> {
        if entries.is_empty() {
            return Ok(());
        }
        if !session.kept {
            extend(session, entries, now);
            return Ok(());
        }
        self.append_with(session, turn, entries, Vec::new(), now).await.map(drop)
    }

    /// The same in one transaction with what somebody else writes. What cannot be written of that is
    /// left out; returns whether it is there.
    pub async fn append_with(
        &self,
        session: &mut Session,
        turn: &str,
        entries: Vec<Entry>,
        others: Vec<Statement>,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let mut statements = lines(session, turn, &entries, now);
        let (own, has_others) = (statements.len(), !others.is_empty());
        let all = own + others.len();
        statements.extend(others);
        let mut is_whole = true;
        if !statements.is_empty()
            && let Err(Undone { place, error }) = self.store.all(statements).await
        {
            if !(own..all).contains(&place) {
                return Err(self.refused(session.id(), error));
            }
            let error = self.store.explain(error);
            tracing::error!(session = session.id(), "the log of a turn is written without the rest: {error}");
            is_whole = false;
            let again = self.store.all(lines(session, turn, &entries, now)).await;
            again.map_err(|undone| self.refused(session.id(), undone.error))?;
        }
        extend(session, entries, now);
        Ok(is_whole && has_others)
    }

    /// Begins a transaction in which somebody else writes as well: [`Sessions::add`], then
    /// [`Sessions::commit`].
    pub async fn begin(&self) -> Result<Write, Error> {
        Ok(self.store.write().await?)
    }

    /// Adds entries in a transaction; see [`Sessions::append`].
    pub async fn add(
        &self,
        write: &mut Write,
        session: &Session,
        turn: &str,
        entries: &[Entry],
        now: Timestamp,
    ) -> Result<(), Error> {
        for statement in lines(session, turn, entries, now) {
            statement.execute(&mut **write).await.map_err(|error| self.refused(session.id(), error))?;
        }
        Ok(())
    }

    /// Makes the entries that were added durable.
    pub async fn commit(
        &self,
        write: Write,
        session: &mut Session,
        entries: Vec<Entry>,
        now: Timestamp,
    ) -> Result<(), Error> {
        write.commit().await?;
        extend(session, entries, now);
        Ok(())
    }

    /// Why entries are not in the log.
    fn refused(&self, id: &str, error: sqlx::Error) -> Error {
        match error {
            sqlx::Error::Database(inner) if inner.is_unique_violation() => Error::Moved(id.to_owned()),
            sqlx::Error::Database(inner) if inner.is_foreign_key_violation() => Error::Unknown(id.to_owned()),
            error => self.store.explain(error).into(),
        }
    }

    async fn load(&self, summary: Summary) -> Result<Session, Error> {
        let entries = self.entries(&summary.id).await?;
        Ok(Self::loaded(summary, entries))
    }

    fn loaded(summary: Summary, entries: Vec<Stored>) -> Session {
        let next = entries.last().map_or(1, |last| last.seq + 1);
        let entries = view(entries);
        let digest = entries.iter().rev().find_map(|stored| match &stored.entry {
            Entry::Digest(digest) => Some(digest.clone()),
            _ => None,
        });
        let told = digest.as_ref().map_or(0, |digest| digest.upto);
        let messages = entries.into_iter().filter_map(|stored| match stored.entry {
            Entry::Message(message) if stored.seq > told => Some(message),
            _ => None,
        });
        let messages = repair::repair(messages.collect());
        Session { summary, messages, digest, next, kept: true }
    }

    async fn find(&self, id: &str) -> Result<Option<Summary>, Error> {
        let query = sqlx::query(summaries!("WHERE id = $1")).bind(id.to_owned());
        Ok(self.summaries(query).await?.pop())
    }

    async fn summaries(
        &self,
        query: sqlx::query::Query<'_, Any, sqlx::any::AnyArguments>,
    ) -> Result<Vec<Summary>, Error> {
        let explain = |error| self.store.explain(error);
        let rows = query.fetch_all(self.store.pool()).await.map_err(explain)?;
        rows.iter().map(|row| summary(row).map_err(|error| explain(error).into())).collect()
    }

    async fn entries(&self, id: &str) -> Result<Vec<Stored>, Error> {
        self.read(id, entries!("WHERE session = $1 ORDER BY seq")).await
    }

    async fn read(&self, id: &str, query: &'static str) -> Result<Vec<Stored>, Error> {
        let explain = |error| self.store.explain(error);
        let rows = sqlx::query(query).bind(id).fetch_all(self.store.pool()).await.map_err(explain)?;
        rows.iter().map(|row| stored(id, row, &self.store)).collect()
    }
}

/// Whether `id` may be the id of a session: it ends up in URLs, file names and logs.
pub fn check(id: &str) -> Result<(), Error> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte);
    match (1..=128).contains(&id.len()) && id.bytes().all(letter) {
        true => Ok(()),
        false => Err(Error::Id(cut(id, 128))),
    }
}

/// The statements that add entries to the log of a session, if it has one.
fn lines(session: &Session, turn: &str, entries: &[Entry], now: Timestamp) -> Vec<Statement> {
    if !session.kept {
        return Vec::new();
    }
    let (summary, now) = (grown(&session.summary, entries, now), now.as_millisecond());
    let row = |first: usize| {
        let places: Vec<_> = (first..first + 6).map(|place| format!("${place}")).collect();
        format!("({})", places.join(", "))
    };
    let rows: Vec<_> = (0..entries.len()).map(|place| row(6 * place + 1)).collect();
    // Only numbers are spelled into it.
    let text = AssertSqlSafe(format!(
        "INSERT INTO entry (session, seq, turn, kind, body, created) VALUES {}",
        rows.join(", ")
    ));
    let mut insert = sqlx::query(text);
    for (seq, entry) in (session.next..).zip(entries) {
        let (kind, body) = encode(entry);
        insert = insert.bind(&summary.id).bind(seq).bind(turn).bind(kind).bind(body).bind(now);
    }
    let update =
        sqlx::query("UPDATE session SET title = $2, messages = $3, last = $4, updated = $5 WHERE id = $1")
            .bind(&summary.id)
            .bind(&summary.title)
            .bind(summary.messages as i64)
            .bind(&summary.last)
            .bind(now);
    vec![insert, update]
}

/// Adds to a session what is in its log, if it has one.
fn extend(session: &mut Session, entries: Vec<Entry>, now: Timestamp) {
    session.summary = grown(&session.summary, &entries, now);
    session.next += entries.len() as i64;
    session.messages.extend(entries.into_iter().filter_map(|entry| match entry {
        Entry::Message(message) => Some(message),
        _ => None,
    }));
}

/// The summary of a session once `entries` are in its log.
fn grown(before: &Summary, entries: &[Entry], now: Timestamp) -> Summary {
    let mut summary = Summary { updated: now, ..before.clone() };
    for entry in entries {
        let Entry::Message(message) = entry else { continue };
        summary.messages += 1;
        let text = message.text();
        let line = text.lines().map(str::trim).find(|line| !line.is_empty());
        if let (true, Role::User, Some(line)) = (summary.title.is_empty(), message.role, line) {
            summary.title = cut(line, TITLE);
        }
        if line.is_some() && message.role != Role::Tool {
            summary.last = cut(text.trim(), LAST);
        }
    }
    summary
}

fn encode(entry: &Entry) -> (&'static str, String) {
    let (kind, body) = match entry {
        Entry::Message(message) => ("message", serde_json::to_string(message)),
        Entry::TurnBegan(began) => ("turn_began", serde_json::to_string(began)),
        Entry::TurnEnded(ended) => ("turn_ended", serde_json::to_string(ended)),
        Entry::Note(note) => ("note", serde_json::to_string(note)),
        Entry::Digest(digest) => ("digest", serde_json::to_string(digest)),
        Entry::Kept(mark) => ("kept", serde_json::to_string(mark)),
        Entry::Reset => ("reset", Ok("{}".to_owned())),
        Entry::Restored(mark) => ("restored", serde_json::to_string(mark)),
    };
    (kind, body.expect("keys are texts and numbers are JSON's own"))
}

fn decode(kind: &str, body: &str) -> Result<Entry, String> {
    let entry = match kind {
        "message" => serde_json::from_str::<Message>(body).map(Entry::Message),
        "turn_began" => serde_json::from_str(body).map(Entry::TurnBegan),
        "turn_ended" => serde_json::from_str(body).map(Entry::TurnEnded),
        "note" => serde_json::from_str(body).map(Entry::Note),
        "digest" => serde_json::from_str(body).map(Entry::Digest),
        "kept" => serde_json::from_str(body).map(Entry::Kept),
        "reset" => Ok(Entry::Reset),
        "restored" => serde_json::from_str(body).map(Entry::Restored),
        other => return Err(format!("its kind is `{other}`, which this omni does not know")),
    };
    entry.map_err(|error| error.to_string())
}

fn stored(id: &str, row: &AnyRow, store: &Store) -> Result<Stored, Error> {
    let explain = |error| Error::from(store.explain(error));
    let seq: i64 = row.try_get("seq").map_err(explain)?;
    let kind: String = row.try_get("kind").map_err(explain)?;
    let body: String = row.try_get("body").map_err(explain)?;
    let entry =
        decode(&kind, &body).map_err(|reason| Error::Unreadable { id: id.to_owned(), seq, reason })?;
    Ok(Stored {
        seq,
        turn: row.try_get("turn").map_err(explain)?,
        created: time(row, "created").map_err(explain)?,
        entry,
    })
}

fn used(stored: Stored) -> Option<Usage> {
    match stored.entry {
        Entry::TurnEnded(ended) => Some(ended.usage),
        _ => None,
    }
}

fn summary(row: &AnyRow) -> Result<Summary, sqlx::Error> {
    Ok(Summary {
        id: row.try_get("id")?,
        title: row.try_get("title")?,
        workspace: PathBuf::from(row.try_get::<String, _>("workspace")?),
        messages: row.try_get::<i64, _>("messages")?.unsigned_abs(),
        last: row.try_get("last")?,
        created: time(row, "created")?,
        updated: time(row, "updated")?,
    })
}

fn time(row: &AnyRow, column: &str) -> Result<Timestamp, sqlx::Error> {
    let milliseconds: i64 = row.try_get(column)?;
    Timestamp::from_millisecond(milliseconds)
        .map_err(|error| sqlx::Error::ColumnDecode { index: column.to_owned(), source: error.into() })
}

/// The first `limit` characters, with an ellipsis where something is missing. NUL, which
/// PostgreSQL refuses in a text, is left out.
fn cut(text: &str, limit: usize) -> String {
    let mut letters = text.chars().filter(|letter| *letter != '\0');
    let mut short: String = letters.by_ref().take(limit).collect();
    if letters.next().is_some() {
        short.pop();
        short.push('…');
    }
    short
}

fn path_text(path: &Path) -> String {
    path.to_string_lossy().replace('\0', "")
}
