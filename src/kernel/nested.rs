//! How a tool asks for something while it runs: it waits for the reply, or has itself told of it.

use pyo3::prelude::*;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::bridge::{self, Fault, Own};
use super::pool;
use super::presence;
use super::worker::{self, Question};
use crate::tool::{Context, Error, Request};

/// What a tool has asked for and not waited for.
#[pyclass(frozen, module = "_omni")]
pub struct Asked(Place);

enum Place {
    Here(CancellationToken),
    Caller(Question),
}

#[pymethods]
impl Asked {
    /// Does without it.
    fn cancel(&self) {
        match &self.0 {
            Place::Here(token) => token.cancel(),
            Place::Caller(question) => question.drop(),
        }
    }
}

/// Asks, and waits for the reply. Not to be called while the interpreter is held.
pub(super) fn wait(context: &Context, own: &Own, request: Request) -> Result<Value, Fault> {
    if let Some(question) = worker::ask(&request) {
        return question?.wait();
    }
    let runtime = own.runtime.as_ref().ok_or_else(nowhere)?;
    let reply = pool::aside(|| runtime.block_on(context.ask(request)));
    reply.ok_or_else(|| Fault::Failed("too many calls wait for others already".to_owned()))?.map_err(fault)
}

/// Asks, and has `done` called with the reply and the exception, one of them `None`.
pub(super) fn begin(context: &Context, own: &Own, request: Request, done: Py<PyAny>) -> Result<Asked, Fault> {
    if let Some(question) = worker::ask(&request) {
        let question = question?;
        let asked = question.clone();
        std::thread::Builder::new()
            .name("asks".to_owned())
            .spawn(move || {
                let reply = asked.wait();
                Python::attach(|py| tell(py, &done, reply));
            })
            .map_err(|error| Fault::Failed(format!("cannot wait for a reply: {error}")))?;
        return Ok(Asked(Place::Caller(question)));
    }
    let runtime = own.runtime.as_ref().ok_or_else(nowhere)?;
    let cancel = context.cancel.child_token();
    let context = Context { cancel: cancel.clone(), ..context.clone() };
    runtime.spawn(async move {
        let reply = context.ask(request).await.map_err(fault);
        // Attaching waits for the interpreter.
        let _ = tokio::task::spawn_blocking(move || presence::attach(|py| tell(py, &done, reply))).await;
    });
    Ok(Asked(Place::Here(cancel)))
}

fn tell(py: Python<'_>, done: &Py<PyAny>, reply: Result<Value, Fault>) {
    let reply = reply.map_err(|fault| fault.raise(py)).and_then(|value| bridge::to_python(py, &value));
    let told = match reply {
        Ok(value) => done.call1(py, (value, py.None())),
        Err(error) => done.call1(py, (py.None(), error.into_value(py))),
    };
    if let Err(error) = told {
        // The loop that asked has ended, with everything that waited.
        tracing::debug!(target: "kernel", "a reply came too late: {error}");
    }
}

/// What keeps a tool from what it asked for is no bug of this tool.
pub(super) fn fault(error: Error) -> Fault {
    match error {
        Error::Cancelled => Fault::Cancelled,
        other => Fault::Failed(other.to_string()),
    }
}

fn nowhere() -> Fault {
    Fault::Failed("a tool cannot ask for anything here".to_owned())
}
