//! Which files there are.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use ignore::{DirEntry, WalkBuilder, WalkState};

/// The files below a folder, in no order, and whether there may be more than these: no more than
/// `most` are looked for, and none after `end`. Links are among them and not followed; what is neither
/// a file nor a link is not.
pub fn files(root: &Path, git: bool, threads: usize, most: usize, end: Instant) -> (Vec<OsString>, bool) {
    let mut builder = WalkBuilder::new(root);
    // Hidden files belong to it, and only git's own rules count.
    builder.standard_filters(false).threads(threads);
    if git {
        builder.git_ignore(true).git_exclude(true).git_global(true).parents(true).require_git(false);
    }
    builder
        .filter_entry(move |entry| entry.depth() == 0 || !(is_git(entry) || (git && is_repository(entry))));
    let all = Mutex::new(Vec::new());
    let (count, cut) = (AtomicUsize::new(0), AtomicBool::new(false));
    builder.build_parallel().run(|| {
        let mut own = Own { files: Vec::new(), all: &all };
        let (count, cut) = (&count, &cut);
        Box::new(move |entry| {
            if Instant::now() > end {
                cut.store(true, Relaxed);
                return WalkState::Quit;
            }
            // What cannot be read is not there: the same as for git.
            if let Ok(entry) = entry
                && entry.file_type().is_some_and(|kind| kind.is_file() || kind.is_symlink())
                && let Ok(path) = entry.path().strip_prefix(root)
            {
                if count.fetch_add(1, Relaxed) >= most {
                    cut.store(true, Relaxed);
                    return WalkState::Quit;
                }
                own.files.push(path.as_os_str().to_owned());
            }
            WalkState::Continue
        })
    });
    (all.into_inner().unwrap_or_default(), cut.into_inner())
}

/// What one thread has found; handed over when it ends.
struct Own<'a> {
    files: Vec<OsString>,
    all: &'a Mutex<Vec<OsString>>,
}

impl Drop for Own<'_> {
    fn drop(&mut self) {
        if let Ok(mut all) = self.all.lock() {
            all.append(&mut self.files);
        }
    }
}

fn is_git(entry: &DirEntry) -> bool {
    entry.file_name() == ".git"
}

/// A repository inside another is a matter of its own. What only looks like one is a folder.
fn is_repository(entry: &DirEntry) -> bool {
    let git = entry.path().join(".git");
    entry.file_type().is_some_and(|kind| kind.is_dir()) && (git.is_file() || git.join("HEAD").exists())
}
