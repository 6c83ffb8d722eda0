//! The Python inside the binary: started once, on first need.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::mpsc;
use std::time::Duration;

use pyo3::prelude::*;

use crate::skill;

/// Time that Python's exit functions have.
const EXIT: Duration = Duration::from_secs(2);

/// In whose process we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interpreter {
    /// Ours: Python is a part of this binary and starts when we say so.
    Embedded,
    /// Somebody's: we are a module of a Python that runs already.
    Host,
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
            Python::attach(install).map_err(|error| format!("Python started, but `omni` did not: {error}"))
        };
        STARTED.get_or_init(start).clone()
    }

    /// Whether Python has been started by [`Interpreter::start`].
    pub fn is_running() -> bool {
        matches!(STARTED.get(), Some(Ok(())))
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
            Self::Host => {
                let mut command = Command::new(executable()?);
                command.args(["-m", "omni"]);
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

/// The folders a process of this Python reads from.
pub fn folders() -> Vec<PathBuf> {
    let baked = [
        option_env!("OMNI_PYTHON_PREFIX"),
        option_env!("OMNI_PYTHON_STDLIB"),
        option_env!("OMNI_PYTHON_DYNLOAD"),
        option_env!("OMNI_PYTHON_SOURCE"),
        option_env!("OMNI_PYTHON_PACKAGES"),
    ];
    baked.into_iter().flatten().map(PathBuf::from).collect()
}

/// Has a command that starts this program once more import the packages of an environment.
pub(super) fn enter(command: &mut Command, environment: &Path) {
    command.arg("--environment").arg(environment);
    if cfg!(not(feature = "embed")) {
        // Somebody else's Python has imported `omni` before it comes to our arguments.
        command.env("PYTHONPATH", environment);
    }
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
    match option_env!("OMNI_PYTHON_EXECUTABLE") {
        Some(path) => Ok(path.into()),
        None => Python::attach(|py| py.import("sys")?.getattr("executable")?.extract())
            .map_err(|error: PyErr| error.to_string()),
    }
}

/// What names this Python and the `omni` package for the skill index: a manifest made by
/// another one is made anew.
pub fn identity() -> String {
    let python = option_env!("OMNI_PYTHON_STDLIB").unwrap_or("host");
    format!("{} {python}", env!("CARGO_PKG_VERSION"))
}

#[cfg(feature = "embed")]
mod embedded {
    //! Recipe: an isolated configuration, every path said explicitly. Left to itself CPython
    //! takes whatever `python3` is on PATH for its own executable.

    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    use pyo3::ffi;
    use pyo3::prelude::*;

    use crate::kernel::native::_omni;

    pub(super) fn initialize(environment: Option<&Path>) -> Result<(), String> {
        // SAFETY: called once (behind the OnceLock), before any other use of the interpreter
        // by this process; every structure is initialised by CPython before it is read.
        unsafe {
            if ffi::Py_IsInitialized() != 0 {
                return Ok(());
            }
            pyo3::append_to_inittab!(_omni);
            pre_initialize()?;
            let mut config = std::mem::zeroed::<ffi::PyConfig>();
            ffi::PyConfig_InitIsolatedConfig(&mut config);
            let result = configure(&mut config, environment)
                .and_then(|()| check(ffi::Py_InitializeFromConfig(&config)));
            ffi::PyConfig_Clear(&mut config);
            result?;
            // Gives the lock away: from here on every thread attaches for itself.
            ffi::PyEval_SaveThread();
        }
        Ok(())
    }

    /// Gives SIGINT back to whoever wants it. The first import of `_signal` takes it if nobody
    /// else has, whatever the configuration says, and an interrupt would then only set a flag
    /// that no thread of ours looks at. To be called on the thread that initialised Python.
    pub(super) fn release_interrupt(py: Python<'_>) -> PyResult<()> {
        let signal = py.import("_signal")?;
        let handler = signal.call_method1("getsignal", (libc::SIGINT,))?;
        if handler.is(&signal.getattr("default_int_handler")?) {
            signal.call_method1("signal", (libc::SIGINT, signal.getattr("SIG_DFL")?))?;
        }
        Ok(())
    }

    /// Has a thread that computes give the interpreter to others after a millisecond, and not after five:
    /// so long all calls beside a tool that spins wait, several times over.
    pub(super) fn share(py: Python<'_>) -> PyResult<()> {
        py.import("sys")?.call_method1("setswitchinterval", (0.001,)).map(drop)
    }

    unsafe fn pre_initialize() -> Result<(), String> {
        // SAFETY: see `initialize`.
        unsafe {
            let mut config = std::mem::zeroed::<ffi::PyPreConfig>();
            ffi::PyPreConfig_InitIsolatedConfig(&mut config);
            config.utf8_mode = 1;
            check(ffi::Py_PreInitialize(&config))
        }
    }

    unsafe fn configure(config: &mut ffi::PyConfig, environment: Option<&Path>) -> Result<(), String> {
        config.site_import = 0;
        config.write_bytecode = 0;
        config.install_signal_handlers = 0;
        config.buffered_stdio = 0;
        config.module_search_paths_set = 1;
        let (executable, prefix) = (env!("OMNI_PYTHON_EXECUTABLE"), env!("OMNI_PYTHON_PREFIX"));
        let packages = environment.unwrap_or(Path::new(env!("OMNI_PYTHON_PACKAGES")));
        // SAFETY: the pointers are fields of `config`, which outlives the calls.
        unsafe {
            for field in
                [&raw mut config.program_name, &raw mut config.executable, &raw mut config.base_executable]
            {
                set(config, field, executable)?;
            }
            for field in [
                &raw mut config.home,
                &raw mut config.prefix,
                &raw mut config.base_prefix,
                &raw mut config.exec_prefix,
                &raw mut config.base_exec_prefix,
            ] {
                set(config, field, prefix)?;
            }
            set(config, &raw mut config.stdlib_dir, env!("OMNI_PYTHON_STDLIB"))?;
            for path in [env!("OMNI_PYTHON_STDLIB"), env!("OMNI_PYTHON_DYNLOAD"), env!("OMNI_PYTHON_SOURCE")]
            {
                append(&raw mut config.module_search_paths, path.as_bytes())?;
            }
            append(&raw mut config.module_search_paths, packages.as_os_str().as_bytes())?;
        }
        Ok(())
    }

    unsafe fn set(
        config: *mut ffi::PyConfig,
        field: *mut *mut libc::wchar_t,
        value: &str,
    ) -> Result<(), String> {
        let text = CString::new(value).expect("a path baked in at build time has no NUL");
        // SAFETY: `field` is one of `config`'s own strings.
        check(unsafe { ffi::PyConfig_SetBytesString(config, field.cast(), text.as_ptr()) })
    }

    unsafe fn append(list: *mut ffi::PyWideStringList, value: &[u8]) -> Result<(), String> {
        let text = CString::new(value).expect("a path has no NUL");
        // SAFETY: the list copies the decoded text, which is then freed by its own allocator.
        unsafe {
            let wide = ffi::Py_DecodeLocale(text.as_ptr(), std::ptr::null_mut());
            if wide.is_null() {
                return Err(format!("cannot decode the path `{}`", String::from_utf8_lossy(value)));
            }
            let status = ffi::PyWideStringList_Append(list, wide);
            ffi::PyMem_RawFree(wide.cast());
            check(status)
        }
    }

    fn check(status: ffi::PyStatus) -> Result<(), String> {
        // SAFETY: `status` was returned by CPython; its messages are static strings.
        unsafe {
            if ffi::PyStatus_Exception(status) == 0 {
                return Ok(());
            }
            let message = match status.err_msg.is_null() {
                true => "no reason given".into(),
                false => std::ffi::CStr::from_ptr(status.err_msg).to_string_lossy(),
            };
            Err(format!("Python could not be started: {message}"))
        }
    }
}
