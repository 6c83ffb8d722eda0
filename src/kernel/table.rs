//! The tools there are at one moment, and the versions of skills they are in.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use pyo3::prelude::*;

use super::Tool;
use crate::skill::manifest::{Manifest, Skill, ToolEntry};
use crate::tool::Spec;

/// What every skill begins with.
const FIRST: u32 = 1;

/// All tools by name.
pub(super) struct Table {
    pub(super) tools: HashMap<String, Arc<Tool>>,
    pub(super) specs: Vec<Arc<Spec>>,
    versions: HashMap<String, Version>,
}

/// What is known of a skill.
struct Version {
    number: u32,
    folder: PathBuf,
    digest: String,
    /// Its packages.
    environment: Option<PathBuf>,
}

impl Version {
    fn is_of(&self, skill: &Skill) -> bool {
        self.folder == skill.folder && self.digest == skill.digest && self.environment == skill.environment
    }
}

/// A version of a skill that no call can come to any more.
pub(super) struct Retired {
    pub(super) skill: String,
    pub(super) number: u32,
    tools: Vec<Arc<Tool>>,
}

/// What is different since the tools were last taken from a manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Tools there are now.
    pub added: Vec<String>,
    /// Tools there were.
    pub removed: Vec<String>,
    /// Tools whose callers are told something else.
    pub altered: Vec<String>,
    /// Skills that came, went, or have other code.
    pub skills: Vec<String>,
}

impl Changes {
    /// Whether the list of tools is another one, and not only what is behind it.
    pub fn are_listed(&self) -> bool {
        !(self.added.is_empty() && self.removed.is_empty() && self.altered.is_empty())
    }

    fn between(old: &[Arc<Spec>], new: &[Arc<Spec>]) -> Self {
        let by_name = |specs: &[Arc<Spec>]| -> BTreeMap<String, Arc<Spec>> {
            specs.iter().map(|spec| (spec.name.clone(), spec.clone())).collect()
        };
        let (old, new) = (by_name(old), by_name(new));
        let missing_in = |other: &BTreeMap<String, Arc<Spec>>, specs: &BTreeMap<String, Arc<Spec>>| {
            specs.keys().filter(|name| !other.contains_key(*name)).cloned().collect()
        };
        let altered = new.iter().filter(|(name, spec)| old.get(*name).is_some_and(|old| old != *spec));
        Self {
            added: missing_in(&old, &new),
            removed: missing_in(&new, &old),
            altered: altered.map(|(name, _)| name.clone()).collect(),
            skills: Vec::new(),
        }
    }
}

impl Table {
    pub(super) fn new(manifest: &Manifest, data: &Path) -> Self {
        let mut table = Self { tools: HashMap::new(), specs: Vec::new(), versions: HashMap::new() };
        for skill in &manifest.skills {
            table.add(skill, FIRST, data, None);
        }
        table
    }

    /// Becomes the table of this manifest. A skill of the same content keeps its version, and
    /// with it what is imported.
    pub(super) fn replace(&mut self, manifest: &Manifest, data: &Path) -> (Changes, Vec<Retired>) {
        // Counted for the whole process: several kernels share one interpreter.
        static NEXT: AtomicU32 = AtomicU32::new(FIRST + 1);
        let mut next = Self { tools: HashMap::new(), specs: Vec::new(), versions: HashMap::new() };
        for skill in &manifest.skills {
            let old = self.versions.get(&skill.card.name);
            let same = old.filter(|old| old.is_of(skill));
            match same {
                Some(old) => next.add(skill, old.number, data, Some(self)),
                None => next.add(skill, NEXT.fetch_add(1, Relaxed), data, None),
            }
        }
        let old = std::mem::replace(self, next);
        let mut changes = Changes::between(&old.specs, &self.specs);
        let number = |table: &Self, skill: &str| table.versions.get(skill).map(|version| version.number);
        let names: BTreeSet<_> = old.versions.keys().chain(self.versions.keys()).collect();
        let changed = names.into_iter().filter(|skill| number(&old, skill) != number(self, skill));
        changes.skills = changed.cloned().collect();
        (changes, old.retire(self))
    }

    /// Adds the tools of a skill; those that `before` has in the same place are taken over.
    fn add(&mut self, skill: &Skill, number: u32, data: &Path, before: Option<&Self>) {
        let known = |entry: &ToolEntry| {
            let tool = before?.tools.get(entry.name())?;
            let at = &tool.place;
            let same = at.version == number && at.file == entry.file && at.function == entry.function;
            same.then(|| tool.clone())
        };
        for entry in &skill.tools {
            let tool = known(entry).unwrap_or_else(|| Arc::new(Tool::new(skill, entry, number, data)));
            self.specs.push(entry.spec.clone());
            self.tools.insert(entry.spec.name.clone(), tool);
        }
        let (folder, digest) = (skill.folder.clone(), skill.digest.clone());
        let version = Version { number, folder, digest, environment: skill.environment.clone() };
        self.versions.insert(skill.card.name.clone(), version);
    }

    /// The versions that `now` has no more.
    fn retire(self, now: &Self) -> Vec<Retired> {
        let mut retired: HashMap<(String, u32), Retired> = HashMap::new();
        for tool in self.tools.into_values() {
            let (skill, number) = (tool.place.skill.clone(), tool.place.version);
            if now.versions.get(&skill).is_none_or(|new| new.number != number) {
                let entry = retired.entry((skill.clone(), number));
                entry.or_insert(Retired { skill, number, tools: Vec::new() }).tools.push(tool);
            }
        }
        retired.into_values().collect()
    }
}

impl Retired {
    /// Whether the last call in it has ended.
    pub(super) fn is_idle(&self) -> bool {
        self.tools.iter().all(Tool::is_idle)
    }

    /// Drops its modules, and what a failed import has left of them.
    pub(super) fn forget(self, py: Python<'_>) -> PyResult<()> {
        py.import("omni.kernel")?.call_method1("forget", (self.skill, self.number)).map(drop)
    }
}
