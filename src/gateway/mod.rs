//! The HTTP door: for people with `curl`, chat programs that speak OpenAI's protocol, services.
//!
//! A request goes through `guard`, which gives it an id, asks who comes, and writes down why
//! there is no answer; then to a handler, which hands the hub a message and passes on what happens.
//! Nothing here decides what the assistant does.

mod body;
mod error;
mod guard;
pub mod hook;
mod jobs;
mod key;
mod memories;
mod message;
mod openai;
mod openapi;
mod responses;
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
use axum::http::header;
use axum::middleware::{self, Next};
use axum::response::IntoResponse;
use axum::{Json, Router};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::hub::Hub;
use crate::measure;
use crate::store::Store;
use crate::store::response::Responses;
use crate::store::token::{Scope, Tokens};
use error::Error;
use guard::Guard;
pub use hook::Hook;
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
    responses: Responses,
    /// Callers are to go.
    closing: CancellationToken,
    /// What can be asked here.
    api: OpenApi,
    /// What else answers here, to administrators.
    mounted: Router,
}

/// A gateway that has its place and does not answer yet.
pub struct Listener {
    gateway: Arc<Gateway>,
    socket: TcpListener,
    hooks: Vec<Hook>,
}

impl Gateway {
    /// Takes a place. One that other machines can reach needs a token. `mounted` answers here as well,
    /// to administrators.
    pub async fn bind(
        hub: Arc<Hub>,
        store: Store,
        setting: Setting,
        mounted: Router,
    ) -> Result<Listener, String> {
        let responses = Responses::new(store.clone());
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
        let (began, api) = (Timestamp::now(), openapi::completed(Self::routes().into_openapi()));
        let gateway = Arc::new(Self { hub, guard, setting, began, responses, closing, api, mounted });
        Ok(Listener { gateway, socket, hooks: Vec::new() })
    }

    /// What can be asked, and by whom.
    fn routes() -> OpenApiRouter<Arc<Self>> {
        let everybody = OpenApiRouter::with_openapi(openapi::about())
            .routes(routes!(healthy))
            .routes(routes!(ready))
            .routes(routes!(openapi::openapi))
            .routes(routes!(openai::models))
            .routes(routes!(openai::model));
        let talk = OpenApiRouter::default()
            .routes(routes!(message::post))
            .routes(routes!(openai::chat))
            .routes(routes!(responses::create))
            .routes(routes!(responses::get, responses::delete))
            .routes(routes!(responses::cancel))
            .routes(routes!(runs::begin))
            .routes(routes!(runs::get))
            .routes(routes!(runs::events))
            .routes(routes!(runs::cancel))
            .routes(routes!(runs::approve))
            .routes(routes!(runs::judge));
        let look = OpenApiRouter::default()
            .routes(routes!(sessions::list))
            .routes(routes!(sessions::get))
            .routes(routes!(sessions::messages))
            .routes(routes!(memories::list))
            .routes(routes!(jobs::list))
            .routes(routes!(jobs::get))
            .routes(routes!(tools::list))
            .routes(routes!(metrics));
        let rule = OpenApiRouter::default()
            .routes(routes!(sessions::delete))
            .routes(routes!(jobs::add))
            .routes(routes!(jobs::remove))
            .routes(routes!(jobs::change))
            .routes(routes!(tools::run));
        everybody
            .merge(scoped(Scope::Chat, talk))
            .merge(scoped(Scope::Read, look))
            .merge(scoped(Scope::Admin, rule))
    }

    fn router(self: &Arc<Self>) -> Router {
        let (routes, _) = Self::routes().split_for_parts();
        let admin = middleware::from_fn(|request, next| guard::scoped(Scope::Admin, request, next));
        routes
            .merge(self.mounted.clone().layer(admin).with_state(()))
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

    /// The same, where another server may bring something as well.
    pub fn with_hook(mut self, hook: Option<Hook>) -> Self {
        self.hooks.extend(hook);
        self
    }

    /// Whether callers come in without a token.
    pub fn is_free(&self) -> bool {
        self.gateway.guard.is_free()
    }

    /// Serves everybody who comes. Once `told` is over it only finishes what goes on: whoever comes
    /// meanwhile is told so, and at last nobody is let in.
    pub async fn serve(self, told: impl Future<Output = ()> + Send) -> Result<(), String> {
        let Self { gateway, socket, hooks } = self;
        let router = hooks.into_iter().fold(gateway.router(), |router, hook| hook.join(router));
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
fn scoped(needed: Scope, routes: OpenApiRouter<Arc<Gateway>>) -> OpenApiRouter<Arc<Gateway>> {
    routes.route_layer(middleware::from_fn(move |request: Request, next: Next| {
        guard::scoped(needed, request, next)
    }))
}

/// Whether the program runs.
#[utoipa::path(get, path = "/healthz", responses((status = 200, body = openapi::Status)))]
async fn healthy() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// What was counted since the start, as Prometheus reads it.
#[utoipa::path(get, path = "/metrics", responses((status = 200, body = String, content_type = "text/plain")))]
async fn metrics(State(gateway): State<Arc<Gateway>>) -> impl IntoResponse {
    let (going, waiting) = gateway.hub.load();
    measure::load(going, waiting);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], measure::told())
}

/// Whether a message would be answered now.
#[utoipa::path(get, path = "/readyz", responses((status = 200, body = openapi::Status)))]
async fn ready(State(gateway): State<Arc<Gateway>>) -> Result<Json<Value>, Error> {
    if gateway.hub.is_draining() {
        return Err(Error::draining());
    }
    gateway.hub.sessions().list(None, 1).await?;
    Ok(Json(json!({"status": "ready"})))
}
