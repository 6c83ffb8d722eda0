//! The chat as people have it: typed at a real terminal, and read off its screen.

use serde_json::json;

use crate::support::omni::{OMNI, Run, World, write};
use crate::support::terminal::Terminal;
use crate::support::vendor::{Answer, Vendor};

const MARKDOWN: &str = "# Three things\n\nThere is **one** file, `säule.txt`:\n\n- it *stands*\n- it is small\n\n\
                        | name | bytes |\n|---|--:|\n| säule.txt | 7 |\n\n```sh\ncat säule.txt\n```\nThat is all.";

/// A chat with the vendor's model.
fn chat<'a>(world: &'a World, vendor: &Vendor, arguments: &[&str]) -> Terminal<'a> {
    let with = |run: Run| {
        run.model("openai/gpt-4o")
            .env("OPENAI_BASE_URL", vendor.openai_url())
            .env("OPENAI_API_KEY", "sk-test")
    };
    let terminal = Terminal::open(world, arguments, with);
    terminal.until("/help shows what there is");
    terminal.until("›");
    terminal
}

/// A screen without what differs from run to run.
fn golden(name: &str, screen: &str) {
    insta::with_settings!({filters => vec![
        (r"\d+(\.\d+)? (ms|s)\b", "[time]"),
        (r"[0-9a-f]{8}-[0-9a-f-]{27}", "[session]"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d", "[date]"),
        (r"/\S*/omni-world-\w+", "[world]"),
    ]}, { insta::assert_snapshot!(name, screen) });
}

#[test]
fn commands_and_files_are_completed_with_tab() {
    let (world, vendor) = (World::new(), Vendor::launch());
    world.write("notes/milk.txt", "");
    let chat = chat(&world, &vendor, &["chat"]);
    let screen = chat.types("/se").presses(&["Tab"]).until("/sessions");
    assert!(!screen.contains("list the sessions"), "there is nothing to choose: {screen}");
    chat.presses(&["C-c"]).when("an empty line", |screen| screen.ends_with('›'));
    chat.types("/").presses(&["Tab"]);
    golden("terminal_commands", &chat.until("/bad"));
    chat.presses(&["C-c"]).when("an empty line", |screen| screen.ends_with('›'));
    chat.types("read @no").presses(&["Tab"]).until("@notes/");
    chat.types("mi").presses(&["Tab"]).until("@notes/milk.txt");
}

#[test]
fn an_answer_is_rendered_while_it_comes() {
    let (world, vendor) = (World::repository(), Vendor::launch());
    vendor.answer(Answer::call("git__status", json!({})).saying("Let me look."));
    vendor.answer(Answer::text(MARKDOWN));
    let chat = chat(&world, &vendor, &["chat"]);
    chat.types("what is here?").presses(&["M-Enter"]).types("in detail").presses(&["Enter"]);
    chat.until("That is all.");
    let screen = chat.when("the next line", |screen| screen.ends_with('›'));
    golden("terminal_answer", &screen);
    let coloured = chat.coloured();
    let heading = coloured.lines().find(|line| line.contains("Three things")).expect("a heading");
    assert!(heading.contains("1m"), "a heading is bold: {heading:?}");
    let asked = vendor.requests()[0].body["messages"].to_string();
    assert!(asked.contains(r"what is here?\nin detail"), "{asked}");
}

#[test]
fn a_tool_asks_and_shows_what_would_run() {
    let (world, vendor) = (World::new(), Vendor::launch());
    world.write("a.txt", "one\ntwo\n");
    // What it would do cannot be hidden with the terminal's own orders.
    let edit = json!({"path": "a.txt", "old": "two", "new": "three\n\u{1b}[1A\u{1b}[2Kfour"});
    vendor.answer(Answer::call("fs__edit", edit));
    vendor.answer(Answer::text("Done."));
    let chat = chat(&world, &vendor, &["chat"]);
    chat.types("make it longer").presses(&["Enter"]);
    golden("terminal_permission", &chat.until("run it?"));
    let screen = chat.types("y").presses(&["Enter"]).until("Done.");
    assert_eq!(screen.matches("+ three").count(), 1, "what was shown before is not shown again: {screen}");
    let file = std::fs::read_to_string(world.work().join("a.txt")).expect("a file");
    assert_eq!(file, "one\nthree\n\u{1b}[1A\u{1b}[2Kfour\n");
}

#[test]
fn a_program_is_shown_as_typed_and_never_asked_about_again() {
    let (world, vendor) = (World::new(), Vendor::launch());
    let run = json!({"argv": ["sh", "-c", "touch 'a b'"], "cwd": "."});
    for _ in 0..2 {
        vendor.answer(Answer::call("process__run", run.clone()));
        vendor.answer(Answer::text("Then not."));
    }
    let chat = chat(&world, &vendor, &["chat"]);
    chat.types("run it").presses(&["Enter"]).until("run it?");
    chat.types("d").presses(&["Enter"]).until("Then not.");
    chat.types("again").presses(&["Enter"]);
    let screen = chat
        .when("the next line", |screen| screen.matches("Then not.").count() == 2 && screen.ends_with('›'));
    golden("terminal_never", &screen);
    assert!(!world.work().join("a b").exists(), "it was refused");
}

#[test]
fn an_edit_that_nobody_was_asked_about_is_shown_when_it_is_done() {
    let (world, vendor) = (World::new(), Vendor::launch());
    world.write("a.txt", "one\ntwo\nthree\n");
    let edit = json!({"path": "a.txt", "old": "one\ntwo\nthree", "new": "one\n2\n2½\nthree"});
    vendor.answer(Answer::call("fs__edit", edit));
    vendor.answer(Answer::text("Done."));
    let chat = chat(&world, &vendor, &["chat", "--yes"]);
    chat.types("count").presses(&["Enter"]).until("Done.");
    golden("terminal_edited", &chat.when("the next line", |screen| screen.ends_with('›')));
    let coloured = chat.coloured();
    let gone = coloured.lines().find(|line| line.contains("- two")).expect("what is gone");
    assert!(gone.contains("31m"), "what goes is red: {gone:?}");
}

#[test]
fn ctrl_c_at_a_question_refuses_and_cancels() {
    let (world, vendor) = (World::new(), Vendor::launch());
    vendor.answer(Answer::call("fs__write", json!({"path": "a.txt", "content": "x"})));
    let chat = chat(&world, &vendor, &["chat"]);
    chat.types("write it").presses(&["Enter"]).until("run it?");
    chat.presses(&["C-c"]).when("the next line", |screen| screen.ends_with('›'));
    assert!(!world.work().join("a.txt").exists(), "a refused call never runs");
    chat.types("/quit").presses(&["Enter"]).until("left with 0");
}

#[test]
fn ctrl_c_clears_then_cancels_then_leaves() {
    let (world, vendor) = (World::new(), Vendor::launch());
    vendor.answer(Answer::text("The beginning of an answer that nobody will ever hear to its end").stalls());
    let chat = chat(&world, &vendor, &["chat"]);
    chat.types("half a thought").until("half a thought");
    chat.presses(&["C-c"]).when("an empty line", |screen| screen.ends_with('›'));
    chat.types("a question").presses(&["Enter"]).until("The beginning");
    chat.resize(50);
    chat.presses(&["C-c"]).when("the next line", |screen| screen.ends_with('›'));
    chat.presses(&["C-c"]).until("Ctrl-C again");
    chat.when("the next line", |screen| screen.ends_with('›'));
    golden("terminal_interrupted", &chat.presses(&["C-c"]).until("left with 0"));
    let kept = world.omni(["session", "list"]).run().succeeded();
    assert!(kept.out.contains("a question"), "{kept}");
}

/// A tool that goes on whatever is raised in it.
const STUBBORN: &str = r#"
import time

from omni import tool


@tool(read_only=True)
def stay() -> str:
    """Stay."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            time.sleep(0.01)
        except BaseException:
            pass
    return "left"
"#;

#[test]
fn ctrl_c_leaves_a_tool_that_does_not_let_go() {
    let (world, vendor) = (World::new(), Vendor::launch());
    let folder = world.skill("stubborn", STUBBORN);
    let card = "---\nname: stubborn\ndescription: Stays.\nmetadata:\n  isolation: thread\n---\n";
    write(&folder.join("SKILL.md"), card);
    world.omni(["--yes", "skill", "trust", "stubborn"]).run().succeeded();
    vendor.answer(Answer::call("stubborn__stay", json!({})).saying("I stay."));
    vendor.answer(Answer::text("Here I am."));
    let chat = chat(&world, &vendor, &["chat"]);
    chat.types("stay").presses(&["Enter"]).until("stubborn.stay");
    chat.presses(&["C-c"]).when("the next line", |screen| screen.ends_with('›'));
    chat.types("and now?").presses(&["Enter"]).until("Here I am.");
    golden("terminal_stubborn", &chat.when("the next line", |screen| screen.ends_with('›')));
    chat.types("/quit").presses(&["Enter"]).until("left with 0");
}

#[test]
fn ctrl_c_twice_does_not_wait_and_a_third_leaves() {
    let world = World::new();
    let model = world.script("slow", &[json!({ "text": "late", "delay_ms": 600_000 })]);
    let chat = Terminal::open(&world, &["chat"], |run| run.model(&model));
    chat.when("the first line", |screen| screen.ends_with('›'));
    chat.types("are you there?").presses(&["Enter"]).until("0s");
    // The end of the turn cannot be written.
    let _holder = world.hold();
    chat.presses(&["C-c"]).until("stopping");
    chat.presses(&["C-c"]).until("Ctrl-C again leaves");
    let screen = chat.when("the next line", |screen| screen.ends_with('›'));
    let talk = screen.split_once('›').map(|(_, talk)| talk).expect("a message");
    golden("terminal_abandoned", talk);
    chat.presses(&["C-c"]).until("left with 0");
}

/// A chat that writes down its process, and says afterwards how the terminal is.
fn watched<'a>(world: &'a World, model: &str) -> Terminal<'a> {
    let command =
        format!("sh -c 'echo $$ >pid; exec {OMNI} chat'; echo code $?; stty -a | grep -ow '.\\?icanon'");
    Terminal::run(world, &command, |run| run.model(model))
}

fn terminate(world: &World) {
    let process = std::fs::read_to_string(world.work().join("pid")).expect("it runs");
    world.program(&["kill", "-TERM", process.trim()]).run().succeeded();
}

#[test]
fn whoever_is_told_to_end_while_somebody_types_leaves_the_terminal_as_it_was() {
    let world = World::new();
    let chat = watched(&world, "offline");
    chat.when("the first line", |screen| screen.ends_with('›'));
    chat.types("half a thought").until("half a thought");
    terminate(&world);
    let screen = chat.until("left with");
    assert!(screen.contains("code 143") && !screen.contains("-icanon"), "{screen}");
}

#[test]
fn whoever_is_told_to_end_while_a_tool_asks_refuses_and_ends() {
    let world = World::new();
    let call = json!({ "name": "fs__write", "arguments": { "path": "a.txt", "content": "x" } });
    let model = world.script("m", &[json!({ "calls": [call] })]);
    let chat = watched(&world, &model);
    chat.when("the first line", |screen| screen.ends_with('›'));
    chat.types("write it").presses(&["Enter"]).until("run it?");
    terminate(&world);
    let screen = chat.until("left with");
    assert!(screen.contains("code 143") && !screen.contains("-icanon"), "{screen}");
    assert!(!world.work().join("a.txt").exists(), "nobody has agreed");
}

#[test]
fn another_model_goes_on_with_the_same_talk() {
    let (world, vendor) = (World::new(), Vendor::launch());
    for text in ["One.", "Two."] {
        vendor.answer(Answer::text(text));
    }
    let chat = chat(&world, &vendor, &["chat"]);
    chat.types("first").presses(&["Enter"]).until("One.");
    chat.types("/model").presses(&["Enter"]).until("/model PROVIDER/NAME");
    chat.types("/model openai/gpt-4.1").presses(&["Enter"]).until("answers from now on");
    chat.types("second").presses(&["Enter"]).until("Two.");
    golden("terminal_model", &chat.when("the next line", |screen| screen.ends_with('›')));
    let asked = vendor.requests().pop().expect("a request").body;
    assert_eq!(asked["model"], "gpt-4.1");
    assert!(asked["messages"].to_string().contains("first"), "{asked}");
}

#[test]
fn a_mode_is_chosen_and_what_was_used_is_told_and_written_down() {
    let (world, vendor) = (World::new(), Vendor::launch());
    let write = |content: &str| Answer::call("fs__write", json!({"path": "a.txt", "content": content}));
    let anew = Answer::text("Begun anew.");
    for answer in
        [write("one"), Answer::text("One."), write("two"), Answer::text("Two."), anew, write("three")]
    {
        vendor.answer(answer);
    }
    let server = json!({"mcpServers": {"off": {"command": "none", "disabled": true}}});
    world.write("servers.json", &server.to_string());
    let chat = chat(&world, &vendor, &["--mcp-config", "servers.json", "chat"]);
    let enter = |words: &str| {
        chat.when("a prompt", |screen| screen.ends_with('›'));
        chat.types(words).presses(&["Enter"])
    };
    enter("/mode").until("allow: ");
    enter("/mode never").until("there is no mode");
    enter("/mode allow").until("allow, in this");
    enter("write").until("One.");
    // Another model goes on in it; another session does not.
    enter("/model openai/gpt-4.1").until("answers from now on");
    enter("write more").until("Two.");
    golden("terminal_mode", &chat.when("the next line", |screen| screen.ends_with('›')));
    enter("/clear").until("begins anew");
    chat.when("an empty screen", |_| {
        chat.visible() == "the conversation begins anew; /restore goes back\n\n›"
    });
    enter("/mcp").until("off  disabled");
    enter("/mcp on").until("there are: off");
    enter("/usage").until("no budget");
    enter("/export talk.md").until("is in `talk.md`");
    enter("/export talk.md").until("--force");
    golden("terminal_commands_done", &chat.when("the next line", |screen| screen.ends_with('›')));
    let written = std::fs::read_to_string(world.work().join("talk.md")).expect("a file");
    assert!(written.contains("Two."), "{written}");
    enter("and now?").until("Begun anew.");
    let asked = vendor.requests().pop().expect("a request").body["messages"].to_string();
    assert!(!asked.contains("Two."), "{asked}");
    enter("/new").until("begins with the next message");
    enter("write still more").until("run it?");
}

#[test]
fn a_talk_goes_on_where_it_ended_and_remembers_what_was_typed() {
    let (world, vendor) = (World::new(), Vendor::launch());
    vendor.answer(Answer::text("I am fine."));
    vendor.answer(Answer::text("You asked **how I am**:\n\n- well"));
    let first = chat(&world, &vendor, &["chat"]);
    first.types("how are you?").presses(&["Enter"]).until("I am fine.");
    first.types(" not for").presses(&["M-Enter"]).types("the history").presses(&["Enter"]).until("You asked");
    first.when("the next line", |screen| screen.ends_with('›'));
    first.presses(&["C-d"]).until("left with 0");
    let history = std::fs::read_to_string(world.home().join("state/history")).expect("a history");
    assert_eq!(history.trim(), "how are you?");

    vendor.answer(Answer::text("Still fine."));
    let second = chat(&world, &vendor, &["chat", "--continue"]);
    golden("terminal_resumed", &second.when("the next line", |screen| screen.ends_with("\n›")));
    second.presses(&["Up", "Enter"]).until("Still fine.");
    let asked = vendor.requests().pop().expect("a request").body["messages"].to_string();
    assert!(asked.contains("I am fine.") && asked.matches("how are you?").count() == 2, "{asked}");
}

#[test]
fn what_is_typed_while_an_answer_comes_waits_for_its_turn() {
    let world = World::new();
    let steps = [json!({ "text": "At last.", "delay_ms": 4000 }), json!({ "text": "Here I am." })];
    let model = world.script("slow", &steps);
    let chat = Terminal::open(&world, &["chat"], |run| run.model(&model));
    chat.when("the first line", |screen| screen.ends_with('›'));
    chat.types("a question").presses(&["Enter"]).until("0s");
    chat.types("and another").presses(&["Enter"]);
    chat.until("Here I am.");
    let screen = chat.when("the next line", |screen| screen.ends_with('›'));
    let talk = screen.split_once('›').map(|(_, talk)| talk).expect("a message");
    golden("terminal_ahead", talk);
}

#[test]
fn an_answer_goes_on_when_the_terminal_changes_its_width() {
    let (world, vendor) = (World::new(), Vendor::launch());
    let words = "- Every word of this answer is whole, whatever the width of the screen is\n";
    vendor.answer(Answer::text(&words.repeat(2)).stalls());
    vendor.answer(Answer::text(&words.repeat(2)));
    let chat = chat(&world, &vendor, &["chat"]);
    chat.types("narrow").presses(&["Enter"]).until("screen");
    chat.resize(40);
    chat.presses(&["C-c"]).when("the next line", |screen| screen.ends_with('›'));
    chat.types("again").presses(&["Enter"]);
    let screen = chat.when("the next line", |screen| screen.contains("again") && screen.ends_with('›'));
    golden("terminal_resized", &screen);
}

#[test]
fn a_message_is_written_in_an_editor() {
    let (world, vendor) = (World::new(), Vendor::launch());
    vendor.answer(Answer::text("I see."));
    let editor = world.write("editor.sh", "#!/bin/sh\nprintf 'line one\\nline two' >\"$1\"\n");
    let command = format!("sh {}", editor.display());
    let with = |run: Run| {
        run.model("openai/gpt-4o")
            .env("OPENAI_BASE_URL", vendor.openai_url())
            .env("OPENAI_API_KEY", "sk-test")
            .env("EDITOR", &command)
    };
    let chat = Terminal::open(&world, &["chat"], with);
    chat.when("the first line", |screen| screen.ends_with('›'));
    chat.presses(&["C-o"]).until("line two");
    chat.presses(&["Enter"]).until("I see.");
    let asked = vendor.requests()[0].body["messages"].to_string();
    assert!(asked.contains(r"line one\nline two"), "{asked}");
}

#[test]
fn sessions_are_listed_gone_on_with_and_left() {
    let (world, vendor) = (World::new(), Vendor::launch());
    for text in ["One.", "Two.", "Three."] {
        vendor.answer(Answer::text(text));
    }
    let chat = chat(&world, &vendor, &["chat"]);
    chat.types("first").presses(&["Enter"]).until("One.");
    chat.types("/new").presses(&["Enter"]).until("begins with the next message");
    chat.types("second").presses(&["Enter"]).until("Two.");
    let listed = chat.types("/sessions").presses(&["Enter"]).until("messages  first");
    let id = listed.lines().find(|line| line.ends_with("first") && line.contains("messages"));
    let id = id.and_then(|line| line.split(' ').next()).expect("an id").to_owned();
    chat.types(&format!("/resume {id}")).presses(&["Enter"]).until("going on with");
    chat.types("third").presses(&["Enter"]).until("Three.");
    let asked = vendor.requests().pop().expect("a request").body["messages"].to_string();
    assert!(asked.contains("first") && !asked.contains("second"), "{asked}");
    chat.types("/help").presses(&["Enter"]).until("everything else is a message");
    golden("terminal_sessions", &chat.when("the next line", |screen| screen.ends_with('›')));
}

#[test]
fn without_colours_and_through_tee_there_are_none() {
    let (world, vendor) = (World::new(), Vendor::launch());
    for _ in 0..3 {
        vendor.answer(Answer::call("time__now", json!({})));
        vendor.answer(Answer::text("Some **bold** words."));
    }
    let with = |run: Run| {
        run.model("openai/gpt-4o")
            .env("OPENAI_BASE_URL", vendor.openai_url())
            .env("OPENAI_API_KEY", "sk-test")
    };
    let plain = Terminal::open(&world, &["ask", "hello"], |run| with(run).env("NO_COLOR", "1"));
    let screen = plain.until("left with 0");
    assert!(screen.contains("Some **bold** words."), "as it was written: {screen}");
    assert!(!plain.coloured().contains("\u{1b}["), "{:?}", plain.coloured());
    // What goes through a pipe is what was said; the tool's line is still on the terminal, in colours.
    let tee = Terminal::run(&world, &format!("{OMNI} ask hello | tee said"), with);
    let screen = tee.until("left with 0");
    assert!(screen.contains("Some **bold** words.") && screen.contains("✓ time.now"), "{screen}");
    let said = std::fs::read_to_string(world.work().join("said")).expect("what was said");
    assert_eq!(said, "Some **bold** words.\n");
    let coloured = Terminal::open(&world, &["ask", "hello"], with);
    let screen = coloured.until("left with 0");
    assert!(screen.contains("Some bold words."), "{screen}");
    assert!(coloured.coloured().contains("\u{1b}[1mbold"), "{:?}", coloured.coloured());
}
