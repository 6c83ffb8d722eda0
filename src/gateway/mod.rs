//! The HTTP door: for people with `curl`, chat programs that speak OpenAI's protocol, services.
//!
//! A request goes through `guard`, which gives it an id, asks who comes, and writes down why
//! there is no answer; then to a handler, which hands the hub a message and passes on what happens.
//! Nothing here decides what the assistant does.

mod body;
mod error;
mod guard;
mod key;
mod message;
mod openai;
mod runs;
mod sessions;
mod socket;
mod stream;
mod tools;
mod turn;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::hub::Hub;
use crate::store::Store;
use crate::store::token::{Scope, Tokens};
use error::Error;
use guard::Guard;
use socket::Socket;

/// How long turns may go on once it is to stop, and how long callers then have to read.
const PATIENCE: Duration = Duration::from_secs(20);
const PARTING: Duration = Duration::from_secs(5);

/// How it serves.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Where it listens.
    pub bind: SocketAddr,
    /// A token beside those in the database.
    pub token: Option<String>,
    /// How long an answer may take.
    pub turn_timeout: Duration,
    /// Requests of one token in a minute; 0 for no limit.
    pub rate: u32,
    /// Whether models are answered for that are not there.
    pub any_model: bool,
}

/// What every handler knows.
pub struct Gateway {
    hub: Arc<Hub>,
    guard: Guard,
    setting: Setting,
    began: Timestamp,
    /// Callers are to go.
    closing: CancellationToken,
}

/// A gateway that has its place and does not answer yet.
pub struct Listener {
    gateway: Arc<Gateway>,
    socket: TcpListener,
}

impl Gateway {
    /// Takes a place. One that other machines can reach needs a token.
    pub async fn bind(hub: Arc<Hub>, store: Store, setting: Setting) -> Result<Listener, String> {
        let guard = Guard::new(Tokens::new(store), setting.token.as_deref(), setting.rate).await?;
        let address = setting.bind;
        if !address.ip().is_loopback() && guard.is_free() {
            return Err(format!(
                "`{}` can be reached from other machines, so callers need a token; `omni token new` makes one",
                address.ip()
            ));
        }
        let socket = TcpListener::bind(address).await;
        let socket = socket.map_err(|error| format!("`{address}` cannot be listened on: {error}"))?;
        let closing = CancellationToken::new();
        hub.keep().await.map_err(|error| error.to_string())?;
        let gateway = Arc::new(Self { hub, guard, setting, began: Timestamp::now(), closing });
        Ok(Listener { gateway, socket })
    }

    fn router(self: &Arc<Self>) -> Router {
        let talk = Router::new()
            .route("/message", post(message::post))
            .route("/v1/chat/completions", post(openai::chat))
            .route("/api/v1/sessions/{id}/turns", post(runs::begin))
            .route("/api/v1/runs/{id}", get(runs::get))
            .route("/api/v1/runs/{id}/events", get(runs::events))
            .route("/api/v1/runs/{id}/cancel", post(runs::cancel))
            .route("/api/v1/runs/{id}/approvals/{call}", post(runs::approve));
        let look = Router::new()
            .route("/api/v1/sessions", get(sessions::list))
            .route("/api/v1/sessions/{id}", get(sessions::get))
            .route("/api/v1/sessions/{id}/messages", get(sessions::messages))
            .route("/api/v1/tools", get(tools::list));
        let rule = Router::new()
            .route("/api/v1/sessions/{id}", delete(sessions::delete))
            .route("/run_tool", post(tools::run));
        Router::new()
            .route("/healthz", get(healthy))
            .route("/readyz", get(ready))
            .route("/v1/models", get(openai::models))
            .route("/v1/models/{*id}", get(openai::model))
            .merge(scoped(Scope::Chat, talk))
            .merge(scoped(Scope::Read, look))
            .merge(scoped(Scope::Admin, rule))
            .fallback(async || Error::unknown("route_not_found", "there is nothing at this path"))
            .layer(middleware::from_fn_with_state(self.clone(), guard::guarded))
            .layer(middleware::from_fn(guard::named))
            .layer(middleware::from_fn(socket::counted))
            .with_state(self.clone())
    }

    /// Ends what goes on: takes no more messages, waits, cancels what takes too long, and lets the
    /// callers read what became of it.
    async fn leave(&self) {
        if tokio::time::timeout(PATIENCE, self.hub.drain()).await.is_err() {
            self.hub.cancel();
            let _ = tokio::time::timeout(PARTING, self.hub.drain()).await;
        }
        self.closing.cancel();
    }
}

impl Listener {
    /// Its URL.
    pub fn url(&self) -> Result<String, String> {
        let address = self.socket.local_addr().map_err(|error| error.to_string())?;
        Ok(format!("http://{address}"))
    }

    /// Whether callers come in without a token.
    pub fn is_free(&self) -> bool {
        self.gateway.guard.is_free()
    }

    /// Serves everybody who comes. Once `told` is over it only finishes what goes on: whoever comes
    /// meanwhile is told so, and at last nobody is let in.
    pub async fn serve(self, told: impl Future<Output = ()> + Send) -> Result<(), String> {
        let Self { gateway, socket } = self;
        let router = gateway.router();
        let service = router.into_make_service_with_connect_info::<socket::Line>();
        let closing = gateway.closing.clone().cancelled_owned();
        let serving = axum::serve(Socket::new(socket), service).with_graceful_shutdown(closing);
        let leaving = async {
            told.await;
            gateway.leave().await;
            // Somebody may be slow to read, or not there any more.
            tokio::time::sleep(PARTING).await;
        };
        tokio::select! {
            served = async { serving.await } => served.map_err(|error| error.to_string()),
            () = leaving => Ok(()),
        }
    }
}

/// Lets those through whose token is good for this.
fn scoped(needed: Scope, routes: Router<Arc<Gateway>>) -> Router<Arc<Gateway>> {
    routes.route_layer(middleware::from_fn(move |request: Request, next: Next| {
        guard::scoped(needed, request, next)
    }))
}

async fn healthy() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// Whether a message would be answered now.
async fn ready(State(gateway): State<Arc<Gateway>>) -> Result<Json<Value>, Error> {
    if gateway.hub.is_draining() {
        return Err(Error::draining());
    }
    gateway.hub.sessions().list(None, 1).await?;
    Ok(Json(json!({"status": "ready"})))
}
