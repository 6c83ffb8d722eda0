//! The process that forks workers, as its parent sees it.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as Stream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{ChildStderr, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::child::{CONTROL, send};
use super::wire::{Cage, Command, Report};
use super::zygotes::Environment;
use crate::kernel::{interpreter, native};

/// Time it has to start Python and to import `omni`, on a slow or busy machine.
const START: Duration = Duration::from_secs(60);
/// Bytes of a report.
const REPORT: usize = 16 << 10;
/// Lines a minute that are logged of what workers write to descriptors 1 and 2 by themselves.
const LINES: usize = 1000;
/// Variables that a worker gets without asking. None of them is a secret.
const ENVIRONMENT: [&str; 9] =
    ["PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH"];

/// How libraries that compute are told to start no threads: a zygote has one, or its forks would
/// inherit locks that nobody unlocks.
const SINGLE: [&str; 3] = ["OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"];

/// A zygote. It ends, and its workers with it, when this is dropped.
pub(super) struct Zygote {
    control: OwnedFd,
    desk: Arc<Desk>,
    /// No worker of it is kept for another call.
    retired: AtomicBool,
}

#[derive(Default)]
struct Desk {
    /// Who waits for the end of which worker.
    workers: Mutex<HashMap<u64, oneshot::Sender<String>>>,
    dead: AtomicBool,
}

impl Zygote {
    /// Starts it and waits until it can fork.
    pub(super) async fn start(
        mut command: std::process::Command,
        environment: Option<&Environment>,
    ) -> Result<Self, String> {
        let told = |error: io::Error| format!("workers for tools cannot be started: {error}");
        let flags = SocketFlags::CLOEXEC;
        let (control, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
                .map_err(|error| told(error.into()))?;
        command
            .args(["worker", "--zygote"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command.env_clear().process_group(0);
        command.envs(ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        interpreter::show(&mut command);
        if let Some(environment) = environment {
            interpreter::enter(&mut command, &environment.folder);
            command.arg("--modules").arg(environment.modules.join(",")).envs(SINGLE.map(|name| (name, "1")));
        }
        let descriptor = theirs.as_raw_fd();
        // SAFETY: async-signal-safe system calls between fork and exec. Its descriptor 3 is the
        // connection; where it is so already, only the flag that would close it is taken away.
        unsafe {
            command.pre_exec(move || {
                let done = match descriptor == CONTROL {
                    true => libc::fcntl(CONTROL, libc::F_SETFD, 0),
                    false => libc::dup2(descriptor, CONTROL),
                };
                if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
            });
        }
        let mut child = command.spawn().map_err(told)?;
        drop(theirs);
        let errors = child.stderr.take().expect("piped");
        let desk = Arc::new(Desk::default());
        let (ready, waiting) = oneshot::channel();
        let (heard, reports) = (desk.clone(), control.try_clone().map_err(told)?);
        let thread = std::thread::Builder::new().name("workers".to_owned());
        let listening = thread.spawn(move || {
            heard.listen(&reports, ready);
            // It has closed its end, and so is ending.
            child.wait().ok();
        });
        let thread = std::thread::Builder::new().name("worker-output".to_owned());
        listening.and_then(|_| thread.spawn(move || relay(errors))).map_err(told)?;
        let zygote = Self { control, desk, retired: AtomicBool::new(false) };
        match tokio::time::timeout(START, waiting).await {
            Ok(Ok(Ok(()))) => Ok(zygote),
            Ok(Ok(Err(reason))) => Err(format!("workers for tools cannot be started: {reason}")),
            Ok(Err(_)) => Err("the process that starts workers has ended; the log may tell why".to_owned()),
            Err(_) => Err(format!("workers for tools have not started within {} s", START.as_secs())),
        }
    }

    pub(super) fn lives(&self) -> bool {
        !self.desk.dead.load(SeqCst)
    }

    /// Lets it end with the calls that are under way.
    pub(super) fn retire(&self) {
        self.retired.store(true, SeqCst);
    }

    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(SeqCst)
    }

    /// Forks a worker. Its end is told to the receiver; what is sent before it runs waits.
    pub(super) fn fork(&self, cage: Cage) -> Result<(u64, UnixStream, oneshot::Receiver<String>), String> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, SeqCst);
        let told = |error: io::Error| format!("a worker cannot be started: {error}");
        let (ours, theirs) = Stream::pair().map_err(told)?;
        let (sender, ended) = oneshot::channel();
        self.desk.workers.lock().expect("no panic while held").insert(id, sender);
        send(&self.control, &Command::Fork { id, cage }, Some(theirs.as_fd())).map_err(told)?;
        ours.set_nonblocking(true).map_err(told)?;
        Ok((id, UnixStream::from_std(ours).map_err(told)?, ended))
    }

    /// Ends a worker and everything it has started.
    pub(super) fn kill(&self, id: u64) {
        // A zygote that is gone has taken its workers with it.
        let _ = send(&self.control, &Command::Kill { id }, None);
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        // The thread that listens holds a copy of the descriptor.
        let _ = rustix::net::shutdown(&self.control, rustix::net::Shutdown::Both);
    }
}

impl Desk {
    fn listen(&self, reports: &OwnedFd, ready: oneshot::Sender<Result<(), String>>) {
        let mut ready = Some(ready);
        let mut body = vec![0; REPORT];
        loop {
            let length = match rustix::net::recv(reports, &mut body[..], RecvFlags::empty()) {
                Ok((0, _)) => break,
                Ok((length, _)) => length,
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => break,
            };
            match serde_json::from_slice(&body[..length]) {
                Ok(Report::Ready) => drop(ready.take().map(|ready| ready.send(Ok(())))),
                Ok(Report::Failed { id: None, reason }) => {
                    ready.take().map(|ready| ready.send(Err(reason)));
                }
                Ok(Report::Failed { id: Some(id), reason }) => self.tell(id, reason),
                Ok(Report::Ended { id, status }) => self.tell(id, ExitStatus::from_raw(status).to_string()),
                Err(error) => {
                    tracing::error!(target: "kernel", "a report of the zygote is malformed: {error}")
                }
            }
        }
        self.dead.store(true, SeqCst);
        self.workers.lock().expect("no panic while held").clear();
    }

    fn tell(&self, id: u64, how: String) {
        if let Some(worker) = self.workers.lock().expect("no panic while held").remove(&id) {
            let _ = worker.send(how);
        }
    }
}

/// Logs what workers write by themselves, past Python's streams, and drops what is too much.
fn relay(errors: ChildStderr) {
    let mut errors = BufReader::new(errors);
    let (mut line, mut lines, mut began) = (Vec::new(), 0, std::time::Instant::now());
    loop {
        line.clear();
        match io::Read::take(&mut errors, 8 << 10).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if began.elapsed() > Duration::from_secs(60) {
            (lines, began) = (0, std::time::Instant::now());
        }
        lines += 1;
        if lines <= LINES {
            native::log("warning", None, String::from_utf8_lossy(&line).trim_end());
        } else if lines == LINES + 1 {
            native::log("warning", None, "workers write too much; the rest of this minute is left out");
        }
    }
}
