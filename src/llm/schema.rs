//! Schemas of tools as vendors take them. Pure.
//!
//! What is offered is a copy: calls are checked against the schema as it was written. A keyword
//! that a vendor refuses is taken out, or said in words, so that no tool costs all the others.

use serde_json::{Map, Value, json};

use super::ToolDefinition;
use super::catalog::Kind;

/// How deep references are followed. One that leads back to itself is any object.
const DEPTH: usize = 8;
/// Characters of a keyword that is said in words.
const WORDS: usize = 200;
/// Keywords with an effect that Gemini knows (Google, "Structured output", JSON Schema support).
const GEMINI: [&str; 13] = [
    "type",
    "format",
    "title",
    "description",
    "enum",
    "items",
    "minItems",
    "maxItems",
    "minimum",
    "maximum",
    "anyOf",
    "properties",
    "required",
];

/// The schema of a tool's arguments, as vendors of this kind take it.
pub fn fitted(schema: &Value, kind: Kind) -> Map<String, Value> {
    let mut top = object(resolved(schema, schema, 0));
    merge(&mut top);
    flatten(&mut top);
    top.insert("type".to_owned(), json!("object"));
    // OpenAI rejects an object schema that lists no properties.
    top.entry("properties").or_insert_with(|| json!({}));
    let fitted = match kind {
        Kind::Gemini => narrow(&inlined(&Value::Object(top), schema, 0)),
        _ => complete(Value::Object(top)),
    };
    object(fitted)
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// The schema that a reference means; itself, if it is none.
fn resolved(schema: &Value, root: &Value, depth: usize) -> Value {
    let Some(reference) = schema.get("$ref").and_then(Value::as_str) else { return schema.clone() };
    let target = reference.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
    match target {
        Some(target) if depth < DEPTH => {
            let mut out = object(resolved(target, root, depth + 1));
            let own = object(schema.clone());
            out.extend(own.into_iter().filter(|(key, _)| key != "$ref"));
            Value::Object(out)
        }
        _ => json!({"type": "object"}),
    }
}

/// All of it without references.
fn inlined(schema: &Value, root: &Value, depth: usize) -> Value {
    if depth > DEPTH {
        return json!({"type": "object"});
    }
    match resolved(schema, root, depth) {
        Value::Object(map) => {
            let next = if schema.get("$ref").is_some() { depth + 1 } else { depth };
            let inner = |(key, value): (String, Value)| match (key.as_str(), value) {
                ("$defs" | "definitions", _) => None,
                // They are names here, not keywords.
                ("properties", Value::Object(all)) => {
                    let all = all.into_iter().map(|(name, value)| (name, inlined(&value, root, next)));
                    Some((key, Value::Object(all.collect())))
                }
                (_, value) => Some((key, inlined(&value, root, next))),
            };
            Value::Object(map.into_iter().filter_map(inner).collect())
        }
        Value::Array(items) => items.iter().map(|item| inlined(item, root, depth)).collect(),
        other => other,
    }
}

/// Puts what `allOf` lists into the schema itself.
fn merge(schema: &mut Map<String, Value>) {
    let Some(Value::Array(parts)) = schema.shift_remove("allOf") else { return };
    for part in parts {
        let mut part = object(part);
        merge(&mut part);
        for (key, value) in part {
            match (schema.get_mut(&key), value) {
                (None, value) => {
                    schema.insert(key, value);
                }
                (Some(Value::Object(all)), Value::Object(more)) if key == "properties" => {
                    for (name, value) in more {
                        all.entry(name).or_insert(value);
                    }
                }
                (Some(Value::Array(all)), Value::Array(more)) if key == "required" => {
                    for name in more {
                        if !all.contains(&name) {
                            all.push(name);
                        }
                    }
                }
                // What was said first counts.
                (Some(_), _) => {}
            }
        }
    }
}

/// Makes one object of forms of which the arguments have one: vendors take none at the top. What
/// not all of them require is required no more; the words say what the forms were.
fn flatten(schema: &mut Map<String, Value>) {
    let forms: Vec<Value> = ["anyOf", "oneOf"]
        .iter()
        .filter_map(|key| schema.shift_remove(*key)?.as_array().cloned())
        .flatten()
        .collect();
    for key in ["not", "if", "then", "else", "enum", "const"] {
        if let Some(value) = schema.shift_remove(key) {
            tell(schema, key, &value);
        }
    }
    if forms.is_empty() {
        return;
    }
    let mut properties = object(schema.shift_remove("properties").unwrap_or_default());
    let names = |form: &Value| -> Vec<String> {
        let names = form["required"].as_array().into_iter().flatten();
        names.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let words: Vec<String> =
        forms.iter().map(|form| names(form).join(" and ")).filter(|form| !form.is_empty()).collect();
    for form in forms {
        for (name, value) in object(object(form).shift_remove("properties").unwrap_or_default()) {
            properties.entry(name).or_insert(value);
        }
    }
    schema.insert("properties".to_owned(), Value::Object(properties));
    if !words.is_empty() {
        say(schema, &format!("Give {}.", words.join(", or ")));
    }
}

/// Says a keyword in words.
fn tell(schema: &mut Map<String, Value>, key: &str, value: &Value) {
    let text = value.to_string();
    say(schema, &format!("({key}: {})", &text[..text.floor_char_boundary(WORDS)]));
}

fn say(schema: &mut Map<String, Value>, words: &str) {
    let said = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    let text = format!("{said} {words}").trim().to_owned();
    schema.insert("description".to_owned(), json!(text));
}

/// What OpenAI and Anthropic want beside: each array says of what.
fn complete(schema: Value) -> Value {
    match schema {
        Value::Object(mut map) => {
            if map.get("type").is_some_and(|kind| kind == "array") {
                map.entry("items").or_insert_with(|| json!({}));
            }
            Value::Object(map.into_iter().map(|(key, value)| (key, complete(value))).collect())
        }
        Value::Array(items) => items.into_iter().map(complete).collect(),
        other => other,
    }
}

/// What is left of a schema for Gemini.
fn narrow(schema: &Value) -> Value {
    let Value::Object(schema) = schema else { return json!({}) };
    let mut schema = schema.clone();
    merge(&mut schema);
    if let Some(value) = schema.shift_remove("const") {
        schema.entry("enum").or_insert_with(|| json!([value]));
    }
    if let Some(forms) = schema.shift_remove("oneOf") {
        schema.entry("anyOf").or_insert(forms);
    }
    if let Some(Value::Array(kinds)) = schema.get("type").cloned() {
        let real: Vec<_> = kinds.iter().filter(|kind| *kind != "null").cloned().collect();
        match real.as_slice() {
            [kind] => drop(schema.insert("type".to_owned(), kind.clone())),
            _ => {
                schema.shift_remove("type");
                let forms = real.iter().map(|kind| json!({ "type": kind })).collect();
                schema.entry("anyOf").or_insert(Value::Array(forms));
            }
        }
    }
    let mut out = Map::new();
    let mut lost = Vec::new();
    for (key, value) in schema {
        let value = match key.as_str() {
            // They are names here, not keywords.
            "properties" => object(value).iter().map(|(name, inner)| (name.clone(), narrow(inner))).collect(),
            "items" => narrow(&value),
            "anyOf" => value.as_array().into_iter().flatten().map(narrow).collect(),
            "enum" => {
                let texts =
                    |value: &Value| json!(value.as_str().map_or_else(|| value.to_string(), str::to_owned));
                value.as_array().into_iter().flatten().map(texts).collect()
            }
            key if GEMINI.contains(&key) => value,
            "$schema" | "$id" | "$anchor" | "$comment" | "default" | "examples" | "additionalProperties" => {
                continue;
            }
            _ => {
                lost.push((key, value));
                continue;
            }
        };
        out.insert(key, value);
    }
    lost.iter().for_each(|(key, value)| tell(&mut out, key, value));
    if out.contains_key("enum") {
        out.insert("type".to_owned(), json!("string"));
    }
    if out.get("type").is_some_and(|kind| kind == "array") {
        out.entry("items").or_insert_with(|| json!({"type": "string"}));
    }
    if let Some(names) =
        out.get("properties").and_then(Value::as_object).map(|all| all.keys().cloned().collect::<Vec<_>>())
        && let Some(Value::Array(required)) = out.get_mut("required")
    {
        required.retain(|name| name.as_str().is_some_and(|name| names.iter().any(|known| known == name)));
    }
    Value::Object(out)
}

/// The tool that a vendor has named in refusing a request, by its name or by its place in the list.
pub fn blamed<'a>(message: &str, tools: &'a [ToolDefinition]) -> Option<&'a str> {
    let place = |mark: &str| {
        let (_, rest) = message.rsplit_once(mark)?;
        let digits = &rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())];
        digits.parse::<usize>().ok().and_then(|index| tools.get(index))
    };
    let word = |name: &str| {
        let is_part = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        message.match_indices(name).any(|(at, _)| {
            let before = message[..at].chars().next_back();
            let after = message[at + name.len()..].chars().next();
            !before.is_some_and(is_part) && !after.is_some_and(is_part)
        })
    };
    let is_about_schemas =
        ["schema", "tool", "function"].iter().any(|word| message.to_lowercase().contains(word));
    let found = ["function_declarations[", "tools[", "tools."].iter().find_map(|mark| place(mark));
    let found = found.or_else(|| tools.iter().find(|tool| word(&tool.name)));
    found.filter(|_| is_about_schemas).map(|tool| tool.name.as_str())
}
