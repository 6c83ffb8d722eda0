//! What a skill needs that is not its own: packages from an index, and a Python.
//!
//! It says so in `requirements.txt`, in `[project]` of a `pyproject.toml`, or in the block
//! `# /// script` of a script (PEP 723); what they name is put together. Nothing here touches a
//! disk.

use std::ops::Range;
use std::str::FromStr;

use pep440_rs::{Version, VersionSpecifiers};
use pep508_rs::{Requirement, VerbatimUrl, VersionOrUrl};
use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::manifest::Problem;

/// Requirements, one a line.
pub const REQUIREMENTS: &str = "requirements.txt";
/// A Python project.
pub const PROJECT: &str = "pyproject.toml";

/// The packages that a skill declares.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packages {
    /// As PEP 508 writes them, in order and each once.
    pub requirements: Vec<String>,
    /// The file that names the first of them, relative to the skill.
    pub file: String,
    /// The line, counted from 1.
    pub line: Option<u32>,
}

impl Packages {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Adds what a file declares: one of the two above, or a script. `python` is the version of
    /// the Python there is. The error is the first thing that is wrong.
    pub fn add(&mut self, file: &str, text: &str, python: &str) -> Result<(), Problem> {
        let told = |Wrong(line, message)| Problem::error(file, Some(line), message);
        let declared = match file {
            REQUIREMENTS => lines(text),
            PROJECT => project(text),
            _ => script(text),
        };
        let Declared { requirements, python: wanted } = declared.map_err(told)?;
        if let Some((line, wanted)) = wanted {
            fits(&wanted, python).map_err(|message| told(Wrong(line, message)))?;
        }
        for (line, text) in requirements {
            let Some(requirement) = normal(&text).map_err(|message| told(Wrong(line, message)))? else {
                continue;
            };
            if self.is_empty() {
                (self.file, self.line) = (file.to_owned(), Some(line));
            }
            self.requirements.push(requirement);
        }
        self.requirements.sort_unstable();
        self.requirements.dedup();
        Ok(())
    }
}

/// What one file declares, with lines.
#[derive(Default)]
struct Declared {
    requirements: Vec<(u32, String)>,
    python: Option<(u32, String)>,
}

/// A line, and what is wrong there.
struct Wrong(u32, String);

/// A `requirements.txt`. Of pip's options none is for a skill to choose: where packages come from
/// is the user's setting, and that they are the same ones next time is made sure by the lock.
fn lines(text: &str) -> Result<Declared, Wrong> {
    let mut declared = Declared::default();
    for (line, number) in text.lines().zip(1_u32..) {
        let line = match line.split_once(" #") {
            Some((line, _)) => line.trim(),
            None => line.trim(),
        };
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(option) = line.split_whitespace().find(|word| word.starts_with('-')) {
            let option = option.split('=').next().unwrap_or(option);
            let message = format!(
                "`{option}` is not read here: write names of packages with their versions; they are locked \
                 with hashes when the skill is installed"
            );
            return Err(Wrong(number, message));
        }
        declared.requirements.push((number, line.to_owned()));
    }
    Ok(declared)
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Table {
    #[serde(default)]
    dependencies: Vec<Spanned<String>>,
    requires_python: Option<Spanned<String>>,
    #[serde(default)]
    dynamic: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
struct Project {
    project: Option<Table>,
}

fn project(text: &str) -> Result<Declared, Wrong> {
    let Project { project } = toml::from_str(text).map_err(|error| broken(text, 1, &error))?;
    let project = project.unwrap_or_default();
    if let Some(item) = project.dynamic.iter().find(|item| item.get_ref() == "dependencies") {
        let message = "`dependencies` is dynamic, and nothing is built to find out: list them here";
        return Err(Wrong(line(text, 1, item.span()), message.to_owned()));
    }
    Ok(project.declared(text, 1))
}

/// The block of a script, if it has one.
fn script(text: &str) -> Result<Declared, Wrong> {
    let Some((begin, _)) = text.lines().enumerate().find(|(_, line)| line.trim_end() == "# /// script")
    else {
        return Ok(Declared::default());
    };
    let block: Vec<&str> = text.lines().skip(begin + 1).take_while(|line| line.starts_with('#')).collect();
    let Some(end) = block.iter().rposition(|line| line.trim_end() == "# ///") else {
        let message = "the block has no end: close it with a line `# ///`";
        return Err(Wrong(begin as u32 + 1, message.to_owned()));
    };
    let content = |line: &&str| line[1..].strip_prefix(' ').unwrap_or(&line[1..]).to_owned() + "\n";
    let content: String = block[..end].iter().map(content).collect();
    let first = begin as u32 + 2;
    let table: Table = toml::from_str(&content).map_err(|error| broken(&content, first, &error))?;
    Ok(table.declared(&content, first))
}

impl Table {
    fn declared(self, text: &str, first: u32) -> Declared {
        let at = |item: Spanned<String>| (line(text, first, item.span()), item.into_inner());
        Declared {
            requirements: self.dependencies.into_iter().map(at).collect(),
            python: self.requires_python.map(at),
        }
    }
}

/// The line of a place in a text whose first line has this number.
fn line(text: &str, first: u32, place: Range<usize>) -> u32 {
    first + text[..place.start.min(text.len())].matches('\n').count() as u32
}

fn broken(text: &str, first: u32, error: &toml::de::Error) -> Wrong {
    let place = error.span().unwrap_or_default();
    Wrong(line(text, first, place), format!("is no TOML that can be read: {}", error.message()))
}

/// A requirement as it is kept; `None` for the package `omni`: it is here already, and what an
/// index has under that name is another one.
fn normal(text: &str) -> Result<Option<String>, String> {
    let requirement = Requirement::<VerbatimUrl>::from_str(text);
    let requirement =
        requirement.map_err(|error| format!("`{text}` is no requirement: {}", error.message))?;
    if let Some(VersionOrUrl::Url(url)) = &requirement.version_or_url
        && url.scheme() != "https"
    {
        return Err(format!(
            "`{text}` cannot be locked with a hash: name a package of the index or an `https:` file"
        ));
    }
    Ok((requirement.name.as_ref() != "omni").then(|| requirement.to_string()))
}

fn fits(wanted: &str, python: &str) -> Result<(), String> {
    let unreadable = |error: &dyn std::fmt::Display| format!("`requires-python` cannot be read: {error}");
    let specifiers = VersionSpecifiers::from_str(wanted).map_err(|error| unreadable(&error))?;
    let version = Version::from_str(python).map_err(|error| unreadable(&error))?;
    match specifiers.contains(&version) {
        true => Ok(()),
        false => Err(format!("needs Python {wanted}, and the one inside omni is {python}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: &str, text: &str) -> Result<Vec<String>, String> {
        let mut packages = Packages::default();
        packages.add(file, text, "3.11.2").map_err(|problem| problem.to_string())?;
        Ok(packages.requirements)
    }

    #[test]
    fn three_places_are_put_together() {
        let mut packages = Packages::default();
        let project =
            "[project]\nname = \"x\"\nrequires-python = \">=3.11\"\ndependencies = [\n  \"numpy>=2\",\n]\n";
        packages.add(PROJECT, project, "3.11.2").unwrap();
        packages
            .add(
                REQUIREMENTS,
                "# ours\nNumPy >= 2\nhttpx[http2]==0.28 ; python_version < '4' # why\n",
                "3.11.2",
            )
            .unwrap();
        let block = "#!/usr/bin/env python\n# /// script\n# dependencies = [\n#   \"pydantic==2.7.4\", \"omni\",\n# ]\n#\n# ///\nimport x\n";
        packages.add("scripts/a.py", block, "3.11.2").unwrap();
        let wanted = ["httpx[http2]==0.28 ; python_full_version < '4'", "numpy>=2", "pydantic==2.7.4"];
        assert_eq!(packages.requirements, wanted);
        assert_eq!((packages.file.as_str(), packages.line), (PROJECT, Some(5)));
    }

    #[test]
    fn a_file_that_declares_nothing_needs_nothing() {
        for (file, text) in [
            (REQUIREMENTS, "\n# none\n"),
            (PROJECT, "[tool.ruff]\nline-length = 100\n"),
            ("scripts/a.py", "# /// other\n# dependencies = [\"numpy\"]\n# ///\n"),
            ("scripts/a.py", "text = '''\n /// script\n'''\n"),
        ] {
            assert_eq!(read(file, text), Ok(Vec::new()), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (file, text, told) in [
            (
                REQUIREMENTS,
                "numpy\n--index-url https://example.org\n",
                "requirements.txt:2: `--index-url` is not read",
            ),
            (REQUIREMENTS, "-r more.txt\n", "requirements.txt:1: `-r` is not read"),
            (REQUIREMENTS, "numpy==1 --hash=sha256:00\n", "requirements.txt:1: `--hash` is not read"),
            (REQUIREMENTS, "numpy\n\nnumpy >> 2\n", "requirements.txt:3: `numpy >> 2` is no requirement"),
            (REQUIREMENTS, "x @ git+https://example.org/x.git\n", "cannot be locked with a hash"),
            (REQUIREMENTS, "x @ file:///etc/passwd\n", "cannot be locked with a hash"),
            (
                PROJECT,
                "[project]\nname = \"x\"\ndynamic = [\"version\",\n \"dependencies\"]\n",
                "pyproject.toml:4: `dependencies` is dynamic",
            ),
            (PROJECT, "[project]\ndependencies = [\n", "pyproject.toml:"),
            (
                PROJECT,
                "[project]\nrequires-python = \">=3.12\"\n",
                "pyproject.toml:2: needs Python >=3.12, and the one inside omni is 3.11.2",
            ),
            (
                PROJECT,
                "[project]\nrequires-python = \"new\"\n",
                "pyproject.toml:2: `requires-python` cannot be read",
            ),
            (
                "scripts/a.py",
                "import x\n# /// script\n# dependencies = [1]\n# ///\n",
                "scripts/a.py:3: is no TOML",
            ),
            ("scripts/a.py", "# /// script\n# dependencies = []\n\n", "scripts/a.py:1: the block has no end"),
            (
                "scripts/a.py",
                "# /// script\n#\n# dependencies = [\"a b\"]\n# ///\n",
                "scripts/a.py:3: `a b` is no requirement",
            ),
        ] {
            let said = read(file, text).expect_err(text);
            assert!(said.contains(told), "{said}");
        }
    }
}
