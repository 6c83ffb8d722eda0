//! `omni chat`: question by question, in one session.

use super::ask::watch;
use super::error::{Failure, code};
use super::signal::Stop;
use super::ui::Screen;
use crate::app::App;
use crate::hub::Hub;
use crate::message::{Incoming, Message};

/// Talk, line by line.
///
/// Each line is a question in the same session. `/new` begins another one, `/quit` or the end of
/// the input ends the talk. `/good` and `/bad` say how the last answer was, which is remembered;
/// `/memory` is `omni memory`. Ctrl-C cancels the turn that is going on.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Chat {
    /// Go on with a session, by its id or the beginning of it
    #[arg(short, long, value_name = "ID")]
    session: Option<String>,
    /// Go on with the last session of this folder
    #[arg(short = 'c', long = "continue", conflicts_with = "session")]
    resume: bool,
}

pub(super) async fn run(chat: Chat, app: &App, screen: &Screen) -> Result<u8, Failure> {
    let mut session = match chat.resume {
        true => app.latest_session().await?,
        false => chat.session,
    };
    app.watch().await?;
    let hub = app.hub().await?;
    screen
        .remark(&format!("omni with {}; /new for a new session, /quit to leave", app.model().await?.name()));
    // Held so that what was agreed to "always" stays agreed to for the session.
    let mut lane = None;
    let mut stop = Stop::listen()?;
    while let Some(line) = next(screen, &mut stop).await {
        match line.trim() {
            "" => {}
            "/quit" | "/exit" => break,
            "/new" => {
                session = None;
                lane = None;
            }
            "/help" => {
                screen.remark(
                    "/new begins a new session, /good and /bad judge the last answer, /memory shows and changes \
                     what is remembered, /quit leaves; everything else is a question",
                );
            }
            verdict @ ("/good" | "/bad") => judge(&hub, session.as_deref(), verdict == "/good", screen).await,
            command if command == "/memory" || command.starts_with("/memory ") => {
                let words = command.trim_start_matches("/memory");
                if let Err(failure) = super::memory::slash(words, app, screen).await {
                    screen.remark(&failure.message);
                }
            }
            command if command.starts_with('/') && !command.contains(' ') => {
                screen.remark(&format!("there is no `{command}`; /help shows what there is"));
            }
            question => {
                let incoming = Incoming { session: session.clone(), message: Message::user(question) };
                let running = hub.submit(incoming, true).await?;
                session = Some(running.session.clone());
                lane = Some(running.lane.clone());
                watch(running, screen, &mut stop).await?;
            }
        }
    }
    drop(lane);
    app.finish().await;
    Ok(code::OK)
}

/// Passes a verdict on.
async fn judge(hub: &Hub, session: Option<&str>, good: bool, screen: &Screen) {
    let judged = match session {
        Some(session) => hub.judge(session, good).await,
        None => Ok(false),
    };
    match judged {
        Ok(true) if good => screen.remark("good: what helped counts more from now on"),
        Ok(true) => screen.remark("bad: what was shown and done counts less from now on"),
        Ok(false) => screen.remark("there is no answer to judge, or `memory.enabled` is off"),
        Err(error) => screen.remark(&format!("the verdict was not kept: {error}")),
    }
}

/// The next line; `None` at the end of the input or after Ctrl-C.
async fn next(screen: &Screen, stop: &mut Stop) -> Option<String> {
    tokio::select! {
        line = screen.read("› ") => line,
        _ = stop.told() => None,
    }
}
