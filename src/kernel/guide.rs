//! What a skill's folder says: `skill.read` for the model, when a task fits; a prompt and
//! documents for programs and people.
//!
//! The built-in skills need no reading: their tools' descriptions say it all. So there is
//! something to read only when others have brought skills.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, RwLock, RwLockReadGuard};

use async_trait::async_trait;
use serde_json::json;

use crate::skill::manifest::{Manifest, Skill, Source};
use crate::tool::{Annotations, Call, Error, Kind, Output, Spec, Toolset};

/// Bytes of a document that are read.
const LARGEST: u64 = 1 << 20;

/// Reading changes nothing.
const READ_ONLY: Annotations =
    Annotations { read_only: true, destructive: false, idempotent: true, open_world: false };

/// The skills one can read up on.
pub struct Guide(RwLock<Shelf>);

/// The skills there are at one moment.
struct Shelf {
    folders: BTreeMap<String, PathBuf>,
    listed: Vec<(String, String)>,
    /// None while there is nothing to read; the first is the tool.
    specs: Vec<Arc<Spec>>,
}

impl Guide {
    /// A guide to the skills that others brought.
    pub fn new(manifest: &Manifest) -> Self {
        Self(RwLock::new(Shelf::new(manifest)))
    }

    /// Takes the skills from this manifest from now on. Returns whether there is something else to read.
    pub fn replace(&self, manifest: &Manifest) -> bool {
        let new = Shelf::new(manifest);
        let old = std::mem::replace(&mut *self.0.write().expect("no panic while held"), new);
        old.specs != self.shelf().specs
    }

    /// What the model is told there is: name and description.
    pub fn listed(&self) -> Vec<(String, String)> {
        self.shelf().listed.clone()
    }

    fn shelf(&self) -> RwLockReadGuard<'_, Shelf> {
        self.0.read().expect("no panic while held")
    }
}

impl Shelf {
    fn new(manifest: &Manifest) -> Self {
        let folders: BTreeMap<_, _> =
            brought(manifest).map(|skill| (skill.card.name.clone(), skill.folder.clone())).collect();
        let mut specs: Vec<_> = (!folders.is_empty()).then(|| tool(&folders)).into_iter().collect();
        for skill in brought(manifest) {
            specs.push(prompt(skill));
            specs.extend(skill.references.iter().map(|file| document(skill, file)));
        }
        let specs = specs.into_iter().map(Arc::new).collect();
        // Those that are about this workspace come first.
        let mut listed: Vec<_> = brought(manifest).collect();
        listed.sort_by_key(|skill| !skill.fits);
        let listed =
            listed.into_iter().map(|skill| (skill.card.name.clone(), skill.card.description.clone()));
        Self { folders, listed: listed.collect(), specs }
    }

    fn read(&self, skill: &str, file: &str) -> Result<String, String> {
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
        let text = std::fs::read_to_string(&path).map_err(told)?;
        Ok(if file == "SKILL.md" { body(&text).to_owned() } else { text })
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
fn document(skill: &Skill, file: &str) -> Spec {
    let name = &skill.card.name;
    Spec {
        name: format!("skill/{name}/{file}"),
        kind: Kind::Resource {
            uri: format!("skill://{name}/{file}"),
            mime: Some("text/markdown".to_owned()),
        },
        description: format!("`{file}` of the skill `{name}`"),
        input: json!({"type": "object", "properties": {}, "additionalProperties": false}),
        annotations: READ_ONLY,
        ..Spec::default()
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
        self.shelf().specs.clone()
    }

    async fn call(&self, call: Call) -> Result<Output, Error> {
        if let Some(("skill", place)) = call.spec.name.split_once('/') {
            let (skill, file) = place.split_once('/').unwrap_or((place, "SKILL.md"));
            return self.shelf().read(skill, file).map(Output::text).map_err(Error::Failed);
        }
        let text = |key: &str| call.arguments.get(key).and_then(|value| value.as_str());
        let (skill, file) = (text("skill").unwrap_or_default(), text("file").unwrap_or("SKILL.md"));
        self.shelf().read(skill, file).map(Output::text).map_err(Error::Failed)
    }
}
