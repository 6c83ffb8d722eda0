//! One [`Config`] from five layers: defaults, the user's file, the project's file, the
//! environment, flags. Later layers win; each key remembers where its value is from.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::sync::LazyLock;

use toml::{Table, Value};
use toml_edit::{Document, Item, TableLike};

use super::{Config, ConfigError, DEFAULTS, Paths, environment};

/// A file of settings is a page or two; more is a mistake, or an attack on the memory.
const LARGEST: u64 = 1 << 20;

/// The keys of a model server, which the defaults cannot show because there is none by default.
const PROVIDER: [&str; 3] = ["kind", "base_url", "api_key"];

/// Older names of settings, and what they are called now.
const OLDER: [(&str, &str); 2] =
    [("mcp.timeout", "tools.timeout"), ("mcp.idle_timeout", "tools.idle_timeout")];

static KNOWN: LazyLock<Table> =
    LazyLock::new(|| DEFAULTS.parse().expect("the defaults are TOML; a test reads them"));

/// The settings, and where each is from.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Where the value of a key (`model.name`) is from; every key of `config` is in it.
    pub origins: BTreeMap<String, Origin>,
}

/// Where a value is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// A file.
    File {
        /// The file.
        path: PathBuf,
        /// The line of the key, from 1.
        line: usize,
    },
    /// A variable of this name.
    Environment(String),
    /// The command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "`{}`, line {line}", path.display()),
            Self::Environment(name) => write!(f, "environment variable `{name}`"),
            Self::Flag => f.write_str("command line"),
        }
    }
}

/// Reads all layers.
///
/// `variables` is the environment; what in it is a setting is said in [`environment`]. A flag
/// is the dotted key it sets and the value. A missing file is an empty one; one that cannot be
/// read, or says anything that is no setting, is an error.
pub fn load(
    paths: &Paths,
    variables: impl IntoIterator<Item = (String, String)>,
    flags: Vec<(String, Value)>,
) -> Result<Loaded, ConfigError> {
    let variables: BTreeMap<String, String> = variables.into_iter().collect();
    let home = variables.get("HOME").map(PathBuf::from);
    let user = paths.config.join("config.toml");

    let mut settings = read(&user)?;
    for mut setting in read(&paths.project().join("config.toml"))? {
        setting.project = true;
        settings.push(setting);
    }
    settings.extend(from_environment(&variables)?);
    settings.extend(from_flags(flags)?);

    let mut table = KNOWN.clone();
    let mut origins: BTreeMap<String, Origin> =
        known_keys().into_iter().map(|key| (key, Origin::Default)).collect();
    for mut setting in settings {
        setting.check()?;
        setting.resolve_paths(home.as_deref());
        if setting.project {
            setting.restrict(&paths.workspace, &user)?;
            setting.add_to(&table);
        }
        insert(&mut table, &setting.key, setting.value.clone());
        origins.insert(setting.dotted(), setting.origin);
    }
    let config = table.try_into().expect("each value was checked by itself");
    Ok(Loaded { config, origins })
}

/// Reads `KEY=VALUE` as it is typed on a command line: the value as TOML where the setting is
/// no text, as it stands where it is.
pub fn flags(typed: &[String]) -> Result<Vec<(String, Value)>, ConfigError> {
    let flag = |text: &String| {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        let path: Vec<String> = key.trim().split('.').map(str::to_owned).collect();
        match place(&path) {
            Place::Value(default) => Ok((key.trim().to_owned(), environment::value(value, default.is_str()))),
            Place::Skills => Ok((key.trim().to_owned(), environment::value(value, false))),
            _ => Err(unknown(&path, Origin::Flag)),
        }
    };
    typed.iter().map(flag).collect()
}

/// Every key that the defaults have.
pub(super) fn known_keys() -> Vec<String> {
    let keys = |(section, values): (&String, &Value)| -> Vec<String> {
        let values = values.as_table().expect("the defaults have sections only");
        values.keys().map(|key| format!("{section}.{key}")).collect()
    };
    KNOWN.iter().flat_map(keys).collect()
}

/// One value of one layer.
struct Setting {
    key: Vec<String>,
    value: Value,
    origin: Origin,
    project: bool,
}

impl Setting {
    fn dotted(&self) -> String {
        self.key.join(".")
    }

    /// Whether it could be part of a [`Config`]; the types there are asked, by trying.
    fn check(&mut self) -> Result<(), ConfigError> {
        let default = match place(&self.key) {
            Place::Value(default) => default,
            Place::Skills => return Ok(()),
            _ => return Err(unknown(&self.key, self.origin.clone())),
        };
        if let (Value::Float(_), Value::Integer(number)) = (&default, &self.value) {
            self.value = Value::Float(*number as f64);
        }
        let wrong = |expected, found| {
            let (origin, key) = (self.origin.clone(), self.dotted());
            Err(ConfigError::Wrong { origin, key, expected, found })
        };
        if !default.same_type(&self.value) {
            return wrong(kind(&default), kind(&self.value));
        }
        // All numbers with a point are seconds, and a duration has to be made of them.
        if let Value::Float(seconds) = self.value
            && !(0.0..=1e9).contains(&seconds)
        {
            return wrong("a number from 0 to 1000000000", "another");
        }
        let most = match self.key.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["telegram", "patience"] => {
                Some((86_400.0, "a number of seconds from 1 to 86400, which is a day"))
            }
            ["telegram", "poll"] => Some((600.0, "a number of seconds from 1 to 600")),
            _ => None,
        };
        if let (Value::Float(seconds), Some((most, expected))) = (&self.value, most)
            && !(1.0..=most).contains(seconds)
        {
            return wrong(expected, "another");
        }
        let mut trial = KNOWN.clone();
        insert(&mut trial, &self.key, self.value.clone());
        match (trial.try_into::<Config>(), &self.value) {
            (Ok(_), _) => Ok(()),
            (Err(_), Value::Integer(number)) if *number < 0 => wrong("0 or more", "negative"),
            (Err(_), Value::Integer(_)) => wrong("a smaller number", "too large"),
            (Err(_), _) if self.key[0] == "telegram" => {
                wrong("a list of whole numbers", "a list with something else")
            }
            (Err(_), Value::Array(_)) if self.key == ["model", "price"] => {
                wrong("a list of texts as in \"openai/gpt-5.6 2.0 0.2 10.0\"", "a list with something else")
            }
            (Err(_), _) => wrong("a list of texts in quotes", "a list with something else"),
        }
    }

    /// Makes relative paths in a file start at the file's folder, and `~/` the user's.
    fn resolve_paths(&mut self, home: Option<&Path>) {
        let base = match &self.origin {
            Origin::File { path, .. } => path.parent(),
            _ => None,
        };
        let prefixes: &[&str] = match self.key.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["skills", "folders"] => &[""],
            ["store", "url"] => &["sqlite://", "sqlite:", "file:"],
            ["provider", _, "api_key"] | ["gateway" | "telegram", "token"] | ["jobs", "webhook_secret"] => {
                &["file:"]
            }
            ["model", "name" | "fallback"] => &["scripted:"],
            _ => return,
        };
        let resolve = |text: &mut String| {
            let Some(prefix) = prefixes.iter().find(|prefix| text.starts_with(**prefix)) else { return };
            let path = &text[prefix.len()..];
            let path = match (path.strip_prefix("~/"), home, base) {
                (Some(rest), Some(home), _) => home.join(rest),
                (_, _, Some(base)) if !path.is_empty() => base.join(path),
                _ => return,
            };
            *text = format!("{prefix}{}", path.display());
        };
        match &mut self.value {
            Value::String(text) => resolve(text),
            Value::Array(items) => items.iter_mut().for_each(|item| {
                if let Value::String(text) = item {
                    resolve(text);
                }
            }),
            _ => {}
        }
    }

    /// Refuses what a project must not decide. The rule is told in `defaults.toml`.
    fn restrict(&self, workspace: &Path, user: &Path) -> Result<(), ConfigError> {
        let texts: Vec<&str> = match &self.value {
            Value::String(text) => vec![text],
            Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let reason = match (self.key[0].as_str(), self.key[1].as_str()) {
            ("provider", _) => "it could send your keys and conversations elsewhere",
            ("store", _) => "it could keep your conversations elsewhere",
            ("gateway" | "telegram", _) => "it could let others in",
            ("update", _) => "it could put another program in the place of this one",
            ("telemetry", _) => "it could tell others what you do",
            ("budget", _) => "it could spend more than you want",
            ("jobs", _) => "it could spend your tokens and send results elsewhere",
            ("memory", _) => "it could change what is remembered of you",
            ("skill", _) => "it could lift a limit you have set for a skill",
            ("policy", "allow") => "it could let itself do anything",
            ("model", _) if texts.iter().any(|text| text.starts_with("scripted:")) => {
                "a script could call any tool in your name"
            }
            ("skills", "folders") if !texts.iter().all(|text| inside(workspace, Path::new(text))) => {
                "a folder outside of the project is not the project's"
            }
            _ => return Ok(()),
        };
        let (origin, key) = (self.origin.clone(), self.dotted());
        Err(ConfigError::Refused { origin, key, reason, user: user.to_owned() })
    }

    /// A project's list adds to what is there: in the place of yours, `deny = []` would grant.
    fn add_to(&mut self, table: &Table) {
        let (section, key) = (self.key[0].as_str(), self.key[1].as_str());
        if !matches!(section, "policy" | "skills" | "mcp") {
            return;
        }
        if let (Value::Array(own), Value::Array(before)) = (&mut self.value, &table[section][key]) {
            let added: Vec<Value> = own.drain(..).filter(|item| !before.contains(item)).collect();
            own.extend(before.iter().cloned().chain(added));
        }
    }
}

/// What a key path leads to.
enum Place {
    Section,
    Value(Value),
    /// A value that the skill alone knows.
    Skills,
    Nothing,
}

/// The key that is called `key` now.
fn renamed(key: Vec<String>) -> Vec<String> {
    let dotted = key.join(".");
    let now = OLDER.iter().find(|(older, _)| *older == dotted).map(|(_, now)| *now);
    now.map_or(key, |now| now.split('.').map(str::to_owned).collect())
}

fn place(key: &[String]) -> Place {
    let key = renamed(key.to_vec());
    let value = |section: &str, key: &str| KNOWN.get(section)?.get(key);
    let older = |section: &str| OLDER.iter().any(|(name, _)| name.split('.').next() == Some(section));
    match key.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [section] if KNOWN.contains_key(section) || older(section) => Place::Section,
        ["provider" | "skill", name] if !name.is_empty() => Place::Section,
        ["skill", _, key] if !key.is_empty() => Place::Skills,
        ["provider", _, key] if PROVIDER.contains(&key) => Place::Value(Value::String(String::new())),
        [section, key] => value(section, key).map_or(Place::Nothing, |value| Place::Value(value.clone())),
        _ => Place::Nothing,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text in quotes",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date or time",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

/// The error for a key that does not exist, with what may have been meant.
fn unknown(key: &[String], origin: Origin) -> ConfigError {
    let dotted = key.join(".");
    let sections = KNOWN.keys().cloned();
    let candidates: Vec<String> = match key.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["provider", name, ..] => PROVIDER.iter().map(|key| format!("provider.{name}.{key}")).collect(),
        [_] => known_keys().into_iter().chain(sections).collect(),
        _ => known_keys(),
    };
    // A key that stands in the wrong section, or in none, is found by its own name.
    let last = key.last().map_or("", String::as_str);
    let moved = candidates.iter().find(|known| known.rsplit('.').next() == Some(last));
    // As alike as the least alike part: `model.qqq` is not nearly `model.name`.
    let likeness = |known: &String| {
        let parts: Vec<&str> = known.split('.').collect();
        let alike = key.iter().zip(&parts).map(|(one, other)| strsim::jaro_winkler(one, other));
        if parts.len() == key.len() { alike.fold(1.0, f64::min) } else { 0.0 }
    };
    let like = candidates
        .iter()
        .filter(|known| likeness(known) > 0.8)
        .max_by(|one, other| likeness(one).total_cmp(&likeness(other)));
    ConfigError::Unknown { origin, key: dotted, nearest: moved.or(like).cloned() }
}

fn insert(table: &mut Table, key: &[String], value: Value) {
    let (last, sections) = key.split_last().expect("a key has a name");
    let mut place = table;
    for section in sections {
        let entry = place.entry(section).or_insert_with(|| Value::Table(Table::new()));
        place = entry.as_table_mut().expect("only known keys are inserted");
    }
    place.insert(last.clone(), value);
}

/// Whether `path` is in `folder`, links followed.
fn inside(folder: &Path, path: &Path) -> bool {
    let (folder, path) = (plain(folder), plain(path));
    path.starts_with(&folder) && real(&path).starts_with(real(&folder))
}

/// With links followed as far as the path exists.
fn real(path: &Path) -> PathBuf {
    let known = path.ancestors().find_map(|part| Some((part, part.canonicalize().ok()?)));
    match known {
        Some((part, real)) => real.join(path.strip_prefix(part).expect("it is an ancestor")),
        None => path.to_owned(),
    }
}

/// Without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

fn from_environment(variables: &BTreeMap<String, String>) -> Result<Vec<Setting>, ConfigError> {
    let mut settings = Vec::new();
    for (variable, text) in variables.iter().filter(|(_, text)| !text.is_empty()) {
        let origin = Origin::Environment(variable.clone());
        match environment::name(variable) {
            environment::Name::Other => {}
            environment::Name::Almost(key) => {
                let nearest = Some(environment::variable(&key));
                return Err(ConfigError::Unknown { origin, key: variable.clone(), nearest });
            }
            environment::Name::Setting(key) => {
                let wants_text = match place(&key) {
                    Place::Value(default) => default.is_str(),
                    Place::Skills => false,
                    _ => return Err(unknown(&key, origin)),
                };
                let value = environment::value(text, wants_text);
                settings.push(Setting { key: renamed(key), value, origin, project: false });
            }
        }
    }
    Ok(settings)
}

fn from_flags(flags: Vec<(String, Value)>) -> Result<Vec<Setting>, ConfigError> {
    let setting = |(key, value): (String, Value)| {
        let key: Vec<String> = key.split('.').map(str::to_owned).collect();
        match place(&key) {
            Place::Value(_) | Place::Skills => {
                Ok(Setting { key: renamed(key), value, origin: Origin::Flag, project: false })
            }
            _ => Err(unknown(&key, Origin::Flag)),
        }
    };
    flags.into_iter().map(setting).collect()
}

/// The settings in a file; none if it is not there.
fn read(path: &Path) -> Result<Vec<Setting>, ConfigError> {
    let Some(text) = text(path)? else { return Ok(Vec::new()) };
    let document = Document::parse(text.as_str()).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        line: line(&text, error.span().map_or(0, |span| span.start)),
        reason: error.message().trim().replace('\n', "; "),
    })?;
    let mut settings = Vec::new();
    let file = File { path, text: &text };
    file.collect(document.as_table(), &mut Vec::new(), &mut settings)?;
    Ok(settings)
}

fn text(path: &Path) -> Result<Option<String>, ConfigError> {
    let unreadable = |reason: String| ConfigError::Unreadable { path: path.to_owned(), reason };
    match std::fs::metadata(path) {
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(unreadable(error.to_string())),
        // A pipe would block, a device never end.
        Ok(metadata) if !metadata.is_file() => return Err(unreadable("it is no file".to_owned())),
        Ok(metadata) if metadata.len() > LARGEST => {
            return Err(unreadable("it is larger than 1 MiB".to_owned()));
        }
        Ok(_) => {}
    }
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(LARGEST).read_to_string(&mut text))
        .map_err(|error| unreadable(error.to_string()))?;
    Ok(Some(text))
}

struct File<'a> {
    path: &'a Path,
    text: &'a str,
}

impl File<'_> {
    fn collect(
        &self,
        table: &dyn TableLike,
        key: &mut Vec<String>,
        settings: &mut Vec<Setting>,
    ) -> Result<(), ConfigError> {
        for (name, item) in table.iter() {
            key.push(name.to_owned());
            let start = table.key(name).and_then(|key| key.span()).or_else(|| item.span());
            let line = line(self.text, start.map_or(0, |span| span.start));
            let origin = Origin::File { path: self.path.to_owned(), line };
            match (place(key), item.as_table_like()) {
                (Place::Nothing, _) => return Err(unknown(key, origin)),
                (Place::Section, Some(table)) => self.collect(table, key, settings)?,
                (Place::Section, None) => {
                    let (key, found) = (key.join("."), kind(&value(item)));
                    return Err(ConfigError::Wrong { origin, key, expected: "a table", found });
                }
                (Place::Value(_) | Place::Skills, _) => {
                    let key = renamed(key.clone());
                    settings.push(Setting { key, value: value(item), origin, project: false });
                }
            }
            key.pop();
        }
        Ok(())
    }
}

/// From the type that knows lines to the one that knows serde.
fn value(item: &Item) -> Value {
    match item {
        Item::Value(value) => plain_value(value),
        Item::Table(table) => plain_table(table),
        Item::ArrayOfTables(tables) => Value::Array(tables.iter().map(|table| plain_table(table)).collect()),
        Item::None => Value::Array(Vec::new()),
    }
}

fn plain_table(table: &dyn TableLike) -> Value {
    Value::Table(table.iter().map(|(key, item)| (key.to_owned(), value(item))).collect())
}

fn plain_value(value: &toml_edit::Value) -> Value {
    use toml_edit::Value as Edit;
    match value {
        Edit::String(text) => Value::String(text.value().clone()),
        Edit::Integer(number) => Value::Integer(*number.value()),
        Edit::Float(number) => Value::Float(*number.value()),
        Edit::Boolean(flag) => Value::Boolean(*flag.value()),
        Edit::Datetime(time) => Value::Datetime(*time.value()),
        Edit::Array(items) => Value::Array(items.iter().map(plain_value).collect()),
        Edit::InlineTable(table) => plain_table(table),
    }
}

fn line(text: &str, byte: usize) -> usize {
    1 + text.as_bytes()[..byte.min(text.len())].iter().filter(|byte| **byte == b'\n').count()
}
