//! A request for a chat completion. Fields that are not known, and those that tune a model, are
//! ignored; what would change what the caller gets, and cannot be had, is refused.

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::super::error::Error;
use crate::message::{Message, Part, Role};

#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ChatRequest)]
pub(in crate::gateway) struct Request {
    pub(super) model: Option<String>,
    #[schema(min_items = 1)]
    messages: Vec<Line>,
    #[serde(default, deserialize_with = "or_default")]
    #[schema(value_type = Option<bool>)]
    pub(super) stream: bool,
    stream_options: Option<StreamOptions>,
    metadata: Option<Map<String, Value>>,
    tools: Option<Vec<Value>>,
    functions: Option<Vec<Value>>,
    n: Option<u64>,
    response_format: Option<Value>,
}

#[derive(Debug, Deserialize, ToSchema)]
struct StreamOptions {
    #[serde(default, deserialize_with = "or_default")]
    #[schema(value_type = Option<bool>)]
    include_usage: bool,
}

#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ChatMessage)]
struct Line {
    /// `system`, `developer`, `user` or `assistant`; the last one is of the user.
    #[schema(pattern = "^(system|developer|user|assistant)$")]
    role: String,
    content: Option<Content>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
#[schema(as = ChatContent)]
enum Content {
    Text(String),
    Pieces(Vec<Piece>),
}

#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ChatPart)]
struct Piece {
    /// `text`, or `image_url`.
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
    image_url: Option<Picture>,
}

#[derive(Debug, Deserialize, ToSchema)]
struct Picture {
    /// It comes along: `data:image/…;base64,…`.
    url: String,
}

/// Many clients send `null` for what they do not want.
fn or_default<'de, D: serde::Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    Ok(Option::<bool>::deserialize(value)?.unwrap_or_default())
}

/// What the messages of a request come to.
pub(super) struct Said {
    pub(super) instructions: Option<String>,
    pub(super) earlier: Vec<Message>,
    pub(super) message: Message,
}

impl Request {
    /// The session it names itself.
    pub(super) fn session(&self) -> Option<String> {
        self.metadata.as_ref()?.get("session_id")?.as_str().map(str::to_owned)
    }

    /// Whether a stream ends with what it cost.
    pub(super) fn counts_usage(&self) -> bool {
        self.stream_options.as_ref().is_some_and(|options| options.include_usage)
    }

    pub(super) fn said(self) -> Result<Said, Error> {
        self.check()?;
        let (mut instructions, mut messages) = (Vec::new(), Vec::new());
        for line in self.messages {
            let parts = line.content.map(parts).transpose()?.unwrap_or_default();
            match line.role.as_str() {
                "system" | "developer" => instructions.push(Message::of(Role::User, parts).text()),
                "user" => messages.push(Message::of(Role::User, parts)),
                "assistant" => messages.push(Message::of(Role::Assistant, parts)),
                "tool" | "function" => {
                    let detail = "results of tools cannot be taken: omni calls its own tools";
                    return Err(Error::unsupported("messages", detail));
                }
                other => {
                    let detail = format!("`{other}` is no role; use system, user or assistant");
                    return Err(Error::invalid(detail).of("messages"));
                }
            }
        }
        let last = messages.pop().filter(|last| last.role == Role::User && !last.parts.is_empty());
        let message = last.ok_or_else(|| {
            Error::invalid("the last of the `messages` has to be the user's, with something in it")
                .of("messages")
        })?;
        let instructions = Some(instructions.join("\n\n")).filter(|text| !text.trim().is_empty());
        Ok(Said { instructions, earlier: messages, message })
    }

    /// Refuses what a caller would miss.
    fn check(&self) -> Result<(), Error> {
        let some = |list: &Option<Vec<Value>>| list.as_ref().is_some_and(|list| !list.is_empty());
        if some(&self.tools) || some(&self.functions) {
            let detail =
                "tools of the caller are not supported: omni has tools of its own, and calls them itself";
            return Err(Error::unsupported("tools", detail));
        }
        if self.n.is_some_and(|n| n != 1) {
            return Err(Error::unsupported("n", "there is one answer to a request"));
        }
        let format = self.response_format.as_ref().map(|format| &format["type"]);
        if format.is_some_and(|kind| !kind.is_null() && kind != "text") {
            return Err(Error::unsupported("response_format", "answers are text"));
        }
        Ok(())
    }
}

fn parts(content: Content) -> Result<Vec<Part>, Error> {
    let pieces = match content {
        Content::Text(text) if text.trim().is_empty() => return Ok(Vec::new()),
        Content::Text(text) => return Ok(vec![Part::text(text)]),
        Content::Pieces(pieces) => pieces,
    };
    pieces.into_iter().map(part).collect()
}

fn part(piece: Piece) -> Result<Part, Error> {
    match (piece.kind.as_str(), piece.text, piece.image_url) {
        ("text" | "input_text" | "output_text", Some(text), _) => Ok(Part::Text { text }),
        ("image_url", _, Some(Picture { url })) => picture("messages", &url),
        (kind, ..) => Err(Error::unsupported(
            "messages",
            format!("a part `{kind}` cannot be taken; use text or image_url"),
        )),
    }
}

/// A picture that came along. One that is elsewhere is not fetched: who knows for whom.
pub(in crate::gateway) fn picture(param: &'static str, url: &str) -> Result<Part, Error> {
    let inline = url.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,"));
    match inline {
        Some((mime, data)) if mime.starts_with("image/") => {
            Ok(Part::Image { mime: mime.to_owned(), data: data.to_owned() })
        }
        _ => Err(Error::unsupported(param, "a picture has to come along: `data:image/…;base64,…`")),
    }
}
