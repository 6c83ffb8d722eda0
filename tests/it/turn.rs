//! One turn: what is decided after each answer and each round of calls.

use std::collections::HashSet;
use std::time::Duration;

use omni::agent::guard::{Finding, Guard};
use omni::agent::turn::{Ask, Ending, Step, Turn};
use omni::config::Limits;
use omni::llm::{self, Reply, Stop};
use omni::message::event::StopReason;
use omni::message::{Arguments, Block, Message, Part, Role, ToolCall, ToolResult, Usage};
use omni::tool::{self, Output};
use proptest::prelude::*;
use serde_json::{Value, json};

const NOW: Duration = Duration::from_secs(5);

fn limits() -> Limits {
    Limits { rounds: 6, tool_calls: 8, tokens: 1000, dollars: 0.0, seconds: 60.0 }
}

fn call(id: &str, name: &str, arguments: Value) -> ToolCall {
    ToolCall { id: id.into(), name: name.into(), arguments: arguments.into() }
}

fn reply(text: &str, calls: Vec<ToolCall>, stop: Stop) -> Reply {
    let text = (!text.is_empty()).then(|| Part::text(text));
    let parts = text.into_iter().chain(calls.into_iter().map(Part::Call)).collect();
    let usage = Some(Usage { input: 10, output: 5, ..Usage::default() });
    Reply { message: Message::of(Role::Assistant, parts), stop, usage, model: "scripted".into() }
}

fn says(text: &str) -> Reply {
    reply(text, Vec::new(), Stop::Done)
}

fn wants(calls: Vec<ToolCall>) -> Reply {
    reply("", calls, Stop::Done)
}

fn fine(calls: &[ToolCall], text: &str) -> Vec<ToolResult> {
    calls.iter().map(|call| tool::result(call, Ok(Output::text(text)))).collect()
}

fn ask(turn: &mut Turn) -> Ask {
    match turn.next(NOW) {
        Step::Ask(ask) => ask,
        other => panic!("no question: {other:?}"),
    }
}

fn calls(turn: &mut Turn) -> Vec<ToolCall> {
    match turn.next(NOW) {
        Step::Call(calls) => calls,
        other => panic!("no calls: {other:?}"),
    }
}

fn ending(turn: &mut Turn) -> Ending {
    match turn.next(NOW) {
        Step::Done(ending) => ending,
        other => panic!("not done: {other:?}"),
    }
}

/// Plays one round of calls whose results are these texts.
fn round(turn: &mut Turn, wanted: Vec<ToolCall>, text: &str) {
    turn.replied(wants(wanted));
    let running = calls(turn);
    turn.called(fine(&running, text));
}

/// The conversation in short: who, and the ids of calls and results.
fn shape(turn: &Turn) -> Vec<String> {
    let message = |message: &Message| {
        let ids = message.calls().map(|call| format!("+{}", call.id));
        let results = message
            .tool_results()
            .map(|result| format!("-{}{}", result.call, if result.is_error { "!" } else { "" }));
        let parts: Vec<_> = ids.chain(results).collect();
        format!("{:?} {}{}", message.role, message.text(), parts.join(" "))
    };
    turn.messages().iter().map(message).collect()
}

#[test]
fn an_answer_without_tools() {
    let mut turn = Turn::begin(&limits(), NOW);
    assert_eq!(ask(&mut turn), Ask { with_tools: true, extra: None });
    turn.replied(says("Hello."));
    let expected = Ending {
        text: "Hello.".into(),
        stop: StopReason::Answered,
        error: None,
        rounds: 1,
        tool_calls: 0,
        usage: Usage { input: 10, output: 5, ..Usage::default() },
    };
    assert_eq!(ending(&mut turn), expected);
    // What comes after the end changes nothing.
    turn.replied(says("More."));
    turn.cancelled(None);
    assert_eq!(ending(&mut turn), expected);
    assert_eq!(shape(&turn), ["Assistant Hello."]);
}

#[test]
fn results_come_back_in_the_order_of_the_calls() {
    let mut turn = Turn::begin(&limits(), NOW);
    ask(&mut turn);
    turn.replied(wants(vec![
        call("a", "t", json!({})),
        call("b", "t", json!({})),
        call("a", "t", json!({"n": 1})),
    ]));
    let running = calls(&mut turn);
    let ids: Vec<_> = running.iter().map(|call| call.id.as_str()).collect();
    assert_eq!(ids, ["a", "b", "a-2"], "ids are made unique");
    let mut results = fine(&running, "ok");
    results.reverse();
    results.remove(1);
    turn.called(results);
    assert_eq!(ask(&mut turn), Ask { with_tools: true, extra: None });
    assert_eq!(shape(&turn), ["Assistant +a +b +a-2", "Tool -a -b! -a-2"]);
}

#[test]
fn the_last_model_call_has_no_tools() {
    let mut turn = Turn::begin(&Limits { rounds: 3, ..limits() }, NOW);
    for n in 0..2 {
        assert!(ask(&mut turn).with_tools);
        round(&mut turn, vec![call("", "t", json!({"n": n}))], "ok");
    }
    let last = ask(&mut turn);
    assert!(!last.with_tools && last.extra.unwrap().contains("limit of 3 model calls"));
    turn.replied(reply("Half of it.", vec![call("x", "t", json!({}))], Stop::Done));
    let ending = ending(&mut turn);
    assert_eq!((ending.text.as_str(), ending.stop, ending.rounds), ("Half of it.", StopReason::Limit, 3));
    assert_eq!(shape(&turn).last().unwrap(), "Assistant Half of it.");
}

#[test]
fn a_turn_of_one_step() {
    let mut turn = Turn::begin(&Limits { rounds: 1, ..limits() }, NOW);
    assert_eq!(ask(&mut turn), Ask { with_tools: false, extra: None });
    turn.replied(says("Hello."));
    assert_eq!(ending(&mut turn).stop, StopReason::Answered);
}

#[test]
fn what_calls_ask_for_themselves_counts_as_well() {
    let mut turn = Turn::begin(&Limits { tool_calls: 5, tokens: 1000, ..limits() }, NOW);
    ask(&mut turn);
    turn.replied(wants(vec![call("a", "t", json!({}))]));
    let running = calls(&mut turn);
    assert_eq!(turn.calls_left(), 4);
    turn.nested(4, Usage { input: 1000, ..Usage::default() });
    turn.called(fine(&running, "ok"));
    assert_eq!(turn.calls_left(), 0);
    assert!(!ask(&mut turn).with_tools);
    turn.replied(says("Done."));
    let ending = ending(&mut turn);
    assert_eq!(ending.tool_calls, 5);
    assert!(ending.usage.input >= 1000);
}

#[test]
fn a_turn_that_has_cost_what_it_may_has_one_more_answer() {
    let mut turn = Turn::begin(&Limits { dollars: 0.01, ..limits() }, NOW);
    let dear = |reply: Reply, cost| Reply {
        usage: Some(Usage { input: 10, output: 5, cost: Some(cost), ..Usage::default() }),
        ..reply
    };
    for (round, tools) in [(0, true), (1, true), (2, false)] {
        assert_eq!(ask(&mut turn).with_tools, tools, "{round}");
        turn.replied(dear(wants(vec![call(&round.to_string(), "t", json!({"n": round}))]), 5000));
        if tools {
            let running = calls(&mut turn);
            turn.called(fine(&running, "ok"));
        }
    }
    let ending = ending(&mut turn);
    assert_eq!((ending.stop, ending.usage.cost), (StopReason::Limit, Some(15_000)));
}

#[test]
fn more_calls_than_are_left() {
    let mut turn = Turn::begin(&Limits { tool_calls: 2, ..limits() }, NOW);
    ask(&mut turn);
    turn.replied(wants((0..4).map(|n| call(&format!("c{n}"), "t", json!({"n": n}))).collect()));
    let running = calls(&mut turn);
    assert_eq!(running.len(), 2);
    turn.called(fine(&running, "ok"));
    assert_eq!(shape(&turn)[1], "Tool -c0 -c1 -c2! -c3!");
    let last = ask(&mut turn);
    assert!(!last.with_tools && last.extra.unwrap().contains("limit of 2 tool calls"));
    turn.replied(says(" "));
    let ending = ending(&mut turn);
    assert_eq!((ending.stop, ending.tool_calls), (StopReason::Limit, 2));
    assert!(ending.text.contains("`t` ×2."), "{}", ending.text);
}

#[test]
fn the_tokens_are_used_up() {
    let mut turn = Turn::begin(&Limits { tokens: 15, ..limits() }, NOW);
    ask(&mut turn);
    round(&mut turn, vec![call("c", "t", json!({}))], "ok");
    let last = ask(&mut turn);
    assert!(!last.with_tools && last.extra.unwrap().contains("limit of 15 tokens"));
    turn.replied(says("So far."));
    assert_eq!(ending(&mut turn).stop, StopReason::Limit);
}

#[test]
fn the_time_is_up_while_tools_run() {
    let mut turn = Turn::begin(&limits(), NOW);
    ask(&mut turn);
    turn.replied(reply("Looking.", vec![call("c", "git__log", json!({}))], Stop::Done));
    calls(&mut turn);
    assert_eq!(turn.deadline(), NOW + Duration::from_secs(60));
    let Step::Done(ending) = turn.next(turn.deadline()) else { panic!("it goes on") };
    assert_eq!(ending.stop, StopReason::Limit);
    for word in ["time limit of 60 s", "`git__log` ×1 (1 failed)", "Looking."] {
        assert!(ending.text.contains(word), "{}", ending.text);
    }
    assert_eq!(shape(&turn)[..2], ["Assistant Looking.+c", "Tool -c!"]);
}

#[test]
fn an_answer_that_was_cut() {
    let mut turn = Turn::begin(&limits(), NOW);
    ask(&mut turn);
    turn.replied(reply("Once upon a", Vec::new(), Stop::Length));
    let ending = ending(&mut turn);
    assert_eq!((ending.text.as_str(), ending.stop), ("Once upon a", StopReason::Length));
}

#[test]
fn calls_that_were_cut() {
    let cut = ToolCall {
        arguments: Arguments::Unreadable("{\"text\": \"On".into()),
        ..call("b", "write", json!({}))
    };
    let mut turn = Turn::begin(&limits(), NOW);
    ask(&mut turn);
    turn.replied(reply("", vec![call("a", "read", json!({"n": 1})), cut], Stop::Length));
    assert_eq!(calls(&mut turn), [call("a", "read", json!({"n": 1}))]);
    turn.called(fine(&[call("a", "read", json!({}))], "ok"));
    assert!(ask(&mut turn).extra.unwrap().contains("did not run: `write`"));

    // A call that has no arguments yet is no call without arguments.
    turn.replied(reply("I write", vec![call("c", "write", json!({}))], Stop::Length));
    assert!(ask(&mut turn).extra.unwrap().contains("did not run: `write`"));
    assert_eq!(shape(&turn), ["Assistant +a", "Tool -a"]);
    turn.replied(says("Good."));
    assert_eq!(ending(&mut turn).stop, StopReason::Answered);
}

#[test]
fn unreadable_arguments_go_to_the_toolbox_and_back() {
    let wrong = ToolCall { arguments: Arguments::Unreadable("{".into()), ..call("a", "t", json!({})) };
    let mut turn = Turn::begin(&limits(), NOW);
    ask(&mut turn);
    turn.replied(wants(vec![wrong.clone()]));
    assert_eq!(calls(&mut turn), [wrong]);
}

#[test]
fn an_empty_answer_twice() {
    let mut turn = Turn::begin(&limits(), NOW);
    ask(&mut turn);
    turn.replied(says(""));
    assert!(ask(&mut turn).extra.unwrap().contains("empty"));
    turn.replied(says("\n"));
    let ending = ending(&mut turn);
    assert_eq!(ending.stop, StopReason::ModelFailed);
    assert!(ending.text.contains("empty answer twice") && ending.error.is_some());
}

#[test]
fn no_model_answers() {
    let unauthorized = llm::Error::Unauthorized { provider: "lab".into(), message: "no".into() };
    let partial = Box::new(Message::of(
        Role::Assistant,
        vec![Part::text("Half"), Part::Call(call("z", "t", json!({})))],
    ));
    let broken = llm::Error::Interrupted { provider: "lab".into(), message: "reset".into(), partial };
    for (error, stop, text, kept) in [
        (unauthorized, StopReason::Unauthorized, "lab refused the key", 2),
        (broken, StopReason::ModelFailed, "Half\n\n[The answer is not complete", 3),
    ] {
        let mut turn = Turn::begin(&limits(), NOW);
        ask(&mut turn);
        round(&mut turn, vec![call("c", "t", json!({}))], "ok");
        turn.model_failed(&error);
        let ending = ending(&mut turn);
        assert_eq!((ending.stop, ending.error), (stop, Some(error.to_string())));
        assert!(ending.text.contains(text), "{}", ending.text);
        assert_eq!(turn.messages().len(), kept);
        assert_eq!(turn.messages().last().unwrap().calls().count(), 0);
    }
}

#[test]
fn a_cancel_leaves_no_call_without_result() {
    let mut turn = Turn::begin(&limits(), NOW);
    ask(&mut turn);
    turn.replied(wants(vec![call("a", "t", json!({})), call("b", "t", json!({}))]));
    calls(&mut turn);
    turn.cancelled(None);
    assert_eq!(ending(&mut turn).stop, StopReason::Cancelled);
    assert_eq!(shape(&turn), ["Assistant +a +b", "Tool -a! -b!"]);
}

// Circles.

#[test]
fn the_same_call_over_and_over() {
    let mut turn = Turn::begin(&Limits { rounds: 20, tool_calls: 50, tokens: 100_000, ..limits() }, NOW);
    let again = || vec![call("", "t", json!({"a": 1, "b": 2}))];
    let turned = || vec![call("", "t", json!({"b": 2, "a": 1}))];
    for wanted in [again(), turned()] {
        assert_eq!(ask(&mut turn).extra, None);
        round(&mut turn, wanted, "same");
    }
    assert_eq!(ask(&mut turn).extra, None);
    round(&mut turn, again(), "same");
    let told = ask(&mut turn);
    assert!(told.with_tools && told.extra.unwrap().contains("going in circles"));
    round(&mut turn, again(), "same");
    assert!(!ask(&mut turn).with_tools);
    turn.replied(says("I could not."));
    let ending = ending(&mut turn);
    assert_eq!((ending.text.as_str(), ending.stop, ending.rounds), ("I could not.", StopReason::Loop, 5));
}

#[test]
fn what_is_a_circle_and_what_is_not() {
    let refused = |call: &ToolCall| tool::result(call, Err(tool::Error::Denied("no".into())));
    let ok = |text: &'static str| move |call: &ToolCall| tool::result(call, Ok(Output::text(text)));
    type Played = (&'static str, u64, Box<dyn Fn(&ToolCall) -> ToolResult>);
    let cases: Vec<(&str, Vec<Played>, bool)> = vec![
        (
            "a poll that moves",
            vec![("t", 1, Box::new(ok("1"))), ("t", 1, Box::new(ok("2"))), ("t", 1, Box::new(ok("3")))],
            false,
        ),
        ("other arguments", (1..9).map(|n| ("t", n, Box::new(ok("1")) as Box<_>)).collect(), false),
        ("twice", (0..2).map(|_| ("t", 1, Box::new(ok("1")) as Box<_>)).collect(), false),
        ("thrice", (0..3).map(|_| ("t", 1, Box::new(ok("1")) as Box<_>)).collect(), true),
        ("to and fro", (0..4).map(|n| ("t", n % 2, Box::new(ok("1")) as Box<_>)).collect(), true),
        ("to and fro, not twice", (0..3).map(|n| ("t", n % 2, Box::new(ok("1")) as Box<_>)).collect(), false),
        ("refused", (0..3).map(|n| ("t", n, Box::new(refused) as Box<_>)).collect(), true),
        (
            "refused here and there",
            vec![("t", 1, Box::new(refused)), ("u", 1, Box::new(refused)), ("t", 2, Box::new(refused))],
            false,
        ),
    ];
    for (situation, played, circle) in cases {
        let mut guard = Guard::default();
        let mut found = Finding::Fine;
        for (name, n, answer) in played {
            assert_eq!(found, Finding::Fine, "{situation}");
            let call = call("c", name, json!({"n": n}));
            found = guard.observe(std::slice::from_ref(&call), &[answer(&call)]);
        }
        assert_eq!(matches!(found, Finding::Warn(_)), circle, "{situation}: {found:?}");
    }
}

// Whatever a model and its tools do.

#[derive(Debug, Clone)]
enum Event {
    Reply { text: String, calls: Vec<(String, u8, u8)>, stop: Stop, tokens: u64 },
    Fails(bool),
    Results { texts: Vec<u8>, missing: usize, reversed: bool },
    Cancel,
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let stop = prop_oneof![6 => Just(Stop::Done), 2 => Just(Stop::Length), 1 => Just(Stop::Filtered)];
    let text = prop_oneof![3 => Just(String::new()), 1 => Just("  ".to_owned()), 1 => "[a-z]{1,8}"];
    let wanted = prop::collection::vec(("[ab]?", 0u8..3, 0u8..4), 0..4);
    prop_oneof![
        20 => (text, wanted, stop, 0u64..200)
            .prop_map(|(text, calls, stop, tokens)| Event::Reply { text, calls, stop, tokens }),
        1 => any::<bool>().prop_map(Event::Fails),
        20 => (prop::collection::vec(0u8..4, 4), 0usize..3, any::<bool>())
            .prop_map(|(texts, missing, reversed)| Event::Results { texts, missing, reversed }),
        1 => Just(Event::Cancel),
        2 => (0u64..20).prop_map(Event::Wait),
    ]
}

fn scripted(event: &Event) -> Reply {
    let Event::Reply { text, calls, stop, tokens } = event else { unreachable!("checked by the caller") };
    let call = |(id, name, arguments): &(String, u8, u8)| ToolCall {
        id: id.clone(),
        name: format!("t{name}"),
        arguments: match arguments {
            0 => Arguments::Unreadable("{".into()),
            1 => json!({}).into(),
            n => json!({"n": n}).into(),
        },
    };
    let mut reply = reply(text, calls.iter().map(call).collect(), *stop);
    reply.usage = Some(Usage { input: *tokens, output: 1, ..Usage::default() });
    reply
}

fn outcomes(calls: &[ToolCall], texts: &[u8], missing: usize, reversed: bool) -> Vec<ToolResult> {
    let outcome = |(index, call): (usize, &ToolCall)| match texts[index % texts.len()] {
        0 => tool::result(call, Err(tool::Error::Denied("no".into()))),
        1 => tool::result(call, Err(tool::Error::Failed("no".into()))),
        n => tool::result(call, Ok(Output::new(vec![Block::text(n.to_string())], None))),
    };
    let mut results: Vec<_> = calls.iter().enumerate().map(outcome).skip(missing).collect();
    if reversed {
        results.reverse();
    }
    results
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_turn_ends_in_order(
        script in prop::collection::vec(event(), 0..60),
        rounds in 0u32..8, tool_calls in 0u32..8, tokens in 0u64..1500, seconds in 0.0f64..200.0,
    ) {
        let limits = Limits { rounds, tool_calls, tokens, dollars: 0.0, seconds };
        let mut turn = Turn::begin(&limits, Duration::ZERO);
        let mut now = Duration::ZERO;
        let mut script = script.into_iter();
        let (mut asked, mut called, mut closed) = (0, 0, false);
        let mut answered = true;
        let end = loop {
            prop_assert!(asked <= rounds.max(1), "asked too often");
            let step = turn.next(now);
            prop_assert_eq!(&step, &turn.next(now), "asking for a step changes nothing");
            let event = script.next();
            match &step {
                Step::Done(ending) => break ending.clone(),
                Step::Ask(ask) => {
                    asked += u32::from(answered);
                    prop_assert!(!(closed && ask.with_tools), "tools are back");
                    closed |= !ask.with_tools;
                    prop_assert!(turn.messages().last().is_none_or(|last| last.role == Role::Tool));
                    answered = true;
                    match event {
                        Some(Event::Reply { .. }) => turn.replied(scripted(&event.expect("just seen"))),
                        Some(Event::Fails(interrupted)) => turn.model_failed(&match interrupted {
                            true => llm::Error::Interrupted {
                                provider: "p".into(), message: "m".into(), partial: Box::new(says("part").message) },
                            false => llm::Error::Setup("s".into()),
                        }),
                        Some(Event::Cancel) => turn.cancelled(None),
                        Some(Event::Wait(seconds)) => { now += Duration::from_secs(seconds); answered = false; }
                        // A script that is over repeats itself for ever.
                        None => turn.replied(wants(vec![call("", "t", json!({}))])),
                        Some(Event::Results { .. }) => { turn.called(Vec::new()); answered = false; }
                    }
                }
                Step::Call(calls) => {
                    prop_assert!(!calls.is_empty());
                    match event {
                        Some(Event::Results { texts, missing, reversed }) => {
                            called += calls.len() as u32;
                            turn.called(outcomes(calls, &texts, missing, reversed));
                        }
                        Some(Event::Cancel) => { called += calls.len() as u32; turn.cancelled(None) }
                        Some(Event::Wait(seconds)) => now += Duration::from_secs(seconds),
                        Some(Event::Fails(_)) => turn.model_failed(&llm::Error::Setup("s".into())),
                        Some(Event::Reply { .. }) => turn.replied(says("out of turn")),
                        None => { called += calls.len() as u32; turn.called(fine(calls, "same")) }
                    }
                }
            }
        };
        prop_assert!(called <= tool_calls);
        prop_assert!(end.rounds <= rounds.max(1) && end.tool_calls <= tool_calls);
        prop_assert!(end.stop == StopReason::Cancelled || !end.text.trim().is_empty());
        let messages = turn.messages();
        let mut ids = HashSet::new();
        for (index, message) in messages.iter().enumerate() {
            let wanted: Vec<_> = message.calls().map(|call| (&call.id, &call.name)).collect();
            prop_assert!(wanted.iter().all(|(id, _)| ids.insert((*id).clone())), "an id twice");
            prop_assert!(wanted.iter().all(|(id, _)| !id.is_empty()), "no id");
            if !wanted.is_empty() {
                let got: Vec<_> =
                    messages[index + 1].tool_results().map(|result| (&result.call, &result.name)).collect();
                prop_assert_eq!(wanted, got);
            }
        }
        let results = messages.iter().flat_map(Message::tool_results).count();
        prop_assert_eq!(results, ids.len());
    }
}
