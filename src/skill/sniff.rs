//! Which skills a workspace is about, by the names of the files in it.
//!
//! `files: Cargo.toml *.rs` in the `metadata` of a `SKILL.md` says so. Only so many names are
//! looked at, nearest first, and no file is opened.

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;

use serde_json::{Map, Value};

/// Names that are looked at.
const NAMES: usize = 1000;
/// Folders below the workspace that are gone into.
const DEPTH: usize = 3;
/// Patterns a skill may have, and characters each of them.
const PATTERNS: usize = 16;
const LENGTH: usize = 64;
/// Folders of what others wrote, or programs made.
const FOREIGN: [&str; 3] = ["node_modules", "target", "__pycache__"];

/// The patterns of a skill; the error says what is wrong with them.
pub fn patterns(metadata: &Map<String, Value>) -> Result<Vec<String>, String> {
    let Some(value) = metadata.get("files") else { return Ok(Vec::new()) };
    let text = value.as_str().ok_or_else(|| {
        format!("`metadata.files` is names of files separated by spaces, `Cargo.toml *.rs`, not {value}")
    })?;
    let patterns: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    if patterns.len() > PATTERNS {
        return Err(format!("`metadata.files` has {} names; {PATTERNS} is the limit", patterns.len()));
    }
    match patterns.iter().find(|pattern| pattern.contains('/') || pattern.chars().count() > LENGTH) {
        Some(wrong) => Err(format!(
            "`{wrong}` in `metadata.files` is no name of a file: up to {LENGTH} characters with `*` and `?`, no `/`"
        )),
        None => Ok(patterns),
    }
}

/// The names of the nearest files and folders.
pub(super) fn names(workspace: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut folders = VecDeque::from([(workspace.to_owned(), 0)]);
    let mut looked = 0;
    while let Some((folder, depth)) = folders.pop_front() {
        // What cannot be read says nothing.
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            looked += 1;
            if looked > NAMES {
                return names;
            }
            let Ok(name) = entry.file_name().into_string() else { continue };
            let is_own = !name.starts_with('.') && !FOREIGN.contains(&name.as_str());
            if is_own && depth < DEPTH && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push_back((entry.path(), depth + 1));
            }
            names.insert(name);
        }
    }
    names
}

/// Whether any of these names is meant by a pattern with `*` and `?`.
pub(super) fn fits(patterns: &[String], names: &BTreeSet<String>) -> bool {
    patterns.iter().any(|pattern| match pattern.contains(['*', '?']) {
        true => names.iter().any(|name| matches(pattern, name)),
        false => names.contains(pattern),
    })
}

fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // The last star, and where what it stands for ends.
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == '?' || c == name[n] => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((at, end)) => {
                    star = Some((at, end + 1));
                    (p, n) = (at + 1, end + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_match() {
        for (pattern, name) in [
            ("*.rs", "a.rs"),
            ("*", ""),
            ("a*c*e", "abcde"),
            ("?.md", "é.md"),
            ("**x", "xx"),
            (".git", ".git"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("*.rs", "a.rsx"), ("?", ""), ("a*b", "acbd"), ("a", "A"), ("", "a")] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn only_so_many_names_and_only_so_deep() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("1/2/3/4");
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::create_dir_all(folder.path().join("node_modules/inside")).unwrap();
        std::fs::write(deep.join("far"), "").unwrap();
        let seen = names(folder.path());
        assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), ["1", "2", "3", "4", "node_modules"]);
        for number in 0..2 * NAMES {
            std::fs::write(deep.parent().unwrap().join(format!("file-{number}")), "").unwrap();
        }
        assert!(names(folder.path()).len() <= NAMES);
    }

    #[test]
    fn what_may_be_written() {
        let read = |value: Value| patterns(&Map::from_iter([("files".to_owned(), value)]));
        assert_eq!(read("Cargo.toml  *.rs".into()).unwrap(), ["Cargo.toml", "*.rs"]);
        assert!(read(3.into()).unwrap_err().contains("separated by spaces"));
        assert!(read("src/*.rs".into()).unwrap_err().contains("`src/*.rs` in `metadata.files` is no name"));
        assert!(read("a ".repeat(17).into()).unwrap_err().contains("17 names; 16 is the limit"));
    }
}
