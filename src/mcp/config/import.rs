//! Servers that other programs know: where their files are, and what theirs mean in ours.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::{Variables, jsonc, servers};

/// A program whose servers can be taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Cursor.
    Cursor,
    /// Visual Studio Code.
    Vscode,
    /// Claude Code and Claude Desktop.
    Claude,
    /// Codex.
    Codex,
    /// Gemini CLI.
    Gemini,
    /// Zed.
    Zed,
}

impl Origin {
    /// All of them, by the names they are called by.
    pub const ALL: [(&'static str, Self); 6] = [
        ("cursor", Self::Cursor),
        ("vscode", Self::Vscode),
        ("claude", Self::Claude),
        ("codex", Self::Codex),
        ("gemini", Self::Gemini),
        ("zed", Self::Zed),
    ];

    /// The program of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, from)| from)
    }

    /// Its files: those of the workspace first.
    pub fn places(self, variables: &Variables<'_>) -> Vec<PathBuf> {
        let home = |path: &str| variables.path(&format!("~/{path}"));
        let here = |path: &str| variables.workspace.join(path);
        match self {
            Self::Cursor => vec![here(".cursor/mcp.json"), home(".cursor/mcp.json")],
            Self::Vscode => vec![here(".vscode/mcp.json"), home(".config/Code/User/mcp.json")],
            Self::Claude => vec![home(".claude.json"), home(".config/Claude/claude_desktop_config.json")],
            Self::Codex => vec![here(".codex/config.toml"), home(".codex/config.toml")],
            Self::Gemini => vec![here(".gemini/settings.json"), home(".gemini/settings.json")],
            Self::Zed => vec![here(".zed/settings.json"), home(".config/zed/settings.json")],
        }
    }

    /// The servers of one of its files, as they would stand in ours. A file of settings may have
    /// none.
    pub fn read(self, file: &Path, workspace: &Path) -> Result<Map<String, Value>, String> {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Map::new()),
            Err(error) => return Err(format!("`{}` cannot be read: {error}", file.display())),
        };
        let wrong = |reason: String| format!("`{}`: {reason}", file.display());
        let root: Value = match self {
            Self::Codex => toml::from_str(&text).map_err(|error| wrong(error.message().to_owned()))?,
            _ => serde_json::from_str(&jsonc::plain(&text)).map_err(|error| wrong(error.to_string()))?,
        };
        let table = |value: &Value, key: &str| value[key].as_object().cloned().unwrap_or_default();
        let mut found = match self {
            Self::Codex => table(&root, "mcp_servers"),
            Self::Zed => table(&root, "context_servers"),
            Self::Claude => {
                // Those of a folder come before those of everywhere.
                let mut found = table(&root["projects"][&*workspace.to_string_lossy()], "mcpServers");
                for (name, server) in table(&root, "mcpServers") {
                    found.entry(name).or_insert(server);
                }
                found
            }
            Self::Cursor | Self::Vscode | Self::Gemini => servers(&text).unwrap_or_default(),
        };
        if self == Self::Gemini {
            found.values_mut().for_each(braced);
        }
        Ok(found)
    }
}

/// Puts the braces around variables that are written without: `$TOKEN`.
fn braced(value: &mut Value) {
    match value {
        Value::String(text) => *text = braces(text),
        Value::Array(items) => items.iter_mut().for_each(braced),
        Value::Object(fields) => fields.values_mut().for_each(braced),
        _ => {}
    }
}

fn braces(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let name = &after[..after.find(|c| !is_part(c)).unwrap_or(after.len())];
        let bare = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        out.push_str(before);
        out.push_str(&if bare { format!("${{{name}}}") } else { format!("${name}") });
        rest = &after[name.len()..];
    }
    out + rest
}

/// What is worth knowing of an entry that works: what was guessed, and what is not understood.
pub(super) fn remarks(fields: &Map<String, Value>) -> Vec<String> {
    let mut remarks = Vec::new();
    for field in ["timeout", "requestTimeout", "connectionTimeout"] {
        if let Some(number) = fields.get(field).and_then(Value::as_f64) {
            let unit = if number < 1000.0 { "seconds" } else { "milliseconds" };
            remarks
                .push(format!("`{field}` is taken for {number} {unit}; `tool_timeout_sec` leaves no doubt"));
        }
    }
    let unknown = fields.keys().filter(|key| !super::entry::KNOWN.contains(&key.as_str()));
    remarks.extend(unknown.map(|key| format!("`{key}` is not understood, and left alone")));
    if fields.get("inheritEnv") == Some(&json!(true)) {
        remarks.push("it gets all variables of your environment, secrets among them".to_owned());
    }
    remarks
}
