//! Skills of servers (SEP-2640): instructions that a server has for tasks it is good at. They are
//! read when they are wanted, not before, and nothing is taken from them that is not what the
//! server has said it would be.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rmcp::model::{ResourceContents, Skill, SkillResources};
use serde_json::{Map, Value, json};

use super::config::Server;
use crate::tool::{Annotations, Error, Spec};

/// What the tool is called that reads them.
pub(super) const TOOL: &str = "load_skill";
/// Characters of what is said of one in the list.
const ABOUT: usize = 300;

/// The tool that reads them; `None` where there are none.
pub(super) fn spec(server: &Server, skills: &[Skill]) -> Option<Arc<Spec>> {
    let names: Vec<&str> = skills.iter().map(|skill| skill.frontmatter.name.as_str()).collect();
    let about = |skill: &Skill| {
        let text = skill.frontmatter.description.trim();
        format!("\n- {}: {}", skill.frontmatter.name, &text[..text.floor_char_boundary(ABOUT)])
    };
    let listed: String = skills.iter().map(about).collect();
    let spec = Spec {
        name: format!("{}.{TOOL}", server.name),
        description: format!("Instructions of `{}` for such tasks; read them first.{listed}", server.name),
        input: json!({
            "type": "object",
            "properties": {
                "skill": {"type": "string", "enum": names},
                "file": {"type": "string", "description": "A file that the instructions name."},
            },
            "required": ["skill"],
        }),
        annotations: Annotations { read_only: true, destructive: false, idempotent: true, open_world: true },
        timeout: server.timeout,
        idle_timeout: server.idle_timeout,
        ..Spec::default()
    };
    (!skills.is_empty()).then(|| Arc::new(spec))
}

/// The one that arguments of the tool name, and the URI of the file they want of it.
pub(super) fn wanted<'a>(
    skills: &'a [Skill],
    arguments: &Map<String, Value>,
) -> Result<(&'a Skill, String), Error> {
    let text = |name: &str| arguments.get(name).and_then(Value::as_str);
    let name = text("skill").unwrap_or_default();
    let skill = skills.iter().find(|skill| skill.frontmatter.name == name);
    let skill = skill.ok_or_else(|| Error::Retry(format!("there is no skill `{name}`")))?;
    let Some(file) = text("file") else { return Ok((skill, skill.uri.clone())) };
    let root = skill.uri.strip_suffix("SKILL.md").unwrap_or(&skill.uri);
    let file = if file.starts_with(root) { file.to_owned() } else { format!("{root}{file}") };
    match &skill.resources {
        SkillResources::Files(files) if !files.iter().any(|known| known.uri == file) => {
            let known: Vec<_> = files.iter().filter_map(|known| known.uri.strip_prefix(root)).collect();
            Err(Error::Retry(format!("it has no file `{file}`, but {}", known.join(", "))))
        }
        _ => Ok((skill, file)),
    }
}

/// The text of a file, if it is the one that the server has listed.
pub(super) fn checked(skill: &Skill, uri: &str, contents: Vec<ResourceContents>) -> Result<String, Error> {
    let wrong = |reason: String| Error::Failed(format!("the skill is not loaded: {reason}"));
    let bytes = match contents.into_iter().next() {
        Some(ResourceContents::TextResourceContents { text, .. }) => text.into_bytes(),
        Some(ResourceContents::BlobResourceContents { blob, .. }) => {
            BASE64_STANDARD.decode(blob).map_err(|error| wrong(format!("`{uri}` cannot be read: {error}")))?
        }
        _ => return Err(wrong(format!("`{uri}` is empty"))),
    };
    if let SkillResources::Files(files) = &skill.resources {
        let listed = files.iter().find(|known| known.uri == uri);
        let listed = listed.ok_or_else(|| wrong(format!("the server does not list `{uri}`")))?;
        listed.verify(&bytes).map_err(|error| wrong(error.to_string()))?;
    }
    let text = String::from_utf8(bytes).map_err(|_| wrong(format!("`{uri}` is no text")))?;
    if uri == skill.uri {
        compare(skill, &text).map_err(wrong)?;
    }
    Ok(text)
}

/// Compares what a `SKILL.md` says of itself with what the server has said of it, field by field.
fn compare(skill: &Skill, text: &str) -> Result<(), String> {
    let front = text.strip_prefix("---").and_then(|rest| rest.split_once("\n---"));
    let (yaml, _) = front.ok_or("its `SKILL.md` has no front matter")?;
    let own: Value = serde_saphyr::from_str(yaml).map_err(|_| "its front matter cannot be read")?;
    let listed = json!(skill.frontmatter);
    let fields = |value: &Value| value.as_object().cloned().unwrap_or_default();
    let (own, listed) = (fields(&own), fields(&listed));
    let differs = |key: &&String| own.get(*key) != listed.get(*key);
    match own.keys().chain(listed.keys()).find(differs) {
        Some(key) => Err(format!("its `SKILL.md` says another `{key}` than the server's list")),
        None => Ok(()),
    }
}
