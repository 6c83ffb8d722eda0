//! Every way a question can end: its exit code, and with `--json` its last line.

use serde_json::{Value, json};

use crate::support::kill::{has_ended, until};
use crate::support::omni::{OMNI, Output, Run, World};
use crate::support::vendor::{Answer, Vendor};

/// Runs it with `--json` and looks at its end: the code, and one `result`, the last line.
#[track_caller]
fn ended(run: Run, code: i32, stop: &str) -> Value {
    let output = run.run().exited(code);
    is_last(&output, stop)
}

#[track_caller]
fn is_last(output: &Output, stop: &str) -> Value {
    let lines = output.json();
    let results = lines.iter().filter(|line| line["type"] == "result").count();
    let last = output.last();
    assert_eq!((results, &last["type"], &last["stop"]), (1, &json!("result"), &json!(stop)), "{output}");
    if ["failed", "unauthorized", "model_failed"].contains(&stop) {
        assert!(last["error"].as_str().is_some_and(|error| !error.is_empty()), "why? {last}");
    }
    last
}

/// A question to a model that plays these steps.
fn ask(world: &World, flags: &[&str], steps: &[Value]) -> Run {
    let model = world.script("model", steps);
    world.omni([&["--json", "ask"], flags, &["hello"]].concat()).model(&model)
}

#[test]
fn an_answer_is_0() {
    let world = World::new();
    assert_eq!(ended(ask(&world, &[], &[json!({ "text": "hi" })]), 0, "answered")["text"], "hi");
}

#[test]
fn something_of_ours_that_fails_is_1() {
    let world = World::new();
    std::fs::write(world.home().join("data"), "not a folder").expect("a file");
    ended(ask(&world, &[], &[json!({ "text": "hi" })]), 1, "failed");
}

#[test]
fn what_makes_no_sense_is_2() {
    let world = World::new();
    for arguments in [
        &["--json", "ask"][..],
        &["--json", "ask", "--modle", "x", "hi"],
        &["frobnicate", "--json"],
        &["--json", "ask", "--session", "../etc", "hi"],
        &["--json", "-q", "-v", "ask", "hi"],
    ] {
        ended(world.omni(arguments), 2, "failed");
    }
    // Help is no failure, and what stands after two dashes is no flag.
    let help = world.omni(["--json", "--help"]).run().succeeded();
    assert!(!help.out.contains("\"result\""), "{help}");
    let words = world.omni(["ask", "--frob", "--", "--json"]).run().exited(2);
    assert!(words.out.is_empty(), "{words}");
}

#[test]
fn a_setting_or_a_key_is_3() {
    let (world, vendor) = (World::new(), Vendor::launch());
    let asks = || world.omni(["--json", "ask", "hi"]).model("openai/gpt-4o");
    ended(asks(), 3, "failed");
    ended(world.omni(["--json", "--set", "limits.round=3", "ask", "hi"]), 3, "failed");
    vendor.answer(Answer::status(401, "no"));
    let refused = asks().env("OPENAI_BASE_URL", vendor.openai_url()).env("OPENAI_API_KEY", "sk-test");
    ended(refused, 3, "unauthorized");
}

#[test]
fn a_model_that_does_not_answer_is_4() {
    let world = World::new();
    let fault = |kind: &str| json!({ "error": { "kind": kind } });
    ended(ask(&world, &[], &[fault("rejected")]), 4, "model_failed");
    ended(ask(&world, &["--set", "model.retries=0"], &[fault("network")]), 4, "model_failed");
    ended(ask(&world, &[], &[json!({ "text": "" }), json!({ "text": "" })]), 4, "model_failed");
}

#[test]
fn a_limit_is_6() {
    let world = World::repository();
    let call = json!({ "calls": [{ "name": "git__status" }], "usage": { "input": 900, "output": 100 } });
    let log = json!({ "calls": [{ "name": "git__log" }] });
    let end = json!({ "text": "that is all" });
    ended(ask(&world, &[], &[json!({ "text": "cut", "stop": "length" })]), 6, "length");
    let rounds = ["--set", "limits.rounds=2"];
    ended(ask(&world, &rounds, &[call.clone(), end.clone()]), 6, "limit");
    let calls = ["--set", "limits.tool_calls=1"];
    ended(ask(&world, &calls, &[call.clone(), log, end.clone()]), 6, "limit");
    let tokens = ["--set", "limits.tokens=1000"];
    ended(ask(&world, &tokens, &[call.clone(), end]), 6, "limit");
    let late = json!({ "text": "late", "delay_ms": 60_000 });
    let last = ended(ask(&world, &["--set", "limits.seconds=0.3"], &[late]), 6, "limit");
    assert!(last["text"].as_str().is_some_and(|text| text.contains("0.3 s")), "{last}");
    let again = json!({ "calls": [{ "name": "git__status" }], "loop": true });
    ended(ask(&world, &[], &[again]), 6, "loop");
}

#[test]
fn ctrl_c_is_130_and_a_service_manager_143() {
    for (signal, code) in [(libc::SIGINT, 130), (libc::SIGTERM, 143)] {
        let world = World::new();
        let mut started = ask(&world, &[], &[json!({ "text": "late", "delay_ms": 60_000 })]).start();
        started.until("turn.started");
        started.signal(signal);
        is_last(&started.end().exited(code), "cancelled");
    }
}

#[test]
fn ctrl_c_twice_waits_for_nothing() {
    let world = World::new();
    let mut started = ask(&world, &[], &[json!({ "text": "late", "delay_ms": 60_000 })]).start();
    started.until("turn.started");
    // Somebody holds the database, so that the turn's end cannot be written.
    let _holder = world.hold();
    for _ in 0..5 {
        started.signal(libc::SIGINT);
        // Two signals at once may be one.
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    let output = started.end().exited(130);
    is_last(&output, "cancelled");
}

#[test]
fn what_a_tool_has_started_ends_with_the_question() {
    let world = World::new();
    let stays = "trap '' INT TERM; echo $$ > tmp; mv tmp child; while :; do sleep 0.01; done";
    let call = json!({ "name": "process__run", "arguments": { "argv": ["sh", "-c", stays] } });
    let started = ask(&world, &["--yes"], &[json!({ "calls": [call] })]).start();
    let child = until(|| std::fs::read_to_string(world.work().join("child")).ok());
    started.signal(libc::SIGINT);
    is_last(&started.end().exited(130), "cancelled");
    until(|| has_ended(&child).then_some(()));
}

#[test]
fn a_filter_between_two_others_ends_cleanly() {
    let world = World::new();
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("a page");
    world.write("README.md", &readme);
    let long = "A line of the summary.\n".repeat(20_000);
    let model = world
        .script("long", &[json!({ "text": long, "expect": { "contains": "An assistant in one binary" } })]);
    for json in ["", "--json "] {
        let line = format!(
            "set -o pipefail; cat README.md | {{ {OMNI} {json}ask summarise; echo \"code $?\" >&2; }} | head -1"
        );
        let output = world.program(&["bash", "-c", &line]).model(&model).run().succeeded();
        assert_eq!((output.out.lines().count(), output.err.trim()), (1, "code 0"), "{output}");
    }
    // The same without a model, as in the README.
    let line = format!("cat README.md | {{ {OMNI} ask summarise; echo \"code $?\" >&2; }} | head -1");
    let output = world.program(&["bash", "-c", &line]).run().succeeded();
    assert!(output.err.trim_end().ends_with("code 0") && output.out.lines().count() == 1, "{output}");
}
