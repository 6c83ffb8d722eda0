//! URIs of documents, and templates for many of them (RFC 6570, simple expansion).

use std::path::Path;

use serde_json::{Map, Value};

/// The variables of a template in this URI, decoded; `None` if the template does not make it. A
/// value is not empty and has no `/`, `?` or `#`.
pub fn read(template: &str, uri: &str) -> Option<Map<String, Value>> {
    let (mut template, mut uri, mut values) = (template, uri, Map::new());
    while let Some((literal, rest)) = template.split_once('{') {
        let (name, after) = rest.split_once('}')?;
        uri = uri.strip_prefix(literal)?;
        // As far as the text that follows, which begins the next part.
        let next = after.split('{').next().unwrap_or_default();
        let end = match next {
            "" => uri.len(),
            next => uri.find(next)?,
        };
        let (value, left) = uri.split_at(end);
        if value.is_empty() || value.contains(['/', '?', '#']) {
            return None;
        }
        values.insert(name.to_owned(), decoded(value)?.into());
        (template, uri) = (after, left);
    }
    (template == uri).then_some(values)
}

/// The URI of a folder.
pub fn of_folder(folder: &Path) -> String {
    format!("file://{}", encoded(folder.as_os_str().as_encoded_bytes()))
}

/// A path as it may stand in a URI.
pub fn encoded(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for &byte in path {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                text.push(byte.into())
            }
            byte => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// Whether a URI stands for many.
pub fn is_template(uri: &str) -> bool {
    uri.contains('{')
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        // The parser would take a sign as well.
        digits.iter().all(u8::is_ascii_hexdigit).then_some(())?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn variables_are_read() {
        let value = |template, uri| read(template, uri).map(Value::Object);
        assert_eq!(value("a://b", "a://b"), Some(json!({})));
        assert_eq!(value("a://{x}", "a://b%20c%C3%BC"), Some(json!({"x": "b cü"})));
        assert_eq!(value("a://{x}/{y}.md", "a://b/c.d.md"), Some(json!({"x": "b", "y": "c.d"})));
        for uri in ["a://", "a://b/c", "a://b%2", "a://b%ff", "a://b%+1", "b://c", "a://b?c"] {
            assert_eq!(value("a://{x}", uri), None, "{uri}");
        }
        assert_eq!(value("a://b", "a://bc"), None);
        assert_eq!(value("a://{x", "a://b"), None);
    }

    #[test]
    fn paths_are_encoded() {
        assert_eq!(of_folder(Path::new("/home/me/a b/ü%")), "file:///home/me/a%20b/%C3%BC%25");
    }
}
