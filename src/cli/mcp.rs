//! `omni mcp`: the toolbox for other programs.

use std::io::IsTerminal;

use tokio::sync::watch;

use super::error::{Failure, code};
use super::signal::Stop;
use super::ui::Screen;
use crate::app::App;
use crate::mcp::{Pipes, Server};

/// Be an MCP server on standard input and output
///
/// Editors and assistants start it themselves: `claude mcp add omni -- omni mcp`, or an entry with
/// `"command": "omni", "args": ["mcp"]` in their file of servers. Tools that ask first are refused,
/// unless `policy.allow` names them or `--yes` leaves the asking to the other side.
#[derive(Debug, clap::Args)]
pub(super) struct Mcp {}

pub(super) async fn run(_mcp: Mcp, app: &App, screen: &Screen) -> Result<u8, Failure> {
    if std::io::stdin().is_terminal() {
        screen.remark("this speaks MCP, line by line; Ctrl-D ends it, `omni mcp --help` says who it is for");
    }
    let pipes = Pipes::take()?;
    let mut stop = Stop::listen()?;
    let (shelf, tools) = watch::channel(None);
    let scope = app.scope();
    let cancel = scope.cancel.clone();
    let mut served = std::pin::pin!(Server::new(tools, scope).stdio(pipes));
    let mut shelving = std::pin::pin!(async {
        app.shelve(&shelf).await?;
        std::future::pending().await
    });
    let mut told = code::OK;
    let result: Result<(), Failure> = loop {
        tokio::select! {
            served = &mut served => break served.map_err(|reason| Failure::new(code::FAILED, reason)),
            failed = &mut shelving => break failed,
            code = stop.told() => {
                // Calls stop, and then so does the server.
                told = code;
                cancel.cancel();
            }
        }
    };
    app.finish().await;
    result.map(|()| told)
}
