//! This program as Python: `omni python …`, and whenever it is started by that name.
//!
//! `sys.executable` has to be a Python, or whatever starts it anew (multiprocessing, pip, virtual environments)
//! would start an assistant.

use std::ffi::OsString;
use std::path::Path;

use super::Interpreter;

/// The arguments of Python, its name first, if this is to be it.
pub fn asked(argv: &[OsString], interpreter: Interpreter) -> Option<Vec<OsString>> {
    let name = Path::new(argv.first()?).file_name().unwrap_or_default().to_string_lossy();
    let is_named = interpreter == Interpreter::Embedded && name.starts_with("python");
    match argv.get(1) {
        _ if is_named => Some(argv.to_vec()),
        Some(word) if word == "python" => Some(argv[1..].to_vec()),
        _ => None,
    }
}

/// Is Python, and returns what it ended with. Its name, if it is a path, is that of an environment's.
pub fn run(argv: Vec<OsString>, interpreter: Interpreter) -> Result<i32, String> {
    match interpreter {
        #[cfg(feature = "embed")]
        Interpreter::Embedded => super::embedded::run(argv),
        #[cfg(not(feature = "embed"))]
        Interpreter::Embedded => Err("there is no Python inside".to_owned()),
        Interpreter::Host | Interpreter::Guest => {
            use std::os::unix::process::CommandExt;
            let executable = super::interpreter::executable()?;
            let error = std::process::Command::new(&executable).args(&argv[1..]).exec();
            Err(format!("`{}` does not start: {error}", executable.display()))
        }
    }
}
