//! All tools in one box, and the only way to call one.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tracing::{Instrument, field};

use super::audit::{Audit, Decision};
use super::cache::Cache;
use super::clock::{Clock, Limits, timed};
use super::find::{self, Finder};
use super::meaning::Meanings;
use super::nested::Nested;
use super::policy::{self, Policy, Verdict};
use super::schema::{Checker, excerpt, for_model, nearest, quoted};
use super::scope::Scope;
use super::spill::{self, Spill};
use super::{Call, Context, Error, Kind, Output, Spec, Toolset, uri};
use crate::config::{Config, Paths};
use crate::message::event::{Answer, Approval, Consent, EventKind};
use crate::message::{Arguments, Block, ToolCall, ToolResult};
use crate::{measure, trace};

/// Read-only calls that run side by side.
const SIDE_BY_SIDE: usize = 8;
/// Characters of a name on the wire; OpenAI and Gemini allow no more.
const WIRE: usize = 64;
/// Who has decided for a whole session, as the audit has it: at that time, and from then on.
const SESSION: &str = "person, for this session";
const EARLIER: &str = "person, earlier in this session";

/// How the tools of a box run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What may run.
    pub policy: Policy,
    /// How long a call may take where the tool says nothing; zero for no limit.
    pub timeout: Duration,
    /// How long a call may be silent where the tool says nothing; zero for no limit.
    pub idle_timeout: Duration,
    /// Bytes of text of a result that go to the model.
    pub result_bytes: usize,
    /// The folder for the rest of long results; `None` drops it.
    pub results: Option<PathBuf>,
    /// Where the policy's decisions are written down.
    pub audit: Option<Arc<Audit>>,
    /// What tools and questions mean, where something can tell.
    pub meanings: Option<Arc<Meanings>>,
}

impl Settings {
    /// As configured. `yes` answers every question of the policy.
    pub fn new(config: &Config, paths: &Paths, yes: bool) -> Result<Self, policy::Error> {
        Ok(Self {
            policy: Policy::new(&config.policy, yes)?,
            timeout: seconds(config.tools.timeout).unwrap_or_default(),
            idle_timeout: seconds(config.tools.idle_timeout).unwrap_or_default(),
            result_bytes: config.tools.result_bytes,
            results: Some(paths.cache.join("results")),
            audit: None,
            meanings: None,
        })
    }
}

/// A tool as it is offered to a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// Its name on the wire: `[A-Za-z0-9_-]`, at most 64, first a letter or `_`.
    pub wire: String,
    /// Its own name.
    pub name: String,
    /// What it does.
    pub description: String,
    /// The schema of its arguments, shortened by [`for_model`].
    pub parameters: Value,
    /// Sentences a person might say when this tool is wanted.
    pub examples: Vec<String>,
    /// Whether it changes nothing.
    pub read_only: bool,
    /// Whether the workspace has files that it is about.
    pub fits: bool,
}

/// All tools at one moment. It does not change; [`Toolbox::renewed`] makes the next one, which
/// belongs between two turns: a changed list of tools costs the provider's cache.
pub struct Toolbox {
    sets: Vec<Arc<dyn Toolset>>,
    settings: Settings,
    spill: Option<Arc<Spill>>,
    seen: Vec<Arc<Spec>>,
    entries: Vec<Entry>,
    wires: HashMap<String, usize>,
    names: HashMap<String, usize>,
    clashes: Vec<String>,
    definitions: OnceLock<Vec<Definition>>,
    finder: OnceLock<Finder>,
}

struct Entry {
    spec: Arc<Spec>,
    set: Arc<dyn Toolset>,
    wire: String,
    verdict: Verdict,
    limits: Limits,
    cache: Option<Cache>,
    /// As many permits as calls may run at once.
    room: Option<Semaphore>,
    /// Compiled when it is first needed: a program that calls one tool compiles one schema.
    checker: OnceLock<Result<Checker, String>>,
}

impl Entry {
    /// Whether it is a tool of its own, and not a way to others.
    fn is_listed(&self) -> bool {
        self.spec.kind == Kind::Tool && ![find::FIND, find::CALL].contains(&self.spec.name.as_str())
    }

    fn is_offered(&self) -> bool {
        !matches!(self.verdict, Verdict::Deny(_)) && self.checker().is_ok()
    }

    fn checker(&self) -> Result<&Checker, &str> {
        self.checker.get_or_init(|| Checker::new(&self.spec.input)).as_ref().map_err(String::as_str)
    }
}

/// A call that may run now.
struct Ready<'a> {
    entry: &'a Entry,
    id: String,
    arguments: Map<String, Value>,
}

impl Toolbox {
    /// Puts the tools of these sets into one box. Where two have the same name, the first wins.
    pub fn new(sets: Vec<Arc<dyn Toolset>>, settings: Settings) -> Self {
        let folder = settings.results.clone();
        let spill = folder.map(|folder| Arc::new(Spill::new(folder, settings.result_bytes)));
        let seen = specs(&sets);
        Self::build(sets, settings, spill, seen)
    }

    /// The box with the tools its sets have now: the same one if nothing has changed.
    pub fn renewed(self: &Arc<Self>) -> Arc<Self> {
        let seen = specs(&self.sets);
        if seen == self.seen {
            return Arc::clone(self);
        }
        Arc::new(Self::build(self.sets.clone(), self.settings.clone(), self.spill.clone(), seen))
    }

    fn build(
        sets: Vec<Arc<dyn Toolset>>,
        settings: Settings,
        spill: Option<Arc<Spill>>,
        seen: Vec<Arc<Spec>>,
    ) -> Self {
        let (mut entries, mut clashes) = (Vec::new(), Vec::new());
        let mut names = HashSet::new();
        // Our own tool comes first, so that nobody else answers in its name.
        let own: [Option<Arc<dyn Toolset>>; 2] =
            [spill.clone().map(|spill| spill as _), Some(Arc::new(find::Desk))];
        for set in own.into_iter().flatten().chain(sets.iter().map(Arc::clone)) {
            for spec in set.specs() {
                let name = spec.name.as_str();
                if name.trim().is_empty() {
                    clashes.push("a tool without a name is left out".to_owned());
                } else if names.insert(name.to_owned()) {
                    entries.push(entry(spec, &set, &settings));
                } else {
                    clashes.push(format!("there are two tools `{name}`; the second one is left out"));
                }
            }
        }
        entries.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        let mut wires = HashMap::new();
        let mut names = HashMap::new();
        for (index, entry) in entries.iter_mut().enumerate() {
            entry.wire = wire(&entry.spec.name, |wire| wires.contains_key(wire));
            wires.insert(entry.wire.clone(), index);
            names.insert(entry.spec.name.clone(), index);
        }
        let (definitions, finder) = (OnceLock::new(), OnceLock::new());
        Self { sets, settings, spill, seen, entries, wires, names, clashes, definitions, finder }
    }

    /// What a model is offered, by name. Left out is what the policy denies and what has an
    /// unusable schema.
    pub fn definitions(&self) -> &[Definition] {
        self.definitions.get_or_init(|| {
            let offered = |entry: &&Entry| entry.is_listed() && entry.is_offered();
            self.entries.iter().filter(offered).map(definition).collect()
        })
    }

    /// What a model is offered beside some of these where it is not offered all: a tool that finds
    /// the others, and one that calls them.
    pub fn finders(&self) -> Vec<Definition> {
        [find::FIND, find::CALL].iter().filter_map(|name| self.entry(name)).map(definition).collect()
    }

    /// The places in [`Toolbox::definitions`] of the tools that each sentence may be about, the
    /// likeliest first.
    pub async fn rank(&self, sentences: &[&str]) -> Vec<Vec<usize>> {
        let finder = self.finder.get_or_init(|| Finder::new(self.definitions()));
        finder.find(sentences, self.settings.meanings.as_ref()).await
    }

    /// The servers of others that tools come from.
    pub fn servers(&self) -> Vec<super::Server> {
        self.sets.iter().flat_map(|set| set.servers()).collect()
    }

    /// Whether any tool asks before it runs.
    pub fn asks(&self) -> bool {
        self.entries.iter().any(|entry| matches!(entry.verdict, Verdict::Ask(_)))
    }

    /// What is wrong with tools that were left out, a sentence each. Compiles every schema.
    pub fn problems(&self) -> Vec<String> {
        let unusable = self.entries.iter().filter_map(|entry| {
            let reason = entry.checker().err()?;
            Some(format!("the tool `{}` is left out: {reason}", entry.spec.name))
        });
        self.clashes.iter().cloned().chain(unusable).collect()
    }

    /// The tools there are, by name.
    pub fn specs(&self) -> impl Iterator<Item = &Arc<Spec>> {
        self.entries.iter().filter(|entry| entry.is_listed()).map(|entry| &entry.spec)
    }

    /// The documents that may be read, by name.
    pub fn resources(&self) -> impl Iterator<Item = &Arc<Spec>> {
        self.offered(|kind| matches!(kind, Kind::Resource { .. }))
    }

    /// The prompts there are, by name.
    pub fn prompts(&self) -> impl Iterator<Item = &Arc<Spec>> {
        self.offered(|kind| *kind == Kind::Prompt)
    }

    /// What is of this kind. The schemas of others are not compiled for it.
    fn offered(&self, is_wanted: impl Fn(&Kind) -> bool) -> impl Iterator<Item = &Arc<Spec>> {
        let wanted = self.entries.iter().filter(move |entry| is_wanted(&entry.spec.kind));
        wanted.filter(|entry| entry.is_offered()).map(|entry| &entry.spec)
    }

    /// The tool of this name, on the wire or its own.
    pub fn find(&self, name: &str) -> Option<&Arc<Spec>> {
        self.entry(name).filter(|entry| entry.is_listed()).map(|entry| &entry.spec)
    }

    /// The name on the wire of the tool with this name.
    pub fn wire(&self, name: &str) -> Option<&str> {
        self.entry(name).map(|entry| entry.wire.as_str())
    }

    /// What the policy says of this tool.
    pub fn verdict(&self, name: &str) -> Option<&Verdict> {
        self.entry(name).map(|entry| &entry.verdict)
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        // The wire first: it is the name that models use.
        let index = self.wires.get(name).or_else(|| self.names.get(name))?;
        self.entries.get(*index)
    }

    /// Runs one call: finds the tool, checks the arguments, asks for permission, keeps the
    /// time, shortens the result. Progress is reported; its beginning and end are the caller's.
    pub async fn call(self: &Arc<Self>, call: ToolCall, scope: &Arc<Scope>) -> Result<Output, Error> {
        let ToolCall { id, name, arguments } = call;
        let ready = self.prepare(id, &name, arguments, scope).await?;
        self.run(ready, scope).await
    }

    /// The document of this URI.
    pub fn resource(&self, uri: &str) -> Option<&Arc<Spec>> {
        self.document(uri).map(|(spec, _)| spec)
    }

    /// The same, with the values of its template's variables.
    fn document(&self, uri: &str) -> Option<(&Arc<Spec>, Map<String, Value>)> {
        self.resources().find_map(|spec| match &spec.kind {
            Kind::Resource { uri: template, .. } => Some((spec, uri::read(template, uri)?)),
            Kind::Tool | Kind::Prompt => None,
        })
    }

    /// Reads the document of this URI, as a call that is subject to all that calls are.
    pub async fn read(self: &Arc<Self>, uri: &str, scope: &Arc<Scope>) -> Result<Output, Error> {
        let unknown = || Error::Retry(format!("there is no resource `{}`", excerpt(&uri, 200)));
        let (spec, mut arguments) = self.document(uri).ok_or_else(unknown)?;
        for (name, value) in &mut arguments {
            let kind = spec.input["properties"][name]["type"].as_str();
            let text = value.as_str().filter(|_| matches!(kind, Some("integer" | "number" | "boolean")));
            if let Some(read) = text.and_then(|text| serde_json::from_str(text).ok()) {
                *value = read;
            }
        }
        self.provide(&spec.name, arguments, scope).await
    }

    /// What the prompt of this name says, as a call that is subject to all that calls are.
    pub async fn prompt(
        self: &Arc<Self>,
        name: &str,
        arguments: Map<String, Value>,
        scope: &Arc<Scope>,
    ) -> Result<Output, Error> {
        if !self.prompts().any(|spec| spec.name == name) {
            return Err(Error::Retry(format!("there is no prompt `{}`", excerpt(&name, 80))));
        }
        self.provide(name, arguments, scope).await
    }

    async fn provide(
        self: &Arc<Self>,
        name: &str,
        arguments: Map<String, Value>,
        scope: &Arc<Scope>,
    ) -> Result<Output, Error> {
        let entry = self.names.get(name).and_then(|index| self.entries.get(*index));
        let entry = entry.ok_or_else(|| self.unknown(name))?;
        let id = uuid::Uuid::now_v7().to_string();
        let ready = self.admit(entry, id, Arguments::Object(arguments), scope).await?;
        self.run(ready, scope).await
    }

    /// Runs the calls of one round and reports them. Read-only calls that follow one another
    /// run side by side, all others alone and in order; results are in the order of the calls.
    pub async fn call_all(self: &Arc<Self>, calls: Vec<ToolCall>, scope: &Arc<Scope>) -> Vec<ToolResult> {
        let quiet =
            |call: &ToolCall| self.entry(&call.name).is_none_or(|entry| entry.spec.annotations.read_only);
        let mut results = Vec::with_capacity(calls.len());
        let names: Vec<String> = calls.iter().map(|call| call.name.clone()).collect();
        let mut calls = calls.into_iter().map(find::meant).peekable();
        while let Some(call) = calls.next() {
            let mut group = vec![call];
            while quiet(&group[0])
                && let Some(next) = calls.next_if(quiet)
            {
                group.push(next);
            }
            self.call_group(group, scope, &mut results).await;
        }
        // Providers know a result by the name that was called.
        results.iter_mut().zip(names).for_each(|(result, name)| result.name = name);
        results
    }

    async fn call_group(
        self: &Arc<Self>,
        group: Vec<ToolCall>,
        scope: &Arc<Scope>,
        results: &mut Vec<ToolResult>,
    ) {
        let mut running = Vec::with_capacity(group.len());
        for mut call in group {
            let arguments = std::mem::replace(&mut call.arguments, Arguments::Object(Map::new()));
            self.report_start(&call, &arguments, scope);
            let ready = self.prepare(call.id.clone(), &call.name, arguments, scope).await;
            running.push(self.settle(call, ready, scope));
        }
        let mut running = stream::iter(running).buffered(SIDE_BY_SIDE);
        while let Some(result) = running.next().await {
            results.push(result);
        }
    }

    /// Runs a call of a group and reports its end.
    ///
    /// Boxed: the compiler sees that a stream of these is `Send` only if they have a named type.
    fn settle<'a>(
        self: &'a Arc<Self>,
        call: ToolCall,
        ready: Result<Ready<'a>, Error>,
        scope: &'a Arc<Scope>,
    ) -> BoxFuture<'a, ToolResult> {
        Box::pin(async move {
            // How long a person has thought about it is not the tool's time.
            let began = Instant::now();
            let outcome = match ready {
                Ok(ready) => self.run(ready, scope).await,
                Err(error) => Err(error),
            };
            let result = result(&call, outcome);
            self.report_end(&call, &result, began, scope);
            result
        })
    }

    fn report_start(&self, call: &ToolCall, arguments: &Arguments, scope: &Scope) {
        let Some(events) = &scope.events else { return };
        let arguments = match arguments {
            Arguments::Object(map) => map.clone(),
            Arguments::Unreadable(_) => Map::new(),
        };
        events(EventKind::ToolStarted {
            call: call.id.clone(),
            parent: scope.parent(),
            tool: self.own_name(&call.name),
            arguments,
        });
    }

    fn report_end(&self, call: &ToolCall, result: &ToolResult, began: Instant, scope: &Scope) {
        let Some(events) = &scope.events else { return };
        events(EventKind::ToolFinished {
            call: call.id.clone(),
            parent: scope.parent(),
            tool: self.own_name(&call.name),
            result: result.clone(),
            milliseconds: began.elapsed().as_secs_f64() * 1000.0,
        });
    }

    fn own_name(&self, name: &str) -> String {
        self.find(name).map_or(name, |spec| &spec.name).to_owned()
    }

    async fn prepare(
        &self,
        id: String,
        name: &str,
        arguments: Arguments,
        scope: &Scope,
    ) -> Result<Ready<'_>, Error> {
        if scope.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let entry = self.entry(name).filter(|entry| entry.spec.kind == Kind::Tool);
        self.admit(entry.ok_or_else(|| self.unknown(name))?, id, arguments, scope).await
    }

    /// Checks whether this may be called like this.
    async fn admit<'a>(
        &self,
        entry: &'a Entry,
        id: String,
        arguments: Arguments,
        scope: &Scope,
    ) -> Result<Ready<'a>, Error> {
        let arguments = match arguments {
            Arguments::Object(map) => map,
            Arguments::Unreadable(text) => return Err(unreadable(&entry.wire, &text)),
        };
        let mut ready = Ready { entry, id, arguments };
        if let Verdict::Deny(rule) = &entry.verdict {
            self.audit(&ready, scope, "denied", rule, "policy");
            return Err(Error::Denied(format!("{rule}; leave `{}` alone", entry.spec.name)));
        }
        let checker = entry
            .checker()
            .map_err(|reason| Error::Failed(format!("`{}` cannot be used: {reason}", entry.spec.name)))?;
        ready.arguments = checker.check(ready.arguments).map_err(Error::Retry)?;
        match &entry.verdict {
            Verdict::Ask(rule) => self.consent(&ready, scope, rule).await?,
            Verdict::Allow(rule) | Verdict::Deny(rule) => {
                self.audit(&ready, scope, "allowed", rule, "policy")
            }
        }
        Ok(ready)
    }

    fn unknown(&self, name: &str) -> Error {
        let near = nearest(name, self.definitions().iter().map(|tool| tool.wire.as_str()), 3);
        let name = excerpt(&name, 80);
        Error::Retry(match near.as_slice() {
            [] => format!("there is no tool `{name}`; call only tools that you were given"),
            near => format!("there is no tool `{name}`; did you mean {}?", quoted(near)),
        })
    }

    /// Asks a person.
    async fn consent(&self, ready: &Ready<'_>, scope: &Scope, rule: &str) -> Result<(), Error> {
        let tool = ready.entry.spec.name.as_str();
        let refused = |how, who| {
            self.audit(ready, scope, "denied", rule, who);
            let what = "do not try it again, ask or do something else";
            Err(Error::Denied(format!("the user does not want `{tool}` to run {how}; {what}")))
        };
        match scope.consents.given(tool) {
            Some(true) => {
                self.audit(ready, scope, "allowed", rule, EARLIER);
                return Ok(());
            }
            Some(false) => return refused("in this session", EARLIER),
            None => {}
        }
        let nobody = || {
            self.audit(ready, scope, "denied", rule, "nobody to ask");
            Error::Denied(format!(
                "{rule}, so a person has to agree to `{tool}`, and nobody could be asked; the user can allow it \
             with `policy.allow = [\"{tool}\"]` in the configuration, or with `--yes`"
            ))
        };
        let approver = scope.approver.as_ref().ok_or_else(nobody)?;
        let (answer, answered) = Answer::channel();
        approver(Approval {
            call: ready.id.clone(),
            tool: tool.to_owned(),
            arguments: ready.arguments.clone(),
            folder: scope.workspace.to_path_buf(),
            reason: rule.to_owned(),
            answer,
        });
        let _thinking = scope.stop();
        let consent = tokio::select! {
            biased;
            () = scope.cancel.cancelled() => return Err(Error::Cancelled),
            consent = answered => consent.map_err(|_| nobody())?,
        };
        let who = match consent {
            Consent::Always | Consent::Never => SESSION,
            Consent::Once | Consent::No => "person",
        };
        match consent {
            Consent::Always => scope.consents.keep(tool, true),
            Consent::Never => {
                scope.consents.keep(tool, false);
                return refused("in this session", who);
            }
            Consent::Once => {}
            Consent::No => return refused("like this", who),
        }
        self.audit(ready, scope, "allowed", rule, who);
        Ok(())
    }

    /// Writes a decision down.
    fn audit(&self, ready: &Ready<'_>, scope: &Scope, verdict: &str, rule: &str, who: &str) {
        let Some(audit) = &self.settings.audit else { return };
        audit.write(&Decision {
            time: jiff::Timestamp::now(),
            verdict,
            tool: &ready.entry.spec.name,
            rule,
            who,
            call: &ready.id,
            session: scope.session.as_deref(),
            turn: scope.turn.as_deref(),
            arguments: ready.arguments.keys().map(String::as_str).collect(),
        });
    }

    async fn run(self: &Arc<Self>, ready: Ready<'_>, scope: &Arc<Scope>) -> Result<Output, Error> {
        let Ready { entry, id, arguments } = ready;
        let key = entry.cache.as_ref().map(|cache| (cache, Cache::key(&scope.workspace, &arguments)));
        if let Some((cache, key)) = &key
            && let Some(output) = cache.get(key, Instant::now())
        {
            return Ok(self.fit(entry, output, scope).await);
        }
        let name = entry.spec.name.as_str();
        if entry.room.is_some() && scope.within.iter().any(|outer| outer.tool == name) {
            let reason = format!("`{name}` is nested in itself and would wait for its own end");
            return Err(Error::Failed(reason));
        }
        let room = async {
            match &entry.room {
                Some(room) => Some(room.acquire().await.expect("it is never closed")),
                None => None,
            }
        };
        let _room = tokio::select! {
            biased;
            room = room => room,
            () = scope.cancel.cancelled() => return Err(Error::Cancelled),
        };
        let (spec, clock) = (Arc::clone(&entry.spec), Arc::new(Clock::default()));
        let cancel = scope.cancel.child_token();
        // What it has asked for and not waited for ends with it.
        let _over = cancel.drop_guard_ref();
        let context = Context {
            progress: scope.progress(&id, entry.limits.idle.map(|_| &clock)),
            id,
            session: scope.session.clone(),
            workspace: Arc::clone(&scope.workspace),
            cancel: cancel.clone(),
            request: scope.request.clone(),
            logger: scope.logger.clone(),
            nested: Some(Nested::new(Arc::clone(self), Arc::clone(scope), spec.clone(), clock.clone())),
        };
        let call = Call { spec, arguments, context };
        let began = measure::now();
        let span = tracing::debug_span!(
            target: trace::DETAIL, "tool", otel.name = format!("execute_tool {name}"),
            gen_ai.operation.name = "execute_tool", gen_ai.tool.name = name, gen_ai.tool.call.id = call.context.id,
            otel.status_code = field::Empty, error.type = field::Empty,
        );
        let outcome = timed(entry.set.as_ref(), call, &cancel, entry.limits, &clock);
        let outcome = outcome.instrument(span.clone()).await;
        if let Err(error) = &outcome {
            span.record("otel.status_code", "ERROR").record("error.type", error.name());
        }
        if let Some(began) = began {
            measure::tool(outcome.as_ref().err().map_or("ok", Error::name), began.elapsed());
        }
        let mut output = outcome?;
        if output.content.is_empty()
            && let Some(value) = &output.structured
        {
            output.content.push(Block::text(value.to_string()));
        }
        if let Some((cache, key)) = key {
            cache.put(key, output.clone(), Instant::now());
        }
        let output = self.fit(entry, output, scope).await;
        Ok(Output { changes: clock.changes.take(), ..output })
    }

    /// Makes a result fit for a model, if it is for one.
    async fn fit(&self, entry: &Entry, output: Output, scope: &Scope) -> Output {
        // A page of a kept result is as long as was asked for and must not be kept again.
        if scope.whole || entry.spec.name == spill::READ {
            return output;
        }
        let session = scope.session.as_deref();
        spill::fit(output, self.settings.result_bytes, session, self.spill.as_ref()).await
    }
}

impl std::fmt::Debug for Toolbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.specs().map(|spec| &spec.name)).finish()
    }
}

/// The answer to a call, for the model and the log.
pub fn result(call: &ToolCall, outcome: Result<Output, Error>) -> ToolResult {
    match outcome {
        Ok(Output { content, structured, changes, .. }) => ToolResult {
            call: call.id.clone(),
            name: call.name.clone(),
            // Some providers take no empty result.
            content: if content.is_empty() { vec![Block::text("(done; no output)")] } else { content },
            structured,
            is_error: false,
            changes,
        },
        Err(error) => ToolResult::error(call, error.to_string()),
    }
}

/// Whether a result made by [`result`] tells of a refusal, which no other call will change.
pub fn refused(result: &ToolResult) -> bool {
    // The words are those of `Error::Denied`.
    let first = result.content.first();
    result.is_error && matches!(first, Some(Block::Text { text }) if text.starts_with("refused: "))
}

fn specs(sets: &[Arc<dyn Toolset>]) -> Vec<Arc<Spec>> {
    sets.iter().flat_map(|set| set.specs()).collect()
}

fn entry(spec: Arc<Spec>, set: &Arc<dyn Toolset>, settings: &Settings) -> Entry {
    let limit = |own: Option<f64>, default| {
        Some(own.and_then(seconds).unwrap_or(default)).filter(|limit| !limit.is_zero())
    };
    Entry {
        verdict: settings.policy.decide(&spec),
        set: Arc::clone(set),
        wire: String::new(),
        limits: Limits {
            total: limit(spec.timeout, settings.timeout),
            idle: limit(spec.idle_timeout, settings.idle_timeout),
        },
        // Only what changes nothing is the same without running.
        cache: spec
            .cache_ttl
            .filter(|_| spec.annotations.read_only)
            .and_then(seconds)
            .filter(|ttl| !ttl.is_zero())
            .map(Cache::new),
        room: spec.concurrency.map(|most| Semaphore::new(most.max(1) as usize)),
        checker: OnceLock::new(),
        spec,
    }
}

fn seconds(value: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(value).ok()
}

fn definition(entry: &Entry) -> Definition {
    let spec = &entry.spec;
    Definition {
        wire: entry.wire.clone(),
        name: spec.name.clone(),
        description: spec.description.clone(),
        parameters: for_model(&spec.input),
        examples: spec.examples.clone(),
        read_only: spec.annotations.read_only,
        fits: spec.fits,
    }
}

/// A name on the wire that nobody has: `.` becomes `__`, other signs `_`; a hash of the own
/// name follows when it is too long or taken.
fn wire(name: &str, taken: impl Fn(&str) -> bool) -> String {
    let mut wire: String = name.replace('.', "__");
    wire =
        wire.chars().map(|c| if c.is_ascii_alphanumeric() || "_-".contains(c) { c } else { '_' }).collect();
    if !wire.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        wire.insert(0, '_');
    }
    if wire.len() <= WIRE && !taken(&wire) {
        return wire;
    }
    let hash: String = Sha256::digest(name).iter().map(|byte| format!("{byte:02x}")).collect();
    // More of the hash each time; two names that share all of it are one name.
    for length in (8..=WIRE - 2).step_by(8) {
        wire.truncate(WIRE - length - 1);
        let long = format!("{wire}_{}", &hash[..length]);
        if !taken(&long) {
            return long;
        }
    }
    hash[..WIRE].replacen(|_: char| true, "_", 1)
}

fn unreadable(wire: &str, text: &str) -> Error {
    let problem = match serde_json::from_str::<Value>(text) {
        Ok(_) => "they are JSON, but no object".to_owned(),
        Err(error) => error.to_string(),
    };
    let text = excerpt(&text, 200);
    Error::Retry(format!(
        "the arguments of `{wire}` cannot be read ({problem}); send one JSON object, not this: {text}"
    ))
}
