//! Models: real HTTP against a server that plays vendor.

use std::sync::{Arc, Mutex};

use omni::config;
use omni::llm::catalog::Kind;
use omni::llm::{Delta, Error, Model, Provider, Reply, Request, Server, Stop, ToolDefinition};
use omni::message::{Arguments, Block, Message, Part, Role, ToolCall, ToolResult, Usage};
use serde_json::{Value, json};

use crate::support::vendor::{Answer, Dialect, Vendor};

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
        retries: 2,
        connect_timeout: 5.0,
        first_byte_timeout: 20.0,
        idle_timeout: 20.0,
    }
}

fn model(vendor: &Vendor, kind: Kind, name: &str) -> Provider {
    model_with(vendor, kind, name, &settings())
}

fn model_with(vendor: &Vendor, kind: Kind, name: &str, settings: &config::Model) -> Provider {
    let key = (kind != Kind::Ollama).then(|| KEY.to_owned());
    let server = Server { provider: "lab".to_owned(), kind, base_url: vendor.url(), key };
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
    };
    Arc::from(vec![
        tool("git__status", json!({ "type": "object" })),
        tool("fs__read", json!({ "type": "object", "properties": { "path": { "type": "string" } }, "required": ["path"] })),
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
    deltas.iter().filter_map(|delta| if let Delta::Text(text) = delta { Some(text.as_str()) } else { None }).collect()
}

fn result(call: &ToolCall, text: &str) -> ToolResult {
    ToolResult {
        call: call.id.clone(),
        name: call.name.clone(),
        content: vec![Block::text(text)],
        structured: None,
        is_error: false,
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
        let ids: std::collections::HashSet<_> = messages.iter().flat_map(Message::calls).map(|call| &call.id).collect();
        assert_eq!(ids.len(), 3, "{kind:?}: ids repeat");
    }
}
