//! What the gateway says of itself: what can be asked, the numbers, the traces, and one id for all that
//! a request leads to.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::collector::Collector;
use crate::support::http::{Answer, Door};
use crate::support::kill::until;
use crate::support::mcp::python;
use crate::support::omni::{Run, World};
use crate::support::servers;

fn serve(world: &World, steps: &[Value]) -> Run {
    let model = world.script("model", steps);
    world.omni(["serve", "--bind", "127.0.0.1:0"]).model(&model)
}

fn open(world: &World, steps: &[Value]) -> Door {
    Door::open(serve(world, steps))
}

fn says(text: &str) -> Value {
    json!({"text": text, "usage": {"input": 12, "output": 3}})
}

fn calls(tool: &str, arguments: Value) -> Value {
    json!({"calls": [{"name": tool, "arguments": arguments}], "usage": {"input": 12, "output": 3}})
}

fn message(words: &str) -> Value {
    json!({"session_id": "s", "message": words})
}

// What can be asked.

/// The description, and whether answers are as it says.
struct Described(Value);

impl Described {
    fn of(door: &Door) -> Self {
        Self(door.get("/openapi.json").json())
    }

    /// Every method with its path.
    fn routes(&self) -> Vec<(String, String)> {
        let paths = self.0["paths"].as_object().unwrap().iter();
        let methods = paths.flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys();
            methods.map(move |method| (method.to_ascii_uppercase(), path.clone()))
        });
        methods.collect()
    }

    /// Asserts that an answer has the schema that is written down for it.
    #[track_caller]
    fn holds(&self, method: &str, path: &str, answer: &Answer) {
        let responses = &self.0["paths"][path][method.to_ascii_lowercase()]["responses"];
        let told = responses.get(answer.status.to_string()).unwrap_or(&responses["default"]);
        let kind = answer.header("content-type").map(|kind| kind.split(';').next().unwrap().to_owned());
        let Some(kind) = kind else {
            assert_eq!(told.get("content"), None, "{method} {path}: {answer:?}");
            return;
        };
        let content = &told["content"][&kind];
        assert!(content.is_object(), "{method} {path} does not say that it answers with `{kind}`: {told}");
        if kind.ends_with("json") {
            let mut schema = content["schema"].clone();
            schema["components"] = self.0["components"].clone();
            let schema = jsonschema::validator_for(&schema).expect("a schema");
            let errors: Vec<_> = schema.iter_errors(&answer.json()).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{method} {path}: {errors:?} in {answer:?}");
        }
    }
}

#[test]
fn every_route_is_described_and_answers_as_it_is_described() {
    let world = World::new();
    let steps = [says("one"), says("two"), says("three"), says("four"), says("five")];
    let door = open(&world, &steps);
    let described = Described::of(&door);
    let mut left: BTreeMap<_, _> = described.routes().into_iter().map(|route| (route, ())).collect();
    let mut ask = |method: &str, template: &str, path: &str, body: Value| {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = door.send(method, path, &[], &body);
        assert!(answer.status < 300, "{method} {path}: {answer:?}");
        described.holds(method, template, &answer);
        assert!(left.remove(&(method.to_owned(), template.to_owned())).is_some(), "{method} {template}");
        answer
    };
    for path in ["/healthz", "/readyz", "/openapi.json", "/metrics", "/v1/models", "/api/v1/tools"] {
        ask("GET", path, path, Value::Null);
    }
    ask("GET", "/v1/models/{id}", "/v1/models/omni", Value::Null);
    ask("POST", "/message", "/message", message("note that I like tea"));
    let chat = json!({"model": "omni", "messages": [{"role": "user", "content": "hi"}]});
    ask("POST", "/v1/chat/completions", "/v1/chat/completions", chat);
    let response = ask("POST", "/v1/responses", "/v1/responses", json!({"model": "omni", "input": "hi"}));
    let place = format!("/v1/responses/{}", response.json()["id"].as_str().unwrap());
    ask("GET", "/v1/responses/{id}", &place, Value::Null);
    ask("POST", "/v1/responses/{id}/cancel", &format!("{place}/cancel"), Value::Null);
    ask("DELETE", "/v1/responses/{id}", &place, Value::Null);
    let begun =
        ask("POST", "/api/v1/sessions/{id}/turns", "/api/v1/sessions/s/turns", json!({"message": "hi"}));
    let run = begun.header("location").unwrap().to_owned();
    ask("GET", "/api/v1/runs/{id}/events", &format!("{run}/events"), Value::Null);
    ask("GET", "/api/v1/runs/{id}", &run, Value::Null);
    ask("POST", "/api/v1/runs/{id}/cancel", &format!("{run}/cancel"), Value::Null);
    ask("POST", "/api/v1/runs/{id}/feedback", &format!("{run}/feedback"), json!({"good": true}));
    ask("GET", "/api/v1/memories", "/api/v1/memories?q=tea", Value::Null);
    ask("GET", "/api/v1/sessions", "/api/v1/sessions", Value::Null);
    ask("GET", "/api/v1/sessions/{id}", "/api/v1/sessions/s", Value::Null);
    ask("GET", "/api/v1/sessions/{id}/messages", "/api/v1/sessions/s/messages", Value::Null);
    ask("POST", "/run_tool", "/run_tool", json!({"command": "time.now", "arguments": {}}));
    ask("DELETE", "/api/v1/sessions/{id}", "/api/v1/sessions/s", Value::Null);
    // It takes a person to be asked; `gateway::a_run_asks_and_is_answered` does that. MCP has its own words.
    let rest = left.into_keys().map(|(method, path)| format!("{method} {path}"));
    // Jobs have tests of their own.
    let rest: Vec<_> = rest.filter(|route| !route.contains("/api/v1/jobs")).collect();
    assert_eq!(rest, ["POST /api/v1/runs/{id}/approvals/{call}", "POST /mcp"]);
    for path in ["/nothing", "/api/v1/runs/nothing", "/v1/responses/nothing"] {
        let answer = door.get(path);
        let template = path.replace("nothing", "{id}");
        let template = if path == "/nothing" { "/message" } else { template.as_str() };
        let method = if path == "/nothing" { "POST" } else { "GET" };
        described.holds(method, template, &answer);
    }
    // People are told of each route, too.
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/gateway.md")).unwrap();
    for (_, path) in described.routes() {
        let last = path.rsplit('/').find(|word| !word.starts_with('{')).unwrap();
        assert!(page.contains(last), "docs/gateway.md does not mention `{path}`");
    }
}

/// Runs schemathesis; returns how many cases it made.
fn schemathesis(door: &Door, examples: u32) -> u64 {
    let mut command = Command::new(python().with_file_name("schemathesis"));
    let checks =
        "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";
    command.args(["run", &format!("{}/openapi.json", door.url), "--checks", checks]);
    command.args([
        "--max-examples",
        &examples.to_string(),
        "--phases",
        "coverage,fuzzing",
        "--continue-on-failure",
    ]);
    // Where a stream is asked for, it stays open.
    command.args(["--exclude-path", "/mcp", "--request-timeout", "30", "--seed", "7", "--warnings", "off"]);
    let folder = tempfile::TempDir::new().unwrap();
    let output = command.current_dir(folder.path()).output().expect("`make setup` has installed it");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    let (before, _) = told.split_once(" generated").unwrap_or_else(|| panic!("{told}"));
    before.rsplit(' ').next().unwrap().replace(',', "").parse().unwrap_or_else(|_| panic!("{told}"))
}

fn hardened() -> (World, Door) {
    let world = World::new();
    world.settings("[gateway]\nany_model = true\n");
    let steps = [calls("time__now", json!({})), json!({"text": "hello", "loop": true})];
    let door = open(&world, &steps);
    (world, door)
}

#[test]
fn no_request_is_a_failure_of_ours() {
    let (_world, door) = hardened();
    let cases = schemathesis(&door, 8);
    assert!(cases >= 300, "{cases} cases");
    assert_eq!(door.get("/readyz").status, 200);
}

#[test]
#[ignore = "takes minutes: make soak"]
#[expect(clippy::print_stdout, reason = "how many there were is what one wants to know")]
fn soak_no_request_of_ten_thousand_is_a_failure_of_ours() {
    let (_world, door) = hardened();
    let cases = schemathesis(&door, 600);
    println!("schemathesis: {cases} cases");
    assert!(cases >= 10_000, "{cases} cases");
    assert_eq!(door.get("/readyz").status, 200);
}

// What was counted.

/// A number of `/metrics`, by all that stands before it.
fn number(door: &Door, name: &str) -> f64 {
    let told = door.get("/metrics").body;
    let line = told.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    line.unwrap_or_else(|| panic!("there is no `{name}` in\n{told}"))
}

#[test]
fn turns_tools_and_tokens_are_counted() {
    let world = World::new();
    world.skill("crash", "import os\nfrom omni import tool\n\n@tool(read_only=True)\ndef now() -> int:\n    \"\"\"Ends.\"\"\"\n    os._exit(3)\n");
    let fault = json!({"error": {"kind": "rejected", "status": 400, "message": "no"}});
    let steps = [calls("time__now", json!({})), calls("crash__now", json!({})), says("noon"), fault];
    let door = open(&world, &steps);
    assert_eq!(door.post("/message", &message("time?")).status, 200);
    assert_eq!(door.post("/message", &message("again")).status, 502);
    assert_eq!(number(&door, "omni_turns_total{stop=\"answered\"}"), 1.0);
    assert_eq!(number(&door, "omni_turns_total{stop=\"model_failed\"}"), 1.0);
    assert_eq!(number(&door, "omni_turn_seconds_count"), 2.0);
    assert_eq!(number(&door, "omni_model_tokens_total{kind=\"input\"}"), 36.0);
    assert_eq!(number(&door, "omni_model_tokens_total{kind=\"output\"}"), 9.0);
    assert_eq!(number(&door, "omni_tool_calls_total{outcome=\"ok\"}"), 1.0);
    assert_eq!(number(&door, "omni_tool_calls_total{outcome=\"failed\"}"), 1.0);
    // Loading what it calls has waited, too.
    assert!(number(&door, "omni_python_wait_seconds_count") >= 1.0);
    assert_eq!(number(&door, "omni_workers_lost_total"), 1.0);
    assert!(number(&door, "omni_workers_started_total") >= 1.0);
    assert_eq!(number(&door, "omni_recall_seconds_count"), 2.0);
    assert_eq!(number(&door, "omni_turns_going"), 0.0);
    assert_eq!(number(&door, "omni_requests_total{route=\"/message\",status=\"502\"}"), 1.0);
    // No name of a session, and no word of anybody.
    let told = door.get("/metrics").body;
    assert!(!told.contains("time?") && !told.contains("\"s\""), "{told}");
}

#[test]
fn numbers_are_for_those_who_may_read() {
    let world = World::new();
    let token = |scope: &str| {
        let made = world.omni(["token", "new", scope, "--scope", scope]).run().succeeded();
        format!("Bearer {}", made.out.trim())
    };
    let (chat, read, admin) = (token("chat"), token("read"), token("admin"));
    let door = open(&world, &[says("never")]);
    let ask = |path: &str, token: &str| door.send("GET", path, &[("Authorization", token)], "").status;
    assert_eq!(door.get("/metrics").status, 401);
    for (path, answered) in [("/metrics", true), ("/api/v1/memories", true), ("/openapi.json", false)] {
        assert_eq!(ask(path, &chat), if answered { 403 } else { 200 }, "{path}");
        assert_eq!(ask(path, &read), 200, "{path}");
    }
    let mcp = |token: &str| door.send("POST", "/mcp", &[("Authorization", token)], "{}").status;
    assert_eq!((mcp(&read), mcp(&chat)), (403, 403));
    assert_ne!(mcp(&admin), 403);
}

// What ties it together.

fn logged(world: &World) -> String {
    let files = std::fs::read_dir(world.home().join("state")).unwrap();
    let logs = files.filter_map(|file| {
        let file = file.unwrap().path();
        file.extension().is_some_and(|kind| kind == "log").then(|| std::fs::read_to_string(file).unwrap())
    });
    logs.collect()
}

#[test]
fn one_id_is_in_the_log_and_with_the_servers_of_others() {
    let world = World::new();
    world.settings("[log]\nformat = \"json\"\n");
    let server = servers::fixture(&["echo_meta.py"]);
    let file = world.home().join("config/mcp.json");
    crate::support::omni::write(&file, &json!({"mcpServers": {"far": server}}).to_string());
    let fault = json!({"error": {"kind": "rejected", "status": 400, "message": "no"}});
    let door = open(&world, &[calls("far__meta", json!({})), fault]);
    let mine = [("X-Request-Id", "mine-42")];
    let answer = door.send("POST", "/message", &mine, &message("where from?").to_string());
    assert_eq!((answer.status, answer.header("x-request-id")), (502, Some("mine-42")), "{answer:?}");
    let log = door.get("/api/v1/sessions/s/messages").body;
    assert!(log.contains(r#"\"omni/request\": \"mine-42\""#), "{log}");
    // Every line about it says so, where it was answered and where it was played.
    let lines: Vec<Value> = logged(&world).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let about: Vec<_> = lines.iter().filter(|line| line["spans"].to_string().contains("mine-42")).collect();
    assert!(about.iter().any(|line| line["fields"]["message"] == "a turn ended"), "{lines:#?}");
    assert!(
        about.iter().any(|line| line["fields"]["message"].to_string().contains("no answer")),
        "{lines:#?}"
    );
}

#[test]
fn traces_are_sent_to_who_collects_them_and_say_nothing_of_what_was_said() {
    let world = World::new();
    let collector = Collector::start();
    world.settings(&format!("[telemetry]\nendpoint = \"{}\"\n", collector.url));
    let door = open(&world, &[calls("time__now", json!({})), says("a secret answer")]);
    let (trace, span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let parent = format!("00-{trace}-{span}-01");
    let body = message("a secret question").to_string();
    assert_eq!(door.send("POST", "/message", &[("traceparent", &parent)], &body).status, 200);
    door.server.signal(libc::SIGTERM);
    door.server.end().exited(0);
    let spans = collector.spans();
    let named = |name: &str| {
        let found = spans.iter().find(|span| span.name.starts_with(name));
        found.unwrap_or_else(|| panic!("there is no span `{name}` in {spans:#?}"))
    };
    let (request, turn) = (named("POST /message"), named("invoke_agent omni"));
    let (model, tool) = (named("chat scripted:"), named("execute_tool time.now"));
    assert_eq!((request.trace.as_str(), request.parent.as_str()), (trace, span), "{spans:#?}");
    for (child, of) in [(turn, request), (model, turn), (tool, turn)] {
        assert_eq!((&child.trace, &child.parent), (&request.trace, &of.id), "{spans:#?}");
    }
    let told = |span: &crate::support::collector::Span, key: &str| span.attributes.get(key).cloned();
    assert_eq!(told(turn, "gen_ai.operation.name").as_deref(), Some("invoke_agent"), "{turn:#?}");
    assert_eq!(told(turn, "gen_ai.conversation.id").as_deref(), Some("s"), "{turn:#?}");
    assert_eq!(told(model, "gen_ai.usage.input_tokens").as_deref(), Some("12"), "{model:#?}");
    assert_eq!(told(tool, "gen_ai.tool.name").as_deref(), Some("time.now"), "{tool:#?}");
    assert_eq!(told(request, "http.response.status_code").as_deref(), Some("200"), "{request:#?}");
    assert!(!format!("{spans:?}").contains("secret"), "{spans:#?}");
}

#[test]
fn a_collector_that_is_not_there_costs_nothing_but_its_traces() {
    let world = World::new();
    world.settings("[telemetry]\nendpoint = \"http://127.0.0.1:1\"\n");
    let door = open(&world, &[says("hello")]);
    assert_eq!(door.post("/message", &message("hi")).json()["output"], "hello");
    door.server.signal(libc::SIGTERM);
    door.server.end().exited(0);
}

// The tools, and what was learned.

#[test]
fn the_tools_are_at_the_same_door_for_programs_that_speak_mcp() {
    let world = World::new();
    let door = open(&world, &[says("never")]);
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"},
    }});
    let accept = [("Accept", "application/json, text/event-stream")];
    let answer = door.send("POST", "/mcp", &accept, &hello.to_string());
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.contains("\"serverInfo\":{\"name\":\"omni\""), "{answer:?}");
    let session = answer.header("mcp-session-id").expect("a session").to_owned();
    let call = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "time.now", "arguments": {}}});
    let headers = [accept[0], ("Mcp-Session-Id", session.as_str()), ("MCP-Protocol-Version", "2025-11-25")];
    let said = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    assert_eq!(door.send("POST", "/mcp", &headers, &said.to_string()).status, 202);
    let answer = door.send("POST", "/mcp", &headers, &call.to_string());
    let result =
        answer.events().into_iter().find(|event| event["id"] == 2).unwrap_or_else(|| panic!("{answer:?}"));
    assert_eq!(result["result"]["isError"], false, "{result}");
    // Who may not come in may not come in here.
    for header in [("Origin", "http://localhost:3000"), ("Host", "example.org")] {
        let answer = door.send("POST", "/mcp", &[accept[0], header], &hello.to_string());
        assert_eq!(answer.status, 403, "{answer:?}");
    }
}

#[test]
fn a_verdict_on_a_run_is_remembered_and_memories_can_be_searched() {
    let world = World::new();
    let door = open(&world, &[calls("time__now", json!({})), says("It is noon in Ghent."), says("hello")]);
    let answer = door.post(
        "/v1/chat/completions",
        &json!({"messages": [{"role": "user", "content": "what time is it in Ghent"}]}),
    );
    let turn = answer.json()["omni"]["turn"].as_str().expect("a turn").to_owned();
    let judge = |turn: &str, good: bool| {
        door.post(&format!("/api/v1/runs/{turn}/feedback"), &json!({"good": good})).status
    };
    let found = || door.get("/api/v1/memories?q=time%20in%20Ghent&limit=5").json()["memories"].clone();
    let first = until(|| found().get(0).cloned());
    assert_eq!(judge(&turn, true), 204);
    let good = found()[0]["value"].as_f64().unwrap();
    assert_eq!(judge(&turn, false), 204);
    let bad = found()[0]["value"].as_f64().unwrap();
    assert!(good > bad, "{first} was worth {good}, then {bad}");
    assert_eq!(judge("nothing", true), 404);
    assert_eq!(door.post(&format!("/api/v1/runs/{turn}/feedback"), &json!({})).status, 400);
    world.settings("[memory]\nenabled = false\n");
    let door = open(&world, &[says("hello")]);
    assert_eq!(door.get("/api/v1/memories").status, 404);
}
