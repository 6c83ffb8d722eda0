//! One connection to a server: the handshake, its tools, calls.
#![expect(deprecated, reason = "what the newest version has given up is what older servers speak")]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rmcp::ClientHandler;
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, ClientCapabilities, ClientConfig, ClientRequest, ErrorCode,
    Implementation, LoggingMessageNotificationParam, PaginatedRequestParams, ProgressNotificationParam,
    ProgressToken, ProtocolVersion, ServerResult, SubscriptionFilter, Tool,
};
use rmcp::service::{
    ClientCacheConfig, ClientInitializeError, ClientLifecycleMode, NotificationContext, Peer,
    PeerRequestOptions, RequestHandle, RoleClient, RunningService, RunningServiceCancellationToken,
    ServiceError, serve_client_with_lifecycle,
};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::common::client_side_sse::ExponentialBackoff;
use rmcp::transport::streamable_http_client::{StreamableHttpClientTransportConfig, StreamableHttpError};
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;

use super::config::{Address, Era, Program, Reach, Server};
use super::convert;
use super::lines::{LONGEST, Lines};
use super::process::{Process, Tail};
use crate::tool::{Call, Error, Output, Progress};

/// Pages of one list, and tools in all of them. A server that has more does not end.
const PAGES: usize = 100;
const TOOLS: usize = 10_000;
/// Time for the connection to be made, in a remote server's time to start.
const CONNECT: Duration = Duration::from_secs(10);
/// How long saying goodbye may take.
const PARTING: Duration = Duration::from_secs(1);
/// The longest pause before a stream that was cut is opened again.
const PAUSE: Duration = Duration::from_secs(30);

/// A connection that has shaken hands.
pub(super) struct Connection {
    pub(super) peer: Peer<RoleClient>,
    calls: Calls,
    changed: Arc<Notify>,
}

/// What keeps a connection open; whoever has it ends it.
pub(super) struct Link {
    quit: RunningServiceCancellationToken,
    /// The connection has ended.
    over: CancellationToken,
    process: Option<Process>,
}

type Running = RunningService<RoleClient, Ear>;

/// Who hears of the progress of calls that are going on.
type Calls = Arc<Mutex<HashMap<ProgressToken, Arc<dyn Fn(Progress) + Send + Sync>>>>;

/// Why a call has no result.
pub(super) enum Fault {
    /// The tool, or the server, has said why.
    Told(Error),
    /// The connection was gone before the call was.
    Unsent,
    /// The connection went while the call was worked on.
    Lost,
}

/// What a server is heard with.
#[derive(Clone)]
struct Ear {
    name: String,
    calls: Calls,
    changed: Arc<Notify>,
}

impl ClientHandler for Ear {
    fn get_info(&self) -> ClientConfig {
        let own = Implementation::new("omni", env!("CARGO_PKG_VERSION")).with_title("omni");
        ClientConfig::new(ClientCapabilities::default(), own)
            .with_protocol_version(ProtocolVersion::LATEST_WITH_INITIALIZE)
    }

    async fn on_progress(&self, told: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        // Held by a call until its own is in there.
        let listener = self.calls.lock().await.get(&told.progress_token).cloned();
        if let Some(listener) = listener {
            listener(Progress { progress: told.progress, total: told.total, message: told.message });
        }
    }

    async fn on_logging_message(
        &self,
        told: LoggingMessageNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        let data = told.data.to_string();
        let data = &data[..data.floor_char_boundary(1000)];
        tracing::debug!(target: "mcp", server = self.name, level = ?told.level, "{data}");
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
        last: &mut Tail,
    ) -> Result<(Self, Link, Era), String> {
        let calls = Calls::default();
        let changed = Arc::new(Notify::new());
        let ear = Ear { name: server.name.clone(), calls: calls.clone(), changed: changed.clone() };
        let (running, process) = match &server.reach {
            Reach::Program(program) => start(program, ear, era, last).await?,
            Reach::Address(address) => (reach(address, ear, era).await?, None),
        };
        let peer = running.peer().clone();
        // Lists are kept by us, and never taken for current without asking.
        peer.set_response_cache_config(ClientCacheConfig::disabled()).await;
        let version = peer.peer_info().map(|info| info.protocol_version.clone());
        let is_modern = version.is_some_and(|version| !version.has_initialize());
        let era = if is_modern { Era::Modern } else { Era::Legacy };
        let quit = running.cancellation_token();
        let over = CancellationToken::new();
        let guard = over.clone().drop_guard();
        tokio::spawn(async move {
            let _ = running.waiting().await;
            drop(guard);
        });
        Ok((Self { peer, calls, changed }, Link { quit, over, process }, era))
    }

    /// All its tools.
    pub(super) async fn tools(&self) -> Result<Vec<Tool>, String> {
        let (mut tools, mut cursor) = (Vec::new(), None);
        for _ in 0..PAGES {
            let request = PaginatedRequestParams::default().with_cursor(cursor.clone());
            let page = match self.peer.list_tools(Some(request)).await {
                Ok(page) => page,
                // It has none, and nothing to list.
                Err(ServiceError::McpError(error)) if error.code == ErrorCode::METHOD_NOT_FOUND => break,
                Err(error) => return Err(format!("its tools cannot be listed: {}", unsent(&error))),
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
                Err(format!("its list of tools does not end: there are more than {TOOLS}, or {PAGES} pages"))
            }
        }
    }

    /// Waits for news of other tools.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Has a server of the newer era tell of other tools. Returns when the stream has ended.
    pub(super) async fn listen(&self) {
        let filter = SubscriptionFilter::builder().tools_list_changed().build();
        let Ok(mut subscription) = self.peer.listen(filter).await else { return };
        while let Ok(Some(_)) = subscription.next().await {
            self.changed.notify_one();
        }
    }

    /// Takes it that there was news while nobody listened.
    pub(super) fn missed(&self) {
        self.changed.notify_one();
    }

    /// Calls a tool by its own name there.
    pub(super) async fn call(&self, tool: &str, call: Call) -> Result<Output, Fault> {
        let params = CallToolRequestParams::new(tool.to_owned()).with_arguments(call.arguments);
        let request = ClientRequest::CallToolRequest(CallToolRequest::new(params));
        let pending = {
            let mut calls = self.calls.lock().await;
            let sent = self.peer.send_request_with_option(request, PeerRequestOptions::no_options()).await;
            let handle = sent.map_err(|_| Fault::Unsent)?;
            calls.insert(handle.progress_token.clone(), call.context.progress.clone());
            Pending { calls: self.calls.clone(), handle: Some(handle) }
        };
        pending.wait(&call.context.cancel).await
    }
}

/// A call that has no answer yet. Dropping it tells the server that nobody waits any more.
struct Pending {
    calls: Calls,
    handle: Option<RequestHandle<RoleClient>>,
}

impl Pending {
    async fn wait(mut self, cancel: &CancellationToken) -> Result<Output, Fault> {
        let handle = self.handle.as_mut().expect("taken by dropping only");
        let answer = tokio::select! {
            biased;
            answer = &mut handle.rx => answer,
            () = cancel.cancelled() => return Err(Fault::Told(Error::Cancelled)),
        };
        // Each report that came before it has a task of its own, which is queued before us from here on.
        tokio::task::yield_now().await;
        let handle = self.handle.take().expect("taken by dropping only");
        self.calls.lock().await.remove(&handle.progress_token);
        match answer {
            Ok(Ok(ServerResult::CallToolResult(result))) => convert::from_result(result).map_err(Fault::Told),
            Ok(Ok(ServerResult::InputRequiredResult(_))) => Err(Fault::Told(Error::Failed(
                "the tool wants to ask a person something, which it cannot do from here".to_owned(),
            ))),
            Ok(Ok(_)) => Err(Fault::Told(Error::Failed("the server has answered with no result".to_owned()))),
            Ok(Err(ServiceError::McpError(error))) if error.code == ErrorCode::INVALID_PARAMS => {
                Err(Fault::Told(Error::Retry(short(&error.message))))
            }
            Ok(Err(ServiceError::McpError(error))) => Err(Fault::Told(Error::Failed(short(&error.message)))),
            Ok(Err(error @ ServiceError::TransportSend(_))) => {
                Err(Fault::Told(Error::Failed(unsent(&error))))
            }
            Ok(Err(_)) | Err(_) => Err(Fault::Lost),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let Some(handle) = self.handle.take() else { return };
        let calls = self.calls.clone();
        tokio::spawn(async move {
            calls.lock().await.remove(&handle.progress_token);
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

/// Starts a program and shakes hands. One that may be of either era is greeted in the older way:
/// whoever speaks both answers that, and whoever does not says so, and is started again.
async fn start(
    program: &Program,
    ear: Ear,
    era: Era,
    last: &mut Tail,
) -> Result<(Running, Option<Process>), String> {
    let discover = || ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::LATEST] };
    let mut mode = match era {
        Era::Modern => discover(),
        Era::Auto | Era::Legacy => ClientLifecycleMode::Initialize,
    };
    loop {
        let (mut process, input, output) = Process::start(program)?;
        *last = process.last.clone();
        let is_legacy = matches!(mode, ClientLifecycleMode::Initialize);
        match serve_client_with_lifecycle(ear.clone(), Lines::new(output, input), mode).await {
            Ok(running) => return Ok((running, Some(process))),
            Err(ClientInitializeError::JsonRpcError(error))
                if is_legacy && error.code == ErrorCode::UNSUPPORTED_PROTOCOL_VERSION =>
            {
                process.end().await;
                mode = discover();
            }
            Err(error) => {
                let status = process.ended().await.map(|status| format!("it has ended: {status}"));
                return Err(status.unwrap_or_else(|| refusal(&error)));
            }
        }
    }
}

async fn reach(address: &Address, ear: Ear, era: Era) -> Result<Running, String> {
    if address.events {
        return Err("the transport `sse` of 2024 is not spoken; use its address for `http`".to_owned());
    }
    let mut headers = HashMap::new();
    for (name, value) in &address.headers {
        let header = name.parse().map_err(|_| format!("`{name}` is no name of a header"))?;
        let mut value: reqwest::header::HeaderValue =
            value.parse().map_err(|_| format!("the header `{name}` has a sign in it that none may have"))?;
        value.set_sensitive(true);
        headers.insert(header, value);
    }
    let mut retry = ExponentialBackoff::default();
    retry.max_delay = Some(PAUSE);
    let mut config = StreamableHttpClientTransportConfig::with_uri(address.url.as_str())
        .custom_headers(headers)
        .max_sse_event_size(LONGEST)
        .max_json_response_size(LONGEST);
    config.retry_config = Arc::new(retry);
    let transport = StreamableHttpClientTransport::with_client(http()?, config);
    let mode = match era {
        Era::Legacy => ClientLifecycleMode::Initialize,
        Era::Modern => ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::LATEST] },
        Era::Auto => ClientLifecycleMode::Auto {
            preferred_versions: vec![ProtocolVersion::LATEST],
            legacy_version: Some(ProtocolVersion::LATEST_WITH_INITIALIZE),
        },
    };
    match serve_client_with_lifecycle(ear, transport, mode).await {
        Ok(running) => Ok(running),
        Err(error) if error.is_authorization_required() => {
            Err("it wants to know who you are (401); give it a token in `headers` or `bearer_token_env_var`"
                .to_owned())
        }
        Err(error) => Err(refusal(&error)),
    }
}

/// A client without a limit of time as a whole, which would cut streams. It follows no redirects:
/// secrets in headers would go along.
fn http() -> Result<reqwest::Client, String> {
    let client = reqwest::Client::builder()
        .connect_timeout(CONNECT)
        // A reply that was not read to its end would hold up the next one.
        .pool_max_idle_per_host(0)
        .redirect(reqwest::redirect::Policy::none());
    client.build().map_err(|error| error.to_string())
}

/// Why a handshake came to nothing.
fn refusal(error: &ClientInitializeError) -> String {
    match error {
        ClientInitializeError::JsonRpcError(error) => short(&error.message),
        ClientInitializeError::TransportError { error, .. } => cause(error.error.as_ref()),
        ClientInitializeError::ConnectionClosed(_) => "it has closed the connection".to_owned(),
        ClientInitializeError::LegacyFallbackFailed { fallback, .. } => refusal(fallback),
        // The others show whole messages.
        _ => "its answer to the handshake is none".to_owned(),
    }
}

/// Why a message could not be sent.
fn unsent(error: &ServiceError) -> String {
    match error {
        ServiceError::TransportSend(error) => cause(error.error.as_ref()),
        other => short(&other.to_string()),
    }
}

/// The innermost reason of an error, which is the one that says something.
fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    // It keeps this one to itself.
    if let Some(StreamableHttpError::Client(inner)) =
        error.downcast_ref::<StreamableHttpError<reqwest::Error>>()
    {
        return cause(inner);
    }
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    short(&error.to_string())
}

/// What a server says, of a length that can be read.
fn short(text: &str) -> String {
    let end = text.floor_char_boundary(1000);
    format!("{}{}", &text[..end], if end < text.len() { "…" } else { "" })
}
