//! `omni --version --verbose`: what this build is made of.

use std::ffi::OsStr;

use super::error::code;
use super::ui;
use crate::kernel::{Interpreter, interpreter};
use crate::store::Store;

/// Whether a word asks for more, alone or with others: `-v`, `-Vv`.
pub(super) fn is_verbose(word: &OsStr) -> bool {
    let flags = word.to_str().and_then(|word| word.strip_prefix('-')).unwrap_or_default();
    flags == "-verbose" || (flags.contains('v') && flags.chars().all(|flag| matches!(flag, 'v' | 'V')))
}

pub(super) fn run(interpreter: Interpreter) -> u8 {
    // Whoever reads no further is content.
    let _ = ui::print(&told(interpreter));
    code::OK
}

fn told(interpreter: Interpreter) -> String {
    let place = match interpreter {
        Interpreter::Embedded if interpreter::is_inside() => "inside",
        Interpreter::Embedded => "of this machine",
        _ => "of its environment",
    };
    let sqlite =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string());
    let sqlite =
        sqlite.and_then(|runtime| runtime.block_on(Store::sqlite()).map_err(|error| error.to_string()));
    let lines = [
        ("commit", option_env!("OMNI_COMMIT").unwrap_or("not told: a build for development").to_owned()),
        ("target", env!("OMNI_TARGET").to_owned()),
        ("compiler", env!("OMNI_RUSTC").to_owned()),
        ("profile", env!("OMNI_PROFILE").to_owned()),
        ("Python", format!("{}, {place}", interpreter::python().version)),
        ("LanceDB", env!("OMNI_LANCEDB").to_owned()),
        ("SQLite", sqlite.unwrap_or_else(|reason| reason)),
    ];
    let mut text = concat!("omni ", env!("CARGO_PKG_VERSION"), "\n").to_owned();
    for (name, value) in lines {
        text += &format!("{name:<9}{value}\n");
    }
    text
}
