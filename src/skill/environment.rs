//! Where the packages of skills are: for what a skill declares there is a lock, for a lock an
//! environment, a folder that Python imports from.
//!
//! A lock names every package with its version and the hashes of its files. It is kept with what
//! must not be lost; the environment is made from it and may be made again. Skills that declare
//! the same, or come to the same, share.

use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::files::{hex, replace};
use super::packages::Packages;
use super::{Error, at};
use crate::config;

/// What `omni` itself imports and has to find in every environment; `pyproject.toml` says the same.
pub const OWN: [&str; 3] = ["docstring-parser>=0.16", "pydantic>=2.7", "typing-extensions>=4.12"];

/// The Python that environments are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Python {
    /// `3.11.2`.
    pub version: String,
    /// What compiled modules depend on: the minor version, the build, the machine.
    pub kind: String,
}

/// The locks and environments of one user, for one Python.
#[derive(Debug, Clone)]
pub struct Environments {
    locks: PathBuf,
    built: PathBuf,
    /// For which Python.
    pub python: Python,
}

/// Where locks are. A change there changes what skills can do.
pub(super) fn locks(paths: &config::Paths) -> PathBuf {
    paths.data.join("locks")
}

impl Environments {
    /// Those in these folders.
    pub fn new(paths: &config::Paths, python: Python) -> Self {
        Self { locks: locks(paths), built: paths.cache.join("environments"), python }
    }

    /// The folder that environments are in.
    pub fn home(&self) -> &Path {
        &self.built
    }

    /// The lock for these packages, if they have been locked.
    pub fn lock(&self, packages: &Packages) -> Option<String> {
        std::fs::read_to_string(self.lock_file(packages)).ok()
    }

    /// Where the environment of a lock is, or will be.
    pub fn folder(&self, lock: &str) -> PathBuf {
        self.built.join(&digest([lock, &self.python.kind])[..24])
    }

    /// The environment with these packages, if it has been built.
    pub fn find(&self, packages: &Packages) -> Option<PathBuf> {
        let folder = self.folder(&self.lock(packages)?);
        folder.is_dir().then_some(folder)
    }

    /// Keeps the lock for these packages: from then on they are found.
    pub fn keep(&self, packages: &Packages, lock: &str) -> Result<(), Error> {
        let file = self.lock_file(packages);
        replace(&file, lock.as_bytes()).map_err(at("write", &file))
    }

    /// Removes what these packages needed and those that `others` declare do not.
    pub fn sweep<'a>(
        &self,
        packages: &Packages,
        others: impl Iterator<Item = &'a Packages> + Clone,
    ) -> Result<(), Error> {
        let Some(lock) = self.lock(packages) else { return Ok(()) };
        let file = self.lock_file(packages);
        if others.clone().any(|other| self.lock_file(other) == file) {
            return Ok(());
        }
        gone(std::fs::remove_file(&file)).map_err(at("remove", &file))?;
        let folder = self.folder(&lock);
        let shared = others.clone().filter_map(|other| self.lock(other)).any(|other| other == lock);
        if shared {
            return Ok(());
        }
        gone(std::fs::remove_dir_all(&folder)).map_err(at("remove", &folder))
    }

    fn lock_file(&self, packages: &Packages) -> PathBuf {
        let requirements = packages.requirements.iter().map(String::as_str);
        let key = digest(requirements.chain(OWN).chain([self.python.kind.as_str()]));
        self.locks.join(format!("{}.txt", &key[..24]))
    }
}

fn digest<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex(&hash.finalize())
}

/// What is not there need not be removed.
pub(super) fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
