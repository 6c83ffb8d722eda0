//! Who was allowed what: one line of JSON for each decision of the policy.
//!
//! A line is with the system before its tool runs, so that it is there when the tool takes the
//! process down. Only where calls come so fast that one line is still being written when the
//! next one is ready, they are gathered for a moment and written together.

use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::Thread;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

/// How long lines are gathered when there are many.
const GATHER: Duration = Duration::from_micros(200);
/// Bytes that may be gathered; whoever brings more writes them.
const ROOM: usize = 1 << 20;

/// One decision. Values of arguments may be secret, their names are not.
#[derive(Debug, Serialize)]
pub(super) struct Decision<'a> {
    pub(super) time: Timestamp,
    pub(super) verdict: &'a str,
    pub(super) tool: &'a str,
    /// The rule that decided.
    pub(super) rule: &'a str,
    /// Who decided: the policy, or a person.
    pub(super) who: &'a str,
    pub(super) call: &'a str,
    pub(super) session: Option<&'a str>,
    pub(super) turn: Option<&'a str>,
    pub(super) arguments: Vec<&'a str>,
}

/// Where decisions are written down.
pub struct Audit {
    desk: Arc<Desk>,
    /// Writes what was gathered; there once there was something to gather.
    scribe: OnceLock<Thread>,
}

struct Desk {
    gathered: Mutex<Gathered>,
    file: Mutex<File>,
}

#[derive(Default)]
struct Gathered {
    lines: Vec<u8>,
    /// Whether somebody is writing, who will look here again.
    writing: bool,
}

struct File {
    writer: Box<dyn Write + Send>,
    failed: bool,
}

impl Audit {
    /// Writes to this file.
    pub fn new(writer: impl Write + Send + 'static) -> Self {
        let file = Mutex::new(File { writer: Box::new(writer), failed: false });
        Self { desk: Arc::new(Desk { gathered: Mutex::default(), file }), scribe: OnceLock::new() }
    }

    pub(super) fn write(&self, decision: &Decision<'_>) {
        let mut line = Vec::with_capacity(384);
        serde_json::to_writer(&mut line, decision).expect("strings only");
        line.push(b'\n');
        {
            let mut gathered = self.desk.gathered.lock().expect("no panic while held");
            if gathered.writing && gathered.lines.len() < ROOM {
                return gathered.lines.extend_from_slice(&line);
            }
            gathered.writing = true;
        }
        self.desk.write(&line);
        let mut gathered = self.desk.gathered.lock().expect("no panic while held");
        if gathered.lines.is_empty() {
            gathered.writing = false;
        } else {
            drop(gathered);
            self.scribe.get_or_init(|| scribe(&self.desk)).unpark();
        }
    }

    /// Writes what is still gathered.
    pub fn flush(&self) {
        let lines = std::mem::take(&mut self.desk.gathered.lock().expect("no panic while held").lines);
        self.desk.write(&lines);
    }
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Audit").finish_non_exhaustive()
    }
}

impl Desk {
    fn write(&self, lines: &[u8]) {
        let mut file = self.file.lock().expect("no panic while held");
        let written = file.writer.write_all(lines);
        // Told once: the log may be on the same disk.
        if let Err(error) = &written
            && !file.failed
        {
            tracing::error!(target: "audit", "decisions of the policy cannot be written down: {error}");
        }
        file.failed = written.is_err();
    }
}

/// Starts the thread that writes what was gathered, until there is nothing more.
fn scribe(desk: &Arc<Desk>) -> Thread {
    let desk = desk.clone();
    let work = move || {
        loop {
            std::thread::park();
            loop {
                std::thread::sleep(GATHER);
                let lines = {
                    let mut gathered = desk.gathered.lock().expect("no panic while held");
                    // Nobody is writing when a stray wake-up finds nothing.
                    gathered.writing &= !gathered.lines.is_empty();
                    std::mem::take(&mut gathered.lines)
                };
                if lines.is_empty() {
                    break;
                }
                desk.write(&lines);
            }
        }
    };
    let thread = std::thread::Builder::new().name("audit".to_owned()).spawn(work);
    thread.expect("a process that can start no thread is at its end").thread().clone()
}
