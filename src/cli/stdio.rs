//! `omni stdio`: answers on standard output to messages on standard input.

use std::io::{IsTerminal, Write};

use tokio_util::sync::CancellationToken;

use super::error::{Failure, code};
use super::signal::Stop;
use super::ui::{Screen, result};
use crate::app::App;
use crate::mcp::Pipes;
use crate::stdio::{json, lines};

/// Answer messages on standard input, one a line
///
/// Every line is a message and gets one answer, in order and in one session; where there is none, a line
/// that begins with `error:` says why, and the next one has its turn. With `-0` messages and answers may have
/// several lines. With `--json` both sides speak JSON lines: what goes on is told as it happens, questions of
/// tools can be answered, and turns cancelled.
#[derive(Debug, clap::Args)]
pub(super) struct Stdio {
    /// Go on with a session, by its id or the beginning of it
    #[arg(short, long, value_name = "ID")]
    session: Option<String>,
    /// Go on with the last session of this folder
    #[arg(short = 'c', long = "continue", conflicts_with = "session")]
    resume: bool,
    /// Messages and answers end with a zero byte instead of a line's end
    #[arg(short = '0', long, conflicts_with = "json")]
    null: bool,
}

pub(super) async fn run(stdio: Stdio, app: &App, screen: &Screen) -> Result<u8, Failure> {
    if std::io::stdin().is_terminal() {
        screen.remark("one line, one answer, for scripts; Ctrl-D ends it, and `omni chat` is for people");
    }
    let mut stop = Stop::listen()?;
    let pipes = Pipes::take()?;
    // Standard output is standard error by now, and the last line of JSON belongs to the other side.
    let mut last = pipes.output.try_clone()?;
    let told = CancellationToken::new();
    let mut signal = None;
    let served = {
        let mut serving = std::pin::pin!(serve(stdio, app, screen, pipes, told.clone()));
        loop {
            tokio::select! {
                served = &mut serving => break served,
                code = stop.told() => {
                    if signal.replace(code).is_some() {
                        // Nobody is waited for.
                        return Ok(code);
                    }
                    told.cancel();
                }
            }
        }
    };
    app.finish().await;
    match served {
        Ok(code) => Ok(signal.unwrap_or(code)),
        Err(failure) if screen.json && !failure.silent => {
            screen.failure(&failure);
            writeln!(last, "{}", result(&failure))?;
            Ok(failure.code())
        }
        Err(failure) => Err(failure),
    }
}

async fn serve(
    stdio: Stdio,
    app: &App,
    screen: &Screen,
    pipes: Pipes,
    stop: CancellationToken,
) -> Result<u8, Failure> {
    let session = match (stdio.resume, stdio.session) {
        (true, _) => app.latest_session().await?,
        (false, Some(id)) => Some(app.sessions().await?.resolve(&id).await?.id),
        (false, None) => None,
    };
    app.watch().await?;
    let hub = app.hub().await?;
    let Pipes { input, output } = pipes;
    if screen.json {
        json::serve(hub, session, input, output, stop).await?;
        return Ok(code::OK);
    }
    let end = if stdio.null { 0 } else { b'\n' };
    let failed = lines::serve(hub, session, input, output, end, stop).await?;
    Ok(if failed == 0 { code::OK } else { code::FAILED })
}
