//! Edited skills are taken up while the program runs.
//!
//! A change is heard of, what it touched is described in a process of its own, and then the
//! kernel's tools are replaced between two calls. An edit that breaks a skill replaces nothing:
//! the log, `omni skill list` and `omni skill check` say what is wrong with it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use super::{App, Error};
use crate::config::{self, Paths};
use crate::kernel::guide::Guide;
use crate::kernel::{Changes, Interpreter, Kernel, describe, interpreter};
use crate::skill::watch::Watcher;
use crate::skill::{self, Catalog, Environments, Index, Manifest, Problem, Source};
use crate::tool::schema::Checker;

impl App {
    /// Takes up edits of skills from now on, until the program ends. It comes before whatever
    /// else needs tools, so that their code is kept as it was when they were listed.
    pub async fn watch(&self) -> Result<(), Error> {
        let skills = self.config().skills.clone();
        let extra = self.choices.skills.clone();
        // It hears from here on, so an edit while the rest is made ready is none too early.
        let mut watcher = match Watcher::new(skill::places(&self.paths, &skills, &extra)) {
            Ok(watcher) => watcher,
            Err(error) => {
                tracing::warn!("edited skills are taken up at the next start only: {error}");
                return Ok(());
            }
        };
        let mut manifest = Manifest::clone(&*self.manifest().await?);
        vet(&mut manifest);
        hold(&mut manifest, &Manifest::default());
        let kernel = self.kernel.get_or_try_init(|| async { self.kernel_of(&manifest) }).await?.clone();
        let mut reload = Reload {
            paths: self.paths.clone(),
            skills,
            extra,
            interpreter: self.interpreter,
            kernel,
            guide: self.guide().await?,
            listed: self.listed.clone(),
            told: manifest.problems().map(ToString::to_string).collect(),
            manifest,
        };
        let stop = self.shutdown.signal().clone();
        let work = async move {
            loop {
                watcher.changed().await;
                reload.once().await;
            }
        };
        self.shutdown.spawn(async move { stop.run_until_cancelled(work).await });
        Ok(())
    }
}

/// What edits are taken up with.
struct Reload {
    paths: Paths,
    skills: config::Skills,
    extra: Vec<PathBuf>,
    interpreter: Interpreter,
    kernel: Arc<Kernel>,
    guide: Arc<Guide>,
    listed: watch::Sender<()>,
    /// What is served.
    manifest: Manifest,
    /// Problems that are in the log already.
    told: BTreeSet<String>,
}

impl Reload {
    /// Looks at the skills and takes up what has changed.
    async fn once(&mut self) {
        let catalog = Catalog::find(&self.paths, &self.skills, &self.extra);
        let environments = Environments::new(&self.paths, interpreter::python());
        let index = Index::new(&self.paths.cache, interpreter::identity());
        let index = index.within(&self.paths.workspace).with(environments).by_content();
        let describe = |requests| describe::describe(|| self.interpreter.again(), requests, describe::IMPORT);
        let mut found = index.load_or_build(&catalog, describe).await;
        vet(&mut found);
        self.manifest.skills.retain(|skill| !catalog.is_withdrawn(&skill.folder));
        let mut manifest = found.keeping(&self.manifest);
        hold(&mut manifest, &self.manifest);
        self.tell(&manifest);
        self.serve(manifest).await;
    }

    /// Logs what is wrong, once.
    fn tell(&mut self, manifest: &Manifest) {
        let problems: BTreeSet<String> = manifest.problems().map(ToString::to_string).collect();
        for problem in problems.difference(&self.told) {
            tracing::warn!("a skill has a problem: {problem}");
        }
        self.told = problems;
    }

    async fn serve(&mut self, manifest: Manifest) {
        let changes = self.kernel.replace(&manifest).await;
        let guide = self.guide.replace(&manifest);
        self.manifest = manifest;
        let Changes { added, removed, altered, skills } = &changes;
        if !skills.is_empty() {
            tracing::info!(?skills, ?added, ?removed, ?altered, "edited skills were taken up");
        }
        if changes.are_listed() || guide {
            self.listed.send_replace(());
        }
    }
}

/// Leaves out the tools that could never be called.
fn vet(manifest: &mut Manifest) {
    for skill in manifest.skills.iter_mut().filter(|skill| skill.source != Source::Builtin) {
        let problems = &mut skill.problems;
        skill.tools.retain(|tool| {
            let Err(reason) = Checker::new(&tool.spec.input) else { return true };
            let file = skill.folder.join(&tool.file).to_string_lossy().into_owned();
            problems.push(Problem::error(file, Some(tool.line), reason));
            false
        });
    }
}

/// Reads the code of skills that people write, so that a version is one thing however its files
/// change. A skill that has changed since it was described stays as it was `before`: that change
/// will be heard of.
fn hold(manifest: &mut Manifest, before: &Manifest) {
    for skill in &mut manifest.skills {
        let old = before.skill(&skill.card.name);
        let same = |old: &skill::Skill| old.folder == skill.folder && old.digest == skill.digest;
        match old {
            Some(old) if same(old) => skill.sources = old.sources.clone(),
            // Those inside the program do not change.
            _ if skill.source == Source::Builtin => {}
            Some(old) if !skill.hold() => *skill = old.clone(),
            Some(_) => {}
            None => drop(skill.hold()),
        }
    }
}
