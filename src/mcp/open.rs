//! Opens connections: programs are started, addresses reached, hands shaken.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderName, HeaderValue};
use rmcp::model::{ErrorCode, ProtocolVersion};
use rmcp::service::{ClientInitializeError, ClientLifecycleMode, ServiceError, serve_client_with_lifecycle};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::common::client_side_sse::ExponentialBackoff;
use rmcp::transport::streamable_http_client::{
    StreamableHttpClient, StreamableHttpClientTransportConfig, StreamableHttpError,
};

use super::auth::Account;
use super::client::{Ear, Running};
use super::config::{Address, Era, Program, Transport};
use super::events::Events;
use super::lines::{LONGEST, Lines};
use super::process::{Process, Tail};

/// Time for the connection to be made, in a remote server's time to start.
const CONNECT: Duration = Duration::from_secs(10);
/// The longest pause before a stream that was cut is opened again.
const PAUSE: Duration = Duration::from_secs(30);

/// Starts a program and shakes hands. One that may be of either era is greeted in the older way:
/// whoever speaks both answers that, and whoever does not says so, and is started again.
pub(super) async fn start(
    program: &Program,
    ear: Ear,
    era: Era,
    last: &mut Tail,
) -> Result<(Running, Option<Process>), Refusal> {
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
                return Err(status.unwrap_or_else(|| refusal(&error)).into());
            }
        }
    }
}

/// Connects to an address, in the name of an account where the address wants to know who we are.
pub(super) async fn reach(
    address: &Address,
    ear: Ear,
    era: Era,
    account: Option<&Account>,
) -> Result<Running, Refusal> {
    match account {
        Some(account) => over(account.client().await?, address, ear, era).await,
        None => over(http()?, address, ear, era).await,
    }
}

/// The same by this client.
async fn over<C>(client: C, address: &Address, ear: Ear, era: Era) -> Result<Running, Refusal>
where
    C: StreamableHttpClient<Error = reqwest::Error> + Sync,
{
    let headers = headers(address)?;
    let listens = |client: C, ear: Ear| async {
        let events = Events::open(client, &address.url, headers.clone()).await;
        let events = events.map_err(|error| Refusal::of_http(&error))?;
        serve_client_with_lifecycle(ear, events, ClientLifecycleMode::Initialize)
            .await
            .map_err(|error| Refusal::of_handshake(&error))
    };
    if address.transport == Transport::Events {
        return listens(client, ear).await;
    }
    let mut retry = ExponentialBackoff::default();
    retry.max_delay = Some(PAUSE);
    let mut config = StreamableHttpClientTransportConfig::with_uri(address.url.as_str())
        .custom_headers(headers.clone())
        .max_sse_event_size(LONGEST)
        .max_json_response_size(LONGEST);
    config.retry_config = Arc::new(retry);
    let transport = |config| StreamableHttpClientTransport::with_client(client.clone(), config);
    let mode = match era {
        Era::Legacy => ClientLifecycleMode::Initialize,
        Era::Modern => ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::LATEST] },
        Era::Auto => ClientLifecycleMode::Auto {
            preferred_versions: vec![ProtocolVersion::LATEST],
            legacy_version: Some(ProtocolVersion::LATEST_WITH_INITIALIZE),
        },
    };
    let mut shaken = serve_client_with_lifecycle(ear.clone(), transport(config.clone()), mode).await;
    // Some answer the newer greeting with something, though they do not know it.
    if era == Era::Auto && shaken.as_ref().is_err_and(is_misunderstood) {
        let mode = ClientLifecycleMode::Initialize;
        shaken = serve_client_with_lifecycle(ear.clone(), transport(config), mode).await;
    }
    let refusal = match shaken {
        Ok(running) => return Ok(running),
        Err(error) => Refusal::of_handshake(&error),
    };
    // What they answer who speak as in 2024.
    let is_older = ["HTTP 400", "HTTP 404", "HTTP 405"].iter().any(|begin| refusal.reason.starts_with(begin));
    match is_older && address.transport == Transport::Either && refusal.challenge.is_none() {
        true => listens(client, ear).await.map_err(|_| refusal),
        false => Err(refusal),
    }
}

/// Whether the other side has answered, but not what was asked.
fn is_misunderstood(error: &ClientInitializeError) -> bool {
    use ClientInitializeError::{
        ConflictInitResponseId, ExpectedInitResponse, ExpectedInitResult, JsonRpcError,
        UncorrelatedErrorResponse,
    };
    matches!(
        error,
        ExpectedInitResponse(_)
            | ExpectedInitResult(_)
            | ConflictInitResponseId(..)
            | UncorrelatedErrorResponse { .. }
            | JsonRpcError(_)
    )
}

fn headers(address: &Address) -> Result<HashMap<HeaderName, HeaderValue>, String> {
    let header = |(name, value): (&String, &String)| {
        let header: HeaderName = name.parse().map_err(|_| format!("`{name}` is no name of a header"))?;
        let mut value: HeaderValue =
            value.parse().map_err(|_| format!("the header `{name}` has a sign in it that none may have"))?;
        value.set_sensitive(true);
        Ok((header, value))
    };
    address.headers.iter().map(header).collect()
}

/// Why a server cannot be used.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) reason: String,
    /// How it has said that it wants to know who we are, or wants more to be allowed, if that is why.
    pub(super) challenge: Option<String>,
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self { reason, challenge: None }
    }
}

impl Refusal {
    fn new(reason: String, challenge: Option<&str>) -> Self {
        // Some refuse without a word of how to sign in.
        let bare = reason.starts_with("HTTP 401").then_some("");
        Self { challenge: challenge.or(bare).map(str::to_owned), reason }
    }

    fn of_handshake(error: &ClientInitializeError) -> Self {
        Self::new(refusal(error), error.auth_challenge())
    }

    fn of_http(error: &StreamableHttpError<reqwest::Error>) -> Self {
        let challenge = match error {
            StreamableHttpError::AuthRequired(refused) => Some(refused.www_authenticate_header.as_str()),
            StreamableHttpError::InsufficientScope(refused) => Some(refused.www_authenticate_header.as_str()),
            _ => None,
        };
        Self::new(cause(error), challenge)
    }

    /// Why a request came to nothing.
    pub(super) fn of_request(error: &ServiceError) -> Self {
        Self::new(unsent(error), error.auth_challenge())
    }
}

/// A client without a limit of time as a whole, which would cut streams. It follows no redirects:
/// secrets in headers would go along.
pub(super) fn http() -> Result<reqwest::Client, String> {
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
pub(super) fn unsent(error: &ServiceError) -> String {
    match error {
        ServiceError::TransportSend(error) => cause(error.error.as_ref()),
        other => short(&other.to_string()),
    }
}

/// The innermost reason of an error, which is the one that says something.
pub(super) fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    match error.downcast_ref::<StreamableHttpError<reqwest::Error>>() {
        // It keeps this one to itself.
        Some(StreamableHttpError::Client(inner)) => return cause(inner),
        // The rest may be a page for browsers.
        Some(StreamableHttpError::UnexpectedServerResponse(told)) => {
            return short(told.lines().next().unwrap_or_default());
        }
        _ => {}
    }
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    short(&error.to_string())
}

/// What a server says, of a length that can be read.
pub(super) fn short(text: &str) -> String {
    let end = text.floor_char_boundary(1000);
    format!("{}{}", &text[..end], if end < text.len() { "…" } else { "" })
}
