//! Clients of the server that `omni mcp` is.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::omni::{Started, World};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client that shows every line. Whatever is no message fails the test.
pub struct Client {
    pub server: Started,
    next: u64,
    /// What arrived while an answer was waited for.
    pub told: Vec<Value>,
}

impl Client {
    pub fn start(world: &World, arguments: &[&str]) -> Self {
        let server = world.omni([&["mcp"], arguments].concat()).talking().start();
        Self::on(server)
    }

    /// A client of a server that was started already.
    pub fn on(server: Started) -> Self {
        Self { server, next: 0, told: Vec::new() }
    }

    /// A client of the older era that has shaken hands.
    pub fn greeted(world: &World, arguments: &[&str]) -> Self {
        let mut client = Self::start(world, arguments);
        let answer = client.initialize("2025-11-25");
        assert_eq!(answer["result"]["protocolVersion"], "2025-11-25", "{answer}");
        client.say(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        client
    }

    /// The same client when it has shaken hands.
    pub fn introduced(mut self) -> Self {
        self.initialize("2025-11-25");
        self.say(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        self
    }

    pub fn initialize(&mut self, version: &str) -> Value {
        let client = json!({"name": "test", "version": "1"});
        self.ask("initialize", json!({"protocolVersion": version, "capabilities": {}, "clientInfo": client}))
    }

    pub fn say(&mut self, message: &Value) {
        self.server.say(&message.to_string());
    }

    pub fn read(&mut self) -> Value {
        let line = self.server.until("\n");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?} is no message"))
    }

    /// Sends a request and returns its id.
    pub fn begin(&mut self, method: &str, params: Value) -> u64 {
        self.next += 1;
        let id = self.next;
        self.say(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        id
    }

    /// Waits for the answer to a request.
    pub fn answer(&mut self, id: u64) -> Value {
        loop {
            let message = self.read();
            if message["id"] == id {
                return message;
            }
            self.told.push(message);
        }
    }

    pub fn ask(&mut self, method: &str, params: Value) -> Value {
        let id = self.begin(method, params);
        self.answer(id)
    }

    /// Calls a tool that answers with a result.
    pub fn call(&mut self, tool: &str, arguments: Value) -> Value {
        let answer = self.ask("tools/call", json!({"name": tool, "arguments": arguments}));
        assert!(answer["result"].is_object(), "{answer}");
        answer["result"].clone()
    }

    /// Waits for a notification.
    pub fn hears(&mut self, method: &str) -> Value {
        loop {
            if let Some(at) = self.told.iter().position(|message| message["method"] == method) {
                return self.told.remove(at);
            }
            let message = self.read();
            self.told.push(message);
        }
    }

    pub fn tools(&mut self) -> Vec<Value> {
        let answer = self.ask("tools/list", json!({}));
        answer["result"]["tools"].as_array().expect("a list").clone()
    }
}

pub fn text(result: &Value) -> &str {
    result["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text in {result}"))
}

pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a file says by now; nothing if it is not there.
pub fn said(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_default()
}

/// The Python that has the packages tests need.
pub fn python() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    std::env::var_os("OMNI_TEST_PYTHON").map_or(own, Into::into)
}

/// Where what is written in JavaScript is installed, with the Node it runs on.
pub fn node() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join(".node");
    std::env::var_os("OMNI_TEST_NODE").map_or(own, Into::into).join("node_modules")
}

/// Runs a client of `tests/clients` with the program's command line.
pub fn client(script: &str, world: &World, arguments: &[&str]) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python =
        std::env::var_os("OMNI_TEST_PYTHON").map_or_else(|| here.join(".venv/bin/python"), Into::into);
    let mut command = Command::new(python);
    command.arg(here.join("tests/clients").join(script)).args(arguments).current_dir(world.work());
    command.env("OMNI_HOME", world.home()).env("OMNI_MODEL__NAME", "offline");
    let output = command.output().expect("Python runs");
    let told =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "{told}");
}
