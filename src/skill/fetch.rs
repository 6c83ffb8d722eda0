//! Getting a skill from where somebody offers it: a folder, an archive, a git repository.
//!
//! What is fetched is data until it is in its place: nothing of it is run, its links lead
//! nowhere, and it has bounds.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;

use super::files::visible;
use super::trust::of_note;
use super::{Error, at, manifest};
use crate::child::Group;

/// Files and folders it may have.
const ENTRIES: usize = 4096;
/// Bytes it may have, unpacked.
const BYTES: u64 = 256 << 20;
/// Time a repository may take to be cloned.
const CLONE: Duration = Duration::from_secs(300);
/// Bytes of what git says that are read.
const SAID: u64 = 16 << 10;

/// Where a skill is to be had. What stands behind a `#` is the folder of the skill in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    place: Place,
    inner: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Folder(PathBuf),
    Archive(PathBuf, Format),
    Repository(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Zip,
    Tar,
}

impl Origin {
    /// Reads what somebody wrote.
    pub fn read(text: &str) -> Result<Self, Error> {
        let told = |reason: &str| Error::Fetch { origin: text.to_owned(), reason: reason.to_owned() };
        let (place, inner) = match text.split_once('#') {
            Some((place, inner)) => (place, Some(inner.to_owned())),
            None => (text, None),
        };
        let plain =
            |inner: &String| Path::new(inner).components().all(|part| matches!(part, Component::Normal(_)));
        if !inner.as_ref().is_none_or(plain) {
            return Err(told("behind the `#` belongs a folder inside of it"));
        }
        let path = PathBuf::from(place);
        let format = [(".zip", Format::Zip), (".tar.gz", Format::Tar), (".tgz", Format::Tar)];
        let format = format.iter().find(|(end, _)| place.ends_with(end)).map(|(_, format)| *format);
        let is_address = place.contains("://") || place.starts_with("git@");
        let place = match format {
            Some(_) if is_address => return Err(told("download the archive first, and look at it")),
            _ if is_address => Place::Repository(place.strip_prefix("git+").unwrap_or(place).to_owned()),
            Some(format) if path.is_file() => Place::Archive(path, format),
            _ if path.is_dir() => Place::Folder(path),
            _ => {
                return Err(told(
                    "it is no folder, no `.zip` or `.tar.gz`, and no address of a git repository",
                ));
            }
        };
        Ok(Self { place, inner })
    }

    /// The folder, where it is one.
    pub fn folder(&self) -> Option<PathBuf> {
        let Place::Folder(folder) = &self.place else { return None };
        Some(self.inner.as_ref().map_or(folder.clone(), |inner| folder.join(inner)))
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.place {
            Place::Folder(path) | Place::Archive(path, _) => path.display().fmt(f)?,
            Place::Repository(address) => f.write_str(address)?,
        }
        self.inner.as_ref().map_or(Ok(()), |inner| write!(f, "#{inner}"))
    }
}

/// A copy of a skill that is not in its place yet. Dropping it removes the copy.
pub struct Fetched {
    /// The copy, in a folder of the skill's name.
    pub folder: PathBuf,
    /// The name.
    pub name: String,
    _temporary: TempDir,
}

/// Copies the skill into a hidden folder in `into`.
pub async fn fetch(origin: &Origin, into: &Path) -> Result<Fetched, Error> {
    std::fs::create_dir_all(into).map_err(at("make", into))?;
    let temporary =
        tempfile::Builder::new().prefix(".new-").tempdir_in(into).map_err(at("write into", into))?;
    let got = temporary.path().join("got");
    let root = match &origin.place {
        Place::Folder(folder) => folder,
        Place::Archive(archive, format) => {
            unpack(archive, *format, &got).map_err(|error| origin.told(&error.to_string()))?;
            &got
        }
        Place::Repository(address) => {
            clone(address, &got).await.map_err(|reason| origin.told(&reason))?;
            &got
        }
    };
    let found = origin.find(root)?;
    let real = |path: &Path| path.canonicalize().map_err(|error| origin.told(&error.to_string()));
    if !real(&found)?.starts_with(real(root)?) {
        return Err(origin.told("the skill in it is a link that leads out of it"));
    }
    let text = std::fs::read(found.join(manifest::FILE)).map_err(at("read", &found))?;
    let name = manifest::name(manifest::decode(&text).map_err(|problem| origin.told(&problem.to_string()))?);
    let name = name.map_err(|problem| origin.told(&problem.to_string()))?;
    let folder = temporary.path().join(&name);
    let mut room = Room::default();
    copy(&found, &folder, &mut room).map_err(|error| origin.told(&error.to_string()))?;
    Ok(Fetched { folder, name, _temporary: temporary })
}

impl Origin {
    fn told(&self, reason: &str) -> Error {
        Error::Fetch { origin: self.to_string(), reason: reason.to_owned() }
    }

    /// The folder of the skill: the one that was named, the whole, or the only one there is.
    fn find(&self, root: &Path) -> Result<PathBuf, Error> {
        let root = self.inner.as_ref().map_or(root.to_owned(), |inner| root.join(inner));
        if root.join(manifest::FILE).is_file() {
            return Ok(root);
        }
        let mut found = below(&root);
        found.extend(below(&root.join("skills")));
        match found.as_slice() {
            [one] => Ok(one.clone()),
            [] => Err(self.told(&format!("there is no `{}` in it", manifest::FILE))),
            several => {
                let inner =
                    |folder: &PathBuf| folder.strip_prefix(&root).unwrap_or(folder).display().to_string();
                let names: Vec<String> = several.iter().map(inner).collect();
                let (all, first) = (names.join("`, `"), &names[0]);
                Err(self.told(&format!("it has several skills, `{all}`: name one, as in `{self}#{first}`")))
            }
        }
    }
}

/// Folders in this one that are skills.
fn below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let shown = entries.filter(|entry| visible(&entry.file_name().to_string_lossy()));
    let mut found: Vec<PathBuf> =
        shown.map(|entry| entry.path()).filter(|path| path.join(manifest::FILE).is_file()).collect();
    found.sort_unstable();
    found
}

/// What may still come.
struct Room {
    entries: usize,
    bytes: u64,
}

impl Default for Room {
    fn default() -> Self {
        Self { entries: ENTRIES, bytes: BYTES }
    }
}

impl Room {
    fn entry(&mut self) -> io::Result<()> {
        let left = self.entries.checked_sub(1);
        self.entries = left.ok_or_else(|| io::Error::other(format!("it has more than {ENTRIES} files")))?;
        Ok(())
    }

    /// Writes a new file.
    fn write(&mut self, content: &mut impl Read, file: &Path, is_program: bool) -> io::Result<()> {
        let mode = if is_program { 0o755 } else { 0o644 };
        let mut options = File::options();
        let mut to = options.write(true).create_new(true).mode(mode).open(file)?;
        // However large it says it is.
        let written = io::copy(&mut content.take(self.bytes + 1), &mut to)?;
        let left = self.bytes.checked_sub(written);
        self.bytes = left.ok_or_else(|| io::Error::other(format!("it has more than {} MiB", BYTES >> 20)))?;
        Ok(())
    }
}

/// Copies a folder. A link is an error: what it leads to may be another thing elsewhere.
fn copy(from: &Path, to: &Path, room: &mut Room) -> io::Result<()> {
    std::fs::create_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if !of_note(&entry.file_name().to_string_lossy()) {
            continue;
        }
        room.entry()?;
        let (kind, path, to) = (entry.file_type()?, entry.path(), to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&path, &to, room)?;
        } else if kind.is_file() {
            let mut file = File::open(&path)?;
            let is_program = file.metadata()?.permissions().mode() & 0o100 != 0;
            room.write(&mut file, &to, is_program)?;
        } else {
            return Err(io::Error::other(format!("`{}` is a link, or no file", path.display())));
        }
    }
    Ok(())
}

/// Unpacks a zip file, and a wheel is one, into a new folder, within the bounds of a skill.
pub fn unpack_zip(archive: &Path, into: &Path) -> io::Result<()> {
    unpack(archive, Format::Zip, into)
}

/// Unpacks an archive into a new folder.
fn unpack(archive: &Path, format: Format, into: &Path) -> io::Result<()> {
    let file = File::open(archive)?;
    std::fs::create_dir(into)?;
    match format {
        Format::Zip => unzip(file, into),
        Format::Tar => untar(file, into),
    }
}

fn unzip(file: File, into: &Path) -> io::Result<()> {
    let mut room = Room::default();
    let mut archive = zip::ZipArchive::new(file).map_err(io::Error::other)?;
    for number in 0..archive.len() {
        let mut entry = archive.by_index(number).map_err(io::Error::other)?;
        let path = inside(Path::new(&*entry.name().map_err(io::Error::other)?))?;
        if entry.is_symlink() {
            return Err(io::Error::other(format!("`{}` in it is a link", path.display())));
        }
        let is_program = entry.unix_mode().is_some_and(|mode| mode & 0o100 != 0);
        let is_folder = entry.is_dir();
        place(&mut room, into, &path, (!is_folder).then_some(&mut entry), is_program)?;
    }
    Ok(())
}

fn untar(file: File, into: &Path) -> io::Result<()> {
    let mut room = Room::default();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    for entry in archive.entries()? {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        if kind == tar::EntryType::XGlobalHeader {
            continue;
        }
        let path = inside(&entry.path()?)?;
        if !kind.is_file() && !kind.is_dir() {
            return Err(io::Error::other(format!("`{}` in it is a link, or no file", path.display())));
        }
        let is_program = entry.header().mode()? & 0o100 != 0;
        place(&mut room, into, &path, kind.is_file().then_some(&mut entry), is_program)?;
    }
    Ok(())
}

/// The path of an entry, if it stays inside.
fn inside(path: &Path) -> io::Result<PathBuf> {
    let parts = path.components().filter(|part| *part != Component::CurDir);
    let parts: Option<PathBuf> =
        parts.map(|part| matches!(part, Component::Normal(_)).then_some(part)).collect();
    parts.ok_or_else(|| io::Error::other(format!("`{}` in it leads out of it", path.display())))
}

/// Puts an entry where it belongs; one without content is a folder.
fn place(
    room: &mut Room,
    into: &Path,
    path: &Path,
    content: Option<&mut impl Read>,
    is_program: bool,
) -> io::Result<()> {
    room.entry()?;
    let path = into.join(path);
    match content {
        None => std::fs::create_dir_all(&path),
        Some(content) => {
            std::fs::create_dir_all(path.parent().unwrap_or(into))?;
            room.write(content, &path, is_program)
        }
    }
}

/// Clones the newest commit of a repository. Git asks nobody, and runs no program of the
/// repository's.
async fn clone(address: &str, into: &Path) -> Result<(), String> {
    use tokio::io::AsyncReadExt;

    let mut command = tokio::process::Command::new("git");
    command.args([
        "-c",
        "core.hooksPath=/dev/null",
        "-c",
        "protocol.ext.allow=never",
        "-c",
        "core.fsmonitor=false",
    ]);
    command.args(["clone", "--quiet", "--depth=1", "--no-tags", "--", address]).arg(into);
    command.env("GIT_TERMINAL_PROMPT", "0");
    if std::env::var_os("GIT_SSH_COMMAND").is_none() {
        command.env("GIT_SSH_COMMAND", "ssh -oBatchMode=yes");
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = Group::start(&mut command).map_err(|error| format!("`git` does not start: {error}"))?;
    let errors = child.stderr.take().expect("piped");
    let ended = async {
        let mut said = Vec::new();
        errors.take(SAID).read_to_end(&mut said).await?;
        Ok::<_, io::Error>((child.wait().await?, said))
    };
    match tokio::time::timeout(CLONE, ended).await {
        Err(_) => Err(format!("`git` took longer than {} s and was stopped", CLONE.as_secs())),
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok((status, _))) if status.success() => Ok(()),
        Ok(Ok((_, said))) => Err(String::from_utf8_lossy(&said).trim().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_never_ends_is_given_up() {
        let folder = TempDir::new().unwrap();
        let mut room = Room { entries: 2, bytes: 10 };
        room.write(&mut &b"123456"[..], &folder.path().join("a"), false).unwrap();
        let error = room.write(&mut io::repeat(b' '), &folder.path().join("b"), false).unwrap_err();
        assert!(error.to_string().starts_with("it has more than"), "{error}");
        assert_eq!(std::fs::metadata(folder.path().join("b")).unwrap().len(), 5);
    }
}
