//! Whole processes, and what a conversation costs the disk.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use omni::message::Message;
use omni::session::{Entry, Sessions};
use omni::store::Store;

use super::measure::median;
use super::sdk::Pipes;
use super::table::{Report, Row};
use super::world::{World, time, write};

const ROUNDS: usize = 15;
/// Rounds of what takes a second.
const LONG_ROUNDS: usize = 5;
/// Messages of one round.
const MESSAGES: usize = 300;

/// Times all of it.
pub fn run(world: &World) -> Result<Report> {
    let mut report = processes(world)?;
    report.extend(cold(world)?);
    report.extend(editors(world)?);
    report.extend(append(world)?);
    Ok(report)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// What needs no Python, what starts it, and turns with and without a tool.
fn processes(world: &World) -> Result<Report> {
    time(&mut world.omni(&["sync"]))?;
    let told = world.path("told.jsonl");
    write(&told, &format!("{}\n", json!({"text": "It is late.", "loop": true})))?;
    let asked = world.path("asked.jsonl");
    let call = json!({"calls": [{"name": "time__now", "arguments": {}}]});
    write(&asked, &format!("{call}\n{}\n", json!({"text": "It is late."})))?;
    let told = format!("scripted:{}", told.display());
    let asked = format!("scripted:{}", asked.display());
    let mut bare = Command::new(&world.python);
    bare.args(["-I", "-S", "-c", "pass"]).stdin(Stdio::null());
    let mut commands = [
        world.omni(&["--help"]),
        world.omni(&["tool", "call", "time.now"]),
        world.omni(&["--model", &told, "ask", "what time is it?"]),
        world.omni(&["--model", &asked, "ask", "what time is it?"]),
        bare,
    ];
    let mut times: [Vec<f64>; 5] = Default::default();
    for round in 0..=ROUNDS {
        for (command, times) in commands.iter_mut().zip(&mut times) {
            let took = milliseconds(time(command)?);
            if round > 0 {
                times.push(took);
            }
        }
    }
    let over = |a: usize| median(times[a].iter().zip(&times[4]).map(|(a, bare)| a / bare));
    let ratios = [over(0), over(1), over(2), over(3)];
    let names = [
        "`omni --help`",
        "`omni tool call time.now`, a process that starts Python",
        "`omni ask`, a process, one scripted reply",
        "`omni ask`, a process, a scripted call of `time.now` and a reply",
    ];
    let [help, call, plain, tool, bare] = times.map(median);
    let mut report = Report::default();
    for ((name, ours), ratio) in names.into_iter().zip([help, call, plain, tool]).zip(ratios) {
        let row = Row::new(name, format!("{ours:.1} ms"));
        report.rows.push(row.beside(format!("`python -I -S -c pass`: {bare:.1} ms"), format!("{ratio:.2}")));
    }
    Ok(report)
}

/// From nothing to the first result: ours with no index at all, the peer's server and one call.
fn cold(world: &World) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (mut syncs, mut calls, mut peers) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..LONG_ROUNDS {
        let home = world.path(&format!("cold-{round}"));
        syncs.push(milliseconds(time(world.omni(&["sync"]).env("OMNI_HOME", &home))?));
        let call = &["tool", "call", "time.now"];
        calls.push(milliseconds(time(world.omni(call).env("OMNI_HOME", &home))?));
        let began = Instant::now();
        runtime.block_on(async { Pipes::start(world).await?.once().await })?;
        peers.push(milliseconds(began.elapsed()));
    }
    let ratio = median(calls.iter().zip(&peers).map(|(ours, peer)| peer / ours));
    let mut report = Report::default();
    let sync =
        Row::new("`omni sync`, the very first one, built-in skills", format!("{:.0} ms", median(syncs)));
    report.rows.push(sync);
    let name = "`omni tool call time.now` beside starting a server of the SDK and one call";
    let row = Row::new(name, format!("{:.0} ms", median(calls)));
    report.rows.push(row.beside(format!("{:.0} ms", median(peers)), format!("1/{ratio:.1}")));
    Ok(report)
}

/// The agent of an editor, from the start of its process to the answer to `initialize`, beside one that is native, too.
fn editors(world: &World) -> Result<Report> {
    let home = world.path("editor");
    std::fs::create_dir_all(&home)?;
    let mut peer = Command::new(world.package("@zed-industries/codex-acp-linux-x64/bin/codex-acp")?);
    // It makes a folder of its own there.
    peer.env("HOME", &home).env("CODEX_HOME", &home);
    let mut commands = [world.omni(&["acp"]), peer];
    let mut times: [Vec<f64>; 2] = Default::default();
    for round in 0..=ROUNDS {
        for (command, times) in commands.iter_mut().zip(&mut times) {
            let took = milliseconds(greeted(command)?);
            if round > 0 {
                times.push(took);
            }
        }
    }
    let ratio = median(times[0].iter().zip(&times[1]).map(|(ours, theirs)| ours / theirs));
    let [ours, theirs] = times.map(median);
    let row = Row::new("`omni acp`, from its start to `initialize` answered", format!("{ours:.1} ms"));
    let row = row.beside(format!("codex-acp: {theirs:.1} ms"), format!("{ratio:.2}"));
    Ok(Report { rows: vec![row.promise("≤ 60 ms", ours <= 60.0)], ..Report::default() })
}

/// Starts an agent and waits for its first answer.
fn greeted(command: &mut Command) -> Result<Duration> {
    let hello = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": 1, "clientCapabilities": {},
    } });
    let began = Instant::now();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let (input, output) = (child.stdin.take(), child.stdout.take());
    writeln!(input.as_ref().context("it is piped")?, "{hello}")?;
    let mut answer = String::new();
    BufReader::new(output.context("it is piped")?).read_line(&mut answer)?;
    let took = began.elapsed();
    child.kill()?;
    child.wait()?;
    ensure!(answer.contains("\"protocolVersion\":1"), "{command:?} answered {answer:?}");
    Ok(took)
}

/// One message, one commit, on the disk before the next.
fn append(world: &World) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut command = world.peer("append.py");
    command.arg(world.path("peer.db")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let mut input = child.stdin.take().context("it is piped")?;
    let mut output = BufReader::new(child.stdout.take().context("it is piped")?);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..=LONG_ROUNDS {
        let (own, other) = (runtime.block_on(messages(world))?, peer(&mut input, &mut output)?);
        if round > 0 {
            ours.push(MESSAGES as f64 / own);
            theirs.push(MESSAGES as f64 / other);
        }
    }
    drop(input);
    child.wait()?;
    let ratio = median(ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs));
    let row = Row::new("durable messages a second, one commit each, SQLite", format!("{:.0}", median(ours)));
    let peer = format!("Python's `sqlite3`: {:.0}", median(theirs));
    Ok(Report { rows: vec![row.beside(peer, format!("{ratio:.2}"))], ..Report::default() })
}

/// Seconds that our messages take.
async fn messages(world: &World) -> Result<f64> {
    let store = Store::open(None, &world.path("data")).await?;
    let sessions = Sessions::new(store.clone());
    let mut session = sessions.create(&world.path("work"), jiff::Timestamp::now()).await?;
    let text = "How large is it? ".repeat(10);
    let began = Instant::now();
    for _ in 0..MESSAGES {
        let entry = Entry::Message(Message::user(text.as_str()));
        sessions.append(&mut session, "turn", vec![entry], jiff::Timestamp::now()).await?;
    }
    let took = began.elapsed().as_secs_f64();
    store.close().await;
    Ok(took)
}

/// Seconds that the peer's take.
fn peer(input: &mut ChildStdin, output: &mut BufReader<ChildStdout>) -> Result<f64> {
    writeln!(input, "{MESSAGES}")?;
    let mut line = String::new();
    output.read_line(&mut line)?;
    Ok(line.trim().parse()?)
}
