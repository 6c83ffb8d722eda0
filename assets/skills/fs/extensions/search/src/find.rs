//! What is in the files.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use grep_searcher::{BinaryDetection, Searcher, SearcherBuilder, Sink, SinkMatch};
use pyo3::PyResult;
use regex::Regex;

/// A file with a zero byte this early is no text.
const HEAD: usize = 8192;
/// Files that may be looked into before the first of them is done: their results wait for it.
const AHEAD: usize = 256;

/// What is looked for.
pub struct Needle {
    matcher: RegexMatcher,
    doubtful: Option<Regex>,
}

impl Needle {
    /// `doubtful` matches text on which this engine and Python's may disagree.
    pub fn new(pattern: &str, regex: bool, doubtful: Option<&str>) -> Result<Self, String> {
        let mut builder = RegexMatcherBuilder::new();
        builder.multi_line(true).line_terminator(Some(b'\n')).fixed_strings(!regex);
        let matcher = builder.build(pattern).map_err(|error| error.to_string())?;
        let doubtful = doubtful.map(Regex::new).transpose().map_err(|error| error.to_string())?;
        Ok(Self { matcher, doubtful })
    }
}

/// A search and its bounds.
pub struct Search {
    pub root: PathBuf,
    pub files: Vec<OsString>,
    pub needle: Needle,
    /// Matches in all; one more is returned where there are more.
    pub most: usize,
    /// Matches in a file; the same.
    pub per_file: usize,
    /// Characters of a line.
    pub longest: usize,
    /// Bytes of a file.
    pub largest: u64,
}

/// How it ended.
pub enum Done {
    /// So many files were looked into; these are the matches.
    Found(usize, Vec<(usize, usize, String)>),
    /// A file has doubtful text.
    Undecided,
    /// The time was up.
    Elapsed,
}

/// Of one file.
enum Answer {
    Skipped,
    Doubtful,
    Lines(Vec<(usize, String)>),
}

impl Search {
    /// Runs it. `cancelled` is asked once a `pulse`.
    pub fn run(
        &self,
        threads: usize,
        pulse: Duration,
        end: Instant,
        cancelled: impl Fn() -> PyResult<bool>,
    ) -> PyResult<Done> {
        let turns = Turns { next: AtomicUsize::new(0), done: Mutex::new(0), moved: Condvar::new() };
        // Results arrive in any order and leave in that of the files.
        let (sender, receiver) = mpsc::sync_channel(AHEAD);
        std::thread::scope(|scope| {
            for _ in 0..threads.min(self.files.len().max(1)) {
                let sender = sender.clone();
                let turns = &turns;
                scope.spawn(move || {
                    let mut reader = Reader::new(self);
                    while let Some(number) = turns.take() {
                        let Some(file) = self.files.get(number) else { break };
                        if sender.send((number, reader.look(&self.root.join(file)))).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(sender);
            let done = self.collect(&receiver, &turns, pulse, end, cancelled);
            turns.pass(END);
            // Who waits to hand over a result has to see that nobody takes it.
            drop(receiver);
            done
        })
    }

    fn collect(
        &self,
        answers: &mpsc::Receiver<(usize, Answer)>,
        turns: &Turns,
        pulse: Duration,
        end: Instant,
        cancelled: impl Fn() -> PyResult<bool>,
    ) -> PyResult<Done> {
        let mut early: HashMap<usize, Answer> = HashMap::new();
        let (mut at, mut looked, mut found) = (0, 0, Vec::new());
        let mut asked = Instant::now();
        loop {
            if asked.elapsed() >= pulse {
                asked = Instant::now();
                if asked > end {
                    return Ok(Done::Elapsed);
                }
                if cancelled()? {
                    return Ok(Done::Found(looked, found));
                }
            }
            match answers.recv_timeout(pulse) {
                Ok((number, answer)) => early.insert(number, answer),
                Err(mpsc::RecvTimeoutError::Timeout) => continue,
                Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(Done::Found(looked, found)),
            };
            while let Some(answer) = early.remove(&at) {
                match answer {
                    Answer::Doubtful => return Ok(Done::Undecided),
                    Answer::Skipped => {}
                    Answer::Lines(lines) => {
                        looked += 1;
                        found.extend(lines.into_iter().map(|(line, text)| (at, line, text)));
                    }
                }
                at += 1;
                if found.len() > self.most {
                    found.truncate(self.most + 1);
                    return Ok(Done::Found(looked, found));
                }
            }
            turns.pass(at);
        }
    }
}

/// Nobody goes on after this.
const END: usize = usize::MAX;

/// Which file is whose, and who has to wait.
struct Turns {
    next: AtomicUsize,
    /// Files whose results have left.
    done: Mutex<usize>,
    moved: Condvar,
}

impl Turns {
    /// The next file, once it is not too far ahead; nothing at the end.
    fn take(&self) -> Option<usize> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut done = self.done();
        while *done != END && number >= *done + AHEAD {
            done = self.moved.wait(done).unwrap_or_else(PoisonError::into_inner);
        }
        (*done != END).then_some(number)
    }

    fn pass(&self, at: usize) {
        *self.done() = at;
        self.moved.notify_all();
    }

    fn done(&self) -> MutexGuard<'_, usize> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One thread's buffers.
struct Reader<'a> {
    search: &'a Search,
    searcher: Searcher,
    buffer: Vec<u8>,
}

impl<'a> Reader<'a> {
    fn new(search: &'a Search) -> Self {
        let mut builder = SearcherBuilder::new();
        builder.line_number(true).bom_sniffing(false).binary_detection(BinaryDetection::none());
        Self { search, searcher: builder.build(), buffer: Vec::new() }
    }

    fn look(&mut self, file: &Path) -> Answer {
        let Some(file) = open(file, self.search.largest) else { return Answer::Skipped };
        self.buffer.clear();
        if file.take(self.search.largest).read_to_end(&mut self.buffer).is_err() {
            return Answer::Skipped;
        }
        if self.buffer[..self.buffer.len().min(HEAD)].contains(&0) {
            return Answer::Skipped;
        }
        let text = String::from_utf8_lossy(&self.buffer);
        let doubtful = &self.search.needle.doubtful;
        if !text.is_ascii() && doubtful.as_ref().is_some_and(|doubtful| doubtful.is_match(&text)) {
            return Answer::Doubtful;
        }
        let mut lines = Lines { search: self.search, found: Vec::new() };
        let searched = self.searcher.search_slice(&self.search.needle.matcher, text.as_bytes(), &mut lines);
        // It reads from memory and the sink does not fail.
        searched.map_or(Answer::Skipped, |()| Answer::Lines(lines.found))
    }
}

/// An ordinary file that is not too large. Opening a named pipe must not wait for a writer.
fn open(path: &Path, largest: u64) -> Option<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    let about = file.metadata().ok()?;
    (about.is_file() && about.len() <= largest).then_some(file)
}

struct Lines<'a> {
    search: &'a Search,
    found: Vec<(usize, String)>,
}

impl Sink for Lines<'_> {
    type Error = std::io::Error;

    fn matched(&mut self, _: &Searcher, found: &SinkMatch<'_>) -> Result<bool, Self::Error> {
        let text = String::from_utf8_lossy(found.bytes());
        let number = found.line_number().and_then(|number| usize::try_from(number).ok()).unwrap_or_default();
        self.found.push((number, shown(&text, self.search.longest)));
        Ok(self.found.len() <= self.search.per_file)
    }
}

/// As Python strips and cuts it.
fn shown(line: &str, longest: usize) -> String {
    let blank = |c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c);
    line.trim_matches(blank).chars().take(longest).collect()
}
