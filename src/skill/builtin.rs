//! The skills inside the program, put on disk where Python can import them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use include_dir::{Dir, DirEntry, include_dir};
use sha2::{Digest, Sha256};

use super::files::{self, Seen, Stamp, hex, replace, visible};
use super::{Error, at};

/// The skills that travel inside the program. `build.rs` names this folder, too, or cargo
/// would not notice a new file.
pub static SKILLS: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/assets/skills");

const STAMPS: &str = ".stamps.json";

/// Unpacks skills into a folder of the cache named after their content, and says where it is;
/// `None` if there is nothing to unpack. Tests stay inside.
///
/// Any number of processes may do this at once. A folder that is there is looked over: what was
/// changed or removed is written again, what was added is removed.
pub fn unpack(skills: &Dir<'_>, cache: &Path) -> Result<Option<PathBuf>, Error> {
    let mut files = BTreeMap::new();
    collect(skills, &mut files);
    if files.is_empty() {
        return Ok(None);
    }
    let folder = cache.join(format!("skills-{}", &digest(&files)[..16]));
    if !folder.is_dir() {
        create(&files, cache, &folder).map_err(at("unpack the built-in skills to", &folder))?;
    }
    look_over(&files, &folder).map_err(at("repair the built-in skills in", &folder))?;
    Ok(Some(folder))
}

type Files<'a> = BTreeMap<&'a str, &'a [u8]>;

fn collect<'a>(dir: &Dir<'a>, files: &mut Files<'a>) {
    for entry in dir.entries() {
        let Some(path) = entry.path().to_str() else { continue };
        let name = path.rsplit('/').next().unwrap_or(path);
        match entry {
            _ if !visible(name) => {}
            DirEntry::Dir(dir) if name != "tests" => collect(dir, files),
            DirEntry::Dir(_) => {}
            DirEntry::File(file) => {
                files.insert(path, file.contents());
            }
        }
    }
}

fn digest(files: &Files<'_>) -> String {
    let mut hash = Sha256::new();
    for (name, bytes) in files {
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    }
    hex(&hash.finalize())
}

/// Fills a temporary folder and moves it into place in one step.
fn create(files: &Files<'_>, cache: &Path, folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(cache)?;
    let temporary = tempfile::Builder::new().prefix(".unpack-").tempdir_in(cache)?;
    for (name, bytes) in files {
        let path = temporary.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(temporary.path()))?;
        std::fs::write(path, bytes)?;
    }
    match std::fs::rename(temporary.path(), folder) {
        // Somebody else was faster.
        Err(_) if folder.is_dir() => Ok(()),
        result => result,
    }
}

/// Compares stamps, and contents only where those do not suffice.
fn look_over(files: &Files<'_>, folder: &Path) -> io::Result<()> {
    let now = files::now();
    let seen = look(folder);
    let settled = seen.settled(now);
    if settled && recorded(folder).is_some_and(|stamps| stamps == seen.stamps) {
        return Ok(());
    }
    let mut intact = true;
    for (name, bytes) in files {
        let path = folder.join(name);
        if std::fs::read(&path).is_ok_and(|found| found == *bytes) {
            continue;
        }
        intact = false;
        replace(&path, bytes)?;
    }
    for stamp in seen.stamps.iter().filter(|stamp| !files.contains_key(stamp.name())) {
        intact = false;
        match std::fs::remove_file(folder.join(stamp.name())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    if intact && settled {
        // Only saves time; a cache that cannot be written is fine while its files are right.
        let text = serde_json::to_vec(&seen.stamps).map_err(io::Error::other)?;
        let _ = replace(&folder.join(STAMPS), &text);
    }
    Ok(())
}

fn look(folder: &Path) -> Seen {
    let mut seen = Seen::default();
    seen.folder(folder, "", visible);
    seen.sorted()
}

fn recorded(folder: &Path) -> Option<Vec<Stamp>> {
    serde_json::from_slice(&std::fs::read(folder.join(STAMPS)).ok()?).ok()
}
