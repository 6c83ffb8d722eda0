//! Walking a folder and searching its files, on all cores. The twin of `pure.py`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyTimeoutError, PyValueError};
use pyo3::prelude::*;

mod find;
mod tree;

use find::{Needle, Search};

/// How often a caller that has lost interest is noticed.
const PULSE: Duration = Duration::from_millis(50);
/// More threads than this wait for the disk, not for a core.
const MOST_THREADS: usize = 8;

#[pymodule]
mod fs_search {
    #[pymodule_export]
    use super::{grep, walk};
}

/// The paths of all files below `root`, relative to it and in the order of their bytes.
///
/// With `git`, without what git's rules leave out and without repositories inside; `also` names
/// files that are there all the same. Says whether there may be more: only `most` are given, and
/// only what is found within `seconds`.
#[pyfunction]
#[pyo3(signature = (root, git, also, *, most, seconds))]
fn walk(
    py: Python<'_>,
    root: PathBuf,
    git: bool,
    also: Vec<OsString>,
    most: usize,
    seconds: f64,
) -> (Vec<OsString>, bool) {
    let end = after(seconds);
    py.detach(|| {
        let (mut found, cut) = tree::files(&root, git, threads(), most, end);
        found.extend(also);
        found.sort_unstable_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
        found.dedup();
        let cut = cut || found.len() > most;
        found.truncate(most);
        (found, cut)
    })
}

/// One match: the file's place in the list, the line's number and its text.
type Match = (usize, usize, String);

/// Searches files, which are relative to `root`, in the order given: how many were looked into, and the matches.
///
/// `None` where this engine cannot tell what Python's would find. `ValueError` for a pattern
/// it does not know, `TimeoutError` after `seconds`. `cancelled` is asked now and then; once it
/// says so, what was found so far is returned.
#[pyfunction]
#[pyo3(signature = (root, files, pattern, *, regex, doubtful, most, per_file, longest, largest, seconds, cancelled))]
#[allow(clippy::too_many_arguments, reason = "keywords in Python")]
fn grep(
    py: Python<'_>,
    root: PathBuf,
    files: Vec<OsString>,
    pattern: &str,
    regex: bool,
    doubtful: Option<&str>,
    most: usize,
    per_file: usize,
    longest: usize,
    largest: u64,
    seconds: f64,
    cancelled: Py<PyAny>,
) -> PyResult<Option<(usize, Vec<Match>)>> {
    let wrong = |error: String| PyValueError::new_err(error);
    let needle = Needle::new(pattern, regex, doubtful).map_err(wrong)?;
    let search = Search { root, files, needle, most, per_file, longest, largest };
    let end = after(seconds);
    let stop = || Python::attach(|py| cancelled.bind(py).call0()?.is_truthy());
    let done = py.detach(|| search.run(threads(), PULSE, end, stop))?;
    match done {
        find::Done::Found(looked, matches) => Ok(Some((looked, matches))),
        find::Done::Undecided => Ok(None),
        find::Done::Elapsed => Err(PyTimeoutError::new_err("the time is up")),
    }
}

fn after(seconds: f64) -> Instant {
    Instant::now() + Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS)
}
