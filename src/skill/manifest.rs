//! What a skill says of itself: the front matter of its `SKILL.md`, and what its tools are.
//!
//! The format is that of <https://agentskills.io/specification>, plus functions marked
//! `@tool` in `scripts/*.py`. Nothing here touches a disk.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::extension::{Engines, Extension};
use super::isolation::Isolation;
use super::packages::Packages;
use super::sniff;
pub use crate::message::spec::{Annotations, Spec};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use serde_saphyr::{MessageFormatter, Spanned, UserMessageFormatter};

/// The file every skill has.
pub const FILE: &str = "SKILL.md";
/// Bytes a `SKILL.md` may have.
pub const MAX_BYTES: u64 = 1 << 20;

const MAX_NAME: usize = 64;
const MAX_DESCRIPTION: usize = 1024;
const MAX_COMPATIBILITY: usize = 500;
const KEYS: [&str; 6] = ["name", "description", "license", "compatibility", "metadata", "allowed-tools"];

/// All skills that may be used, with their tools.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Of this form.
    pub version: u32,
    /// Changes when any of the skills does.
    pub key: String,
    /// By name.
    pub skills: Vec<Skill>,
    /// What is wrong with skills that are not among them.
    pub problems: Vec<Problem>,
}

/// The Python files of a skill, and what its extensions say of themselves, by their names relative to it.
pub type Sources = BTreeMap<String, Vec<u8>>;

impl Manifest {
    /// The skill of this name.
    pub fn skill(&self, name: &str) -> Option<&Skill> {
        self.skills.iter().find(|skill| skill.card.name == name)
    }

    /// Everything that is wrong: with the skills that are here and with those that are not.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter().chain(self.skills.iter().flat_map(|skill| &skill.problems))
    }

    /// This manifest, where a skill that an edit has broken stays as it is in `before`, with the
    /// problems it has now.
    ///
    /// Broken is what has errors and lacks a tool it had, and what is not a skill any more although
    /// there is something to say about its folder. So a tool goes only if nothing is wrong.
    pub fn keeping(mut self, before: &Self) -> Self {
        for old in &before.skills {
            match self.skills.iter_mut().find(|skill| skill.card.name == old.card.name) {
                Some(new) if new.is_broken(old) => {
                    let problems = std::mem::take(&mut new.problems);
                    *new = Skill { problems, ..old.clone() };
                }
                Some(_) => {}
                None if self
                    .problems
                    .iter()
                    .any(|problem| Path::new(&problem.file).starts_with(&old.folder)) =>
                {
                    self.skills.push(Skill { problems: Vec::new(), ..old.clone() });
                }
                None => {}
            }
        }
        self.skills.sort_by(|a, b| a.card.name.cmp(&b.card.name));
        self
    }
}

/// A skill that may be used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Skill {
    /// What it says of itself.
    #[serde(flatten)]
    pub card: Card,
    /// Where it comes from.
    pub source: Source,
    /// Where it is.
    pub folder: PathBuf,
    /// Whether its user has vouched for it as it is now. Looked up only for one that asks to run in
    /// this process, and never written down.
    #[serde(skip)]
    pub trusted: bool,
    /// Whether the workspace has files it is about. Looked up each time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fits: bool,
    /// SHA-256 of what it does: `SKILL.md`, `pyproject.toml`, `requirements.txt`, all of `scripts/`
    /// and `extensions/`.
    pub digest: String,
    /// The packages it declares.
    #[serde(default, skip_serializing_if = "Packages::is_empty")]
    pub packages: Packages,
    /// Where they are. `None` if it declares none, or if they are not installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<PathBuf>,
    /// What its scripts import that is neither theirs nor Python's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<String>,
    /// Its tools, by file and line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<ToolEntry>,
    /// Its extensions, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<Extension>,
    /// What is wrong with it; the rest of it works.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
    /// Documents the model may read, as `references/NAME.md`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<String>,
    /// Sources whose skill of the same name it replaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shadows: Vec<Source>,
    /// What its scripts are in this version, where that is held: it then runs as it was described,
    /// whatever becomes of its files.
    #[serde(skip)]
    pub sources: Option<Arc<Sources>>,
}

impl Skill {
    /// What is behind the names of its extensions, for whoever loads them.
    pub fn engines(&self) -> Engines {
        self.extensions.iter().map(|extension| (extension.text.name.clone(), extension.behind())).collect()
    }

    fn is_broken(&self, before: &Self) -> bool {
        let tools: HashSet<&str> = self.tools.iter().map(ToolEntry::name).collect();
        let lacks_one = before.tools.iter().any(|tool| !tools.contains(tool.name()));
        lacks_one && self.problems.iter().any(Problem::is_error)
    }
}

/// Where a skill comes from. Later ones win.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Inside the program.
    Builtin,
    /// The user's own folder of skills.
    User,
    /// A folder the settings name.
    Configured,
    /// The project's folder: written by whoever wrote the repository, used only once trusted.
    Project,
    /// A folder named on the command line.
    Given,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Builtin => "built-in",
            Self::User => "user",
            Self::Configured => "settings",
            Self::Project => "project",
            Self::Given => "command line",
        })
    }
}

/// A function of a skill that can be called.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolEntry {
    /// The file it is in, relative to the skill: `scripts/NAME.py`.
    pub file: String,
    /// The name of the function in that file.
    pub function: String,
    /// Where the function begins.
    pub line: u32,
    /// Whether it is an `async def`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_async: bool,
    /// Where it is to run at least; `None` for where its skill does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<super::Where>,
    /// What callers are told; `spec.name` is `skill.tool`.
    pub spec: Arc<Spec>,
}

impl ToolEntry {
    /// Its name, `skill.tool`.
    pub fn name(&self) -> &str {
        &self.spec.name
    }
}

/// Something that is wrong with a skill, for the person who can put it right.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// Whether it takes something away.
    pub level: Level,
    /// The file or folder it is in.
    pub file: String,
    /// The line, counted from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// What is wrong and what to do.
    pub message: String,
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Something cannot be used.
    Error,
    /// Everything can be used.
    Warning,
}

impl Problem {
    /// Whether something cannot be used because of it.
    pub fn is_error(&self) -> bool {
        self.level == Level::Error
    }

    /// Something cannot be used.
    pub fn error(file: impl Into<String>, line: Option<u32>, message: impl Into<String>) -> Self {
        Self { level: Level::Error, file: file.into(), line, message: message.into() }
    }

    /// Something is odd.
    pub fn warning(file: impl Into<String>, line: Option<u32>, message: impl Into<String>) -> Self {
        Self { level: Level::Warning, ..Self::error(file, line, message) }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.message),
            None => write!(f, "{}: {}", self.file, self.message),
        }
    }
}

/// The front matter of a `SKILL.md`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Card {
    /// The name, which is the folder's too.
    pub name: String,
    /// What the skill is for and when it is wanted, for the model.
    pub description: String,
    /// Under which license it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// What it needs around it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compatibility: Option<String>,
    /// Whatever else its author says.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
    /// Tools the author would let run unasked. A wish: the policy decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_tools: Option<String>,
    /// The line of `SKILL.md` where the text for the model begins, counted from 1.
    pub body_line: u32,
    /// What is odd about the front matter. [`Skill::problems`] has it too.
    #[serde(skip)]
    pub warnings: Vec<Problem>,
}

/// Reads the front matter of a skill in the folder of this name.
///
/// Keys the format does not have are warnings of the card; anything else that is wrong is the
/// error, with the first wrong line.
pub fn parse(text: &str, folder: &str) -> Result<Card, Problem> {
    let (yaml, body_line) = split(text)?;
    let front = Front::read(yaml)?;
    let name = front.name()?;
    if name.text != folder {
        let message = format!("`name` is `{}` but the folder is `{folder}`: rename one of them", name.text);
        return Err(name.error(&message));
    }
    let description = front.required("description")?;
    description.at_most(MAX_DESCRIPTION, "description")?;
    let compatibility = front.text("compatibility")?;
    if let Some(compatibility) = &compatibility {
        compatibility.at_most(MAX_COMPATIBILITY, "compatibility")?;
    }
    let metadata = front.metadata()?;
    Isolation::read(&metadata).map(drop).and(sniff::patterns(&metadata).map(drop)).map_err(|reason| {
        let line = yaml.lines().position(|line| line.starts_with("metadata"));
        Problem::error(FILE, line.map(|line| line as u32 + 2), reason)
    })?;
    Ok(Card {
        name: name.text,
        description: description.text,
        license: front.text("license")?.map(|license| license.text),
        compatibility: compatibility.map(|compatibility| compatibility.text),
        metadata,
        allowed_tools: front.allowed_tools()?,
        body_line,
        warnings: front.unknown(),
    })
}

/// The name that a `SKILL.md` gives the skill.
pub fn name(text: &str) -> Result<String, Problem> {
    Ok(Front::read(split(text)?.0)?.name()?.text)
}

/// The text of a `SKILL.md`, or which line is no UTF-8.
pub fn decode(bytes: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() as u32 + 1;
        Problem::error(FILE, Some(line), "is not UTF-8 text: save the file as UTF-8")
    })
}

/// What is wrong with the name of a skill, if something is.
pub fn check_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let reason = if name.is_empty() {
        "is empty"
    } else if name.chars().count() > MAX_NAME {
        "has more than 64 characters"
    } else if !name.chars().all(plain) {
        "may have lowercase letters a-z, digits and hyphens only"
    } else if name.starts_with('-') || name.ends_with('-') {
        "may not begin or end with a hyphen"
    } else if name.contains("--") {
        "may not have two hyphens in a row"
    } else {
        return Ok(());
    };
    Err(format!("the name `{name}` {reason}"))
}

/// The whole front matter of a `SKILL.md` as it is written; `None` where there is none that can be read.
pub fn front_matter(text: &str) -> Option<Value> {
    let (yaml, _) = split(text.trim_start_matches('\u{feff}')).ok()?;
    serde_saphyr::from_str(yaml).ok().filter(Value::is_object)
}

/// The YAML between the two `---` lines, and the line after them.
fn split(text: &str) -> Result<(&str, u32), Problem> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = text.split_inclusive('\n');
    let Some(first) = lines.next().filter(|line| line.trim_end() == "---") else {
        let message = "has no front matter: begin the file with `---`, `name: …`, `description: …`, `---`";
        return Err(Problem::error(FILE, Some(1), message));
    };
    let mut end = first.len();
    for (line, number) in lines.zip(2_u32..) {
        if line.trim_end() == "---" {
            return Ok((&text[first.len()..end], number + 1));
        }
        end += line.len();
    }
    Err(Problem::error(FILE, Some(1), "the front matter has no end: close it with a line `---`"))
}

fn broken(yaml: &str, error: &serde_saphyr::Error) -> Problem {
    let bare = error.without_snippet();
    let reason = UserMessageFormatter.format_message(bare).into_owned();
    let last = yaml.lines().count().max(1) as u64;
    let line = bare.location().map(|location| location.line().clamp(1, last));
    // By far the most common mistake, and the parser's words do not help with it.
    let colon = |text: &str| {
        let value = text.split_once(": ").map_or("", |(_, value)| value.trim_start());
        value.contains(": ") && !value.starts_with(['"', '\'', '|', '>', '{', '['])
    };
    let culprit = line.and_then(|line| yaml.lines().nth(line as usize - 1));
    let hint = if culprit.is_some_and(colon) { "; put a value that contains `: ` in quotes" } else { "" };
    Problem::error(
        FILE,
        line.map(|line| line as u32 + 1),
        format!("the front matter is no YAML: {reason}{hint}"),
    )
}

/// The pairs of a mapping in the order and at the places they are written.
struct Entries(Vec<(Spanned<String>, Value)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("lines of the form `key: value`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(Pairs)
    }
}

/// A piece of text and where its key is.
struct Text {
    text: String,
    line: u32,
}

impl Text {
    fn error(&self, message: &str) -> Problem {
        Problem::error(FILE, Some(self.line), message)
    }

    fn at_most(&self, limit: usize, key: &str) -> Result<(), Problem> {
        let length = self.text.chars().count();
        if length > limit {
            return Err(self.error(&format!("`{key}` has {length} characters; {limit} is the limit")));
        }
        Ok(())
    }
}

struct Front(Vec<(Spanned<String>, Value)>);

impl Front {
    fn read(yaml: &str) -> Result<Self, Problem> {
        let Entries(entries) = serde_saphyr::from_str(yaml).map_err(|error| broken(yaml, &error))?;
        Ok(Self(entries))
    }

    fn name(&self) -> Result<Text, Problem> {
        let name = self.required("name")?;
        check_name(&name.text).map_err(|reason| name.error(&reason))?;
        Ok(name)
    }

    fn get(&self, key: &str) -> Option<(u32, &Value)> {
        let (spanned, value) = self.0.iter().find(|(name, _)| name.value == key)?;
        Some((line(spanned), value))
    }

    /// `None` where the key is absent or has no value.
    fn text(&self, key: &str) -> Result<Option<Text>, Problem> {
        match self.get(key) {
            None | Some((_, Value::Null)) => Ok(None),
            Some((line, Value::String(text))) => Ok(Some(Text { text: text.trim().to_owned(), line })),
            Some((line, _)) => {
                let message = format!("`{key}` must be text: put it in quotes");
                Err(Problem::error(FILE, Some(line), message))
            }
        }
    }

    fn required(&self, key: &str) -> Result<Text, Problem> {
        match self.text(key)? {
            Some(text) if text.text.is_empty() => Err(text.error(&format!("`{key}` is empty"))),
            Some(text) => Ok(text),
            None => {
                let line = self.get(key).map_or(1, |(line, _)| line);
                Err(Problem::error(FILE, Some(line), format!("`{key}` is missing in the front matter")))
            }
        }
    }

    /// The format wants text for every value; lists and mappings are common and do no harm.
    fn metadata(&self) -> Result<Map<String, Value>, Problem> {
        match self.get("metadata") {
            None | Some((_, Value::Null)) => Ok(Map::new()),
            Some((_, Value::Object(map))) => Ok(map.clone()),
            Some((line, _)) => {
                Err(Problem::error(FILE, Some(line), "`metadata` must be a mapping of names to text"))
            }
        }
    }

    fn allowed_tools(&self) -> Result<Option<String>, Problem> {
        let Some((line, Value::Array(items))) = self.get("allowed-tools") else {
            return Ok(self.text("allowed-tools")?.map(|tools| tools.text));
        };
        let names: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
        let wrong =
            || Problem::error(FILE, Some(line), "`allowed-tools` must be text: names with blanks between");
        Ok(Some(names.ok_or_else(wrong)?.join(" ")))
    }

    fn unknown(&self) -> Vec<Problem> {
        let unknown = self.0.iter().filter(|(key, _)| !KEYS.contains(&key.value.as_str()));
        unknown.map(|(key, _)| stranger(&key.value, line(key))).collect()
    }
}

/// The front matter begins on the second line of the file.
fn line(key: &Spanned<String>) -> u32 {
    key.referenced.line() as u32 + 1
}

fn stranger(key: &str, line: u32) -> Problem {
    let nearest = KEYS.iter().find(|known| strsim::damerau_levenshtein(known, key) <= 2);
    let hint = match nearest {
        Some(known) => format!("did you mean `{known}`?"),
        None => "put it under `metadata`".to_owned(),
    };
    Problem::warning(FILE, Some(line), format!("the format has no key `{key}`: {hint}"))
}
