//! Listing many tools from the index.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::measure::median;
use super::table::{Report, Row};
use super::world::{World, time, write};

const SKILLS: usize = 500;
const ROUNDS: usize = 30;
/// A file this old shows every later change in its time stamps, whatever the file system.
const SETTLED: Duration = Duration::from_millis(2500);
/// What the list may take.
const LIMIT: f64 = 50.0;

/// Makes skills, has them described once, and lists them.
pub fn run(world: &World) -> Result<Report> {
    let skills = world.path("many");
    for number in 0..SKILLS {
        generate(&skills, number)?;
    }
    std::thread::sleep(SETTLED);
    let folder = skills.to_str().expect("a temporary folder has a plain name");
    let began = Instant::now();
    time(&mut world.omni(&["--skills", folder, "sync"]))?;
    let first = began.elapsed();

    let listed = world.omni(&["--skills", folder, "tool", "list"]).output()?;
    let tools = String::from_utf8_lossy(&listed.stdout).lines().filter(|line| line.contains("made-")).count();
    ensure!(tools == SKILLS, "{tools} tools are listed and not {SKILLS}");

    let (mut all, mut own) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        all.push(milliseconds(time(&mut world.omni(&["--skills", folder, "tool", "list"]))?));
        own.push(milliseconds(time(&mut world.omni(&["tool", "list"]))?));
    }
    let (all, own) = (median(all), median(own));
    let row = Row::new(format!("`omni tool list`, {SKILLS} skills more, warm index"), format!("{all:.1} ms"));
    let mut report = Report::default();
    report.rows.push(row.promise(format!("< {LIMIT} ms"), all < LIMIT));
    report.rows.push(Row::new("`omni tool list`, built-in skills alone", format!("{own:.1} ms")));
    report.rows.push(Row::new(
        format!("`omni sync`, {SKILLS} skills it has never seen"),
        format!("{:.0} ms", milliseconds(first)),
    ));
    Ok(report)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// A skill like those that people write: a page of prose and a function with documented parameters.
fn generate(skills: &std::path::Path, number: usize) -> Result<()> {
    let name = format!("made-{number:03}");
    let prose = format!(
        "---\nname: {name}\ndescription: Looks things up in register {number}. Use it when somebody asks \
         where something is kept, how much of it there is, or who has it.\n---\n\n# Register {number}\n\n{}",
        "Ask for one thing at a time. What is not in the register cannot be looked up.\n".repeat(20)
    );
    let code = format!(
        "from typing import Literal\n\nfrom omni import tool\n\n\n\
         @tool(read_only=True, examples=[\"what is in register {number}?\"])\n\
         def look(what: str, amount: int = 10, order: Literal[\"name\", \"age\"] = \"name\", \
         tags: list[str] | None = None) -> dict[str, int]:\n    \
         \"\"\"Look something up in register {number}.\n\n    \
         Args:\n        what: The beginning of its name.\n        amount: Entries to return at most.\n        \
         order: What entries are sorted by.\n        tags: All of these have to be on an entry.\n    \"\"\"\n    \
         return {{what: amount}}\n"
    );
    write(&skills.join(&name).join("SKILL.md"), &prose)?;
    write(&skills.join(&name).join("scripts/register.py"), &code)
}
