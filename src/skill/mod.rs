//! What a skill folder says: which skills there are, what they are for, which tools they have.
//!
//! [`Catalog`] finds the folders, [`manifest`] reads a `SKILL.md`, [`extension`] an `extension.toml`, [`Index`] remembers what
//! Python said of the scripts so that it need not be started to list tools. Describing a
//! script, which means importing it, is somebody else's work and comes in as an argument.

pub mod build;
pub mod builtin;
pub mod environment;
pub mod extension;
pub mod fetch;
pub(crate) mod files;
pub mod index;
pub mod install;
mod isolation;
pub mod manifest;
mod new;
pub mod packages;
pub mod sniff;
mod trust;
pub mod watch;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::config;

pub use environment::{Environments, Python};
pub use extension::{Behind, Engine, Engines, Extension, Runtime};
pub use index::{Description, Index, Request};
pub use isolation::{Isolation, Level as Where};
pub use manifest::{Annotations, Card, Level, Manifest, Problem, Skill, Source, Sources, Spec, ToolEntry};
pub use new::create;
pub use packages::Packages;

use trust::{Standing, Trust};

/// The skills that were found, before any of them is read.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// Those that may be used, by name.
    pub skills: Vec<Found>,
    /// Skills of the project that nobody has vouched for. Nothing in them is imported or
    /// shown to a model, and they replace none.
    pub untrusted: Vec<Found>,
    /// What could not be looked at, or has to be decided by a person.
    pub problems: Vec<Problem>,
    trust: PathBuf,
}

/// A folder with a `SKILL.md`.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The name of the folder, which has to be the skill's.
    pub name: String,
    /// Where it is. Always UTF-8.
    pub folder: PathBuf,
    /// Where it comes from.
    pub source: Source,
    /// Sources whose skill of this name it replaces.
    pub shadows: Vec<Source>,
}

/// Why something could not be done with a skill.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name breaks the rules.
    #[error("cannot make the skill: {0}")]
    Name(String),
    /// There is something already.
    #[error("cannot make the skill `{name}`: `{}` exists; choose another name", .folder.display())]
    Exists {
        /// The skill.
        name: String,
        /// The folder that is in the way.
        folder: PathBuf,
    },
    /// Nobody has brought such a skill.
    #[error("no skill of yours or of the project is called `{0}`; `omni skill list` shows those there are")]
    Unknown(String),
    /// What is offered is no skill that can be taken.
    #[error("cannot take a skill from `{origin}`: {reason}")]
    Fetch {
        /// From where.
        origin: String,
        /// Why not.
        reason: String,
    },
    /// A skill is not in the user's own folder.
    #[error("the skill `{name}` was not put there by `omni skill install`: remove `{}` yourself", .folder.display())]
    Foreign {
        /// The skill.
        name: String,
        /// Where it is.
        folder: PathBuf,
    },
    /// A skill cannot be vouched for because not all of it can be seen.
    #[error("cannot trust the skill `{name}`: `{path}` {reason}")]
    Opaque {
        /// The skill.
        name: String,
        /// What cannot be seen.
        path: String,
        /// Why.
        reason: String,
    },
    /// The file system refused.
    #[error("cannot {doing} `{}`: {reason}{hint}", .path.display(), hint = hint(.reason))]
    File {
        /// The verb of what was attempted.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        reason: io::Error,
    },
}

fn hint(reason: &io::Error) -> &'static str {
    match reason.kind() {
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            "; make the folder writable or set `OMNI_HOME` to one that is"
        }
        _ => "",
    }
}

/// Names the file and what was attempted in an error of the file system.
fn at<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + 'a {
    move |reason| Error::File { doing, path: path.to_owned(), reason }
}

impl Catalog {
    /// Finds the skills of all sources. A later source wins: built-in, the user's, the folders
    /// of the settings, the project's, `extra`. Each folder is a folder of skills or one skill.
    ///
    /// Skills of the project are used only once [trusted](Self::trust): importing their Python
    /// because somebody entered a folder would let any repository run code. All other folders
    /// are the user's own act, so `settings.folders` must not come from a file in the project.
    pub fn find(paths: &config::Paths, settings: &config::Skills, extra: &[PathBuf]) -> Self {
        let (trust, problem) = Trust::load(&paths.data);
        let mut search = Search { disabled: &settings.disabled, trust: Some(&trust), ..Search::default() };
        search.problems.extend(problem);
        match builtin::unpack(&builtin::SKILLS, &paths.cache) {
            Ok(Some(folder)) => search.source(&folder, Source::Builtin),
            Ok(None) => {}
            Err(error) => {
                let message = format!("the built-in skills are missing: {error}");
                search.problems.push(Problem::error(paths.cache.to_string_lossy(), None, message));
            }
        }
        for (folder, source) in sources(paths, settings, extra) {
            match source {
                Source::User | Source::Project => search.optional(&folder, source),
                _ => search.source(&folder, source),
            }
        }
        let skills = search.skills.into_values().collect();
        let untrusted = search.untrusted.into_values().collect();
        Self { skills, untrusted, problems: search.problems, trust: paths.data.clone() }
    }

    /// Vouches for a skill as it is now: once a file of it changes, it is asked for again. Takes
    /// effect with the next [`Catalog::find`].
    pub fn trust(&self, name: &str) -> Result<(), Error> {
        Trust::add(&self.trust, self.brought(name)?)
    }

    /// Whether somebody has vouched for the skill as it is now. Reads all of its files.
    pub fn trusts(&self, name: &str) -> bool {
        let standing = |found: &Found| Trust::load(&self.trust).0.standing(found);
        self.brought(name).is_ok_and(|found| matches!(standing(found), Standing::Trusted))
    }

    /// Takes that back.
    pub fn distrust(&self, name: &str) -> Result<(), Error> {
        Trust::remove(&self.trust, self.brought(name)?)
    }

    /// Whether the user does not vouch for this skill of the project any more, in any version.
    pub fn is_withdrawn(&self, folder: &Path) -> bool {
        let (trust, _) = Trust::load(&self.trust);
        let mut untrusted = self.untrusted.iter();
        untrusted.any(|found| found.folder == folder && matches!(trust.standing(found), Standing::Unknown))
    }

    /// A skill that is not our own.
    fn brought(&self, name: &str) -> Result<&Found, Error> {
        let mut all = self.untrusted.iter().chain(&self.skills);
        let found = all.find(|found| found.name == name && found.source != Source::Builtin);
        found.ok_or_else(|| Error::Unknown(name.to_owned()))
    }
}

/// The folders with skills that people write, later ones win.
fn sources(paths: &config::Paths, settings: &config::Skills, extra: &[PathBuf]) -> Vec<(PathBuf, Source)> {
    let mut sources = vec![(paths.config.join("skills"), Source::User)];
    sources.extend(settings.folders.iter().map(|folder| (folder.clone(), Source::Configured)));
    sources.push((paths.project().join("skills"), Source::Project));
    sources.extend(extra.iter().map(|folder| (folder.clone(), Source::Given)));
    sources
}

/// Where a change can make [`Catalog::find`] find something else, or what is found work: those
/// folders, the file that says which skills are trusted, the locks of packages.
pub fn places(paths: &config::Paths, settings: &config::Skills, extra: &[PathBuf]) -> Vec<PathBuf> {
    let folders = sources(paths, settings, extra).into_iter().map(|(folder, _)| folder);
    folders.chain([paths.data.join(trust::FILE), environment::locks(paths)]).collect()
}

#[derive(Default)]
struct Search<'a> {
    disabled: &'a [String],
    trust: Option<&'a Trust>,
    skills: BTreeMap<String, Found>,
    untrusted: BTreeMap<String, Found>,
    problems: Vec<Problem>,
}

impl Search<'_> {
    fn optional(&mut self, folder: &Path, source: Source) {
        // Anything but absence is reported by the attempt to read it.
        if !matches!(folder.symlink_metadata(), Err(error) if error.kind() == io::ErrorKind::NotFound) {
            self.source(folder, source);
        }
    }

    fn source(&mut self, folder: &Path, source: Source) {
        // `.` and `..` have no name of their own.
        let named = folder.file_name().is_some();
        let folder = if named { std::path::absolute(folder) } else { folder.canonicalize() };
        let folder = match folder {
            Ok(folder) => folder,
            Err(error) => return self.unreadable(Path::new("."), &error),
        };
        if folder.join(manifest::FILE).is_file() {
            return self.skill(folder, source);
        }
        let children: io::Result<Vec<_>> = std::fs::read_dir(&folder).and_then(Iterator::collect);
        let mut children = match children {
            Ok(children) => children,
            Err(error) => return self.unreadable(&folder, &error),
        };
        children.sort_by_key(std::fs::DirEntry::file_name);
        for child in children {
            self.child(&child, source);
        }
    }

    fn child(&mut self, child: &std::fs::DirEntry, source: Source) {
        let name = child.file_name();
        if name.as_encoded_bytes().starts_with(b".") || name.as_encoded_bytes().starts_with(b"_") {
            return;
        }
        let path = child.path();
        let is_folder = match child.file_type() {
            Ok(kind) if kind.is_symlink() => path.is_dir(),
            Ok(kind) => kind.is_dir(),
            Err(error) => return self.unreadable(&path, &error),
        };
        if !is_folder {
            return;
        }
        match std::fs::metadata(path.join(manifest::FILE)) {
            Ok(meta) if meta.is_file() => self.skill(path, source),
            Err(error) if error.kind() != io::ErrorKind::NotFound => self.unreadable(&path, &error),
            _ => {
                let message = format!("has no `{}`: not a skill", manifest::FILE);
                self.problems.push(Problem::warning(path.to_string_lossy(), None, message));
            }
        }
    }

    fn skill(&mut self, folder: PathBuf, source: Source) {
        let (Some(name), true) =
            (folder.file_name().and_then(|name| name.to_str()), folder.to_str().is_some())
        else {
            let message = "the path is not UTF-8: rename the folder";
            return self.problems.push(Problem::error(folder.to_string_lossy(), None, message));
        };
        let name = name.to_owned();
        if self.disabled.contains(&name) {
            return;
        }
        let mut found = Found { name: name.clone(), folder, source, shadows: Vec::new() };
        if source == Source::Project && !self.vouched(&found) {
            self.untrusted.insert(name, found);
            return;
        }
        if let Some(earlier) = self.skills.remove(&name) {
            found.shadows = earlier.shadows;
            if earlier.folder != found.folder {
                found.shadows.push(earlier.source);
            }
        }
        self.skills.insert(name, found);
    }

    fn vouched(&mut self, found: &Found) -> bool {
        let standing = self.trust.map_or(Standing::Unknown, |trust| trust.standing(found));
        let reason = match standing {
            Standing::Trusted => return true,
            Standing::Unknown => "not trusted",
            Standing::Changed => "changed since it was trusted",
        };
        let message = format!("{reason}: look at what it does, then run `omni skill trust {}`", found.name);
        self.problems.push(Problem::warning(found.folder.to_string_lossy(), None, message));
        false
    }

    fn unreadable(&mut self, path: &Path, error: &io::Error) {
        let message = format!("cannot look for skills: {error}");
        self.problems.push(Problem::error(path.to_string_lossy(), None, message));
    }
}
