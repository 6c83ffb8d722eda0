//! A model server that says what it is told: real HTTP on a free port of this machine.
//!
//! It records every request and plays a queue of answers. The path of a request tells its
//! dialect, so one answer serves them all: `/chat/completions` (OpenAI and its copies),
//! `/responses`, `/messages` (Anthropic), `:streamGenerateContent` (Gemini), `/api/chat`
//! (Ollama). It lives on a thread of its own, so synchronous tests may use it too.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, Uri};
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::oneshot;

/// The server. It stops when dropped.
pub struct Vendor {
    address: std::net::SocketAddr,
    desk: Arc<Mutex<Desk>>,
    _stop: oneshot::Sender<()>,
}

#[derive(Default)]
struct Desk {
    answers: VecDeque<Answer>,
    echo: Option<Duration>,
    ignored: Option<String>,
    forgets: bool,
    requests: Vec<Recorded>,
    models: Vec<String>,
    meanings: Vec<Vec<String>>,
    hung_up: bool,
}

/// A request as it came in.
#[derive(Debug, Clone)]
pub struct Recorded {
    pub path: String,
    pub dialect: Dialect,
    pub headers: BTreeMap<String, String>,
    pub body: Value,
}

impl Recorded {
    /// As a line for `tests/clients/vendor_requests.py`.
    pub fn line(&self) -> Value {
        let dialect = format!("{:?}", self.dialect).to_lowercase();
        json!({ "dialect": dialect, "path": self.path, "headers": self.headers, "body": self.body })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Chat,
    Responses,
    Anthropic,
    Gemini,
    Ollama,
    Other,
}

impl Dialect {
    fn of(path: &str) -> Self {
        match path {
            _ if path.ends_with("/chat/completions") => Self::Chat,
            _ if path.ends_with("/responses") => Self::Responses,
            _ if path.ends_with("/messages") => Self::Anthropic,
            _ if path.contains("enerateContent") => Self::Gemini,
            _ if path.ends_with("/api/chat") => Self::Ollama,
            _ => Self::Other,
        }
    }
}

impl Vendor {
    /// Starts one.
    pub async fn start() -> Self {
        Self::launch()
    }

    /// Starts one, from where there is no runtime.
    pub fn launch() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("an address");
        let desk = Arc::new(Mutex::new(Desk::default()));
        let (stop, stopped) = oneshot::channel();
        let state = Arc::clone(&desk);
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
        Self { address, desk, _stop: stop }
    }

    /// Its address, without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What `OPENAI_BASE_URL` would be.
    pub fn openai_url(&self) -> String {
        format!("{}/v1", self.url())
    }

    /// Queues an answer.
    pub fn answer(&self, answer: Answer) {
        self.desk.lock().expect("no panic").answers.push_back(answer);
    }

    /// Says back what it was asked, after a while, where no answer is queued.
    pub fn echoes(&self, after: Duration) {
        self.desk.lock().expect("no panic").echo = Some(after);
    }

    /// Keeps no requests, where there are too many of them.
    pub fn forgets(&self) {
        self.desk.lock().expect("no panic").forgets = true;
    }

    /// Never answers when it is asked this, once.
    pub fn ignores(&self, words: &str) {
        self.desk.lock().expect("no panic").ignored = Some(words.to_owned());
    }

    /// The models it lists: at `/v1/models`, and at `/api/tags` as Ollama would.
    pub fn models(&self, names: &[&str]) {
        self.desk.lock().expect("no panic").models = names.iter().map(|name| (*name).to_owned()).collect();
    }

    /// What it takes for one thing when it makes vectors of texts: `/embeddings` answers then.
    pub fn means(&self, meanings: &[&[&str]]) {
        let meanings = meanings.iter().map(|words| words.iter().map(|word| (*word).to_owned()).collect());
        self.desk.lock().expect("no panic").meanings = meanings.collect();
    }

    /// The requests so far; questions for the list of models left out.
    pub fn requests(&self) -> Vec<Recorded> {
        self.desk.lock().expect("no panic").requests.clone()
    }

    /// Waits, with a bound, until somebody gave up on an answer that stalls.
    pub async fn until_hung_up(&self) {
        for _ in 0..2000 {
            if self.desk.lock().expect("no panic").hung_up {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the connection is still open");
    }
}

/// What the server says.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    said: Said,
    status: Option<u16>,
    headers: Vec<(String, String)>,
    raw: Option<(String, String)>,
    ending: Ending,
    bytewise: bool,
    unstreamed: bool,
}

#[derive(Debug, Clone, Default)]
struct Said {
    text: String,
    thinking: String,
    calls: Vec<(String, String)>,
    stop: Option<String>,
    without_index: bool,
    same_index: bool,
    without_ids: bool,
    without_done: bool,
    loses_calls: bool,
    error: Option<Value>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum Ending {
    #[default]
    Whole,
    Half,
    Reset,
    Stalls,
    Silent,
}

impl Answer {
    /// Plain text.
    pub fn text(text: &str) -> Self {
        Self { said: Said { text: text.to_owned(), ..Said::default() }, ..Self::default() }
    }

    /// One tool call.
    pub fn call(name: &str, arguments: Value) -> Self {
        Self::default().and_call(name, arguments)
    }

    /// And another one.
    pub fn and_call(self, name: &str, arguments: Value) -> Self {
        self.and_call_with(name, &arguments.to_string())
    }

    /// A call whose arguments are this text, JSON or not.
    pub fn and_call_with(mut self, name: &str, arguments: &str) -> Self {
        self.said.calls.push((name.to_owned(), arguments.to_owned()));
        self
    }

    /// With text before the calls.
    pub fn saying(mut self, text: &str) -> Self {
        text.clone_into(&mut self.said.text);
        self
    }

    /// With reasoning, signed where the vendor signs.
    pub fn thinking(mut self, text: &str) -> Self {
        text.clone_into(&mut self.said.thinking);
        self
    }

    /// Gives this reason for stopping, in the vendor's own words.
    pub fn stopping(mut self, reason: &str) -> Self {
        self.said.stop = Some(reason.to_owned());
        self
    }

    /// A status, with a JSON error as most vendors send it.
    pub fn status(status: u16, message: &str) -> Self {
        let body = json!({ "error": { "message": message, "type": "error" } }).to_string();
        Self { status: Some(status), raw: Some(("application/json".to_owned(), body)), ..Self::default() }
    }

    /// A status with this body.
    pub fn page(status: u16, kind: &str, body: &str) -> Self {
        Self { status: Some(status), raw: Some((kind.to_owned(), body.to_owned())), ..Self::default() }
    }

    /// Another header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Breaks off in the middle, as if all were well.
    pub fn half(mut self) -> Self {
        self.ending = Ending::Half;
        self
    }

    /// Breaks off in the middle and tears the connection down.
    pub fn reset(mut self) -> Self {
        self.ending = Ending::Reset;
        self
    }

    /// Says half and then nothing, the connection open.
    pub fn stalls(mut self) -> Self {
        self.ending = Ending::Stalls;
        self
    }

    /// Takes the request and never answers.
    pub fn silent() -> Self {
        Self { ending: Ending::Silent, ..Self::default() }
    }

    /// Sends every byte by itself, so characters are torn apart.
    pub fn bytewise(mut self) -> Self {
        self.bytewise = true;
        self
    }

    /// Sends one JSON document though a stream was asked for.
    pub fn unstreamed(mut self) -> Self {
        self.unstreamed = true;
        self
    }

    /// Chat completions: the pieces of calls carry no `index`.
    pub fn without_index(mut self) -> Self {
        self.said.without_index = true;
        self
    }

    /// Chat completions: all calls have the index 0.
    pub fn same_index(mut self) -> Self {
        self.said.same_index = true;
        self
    }

    /// Calls have no id.
    pub fn without_ids(mut self) -> Self {
        self.said.without_ids = true;
        self
    }

    /// Chat completions: no `[DONE]` at the end.
    pub fn without_done(mut self) -> Self {
        self.said.without_done = true;
        self
    }

    /// Chat completions: says that tools are wanted, but the stream has no calls.
    pub fn losing_calls(mut self) -> Self {
        self.said.loses_calls = true;
        self
    }

    /// Sends this error in the middle of the stream.
    pub fn failing(mut self, error: Value) -> Self {
        self.said.error = Some(error);
        self
    }
}

/// Has the requests looked at by the vendors' own types, with `tests/clients/vendor_requests.py`.
#[track_caller]
pub fn check(requests: &[Recorded]) {
    let lines: String = requests.iter().map(|request| format!("{}\n", request.line())).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("requests.jsonl");
    std::fs::write(&file, lines).expect("a file");
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let python =
        std::env::var_os("OMNI_TEST_PYTHON").map_or_else(|| here.join(".venv/bin/python"), Into::into);
    let checked = std::process::Command::new(&python)
        .arg(here.join("tests/clients/vendor_requests.py"))
        .arg(&file)
        .output()
        .unwrap_or_else(|error| {
            panic!("no Python at {} ({error}); `make setup` makes one", python.display())
        });
    let (out, err) = (String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
    assert!(checked.status.success(), "{out}\n{err}");
}

async fn serve(
    State(desk): State<Arc<Mutex<Desk>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let path = uri.path().to_owned();
    let dialect = Dialect::of(&path);
    if method == Method::GET {
        return listing(&path, &desk.lock().expect("no panic").models);
    }
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let headers = headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
    let recorded = Recorded { path: path.clone(), dialect, headers: headers.collect(), body: body.clone() };
    let (answer, echo) = {
        let mut desk = desk.lock().expect("no panic");
        if !desk.forgets {
            desk.requests.push(recorded);
        }
        if path.ends_with("/embeddings") && !desk.meanings.is_empty() {
            return page(200, "application/json", embeddings(&body, &desk.meanings).to_string());
        }
        match desk.ignored.take_if(|words| words == asked(&body)) {
            Some(_) => (Some(Answer::silent()), None),
            None => (desk.answers.pop_front(), desk.echo),
        }
    };
    let answer = match (answer, echo) {
        (None, Some(after)) => {
            tokio::time::sleep(after).await;
            Some(Answer::text(&format!("re: {}", asked(&body))))
        }
        (answer, _) => answer,
    };
    let answer = answer.unwrap_or_else(|| Answer::status(418, "no answer was queued"));
    if answer.ending == Ending::Silent {
        std::future::pending::<()>().await;
    }
    let line = (answer.ending == Ending::Stalls).then(|| Line(Arc::clone(&desk)));
    let streams = body["stream"] == true || path.ends_with(":streamGenerateContent");
    answer.send(dialect, streams, body["model"].as_str().unwrap_or("fake"), line)
}

/// What was asked last, in a chat completion.
pub fn asked(body: &Value) -> &str {
    let messages = body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let last = messages.iter().rfind(|message| message["role"] == "user");
    let content = last.map_or(&Value::Null, |last| &last["content"]);
    content.as_str().or_else(|| content[0]["text"].as_str()).unwrap_or_default()
}

/// A vector for each text: how often it says each of the things, and a little that is its own.
fn embeddings(body: &Value, meanings: &[Vec<String>]) -> Value {
    let vector = |text: &str| -> Vec<f64> {
        let count = |words: &Vec<String>| {
            text.split(|letter: char| !letter.is_alphanumeric())
                .filter(|word| words.contains(&word.to_lowercase()))
                .count()
        };
        let own = text.len() as f64 / 1e4 + 0.01;
        meanings.iter().map(|words| count(words) as f64).chain([own]).collect()
    };
    let texts = body["input"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let data = texts.enumerate().map(|(index, text)| json!({ "index": index, "embedding": vector(text) }));
    json!({ "object": "list", "data": data.collect::<Vec<_>>() })
}

/// Dropped with the body it belongs to.
struct Line(Arc<Mutex<Desk>>);

impl Drop for Line {
    fn drop(&mut self) {
        self.0.lock().expect("no panic").hung_up = true;
    }
}

fn listing(path: &str, models: &[String]) -> Response<Body> {
    let body = match path {
        _ if models.is_empty() => return page(404, "text/plain", "not found".to_owned()),
        "/v1/models" => {
            json!({ "object": "list", "data": models.iter().map(|id| json!({ "id": id, "object": "model" })).collect::<Vec<_>>() })
        }
        "/api/tags" => {
            json!({ "models": models.iter().map(|name| json!({ "name": name, "model": name })).collect::<Vec<_>>() })
        }
        _ => return page(404, "text/plain", "not found".to_owned()),
    };
    page(200, "application/json", body.to_string())
}

fn page(status: u16, kind: &str, body: String) -> Response<Body> {
    Response::builder()
        .status(status)
        .header("content-type", kind)
        .body(Body::from(body))
        .expect("a response")
}

impl Answer {
    fn send(self, dialect: Dialect, streams: bool, model: &str, line: Option<Line>) -> Response<Body> {
        let mut response = Response::builder().status(self.status.unwrap_or(200));
        for (name, value) in &self.headers {
            response = response.header(name, value);
        }
        let (kind, pieces) = match self.raw {
            Some((kind, body)) => (kind, vec![body]),
            None if streams && !self.unstreamed => {
                let kind =
                    if dialect == Dialect::Ollama { "application/x-ndjson" } else { "text/event-stream" };
                (kind.to_owned(), self.said.frames(dialect, model))
            }
            None => ("application/json".to_owned(), vec![self.said.whole(dialect, model).to_string()]),
        };
        let mut pieces = pieces;
        if matches!(self.ending, Ending::Half | Ending::Reset | Ending::Stalls) {
            pieces.truncate(pieces.len().div_ceil(2));
        }
        let pieces: Vec<Bytes> = match self.bytewise {
            true => {
                pieces.iter().flat_map(|piece| piece.bytes()).map(|byte| Bytes::from(vec![byte])).collect()
            }
            false => pieces.into_iter().map(Bytes::from).collect(),
        };
        let pieces = stream::iter(pieces).map(Ok::<_, std::io::Error>);
        let body = match self.ending {
            Ending::Stalls => Body::from_stream(pieces.chain(stream::pending()).map(move |piece| {
                // The line is held as long as the body is.
                let _ = &line;
                piece
            })),
            // The pause lets the first half out before the connection goes.
            Ending::Reset => Body::from_stream(pieces.chain(stream::once(async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Err(std::io::Error::other("torn"))
            }))),
            _ => Body::from_stream(pieces),
        };
        response.header("content-type", kind).body(body).expect("a response")
    }
}

/// Breaks a text into a few pieces at character borders.
fn pieces(text: &str) -> Vec<String> {
    let letters: Vec<char> = text.chars().collect();
    letters.chunks(letters.len().div_ceil(4).max(1)).map(|chunk| chunk.iter().collect()).collect()
}

fn event(name: &str, data: &Value) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}

fn data(data: &Value) -> String {
    format!("data: {data}\n\n")
}

impl Said {
    fn frames(&self, dialect: Dialect, model: &str) -> Vec<String> {
        match dialect {
            Dialect::Chat | Dialect::Other => self.chat_frames(model),
            Dialect::Responses => self.responses_frames(model),
            Dialect::Anthropic => self.anthropic_frames(model),
            Dialect::Gemini => self.gemini_frames(),
            Dialect::Ollama => self.ollama_frames(model),
        }
    }

    fn whole(&self, dialect: Dialect, model: &str) -> Value {
        match dialect {
            Dialect::Chat | Dialect::Other => self.chat_whole(model),
            Dialect::Responses => self.responses_whole(model),
            Dialect::Anthropic => self.anthropic_whole(model),
            Dialect::Gemini => self.gemini_chunk(&self.gemini_parts(), Some("STOP")),
            Dialect::Ollama => {
                json!({ "model": model, "message": self.ollama_message(), "done": true, "done_reason": "stop" })
            }
        }
    }

    fn reason(&self, calls: &str, otherwise: &str) -> String {
        let usual = if self.calls.is_empty() { otherwise } else { calls };
        self.stop.clone().unwrap_or_else(|| usual.to_owned())
    }

    fn id(&self, place: usize, prefix: &str) -> String {
        format!("{prefix}{}{place}", self.calls[place].0.len())
    }

    fn chat_frames(&self, model: &str) -> Vec<String> {
        let chunk = |delta: Value, reason: Option<&str>| {
            data(&json!({
                "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model,
                "choices": [{ "index": 0, "delta": delta, "finish_reason": reason }],
            }))
        };
        let mut frames = vec![chunk(json!({ "role": "assistant", "content": "" }), None)];
        frames.extend(
            pieces(&self.thinking).iter().map(|text| chunk(json!({ "reasoning_content": text }), None)),
        );
        frames.extend(pieces(&self.text).iter().map(|text| chunk(json!({ "content": text }), None)));
        if let Some(error) = &self.error {
            frames.push(data(&json!({ "error": error })));
            return frames;
        }
        for (place, (name, arguments)) in self.calls.iter().enumerate().filter(|_| !self.loses_calls) {
            let mut call = |mut call: Value| {
                if !self.without_index {
                    call["index"] = json!(if self.same_index { 0 } else { place });
                }
                frames.push(chunk(json!({ "tool_calls": [call] }), None));
            };
            let mut first = json!({ "type": "function", "function": { "name": name, "arguments": "" } });
            if !self.without_ids {
                first["id"] = json!(self.id(place, "call_fake_"));
            }
            call(first);
            pieces(arguments).iter().for_each(|piece| call(json!({ "function": { "arguments": piece } })));
        }
        frames.push(chunk(json!({}), Some(&self.reason("tool_calls", "stop"))));
        frames.push(data(&json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [],
            "usage": { "prompt_tokens": 120, "completion_tokens": 8, "total_tokens": 128, "prompt_tokens_details": { "cached_tokens": 100 } },
        })));
        if !self.without_done {
            frames.push("data: [DONE]\n\n".to_owned());
        }
        frames
    }

    fn chat_whole(&self, model: &str) -> Value {
        let calls: Vec<Value> = self.calls.iter().enumerate().map(|(place, (name, arguments))| {
            json!({ "id": self.id(place, "call_fake_"), "function": { "name": name, "arguments": arguments } })
        }).collect();
        let mut message = json!({ "role": "assistant", "content": self.text });
        if !calls.is_empty() {
            message["tool_calls"] = json!(calls);
        }
        json!({
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model,
            "choices": [{ "index": 0, "message": message, "finish_reason": self.reason("tool_calls", "stop") }],
            "usage": { "prompt_tokens": 120, "completion_tokens": 8, "total_tokens": 128 },
        })
    }

    fn responses_items(&self) -> Vec<Value> {
        let mut items = Vec::new();
        if !self.thinking.is_empty() {
            items.push(json!({ "id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": format!("sealed:{}", self.thinking) }));
        }
        if !self.text.is_empty() {
            items.push(json!({ "id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [{ "type": "output_text", "text": self.text, "annotations": [] }] }));
        }
        for (place, (name, arguments)) in self.calls.iter().enumerate() {
            items.push(json!({ "id": format!("fc_{place}"), "type": "function_call", "call_id": self.id(place, "call_fake_"), "name": name, "arguments": arguments, "status": "completed" }));
        }
        items
    }

    fn responses_whole(&self, model: &str) -> Value {
        json!({
            "id": "resp_1", "object": "response", "created_at": 1, "model": model, "output": self.responses_items(),
            "status": self.stop.clone().unwrap_or_else(|| "completed".to_owned()), "error": null,
            "usage": { "input_tokens": 120, "input_tokens_details": { "cached_tokens": 100 }, "output_tokens": 8, "output_tokens_details": { "reasoning_tokens": 0 }, "total_tokens": 128 },
        })
    }

    fn responses_frames(&self, model: &str) -> Vec<String> {
        let send = |kind: &str, mut value: Value| {
            value["type"] = json!(kind);
            event(kind, &value)
        };
        let mut frames = vec![send(
            "response.created",
            json!({ "response": { "id": "resp_1", "status": "in_progress", "error": null } }),
        )];
        for (place, item) in self.responses_items().iter().enumerate() {
            let mut empty = item.clone();
            match item["type"].as_str() {
                Some("message") => empty["content"] = json!([]),
                Some("function_call") => empty["arguments"] = json!(""),
                _ => empty["encrypted_content"] = Value::Null,
            }
            frames.push(send("response.output_item.added", json!({ "output_index": place, "item": empty })));
            let (kind, text) = match item["type"].as_str() {
                Some("message") => ("response.output_text.delta", self.text.as_str()),
                Some("function_call") => {
                    ("response.function_call_arguments.delta", item["arguments"].as_str().expect("text"))
                }
                _ => ("", ""),
            };
            frames.extend(pieces(text).iter().map(|piece| {
                send(
                    kind,
                    json!({ "output_index": place, "content_index": 0, "item_id": "x", "delta": piece }),
                )
            }));
            frames.push(send("response.output_item.done", json!({ "output_index": place, "item": item })));
        }
        if let Some(error) = &self.error {
            let mut response = self.responses_whole(model);
            response["status"] = json!("failed");
            response["error"] = error.clone();
            frames.push(send("response.failed", json!({ "response": response })));
            return frames;
        }
        let cut = self.stop.as_deref() == Some("incomplete");
        let mut response = self.responses_whole(model);
        if cut {
            response["incomplete_details"] = json!({ "reason": "max_output_tokens" });
        }
        let kind = if cut { "response.incomplete" } else { "response.completed" };
        frames.push(send(kind, json!({ "response": response })));
        frames
    }

    fn anthropic_blocks(&self) -> Vec<Value> {
        let mut blocks = Vec::new();
        if !self.thinking.is_empty() {
            blocks.push(json!({ "type": "thinking", "thinking": self.thinking, "signature": format!("signed:{}", self.thinking) }));
        }
        if !self.text.is_empty() {
            blocks.push(json!({ "type": "text", "text": self.text }));
        }
        for (place, (name, arguments)) in self.calls.iter().enumerate() {
            let id = if self.without_ids { String::new() } else { self.id(place, "toolu_fake_") };
            let input = serde_json::from_str(arguments).unwrap_or_else(|_| json!({}));
            blocks.push(json!({ "type": "tool_use", "id": id, "name": name, "input": input }));
        }
        blocks
    }

    fn anthropic_whole(&self, model: &str) -> Value {
        json!({
            "id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": self.anthropic_blocks(),
            "stop_reason": self.reason("tool_use", "end_turn"), "stop_sequence": null,
            "usage": { "input_tokens": 20, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 100, "output_tokens": 8 },
        })
    }

    fn anthropic_frames(&self, model: &str) -> Vec<String> {
        let send = |kind: &str, mut value: Value| {
            value["type"] = json!(kind);
            event(kind, &value)
        };
        let mut start = self.anthropic_whole(model);
        start["content"] = json!([]);
        start["stop_reason"] = Value::Null;
        let mut frames = vec![send("message_start", json!({ "message": start })), send("ping", json!({}))];
        let mut calls = self.calls.iter();
        for (place, block) in self.anthropic_blocks().iter().enumerate() {
            let mut empty = block.clone();
            let mut deltas = Vec::new();
            match block["type"].as_str() {
                Some("thinking") => {
                    empty["thinking"] = json!("");
                    empty["signature"] = json!("");
                    deltas.extend(
                        pieces(&self.thinking)
                            .iter()
                            .map(|text| json!({ "type": "thinking_delta", "thinking": text })),
                    );
                    deltas.push(json!({ "type": "signature_delta", "signature": block["signature"] }));
                }
                Some("text") => {
                    empty["text"] = json!("");
                    deltas.extend(
                        pieces(&self.text).iter().map(|text| json!({ "type": "text_delta", "text": text })),
                    );
                }
                _ => {
                    empty["input"] = json!({});
                    let (_, arguments) = calls.next().expect("a call");
                    deltas.extend(
                        pieces(arguments)
                            .iter()
                            .map(|text| json!({ "type": "input_json_delta", "partial_json": text })),
                    );
                }
            }
            frames.push(send("content_block_start", json!({ "index": place, "content_block": empty })));
            frames.extend(
                deltas
                    .into_iter()
                    .map(|delta| send("content_block_delta", json!({ "index": place, "delta": delta }))),
            );
            frames.push(send("content_block_stop", json!({ "index": place })));
        }
        if let Some(error) = &self.error {
            frames.push(send("error", json!({ "error": error })));
            return frames;
        }
        frames.push(send("message_delta", json!({ "delta": { "stop_reason": self.reason("tool_use", "end_turn"), "stop_sequence": null }, "usage": { "output_tokens": 8 } })));
        frames.push(send("message_stop", json!({})));
        frames
    }

    fn gemini_parts(&self) -> Vec<Value> {
        let mut parts = Vec::new();
        if !self.thinking.is_empty() {
            parts.push(json!({ "text": self.thinking, "thought": true }));
        }
        parts.extend(pieces(&self.text).iter().map(|text| json!({ "text": text })));
        for (place, (name, arguments)) in self.calls.iter().enumerate() {
            let input: Value = serde_json::from_str(arguments).unwrap_or_else(|_| json!({}));
            let mut part = json!({ "functionCall": { "name": name, "args": input } });
            if place == 0 && !self.thinking.is_empty() {
                part["thoughtSignature"] = json!(format!("signed:{}", self.thinking));
            }
            parts.push(part);
        }
        parts
    }

    fn gemini_chunk(&self, parts: &[Value], reason: Option<&str>) -> Value {
        let mut candidate = json!({ "content": { "parts": parts, "role": "model" }, "index": 0 });
        if let Some(reason) = reason {
            candidate["finishReason"] = json!(reason);
        }
        json!({ "candidates": [candidate], "modelVersion": "fake", "usageMetadata": { "promptTokenCount": 120, "cachedContentTokenCount": 100, "candidatesTokenCount": 8, "totalTokenCount": 128 } })
    }

    fn gemini_frames(&self) -> Vec<String> {
        let mut frames: Vec<String> = self
            .gemini_parts()
            .iter()
            .map(|part| data(&self.gemini_chunk(std::slice::from_ref(part), None)))
            .collect();
        match &self.error {
            Some(error) => frames.push(data(&json!({ "error": error }))),
            None => frames.push(data(
                &self.gemini_chunk(&[json!({ "text": "" })], Some(self.stop.as_deref().unwrap_or("STOP"))),
            )),
        }
        frames
    }

    fn ollama_message(&self) -> Value {
        let calls: Vec<Value> = self
            .calls
            .iter()
            .map(|(name, arguments)| {
                let input: Value = serde_json::from_str(arguments).unwrap_or_else(|_| json!({}));
                json!({ "function": { "name": name, "arguments": input } })
            })
            .collect();
        json!({ "role": "assistant", "content": self.text, "tool_calls": calls })
    }

    fn ollama_frames(&self, model: &str) -> Vec<String> {
        let line =
            |message: Value| format!("{}\n", json!({ "model": model, "message": message, "done": false }));
        let mut frames: Vec<String> = pieces(&self.thinking)
            .iter()
            .map(|text| line(json!({ "role": "assistant", "content": "", "thinking": text })))
            .collect();
        frames.extend(
            pieces(&self.text).iter().map(|text| line(json!({ "role": "assistant", "content": text }))),
        );
        if !self.calls.is_empty() {
            let mut message = self.ollama_message();
            message["content"] = json!("");
            frames.push(line(message));
        }
        if let Some(error) = &self.error {
            frames.push(format!("{}\n", json!({ "error": error })));
            return frames;
        }
        let reason = self.stop.as_deref().unwrap_or("stop");
        frames.push(format!("{}\n", json!({ "model": model, "message": { "role": "assistant", "content": "" }, "done": true, "done_reason": reason, "prompt_eval_count": 120, "eval_count": 8 })));
        frames
    }
}
