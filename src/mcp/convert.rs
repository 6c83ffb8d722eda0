//! From our words to MCP's and back, both directions side by side.

use std::sync::Arc;

use rmcp::model::{
    CallToolResult, ContentBlock, JsonObject, Resource, ResourceContents, Tool, ToolAnnotations,
};
use serde_json::{Value, json};

use super::config::Server;
use crate::message::Block;
use crate::tool::{Annotations, Error, Output, Spec};

/// A tool as clients see it, under the name they call it by. Its schemas are as they were written.
pub(super) fn to_tool(wire: &str, spec: &Spec) -> Tool {
    let mut tool =
        Tool::new_with_raw(wire.to_owned(), Some(spec.description.clone().into()), object(&spec.input));
    tool.title = spec.title.clone();
    tool.output_schema = spec.output.as_ref().map(object);
    tool.annotations = Some(ToolAnnotations::from_raw(
        None,
        Some(spec.annotations.read_only),
        Some(spec.annotations.destructive),
        Some(spec.annotations.idempotent),
        Some(spec.annotations.open_world),
    ));
    tool
}

/// A schema of type `object`, as MCP wants it to say of itself.
fn object(schema: &Value) -> Arc<JsonObject> {
    let mut object = schema.as_object().cloned().unwrap_or_default();
    object.entry("type").or_insert_with(|| json!("object"));
    Arc::new(object)
}

/// What a call came to. An error is a result too: it is for the model to read.
pub(super) fn to_result(outcome: Result<Output, Error>) -> CallToolResult {
    match outcome {
        Ok(Output { content, structured }) => {
            let mut result = CallToolResult::success(content.into_iter().map(to_content).collect());
            result.structured_content = structured;
            result
        }
        Err(error) => CallToolResult::error(vec![ContentBlock::text(error.to_string())]),
    }
}

fn to_content(block: Block) -> ContentBlock {
    match block {
        Block::Text { text } => ContentBlock::text(text),
        Block::Image { mime, data } => ContentBlock::image(data, mime),
        Block::Audio { mime, data } => ContentBlock::audio(data, mime),
        Block::Resource { uri, mime, text, blob } => {
            let contents = match blob {
                Some(blob) => ResourceContents::blob(blob, uri),
                None => ResourceContents::text(text.unwrap_or_default(), uri),
            };
            ContentBlock::resource(match mime {
                Some(mime) => contents.with_mime_type(mime),
                None => contents,
            })
        }
        Block::ResourceLink { uri, name, mime } => {
            let link = Resource::new(uri, name);
            ContentBlock::resource_link(match mime {
                Some(mime) => link.with_mime_type(mime),
                None => link,
            })
        }
    }
}

/// A tool of a server as ours. What says nothing of its effects may have any.
pub(super) fn from_tool(server: &Server, tool: &Tool) -> Spec {
    let hints = tool.annotations.clone().unwrap_or_default();
    let unsaid = Annotations::default();
    Spec {
        name: format!("{}.{}", server.name, tool.name),
        title: tool.title.clone().or(hints.title.clone()),
        description: tool.description.as_deref().unwrap_or_default().to_owned(),
        input: Value::Object((*tool.input_schema).clone()),
        output: tool.output_schema.as_ref().map(|schema| Value::Object((**schema).clone())),
        annotations: Annotations {
            read_only: hints.read_only_hint.unwrap_or(unsaid.read_only),
            destructive: hints.destructive_hint.unwrap_or(unsaid.destructive),
            idempotent: hints.idempotent_hint.unwrap_or(unsaid.idempotent),
            open_world: hints.open_world_hint.unwrap_or(unsaid.open_world),
        },
        timeout: server.timeout,
        idle_timeout: server.idle_timeout,
        ..Spec::default()
    }
}

/// What a server's tool came to.
pub(super) fn from_result(result: CallToolResult) -> Result<Output, Error> {
    let content: Vec<Block> = result.content.into_iter().filter_map(from_content).collect();
    if result.is_error != Some(true) {
        return Ok(Output { content, structured: result.structured_content });
    }
    let texts = content.iter().filter_map(|block| match block {
        Block::Text { text } => Some(text.as_str()),
        _ => None,
    });
    let text = texts.collect::<Vec<_>>().join("\n");
    Err(Error::Failed(if text.is_empty() { "the tool failed and did not say why".to_owned() } else { text }))
}

fn from_content(block: ContentBlock) -> Option<Block> {
    Some(match block {
        ContentBlock::Text(text) => Block::text(text.text),
        ContentBlock::Image(image) => Block::Image { mime: image.mime_type, data: image.data },
        ContentBlock::Audio(audio) => Block::Audio { mime: audio.mime_type, data: audio.data },
        ContentBlock::Resource(embedded) => match embedded.resource {
            ResourceContents::TextResourceContents { uri, mime_type, text, .. } => {
                Block::Resource { uri, mime: mime_type, text: Some(text), blob: None }
            }
            ResourceContents::BlobResourceContents { uri, mime_type, blob, .. } => {
                Block::Resource { uri, mime: mime_type, text: None, blob: Some(blob) }
            }
            _ => return None,
        },
        ContentBlock::ResourceLink(link) => {
            Block::ResourceLink { uri: link.uri, name: link.name, mime: link.mime_type }
        }
        _ => return None,
    })
}
