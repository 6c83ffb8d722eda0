//! Python: the tools of skills, run inside this process.
//!
//! A [`Kernel`] is made from the manifest and starts nothing: the interpreter comes with the
//! first call, a skill's module with the first call into it. Plain functions run on a small
//! pool of Python threads, `async def` functions on one event loop. Rust never waits while it
//! holds the interpreter.

pub mod bridge;
pub mod guide;
pub mod interpreter;
pub(crate) mod looper;
mod pool;
pub mod worker;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::skill::manifest::{Manifest, Skill, ToolEntry};
use crate::tool::{Call, Error, Output, Spec, Toolset};

pub use interpreter::Interpreter;

use bridge::{Handle, NativeContext, Omni, Place};
use looper::Looper;
use pool::{Lost, Pool};

/// The tools of all skills.
pub struct Kernel {
    interpreter: Interpreter,
    data: PathBuf,
    tools: HashMap<String, Arc<Tool>>,
    specs: Vec<Arc<Spec>>,
    pool: Pool,
    looper: OnceLock<Result<Looper, String>>,
}

struct Tool {
    place: Place,
    is_async: bool,
    handle: OnceLock<Arc<Handle>>,
}

impl Kernel {
    /// Takes the tools from the manifest. `data` is where skills keep what is theirs.
    pub fn new(interpreter: Interpreter, manifest: &Manifest, data: PathBuf) -> Self {
        let mut specs = Vec::new();
        let mut tools = HashMap::new();
        for skill in &manifest.skills {
            for entry in &skill.tools {
                specs.push(Arc::new(entry.spec.clone()));
                tools.insert(entry.spec.name.clone(), Arc::new(Tool::new(skill, entry)));
            }
        }
        Self { interpreter, data, tools, specs, pool: Pool::new(), looper: OnceLock::new() }
    }

    /// Runs `work` on one of the threads that run plain tools, and nothing around it: what the
    /// benchmarks hold a call against.
    #[doc(hidden)]
    pub async fn attached<T: Send + 'static>(
        &self,
        work: impl FnOnce(pyo3::Python<'_>) -> T + Send + 'static,
    ) -> Result<T, Error> {
        self.start().await?;
        self.pool.run(&CancellationToken::new(), work).await.map_err(|lost| Self::lost(&lost))
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

    async fn plain(&self, tool: &Arc<Tool>, call: Call) -> Result<Output, Error> {
        let cancel = call.context.cancel.clone();
        let (tool, context) = (tool.clone(), self.context(tool, &call));
        let work = move |py: pyo3::Python<'_>| {
            let name = call.spec.name.as_str();
            let result = tool
                .handle(py)
                .and_then(|handle| handle.invoke(py, &call.arguments, context))
                .and_then(|pair| bridge::output(&pair));
            result.map_err(|error| match Omni::get(py) {
                Ok(omni) => omni.error(py, name, &error),
                Err(missing) => bridge::broken(name, &missing.to_string()),
            })
        };
        self.pool.run(&cancel, work).await.unwrap_or_else(|lost| Err(Self::lost(&lost)))
    }

    async fn asynchronous(&self, tool: &Arc<Tool>, call: Call) -> Result<Output, Error> {
        let handle = match tool.handle.get() {
            Some(handle) => handle.clone(),
            None => self.import(tool, &call).await?,
        };
        let looper = match self.looper.get_or_init(Looper::start) {
            Ok(looper) => looper,
            Err(reason) => return Err(bridge::broken(&call.spec.name, reason)),
        };
        let context = self.context(tool, &call);
        let cancel = call.context.cancel;
        tokio::select! {
            result = looper.call(&call.spec.name, handle, call.arguments, context) => result,
            () = cancel.cancelled() => Err(Error::Cancelled),
        }
    }

    /// Imports a tool's file on a thread of the pool: it may take long, and the event loop
    /// has others to serve.
    async fn import(&self, tool: &Arc<Tool>, call: &Call) -> Result<Arc<Handle>, Error> {
        let (tool, name) = (tool.clone(), call.spec.name.clone());
        let work = move |py: pyo3::Python<'_>| {
            tool.handle(py).map_err(|error| match Omni::get(py) {
                Ok(omni) => omni.error(py, &name, &error),
                Err(missing) => bridge::broken(&name, &missing.to_string()),
            })
        };
        self.pool.run(&call.context.cancel, work).await.unwrap_or_else(|lost| Err(Self::lost(&lost)))
    }

    fn context(&self, tool: &Tool, call: &Call) -> NativeContext {
        let data = self.data.join("skills").join(&tool.place.skill);
        NativeContext::new(call.context.clone(), data.to_string_lossy().into_owned())
    }

    fn lost(lost: &Lost) -> Error {
        match lost {
            Lost::Full => {
                Error::Failed("too many tool calls are waiting already; try again later".to_owned())
            }
            Lost::Died => bridge::broken("python", "the thread of a tool ended without a result"),
        }
    }
}

#[async_trait]
impl Toolset for Kernel {
    fn specs(&self) -> Vec<Arc<Spec>> {
        self.specs.clone()
    }

    async fn call(&self, call: Call) -> Result<Output, Error> {
        let Some(tool) = self.tools.get(&call.spec.name) else {
            return Err(Error::Failed(format!("there is no tool `{}`", call.spec.name)));
        };
        self.start().await?;
        match tool.is_async {
            true => self.asynchronous(tool, call).await,
            false => self.plain(tool, call).await,
        }
    }
}

impl Tool {
    fn new(skill: &Skill, entry: &ToolEntry) -> Self {
        let place = Place {
            skill: skill.card.name.clone(),
            folder: skill.folder.to_string_lossy().into_owned(),
            file: entry.file.clone(),
            function: entry.function.clone(),
        };
        Self { place, is_async: entry.is_async, handle: OnceLock::new() }
    }

    fn handle(&self, py: pyo3::Python<'_>) -> pyo3::PyResult<Arc<Handle>> {
        if let Some(handle) = self.handle.get() {
            return Ok(handle.clone());
        }
        // Two first calls may both resolve; Python's own import lock makes that harmless.
        let handle = Handle::resolve(py, &self.place)?;
        Ok(self.handle.get_or_init(|| handle).clone())
    }
}
