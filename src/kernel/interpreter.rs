//! The Python inside the binary: started once, on first need.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::mpsc;
use std::time::Duration;

use pyo3::prelude::*;

#[cfg(feature = "embed")]
use super::embedded;
#[cfg(feature = "embed")]
use super::layout::Layout;
use crate::skill;

/// Time that Python's exit functions have.
const EXIT: Duration = Duration::from_secs(2);

/// In whose process we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interpreter {
    /// Ours: Python is a part of this binary and starts when we say so.
    Embedded,
    /// Somebody's: we are a module of a Python that runs already, and do what its console script says.
    Host,
    /// Somebody's who has work of its own and asks us now and then: its streams stay as they are.
    Guest,
}

static STARTED: OnceLock<Result<(), String>> = OnceLock::new();

impl Interpreter {
    /// Makes Python ready: the interpreter runs, `omni` is imported and its streams are ours.
    /// The first call does the work, later ones return its result.
    pub fn start(self) -> Result<(), String> {
        self.start_in(None)
    }

    /// The same, with the packages of an environment and none but those. It has what `omni` needs.
    pub fn start_in(self, environment: Option<&Path>) -> Result<(), String> {
        #[cfg(not(feature = "embed"))]
        let _ = environment;
        let start = || {
            #[cfg(feature = "embed")]
            if self == Self::Embedded {
                embedded::initialize(environment)?;
                let ready =
                    |py: Python<'_>| embedded::release_interrupt(py).and_then(|()| embedded::share(py));
                Python::attach(ready).map_err(|error| error.to_string())?;
            }
            let install = |py: Python<'_>| match self {
                Self::Guest => py.import("omni.kernel").map(drop),
                Self::Embedded | Self::Host => install(py),
            };
            Python::attach(install).map_err(|error| format!("Python started, but `omni` did not: {error}"))
        };
        STARTED.get_or_init(start).clone()
    }

    /// Whether Python has been started by [`Interpreter::start`].
    pub fn is_running() -> bool {
        matches!(STARTED.get(), Some(Ok(())))
    }

    /// The file that a person starts this program by.
    pub fn program(self) -> Result<PathBuf, String> {
        match self {
            Self::Embedded => std::env::current_exe().map_err(|error| error.to_string()),
            Self::Host | Self::Guest => super::host::script(),
        }
    }

    /// The command that starts this very program once more.
    pub fn again(self) -> Result<Command, String> {
        match self {
            Self::Embedded => {
                // The running file itself, even if another one has taken its place since.
                let own = PathBuf::from("/proc/self/exe");
                let path =
                    if own.exists() { own } else { std::env::current_exe().map_err(|e| e.to_string())? };
                Ok(Command::new(path))
            }
            Self::Host | Self::Guest => {
                let mut command = Command::new(executable()?);
                // Not from the folder it is started in: that may have an `omni` of anybody's.
                command.args(["-P", "-m", "omni"]);
                Ok(command)
            }
        }
    }
}

fn install(py: Python<'_>) -> PyResult<()> {
    // Imports make many objects and hardly any garbage, so looking for some is time lost.
    let gc = py.import("gc")?;
    let collects: bool = gc.call_method0("isenabled")?.extract()?;
    gc.call_method0("disable")?;
    py.import("omni.kernel")?.call_method0("install")?;
    if collects {
        gc.call_method0("enable")?;
    }
    Ok(())
}

/// The version of the running Python, and where its library is.
pub fn version() -> Result<String, String> {
    let describe = |py: Python<'_>| -> PyResult<String> {
        let prefix: String = py.import("sys")?.getattr("prefix")?.extract()?;
        Ok(format!("{} in {prefix}", Python::version_str().split(' ').next().unwrap_or_default()))
    };
    Python::attach(describe).map_err(|error| error.to_string())
}

/// Ends the process: what Python was told to do at exit is done, in bounded time, and nothing else.
///
/// The exit handlers of C libraries do not run. They free what threads still use: libcrypto's,
/// which Python loads, crashed about one exit in forty while a thread was ending.
pub fn leave(code: u8) -> ! {
    if Interpreter::is_running() {
        let (done, waiting) = mpsc::channel();
        // On a thread of its own: a tool that does not let go may hold the interpreter.
        std::thread::spawn(move || {
            Python::attach(|py| py.import("atexit")?.call_method0("_run_exitfuncs").map(drop)).ok();
            done.send(()).ok();
        });
        waiting.recv_timeout(EXIT).ok();
    }
    // SAFETY: no destructor is owed anything: files are closed, the log is flushed.
    unsafe { libc::_exit(code.into()) }
}

/// What has to be done before there are threads.
pub fn settle() {
    #[cfg(bundled)]
    super::bundle::certify();
}

/// The folders a process of this Python reads from.
pub fn folders() -> Vec<PathBuf> {
    #[cfg(feature = "embed")]
    if let Ok(layout) = Layout::find() {
        // The last one is this program, which is that Python as well.
        let own = std::env::current_exe().ok();
        return layout.folders().into_iter().map(PathBuf::from).chain(own).collect();
    }
    #[cfg(not(feature = "embed"))]
    return super::host::folders();
    #[cfg(feature = "embed")]
    Vec::new()
}

/// Tells a command that starts this program once more where its Python is, whatever else it is told.
pub(super) fn show(command: &mut Command) {
    #[cfg(bundled)]
    super::bundle::show(command);
    let _ = command;
}

/// Has a command that starts this program once more import the packages of an environment.
pub(super) fn enter(command: &mut Command, environment: &Path) {
    command.arg("--environment").arg(environment);
    if cfg!(not(feature = "embed")) {
        // Somebody else's Python has imported `omni` before it comes to our arguments.
        command.env("PYTHONPATH", environment);
    }
}

/// Whether it travels in this program, rather than being one of this machine.
pub fn is_inside() -> bool {
    cfg!(bundled)
}

/// The file with the licences of all that travels in this program, if anything does.
pub fn licences() -> Result<Option<PathBuf>, String> {
    #[cfg(bundled)]
    return Ok(Some(super::bundle::layout()?.prefix.join("share/licenses.txt")));
    #[cfg(not(bundled))]
    Ok(None)
}

/// The Python inside, known without starting it.
pub fn python() -> skill::Python {
    let told = Python::version_str();
    let version = told.split(' ').next().unwrap_or_default().trim_end_matches('+').to_owned();
    let minor: Vec<&str> = version.split('.').take(2).collect();
    let build = if told.contains("free-threading") { "t" } else { "" };
    let kind = format!("cpython-{}{build}-{}", minor.join("."), std::env::consts::ARCH);
    skill::Python { version, kind }
}

/// The program that runs a script with this Python.
pub fn executable() -> Result<PathBuf, String> {
    #[cfg(feature = "embed")]
    return Layout::find().map(|layout| layout.executable.clone());
    #[cfg(not(feature = "embed"))]
    Python::attach(|py| py.import("sys")?.getattr("executable")?.extract())
        .map_err(|error: PyErr| error.to_string())
}

/// What names this Python and the `omni` package for the skill index: a manifest made by
/// another one is made anew.
pub fn identity() -> String {
    #[cfg(bundled)]
    let python = super::bundle::ID;
    #[cfg(not(bundled))]
    let python = option_env!("OMNI_PYTHON_STDLIB").map_or_else(|| self::python().kind, str::to_owned);
    format!("{} {python}", env!("CARGO_PKG_VERSION"))
}
