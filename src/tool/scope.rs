//! What calls have in common: where they come from, who hears of them, who can be asked.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use tokio_util::sync::CancellationToken;

use super::Progress;
use super::clock::{Clock, Stop};
use super::nested::{Asker, Budget, Client, Editor, Logger, Outer, Sampler};
use crate::message::event::{Approval, EventKind};
use crate::trace;

/// Takes what happens to calls.
pub type Events = Arc<dyn Fn(EventKind) + Send + Sync>;

/// Takes a question to a person. The answer comes through [`Approval::answer`]; dropping it
/// refuses.
pub type Approver = Arc<dyn Fn(Approval) + Send + Sync>;

/// What the calls of one turn have in common.
#[derive(Clone)]
pub struct Scope {
    /// The session, if there is one.
    pub session: Option<String>,
    /// The turn, for the audit.
    pub turn: Option<String>,
    /// The request that has led to them.
    pub request: Option<Arc<str>>,
    /// The folder that file tools may not leave.
    pub workspace: Arc<PathBuf>,
    /// Cancels all calls.
    pub cancel: CancellationToken,
    /// Hears of calls; `None` costs nothing.
    pub events: Option<Events>,
    /// Asks a person; `None` where there is nobody.
    pub approver: Option<Approver>,
    /// Asks a person what a tool wants to know; `None` where there is nobody.
    pub asker: Option<Asker>,
    /// Asks the model what a tool wants to know; `None` where there is none.
    pub sampler: Option<Sampler>,
    /// Asks the program that called; `None` where none did.
    pub client: Option<Client>,
    /// Reads and writes files in its place; `None` where no editor called.
    pub editor: Option<Editor>,
    /// Hears what tools say while they run; `None` costs nothing.
    pub logger: Option<Logger>,
    /// What its calls may ask for among themselves.
    pub budget: Arc<Budget>,
    /// The calls that those of this scope are nested in, the outermost first.
    pub within: Vec<Outer>,
    /// What the person has said about tools in this session.
    pub consents: Arc<Consents>,
    /// Leaves long results as they are: for callers that are no model.
    pub whole: bool,
}

impl Scope {
    /// A scope where nobody listens and nobody can be asked.
    pub fn new(workspace: impl Into<PathBuf>) -> Self {
        Self {
            session: None,
            turn: None,
            request: trace::request(),
            workspace: Arc::new(workspace.into()),
            cancel: CancellationToken::new(),
            events: None,
            approver: None,
            asker: None,
            sampler: None,
            client: None,
            editor: None,
            logger: None,
            budget: Arc::default(),
            within: Vec::new(),
            consents: Arc::default(),
            whole: false,
        }
    }

    /// Stops the clocks of the calls around, for as long as what is returned is held.
    pub(super) fn stop(&self) -> Vec<Stop> {
        self.within.iter().map(|outer| outer.clock.stop()).collect()
    }

    /// The id of the call that those of this scope are nested in.
    pub(super) fn parent(&self) -> Option<String> {
        self.within.last().map(|outer| outer.call.clone())
    }

    /// What takes the reports of a call. A `clock` takes note of them, if somebody looks at it; so do
    /// those of the calls around.
    pub(super) fn progress(
        &self,
        id: &str,
        clock: Option<&Arc<Clock>>,
    ) -> Arc<dyn Fn(Progress) + Send + Sync> {
        static NOBODY: LazyLock<Arc<dyn Fn(Progress) + Send + Sync>> = LazyLock::new(|| Arc::new(|_| ()));
        let around = self.within.iter().map(|outer| &outer.clock);
        let clocks: Vec<_> = clock.into_iter().chain(around).cloned().collect();
        let events = self.events.clone();
        if events.is_none() && clocks.is_empty() {
            return NOBODY.clone();
        }
        let call = id.to_owned();
        Arc::new(move |step: Progress| {
            clocks.iter().for_each(|clock| clock.sign());
            let Some(events) = &events else { return };
            events(EventKind::ToolProgress {
                call: call.clone(),
                progress: step.progress,
                total: step.total,
                message: step.message,
            });
        })
    }
}

/// What a person has said about tools for the rest of a session.
#[derive(Debug, Default)]
pub struct Consents {
    tools: Mutex<HashMap<String, bool>>,
    all: AtomicBool,
}

impl Consents {
    /// Remembers whether a tool, by its own name, may run.
    pub fn keep(&self, tool: &str, may: bool) {
        self.tools.lock().expect("no panic while held").insert(tool.to_owned(), may);
    }

    /// Remembers whether all tools may run of which nothing else was said.
    pub fn keep_all(&self, may: bool) {
        self.all.store(may, Ordering::SeqCst);
    }

    /// Whether they may.
    pub fn is_all(&self) -> bool {
        self.all.load(Ordering::SeqCst)
    }

    /// Whether the tool may run, if that was said.
    pub fn given(&self, tool: &str) -> Option<bool> {
        let said = self.tools.lock().expect("no panic while held").get(tool).copied();
        said.or_else(|| self.is_all().then_some(true))
    }
}
