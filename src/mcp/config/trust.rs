//! Which servers of projects their user has agreed to.
//!
//! A file of servers that comes with a project says which programs are started, so nothing of it
//! is done before the user has seen it, and again when it has changed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Entry;

const FILE: &str = "trusted-servers.json";

/// Digests by file and server.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Trust {
    servers: BTreeMap<PathBuf, BTreeMap<String, String>>,
}

/// What is known of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It may be used.
    Trusted,
    /// It was agreed to, but is another one now.
    Changed,
    /// Nobody has agreed to it.
    Unknown,
}

impl Trust {
    /// Nobody is trusted where the file cannot be read.
    pub fn load(data: &Path) -> Self {
        Self::read(&data.join(FILE)).unwrap_or_else(|error| {
            tracing::warn!("no server of a project is trusted: `{FILE}` cannot be read: {error}");
            Self::default()
        })
    }

    /// What is known of this one. Those of the user's own file are the user's.
    pub fn standing(&self, entry: &Entry) -> Standing {
        if !entry.project {
            return Standing::Trusted;
        }
        let file = entry.file.canonicalize().unwrap_or_else(|_| entry.file.clone());
        match self.servers.get(&file).and_then(|servers| servers.get(&entry.name)) {
            None => Standing::Unknown,
            Some(digest) if *digest == entry.digest() => Standing::Trusted,
            Some(_) => Standing::Changed,
        }
    }

    /// Agrees to a server as it is now, or takes that back.
    pub fn set(data: &Path, entry: &Entry, trusted: bool) -> io::Result<()> {
        let target = entry.file.canonicalize()?;
        std::fs::create_dir_all(data)?;
        // Held until the end: two terminals may do this at once.
        let lock = File::create(data.join("trusted-servers.lock"))?;
        lock.lock()?;
        let file = data.join(FILE);
        let mut trust = Self::read(&file)?;
        let servers = trust.servers.entry(target).or_default();
        match trusted {
            true => drop(servers.insert(entry.name.clone(), entry.digest())),
            false => drop(servers.remove(&entry.name)),
        }
        let mut temporary = tempfile::Builder::new().prefix(".new-").tempfile_in(data)?;
        temporary.write_all(&serde_json::to_vec_pretty(&trust)?)?;
        temporary.persist(&file)?;
        Ok(())
    }

    fn read(file: &Path) -> io::Result<Self> {
        match std::fs::read(file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }
}
