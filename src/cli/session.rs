//! `omni session`: conversations that were had.

use jiff::tz::TimeZone;

use super::error::{Failure, code};
use super::tty;
use super::ui::Screen;
use super::wrap::clip;
use crate::app::App;
use crate::message::{Message, Part, Role};
use crate::session::{Entry, Stored};

/// List, show, export and delete conversations.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Session {
    /// List sessions, the latest first
    List {
        /// Those of all folders, not of this one alone
        #[arg(short, long)]
        all: bool,
        /// At most this many
        #[arg(short, long, default_value_t = 20)]
        limit: usize,
    },
    /// Show a conversation
    Show {
        /// Its id, or the beginning of it
        id: String,
    },
    /// Print a session as JSON lines
    Export {
        /// Its id, or the beginning of it
        id: String,
    },
    /// Delete a session for good
    Delete {
        /// Its id, or the beginning of it
        id: String,
    },
}

pub(super) async fn run(command: Session, app: &App, screen: &Screen) -> Result<u8, Failure> {
    let sessions = app.sessions().await?;
    match command {
        Session::List { all, limit } => {
            let workspace = (!all).then_some(app.paths.workspace.as_path());
            let found = sessions.list(workspace, limit).await?;
            match found.is_empty() {
                true if all => screen.remark("there is no session yet"),
                true => screen.remark(
                    "this folder has no session yet; `omni session list --all` shows those of others",
                ),
                false => {}
            }
            for summary in found {
                if screen.json {
                    screen.value(&summary)?;
                    continue;
                }
                let when =
                    summary.updated.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string();
                let title = if summary.title.is_empty() { "(empty)" } else { &summary.title };
                let line = format!("{}  {when}  {:>3} messages  {title}", summary.id, summary.messages);
                // A line each, where a person reads them.
                let columns = tty::columns(&std::io::stdout()).unwrap_or(usize::MAX);
                screen.line(&clip(&line, columns))?;
            }
        }
        Session::Show { id } => {
            for stored in sessions.show(&id).await? {
                if screen.json {
                    screen.value(&stored)?;
                } else if let Some(text) = readable(&stored) {
                    screen.line(&text)?;
                }
            }
        }
        Session::Export { id } => screen.print(&sessions.export(&id).await?)?,
        Session::Delete { id } => {
            let summary = sessions.delete(&id).await?;
            screen.remark(&format!("deleted {} ({} messages)", summary.id, summary.messages));
        }
    }
    Ok(code::OK)
}

/// An entry for people; `None` where it says nothing to them.
fn readable(stored: &Stored) -> Option<String> {
    match &stored.entry {
        Entry::Message(message) => Some(said(message)),
        Entry::Note(note) => Some(format!("  note: {}", note.text)),
        Entry::Digest(digest) => {
            let text = digest.text.replace('\n', "\n    ");
            Some(format!("  from here on the model is shown a summary of what was before:\n    {text}"))
        }
        Entry::Kept(mark) => Some(format!("  kept as `{}`", mark.name)),
        Entry::Reset => Some("  begun anew: the model is not shown what was before".to_owned()),
        Entry::Restored(mark) if mark.name.is_empty() => Some("  gone back to what was set aside".to_owned()),
        Entry::Restored(mark) => Some(format!("  gone back to what was kept as `{}`", mark.name)),
        Entry::TurnEnded(ended) => ended.error.as_ref().map(|error| format!("  ended: {error}")),
        Entry::TurnBegan(_) => None,
    }
}

fn said(message: &Message) -> String {
    let lines = message.parts.iter().filter_map(|part| match part {
        Part::Text { text } => Some(match message.role {
            Role::User => format!("› {text}"),
            Role::Assistant | Role::Tool => text.clone(),
        }),
        Part::Call(call) => Some(format!("  ● {} {}", call.name, serde_json::json!(call.arguments))),
        Part::Result(result) => {
            let sign = if result.is_error { "✗" } else { "✓" };
            Some(format!("  {sign} {}", result.text().replace('\n', "\n    ")))
        }
        Part::Image { mime, .. } => Some(format!("  [{mime}]")),
        Part::Reasoning { .. } => None,
    });
    lines.collect::<Vec<_>>().join("\n")
}
