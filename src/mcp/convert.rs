//! From our words to MCP's and back, both directions side by side.

use std::sync::Arc;

use rmcp::model::{
    CallToolResult, ContentBlock, JsonObject, Resource, ResourceContents, Tool, ToolAnnotations,
};
use serde_json::{Value, json};

use crate::message::Block;
use crate::tool::{Error, Output, Spec};

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
