//! What a skill's folder says: `skill.read` for the model, when a task fits; a prompt and
//! documents for programs and people.
//!
//! The built-in skills need no reading: their tools' descriptions say it all. So there is
//! something to read only when others have brought skills.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, RwLock, RwLockReadGuard};

use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;

use crate::message::Block;
use crate::skill::manifest::{FILE, Manifest, Skill, Source, front_matter};
use crate::tool::uri::encoded;
use crate::tool::{Annotations, Call, Error, Kind, Output, Spec, Toolset};

/// Bytes of a document that are read.
const LARGEST: u64 = 1 << 20;
/// Files of one skill that are documents.
const FILES: usize = 512;
/// How deep they may lie.
const DEPTH: usize = 8;

/// Reading changes nothing.
const READ_ONLY: Annotations =
    Annotations { read_only: true, destructive: false, idempotent: true, open_world: false };

/// The skills one can read up on.
pub struct Guide {
    shelf: RwLock<Shelf>,
    /// Whether their files are documents of their own.
    hands_out: AtomicBool,
}

/// The skills there are at one moment.
struct Shelf {
    folders: BTreeMap<String, PathBuf>,
    listed: Vec<(String, String)>,
    /// None while there is nothing to read; the first is the tool.
    specs: Vec<Arc<Spec>>,
    /// Every file. Looked for when somebody wants to know: there may be many.
    documents: OnceLock<Vec<Arc<Spec>>>,
}

impl Guide {
    /// A guide to the skills that others brought.
    pub fn new(manifest: &Manifest) -> Self {
        Self { shelf: RwLock::new(Shelf::new(manifest)), hands_out: AtomicBool::new(false) }
    }

    /// Makes every file of a skill a document from now on, for clients who list such.
    pub fn hand_out(&self) {
        self.hands_out.store(true, Relaxed);
    }

    /// Takes the skills from this manifest from now on. Returns whether there is something else to read.
    pub fn replace(&self, manifest: &Manifest) -> bool {
        let before = self.specs();
        *self.shelf.write().expect("no panic while held") = Shelf::new(manifest);
        self.specs() != before
    }

    /// What the model is told there is: name and description.
    pub fn listed(&self) -> Vec<(String, String)> {
        self.shelf().listed.clone()
    }

    fn shelf(&self) -> RwLockReadGuard<'_, Shelf> {
        self.shelf.read().expect("no panic while held")
    }
}

impl Shelf {
    fn new(manifest: &Manifest) -> Self {
        let folders: BTreeMap<_, _> =
            brought(manifest).map(|skill| (skill.card.name.clone(), skill.folder.clone())).collect();
        let mut specs: Vec<_> = (!folders.is_empty()).then(|| tool(&folders)).into_iter().collect();
        specs.extend(brought(manifest).map(prompt));
        let specs = specs.into_iter().map(Arc::new).collect();
        // Those that are about this workspace come first.
        let mut listed: Vec<_> = brought(manifest).collect();
        listed.sort_by_key(|skill| !skill.fits);
        let listed =
            listed.into_iter().map(|skill| (skill.card.name.clone(), skill.card.description.clone()));
        Self { folders, listed: listed.collect(), specs, documents: OnceLock::new() }
    }

    fn documents(&self) -> &[Arc<Spec>] {
        let found = |(name, about): &(String, String)| {
            let files = files(&self.folders[name]);
            files.iter().map(|file| Arc::new(document(name, about, file))).collect::<Vec<_>>()
        };
        self.documents.get_or_init(|| self.listed.iter().flat_map(found).collect())
    }

    fn read(&self, skill: &str, file: &str) -> Result<Vec<u8>, String> {
        let folder = self.folders.get(skill).ok_or_else(|| format!("there is no skill `{skill}`"))?;
        let told = |error: std::io::Error| format!("cannot read `{file}` of the skill `{skill}`: {error}");
        let root = folder.canonicalize().map_err(told)?;
        let path = root.join(file).canonicalize().map_err(told)?;
        if !path.starts_with(&root) {
            return Err(format!("`{file}` is outside the skill `{skill}`"));
        }
        let size = path.metadata().map_err(told)?.len();
        if size > LARGEST {
            return Err(format!("`{file}` of the skill `{skill}` is too large to read ({size} bytes)"));
        }
        std::fs::read(&path).map_err(told)
    }

    /// What a model reads of a file.
    fn tell(&self, skill: &str, file: &str) -> Result<Output, String> {
        let text = String::from_utf8(self.read(skill, file)?);
        let text = text.map_err(|_| format!("`{file}` of the skill `{skill}` is no text"))?;
        Ok(Output::text(if file == FILE { body(&text) } else { &text }))
    }

    /// The file as it is. That of `SKILL.md` has its front matter as a value.
    fn hand_out(&self, skill: &str, file: &str) -> Result<Output, String> {
        let bytes = self.read(skill, file)?;
        Ok(match String::from_utf8(bytes) {
            Ok(text) => {
                let structured = (file == FILE).then(|| front_matter(&text)).flatten();
                Output::new(vec![Block::text(text)], structured)
            }
            Err(error) => {
                let blob = Some(BASE64_STANDARD.encode(error.as_bytes()));
                let block = Block::Resource { uri: uri(skill, file), mime: None, text: None, blob };
                Output::new(vec![block], None)
            }
        })
    }
}

fn tool(folders: &BTreeMap<String, PathBuf>) -> Spec {
    let names: Vec<_> = folders.keys().collect();
    Spec {
        name: "skill.read".to_owned(),
        description: "Read a skill's instructions, or one of its files.".to_owned(),
        input: json!({
            "type": "object",
            "properties": {
                "skill": {"type": "string", "enum": names},
                "file": {"type": "string", "default": "SKILL.md"},
            },
            "required": ["skill"],
            "additionalProperties": false,
        }),
        annotations: READ_ONLY,
        ..Spec::default()
    }
}

/// A skill's instructions.
fn prompt(skill: &Skill) -> Spec {
    Spec {
        // No tool, and no skill, has such a name.
        name: format!("skill/{}", skill.card.name),
        kind: Kind::Prompt,
        description: skill.card.description.clone(),
        input: json!({"type": "object", "properties": {}, "additionalProperties": false}),
        annotations: READ_ONLY,
        ..Spec::default()
    }
}

/// One of its documents.
fn document(name: &str, about: &str, file: &str) -> Spec {
    Spec {
        name: format!("skill/{name}/{file}"),
        kind: Kind::Resource { uri: uri(name, file), mime: mime(file).map(str::to_owned) },
        description: match file {
            FILE => about.to_owned(),
            _ => format!("`{file}` of the skill `{name}`"),
        },
        input: json!({"type": "object", "properties": {}, "additionalProperties": false}),
        annotations: READ_ONLY,
        ..Spec::default()
    }
}

fn uri(skill: &str, file: &str) -> String {
    format!("skill://{skill}/{}", encoded(file.as_bytes()))
}

fn mime(file: &str) -> Option<&'static str> {
    match file.rsplit_once('.')?.1 {
        "md" => Some("text/markdown"),
        "py" | "toml" | "txt" | "yaml" | "yml" | "rs" | "sh" => Some("text/plain"),
        "json" => Some("application/json"),
        _ => None,
    }
}

/// The files of a skill that are no one else's business to hide, by their places in its folder: in order,
/// and only so many.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    descend(folder, "", DEPTH, &mut found);
    found.sort_unstable();
    found
}

fn descend(folder: &Path, place: &str, depth: usize, found: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let Ok(kind) = entry.file_type() else { continue };
        if name.starts_with('.') || name == "__pycache__" || found.len() >= FILES {
            continue;
        }
        let place = if place.is_empty() { name } else { format!("{place}/{name}") };
        // A link may lead anywhere.
        if kind.is_file() {
            found.push(place);
        } else if kind.is_dir() && depth > 0 {
            descend(&entry.path(), &place, depth - 1, found);
        }
    }
}

fn brought(manifest: &Manifest) -> impl Iterator<Item = &Skill> {
    manifest.skills.iter().filter(|skill| skill.source != Source::Builtin)
}

/// What follows the front matter.
fn body(text: &str) -> &str {
    let Some(rest) = text.trim_start_matches('\u{feff}').strip_prefix("---") else { return text };
    rest.find("\n---")
        .and_then(|end| rest[end + 1..].split_once('\n'))
        .map_or("", |(_, body)| body.trim_start())
}

#[async_trait]
impl Toolset for Guide {
    fn specs(&self) -> Vec<Arc<Spec>> {
        let shelf = self.shelf();
        let documents = if self.hands_out.load(Relaxed) { shelf.documents() } else { &[] };
        shelf.specs.iter().chain(documents).cloned().collect()
    }

    async fn call(&self, call: Call) -> Result<Output, Error> {
        if let Some(("skill", place)) = call.spec.name.split_once('/') {
            let shelf = self.shelf();
            let read = match place.split_once('/') {
                Some((skill, file)) => shelf.hand_out(skill, file),
                None => shelf.tell(place, FILE),
            };
            return read.map_err(Error::Failed);
        }
        let text = |key: &str| call.arguments.get(key).and_then(|value| value.as_str());
        let (skill, file) = (text("skill").unwrap_or_default(), text("file").unwrap_or(FILE));
        self.shelf().tell(skill, file).map_err(Error::Failed)
    }
}
