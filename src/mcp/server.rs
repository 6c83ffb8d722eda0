//! The toolbox as an MCP server, of both eras: 2024-11-05 to 2025-11-25, and 2026-07-28.
//!
//! The server is there before the toolbox is: it says who it is without it, and what needs it
//! waits. Calls go through the toolbox like anybody's, so the policy, the limits and the audit are
//! the same.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use rmcp::ServerHandler;
#[allow(deprecated, reason = "clients of the older era have it")]
use rmcp::model::SetLevelRequestParams;
use rmcp::model::{
    CacheScope, CallToolRequestParams, CallToolResponse, CancelTaskParams, CompleteRequestParams,
    CompleteResult, CompletionInfo, CreateTaskResult, ErrorData, GetPromptRequestParams, GetPromptResponse,
    GetPromptResult, GetSkillRequestParams, GetSkillResult, GetTaskParams, GetTaskResult, Implementation,
    InputRequiredResult, InputResponses, ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult,
    ListSkillsResult, ListToolsResult, PaginatedRequestParams, ProtocolVersion,
    ReadResourceDirectoryRequestParams, ReadResourceDirectoryResult, ReadResourceRequestParams,
    ReadResourceResponse, ReadResourceResult, Reference, ServerCapabilities, ServerConfig,
    SubscribeRequestParams, SubscriptionFilter, Tool, UnsubscribeRequestParams, UpdateTaskParams,
};
use rmcp::service::{
    NotificationContext, RequestContext, RoleServer, ServerInitializeError, SubscriptionContext,
    serve_server_with_ct,
};
use rmcp::task_manager::TaskManager;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::Servers;
use super::audience::{Audience, Session};
use super::client::REQUEST;
use super::lines::Lines;
use super::run::{Parked, Report, Run, Step, Subject, Waiting};
use super::stdio::Pipes;
use super::view::{View, page};
use super::{ask, convert, skills};
use crate::message::event::EventKind;
use crate::message::{Arguments, ToolCall};
use crate::tool::{Error, Kind, Output, Scope, Spec, Toolbox};

/// The first version of the newer era.
const MODERN: ProtocolVersion = ProtocolVersion::V_2026_07_28;
/// Milliseconds for which a client may take the list of tools for current without asking.
const FRESH: u64 = 10_000;
/// Reports of progress that wait to be sent; more are dropped.
const REPORTS: usize = 64;
/// How often it is looked for calls whose clients did not come back.
const SWEEP: Duration = Duration::from_secs(30);

const INSTRUCTIONS: &str = "Tools of omni: files, git, processes, the web, notes, and whatever skills \
    its user has. Paths are relative to the folder that omni was started in, and tools do not leave it.";

/// The toolbox as it is from time to time; `None` until it is ready.
pub type Tools = watch::Receiver<Option<Arc<Toolbox>>>;

/// A server, as one client has it. Clones are the same one.
#[derive(Clone)]
pub struct Server {
    inner: Arc<Inner>,
    session: Arc<Session>,
}

struct Inner {
    tools: Tools,
    scope: Scope,
    /// Whose tools are shown as they describe them.
    servers: Arc<Servers>,
    view: View,
    audience: Arc<Audience>,
    parked: Parked,
    tasks: TaskManager,
}

impl Server {
    /// A server of these tools; of those of one skill alone, under the names they have there, if one
    /// is named. `scope` is what its calls have in common.
    pub fn new(tools: Tools, scope: Scope, servers: Arc<Servers>, skill: Option<String>) -> Self {
        let (view, audience) = (View::new(skill), Arc::default());
        let (parked, tasks) = (Parked::default(), TaskManager::new());
        let inner = Arc::new(Inner { tools, scope, servers, view, audience, parked, tasks });
        Self { inner, session: Arc::default() }
    }

    /// The same server for another client.
    pub(super) fn another(&self) -> Self {
        Self { inner: self.inner.clone(), session: Arc::default() }
    }

    /// Serves one client over standard input and output until it leaves.
    pub async fn stdio(self, pipes: Pipes) -> Result<(), String> {
        let (input, output) =
            (tokio::fs::File::from_std(pipes.input), tokio::fs::File::from_std(pipes.output));
        let stop = self.stop().child_token();
        let serving = async {
            match serve_server_with_ct(self.clone(), Lines::new(input, output), stop.clone()).await {
                Ok(running) => running.waiting().await.map(drop).map_err(|error| error.to_string()),
                // It left, or we did, before it had said what it wants.
                Err(
                    ServerInitializeError::ConnectionClosed(_)
                    | ServerInitializeError::TransportError { .. }
                    | ServerInitializeError::Cancelled,
                ) => Ok(()),
                Err(error) => Err(error.to_string()),
            }
        };
        tokio::select! {
            ended = serving => ended,
            () = self.announce() => Ok(()),
        }
    }

    /// What ends it.
    pub(super) fn stop(&self) -> &CancellationToken {
        &self.inner.scope.cancel
    }

    /// Tells clients of every change to what is listed, and looks for calls whose clients are gone.
    pub(super) async fn announce(&self) {
        let mut tools = self.inner.tools.clone();
        let mut known = tools.wait_for(Option::is_some).await.ok().and_then(|toolbox| toolbox.clone());
        let mut sweep = tokio::time::interval(SWEEP);
        let mut changes = true;
        loop {
            tokio::select! {
                changed = tools.changed(), if changes => changes = changed.is_ok(),
                now = sweep.tick() => {
                    self.inner.parked.sweep(now);
                    continue;
                }
            }
            let now = tools.borrow_and_update().clone();
            let lists =
                self.inner.view.lists(now.as_deref()).differ(&self.inner.view.lists(known.as_deref()));
            known = now;
            for change in lists {
                self.inner.audience.tell(&change).await;
            }
        }
    }

    /// The tools there are now, once there are any.
    async fn toolbox(&self) -> Result<Arc<Toolbox>, ErrorData> {
        let mut tools = self.inner.tools.clone();
        match tools.wait_for(Option::is_some).await {
            Ok(toolbox) => Ok(toolbox.clone().expect("waited for")),
            Err(_) => Err(ErrorData::internal_error("the server is stopping", None)),
        }
    }

    /// The scope of what is read by the way.
    fn quiet(&self, context: &RequestContext<RoleServer>) -> Arc<Scope> {
        Arc::new(Scope { cancel: context.ct.clone(), whole: true, ..self.inner.scope.clone() })
    }

    /// A call that begins now.
    fn begin(
        &self,
        subject: Subject,
        context: &RequestContext<RoleServer>,
        whole: bool,
        work: impl FnOnce(Arc<Scope>) -> BoxFuture<'static, Result<Output, Error>>,
    ) -> Run {
        let mut scope = self.inner.scope.clone();
        // It may outlive the request.
        scope.cancel = self.stop().child_token();
        scope.whole = whole;
        if let Some(Value::String(request)) = context.meta.get(REQUEST) {
            scope.request = Some(request.as_str().into());
        }
        let can = context.client_capabilities().unwrap_or_default();
        let words = ask::connect(&mut scope, &can, &self.inner.audience);
        let (sender, reports) = mpsc::channel(REPORTS);
        if context.meta.get_progress_token().is_some() {
            let sender = sender.clone();
            scope.events = Some(Arc::new(move |event| {
                if let EventKind::ToolProgress { progress, total, message, .. } = event {
                    let _ = sender.try_send(Report::Progress { progress, total, message });
                }
            }));
        }
        scope.logger = Some(Arc::new(move |level, text| {
            let _ = sender.try_send(Report::Said { level: level.to_owned(), text: text.to_owned() });
        }));
        let cancel = scope.cancel.clone();
        Run::new(subject, work(Arc::new(scope)), reports, words, cancel)
    }

    /// The call that a client comes back to; `None` if it begins one.
    fn resumed(&self, state: Option<&str>, subject: &Subject) -> Result<Option<Run>, ErrorData> {
        state.map(|word| self.inner.parked.resume(word, subject)).transpose()
    }

    /// Who waits for a call.
    fn waiting(&self, context: RequestContext<RoleServer>) -> Waiting {
        let is_older = is_older(&context);
        let level = match is_older {
            true => Some(self.session.level()),
            false => context.meta.log_level(),
        };
        let knows_tasks = context.client_capabilities().is_some_and(|can| can.supports_tasks());
        let token = context.meta.get_progress_token();
        Waiting { peer: context.peer, is_older, knows_tasks, gone: context.ct, token, level, last: 0.0 }
    }

    /// What a document or a prompt says, which are no tasks, or what it asks first.
    async fn read(
        &self,
        mut run: Run,
        responses: Option<InputResponses>,
        context: RequestContext<RoleServer>,
    ) -> Result<Result<Output, InputRequiredResult>, ErrorData> {
        let mut waiting = Waiting { knows_tasks: false, ..self.waiting(context) };
        run.answer(responses.unwrap_or_default());
        loop {
            match run.go(&mut waiting).await {
                Step::Done(outcome) => {
                    return outcome
                        .map(Ok)
                        .map_err(|error| run.lack(&error).unwrap_or_else(|| convert::to_error(&error)));
                }
                Step::Asks => return Ok(Err(self.inner.parked.park(run))),
                Step::Detaches(reply) => refuse(reply),
            }
        }
    }
}

fn is_older(context: &RequestContext<RoleServer>) -> bool {
    context.protocol_version().is_some_and(|version| version < MODERN)
}

/// Tells a tool that its client waits.
fn refuse(reply: Option<oneshot::Sender<bool>>) {
    if let Some(reply) = reply {
        let _ = reply.send(false);
    }
}

/// A tool under the name clients call it by. That of another server is handed on as it came.
fn described(servers: &Servers, name: &str, spec: &Spec) -> Tool {
    match servers.original(&spec.name) {
        Some(tool) => {
            let mut tool = Tool::clone(&tool);
            tool.name = name.to_owned().into();
            tool
        }
        None => convert::to_tool(name, spec),
    }
}

/// What is there beside tools, under its names.
fn named<'a, T>(
    specs: impl Iterator<Item = (&'a str, &'a Arc<Spec>)>,
    form: impl Fn(&str, &Spec) -> Option<T>,
) -> Vec<(&'a str, T)> {
    specs.filter_map(|(name, spec)| Some((name, form(name, spec)?))).collect()
}

impl ServerHandler for Server {
    #[allow(deprecated, reason = "as above")]
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_completions()
            .enable_logging()
            .enable_prompts()
            .enable_prompts_list_changed()
            .enable_resources()
            .enable_resources_list_changed()
            .enable_resources_subscribe()
            .enable_tools()
            .enable_tool_list_changed()
            .enable_tasks()
            .enable_skills_with_directory_read()
            .build();
        let own = Implementation::new("omni", env!("CARGO_PKG_VERSION")).with_title("omni");
        ServerConfig::new(capabilities)
            .with_server_info(own.with_description(env!("CARGO_PKG_DESCRIPTION")))
            .with_instructions(INSTRUCTIONS)
    }

    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        self.inner.audience.greet(&self.session, context.peer);
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let toolbox = self.toolbox().await?;
        let tools = self.inner.view.tools(&toolbox).map(|(name, spec)| (name, (name, spec))).collect();
        let (tools, next) = page(tools, request)?;
        let described = |(name, spec): (&str, &Arc<Spec>)| described(&self.inner.servers, name, spec);
        let mut result = ListToolsResult::with_all_items(tools.into_iter().map(described).collect());
        result.next_cursor = next;
        Ok(result.with_ttl_ms(FRESH).with_cache_scope(CacheScope::Private))
    }

    async fn list_prompts(
        &self,
        request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        let toolbox = self.toolbox().await?;
        let prompts = self.inner.view.prompts(&toolbox);
        let prompts = prompts.map(|(name, spec)| (name, convert::to_prompt(name, spec))).collect();
        let (prompts, next) = page(prompts, request)?;
        let mut result = ListPromptsResult::with_all_items(prompts);
        result.next_cursor = next;
        Ok(result.with_ttl_ms(FRESH).with_cache_scope(CacheScope::Private))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let toolbox = self.toolbox().await?;
        let arguments = request.arguments.unwrap_or_default();
        let name = match self.inner.view.prompt(&toolbox, &request.name) {
            Some(spec) => spec.name.clone(),
            None => return Err(convert::unknown_prompt(&request.name)),
        };
        let subject = ("prompt", request.name, arguments.clone());
        let run = match self.resumed(request.request_state.as_deref(), &subject)? {
            Some(run) => run,
            None => self.begin(subject, &context, true, |scope| {
                async move { toolbox.prompt(&name, arguments, &scope).await }.boxed()
            }),
        };
        match self.read(run, request.input_responses, context).await? {
            Ok(said) => Ok(GetPromptResult::new(convert::to_messages(said)).into()),
            Err(asks) => Ok(asks.into()),
        }
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let toolbox = self.toolbox().await?;
        let is_of =
            |template: &str, spec: &Spec| matches!(&spec.kind, Kind::Resource { uri, .. } if uri == template);
        let spec = match &request.r#ref {
            Reference::Prompt(prompt) => {
                let unknown = || convert::unknown_prompt(&prompt.name);
                self.inner.view.prompt(&toolbox, &prompt.name).ok_or_else(unknown)?
            }
            Reference::Resource(template) => {
                let mut all = self.inner.view.resources(&toolbox).map(|(_, spec)| spec);
                all.find(|spec| is_of(&template.uri, spec)).ok_or_else(|| convert::unknown(&template.uri))?
            }
            _ => return Err(ErrorData::invalid_params("there is no such reference", None)),
        };
        let mut values = convert::choices(&spec.input["properties"][&request.argument.name]);
        values.retain(|value| value.starts_with(&request.argument.value));
        values.truncate(CompletionInfo::MAX_VALUES);
        let info = CompletionInfo::with_all_values(values);
        Ok(CompleteResult::new(info.map_err(|error| ErrorData::internal_error(error, None))?))
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let toolbox = self.toolbox().await?;
        let resources = named(self.inner.view.resources(&toolbox), convert::to_resource);
        let (resources, next) = page(resources, request)?;
        let mut result = ListResourcesResult::with_all_items(resources);
        result.next_cursor = next;
        Ok(result.with_ttl_ms(FRESH).with_cache_scope(CacheScope::Private))
    }

    async fn list_resource_templates(
        &self,
        request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let toolbox = self.toolbox().await?;
        let templates = named(self.inner.view.resources(&toolbox), convert::to_template);
        let (templates, next) = page(templates, request)?;
        let mut result = ListResourceTemplatesResult::with_all_items(templates);
        result.next_cursor = next;
        Ok(result.with_ttl_ms(FRESH).with_cache_scope(CacheScope::Private))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let (toolbox, uri) = (self.toolbox().await?, request.uri);
        let Some(spec) = self.inner.view.resource(&toolbox, &uri) else {
            let unknown = convert::unknown(&uri);
            // The newer era has given up the code that the older ones have for it.
            return Err(match is_older(&context) {
                true => ErrorData::resource_not_found(unknown.message, unknown.data),
                false => unknown,
            });
        };
        let mime = match &spec.kind {
            Kind::Resource { mime, .. } => mime.clone(),
            Kind::Tool | Kind::Prompt => None,
        };
        let subject = ("resource", uri.clone(), Default::default());
        let run = match self.resumed(request.request_state.as_deref(), &subject)? {
            Some(run) => run,
            None => self.begin(subject, &context, true, {
                let (toolbox, uri) = (toolbox.clone(), uri.clone());
                |scope| async move { toolbox.read(&uri, &scope).await }.boxed()
            }),
        };
        let read = match self.read(run, request.input_responses, context).await? {
            Ok(read) => read,
            Err(asks) => return Ok(asks.into()),
        };
        let contents = convert::to_contents(&uri, mime.as_deref(), read);
        // What it says may be different the next time.
        let result = ReadResourceResult::new(contents).with_ttl_ms(0);
        Ok(result.with_cache_scope(CacheScope::Private).into())
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let toolbox = self.toolbox().await?;
        let Some(spec) = self.inner.view.tool(&toolbox, &request.name) else {
            let reason = format!("there is no tool `{}`", request.name.chars().take(80).collect::<String>());
            return Err(ErrorData::invalid_params(reason, None));
        };
        let arguments = request.arguments.unwrap_or_default();
        let subject = ("tool", request.name.into_owned(), arguments.clone());
        let mut run = match self.resumed(request.request_state.as_deref(), &subject)? {
            Some(run) => run,
            // What has a schema must fit it; a preview would not.
            None => self.begin(subject, &context, spec.output.is_some(), {
                let (id, name) = (context.id.to_string(), spec.name.clone());
                let call = ToolCall { id, name, arguments: Arguments::Object(arguments) };
                let toolbox = toolbox.clone();
                |scope| async move { toolbox.call(call, &scope).await }.boxed()
            }),
        };
        let mut waiting = self.waiting(context);
        run.answer(request.input_responses.unwrap_or_default());
        loop {
            match run.go(&mut waiting).await {
                Step::Done(outcome) => {
                    let lack = outcome.as_ref().err().filter(|_| !waiting.is_older);
                    if let Some(told) = lack.and_then(|error| run.lack(error)) {
                        return Err(told);
                    }
                    return Ok(convert::to_result(outcome).into());
                }
                Step::Asks => return Ok(self.inner.parked.park(run).into()),
                Step::Detaches(reply) => match run.entrust(&self.inner.tasks, reply) {
                    Ok(task) => return Ok(CreateTaskResult::new(task).into()),
                    Err((same, reply)) => {
                        run = *same;
                        waiting.knows_tasks = false;
                        refuse(reply);
                    }
                },
            }
        }
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        let tools = self.inner.tools.borrow();
        let spec = self.inner.view.tool(tools.as_ref()?, name)?;
        Some(described(&self.inner.servers, name, spec))
    }

    async fn get_task(
        &self,
        request: GetTaskParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<GetTaskResult, ErrorData> {
        Ok(GetTaskResult::new(self.inner.tasks.get_task(&request.task_id)?))
    }

    async fn update_task(
        &self,
        request: UpdateTaskParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.inner.tasks.update_task(&request.task_id, request.input_responses)
    }

    async fn cancel_task(
        &self,
        request: CancelTaskParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.inner.tasks.cancel_task(&request.task_id)
    }

    async fn list_skills(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListSkillsResult, ErrorData> {
        let toolbox = self.toolbox().await?;
        let all = skills::all(&toolbox, &self.inner.view, &self.quiet(&context)).await;
        let (skills, next) =
            page(all.iter().map(|skill| (skill.uri.as_str(), skill.clone())).collect(), request)?;
        let mut result = ListSkillsResult::with_all_items(skills);
        result.next_cursor = next;
        Ok(result.with_ttl_ms(FRESH).with_cache_scope(CacheScope::Private))
    }

    async fn get_skill(
        &self,
        request: GetSkillRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetSkillResult, ErrorData> {
        let toolbox = self.toolbox().await?;
        let scope = self.quiet(&context);
        let skill = skills::one(&toolbox, &self.inner.view, &request.uri, &scope).await?;
        Ok(GetSkillResult::new(skill).with_ttl_ms(FRESH).with_cache_scope(CacheScope::Private))
    }

    async fn read_resource_directory(
        &self,
        request: ReadResourceDirectoryRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceDirectoryResult, ErrorData> {
        let toolbox = self.toolbox().await?;
        let children = skills::children(&toolbox, &self.inner.view, &request.uri)?;
        let result = ReadResourceDirectoryResult::with_all_items(children);
        Ok(result.with_ttl_ms(FRESH).with_cache_scope(CacheScope::Private))
    }

    #[allow(deprecated, reason = "as above")]
    async fn set_level(
        &self,
        request: SetLevelRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.session.set_level(request.level);
        Ok(())
    }

    #[allow(deprecated, reason = "as above")]
    async fn subscribe(
        &self,
        request: SubscribeRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        let toolbox = self.toolbox().await?;
        if self.inner.view.resource(&toolbox, &request.uri).is_none() {
            let unknown = convert::unknown(&request.uri);
            return Err(ErrorData::resource_not_found(unknown.message, unknown.data));
        }
        self.session.subscribe(request.uri)
    }

    #[allow(deprecated, reason = "as above")]
    async fn unsubscribe(
        &self,
        request: UnsubscribeRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.session.unsubscribe(&request.uri);
        Ok(())
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(requested.supported_by(&self.get_info().capabilities))
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let sink = context.sink().clone();
        self.inner.audience.add(sink.clone());
        tokio::select! {
            () = context.cancelled() => {}
            () = self.stop().cancelled() => {}
        }
        self.inner.audience.remove(&sink);
        Ok(())
    }
}
