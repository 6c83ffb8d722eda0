//! What Python sees of Rust: the module `_omni`. Its twin is `python/omni/_omni.pyi`.

use pyo3::prelude::*;

use super::worker::{self, wire::Word};

/// The functions and classes of the module. In a wheel it is the door that has one, with more in it.
#[cfg(feature = "embed")]
#[pymodule]
pub mod _omni {
    #[pymodule_export]
    use super::log;
    #[pymodule_export]
    use crate::kernel::bridge::NativeContext;
    #[pymodule_export]
    use crate::kernel::looper::{Jobs, Ticket};
    #[pymodule_export]
    use crate::kernel::nested::Asked;

    #[pymodule_export]
    #[allow(non_upper_case_globals, reason = "Python's name for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}

/// Takes a line that a tool printed or logged.
#[pyfunction]
#[pyo3(signature = (level, call, text))]
pub fn log(level: &str, call: Option<&str>, text: &str) {
    if !say(level, call, text, false) {
        write(level, call, text);
    }
}

/// In a worker it is for the process that called, and for whoever called that one if `told`.
pub(super) fn say(level: &str, call: Option<&str>, text: &str, told: bool) -> bool {
    let call = call.map(str::to_owned);
    worker::say(|| Word::Log { level: level.into(), call, text: text.into(), told })
}

fn write(level: &str, call: Option<&str>, text: &str) {
    let call = call.unwrap_or_default();
    match level {
        "error" | "critical" => tracing::error!(target: "python", call, "{text}"),
        "warning" => tracing::warn!(target: "python", call, "{text}"),
        "debug" => tracing::debug!(target: "python", call, "{text}"),
        _ => tracing::info!(target: "python", call, "{text}"),
    }
}
