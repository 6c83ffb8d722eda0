//! What may be used of models: by a conversation, in a turn, in a day, and what is said once it is.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use omni::agent::Agent;
use omni::config::{Budget, Config};
use omni::hub::budget::Calendar;
use omni::hub::run::Key;
use omni::hub::{self, Bounds, Hub, Order, command};
use omni::llm::Scripted;
use omni::message::event::{EventKind, Finished, StopReason};
use omni::message::{Incoming, Message, Usage};
use omni::session::{Ended, Entry, Sessions};
use omni::shutdown::Shutdown;
use omni::store::Store;
use omni::tool::Toolbox;
use serde_json::{Value, json};

use crate::support::database::{Database, on_both};
use crate::support::http::{Answer, Door};
use crate::support::omni::{Run, World};
use crate::support::tools;

/// An answer that takes a hundred tokens, again and again.
fn hundred() -> Value {
    json!({"text": "yes", "usage": {"input": 90, "output": 10}, "loop": true})
}

fn serve(world: &World, steps: &[Value]) -> Run {
    let model = world.script("model", steps);
    world.omni(["serve", "--bind", "127.0.0.1:0"]).model(&model)
}

fn message(session: &str, words: &str) -> Value {
    json!({"session_id": session, "message": words})
}

#[track_caller]
fn spent<'a>(answer: &'a Answer, words: &[&str]) -> Option<&'a str> {
    let body = answer.json();
    let told = if body["error"].is_object() { &body["error"] } else { &body };
    assert_eq!((answer.status, &told["code"]), (429, &json!("budget_spent")), "{answer:?}");
    let detail = told["detail"].as_str().or_else(|| told["message"].as_str()).unwrap();
    words.iter().for_each(|word| assert!(detail.contains(word), "{detail}"));
    answer.header("retry-after")
}

// At the HTTP door.

#[test]
fn a_conversation_that_has_used_what_it_may_is_refused_everywhere_and_others_go_on() {
    let world = World::new();
    world.settings("[budget]\nsession_tokens = 200\n");
    let door = Door::open(serve(&world, &[hundred()]));
    let say = |door: &Door, session: &str| door.post("/message", &message(session, "hi"));
    assert_eq!(say(&door, "s").status, 200);
    assert_eq!(say(&door, "s").status, 200);
    let words = ["200 of 200 tokens", "begin another", "`budget.session_tokens`"];
    // Nothing but a change of the settings helps, so it is not said when to come back.
    assert_eq!(spent(&say(&door, "s"), &words), None);
    assert_eq!(spent(&door.post("/api/v1/sessions/s/turns", &json!({"message": "hi"})), &words), None);
    let chat = json!({"messages": [{"role": "user", "content": "hi"}], "metadata": {"session_id": "s"}});
    let answer = door.post("/v1/chat/completions", &chat);
    assert_eq!(spent(&answer, &words), None);
    assert_eq!(answer.json()["error"]["type"], "insufficient_quota");
    let response = json!({"input": "hi", "conversation": "s"});
    assert_eq!(spent(&door.post("/v1/responses", &response), &words), None);
    assert_eq!(say(&door, "t").status, 200);
    drop(door);
    // A restart changes nothing, and neither does beginning anew in the same session; the settings do.
    let door = Door::open(serve(&world, &[hundred()]));
    spent(&say(&door, "s"), &words);
    drop(door);
    let shown = world.omni(["session", "show", "s"]).run().succeeded();
    assert_eq!(shown.out.matches("yes").count(), 2, "{shown}");
    let door = Door::open(serve(&world, &[hundred()]).env("OMNI_BUDGET__SESSION_TOKENS", "300"));
    assert_eq!(say(&door, "s").status, 200);
    spent(&say(&door, "s"), &["300 of 300 tokens"]);
}

#[test]
fn a_day_is_shared_by_all_that_ask_and_comes_to_its_end() {
    let world = World::new();
    world.settings("[budget]\nday_tokens = 300\n");
    let door = Door::open(serve(&world, &[hundred()]));
    let key = [("Idempotency-Key", "k")];
    let first = message("a", "hi").to_string();
    assert_eq!(door.send("POST", "/message", &key, &first).status, 200);
    let chat = json!({"messages": [{"role": "user", "content": "hi"}]});
    assert_eq!(door.post("/v1/chat/completions", &chat).status, 200);
    world.omni(["ask", "hi"]).model(&world.script("asked", &[hundred()])).run().succeeded();
    let words = ["300 of 300 tokens", "there is more from 20", " 00:00", "`budget.day_tokens`"];
    let answer = door.post("/v1/chat/completions", &chat);
    let again: u64 = spent(&answer, &words).expect("when to come back").parse().unwrap();
    assert!((1..=25 * 60 * 60).contains(&again), "{again}");
    // What was answered before is answered still.
    let known = door.send("POST", "/message", &key, &first);
    assert_eq!((known.status, known.header("idempotency-replayed")), (200, Some("true")), "{known:?}");
    drop(door);
    let door = Door::open(serve(&world, &[hundred()]));
    spent(&door.post("/message", &message("b", "hi")), &words);
    let asked = world.omni(["ask", "hi"]).model(&world.script("asked", &[hundred()])).run();
    assert_eq!(asked.code(), 6, "{asked}");
    assert!(asked.err.contains("budget.day_tokens"), "{asked}");
}

#[test]
fn what_is_left_is_told_in_a_talk() {
    let world = World::new();
    world.settings("[budget]\nsession_tokens = 150\nday_tokens = 1000\nday_dollars = 2.0\n");
    let model = world.script("model", &[hundred()]);
    let talk = "hi\nhi\n/status\nonce more\n";
    let talked = world.omni(["stdio"]).model(&model).input(talk).run();
    let status = "budget of this conversation: 200 of 150 tokens\n\
                  budget of the day: 200 of 1000 tokens, 0.0000 of 2.0000 dollars, and 200 tokens of unknown price";
    assert!(talked.out.contains(status), "{talked}");
    let all = format!("{}{}", talked.out, talked.err);
    assert!(all.contains("what a conversation may use is used up (200 of 150 tokens)"), "{talked}");
}

#[test]
fn dollars_are_counted_by_the_price_there_is_and_refused_without_one() {
    let world = World::new();
    world.settings("[budget]\nday_dollars = 0.003\n");
    let dear = json!({"text": "yes", "usage": {"input": 90, "output": 10, "cost": 1500}, "loop": true});
    let door = Door::open(serve(&world, &[dear]));
    assert_eq!(door.post("/message", &message("a", "hi")).status, 200);
    assert_eq!(door.post("/message", &message("b", "hi")).status, 200);
    spent(&door.post("/message", &message("c", "hi")), &["0.0030 of 0.0030 dollars", "`budget.day_dollars`"]);
    drop(door);
    let ask = || {
        world.omni(["ask", "hi"]).model("lab/m").env("OMNI_PROVIDER__LAB__BASE_URL", "http://127.0.0.1:1/v1")
    };
    let refused = ask().env("OMNI_PROVIDER__LAB__API_KEY", "none").run();
    assert_eq!(refused.code(), 3, "{refused}");
    let words = "`budget.day_dollars` is a limit in dollars, and what `lab/m` costs is not known";
    assert!(refused.err.contains(words) && refused.err.contains("model.price"), "{refused}");
}

#[test]
fn a_turn_that_uses_up_the_rest_has_one_more_answer() {
    for limit in ["day_tokens", "session_tokens"] {
        uses_up(limit);
    }
}

fn uses_up(limit: &str) {
    let world = World::new();
    world.settings(&format!("[budget]\n{limit} = 100\n"));
    let calls =
        json!({"calls": [{"name": "time__now", "arguments": {}}], "usage": {"input": 100, "output": 5}});
    let last = json!({"text": "That much I know.", "expect": {"contains": "This is your last answer"},
                      "usage": {"input": 100, "output": 5}});
    let door = Door::open(serve(&world, &[calls, last]));
    let answer =
        door.post("/message", &json!({"session_id": "s", "message": "what time is it", "stream": true}));
    let result = answer.events().pop().unwrap();
    assert_eq!(
        (&result["stop"], &result["text"]),
        (&json!("limit"), &json!("That much I know.")),
        "{result}"
    );
    assert!(result["error"].as_str().unwrap().contains("105 of 100 tokens"), "{result}");
    // The last answer is counted as well.
    spent(&door.post("/message", &message("s", "hi")), &["210 of 100 tokens"]);
}

// In the hub.

/// What time it is in a test.
#[derive(Clone)]
struct Wall(Arc<Mutex<Timestamp>>);

impl Wall {
    fn at(time: &str) -> Self {
        Self(Arc::new(Mutex::new(time.parse().expect("a time"))))
    }

    fn turn(&self, time: &str) {
        *self.0.lock().unwrap() = time.parse().expect("a time");
    }

    fn calendar(&self) -> Calendar {
        let wall = self.0.clone();
        Calendar {
            zone: TimeZone::get("Europe/Berlin").expect("a zone"),
            now: Arc::new(move || *wall.lock().unwrap()),
        }
    }
}

fn house(store: Store, script: &str, bounds: Bounds) -> Arc<Hub> {
    let toolbox = Arc::new(Toolbox::new(Vec::new(), tools::settings()));
    let model = Arc::new(Scripted::parse("test", script).expect("a script"));
    let agent = Agent::new(model, toolbox, Config::default().limits, "/w".into(), Arc::new(Vec::new));
    Hub::bounded(Arc::new(agent), Sessions::new(store.clone()), store, Shutdown::default(), bounds)
}

fn day(tokens: u64) -> Budget {
    Budget { day_tokens: tokens, ..Config::default().budget }
}

async fn order(hub: &Arc<Hub>, session: &str) -> Order {
    let session = Some(hub.session(session).await.expect("a session"));
    Order::new(Incoming { session, message: Message::user("hi") })
}

async fn end(mut running: hub::Running) -> Finished {
    loop {
        if let EventKind::Finished(finished) = running.events.next().await.expect("an end").kind {
            return finished;
        }
    }
}

on_both! {
    async fn a_day_is_over_at_midnight_and_counted_over_all_processes(database: Database) {
        let wall = Wall::at("2026-12-24T21:00:00Z");
        let bounds = || Bounds { budget: day(200), calendar: wall.calendar(), ..Bounds::default() };
        let script = hundred().to_string();
        let (one, other) = (house(database.open().await, &script, bounds()), house(database.open().await, &script, bounds()));
        for hub in [&one, &other] {
            assert_eq!(end(hub.order(order(hub, "s").await).await.unwrap()).await.stop, StopReason::Answered);
        }
        for hub in [&one, &other] {
            let refused = hub.order(order(hub, "s").await).await.map(|_| ()).unwrap_err();
            let hub::Error::Spent(exhausted) = &refused else { panic!("{refused}") };
            assert_eq!(exhausted.wait, Some(Duration::from_secs(2 * 60 * 60)));
            assert!(refused.to_string().contains("from 2026-12-25 00:00 CET on"), "{refused}");
            assert!(matches!(hub.run(order(hub, "s").await, None).await, Err(hub::Error::Spent(_))));
        }
        wall.turn("2026-12-24T23:00:00Z");
        assert_eq!(end(other.order(order(&other, "s").await).await.unwrap()).await.stop, StopReason::Answered);
    }

    async fn what_was_used_today_is_not_what_was_used_yesterday(database: Database) {
        let wall = Wall::at("2026-12-24T21:00:00Z");
        let store = database.open().await;
        let bounds = Bounds { calendar: wall.calendar(), ..Bounds::default() };
        let (hub, sessions) = (house(store.clone(), "", bounds), Sessions::new(store));
        let ended = |cost| {
            let usage = Usage { input: 90, cached: 40, output: 10, cost };
            let (stop, rounds, tool_calls, milliseconds) = (StopReason::Answered, 1, 0, 1.0);
            Entry::TurnEnded(Ended { stop, error: None, usage, rounds, tool_calls, milliseconds })
        };
        // Midnight in Berlin is at eleven.
        for (session, time, cost) in [
            ("a", "2026-12-23T22:59:59Z", Some(1_000_000)),
            ("a", "2026-12-23T23:00:00Z", Some(2_000_000)),
            ("b", "2026-12-24T20:00:00Z", None),
        ] {
            let time: Timestamp = time.parse().unwrap();
            let mut session = sessions.ensure(session, "/w".as_ref(), time).await.unwrap();
            sessions.append(&mut session, time.to_string().as_str(), vec![ended(cost)], time).await.unwrap();
        }
        let (command, words) = command::named("/usage").unwrap();
        let told = hub.command(command, words, "a", None).await;
        let lines: Vec<_> = told.lines().collect();
        assert_eq!(lines, [
            "this conversation: 2 turns, 200 tokens (180 in, 80 of them cached, 20 out) for 3.0000 dollars",
            "all conversations today: 2 turns, 200 tokens (180 in, 80 of them cached, 20 out) for 2.0000 dollars, \
             and 100 tokens of unknown price",
            "there is no budget; `budget` in the settings sets one",
        ]);
    }

    async fn jobs_have_a_day_of_their_own(database: Database) {
        let wall = Wall::at("2026-12-24T21:00:00Z");
        let bounds = Bounds { budget: day(100), calendar: wall.calendar(), ..Bounds::default() };
        let hub = house(database.open().await, &hundred().to_string(), bounds);
        let purse = hub.jobs_purse(200, wall.calendar());
        for _ in 0..2 {
            let job = Order { purse: Some(purse.clone()), ..order(&hub, "job").await };
            assert_eq!(end(hub.order(job).await.unwrap()).await.stop, StopReason::Answered);
        }
        let job = Order { purse: Some(purse.clone()), ..order(&hub, "job").await };
        let refused = hub.order(job).await.map(|_| ()).unwrap_err().to_string();
        assert!(refused.contains("all jobs") && refused.contains("`jobs.tokens`"), "{refused}");
        assert_eq!(end(hub.order(order(&hub, "s").await).await.unwrap()).await.stop, StopReason::Answered);
        assert!(matches!(hub.order(order(&hub, "s").await).await.map(|_| ()), Err(hub::Error::Spent(_))));
    }

    async fn what_was_taken_while_there_was_something_left_does_not_begin_without(database: Database) {
        let wall = Wall::at("2026-12-24T21:00:00Z");
        let bounds = Bounds { turns: 1, budget: day(150), calendar: wall.calendar(), ..Bounds::default() };
        let script = r#"{"text": "yes", "delay_ms": 100, "usage": {"input": 90, "output": 10}, "loop": true}"#;
        let hub = house(database.open().await, script, bounds);
        let mut running = Vec::new();
        for session in ["a", "b", "c", "d"] {
            running.push(hub.order(order(&hub, session).await).await.unwrap());
        }
        let key = Key::new("me", "k", &Value::Null);
        let run = hub.run(order(&hub, "e").await, Some(key.clone())).await.unwrap();
        let mut stops = Vec::new();
        for running in running {
            stops.push(end(running).await);
        }
        let begun = stops.iter().filter(|finished| finished.stop == StopReason::Answered).count();
        let kept = run.finished().await.unwrap().unwrap();
        let refused: Vec<_> = stops.into_iter().filter(|finished| finished.stop == StopReason::Exhausted).collect();
        assert_eq!((begun, refused.len(), kept.stop), (2, 2, StopReason::Exhausted), "{refused:?}");
        for finished in refused {
            assert!(finished.error.unwrap().contains("200 of 150 tokens"));
        }
        // Nothing of it was said, and on the next day the same key says it.
        assert_eq!(hub.sessions().show("e").await.unwrap().len(), 0);
        wall.turn("2026-12-25T08:00:00Z");
        let again = hub.run(order(&hub, "e").await, Some(key)).await.unwrap().retried().await.unwrap();
        assert_eq!((again.id.clone(), again.is_known), (run.id, true));
        assert_eq!(again.finished().await.unwrap().unwrap().stop, StopReason::Answered);
    }
}
