//! `omni ask`: one question, one answer.

use std::io::{IsTerminal, Read};
use std::time::{Duration, Instant};

use super::error::{self, Failure, code};
use super::signal::Stop;
use super::ui::{Screen, Show, Silence};
use crate::app::App;
use crate::hub::Running;
use crate::message::event::{Answer, EventKind, StopReason};
use crate::message::{Incoming, Message};

/// Bytes of standard input that become context.
const CONTEXT: u64 = 1 << 20;
/// Ctrl-C twice within this time means it.
pub(super) const TWICE: Duration = Duration::from_secs(2);

/// Ask one question and print the answer.
///
/// What is piped in becomes context: `git diff | omni ask "review this"`. With no words at all,
/// what is piped in is the question. The answer goes to standard output, everything else to
/// standard error. With `--json` every event is a line; the last one is of type `result`.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Ask {
    /// The question; several words are joined
    words: Vec<String>,
    /// Go on with a session, by its id or the beginning of it
    #[arg(short, long, value_name = "ID")]
    session: Option<String>,
    /// Go on with the last session of this folder
    #[arg(short = 'c', long = "continue", conflicts_with = "session")]
    resume: bool,
}

pub(super) async fn run(ask: Ask, app: &App, screen: &Screen) -> Result<u8, Failure> {
    let question = question(&ask.words)?;
    let session = match ask.resume {
        true => app.latest_session().await?,
        false => ask.session,
    };
    let hub = app.hub().await?;
    let incoming = Incoming { session, message: Message::user(question) };
    let asks = std::io::stdin().is_terminal() && !screen.json;
    let mut stop = Stop::listen()?;
    let running = hub.submit(incoming, asks).await?;
    let result = watch(running, screen, &mut stop).await;
    app.finish().await;
    result
}

/// Shows a turn to its end. Ctrl-C cancels it; what it had is kept. Twice, it is not waited for: a failure with the
/// code of the second.
pub(super) async fn watch(mut running: Running, screen: &Screen, stop: &mut Stop) -> Result<u8, Failure> {
    let mut show = Show::new(screen);
    let mut told: Option<(u8, Instant)> = None;
    loop {
        let event = tokio::select! {
            event = running.events.next() => event,
            code = stop.told() => {
                // It ends where it can: whoever cannot wait for that need not.
                if told.is_some_and(|(_, before)| before.elapsed() < TWICE) {
                    show.rest();
                    return Err(Failure::new(code, "nobody waited for the end of the turn; what it had is kept"));
                }
                told = Some((code, Instant::now()));
                show.spin("stopping; Ctrl-C again does not wait for it");
                running.cancel.cancel();
                continue;
            }
        };
        let Some(event) = event else {
            return Err(Failure::new(code::FAILED, "the turn ended without a result"));
        };
        if let Err(error) = show.event(&event) {
            // Nobody reads any more: no reason to let it go on.
            running.cancel.cancel();
            return Err(error.into());
        }
        match event.kind {
            EventKind::Approval(approval) => {
                let consent = unless_told(screen.approve(&approval), screen, stop).await;
                show.spin(&approval.tool);
                given(consent, &approval.answer, &running, &mut told);
            }
            EventKind::Elicitation(question) => {
                let answer = unless_told(screen.elicit(&question), screen, stop).await;
                show.spin(&question.tool);
                given(answer, &question.answer, &running, &mut told);
            }
            EventKind::Finished(finished) => {
                let told = told.map(|(code, _)| code).filter(|_| finished.stop == StopReason::Cancelled);
                return Ok(told.unwrap_or(error::turn(finished.stop)));
            }
            _ => {}
        }
    }
}

/// Waits for an answer, unless told to end meanwhile.
pub(super) async fn unless_told<T>(
    asked: impl Future<Output = Result<T, Silence>>,
    screen: &Screen,
    stop: &mut Stop,
) -> Result<T, Silence> {
    let code = tokio::select! {
        answer = asked => return answer,
        code = stop.told() => code,
    };
    screen.rest().await;
    Err(Silence::Interrupted(code))
}

/// Passes an answer on; Ctrl-C instead of one cancels the turn.
fn given<T>(
    given: Result<T, Silence>,
    answer: &Answer<T>,
    running: &Running,
    told: &mut Option<(u8, Instant)>,
) {
    match given {
        Ok(given) => drop(answer.give(given)),
        Err(Silence::Interrupted(code)) => {
            *told = Some((code, Instant::now()));
            running.cancel.cancel();
        }
        // Dropped, it is refused.
        Err(Silence::Nobody) => {}
    }
}

/// The words, with what is piped in as context.
fn question(words: &[String]) -> Result<String, Failure> {
    let words = words.join(" ");
    let piped = piped()?;
    match (words.trim().is_empty(), piped) {
        (true, None) => Err(Failure::new(code::USAGE, "there is no question")
            .hint("ask one: omni ask \"which files are large?\"")),
        (true, Some(text)) => Ok(text),
        (false, None) => Ok(words),
        (false, Some(text)) => {
            // A fence that the text cannot close.
            let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0).max(2);
            let fence = "`".repeat(longest + 1);
            Ok(format!("{words}\n\n{fence}\n{}\n{fence}", text.trim_end_matches('\n')))
        }
    }
}

/// What is on standard input, unless a person is.
fn piped() -> Result<Option<String>, Failure> {
    let input = std::io::stdin();
    if input.is_terminal() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    input.lock().take(CONTEXT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > CONTEXT {
        let message = format!("standard input has more than {} MB", CONTEXT >> 20);
        return Err(Failure::new(code::USAGE, message).hint("name the file in the question instead"));
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(Some(text).filter(|text| !text.trim().is_empty()))
}
