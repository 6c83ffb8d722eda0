//! Processes that are killed in the middle of their work.
//!
//! The child is this test program itself, told to run one ignored test. It writes a line
//! `ack …` to its output for whatever it was promised to be safe.

use std::hash::{BuildHasher, Hasher};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How often to kill: 20 times, or as `OMNI_TEST_KILLS` says.
pub fn rounds() -> usize {
    std::env::var("OMNI_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

/// This test program, to run the ignored test of that name.
pub fn child(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"]);
    command
}

/// Says in a child that something is safe now.
pub fn acknowledge(what: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "ack {what}").and_then(|()| out.flush()).expect("the parent listens");
}

/// Starts a child and kills it (SIGKILL) up to `within` after its first acknowledgement.
/// Returns everything it acknowledged.
pub fn run_and_kill(mut command: Command, within: Duration) -> Vec<String> {
    let mut child = command.stdout(Stdio::piped()).spawn().expect("the child starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut heard = Vec::new();
    let mut listen = |until_first: bool| {
        while let Some(Ok(line)) = lines.next() {
            if let Some((_, what)) = line.split_once("ack ") {
                heard.push(what.to_owned());
                if until_first {
                    return;
                }
            }
        }
    };
    listen(true);
    // The moment is what is random here; nothing waits for this sleep.
    std::thread::sleep(within.mul_f64(fraction()));
    child.kill().expect("the child is ours");
    child.wait().expect("the child is ours");
    listen(false);
    assert!(!heard.is_empty(), "the child ended before it did anything");
    heard
}

/// Whether the process of this id has ended. One that nobody has waited for yet has, too.
pub fn has_ended(id: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", id.trim())).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}

/// Waits, with a bound, until there is something.
pub fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "it did not come in a minute");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A random number from 0 to 1; `RandomState` is seeded by the system.
pub fn fraction() -> f64 {
    let random = std::hash::RandomState::new().build_hasher().finish();
    (random >> 11) as f64 / (1u64 << 53) as f64
}
