//! Python: the tools of skills, run inside this process.
//!
//! A [`Kernel`] is made from the manifest and starts nothing: the interpreter comes with the
//! first call, a skill's module with the first call into it. Tools that are built in or vouched
//! for run in this process, plain functions on a small pool of Python threads, `async def`
//! functions on one event loop; Rust never waits while it holds the interpreter. All others run in
//! [workers](worker). An edited skill is another version beside the old one:
//! [`Kernel::replace`] puts it in its place between two calls.

pub mod bridge;
#[cfg(bundled)]
mod bundle;
pub mod describe;
#[cfg(feature = "embed")]
mod embedded;
pub mod environment;
pub mod functions;
pub mod guide;
mod handle;
mod host;
pub mod interpreter;
#[cfg(feature = "embed")]
mod layout;
pub(crate) mod looper;
pub mod native;
pub mod nested;
mod pool;
pub mod presence;
pub mod program;
mod table;
mod watch;
pub mod worker;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, RwLock};

use async_trait::async_trait;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use serde_json::{Map, Value};
use tokio::runtime::Handle as Runtime;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use crate::skill::manifest::{Manifest, Skill, ToolEntry};
use crate::skill::{Isolation, Where};
use crate::tool::{Call, Error, Output, Spec, Toolset};

pub use interpreter::Interpreter;
pub use table::Changes;

use bridge::{NativeContext, Own};
use handle::{Handle, Place, Returned};
use looper::Looper;
use pool::{Blame, Lost, Pool};
use table::{Retired, Table};
use worker::{Environment, Job, Workers};

/// What happens to the skill of a tool that takes this process's Python for itself.
const EXPELLED: &str = "its skill runs in processes of its own from now on";

/// The tools of all skills.
pub struct Kernel {
    interpreter: Interpreter,
    data: PathBuf,
    settings: HashMap<String, Arc<Map<String, Value>>>,
    table: RwLock<Table>,
    /// Versions of skills that are imported though no call can come to them any more.
    retired: Mutex<Vec<Retired>>,
    pool: Pool,
    workers: Workers,
    /// Skills that had to leave this process.
    expelled: Arc<RwLock<HashSet<Arc<str>>>>,
    looper: OnceLock<Result<Looper, String>>,
}

/// The packages of a tool's skill.
enum Packages {
    None,
    /// It has some, and they are not installed.
    Lacking,
    In(Environment),
}

struct Tool {
    place: Place,
    skill: Arc<str>,
    /// Where its skill keeps what is its own.
    data: Arc<Path>,
    is_async: bool,
    isolation: Isolation,
    own: OnceLock<Arc<Own>>,
    packages: Packages,
    handle: OnceCell<Arc<Handle>>,
}

impl Kernel {
    /// Takes the tools from the manifest. `data` is where skills keep what is theirs.
    pub fn new(interpreter: Interpreter, manifest: &Manifest, data: PathBuf) -> Self {
        let table = RwLock::new(Table::new(manifest, &data));
        let (pool, looper) = (Pool::new(), OnceLock::new());
        let workers = Workers::new(Arc::new(move || interpreter.again()));
        let settings = HashMap::new();
        let expelled = Arc::default();
        Self {
            interpreter,
            data,
            settings,
            table,
            retired: Mutex::default(),
            pool,
            workers,
            expelled,
            looper,
        }
    }

    /// The same, where skills are given these settings, by their names.
    pub fn with_settings(self, settings: HashMap<String, Map<String, Value>>) -> Self {
        let settings = settings.into_iter().map(|(skill, settings)| (skill, Arc::new(settings))).collect();
        Self { settings, ..self }
    }

    /// The same, whose workers are started by this command: for a process that is not the
    /// program itself.
    pub fn started_by(self, program: impl Fn() -> Result<Command, String> + Send + Sync + 'static) -> Self {
        Self { workers: Workers::new(Arc::new(program)), ..self }
    }

    /// Takes the tools from this manifest from now on. Skills that have not changed stay loaded.
    ///
    /// Calls under way end in the version they began in, which is then forgotten, at the latest by
    /// the next `replace`. Like every skill, a new version is imported by the first call into it;
    /// if that fails, though its import has succeeded where it was described, the call is answered
    /// with the error and the next one tries again.
    pub async fn replace(&self, manifest: &Manifest) -> Changes {
        let (changes, retired) = {
            let mut table = self.table.write().expect("no panic while held");
            table.replace(manifest, &self.data)
        };
        let gone: Vec<Retired> = {
            let mut waiting = self.retired.lock().expect("no panic while held");
            waiting.extend(retired);
            waiting.extract_if(.., |version| version.is_idle()).collect()
        };
        gone.iter().for_each(|version| self.workers.retire(&version.skill, version.number));
        if !gone.is_empty() && Interpreter::is_running() {
            let work = move |py: Python<'_>| gone.into_iter().try_for_each(|version| version.forget(py));
            match self.pool.finish(work).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!("an old version of a skill stays in memory: {error}"),
                Err(lost) => tracing::warn!("an old version of a skill stays in memory: {lost:?}"),
            }
        }
        changes
    }

    /// Runs `work` on one of the threads that run plain tools, and nothing around it: what the
    /// benchmarks make ready with.
    #[doc(hidden)]
    pub async fn attached<T: Send + 'static>(
        &self,
        work: impl FnOnce(Python<'_>) -> T + Send + 'static,
    ) -> Result<T, Error> {
        self.start().await?;
        self.pool.run(&CancellationToken::new(), None, work).await.map_err(|lost| Self::lost(&lost))
    }

    /// Calls `function` on one of those threads, JSON both ways, and nothing around it: what the
    /// benchmarks hold a call against.
    #[doc(hidden)]
    pub async fn bare(&self, function: Arc<Py<PyAny>>, arguments: Map<String, Value>) -> PyResult<Value> {
        let work = move |py: Python<'_>| {
            let arguments = bridge::dict(py, &arguments)?;
            bridge::from_python(&function.bind(py).call((), Some(&arguments))?)
        };
        let result = self.pool.run(&CancellationToken::new(), None, work).await;
        result.map_err(|lost| PyRuntimeError::new_err(format!("{lost:?}")))?
    }

    /// Starts Python on a thread that may block.
    async fn start(&self) -> Result<(), Error> {
        if Interpreter::is_running() {
            return Ok(());
        }
        let interpreter = self.interpreter;
        let started = tokio::task::spawn_blocking(move || interpreter.start()).await;
        let started = started.unwrap_or_else(|panic| Err(panic.to_string()));
        started.map_err(|reason| bridge::broken("python", &reason))
    }

    /// What is done about a tool that takes a thread of this process for good: its skill runs in
    /// workers from now on.
    fn blame(&self, tool: &Arc<Tool>) -> Blame {
        let (expelled, tool) = (self.expelled.clone(), tool.clone());
        Arc::new(move || {
            let Place { skill, function, .. } = &tool.place;
            tracing::error!(target: "kernel", "`{function}` of the skill `{skill}` does not let go of its thread; {EXPELLED}");
            expelled.write().expect("no panic while held").insert(tool.skill.clone());
        })
    }

    /// The same for one that has held the event loop.
    fn looper(&self) -> Result<&Looper, &String> {
        let start = || {
            let expelled = self.expelled.clone();
            Looper::start(Box::new(move |tool| {
                tracing::error!(target: "kernel", "`{tool}` does not await and holds up all async tools; it was interrupted, and {EXPELLED}");
                if let Some((skill, _)) = tool.split_once('.') {
                    expelled.write().expect("no panic while held").insert(skill.into());
                }
            }))
        };
        self.looper.get_or_init(start).as_ref()
    }

    /// Whether calls of this tool run in this process.
    fn is_inside(&self, tool: &Tool) -> bool {
        let expelled = || self.expelled.read().expect("no panic while held").contains(&tool.skill);
        tool.isolation.level == Where::Thread && !expelled()
    }

    fn own<'a>(&self, tool: &'a Tool) -> &'a Arc<Own> {
        static NONE: LazyLock<Arc<Map<String, Value>>> = LazyLock::new(Arc::default);
        tool.own.get_or_init(|| {
            let settings = self.settings.get(&tool.place.skill).unwrap_or(&NONE).clone();
            let (skill, data) = (tool.skill.clone(), tool.data.clone());
            Arc::new(Own { skill, data, settings, runtime: Some(Runtime::current()) })
        })
    }

    async fn plain(&self, tool: &Arc<Tool>, call: Call) -> Result<Output, Error> {
        let handle = self.handle(tool, &call).await?;
        let Call { spec, arguments, context } = call;
        let cancel = context.cancel.clone();
        let context = NativeContext::new(context, self.own(tool).clone());
        let work = move |py: Python<'_>| {
            let result = handle.invoke(py, &arguments, context);
            result.map_err(|error| bridge::error(py, &spec.name, &error))
        };
        let blame = || self.blame(tool);
        let returned =
            self.pool.run(&cancel, Some(&blame), work).await.unwrap_or_else(|lost| Err(Self::lost(&lost)));
        returned.map(Returned::output)
    }

    async fn outside(&self, tool: &Arc<Tool>, call: Call) -> Result<Output, Error> {
        let Tool { place, is_async, isolation, .. } = tool.as_ref();
        let environment = match &tool.packages {
            Packages::None => None,
            Packages::Lacking => {
                let (name, reason) = (&call.spec.name, worker::lacking(&place.skill));
                return Err(Error::Failed(format!("`{name}` cannot run: {reason}")));
            }
            Packages::In(environment) => Some(environment),
        };
        let job = Job { place, own: self.own(tool), is_async: *is_async, isolation, environment };
        self.workers.call(job, call).await
    }

    async fn asynchronous(&self, tool: &Arc<Tool>, call: Call) -> Result<Output, Error> {
        let handle = self.handle(tool, &call).await?;
        let looper = match self.looper() {
            Ok(looper) => looper,
            Err(reason) => return Err(bridge::broken(&call.spec.name, reason)),
        };
        let Call { spec, arguments, context } = call;
        let cancel = context.cancel.clone();
        let context = NativeContext::new(context, self.own(tool).clone());
        looper.call(&spec.name, handle, arguments, context, &cancel).await
    }

    /// The function of a tool, imported by the first call into it.
    ///
    /// An import is finished even when nobody waits for it any more: interrupted half-way,
    /// some extension modules can never be imported again in the same process.
    async fn handle(&self, tool: &Arc<Tool>, call: &Call) -> Result<Arc<Handle>, Error> {
        let import = || async {
            let (tool, name) = (tool.clone(), call.spec.name.clone());
            let work = move |py: Python<'_>| {
                Handle::resolve(py, &tool.place).map_err(|error| bridge::error(py, &name, &error))
            };
            self.pool.finish(work).await.unwrap_or_else(|lost| Err(Self::lost(&lost)))
        };
        if let Some(handle) = tool.handle.get() {
            return Ok(handle.clone());
        }
        // Boxed, as what is rare: it would make the room that every call takes several times as large.
        Box::pin(async {
            tokio::select! {
                biased;
                handle = tool.handle.get_or_try_init(import) => handle.cloned(),
                () = call.context.cancel.cancelled() => Err(Error::Cancelled),
            }
        })
        .await
    }

    fn lost(lost: &Lost) -> Error {
        match lost {
            Lost::Full => {
                Error::Failed("too many tool calls are waiting already; try again later".to_owned())
            }
            Lost::Cancelled => Error::Cancelled,
            Lost::Died => bridge::broken("python", "the work of a tool panicked"),
        }
    }
}

#[async_trait]
impl Toolset for Kernel {
    fn specs(&self) -> Vec<Arc<Spec>> {
        self.table.read().expect("no panic while held").specs.clone()
    }

    async fn call(&self, call: Call) -> Result<Output, Error> {
        // Held to the end of the call, which keeps its version.
        let tool = self.table.read().expect("no panic while held").tools.get(&call.spec.name).cloned();
        let Some(tool) = tool else {
            return Err(Error::Failed(format!("there is no tool `{}`", call.spec.name)));
        };
        // The long ways are boxed: a short call would take their room as well.
        if !self.is_inside(&tool) {
            return Box::pin(self.outside(&tool, call)).await;
        }
        self.start().await?;
        match tool.is_async {
            true => Box::pin(self.asynchronous(&tool, call)).await,
            false => self.plain(&tool, call).await,
        }
    }
}

impl Tool {
    fn new(skill: &Skill, entry: &ToolEntry, version: u32, data: &Path) -> Self {
        let place = Place {
            skill: skill.card.name.clone(),
            folder: skill.folder.to_string_lossy().into_owned(),
            file: entry.file.clone(),
            function: entry.function.clone(),
            version,
            sources: skill.sources.clone(),
            engines: Arc::new(skill.engines()),
        };
        let (name, data) = (place.skill.as_str().into(), data.join("skills").join(&place.skill).into());
        let isolation = Isolation::of(skill).at_least(entry.isolation);
        let packages = match &skill.environment {
            Some(folder) => {
                Packages::In(Environment { folder: folder.clone(), modules: skill.modules.clone() })
            }
            None if skill.packages.is_empty() => Packages::None,
            None => Packages::Lacking,
        };
        let (is_async, own, handle) = (entry.is_async, OnceLock::new(), OnceCell::new());
        Self { place, skill: name, data, is_async, isolation, packages, own, handle }
    }

    /// Whether nobody calls it. Asked of one that no call can come to any more.
    fn is_idle(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1 && self.handle.get().is_none_or(|handle| Arc::strong_count(handle) == 1)
    }
}
