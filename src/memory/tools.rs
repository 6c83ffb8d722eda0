//! The memory as tools: what the assistant can look up, note and, if a person agrees, forget.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::{Error, Memory, Noted, Reader, Trust};
use crate::tool::{self, Annotations, Call, Output, Spec, Toolset};

/// Memories that one search returns.
const FOUND: usize = 5;

/// Opens the memory: a list of tools must not open a database.
pub type Open = Arc<dyn Fn() -> BoxFuture<'static, Result<Arc<Memory>, String>> + Send + Sync>;

/// The tools of a memory.
pub struct Tools {
    open: Open,
    specs: [Arc<Spec>; 3],
}

impl Tools {
    /// The tools of the memory that `open` opens when one of them is called.
    pub fn new(open: Open) -> Self {
        Self { open, specs: [search(), note(), forget()].map(Arc::new) }
    }
}

fn search() -> Spec {
    Spec {
        name: "memory.search".to_owned(),
        description: "Search earlier conversations and notes.".to_owned(),
        input: input("query"),
        annotations: Annotations { read_only: true, destructive: false, idempotent: true, open_world: false },
        examples: vec!["what do you remember about the staging server".to_owned()],
        ..Spec::default()
    }
}

fn note() -> Spec {
    Spec {
        name: "memory.note".to_owned(),
        description: "Remember a sentence for later conversations.".to_owned(),
        input: input("note"),
        annotations: Annotations {
            read_only: false,
            destructive: false,
            idempotent: false,
            open_world: false,
        },
        examples: vec!["remember that the staging server is called heron".to_owned()],
        ..Spec::default()
    }
}

fn forget() -> Spec {
    Spec {
        name: "memory.forget".to_owned(),
        description: "Forget a memory.".to_owned(),
        input: input("id"),
        annotations: Annotations { read_only: false, destructive: true, idempotent: true, open_world: false },
        examples: vec!["forget what you noted about me".to_owned()],
        ..Spec::default()
    }
}

fn input(name: &str) -> Value {
    json!({
        "type": "object",
        "properties": {name: {"type": "string"}},
        "required": [name],
    })
}

#[async_trait]
impl Toolset for Tools {
    fn specs(&self) -> Vec<Arc<Spec>> {
        self.specs.to_vec()
    }

    async fn call(&self, call: Call) -> Result<Output, tool::Error> {
        let memory = (self.open)().await.map_err(tool::Error::Failed)?;
        let reader = Reader::here(call.context.session.as_deref().unwrap_or_default());
        let text = |name: &str| call.arguments.get(name).and_then(Value::as_str).unwrap_or_default();
        let done = match call.spec.name.as_str() {
            "memory.search" => found(&memory, text("query"), &reader).await,
            "memory.note" => noted(&memory, text("note"), &reader, &call.context.workspace).await,
            _ => forgotten(&memory, text("id"), &reader).await,
        };
        done.map(Output::text).map_err(|error| tool::Error::Failed(error.to_string()))
    }
}

async fn found(memory: &Memory, query: &str, reader: &Reader) -> Result<String, Error> {
    let found = memory.search(query, reader, FOUND).await?;
    if found.is_empty() {
        return Ok("Nothing is remembered about that.".to_owned());
    }
    let lines = found.iter().map(|worth| {
        let episode = &worth.episode;
        let (day, from) = (episode.created.strftime("%Y-%m-%d"), episode.trust.name());
        json!({"id": episode.id, "day": day.to_string(), "from": from, "asked": episode.intent, "memory": episode.experience})
            .to_string()
    });
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// The assistant may have read it somewhere, so these are not the person's words.
async fn noted(memory: &Memory, note: &str, reader: &Reader, workspace: &Path) -> Result<String, Error> {
    let Noted { note, replaced } = memory.note(note, reader, Trust::Inferred, workspace).await?;
    let replaced = replaced.iter().map(|old| format!(" It takes the place of “{}”.", old.experience));
    Ok(format!("Noted as {}.{}", note.id, replaced.collect::<String>()))
}

/// Only what the reader may see can be named.
async fn forgotten(memory: &Memory, id: &str, reader: &Reader) -> Result<String, Error> {
    let worth = memory.get(id).await?;
    if !reader.scopes().contains(&worth.episode.scope) {
        return Err(Error::Unknown(id.to_owned()));
    }
    let gone = memory.forget(&[&worth.episode.id]).await?;
    Ok(format!(
        "Forgotten: {}.",
        gone.iter().map(|episode| episode.id.as_str()).collect::<Vec<_>>().join(", ")
    ))
}
