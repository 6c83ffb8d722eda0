//! The packages of a skill, locked and installed by `uv`.
//!
//! Both happen when a person installs a skill, and never later: what runs a tool imports from
//! the folder that is there. Where packages come from is the user's `uv` setting, and no skill's:
//! it runs in a folder of ours, where it finds no file of a skill's that could say otherwise.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use super::interpreter;
use crate::child::Group;
use crate::skill::environment::OWN;
use crate::skill::{Environments, Packages};

/// Time that one run may take.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// Bytes of what it says that are read.
const SAID: u64 = 64 << 10;
/// Variables that it is given. Keys of models are none of them.
const ENVIRONMENT: [&str; 8] = ["HOME", "PATH", "USER", "LANG", "TMPDIR", "NETRC", "TZ", "LD_LIBRARY_PATH"];
/// Beginnings of the names of others.
const BEGINNINGS: [&str; 4] = ["UV_", "SSL_CERT_", "XDG_", "LC_"];

/// Why packages could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no `uv`.
    #[error("packages are installed by `uv`, which is neither on PATH nor beside `{}`", .0.display())]
    Missing(PathBuf),
    /// The Python that is inside cannot be run by itself.
    #[error("the Python that omni was built with cannot be run: {0}")]
    Python(String),
    /// It said no.
    #[error("cannot {doing}: {said}")]
    Refused {
        /// The verb of what was attempted, and on what.
        doing: &'static str,
        /// Its words.
        said: String,
    },
    /// It did not come to an end.
    #[error("cannot {doing}: `uv` took longer than {} minutes and was stopped", PATIENCE.as_secs() / 60)]
    Elapsed {
        /// The verb of what was attempted, and on what.
        doing: &'static str,
    },
    /// The file system refused.
    #[error("cannot write into `{}`: {reason}", .folder.display())]
    File {
        /// Where.
        folder: PathBuf,
        /// Why not.
        reason: io::Error,
    },
}

/// The program, and the Python it works for.
#[derive(Debug)]
pub struct Uv {
    program: PathBuf,
    python: PathBuf,
    /// Whether it may run what packages bring to build themselves.
    builds: bool,
}

impl Uv {
    /// Finds it: on PATH, beside this program, beside its Python.
    ///
    /// Unless it `builds`, packages come as wheels only, and nothing of theirs is run.
    pub fn find(builds: bool) -> Result<Self, Error> {
        let python = interpreter::executable().map_err(Error::Python)?;
        if !python.is_file() {
            return Err(Error::Python(format!("`{}` is not there", python.display())));
        }
        let own = std::env::current_exe().unwrap_or_default();
        let beside = |file: &Path| file.parent().map(Path::to_owned);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).chain(beside(&own)).chain(beside(&python));
        match folders.map(|folder| folder.join("uv")).find(|file| file.is_file()) {
            Some(program) => Ok(Self { program, python, builds }),
            None => Err(Error::Missing(own)),
        }
    }

    /// Chooses versions for these packages and what they need, with the hashes of all their files.
    pub async fn lock(&self, environments: &Environments, packages: &Packages) -> Result<String, Error> {
        let home = environments.home();
        let told = |reason| Error::File { folder: home.to_owned(), reason };
        let folder = temporary(home).map_err(told)?;
        let requirements: String = packages
            .requirements
            .iter()
            .map(String::as_str)
            .chain(OWN)
            .map(|line| format!("{line}\n"))
            .collect();
        std::fs::write(folder.path().join("requirements.in"), requirements).map_err(told)?;
        let arguments = [
            "compile",
            "--generate-hashes",
            "--no-header",
            "--no-annotate",
            "--output-file=lock.txt",
            "requirements.in",
        ];
        self.run("lock the packages", folder.path(), &arguments.map(OsString::from)).await?;
        std::fs::read_to_string(folder.path().join("lock.txt")).map_err(told)
    }

    /// Installs what a lock names, and says where. All of it, or nothing: half an environment is
    /// never where one is looked for.
    pub async fn build(&self, environments: &Environments, lock: &str) -> Result<PathBuf, Error> {
        let environment = environments.folder(lock);
        if environment.is_dir() {
            return Ok(environment);
        }
        let home = environments.home();
        let told = |reason| Error::File { folder: home.to_owned(), reason };
        let folder = temporary(home).map_err(told)?;
        std::fs::write(folder.path().join("lock.txt"), lock).map_err(told)?;
        let arguments = [
            "install",
            "--target=packages",
            "--no-deps",
            "--require-hashes",
            // Nobody could write it later.
            "--compile-bytecode",
            "--requirement=lock.txt",
        ];
        self.run("install the packages", folder.path(), &arguments.map(OsString::from)).await?;
        match std::fs::rename(folder.path().join("packages"), &environment) {
            // Somebody else was faster.
            Err(_) if environment.is_dir() => Ok(environment),
            Err(reason) => Err(told(reason)),
            Ok(()) => Ok(environment),
        }
    }

    /// What one wheel brings, which `line` names with its hash, in a folder in `home`.
    pub async fn unpack(&self, home: &Path, line: &str) -> Result<TempDir, Error> {
        let told = |reason| Error::File { folder: home.to_owned(), reason };
        let folder = temporary(home).map_err(told)?;
        std::fs::write(folder.path().join("lock.txt"), line).map_err(told)?;
        let arguments =
            ["install", "--target=packages", "--no-deps", "--require-hashes", "--requirement=lock.txt"];
        self.run("get the package", folder.path(), &arguments.map(OsString::from)).await?;
        Ok(folder)
    }

    async fn run(&self, doing: &'static str, folder: &Path, arguments: &[OsString]) -> Result<(), Error> {
        let refused = |said: String| Error::Refused { doing, said };
        let mut command = Command::new(&self.program);
        command
            .args(["pip", "--quiet", "--no-progress", "--color=never", "--no-python-downloads"])
            .args(arguments);
        command.arg("--python").arg(&self.python);
        if !self.builds {
            command.arg("--only-binary=:all:");
        }
        command.current_dir(folder).env_clear().envs(std::env::vars_os().filter(|(name, _)| is_given(name)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child =
            Group::start(&mut command).map_err(|error| refused(format!("`uv` does not start: {error}")))?;
        let errors = child.stderr.take().expect("piped");
        let ended = async {
            let mut said = Vec::new();
            errors.take(SAID).read_to_end(&mut said).await?;
            Ok::<_, io::Error>((child.wait().await?, String::from_utf8_lossy(&said).trim().to_owned()))
        };
        let ended = tokio::time::timeout(PATIENCE, ended).await;
        match ended {
            Err(_) => Err(Error::Elapsed { doing }),
            Ok(Err(error)) => Err(refused(error.to_string())),
            Ok(Ok((status, _))) if status.success() => Ok(()),
            Ok(Ok((status, said))) if said.is_empty() => Err(refused(format!("`uv` ended with {status}"))),
            Ok(Ok((_, said))) => Err(refused(said)),
        }
    }
}

fn temporary(home: &Path) -> io::Result<TempDir> {
    std::fs::create_dir_all(home)?;
    tempfile::Builder::new().prefix(".new-").tempdir_in(home)
}

fn is_given(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let begins = BEGINNINGS.iter().any(|beginning| name.starts_with(beginning));
    begins || ENVIRONMENT.contains(&&*name) || name.to_lowercase().ends_with("_proxy")
}
