//! Tools that are found by what they are for: the questions of `tests/find`, and whole turns in which
//! not all tools are shown.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use omni::tool::{Call, Error, Output, Spec, Toolbox, Toolset};
use serde_json::{Value, json};

use crate::support::omni::{Run, World};
use crate::support::tools::settings;
use crate::support::vendor::{Answer, Vendor};

/// The tools of public servers, which nobody calls here.
struct Listed(Vec<Arc<Spec>>);

#[async_trait]
impl Toolset for Listed {
    fn specs(&self) -> Vec<Arc<Spec>> {
        self.0.clone()
    }

    async fn call(&self, call: Call) -> Result<Output, Error> {
        unreachable!("nobody calls {}", call.spec.name)
    }
}

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/find").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn toolbox() -> Arc<Toolbox> {
    let spec = |line: &str| {
        let tool: Value = serde_json::from_str(line).expect("a line of JSON");
        let text = |key: &str| tool[key].as_str().expect("a text").to_owned();
        let (name, description) = (text("name"), text("description"));
        Arc::new(Spec { name, description, input: tool["input"].clone(), ..Spec::default() })
    };
    let set = Listed(read("tools.jsonl").lines().map(spec).collect());
    Arc::new(Toolbox::new(vec![Arc::new(set)], settings()))
}

#[test]
fn natural_questions_find_their_tools() {
    let (toolbox, questions) = (toolbox(), read("questions.txt"));
    assert!(toolbox.definitions().len() >= 200 && questions.lines().count() >= 150);
    let (mut first, mut five, mut all) = (0, 0, 0);
    for line in questions.lines() {
        let (answers, question) = line.split_once(" | ").expect("`tools | question`");
        let answers: Vec<&str> = answers.split(", ").collect();
        let unknown = answers.iter().find(|answer| toolbox.find(answer).is_none());
        assert!(unknown.is_none(), "there is no tool {unknown:?}");
        let found = toolbox.rank(question);
        let place = found.iter().position(|at| answers.contains(&toolbox.definitions()[*at].name.as_str()));
        all += 1;
        first += u32::from(place == Some(0));
        five += u32::from(place.is_some_and(|place| place < 5));
    }
    // What was measured, less a few questions.
    assert!(first * 100 >= all * 57 && five * 100 >= all * 85, "first {first}, among five {five}, of {all}");
}

#[test]
fn nothing_is_found_by_words_that_say_nothing() {
    let toolbox = toolbox();
    assert_eq!(toolbox.rank("what is it that you would like of us?"), [0; 0]);
    assert_eq!(toolbox.rank(""), [0; 0]);
}

/// The names of the tools that a request offers.
fn offered(body: &Value) -> Vec<String> {
    let tools = body["tools"].as_array().into_iter().flatten();
    tools.map(|tool| tool["function"]["name"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn where_tools_would_fill_the_window_some_are_shown_and_the_others_found() {
    let (world, vendor) = (many(), Vendor::launch());
    vendor.answer(Answer::call("find_tool", json!({"query": "keep a note"})));
    vendor.answer(Answer::call(
        "call_tool",
        json!({"name": "notes__add", "arguments": {"text": "the milk is in the fridge"}}),
    ));
    vendor.answer(Answer::text("Kept."));
    let run = world.omni(["--json", "ask", "what has changed in this git repository?"]);
    let output = asked(run, &vendor).run().succeeded();
    let requests = vendor.requests();
    let shown = offered(&requests[0].body);
    assert!(shown.contains(&"git__status".to_owned()), "{shown:?}");
    assert!(shown.contains(&"find_tool".to_owned()) && shown.contains(&"call_tool".to_owned()), "{shown:?}");
    assert!(!shown.contains(&"notes__add".to_owned()), "{shown:?}");
    assert!(requests.iter().all(|request| offered(&request.body) == shown), "they are the same to the end");
    let tokens = requests[0].body["tools"].to_string().len() / 3;
    assert!(tokens < 2500, "as much as tools may take, and not {tokens} tokens");
    let results = requests[2].body["messages"].as_array().expect("messages");
    let found = results.iter().find(|message| message["role"] == "tool").expect("a result");
    assert!(found["content"].to_string().contains("notes__add"), "{found}");
    // For people it is the call of the tool that was meant.
    let events = output.json();
    let tools: Vec<&Value> =
        events.iter().filter(|event| event["type"] == "tool.completed").map(|event| &event["tool"]).collect();
    assert_eq!(tools, ["find_tool", "notes.add"]);
    let listed = world.omni(["tool", "call", "notes.list", "{}"]).run().succeeded();
    assert!(listed.to_string().contains("the milk is in the fridge"), "{listed}");
}

#[test]
fn what_is_shown_stays_from_turn_to_turn() {
    let (world, vendor) = (many(), Vendor::launch());
    let mut session = String::new();
    let questions = [
        "what does the kitchen need?",
        "and what does the kitchen have?",
        "which lamps are in the hall?",
        "thank you",
    ];
    for question in questions {
        vendor.answer(Answer::text("Nothing."));
        let more = if session.is_empty() { vec![] } else { vec!["--session", &session] };
        let run = world.omni([&["--json", "ask"], more.as_slice(), &[question]].concat());
        let output = asked(run, &vendor).run().succeeded();
        session = output.json()[0]["session"].as_str().expect("a session").to_owned();
    }
    let shown: Vec<_> = vendor.requests().iter().map(|request| offered(&request.body)).collect();
    assert_eq!(shown[0], shown[1], "the same subject");
    let has = |turn: usize, word: &str| shown[turn].iter().any(|name| name.contains(word));
    assert!(has(0, "kitchen") && !has(0, "hall") && has(2, "hall"), "{shown:?}");
    assert!(has(2, "kitchen"), "what was there stays: {shown:?}");
    assert_eq!(shown[2], shown[3], "no subject at all");
}

/// A world with more tools than fit.
fn many() -> World {
    let world = World::repository();
    for room in ["kitchen", "hall", "cellar", "attic", "garden", "garage"] {
        let tool = |number: usize| {
            let words = format!("Thing {number} that is to be known of the {room}, at length. ").repeat(8);
            format!(
                "@tool(read_only=True)\ndef {room}_{number}() -> str:\n    \"{words}\"\n    return ''\n\n\n"
            )
        };
        let tools: String = (0..8).map(tool).collect();
        world.skill(room, &format!("from omni import tool\n\n\n{tools}"));
    }
    world
}

/// Has a model of a small window answer.
fn asked(run: Run, vendor: &Vendor) -> Run {
    run.model("openai/gpt-4o")
        .env("OPENAI_BASE_URL", vendor.openai_url())
        .env("OPENAI_API_KEY", "sk-x")
        .env("OMNI_MODEL__WINDOW", "8000")
}

#[test]
fn what_is_called_by_way_of_another_tool_is_subject_to_the_policy() {
    let (world, vendor) = (many(), Vendor::launch());
    vendor.answer(Answer::call(
        "call_tool",
        json!({"name": "fs__write", "arguments": {"path": "x.txt", "content": "x"}}),
    ));
    vendor.answer(Answer::call("call_tool", json!({"name": "call_tool", "arguments": {}})));
    vendor.answer(Answer::call("call_tool", json!({"arguments": "none"})));
    vendor.answer(Answer::text("No."));
    let run = world.omni(["--json", "ask", "what has changed in this git repository?"]);
    asked(run, &vendor).env("OMNI_POLICY__DENY", r#"["fs.write"]"#).run().succeeded();
    let last = &vendor.requests()[3].body;
    let results = last["messages"].as_array().expect("messages").iter();
    let results: Vec<String> = results
        .filter(|message| message["role"] == "tool")
        .map(|message| message["content"].to_string())
        .collect();
    assert!(results[0].contains("refused: "), "{results:?}");
    assert!(results[1].contains("cannot call itself"), "{results:?}");
    assert!(results[2].contains("`name`") || results[2].contains("name"), "{results:?}");
    assert!(!world.work().join("x.txt").exists());
}

#[test]
fn where_there_is_room_all_tools_are_shown() {
    let (world, vendor) = (World::repository(), Vendor::launch());
    vendor.answer(Answer::text("Hello."));
    let run = world
        .omni(["ask", "hello"])
        .model("openai/gpt-4o")
        .env("OPENAI_BASE_URL", vendor.openai_url())
        .env("OPENAI_API_KEY", "sk-x");
    run.run().succeeded();
    let shown = offered(&vendor.requests()[0].body);
    assert!(
        shown.contains(&"notes__add".to_owned()) && !shown.contains(&"find_tool".to_owned()),
        "{shown:?}"
    );
}
