//! The official Python SDK as a server, driven from here, so that no client of Python's is in
//! the figures.

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::measure::{Begin, Sample, drive};
use super::world::World;

/// The server has this long to start.
const START: Duration = Duration::from_secs(60);
/// And this long for one answer.
const PATIENCE: Duration = Duration::from_secs(20);
const VERSION: &str = "2025-06-18";

fn hello() -> Value {
    let who = json!({"name": "bench", "version": "1"});
    let params = json!({"protocolVersion": VERSION, "capabilities": {}, "clientInfo": who});
    json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
}

fn ready() -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/initialized"})
}

fn call(id: u64) -> Value {
    let params = json!({"name": "add", "arguments": {"a": id, "b": 1}});
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})
}

/// The id of an answer, which has to be the right one.
fn check(answer: &Value) -> Result<u64> {
    let id = answer["id"].as_u64().with_context(|| format!("no answer to a call: {answer}"))?;
    let sum = answer["result"]["structuredContent"]["sum"].as_u64();
    ensure!(sum == Some(id + 1), "a wrong answer: {answer}");
    Ok(id)
}

/// The server at the other end of two pipes.
pub struct Pipes {
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    next: u64,
}

impl Pipes {
    /// Starts it and shakes hands.
    pub async fn start(world: &World) -> Result<Self> {
        let mut command = world.peer("sdk.py");
        command.arg("stdio");
        Self::launch(command).await
    }

    /// The same for another server that adds.
    pub async fn launch(command: std::process::Command) -> Result<Self> {
        let mut command = Command::from(command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let input = child.stdin.take().context("it is piped")?;
        let output = BufReader::new(child.stdout.take().context("it is piped")?).lines();
        let mut pipes = Self { _child: child, input, output, next: 1 };
        pipes.send(&hello()).await?;
        pipes.receive().await?;
        pipes.send(&ready()).await?;
        Ok(pipes)
    }

    async fn send(&mut self, message: &Value) -> Result<()> {
        Ok(self.input.write_all(format!("{message}\n").as_bytes()).await?)
    }

    async fn receive(&mut self) -> Result<Value> {
        let line = tokio::time::timeout(PATIENCE, self.output.next_line()).await;
        let line = line.context("the server does not answer")??.context("the server has gone")?;
        Ok(serde_json::from_str(&line)?)
    }

    /// How many tools it lists.
    pub async fn tools(&mut self) -> Result<usize> {
        self.send(&json!({"jsonrpc": "2.0", "id": 0, "method": "tools/list"})).await?;
        let answer = self.receive().await?;
        let tools = answer["result"]["tools"].as_array();
        Ok(tools.with_context(|| format!("no list of tools: {answer}"))?.len())
    }

    async fn ask(&mut self) -> Result<u64> {
        let id = self.next;
        self.next += 1;
        self.send(&call(id)).await?;
        Ok(id)
    }

    /// One call and its answer.
    pub async fn once(&mut self) -> Result<()> {
        self.ask().await?;
        check(&self.receive().await?).map(drop)
    }

    /// As many calls under way as there are callers, for some time.
    pub async fn drive(&mut self, callers: usize, time: Duration) -> Result<Sample> {
        let start = Begin::now()?;
        let began = start.time;
        let mut waiting = HashMap::new();
        let mut times = Vec::new();
        for _ in 0..callers {
            let asked = Instant::now();
            waiting.insert(self.ask().await?, asked);
        }
        while !waiting.is_empty() {
            let id = check(&self.receive().await?)?;
            let asked = waiting.remove(&id).context("an answer to nothing")?;
            times.push(asked.elapsed());
            if began.elapsed() < time {
                let asked = Instant::now();
                waiting.insert(self.ask().await?, asked);
            }
        }
        Sample::new(times, start)
    }
}

/// An answer, plain or as the one event of a stream.
async fn read(response: reqwest::Response) -> Result<Value> {
    let text = response.text().await?;
    let event =
        text.lines().filter_map(|line| line.strip_prefix("data:")).find(|data| data.contains("\"id\""));
    Ok(serde_json::from_str(event.unwrap_or(&text))?)
}

/// The server behind a port of this machine.
pub struct Http {
    _child: Child,
    client: reqwest::Client,
    url: String,
    session: String,
    next: AtomicU64,
}

impl Http {
    /// Starts it and shakes hands.
    pub async fn start(world: &World) -> Result<Self> {
        // Free a moment ago; what takes it meanwhile makes the handshake fail.
        let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let mut command = world.peer("sdk.py");
        command.args(["http", &port.to_string()]);
        Self::launch(command, &port.to_string()).await
    }

    /// The same for another server that adds.
    pub async fn launch(command: std::process::Command, port: &str) -> Result<Self> {
        let mut command = Command::from(command);
        command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        let child = command.spawn()?;
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
        let mut http = Self {
            _child: child,
            client,
            url: format!("http://127.0.0.1:{port}/mcp"),
            session: String::new(),
            next: AtomicU64::new(1),
        };
        let began = Instant::now();
        let answer = loop {
            match http.post(&hello()).await {
                Ok(answer) => break answer,
                Err(error) if began.elapsed() > START => bail!("the server does not start: {error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        };
        let session = answer.headers().get("mcp-session-id").context("the server opened no session")?;
        http.session = session.to_str()?.to_owned();
        http.post(&ready()).await?;
        Ok(http)
    }

    async fn post(&self, message: &Value) -> Result<reqwest::Response> {
        let mut request = self.client.post(&self.url).json(message);
        request = request.header("accept", "application/json, text/event-stream");
        if !self.session.is_empty() {
            request = request.header("mcp-session-id", &self.session).header("mcp-protocol-version", VERSION);
        }
        Ok(request.send().await?.error_for_status()?)
    }

    /// Callers that post one call after the other, for some time.
    pub async fn drive(self: &Arc<Self>, callers: usize, time: Duration) -> Result<Sample> {
        let http = self.clone();
        drive(callers, time, move || {
            let http = http.clone();
            // Each with an id of its own: two calls of one session with the same id are one to it.
            let id = http.next.fetch_add(1, Relaxed);
            async move { check(&read(http.post(&call(id)).await?).await?).map(drop) }
        })
        .await
    }
}
