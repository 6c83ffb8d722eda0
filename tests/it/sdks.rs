//! Programs that were written for OpenAI: the SDKs that people have, and the published types.

use serde_json::{Value, json};

use crate::support::http::Door;
use crate::support::kill::until;
use crate::support::omni::{Run, World};
use crate::support::{mcp, peers};

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

fn thinks(text: &str) -> Value {
    json!({"text": text, "reasoning": "easy", "usage": {"input": 12, "output": 3}})
}

fn looks() -> Value {
    let calls = json!([{"name": "time__now", "arguments": {}}]);
    json!({"calls": calls, "text": "Let me look.", "usage": {"input": 12, "output": 3}})
}

fn fails() -> Value {
    json!({"error": {"kind": "rejected", "status": 400, "message": "no"}})
}

fn late(milliseconds: u64, text: &str) -> Value {
    json!({"text": text, "delay_ms": milliseconds})
}

fn response(input: &str) -> Value {
    json!({"model": "omni", "input": input})
}

#[test]
fn responses_are_what_openai_and_open_responses_have_published() {
    let world = World::new();
    let mut steps = vec![
        json!({"text": "Anna", "usage": {"input": 12, "output": 3}, "expect": {"contains": "who am I"}}),
    ];
    steps.extend(["1", "2", "3", "4", "5", "6"].map(says));
    steps.extend([thinks("hello again"), says("helped"), looks(), says("noon"), late(300, "later")]);
    steps.extend([late(500, "the rest"), fails(), fails(), json!({"text": "half", "stop": "length"})]);
    steps.push(late(600_000, "never"));
    let door = open(&world, &steps);
    mcp::client("responses_client.py", &world, &[&format!("{}/v1", door.url)]);
    // Who goes on from the first has what was said up to it, and nothing else.
    let sessions = door.get("/api/v1/sessions").json();
    let titles: Vec<_> =
        sessions["sessions"].as_array().unwrap().iter().map(|session| &session["title"]).collect();
    assert_eq!(titles.iter().filter(|title| **title == "one").count(), 2, "{sessions}");
    let branch =
        sessions["sessions"].as_array().unwrap().iter().find(|session| session["last"] == "3").unwrap();
    let log = door.get(&format!("/api/v1/sessions/{}/messages", branch["id"].as_str().unwrap())).body;
    assert!(log.contains("\"one\"") && log.contains("\"three\"") && !log.contains("\"two\""), "{log}");
    let talk =
        sessions["sessions"].as_array().unwrap().iter().find(|session| session["id"] == "talk").unwrap();
    assert_eq!(talk["messages"], 2, "{talk}");
}

#[test]
fn the_official_openai_sdk_for_node_is_served() {
    let world = World::new();
    let mut steps = vec![says("hello"), looks(), says("noon"), says("helped"), fails(), fails()];
    steps.extend([late(600_000, "never"), late(600_000, "never")]);
    steps.extend([says("1"), says("2"), says("3"), late(600_000, "never")]);
    let door = open(&world, &steps);
    peers::client("openai_client.cjs", &[&format!("{}/v1", door.url)]);
}

#[test]
fn the_ai_sdk_of_vercel_is_served() {
    let world = World::new();
    let once = [
        says("hello"),
        thinks("hello again"),
        looks(),
        says("noon"),
        looks(),
        says("noon"),
        says("one"),
        says("two"),
        fails(),
        fails(),
        late(600_000, "never"),
    ];
    let door = open(&world, &[once.as_slice(); 4].concat());
    peers::client("vercel_client.cjs", &[&format!("{}/v1", door.url)]);
}

#[test]
fn a_response_outlives_the_gateway() {
    let world = World::new();
    let door = open(&world, &[thinks("one"), looks(), says("noon"), late(600_000, "never")]);
    let first = door.post("/v1/responses", &response("hi")).json();
    let next = json!({"model": "omni", "input": "time?", "previous_response_id": first["id"]});
    let second = door.post("/v1/responses", &next).json();
    let going =
        door.post("/v1/responses", &json!({"model": "omni", "input": "hi", "background": true})).json();
    let place = format!("/v1/responses/{}", going["id"].as_str().unwrap());
    until(|| door.get("/api/v1/sessions?limit=1").body.contains("\"messages\":1").then_some(()));
    // Without a chance to say goodbye.
    let Door { mut server, .. } = door;
    server.kill();
    drop(server);

    let door = open(&world, &[says("again"), says("once more"), says("more")]);
    for known in [&first, &second] {
        let place = format!("/v1/responses/{}", known["id"].as_str().unwrap());
        assert_eq!(door.get(&place).json(), *known);
        // Whoever has heard something of it hears the rest.
        let events = door.get(&format!("{place}?stream=true&starting_after=3")).events();
        let numbers: Vec<_> = events.iter().map(|event| event["sequence_number"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (4..4 + numbers.len() as u64).collect::<Vec<_>>(), "{events:?}");
        assert_eq!(&events.last().unwrap()["response"], known, "{events:?}");
    }
    // What was going on is taken up.
    let taken = until(|| Some(door.get(&place).json()).filter(|known| known["status"] != "in_progress"));
    assert_eq!(
        (&taken["status"], &taken["output"][0]["content"][0]["text"]),
        (&json!("completed"), &json!("again"))
    );
    let third = json!({"model": "omni", "input": "and now?", "previous_response_id": second["id"]});
    let third = door.post("/v1/responses", &third).json();
    assert_eq!(third["conversation"], first["conversation"], "{third}");
    // When the run is known no more, the log of its session tells it.
    let Door { server, .. } = door;
    server.signal(libc::SIGTERM);
    server.end().exited(0);
    forget_runs(&world);
    let door = open(&world, &[says("at last")]);
    for known in [&first, &second] {
        let place = format!("/v1/responses/{}", known["id"].as_str().unwrap());
        assert_eq!(door.get(&place).json(), *known);
        let events = door.get(&format!("{place}?stream=true&starting_after=3")).events();
        assert_eq!((events.len(), &events[0]["type"]), (1, &json!("response.completed")), "{events:?}");
        assert_eq!((&events[0]["sequence_number"], &events[0]["response"]), (&json!(4), known));
    }
    // What belongs to a session goes with it.
    let session = first["conversation"]["id"].as_str().unwrap();
    assert_eq!(door.send("DELETE", &format!("/api/v1/sessions/{session}"), &[], "").status, 204);
    assert_eq!(door.get(&format!("/v1/responses/{}", first["id"].as_str().unwrap())).status, 404);
}

/// Forgets all runs, as a day does.
fn forget_runs(world: &World) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = omni::store::Store::open(None, &world.home().join("data")).await.unwrap();
        let mut write = store.write().await.unwrap();
        sqlx::query("DELETE FROM run").execute(&mut *write).await.unwrap();
        write.commit().await.unwrap();
        store.close().await;
    });
}

#[test]
fn a_response_goes_on_alone_in_the_background_only() {
    let world = World::new();
    let door = open(&world, &[late(600_000, "never"), late(6_500, "there")]);
    let begin = |fields: Value| {
        let mut request = json!({"model": "omni", "input": "hi", "stream": true});
        request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let mut begun = door.begin("POST", "/v1/responses", &[], &request.to_string());
        let created = begun.until("response.created\",");
        let created: Value = serde_json::from_str(created.trim_start_matches("data: ")).unwrap();
        format!("/v1/responses/{}", created["response"]["id"].as_str().unwrap())
    };
    let (left, alone) = (begin(json!({})), begin(json!({"background": true})));
    for (place, status) in [(left, "cancelled"), (alone, "completed")] {
        let ended = until(|| Some(door.get(&place).json()).filter(|known| known["status"] != "in_progress"));
        assert_eq!(ended["status"], status, "{ended}");
    }
}

#[test]
fn a_response_that_takes_too_long_is_given_up() {
    let world = World::new();
    let steps = [late(60_000, "never"), late(60_000, "never")];
    let door = Door::open(serve(&world, &steps).env("OMNI_GATEWAY__TURN_TIMEOUT", "1.0"));
    let whole = door.post("/v1/responses", &response("hi"));
    assert_eq!((whole.status, &whole.json()["error"]["code"]), (504, &json!("turn_timeout")), "{whole:?}");
    let events =
        door.post("/v1/responses", &json!({"model": "omni", "input": "hi", "stream": true})).events();
    let last = events.last().unwrap();
    assert_eq!(
        (&last["type"], &last["response"]["status"]),
        (&json!("response.failed"), &json!("failed")),
        "{last}"
    );
}
