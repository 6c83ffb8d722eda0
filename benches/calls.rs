//! One call of a tool that does nothing, on every way to it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde_json::{Map, Value};
use tokio::io::AsyncWriteExt;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use omni::app::{App, Choices};
use omni::kernel::{Interpreter, Kernel};
use omni::message::{Arguments, ToolCall};
use omni::skill::Manifest;
use omni::tool::{Audit, Scope, Settings, Toolbox};

use super::measure::{Sample, drive, median};
use super::sdk::{Http, Pipes};
use super::table::{Report, Row};
use super::world::{World, time, write};

const CALLERS: [usize; 4] = [1, 10, 100, 1000];
const ROUNDS: usize = 7;
const WARM_UP: usize = 1;
const TIME: Duration = Duration::from_millis(600);

/// A way to call the function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Attach,
    Bare,
    Tool,
    Unlogged,
    Soon,
    Worker,
    Oneshot,
    Process,
    Pipes,
    Http,
}

const WAYS: [(Way, &str); 10] = [
    (Way::Attach, "`Python::attach` on a thread of tokio"),
    (Way::Bare, "bare call through the tools' threads, JSON both ways"),
    (Way::Tool, "omni: the whole way through the toolbox"),
    (Way::Unlogged, "omni: the same, log switched off"),
    (Way::Soon, "omni: an `async def`"),
    (Way::Worker, "omni: in a worker, confined"),
    (Way::Oneshot, "omni: in a process for each call"),
    (Way::Process, "a new `python3` for each call, JSON both ways"),
    (Way::Pipes, "SDK for MCP over stdio"),
    (Way::Http, "SDK for MCP over HTTP"),
];

impl Way {
    /// Those that start a process for each call are at their end with ten callers.
    fn takes(self, callers: usize) -> bool {
        !matches!(self, Self::Oneshot | Self::Process) || callers <= 10
    }
}

/// Beside whom calls are made.
const COMPANY: [(&str, Option<&str>); 3] = [
    ("alone", None),
    ("beside one that sleeps", Some("sums__sleeps")),
    ("beside one that spins", Some("sums__spins")),
];

/// Sizes of a text that goes there and comes back.
const SIZES: [(usize, &str); 3] = [(38, "38 B"), (2 << 10, "2 KB"), (100 << 10, "100 KB")];

type Samples = BTreeMap<(Way, usize), Vec<Sample>>;

/// Plays all rounds.
pub fn run(world: &World) -> Result<Report> {
    let bench = Bench::new(world)?;
    let mut samples = Samples::new();
    let runtime = bench.runtime.handle().clone();
    let (mut pipes, http) = runtime.block_on(async {
        let http = Http::start(world).await?;
        anyhow::Ok((Pipes::start(world).await?, Arc::new(http)))
    })?;
    for round in 0..WARM_UP + ROUNDS {
        for callers in CALLERS {
            for (way, _) in WAYS.into_iter().filter(|(way, _)| way.takes(callers)) {
                let sample = match way {
                    Way::Attach => runtime.block_on(drive(callers, TIME, bench.attach()))?,
                    Way::Bare => runtime.block_on(drive(callers, TIME, bench.bare()))?,
                    Way::Tool => runtime.block_on(drive(callers, TIME, bench.tool("sums__add")))?,
                    Way::Unlogged => {
                        bench.unlogged.block_on(drive(callers, TIME, bench.tool("sums__add")))?
                    }
                    Way::Soon => runtime.block_on(drive(callers, TIME, bench.tool("sums__add_soon")))?,
                    Way::Worker => runtime.block_on(drive(callers, TIME, bench.tool("caged-sums__add")))?,
                    Way::Oneshot => runtime.block_on(drive(callers, TIME, bench.tool("once-sums__add")))?,
                    Way::Process => runtime.block_on(drive(callers, TIME, process(world)))?,
                    Way::Pipes => runtime.block_on(pipes.drive(callers, TIME))?,
                    Way::Http => runtime.block_on(http.drive(callers, TIME))?,
                };
                if round >= WARM_UP {
                    samples.entry((way, callers)).or_default().push(sample);
                }
            }
        }
    }
    let mut report = report(&samples);
    report.rows.extend(beside(&bench)?);
    report.rows.extend(sizes(&bench)?);
    Ok(report)
}

/// How long calls take while another tool of this process does not end.
fn beside(bench: &Bench) -> Result<Vec<Row>> {
    let mut samples = BTreeMap::<_, Vec<Sample>>::new();
    for round in 0..WARM_UP + ROUNDS {
        for (name, company) in COMPANY {
            let scope = Scope { cancel: CancellationToken::new(), ..Scope::clone(&bench.scope) };
            let cancel = scope.cancel.clone();
            let other = company.map(|tool| {
                let call = ToolCall {
                    id: "company".to_owned(),
                    name: tool.to_owned(),
                    arguments: Arguments::Object(Map::new()),
                };
                let (toolbox, scope) = (bench.toolbox.clone(), Arc::new(scope));
                bench.runtime.spawn(async move { toolbox.call(call, &scope).await })
            });
            // So that it has begun.
            std::thread::sleep(Duration::from_millis(20));
            let sample = bench.runtime.block_on(drive(10, TIME, bench.tool("sums__add")))?;
            let was_there = other.as_ref().is_none_or(|other| !other.is_finished());
            cancel.cancel();
            if let Some(other) = other {
                let ended = bench.runtime.block_on(other)?;
                ensure!(was_there, "it was not there any more: {ended:?}");
            }
            if round >= WARM_UP {
                samples.entry(name).or_default().push(sample);
            }
        }
    }
    let p99 = |name: &str| median(samples[name].iter().map(|sample| sample.p99));
    let row = |(name, company): (&'static str, Option<&str>)| {
        let row = Row::new(format!("p99 of a call, 10 callers, {name}"), format!("{:.1} µs", p99(name)));
        match company {
            None => row,
            Some(_) => row.beside(format!("alone: {:.1} µs", p99(COMPANY[0].0)), {
                let pairs = samples[name].iter().zip(&samples[COMPANY[0].0]);
                format!("{:.1}", median(pairs.map(|(ours, alone)| ours.p99 / alone.p99)))
            }),
        }
    };
    Ok(COMPANY.into_iter().map(row).collect())
}

/// How long calls take that carry a text both ways.
fn sizes(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (size, name) in SIZES {
        let mut samples = Vec::new();
        for round in 0..WARM_UP + ROUNDS {
            let inside = bench.runtime.block_on(drive(1, TIME / 3, bench.echo("sums__echo", size)))?;
            let worker = bench.runtime.block_on(drive(1, TIME / 3, bench.echo("caged-sums__echo", size)))?;
            if round >= WARM_UP {
                samples.push((inside, worker));
            }
        }
        let of = |pick: fn(&(Sample, Sample)) -> f64| median(samples.iter().map(pick));
        let (inside, worker) = (of(|(inside, _)| inside.p50), of(|(_, worker)| worker.p50));
        rows.push(
            Row::new(
                format!("p50 of a call in a worker with {name} both ways, 1 caller"),
                format!("{worker:.1} µs"),
            )
            .beside(
                format!("in-process: {inside:.1} µs"),
                format!("{:.1}", of(|(inside, worker)| worker.p50 / inside.p50)),
            ),
        );
    }
    Ok(rows)
}

/// The same function in a process that is started for it, which reads and writes JSON.
fn process(
    world: &World,
) -> impl Fn() -> futures::future::BoxFuture<'static, Result<()>> + Clone + Send + 'static {
    const SCRIPT: &str =
        "import json, sys; a = json.load(sys.stdin); json.dump({'sum': a['a'] + a['b']}, sys.stdout)";
    let python = world.python.clone();
    move || {
        let python = python.clone();
        Box::pin(async move {
            let mut command = tokio::process::Command::new(python);
            command.args(["-I", "-S", "-c", SCRIPT]).kill_on_drop(true);
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
            let mut input = child.stdin.take().context("it is piped")?;
            input.write_all(br#"{"a": 1, "b": 2}"#).await?;
            drop(input);
            let output = child.wait_with_output().await?;
            let answer: Value = serde_json::from_slice(&output.stdout)?;
            ensure!(answer["sum"] == 3, "a wrong answer: {answer}");
            Ok(())
        })
    }
}

/// Everything of ours that a round needs.
struct Bench {
    /// As the program has it, and its log.
    runtime: Runtime,
    /// The same, where nobody hears what is logged.
    unlogged: Runtime,
    kernel: Arc<Kernel>,
    toolbox: Arc<Toolbox>,
    scope: Arc<Scope>,
    function: Arc<(Py<PyAny>, Py<PyDict>)>,
    plain: Arc<Py<PyAny>>,
}

impl Bench {
    fn new(world: &World) -> Result<Self> {
        let skills = world.root.join("benches/skills");
        let folder = skills.to_str().context("the package is in a folder with a UTF-8 name")?;
        let more = [variant(world, "caged-sums", "worker")?, variant(world, "once-sums", "oneshot")?];
        let mut sync = world.omni(&["--skills", folder]);
        more.iter().for_each(|skill| {
            sync.arg("--skills").arg(skill);
        });
        time(sync.arg("sync"))?;
        let choices =
            Choices { skills: std::iter::once(skills.clone()).chain(more).collect(), ..Choices::default() };
        let app = App::load(choices, Interpreter::Embedded)?;
        ensure!(app.log(false), "the log is not written");
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let deaf = || std::mem::forget(tracing::dispatcher::set_default(&tracing::Dispatch::none()));
        let unlogged =
            tokio::runtime::Builder::new_multi_thread().enable_all().on_thread_start(deaf).build()?;
        let mut manifest = Manifest::clone(&*runtime.block_on(app.manifest())?);
        manifest.skills.iter_mut().for_each(|skill| skill.trusted = true);
        let kernel = Kernel::new(Interpreter::Embedded, &manifest, app.paths.data.clone());
        let program = || Ok(std::process::Command::new(env!("CARGO_BIN_EXE_omni")));
        let kernel = Arc::new(kernel.started_by(program));
        let mut settings = Settings::new(&app.loaded.config, &app.paths, false)?;
        settings.audit = Some(Arc::new(Audit::new(std::fs::File::create(world.path("audit.jsonl"))?)));
        let toolbox = Arc::new(Toolbox::new(vec![kernel.clone()], settings));
        let mut scope = app.scope();
        scope.session = Some("0198c0de-0000-7000-8000-000000000000".to_owned());
        scope.turn = Some("0198c0de-0000-7000-8000-000000000001".to_owned());
        let function = runtime.block_on(kernel.attached(move |py| function(py, &skills)))??;
        let plain = Arc::new(Python::attach(|py| function.0.clone_ref(py)));
        // No model reads these results.
        scope.whole = true;
        let (scope, function) = (Arc::new(scope), Arc::new(function));
        Ok(Self { runtime, unlogged, kernel, toolbox, scope, function, plain })
    }

    /// The function with arguments at hand, called where the caller is.
    fn attach(
        &self,
    ) -> impl Fn() -> futures::future::BoxFuture<'static, Result<()>> + Clone + Send + 'static {
        let function = self.function.clone();
        move || {
            let function = function.clone();
            Box::pin(async move {
                Python::attach(|py| call(py, &function))?;
                // So that callers take turns, as they do where there is something to wait for.
                tokio::task::yield_now().await;
                Ok(())
            })
        }
    }

    /// The function on a thread of the tools, JSON both ways.
    fn bare(&self) -> impl Fn() -> futures::future::BoxFuture<'static, Result<()>> + Clone + Send + 'static {
        let (kernel, function) = (self.kernel.clone(), self.plain.clone());
        move || {
            let (kernel, function) = (kernel.clone(), function.clone());
            Box::pin(async move {
                let arguments =
                    Map::from_iter([("a".to_owned(), Value::from(1)), ("b".to_owned(), Value::from(2))]);
                let result = kernel.bare(function, arguments).await?;
                ensure!(result["sum"].as_u64() == Some(3), "a wrong answer: {result}");
                Ok(())
            })
        }
    }

    /// As a model calls it.
    fn tool(
        &self,
        name: &'static str,
    ) -> impl Fn() -> futures::future::BoxFuture<'static, Result<()>> + Clone + Send + 'static {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let (toolbox, scope) = (self.toolbox.clone(), self.scope.clone());
        move || {
            let (toolbox, scope) = (toolbox.clone(), scope.clone());
            Box::pin(async move {
                let number = NUMBER.fetch_add(1, Relaxed);
                let arguments =
                    Map::from_iter([("a".to_owned(), number.into()), ("b".to_owned(), Value::from(1))]);
                let arguments = Arguments::Object(arguments);
                let call = ToolCall { id: format!("call_{number}"), name: name.to_owned(), arguments };
                let output = toolbox.call(call, &scope).await.map_err(|error| anyhow!("{name}: {error}"))?;
                let sum = output.structured.as_ref().and_then(|value| value["sum"].as_u64());
                ensure!(sum == Some(number + 1), "a wrong answer: {output:?}");
                Ok(())
            })
        }
    }
}

impl Bench {
    /// A text that goes there and comes back.
    fn echo(
        &self,
        name: &'static str,
        size: usize,
    ) -> impl Fn() -> futures::future::BoxFuture<'static, Result<()>> + Clone + Send + 'static {
        let (toolbox, scope, text) = (self.toolbox.clone(), self.scope.clone(), "x".repeat(size));
        move || {
            let (toolbox, scope, text) = (toolbox.clone(), scope.clone(), text.clone());
            Box::pin(async move {
                let arguments = Map::from_iter([("text".to_owned(), text.into())]);
                let call = ToolCall {
                    id: "echo".to_owned(),
                    name: name.to_owned(),
                    arguments: Arguments::Object(arguments),
                };
                let output = toolbox.call(call, &scope).await.map_err(|error| anyhow!("{name}: {error}"))?;
                ensure!(!output.content.is_empty(), "no answer");
                Ok(())
            })
        }
    }
}

/// The skill under another name, in another place.
fn variant(world: &World, name: &str, isolation: &str) -> Result<PathBuf> {
    let skill = world.path("skills").join(name);
    let card = format!("---\nname: {name}\ndescription: Adds.\nmetadata:\n  isolation: {isolation}\n---\n");
    write(&skill.join("SKILL.md"), &card)?;
    let script = std::fs::read_to_string(world.root.join("benches/skills/sums/scripts/sums.py"))?;
    write(&skill.join("scripts/sums.py"), &script)?;
    Ok(skill)
}

/// The plain function of the skill, and arguments for it.
fn function(py: Python<'_>, skills: &std::path::Path) -> PyResult<(Py<PyAny>, Py<PyDict>)> {
    let place = ("sums", skills.join("sums"), "scripts/sums.py");
    let module = py.import("omni.skill")?.call_method1("load", place)?;
    let arguments = PyDict::new(py);
    arguments.set_item("a", 1)?;
    arguments.set_item("b", 2)?;
    Ok((module.getattr("add")?.unbind(), arguments.unbind()))
}

fn call(py: Python<'_>, function: &(Py<PyAny>, Py<PyDict>)) -> PyResult<()> {
    let (function, arguments) = function;
    function.bind(py).call((), Some(arguments.bind(py))).map(drop)
}

/// The median over the rounds of what `pick` makes of two ways' samples.
fn compare(samples: &Samples, a: (Way, usize), b: (Way, usize), pick: fn(&Sample, &Sample) -> f64) -> f64 {
    median(samples[&a].iter().zip(&samples[&b]).map(|(a, b)| pick(a, b)))
}

fn report(samples: &Samples) -> Report {
    let p50 = |way, callers| median(samples[&(way, callers)].iter().map(|sample| sample.p50));
    let p99 = |way, callers| median(samples[&(way, callers)].iter().map(|sample| sample.p99));
    let rate = |way, callers| median(samples[&(way, callers)].iter().map(|sample| sample.rate));
    let slower = |a: &Sample, b: &Sample| a.p50 / b.p50;
    let faster = |a: &Sample, b: &Sample| b.p50 / a.p50;
    let mut report = Report::default();
    for callers in CALLERS {
        let ratio = compare(samples, (Way::Tool, callers), (Way::Bare, callers), slower);
        let ours = format!("{:.1} µs", p50(Way::Tool, callers));
        report.rows.push(
            Row::new(format!("p50 of a call, {}, beside a bare one", crowd(callers)), ours)
                .beside(format!("{:.1} µs", p50(Way::Bare, callers)), format!("{ratio:.2}"))
                .promise("≤ 2", ratio <= 2.0),
        );
    }
    for callers in CALLERS {
        let ratio = compare(samples, (Way::Tool, callers), (Way::Pipes, callers), faster);
        let ours = format!("{:.1} µs", p50(Way::Tool, callers));
        report.rows.push(
            Row::new(format!("p50 of a call, {}, beside the SDK over stdio", crowd(callers)), ours)
                .beside(format!("{:.0} µs", p50(Way::Pipes, callers)), format!("1/{ratio:.0}"))
                .promise("≤ 1/30", ratio >= 30.0),
        );
    }
    for callers in CALLERS {
        let ratio = compare(samples, (Way::Tool, callers), (Way::Http, callers), faster);
        let ours = format!("{:.1} µs", p50(Way::Tool, callers));
        report.rows.push(
            Row::new(format!("p50 of a call, {}, beside the SDK over HTTP", crowd(callers)), ours)
                .beside(format!("{:.0} µs", p50(Way::Http, callers)), format!("1/{ratio:.0}")),
        );
    }
    for callers in CALLERS {
        let ratio = compare(samples, (Way::Worker, callers), (Way::Bare, callers), slower);
        let ours = format!("{:.1} µs", p50(Way::Worker, callers));
        report.rows.push(
            Row::new(format!("p50 of a call in a worker, {}, beside a bare one", crowd(callers)), ours)
                .beside(format!("{:.1} µs", p50(Way::Bare, callers)), format!("{ratio:.2}"))
                .promise("≤ 6", ratio <= 6.0),
        );
    }
    let ours = rate(Way::Worker, 100);
    report.rows.push(
        Row::new("calls a second in workers, 100 callers", whole(ours)).promise("≥ 40 000", ours >= 40_000.0),
    );
    for callers in CALLERS {
        let ratio = compare(samples, (Way::Tool, callers), (Way::Pipes, callers), |a, b| a.rate / b.rate);
        let ours = rate(Way::Tool, callers);
        let row =
            Row::new(format!("calls a second, {}, beside the SDK over stdio", crowd(callers)), whole(ours))
                .beside(whole(rate(Way::Pipes, callers)), format!("{ratio:.0}"));
        report.rows.push(match callers {
            100 => row.promise("≥ 200 000", ours >= 200_000.0),
            _ => row,
        });
    }
    for (way, name) in WAYS {
        for callers in CALLERS.into_iter().filter(|callers| way.takes(*callers)) {
            let cpu = median(samples[&(way, callers)].iter().map(|sample| sample.cpu));
            let rate = whole(rate(way, callers));
            let times = [p50(way, callers), p99(way, callers), cpu].map(tenth);
            let [p50, p99, cpu] = times;
            report.calls.push([name.to_owned(), callers.to_string(), rate, p50, p99, cpu]);
        }
    }
    report
}

fn crowd(callers: usize) -> String {
    match callers {
        1 => "1 caller".to_owned(),
        many => format!("{many} callers"),
    }
}

fn tenth(value: f64) -> String {
    format!("{value:.1}")
}

/// A number with a thin grouping of its thousands.
fn whole(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}
