//! Responses: turns under the name that OpenAI's protocol has for them, with what was asked.

use jiff::Timestamp;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::{Error, Store};

/// A response, without what was answered: that is in the log of its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The turn.
    pub id: String,
    /// Its session.
    pub session: String,
    /// What the request said of it, as JSON.
    pub body: String,
}

/// The responses in the database.
#[derive(Debug, Clone)]
pub struct Responses {
    store: Store,
}

impl Responses {
    /// Those in `store`.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Keeps one, if it is not kept already. It goes when its session does.
    pub async fn add(&self, response: &Response, now: Timestamp) -> Result<(), Error> {
        let statement = sqlx::query(
            "INSERT INTO response (id, session, body, created) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO NOTHING",
        )
            .bind(&response.id)
            .bind(&response.session)
            .bind(&response.body)
            .bind(now.as_millisecond());
        self.store.once(statement).await.map(drop)
    }

    /// The one of this id.
    pub async fn find(&self, id: &str) -> Result<Option<Response>, Error> {
        let row = sqlx::query("SELECT id, session, body FROM response WHERE id = $1")
            .bind(id.to_owned())
            .fetch_optional(self.store.pool())
            .await;
        let read = |row: AnyRow| {
            Ok(Response {
                id: row.try_get("id")?,
                session: row.try_get("session")?,
                body: row.try_get("body")?,
            })
        };
        let found = row.and_then(|row| row.map(read).transpose());
        found.map_err(|error| self.store.explain(error))
    }

    /// Forgets one. Returns whether there was one; what was said stays in its session.
    pub async fn remove(&self, id: &str) -> Result<bool, Error> {
        let statement = sqlx::query("DELETE FROM response WHERE id = $1").bind(id);
        Ok(self.store.once(statement).await? == 1)
    }
}
