//! The model that is none: which sentence calls which tool, with what.

use std::sync::Arc;

use omni::llm::{Delta, Model, Offline, Request, ToolDefinition};
use omni::message::{Arguments, Block, Message, Part, Role, ToolCall, ToolResult};
use proptest::prelude::*;
use serde_json::{Value, json};

fn tool(
    title: &str,
    description: &str,
    parameters: Value,
    read_only: bool,
    examples: &[&str],
) -> ToolDefinition {
    let required: Vec<Value> = parameters
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, schema)| schema.get("default").is_none())
        .map(|(name, _)| json!(name))
        .collect();
    ToolDefinition {
        name: title.replace('.', "__"),
        title: title.to_owned(),
        description: description.to_owned(),
        parameters: json!({ "type": "object", "properties": parameters, "required": required }),
        examples: examples.iter().map(|example| (*example).to_owned()).collect(),
        read_only,
        fits: false,
    }
}

fn tools() -> Arc<[ToolDefinition]> {
    let text = |description: &str| json!({ "type": "string", "description": description });
    let optional = |description: &str| json!({ "type": "string", "description": description, "default": "" });
    let number = |description: &str, default: i64| json!({ "type": "integer", "description": description, "default": default });
    let flag = |description: &str| json!({ "type": "boolean", "description": description, "default": false });
    Arc::from(vec![
        tool(
            "fs.read",
            "Read a text file of the workspace.",
            json!({ "path": text("The file, relative to the workspace."), "offset": number("First line.", 1), "limit": number("How many lines.", 2000) }),
            true,
            &["read README.md", "show the file src/main.rs", "open notes.txt", "print config.toml"],
        ),
        tool(
            "fs.write",
            "Create a file or replace all of its content.",
            json!({ "path": text("The file."), "content": text("All of the new content.") }),
            false,
            &["write \"hello\" to greeting.txt"],
        ),
        tool(
            "fs.edit",
            "Replace one piece of text in a file.",
            json!({ "path": text("The file."), "old": text("The text that is there."), "new": text("The text that shall be there.") }),
            false,
            &["edit a.txt and replace \"x\" with \"y\""],
        ),
        tool(
            "fs.list",
            "List the files and folders in a folder.",
            json!({ "path": json!({ "type": "string", "description": "The folder.", "default": "." }), "recursive": flag("Whether folders in it are listed too.") }),
            true,
            &["list the files", "what is in this folder", "ls src"],
        ),
        tool(
            "fs.search",
            "Search the text of files for a pattern.",
            json!({ "pattern": text("Text or regular expression."), "path": json!({ "type": "string", "description": "Where to search.", "default": "." }), "ignore_case": flag("Whether upper and lower case are the same.") }),
            true,
            &["search for TODO", "grep \"fn main\" in src", "find unwrap in the files"],
        ),
        tool(
            "fs.stat",
            "Tell size, kind and modification time of a file.",
            json!({ "path": text("The file or folder.") }),
            true,
            &["how big is data.bin", "stat Cargo.toml", "file size of a.txt"],
        ),
        tool(
            "git.status",
            "Show which files of the repository are changed, staged or untracked.",
            json!({}),
            true,
            &["what changed", "git status", "are there uncommitted changes"],
        ),
        tool(
            "git.diff",
            "Show the changes of the working tree as a diff.",
            json!({ "path": optional("Only this file or folder."), "staged": flag("Show what is staged.") }),
            true,
            &["show the diff", "show me the staged changes", "diff of src/main.rs"],
        ),
        tool(
            "git.log",
            "Show the latest commits.",
            json!({ "limit": number("How many commits.", 10), "author": optional("Only commits by this author.") }),
            true,
            &["show the last commits", "git history", "recent commits"],
        ),
        tool(
            "git.show",
            "Show one commit with its changes.",
            json!({ "revision": json!({ "type": "string", "description": "Which commit.", "default": "HEAD" }) }),
            true,
            &["show the commit abc123"],
        ),
        tool(
            "git.branch",
            "List the branches of the repository.",
            json!({}),
            true,
            &["list the branches", "which branch am I on"],
        ),
        tool(
            "git.commit",
            "Commit the staged changes.",
            json!({ "message": text("The commit message.") }),
            false,
            &["commit with message \"fix typo\""],
        ),
        tool(
            "git.propose",
            "Propose a commit message for the staged changes.",
            json!({}),
            true,
            &["propose a commit message", "suggest a commit message"],
        ),
        tool(
            "process.run",
            "Run a command in the workspace and return its output.",
            json!({ "command": text("The command line."), "timeout": json!({ "type": "number", "description": "Seconds.", "default": 60 }) }),
            false,
            &["run cargo test", "run the command ls -la"],
        ),
        tool(
            "web.fetch",
            "Fetch a web page and return it as text.",
            json!({ "url": json!({ "type": "string", "format": "uri", "description": "The address of the page." }), "format": json!({ "type": "string", "enum": ["markdown", "text", "html"], "description": "How to return the page.", "default": "markdown" }) }),
            true,
            &["fetch https://example.com", "download the page https://example.org/a", "get the website"],
        ),
        tool(
            "time.now",
            "Tell the current date and time.",
            json!({ "timezone": json!({ "type": "string", "description": "An IANA name such as Europe/Berlin.", "default": "UTC" }) }),
            true,
            &["what time is it", "what is the date today", "现在几点了"],
        ),
        tool(
            "notes.add",
            "Add a note.",
            json!({ "text": text("What to remember."), "tags": json!({ "type": "array", "items": { "type": "string" }, "description": "Words to find it by.", "default": [] }) }),
            false,
            &["add a note: buy milk", "add note \"call Anna\""],
        ),
        tool(
            "notes.search",
            "Search the notes.",
            json!({ "query": text("Words to look for.") }),
            true,
            &["search my notes for milk", "find the note about Anna"],
        ),
        tool(
            "notes.list",
            "List the latest notes.",
            json!({ "limit": number("How many notes.", 20) }),
            true,
            &["list my notes", "show the notes"],
        ),
    ])
}

fn asking(messages: Vec<Message>) -> Request {
    Request { system: String::new(), messages, tools: tools() }
}

async fn answer(messages: Vec<Message>) -> Message {
    let shown = std::sync::Mutex::new(String::new());
    let sink = |delta| {
        if let Delta::Text(text) = delta {
            shown.lock().expect("no panic").push_str(&text)
        }
    };
    let reply = Offline.reply(&asking(messages), &sink).await.expect("it always answers");
    assert_eq!(reply.message.text(), *shown.lock().expect("no panic"));
    reply.message
}

/// What a sentence comes to: `tool {arguments}`, `? question` or `-` for no tool.
async fn outcome(sentence: &str) -> String {
    let message = answer(vec![Message::user(sentence)]).await;
    if let Some(call) = message.calls().next() {
        let Arguments::Object(arguments) = &call.arguments else { panic!("{call:?}") };
        let title = call.name.replace("__", ".");
        return match arguments.is_empty() {
            true => title,
            false => format!("{title} {}", Value::Object(arguments.clone())),
        };
    }
    match message.replay {
        Some(replay) => format!(
            "? {} {}",
            replay.content["tool"].as_str().expect("a tool").replace("__", "."),
            replay.content["asked"].as_str().expect("a name")
        ),
        None => "-".to_owned(),
    }
}

#[tokio::test]
async fn a_tool_that_is_about_the_workspace_is_preferred() {
    let test =
        |skill: &str| tool(&format!("{skill}.test"), "Run the tests.", json!({}), true, &["run the tests"]);
    for fitting in ["cargo", "pytest"] {
        let mut tools = vec![test("cargo"), test("pytest")];
        tools.iter_mut().for_each(|tool| tool.fits = tool.title.starts_with(fitting));
        let messages = vec![Message::user("run the tests")];
        let request = Request { system: String::new(), messages, tools: Arc::from(tools) };
        let reply = Offline.reply(&request, &|_| ()).await.expect("it always answers");
        let called: Vec<_> = reply.message.calls().map(|call| call.name.clone()).collect();
        assert_eq!(called, [format!("{fitting}__test")]);
    }
}

#[tokio::test]
async fn sentences_find_their_tools() {
    let table: &[(&str, &str)] = &[
        ("git status", "git.status"),
        ("git.status", "git.status"),
        ("what changed?", "git.status"),
        ("are there any uncommitted changes in the repository?", "git.status"),
        ("show me the diff", "git.diff"),
        ("show me the staged changes", r#"git.diff {"staged":true}"#),
        ("diff of src/llm/mod.rs please", r#"git.diff {"path":"src/llm/mod.rs"}"#),
        ("show the last 5 commits", r#"git.log {"limit":5}"#),
        ("git log", "git.log"),
        ("git log limit=3 author=anna", r#"git.log {"limit":3,"author":"anna"}"#),
        ("which branch am I on?", "git.branch"),
        ("list the branches", "git.branch"),
        ("suggest a commit message", "git.propose"),
        ("commit with message \"fix the typo\"", r#"git.commit {"message":"fix the typo"}"#),
        ("git commit", "? git.commit message"),
        ("read README.md", r#"fs.read {"path":"README.md"}"#),
        ("please read the file src/main.rs", r#"fs.read {"path":"src/main.rs"}"#),
        ("show me the file ./Makefile", r#"fs.read {"path":"./Makefile"}"#),
        ("open 'my notes.txt'", r#"fs.read {"path":"my notes.txt"}"#),
        ("read", "? fs.read path"),
        ("read the README", r#"fs.read {"path":"README"}"#),
        ("list the files in src/", r#"fs.list {"path":"src/"}"#),
        ("list files", "fs.list"),
        ("list all files recursively", r#"fs.list {"recursive":true}"#),
        ("what is in this folder?", "fs.list"),
        ("how big is target/app.bin?", r#"fs.stat {"path":"target/app.bin"}"#),
        ("search for TODO", r#"fs.search {"pattern":"TODO"}"#),
        ("grep \"fn main\" in src", r#"fs.search {"pattern":"fn main","path":"src"}"#),
        ("search the files for unwrap in src/llm", r#"fs.search {"pattern":"unwrap","path":"src/llm"}"#),
        (
            "write \"hello world\" to greeting.txt",
            r#"fs.write {"path":"greeting.txt","content":"hello world"}"#,
        ),
        ("edit a.txt and replace \"x\" with \"y\"", r#"fs.edit {"path":"a.txt","old":"x","new":"y"}"#),
        ("run cargo test", r#"process.run {"command":"cargo test"}"#),
        ("run `ls -la`", r#"process.run {"command":"ls -la"}"#),
        ("fetch https://example.com/a?b=c", r#"web.fetch {"url":"https://example.com/a?b=c"}"#),
        (
            "download the page https://example.org as html",
            r#"web.fetch {"url":"https://example.org","format":"html"}"#,
        ),
        ("fetch the website", "? web.fetch url"),
        ("what time is it?", "time.now"),
        ("what's the date today?", "time.now"),
        ("time.now timezone=Europe/Berlin", r#"time.now {"timezone":"Europe/Berlin"}"#),
        ("现在几点了？", "time.now"),
        ("add a note: buy milk and bread", r#"notes.add {"text":"buy milk and bread"}"#),
        ("add note \"call Anna\"", r#"notes.add {"text":"call Anna"}"#),
        ("search my notes for milk", r#"notes.search {"query":"milk"}"#),
        ("find the note about Anna", r#"notes.search {"query":"Anna"}"#),
        ("list my notes", "notes.list"),
        ("show the latest 3 notes", r#"notes.list {"limit":3}"#),
        // Nothing for these.
        ("hello", "-"),
        ("thank you very much!", "-"),
        ("what is the weather in Paris?", "-"),
        ("write a poem about the sea", "-"),
        ("who was the first person on the moon?", "-"),
        ("explain quantum mechanics", "-"),
        ("你好吗", "-"),
        ("", "-"),
        ("???", "-"),
        // What changes something is only done in its own words.
        ("save my work with the words \"x\"", "-"),
        ("make greeting.txt say \"hello\"", "-"),
        ("cargo test", "-"),
        ("how do I run the tests?", "-"),
        ("what does git.commit do?", "-"),
        ("is it safe to run rm?", "-"),
        ("tell me about git.commit", "-"),
        ("don't write \"x\" to a.txt", "-"),
        ("please never write to a.txt", "-"),
        ("could you run cargo check?", r#"process.run {"command":"cargo check"}"#),
        ("run git.status", "git.status"),
        ("read README.md`", r#"fs.read {"path":"README.md"}"#),
        // What was piped in is no question.
        ("git status\n\n```\nread README.md\n```", "git.status"),
        ("summarise\n\n```\nread README.md, run git.status\n```", "-"),
    ];
    let mut wrong = Vec::new();
    for (sentence, wanted) in table {
        let got = outcome(sentence).await;
        if got != *wanted {
            wrong.push(format!("{sentence:?}\n   wanted {wanted}\n   got    {got}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} are wrong:\n{}", wrong.len(), table.len(), wrong.join("\n"));
}

#[tokio::test]
async fn a_question_is_answered_by_the_next_message() {
    let asked = answer(vec![Message::user("git commit")]).await;
    assert_eq!(
        asked.text(),
        "`git.commit` needs `message` (The commit message). What shall it be? (\"cancel\" to drop it)"
    );
    let so_far = |answer: &str| vec![Message::user("git commit"), asked.clone(), Message::user(answer)];
    let called = answer(so_far("fix the broken link")).await;
    let call = called.calls().next().expect("a call");
    assert_eq!(call.arguments, Arguments::from(json!({ "message": "fix the broken link" })));
    let dropped = answer(so_far("cancel")).await;
    assert_eq!((dropped.text().as_str(), dropped.calls().count()), ("Dropped.", 0));
    let other = answer(so_far("git status")).await;
    assert_eq!(other.calls().next().expect("a call").name, "git__status");
}

#[tokio::test]
async fn several_questions_come_one_after_another() {
    let mut messages = vec![Message::user("fs.edit a.txt")];
    for text in ["old words", "\"new words\""] {
        let asked = answer(messages.clone()).await;
        assert!(asked.text().starts_with("`fs.edit` needs"), "{}", asked.text());
        messages.extend([asked, Message::user(text)]);
    }
    let call = answer(messages).await.calls().next().expect("a call").clone();
    assert_eq!(
        call.arguments,
        Arguments::from(json!({ "path": "a.txt", "old": "old words", "new": "new words" }))
    );
}

#[tokio::test]
async fn results_are_shown_as_text() {
    let shown = async |content: &str, structured: Option<Value>, is_error: bool| {
        let call = ToolCall {
            id: "call_1".to_owned(),
            name: "git__status".to_owned(),
            arguments: Arguments::from(json!({})),
        };
        let content = if content.is_empty() { vec![] } else { vec![Block::text(content)] };
        let result = ToolResult {
            call: call.id.clone(),
            name: call.name.clone(),
            content,
            structured,
            is_error,
            changes: Vec::new(),
        };
        let messages = vec![
            Message::user("git status"),
            Message::of(Role::Assistant, vec![Part::Call(call)]),
            Message::results(vec![result]),
        ];
        let message = answer(messages).await;
        assert_eq!(message.calls().count(), 0);
        message.text()
    };
    assert_eq!(shown("clean", None, false).await, "git.status: clean");
    assert_eq!(shown("a\nb", None, false).await, "git.status:\n\na\nb");
    assert_eq!(shown("", None, false).await, "git.status: done");
    assert_eq!(shown("not a repository", None, true).await, "git.status failed: not a repository");
    assert_eq!(
        shown(r#"{"branch":"main","changed":2}"#, None, false).await,
        "git.status:\n\nbranch: main\nchanged: 2"
    );
    assert_eq!(shown("", Some(json!(["a", "b"])), false).await, "git.status:\n\n- a\n- b");
    let long = shown(&"x".repeat(10_000), None, false).await;
    assert!(long.ends_with("… (6000 more characters)") && long.len() < 4_200);
}

#[tokio::test]
async fn without_a_match_it_says_what_it_is_and_what_can_be_done() {
    let message = answer(vec![Message::user("tell me a joke")]).await;
    let text = message.text();
    assert!(text.contains("no language model") && text.contains("ANTHROPIC_API_KEY"), "{text}");
    assert!(text.contains("what changed (`git.status`)"), "{text}");
    assert_eq!(message, answer(vec![Message::user("tell me a joke")]).await);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    // Whatever is said, there is an answer, and the same one each time.
    #[test]
    fn any_sentence_gets_an_answer(
        sentence in prop_oneof![
            any::<String>(),
            "(read|write|run|search|commit|fetch|add note|edit|git\\.log)( [\"'`“«a-zé=./:0-9现在?-]{0,8}){0,4}",
        ],
        reply in any::<String>(),
    ) {
        let say = |messages: Vec<Message>| futures::executor::block_on(answer(messages));
        let first = say(vec![Message::user(&sentence)]);
        prop_assert!(!first.parts.is_empty());
        prop_assert_eq!(&first, &say(vec![Message::user(&sentence)]));
        let next = say(vec![Message::user(&sentence), first, Message::user(&reply)]);
        prop_assert!(!next.parts.is_empty());
    }
}
