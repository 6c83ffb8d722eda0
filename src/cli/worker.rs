//! `omni worker`: children of this very program. One imports skill files to describe them, a
//! zygote forks the workers that tools run in.

use std::path::PathBuf;

use super::error::{Failure, code};
use crate::kernel::{Interpreter, describe, worker};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Fork workers, as told on descriptor 3
    #[arg(long)]
    zygote: bool,
    /// Import packages from here
    #[arg(long, value_name = "DIR")]
    environment: Option<PathBuf>,
    /// Import these modules before the first worker is forked
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "zygote")]
    modules: Vec<String>,
}

pub(super) fn run(args: &Args, interpreter: Interpreter) -> Result<u8, Failure> {
    let environment = args.environment.as_deref();
    let served = match args.zygote {
        true => worker::child::zygote(interpreter, environment, &args.modules),
        false => describe::serve(interpreter, environment),
    };
    served.map_err(|reason| Failure::new(code::FAILED, reason))?;
    Ok(code::OK)
}
