//! Which servers there are: `mcp.json`, in every dialect that programs write.
//!
//! What a file says is read in two steps. An [`Entry`] is what stands there and runs nothing; a
//! [`Server`] is what it means, made when the user has agreed to it.

mod entry;
pub mod import;
mod jsonc;
mod trust;
mod variables;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

pub use entry::{Address, Entry, Era, OAuth, Program, Reach, Server, Transport};
pub use trust::{Standing, Trust};
pub use variables::Variables;

use crate::config::Paths;

/// Bytes of a file of servers; more is a mistake, or an attack on the memory.
const LARGEST: u64 = 1 << 20;
/// Characters of a server's name.
const NAME: usize = 64;
/// Keys that hold the servers of a file.
const ROOTS: [&str; 5] = ["mcpServers", "servers", "context_servers", "mcp_servers", "mcp"];

/// The servers that files name.
#[derive(Debug, Default)]
pub struct Files {
    /// By name.
    pub entries: BTreeMap<String, Entry>,
    /// What is wrong with the files, a sentence each.
    pub problems: Vec<String>,
}

/// A file of servers, and whether it came with the project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, which need not be there.
    pub file: PathBuf,
    /// Whether whoever wrote the project wrote it.
    pub project: bool,
}

/// A server that a file describes.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// As it is written.
    pub entry: Entry,
    /// What it means, if it is used.
    pub server: Result<Server, Left>,
}

/// Why a server is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Left {
    /// A file or a setting says so.
    Disabled,
    /// It came with the project, and nobody has agreed to it.
    Unknown,
    /// It was agreed to, but is another one now.
    Changed,
    /// Something in its description is wrong.
    Wrong(String),
}

impl Left {
    /// The same in a word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Unknown => "untrusted",
            Self::Changed => "changed",
            Self::Wrong(_) => "error",
        }
    }

    /// What is to be done about it, or what is wrong.
    pub fn reason(&self, entry: &Entry) -> Option<String> {
        match self {
            Self::Disabled => None,
            Self::Unknown | Self::Changed => Some(format!(
                "it is described in `{}`; `omni mcp trust {}` agrees to it",
                entry.file.display(),
                entry.name
            )),
            Self::Wrong(reason) => Some(reason.clone()),
        }
    }
}

/// Where servers are looked for, in these files before all others. A server that an earlier file
/// names is taken from there, whole.
pub fn places(paths: &Paths, first: &[PathBuf]) -> Vec<Place> {
    let project = |file| Place { file, project: true };
    let own = |file| Place { file, project: false };
    let mut places: Vec<_> = first.iter().cloned().map(own).collect();
    places.push(project(paths.project().join("mcp.json")));
    places.push(project(paths.workspace.join(".mcp.json")));
    places.push(own(user_file(paths)));
    places
}

/// The user's own file.
pub fn user_file(paths: &Paths) -> PathBuf {
    paths.config.join("mcp.json")
}

impl Files {
    /// Reads them all. A file with a mistake is left out, and told of.
    pub fn read(places: &[Place]) -> Self {
        let mut files = Self::default();
        for place in places {
            match read(&place.file) {
                Ok(None) => {}
                Ok(Some(servers)) => files.add(place, servers),
                Err(reason) => files.problems.push(format!("`{}`: {reason}", place.file.display())),
            }
        }
        files
    }

    /// Adds those that a program has handed over, each in the place of one with its name. It is the
    /// user's program, so they are the user's own.
    pub fn hand_over(&mut self, servers: &Map<String, Value>) {
        let place = Place { file: PathBuf::from("handed over"), project: false };
        servers.keys().for_each(|name| drop(self.entries.remove(&slug(name))));
        self.add(&place, servers.clone());
    }

    /// Says of each server what it means, or why it is left out.
    pub fn choose(self, trust: &Trust, disabled: &[String], variables: &Variables<'_>) -> Vec<Chosen> {
        let choose = |entry: &Entry| match trust.standing(entry) {
            _ if entry.is_disabled() || disabled.contains(&entry.name) => Err(Left::Disabled),
            Standing::Unknown => Err(Left::Unknown),
            Standing::Changed => Err(Left::Changed),
            Standing::Trusted => entry.server(variables).map_err(Left::Wrong),
        };
        self.entries.into_values().map(|entry| Chosen { server: choose(&entry), entry }).collect()
    }

    fn add(&mut self, place: &Place, servers: Map<String, Value>) {
        for (written, value) in servers {
            let at = |reason: &str| format!("`{}`: server `{written}`: {reason}", place.file.display());
            let Value::Object(fields) = value else {
                self.problems.push(at("it must be an object"));
                continue;
            };
            let name = slug(&written);
            if name.is_empty() || name.len() > NAME {
                self.problems.push(at("its name must have 1 to 64 letters, digits, `_` or `-`"));
                continue;
            }
            let entry =
                Entry { name: name.clone(), file: place.file.clone(), project: place.project, fields };
            match self.entries.get(&name) {
                Some(other) if other.file == place.file => {
                    self.problems.push(at("another server of this file has the same name"));
                }
                Some(_) => {}
                None => drop(self.entries.insert(name, entry)),
            }
        }
    }
}

/// The servers of one file; `None` if it is not there.
fn read(file: &Path) -> Result<Option<Map<String, Value>>, String> {
    match std::fs::metadata(file) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(format!("cannot be read: {error}")),
        // A pipe would block, a device never end.
        Ok(metadata) if !metadata.is_file() || metadata.len() > LARGEST => {
            return Err("is no file of at most 1 MiB".to_owned());
        }
        Ok(_) => {}
    }
    let text = std::fs::read_to_string(file).map_err(|error| format!("cannot be read: {error}"))?;
    servers(&text).map(Some)
}

/// The servers that a text describes.
pub fn servers(text: &str) -> Result<Map<String, Value>, String> {
    let plain = jsonc::plain(text);
    if plain.trim().is_empty() {
        return Ok(Map::new());
    }
    let Value::Object(mut root) = serde_json::from_str(&plain).map_err(|error| error.to_string())? else {
        return Err("it must be an object with `mcpServers`".to_owned());
    };
    let is_table = |value: &Value| value.as_object().is_some_and(|map| map.values().all(Value::is_object));
    let known = ROOTS.iter().find(|key| root.get(**key).is_some_and(is_table));
    if let Some(Value::Object(servers)) = known.and_then(|key| root.remove(*key)) {
        return Ok(servers);
    }
    // Without a key around them, as some programs hand them out.
    let is_server = |value: &Value| {
        let has = |key: &&str| value.get(*key).is_some();
        ["command", "url", "httpUrl", "serverUrl"].iter().any(has)
    };
    match !root.is_empty() && root.values().all(is_server) {
        true => Ok(root),
        false => {
            Err(format!("it has no `mcpServers`, nor another of {ROOTS:?}, that is an object of objects"))
        }
    }
}

/// A name that policies and models can write: other signs become `-`.
fn slug(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "_-".contains(c) { c } else { '-' }).collect()
}
