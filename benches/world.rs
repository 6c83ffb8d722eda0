//! Where the benchmarks happen: a home of their own, on the disk of the build.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// A home folder, and what is run in it.
pub struct World {
    /// The package.
    pub root: PathBuf,
    /// The Python that has the peers.
    pub python: PathBuf,
    /// The folder with peers that are too many for it, if there is one.
    peers: Option<PathBuf>,
    /// What is installed from npm.
    node: PathBuf,
    temp: TempDir,
}

impl World {
    /// Makes the folder and enters it. Nothing that the caller has set for omni gets in.
    pub fn new() -> Result<Self> {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let python = std::env::var_os("OMNI_TEST_PYTHON")
            .context("OMNI_TEST_PYTHON has to name a Python that has `mcp`; `make bench` sets it")?;
        let python = std::path::absolute(PathBuf::from(python))?;
        let node = std::env::var_os("OMNI_TEST_NODE").map_or_else(|| root.join(".node"), PathBuf::from);
        let node = std::path::absolute(node)?.join("node_modules");
        let peers = std::env::var_os("OMNI_TEST_PEERS").map(std::path::absolute).transpose()?;
        // Not the system's folder for temporary files, which may be memory.
        let temp = TempDir::new_in(env!("CARGO_TARGET_TMPDIR"))?;
        let foreign = std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("OMNI_"));
        let foreign = foreign.filter(|(name, _)| !name.to_string_lossy().starts_with("OMNI_BENCH_"));
        for (name, _) in foreign {
            // SAFETY: there is no other thread yet.
            unsafe { std::env::remove_var(name) };
        }
        let world = Self { root, python, peers, node, temp };
        // SAFETY: as above.
        unsafe { std::env::set_var("OMNI_HOME", world.path("home")) };
        std::fs::create_dir(world.path("work"))?;
        std::env::set_current_dir(world.path("work"))?;
        Ok(world)
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// Where the peers are that have an environment of their own.
    pub fn peers(&self) -> Result<PathBuf> {
        let peers = self.peers.as_ref();
        peers.cloned().context("OMNI_TEST_PEERS has to name the folder of the peers; `make bench` sets it")
    }

    /// The program, as it is released.
    pub fn omni(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_omni"));
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// A file of a package from npm.
    pub fn package(&self, file: &str) -> Result<PathBuf> {
        let file = self.node.join(file);
        ensure!(file.exists(), "{} is not there; `make bench` installs it", file.display());
        Ok(file)
    }

    /// One of the peers.
    pub fn peer(&self, file: &str) -> Command {
        self.run(&self.python, file)
    }

    /// One of the peers that are stores, in the Python that has them.
    pub fn store(&self, file: &str) -> Command {
        let python = self.peers.as_ref().map(|peers| peers.join("stores/bin/python"));
        self.run(python.as_ref().filter(|python| python.is_file()).unwrap_or(&self.python), file)
    }

    fn run(&self, python: &Path, file: &str) -> Command {
        let mut command = Command::new(python);
        command.arg(self.root.join("benches/peers").join(file));
        // However we end, no server stays behind.
        // SAFETY: one async-signal-safe system call between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        command
    }
}

/// Runs a command to its end, which has to be a good one, and returns the time it took.
pub fn time(command: &mut Command) -> Result<Duration> {
    let began = Instant::now();
    let output = command.output()?;
    let took = began.elapsed();
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed: {said}");
    Ok(took)
}

/// Writes a file and the folders above it.
pub fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::create_dir_all(path.parent().context("a file is in a folder")?)?;
    Ok(std::fs::write(path, text)?)
}
