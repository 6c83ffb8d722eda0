//! The binary door.

use std::process::ExitCode;

use omni::kernel::Interpreter;

fn main() -> ExitCode {
    omni::cli::main(std::env::args_os().collect(), Interpreter::Embedded)
}
