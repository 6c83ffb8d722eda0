//! `omni dev`: what is of use to those who work on omni.

use tokio::sync::watch;

use super::error::{Failure, code};
use crate::app::App;
use crate::mcp::Setting;
use crate::mcp::conformance::{self, Scenario};
use crate::shutdown::Shutdown;
use crate::tool::Settings;

/// For those who work on omni
#[derive(Debug, clap::Subcommand)]
pub(super) enum Dev {
    /// Be the client that the official conformance suite of MCP tests
    ///
    /// The suite says in its environment which scenario it plays.
    McpConformance {
        /// The server that plays the other part
        url: String,
    },
}

pub(super) async fn run(dev: Dev, app: &App) -> Result<u8, Failure> {
    let Dev::McpConformance { url } = dev;
    let told = |name: &str| std::env::var(name).unwrap_or_default();
    let name = told("MCP_CONFORMANCE_SCENARIO");
    let context = serde_json::from_str(&told("MCP_CONFORMANCE_CONTEXT")).unwrap_or_default();
    // Scenarios know nothing of each other.
    let folder = tempfile::TempDir::new()?;
    let shutdown = Shutdown::default();
    let setting = Setting {
        cache: folder.path().join("cache"),
        accounts: folder.path().join("accounts"),
        listed: watch::Sender::new(()),
        shutdown: shutdown.clone(),
    };
    let tools = Settings::new(&app.loaded.config, &app.paths, true)
        .map_err(|error| Failure::new(code::SETUP, error.to_string()))?;
    let played = conformance::play(&url, &Scenario { name, context }, &setting, tools).await;
    shutdown.finish(std::time::Duration::from_secs(2)).await;
    played.map(|()| code::OK).map_err(|reason| Failure::new(code::FAILED, reason))
}
