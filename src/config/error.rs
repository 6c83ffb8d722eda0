//! What is wrong with the settings.

use std::path::PathBuf;

use super::layers::Origin;

/// A mistake in the settings, where it is, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A file is there but cannot be read.
    #[error("cannot read the settings in `{}`: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A file is no TOML.
    #[error("`{}`, line {line}: this is no TOML: {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser says.
        reason: String,
    },
    /// There is no such setting.
    #[error("{origin}: there is no setting `{key}`{}", hint(nearest))]
    Unknown {
        /// Where it stands.
        origin: Origin,
        /// What stands there.
        key: String,
        /// What may have been meant.
        nearest: Option<String>,
    },
    /// The setting has another type, or a value that makes no sense.
    #[error("{origin}: `{key}` must be {expected}, but it is {found}")]
    Wrong {
        /// Where it stands.
        origin: Origin,
        /// The setting.
        key: String,
        /// What it must be.
        expected: &'static str,
        /// What it is; never the value itself, which may be a secret.
        found: &'static str,
    },
    /// A project's file may not say this.
    #[error(
        "{origin}: a project may not set `{key}`, because {reason}; if you want it, put it into your own file, `{}`",
        user.display()
    )]
    Refused {
        /// Where it stands.
        origin: Origin,
        /// The setting.
        key: String,
        /// What it could do.
        reason: &'static str,
        /// The user's file.
        user: PathBuf,
    },
}

fn hint(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|key| format!("; did you mean `{key}`?")).unwrap_or_default()
}
