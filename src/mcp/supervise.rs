//! Keeps one server running. One that hangs, floods or dies harms its own calls alone.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock, RwLock};
use std::time::{Duration, Instant};

use rmcp::model::{Skill, SkillResources, Tool};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::auth::{Account, Browser};
use super::client::{Connection, Fault, Link};
use super::config::{Address, Era, Reach, Server};
use super::open::Refusal;
use super::process::Tail;
use super::revoke::Revoked;
use super::{convert, theirs};
use crate::shutdown::Shutdown;
use crate::tool::{Call, Error, Output, Spec};

/// After these many deaths in a row it is started only when somebody wants it.
const DEATHS: u32 = 5;
/// Whoever lived this long did not die in a row.
const STEADY: Duration = Duration::from_secs(60);
/// Pauses between a death and the next start.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSES: Duration = Duration::from_secs(30);
/// After a change of its tools others follow.
const QUIET: Duration = Duration::from_millis(200);

/// What all servers are kept with.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Where it is kept what servers have said.
    pub cache: PathBuf,
    /// Where it is kept who we are to them.
    pub accounts: PathBuf,
    /// Hears of other tools.
    pub listed: watch::Sender<()>,
    /// Waits for servers to end.
    pub shutdown: Shutdown,
}

/// Keeps one server.
pub(super) struct Keeper {
    pub(super) server: Server,
    /// Who we are to it, unless its user has said so in its headers.
    account: Option<Account>,
    setting: Setting,
    state: watch::Sender<State>,
    wanted: Notify,
    known: RwLock<Known>,
    begun: OnceLock<()>,
}

/// How a server is.
#[derive(Clone)]
pub(super) enum State {
    /// Nobody has wanted it yet.
    Resting,
    Starting,
    Up(Arc<Connection>),
    /// Why it is not there, and what it said last, which may be read a moment later than that it is over.
    Down(String, Tail),
}

/// A connection, and what was heard over it.
type Opened = (Connection, Link, Era, Vec<Tool>, Vec<Skill>);

/// What a server has said of itself.
#[derive(Default)]
struct Known {
    /// Whether it has said anything at all, now or in an earlier run.
    said: bool,
    era: Era,
    tools: Vec<(Arc<Spec>, Arc<Tool>)>,
    skills: Vec<Skill>,
    /// The tool that reads those.
    loader: Option<Arc<Spec>>,
}

/// The same as a file.
#[derive(Serialize, Deserialize)]
struct Kept {
    modern: bool,
    tools: Vec<Tool>,
    #[serde(default)]
    skills: Vec<Skill>,
}

impl Keeper {
    /// Keeps a server that is not started yet. What it said in an earlier run is known.
    pub(super) fn new(server: Server, setting: Setting) -> Arc<Self> {
        let is_known =
            |address: &Address| address.headers.keys().any(|name| name.eq_ignore_ascii_case("authorization"));
        let account = match &server.reach {
            Reach::Address(address) if !is_known(address) => {
                Some(Account::new(&server.name, address, &setting.accounts))
            }
            _ => None,
        };
        let keeper = Self {
            server,
            account,
            setting,
            state: watch::Sender::new(State::Resting),
            wanted: Notify::new(),
            known: RwLock::default(),
            begun: OnceLock::new(),
        };
        if let Some(kept) =
            std::fs::read(keeper.file()).ok().and_then(|text| serde_json::from_slice(&text).ok())
        {
            let Kept { modern, tools, skills } = kept;
            *keeper.known.write().expect("no panic while held") =
                keeper.known(if modern { Era::Modern } else { Era::Legacy }, tools, skills);
        }
        Arc::new(keeper)
    }

    /// Starts it, unless it was started.
    pub(super) fn begin(self: &Arc<Self>) {
        self.begun.get_or_init(|| {
            let (keeper, stop) = (self.clone(), self.setting.shutdown.signal().clone());
            self.state.send_replace(State::Starting);
            self.setting.shutdown.spawn(async move { keeper.run(&stop).await });
        });
    }

    /// How it is.
    pub(super) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Waits until it has said what it has, or has failed to.
    pub(super) async fn settled(&self) -> State {
        let mut state = self.state.subscribe();
        let settled = state.wait_for(|state| matches!(state, State::Up(_) | State::Down(..))).await;
        settled.map_or(State::Resting, |state| state.clone())
    }

    /// Whether it has ever said what tools it has.
    pub(super) fn has_said(&self) -> bool {
        self.known.read().expect("no panic while held").said
    }

    /// Its tools, as far as they are known.
    pub(super) fn specs(&self) -> Vec<Arc<Spec>> {
        let known = self.known.read().expect("no panic while held");
        known.tools.iter().map(|(spec, _)| spec).chain(&known.loader).cloned().collect()
    }

    /// Its skills, by name, and the files of each.
    pub(super) fn skills(&self) -> Vec<(String, Vec<String>)> {
        let known = self.known.read().expect("no panic while held");
        let files = |skill: &Skill| match &skill.resources {
            SkillResources::Files(files) => files.iter().map(|file| file.uri.clone()).collect(),
            _ => Vec::new(),
        };
        known.skills.iter().map(|skill| (skill.frontmatter.name.clone(), files(skill))).collect()
    }

    /// A tool as the server describes it.
    pub(super) fn original(&self, name: &str) -> Option<Arc<Tool>> {
        let known = self.known.read().expect("no panic while held");
        known.tools.iter().find(|(spec, _)| spec.name == name).map(|(_, tool)| tool.clone())
    }

    async fn run(&self, stop: &CancellationToken) {
        let mut deaths = 0;
        loop {
            let began = Instant::now();
            let mut last = Tail::default();
            let Some(reason) = self.live(stop, &mut last).await else { return };
            deaths = if began.elapsed() > STEADY { 1 } else { deaths + 1 };
            let lines = last.lines();
            let said = lines.last().map(String::as_str).unwrap_or_default();
            tracing::warn!(target: "mcp", server = self.server.name, said, "{reason}");
            self.state.send_replace(State::Down(reason, last));
            let pause = PAUSES.min(PAUSE * 2u32.pow(deaths.min(DEATHS) - 1));
            let wanted = async {
                tokio::time::sleep(PAUSE).await;
                self.wanted.notified().await;
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause), if deaths < DEATHS => {}
                () = wanted => {}
            }
            self.state.send_replace(State::Starting);
        }
    }

    /// One life of it. Returns why it is over; `None` when it was told to stop.
    async fn live(&self, stop: &CancellationToken, last: &mut Tail) -> Option<String> {
        let era = self.known.read().expect("no panic while held").era;
        let era = if self.server.era == Era::Auto { era } else { self.server.era };
        let (connection, mut link, era, tools, skills) = loop {
            let opened = tokio::select! {
                () = stop.cancelled() => return None,
                opened = self.open(era, last) => opened,
            };
            let refusal = match opened {
                Ok(opened) => break opened,
                Err(refusal) => refusal,
            };
            // A person may sign in for as long as it takes.
            let signed = tokio::select! {
                () = stop.cancelled() => return None,
                signed = self.signed_in(&refusal) => signed,
            };
            if let Err(reason) = signed {
                // It may have become one of the other era.
                self.known.write().expect("no panic while held").era = Era::Auto;
                return Some(reason);
            }
        };
        self.take(era, tools, skills);
        let connection = Arc::new(connection);
        self.state.send_replace(State::Up(connection.clone()));
        let reason = tokio::select! {
            () = stop.cancelled() => None,
            reason = link.closed() => Some(reason),
            () = self.follow(&connection, era) => None,
            () = heard(&connection, era) => None,
        };
        link.end().await;
        reason
    }

    /// Connects, and hears what tools it has.
    async fn open(&self, era: Era, last: &mut Tail) -> Result<Opened, Refusal> {
        let opening = async {
            let (connection, link, era) =
                Connection::open(&self.server, era, self.account.as_ref(), last).await?;
            match connection.tools().await {
                Ok(tools) => {
                    let skills = connection.skills().await;
                    Ok((connection, link, era, tools, skills))
                }
                Err(refusal) => {
                    link.end().await;
                    Err(refusal)
                }
            }
        };
        let limit = self.server.start;
        let opened = tokio::time::timeout(limit, opening).await.unwrap_or_else(|_| {
            Err(format!("it has not said what tools it has in {} s", limit.as_secs_f64()).into())
        })?;
        if let Some(account) = &self.account {
            account.accepted();
        }
        Ok(opened)
    }

    /// Signs in, if that is what was missing. The error is what is still.
    async fn signed_in(&self, refusal: &Refusal) -> Result<(), String> {
        match (&self.account, &refusal.challenge) {
            (Some(account), Some(challenge)) => account.sign_in(Some(challenge), &[]).await,
            (None, Some(_)) => Err(format!("it does not take us for who we say we are: {}", refusal.reason)),
            _ => Err(refusal.reason.clone()),
        }
    }

    /// Lets a person sign in from now on.
    pub(super) fn browse(&self, browser: Browser) {
        if let Some(account) = &self.account {
            account.browse(browser);
        }
    }

    /// Has a person sign in, whether or not somebody has before.
    pub(super) async fn sign_in(&self, more: &[String]) -> Result<(), String> {
        let (Some(account), Reach::Address(address)) = (&self.account, &self.server.reach) else {
            return Err(
                "nobody signs in there: it is a program, or is told who you are in its headers".to_owned()
            );
        };
        let challenge = Connection::challenge(address).await?;
        account.sign_in(challenge.as_deref(), more).await
    }

    /// Forgets who we are to it.
    pub(super) async fn sign_out(&self) -> std::io::Result<Option<Revoked>> {
        match &self.account {
            Some(account) => account.forget().await,
            None => Ok(None),
        }
    }

    /// Takes up changes of its tools, for ever.
    async fn follow(&self, connection: &Connection, era: Era) {
        loop {
            connection.changed().await;
            tokio::time::sleep(QUIET).await;
            match tokio::time::timeout(self.server.start, connection.tools()).await {
                Ok(Ok(tools)) => self.take(era, tools, connection.skills().await),
                Ok(Err(refusal)) => {
                    tracing::warn!(target: "mcp", server = self.server.name, "{}", refusal.reason);
                }
                Err(_) => {
                    tracing::warn!(target: "mcp", server = self.server.name, "it does not list its tools any more");
                }
            }
        }
    }

    fn known(&self, era: Era, tools: Vec<Tool>, skills: Vec<Skill>) -> Known {
        let is_wanted = |tool: &Tool| {
            let is = |name: &String| *name == tool.name;
            self.server.only.as_ref().is_none_or(|only| only.iter().any(is))
                && !self.server.without.iter().any(is)
        };
        let pair = |tool: Tool| (Arc::new(convert::from_tool(&self.server, &tool)), Arc::new(tool));
        let tools: Vec<_> = tools.into_iter().filter(is_wanted).map(pair).collect();
        // A tool of its own comes first.
        let loader = theirs::spec(&self.server, &skills);
        let loader = loader.filter(|loader| tools.iter().all(|(spec, _)| spec.name != loader.name));
        Known { said: true, era, tools, skills, loader }
    }

    /// Takes what the server says for what is known of it.
    fn take(&self, era: Era, tools: Vec<Tool>, skills: Vec<Skill>) {
        let kept = Kept { modern: era == Era::Modern, tools: tools.clone(), skills: skills.clone() };
        let known = self.known(era, tools, skills);
        let changed = {
            let mut before = self.known.write().expect("no panic while held");
            let changed = before.tools != known.tools || before.loader != known.loader;
            *before = known;
            changed
        };
        if changed {
            self.setting.listed.send_replace(());
        }
        if let Err(error) = self.keep(&kept) {
            tracing::warn!(target: "mcp", server = self.server.name, "its tools cannot be kept: {error}");
        }
    }

    /// Where it is kept what it said. Another description of it is another server.
    fn file(&self) -> PathBuf {
        let Server { name, digest, .. } = &self.server;
        self.setting.cache.join(format!("{name}-{}.json", &digest[..16]))
    }

    fn keep(&self, kept: &Kept) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.setting.cache)?;
        let file = tempfile::NamedTempFile::new_in(&self.setting.cache)?;
        serde_json::to_writer(&file, kept)?;
        file.persist(self.file())?;
        Ok(())
    }

    /// The connection, once there is one. A server that is down is started for this.
    async fn connection(self: &Arc<Self>, cancel: &CancellationToken) -> Result<Arc<Connection>, Error> {
        self.begin();
        let mut state = self.state.subscribe();
        let mut asked = false;
        loop {
            match &*state.borrow_and_update() {
                State::Up(connection) if !connection.peer.is_transport_closed() => {
                    return Ok(connection.clone());
                }
                State::Down(reason, last) if asked => return Err(self.down(reason, &last.lines())),
                State::Down(..) => {
                    asked = true;
                    self.wanted.notify_one();
                }
                State::Up(_) | State::Starting | State::Resting => {}
            }
            tokio::select! {
                changed = state.changed() => if changed.is_err() { return Err(Error::Cancelled) },
                () = cancel.cancelled() => return Err(Error::Cancelled),
                () = self.setting.shutdown.signal().cancelled() => return Err(Error::Cancelled),
            }
        }
    }

    fn down(&self, reason: &str, last: &[String]) -> Error {
        let said = last.last().map(|line| format!("; it said: {line}")).unwrap_or_default();
        Error::Failed(format!("the server `{}` cannot be used: {reason}{said}", self.server.name))
    }

    /// What is to be read, where the tool is the one that reads skills.
    fn skill(&self, call: &Call) -> Result<Option<(Skill, String)>, Error> {
        let known = self.known.read().expect("no panic while held");
        if known.loader.as_ref().is_none_or(|loader| loader.name != call.spec.name) {
            return Ok(None);
        }
        theirs::wanted(&known.skills, &call.arguments).map(|(skill, uri)| Some((skill.clone(), uri)))
    }

    /// Calls one of its tools. A call whose connection is lost is made once more only if it cannot
    /// have done anything, or may do it twice.
    pub(super) async fn call(self: &Arc<Self>, call: Call) -> Result<Output, Error> {
        let name = &self.server.name;
        let hints = call.spec.annotations;
        let tool = call.spec.name[name.len() + 1..].to_owned();
        let skill = self.skill(&call)?;
        let mut again = true;
        loop {
            let connection = self.connection(&call.context.cancel).await?;
            let outcome = match &skill {
                Some((skill, uri)) => connection.load(skill, uri.clone(), &call.context).await,
                None => connection.call(&tool, call.clone()).await,
            };
            match outcome {
                Ok(output) => {
                    if let Some(account) = &self.account {
                        account.accepted();
                    }
                    return Ok(output);
                }
                Err(Fault::Told(error)) => return Err(error),
                // It has done nothing. Signing in has a limit of its own.
                Err(Fault::Refused(refusal)) => {
                    let told =
                        |reason| Error::Failed(format!("the server `{name}` does not do it: {reason}"));
                    self.signed_in(&refusal).await.map_err(told)?;
                    continue;
                }
                Err(Fault::Unsent) if again => {}
                Err(Fault::Lost) if again && (hints.read_only || hints.idempotent) => {}
                Err(Fault::Unsent) => {
                    return Err(Error::Failed(format!("the server `{name}` went away before it was asked")));
                }
                Err(Fault::Lost) => {
                    return Err(Error::Failed(format!(
                        "the server `{name}` went away while it worked; whether it has done its work is not known"
                    )));
                }
            }
            again = false;
        }
    }
}

/// Has a server of the newer era tell of changes, for ever; the older one does unasked.
async fn heard(connection: &Connection, era: Era) {
    if era != Era::Modern {
        std::future::pending::<()>().await;
    }
    let mut pause = PAUSE;
    loop {
        let began = Instant::now();
        connection.listen().await;
        // It may not be able to at all.
        pause = if began.elapsed() > STEADY { PAUSE } else { PAUSES.min(pause * 2) };
        tokio::time::sleep(pause).await;
        connection.missed();
    }
}
