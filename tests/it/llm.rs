//! Models: real HTTP against a server that plays vendor.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use omni::config;
use omni::llm::catalog::Kind;
use omni::llm::detect::{self, Found};
use omni::llm::retry::{self, Limits};
use omni::llm::{
    Delta, Error, Model, Provider, Reply, Request, Resilient, Scripted, Server, Stop, ToolDefinition,
};
use omni::message::{Arguments, Block, Message, Part, Role, ToolCall, ToolResult};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::vendor::{self, Answer, Vendor};

const KEY: &str = "sk-very-secret-0123456789";

const DIALECTS: &[(Kind, &str)] = &[
    (Kind::OpenAi, "gpt-4o"),
    (Kind::Responses, "gpt-5.6"),
    (Kind::Anthropic, "claude-sonnet-5"),
    (Kind::Gemini, "gemini-3.8-flash"),
    (Kind::Ollama, "qwen3"),
];

fn settings() -> config::Model {
    config::Model {
        name: String::new(),
        fallback: Vec::new(),
        window: 0,
        max_output: 0,
        effort: String::new(),
        retries: 2,
        connect_timeout: 5.0,
        first_byte_timeout: 20.0,
        idle_timeout: 20.0,
        price: Vec::new(),
    }
}

fn model(vendor: &Vendor, kind: Kind, name: &str) -> Provider {
    model_with(vendor, kind, name, &settings())
}

fn model_with(vendor: &Vendor, kind: Kind, name: &str, settings: &config::Model) -> Provider {
    let server =
        Server { provider: "lab".to_owned(), kind, base_url: vendor.url(), key: Some(KEY.to_owned()) };
    Provider::new(server, name, settings).expect("a model")
}

fn tools() -> Arc<[ToolDefinition]> {
    let tool = |name: &str, parameters: Value| ToolDefinition {
        name: name.to_owned(),
        title: name.replace("__", "."),
        description: format!("The tool {name}."),
        parameters,
        examples: vec![],
        read_only: true,
        fits: false,
    };
    Arc::from(vec![
        tool("git__status", json!({ "type": "object" })),
        tool(
            "fs__read",
            json!({ "type": "object", "properties": { "path": { "type": "string" } }, "required": ["path"] }),
        ),
    ])
}

fn request(messages: Vec<Message>) -> Request {
    Request { system: "You are a test.".to_owned(), messages, tools: tools() }
}

fn asking(text: &str) -> Request {
    request(vec![Message::user(text)])
}

async fn ask(model: &dyn Model, request: &Request) -> (Result<Reply, Error>, Vec<Delta>) {
    let deltas = Mutex::new(Vec::new());
    let reply = model.reply(request, &|delta| deltas.lock().expect("no panic").push(delta)).await;
    (reply, deltas.into_inner().expect("no panic"))
}

fn shown(deltas: &[Delta]) -> String {
    deltas
        .iter()
        .filter_map(|delta| if let Delta::Text(text) = delta { Some(text.as_str()) } else { None })
        .collect()
}

fn result(call: &ToolCall, text: &str) -> ToolResult {
    ToolResult {
        call: call.id.clone(),
        name: call.name.clone(),
        content: vec![Block::text(text)],
        structured: None,
        is_error: false,
        changes: Vec::new(),
    }
}

#[tokio::test]
async fn an_answer_arrives_in_pieces_and_whole() {
    for (kind, name) in DIALECTS {
        let vendor = Vendor::start().await;
        vendor.answer(Answer::text("Grüße aus dem 🦀-Haus, alle zusammen"));
        let (reply, deltas) = ask(&model(&vendor, *kind, name), &asking("hi")).await;
        let reply = reply.unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        assert_eq!(reply.message, Message::assistant("Grüße aus dem 🦀-Haus, alle zusammen"), "{kind:?}");
        assert_eq!(shown(&deltas), reply.message.text(), "{kind:?}");
        assert!(deltas.len() > 1, "{kind:?} came at once");
        assert_eq!(reply.stop, Stop::Done);
        assert_eq!(reply.model, format!("lab/{name}"));
        let usage = reply.usage.expect("usage");
        assert_eq!((usage.input, usage.output), (120, 8), "{kind:?}");
    }
}

/// Two rounds of calls and an answer, as the agent would do it.
async fn play_two_rounds(vendor: &Vendor, kind: Kind, name: &str) -> Vec<Message> {
    let model = model(vendor, kind, name);
    vendor.answer(
        Answer::call("git__status", json!({}))
            .and_call("fs__read", json!({ "path": "säule.txt" }))
            .saying("Let me look.")
            .thinking("What does he want?"),
    );
    vendor.answer(Answer::call("git__status", json!({})).thinking("Again."));
    vendor.answer(Answer::text("All is well."));
    let mut messages = vec![Message::user("how is it?")];
    for round in 0..3 {
        let (reply, _) = ask(&model, &request(messages.clone())).await;
        let reply = reply.unwrap_or_else(|error| panic!("{kind:?} round {round}: {error}"));
        let results: Vec<_> = reply.message.calls().map(|call| result(call, "clean")).collect();
        messages.push(reply.message);
        if !results.is_empty() {
            messages.push(Message::results(results));
        }
    }
    messages
}

#[tokio::test]
async fn tools_are_called_over_several_rounds() {
    for (kind, name) in DIALECTS {
        let vendor = Vendor::start().await;
        let messages = play_two_rounds(&vendor, *kind, name).await;
        assert_eq!(messages.len(), 6, "{kind:?}");
        let calls: Vec<_> = messages[1].calls().collect();
        assert_eq!(calls[0].name, "git__status");
        assert_eq!(calls[0].arguments, Arguments::from(json!({})));
        assert_eq!(calls[1].arguments, Arguments::from(json!({ "path": "säule.txt" })), "{kind:?}");
        assert_eq!(messages[5].text(), "All is well.");
        let ids: std::collections::HashSet<_> =
            messages.iter().flat_map(Message::calls).map(|call| &call.id).collect();
        assert_eq!(ids.len(), 3, "{kind:?}: ids repeat");
    }
}

/// The last request of a run, as the vendor saw it.
async fn replayed(kind: Kind, name: &str) -> Value {
    let vendor = Vendor::start().await;
    play_two_rounds(&vendor, kind, name).await;
    vendor.requests().pop().expect("requests").body
}

#[tokio::test]
async fn signed_reasoning_goes_back_verbatim() {
    let anthropic = replayed(Kind::Anthropic, "claude-sonnet-5").await;
    assert_eq!(
        anthropic["messages"][1]["content"][0],
        json!({ "type": "thinking", "thinking": "What does he want?", "signature": "signed:What does he want?" })
    );
    let responses = replayed(Kind::Responses, "gpt-5.6").await;
    let sealed =
        responses["input"].as_array().expect("items").iter().filter(|item| item["type"] == "reasoning");
    let sealed: Vec<_> = sealed.map(|item| item["encrypted_content"].as_str().expect("text")).collect();
    assert_eq!(sealed, ["sealed:What does he want?", "sealed:Again."]);
    let gemini = replayed(Kind::Gemini, "gemini-3.8-flash").await;
    let model = &gemini["contents"][1]["parts"];
    assert_eq!(model[1]["thoughtSignature"], "signed:What does he want?", "{model}");
    let deepseek = replayed(Kind::DeepSeek, "deepseek-chat").await;
    assert_eq!(deepseek["messages"][2]["reasoning_content"], "What does he want?");
}

#[tokio::test]
async fn another_provider_sees_no_foreign_reasoning() {
    let first = Vendor::start().await;
    let messages = play_two_rounds(&first, Kind::Anthropic, "claude-sonnet-5").await;
    for kind in [Kind::Anthropic, Kind::Groq, Kind::Responses, Kind::Mistral] {
        let vendor = Vendor::start().await;
        vendor.answer(Answer::text("ok"));
        let server =
            Server { provider: "other".to_owned(), kind, base_url: vendor.url(), key: Some(KEY.to_owned()) };
        let model = Provider::new(server, "m", &settings()).expect("a model");
        ask(&model, &request(messages.clone())).await.0.expect("an answer");
        let body = vendor.requests()[0].body.to_string();
        assert!(!body.contains("What does he want"), "{kind:?}: {body}");
        assert!(body.contains("Let me look."), "{kind:?}: {body}");
    }
}

#[tokio::test]
async fn groq_is_not_sent_the_reasoning_it_rejects() {
    let body = replayed(Kind::Groq, "openai/gpt-oss-120b").await;
    assert!(!body.to_string().contains("What does he want"), "{body}");
}

#[tokio::test]
async fn a_changed_message_is_not_replayed() {
    let vendor = Vendor::start().await;
    let mut messages = play_two_rounds(&vendor, Kind::Anthropic, "claude-sonnet-5").await;
    // The session mended the conversation: one call is gone.
    messages[1].parts.retain(|part| !matches!(part, Part::Call(call) if call.name == "fs__read"));
    messages[2].parts.truncate(1);
    vendor.answer(Answer::text("ok"));
    ask(&model(&vendor, Kind::Anthropic, "claude-sonnet-5"), &request(messages)).await.0.expect("an answer");
    let body = vendor.requests().pop().expect("requests").body;
    assert!(!body["messages"][1].to_string().contains("fs__read"), "{body}");
}

#[tokio::test]
async fn anthropic_gets_a_stable_prefix_to_cache() {
    let vendor = Vendor::start().await;
    play_two_rounds(&vendor, Kind::Anthropic, "claude-sonnet-5").await;
    let requests = vendor.requests();
    let mark = json!({ "type": "ephemeral" });
    for recorded in &requests {
        let body = &recorded.body;
        assert_eq!(body["system"][0]["cache_control"], mark);
        assert_eq!(body["tools"][1]["cache_control"], mark);
        let last = body["messages"].as_array().and_then(|messages| messages.last()).expect("messages");
        let content = last["content"].as_array().expect("blocks");
        assert_eq!(content.last().expect("a block")["cache_control"], mark);
        assert!(body.to_string().matches("cache_control").count() <= 4, "Anthropic takes four");
    }
    // What was cached is found again: apart from the marks, each request begins with the one before.
    let bare = |body: &Value| {
        let mut text = body["messages"].to_string().replace(r#","cache_control":{"type":"ephemeral"}"#, "");
        // A marked text is a block, an unmarked one a string.
        text = text.replace(r#"[{"type":"text","text":"how is it?"}]"#, r#""how is it?""#);
        text.trim_end_matches(']').to_owned()
    };
    for pair in requests.windows(2) {
        assert_eq!(pair[0].body["system"], pair[1].body["system"]);
        assert_eq!(pair[0].body["tools"], pair[1].body["tools"]);
        assert!(bare(&pair[1].body).starts_with(&bare(&pair[0].body)));
    }
}

#[tokio::test]
async fn results_tell_errors_and_bring_pictures() {
    let call = |id: &str| ToolCall {
        id: id.to_owned(),
        name: "fs__read".to_owned(),
        arguments: Arguments::from(json!({})),
    };
    let picture = Block::Image { mime: "image/png".to_owned(), data: "aGk=".to_owned() };
    let mut good = result(&call("a"), "seen");
    good.content.push(picture);
    let messages = vec![
        Message::user("look"),
        Message::of(Role::Assistant, vec![Part::Call(call("a")), Part::Call(call("b"))]),
        Message::results(vec![good, ToolResult::error(&call("b"), "no such file")]),
    ];
    for (kind, name) in DIALECTS {
        let vendor = Vendor::start().await;
        vendor.answer(Answer::text("ok"));
        ask(&model(&vendor, *kind, name), &request(messages.clone())).await.0.expect("an answer");
        let body = vendor.requests()[0].body.to_string();
        assert!(body.contains("Error: no such file"), "{kind:?}: {body}");
        assert!(body.contains("aGk="), "{kind:?}: {body}");
    }
}

#[tokio::test]
async fn arguments_that_are_no_object_are_kept_as_text_and_can_be_sent_back() {
    for kind in [Kind::OpenAi, Kind::Responses, Kind::Anthropic] {
        let vendor = Vendor::start().await;
        vendor.answer(Answer::default().and_call_with("fs__read", r#"{"path": "x"#));
        vendor.answer(Answer::text("sorry"));
        let model = model(&vendor, kind, "m");
        let (reply, _) = ask(&model, &asking("read")).await;
        let message = reply.expect("an answer").message;
        let call = message.calls().next().expect("a call").clone();
        assert_eq!(call.arguments, Arguments::Unreadable(r#"{"path": "x"#.to_owned()), "{kind:?}");
        let messages =
            vec![Message::user("read"), message, Message::results(vec![ToolResult::error(&call, "no JSON")])];
        ask(&model, &request(messages)).await.0.expect("an answer");
        let body = &vendor.requests()[1].body;
        let input = match kind {
            Kind::Anthropic => body["messages"][1]["content"][0]["input"].clone(),
            Kind::Responses => {
                serde_json::from_str(body["input"][1]["arguments"].as_str().expect("text")).expect("JSON")
            }
            _ => serde_json::from_str(
                body["messages"][2]["tool_calls"][0]["function"]["arguments"].as_str().expect("text"),
            )
            .expect("JSON"),
        };
        assert!(input.is_object(), "{kind:?}: {input}");
    }
}

#[tokio::test]
async fn calls_without_index_are_all_there() {
    for answer in [
        Answer::call("git__status", json!({})).and_call("fs__read", json!({ "path": "a" })).without_index(),
        Answer::call("git__status", json!({})).and_call("fs__read", json!({ "path": "a" })).same_index(),
        Answer::call("git__status", json!({}))
            .and_call("fs__read", json!({ "path": "a" }))
            .without_index()
            .without_ids(),
        Answer::call("git__status", json!({})).and_call("fs__read", json!({ "path": "a" })).losing_calls(),
        Answer::call("git__status", json!({})).and_call("fs__read", json!({ "path": "a" })).without_done(),
        Answer::call("git__status", json!({})).and_call("fs__read", json!({ "path": "a" })).unstreamed(),
    ] {
        let vendor = Vendor::start().await;
        // A second copy for the cases that have to ask again without a stream.
        vendor.answer(answer.clone());
        vendor.answer(answer.clone());
        let (reply, _) = ask(&model(&vendor, Kind::OpenAi, "local"), &asking("go")).await;
        let message = reply.unwrap_or_else(|error| panic!("{answer:?}: {error}")).message;
        let calls: Vec<_> =
            message.calls().map(|call| (call.name.as_str(), call.arguments.clone())).collect();
        let wanted = [("git__status", json!({}).into()), ("fs__read", json!({ "path": "a" }).into())];
        assert_eq!(calls, wanted, "{answer:?}");
        let ids: Vec<_> = message.calls().map(|call| call.id.as_str()).collect();
        assert!(ids[0] != ids[1] && ids.iter().all(|id| !id.is_empty()), "{ids:?}");
    }
}

#[tokio::test]
async fn missing_ids_are_the_same_each_time_and_differ_between_rounds() {
    for kind in [Kind::OpenAi, Kind::Anthropic, Kind::Gemini, Kind::Ollama] {
        let mut runs = Vec::new();
        for _ in 0..2 {
            let vendor = Vendor::start().await;
            vendor.answer(
                Answer::call("git__status", json!({})).and_call("git__status", json!({})).without_ids(),
            );
            vendor.answer(Answer::call("git__status", json!({})).without_ids());
            let model = model(&vendor, kind, "m");
            let first = ask(&model, &asking("go")).await.0.expect("an answer").message;
            let results = first.calls().map(|call| result(call, "ok")).collect();
            let messages = vec![Message::user("go"), first.clone(), Message::results(results)];
            let second = ask(&model, &request(messages)).await.0.expect("an answer").message;
            let ids: Vec<String> = first.calls().chain(second.calls()).map(|call| call.id.clone()).collect();
            assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), 3, "{kind:?}: {ids:?}");
            runs.push(ids);
        }
        if kind != Kind::Ollama {
            // Its client makes up random ids itself.
            assert_eq!(runs[0], runs[1], "{kind:?}");
        }
    }
}

#[tokio::test]
async fn torn_characters_and_long_lines_arrive_whole() {
    let long = "Wörter und 🦀 ".repeat(20_000);
    for (kind, name) in DIALECTS {
        let vendor = Vendor::start().await;
        vendor.answer(Answer::text("schöne 🦀 größer").bytewise());
        vendor.answer(Answer::text(&long));
        let model = model(&vendor, *kind, name);
        let (reply, _) = ask(&model, &asking("hi")).await;
        assert_eq!(reply.expect("an answer").message.text(), "schöne 🦀 größer", "{kind:?}");
        let (reply, _) = ask(&model, &asking("hi")).await;
        assert_eq!(reply.expect("an answer").message.text(), long, "{kind:?}");
    }
}

#[tokio::test]
async fn half_an_answer_is_an_interruption_with_what_was_said() {
    for (kind, name) in DIALECTS {
        for answer in
            [Answer::text("one two three four five").half(), Answer::text("one two three four five").reset()]
        {
            let vendor = Vendor::start().await;
            vendor.answer(answer.clone());
            let (reply, deltas) = ask(&model(&vendor, *kind, name), &asking("hi")).await;
            match reply {
                Err(Error::Interrupted { partial, provider, .. }) => {
                    assert_eq!(provider, "lab");
                    assert_eq!(partial.text(), shown(&deltas), "{kind:?}");
                    assert!(partial.text().starts_with("one"), "{kind:?}");
                }
                other => panic!("{kind:?} {answer:?}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn an_error_in_the_middle_of_a_stream_is_told_by_its_kind() {
    let cases = [
        (Kind::Anthropic, json!({ "type": "overloaded_error", "message": "Overloaded" }), 529),
        (Kind::Anthropic, json!({ "type": "rate_limit_error", "message": "slow" }), 429),
        (Kind::OpenAi, json!({ "message": "boom", "type": "server_error", "code": null }), 500),
        (Kind::OpenRouter, json!({ "code": 502, "message": "upstream" }), 502),
        (Kind::Responses, json!({ "code": "rate_limit_exceeded", "message": "slow" }), 429),
        (Kind::Gemini, json!({ "code": 503, "message": "overloaded", "status": "UNAVAILABLE" }), 503),
        (Kind::Ollama, json!("model runner has stopped"), 500),
    ];
    for (kind, error, wanted) in cases {
        let vendor = Vendor::start().await;
        vendor.answer(Answer::text("").failing(error.clone()));
        vendor.answer(Answer::text("so far").failing(error.clone()));
        let model = model(&vendor, kind, "m");
        match ask(&model, &asking("hi")).await.0 {
            Err(Error::Unavailable { status, message, .. }) => {
                assert_eq!(status, wanted, "{kind:?}: {message}");
                let said = error["message"].as_str().or(error.as_str()).expect("a message");
                assert!(message.contains(said), "{kind:?}: {message}");
            }
            other => panic!("{kind:?}: {other:?}"),
        }
        match ask(&model, &asking("hi")).await.0 {
            Err(Error::Interrupted { partial, .. }) => assert_eq!(partial.text(), "so far", "{kind:?}"),
            other => panic!("{kind:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_status_becomes_the_error_that_says_who_acts() {
    let page = "<!DOCTYPE html><html><head><style>p{color:red}</style><title>502 Bad Gateway</title></head>\
        <body><h1>Bad Gateway</h1><p>nginx &amp; friends</p></body></html>";
    for (kind, name) in DIALECTS {
        let vendor = Vendor::start().await;
        let model = model(&vendor, *kind, name);
        let told = async |answer: Answer| {
            vendor.answer(answer);
            let error = ask(&model, &asking("hi")).await.0.expect_err("an error");
            let text = error.to_string();
            assert!(!text.contains(KEY), "{kind:?} tells the key: {text}");
            assert!(!text.contains('<'), "{kind:?}: {text}");
            error
        };
        assert!(matches!(
            told(Answer::status(401, &format!("bad key {KEY}"))).await,
            Error::Unauthorized { message, .. } if message == "bad key ****"
        ));
        assert!(matches!(told(Answer::status(403, "not yours")).await, Error::Unauthorized { .. }));
        assert!(matches!(
            told(Answer::status(404, "no model `x`")).await,
            Error::Rejected { status: 404, message, .. } if message == "no model `x`"
        ));
        assert!(matches!(
            told(Answer::page(502, "text/html", page)).await,
            Error::Unavailable { status: 502, message, retry_after: None, .. }
                if message == "502 Bad Gateway Bad Gateway nginx & friends"
        ));
        let wait = |error| match error {
            Error::Unavailable { status: 429, retry_after, .. } => retry_after,
            other => panic!("{other:?}"),
        };
        assert_eq!(wait(told(Answer::status(429, "slow")).await), None);
        let seconds = told(Answer::status(429, "slow").header("retry-after", "7")).await;
        assert_eq!(wait(seconds), Some(std::time::Duration::from_secs(7)));
        let date =
            httpdate::fmt_http_date(std::time::SystemTime::now() + std::time::Duration::from_secs(3000));
        let until =
            wait(told(Answer::status(429, "slow").header("retry-after", &date)).await).expect("a time");
        assert!((2900..=3000).contains(&until.as_secs()), "{until:?}");
        let steering = told(Answer::status(500, "\u{1b}[2Jgone")).await.to_string();
        assert!(!steering.contains('\u{1b}'), "{steering:?}");
        let long = told(Answer::status(500, &"long ".repeat(1000))).await;
        assert!(matches!(long, Error::Unavailable { message, .. } if message.chars().count() <= 300));
        assert!(matches!(
            told(Answer::status(429, "You exceeded your quota: insufficient_quota")).await,
            Error::Rejected { status: 429, .. }
        ));
    }
}

#[tokio::test]
async fn garbage_and_empty_answers_are_unreadable_after_a_second_try() {
    for (kind, name) in DIALECTS {
        for answer in [
            Answer::page(200, "application/json", "{\"oops\": tru"),
            Answer::page(200, "text/html", "<html><body>Please log in</body></html>"),
            Answer::text(""),
            Answer::text("  \n "),
        ] {
            let vendor = Vendor::start().await;
            vendor.answer(answer.clone());
            vendor.answer(answer.clone());
            let (reply, _) = ask(&model(&vendor, *kind, name), &asking("hi")).await;
            assert!(matches!(reply, Err(Error::Unreadable { .. })), "{kind:?} {answer:?}: {reply:?}");
        }
        let vendor = Vendor::start().await;
        vendor.answer(Answer::text(""));
        vendor.answer(Answer::text("here I am"));
        let (reply, deltas) = ask(&model(&vendor, *kind, name), &asking("hi")).await;
        assert_eq!(reply.expect("an answer").message.text(), "here I am", "{kind:?}");
        assert_eq!(shown(&deltas), "here I am", "{kind:?}");
    }
}

#[tokio::test]
async fn a_broken_frame_is_unreadable() {
    let frames = "data: {\"choices\": [{\"delta\": {\"content\": \"he\n\n";
    let vendor = Vendor::start().await;
    vendor.answer(Answer::page(200, "text/event-stream", frames));
    let (reply, _) = ask(&model(&vendor, Kind::OpenAi, "m"), &asking("hi")).await;
    assert!(matches!(reply, Err(Error::Unreadable { .. })), "{reply:?}");
}

#[tokio::test]
async fn silence_ends_after_the_time_that_was_set() {
    let settings = config::Model { first_byte_timeout: 0.2, idle_timeout: 0.1, ..settings() };
    for (kind, name) in DIALECTS {
        let vendor = Vendor::start().await;
        vendor.answer(Answer::silent());
        vendor.answer(Answer::text("one two three four five six").stalls());
        let model = model_with(&vendor, *kind, name, &settings);
        let (reply, _) = ask(&model, &asking("hi")).await;
        assert!(matches!(reply, Err(Error::Silent { .. })), "{kind:?}: {reply:?}");
        let (reply, _) = ask(&model, &asking("hi")).await;
        match reply {
            Err(Error::Interrupted { partial, .. }) => assert!(partial.text().starts_with("one"), "{kind:?}"),
            other => panic!("{kind:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn nobody_listening_is_a_network_error() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port")
        .port();
    let server = Server {
        provider: "lab".to_owned(),
        kind: Kind::OpenAi,
        base_url: format!("http://127.0.0.1:{port}"),
        key: None,
    };
    let model = Provider::new(server, "m", &settings()).expect("a model");
    match ask(&model, &asking("hi")).await.0 {
        Err(Error::Network { message, .. }) => assert!(message.contains(&port.to_string()), "{message}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_limit_or_a_filter_is_no_failure() {
    for (kind, name, limit, filter) in [
        (Kind::OpenAi, "m", "length", "content_filter"),
        (Kind::Anthropic, "m", "max_tokens", "refusal"),
        (Kind::Gemini, "m", "MAX_TOKENS", "SAFETY"),
        (Kind::Ollama, "m", "length", "content_filter"),
    ] {
        let vendor = Vendor::start().await;
        vendor.answer(Answer::text("cut sho").stopping(limit));
        vendor.answer(Answer::text("").stopping(filter));
        let model = model(&vendor, kind, name);
        assert_eq!(ask(&model, &asking("hi")).await.0.expect("an answer").stop, Stop::Length, "{kind:?}");
        assert_eq!(ask(&model, &asking("hi")).await.0.expect("an answer").stop, Stop::Filtered, "{kind:?}");
    }
    let vendor = Vendor::start().await;
    vendor.answer(Answer::text("cut sho").stopping("incomplete"));
    let (reply, _) = ask(&model(&vendor, Kind::Responses, "m"), &asking("hi")).await;
    assert_eq!(reply.expect("an answer").stop, Stop::Length);
}

#[tokio::test]
async fn a_reply_has_the_price_that_was_set_and_none_otherwise() {
    let price = |text: &str| config::Price::try_from(text.to_owned());
    let priced =
        config::Model { price: vec![price("lab/gpt-5.6 2.0 0.2 10.0").expect("a price")], ..settings() };
    for (kind, name) in DIALECTS {
        let vendor = Vendor::start().await;
        vendor.answer(Answer::text("a"));
        vendor.answer(Answer::text("b"));
        let usage = |reply: Result<Reply, Error>| reply.expect("a reply").usage.expect("it is counted");
        let (reply, _) = ask(&model_with(&vendor, *kind, name, &settings()), &asking("a")).await;
        assert_eq!(usage(reply).cost, None, "{name}");
        let (reply, _) = ask(&model_with(&vendor, *kind, name, &priced), &asking("b")).await;
        // 20 fresh tokens, 100 of the cache, an answer of 8: 40 + 20 + 80 millionths.
        assert_eq!(usage(reply).cost, (*name == "gpt-5.6").then_some(140), "{name}");
    }
    for wrong in ["lab/gpt-5.6", "lab/gpt-5.6 2 0.2", "lab/gpt-5.6 2 0.2 -1", "lab/gpt-5.6 a b c", ""] {
        assert!(price(wrong).is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn a_model_is_told_how_much_to_think() {
    let eager = config::Model { effort: "high".to_owned(), ..settings() };
    let cases = [
        (Kind::OpenAi, "gpt-5.6", "/reasoning_effort"),
        (Kind::OpenAi, "gpt-5.6-low", "/reasoning_effort"),
        (Kind::Responses, "gpt-5.6", "/reasoning/effort"),
        (Kind::Anthropic, "claude-sonnet-5", "/output_config/effort"),
        (Kind::Gemini, "gemini-3.8-flash", "/generationConfig/thinkingConfig/thinkingLevel"),
    ];
    for (kind, name, place) in cases {
        let vendor = Vendor::start().await;
        vendor.answer(Answer::text("a"));
        ask(&model_with(&vendor, kind, name, &eager), &asking("a")).await.0.expect("a reply");
        let sent = vendor.requests().pop().expect("a request");
        let effort = sent.body.pointer(place).and_then(Value::as_str).map(str::to_lowercase);
        assert_eq!(effort.as_deref(), Some("high"), "{name}: {}", sent.body);
        assert!(!sent.body.to_string().contains("gpt-5.6-low"), "the one that was chosen is meant");
    }
    let wrong = config::Model { effort: "much".to_owned(), ..settings() };
    let server =
        Server { provider: "lab".to_owned(), kind: Kind::OpenAi, base_url: "x".to_owned(), key: None };
    let error = Provider::new(server, "gpt-5.6", &wrong).err().expect("no model").to_string();
    assert!(error.contains("`much`") && error.contains("`high`"), "{error}");
}

#[tokio::test]
async fn dropping_the_reply_closes_the_connection() {
    for (kind, name) in DIALECTS {
        let vendor = Vendor::start().await;
        vendor.answer(Answer::text("one two three four five six").stalls());
        let model = model(&vendor, *kind, name);
        let heard = Arc::new(tokio::sync::Notify::new());
        let bell = Arc::clone(&heard);
        let request = asking("hi");
        let sink = move |_: Delta| bell.notify_one();
        tokio::select! {
            reply = model.reply(&request, &sink) => panic!("it stalls: {reply:?}"),
            () = heard.notified() => {}
        }
        vendor.until_hung_up().await;
    }
}

#[tokio::test]
async fn the_key_travels_as_the_vendor_wants_it() {
    for (kind, header, value) in [
        (Kind::OpenAi, "authorization", format!("Bearer {KEY}")),
        (Kind::Responses, "authorization", format!("Bearer {KEY}")),
        (Kind::Anthropic, "x-api-key", KEY.to_owned()),
        (Kind::Gemini, "x-goog-api-key", KEY.to_owned()),
    ] {
        let vendor = Vendor::start().await;
        vendor.answer(Answer::text("ok"));
        ask(&model(&vendor, kind, "m"), &asking("hi")).await.0.expect("an answer");
        let recorded = &vendor.requests()[0];
        assert_eq!(recorded.headers.get(header), Some(&value), "{kind:?}");
        assert!(!recorded.path.contains(KEY));
    }
    let server = Server {
        provider: "lab".to_owned(),
        kind: Kind::OpenAi,
        base_url: "http://x".to_owned(),
        key: Some("a b".to_owned()),
    };
    assert!(!format!("{server:?}").contains("a b"));
    assert!(matches!(Provider::new(server, "m", &settings()), Err(Error::Setup(_))));
}

#[tokio::test]
async fn a_redirect_does_not_carry_the_key_away() {
    let thief = Vendor::start().await;
    thief.answer(Answer::text("thanks"));
    // Another host by name, the same machine.
    let elsewhere = thief.url().replace("127.0.0.1", "localhost");
    let vendor = Vendor::start().await;
    vendor.answer(
        Answer::page(307, "text/plain", "over there").header("location", &format!("{elsewhere}/v1/messages")),
    );
    let (reply, _) = ask(&model(&vendor, Kind::Anthropic, "m"), &asking("hi")).await;
    assert!(matches!(reply, Err(Error::Rejected { status: 307, .. })), "{reply:?}");
    assert!(thief.requests().is_empty());
}

#[test]
fn base_urls_are_taken_with_and_without_version() {
    for (kind, given, wanted) in [
        (Kind::OpenAi, "http://127.0.0.1:4000", "http://127.0.0.1:4000/v1/"),
        (Kind::OpenAi, "http://127.0.0.1:4000/", "http://127.0.0.1:4000/v1/"),
        (Kind::OpenAi, "https://api.openai.com/v1", "https://api.openai.com/v1/"),
        (
            Kind::OpenAi,
            "https://x.example/openai/deployments/a/?api-version=1",
            "https://x.example/openai/deployments/a/?api-version=1",
        ),
        (Kind::Groq, "https://api.groq.com/openai/v1/", "https://api.groq.com/openai/v1/"),
        (Kind::Anthropic, "https://api.anthropic.com", "https://api.anthropic.com/v1/"),
        (Kind::Anthropic, "https://api.anthropic.com/v1", "https://api.anthropic.com/v1/"),
        (Kind::Anthropic, "https://proxy.example/anthropic/", "https://proxy.example/anthropic/v1/"),
        (
            Kind::Gemini,
            "https://generativelanguage.googleapis.com",
            "https://generativelanguage.googleapis.com/v1beta/",
        ),
        (Kind::Gemini, "https://x.example/v1beta", "https://x.example/v1beta/"),
        (Kind::Ollama, "0.0.0.0", "http://127.0.0.1:11434/"),
        (Kind::Ollama, "box:1234", "http://box:1234/"),
        (Kind::Ollama, "http://127.0.0.1:11434/v1", "http://127.0.0.1:11434/"),
        (Kind::Ollama, "https://ollama.example", "https://ollama.example/"),
    ] {
        assert_eq!(kind.base_url(given).as_deref(), Ok(wanted), "{kind:?} {given}");
    }
    assert!(Kind::OpenAi.base_url("ftp://x").is_err());
    assert!(Kind::OpenAi.base_url("http://").is_err());
}

fn unavailable(status: u16, retry_after: Option<u64>) -> Error {
    let retry_after = retry_after.map(Duration::from_secs);
    Error::Unavailable { provider: "lab".to_owned(), status, message: String::new(), retry_after }
}

#[test]
fn what_may_pass_is_tried_again_and_nothing_else() {
    let lab = || "lab".to_owned();
    let partial =
        |message| Error::Interrupted { provider: lab(), message: String::new(), partial: Box::new(message) };
    let limits = Limits::new(3);
    for (error, again) in [
        (unavailable(408, None), true),
        (unavailable(429, None), true),
        (unavailable(503, Some(59)), true),
        (unavailable(503, Some(61)), false),
        (Error::Network { provider: lab(), message: String::new() }, true),
        (Error::Silent { provider: lab(), waited: Duration::ZERO }, true),
        (partial(Message::of(Role::Assistant, vec![])), true),
        (partial(Message::assistant("half")), false),
        (Error::Unauthorized { provider: lab(), message: String::new() }, false),
        (Error::Rejected { provider: lab(), status: 400, message: String::new() }, false),
        (Error::Unreadable { provider: lab(), message: String::new() }, false),
        (Error::Setup(String::new()), false),
    ] {
        assert_eq!(retry::after(1, &error, 0.5, &limits).is_some(), again, "{error:?}");
        assert_eq!(retry::after(4, &error, 0.5, &limits), None, "{error:?}");
    }
    assert_eq!(retry::after(1, &unavailable(429, Some(7)), 0.9, &limits), Some(Duration::from_secs(7)));
}

proptest! {
    #[test]
    fn waits_are_bounded_and_do_not_shrink(attempt in 1_u32..2000, random in 0.0..=1.0_f64, retries in 0_u32..2000) {
        let limits = Limits::new(retries);
        match retry::after(attempt, &unavailable(500, None), random, &limits) {
            None => prop_assert!(attempt > retries),
            Some(wait) => {
                prop_assert!(wait <= limits.longest);
                prop_assert!(wait >= limits.first / 2);
                let next = retry::after(attempt + 1, &unavailable(500, None), random, &limits);
                prop_assert!(next.is_none_or(|next| next >= wait));
            }
        }
    }
}

fn patient(models: Vec<Provider>) -> Resilient {
    let mut models = models.into_iter().map(|model| Arc::new(model) as Arc<dyn Model>);
    let limits = Limits { retries: 2, first: Duration::from_millis(1), longest: Duration::from_secs(1) };
    Resilient::new(models.next().expect("a model"), models.collect(), limits)
}

fn notices(deltas: &[Delta]) -> Vec<&str> {
    deltas
        .iter()
        .filter_map(|delta| if let Delta::Notice(text) = delta { Some(text.as_str()) } else { None })
        .collect()
}

#[tokio::test]
async fn a_crowded_server_is_asked_again() {
    let vendor = Vendor::start().await;
    vendor.answer(Answer::status(429, "slow").header("retry-after", "0"));
    vendor.answer(Answer::status(503, "tired"));
    vendor.answer(Answer::text("there you go"));
    let model = patient(vec![model(&vendor, Kind::OpenAi, "m")]);
    let (reply, deltas) = ask(&model, &asking("hi")).await;
    assert_eq!(reply.expect("an answer").message.text(), "there you go");
    let notices = notices(&deltas);
    assert_eq!(notices.len(), 2, "{notices:?}");
    assert_eq!(notices[0], "lab answered 429; trying again in 0 s");
    assert!(notices[1].starts_with("lab answered 503; trying again in "), "{notices:?}");
}

#[tokio::test]
async fn the_next_model_steps_in_when_one_gives_no_answer() {
    let (first, second) = (Vendor::start().await, Vendor::start().await);
    first.answer(Answer::status(401, "who are you?"));
    second.answer(Answer::text("I am here"));
    let model = patient(vec![model(&first, Kind::Anthropic, "a"), model(&second, Kind::OpenAi, "b")]);
    assert_eq!(model.name(), "lab/a");
    let (reply, deltas) = ask(&model, &asking("hi")).await;
    assert_eq!(reply.expect("an answer").model, "lab/b");
    assert_eq!(notices(&deltas), ["lab refused the key; falling back to lab/b"]);
}

#[tokio::test]
async fn when_all_fail_the_first_failure_is_told() {
    let (first, second) = (Vendor::start().await, Vendor::start().await);
    first.answer(Answer::status(401, "who are you?"));
    second.answer(Answer::status(400, "nonsense"));
    let model = patient(vec![model(&first, Kind::Anthropic, "a"), model(&second, Kind::OpenAi, "b")]);
    let (reply, _) = ask(&model, &asking("hi")).await;
    assert!(matches!(reply, Err(Error::Unauthorized { .. })), "{reply:?}");
}

#[tokio::test]
async fn a_wait_that_is_too_long_is_not_waited() {
    let vendor = Vendor::start().await;
    vendor.answer(Answer::status(429, "slow").header("retry-after", "3600"));
    let model = patient(vec![model(&vendor, Kind::OpenAi, "m")]);
    let (reply, deltas) = ask(&model, &asking("hi")).await;
    assert!(matches!(reply, Err(Error::Unavailable { status: 429, .. })), "{reply:?}");
    assert_eq!(notices(&deltas), ["lab/m asks to wait 3600 s; more than 1 s is too long"]);
}

#[tokio::test]
async fn an_answer_that_was_begun_is_not_begun_again() {
    let (first, second) = (Vendor::start().await, Vendor::start().await);
    first.answer(Answer::text("one two three four").half());
    second.answer(Answer::text("never"));
    let model = patient(vec![model(&first, Kind::OpenAi, "a"), model(&second, Kind::OpenAi, "b")]);
    let (reply, deltas) = ask(&model, &asking("hi")).await;
    assert!(matches!(reply, Err(Error::Interrupted { .. })), "{reply:?}");
    assert_eq!(notices(&deltas), [""; 0]);
    assert_eq!((first.requests().len(), second.requests().len()), (1, 0));
}

/// Finds a model in an environment of these variables and a configuration of these servers.
async fn find(variables: &[(&str, &str)], providers: &str, name: &str) -> Result<Found, Error> {
    let providers: BTreeMap<String, config::Provider> = toml::from_str(providers).expect("TOML");
    let variables: BTreeMap<String, String> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let settings = config::Model { name: name.to_owned(), ..settings() };
    let env = |name: &str| variables.get(name).cloned();
    let model = detect::choose(&settings, &providers, &env).await?;
    let found = detect::describe(&settings, &providers, &env).await?;
    assert_eq!(model.name(), found.model);
    assert_eq!(model.window(), found.window);
    Ok(found)
}

// An address where no Ollama answers, whatever runs on this machine.
const NOBODY: (&str, &str) = ("OLLAMA_HOST", "http://127.0.0.1:9");

#[tokio::test]
async fn the_first_key_found_decides() {
    let keys: &[(&str, &str, &str)] = &[
        ("ANTHROPIC_API_KEY", "anthropic/", "https://api.anthropic.com/v1/"),
        ("OPENAI_API_KEY", "openai/", "https://api.openai.com/v1/"),
        ("GEMINI_API_KEY", "gemini/", "https://generativelanguage.googleapis.com/v1beta/"),
        ("GOOGLE_API_KEY", "gemini/", "https://generativelanguage.googleapis.com/v1beta/"),
        ("OPENROUTER_API_KEY", "openrouter/", "https://openrouter.ai/api/v1/"),
        ("DEEPSEEK_API_KEY", "deepseek/", "https://api.deepseek.com/v1/"),
        ("GROQ_API_KEY", "groq/", "https://api.groq.com/openai/v1/"),
        ("XAI_API_KEY", "xai/", "https://api.x.ai/v1/"),
        ("MISTRAL_API_KEY", "mistral/", "https://api.mistral.ai/v1/"),
    ];
    for (place, (variable, start, address)) in keys.iter().enumerate() {
        // All the later ones are set too, and an empty variable counts as none.
        let mut variables: Vec<_> = keys[place..].iter().map(|(variable, ..)| (*variable, "key")).collect();
        variables.extend(keys[..place].iter().map(|(variable, ..)| (*variable, "")));
        let found = find(&variables, "", "").await.expect("a model");
        assert!(found.model.starts_with(start), "{variable}: {found:?}");
        assert_eq!(found.address.as_deref(), Some(*address));
        assert_eq!(found.why, format!("`{variable}` is set"));
    }
    let found = find(&[NOBODY], "", "").await.expect("a model");
    assert_eq!((found.model.as_str(), found.address), ("offline", None));
}

#[tokio::test]
async fn an_ollama_that_answers_is_used_when_there_is_no_key() {
    let ollama = Vendor::start().await;
    ollama.models(&["nomic-embed-text:latest", "qwen3:8b"]);
    let host = ollama.url();
    let found = find(&[("OLLAMA_HOST", &host)], "", "").await.expect("a model");
    assert_eq!((found.model.as_str(), found.window), ("ollama/qwen3:8b", 8_192));
    let told = find(&[("OLLAMA_HOST", &host), ("OLLAMA_CONTEXT_LENGTH", "32768")], "", "ollama/x")
        .await
        .expect("a model");
    assert_eq!((told.model.as_str(), told.window), ("ollama/x", 32_768));
    let keyed = find(&[("OLLAMA_HOST", &host), ("XAI_API_KEY", "key")], "", "").await.expect("a model");
    assert!(keyed.model.starts_with("xai/"));
}

#[tokio::test]
async fn a_base_url_without_a_key_counts_and_its_first_model_is_taken() {
    let vendor = Vendor::start().await;
    vendor.models(&["qwen3-32b", "other"]);
    let url = vendor.openai_url();
    let found = find(&[("OPENAI_BASE_URL", &url)], "", "").await.expect("a model");
    assert_eq!(found.model, "openai/qwen3-32b");
    assert_eq!(found.why, "`OPENAI_BASE_URL` is set");
    let named = find(&[("OPENAI_BASE_URL", &url)], "", "openai/gpt-4o").await.expect("a model");
    assert_eq!((named.model.as_str(), named.address), ("openai/gpt-4o", Some(format!("{url}/"))));
    let silent = Vendor::start().await;
    let usual = find(&[("OPENAI_BASE_URL", &silent.openai_url())], "", "").await.expect("a model");
    assert!(usual.model.starts_with("openai/gpt"), "{usual:?}");
    let secret = url.replace("http://", "http://me:secret@");
    let hidden = find(&[("OPENAI_BASE_URL", &secret)], "", "openai/m").await.expect("a model");
    assert_eq!(hidden.address, Some(format!("{url}/")));
    let lab = format!("[lab]\nbase_url = \"{url}\"");
    let lab = find(&[NOBODY], &lab, "lab/org/model").await.expect("a model");
    assert_eq!(lab.model, "lab/org/model");
}

#[tokio::test]
async fn what_cannot_work_is_said_with_the_way_out() {
    let told = async |variables: &[(&str, &str)], providers: &str, name: &str| {
        find(variables, providers, name).await.expect_err("an error").to_string()
    };
    let unknown = told(&[], "", "antropic/claude").await;
    assert!(unknown.contains("Did you mean `anthropic`?") && unknown.contains("openrouter"), "{unknown}");
    let bare = told(&[], "", "gpt-4o").await;
    assert!(bare.contains("`openai/gpt-4o`"), "{bare}");
    let keyless = told(&[], "", "groq/x").await;
    assert!(keyless.contains("set `GROQ_API_KEY`"), "{keyless}");
    let kind = told(&[], "[lab]\nkind = \"soap\"\nbase_url = \"http://x\"", "lab/m").await;
    assert!(kind.contains("`soap`") && kind.contains("openai-responses"), "{kind}");
    let nowhere = told(&[], "[lab]\nkind = \"openai\"", "lab/m").await;
    assert!(nowhere.contains("`provider.lab` has no `base_url`"), "{nowhere}");
    let wrong = told(&[("OPENAI_BASE_URL", "ftp://x"), ("OPENAI_API_KEY", "k")], "", "").await;
    assert!(wrong.contains("the address of `openai`") && wrong.contains("ftp://x"), "{wrong}");
    let unset =
        told(&[], "[lab]\nbase_url = \"http://x\"\napi_key = \"env:NO_SUCH_KEY_HERE\"", "lab/m").await;
    assert!(unset.contains("`NO_SUCH_KEY_HERE`") && unset.contains("is not set"), "{unset}");
    let script = told(&[], "", "scripted:/nowhere.json").await;
    assert!(script.contains("/nowhere.json"), "{script}");
}

#[tokio::test]
async fn windows_follow_the_model_unless_they_are_told() {
    let window = async |name: &str| {
        find(&[("ANTHROPIC_API_KEY", "k"), ("OPENAI_API_KEY", "k")], "", name).await.expect("a model").window
    };
    assert_eq!(window("anthropic/claude-sonnet-5").await, 200_000);
    assert_eq!(window("openai/gpt-4.1-mini").await, 1_047_576);
    assert_eq!(window("openai/something-new").await, 128_000);
    let settings = config::Model { name: "openai/gpt-4o".to_owned(), window: 1234, ..settings() };
    let env = |_: &str| Some("k".to_owned());
    let model = detect::choose(&settings, &BTreeMap::new(), &env).await.expect("a model");
    assert_eq!(model.window(), 1234);
}

#[tokio::test]
async fn the_configured_fallback_steps_in() {
    let vendor = Vendor::start().await;
    vendor.answer(Answer::status(400, "no"));
    let url = vendor.openai_url();
    let settings = config::Model {
        name: "openai/gpt-4o".to_owned(),
        fallback: vec!["offline".to_owned()],
        ..settings()
    };
    let env = |name: &str| (name == "OPENAI_BASE_URL").then(|| url.clone());
    let model = detect::choose(&settings, &BTreeMap::new(), &env).await.expect("a model");
    let (reply, _) = ask(&*model, &asking("git.status")).await;
    assert_eq!(reply.expect("an answer").model, "offline");
}

#[tokio::test]
async fn a_script_is_played_step_by_step() {
    let script = r#"
        # Lines like this one are skipped.
        {"calls": [{"name": "git__status"}, {"name": "fs__read", "arguments": "{broken"}], "reasoning": "hm"}
        {"text": "two files", "expect": {"contains": "changed"}, "usage": {"input": 3, "output": 2}}
        {"error": {"kind": "unavailable", "status": 529, "retry_after": 0.5}}
        {"text": "cut", "stop": "length"}
    "#;
    let model = Scripted::parse("s.jsonl", script).expect("a script");
    let (reply, deltas) = ask(&model, &asking("go")).await;
    let message = reply.expect("an answer").message;
    assert_eq!(deltas, [Delta::Reasoning("hm".to_owned())]);
    let calls: Vec<_> = message.calls().cloned().collect();
    assert_eq!(calls[0].arguments, Arguments::from(json!({})));
    assert_eq!(calls[1].arguments, Arguments::Unreadable("{broken".to_owned()));
    let results = Message::results(calls.iter().map(|call| result(call, "2 changed")).collect());
    let reply =
        ask(&model, &request(vec![Message::user("go"), message, results])).await.0.expect("an answer");
    assert_eq!((reply.message.text().as_str(), reply.usage.expect("usage").total()), ("two files", 5));
    let (reply, _) = ask(&model, &asking("go")).await;
    assert!(matches!(reply, Err(Error::Unavailable { status: 529, retry_after: Some(_), .. })), "{reply:?}");
    assert_eq!(ask(&model, &asking("go")).await.0.expect("an answer").stop, Stop::Length);
    let used_up = ask(&model, &asking("go")).await.0.expect_err("an error").to_string();
    assert_eq!(used_up, "scripted:s.jsonl is used up: it has 4 steps and this is request 5");
}

#[tokio::test]
async fn a_script_can_begin_again() {
    let model = Scripted::parse("s", r#"[{"text": "a"}, {"text": "b", "loop": true}]"#).expect("a script");
    let mut said = String::new();
    for _ in 0..5 {
        said += &ask(&model, &asking("go")).await.0.expect("an answer").message.text();
    }
    assert_eq!(said, "ababa");
}

#[tokio::test]
async fn a_wrong_script_says_where() {
    let told = |text: &str| Scripted::parse("s", text).expect_err("an error").to_string();
    let unknown = told("{\"text\": \"a\"}\n{\"txt\": \"b\"}");
    assert!(unknown.starts_with("the script `s`, line 2: unknown field `txt`"), "{unknown}");
    let array = told("[\n{\"text\": \"a\"},\n{\"calls\": [{\"nam\": 1}]}]");
    assert!(array.starts_with("the script `s`, line 3: "), "{array}");
    let early = told("[{\"text\": \"a\", \"loop\": true}, {\"text\": \"b\"}]");
    assert!(early.contains("step 1: only the last step can `loop`"), "{early}");
    let model = Scripted::parse("s", r#"{"text": "x", "expect": {"contains": "tea"}}"#).expect("a script");
    let unmet = ask(&model, &asking("coffee, please")).await.0.expect_err("an error").to_string();
    assert_eq!(
        unmet,
        "scripted:s, step 1: the last message should contain `tea`, but it says: coffee, please"
    );
}

/// Everything that goes over the wire in these tests is read by the vendors' own types.
#[tokio::test]
async fn recorded_requests_are_valid_for_the_vendor() {
    let mut requests = Vec::new();
    let mut record = |vendor: &Vendor| requests.extend(vendor.requests());
    for (kind, name) in DIALECTS {
        let vendor = Vendor::start().await;
        let messages = play_two_rounds(&vendor, *kind, name).await;
        record(&vendor);
        // The same conversation, told to everybody else.
        for (other, name) in DIALECTS {
            let vendor = Vendor::start().await;
            vendor.answer(Answer::text("ok"));
            let server = Server {
                provider: "other".to_owned(),
                kind: *other,
                base_url: vendor.url(),
                key: Some(KEY.to_owned()),
            };
            let mut messages = messages.clone();
            messages.push(Message::of(
                Role::User,
                vec![
                    Part::text("and this?"),
                    Part::Image { mime: "image/png".to_owned(), data: "aGk=".to_owned() },
                ],
            ));
            let model = Provider::new(server, name, &config::Model { max_output: 500, ..settings() })
                .expect("a model");
            ask(&model, &request(messages)).await.0.expect("an answer");
            record(&vendor);
        }
        // A second try without a stream.
        let vendor = Vendor::start().await;
        vendor.answer(Answer::text(""));
        vendor.answer(Answer::text("ok"));
        let bare =
            Request { system: String::new(), messages: vec![Message::user("hi")], tools: Arc::from(vec![]) };
        ask(&model(&vendor, *kind, name), &bare).await.0.expect("an answer");
        record(&vendor);
    }
    vendor::check(&requests);
}

proptest! {
    #[test]
    fn a_base_url_that_was_brought_into_form_stays_as_it_is(
        text in prop_oneof![any::<String>(), "(https?://)?[a-z.]{1,9}(:[0-9]{2,4})?(/[a-z0-9]{0,6}){0,3}(\\?a=b)?"],
        kind in prop::sample::select(vec![Kind::OpenAi, Kind::Anthropic, Kind::Gemini, Kind::Ollama]),
    ) {
        if let Ok(once) = kind.base_url(&text) {
            prop_assert_eq!(kind.base_url(&once), Ok(once.clone()));
        }
    }
}

// Schemas of tools.

/// What is wrong with a schema for Gemini, or for the others.
fn faults(schema: &Value, kind: Kind, at: &str, out: &mut Vec<String>) {
    let Some(map) = schema.as_object() else { return };
    for (key, value) in map {
        let at = format!("{at}/{key}");
        match (key.as_str(), value) {
            ("properties", Value::Object(all)) => {
                all.iter().for_each(|(name, inner)| faults(inner, kind, &format!("{at}/{name}"), out));
            }
            ("type", Value::Array(_)) if kind == Kind::Gemini => out.push(at),
            ("enum", Value::Array(all)) if kind == Kind::Gemini && !all.iter().all(Value::is_string) => {
                out.push(at)
            }
            (
                "$ref"
                | "$defs"
                | "const"
                | "oneOf"
                | "allOf"
                | "not"
                | "if"
                | "then"
                | "else"
                | "$schema"
                | "additionalProperties"
                | "patternProperties",
                _,
            ) if kind == Kind::Gemini => out.push(at),
            (_, Value::Array(all)) => all.iter().for_each(|inner| faults(inner, kind, &at, out)),
            (_, inner) => faults(inner, kind, &at, out),
        }
    }
    if map.get("type").is_some_and(|kind| kind == "array") && !map.contains_key("items") {
        out.push(format!("{at}: no items"));
    }
}

#[test]
fn schemas_are_given_to_vendors_as_they_take_them() {
    let tree = json!({
        "type": "object",
        "properties": {"node": {"$ref": "#/$defs/node"}},
        "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}, "n": {"type": ["integer", "null"]}}}},
    });
    let forms = json!({"oneOf": [
        {"properties": {"path": {"type": "string"}}, "required": ["path"]},
        {"properties": {"url": {"const": "x"}, "count": {"enum": [1, 2]}}, "required": ["url"]},
    ]});
    let parts = json!({
        "$ref": "#/definitions/base",
        "definitions": {"base": {"allOf": [
            {"properties": {"a": {"type": "array"}}, "required": ["a"]},
            {"properties": {"b": {"oneOf": [{"type": "string"}, {"type": "number", "not": {"const": 3}}]}}},
        ], "additionalProperties": false}},
    });
    let rules =
        json!({"properties": {"x": {}}, "if": {"required": ["x"]}, "then": {}, "required": ["x", "gone"]});
    for schema in [&tree, &forms, &parts, &rules, &json!({}), &json!(true)] {
        for kind in [Kind::OpenAi, Kind::Anthropic, Kind::Gemini] {
            let fitted = Value::Object(omni::llm::schema::fitted(schema, kind));
            assert_eq!(fitted["type"], "object", "{fitted}");
            assert!(fitted["properties"].is_object(), "{fitted}");
            for key in ["oneOf", "anyOf", "allOf", "enum", "not"] {
                assert!(fitted.get(key).is_none(), "{kind:?} {key}: {fitted}");
            }
            let mut found = Vec::new();
            faults(&fitted, kind, "", &mut found);
            assert_eq!(found, Vec::<String>::new(), "{kind:?}: {fitted}");
        }
    }
    let fitted = Value::Object(omni::llm::schema::fitted(&forms, Kind::OpenAi));
    assert_eq!(fitted["description"], "Give path, or url.");
    assert_eq!(fitted["properties"].as_object().unwrap().len(), 3);
    // Names that are keywords elsewhere.
    let names = json!({"properties": {"definitions": {"type": "string"}, "$defs": {"type": "integer"}}});
    for kind in [Kind::OpenAi, Kind::Anthropic, Kind::Gemini] {
        let fitted = Value::Object(omni::llm::schema::fitted(&names, kind));
        assert_eq!(fitted["properties"], names["properties"], "{kind:?}");
    }
    let fitted = Value::Object(omni::llm::schema::fitted(&parts, Kind::Anthropic));
    assert_eq!((&fitted["required"], &fitted["properties"]["a"]["items"]), (&json!(["a"]), &json!({})));
}

#[tokio::test]
async fn a_tool_that_is_refused_is_left_out_and_the_others_are_not() {
    for words in [
        "Invalid schema for function 'fs__read': schema must be of type object",
        "tools.1.custom.input_schema: input_schema does not support oneOf",
        "* GenerateContentRequest.tools[0].function_declarations[1].parameters: bad schema",
    ] {
        let vendor = Vendor::launch();
        vendor.answer(Answer::status(400, words));
        vendor.answer(Answer::text("fine"));
        vendor.answer(Answer::text("still"));
        let model = model(&vendor, Kind::OpenAi, "m");
        let request = Request { tools: tools(), ..asking("hello") };
        let refused = request.tools[1].name.clone();
        let (reply, deltas) = ask(&model, &request).await;
        assert_eq!(reply.unwrap_or_else(|error| panic!("{words}: {error}")).message.text(), "fine");
        assert!(deltas.iter().any(|delta| matches!(delta, Delta::Notice(text) if text.contains(&refused))));
        ask(&model, &request).await.0.unwrap();
        let names = |at: usize| -> Vec<String> {
            let body = vendor.requests()[at].body.clone();
            let all = body["tools"].as_array().cloned().unwrap_or_default();
            all.iter().map(|tool| tool["function"]["name"].as_str().unwrap().to_owned()).collect()
        };
        assert!(names(0).contains(&refused) && !names(1).contains(&refused) && !names(2).contains(&refused));
        assert_eq!(names(1).len(), request.tools.len() - 1);
    }
}
