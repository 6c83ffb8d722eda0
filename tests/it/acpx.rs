//! acpx, a client of the Agent Client Protocol that others wrote: it starts omni anew for each command, so what it
//! finds again was kept. It prints what went over the wire, line by line.

use serde_json::{Value, json};

use crate::support::editor::{Editor, writes};
use crate::support::omni::{OMNI, Output, Run, World};
use crate::support::peers::{node, package};

/// A command of acpx, about an omni that logs all it can.
fn acpx(world: &World, model: &str, words: &[&str]) -> Run {
    let (node, script, folder) = (node(), package("acpx/dist/cli.js"), world.work());
    let agent = format!("{OMNI} acp --verbose");
    let [node, script, folder] = [&node, &script, &folder].map(|path| path.to_str().expect("a path"));
    // It keeps omni for the next command, until the session is closed or nobody comes for so long.
    let always = ["--agent", &agent, "--cwd", folder, "--format", "json", "--json-strict", "--ttl", "30"];
    let run = world.program(&[&[node, script], &always[..], words].concat());
    run.model(model).env("RUST_LOG", "trace").env("OMNI_LOG__LEVEL", "trace")
}

/// The messages of this method, each with what it was sent with.
fn of<'a>(wire: &'a [Value], method: &'a str) -> impl Iterator<Item = &'a Value> {
    wire.iter().filter(move |message| message["method"] == method).map(|message| &message["params"])
}

/// Why the prompt ended.
fn stopped(wire: &[Value]) -> &Value {
    let ended = wire.iter().rev().map(|message| &message["result"]["stopReason"]);
    ended.into_iter().find(|reason| !reason.is_null()).expect("an end")
}

/// What the agent said.
fn said(wire: &[Value]) -> String {
    let updates = of(wire, "session/update").map(|params| &params["update"]);
    let chunks = updates.filter(|update| update["sessionUpdate"] == "agent_message_chunk");
    chunks.filter_map(|chunk| chunk["content"]["text"].as_str()).collect()
}

fn ran(run: Run) -> Vec<Value> {
    run.run().succeeded().json()
}

#[test]
fn what_it_allows_is_written_through_it_and_what_it_denies_is_not() {
    let world = World::new();
    let model = world.script("m", &writes());
    let file = world.work().join("a.txt");
    // Its exit code says that a permission was not given.
    let wire = acpx(&world, &model, &["--deny-all", "exec", "write hello"]).run().exited(5).json();
    assert_eq!(stopped(&wire), "end_turn");
    assert!(!file.exists(), "it was denied");
    // Where it cannot ask anybody it cancels the question.
    let nobody = ["--approve-reads", "--non-interactive-permissions", "fail", "exec", "write hello"];
    acpx(&world, &model, &nobody).run().exited(5);
    assert!(!file.exists(), "nobody has agreed");
    let wire = ran(acpx(&world, &model, &["--approve-all", "exec", "write hello"]));
    assert_eq!((stopped(&wire), said(&wire).as_str()), (&json!("end_turn"), "I write it.Done, one file."));
    assert_eq!(of(&wire, "fs/write_text_file").next().expect("it writes")["path"], json!(file));
    assert_eq!(std::fs::read_to_string(&file).expect("it is written"), "hello\n");
}

#[test]
fn a_session_goes_on_in_other_processes() {
    let world = World::new();
    let read = json!({ "calls": [{ "name": "fs__read", "arguments": { "path": "b.txt" } }] });
    let found = json!({ "text": "found", "expect": { "contains": "through the client" } });
    world.write("b.txt", "through the client\n");
    let model = world.script("m", &[read, found]);
    acpx(&world, &model, &["sessions", "new"]).run().succeeded();
    let wire = ran(acpx(&world, &model, &["--approve-all", "prompt", "read it"]));
    assert_eq!((stopped(&wire), said(&wire).as_str()), (&json!("end_turn"), "found"));
    assert_eq!(of(&wire, "session/resume").count(), 1, "it was begun by another process");
    assert_eq!(of(&wire, "fs/read_text_file").count(), 1);
    let wire = ran(acpx(&world, &model, &["prompt", "/status"]));
    assert!(said(&wire).contains("4 messages"), "{}", said(&wire));
    acpx(&world, &model, &["set-mode", "allow"]).run().succeeded();
    acpx(&world, &model, &["set", "mode", "ask"]).run().succeeded();
    acpx(&world, &model, &["set-mode", "none"]).run().exited(1);
    acpx(&world, &model, &["sessions", "close"]).run().succeeded();
}

#[test]
fn a_prompt_that_is_cancelled_says_so() {
    let world = World::new();
    let model = world.script("m", &[json!({ "text": "late", "delay_ms": 600_000 })]);
    acpx(&world, &model, &["sessions", "new"]).run().succeeded();
    let mut waiting = acpx(&world, &model, &["prompt", "wait"]).start();
    waiting.until("\"session/prompt\"");
    let cancel = || acpx(&world, &model, &["cancel"]).run().succeeded().last()["cancelled"] == true;
    // It says that there is nothing to cancel until it has sent the prompt itself.
    assert!((0..100).any(|_| cancel()), "it never found the prompt");
    let output: Output = waiting.end().succeeded();
    assert_eq!(stopped(&output.json()), "cancelled");
    acpx(&world, &model, &["sessions", "close"]).run().succeeded();
}

#[test]
fn twenty_sessions_are_listed_and_a_picture_is_taken() {
    let world = World::new();
    let model = world.script("m", &[json!({ "text": "ok", "loop": true })]);
    let mut editor = Editor::start(world.omni(["acp"]).model(&model));
    let sessions: Vec<String> = (0..20)
        .map(|number| {
            let session = editor.session(&world);
            editor.prompt(&session, &format!("number {number}")).stopped("end_turn");
            session
        })
        .collect();
    let listed = acpx(&world, &model, &["sessions", "list"]).run().succeeded().last();
    let listed: Vec<_> = listed["sessions"].as_array().expect("a list").iter().rev().collect();
    assert_eq!(
        listed.iter().map(|found| &found["sessionId"]).collect::<Vec<_>>(),
        sessions.iter().collect::<Vec<_>>()
    );
    assert_eq!(listed[19]["title"], "number 19");
    let dot =
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
    let prompt = json!([{ "type": "image", "mimeType": "image/png", "data": dot }, { "type": "text", "text": "what is it?" }]);
    let file = world.write("prompt.json", &prompt.to_string());
    let wire = ran(acpx(&world, &model, &["exec", "--file", file.to_str().expect("a path")]));
    assert_eq!(of(&wire, "session/prompt").next().expect("a prompt")["prompt"], prompt);
    assert_eq!((stopped(&wire), said(&wire).as_str()), (&json!("end_turn"), "ok"));
}
