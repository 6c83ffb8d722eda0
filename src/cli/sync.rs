//! `omni sync`: the index of tools, made anew.

use super::error::{Failure, code};
use super::ui::Screen;
use crate::app::App;

pub(super) async fn run(app: &App, screen: &Screen) -> Result<u8, Failure> {
    let manifest = app.manifest_again().await;
    let tools: usize = manifest.skills.iter().map(|skill| skill.tools.len()).sum();
    let problems: Vec<_> = manifest.problems().collect();
    if screen.json {
        screen.value(&*manifest)?;
    } else {
        screen.line(&format!("{} skills with {tools} tools", manifest.skills.len()))?;
        for problem in &problems {
            screen.line(&super::skill::told(problem))?;
        }
    }
    Ok(if problems.iter().any(|problem| problem.is_error()) { code::FAILED } else { code::OK })
}
