use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use omni::agent::Agent;
use omni::hub::{self, Bounds, Hub, Running};
use omni::llm::Scripted;
use omni::message::event::EventKind;
use omni::message::{Incoming, Message};
use omni::session::Sessions;
use omni::shutdown::Shutdown;
use omni::store::Store;
use omni::tool::{Policy, Settings, Toolbox};
use serde_json::{Value, json};

use crate::support::http::{Answer, Door};
use crate::support::kill::until;
use crate::support::mcp::client;
use crate::support::omni::{Run, World};

fn serve(world: &World, steps: &[Value]) -> Run {
    let model = world.script("model", steps);
    world.omni(["serve", "--bind", "127.0.0.1:0"]).model(&model)
}

fn open(world: &World, steps: &[Value]) -> Door {
    Door::open(serve(world, steps))
}

fn says(text: &str) -> Value {
    json!({"text": text})
}

/// An answer that takes so long.
fn late(milliseconds: u64) -> Value {
    json!({"text": "late", "delay_ms": milliseconds, "loop": true})
}

fn late_once() -> Value {
    json!({"text": "late", "delay_ms": 600_000})
}

fn message(session: &str, words: &str) -> Value {
    json!({"session_id": session, "message": words})
}

#[track_caller]
fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    let (body, is_problem) =
        (answer.json(), answer.header("content-type") == Some("application/problem+json"));
    let told = if is_problem { &body["code"] } else { &body["error"]["code"] };
    assert_eq!(told, code, "{answer:?}");
    if is_problem {
        assert_eq!(body["status"], status, "{body}");
        assert_eq!(body["request_id"].as_str(), answer.header("x-request-id"), "{body}");
    }
}

// Answers.

#[test]
fn a_message_gets_an_answer_in_the_session_its_caller_names() {
    let world = World::new();
    let remembers = json!({"text": "and again", "expect": {"contains": "second"}});
    let door = open(&world, &[says("hello"), remembers, says("you too"), says("new")]);
    let key = "Ärger/mit 7 Räumen";
    let first = door.post("/message", &message(key, " first "));
    assert_eq!((first.status, first.json()), (200, json!({"output": "hello", "session_id": key})));
    let second = door.post("/message", &message(key, "second"));
    assert_eq!(second.json(), json!({"output": "and again", "session_id": key}));
    let plain = door.post("/message", &message("user-7", "hi"));
    assert_eq!(plain.json(), json!({"output": "you too", "session_id": "user-7"}));
    // Without a name it is a new one, which is told.
    let new = door.post("/message", &json!({"message": "hi"})).json();
    assert_eq!(new["session_id"].as_str().map(str::len), Some(36), "{new}");
    drop(door);
    let shown = world.omni(["session", "show", "user-7"]).run().succeeded();
    assert!(shown.out.contains("you too"), "{shown}");
    // Both messages of the caller that uses letters of its own are in one session.
    let list = world.omni(["session", "list", "--json"]).run().succeeded().json();
    assert_eq!(list.len(), 3, "{list:?}");
    assert!(list.iter().any(|session| session["messages"] == 4 && session["title"] == "first"), "{list:?}");
}

#[test]
fn a_message_can_be_streamed() {
    let world = World::new();
    let door = open(&world, &[json!({"calls": [{"name": "time__now", "arguments": {}}]}), says("noon")]);
    let answer =
        door.post("/message", &json!({"session_id": "s", "message": "what time is it", "stream": true}));
    assert_eq!(answer.header("content-type"), Some("text/event-stream"), "{answer:?}");
    let events = answer.events();
    let kinds: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds.first(), Some(&"turn.started"), "{kinds:?}");
    assert!(kinds.contains(&"tool.completed") && kinds.contains(&"message.delta"), "{kinds:?}");
    let last = events.last().unwrap();
    assert_eq!(
        (&last["type"], &last["text"], &last["session"]),
        (&json!("result"), &json!("noon"), &json!("s"))
    );
    assert!(answer.body.contains("event: result\n") && answer.body.contains("id: 1\n"), "{answer:?}");
}

#[test]
fn what_is_wrong_with_a_request_is_said_in_the_words_of_its_protocol() {
    let world = World::new();
    let door = open(&world, &[says("never")]);
    let post = |path: &str, body: &str| door.send("POST", path, &[], body);
    for body in [r#"{"session_id": "s", "message": "  "}"#, r#"{"session_id": " ", "message": "hi"}"#] {
        refused(&post("/message", body), 400, "invalid_request");
    }
    let wrong = [r#"{"session_id": "s"}"#.to_owned(), "{".to_owned(), "[1]".to_owned(), "[".repeat(100_000)];
    for body in &wrong {
        refused(&post("/message", body), 400, "invalid_request");
        let answer = post("/v1/chat/completions", body);
        refused(&answer, 400, "invalid_request");
        assert_eq!(answer.json()["error"]["type"], "invalid_request_error", "{answer:?}");
    }
    let form =
        door.send("POST", "/message", &[("Content-Type", "text/plain")], &message("s", "hi").to_string());
    refused(&form, 415, "unsupported_media_type");
    for path in ["/", "/nothing", "/message/", "/v1/nothing", "/v1", "//healthz", "/%2e%2e/healthz"] {
        let answer = door.get(path);
        refused(&answer, 404, "route_not_found");
        assert_eq!(answer.json().get("error").is_some(), path.starts_with("/v1"), "{answer:?}");
    }
    let answer = door.get("/message");
    refused(&answer, 405, "method_not_allowed");
    assert_eq!(answer.header("allow"), Some("POST"), "{answer:?}");
    refused(&door.get("/v1/chat/completions"), 405, "method_not_allowed");
}

#[test]
fn a_request_has_an_id() {
    let world = World::new();
    let door = open(&world, &[says("never")]);
    let own = door.send("GET", "/healthz", &[("X-Request-Id", "mine-1")], "");
    assert_eq!((own.status, own.header("x-request-id")), (200, Some("mine-1")));
    let long = "x".repeat(200);
    for bad in ["", "a b", &long] {
        let answer = door.send("GET", "/nothing", &[("X-Request-Id", bad)], "");
        assert_eq!(answer.json()["request_id"].as_str().map(str::len), Some(36), "{answer:?}");
    }
}

#[test]
fn a_model_that_fails_is_no_secret_leaked() {
    let world = World::new();
    let fault = json!({"error": {"kind": "rejected", "status": 400, "message": "key sk-123 at 10.0.0.7"}, "loop": true});
    let door = open(&world, &[fault]);
    let answer = door.post("/message", &message("s", "hi"));
    refused(&answer, 502, "model_failed");
    assert!(!answer.body.contains("10.0.0.7"), "{answer:?}");
    let request = json!({"model": "omni", "messages": [{"role": "user", "content": "hi"}], "stream": true});
    let answer = door.post("/v1/chat/completions", &request);
    assert_eq!(answer.events().last().unwrap()["error"]["code"], "model_failed", "{answer:?}");
    assert!(!answer.body.contains("10.0.0.7"), "{answer:?}");
}

// Runs.

#[test]
fn a_run_goes_on_alone_and_can_be_come_back_to() {
    let world = World::new();
    let door = open(
        &world,
        &[json!({"calls": [{"name": "time__now", "arguments": {}}]}), says("noon"), late_once()],
    );
    let begun = door.post("/api/v1/sessions/s/turns", &json!({"message": "what time is it"}));
    assert_eq!(begun.status, 202, "{begun:?}");
    let run = begun.header("location").expect("a place").to_owned();
    assert_eq!(begun.json()["session_id"], "s", "{begun:?}");
    let all = door.get(&format!("{run}/events")).events();
    let ids: Vec<_> = all.iter().map(|event| event["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, (1..=all.len() as u64).collect::<Vec<_>>(), "{all:?}");
    assert_eq!(all.last().unwrap()["text"], "noon", "{all:?}");
    let rest = door.send("GET", &format!("{run}/events"), &[("Last-Event-ID", "3")], "").events();
    assert_eq!(rest, all[3..], "{rest:?}");
    let known = door.get(&run).json();
    assert_eq!((&known["status"], &known["result"]["text"]), (&json!("finished"), &json!("noon")), "{known}");
    refused(
        &door.send("GET", &format!("{run}/events"), &[("Last-Event-ID", "x")], ""),
        400,
        "invalid_request",
    );
    refused(&door.get("/api/v1/runs/nothing"), 404, "run_not_found");

    let stream = [("Accept", "text/event-stream")];
    let body = json!({"message": "again"}).to_string();
    let mut left = door.begin("POST", "/api/v1/sessions/s/turns", &stream, &body);
    let turn = left.until("turn.started\",");
    let turn: Value = serde_json::from_str(turn.trim_start_matches("data: ")).unwrap();
    drop(left);
    let run = format!("/api/v1/runs/{}", turn["turn"].as_str().unwrap());
    assert_eq!(door.get(&run).json()["status"], "running");
    assert_eq!(door.send("POST", &format!("{run}/cancel"), &[], "").status, 202);
    let last = door.get(&format!("{run}/events")).events().pop().unwrap();
    assert_eq!(last["stop"], "cancelled", "{last}");
}

#[test]
fn a_run_asks_and_is_answered() {
    let world = World::new();
    let call = json!({"calls": [{"name": "fs__write", "arguments": {"path": "note.txt", "content": "hi"}}]});
    world.settings("[policy]\nask = [\"fs.write\"]\n");
    let door = open(&world, &[call.clone(), says("written"), call, says("not written")]);
    for (consent, is_there) in [("once", true), ("no", false)] {
        let file = world.work().join("note.txt");
        let _ = std::fs::remove_file(&file);
        let begun = door.post("/api/v1/sessions/s/turns", &json!({"message": "write"}));
        let run = begun.header("location").expect("a place").to_owned();
        let mut heard = door.begin("GET", &format!("{run}/events"), &[], "");
        let asked = heard.until("\"approval.requested\"");
        let asked: Value = serde_json::from_str(asked.trim_start_matches("data: ")).unwrap();
        let known = door.get(&run).json();
        assert_eq!((&known["status"], &known["waiting"][0]), (&json!("waiting"), &asked["call"]), "{known}");
        let place = format!("{run}/approvals/{}", asked["call"].as_str().unwrap());
        refused(&door.post(&place, &json!({})), 400, "invalid_request");
        assert_eq!(door.post(&place, &json!({"consent": consent})).status, 204);
        refused(&door.post(&place, &json!({"consent": consent})), 404, "nothing_asked");
        heard.until("event: result");
        assert_eq!(file.exists(), is_there, "{consent}");
    }
}

#[test]
fn sessions_can_be_looked_at_and_deleted() {
    let world = World::new();
    let door = open(&world, &[says("one"), says("two")]);
    door.post("/message", &message("first", "hi"));
    door.post("/message", &message("second/ä", "hi"));
    let list = door.get("/api/v1/sessions").json();
    assert_eq!(list["sessions"].as_array().map(Vec::len), Some(2), "{list}");
    assert_eq!(door.get("/api/v1/sessions?limit=1").json()["sessions"].as_array().map(Vec::len), Some(1));
    assert_eq!(door.get("/api/v1/sessions/second%2F%C3%A4").json()["messages"], 2);
    let log = door.get("/api/v1/sessions/first/messages").json();
    assert!(log["entries"].to_string().contains("one"), "{log}");
    let delete = |path: &str| door.send("DELETE", path, &[], "");
    // The beginning of an id is not the id.
    refused(&delete("/api/v1/sessions/firs"), 404, "session_not_found");
    assert_eq!(delete("/api/v1/sessions/first").status, 204);
    refused(&door.get("/api/v1/sessions/first"), 404, "session_not_found");
    refused(&door.get("/api/v1/sessions/first/messages"), 404, "session_not_found");
}

// Tools.

const SLOW: &str = r#"
import time

from omni import Context, tool

@tool(read_only=True)
def steps(ctx: Context, count: int) -> int:
    """Counts."""
    for step in range(count):
        ctx.progress(step)
        time.sleep(0.02)
    return count

@tool(read_only=True)
def hang() -> int:
    """Hangs."""
    time.sleep(60)
    return 0
"#;

#[test]
fn a_tool_can_be_run_without_the_assistant() {
    let world = World::new();
    world.skill("slow", SLOW);
    let door = open(&world, &[says("never")]);
    let tools = door.get("/api/v1/tools").json();
    let named =
        |name: &str| tools["tools"].as_array().unwrap().iter().find(|tool| tool["name"] == name).cloned();
    assert_eq!(named("slow.steps").expect("it is listed")["policy"], "allow");
    let run = |body: Value| door.post("/run_tool", &body);
    let answer = run(json!({"command": "slow.steps", "arguments": {"count": 3}}));
    assert_eq!((answer.status, &answer.json()["output"]), (200, &json!("3")), "{answer:?}");
    let body = json!({"command": "slow.steps", "arguments": {"count": 3}}).to_string();
    let stream = door.send("POST", "/run_tool", &[("Accept", "text/event-stream")], &body);
    let kinds: Vec<_> = stream.body.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(kinds, ["progress", "progress", "progress", "result"], "{stream:?}");
    refused(&run(json!({"command": "slow.steps", "arguments": {}})), 422, "wrong_arguments");
    refused(&run(json!({"command": "slow.nothing"})), 404, "tool_not_found");
    refused(&run(json!({"command": "slow.hang", "timeout": 0.2})), 504, "tool_timeout");
    refused(&run(json!({"command": "slow.hang", "idle_timeout": 0.2})), 504, "tool_idle");
    refused(&run(json!({"command": "slow.hang", "timeout": -1})), 400, "invalid_request");
    // Nobody is there to be asked.
    let write = json!({"command": "fs.write", "arguments": {"path": "x", "content": "y"}});
    refused(&run(write), 403, "tool_denied");
}

// Limits.

#[test]
fn an_answer_that_takes_too_long_is_given_up() {
    let world = World::new();
    let run = serve(&world, &[late(60_000)]).env("OMNI_GATEWAY__TURN_TIMEOUT", "1.0");
    let door = Door::open(run);
    refused(&door.post("/message", &message("s", "hi")), 504, "turn_timeout");
    let request = json!({"model": "omni", "messages": [{"role": "user", "content": "hi"}]});
    refused(&door.post("/v1/chat/completions", &request), 504, "turn_timeout");
}

#[test]
fn the_time_that_one_waits_for_others_is_a_part_of_it() {
    let world = World::new();
    world.settings("[gateway]\nturns = 1\nturn_timeout = 4.0\n");
    let door = open(&world, &[late(3_000)]);
    let ask = |session: &str| {
        let request = json!({"session_id": session, "message": "hi", "stream": true}).to_string();
        door.begin("POST", "/message", &[], &request)
    };
    let mut first = ask("s");
    first.until("turn.started");
    // None of them takes too long by itself. Whoever comes second, in its session or of all, waits
    // so long before that it has no time left.
    for mut second in [ask("s"), ask("t")] {
        second.until("event: error");
        assert!(second.line().contains("turn_timeout"));
    }
}

#[test]
fn whoever_is_one_too_many_is_told_to_come_back() {
    let world = World::new();
    world.settings("[gateway]\nturns = 1\nwaiting = 1\n");
    let door = open(&world, &[late(60_000)]);
    // Each has begun when its stream has.
    let first = json!({"session_id": "a", "message": "hi", "stream": true}).to_string();
    let mut first = door.begin("POST", "/message", &[], &first);
    first.until("turn.started");
    let second = json!({"session_id": "b", "message": "hi", "stream": true}).to_string();
    let mut second = door.begin("POST", "/message", &[], &second);
    second.until("HTTP/1.1 200");
    let answer = door.post("/message", &message("c", "hi"));
    refused(&answer, 429, "busy");
    assert_eq!(answer.header("retry-after"), Some("1"), "{answer:?}");
    let request = json!({"messages": [{"role": "user", "content": "hi"}]});
    let answer = door.post("/v1/chat/completions", &request);
    refused(&answer, 429, "busy");
    assert_eq!(answer.json()["error"]["type"], "rate_limit_error", "{answer:?}");
}

/// A hub with a model that plays this.
async fn hub(data: &std::path::Path, script: &str, bounds: Bounds) -> Arc<Hub> {
    let store = Store::open(None, data).await.expect("a new database");
    let limits = omni::config::Config::default().limits;
    let settings = Settings {
        policy: Policy::new(&omni::config::Config::default().policy, false).expect("the defaults"),
        timeout: Duration::ZERO,
        idle_timeout: Duration::ZERO,
        result_bytes: 10_000,
        results: None,
        audit: None,
        meanings: None,
    };
    let toolbox = Arc::new(Toolbox::new(Vec::new(), settings));
    let model = Arc::new(Scripted::parse("test", script).expect("a script"));
    let agent = Agent::new(model, toolbox, limits, data.to_owned(), Arc::new(Vec::new));
    Hub::bounded(Arc::new(agent), Sessions::new(store.clone()), store, Shutdown::default(), bounds)
}

async fn say(hub: &Arc<Hub>, session: &str) -> Result<Running, hub::Error> {
    let session = Some(hub.session(session).await?);
    hub.submit(Incoming { session, message: Message::user("hi") }, false).await
}

#[tokio::test]
async fn a_session_that_is_asked_a_lot_does_not_hold_up_the_others() {
    let data = tempfile::tempdir().unwrap();
    let script = r#"{"text": "yes", "delay_ms": 300, "loop": true}"#;
    let hub = hub(data.path(), script, Bounds { turns: 1, waiting: 100, ..Bounds::default() }).await;
    let (sender, mut order) = tokio::sync::mpsc::unbounded_channel();
    let (loud, calm) = (["loud"; 12], ["calm", "shy"]);
    for session in loud.into_iter().chain(calm) {
        let mut running = say(&hub, session).await.unwrap();
        let sender = sender.clone();
        tokio::spawn(async move {
            while let Some(event) = running.events.next().await {
                if matches!(event.kind, EventKind::Started { .. }) {
                    sender.send(session).unwrap();
                }
            }
        });
    }
    // All have come before the second one was let in, however long it took them.
    let mut begun = Vec::new();
    while begun.len() < 14 {
        begun.push(order.recv().await.unwrap());
    }
    let behind = |session: &str| begun.iter().skip_while(|begun| **begun != session).count();
    for session in calm {
        assert!(behind(session) > 8, "the loud one went first: {begun:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_has_so_many_messages_waiting_and_no_more() {
    let data = tempfile::tempdir().unwrap();
    let script = r#"{"text": "yes", "delay_ms": 600000, "loop": true}"#;
    let hub = hub(data.path(), script, Bounds { turns: 4, waiting: 100, ..Bounds::default() }).await;
    let mut running = Vec::new();
    for _ in 0..16 {
        running.push(say(&hub, "loud").await.unwrap());
    }
    assert!(matches!(say(&hub, "loud").await, Err(hub::Error::Full(_))));
    let calm = say(&hub, "calm").await.unwrap();
    let loaded = async {
        while hub.load() != (2, 15) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), loaded)
        .await
        .unwrap_or_else(|_| panic!("{:?}", hub.load()));
    running.push(calm);
    running.iter().for_each(|running| running.cancel.cancel());
    hub.drain().await;
    assert_eq!(hub.load().0, 0);
    assert!(matches!(say(&hub, "calm").await, Err(hub::Error::Draining)));
}

#[test]
fn when_the_caller_hangs_up_the_turn_ends_soon() {
    let world = World::new();
    let door = open(&world, &[late(600_000)]);
    let request = json!({"session_id": "s", "message": "hi", "stream": true}).to_string();
    door.begin("POST", "/message", &[], &request).until("turn.started");
    until(|| {
        let log = world.omni(["session", "export", "s"]).run().succeeded();
        log.out.contains("\"stop\":\"cancelled\"").then_some(())
    });
}

// Callers of the earlier system.

#[test]
fn what_callers_of_the_earlier_system_rely_on_holds() {
    let world = World::new();
    world.settings("[gateway]\nturn_timeout = 4.0\n");
    let door = open(&world, &[says("hello"), late_once(), json!({"text": "bye", "delay_ms": 1000})]);
    let answer = door.post("/message", &message(" me ", " hi "));
    assert_eq!((answer.status, answer.json()), (200, json!({"output": "hello", "session_id": "me"})));
    for body in [message("me", " "), message(" ", "hi")] {
        refused(&door.post("/message", &body), 400, "invalid_request");
    }
    refused(&door.post("/message", &message("me", "hi")), 504, "turn_timeout");
    let going = door.begin("POST", "/message", &[], &message("me", "hi").to_string());
    until(|| {
        let log = door.get("/api/v1/sessions/me/messages").json();
        (log["entries"].to_string().matches("turn_began").count() == 3).then_some(())
    });
    door.server.signal(libc::SIGTERM);
    assert_eq!(going.end().json(), json!({"output": "bye", "session_id": "me"}));
    door.server.end().exited(0);
}

// The end.

#[test]
fn told_to_stop_it_finishes_what_goes_on_and_takes_nothing_new() {
    let world = World::new();
    let door = open(&world, &[late(3_000)]);
    assert_eq!(door.get("/readyz").json()["status"], "ready");
    let request = json!({"session_id": "s", "message": "hi", "stream": true}).to_string();
    let mut going = door.begin("POST", "/message", &[], &request);
    going.until("turn.started");
    door.server.signal(libc::SIGTERM);
    until(|| (door.get("/readyz").status == 503).then_some(()));
    let answer = door.post("/message", &message("t", "hi"));
    refused(&answer, 503, "draining");
    assert_eq!(answer.header("retry-after"), Some("5"), "{answer:?}");
    assert_eq!(door.get("/healthz").status, 200);
    assert!(going.until("event: result").contains("result"));
    assert!(going.line().contains("\"stop\":\"answered\""));
    door.server.end().exited(0);
    let log = world.omni(["session", "export", "s"]).run().succeeded();
    assert!(log.out.contains("\"stop\":\"answered\""), "{log}");
}

#[test]
fn told_twice_it_ends_at_once() {
    let world = World::new();
    let door = open(&world, &[late(600_000)]);
    let request = json!({"session_id": "s", "message": "hi", "stream": true}).to_string();
    let mut going = door.begin("POST", "/message", &[], &request);
    going.until("turn.started");
    door.server.signal(libc::SIGTERM);
    until(|| (door.get("/readyz").status == 503).then_some(()));
    door.server.signal(libc::SIGTERM);
    assert_eq!(door.server.end().code(), 143);
}

// Who is let in.

#[test]
fn dns_rebinding_is_refused() {
    let world = World::new();
    let door = open(&world, &[says("hello")]);
    let body = message("s", "hi").to_string();
    for host in ["example.org", "localhost.example.org", "127.0.0.1.example.org:80", "10.0.0.1", "[::2]:80"] {
        refused(&door.send("POST", "/message", &[("Host", host)], &body), 403, "wrong_host");
        refused(&door.send("GET", "/v1/models", &[("Host", host)], ""), 403, "wrong_host");
    }
    for host in ["localhost", "LOCALHOST:9", "[::1]:80", "127.0.0.1"] {
        assert_eq!(door.send("GET", "/v1/models", &[("Host", host)], "").status, 200, "{host}");
    }
    let two = door.send("GET", "/v1/models", &[("Host", "localhost"), ("Host", "example.org")], "");
    assert!(two.status == 400 || two.status == 403, "{two:?}");
}

#[test]
fn a_cross_origin_post_is_refused() {
    let world = World::new();
    let door = open(&world, &[says("hello")]);
    let body = message("s", "hi").to_string();
    for origin in ["https://example.org", "http://localhost:3000", "null"] {
        refused(&door.send("POST", "/message", &[("Origin", origin)], &body), 403, "browser");
    }
    refused(&door.send("POST", "/message", &[("Sec-Fetch-Site", "cross-site")], &body), 403, "browser");
    let preflight = [("Origin", "https://example.org"), ("Access-Control-Request-Method", "POST")];
    let answer = door.send("OPTIONS", "/message", &preflight, "");
    assert_eq!(answer.status, 403, "{answer:?}");
    assert_eq!(answer.header("access-control-allow-origin"), None, "{answer:?}");
}

#[test]
fn whoever_can_be_reached_from_elsewhere_wants_a_token() {
    let world = World::new();
    let told = world.omni(["serve", "--bind", "0.0.0.0:0"]).run().exited(1);
    assert!(told.err.contains("omni token new"), "{told}");
    world.omni(["serve", "--bind", "127.0.0.1:0", "--token", "s3cret"]).run().exited(2);
    let run = world.omni(["gateway", "--bind", "0.0.0.0:0", "--token", "env:TOKEN"]).env("TOKEN", "s3cret");
    let door = Door::open(run);
    assert_eq!(door.get("/healthz").status, 200);
    let missing = door.get("/v1/models");
    refused(&missing, 401, "unauthorized");
    assert_eq!(missing.header("www-authenticate"), Some("Bearer"), "{missing:?}");
    for wrong in ["Bearer other", "Bearer", "Basic s3cret", "Bearer omni_x_y", "Bearer "] {
        refused(&door.send("GET", "/v1/models", &[("Authorization", wrong)], ""), 401, "unauthorized");
    }
    let two = [("Authorization", "Bearer s3cret"), ("Authorization", "Bearer other")];
    refused(&door.send("GET", "/v1/models", &two, ""), 401, "unauthorized");
    refused(&door.get("/v1/models?token=s3cret"), 401, "unauthorized");
    // Who knows it may come from a page, and by any name.
    let right =
        [("Authorization", "Bearer s3cret"), ("Host", "example.org"), ("Origin", "https://example.org")];
    assert_eq!(door.send("GET", "/v1/models", &right, "").status, 200);
    // Without one, nothing is told of what there is.
    refused(&door.get("/nothing"), 401, "unauthorized");
}

#[test]
fn tokens_have_scopes_and_an_end_and_can_be_taken_back() {
    let world = World::new();
    let new = |arguments: &[&str]| {
        let made = world.omni([&["token", "new"], arguments].concat()).run().succeeded();
        made.out.trim().to_owned()
    };
    let (chat, read) = (new(&["anna"]), new(&["ben", "--scope", "read"]));
    let gone = new(&["eve", "--expires", "1ms"]);
    let listed = world.omni(["token", "list"]).run().succeeded();
    assert!(listed.out.contains("anna") && listed.out.contains("read"), "{listed}");
    assert!(!listed.out.contains(&chat[20..]), "the list has a token in it: {listed}");
    let database = std::fs::read(world.home().join("data/omni.db")).unwrap();
    assert!(!database.windows(40).any(|bytes| bytes == &chat.as_bytes()[20..60]), "it is stored as it is");

    let door = open(&world, &[says("hello"), says("again")]);
    let post = |token: &str| {
        let bearer = format!("Bearer {token}");
        door.send("POST", "/message", &[("Authorization", &bearer)], &message("s", "hi").to_string())
    };
    assert_eq!(post(&chat).json()["output"], "hello");
    refused(&post(&read), 403, "missing_scope");
    refused(&post(&gone), 401, "unauthorized");
    let last = if chat.ends_with('0') { '1' } else { '0' };
    refused(&post(&format!("{}{last}", &chat[..chat.len() - 1])), 401, "unauthorized");
    refused(&door.post("/message", &message("s", "hi")), 401, "unauthorized");
    let id = chat.split('_').nth(1).unwrap();
    world.omni(["token", "revoke", id]).run().succeeded();
    refused(&post(&chat), 401, "unauthorized");
    world.omni(["token", "revoke", id]).run().exited(2);
}

#[test]
fn a_token_may_ask_so_often() {
    let world = World::new();
    world.settings("[gateway]\nrate = 3\n");
    let run = serve(&world, &[says("never")]).env("OMNI_GATEWAY__TOKEN", "s3cret");
    let door = Door::open(run);
    let ask = || door.send("GET", "/v1/models", &[("Authorization", "Bearer s3cret")], "");
    for _ in 0..3 {
        assert_eq!(ask().status, 200);
    }
    let answer = ask();
    refused(&answer, 429, "rate_limited");
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=21).contains(&wait), "{answer:?}");
}

#[test]
fn a_large_body_is_refused_before_it_is_read() {
    let world = World::new();
    let door = open(&world, &[says("hello")]);
    let giga = [("Content-Length", "1073741824")];
    refused(&door.send("POST", "/message", &giga, "{"), 413, "body_too_large");
    refused(&door.send("POST", "/v1/chat/completions", &giga, "{"), 413, "body_too_large");
    // One that does not say how large it is.
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000)).repeat(17);
    let head = format!(
        "POST /message HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\
         Connection: close\r\n\r\n",
        door.address()
    );
    refused(&door.raw(format!("{head}{chunk}0\r\n\r\n").as_bytes()).end(), 413, "body_too_large");
    assert_eq!(door.post("/message", &message("s", "hi")).status, 200);
}

#[test]
fn a_slow_body_is_given_up() {
    let world = World::new();
    let door = open(&world, &[says("hello")]);
    let slow = door.begin("POST", "/message", &[("Content-Length", "100")], "{");
    refused(&slow.end(), 408, "slow_body");
}

#[test]
fn a_smuggled_request_is_no_request() {
    let world = World::new();
    let door = open(&world, &[says("hello")]);
    let inner = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let both = format!(
        "POST /message HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n{inner}",
        5 + inner.len()
    );
    let answer = door.raw(both.as_bytes()).end();
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(!answer.body.contains("\"status\":\"ok\""), "{answer:?}");
}

#[test]
#[ignore = "takes more than a minute: make soak"]
fn soak_a_connection_that_only_dribbles_is_closed() {
    let world = World::new();
    let door = open(&world, &[late(90_000)]);
    // One that is answered late is not.
    let going = door.begin("POST", "/message", &[], &message("s", "hi").to_string());
    let mut dribbling = door.raw(b"GET /healthz HTTP/1.1\r\n");
    let stream = dribbling.stream.get_mut();
    stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let closed = (0..200).any(|_| {
        std::thread::sleep(Duration::from_secs(1));
        matches!(stream.read(&mut [0]), Ok(0)) || stream.write_all(b"X: y\r\n").is_err()
    });
    assert!(closed);
    let answer = going.end();
    assert_eq!(answer.status, 200, "{answer:?}");
}

// OpenAI's protocol.

#[test]
fn the_official_openai_sdk_is_served() {
    let world = World::new();
    let usage = json!({"input": 12, "output": 3});
    let call =
        json!({"calls": [{"name": "time__now", "arguments": {}}], "text": "Let me look.", "usage": usage});
    let steps = [
        json!({"text": "hello", "usage": usage, "expect": {"contains": "and now?"}}),
        json!({"text": "hello again", "reasoning": "easy", "usage": usage}),
        call.clone(),
        json!({"text": "noon", "usage": usage}),
        call,
        json!({"text": "noon", "usage": usage}),
        says("one"),
        says("two"),
        json!({"error": {"kind": "rejected", "status": 400, "message": "no"}}),
        late_once(),
        late_once(),
    ];
    let door = open(&world, &steps);
    client("openai_client.py", &world, &[&format!("{}/v1", door.url)]);
    // What was asked without a session is in none.
    let list = world.omni(["session", "list", "--json"]).run().succeeded().json();
    assert_eq!(list.len(), 1, "{list:?}");
    assert_eq!((&list[0]["id"], &list[0]["messages"]), (&json!("talk"), &json!(4)), "{list:?}");
}

#[test]
fn chunks_are_what_clients_of_openai_can_read() {
    let world = World::new();
    let door = open(&world, &[json!({"calls": [{"name": "time__now", "arguments": {}}]}), says("noon")]);
    let request = json!({
        "model": "omni", "stream": true, "stream_options": {"include_usage": true}, "temperature": 0.1, "unknown": 1,
        "messages": [{"role": "developer", "content": "be brief"}, {"role": "user", "content": "time?"}],
    });
    let answer = door.post("/v1/chat/completions", &request);
    assert!(!answer.body.contains("event:") && !answer.body.contains("tool_calls\":["), "{answer:?}");
    assert!(answer.body.trim_end().ends_with("data: [DONE]"), "{answer:?}");
    let chunks = answer.events();
    assert!(
        chunks.iter().all(|chunk| chunk["choices"].is_array() && chunk["object"] == "chat.completion.chunk")
    );
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant", "{answer:?}");
    let told: Vec<_> = chunks.iter().filter_map(|chunk| chunk["omni"]["type"].as_str()).collect();
    assert_eq!(told, ["tool.started", "tool.completed", "result"], "{answer:?}");
    let last = chunks.last().unwrap();
    assert_eq!(
        (last["choices"].as_array().map(Vec::len), last["usage"].is_object()),
        (Some(0), true),
        "{last}"
    );
}

#[test]
fn what_a_caller_would_miss_is_refused() {
    let world = World::new();
    let door = open(&world, &[says("never")]);
    let user = json!({"role": "user", "content": "hi"});
    let ask = |fields: Value| {
        let mut request = json!({"model": "omni", "messages": [user]});
        request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        door.post("/v1/chat/completions", &request)
    };
    let function = json!({"type": "function", "function": {"name": "f", "parameters": {}}});
    let remote = json!({"type": "image_url", "image_url": {"url": "http://10.0.0.1/x.png"}});
    for (fields, param) in [
        (json!({"tools": [function]}), "tools"),
        (json!({"n": 2}), "n"),
        (json!({"response_format": {"type": "json_object"}}), "response_format"),
        (json!({"messages": [{"role": "user", "content": [remote]}]}), "messages"),
        (json!({"messages": [user, {"role": "tool", "tool_call_id": "x", "content": "y"}]}), "messages"),
    ] {
        let answer = ask(fields);
        refused(&answer, 400, "unsupported_parameter");
        assert_eq!(answer.json()["error"]["param"], param, "{answer:?}");
    }
    for messages in [
        json!([]),
        json!([{"role": "assistant", "content": "hi"}]),
        json!([{"role": "king", "content": "x"}]),
    ] {
        refused(&ask(json!({"messages": messages})), 400, "invalid_request");
    }
    refused(&ask(json!({"model": "gpt-4o"})), 404, "model_not_found");
    refused(&door.get("/v1/models/gpt-4o"), 404, "model_not_found");
    assert_eq!(door.get("/v1/models").json()["data"][0]["id"], "omni");
    assert_eq!(door.get("/v1/models/omni").json()["object"], "model");
}

#[test]
fn any_model_is_answered_for_where_that_is_wanted() {
    let world = World::new();
    world.settings("[gateway]\nany_model = true\n");
    let door = open(&world, &[says("hello")]);
    let request = json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]});
    let answer = door.post("/v1/chat/completions", &request).json();
    assert_eq!(
        (&answer["model"], &answer["choices"][0]["message"]["content"]),
        (&json!("gpt-4o"), &json!("hello"))
    );
}
