//! `omni mcp login` and `logout`: who we are to a server.

use std::io::IsTerminal;
use std::process::Stdio;
use std::sync::Arc;

use futures::FutureExt;
use tokio::process::Command;
use tokio::sync::{mpsc, oneshot};

use super::error::{Failure, code};
use super::signal::Stop;
use super::ui::Screen;
use crate::app::App;
use crate::mcp::{Browser, Revoked, Status, Visit};

/// How to sign in.
#[derive(Debug, clap::Args)]
pub(super) struct Login {
    /// The server
    name: String,
    /// Open no browser: print the page's address only
    #[arg(long)]
    no_browser: bool,
    /// Ask for this to be allowed, too
    #[arg(long, value_name = "SCOPE")]
    scope: Vec<String>,
}

pub(super) async fn login(login: Login, app: &App, screen: &Screen) -> Result<u8, Failure> {
    let Login { name, no_browser, scope } = login;
    let servers = app.servers().await;
    let (sender, mut visits) = mpsc::channel::<(Visit, oneshot::Sender<Result<String, String>>)>(1);
    let browser: Browser = Arc::new(move |visit| {
        let sender = sender.clone();
        async move {
            let (answer, answered) = oneshot::channel();
            let nobody = || "nobody is there to sign in".to_owned();
            sender.send((visit, answer)).await.map_err(|_| nobody())?;
            answered.await.map_err(|_| nobody())?
        }
        .boxed()
    });
    servers.browse(&browser);
    let mut stop = Stop::listen()?;
    let mut signing = std::pin::pin!(servers.sign_in(&name, &scope));
    let signed = loop {
        tokio::select! {
            signed = &mut signing => break signed,
            code = stop.told() => return Ok(code),
            Some((visit, answer)) = visits.recv() => {
                let came = tokio::select! {
                    came = take(visit, !no_browser, screen) => came,
                    code = stop.told() => return Ok(code),
                };
                let _ = answer.send(came);
            }
        }
    };
    let result = match signed {
        None => Err(super::mcp::unusable(&name, app)),
        Some(Err(reason)) => Err(Failure::new(code::FAILED, format!("`{name}`: {reason}"))),
        Some(Ok(())) => match servers.try_out(&name).await {
            Some(Status::Down { reason, .. }) => {
                Err(Failure::new(code::FAILED, format!("`{name}`: {reason}")))
            }
            _ => Ok(servers.tools(&name).len()),
        },
    };
    app.finish().await;
    let tools = result?;
    screen.line(&format!("signed in to {name}: {tools} tools"))?;
    Ok(code::OK)
}

/// Takes a person to the page, and waits until a browser comes back or its address is typed in.
async fn take(visit: Visit, opens: bool, screen: &Screen) -> Result<String, String> {
    screen.remark(&format!("sign in to `{}` here:", visit.server));
    let shown = match screen.json {
        true => screen.value(&serde_json::json!({"page": visit.page})),
        false => screen.line(&visit.page),
    };
    shown.map_err(|error| error.to_string())?;
    if opens && std::io::stdin().is_terminal() {
        open(&visit.page);
    }
    tokio::select! {
        came = visit.landed() => came,
        Some(line) = screen.read("or, from another machine, paste the address you were sent to: ") => Ok(line),
    }
}

/// Opens a page in the browser, if there is one.
fn open(page: &str) {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let mut command = Command::new(program);
    command.arg(page).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Ok(mut child) = command.spawn() {
        tokio::spawn(async move { child.wait().await });
    }
}

pub(super) async fn logout(name: &str, app: &App, screen: &Screen) -> Result<u8, Failure> {
    let forgotten = app.servers().await.sign_out(name).await;
    screen.remark(&match forgotten.ok_or_else(|| super::mcp::unusable(name, app))?? {
        None => format!("nobody was signed in to `{name}`"),
        Some(Revoked::Yes) => format!("the tokens for `{name}` are gone, and worth nothing any more"),
        Some(Revoked::Never) => {
            format!("the tokens for `{name}` are gone; who gave them takes none back, so a copy is good until it ends")
        }
        Some(Revoked::No(reason)) => format!(
            "the tokens for `{name}` are gone here, but they were not taken back, so a copy is good until it ends: {reason}"
        ),
    });
    Ok(code::OK)
}
