//! Variables in the texts of a server: `${TOKEN}`, `${TOKEN:-none}`, `${workspaceFolder}`.
//!
//! Each is looked up once and what it says is not read again. One that says nothing is an error: a
//! placeholder must never reach a server in the place of a secret.

use std::path::{Path, PathBuf};

/// What variables can say.
pub struct Variables<'a> {
    /// The environment.
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    /// The folder the user works in.
    pub workspace: &'a Path,
}

impl Variables<'_> {
    /// The text with its variables put in. The error says which one has no value.
    pub(super) fn expand(&self, text: &str) -> Result<String, String> {
        let mut out = String::new();
        let text = self.at_home(text);
        let mut rest = text.as_str();
        while let Some(at) = rest.find(['$', '{']) {
            let (before, here) = rest.split_at(at);
            out.push_str(before);
            let (length, value) = self.at(here)?;
            out.push_str(&value);
            rest = &here[length..];
        }
        Ok(out + rest)
    }

    /// The length and the value of what begins here with `$` or `{`.
    fn at(&self, text: &str) -> Result<(usize, String), String> {
        if text.starts_with("$${") {
            return Ok((3, "${".to_owned()));
        }
        let (open, bare) = match text.strip_prefix("${") {
            Some(rest) => (2, rest),
            None => (1, &text[1..]),
        };
        let name = bare.split_once('}').map(|(name, _)| name);
        // Without the dollar only these are variables; everything else is JSON or the like.
        let is_one = open == 2 || ["env:", "file:"].iter().any(|kind| bare.starts_with(kind));
        match name.filter(|_| is_one && (open == 2 || text.starts_with('{'))) {
            Some(name) => Ok((open + name.len() + 1, self.value(name)?)),
            None => Ok((1, text[..1].to_owned())),
        }
    }

    fn value(&self, written: &str) -> Result<String, String> {
        let (name, default) = match written.split_once(":-") {
            Some((name, default)) => (name, Some(default.to_owned())),
            None => (written, None),
        };
        let variable = |name: &str| (self.environment)(name).filter(|value| !value.is_empty());
        let workspace = || Some(self.workspace.to_string_lossy().into_owned());
        let (value, what) = match name.split_once(':') {
            Some(("env", name)) => (variable(name), format!("the environment variable `{name}` is not set")),
            Some(("input", id)) => {
                let name = format!("OMNI_INPUT_{}", id.to_uppercase().replace(['-', '.', ' '], "_"));
                (
                    variable(&name),
                    format!("the input `{id}` has no value; set the environment variable `{name}`"),
                )
            }
            Some(("file", path)) => {
                let text = std::fs::read_to_string(self.path(path));
                let what = text.as_ref().err().map(ToString::to_string).unwrap_or_default();
                let text = text.ok().map(|text| text.trim_end_matches(['\r', '\n']).to_owned());
                (text, format!("the file `{path}` cannot be read: {what}"))
            }
            Some(_) => (None, format!("there is no variable `${{{written}}}`")),
            None => match name {
                "workspaceFolder" => (workspace(), String::new()),
                "workspaceFolderBasename" => {
                    let name = self.workspace.file_name().unwrap_or_default();
                    (Some(name.to_string_lossy().into_owned()), String::new())
                }
                "userHome" => (variable("HOME"), "HOME is not set".to_owned()),
                "pathSeparator" | "/" => (Some("/".to_owned()), String::new()),
                name => (variable(name), format!("the environment variable `{name}` is not set")),
            },
        };
        value.or(default).ok_or(what)
    }

    /// A path of the file, which may begin at home.
    pub(super) fn path(&self, text: &str) -> PathBuf {
        self.workspace.join(self.at_home(text))
    }

    fn at_home(&self, text: &str) -> String {
        match (text.strip_prefix("~/"), (self.environment)("HOME")) {
            (Some(rest), Some(home)) => format!("{home}/{rest}"),
            _ => text.to_owned(),
        }
    }
}
