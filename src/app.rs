//! The composition root: settings in, a wired [`Hub`] out. The only place that knows every part.
//!
//! Each part is made when it is first asked for: `omni tool list` opens no database, and a
//! question that needs no tool starts no Python.

mod extensions;
mod jobs;
mod reload;
mod remember;
mod telemetry;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::{OnceCell, watch};
use tracing_appender::rolling::{RollingFileAppender, Rotation};

use crate::agent::Agent;
use crate::channel::telegram::{self, Telegram};
use crate::config::{self, ConfigError, Loaded, Paths, layers};
use crate::hub::{Bounds, Hub};
use crate::kernel::guide::Guide;
use crate::kernel::{Interpreter, Kernel, describe, interpreter};
use crate::llm::embed::Embedder;
use crate::llm::{self, Model, detect};
use crate::mcp::config::{Chosen, Files, Left, Trust, Variables, places};
use crate::mcp::{self, Servers};
use crate::memory::Memory;
use crate::session::{self, Sessions};
use crate::shutdown::Shutdown;
use crate::skill::{Catalog, Environments, Index, Manifest};
use crate::store::mail::Mail;
use crate::store::{self, Store};
use crate::tool::plan::Plan;
use crate::tool::{Audit, Scope, Settings, Toolbox, Toolset, policy};

/// How long turns and tools have to stop when the program ends.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long servers that were never heard of have to say what they have, before a first turn.
const GREETING: Duration = Duration::from_millis(500);
/// Log files that are kept, one a day.
const LOGS: usize = 7;

/// What was chosen on the command line.
#[derive(Debug, Clone, Default)]
pub struct Choices {
    /// The model.
    pub model: Option<String>,
    /// Whether tools run without asking.
    pub yes: bool,
    /// More folders of skills.
    pub skills: Vec<PathBuf>,
    /// Settings as `KEY=VALUE`.
    pub set: Vec<String>,
    /// Files of MCP servers that come before all others.
    pub servers: Vec<PathBuf>,
    /// MCP servers that the program around us has handed over, by name; they come before the files.
    pub handed: Map<String, Value>,
}

/// Why the parts could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no home folder, or no current one.
    #[error("{0}")]
    Paths(String),
    /// A settings file, variable or flag is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A secret cannot be had.
    #[error("cannot read `{key}`: {reason}")]
    Secret {
        /// The setting.
        key: String,
        /// Why not.
        reason: config::secret::SecretError,
    },
    /// A rule of the policy can never match.
    #[error(transparent)]
    Policy(#[from] policy::Error),
    /// The database cannot be opened.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A session cannot be read.
    #[error(transparent)]
    Session(#[from] session::Error),
    /// There is no such model.
    #[error(transparent)]
    Model(#[from] llm::Error),
    /// A budget in dollars cannot be kept.
    #[error(
        "`{key}` is a limit in dollars, and what `{model}` costs is not known: add it to `model.price`, as in \
         \"{model} 2.0 0.2 10.0\", or set a limit in tokens"
    )]
    Unpriced {
        /// The setting.
        key: &'static str,
        /// The model.
        model: String,
    },
    /// Telegram cannot be had.
    #[error("{0}")]
    Telegram(String),
}

/// The parts of the program, made when they are needed.
pub struct App {
    /// The settings and where they come from.
    pub loaded: Loaded,
    /// The folders.
    pub paths: Paths,
    choices: Choices,
    interpreter: Interpreter,
    shutdown: Shutdown,
    store: Arc<OnceCell<Store>>,
    manifest: OnceCell<Arc<Manifest>>,
    kernel: OnceCell<Arc<Kernel>>,
    guide: OnceCell<Arc<Guide>>,
    servers: OnceCell<Arc<Servers>>,
    listed: watch::Sender<()>,
    toolbox: OnceCell<Arc<Toolbox>>,
    audit: OnceLock<Option<Arc<Audit>>>,
    model: OnceCell<Arc<dyn Model>>,
    memory: Arc<OnceCell<Arc<Memory>>>,
    embedder: OnceLock<Result<Option<Arc<dyn Embedder>>, llm::Error>>,
    /// Whether the model is given a tool to show its plan with.
    plans: bool,
    /// Whether it is given tools to plan jobs with.
    schedules: bool,
    /// Tools of the program around us.
    given: Option<Arc<dyn Toolset>>,
}

impl App {
    /// Reads the settings.
    pub fn load(choices: Choices, interpreter: Interpreter) -> Result<Self, Error> {
        let current = std::env::current_dir()
            .map_err(|error| Error::Paths(format!("the current folder cannot be used: {error}")))?;
        Self::within(&current, choices, interpreter)
    }

    /// The same for another folder and these servers handed over: with the settings and skills of
    /// that folder, and the database, the memory and the end in common.
    pub fn elsewhere(&self, folder: &Path, handed: Map<String, Value>) -> Result<Self, Error> {
        let choices = Choices { handed, ..self.choices.clone() };
        Ok(Self {
            shutdown: self.shutdown.clone(),
            store: self.store.clone(),
            memory: self.memory.clone(),
            embedder: self.embedder.clone(),
            ..Self::within(folder, choices, self.interpreter)?
        })
    }

    /// The same for somebody who is shown plans.
    pub fn with_plans(self) -> Self {
        Self { plans: true, ..self }
    }

    /// The same where jobs are run, or looked after: their tools are many words, so a model hears of
    /// them where they lead to something.
    pub fn with_schedules(self) -> Self {
        Self { schedules: true, ..self }
    }

    /// The same with tools of the program around us.
    pub fn with_tools(self, given: Arc<dyn Toolset>) -> Self {
        Self { given: Some(given), ..self }
    }

    /// Reads the settings for this folder.
    pub fn within(current: &Path, choices: Choices, interpreter: Interpreter) -> Result<Self, Error> {
        let paths = Paths::find(current).map_err(Error::Paths)?;
        if let Some(missing) = choices.servers.iter().find(|file| !file.is_file()) {
            return Err(Error::Paths(format!("there is no file of servers `{}`", missing.display())));
        }
        let mut flags = layers::flags(&choices.set)?;
        if let Some(model) = &choices.model {
            flags.push(("model.name".to_owned(), model.as_str().into()));
        }
        let environment = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
        let loaded = layers::load(&paths, environment, flags)?;
        Ok(Self {
            loaded,
            paths,
            choices,
            interpreter,
            shutdown: Shutdown::default(),
            store: Arc::default(),
            manifest: OnceCell::new(),
            kernel: OnceCell::new(),
            guide: OnceCell::new(),
            servers: OnceCell::new(),
            listed: watch::Sender::new(()),
            toolbox: OnceCell::new(),
            audit: OnceLock::new(),
            model: OnceCell::new(),
            memory: Arc::default(),
            embedder: OnceLock::new(),
            plans: false,
            schedules: false,
            given: None,
        })
    }

    fn config(&self) -> &config::Config {
        &self.loaded.config
    }

    /// In whose process we are.
    pub fn interpreter(&self) -> Interpreter {
        self.interpreter
    }

    /// A file of the state folder with the day in its name.
    fn daily(&self, name: &str, suffix: &str) -> Option<RollingFileAppender> {
        // Asked for in a folder that is not there, it prints where nobody expects it.
        std::fs::create_dir_all(&self.paths.state).ok()?;
        RollingFileAppender::builder()
            .rotation(Rotation::DAILY)
            .filename_prefix(name)
            .filename_suffix(suffix)
            .max_log_files(LOGS)
            .build(&self.paths.state)
            .ok()
    }

    /// Where the policy's decisions are written down: begun with the first tool.
    fn audit(&self) -> Option<Arc<Audit>> {
        let begin = || Some(Arc::new(Audit::new(self.daily("audit", "jsonl")?)));
        self.audit.get_or_init(begin).clone()
    }

    /// The database.
    pub async fn store(&self) -> Result<&Store, Error> {
        open_store(&self.store, &self.config().store.url, &self.paths.data).await
    }

    /// The sessions in the database.
    pub async fn sessions(&self) -> Result<Sessions, Error> {
        Ok(Sessions::new(self.store().await?.clone()))
    }

    /// The session of this workspace that was last added to.
    pub async fn latest_session(&self) -> Result<Option<String>, Error> {
        let latest = self.sessions().await?.latest(&self.paths.workspace).await?;
        Ok(latest.map(|session| session.id().to_owned()))
    }

    /// The skills that can be found.
    pub fn catalog(&self) -> Catalog {
        Catalog::find(&self.paths, &self.config().skills, &self.choices.skills)
    }

    /// Whether every question was answered with yes beforehand.
    pub fn agrees(&self) -> bool {
        self.choices.yes
    }

    /// The packages that skills need.
    pub fn environments(&self) -> Environments {
        Environments::new(&self.paths, interpreter::python())
    }

    /// What is known of the skills.
    pub fn index(&self) -> Index {
        let index = Index::new(&self.paths.cache, interpreter::identity());
        index.within(&self.paths.workspace).with(self.environments())
    }

    /// Every tool of every skill, from the index; what has changed is described anew.
    pub async fn manifest(&self) -> Result<Arc<Manifest>, Error> {
        let read = || async {
            let index = self.index();
            let describe =
                |requests| describe::describe(|| self.interpreter.again(), requests, describe::IMPORT);
            Ok(Arc::new(index.load_or_build(&self.catalog(), describe).await))
        };
        self.manifest.get_or_try_init(read).await.cloned()
    }

    /// The same, but skills with errors are described anew even if they have not changed.
    pub async fn manifest_again(&self) -> Arc<Manifest> {
        let index = self.index().again();
        let describe = |requests| describe::describe(|| self.interpreter.again(), requests, describe::IMPORT);
        let manifest = Arc::new(index.load_or_build(&self.catalog(), describe).await);
        // A second reader of the same command sees the same.
        let _ = self.manifest.set(manifest.clone());
        manifest
    }

    /// All tools.
    pub async fn toolbox(&self) -> Result<Arc<Toolbox>, Error> {
        let build = || async {
            let servers = self.servers().await;
            let mut config = self.config().clone();
            config.policy.allow.extend(servers.allowed());
            let mut settings = Settings::new(&config, &self.paths, self.choices.yes)?;
            settings.audit = self.audit();
            settings.meanings = self.meanings();
            let mut sets: Vec<Arc<dyn Toolset>> = vec![self.kernel().await?, self.guide().await?, servers];
            sets.extend(self.memory_tools());
            sets.extend(self.given.clone());
            if self.plans {
                sets.push(Arc::new(Plan));
            }
            if self.schedules {
                sets.push(self.job_tools());
            }
            Ok(Arc::new(Toolbox::new(sets, settings)))
        };
        self.toolbox.get_or_try_init(build).await.cloned()
    }

    /// The servers of others.
    pub async fn servers(&self) -> Arc<Servers> {
        let find = || async {
            let (chosen, problems) = self.described_servers();
            for problem in &problems {
                tracing::warn!("a file of servers has a problem: {problem}");
            }
            let (mut servers, mut left_out) = (Vec::new(), Vec::new());
            for Chosen { entry, server } in chosen {
                match server {
                    Ok(server) => servers.push(server),
                    Err(left) => {
                        match &left {
                            Left::Wrong(reason) => tracing::warn!("a server is left out: {reason}"),
                            left => tracing::info!("the server `{}` is left out: {left:?}", entry.name),
                        }
                        left_out.push((entry, left));
                    }
                }
            }
            let cache = self.paths.cache.join("servers");
            let (listed, shutdown) = (self.listed.clone(), self.shutdown.clone());
            let accounts = self.paths.data.join("accounts");
            let setting = mcp::Setting { cache, accounts, listed, shutdown };
            Arc::new(Servers::new(servers, &setting).beside(left_out))
        };
        self.servers.get_or_init(find).await.clone()
    }

    /// The servers that should be there and are not, each in a sentence.
    pub async fn missing_servers(&self) -> Vec<String> {
        let servers = self.servers().await;
        let missing = servers.status().into_iter().filter_map(|(name, status, _)| match status {
            mcp::Status::Down { reason, .. } => {
                Some(format!("the MCP server `{name}` is not there, and neither are its tools: {reason}"))
            }
            _ => None,
        });
        missing.collect()
    }

    /// Every server that a file describes, and why it is left out if it is; and what is wrong with
    /// the files.
    pub fn described_servers(&self) -> (Vec<Chosen>, Vec<String>) {
        let mut files = Files::read(&places(&self.paths, &self.choices.servers));
        files.hand_over(&self.choices.handed);
        let problems = std::mem::take(&mut files.problems);
        let environment = |name: &str| std::env::var(name).ok();
        let variables = Variables { environment: &environment, workspace: &self.paths.workspace };
        let trust = Trust::load(&self.paths.data);
        (files.choose(&trust, &self.config().mcp.disabled, &variables), problems)
    }

    /// Puts all tools into `shelf` once they are ready, and again whenever there are others, until
    /// it is dropped.
    pub async fn shelve(&self, shelf: &watch::Sender<Option<Arc<Toolbox>>>) -> Result<(), Error> {
        self.watch().await?;
        self.fill(shelf).await
    }

    /// The same, where edits are taken up already.
    pub async fn fill(&self, shelf: &watch::Sender<Option<Arc<Toolbox>>>) -> Result<(), Error> {
        let mut changes = self.tools_changed();
        self.servers().await.start();
        self.guide().await?.hand_out();
        let mut toolbox = self.toolbox().await?.renewed();
        shelf.send_replace(Some(toolbox.clone()));
        while changes.changed().await.is_ok() {
            let renewed = toolbox.renewed();
            if !Arc::ptr_eq(&renewed, &toolbox) {
                toolbox = renewed;
                shelf.send_replace(Some(toolbox.clone()));
            }
        }
        Ok(())
    }

    /// The tools of skills.
    async fn kernel(&self) -> Result<Arc<Kernel>, Error> {
        let make = || async {
            let manifest = self.manifest().await?;
            self.kernel_of(&manifest)
        };
        self.kernel.get_or_try_init(make).await.cloned()
    }

    fn kernel_of(&self, manifest: &Manifest) -> Result<Arc<Kernel>, Error> {
        let mut settings = HashMap::new();
        for (skill, values) in &self.config().skill {
            let revealed = values.iter().map(|(key, value)| match value.reveal() {
                Ok(value) => Ok((key.clone(), value)),
                Err(reason) => Err(Error::Secret { key: format!("skill.{skill}.{key}"), reason }),
            });
            settings.insert(skill.clone(), revealed.collect::<Result<_, _>>()?);
        }
        let kernel = Kernel::new(self.interpreter, manifest, self.paths.data.clone());
        Ok(Arc::new(kernel.with_settings(settings)))
    }

    /// What skills say.
    async fn guide(&self) -> Result<Arc<Guide>, Error> {
        let make = || async { Ok(Arc::new(Guide::new(&*self.manifest().await?))) };
        self.guide.get_or_try_init(make).await.cloned()
    }

    /// Hears of every change to the list of tools, which the toolbox then has at
    /// [`Toolbox::renewed`]. Code that changed behind the list is no such change.
    pub fn tools_changed(&self) -> watch::Receiver<()> {
        self.listed.subscribe()
    }

    /// The model that answers.
    pub async fn model(&self) -> Result<Arc<dyn Model>, Error> {
        let choose = || async {
            let environment = |name: &str| std::env::var(name).ok();
            Ok(detect::choose(&self.config().model, &self.config().provider, &environment).await?)
        };
        self.model.get_or_try_init(choose).await.cloned()
    }

    /// What is known of that model and why it was chosen, without asking it anything.
    pub async fn model_found(&self) -> Result<detect::Found, Error> {
        let environment = |name: &str| std::env::var(name).ok();
        Ok(detect::describe(&self.config().model, &self.config().provider, &environment).await?)
    }

    /// Every model that could be used here, the one that is used unless another is named first.
    pub async fn models_found(&self) -> Vec<detect::Found> {
        let environment = |name: &str| std::env::var(name).ok();
        detect::all(&self.config().model, &self.config().provider, &environment).await
    }

    /// The model of this name, whichever is configured.
    pub async fn model_named(&self, name: &str) -> Result<Arc<dyn Model>, Error> {
        let environment = |name: &str| std::env::var(name).ok();
        let settings =
            config::Model { name: name.to_owned(), fallback: Vec::new(), ..self.config().model.clone() };
        Ok(detect::choose(&settings, &self.config().provider, &environment).await?)
    }

    /// The models one may choose from: the one that is found, and those it falls back to.
    pub async fn models(&self) -> Result<Vec<String>, Error> {
        let mut models = vec![self.model_found().await?.model];
        for name in &self.config().model.fallback {
            if !models.contains(name) {
                models.push(name.clone());
            }
        }
        Ok(models)
    }

    /// Whether the model of this name can be told how much to think.
    pub fn takes_effort(&self, model: &str) -> bool {
        detect::takes_effort(model, &self.config().provider)
    }

    /// The hub where this model answers, and thinks so much; where nothing is said, as it is configured.
    pub async fn hub_of(&self, model: Option<&str>, effort: Option<&str>) -> Result<Arc<Hub>, Error> {
        let model = match (model, effort) {
            (None, None) => self.model().await?,
            (Some(model), None) => self.model_named(model).await?,
            (model, Some(effort)) => {
                let mut settings = config::Model { effort: effort.to_owned(), ..self.config().model.clone() };
                if let Some(model) = model {
                    settings = config::Model { name: model.to_owned(), fallback: Vec::new(), ..settings };
                }
                let environment = |name: &str| std::env::var(name).ok();
                detect::choose(&settings, &self.config().provider, &environment).await?
            }
        };
        self.hub_with(model).await
    }

    /// A scope for calls outside of a turn.
    pub fn scope(&self) -> Scope {
        let mut scope = Scope::new(&self.paths.workspace);
        scope.cancel = self.shutdown.signal().child_token();
        scope
    }

    /// The hub, with everything behind it.
    pub async fn hub(&self) -> Result<Arc<Hub>, Error> {
        self.hub_with(self.model().await?).await
    }

    async fn hub_with(&self, model: Arc<dyn Model>) -> Result<Arc<Hub>, Error> {
        self.check_prices(&*model)?;
        let servers = self.servers().await;
        servers.start();
        // Those that come later join at the border of a turn.
        servers.met(GREETING).await;
        let toolbox = self.toolbox().await?;
        let guide = self.guide().await?;
        // Where no model reads, nothing is learned either.
        let remembers = self.config().memory.enabled && model.name() != "offline";
        let agent = Agent::new(
            model,
            toolbox,
            self.config().limits.clone(),
            self.paths.workspace.clone(),
            Arc::new(move || guide.listed()),
        );
        let agent = if remembers { agent.with_memory(self.memory().await?) } else { agent };
        let store = self.store().await?.clone();
        let config::Gateway { turns, waiting, .. } = self.config().gateway;
        let budget = self.config().budget.clone();
        let bounds = Bounds { turns, waiting, budget, ..Bounds::default() };
        let (sessions, shutdown) = (self.sessions().await?, self.shutdown.clone());
        Ok(Hub::bounded(Arc::new(agent), sessions, store, shutdown, bounds))
    }

    /// Dollars that cannot be counted are no limit.
    fn check_prices(&self, model: &dyn Model) -> Result<(), Error> {
        let config::Config { limits, budget, .. } = self.config();
        let limits = [
            ("limits.dollars", limits.dollars),
            ("budget.session_dollars", budget.session_dollars),
            ("budget.day_dollars", budget.day_dollars),
        ];
        let set = limits.into_iter().find(|(_, dollars)| *dollars > 0.0);
        match set.zip(model.unpriced()) {
            Some(((key, _), model)) => Err(Error::Unpriced { key, model: model.to_owned() }),
            None => Ok(()),
        }
    }

    /// The bot of Telegram with its mail, if there is a token.
    pub async fn bot(&self) -> Result<Option<(telegram::Api, Mail)>, Error> {
        let Some(token) = self.telegram_token()? else { return Ok(None) };
        let api = telegram::Api::new(&self.config().telegram.server, &token).map_err(Error::Telegram)?;
        let mail = telegram::mail(self.store().await?.clone(), &api);
        Ok(Some((api, mail)))
    }

    /// Whoever talks on Telegram, if there is a token.
    pub async fn telegram(&self, hub: Arc<Hub>) -> Result<Option<Arc<Telegram>>, Error> {
        let Some(token) = self.telegram_token()? else { return Ok(None) };
        let (store, config) = (self.store().await?.clone(), self.config().telegram.clone());
        let telegram = Telegram::new(hub, store, config, &token, self.paths.workspace.clone()).await;
        telegram.map(Some).map_err(Error::Telegram)
    }

    fn telegram_token(&self) -> Result<Option<String>, Error> {
        let token = self.config().telegram.token.reveal();
        let token = token.map_err(|reason| Error::Secret { key: "telegram.token".to_owned(), reason })?;
        Ok(Some(token).filter(|token| !token.is_empty()))
    }

    /// Stops what still goes on and closes the database.
    pub async fn finish(&self) {
        if !self.shutdown.finish(PATIENCE).await {
            tracing::warn!("some work did not stop in time");
        }
        if let Some(Some(audit)) = self.audit.get() {
            audit.flush();
        }
        if let Some(store) = self.store.get() {
            store.close().await;
        }
        telemetry::flush().await;
    }
}

async fn open_store<'a>(
    store: &'a OnceCell<Store>,
    url: &config::Secret,
    data: &Path,
) -> Result<&'a Store, Error> {
    let open = || async {
        let url = url.reveal();
        let url = url.map_err(|reason| Error::Secret { key: "store.url".to_owned(), reason })?;
        let url = Some(url.as_str()).filter(|url| !url.is_empty());
        Ok(Store::open(url, data).await?)
    };
    store.get_or_try_init(open).await
}
