//! The real program in a world of its own: a home, a workspace, and next to no environment.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::mcp::python;

/// The program under test.
pub const OMNI: &str = env!("CARGO_BIN_EXE_omni");
/// No command here takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(90);

/// A home and a workspace. Skills of one's own go to [`World::skill`].
pub struct World {
    folder: TempDir,
}

/// A home whose index of the built-in skills is made already.
static WARM: LazyLock<World> = LazyLock::new(|| {
    let world = World::cold();
    world.omni(["sync"]).run().succeeded();
    world
});

impl World {
    /// A world where the built-in skills are known; the workspace is an empty folder.
    pub fn new() -> Self {
        let world = Self::cold();
        copy(&WARM.home().join("cache"), &world.home().join("cache"));
        // The index names the folders of skills.
        let index = world.home().join("cache/index.json");
        let text = std::fs::read_to_string(&index).expect("the warm world has one");
        let (warm, own) = (WARM.home().display().to_string(), world.home().display().to_string());
        std::fs::write(&index, text.replace(&warm, &own)).expect("a file of our own");
        world
    }

    /// A world where the program was never started.
    pub fn cold() -> Self {
        let folder = tempfile::Builder::new().prefix("omni-world-").tempdir().expect("a temporary folder");
        let world = Self { folder };
        std::fs::create_dir(world.home()).expect("a new folder");
        // Marked as a workspace, or a folder above might be taken for it.
        std::fs::create_dir_all(world.work().join(".omni")).expect("a new folder");
        world
    }

    /// A world whose workspace is a git repository with one file that is not in it.
    pub fn repository() -> Self {
        let world = Self::new();
        world.git(&["init", "--quiet", "--initial-branch=main"]);
        world.write("säule.txt", "stands\n");
        world.write(".git/info/exclude", ".omni\n");
        world
    }

    pub fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    pub fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    /// Runs git in the workspace.
    pub fn git(&self, arguments: &[&str]) {
        let status = Command::new("git").args(arguments).current_dir(self.work()).status().expect("git");
        assert!(status.success(), "git {arguments:?}");
    }

    /// Writes a file in the workspace.
    pub fn write(&self, file: &str, text: &str) -> PathBuf {
        write(&self.work().join(file), text)
    }

    /// Writes the user's settings.
    pub fn settings(&self, toml: &str) -> PathBuf {
        write(&self.home().join("config/config.toml"), toml)
    }

    /// Writes one of the user's own skills, with this one file of tools.
    pub fn skill(&self, name: &str, script: &str) -> PathBuf {
        let folder = self.home().join("config/skills").join(name);
        write(&folder.join("SKILL.md"), &card(name));
        write(&folder.join("scripts/tools.py"), script);
        folder
    }

    /// Writes a script for a model and returns the model's name.
    pub fn script(&self, name: &str, steps: &[Value]) -> String {
        let steps = serde_json::to_string(steps).expect("JSON");
        let file = write(&self.folder.path().join(format!("{name}.json")), &steps);
        format!("scripted:{}", file.display())
    }

    /// The program, in the workspace, with no model but `offline`.
    pub fn omni<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Run {
        self.under(&[], arguments)
    }

    /// The same, started by another program.
    pub fn under<A: AsRef<OsStr>>(&self, by: &[&str], arguments: impl IntoIterator<Item = A>) -> Run {
        let mut run = self.program(&[by, &[OMNI]].concat());
        run.command.args(arguments);
        run
    }

    /// Another program, in the same world.
    pub fn program(&self, words: &[&str]) -> Run {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).current_dir(self.work()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.folder.path()).env("OMNI_HOME", self.home());
        command.env("OMNI_MODEL__NAME", "offline").env("TZ", "UTC").env("LANG", "C.UTF-8");
        Run { command, input: None, talks: false, places: self.places() }
    }

    /// Somebody who holds the database, so that nothing can be written until what is returned is dropped.
    pub fn hold(&self) -> Started {
        let file = self.home().join("data/omni.db");
        assert!(file.is_file(), "{}", file.display());
        let hold = "import sqlite3, sys\nbase = sqlite3.connect(sys.argv[1], isolation_level=None)\n\
                    base.execute('BEGIN IMMEDIATE')\nprint('held', flush=True)\nsys.stdin.read()\n";
        let python = python();
        let words = [&*python, Path::new("-c"), Path::new(hold), &*file];
        let mut holder = self.program(&words.map(|word| word.to_str().expect("text"))).talking().start();
        holder.until("held");
        holder
    }

    /// Paths that differ from run to run, and what is written instead.
    fn places(&self) -> Vec<(String, &'static str)> {
        vec![
            (self.home().display().to_string(), "[home]"),
            (self.work().display().to_string(), "[work]"),
            (self.folder.path().display().to_string(), "[world]"),
        ]
    }
}

/// A `SKILL.md` that is fine.
pub fn card(name: &str) -> String {
    format!("---\nname: {name}\ndescription: The skill {name} of a test.\n---\n\n# {name}\n")
}

/// Writes a file and the folders above it.
pub fn write(file: &Path, text: &str) -> PathBuf {
    std::fs::create_dir_all(file.parent().expect("a file in a folder")).expect("a folder");
    std::fs::write(file, text).expect("a file");
    file.to_owned()
}

pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        match entry.file_type().expect("a type").is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).expect("a file")),
        }
    }
}

/// A command about to be run.
pub struct Run {
    command: Command,
    input: Option<Vec<u8>>,
    talks: bool,
    places: Vec<(String, &'static str)>,
}

impl Run {
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Without a variable that is set otherwise.
    pub fn without(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// With this model.
    pub fn model(self, name: &str) -> Self {
        self.env("OMNI_MODEL__NAME", name)
    }

    /// In another folder.
    pub fn within(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// With this on standard input, which is then closed; without it there is nothing.
    pub fn input(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.input = Some(text.into());
        self
    }

    /// With a standard input that is open for [`Started::say`].
    pub fn talking(mut self) -> Self {
        self.talks = true;
        self
    }

    /// Runs it to its end.
    pub fn run(self) -> Output {
        self.start().end()
    }

    /// Starts it.
    pub fn start(mut self) -> Started {
        let input = if self.input.is_some() || self.talks { Stdio::piped() } else { Stdio::null() };
        self.command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().expect("the program starts");
        let mut input = child.stdin.take();
        if let Some(text) = self.input {
            let mut pipe = input.take().expect("piped");
            // A program that does not read is allowed.
            std::thread::spawn(move || drop(pipe.write_all(&text)));
        }
        let (sender, lines) = mpsc::channel();
        let out = BufReader::new(child.stdout.take().expect("piped"));
        std::thread::spawn(move || {
            for line in out.split(b'\n').map_while(Result::ok) {
                let _ = sender.send(String::from_utf8_lossy(&line).into_owned() + "\n");
            }
        });
        let mut pipe = child.stderr.take().expect("piped");
        let err = std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = pipe.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        let deadline = Instant::now() + PATIENCE;
        Started { child, input, lines, out: String::new(), err: Some(err), places: self.places, deadline }
    }
}

/// A command that runs. Dropping it kills it.
pub struct Started {
    child: Child,
    input: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
    out: String,
    err: Option<JoinHandle<String>>,
    places: Vec<(String, &'static str)>,
    deadline: Instant,
}

impl Started {
    /// Waits for a line of its output that has this in it.
    pub fn until(&mut self, words: &str) -> String {
        while let Ok(line) = self.lines.recv_timeout(self.deadline - Instant::now()) {
            self.out.push_str(&line);
            if line.contains(words) {
                return line;
            }
        }
        let err = self.err.take().filter(|_| self.kill()).map(|err| err.join().expect("no panic"));
        panic!("`{words}` was never said, but:\n{}\n{}", self.out, err.unwrap_or_default());
    }

    /// Writes a line to its standard input.
    pub fn say(&mut self, line: &str) {
        let input = self.input.as_mut().expect("a command that is talked to");
        writeln!(input, "{line}").expect("it listens");
    }

    /// The id of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: libc::c_int) {
        let id = libc::pid_t::try_from(self.child.id()).expect("a process id");
        // SAFETY: plain system call; the child has not been waited for, so the id is its own.
        unsafe { libc::kill(id, signal) };
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) -> bool {
        self.child.kill().is_ok()
    }

    /// Waits for its end.
    pub fn end(mut self) -> Output {
        drop(self.input.take());
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                break status;
            }
            if Instant::now() > self.deadline {
                self.until("(the end)");
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        // What it started may live on with its output open; what it wrote itself is there.
        while let Ok(line) = self.lines.recv_timeout(Duration::from_secs(5)) {
            self.out.push_str(&line);
        }
        let err = self.err.take().expect("taken once").join().expect("no panic");
        let out = std::mem::take(&mut self.out);
        Output { status, out, err, places: std::mem::take(&mut self.places) }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.kill();
        let _ = self.child.wait();
    }
}

/// What a command came to.
#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub out: String,
    pub err: String,
    places: Vec<(String, &'static str)>,
}

impl Output {
    /// The exit code; -1 for a signal.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// Asserts exit code 0.
    #[track_caller]
    pub fn succeeded(self) -> Self {
        self.exited(0)
    }

    /// Asserts this exit code, and that nothing panicked.
    #[track_caller]
    pub fn exited(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "{self}");
        assert!(!self.err.contains("panicked"), "{self}");
        self
    }

    /// The lines of standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Vec<Value> {
        let line = |line: &str| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}\n{self}"))
        };
        self.out.lines().map(line).collect()
    }

    /// The last line of standard output as JSON.
    #[track_caller]
    pub fn last(&self) -> Value {
        self.json().pop().unwrap_or_else(|| panic!("nothing was said\n{self}"))
    }

    /// Everything a person saw, and the exit code, without what differs from run to run.
    pub fn told(&self) -> String {
        let told = self.to_string();
        self.places.iter().fold(told, |told, (path, name)| told.replace(path, name))
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (name, text) in [("stdout", &self.out), ("stderr", &self.err)] {
            if !text.is_empty() {
                writeln!(f, "{name}:\n{}", text.trim_end())?;
            }
        }
        write!(f, "exit: {}", self.code())
    }
}
