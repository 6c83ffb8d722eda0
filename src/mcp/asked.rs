//! What a server asks of us while it works on a call: a question to the person, one to the model,
//! the folders it may work in.
//!
//! In the older era it sends requests of its own, which do not say which call they belong to. In
//! the newer one its answer to a call says what it needs, and the call is made again. Either way
//! it is asked as the tool of that call: within its scope, its budget and its time.
#![expect(deprecated, reason = "servers of both eras ask for it")]

use std::path::Path;
use std::sync::Arc;

use rmcp::model::{
    CreateMessageRequestParams, CreateMessageResult, ElicitRequestParams, ElicitResult, ElicitationAction,
    InputRequest, InputRequests, InputResponses, ListRootsResult, ProgressToken, Role, Root, SamplingMessage,
    SamplingMessageContentBlock,
};
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

use crate::tool::nested::Sample;
use crate::tool::{Context, Error, Request, uri};

/// Bytes of a question to the model.
const PROMPT: usize = 1 << 20;

/// The calls that are going on over one connection, in the order in which they began.
#[derive(Clone, Default)]
pub(super) struct Calls(Arc<Mutex<Vec<(ProgressToken, Context)>>>);

impl Calls {
    /// Held while a call begins, so that nothing is heard of it before it is in there.
    pub(super) async fn lock(&self) -> MutexGuard<'_, Vec<(ProgressToken, Context)>> {
        self.0.lock().await
    }

    pub(super) async fn remove(&self, token: &ProgressToken) {
        self.lock().await.retain(|(other, _)| other != token);
    }

    /// The one that reports its progress under this token.
    pub(super) async fn get(&self, token: &ProgressToken) -> Option<Context> {
        let calls = self.lock().await;
        calls.iter().find(|(other, _)| other == token).map(|(_, context)| context.clone())
    }

    /// The call that a server asks for something in, when it does not say so: the latest. Where
    /// calls of several sessions go on it could be the wrong person's.
    pub(super) async fn asking(&self) -> Result<Context, Error> {
        let calls = self.lock().await;
        let Some((_, latest)) = calls.last() else {
            return Err(Error::Failed("nothing can be asked while no tool is called".to_owned()));
        };
        let is_theirs = |(_, other): &(_, Context)| other.session == latest.session;
        match calls.len() == 1 || (latest.session.is_some() && calls.iter().all(is_theirs)) {
            true => Ok(latest.clone()),
            false => Err(Error::Failed("it is not known which of several callers is to be asked".to_owned())),
        }
    }
}

/// What is answered to an unfinished call, by the names that the server gave its questions.
pub(super) async fn answers(
    context: &Context,
    requests: InputRequests,
    roots: Option<&Path>,
) -> Result<InputResponses, Error> {
    let mut answers = InputResponses::new();
    for (name, request) in requests {
        let answer = match request {
            InputRequest::Elicitation(request) => json!(elicit(context, request.params).await?),
            InputRequest::CreateMessage(request) => json!(sample(context, request.params).await?),
            InputRequest::ListRoots(_) => json!(folders(roots)),
            _ => return Err(Error::Failed("the tool asks for something that is not known here".to_owned())),
        };
        answers.insert(name, answer);
    }
    Ok(answers)
}

/// Asks the person. Where nobody can be asked, nobody has answered.
pub(super) async fn elicit(context: &Context, question: ElicitRequestParams) -> Result<ElicitResult, Error> {
    let (message, schema, is_page) = match question {
        ElicitRequestParams::FormElicitationParams { message, requested_schema, .. } => {
            (message, json!(requested_schema), false)
        }
        ElicitRequestParams::UrlElicitationParams { message, url, .. } => {
            let agreed = json!({"type": "boolean", "title": "Have you been there?"});
            let schema = json!({"type": "object", "properties": {"agreed": agreed}, "required": ["agreed"]});
            (format!("{message}\nThe page is {url}"), schema, true)
        }
        _ => return Ok(ElicitResult::new(ElicitationAction::Cancel)),
    };
    let reply = match context.ask(Request::Elicit { message, schema }).await {
        Ok(reply) => reply,
        Err(Error::Cancelled) => return Err(Error::Cancelled),
        Err(error) => {
            tracing::info!(target: "mcp", "a question of a server has no answer: {error}");
            return Ok(ElicitResult::new(ElicitationAction::Cancel));
        }
    };
    let content = &reply["content"];
    Ok(match reply["action"] == "accept" && (!is_page || content["agreed"] == true) {
        // What was done on a page is between the person and the page.
        true if is_page => ElicitResult::new(ElicitationAction::Accept),
        true => ElicitResult::new(ElicitationAction::Accept).with_content(content.clone()),
        false => ElicitResult::new(ElicitationAction::Decline),
    })
}

/// Asks the model.
pub(super) async fn sample(
    context: &Context,
    question: CreateMessageRequestParams,
) -> Result<CreateMessageResult, Error> {
    let sample = Sample { system: question.system_prompt, prompt: prompt(question.messages)? };
    let reply = context.ask(Request::Sample(sample)).await?;
    let text = reply["text"].as_str().unwrap_or_default();
    let message = SamplingMessage::new(Role::Assistant, SamplingMessageContentBlock::text(text));
    Ok(CreateMessageResult::new(message, "omni".to_owned())
        .with_stop_reason(CreateMessageResult::STOP_REASON_END_TURN))
}

/// A conversation as one text.
fn prompt(messages: Vec<SamplingMessage>) -> Result<String, Error> {
    let one = messages.len() == 1;
    let mut texts = Vec::new();
    for message in messages {
        let role = match message.role {
            Role::User => "user",
            Role::Assistant => "assistant",
        };
        for block in message.content.into_vec() {
            let SamplingMessageContentBlock::Text(text) = block else {
                return Err(Error::Failed("the model is asked texts only".to_owned()));
            };
            texts.push(if one { text.text } else { format!("{role}: {}", text.text) });
        }
    }
    let prompt = texts.join("\n\n");
    match prompt.len() {
        0 => Err(Error::Failed("the model is asked nothing".to_owned())),
        1..=PROMPT => Ok(prompt),
        length => Err(Error::Failed(format!(
            "a question to the model may have {PROMPT} bytes, this one has {length}"
        ))),
    }
}

/// The folders that a server may work in.
pub(super) fn folders(roots: Option<&Path>) -> ListRootsResult {
    let root = |folder: &Path| Root::new(uri::of_folder(folder)).with_name(name(folder));
    ListRootsResult::new(roots.map(root).into_iter().collect())
}

fn name(folder: &Path) -> String {
    folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What a server is told where there is no answer.
pub(super) fn unanswered(error: &Error) -> rmcp::ErrorData {
    rmcp::ErrorData::internal_error(error.to_string(), None::<Value>)
}
