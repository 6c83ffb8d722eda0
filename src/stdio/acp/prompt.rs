//! What a person said in an editor, as a message.

use agent_client_protocol::v1::schema::{
    ContentBlock, EmbeddedResource, EmbeddedResourceResource, TextResourceContents,
};

use crate::message::{Message, Part, Role};

/// Bytes of a picture, in base64.
const PICTURE: usize = 7 << 20;
/// Bytes of the text of a document.
const DOCUMENT: usize = 1 << 20;

/// A prompt as a message. The error says what in it cannot be taken.
pub(super) fn message(prompt: Vec<ContentBlock>) -> Result<Message, String> {
    let parts = prompt.into_iter().map(part).collect::<Result<Vec<_>, _>>()?;
    let empty = |part: &Part| matches!(part, Part::Text { text } if text.trim().is_empty());
    match parts.iter().all(empty) {
        true => Err("there is nothing in the prompt".to_owned()),
        false => Ok(Message::of(Role::User, parts)),
    }
}

fn part(block: ContentBlock) -> Result<Part, String> {
    match block {
        ContentBlock::Text(text) => Ok(Part::text(text.text)),
        ContentBlock::ResourceLink(link) => Ok(Part::text(format!("[{}]({})", link.name, link.uri))),
        ContentBlock::Resource(embedded) => document(embedded.resource),
        ContentBlock::Image(image) if !image.mime_type.starts_with("image/") => {
            Err(format!("`{}` is no picture", image.mime_type))
        }
        ContentBlock::Image(image) if image.data.len() > PICTURE => {
            Err(format!("a picture has more than {} MB", (PICTURE >> 20) * 3 / 4))
        }
        ContentBlock::Image(image) => Ok(Part::Image { mime: image.mime_type, data: image.data }),
        _ => Err("only texts, pictures and documents can be in a prompt".to_owned()),
    }
}

/// A document with its text, in a fence that the text cannot close.
fn document(resource: EmbeddedResourceResource) -> Result<Part, String> {
    let (uri, text) = match resource {
        EmbeddedResourceResource::TextResourceContents(contents) => (contents.uri, contents.text),
        EmbeddedResourceResource::BlobResourceContents(contents) => {
            return Ok(Part::text(format!("[a file that is no text]({})", contents.uri)));
        }
        _ => return Err("a document in the prompt is neither text nor bytes".to_owned()),
    };
    if text.len() > DOCUMENT {
        return Err(format!("`{uri}` has more than {} MB; name it instead", DOCUMENT >> 20));
    }
    let longest = text.split(|letter| letter != '`').map(str::len).max().unwrap_or(0).max(2);
    let fence = "`".repeat(longest + 1);
    Ok(Part::text(format!("{uri}\n{fence}\n{}\n{fence}", text.trim_end_matches('\n'))))
}

/// What a person said, as it was said: a document is one again.
pub(super) fn shown(text: String) -> ContentBlock {
    match written(&text) {
        Some((uri, contents)) => {
            let contents = TextResourceContents::new(contents, uri);
            let contents = EmbeddedResourceResource::TextResourceContents(contents);
            ContentBlock::Resource(EmbeddedResource::new(contents))
        }
        None => text.into(),
    }
}

/// The address and the text of a document that [`document`] has written.
fn written(text: &str) -> Option<(&str, &str)> {
    let (uri, rest) = text.split_once('\n')?;
    let (fence, rest) = rest.split_once('\n')?;
    let is_fence = fence.len() > 2 && fence.bytes().all(|byte| byte == b'`');
    let contents = rest.strip_suffix(fence)?.strip_suffix('\n')?;
    let is_written = is_fence && uri.contains("://") && !uri.contains(' ') && !contents.contains(fence);
    is_written.then_some((uri, contents))
}
