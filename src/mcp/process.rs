//! A server that is a child process, with all that it starts.
//!
//! It has a process group of its own, which is ended as a whole: wrappers like `npx` hand on
//! neither signals nor the end of their input. What a killed omni has left behind is known by a
//! variable in its environment and ended at the next start.

use std::collections::VecDeque;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{ChildStdin, ChildStdout, Command};

use super::config::Program;
use crate::child::Group;
use crate::store::lease::Owner;

/// How long a server has to end by itself when its input has, and then after a SIGTERM.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Lines of its standard error that are kept, and bytes of one.
const LINES: usize = 50;
const LINE: usize = 400;
/// Names whose process started a server.
const OWNER: &str = "OMNI_MCP_OWNER";

/// Variables that every server gets.
const COMMON: [&str; 26] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "LC_CTYPE",
    "TERM",
    "TMPDIR",
    "TZ",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
    "XDG_STATE_HOME",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NODE_EXTRA_CA_CERTS",
];

/// A running server. Dropping it kills it.
pub(super) struct Process {
    group: Group,
    /// What it has said on standard error.
    pub(super) last: Tail,
}

impl Process {
    /// Starts it. The streams are its standard input and output.
    pub(super) fn start(program: &Program) -> Result<(Self, ChildStdin, ChildStdout), String> {
        let mut command = Command::new(&program.command);
        if !program.inherits {
            command.env_clear();
            command.envs(COMMON.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        }
        command.args(&program.arguments).envs(&program.environment).current_dir(&program.folder);
        command.env(OWNER, Owner::new().as_str());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // The thread is one of the runtime's.
        let mut group = Group::start(&mut command).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound if !program.folder.is_dir() => {
                format!("there is no folder `{}` to run it in", program.folder.display())
            }
            io::ErrorKind::NotFound => {
                format!("there is no program `{}`; install it, or write its whole path", program.command)
            }
            _ => format!("`{}` cannot be started: {error}", program.command),
        })?;
        let (input, output) = (group.stdin.take().expect("piped"), group.stdout.take().expect("piped"));
        let last = Tail::default();
        tokio::spawn(last.clone().follow(group.stderr.take().expect("piped")));
        Ok((Self { group, last }, input, output))
    }

    /// Waits for its end.
    pub(super) async fn wait(&mut self) {
        let _ = self.group.wait().await;
    }

    /// How it has ended, if it has or is about to.
    pub(super) async fn ended(&mut self) -> Option<ExitStatus> {
        tokio::time::timeout(PATIENCE, self.group.wait()).await.ok()?.ok()
    }

    /// Ends it, and all that it has started. Its input has been closed.
    pub(super) async fn end(mut self) {
        if tokio::time::timeout(PATIENCE, self.group.wait()).await.is_err() {
            self.group.signal(libc::SIGTERM);
            let _ = tokio::time::timeout(PATIENCE, self.group.wait()).await;
        }
    }
}

/// Kills what servers of an omni that was killed have left running. Returns how many processes.
pub(super) fn reap() -> usize {
    let prefix = format!("{OWNER}=");
    let is_orphan = |process: &libc::pid_t| {
        let environment = std::fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
        let owner =
            environment.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(prefix.as_bytes()));
        owner.is_some_and(|owner| Owner::named(&String::from_utf8_lossy(owner)).is_dead())
    };
    let Ok(entries) = std::fs::read_dir("/proc") else { return 0 };
    let processes = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let orphans: Vec<libc::pid_t> = processes.filter(is_orphan).collect();
    for orphan in &orphans {
        // SAFETY: plain system call; the process has just shown that it is one of ours.
        unsafe { libc::kill(*orphan, libc::SIGKILL) };
    }
    orphans.len()
}

/// The last lines of a standard error.
#[derive(Debug, Clone, Default)]
pub(super) struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    /// Reads to the end, whatever there is to read: a full pipe would stop the server.
    async fn follow(self, mut from: impl AsyncRead + Unpin) {
        let mut buffer = vec![0; 8192];
        let mut line = Vec::new();
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            for byte in &buffer[..length] {
                match byte {
                    b'\n' => self.push(&std::mem::take(&mut line)),
                    _ if line.len() < LINE => line.push(*byte),
                    _ => {}
                }
            }
        }
        self.push(&line);
    }

    fn push(&self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let line = line.trim_end();
        if line.is_empty() {
            return;
        }
        let mut lines = self.0.lock().expect("no panic while held");
        if lines.len() >= LINES {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
    }

    /// The lines, oldest first.
    pub(super) fn lines(&self) -> Vec<String> {
        self.0.lock().expect("no panic while held").iter().cloned().collect()
    }
}
