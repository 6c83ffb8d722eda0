//! Turns that survive: runs, their events, keys, kills, and two gateways on one database.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::StreamExt;
use jiff::Timestamp;
use omni::agent::Agent;
use omni::config::Config;
use omni::hub::run::{Key, Status};
use omni::hub::{self, Bounds, Hub, Order};
use omni::llm::{self, Model, Reply, Request, Sink, Stop};
use omni::message::event::StopReason;
use omni::message::{Incoming, Message, Role, Usage};
use omni::session::{Began, Ended, Entry, Sessions};
use omni::shutdown::Shutdown;
use omni::store::Store;
use omni::store::lease::{self, Owner};
use omni::store::run::{Run as Row, Runs};
use omni::tool::{Policy, Settings, Toolbox};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::support::database::{Database, on_both};
use crate::support::http::{self, Answer, Door};
use crate::support::kill::{self, until};
use crate::support::omni::{Run, World};
use crate::support::postgres;
use crate::support::vendor::{self, Vendor, asked};

/// A gateway that asks this vendor.
fn serve(world: &World, vendor: &Vendor) -> Run {
    world
        .omni(["serve", "--bind", "127.0.0.1:0"])
        .model("lab/m")
        .env("OMNI_PROVIDER__LAB__BASE_URL", vendor.openai_url())
        .env("OMNI_PROVIDER__LAB__API_KEY", "none")
}

/// A vendor that says back what it is asked.
fn echo(after: u64) -> Vendor {
    let vendor = Vendor::launch();
    vendor.echoes(Duration::from_millis(after));
    vendor
}

fn message(session: &str, words: &str) -> Value {
    json!({"session_id": session, "message": words})
}

/// Sends a message that may be sent again.
fn keyed(door: &Door, key: &str, body: &Value) -> Answer {
    door.send("POST", "/message", &[("Idempotency-Key", key)], &body.to_string())
}

/// What was said in a session, as it is in its log; nothing where there is none, as one is begun only
/// by a message that is taken.
fn said(door: &Door, session: &str) -> Vec<String> {
    let log = door.get(&format!("/api/v1/sessions/{session}/messages")).json();
    if log["code"] == "session_not_found" {
        return Vec::new();
    }
    let entries = log["entries"].as_array().unwrap_or_else(|| panic!("no log: {log}")).clone();
    let messages = entries.iter().filter(|entry| entry["kind"] == "message");
    messages
        .map(|entry| {
            let text = entry["body"]["parts"][0]["text"].as_str().unwrap_or("…");
            format!("{}: {text}", entry["body"]["role"].as_str().unwrap())
        })
        .collect()
}

fn begin(door: &Door, session: &str, words: &str) -> String {
    let begun = door.post(&format!("/api/v1/sessions/{session}/turns"), &json!({"message": words}));
    assert_eq!(begun.status, 202, "{begun:?}");
    begun.header("location").expect("a place").to_owned()
}

/// Waits for the end of a run.
fn end(door: &Door, run: &str) -> Value {
    until(|| {
        let known = door.get(run).json();
        (known["status"] == "finished").then_some(known)
    })
}

// What is known of a run.

#[test]
fn a_run_is_known_after_a_restart_and_so_is_all_that_happened_in_it() {
    let (world, vendor) = (World::new(), echo(0));
    vendor.answer(vendor::Answer::call("time__now", json!({})));
    let door = Door::open(serve(&world, &vendor));
    let run = begin(&door, "s", "what time is it");
    let all = door.get(&format!("{run}/events")).events();
    let kinds: Vec<_> = all.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert!(kinds.starts_with(&["turn.started"]) && kinds.ends_with(&["result"]), "{kinds:?}");
    assert!(kinds.contains(&"tool.completed"), "{kinds:?}");
    let known = door.get(&run).json();
    drop(door);

    let door = Door::open(serve(&world, &vendor));
    assert_eq!(door.get(&run).json(), known);
    assert_eq!(known["result"]["text"], "re: what time is it", "{known}");
    assert_eq!(door.get(&format!("{run}/events")).events(), all);
    for last in [1, 3, all.len()] {
        let after = [("Last-Event-ID", &*last.to_string())];
        let rest = door.send("GET", &format!("{run}/events"), &after, "").events();
        assert_eq!(rest, all[last..], "after {last}");
    }
    // What is deleted is deleted.
    assert_eq!(door.send("DELETE", "/api/v1/sessions/s", &[], "").status, 204);
    assert_eq!(door.get(&run).status, 404);
}

#[test]
fn a_run_whose_process_is_killed_is_taken_up() {
    let (world, vendor) = (World::new(), Vendor::launch());
    vendor.answer(vendor::Answer::call("time__now", json!({})));
    vendor.answer(vendor::Answer::silent());
    let mut door = Door::open(serve(&world, &vendor));
    let run = begin(&door, "s", "what time is it");
    let mut heard = door.begin("GET", &format!("{run}/events"), &[], "");
    let completed = heard.until("\"tool.completed\"");
    let completed: Value = serde_json::from_str(completed.trim_start_matches("data: ")).unwrap();
    until(|| (vendor.requests().len() == 2).then_some(()));
    door.server.kill();
    drop((door, heard));

    vendor.echoes(Duration::ZERO);
    let door = Door::open(serve(&world, &vendor));
    let known = end(&door, &run);
    assert_eq!(known["result"]["stop"], "answered", "{known}");
    // The message was said once, and the call was not made again.
    assert_eq!(
        said(&door, "s"),
        ["user: what time is it", "assistant: …", "tool: …", "assistant: re: what time is it"]
    );
    let last = vendor.requests().pop().unwrap().body;
    let roles: Vec<_> =
        last["messages"].as_array().unwrap().iter().map(|said| said["role"].clone()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "tool"], "{last}");
    // Numbers go on where they were.
    let after = [("Last-Event-ID", &*completed["id"].to_string())];
    let rest = door.send("GET", &format!("{run}/events"), &after, "").events();
    let ids: Vec<_> = rest.iter().map(|event| event["id"].as_u64().unwrap()).collect();
    let first = completed["id"].as_u64().unwrap() + 1;
    assert_eq!(ids, (first..first + ids.len() as u64).collect::<Vec<_>>(), "{rest:?}");
    assert_eq!(rest.last().unwrap()["text"], "re: what time is it");
    assert!(rest.iter().any(|event| event["type"] == "turn.started"), "{rest:?}");
}

#[test]
fn what_is_cancelled_is_not_taken_up() {
    let (world, vendor) = (World::new(), Vendor::launch());
    vendor.answer(vendor::Answer::silent());
    let door = Door::open(serve(&world, &vendor));
    let run = begin(&door, "s", "hi");
    until(|| (vendor.requests().len() == 1).then_some(()));
    assert_eq!(door.send("POST", &format!("{run}/cancel"), &[], "").status, 202);
    assert_eq!(end(&door, &run)["result"]["stop"], "cancelled");
    drop(door);
    let door = Door::open(serve(&world, &vendor));
    assert_eq!(end(&door, &run)["result"]["stop"], "cancelled");
    assert_eq!(vendor.requests().len(), 1);
}

// Approvals.

/// Waits until a run asks, and returns the call.
fn asked_by(door: &Door, run: &str) -> String {
    until(|| {
        let known = door.get(run).json();
        (known["status"] == "waiting").then(|| known["waiting"][0].as_str().unwrap().to_owned())
    })
}

#[test]
fn a_run_asks_and_is_answered_through_another_gateway_and_after_a_restart() {
    let (world, vendor) = (World::new(), Vendor::launch());
    world.settings("[policy]\nask = [\"fs.write\"]\n");
    let file = world.work().join("note.txt");
    let write =
        || vendor.answer(vendor::Answer::call("fs__write", json!({"path": "note.txt", "content": "hi"})));
    let approve = |door: &Door, run: &str, call: &str, word: Value| {
        door.post(&format!("{run}/approvals/{call}"), &word).status
    };
    write();
    let (mut one, other) = (Door::open(serve(&world, &vendor)), Door::open(serve(&world, &vendor)));
    let run = begin(&one, "s", "write");
    let call = asked_by(&other, &run);
    assert_eq!(approve(&other, &run, &call, json!({})), 400);
    assert_eq!(approve(&other, &run, "another", json!({"consent": "once"})), 404);
    vendor.echoes(Duration::ZERO);
    assert_eq!(approve(&other, &run, &call, json!({"consent": "once"})), 204);
    assert_eq!(end(&other, &run)["result"]["stop"], "answered");
    assert!(file.exists());
    assert_eq!(approve(&other, &run, &call, json!({"consent": "once"})), 404);

    // A no is heard as well.
    std::fs::remove_file(&file).unwrap();
    write();
    let run = begin(&one, "s", "write again");
    assert_eq!(approve(&other, &run, &asked_by(&other, &run), json!({"consent": "no"})), 204);
    end(&other, &run);
    assert!(!file.exists());

    // Nobody has answered when its process is killed: it asks anew, wherever it goes on.
    write();
    let run = begin(&one, "s", "write once more");
    let first = asked_by(&other, &run);
    write();
    one.server.kill();
    drop((one, other));
    assert!(!file.exists());
    let door = Door::open(serve(&world, &vendor));
    let call = asked_by(&door, &run);
    assert!(!file.exists(), "{first} was never agreed to");
    assert_eq!(approve(&door, &run, &call, json!({"consent": "once"})), 204);
    assert_eq!(end(&door, &run)["result"]["stop"], "answered");
    assert!(file.exists());
}

// Keys.

#[test]
fn the_same_key_gets_the_same_answer() {
    let (world, vendor) = (World::new(), echo(0));
    let door = Door::open(serve(&world, &vendor));
    let first = keyed(&door, "k-1", &message("s", "hi"));
    assert_eq!((first.status, first.json()), (200, json!({"output": "re: hi", "session_id": "s"})));
    assert_eq!(first.header("idempotency-replayed"), None);
    let again = keyed(&door, "k-1", &message("s", " hi "));
    assert_eq!((again.status, again.json()), (200, first.json()));
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    for other in [message("s", "ho"), message("t", "hi"), json!({"message": "hi"})] {
        let refused = keyed(&door, "k-1", &other);
        assert_eq!((refused.status, &refused.json()["code"]), (422, &json!("idempotency_key_reused")));
    }
    let long = "x".repeat(256);
    for bad in ["", "two words", "ä", &long] {
        assert_eq!(keyed(&door, bad, &message("s", "hi")).status, 400, "{bad}");
    }
    // Without a session, it is the same new one.
    let new = keyed(&door, "k-2", &json!({"message": "hi"}));
    assert_eq!(new.json(), keyed(&door, "k-2", &json!({"message": "hi"})).json());
    assert_eq!(vendor.requests().len(), 2);
    assert_eq!(said(&door, "s"), ["user: hi", "assistant: re: hi"]);
    drop(door);
    // It is kept.
    let door = Door::open(serve(&world, &vendor));
    assert_eq!(keyed(&door, "k-1", &message("s", "hi")).json(), first.json());
    assert_eq!(vendor.requests().len(), 2);
}

#[test]
fn the_same_key_gets_the_same_run() {
    let (world, vendor) = (World::new(), echo(0));
    vendor.answer(vendor::Answer::silent());
    let door = Door::open(serve(&world, &vendor));
    let key = [("Idempotency-Key", "k")];
    let begin = |words: &str| {
        door.send("POST", "/api/v1/sessions/s/turns", &key, &json!({"message": words}).to_string())
    };
    let (first, again) = (begin("hi"), begin("hi"));
    assert_eq!(first.json()["id"], again.json()["id"]);
    assert_eq!((again.status, again.header("idempotency-replayed")), (202, Some("true")));
    assert_eq!(begin("ho").status, 422);
    until(|| (vendor.requests().len() == 1).then_some(()));
    assert_eq!(said(&door, "s"), ["user: hi"]);
}

#[test]
fn somebody_elses_key_is_another_one() {
    let (world, vendor) = (World::new(), echo(0));
    let token = |name: &str| {
        let made = world.omni(["token", "new", name]).run().succeeded();
        format!("Bearer {}", made.out.trim())
    };
    let (anna, ben) = (token("anna"), token("ben"));
    let door = Door::open(serve(&world, &vendor));
    let ask = |bearer: &str, words: &str| {
        let headers = [("Authorization", bearer), ("Idempotency-Key", "k")];
        door.send("POST", "/message", &headers, &message("s", words).to_string())
    };
    assert_eq!(ask(&anna, "of anna").json()["output"], "re: of anna");
    assert_eq!(ask(&ben, "of ben").json()["output"], "re: of ben");
    assert_eq!(ask(&anna, "of anna").json()["output"], "re: of anna");
    assert_eq!(vendor.requests().len(), 2);
}

#[test]
fn a_key_without_an_answer_is_tried_again() {
    let (world, vendor) = (World::new(), Vendor::launch());
    vendor.answer(vendor::Answer::status(400, "no"));
    let door = Door::open(serve(&world, &vendor));
    let body = message("s", "hi");
    assert_eq!(keyed(&door, "k", &body).status, 502);
    vendor.echoes(Duration::ZERO);
    let answer = keyed(&door, "k", &body);
    assert_eq!((answer.status, &answer.json()["output"]), (200, &json!("re: hi")));
    assert_eq!(said(&door, "s"), ["user: hi", "assistant: re: hi"]);
    assert_eq!(keyed(&door, "k", &body).json(), answer.json());
    assert_eq!(vendor.requests().len(), 2);
}

#[test]
fn openais_protocol_takes_keys_where_something_is_kept() {
    let (world, vendor) = (World::new(), Vendor::launch());
    vendor.answer(vendor::Answer::status(400, "no"));
    let door = Door::open(serve(&world, &vendor));
    let ask = |path: &str, key: &str, body: &Value| {
        door.send("POST", path, &[("Idempotency-Key", key)], &body.to_string())
    };
    let response = |input: &str| ask("/v1/responses", "r", &json!({"input": input}));
    let failed = response("hi");
    assert_eq!(failed.status, 502, "{failed:?}");
    vendor.echoes(Duration::ZERO);
    let first = response("hi");
    let body = first.json();
    assert_eq!((first.status, &body["output"][0]["content"][0]["text"]), (200, &json!("re: hi")), "{body}");
    let again = response("hi");
    assert_eq!((again.json(), again.header("idempotency-replayed")), (body.clone(), Some("true")));
    assert_eq!(door.get(&format!("/v1/responses/{}", body["id"].as_str().unwrap())).json(), body);
    let streamed = ask("/v1/responses", "r", &json!({"input": "hi", "stream": true})).events();
    assert_eq!(streamed.last().unwrap()["response"]["id"], body["id"]);
    let other = response("ho");
    assert_eq!((other.status, &other.json()["error"]["code"]), (422, &json!("idempotency_key_reused")));
    let background = json!({"input": "later", "background": true});
    let begun = ask("/v1/responses", "b", &background).json()["id"].clone();
    assert_eq!(ask("/v1/responses", "b", &background).json()["id"], begun);

    let chat = |words: &str, stream: bool| {
        let messages = json!([{"role": "user", "content": words}]);
        json!({"messages": messages, "stream": stream, "metadata": {"session_id": "s"}})
    };
    let first = ask("/v1/chat/completions", "c", &chat("good day", false));
    assert_eq!(first.json()["choices"][0]["message"]["content"], "re: good day", "{first:?}");
    let again = ask("/v1/chat/completions", "c", &chat("good day", false));
    assert_eq!(
        (&again.json()["id"], again.header("idempotency-replayed")),
        (&first.json()["id"], Some("true"))
    );
    let streamed = ask("/v1/chat/completions", "c", &chat("good day", true));
    let pieces = streamed.events();
    let pieces = pieces.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
    assert_eq!(pieces.collect::<String>(), "re: good day", "{streamed:?}");
    assert_eq!(said(&door, "s"), ["user: good day", "assistant: re: good day"]);
    // The refused one, the answer, what was said later, and the chat.
    until(|| (vendor.requests().len() == 4).then_some(()));
    // Sessions: those of the two responses, and the one with a name.
    assert_eq!(door.get("/api/v1/sessions").json()["sessions"].as_array().map(Vec::len), Some(3));
    for (path, body) in [
        ("/v1/chat/completions", json!({"messages": [{"role": "user", "content": "hi"}]})),
        ("/v1/responses", json!({"input": "hi", "store": false})),
    ] {
        let refused = ask(path, "k", &body);
        let error = &refused.json()["error"];
        assert_eq!((refused.status, &error["param"]), (400, &json!("Idempotency-Key")), "{refused:?}");
    }
}

#[test]
fn a_stream_that_is_tried_again_has_nothing_of_the_first_try() {
    let (world, vendor) = (World::new(), Vendor::launch());
    vendor.answer(vendor::Answer::status(400, "no"));
    let door = Door::open(serve(&world, &vendor));
    let body = json!({"session_id": "s", "message": "hi", "stream": true}).to_string();
    let ask = || door.send("POST", "/message", &[("Idempotency-Key", "k")], &body).events();
    assert_eq!(ask().pop().unwrap()["stop"], "model_failed");
    vendor.echoes(Duration::ZERO);
    let again = ask();
    let results: Vec<_> = again.iter().filter(|event| event["type"] == "result").collect();
    assert_eq!(results.len(), 1, "{again:?}");
    assert_eq!(results[0]["text"], "re: hi");
}

#[test]
fn whoever_comes_again_while_it_goes_on_waits_for_the_same_answer() {
    let (world, vendor) = (World::new(), echo(300));
    let door = Door::open(serve(&world, &vendor));
    let body = message("s", "hi").to_string();
    let streamed = json!({"session_id": "s", "message": "hi", "stream": true}).to_string();
    let key = [("Idempotency-Key", "k")];
    let all: Vec<_> = (0..4).map(|_| door.begin("POST", "/message", &key, &body)).collect();
    let stream = door.begin("POST", "/message", &key, &streamed);
    for one in all {
        assert_eq!(one.end().json()["output"], "re: hi");
    }
    assert_eq!(stream.end().events().pop().unwrap()["text"], "re: hi");
    assert_eq!(vendor.requests().len(), 1);
}

#[test]
fn an_answer_is_there_for_whoever_hung_up_and_comes_again() {
    let (world, vendor) = (World::new(), Vendor::launch());
    vendor.answer(vendor::Answer::silent());
    let run = serve(&world, &vendor).env("OMNI_GATEWAY__TURN_TIMEOUT", "1.0");
    let door = Door::open(run);
    let body = message("s", "hi");
    assert_eq!(keyed(&door, "k", &body).status, 504);
    vendor.echoes(Duration::ZERO);
    assert_eq!(keyed(&door, "k", &body).json()["output"], "re: hi");
    assert_eq!(said(&door, "s"), ["user: hi", "assistant: re: hi"]);
}

#[test]
fn a_turn_with_a_key_goes_on_when_its_caller_hangs_up() {
    let (world, vendor) = (World::new(), echo(7_000));
    let door = Door::open(serve(&world, &vendor));
    let chat = json!({"messages": [{"role": "user", "content": "hi"}], "metadata": {"session_id": "t"}});
    let asks = [
        ("/message", message("s", "hi")),
        ("/v1/responses", json!({"input": "hi"})),
        ("/v1/chat/completions", chat),
    ];
    for (number, (path, body)) in asks.iter().enumerate() {
        let key = number.to_string();
        let asked = door.begin("POST", path, &[("Idempotency-Key", &key)], &body.to_string());
        until(|| (vendor.requests().len() > number).then_some(()));
        drop(asked);
    }
    // Longer than a turn goes on for nobody.
    std::thread::sleep(Duration::from_secs(6));
    for (number, (path, body)) in asks.iter().enumerate() {
        let answer = door.send("POST", path, &[("Idempotency-Key", &number.to_string())], &body.to_string());
        assert!(answer.status == 200 && answer.body.contains("re: hi"), "{answer:?}");
    }
    assert_eq!(vendor.requests().len(), 3);
}

// What was left.

/// A model that says back what it is asked, once it is let.
struct Echo {
    let_go: Semaphore,
    asked: Mutex<Vec<String>>,
    /// How many are asked now, and how many were at most.
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Echo {
    fn new(let_go: usize) -> Arc<Self> {
        let let_go = Semaphore::new(let_go);
        Arc::new(Self {
            let_go,
            asked: Mutex::default(),
            now: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        })
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

#[async_trait]
impl Model for Echo {
    fn name(&self) -> &str {
        "echo"
    }

    fn window(&self) -> usize {
        32_000
    }

    async fn reply(&self, request: &Request, _: &Sink<'_>) -> Result<Reply, llm::Error> {
        let last = request.messages.iter().rfind(|message| message.role == Role::User);
        let asked = last.expect("a question").text();
        self.asked.lock().unwrap().push(asked.clone());
        self.most.fetch_max(self.now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        self.let_go.acquire().await.expect("never closed").forget();
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.now.fetch_sub(1, Ordering::SeqCst);
        let message = Message::assistant(format!("re: {asked}"));
        Ok(Reply { message, stop: Stop::Done, usage: None, model: "echo".to_owned() })
    }
}

/// A hub as a process of its own would have it.
fn hub(store: Store, model: Arc<Echo>, bounds: Bounds) -> Arc<Hub> {
    let config = Config::default();
    let settings = Settings {
        policy: Policy::new(&config.policy, false).expect("the defaults"),
        timeout: Duration::ZERO,
        idle_timeout: Duration::ZERO,
        result_bytes: 10_000,
        results: None,
        audit: None,
        meanings: None,
    };
    let toolbox = Arc::new(Toolbox::new(Vec::new(), settings));
    let agent = Agent::new(model, toolbox, config.limits, "/w".into(), Arc::new(Vec::new));
    Hub::bounded(Arc::new(agent), Sessions::new(store.clone()), store, Shutdown::default(), bounds)
}

async fn order(hub: &Arc<Hub>, session: &str, words: &str) -> Order {
    let session = Some(hub.session(session).await.expect("a session"));
    let incoming = Incoming { session, message: Message::user(words) };
    Order::new(incoming)
}

/// A run that somebody has left.
async fn left(store: &Store, id: &str, session: &str, words: &str, owner: &str) {
    let sessions = Sessions::new(store.clone());
    sessions.ensured(session, Path::new("/w"), Timestamp::now()).await.unwrap();
    let request = json!({"message": Message::user(words), "instructions": null, "asks": false});
    let row = Row {
        id: id.to_owned(),
        session: session.to_owned(),
        digest: String::new(),
        request: request.to_string(),
        is_over: false,
        owner: owner.to_owned(),
        tries: 0,
        waiting: Vec::new(),
        result: String::new(),
        created: Timestamp::now(),
    };
    assert_eq!(Runs::new(store.clone()).add(&row, id).await.unwrap(), None);
}

/// Waits, with a bound, until a run is over; says what its answer is.
async fn answered(hub: &Arc<Hub>, id: &str) -> omni::message::event::Finished {
    let run = hub.find_run(id).await.unwrap().expect("it is known");
    let finished = tokio::time::timeout(Duration::from_secs(60), run.finished()).await;
    finished.expect("it ends").unwrap().expect("it has ended")
}

async fn until_asked(model: &Echo, count: usize) {
    let asked = async {
        while model.asked().len() < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asked).await.expect("it is asked");
}

async fn log(store: &Store, session: &str) -> Vec<String> {
    let session = Sessions::new(store.clone()).open(session).await.unwrap();
    session.messages.iter().map(Message::text).collect()
}

fn dead() -> Owner {
    let mut child = std::process::Command::new("true").spawn().expect("a process");
    let owner = Owner::of(child.id());
    child.wait().expect("a child of ours");
    owner
}

fn event() -> (u64, String) {
    (1, json!({"id": 1, "session": "s", "turn": "r1", "type": "notice", "text": "hm"}).to_string())
}

on_both! {
    async fn a_turn_that_never_began_is_played(database: Database) {
        let store = database.open().await;
        left(&store, "r1", "s", "hi", dead().as_str()).await;
        left(&store, "r2", "t", "ho", "").await;
        let model = Echo::new(9);
        let hub = hub(store.clone(), model.clone(), Bounds::default());
        hub.keep().await.unwrap();
        assert_eq!(answered(&hub, "r1").await.text, "re: hi");
        assert_eq!(answered(&hub, "r2").await.text, "re: ho");
        assert_eq!(log(&store, "s").await, ["hi", "re: hi"]);
    }

    async fn a_turn_that_had_ended_is_not_played_again(database: Database) {
        let store = database.open().await;
        left(&store, "r1", "s", "hi", dead().as_str()).await;
        let sessions = Sessions::new(store.clone());
        let mut session = sessions.open("s").await.unwrap();
        let usage = Usage { input: 5, output: 2, ..Usage::default() };
        let ended = Ended {
            stop: StopReason::Answered, error: None, usage, rounds: 1, tool_calls: 0, milliseconds: 1.0,
        };
        let entries = vec![
            Entry::TurnBegan(Began { model: "m".to_owned() }),
            Entry::Message(Message::user("hi")),
            Entry::Message(Message::assistant("good day")),
            Entry::TurnEnded(ended),
        ];
        sessions.append(&mut session, "r1", entries, Timestamp::now()).await.unwrap();
        let model = Echo::new(9);
        let hub = hub(store.clone(), model.clone(), Bounds::default());
        hub.keep().await.unwrap();
        let finished = answered(&hub, "r1").await;
        assert_eq!((finished.text.as_str(), finished.usage), ("good day", usage));
        assert_eq!(model.asked(), [""; 0]);
        assert_eq!(log(&store, "s").await, ["hi", "good day"]);
    }

    async fn what_was_left_comes_before_what_is_said_later(database: Database) {
        let store = database.open().await;
        left(&store, "r1", "s", "first", "").await;
        left(&store, "r2", "s", "second", "").await;
        let model = Echo::new(9);
        let hub = hub(store.clone(), model.clone(), Bounds::default());
        // Said before anybody has looked after what was left.
        let third = hub.run(order(&hub, "s", "third").await, None).await.unwrap();
        assert_eq!(third.finished().await.unwrap().unwrap().text, "re: third");
        assert_eq!(answered(&hub, "r2").await.text, "re: second");
        let expected = ["first", "re: first", "second", "re: second", "third", "re: third"];
        assert_eq!(log(&store, "s").await, expected);
    }

    async fn a_run_that_somebody_plays_is_left_to_them(database: Database) {
        let (ours, theirs) = (database.open().await, database.open().await);
        let (model, other) = (Echo::new(0), Echo::new(9));
        let first = hub(ours.clone(), model.clone(), Bounds::default());
        let run = first.run(order(&first, "s", "hi").await, None).await.unwrap();
        let second = hub(theirs, other.clone(), Bounds::default());
        second.keep().await.unwrap();
        // From there it can be looked at, and heard of, as it goes on.
        let seen = second.find_run(&run.id).await.unwrap().expect("it is known");
        assert_eq!(seen.standing().await.unwrap().unwrap().status, Status::Running);
        let heard = tokio::spawn(seen.events(0).collect::<Vec<_>>());
        tokio::time::sleep(Duration::from_secs(3)).await;
        model.let_go.add_permits(1);
        assert_eq!(answered(&second, &run.id).await.text, "re: hi");
        let heard = heard.await.unwrap();
        assert_eq!(json!(heard)[heard.len() - 1]["text"], "re: hi", "{heard:?}");
        assert_eq!(json!(heard), json!(run.events(0).collect::<Vec<_>>().await));
        assert_eq!(json!(heard), json!(run.happened().await.unwrap()));
        assert_eq!(other.asked(), [""; 0]);
    }

    async fn what_waits_in_another_process_is_left_to_it(database: Database) {
        let (ours, theirs) = (database.open().await, database.open().await);
        let (model, other) = (Echo::new(9), Echo::new(9));
        let first = hub(ours.clone(), model.clone(), Bounds::default());
        let run = first.run(order(&first, "t", "hi").await, None).await.unwrap();
        run.finished().await.unwrap().unwrap();
        let owner = Runs::new(ours.clone()).get(&run.id).await.unwrap().unwrap().owner;
        left(&ours, "r1", "s", "theirs", &owner).await;
        let second = hub(theirs, other.clone(), Bounds::default());
        talk(&second, "ours").await;
        assert_eq!(other.asked(), ["ours"]);
        let row = Runs::new(ours).get("r1").await.unwrap().unwrap();
        assert_eq!((row.owner, row.is_over), (owner, false));
    }

    async fn what_another_process_has_taken_meanwhile_is_not_played(database: Database) {
        let store = database.open().await;
        let (model, table) = (Echo::new(0), Runs::new(store.clone()));
        let hub = hub(store.clone(), model.clone(), Bounds::default());
        let mut runs = Vec::new();
        for words in ["first", "second", "third"] {
            runs.push(hub.run(order(&hub, "s", words).await, None).await.unwrap());
        }
        until_asked(&model, 1).await;
        let (thief, now) = (Owner::new(), Timestamp::now());
        let presence = omni::store::run::presence(thief.as_str());
        lease::acquire(&store, &presence, &thief, Duration::from_secs(60), now).await.unwrap();
        let row = table.get(&runs[1].id).await.unwrap().unwrap();
        assert!(table.claim(&row, &thief, now).await.unwrap());
        model.let_go.add_permits(3);
        assert_eq!(answered(&hub, &runs[2].id).await.text, "re: third");
        assert_eq!(model.asked(), ["first", "third"]);
        assert_eq!(log(&store, "s").await, ["first", "re: first", "third", "re: third"]);
    }

    async fn what_the_end_of_the_program_cuts_short_is_taken_up_by_the_next(database: Database) {
        let (ours, theirs) = (database.open().await, database.open().await);
        let (model, other) = (Echo::new(0), Echo::new(9));
        let first = hub(ours.clone(), model.clone(), Bounds::default());
        let run = first.run(order(&first, "s", "hi").await, None).await.unwrap();
        until_asked(&model, 1).await;
        first.cancel();
        first.drain().await;
        let row = Runs::new(ours).get(&run.id).await.unwrap().unwrap();
        assert_eq!((row.is_over, row.owner.as_str(), row.tries), (false, "", 1));
        let second = hub(theirs.clone(), other.clone(), Bounds::default());
        second.keep().await.unwrap();
        assert_eq!(answered(&second, &run.id).await.text, "re: hi");
        assert_eq!(log(&theirs, "s").await, ["hi", "re: hi"]);
    }

    async fn what_is_drained_is_written_down(database: Database) {
        let store = database.open().await;
        let model = Echo::new(0);
        let hub = hub(store.clone(), model.clone(), Bounds::default());
        let mut runs = Vec::new();
        for session in 0..8 {
            runs.push(hub.run(order(&hub, &format!("s{session}"), "hi").await, None).await.unwrap());
        }
        until_asked(&model, 8).await;
        model.let_go.add_permits(8);
        hub.drain().await;
        let table = Runs::new(store);
        for run in runs {
            assert!(table.get(&run.id).await.unwrap().unwrap().is_over);
            let last = table.events(&run.id, 0).await.unwrap().pop().expect("its end");
            assert_eq!(json!(last)["text"], "re: hi");
        }
    }

    async fn a_run_can_be_ended_from_elsewhere(database: Database) {
        let (ours, theirs) = (database.open().await, database.open().await);
        let (model, other) = (Echo::new(0), Echo::new(9));
        let first = hub(ours.clone(), model.clone(), Bounds::default());
        let run = first.run(order(&first, "s", "hi").await, None).await.unwrap();
        let second = hub(theirs, other, Bounds::default());
        second.find_run(&run.id).await.unwrap().expect("it is known").cancel().await.unwrap();
        assert_eq!(answered(&first, &run.id).await.stop, StopReason::Cancelled);
    }

    async fn a_key_stands_for_one_message_however_many_ask_at_once(database: Database) {
        let (ours, theirs) = (database.open().await, database.open().await);
        let (model, other) = (Echo::new(9), Echo::new(9));
        let hubs = [hub(ours.clone(), model.clone(), Bounds::default()), hub(theirs, other.clone(), Bounds::default())];
        let key = Key::new("", "k", &json!("hi"));
        let asking = (0..10).map(|number| {
            let (hub, key) = (hubs[number % 2].clone(), key.clone());
            async move {
                let run = hub.run(order(&hub, "s", "hi").await, Some(key)).await.unwrap();
                (run.id.clone(), run.finished().await.unwrap().unwrap().text)
            }
        });
        let mut answers = futures::future::join_all(asking).await;
        answers.dedup();
        assert_eq!(answers.len(), 1, "{answers:?}");
        assert_eq!(model.asked().len() + other.asked().len(), 1);
        let other = Key::new("", "k", &json!("ho"));
        let refused = hubs[0].run(order(&hubs[0], "s", "ho").await, Some(other)).await;
        assert!(matches!(refused, Err(hub::Error::Reused)));
    }

    async fn what_is_taken_is_taken_whole_when_its_caller_hangs_up(database: Database) {
        let store = database.open().await;
        let model = Echo::new(1000);
        let hub = hub(store.clone(), model.clone(), Bounds::default());
        for moment in 0..60 {
            let (session, key) = (format!("s{moment}"), Key::new("", &format!("{moment}"), &json!("hi")));
            let order = order(&hub, &session, "hi").await;
            let mut taking = Box::pin(hub.run(order.clone(), Some(key.clone())));
            // It is let go after so many steps.
            for _ in 0..moment {
                if futures::poll!(&mut taking).is_ready() {
                    break;
                }
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
            drop(taking);
            let run = hub.run(order, Some(key)).await.unwrap();
            assert_eq!(answered(&hub, &run.id).await.text, "re: hi");
            assert_eq!(log(&store, &session).await, ["hi", "re: hi"]);
        }
    }

    async fn a_turn_that_ends_its_process_again_and_again_is_given_up(database: Database) {
        let store = database.open().await;
        left(&store, "r1", "s", "hi", "").await;
        let runs = Runs::new(store.clone());
        for _ in 0..5 {
            let owner = dead();
            let row = runs.get("r1").await.unwrap().unwrap();
            assert!(runs.claim(&row, &owner, Timestamp::now()).await.unwrap());
            let mut write = store.write().await.unwrap();
            assert!(runs.begin(&mut write, "r1", &owner).await.unwrap());
            write.commit().await.unwrap();
        }
        let model = Echo::new(9);
        let hub = hub(store.clone(), model.clone(), Bounds::default());
        hub.keep().await.unwrap();
        let finished = answered(&hub, "r1").await;
        assert_eq!(finished.stop, StopReason::Failed);
        assert!(finished.error.unwrap().contains("5 times"));
        assert_eq!(model.asked(), [""; 0]);
    }

    async fn whoever_has_lost_a_run_can_write_nothing_more_to_it(database: Database) {
        use omni::store::run::Page;
        let store = database.open().await;
        left(&store, "r1", "s", "hi", "").await;
        let runs = Runs::new(store.clone());
        let (ann, bob) = (Owner::new(), Owner::new());
        let row = runs.get("r1").await.unwrap().unwrap();
        assert!(runs.claim(&row, &ann, Timestamp::now()).await.unwrap());
        assert!(!runs.claim(&row, &bob, Timestamp::now()).await.unwrap(), "it was read before ann had it");
        let row = runs.get("r1").await.unwrap().unwrap();
        assert!(runs.claim(&row, &bob, Timestamp::now()).await.unwrap());
        let page = Page { run: "r1".to_owned(), events: vec![event()], ..Page::default() };
        assert_eq!(runs.write(std::slice::from_ref(&page), &ann, Timestamp::now()).await.unwrap(), ["r1"]);
        assert!(runs.events("r1", 0).await.unwrap().is_empty());
        assert_eq!(runs.write(&[page], &bob, Timestamp::now()).await.unwrap(), [""; 0]);
        assert_eq!(runs.events("r1", 0).await.unwrap().len(), 1);
    }

    async fn what_is_long_over_is_forgotten(database: Database) {
        use omni::store::run::Page;
        let store = database.open().await;
        let (runs, ann) = (Runs::new(store.clone()), Owner::new());
        for (number, id) in ["r1", "r2", "r3"].into_iter().enumerate() {
            left(&store, id, "s", "hi", ann.as_str()).await;
            let page = Page { run: id.to_owned(), events: vec![event()], result: Some("{}".to_owned()), ..Page::default() };
            let now = Timestamp::from_second(100 + number as i64).unwrap();
            runs.write(&[page], &ann, now).await.unwrap();
        }
        left(&store, "r4", "s", "hi", ann.as_str()).await;
        runs.forget(Timestamp::from_second(101).unwrap(), 1).await.unwrap();
        assert_eq!(runs.get("r1").await.unwrap(), None);
        assert!(runs.get("r2").await.unwrap().is_some() && runs.get("r4").await.unwrap().is_some());
        assert!(runs.events("r2", 0).await.unwrap().is_empty());
        assert_eq!(runs.events("r3", 0).await.unwrap().len(), 1);
    }

    async fn a_session_is_in_one_process_at_a_time(database: Database) {
        let model = Echo::new(100);
        let hubs = [
            hub(database.open().await, model.clone(), Bounds::default()),
            hub(database.open().await, model.clone(), Bounds::default()),
        ];
        let mut runs = Vec::new();
        for number in 0..8 {
            let hub = &hubs[number % 2];
            runs.push(hub.run(order(hub, "s", &format!("{number}")).await, None).await.unwrap());
        }
        for run in runs {
            assert_eq!(run.finished().await.unwrap().unwrap().stop, StopReason::Answered);
        }
        assert_eq!(model.most.load(Ordering::SeqCst), 1);
        let said = log(&database.open().await, "s").await;
        assert_eq!(said.len(), 16);
        assert!(said.chunks(2).all(|two| two[1] == format!("re: {}", two[0])), "{said:?}");
    }
}

#[tokio::test]
async fn a_turn_that_takes_longer_than_a_lease_keeps_its_session() {
    let database = Database::sqlite();
    let (model, other) = (Echo::new(0), Echo::new(9));
    let first = hub(database.open().await, model.clone(), Bounds::default());
    let second = hub(database.open().await, other.clone(), Bounds::default());
    // Of what is no run nothing but the lease tells others that it goes on.
    let begun = first.order(order(&first, "s", "first").await).await.unwrap();
    until_asked(&model, 1).await;
    let waits = second.run(order(&second, "s", "second").await, None).await.unwrap();
    // A lease lasts ten seconds.
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(other.asked(), [""; 0]);
    model.let_go.add_permits(1);
    drop(begun);
    assert_eq!(waits.finished().await.unwrap().unwrap().text, "re: second");
    let said = log(&database.open().await, "s").await;
    assert_eq!(said, ["first", "re: first", "second", "re: second"]);
}

// Conversations that begin anew.

async fn talk(hub: &Arc<Hub>, words: &str) {
    let run = hub.run(order(hub, "s", words).await, None).await.unwrap();
    run.finished().await.unwrap().unwrap();
}

#[tokio::test]
async fn a_conversation_begins_anew_and_goes_back() {
    let database = Database::sqlite();
    let store = database.open().await;
    let hub = hub(store.clone(), Echo::new(100), Bounds::default());
    talk(&hub, "one").await;
    hub.snapshot("s", "after one").await.unwrap();
    talk(&hub, "two").await;
    hub.reset("s").await.unwrap();
    assert_eq!(log(&store, "s").await, [""; 0]);
    talk(&hub, "three").await;
    assert_eq!(log(&store, "s").await, ["three", "re: three"]);
    // To what was set aside, and back.
    hub.restore("s", "").await.unwrap();
    assert_eq!(log(&store, "s").await, ["one", "re: one", "two", "re: two"]);
    hub.restore("s", "").await.unwrap();
    assert_eq!(log(&store, "s").await, ["three", "re: three"]);
    hub.restore("s", "after one").await.unwrap();
    talk(&hub, "four").await;
    assert_eq!(log(&store, "s").await, ["one", "re: one", "four", "re: four"]);
    assert_eq!(hub.snapshots("s").await.unwrap(), ["after one"]);
    let unknown = hub.restore("s", "nothing").await.unwrap_err().to_string();
    assert_eq!(unknown, "nothing was kept as `nothing`; there are: after one");
    assert!(matches!(hub.snapshot("s", "").await, Err(hub::Error::Name)));
    // The log has all of it.
    let all = Sessions::new(store).show("s").await.unwrap();
    let said = all.iter().filter(|stored| matches!(stored.entry, Entry::Message(_))).count();
    assert_eq!(said, 8);
}

#[tokio::test]
async fn a_conversation_is_told_in_short_when_that_is_wanted() {
    let database = Database::sqlite();
    let store = database.open().await;
    let model = Echo::new(100);
    let hub = hub(store.clone(), model.clone(), Bounds::default());
    talk(&hub, "set aside").await;
    hub.reset("s").await.unwrap();
    for words in ["one", "two", "three"] {
        talk(&hub, words).await;
    }
    assert_eq!(hub.compact("s").await.unwrap(), 2);
    assert_eq!(log(&store, "s").await, ["three", "re: three"]);
    let told = model.asked().pop().unwrap();
    assert!(told.contains("one") && told.contains("two") && !told.contains("set aside"), "{told}");
    assert_eq!(hub.compact("s").await.unwrap(), 0);
    talk(&hub, "four").await;
    assert_eq!(log(&store, "s").await, ["three", "re: three", "four", "re: four"]);
}

// Crowds.

/// Many callers who send one message after the other, each until it is answered.
struct Crowd {
    /// Where the gateways are at the moment.
    places: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    callers: Vec<JoinHandle<usize>>,
}

impl Crowd {
    /// Callers of so many sessions.
    fn gather(sessions: usize) -> Self {
        let (places, stop, answered) =
            <(Arc<Mutex<Vec<String>>>, Arc<AtomicBool>, Arc<AtomicUsize>)>::default();
        let callers = (0..sessions).map(|session| {
            let (places, stop, answered) = (places.clone(), stop.clone(), answered.clone());
            std::thread::Builder::new()
                .stack_size(256 << 10)
                .spawn(move || {
                    let mut count = 0;
                    while !stop.load(Ordering::SeqCst) {
                        let words = format!("message {count} of {session}");
                        let body = message(&format!("s{session}"), &words).to_string();
                        let output = insist(&places, &words, &body, session + count);
                        assert_eq!(output, format!("re: {words}"));
                        answered.fetch_add(1, Ordering::SeqCst);
                        count += 1;
                    }
                    count
                })
                .expect("a thread")
        });
        let callers = callers.collect();
        Self { places, stop, answered, callers }
    }

    /// Says where one gateway is now.
    fn at(&self, number: usize, door: &Door) {
        let mut places = self.places.lock().unwrap();
        let number = number.min(places.len());
        match places.get_mut(number) {
            Some(place) => *place = door.address(),
            None => places.push(door.address()),
        }
    }

    /// Waits until so many more were answered.
    fn wait(&self, more: usize) {
        let goal = self.answered.load(Ordering::SeqCst) + more;
        until(|| (self.answered.load(Ordering::SeqCst) >= goal).then_some(()));
    }

    /// Ends it; returns how many messages each caller had answered.
    fn end(self) -> Vec<usize> {
        self.stop.store(true, Ordering::SeqCst);
        self.callers.into_iter().map(|caller| caller.join().expect("every answer is right")).collect()
    }
}

/// Sends a message with a key until it is answered.
fn insist(places: &Mutex<Vec<String>>, key: &str, body: &str, place: usize) -> String {
    let key = key.replace(' ', "-");
    let deadline = Instant::now() + Duration::from_secs(120);
    for attempt in 0.. {
        assert!(Instant::now() < deadline, "`{key}` is not answered");
        let address = {
            let places = places.lock().unwrap();
            // From one gateway to the other.
            places.get((place + attempt) % places.len().max(1)).cloned()
        };
        let answer =
            address.and_then(|address| http::post(&address, "/message", &[("Idempotency-Key", &key)], body));
        match answer {
            Some(answer) if answer.status == 200 => {
                return answer.json()["output"].as_str().unwrap().to_owned();
            }
            Some(answer) => assert!([429, 503].contains(&answer.status), "{answer:?}"),
            None => {}
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    unreachable!("it is asked until there is an answer")
}

/// Every message is in the log once, in order, each with its answer.
fn check(door: &Door, counts: &[usize]) {
    for (session, count) in counts.iter().enumerate() {
        let said = said(door, &format!("s{session}"));
        let expected = (0..*count).flat_map(|number| {
            let words = format!("message {number} of {session}");
            [format!("user: {words}"), format!("assistant: re: {words}")]
        });
        assert_eq!(said, expected.collect::<Vec<_>>());
    }
}

// Kills.

#[test]
fn no_message_is_lost_and_none_answered_twice_when_it_is_killed() {
    kills(10);
}

#[test]
#[ignore = "500 kills take minutes: make soak"]
#[expect(clippy::print_stdout, reason = "the numbers are of interest")]
fn soak_no_message_is_lost_and_none_answered_twice_in_500_kills() {
    let (messages, asked) = kills(500);
    println!("{messages} messages were answered; the model was asked {asked} times");
}

/// Returns how many messages were answered, and how often the model was asked.
fn kills(rounds: usize) -> (usize, usize) {
    let (world, vendor) = (World::new(), echo(30));
    let crowd = Crowd::gather(12);
    for _ in 0..rounds {
        let mut door = Door::open(serve(&world, &vendor));
        crowd.at(0, &door);
        crowd.wait(3);
        // The moment is what is random here; nothing waits for this sleep.
        std::thread::sleep(Duration::from_millis(200).mul_f64(kill::fraction()));
        door.server.kill();
    }
    let door = Door::open(serve(&world, &vendor));
    crowd.at(0, &door);
    let counts = crowd.end();
    check(&door, &counts);
    (counts.iter().sum(), vendor.requests().len())
}

#[test]
fn nobody_who_is_told_to_come_back_loses_a_message_when_it_is_started_anew() {
    let (world, vendor) = (World::new(), echo(30));
    let crowd = Crowd::gather(12);
    for _ in 0..3 {
        let door = Door::open(serve(&world, &vendor));
        crowd.at(0, &door);
        crowd.wait(20);
        door.server.signal(libc::SIGTERM);
        door.server.end().exited(0);
    }
    let door = Door::open(serve(&world, &vendor));
    crowd.at(0, &door);
    let counts = crowd.end();
    check(&door, &counts);
    assert_eq!(vendor.requests().len(), counts.iter().sum::<usize>(), "nothing was asked twice");
}

// Two gateways.

#[test]
fn two_gateways_on_one_database_keep_the_order_and_one_takes_over_from_the_other() {
    let (world, vendor, url) = (World::new(), echo(10), postgres::database());
    let serve = || serve(&world, &vendor).env("OMNI_STORE__URL", &url);
    let (mut first, second) = (Door::open(serve()), Door::open(serve()));
    let crowd = Crowd::gather(200);
    crowd.at(0, &first);
    crowd.at(1, &second);
    crowd.wait(200);
    // One is killed in the middle of a turn.
    vendor.ignores("are you there");
    let run = begin(&first, "held", "are you there");
    until(|| vendor.requests().iter().any(|request| asked(&request.body) == "are you there").then_some(()));
    first.server.kill();
    crowd.at(0, &second);
    let known = end(&second, &run);
    assert_eq!(known["result"]["text"], "re: are you there", "{known}");
    assert_eq!(said(&second, "held"), ["user: are you there", "assistant: re: are you there"]);
    crowd.wait(200);
    let counts = crowd.end();
    assert!(counts.iter().filter(|count| **count > 0).count() == 200, "{counts:?}");
    check(&second, &counts);
}

// More than it can do.

#[test]
fn more_than_it_can_do_is_refused_and_nothing_is_half_done() {
    let (world, vendor) = (World::new(), echo(300));
    world.settings("[gateway]\nturns = 4\nwaiting = 12\n");
    let door = Door::open(serve(&world, &vendor));
    let bodies: Vec<_> = (0..64).map(|number| message(&format!("s{number}"), "hi").to_string()).collect();
    let asked: Vec<_> = bodies.iter().map(|body| door.begin("POST", "/message", &[], body)).collect();
    let answers: Vec<_> = asked.into_iter().map(http::Reader::end).collect();
    let count = |status| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!(count(200) + count(429), 64, "{answers:?}");
    assert!(count(200) >= 16 && count(429) > 0, "{answers:?}");
    for (number, answer) in answers.iter().enumerate() {
        let said = said(&door, &format!("s{number}"));
        match answer.status {
            200 => assert_eq!(said, ["user: hi", "assistant: re: hi"], "it was answered"),
            _ => assert_eq!(said, [""; 0], "it was refused, and yet it is there"),
        }
    }
}

#[test]
fn told_to_stop_under_load_it_loses_nothing_that_it_has_taken() {
    let (world, vendor) = (World::new(), echo(200));
    world.settings("[gateway]\nturns = 4\nwaiting = 28\n");
    let door = Door::open(serve(&world, &vendor));
    let turn = |number: usize| {
        let path = format!("/api/v1/sessions/s{}/turns", number % 20);
        let body = json!({"message": format!("message {number}")}).to_string();
        door.begin("POST", &path, &[], &body)
    };
    let first: Vec<_> = (0..32).map(turn).collect();
    let mut answers: Vec<_> = first.into_iter().map(http::Reader::end).collect();
    door.server.signal(libc::SIGTERM);
    until(|| (door.get("/readyz").status == 503).then_some(()));
    answers.extend((32..40).map(turn).map(http::Reader::end));
    let (taken, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 202);
    assert!(taken.len() >= 16, "{answers:?}");
    assert!(refused.iter().all(|answer| [429, 503].contains(&answer.status)), "{refused:?}");
    let taken: Vec<_> = taken.iter().map(|answer| answer.header("location").unwrap().to_owned()).collect();
    door.server.end().exited(0);
    let door = Door::open(serve(&world, &vendor));
    for run in &taken {
        let known = door.get(run).json();
        assert_eq!(known["result"]["stop"], "answered", "{known}");
    }
    assert_eq!(vendor.requests().len(), taken.len());
}

#[test]
#[ignore = "takes half a minute: make soak"]
fn soak_what_does_not_end_in_time_is_taken_up_after_the_restart() {
    let (world, vendor) = (World::new(), Vendor::launch());
    vendor.answer(vendor::Answer::text("a beginning that is torn off here").stalls());
    let door = Door::open(serve(&world, &vendor));
    let run = begin(&door, "s", "hi");
    door.begin("GET", &format!("{run}/events"), &[], "").until("message.delta");
    door.server.signal(libc::SIGTERM);
    door.server.end().exited(0);
    vendor.echoes(Duration::ZERO);
    let door = Door::open(serve(&world, &vendor));
    assert_eq!(end(&door, &run)["result"]["text"], "re: hi");
    let last = vendor.requests().pop().unwrap().body;
    assert_eq!(last["messages"].as_array().map(Vec::len), Some(2), "what was torn off is not shown: {last}");
}

// A long time.

#[test]
#[ignore = "100,000 turns take many minutes: make soak"]
#[expect(clippy::print_stdout, reason = "the numbers are of interest")]
fn soak_a_hundred_thousand_turns_leave_nothing_behind() {
    const TURNS: usize = 100_000;
    let (world, vendor) = (World::new(), echo(0));
    vendor.forgets();
    let door = Door::open(serve(&world, &vendor));
    let next = AtomicUsize::new(0);
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", door.server.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size").to_owned();
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") / 1024
    };
    let (mut sizes, address) = (Vec::new(), door.address());
    for part in 1..=10 {
        std::thread::scope(|scope| {
            for _ in 0..32 {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::SeqCst);
                        if number >= TURNS / 10 * part {
                            next.fetch_sub(1, Ordering::SeqCst);
                            return;
                        }
                        // New sessions all the time, so that a turn costs the same at the end.
                        let body = message(&format!("s{}", number / 10), &format!("message {number}"));
                        // One in five may be asked for again.
                        let key = format!("k{number}");
                        let headers: &[(&str, &str)] = match number % 5 {
                            0 => &[("Idempotency-Key", &key)],
                            _ => &[],
                        };
                        let answer = http::post(&address, "/message", headers, &body.to_string());
                        let answer = answer.unwrap_or_else(|| panic!("no answer to {number}"));
                        assert_eq!(answer.status, 200, "{answer:?}");
                    }
                });
            }
        });
        sizes.push(resident());
        println!("{} turns: {} MiB", TURNS / 10 * part, sizes[part - 1]);
    }
    let (early, late) = (sizes[1], sizes[9]);
    assert!(late <= early + early / 4, "it grows: {sizes:?} MiB");
}
