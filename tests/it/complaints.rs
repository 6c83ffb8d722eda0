//! What users of other agents complain about in their editors: each test has the name of a complaint, and shows
//! that it is none here. The words after it say where to read it.

use serde_json::{Value, json};

use crate::support::editor::{Editor, whole, words, writes};
use crate::support::omni::{World, write};
use crate::support::vendor::{Answer, Vendor};

/// opencode#13634, acpx#160
#[test]
fn stdout_is_polluted() {
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

/// cline#11421
#[test]
fn a_capability_is_advertised_and_is_not_there() {
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

/// kimi-cli#1956, zed#53744, goose#5916
#[test]
fn there_is_no_list_of_sessions() {
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

/// kcap-cli#454
#[test]
fn a_replay_has_other_ids() {
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

/// kcap-cli#454
#[test]
fn a_replay_shows_other_changes() {
    let (world, vendor) = (World::new(), Vendor::launch());
    let write = |path: &str| Answer::call("fs__write", json!({ "path": path, "content": "new words\n" }));
    vendor.answer(write("whole.txt"));
    vendor.answer(Answer::call("fs__edit", json!({ "path": "part.txt", "old": "two", "new": "three" })));
    vendor.answer(write("new.txt"));
    vendor.answer(write("large.txt"));
    vendor.answer(Answer::text("Done, four files."));
    world.write("whole.txt", "words of before\n");
    world.write("part.txt", "one\ntwo\n");
    world.write("large.txt", &"a line of many\n".repeat(40_000));
    let run = || {
        let run = world.omni(["acp"]).model("openai/gpt-5.6");
        run.env("OPENAI_BASE_URL", vendor.openai_url()).env("OPENAI_API_KEY", "sk-test")
    };
    let mut editor = Editor::start(run());
    let session = editor.session(&world);
    let heard = editor.prompt(&session, "write");
    assert_eq!(heard.stopped("end_turn").text(), "Done, four files.");
    let ended: Vec<_> = heard.of("tool_call_update").map(|ended| &ended["content"][0]).collect();
    let olds: Vec<_> = ended.iter().map(|diff| diff["oldText"].as_str()).collect();
    assert_eq!(olds, [Some("words of before\n"), Some("two"), None, None], "{ended:?}");
    assert!(ended.iter().all(|diff| diff["type"] == "diff"), "{ended:?}");
    // Whoever is asked is shown what would be gone.
    assert_eq!(editor.asked[0]["toolCall"]["content"][0]["oldText"], "words of before\n");
    drop(editor);
    world.write("whole.txt", "changed since");
    let mut editor = Editor::start(run());
    let again = editor.load(&world, &session);
    let lines = |updates: &[Value]| whole(updates).iter().map(Value::to_string).collect::<Vec<_>>();
    assert_eq!(lines(&again.updates), lines(&heard.updates));
    // It is for people, and costs no tokens.
    let sent = vendor.requests();
    assert_eq!(sent.len(), 5);
    assert!(sent.iter().all(|request| !request.body.to_string().contains("words of before")));
    let exported = world.omni(["session", "export", &session]).run().succeeded();
    assert!(exported.out.contains("words of before"), "{exported}");
}

/// oh-my-pi#1123, copilot-cli#4678
#[test]
fn the_first_answer_takes_long() {
    let world = World::cold();
    let editor = Editor::start(world.omni(["acp"]));
    assert!(!world.home().join("cache").exists(), "tools were looked at");
    assert!(!world.home().join("data").exists(), "a database was made");
    drop(editor);
}

/// claude-agent-acp#567
#[test]
fn a_session_waits_for_a_dead_server() {
    let world = World::new();
    let model = world.script("m", &[json!({ "text": "here" })]);
    let mut editor = Editor::start(world.omni(["acp"]).model(&model));
    let dead = json!({ "name": "dead", "command": "/bin/sleep", "args": ["1000"], "env": [] });
    let heard = editor.ask("session/new", json!({ "cwd": world.work(), "mcpServers": [dead] }));
    let session = heard.answer["result"]["sessionId"].as_str().expect("a session").to_owned();
    assert_eq!(editor.prompt(&session, "hello").stopped("end_turn").text(), "here");
}

/// claude-agent-acp#567
#[test]
fn a_server_that_does_not_start_is_missed_in_silence() {
    let world = World::new();
    let model = world.script("m", &[json!({ "text": "here", "loop": true })]);
    let mut editor = Editor::start(world.omni(["acp"]).model(&model));
    let dead = json!({ "name": "dead", "command": "/bin/false", "args": [], "env": [] });
    let heard = editor.ask("session/new", json!({ "cwd": world.work(), "mcpServers": [dead] }));
    let session = heard.answer["result"]["sessionId"].as_str().expect("a session").to_owned();
    let mut told = || {
        let heard = editor.prompt(&session, "hello");
        heard.of("agent_thought_chunk").filter(|thought| thought.to_string().contains("`dead`")).count()
    };
    assert!((0..40).any(|_| told() == 1), "nobody said so");
    assert_eq!(told(), 0, "and once is enough");
}

/// zed#57108, opencode#29924, codex-acp#264
#[test]
fn a_permission_does_not_show_the_command() {
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
    assert_eq!(kinds, ["allow_once", "allow_always", "reject_once", "reject_always"]);
    let ended = heard.of("tool_call_update").last().expect("an end");
    assert_eq!(ended["status"], "completed");
    assert!(ended["content"].to_string().contains("so much"), "{ended}");
}

/// codex-acp#56
#[test]
fn a_command_has_no_visible_effect() {
    let world = World::new();
    let model = world.script("m", &[json!({ "text": "asked" })]);
    let mut editor = Editor::start(world.omni(["acp"]).model(&model));
    let session = editor.session(&world);
    let commands = editor.commands();
    assert!(!commands.is_empty());
    for command in &commands {
        let heard = editor.prompt(&session, &format!("/{}", command["name"].as_str().expect("a name")));
        assert_ne!(heard.stopped("end_turn").text(), "", "{command}");
        assert!(heard.of("agent_message_chunk").all(|chunk| chunk["messageId"].is_string()), "{command}");
    }
    assert_eq!(editor.prompt(&session, "/etc is a folder").text(), "asked");
}

/// acpx#332
#[test]
fn a_session_that_is_gone_on_with_is_sent_whole() {
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

/// claude-agent-acp#579
#[test]
fn a_replay_has_internal_text() {
    let world = World::new();
    let steps: Vec<_> = (0..40).map(|_| json!({ "text": "It is a heron." })).collect();
    let model = world.script("m", &steps);
    let run = || world.omni(["acp"]).model(&model).env("OMNI_MODEL__WINDOW", "8000");
    let mut editor = Editor::start(run());
    let session = editor.session(&world);
    let long =
        |number| format!("question {number}: {}", "where is the heron and what does it eat? ".repeat(70));
    let asked: Vec<String> = (0..10).map(long).collect();
    for question in &asked {
        editor.prompt(&session, question).stopped("end_turn");
    }
    editor.prompt(&session, "/status").stopped("end_turn");
    drop(editor);
    let stored = world.omni(["session", "export", &session]).run().succeeded();
    assert!(stored.json().iter().any(|entry| entry["kind"] == "digest"), "there is something to leave out");
    let mut editor = Editor::start(run());
    let again = editor.load(&world, &session);
    let said: Vec<_> =
        again.of("user_message_chunk").filter_map(|chunk| chunk["content"]["text"].as_str()).collect();
    assert_eq!(said, asked);
    let answers: Vec<_> = again.of("agent_message_chunk").map(|chunk| &chunk["content"]["text"]).collect();
    assert_eq!(answers, vec!["It is a heron."; asked.len()]);
}

/// dirge#76, antigravity#31
#[test]
fn a_permission_runs_out_of_time() {
    let world = World::new();
    let model = world.script("m", &writes());
    // All that has a limit has a short one.
    let run = world.omni(["acp"]).model(&model).env("OMNI_TOOLS__TIMEOUT", "3");
    let mut editor = Editor::start(run.env("OMNI_TOOLS__IDLE_TIMEOUT", "3"));
    editor.permits = None;
    let session = editor.session(&world);
    let id = editor.post("session/prompt", words(&session, "write hello"));
    let asked = editor.hear(id).answer;
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert!(!world.work().join("a.txt").exists(), "nobody has agreed");
    let outcome = json!({ "outcome": { "outcome": "selected", "optionId": "once" } });
    editor.reply(&asked["id"], Ok(outcome));
    editor.hear(id).stopped("end_turn");
    assert!(world.work().join("a.txt").exists());
}

/// qwen-code#993, qwen-code#3837, zed#59566
#[test]
fn commands_are_missing() {
    let world = World::new();
    let model = world.script("m", &[json!({ "text": "ok" })]);
    let mut editor = Editor::start(world.omni(["acp"]).model(&model));
    let session = editor.session(&world);
    let commands = editor.commands();
    assert!(commands.iter().any(|command| command["name"] == "help"), "{commands:?}");
    let takes = commands.iter().find(|command| command["name"] == "bg").expect("one that takes words");
    assert_eq!(takes["input"]["hint"], "text", "{takes}");
    let known = json!({ "sessionId": session, "cwd": world.work(), "mcpServers": [] });
    for method in ["session/resume", "session/load"] {
        assert!(editor.ask(method, known.clone()).answer["result"].is_object());
        assert_eq!(editor.commands(), commands, "after {method}");
    }
}

/// goose#6894
#[test]
fn files_are_not_edited_where_the_editor_offers_to() {
    let world = World::new();
    let model = world.script("m", &writes());
    let mut editor = Editor::with_files(world.omni(["acp"]).model(&model));
    let session = editor.session(&world);
    let heard = editor.prompt(&session, "write hello");
    heard.stopped("end_turn");
    let file = world.work().join("a.txt");
    assert_eq!(editor.has(&file), Some("hello\n"));
    assert!(!file.exists(), "it is the editor that writes");
    assert_eq!(editor.asked.len(), 1, "and still it was asked before");
    let ended = heard.of("tool_call_update").last().expect("an end");
    let shown = &ended["content"][0];
    assert_eq!((&shown["type"], &shown["newText"]), (&json!("diff"), &json!("hello\n")));
}
