//! One message a line, one answer for each: for scripts that want no protocol.

use std::fs::File;
use std::io;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;

use super::line::{Line, Lines};
use crate::hub::{Hub, command};
use crate::message::event::{EventKind, Finished, StopReason};
use crate::message::{Incoming, Message};

/// Answers one message after the other, all in one session, until there are no more or `stop` is
/// given. Messages and answers end with the byte `end`. Instead of an answer that could not be had there is a line that begins with `error: `.
/// Returns how many of those there were.
pub async fn serve(
    hub: Arc<Hub>,
    session: Option<String>,
    input: File,
    output: File,
    end: u8,
    stop: CancellationToken,
) -> io::Result<usize> {
    let mut lines = Lines::new(input, end);
    let mut output = tokio::fs::File::from_std(output);
    let mut talk = Talk { hub, session, stop: stop.clone() };
    let mut failed = 0;
    loop {
        let line = tokio::select! {
            biased;
            () = stop.cancelled() => None,
            line = lines.next() => line?,
        };
        let answer = match line {
            None => return Ok(failed),
            Some(Line::Text(text)) if text.trim().is_empty() => continue,
            Some(Line::Text(text)) => talk.answer(text.trim()).await,
            Some(Line::Bad(reason)) => Err(format!("message {} cannot be read: {reason}", lines.count())),
        };
        failed += usize::from(answer.is_err());
        let mut answer = answer.unwrap_or_else(|error| format!("error: {error}"));
        answer.truncate(answer.trim_end().len());
        let mut bytes = answer.into_bytes();
        bytes.push(end);
        output.write_all(&bytes).await?;
        output.flush().await?;
    }
}

struct Talk {
    hub: Arc<Hub>,
    /// Where it goes on; the first message begins one.
    session: Option<String>,
    stop: CancellationToken,
}

impl Talk {
    /// The answer to a message, or why there is none. Nobody can be asked meanwhile.
    async fn answer(&mut self, message: &str) -> Result<String, String> {
        if let Some((command, words)) = command::named(message) {
            let session = self.session.as_deref().unwrap_or_default();
            return Ok(self.hub.command(command, words, session, None).await);
        }
        let incoming = Incoming { session: self.session.clone(), message: Message::user(message) };
        let mut running = self.hub.submit(incoming, false).await.map_err(|error| error.to_string())?;
        self.session = Some(running.session);
        let mut told = false;
        loop {
            let event = tokio::select! {
                event = running.events.next() => event,
                () = self.stop.cancelled(), if !told => {
                    told = true;
                    running.cancel.cancel();
                    continue;
                }
            };
            match event.map(|event| event.kind) {
                Some(EventKind::Finished(finished)) => return said(finished),
                Some(_) => {}
                None => return Err("the turn ended without a result".to_owned()),
            }
        }
    }
}

/// What a turn came to. Half an answer is none: a script could not tell.
fn said(finished: Finished) -> Result<String, String> {
    match finished.stop {
        stop if stop.is_answer() => Ok(finished.text),
        StopReason::Cancelled => Err("the turn was cancelled".to_owned()),
        _ => Err(finished.error.unwrap_or_default()),
    }
}
