//! The server over HTTP: MCP's "Streamable HTTP", with sessions for the older era and without for
//! the newer.
//!
//! A page in a browser must not be able to call tools, so requests are refused that name another
//! host than ours or come from another origin. Whoever is to be reached from other machines needs
//! a token.

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::lines::LONGEST;
use super::server::Server;

/// Where it is served.
const PATH: &str = "/mcp";
/// How long a session may be silent; a call that takes longer keeps it with its progress.
const SESSION: Duration = Duration::from_secs(3600);
/// How often a silent stream shows that it is there.
const SIGN: Duration = Duration::from_secs(15);
/// How long a browser may take to be told that it is done.
const PARTING: Duration = Duration::from_secs(2);
/// Pages that may call: those of this very machine.
const ORIGINS: [&str; 4] =
    ["http://localhost:*", "http://127.0.0.1:*", "https://localhost:*", "https://127.0.0.1:*"];

/// A server that has its place and does not answer yet.
pub struct Listener {
    socket: TcpListener,
    token: Option<String>,
}

impl Listener {
    /// Takes a place. One that other machines can reach needs a token.
    pub async fn bind(address: SocketAddr, token: Option<String>) -> Result<Self, String> {
        if !address.ip().is_loopback() && token.is_none() {
            return Err(format!(
                "`{}` can be reached from other machines, so callers need a token",
                address.ip()
            ));
        }
        let socket = TcpListener::bind(address).await;
        let socket = socket.map_err(|error| format!("`{address}` cannot be listened on: {error}"))?;
        Ok(Self { socket, token })
    }

    /// Its URL.
    pub fn url(&self) -> Result<String, String> {
        let address = self.socket.local_addr().map_err(|error| error.to_string())?;
        Ok(format!("http://{address}{PATH}"))
    }
}

impl Server {
    /// The server as a part of another one, which says who may come, and what is to be done meanwhile.
    pub fn mounted(self) -> (Router, impl Future<Output = ()>) {
        (self.routes(true), async move { self.announce().await })
    }

    /// What answers here. Whoever comes by another name of ours is refused unless they are `known`.
    fn routes(&self, known: bool) -> Router {
        let mut config = StreamableHttpServerConfig::default()
            .with_allowed_origins(ORIGINS)
            .with_sse_keep_alive(Some(SIGN))
            .with_max_request_body_bytes(LONGEST)
            .with_cancellation_token(self.stop().child_token());
        if known {
            config = config.disable_allowed_hosts();
        }
        let mut sessions = LocalSessionManager::default();
        sessions.session_config.keep_alive = Some(SESSION);
        let server = self.clone();
        let service = StreamableHttpService::new(move || Ok(server.another()), Arc::new(sessions), config);
        Router::new().nest_service(PATH, service)
    }

    /// Serves everybody who comes until it is told to stop.
    pub async fn http(self, listener: Listener) -> Result<(), String> {
        let stop = self.stop().clone();
        // Who knows the token is nobody's unwitting browser, and may call us by any name.
        let mut app = self.routes(listener.token.is_some());
        if let Some(token) = listener.token {
            let expected = Sha256::digest(format!("Bearer {token}"));
            app = app.layer(middleware::from_fn(move |request, next| known(expected.into(), request, next)));
        }
        // An answer is written in two pieces: the second must not wait until the first is acknowledged, which
        // takes clients 40 ms.
        let socket = listener.socket.tap_io(|stream| drop(stream.set_nodelay(true)));
        let serving = axum::serve(socket, app).with_graceful_shutdown(async move { stop.cancelled().await });
        tokio::select! {
            served = async { serving.await } => served.map_err(|error| error.to_string()),
            () = self.announce() => Ok(()),
        }
    }
}

/// Lets those pass who know the token. Digests are compared, so that time tells nothing of it.
async fn known(expected: [u8; 32], request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION);
    if given.is_some_and(|given| *Sha256::digest(given.as_bytes()) == expected) {
        return next.run(request).await;
    }
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], "a token is needed\n").into_response()
}

/// Waits at this address until a browser comes to a page that `is_it`, and returns the page's URL.
pub(super) async fn visited(
    socket: TcpListener,
    is_it: impl Fn(&str) -> bool + Clone + Send + Sync + 'static,
) -> Result<String, String> {
    let address = socket.local_addr().map_err(|error| error.to_string())?;
    let (sender, mut visits) = mpsc::channel(1);
    let welcome = async move |uri: Uri| {
        let url = format!("http://{address}{uri}");
        if !is_it(&url) {
            return (StatusCode::NOT_FOUND, "There is nothing here.");
        }
        let _ = sender.try_send(url);
        (StatusCode::OK, "You can close this page and go back to omni.")
    };
    let over = CancellationToken::new();
    let app = Router::new().fallback(get(welcome));
    let serving = axum::serve(socket, app).with_graceful_shutdown(over.clone().cancelled_owned());
    let mut serving = pin!(serving.into_future());
    let visit = tokio::select! {
        visit = visits.recv() => visit,
        _ = &mut serving => None,
    };
    over.cancel();
    // The browser is still to be answered.
    let _ = tokio::time::timeout(PARTING, serving).await;
    visit.ok_or_else(|| format!("nobody can come to {address}"))
}
