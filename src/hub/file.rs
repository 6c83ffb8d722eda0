//! Texts that become files of a folder, and lead nowhere else.

use std::path::{Component, Path, PathBuf};

/// Writes a text to a file below the folder, whole or not at all, and says where it is. A file that is there
/// is replaced only if `over` says so.
pub fn put(folder: &Path, path: &Path, text: &str, over: bool) -> Result<PathBuf, Unwritten> {
    let file = within(folder, path).map_err(Unwritten::Wrong)?;
    write(&file, text, over).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => Unwritten::There,
        _ => Unwritten::Wrong(format!("cannot write `{}`: {error}", file.display())),
    })?;
    Ok(file)
}

/// Why a text did not become a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unwritten {
    /// There is one already.
    #[error("there is such a file already")]
    There,
    /// It cannot be.
    #[error("{0}")]
    Wrong(String),
}

/// The file below the folder, whose own folders are made. A link on the way could lead out of it.
fn within(folder: &Path, path: &Path) -> Result<PathBuf, String> {
    let mut place = folder.to_owned();
    let mut parts = path.components().filter(|part| *part != Component::CurDir).peekable();
    make(&place)?;
    while let Some(part) = parts.next() {
        let Component::Normal(name) = part else {
            return Err(format!("`{}` leads out of `{}`", path.display(), folder.display()));
        };
        place.push(name);
        let is_link = std::fs::symlink_metadata(&place).is_ok_and(|found| found.is_symlink());
        if is_link {
            return Err(format!("`{}` is a link; nothing is written through links", place.display()));
        }
        if parts.peek().is_some() {
            make(&place)?;
        }
    }
    Ok(place)
}

fn make(folder: &Path) -> Result<(), String> {
    std::fs::create_dir_all(folder)
        .map_err(|error| format!("cannot make the folder `{}`: {error}", folder.display()))
}

fn write(file: &Path, text: &str, over: bool) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let new = tempfile::NamedTempFile::new_in(folder)?;
    std::fs::write(new.path(), text)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(new.path(), std::fs::Permissions::from_mode(0o644))?;
    }
    let written = if over { new.persist(file) } else { new.persist_noclobber(file) };
    written.map(drop).map_err(|error| error.error)
}
