//! A server that takes webhooks: real HTTP on a free port of this machine.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::sync::oneshot;

/// The server. It stops when dropped.
pub struct Inbox {
    address: std::net::SocketAddr,
    desk: Arc<Mutex<Desk>>,
    _stop: oneshot::Sender<()>,
}

#[derive(Default)]
struct Desk {
    answers: VecDeque<u16>,
    letters: Vec<Letter>,
}

/// What came in.
#[derive(Debug, Clone)]
pub struct Letter {
    pub headers: BTreeMap<String, String>,
    pub text: String,
}

impl Letter {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).expect("JSON")
    }
}

impl Inbox {
    pub fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("an address");
        let desk = Arc::new(Mutex::new(Desk::default()));
        let (stop, stopped) = oneshot::channel::<()>();
        let state = desk.clone();
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
                let router = Router::new().fallback(take).with_state(state);
                tokio::select! {
                    _ = axum::serve(listener, router) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, desk, _stop: stop }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// The next letters are answered so; those after them with 204.
    pub fn answers(&self, statuses: &[u16]) {
        self.desk.lock().expect("no panic").answers.extend(statuses);
    }

    pub fn letters(&self) -> Vec<Letter> {
        self.desk.lock().expect("no panic").letters.clone()
    }
}

async fn take(State(desk): State<Arc<Mutex<Desk>>>, headers: HeaderMap, body: Bytes) -> Response {
    let mut desk = desk.lock().expect("no panic");
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let headers = headers.keys().filter_map(|name| Some((name.to_string(), text(name.as_str())?))).collect();
    desk.letters.push(Letter { headers, text: String::from_utf8_lossy(&body).into_owned() });
    let status = StatusCode::from_u16(desk.answers.pop_front().unwrap_or(204)).expect("a status");
    match status.is_redirection() {
        true => (status, [("location", "http://127.0.0.1:1/")]).into_response(),
        false => status.into_response(),
    }
}
