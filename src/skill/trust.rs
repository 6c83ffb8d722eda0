//! Which skills of projects their user has vouched for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::files::{self, Seen, replace};
use super::{Error, Found, Problem, at};

pub(super) const FILE: &str = "trusted-skills.json";

/// Digests by folder. A digest covers every file of the skill that could be run or read, so
/// a `git pull` that changes one asks again.
///
/// Bytecode in `__pycache__` is not covered, because running the tests of a skill would then
/// revoke it. Whoever imports skills must not read it from there (`sys.pycache_prefix`).
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Trust {
    skills: BTreeMap<PathBuf, String>,
}

/// What is known of a skill.
pub(super) enum Standing {
    Trusted,
    Changed,
    Unknown,
}

impl Trust {
    /// Nobody is trusted where the file cannot be read.
    pub(super) fn load(data: &Path) -> (Self, Option<Problem>) {
        let file = data.join(FILE);
        let problem = match Self::read(&file) {
            Ok(trust) => return (trust, None),
            Err(reason) => {
                format!("no skill of a project is trusted: {reason}; remove the file to begin anew")
            }
        };
        (Self::default(), Some(Problem::warning(file.to_string_lossy(), None, problem)))
    }

    pub(super) fn standing(&self, found: &Found) -> Standing {
        let known = found.folder.canonicalize().ok().and_then(|folder| self.skills.get(&folder));
        match known {
            None => Standing::Unknown,
            Some(digest) if digest_of(found).is_ok_and(|now| now == *digest) => Standing::Trusted,
            Some(_) => Standing::Changed,
        }
    }

    pub(super) fn add(data: &Path, found: &Found) -> Result<(), Error> {
        let digest = digest_of(found)?;
        Self::edit(data, &found.folder, |skills, folder| {
            skills.insert(folder, digest);
        })
    }

    pub(super) fn remove(data: &Path, found: &Found) -> Result<(), Error> {
        Self::forget(data, &found.folder)
    }

    /// The same for what is in a folder, whatever it is.
    pub(super) fn forget(data: &Path, folder: &Path) -> Result<(), Error> {
        Self::edit(data, folder, |skills, folder| {
            skills.remove(&folder);
        })
    }

    fn edit(
        data: &Path,
        folder: &Path,
        change: impl FnOnce(&mut BTreeMap<PathBuf, String>, PathBuf),
    ) -> Result<(), Error> {
        let folder = folder.canonicalize().map_err(at("find", folder))?;
        std::fs::create_dir_all(data).map_err(at("make", data))?;
        // Held until the end: two terminals may do this at once.
        let guard = data.join("trusted-skills.lock");
        let lock = File::create(&guard).map_err(at("write", &guard))?;
        lock.lock().map_err(at("lock", &guard))?;
        let file = data.join(FILE);
        let mut trust = Self::read(&file).map_err(at("read", &file))?;
        change(&mut trust.skills, folder);
        let text = serde_json::to_vec_pretty(&trust).map_err(io::Error::other).map_err(at("write", &file))?;
        replace(&file, &text).map_err(at("write", &file))
    }

    fn read(file: &Path) -> io::Result<Self> {
        match std::fs::read(file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }
}

fn digest_of(found: &Found) -> Result<String, Error> {
    let mut seen = Seen::default();
    seen.folder(&found.folder, "", of_note);
    let mut seen = seen.sorted();
    let mut digest = String::new();
    if seen.unreadable.is_empty() {
        digest = files::digest(&found.folder, &seen.stamps, &mut seen.unreadable);
    }
    match seen.unreadable.into_iter().next() {
        None => Ok(digest),
        Some((path, reason)) => {
            let path = path.to_string_lossy().into_owned();
            Err(Error::Opaque { name: found.name.clone(), path, reason })
        }
    }
}

/// Hidden files count, since a script can read them; what tools leave behind does not.
pub(super) fn of_note(name: &str) -> bool {
    !matches!(name, ".git" | "__pycache__" | ".pytest_cache" | ".mypy_cache" | ".ruff_cache")
}
