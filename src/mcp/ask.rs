//! What a tool asks the client for, in MCP's words: a question to its person, one to its model, the
//! folders it works in.

use std::sync::{Arc, Mutex};

use futures::FutureExt;
#[allow(deprecated, reason = "clients have it, and there is nothing else for them")]
use rmcp::model::{
    ClientCapabilities, CreateMessageRequest, CreateMessageRequestParams, CreateMessageResult, ElicitRequest,
    ElicitRequestParams, ElicitResult, ElicitationAction, ElicitationSchema, ErrorData, InputRequest,
    ListRootsRequest, ListRootsResult, SamplingMessage, SamplingMessageContentBlock,
};
use rmcp::service::{Peer, RoleServer};
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};

use super::audience::{Audience, Change};
use crate::message::event::Elicitation;
use crate::tool::nested::{Asker, Client, NO_MODEL, NOBODY, Sample, Sampler, Wish};
use crate::tool::{Error, Scope};

/// Tokens that a client's model may answer with.
const ANSWER: u32 = 4096;
/// Questions of one call that wait to be heard.
const QUESTIONS: usize = 64;
/// What a tool is told that must be a task.
const NO_TASKS: &str = "this takes longer than a client waits that knows no tasks";

/// What a running tool wants.
pub(super) enum Word {
    /// An answer.
    Ask(Box<Question>),
    /// That the client does not wait; the reply is whether it does not.
    Detach(oneshot::Sender<bool>),
}

/// A question to the client. Dropped without an answer it says that nobody is there.
pub(super) struct Question {
    /// What it is about, in a word.
    pub(super) key: String,
    pub(super) request: InputRequest,
    /// Takes the client's result.
    pub(super) answer: Box<dyn FnOnce(Value) + Send>,
}

impl Question {
    /// Whether this is a result that such a question has.
    #[allow(deprecated, reason = "as above")]
    pub(super) fn fits(&self, result: &Value) -> bool {
        match &self.request {
            InputRequest::Elicitation(_) => read::<ElicitResult>(result).is_some(),
            InputRequest::CreateMessage(_) => read::<CreateMessageResult>(result).is_some(),
            InputRequest::ListRoots(_) => read::<ListRootsResult>(result).is_some(),
            _ => false,
        }
    }

    /// Asks a client of the older era, where a server may.
    #[allow(deprecated, reason = "as above")]
    pub(super) async fn put(self: Box<Self>, peer: Peer<RoleServer>) {
        let result = match self.request {
            InputRequest::Elicitation(request) => {
                peer.create_elicitation(request.params).await.map(serde_json::to_value)
            }
            InputRequest::CreateMessage(request) => {
                peer.create_message(request.params).await.map(serde_json::to_value)
            }
            InputRequest::ListRoots(_) => peer.list_roots().await.map(serde_json::to_value),
            _ => return,
        };
        match result {
            Ok(Ok(result)) => (self.answer)(result),
            Ok(Err(error)) => tracing::warn!(target: "mcp", "a client's answer cannot be read: {error}"),
            Err(error) => tracing::warn!(target: "mcp", "a client cannot be asked: {error}"),
        }
    }
}

/// What a client cannot do, and a tool has asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lack {
    Elicitation,
    Sampling,
    Tasks,
}

impl Lack {
    /// What the tool was told.
    fn told(self) -> &'static str {
        match self {
            Self::Elicitation => NOBODY,
            Self::Sampling => NO_MODEL,
            Self::Tasks => NO_TASKS,
        }
    }

    #[allow(deprecated, reason = "as above")]
    fn capability(self) -> ClientCapabilities {
        match self {
            Self::Elicitation => ClientCapabilities::builder().enable_elicitation().build(),
            Self::Sampling => ClientCapabilities::builder().enable_sampling().build(),
            Self::Tasks => ClientCapabilities::builder().enable_tasks().build(),
        }
    }
}

/// What a call has asked for in vain.
#[derive(Debug, Clone, Default)]
pub(super) struct Lacks(Arc<Mutex<Vec<Lack>>>);

impl Lacks {
    fn note(&self, lack: Lack) {
        let mut lacks = self.0.lock().expect("no panic while held");
        if !lacks.contains(&lack) {
            lacks.push(lack);
        }
    }

    /// What the client is told if this is what ended the call.
    pub(super) fn error(&self, error: &Error) -> Option<ErrorData> {
        let Error::Failed(reason) = error else { return None };
        let lacks = self.0.lock().expect("no panic while held");
        let lack = lacks.iter().find(|lack| lack.told() == reason)?;
        Some(ErrorData::missing_required_client_capability(lack.capability()))
    }
}

/// Lets the tools of one call ask the client, as far as it can be asked.
pub(super) fn connect(
    scope: &mut Scope,
    can: &ClientCapabilities,
    audience: &Arc<Audience>,
) -> (mpsc::Receiver<Word>, Lacks) {
    let (words, heard) = mpsc::channel(QUESTIONS);
    let lacks = Lacks::default();
    let forms = can.elicitation.as_ref().is_some_and(|can| can.form.is_some() || can.url.is_none());
    scope.asker = Some(asker(words.clone(), forms, lacks.clone()));
    scope.sampler = Some(sampler(words.clone(), can.sampling.is_some(), lacks.clone()));
    let workspace = scope.workspace.clone();
    let (roots, tasks) = (can.roots.is_some(), can.supports_tasks());
    let (audience, unmet) = (audience.clone(), lacks.clone());
    let client: Client = Arc::new(move |wish| {
        let (words, audience, lacks) = (words.clone(), audience.clone(), unmet.clone());
        let alone = wish.alone(&workspace);
        async move {
            match wish {
                Wish::Roots if roots => {
                    asked(&words, "roots", list_roots(), listed).await.ok_or_else(unanswered)
                }
                Wish::Detach { .. } if tasks => {
                    let (reply, replied) = oneshot::channel();
                    let _ = words.try_send(Word::Detach(reply));
                    Ok(replied.await.unwrap_or(false).into())
                }
                Wish::Detach { required: true } => {
                    lacks.note(Lack::Tasks);
                    Err(Error::Failed(NO_TASKS.to_owned()))
                }
                Wish::Changed { what } => {
                    audience.tell(&Change::of(what)).await;
                    Ok(alone)
                }
                Wish::Roots | Wish::Detach { .. } => Ok(alone),
            }
        }
        .boxed()
    });
    scope.client = Some(client);
    (heard, lacks)
}

fn unanswered() -> Error {
    Error::Failed("the client did not answer".to_owned())
}

/// Asks, and waits for what `read` makes of the result.
async fn asked<T: Send + 'static>(
    words: &mpsc::Sender<Word>,
    key: &str,
    request: InputRequest,
    read: fn(Value) -> Option<T>,
) -> Option<T> {
    let (sender, answered) = oneshot::channel();
    let answer = Box::new(move |result| {
        if let Some(answer) = read(result) {
            let _ = sender.send(answer);
        }
    });
    let question = Question { key: key.to_owned(), request, answer };
    words.try_send(Word::Ask(Box::new(question))).ok()?;
    answered.await.ok()
}

fn asker(words: mpsc::Sender<Word>, can: bool, lacks: Lacks) -> Asker {
    Arc::new(move |question: Elicitation| match can {
        true => {
            if let Some(question) = form(question) {
                let _ = words.try_send(Word::Ask(Box::new(question)));
            }
        }
        false => lacks.note(Lack::Elicitation),
    })
}

fn form(question: Elicitation) -> Option<Question> {
    let Elicitation { message, schema, answer, .. } = question;
    let Value::Object(schema) = schema else { return None };
    let key = schema.get("title").and_then(Value::as_str).map_or("question".to_owned(), word);
    let requested_schema = ElicitationSchema::from_json_schema(schema)
        .inspect_err(|error| tracing::warn!(target: "mcp", "a question has no form that MCP knows: {error}"))
        .ok()?;
    let params = ElicitRequestParams::FormElicitationParams { meta: None, message, requested_schema };
    let request = InputRequest::Elicitation(ElicitRequest::new(params));
    let answer = Box::new(move |result| {
        if let Some(given) = elicited(result) {
            answer.give(given);
        }
    });
    Some(Question { key, request, answer })
}

/// `UserName` as `user_name`.
fn word(name: &str) -> String {
    let mut word = String::with_capacity(name.len() + 4);
    let mut last = 'A';
    for letter in name.chars() {
        if letter.is_uppercase() && !last.is_uppercase() {
            word.push('_');
        }
        word.extend(letter.to_lowercase());
        last = letter;
    }
    word
}

/// What the person says; the outer `None` where that is not to be read.
fn elicited(result: Value) -> Option<Option<Map<String, Value>>> {
    let result = read::<ElicitResult>(&result)?;
    Some(match (result.action, result.content) {
        (ElicitationAction::Accept, Some(Value::Object(content))) => Some(content),
        (ElicitationAction::Accept, _) => Some(Map::new()),
        _ => None,
    })
}

#[allow(deprecated, reason = "as above")]
fn sampler(words: mpsc::Sender<Word>, can: bool, lacks: Lacks) -> Sampler {
    Arc::new(move |Sample { system, prompt }| {
        if !can {
            lacks.note(Lack::Sampling);
            return std::future::ready(Err(Error::Failed(NO_MODEL.to_owned()))).boxed();
        }
        let mut params = CreateMessageRequestParams::new(vec![SamplingMessage::user_text(prompt)], ANSWER);
        params.system_prompt = system;
        let request = InputRequest::CreateMessage(CreateMessageRequest::new(params));
        let words = words.clone();
        let told = || Error::Failed("the client's model did not answer".to_owned());
        async move { asked(&words, "sample", request, sampled).await.ok_or_else(told) }.boxed()
    })
}

#[allow(deprecated, reason = "as above")]
fn sampled(result: Value) -> Option<String> {
    let content = read::<CreateMessageResult>(&result)?.message.content;
    let texts = content.into_vec().into_iter().filter_map(|block| match block {
        SamplingMessageContentBlock::Text(text) => Some(text.text),
        _ => None,
    });
    Some(texts.collect())
}

#[allow(deprecated, reason = "as above")]
fn list_roots() -> InputRequest {
    InputRequest::ListRoots(ListRootsRequest::default())
}

#[allow(deprecated, reason = "as above")]
fn listed(result: Value) -> Option<Value> {
    let roots = read::<ListRootsResult>(&result)?.roots;
    Some(roots.into_iter().map(|root| root.uri).collect())
}

fn read<T: serde::de::DeserializeOwned>(result: &Value) -> Option<T> {
    T::deserialize(result).ok()
}

#[cfg(test)]
mod tests {
    use super::word;

    #[test]
    fn names_of_models_are_words() {
        for (name, expected) in
            [("UserName", "user_name"), ("Step1", "step1"), ("JSONText", "jsontext"), ("A", "a")]
        {
            assert_eq!(word(name), expected);
        }
    }
}
