//! The Python that travels inside the program: its files, unpacked into the cache once.
//!
//! The folder is named after its content, and comes into being in one step, so whoever sees it sees all of it. Its
//! files are looked over at every start, by what `stat` says; when something is not as it was left, all are put
//! there anew. Processes that start at once wait for the one that unpacks.

use std::ffi::CString;
use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::layout::Layout;
use crate::config::Paths;
use crate::skill::files::Seen;

/// Made by `tools/bundle`.
static ARCHIVE: &[u8] = include_bytes!(env!("OMNI_BUNDLE_ARCHIVE"));
/// What its name ends with: a part of its hash.
pub(super) const ID: &str = env!("OMNI_BUNDLE_ID");
/// Of the folder that it is unpacked into, before its identity.
const PREFIX: &str = "python-";
/// What was there when it was unpacked.
const SEEN: &str = ".seen";
/// How long a process waits for another one that unpacks.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a folder is kept that is not used.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// How often it is noted that it is.
const NOTED: Duration = Duration::from_secs(24 * 3600);
/// The variable that tells a process where it is.
const PLACE: &str = "OMNI_PYTHON_PLACE";
/// Links that are followed from the name that this program was started by.
const LINKS: usize = 8;
/// Libraries that packages expect of the machine, in the order in which they need each other.
const SPARE: [&str; 3] = ["libgcc_s.so.1", "libstdc++.so.6", "libz.so.1"];

/// Where it is; the first call unpacks it where it is not there.
pub(super) fn layout() -> Result<&'static Layout, String> {
    static LAYOUT: OnceLock<Result<Layout, String>> = OnceLock::new();
    LAYOUT.get_or_init(unpacked).as_ref().map_err(Clone::clone)
}

/// Gives packages the libraries that they expect of the machine, if it has none.
pub(super) fn lend(prefix: &Path) {
    for name in SPARE {
        let here = prefix.join(env!("OMNI_BUNDLE_SPARE")).join(name);
        for path in [Path::new(name), &here] {
            let Ok(path) = CString::new(path.as_os_str().as_encoded_bytes()) else { continue };
            // SAFETY: loads a library, which is never unloaded.
            if !unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_LAZY | libc::RTLD_GLOBAL) }.is_null() {
                break;
            }
        }
    }
}

/// Has the TLS that travels along find this machine's certificates: it looks where Debian has them. To be called
/// before there are threads, and before Python.
pub(super) fn certify() {
    let found = openssl_probe::probe();
    for (name, path) in
        [("SSL_CERT_FILE", found.cert_file.as_ref()), ("SSL_CERT_DIR", found.cert_dir.first())]
    {
        if let (None, Some(path)) = (std::env::var_os(name), path) {
            // SAFETY: nobody else runs yet.
            unsafe { std::env::set_var(name, path) };
        }
    }
}

fn described(prefix: PathBuf) -> io::Result<Layout> {
    Ok(Layout {
        executable: programs(&prefix)?,
        stdlib: prefix.join(env!("OMNI_BUNDLE_STDLIB")),
        dynload: prefix.join(env!("OMNI_BUNDLE_DYNLOAD")),
        source: prefix.join(env!("OMNI_BUNDLE_SOURCE")),
        packages: prefix.join(env!("OMNI_BUNDLE_PACKAGES")),
        prefix,
    })
}

/// This program by the names of Python, which it is when it is started by one of them.
fn programs(prefix: &Path) -> io::Result<PathBuf> {
    let (folder, own) = (prefix.join("bin"), std::env::current_exe()?);
    let version = env!("OMNI_BUNDLE_VERSION");
    let minor = version.rsplit_once('.').map_or(version, |(minor, _)| minor);
    let executable = folder.join(format!("python{minor}"));
    for link in [executable.clone(), folder.join("python3"), folder.join("python")] {
        // Whoever is replaced while they run has no path to lead to.
        if fs::read_link(&link).is_ok_and(|target| target == own || !own.exists()) {
            continue;
        }
        fs::create_dir_all(&folder)?;
        let temporary =
            tempfile::Builder::new().prefix(".new-").make_in(&folder, |path| symlink(&own, path))?;
        temporary.persist(&link).map_err(|error| error.error)?;
    }
    Ok(executable)
}

/// Tells a process that starts another where it is: they may not find the same caches.
pub(super) fn show(command: &mut Command) {
    if let Ok(layout) = layout() {
        command.env(PLACE, &layout.prefix);
    }
}

/// The folder that this process was told of, by whoever started it or by the path it was started by. It was looked
/// over by then.
fn told() -> Option<PathBuf> {
    let is_ours = |folder: &Path| folder.ends_with(format!("{PREFIX}{ID}")) && folder.join(SEEN).is_file();
    let shown = std::env::var_os(PLACE).map(PathBuf::from);
    let mut link = PathBuf::from(std::env::args_os().next()?);
    let mut named = None;
    // A link of an environment leads to a link of ours, and that to the program.
    for _ in 0..LINKS {
        named = link.ancestors().nth(2).filter(|folder| is_ours(folder)).map(Path::to_owned);
        match fs::read_link(&link) {
            Ok(target) if named.is_none() => link = link.parent()?.join(target),
            _ => break,
        }
    }
    shown.filter(|folder| is_ours(folder)).or(named)
}

/// The folder of the first cache that can be used.
fn unpacked() -> Result<Layout, String> {
    if let Some(layout) = told().and_then(|folder| described(folder).ok()) {
        return Ok(layout);
    }
    let mut tried = Vec::new();
    for (cache, is_shared) in caches() {
        match owned(&cache, is_shared).and_then(|()| prepare(&cache)).and_then(described) {
            Ok(layout) => return Ok(layout),
            Err(error) => tried.push(format!("`{}`: {}", cache.display(), reason(&error))),
        }
    }
    Err(format!(
        "Python needs {} MB of disk to be unpacked, and found no place: {}; make room, or set OMNI_HOME to a folder \
         that can be written",
        env!("OMNI_BUNDLE_SIZE"),
        tried.join("; ")
    ))
}

/// What went wrong at last: the archive says what it was at, and why only within.
fn reason(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), reason)
}

/// Where it may be, and whether others can write there as well.
fn caches() -> Vec<(PathBuf, bool)> {
    // SAFETY: plain system call.
    let own = format!("omni-{}", unsafe { libc::getuid() });
    let cache = Paths::find(Path::new("/")).ok().map(|paths| (paths.cache, false));
    let shared = [PathBuf::from("/var/tmp"), std::env::temp_dir()].map(|folder| (folder.join(&own), true));
    cache.into_iter().chain(shared).collect()
}

/// Makes a folder in a place that others can write to, or fails if it is somebody else's.
fn owned(folder: &Path, is_shared: bool) -> io::Result<()> {
    if !is_shared {
        return Ok(());
    }
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let meta = fs::symlink_metadata(folder)?;
    // SAFETY: plain system call.
    if !meta.is_dir() || meta.uid() != unsafe { libc::getuid() } || meta.mode() & 0o022 != 0 {
        return Err(io::Error::other("it belongs to somebody else"));
    }
    Ok(())
}

fn prepare(cache: &Path) -> io::Result<PathBuf> {
    let folder = cache.join(format!("{PREFIX}{ID}"));
    if intact(&folder) {
        return Ok(folder);
    }
    fs::create_dir_all(cache)?;
    let mut lock = File::options().create(true).append(true).open(cache.join(format!(".{PREFIX}lock")))?;
    let is_alone = wait(&lock)?;
    if intact(&folder) {
        return Ok(folder);
    }
    if is_alone {
        sweep(cache);
    }
    let temporary = tempfile::Builder::new().prefix(&format!(".{PREFIX}")).tempdir_in(cache)?;
    fs::set_permissions(temporary.path(), Permissions::from_mode(0o755))?;
    let mut archive = tar::Archive::new(zstd::Decoder::new(ARCHIVE)?);
    archive.set_preserve_mtime(false);
    archive.unpack(temporary.path())?;
    fs::write(temporary.path().join(SEEN), seen(temporary.path())?)?;
    put(temporary.path(), &folder)?;
    // For whoever wonders how often that is.
    let _ = writeln!(lock, "{} unpacked {ID}", std::process::id());
    Ok(folder)
}

/// Puts a folder in its place. What is there goes where it was, and is removed.
fn put(temporary: &Path, folder: &Path) -> io::Result<()> {
    match fs::rename(temporary, folder) {
        Err(_) if folder.is_dir() => Ok(renameat_with(CWD, temporary, CWD, folder, RenameFlags::EXCHANGE)?),
        result => result,
    }
}

/// Waits until nobody else unpacks, and tells whether it is so.
fn wait(lock: &File) -> io::Result<bool> {
    let start = Instant::now();
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) if start.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(10));
            }
            // Somebody is stuck, or the file system knows no locks: each for themselves.
            Err(_) => return Ok(false),
        }
    }
}

/// Removes what was left behind by those who were killed, and what was not used for long.
fn sweep(cache: &Path) {
    let Ok(entries) = fs::read_dir(cache) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_old = || {
            let noted = fs::metadata(entry.path().join(SEEN)).and_then(|meta| meta.modified());
            noted.is_ok_and(|noted| noted.elapsed().is_ok_and(|age| age > KEPT))
        };
        let is_left = name.starts_with(&format!(".{PREFIX}")) && entry.path().is_dir();
        if is_left || (name.starts_with(PREFIX) && is_old()) {
            // Only room on the disk.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether all files are as they were left. Notes that they are used.
fn intact(folder: &Path) -> bool {
    let note = folder.join(SEEN);
    let Ok(noted) = fs::read(&note) else { return false };
    if !seen(folder).is_ok_and(|seen| seen == noted) {
        return false;
    }
    let age = fs::metadata(&note).and_then(|meta| meta.modified()).ok().and_then(|at| at.elapsed().ok());
    if age.is_none_or(|age| age > NOTED) {
        // Only keeps it from being removed; a cache that cannot be written is fine.
        let _ = File::open(&note).and_then(|file| file.set_modified(SystemTime::now()));
    }
    true
}

fn seen(folder: &Path) -> io::Result<Vec<u8>> {
    let mut seen = Seen::default();
    seen.folder(folder, "lib", |_| true);
    if let Some((path, reason)) = seen.unreadable.pop() {
        return Err(io::Error::other(format!("{}: {reason}", path.display())));
    }
    serde_json::to_vec(&seen.sorted().stamps).map_err(io::Error::other)
}
