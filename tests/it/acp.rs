//! The agent of an editor: the official client, and raw lines.

use serde_json::{Value, json};

use crate::support::omni::{OMNI, Started, World, card};

const NOISY: &str = r#"
import os
import subprocess
import sys

from omni import tool


@tool(read_only=True)
def shout() -> str:
    """Print in every way there is."""
    print("printed by Python")
    os.write(1, b"written to fd 1\n")
    subprocess.run(["sh", "-c", "echo echoed by a child"], check=True)
    sys.__stdout__.flush()
    return "done"
"#;

fn write(file: &str) -> Value {
    json!({"name": "fs__write", "arguments": {"path": file, "content": "hello\n"}})
}

/// Runs a part of the official client's talk.
fn client(world: &World, model: &str, part: &str) {
    let python = std::env::var("OMNI_TEST_PYTHON").expect("`make test` sets it");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/acp_client.py");
    let (folder, seen) = (world.work().display().to_string(), world.home().join("seen.json"));
    let seen = seen.display().to_string();
    world.program(&[&python, script, part, OMNI, &folder, &seen]).model(model).run().succeeded();
}

#[test]
fn the_official_client_talks_and_comes_back_in_another_process() {
    let world = World::new();
    let steps = [
        json!({"text": "Let me.", "calls": [write("a.txt")]}),
        json!({"text": "Written."}),
        json!({"calls": [write("b.txt")]}),
        json!({"text": "Not then."}),
        json!({"calls": [write("c.txt")]}),
    ];
    client(&world, &world.script("first", &steps), "talk");
    client(&world, &world.script("second", &[json!({"text": "Here again.", "loop": true})]), "again");
}

/// An editor that speaks in lines.
struct Editor {
    started: Started,
    said: u64,
}

impl Editor {
    fn open(world: &World, model: &str) -> Self {
        let started = world.omni(["acp"]).model(model).env("RUST_LOG", "trace").talking().start();
        Self { started, said: 0 }
    }

    /// Sends a request and waits for its answer.
    fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.said += 1;
        let request = json!({"jsonrpc": "2.0", "id": self.said, "method": method, "params": params});
        self.started.say(&request.to_string());
        loop {
            let line: Value = serde_json::from_str(&self.started.until("\"jsonrpc\"")).expect("a message");
            if line["id"] == self.said && line.get("method").is_none() {
                return line;
            }
        }
    }
}

#[test]
fn nothing_but_the_protocol_is_on_standard_output() {
    let world = World::new();
    let skill = world.skill("noisy", NOISY);
    let thread = card("noisy").replacen("\n---\n", "\nmetadata:\n  isolation: thread\n---\n", 1);
    std::fs::write(skill.join("SKILL.md"), thread).expect("a file");
    world.omni(["skill", "trust", "noisy"]).run().succeeded();
    let call = json!({"calls": [{"name": "noisy__shout", "arguments": {}}]});
    let model = world.script("noisy", &[call, json!({"text": "It was loud."})]);
    let mut editor = Editor::open(&world, &model);
    let about = editor.ask("initialize", &json!({"protocolVersion": 1, "clientCapabilities": {}}));
    assert_eq!(about["result"]["protocolVersion"], 1, "{about}");
    let folder = world.work().display().to_string();
    let session = editor.ask("session/new", &json!({"cwd": folder, "mcpServers": []}));
    let session = session["result"]["sessionId"].as_str().expect("a session").to_owned();
    let prompt = json!({"sessionId": session, "prompt": [{"type": "text", "text": "be loud"}]});
    let answer = editor.ask("session/prompt", &prompt);
    assert_eq!(answer["result"]["stopReason"], "end_turn", "{answer}");
    let output = editor.started.end().succeeded();
    for line in output.json() {
        assert_eq!(line["jsonrpc"], "2.0", "{line}");
    }
    assert!(output.out.contains(r#""status":"completed""#) && output.out.contains("loud."), "{output}");
}

#[test]
fn what_cannot_be_done_is_told() {
    let world = World::new();
    let mut editor = Editor::open(&world, "offline");
    editor.ask("initialize", &json!({"protocolVersion": 1}));
    let error = |answer: Value| {
        answer["error"]["message"].as_str().unwrap_or_default().to_owned()
            + &answer["error"]["data"].to_string()
    };
    let nowhere = editor.ask("session/new", &json!({"cwd": "/nowhere/at/all", "mcpServers": []}));
    assert!(error(nowhere.clone()).contains("/nowhere/at/all"), "{nowhere}");
    let folder = world.work().display().to_string();
    let session = editor.ask("session/new", &json!({"cwd": folder, "mcpServers": []}));
    let session = session["result"]["sessionId"].clone();
    let empty = editor.ask("session/prompt", &json!({"sessionId": session, "prompt": []}));
    assert!(error(empty.clone()).contains("nothing in the prompt"), "{empty}");
    let mode = editor.ask("session/set_mode", &json!({"sessionId": session, "modeId": "yolo"}));
    assert!(error(mode.clone()).contains("no mode `yolo`"), "{mode}");
    let unknown =
        editor.ask("session/prompt", &json!({"sessionId": "x", "prompt": [{"type": "text", "text": "hi"}]}));
    assert!(unknown["error"].is_object(), "{unknown}");
    let method = editor.ask("session/dance", &json!({}));
    assert_eq!(method["error"]["code"], -32601, "{method}");
    // An editor that is gone ends it.
    editor.started.end().succeeded();
}

#[test]
fn a_mode_that_allows_does_not_ask() {
    let world = World::new();
    let steps = [json!({"calls": [write("a.txt")]}), json!({"text": "Written."})];
    let mut editor = Editor::open(&world, &world.script("allowed", &steps));
    editor.ask("initialize", &json!({"protocolVersion": 1}));
    let folder = world.work().display().to_string();
    let session = editor.ask("session/new", &json!({"cwd": folder, "mcpServers": []}));
    let session = session["result"]["sessionId"].clone();
    let set = json!({"sessionId": session, "configId": "mode", "value": "allow"});
    let options = editor.ask("session/set_config_option", &set);
    assert_eq!(options["result"]["configOptions"][0]["currentValue"], "allow", "{options}");
    let prompt = json!({"sessionId": session, "prompt": [{"type": "text", "text": "write"}]});
    let answer = editor.ask("session/prompt", &prompt);
    assert_eq!(answer["result"]["stopReason"], "end_turn", "{answer}");
    assert!(world.work().join("a.txt").exists());
}
