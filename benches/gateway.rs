//! The gateway under load, beside that of Nanobot, before the same model, which answers at once.
//!
//! Both are asked in OpenAI's protocol, by the same client, and keep their sessions. Processor time
//! is that of the server alone, with all that it has started.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::time::MissedTickBehavior;

use super::measure::{Begin, Sample, drive, median, processor_of, resident};
use super::table::{Report, Row};
use super::world::{World, write};

const SESSIONS: usize = 1000;
const CONNECTIONS: usize = 32;
const ROUNDS: usize = 3;
/// How long a round takes.
const TIME: Duration = Duration::from_secs(10);
/// How long a server may take to start.
const START: Duration = Duration::from_secs(60);

/// What was found of one server.
#[derive(Default)]
struct Found {
    rate: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
    cpu: Vec<f64>,
    /// At half the rate.
    calm: Vec<f64>,
    turns: u64,
    idle: f64,
    used: f64,
    loaded: f64,
    asked: f64,
}

pub fn run(world: &World) -> Result<Report> {
    let runtime = Runtime::new()?;
    let model = Arc::new(Recorded::default());
    let place = runtime.block_on(play(model.clone()))?;
    let (mut ours, mut theirs) = (Found::default(), Found::default());
    {
        let omni = Server::omni(world, &runtime, &place)?;
        ours.idle = omni.resident()?;
        runtime.block_on(omni.tool())?;
        ours.used = omni.resident()?;
    }
    let omni = Server::omni(world, &runtime, &place)?;
    let nanobot = Server::nanobot(world, &runtime, &place)?;
    theirs.idle = nanobot.resident()?;
    for (server, found) in [(&omni, &mut ours), (&nanobot, &mut theirs)] {
        // The first turn makes what the others use.
        model.take();
        runtime.block_on(server.turn())?;
        found.asked = model.take();
    }
    theirs.used = nanobot.resident()?;
    for _ in 0..ROUNDS {
        for (server, found) in [(&omni, &mut ours), (&nanobot, &mut theirs)] {
            round(&runtime, server, found)?;
        }
    }
    for (server, found) in [(&omni, &mut ours), (&nanobot, &mut theirs)] {
        found.loaded = server.resident()?;
    }
    Ok(report(&ours, &theirs))
}

fn round(runtime: &Runtime, server: &Server, found: &mut Found) -> Result<()> {
    let (before, count) = (processor_of(server.id())?, server.turns.load(Relaxed));
    let turn = {
        let server = server.caller();
        move || {
            let server = server.clone();
            async move { server.turn().await }
        }
    };
    let sample = runtime.block_on(drive(CONNECTIONS, TIME, turn))?;
    let turns = server.turns.load(Relaxed) - count;
    let cpu = processor_of(server.id())?.saturating_sub(before);
    found.rate.push(sample.rate);
    found.p50.push(sample.p50 / 1e3);
    found.p99.push(sample.p99 / 1e3);
    found.cpu.push(cpu.as_secs_f64() * 1e3 / turns as f64);
    found.calm.push(runtime.block_on(calm(server, sample.rate / 2.0))?.p99 / 1e3);
    found.turns = server.turns.load(Relaxed);
    Ok(())
}

/// So many turns a second, whether the ones before have been answered or not.
async fn calm(server: &Server, rate: f64) -> Result<Sample> {
    let (begin, every) = (Begin::now()?, Duration::from_secs_f64(CONNECTIONS as f64 / rate));
    let mut all = tokio::task::JoinSet::new();
    for number in 0..CONNECTIONS {
        let server = server.caller();
        all.spawn(async move {
            let first = tokio::time::Instant::now() + every * number as u32 / CONNECTIONS as u32;
            let mut ticks = tokio::time::interval_at(first, every);
            // A turn that is late makes those after it late, and that is counted.
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let (mut times, end) = (Vec::new(), Instant::now() + TIME);
            while Instant::now() < end {
                let due = ticks.tick().await;
                server.turn().await?;
                times.push(due.elapsed());
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(caller) = all.join_next().await {
        times.append(&mut caller??);
    }
    Sample::new(times, begin)
}

fn report(ours: &Found, theirs: &Found) -> Report {
    let mut report = Report::default();
    let load = format!("{SESSIONS} sessions, {CONNECTIONS} connections");
    let per = |one: &[f64], other: &[f64]| median(one.iter().zip(other).map(|(one, other)| one / other));
    let peer = |text: String| format!("Nanobot: {text}");
    let mut row = |row: Row| report.rows.push(row);
    let (rate, other) = (median(ours.rate.clone()), median(theirs.rate.clone()));
    row(Row::new(format!("turns a second over HTTP, {load}"), format!("{rate:.0}"))
        .beside(peer(format!("{other:.1}")), format!("{:.0}", per(&ours.rate, &theirs.rate))));
    let (cpu, other) = (median(ours.cpu.clone()), median(theirs.cpu.clone()));
    let less = per(&theirs.cpu, &ours.cpu);
    row(Row::new("processor time of such a turn", format!("{cpu:.2} ms"))
        .beside(peer(format!("{other:.1} ms")), format!("1/{less:.0}"))
        .promise("≤ 1/50", less >= 50.0));
    for (what, ours, theirs) in [("p50", &ours.p50, &theirs.p50), ("p99", &ours.p99, &theirs.p99)] {
        row(Row::new(format!("{what} of such a turn"), format!("{:.1} ms", median(ours.clone()))).beside(
            peer(format!("{:.0} ms", median(theirs.clone()))),
            format!("1/{:.0}", per(theirs, ours)),
        ));
    }
    let late = median(ours.calm.clone());
    row(Row::new("p99 of a turn at half of that rate", format!("{late:.1} ms"))
        .beside(peer(format!("{:.0} ms, at half of its own", median(theirs.calm.clone()))), "–")
        .promise("< 100 ms", late < 100.0));
    for (what, ours, theirs) in [
        ("an idle gateway in memory, Python not loaded".to_owned(), ours.idle, theirs.idle),
        ("the same after a call of a Python tool; Nanobot: after a turn".to_owned(), ours.used, theirs.used),
        (
            format!("the same after {} turns; Nanobot: {}", ours.turns, theirs.turns),
            ours.loaded,
            theirs.loaded,
        ),
    ] {
        row(Row::new(what, format!("{ours:.0} MiB"))
            .beside(peer(format!("{theirs:.0} MiB")), format!("{:.2}", ours / theirs)));
    }
    row(Row::new("what the model is sent for a first `hello`", format!("{:.1} KB", ours.asked / 1e3))
        .beside(peer(format!("{:.1} KB", theirs.asked / 1e3)), format!("{:.2}", ours.asked / theirs.asked)));
    report
}

/// A server that runs; dropping it ends it.
struct Server {
    child: Child,
    caller: Caller,
}

/// Whoever talks to it.
#[derive(Clone)]
struct Caller {
    client: reqwest::Client,
    url: String,
    turns: Arc<AtomicU64>,
    next: Arc<AtomicUsize>,
}

impl std::ops::Deref for Server {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.caller
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn omni(world: &World, runtime: &Runtime, model: &str) -> Result<Self> {
        let port = free()?;
        let mut command = world.omni(&["serve", "--bind", &format!("127.0.0.1:{port}")]);
        command.env("OMNI_MODEL__NAME", "fake/fake");
        command.env("OMNI_PROVIDER__FAKE__BASE_URL", model).env("OMNI_PROVIDER__FAKE__API_KEY", "none");
        Self::start(command, runtime, port, "/healthz")
    }

    fn nanobot(world: &World, runtime: &Runtime, model: &str) -> Result<Self> {
        let (port, home) = (free()?, world.path("nanobot"));
        let agent = json!({"model": "fake", "provider": "custom", "workspace": home.join("work")});
        let provider = json!({"custom": {"apiKey": "none", "apiBase": model}});
        let config = json!({"agents": {"defaults": agent}, "providers": provider});
        write(&home.join("config.json"), &config.to_string())?;
        let mut command = Command::new(world.peers()?.join("nanobot/bin/nanobot"));
        command.arg("serve").arg("-c").arg(home.join("config.json")).args(["-p", &port.to_string()]);
        // As many turns at once as ours.
        command.env("HOME", &home).env("NANOBOT_MAX_CONCURRENT_REQUESTS", "16").stdin(Stdio::null());
        Self::start(command, runtime, port, "/health").context("Nanobot; `make bench` installs it")
    }

    fn start(mut command: Command, runtime: &Runtime, port: u16, health: &str) -> Result<Self> {
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let client = reqwest::Client::builder().pool_max_idle_per_host(CONNECTIONS).no_proxy().build()?;
        let url = format!("http://127.0.0.1:{port}");
        let caller = Caller { client, url, turns: Arc::default(), next: Arc::default() };
        let (mut server, began) = (Self { child, caller }, Instant::now());
        let address = format!("{}{health}", server.url);
        while runtime.block_on(server.client.get(&address).send()).is_err() {
            ensure!(server.child.try_wait()?.is_none(), "the server ended: {command:?}");
            ensure!(began.elapsed() < START, "the server does not answer: {command:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
        // What it does at its start is not what it does.
        std::thread::sleep(Duration::from_secs(2));
        Ok(server)
    }

    fn id(&self) -> u32 {
        self.child.id()
    }

    /// MiB that it and its children have in memory.
    fn resident(&self) -> Result<f64> {
        Ok(resident(self.id())? as f64 / f64::from(1 << 20))
    }

    fn caller(&self) -> Caller {
        self.caller.clone()
    }
}

impl Caller {
    /// One message in the next session, and its answer.
    async fn turn(&self) -> Result<()> {
        let session = format!("session-{}", self.next.fetch_add(1, Relaxed) % SESSIONS);
        let body = json!({"messages": [{"role": "user", "content": "hello"}], "session_id": session});
        let request = self.client.post(format!("{}/v1/chat/completions", self.url));
        let answer = request.header("X-Omni-Session", &session).json(&body).send().await?;
        ensure!(answer.status().is_success(), "{}: {}", answer.status(), answer.text().await?);
        let answer: Value = answer.json().await?;
        let text = answer["choices"][0]["message"]["content"].as_str().unwrap_or_default();
        ensure!(text == "hello there", "a wrong answer: {answer}");
        self.turns.fetch_add(1, Relaxed);
        Ok(())
    }

    /// A call of a Python tool.
    async fn tool(&self) -> Result<()> {
        let body = json!({"command": "time.now", "arguments": {}});
        let answer = self.client.post(format!("{}/run_tool", self.url)).json(&body).send().await?;
        ensure!(answer.status().is_success(), "{}: {}", answer.status(), answer.text().await?);
        Ok(())
    }
}

fn free() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// What a model was sent.
#[derive(Default)]
struct Recorded(AtomicU64);

impl Recorded {
    /// Bytes of the last request, once.
    fn take(&self) -> f64 {
        self.0.swap(0, Relaxed) as f64
    }
}

/// Plays a model that says the same to everything; returns where it is.
async fn play(model: Arc<Recorded>) -> Result<String> {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let place = format!("http://{}/v1", socket.local_addr()?);
    let router = Router::new().fallback(reply).with_state(model);
    tokio::spawn(async move { axum::serve(socket, router).await });
    Ok(place)
}

async fn reply(State(model): State<Arc<Recorded>>, body: String) -> Response {
    const HEAD: &str = r#""id":"c","created":1,"model":"fake""#;
    const USAGE: &str = r#""usage":{"prompt_tokens":10,"completion_tokens":3,"total_tokens":13}"#;
    model.0.store(body.len() as u64, Relaxed);
    // Written as both clients write it.
    let streams = body.contains(r#""stream":true"#) || body.contains(r#""stream": true"#);
    if !streams {
        let said = r#"{"role":"assistant","content":"hello there"}"#;
        let choice = format!(r#"{{"index":0,"message":{said},"finish_reason":"stop"}}"#);
        let text = format!(r#"{{{HEAD},"object":"chat.completion","choices":[{choice}],{USAGE}}}"#);
        return ([(CONTENT_TYPE, "application/json")], text).into_response();
    }
    let chunk = |rest: &str| format!("data: {{{HEAD},\"object\":\"chat.completion.chunk\",{rest}}}\n\n");
    let said = r#"{"role":"assistant","content":"hello there"}"#;
    let text = [
        chunk(&format!(r#""choices":[{{"index":0,"delta":{said},"finish_reason":null}}]"#)),
        chunk(r#""choices":[{"index":0,"delta":{},"finish_reason":"stop"}]"#),
        chunk(&format!(r#""choices":[],{USAGE}"#)),
        "data: [DONE]\n\n".to_owned(),
    ];
    ([(CONTENT_TYPE, "text/event-stream")], text.concat()).into_response()
}
