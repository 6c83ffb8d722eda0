//! Mail of a chat network: what came in, what goes out, who may talk.
//!
//! A letter is here before the network is told that it has arrived, and what answers it is here in
//! the same transaction that says so. What is in a letter or a parcel is the network's own business.

pub mod contact;

use std::collections::HashMap;

use jiff::Timestamp;
use sqlx::any::AnyRow;
use sqlx::{Any, Row};

pub use contact::Contact;

use super::{Error, Store, Write};

/// Letters of one conversation that are read at once.
const READ: i64 = 64;
/// How long what is done is known, so that what comes again is seen: longer than a network keeps it.
const KEPT: jiff::SignedDuration = jiff::SignedDuration::from_hours(7 * 24);

/// The mail of one account.
#[derive(Debug, Clone)]
pub struct Mail {
    store: Store,
    account: String,
}

/// How far a network's updates were read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The update to begin with; 0 for the first there is.
    pub next: i64,
    /// When the network last answered, if ever.
    pub heard: Option<Timestamp>,
}

/// Something that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// The network's number of the update.
    pub id: i64,
    /// The conversation it belongs to; letters of one are answered in order.
    pub lane: String,
    /// What it was sent together with, if anything.
    pub bundle: String,
    /// The numbering that its message's number is of.
    pub place: String,
    /// The number of its message, 0 for none.
    pub message: i64,
    /// The turn that answers it.
    pub turn: String,
    /// What it says.
    pub body: String,
}

/// Something that goes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parcel {
    /// Its id; one that is there already is not added again.
    pub id: String,
    /// Where it goes.
    pub chat: i64,
    /// The numbering that its message's number will be of.
    pub place: String,
    /// The turn that wrote it, if one did.
    pub turn: String,
    /// What it says.
    pub body: String,
}

/// A parcel on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posted {
    /// The parcel.
    pub parcel: Parcel,
    /// How far it is.
    pub state: State,
    /// The newest message that was known before it was sent.
    pub after: i64,
    /// The number of its message, 0 for none.
    pub message: i64,
    /// When it was written.
    pub created: Timestamp,
}

/// How far a parcel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It waits.
    Waits,
    /// It may have arrived.
    Sending,
    /// It has arrived.
    Sent,
    /// It never will.
    Failed,
}

const STATES: [(State, &str); 4] =
    [(State::Waits, "waits"), (State::Sending, "sending"), (State::Sent, "sent"), (State::Failed, "failed")];

impl State {
    fn name(self) -> &'static str {
        STATES.iter().find(|(state, _)| *state == self).map_or("waits", |(_, name)| name)
    }

    fn read(name: &str) -> Self {
        STATES.iter().find(|(_, known)| *known == name).map_or(Self::Failed, |(state, _)| *state)
    }
}

impl Mail {
    /// The mail of `account` in `store`.
    pub fn new(store: Store, account: impl Into<String>) -> Self {
        Self { store, account: account.into() }
    }

    /// The name of the account.
    pub fn account(&self) -> &str {
        &self.account
    }

    /// The database.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// How far updates were read.
    pub async fn cursor(&self) -> Result<Cursor, Error> {
        let query = sqlx::query("SELECT next, heard FROM mail_cursor WHERE account = $1");
        let row = query.bind(&self.account).fetch_optional(self.store.pool()).await;
        let Some(row) = row.map_err(|error| self.store.explain(error))? else { return Ok(Cursor::default()) };
        let number = |column| row.try_get::<i64, _>(column).unwrap_or(0);
        let heard = Some(number("heard")).filter(|heard| *heard != 0);
        let heard = heard.and_then(|heard| Timestamp::from_millisecond(heard).ok());
        Ok(Cursor { next: number("next"), heard })
    }

    /// Keeps what came in and where reading goes on, together. What is known already is not taken
    /// again; returns how many were new.
    pub async fn take(&self, letters: &[Letter], next: i64, now: Timestamp) -> Result<u64, Error> {
        let mut write = self.store.write().await?;
        let mut new = 0;
        for letter in letters {
            let query = sqlx::query(
                "INSERT INTO mail_in (account, id, lane, bundle, place, message, turn, body, created, done) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0) ON CONFLICT (account, id) DO NOTHING",
            );
            let query = query.bind(&self.account).bind(letter.id).bind(&letter.lane).bind(&letter.bundle);
            let query = query.bind(&letter.place).bind(letter.message).bind(&letter.turn);
            let query = query.bind(text(&letter.body)).bind(now.as_millisecond());
            new += self.execute(&mut write, query).await?;
        }
        let query = sqlx::query(
            "INSERT INTO mail_cursor (account, next, heard) VALUES ($1, $2, $3) \
             ON CONFLICT (account) DO UPDATE SET next = $2, heard = $3",
        );
        self.execute(&mut write, query.bind(&self.account).bind(next).bind(now.as_millisecond())).await?;
        write.commit().await?;
        Ok(new)
    }

    /// The conversations in which something waits.
    pub async fn lanes(&self) -> Result<Vec<String>, Error> {
        let query = sqlx::query_scalar::<Any, String>(
            "SELECT lane FROM mail_in WHERE account = $1 AND done = 0 GROUP BY lane ORDER BY MIN(id)",
        );
        let lanes = query.bind(&self.account).fetch_all(self.store.pool()).await;
        lanes.map_err(|error| self.store.explain(error))
    }

    /// What waits in a conversation, the oldest first.
    pub async fn waiting(&self, lane: &str) -> Result<Vec<Letter>, Error> {
        let query = sqlx::query(
            "SELECT * FROM mail_in WHERE account = $1 AND done = 0 AND lane = $2 ORDER BY id LIMIT $3",
        );
        let rows = query.bind(&self.account).bind(lane).bind(READ).fetch_all(self.store.pool()).await;
        let explain = |error| self.store.explain(error);
        rows.map_err(explain)?.iter().map(|row| letter(row).map_err(explain)).collect()
    }

    /// Says that these letters are answered by one turn, that of the first.
    pub async fn join(&self, letters: &[Letter]) -> Result<(), Error> {
        let [first, rest @ ..] = letters else { return Ok(()) };
        if rest.iter().all(|letter| letter.turn == first.turn) {
            return Ok(());
        }
        let mut write = self.store.write().await?;
        for letter in rest {
            let query = sqlx::query("UPDATE mail_in SET turn = $3 WHERE account = $1 AND id = $2");
            self.execute(&mut write, query.bind(&self.account).bind(letter.id).bind(&first.turn)).await?;
        }
        write.commit().await
    }

    /// Says that these letters belong to another conversation.
    pub async fn readdress(&self, letters: &[i64], lane: &str) -> Result<(), Error> {
        let mut write = self.store.write().await?;
        for id in letters {
            let query = sqlx::query("UPDATE mail_in SET lane = $3 WHERE account = $1 AND id = $2");
            self.execute(&mut write, query.bind(&self.account).bind(*id).bind(lane)).await?;
        }
        write.commit().await
    }

    /// Keeps the answer and takes the letters off the pile, together. Their texts are not needed
    /// any more and go.
    pub async fn answer(&self, letters: &[i64], parcels: &[Parcel], now: Timestamp) -> Result<(), Error> {
        let mut write = self.store.write().await?;
        for id in letters {
            let query = sqlx::query(
                "UPDATE mail_in SET done = $3, body = '' WHERE account = $1 AND id = $2 AND done = 0",
            );
            self.execute(&mut write, query.bind(&self.account).bind(*id).bind(now.as_millisecond())).await?;
        }
        self.add(&mut write, parcels, now).await?;
        write.commit().await
    }

    /// Keeps what is to be sent.
    pub async fn post(&self, parcels: &[Parcel], now: Timestamp) -> Result<(), Error> {
        self.answer(&[], parcels, now).await
    }

    /// The same, in a transaction of somebody else's.
    pub async fn add(&self, write: &mut Write, parcels: &[Parcel], now: Timestamp) -> Result<(), Error> {
        for parcel in parcels {
            let query = sqlx::query(
                "INSERT INTO mail_out (account, id, seq, chat, place, turn, body, state, after, message, created) \
                 VALUES ($1, $2, (SELECT COALESCE(MAX(seq), 0) + 1 FROM mail_out WHERE account = $1), \
                 $3, $4, $5, $6, 'waits', 0, 0, $7) ON CONFLICT (account, id) DO NOTHING",
            );
            let query = query.bind(&self.account).bind(&parcel.id).bind(parcel.chat).bind(&parcel.place);
            let query = query.bind(&parcel.turn).bind(text(&parcel.body)).bind(now.as_millisecond());
            self.execute(write, query).await?;
        }
        Ok(())
    }

    /// The chats that something is to be sent to.
    pub async fn chats(&self) -> Result<Vec<i64>, Error> {
        let query = sqlx::query_scalar::<Any, i64>(
            "SELECT DISTINCT chat FROM mail_out WHERE account = $1 AND state IN ('waits', 'sending')",
        );
        let chats = query.bind(&self.account).fetch_all(self.store.pool()).await;
        chats.map_err(|error| self.store.explain(error))
    }

    /// What is to be sent to a chat next.
    pub async fn next(&self, chat: i64) -> Result<Option<Posted>, Error> {
        let query = sqlx::query(
            "SELECT * FROM mail_out WHERE account = $1 AND state IN ('waits', 'sending') AND chat = $2 \
             ORDER BY seq LIMIT 1",
        );
        let row = query.bind(&self.account).bind(chat).fetch_optional(self.store.pool()).await;
        self.posted(row)
    }

    /// The parcel of this id.
    pub async fn parcel(&self, id: &str) -> Result<Option<Posted>, Error> {
        let query = sqlx::query("SELECT * FROM mail_out WHERE account = $1 AND id = $2");
        let row = query.bind(&self.account).bind(id).fetch_optional(self.store.pool()).await;
        self.posted(row)
    }

    /// The parcel that became this message, the newest of them.
    pub async fn sent(&self, chat: i64, message: i64) -> Result<Option<Posted>, Error> {
        let query = sqlx::query(
            "SELECT * FROM mail_out WHERE account = $1 AND chat = $2 AND message = $3 \
             ORDER BY seq DESC LIMIT 1",
        );
        let row = query.bind(&self.account).bind(chat).bind(message).fetch_optional(self.store.pool()).await;
        self.posted(row)
    }

    fn posted(&self, row: Result<Option<AnyRow>, sqlx::Error>) -> Result<Option<Posted>, Error> {
        let explain = |error| self.store.explain(error);
        row.map_err(explain)?.map(|row| posted(&row).map_err(explain)).transpose()
    }

    /// Says how far a parcel is. With [`State::Sending`] the number is the newest message that is
    /// known before it goes, with [`State::Sent`] its own; else it counts for nothing.
    pub async fn set(&self, id: &str, state: State, number: i64) -> Result<(), Error> {
        let named = |query| sqlx::query(query).bind(&self.account).bind(id).bind(state.name());
        let query = match state {
            State::Sending => {
                named("UPDATE mail_out SET state = $3, after = $4 WHERE account = $1 AND id = $2")
                    .bind(number)
            }
            State::Sent => {
                named("UPDATE mail_out SET state = $3, message = $4 WHERE account = $1 AND id = $2")
                    .bind(number)
            }
            State::Waits | State::Failed => {
                named("UPDATE mail_out SET state = $3 WHERE account = $1 AND id = $2")
            }
        };
        self.store.once(query).await.map(drop)
    }

    /// Writes a parcel anew that was not accepted as it was.
    pub async fn rewrite(&self, id: &str, body: &str) -> Result<(), Error> {
        let query = sqlx::query("UPDATE mail_out SET body = $3 WHERE account = $1 AND id = $2");
        self.store.once(query.bind(&self.account).bind(id).bind(text(body))).await.map(drop)
    }

    /// A chat has another number now: what is to be sent to it goes there.
    pub async fn moved(&self, from: i64, to: i64, place: &str) -> Result<(), Error> {
        let mut write = self.store.write().await?;
        let query = sqlx::query(
            "UPDATE mail_out SET chat = $3, place = $4 WHERE account = $1 AND chat = $2 AND state <> 'sent'",
        );
        self.execute(&mut write, query.bind(&self.account).bind(from).bind(to).bind(place)).await?;
        // Said twice, it must not take the new number away.
        let query = sqlx::query(
            "UPDATE mail_contact SET id = $3 WHERE account = $1 AND id = $2 \
             AND NOT EXISTS (SELECT 1 FROM mail_contact WHERE account = $1 AND id = $3)",
        );
        self.execute(&mut write, query.bind(&self.account).bind(from).bind(to)).await?;
        write.commit().await
    }

    /// The newest message that is known in each place.
    pub async fn newest(&self) -> Result<HashMap<String, i64>, Error> {
        let mut newest = HashMap::new();
        let tables = [
            "SELECT place, MAX(message) AS message FROM mail_in WHERE account = $1 GROUP BY place",
            "SELECT place, MAX(message) AS message FROM mail_out WHERE account = $1 GROUP BY place",
        ];
        for table in tables {
            let rows = sqlx::query(table).bind(&self.account).fetch_all(self.store.pool()).await;
            for row in rows.map_err(|error| self.store.explain(error))? {
                let place: String = row.try_get("place").map_err(|error| self.store.explain(error))?;
                let message: i64 = row.try_get("message").map_err(|error| self.store.explain(error))?;
                let known = newest.entry(place).or_insert(message);
                *known = message.max(*known);
            }
        }
        Ok(newest)
    }

    /// The session that a conversation was moved to, if it was.
    pub async fn session(&self, lane: &str) -> Result<Option<String>, Error> {
        let query = sqlx::query_scalar::<Any, String>(
            "SELECT session FROM mail_lane WHERE account = $1 AND lane = $2",
        );
        let session = query.bind(&self.account).bind(lane).fetch_optional(self.store.pool()).await;
        session.map_err(|error| self.store.explain(error))
    }

    /// Moves a conversation to another session.
    pub async fn turn_to(&self, lane: &str, session: &str) -> Result<(), Error> {
        let query = sqlx::query(
            "INSERT INTO mail_lane (account, lane, session) VALUES ($1, $2, $3) \
             ON CONFLICT (account, lane) DO UPDATE SET session = $3",
        );
        self.store.once(query.bind(&self.account).bind(lane).bind(session)).await.map(drop)
    }

    /// Forgets what has been done for long.
    pub async fn prune(&self, now: Timestamp) -> Result<(), Error> {
        let before = now.saturating_sub(KEPT).map_or(0, Timestamp::as_millisecond);
        let mut write = self.store.write().await?;
        let query = sqlx::query("DELETE FROM mail_in WHERE account = $1 AND done > 0 AND done < $2");
        self.execute(&mut write, query.bind(&self.account).bind(before)).await?;
        let query = sqlx::query(
            "DELETE FROM mail_out WHERE account = $1 AND state IN ('sent', 'failed') AND created < $2",
        );
        self.execute(&mut write, query.bind(&self.account).bind(before)).await?;
        write.commit().await
    }

    async fn execute(
        &self,
        write: &mut Write,
        query: sqlx::query::Query<'_, Any, sqlx::any::AnyArguments>,
    ) -> Result<u64, Error> {
        let done = query.execute(&mut **write).await.map_err(|error| self.store.explain(error))?;
        Ok(done.rows_affected())
    }
}

/// A text as both databases take it: PostgreSQL refuses NUL.
fn text(text: &str) -> String {
    text.replace('\0', "")
}

fn letter(row: &AnyRow) -> Result<Letter, sqlx::Error> {
    Ok(Letter {
        id: row.try_get("id")?,
        lane: row.try_get("lane")?,
        bundle: row.try_get("bundle")?,
        place: row.try_get("place")?,
        message: row.try_get("message")?,
        turn: row.try_get("turn")?,
        body: row.try_get("body")?,
    })
}

fn posted(row: &AnyRow) -> Result<Posted, sqlx::Error> {
    Ok(Posted {
        parcel: Parcel {
            id: row.try_get("id")?,
            chat: row.try_get("chat")?,
            place: row.try_get("place")?,
            turn: row.try_get("turn")?,
            body: row.try_get("body")?,
        },
        state: State::read(&row.try_get::<String, _>("state")?),
        after: row.try_get("after")?,
        message: row.try_get("message")?,
        created: Timestamp::from_millisecond(row.try_get("created")?).unwrap_or_default(),
    })
}
