//! Omni between pipes: messages as lines, and events as JSON lines both ways, with the real program.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::kill;
use crate::support::omni::{OMNI, Started, World, write};
use crate::support::vendor::{Answer, Vendor};

/// A tool that writes where only answers belong, and one that asks a person.
const NOISY: &str = r#"
import os
import subprocess

from omni import Context, tool
from pydantic import BaseModel


@tool(read_only=True)
def noise() -> str:
    """Write to standard output in every way there is."""
    print("a print", flush=True)
    os.write(1, b"a write\n")
    subprocess.run(["sh", "-c", "echo a child; cat"], check=True)
    return "done"


class Size(BaseModel):
    size: int


@tool(read_only=True)
async def order(ctx: Context) -> str:
    """Order something."""
    answer = await ctx.aelicit("How large?", Size)
    return "nothing" if answer is None else f"size {answer.size}"
"#;

/// A world with these tools, in the very process that answers.
fn noisy() -> World {
    let world = World::new();
    let folder = world.skill("noisy", NOISY);
    let card = "---\nname: noisy\ndescription: Prints and asks.\nmetadata:\n  isolation: thread\n---\n";
    write(&folder.join("SKILL.md"), card);
    world.omni(["--yes", "skill", "trust", "noisy"]).run().succeeded();
    world
}

fn writes(text: &str) -> [Value; 2] {
    let arguments = json!({ "path": "a.txt", "content": "hello\n" });
    [json!({ "calls": [{ "name": "fs__write", "arguments": arguments }] }), json!({ "text": text })]
}

// Lines.

#[test]
fn every_line_has_one_answer_and_all_are_of_one_session() {
    let world = World::new();
    let texts = ["one", "two\nlines", "three"].map(|text| json!({ "text": text }));
    let model = world.script("talks", &texts);
    let output = world.omni(["stdio"]).model(&model).input("first\n\n  \nsecond\nthird").run().succeeded();
    assert_eq!((output.out.as_str(), output.err.as_str()), ("one\ntwo\nlines\nthree\n", ""), "{output}");
    assert_eq!(world.omni(["--json", "session", "list"]).run().succeeded().json().len(), 1);
    let model = world.script("goes-on", &[json!({ "text": "yes", "expect": { "contains": "fourth" } })]);
    world.omni(["stdio", "--continue"]).model(&model).input("fourth\n").run().succeeded();
    let sessions = world.omni(["--json", "session", "list"]).run().succeeded().json();
    assert_eq!((sessions.len(), sessions[0]["messages"].as_u64()), (1, Some(8)), "{sessions:?}");
}

#[test]
fn an_answer_that_cannot_be_had_is_a_line_and_the_next_one_has_its_turn() {
    let (world, vendor) = (World::new(), Vendor::launch());
    vendor.answer(Answer::status(400, "no such thing"));
    vendor.answer(Answer::text("half an answer").half());
    vendor.answer(Answer::text("fine"));
    let run = world.omni(["stdio"]).model("openai/gpt-4o");
    let run = run.env("OPENAI_BASE_URL", vendor.openai_url()).env("OPENAI_API_KEY", "sk-test");
    let output = run.input("one\ntwo\nthree\n").run().exited(1);
    let lines: Vec<&str> = output.out.lines().collect();
    assert_eq!(lines.len(), 3, "{output}");
    assert!(lines[0].starts_with("error: ") && lines[0].contains("no such thing"), "{output}");
    assert!(lines[1].starts_with("error: ") && lines[1].contains("broke off"), "{output}");
    assert_eq!(lines[2], "fine");
}

#[test]
fn with_zero_bytes_both_sides_may_have_several_lines() {
    let world = World::new();
    let first = json!({ "text": "one\n\ntwo\n", "expect": { "contains": "a\nb" } });
    let model = world.script("talks", &[first, json!({ "text": "three" })]);
    let output = world.omni(["stdio", "-0"]).model(&model).input("a\nb\0c\0").run().succeeded();
    assert_eq!(output.out.trim_end_matches('\n'), "one\n\ntwo\0three\0", "{output}");
}

#[test]
fn a_line_that_cannot_be_read_has_an_error_for_an_answer() {
    let world = World::new();
    let model = world.script("talks", &[json!({ "text": "fine", "loop": true })]);
    let input = [b"one\ntw\xff\n", &vec![b'x'; 20 << 20][..], b"\nfour\n"].concat();
    let output = world.omni(["stdio"]).model(&model).input(input).run().exited(1);
    assert_eq!(
        output.out,
        "fine\nerror: message 2 cannot be read: byte 3 of it is no UTF-8\n\
         error: message 3 cannot be read: it is longer than 4 MB\nfine\n"
    );
}

#[test]
fn what_tools_and_their_children_print_is_no_answer() {
    let world = noisy();
    let calls = json!({ "calls": [{ "name": "noisy__noise" }] });
    let model = world.script("noisy", &[calls, json!({ "text": "quiet", "expect": { "contains": "done" } })]);
    let run = world.omni(["-v", "stdio"]).model(&model).env("OMNI_LOG__LEVEL", "trace");
    let output = run.input("go\n").run().succeeded();
    assert_eq!(output.out, "quiet\n", "{output}");
    assert!(["write", "child"].iter().all(|word| output.err.contains(word)), "{output}");
    let script = [json!({ "calls": [{ "name": "noisy__noise" }] }), json!({ "text": "quiet" })];
    let model = world.script("noisy-again", &script);
    let said = json!({ "type": "message", "text": "go" });
    let output = world.omni(["stdio", "--json"]).model(&model).input(said.to_string()).run().succeeded();
    assert_eq!(output.last()["text"], "quiet", "{output}");
}

#[test]
fn nobody_is_asked_between_lines_and_commands_are_understood() {
    let world = World::new();
    let model = world.script("writes", &writes("It was refused."));
    let output = world.omni(["stdio"]).model(&model).input("/status\nwrite\n/good\n").run().succeeded();
    let lines: Vec<&str> = output.out.lines().collect();
    assert!(lines[0].starts_with("model: scripted") && lines[4] == "It was refused.", "{output}");
    assert!(!world.work().join("a.txt").exists());
}

#[test]
fn a_conversation_is_kept_by_a_name_and_gone_back_to() {
    let world = World::new();
    let vendor = Vendor::launch();
    vendor.echoes(Duration::ZERO);
    let run = world.omni(["stdio"]).model("openai/gpt-4o");
    let run = run.env("OPENAI_BASE_URL", vendor.openai_url()).env("OPENAI_API_KEY", "sk-test");
    let run = run.env("OMNI_MEMORY__ENABLED", "false");
    let lines = [
        "one",
        "/snapshot",
        "/snapshot tea time",
        "/snapshot",
        "two",
        "/reset",
        "three",
        "/restore tea time",
        "four",
        "/restore supper",
        "/restore",
        "five",
    ];
    let output = run.input(lines.map(|line| format!("{line}\n")).concat()).run().succeeded();
    let told = "re: one\n\
        say by which name: /snapshot NAME; nothing was kept in this session yet\n\
        it is kept; /restore tea time goes back\n\
        say by which name: /snapshot NAME; there are: tea time\n\
        re: two\n\
        the conversation begins anew; /restore goes back\n\
        re: three\n\
        the conversation is what it was\n\
        re: four\n\
        nothing was kept as `supper`; there are: tea time\n\
        the conversation is what it was\n\
        re: five\n";
    assert_eq!(output.out, told, "{output}");
    // What the model was shown each time.
    let shown: Vec<String> = vendor.requests().iter().map(|request| user_texts(&request.body)).collect();
    assert_eq!(shown, ["one", "one two", "three", "one four", "three five"]);
}

#[test]
fn what_was_used_and_which_servers_there_are_is_told_and_a_conversation_is_written_down() {
    let world = World::new();
    let said = json!({ "text": "Tea, ```hot```.", "usage": { "input": 90, "output": 10, "cost": 1500 } });
    let call = json!({ "calls": [{ "name": "fs__stat", "arguments": { "path": "a.md" } }] });
    let model = world.script("m", &[said, call, json!({ "text": "Nothing." })]);
    world.write("there.md", "mine\n");
    world.write(
        "mcp.json",
        &json!({ "mcpServers": {
        "gone": { "command": "/bin/false" },
        "off": { "command": "/bin/false", "disabled": true },
    } })
        .to_string(),
    );
    let run = world.omni(["--mcp-config", "mcp.json", "stdio"]).model(&model);
    let run = run.env("OMNI_BUDGET__SESSION_TOKENS", "1000");
    let lines = [
        "/usage",
        "/export",
        "/clear",
        "what is there?",
        "/usage",
        "look",
        "/export notes/tea.md",
        "/export notes/tea.md",
        "/export there.md",
        "/export --force there.md",
        "/export tea.jsonl",
        "/export tea.pdf",
        "/export --over tea.md",
        "/export ../tea.md",
        "/mcp off",
        "/mcp nothing",
        "/mode",
        "/mode allow",
        "/clear",
    ];
    let output = run.input(lines.map(|line| format!("{line}\n")).concat()).run().succeeded();
    let told = "this conversation: nothing that was counted\n\
        all conversations today: nothing that was counted\n\
        budget of this conversation: 0 of 1000 tokens\n\
        there is nothing to export: nothing was said yet\n\
        nothing was said yet\n\
        Tea, ```hot```.\n\
        this conversation: 1 turn, 100 tokens (90 in, 0 of them cached, 10 out) for 0.0015 dollars\n\
        all conversations today: 1 turn, 100 tokens (90 in, 0 of them cached, 10 out) for 0.0015 dollars\n\
        budget of this conversation: 100 of 1000 tokens\n\
        Nothing.\n\
        the conversation is in `notes/tea.md`\n\
        `notes/tea.md` is there already; /export --force notes/tea.md replaces it\n\
        `there.md` is there already; /export --force there.md replaces it\n\
        the conversation is in `there.md`\n\
        the conversation is in `tea.jsonl`\n\
        `tea.pdf` ends neither in `.md`, for people, nor in `.jsonl`, for programs\n\
        `--over` is no option of /export; `--force` replaces a file\n\
        `../tea.md` leads out of `WORK`\n\
        off  disabled\n\
        there is no MCP server `nothing`; there are: gone, off\n\
        this is chosen when omni is started, and not here: `--yes`, or `policy.allow` in the settings\n\
        this is chosen when omni is started, and not here: `--yes`, or `policy.allow` in the settings\n\
        the conversation begins anew; /restore goes back\n";
    let work = world.work().canonicalize().expect("a folder");
    assert_eq!(output.out.replace(&work.display().to_string(), "WORK"), told, "{output}");
    let read = |file: &str| std::fs::read_to_string(world.work().join(file)).expect("a file");
    let markdown = read("notes/tea.md");
    let parts = [
        "# what is there?",
        "## You, ",
        "## Omni, ",
        "Tea, ```hot```.",
        "`fs__stat`",
        "\"kind\":\"nothing\"",
    ];
    parts.iter().for_each(|part| assert!(markdown.contains(part), "{part}: {markdown}"));
    assert_eq!(read("there.md"), markdown);
    let first: Value = serde_json::from_str(read("tea.jsonl").lines().next().expect("a line")).expect("JSON");
    assert_eq!(first["title"], "what is there?");
    assert!(!world.work().join("../tea.md").exists());
}

#[test]
fn a_server_that_is_not_there_is_listed_with_what_it_said_last() {
    let world = World::new();
    let gone = json!({ "command": "sh", "args": ["-c", "echo lost >&2; exit 1"] });
    world.write("mcp.json", &json!({ "mcpServers": { "gone": gone } }).to_string());
    let run = world.omni(["--mcp-config", "mcp.json", "stdio"]).model("offline");
    let mut omni = run.talking().start();
    let told = kill::until(|| {
        omni.say("/mcp gone");
        omni.say("/mode");
        let mut told = String::new();
        loop {
            match omni.until("") {
                line if line.contains("this is chosen") => break,
                line => told.push_str(&line),
            }
        }
        // Its last words may be read a moment later.
        told.contains("│ lost").then_some(told)
    });
    assert!(told.starts_with("gone  down: ") && told.contains("exit status: 1"), "{told}");
}

/// What users say in a request, in a line.
fn user_texts(body: &Value) -> String {
    let messages = body["messages"].as_array().unwrap().iter();
    let said = messages.filter(|message| message["role"] == "user");
    said.map(|message| message["content"].as_str().unwrap_or_default()).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_reader_that_goes_away_ends_it_in_both_forms() {
    let world = World::new();
    let model = world.script("talks", &[json!({ "text": "yes", "loop": true })]);
    let said = json!({ "type": "message", "text": "hello" });
    for (arguments, line) in [("stdio", "hello".to_owned()), ("stdio --json", said.to_string())] {
        // What is said never ends; only the broken pipe can end this.
        let script = format!("yes '{line}' | {{ {OMNI} {arguments}; echo \"code $?\" >&2; }} | head -n 1");
        let output = world.program(&["sh", "-c", &script]).model(&model).run().succeeded();
        assert_eq!(output.err.trim(), "code 0", "{arguments}");
        assert_eq!(output.out.lines().count(), 1, "{arguments}");
    }
}

#[test]
fn told_to_stop_it_says_what_became_of_the_turn() {
    for (signal, code) in [(libc::SIGINT, 130), (libc::SIGTERM, 143)] {
        let (world, vendor) = (World::new(), Vendor::launch());
        let start = |arguments: &[&str]| {
            vendor.answer(Answer::text("one two three four").stalls());
            let run = world.omni(arguments).model("openai/gpt-4o");
            let run = run.env("OPENAI_BASE_URL", vendor.openai_url()).env("OPENAI_API_KEY", "sk-test");
            run.talking().start()
        };
        let mut lines = start(&["stdio"]);
        lines.say("count");
        kill::until(|| (vendor.requests().len() == 1).then_some(()));
        lines.signal(signal);
        assert_eq!(lines.end().exited(code).out, "error: the turn was cancelled\n");
        let mut json = Program { omni: start(&["stdio", "--json"]) };
        json.say(json!({ "type": "message", "text": "count" }));
        json.until("message.delta");
        json.omni.signal(signal);
        let output = json.omni.end().exited(code);
        assert_eq!(output.last()["stop"], "cancelled", "{output}");
        // Both were in the log before.
        let kept = world.omni(["--json", "session", "list"]).run().succeeded().json();
        assert_eq!(kept.len(), 2, "{kept:?}");
    }
}

// JSON.

/// A program that has started omni.
struct Program {
    omni: Started,
}

impl Program {
    fn start(world: &World, model: &str) -> Self {
        Self { omni: world.omni(["stdio", "--json"]).model(model).talking().start() }
    }

    fn say(&mut self, line: Value) {
        self.omni.say(&line.to_string());
    }

    fn next(&mut self) -> Value {
        let line = self.omni.until("");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// The next line of this type.
    fn until(&mut self, kind: &str) -> Value {
        loop {
            let line = self.next();
            if line["type"] == kind {
                return line;
            }
        }
    }

    /// Says a message and returns its result.
    fn ask(&mut self, text: &str) -> Value {
        self.say(json!({ "type": "message", "text": text }));
        self.until("result")
    }

    /// Says a line that is none and returns what it is told.
    fn wrong(&mut self, line: &str) -> String {
        self.omni.say(line);
        let told = self.next();
        assert_eq!(told["type"], "error", "{told}");
        assert!(told["line"].as_u64().is_some_and(|line| line > 0), "{told}");
        told["error"].as_str().expect("words").to_owned()
    }
}

#[test]
fn a_message_is_accepted_told_of_and_answered() {
    let world = World::repository();
    let calls = json!({ "reasoning": "hm", "calls": [{ "name": "git__status" }], "usage": { "input": 9, "output": 1 } });
    let model = world.script("looks", &[calls, json!({ "text": "One new file." })]);
    let said = json!({ "type": "message", "text": "what is new?", "id": 7 });
    // The end of the messages is no reason to leave a turn.
    let output = world.omni(["stdio", "--json"]).model(&model).input(format!("{said}\n")).run().succeeded();
    let lines = output.json();
    let kinds: Vec<&str> = lines.iter().map(|line| line["type"].as_str().expect("a type")).collect();
    assert_eq!(kinds[..2], ["message.accepted", "turn.started"], "{output}");
    for kind in ["reasoning.delta", "tool.started", "tool.completed", "usage", "message.delta"] {
        assert!(kinds.contains(&kind), "no {kind}: {output}");
    }
    assert_eq!(lines[0]["message"], 7);
    let last = output.last();
    assert_eq!((&last["type"], &last["text"]), (&json!("result"), &json!("One new file.")));
    assert!(lines.iter().all(|line| line["session"] == last["session"] && line["turn"] == last["turn"]));
    assert_eq!(output.err, "");
}

#[test]
fn a_tool_is_agreed_to_once_always_or_not() {
    let world = World::new();
    let steps = [writes("first"), writes("second"), writes("third"), writes("fourth")].concat();
    let model = world.script("writes", &steps);
    let mut program = Program::start(&world, &model);
    let file = world.work().join("a.txt");
    for (consent, is_written) in [("no", false), ("once", true), ("always", true)] {
        program.say(json!({ "type": "message", "text": "write" }));
        let asked = program.until("approval.requested");
        assert_eq!((&asked["tool"], &asked["arguments"]["path"]), (&json!("fs.write"), &json!("a.txt")));
        assert!(!file.exists(), "it waits for the answer");
        let (call, turn) = (&asked["call"], &asked["turn"]);
        program.say(json!({ "type": "consent", "call": call, "turn": turn, "consent": consent }));
        assert_eq!(program.until("result")["stop"], "answered");
        assert_eq!(file.exists(), is_written, "{consent}");
        let _ = std::fs::remove_file(&file);
    }
    program.say(json!({ "type": "message", "text": "write" }));
    while program.next()["type"] != "result" {}
    assert!(file.exists(), "always is for the whole session");
    program.omni.end().succeeded();
}

#[test]
fn a_tool_that_asks_a_person_gets_the_answer_of_the_program() {
    let world = noisy();
    let orders = |text: &str| [json!({ "calls": [{ "name": "noisy__order" }] }), json!({ "text": text })];
    let model = world.script("orders", &[orders("first"), orders("second")].concat());
    let mut program = Program::start(&world, &model);
    for (answer, result) in [(json!({ "size": 7 }), "size 7"), (Value::Null, "nothing")] {
        program.say(json!({ "type": "message", "text": "order" }));
        let asked = program.until("elicitation.requested");
        assert_eq!(asked["message"], "How large?");
        assert_eq!(asked["schema"]["properties"]["size"]["type"], "integer", "{asked}");
        let wrong = json!({ "type": "consent", "call": asked["call"], "consent": "once" }).to_string();
        assert!(program.wrong(&wrong).contains("waits for an `answer`"));
        program.say(json!({ "type": "answer", "call": asked["call"], "answer": answer }));
        let done = program.until("tool.completed");
        assert!(done["result"].to_string().contains(result), "{done}");
        program.until("result");
    }
    program.omni.end().succeeded();
}

#[test]
fn sessions_have_the_programs_own_names_and_go_on_side_by_side() {
    let (world, vendor) = (World::new(), Vendor::launch());
    let run = world.omni(["stdio", "--json"]).model("openai/gpt-4o");
    let run = run.env("OPENAI_BASE_URL", vendor.openai_url()).env("OPENAI_API_KEY", "sk-test");
    let mut program = Program { omni: run.talking().start() };
    vendor.answer(Answer::text("one two three four").stalls());
    program.say(json!({ "type": "message", "session": "slow", "text": "a" }));
    let slow = program.until("message.delta");
    assert_eq!(slow["session"], "slow");
    vendor.answer(Answer::text("quick"));
    program.say(json!({ "type": "message", "session": "quick", "text": "b" }));
    let quick = program.until("result");
    assert_eq!((&quick["session"], &quick["text"]), (&json!("quick"), &json!("quick")));
    program.say(json!({ "type": "cancel", "turn": slow["turn"] }));
    let ended = program.until("result");
    assert_eq!((&ended["session"], &ended["stop"]), (&json!("slow"), &json!("cancelled")));
    // One without a name is the connection's own, and goes on.
    vendor.answer(Answer::text("first"));
    vendor.answer(Answer::text("second"));
    let own = program.ask("c")["session"].clone();
    assert!(own != "slow" && own != "quick");
    assert_eq!(program.ask("d")["session"], own);
    let told = program.ask("/status");
    assert!(told["text"].as_str().is_some_and(|text| text.contains("4 messages")), "{told}");
    program.omni.end().succeeded();
}

#[test]
fn a_line_that_is_no_message_is_told_and_harms_nothing() {
    let world = World::new();
    let model = world.script("talks", &[json!({ "text": "fine", "loop": true })]);
    let mut program = Program::start(&world, &model);
    for (line, told) in [
        ("hello", "this is no message: expected value"),
        ("[1]", "this is no message"),
        ("{\"type\": \"message\", \"text\": \"a\"", "EOF while parsing"),
        (r#"{"text": "hello"}"#, "missing field `type`"),
        (r#"{"type": "massage", "text": "hello"}"#, "unknown variant `massage`, expected one of `message`"),
        (r#"{"type": "message"}"#, "missing field `text`"),
        (r#"{"type": "message", "text": "a", "sesion": "b"}"#, "unknown field `sesion`"),
        (r#"{"type": "message", "text": 3}"#, "invalid type: integer `3`, expected a string"),
        (r#"{"type": "consent", "call": "c", "consent": "maybe"}"#, "unknown variant `maybe`"),
        (r#"{"type": "consent", "call": "c", "consent": "once"}"#, "the call `c` does not wait"),
        (r#"{"type": "answer", "call": "c", "answer": {}}"#, "the call `c` does not wait"),
        (r#"{"type": "cancel", "turn": "t"}"#, "no turn `t` goes on"),
        (&"x".repeat(20 << 20), "it is longer than 4 MB"),
    ] {
        let error = program.wrong(line);
        assert!(error.contains(told), "{told}: {error}");
    }
    program.say(json!({ "type": "message", "text": "  ", "id": "a" }));
    let result = program.next();
    let told = (&result["type"], &result["message"], &result["stop"], &result["error"]);
    assert_eq!(told, (&json!("result"), &json!("a"), &json!("failed"), &json!("`text` is empty")));
    program.say(json!({ "type": "cancel" }));
    assert_eq!(program.ask("still there?")["text"], "fine");
    program.omni.end().succeeded();
}

#[test]
fn standard_input_that_ends_in_a_turn_refuses_what_waits_and_lets_it_end() {
    let world = World::new();
    let model = world.script("writes", &[&writes("It was refused.")[..], &writes("never")].concat());
    let mut program = Program::start(&world, &model);
    program.say(json!({ "type": "message", "text": "write" }));
    let asked = program.until("approval.requested");
    let output = program.omni.end().succeeded();
    let told = output.json().into_iter().find(|line| line["type"] == "error").expect("an error");
    assert_eq!((&told["call"], &told["turn"]), (&asked["call"], &asked["turn"]));
    assert!(told["error"].as_str().is_some_and(|error| error.contains("standard input has ended")), "{told}");
    assert_eq!((&output.last()["type"], &output.last()["stop"]), (&json!("result"), &json!("answered")));
    // The same where it has ended before anything was asked.
    let said = json!({ "type": "message", "text": "write" });
    let model = world.script("writes-later", &writes("It was refused."));
    let output = world.omni(["stdio", "--json"]).model(&model).input(said.to_string()).run().succeeded();
    assert!(output.json().iter().any(|line| line["type"] == "error"), "{output}");
    assert_eq!(output.last()["text"], "It was refused.", "{output}");
    assert!(!world.work().join("a.txt").exists());
}

#[test]
fn what_keeps_it_from_beginning_is_the_last_line_too() {
    let world = World::new();
    for (arguments, code, told) in [
        (&["stdio", "--json"][..], 3, "OPENAI_API_KEY"),
        (&["stdio", "--json", "--session", "nope"], 1, "nope"),
    ] {
        let output = world.omni(arguments).model("openai/gpt-4o").run().exited(code);
        let last = output.last();
        assert_eq!(last["type"], "result", "{output}");
        assert!(last["error"].as_str().is_some_and(|error| error.contains(told)), "{output}");
        assert!(output.err.starts_with("error: ") && !output.err.contains("\"type\""), "{output}");
    }
}

#[test]
fn every_field_that_is_written_is_in_the_documentation() {
    let world = noisy();
    let order = json!({ "reasoning": "hm", "calls": [{ "name": "noisy__order" }] });
    let model = world.script("all", &[&[order], &writes("Done.")[..]].concat());
    let mut program = Program::start(&world, &model);
    program.say(json!({ "type": "message", "text": "write", "id": 1 }));
    let asked = program.until("elicitation.requested");
    program.say(json!({ "type": "answer", "call": asked["call"], "answer": { "size": 1 } }));
    program.until("approval.requested");
    let output = program.omni.end().succeeded();
    let lines = output.json();
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/scripts.md")).expect("a page");
    let known: BTreeSet<&str> = page.split('`').skip(1).step_by(2).collect();
    for line in &lines {
        let kind = line["type"].as_str().expect("a type");
        assert!(known.contains(kind), "docs/scripts.md has no type `{kind}`");
        let nested = ["result", "usage"].iter().filter_map(|field| line[*field].as_object());
        for field in nested.chain(line.as_object()).flat_map(|object| object.keys()) {
            assert!(known.contains(field.as_str()), "docs/scripts.md has no field `{field}` of {kind}");
        }
    }
    let kinds: BTreeSet<&str> = lines.iter().filter_map(|line| line["type"].as_str()).collect();
    assert!(kinds.len() >= 9, "{kinds:?}");
}
