//! Between our messages and the client's, both directions.

use std::collections::HashSet;

use genai::chat::{
    Binary, CacheControl, ChatMessage, ChatRequest, ContentPart, Tool, ToolCall as ClientCall, ToolResponse,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::catalog::Kind;
use super::watch::Pieces;
use super::{Request, ToolDefinition, schema};
use crate::message::{Arguments, Block, Message, Part, Replay, Role, ToolCall, ToolResult, Usage};

/// Whom a request is for.
#[derive(Debug, Clone, Copy)]
pub struct Audience<'a> {
    /// The provider's name: only its own reasoning is replayed to it.
    pub provider: &'a str,
    /// How it is spoken to.
    pub kind: Kind,
}

impl Audience<'_> {
    /// The request in the client's words.
    ///
    /// For Anthropic it carries four cache marks: after the tools, after the system prompt and
    /// after the last two messages that are not the model's own. What stands before the last
    /// but one is what the previous request ended with, so it is found again.
    pub fn request(&self, request: &Request) -> ChatRequest {
        let mut messages = Vec::new();
        for message in &request.messages {
            match message.role {
                Role::User => messages.push(user(message)),
                Role::Assistant => messages.extend(self.assistant(message)),
                Role::Tool => messages.extend(self.results(message)),
            }
        }
        let cached = self.kind == Kind::Anthropic;
        if cached {
            let own = |message: &&mut ChatMessage| message.role != genai::chat::ChatRole::Assistant;
            for message in messages.iter_mut().rev().filter(own).take(2) {
                message.options = Some(CacheControl::Ephemeral.into());
            }
        }
        let mut chat = ChatRequest::default();
        if !request.system.trim().is_empty() {
            if cached {
                let system = ChatMessage::system(request.system.clone());
                messages.insert(0, system.with_options(CacheControl::Ephemeral));
            } else {
                chat = chat.with_system(request.system.clone());
            }
        }
        if !request.tools.is_empty() {
            let mut tools: Vec<Tool> =
                request.tools.iter().map(|definition| tool(definition, self.kind)).collect();
            if cached && let Some(last) = tools.pop() {
                tools.push(last.with_cache_control(CacheControl::Ephemeral));
            }
            chat = chat.with_tools(tools);
        }
        chat.append_messages(messages)
    }

    fn assistant(&self, message: &Message) -> Option<ChatMessage> {
        let parts = self.replayed(message).unwrap_or_else(|| plain(message));
        let parts: Vec<ContentPart> = parts
            .into_iter()
            .map(|part| match part {
                ContentPart::ToolCall(call) => {
                    ContentPart::ToolCall(ClientCall { call_id: self.id(&call.call_id), ..call })
                }
                other => other,
            })
            .collect();
        (!parts.is_empty()).then(|| ChatMessage::assistant(parts))
    }

    // The provider's own form, as long as it still is the same message: whoever mended or
    // shortened the conversation may have changed the calls.
    fn replayed(&self, message: &Message) -> Option<Vec<ContentPart>> {
        let replay = message.replay.as_ref().filter(|replay| replay.provider == self.provider)?;
        let parts: Vec<ContentPart> = serde_json::from_value(replay.content.clone()).ok()?;
        let ids = parts.iter().filter_map(ContentPart::as_tool_call).map(|call| call.call_id.as_str());
        ids.eq(message.calls().map(|call| call.id.as_str())).then_some(parts)
    }

    // Results are text on every wire; pictures follow as if the user had sent them.
    fn results(&self, message: &Message) -> Vec<ChatMessage> {
        let mut responses = Vec::new();
        let mut pictures = Vec::new();
        for result in message.tool_results() {
            let response = ToolResponse::new(self.id(&result.call), result_text(result));
            responses.push(ContentPart::ToolResponse(response.with_fn_name(result.name.clone())));
            for block in &result.content {
                if let Block::Image { mime, data } = block
                    && is_visible(mime)
                {
                    pictures.push(ContentPart::from_text(format!(
                        "A picture from the result of `{}`:",
                        result.name
                    )));
                    pictures.push(ContentPart::Binary(Binary::from_base64(mime.clone(), data.clone(), None)));
                }
            }
        }
        // Ollama's adapter keeps one result per message.
        let mut messages: Vec<ChatMessage> = match self.kind {
            Kind::Ollama => responses.into_iter().map(|response| ChatMessage::tool(vec![response])).collect(),
            _ if responses.is_empty() => Vec::new(),
            _ => vec![ChatMessage::tool(responses)],
        };
        if !pictures.is_empty() {
            messages.push(ChatMessage::user(pictures));
        }
        messages
    }

    // Ids cross from vendor to vendor when a fallback steps in; each has its own idea of what
    // an id looks like. Mistral's is nine letters and digits, exactly.
    fn id(&self, id: &str) -> String {
        let fits = match self.kind {
            Kind::Mistral => id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()),
            _ => is_id(id),
        };
        if fits {
            return id.to_owned();
        }
        let digest = Sha256::digest(id.as_bytes());
        digest
            .iter()
            .take(9)
            .map(|byte| char::from(b"abcdefghijklmnopqrstuvwxyz012345"[usize::from(byte % 32)]))
            .collect()
    }

    /// The message of an answer. `content` is the client's form of it, without the calls.
    pub fn message(&self, answer: Answer, history: &[Message]) -> Message {
        let Answer { text, reasoning, content, calls } = answer;
        let calls = unique(calls, history);
        let mut parts = Vec::new();
        if !reasoning.trim().is_empty() {
            parts.push(Part::Reasoning { text: reasoning.clone() });
        }
        if !text.trim().is_empty() {
            parts.push(Part::text(text.clone()));
        }
        parts.extend(calls.iter().map(|(call, _)| Part::Call(call.clone())));
        let replay = self.replay(&text, reasoning, content, &calls);
        Message { role: Role::Assistant, parts, replay }
    }

    fn replay(
        &self,
        text: &str,
        reasoning: String,
        content: Vec<ContentPart>,
        calls: &[(ToolCall, Option<Vec<String>>)],
    ) -> Option<Replay> {
        let is_plain = |part: &ContentPart| matches!(part, ContentPart::Text(_) | ContentPart::ToolCall(_));
        let mut parts: Vec<ContentPart> =
            content.into_iter().filter(|part| part.as_tool_call().is_none()).collect();
        if parts.is_empty() && !text.trim().is_empty() {
            parts.push(ContentPart::from_text(text));
        }
        if self.kind.takes_reasoning_back() && !reasoning.is_empty() {
            parts.insert(0, ContentPart::ReasoningContent(reasoning));
        }
        if parts.iter().all(is_plain) && calls.iter().all(|(_, signatures)| signatures.is_none()) {
            return None;
        }
        parts.extend(calls.iter().map(|(call, signatures)| client_call(call, signatures.clone())));
        let content = serde_json::to_value(parts).ok()?;
        Some(Replay { provider: self.provider.to_owned(), content })
    }
}

/// What a model said, before it is a message.
#[derive(Debug, Default)]
pub struct Answer {
    /// Its text.
    pub text: String,
    /// Its reasoning, as far as it showed it.
    pub reasoning: String,
    /// The client's form of it: signatures and opaque blocks among them.
    pub content: Vec<ContentPart>,
    /// The calls.
    pub calls: Vec<Called>,
}

/// A call before its id is settled.
#[derive(Debug)]
pub struct Called {
    id: String,
    name: String,
    arguments: Arguments,
    signatures: Option<Vec<String>>,
}

impl From<ClientCall> for Called {
    fn from(call: ClientCall) -> Self {
        Self {
            id: call.call_id,
            name: call.fn_name,
            arguments: call.fn_arguments.into(),
            signatures: call.thought_signatures,
        }
    }
}

impl From<Pieces> for Called {
    fn from(call: Pieces) -> Self {
        let arguments = Arguments::parse(&call.arguments);
        Self { id: call.id, name: call.name, arguments, signatures: None }
    }
}

impl Called {
    /// Whether it names a tool at all.
    pub fn is_named(&self) -> bool {
        !self.name.trim().is_empty()
    }
}

/// What a call cost; `None` if the provider said nothing.
pub fn usage(usage: &genai::chat::Usage) -> Option<Usage> {
    let number = |tokens: Option<i32>| tokens.and_then(|tokens| u64::try_from(tokens).ok());
    if usage.prompt_tokens.is_none() && usage.completion_tokens.is_none() {
        return None;
    }
    let cached = usage.prompt_tokens_details.as_ref().and_then(|details| details.cached_tokens);
    Some(Usage {
        input: number(usage.prompt_tokens).unwrap_or_default(),
        cached: number(cached).unwrap_or_default(),
        output: number(usage.completion_tokens).unwrap_or_default(),
        cost: None,
    })
}

// Ids that are missing, malformed or taken become `call_N`, N being the first number that is
// free when one counts on from the calls of the conversation. The same answer to the same
// conversation gets the same ids.
fn unique(calls: Vec<Called>, history: &[Message]) -> Vec<(ToolCall, Option<Vec<String>>)> {
    let mut taken: HashSet<String> =
        history.iter().flat_map(Message::calls).map(|call| call.id.clone()).collect();
    let mut number = taken.len();
    let mut settle = |id: String| {
        let mut id = id;
        while !is_id(&id) || !taken.insert(id.clone()) {
            number += 1;
            id = format!("call_{number}");
        }
        id
    };
    let settled = calls.into_iter().map(|call| {
        let Called { id, name, arguments, signatures } = call;
        (ToolCall { id: settle(id), name, arguments }, signatures)
    });
    settled.collect()
}

fn is_id(id: &str) -> bool {
    (1..=64).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

fn user(message: &Message) -> ChatMessage {
    let mut parts = Vec::new();
    for part in &message.parts {
        match part {
            Part::Text { text } if !text.trim().is_empty() => parts.push(ContentPart::from_text(text)),
            Part::Image { mime, data } if is_visible(mime) => {
                parts.push(ContentPart::Binary(Binary::from_base64(mime.clone(), data.clone(), None)));
            }
            Part::Image { mime, .. } => {
                parts.push(ContentPart::from_text(format!(
                    "[a picture of type {mime}, which cannot be shown]"
                )));
            }
            _ => {}
        }
    }
    if parts.is_empty() {
        // Anthropic takes no message without content.
        parts.push(ContentPart::from_text("(nothing)"));
    }
    ChatMessage::user(parts)
}

fn plain(message: &Message) -> Vec<ContentPart> {
    let parts = message.parts.iter().filter_map(|part| match part {
        Part::Text { text } if !text.trim().is_empty() => Some(ContentPart::from_text(text)),
        Part::Call(call) => Some(client_call(call, None)),
        _ => None,
    });
    parts.collect()
}

// Vendors want an object, also of a call that had none.
fn client_call(call: &ToolCall, signatures: Option<Vec<String>>) -> ContentPart {
    let arguments = match &call.arguments {
        Arguments::Object(map) => Value::Object(map.clone()),
        Arguments::Unreadable(text) => json!({ "unreadable": text }),
    };
    ContentPart::ToolCall(ClientCall {
        call_id: call.id.clone(),
        fn_name: call.name.clone(),
        fn_arguments: arguments,
        thought_signatures: signatures,
    })
}

fn result_text(result: &ToolResult) -> String {
    let mut text = result.text();
    if text.trim().is_empty() {
        text = match &result.structured {
            Some(value) => value.to_string(),
            None => "(no output)".to_owned(),
        };
    }
    let says_so = text.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("error"));
    match result.is_error && !says_so {
        true => format!("Error: {text}"),
        false => text,
    }
}

fn tool(definition: &ToolDefinition, kind: Kind) -> Tool {
    Tool::new(definition.name.clone())
        .with_description(definition.description.clone())
        .with_schema(Value::Object(schema::fitted(&definition.parameters, kind)))
}

// What all vendors that see pictures can read.
fn is_visible(mime: &str) -> bool {
    matches!(mime, "image/png" | "image/jpeg" | "image/gif" | "image/webp")
}
