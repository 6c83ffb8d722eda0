//! What it takes to learn and to recall, by how much is remembered, beside other stores on the
//! same rows.

use std::fmt::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde_json::{Value, json};

use omni::config::Config;
use omni::memory::{Learning, Memory, Reader, Reward, Settings, Source, text};
use omni::store::Store;

use super::measure::{Begin, Sample};
use super::table::{Report, Row};
use super::world::World;

/// How much is remembered, and how long half of the recalls may take, in milliseconds.
const SIZES: [(usize, Option<f64>); 4] =
    [(1_000, None), (10_000, Some(8.0)), (100_000, Some(15.0)), (1_000_000, None)];
/// Rows that come in at once.
const CHUNK: usize = 20_000;
const QUESTIONS: usize = 300;
const TURNS: usize = 300;

pub fn run(world: &World) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut report = Report::default();
    for (size, limit) in SIZES {
        let rows = world.path(&format!("rows-{size}.jsonl"));
        std::fs::write(&rows, lines(0..size))?;
        let ours = runtime.block_on(measure(world, size))?;
        let peers = peers(world, size, &rows)?;
        std::fs::remove_file(&rows)?;
        let p50 = ours.recall.p50 / 1000.0;
        let row = Row::new(
            format!("recall among {size} episodes, p50 (p99)"),
            format!("{p50:.1} ms ({:.1} ms)", ours.recall.p99 / 1000.0),
        );
        let row = match limit {
            Some(limit) => row.promise(format!("≤ {limit} ms"), p50 <= limit),
            None => row,
        };
        report.rows.extend(beside(row, &ours, &peers));
        let learned = ours.learn.p50 / 1000.0;
        report.rows.push(
            Row::new(
                format!("learning a turn among {size} episodes, p50 (p99)"),
                format!("{learned:.2} ms ({:.2} ms)", ours.learn.p99 / 1000.0),
            )
            .promise("≤ 2 ms", learned <= 2.0),
        );
        report.rows.push(Row::new(
            format!("the first recall among {size} episodes of a process"),
            format!("{:.0} ms", ours.first.as_secs_f64() * 1000.0),
        ));
    }
    Ok(report)
}

/// A row for each peer that is installed.
fn beside(row: Row, ours: &Ours, peers: &[Value]) -> Vec<Row> {
    let times = peers.iter().filter_map(|peer| {
        let (name, p50) = (peer["name"].as_str()?, peer["p50"].as_f64()?);
        Some((format!("{name}: {:.1} ms", p50 / 1000.0), format!("{:.2}", ours.recall.p50 / p50)))
    });
    let times: Vec<_> = times.collect();
    if times.is_empty() {
        return vec![row];
    }
    let again = |(peer, ratio): &(String, String)| {
        let same = Row::new(row.what.clone(), row.ours.clone());
        Row { limit: row.limit.clone(), kept: row.kept, ..same }.beside(peer, ratio)
    };
    times.iter().map(again).collect()
}

struct Ours {
    recall: Sample,
    learn: Sample,
    /// With the table to be opened and read.
    first: Duration,
}

async fn measure(world: &World, size: usize) -> Result<Ours> {
    let data = world.path(&format!("memory-{size}"));
    let store = Store::open(None, &data).await?;
    // As it is by default, but that nothing is evicted.
    let settings = Settings { capacity: 0, ..Settings::from(&Config::default().memory) };
    let memory = Memory::new(store.clone(), &data, settings);
    for first in (0..size).step_by(CHUNK) {
        memory.import(&lines(first..size.min(first + CHUNK))).await?;
    }
    let memory = Memory::new(store.clone(), &data, settings);
    let (reader, cost) = (Reader::here("bench"), |text: &str| text.len() / 4);
    let began = Instant::now();
    memory.recall(&question(0), &reader, &cost).await?;
    let first = began.elapsed();

    let (mut times, begin, mut shown) = (Vec::new(), Begin::now()?, 0);
    for number in 1..=QUESTIONS {
        let began = Instant::now();
        let recall = memory.recall(&question(number), &reader, &cost).await?;
        times.push(began.elapsed());
        shown += recall.shown.len();
    }
    ensure!(shown > 0, "nothing was recalled among {size}");
    let recall = Sample::new(times, begin)?;

    let (mut times, begin) = (Vec::new(), Begin::now()?);
    for number in 0..TURNS {
        let id = format!("learned-{number}");
        let episode = serde_json::from_value(row(size + number)?)?;
        let learning = Learning {
            turn: id.clone(),
            session: "bench".to_owned(),
            asked: question(number),
            rewards: vec![(id, Reward::new(Source::Tools, 1.0))],
            episodes: vec![episode],
            ..Learning::default()
        };
        let began = Instant::now();
        let mut write = store.write().await?;
        memory.add(&mut write, &learning, Timestamp::now()).await?;
        write.commit().await?;
        times.push(began.elapsed());
        // What follows the reply is not waited for.
        memory.settle().await?;
    }
    let learn = Sample::new(times, begin)?;
    drop(memory);
    store.close().await;
    std::fs::remove_dir_all(&data)?;
    Ok(Ours { recall, learn, first })
}

/// Episodes as `omni memory export` prints them.
fn lines(numbers: std::ops::Range<usize>) -> String {
    let mut lines = String::new();
    for number in numbers {
        let line = row(number).expect("a row is JSON");
        writeln!(lines, "{line}").expect("a text takes all that is written");
    }
    lines
}

fn row(number: usize) -> Result<Value> {
    let id = format!("row-{number:08}");
    Ok(json!({
        "id": id, "kind": "episode", "scope": "person:here", "intent": said(number, 12),
        "experience": format!("then: {}, which worked ({number})", said(number.wrapping_mul(31) + 7, 24)),
        "outcome": "success", "trust": "inferred", "session": format!("s{}", number / 8), "turn": id,
        "created": Timestamp::from_second(1_700_000_000 + i64::try_from(number)?)?.to_string(),
    }))
}

/// What is asked has words of a row, and others.
fn question(number: usize) -> String {
    text::cut(&format!("{} {}", said(number * 3, 8), said(number * 7 + 1, 2)), 400)
}

/// Words as language has them: few are frequent, most are rare.
fn said(seed: usize, count: usize) -> String {
    let mut state = (seed as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = (0..count).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let uniform = (state >> 11) as f64 / (1u64 << 53) as f64;
        format!("w{:x}", (20_000f64.powf(uniform) as usize))
    });
    words.collect::<Vec<_>>().join(" ")
}

/// The same rows in other stores; those that are not installed are left out.
fn peers(world: &World, size: usize, rows: &std::path::Path) -> Result<Vec<Value>> {
    let mut command = world.peer("recall.py");
    command.arg(rows).arg(world.path(&format!("peers-{size}"))).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot start the peers")?;
    let questions: String = (1..=QUESTIONS).map(|number| question(number) + "\n").collect();
    std::io::Write::write_all(&mut child.stdin.take().context("it listens")?, questions.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "the peers failed");
    let text = String::from_utf8(output.stdout)?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}
