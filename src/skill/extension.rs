//! What a skill's scripts use that is no script: `extensions/NAME/` with an `extension.toml`.
//!
//! Here is read what such a file says, and what stands behind the name: Python, a library or a
//! program that was built, or the Python that does without it. [`Plan`](super::build::Plan)
//! builds; `omni.extensions` loads.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::files::{self, Stamp, hex};
use super::manifest::{Problem, check_name};

/// The file every extension has.
pub const FILE: &str = "extension.toml";
/// The folder of a skill that has them.
pub(super) const FOLDER: &str = "extensions";
/// What a built library is called; the twin of `omni.extensions.LIBRARY`.
pub const LIBRARY: &str = "extension.so";
/// Bytes an `extension.toml` may have.
const MAX_BYTES: u64 = 64 << 10;
/// Systems that `platforms` may name, by themselves or with a hyphen and a processor.
const SYSTEMS: [&str; 2] = ["linux", "macos"];
const PROCESSORS: [&str; 2] = ["x86_64", "aarch64"];

/// What an extension is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// A module that is imported as it is.
    Python,
    /// A PyO3 crate; its library is imported.
    Rust,
    /// A program in any language; its functions are called line by line.
    Executable,
}

/// An extension of a skill.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Extension {
    /// What its `extension.toml` says.
    #[serde(flatten)]
    pub text: Text,
    /// SHA-256 of its files, and of what else decides what comes of building them.
    pub digest: String,
    /// The folder with what was built of it. Looked up each time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub built: Option<PathBuf>,
}

/// The keys of an `extension.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// The name of its folder.
    pub name: String,
    /// What it is written in.
    pub runtime: Runtime,
    /// The Python file, the library's name in `Cargo.toml`, or the program.
    pub entry: String,
    /// The Python that serves where the library of a Rust extension cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    /// The command that makes an executable, word by word; `{out}` is where to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub build: Vec<String>,
    /// The functions it has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub provides: Vec<String>,
    /// The oldest omni it works with: `0.1` or `0.1.2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub omni: Option<String>,
    /// The systems it works on; on all if none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<String>,
}

/// Extensions as whoever loads them has to know them, by name.
pub type Engines = BTreeMap<String, Behind>;

/// What is behind the name of an extension.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Behind {
    /// The folder with its library or program.
    pub built: Option<PathBuf>,
    /// Why it is not for this omni or this machine.
    pub refused: Option<String>,
}

/// What serves where an extension is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Engine {
    /// A Python module.
    Python,
    /// The library of a Rust extension.
    Rust,
    /// A program.
    Program,
    /// Python instead of a library, and why.
    Fallback(String),
    /// Nothing, and why.
    Nothing(String),
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Python => f.write_str("python"),
            Self::Rust => f.write_str("rust"),
            Self::Program => f.write_str("program"),
            Self::Fallback(reason) => write!(f, "python fallback, because {reason}"),
            Self::Nothing(reason) => write!(f, "nothing, because {reason}"),
        }
    }
}

impl Extension {
    /// What serves at the moment, as far as that can be told without loading it.
    pub fn engine(&self) -> Engine {
        let Text { runtime, fallback, .. } = &self.text;
        let missing = || {
            let missing = self.needs_building() && self.built.is_none();
            missing.then(|| "it is not built; `omni skill build` does that".to_owned())
        };
        match (self.refusal().or_else(missing), runtime) {
            (None, Runtime::Python) => Engine::Python,
            (None, Runtime::Rust) => Engine::Rust,
            (None, Runtime::Executable) => Engine::Program,
            (Some(reason), _) if fallback.is_some() => Engine::Fallback(reason),
            (Some(reason), _) => Engine::Nothing(reason),
        }
    }

    /// Whether it is of no use before it is built.
    pub fn needs_building(&self) -> bool {
        self.text.runtime == Runtime::Rust || !self.text.build.is_empty()
    }

    /// What whoever loads it has to know.
    pub fn behind(&self) -> Behind {
        Behind { built: self.built.clone(), refused: self.refusal() }
    }

    /// Why it is not for this omni or this machine, if that is so.
    pub fn refusal(&self) -> Option<String> {
        let Text { omni, platforms, .. } = &self.text;
        let own = env!("CARGO_PKG_VERSION");
        if let Some(least) = omni.as_deref().filter(|least| version(own) < version(least)) {
            return Some(format!("it needs omni {least} or newer, and this is {own}"));
        }
        let (system, processor) = (std::env::consts::OS, std::env::consts::ARCH);
        let here = |platform: &String| *platform == system || *platform == format!("{system}-{processor}");
        if !platforms.is_empty() && !platforms.iter().any(here) {
            return Some(format!("it is for {}, and this is {system}-{processor}", platforms.join(", ")));
        }
        None
    }

    /// The folder that what is built of it belongs to. Named after its source, so that nothing
    /// built is older than that.
    pub fn place(&self, cache: &Path, skill: &str) -> PathBuf {
        cache.join(FOLDER).join(skill).join(&self.text.name).join(&self.digest[..16])
    }

    /// Looks whether it is built.
    pub(super) fn look(&mut self, cache: &Path, skill: &str) {
        let place = self.place(cache, skill);
        self.built = place.join(self.artifact()).is_file().then_some(place);
    }

    /// The file that building it has to leave.
    pub fn artifact(&self) -> &str {
        match self.text.runtime {
            Runtime::Rust => LIBRARY,
            Runtime::Python | Runtime::Executable => &self.text.entry,
        }
    }

    /// Where its folder is in that of its skill.
    pub fn folder(&self) -> PathBuf {
        Path::new(FOLDER).join(&self.text.name)
    }

    /// Where its `extension.toml` is in the folder of its skill.
    pub fn file(&self) -> String {
        format!("{FOLDER}/{}/{FILE}", self.text.name)
    }
}

/// The extensions of a skill with these files, and what is wrong with others.
pub(super) fn find(root: &Path, stamps: &[Stamp]) -> (Vec<Extension>, Vec<Problem>) {
    let (mut extensions, mut problems) = (Vec::new(), Vec::new());
    for stamp in stamps {
        let folder = stamp.name().strip_prefix("extensions/").and_then(|name| name.strip_suffix(FILE));
        let Some(name) = folder.and_then(|folder| folder.strip_suffix('/')) else { continue };
        if name.contains('/') {
            continue;
        }
        match read(root, stamp, name) {
            Ok(text) => {
                let digest = digest(root, stamps, name);
                extensions.push(Extension { text, digest, built: None });
            }
            Err(problem) => problems.push(problem),
        }
    }
    (extensions, problems)
}

fn read(root: &Path, stamp: &Stamp, name: &str) -> Result<Text, Problem> {
    let wrong = |line, message: String| Problem::error(stamp.name(), line, message);
    if stamp.size() > MAX_BYTES {
        let message = format!("has {} bytes; {MAX_BYTES} is the limit", stamp.size());
        return Err(wrong(None, message));
    }
    let bytes = files::read(root, stamp).map_err(|error| wrong(None, format!("cannot be read: {error}")))?;
    let source = String::from_utf8(bytes).map_err(|_| wrong(None, "is not UTF-8 text".to_owned()))?;
    let text: Text = toml::from_str(&source).map_err(|error| {
        let line = error.span().map(|span| source[..span.start.min(source.len())].matches('\n').count());
        wrong(line.map(|line| line as u32 + 1), error.message().to_owned())
    })?;
    text.check(name).map_err(|(key, message)| {
        let line = source.lines().position(|line| line.trim_start().trim_start_matches('"').starts_with(key));
        wrong(line.map(|line| line as u32 + 1), message)
    })?;
    Ok(text)
}

impl Text {
    /// The key that is wrong, and what is wrong with it.
    fn check(&self, folder: &str) -> Result<(), (&'static str, String)> {
        let Self { name, runtime, entry, fallback, build, provides, omni, platforms } = self;
        check_name(name).map_err(|reason| ("name", reason))?;
        if name != folder {
            let message = format!("`name` is `{name}` but the folder is `{folder}`: rename one of them");
            return Err(("name", message));
        }
        let is_word = |text: &str| {
            !text.starts_with(|c: char| c.is_ascii_digit())
                && !text.is_empty()
                && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        let is_inside = |text: &str| {
            let mut parts = Path::new(text).components();
            !text.is_empty() && parts.all(|part| matches!(part, std::path::Component::Normal(_)))
        };
        match runtime {
            Runtime::Python if !is_inside(entry) || !entry.ends_with(".py") => {
                return Err(("entry", format!("`entry` is a Python file of the extension, not `{entry}`")));
            }
            Runtime::Rust if !is_word(entry) => {
                return Err(("entry", format!("`entry` is the name of the library, not `{entry}`")));
            }
            Runtime::Executable if !is_inside(entry) => {
                return Err(("entry", format!("`entry` is a program of the extension, not `{entry}`")));
            }
            _ => {}
        }
        if let Some(file) = fallback {
            if *runtime != Runtime::Rust {
                return Err(("fallback", "`fallback` is for `runtime = \"rust\"`".to_owned()));
            }
            if !is_inside(file) || !file.ends_with(".py") {
                let message = format!("`fallback` is a Python file of the extension, not `{file}`");
                return Err(("fallback", message));
            }
        }
        if !build.is_empty() && *runtime != Runtime::Executable {
            let message = "`build` is for `runtime = \"executable\"`; cargo builds what is in Rust";
            return Err(("build", message.to_owned()));
        }
        if let Some(word) = provides.iter().find(|word| !is_word(word)) {
            return Err(("provides", format!("`{word}` in `provides` is no name of a function")));
        }
        let taken = |word: &&String| {
            *runtime == Runtime::Executable && ["setup", "teardown"].contains(&word.as_str())
        };
        if let Some(word) = provides.iter().find(taken) {
            return Err((
                "provides",
                format!("a program is not told of `{word}`: it starts, and its input ends"),
            ));
        }
        if provides.is_empty() && *runtime == Runtime::Executable {
            return Err(("runtime", "an executable says in `provides` which functions it has".to_owned()));
        }
        if let Some(least) = omni.as_deref().filter(|least| version(least).is_none()) {
            return Err(("omni", format!("`omni` is a version, `0.1` or `0.1.2`, not `{least}`")));
        }
        let is_known = |platform: &&String| {
            let (system, processor) = platform.split_once('-').unwrap_or((platform, PROCESSORS[0]));
            SYSTEMS.contains(&system) && PROCESSORS.contains(&processor)
        };
        if let Some(platform) = platforms.iter().find(|platform| !is_known(platform)) {
            let message = format!(
                "there is no platform `{platform}`: `linux` or `macos`, perhaps with `-x86_64` or `-aarch64`"
            );
            return Err(("platforms", message));
        }
        Ok(())
    }
}

/// The numbers of a version.
fn version(text: &str) -> Option<[u32; 3]> {
    let mut numbers = [0; 3];
    let parts: Vec<&str> = text.split('.').collect();
    if !(1..=3).contains(&parts.len()) {
        return None;
    }
    for (number, part) in numbers.iter_mut().zip(parts) {
        *number = part.parse().ok()?;
    }
    Some(numbers)
}

fn digest(root: &Path, stamps: &[Stamp], name: &str) -> String {
    let folder = format!("{FOLDER}/{name}/");
    let own: Vec<Stamp> = stamps.iter().filter(|stamp| stamp.name().starts_with(&folder)).cloned().collect();
    let mut hash = Sha256::new();
    // What cannot be read counts as such, and is reported where the whole skill is hashed.
    hash.update(files::digest(root, &own, &mut Vec::new()));
    hash.update(format!("abi3 {} {}", std::env::consts::OS, std::env::consts::ARCH));
    hex(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extension(text: &str) -> Extension {
        let text: Text = toml::from_str(text).unwrap();
        text.check(&text.name).unwrap();
        Extension { text, digest: String::new(), built: None }
    }

    #[test]
    fn versions_and_platforms() {
        let base = "name = 'a'\nruntime = 'rust'\nentry = 'a'\n";
        assert_eq!(extension(base).refusal(), None);
        assert_eq!(extension(&format!("{base}omni = '0.0.9'")).refusal(), None);
        assert_eq!(extension(&format!("{base}omni = '{}'", env!("CARGO_PKG_VERSION"))).refusal(), None);
        let newer = extension(&format!("{base}omni = '999.1'"));
        assert!(newer.refusal().unwrap().starts_with("it needs omni 999.1 or newer, and this is "));
        let here = format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH);
        assert_eq!(extension(&format!("{base}platforms = ['{here}']")).refusal(), None);
        let there = extension(&format!("{base}platforms = ['macos']"));
        assert_eq!(there.refusal(), Some(format!("it is for macos, and this is {here}")));
        assert_eq!(there.engine(), Engine::Nothing(there.refusal().unwrap()));
    }

    #[test]
    fn what_serves() {
        let rust = "name = 'a'\nruntime = 'rust'\nentry = 'a'\nfallback = 'a.py'";
        let mut rust = extension(rust);
        let Engine::Fallback(reason) = rust.engine() else { panic!("{:?}", rust.engine()) };
        assert!(reason.contains("omni skill build"), "{reason}");
        rust.built = Some(PathBuf::from("/somewhere"));
        assert_eq!(rust.engine(), Engine::Rust);
        let script = "name = 'a'\nruntime = 'executable'\nentry = 'a.sh'\nprovides = ['b']";
        assert_eq!(extension(script).engine(), Engine::Program);
        let made = extension(&format!("{script}\nbuild = ['cc']"));
        assert!(matches!(made.engine(), Engine::Nothing(_)));
    }
}
