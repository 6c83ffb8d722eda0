//! `omni memory eval`: how well the memory finds and learns, without a model.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;

use super::error::{Failure, code};
use super::ui::Screen;
use crate::app::App;
use crate::llm::{self, embed::Embedder};
use crate::memory::evolve::{self, Rule, Run, Stream, World, mean, within};
use crate::memory::locomo::{self, Answer, Category, METHODS, Method, TUNED_ON};
use crate::memory::{Error, Memory, Settings};
use crate::store::Store;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Eval {
    /// Play a stream of tasks with a simulated agent
    ///
    /// PATH is a file of tasks of LifelongAgentBench, with `instruction` and `skill_list` in each. A
    /// stream is played on a memory of its own in a temporary folder, once for each rule and seed.
    Evolve {
        /// The file of tasks
        path: PathBuf,
        /// What happens on the way
        #[arg(long, default_value = "transfer", value_parser = ["transfer", "shift", "poison", "noise"])]
        stream: String,
        /// The first seed
        #[arg(long, default_value_t = 400)]
        seed: u64,
        /// How many seeds, each a stream of its own
        #[arg(long, default_value_t = 10)]
        seeds: u64,
        /// Tasks in a stream
        #[arg(long, default_value_t = 1500)]
        turns: usize,
        /// The rules to compare; differences are to the last of them
        #[arg(long, value_delimiter = ',', default_value = "nothing,similar,paper,paper-wide,ours", value_parser = RULES)]
        rules: Vec<String>,
    },
    /// Ask questions about long conversations and look for the turns that answer them
    ///
    /// PATH is `locomo10.json` of snap-research/LoCoMo. Each conversation has a memory of its own in
    /// a temporary folder.
    Locomo {
        /// The file of conversations
        path: PathBuf,
    },
}

const RULES: [&str; 10] = [
    "nothing",
    "similar",
    "paper",
    "paper-wide",
    "ours",
    "no-prior",
    "no-probation",
    "no-fading",
    "all-credit",
    "meaning",
];

pub(super) async fn run(eval: Eval, app: &App, screen: &Screen) -> Result<u8, Failure> {
    let embedder = app.embedder()?.map(|embedder| Arc::new(Once::new(embedder)) as Arc<dyn Embedder>);
    let bench = Bench { settings: Settings::from(&app.loaded.config.memory), embedder };
    let course = |world, stream, turns| Course { world, stream, turns, bench: bench.clone() };
    match eval {
        Eval::Evolve { path, stream, seed, seeds, turns, rules } => {
            let world = Arc::new(World::read(&text(&path)?).map_err(|reason| cannot(&path, &reason))?);
            evolve(&course(world, named(&stream), turns), &rules, seed..seed + seeds, screen).await
        }
        Eval::Locomo { path } => {
            let talks = locomo::read(&text(&path)?).map_err(|reason| cannot(&path, &reason))?;
            locomo(talks, &bench, screen).await
        }
    }
}

fn text(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| cannot(path, &error.to_string()))
}

fn cannot(path: &Path, reason: &str) -> Failure {
    Failure::new(code::USAGE, format!("cannot use `{}`: {reason}", path.display()))
}

/// The value of this name; clap has checked it.
fn named<T: serde::de::DeserializeOwned>(name: &str) -> T {
    serde_json::from_value(name.into()).expect("one of the names that are allowed")
}

/// As many things at once as there are processors.
fn crowd() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What memories are made with.
#[derive(Clone)]
struct Bench {
    settings: Settings,
    embedder: Option<Arc<dyn Embedder>>,
}

impl Bench {
    /// Does something with a memory of its own, in a temporary folder.
    async fn with_memory<T>(
        &self,
        settings: Settings,
        work: impl AsyncFnOnce(&Memory) -> Result<T, Error>,
    ) -> Result<T, Failure> {
        let folder = tempfile::tempdir()?;
        let store = Store::open(None, folder.path()).await?;
        let memory = Memory::new(store.clone(), folder.path(), settings);
        let memory = match &self.embedder {
            Some(embedder) => memory.with_embedder(embedder.clone()),
            None => memory,
        };
        let done = work(&memory).await;
        store.close().await;
        Ok(done?)
    }
}

/// Makes the vector of a text once: the same texts come again in every stream.
#[derive(Debug)]
struct Once {
    embedder: Arc<dyn Embedder>,
    made: Mutex<HashMap<String, Vec<f32>>>,
}

impl Once {
    fn new(embedder: Arc<dyn Embedder>) -> Self {
        Self { embedder, made: Mutex::default() }
    }

    fn made(&self) -> MutexGuard<'_, HashMap<String, Vec<f32>>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Embedder for Once {
    fn identity(&self) -> &str {
        self.embedder.identity()
    }

    fn along(&self) -> usize {
        self.embedder.along()
    }

    async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, llm::Error> {
        let new: Vec<String> = {
            let made = self.made();
            texts.iter().filter(|text| !made.contains_key(*text)).cloned().collect()
        };
        if !new.is_empty() {
            let vectors = self.embedder.embed(&new).await?;
            self.made().extend(new.into_iter().zip(vectors));
        }
        let made = self.made();
        Ok(texts.iter().map(|text| made[text].clone()).collect())
    }
}

/// What is played.
#[derive(Clone)]
struct Course {
    world: Arc<World>,
    stream: Stream,
    turns: usize,
    bench: Bench,
}

impl Course {
    async fn play(self, rule: Rule, seed: u64) -> Result<Run, Failure> {
        let Self { world, stream, turns, bench } = self;
        let play = async |memory: &Memory| evolve::run(&world, memory, stream, rule, turns, seed).await;
        bench.with_memory(rule.settings(bench.settings), play).await
    }
}

/// Plays each rule on each seed and says how often the agent succeeded, with the interval that
/// has the mean of all seeds in it 19 times out of 20.
async fn evolve(
    course: &Course,
    rules: &[String],
    seeds: std::ops::Range<u64>,
    screen: &Screen,
) -> Result<u8, Failure> {
    let mut played: Vec<(&str, Vec<Run>)> = Vec::new();
    for name in rules {
        let runs = seeds.clone().map(|seed| {
            let play = course.clone().play(named(name), seed);
            async move { tokio::spawn(play).await.expect("a run does not panic") }
        });
        let runs = stream::iter(runs).buffered(crowd()).try_collect().await?;
        played.push((name, runs));
    }
    let of = |runs: &[Run], part: fn(&Run) -> f64| runs.iter().map(part).collect::<Vec<f64>>();
    let last = played.last().map(|(_, runs)| of(runs, |run| run.success)).unwrap_or_default();
    for (rule, runs) in &played {
        let success = of(runs, |run| run.success);
        let less: Vec<f64> = success.iter().zip(&last).map(|(one, other)| one - other).collect();
        let part = |part: fn(&Run) -> f64| mean(&of(runs, part));
        let (quarter, regret) = (part(|run| run.last), part(|run| run.regret));
        let (misleading, shown) = (part(|run| run.misleading), part(|run| run.shown));
        match screen.json {
            true => screen.value(&json!({"rule": rule, "seeds": runs.len(), "success": mean(&success), "within": within(&success), "last": quarter, "regret": regret, "misleading": misleading, "shown": shown, "difference": mean(&less), "difference_within": within(&less)}))?,
            false => screen.line(&format!(
                "{rule:12} success {:.3} ± {:.3}  last quarter {quarter:.3}  regret {regret:.3}  misleading {misleading:.3}  shown {shown:.2}  {:+.3} ± {:.3}",
                mean(&success), within(&success), mean(&less), within(&less)
            ))?,
        }
    }
    Ok(code::OK)
}

/// Asks all questions and says how much of their evidence was found.
async fn locomo(talks: Vec<locomo::Conversation>, bench: &Bench, screen: &Screen) -> Result<u8, Failure> {
    let asked = talks.into_iter().map(|talk| {
        let bench = bench.clone();
        let ask = async move {
            let settings = bench.settings;
            let answers =
                bench.with_memory(settings, async |memory: &Memory| locomo::run(&talk, memory).await).await?;
            Ok::<_, Failure>((talk.id, answers))
        };
        async move { tokio::spawn(ask).await.expect("a run does not panic") }
    });
    let asked: Vec<(String, Vec<Answer>)> = stream::iter(asked).buffered(crowd()).try_collect().await?;
    for method in METHODS {
        let all = |keep: &dyn Fn(&str, &Answer) -> bool| -> Vec<Answer> {
            let answers = asked.iter().flat_map(|(talk, answers)| {
                answers.iter().filter(move |answer| answer.method == method && keep(talk, answer))
            });
            answers.copied().collect()
        };
        if all(&|_, _| true).is_empty() {
            continue;
        }
        // Conversations differ more than questions do.
        let each: Vec<f64> = asked
            .iter()
            .map(|(talk, _)| mean_of(&all(&|other, _| other == talk), |answer| answer.recall[1]))
            .collect();
        row(screen, method, "all", &all(&|_, _| true), Some(within(&each)))?;
        row(screen, method, "test", &all(&|talk, _| !TUNED_ON.contains(&talk)), None)?;
        for category in [
            Category::SingleHop,
            Category::MultiHop,
            Category::Temporal,
            Category::OpenDomain,
            Category::Adversarial,
        ] {
            let answers = all(&|_, answer| answer.category == category);
            row(screen, method, &format!("{category:?}"), &answers, None)?;
        }
    }
    Ok(code::OK)
}

fn mean_of(answers: &[Answer], part: impl Fn(&Answer) -> f64) -> f64 {
    mean(&answers.iter().map(part).collect::<Vec<f64>>())
}

fn row(
    screen: &Screen,
    method: Method,
    of: &str,
    answers: &[Answer],
    within: Option<f64>,
) -> Result<(), Failure> {
    let [r5, r10, r20] = std::array::from_fn(|depth| mean_of(answers, |answer| answer.recall[depth]));
    let (mrr, ndcg) = (mean_of(answers, |answer| answer.reciprocal), mean_of(answers, |answer| answer.gain));
    let count = answers.len();
    if screen.json {
        return Ok(screen.value(&json!({"method": method, "of": of, "questions": count, "recall@5": r5, "recall@10": r10, "recall@20": r20, "mrr": mrr, "ndcg@10": ndcg, "recall@10_within": within}))?);
    }
    let within = within.map_or(String::new(), |within| format!(" ± {within:.3}"));
    let method = format!("{method:?}").to_lowercase();
    Ok(screen.line(&format!(
        "{method:10} {of:11} {count:5} questions  R@5 {r5:.3}  R@10 {r10:.3}{within}  R@20 {r20:.3}  MRR {mrr:.3}  nDCG@10 {ndcg:.3}"
    ))?)
}
