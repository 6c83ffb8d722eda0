//! An editor that has started omni, line by line: it answers as it is told to, and forgets nothing.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::omni::{Run, Started, World};

/// An editor that has started omni.
pub struct Editor {
    pub omni: Started,
    last: u64,
    /// What is said when a tool asks; `None` says nothing.
    pub permits: Option<&'static str>,
    /// What was asked.
    pub asked: Vec<Value>,
    /// The files it has open, by their paths.
    pub files: BTreeMap<String, String>,
    /// What it says when it is asked for any other file.
    pub refuses: Value,
    /// What a person writes in forms.
    pub fills: Value,
}

/// What came of a request: what was heard meanwhile, and the answer.
#[derive(Debug, Default)]
pub struct Heard {
    pub updates: Vec<Value>,
    pub answer: Value,
}

impl Heard {
    /// The updates of this kind.
    pub fn of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.updates.iter().filter(move |update| update["sessionUpdate"] == kind)
    }

    /// The answer's text.
    pub fn text(&self) -> String {
        self.of("agent_message_chunk").filter_map(|chunk| chunk["content"]["text"].as_str()).collect()
    }

    #[track_caller]
    pub fn stopped(&self, reason: &str) -> &Self {
        assert_eq!(self.answer["result"]["stopReason"], reason, "{}", self.answer);
        self
    }
}

impl Editor {
    pub fn start(run: Run) -> Self {
        Self::able(run, json!({}))
    }

    /// One that can do more than show text.
    pub fn able(run: Run, capabilities: Value) -> Self {
        let mut editor = Self {
            omni: run.talking().start(),
            last: 0,
            permits: Some("once"),
            asked: Vec::new(),
            files: BTreeMap::new(),
            refuses: json!({ "code": -32002, "message": "Resource not found" }),
            fills: json!({}),
        };
        let told = json!({ "protocolVersion": 1, "clientCapabilities": capabilities });
        let answer = editor.ask("initialize", told).answer;
        assert_eq!(answer["result"]["protocolVersion"], 1);
        editor
    }

    /// One that reads and writes files.
    pub fn with_files(run: Run) -> Self {
        Self::able(run, json!({ "fs": { "readTextFile": true, "writeTextFile": true } }))
    }

    /// Opens a file of the workspace, with words that are on no disk.
    pub fn open(&mut self, file: &Path, text: &str) {
        self.files.insert(file.display().to_string(), text.to_owned());
    }

    /// What the editor has in a file.
    pub fn has(&self, file: &Path) -> Option<&str> {
        self.files.get(&file.display().to_string()).map(String::as_str)
    }

    pub fn send(&mut self, message: &Value) {
        self.omni.say(&message.to_string());
    }

    /// The next message; every line is one.
    pub fn next(&mut self) -> Value {
        let line = self.omni.until("");
        let message: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(message["jsonrpc"], "2.0", "{line}");
        message
    }

    pub fn post(&mut self, method: &str, params: Value) -> u64 {
        self.last += 1;
        let id = self.last;
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
        id
    }

    /// Listens until the request has its answer.
    pub fn hear(&mut self, id: u64) -> Heard {
        let mut updates = Vec::new();
        loop {
            let message = self.next();
            match message["method"].as_str() {
                Some("session/update") => updates.push(message["params"]["update"].clone()),
                Some("session/request_permission") => {
                    self.asked.push(message["params"].clone());
                    let Some(option) = self.permits else { return Heard { updates, answer: message } };
                    let outcome = json!({ "outcome": { "outcome": "selected", "optionId": option } });
                    self.reply(&message["id"], Ok(outcome));
                }
                Some("fs/read_text_file") => {
                    let answer = self.read(&message["params"]);
                    self.reply(&message["id"], answer);
                }
                Some("fs/write_text_file") => {
                    let text = message["params"]["content"].as_str().expect("a text").to_owned();
                    self.files.insert(message["params"]["path"].as_str().expect("a path").to_owned(), text);
                    self.reply(&message["id"], Ok(Value::Null));
                }
                Some("elicitation/create") => {
                    self.asked.push(message["params"].clone());
                    let filled = json!({ "action": "accept", "content": self.fills });
                    self.reply(&message["id"], Ok(filled));
                }
                Some(other) => panic!("nobody asked for {other}"),
                None if message["id"] == id => return Heard { updates, answer: message },
                None => {}
            }
        }
    }

    fn read(&self, wanted: &Value) -> Result<Value, Value> {
        let text = self.files.get(wanted["path"].as_str().expect("a path"));
        let text = text.ok_or_else(|| self.refuses.clone())?;
        let skip = wanted["line"].as_u64().map_or(0, |line| line as usize - 1);
        let most = wanted["limit"].as_u64().map_or(usize::MAX, |limit| limit as usize);
        Ok(json!({ "content": text.split_inclusive('\n').skip(skip).take(most).collect::<String>() }))
    }

    /// Answers what the agent has asked.
    pub fn reply(&mut self, id: &Value, answer: Result<Value, Value>) {
        self.send(&match answer {
            Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
            Err(error) => json!({ "jsonrpc": "2.0", "id": id, "error": error }),
        });
    }

    pub fn ask(&mut self, method: &str, params: Value) -> Heard {
        let id = self.post(method, params);
        self.hear(id)
    }

    /// A new session in the workspace.
    pub fn session(&mut self, world: &World) -> String {
        let heard = self.ask("session/new", json!({ "cwd": world.work(), "mcpServers": [] }));
        heard.answer["result"]["sessionId"].as_str().unwrap_or_else(|| panic!("{}", heard.answer)).to_owned()
    }

    /// A session from before.
    pub fn load(&mut self, world: &World, session: &str) -> Heard {
        let known = json!({ "sessionId": session, "cwd": world.work(), "mcpServers": [] });
        self.ask("session/load", known)
    }

    /// What is chosen in a session.
    pub fn choose(&mut self, session: &str, option: &str, value: &str) -> Value {
        let chosen = json!({ "sessionId": session, "configId": option, "value": value });
        self.ask("session/set_config_option", chosen).answer
    }

    pub fn prompt(&mut self, session: &str, text: &str) -> Heard {
        self.ask("session/prompt", words(session, text))
    }

    /// Listens for the commands that come after a session has begun.
    pub fn commands(&mut self) -> Vec<Value> {
        loop {
            let update = self.next()["params"]["update"].clone();
            if update["sessionUpdate"] == "available_commands_update" {
                return update["availableCommands"].as_array().cloned().expect("a list");
            }
        }
    }
}

/// What is sent for a prompt of text.
pub fn words(session: &str, text: &str) -> Value {
    json!({ "sessionId": session, "prompt": [{ "type": "text", "text": text }] })
}

/// A script that writes a file.
pub fn writes() -> [Value; 2] {
    let arguments = json!({ "path": "a.txt", "content": "hello\n" });
    [
        json!({ "reasoning": "hm", "text": "I write it.", "calls": [{ "name": "fs__write", "arguments": arguments }] }),
        json!({ "text": "Done, one file." }),
    ]
}

/// Pieces of one message joined, and what is only told of a turn that goes on left out.
pub fn whole(updates: &[Value]) -> Vec<Value> {
    let mut whole: Vec<Value> = Vec::new();
    for update in updates {
        let kind = update["sessionUpdate"].as_str().unwrap_or_default();
        if ["usage_update", "session_info_update", "available_commands_update", "user_message_chunk"]
            .contains(&kind)
        {
            continue;
        }
        let piece = update["content"]["text"].as_str().filter(|_| kind.ends_with("_chunk"));
        match (piece, whole.last_mut()) {
            (Some(piece), Some(last)) if last["messageId"] == update["messageId"] => {
                let text = format!("{}{piece}", last["content"]["text"].as_str().expect("a text"));
                last["content"]["text"] = text.into();
            }
            _ => whole.push(update.clone()),
        }
    }
    whole
}
