//! Servers of others: how they are described, those that run, and their tools in this process.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use omni::mcp::config::{Entry, Server, Variables};
use omni::mcp::{Servers, Setting};
use omni::shutdown::Shutdown;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::mcp::{python, until};

/// How a server of `tests/fixtures/servers` is described.
pub fn fixture(arguments: &[&str]) -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/servers").join(arguments[0]);
    let arguments: Vec<_> = [&[file.to_str().unwrap()], &arguments[1..]].concat();
    json!({"command": python(), "args": arguments})
}

/// A server that is wrong in one way.
pub fn odd(kind: &[&str]) -> Value {
    fixture(&[&["odd.py"], kind].concat())
}

/// The same with more fields.
pub fn with(mut server: Value, more: Value) -> Value {
    server.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    server
}

/// A server of `tests/fixtures/servers` that speaks HTTP, at an address of its own. The script may be
/// followed by how it is served, and more words.
pub struct Remote {
    child: Child,
    pub port: u16,
}

impl Remote {
    pub fn start(script: &str) -> Self {
        Self::at(script, free())
    }

    pub fn at(script: &str, port: u16) -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/servers").join(script);
        let mut command = Command::new(python());
        let mut words = script.split(' ');
        let file = file.with_file_name(words.next().unwrap());
        command.arg(file).arg(words.next().unwrap_or("http")).arg(port.to_string()).args(words);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        until("it listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { child, port }
    }

    /// What is answered to a GET: the status, where it sends to, and the text.
    pub fn get(url: &str) -> (u16, Option<String>, String) {
        let rest = url.strip_prefix("http://").unwrap();
        let (host, path) = rest.split_once('/').unwrap();
        let mut stream = TcpStream::connect(host).unwrap();
        write!(stream, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let location = head.lines().find_map(|line| line.strip_prefix("Location: ")).map(str::to_owned);
        (head.split(' ').nth(1).unwrap().parse().unwrap(), location, body.to_owned())
    }

    pub fn described(&self) -> Value {
        json!({"url": format!("http://127.0.0.1:{}/mcp", self.port)})
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that nobody listens on.
pub fn free() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What such a description means for who works in this folder.
pub fn meant(name: &str, described: &Value, workspace: &Path) -> Server {
    let entry = Entry::new(name, Path::new("mcp.json"), described.as_object().unwrap().clone());
    let variables = Variables { environment: &|name| std::env::var(name).ok(), workspace };
    entry.server(&variables).unwrap()
}

/// These servers, as this process would use them. They end with what is returned first.
pub fn servers(servers: &[(&str, Value)], folder: &Path) -> (Shutdown, Arc<Servers>) {
    let workspace = folder.join("workspace");
    std::fs::create_dir_all(&workspace).unwrap();
    let shutdown = Shutdown::default();
    let setting = Setting {
        cache: folder.join("cache"),
        accounts: folder.join("accounts"),
        listed: watch::Sender::new(()),
        shutdown: shutdown.clone(),
    };
    let servers = servers.iter().map(|(name, described)| meant(name, described, &workspace));
    (shutdown, Arc::new(Servers::new(servers, &setting)))
}
