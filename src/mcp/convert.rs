//! From our words to MCP's and back, both directions side by side.

use std::sync::Arc;

use rmcp::model::{
    CallToolResult, ContentBlock, ErrorData, JsonObject, Prompt, PromptArgument, PromptMessage, Resource,
    ResourceContents, ResourceTemplate, Role, Tool, ToolAnnotations,
};
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::config::Server;
use crate::message::Block;
use crate::tool::{Annotations, Error, Kind, Output, Spec, uri};

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

/// A prompt as clients see it.
pub(super) fn to_prompt(name: &str, spec: &Spec) -> Prompt {
    let required: Vec<&str> =
        spec.input["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let argument = |(name, schema): (&String, &Value)| {
        let mut argument = PromptArgument::new(name).with_required(required.contains(&name.as_str()));
        argument.description = schema["description"].as_str().map(str::to_owned);
        argument
    };
    let arguments: Vec<_> =
        spec.input["properties"].as_object().into_iter().flatten().map(argument).collect();
    let arguments = (!arguments.is_empty()).then_some(arguments);
    let mut prompt = Prompt::new(name, Some(spec.description.clone()), arguments);
    prompt.title = spec.title.clone();
    prompt
}

/// What a prompt says: messages, if it gives some, or all of it as the user.
pub(super) fn to_messages(output: Output) -> Vec<PromptMessage> {
    let said = output.structured.as_ref().and_then(|value| value["result"].as_array());
    let message = |said: &Value| {
        let role = match said["role"].as_str()? {
            "assistant" => Role::Assistant,
            _ => Role::User,
        };
        let block = serde_json::from_value(said["content"].clone()).ok()?;
        Some(PromptMessage::new(role, to_content(block)))
    };
    match said.and_then(|said| said.iter().map(message).collect::<Option<Vec<_>>>()) {
        Some(messages) => messages,
        None => {
            let blocks = output.content.into_iter();
            blocks.map(|block| PromptMessage::new(Role::User, to_content(block))).collect()
        }
    }
}

/// A document as clients see it: one, or a template for many.
pub(super) fn to_resource(name: &str, spec: &Spec) -> Option<Resource> {
    let Kind::Resource { uri, mime } = &spec.kind else { return None };
    // What a skill says of itself has the name of the skill.
    let skill = name.strip_prefix("skill/").and_then(|place| place.strip_suffix("/SKILL.md"));
    let mut resource = Resource::new(uri, skill.unwrap_or(name)).with_description(&spec.description);
    (resource.title, resource.mime_type) = (spec.title.clone(), mime.clone());
    (!uri::is_template(uri)).then_some(resource)
}

/// The other one.
pub(super) fn to_template(name: &str, spec: &Spec) -> Option<ResourceTemplate> {
    let Kind::Resource { uri, mime } = &spec.kind else { return None };
    let mut template = ResourceTemplate::new(uri, name).with_description(&spec.description);
    (template.title, template.mime_type) = (spec.title.clone(), mime.clone());
    uri::is_template(uri).then_some(template)
}

/// What a document has, read under this URI.
pub(super) fn to_contents(uri: &str, mime: Option<&str>, output: Output) -> Vec<ResourceContents> {
    let contents = output.content.into_iter().filter_map(|block| {
        let (contents, own) = match block {
            Block::Text { text } => (ResourceContents::text(text, uri), None),
            Block::Image { mime, data } | Block::Audio { mime, data } => {
                (ResourceContents::blob(data, uri), Some(mime))
            }
            Block::Resource { mime, text: Some(text), .. } => (ResourceContents::text(text, uri), mime),
            Block::Resource { mime, blob: Some(blob), .. } => (ResourceContents::blob(blob, uri), mime),
            Block::Resource { .. } | Block::ResourceLink { .. } => return None,
        };
        Some(match own.as_deref().or(mime) {
            Some(mime) => contents.with_mime_type(mime),
            None => contents,
        })
    });
    contents.collect()
}

/// Why there is no document or prompt. Here an error is no result: no model reads it.
pub(super) fn to_error(error: &Error) -> ErrorData {
    match error {
        Error::Retry(reason) => ErrorData::invalid_params(reason.clone(), None),
        other => ErrorData::internal_error(other.to_string(), None),
    }
}

/// There is no such document.
pub(super) fn unknown(uri: &str) -> ErrorData {
    let reason = format!("there is no resource `{}`", uri.chars().take(200).collect::<String>());
    ErrorData::invalid_params(reason, Some(json!({ "uri": uri })))
}

/// There is no such prompt.
pub(super) fn unknown_prompt(name: &str) -> ErrorData {
    let reason = format!("there is no prompt `{}`", name.chars().take(80).collect::<String>());
    ErrorData::invalid_params(reason, None)
}

/// The texts that a schema names: choices and examples.
pub(super) fn choices(schema: &Value) -> Vec<String> {
    let arms = schema["anyOf"].as_array().into_iter().flatten().chain([schema]);
    let values = arms.flat_map(|arm| [&arm["enum"], &arm["examples"]]);
    let values = values.filter_map(Value::as_array).flatten();
    values.filter_map(Value::as_str).map(str::to_owned).collect()
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
        Ok(Output { content, structured, verbatim, .. }) => {
            if let Some(mut theirs) = verbatim.and_then(|theirs| CallToolResult::deserialize(&*theirs).ok()) {
                // Whether it is said depends on the version that is spoken, here as for any result.
                theirs.result_type = CallToolResult::default().result_type;
                return theirs;
            }
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
    let verbatim = says_more(&result).then(|| serde_json::to_value(&result).ok().map(Arc::new)).flatten();
    let content: Vec<Block> = result.content.into_iter().filter_map(from_content).collect();
    if result.is_error != Some(true) {
        return Ok(Output { verbatim, ..Output::new(content, result.structured_content) });
    }
    let texts = content.iter().filter_map(|block| match block {
        Block::Text { text } => Some(text.as_str()),
        _ => None,
    });
    let text = texts.collect::<Vec<_>>().join("\n");
    Err(Error::Failed(if text.is_empty() { "the tool failed and did not say why".to_owned() } else { text }))
}

/// Whether a result has what our words have no place for: marks for who shows it, and of links
/// more than where they lead.
fn says_more(result: &CallToolResult) -> bool {
    let marked = |block: &ContentBlock| match block {
        ContentBlock::Text(text) => text.meta.is_some() || text.annotations.is_some(),
        ContentBlock::Image(image) => image.meta.is_some() || image.annotations.is_some(),
        ContentBlock::Audio(audio) => audio.meta.is_some() || audio.annotations.is_some(),
        _ => true,
    };
    result.meta.is_some() || result.content.iter().any(marked)
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
