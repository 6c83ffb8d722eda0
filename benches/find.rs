//! Which tools natural questions find: `tests/find`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use async_trait::async_trait;
use futures::FutureExt;
use serde_json::Value;

use omni::llm::embed::Embedder;
use omni::llm::encoder::Encoder;
use omni::tool::meaning::Meanings;
use omni::tool::{Call, Error, Output, Policy, Settings, Spec, Toolbox, Toolset};

use super::measure::median;
use super::table::{Report, Row};
use super::world::World;

const ROUNDS: usize = 5;

struct Listed(Vec<Arc<Spec>>);

#[async_trait]
impl Toolset for Listed {
    fn specs(&self) -> Vec<Arc<Spec>> {
        self.0.clone()
    }

    async fn call(&self, _: Call) -> Result<Output, Error> {
        Err(Error::Failed("nobody calls it".to_owned()))
    }
}

/// Asks every question, and sees at which place its tool comes.
pub fn run(world: &World) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut report = Report::default();
    report.rows.extend(runtime.block_on(asked(world, None))?);
    if let Some(encoder) = super::memory::encoder(world)? {
        report.rows.extend(runtime.block_on(asked(world, Some(encoder)))?);
    }
    Ok(report)
}

/// What tools mean to an encoder.
fn meanings(world: &World, encoder: Encoder) -> Arc<Meanings> {
    let identity = encoder.identity().to_owned();
    let encode = move |texts: Vec<String>| {
        let encoder = encoder.clone();
        async move { encoder.embed(&texts).await.ok() }.boxed()
    };
    Arc::new(Meanings::new(&identity, &world.path("meanings"), Arc::new(encode)))
}

/// By words alone, or by meaning as well.
async fn asked(world: &World, encoder: Option<Encoder>) -> Result<Vec<Row>> {
    let (by, rounds) = if encoder.is_some() { (", and by meaning", 1) } else { ("", ROUNDS) };
    let read = |name: &str| std::fs::read_to_string(world.root.join("tests/find").join(name));
    let mut specs = Vec::new();
    for line in read("tools.jsonl")?.lines() {
        let tool: Value = serde_json::from_str(line)?;
        let text = |key: &str| tool[key].as_str().map(str::to_owned).context("a tool without words");
        let (name, description) = (text("name")?, text("description")?);
        specs.push(Arc::new(Spec { name, description, input: tool["input"].clone(), ..Spec::default() }));
    }
    let meanings = encoder.map(|encoder| meanings(world, encoder));
    let settings = Settings {
        policy: Policy::default(),
        timeout: Duration::ZERO,
        idle_timeout: Duration::ZERO,
        result_bytes: 0,
        results: None,
        audit: None,
        meanings: meanings.clone(),
    };
    let toolbox = Toolbox::new(vec![Arc::new(Listed(specs))], settings);
    let (names, questions) = (toolbox.definitions(), read("questions.txt")?);
    // So that the first question does not pay for the index, nor for the meanings of tools.
    let began = Instant::now();
    toolbox.rank(&["a first question"]).await;
    let mut rows = Vec::new();
    if let Some(meanings) = meanings {
        while meanings.is_reading() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let took = began.elapsed().as_secs_f64();
        rows.push(Row::new(format!("to read what {} tools mean, once", names.len()), format!("{took:.1} s")));
    }
    // The words that count as alike were chosen with the odd ones.
    for (half, label) in [(0, "chosen with"), (1, "the test")] {
        let (mut first, mut five, mut all, mut times) = (0.0, 0.0, 0.0, Vec::new());
        for (_, line) in questions.lines().enumerate().filter(|(number, _)| number % 2 == half) {
            let (answers, question) = line.split_once(" | ").context("a line is `tools | question`")?;
            let mut found = Vec::new();
            for _ in 0..rounds {
                let began = Instant::now();
                found = toolbox.rank(&[question]).await.remove(0);
                times.push(began.elapsed().as_secs_f64() * 1e6);
            }
            let is_it = |at: &usize| answers.split(", ").any(|answer| answer == names[*at].name);
            let place = found.iter().position(is_it);
            all += 1.0;
            first += f64::from(place == Some(0));
            five += f64::from(place.is_some_and(|place| place < 5));
        }
        let what = format!("the right tool of {}{by}, {all} questions, {label}", names.len());
        let shares = format!("first {:.3}, among five {:.3}", first / all, five / all);
        rows.push(Row::new(what, shares));
        if half == 1 {
            let time = median(times);
            rows.push(Row::new(format!("to rank them by a question{by}"), format!("{time:.0} µs")));
        }
    }
    Ok(rows)
}
