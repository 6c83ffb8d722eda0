//! Who may talk, and codes that let somebody in.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha256};
use sqlx::Row;

use super::Mail;
use crate::store::Error;

/// Letters of codes: those that nobody mistakes for one another.
const LETTERS: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
/// How long a code is. Eight of 32 letters: guessed once in 10^12 tries.
pub const CODE: usize = 8;

/// Somebody, or a group, that may talk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Contact {
    /// The network's number; that of a group is negative.
    pub id: i64,
    /// What they are called.
    pub name: String,
    /// Whether they may do what changes things for others.
    pub admin: bool,
    /// Since when.
    pub created: Timestamp,
}

impl Mail {
    /// Lets somebody talk from now on.
    pub async fn allow(&self, id: i64, name: &str, admin: bool, now: Timestamp) -> Result<(), Error> {
        let query = sqlx::query(
            "INSERT INTO mail_contact (account, id, name, admin, created) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (account, id) DO UPDATE SET name = $3, admin = $4",
        );
        let query = query.bind(&self.account).bind(id).bind(super::text(name));
        self.store.once(query.bind(i64::from(admin)).bind(now.as_millisecond())).await.map(drop)
    }

    /// Lets somebody talk no more. Returns whether they could.
    pub async fn forbid(&self, id: i64) -> Result<bool, Error> {
        let query = sqlx::query("DELETE FROM mail_contact WHERE account = $1 AND id = $2");
        Ok(self.store.once(query.bind(&self.account).bind(id)).await? > 0)
    }

    /// Everybody who was let in, the first ones first.
    pub async fn contacts(&self) -> Result<Vec<Contact>, Error> {
        let query = sqlx::query(
            "SELECT id, name, admin, created FROM mail_contact WHERE account = $1 ORDER BY created, id",
        );
        let explain = |error| self.store.explain(error);
        let rows = query.bind(&self.account).fetch_all(self.store.pool()).await.map_err(explain)?;
        let contact = |row: &sqlx::any::AnyRow| {
            Ok(Contact {
                id: row.try_get("id")?,
                name: row.try_get("name")?,
                admin: row.try_get::<i64, _>("admin")? != 0,
                created: Timestamp::from_millisecond(row.try_get("created")?).unwrap_or_default(),
            })
        };
        rows.iter().map(|row| contact(row).map_err(explain)).collect()
    }

    /// Makes a code that lets one in who says it in time.
    pub async fn code(&self, admin: bool, lasts: Duration, now: Timestamp) -> Result<String, Error> {
        // Some bits of a UUID are fixed; none of its digest are.
        let random = Sha256::digest(uuid::Uuid::new_v4().as_bytes());
        let code: String =
            random.iter().take(CODE).map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect();
        let expires = now.checked_add(lasts).unwrap_or(Timestamp::MAX);
        let mut write = self.store.write().await?;
        let query = sqlx::query("DELETE FROM mail_code WHERE expires < $1");
        self.execute(&mut write, query.bind(now.as_millisecond())).await?;
        let query =
            sqlx::query("INSERT INTO mail_code (digest, account, admin, expires) VALUES ($1, $2, $3, $4)");
        let query = query.bind(digest(&code)).bind(&self.account).bind(i64::from(admin));
        self.execute(&mut write, query.bind(expires.as_millisecond())).await?;
        write.commit().await?;
        Ok(code)
    }

    /// Takes a code, which is then good for nothing any more, and lets whoever said it in. Returns
    /// whether it was one.
    pub async fn redeem(&self, code: &str, id: i64, name: &str, now: Timestamp) -> Result<bool, Error> {
        let mut write = self.store.write().await?;
        let query = sqlx::query("SELECT admin, expires FROM mail_code WHERE digest = $1 AND account = $2");
        let row = query.bind(digest(code)).bind(&self.account).fetch_optional(&mut *write).await;
        let row = row.map_err(|error| self.store.explain(error))?;
        let found = row.and_then(|row| {
            Some((row.try_get::<i64, _>("admin").ok()?, row.try_get::<i64, _>("expires").ok()?))
        });
        let Some((admin, _)) = found.filter(|(_, expires)| *expires > now.as_millisecond()) else {
            return Ok(false);
        };
        let query = sqlx::query("DELETE FROM mail_code WHERE digest = $1");
        self.execute(&mut write, query.bind(digest(code))).await?;
        let query = sqlx::query(
            "INSERT INTO mail_contact (account, id, name, admin, created) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (account, id) DO UPDATE SET name = $3, admin = $4",
        );
        let query = query.bind(&self.account).bind(id).bind(super::text(name)).bind(admin);
        self.execute(&mut write, query.bind(now.as_millisecond())).await?;
        write.commit().await?;
        Ok(true)
    }
}

fn digest(code: &str) -> String {
    Sha256::digest(code).iter().map(|byte| format!("{byte:02x}")).collect()
}
