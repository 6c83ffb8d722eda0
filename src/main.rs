//! The binary door.

use std::process::ExitCode;

use omni::kernel::Interpreter;
use omni::kernel::bridge::_omni;

fn main() -> ExitCode {
    pyo3::append_to_inittab!(_omni);
    omni::cli::main(std::env::args_os().collect(), Interpreter::Embedded)
}
