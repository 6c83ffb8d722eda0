//! The sessions an editor has open, and what it asks about sessions.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use agent_client_protocol::v1::ConnectionTo;
use agent_client_protocol::v1::schema::{
    self, AgentCapabilities, AuthMethod, AuthMethodAgent, AuthMethodTerminal, AuthenticateRequest,
    AuthenticateResponse, ClientCapabilities, ConfigOptionUpdate, CurrentModeUpdate, Implementation,
    InitializeRequest, InitializeResponse, McpCapabilities, McpServer, PromptCapabilities,
    SessionCapabilities, SessionConfigOption, SessionInfo, SessionModeState, SessionUpdate,
};
use agent_client_protocol::{Client, Error, ErrorCode};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::choice::Choices;
use super::{House, Place, VERSION, failed, invalid, say, show};
use crate::hub::{Hub, Lane, Mode};
use crate::message::Usage;
use crate::session::{self, Sessions, Summary};

/// Sessions that are open at once.
const MOST: usize = 64;
/// Sessions of one answer to `session/list`.
const PAGE: usize = 50;
/// How long what was said before waits for the names of the tools that were called.
const NAMING: Duration = Duration::from_secs(2);

/// The way in that looks for a model, and the one that a person goes in a terminal.
const FOUND: &str = "found";
const SETUP: &str = "setup";

/// A session that is open.
pub(super) struct Opened {
    pub(super) id: String,
    /// The folder, as the editor calls it.
    pub(super) folder: PathBuf,
    state: Mutex<State>,
}

struct State {
    place: Place,
    choices: Choices,
    /// Ends the turns that go on; another one is for those that come.
    cancel: CancellationToken,
    /// Held so that what was agreed to "always" stays agreed to.
    lane: Option<Arc<Lane>>,
    titled: bool,
    /// What was said to be missing, so that it is said once.
    missing: HashSet<String>,
    /// What its turns have cost, once that was looked up.
    spent: Option<Usage>,
}

impl Opened {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no panic while held")
    }

    /// The mode, for an editor that has not chosen it itself.
    pub(super) fn mode_told(&self) -> SessionUpdate {
        SessionUpdate::CurrentModeUpdate(CurrentModeUpdate::new(self.state().choices.mode.name()))
    }

    /// The same of all that may be chosen.
    pub(super) fn options_told(&self) -> SessionUpdate {
        SessionUpdate::ConfigOptionUpdate(ConfigOptionUpdate::new(self.options()))
    }

    /// Where a turn is played that begins now, and by which model.
    pub(super) fn place(&self) -> Place {
        let state = self.state();
        let chosen = |chosen: Option<&str>| chosen.map(str::to_owned);
        let (model, effort) = (chosen(state.choices.model()), chosen(state.choices.effort()));
        Place { model, effort, ..state.place.clone() }
    }

    /// What ends a turn that begins now.
    pub(super) fn cancellation(&self) -> CancellationToken {
        self.state().cancel.clone()
    }

    /// Takes the session's place in the house, where the mode is what was chosen.
    pub(super) fn enter(&self, hub: &Hub) -> Arc<Lane> {
        let (mut state, lane) = (self.state(), hub.lane(&self.id));
        lane.choose(state.choices.mode);
        state.lane = Some(lane.clone());
        lane
    }

    /// Chooses; the error says what is wrong with it.
    fn choose(&self, option: &str, value: &str) -> Result<(), Error> {
        let mut state = self.state();
        state.choices.choose(option, value)?;
        if let Some(lane) = &state.lane {
            lane.choose(state.choices.mode);
        }
        Ok(())
    }

    /// Takes note of a mode that was chosen in words, and says whether it is another one.
    pub(super) fn settle(&self, mode: Mode) -> bool {
        std::mem::replace(&mut self.state().choices.mode, mode) != mode
    }

    /// Whether its title is to be told: once.
    pub(super) fn is_untitled(&self) -> bool {
        !std::mem::replace(&mut self.state().titled, true)
    }

    /// Takes note of what the session has cost.
    pub(super) fn spend(&self, spent: Usage) {
        self.state().spent = Some(spent);
    }

    fn cancel(&self) {
        std::mem::take(&mut self.state().cancel).cancel();
    }

    fn modes(&self) -> SessionModeState {
        self.state().choices.modes()
    }

    fn options(&self) -> Vec<SessionConfigOption> {
        self.state().choices.options()
    }
}

/// The sessions an editor has open.
pub(super) struct Desk {
    house: Arc<dyn House>,
    client: OnceLock<ClientCapabilities>,
    open: Mutex<HashMap<String, Arc<Opened>>>,
    /// When something was last asked, and how many turns go on.
    heard: Mutex<Instant>,
    turns: AtomicUsize,
}

/// A turn that goes on.
pub(super) struct Going<'a>(&'a Desk);

impl Drop for Going<'_> {
    fn drop(&mut self) {
        self.0.turns.fetch_sub(1, Ordering::SeqCst);
        self.0.hear();
    }
}

impl Desk {
    pub(super) fn new(house: Arc<dyn House>) -> Self {
        let (client, open) = (OnceLock::new(), Mutex::default());
        Self { house, client, open, heard: Mutex::new(Instant::now()), turns: AtomicUsize::new(0) }
    }

    fn hear(&self) {
        *self.heard.lock().expect("no panic while held") = Instant::now();
    }

    /// For how long nothing was asked and no turn went on.
    pub(super) fn silence(&self) -> Duration {
        match self.turns.load(Ordering::SeqCst) {
            0 => self.heard.lock().expect("no panic while held").elapsed(),
            _ => Duration::ZERO,
        }
    }

    /// Takes note of a turn, for as long as what is returned is held.
    pub(super) fn going(&self) -> Going<'_> {
        self.turns.fetch_add(1, Ordering::SeqCst);
        Going(self)
    }

    /// What we can do. Each thing that is said here has its handler in [`super::connect`].
    pub(super) fn initialize(&self, request: &InitializeRequest) -> InitializeResponse {
        // A second one changes nothing: sessions may be open that count on the first.
        let _ = self.client.set(request.client_capabilities.clone());
        let sessions = SessionCapabilities::new()
            .list(schema::SessionListCapabilities::new())
            .resume(schema::SessionResumeCapabilities::new())
            .delete(schema::SessionDeleteCapabilities::new())
            .close(schema::SessionCloseCapabilities::new());
        let capabilities = AgentCapabilities::new()
            .load_session(true)
            .prompt_capabilities(PromptCapabilities::new().image(true).embedded_context(true))
            .mcp_capabilities(McpCapabilities::new().http(true))
            .session_capabilities(sessions);
        InitializeResponse::new(VERSION)
            .agent_capabilities(capabilities)
            .auth_methods(ways_in(&request.client_capabilities))
            .agent_info(Implementation::new("omni", env!("CARGO_PKG_VERSION")).title("Omni".to_owned()))
    }

    /// Looks whether there is a model to talk to.
    pub(super) async fn authenticate(
        &self,
        request: AuthenticateRequest,
    ) -> Result<AuthenticateResponse, Error> {
        match &*request.method_id.0 {
            FOUND => {
                self.house.ready().await.map_err(|reason| Error::new(ErrorCode::AUTH_REQUIRED, reason))?;
                Ok(AuthenticateResponse::new())
            }
            SETUP => Err(invalid(format!("`{SETUP}` is done in a terminal: `omni setup`"))),
            other => Err(invalid(format!("there is no way in that is called `{other}`"))),
        }
    }

    /// What the editor can do.
    pub(super) fn client(&self) -> Option<&ClientCapabilities> {
        self.client.get()
    }

    pub(super) fn find(&self, id: &str) -> Result<Arc<Opened>, Error> {
        self.hear();
        let open = self.open.lock().expect("no panic while held");
        open.get(id).cloned().ok_or_else(|| unknown(id))
    }

    pub(super) async fn sessions(&self) -> Result<Sessions, Error> {
        self.hear();
        self.house.sessions().await.map_err(failed)
    }

    /// What the turns of a session have cost so far.
    pub(super) async fn spent(&self, session: &Opened) -> Result<Usage, Error> {
        let known = session.state().spent;
        match known {
            Some(spent) => Ok(spent),
            None => self.sessions().await?.usage(&session.id).await.map_err(failed),
        }
    }

    /// What is missing in a session and was not said to be.
    pub(super) async fn missing(&self, session: &Opened) -> Vec<String> {
        let mut missing = self.house.missing(&session.place()).await;
        missing.retain(|what| session.state().missing.insert(what.clone()));
        missing
    }

    pub(super) async fn hub(&self, session: &Opened) -> Result<Arc<Hub>, Error> {
        self.house.hub(&session.place()).await.map_err(failed)
    }

    /// A new session. It is stored when this returns: the next process may go on with it.
    pub(super) async fn create(
        &self,
        request: schema::NewSessionRequest,
    ) -> Result<(schema::NewSessionResponse, Arc<Opened>), Error> {
        let place = self.place(&request.cwd, request.mcp_servers)?;
        let session = self.sessions().await?.create(&place.folder, Timestamp::now()).await.map_err(failed)?;
        let session = self.open(session.id(), &request.cwd, place).await?;
        let response = schema::NewSessionResponse::new(session.id.clone())
            .modes(session.modes())
            .config_options(session.options());
        Ok((response, session))
    }

    /// A session from before, and all that was said in it.
    pub(super) async fn load(
        &self,
        request: schema::LoadSessionRequest,
        cx: &ConnectionTo<Client>,
    ) -> Result<(schema::LoadSessionResponse, Arc<Opened>), Error> {
        let id = &request.session_id.0;
        let summary = self.summary(id).await?;
        let place = self.place(&request.cwd, request.mcp_servers)?;
        let session = self.open(id, &request.cwd, place).await?;
        let entries = self.sessions().await?.show(id).await.map_err(failed)?;
        let place = session.place();
        let toolbox = match tokio::time::timeout(NAMING, self.house.toolbox(&place)).await {
            Ok(Ok(toolbox)) => Some(toolbox),
            // Then the calls of before have the names that models use.
            Ok(Err(_)) | Err(_) => None,
        };
        for update in show::replay(entries, &place.folder, toolbox.as_deref()) {
            say(cx, id, update);
        }
        if session.is_untitled() {
            say(cx, id, show::called(&summary));
        }
        let response =
            schema::LoadSessionResponse::new().modes(session.modes()).config_options(session.options());
        Ok((response, session))
    }

    /// A session from before, for an editor that knows what was said in it.
    pub(super) async fn resume(
        &self,
        request: schema::ResumeSessionRequest,
    ) -> Result<(schema::ResumeSessionResponse, Arc<Opened>), Error> {
        let id = &request.session_id.0;
        self.summary(id).await?;
        let place = self.place(&request.cwd, request.mcp_servers)?;
        let session = self.open(id, &request.cwd, place).await?;
        let response =
            schema::ResumeSessionResponse::new().modes(session.modes()).config_options(session.options());
        Ok((response, session))
    }

    /// What is known of the session of exactly this id.
    async fn summary(&self, id: &str) -> Result<Summary, Error> {
        match self.sessions().await?.resolve(id).await {
            Ok(summary) if summary.id == id => Ok(summary),
            Ok(_) => Err(unknown(id)),
            Err(session::Error::Store(error)) => Err(failed(error)),
            Err(_) => Err(unknown(id)),
        }
    }

    fn place(&self, folder: &Path, servers: Vec<McpServer>) -> Result<Place, Error> {
        if !folder.is_absolute() || !folder.is_dir() {
            let shown = folder.display();
            return Err(invalid(format!("`cwd` is no folder, or its path is not absolute: `{shown}`")));
        }
        let servers = servers.into_iter().map(described).collect::<Result<_, _>>()?;
        let folder = self.house.workspace(folder).map_err(failed)?;
        Ok(Place { folder, servers, model: None, effort: None })
    }

    async fn open(&self, id: &str, folder: &Path, place: Place) -> Result<Arc<Opened>, Error> {
        // Without them there is nothing to choose from; what is wrong is told when there is a turn.
        let models = self.house.models(&place).await.unwrap_or_else(|error| {
            tracing::warn!("no models for the editor to choose from: {error}");
            Vec::new()
        });
        let state = State {
            place: place.clone(),
            choices: Choices::new(models),
            cancel: CancellationToken::new(),
            lane: None,
            titled: false,
            missing: HashSet::new(),
            spent: None,
        };
        let session =
            Arc::new(Opened { id: id.to_owned(), folder: folder.to_owned(), state: Mutex::new(state) });
        {
            let mut open = self.open.lock().expect("no panic while held");
            if open.len() >= MOST && !open.contains_key(id) {
                return Err(invalid(format!("{MOST} sessions are open; close one first")));
            }
            if let Some(before) = open.insert(id.to_owned(), session.clone()) {
                before.cancel();
            }
        }
        // The first prompt finds it made, or waits for the rest.
        let house = self.house.clone();
        tokio::spawn(async move {
            if let Err(error) = house.hub(&place).await {
                tracing::warn!("the first turn will fail: {error}");
            }
        });
        Ok(session)
    }

    /// Sessions in which something was said, those last added to first.
    pub(super) async fn list(
        &self,
        request: schema::ListSessionsRequest,
    ) -> Result<schema::ListSessionsResponse, Error> {
        let from = match request.cursor {
            Some(cursor) => cursor.parse::<usize>().map_err(|_| invalid("the cursor is none of ours"))?,
            None => 0,
        };
        let folder = request.cwd.map(|folder| self.house.workspace(&folder).map_err(failed)).transpose()?;
        let last = from.saturating_add(PAGE);
        let listed = self.sessions().await?.list(folder.as_deref(), last.saturating_add(1)).await;
        let listed = listed.map_err(failed)?;
        let next = (listed.len() > last).then(|| last.to_string());
        let page = listed.into_iter().take(last).skip(from).filter(|summary| summary.messages > 0);
        let info = |summary: Summary| {
            let title = Some(summary.title).filter(|title| !title.is_empty());
            SessionInfo::new(summary.id, summary.workspace)
                .title(title)
                .updated_at(summary.updated.to_string())
        };
        Ok(schema::ListSessionsResponse::new(page.map(info).collect()).next_cursor(next))
    }

    /// Removes a session; one that is not there is removed already.
    pub(super) async fn delete(&self, id: &str) -> Result<schema::DeleteSessionResponse, Error> {
        self.close(id);
        if self.summary(id).await.is_ok() {
            self.sessions().await?.delete(id).await.map_err(failed)?;
        }
        Ok(schema::DeleteSessionResponse::new())
    }

    pub(super) fn close(&self, id: &str) {
        let closed = self.open.lock().expect("no panic while held").remove(id);
        if let Some(session) = closed {
            session.cancel();
        }
    }

    pub(super) fn cancel(&self, id: &str) {
        if let Ok(session) = self.find(id) {
            session.cancel();
        }
    }

    /// The editor is gone: what its turns have so far is kept.
    pub(super) fn leave(&self) {
        let open = std::mem::take(&mut *self.open.lock().expect("no panic while held"));
        open.values().for_each(|session| session.cancel());
    }

    pub(super) fn set_mode(
        &self,
        request: &schema::SetSessionModeRequest,
        cx: &ConnectionTo<Client>,
    ) -> Result<schema::SetSessionModeResponse, Error> {
        let session = self.find(&request.session_id.0)?;
        session.choose("mode", &request.mode_id.0)?;
        say(cx, &session.id, session.options_told());
        Ok(schema::SetSessionModeResponse::new())
    }

    pub(super) async fn set_option(
        &self,
        request: &schema::SetSessionConfigOptionRequest,
        cx: &ConnectionTo<Client>,
    ) -> Result<schema::SetSessionConfigOptionResponse, Error> {
        let session = self.find(&request.session_id.0)?;
        let value =
            request.value.as_value_id().ok_or_else(|| invalid("the value must be one of the choices"))?;
        session.choose(&request.config_id.0, &value.0)?;
        if &*request.config_id.0 == "mode" {
            say(cx, &session.id, session.mode_told());
        }
        Ok(schema::SetSessionConfigOptionResponse::new(session.options()))
    }
}

/// The ways to a model, where there is none yet.
fn ways_in(client: &ClientCapabilities) -> Vec<AuthMethod> {
    let found = AuthMethodAgent::new(FOUND, "Use what is here").description(
        "Looks again for a key in the environment, an Ollama, or a model in the settings".to_owned(),
    );
    let setup = AuthMethodTerminal::new(SETUP, "Set up omni")
        .description("Chooses a model in a terminal, and tries it".to_owned())
        .args(vec!["--setup".to_owned()]);
    let setup = client.auth.terminal.then_some(AuthMethod::Terminal(setup));
    setup.into_iter().chain([AuthMethod::Agent(found)]).collect()
}

fn unknown(id: &str) -> Error {
    schema::Error::session_not_found(id.to_owned()).into()
}

/// A server that the editor hands over, as `mcp.json` would describe it.
fn described(server: McpServer) -> Result<(String, Value), Error> {
    let remote = |kind, url: String, headers: Vec<schema::HttpHeader>| {
        let headers: Map<String, Value> = headers.into_iter().map(|h| (h.name, h.value.into())).collect();
        json!({ "type": kind, "url": url, "headers": headers })
    };
    match server {
        McpServer::Stdio(program) => {
            let env: Map<String, Value> = program.env.into_iter().map(|v| (v.name, v.value.into())).collect();
            let fields = json!({ "command": program.command, "args": program.args, "env": env });
            Ok((program.name, fields))
        }
        McpServer::Http(server) => Ok((server.name, remote("http", server.url, server.headers))),
        McpServer::Sse(server) => Ok((server.name, remote("sse", server.url, server.headers))),
        _ => Err(invalid("an MCP server is reached in a way that is not known here")),
    }
}
