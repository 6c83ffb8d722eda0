//! `omni config`: the settings in force, and where they come from.

use super::error::{Failure, code};
use super::ui::Screen;
use crate::app::App;
use crate::config;

/// Show the settings in force and where they come from.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Config {
    /// Show every setting
    Show {
        /// With the file and line, variable or flag it comes from
        #[arg(long)]
        origin: bool,
    },
    /// Show the files that are read, and the folders that are used
    Paths,
}

pub(super) fn run(command: Config, app: &App, screen: &Screen) -> Result<u8, Failure> {
    match command {
        Config::Show { .. } if screen.json => screen.value(&app.loaded.config)?,
        Config::Show { origin } => screen.print(&config::show(&app.loaded, origin))?,
        Config::Paths => {
            let paths = &app.paths;
            let rows = [
                ("your settings", paths.config.join("config.toml")),
                ("the project's settings", paths.project().join("config.toml")),
                ("your skills", paths.config.join("skills")),
                ("the project's skills", paths.project().join("skills")),
                ("data", paths.data.clone()),
                ("log", paths.state.clone()),
                ("cache", paths.cache.clone()),
                ("workspace", paths.workspace.clone()),
            ];
            for (name, path) in rows {
                let missing = if path.exists() { "" } else { "  (not there yet)" };
                screen.line(&format!("{name:22}  {}{missing}", path.display()))?;
            }
        }
    }
    Ok(code::OK)
}
