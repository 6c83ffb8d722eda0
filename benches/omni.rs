//! What omni is measured by, beside its peers, in one run: `make bench`.
//!
//! `cargo bench --bench omni -- calls` runs one section alone, and writes that part of the page anew.
//! Ours and the peers' rounds take turns, so that a machine that slows down slows down both;
//! figures are medians over the rounds, ratios are medians of the rounds' own ratios.

mod calls;
mod dist;
mod find;
mod gateway;
mod index;
mod limit;
mod mcp;
mod measure;
mod memory;
mod packages;
mod sdk;
mod search;
mod start;
mod table;
mod world;

use anyhow::{Result, ensure};

use table::{Machine, Report};
use world::World;

/// As the program has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Section = fn(&World) -> Result<Report>;

const SECTIONS: [(&str, Section); 10] = [
    ("calls", calls::run),
    ("mcp", mcp::run),
    ("index", index::run),
    ("start", start::run),
    ("packages", packages::run),
    ("search", search::run),
    ("memory", memory::run),
    ("find", find::run),
    ("gateway", gateway::run),
    ("dist", dist::run),
];

fn main() -> Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    // One of the peers is in here.
    if wanted.first().is_some_and(|word| word == "rmcp") {
        return limit::serve(&wanted[1..]);
    }
    for name in &wanted {
        ensure!(SECTIONS.iter().any(|(known, _)| known == name), "there is no section `{name}`");
    }
    let world = World::new()?;
    let file = world.root.join("docs/benchmarks.md");
    let mut whole = Report::default();
    for (name, section) in SECTIONS {
        if wanted.is_empty() || wanted.iter().any(|other| other == name) {
            let machine = Machine::look(&world)?;
            let report = section(&world)?;
            table::keep(&file, name, &format!("{}.\n\n{}", machine.done(), report.page()))?;
            whole.extend(report);
        }
    }
    table::print(&whole.page())
}
