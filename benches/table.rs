//! The table, and the page it is kept in.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};

use super::world::World;

/// The page's text from this line on is made from runs.
const BEGIN: &str = "<!-- made by the runs -->\n";
/// What the name of a section follows.
const SECTION: &str = "## ";

/// What a run has found.
#[derive(Default)]
pub struct Report {
    /// What is promised or worth comparing.
    pub rows: Vec<Row>,
    /// More figures: way, callers, calls per second, p50, p99 and processor time in microseconds.
    pub calls: Vec<[String; 6]>,
}

/// One line of the table.
pub struct Row {
    /// What was done.
    pub what: String,
    /// How we did.
    pub ours: String,
    /// Who else, and how they did.
    pub peer: String,
    /// What is promised.
    pub limit: String,
    /// How we stand to the peer.
    pub ratio: String,
    /// Whether the promise is kept; `None` where nothing is promised.
    pub kept: Option<bool>,
}

impl Row {
    /// A line that promises nothing.
    pub fn new(what: impl Into<String>, ours: impl Into<String>) -> Self {
        let nothing = || "–".to_owned();
        Self {
            what: what.into(),
            ours: ours.into(),
            peer: nothing(),
            limit: nothing(),
            ratio: nothing(),
            kept: None,
        }
    }

    /// Beside a peer.
    pub fn beside(mut self, peer: impl Into<String>, ratio: impl Into<String>) -> Self {
        (self.peer, self.ratio) = (peer.into(), ratio.into());
        self
    }

    /// With a promise.
    pub fn promise(mut self, limit: impl Into<String>, kept: bool) -> Self {
        (self.limit, self.kept) = (limit.into(), Some(kept));
        self
    }
}

impl Report {
    /// Adds what another section has found.
    pub fn extend(&mut self, other: Self) {
        self.rows.extend(other.rows);
        self.calls.extend(other.calls);
    }

    /// All of it as markdown.
    pub fn page(&self) -> String {
        let verdict = |row: &Row| match row.kept {
            Some(true) => "kept",
            Some(false) => "**missed**",
            None => "–",
        };
        let rows = self.rows.iter().map(|row| {
            let cells = [&row.what, &row.ours, &row.peer, &row.limit, &row.ratio];
            let mut cells: Vec<String> = cells.into_iter().cloned().collect();
            cells.push(verdict(row).to_owned());
            cells
        });
        let header = ["what", "ours", "peer", "limit", "ratio", "verdict"];
        let mut page = table(&header, rows.collect());
        if !self.calls.is_empty() {
            page.push_str("\nEvery way to call:\n\n");
            let header = ["way", "callers", "calls/s", "p50 µs", "p99 µs", "CPU µs"];
            page.push_str(&table(&header, self.calls.iter().map(|row| row.to_vec()).collect()));
        }
        page
    }
}

/// A table in columns, which reads well with and without a renderer.
fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([header[column].chars().count(), 3]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let cells = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
    };
    let mut text = line(header.to_vec());
    let rules: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    text.push_str(&line(rules.iter().map(String::as_str).collect()));
    for row in &rows {
        text.push_str(&line(row.iter().map(String::as_str).collect()));
    }
    text
}

/// Where and when it ran.
pub struct Machine(Vec<String>);

impl Machine {
    /// Looks before the first round.
    pub fn look(world: &World) -> Result<Self> {
        let cores = std::thread::available_parallelism()?;
        let about = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = about.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let model = model.map_or("unknown", |(_, model)| model);
        let system = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let versions = "import platform, importlib.metadata as m; \
            print(platform.python_version(), '; SDK for MCP: mcp', m.version('mcp'), '; uvicorn', m.version('uvicorn'))";
        let peers = std::process::Command::new(&world.python).args(["-c", versions]).output()?;
        let peers = String::from_utf8_lossy(&peers.stdout).trim().replace(" ;", ";");
        Ok(Self(vec![
            jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
            format!("{cores} cores of {model}"),
            format!("{} {}", std::env::consts::OS, system.trim()),
            format!("omni {}; Python {peers}", env!("CARGO_PKG_VERSION")),
            format!("load before {}", load()),
        ]))
    }

    /// Looks again after the last one.
    pub fn done(mut self) -> String {
        self.0.push(format!("after {}", load()));
        self.0.join(", ")
    }
}

/// The load of the last minute, five minutes and fifteen minutes.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// Prints it.
pub fn print(page: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "\n{page}")?)
}

/// Puts a section into the page, in the place of its last run; what is before all of them is written by hand.
pub fn keep(file: &Path, name: &str, text: &str) -> Result<()> {
    let page = std::fs::read_to_string(file).with_context(|| format!("cannot read `{}`", file.display()))?;
    let (head, rest) = page.split_once(BEGIN).with_context(|| format!("the page has no line `{BEGIN}`"))?;
    let mut sections: Vec<(&str, &str)> = rest
        .split(&format!("\n{SECTION}"))
        .skip(1)
        .filter_map(|section| section.split_once("\n\n"))
        .collect();
    match sections.iter_mut().find(|(known, _)| *known == name) {
        Some(section) => section.1 = text,
        None => sections.push((name, text)),
    }
    let sections: String =
        sections.iter().map(|(name, text)| format!("\n{SECTION}{name}\n\n{}\n", text.trim_end())).collect();
    Ok(std::fs::write(file, format!("{head}{BEGIN}{sections}"))?)
}
