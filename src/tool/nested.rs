//! What a running tool may ask for: another tool, the word of a person, the word of the model.
//!
//! Whatever it asks for is subject to what the tool itself is subject to: the policy, the budget
//! of the turn, its cancellation.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::clock::Clock;
use super::schema::Checker;
use super::scope::Scope;
use super::toolbox::{Definition, Toolbox};
use super::{Context, Error, Spec, uri};
use crate::message::event::{Answer, Elicitation};
use crate::message::{Arguments, Change, ToolCall, Usage};

/// How deep calls may be nested.
pub const DEPTH: usize = 8;
/// What the calls of a scope may ask for in all, where nobody counts otherwise.
const BUDGET: u32 = 1000;
/// Bytes of a question to a person.
const QUESTION: usize = 4096;

/// What a tool asks for, as it crosses to and from Python and workers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Call another tool. The reply is `{"content": [...], "structured": ...}`.
    Call {
        /// Its name.
        name: String,
        /// What it is given.
        arguments: Map<String, Value>,
    },
    /// Ask the person. The reply is `{"action": "accept", "content": {...}}`, or an action of
    /// `decline`, as in MCP (2025-11-25, client/elicitation).
    Elicit {
        /// The question.
        message: String,
        /// JSON Schema of the answer: an object of plain values.
        schema: Value,
    },
    /// Ask the model. The reply is `{"text": ...}`.
    Sample(Sample),
    /// Ask the program that called.
    Client(Wish),
    /// Have a file read or written by the editor that called.
    Buffer(Buffer),
}

/// A text file as an editor has it, who may have words that are on no disk yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Buffer {
    /// Read it. The reply is the text; `null` where the editor does not have the file.
    Read {
        /// Its path, absolute, with links followed.
        path: PathBuf,
        /// The first line that is wanted, from 1.
        line: u32,
        /// As many lines are wanted; all of them where nothing is said.
        limit: Option<u32>,
    },
    /// Replace all of it. The reply is whether the editor has done it.
    Write {
        /// Its path, absolute, with links followed.
        path: PathBuf,
        /// What is to be in it.
        text: String,
    },
}

/// The editor that called: it has files read and written.
#[derive(Clone)]
pub struct Editor(Arc<dyn Fn(Buffer) -> BoxFuture<'static, Result<Value, Error>> + Send + Sync>);

impl Editor {
    /// One that does this.
    pub fn new<F>(work: impl Fn(Buffer) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Value, Error>> + Send + 'static,
    {
        Self(Arc::new(move |buffer| Box::pin(work(buffer))))
    }
}

impl std::fmt::Debug for Editor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Editor")
    }
}

/// What only a program that calls can do. Where none does, there is an answer to each all the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// Name the folders it works in. The reply is a list of URIs.
    Roots,
    /// Not wait for the call. The reply is whether it does not.
    Detach {
        /// Whether the tool will not do with a program that waits.
        required: bool,
    },
    /// Ask anew for something. The reply is `null`.
    Changed {
        /// `tools`, `prompts`, `resources`, or the URI of a document.
        what: String,
    },
}

impl Wish {
    /// The reply where nobody grants it.
    pub fn alone(&self, workspace: &Path) -> Value {
        match self {
            Self::Roots => json!([uri::of_folder(workspace)]),
            Self::Detach { .. } => false.into(),
            Self::Changed { .. } => Value::Null,
        }
    }
}

/// A question to the model, outside of the conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// What it should be.
    pub system: Option<String>,
    /// What it is asked.
    pub prompt: String,
}

/// Asks the model.
pub type Sampler = Arc<dyn Fn(Sample) -> BoxFuture<'static, Result<String, Error>> + Send + Sync>;
/// Takes a question to a person; dropping it says that nobody is there.
pub type Asker = Arc<dyn Fn(Elicitation) + Send + Sync>;
/// Asks the program that called.
pub type Client = Arc<dyn Fn(Wish) -> BoxFuture<'static, Result<Value, Error>> + Send + Sync>;
/// Takes what a tool says while it runs: how grave it is, and the text.
pub type Logger = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// What a tool is told where there is no person.
pub const NOBODY: &str = "nobody can be asked here";
/// What it is told where there is no model.
pub const NO_MODEL: &str = "there is no model to be asked here";

/// What the calls of a turn may still ask for among themselves, and what they have.
#[derive(Debug)]
pub struct Budget {
    left: AtomicU32,
    used: AtomicU32,
    usage: Mutex<Usage>,
}

impl Default for Budget {
    fn default() -> Self {
        Self { left: AtomicU32::new(BUDGET), used: AtomicU32::new(0), usage: Mutex::default() }
    }
}

impl Budget {
    /// Sets how much may be asked for from now on.
    pub fn grant(&self, left: u32) {
        self.left.store(left, SeqCst);
    }

    /// How much was asked for, and the tokens it took, since this was last asked.
    pub fn spent(&self) -> (u32, Usage) {
        let usage = std::mem::take(&mut *self.usage.lock().expect("no panic while held"));
        (self.used.swap(0, SeqCst), usage)
    }

    /// Counts tokens that a model was paid for.
    pub fn charge(&self, usage: Usage) {
        *self.usage.lock().expect("no panic while held") += usage;
    }

    fn take(&self) -> Result<(), Error> {
        let taken = self.left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
        taken.map_err(|_| Error::Failed("this turn has no tool calls left".to_owned()))?;
        self.used.fetch_add(1, SeqCst);
        Ok(())
    }
}

/// A tool's way back to the box it was called from.
#[derive(Clone)]
pub struct Nested {
    toolbox: Arc<Toolbox>,
    scope: Arc<Scope>,
    spec: Arc<Spec>,
    clock: Arc<Clock>,
}

/// A call that others are nested in.
#[derive(Debug, Clone)]
pub struct Outer {
    /// Its id.
    pub call: String,
    /// The tool.
    pub tool: String,
    pub(super) clock: Arc<Clock>,
}

impl Nested {
    pub(super) fn new(toolbox: Arc<Toolbox>, scope: Arc<Scope>, spec: Arc<Spec>, clock: Arc<Clock>) -> Self {
        Self { toolbox, scope, spec, clock }
    }

    /// Whether an editor has called.
    pub fn has_editor(&self) -> bool {
        self.scope.editor.is_some()
    }

    /// Takes note of what the call has changed in a file.
    pub(super) fn edited(&self, change: Change) {
        self.clock.changes.add(change);
    }

    /// How many calls this one is nested in.
    pub fn depth(&self) -> usize {
        self.scope.within.len()
    }

    /// The tools that `query` may be about, the likeliest first.
    pub(super) async fn find(&self, query: &str) -> impl Iterator<Item = &Definition> {
        let found = self.toolbox.rank(&[query]).await.into_iter().flatten();
        found.filter_map(|place| self.toolbox.definitions().get(place))
    }

    /// Does what is asked in this call. Asking, and being answered, is a sign of life.
    pub async fn ask(&self, context: &Context, request: Request) -> Result<Value, Error> {
        // A file of the editor is no more than a file.
        if !matches!(request, Request::Buffer(_)) {
            self.scope.budget.take()?;
        }
        self.clock.sign();
        let reply = match request {
            Request::Call { name, arguments } => self.call(context, name, arguments).await,
            Request::Elicit { message, schema } => self.elicit(context, message, schema).await,
            Request::Sample(sample) => self.sample(context, sample).await,
            Request::Client(wish) => self.client(context, wish).await,
            Request::Buffer(buffer) => self.buffer(context, buffer).await,
        };
        self.clock.sign();
        reply
    }

    async fn call(
        &self,
        context: &Context,
        name: String,
        arguments: Map<String, Value>,
    ) -> Result<Value, Error> {
        if self.depth() + 1 >= DEPTH {
            let reason = format!("`{name}` is not called: calls are nested {DEPTH} deep already");
            return Err(Error::Failed(reason));
        }
        let number = self.clock.call();
        let id = format!("{}.{number}", context.id);
        let mut scope = Scope { cancel: context.cancel.clone(), whole: true, ..self.scope.as_ref().clone() };
        scope.within.push(Outer {
            call: context.id.clone(),
            tool: self.spec.name.clone(),
            clock: self.clock.clone(),
        });
        let call = ToolCall { id, name, arguments: Arguments::Object(arguments) };
        let results = self.toolbox.call_all(vec![call], &Arc::new(scope)).await;
        let result = results.into_iter().next().expect("a call has a result");
        if context.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        // Whoever looks on hears of this call alone.
        result.changes.iter().cloned().for_each(|change| self.edited(change));
        if result.is_error {
            return Err(Error::Failed(format!("`{}`: {}", result.name, result.text())));
        }
        Ok(json!({"content": result.content, "structured": result.structured}))
    }

    async fn elicit(&self, context: &Context, message: String, schema: Value) -> Result<Value, Error> {
        let nobody = || Error::Failed(NOBODY.to_owned());
        let asker = self.scope.asker.as_ref().ok_or_else(nobody)?;
        if message.len() > QUESTION {
            return Err(Error::Failed(format!(
                "a question may have {QUESTION} bytes, not {}",
                message.len()
            )));
        }
        let checker = Checker::new(&schema).map_err(Error::Failed)?;
        let (answer, answered) = Answer::channel();
        let (call, tool) = (context.id.clone(), self.spec.name.clone());
        asker(Elicitation { call, tool, message, schema: schema.clone(), answer });
        let _thinking = (self.clock.stop(), self.scope.stop());
        let answer = tokio::select! {
            biased;
            () = context.cancel.cancelled() => return Err(Error::Cancelled),
            answer = answered => answer.map_err(|_| nobody())?,
        };
        let Some(mut content) = answer else { return Ok(json!({"action": "decline"})) };
        complete(&mut content, &schema);
        let content = checker
            .check(content)
            .map_err(|reason| Error::Failed(format!("the answer does not fit: {reason}")))?;
        Ok(json!({"action": "accept", "content": content}))
    }

    async fn sample(&self, context: &Context, sample: Sample) -> Result<Value, Error> {
        let nobody = || Error::Failed(NO_MODEL.to_owned());
        let sampler = self.scope.sampler.as_ref().ok_or_else(nobody)?;
        tokio::select! {
            biased;
            () = context.cancel.cancelled() => Err(Error::Cancelled),
            text = sampler(sample) => Ok(json!({"text": text?})),
        }
    }

    async fn client(&self, context: &Context, wish: Wish) -> Result<Value, Error> {
        let Some(client) = &self.scope.client else { return Ok(wish.alone(&context.workspace)) };
        tokio::select! {
            biased;
            () = context.cancel.cancelled() => Err(Error::Cancelled),
            reply = client(wish) => reply,
        }
    }

    async fn buffer(&self, context: &Context, buffer: Buffer) -> Result<Value, Error> {
        let Some(Editor(editor)) = &self.scope.editor else { return Ok(Value::Null) };
        // It may ask a person in its turn.
        let _thinking = (self.clock.stop(), self.scope.stop());
        tokio::select! {
            biased;
            () = context.cancel.cancelled() => Err(Error::Cancelled),
            reply = editor(buffer) => reply,
        }
    }
}

/// Puts in what the schema gives where the person gave nothing.
fn complete(content: &mut Map<String, Value>, schema: &Value) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(default) = property.get("default") {
            content.entry(name).or_insert_with(|| default.clone());
        }
    }
}
