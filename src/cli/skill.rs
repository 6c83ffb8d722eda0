//! `omni skill`: what the assistant has learned to do.

use std::path::PathBuf;

use serde_json::json;

use super::error::{Failure, code};
use super::install::{self, Install, Remove};
use super::signal::Stop;
use super::ui::Screen;
use crate::app::App;
use crate::skill::build::Plan;
use crate::skill::manifest::Problem;
use crate::skill::{self, Engine, Extension, Manifest, Source};

/// List, check, build, install, trust and write skills.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Skill {
    /// List the skills there are, and what is wrong with them
    List,
    /// Read all skills anew, load their extensions, and show every problem with file and line
    Check,
    /// Build the extensions of skills that are not built
    ///
    /// A Rust extension is built by cargo, an executable by the command its `extension.toml` gives.
    /// What will run is shown, and unless it is built in you are asked, or say `--yes`.
    Build {
        /// The skill; all if none is named
        name: Option<String>,
        /// Build what is built already, too
        #[arg(long)]
        force: bool,
    },
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

pub(super) async fn run(command: Skill, app: &App, yes: bool, screen: &Screen) -> Result<u8, Failure> {
    match command {
        Skill::List => list(&*app.manifest().await?, screen),
        Skill::Check => check(app, screen).await,
        Skill::Build { name, force } => {
            let mut stop = Stop::listen()?;
            tokio::select! {
                done = build(name.as_deref(), force, app, yes, screen) => done,
                code = stop.told() => Ok(code),
            }
        }
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
        for extension in &skill.extensions {
            screen.line(&format!("{:width$}  {}", "", served(extension)))?;
        }
    }
    for problem in manifest.problems() {
        screen.line(&told(problem))?;
    }
    Ok(code::OK)
}

/// Which extension has which engine.
fn served(extension: &Extension) -> String {
    format!("extension {}: {}", extension.text.name, extension.engine())
}

async fn check(app: &App, screen: &Screen) -> Result<u8, Failure> {
    let manifest = app.manifest_again().await;
    let of_extensions = app.try_extensions(&manifest).await;
    let problems: Vec<_> = manifest.problems().chain(&of_extensions).collect();
    for skill in &manifest.skills {
        for extension in &skill.extensions {
            screen.remark(&format!("{}: {}", skill.card.name, served(extension)));
        }
    }
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

async fn build(
    name: Option<&str>,
    force: bool,
    app: &App,
    yes: bool,
    screen: &Screen,
) -> Result<u8, Failure> {
    let manifest = app.manifest().await?;
    if let Some(name) = name.filter(|name| manifest.skill(name).is_none()) {
        let untrusted = app.catalog().untrusted.iter().any(|found| found.name == name);
        let hint = match untrusted {
            true => format!("look at what it does, then run `omni skill trust {name}`"),
            false => "`omni skill list` shows those there are".to_owned(),
        };
        return Err(Failure::new(code::FAILED, format!("there is no skill `{name}` to build")).hint(hint));
    }
    let chosen = manifest.skills.iter().filter(|skill| name.is_none_or(|name| skill.card.name == name));
    let (mut built, mut failures) = (0, Vec::new());
    for skill in chosen {
        for extension in skill.extensions.iter().filter(|extension| force || extension.built.is_none()) {
            let Some(plan) = app.plan(skill, extension) else { continue };
            if let Some(reason) = extension.refusal() {
                screen.remark(&format!("{} is left out: {reason}", plan.title));
                continue;
            }
            match skill.source == Source::Builtin || yes {
                true => screen.remark(&told_plan(&plan)),
                false => consent(&plan, screen).await?,
            }
            match app.build(skill, extension, &plan).await {
                Ok(place) if screen.json => {
                    screen.value(
                        &json!({"skill": skill.card.name, "extension": extension.text.name, "place": place}),
                    )?;
                }
                Ok(place) => screen.line(&format!("built {} in {}", plan.title, place.display()))?,
                Err(error) => failures.push(error.to_string()),
            }
            built += 1;
        }
    }
    if !failures.is_empty() {
        return Err(Failure::new(code::FAILED, failures.join("\n")));
    }
    if built == 0 {
        screen.remark("there is nothing to build");
        return Ok(code::OK);
    }
    // What could not be imported without its extension can be now.
    let manifest = app.manifest_again().await;
    let nothing = |extension: &&Extension| matches!(extension.engine(), Engine::Nothing(_));
    let left = manifest.skills.iter().flat_map(|skill| &skill.extensions).filter(nothing).count();
    if left > 0 {
        screen.remark("`omni skill check` says what is still wrong");
    }
    Ok(code::OK)
}

fn told_plan(plan: &Plan) -> String {
    format!("{}: runs `{plan}` in {}", plan.title, plan.folder.display())
}

/// Asks whether a stranger's build may run.
async fn consent(plan: &Plan, screen: &Screen) -> Result<(), Failure> {
    let refused = |message: String| Failure::new(code::DENIED, message);
    let told = told_plan(plan);
    if screen.json || !std::io::IsTerminal::is_terminal(&std::io::stdin()) {
        let message = format!("{told}, which may do all you may do yourself");
        return Err(refused(message).hint("say `--yes` if you vouch for it"));
    }
    let question = format!("{told}\n  it may do all you may do yourself. Run it? [y]es, [n]o: ");
    let answer = screen.read(&question).await;
    match answer.as_deref().map(str::trim) {
        Some("y" | "yes") => Ok(()),
        _ => Err(refused(format!("{} was not built", plan.title))),
    }
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
