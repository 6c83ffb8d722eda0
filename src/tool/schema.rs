//! JSON Schemas: what a call is checked against, and the shorter form that a model reads.

use std::fmt::Write;

use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use jsonschema::paths::{Location, LocationSegment};
use jsonschema::{JsonType, PatternOptions, ValidationError, Validator};
use serde_json::{Map, Value, json};

/// Errors told about one call; a model mends the first few and sees the others next time.
const ERRORS: usize = 5;
/// Bytes of one sentence, so that a large wrong value does not come back whole.
const SENTENCE: usize = 300;
/// Steps a pattern with look-around or back-references may take.
const BACKTRACKS: usize = 100_000;

/// Keywords that hold one schema.
const ONE: &[&str] = &[
    "items",
    "additionalProperties",
    "unevaluatedProperties",
    "unevaluatedItems",
    "contains",
    "propertyNames",
    "not",
    "if",
    "then",
    "else",
];
/// Keywords that hold a list of schemas.
const LIST: &[&str] = &["anyOf", "oneOf", "allOf", "prefixItems", "items"];
/// Keywords that hold schemas by a name that is not ours to touch.
const NAMED: &[&str] = &["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"];
/// Keywords that may allow properties beyond those of `properties`.
const OPENING: &[&str] = &[
    "additionalProperties",
    "unevaluatedProperties",
    "patternProperties",
    "propertyNames",
    "allOf",
    "anyOf",
    "oneOf",
    "if",
    "dependentSchemas",
    "$ref",
    "$dynamicRef",
];

/// A compiled schema of arguments.
#[derive(Debug)]
pub struct Checker {
    validator: Validator,
    known: Vec<String>,
}

impl Checker {
    /// Compiles the `input` of a [`Spec`](super::Spec).
    ///
    /// A schema that lists its properties and says nothing of others takes no others: a
    /// misspelt argument has to be heard of. References leave the schema neither for a file
    /// nor for the network. The error says what is wrong with the schema.
    pub fn new(input: &Value) -> Result<Self, String> {
        let Value::Object(schema) = input else {
            return Err(format!("the schema of its arguments is no JSON object: {}", excerpt(input, 80)));
        };
        if schema.get("type").is_some_and(|kind| kind != "object") {
            return Err(format!("its arguments must be of type `object`, not {}", schema["type"]));
        }
        let mut schema = schema.clone();
        schema.insert("type".to_owned(), "object".into());
        let known: Vec<String> = schema
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flat_map(Map::keys)
            .cloned()
            .collect();
        if schema.contains_key("properties") && !OPENING.iter().any(|key| schema.contains_key(*key)) {
            schema.insert("additionalProperties".to_owned(), false.into());
        }
        let validator = jsonschema::options()
            .offline()
            .with_pattern_options(PatternOptions::fancy_regex().backtrack_limit(BACKTRACKS))
            .build(&Value::Object(schema))
            .map_err(|error| format!("its schema is invalid: {}", excerpt(&error, SENTENCE)))?;
        Ok(Self { validator, known })
    }

    /// Checks arguments and gives them back; the error tells a model what to correct.
    pub fn check(&self, arguments: Map<String, Value>) -> Result<Map<String, Value>, String> {
        let arguments = Value::Object(arguments);
        if !self.validator.is_valid(&arguments) {
            return Err(self.describe(&arguments));
        }
        match arguments {
            Value::Object(map) => Ok(map),
            _ => unreachable!("it was wrapped above"),
        }
    }

    fn describe(&self, arguments: &Value) -> String {
        let mut sentences = Vec::new();
        let mut more = false;
        for error in self.validator.iter_errors(arguments) {
            if sentences.len() >= ERRORS {
                more = true;
                break;
            }
            self.sentences(&error, &mut sentences);
        }
        more |= sentences.len() > ERRORS;
        sentences.truncate(ERRORS);
        if more {
            sentences.push("and more".to_owned());
        }
        sentences.join("; ")
    }

    fn sentences(&self, error: &ValidationError<'_>, out: &mut Vec<String>) {
        match error.kind() {
            Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
                let top = error.instance_path().is_empty();
                for key in unexpected.iter().take(ERRORS) {
                    let path =
                        if top { key.clone() } else { format!("{}.{key}", path(error.instance_path())) };
                    let known = if top { self.known.as_slice() } else { &[] };
                    out.push(unknown(&path, key, known, top));
                }
            }
            Kind::Required { property } => {
                let name = property.as_str().unwrap_or_default();
                let at = path(error.instance_path());
                let whole = if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
                out.push(format!("the argument `{}` is missing", excerpt(&whole, SENTENCE)));
            }
            _ => out.push(located(error)),
        }
    }
}

/// Whether a value may be that of a property with this schema; the error says why not.
pub fn fits(name: &str, schema: &Value, value: &Value) -> Result<(), String> {
    let whole = json!({ "type": "object", "properties": { name: schema } });
    let given = Map::from_iter([(name.to_owned(), value.clone())]);
    Checker::new(&whole)?.check(given).map(drop)
}

fn unknown(path: &str, key: &str, known: &[String], top: bool) -> String {
    let path = excerpt(&path, SENTENCE);
    match nearest(key, known.iter().map(String::as_str), 1).first() {
        Some(near) => format!("unknown argument `{path}`; did you mean `{near}`?"),
        None if known.is_empty() && top => format!("unknown argument `{path}`; the tool takes none"),
        None if known.is_empty() => format!("unknown argument `{path}`"),
        None => format!("unknown argument `{path}`; known are {}", excerpt(&quoted(known), SENTENCE)),
    }
}

fn located(error: &ValidationError<'_>) -> String {
    let at = path(error.instance_path());
    let at = if at.is_empty() { "the arguments".to_owned() } else { format!("`{}`", excerpt(&at, 120)) };
    format!("{at}: {}", reason(error))
}

fn reason(error: &ValidationError<'_>) -> String {
    match error.kind() {
        Kind::AnyOf { context } | Kind::OneOfNotValid { context } => alternatives(error, context),
        Kind::Type { kind: TypeKind::Single(wanted) } => {
            let hint = unquoted(error.instance(), *wanted).unwrap_or_default();
            format!("{}{hint}", excerpt(error, SENTENCE))
        }
        _ => excerpt(error, SENTENCE),
    }
}

/// What each form of an `anyOf` has against the value; `null` is left out, since nobody who
/// sent something meant to send nothing.
fn alternatives(error: &ValidationError<'_>, context: &[Vec<ValidationError<'static>>]) -> String {
    let null = |error: &&ValidationError<'_>| {
        matches!(error.kind(), Kind::Type { kind: TypeKind::Single(JsonType::Null) })
    };
    let here = error.instance_path().as_str().len();
    let firsts = context.iter().filter_map(|branch| branch.first()).filter(|error| !null(error));
    let mut reasons: Vec<String> = firsts
        .take(3)
        .map(|error| match error.instance_path().as_str().len() > here {
            true => located(error),
            false => reason(error),
        })
        .collect();
    reasons.dedup();
    match reasons.is_empty() {
        true => excerpt(error, SENTENCE),
        false => reasons.join(", or "),
    }
}

/// Models like to send numbers and lists as text.
fn unquoted(value: &Value, wanted: JsonType) -> Option<String> {
    let inner: Value = serde_json::from_str(value.as_str().filter(|text| text.len() < 100)?).ok()?;
    let fits = match wanted {
        JsonType::Integer => inner.is_i64() || inner.is_u64(),
        JsonType::Number => inner.is_number(),
        JsonType::Boolean => inner.is_boolean(),
        JsonType::Array => inner.is_array(),
        JsonType::Object => inner.is_object(),
        JsonType::Null | JsonType::String => false,
    };
    fits.then(|| format!(", send {inner} without quotes"))
}

/// A location as people write it: `items[0].name`.
fn path(location: &Location) -> String {
    let mut path = String::new();
    for segment in location.segments() {
        match segment {
            LocationSegment::Property(name) if path.is_empty() => path.push_str(&name),
            LocationSegment::Property(name) => path.extend([".", &*name]),
            LocationSegment::Index(index) => path.push_str(&format!("[{index}]")),
        }
    }
    path
}

/// Those of `names` that look most like `word`, best first.
pub(super) fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>, limit: usize) -> Vec<&'a str> {
    // Distances grow with the product of the lengths, and the word comes from outside.
    let word = &word[..word.floor_char_boundary(128)];
    let mut scored: Vec<(f64, &str)> = names
        .map(|name| (strsim::normalized_damerau_levenshtein(word, name), name))
        .filter(|(score, _)| *score >= 0.6)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    scored.into_iter().take(limit).map(|(_, name)| name).collect()
}

/// Names in backticks with commas between.
pub(super) fn quoted<S: AsRef<str>>(names: &[S]) -> String {
    names.iter().map(|name| format!("`{}`", name.as_ref())).collect::<Vec<_>>().join(", ")
}

/// The first `limit` bytes of what prints as more, without printing the rest.
pub(super) fn excerpt(value: &impl std::fmt::Display, limit: usize) -> String {
    struct Short {
        text: String,
        limit: usize,
    }
    impl Write for Short {
        fn write_str(&mut self, piece: &str) -> std::fmt::Result {
            let room = self.limit - self.text.len();
            self.text.push_str(&piece[..piece.floor_char_boundary(room)]);
            if piece.len() > room { Err(std::fmt::Error) } else { Ok(()) }
        }
    }
    let mut short = Short { text: String::new(), limit };
    if write!(short, "{value}").is_err() {
        short.text.push('…');
    }
    short.text
}

/// A schema as a model reads it: without what costs tokens and says nothing.
///
/// Left out are titles (those that annotate, not properties of that name), `$schema`, closed
/// `additionalProperties`, defaults that are nothing (`null`, `""`, `false`, `[]`, `{}`), and the
/// `null` of properties that may be absent anyway. Descriptions, enumerations and bounds stay.
pub fn for_model(schema: &Value) -> Value {
    let Value::Object(schema) = schema else { return schema.clone() };
    let required = schema.get("required").and_then(Value::as_array);
    let mut out = Map::new();
    for (key, value) in schema {
        let key = key.as_str();
        let dropped = match key {
            "title" => value.is_string(),
            "$schema" => true,
            "additionalProperties" | "unevaluatedProperties" => *value == Value::Bool(false),
            "default" => is_nothing(value),
            "required" => value.as_array().is_some_and(Vec::is_empty),
            _ => false,
        };
        if dropped {
            continue;
        }
        let value = match value {
            Value::Object(map) if key == "properties" => {
                let is_required =
                    |name: &str| required.is_some_and(|list| list.iter().any(|entry| entry == name));
                let project = |(name, inner): (&String, &Value)| {
                    let inner = for_model(inner);
                    (name.clone(), if is_required(name) { inner } else { present(inner) })
                };
                Value::Object(map.iter().map(project).collect())
            }
            Value::Object(map) if NAMED.contains(&key) => {
                Value::Object(map.iter().map(|(name, inner)| (name.clone(), for_model(inner))).collect())
            }
            Value::Object(_) if ONE.contains(&key) => for_model(value),
            Value::Array(list) if LIST.contains(&key) => list.iter().map(for_model).collect(),
            _ => value.clone(),
        };
        out.insert(key.to_owned(), value);
    }
    Value::Object(out)
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// The schema of an optional property without its `null`.
fn present(schema: Value) -> Value {
    let Value::Object(mut schema) = schema else { return schema };
    if let Some(Value::Array(kinds)) = schema.get_mut("type")
        && kinds.iter().any(|kind| kind != "null")
    {
        kinds.retain(|kind| kind != "null");
        if let [kind] = kinds.as_slice() {
            let kind = kind.clone();
            schema.insert("type".to_owned(), kind);
        }
    }
    let empty = |form: &Value| form.get("type").is_some_and(|kind| kind == "null");
    if let Some(Value::Array(forms)) = schema.get_mut("anyOf")
        && !forms.iter().all(empty)
    {
        forms.retain(|form| !empty(form));
        if let [Value::Object(form)] = forms.as_slice() {
            let form = form.clone();
            schema.shift_remove("anyOf");
            for (key, value) in form {
                schema.entry(key).or_insert(value);
            }
        }
    }
    Value::Object(schema)
}
