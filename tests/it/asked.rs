//! What servers of others ask for while they work: the person, the model, the folders.

use std::sync::{Arc, Mutex};

use futures::FutureExt;
use omni::mcp::Servers;
use omni::message::ToolCall;
use omni::message::event::Elicitation;
use omni::shutdown::Shutdown;
use omni::tool::nested::Sample;
use omni::tool::{Error, Scope, Toolbox, result};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::mcp::said;
use crate::support::omni::{World, write};
use crate::support::servers::{Remote, fixture, odd, servers};
use crate::support::tools::{self, PATIENCE};

/// Two servers with the same tools: one is started and of the older era, one is remote and of the
/// newer.
struct Both {
    toolbox: Arc<Toolbox>,
    shutdown: Shutdown,
    folder: TempDir,
    _remote: Remote,
}

const BOTH: [&str; 2] = ["near", "far"];

impl Both {
    async fn new() -> Self {
        let remote = Remote::start("asks.py");
        let folder = TempDir::new().unwrap();
        let described = [("near", fixture(&["asks.py"])), ("far", remote.described())];
        let (shutdown, servers) = servers(&described, folder.path());
        Self { toolbox: met(servers).await, shutdown, folder, _remote: remote }
    }

    /// A scope of a session whose person and model answer like this. What the person is asked is
    /// written down.
    fn scope(&self, answer: Option<Value>) -> (Scope, Arc<Mutex<Vec<Elicitation>>>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = asked.clone();
        let asker = move |question: Elicitation| {
            let answer = answer.as_ref().map(|answer| answer.as_object().unwrap().clone());
            question.answer.give(answer);
            heard.lock().unwrap().push(question);
        };
        let sampler = |Sample { system, prompt }: Sample| {
            async move {
                match prompt.as_str() {
                    "fail" => Err(Error::Failed("no connection".to_owned())),
                    _ => Ok(format!("{prompt}! {system:?}")),
                }
            }
            .boxed()
        };
        let scope = Scope {
            session: Some("s1".to_owned()),
            asker: Some(Arc::new(asker)),
            sampler: Some(Arc::new(sampler)),
            ..Scope::new(self.folder.path())
        };
        (scope, asked)
    }

    async fn call(&self, tool: &str, arguments: Value, scope: Scope) -> Result<String, Error> {
        run(&self.toolbox, tool, arguments, scope).await
    }
}

/// The tools of these servers, once they are there.
async fn met(servers: Arc<Servers>) -> Arc<Toolbox> {
    assert_eq!(servers.met(PATIENCE).await, Vec::<&str>::new(), "{:?}", servers.status());
    tools::toolbox(servers)
}

async fn run(toolbox: &Arc<Toolbox>, tool: &str, arguments: Value, scope: Scope) -> Result<String, Error> {
    let call = ToolCall { id: "c1".into(), name: tool.into(), arguments: arguments.into() };
    let output = toolbox.call(call.clone(), &Arc::new(scope)).await?;
    Ok(result(&call, Ok(output)).text())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_person_is_asked_in_both_eras() {
    let both = Both::new().await;
    for server in BOTH {
        let tool = format!("{server}.orders");
        let which = json!({"message": "Which one?"});
        let (scope, asked) = both.scope(Some(json!({"name": "Ada", "size": "large"})));
        let said = both.call(&tool, which.clone(), scope).await.unwrap();
        assert_eq!(said, "Order(name='Ada', size='large', count=1)", "{server}");
        {
            let asked = asked.lock().unwrap();
            assert_eq!((asked.len(), asked[0].tool.as_str()), (1, tool.as_str()));
            assert_eq!((asked[0].call.as_str(), asked[0].message.as_str()), ("c1", "Which one?"));
            assert_eq!(asked[0].schema["properties"]["size"]["enum"], json!(["small", "large"]));
        }
        let (scope, _) = both.scope(None);
        assert_eq!(both.call(&tool, which.clone(), scope).await.unwrap(), "decline", "{server}");
        // An answer that does not fit is none, and so is that of nobody.
        let (scope, _) = both.scope(Some(json!({"name": "Ada", "size": "huge"})));
        assert_eq!(both.call(&tool, which.clone(), scope).await.unwrap(), "cancel", "{server}");
        let scope = Scope::new(both.folder.path());
        assert_eq!(both.call(&tool, which, scope).await.unwrap(), "cancel", "{server}");
    }
    both.shutdown.finish(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_model_is_asked_in_both_eras() {
    let both = Both::new().await;
    for server in BOTH {
        let tool = format!("{server}.thinks");
        let (scope, _) = both.scope(None);
        let said = both.call(&tool, json!({"text": "hi"}), scope.clone()).await.unwrap();
        assert_eq!(said, "hi! Some(\"Be terse.\")", "{server}");
        let failed = both.call(&tool, json!({"text": "fail"}), scope).await.unwrap_err().to_string();
        assert!(failed.contains("no connection"), "{server}: {failed}");
        let alone = Scope::new(both.folder.path());
        let failed = both.call(&tool, json!({"text": "hi"}), alone).await.unwrap_err().to_string();
        assert!(failed.contains("no model"), "{server}: {failed}");
    }
    both.shutdown.finish(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_may_know_the_folder_and_an_address_may_not() {
    let both = Both::new().await;
    let (scope, _) = both.scope(None);
    let said = both.call("near.looks", json!({}), scope.clone()).await.unwrap();
    let folder = both.folder.path().join("workspace");
    assert!(said.contains(&format!("workspace: file://{}", folder.display())), "{said}");
    let refused = both.call("far.looks", json!({}), scope).await.unwrap_err().to_string();
    assert!(refused.contains("roots"), "{refused}");
    both.shutdown.finish(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_reaches_nobody_elses_person() {
    let folder = TempDir::new().unwrap();
    let (shutdown, servers) = servers(&[("odd", odd(&["asks"]))], folder.path());
    let toolbox = met(servers).await;
    let scope = |session: &str| {
        let asker = |question: Elicitation| {
            question.answer.give(Some(serde_json::Map::new()));
        };
        Scope { session: Some(session.to_owned()), asker: Some(Arc::new(asker)), ..Scope::new(folder.path()) }
    };
    let ask = |session: &str| {
        let (toolbox, scope) = (toolbox.clone(), scope(session));
        async move { run(&toolbox, "odd.odd", json!({}), scope).await.unwrap() }
    };
    // It asks when as many are waiting as its argument says, and says what it was answered.
    assert_eq!(ask("one").await, "accept");
    let wait = |session: &str| {
        let (toolbox, scope) = (toolbox.clone(), scope(session));
        async move { run(&toolbox, "odd.odd", json!({"text": "2"}), scope).await.unwrap() }
    };
    let same = tokio::join!(wait("one"), wait("one"));
    assert_eq!((same.0.as_str(), same.1.as_str()), ("accept", "accept"));
    let (one, two) = tokio::join!(wait("one"), wait("two"));
    assert!(one.contains("which of several callers") && one == two, "{one} {two}");
    shutdown.finish(PATIENCE).await;
}

#[test]
fn what_a_server_logs_goes_to_the_log() {
    let world = World::new();
    let servers = json!({"mcpServers": {"near": fixture(&["asks.py"])}}).to_string();
    write(&world.home().join("config/mcp.json"), &servers);
    world.omni(["tool", "call", "near.logs"]).run().succeeded();
    let logs = std::fs::read_dir(world.home().join("state")).unwrap();
    let log: String = logs.map(|entry| said(&entry.unwrap().path())).collect();
    assert!(log.contains("a warning of the server") && log.contains("a error of the server"), "{log}");
    assert!(log.contains("server=\"near\"") && !log.contains("a info of the server"), "{log}");
}
