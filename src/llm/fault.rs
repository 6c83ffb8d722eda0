//! From what a server said to an [`Error`] a person can read. Pure.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::Error;

/// Characters of a server's words that are kept.
const WORDS: usize = 300;

/// What to say about a server, and what never to say.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The provider's name.
    pub provider: &'a str,
    /// Its key; never repeated, even where the server repeats it.
    pub key: Option<&'a str>,
}

impl Source<'_> {
    /// The error for an HTTP status that is no success.
    pub fn status(&self, status: u16, body: &str, retry_after: Option<Duration>) -> Error {
        let provider = self.provider.to_owned();
        let mut message = self.words(body);
        if message.is_empty() {
            message = reason(status).to_owned();
        }
        // Gemini reports a wrong key as a bad request, OpenAI an empty account as a crowd.
        let wrong_key = body.contains("API_KEY_INVALID") || body.contains("API key not valid");
        let no_credit = body.contains("insufficient_quota");
        match status {
            401 | 403 => Error::Unauthorized { provider, message },
            400 if wrong_key => Error::Unauthorized { provider, message },
            429 if no_credit => Error::Rejected { provider, status, message },
            408 | 409 | 429 | 500.. => {
                let retry_after = retry_after.or_else(|| gemini_delay(body));
                Error::Unavailable { provider, status, message, retry_after }
            }
            _ => Error::Rejected { provider, status, message },
        }
    }

    /// The error for an error object that came with status 200, as in the middle of a stream.
    pub fn object(&self, error: &Value) -> Error {
        let inner = error.get("error").filter(|inner| inner.is_object()).unwrap_or(error);
        let word = |key: &str| inner.get(key).and_then(Value::as_str).unwrap_or_default();
        let said = format!("{} {} {}", word("type"), word("code"), word("status")).to_ascii_lowercase();
        let number = inner.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
        let status = match number {
            Some(code @ 400..=599) => code,
            _ if said.contains("insufficient_quota") => 402,
            _ if said.contains("rate_limit") || said.contains("resource_exhausted") => 429,
            _ if said.contains("overloaded") => 529,
            _ if ["authentication", "permission", "api_key"].iter().any(|word| said.contains(word)) => 401,
            _ if said.contains("invalid")
                || said.contains("not_found")
                || said.contains("context_length") =>
            {
                400
            }
            _ => 500,
        };
        self.status(status, &error.to_string(), None)
    }

    /// The error for an answer that is no answer.
    pub fn unreadable(&self, what: &str, excerpt: &str) -> Error {
        let words = self.words(excerpt);
        let message = match words.is_empty() {
            true => what.to_owned(),
            false => format!("{what}: {words}"),
        };
        Error::Unreadable { provider: self.provider.to_owned(), message: clip(&message) }
    }

    /// The error for a connection that failed.
    pub fn network(&self, message: &str) -> Error {
        Error::Network { provider: self.provider.to_owned(), message: self.words(message) }
    }

    /// One short line out of whatever a server sent: the message in its JSON, or its page
    /// without tags; the key blotted out.
    pub fn words(&self, body: &str) -> String {
        let said = serde_json::from_str(body).ok().and_then(|value| message_in(&value));
        let text = said.unwrap_or_else(|| body.to_owned());
        let text = match text.contains('<') {
            true => without_tags(&text),
            false => text,
        };
        // A server must not steer the terminal its words end up on.
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some(key) = self.key.filter(|key| key.len() >= 4) {
            line = line.replace(key, "****");
        }
        clip(&line)
    }
}

/// How long `Retry-After` asks to wait: seconds, or a date.
pub fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

fn gemini_delay(body: &str) -> Option<Duration> {
    let (_, rest) = body.split_once("\"retryDelay\"")?;
    let text = rest.split('"').nth(1)?;
    Duration::try_from_secs_f64(text.strip_suffix('s')?.parse().ok()?).ok()
}

// `{"error": {"message"}}`, `{"error": ""}`, `{"message"}`, `{"detail"}`, and lists of them.
fn message_in(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(list) => list.first().and_then(message_in),
        Value::Object(map) => ["error", "message", "detail", "errors", "msg"]
            .iter()
            .find_map(|key| map.get(*key).filter(|value| !value.is_null()))
            .and_then(message_in),
        _ => None,
    }
}

fn without_tags(page: &str) -> String {
    let mut text = String::new();
    let mut rest = page;
    while let Some(start) = rest.find('<') {
        text.push_str(&rest[..start]);
        text.push(' ');
        let tag = &rest[start..];
        // What stands inside style and script is not for reading.
        let hidden = ["style", "script"].iter().find_map(|name| {
            let opens = tag.get(1..=name.len()).is_some_and(|tag| tag.eq_ignore_ascii_case(name));
            opens.then(|| tag.to_ascii_lowercase().find(&format!("</{name}")).unwrap_or(tag.len()))
        });
        let after = &tag[hidden.unwrap_or(0)..];
        rest = after.find('>').map_or("", |end| &after[end + 1..]);
    }
    text.push_str(rest);
    let entities =
        [("&nbsp;", " "), ("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")];
    entities.iter().fold(text, |text, (entity, char)| text.replace(entity, char))
}

fn clip(line: &str) -> String {
    if line.chars().count() <= WORDS {
        return line.to_owned();
    }
    line.chars().take(WORDS - 1).chain(['…']).collect()
}

fn reason(status: u16) -> &'static str {
    let known = reqwest::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    known.unwrap_or("no explanation")
}
