//! Where Rust and Python meet: JSON values both ways, contexts and errors.
//!
//! Rust calls `omni.kernel`: `install`, `describe`, `resolve` and the handles that `resolve` returns,
//! which are in `handle`; and `omni.loop` for asynchronous ones. What Python calls is in [`native`].

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

use super::worker::{self, wire::Word};
use super::{native, nested};
use crate::message::{Block, Change};
use crate::skill::{Behind, Engines};
use crate::tool::{self, Context, Nested, Output, Progress, Request};

/// What a tool's `ctx` stands on.
#[pyclass(frozen, name = "NativeContext", module = "_omni")]
pub struct NativeContext {
    context: Context,
    own: Arc<Own>,
    /// Bytes that it has logged.
    logged: AtomicUsize,
}

/// Bytes that a call may log.
pub(super) const LOG: usize = 1 << 20;
/// What the log says then.
pub(super) const TOO_MUCH: &str = "this call has logged too much; the rest is left out";

/// What a skill has for itself.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) skill: Arc<str>,
    /// Where it keeps what is its own.
    pub(super) data: Arc<Path>,
    /// What the user has set for it.
    pub(super) settings: Arc<Map<String, Value>>,
    /// Where what its tools ask for is done; `None` in a worker, which asks its caller.
    pub(super) runtime: Option<tokio::runtime::Handle>,
}

impl NativeContext {
    pub(super) fn new(context: Context, own: Arc<Own>) -> Self {
        Self { context, own, logged: AtomicUsize::new(0) }
    }
}

#[pymethods]
impl NativeContext {
    #[getter]
    fn workspace(&self) -> &OsStr {
        self.context.workspace.as_os_str()
    }

    #[getter]
    fn data(&self) -> &OsStr {
        self.own.data.as_os_str()
    }

    #[getter]
    fn skill(&self) -> &str {
        &self.own.skill
    }

    #[getter]
    fn settings<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        dict(py, &self.own.settings)
    }

    #[getter]
    fn session(&self) -> Option<&str> {
        self.context.session.as_deref()
    }

    #[getter]
    fn call_id(&self) -> &str {
        &self.context.id
    }

    /// Whether files may be in an editor, which then has to be asked.
    #[getter]
    fn has_editor(&self) -> bool {
        self.context.nested.as_ref().is_some_and(Nested::has_editor)
    }

    #[pyo3(signature = (done, total=None, message=None))]
    fn progress(&self, py: Python<'_>, done: f64, total: Option<f64>, message: Option<String>) {
        // Whoever listens may wait for something; not while we hold the interpreter.
        py.detach(|| (self.context.progress)(Progress { progress: done, total, message }));
    }

    /// Takes note of what was changed in a file.
    fn edited(&self, path: PathBuf, old: Option<String>, new: String) {
        let change = Change { path, old, new };
        if !worker::say(|| Word::Changed(change.clone())) {
            self.context.edited(change);
        }
    }

    fn cancelled(&self) -> bool {
        self.context.cancel.is_cancelled()
    }

    /// Takes so many bytes from what it may log; says, once, that there is no more.
    fn may_log(&self, size: usize) -> bool {
        let logged = self.logged.fetch_add(size, Relaxed);
        let (fits, fitted) = (logged + size <= LOG, logged <= LOG);
        if fitted && !fits {
            native::log("warning", Some(&self.context.id), TOO_MUCH);
            // However little it says from now on.
            self.logged.store(LOG + 1, Relaxed);
        }
        fits && fitted
    }

    /// Writes to the log, and says it to whoever called.
    fn log(&self, py: Python<'_>, level: &str, text: &str) {
        if !self.may_log(text.len() + 1) || native::say(level, Some(&self.context.id), text, true) {
            return;
        }
        native::log(level, Some(&self.context.id), text);
        if let Some(logger) = &self.context.logger {
            py.detach(|| logger(level, text));
        }
    }

    /// Asks for something and waits for the reply.
    fn ask<'py>(&self, py: Python<'py>, request: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let request = wanted(request)?;
        let reply = py.detach(|| nested::wait(&self.context, &self.own, request));
        to_python(py, &reply.map_err(|fault| fault.raise(py))?)
    }

    /// Asks for something; `done` is called with the reply and the exception, one of them `None`.
    fn begin(&self, py: Python<'_>, request: &Bound<'_, PyAny>, done: Py<PyAny>) -> PyResult<nested::Asked> {
        nested::begin(&self.context, &self.own, wanted(request)?, done).map_err(|fault| fault.raise(py))
    }
}

fn wanted(request: &Bound<'_, PyAny>) -> PyResult<Request> {
    serde_json::from_value(from_python(request)?).map_err(|error| PyTypeError::new_err(error.to_string()))
}

/// The parts of `omni` that every call needs, looked up once.
pub(super) struct Omni {
    context: Py<PyAny>,
    retry: Py<PyAny>,
    failed: Py<PyAny>,
    tool_cancelled: Py<PyAny>,
    cancels: Py<PyAny>,
    format_broken: Py<PyAny>,
    /// `current.set` and `current.reset`, the context of the call that a thread is at.
    pub(super) enter: Py<PyAny>,
    pub(super) leave: Py<PyAny>,
    /// Beginnings of printed lines, and what hands them on at the end of a call.
    pub(super) partial: Py<PyDict>,
    pub(super) finish: Py<PyAny>,
}

impl Omni {
    pub(super) fn get(py: Python<'_>) -> PyResult<&'static Self> {
        static OMNI: pyo3::sync::PyOnceLock<Omni> = pyo3::sync::PyOnceLock::new();
        OMNI.get_or_try_init(py, || {
            let errors = py.import("omni.errors")?;
            let (context, lines) = (py.import("omni.context")?, py.import("omni.lines")?);
            let current = context.getattr("current")?;
            Ok(Self {
                context: context.getattr("Context")?.unbind(),
                retry: errors.getattr("Retry")?.unbind(),
                failed: errors.getattr("Failed")?.unbind(),
                tool_cancelled: errors.getattr("ToolCancelled")?.unbind(),
                cancels: errors.getattr("cancels")?.unbind(),
                format_broken: py.import("omni.kernel")?.getattr("format_broken")?.unbind(),
                enter: current.getattr("set")?.unbind(),
                leave: current.getattr("reset")?.unbind(),
                partial: lines.getattr("partial")?.cast_into::<PyDict>()?.unbind(),
                finish: lines.getattr("finish")?.unbind(),
            })
        })
    }

    /// `omni.errors.ToolCancelled`, to be raised in another thread.
    pub(super) fn tool_cancelled<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.tool_cancelled.bind(py)
    }

    /// The `ctx` of a call.
    pub(super) fn context<'py>(&self, py: Python<'py>, native: NativeContext) -> PyResult<Bound<'py, PyAny>> {
        self.context.bind(py).call1((native,))
    }

    /// Says in our words what an exception means.
    fn fault(&self, py: Python<'_>, error: &PyErr) -> Fault {
        let sentence = || error.value(py).str().map(|text| lossy(&text)).unwrap_or_default();
        let is = |class: &Bound<'_, PyAny>| error.matches(py, class).unwrap_or(false);
        if is(self.retry.bind(py)) {
            return Fault::Retry(sentence());
        }
        if is(self.failed.bind(py)) {
            return Fault::Failed(sentence());
        }
        let cancels = self.cancels.bind(py).call1((error.value(py),));
        if cancels.is_ok_and(|cancels| cancels.is_truthy().unwrap_or(false)) {
            return Fault::Cancelled;
        }
        // Only an exception that went through a frame of Python's knows its traceback.
        error.value(py).setattr("__traceback__", error.traceback(py)).ok();
        let traceback = self.format_broken.bind(py).call1((error.value(py),));
        let traceback = traceback.and_then(|text| text.extract::<String>());
        Fault::Broken(traceback.unwrap_or_else(|_| error.to_string()))
    }
}

/// What an exception means. What nobody expects comes with its traceback, which goes to the log
/// under an id; the model is given the id alone.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Fault {
    Retry(String),
    Failed(String),
    Cancelled,
    Broken(String),
}

impl Fault {
    pub(super) fn of(py: Python<'_>, error: &PyErr) -> Self {
        match Omni::get(py) {
            Ok(omni) => omni.fault(py, error),
            Err(missing) => Self::Broken(missing.to_string()),
        }
    }

    /// The same for a tool that has asked for something.
    pub(super) fn raise(self, py: Python<'_>) -> PyErr {
        let omni = match Omni::get(py) {
            Ok(omni) => omni,
            Err(missing) => return missing,
        };
        let exception = match self {
            Self::Cancelled => omni.tool_cancelled(py).call0(),
            Self::Retry(words) | Self::Failed(words) | Self::Broken(words) => {
                omni.failed.bind(py).call1((words,))
            }
        };
        exception.map_or_else(|error| error, PyErr::from_value)
    }

    /// The same for the caller of this tool.
    pub(super) fn error(self, tool: &str) -> tool::Error {
        match self {
            Self::Retry(sentence) => tool::Error::Retry(sentence),
            Self::Failed(sentence) => tool::Error::Failed(sentence),
            Self::Cancelled => tool::Error::Cancelled,
            Self::Broken(traceback) => broken(tool, &traceback),
        }
    }
}

/// Says what an exception of this tool means.
pub(super) fn error(py: Python<'_>, tool: &str, error: &PyErr) -> tool::Error {
    Fault::of(py, error).error(tool)
}

/// Logs what broke and returns the error that carries its id.
pub(super) fn broken(tool: &str, detail: &str) -> tool::Error {
    let id = uuid::Uuid::now_v7().simple().to_string()[20..].to_owned();
    tracing::error!(target: "tool", id, tool, "{detail}");
    tool::Error::Broken { id }
}

/// What is behind the names of extensions, as `omni.skill.load` takes it.
pub(super) fn engines<'py>(py: Python<'py>, engines: &Engines) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, Behind { built, refused }) in engines {
        dict.set_item(name, (built.as_ref().map(|built| built.as_os_str()), refused))?;
    }
    Ok(dict)
}

/// A JSON object as a dict.
pub(super) fn dict<'py>(py: Python<'py>, map: &Map<String, Value>) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (key, value) in map {
        dict.set_item(key, to_python(py, value)?)?;
    }
    Ok(dict)
}

pub(crate) fn to_python<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        Value::Null => py.None().into_bound(py),
        Value::Bool(value) => PyBool::new(py, *value).to_owned().into_any(),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => whole.into_pyobject(py)?.into_any(),
            (None, Some(whole)) => whole.into_pyobject(py)?.into_any(),
            (None, None) => PyFloat::new(py, number.as_f64().unwrap_or(f64::NAN)).into_any(),
        },
        Value::String(text) => PyString::new(py, text).into_any(),
        Value::Array(items) => {
            let list = PyList::empty(py);
            for item in items {
                list.append(to_python(py, item)?)?;
            }
            list.into_any()
        }
        Value::Object(map) => dict(py, map)?.into_any(),
    })
}

/// How deep a value may be nested; a cycle ends here with an error.
pub(super) const DEPTH: usize = 128;

/// A Python value of JSON shape as JSON. Anything else is a `TypeError` that names its type.
pub(crate) fn from_python(value: &Bound<'_, PyAny>) -> PyResult<Value> {
    convert(value, DEPTH)
}

fn convert(value: &Bound<'_, PyAny>, depth: usize) -> PyResult<Value> {
    if depth == 0 {
        return Err(PyValueError::new_err("the value is nested too deeply, or contains itself"));
    }
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(Value::String(lossy(text)));
    }
    if let Ok(dict) = value.cast::<PyDict>() {
        let mut map = Map::with_capacity(dict.len());
        for (key, item) in dict {
            map.insert(lossy(key.cast::<PyString>()?), convert(&item, depth - 1)?);
        }
        return Ok(Value::Object(map));
    }
    if let Ok(list) = value.cast::<PyList>() {
        return list.iter().map(|item| convert(&item, depth - 1)).collect::<PyResult<_>>().map(Value::Array);
    }
    if value.is_none() {
        return Ok(Value::Null);
    }
    if let Ok(flag) = value.cast::<PyBool>() {
        return Ok(Value::Bool(flag.is_true()));
    }
    if let Ok(number) = value.cast::<PyInt>() {
        return Ok(whole(number));
    }
    if let Ok(number) = value.cast::<PyFloat>() {
        return Ok(Number::from_f64(number.value()).map_or(Value::Null, Value::Number));
    }
    if let Ok(tuple) = value.cast::<PyTuple>() {
        return tuple.iter().map(|item| convert(&item, depth - 1)).collect::<PyResult<_>>().map(Value::Array);
    }
    Err(PyTypeError::new_err(format!("`{}` is no JSON value", value.get_type().name()?)))
}

/// The same for a value of Python's own types and nothing else, which everything that runs
/// between a tool and us would hand on as it is; `None` for all others.
pub(super) fn exact(value: &Bound<'_, PyAny>, depth: usize) -> Option<Value> {
    let depth = depth.checked_sub(1)?;
    if let Ok(text) = value.cast_exact::<PyString>() {
        return text.to_str().ok().map(Value::from);
    }
    if let Ok(number) = value.cast_exact::<PyInt>() {
        return number.extract::<i64>().ok().map(Value::from);
    }
    if let Ok(dict) = value.cast_exact::<PyDict>() {
        let mut map = Map::with_capacity(dict.len());
        for (key, item) in dict {
            let key = key.cast_exact::<PyString>().ok()?.to_str().ok()?.to_owned();
            map.insert(key, exact(&item, depth)?);
        }
        return Some(Value::Object(map));
    }
    if let Ok(list) = value.cast_exact::<PyList>() {
        return list.iter().map(|item| exact(&item, depth)).collect::<Option<_>>().map(Value::Array);
    }
    if value.is_none() {
        return Some(Value::Null);
    }
    if let Ok(flag) = value.cast_exact::<PyBool>() {
        return Some(Value::Bool(flag.is_true()));
    }
    let number = value.cast_exact::<PyFloat>().ok()?;
    Some(Number::from_f64(number.value()).map_or(Value::Null, Value::Number))
}

/// An integer of any size: beyond 64 bits it goes on as a float, as JSON readers expect.
fn whole(number: &Bound<'_, PyInt>) -> Value {
    if let Ok(whole) = number.extract::<i64>() {
        return whole.into();
    }
    if let Ok(whole) = number.extract::<u64>() {
        return whole.into();
    }
    let float = number.extract::<f64>().ok().and_then(Number::from_f64);
    float.map_or(Value::Null, Value::Number)
}

/// Text as UTF-8; lone surrogates become U+FFFD.
fn lossy(text: &Bound<'_, PyString>) -> String {
    text.to_string_lossy().into_owned()
}

/// The pair `(content, structured)` that a handle returns.
pub(super) fn output(pair: &Bound<'_, PyAny>) -> PyResult<Output> {
    let pair = pair.cast::<PyTuple>()?;
    let (content, structured) = (pair.get_item(0)?, pair.get_item(1)?);
    let structured = if structured.is_none() { None } else { Some(from_python(&structured)?) };
    if content.is_none() {
        return Ok(Output::new(Vec::new(), structured));
    }
    if let Ok(text) = content.cast::<PyString>() {
        return Ok(Output::new(vec![Block::text(lossy(text))], structured));
    }
    let blocks = serde_json::from_value::<Vec<Block>>(from_python(&content)?);
    let content = blocks.map_err(|error| PyTypeError::new_err(format!("a block is malformed: {error}")))?;
    Ok(Output::new(content, structured))
}
