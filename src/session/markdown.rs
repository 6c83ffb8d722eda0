//! A conversation as people read it (pure): markdown, with all that was called and what came of it.

use std::fmt::Write as _;

use jiff::tz::TimeZone;

use super::{Entry, Stored, Summary};
use crate::message::{Message, Part, Role};

/// The whole log, with times as clocks of this zone show them.
pub fn markdown(summary: &Summary, log: &[Stored], zone: &TimeZone) -> String {
    let title = if summary.title.is_empty() { "A conversation" } else { &summary.title };
    let time = |time: jiff::Timestamp| time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M").to_string();
    let mut text = format!(
        "# {title}\n\nSession `{}` in `{}`, begun {}.\n",
        summary.id,
        summary.workspace.display(),
        time(summary.created),
    );
    let mut write =
        |part: String| writeln!(text, "\n{}", part.trim_end()).expect("a String takes everything");
    let mut speaker = None;
    for stored in log {
        match &stored.entry {
            Entry::Message(message) => {
                let who = if message.role == Role::User { "You" } else { "Omni" };
                if speaker.replace((who, &stored.turn)) != Some((who, &stored.turn)) {
                    write(format!("## {who}, {}", time(stored.created)));
                }
                said(message).into_iter().for_each(&mut write);
            }
            Entry::TurnEnded(ended) => {
                if let Some(error) = &ended.error {
                    write(format!("*The turn ended: {error}*"));
                }
            }
            Entry::Note(note) => write(format!("*{}*", note.text)),
            Entry::Kept(mark) => write(format!("*Kept as `{}`.*", mark.name)),
            Entry::Reset => write("---\n\n*Begun anew.*".to_owned()),
            Entry::Restored(mark) if mark.name.is_empty() => {
                write("*Gone back to what was set aside.*".to_owned())
            }
            Entry::Restored(mark) => write(format!("*Gone back to what was kept as `{}`.*", mark.name)),
            // What a model is shown in the place of all this.
            Entry::Digest(_) | Entry::TurnBegan(_) => {}
        }
    }
    text
}

fn said(message: &Message) -> Vec<String> {
    let told = message.parts.iter().filter_map(|part| match part {
        Part::Text { text } if text.trim().is_empty() => None,
        Part::Text { text } => Some(text.clone()),
        Part::Call(call) => Some(format!("`{}`\n\n{}", call.name, fenced(&call.arguments.text(), "json"))),
        Part::Result(result) => {
            let failed = if result.is_error { ", which failed" } else { "" };
            Some(format!("Result of `{}`{failed}:\n\n{}", result.name, fenced(&result.text(), "")))
        }
        Part::Image { mime, .. } => Some(format!("*A picture, `{mime}`.*")),
        Part::Reasoning { .. } => None,
    });
    told.collect()
}

/// A text in a fence that it cannot close.
fn fenced(text: &str, kind: &str) -> String {
    let longest = text.split(|letter| letter != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}{kind}\n{}\n{fence}", text.trim_end_matches('\n'))
}
