//! `omni chat`: question by question, in one session.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;

use super::ask::{TWICE, watch};
use super::editor::{Surroundings, Typed};
use super::error::{Failure, code};
use super::signal::Stop;
use super::tty::Hush;
use super::ui::Screen;
use super::{memory, session, tool};
use crate::app::App;
use crate::clock::Reach;
use crate::hub::command::{self, COMMANDS, Command};
use crate::hub::{Hub, Lane, said};
use crate::message::{Incoming, Message, Role};
use crate::session::{Entry, Stored};

/// Talk, message by message, in one session.
///
/// On a terminal, Tab completes `/commands` and the names of files after an `@`, Alt-Enter begins
/// another line, Ctrl-R looks for earlier messages, and Ctrl-O opens `$EDITOR`. Ctrl-C cancels the turn
/// that is going on, or clears the line; twice, or Ctrl-D, it leaves. `/help` says what else there is.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Chat {
    /// Go on with a session, by its id or the beginning of it
    #[arg(short, long, value_name = "ID")]
    session: Option<String>,
    /// Go on with the last session of this folder
    #[arg(short = 'c', long = "continue", visible_alias = "resume", conflicts_with = "session")]
    resume: bool,
}

/// Commands that only a terminal has; [`COMMANDS`] are those that every face has.
const OWN: [(&str, &str); 7] = [
    ("new", "begin another session"),
    ("sessions", "list the sessions of this folder"),
    ("resume", "go on with the last session, or the one of this id"),
    ("model", "show the models there are, or go on with another one"),
    ("tools", "list the tools there are"),
    ("memory", "show and change what is remembered"),
    ("quit", "leave"),
];
/// Keys that are worth knowing.
const KEYS: [(&str, &str); 5] = [
    ("Tab", "complete a command, or the name of a file after an @"),
    ("Alt-Enter", "begin another line"),
    ("Ctrl-R", "look for an earlier message"),
    ("Ctrl-O", "write the message in $EDITOR"),
    ("Ctrl-C", "cancel the turn, or clear the line; twice, leave"),
];
/// Sessions that `/sessions` lists.
const LISTED: usize = 10;

pub(super) async fn run(chat: Chat, app: &App, screen: &Screen) -> Result<u8, Failure> {
    let session = match chat.resume {
        true => app.latest_session().await?,
        false => chat.session,
    };
    screen.surround(Surroundings {
        history: Some(app.paths.state.join("history")),
        commands: commands().map(|(name, about)| (format!("/{name}"), about)).collect(),
        workspace: app.paths.workspace.clone(),
    });
    app.watch().await?;
    let hub = app.hub().await?;
    app.attend(&hub, Reach::Own)?;
    screen
        .remark(&format!("omni with {}; /help shows what there is, /quit leaves", app.model().await?.name()));
    let mut talk = Talk { app, screen, hub, session: None, lane: None, missing: HashSet::new() };
    if let Some(session) = session {
        talk.resume(&session).await?;
        screen.pause();
    }
    let mut stop = Stop::listen()?;
    let result = talk.go_on(&mut stop).await;
    drop(talk);
    app.finish().await;
    result
}

/// A conversation with somebody.
struct Talk<'a> {
    app: &'a App,
    screen: &'a Screen,
    hub: Arc<Hub>,
    session: Option<String>,
    /// Held so that what was agreed to "always" stays agreed to for the session.
    lane: Option<Arc<Lane>>,
    /// What was said to be missing, so that it is said once.
    missing: HashSet<String>,
}

impl Talk<'_> {
    /// Takes messages until somebody leaves.
    async fn go_on(&mut self, stop: &mut Stop) -> Result<u8, Failure> {
        let mut interrupted: Option<Instant> = None;
        loop {
            self.reported().await;
            self.miss().await;
            let typed = tokio::select! {
                typed = self.screen.message("› ") => typed,
                code = stop.told() => {
                    self.screen.rest().await;
                    return Ok(code);
                }
            };
            let message = match typed {
                Typed::End => return Ok(code::OK),
                Typed::Interrupted if interrupted.is_some_and(|before| before.elapsed() < TWICE) => {
                    return Ok(code::OK);
                }
                Typed::Interrupted => {
                    self.screen.remark("Ctrl-C again, or Ctrl-D, leaves");
                    interrupted = Some(Instant::now());
                    continue;
                }
                Typed::Line(message) => message,
            };
            let message = message.trim();
            match message.split_once(char::is_whitespace).unwrap_or((message, "")) {
                ("", _) => {}
                ("/quit" | "/exit", "") => return Ok(code::OK),
                (command, words) if is_command(command, words) => self.command(command, words.trim()).await,
                _ => match self.ask(message, stop).await {
                    Ok(code::TERMINATED) => return Ok(code::TERMINATED),
                    Err(failure) if failure.code() == code::INTERRUPTED => {
                        self.screen.remark(&format!("{}; Ctrl-C again leaves", failure.message));
                        self.screen.pause();
                        interrupted = Some(Instant::now());
                    }
                    asked => drop(asked?),
                },
            }
        }
    }

    /// One question and its answer.
    async fn ask(&mut self, question: &str, stop: &mut Stop) -> Result<u8, Failure> {
        let incoming = Incoming { session: self.session.clone(), message: Message::user(question) };
        let running = self.hub.submit(incoming, true).await?;
        self.session = Some(running.session.clone());
        self.lane = Some(running.lane.clone());
        let _hush = Hush::begin();
        let code = watch(running, self.screen, stop).await?;
        self.screen.pause();
        Ok(code)
    }

    /// Shows what jobs have told this session meanwhile.
    async fn reported(&self) {
        let Some(session) = &self.session else { return };
        let read = async {
            let jobs = self.hub.jobs();
            for (chat, job, run) in jobs.unread(session).await? {
                if chat != *session {
                    continue;
                }
                let mut write = jobs.begin().await?;
                jobs.read(&mut write, &run.id).await?;
                write.commit().await?;
                self.screen.line(&said(&job, &run))?;
            }
            Ok::<_, Failure>(())
        };
        if let Err(failure) = read.await {
            self.screen.failure(&failure);
        }
    }

    /// Says what is missing here, once.
    async fn miss(&mut self) {
        for what in self.app.missing_servers().await {
            if self.missing.insert(what.clone()) {
                self.screen.remark(&format!("note: {what}"));
            }
        }
    }

    /// What goes wrong with a command is no reason to leave.
    async fn command(&mut self, command: &str, words: &str) {
        let done = match command {
            "/help" => self.help(),
            "/new" => self.leave_session(),
            "/sessions" => {
                let list = session::Session::List { all: false, limit: LISTED };
                session::run(list, self.app, self.screen).await.map(drop)
            }
            "/resume" => self.resume(words).await,
            "/model" => self.model(words).await,
            "/tools" => tool::all(self.app, self.screen).await.map(drop),
            "/memory" => memory::slash(words, self.app, self.screen).await,
            _ => {
                let said = match command::named(&format!("{command} {words}")) {
                    Some((command, words)) => self.common(command, words).await,
                    None => format!("there is no `{command}`; /help shows what there is"),
                };
                self.screen.remark(&said);
                Ok(())
            }
        };
        if let Err(failure) = done {
            self.screen.failure(&failure);
        }
        self.screen.pause();
    }

    /// Does what a command says that every face has.
    async fn common(&mut self, command: &Command, words: &str) -> String {
        let is_early = match command.name {
            "bg" => true,
            "mode" => !words.is_empty(),
            _ => false,
        };
        if is_early && self.session.is_none() {
            self.session = self.begun().await;
        }
        if command.name == "clear" {
            self.screen.clear();
        }
        let session = self.session.as_deref().unwrap_or_default();
        let lane = match (&self.lane, session) {
            (Some(lane), _) => lane.clone(),
            (None, "") => Arc::default(),
            (None, session) => self.lane.insert(self.hub.lane(session)).clone(),
        };
        self.hub.command(command, words, session, Some(&lane)).await
    }

    /// A session for what is told before anything was said.
    async fn begun(&self) -> Option<String> {
        let begun = self.hub.sessions().create(&self.app.paths.workspace, Timestamp::now()).await;
        begun.ok().map(|session| session.id().to_owned())
    }

    fn help(&self) -> Result<(), Failure> {
        for (name, about) in commands() {
            self.screen.line(&format!("/{name:<9} {about}"))?;
        }
        for (keys, about) in KEYS {
            self.screen.line(&format!("{keys:<10} {about}"))?;
        }
        self.screen.remark("everything else is a message");
        Ok(())
    }

    fn leave_session(&mut self) -> Result<(), Failure> {
        (self.session, self.lane) = (None, None);
        self.screen.remark("a new session begins with the next message");
        Ok(())
    }

    /// Shows the models there are, or has another one answer from now on.
    async fn model(&mut self, name: &str) -> Result<(), Failure> {
        if name.is_empty() {
            for found in self.app.models_found().await {
                self.screen.item("", &format!("{} ({})", found.model, found.why))?;
            }
            let now = self.hub.model();
            self.screen.remark(&format!("{now} answers; /model PROVIDER/NAME goes on with another one"));
            return Ok(());
        }
        self.hub = self.app.hub_of(Some(name), None).await?;
        if let (Some(session), Some(before)) = (&self.session, &self.lane) {
            let lane = self.hub.lane(session);
            lane.choose(before.mode());
            self.lane = Some(lane);
        }
        self.screen.remark(&format!("{name} answers from now on"));
        Ok(())
    }

    /// Goes on with a session: the last one of this folder, if none is named.
    async fn resume(&mut self, id: &str) -> Result<(), Failure> {
        let sessions = self.app.sessions().await?;
        let summary = match id {
            "" => sessions.list(Some(&self.app.paths.workspace), 1).await?.into_iter().next(),
            id => Some(sessions.resolve(id).await?),
        };
        let Some(summary) = summary else {
            self.screen.remark("this folder has no session yet");
            return Ok(());
        };
        self.screen.remark(&format!("going on with {}: {}", summary.id, summary.title));
        let (question, answer) = ended(sessions.shown(&summary.id).await?);
        self.screen.before(&question, &answer)?;
        (self.session, self.lane) = (Some(summary.id), None);
        Ok(())
    }
}

/// What was asked last, and the answer.
fn ended(entries: Vec<Stored>) -> (String, String) {
    let (mut question, mut answer) = (String::new(), String::new());
    for stored in entries {
        let Entry::Message(message) = stored.entry else { continue };
        match (message.role, message.text()) {
            (Role::User, text) => (question, answer) = (text, String::new()),
            (Role::Assistant, text) if !text.trim().is_empty() => answer = text,
            _ => {}
        }
    }
    (question, answer)
}

/// All commands: name and meaning.
fn commands() -> impl Iterator<Item = (&'static str, &'static str)> {
    OWN.into_iter().chain(COMMANDS.iter().map(|command| (command.name, command.about)))
}

/// All commands as a page has them.
pub(super) fn page() -> String {
    let mut page = "\n## In a talk\n\nWhat is typed with a slash before it, in the terminal, in editors, on Telegram and to `omni stdio`. \
                    What has words in brackets may stand alone.\n\n| typed | what it does |\n|---|---|\n"
        .to_owned();
    for Command { name, takes, about, .. } in COMMANDS {
        let takes = if takes.is_empty() { String::new() } else { format!(" {takes}") };
        page.push_str(&format!("| `/{name}{takes}` | {about} |\n"));
    }
    page.push_str("\nIn the terminal alone:\n\n| typed | what it does |\n|---|---|\n");
    for (name, about) in OWN {
        page.push_str(&format!("| `/{name}` | {about} |\n"));
    }
    page
}

/// Whether it is a command or means to be one: a path with a slash in front is a message.
fn is_command(word: &str, rest: &str) -> bool {
    let is_known = OWN.iter().any(|(name, _)| word.strip_prefix('/') == Some(name));
    is_known
        || command::named(&format!("{word} {rest}")).is_some()
        || (rest.is_empty() && word.starts_with('/') && !word[1..].contains('/'))
}
