//! One connection to a server: its tools, and calls of them.
#![expect(deprecated, reason = "what the newest version has given up is what older servers speak")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rmcp::ClientHandler;
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, CallToolResult, ClientCapabilities, ClientConfig, ClientRequest,
    CreateMessageRequestParams, CreateMessageResult, CreateTaskResult, ElicitRequestParams, ElicitResult,
    ElicitationCapability, ErrorCode, ErrorData, FormElicitationCapability, Implementation,
    InputRequiredResult, JsonObject, ListRootsResult, LoggingLevel, LoggingMessageNotificationParam,
    PaginatedRequestParams, ProgressNotificationParam, ProtocolVersion, ReadResourceRequestParams,
    RequestMetaObject, RootsCapabilities, SamplingCapability, ServerResult, SetLevelRequestParams, Skill,
    SubscriptionFilter, TASKS_EXTENSION_ID, Task, Tool, UrlElicitationCapability,
};
use rmcp::service::{
    ClientCacheConfig, NotificationContext, Peer, PeerRequestOptions, RequestContext, RequestHandle,
    RoleClient, RunningService, RunningServiceCancellationToken, ServiceError,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::asked::{self, Calls};
use super::auth::Account;
use super::config::{Address, Era, Reach, Server};
use super::open::{self, Refusal, short};
use super::process::{Process, Tail};
use super::task::{self, Tended};
use super::{convert, theirs};
use crate::tool::{Call, Context, Error, Output, Progress};
use crate::trace;

/// Where a call says which request has led to it.
pub(super) const REQUEST: &str = "omni/request";
/// Pages of one list, and tools in all of them. A server that has more does not end.
const PAGES: usize = 100;
const TOOLS: usize = 10_000;
/// How often a tool may ask for something before it has a result.
const ROUNDS: usize = 20;
/// Until a call is made again that wanted nothing but that.
const AGAIN: Duration = Duration::from_millis(500);
/// How long it is waited for the answer to a call that nobody wants any more, where that may be a task: it would
/// go on without anybody who knows of it.
const ON_ITS_WAY: Duration = Duration::from_millis(250);
/// How long saying goodbye may take.
const PARTING: Duration = Duration::from_secs(1);

/// A connection that has shaken hands.
pub(super) struct Connection {
    pub(super) peer: Peer<RoleClient>,
    ear: Ear,
}

/// What keeps a connection open; whoever has it ends it.
pub(super) struct Link {
    quit: RunningServiceCancellationToken,
    /// The connection has ended.
    over: CancellationToken,
    process: Option<Process>,
}

pub(super) type Running = RunningService<RoleClient, Ear>;

/// Why a call has no result.
pub(super) enum Fault {
    /// The tool, or the server, has said why.
    Told(Error),
    /// The connection was gone before the call was.
    Unsent,
    /// The server wants to know who we are, or wants more to be allowed, and says how.
    Refused(Refusal),
    /// The connection went while the call was worked on.
    Lost,
}

/// What came of one request to call a tool.
enum Outcome {
    Result(CallToolResult),
    /// Nothing yet: the tool wants to know something first.
    Asks(InputRequiredResult),
    /// Nothing yet: it is a task now.
    Task(Task, Tended),
}

/// What a server is heard with.
#[derive(Clone)]
pub(super) struct Ear {
    name: String,
    calls: Calls,
    changed: Arc<Notify>,
    /// The folder it may work in.
    roots: Option<PathBuf>,
}

impl ClientHandler for Ear {
    fn get_info(&self) -> ClientConfig {
        let own = Implementation::new("omni", env!("CARGO_PKG_VERSION")).with_title("omni");
        let elicitation = ElicitationCapability::new()
            .with_form(FormElicitationCapability::new())
            .with_url(UrlElicitationCapability::default());
        let mut can = ClientCapabilities::default();
        can.elicitation = Some(elicitation);
        can.sampling = Some(SamplingCapability::default());
        can.roots = self.roots.as_ref().map(|_| RootsCapabilities::default());
        can.extensions = Some([(TASKS_EXTENSION_ID.to_owned(), JsonObject::new())].into());
        ClientConfig::new(can, own).with_protocol_version(ProtocolVersion::LATEST_WITH_INITIALIZE)
    }

    async fn create_elicitation(
        &self,
        question: ElicitRequestParams,
        context: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        let call = self.calls.asking().await.map_err(|error| asked::unanswered(&error))?;
        let answer = context.ct.run_until_cancelled(asked::elicit(&call, question)).await;
        answer.unwrap_or(Err(Error::Cancelled)).map_err(|error| asked::unanswered(&error))
    }

    async fn create_message(
        &self,
        question: CreateMessageRequestParams,
        context: RequestContext<RoleClient>,
    ) -> Result<CreateMessageResult, ErrorData> {
        let call = self.calls.asking().await.map_err(|error| asked::unanswered(&error))?;
        let answer = context.ct.run_until_cancelled(asked::sample(&call, question)).await;
        answer.unwrap_or(Err(Error::Cancelled)).map_err(|error| asked::unanswered(&error))
    }

    async fn list_roots(&self, _: RequestContext<RoleClient>) -> Result<ListRootsResult, ErrorData> {
        Ok(asked::folders(self.roots.as_deref()))
    }

    async fn on_progress(&self, told: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        if let Some(call) = self.calls.get(&told.progress_token).await {
            (call.progress)(Progress { progress: told.progress, total: told.total, message: told.message });
        }
    }

    async fn on_logging_message(
        &self,
        told: LoggingMessageNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        use LoggingLevel::{Alert, Critical, Emergency, Error, Warning};
        let data = told.data.as_str().map_or_else(|| told.data.to_string(), str::to_owned);
        let (server, logger, data) = (&self.name, told.logger.unwrap_or_default(), short(&data));
        match told.level {
            Error | Critical | Alert | Emergency => {
                tracing::warn!(target: "mcp", server, logger, "{data}");
            }
            Warning => tracing::info!(target: "mcp", server, logger, "{data}"),
            _ => tracing::debug!(target: "mcp", server, logger, "{data}"),
        }
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.changed.notify_one();
    }
}

impl Connection {
    /// Connects. `era` is what is known of the server; the one it turned out to be is returned.
    /// The caller keeps the time.
    pub(super) async fn open(
        server: &Server,
        era: Era,
        account: Option<&Account>,
        last: &mut Tail,
    ) -> Result<(Self, Link, Era), Refusal> {
        let ear = Ear {
            name: server.name.clone(),
            calls: Calls::default(),
            changed: Arc::default(),
            roots: server.roots.clone(),
        };
        let (running, process) = match &server.reach {
            Reach::Program(program) => open::start(program, ear.clone(), era, last).await?,
            Reach::Address(address) => (open::reach(address, ear.clone(), era, account).await?, None),
        };
        let peer = running.peer().clone();
        // Lists are kept by us, and never taken for current without asking.
        peer.set_response_cache_config(ClientCacheConfig::disabled()).await;
        let info = peer.peer_info();
        let is_modern = info.as_ref().is_some_and(|info| !info.protocol_version.has_initialize());
        if !is_modern && info.is_some_and(|info| info.capabilities.logging.is_some()) {
            // What it says without being asked may be much. That it cannot be told so is no matter.
            let level = SetLevelRequestParams::new(LoggingLevel::Warning);
            let peer = peer.clone();
            tokio::spawn(async move { peer.set_level(level).await });
        }
        let era = if is_modern { Era::Modern } else { Era::Legacy };
        let quit = running.cancellation_token();
        let over = CancellationToken::new();
        let guard = over.clone().drop_guard();
        tokio::spawn(async move {
            let _ = running.waiting().await;
            drop(guard);
        });
        Ok((Self { peer, ear }, Link { quit, over, process }, era))
    }

    /// How an address says that it wants to know who we are, if it does.
    pub(super) async fn challenge(address: &Address) -> Result<Option<String>, String> {
        let ear = Ear { name: String::new(), calls: Calls::default(), changed: Arc::default(), roots: None };
        match open::reach(address, ear, Era::Auto, None).await {
            Ok(running) => {
                running.cancellation_token().cancel();
                Ok(None)
            }
            Err(Refusal { challenge: Some(challenge), .. }) => Ok(Some(challenge)),
            Err(Refusal { reason, .. }) => Err(reason),
        }
    }

    /// All its tools.
    pub(super) async fn tools(&self) -> Result<Vec<Tool>, Refusal> {
        let (mut tools, mut cursor) = (Vec::new(), None);
        for _ in 0..PAGES {
            let request = PaginatedRequestParams::default().with_cursor(cursor.clone());
            let page = match self.peer.list_tools(Some(request)).await {
                Ok(page) => page,
                // It has none, and nothing to list.
                Err(ServiceError::McpError(error)) if error.code == ErrorCode::METHOD_NOT_FOUND => break,
                Err(error) => {
                    let refusal = Refusal::of_request(&error);
                    let reason = format!("its tools cannot be listed: {}", refusal.reason);
                    return Err(Refusal { reason, ..refusal });
                }
            };
            tools.extend(page.tools);
            if page.next_cursor.is_none() || page.next_cursor == cursor {
                return Ok(tools);
            }
            if tools.len() > TOOLS {
                break;
            }
            cursor = page.next_cursor;
        }
        match tools.len() {
            0 => Ok(tools),
            _ => {
                Err(format!("its list of tools does not end: there are more than {TOOLS}, or {PAGES} pages")
                    .into())
            }
        }
    }

    /// All its skills. They are more than a server has to have: one that does not list them has none.
    pub(super) async fn skills(&self) -> Vec<Skill> {
        let (mut skills, mut cursor) = (Vec::new(), None);
        for _ in 0..PAGES {
            let request = PaginatedRequestParams::default().with_cursor(cursor.clone());
            let page = match self.peer.list_skills(Some(request)).await {
                Ok(page) => page,
                Err(ServiceError::McpError(error)) if error.code == ErrorCode::METHOD_NOT_FOUND => break,
                Err(error) => {
                    let reason = Refusal::of_request(&error).reason;
                    tracing::warn!(target: "mcp", server = self.ear.name, "its skills cannot be listed: {reason}");
                    break;
                }
            };
            skills.extend(page.skills);
            if page.next_cursor.is_none() || page.next_cursor == cursor || skills.len() > TOOLS {
                break;
            }
            cursor = page.next_cursor;
        }
        skills
    }

    /// Reads a file of a skill.
    pub(super) async fn load(&self, skill: &Skill, uri: String, context: &Context) -> Result<Output, Fault> {
        let read = self.peer.read_resource(ReadResourceRequestParams::new(&uri));
        let contents = match context.cancel.run_until_cancelled(read).await {
            None => return Err(Fault::Told(Error::Cancelled)),
            Some(Ok(read)) => read.contents,
            Some(Err(ServiceError::McpError(error))) => {
                return Err(Fault::Told(Error::Failed(short(&error.message))));
            }
            Some(Err(error @ ServiceError::TransportSend(_))) => {
                return Err(match Refusal::of_request(&error) {
                    refusal @ Refusal { challenge: Some(_), .. } => Fault::Refused(refusal),
                    Refusal { reason, .. } => Fault::Told(Error::Failed(reason)),
                });
            }
            Some(Err(_)) => return Err(Fault::Lost),
        };
        theirs::checked(skill, &uri, contents).map(Output::text).map_err(Fault::Told)
    }

    /// Waits for news of other tools.
    pub(super) async fn changed(&self) {
        self.ear.changed.notified().await;
    }

    /// Has a server of the newer era tell of other tools. Returns when the stream has ended.
    pub(super) async fn listen(&self) {
        let filter = SubscriptionFilter::builder().tools_list_changed().build();
        let Ok(mut subscription) = self.peer.listen(filter).await else { return };
        while let Ok(Some(_)) = subscription.next().await {
            self.ear.changed.notify_one();
        }
    }

    /// Takes it that there was news while nobody listened.
    pub(super) fn missed(&self) {
        self.ear.changed.notify_one();
    }

    /// Calls a tool by its own name there, and answers what it asks for.
    pub(super) async fn call(&self, tool: &str, call: Call) -> Result<Output, Fault> {
        let Call { arguments, context, .. } = call;
        let mut params = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments);
        params.meta = meta(context.request.as_deref());
        for round in 0..ROUNDS {
            let asked = match self.once(params.clone(), &context).await {
                Ok(Outcome::Result(result)) => return convert::from_result(result).map_err(Fault::Told),
                Ok(Outcome::Asks(asked)) => asked,
                Ok(Outcome::Task(task, tended)) => {
                    return tended.end(task, &context, self.ear.roots.as_deref()).await;
                }
                // It was there before, and may have done something.
                Err(Fault::Unsent) if round > 0 => return Err(Fault::Lost),
                Err(fault) => return Err(fault),
            };
            let requests = asked.input_requests.unwrap_or_default();
            if requests.is_empty() {
                tokio::time::sleep(AGAIN).await;
            }
            let answers = asked::answers(&context, requests, self.ear.roots.as_deref()).await;
            let answers = answers.map_err(Fault::Told)?;
            params.input_responses = (!answers.is_empty()).then_some(answers);
            params.request_state = asked.request_state;
        }
        Err(Fault::Told(Error::Failed(format!("the tool has asked {ROUNDS} times and has no result"))))
    }

    async fn once(&self, params: CallToolRequestParams, context: &Context) -> Result<Outcome, Fault> {
        let request = ClientRequest::CallToolRequest(CallToolRequest::new(params));
        let pending = {
            // What it says of the call has to wait until we know of the call.
            let mut calls = self.ear.calls.lock().await;
            let sent = self.peer.send_request_with_option(request, PeerRequestOptions::no_options()).await;
            let handle = sent.map_err(|_| Fault::Unsent)?;
            calls.push((handle.progress_token.clone(), context.clone()));
            Pending { peer: self.peer.clone(), calls: self.ear.calls.clone(), handle: Some(handle) }
        };
        pending.wait(&context.cancel).await
    }
}

/// What a call says about where it comes from.
fn meta(request: Option<&str>) -> Option<RequestMetaObject> {
    let parent = trace::parent();
    if request.is_none() && parent.is_none() {
        return None;
    }
    let mut meta = RequestMetaObject::new();
    if let Some(request) = request {
        meta.insert(REQUEST.to_owned(), request.into());
    }
    if let Some(parent) = parent {
        meta.set_traceparent(&parent);
    }
    Some(meta)
}

/// A call that has no answer yet. Dropping it tells the server that nobody waits any more.
struct Pending {
    peer: Peer<RoleClient>,
    calls: Calls,
    handle: Option<RequestHandle<RoleClient>>,
}

impl Pending {
    async fn wait(mut self, cancel: &CancellationToken) -> Result<Outcome, Fault> {
        let handle = self.handle.as_mut().expect("taken by dropping only");
        let answer = tokio::select! {
            biased;
            answer = &mut handle.rx => answer,
            () = cancel.cancelled() => return Err(Fault::Told(Error::Cancelled)),
        };
        // Each report that came before it has a task of its own, which is queued before us from here on.
        tokio::task::yield_now().await;
        let token = self.handle.take().expect("taken by dropping only").progress_token.clone();
        if let Ok(Ok(ServerResult::CreateTaskResult(CreateTaskResult { task, .. }))) = answer {
            let tended = Tended::new(self.peer.clone(), &task.task_id, self.calls.clone(), token);
            return Ok(Outcome::Task(task, tended));
        }
        self.calls.remove(&token).await;
        let error = match answer {
            Ok(Ok(ServerResult::CallToolResult(result))) => return Ok(Outcome::Result(result)),
            Ok(Ok(ServerResult::InputRequiredResult(asked))) => return Ok(Outcome::Asks(asked)),
            Ok(Ok(_)) => Error::Failed("the server has answered with no result".to_owned()),
            Ok(Err(ServiceError::McpError(error))) => return Err(task::told(error)),
            Ok(Err(error @ ServiceError::TransportSend(_))) => match Refusal::of_request(&error) {
                refusal @ Refusal { challenge: Some(_), .. } => return Err(Fault::Refused(refusal)),
                Refusal { reason, .. } => Error::Failed(reason),
            },
            Ok(Err(_)) | Err(_) => return Err(Fault::Lost),
        };
        Err(Fault::Told(error))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let Some(mut handle) = self.handle.take() else { return };
        let (calls, peer) = (self.calls.clone(), self.peer.clone());
        let knows_tasks = peer.peer_info().is_some_and(|info| info.capabilities.supports_tasks());
        let pause = if knows_tasks { ON_ITS_WAY } else { Duration::ZERO };
        tokio::spawn(async move {
            let answer = tokio::time::timeout(pause, &mut handle.rx).await;
            if let Ok(Ok(Ok(ServerResult::CreateTaskResult(CreateTaskResult { task, .. })))) = answer {
                return drop(Tended::new(peer, &task.task_id, calls, handle.progress_token.clone()));
            }
            calls.remove(&handle.progress_token).await;
            let _ = handle.cancel(Some("nobody waits for it any more".to_owned())).await;
        });
    }
}

impl Link {
    /// Waits until the other side has closed the connection, or has ended.
    pub(super) async fn closed(&mut self) -> String {
        let Some(process) = &mut self.process else {
            self.over.cancelled().await;
            return "it has closed the connection".to_owned();
        };
        tokio::select! {
            () = self.over.cancelled() => {}
            // What it has started may hold the connection open for ever.
            () = process.wait() => {}
        }
        match process.ended().await {
            Some(status) => format!("it has ended: {status}"),
            None => "it has closed the connection".to_owned(),
        }
    }

    /// Closes the connection and ends the process.
    pub(super) async fn end(self) {
        self.quit.cancel();
        let _ = tokio::time::timeout(PARTING, self.over.cancelled()).await;
        if let Some(process) = self.process {
            process.end().await;
        }
    }
}
