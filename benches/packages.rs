//! A skill that brings numpy: what its packages cost a start, and a process.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use serde_json::json;

use omni::app::{App, Choices};
use omni::kernel::{Interpreter, Kernel};
use omni::message::{Arguments, ToolCall};
use omni::skill::Manifest;
use omni::tool::{Settings, Toolbox};

use super::measure::median;
use super::table::{Report, Row};
use super::world::{World, time, write};

const ROUNDS: usize = 15;
/// Calls that have a process each.
const FORKS: usize = 50;

const BLOCK: &str = "# /// script\n# dependencies = [\"numpy\"]\n# ///\nimport numpy\n";
const TOOL: &str = "from omni import tool\n\n\n@tool(read_only=True)\ndef mean(values: list[float]) -> float:\n    \
    return float(numpy.mean(values))\n";
const VALUES: &str = r#"{"values": [1, 2, 6]}"#;

/// Installs it, which needs the network, and times all of it.
pub fn run(world: &World) -> Result<Report> {
    install(world, "numbers", "worker")?;
    install(world, "once-numbers", "oneshot")?;
    let mut report = starts(world)?;
    report.rows.push(forks(world)?);
    Ok(report)
}

fn install(world: &World, name: &str, isolation: &str) -> Result<Duration> {
    let skill = world.path("offers").join(name);
    let card =
        format!("---\nname: {name}\ndescription: Numbers.\nmetadata:\n  isolation: {isolation}\n---\n");
    write(&skill.join("SKILL.md"), &card)?;
    write(&skill.join("scripts/numbers.py"), &format!("{BLOCK}{TOOL}"))?;
    time(world.omni(&["skill", "install", "--yes"]).arg(skill))
}

/// The second start, beside the way in which a script with packages is usually run.
fn starts(world: &World) -> Result<Report> {
    let script = world.path("mean.py");
    write(&script, &format!("{BLOCK}assert numpy.mean([1, 2, 6]) == 3\n"))?;
    let uv = uv(&world.python);
    let peer = |more: &[&str]| {
        let mut command = Command::new(&uv);
        command
            .args(["run", "--quiet", "--no-project", "--python"])
            .arg(&world.python)
            .args(more)
            .arg(&script);
        command.stdin(Stdio::null());
        command
    };
    time(&mut peer(&["--script"]))?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let own = time(&mut world.omni(&["tool", "call", "numbers.mean", VALUES]))?;
        let other = time(&mut peer(&["--offline", "--script"]))?;
        if round > 0 {
            ours.push(own.as_secs_f64() * 1e3);
            theirs.push(other.as_secs_f64() * 1e3);
        }
    }
    let ratio = median(ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs));
    let (ours, theirs) = (median(ours), median(theirs));
    let name = "`omni tool call`, a process, a skill with numpy, offline";
    let row = Row::new(name, format!("{ours:.0} ms")).promise("< 300 ms", ours < 300.0);
    let row =
        row.beside(format!("`uv run --offline`, the same script: {theirs:.0} ms"), format!("{ratio:.2}"));
    Ok(Report { rows: vec![row], ..Report::default() })
}

/// A process that has numpy: forked, confined, its script loaded, one call.
fn forks(world: &World) -> Result<Row> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let app = App::load(Choices::default(), Interpreter::Embedded)?;
    let manifest = Manifest::clone(&*runtime.block_on(app.manifest())?);
    let kernel = Kernel::new(Interpreter::Embedded, &manifest, app.paths.data.clone());
    let program = world.omni(&[]).get_program().to_owned();
    let kernel = kernel.started_by(move || Ok(Command::new(&program)));
    let settings = Settings::new(&app.loaded.config, &app.paths, false)?;
    let toolbox = Arc::new(Toolbox::new(vec![Arc::new(kernel)], settings));
    let mut times = Vec::new();
    for round in 0..=FORKS {
        let arguments = Arguments::from(json!({"values": [1, 2, 6]}));
        let call = ToolCall { id: format!("call_{round}"), name: "once-numbers__mean".to_owned(), arguments };
        let began = Instant::now();
        runtime.block_on(toolbox.call(call, &Arc::new(app.scope()))).map_err(|error| anyhow!("{error}"))?;
        if round > 0 {
            times.push(began.elapsed().as_secs_f64() * 1e3);
        }
    }
    let took = median(times);
    let row =
        Row::new("a process forked with numpy in it, its script loaded, one call", format!("{took:.1} ms"));
    Ok(row.promise("< 20 ms", took < 20.0))
}

/// Beside that Python, or on PATH.
fn uv(python: &Path) -> PathBuf {
    let beside = python.with_file_name("uv");
    if beside.is_file() { beside } else { "uv".into() }
}
