//! Functions of the program around us, as tools.
//!
//! They are called as those of skills that run in this process: plain ones on the threads of a pool,
//! `async def` ones on an event loop of ours. One that belongs to a loop of the program is handed over in a
//! coroutine that takes it there, which is Python's business.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use serde::Deserialize;
use tokio::runtime::Handle as Runtime;

use super::Kernel;
use super::bridge::{self, NativeContext, Own};
use super::handle::{Handle, Returned};
use super::looper::Looper;
use super::pool::Pool;
use crate::tool::{Call, Error, Output, Spec, Toolset};

/// What their data folder is called among those of skills.
const NAME: &str = "functions";

/// Tools that are functions of the program around us.
pub struct Functions {
    specs: Vec<Arc<Spec>>,
    functions: HashMap<String, Function>,
    own: Arc<Own>,
    pool: Pool,
    looper: OnceLock<Result<Looper, String>>,
}

struct Function {
    handle: Arc<Handle>,
    is_async: bool,
}

#[derive(Deserialize)]
struct Told {
    is_async: bool,
    #[serde(flatten)]
    spec: Spec,
}

impl Functions {
    /// Takes functions as pairs of what `omni.kernel` says of them and their handle. `data` is where skills keep
    /// what is theirs, and `runtime` where what they ask for is done.
    pub fn new(pairs: &Bound<'_, PyAny>, data: &Path, runtime: &Runtime) -> PyResult<Self> {
        let (mut specs, mut functions) = (Vec::new(), HashMap::new());
        for pair in pairs.try_iter()? {
            let (told, handle) = pair?.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>()?;
            let told: Told = serde_json::from_value(bridge::from_python(&told)?).map_err(|error| {
                PyValueError::new_err(format!("a tool's description is malformed: {error}"))
            })?;
            let spec = Arc::new(told.spec);
            let function = Function { handle: Handle::of(&handle)?, is_async: told.is_async };
            if functions.insert(spec.name.clone(), function).is_some() {
                return Err(PyValueError::new_err(format!("there are two tools `{}`", spec.name)));
            }
            specs.push(spec);
        }
        let data = data.join("skills").join(NAME).into();
        let own = Arc::new(Own {
            skill: NAME.into(),
            data,
            settings: Arc::default(),
            runtime: Some(runtime.clone()),
        });
        Ok(Self { specs, functions, own, pool: Pool::new(), looper: OnceLock::new() })
    }

    fn looper(&self) -> Result<&Looper, &String> {
        let held = |tool: &str| {
            tracing::error!(target: "kernel", "`{tool}` does not await and holds up all async tools; it was interrupted");
        };
        self.looper.get_or_init(|| Looper::start(Box::new(held))).as_ref()
    }
}

#[async_trait]
impl Toolset for Functions {
    fn specs(&self) -> Vec<Arc<Spec>> {
        self.specs.clone()
    }

    async fn call(&self, call: Call) -> Result<Output, Error> {
        let Call { spec, arguments, context } = call;
        let Some(Function { handle, is_async }) = self.functions.get(&spec.name) else {
            return Err(Error::Failed(format!("there is no tool `{}`", spec.name)));
        };
        let (handle, cancel) = (handle.clone(), context.cancel.clone());
        let context = NativeContext::new(context, self.own.clone());
        if *is_async {
            return match self.looper() {
                Ok(looper) => looper.call(&spec.name, handle, arguments, context, &cancel).await,
                Err(reason) => Err(bridge::broken(&spec.name, reason)),
            };
        }
        let work = move |py: Python<'_>| {
            let result = handle.invoke(py, &arguments, context);
            result.map_err(|error| bridge::error(py, &spec.name, &error))
        };
        let returned = self.pool.run(&cancel, None, work).await;
        returned.unwrap_or_else(|lost| Err(Kernel::lost(&lost))).map(Returned::output)
    }
}
