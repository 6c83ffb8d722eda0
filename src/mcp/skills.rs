//! Skills as an extension of MCP has them (SEP-2640): each with its front matter and a digest of
//! every file. The files themselves are documents like any other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rmcp::model::{
    DIRECTORY_MIME_TYPE, ErrorData, Resource, SKILL_MD, Skill, SkillFrontmatter, SkillResource,
    SkillResources,
};

use super::convert;
use super::view::View;
use crate::message::Block;
use crate::tool::{Kind, Output, Scope, Spec, Toolbox};

/// Files of a skill that clients have to take.
const FILES: usize = 512;
/// Bytes of them.
const BYTES: u64 = 16 << 20;

/// The skills there are, as far as clients take them.
pub(super) async fn all(toolbox: &Arc<Toolbox>, view: &View, scope: &Arc<Scope>) -> Vec<Skill> {
    let mut skills = Vec::new();
    for (uri, files) in folders(toolbox, view) {
        match described(toolbox, &uri, &files, scope).await {
            Ok(skill) => skills.push(skill),
            Err(reason) => tracing::warn!(target: "mcp", "the skill `{uri}` is not listed: {reason}"),
        }
    }
    skills
}

/// The skill of this URI.
pub(super) async fn one(
    toolbox: &Arc<Toolbox>,
    view: &View,
    uri: &str,
    scope: &Arc<Scope>,
) -> Result<Skill, ErrorData> {
    let folders = folders(toolbox, view);
    let files = folders.get(uri).ok_or_else(|| convert::unknown(uri))?;
    described(toolbox, uri, files, scope).await.map_err(|reason| ErrorData::internal_error(reason, None))
}

/// What is directly in a folder of a skill.
pub(super) fn children(toolbox: &Toolbox, view: &View, uri: &str) -> Result<Vec<Resource>, ErrorData> {
    let folder = format!("{}/", uri.trim_end_matches('/'));
    let (mut files, mut inner) = (Vec::new(), BTreeSet::new());
    for (file, name, spec) in documents(toolbox, view) {
        match file.strip_prefix(&folder).map(|rest| rest.split_once('/')) {
            Some(None) => files.extend(convert::to_resource(name, spec)),
            Some(Some((child, _))) => drop(inner.insert(child)),
            None => {}
        }
    }
    if files.is_empty() && inner.is_empty() {
        return Err(convert::unknown(uri));
    }
    let folders = inner.into_iter().map(|child| {
        let folder = Resource::new(format!("{folder}{child}"), child);
        folder.with_mime_type(DIRECTORY_MIME_TYPE)
    });
    Ok(folders.chain(files).collect())
}

/// The files of skills: URI, name, and what is known of it.
fn documents<'a>(toolbox: &'a Toolbox, view: &'a View) -> impl Iterator<Item = (&'a str, &'a str, &'a Spec)> {
    // No other name has such a sign.
    let specs = view.resources(toolbox).filter(|(name, _)| name.starts_with("skill/"));
    specs.filter_map(|(name, spec)| match &spec.kind {
        Kind::Resource { uri, .. } => Some((uri.as_str(), name, &**spec)),
        Kind::Tool | Kind::Prompt => None,
    })
}

/// The files of each skill, by the URI of its `SKILL.md`.
fn folders(toolbox: &Toolbox, view: &View) -> BTreeMap<String, Vec<String>> {
    let mut folders: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (uri, ..) in documents(toolbox, view) {
        let Some(name) = uri.strip_prefix("skill://").and_then(|path| path.split('/').next()) else {
            continue;
        };
        folders.entry(format!("skill://{name}/{SKILL_MD}")).or_default().push(uri.to_owned());
    }
    folders.retain(|uri, files| files.contains(uri));
    folders
}

async fn described(
    toolbox: &Arc<Toolbox>,
    uri: &str,
    files: &[String],
    scope: &Arc<Scope>,
) -> Result<Skill, String> {
    if files.len() > FILES {
        return Err(format!("it has {} files; {FILES} is the limit", files.len()));
    }
    let (mut resources, mut front, mut size) = (Vec::new(), None, 0);
    for file in files {
        let output = toolbox.read(file, scope).await.map_err(|error| error.to_string())?;
        let bytes = bytes(&output).ok_or_else(|| format!("`{file}` has no content"))?;
        size += bytes.len() as u64;
        if size > BYTES {
            return Err(format!("it has more than {BYTES} bytes"));
        }
        resources.push(SkillResource::from_bytes(file, &bytes));
        if file == uri {
            front = output.structured;
        }
    }
    let front = serde_json::from_value::<SkillFrontmatter>(front.unwrap_or_default());
    let front = front.map_err(|error| format!("its front matter cannot be read: {error}"))?;
    Ok(Skill::new(uri, front, SkillResources::Files(resources)))
}

fn bytes(output: &Output) -> Option<Vec<u8>> {
    match output.content.first()? {
        Block::Text { text } => Some(text.clone().into_bytes()),
        Block::Resource { blob: Some(blob), .. } => BASE64_STANDARD.decode(blob).ok(),
        _ => None,
    }
}
