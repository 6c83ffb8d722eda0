//! `omni serve`: the assistant over HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::acp;
use super::error::{Failure, code};
use super::signal::Stop;
use super::ui::Screen;
use crate::app::App;
use crate::channel::telegram::{Telegram, Trouble};
use crate::clock::Reach;
use crate::config::Secret;
use crate::gateway::hook::Take;
use crate::gateway::{Gateway, Hook, Setting};
use crate::stdio::acp::http;
use crate::{mcp, measure};

/// How long Telegram may take to end once all turns have.
const PARTING: Duration = Duration::from_secs(10);

/// Answer over HTTP, and print the URL
///
/// `POST /message` takes {"session_id", "message"}; `/v1/chat/completions` speaks OpenAI's protocol, with
/// the model `omni`; `/acp` is for editors that are elsewhere. Programs of this machine come in without a
/// token unless there is one; browsers and other machines need one: `omni token new`. The jobs of this folder are run: `omni job`. With `telegram.token`
/// it talks on Telegram, too: see `omni channel`. SIGTERM and Ctrl-C finish the turns that go on, and a second one
/// ends them at once.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Serve {
    /// Listen there; port 0 takes a free one [default: gateway.bind]
    #[arg(long, value_name = "ADDRESS:PORT")]
    bind: Option<SocketAddr>,
    /// What callers have to know: `env:NAME`, or `file:PATH`
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// Seconds until there is an answer, waiting included [default: gateway.turn_timeout]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    turn_timeout: Option<f64>,
}

pub(super) async fn run(serve: Serve, app: App, screen: &Screen) -> Result<u8, Failure> {
    let app = Arc::new(app);
    let mut stop = Stop::listen()?;
    let setting = setting(serve, &app)?;
    if !measure::begin() {
        screen.remark("nothing is counted: /metrics has no numbers");
    }
    app.watch().await?;
    let hub = app.hub().await?;
    let telegram = app.telegram(hub.clone()).await?;
    let (shelf, tools) = watch::channel(None);
    let server = mcp::Server::new(tools, app.scope(), app.servers().await, None);
    let (routes, announcing) = server.mounted();
    let routes = routes.merge(http::router(acp::house(app.clone())));
    let listener = Gateway::bind(hub.clone(), app.store().await?.clone(), setting, routes).await;
    let listener = listener.map_err(|reason| Failure::new(code::FAILED, reason))?;
    let listener = listener.with_hook(telegram.clone().and_then(hook));
    let url = listener.url().map_err(|reason| Failure::new(code::FAILED, reason))?;
    if listener.is_free() {
        screen.remark("programs of this machine need no token, as there is none; others cannot come in");
    }
    app.attend(&hub, Reach::All)?;
    screen.line(&url)?;
    let told = CancellationToken::new();
    let mut trouble = telegram.as_ref().map(|telegram| telegram.trouble());
    let talking = telegram.map(|telegram| tokio::spawn(telegram.run(told.clone())));
    let mut serving = std::pin::pin!(listener.serve(told.clone().cancelled_owned()));
    let mut offering = std::pin::pin!(async {
        tokio::select! {
            filled = app.fill(&shelf) => filled,
            () = announcing => Ok(()),
        }
    });
    let served = loop {
        tokio::select! {
            served = &mut serving => break served,
            offered = &mut offering => break offered.map_err(|error| error.to_string()),
            code = stop.told() => {
                if told.is_cancelled() {
                    // Nobody is waited for.
                    return Ok(code);
                }
                screen.remark("finishing what goes on; a second signal ends it at once");
                told.cancel();
            }
            reason = news(&mut trouble) => screen.remark(&format!("Telegram: {reason}")),
        }
    };
    told.cancel();
    if let Some(talking) = talking {
        // What is not sent by then is sent after the next start.
        let _ = tokio::time::timeout(PARTING, talking).await;
    }
    app.finish().await;
    served.map(|()| code::OK).map_err(|reason| Failure::new(code::FAILED, reason))
}

/// Where Telegram brings news, if it is to.
fn hook(telegram: Arc<Telegram>) -> Option<Hook> {
    let (path, secret) = telegram.hook()?;
    let take: Take = Arc::new(move |body| {
        let telegram = telegram.clone();
        Box::pin(async move { telegram.bring(&body).await })
    });
    Some(Hook { path, header: "x-telegram-bot-api-secret-token", secret, take })
}

/// Waits for news of what goes wrong with Telegram.
async fn news(trouble: &mut Option<watch::Receiver<Trouble>>) -> String {
    if let Some(receiver) = trouble {
        while receiver.changed().await.is_ok() {
            if let Some(reason) = receiver.borrow_and_update().clone() {
                return reason;
            }
        }
    }
    *trouble = None;
    std::future::pending().await
}

fn setting(serve: Serve, app: &App) -> Result<Setting, Failure> {
    let config = &app.loaded.config.gateway;
    let bind = match serve.bind {
        Some(bind) => bind,
        None => config.bind.parse().map_err(|_| {
            Failure::new(code::SETUP, format!("`gateway.bind` is no address with a port: {:?}", config.bind))
                .hint("write one as in \"127.0.0.1:8080\"")
        })?,
    };
    let configured = || Some(config.token.clone()).filter(|token| !token.is_empty());
    let token = match serve.token {
        Some(token) => revealed(Some(token))?,
        None => configured().map(|token| read(&token)).transpose()?,
    };
    let turn_timeout = Duration::from_secs_f64(serve.turn_timeout.unwrap_or(config.turn_timeout));
    Ok(Setting { bind, token, turn_timeout, rate: config.rate, any_model: config.any_model })
}

/// The token itself. Written on the command line, everybody on the machine could read it.
pub(super) fn revealed(token: Option<String>) -> Result<Option<String>, Failure> {
    let Some(token) = token else { return Ok(None) };
    if !["env:", "file:"].iter().any(|kind| token.starts_with(kind)) {
        return Err(Failure::new(
            code::USAGE,
            "the token is not written on the command line, where others see it",
        )
        .hint("write `env:NAME` or `file:PATH`"));
    }
    read(&Secret::new(token)).map(Some)
}

fn read(token: &Secret) -> Result<String, Failure> {
    let token = token.reveal().map_err(|error| Failure::new(code::SETUP, error.to_string()))?;
    match token.is_empty() {
        true => Err(Failure::new(code::SETUP, "the token is empty")),
        false => Ok(token),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.001..=1e9).contains(seconds));
    seconds.ok_or_else(|| "a number of seconds is needed".to_owned())
}
