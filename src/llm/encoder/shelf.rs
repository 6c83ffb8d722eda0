//! The encoders that are installed: a folder for each.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::super::Error;
use super::Encoder;
use super::bert::{CONFIG, LENGTH, POOLING, WEIGHTS, WORDS};

/// What is kept of a folder, and whether it has to be there.
const FILES: [(&str, bool); 5] =
    [(CONFIG, true), (WORDS, true), (WEIGHTS, true), (LENGTH, false), (POOLING, false)];
/// The file with the name of what its vectors are.
const IDENTITY: &str = "identity";
/// Bytes of weights. What is larger is no encoder that answers in milliseconds.
const LARGEST: u64 = 2 << 30;

/// Where they are.
#[derive(Debug, Clone)]
pub struct Shelf {
    home: PathBuf,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// What `memory.encoder` calls it.
    pub name: String,
    /// What its vectors are called: the name, and the hash of its weights.
    pub identity: String,
    /// Bytes of its weights.
    pub bytes: u64,
}

impl Shelf {
    /// The encoders in the data folder.
    pub fn new(data: &Path) -> Self {
        Self { home: data.join("encoders") }
    }

    /// The folder they are in.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// All of them, by name.
    pub fn list(&self) -> Result<Vec<Installed>, Error> {
        let entries = match fs::read_dir(&self.home) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| cannot("read", &self.home, &error))?,
        };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut found: Vec<_> = names.filter_map(|name| self.find(&name)).collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    fn find(&self, name: &str) -> Option<Installed> {
        let folder = self.home.join(valid(name)?);
        let identity = fs::read_to_string(folder.join(IDENTITY)).ok()?.trim().to_owned();
        let bytes = folder.join(WEIGHTS).metadata().ok()?.len();
        Some(Installed { name: name.to_owned(), identity, bytes })
    }

    /// The encoder of this name. Nothing of it is read yet.
    pub fn open(&self, name: &str) -> Result<Encoder, Error> {
        let missing = || {
            Error::Setup(format!(
                "there is no encoder `{name}` on this machine; `omni memory encoder install` brings one, and \
                 `PROVIDER/MODEL`, as in `ollama/all-minilm`, names one of a server"
            ))
        };
        let Installed { identity, .. } = self.find(name).ok_or_else(missing)?;
        Ok(Encoder::new(self.home.join(name), identity))
    }

    /// Copies an encoder from a folder, in the place of one of the same name. One that cannot be
    /// run is left out.
    pub fn put(&self, folder: &Path, name: &str) -> Result<Installed, Error> {
        let name = valid(name).ok_or_else(|| {
            Error::Setup(format!("`{name}` is no name of an encoder: use letters, digits, `-`, `_` and `.`"))
        })?;
        fs::create_dir_all(&self.home).map_err(|error| cannot("make", &self.home, &error))?;
        let new = tempfile::Builder::new().prefix(".new-").tempdir_in(&self.home);
        let new = new.map_err(|error| cannot("write into", &self.home, &error))?;
        let mut hash = String::new();
        for (file, needed) in FILES {
            let from = folder.join(file);
            if !needed && !from.is_file() {
                continue;
            }
            let copied =
                copy(&from, &new.path().join(file)).map_err(|error| cannot("copy", &from, &error))?;
            if file == WEIGHTS {
                hash = copied;
            }
        }
        let identity = format!("{name} {}", &hash[..16]);
        let encoder = Encoder::new(new.path().to_owned(), identity.clone());
        encoder.encode(&["A sentence.".to_owned()], || true)?;
        let place = self.home.join(name);
        let settled = || {
            fs::write(new.path().join(IDENTITY), &identity)?;
            match fs::remove_dir_all(&place) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => fs::rename(new.path(), &place),
            }
        };
        settled().map_err(|error| cannot("write", &place, &error))?;
        self.find(name).ok_or_else(|| Error::Setup(format!("`{name}` is gone again")))
    }

    /// Removes one. Returns whether it was there.
    pub fn remove(&self, name: &str) -> Result<bool, Error> {
        let Some(found) = self.find(name) else { return Ok(false) };
        let place = self.home.join(found.name);
        fs::remove_dir_all(&place).map_err(|error| cannot("remove", &place, &error))?;
        Ok(true)
    }
}

/// Copies a file and returns the hash of what is in it.
fn copy(from: &Path, to: &Path) -> io::Result<String> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    let (mut from, mut to, mut hasher) = (File::open(from)?.take(LARGEST), File::create(to)?, Sha256::new());
    let mut piece = vec![0; 1 << 20];
    loop {
        match from.read(&mut piece)? {
            0 => break,
            read => {
                hasher.update(&piece[..read]);
                to.write_all(&piece[..read])?;
            }
        }
    }
    to.sync_all()?;
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A name that is one folder, and no hidden one.
fn valid(name: &str) -> Option<&str> {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    (!name.is_empty() && !name.starts_with('.') && name.chars().all(plain)).then_some(name)
}

fn cannot(what: &str, place: &Path, error: &io::Error) -> Error {
    Error::Setup(format!("cannot {what} `{}`: {error}", place.display()))
}
