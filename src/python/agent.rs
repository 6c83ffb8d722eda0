//! The assistant as a program has it. `omni.Agent` stands on this, and has the types and the words.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyString;
use serde_json::{Map, Value};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::pending::{self, Outcome, Pending, outcome};
use crate::app::{App, Choices};
use crate::hub::{Events, Hub, Order};
use crate::kernel::functions::Functions;
use crate::kernel::presence::Presence;
use crate::kernel::{Interpreter, bridge};
use crate::message::event::{Answer, Consent, EventKind};
use crate::message::{Incoming, Message};

/// An assistant with its settings, its tools and its database.
#[pyclass(frozen, module = "omni._omni")]
pub struct Agent(Mutex<Option<Parts>>);

/// What is gone when an agent is closed.
#[derive(Clone)]
struct Parts {
    app: Arc<App>,
    hub: Arc<OnceCell<Arc<Hub>>>,
}

impl Parts {
    /// Ends everything; threads that are in Python for it leave.
    async fn end(self) {
        self.app.finish().await;
    }
}

/// A turn that goes on. Dropping it ends it early; what it had is kept.
#[pyclass(frozen, module = "omni._omni")]
pub struct Turn {
    events: Arc<tokio::sync::Mutex<Events>>,
    asked: Arc<Mutex<Option<Asked>>>,
    cancel: CancellationToken,
}

/// What a tool waits for.
enum Asked {
    Consent(Answer),
    Answer(Answer<Option<Map<String, Value>>>),
}

#[pymethods]
impl Agent {
    /// Reads the settings. `tools` are pairs of a description and a handle, as `omni.functions` makes them.
    #[new]
    fn new(
        py: Python<'_>,
        folder: PathBuf,
        model: Option<String>,
        skills: Vec<PathBuf>,
        settings: Vec<String>,
        tools: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let runtime = pending::runtime()?;
        let choices = Choices { model, skills, set: settings, ..Choices::default() };
        let load = || {
            let folder = std::path::absolute(&folder).map_err(|error| error.to_string())?;
            if !folder.is_dir() {
                return Err(format!("there is no folder `{}`", folder.display()));
            }
            let app = App::within(&folder, choices, Interpreter::Guest);
            let app = app.map_err(|error| error.to_string())?;
            // Traces are sent from there.
            let _entered = runtime.enter();
            app.log(false);
            Ok(app)
        };
        let app = py.detach(load).map_err(|reason| error(py, "SetupError", &reason))?;
        let functions = Functions::new(tools, &app.paths.data, runtime.handle())?;
        let app = Arc::new(app.with_tools(Arc::new(functions)));
        Ok(Self(Mutex::new(Some(Parts { app, hub: Arc::default() }))))
    }

    /// Hands a message over; comes to a [`Turn`]. `session` is what the conversation is called: it begins
    /// when it is first named. `asks` says whether questions of tools will be answered.
    fn submit(&self, message: String, session: String, asks: bool, instructions: Option<String>) -> Pending {
        let parts = self.0.lock().expect("no panic while held").clone();
        Pending::new(async move {
            let Some(Parts { app, hub }) = parts else {
                return refused("TurnError", "the agent is closed".to_owned());
            };
            let hub = match hub.get_or_try_init(|| app.hub()).await {
                Ok(hub) => hub,
                Err(reason) => return refused("SetupError", reason.to_string()),
            };
            let submitted = async {
                let session = Some(hub.session(&session).await?);
                let incoming = Incoming { session, message: Message::user(message) };
                hub.order(Order { asks, instructions, ..Order::new(incoming) }).await
            };
            match submitted.await {
                Ok(running) => {
                    let events = Arc::new(tokio::sync::Mutex::new(running.events));
                    let turn = Turn { events, asked: Arc::default(), cancel: running.cancel };
                    outcome(move |py| Ok(Py::new(py, turn)?.into_any()))
                }
                Err(reason) => refused("TurnError", reason.to_string()),
            }
        })
    }

    /// Stops what still goes on, and closes the database.
    fn close(&self) -> Pending {
        let parts = self.0.lock().expect("no panic while held").take();
        Pending::new(async move {
            if let Some(parts) = parts {
                parts.end().await;
            }
            outcome(|py| Ok(py.None()))
        })
    }
}

#[pymethods]
impl Turn {
    /// Comes to the next event, and to `None` after the last. A question in the one before that was not
    /// answered is answered with no.
    fn next(&self) -> Pending {
        let (events, asked) = (self.events.clone(), self.asked.clone());
        Pending::new(async move {
            asked.lock().expect("no panic while held").take();
            let Some(event) = events.lock().await.next().await else {
                return outcome(|py| Ok(py.None()));
            };
            let question = match &event.kind {
                EventKind::Approval(approval) => Some(Asked::Consent(approval.answer.clone())),
                EventKind::Elicitation(question) => Some(Asked::Answer(question.answer.clone())),
                _ => None,
            };
            *asked.lock().expect("no panic while held") = question;
            outcome(move |py| {
                let event = serde_json::to_value(&event).expect("events are JSON");
                Ok(bridge::to_python(py, &event)?.unbind())
            })
        })
    }

    /// Answers the question in the event that came last: with yes or no to run a tool, with an object or
    /// `None` what a tool wants to know.
    fn answer(&self, answer: &Bound<'_, PyAny>) -> PyResult<()> {
        match self.asked.lock().expect("no panic while held").take() {
            Some(Asked::Consent(place)) => {
                let consent = if answer.is_truthy()? { Consent::Once } else { Consent::No };
                place.give(consent);
            }
            Some(Asked::Answer(place)) => {
                let values = match answer.is_none() {
                    true => None,
                    false => match bridge::from_python(answer)? {
                        Value::Object(values) => Some(values),
                        other => return Err(PyTypeError::new_err(format!("a dict is wanted, not {other}"))),
                    },
                };
                place.give(values);
            }
            None => {}
        }
        Ok(())
    }

    /// Ends it early. Its events go on to the last one.
    fn cancel(&self) {
        self.cancel.cancel();
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Drop for Agent {
    /// One that was not closed stops what goes on all the same.
    fn drop(&mut self) {
        let Some(parts) = self.0.lock().expect("no panic while held").take() else { return };
        match (pending::runtime(), Presence::come()) {
            (Ok(runtime), Some(presence)) => {
                runtime.spawn(async move {
                    parts.end().await;
                    drop(presence);
                });
            }
            // A fork has no part in it, and at the end of Python it is too late.
            _ => std::mem::forget(parts),
        }
    }
}

fn refused(class: &'static str, reason: String) -> Outcome {
    outcome(move |py| Err(error(py, class, &reason)))
}

/// An exception of `omni.errors`.
fn error(py: Python<'_>, class: &str, reason: &str) -> PyErr {
    let raise = || py.import("omni.errors")?.getattr(class)?.call1((PyString::new(py, reason),));
    raise().map_or_else(|error| error, PyErr::from_value)
}
