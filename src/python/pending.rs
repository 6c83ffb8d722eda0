//! What is under way for a program around us, which waits for it on its thread or has itself told.

use std::pin::{Pin, pin};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use tokio::runtime::Runtime;

use crate::kernel::presence;

/// So long the end of a program waits for threads of ours that are in Python.
const PATIENCE: Duration = Duration::from_secs(2);
/// So long at most Ctrl-C waits for somebody to look.
const LOOK: Duration = Duration::from_millis(20);

/// What something came to: made into Python's form where there is an interpreter.
pub(super) type Outcome = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

/// What is made by `make`.
pub(super) fn outcome(make: impl FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send + 'static) -> Outcome {
    Box::new(make)
}

type Work = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// Something that goes on without the interpreter. Nothing happens before it is waited for.
#[pyclass(frozen, module = "omni._omni")]
pub struct Pending(Mutex<Option<Work>>);

impl Pending {
    pub(super) fn new(work: impl Future<Output = Outcome> + Send + 'static) -> Self {
        Self(Mutex::new(Some(Box::pin(work))))
    }

    fn take(&self) -> PyResult<Work> {
        let work = self.0.lock().expect("no panic while held").take();
        work.ok_or_else(|| PyRuntimeError::new_err("it is waited for already"))
    }
}

#[pymethods]
impl Pending {
    /// Waits for it. Signals are heard meanwhile: what their handlers raise ends the waiting.
    fn wait(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let (runtime, mut work) = (runtime()?, pin!(self.take()?));
        loop {
            let look = || runtime.block_on(async { tokio::time::timeout(LOOK, work.as_mut()).await.ok() });
            if let Some(outcome) = py.detach(look) {
                return outcome(py);
            }
            py.check_signals()?;
        }
    }

    /// Has `done` called with the value and the exception, one of them `None`, on a thread of ours.
    fn then(&self, done: Py<PyAny>) -> PyResult<()> {
        let work = self.take()?;
        runtime()?.spawn(async move {
            let outcome = work.await;
            let tell = move |py: Python<'_>| {
                let told = match outcome(py) {
                    Ok(value) => done.call1(py, (value, py.None())),
                    Err(error) => done.call1(py, (py.None(), error.into_value(py))),
                };
                if let Err(error) = told {
                    // The loop that waited has ended.
                    tracing::debug!(target: "python", "nobody waits any more: {error}");
                }
            };
            // Attaching waits for the interpreter, which may be about to end.
            let _ = tokio::task::spawn_blocking(move || presence::attach(tell)).await;
        });
        Ok(())
    }
}

/// The one runtime, and the process that it is in. It is never dropped.
static RUNTIME: OnceLock<(u32, Runtime)> = OnceLock::new();

/// The runtime of this process.
pub(super) fn runtime() -> PyResult<&'static Runtime> {
    if RUNTIME.get().is_none() {
        let made = tokio::runtime::Builder::new_multi_thread().thread_name("omni").enable_all().build();
        let made = made.map_err(|error| PyOSError::new_err(format!("no threads for omni: {error}")))?;
        // Another thread was faster: one is enough.
        if let Err((_, spare)) = RUNTIME.set((std::process::id(), made)) {
            spare.shutdown_background();
        }
    }
    let (process, runtime) = RUNTIME.get().expect("just set");
    match *process == std::process::id() {
        true => Ok(runtime),
        false => Err(PyRuntimeError::new_err(format!(
            "this process was forked from {process} after omni had been used there, and has none of its threads; \
             start processes with `spawn`, or use omni for the first time in each of them"
        ))),
    }
}

/// Keeps threads of ours out of Python from now on, and waits for those that are inside: Python is about to end.
#[pyfunction]
pub fn leave(py: Python<'_>) {
    let is_ours = RUNTIME.get().is_some_and(|(process, _)| *process == std::process::id());
    if is_ours && !py.detach(|| presence::close(PATIENCE)) {
        tracing::warn!("a tool does not let go of Python, which ends");
    }
}
