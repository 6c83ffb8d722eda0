//! Servers that others wrote: list, call, error, other tools, the end.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use omni::config;
use omni::mcp::{Servers, Status};
use omni::message::ToolCall;
use omni::tool::{Policy, Scope, Settings, Toolbox, Toolset, result};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::mcp::until;
use crate::support::peers::{node, package, python};
use crate::support::servers::{self, free};
use crate::support::tools::{self, PATIENCE};

/// Servers that run and are not ours to start; they end with the test.
struct Running(Vec<Child>);

impl Running {
    /// Starts one that listens on this port.
    fn start(&mut self, command: &mut Command, port: u16) {
        self.0.push(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        until("it listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn everything() -> Command {
    let mut command = Command::new(node());
    command.arg(package("@modelcontextprotocol/server-everything/dist/index.js"));
    command
}

fn fast() -> Command {
    let mut command = Command::new(python("new", "python"));
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/servers/fast.py"));
    command
}

/// How a file describes a program.
fn described(command: &Command, more: &[&str]) -> Value {
    let mut words: Vec<_> = command.get_args().map(|word| word.to_str().unwrap().to_owned()).collect();
    words.extend(more.iter().map(|word| (*word).to_owned()));
    json!({"command": command.get_program().to_str().unwrap(), "args": words, "roots": false})
}

fn npm(name: &str, more: &[&str]) -> Value {
    let mut command = Command::new(node());
    command.arg(package(&format!("@modelcontextprotocol/{name}/dist/index.js")));
    described(&command, more)
}

struct Peers {
    servers: Arc<Servers>,
    toolbox: Arc<Toolbox>,
}

impl Peers {
    /// Waits until all of them are there.
    async fn met(servers: Arc<Servers>) -> Self {
        assert_eq!(servers.met(PATIENCE).await, Vec::<&str>::new());
        let down: Vec<_> =
            servers.status().into_iter().filter(|(_, status, _)| *status != Status::Up).collect();
        assert!(down.is_empty(), "{down:?}");
        let policy =
            Policy::new(&config::Policy { allow: vec!["*".to_owned()], ask: vec![], deny: vec![] }, true)
                .unwrap();
        let sets: Vec<Arc<dyn Toolset>> = vec![servers.clone()];
        let toolbox = Arc::new(Toolbox::new(sets, Settings { policy, ..tools::settings() }));
        Self { toolbox, servers }
    }

    async fn call(&self, tool: &str, arguments: Value) -> Result<String, String> {
        let call = ToolCall { id: "c".into(), name: tool.into(), arguments: arguments.into() };
        let outcome = self.toolbox.call(call.clone(), &Arc::new(Scope::new("/"))).await;
        outcome.map(|output| result(&call, Ok(output)).text()).map_err(|error| error.to_string())
    }

    /// Calls a tool that has this to say.
    async fn says(&self, tool: &str, arguments: Value, words: &str) {
        let said = self.call(tool, arguments).await;
        assert!(said.as_ref().is_ok_and(|said| said.contains(words)), "{tool}: {said:?}");
    }

    /// Calls a tool that fails with these words.
    async fn fails(&self, tool: &str, arguments: Value, words: &str) {
        let said = self.call(tool, arguments).await;
        assert!(said.as_ref().is_err_and(|said| said.contains(words)), "{tool}: {said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn programs() {
    let folder = TempDir::new().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(folder.path().join("note.txt"), "remember").unwrap();
    let git = Command::new("git").args(["init", "--quiet", &file("repo")]).status().unwrap();
    assert!(git.success());
    let mut memory = npm("server-memory", &[]);
    memory["env"] = json!({"MEMORY_FILE_PATH": file("memory.json")});
    let plain =
        |set: &str, program: &str, more: &[&str]| described(&Command::new(python(set, program)), more);
    let all = [
        ("everything", described(&everything(), &["stdio"])),
        ("files", npm("server-filesystem", &[folder.path().to_str().unwrap()])),
        ("memory", memory),
        ("clock", plain("new", "mcp-server-time", &[])),
        ("repo", plain("new", "mcp-server-git", &["--repository", &file("repo")])),
        ("pages", plain("new", "mcp-server-fetch", &[])),
        ("rows", plain("old", "mcp-server-sqlite", &["--db-path", &file("rows.db")])),
        ("fast", described(&fast(), &["stdio"])),
    ];
    let (shutdown, servers) = servers::servers(&all, folder.path());
    let peers = Peers::met(servers).await;
    let counts: Vec<_> = peers.servers.status().into_iter().map(|(name, _, tools)| (name, tools)).collect();
    let counted = [
        ("clock", 2),
        ("everything", 16),
        ("fast", 3),
        ("files", 14),
        ("memory", 9),
        ("pages", 1),
        ("repo", 12),
        ("rows", 6),
    ];
    assert_eq!(counts, counted);
    let repo = file("repo");
    peers.says("everything.echo", json!({"message": "hi"}), "Echo: hi").await;
    peers.says("files.read_text_file", json!({"path": file("note.txt")}), "remember").await;
    peers.says("memory.read_graph", json!({}), "entities").await;
    peers.says("clock.get_current_time", json!({"timezone": "UTC"}), "UTC").await;
    peers.says("repo.git_status", json!({"repo_path": repo}), "No commits yet").await;
    peers.says("rows.list_tables", json!({}), "[]").await;
    peers.says("rows.read_query", json!({"query": "SELECT nope"}), "no such column").await;
    peers.says("fast.add", json!({"a": 2, "b": 3}), "5").await;
    let bad = json!({"resourceType": "Text", "resourceId": -1});
    peers.fails("everything.get-resource-reference", bad, "Invalid resourceId").await;
    peers.fails("files.read_text_file", json!({"path": "/etc/passwd"}), "Access denied").await;
    let nobody = json!({"observations": [{"entityName": "nobody", "contents": ["x"]}]});
    peers.fails("memory.add_observations", nobody, "not found").await;
    peers.fails("clock.get_current_time", json!({"timezone": "Nowhere/X"}), "Invalid timezone").await;
    peers.fails("repo.git_status", json!({"repo_path": "/etc"}), "outside").await;
    peers.fails("pages.fetch", json!({"url": "http://127.0.0.1:9/"}), "not a public address").await;
    peers.fails("fast.fails", json!({}), "the moon is not up").await;
    assert!(shutdown.finish(PATIENCE).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses() {
    let mut running = Running(Vec::new());
    let ports: Vec<u16> = (0..5).map(|_| free()).collect();
    running.start(everything().arg("sse").env("PORT", ports[0].to_string()), ports[0]);
    running.start(everything().arg("streamableHttp").env("PORT", ports[1].to_string()), ports[1]);
    running.start(fast().args(["http", &ports[2].to_string()]), ports[2]);
    running.start(fast().args(["sse", &ports[3].to_string()]), ports[3]);
    let mut proxy = Command::new(python("old", "mcp-proxy"));
    proxy.args(["--port", &ports[4].to_string(), "--"]).arg(python("new", "mcp-server-time"));
    running.start(&mut proxy, ports[4]);
    let at = |port: usize, path: &str| json!({"url": format!("http://127.0.0.1:{}/{path}", ports[port])});
    let mut named = at(3, "sse");
    named["type"] = json!("sse");
    let all = [
        ("everything-sse", at(0, "sse")),
        ("everything-http", at(1, "mcp")),
        ("fast-http", at(2, "mcp")),
        // What it speaks is found out, or said.
        ("fast-sse", at(3, "sse")),
        ("fast-named", named),
        ("proxy-http", at(4, "mcp")),
        ("proxy-sse", at(4, "sse")),
    ];
    let folder = TempDir::new().unwrap();
    let (shutdown, servers) = servers::servers(&all, folder.path());
    let peers = Peers::met(servers).await;
    for name in ["everything-sse", "everything-http"] {
        peers.says(&format!("{name}.echo"), json!({"message": "hi"}), "Echo: hi").await;
        let bad = json!({"resourceType": "Text", "resourceId": -1});
        peers.fails(&format!("{name}.get-resource-reference"), bad, "Invalid resourceId").await;
    }
    for name in ["fast-http", "fast-sse", "fast-named"] {
        peers.says(&format!("{name}.add"), json!({"a": 2, "b": 3}), "5").await;
        peers.fails(&format!("{name}.fails"), json!({}), "the moon is not up").await;
    }
    for name in ["proxy-http", "proxy-sse"] {
        peers.says(&format!("{name}.get_current_time"), json!({"timezone": "UTC"}), "UTC").await;
        peers
            .fails(&format!("{name}.get_current_time"), json!({"timezone": "Nowhere/X"}), "Invalid timezone")
            .await;
    }
    assert!(shutdown.finish(PATIENCE).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_tools_are_heard_of() {
    let mut running = Running(Vec::new());
    let ports = [free(), free()];
    running.start(fast().args(["http", &ports[0].to_string()]), ports[0]);
    running.start(fast().args(["sse", &ports[1].to_string()]), ports[1]);
    let at = |port: u16, path: &str| json!({"url": format!("http://127.0.0.1:{port}/{path}")});
    let all = [
        ("program", described(&fast(), &["stdio"])),
        ("http", at(ports[0], "mcp")),
        ("sse", at(ports[1], "sse")),
    ];
    let folder = TempDir::new().unwrap();
    let (shutdown, servers) = servers::servers(&all, folder.path());
    let peers = Peers::met(servers.clone()).await;
    for (name, _) in &all {
        peers.says(&format!("{name}.grows"), json!({}), "grown").await;
        let late = format!("{name}.late");
        let heard = async {
            while !servers.specs().iter().any(|spec| spec.name == late) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, heard).await.unwrap_or_else(|_| panic!("{late} is not heard of"));
    }
    assert!(shutdown.finish(PATIENCE).await);
}
