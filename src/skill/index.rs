//! What is known of the skills, kept between runs so that listing tools needs no Python.
//!
//! A skill is described anew when its content has changed. Whether it has is seen from `stat`
//! alone as long as that suffices, and from a hash where a time stamp moved or is too recent
//! to tell two writes apart.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::extension::{self, Engine, Engines, Extension};
use super::files::{self, Seen, Stamp, hex, replace, visible};
use super::manifest::{self, Card, Level, Manifest, Problem, Skill, Sources, ToolEntry};
use super::packages::{self, Packages};
use super::{Catalog, Environments, Found, Isolation, Where, sniff};

/// Of the file and of what goes into it: another number, and everything is described anew.
const VERSION: u32 = 2;
/// Skills of other projects that are kept as well.
const MAX_OTHERS: usize = 256;
/// Bytes a file with tools may have.
const MAX_SCRIPT: u64 = 1 << 20;

/// A file of a skill that Python should describe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The skill.
    pub skill: String,
    /// Its folder.
    pub folder: PathBuf,
    /// The file, relative to the folder: `scripts/NAME.py`, or the `extension.toml` of an extension
    /// that should be loaded.
    pub file: String,
    /// What is behind the names of the skill's extensions.
    pub engines: Engines,
    /// Where its packages are, if it has any.
    pub environment: Option<PathBuf>,
}

/// What Python says of a file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Description {
    /// The functions marked as tools. `file` is as it was asked for; a name without the
    /// skill in front gets it.
    pub tools: Vec<ToolEntry>,
    /// Why it, or some of it, cannot be used. Files are relative to the skill, or absolute.
    pub problems: Vec<Problem>,
    /// What it imports that is neither the skill's nor Python's own.
    pub modules: Vec<String>,
}

/// The file `index.json` in the cache.
#[derive(Debug, Clone)]
pub struct Index {
    cache: PathBuf,
    file: PathBuf,
    identity: String,
    workspace: Option<PathBuf>,
    environments: Option<Environments>,
    again: bool,
    by_content: bool,
}

impl Index {
    /// The index in this cache folder. `identity` says by whom skills are described (the
    /// version of the Python package and of Python): under another one nothing is fresh.
    pub fn new(cache: &Path, identity: impl Into<String>) -> Self {
        let (file, identity) = (cache.join("index.json"), identity.into());
        let cache = cache.to_owned();
        Self { cache, file, identity, workspace: None, environments: None, again: false, by_content: false }
    }

    /// Tells of skills whether they are about files of this folder.
    pub fn within(mut self, workspace: &Path) -> Self {
        self.workspace = Some(workspace.to_owned());
        self
    }

    /// With the packages of skills; without them nobody looks at what skills declare.
    pub fn with(mut self, environments: Environments) -> Self {
        self.environments = Some(environments);
        self
    }

    /// Has skills with errors described anew even if they have not changed: what was missing
    /// may have been installed since.
    pub fn again(mut self) -> Self {
        self.again = true;
        self
    }

    /// Trusts no time stamp: whether a skill has changed is seen from its bytes alone.
    pub fn by_content(mut self) -> Self {
        self.by_content = true;
        self
    }

    /// The manifest, if nothing has to be described for it.
    pub fn fresh(&self, catalog: &Catalog) -> Option<Manifest> {
        let survey = self.survey(catalog);
        survey.requests.is_empty().then(|| self.finish(catalog, survey))
    }

    /// The manifest, after `describe` was asked about the files of the skills that changed.
    ///
    /// It is asked once with all of them, or not at all, and answers in the same order. What
    /// goes wrong is among the problems; the rest works.
    pub async fn load_or_build<F>(
        &self,
        catalog: &Catalog,
        describe: impl FnOnce(Vec<Request>) -> F,
    ) -> Manifest
    where
        F: Future<Output = Vec<Description>>,
    {
        let mut survey = self.survey(catalog);
        if !survey.requests.is_empty() {
            let requests = std::mem::take(&mut survey.requests);
            let mut descriptions = describe(requests.clone()).await.into_iter();
            for request in &requests {
                let record = survey.current.get_mut(&request.folder);
                record.expect("a request is made for a record").add(request, descriptions.next());
            }
            survey.current.values_mut().for_each(Record::tidy);
        }
        let mut manifest = self.finish(catalog, survey);
        for skill in &mut manifest.skills {
            let asks = Isolation::read(&skill.card.metadata).is_ok_and(|asked| asked.level == Where::Thread);
            skill.trusted = asks && catalog.trusts(&skill.card.name);
        }
        manifest
    }

    /// Looks at every skill; what the file knows of it is taken over where it still holds.
    fn survey(&self, catalog: &Catalog) -> Survey {
        // Reading the index takes about as long as looking at the files.
        let (mut known, looks) = std::thread::scope(|scope| {
            let known = scope.spawn(|| self.read().unwrap_or_default());
            let looks: Vec<_> = catalog.skills.iter().map(|found| look(&found.folder)).collect();
            (known.join().expect("reading an index does not panic"), looks)
        });
        let mut survey = Survey::default();
        for (found, (mut seen, settled)) in catalog.skills.iter().zip(looks) {
            let old = known.remove(&found.folder);
            let usable = old.filter(|record| self.is_current(record) && !(self.again && record.has_errors()));
            if let Some(record) = usable {
                if settled && !self.by_content && record.stamps.as_ref() == Some(&seen.stamps) {
                    survey.current.insert(found.folder.clone(), record);
                    continue;
                }
                if record.digest == files::digest(&found.folder, &seen.stamps, &mut seen.unreadable) {
                    let stamps = settled.then_some(seen.stamps);
                    survey.changed |= stamps != record.stamps;
                    survey.current.insert(found.folder.clone(), Record { stamps, ..record });
                    continue;
                }
            }
            survey.changed = true;
            let (record, requests) = self.begin(found, seen, settled);
            survey.current.insert(found.folder.clone(), record);
            survey.requests.extend(requests);
        }
        survey.others = known;
        survey
    }

    /// Whether it was described with the packages that it finds now. As long as there are none it
    /// stays as it is.
    fn is_current(&self, record: &Record) -> bool {
        let now = self.environment(&record.packages);
        now.is_none() || now == record.environment
    }

    fn environment(&self, packages: &Packages) -> Option<PathBuf> {
        self.environments.as_ref().filter(|_| !packages.is_empty())?.find(packages)
    }

    /// The packages of all skills that are known, those of other projects too, except in `folder`.
    pub fn packages(&self, folder: &Path) -> Vec<Packages> {
        let others = self.read().unwrap_or_default().into_iter();
        let others = others.filter(|(other, _)| other != folder && other.is_dir());
        others.map(|(_, record)| record.packages).filter(|packages| !packages.is_empty()).collect()
    }

    fn read(&self) -> Option<Records> {
        // An index of another form, or half of one, is as good as none.
        let stored: Stored = serde_json::from_slice(&std::fs::read(&self.file).ok()?).ok()?;
        (stored.version == VERSION && stored.identity == self.identity).then_some(stored.records)
    }

    fn finish(&self, catalog: &Catalog, survey: Survey) -> Manifest {
        let Survey { current, others, changed, .. } = survey;
        let written = if changed { self.write(&current, others) } else { Ok(()) };
        let mut manifest = self.manifest(catalog, current);
        if let Err(error) = written {
            let message = format!("cannot keep what is known of the skills, so every start is slow: {error}");
            manifest.problems.push(Problem::warning(self.file.to_string_lossy(), None, message));
        }
        manifest
    }

    fn write(&self, current: &Records, others: Records) -> std::io::Result<()> {
        let others = others.iter().filter(|(folder, _)| folder.is_dir()).take(MAX_OTHERS);
        let stored = StoredRef {
            version: VERSION,
            identity: &self.identity,
            records: current.iter().chain(others).collect(),
        };
        replace(&self.file, &serde_json::to_vec(&stored)?)
    }

    fn manifest(&self, catalog: &Catalog, mut records: Records) -> Manifest {
        let mut hash = Sha256::new();
        hash.update(VERSION.to_le_bytes());
        hash.update(&self.identity);
        let mut skills = Vec::with_capacity(catalog.skills.len());
        let mut problems = catalog.problems.clone();
        for found in &catalog.skills {
            let Some(mut record) = records.remove(&found.folder) else { continue };
            record.extensions.iter_mut().for_each(|extension| extension.look(&self.cache, &found.name));
            let references = references(&found.folder);
            let environment = self.environment(&record.packages);
            hash.update(format!("\0{}\0{}\0{}", found.name, found.source, record.digest));
            hash.update(format!("\0{references:?}\0{environment:?}"));
            match record.skill(found, references, environment) {
                Ok(skill) => skills.push(skill),
                Err(reasons) => problems.extend(reasons),
            }
        }
        self.sniff(&mut skills);
        Manifest { version: VERSION, key: hex(&hash.finalize()), skills, problems }
    }

    fn sniff(&self, skills: &mut [Skill]) {
        let Some(workspace) = &self.workspace else { return };
        let mut names = None;
        for skill in skills {
            // Read with the rest of the card, so they are fine.
            let patterns = sniff::patterns(&skill.card.metadata).unwrap_or_default();
            if patterns.is_empty() {
                continue;
            }
            skill.fits = sniff::fits(&patterns, names.get_or_insert_with(|| sniff::names(workspace)));
            for tool in &mut skill.tools {
                Arc::make_mut(&mut tool.spec).fits = skill.fits;
            }
        }
    }
}

type Records = BTreeMap<PathBuf, Record>;

#[derive(Deserialize)]
struct Stored {
    version: u32,
    identity: String,
    records: Records,
}

#[derive(Serialize)]
struct StoredRef<'a> {
    version: u32,
    identity: &'a str,
    records: BTreeMap<&'a PathBuf, &'a Record>,
}

#[derive(Default)]
struct Survey {
    current: Records,
    others: Records,
    requests: Vec<Request>,
    changed: bool,
}

/// What is known of one skill, by its folder. Where it comes from and what it shadows is the
/// catalog's to say.
#[derive(Serialize, Deserialize)]
struct Record {
    /// `None` while they do not suffice to see a change.
    stamps: Option<Vec<Stamp>>,
    digest: String,
    /// `None` if the `SKILL.md` cannot be used.
    card: Option<Card>,
    tools: Vec<ToolEntry>,
    extensions: Vec<Extension>,
    problems: Vec<Problem>,
    #[serde(default, skip_serializing_if = "Packages::is_empty")]
    packages: Packages,
    /// With which it was described.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    environment: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    modules: BTreeSet<String>,
}

impl Index {
    /// Reads what can be read without Python, and lists what cannot.
    fn begin(&self, found: &Found, mut seen: Seen, settled: bool) -> (Record, Vec<Request>) {
        let digest = files::digest(&found.folder, &seen.stamps, &mut seen.unreadable);
        let unreadable = seen.unreadable.iter().map(|(path, reason)| {
            Problem::error(path.to_string_lossy(), None, format!("cannot be read: {reason}"))
        });
        let mut problems: Vec<Problem> = unreadable.collect();
        let card = match card(found, &seen.stamps) {
            Ok(mut card) => {
                problems.append(&mut card.warnings);
                Some(card)
            }
            Err(problem) => {
                problems.push(problem);
                None
            }
        };
        let (mut extensions, wrong) = extension::find(&found.folder, &seen.stamps);
        problems.extend(wrong);
        extensions.iter_mut().for_each(|extension| extension.look(&self.cache, &found.name));
        let engines: Engines =
            extensions.iter().map(|extension| (extension.text.name.clone(), extension.behind())).collect();
        let (packages, wrong) = match &self.environments {
            Some(environments) => declared(&found.folder, &seen.stamps, &environments.python.version),
            None => Default::default(),
        };
        let environment = self.environment(&packages);
        // Without its packages it cannot be imported; the manifest says so.
        let has_packages = wrong.is_empty() && (packages.is_empty() || environment.is_some());
        let describable = card.is_some() && has_packages;
        problems.extend(wrong);
        let mut requests = Vec::new();
        if describable {
            for stamp in seen.stamps.iter().filter(|stamp| is_script(stamp.name())) {
                match has_tools(&found.folder, stamp) {
                    Ok(true) => requests.push(Request {
                        skill: found.name.clone(),
                        folder: found.folder.clone(),
                        file: stamp.name().to_owned(),
                        engines: engines.clone(),
                        environment: environment.clone(),
                    }),
                    Ok(false) => {}
                    Err(problem) => problems.push(problem),
                }
            }
        }
        let stamps = settled.then_some(seen.stamps);
        let (tools, modules) = (Vec::new(), BTreeSet::new());
        let record =
            Record { stamps, digest, card, tools, extensions, problems, packages, environment, modules };
        (record, requests)
    }
}

impl Record {
    fn add(&mut self, request: &Request, description: Option<Description>) {
        let Some(description) = description else {
            let message = "was not described: its tools are missing";
            return self.problems.push(Problem::error(&request.file, None, message));
        };
        self.problems.extend(description.problems);
        self.modules.extend(description.modules);
        for mut tool in description.tools {
            if !tool.spec.name.contains('.') {
                let name = format!("{}.{}", request.skill, tool.spec.name);
                Arc::make_mut(&mut tool.spec).name = name;
            }
            match check(&tool, &request.skill) {
                Ok(()) => self.tools.push(tool),
                Err(reason) => {
                    self.problems.push(Problem::error(&request.file, Some(tool.line), reason));
                }
            }
        }
    }

    /// Puts the tools in order and leaves out what has the name of an earlier one.
    fn tidy(&mut self) {
        self.tools.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        let mut places: BTreeMap<String, String> = BTreeMap::new();
        let problems = &mut self.problems;
        self.tools.retain(|tool| {
            let place = format!("{}:{}", tool.file, tool.line);
            let Some(first) = places.get(tool.name()) else {
                places.insert(tool.name().to_owned(), place);
                return true;
            };
            let message = format!(
                "there are two tools `{}`: that at {first} stays, that at {place} is left out; rename one",
                tool.name()
            );
            problems.push(Problem::error(&tool.file, Some(tool.line), message));
            false
        });
    }

    fn has_errors(&self) -> bool {
        self.problems.iter().any(|problem| problem.level == Level::Error)
    }

    /// The skill, or why there is none.
    fn skill(
        self,
        found: &Found,
        references: Vec<String>,
        environment: Option<PathBuf>,
    ) -> Result<Skill, Vec<Problem>> {
        let mut problems = self.problems;
        if environment.is_none() && !self.packages.is_empty() {
            let message = format!("its packages are not installed: run `omni skill install {}`", found.name);
            problems.push(Problem::error(&self.packages.file, self.packages.line, message));
        }
        for problem in &mut problems {
            problem.file = found.folder.join(&problem.file).to_string_lossy().into_owned();
        }
        let Some(card) = self.card else { return Err(problems) };
        for extension in &self.extensions {
            if let engine @ Engine::Nothing(_) = extension.engine() {
                let file = found.folder.join(extension.file()).to_string_lossy().into_owned();
                problems.push(Problem::error(file, None, format!("gives {engine}")));
            }
        }
        Ok(Skill {
            card,
            source: found.source,
            folder: found.folder.clone(),
            digest: self.digest,
            packages: self.packages,
            environment,
            modules: self.modules.into_iter().collect(),
            tools: self.tools,
            extensions: self.extensions,
            problems,
            references,
            shadows: found.shadows.clone(),
            sources: None,
            trusted: false,
            fits: false,
        })
    }
}

impl Skill {
    /// Reads what its scripts are into [`Skill::sources`]. Returns whether it was still the
    /// version that was described; nothing is held if not.
    pub fn hold(&mut self) -> bool {
        self.sources = sources(&self.folder, &self.digest).map(Arc::new);
        self.sources.is_some()
    }
}

/// The Python files of a skill, and its `extension.toml` files, by name, if the skill is still the one of this digest.
fn sources(folder: &Path, digest: &str) -> Option<Sources> {
    let (mut seen, _) = look(folder);
    let mut sources = Sources::new();
    let now = files::digest_and(folder, &seen.stamps, &mut seen.unreadable, |name, bytes| {
        let is_module =
            name.ends_with(".py") && ["scripts/", "extensions/"].iter().any(|at| name.starts_with(at));
        if is_module || name.ends_with(extension::FILE) {
            sources.entry(name.to_owned()).or_default().extend_from_slice(bytes);
        }
    });
    (now == digest).then_some(sources)
}

/// The files that decide what a skill does, and whether they have settled.
pub(super) fn look(folder: &Path) -> (Seen, bool) {
    let now = files::now();
    let mut seen = Seen::default();
    seen.file(folder, manifest::FILE);
    seen.file(folder, packages::PROJECT);
    seen.file(folder, packages::REQUIREMENTS);
    seen.folder(folder, "scripts", visible);
    seen.folder(folder, extension::FOLDER, is_source);
    let seen = seen.sorted();
    let settled = seen.settled(now);
    (seen, settled)
}

/// What cargo makes of an extension is no part of it.
fn is_source(name: &str) -> bool {
    visible(name) && name != "target"
}

/// The packages that a skill's files declare, and what is wrong with that.
pub(super) fn declared(folder: &Path, stamps: &[Stamp], python: &str) -> (Packages, Vec<Problem>) {
    let (mut packages, mut problems) = (Packages::default(), Vec::new());
    for stamp in stamps {
        let is_script = is_script(stamp.name());
        if !is_script && ![packages::PROJECT, packages::REQUIREMENTS].contains(&stamp.name()) {
            continue;
        }
        let text = match text(folder, stamp) {
            Ok(text) => text,
            // Of scripts it is told where their tools are looked for.
            Err(_) if is_script => continue,
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        // A script that has no tools is another program's, and so is what it needs.
        if is_script && !text.contains("omni") {
            continue;
        }
        problems.extend(packages.add(stamp.name(), &text, python).err());
    }
    (packages, problems)
}

fn text(folder: &Path, stamp: &Stamp) -> Result<String, Problem> {
    if stamp.size() > MAX_SCRIPT {
        let message = format!("has {} bytes; {MAX_SCRIPT} is the limit", stamp.size());
        return Err(Problem::error(stamp.name(), None, message));
    }
    let told = |reason: String| Problem::error(stamp.name(), None, format!("cannot be read: {reason}"));
    let bytes = files::read(folder, stamp).map_err(|error| told(error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| told(error.to_string()))
}

fn card(found: &Found, stamps: &[Stamp]) -> Result<Card, Problem> {
    let stamp = stamps.iter().find(|stamp| stamp.name() == manifest::FILE);
    let stamp = stamp.ok_or_else(|| Problem::error(manifest::FILE, None, "is not there any more"))?;
    if stamp.size() > manifest::MAX_BYTES {
        let message = format!(
            "has {} bytes; {} is the limit: move what is not always needed to `references/`",
            stamp.size(),
            manifest::MAX_BYTES
        );
        return Err(Problem::error(manifest::FILE, None, message));
    }
    let bytes = files::read(&found.folder, stamp)
        .map_err(|error| Problem::error(manifest::FILE, None, format!("cannot be read: {error}")))?;
    manifest::parse(manifest::decode(&bytes)?, &found.name)
}

/// Files directly in `scripts/`; those below and those with an underscore are theirs to import.
pub(super) fn is_script(name: &str) -> bool {
    let file = name.strip_prefix("scripts/").filter(|file| !file.contains('/') && !file.starts_with('_'));
    file.is_some_and(|file| file.ends_with(".py"))
}

/// A tool needs the decorator of the package, so a file that never names the package has none.
/// Such a file is not imported: skills of other programs have scripts that act when they are.
fn has_tools(folder: &Path, stamp: &Stamp) -> Result<bool, Problem> {
    if stamp.size() > MAX_SCRIPT {
        let message = format!("has {} bytes; {MAX_SCRIPT} is the limit for a file with tools", stamp.size());
        return Err(Problem::error(stamp.name(), None, message));
    }
    let bytes = files::read(folder, stamp)
        .map_err(|error| Problem::error(stamp.name(), None, format!("cannot be read: {error}")))?;
    Ok(bytes.windows(4).any(|window| window == b"omni"))
}

fn check(tool: &ToolEntry, skill: &str) -> Result<(), String> {
    let own = tool.name().strip_prefix(skill).and_then(|rest| rest.strip_prefix('.'));
    let Some(own) = own else {
        return Err(format!("the tool `{}` is not named `{skill}.…`: left out", tool.name()));
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if own.is_empty() || own.len() > 64 || !own.chars().all(plain) {
        return Err(format!("`{own}` is no name for a tool: use up to 64 letters, digits, `_` and `-`"));
    }
    if !tool.spec.input.is_object() {
        return Err(format!("the tool `{}` has no schema of its arguments: left out", tool.name()));
    }
    Ok(())
}

fn references(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder.join("references")) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let documents = names.filter(|name| visible(name) && name.ends_with(".md"));
    let mut documents: Vec<String> = documents.map(|name| format!("references/{name}")).collect();
    documents.sort_unstable();
    documents
}
