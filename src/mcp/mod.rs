//! The Model Context Protocol, both ways.
//!
//! [`server`] is the toolbox for others: editors, assistants, programs. [`Servers`] are the tools
//! of others for us: programs that we start, or addresses.

mod ask;
mod asked;
mod audience;
mod auth;
mod client;
pub mod config;
pub mod conformance;
mod convert;
mod events;
pub mod http;
mod lines;
mod open;
mod process;
mod revoke;
mod run;
pub mod server;
mod skills;
pub mod stdio;
mod supervise;
mod task;
mod theirs;
mod view;

use std::collections::BTreeMap;
use std::sync::{Arc, Once};
use std::time::Duration;

use async_trait::async_trait;
use rmcp::model::Tool;

use crate::tool::{self, Call, Error, Output, Spec, Toolset};

pub use auth::{Browser, Visit};
pub use http::Listener;
pub use revoke::Revoked;
pub use server::Server;
pub use stdio::Pipes;
pub use supervise::Setting;

use supervise::{Keeper, State};

/// The servers of others, each with its tools. Nothing is started before somebody wants it.
pub struct Servers {
    keepers: BTreeMap<String, Arc<Keeper>>,
    left: Vec<tool::Server>,
    reaped: Once,
}

/// How a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// It was not started.
    Resting,
    /// It is on its way.
    Starting,
    /// It is there.
    Up,
    /// It is not.
    Down {
        /// Why.
        reason: String,
        /// What it said last on its standard error.
        last: Vec<String>,
    },
}

impl Servers {
    /// These servers.
    pub fn new(servers: impl IntoIterator<Item = config::Server>, setting: &Setting) -> Self {
        let keep = |server: config::Server| (server.name.clone(), Keeper::new(server, setting.clone()));
        Self { keepers: servers.into_iter().map(keep).collect(), left: Vec::new(), reaped: Once::new() }
    }

    /// The same, and those that are described and not used.
    pub fn beside(self, left: impl IntoIterator<Item = (config::Entry, config::Left)>) -> Self {
        let told = |(entry, left): (config::Entry, config::Left)| tool::Server {
            problem: left.reason(&entry),
            name: entry.name,
            state: left.word(),
            tools: Vec::new(),
            last: Vec::new(),
        };
        Self { left: left.into_iter().map(told).collect(), ..self }
    }

    /// Starts them all, side by side. Nobody waits for them.
    pub fn start(&self) {
        self.reap();
        self.keepers.values().for_each(Keeper::begin);
    }

    /// Waits until those that were never heard of have said what they have, or have failed to.
    /// Returns the names of those that have done neither in this time.
    pub async fn met(&self, limit: Duration) -> Vec<&str> {
        let strangers: Vec<_> = self.keepers.values().filter(|keeper| !keeper.has_said()).collect();
        for stranger in &strangers {
            self.reap();
            stranger.begin();
        }
        let all = async {
            for stranger in &strangers {
                stranger.settled().await;
            }
        };
        let _ = tokio::time::timeout(limit, all).await;
        let is_silent = |keeper: &&&Arc<Keeper>| matches!(keeper.state(), State::Starting);
        strangers.iter().filter(is_silent).map(|keeper| keeper.server.name.as_str()).collect()
    }

    /// The server whose tool this would be, by either of its names.
    pub fn of_tool(&self, tool: &str) -> Option<&str> {
        let is_of = |name: &&str| {
            let rest = tool.strip_prefix(*name);
            rest.is_some_and(|rest| rest.starts_with('.') || rest.starts_with("__"))
        };
        self.keepers.keys().map(String::as_str).filter(is_of).max_by_key(|name| name.len())
    }

    /// Starts one and waits for what comes of it. `None` if there is no such server.
    pub async fn try_out(&self, name: &str) -> Option<Status> {
        let keeper = self.keepers.get(name)?;
        self.reap();
        keeper.begin();
        Some(keeper.settled().await.into())
    }

    /// Lets a person sign in where a server wants to know who we are.
    pub fn browse(&self, browser: &Browser) {
        self.keepers.values().for_each(|keeper| keeper.browse(browser.clone()));
    }

    /// Has a person sign in to one, and asks for `scopes` to be allowed. `None` if there is no such
    /// server.
    pub async fn sign_in(&self, name: &str, scopes: &[String]) -> Option<Result<(), String>> {
        Some(self.keepers.get(name)?.sign_in(scopes).await)
    }

    /// Forgets who we are to one, and says what became of the tokens it has given; of none, if we were
    /// nobody. `None` if there is no such server.
    pub async fn sign_out(&self, name: &str) -> Option<std::io::Result<Option<Revoked>>> {
        Some(self.keepers.get(name)?.sign_out().await)
    }

    /// How each of them is, and how many tools it is known to have.
    pub fn status(&self) -> Vec<(&str, Status, usize)> {
        let all = self.keepers.iter();
        all.map(|(name, keeper)| (name.as_str(), keeper.state().into(), keeper.specs().len())).collect()
    }

    /// What the tools of one are called there.
    pub fn tools(&self, name: &str) -> Vec<String> {
        let Some(keeper) = self.keepers.get(name) else { return Vec::new() };
        keeper.specs().iter().map(|spec| spec.name[name.len() + 1..].to_owned()).collect()
    }

    /// The skills of one, by name, and the files of each.
    pub fn skills(&self, name: &str) -> Vec<(String, Vec<String>)> {
        self.keepers.get(name).map(|keeper| keeper.skills()).unwrap_or_default()
    }

    /// Patterns of the tools that their user lets run without asking.
    pub fn allowed(&self) -> Vec<String> {
        let patterns = |keeper: &Arc<Keeper>| -> Vec<String> {
            let name = &keeper.server.name;
            keeper.server.allowed.iter().map(|tool| format!("{name}.{tool}")).collect()
        };
        self.keepers.values().flat_map(patterns).collect()
    }

    /// A tool as its server describes it, by our name for it.
    pub fn original(&self, name: &str) -> Option<Arc<Tool>> {
        self.keeper(name)?.original(name)
    }

    fn keeper(&self, tool: &str) -> Option<&Arc<Keeper>> {
        // Names of servers have no dot.
        self.keepers.get(tool.split_once('.')?.0)
    }

    /// Ends what an omni that was killed has left running.
    fn reap(&self) {
        self.reaped.call_once(|| {
            tokio::task::spawn_blocking(|| match process::reap() {
                0 => {}
                count => {
                    tracing::info!(target: "mcp", count, "servers of an omni that was killed were ended")
                }
            });
        });
    }
}

impl From<State> for Status {
    fn from(state: State) -> Self {
        match state {
            State::Resting => Self::Resting,
            State::Starting => Self::Starting,
            State::Up(_) => Self::Up,
            State::Down(reason, last) => Self::Down { reason, last: last.lines() },
        }
    }
}

#[async_trait]
impl Toolset for Servers {
    fn specs(&self) -> Vec<Arc<Spec>> {
        self.keepers.values().flat_map(|keeper| keeper.specs()).collect()
    }

    async fn call(&self, call: Call) -> Result<Output, Error> {
        match self.keeper(&call.spec.name) {
            Some(keeper) => keeper.call(call).await,
            None => Err(Error::Failed(format!("there is no tool `{}`", call.spec.name))),
        }
    }

    fn servers(&self) -> Vec<tool::Server> {
        let told = |(name, status, _): (&str, Status, usize)| {
            let (state, problem, last) = match status {
                Status::Resting => ("not started", None, Vec::new()),
                Status::Starting => ("starting", None, Vec::new()),
                Status::Up => ("up", None, Vec::new()),
                Status::Down { reason, last } => ("down", Some(reason), last),
            };
            tool::Server { name: name.to_owned(), state, tools: self.tools(name), problem, last }
        };
        let mut all: Vec<_> = self.status().into_iter().map(told).chain(self.left.iter().cloned()).collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }
}
