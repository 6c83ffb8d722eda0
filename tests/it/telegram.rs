//! Telegram: stories, everything that goes wrong with it, kills, limits, and how texts are shown.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use omni::channel::telegram::format::{self, Text};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::support::http::Door;
use crate::support::kill;
use crate::support::omni::World;
use crate::support::relay::Relay;
use crate::support::telegram::{self, Bot, Fault, TOKEN};
use crate::support::vendor::{Answer, Vendor};
use crate::support::wall::Wall;

const ANN: (i64, &str) = (7001, "Ann");
const BOB: (i64, &str) = (7002, "Bob");
const EVE: (i64, &str) = (7003, "Eve");
const STRANGER: (i64, &str) = (9000, "Zed");
const GROUP: i64 = -1_001_234_567_890;

/// A bot, a model, and the program between them.
struct Stage {
    world: World,
    bot: Bot,
    vendor: Vendor,
}

impl Stage {
    /// Ann may talk.
    fn new() -> Self {
        Self::with(&format!("users = [{}]", ANN.0))
    }

    /// With these settings under `[telegram]`.
    fn with(settings: &str) -> Self {
        let stage = Self { world: World::new(), bot: Bot::launch(), vendor: Vendor::launch() };
        let (bot, model) = (stage.bot.url(), stage.vendor.openai_url());
        let telegram = format!("[telegram]\ntoken = {TOKEN:?}\nserver = {bot:?}\npoll = 2.0\n{settings}\n");
        let model = format!("[provider.lab]\nkind = \"openai\"\nbase_url = {model:?}\napi_key = \"k\"\n");
        stage.world.settings(&format!("{telegram}\n{model}\n[gateway]\nbind = \"127.0.0.1:0\"\n"));
        stage
    }

    fn serve(&self) -> Door {
        Door::open(self.world.omni(["serve"]).model("lab/parrot"))
    }

    fn run(&self, arguments: &[&str]) -> crate::support::omni::Output {
        self.world.omni(arguments).model("lab/parrot").run()
    }

    /// Everything that the program has written down.
    fn log(&self) -> String {
        let files = std::fs::read_dir(self.world.home().join("state")).expect("a folder of logs");
        files.map(|file| std::fs::read_to_string(file.expect("a file").path()).expect("text")).collect()
    }

    /// As [`Stage::behaved`], after a restart: the new process does not know how fast the one before has sent, and is told.
    #[track_caller]
    fn behaved_twice(&self) {
        let mut wrongs = self.bot.wrongs();
        wrongs.retain(|wrong| !wrong.contains("Too Many Requests"));
        self.are_none(&wrongs);
    }

    /// Nothing that was sent broke a rule, and the token is nowhere.
    #[track_caller]
    fn behaved(&self) {
        self.are_none(&self.bot.wrongs());
    }

    #[track_caller]
    fn are_none(&self, wrongs: &[String]) {
        assert_eq!(wrongs, Vec::<String>::new());
        assert!(!self.log().contains(TOKEN), "the token is in the log");
    }
}

// Stories.

#[test]
fn somebody_new_is_let_in_by_a_code() {
    let stage = Stage::with("feedback = false");
    stage.vendor.echoes(Duration::ZERO);
    let _door = stage.serve();

    stage.bot.say(EVE, "hello?");
    stage.bot.hears(EVE.0, "omni channel pair");
    let code = stage.run(&["channel", "pair"]).succeeded().out.trim().to_owned();
    stage.bot.say(EVE, &code.to_lowercase());
    stage.bot.hears(EVE.0, "Hello Eve");
    stage.bot.say(EVE, "what can you do?");
    stage.bot.hears(EVE.0, "re: what can you do?");

    let told = stage.bot.transcript(EVE.0).join("\n").replace(&code.to_lowercase(), "[code]");
    insta::assert_snapshot!(told, @r"
    Eve: hello?
    omni: I do not know you (your number is 7003). Whoever runs me can let you in with `omni channel allow 7003`, or give you a code from `omni channel pair` to send me.
    Eve: [code]
    omni: Hello Eve. Ask me anything; /help shows what else there is.
    Eve: what can you do?
    omni: re: what can you do?
    ");
    // A code is good once.
    stage.bot.say(BOB, &code);
    stage.bot.hears(BOB.0, "I do not know you");
    let listed = stage.run(&["channel", "list"]).succeeded().out;
    assert!(listed.starts_with("7003  Eve"), "{listed}");
    stage.run(&["channel", "remove", "7003"]).succeeded();
    stage.bot.say(EVE, "still there?");
    stage.bot.say(ANN, "and me?");
    stage.bot.hears(ANN.0, "I do not know you");
    assert!(!stage.bot.transcript(EVE.0).last().expect("a line").contains("re: still"));
    stage.behaved();
}

#[test]
fn a_group_is_let_in_by_a_code_and_a_link_has_one() {
    let stage = Stage::with("feedback = false");
    stage.vendor.echoes(Duration::ZERO);
    let bot = &stage.bot;
    bot.group(GROUP, "Cooks");
    // Another name for `serve`.
    let _door = Door::open(stage.world.omni(["channel"]).model("lab/parrot"));
    let code = || stage.run(&["channel", "pair"]).succeeded().out.trim().to_owned();
    bot.say_in(GROUP, ANN, "@omni_test_bot hello?");
    bot.say_in(GROUP, ANN, &format!("/pair@omni_test_bot {}", code()));
    bot.hears(GROUP, "Hello everybody.");
    bot.say_in(GROUP, BOB, "@omni_test_bot what do we cook?");
    bot.hears(GROUP, "re: what do we cook?");
    assert_eq!(bot.said(GROUP).len(), 2, "{:#?}", bot.transcript(GROUP));
    // Being in a group is not being known.
    bot.say(BOB, "and alone?");
    bot.hears(BOB.0, "I do not know you");
    bot.say(EVE, &format!("/start {}", code()));
    bot.hears(EVE.0, "Hello Eve.");
    bot.say(EVE, "alone");
    bot.hears(EVE.0, "re: alone");
    let listed = stage.run(&["channel", "list"]).succeeded().out;
    assert!(listed.contains(&format!("{GROUP}  Cooks")) && listed.contains("7003  Eve"), "{listed}");
    stage.behaved();
}

#[test]
fn whoever_guesses_codes_is_not_heard_for_a_while() {
    let stage = Stage::with("users = [7001]\nfeedback = false");
    stage.vendor.echoes(Duration::ZERO);
    let door = stage.serve();
    let code = stage.run(&["channel", "pair"]).succeeded().out.trim().to_owned();
    for guess in 0..30 {
        stage.bot.say(EVE, &format!("ABCDEF{guess:02}"));
    }
    stage.bot.say(EVE, &code);
    stage.bot.say(EVE, "and now?");
    stage.bot.say(ANN, "hello");
    stage.bot.hears(ANN.0, "re: hello");
    // What is written is sent before it ends.
    door.server.signal(libc::SIGTERM);
    door.server.end().succeeded();
    let told = stage.bot.said(EVE.0);
    assert!(matches!(&told[..], [hint] if hint.text.starts_with("I do not know you")), "{told:#?}");
    let listed = stage.run(&["channel", "list"]).succeeded().out;
    assert!(!listed.contains("7003"), "{listed}");
    stage.behaved();
}

#[test]
fn an_admin_may_more_than_others() {
    let stage = Stage::with("users = [7001]\nadmins = [7002]\nfeedback = false");
    let _door = stage.serve();
    let bot = &stage.bot;
    bot.say(ANN, "/job j1 cancel");
    bot.hears(ANN.0, "/job is for admins, and you (7001) are none.");
    bot.say(BOB, "/job j1 cancel");
    let told = bot.until("an answer", |bot| bot.said(BOB.0).pop());
    assert!(!told.text.contains("admins"), "{}", told.text);
    stage.vendor.answer(Answer::call("fs__write", json!({ "path": "x", "content": "x" })));
    stage.vendor.answer(Answer::text("Written."));
    bot.say(ANN, "write x");
    bot.hears(ANN.0, "May fs.write run?");
    bot.press_named(BOB, ANN.0, "Once");
    bot.hears(ANN.0, "Written.");
    bot.hears(ANN.0, "✅ Once: Bob");
    stage.behaved();
}

#[test]
fn a_tool_waits_for_consent() {
    let stage = Stage::with("users = [7001, 7002]\nfeedback = false");
    let _door = stage.serve();
    let write = |text: &str| json!({ "path": "list.txt", "content": text });

    stage.vendor.answer(Answer::call("fs__write", write("milk")));
    stage.vendor.answer(Answer::text("It is on the list."));
    stage.bot.say(ANN, "put milk on the list");
    let question = stage.bot.hears(ANN.0, "May fs.write run?");
    assert!(question.text.contains("\"content\": \"milk\""), "{}", question.text);
    assert!(!stage.world.work().join("list.txt").exists(), "nobody has agreed");

    // Another call's name, another person, another chat: none of them is an answer.
    let once = question.buttons[0].1.clone();
    let other = once.replace(&once[2..18], "0123456789abcdef");
    stage.bot.press(ANN, ANN.0, question.id, &other);
    stage.bot.press(BOB, ANN.0, question.id, &once);
    stage.bot.until("two answers", |bot| (bot.answered().len() == 2).then_some(()));
    let told: Vec<_> = stage.bot.answered().into_iter().map(|(_, text)| text).collect();
    assert_eq!(told, ["This question is over.", "Only Ann can answer this, or an admin."]);
    assert!(!stage.world.work().join("list.txt").exists(), "nobody who may has agreed");

    stage.bot.press_named(ANN, ANN.0, "Once");
    stage.bot.hears(ANN.0, "It is on the list.");
    assert_eq!(std::fs::read_to_string(stage.world.work().join("list.txt")).expect("the file"), "milk");
    stage.bot.hears(ANN.0, "✅ Once: Ann");

    stage.vendor.answer(Answer::call("fs__write", write("beer")));
    stage.vendor.answer(Answer::text("Then not."));
    stage.bot.say(ANN, "and beer");
    stage
        .bot
        .until("a question", |bot| bot.said(ANN.0).last().filter(|last| last.buttons.len() == 3).map(drop));
    stage.bot.press_named(ANN, ANN.0, "No");
    stage.bot.hears(ANN.0, "Then not.");
    assert_eq!(std::fs::read_to_string(stage.world.work().join("list.txt")).expect("the file"), "milk");

    // Once for all.
    for (word, answer) in [("tea", "Tea it is."), ("jam", "Jam as well.")] {
        stage.vendor.answer(Answer::call("fs__write", write(word)));
        stage.vendor.answer(Answer::text(answer));
    }
    stage.bot.say(ANN, "tea");
    stage
        .bot
        .until("a question", |bot| bot.said(ANN.0).last().filter(|last| last.buttons.len() == 3).map(drop));
    stage.bot.press_named(ANN, ANN.0, "Always");
    stage.bot.hears(ANN.0, "Tea it is.");
    stage.bot.say(ANN, "jam");
    stage.bot.hears(ANN.0, "Jam as well.");
    assert_eq!(std::fs::read_to_string(stage.world.work().join("list.txt")).expect("the file"), "jam");
    stage.bot.until("no button is left", |bot| {
        bot.said(ANN.0).iter().all(|message| message.buttons.is_empty()).then_some(())
    });

    insta::assert_snapshot!(stage.bot.transcript(ANN.0).join("\n"));
    stage.behaved();
}

#[test]
fn nobody_agrees_in_time() {
    let stage = Stage::with("users = [7001]\npatience = 1.0\nfeedback = false");
    let _door = stage.serve();
    stage.vendor.answer(Answer::call("fs__write", json!({ "path": "x", "content": "x" })));
    stage.vendor.answer(Answer::text("Nobody agreed."));
    stage.bot.say(ANN, "write x");
    stage.bot.hears(ANN.0, "Nobody agreed.");
    stage.bot.hears(ANN.0, "⌛ Nobody answered in time");
    assert!(!stage.world.work().join("x").exists());
    stage.behaved();
}

/// A tool that wants to know something.
const SHOP: &str = r#"
from typing import Literal

from pydantic import BaseModel, Field

from omni import Context, tool


class Order(BaseModel):
    size: Literal["small", "large"]
    count: int = Field(ge=1, le=9, description="how many of them")
    gift: bool = False
    note: str = ""


@tool(read_only=True)
def order(ctx: Context) -> str:
    """Take an order."""
    order = ctx.elicit("What shall it be?", Order)
    return order.model_dump_json() if order else "they want nothing"
"#;

impl Stage {
    /// With a shop, and somebody who wants something of it.
    fn shop(settings: &str) -> Self {
        let stage = Self::with(settings);
        stage.world.skill("shop", SHOP);
        stage.run(&["--yes", "skill", "trust", "shop"]).succeeded();
        stage
    }

    /// The model orders, and then says this.
    fn orders(&self, then: &str) {
        self.vendor.answer(Answer::call("shop__order", json!({})));
        self.vendor.answer(Answer::text(then));
    }

    /// What the model was told last.
    fn told(&self) -> String {
        self.vendor.requests().pop().expect("a request").body["messages"].to_string()
    }
}

#[test]
fn a_tool_asks_field_by_field() {
    let stage = Stage::shop("users = [7001, 7002]\nfeedback = false");
    let _door = stage.serve();
    let bot = &stage.bot;
    stage.orders("It is on its way.");
    bot.say(ANN, "order something");
    let size = bot.hears(ANN.0, "What shall it be?");
    // Somebody else's answer is none, and neither is one of another question.
    bot.press(BOB, ANN.0, size.id, &size.buttons[0].1);
    bot.press(ANN, ANN.0, size.id, "f:0123456789abcdef:0");
    bot.until("two answers", |bot| (bot.answered().len() == 2).then_some(()));
    let told: Vec<_> = bot.answered().into_iter().map(|(_, text)| text).collect();
    assert_eq!(told, ["Only Ann can answer this, or an admin.", "This question is over."]);
    bot.press_named(ANN, ANN.0, "large");
    bot.hears(ANN.0, "(2 of 4)");
    for wrong in ["many", "12"] {
        let before = bot.said(ANN.0).len();
        bot.say(ANN, wrong);
        bot.until("a remark", |bot| (bot.said(ANN.0).len() > before).then_some(()));
    }
    bot.say(ANN, "3");
    bot.hears(ANN.0, "(3 of 4)");
    // A choice in words will do.
    bot.say(ANN, "yes");
    bot.hears(ANN.0, "(4 of 4)");
    bot.press_named(ANN, ANN.0, "Leave it out");
    bot.hears(ANN.0, "It is on its way.");
    let given = r#"{\"size\":\"large\",\"count\":3,\"gift\":true,\"note\":\"\"}"#;
    assert!(
        stage.told().contains(&given.replace('"', "\\\"")) || stage.told().contains(given),
        "{}",
        stage.told()
    );
    // From here on words are messages again.
    stage.vendor.answer(Answer::text("Good night."));
    bot.say(ANN, "good night");
    bot.hears(ANN.0, "Good night.");
    bot.until("no button is left", |bot| {
        bot.said(ANN.0).iter().all(|message| message.buttons.is_empty()).then_some(())
    });
    insta::assert_snapshot!(bot.transcript(ANN.0).join("\n"));
    stage.behaved();
}

#[test]
fn a_form_is_declined_and_one_that_nobody_answers_is_over() {
    let stage = Stage::shop("users = [7001]\npatience = 6.0\nfeedback = false");
    let _door = stage.serve();
    let bot = &stage.bot;
    stage.orders("Then not.");
    stage.vendor.answer(Answer::text("I see."));
    stage.vendor.answer(Answer::text("Now I do."));
    bot.say(ANN, "order something");
    let question = bot.hears(ANN.0, "What shall it be?");
    // What was said before it was asked is no answer, and neither is what comes right after it was declined: Telegram
    // tells of both at once here.
    bot.fault("getUpdates", Fault::Late(Duration::from_millis(500)));
    let polls = bot.polls();
    let from = json!({ "id": ANN.0, "is_bot": false, "first_name": "Ann" });
    let chat = json!({ "id": ANN.0, "type": "private", "first_name": "Ann" });
    bot.update(json!({ "message": {
        "message_id": question.id - 1, "date": 1, "from": from, "chat": chat, "text": "large",
    }}));
    bot.until("the next question", |bot| (bot.polls() > polls).then_some(()));
    bot.press_named(ANN, ANN.0, "Decline");
    bot.say(ANN, "do you see?");
    bot.hears(ANN.0, "Then not.");
    bot.hears(ANN.0, "Now I do.");
    bot.hears(ANN.0, "❌ Declined: Ann");
    let asked: Vec<_> =
        stage.vendor.requests().iter().map(|asked| asked.body["messages"].to_string()).collect();
    assert!(asked[1].contains("they want nothing"), "{}", asked[1]);
    assert!(asked[2].contains("large") && !asked[2].contains("do you see?"), "{}", asked[2]);

    stage.orders("Nobody was there.");
    stage.bot.say(ANN, "order something else");
    stage.bot.hears(ANN.0, "Nobody was there.");
    stage.bot.hears(ANN.0, "⌛ Nobody answered in time.");
    stage.behaved();
}

#[test]
fn a_question_ends_with_the_process_that_has_asked_it() {
    let stage = Stage::shop("users = [7001]\nfeedback = false");
    let mut door = stage.serve();
    let bot = &stage.bot;
    stage.orders("I do not know what came of it.");
    bot.say(ANN, "order something");
    let question = bot.hears(ANN.0, "What shall it be?");
    door.server.kill();
    let _ = door.server.end();
    // Said while nobody is there, to a question that is there no more: a message like any other.
    bot.say(ANN, "a large one");
    bot.press(ANN, ANN.0, question.id, &question.buttons[0].1);
    stage.vendor.answer(Answer::text("A large one of what?"));
    let _door = stage.serve();
    bot.hears(ANN.0, "I do not know what came of it.");
    bot.hears(ANN.0, "A large one of what?");
    bot.hears(ANN.0, "omni was started anew, so this question is over.");
    bot.until("an answer", |bot| bot.answered().pop().filter(|(_, told)| told == "This question is over."));
    assert!(bot.said(ANN.0).iter().all(|message| message.buttons.is_empty()), "{:#?}", bot.said(ANN.0));
    assert_eq!(bot.said(ANN.0).len(), 3, "{:#?}", bot.transcript(ANN.0));
    stage.behaved_twice();
}

#[test]
fn in_a_group_an_answer_to_the_question_is_an_answer() {
    let stage = Stage::shop(&format!("users = [7001]\ngroups = [{GROUP}]\nfeedback = false"));
    let bot = &stage.bot;
    bot.group(GROUP, "Cooks");
    let _door = stage.serve();
    let reply =
        |user, to: i64, text: &str| bot.tell(GROUP, user, json!({ "text": text, "reply_to_message": to }));
    stage.vendor.answer(Answer::call("shop__order", json!({})));
    bot.say_in(GROUP, ANN, "@omni_test_bot order something");
    bot.hears(GROUP, "What shall it be?");
    bot.press_named(ANN, GROUP, "small");
    let count = bot.hears(GROUP, "Answer this message with a whole number.");
    // Bob's is a message of his own.
    stage.vendor.answer(Answer::text("What is it with 4?"));
    reply(BOB, count.id, "4");
    bot.hears(GROUP, "What is it with 4?");
    stage.vendor.answer(Answer::text("It is on its way."));
    reply(ANN, count.id, "2");
    bot.hears(GROUP, "(3 of 4)");
    bot.press_named(ANN, GROUP, "Leave it at No");
    bot.hears(GROUP, "(4 of 4)");
    bot.press_named(ANN, GROUP, "Leave it out");
    bot.hears(GROUP, "It is on its way.");
    assert!(stage.told().contains("small") && stage.told().contains("2"), "{}", stage.told());
    stage.behaved();
}

#[test]
fn a_server_asks_the_person_in_the_chat() {
    let stage = Stage::with("users = [7001]\nfeedback = false");
    let servers = json!({ "mcpServers": { "shop": crate::support::servers::fixture(&["asks.py"]) } });
    crate::support::omni::write(&stage.world.home().join("config/mcp.json"), &servers.to_string());
    // What it said once is known when it is asked for.
    stage.run(&["mcp", "test", "shop"]).succeeded();
    let _door = stage.serve();
    stage.vendor.answer(Answer::call("shop__orders", json!({ "message": "What do you want?" })));
    stage.vendor.answer(Answer::text("It is on its way."));
    stage.bot.say(ANN, "order something");
    stage.bot.hears(ANN.0, "asks: What do you want?");
    stage.bot.say(ANN, "soup");
    stage.bot.hears(ANN.0, "Size (2 of 3)");
    stage.bot.press_named(ANN, ANN.0, "small");
    stage.bot.hears(ANN.0, "Count (3 of 3)");
    stage.bot.press_named(ANN, ANN.0, "Leave it at 1");
    stage.bot.hears(ANN.0, "It is on its way.");
    assert!(stage.told().contains("Order(name='soup', size='small', count=1)"), "{}", stage.told());
    stage.behaved();
}

#[test]
fn a_photo_is_asked_about() {
    let stage = Stage::with("users = [7001]\nfeedback = false");
    let _door = stage.serve();
    stage.vendor.answer(Answer::text("A cat."));
    stage.bot.file("photo-large", b"\xff\xd8 a cat \xff\xd9");
    stage.bot.say(ANN, "/start");
    stage.bot.hears(ANN.0, "Hello Ann");
    let size = |id: &str, width| json!({ "file_id": id, "file_unique_id": id, "width": width, "height": 1, "file_size": 12 });
    let photo =
        json!({ "photo": [size("photo-small", 90), size("photo-large", 1280)], "caption": "what is this?" });
    let number = stage.bot.tell(ANN.0, ANN, photo);
    stage.bot.hears(ANN.0, "A cat.");

    let file = format!("inbox/telegram-7001/{number}-photo1.jpg");
    assert_eq!(std::fs::read(stage.world.work().join(&file)).expect("the file"), b"\xff\xd8 a cat \xff\xd9");
    let asked = stage.vendor.requests().pop().expect("a request").body;
    let said = asked["messages"].as_array().expect("messages").last().expect("the last").to_string();
    assert!(said.contains("what is this?") && said.contains(&file), "{said}");
    assert!(said.contains("data:image/jpeg;base64,/9ggYSBjYXQg/9k="), "{said}");
    stage.behaved();
}

#[test]
fn photos_that_were_sent_together_are_one_message() {
    let stage = Stage::with("users = [7001]\nfeedback = false");
    let _door = stage.serve();
    stage.vendor.answer(Answer::text("Two cats."));
    stage.bot.say(ANN, "/start");
    stage.bot.hears(ANN.0, "Hello Ann");
    for name in ["one", "two"] {
        stage.bot.file(name, name.as_bytes());
        let size = json!({ "file_id": name, "file_unique_id": name, "width": 9, "height": 9 });
        let mut photo = json!({ "photo": [size], "media_group_id": "album" });
        if name == "one" {
            photo["caption"] = "which are these?".into();
        }
        stage.bot.tell(ANN.0, ANN, photo);
    }
    stage.bot.hears(ANN.0, "Two cats.");
    assert_eq!(stage.vendor.requests().len(), 1);
    let said = stage.vendor.requests()[0].body["messages"].to_string();
    assert!(said.contains("b25l") && said.contains("dHdv"), "both pictures: {said}");
    stage.behaved();
}

#[test]
fn a_document_is_put_where_tools_find_it_and_nowhere_else() {
    let stage = Stage::with("users = [7001]\nfeedback = false");
    stage.vendor.echoes(Duration::ZERO);
    let bot = &stage.bot;
    let _door = stage.serve();
    bot.say(ANN, "/start");
    bot.hears(ANN.0, "Hello Ann");
    bot.file("list", b"milk");
    let document = |name: &str, size: u64| json!({ "file_id": "list", "file_unique_id": "l", "file_name": name, "mime_type": "text/plain", "file_size": size });
    let number = bot.tell(
        ANN.0,
        ANN,
        json!({ "document": document("../../../list.txt", 4), "caption": "what is on it?" }),
    );
    let file = format!("inbox/telegram-7001/{number}-_.._.._list.txt");
    bot.hears(ANN.0, &format!("re: what is on it?\n[document: {file}, text/plain, 4 bytes]"));
    assert_eq!(std::fs::read(stage.world.work().join(&file)).expect("the file"), b"milk");
    bot.tell(ANN.0, ANN, json!({ "document": document("film.mp4", 21 << 20), "caption": "and this?" }));
    bot.hears(ANN.0, "it could not be had: Telegram hands out no files of more than 20 MB");
    stage.behaved();
}

#[test]
fn a_voice_is_written_down_by_a_tool() {
    let stage = Stage::with("users = [7001]\nfeedback = false");
    stage.world.skill(
        "ears",
        r#"
from pathlib import Path
from omni import Context, tool

@tool(read_only=True)
def transcribe(path: str, ctx: Context) -> str:
    """Writes down what a recording says."""
    return "it says " + (Path(ctx.workspace) / path).read_bytes().decode()[::-1]
"#,
    );
    let _door = stage.serve();
    stage.bot.file("voice-1", b"yadot gnis sdrib eht");
    stage.bot.say(ANN, "/start");
    stage.bot.hears(ANN.0, "Hello Ann");
    let number = stage.bot.say(ANN, "/new") + 2;
    stage.bot.hears(ANN.0, "A new conversation begins.");
    let path = format!("inbox/telegram-7001/{number}-voice1.ogg");
    stage.vendor.answer(Answer::call("ears__transcribe", json!({ "path": path })));
    stage.vendor.answer(Answer::text("They do."));
    let voice = json!({ "voice": { "file_id": "voice-1", "file_unique_id": "v", "duration": 2, "mime_type": "audio/ogg" } });
    assert_eq!(stage.bot.tell(ANN.0, ANN, voice), number);
    stage.bot.hears(ANN.0, "They do.");
    let asked = stage.vendor.requests().pop().expect("a request").body.to_string();
    assert!(asked.contains("it says the birds sing today"), "{asked}");
    stage.behaved();
}

#[test]
fn a_group_hears_from_it_when_it_is_meant() {
    let stage = Stage::with(&format!("users = [7001]\ngroups = [{GROUP}]\nfeedback = false"));
    stage.vendor.echoes(Duration::ZERO);
    stage.bot.group(GROUP, "Cooks");
    let _door = stage.serve();

    stage.bot.say_in(GROUP, ANN, "what do we cook?");
    stage.bot.say_in(GROUP, BOB, "@somebody_else soup?");
    stage.bot.say_in(GROUP, BOB, "/status@another_bot");
    stage.bot.say_in(GROUP, BOB, "@omni_test_bot what goes with leek?");
    let answer = stage.bot.hears(GROUP, "re: what goes with leek?");
    stage.bot.tell(GROUP, ANN, json!({ "text": "and with beet?", "reply_to_message": answer.id }));
    stage.bot.hears(GROUP, "and with beet?");
    stage.bot.say_in(GROUP, EVE, "/frobnicate@omni_test_bot now");
    stage.bot.hears(GROUP, "There is no /frobnicate.");

    let told = stage.bot.transcript(GROUP).join("\n");
    let told = told.split(" / /").next().expect("up to the commands").to_owned();
    insta::assert_snapshot!(told, @r"
    Ann: what do we cook?
    Bob: @somebody_else soup?
    Bob: /status@another_bot
    Bob: @omni_test_bot what goes with leek?
    omni (to @omni_test_bot what ): re: what goes with leek?
    Ann: and with beet?
    omni (to and with beet?): re: > re: what goes with leek? / and with beet?
    Eve: /frobnicate@omni_test_bot now
    omni (to /frobnicate@omni_tes): There is no /frobnicate. / 
    ");
    // Each has a conversation of their own: Ann's has nothing of Bob's but what she answered.
    let asked = stage.vendor.requests().pop().expect("a request").body["messages"].to_string();
    assert!(!asked.contains("Bob"), "{asked}");
    // A group that is not known gets nothing, not even a word.
    stage.bot.group(-55, "Others");
    stage.bot.say_in(-55, ANN, "@omni_test_bot hello");
    stage.bot.say(ANN, "hello");
    stage.bot.hears(ANN.0, "re: hello");
    stage.bot.say(ANN, "/snapshot soup");
    stage.bot.hears(ANN.0, "it is kept; /restore soup goes back");
    stage.bot.say(ANN, "/restore soup");
    stage.bot.hears(ANN.0, "the conversation is what it was");
    assert!(stage.bot.said(-55).is_empty());
    stage.behaved();
}

#[test]
fn topics_are_conversations_of_their_own() {
    let settings = format!("users = [7001]\ngroups = [{GROUP}]\nshared_groups = true\nfeedback = false");
    let stage = Stage::with(&settings);
    stage.vendor.echoes(Duration::ZERO);
    stage.bot.group(GROUP, "Cooks");
    stage.bot.topic(GROUP, 11);
    stage.bot.topic(GROUP, 12);
    let _door = stage.serve();
    let say = |user, thread: i32, text: &str| {
        let entities = json!([{ "type": "mention", "offset": 0, "length": 14 }]);
        let text = format!("@omni_test_bot {text}");
        stage.bot.tell(
            GROUP,
            user,
            json!({ "text": text, "entities": entities, "message_thread_id": thread }),
        )
    };
    say(ANN, 11, "soup");
    stage.bot.hears(GROUP, "re: Ann: soup");
    say(BOB, 12, "bread");
    stage.bot.hears(GROUP, "re: Bob: bread");
    say(BOB, 11, "salt?");
    stage.bot.hears(GROUP, "re: Bob: salt?");
    let asked = stage.vendor.requests().pop().expect("a request").body["messages"].to_string();
    assert!(asked.contains("Ann: soup") && !asked.contains("bread"), "{asked}");
    let threads: Vec<_> = stage.bot.said(GROUP).iter().map(|message| message.thread).collect();
    assert_eq!(threads, [Some(11), Some(12), Some(11)]);
    stage.behaved();
}

#[test]
fn a_job_in_the_background_reports_back() {
    let stage = Stage::with("users = [7001]\nfeedback = false");
    stage.vendor.echoes(Duration::ZERO);
    let door = stage.serve();
    stage.bot.say(ANN, "/bg count the stars");
    stage.bot.hears(ANN.0, "re: count the stars");
    stage.bot.say(ANN, "and now?");
    stage.bot.hears(ANN.0, "re: and now?");
    let asked = stage.vendor.requests().pop().expect("a request").body["messages"].to_string();
    assert!(asked.contains("its task was: count the stars"), "the conversation knows of it: {asked}");
    let told = stage.bot.transcript(ANN.0);
    assert_eq!(told.iter().filter(|line| line.contains("re: count the stars")).count(), 1, "{told:?}");
    drop(door);
    // After a restart it is not told again.
    let _door = stage.serve();
    stage.bot.say(ANN, "still once?");
    stage.bot.hears(ANN.0, "re: still once?");
    let after = stage.bot.transcript(ANN.0);
    assert_eq!(after.len(), told.len() + 2, "{after:?}");
    stage.behaved_twice();
}

#[test]
fn a_daily_schedule_is_kept_across_restarts_and_both_changes_of_the_clock() {
    let stage = Stage::with("admins = [7001]\nfeedback = false");
    let wall = Wall::at("2026-10-23T20:00:00+02:00");
    let omni = |arguments: &[&str]| wall.over(stage.world.omni(arguments).model("lab/parrot"));
    let serve = || Door::open(omni(&["serve"]));
    let (bot, vendor) = (&stage.bot, &stage.vendor);
    let mut story = Vec::new();
    let mut scene = |when: &str| {
        let lines = bot.transcript(ANN.0);
        let seen = story.iter().filter(|line: &&String| !line.starts_with('(')).count();
        story.push(format!("({when})"));
        story.extend(lines.into_iter().skip(seen));
    };
    let says = |text: &str| {
        vendor.answer(Answer::text(text));
        bot.hears(ANN.0, text);
    };

    let mut door = serve();
    let daily =
        json!({ "when": "every day at 8:00", "zone": "Europe/Berlin", "ask": "say what wants water" });
    vendor.answer(Answer::call("schedule__add", daily));
    vendor.answer(Answer::text("Every day at eight."));
    bot.say(ANN, "tell me every morning what wants water");
    bot.hears(ANN.0, "May schedule.add run?");
    bot.press_named(ANN, ANN.0, "Once");
    bot.hears(ANN.0, "Every day at eight.");
    bot.hears(ANN.0, "✅ Once: Ann");
    scene("Friday evening");
    wall.set("2026-10-24T07:59:58+02:00");
    says("The basil.");
    scene("Saturday, summer time");

    door.server.kill();
    let _ = door.server.end();
    wall.set("2026-10-25T07:59:58+01:00");
    door = serve();
    says("The fern.");
    scene("Sunday, after a kill, winter time");

    door.server.kill();
    let _ = door.server.end();
    wall.set("2026-10-27T12:00:00+01:00");
    door = serve();
    says("All of them.");
    scene("Tuesday noon, after two mornings without power");
    wall.set("2026-10-28T07:59:58+01:00");
    says("None.");
    scene("Wednesday");

    door.server.signal(libc::SIGTERM);
    door.server.end().succeeded();
    wall.set("2027-03-27T12:00:00+01:00");
    let _door = serve();
    says("Nothing lives.");
    scene("five months later, on a Saturday");
    wall.set("2027-03-28T07:59:58+02:00");
    says("What you have sown.");
    scene("Sunday, summer time again");

    let job = omni(&["job", "list", "--json"]).run().succeeded().last();
    let id = job["id"].as_str().expect("an id");
    let shown = omni(&["job", "show", "--json", "--limit", "50", id]).run().succeeded().last();
    let due = shown["runs"].as_array().expect("runs").iter().rev();
    let due: Vec<_> = due.map(|run| run["due"].as_str().expect("a time")).collect();
    // Always eight in Berlin, to the second; what makes up for several mornings is due at the first of them.
    let eight = ["24T06", "25T07", "26T07", "28T07", "29T07"].map(|hour| format!("2026-10-{hour}:00:00Z"));
    assert_eq!(due, [&eight[..], &["2027-03-28T06:00:00Z".to_owned()]].concat());
    // Two questions to the model on the first evening, one each time: for nothing else in five months.
    assert_eq!(vendor.requests().len(), 2 + due.len());
    bot.say(ANN, &format!("/job {id} remove"));
    bot.until("an answer", |bot| {
        bot.transcript(ANN.0).last().filter(|last| last.starts_with("omni")).map(drop)
    });
    scene("at breakfast");
    insta::assert_snapshot!(story.join("\n").replace(id, "[job]"));
    stage.behaved_twice();
}

#[test]
fn what_is_planned_is_told_where_it_was_wished_and_to_nobody_who_has_left() {
    let stage = Stage::with(&format!("users = [7001, 7002]\ngroups = [{GROUP}]\nfeedback = false"));
    stage.vendor.echoes(Duration::ZERO);
    stage.bot.group(GROUP, "Cooks");
    stage.bot.topic(GROUP, 11);
    let number = TOKEN.split(':').next().expect("a number");
    let plan = |lane: &str, ask: &str| {
        let chat = format!("chat:telegram.{number}.{lane}");
        stage.run(&["job", "add", "now", ask, "--deliver", &chat]).succeeded();
    };
    // A bot may write to whoever has written to it.
    let door = stage.serve();
    stage.bot.say(BOB, "hello");
    stage.bot.hears(BOB.0, "re: hello");
    drop(door);
    plan(&format!("{GROUP}.11.u7002.1790000000000"), "boil water");
    plan("7003", "greet Eve");
    plan("7002", "greet Bob");
    let _door = stage.serve();
    assert_eq!(stage.bot.hears(GROUP, "re: boil water").thread, Some(11));
    stage.bot.hears(BOB.0, "re: greet Bob");
    assert_eq!(stage.bot.transcript(EVE.0), Vec::<String>::new(), "nobody knows her");
    stage.behaved_twice();
}

#[test]
fn a_long_answer_is_shown_while_it_is_written() {
    let stage = Stage::with(&format!("users = [7001]\ngroups = [{GROUP}]\nfeedback = false"));
    stage.bot.group(GROUP, "Cooks");
    let _door = stage.serve();
    // A tool that takes its time, between two texts.
    let slow = |seconds| {
        Answer::call("process__run", json!({ "argv": ["sleep", seconds] })).saying("I look it **up**.")
    };
    stage.vendor.answer(slow("3"));
    stage.vendor.answer(Answer::text("Done."));
    stage.bot.say(ANN, "/start");
    stage.bot.hears(ANN.0, "Hello Ann");
    stage.bot.say(ANN, "look it up");
    stage.bot.until("a question", |bot| {
        bot.said(ANN.0).iter().any(|message| message.buttons.len() == 3).then_some(())
    });
    stage.bot.press_named(ANN, ANN.0, "Once");
    stage.bot.until("a draft", |bot| {
        bot.drafts(ANN.0).iter().any(|text| text.contains("I look it up.")).then_some(())
    });
    stage.bot.hears(ANN.0, "Done.");

    // In a group it grows in place.
    stage.vendor.answer(slow("8"));
    stage.vendor.answer(Answer::text("Done."));
    stage.bot.say_in(GROUP, ANN, "@omni_test_bot look it up");
    stage.bot.until("a question", |bot| {
        bot.said(GROUP).iter().any(|message| message.buttons.len() == 3).then_some(())
    });
    stage.bot.press_named(ANN, GROUP, "Once");
    stage.bot.until("the end", |bot| {
        let last = bot.said(GROUP).into_iter().find(|message| message.text == "Done.")?;
        assert!(last.edits >= 1, "{last:?}");
        Some(())
    });
    assert!(stage.bot.drafts(GROUP).is_empty());
    stage.behaved();
}

#[test]
fn whoever_waits_sees_that_somebody_writes() {
    let stage = Stage::with("users = [7001]\nfeedback = false");
    // The sign fades after five seconds.
    stage.vendor.echoes(Duration::from_secs(6));
    let _door = stage.serve();
    stage.bot.say(ANN, "think");
    stage.bot.until("the sign", |bot| (bot.typed(ANN.0) == 1).then_some(()));
    stage.bot.hears(ANN.0, "re: think");
    assert_eq!(stage.bot.typed(ANN.0), 2);
    stage.behaved();
}

#[test]
fn an_answer_is_stopped() {
    let stage = Stage::with("users = [7001]\nfeedback = false");
    let _door = stage.serve();
    stage.vendor.answer(Answer::text("one two three").stalls());
    stage.bot.say(ANN, "count");
    stage.bot.until("a question to the model", |_| (!stage.vendor.requests().is_empty()).then_some(()));
    stage.bot.say(ANN, "/stop");
    stage.bot.hears(ANN.0, "(Stopped.)");
    stage.bot.say(ANN, "/stop");
    stage.bot.hears(ANN.0, "There is nothing to stop.");
    stage.behaved();
}

#[test]
fn a_thumb_is_a_reward() {
    let stage = Stage::new();
    stage.vendor.echoes(Duration::ZERO);
    let _door = stage.serve();
    stage.bot.say(ANN, "one");
    let one = stage.bot.hears(ANN.0, "re: one");
    assert_eq!(one.buttons.len(), 2);
    stage.bot.press_named(ANN, ANN.0, "👍");
    stage.bot.until("the thanks", |bot| {
        bot.answered().last().map(|(_, text)| assert!(text.contains("what helped")))
    });
    stage.bot.until("no button", |bot| bot.said(ANN.0)[0].buttons.is_empty().then_some(()));
    stage.bot.say(ANN, "two");
    let two = stage.bot.hears(ANN.0, "re: two");
    stage.bot.react(ANN, ANN.0, two.id, "👎");
    // Somebody else's thumb is none.
    stage.bot.react(EVE, ANN.0, two.id, "👍");
    stage.bot.say(ANN, "three");
    stage.bot.hears(ANN.0, "re: three");
    let database = stage.world.home().join("data/omni.db");
    let kept = crate::support::kill::until(|| {
        let asked = std::process::Command::new("python3")
            .args(["-c", "import sqlite3,sys; print(sqlite3.connect(sys.argv[1]).execute(\"SELECT amount FROM memory_reward WHERE source='person' ORDER BY 1\").fetchall())"])
            .arg(&database)
            .output()
            .expect("python");
        let told = String::from_utf8_lossy(&asked.stdout).trim().to_owned();
        (told.matches('(').count() == 2).then_some(told)
    });
    assert!(kept.contains("-1") && kept.contains("1"), "{kept}");
    stage.behaved();
}

#[test]
fn files_go_out_of_one_folder_only() {
    let stage = Stage::with("users = [7001]\nfeedback = false");
    stage.world.write("output/report.txt", "all is well");
    stage.world.write("output/chart.png", "no real picture");
    stage.world.write("secret.txt", "not for you");
    std::os::unix::fs::symlink(
        stage.world.work().join("secret.txt"),
        stage.world.work().join("output/link.txt"),
    )
    .expect("a link");
    let _door = stage.serve();
    stage.vendor.answer(Answer::text(
        "Here: [report](output/report.txt), ![chart](output/chart.png), [s](secret.txt), [p](output/../secret.txt), \
         [l](output/link.txt), [h](/etc/hostname), [f](file:///etc/hostname).",
    ));
    stage.bot.say(ANN, "send me all you have");
    stage.bot.until("two files", |bot| {
        let files: Vec<_> = bot.said(ANN.0).into_iter().filter_map(|message| message.file).collect();
        (files.len() == 2).then_some(files)
    });
    stage.vendor.answer(Answer::text("That is all."));
    stage.bot.say(ANN, "and?");
    stage.bot.hears(ANN.0, "That is all.");
    let files: Vec<_> = stage.bot.said(ANN.0).into_iter().filter_map(|message| message.file).collect();
    let expected = [
        ("report.txt".to_owned(), b"all is well".to_vec()),
        ("chart.png".to_owned(), b"no real picture".to_vec()),
    ];
    assert_eq!(files, expected);
    stage.behaved();
}

#[test]
fn a_conversation_is_sent_as_a_file_and_what_is_about_more_is_for_admins() {
    let stage = Stage::with("users = [7001]\nadmins = [7002]\nfeedback = false");
    let _door = stage.serve();
    stage.vendor.answer(Answer::text("Good day."));
    stage.bot.say(ANN, "hello");
    stage.bot.hears(ANN.0, "Good day.");
    stage.bot.say(ANN, "/mode allow");
    stage.bot.hears(ANN.0, "/mode is for admins");
    stage.bot.say(ANN, "/export talk.md");
    stage.bot.hears(ANN.0, "Where it goes is for admins to say");
    stage.bot.say(ANN, "/export");
    let (name, bytes) =
        stage.bot.until("a file", |bot| bot.said(ANN.0).into_iter().find_map(|said| said.file));
    assert!(name.starts_with("conversation-") && name.ends_with(".md"), "{name}");
    let text = String::from_utf8(bytes).expect("a text");
    assert!(text.starts_with("# hello\n") && text.contains("\nGood day.\n"), "{text}");
    stage.bot.say(BOB, "/export");
    stage.bot.hears(BOB.0, "in `output/conversation-");
    stage.bot.say(BOB, "/export talk.md");
    stage.bot.hears(BOB.0, "in `talk.md`");
    stage.bot.say(BOB, "/mode allow");
    stage.bot.hears(BOB.0, "allow, in this conversation");
    stage.vendor.answer(Answer::call("fs__write", json!({ "path": "list.txt", "content": "milk" })));
    stage.vendor.answer(Answer::text("It is on the list."));
    stage.bot.say(BOB, "put milk on the list");
    stage.bot.hears(BOB.0, "It is on the list.");
    assert!(stage.world.work().join("list.txt").exists());
    stage.behaved();
}

// What goes wrong.

#[test]
fn whatever_telegram_does_each_message_is_answered_once() {
    let stage = Stage::with("users = [7001]\nfeedback = false");
    stage.vendor.echoes(Duration::ZERO);
    let _door = stage.serve();
    let mut count = 0;
    let mut talk = |what: &str, bot: &Bot| {
        count += 1;
        let words = format!("number {count}, with {what}");
        bot.say(ANN, &words);
        bot.hears(ANN.0, &format!("re: {words}"));
    };
    let bot = &stage.bot;
    talk("nothing wrong", bot);
    for fault in [
        Fault::Lost,
        Fault::Half,
        Fault::Page(502),
        Fault::PageAfter(502),
        Fault::Refuse(429, "Too Many Requests: retry after 2", Some(2)),
        Fault::Refuse(500, "Internal Server Error", None),
        Fault::Drip(Duration::from_millis(5)),
        Fault::Late(Duration::from_millis(1500)),
        Fault::Hang,
    ] {
        bot.fault("sendMessage", fault.clone());
        talk(&format!("{fault:?} of an answer"), bot);
    }
    for fault in [
        Fault::Lost,
        Fault::Half,
        Fault::Page(502),
        Fault::Refuse(429, "Too Many Requests: retry after 1", Some(1)),
        Fault::Drip(Duration::from_millis(2)),
        Fault::Hang,
    ] {
        bot.fault("getUpdates", fault.clone());
        talk(&format!("{fault:?} of a question"), bot);
    }
    bot.fault("sendChatAction", Fault::Page(502));
    bot.fault("sendMessageDraft", Fault::Refuse(400, "Bad Request: drafts are not for you", None));
    talk("no sign of life", bot);
    bot.repeats();
    talk("everything twice", bot);
    bot.update(json!({ "something_new": { "that": "no type knows" } }));
    talk("something new", bot);
    once_each(bot, ANN.0, count);
    stage.behaved();
}

/// Every message of a chat was answered once, in order.
#[track_caller]
fn once_each(bot: &Bot, chat: i64, count: usize) {
    let said: Vec<String> = bot.said(chat).into_iter().map(|message| message.text).collect();
    let answers: Vec<&String> = said.iter().filter(|text| text.starts_with("re: ")).collect();
    let numbers: Vec<usize> = answers
        .iter()
        .map(|text| {
            let digits: String =
                text.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
            digits.parse().expect("a number")
        })
        .collect();
    assert_eq!(numbers, (1..=count).collect::<Vec<_>>(), "in {said:#?}");
}

#[test]
fn a_line_that_is_cut_or_half_closed_loses_nothing() {
    let stage = Stage::with("users = [7001]\nfeedback = false");
    stage.vendor.echoes(Duration::ZERO);
    let line = Relay::to(stage.bot.port());
    line.cut();
    let server = format!("http://127.0.0.1:{}", line.port);
    let run = stage.world.omni(["serve"]).model("lab/parrot").env("OMNI_TELEGRAM__SERVER", server);
    let _door = Door::open(run);
    stage.bot.say(ANN, "number 1, before there was a line");
    line.mend();
    stage.bot.hears(ANN.0, "re: number 1");
    for number in 2..10 {
        stage.bot.say(ANN, &format!("number {number}"));
        // Somewhere between the question and the answer; nothing waits for this sleep.
        std::thread::sleep(Duration::from_millis(300).mul_f64(kill::fraction()));
        if number % 2 == 0 {
            line.halve();
            continue;
        }
        line.cut();
        std::thread::sleep(Duration::from_millis(100));
        line.mend();
    }
    stage.bot.hears(ANN.0, "re: number 9");
    once_each(&stage.bot, ANN.0, 9);
    stage.behaved();
}

/// A stage in a group, with a model that looks something up twice before it answers, each time for so many seconds.
fn looking(first: u32, second: u32) -> Stage {
    let stage = Stage::with(&format!("users = [7001]\ngroups = [{GROUP}]\nfeedback = false"));
    let look = "import time\nfrom omni import tool\n\n\n@tool(read_only=True)\ndef up(seconds: int) -> str:\n    \
                \"\"\"Look.\"\"\"\n    time.sleep(seconds)\n    return \"seen\"\n";
    stage.world.skill("look", look);
    for (said, seconds) in [("I look it up.", first), ("I look again.", second)] {
        stage.vendor.answer(Answer::call("look__up", json!({ "seconds": seconds })).saying(said));
    }
    stage.vendor.answer(Answer::text("It is **done**."));
    stage.bot.group(GROUP, "Cooks");
    stage
}

#[test]
fn an_edit_that_comes_after_the_last_one_spoils_nothing() {
    let stage = looking(6, 6);
    let bot = &stage.bot;
    let _door = stage.serve();
    // It is under way for longer than anybody waits, and done after all that comes later.
    bot.fault("editMessageText", Fault::Late(Duration::from_secs(15)));
    bot.say_in(GROUP, ANN, "@omni_test_bot look it up");
    bot.hears(GROUP, "It is done.");
    bot.until("the late edit", |bot| {
        bot.wrongs().into_iter().find(|wrong| wrong.contains("message to edit not found"))
    });
    let said = bot.said(GROUP);
    assert!(matches!(&said[..], [one] if one.text == "It is done."), "{said:#?}");
}

#[test]
fn a_message_that_is_gone_is_said_anew() {
    let stage = looking(6, 0);
    let bot = &stage.bot;
    let _door = stage.serve();
    let asked = bot.say_in(GROUP, ANN, "@omni_test_bot look it up");
    let growing = bot.hears(GROUP, "I look it up.");
    bot.erase(GROUP, growing.id);
    // What it answers goes as well.
    bot.erase(GROUP, asked);
    let done = bot.hears(GROUP, "It is done.");
    assert_eq!((done.id > growing.id, done.reply), (true, None));
    assert_eq!(bot.said(GROUP).len(), 1, "{:#?}", bot.transcript(GROUP));
}

#[test]
fn what_people_write_anew_is_answered_as_it_was_first() {
    let stage = Stage::with("users = [7001]\nfeedback = false");
    stage.vendor.echoes(Duration::from_millis(300));
    let bot = &stage.bot;
    let _door = stage.serve();
    let first = bot.say(ANN, "number 1");
    let second = bot.say(ANN, "number 2");
    // In another order than they were said in, and twice.
    bot.correct(ANN, ANN.0, second, "number 22");
    bot.correct(ANN, ANN.0, first, "number 11");
    bot.correct(ANN, ANN.0, first, "/stop");
    bot.say(ANN, "number 3");
    bot.hears(ANN.0, "re: number 3");
    bot.correct(ANN, ANN.0, first, "number 1");
    bot.say(ANN, "number 4");
    bot.hears(ANN.0, "re: number 4");
    once_each(bot, ANN.0, 4);
    stage.behaved();
}

#[test]
fn what_strangers_say_meanwhile_hides_no_answer() {
    let stage = Stage::with("users = [7001]\nfeedback = false");
    stage.vendor.echoes(Duration::from_secs(1));
    let bot = &stage.bot;
    let _door = stage.serve();
    bot.say(STRANGER, "hello?");
    bot.hears(STRANGER.0, "I do not know you");
    bot.fault("sendMessage", Fault::Lost);
    bot.say(ANN, "number 1");
    for _ in 0..40 {
        bot.say(STRANGER, "hello?");
    }
    bot.hears(ANN.0, "re: number 1");
    bot.say(ANN, "number 2");
    bot.hears(ANN.0, "re: number 2");
    once_each(bot, ANN.0, 2);
    stage.behaved();
}

#[test]
fn a_name_that_nobody_knows_for_a_while_loses_nothing() {
    let stage = Stage::with("users = [7001]\nfeedback = false");
    stage.vendor.echoes(Duration::ZERO);
    let line = Relay::to(stage.bot.port());
    let names = |names: &str| stage.world.write("names", &format!("127.0.0.1 localhost\n{names}"));
    let (known, nobody) =
        (names("127.0.0.1 telegram.test\n"), stage.world.write("servers", "nameserver 127.0.0.1\n"));
    let places = format!(
        "mount --bind {} /etc/hosts && mount --bind {} /etc/resolv.conf",
        known.display(),
        nobody.display()
    );
    let within = format!("{places} && exec \"$0\" \"$@\"");
    let run = stage
        .world
        .under(&["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", &within], ["serve"]);
    let server = format!("http://telegram.test:{}", line.port);
    let door = Door::open(run.model("lab/parrot").env("OMNI_TELEGRAM__SERVER", server));
    stage.bot.say(ANN, "number 1");
    stage.bot.hears(ANN.0, "re: number 1");
    names("");
    // What is open would do without the name.
    line.cut();
    line.mend();
    stage.bot.say(ANN, "number 2");
    kill::until(|| {
        stage.log().contains("nothing is heard from Telegram: Telegram cannot be reached").then_some(())
    });
    names("127.0.0.1 telegram.test\n");
    stage.bot.hears(ANN.0, "re: number 2");
    once_each(&stage.bot, ANN.0, 2);
    drop(door);
    stage.behaved();
}

#[test]
fn entities_that_are_refused_go_as_plain_text() {
    let stage = Stage::with("users = [7001]\nfeedback = false");
    let _door = stage.serve();
    stage.vendor.answer(Answer::text("this is **bold**"));
    stage
        .bot
        .fault("sendMessage", Fault::Refuse(400, "Bad Request: can't parse entities: who knows why", None));
    stage.bot.say(ANN, "say it boldly");
    let said = stage.bot.hears(ANN.0, "this is bold");
    assert!(said.entities.is_empty());
    stage.behaved();
}

#[test]
fn a_conflict_is_told_plainly() {
    let stage = Stage::new();
    stage.vendor.echoes(Duration::ZERO);
    for _ in 0..2 {
        let reason = "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running";
        stage.bot.fault("getUpdates", Fault::Refuse(409, reason, None));
    }
    let door = stage.serve();
    stage.bot.say(ANN, "hello");
    stage.bot.hears(ANN.0, "re: hello");
    door.server.signal(libc::SIGTERM);
    let told = door.server.end().succeeded().err;
    assert!(told.contains("another program asks for the news of this bot"), "{told}");
    // Once, though it was so twice.
    assert_eq!(told.matches("another program").count(), 1, "{told}");
    let logged = stage.log();
    assert_eq!(logged.matches("nothing is heard from Telegram: another program").count(), 1, "{logged}");
}

#[test]
fn a_webhook_that_is_in_the_way_is_found() {
    let stage = Stage::new();
    stage.bot.hook("https://elsewhere.example/hook");
    let doctor = stage.run(&["doctor"]);
    assert!(doctor.out.contains("the token is that of @omni_test_bot"), "{doctor}");
    assert!(doctor.out.contains("https://elsewhere.example/hook gets its news"), "{doctor}");
    assert!(doctor.out.contains("may talk to it: 7001\n"), "{doctor}");
    stage.run(&["channel", "unhook"]).succeeded();
    let doctor = stage.run(&["doctor"]);
    assert!(!doctor.out.contains("elsewhere"), "{doctor}");
}

#[test]
fn the_doctor_names_those_who_may_talk() {
    let stage = Stage::with("");
    let told = || stage.run(&["doctor"]).out;
    assert!(told().contains("nobody may talk to it"), "{}", told());
    stage.run(&["channel", "allow", "7001", "Ann", "--admin"]).succeeded();
    stage.run(&["channel", "allow", "7002"]).succeeded();
    stage.run(&["channel", "allow", "-55", "Cooks"]).succeeded();
    let who = "may talk to it: Ann (7001, admin); 7002; the group Cooks (-55)\n";
    assert!(told().contains(who), "{}", told());
    for number in 7003..7012 {
        stage.run(&["channel", "allow", &number.to_string()]).succeeded();
    }
    assert!(told().contains("; 7010 and 2 more, whom `omni channel list` shows"), "{}", told());
}

#[test]
fn a_token_that_is_refused_is_told_without_it() {
    let stage = Stage::new();
    let wrong = "424242:AAwrong-token_that_is_wrong";
    let doctor = stage.world.omni(["doctor"]).env("OMNI_TELEGRAM__TOKEN", wrong).run();
    assert!(doctor.out.contains("the token is refused"), "{doctor}");
    // And when nobody is there at all.
    let run = stage.world.omni(["doctor"]).env("OMNI_TELEGRAM__SERVER", "http://127.0.0.1:9");
    let nobody = run.run();
    assert!(nobody.out.contains("Telegram cannot be reached"), "{nobody}");
    for told in [doctor, nobody] {
        assert!(!told.to_string().contains("AAwrong") && !told.to_string().contains(TOKEN), "{told}");
    }
    let bad = stage.world.omni(["channel", "list"]).env("OMNI_TELEGRAM__TOKEN", "nonsense/../x").run();
    assert!(bad.err.contains("is no token of a bot"), "{bad}");
}

#[test]
fn a_group_that_moves_is_followed() {
    let stage = Stage::with("users = [7001]\ngroups = []\nfeedback = false");
    stage.vendor.echoes(Duration::ZERO);
    stage.bot.group(-99, "Cooks");
    stage.run(&["channel", "allow", "-99", "Cooks"]).succeeded();
    let _door = stage.serve();
    stage.bot.say_in(-99, ANN, "@omni_test_bot one");
    stage.bot.hears(-99, "re: one");
    stage.bot.migrate(-99, GROUP);
    stage.bot.tell(-99, ANN, json!({ "migrate_to_chat_id": GROUP }));
    stage.bot.say_in(GROUP, ANN, "@omni_test_bot two");
    stage.bot.hears(GROUP, "re: two");
    stage.behaved();
}

#[test]
fn telegram_brings_news_to_a_webhook() {
    let stage = Stage::with("users = [7001]\nfeedback = false\nwebhook = \"https://omni.example.org/\"");
    stage.vendor.echoes(Duration::ZERO);
    let door = stage.serve();
    let call = stage.bot.until("a webhook", |bot| bot.calls("setWebhook").pop());
    let url = call.parameters["url"].as_str().expect("a URL").to_owned();
    let secret = call.parameters["secret_token"].as_str().expect("a secret").to_owned();
    let path = url.strip_prefix("https://omni.example.org").expect("ours");
    let update = json!({ "update_id": 5, "message": {
        "message_id": 9, "date": 1, "from": { "id": ANN.0, "is_bot": false, "first_name": "Ann" },
        "chat": { "id": ANN.0, "type": "private", "first_name": "Ann" }, "text": "by hook",
    }});
    // So that the bot knows the chat.
    stage.bot.say(ANN, "(never asked for)");
    let header = "X-Telegram-Bot-Api-Secret-Token";
    let body = update.to_string();
    assert_eq!(door.send("POST", path, &[], &body).status, 401);
    assert_eq!(door.send("POST", path, &[(header, "guess")], &body).status, 401);
    assert_eq!(door.send("POST", path, &[(header, &secret)], "{").status, 503);
    for _ in 0..2 {
        assert_eq!(door.send("POST", path, &[(header, &secret)], &body).status, 200);
    }
    stage.bot.hears(ANN.0, "re: by hook");
    let update = body.replace("\"update_id\":5", "\"update_id\":6").replace("by hook", "by hook again");
    assert_eq!(door.send("POST", path, &[(header, &secret)], &update).status, 200);
    stage.bot.hears(ANN.0, "re: by hook again");
    let answers = stage.bot.said(ANN.0);
    assert_eq!(answers.len(), 2, "{answers:#?}");
    assert_eq!(stage.bot.polls(), 0);
    stage.behaved();
}

// Kills.

/// Talks while the program is killed this often, at any moment; then every message has one answer.
///
/// All news comes twice, and at every second kill something else goes wrong as well.
///
/// One kill in four comes at a random time. The others come where it is easiest to lose something or to
/// say it twice: when the model is asked, when an answer was sent and is not done yet, and when it is done
/// and that was not told. Each is in a chat in which nothing waits, as long as there is one; then all of them
/// are given the time to come to rest.
#[expect(clippy::print_stdout, reason = "the numbers are of interest")]
fn killed(kills: usize) {
    let people: Vec<(i64, String)> = (7001..7012).map(|number| (number, format!("P{number}"))).collect();
    let users: Vec<String> = people.iter().map(|(number, _)| number.to_string()).collect();
    let settings = format!("users = [{}]\ngroups = [{GROUP}]\nfeedback = false", users.join(", "));
    let stage = Stage::with(&settings);
    let (bot, vendor) = (&stage.bot, &stage.vendor);
    vendor.echoes(Duration::ZERO);
    bot.group(GROUP, "Cooks");
    let chats: Vec<i64> = people.iter().map(|(number, _)| *number).chain([GROUP]).collect();
    let answers = |chat| bot.said(chat).iter().filter(|message| message.text.starts_with("re:")).count();
    // Messages are not looked for from the first one on.
    for _ in 0..40 {
        bot.say(STRANGER, "hello?");
    }
    let busy = Fault::Refuse(429, "Too Many Requests: retry after 1", Some(1));
    let faults = [
        ("sendMessage", Fault::Lost),
        ("getUpdates", Fault::Lost),
        ("sendMessage", Fault::Half),
        ("getUpdates", Fault::Half),
        ("sendMessage", Fault::PageAfter(502)),
        ("getUpdates", Fault::Page(502)),
        ("sendMessage", Fault::Hang),
        ("getUpdates", Fault::Hang),
        ("sendMessage", busy.clone()),
        ("getUpdates", busy),
        ("sendMessage", Fault::Drip(Duration::from_millis(5))),
        ("getUpdates", Fault::Refuse(409, "Conflict: terminated by other getUpdates request", None)),
        ("sendMessage", Fault::Page(502)),
    ];
    bot.repeats();
    let mut counts = vec![0; chats.len()];
    let mut hits = [0; 4];
    for kill in 0..kills {
        let polls = bot.polls();
        let mut door = stage.serve();
        bot.until("a question", |bot| (bot.polls() > polls).then_some(()));
        let free = |counts: &[usize]| {
            let mut places = (0..chats.len()).map(|place| (kill + place) % chats.len());
            places.find(|place| answers(chats[*place]) == counts[*place])
        };
        let place = free(&counts).unwrap_or_else(|| {
            bot.until("a chat at rest", |_| {
                (0..chats.len())
                    .all(|place| answers(chats[place]) == counts[place])
                    .then_some(kill % chats.len())
            })
        });
        let (asked, sent) = (vendor.requests().len(), bot.count("sendMessage"));
        let pause = Duration::from_millis(250);
        match kill % 4 {
            1 => bot.fault("sendMessage", Fault::LateAnswer(pause)),
            // It may be done when the next process is there already.
            2 => bot.fault("sendMessage", Fault::Late(6 * pause)),
            // One of all that goes wrong without a kill, too.
            _ => {
                let (method, fault) = faults[kill / 2 % faults.len()].clone();
                bot.fault(method, fault);
            }
        }
        for _ in 0..1 + kill % 2 {
            counts[place] += 1;
            let words = format!("number {}", counts[place]);
            match people.get(place) {
                Some((number, name)) => bot.say((*number, name), &words),
                None => bot.say_in(GROUP, ANN, &format!("@omni_test_bot {words}")),
            };
        }
        let patience = Instant::now() + Duration::from_secs(10);
        let there = || match kill % 4 {
            0 => true,
            3 => vendor.requests().len() > asked,
            _ => bot.count("sendMessage") > sent,
        };
        while !there() && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(1));
        }
        hits[kill % 4] += usize::from(there());
        // The moment is what is random here; nothing waits for these sleeps.
        let most = if kill % 4 == 0 { Duration::from_millis(1500) } else { Duration::from_millis(60) };
        std::thread::sleep(most.mul_f64(kill::fraction()));
        door.server.kill();
        let _ = door.server.end();
        bot.forgive();
    }
    let _door = stage.serve();
    for (chat, count) in chats.iter().zip(&counts) {
        if *count > 0 {
            bot.hears(*chat, &format!("re: number {count}"));
        }
        once_each(bot, *chat, *count);
    }
    let wrongs = bot.wrongs();
    let wrongs: Vec<_> = wrongs.iter().filter(|wrong| !wrong.contains("Too Many Requests")).collect();
    assert!(wrongs.is_empty(), "{wrongs:#?}");
    println!(
        "{} messages in {} chats were answered once, in order; kills at a random time, when an answer is done and \
         not told, when it is sent, when the model is asked: {hits:?}",
        counts.iter().sum::<usize>(),
        chats.len(),
    );
}

#[test]
fn killed_between_any_two_steps_each_message_is_answered_once() {
    killed(12);
}

#[test]
#[ignore = "takes minutes: make soak"]
fn soak_of_five_hundred_kills() {
    killed(500);
}

// Limits.

#[test]
#[ignore = "takes a minute: make soak"]
#[expect(clippy::print_stdout, reason = "the numbers are of interest")]
fn soak_of_two_hundred_chats_at_once_stay_within_the_limits() {
    let people: Vec<(i64, String)> = (0..200).map(|number| (8000 + number, format!("P{number}"))).collect();
    let users: Vec<String> = people.iter().map(|(id, _)| id.to_string()).collect();
    let stage = Stage::with(&format!("users = [{}]\nfeedback = false", users.join(", ")));
    stage.vendor.echoes(Duration::ZERO);
    let _door = stage.serve();
    stage.bot.until("a question", |bot| (bot.polls() > 0).then_some(()));
    let began = Instant::now();
    for (id, name) in &people {
        stage.bot.say((*id, name.as_str()), &format!("from {id}"));
    }
    let mut took = HashMap::new();
    while took.len() < people.len() {
        assert!(began.elapsed() < Duration::from_secs(180), "{} of 200 have an answer", took.len());
        std::thread::sleep(Duration::from_millis(20));
        for (id, _) in people.iter().filter(|(id, _)| !took.contains_key(id)).collect::<Vec<_>>() {
            if stage.bot.said(*id).iter().any(|message| message.text.starts_with("re:")) {
                took.insert(*id, began.elapsed());
            }
        }
    }
    for (id, _) in &people {
        let said: Vec<String> = stage.bot.said(*id).into_iter().map(|message| message.text).collect();
        assert_eq!(said, [format!("re: from {id}")]);
    }
    let mut times: Vec<Duration> = took.into_values().collect();
    times.sort();
    println!("200 chats: p50 {:.1?}, p99 {:.1?}, last {:.1?}", times[99], times[197], times[199]);
    println!("at most {} messages in a second", stage.bot.busiest());
    stage.behaved();
}

// Texts.

/// What a reader sees of markdown, letter by letter, without blanks and what cannot be seen.
fn visible(text: &str) -> Vec<char> {
    let hidden = |c: &char| {
        c.is_whitespace()
            || c.is_control()
            || matches!(c, '\u{ad}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fe00}'..='\u{fe0f}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}' | '\u{115f}' | '\u{1160}' | '\u{e0000}'..='\u{e0fff}' | '\u{030a}' | '\u{0333}' | '\u{033f}')
    };
    text.chars().filter(|c| !hidden(c)).collect()
}

/// The words of a document, by a reader of markdown that knows nothing of Telegram.
fn words(markdown: &str) -> String {
    use pulldown_cmark::{Event, Options, Parser};
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    let mut words = String::new();
    for event in Parser::new_ext(markdown, options) {
        if let Event::Text(text) | Event::Code(text) | Event::Html(text) | Event::InlineHtml(text) = event {
            words.push_str(&text);
        }
    }
    words
}

fn accepted(messages: &[Text], markdown: &str) -> Result<(), TestCaseError> {
    for message in messages {
        telegram::rules(&message.text, &message.entities)
            .map_err(|reason| TestCaseError::fail(format!("{reason} in {message:?} of {markdown:?}")))?;
    }
    let shown: Vec<char> = messages.iter().flat_map(|message| visible(&message.text)).collect();
    let mut rest = shown.iter();
    for letter in visible(&words(markdown)) {
        if !rest.any(|shown| *shown == letter) {
            return Err(TestCaseError::fail(format!("{letter:?} is lost in {shown:?} of {markdown:?}")));
        }
    }
    Ok(())
}

fn document() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        8 => "[a-z]{1,9}",
        2 => "\\PC{1,6}",
        1 => Just("👩‍👩‍👧 e\u{301} 漢字".to_owned()),
        1 => "[*_`~\\[\\]()<>#|!\\\\-]{1,5}",
    ];
    let words = prop::collection::vec(word, 1..12).prop_map(|words| words.join(" "));
    let inline = (words.clone(), 0..12u8).prop_map(|(text, kind)| match kind {
        0 => format!("**{text}**"),
        1 => format!("*{text}*"),
        2 => format!("~~{text}~~"),
        3 => format!("`{text}`"),
        4 => format!("[{text}](https://example.org/a?b=c)"),
        5 => format!("**bold *both* `code` {text}**"),
        6 => format!("[**{text}** `c`](http://x.org)"),
        7 => format!("[{text}](no scheme)"),
        8 => format!("![{text}](output/x.png)"),
        _ => text,
    });
    let line = prop::collection::vec(inline, 1..5).prop_map(|parts| parts.join(" "));
    let block = (line.clone(), prop::collection::vec(line, 1..6), 0..12u8, 1..40usize).prop_map(
        |(first, lines, kind, many)| match kind {
            0 => format!("# {first}"),
            1 => lines.iter().map(|line| format!("- {line}\n")).collect(),
            2 => lines.iter().map(|line| format!("  - [ ] {line}\n\n")).collect(),
            3 => lines
                .iter()
                .enumerate()
                .map(|(n, line)| format!("{}. {line}\n   * {first}\n", n + 1))
                .collect(),
            4 => lines.iter().map(|line| format!("> {line}\n")).collect(),
            5 => format!("> > {first}\n> - {first}\n>\n> ```\n> {first}\n> ```"),
            6 => format!("```rust\n{}\n```", lines.join("\n").repeat(many)),
            7 => format!("| a | {first} |\n|---|---|\n| {} | b |", first.replace('|', "")),
            8 => format!("{}\n", lines.join(" ").repeat(many)),
            9 => "---".to_owned(),
            10 => format!("    {first}\n\t{first}"),
            _ => first,
        },
    );
    prop::collection::vec(block, 0..6).prop_map(|blocks| blocks.join("\n\n"))
}

#[test]
fn ten_thousand_documents_are_accepted_and_lose_no_letter() {
    let config = Config { cases: 10_000, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let outcome = runner.run(&document(), |markdown| accepted(&format::messages(&markdown), &markdown));
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn blanks_at_the_beginning_stay_in_blocks_of_code_only() {
    let first = |markdown: &str| {
        let messages = format::messages(markdown);
        accepted(&messages, markdown).unwrap_or_else(|error| panic!("{error}"));
        messages.into_iter().next().map(|message| message.text).unwrap_or_default()
    };
    assert_eq!(first("`\u{a0}\u{2003}x` is it"), "x is it");
    assert_eq!(first("```\n  x\n```"), "  x");
    assert_eq!(first("```\n \n\n```\n\nend"), "end");
    assert_eq!(first("\u{a0}\n\n```\n  x\n```"), "  x");
}

#[test]
fn markdown_reads_well_in_a_chat() {
    let markdown = "# Plan\n\nWe **cook** *leek* soup, see [here](https://soup.org).\n\n1. wash\n2. cut\n   - thin\n\n> As `usual`.\n\n```sh\nboil --long\n```\n\n| what | much |\n|---|---|\n| leek | 2 |\n\n- [x] salt\n- [ ] pepper";
    let [message] = &format::messages(markdown)[..] else { panic!("one message") };
    insta::assert_snapshot!(message.text);
    let units: Vec<u16> = message.text.encode_utf16().collect();
    let marks: Vec<String> = message
        .entities
        .iter()
        .map(|entity| {
            let (start, length) = (usize::from(entity.offset), usize::from(entity.length));
            format!("{:?}: {}", entity.type_field, String::from_utf16_lossy(&units[start..start + length]))
        })
        .collect();
    insta::assert_snapshot!(marks.join("\n"));
}

#[test]
fn long_texts_are_cut_where_it_hurts_least() {
    let paragraph = "word ".repeat(300);
    let markdown = format!(
        "{paragraph}\n\n{paragraph}\n\n{paragraph}\n\n```\n{}```\n\nend",
        "line of code\n".repeat(40)
    );
    let messages = format::messages(&markdown);
    assert!(messages.iter().all(|message| format::units(&message.text) <= format::LIMIT));
    // The code is whole in one of them.
    let code = messages.iter().find(|message| message.text.contains("line of code")).expect("the code");
    assert_eq!(code.text.matches("line of code").count(), 40);
    // Letters of two units are not cut in two.
    let faces = "😀".repeat(5000);
    let messages = format::messages(&faces);
    assert_eq!(messages.iter().map(|message| message.text.as_str()).collect::<String>(), faces);
    accepted(&messages, &faces).expect("accepted");
    let code: Value = json!(messages.len());
    assert_eq!(code, 3);
}
