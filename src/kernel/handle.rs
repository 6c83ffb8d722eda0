//! The function of one tool, and the two ways to call it.
//!
//! The long way is in Python: pydantic converts the arguments and brings the result into plain
//! form. Where it would change neither, which is known by the types, Rust calls the function
//! itself, and what is left to do with the result is done without the interpreter.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyBytes, PyDict, PyFloat, PyList, PySet, PyString};
use serde_json::{Map, Number, Value};

use super::bridge::{self, NativeContext, Omni};
use crate::message::Block;
use crate::skill::{Engines, Sources};
use crate::tool::Output;

/// Where a tool's function is.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) skill: String,
    pub(super) folder: String,
    pub(super) file: String,
    pub(super) function: String,
    /// Of the skill; each has a namespace of its own.
    pub(super) version: u32,
    /// The files of that version, unless it is what the disk has.
    pub(super) sources: Option<Arc<Sources>>,
    /// What is behind the names of the skill's extensions.
    pub(super) engines: Arc<Engines>,
}

/// A tool's function, imported. Its twin is `omni.kernel.Handle`.
pub(super) struct Handle {
    /// The Python handle: it validates, calls, and returns the plain pair.
    pub(super) call: Py<PyAny>,
    wants_context: bool,
    direct: Direct,
}

/// What the short way needs.
struct Direct {
    function: Py<PyAny>,
    /// The parameter for the context.
    context: Option<Py<PyString>>,
    /// What each parameter takes as it is.
    parameters: Vec<(String, Kinds)>,
    has_output: bool,
    wrapped: bool,
}

/// Types of JSON.
#[derive(Debug, Clone, Copy, Default)]
struct Kinds {
    one: Plain,
    /// Of what is in a list.
    each: Option<Plain>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Plain {
    null: bool,
    bool: bool,
    int: bool,
    float: bool,
    str: bool,
}

/// What a call has returned.
pub(super) enum Returned {
    /// In its final form.
    Output(Output),
    /// A value as it is. [`Returned::output`] is the twin of `omni.result.plain`.
    Value {
        value: Value,
        /// Whether there is no output schema: a text is text then, and nothing is nothing.
        free: bool,
        /// Whether the schema puts the value under `result`.
        wrapped: bool,
    },
}

impl Handle {
    /// Finds the function, importing its file if this is the first call into it.
    pub(super) fn resolve(py: Python<'_>, at: &Place) -> PyResult<Arc<Self>> {
        let (skill, folder) = (at.skill.as_str(), at.folder.as_str());
        let contents = at.sources.as_ref().map(|sources| {
            let contents = sources.iter().map(|(name, content)| (name, PyBytes::new(py, content)));
            contents.into_py_dict(py)
        });
        let contents = contents.transpose()?;
        let engines = bridge::engines(py, &at.engines)?;
        let arguments =
            (skill, folder, at.file.as_str(), at.function.as_str(), at.version, contents, engines);
        Self::of(&py.import("omni.kernel")?.call_method1("resolve", arguments)?)
    }

    /// Takes a Python handle that is there.
    pub(super) fn of(call: &Bound<'_, PyAny>) -> PyResult<Arc<Self>> {
        let wants_context = call.getattr("wants_context")?.extract()?;
        let direct = Direct::read(&call.getattr("direct")?)?;
        Ok(Arc::new(Self { call: call.clone().unbind(), wants_context, direct }))
    }

    /// Calls a plain function.
    pub(super) fn invoke(
        &self,
        py: Python<'_>,
        arguments: &Map<String, Value>,
        context: NativeContext,
    ) -> PyResult<Returned> {
        let context = self.context(py, context)?;
        if !self.direct.takes(arguments) {
            let pair = self.call.bind(py).call1((bridge::dict(py, arguments)?, context))?;
            return bridge::output(&pair).map(Returned::Output);
        }
        let value = self.direct.invoke(py, arguments, &context)?;
        match self.direct.value(&value) {
            Some(returned) => Ok(returned),
            None => {
                let pair = self.call.bind(py).call_method1("plain", (value,))?;
                bridge::output(&pair).map(Returned::Output)
            }
        }
    }

    /// What the Python handle is called with.
    pub(super) fn arguments<'py>(
        &self,
        py: Python<'py>,
        arguments: &Map<String, Value>,
        context: NativeContext,
    ) -> PyResult<(Bound<'py, PyDict>, Bound<'py, PyAny>)> {
        Ok((bridge::dict(py, arguments)?, self.context(py, context)?))
    }

    fn context<'py>(&self, py: Python<'py>, native: NativeContext) -> PyResult<Bound<'py, PyAny>> {
        match self.wants_context {
            true => Omni::get(py)?.context(py, native),
            // What it prints is logged under the id of its call all the same.
            false => Ok(Bound::new(py, native)?.into_any()),
        }
    }
}

impl Direct {
    fn read(told: &Bound<'_, PyAny>) -> PyResult<Self> {
        let (function, context, kinds, has_output, wrapped) =
            told.extract::<(Py<PyAny>, Option<Py<PyString>>, Bound<'_, PyDict>, bool, bool)>()?;
        let parameters =
            kinds.iter().map(|(name, kinds)| Ok((name.extract()?, Kinds::read(kinds.cast::<PySet>()?)?)));
        let parameters = parameters.collect::<PyResult<_>>()?;
        Ok(Self { function, context, parameters, has_output, wrapped })
    }

    /// Whether pydantic would hand these arguments on as they are. They satisfy the schema.
    fn takes(&self, arguments: &Map<String, Value>) -> bool {
        arguments.iter().all(|(name, value)| self.kinds(name).is_some_and(|kinds| kinds.admit(value)))
    }

    fn kinds(&self, name: &str) -> Option<Kinds> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, kinds)| *kinds)
    }

    fn invoke<'py>(
        &self,
        py: Python<'py>,
        arguments: &Map<String, Value>,
        context: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let named = PyDict::new(py);
        for (name, value) in arguments {
            named.set_item(name, self.kinds(name).unwrap_or_default().to_python(py, value)?)?;
        }
        if let Some(parameter) = &self.context {
            named.set_item(parameter, context)?;
        }
        let omni = Omni::get(py)?;
        let token = omni.enter.bind(py).call1((context,))?;
        let result = self.function.bind(py).call((), Some(&named));
        if !omni.partial.bind(py).is_empty() {
            omni.finish.bind(py).call1((context,))?;
        }
        omni.leave.bind(py).call1((token,))?;
        result
    }

    /// The result, if its type is one that is passed on as it is.
    fn value(&self, value: &Bound<'_, PyAny>) -> Option<Returned> {
        let value = bridge::exact(value, bridge::DEPTH)?;
        // A promise of an object that is not kept: Python has the words for it.
        let broken = self.has_output && !self.wrapped && !value.is_object();
        (!broken).then_some(Returned::Value { value, free: !self.has_output, wrapped: self.wrapped })
    }
}

impl Kinds {
    fn read(names: &Bound<'_, PySet>) -> PyResult<Self> {
        let (mut one, mut each) = (Plain::default(), None);
        for name in names {
            let name = name.extract::<String>()?;
            match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
                Some(name) => each.get_or_insert_with(Plain::default).add(name),
                None => one.add(&name),
            }
        }
        Ok(Self { one, each })
    }

    fn admit(self, value: &Value) -> bool {
        match (value, self.each) {
            (Value::Array(items), Some(each)) => items.iter().all(|item| each.admit(item)),
            _ => self.one.admit(value),
        }
    }

    /// What is admitted, as Python is given it.
    fn to_python<'py>(self, py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
        match (value, self.each) {
            (Value::Array(items), Some(each)) => {
                let list = PyList::empty(py);
                for item in items {
                    list.append(each.to_python(py, item)?)?;
                }
                Ok(list.into_any())
            }
            _ => self.one.to_python(py, value),
        }
    }
}

impl Plain {
    fn add(&mut self, name: &str) {
        match name {
            "null" => self.null = true,
            "bool" => self.bool = true,
            "int" => self.int = true,
            "float" => self.float = true,
            "str" => self.str = true,
            _ => {}
        }
    }

    fn admit(self, value: &Value) -> bool {
        match value {
            Value::Null => self.null,
            Value::Bool(_) => self.bool,
            // `1.0` for an integer becomes `1`, the long way.
            Value::Number(number) if number.is_f64() => self.float,
            Value::Number(number) => self.int || (self.float && whole(number).is_some()),
            Value::String(_) => self.str,
            Value::Array(_) | Value::Object(_) => false,
        }
    }

    fn to_python<'py>(self, py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
        // A whole number for a float becomes one.
        if let (Value::Number(number), false) = (value, self.int)
            && let Some(float) = whole(number)
        {
            return Ok(PyFloat::new(py, float).into_any());
        }
        bridge::to_python(py, value)
    }
}

/// A whole number as the float that is the same.
fn whole(number: &Number) -> Option<f64> {
    const EXACT: u64 = 1 << 53;
    let whole = number.as_i64().filter(|whole| whole.unsigned_abs() <= EXACT)?;
    Some(whole as f64)
}

impl Returned {
    /// Content and structured value of it. Needs no interpreter.
    pub(super) fn output(self) -> Output {
        let (value, free, wrapped) = match self {
            Self::Output(output) => return output,
            Self::Value { value, free, wrapped } => (value, free, wrapped),
        };
        match value {
            Value::String(text) if free => Output::text(text),
            Value::Null if free => Output::text(""),
            Value::Object(_) if !wrapped => Output::new(vec![Block::text(value.to_string())], Some(value)),
            value => {
                let text = match &value {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                let structured = Value::Object(Map::from_iter([("result".to_owned(), value)]));
                Output::new(vec![Block::text(text)], Some(structured))
            }
        }
    }
}
