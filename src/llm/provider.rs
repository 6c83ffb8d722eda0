//! Models behind an HTTP API. With `convert` the only user of genai.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures::StreamExt;
use genai::adapter::AdapterKind;
use genai::chat::{
    ChatFrameSink, ChatOptions, ChatStreamEvent, ContentPart, FrameCtx, MessageContent, RawFrameRef,
    ReasoningEffort, StopReason, StreamEnd,
};
use genai::resolver::{AuthData, Endpoint};
use genai::webc::StreamTimeout;
use genai::{Client, ModelIden, ServiceTarget, webc};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::catalog::{self, Kind};
use super::convert::{Answer, Audience, Called, usage};
use super::fault::{Source, retry_after};
use super::watch::{self, Seen, Watch};
use super::{Delta, Error, Model, Reply, Request, Sink, Stop, schema};
use crate::config;
use crate::message::{Message, Part, Role, Usage};

/// Pieces of an answer that may wait for the one who reads them.
const PIECES: usize = 64;

/// A model server and how to get in.
#[derive(Clone)]
pub struct Server {
    /// What people call it.
    pub provider: String,
    /// How it is spoken to.
    pub kind: Kind,
    /// Where it is; [`Kind::base_url`] brings it into form.
    pub base_url: String,
    /// Its key; servers on this machine need none.
    pub key: Option<String>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = self.key.as_ref().map(|_| "****");
        f.debug_struct("Server")
            .field("provider", &self.provider)
            .field("kind", &self.kind)
            .field("base_url", &self.base_url)
            .field("key", &key)
            .finish()
    }
}

/// A model behind an HTTP API.
///
/// Each request runs in a task of its own: a panic in the client becomes an
/// [`Error::Unreadable`], and dropping the reply's future ends task and connection.
#[derive(Clone)]
pub struct Provider(Arc<Inner>);

struct Inner {
    name: String,
    server: Server,
    model: String,
    window: usize,
    max_output: u32,
    effort: Option<ReasoningEffort>,
    price: Option<config::Price>,
    first_byte: Duration,
    idle: Duration,
    client: Client,
    /// Tools that it has refused; they are offered no more.
    refused: Mutex<HashSet<String>>,
}

impl Provider {
    /// A model of `server`. Nothing is sent yet.
    ///
    /// `settings` gives the timeouts, the longest answer and, unless it is 0, the window.
    pub fn new(server: Server, model: &str, settings: &config::Model) -> Result<Self, Error> {
        let name = format!("{}/{model}", server.provider);
        let base_url = server.kind.base_url(&server.base_url).map_err(|problem| {
            Error::Setup(format!("the address of `{}` cannot be used: {problem}", server.provider))
        })?;
        let key = server.key.map(|key| key.trim().to_owned()).filter(|key| !key.is_empty());
        if key.as_ref().is_some_and(|key| !key.bytes().all(|byte| byte.is_ascii_graphic())) {
            let provider = &server.provider;
            return Err(Error::Setup(format!(
                "the key of `{provider}` has spaces or line breaks in it; copy it anew"
            )));
        }
        let client = client(&base_url, seconds(settings.connect_timeout))
            .map_err(|reason| Error::Setup(format!("cannot start an HTTP client for `{name}`: {reason}")))?;
        let window = match settings.window {
            0 => catalog::window(server.kind, model),
            window => window,
        };
        let effort = match settings.effort.trim() {
            "" => None,
            word => Some(effort(word).ok_or_else(|| {
                Error::Setup(format!("`model.effort` is `{word}`; it can be one of `low`, `medium`, `high`"))
            })?),
        };
        let price = settings.price.iter().find(|price| price.model == name).cloned();
        Ok(Self(Arc::new(Inner {
            name,
            server: Server { base_url, key, ..server },
            model: model.to_owned(),
            window,
            max_output: settings.max_output,
            effort,
            price,
            first_byte: seconds(settings.first_byte_timeout),
            idle: seconds(settings.idle_timeout),
            client,
            refused: Mutex::default(),
        })))
    }

    /// The same with another window.
    pub fn with_window(self, window: usize) -> Self {
        let inner = Arc::try_unwrap(self.0).unwrap_or_else(|shared| Inner {
            name: shared.name.clone(),
            server: shared.server.clone(),
            model: shared.model.clone(),
            effort: shared.effort.clone(),
            price: shared.price.clone(),
            client: shared.client.clone(),
            refused: Mutex::default(),
            ..*shared
        });
        Self(Arc::new(Inner { window, ..inner }))
    }
}

#[async_trait]
impl Model for Provider {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn window(&self) -> usize {
        self.0.window
    }

    fn unpriced(&self) -> Option<&str> {
        self.0.price.is_none().then_some(&self.0.name)
    }

    async fn reply(&self, request: &Request, sink: &Sink<'_>) -> Result<Reply, Error> {
        let (inner, request) = (Arc::clone(&self.0), request.clone());
        let work = move |pieces| async move { inner.exchange(&request, &pieces).await };
        supervised(work, sink, self.0.source()).await
    }
}

// Runs `work` in a task that ends with this future, and passes on what it has to say.
async fn supervised<F>(
    work: impl FnOnce(mpsc::Sender<Delta>) -> F,
    sink: &Sink<'_>,
    source: Source<'_>,
) -> Result<Reply, Error>
where
    F: Future<Output = Result<Reply, Error>> + Send + 'static,
{
    let (sender, mut pieces) = mpsc::channel(PIECES);
    let mut task = JoinSet::new();
    task.spawn(work(sender));
    while let Some(piece) = pieces.recv().await {
        sink(piece);
    }
    match task.join_next().await {
        Some(Ok(answer)) => answer,
        Some(Err(error)) if error.is_panic() => {
            let why = panicked(error.into_panic());
            Err(source.unreadable("the client could not make sense of the answer", &why))
        }
        _ => Err(source.network("the request was cancelled")),
    }
}

/// An answer as far as it has been heard.
#[derive(Default)]
struct Heard {
    answer: Answer,
    reason: Option<StopReason>,
    usage: Option<Usage>,
}

impl Heard {
    fn shows_nothing(&self) -> bool {
        self.answer.text.trim().is_empty() && self.answer.calls.is_empty()
    }

    // An answer without text or calls is one only where the provider says why.
    fn is_missing(&self) -> bool {
        let cut = matches!(self.reason, Some(StopReason::MaxTokens(_) | StopReason::ContentFilter(_)));
        let lost_calls = matches!(self.reason, Some(StopReason::ToolCall(_))) && self.answer.calls.is_empty();
        lost_calls || (self.shows_nothing() && !cut)
    }
}

impl Inner {
    async fn exchange(&self, request: &Request, pieces: &mpsc::Sender<Delta>) -> Result<Reply, Error> {
        let mut request = self.without_refused(request);
        let mut heard = self.stream(&request, pieces).await;
        if let Err(Error::Rejected { status: 400, message, .. }) = &heard
            && let Some(tool) = schema::blamed(message, &request.tools).map(str::to_owned)
        {
            // One tool must not cost all the others.
            let provider = &self.server.provider;
            let notice = format!("the tool `{tool}` is left out: {provider} refuses it: {message}");
            self.refused.lock().expect("no panic while held").insert(tool);
            let _ = pieces.send(Delta::Notice(notice)).await;
            request = Cow::Owned(self.without_refused(&request).into_owned());
            heard = self.stream(&request, pieces).await;
        }
        let mut heard = heard?;
        let request = request.as_ref();
        if heard.is_missing() {
            // Some servers cannot stream, or lose the calls when they do.
            tracing::debug!(model = self.name, "nothing usable in the stream; asking again without one");
            let silent = heard.shows_nothing();
            heard = self.whole(request).await?;
            if silent && !heard.answer.text.is_empty() {
                let _ = pieces.send(Delta::Text(heard.answer.text.clone())).await;
            }
            if heard.shows_nothing() && heard.is_missing() {
                return Err(self.source().unreadable("the answer was empty, twice", ""));
            }
        }
        let stop = match &heard.reason {
            Some(StopReason::MaxTokens(_)) => Stop::Length,
            Some(StopReason::ContentFilter(_)) => Stop::Filtered,
            _ => Stop::Done,
        };
        let message = self.audience().message(heard.answer, &request.messages);
        let usage = heard.usage.map(|usage| Usage { cost: self.cost(&usage), ..usage });
        Ok(Reply { message, stop, usage, model: self.name.clone() })
    }

    /// Millionths of a dollar; a price is dollars for a million tokens.
    fn cost(&self, usage: &Usage) -> Option<u64> {
        let price = self.price.as_ref()?;
        let fresh = usage.input.saturating_sub(usage.cached) as f64;
        let cost =
            fresh * price.input + usage.cached as f64 * price.cached + usage.output as f64 * price.output;
        Some(cost.round() as u64)
    }

    /// The request without the tools that were refused.
    fn without_refused<'a>(&self, request: &'a Request) -> Cow<'a, Request> {
        let refused = self.refused.lock().expect("no panic while held");
        if !request.tools.iter().any(|tool| refused.contains(&tool.name)) {
            return Cow::Borrowed(request);
        }
        let tools = request.tools.iter().filter(|tool| !refused.contains(&tool.name)).cloned().collect();
        Cow::Owned(Request { tools, ..request.clone() })
    }

    async fn stream(&self, request: &Request, pieces: &mpsc::Sender<Delta>) -> Result<Heard, Error> {
        let watch = Arc::new(Watch::new(self.server.kind));
        let options = self.options().with_raw_frame_sink_arc(Arc::new(Tap(Arc::clone(&watch))));
        let chat = self.audience().request(request);
        let opened = self.client.exec_chat_stream(self.target(), chat, Some(&options)).await;
        let mut stream = opened.map_err(|error| self.fault(error))?.stream;
        let mut heard = Heard::default();
        let mut ended = None;
        while let Some(event) = stream.next().await {
            let piece = match event {
                Ok(ChatStreamEvent::Chunk(chunk)) => {
                    heard.answer.text.push_str(&chunk.content);
                    Delta::Text(chunk.content)
                }
                Ok(ChatStreamEvent::ReasoningChunk(chunk)) => {
                    heard.answer.reasoning.push_str(&chunk.content);
                    Delta::Reasoning(chunk.content)
                }
                Ok(ChatStreamEvent::End(end)) => {
                    ended = Some(end);
                    break;
                }
                Ok(_) => continue,
                // The reason to stop had arrived; only the farewell is missing.
                Err(_) if watch.seen().ended => break,
                Err(error) => return Err(self.broken(error, heard, &watch.seen())),
            };
            // Nobody listens any more: the task is about to be aborted.
            let _ = pieces.send(piece).await;
        }
        self.settle(heard, ended, watch.seen())
    }

    // What a stream came to that ended without an error.
    fn settle(&self, mut heard: Heard, end: Option<StreamEnd>, seen: Seen) -> Result<Heard, Error> {
        if let Some(error) = &seen.error
            && !seen.ended
        {
            return Err(self.interrupted(heard, self.source().object(error)));
        }
        if !seen.ended && (seen.frames > 0 || !heard.shows_nothing()) {
            return Err(
                self.interrupted(heard, self.source().network("the stream ended before the answer did"))
            );
        }
        if let (0, Some(garbage)) = (seen.frames, &seen.garbage) {
            return Err(self.source().unreadable("the stream is no JSON", garbage));
        }
        heard.reason = seen.reason.map(StopReason::from);
        if let Some(end) = end {
            heard.reason = heard.reason.or(end.captured_stop_reason);
            heard.usage = end.captured_usage.as_ref().and_then(usage);
            heard.content(end.captured_content.unwrap_or_default());
        }
        if self.server.kind.is_chat_completions() {
            heard.answer.calls = named(seen.calls.into_iter().map(Called::from));
        }
        Ok(heard)
    }

    async fn whole(&self, request: &Request) -> Result<Heard, Error> {
        let options = self.options().with_capture_raw_body(true);
        let chat = self.audience().request(request);
        let asked = self.client.exec_chat(self.target(), chat, Some(&options));
        let answered = tokio::time::timeout(self.first_byte, asked).await;
        let answered = answered.map_err(|_| self.silent(self.first_byte))?;
        let chat_completions = self.server.kind.is_chat_completions();
        let (response, body) = match answered {
            Ok(response) => {
                let body = response.captured_raw_body.clone();
                (Some(response), body)
            }
            Err(genai::Error::ChatResponseGeneration { response_body, .. }) if chat_completions => {
                (None, Some(*response_body))
            }
            Err(error) => return Err(self.fault(error)),
        };
        let mut heard = Heard::default();
        if let Some(response) = response {
            heard.answer.text = response.texts().join("\n\n");
            heard.answer.reasoning = response.reasoning_content.clone().unwrap_or_default();
            heard.reason = response.stop_reason.clone();
            heard.usage = usage(&response.usage);
            heard.content(response.content);
        }
        if let Some(body) = body.filter(|_| chat_completions) {
            if let Some(error) = body.get("error").filter(|error| !error.is_null()) {
                return Err(self.source().object(error));
            }
            let Some((text, reasoning, calls, reason)) = watch::whole(&body) else {
                return Err(self.source().unreadable("the answer has no message in it", &body.to_string()));
            };
            heard.answer.text = text;
            heard.answer.reasoning = reasoning;
            heard.answer.calls = named(calls.into_iter().map(Called::from));
            heard.reason = reason.map(StopReason::from);
        }
        Ok(heard)
    }

    fn target(&self) -> ServiceTarget {
        // Servers without authentication look at no key, but the client wants one.
        let key = self.server.key.clone().unwrap_or_else(|| "none".to_owned());
        ServiceTarget {
            endpoint: Endpoint::from_owned(self.server.base_url.as_str()),
            auth: AuthData::from_single(key),
            model: ModelIden::new(adapter(self.server.kind), self.asked()),
        }
    }

    /// The model's name. An effort in it gives way to the one that was chosen.
    fn asked(&self) -> &str {
        match self.effort {
            Some(_) => ReasoningEffort::from_model_name(&self.model).1,
            None => &self.model,
        }
    }

    fn options(&self) -> ChatOptions {
        let mut options = ChatOptions::default()
            .with_capture_usage(true)
            .with_capture_content(true)
            .with_capture_tool_calls(true)
            .with_capture_reasoning_content(thinks(self.server.kind, &self.model))
            .with_stream_header_timeout(self.first_byte)
            .with_stream_read_timeout(self.idle);
        if self.max_output > 0 {
            options = options.with_max_tokens(self.max_output);
        }
        if let Some(effort) = &self.effort {
            options = options.with_reasoning_effort(effort.clone());
        }
        if self.server.kind == Kind::Responses && thinks(self.server.kind, &self.model) {
            // The client asks for summaries of the reasoning, which OpenAI refuses to
            // organisations it has not verified. The encrypted reasoning comes without them.
            // Merging replaces the whole object, so the effort asked for, or that of the model's name
            // (`gpt-5.6-high`), has to be put back.
            let effort = self.effort.clone().or_else(|| ReasoningEffort::from_model_name(&self.model).0);
            let effort = effort.as_ref().and_then(ReasoningEffort::as_keyword);
            let reasoning = effort.map_or(json!({}), |effort| json!({ "effort": effort }));
            options = options.with_extra_body(json!({ "reasoning": reasoning }));
        }
        options
    }

    fn audience(&self) -> Audience<'_> {
        Audience { provider: &self.server.provider, kind: self.server.kind }
    }

    fn source(&self) -> Source<'_> {
        Source { provider: &self.server.provider, key: self.server.key.as_deref() }
    }

    fn silent(&self, waited: Duration) -> Error {
        Error::Silent { provider: self.server.provider.clone(), waited }
    }

    // A stream that failed: told as it is while nothing was shown, else with what was.
    fn broken(&self, error: genai::Error, heard: Heard, seen: &Seen) -> Error {
        let cause = match &seen.error {
            Some(object) => self.source().object(object),
            None => self.fault(error),
        };
        self.interrupted(heard, cause)
    }

    fn interrupted(&self, heard: Heard, cause: Error) -> Error {
        let Answer { text, reasoning, .. } = heard.answer;
        if text.is_empty() && reasoning.is_empty() {
            return cause;
        }
        let mut parts = Vec::new();
        if !reasoning.is_empty() {
            parts.push(Part::Reasoning { text: reasoning });
        }
        if !text.is_empty() {
            parts.push(Part::text(text));
        }
        Error::Interrupted {
            provider: self.server.provider.clone(),
            message: words(cause),
            partial: Box::new(Message::of(Role::Assistant, parts)),
        }
    }

    fn fault(&self, error: genai::Error) -> Error {
        let source = self.source();
        if let Some(status) = error.status().map(|status| status.as_u16()) {
            let header = |name: &str| error.headers()?.get(name)?.to_str().ok().map(str::to_owned);
            let milliseconds =
                header("retry-after-ms").and_then(|text| text.parse().ok()).map(Duration::from_millis);
            let wait = milliseconds.or_else(|| retry_after(&header("retry-after")?, SystemTime::now()));
            return source.status(status, &body(&error), wait);
        }
        match error {
            genai::Error::WebStream { error, .. } => self.transport(error),
            genai::Error::WebModelCall { webc_error, .. }
            | genai::Error::WebAdapterCall { webc_error, .. } => match webc_error {
                webc::Error::Reqwest(error) => self.transport(Box::new(error)),
                webc::Error::ResponseFailedNotJson { content_type, body } => {
                    source.unreadable(&format!("the answer is `{content_type}`, no JSON"), &body)
                }
                webc::Error::ResponseFailedInvalidJson { body, .. } => {
                    source.unreadable("the answer is broken JSON", &body)
                }
                other => source.unreadable("the answer could not be read", &other.to_string()),
            },
            genai::Error::ChatResponse { body, .. } => source.object(&body),
            genai::Error::StreamParse { serde_error, .. } => {
                source.unreadable("the stream is broken", &serde_error.to_string())
            }
            genai::Error::ChatResponseGeneration { cause, .. } => {
                source.unreadable("the answer makes no sense", &cause)
            }
            other => source.unreadable("the exchange failed", &other.to_string()),
        }
    }

    fn transport(&self, error: genai::BoxError) -> Error {
        let error = match error.downcast::<genai::Error>() {
            Ok(inner) => return self.fault(*inner),
            Err(error) => error,
        };
        match error.downcast_ref::<StreamTimeout>() {
            Some(StreamTimeout::Headers) => return self.silent(self.first_byte),
            Some(StreamTimeout::Read) => return self.silent(self.idle),
            None => {}
        }
        if let Some(status) = error.downcast_ref::<reqwest::Error>().and_then(reqwest::Error::status) {
            return self.source().status(status.as_u16(), "", None);
        }
        if error.downcast_ref::<std::string::FromUtf8Error>().is_some() {
            return self.source().unreadable("the answer is no UTF-8", &error.to_string());
        }
        self.source().network(&chain(&*error, &self.server.base_url))
    }
}

impl Heard {
    fn content(&mut self, content: MessageContent) {
        let (calls, rest): (Vec<_>, Vec<_>) =
            content.into_parts().into_iter().partition(|part| part.as_tool_call().is_some());
        self.answer.content = rest;
        self.answer.calls =
            named(calls.into_iter().filter_map(ContentPart::into_tool_call).map(Called::from));
    }
}

struct Tap(Arc<Watch>);

impl ChatFrameSink for Tap {
    fn on_frame(&self, _: &FrameCtx, frame: RawFrameRef<'_>) {
        self.0.frame(frame.event, frame.data);
    }
}

fn named(calls: impl Iterator<Item = Called>) -> Vec<Called> {
    calls.filter(Called::is_named).collect()
}

fn adapter(kind: Kind) -> AdapterKind {
    match kind {
        Kind::OpenAi => AdapterKind::OpenAI,
        Kind::Responses => AdapterKind::OpenAIResp,
        Kind::Anthropic => AdapterKind::Anthropic,
        Kind::Gemini => AdapterKind::Gemini,
        Kind::Ollama => AdapterKind::Ollama,
        Kind::OpenRouter => AdapterKind::OpenRouter,
        Kind::DeepSeek => AdapterKind::DeepSeek,
        Kind::Groq => AdapterKind::Groq,
        Kind::Xai => AdapterKind::Xai,
        Kind::Mistral => AdapterKind::Mistral,
    }
}

fn effort(word: &str) -> Option<ReasoningEffort> {
    match word {
        "low" => Some(ReasoningEffort::Low),
        "medium" => Some(ReasoningEffort::Medium),
        "high" => Some(ReasoningEffort::High),
        _ => None,
    }
}

// Asking for reasoning where there is none is an error with these two; the others ignore it.
fn thinks(kind: Kind, model: &str) -> bool {
    let starts = |names: &[&str]| names.iter().any(|name| model.starts_with(name));
    match kind {
        Kind::Responses => starts(&["gpt-5", "gpt-6", "o1", "o3", "o4", "codex"]) && !model.contains("-chat"),
        Kind::Gemini => starts(&["gemini-2.5", "gemini-3", "gemini-4"]) && !model.contains("image"),
        _ => true,
    }
}

// Keys travel in headers that reqwest does not know as secrets, so it would carry them to
// wherever it is sent: redirects are followed on the same host only.
fn client(base_url: &str, connect: Duration) -> Result<Client, String> {
    let same_host = reqwest::redirect::Policy::custom(|attempt| {
        let stays = attempt.previous().last().is_some_and(|from| from.host_str() == attempt.url().host_str());
        match stays && attempt.previous().len() < 5 {
            true => attempt.follow(),
            false => attempt.stop(),
        }
    });
    let mut http = reqwest::Client::builder();
    if catalog::is_local(base_url) {
        http = http.no_proxy();
    }
    let http = http
        .connect_timeout(connect)
        .redirect(same_host)
        .user_agent(concat!("omni/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| error.to_string())?;
    Client::builder().with_reqwest(http).build().map_err(|error| error.to_string())
}

fn seconds(seconds: f64) -> Duration {
    // Every wait ends: what is no time at all, or no number, counts as an hour.
    let usable = Duration::try_from_secs_f64(seconds).ok().filter(|duration| !duration.is_zero());
    usable.unwrap_or(Duration::from_secs(3600))
}

fn body(error: &genai::Error) -> String {
    match error {
        genai::Error::HttpError { body, .. } => body.clone(),
        genai::Error::WebModelCall { webc_error, .. } | genai::Error::WebAdapterCall { webc_error, .. } => {
            match webc_error {
                webc::Error::ResponseFailedStatus { body, .. } => body.clone(),
                _ => String::new(),
            }
        }
        _ => String::new(),
    }
}

// The innermost cause says it best ("Connection refused"), the address says where.
fn chain(error: &(dyn std::error::Error + 'static), base_url: &str) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    let host = reqwest::Url::parse(base_url).ok();
    let host =
        host.as_ref().and_then(|url| Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?)));
    format!("{cause} ({})", host.unwrap_or_default())
}

fn words(error: Error) -> String {
    match error {
        Error::Unauthorized { message, .. }
        | Error::Rejected { message, .. }
        | Error::Unavailable { message, .. }
        | Error::Network { message, .. }
        | Error::Interrupted { message, .. }
        | Error::Unreadable { message, .. }
        | Error::Setup(message) => message,
        Error::Silent { waited, .. } => format!("nothing more came for {} s", waited.as_secs_f64()),
    }
}

fn panicked(payload: Box<dyn std::any::Any + Send>) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_in_the_client_is_an_unreadable_answer() {
        let source = Source { provider: "lab", key: None };
        let work = |pieces: mpsc::Sender<Delta>| async move {
            let _ = pieces.send(Delta::Text("so far".to_owned())).await;
            panic!("index out of bounds")
        };
        let shown = std::sync::Mutex::new(Vec::new());
        let sink = |delta| shown.lock().expect("no panic").push(delta);
        match supervised(work, &sink, source).await {
            Err(Error::Unreadable { message, .. }) => {
                assert!(message.contains("index out of bounds"), "{message}")
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(*shown.lock().expect("no panic"), [Delta::Text("so far".to_owned())]);
    }
}
