//! The official conformance suite against the client, which is driven by `omni dev mcp-conformance`.
//!
//! Its scenarios are servers that look closely at who comes. The number of checks is asserted too:
//! a client that does nothing passes many of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::omni::World;
use crate::support::peers;

/// What came of a scenario's checks.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Checks {
    passed: usize,
    failed: usize,
    skipped: usize,
}

/// Runs the suite. Its own verdict is whether it exits well.
fn suite(world: &World, arguments: &[&str]) -> (bool, BTreeMap<String, Checks>) {
    let folder = world.work().join("suite");
    let mut command = Command::new(peers::node());
    command.arg(peers::package("@modelcontextprotocol/conformance/dist/index.js")).arg("client");
    let client = format!("{} dev mcp-conformance", env!("CARGO_BIN_EXE_omni"));
    command.args(["--command", &client]).args(arguments).arg("-o").arg(&folder);
    command.current_dir(world.work()).env("OMNI_HOME", world.home());
    let output = command.output().expect("node runs");
    let mut found = BTreeMap::new();
    results(&folder, "", &mut found);
    assert!(!found.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (output.status.success(), found)
}

/// The results below a folder, by the name of their scenario.
fn results(folder: &Path, above: &str, found: &mut BTreeMap<String, Checks>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{above}{}", path.file_name().unwrap().to_str().unwrap());
        let Ok(text) = std::fs::read_to_string(path.join("checks.json")) else {
            results(&path, &format!("{name}/"), found);
            continue;
        };
        let mut checks = Checks::default();
        for check in serde_json::from_str::<Vec<Value>>(&text).unwrap() {
            match check["status"].as_str().unwrap() {
                "SUCCESS" => checks.passed += 1,
                "FAILURE" | "WARNING" => checks.failed += 1,
                "SKIPPED" => checks.skipped += 1,
                _ => {}
            }
        }
        // The time is at the end: `-2026-11-25T13-26-54-581Z`.
        found.insert(name[..name.len() - 25].to_owned(), checks);
    }
}

/// What the scored scenarios and the others come to, for one version of the protocol.
fn holds(version: &str, scored: usize, passed: usize) {
    let world = World::new();
    let baseline = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/expected-failures.yaml");
    let (well, found) =
        suite(&world, &["--requirements", version, "--expected-failures", baseline.to_str().unwrap()]);
    let red: Vec<_> = found.iter().filter(|(_, checks)| checks.failed > 0).map(|(name, _)| name).collect();
    let tolerated =
        ["auth/dpop", "auth/dpop-nonce", "auth/enterprise-managed-authorization", "auth/wif-jwt-bearer"];
    assert_eq!(red, tolerated, "{found:#?}");
    assert!(well, "{found:#?}");
    let counted = found.iter().filter(|(name, _)| !tolerated.contains(&name.as_str()));
    let counted: Vec<_> = counted.collect();
    // How often it is asked there depends on what comes first.
    let varies = |name: &str| name == "auth/scope-step-up";
    let exact = counted.iter().filter(|(name, _)| !varies(name));
    let total: usize = exact.map(|(_, checks)| checks.passed).sum();
    let idle: Vec<_> = counted.iter().filter(|(_, checks)| checks.passed == 0).collect();
    assert!(idle.is_empty(), "{idle:?}");
    // Two more of the suite's extensions, and one that came after the release, are not scored.
    assert_eq!((counted.len(), total), (scored + 3, passed), "{found:#?}");
}

#[test]
fn of_2025() {
    holds("2025-11-25", 18, 275);
}

#[test]
fn of_2026() {
    holds("2026-07-28", 32, 438);
}

#[test]
fn skills_are_read_when_they_are_wanted_and_checked() {
    let world = World::new();
    for scenario in ["no-prefetch", "verify-digest", "verify-size", "verify-frontmatter"] {
        let scenario = format!("sep-2640-client-{scenario}");
        let (well, found) = suite(&world, &["--scenario", &scenario]);
        let checks = Checks { passed: 1, failed: 0, skipped: 0 };
        assert_eq!((well, found.get(&scenario)), (true, Some(&checks)));
    }
}
