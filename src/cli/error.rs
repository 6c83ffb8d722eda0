//! What a command can end in: a message, its causes, a hint, an exit code.

use std::io;

use crate::app;
use crate::hub;
use crate::message::event::StopReason;
use crate::{llm, memory, session, store, tool};

/// Exit codes, after the conventions of the field: `timeout(1)`'s 124, 128 + signal.
pub(super) mod code {
    pub(crate) const OK: u8 = 0;
    pub(crate) const FAILED: u8 = 1;
    pub(crate) const USAGE: u8 = 2;
    pub(crate) const SETUP: u8 = 3;
    pub(crate) const MODEL: u8 = 4;
    pub(crate) const DENIED: u8 = 5;
    pub(crate) const LIMIT: u8 = 6;
    pub(crate) const ELAPSED: u8 = 124;
    pub(crate) const INTERRUPTED: u8 = 130;
    pub(crate) const TERMINATED: u8 = 143;
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(super) struct Failure {
    code: u8,
    /// What failed, and why.
    pub(super) message: String,
    /// What to do about it.
    pub(super) hint: Option<String>,
    /// Nobody is there to read: the other end of the pipe is gone.
    pub(super) silent: bool,
}

impl Failure {
    pub(super) fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None, silent: false }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn code(&self) -> u8 {
        self.code
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        // `omni … | head` has read enough: a goodbye, not a failure.
        let silent = error.kind() == io::ErrorKind::BrokenPipe;
        let code = if silent { code::OK } else { code::FAILED };
        Self { silent, ..Self::new(code, error.to_string()) }
    }
}

impl From<app::Error> for Failure {
    fn from(error: app::Error) -> Self {
        match error {
            app::Error::Store(error) => error.into(),
            app::Error::Model(error) => error.into(),
            other => Self::new(code::SETUP, other.to_string()),
        }
    }
}

impl From<hub::Error> for Failure {
    fn from(error: hub::Error) -> Self {
        match error {
            hub::Error::Session(error) => error.into(),
            hub::Error::Store(error) => error.into(),
            hub::Error::Spent(exhausted) => Self::new(code::LIMIT, exhausted.to_string()),
            other => Self::new(code::FAILED, other.to_string()),
        }
    }
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        // Each of these messages says what to do.
        Self::new(code::FAILED, error.to_string())
    }
}

impl From<session::Error> for Failure {
    fn from(error: session::Error) -> Self {
        match error {
            session::Error::Store(error) => error.into(),
            session::Error::Id(_) | session::Error::Ambiguous { .. } => {
                Self::new(code::USAGE, error.to_string()).hint("`omni session list` shows the sessions")
            }
            other => Self::new(code::FAILED, other.to_string()),
        }
    }
}

impl From<memory::Error> for Failure {
    fn from(error: memory::Error) -> Self {
        use memory::Error::{Ambiguous, Line, Turn, Unknown};
        let asked = matches!(error, Unknown(_) | Ambiguous(_) | Turn(_) | Line { .. });
        Self::new(if asked { code::USAGE } else { code::FAILED }, error.to_string())
    }
}

impl From<llm::Error> for Failure {
    fn from(error: llm::Error) -> Self {
        let setup = matches!(error, llm::Error::Setup(_) | llm::Error::Unauthorized { .. });
        Self::new(if setup { code::SETUP } else { code::MODEL }, error.to_string())
    }
}

impl From<tool::Error> for Failure {
    fn from(error: tool::Error) -> Self {
        let code = match &error {
            tool::Error::Retry(_) => code::USAGE,
            tool::Error::Failed(_) | tool::Error::Broken { .. } => code::FAILED,
            tool::Error::Elapsed(_) | tool::Error::Idle(_) => code::ELAPSED,
            tool::Error::Denied(_) => code::DENIED,
            tool::Error::Cancelled => code::INTERRUPTED,
        };
        Self::new(code, error.to_string())
    }
}

/// The exit code of a turn.
pub(super) fn turn(stop: StopReason) -> u8 {
    match stop {
        StopReason::Answered => code::OK,
        StopReason::Length | StopReason::Limit | StopReason::Loop | StopReason::Exhausted => code::LIMIT,
        StopReason::Cancelled => code::INTERRUPTED,
        StopReason::Unauthorized => code::SETUP,
        StopReason::ModelFailed => code::MODEL,
        StopReason::Failed => code::FAILED,
    }
}
