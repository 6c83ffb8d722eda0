//! The files of a skill: which there are, whether they are still the same, writing one safely.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Files and folders one skill may have. A bound on links that lead far away, too.
const MAX_ENTRIES: usize = 4096;
const MAX_DEPTH: usize = 16;
/// Bytes of one skill that are hashed.
const MAX_BYTES: u64 = 256 << 20;
/// File systems keep times in steps of up to two seconds (FAT): within one step a file may
/// change twice and show the same time.
const STEP: i64 = 2_000_000_000;

/// A file as `stat` shows it, named relative to its skill.
///
/// The change time is what tells: unlike the modification time nobody can set it back.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Stamp(pub(super) String, u64, i64, i64, u64);

impl Stamp {
    fn new(name: String, meta: &std::fs::Metadata) -> Self {
        let nanos = |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
        let modified = nanos(meta.mtime(), meta.mtime_nsec());
        let changed = nanos(meta.ctime(), meta.ctime_nsec());
        Self(name, meta.size(), modified, changed, meta.ino())
    }

    pub(super) fn name(&self) -> &str {
        &self.0
    }

    pub(super) fn size(&self) -> u64 {
        self.1
    }
}

/// What was seen of a folder.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// By name.
    pub(crate) stamps: Vec<Stamp>,
    /// What could not be looked at: the path, and why.
    pub(crate) unreadable: Vec<(PathBuf, String)>,
    entries: usize,
}

impl Seen {
    /// Whether the stamps will show every change from now on. `now` is the time before the
    /// first of them was taken.
    pub(super) fn settled(&self, now: i64) -> bool {
        self.unreadable.is_empty() && self.stamps.iter().all(|stamp| stamp.3 < now.saturating_sub(STEP))
    }

    /// Adds a single file, if it is there.
    pub(super) fn file(&mut self, root: &Path, name: &str) {
        match std::fs::metadata(root.join(name)) {
            Ok(meta) if meta.is_file() => self.stamps.push(Stamp::new(name.to_owned(), &meta)),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => self.unreadable.push((root.join(name), error.to_string())),
        }
    }

    /// Adds all files below a folder that `keep` lets through, if it is there. Links are
    /// followed, except to a folder one is in already.
    pub(crate) fn folder(&mut self, root: &Path, name: &str, keep: fn(&str) -> bool) {
        let folder = root.join(name);
        match std::fs::metadata(&folder) {
            Ok(meta) if meta.is_dir() => {
                self.descend(&folder, name, keep, &mut vec![(meta.dev(), meta.ino())])
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => self.unreadable.push((folder, error.to_string())),
        }
    }

    /// Puts the stamps in order.
    pub(crate) fn sorted(mut self) -> Self {
        self.stamps.sort_unstable();
        self
    }

    fn descend(&mut self, folder: &Path, name: &str, keep: fn(&str) -> bool, above: &mut Vec<(u64, u64)>) {
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => return self.unreadable.push((folder.to_owned(), error.to_string())),
        };
        for entry in entries {
            match entry {
                Ok(entry) => self.entry(&entry, name, keep, above),
                Err(error) => self.unreadable.push((folder.to_owned(), error.to_string())),
            }
            if self.entries > MAX_ENTRIES {
                return;
            }
        }
    }

    fn entry(
        &mut self,
        entry: &std::fs::DirEntry,
        parent: &str,
        keep: fn(&str) -> bool,
        above: &mut Vec<(u64, u64)>,
    ) {
        let file_name = entry.file_name();
        let file_name = file_name.to_string_lossy();
        if !keep(&file_name) {
            return;
        }
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            let reason = format!("has more than {MAX_ENTRIES} files; the rest is not looked at");
            return self.unreadable.push((entry.path(), reason));
        }
        let name = if parent.is_empty() { file_name.into_owned() } else { format!("{parent}/{file_name}") };
        let path = entry.path();
        match std::fs::metadata(&path) {
            Ok(meta) if meta.is_file() => self.stamps.push(Stamp::new(name, &meta)),
            Ok(meta) if meta.is_dir() => {
                let place = (meta.dev(), meta.ino());
                if above.contains(&place) || above.len() >= MAX_DEPTH {
                    return;
                }
                above.push(place);
                self.descend(&path, &name, keep, above);
                above.pop();
            }
            // A socket or a pipe is no part of a skill, and reading it would wait for ever.
            Ok(_) => {}
            // Editors leave dangling links as locks.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            // A link that leads to itself.
            Err(error) => self.unreadable.push((path, error.to_string())),
        }
    }
}

/// Files that take no part in what a skill does.
pub(super) fn visible(name: &str) -> bool {
    !name.starts_with('.') && name != "__pycache__"
}

/// Nanoseconds since 1970, as in the stamps.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// SHA-256 over the names and bytes of these files. What cannot be read counts as such, and
/// goes into the list.
pub(super) fn digest(root: &Path, stamps: &[Stamp], unreadable: &mut Vec<(PathBuf, String)>) -> String {
    digest_and(root, stamps, unreadable, |_, _| {})
}

/// The same; `each` is given the name and the bytes of each file, piece by piece, the
/// last of which is empty.
pub(super) fn digest_and(
    root: &Path,
    stamps: &[Stamp],
    unreadable: &mut Vec<(PathBuf, String)>,
    mut each: impl FnMut(&str, &[u8]),
) -> String {
    let mut hash = Sha256::new();
    let mut left = MAX_BYTES;
    for stamp in stamps {
        hash.update((stamp.name().len() as u64).to_le_bytes());
        hash.update(stamp.name());
        let path = root.join(stamp.name());
        match file_digest(&path, stamp.size(), &mut left, |bytes| each(stamp.name(), bytes)) {
            Ok(digest) => hash.update(digest),
            Err(error) => {
                hash.update(b"unreadable");
                unreadable.push((path, error.to_string()));
            }
        }
    }
    hex(&hash.finalize())
}

fn file_digest(path: &Path, size: u64, left: &mut u64, mut each: impl FnMut(&[u8])) -> io::Result<[u8; 32]> {
    let rest = left.checked_sub(size);
    *left = rest.ok_or_else(|| io::Error::other("the files of a skill may have 256 MiB in all"))?;
    let mut file = open(path, size)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = file.read(&mut buffer)?;
        hash.update(&buffer[..count]);
        each(&buffer[..count]);
        if count == 0 {
            return Ok(hash.finalize().into());
        }
    }
}

/// A file that ends after `size` bytes. A link may lead to what `/proc` calls an empty file
/// and what never ends, or never answers, when it is read.
fn open(path: &Path, size: u64) -> io::Result<io::Take<File>> {
    Ok(File::open(path)?.take(size))
}

/// The file of this stamp.
pub(super) fn read(root: &Path, stamp: &Stamp) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(&root.join(stamp.name()), stamp.size())?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a file so that a reader sees the old or the new one, never a part.
pub(super) fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut temporary = tempfile::Builder::new().prefix(".new-").tempfile_in(folder)?;
    temporary.write_all(bytes)?;
    temporary.persist(file)?;
    Ok(())
}
