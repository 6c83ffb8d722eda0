//! Omni as the agent of an editor: the Agent Client Protocol, line by line, with the real program.
//!
//! Many of these are what users of other agents complained about.

use serde_json::{Value, json};

use crate::support::mcp::python;
use crate::support::omni::{OMNI, Run, Started, World, write};

/// An editor that has started omni.
struct Editor {
    omni: Started,
    last: u64,
    /// What is said when a tool asks; `None` says nothing.
    permits: Option<&'static str>,
    asked: Vec<Value>,
}

/// What came of a request: what was heard meanwhile, and the answer.
struct Heard {
    updates: Vec<Value>,
    answer: Value,
}

impl Heard {
    /// The updates of this kind.
    fn of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.updates.iter().filter(move |update| update["sessionUpdate"] == kind)
    }

    /// The answer's text.
    fn text(&self) -> String {
        self.of("agent_message_chunk").filter_map(|chunk| chunk["content"]["text"].as_str()).collect()
    }

    #[track_caller]
    fn stopped(&self, reason: &str) -> &Self {
        assert_eq!(self.answer["result"]["stopReason"], reason, "{}", self.answer);
        self
    }
}

impl Editor {
    fn start(run: Run) -> Self {
        let mut editor =
            Self { omni: run.talking().start(), last: 0, permits: Some("once"), asked: Vec::new() };
        let answer =
            editor.ask("initialize", json!({ "protocolVersion": 1, "clientCapabilities": {} })).answer;
        assert_eq!(answer["result"]["protocolVersion"], 1);
        editor
    }

    fn send(&mut self, message: &Value) {
        self.omni.say(&message.to_string());
    }

    /// The next message; every line is one.
    fn next(&mut self) -> Value {
        let line = self.omni.until("");
        let message: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(message["jsonrpc"], "2.0", "{line}");
        message
    }

    fn post(&mut self, method: &str, params: Value) -> u64 {
        self.last += 1;
        let id = self.last;
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
        id
    }

    /// Listens until the request has its answer.
    fn hear(&mut self, id: u64) -> Heard {
        let mut updates = Vec::new();
        loop {
            let message = self.next();
            match message["method"].as_str() {
                Some("session/update") => updates.push(message["params"]["update"].clone()),
                Some("session/request_permission") => {
                    self.asked.push(message["params"].clone());
                    let Some(option) = self.permits else { return Heard { updates, answer: message } };
                    let outcome = json!({ "outcome": { "outcome": "selected", "optionId": option } });
                    self.send(&json!({ "jsonrpc": "2.0", "id": message["id"], "result": outcome }));
                }
                Some(other) => panic!("nobody asked for {other}"),
                None if message["id"] == id => return Heard { updates, answer: message },
                None => {}
            }
        }
    }

    fn ask(&mut self, method: &str, params: Value) -> Heard {
        let id = self.post(method, params);
        self.hear(id)
    }

    /// A new session in the workspace.
    fn session(&mut self, world: &World) -> String {
        let heard = self.ask("session/new", json!({ "cwd": world.work(), "mcpServers": [] }));
        heard.answer["result"]["sessionId"].as_str().unwrap_or_else(|| panic!("{}", heard.answer)).to_owned()
    }

    fn prompt(&mut self, session: &str, text: &str) -> Heard {
        self.ask("session/prompt", words(session, text))
    }

    /// Listens for the commands that come after a session has begun.
    fn commands(&mut self) -> Vec<Value> {
        loop {
            let update = self.next()["params"]["update"].clone();
            if update["sessionUpdate"] == "available_commands_update" {
                return update["availableCommands"].as_array().cloned().expect("a list");
            }
        }
    }
}

fn words(session: &str, text: &str) -> Value {
    json!({ "sessionId": session, "prompt": [{ "type": "text", "text": text }] })
}

fn writes() -> [Value; 2] {
    let arguments = json!({ "path": "a.txt", "content": "hello\n" });
    [
        json!({ "reasoning": "hm", "text": "I write it.", "calls": [{ "name": "fs__write", "arguments": arguments }] }),
        json!({ "text": "Done, one file." }),
    ]
}

/// Pieces of one message joined, and what is only told of a turn that goes on left out.
fn whole(updates: &[Value]) -> Vec<Value> {
    let mut whole: Vec<Value> = Vec::new();
    for update in updates {
        let kind = update["sessionUpdate"].as_str().unwrap_or_default();
        if ["usage_update", "session_info_update", "available_commands_update", "user_message_chunk"]
            .contains(&kind)
        {
            continue;
        }
        let piece = update["content"]["text"].as_str().filter(|_| kind.ends_with("_chunk"));
        match (piece, whole.last_mut()) {
            (Some(piece), Some(last)) if last["messageId"] == update["messageId"] => {
                let text = format!("{}{piece}", last["content"]["text"].as_str().expect("a text"));
                last["content"]["text"] = text.into();
            }
            _ => whole.push(update.clone()),
        }
    }
    whole
}

#[test]
fn a_tool_that_needs_permission_is_allowed() {
    let world = World::new();
    let model = world.script("m", &writes());
    let mut editor = Editor::start(world.omni(["acp"]).model(&model));
    let session = editor.session(&world);
    let heard = editor.prompt(&session, "write hello");
    heard.stopped("end_turn");
    assert_eq!(heard.text(), "I write it.Done, one file.");
    assert_eq!(std::fs::read_to_string(world.work().join("a.txt")).expect("it is written"), "hello\n");
    let began = heard.of("tool_call").next().expect("a call");
    assert_eq!(began["kind"], "edit");
    assert_eq!(began["locations"][0]["path"], json!(world.work().join("a.txt")));
    assert_eq!(began["content"][0]["newText"], "hello\n");
    assert_eq!(heard.of("session_info_update").next().expect("a title")["title"], "write hello");
    assert_eq!(editor.omni.end().code(), 0);
}

#[test]
fn a_permission_shows_what_would_run_and_a_result_what_came_of_it() {
    let world = World::new();
    let arguments = json!({ "argv": ["echo", "so much"] });
    let call = json!({ "calls": [{ "name": "process__run", "arguments": arguments }] });
    let model = world.script("m", &[call, json!({ "text": "ok" })]);
    let mut editor = Editor::start(world.omni(["acp"]).model(&model));
    let session = editor.session(&world);
    let heard = editor.prompt(&session, "run it");
    heard.stopped("end_turn");
    let asked = &editor.asked[0]["toolCall"];
    assert_eq!(asked["title"], "process.run echo so much");
    assert_eq!(asked["rawInput"], arguments);
    assert_eq!(asked["kind"], "execute");
    let kinds: Vec<_> =
        editor.asked[0]["options"].as_array().expect("a list").iter().map(|o| &o["kind"]).collect();
    assert_eq!(kinds, ["allow_once", "allow_always", "reject_once"]);
    let ended = heard.of("tool_call_update").last().expect("an end");
    assert_eq!(ended["status"], "completed");
    assert!(ended["content"].to_string().contains("so much"), "{ended}");
}

#[test]
fn a_tool_that_is_refused_does_not_run() {
    let world = World::new();
    let model = world.script("m", &writes());
    let mut editor = Editor::start(world.omni(["acp"]).model(&model));
    editor.permits = Some("no");
    let session = editor.session(&world);
    let heard = editor.prompt(&session, "write hello");
    heard.stopped("end_turn");
    assert_eq!(heard.of("tool_call_update").last().expect("an end")["status"], "failed");
    assert!(!world.work().join("a.txt").exists());
}

#[test]
fn a_turn_that_is_cancelled_while_it_asks_stops_as_cancelled() {
    let world = World::new();
    let model = world.script("m", &writes());
    let mut editor = Editor::start(world.omni(["acp"]).model(&model));
    editor.permits = None;
    let session = editor.session(&world);
    let id = editor.post("session/prompt", words(&session, "write hello"));
    assert_eq!(editor.hear(id).answer["method"], "session/request_permission");
    editor.send(&json!({ "jsonrpc": "2.0", "method": "session/cancel", "params": { "sessionId": session } }));
    editor.hear(id).stopped("cancelled");
    assert!(!world.work().join("a.txt").exists());
}

#[test]
fn agreed_to_always_is_asked_once_and_the_mode_that_allows_asks_never() {
    let world = World::new();
    let [call, text] = writes();
    let steps = [call.clone(), text.clone(), call.clone(), text.clone(), call, text];
    let model = world.script("m", &steps);
    let mut editor = Editor::start(world.omni(["acp"]).model(&model));
    editor.permits = Some("always");
    let session = editor.session(&world);
    editor.prompt(&session, "write hello").stopped("end_turn");
    editor.prompt(&session, "again").stopped("end_turn");
    assert_eq!(editor.asked.len(), 1);
    let other = editor.session(&world);
    let option = json!({ "sessionId": other, "configId": "mode", "value": "allow" });
    let set = editor.ask("session/set_config_option", option);
    assert_eq!(set.answer["result"]["configOptions"][0]["currentValue"], "allow");
    editor.prompt(&other, "write hello").stopped("end_turn");
    assert_eq!(editor.asked.len(), 1);
}

#[test]
fn a_replay_is_what_was_streamed_with_the_same_ids() {
    let world = World::new();
    let model = world.script("m", &writes());
    let mut editor = Editor::start(world.omni(["acp"]).model(&model));
    let session = editor.session(&world);
    let heard = editor.prompt(&session, "write hello");
    drop(editor);
    let mut editor = Editor::start(world.omni(["acp"]).model(&model));
    let again =
        editor.ask("session/load", json!({ "sessionId": session, "cwd": world.work(), "mcpServers": [] }));
    assert_eq!(whole(&again.updates), whole(&heard.updates));
    assert_eq!(
        again.of("user_message_chunk").next().expect("the question")["content"]["text"],
        "write hello"
    );
    assert!(again.answer["result"]["modes"].is_object(), "{}", again.answer);
}

#[test]
fn a_second_process_goes_on_with_a_session() {
    let world = World::new();
    let model = world.script("m", &[json!({ "text": "first" })]);
    let mut editor = Editor::start(world.omni(["acp"]).model(&model));
    let session = editor.session(&world);
    editor.prompt(&session, "one").stopped("end_turn");
    drop(editor);
    let model = world.script("n", &[json!({ "text": "second" })]);
    let mut editor = Editor::start(world.omni(["acp"]).model(&model));
    let known = json!({ "sessionId": session, "cwd": world.work(), "mcpServers": [] });
    let resumed = editor.ask("session/resume", known);
    assert!(resumed.updates.is_empty(), "{:?}", resumed.updates);
    let heard = editor.prompt(&session, "two");
    assert_eq!(heard.stopped("end_turn").text(), "second");
    let shown = world.omni(["session", "show", &session]).run().succeeded();
    assert!(shown.out.contains("first") && shown.out.contains("second"), "{shown}");
}

#[test]
fn every_line_is_the_protocols_whatever_tools_and_children_print() {
    let world = World::new();
    let script = "import os, subprocess\nfrom omni import tool\n\n@tool(read_only=True)\ndef loud() -> str:\n    \
                  '''Print.'''\n    print('noise', flush=True)\n    os.write(1, b'noise\\n')\n    \
                  subprocess.run(['echo', 'noise'])\n    return 'quiet'\n";
    // In the very process that speaks the protocol.
    let folder = world.skill("noisy", script);
    let card = "---\nname: noisy\ndescription: Prints.\nmetadata:\n  isolation: thread\n---\n";
    write(&folder.join("SKILL.md"), card);
    world.omni(["--yes", "skill", "trust", "noisy"]).run().succeeded();
    let call = json!({ "calls": [{ "name": "noisy__loud" }] });
    let model = world.script("m", &[call, json!({ "text": "ok" })]);
    let run = world.omni(["acp", "--verbose"]).model(&model);
    let run = run.env("RUST_LOG", "trace").env("OMNI_LOG__LEVEL", "trace");
    let mut editor = Editor::start(run);
    let session = editor.session(&world);
    let heard = editor.prompt(&session, "be loud");
    assert_eq!(heard.stopped("end_turn").text(), "ok");
    let ended = heard.of("tool_call_update").last().expect("an end");
    assert!(ended["content"].to_string().contains("quiet"), "{ended}");
    let output = editor.omni.end();
    assert!(output.err.contains("noise"), "{output}");
}

#[test]
fn the_first_answer_starts_nothing() {
    let world = World::cold();
    let editor = Editor::start(world.omni(["acp"]));
    assert!(!world.home().join("cache").exists(), "tools were looked at");
    assert!(!world.home().join("data").exists(), "a database was made");
    drop(editor);
}

#[test]
fn a_dead_server_keeps_no_session_from_beginning() {
    let world = World::new();
    let model = world.script("m", &[json!({ "text": "here" })]);
    let mut editor = Editor::start(world.omni(["acp"]).model(&model));
    let dead = json!({ "name": "dead", "command": "/bin/sleep", "args": ["1000"], "env": [] });
    let heard = editor.ask("session/new", json!({ "cwd": world.work(), "mcpServers": [dead] }));
    let session = heard.answer["result"]["sessionId"].as_str().expect("a session").to_owned();
    assert_eq!(editor.prompt(&session, "hello").stopped("end_turn").text(), "here");
}

#[test]
fn servers_that_the_editor_hands_over_have_their_tools() {
    let world = World::new();
    let call = json!({ "calls": [{ "name": "own__fs__list" }] });
    let model = world.script("m", &[call, json!({ "text": "ok", "loop": true })]);
    let mut editor = Editor::start(world.omni(["acp"]).model(&model));
    world.write("there.txt", "");
    let own = json!({ "name": "own", "command": OMNI, "args": ["mcp"], "env": [
        { "name": "OMNI_HOME", "value": world.home() },
    ] });
    let heard = editor.ask("session/new", json!({ "cwd": world.work(), "mcpServers": [own] }));
    let session = heard.answer["result"]["sessionId"].as_str().expect("a session").to_owned();
    // They join at the border of a turn, once they are there.
    let listed = (0..40).any(|_| {
        let heard = editor.prompt(&session, "list the files");
        heard.stopped("end_turn");
        let there =
            heard.of("tool_call_update").any(|ended| ended["content"].to_string().contains("there.txt"));
        if !there {
            std::thread::sleep(std::time::Duration::from_millis(250));
        }
        there
    });
    assert!(listed, "the server's tool was never there");
}

#[test]
fn every_capability_that_is_told_of_answers() {
    let world = World::new();
    let model = world.script("m", &[json!({ "text": "ok" })]);
    let mut editor = Editor::start(world.omni(["acp"]).model(&model));
    let told = editor.ask("initialize", json!({ "protocolVersion": 1, "clientCapabilities": {} })).answer;
    let told = &told["result"]["agentCapabilities"];
    let session = editor.session(&world);
    editor.prompt(&session, "hello").stopped("end_turn");
    let known = json!({ "sessionId": session, "cwd": world.work(), "mcpServers": [] });
    assert_eq!(told["loadSession"], true);
    let mut methods = vec!["load"];
    methods.extend(told["sessionCapabilities"].as_object().expect("an object").keys().map(String::as_str));
    assert_eq!(methods.len(), 5, "{methods:?}");
    // The one that removes it comes last.
    methods.sort_by_key(|method| *method == "delete");
    for method in methods {
        let params = if method == "list" { json!({}) } else { known.clone() };
        let answer = editor.ask(&format!("session/{method}"), params).answer;
        assert!(answer["result"].is_object(), "{method}: {answer}");
    }
    let gone = editor.ask("session/load", known).answer;
    assert_eq!(gone["error"]["code"], -32002, "{gone}");
}

#[test]
fn twenty_sessions_are_listed_the_last_one_first() {
    let world = World::new();
    let model = world.script("m", &[json!({ "text": "ok", "loop": true })]);
    let mut editor = Editor::start(world.omni(["acp"]).model(&model));
    let mut sessions: Vec<String> = (0..20)
        .map(|number| {
            let session = editor.session(&world);
            editor.prompt(&session, &format!("number {number}")).stopped("end_turn");
            session
        })
        .collect();
    // One in which nothing was said is none to go back to.
    editor.session(&world);
    sessions.reverse();
    let listed = editor.ask("session/list", json!({ "cwd": world.work() })).answer;
    let listed = listed["result"]["sessions"].as_array().expect("a list").clone();
    assert_eq!(listed.iter().map(|found| found["sessionId"].as_str().unwrap()).collect::<Vec<_>>(), sessions);
    assert_eq!(listed[0]["title"], "number 19");
    assert_eq!(listed[0]["cwd"], json!(world.work()));
    let elsewhere = editor.ask("session/list", json!({ "cwd": "/" })).answer;
    assert_eq!(elsewhere["result"]["sessions"], json!([]));
}

#[test]
fn commands_are_told_of_and_always_say_something() {
    let world = World::new();
    let model = world.script("m", &[json!({ "text": "asked" })]);
    let mut editor = Editor::start(world.omni(["acp"]).model(&model));
    let session = editor.session(&world);
    let commands = editor.commands();
    assert!(!commands.is_empty());
    for command in &commands {
        let heard = editor.prompt(&session, &format!("/{}", command["name"].as_str().expect("a name")));
        assert_ne!(heard.stopped("end_turn").text(), "", "{command}");
    }
    editor.ask("session/resume", json!({ "sessionId": session, "cwd": world.work(), "mcpServers": [] }));
    assert_eq!(editor.commands(), commands);
    assert_eq!(editor.prompt(&session, "/etc is a folder").text(), "asked");
}

#[test]
fn documents_are_read_and_other_things_refused() {
    let world = World::new();
    let model = world.script("m", &[json!({ "text": "read", "expect": { "contains": "the moon is far" } })]);
    let mut editor = Editor::start(world.omni(["acp"]).model(&model));
    let session = editor.session(&world);
    let document =
        json!({ "type": "resource", "resource": { "uri": "file:///a.md", "text": "the moon is far" } });
    let sound = json!({ "type": "audio", "mimeType": "audio/wav", "data": "AAAA" });
    let refused = editor.ask("session/prompt", json!({ "sessionId": session, "prompt": [sound] })).answer;
    assert_eq!(refused["error"]["code"], -32602, "{refused}");
    let heard = editor.ask("session/prompt", json!({ "sessionId": session, "prompt": [document] }));
    assert_eq!(heard.stopped("end_turn").text(), "read");
}

#[test]
fn an_editor_that_is_closed_loses_nothing() {
    let world = World::new();
    let [call, _] = writes();
    let model = world.script("m", &[call, json!({ "text": "late", "delay_ms": 600_000 })]);
    let mut editor = Editor::start(world.omni(["acp"]).model(&model));
    let session = editor.session(&world);
    let id = editor.post("session/prompt", words(&session, "write hello"));
    while editor.next()["params"]["update"]["sessionUpdate"] != "tool_call" {}
    editor.permits = None;
    let asked = editor.hear(id).answer;
    let outcome = json!({ "outcome": { "outcome": "selected", "optionId": "once" } });
    editor.send(&json!({ "jsonrpc": "2.0", "id": asked["id"], "result": outcome }));
    while editor.next()["params"]["update"]["status"] != "completed" {}
    editor.omni.end().exited(0);
    let stored = world.omni(["session", "export", &session]).run().succeeded().json();
    assert!(stored.iter().any(|entry| entry["kind"] == "turn_ended" && entry["body"]["stop"] == "cancelled"));
    assert!(stored.iter().any(|entry| entry.to_string().contains("created `a.txt`")), "{stored:?}");
}

#[test]
fn a_model_that_fails_fails_the_prompt_and_not_the_session() {
    let world = World::new();
    let error = json!({ "error": { "kind": "rejected", "status": 400, "message": "too warm" } });
    let model = world.script("m", &[error, json!({ "text": "better" })]);
    let mut editor = Editor::start(world.omni(["acp"]).model(&model));
    let session = editor.session(&world);
    let failed = editor.prompt(&session, "hello").answer;
    assert!(failed["error"]["message"].as_str().expect("a message").contains("too warm"), "{failed}");
    assert_eq!(editor.prompt(&session, "again").text(), "better");
}

#[test]
fn what_is_wrong_with_a_request_is_said() {
    let world = World::new();
    let mut editor = Editor::start(world.omni(["acp"]));
    let answer = editor.ask("session/new", json!({ "cwd": "not/absolute", "mcpServers": [] })).answer;
    assert!(answer["error"]["message"].as_str().expect("a message").contains("`cwd`"), "{answer}");
    let answer = editor.prompt("none", "hello").answer;
    assert_eq!(answer["error"]["code"], -32002, "{answer}");
    let session = editor.session(&world);
    let option = json!({ "sessionId": session, "configId": "model", "value": "no/such" });
    assert_eq!(editor.ask("session/set_config_option", option).answer["error"]["code"], -32602);
}

#[test]
fn the_client_of_the_python_sdk() {
    let world = World::new();
    let model = world.script("m", &writes());
    let folder = world.work();
    let run = world.program(&[
        python().to_str().expect("a path"),
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/acp_client.py"),
        folder.to_str().expect("a path"),
        OMNI,
        "acp",
    ]);
    run.model(&model).run().succeeded();
}
