//! The log of a conversation, its repair, and what of it fits into a window.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use omni::message::event::StopReason;
use omni::message::{Arguments, Block, Message, Part, Replay, Role, ToolCall, ToolResult, Usage};
use omni::session::log::check;
use omni::session::repair::{INTERRUPTED, repair};
use omni::session::window::{estimate, pack};
use omni::session::{Began, Ended, Entry, Error, Note, Session, Sessions};
use omni::store;
use proptest::prelude::*;
use serde_json::json;

use crate::support::database::{Database, on_both};
use crate::support::kill;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).expect("a time of this century")
}

fn call(id: &str) -> ToolCall {
    ToolCall { id: id.into(), name: "git__status".into(), arguments: Arguments::from(json!({"path": "."})) }
}

fn result(id: &str, text: &str) -> ToolResult {
    let content = vec![Block::text(text)];
    ToolResult {
        call: id.into(),
        name: "git__status".into(),
        content,
        structured: None,
        is_error: false,
        changes: Vec::new(),
    }
}

fn calling(ids: &[&str]) -> Message {
    Message::of(Role::Assistant, ids.iter().map(|id| Part::Call(call(id))).collect())
}

fn results(ids: &[&str]) -> Message {
    Message::results(ids.iter().map(|id| result(id, id)).collect())
}

fn said(messages: impl IntoIterator<Item = Message>) -> Vec<Entry> {
    messages.into_iter().map(Entry::Message).collect()
}

async fn say(sessions: &Sessions, session: &mut Session, text: &str, second: i64) {
    let entries = said([Message::user(text)]);
    sessions.append(session, "turn", entries, at(second)).await.expect("the database works");
}

/// What a conversation must be for a vendor to take it.
fn check_whole(messages: &[Message]) -> Result<(), String> {
    let mut ids = std::collections::HashSet::new();
    for (place, message) in messages.iter().enumerate() {
        let calls: Vec<_> = message.calls().map(|call| call.id.as_str()).collect();
        let answered: Vec<_> = match messages.get(place + 1) {
            Some(next) if next.role == Role::Tool => {
                next.tool_results().map(|result| &*result.call).collect()
            }
            _ => Vec::new(),
        };
        let after_calls = place > 0 && messages[place - 1].calls().next().is_some();
        match message.role {
            Role::Assistant if calls != answered => return Err(format!("{place}: {calls:?}, {answered:?}")),
            Role::Assistant if message.parts.is_empty() => return Err(format!("{place}: empty")),
            Role::Tool if !after_calls => return Err(format!("{place}: results without calls")),
            Role::User if !calls.is_empty() => return Err(format!("{place}: a user who calls")),
            _ => {}
        }
        if message.role != Role::Tool && message.tool_results().next().is_some() {
            return Err(format!("{place}: results in the wrong place"));
        }
        if let Some(twice) = calls.into_iter().find(|id| !ids.insert(id.to_string())) {
            return Err(format!("{place}: {twice} twice"));
        }
    }
    Ok(())
}

fn user_texts(messages: &[Message]) -> Vec<String> {
    messages.iter().filter(|message| message.role == Role::User).map(Message::text).collect()
}

on_both! {
    async fn everything_that_was_said_is_there_again(database: Database) {
        let sessions = Sessions::new(database.open().await);
        let mut session = sessions.create(Path::new("/w"), at(0)).await.unwrap();
        let mut answer = Message::of(Role::Assistant, vec![
            Part::Reasoning { text: "hm\0m \u{1f914}".into() },
            Part::Call(ToolCall { arguments: Arguments::Unreadable("{oops".into()), ..call("a") }),
        ]);
        answer.replay = Some(Replay { provider: "lab".into(), content: json!([{"signature": "x\u{0}y"}]) });
        let messages = vec![
            Message::of(Role::User, vec![
                Part::text("你好 'quoted' \"double\" $1 \\ \0 %"),
                Part::Image { mime: "image/png".into(), data: "aGk=".into() },
            ]),
            answer,
            Message::results(vec![ToolResult { structured: Some(json!({"n": 1.5})), ..result("a", "") }]),
            Message::assistant("done"),
        ];
        let mut entries = said(messages.clone());
        entries.insert(0, Entry::TurnBegan(Began { model: "offline".into() }));
        entries.push(Entry::TurnEnded(Ended {
            stop: StopReason::Answered,
            error: None,
            usage: Usage { input: 7, cached: 3, output: 2, cost: None },
            rounds: 2,
            tool_calls: 1,
            milliseconds: 12.5,
        }));
        entries.push(Entry::Note(Note { text: "a word".into() }));
        sessions.append(&mut session, "turn-1", entries.clone(), at(1)).await.unwrap();
        assert_eq!(session.messages, messages);

        let again = Sessions::new(database.open().await);
        assert_eq!(again.open(session.id()).await.unwrap(), session);
        let log = again.show(session.id()).await.unwrap();
        assert_eq!(log.iter().map(|stored| stored.entry.clone()).collect::<Vec<_>>(), entries);
        assert_eq!(log.iter().map(|stored| stored.seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7]);
        assert!(log.iter().all(|stored| stored.turn == "turn-1" && stored.created == at(1)));
    }

    async fn a_turn_that_was_cut_off_is_repaired_when_read_and_the_log_is_left_alone(database: Database) {
        let sessions = Sessions::new(database.open().await);
        let mut session = sessions.create(Path::new("/w"), at(0)).await.unwrap();
        let log = said([Message::user("go"), calling(&["a"])]);
        sessions.append(&mut session, "t", log, at(1)).await.unwrap();

        let read = sessions.open(session.id()).await.unwrap();
        assert_eq!(read.messages.len(), 3);
        assert_eq!(read.messages[2].tool_results().next().unwrap().text(), INTERRUPTED);
        assert_eq!(sessions.show(session.id()).await.unwrap().len(), 2);
    }

    async fn the_list_shows_the_newest_first(database: Database) {
        let sessions = Sessions::new(database.open().await);
        let (here, there) = (Path::new("/here"), Path::new("/there"));
        let mut old = sessions.create(here, at(0)).await.unwrap();
        let mut new = sessions.create(here, at(1)).await.unwrap();
        let mut other = sessions.create(there, at(2)).await.unwrap();
        say(&sessions, &mut new, "new", 10).await;
        say(&sessions, &mut other, "other", 20).await;
        say(&sessions, &mut old, "\n  What is\nold? ", 30).await;
        let log = said([calling(&["a"]), results(&["a"]), Message::assistant("An answer.")]);
        sessions.append(&mut old, "t", log, at(31)).await.unwrap();

        let list = sessions.list(Some(here), 10).await.unwrap();
        assert_eq!(list, [old.summary.clone(), new.summary.clone()]);
        assert_eq!((list[0].title.as_str(), list[0].last.as_str(), list[0].messages), ("What is", "An answer.", 4));
        assert_eq!((list[0].created, list[0].updated), (at(0), at(31)));
        assert_eq!(sessions.list(None, 2).await.unwrap(), [old.summary.clone(), other.summary.clone()]);
        assert_eq!(sessions.latest(there).await.unwrap().unwrap().id(), other.id());
        assert!(sessions.latest(Path::new("/nowhere")).await.unwrap().is_none());
    }

    async fn the_beginning_of_an_id_is_enough_if_it_fits_one(database: Database) {
        let sessions = Sessions::new(database.open().await);
        for id in ["tg:1", "tg:12", "x_y", "xzy"] {
            sessions.ensure(id, Path::new("/w"), at(0)).await.unwrap();
        }
        assert_eq!(sessions.open("tg:1").await.unwrap().id(), "tg:1", "a whole id is never a prefix");
        assert_eq!(sessions.open("x_").await.unwrap().id(), "x_y");
        let error = sessions.open("tg").await.unwrap_err();
        assert_eq!(error, Error::Ambiguous { prefix: "tg".into(), count: 2 });
        assert_eq!(sessions.open("TG").await.unwrap_err(), Error::Unknown("TG".into()));
    }

    async fn an_id_from_outside_is_taken_or_found(database: Database) {
        let sessions = Sessions::new(database.open().await);
        let mut session = sessions.ensure("client-1", Path::new("/w"), at(0)).await.unwrap();
        say(&sessions, &mut session, "hello", 1).await;
        let again = sessions.ensure("client-1", Path::new("/elsewhere"), at(2)).await.unwrap();
        assert_eq!(again, session);
        let shorter = sessions.ensure("client", Path::new("/w"), at(3)).await.unwrap();
        assert_eq!((shorter.id(), shorter.messages.len()), ("client", 0));
        assert!(matches!(sessions.ensure("../x", Path::new("/w"), at(4)).await, Err(Error::Id(_))));
    }

    async fn several_clients_start_one_session_at_once(database: Database) {
        let (first, second) = (Sessions::new(database.open().await), Sessions::new(database.open().await));
        let (one, two) = tokio::join!(
            first.ensure("same", Path::new("/w"), at(0)),
            second.ensure("same", Path::new("/w"), at(0)),
        );
        assert_eq!(one.unwrap(), two.unwrap());
    }

    async fn a_deleted_session_is_gone(database: Database) {
        let sessions = Sessions::new(database.open().await);
        let mut session = sessions.create(Path::new("/w"), at(0)).await.unwrap();
        let mut other = sessions.create(Path::new("/w"), at(0)).await.unwrap();
        say(&sessions, &mut session, "hello", 1).await;
        say(&sessions, &mut other, "stays", 1).await;
        assert_eq!(sessions.delete(session.id()).await.unwrap(), session.summary);

        let gone = Error::Unknown(session.id().to_owned());
        assert_eq!(sessions.open(session.id()).await.unwrap_err(), gone);
        let late = sessions.append(&mut session, "t", said([Message::user("late")]), at(2)).await;
        assert_eq!(late.unwrap_err(), gone);
        assert_eq!(sessions.list(None, 10).await.unwrap(), [other.summary.clone()]);
        assert_eq!(sessions.open(other.id()).await.unwrap(), other);
    }

    async fn an_export_is_json_lines(database: Database) {
        let sessions = Sessions::new(database.open().await);
        let mut session = sessions.ensure("s", Path::new("/w"), at(0)).await.unwrap();
        say(&sessions, &mut session, "two\nlines", 1).await;
        let text = sessions.export("s").await.unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines, [
            json!({"id": "s", "title": "two", "workspace": "/w", "messages": 1, "last": "two\nlines",
                "created": "2023-11-14T22:13:20Z", "updated": "2023-11-14T22:13:21Z"}),
            json!({"seq": 1, "turn": "turn", "created": "2023-11-14T22:13:21Z", "kind": "message",
                "body": {"role": "user", "parts": [{"type": "text", "text": "two\nlines"}]}}),
        ]);
    }

    async fn a_writer_that_is_behind_is_told_and_writes_nothing(database: Database) {
        let sessions = Sessions::new(database.open().await);
        let mut fast = sessions.create(Path::new("/w"), at(0)).await.unwrap();
        let mut slow = fast.clone();
        say(&sessions, &mut fast, "first", 1).await;
        let before = slow.clone();
        let late = said([Message::user("second"), Message::assistant("third")]);
        let error = sessions.append(&mut slow, "t", late.clone(), at(2)).await.unwrap_err();
        assert_eq!(error, Error::Moved(fast.id().to_owned()));
        assert_eq!(slow, before);
        assert_eq!(sessions.open(fast.id()).await.unwrap(), fast);

        let mut slow = sessions.open(slow.id()).await.unwrap();
        sessions.append(&mut slow, "t", late, at(3)).await.unwrap();
        assert_eq!(user_texts(&slow.messages), ["first", "second"]);
    }

    async fn an_entry_of_a_newer_program_is_named(database: Database) {
        let store = database.open().await;
        let sessions = Sessions::new(store.clone());
        let mut session = sessions.ensure("s", Path::new("/w"), at(0)).await.unwrap();
        say(&sessions, &mut session, "hello", 1).await;
        let mut write = store.write().await.unwrap();
        sqlx::query("UPDATE entry SET kind = 'hologram'").execute(&mut *write).await.unwrap();
        write.commit().await.unwrap();
        let error = sessions.open("s").await.unwrap_err();
        assert!(matches!(error, Error::Unreadable { seq: 1, .. }), "{error}");
        assert!(error.to_string().contains("hologram"), "{error}");
    }

    async fn two_processes_write_one_session_and_nothing_is_lost(database: Database) {
        let sessions = Sessions::new(database.open().await);
        sessions.ensure(SHARED, Path::new("/w"), at(0)).await.unwrap();
        let spawn = |name: &str| {
            let mut command = child_of(&database, "session::child_writes_beside_another");
            command.env("OMNI_TEST_NAME", name).stdout(std::process::Stdio::null()).spawn().unwrap()
        };
        let children = [spawn("ann"), spawn("bob")];
        for mut child in children {
            assert!(child.wait().unwrap().success());
        }
        let log = sessions.show(SHARED).await.unwrap();
        let places: Vec<i64> = log.iter().map(|stored| stored.seq).collect();
        assert_eq!(places, (1..=2 * EACH as i64).collect::<Vec<_>>());
        for name in ["ann", "bob"] {
            let own: Vec<&str> =
                log.iter().map(|stored| stored.turn.as_str()).filter(|turn| turn.starts_with(name)).collect();
            let expected: Vec<String> = (0..EACH).map(|number| format!("{name}-{number}")).collect();
            assert_eq!(own, expected);
        }
    }

    async fn what_was_acknowledged_survives_kill_9(database: Database) {
        let mut safe = Vec::new();
        for round in 0..kill::rounds() {
            // Ten deaths to a session: it has to be mended and go on, but not to grow for ever.
            let id = format!("mortal-{}", round / 10);
            if round % 10 == 0 {
                safe.clear();
            }
            let mut command = child_of(&database, "session::child_talks_until_it_is_killed");
            command.env("OMNI_TEST_NAME", round.to_string()).env("OMNI_TEST_SESSION", &id);
            safe.extend(kill::run_and_kill(command, Duration::from_millis(60)));

            // Opened after the death, so that nobody alive has kept the file in order.
            let store = database.open().await;
            let sessions = Sessions::new(store.clone());
            let log = sessions.show(&id).await.unwrap();
            let places: Vec<i64> = log.iter().map(|stored| stored.seq).collect();
            assert_eq!(places, (1..=log.len() as i64).collect::<Vec<_>>());
            // Acknowledged turns come in order; what was written last may not have been
            // acknowledged any more.
            let mut written = log.iter().map(|stored| stored.turn.as_str());
            for turn in &safe {
                assert!(written.any(|other| other == turn), "{turn} was promised and is lost");
            }
            let session = sessions.open(&id).await.unwrap();
            assert_eq!(check_whole(&session.messages), Ok(()));
            store.close().await;
        }
    }
}

const SHARED: &str = "shared";
/// Messages of each of two processes.
const EACH: usize = 40;

fn child_of(database: &Database, test: &str) -> std::process::Command {
    let mut command = kill::child(test);
    command.env("OMNI_TEST_DATA", database.data());
    command.env("OMNI_TEST_URL", database.url.as_deref().unwrap_or_default());
    command
}

async fn sessions_of_parent() -> (Sessions, String) {
    let variable = |name: &str| std::env::var(name).expect("this test is a child of another");
    let (url, data) = (variable("OMNI_TEST_URL"), variable("OMNI_TEST_DATA"));
    let store = store::Store::open(Some(&url), data.as_ref()).await.unwrap();
    (Sessions::new(store), variable("OMNI_TEST_NAME"))
}

#[tokio::test]
#[ignore = "a child of two_processes_write_one_session_and_nothing_is_lost"]
async fn child_writes_beside_another() {
    let (sessions, name) = sessions_of_parent().await;
    let mut session = sessions.open(SHARED).await.unwrap();
    for number in 0..EACH {
        let turn = format!("{name}-{number}");
        loop {
            let entries = said([Message::user(turn.as_str())]);
            match sessions.append(&mut session, &turn, entries, at(1)).await {
                Ok(()) => break,
                Err(Error::Moved(_)) => session = sessions.open(SHARED).await.unwrap(),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[tokio::test]
#[ignore = "a child of what_was_acknowledged_survives_kill_9"]
async fn child_talks_until_it_is_killed() {
    let (sessions, name) = sessions_of_parent().await;
    let id = std::env::var("OMNI_TEST_SESSION").expect("the parent says which");
    let mut session = sessions.ensure(&id, Path::new("/w"), at(0)).await.unwrap();
    for number in 0.. {
        let id = format!("{name}-{number}");
        let steps = [
            said([Message::user("x".repeat(5000)), Message::user(id.as_str())]),
            said([calling(&[&format!("{id}-a"), &format!("{id}-b")])]),
            said([results(&[&format!("{id}-a"), &format!("{id}-b")]), Message::assistant("done")]),
        ];
        for (step, entries) in steps.into_iter().enumerate() {
            let turn = format!("{id}-{step}");
            sessions.append(&mut session, &turn, entries, at(1)).await.unwrap();
            kill::acknowledge(&turn);
        }
    }
}

/// Fills the disk, then makes room: nothing is lost, and it goes on.
async fn fill(store: &store::Store, make_room: impl AsyncFnOnce()) {
    let sessions = Sessions::new(store.clone());
    let mut session = sessions.create(Path::new("/w"), at(0)).await.unwrap();
    let error = loop {
        let before = session.clone();
        let entries = said([Message::user("x".repeat(20_000))]);
        if let Err(error) = sessions.append(&mut session, "t", entries, at(1)).await {
            assert_eq!(session, before);
            break error;
        }
        assert!(session.messages.len() < 1000, "this disk does not get full");
    };
    assert!(matches!(error, Error::Store(store::Error::Full { .. })), "{error}");
    assert!(!session.messages.is_empty());
    assert_eq!(sessions.open(session.id()).await.unwrap(), session);

    make_room().await;
    // More than once: every connection of the pool has to work again.
    for second in 2..20 {
        say(&sessions, &mut session, "is there room now?", second).await;
    }
    assert_eq!(sessions.open(session.id()).await.unwrap(), session);
}

#[tokio::test]
async fn a_full_disk() {
    // SQLite's own limit reports what a full disk does, for anybody.
    let database = Database::sqlite();
    let store = database.open().await;
    let limit = async |pages: &'static str| {
        store.once(sqlx::query(pages)).await.unwrap();
    };
    limit("PRAGMA max_page_count = 96").await;
    fill(&store, async || limit("PRAGMA max_page_count = 1000000").await).await;

    // A real one, where this user may mount one in a namespace of its own.
    let disk = tempfile::tempdir().unwrap();
    let child = kill::child("session::child_fills_a_small_disk");
    let output = std::process::Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c"])
        .arg("mount -t tmpfs -o size=2m omni \"$OMNI_TEST_DATA\" || exit 97; exec \"$@\"")
        .arg("sh")
        .arg(child.get_program())
        .args(child.get_args())
        .env("OMNI_TEST_DATA", disk.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_ne!(output.status.code(), Some(101), "{text}{}", String::from_utf8_lossy(&output.stderr));
    if output.status.success() {
        assert!(text.contains("ack filled"), "{text}");
    }
}

#[tokio::test]
#[ignore = "a child of a_full_disk"]
async fn child_fills_a_small_disk() {
    let data =
        std::path::PathBuf::from(std::env::var("OMNI_TEST_DATA").expect("this test is a child of another"));
    let ballast = data.join("ballast");
    std::fs::write(&ballast, vec![0; 1_000_000]).unwrap();
    let store = store::Store::open(None, &data).await.unwrap();
    fill(&store, async || std::fs::remove_file(&ballast).unwrap()).await;
    kill::acknowledge("filled");
}

#[tokio::test]
async fn a_read_only_database_can_be_read() {
    let database = Database::sqlite();
    let store = database.open().await;
    let sessions = Sessions::new(store.clone());
    let mut session = sessions.ensure("s", Path::new("/w"), at(0)).await.unwrap();
    say(&sessions, &mut session, "hello", 1).await;
    store.close().await;
    forbid_writing(&database.file());

    let sessions = Sessions::new(database.open().await);
    let mut session = sessions.open("s").await.unwrap();
    assert_eq!(user_texts(&session.messages), ["hello"]);
    let error = sessions.append(&mut session, "t", said([Message::user("more")]), at(2)).await.unwrap_err();
    assert!(matches!(error, Error::Store(store::Error::ReadOnly { .. })), "{error}");
}

/// The file format's way to say that it may only be read (byte 18, the write version), which
/// unlike permission bits holds for root too.
fn forbid_writing(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[18] = 3;
    std::fs::write(file, bytes).unwrap();
}

#[tokio::test]
async fn a_damaged_database_says_so() {
    let database = Database::sqlite();
    let store = database.open().await;
    let sessions = Sessions::new(store.clone());
    let mut session = sessions.ensure("s", Path::new("/w"), at(0)).await.unwrap();
    for second in 0..20 {
        say(&sessions, &mut session, &"x".repeat(3000), second).await;
    }
    store.close().await;
    let mut bytes = std::fs::read(database.file()).unwrap();
    let pages = bytes.len() / 4096;
    bytes[pages / 2 * 4096..].fill(0x5a);
    std::fs::write(database.file(), bytes).unwrap();

    let error = match store::Store::open(None, &database.data()).await {
        Ok(store) => Sessions::new(store).open("s").await.unwrap_err(),
        Err(error) => Error::Store(error),
    };
    assert!(matches!(error, Error::Store(store::Error::Corrupt { .. })), "{error}");
}

#[test]
fn ids_from_outside() {
    for good in ["a", "tg:-100:5", "0190f3c2-7f1e-7000-8000-000000000000", &"x".repeat(128)] {
        assert_eq!(check(good), Ok(()));
    }
    for bad in ["", "a b", "a/b", "ä", "a\n", "a\0", "%41", &"x".repeat(129)] {
        assert!(matches!(check(bad), Err(Error::Id(_))), "{bad:?}");
    }
}

#[test]
fn calls_without_results_are_answered_and_the_rest_keeps_its_order() {
    let asked = calling(&["a", "b", "c"]);
    let messages = vec![
        Message::user("1"),
        asked.clone(),
        Message::user("2"),
        results(&["c", "zz", "a", "a"]),
        Message::assistant(" "),
    ];
    let mut interrupted = result("b", INTERRUPTED);
    interrupted.is_error = true;
    let answered = Message::results(vec![result("a", "a"), interrupted, result("c", "c")]);
    assert_eq!(repair(messages), [Message::user("1"), asked, answered, Message::user("2")]);
}

#[test]
fn a_result_of_an_earlier_call_is_not_given_to_a_later_one_of_the_same_id() {
    let messages =
        vec![calling(&["a"]), results(&["a"]), results(&["a"]), Message::user("again"), calling(&["a"])];
    let repaired = repair(messages);
    let last = repaired.last().unwrap().tool_results().next().unwrap();
    assert_eq!((last.call.as_str(), last.text().as_str(), last.is_error), ("a-2", INTERRUPTED, true));
}

#[test]
fn a_result_belongs_to_the_nearest_call_before_it() {
    let messages = vec![calling(&["a"]), Message::user("again"), calling(&["a"]), results(&["a"])];
    let repaired = repair(messages);
    let found: Vec<_> =
        repaired.iter().flat_map(Message::tool_results).map(|it| (&*it.call, it.is_error)).collect();
    assert_eq!(found, [("a", true), ("a-2", false)]);
}

#[test]
fn a_new_id_takes_the_result_along_and_the_vendors_form_away() {
    let mut twice = calling(&["a", "a"]);
    twice.replay = Some(Replay { provider: "lab".into(), content: json!("a, a") });
    let both = Message::results(vec![result("a", "first"), result("a", "second")]);
    let repaired = repair(vec![twice, both, calling(&["a-2"]), results(&["a-2"])]);
    let found: Vec<_> =
        repaired.iter().flat_map(Message::tool_results).map(|it| (it.call.clone(), it.text())).collect();
    let expected = [("a", "first"), ("a-3", "second"), ("a-2", "a-2")];
    assert_eq!(found, expected.map(|(id, text)| (id.to_owned(), text.to_owned())));
    assert_eq!(repaired[0].replay, None);
}

prop_compose! {
    fn any_part()(kind in 0..5, text in prop::sample::select(vec!["", " ", "word"]),
                  id in prop::sample::select(vec!["a", "b", "c", "a-2", ""])) -> Part {
        match kind {
            0 => Part::text(text),
            1 => Part::Reasoning { text: text.into() },
            2 | 3 => Part::Call(call(id)),
            _ => Part::Result(result(id, text)),
        }
    }
}

/// Anything that has the type of a message.
fn any_message() -> impl Strategy<Value = Message> {
    let role = prop::sample::select(vec![Role::User, Role::Assistant, Role::Tool]);
    (role, prop::collection::vec(any_part(), 0..4)).prop_map(|(role, parts)| Message::of(role, parts))
}

/// A conversation as it should be: turns of a question, rounds of calls, and an answer. The
/// numbers are the bytes of the question, of each result, and of the answer.
fn conversation() -> impl Strategy<Value = Vec<Message>> {
    let round = prop::collection::vec(0..3000usize, 1..4);
    let turn = (1..2000usize, prop::collection::vec(round, 0..5), 1..500usize);
    prop::collection::vec(turn, 1..5).prop_map(|turns| {
        let mut messages = Vec::new();
        for (question, rounds, answer) in turns {
            messages.push(Message::user("q".repeat(question)));
            for sizes in rounds {
                let ids: Vec<String> =
                    (0..sizes.len()).map(|it| format!("{}-{it}", messages.len())).collect();
                messages.push(calling(&ids.iter().map(String::as_str).collect::<Vec<_>>()));
                let all = ids.iter().zip(&sizes).map(|(id, size)| result(id, &"r".repeat(*size)));
                messages.push(Message::results(all.collect()));
            }
            messages.push(Message::assistant("a".repeat(answer)));
        }
        messages
    })
}

/// A conversation that stops where a model would be asked.
fn prompt() -> impl Strategy<Value = Vec<Message>> {
    (conversation(), any::<prop::sample::Index>()).prop_map(|(mut messages, index)| {
        let ends: Vec<usize> =
            (0..messages.len()).filter(|it| messages[*it].role != Role::Assistant).collect();
        messages.truncate(ends[index.index(ends.len())] + 1);
        messages
    })
}

fn cost(messages: &[Message]) -> usize {
    messages.iter().map(estimate).sum()
}

proptest! {
    #[test]
    fn whatever_was_written_is_whole_after_repair(messages in prop::collection::vec(any_message(), 0..12)) {
        let once = repair(messages.clone());
        prop_assert_eq!(check_whole(&once), Ok(()));
        prop_assert_eq!(repair(once.clone()), once.clone());
        let texts = |messages: &[Message]| user_texts(messages).concat();
        prop_assert_eq!(texts(&once), texts(&messages));
    }

    #[test]
    fn a_whole_conversation_needs_no_repair(messages in conversation()) {
        prop_assert_eq!(repair(messages.clone()), messages);
    }

    #[test]
    fn a_conversation_cut_anywhere_keeps_what_was_written(messages in conversation(), cut in any::<prop::sample::Index>()) {
        let cut = cut.index(messages.len());
        let repaired = repair(messages[..cut].to_vec());
        prop_assert_eq!(check_whole(&repaired), Ok(()));
        prop_assert_eq!(&repaired[..cut], &messages[..cut]);
        prop_assert!(repaired.len() <= cut + 1);
    }

    #[test]
    fn a_shuffled_conversation_becomes_whole(messages in conversation().prop_shuffle()) {
        let repaired = repair(messages.clone());
        prop_assert_eq!(check_whole(&repaired), Ok(()));
        prop_assert_eq!(user_texts(&repaired), user_texts(&messages));
    }

    #[test]
    fn what_is_packed_fits_and_is_whole(messages in prompt(), budget in 0..8000usize) {
        let packed = pack(&messages, budget, &estimate);
        prop_assert_eq!(check_whole(&packed.messages), Ok(()));
        prop_assert_eq!(packed.dropped, messages.len() - packed.messages.len());
        let least = pack(&messages, 0, &estimate).messages;
        prop_assert!(least.len() <= 3);
        prop_assert!(cost(&packed.messages) <= budget.max(cost(&least)));
        let last = user_texts(&messages).pop();
        prop_assert!(user_texts(&packed.messages).contains(&last.unwrap()));
        prop_assert_eq!(pack(&messages, budget, &estimate), packed.clone());
        if cost(&messages) <= budget {
            prop_assert_eq!(&packed.messages, &messages);
        }
        let mut rest = messages.iter();
        for kept in &packed.messages {
            let same = |other: &Message| match kept.role {
                // Its text may be a stub.
                Role::Tool => kept.tool_results().map(|it| &it.call).eq(other.tool_results().map(|it| &it.call)),
                _ => kept == other,
            };
            prop_assert!(rest.any(same), "out of order, or changed");
        }
    }
}

#[test]
fn old_turns_go_first_and_whole() {
    let turn =
        |text: &str| [Message::user(text), calling(&[text]), results(&[text]), Message::assistant(text)];
    let messages = [turn("one"), turn("two"), turn("three")].concat();
    let packed = pack(&messages, 9, &|_| 1);
    assert_eq!((packed.messages.as_slice(), packed.dropped), (&messages[4..], 4));
}

#[test]
fn a_turn_that_is_too_long_loses_the_text_of_old_results_first() {
    let long = Message::results(vec![result("a", &"x".repeat(10_000))]);
    let new = Message::results(vec![result("b", &"y".repeat(4_000))]);
    let messages = [Message::user("go"), calling(&["a"]), long, calling(&["b"]), new.clone()];
    let packed = pack(&messages, 2_000, &estimate);
    assert_eq!((packed.messages.len(), packed.dropped, packed.shortened), (5, 0, 1));
    assert_eq!(packed.messages[4], new);
    let text = packed.messages[2].tool_results().next().unwrap().text();
    assert!(text.ends_with("\n[9800 bytes of this result were left out to save room]"), "{text}");
}

#[test]
fn a_result_that_a_stub_would_only_lengthen_is_left_whole() {
    let short = Message::results(vec![result("a", &"x".repeat(210))]);
    let long = Message::results(vec![result("b", &"y".repeat(4_000))]);
    let messages = [
        Message::user("go"),
        calling(&["a"]),
        short.clone(),
        calling(&["b"]),
        long,
        calling(&["c"]),
        results(&["c"]),
    ];
    let packed = pack(&messages, 600, &estimate);
    assert_eq!((packed.messages.len(), packed.shortened), (7, 1));
    assert_eq!(packed.messages[2], short);
}

#[test]
fn what_the_user_adds_during_a_turn_does_not_end_it() {
    let messages = [Message::user("first"), calling(&["a"]), results(&["a"]), Message::user("second")];
    let packed = pack(&messages, 2, &|_| 1);
    assert_eq!(user_texts(&packed.messages), ["first", "second"]);
    assert_eq!(user_texts(&pack(&messages, 1, &|_| 1).messages), ["second"]);
}

#[test]
fn an_estimate_is_above_the_truth_and_near_it() {
    let tokens = tiktoken_rs::o200k_base().unwrap();
    let numbers: Vec<String> = (0..200).map(|it| format!("{}", it * 7919)).collect();
    let texts = [
        ("prose", "The keeper of the lighthouse wrote, every evening, what ships had passed. ".repeat(20), 1.8),
        ("code", include_str!("session.rs").to_owned(), 2.2),
        ("json", json!({"rows": (0..50).map(|it| json!({"id": it, "ok": true, "tags": ["a", "b"]})).collect::<Vec<_>>()}).to_string(), 2.0),
        ("numbers", numbers.join(","), 2.2),
        ("chinese", "北京的秋天很美，香山的红叶特别有名。".repeat(20), 2.2),
        ("japanese", "東京は日本の首都で、世界最大の都市の一つです。".repeat(20), 2.2),
        ("korean", "서울은 대한민국의 수도이며 가장 큰 도시입니다.".repeat(20), 2.5),
        ("russian", "Москва является столицей России и крупнейшим городом страны.".repeat(20), 4.0),
        ("emoji", "🤔🎉🚀👩‍👩‍👧".repeat(20), 4.0),
    ];
    for (name, text, factor) in texts {
        let truth = tokens.encode_ordinary(&text).len() as f64;
        let guess = estimate(&Message::user(text)) as f64;
        assert!((truth..truth * factor).contains(&guess), "{name}: {guess} for {truth}");
    }
}
