//! Drives the client through the official conformance suite. What a user's file would describe is
//! connected to, and what a turn would call is called.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::auth::{Browser, Visit};
use super::config::{Entry, Variables};
use super::open::http;
use super::{Servers, Setting, Status, theirs};
use crate::message::event::Elicitation;
use crate::message::{Arguments, ToolCall};
use crate::tool::nested::Sample;
use crate::tool::{Call, Context, Error, Scope, Settings, Toolbox, Toolset};

/// What the server under test is called here.
const NAME: &str = "suite";
/// A tool of the suite that wants to be given the schema of another.
const ECHO: &str = "json_schema_echo";
/// A page that the suite takes for a description of us.
const PAGE: &str = "https://conformance-test.local/client-metadata.json";
/// The suite gives up after 30 s.
const PATIENCE: Duration = Duration::from_secs(25);

/// What the suite tells its clients.
pub struct Scenario {
    /// Which one it is.
    pub name: String,
    /// `client_id`, `toolCalls` and the like.
    pub context: Value,
}

/// Plays a scenario against the server at this address.
pub async fn play(url: &str, scenario: &Scenario, setting: &Setting, tools: Settings) -> Result<(), String> {
    let played = tokio::time::timeout(PATIENCE, connect(url, scenario, setting, tools)).await;
    played.unwrap_or_else(|_| Err(format!("it has not ended in {} s", PATIENCE.as_secs())))
}

async fn connect(url: &str, scenario: &Scenario, setting: &Setting, tools: Settings) -> Result<(), String> {
    let entry = Entry::new(NAME, Path::new("mcp.json"), described(url, scenario));
    let server = entry.server(&Variables { environment: &|_| None, workspace: &setting.cache })?;
    let servers = Arc::new(Servers::new([server], setting));
    servers.browse(&browser());
    match servers.try_out(NAME).await {
        Some(Status::Down { reason, .. }) => return Err(reason),
        Some(Status::Up) => {}
        other => return Err(format!("the server is {other:?}")),
    }
    let toolbox = Arc::new(Toolbox::new(vec![servers.clone() as Arc<dyn Toolset>], tools));
    // A server that has moved is found out by whoever comes again.
    let rounds = if scenario.name == "auth/authorization-server-migration" { 3 } else { 1 };
    for _ in 0..rounds {
        for (tool, arguments) in calls(&servers, scenario) {
            let told = |error: Error| format!("{tool}: {error}");
            let own = format!("{NAME}.{tool}");
            match scenario.context["toolCalls"].is_array() {
                // As they are, even where the schema has something against them.
                true => unchecked(&servers, &own, arguments).await.map_err(told)?,
                false => {
                    let call =
                        ToolCall { id: tool.clone(), name: own, arguments: Arguments::Object(arguments) };
                    toolbox.call(call, &scope(setting)).await.map_err(told)?;
                }
            }
        }
    }
    Ok(())
}

/// The entry of a file that describes the server.
fn described(url: &str, scenario: &Scenario) -> Map<String, Value> {
    let mut oauth = Map::from_iter([("clientMetadataUrl".to_owned(), json!(PAGE))]);
    let names = [
        ("client_id", "clientId"),
        ("client_secret", "clientSecret"),
        ("private_key_pem", "privateKey"),
        ("signing_algorithm", "algorithm"),
    ];
    for (theirs, ours) in names {
        if let Some(value) = scenario.context.get(theirs) {
            oauth.insert(ours.to_owned(), value.clone());
        }
    }
    if scenario.name.starts_with("auth/client-credentials") {
        oauth.insert("grantType".to_owned(), json!("client_credentials"));
    }
    Map::from_iter([("url".to_owned(), json!(url)), ("oauth".to_owned(), Value::Object(oauth))])
}

/// Goes to a page that sends everybody on at once.
fn browser() -> Browser {
    Arc::new(|visit: Visit| {
        async move {
            let answer = http()?.get(&visit.page).send().await.map_err(|error| error.to_string())?;
            let location = answer.headers().get("location").and_then(|value| value.to_str().ok());
            location
                .map(str::to_owned)
                .ok_or_else(|| format!("the page does not send us on: {}", answer.status()))
        }
        .boxed()
    })
}

/// What is called, with what.
fn calls(servers: &Servers, scenario: &Scenario) -> Vec<(String, Map<String, Value>)> {
    let object = |value: &Value| value.as_object().cloned().unwrap_or_default();
    if let Some(calls) = scenario.context["toolCalls"].as_array() {
        let name = |call: &Value| call["name"].as_str().unwrap_or_default().to_owned();
        return calls.iter().map(|call| (name(call), object(&call["arguments"]))).collect();
    }
    let mut calls = Vec::new();
    let specs = servers.specs();
    let echo = format!("{NAME}.{ECHO}");
    let echoes = specs.iter().any(|spec| spec.name == echo);
    // Where there is an echo, the others are there for their schemas.
    for spec in specs.iter().filter(|spec| !echoes || spec.name == echo) {
        let tool = &spec.name[NAME.len() + 1..];
        match tool {
            // To list skills is not to load them.
            theirs::TOOL if scenario.name.ends_with("no-prefetch") => {}
            theirs::TOOL => {
                for (skill, files) in servers.skills(NAME) {
                    calls.push((tool.to_owned(), object(&json!({"skill": skill}))));
                    let file = |file| (tool.to_owned(), object(&json!({"skill": skill, "file": file})));
                    calls.extend(files.into_iter().map(file));
                }
            }
            ECHO => {
                let other = specs.iter().find(|other| other.name != echo);
                let schema = other.map(|other| other.input.clone()).unwrap_or_default();
                calls.push((tool.to_owned(), object(&json!({ "schema": schema }))));
            }
            _ => calls.push((tool.to_owned(), plain(&spec.input))),
        }
    }
    calls
}

/// Values for what a schema requires.
fn plain(schema: &Value) -> Map<String, Value> {
    let value = |name: &Value| {
        let name = name.as_str()?;
        let value = match schema["properties"][name]["type"].as_str() {
            Some("number" | "integer") => json!(1),
            Some("boolean") => json!(true),
            Some("object") => json!({}),
            Some("array") => json!([]),
            _ => json!("test"),
        };
        Some((name.to_owned(), value))
    };
    schema["required"].as_array().into_iter().flatten().filter_map(value).collect()
}

/// A person who takes what is proposed, and a model that says something.
fn scope(setting: &Setting) -> Arc<Scope> {
    let asker = |question: Elicitation| {
        question.answer.give(Some(Map::new()));
    };
    let sampler = |Sample { prompt, .. }: Sample| async move { Ok(format!("You said: {prompt}")) }.boxed();
    let scope = Scope::new(setting.cache.clone());
    Arc::new(Scope { asker: Some(Arc::new(asker)), sampler: Some(Arc::new(sampler)), ..scope })
}

async fn unchecked(servers: &Servers, name: &str, arguments: Map<String, Value>) -> Result<(), Error> {
    let spec = servers.specs().into_iter().find(|spec| spec.name == name);
    let spec = spec.ok_or_else(|| Error::Failed("there is no such tool".to_owned()))?;
    let context = Context {
        id: name.to_owned(),
        session: None,
        workspace: Arc::default(),
        cancel: CancellationToken::new(),
        request: None,
        progress: Arc::new(|_| ()),
        logger: None,
        nested: None,
    };
    servers.call(Call { spec, arguments, context }).await.map(drop)
}
