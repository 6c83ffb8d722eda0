//! Conversations that outgrow the model.

use jiff::Timestamp;
use omni::agent::compact::{Old, digest, extract, surplus, turns};
use omni::llm::Scripted;
use omni::message::{Arguments, Message, Part, Role, ToolCall};
use omni::session::{Entry, Note, Stored, window};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::omni::World;
use crate::support::vendor::{Answer, Recorded, Vendor};

const ANSWER: &str = "The heron is called Ada.";

/// Asks in the session of the folder, with a model that has little room.
fn ask(world: &World, vendor: &Vendor, question: &str) -> crate::support::omni::Output {
    world
        .omni(["--json", "ask", "-c", question])
        .model("openai/gpt-4o")
        .env("OPENAI_BASE_URL", vendor.openai_url())
        .env("OPENAI_API_KEY", "sk-test")
        .env("OMNI_MODEL__WINDOW", "8000")
        .env("OMNI_MODEL__RETRIES", "0")
        .run()
        .succeeded()
}

/// A question that takes much of it.
fn long(number: usize) -> String {
    format!("question {number}: {}", "where is the heron and what does it eat? ".repeat(70))
}

fn is_summing_up(request: &Recorded) -> bool {
    request.body["messages"][0]["content"].to_string().contains("You sum up a conversation")
}

fn said(request: &Recorded) -> String {
    request.body["messages"].to_string()
}

#[test]
fn the_oldest_turns_are_told_in_short_and_kept_whole() {
    let (world, vendor) = (World::new(), Vendor::launch());
    (0..40).for_each(|_| vendor.answer(Answer::text(ANSWER)));
    let mut told = Vec::new();
    for number in 1..=12 {
        let before = vendor.requests().len();
        let output = ask(&world, &vendor, &long(number));
        let requests = vendor.requests().split_off(before);
        let (summary, question) = match requests.as_slice() {
            [question] => (None, question),
            [summary, question] => (Some(summary), question),
            other => panic!("{} requests: {output}", other.len()),
        };
        assert!(said(question).contains(&format!("question {number}:")), "{output}");
        assert_eq!(
            said(question).contains("Omni's summary"),
            !told.is_empty() || summary.is_some(),
            "{number}"
        );
        let Some(summary) = summary else { continue };
        assert!(is_summing_up(summary) && summary.body["tools"].is_null(), "{summary:?}");
        assert!(output.out.contains("earlier turns are told in short"), "{output}");
        assert!(!said(question).contains("question 1:"), "what is told in short is not shown whole");
        told.push(said(summary));
    }
    assert!(told.len() >= 2, "told in short {} times", told.len());
    assert!(told[0].contains("question 1:") && told[0].contains("(none)"), "{}", told[0]);
    assert!(told[1].contains(&format!("so far:\\n\\n{ANSWER}")), "the second has the first: {}", told[1]);
    assert!(!told[1].contains("question 1:"), "nothing is read twice");

    let shown = world.omni(["session", "list"]).run().succeeded();
    let id = shown.out.split_whitespace().next().expect("a session");
    let shown = world.omni(["session", "show", id]).run().succeeded();
    (1..=12).for_each(|number| assert!(shown.out.contains(&format!("question {number}:")), "{number}"));
    assert!(shown.out.contains("from here on the model is shown a summary"), "{shown}");
}

/// How many of the long questions fit.
fn turns_that_fit() -> usize {
    let (world, vendor) = (World::new(), Vendor::launch());
    (0..14).for_each(|_| vendor.answer(Answer::text(ANSWER)));
    (1..=12)
        .find(|number| {
            ask(&world, &vendor, &long(*number));
            vendor.requests().iter().any(is_summing_up)
        })
        .expect("at some time it is too much")
        - 1
}

#[test]
fn without_a_model_the_words_that_were_said_are_the_summary() {
    let full = turns_that_fit();
    let (world, vendor) = (World::new(), Vendor::launch());
    for number in 1..=12 {
        if number > full {
            // Whoever sums up is turned away.
            vendor.answer(Answer::status(500, "overloaded"));
        }
        vendor.answer(Answer::text(ANSWER));
        let output = ask(&world, &vendor, &long(number));
        let requests = vendor.requests();
        let (question, earlier) = requests.split_last().expect("a request");
        if earlier.last().is_some_and(is_summing_up) {
            assert!(said(question).contains("asked “question 1: where is the heron"), "{}", said(question));
            assert!(output.out.contains("earlier turns are told in short"), "{output}");
            return;
        }
    }
    panic!("nothing was told in short");
}

fn stored(seq: i64, turn: usize, entry: Entry) -> Stored {
    Stored { seq, turn: format!("turn {turn}"), created: Timestamp::UNIX_EPOCH, entry }
}

fn turn(number: usize, letters: usize) -> Old {
    let call = ToolCall {
        id: "1".to_owned(),
        name: "git__status".to_owned(),
        arguments: Arguments::from(Value::Null),
    };
    let asked = format!("question {number} {}", "x".repeat(letters));
    let messages = vec![
        Message::user(asked),
        Message::of(Role::Assistant, vec![Part::Call(call)]),
        Message::assistant(format!("answer {number}")),
    ];
    Old { last: number as i64, messages }
}

#[test]
fn a_log_is_read_turn_by_turn() {
    let note = Entry::Note(Note { text: "a note".to_owned() });
    let log = vec![
        stored(1, 1, Entry::Message(Message::user("one"))),
        stored(2, 1, note.clone()),
        stored(3, 2, Entry::Message(Message::user("two"))),
        stored(4, 2, Entry::Message(Message::assistant("three"))),
        stored(5, 3, note),
    ];
    let read = |after: i64| -> Vec<(i64, usize)> {
        turns(log.clone(), after).iter().map(|old| (old.last, old.messages.len())).collect()
    };
    assert_eq!(read(0), [(2, 1), (4, 2), (5, 0)]);
    assert_eq!(read(2), [(4, 2), (5, 0)]);
    assert_eq!(read(5), []);
}

#[test]
fn a_line_for_every_turn() {
    let text = extract(None, &[turn(1, 0), turn(2, 0)], 1000);
    let line =
        |number: usize| format!("- asked “question {number}”; used git__status; answered “answer {number}”");
    assert_eq!(text, format!("{}\n{}", line(1), line(2)));
    let more = extract(Some(&text), &[turn(3, 0)], 1000);
    assert_eq!(more, format!("{text}\n{}", line(3)));
}

#[tokio::test]
async fn a_model_that_writes_too_much_is_cut_short() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("script.json");
    let endless = "the heron eats fish 魚を食べる ".repeat(3000);
    std::fs::write(&file, json!([{"text": endless}]).to_string()).expect("a file");
    let model = Scripted::load(&file).expect("a script").with_window(8000);
    let (text, by, _) = digest(&model, None, &[turn(1, 0)]).await;
    assert!(by.starts_with("scripted"), "{by}");
    assert!((900..=1000).contains(&window::tokens(&text)), "{} tokens", window::tokens(&text));
}

proptest! {
    #[test]
    fn a_summary_has_its_size_and_says_what_it_leaves_out(
        sizes in prop::collection::vec(0usize..3000, 1..60), budget in 200usize..3000
    ) {
        let all: Vec<Old> = sizes.iter().enumerate().map(|(number, size)| turn(number, *size)).collect();
        let text = extract(None, &all, budget);
        prop_assert!(window::tokens(&text) <= budget + 20, "{} of {budget}", window::tokens(&text));
        let lines = text.lines().filter(|line| line.starts_with("- asked")).count();
        let left_out = text.lines().next().and_then(|line| line.split(' ').nth(1)?.parse::<usize>().ok());
        prop_assert_eq!(lines + left_out.unwrap_or(0), all.len(), "{}", text);
        prop_assert!(text.contains(&format!("question {}", all.len() - 1)), "the last is there: {text}");
    }

    #[test]
    fn what_goes_on_is_never_told_in_short(
        sizes in prop::collection::vec(0usize..9000, 1..30), room in 0usize..9000
    ) {
        let all: Vec<Old> = sizes.iter().enumerate().map(|(number, size)| turn(number, *size)).collect();
        let count = surplus(&all, room);
        prop_assert!(count < all.len());
        let left: usize = all[count..].iter().flat_map(|old| &old.messages).map(window::estimate).sum();
        prop_assert!(count + 1 == all.len() || left as f64 <= 0.4 * room as f64);
    }
}

#[test]
fn a_log_with_a_summary_can_be_exported() {
    let digest = json!({"kind": "digest", "body": {"upto": 3, "text": "short", "by": ""}});
    let entry: Entry = serde_json::from_value(digest.clone()).expect("an entry");
    assert_eq!(serde_json::to_value(entry).expect("JSON"), digest);
}
