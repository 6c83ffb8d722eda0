//! Opens connections: programs are started, addresses reached, hands shaken.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rmcp::model::{ErrorCode, ProtocolVersion};
use rmcp::service::{ClientInitializeError, ClientLifecycleMode, ServiceError, serve_client_with_lifecycle};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::common::client_side_sse::ExponentialBackoff;
use rmcp::transport::streamable_http_client::{StreamableHttpClientTransportConfig, StreamableHttpError};

use super::client::{Ear, Running};
use super::config::{Address, Era, Program};
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

pub(super) async fn reach(address: &Address, ear: Ear, era: Era) -> Result<Running, String> {
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
pub(super) fn unsent(error: &ServiceError) -> String {
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
pub(super) fn short(text: &str) -> String {
    let end = text.floor_char_boundary(1000);
    format!("{}{}", &text[..end], if end < text.len() { "…" } else { "" })
}
