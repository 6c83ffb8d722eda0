//! Slash commands: one table for every face.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{Hub, Lane, mode};
use crate::store::job::{Error, Job, New, Run, Stage, State};
use crate::tool::Server;

/// A command: `/name` at the beginning of a message, and what it wants to know behind it.
#[derive(Debug)]
pub struct Command {
    /// Its name, without the slash.
    pub name: &'static str,
    /// What it wants to know; empty where it stands alone.
    pub takes: &'static str,
    /// What it does.
    pub about: &'static str,
    /// Whether it is about more than a conversation, so that not everybody may.
    pub admin: bool,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, takes, about, .. } = self;
        match *takes {
            "" => write!(f, "/{name}: {about}"),
            takes => write!(f, "/{name} {takes}: {about}"),
        }
    }
}

/// The commands that every face has. Those that are about the face itself, as leaving it, are its own.
pub const COMMANDS: &[Command] = &[
    Command { name: "help", takes: "", about: "show the commands there are", admin: false },
    Command { name: "status", takes: "", about: "show the model, the folder and the session", admin: false },
    Command {
        name: "reset",
        takes: "",
        about: "begin this conversation anew; the log keeps what was said",
        admin: false,
    },
    Command {
        name: "clear",
        takes: "",
        about: "the same: begin with an empty window, and screen",
        admin: false,
    },
    Command {
        name: "snapshot",
        takes: "NAME",
        about: "keep this conversation as it is now by a name",
        admin: false,
    },
    Command {
        name: "restore",
        takes: "[NAME]",
        about: "go back to what was kept by that name, or set aside last",
        admin: false,
    },
    Command {
        name: "compact",
        takes: "",
        about: "tell what was said before the last turn in short",
        admin: false,
    },
    Command {
        name: "mode",
        takes: "[NAME]",
        about: "show or choose whether tools ask before they run",
        admin: true,
    },
    Command {
        name: "usage",
        takes: "",
        about: "show what was used of models: here, today, and of the budgets",
        admin: false,
    },
    Command {
        name: "mcp",
        takes: "[NAME]",
        about: "list the MCP servers, or show the tools and the last words of one",
        admin: true,
    },
    Command {
        name: "export",
        takes: "[--force] [FILE]",
        about: "write this conversation to a file, .md or .jsonl",
        admin: false,
    },
    Command {
        name: "good",
        takes: "",
        about: "say that the last answer was good, which is remembered",
        admin: false,
    },
    Command {
        name: "bad",
        takes: "",
        about: "say that the last answer was bad, which is remembered",
        admin: false,
    },
    Command {
        name: "bg",
        takes: "TEXT",
        about: "do this in the background, and tell when it is done",
        admin: false,
    },
    Command { name: "jobs", takes: "", about: "list the jobs of this folder", admin: false },
    Command {
        name: "job",
        takes: "ID [WORD]",
        about: "show a job, or cancel, run, pause, resume or remove it",
        admin: true,
    },
];

/// Runs that `/job` shows.
const SHOWN: usize = 3;
/// Jobs that `/jobs` shows.
const LISTED: usize = 30;

/// The command that a message is, if it is one, and the words behind it.
pub fn named(message: &str) -> Option<(&'static Command, &str)> {
    let rest = message.trim().strip_prefix('/')?;
    let (name, words) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let command = COMMANDS.iter().find(|command| command.name == name)?;
    // With words behind it, what takes none is a message like others.
    (words.trim().is_empty() || !command.takes.is_empty()).then_some((command, words.trim()))
}

impl Hub {
    /// Does what a command says, and says what came of it. `lane` is the session's where whoever has typed it may
    /// choose whether tools ask.
    pub async fn command(
        self: &Arc<Self>,
        command: &Command,
        words: &str,
        session: &str,
        lane: Option<&Lane>,
    ) -> String {
        match command.name {
            "reset" | "clear" if session.is_empty() => "nothing was said yet".to_owned(),
            "reset" | "clear" => {
                said(self.reset(session).await, "the conversation begins anew; /restore goes back")
            }
            "snapshot" => self.set_aside(session, words).await,
            "restore" => said(self.restore(session, words).await, "the conversation is what it was"),
            "compact" => match self.compact(session).await {
                Ok(0) => "there is nothing to tell in short yet".to_owned(),
                Ok(count) => {
                    format!("{count} earlier turns are told in short from here on; the log keeps them")
                }
                Err(error) => error.to_string(),
            },
            "status" => self.status(session, lane).await,
            "mode" => mode::said(lane, words, self.agent.toolbox().asks()),
            "usage" => self.used(session).await.unwrap_or_else(|error| error.to_string()),
            "mcp" => servers(self.agent.toolbox().servers(), words),
            "export" => match self.export(words, session).await {
                Ok(file) => format!("the conversation is in `{}`", file.display()),
                Err(reason) => reason,
            },
            "good" | "bad" => self.judged(session, command.name == "good").await,
            "bg" => self.background(words, session).await.unwrap_or_else(|error| error.to_string()),
            "jobs" => self.listed().await.unwrap_or_else(|error| error.to_string()),
            "job" => self.job(words).await.unwrap_or_else(|error| error.to_string()),
            _ => help(),
        }
    }

    async fn set_aside(self: &Arc<Self>, session: &str, name: &str) -> String {
        if name.is_empty() {
            let known = self.snapshots(session).await.unwrap_or_default();
            return format!("say by which name: /snapshot NAME; {}", super::known_as(&known));
        }
        said(self.snapshot(session, name).await, &format!("it is kept; /restore {name} goes back"))
    }

    async fn status(&self, session: &str, lane: Option<&Lane>) -> String {
        let (model, folder) = (self.agent.model(), self.agent.workspace().display());
        let stands = match self.sessions.resolve(session).await {
            _ if session.is_empty() => "begins with the next message".to_owned(),
            Ok(summary) => format!("{session} {} messages", summary.messages),
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
        let mut lines = vec![
            format!("model: {model}"),
            format!("folder: {folder}"),
            format!("session: {stands}"),
            format!("used: {used}"),
        ];
        lines.extend(lane.map(|lane| format!("mode: {}", lane.mode().name())));
        match self.budgets(session).await {
            Ok(budgets) => lines.extend(budgets.into_iter().map(|used| format!("budget of {used}"))),
            Err(error) => lines.push(error.to_string()),
        }
        lines.join("\n")
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

    async fn background(&self, text: &str, session: &str) -> Result<String, Error> {
        if text.is_empty() {
            return Err(Error::Wrong("say what is to be done: /bg look for dead links in docs".to_owned()));
        }
        let now = Timestamp::now();
        let job = self.jobs.add(&New::background(text, session, self.workspace(), now), now).await?;
        let told = if session.is_empty() { "; `/job` shows what came of it" } else { "" };
        Ok(format!("job {} goes on in the background{told}", job.id))
    }

    async fn listed(&self) -> Result<String, Error> {
        let jobs = self.jobs.list(Some(self.workspace())).await?;
        let mut lines = Vec::new();
        for job in jobs.iter().take(LISTED) {
            let last = self.jobs.runs(&job.id, 1).await?.pop();
            lines.push(line(job, last.as_ref()));
        }
        match jobs.len() {
            0 => lines.push("there is no job; /bg begins one".to_owned()),
            more if more > LISTED => lines.push(format!("and {} more", more - LISTED)),
            _ => {}
        }
        Ok(lines.join("\n"))
    }

    async fn job(&self, words: &str) -> Result<String, Error> {
        let (id, word) = words.split_once(char::is_whitespace).unwrap_or((words, ""));
        if id.is_empty() {
            return Err(Error::Wrong("say which job: /job ID; /jobs lists them".to_owned()));
        }
        let job = self.jobs.find_in(self.workspace(), id).await?;
        let now = Timestamp::now();
        match word.trim() {
            "" => {
                let runs = self.jobs.runs(&job.id, SHOWN).await?;
                Ok(shown(&job, &runs))
            }
            "cancel" => {
                let ended = self.jobs.cancel(&job, now).await?;
                Ok(format!("job {}: {ended} cancelled", job.id))
            }
            "run" => self.jobs.hasten(&job, now).await.map(|_| format!("job {} is begun", job.id)),
            "pause" => self.jobs.pause(&job, now).await.map(|()| format!("job {} is paused", job.id)),
            "resume" => {
                let next = self.jobs.resume(&job, now).await?;
                let next = next.map_or_else(|| "never again".to_owned(), local);
                Ok(format!("job {} is due {next}", job.id))
            }
            "remove" => self.jobs.remove(&job).await.map(|()| format!("job {} is removed", job.id)),
            other => Err(Error::Wrong(format!(
                "`{other}` is nothing to do with a job; there are cancel, run, pause, resume and remove"
            ))),
        }
    }
}

/// The servers of others, a line each; or all of one.
fn servers(servers: Vec<Server>, name: &str) -> String {
    let line = |server: &Server| {
        let Server { name, state, tools, problem, .. } = server;
        let tools = match tools.len() {
            0 => String::new(),
            1 => ", 1 tool".to_owned(),
            count => format!(", {count} tools"),
        };
        let problem = problem.as_ref().map(|problem| format!(": {problem}")).unwrap_or_default();
        format!("{name}  {state}{tools}{problem}")
    };
    if servers.is_empty() {
        return "there is no MCP server; `omni mcp add` describes one".to_owned();
    }
    if name.is_empty() {
        return servers.iter().map(line).collect::<Vec<_>>().join("\n");
    }
    let Some(server) = servers.iter().find(|server| server.name == name) else {
        let known: Vec<_> = servers.iter().map(|server| server.name.as_str()).collect();
        return format!("there is no MCP server `{name}`; there are: {}", known.join(", "));
    };
    let mut lines = vec![line(server)];
    lines.extend(server.tools.iter().map(|tool| format!("  {tool}")));
    lines.extend(server.last.iter().map(|said| format!("  │ {said}")));
    lines.join("\n")
}

/// A job and its last run on one line.
pub fn line(job: &Job, last: Option<&Run>) -> String {
    let state = match (last.map(|run| run.state), job.state) {
        (Some(stage @ (Stage::Queued | Stage::Running)), _) => stage.word(),
        (_, State::Paused) => "paused",
        (Some(stage), State::Over) => stage.word(),
        _ => "waits",
    };
    let next = job.next.map(|next| format!(", next {}", local(next))).unwrap_or_default();
    format!("{}  {state:<9}  {}{next}  {}", job.id, job.schedule, job.name)
}

/// All of a job, for people.
pub fn shown(job: &Job, runs: &[Run]) -> String {
    let mut text = format!("{}\ntask: {}\ntells: {}", line(job, runs.first()), job.task, job.deliver);
    if job.skipped > 0 {
        text.push_str(&format!("\nleft out: {} times, as it still went on", job.skipped));
    }
    for run in runs {
        let tokens = if run.tokens > 0 { format!(", {} tokens", run.tokens) } else { String::new() };
        text.push_str(&format!("\n\n{} {}{tokens}", local(run.due), run.state));
        if !run.error.is_empty() {
            text.push_str(&format!(": {}", run.error));
        }
        if !run.refusal.is_empty() {
            text.push_str(&format!("\nnot told yet, after {} tries: {}", run.tries, run.refusal));
        }
        if !run.output.is_empty() {
            text.push_str(&format!("\n{}", run.output.trim_end()));
        }
    }
    text
}

/// A time as a clock on the wall here shows it.
fn local(time: Timestamp) -> String {
    time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn said(done: Result<(), super::Error>, words: &str) -> String {
    done.map_or_else(|error| error.to_string(), |()| words.to_owned())
}

fn help() -> String {
    COMMANDS.iter().map(Command::to_string).collect::<Vec<_>>().join("\n")
}
