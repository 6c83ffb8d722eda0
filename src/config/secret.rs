//! Values that must not be seen.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use toml::{Table, Value};

/// A secret, or where to find it: `env:NAME`, `file:PATH`, or the value itself.
///
/// It prints and serialises as stars unless it is a reference, or the path of a SQLite file,
/// which give nothing away.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

/// Why a secret could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The variable is not set, empty, or not text.
    #[error("the environment variable `{0}`, which holds a secret, is not set; export it and start again")]
    Unset(String),
    /// The file could not be read.
    #[error("cannot read the secret in `{path}`: {reason}")]
    File {
        /// The file.
        path: String,
        /// Why.
        reason: std::io::Error,
    },
}

impl Secret {
    /// A secret as it was written.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Whether nothing is configured.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value itself. The one way to it, easy to search for.
    pub fn reveal(&self) -> Result<String, SecretError> {
        if let Some(name) = self.0.strip_prefix("env:") {
            let value = std::env::var(name).ok().filter(|value| !value.is_empty());
            return value.ok_or_else(|| SecretError::Unset(name.to_owned()));
        }
        if let Some(path) = self.0.strip_prefix("file:") {
            let text = std::fs::read_to_string(path)
                .map_err(|reason| SecretError::File { path: path.to_owned(), reason })?;
            return Ok(text.trim_end_matches(['\r', '\n']).to_owned());
        }
        Ok(self.0.clone())
    }

    fn is_harmless(&self) -> bool {
        self.0.is_empty() || ["env:", "file:", "sqlite:"].iter().any(|prefix| self.0.starts_with(prefix))
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_harmless() { &self.0 } else { "****" })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({self})")
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A value that only a skill knows, so that any text in it may be a secret: it prints and
/// serialises with its texts as [`Secret`] shows them.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Private(Value);

impl Private {
    /// The value itself as JSON, its references read.
    pub fn reveal(&self) -> Result<Json, SecretError> {
        reveal(&self.0)
    }
}

impl fmt::Debug for Private {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", hidden(&self.0))
    }
}

impl Serialize for Private {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        hidden(&self.0).serialize(serializer)
    }
}

fn hidden(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(Secret::new(text).to_string()),
        Value::Array(items) => Value::Array(items.iter().map(hidden).collect()),
        Value::Table(table) => {
            Value::Table(table.iter().map(|(key, value)| (key.clone(), hidden(value))).collect::<Table>())
        }
        other => other.clone(),
    }
}

fn reveal(value: &Value) -> Result<Json, SecretError> {
    Ok(match value {
        Value::String(text) => Secret::new(text).reveal()?.into(),
        Value::Integer(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Boolean(flag) => (*flag).into(),
        Value::Datetime(time) => time.to_string().into(),
        Value::Array(items) => items.iter().map(reveal).collect::<Result<_, _>>()?,
        Value::Table(table) => {
            let entries = table.iter().map(|(key, value)| Ok((key.clone(), reveal(value)?)));
            Json::Object(entries.collect::<Result<_, SecretError>>()?)
        }
    })
}
