//! `omni worker`: children of this very program. One imports skill files to describe them, a
//! zygote forks the workers that tools run in.

use super::error::{Failure, code};
use crate::kernel::{Interpreter, describe, worker};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Fork workers, as told on descriptor 3
    #[arg(long)]
    zygote: bool,
}

pub(super) fn run(args: &Args, interpreter: Interpreter) -> Result<u8, Failure> {
    let served = match args.zygote {
        true => worker::child::zygote(interpreter),
        false => describe::serve(interpreter),
    };
    served.map_err(|reason| Failure::new(code::FAILED, reason))?;
    Ok(code::OK)
}
