//! `omni man`: the manual pages, for those who package omni.

use std::path::PathBuf;

use super::error::{Failure, code};
use super::help;

/// Write the manual pages of all commands into a folder
#[derive(Debug, clap::Args)]
pub(super) struct Man {
    /// The folder, as `/usr/local/share/man/man1`
    folder: PathBuf,
}

pub(super) fn run(man: &Man) -> Result<u8, Failure> {
    let written = std::fs::create_dir_all(&man.folder)
        .and_then(|()| clap_mangen::generate_to(help::command(), &man.folder));
    written.map_err(|error| {
        Failure::new(
            code::FAILED,
            format!("cannot write manual pages in `{}`: {error}", man.folder.display()),
        )
    })?;
    Ok(code::OK)
}
