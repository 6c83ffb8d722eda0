//! A request for a response. As with chat completions, what is not known is ignored, and what would
//! change what the caller gets, and cannot be had, is refused.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::super::error::Error;
use super::super::openai::picture;
use crate::message::{Message, Part, Role};

#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ResponseRequest)]
pub(in crate::gateway) struct Request {
    pub(super) model: Option<String>,
    #[schema(required)]
    input: Option<Input>,
    instructions: Option<String>,
    pub(super) previous_response_id: Option<String>,
    conversation: Option<Conversation>,
    store: Option<bool>,
    stream: Option<bool>,
    background: Option<bool>,
    metadata: Option<Map<String, Value>>,
    tools: Option<Vec<Value>>,
    text: Option<Value>,
    prompt: Option<Value>,
    /// What is told back as it was given.
    #[serde(flatten)]
    #[schema(ignore)]
    rest: Map<String, Value>,
}

/// A text, or a list of items: messages.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
#[schema(as = ResponseInput)]
enum Input {
    Text(String),
    Items(Vec<Item>),
}

/// The session: its id, or an object with that.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
enum Conversation {
    Id(String),
    Object { id: String },
}

#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ResponseItem)]
struct Item {
    /// `message`, `item_reference`, or `reasoning`, which is left out.
    #[serde(rename = "type")]
    kind: Option<String>,
    id: Option<String>,
    /// `system`, `developer`, `user` or `assistant`.
    role: Option<String>,
    content: Option<Content>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
#[schema(as = ResponseContent)]
enum Content {
    Text(String),
    Pieces(Vec<Piece>),
}

#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ResponsePart)]
struct Piece {
    /// `input_text`, `output_text`, `refusal` or `input_image`.
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
    refusal: Option<String>,
    image_url: Option<String>,
}

/// What is said in a request, or pointed at.
#[derive(Debug, Serialize)]
pub(super) enum Said {
    Message(Message),
    /// An item of an earlier response, by its id.
    Reference(String),
}

impl Request {
    pub(super) fn streams(&self) -> bool {
        self.stream.unwrap_or_default()
    }

    /// Whether it goes on when the caller has gone.
    pub(super) fn is_background(&self) -> bool {
        self.background.unwrap_or_default()
    }

    /// Whether it can be asked for later.
    pub(super) fn is_stored(&self) -> bool {
        self.store.unwrap_or(true)
    }

    /// The session it belongs to.
    pub(super) fn conversation(&self) -> Option<&str> {
        match self.conversation.as_ref()? {
            Conversation::Id(id) | Conversation::Object { id } => Some(id.trim()),
        }
    }

    /// Refuses what a caller would miss.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.tools.as_ref().is_some_and(|tools| !tools.is_empty()) {
            let detail =
                "tools of the caller are not supported: omni has tools of its own, and calls them itself";
            return Err(Error::unsupported("tools", detail));
        }
        let format = self.text.as_ref().map(|text| &text["format"]["type"]);
        if format.is_some_and(|kind| !kind.is_null() && kind != "text") {
            return Err(Error::unsupported("text", "answers are text"));
        }
        if self.prompt.as_ref().is_some_and(|prompt| !prompt.is_null()) {
            return Err(Error::unsupported("prompt", "there are no templates of prompts here"));
        }
        if self.is_background() && !self.is_stored() {
            let detail = "what goes on in the background has to be stored, or nobody could ask for it";
            return Err(Error::invalid(detail).of("background"));
        }
        if self.previous_response_id.is_some() && self.conversation.is_some() {
            let detail = "either `previous_response_id` or `conversation` can be given";
            return Err(Error::invalid(detail).of("conversation"));
        }
        match self.conversation() {
            Some("") => Err(Error::invalid("the id of the conversation is empty").of("conversation")),
            Some(_) if !self.is_stored() => {
                let detail = "what belongs to a conversation is stored with it";
                Err(Error::invalid(detail).of("store"))
            }
            _ => Ok(()),
        }
    }

    /// What is said, in order, and the instructions among it.
    pub(super) fn said(&mut self) -> Result<(Option<String>, Vec<Said>), Error> {
        let mut instructions: Vec<String> = self.instructions.iter().cloned().collect();
        let mut said = Vec::new();
        let items = match self.input.take() {
            None => return Err(Error::invalid("`input` is missing").of("input")),
            Some(Input::Text(text)) => {
                said.push(Said::Message(Message::of(Role::User, text_parts(text))));
                Vec::new()
            }
            Some(Input::Items(items)) => items,
        };
        for item in items {
            match (item.kind.as_deref().unwrap_or("message"), item.id) {
                ("message", _) => {
                    let parts = item.content.map(parts).transpose()?.unwrap_or_default();
                    match item.role.as_deref().unwrap_or_default() {
                        "system" | "developer" => instructions.push(Message::of(Role::User, parts).text()),
                        "user" => said.push(Said::Message(Message::of(Role::User, parts))),
                        "assistant" => said.push(Said::Message(Message::of(Role::Assistant, parts))),
                        other => {
                            let detail = format!("`{other}` is no role; use system, user or assistant");
                            return Err(Error::invalid(detail).of("input"));
                        }
                    }
                }
                ("item_reference", Some(id)) => said.push(Said::Reference(id)),
                // Thoughts are given back with the answer that they led to.
                ("reasoning", _) => {}
                (kind, _) => {
                    let detail = format!(
                        "an item `{}` cannot be taken; use messages",
                        kind.chars().take(40).collect::<String>()
                    );
                    return Err(Error::unsupported("input", detail));
                }
            }
        }
        let instructions = Some(instructions.join("\n\n")).filter(|text| !text.trim().is_empty());
        Ok((instructions, said))
    }

    /// What every response to it says: what was asked for, or what is so anyway.
    pub(super) fn echo(&self, model: &str) -> Map<String, Value> {
        let given = |name: &str, otherwise: Value| match self.rest.get(name) {
            Some(value) if !value.is_null() => value.clone(),
            _ => otherwise,
        };
        let number = |name: &str, otherwise: f64| match self.rest.get(name).and_then(Value::as_f64) {
            Some(value) => json!(value),
            None => json!(otherwise),
        };
        let count = |name: &str| self.rest.get(name).filter(|value| value.is_u64()).cloned();
        let text = |name: &str| self.rest.get(name).filter(|value| value.is_string()).cloned();
        let truncation = match self.rest.get("truncation").and_then(Value::as_str) {
            Some("auto") => "auto",
            _ => "disabled",
        };
        let parallel = given("parallel_tool_calls", json!(true)).as_bool().unwrap_or(true);
        let echo = json!({
            "model": model,
            "instructions": self.instructions,
            "previous_response_id": self.previous_response_id,
            "metadata": self.metadata.clone().unwrap_or_default(),
            "store": self.is_stored(),
            "background": self.is_background(),
            "tools": [],
            "tool_choice": "auto",
            "parallel_tool_calls": parallel,
            "text": {"format": {"type": "text"}},
            "truncation": truncation,
            "temperature": number("temperature", 1.0),
            "top_p": number("top_p", 1.0),
            "presence_penalty": number("presence_penalty", 0.0),
            "frequency_penalty": number("frequency_penalty", 0.0),
            "top_logprobs": 0,
            "reasoning": null,
            "max_output_tokens": count("max_output_tokens"),
            "max_tool_calls": count("max_tool_calls"),
            "service_tier": "default",
            "safety_identifier": text("safety_identifier"),
            "prompt_cache_key": text("prompt_cache_key"),
        });
        match echo {
            Value::Object(echo) => echo,
            _ => unreachable!("it is written as an object"),
        }
    }
}

fn text_parts(text: String) -> Vec<Part> {
    match text.trim().is_empty() {
        true => Vec::new(),
        false => vec![Part::Text { text }],
    }
}

fn parts(content: Content) -> Result<Vec<Part>, Error> {
    match content {
        Content::Text(text) => Ok(text_parts(text)),
        Content::Pieces(pieces) => pieces.into_iter().map(part).collect(),
    }
}

fn part(piece: Piece) -> Result<Part, Error> {
    match (piece.kind.as_str(), piece.text, piece.refusal, piece.image_url) {
        ("input_text" | "output_text" | "text", Some(text), ..) => Ok(Part::Text { text }),
        ("refusal", _, Some(text), _) => Ok(Part::Text { text }),
        ("input_image", _, _, Some(url)) => picture("input", &url),
        (kind, ..) => {
            let kind: String = kind.chars().take(40).collect();
            let detail = format!("a part `{kind}` cannot be taken; use input_text or input_image");
            Err(Error::unsupported("input", detail))
        }
    }
}
