//! What can be asked here, for programs: `/openapi.json`.
//!
//! Routes are described where they are handled, and the router is made of those descriptions, so there
//! is none without the other. Here are the shapes of answers that are put together elsewhere; a test
//! holds the answers to them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::openapi::path::{Operation, OperationBuilder};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Content, ContentBuilder, HttpMethod, OpenApi, Ref, ResponseBuilder};
use utoipa::{OpenApi as _, ToSchema};

use super::Gateway;

/// What is said of all of it.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "omni", description = "The assistant over HTTP. `docs/gateway.md` says it in sentences."),
    components(schemas(Problem, Envelope))
)]
struct About;

/// The description that routes are added to.
pub(super) fn about() -> OpenApi {
    let mut about = About::openapi();
    let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    about.components.get_or_insert_default().add_security_scheme("bearer", bearer);
    // Where nobody has a token, this machine comes in without.
    about.security =
        Some(vec![SecurityRequirement::new("bearer", Vec::<String>::new()), SecurityRequirement::default()]);
    about
}

/// Adds what is so for all routes: why there may be no answer.
pub(super) fn completed(mut api: OpenApi) -> OpenApi {
    for (path, item) in &mut api.paths.paths {
        let (schema, kind) = match path.starts_with("/v1/") {
            true => ("Envelope", "application/json"),
            false => ("Problem", "application/problem+json"),
        };
        for (method, operation) in
            [("get", &mut item.get), ("post", &mut item.post), ("delete", &mut item.delete)]
        {
            let Some(operation) = operation else { continue };
            refuses(operation, schema, kind);
            // Of one name in the whole document.
            let words = path.split(|letter: char| !letter.is_ascii_alphanumeric());
            let words = std::iter::once(method).chain(words).filter(|word| !word.is_empty());
            operation.operation_id = Some(words.collect::<Vec<_>>().join("_"));
        }
    }
    let tools = OperationBuilder::new()
        .summary(Some("Tools, documents and prompts by the Model Context Protocol: Streamable HTTP."))
        .request_body(Some(RequestBodyBuilder::new().content("application/json", Content::default()).build()))
        .response("200", ResponseBuilder::new().description("As MCP says.").build());
    api.paths.add_path_operation("/mcp", vec![HttpMethod::Post], tools.build());
    api
}

fn refuses(operation: &mut Operation, schema: &str, kind: &str) {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(schema))).build();
    let told = ResponseBuilder::new().description("Why there is no answer.").content(kind, content).build();
    operation.responses.responses.insert("default".to_owned(), told.into());
}

/// What can be asked here, as this document.
#[utoipa::path(get, path = "/openapi.json", responses((status = 200, body = Object)))]
pub(super) async fn openapi(State(gateway): State<Arc<Gateway>>) -> Json<OpenApi> {
    Json(gateway.api.clone())
}

/// Why there is no answer: problem details (RFC 9457).
#[derive(ToSchema, Serialize)]
pub(super) struct Problem {
    #[serde(rename = "type")]
    kind: String,
    title: Option<String>,
    status: u16,
    /// For people.
    detail: String,
    /// The same for programs.
    code: String,
    request_id: String,
}

/// Why there is no answer, in OpenAI's form.
#[derive(ToSchema, Serialize)]
pub(super) struct Envelope {
    error: Fault,
}

#[derive(ToSchema, Serialize)]
struct Fault {
    message: String,
    #[serde(rename = "type")]
    kind: String,
    /// The field of the request that is to blame.
    param: Option<String>,
    code: String,
}

/// An event of a stream. Where it has a name, that is the `type` in its data.
#[derive(ToSchema, Serialize)]
pub(super) struct Told {
    /// Its number.
    id: Option<String>,
    event: Option<String>,
    /// JSON, or `[DONE]`.
    data: String,
}

/// That it is there.
#[derive(ToSchema, Serialize)]
pub(super) struct Status {
    status: String,
}

/// Conversations.
#[derive(ToSchema, Serialize)]
pub(super) struct Sessions {
    sessions: Vec<Session>,
}

/// A conversation.
#[derive(ToSchema, Serialize)]
pub(super) struct Session {
    id: String,
    /// The first line of the first thing the user said.
    title: String,
    workspace: String,
    /// Messages in its log.
    messages: u64,
    /// The beginning of the last text in it.
    last: String,
    created: String,
    updated: String,
}

/// The log of a conversation.
#[derive(ToSchema, Serialize)]
pub(super) struct Log {
    entries: Vec<Entry>,
}

/// An entry of a log: a message, how a turn began or ended, a note, or a summary.
#[derive(ToSchema, Serialize)]
struct Entry {
    /// Its place, from 1.
    seq: i64,
    /// The turn it belongs to.
    turn: String,
    created: String,
    kind: String,
    body: Map<String, Value>,
}

/// What was learned.
#[derive(ToSchema, Serialize)]
pub(super) struct Memories {
    memories: Vec<Memory>,
}

#[derive(ToSchema, Serialize)]
struct Memory {
    id: String,
    /// `episode` or `note`.
    kind: String,
    /// What was wanted.
    intent: String,
    /// What came of it.
    experience: String,
    /// What it has earned, from −1 to 1.
    value: f64,
    created: String,
    /// How similar it is to the question.
    similarity: Option<f64>,
}

/// Tools.
#[derive(ToSchema, Serialize)]
pub(super) struct Tools {
    tools: Vec<Tool>,
}

/// A tool, as the toolbox has it.
#[derive(ToSchema, Serialize)]
struct Tool {
    name: String,
    description: String,
    /// JSON Schema of its arguments.
    input: Map<String, Value>,
    /// `allow`, `ask` or `deny`.
    policy: String,
}

/// What a tool came to.
#[derive(ToSchema, Serialize)]
pub(super) struct Ran {
    command: String,
    /// Its text.
    output: String,
    /// The same as blocks.
    content: Vec<Map<String, Value>>,
    /// The same as one JSON value, where the tool returned one.
    structured: Value,
}

/// A run.
#[derive(ToSchema, Serialize)]
pub(super) struct Described {
    id: String,
    session_id: String,
    /// `running`, `waiting` or `finished`.
    status: String,
    /// The calls that wait for a person.
    waiting: Vec<String>,
    /// How it ended.
    result: Option<Outcome>,
}

#[derive(ToSchema, Serialize)]
struct Outcome {
    text: String,
    /// `answered`, `length`, `limit`, `loop`, `cancelled`, `unauthorized`, `model_failed`, `exhausted` or `failed`.
    stop: String,
    error: Option<String>,
    usage: Usage,
    rounds: u32,
    tool_calls: u32,
    milliseconds: f64,
}

#[derive(ToSchema, Serialize)]
struct Usage {
    input: u64,
    cached: u64,
    output: u64,
}

/// Models.
#[derive(ToSchema, Serialize)]
pub(super) struct Models {
    object: String,
    data: Vec<Model>,
}

/// A model: the assistant.
#[derive(ToSchema, Serialize)]
pub(super) struct Model {
    id: String,
    object: String,
    created: i64,
    owned_by: String,
}

/// A chat completion, as OpenAI has it.
#[derive(ToSchema, Serialize)]
pub(super) struct Completion {
    id: String,
    object: String,
    created: i64,
    model: String,
    choices: Vec<Map<String, Value>>,
    usage: Map<String, Value>,
    /// What the assistant did besides.
    omni: Map<String, Value>,
}

/// A response, as OpenAI and Open Responses have it.
#[derive(ToSchema, Serialize)]
pub(super) struct Response {
    id: String,
    object: String,
    created_at: i64,
    completed_at: Option<i64>,
    /// `in_progress`, `completed`, `incomplete`, `cancelled` or `failed`.
    status: String,
    model: String,
    output: Vec<Map<String, Value>>,
    usage: Option<Map<String, Value>>,
    error: Option<Map<String, Value>>,
    metadata: Map<String, Value>,
}

/// That a response is no more.
#[derive(ToSchema, Serialize)]
pub(super) struct Deleted {
    id: String,
    object: String,
    deleted: bool,
}
