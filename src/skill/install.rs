//! Putting a skill among the user's own, and taking it away again.

use std::path::{Path, PathBuf};

use super::environment::gone;
use super::fetch::Fetched;
use super::index::{declared, is_script, look};
use super::manifest::{self, Card, Problem};
use super::trust::Trust;
use super::{Catalog, Error, Found, Isolation, Packages, Python, at, files};
use crate::config;

/// What is known of a skill before anything of it is run.
#[derive(Debug)]
pub struct Preview {
    /// What it says of itself.
    pub card: Card,
    /// What it asks for.
    pub isolation: Isolation,
    /// What it declares.
    pub packages: Packages,
    /// The functions that are marked as tools, as far as that can be read: file and name.
    pub tools: Vec<(String, String)>,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}

impl Preview {
    /// Reads a folder that has the name of the skill. The error is why it can be no skill.
    pub fn read(folder: &Path, python: &Python) -> Result<Self, Problem> {
        let (seen, _) = look(folder);
        let told = |reason: String| Problem::error(manifest::FILE, None, reason);
        let text = std::fs::read(folder.join(manifest::FILE)).map_err(|error| told(error.to_string()))?;
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let card = manifest::parse(manifest::decode(&text)?, &name)?;
        let isolation = Isolation::read(&card.metadata).map_err(told)?;
        let (packages, problems) = declared(folder, &seen.stamps, &python.version);
        let scripts = seen.stamps.iter().filter(|stamp| is_script(stamp.name()));
        let tools = scripts.flat_map(|stamp| {
            let text = files::read(folder, stamp).unwrap_or_default();
            let tools = outline(&String::from_utf8_lossy(&text));
            tools.into_iter().map(|tool| (stamp.name().to_owned(), tool))
        });
        Ok(Self { isolation, packages, tools: tools.collect(), problems, card })
    }
}

/// The names of functions below a line `@tool`.
fn outline(script: &str) -> Vec<String> {
    let (mut tools, mut marked) = (Vec::new(), false);
    for line in script.lines() {
        let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("def ");
        match function {
            Some(rest) if std::mem::take(&mut marked) => {
                tools.push(rest.split('(').next().unwrap_or(rest).trim().to_owned());
            }
            Some(_) => {}
            None => {
                marked |= ["@tool", "@omni.tool", "@skill_command"].iter().any(|mark| line.starts_with(mark))
            }
        }
    }
    tools
}

/// Where the user's own skills are.
pub fn own(paths: &config::Paths) -> PathBuf {
    paths.config.join("skills")
}

/// Moves a fetched skill into its place, in one step each way; returns the place. What is
/// there already is in the way, unless it is to be replaced.
pub fn put(fetched: &Fetched, into: &Path, replaces: bool) -> Result<PathBuf, Error> {
    let place = into.join(&fetched.name);
    let there = place.symlink_metadata().is_ok();
    if there && !replaces {
        return Err(Error::Exists { name: fetched.name.clone(), folder: place });
    }
    let old = if there { Some(aside(&place)?) } else { None };
    if let Err(error) = std::fs::rename(&fetched.folder, &place) {
        if let Some((_, old)) = old {
            std::fs::rename(old, &place).map_err(at("put back", &place))?;
        }
        return Err(at("make", &place)(error));
    }
    Ok(place)
}

/// The folder of a skill among the user's own.
pub fn place(catalog: &Catalog, name: &str, paths: &config::Paths) -> Result<PathBuf, Error> {
    manifest::check_name(name).map_err(|_| Error::Unknown(name.to_owned()))?;
    let folder = own(paths).join(name);
    if folder.symlink_metadata().is_ok() {
        return Ok(folder);
    }
    let Found { folder, name, .. } = catalog.brought(name)?.clone();
    Err(Error::Foreign { name, folder })
}

/// Removes a skill of the user's: that it was vouched for, and its folder.
pub fn remove(folder: &Path, paths: &config::Paths) -> Result<(), Error> {
    if folder.is_symlink() {
        return std::fs::remove_file(folder).map_err(at("remove", folder));
    }
    Trust::forget(&paths.data, folder)?;
    let (_temporary, old) = aside(folder)?;
    gone(std::fs::remove_dir_all(&old)).map_err(at("remove", &old))
}

/// Moves a folder out of sight in one step: half a skill is never found. It is removed with
/// the folder it is in.
fn aside(folder: &Path) -> Result<(tempfile::TempDir, PathBuf), Error> {
    let into = folder.parent().unwrap_or(folder);
    let temporary =
        tempfile::Builder::new().prefix(".old-").tempdir_in(into).map_err(at("write into", into))?;
    let old = temporary.path().join("skill");
    std::fs::rename(folder, &old).map_err(at("remove", folder))?;
    Ok((temporary, old))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_are_read_without_being_run() {
        let script = "from omni import tool\n\n@tool\ndef one():\n    pass\n\ndef none():\n    @tool\n    def inner(): ...\n\n\
            @tool(\n    read_only=True,\n)\n@other\nasync def two(x: int) -> int:\n    return x\n";
        assert_eq!(outline(script), ["one", "two"]);
    }
}
