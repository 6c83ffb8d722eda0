//! `omni skill`: what the assistant has learned to do.

use std::path::PathBuf;

use super::error::{Failure, code};
use super::install::{self, Install, Remove};
use super::ui::Screen;
use crate::app::App;
use crate::skill::manifest::Problem;
use crate::skill::{self, Manifest};

/// List, check, trust, install and write skills.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Skill {
    /// List the skills there are, and what is wrong with them
    List,
    /// Read all skills anew and show every problem with file and line
    Check,
    /// Vouch for a skill as it is now: one of the project may run then
    Trust {
        /// The skill
        name: String,
    },
    /// Take that back
    Distrust {
        /// The skill
        name: String,
    },
    /// Install a skill, or the packages of one that is there
    ///
    /// Shows what it is and what it may do, and asks. The packages it declares are locked with the
    /// hashes of their files and installed by `uv`, once: running its tools needs no network.
    Install(Install),
    /// Remove a skill that was installed, with its packages and its data
    Remove(Remove),
    /// Write a skill that works, with a tool and a test, to begin with
    New {
        /// Its name: lowercase letters, digits and hyphens
        name: String,
        /// Into this folder, not into the project's `.omni/skills`
        #[arg(long, value_name = "DIR")]
        into: Option<PathBuf>,
    },
}

pub(super) async fn run(command: Skill, app: &App, screen: &Screen) -> Result<u8, Failure> {
    match command {
        Skill::List => list(&*app.manifest().await?, screen),
        Skill::Check => check(&*app.manifest_again().await, screen),
        Skill::Trust { name } => {
            app.catalog().trust(&name).map_err(failure)?;
            screen
                .remark(&format!("`{name}` may run as it is now; when it changes, you will be asked again"));
            Ok(code::OK)
        }
        Skill::Distrust { name } => {
            app.catalog().distrust(&name).map_err(failure)?;
            Ok(code::OK)
        }
        Skill::Install(install) => install::install(install, app, screen).await,
        Skill::Remove(remove) => install::remove(remove, app, screen).await,
        Skill::New { name, into } => new(&name, into, app, screen),
    }
}

fn list(manifest: &Manifest, screen: &Screen) -> Result<u8, Failure> {
    if screen.json {
        for skill in &manifest.skills {
            screen.value(skill)?;
        }
        return Ok(code::OK);
    }
    let width = manifest.skills.iter().map(|skill| skill.card.name.len()).max().unwrap_or(0);
    for skill in &manifest.skills {
        let about = skill.card.description.lines().next().unwrap_or_default();
        let count = match skill.tools.len() {
            1 => "1 tool".to_owned(),
            count => format!("{count} tools"),
        };
        screen.line(&format!(
            "{:width$}  {:9}  {count:8}  {about}",
            skill.card.name,
            skill.source.to_string()
        ))?;
    }
    for problem in manifest.problems() {
        screen.line(&told(problem))?;
    }
    Ok(code::OK)
}

fn check(manifest: &Manifest, screen: &Screen) -> Result<u8, Failure> {
    let problems: Vec<_> = manifest.problems().collect();
    for problem in &problems {
        if screen.json {
            screen.value(problem)?;
        } else {
            screen.line(&told(problem))?;
        }
    }
    let errors = problems.iter().filter(|problem| problem.is_error()).count();
    if errors > 0 {
        return Err(Failure::new(
            code::FAILED,
            format!("{errors} of {} problems keep something from working", problems.len()),
        ));
    }
    screen.remark(&format!("{} skills are fine", manifest.skills.len()));
    Ok(code::OK)
}

fn new(name: &str, into: Option<PathBuf>, app: &App, screen: &Screen) -> Result<u8, Failure> {
    let project = app.paths.project().join("skills");
    let folder = skill::create(name, into.as_deref().unwrap_or(&project)).map_err(failure)?;
    screen.line(&folder.display().to_string())?;
    if into.is_none() {
        // Written by the user's own command, so the user vouches for it.
        app.catalog().trust(name).map_err(failure)?;
    }
    screen.remark(&format!("try it: omni tool call {name}.greet '{{\"name\": \"Ada\"}}'"));
    Ok(code::OK)
}

/// A problem as compilers tell it.
pub(super) fn told(problem: &Problem) -> String {
    let line = problem.line.map(|line| format!(":{line}")).unwrap_or_default();
    let level = if problem.is_error() { "error" } else { "warning" };
    format!("{}{line}: {level}: {}", problem.file, problem.message)
}

pub(super) fn failure(error: skill::Error) -> Failure {
    Failure::new(code::FAILED, error.to_string())
}
