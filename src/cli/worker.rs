//! `omni worker`: a child of this very program that imports skill files.

use super::error::{Failure, code};
use crate::kernel::{Interpreter, worker};

pub(super) fn run(interpreter: Interpreter) -> Result<u8, Failure> {
    worker::serve(interpreter).map_err(|reason| Failure::new(code::FAILED, reason))?;
    Ok(code::OK)
}
