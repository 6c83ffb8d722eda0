//! Slash commands: one table for every face.

use std::sync::Arc;

use super::{Error, Hub};

/// A command: `/name` at the beginning of a message, and nothing else in it.
#[derive(Debug)]
pub struct Command {
    /// Its name, without the slash.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
}

/// The commands that every face has. Those that are about the face itself, as leaving it, are its own.
pub const COMMANDS: &[Command] = &[
    Command { name: "help", about: "show the commands there are" },
    Command { name: "status", about: "show the model, the folder and the session" },
    Command { name: "reset", about: "begin this conversation anew; the log keeps what was said" },
    Command { name: "restore", about: "go back to what was said before it was begun anew" },
    Command { name: "compact", about: "tell what was said before the last turn in short" },
    Command { name: "good", about: "say that the last answer was good, which is remembered" },
    Command { name: "bad", about: "say that the last answer was bad, which is remembered" },
];

/// The command that a message is, if it is one.
pub fn named(message: &str) -> Option<&'static Command> {
    let name = message.trim().strip_prefix('/')?;
    COMMANDS.iter().find(|command| command.name == name)
}

impl Hub {
    /// Does what a command says, and says what came of it.
    pub async fn command(self: &Arc<Self>, command: &Command, session: &str) -> String {
        match command.name {
            "reset" => said(self.reset(session).await, "the conversation begins anew; /restore goes back"),
            "restore" => said(self.restore(session, "").await, "the conversation is what it was"),
            "compact" => match self.compact(session).await {
                Ok(0) => "there is nothing to tell in short yet".to_owned(),
                Ok(count) => format!("{count} earlier turns are told in short from here on; the log keeps them"),
                Err(error) => error.to_string(),
            },
            "status" => self.status(session).await,
            "good" | "bad" => self.judged(session, command.name == "good").await,
            _ => help(),
        }
    }

    async fn status(&self, session: &str) -> String {
        let (model, folder) = (self.agent.model(), self.agent.workspace().display());
        let messages = match self.sessions.resolve(session).await {
            _ if session.is_empty() => "begins with the next message".to_owned(),
            Ok(summary) => format!("{} messages", summary.messages),
            Err(error) => error.to_string(),
        };
        let usage = self.sessions.usage(session).await.unwrap_or_default();
        let used = match (usage.total(), usage.dollars()) {
            (0, _) => "nothing that was counted".to_owned(),
            (tokens, Some(dollars)) => format!("{tokens} tokens for {dollars:.4} dollars"),
            (tokens, None) => format!(
                "{tokens} tokens; what they cost is not known, as `model.price` has not all models that were asked"
            ),
        };
        format!("model: {model}\nfolder: {folder}\nsession: {session} {messages}\nused: {used}")
    }

    async fn judged(&self, session: &str, good: bool) -> String {
        let said = match self.judge(session, good).await {
            Ok(true) if good => "good: what helped counts more from now on",
            Ok(true) => "bad: what was shown and done counts less from now on",
            Ok(false) => "there is no answer to judge, or `memory.enabled` is off",
            Err(error) => return format!("the verdict was not kept: {error}"),
        };
        said.to_owned()
    }
}

fn said(done: Result<(), Error>, words: &str) -> String {
    done.map_or_else(|error| error.to_string(), |()| words.to_owned())
}

fn help() -> String {
    let lines = COMMANDS.iter().map(|command| format!("/{}: {}", command.name, command.about));
    lines.collect::<Vec<_>>().join("\n")
}
