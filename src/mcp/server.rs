//! The toolbox as an MCP server, of both eras: 2024-11-05 to 2025-11-25, and 2026-07-28.
//!
//! The server is there before the toolbox is: it says who it is without it, and what needs it
//! waits. Calls go through the toolbox like anybody's, so the policy, the limits and the audit are
//! the same.

use std::sync::{Arc, Mutex};

use rmcp::ServerHandler;
use rmcp::model::{
    CacheScope, CallToolRequestParams, CallToolResponse, ErrorData, GetPromptRequestParams,
    GetPromptResponse, GetPromptResult, Implementation, ListPromptsResult, ListResourceTemplatesResult,
    ListResourcesResult, ListToolsResult, PaginatedRequestParams, ProgressNotificationParam, ProgressToken,
    ProtocolVersion, ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult, ServerCapabilities,
    ServerConfig, SubscriptionFilter, Tool,
};
use rmcp::service::{
    NotificationContext, Peer, RequestContext, RoleServer, ServerInitializeError, SubscriptionContext,
    SubscriptionSink, serve_server_with_ct,
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::Servers;
use super::lines::Lines;
use super::stdio::Pipes;
use super::{ask, convert};
use crate::message::event::EventKind;
use crate::message::{Arguments, ToolCall};
use crate::tool::{Kind, Scope, Spec, Toolbox, Verdict};

/// The first version of the newer era.
const MODERN: ProtocolVersion = ProtocolVersion::V_2026_07_28;
/// Tools of one page. Many clients read the first page only.
const PAGE: usize = 1000;
/// Milliseconds for which a client may take the list of tools for current without asking.
const FRESH: u64 = 10_000;
/// Reports of progress that wait to be sent; more are dropped.
const REPORTS: usize = 64;

const INSTRUCTIONS: &str = "Tools of omni: files, git, processes, the web, notes, and whatever skills \
    its user has. Paths are relative to the folder that omni was started in, and tools do not leave it.";

/// The toolbox as it is from time to time; `None` until it is ready.
pub type Tools = watch::Receiver<Option<Arc<Toolbox>>>;

/// A server. Clones are the same one.
#[derive(Clone)]
pub struct Server(Arc<Inner>);

struct Inner {
    tools: Tools,
    scope: Scope,
    /// Whose tools are shown as they describe them.
    servers: Arc<Servers>,
    /// Clients that are told of changes: those of the older era, and subscriptions of the newer.
    peers: Mutex<Vec<Peer<RoleServer>>>,
    sinks: Mutex<Vec<SubscriptionSink>>,
}

impl Server {
    /// A server of these tools. `scope` is what its calls have in common.
    pub fn new(tools: Tools, scope: Scope, servers: Arc<Servers>) -> Self {
        Self(Arc::new(Inner { tools, scope, servers, peers: Mutex::default(), sinks: Mutex::default() }))
    }

    /// Serves one client over standard input and output until it leaves.
    pub async fn stdio(self, pipes: Pipes) -> Result<(), String> {
        let (input, output) =
            (tokio::fs::File::from_std(pipes.input), tokio::fs::File::from_std(pipes.output));
        let stop = self.0.scope.cancel.child_token();
        let serving = async {
            match serve_server_with_ct(self.clone(), Lines::new(input, output), stop.clone()).await {
                Ok(running) => running.waiting().await.map(drop).map_err(|error| error.to_string()),
                // It left, or we did, before it had said what it wants.
                Err(
                    ServerInitializeError::ConnectionClosed(_)
                    | ServerInitializeError::TransportError { .. }
                    | ServerInitializeError::Cancelled,
                ) => Ok(()),
                Err(error) => Err(error.to_string()),
            }
        };
        tokio::select! {
            ended = serving => ended,
            () = self.announce() => Ok(()),
        }
    }

    /// What ends it.
    pub(super) fn stop(&self) -> &CancellationToken {
        &self.0.scope.cancel
    }

    /// Tells clients of every change to what is listed; ends when there is nobody who changes it.
    pub(super) async fn announce(&self) {
        let mut tools = self.0.tools.clone();
        let mut known = tools.wait_for(Option::is_some).await.ok().and_then(|toolbox| toolbox.clone());
        while tools.changed().await.is_ok() {
            let now = tools.borrow_and_update().clone();
            let lists = Lists::of(now.as_deref()).differ(&Lists::of(known.as_deref()));
            known = now;
            let peers = {
                let mut peers = self.0.peers.lock().expect("no panic while held");
                peers.retain(|peer| !peer.is_transport_closed());
                peers.clone()
            };
            for peer in peers {
                if lists.tools {
                    let _ = peer.notify_tool_list_changed().await;
                }
                if lists.prompts {
                    let _ = peer.notify_prompt_list_changed().await;
                }
                if lists.resources {
                    let _ = peer.notify_resource_list_changed().await;
                }
            }
            let sinks = self.0.sinks.lock().expect("no panic while held").clone();
            for sink in sinks {
                if lists.tools {
                    let _ = sink.notify_tool_list_changed().await;
                }
                if lists.prompts {
                    let _ = sink.notify_prompt_list_changed().await;
                }
                if lists.resources {
                    let _ = sink.notify_resource_list_changed().await;
                }
            }
        }
        std::future::pending().await
    }

    /// The tools there are now, once there are any.
    async fn toolbox(&self) -> Result<Arc<Toolbox>, ErrorData> {
        let mut tools = self.0.tools.clone();
        match tools.wait_for(Option::is_some).await {
            Ok(toolbox) => Ok(toolbox.clone().expect("waited for")),
            Err(_) => Err(ErrorData::internal_error("the server is stopping", None)),
        }
    }

    /// The scope of a call that no model reads the result of.
    fn quiet(&self, context: &RequestContext<RoleServer>) -> Arc<Scope> {
        let mut scope = Scope { cancel: context.ct.clone(), whole: true, ..self.0.scope.clone() };
        ask::connect(&mut scope, context);
        Arc::new(scope)
    }

    /// The scope of one call.
    fn scope(&self, spec: &Spec, context: &RequestContext<RoleServer>) -> (Scope, mpsc::Receiver<Report>) {
        let mut scope = self.0.scope.clone();
        scope.cancel = context.ct.child_token();
        ask::connect(&mut scope, context);
        // What has a schema must fit it; a preview would not.
        scope.whole = spec.output.is_some();
        let (sender, reports) = mpsc::channel(REPORTS);
        if context.meta.get_progress_token().is_some() {
            scope.events = Some(Arc::new(move |event| {
                if let EventKind::ToolProgress { progress, total, message, .. } = event {
                    let _ = sender.try_send(Report { progress, total, message });
                }
            }));
        }
        (scope, reports)
    }
}

/// What is listed at one moment.
struct Lists {
    tools: Vec<Arc<Spec>>,
    prompts: Vec<Arc<Spec>>,
    resources: Vec<Arc<Spec>>,
}

/// Which lists are other ones.
struct Differ {
    tools: bool,
    prompts: bool,
    resources: bool,
}

impl Lists {
    fn of(toolbox: Option<&Toolbox>) -> Self {
        let Some(toolbox) = toolbox else {
            return Self { tools: Vec::new(), prompts: Vec::new(), resources: Vec::new() };
        };
        Self {
            tools: offered(toolbox).map(|(_, spec)| spec.clone()).collect(),
            prompts: toolbox.prompts().cloned().collect(),
            resources: toolbox.resources().cloned().collect(),
        }
    }

    fn differ(&self, other: &Self) -> Differ {
        Differ {
            tools: self.tools != other.tools,
            prompts: self.prompts != other.prompts,
            resources: self.resources != other.resources,
        }
    }
}

/// How far a call is.
struct Report {
    progress: f64,
    total: Option<f64>,
    message: Option<String>,
}

/// Tells a client how far its call is.
struct Reporter {
    peer: Peer<RoleServer>,
    token: Option<ProgressToken>,
    /// Progress never goes back; a sign of life repeats it.
    last: f64,
}

impl Reporter {
    async fn report(&mut self, report: Report) {
        let Some(token) = self.token.clone() else { return };
        self.last = self.last.max(report.progress);
        let mut notification = ProgressNotificationParam::new(token, self.last);
        notification.total = report.total;
        notification.message = report.message;
        let _ = self.peer.notify_progress(notification).await;
    }
}

/// What a client may call, by the name it calls it by: all but what the policy denies.
fn offered(toolbox: &Toolbox) -> impl Iterator<Item = (&str, &Arc<Spec>)> {
    toolbox.specs().filter_map(|spec| match toolbox.verdict(&spec.name) {
        Some(Verdict::Deny(_)) | None => None,
        Some(_) => Some((toolbox.wire(&spec.name)?, spec)),
    })
}

/// A tool under the name clients call it by. That of another server is handed on as it came.
fn described(servers: &Servers, wire: &str, spec: &Spec) -> Tool {
    match servers.original(&spec.name) {
        Some(tool) => {
            let mut tool = Tool::clone(&tool);
            tool.name = wire.to_owned().into();
            tool
        }
        None => convert::to_tool(wire, spec),
    }
}

/// The page that begins after the name in a cursor, and the cursor of the next one.
fn page<T>(
    mut all: Vec<(&str, T)>,
    request: Option<PaginatedRequestParams>,
) -> Result<(Vec<T>, Option<String>), ErrorData> {
    all.sort_by_key(|(name, _)| *name);
    // A name, so that it means the same when the list has changed in between.
    let cursor = request.and_then(|request| request.cursor);
    let start = match cursor.as_deref().map(|cursor| cursor.strip_prefix("after:")) {
        Some(None) => return Err(ErrorData::invalid_params("the cursor is none of this server's", None)),
        Some(Some(after)) => all.partition_point(|(name, _)| *name <= after),
        None => 0,
    };
    let rest = all.split_off(start);
    let is_last = rest.len() <= PAGE;
    let shown: Vec<_> = rest.into_iter().take(PAGE).collect();
    let next = shown.last().filter(|_| !is_last).map(|(name, _)| format!("after:{name}"));
    Ok((shown.into_iter().map(|(_, item)| item).collect(), next))
}

/// What is there beside tools, under its names.
fn named<'a, T>(
    specs: impl Iterator<Item = &'a Arc<Spec>>,
    form: impl Fn(&Spec) -> Option<T>,
) -> Vec<(&'a str, T)> {
    specs.filter_map(|spec| Some((spec.name.as_str(), form(spec)?))).collect()
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_prompts()
            .enable_prompts_list_changed()
            .enable_resources()
            .enable_resources_list_changed()
            .enable_tools()
            .enable_tool_list_changed()
            .build();
        let own = Implementation::new("omni", env!("CARGO_PKG_VERSION")).with_title("omni");
        ServerConfig::new(capabilities)
            .with_server_info(own.with_description(env!("CARGO_PKG_DESCRIPTION")))
            .with_instructions(INSTRUCTIONS)
    }

    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        let mut peers = self.0.peers.lock().expect("no panic while held");
        peers.retain(|peer| !peer.is_transport_closed());
        peers.push(context.peer);
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let toolbox = self.toolbox().await?;
        let tools = offered(&toolbox).map(|(wire, spec)| (wire, (wire, spec))).collect();
        let (tools, next) = page(tools, request)?;
        let tools = tools.into_iter().map(|(wire, spec)| described(&self.0.servers, wire, spec)).collect();
        let mut result = ListToolsResult::with_all_items(tools);
        result.next_cursor = next;
        Ok(result.with_ttl_ms(FRESH).with_cache_scope(CacheScope::Private))
    }

    async fn list_prompts(
        &self,
        request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        let toolbox = self.toolbox().await?;
        let prompts = named(toolbox.prompts(), |spec| Some(convert::to_prompt(spec)));
        let (prompts, next) = page(prompts, request)?;
        let mut result = ListPromptsResult::with_all_items(prompts);
        result.next_cursor = next;
        Ok(result.with_ttl_ms(FRESH).with_cache_scope(CacheScope::Private))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let toolbox = self.toolbox().await?;
        let arguments = request.arguments.unwrap_or_default();
        let said = toolbox.prompt(&request.name, arguments, &self.quiet(&context)).await;
        let messages = convert::to_messages(said.map_err(|error| convert::to_error(&error))?);
        Ok(GetPromptResult::new(messages).into())
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let toolbox = self.toolbox().await?;
        let (resources, next) = page(named(toolbox.resources(), convert::to_resource), request)?;
        let mut result = ListResourcesResult::with_all_items(resources);
        result.next_cursor = next;
        Ok(result.with_ttl_ms(FRESH).with_cache_scope(CacheScope::Private))
    }

    async fn list_resource_templates(
        &self,
        request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let toolbox = self.toolbox().await?;
        let (templates, next) = page(named(toolbox.resources(), convert::to_template), request)?;
        let mut result = ListResourceTemplatesResult::with_all_items(templates);
        result.next_cursor = next;
        Ok(result.with_ttl_ms(FRESH).with_cache_scope(CacheScope::Private))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let (toolbox, uri) = (self.toolbox().await?, request.uri);
        let Some(spec) = toolbox.resource(&uri) else {
            let reason = format!("there is no resource `{}`", uri.chars().take(200).collect::<String>());
            // The newer era has given up the code that the older ones have for it.
            let is_older = context.protocol_version().is_some_and(|version| version < MODERN);
            let told = match is_older {
                true => ErrorData::resource_not_found(reason, None),
                false => ErrorData::invalid_params(reason, None),
            };
            return Err(told);
        };
        let mime = match &spec.kind {
            Kind::Resource { mime, .. } => mime.clone(),
            Kind::Tool | Kind::Prompt => None,
        };
        let read = toolbox.read(&uri, &self.quiet(&context)).await;
        let read = read.map_err(|error| convert::to_error(&error))?;
        let contents = convert::to_contents(&uri, mime.as_deref(), read);
        // What it says may be different the next time.
        let result = ReadResourceResult::new(contents).with_ttl_ms(0);
        Ok(result.with_cache_scope(CacheScope::Private).into())
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let toolbox = self.toolbox().await?;
        let Some(spec) = toolbox.find(&request.name) else {
            let reason = format!("there is no tool `{}`", request.name.chars().take(80).collect::<String>());
            return Err(ErrorData::invalid_params(reason, None));
        };
        let (scope, mut reports) = self.scope(spec, &context);
        let scope = Arc::new(scope);
        // What a tool has asked the client for ends with it.
        let _over = scope.cancel.clone().drop_guard();
        let mut reporter =
            Reporter { token: context.meta.get_progress_token(), peer: context.peer, last: 0.0 };
        let call = ToolCall {
            id: context.id.to_string(),
            name: request.name.into_owned(),
            arguments: Arguments::Object(request.arguments.unwrap_or_default()),
        };
        let outcome = {
            let mut work = std::pin::pin!(toolbox.call(call, &scope));
            loop {
                tokio::select! {
                    biased;
                    Some(report) = reports.recv() => reporter.report(report).await,
                    outcome = &mut work => break outcome,
                }
            }
        };
        // What it has reported comes before its result.
        while let Ok(report) = reports.try_recv() {
            reporter.report(report).await;
        }
        Ok(convert::to_result(outcome).into())
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        let tools = self.0.tools.borrow();
        let toolbox = tools.as_ref()?;
        Some(described(&self.0.servers, name, toolbox.find(name)?))
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(requested.supported_by(&self.get_info().capabilities))
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let sink = context.sink().clone();
        self.0.sinks.lock().expect("no panic while held").push(sink.clone());
        tokio::select! {
            () = context.cancelled() => {}
            () = self.0.scope.cancel.cancelled() => {}
        }
        self.0.sinks.lock().expect("no panic while held").retain(|other| other.id() != sink.id());
        Ok(())
    }
}
