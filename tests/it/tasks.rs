//! Calls that their server makes tasks: two servers with the same tools, both of this program. One is
//! started and of the older era, one is an address and of the newer.

use std::sync::{Arc, Mutex};

use omni::message::ToolCall;
use omni::message::event::{Elicitation, EventKind};
use omni::shutdown::Shutdown;
use omni::tool::{Error, Scope, Toolbox, result};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::mcp::{said, until};
use crate::support::omni::{OMNI, Started, World, write};
use crate::support::servers::{odd, servers};
use crate::support::tools::{self, PATIENCE};

const SCRIPT: &str = r#"
import asyncio
from pathlib import Path

from pydantic import BaseModel

from omni import Context, Failed, tool


class Name(BaseModel):
    name: str


class Place(BaseModel):
    place: str


@tool(read_only=True)
async def steps(ctx: Context) -> str:
    """Say how far it is."""
    await ctx.adetach(required=True)
    for step in range(3):
        ctx.progress(step, 3, f"step {step}")
        await asyncio.sleep(1)
    return "all of it"


@tool(read_only=True)
async def asks(ctx: Context) -> str:
    """Ask two things side by side, and then one more."""
    await ctx.adetach(required=True)
    name, place = await asyncio.gather(ctx.aelicit("Who?", Name), ctx.aelicit("Where?", Place))
    again = await ctx.aelicit("Who else?", Name)
    return f"{name.name} and {again.name} in {place.place}"


@tool(read_only=True)
async def fails(ctx: Context) -> str:
    """Fail."""
    await ctx.adetach(required=True)
    raise Failed("it is out of paper")


@tool(read_only=True)
async def breaks(ctx: Context) -> str:
    """Break."""
    await ctx.adetach(required=True)
    raise RuntimeError("a mistake")


@tool(read_only=True)
async def naps(ctx: Context, marker: str) -> str:
    """Sleep until it is cancelled, and write that down."""
    await ctx.adetach(required=True)
    Path(marker).write_text("asleep")
    try:
        await asyncio.sleep(600)
    finally:
        Path(marker).write_text("cancelled")
    return "awake"
"#;

const BOTH: [&str; 2] = ["near", "far"];

struct Both {
    toolbox: Arc<Toolbox>,
    shutdown: Shutdown,
    folder: TempDir,
    _far: Started,
    world: World,
}

impl Both {
    async fn new() -> Self {
        let world = World::new();
        let skill = world.skill("long", SCRIPT);
        // What is in a worker is killed, and cannot say that it was cancelled.
        let card = "---\nname: long\ndescription: Takes long.\nmetadata:\n  isolation: thread\n---\n";
        write(&skill.join("SKILL.md"), card);
        world.omni(["skill", "trust", "long"]).run().succeeded();
        let mut far = world.omni(["mcp", "--skill", "long", "--http", "127.0.0.1:0"]).start();
        let url = far.until("http://").trim().to_owned();
        let home = world.home();
        let near = json!({
            "command": OMNI, "args": ["mcp", "--skill", "long"], "cwd": world.work(),
            "env": {"OMNI_HOME": home, "HOME": home},
        });
        let folder = TempDir::new().unwrap();
        let (shutdown, servers) = servers(&[("near", near), ("far", json!({"url": url}))], folder.path());
        assert_eq!(servers.met(PATIENCE).await, Vec::<&str>::new(), "{:?}", servers.status());
        Self { toolbox: tools::toolbox(servers), shutdown, folder, _far: far, world }
    }

    async fn call(&self, server: &str, tool: &str, arguments: Value, scope: Scope) -> Result<String, Error> {
        let name = format!("{server}.{tool}");
        let call = ToolCall { id: "c1".into(), name, arguments: arguments.into() };
        let output = self.toolbox.call(call.clone(), &Arc::new(scope)).await?;
        Ok(result(&call, Ok(output)).text())
    }

    fn alone(&self) -> Scope {
        Scope::new(self.folder.path())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_looked_after_to_its_end() {
    let both = Both::new().await;
    for server in BOTH {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let events = heard.clone();
        let scope = Scope {
            events: Some(Arc::new(move |event| {
                if let EventKind::ToolProgress { message: Some(message), .. } = event {
                    events.lock().unwrap().push(message);
                }
            })),
            ..both.alone()
        };
        assert_eq!(both.call(server, "steps", json!({}), scope).await.unwrap(), "all of it", "{server}");
        let heard = heard.lock().unwrap().clone();
        assert!(heard.contains(&"step 1".to_owned()) && heard.contains(&"step 2".to_owned()), "{heard:?}");
        let failed = both.call(server, "fails", json!({}), both.alone()).await.unwrap_err();
        assert!(
            matches!(&failed, Error::Failed(reason) if reason.contains("out of paper")),
            "{server}: {failed}"
        );
        let failed = both.call(server, "breaks", json!({}), both.alone()).await.unwrap_err();
        assert!(matches!(failed, Error::Failed(_)) && !failed.to_string().contains("a mistake"), "{failed}");
    }
    both.shutdown.finish(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_task_asks_is_answered_once() {
    let both = Both::new().await;
    for server in BOTH {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = asked.clone();
        let asker = move |question: Elicitation| {
            let answer = match question.message.as_str() {
                "Who?" => json!({"name": "Ada"}),
                "Who else?" => json!({"name": "Grace"}),
                _ => json!({"place": "Rome"}),
            };
            question.answer.give(answer.as_object().cloned());
            heard.lock().unwrap().push(question.message);
        };
        let scope = Scope { asker: Some(Arc::new(asker)), ..both.alone() };
        let said = both.call(server, "asks", json!({}), scope).await.unwrap();
        assert_eq!(said, "Ada and Grace in Rome", "{server}");
        asked.lock().unwrap().sort();
        assert_eq!(*asked.lock().unwrap(), ["Where?", "Who else?", "Who?"], "{server}");
    }
    both.shutdown.finish(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_slow_to_hear_is_answered_once_and_one_that_forgets_is_told_of() {
    let folder = TempDir::new().unwrap();
    let (shutdown, servers) = servers(&[("odd", odd(&["task"]))], folder.path());
    assert_eq!(servers.met(PATIENCE).await, Vec::<&str>::new(), "{:?}", servers.status());
    let toolbox = tools::toolbox(servers);
    let asked = Arc::new(Mutex::new(0));
    let count = asked.clone();
    let asker = move |question: Elicitation| {
        question.answer.give(Some(serde_json::Map::new()));
        *count.lock().unwrap() += 1;
    };
    let scope = Arc::new(Scope { asker: Some(Arc::new(asker)), ..Scope::new(folder.path()) });
    let call = |text: &str| {
        let arguments = json!({ "text": text }).into();
        let call = ToolCall { id: "c1".into(), name: "odd.odd".into(), arguments };
        let (toolbox, scope) = (toolbox.clone(), scope.clone());
        async move { toolbox.call(call.clone(), &scope).await.map(|output| result(&call, Ok(output)).text()) }
    };
    assert_eq!(call("work").await.unwrap(), "answered 1 times");
    assert_eq!(*asked.lock().unwrap(), 1);
    let failed = call("forget").await.unwrap_err().to_string();
    assert!(failed.contains("no such task"), "{failed}");
    shutdown.finish(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_nobody_wants_any_more_is_cancelled() {
    let both = Both::new().await;
    for server in BOTH {
        let marker = both.world.work().join(server);
        let scope = both.alone();
        let cancel = scope.cancel.clone();
        let asleep = async {
            let marker = marker.clone();
            let seen = move || until("it is asleep", || said(&marker) == "asleep");
            tokio::task::spawn_blocking(seen).await.unwrap();
            cancel.cancel();
        };
        let (ended, ()) = tokio::join!(both.call(server, "naps", json!({"marker": marker}), scope), asleep);
        assert_eq!(ended, Err(Error::Cancelled), "{server}");
        let woken = || until(&format!("{server} was told"), || said(&marker) == "cancelled");
        tokio::task::block_in_place(woken);
    }
    both.shutdown.finish(PATIENCE).await;
}
