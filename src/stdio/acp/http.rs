//! The same protocol over HTTP, for editors that have omni on another machine: requests are posted, and what the
//! agent says is streamed.
//!
//! A connection belongs to nobody's socket, so each has its end here: when it was silent for too long and no turn of
//! it goes on. There is a bound on how many there are at once.

use std::sync::Arc;
use std::time::Duration;

use agent_client_protocol::{Agent, Client, ConnectTo, Error, ErrorCode};
use agent_client_protocol_http::{AcpHttpServer, ServerOptions};
use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::desk::Desk;
use super::{House, connect};

/// Where it is.
pub const PATH: &str = "/acp";
/// Connections at once.
const MOST: usize = 256;
/// How long one may be silent while no turn goes on: an editor that is left open over night is not at work.
const SILENCE: Duration = Duration::from_secs(8 * 3600);
/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(60);

/// The routes. Whoever comes through them may have anything run here: let in who may do that.
pub fn router(house: Arc<dyn House>) -> Router {
    let room = Arc::new(Semaphore::new(MOST));
    let visitor = move || Visitor { house: house.clone(), room: room.clone().try_acquire_owned().ok() };
    let options = ServerOptions::default().with_path(PATH).with_health_endpoint(false);
    let routes = AcpHttpServer::new(visitor).with_options(options).into_router();
    routes.layer(middleware::from_fn(streams))
}

/// Refuses sockets: nobody would notice that one is dead, as the library asks for no sign of life.
async fn streams(request: Request, next: Next) -> Response {
    match request.headers().contains_key(header::UPGRADE) {
        true => {
            (StatusCode::NOT_IMPLEMENTED, "ask for an event stream; no socket is spoken here").into_response()
        }
        false => next.run(request).await,
    }
}

/// Whoever has connected.
struct Visitor {
    house: Arc<dyn House>,
    room: Option<OwnedSemaphorePermit>,
}

impl ConnectTo<Client> for Visitor {
    async fn connect_to(self, client: impl ConnectTo<Agent>) -> Result<(), Error> {
        let Self { house, room } = self;
        let Some(_room) = room else {
            let full = format!("{MOST} editors are connected already; come again later");
            return Err(Error::new(ErrorCode::INTERNAL_ERROR, full));
        };
        let stay = Stay(Arc::new(Desk::new(house)));
        tokio::select! {
            served = connect(&stay.0, client) => served,
            () = silent(&stay.0) => Ok(()),
        }
    }
}

/// Ends what a visitor has begun, however they leave.
struct Stay(Arc<Desk>);

impl Drop for Stay {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Returns when nothing was asked for too long.
async fn silent(desk: &Desk) {
    while desk.silence() < SILENCE {
        tokio::time::sleep(LOOK).await;
    }
}
