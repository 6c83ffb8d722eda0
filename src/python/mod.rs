//! The extension door: what `import omni` finds in a Python that runs already.
//!
//! The command line of the binary, and [`agent`] for programs that ask by themselves.

pub mod agent;
pub mod pending;

use pyo3::prelude::*;

use crate::kernel::{Interpreter, interpreter};

/// Runs the command line in this interpreter, and ends the process with its exit code.
///
/// The console script sets SIGINT back to its default first, so that Ctrl-C is ours.
#[pyfunction]
pub fn main(py: Python<'_>, argv: Vec<String>) {
    let argv = argv.into_iter().map(Into::into).collect();
    py.detach(|| interpreter::leave(crate::cli::run(argv, Interpreter::Host)));
}

/// `omni._omni`: the same names as the embedded `_omni`, the command line and the assistant.
#[pymodule(name = "_omni")]
pub mod extension {
    #[pymodule_export]
    use super::agent::{Agent, Turn};
    #[pymodule_export]
    use super::main;
    #[pymodule_export]
    use super::pending::{Pending, leave};
    #[pymodule_export]
    use crate::kernel::bridge::NativeContext;
    #[pymodule_export]
    use crate::kernel::looper::{Jobs, Ticket};
    #[pymodule_export]
    use crate::kernel::native::log;
    #[pymodule_export]
    use crate::kernel::nested::Asked;

    #[pymodule_export]
    #[allow(non_upper_case_globals, reason = "Python's name for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
