//! Where things are on this machine.

use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;

/// The folder of the workspace that files for people are put into.
pub const OUTPUT: &str = "output";

/// The folders omni uses, after the XDG base directory specification. Nothing is created
/// until something is written.
#[derive(Debug, Clone, PartialEq)]
pub struct Paths {
    /// The user's configuration and skills.
    pub config: PathBuf,
    /// Conversations, notes: what must not be lost.
    pub data: PathBuf,
    /// The log and the input history.
    pub state: PathBuf,
    /// What can be made again: the skill index, unpacked skills.
    pub cache: PathBuf,
    /// The folder the user works in: where `.omni` or `.git` is, else the current one.
    pub workspace: PathBuf,
}

impl Paths {
    /// Finds them. `OMNI_HOME` puts all but the workspace under one folder.
    pub fn find(current: &Path) -> Result<Self, String> {
        let workspace = workspace(current);
        if let Some(home) = std::env::var_os("OMNI_HOME").filter(|home| !home.is_empty()) {
            let home = std::path::absolute(&home).map_err(|error| format!("OMNI_HOME: {error}"))?;
            return Ok(Self {
                config: home.join("config"),
                data: home.join("data"),
                state: home.join("state"),
                cache: home.join("cache"),
                workspace,
            });
        }
        let base = etcetera::base_strategy::Xdg::new()
            .map_err(|error| format!("no home folder: {error}; set HOME or OMNI_HOME"))?;
        let state = base.state_dir().unwrap_or_else(|| base.data_dir());
        Ok(Self {
            config: base.config_dir().join("omni"),
            data: base.data_dir().join("omni"),
            state: state.join("omni"),
            cache: base.cache_dir().join("omni"),
            workspace,
        })
    }

    /// Where systemd looks for a user's own units.
    pub fn units() -> Result<PathBuf, String> {
        let base = etcetera::base_strategy::Xdg::new().map_err(|error| format!("no home folder: {error}"))?;
        Ok(base.config_dir().join("systemd/user"))
    }

    /// Where files are put that are for people: results of jobs, for one.
    pub fn output(&self) -> PathBuf {
        self.workspace.join(OUTPUT)
    }

    /// The project's own settings and skills.
    pub fn project(&self) -> PathBuf {
        self.workspace.join(".omni")
    }
}

fn workspace(current: &Path) -> PathBuf {
    let marked = |folder: &&Path| folder.join(".omni").is_dir() || folder.join(".git").exists();
    current.ancestors().find(marked).unwrap_or(current).to_path_buf()
}
