//! A skill to begin with.

use std::path::{Path, PathBuf};

use super::{Error, at, manifest};

/// Writes a skill that works into a new folder `into/name`, and says where it is.
///
/// It has one tool and one test. Refuses a name the format does not allow, and a folder that
/// exists.
pub fn create(name: &str, into: &Path) -> Result<PathBuf, Error> {
    manifest::check_name(name).map_err(Error::Name)?;
    let folder = into.join(name);
    if folder.symlink_metadata().is_ok() {
        return Err(Error::Exists { name: name.to_owned(), folder });
    }
    std::fs::create_dir_all(into).map_err(at("make", into))?;
    // All of it or nothing: half a skill would be in the way of the next attempt.
    let temporary =
        tempfile::Builder::new().prefix(".new-").tempdir_in(into).map_err(at("write into", into))?;
    let module = name.replace('-', "_");
    let files = [
        (manifest::FILE.to_owned(), CARD),
        (format!("scripts/{module}.py"), SCRIPT),
        (format!("tests/test_{module}.py"), TEST),
    ];
    for (file, template) in files {
        let path = temporary.path().join(file);
        let text = template.replace("NAME", name).replace("MODULE", &module);
        std::fs::create_dir_all(path.parent().unwrap_or(into)).map_err(at("make", &path))?;
        std::fs::write(&path, text).map_err(at("write", &path))?;
    }
    open_up(temporary.path()).map_err(at("write", temporary.path()))?;
    std::fs::rename(temporary.path(), &folder).map_err(at("make", &folder))?;
    Ok(folder)
}

/// Temporary folders are closed to others; a skill is usually shared.
fn open_up(folder: &Path) -> std::io::Result<()> {
    let model = folder.join("scripts").metadata()?.permissions();
    std::fs::set_permissions(folder, model)
}

const CARD: &str = "---
name: NAME
description: Greets people by name. Use it when somebody wants to be greeted.
---

# NAME

Say here what the model should know before it uses the tools: what they are good for, in which
order, and what to do when something fails.

`NAME.greet` greets one person.
";

const SCRIPT: &str = r#""""Tools of the skill NAME."""

from omni import tool


@tool(read_only=True)
def greet(name: str) -> str:
    """Greet somebody.

    Args:
        name: Who is greeted.
    """
    return f"Hello, {name}!"
"#;

const TEST: &str = r#"import runpy
from pathlib import Path

SCRIPT = runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "MODULE.py"))


def test_greets_by_name():
    assert SCRIPT["greet"](name="Ada") == "Hello, Ada!"
"#;
