//! Starts the Python inside: beneath the assistant, or as what this process is.
//!
//! Every path is said explicitly. Left to itself CPython takes whatever `python3` is on PATH for its own executable.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use pyo3::ffi;
use pyo3::prelude::*;

use super::layout::Layout;
use super::native::_omni;

/// Begins beneath the assistant, whose threads attach to it.
pub(super) fn initialize(environment: Option<&Path>) -> Result<(), String> {
    let layout = Layout::find()?;
    #[cfg(bundled)]
    super::bundle::lend(&layout.prefix);
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
        let result = configure(&mut config, layout, environment)
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

unsafe fn configure(
    config: &mut ffi::PyConfig,
    layout: &Layout,
    environment: Option<&Path>,
) -> Result<(), String> {
    config.site_import = 0;
    config.write_bytecode = 0;
    config.install_signal_handlers = 0;
    config.buffered_stdio = 0;
    config.module_search_paths_set = 1;
    let packages = environment.unwrap_or(&layout.packages);
    // SAFETY: the pointers are fields of `config`, which outlives the calls.
    unsafe {
        place(config, layout)?;
        for field in [&raw mut config.program_name, &raw mut config.executable] {
            set(config, field, layout.executable.as_os_str())?;
        }
        for field in [
            &raw mut config.prefix,
            &raw mut config.base_prefix,
            &raw mut config.exec_prefix,
            &raw mut config.base_exec_prefix,
        ] {
            set(config, field, layout.prefix.as_os_str())?;
        }
        set(config, &raw mut config.stdlib_dir, layout.stdlib.as_os_str())?;
        for path in [&layout.stdlib, &layout.dynload, &layout.source].map(|path| path.as_path()) {
            append(&raw mut config.module_search_paths, path)?;
        }
        append(&raw mut config.module_search_paths, packages)?;
    }
    Ok(())
}

/// Where everything is, and which program this is where no environment is in use.
unsafe fn place(config: &mut ffi::PyConfig, layout: &Layout) -> Result<(), String> {
    // SAFETY: see `configure`.
    unsafe {
        set(config, &raw mut config.home, layout.prefix.as_os_str())?;
        set(config, &raw mut config.base_executable, layout.executable.as_os_str())
    }
}

/// Is Python until it ends, and returns its exit code. A first argument that is a path is that of an environment's
/// program; any other stands for our own.
pub(super) fn run(mut argv: Vec<OsString>) -> Result<i32, String> {
    let layout = Layout::find()?;
    #[cfg(bundled)]
    super::bundle::lend(&layout.prefix);
    if !argv[0].as_bytes().contains(&b'/') {
        argv[0] = layout.executable.clone().into();
    }
    let argv: Result<Vec<_>, _> = argv.into_iter().map(|word| CString::new(word.into_vec())).collect();
    let argv = argv.map_err(|error| error.to_string())?;
    let mut words: Vec<_> = argv.iter().map(|word| word.as_ptr().cast_mut()).collect();
    let count = words.len().cast_signed();
    // SAFETY: nothing of Python has been used by this process; every structure is initialised by CPython before it
    // is read, and the words outlive the calls.
    unsafe {
        let mut before = std::mem::zeroed::<ffi::PyPreConfig>();
        ffi::PyPreConfig_InitPythonConfig(&mut before);
        check(ffi::Py_PreInitializeFromBytesArgs(&before, count, words.as_mut_ptr()))?;
        let mut config = std::mem::zeroed::<ffi::PyConfig>();
        ffi::PyConfig_InitPythonConfig(&mut config);
        let asked = |status: ffi::PyStatus| match ffi::PyStatus_IsExit(status) {
            0 => check(status).map(|()| None),
            // Its help was asked for.
            _ => Ok(Some(status.exitcode)),
        };
        let result = check(ffi::PyConfig_SetBytesArgv(&mut config, count, words.as_mut_ptr().cast()))
            .and_then(|()| place(&mut config, layout))
            .and_then(|()| {
                set(&raw mut config, &raw mut config.program_name, OsStr::from_bytes(argv[0].to_bytes()))
            })
            .and_then(|()| asked(ffi::Py_InitializeFromConfig(&config)));
        ffi::PyConfig_Clear(&mut config);
        Ok(result?.unwrap_or_else(|| ffi::Py_RunMain()))
    }
}

unsafe fn set(
    config: *mut ffi::PyConfig,
    field: *mut *mut libc::wchar_t,
    value: &OsStr,
) -> Result<(), String> {
    let text = CString::new(value.as_bytes()).expect("a path has no NUL");
    // SAFETY: `field` is one of `config`'s own strings.
    check(unsafe { ffi::PyConfig_SetBytesString(config, field.cast(), text.as_ptr()) })
}

unsafe fn append(list: *mut ffi::PyWideStringList, path: &Path) -> Result<(), String> {
    let text = CString::new(path.as_os_str().as_bytes()).expect("a path has no NUL");
    // SAFETY: the list copies the decoded text, which is then freed by its own allocator.
    unsafe {
        let wide = ffi::Py_DecodeLocale(text.as_ptr(), std::ptr::null_mut());
        if wide.is_null() {
            return Err(format!("cannot decode the path `{}`", path.display()));
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
