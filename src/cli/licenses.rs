//! `omni licenses`: what the parts of this program may be used for.

use super::error::{Failure, code};
use super::ui::Screen;
use crate::kernel::interpreter;

/// Print the licences of all that is in this program
///
/// They are many, and long: `omni licenses | less`.
#[derive(Debug, clap::Args)]
pub(super) struct Licenses {}

pub(super) fn run(screen: &Screen) -> Result<u8, Failure> {
    let failed = |reason: String| Failure::new(code::FAILED, reason);
    let Some(file) = interpreter::licences().map_err(failed)? else {
        let failure = failed(
            "this build uses the Python of its machine, and has no list of licences inside".to_owned(),
        );
        return Err(failure.hint("`tools/licenses` in its sources writes it"));
    };
    let text = std::fs::read_to_string(&file)
        .map_err(|error| failed(format!("cannot read `{}`: {error}", file.display())))?;
    screen.print(&text)?;
    Ok(code::OK)
}
