//! A new database for each test, on either of the two kinds.

use std::path::PathBuf;

use omni::store::Store;
use tempfile::TempDir;

use super::postgres;

/// An empty database of a test's own.
pub struct Database {
    /// What `store.url` would say.
    pub url: Option<String>,
    folder: TempDir,
}

impl Database {
    pub fn sqlite() -> Self {
        Self { url: None, folder: tempfile::tempdir().expect("a temporary folder") }
    }

    pub fn postgres() -> Self {
        Self { url: Some(postgres::database()), ..Self::sqlite() }
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The SQLite file.
    pub fn file(&self) -> PathBuf {
        self.data().join("omni.db")
    }

    /// Opens it, as a process of its own would.
    pub async fn open(&self) -> Store {
        Store::open(self.url.as_deref(), &self.data()).await.expect("the database opens")
    }
}

/// Makes two tests of each function, one on SQLite and one on PostgreSQL.
macro_rules! on_both {
    ($(async fn $name:ident($database:ident: Database) $body:block)*) => {
        mod on_both {
            use super::*;
            $(pub async fn $name($database: Database) $body)*
        }
        mod on_sqlite {
            use super::*;
            $(#[tokio::test]
            async fn $name() {
                super::on_both::$name(Database::sqlite()).await;
            })*
        }
        mod on_postgres {
            use super::*;
            $(#[tokio::test]
            async fn $name() {
                super::on_both::$name(Database::postgres()).await;
            })*
        }
    };
}

pub(crate) use on_both;
