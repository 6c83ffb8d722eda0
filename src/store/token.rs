//! Tokens of those who may come in from outside. Only their digests are kept.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha256};
use sqlx::Row;
use sqlx::any::AnyRow;

use super::{Error, Store};

/// What a token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Talking to the assistant.
    Chat,
    /// Looking at sessions, tools and memories.
    Read,
    /// Everything.
    Admin,
}

const SCOPES: [(Scope, &str); 3] = [(Scope::Chat, "chat"), (Scope::Read, "read"), (Scope::Admin, "admin")];

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = SCOPES.iter().find(|(scope, _)| scope == self).map_or("", |(_, name)| name);
        f.write_str(name)
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = SCOPES.iter().find(|(_, name)| *name == text).map(|(scope, _)| *scope);
        found.ok_or_else(|| format!("`{text}` is no scope; there are chat, read and admin"))
    }
}

/// What a token is good for, all together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scopes(Vec<Scope>);

impl Scopes {
    /// These.
    pub fn of(scopes: &[Scope]) -> Self {
        Self(scopes.to_vec())
    }

    /// Everything.
    pub fn all() -> Self {
        Self(vec![Scope::Admin])
    }

    /// Whether this is among them.
    pub fn have(&self, scope: Scope) -> bool {
        self.0.contains(&scope) || self.0.contains(&Scope::Admin)
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(Scope::to_string).collect();
        f.write_str(&names.join(" "))
    }
}

impl Serialize for Scopes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A token, without what makes it one.
#[derive(Debug, Clone, Serialize)]
pub struct Token {
    /// Its id, which is a part of it.
    pub id: String,
    /// Who has it.
    pub name: String,
    /// What it is good for.
    pub scopes: Scopes,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends, if ever.
    pub expires: Option<Timestamp>,
    /// The SHA-256 of the whole token.
    #[serde(skip)]
    pub digest: [u8; 32],
}

/// The tokens in the database.
#[derive(Debug, Clone)]
pub struct Tokens {
    store: Store,
}

impl Tokens {
    /// Those in `store`.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Makes one. What is returned is told once and kept by nobody.
    pub async fn make(
        &self,
        name: &str,
        scopes: &Scopes,
        expires: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<String, Error> {
        let random = || uuid::Uuid::new_v4().simple().to_string();
        let id = random()[..12].to_owned();
        let token = format!("omni_{id}_{}{}", random(), random());
        let digest: String = Sha256::digest(&token).iter().map(|byte| format!("{byte:02x}")).collect();
        let statement = sqlx::query(
            "INSERT INTO token (id, name, digest, scopes, created, expires) VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(&id)
        .bind(name)
        .bind(digest)
        .bind(scopes.to_string())
        .bind(now.as_millisecond())
        .bind(expires.map_or(0, Timestamp::as_millisecond));
        self.store.once(statement).await?;
        Ok(token)
    }

    /// The token of this id, unless its time is over.
    pub async fn find(&self, id: &str, now: Timestamp) -> Result<Option<Token>, Error> {
        let rows = sqlx::query("SELECT * FROM token WHERE id = $1").bind(id.to_owned());
        let rows = rows.fetch_all(self.store.pool()).await.map_err(|error| self.store.explain(error))?;
        Ok(rows.iter().filter_map(read).find(|token| token.expires.is_none_or(|expires| expires > now)))
    }

    /// Whether somebody has one.
    pub async fn any(&self, now: Timestamp) -> Result<bool, Error> {
        Ok(self.list().await?.iter().any(|token| token.expires.is_none_or(|expires| expires > now)))
    }

    /// All of them, the oldest first.
    pub async fn list(&self) -> Result<Vec<Token>, Error> {
        let rows = sqlx::query("SELECT * FROM token ORDER BY created, id").fetch_all(self.store.pool()).await;
        Ok(rows.map_err(|error| self.store.explain(error))?.iter().filter_map(read).collect())
    }

    /// Takes one back, by its id. Returns whether there was one.
    pub async fn revoke(&self, id: &str) -> Result<bool, Error> {
        let statement = sqlx::query("DELETE FROM token WHERE id = $1").bind(id);
        Ok(self.store.once(statement).await? == 1)
    }
}

/// A row as a token. One that cannot be read lets nobody in.
fn read(row: &AnyRow) -> Option<Token> {
    let text = |column| row.try_get::<String, _>(column).ok();
    let time = |column| Timestamp::from_millisecond(row.try_get::<i64, _>(column).ok()?).ok();
    let scopes = text("scopes")?;
    Some(Token {
        id: text("id")?,
        name: text("name")?,
        scopes: Scopes(scopes.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?),
        created: time("created")?,
        expires: time("expires").filter(|expires| *expires != Timestamp::UNIX_EPOCH),
        digest: bytes(&text("digest")?)?,
    })
}

fn bytes(hex: &str) -> Option<[u8; 32]> {
    let byte = |place: usize| u8::from_str_radix(hex.get(place * 2..place * 2 + 2)?, 16).ok();
    let bytes: Vec<u8> = (0..hex.len() / 2).map(byte).collect::<Option<_>>()?;
    bytes.try_into().ok()
}
