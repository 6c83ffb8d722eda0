//! Tools that are found by what they are for: the questions of `tests/find`, and whole turns in which
//! not all tools are shown.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use omni::llm::embed::Embedder;
use omni::tool::meaning::{Encode, Meanings};
use omni::tool::{Call, Error, Output, Settings, Spec, Toolbox, Toolset};
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
    meaning(None)
}

/// The same, where it is known what they mean, if something says so.
fn meaning(meanings: Option<Arc<Meanings>>) -> Arc<Toolbox> {
    let spec = |line: &str| {
        let tool: Value = serde_json::from_str(line).expect("a line of JSON");
        let text = |key: &str| tool[key].as_str().expect("a text").to_owned();
        let (name, description) = (text("name"), text("description"));
        Arc::new(Spec { name, description, input: tool["input"].clone(), ..Spec::default() })
    };
    let set = Listed(read("tools.jsonl").lines().map(spec).collect());
    Arc::new(Toolbox::new(vec![Arc::new(set)], Settings { meanings, ..settings() }))
}

/// In how many of a hundred questions the right tool comes first, and among five. One in `every` is asked.
async fn shares(toolbox: &Toolbox, every: usize) -> (u32, u32) {
    let questions = read("questions.txt");
    assert!(toolbox.definitions().len() >= 200 && questions.lines().count() >= 150);
    let (mut first, mut five, mut all) = (0, 0, 0);
    for line in questions.lines().step_by(every) {
        let (answers, question) = line.split_once(" | ").expect("`tools | question`");
        let answers: Vec<&str> = answers.split(", ").collect();
        let unknown = answers.iter().find(|answer| toolbox.find(answer).is_none());
        assert!(unknown.is_none(), "there is no tool {unknown:?}");
        let found = toolbox.rank(&[question]).await.remove(0);
        let place = found.iter().position(|at| answers.contains(&toolbox.definitions()[*at].name.as_str()));
        all += 1;
        first += u32::from(place == Some(0));
        five += u32::from(place.is_some_and(|place| place < 5));
    }
    (first * 100 / all, five * 100 / all)
}

#[tokio::test]
async fn natural_questions_find_their_tools() {
    // What was measured, less a few questions.
    let (first, five) = shares(&toolbox(), 1).await;
    assert!(first >= 57 && five >= 85, "first {first}, among five {five}, of 100");
}

/// What the encoder of `make setup` says, and how many texts it was given.
fn encoder(folder: &Path) -> (Arc<Meanings>, Arc<AtomicUsize>) {
    let encoder = crate::encoder::installed(folder);
    let (identity, count) = (encoder.identity().to_owned(), Arc::new(AtomicUsize::new(0)));
    let counted = count.clone();
    let encode = move |texts: Vec<String>| {
        let encoder = encoder.clone();
        counted.fetch_add(texts.len(), SeqCst);
        async move { encoder.embed(&texts).await.ok() }.boxed()
    };
    (Arc::new(Meanings::new(&identity, folder, Arc::new(encode))), count)
}

async fn read_by(meanings: &Meanings) {
    while meanings.is_reading() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn meanings_find_what_words_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let (meanings, count) = encoder(folder.path());
    let toolbox = meaning(Some(meanings.clone()));
    let asked = ["how high above the sea is Zermatt?"];
    let names = |found: Vec<Vec<usize>>| -> Vec<String> {
        let five = found[0].iter().take(5).map(|at| toolbox.definitions()[*at].name.clone());
        five.collect()
    };
    // Nobody waits for the meanings of tools.
    assert_eq!(toolbox.rank(&asked).await, self::toolbox().rank(&asked).await);
    read_by(&meanings).await;
    let found = names(toolbox.rank(&asked).await);
    assert!(found.contains(&"maps.maps_elevation".to_owned()), "{found:?}");
    let (first, five) = shares(&toolbox, 3).await;
    assert!(first >= 62 && five >= 88, "first {first}, among five {five}, of 100");
    for idle in ["thank you", "yes please", "what would you like?", ""] {
        let found = toolbox.rank(&[idle]).await;
        assert_eq!(names(found), [""; 0], "{idle}");
    }
    // What was read once is not read again, in the next process neither.
    let before = count.load(SeqCst);
    toolbox.rank(&asked).await;
    assert_eq!(count.load(SeqCst), before);
    let (meanings, count) = encoder(folder.path());
    let toolbox = meaning(Some(meanings.clone()));
    toolbox.rank(&asked).await;
    read_by(&meanings).await;
    assert_eq!(count.load(SeqCst), 1, "the question");
}

#[tokio::test]
async fn an_encoder_that_fails_or_is_slow_leaves_the_words() {
    let folder = tempfile::tempdir().unwrap();
    let asked = ["what do 17.5 and 24.25 make together?"];
    let by_words = toolbox().rank(&asked).await;
    // It takes what is asked for something about databases.
    let strange = move |texts: Vec<String>| {
        let vector =
            |text: &String| if text.starts_with("mongodb") { vec![1.0, 0.0] } else { vec![0.0, 1.0] };
        let vectors = texts.iter().map(|text| if text == asked[0] { vec![1.0, 0.0] } else { vector(text) });
        std::future::ready(Some(vectors.collect())).boxed()
    };
    let strange = Arc::new(Meanings::new("strange", folder.path(), Arc::new(strange)));
    let toolbox = meaning(Some(strange.clone()));
    toolbox.rank(&asked).await;
    read_by(&strange).await;
    let found = toolbox.rank(&asked).await[0][0];
    assert!(toolbox.definitions()[found].name.starts_with("mongodb"), "it is asked");
    let fails: Encode = Arc::new(|_| async { None }.boxed());
    let hangs: Encode = Arc::new(|_| std::future::pending().boxed());
    for encode in [fails, hangs] {
        // The meanings of tools are there, that of the question is not.
        let meanings = Arc::new(Meanings::new("strange", folder.path(), encode.clone()));
        assert_eq!(meaning(Some(meanings)).rank(&asked).await, by_words);
        // Neither is there.
        let meanings = Arc::new(Meanings::new("another", folder.path(), encode));
        assert_eq!(meaning(Some(meanings)).rank(&asked).await, by_words);
    }
}

#[tokio::test]
async fn nothing_is_found_by_words_that_say_nothing() {
    let toolbox = toolbox();
    assert_eq!(toolbox.rank(&["what is it that you would like of us?", ""]).await, [[0; 0], [0; 0]]);
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

#[test]
fn what_has_worked_before_is_shown_where_something_like_it_is_asked() {
    let (world, vendor) = (many(), Vendor::launch());
    let has = |turn: usize, tool: &str| offered(&vendor.requests()[turn].body).contains(&tool.to_owned());
    // Neither its name nor anything it says of itself is in the question.
    vendor.answer(Answer::call("call_tool", json!({"name": "attic__attic_5", "arguments": {"no": 1}})));
    vendor.answer(Answer::call("call_tool", json!({"name": "cellar__cellar_3", "arguments": {}})));
    vendor.answer(Answer::text("It is soft now."));
    asked(world.omni(["ask", "my sourdough bread is hard"]), &vendor).run().succeeded();
    assert!(!has(0, "cellar__cellar_3"), "nothing is known yet");
    for text in ["Try that again.", "Not at all."] {
        vendor.answer(Answer::text(text));
    }
    let said = "the sourdough bread is hard again\nthank you\n";
    asked(world.omni(["stdio"]), &vendor).input(said).run().succeeded();
    assert!(has(3, "cellar__cellar_3"), "it has worked: {:?}", offered(&vendor.requests()[3].body));
    assert!(!has(3, "attic__attic_5"), "it has not");
    let shown = |turn: usize| offered(&vendor.requests()[turn].body);
    assert_eq!(shown(3), shown(4), "it stays");
    vendor.answer(Answer::text("Who knows."));
    asked(world.omni(["ask", "which moon is the largest?"]), &vendor).run().succeeded();
    assert!(!has(5, "cellar__cellar_3"), "it was for something else");
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
