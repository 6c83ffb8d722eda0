//! A server that has files: real HTTP on a free port of this machine.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use tokio::sync::oneshot;

/// The server. It stops when dropped.
pub struct Releases {
    address: std::net::SocketAddr,
    files: Files,
    _stop: oneshot::Sender<()>,
}

type Files = Arc<Mutex<BTreeMap<String, Served>>>;

/// How a file is served.
#[derive(Clone)]
pub enum Served {
    Whole(Vec<u8>),
    /// The line is cut when this much of it was sent.
    Cut(Vec<u8>, usize),
    /// More and more of it.
    Endless,
    /// It is at this address.
    Elsewhere(String),
}

impl Releases {
    /// Serves this folder of `tests/fixtures/release`.
    pub fn of(folder: &str) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("an address");
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/release").join(folder);
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(fixtures).expect("a release") {
            let entry = entry.expect("an entry");
            let bytes = std::fs::read(entry.path()).expect("a file");
            files.insert(entry.file_name().to_string_lossy().into_owned(), Served::Whole(bytes));
        }
        let files = Arc::new(Mutex::new(files));
        let (stop, stopped) = oneshot::channel::<()>();
        let state = files.clone();
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
                let router = Router::new().fallback(serve).with_state(state);
                tokio::select! {
                    _ = axum::serve(listener, router) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, files, _stop: stop }
    }

    pub fn url(&self) -> String {
        format!("http://{}/omni", self.address)
    }

    /// The bytes of a file.
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        match self.files.lock().expect("no panic").get(name) {
            Some(Served::Whole(bytes)) => bytes.clone(),
            _ => panic!("there is no {name}"),
        }
    }

    /// Serves a file in another way.
    pub fn put(&self, name: &str, served: Served) {
        self.files.lock().expect("no panic").insert(name.to_owned(), served);
    }
}

async fn serve(State(files): State<Files>, uri: Uri) -> Response {
    let name = uri.path().strip_prefix("/omni/latest/download/").unwrap_or_default();
    let served = files.lock().expect("no panic").get(name).cloned();
    let piece = |bytes: Vec<u8>| Ok::<_, std::io::Error>(Bytes::from(bytes));
    match served {
        None => StatusCode::NOT_FOUND.into_response(),
        Some(Served::Whole(bytes)) => bytes.into_response(),
        Some(Served::Cut(bytes, at)) => {
            let (length, sent) = (bytes.len(), bytes[..at].to_vec());
            let end = futures::stream::once(async {
                // What was sent before has to be on its way.
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                Err(std::io::Error::other("cut"))
            });
            let begin = futures::stream::once(async move { piece(sent) });
            let body = Body::from_stream(futures::StreamExt::chain(begin, end));
            ([("content-length", length.to_string())], body).into_response()
        }
        Some(Served::Endless) => {
            let more = futures::stream::repeat_with(move || piece(vec![b' '; 1 << 12]));
            Body::from_stream(more).into_response()
        }
        Some(Served::Elsewhere(url)) => (StatusCode::FOUND, [("location", url)]).into_response(),
    }
}
