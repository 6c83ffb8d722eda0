//! The program as a person has it: what goes in, what comes out, on which stream, with which code.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::omni::{OMNI, Output, World, card, write};

const STATUS: &str = "what is the git status of this repository?";

/// A skill of the user's with tools for every ending.
const ENDINGS: &str = r#"
import time
from pathlib import Path

import omni
from omni import tool


@tool(read_only=True, timeout=0.3)
def sleep() -> str:
    """Sleep for too long."""
    time.sleep(3)
    return "awake"


@tool(read_only=True)
def fail() -> str:
    """Fail as a tool does that knows why."""
    raise omni.Failed("the moon is not up")


@tool(read_only=True)
def broken() -> str:
    """Fail as a tool does that has a mistake."""
    return {}["nothing"]


@tool(destructive=True)
def destroy() -> str:
    """Destroy something."""
    Path("destroyed").touch()
    return "gone"


@tool(read_only=True)
def double(number: int) -> dict:
    """Double a number."""
    return {"twice": 2 * number}
"#;

/// Leaves out what differs from run to run, then compares.
fn matches(name: &str, output: &Output) {
    let filters = vec![
        (r"\b\d+(\.\d+)? (ms|s)\b", "[time]"),
        (env!("CARGO_PKG_VERSION"), "[version]"),
        (r"/tmp/\S+?/", "[tmp]/"),
    ];
    insta::with_settings!({ filters => filters, omit_expression => true, prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!(name, output.told());
    });
}

// Asking, without a model.

#[test]
fn a_question_goes_through_a_tool() {
    let output = World::repository().omni(["ask", STATUS]).run().succeeded();
    assert!(output.out.contains("?? säule.txt") || output.out.contains("säule.txt"), "{output}");
    assert!(output.err.contains("git.status"), "{output}");
    assert!(output.err.contains(" ms · ") || output.err.contains(" s · "), "no duration: {output}");
    assert!(!output.out.contains("·"), "the tool's line belongs to stderr: {output}");
}

#[test]
fn words_need_no_quotes_and_no_command_is_a_question_too() {
    let world = World::repository();
    let output = world.omni("ask what is the git status".split(' ')).run().succeeded();
    assert!(output.out.contains("säule.txt"), "{output}");
    let output = world.omni::<&str>([]).input(STATUS).run().succeeded();
    assert!(output.out.contains("säule.txt"), "{output}");
}

#[test]
fn quiet_leaves_the_answer_and_verbose_tells_all() {
    let world = World::repository();
    let output = world.omni(["-q", "ask", STATUS]).run().succeeded();
    assert!(output.out.contains("säule.txt") && output.err.is_empty(), "{output}");
    let output = world.omni(["-v", "ask", STATUS]).run().succeeded();
    assert!(output.err.contains("● git.status {"), "{output}");
    assert!(output.err.contains("1 tool calls") && output.err.contains("2 model calls"), "{output}");
}

#[test]
fn what_is_piped_in_is_context_or_the_question() {
    let world = World::repository();
    let model = world.script("reads", &[json!({ "text": "read", "loop": true })]);
    let said = |arguments: &[&str], input: &str| {
        let output = world.omni(arguments).model(&model).input(input).run().succeeded();
        assert_eq!(output.out, "read\n", "{output}");
        let shown = world.omni(["--json", "session", "show", &latest(&world)]).run().succeeded();
        message_texts(&shown)[0].clone()
    };
    assert_eq!(said(&["ask", "explain", "this"], "a\nb\n"), "explain this\n\n```\na\nb\n```");
    let fenced = said(&["ask", "explain"], "```\ncode\n```\n");
    assert_eq!(fenced, "explain\n\n````\n```\ncode\n```\n````");
    assert_eq!(said(&["ask"], "what is this?"), "what is this?");
    assert_eq!(said(&["ask", "hello"], " \n"), "hello");
}

/// The id of the session that was last added to.
fn latest(world: &World) -> String {
    let listed = world.omni(["--json", "session", "list"]).run().succeeded();
    listed.json()[0]["id"].as_str().expect("an id").to_owned()
}

/// The texts of a session's messages, from `--json session show`.
fn message_texts(shown: &Output) -> Vec<String> {
    let messages = shown.json().into_iter().filter(|entry| entry["kind"] == "message");
    let text = |entry: Value| {
        let parts = entry["body"]["parts"].as_array().expect("parts").clone();
        parts.iter().filter_map(|part| part["text"].as_str()).collect::<String>()
    };
    messages.map(text).collect()
}

#[test]
fn more_input_than_a_question_can_have_is_refused() {
    let output = World::new().omni(["ask", "x"]).input(vec![b'x'; (1 << 20) + 1]).run().exited(2);
    assert!(output.err.contains("more than 1 MB"), "{output}");
}

#[test]
fn every_line_of_json_is_an_event_and_the_last_is_the_result() {
    let output = World::repository().omni(["--json", "ask", STATUS]).run().succeeded();
    let events = output.json();
    let ids: Vec<u64> = events.iter().map(|event| event["id"].as_u64().expect("an id")).collect();
    assert_eq!(ids, (1..=events.len() as u64).collect::<Vec<_>>(), "{output}");
    let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().expect("a type")).collect();
    assert_eq!(kinds[0], "turn.started");
    assert!(kinds.contains(&"tool.started") && kinds.contains(&"tool.completed"), "{kinds:?}");
    assert_eq!(kinds.iter().filter(|kind| **kind == "result").count(), 1);
    let last = events.last().expect("events");
    assert_eq!((last["type"].as_str(), last["stop"].as_str()), (Some("result"), Some("answered")));
    assert!(last["text"].as_str().expect("a text").contains("säule.txt"), "{last}");
    let turn = |event: &Value| (event["session"].clone(), event["turn"].clone());
    assert!(events.iter().all(|event| turn(event) == turn(last)), "{output}");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let world = World::repository();
    let script = world.script("long", &[json!({ "text": "line\n ".repeat(40_000) })]);
    for arguments in [
        format!("-m {script} ask hello"),
        format!("-m {script} --json ask hello"),
        "tool list".to_owned(),
        "--help".to_owned(),
        "config show".to_owned(),
    ] {
        let line = format!("{{ '{OMNI}' {arguments}; echo \"code $?\" >&2; }} | head -n 1");
        let output = Command::new("sh")
            .args(["-c", &line])
            .current_dir(world.work())
            .env("OMNI_HOME", world.home())
            .env("OMNI_MODEL__NAME", "offline")
            .stdin(Stdio::null())
            .output()
            .expect("a shell");
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(err.trim(), "code 0", "{arguments}");
        assert!(!output.stdout.is_empty(), "{arguments}");
    }
}

#[test]
fn two_lines_into_chat_are_one_session() {
    let world = World::repository();
    let model = world.script("talks", &[json!({ "text": "one" }), json!({ "text": "two" })]);
    let output = world.omni(["chat"]).model(&model).input("first\n\nsecond\n/nope\n").run().succeeded();
    assert_eq!(output.out, "one\ntwo\n", "{output}");
    assert!(output.err.contains("there is no `/nope`"), "{output}");
    let sessions = world.omni(["--json", "session", "list"]).run().succeeded().json();
    assert_eq!(sessions.len(), 1);
    let shown = world.omni(["--json", "session", "show", &latest(&world)]).run().succeeded();
    assert_eq!(message_texts(&shown), ["first", "one", "second", "two"]);
}

#[test]
fn a_new_chat_is_another_session_and_quit_ends_it() {
    let world = World::repository();
    let model = world.script("talks", &[json!({ "text": "one" }), json!({ "text": "two" })]);
    let output = world.omni(["chat"]).model(&model).input("a\n/new\nb\n/quit\nc\n").run().succeeded();
    assert_eq!(output.out, "one\ntwo\n", "{output}");
    assert_eq!(world.omni(["--json", "session", "list"]).run().succeeded().json().len(), 2);
}

// Tools.

#[test]
fn tools_are_listed_shown_and_called() {
    let world = World::repository();
    let listed = world.omni(["tool", "list"]).run().succeeded();
    let line = |name: &str| {
        let line = listed.out.lines().find(|line| line.starts_with(name));
        line.unwrap_or_else(|| panic!("no {name}: {listed}")).to_owned()
    };
    assert!(line("git.status").contains("reads"));
    assert!(line("fs.write").contains("asks"));
    let specs = world.omni(["--json", "tool", "list"]).run().succeeded().json();
    assert_eq!(specs.len(), listed.out.lines().count());
    let shown = world.omni(["tool", "show", "git.log"]).run().succeeded();
    assert!(shown.out.contains("\"count\"") && shown.out.contains("runs at once"), "{shown}");
    let called = world.omni(["tool", "call", "git.status"]).run().succeeded();
    assert!(called.out.contains("säule.txt"), "{called}");
    let read = json!({ "path": "säule.txt" }).to_string();
    let called = world.omni(["tool", "call", "fs.read", "-"]).input(read).run().succeeded();
    assert!(called.out.contains("stands"), "{called}");
    let called = world.omni(["--json", "tool", "call", "git.status"]).run().succeeded();
    assert!(called.last()["is_error"] != true && called.out.contains("säule.txt"), "{called}");
}

#[test]
fn the_exit_code_says_how_a_call_ended() {
    let world = World::new();
    world.skill("endings", ENDINGS);
    let call = |name: &str, arguments: &str| world.omni(["tool", "call", name, arguments]).run();
    let doubled = call("endings.double", r#"{"number": 21}"#).succeeded();
    assert_eq!(serde_json::from_str::<Value>(&doubled.out).expect("JSON"), json!({ "twice": 42 }));
    let failed = call("endings.fail", "{}").exited(1);
    assert!(failed.err.contains("the moon is not up"), "{failed}");
    let broken = call("endings.broken", "{}").exited(1);
    assert!(!broken.err.contains("Traceback") && !broken.err.contains("KeyError"), "{broken}");
    let wrong = call("endings.double", r#"{"number": "many"}"#).exited(2);
    assert!(wrong.err.contains("number"), "{wrong}");
    let refused = call("endings.destroy", "{}").exited(5);
    assert!(refused.err.contains("policy.allow") && refused.err.contains("--yes"), "{refused}");
    assert!(!world.work().join("destroyed").exists());
    let late = call("endings.sleep", "{}").exited(124);
    assert!(late.err.contains("0.3"), "{late}");
    world.omni(["--yes", "tool", "call", "endings.destroy"]).run().succeeded();
    assert!(world.work().join("destroyed").exists());
    let denied =
        world.omni(["--yes", "--set", "policy.deny=[\"endings.*\"]", "tool", "call", "endings.double"]);
    denied.run().exited(5);
    let json = world.omni(["--json", "tool", "call", "endings.fail"]).run().exited(1);
    assert_eq!(json.last()["is_error"], true);
}

// Sessions.

#[test]
fn a_session_is_listed_shown_exported_and_deleted() {
    let world = World::repository();
    world.omni(["ask", STATUS]).run().succeeded();
    let listed = world.omni(["session", "list"]).run().succeeded();
    assert!(listed.out.contains("4 messages") && listed.out.contains(STATUS), "{listed}");
    let id = latest(&world);
    let prefix = &id[..id.len() - 2];
    let shown = world.omni(["session", "show", prefix]).run().succeeded();
    assert!(shown.out.contains(&format!("› {STATUS}")), "{shown}");
    assert!(shown.out.contains("● git__status") || shown.out.contains("● git.status"), "{shown}");
    let lines = world.omni(["session", "export", &id]).run().succeeded().json();
    assert_eq!(lines[0]["id"], id.as_str());
    let places: Vec<i64> = lines[1..].iter().map(|line| line["seq"].as_i64().expect("a place")).collect();
    assert_eq!(places, (1..lines.len() as i64).collect::<Vec<_>>());
    let elsewhere = tempfile::tempdir().expect("a folder");
    write(&elsewhere.path().join(".omni/x"), "");
    let list = |all: &[&str]| {
        let arguments = [&["--json", "session", "list"], all].concat();
        world.omni(arguments).within(elsewhere.path()).run().succeeded().json().len()
    };
    assert_eq!((list(&[]), list(&["--all"])), (0, 1));
    let deleted = world.omni(["session", "delete", &id]).run().succeeded();
    assert!(deleted.err.contains(&id), "{deleted}");
    world.omni(["session", "show", &id]).run().exited(1);
}

#[test]
fn a_session_goes_on_by_its_id_or_as_the_last_one() {
    let world = World::new();
    let model = world.script("talks", &[json!({ "text": "yes", "loop": true })]);
    let ask = |arguments: &[&str]| {
        let output = world.omni([&["--json", "ask"], arguments].concat()).model(&model).run().succeeded();
        output.last()["session"].as_str().expect("an id").to_owned()
    };
    let first = ask(&["a"]);
    let second = ask(&["b"]);
    assert_ne!(first, second);
    assert_eq!(ask(&["--continue", "c"]), second);
    assert_eq!(ask(&["--session", &first, "d"]), first);
    assert_eq!(ask(&["-c", "e"]), first);
}

// Settings.

#[test]
fn settings_are_shown_with_the_place_they_come_from() {
    let world = World::new();
    let file = world.settings("# mine\n[limits]\nrounds = 7\n");
    let output = world
        .omni(["--set", "tools.timeout=5", "config", "show", "--origin"])
        .env("OMNI_LIMITS__TOOL_CALLS", "9")
        .run()
        .succeeded();
    let line = |key: &str| {
        let line = output.out.lines().find(|line| line.starts_with(key));
        line.unwrap_or_else(|| panic!("no {key}: {output}")).to_owned()
    };
    let told = line("rounds");
    assert!(told.contains('7') && told.contains(&format!("`{}`, line 3", file.display())), "{told}");
    assert!(line("tool_calls").contains("OMNI_LIMITS__TOOL_CALLS"));
    assert!(line("timeout").contains("command line"));
    assert!(line("result_bytes").contains("default"));
}

// Skills.

#[test]
fn a_new_skill_works_at_once() {
    let world = World::repository();
    let made = world.omni(["skill", "new", "hello-there"]).run().succeeded();
    assert_eq!(made.out.trim(), world.work().join(".omni/skills/hello-there").display().to_string());
    world.omni(["skill", "check"]).run().succeeded();
    let call = world.omni(["tool", "call", "hello-there.greet", r#"{"name": "Ada"}"#]).run().succeeded();
    assert_eq!(call.out, "Hello, Ada!\n");
    world.omni(["skill", "new", "hello-there"]).run().exited(1);
}

#[test]
fn a_skill_of_a_project_runs_when_it_is_trusted_and_until_it_changes() {
    let world = World::new();
    world.write(".omni/skills/guest/SKILL.md", &card("guest"));
    let script = world.write(".omni/skills/guest/scripts/tools.py", ENDINGS);
    let call = || world.omni(["tool", "call", "guest.double", r#"{"number": 2}"#]).run();
    call().exited(2);
    let listed = world.omni(["skill", "list"]).run().succeeded();
    assert!(listed.out.contains("omni skill trust guest"), "{listed}");
    world.omni(["skill", "trust", "guest"]).run().succeeded();
    call().succeeded();
    write(&script, &format!("{ENDINGS}\n# changed\n"));
    call().exited(2);
    let listed = world.omni(["skill", "list"]).run().succeeded();
    assert!(listed.out.contains("changed"), "{listed}");
    world.omni(["skill", "trust", "guest"]).run().succeeded();
    call().succeeded();
    world.omni(["skill", "distrust", "guest"]).run().succeeded();
    call().exited(2);
}

#[test]
fn an_import_error_is_told_with_file_and_line_and_the_rest_lives() {
    let world = World::new();
    let folder = world.skill("half", ENDINGS);
    let bad =
        write(&folder.join("scripts/bad.py"), "from omni import tool\n\n\nimport nonsense_of_a_module\n");
    let place = format!("{}:4: error: ", bad.display());
    for (arguments, code) in [("skill check", 1), ("skill list", 0), ("doctor", 1)] {
        let output = world.omni(arguments.split(' ')).run().exited(code);
        assert!(output.out.contains(&place) && output.out.contains("nonsense_of_a_module"), "{output}");
    }
    let listed = world.omni(["tool", "list"]).run().succeeded();
    assert!(listed.err.contains(&place), "who misses a tool looks here: {listed}");
    world.omni(["tool", "call", "half.double", r#"{"number": 2}"#]).run().succeeded();
    // Mended, it is described anew.
    write(
        &bad,
        "from omni import tool\n\n\n@tool(read_only=True)\ndef mended() -> str:\n    \"\"\"Be well.\"\"\"\n    return \"well\"\n",
    );
    assert_eq!(world.omni(["tool", "call", "half.mended"]).run().succeeded().out, "well\n");
}

#[test]
fn an_import_that_hangs_takes_down_its_own_file_alone() {
    let world = World::new();
    let folder = world.skill("stuck", ENDINGS);
    write(
        &folder.join("scripts/hang.py"),
        "import time\nfrom omni import tool\nwhile True:\n    time.sleep(1)\n",
    );
    let output = world.omni(["skill", "check"]).run().exited(1);
    assert!(output.out.contains("hang.py: error: its import took longer than 10 s"), "{output}");
    // Known now, so it costs nobody ten seconds again.
    let listed = world.omni(["tool", "list"]).run().succeeded();
    for name in ["stuck.double", "git.status"] {
        assert!(listed.out.contains(name), "{listed}");
    }
}

#[test]
fn an_import_that_ends_the_process_or_prints_is_contained() {
    let world = World::new();
    let folder = world.skill("rude", ENDINGS);
    write(&folder.join("scripts/exits.py"), "import os\nfrom omni import tool\nos._exit(3)\n");
    write(&folder.join("scripts/prints.py"), "from omni import tool\nprint('{\"tools\": []}')\n");
    let output = world.omni(["skill", "check"]).run().exited(1);
    assert!(output.out.contains("exits.py: error: its import ended the process"), "{output}");
    assert!(!output.out.contains("prints.py"), "{output}");
    assert!(world.omni(["tool", "list"]).run().succeeded().out.contains("rude.double"));
}

// Doctor.

#[test]
fn doctor_finds_nothing_where_nothing_is_wrong() {
    let output = World::new().omni(["doctor"]).run().succeeded();
    assert!(!output.out.contains('✗'), "{output}");
    for subject in ["version", "data", "python", "skills", "model", "sessions", "git"] {
        assert!(output.out.contains(&format!("✓ {subject}")), "{subject}: {output}");
    }
}

#[test]
fn doctor_says_what_is_wrong_and_how_to_mend_it() {
    let world = World::new();
    let broken = |run: crate::support::omni::Run, words: &[&str]| {
        let output = run.run().exited(1);
        assert!(output.out.contains('✗') && output.out.contains('→'), "{output}");
        for word in words {
            assert!(output.out.contains(word), "{word}: {output}");
        }
    };
    broken(world.omni(["doctor"]).env("OMNI_HOME", "/proc/nope"), &["✗ data", "✗ sessions", "OMNI_HOME"]);
    broken(world.omni(["doctor"]).model("openai/gpt-4o"), &["✗ model", "OPENAI_API_KEY"]);
    broken(world.omni(["doctor"]).env("PATH", "/nonexistent"), &["✗ git", "apt-get install git"]);
    broken(world.omni(["doctor"]).env("OMNI_STORE__URL", "mysql://x"), &["✗ sessions", "store.url"]);
    broken(world.omni(["--set", "limits.round=3", "doctor"]), &["✗ settings", "limits.rounds"]);
    let lines = world.omni(["--json", "doctor"]).model("nope/x").run().exited(1).json();
    assert!(lines.iter().any(|line| line["ok"] == false && line["subject"] == "model"), "{lines:?}");
}

#[test]
fn doctor_says_why_a_model_was_chosen_without_the_key() {
    let output = World::new()
        .omni(["doctor"])
        .model("")
        .env("OPENAI_API_KEY", "sk-very-secret-0123456789")
        .env("OPENAI_BASE_URL", "https://ann:hidden@127.0.0.1:1/v1")
        .run();
    assert!(output.out.contains("`OPENAI_API_KEY` is set") && output.out.contains("127.0.0.1:1"), "{output}");
    assert!(!output.out.contains("sk-very") && !output.out.contains("hidden"), "{output}");
}

// What people read.

#[test]
fn help_fits_a_screen() {
    let world = World::new();
    let mut commands: Vec<Vec<&str>> = vec![vec![]];
    commands.extend(["ask", "chat", "tool", "skill", "session", "config"].map(|name| vec![name]));
    commands.extend([vec!["tool", "call"], vec!["skill", "new"], vec!["session", "list"]]);
    for command in commands {
        for flag in ["-h", "--help"] {
            let output = world.omni([&command[..], &[flag]].concat()).run().succeeded();
            assert!(output.out.lines().count() <= 40, "{output}");
            assert!(output.out.lines().all(|line| line.chars().count() <= 100), "{output}");
        }
    }
}

#[test]
fn the_first_help_fits_a_small_screen_and_names_every_command() {
    let world = World::new();
    let help = world.omni(["--help"]).run().succeeded().out;
    assert!(help.lines().count() <= 23, "80 by 24, the next prompt included:\n{help}");
    assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
    let page = include_str!("../../docs/cli.md");
    let commands = page.lines().filter_map(|line| line.strip_prefix("## `omni ")?.strip_suffix('`'));
    let words: Vec<&str> = help.split(|letter: char| !letter.is_alphanumeric()).collect();
    for command in commands.filter(|command| !command.contains(' ')) {
        assert!(words.contains(&command), "no {command}:\n{help}");
    }
}

#[test]
fn a_build_says_what_it_is_made_of() {
    let world = World::cold();
    let told = world.omni(["--version", "--verbose"]).run().succeeded();
    let names: Vec<&str> = told.out.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(
        names,
        ["omni", "commit", "target", "compiler", "profile", "Python", "LanceDB", "SQLite"],
        "{told}"
    );
    for line in told.out.lines().filter(|line| line.starts_with(['L', 'P', 'S', 'o'])) {
        assert!(
            line.split_whitespace().nth(1).is_some_and(|word| word.starts_with(|c: char| c.is_ascii_digit())),
            "{told}"
        );
    }
    for words in [&["--verbose", "--version"][..], &["-v", "-V"], &["-Vv"], &["-vV"]] {
        assert_eq!(world.omni(words).run().succeeded().out, told.out, "{words:?}");
    }
    for words in [&["--version"][..], &["-V"]] {
        assert_eq!(world.omni(words).run().succeeded().out.lines().count(), 1, "{words:?}");
    }
}

#[test]
fn a_build_without_a_python_inside_says_where_its_licences_are() {
    let told = World::cold().omni(["licenses"]).run().exited(1);
    assert!(told.err.contains("`tools/licenses`"), "{told}");
}

macro_rules! told {
    ($($name:ident: $($argument:expr),*;)*) => {
        $(#[test]
        fn $name() {
            let name = stringify!($name).replace('_', "-");
            matches(&name, &World::new().omni::<&str>([$($argument),*]).run());
        })*
    };
}

mod told {
    use super::{World, card, matches};

    told! {
        help: "--help";
        help_of_ask: "ask", "--help";
        help_of_tool: "tool", "--help";
        help_of_tool_call: "tool", "call", "--help";
        version: "--version";
        an_unknown_command: "frobnicate";
        a_command_that_is_nearly_right: "tol", "list";
        an_unknown_flag: "ask", "--modle", "x", "hi";
        a_tool_without_a_name: "tool", "call";
        no_question: "ask";
        an_unknown_tool: "tool", "call", "git.stats";
        a_tool_like_no_other: "tool", "show", "coffee.make";
        arguments_that_are_no_json: "tool", "call", "git.log", "{count: 3}";
        arguments_that_are_no_object: "tool", "call", "git.log", "[3]";
        an_unknown_argument: "tool", "call", "git.log", r#"{"cuont": 3}"#;
        an_argument_of_the_wrong_type: "tool", "call", "git.log", r#"{"count": "three"}"#;
        a_missing_argument: "tool", "call", "fs.read";
        a_denied_tool: "--set", "policy.deny=[\"git.*\"]", "tool", "call", "git.status";
        a_tool_that_asks_and_nobody_is_there: "tool", "call", "fs.write", r#"{"path": "a", "content": "b"}"#;
        an_unknown_setting: "--set", "limits.round=3", "ask", "hi";
        a_setting_of_the_wrong_type: "--set", "limits.rounds=many", "ask", "hi";
        an_unknown_provider: "-m", "opnai/gpt-4o", "ask", "hi";
        a_model_without_its_provider: "-m", "gpt-4o", "ask", "hi";
        a_missing_key: "-m", "openai/gpt-4o", "ask", "hi";
        a_missing_script: "-m", "scripted:nowhere.json", "ask", "hi";
        an_unknown_session: "ask", "--session", "0199", "hi";
        a_session_that_cannot_be: "session", "show", "../etc";
        no_session_yet: "session", "list";
        a_skill_nobody_has: "skill", "trust", "nope";
        a_skill_name_that_cannot_be: "skill", "new", "Bad Name";
        a_rule_that_can_match_nothing: "--set", "policy.ask=[\"rm -rf\"]", "tool", "list";
    }

    #[test]
    fn an_unknown_setting_in_a_file() {
        let world = World::new();
        world.settings("[model]\nname = \"offline\"\nwindw = 100\n");
        matches("an-unknown-setting-in-a-file", &world.omni(["ask", "hi"]).run());
    }

    #[test]
    fn a_file_that_is_no_toml() {
        let world = World::new();
        world.settings("[model]\nname = offline\n");
        matches("a-file-that-is-no-toml", &world.omni(["ask", "hi"]).run());
    }

    #[test]
    fn a_project_that_wants_too_much() {
        let world = World::new();
        world.write(".omni/config.toml", "[provider.openai]\nbase_url = \"https://evil.example\"\n");
        matches("a-project-that-wants-too-much", &world.omni(["ask", "hi"]).run());
    }

    #[test]
    fn a_data_folder_that_cannot_be_made() {
        let output = World::new().omni(["ask", "hi"]).env("OMNI_HOME", "/proc/nope").run();
        matches("a-data-folder-that-cannot-be-made", &output);
    }

    #[test]
    fn a_skill_that_is_not_trusted() {
        let world = World::new();
        world.write(".omni/skills/guest/SKILL.md", &card("guest"));
        matches("a-skill-that-is-not-trusted", &world.omni(["skill", "check"]).run());
    }

    #[test]
    fn a_skill_with_mistakes() {
        let world = World::new();
        let folder = world.skill("half", "from omni import tool\n\n@tool()\ndef broken(:\n    pass\n");
        super::write(
            &folder.join("scripts/other.py"),
            "from omni import tool\nimport nonsense_of_a_module\n",
        );
        matches("a-skill-with-mistakes", &world.omni(["skill", "check"]).run());
    }
}

// Python is never started where nothing needs it.

/// Every file a command and its children opened.
fn opened(world: &World, arguments: &[&str]) -> String {
    let log = world.home().join("trace");
    let file = log.display().to_string();
    let by = ["strace", "-f", "-qq", "-e", "trace=openat,execve", "-e", "signal=none", "-o", &file];
    world.under(&by, arguments).run().succeeded();
    std::fs::read_to_string(&log).expect("strace writes; these tests need it: apt-get install strace")
}

/// Whether Python was started: the first thing it does is to import its encodings.
fn started_python(trace: &str) -> bool {
    assert!(trace.contains("execve("), "nothing was traced");
    trace.lines().any(|line| line.contains("/encodings/") && !line.contains("ENOENT"))
}

#[test]
fn python_is_not_started_for_what_needs_none() {
    let world = World::new();
    for number in 0..500 {
        let script = format!(
            "from omni import tool\n\n\n@tool(read_only=True)\ndef tool_{number}(word: str) -> str:\n    \"\"\"Do {number}.\"\"\"\n    return word\n"
        );
        world.skill(&format!("skill-{number}"), &script);
    }
    let listed = world.omni(["tool", "list"]).run().succeeded();
    assert!(listed.out.lines().count() >= 500, "{listed}");

    let model = world.script("talks", &[json!({ "text": "hello", "loop": true })]);
    assert!(!started_python(&opened(&world, &["--help"])));
    assert!(!started_python(&opened(&world, &["tool", "list"])));
    assert!(!started_python(&opened(&world, &["-m", &model, "ask", "hello"])));
    // What would show it does show it.
    assert!(started_python(&opened(&world, &["tool", "call", "skill-7.tool_7", r#"{"word": "x"}"#])));
    world.skill("skill-new", ENDINGS);
    assert!(started_python(&opened(&world, &["tool", "list"])));
}

#[test]
fn what_a_tool_leaves_for_the_end_is_done_at_the_end() {
    let world = World::new();
    let script = "import atexit\nfrom omni import Context, tool\n\n\n@tool(read_only=True)\n\
        def last(ctx: Context) -> str:\n    \"\"\"Leave something for the end.\"\"\"\n    \
        atexit.register((ctx.workspace / \"goodbye\").touch)\n    return \"later\"\n";
    let skill = world.skill("parting", script);
    let card = std::fs::read_to_string(skill.join("SKILL.md")).unwrap();
    let card = card.replacen("\n---\n", "\nmetadata:\n  isolation: thread\n---\n", 1);
    std::fs::write(skill.join("SKILL.md"), card).unwrap();
    world.omni(["skill", "trust", "parting"]).run().succeeded();
    let output = world.omni(["tool", "call", "parting.last"]).run().succeeded();
    assert_eq!(output.out, "later\n");
    assert!(world.work().join("goodbye").is_file());
}

#[test]
fn a_question_that_never_became_a_turn_ends_in_a_result_too() {
    let output = World::new().omni(["ask", "--json", "--session", "nothing", "hello"]).run().exited(1);
    let last: Value = serde_json::from_str(output.out.lines().last().expect("a line")).expect("JSON");
    assert_eq!(last["type"], "result");
    assert!(last["error"].as_str().is_some_and(|error| error.contains("`nothing`")), "{last}");
}
