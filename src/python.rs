//! The extension door: what `import omni` finds in a Python that runs already.

use pyo3::prelude::*;

use crate::kernel::Interpreter;

/// Runs the command line in this interpreter and returns its exit code.
///
/// The console script sets SIGINT back to its default first, so that Ctrl-C is ours.
#[pyfunction]
pub fn main(py: Python<'_>, argv: Vec<String>) -> u8 {
    let argv = argv.into_iter().map(Into::into).collect();
    py.detach(|| crate::cli::run(argv, Interpreter::Host))
}

/// `omni._omni`: the same names as the embedded `_omni`, and the command line.
#[pymodule(name = "_omni")]
pub mod extension {
    #[pymodule_export]
    use super::main;
    #[pymodule_export]
    use crate::kernel::bridge::NativeContext;
    #[pymodule_export]
    use crate::kernel::looper::{Jobs, Ticket};
    #[pymodule_export]
    use crate::kernel::native::log;

    #[pymodule_export]
    #[allow(non_upper_case_globals, reason = "Python's name for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
