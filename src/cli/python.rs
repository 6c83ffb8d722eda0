//! `omni python`: the Python inside, for whoever wants to run something with it.

use std::ffi::OsString;

use super::error::code;
use crate::kernel::{Interpreter, program};

/// Be the Python inside: scripts, `-c`, `-m`, or a prompt
///
/// What follows is read by Python alone: `omni python -m venv FOLDER` makes an environment, `omni python -m pytest`
/// runs the tests of a skill where pytest is installed.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true, override_usage = "omni python [ARGUMENTS]...")]
pub(super) struct Python {
    /// As Python takes them
    #[arg(value_name = "ARGUMENTS", num_args = 0.., trailing_var_arg = true, allow_hyphen_values = true)]
    _arguments: Vec<OsString>,
}

/// Comes before the command line is read: `-m` and `-c` mean something else there.
pub(super) fn run(argv: Vec<OsString>, interpreter: Interpreter) -> u8 {
    match program::run(argv, interpreter) {
        // Its own way to end: what was told to C's `atexit` is done, as in any other Python.
        Ok(code) => std::process::exit(code),
        Err(reason) => {
            anstream::eprintln!("error: {reason}");
            code::SETUP
        }
    }
}
