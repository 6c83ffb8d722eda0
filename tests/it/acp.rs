//! Omni as the agent of an editor: the Agent Client Protocol, line by line, with the real program.

use serde_json::{Value, json};

use crate::support::editor::{Editor, Heard, words, writes};
use crate::support::http::Door;
use crate::support::kill::{has_ended, until};
use crate::support::mcp::python;
use crate::support::omni::{OMNI, World};
use crate::support::peers::{node, package};
use crate::support::vendor::{Answer, Vendor};

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
fn a_prompt_whose_answer_is_not_wanted_any_more_ends() {
    let world = World::new();
    let model =
        world.script("m", &[json!({ "text": "late", "delay_ms": 600_000 }), json!({ "text": "here" })]);
    let mut editor = Editor::start(world.omni(["acp"]).model(&model));
    let session = editor.session(&world);
    let id = editor.post("session/prompt", words(&session, "wait"));
    let going = || world.omni(["session", "export", &session]).run().out.contains("turn_began");
    until(|| going().then_some(()));
    editor.send(&json!({ "jsonrpc": "2.0", "method": "$/cancel_request", "params": { "requestId": id } }));
    editor.hear(id).stopped("cancelled");
    assert_eq!(editor.prompt(&session, "and now?").stopped("end_turn").text(), "here");
}

#[test]
fn a_program_that_runs_says_how_far_it_is_and_ends_when_it_is_cancelled() {
    let world = World::new();
    let stays = "echo $$ > tmp; mv tmp child; echo building; exec sleep 600";
    let call = json!({ "name": "process__run", "arguments": { "argv": ["sh", "-c", stays] } });
    let model = world.script("m", &[json!({ "calls": [call] }), json!({ "text": "never said" })]);
    let mut editor = Editor::start(world.omni(["acp"]).model(&model));
    let session = editor.session(&world);
    editor.choose(&session, "mode", "allow");
    let id = editor.post("session/prompt", words(&session, "build it"));
    let progress = loop {
        let update = editor.next()["params"]["update"].clone();
        if update["sessionUpdate"] == "tool_call_update" {
            break update;
        }
    };
    assert_eq!(progress["status"], "in_progress");
    assert!(progress["content"].to_string().contains("1 building"), "{progress}");
    editor.send(&json!({ "jsonrpc": "2.0", "method": "session/cancel", "params": { "sessionId": session } }));
    let heard = editor.hear(id);
    assert_eq!(heard.stopped("cancelled").text(), "");
    assert_eq!(heard.of("tool_call_update").last().expect("an end")["status"], "failed");
    let child = std::fs::read_to_string(world.work().join("child")).expect("it began");
    until(|| has_ended(&child).then_some(()));
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
fn a_mode_is_chosen_in_words_as_well_and_the_editor_hears_of_it() {
    let world = World::new();
    let [call, text] = writes();
    let model = world.script("m", &[call.clone(), text.clone(), call.clone(), text.clone(), call, text]);
    let mut editor = Editor::start(world.omni(["acp"]).model(&model));
    let session = editor.session(&world);
    assert!(editor.prompt(&session, "/mode").text().starts_with("ask (now): "));
    let heard = editor.prompt(&session, "/mode allow");
    assert!(heard.text().starts_with("allow, in this conversation"), "{}", heard.text());
    assert_eq!(heard.of("current_mode_update").next().expect("an update")["currentModeId"], "allow");
    let options = heard.of("config_option_update").next().expect("an update");
    assert_eq!(options["configOptions"][0]["currentValue"], "allow", "{options}");
    editor.prompt(&session, "write hello").stopped("end_turn");
    assert_eq!(editor.asked.len(), 0);
    let heard = editor.prompt(&session, "/mode plan");
    assert_eq!(heard.text(), "there is no mode `plan`; there are ask and allow");
    assert_eq!(heard.of("current_mode_update").count(), 0);
    // And the other way round.
    editor.ask("session/set_mode", json!({ "sessionId": session, "modeId": "ask" }));
    assert!(editor.prompt(&session, "/status").text().ends_with("mode: ask"));
    editor.prompt(&session, "write hello").stopped("end_turn");
    assert_eq!(editor.asked.len(), 1);
    let other = editor.session(&world);
    editor.prompt(&session, "/mode allow");
    editor.prompt(&other, "write hello").stopped("end_turn");
    assert_eq!(editor.asked.len(), 2, "it is one session's");
    assert!(editor.prompt(&session, "/export talk.md").text().contains("`talk.md`"));
    assert!(std::fs::read_to_string(world.work().join("talk.md")).expect("a file").contains("write hello"));
    let there = format!("/export {}", world.work().join("talk.md").display());
    assert!(editor.prompt(&session, &there).text().contains("/export --force talk.md"));
}

#[test]
fn what_is_never_to_run_is_asked_about_once() {
    let world = World::new();
    let [call, text] = writes();
    let model = world.script("m", &[call.clone(), text.clone(), call, text]);
    let mut editor = Editor::start(world.omni(["acp"]).model(&model));
    editor.permits = Some("never");
    let session = editor.session(&world);
    for question in ["write hello", "again"] {
        let heard = editor.prompt(&session, question);
        heard.stopped("end_turn");
        assert_eq!(heard.of("tool_call_update").last().expect("an end")["status"], "failed");
    }
    assert_eq!(editor.asked.len(), 1);
    assert!(!world.work().join("a.txt").exists());
}

#[test]
fn servers_that_the_editor_hands_over_have_their_tools() {
    let world = World::new();
    let call = json!({ "calls": [{ "name": "its__own__fs__list" }] });
    let model = world.script("m", &[call, json!({ "text": "ok", "loop": true })]);
    let mut editor = Editor::start(world.omni(["acp"]).model(&model));
    world.write("there.txt", "");
    let own = json!({ "name": "its__own", "command": OMNI, "args": ["mcp"], "env": [
        { "name": "OMNI_HOME", "value": world.home() },
    ] });
    let heard = editor.ask("session/new", json!({ "cwd": world.work(), "mcpServers": [own.clone()] }));
    let session = heard.answer["result"]["sessionId"].as_str().expect("a session").to_owned();
    let mut streamed = Heard::default();
    // They join at the border of a turn, once they are there.
    let listed = (0..40).any(|_| {
        let heard = editor.prompt(&session, "list the files");
        heard.stopped("end_turn");
        let there =
            heard.of("tool_call_update").any(|ended| ended["content"].to_string().contains("there.txt"));
        streamed = heard;
        if !there {
            std::thread::sleep(std::time::Duration::from_millis(250));
        }
        there
    });
    assert!(listed, "the server's tool was never there");
    let told = editor.prompt(&session, "/mcp").text();
    assert!(told.starts_with("its__own  up, "), "{told}");
    assert!(editor.prompt(&session, "/mcp its__own").text().contains("\n  fs__list\n"));
    // The log has another name of it, which does not say where the server's ends.
    let known = json!({ "sessionId": session, "cwd": world.work(), "mcpServers": [own] });
    let loaded = editor.ask("session/load", known);
    let name = |heard: &Heard| heard.of("tool_call").last().expect("a call")["name"].clone();
    assert_eq!(name(&streamed), "its__own.fs__list");
    assert_eq!(name(&loaded), name(&streamed));
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
fn what_is_not_saved_is_read_and_what_is_not_open_is_on_the_disk() {
    let world = World::new();
    let read = |path: &str| json!([{ "name": "fs__read", "arguments": { "path": path } }]);
    let edit = json!({ "path": "a.txt", "old": "not saved", "new": "changed" });
    let edit = json!([{ "name": "fs__edit", "arguments": edit }]);
    let steps = [
        json!({ "calls": read("a.txt") }),
        json!({ "calls": read("b.txt"), "expect": { "contains": "not saved" } }),
        json!({ "calls": edit, "expect": { "contains": "on the disk" } }),
        json!({ "text": "done", "expect": { "contains": "replaced 1 occurrence" } }),
    ];
    let model = world.script("m", &steps);
    let mut editor = Editor::with_files(world.omni(["acp"]).model(&model));
    let file = world.write("a.txt", "old\n");
    world.write("b.txt", "on the disk\n");
    editor.open(&file, "not saved\n");
    let session = editor.session(&world);
    assert_eq!(editor.prompt(&session, "go").stopped("end_turn").text(), "done");
    assert_eq!(editor.has(&file), Some("changed\n"));
    assert_eq!(std::fs::read_to_string(&file).expect("a file"), "old\n", "saving is the editor's");
}

#[test]
fn a_file_that_the_editor_refuses_fails_the_call_and_not_the_turn() {
    let world = World::new();
    world.write("a.txt", "secret\n");
    let read = json!({ "calls": [{ "name": "fs__read", "arguments": { "path": "a.txt" } }] });
    let model =
        world.script("m", &[read, json!({ "text": "well", "expect": { "contains": "not for you" } })]);
    let mut editor = Editor::with_files(world.omni(["acp"]).model(&model));
    editor.refuses = json!({ "code": -32603, "message": "not for you" });
    let session = editor.session(&world);
    let heard = editor.prompt(&session, "read it");
    assert_eq!(heard.stopped("end_turn").text(), "well");
    let ended = heard.of("tool_call_update").last().expect("an end");
    assert_eq!(ended["status"], "failed");
    assert!(!ended.to_string().contains("secret"), "{ended}");
}

#[test]
fn a_file_beside_the_folder_of_the_session_is_not_the_editors() {
    let world = World::new();
    world.write("a.txt", "above\n");
    world.write("below/b.txt", "");
    let read = json!({ "calls": [{ "name": "fs__read", "arguments": { "path": "a.txt" } }] });
    let model = world.script("m", &[read, json!({ "text": "ok", "expect": { "contains": "above" } })]);
    let mut editor = Editor::with_files(world.omni(["acp"]).model(&model));
    editor.refuses = json!({ "code": -32603, "message": "outside of the project" });
    let began = editor.ask("session/new", json!({ "cwd": world.work().join("below"), "mcpServers": [] }));
    let session = began.answer["result"]["sessionId"].as_str().expect("a session").to_owned();
    assert_eq!(editor.prompt(&session, "read it").stopped("end_turn").text(), "ok");
}

#[test]
fn a_plan_is_shown_as_one_and_is_there_again() {
    let world = World::new();
    let plan = |first: &str, second: &str| {
        let steps = json!([{ "what": "look", "state": first }, { "what": "leap", "state": second }]);
        json!({ "calls": [{ "name": "plan__set", "arguments": { "steps": steps } }] })
    };
    let model = world.script("m", &[plan("begun", "open"), plan("done", "begun"), json!({ "text": "done" })]);
    let mut editor = Editor::start(world.omni(["acp"]).model(&model));
    let session = editor.session(&world);
    let heard = editor.prompt(&session, "look before you leap");
    heard.stopped("end_turn");
    let plans: Vec<_> = heard.of("plan").map(|plan| &plan["entries"]).collect();
    assert_eq!(plans.len(), 2);
    assert_eq!(plans[1][0], json!({ "content": "look", "priority": "medium", "status": "completed" }));
    assert_eq!(plans[1][1]["status"], "in_progress");
    assert_eq!(heard.of("tool_call").chain(heard.of("tool_call_update")).count(), 0, "it is no call as well");
    let again = editor.load(&world, &session);
    assert_eq!(again.of("plan").map(|plan| &plan["entries"]).collect::<Vec<_>>(), plans);
    // Whoever shows no plans has no model that makes any.
    let listed = world.omni(["tool", "list"]).run().succeeded();
    assert!(!listed.out.contains("plan.set"), "{listed}");
}

#[test]
fn how_much_a_model_thinks_is_chosen() {
    let (world, vendor) = (World::new(), Vendor::launch());
    (0..3).for_each(|_| vendor.answer(Answer::text("hm")));
    let run = world.omni(["acp"]).model("openai/gpt-5.6");
    let run = run.env("OPENAI_BASE_URL", vendor.openai_url()).env("OPENAI_API_KEY", "sk-test");
    let mut editor = Editor::start(run.env("OMNI_MODEL__FALLBACK", r#"["openai/gpt-4o"]"#));
    let session = editor.session(&world);
    let sent = |name: &str| vendor.requests().last().expect("a request").body[name].clone();
    editor.prompt(&session, "one").stopped("end_turn");
    assert_eq!(sent("reasoning_effort"), Value::Null);
    let told = editor.choose(&session, "thought_level", "high");
    let level = &told["result"]["configOptions"][2];
    assert_eq!(
        (&level["category"], &level["currentValue"]),
        (&json!("thought_level"), &json!("high")),
        "{told}"
    );
    editor.prompt(&session, "two").stopped("end_turn");
    assert_eq!(sent("reasoning_effort"), "high");
    // One that does not think has nothing to choose.
    let told = editor.choose(&session, "model", "openai/gpt-4o");
    assert_eq!(told["result"]["configOptions"].as_array().map(Vec::len), Some(2), "{told}");
    assert_eq!(editor.choose(&session, "thought_level", "low")["error"]["code"], -32602);
    editor.prompt(&session, "three").stopped("end_turn");
    assert_eq!((sent("reasoning_effort"), sent("model")), (Value::Null, json!("gpt-4o")));
}

#[test]
fn what_a_session_costs_is_told_and_what_is_not_known_is_not_zero() {
    let world = World::new();
    let reply = |cost: Value| json!({ "text": "ok", "usage": { "input": 100, "output": 10, "cost": cost } });
    let model = world.script("m", &[reply(json!(1500)), reply(json!(2500))]);
    let mut editor = Editor::start(world.omni(["acp"]).model(&model));
    let session = editor.session(&world);
    let told = |heard: Heard| heard.of("usage_update").last().expect("an update").clone();
    let first = told(editor.prompt(&session, "one"));
    assert_eq!(first["cost"], json!({ "amount": 0.0015, "currency": "USD" }));
    assert_eq!(first["used"], 110);
    assert_eq!(told(editor.prompt(&session, "two"))["cost"]["amount"], 0.004);
    drop(editor);
    let model = world.script("n", &[reply(json!(1000)), reply(Value::Null)]);
    let mut editor = Editor::start(world.omni(["acp"]).model(&model));
    editor.load(&world, &session);
    assert_eq!(told(editor.prompt(&session, "three"))["cost"]["amount"], 0.005);
    assert!(editor.prompt(&session, "/status").text().contains("used: 330 tokens for 0.0050 dollars"));
    let unknown = told(editor.prompt(&session, "four"));
    assert!(unknown["cost"].is_null(), "{unknown}");
    assert_eq!(unknown["_meta"]["omni"]["cost"], "not known");
    assert!(editor.prompt(&session, "/status").text().contains("what they cost is not known"));
}

#[test]
fn what_the_registry_asks_for_a_way_in_is_there() {
    // As `client.py` of agentclientprotocol/registry sends it; the first line has to be the answer.
    let asked = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": 1,
        "clientInfo": { "name": "ACP Registry Validator", "version": "1.0.0" },
        "clientCapabilities": {
            "terminal": true,
            "fs": { "readTextFile": true, "writeTextFile": true },
            "_meta": { "terminal_output": true, "terminal-auth": true },
        },
    } });
    let world = World::cold();
    let mut omni = world.omni(["acp"]).without("OMNI_MODEL__NAME").env("TERM", "dumb").talking().start();
    omni.say(&asked.to_string());
    let told: Value = serde_json::from_str(&omni.until("")).expect("JSON");
    let methods = told["result"]["authMethods"].as_array().expect("a list");
    assert!(methods.iter().any(|method| method.get("type").is_none_or(|kind| kind == "agent")), "{told}");
    assert!(!told.to_string().contains(r#""terminal""#), "only for editors that say they have one: {told}");
}

#[test]
fn whoever_has_no_model_is_led_to_one() {
    let world = World::new();
    let terminal = json!({ "auth": { "terminal": true } });
    let mut editor = Editor::able(world.omni(["acp"]), terminal.clone());
    let told = json!({ "protocolVersion": 1, "clientCapabilities": terminal });
    let told = editor.ask("initialize", told).answer;
    let method = &told["result"]["authMethods"][0];
    assert_eq!((&method["type"], &method["args"]), (&json!("terminal"), &json!(["--setup"])), "{told}");
    let enter =
        |editor: &mut Editor, method: &str| editor.ask("authenticate", json!({ "methodId": method })).answer;
    let refused = enter(&mut editor, "found");
    assert_eq!(refused["error"]["code"], -32000, "{refused}");
    assert!(refused["error"]["message"].as_str().expect("words").contains("omni setup"), "{refused}");
    assert_eq!(enter(&mut editor, "setup")["error"]["code"], -32602);
    assert_eq!(enter(&mut editor, "magic")["error"]["code"], -32602);
    let shown = world.omni(["--yes", "acp", "--setup"]).run().succeeded();
    assert!(shown.out.contains("Models that can be used"), "{shown}");

    let wrong = json!({ "error": { "kind": "unauthorized", "message": "wrong key" } });
    let mut editor = Editor::start(world.omni(["acp"]).model(&world.script("m", &[wrong])));
    assert!(enter(&mut editor, "found")["result"].is_object());
    let session = editor.session(&world);
    let refused = editor.prompt(&session, "hello").answer;
    assert_eq!(refused["error"]["code"], -32000, "{refused}");
}

/// A tool that asks how large something shall be.
const ASKS: &str = r#"
from pydantic import BaseModel

from omni import Context, tool


class Wish(BaseModel):
    size: str


@tool(read_only=True)
def order(ctx: Context) -> str:
    """Order."""
    wish = ctx.elicit("How large?", Wish)
    return f"it is {wish.size}" if wish else "nothing"
"#;

#[test]
fn a_tool_asks_in_a_form_and_where_there_is_none_a_person_reads_it() {
    let world = World::new();
    world.skill("shop", ASKS);
    world.omni(["--yes", "skill", "trust", "shop"]).run().succeeded();
    let call = json!({ "calls": [{ "name": "shop__order" }] });
    let said = json!({ "text": "ok", "expect": { "contains": "it is large" } });
    let model = world.script("m", &[call.clone(), said]);
    let forms = json!({ "elicitation": { "form": {} } });
    let mut editor = Editor::able(world.omni(["acp"]).model(&model), forms);
    editor.fills = json!({ "size": "large" });
    let session = editor.session(&world);
    assert_eq!(editor.prompt(&session, "order").stopped("end_turn").text(), "ok");
    assert_eq!(editor.asked[0]["message"], "How large?");

    let model = world.script("n", &[call, json!({ "text": "no", "expect": { "contains": "nobody" } })]);
    let mut editor = Editor::start(world.omni(["acp"]).model(&model));
    let session = editor.session(&world);
    let heard = editor.prompt(&session, "order");
    assert_eq!(heard.stopped("end_turn").text(), "no");
    assert!(heard.of("agent_thought_chunk").any(|thought| thought.to_string().contains("How large?")));
}

#[test]
fn pictures_and_documents_reach_the_model_and_are_there_again() {
    let (world, vendor) = (World::new(), Vendor::launch());
    vendor.answer(Answer::text("a dot"));
    let run = world.omni(["acp"]).model("openai/gpt-5.6");
    let run = run.env("OPENAI_BASE_URL", vendor.openai_url()).env("OPENAI_API_KEY", "sk-test");
    let mut editor = Editor::start(run);
    let session = editor.session(&world);
    let dot =
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
    let prompt = json!([
        { "type": "image", "mimeType": "image/png", "data": dot },
        { "type": "resource", "resource": { "uri": "file:///a.md", "text": "# A\n\n```\ncode\n```" } },
        { "type": "resource_link", "name": "b.md", "uri": "file:///b.md" },
        { "type": "text", "text": "What is it?" },
    ]);
    let asked = json!({ "sessionId": session, "prompt": prompt });
    editor.ask("session/prompt", asked).stopped("end_turn");
    let sent = vendor.requests().last().expect("a request").body.to_string();
    assert!(sent.contains(dot) && sent.contains("file:///b.md") && sent.contains("code"), "{sent}");
    let again = editor.load(&world, &session);
    let shown: Vec<_> = again.of("user_message_chunk").map(|chunk| chunk["content"].clone()).collect();
    assert_eq!((&shown[0], &shown[1]), (&prompt[0], &prompt[1]));
    assert_eq!(shown[3]["text"], "What is it?");
}

#[test]
fn the_client_of_the_python_sdk() {
    let world = World::new();
    let read = json!({ "calls": [{ "name": "fs__read", "arguments": { "path": "b.txt" } }] });
    let read = [read, json!({ "text": "Not saved.", "expect": { "contains": "not saved" } })];
    let model = world.script("m", &[writes(), read].concat());
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

#[test]
fn over_http_with_the_typescript_sdk() {
    let world = World::new();
    let model = world.script("m", &writes());
    let token = |scope: &str| {
        let made = world.omni(["token", "new", scope, "--scope", scope]).run().succeeded();
        made.out.trim().to_owned()
    };
    let (admin, chat) = (token("admin"), token("chat"));
    let door = Door::open(world.omni(["serve", "--bind", "127.0.0.1:0"]).model(&model));
    let (node, sdk, folder) = (node(), package("@agentclientprotocol/sdk"), world.work());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/acp_http_client.mjs");
    let url = format!("{}/acp", door.url);
    let [node, sdk, folder] = [&node, &sdk, &folder].map(|path| path.to_str().expect("a path"));
    world.program(&[node, script, sdk, &url, folder, &admin]).run().succeeded();
    // Whoever may only chat may not have anything run, and nobody comes in by a socket.
    let hello = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": 1, "clientCapabilities": {},
    } });
    let status = |headers: &[(&str, &str)]| door.send("POST", "/acp", headers, &hello.to_string()).status;
    let bearer = |token: &str| format!("Bearer {token}");
    assert_eq!(status(&[]), 401);
    assert_eq!(status(&[("Authorization", &bearer(&chat))]), 403);
    assert_eq!(status(&[("Authorization", &bearer(&admin))]), 200);
    assert_eq!(status(&[("Authorization", &bearer(&admin)), ("Upgrade", "websocket")]), 501);
}

#[test]
fn over_http_without_a_token_browsers_and_foreign_names_are_refused() {
    let world = World::new();
    let door = Door::open(world.omni(["serve", "--bind", "127.0.0.1:0"]));
    let status = |headers: &[(&str, &str)]| door.send("POST", "/acp", headers, "{}").status;
    assert_eq!(status(&[("Origin", "http://localhost:3000")]), 403);
    assert_eq!(status(&[("Host", "rebound.example.org")]), 403);
    assert_eq!(status(&[]), 400, "it is no request, but it came in");
}

#[test]
fn over_http_there_is_room_for_so_many_and_one_that_leaves_makes_room() {
    let world = World::new();
    let door = Door::open(world.omni(["serve", "--bind", "127.0.0.1:0"]));
    let hello = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": 1, "clientCapabilities": {},
    } });
    let mut connections = Vec::new();
    let full = loop {
        let answer = door.post("/acp", &hello);
        match answer.header("acp-connection-id") {
            Some(id) if answer.status == 200 => connections.push(id.to_owned()),
            _ => break answer,
        }
        assert!(connections.len() <= 256, "there is no end");
    };
    assert!(full.status >= 500, "{full:?}");
    let gone = door.send("DELETE", "/acp", &[("Acp-Connection-Id", &connections[0])], "");
    assert_eq!(gone.status, 202);
    until(|| (door.post("/acp", &hello).status == 200).then_some(()));
}
