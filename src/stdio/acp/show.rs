//! What an editor is shown of a turn, the same while it goes on and when it is read again.
//!
//! Ids are made of what is stored: the turn's id, the number of the message in it, the id of the
//! call. So what is read again has the ids that it had at first.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use agent_client_protocol::v1::schema::{
    self, AvailableCommand, AvailableCommandInput, AvailableCommandsUpdate, ContentBlock, ContentChunk, Cost,
    Diff, ImageContent, MessageId, PlanEntry, PlanEntryPriority, PlanEntryStatus, SessionInfoUpdate,
    SessionUpdate, ToolCallContent, ToolCallLocation, ToolCallStatus, ToolCallUpdate, ToolCallUpdateFields,
    ToolKind, UnstructuredCommandInput, UsageUpdate,
};
use serde_json::{Map, Value, json};

use super::prompt;
use crate::hub::command::COMMANDS;
use crate::message::{Arguments, Block, Change, Message, Part, Role, ToolCall, ToolResult, Usage};
use crate::session::{Entry, Stored, Summary};
use crate::tool::{Toolbox, find, plan};

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
    /// The number of the message; a call ends a message.
    number: usize,
    open: bool,
    /// What calls would change, by call.
    calls: HashMap<String, Vec<ToolCallContent>>,
}

impl Show {
    pub(super) fn new(turn: &str, folder: &Path) -> Self {
        let (turn, folder, calls) = (turn.to_owned(), folder.to_owned(), HashMap::new());
        Self { turn, folder, number: 0, open: false, calls }
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

    /// A call begins. One that sets a plan is the plan, and nobody hears of its end.
    pub(super) fn began(&mut self, call: &str, tool: &str, arguments: &Map<String, Value>) -> SessionUpdate {
        self.open = false;
        if let Some(steps) = plan::steps(arguments).filter(|_| tool == plan::SET) {
            return SessionUpdate::Plan(planned(steps));
        }
        let content = self.meant(tool, arguments, None);
        self.calls.insert(call.to_owned(), content.clone());
        let began = schema::ToolCall::new(self.id(call), title(tool, arguments))
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
        let meant = self.meant(tool, arguments, None);
        self.calls.entry(call.to_owned()).or_insert(meant);
        let old = self.file(arguments).and_then(|file| old(&file));
        let mut content = self.meant(tool, arguments, old);
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
        } else if !result.changes.is_empty() {
            // Its tool knows better than its arguments.
            let diff = |change: &Change| {
                Diff::new(self.folder.join(&change.path), change.new.clone()).old_text(change.old.clone())
            };
            content = result.changes.iter().map(diff).map(ToolCallContent::Diff).collect();
        }
        content.extend(result.content.iter().map(shown));
        let status = if result.is_error { ToolCallStatus::Failed } else { ToolCallStatus::Completed };
        let fields =
            ToolCallUpdateFields::new().status(status).content(content).raw_output(result.structured.clone());
        SessionUpdate::ToolCallUpdate(ToolCallUpdate::new(self.id(&result.call), fields))
    }

    /// The ends of calls that have none: whoever ran them was killed.
    fn broken_off(&self) -> Vec<SessionUpdate> {
        let ended = |call: &String| {
            let fields = ToolCallUpdateFields::new().status(ToolCallStatus::Failed);
            SessionUpdate::ToolCallUpdate(ToolCallUpdate::new(self.id(call), fields))
        };
        self.calls.keys().map(ended).collect()
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

    /// What a call that writes to a file would change in it. What is there until then is `old`: arguments do not
    /// tell, and whoever is shown them later could not look.
    fn meant(&self, tool: &str, arguments: &Map<String, Value>, old: Option<String>) -> Vec<ToolCallContent> {
        let text = |name: &str| arguments.get(name).and_then(Value::as_str).map(str::to_owned);
        let diff = || {
            let file = self.file(arguments)?;
            match tool {
                "fs.edit" => Some(Diff::new(file, text("new")?).old_text(text("old")?)),
                "fs.write" => Some(Diff::new(file, text("content")?).old_text(old)),
                _ => None,
            }
        };
        diff().map(ToolCallContent::Diff).into_iter().collect()
    }
}

/// A plan as editors show it.
fn planned(steps: Vec<plan::Step>) -> schema::Plan {
    let entry = |step: plan::Step| {
        let status = match step.state {
            plan::State::Open => PlanEntryStatus::Pending,
            plan::State::Begun => PlanEntryStatus::InProgress,
            plan::State::Done => PlanEntryStatus::Completed,
        };
        PlanEntry::new(step.what, PlanEntryPriority::Medium, status)
    };
    schema::Plan::new(steps.into_iter().map(entry).collect())
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
                changes: Vec::new(),
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

/// All that was said in a session, as it was shown at the time. What is in the log for models alone is left out.
///
/// The log has calls by the names that models use; `toolbox` knows their own.
pub(super) fn replay(entries: Vec<Stored>, folder: &Path, toolbox: Option<&Toolbox>) -> Vec<SessionUpdate> {
    let mut show = Show::new("", folder);
    let mut updates = Vec::new();
    for Stored { turn, entry, .. } in entries {
        let Entry::Message(message) = entry else { continue };
        if turn != show.turn {
            updates.extend(show.broken_off());
            show = Show::new(&turn, folder);
        }
        told(&mut show, message, toolbox, &mut updates);
    }
    updates.extend(show.broken_off());
    updates
}

fn told(show: &mut Show, message: Message, toolbox: Option<&Toolbox>, updates: &mut Vec<SessionUpdate>) {
    for part in message.parts {
        updates.push(match (message.role, part) {
            (Role::User, Part::Text { text }) => user(show, prompt::shown(text)),
            (Role::User, Part::Image { mime, data }) => {
                user(show, ContentBlock::Image(ImageContent::new(data, mime)))
            }
            (_, Part::Text { text }) if !text.is_empty() => show.text(text),
            (_, Part::Reasoning { text }) => show.thought(text),
            (_, Part::Call(call)) => {
                let ToolCall { id, name, arguments } = find::meant(call);
                let arguments = match arguments {
                    Arguments::Object(map) => map,
                    Arguments::Unreadable(_) => Map::new(),
                };
                let known = toolbox.and_then(|toolbox| toolbox.find(&name)).map(|spec| spec.name.as_str());
                show.began(&id, known.unwrap_or(&name), &arguments)
            }
            (_, Part::Result(result)) if show.knows(&result.call) => show.ended(&result),
            _ => continue,
        });
    }
}

fn user(show: &Show, content: ContentBlock) -> SessionUpdate {
    let id = format!("{}:user", show.turn);
    SessionUpdate::UserMessageChunk(ContentChunk::new(content).message_id(MessageId::new(id)))
}

/// What the last call of a model took of its window, and what the session has cost. A cost that is not known is
/// said to be so, and is not zero.
pub(super) fn used(last: Usage, window: usize, spent: Usage) -> SessionUpdate {
    let update = UsageUpdate::new(last.total(), window as u64);
    SessionUpdate::UsageUpdate(match spent.dollars() {
        Some(dollars) => update.cost(Cost::new(dollars, "USD")),
        None => update.meta(json!({ "omni": { "cost": "not known" } }).as_object().cloned()),
    })
}

/// What a session is called.
pub(super) fn called(summary: &Summary) -> SessionUpdate {
    let title = Some(summary.title.clone()).filter(|title| !title.is_empty());
    let update = SessionInfoUpdate::new().title(title).updated_at(summary.updated.to_string());
    SessionUpdate::SessionInfoUpdate(update)
}

/// What may be typed with a slash before it.
pub(super) fn commands() -> SessionUpdate {
    let commands = COMMANDS.iter().map(|command| {
        let hint = || UnstructuredCommandInput::new(command.takes.to_lowercase());
        let takes = (!command.takes.is_empty()).then(|| AvailableCommandInput::Unstructured(hint()));
        AvailableCommand::new(command.name, command.about).input(takes)
    });
    SessionUpdate::AvailableCommandsUpdate(AvailableCommandsUpdate::new(commands.collect()))
}
