//! What an editor is shown of a turn, the same while it goes on and when it is read again.
//!
//! Ids are made of what is stored: the turn's id, the number of the message in it, the id of the
//! call. So what is read again has the ids that it had at first.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use agent_client_protocol::v1::schema::{
    AvailableCommand, AvailableCommandsUpdate, ContentBlock, ContentChunk, Diff, ImageContent, MessageId,
    SessionInfoUpdate, SessionUpdate, ToolCall, ToolCallContent, ToolCallLocation, ToolCallStatus,
    ToolCallUpdate, ToolCallUpdateFields, ToolKind,
};
use serde_json::{Map, Value};

use crate::hub::command::COMMANDS;
use crate::message::{Arguments, Block, Message, Part, Role, ToolResult};
use crate::session::{Entry, Stored, Summary};

/// Characters of a title.
const TITLE: usize = 200;
/// Bytes of text of a result; editors refuse messages that are too long.
const TEXT: usize = 256 << 10;
/// Bytes of a picture, in base64.
const PICTURE: usize = 7 << 20;
/// Bytes of a file whose old text is shown beside the new one.
const OLD: u64 = 1 << 20;

/// What is shown of one turn.
pub(super) struct Show {
    turn: String,
    folder: PathBuf,
    /// Whether it goes on, and files are as the call found them.
    live: bool,
    /// The number of the message; a call ends a message.
    number: usize,
    open: bool,
    /// What calls would change, by call.
    calls: HashMap<String, Vec<ToolCallContent>>,
}

impl Show {
    pub(super) fn new(turn: &str, folder: &Path, live: bool) -> Self {
        let (turn, folder, calls) = (turn.to_owned(), folder.to_owned(), HashMap::new());
        Self { turn, folder, live, number: 0, open: false, calls }
    }

    fn message(&mut self) -> String {
        self.number += usize::from(!std::mem::replace(&mut self.open, true));
        format!("{}:{}", self.turn, self.number)
    }

    /// A piece of the answer.
    pub(super) fn text(&mut self, text: String) -> SessionUpdate {
        SessionUpdate::AgentMessageChunk(
            ContentChunk::new(text.into()).message_id(MessageId::new(self.message())),
        )
    }

    /// A piece of the model's thoughts.
    pub(super) fn thought(&mut self, text: String) -> SessionUpdate {
        let id = format!("{}:thought", self.message());
        SessionUpdate::AgentThoughtChunk(ContentChunk::new(text.into()).message_id(MessageId::new(id)))
    }

    fn id(&self, call: &str) -> String {
        format!("{}:{call}", self.turn)
    }

    /// Whether the editor knows of this call.
    pub(super) fn knows(&self, call: &str) -> bool {
        self.calls.contains_key(call)
    }

    /// A call begins.
    pub(super) fn began(&mut self, call: &str, tool: &str, arguments: &Map<String, Value>) -> SessionUpdate {
        self.open = false;
        let content = self.changes(tool, arguments);
        self.calls.insert(call.to_owned(), content.clone());
        let began = ToolCall::new(self.id(call), title(tool, arguments))
            .name(tool.to_owned())
            .kind(kind(tool))
            .status(ToolCallStatus::InProgress)
            .content(content)
            .locations(self.locations(arguments))
            .raw_input(Value::Object(arguments.clone()));
        SessionUpdate::ToolCall(began)
    }

    /// A call as a person is asked about it: all that would be done.
    pub(super) fn asked(
        &mut self,
        call: &str,
        tool: &str,
        arguments: &Map<String, Value>,
        reason: &str,
    ) -> ToolCallUpdate {
        let mut content = self.changes(tool, arguments);
        self.calls.entry(call.to_owned()).or_insert_with(|| content.clone());
        content.push(said(format!("{tool}: {reason}\n{:#}", Value::Object(arguments.clone()))));
        let fields = ToolCallUpdateFields::new()
            .title(title(tool, arguments))
            .name(tool.to_owned())
            .kind(kind(tool))
            .status(ToolCallStatus::Pending)
            .content(content)
            .locations(self.locations(arguments))
            .raw_input(Value::Object(arguments.clone()));
        ToolCallUpdate::new(self.id(call), fields)
    }

    /// How far a call is.
    pub(super) fn progress(&self, call: &str, text: String) -> SessionUpdate {
        let content = self.calls.get(call).cloned().unwrap_or_default();
        let content = content.into_iter().chain([said(text)]).collect::<Vec<_>>();
        let fields = ToolCallUpdateFields::new().content(content).status(ToolCallStatus::InProgress);
        SessionUpdate::ToolCallUpdate(ToolCallUpdate::new(self.id(call), fields))
    }

    /// A call ended.
    pub(super) fn ended(&mut self, result: &ToolResult) -> SessionUpdate {
        let mut content = self.calls.remove(&result.call).unwrap_or_default();
        if result.is_error {
            content.clear();
        }
        content.extend(result.content.iter().map(shown));
        let status = if result.is_error { ToolCallStatus::Failed } else { ToolCallStatus::Completed };
        let fields =
            ToolCallUpdateFields::new().status(status).content(content).raw_output(result.structured.clone());
        SessionUpdate::ToolCallUpdate(ToolCallUpdate::new(self.id(&result.call), fields))
    }

    /// The place of the file that a call is about.
    fn file(&self, arguments: &Map<String, Value>) -> Option<PathBuf> {
        let path = arguments.get("path").and_then(Value::as_str).filter(|path| !path.contains("://"))?;
        Some(self.folder.join(path))
    }

    fn locations(&self, arguments: &Map<String, Value>) -> Vec<ToolCallLocation> {
        let line = arguments.get("start").and_then(Value::as_u64).and_then(|line| u32::try_from(line).ok());
        self.file(arguments).map(|file| ToolCallLocation::new(file).line(line)).into_iter().collect()
    }

    /// What a call that writes to a file would change in it.
    fn changes(&self, tool: &str, arguments: &Map<String, Value>) -> Vec<ToolCallContent> {
        let text = |name: &str| arguments.get(name).and_then(Value::as_str).map(str::to_owned);
        let diff = || {
            let file = self.file(arguments)?;
            match tool {
                "fs.edit" => Some(Diff::new(file, text("new")?).old_text(text("old")?)),
                "fs.write" => {
                    let old = self.live.then(|| old(&file)).flatten();
                    Some(Diff::new(file, text("content")?).old_text(old))
                }
                _ => None,
            }
        };
        diff().map(ToolCallContent::Diff).into_iter().collect()
    }
}

/// What a file has in it, if that is a text that can be shown.
fn old(file: &Path) -> Option<String> {
    let short = std::fs::metadata(file).is_ok_and(|found| found.is_file() && found.len() <= OLD);
    short.then(|| std::fs::read_to_string(file).ok()).flatten()
}

fn said(text: String) -> ToolCallContent {
    ContentBlock::from(text).into()
}

/// A piece of a result.
fn shown(block: &Block) -> ToolCallContent {
    match block {
        Block::Image { mime, data } if data.len() <= PICTURE => {
            ContentBlock::Image(ImageContent::new(data.clone(), mime.clone())).into()
        }
        block => {
            let whole = ToolResult {
                call: String::new(),
                name: String::new(),
                content: vec![block.clone()],
                structured: None,
                is_error: false,
            };
            let mut text = whole.text();
            if text.len() > TEXT {
                text.truncate(text.floor_char_boundary(TEXT));
                text.push_str("\n[more is not shown]");
            }
            said(text)
        }
    }
}

/// A call in one line: the tool, and what it is given.
fn title(tool: &str, arguments: &Map<String, Value>) -> String {
    let word = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Array(words) if words.iter().all(Value::is_string) => {
            words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    };
    let words = arguments.values().map(word).collect::<Vec<_>>().join(" · ");
    let line = format!("{tool} {words}");
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(TITLE) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// What kind of work a tool does, by the words of its name.
fn kind(tool: &str) -> ToolKind {
    let (skill, name) = tool.split_once('.').unwrap_or(("", tool));
    let first = name.split(['_', '.', '-']).next().unwrap_or_default();
    match (skill, first) {
        ("process", _) | (_, "run" | "exec" | "execute") => ToolKind::Execute,
        (_, "edit" | "write" | "create" | "update" | "patch") => ToolKind::Edit,
        (_, "delete" | "remove" | "forget") => ToolKind::Delete,
        (_, "move" | "rename") => ToolKind::Move,
        (_, "search" | "find" | "grep") => ToolKind::Search,
        ("web", _) | (_, "fetch" | "download") => ToolKind::Fetch,
        (_, "read" | "get" | "list" | "show" | "stat" | "status" | "log" | "diff") => ToolKind::Read,
        _ => ToolKind::Other,
    }
}

/// All that was said in a session, as it was shown at the time.
pub(super) fn replay(entries: Vec<Stored>, folder: &Path) -> Vec<SessionUpdate> {
    let mut show = Show::new("", folder, false);
    let mut updates = Vec::new();
    for Stored { turn, entry, .. } in entries {
        let Entry::Message(message) = entry else { continue };
        if turn != show.turn {
            show = Show::new(&turn, folder, false);
        }
        told(&mut show, message, &mut updates);
    }
    updates
}

fn told(show: &mut Show, message: Message, updates: &mut Vec<SessionUpdate>) {
    for part in message.parts {
        updates.push(match (message.role, part) {
            (Role::User, Part::Text { text }) => user(show, text.into()),
            (Role::User, Part::Image { mime, data }) => {
                user(show, ContentBlock::Image(ImageContent::new(data, mime)))
            }
            (_, Part::Text { text }) if !text.is_empty() => show.text(text),
            (_, Part::Reasoning { text }) => show.thought(text),
            (_, Part::Call(call)) => {
                let arguments = match call.arguments {
                    Arguments::Object(map) => map,
                    Arguments::Unreadable(_) => Map::new(),
                };
                // The log has the names that models use.
                show.began(&call.id, &call.name.replacen("__", ".", 1), &arguments)
            }
            (_, Part::Result(result)) => show.ended(&result),
            _ => continue,
        });
    }
}

fn user(show: &Show, content: ContentBlock) -> SessionUpdate {
    let id = format!("{}:user", show.turn);
    SessionUpdate::UserMessageChunk(ContentChunk::new(content).message_id(MessageId::new(id)))
}

/// What a session is called.
pub(super) fn called(summary: &Summary) -> SessionUpdate {
    let title = Some(summary.title.clone()).filter(|title| !title.is_empty());
    let update = SessionInfoUpdate::new().title(title).updated_at(summary.updated.to_string());
    SessionUpdate::SessionInfoUpdate(update)
}

/// What may be typed with a slash before it.
pub(super) fn commands() -> SessionUpdate {
    let commands = COMMANDS.iter().map(|command| AvailableCommand::new(command.name, command.about));
    SessionUpdate::AvailableCommandsUpdate(AvailableCommandsUpdate::new(commands.collect()))
}
