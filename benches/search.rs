//! Searching a large tree: in Python, with the Rust extension, and with `rg`.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Map;
use tokio::runtime::Runtime;

use omni::app::{App, Choices};
use omni::kernel::{Interpreter, Kernel};
use omni::message::{Arguments, Block, ToolCall};
use omni::skill::Manifest;
use omni::tool::{Scope, Settings, Toolbox};

use super::measure::median;
use super::table::{Report, Row};
use super::world::{World, time, write};

const FOLDERS: usize = 600;
const FILES: usize = 100;
const LINES: usize = 20;
/// One file in so many has what is looked for.
const RARE: usize = 1000;
const ROUNDS: usize = 7;

/// What is looked for, and whether it is a regular expression.
const QUESTIONS: [(&str, bool); 2] = [("needle in here", false), (r"ne+dle\s+\w+ here$", true)];

/// Grows the tree, builds the extension, and searches.
pub fn run(world: &World) -> Result<Report> {
    let tree = world.path("tree");
    grow(&tree)?;
    let began = Instant::now();
    time(&mut world.omni(&["skill", "build", "fs"]))?;
    let built = began.elapsed();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let rust = Engine::new(&runtime, &tree, true)?;
    let python = Engine::new(&runtime, &tree, false)?;
    let rg = Command::new("rg").arg("--version").output().is_ok_and(|output| output.status.success());
    let mut report = Report::default();
    for (text, is_regex) in QUESTIONS {
        let (mut ours, mut plain, mut peer) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..=ROUNDS {
            let (found, took) = rust.search(&runtime, text, is_regex)?;
            let (same, slower) = python.search(&runtime, text, is_regex)?;
            ensure!(found == same, "the engines disagree on `{text}`:\n{found}\n{same}");
            let beside = if rg { Some(ripgrep(&tree, text, is_regex, found.lines().count())?) } else { None };
            if round > 0 {
                ours.push(milliseconds(took));
                plain.push(milliseconds(slower));
                peer.extend(beside.map(milliseconds));
            }
        }
        let ratio = |others: &[f64]| median(ours.iter().zip(others).map(|(ours, other)| ours / other));
        let what = if is_regex { "an expression" } else { "a text" };
        let what = format!("`fs.search` for {what} in {} files, Rust extension", FOLDERS * FILES);
        let row = Row::new(what.clone(), format!("{:.0} ms", median(ours.clone())));
        report.rows.push(
            row.beside(format!("Python: {:.0} ms", median(plain.clone())), format!("{:.2}", ratio(&plain))),
        );
        let row = Row::new(what, format!("{:.0} ms", median(ours.clone())));
        report.rows.push(match rg {
            true => {
                row.beside(format!("`rg`: {:.0} ms", median(peer.clone())), format!("{:.2}", ratio(&peer)))
            }
            false => row.beside("`rg` is not installed", "–"),
        });
    }
    let row =
        Row::new("`omni skill build fs`, crates at hand or not", format!("{:.0} s", built.as_secs_f64()));
    report.rows.push(row);
    Ok(report)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// A repository of some programming, with files that git leaves out.
fn grow(tree: &Path) -> Result<()> {
    write(&tree.join(".gitignore"), "*.log\n/build/\n")?;
    for folder in 0..FOLDERS {
        let place = tree.join(format!("part-{:02}/group-{:02}", folder / 20, folder % 20));
        std::fs::create_dir_all(&place)?;
        for file in 0..FILES {
            let number = folder * FILES + file;
            let mut text = String::new();
            for line in 0..LINES {
                text.push_str(&format!("    let value_{line} = compute({number}, {line}); // step {line}\n"));
            }
            if number.is_multiple_of(RARE) {
                text.push_str("    // a needle in here\n");
            }
            std::fs::write(place.join(format!("file_{file:02}.rs")), text)?;
        }
        std::fs::write(place.join("noise.log"), "a needle in here\n")?;
    }
    time(Command::new("git").args(["init", "--quiet"]).current_dir(tree)).map(drop)
}

/// `fs.search` with one of its engines.
struct Engine {
    toolbox: Arc<Toolbox>,
    scope: Arc<Scope>,
}

impl Engine {
    fn new(runtime: &Runtime, tree: &Path, with_library: bool) -> Result<Self> {
        let app = App::load(Choices::default(), Interpreter::Embedded)?;
        let mut manifest = Manifest::clone(&*runtime.block_on(app.manifest())?);
        for extension in manifest.skills.iter_mut().flat_map(|skill| &mut skill.extensions) {
            ensure!(extension.built.is_some(), "the extension is not built");
            extension.built = extension.built.take().filter(|_| with_library);
        }
        // Another version, since both are in one process.
        let kernel = Kernel::new(Interpreter::Embedded, &Manifest::default(), app.paths.data.clone());
        runtime.block_on(kernel.replace(&manifest));
        let settings =
            Settings { result_bytes: 1 << 20, ..Settings::new(&app.loaded.config, &app.paths, false)? };
        Ok(Self {
            toolbox: Arc::new(Toolbox::new(vec![Arc::new(kernel)], settings)),
            scope: Arc::new(Scope::new(tree)),
        })
    }

    fn search(&self, runtime: &Runtime, text: &str, regex: bool) -> Result<(String, Duration)> {
        let arguments =
            Map::from_iter([("text".to_owned(), text.into()), ("regex".to_owned(), regex.into())]);
        let arguments = Arguments::Object(arguments);
        let call = ToolCall { id: "search".to_owned(), name: "fs__search".to_owned(), arguments };
        let began = Instant::now();
        let output =
            runtime.block_on(self.toolbox.call(call, &self.scope)).map_err(|error| anyhow!("{error}"))?;
        let took = began.elapsed();
        let Some(Block::Text { text, .. }) = output.content.first() else {
            return Err(anyhow!("no text: {output:?}"));
        };
        ensure!(text.lines().count() == FOLDERS * FILES / RARE, "not all was found:\n{text}");
        Ok((text.clone(), took))
    }
}

/// The same search by `rg`, which does not put its matches in order.
fn ripgrep(tree: &Path, text: &str, regex: bool, expected: usize) -> Result<Duration> {
    let mut command = Command::new("rg");
    command.args(["--hidden", "--no-config", "--line-number"]).current_dir(tree);
    if !regex {
        command.arg("--fixed-strings");
    }
    let began = Instant::now();
    let output = command.args(["--regexp", text, "."]).output().context("cannot run `rg`")?;
    let took = began.elapsed();
    let found = String::from_utf8_lossy(&output.stdout).lines().count();
    ensure!(found == expected, "`rg` found {found} lines, and not {expected}");
    Ok(took)
}
