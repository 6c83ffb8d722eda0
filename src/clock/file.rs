//! Results as files, in the one folder that is for them.

use std::path::{Component, Path, PathBuf};

use jiff::tz::TimeZone;

use crate::store::job::Run;

/// Writes what came of a run to a file of `folder`, whole or not at all. `{date}` and `{time}` in its
/// path are when the run was due.
pub(super) async fn write(folder: &Path, path: &str, run: &Run, zone: &TimeZone) -> Result<(), String> {
    let due = run.due.to_zoned(zone.clone());
    let path = path.replace("{date}", &due.strftime("%Y-%m-%d").to_string());
    let path = path.replace("{time}", &due.strftime("%H%M%S").to_string());
    let text = match run.error.is_empty() {
        true => format!("{}\n", run.output.trim_end()),
        false => format!("failed: {}\n\n{}\n", run.error, run.output.trim_end()),
    };
    let folder = folder.to_owned();
    let written = tokio::task::spawn_blocking(move || {
        let file = within(&folder, Path::new(&path))?;
        put(&file, &text).map_err(|error| format!("cannot write `{}`: {error}", file.display()))
    });
    written.await.map_err(|error| error.to_string())?
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
            return Err(format!("`{}` is a link; results are not written through links", place.display()));
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

fn put(file: &Path, text: &str) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let new = tempfile::NamedTempFile::new_in(folder)?;
    std::fs::write(new.path(), text)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(new.path(), std::fs::Permissions::from_mode(0o644))?;
    }
    new.persist(file).map(drop).map_err(|error| error.error)
}
