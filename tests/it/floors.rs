//! Imports go down, and every fenced dependency stays in its room.
//!
//! Inside one crate the compiler allows any cycle, so this test reads the sources and does
//! what a crate boundary does elsewhere. The tables are those of `docs/architecture.md`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Room, floor, and the rooms it may import beside itself and floor 0.
const ROOMS: &[(&str, u8, &[&str])] = &[
    ("main", 6, &["*"]),
    ("python", 6, &["*"]),
    ("app", 6, &["*"]),
    ("cli", 6, &["*"]),
    ("channel", 5, &["hub", "store"]),
    ("clock", 5, &["hub", "store", "tool"]),
    ("gateway", 5, &["hub", "store", "tool"]),
    ("stdio", 5, &["hub", "session", "tool"]),
    ("hub", 4, &["agent", "session", "store", "tool"]),
    ("agent", 3, &["memory", "tool", "llm", "session", "skill"]),
    ("kernel", 2, &["tool", "skill"]),
    ("mcp", 2, &["tool", "store"]),
    ("memory", 2, &["llm", "tool", "store"]),
    ("tool", 1, &[]),
    ("llm", 1, &[]),
    ("session", 1, &["store"]),
    ("skill", 1, &[]),
    ("store", 1, &[]),
    ("update", 1, &[]),
    ("child", 0, &[]),
    ("message", 0, &[]),
    ("schedule", 0, &[]),
    ("config", 0, &[]),
    ("measure", 0, &[]),
    ("shutdown", 0, &[]),
    ("trace", 0, &[]),
    ("words", 0, &[]),
];

/// Dependency, and the paths below `src` that may name it.
const FENCES: &[(&str, &[&str])] = &[
    ("pyo3", &["kernel/", "python/", "main.rs"]),
    ("sqlx", &["store/", "session/log.rs", "memory/ledger.rs"]),
    ("genai", &["llm/provider.rs", "llm/convert.rs"]),
    ("croner", &["schedule/cron.rs"]),
    (
        "reqwest",
        &[
            "channel/telegram/api.rs",
            "clock/webhook.rs",
            "llm/",
            "mcp/open.rs",
            "mcp/auth.rs",
            "mcp/revoke.rs",
            "mcp/events.rs",
            "update.rs",
        ],
    ),
    ("frankenstein", &["channel/telegram/"]),
    ("rmcp", &["mcp/"]),
    ("axum", &["mcp/http.rs", "gateway/", "stdio/acp/http.rs"]),
    ("governor", &["gateway/guard.rs"]),
    ("utoipa", &["gateway/"]),
    ("utoipa_axum", &["gateway/mod.rs"]),
    ("metrics", &["measure.rs"]),
    ("metrics_exporter_prometheus", &["measure.rs"]),
    ("opentelemetry", &["trace.rs", "app/telemetry.rs"]),
    ("opentelemetry_sdk", &["app/telemetry.rs"]),
    ("opentelemetry_otlp", &["app/telemetry.rs"]),
    ("tracing_opentelemetry", &["trace.rs", "app/telemetry.rs"]),
    ("bm25", &["words.rs"]),
    ("clap", &["cli/"]),
    ("agent_client_protocol", &["stdio/acp/"]),
    ("agent_client_protocol_http", &["stdio/acp/http.rs"]),
    ("reedline", &["cli/editor.rs"]),
    ("pulldown_cmark", &["cli/markdown.rs", "channel/telegram/format.rs", "channel/telegram/files.rs"]),
    ("anstream", &["cli/"]),
    ("indicatif", &["cli/"]),
    ("anyhow", &["cli/", "app.rs", "main.rs", "python/"]),
    ("jsonschema", &["tool/schema.rs"]),
    ("serde_saphyr", &["skill/manifest.rs", "mcp/theirs.rs"]),
    ("include_dir", &["skill/builtin.rs"]),
    ("flate2", &["skill/fetch.rs"]),
    ("tar", &["skill/fetch.rs", "kernel/bundle.rs"]),
    ("zstd", &["kernel/bundle.rs", "update.rs"]),
    ("minisign_verify", &["update.rs"]),
    ("openssl_probe", &["kernel/bundle.rs"]),
    ("zip", &["skill/fetch.rs"]),
    ("pep440_rs", &["skill/packages.rs"]),
    ("pep508_rs", &["skill/packages.rs"]),
    ("notify", &["skill/watch.rs"]),
    ("toml_edit", &["config/"]),
    ("etcetera", &["config/paths.rs"]),
    ("crossbeam_channel", &["kernel/pool.rs"]),
    ("mimalloc", &["main.rs"]),
    ("landlock", &["kernel/worker/confine.rs"]),
    ("seccompiler", &["kernel/worker/confine.rs"]),
    ("rustix", &["kernel/bundle.rs", "kernel/worker/", "mcp/stdio.rs"]),
    ("lancedb", &["memory/store/"]),
    ("arrow_array", &["memory/store/"]),
    ("arrow_schema", &["memory/store/"]),
    ("candle_core", &["llm/encoder/"]),
    ("candle_nn", &["llm/encoder/"]),
    ("candle_transformers", &["llm/encoder/"]),
    ("tokenizers", &["llm/encoder/"]),
    ("regex", &["memory/text.rs"]),
];

struct Source {
    path: String,
    lines: Vec<String>,
}

#[test]
fn imports_go_down_the_floors() {
    let mut faults = Vec::new();
    for source in sources() {
        let room = room(&source.path);
        let Some((_, floor, allowed)) = ROOMS.iter().find(|(name, ..)| *name == room) else {
            if room != "lib" {
                faults
                    .push(format!("{}: the room `{room}` is on no floor; add it to the table", source.path));
            }
            continue;
        };
        for (number, line) in source.lines.iter().enumerate() {
            for target in imports(line) {
                let below = ROOMS.iter().find(|(name, ..)| *name == target);
                let fine = match below {
                    None => target == room || !is_room(&target),
                    Some((_, 0, _)) => target == room || *floor > 0,
                    Some(_) => target == room || allowed.contains(&"*") || allowed.contains(&target.as_str()),
                };
                if !fine {
                    faults.push(format!(
                        "{}:{}: `{room}` (floor {floor}) imports `{target}`",
                        source.path,
                        number + 1
                    ));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn fenced_dependencies_stay_in_their_rooms() {
    let mut faults = Vec::new();
    for source in sources() {
        for (name, homes) in FENCES {
            if homes.iter().any(|home| source.path.starts_with(home)) {
                continue;
            }
            for (number, line) in source.lines.iter().enumerate() {
                if names(line, name) {
                    faults.push(format!(
                        "{}:{}: names `{name}`; only {homes:?} may",
                        source.path,
                        number + 1
                    ));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_checks_see_what_they_look_for() {
    assert_eq!(imports("use crate::tool::{self, Error};"), ["tool"]);
    assert_eq!(imports("    let x = crate::llm::Error::Setup(s);"), ["llm"]);
    assert_eq!(imports("use crate::{message::Part, hub};"), ["message", "hub"]);
    assert!(names("use genai::Client;", "genai") && names("fn x(y: genai::Error)", "genai"));
    assert!(!names("let genaix = 1;", "genai") && !names("mygenai::x", "genai"));
}

#[test]
fn every_room_of_the_table_exists() {
    let there: BTreeSet<String> = sources().iter().map(|source| room(&source.path)).collect();
    let gone: Vec<_> =
        ROOMS.iter().filter(|(name, ..)| !there.contains(*name)).map(|(name, ..)| name).collect();
    assert!(gone.is_empty(), "no such rooms: {gone:?}");
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    let read = |path: PathBuf| Source {
        lines: code(&std::fs::read_to_string(&path).expect("a source file is text")),
        path: path.strip_prefix(&root).expect("below src").to_string_lossy().into_owned(),
    };
    let mut sources: Vec<_> = files.into_iter().map(read).collect();
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(sources.len() > 10, "the sources were not found");
    sources
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("src can be read") {
        let path = entry.expect("src can be read").path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The lines up to the tests, comments emptied.
fn code(text: &str) -> Vec<String> {
    let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]"));
    lines.map(|line| line.split("//").next().unwrap_or_default().to_owned()).collect()
}

fn room(path: &str) -> String {
    path.split('/').next().unwrap_or_default().trim_end_matches(".rs").to_owned()
}

fn is_room(name: &str) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    root.join(name).is_dir() || root.join(format!("{name}.rs")).is_file()
}

/// The rooms a line names after `crate::`.
fn imports(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (start, _) in line.match_indices("crate::") {
        let rest = &line[start + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => {
                let mut depth = 0;
                for item in group.split(|c| {
                    depth += i32::from(c == '{') - i32::from(c == '}');
                    c == ',' && depth == 0
                }) {
                    found.push(word(item.trim()));
                }
            }
            None => found.push(word(rest)),
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn names(line: &str, dependency: &str) -> bool {
    line.match_indices(dependency).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        let after = &line[start + dependency.len()..];
        let starts =
            !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '"' || c == '.');
        starts
            && (after.starts_with("::") || (line.trim_start().starts_with("use ") && after.starts_with(';')))
    })
}
