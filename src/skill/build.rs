//! Building extensions: a crate with cargo, a program with the command its author gives.
//!
//! Whatever is run here is somebody's code: who calls shows the [`Plan`] first.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use super::extension::{Extension, Runtime};
use super::manifest::Skill;
use crate::child::Group;

/// Time a build has.
const LIMIT: Duration = Duration::from_secs(30 * 60);
/// Bytes that are kept of what a build says, the last ones.
const SAID: usize = 16 << 10;
/// Time a build that was killed has to let go of its output.
const END: Duration = Duration::from_secs(1);
/// Builds of one extension that are kept: a program that runs, or another project, may use an
/// older one.
const KEPT: usize = 4;
/// Variables that a build sees; keys of models are not among them.
const ENVIRONMENT: [&str; 24] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "CC",
    "CARGO_HOME",
    "CARGO_BUILD_JOBS",
    "CARGO_NET_OFFLINE",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "LD_LIBRARY_PATH",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SDKROOT",
];

/// What will be run to build an extension.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The command, word by word; `{out}` is a folder for what it makes.
    pub command: Vec<String>,
    /// Where it is run.
    pub folder: PathBuf,
    /// Where the result belongs.
    pub place: PathBuf,
    /// What it is for, `SKILL/NAME`.
    pub title: String,
    artifact: String,
    /// The library that cargo makes, if it is cargo.
    library: Option<String>,
    fallback: Option<String>,
}

/// Why an extension is not built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such program.
    #[error("`{program}` is needed to build `{title}`, and is not on PATH: {hint}")]
    Missing {
        /// The program.
        program: String,
        /// For what.
        title: String,
        /// What to do.
        hint: String,
    },
    /// It ended badly.
    #[error("`{command}` did not build `{title}` ({status}); the last it said:\n{said}")]
    Failed {
        /// The command.
        command: String,
        /// For what.
        title: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of its output.
        said: String,
    },
    /// It never ended.
    #[error("`{command}` was stopped after {} s without having built `{title}`; the last it said:\n{said}", .limit.as_secs())]
    Elapsed {
        /// The command.
        command: String,
        /// For what.
        title: String,
        /// After so long.
        limit: Duration,
        /// The end of its output.
        said: String,
    },
    /// It ended well, and there is nothing.
    #[error("`{command}` ended well, but there is no `{file}`: {hint}")]
    Nothing {
        /// The command.
        command: String,
        /// What was looked for.
        file: String,
        /// What to do.
        hint: &'static str,
    },
    /// The file system refused.
    #[error("cannot build `{title}` in `{}`: {reason}", .folder.display())]
    File {
        /// For what.
        title: String,
        /// Where.
        folder: PathBuf,
        /// Why.
        reason: io::Error,
    },
}

impl Plan {
    /// How to build this extension of a skill, if it needs building.
    pub fn new(skill: &Skill, extension: &Extension, cache: &Path) -> Option<Self> {
        if !extension.needs_building() {
            return None;
        }
        let folder = skill.folder.join(extension.folder());
        let text = &extension.text;
        let is_rust = text.runtime == Runtime::Rust;
        let command = match is_rust {
            true => {
                // Locked: what is built is what its author has built, and nothing is written here.
                ["cargo", "build", "--release", "--lib", "--locked"].map(str::to_owned).to_vec()
            }
            false => text.build.clone(),
        };
        Some(Self {
            command,
            place: extension.place(cache, &skill.card.name),
            title: format!("{}/{}", skill.card.name, text.name),
            artifact: extension.artifact().to_owned(),
            library: is_rust.then(|| text.entry.clone()),
            fallback: text.fallback.clone(),
            folder,
        })
    }

    /// Runs it, for at most half an hour. Dropping the future ends it with everything it has
    /// started.
    pub async fn run(&self) -> Result<Built, Error> {
        self.run_for(LIMIT).await
    }

    /// The same with another limit.
    pub async fn run_for(&self, limit: Duration) -> Result<Built, Error> {
        let parent = self.place.parent().expect("a place is below the cache");
        std::fs::create_dir_all(parent).map_err(|reason| self.file(reason))?;
        let temp = tempfile::Builder::new().prefix(".new-").tempdir_in(parent);
        let temp = temp.map_err(|reason| self.file(reason))?;
        let out = temp.path().join("out");
        std::fs::create_dir(&out).map_err(|reason| self.file(reason))?;
        let target = temp.path().join("target");
        self.play(&out, &target, limit).await?;
        let file = out.join(&self.artifact);
        if let Some(library) = &self.library {
            let made = target.join("release").join(format!("lib{library}{}", std::env::consts::DLL_SUFFIX));
            if made.is_file() {
                std::fs::copy(&made, &file).map_err(|reason| self.file(reason))?;
            }
        }
        // What cargo leaves behind is a hundred times the library.
        match std::fs::remove_dir_all(&target) {
            Err(reason) if reason.kind() != io::ErrorKind::NotFound => return Err(self.file(reason)),
            _ => {}
        }
        if !file.is_file() {
            let (file, hint) = match &self.library {
                Some(library) => (
                    format!("lib{library}{}", std::env::consts::DLL_SUFFIX),
                    "in Cargo.toml, `crate-type` has to be [\"cdylib\"] and the library's name that of `entry`",
                ),
                None => (self.artifact.clone(), "the command has to write `{out}/ENTRY`"),
            };
            return Err(Error::Nothing { command: self.to_string(), file, hint });
        }
        Ok(Built { temp, place: self.place.clone(), title: self.title.clone() })
    }

    async fn play(&self, out: &Path, target: &Path, limit: Duration) -> Result<(), Error> {
        let out = out.to_string_lossy();
        let mut words = self.command.iter().map(|word| word.replace("{out}", &out));
        let program = words.next().unwrap_or_default();
        let mut command = Command::new(&program);
        command.args(words).current_dir(&self.folder).env_clear();
        command.envs(ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        // For `abi3`: nothing is asked of a Python, and nothing is linked to one.
        command.env("PYO3_NO_PYTHON", "1").env("PYO3_BUILD_EXTENSION_MODULE", "1");
        command.env("CARGO_TARGET_DIR", target).env("CARGO_TERM_COLOR", "never");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut group = Group::start(&mut command).map_err(|reason| match reason.kind() {
            io::ErrorKind::NotFound if self.folder.is_dir() => self.missing(program),
            _ => self.file(reason),
        })?;
        let (stdout, stderr) = (group.stdout.take(), group.stderr.take());
        let said = tokio::spawn(async move {
            let (mut out, mut err) = tokio::join!(tail(stdout), tail(stderr));
            // Compilers speak on the second; what little is on the first comes before.
            out.append(&mut err);
            let text = String::from_utf8_lossy(out.make_contiguous()).into_owned();
            // It goes to a terminal, and is for reading.
            let readable = |c: &char| !c.is_control() || matches!(c, '\n' | '\t');
            text.trim_end().chars().filter(readable).collect::<String>()
        });
        let ended = tokio::time::timeout(limit, group.wait()).await;
        drop(group);
        let said = tokio::time::timeout(END, said).await.ok().and_then(Result::ok).unwrap_or_default();
        match ended {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => {
                Err(Error::Failed { command: self.to_string(), title: self.title.clone(), status, said })
            }
            Ok(Err(reason)) => Err(self.file(reason)),
            Err(_) => {
                Err(Error::Elapsed { command: self.to_string(), title: self.title.clone(), limit, said })
            }
        }
    }

    fn missing(&self, program: String) -> Error {
        let mut hint = match self.library {
            Some(_) => "install Rust from https://rustup.rs".to_owned(),
            None => "install it".to_owned(),
        };
        if let Some(fallback) = &self.fallback {
            hint.push_str(&format!(", or do without: `{fallback}` serves meanwhile"));
        }
        Error::Missing { program, title: self.title.clone(), hint }
    }

    fn file(&self, reason: io::Error) -> Error {
        Error::File { title: self.title.clone(), folder: self.folder.clone(), reason }
    }
}

/// The command as one would type it.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./={},:+@".contains(c);
        let shown = |c: char| c.is_ascii_graphic() || c == ' ';
        for (number, word) in self.command.iter().enumerate() {
            let space = if number > 0 { " " } else { "" };
            if !word.is_empty() && word.chars().all(plain) {
                write!(f, "{space}{word}")?;
            } else if word.chars().all(shown) {
                write!(f, "{space}'{}'", word.replace('\'', r"'\''"))?;
            } else {
                // Whoever is asked sees what there is: no sign may hide another one.
                write!(f, "{space}{word:?}")?;
            }
        }
        Ok(())
    }
}

/// What was built, not yet in its place. Dropped, it is gone.
#[derive(Debug)]
pub struct Built {
    temp: TempDir,
    place: PathBuf,
    title: String,
}

impl Built {
    /// Where it is for now.
    pub fn folder(&self) -> PathBuf {
        self.temp.path().join("out")
    }

    /// Puts it into its place, in one step, and returns that.
    pub fn keep(self) -> Result<PathBuf, Error> {
        let told = |reason| Error::File { title: self.title.clone(), folder: self.place.clone(), reason };
        if self.place.is_dir() {
            // A process that has loaded what is there keeps it.
            std::fs::rename(&self.place, self.temp.path().join("old")).map_err(told)?;
        }
        std::fs::rename(self.folder(), &self.place).map_err(told)?;
        prune(&self.place);
        Ok(self.place)
    }
}

/// Removes the oldest builds. One that stays takes up space and does no harm.
fn prune(place: &Path) {
    let Some(entries) = place.parent().and_then(|parent| std::fs::read_dir(parent).ok()) else { return };
    let mut builds: Vec<_> = entries
        .flatten()
        .filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .filter(|(_, path)| path != place)
        .collect();
    builds.sort();
    let surplus = (builds.len() + 1).saturating_sub(KEPT);
    for (_, path) in builds.into_iter().take(surplus) {
        let _ = std::fs::remove_dir_all(path);
    }
}

/// The last of what a stream says.
async fn tail(stream: Option<impl AsyncRead + Unpin>) -> VecDeque<u8> {
    let mut said = VecDeque::new();
    let Some(mut stream) = stream else { return said };
    let mut buffer = vec![0; 8 << 10];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        said.extend(&buffer[..count]);
        said.drain(..said.len().saturating_sub(SAID));
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_it_is() {
        let command = ["cc", "-o", "{out}/a b", "it's", "", "a\u{1b}[2K", "\u{202e}x"].map(str::to_owned);
        let plan = Plan {
            command: command.to_vec(),
            folder: PathBuf::new(),
            place: PathBuf::new(),
            title: String::new(),
            artifact: String::new(),
            library: None,
            fallback: None,
        };
        let shown = r#"cc -o '{out}/a b' 'it'\''s' '' "a\u{1b}[2K" "\u{202e}x""#;
        assert_eq!(plan.to_string(), shown);
    }
}
