//! Extensions of skills are built, and loaded to see whether they can be.

use std::path::PathBuf;

use super::App;
use crate::kernel::describe;
use crate::skill::build::{self, Plan};
use crate::skill::{Behind, Engine, Extension, Manifest, Problem, Request, Skill};

/// Why an extension was not built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be.
    #[error(transparent)]
    Build(#[from] build::Error),
    /// It was, and is of no use.
    #[error("what was built of `{title}` is of no use, and was not kept: {reason}")]
    Useless {
        /// Which one.
        title: String,
        /// Why.
        reason: String,
    },
}

impl App {
    /// How to build this extension, if it needs building.
    pub fn plan(&self, skill: &Skill, extension: &Extension) -> Option<Plan> {
        Plan::new(skill, extension, &self.paths.cache)
    }

    /// Builds an extension and keeps what comes of it if it can be loaded. Returns where it is.
    pub async fn build(&self, skill: &Skill, extension: &Extension, plan: &Plan) -> Result<PathBuf, Error> {
        let built = plan.run().await?;
        let mut engines = skill.engines();
        let behind = Behind { built: Some(built.folder()), refused: None };
        engines.insert(extension.text.name.clone(), behind);
        let request = Request { engines, ..request(skill, extension) };
        match self.describe(vec![request]).await.into_iter().next() {
            Some(problem) => Err(Error::Useless { title: plan.title.clone(), reason: problem.message }),
            None => Ok(built.keep()?),
        }
    }

    /// Loads the extensions of all skills in a process of its own, and says what is wrong.
    pub async fn try_extensions(&self, manifest: &Manifest) -> Vec<Problem> {
        let all =
            manifest.skills.iter().flat_map(|skill| skill.extensions.iter().map(move |one| (skill, one)));
        // Those that give nothing are among the problems of their skill already.
        let given = all.filter(|(_, extension)| !matches!(extension.engine(), Engine::Nothing(_)));
        self.describe(given.map(|(skill, extension)| request(skill, extension)).collect()).await
    }

    async fn describe(&self, requests: Vec<Request>) -> Vec<Problem> {
        let folders: Vec<_> = requests.iter().map(|request| request.folder.clone()).collect();
        let found = describe::describe(|| self.interpreter.again(), requests, describe::IMPORT).await;
        let problems = folders.into_iter().zip(found).flat_map(|(folder, description)| {
            description.problems.into_iter().map(move |problem| Problem {
                file: folder.join(&problem.file).to_string_lossy().into_owned(),
                ..problem
            })
        });
        problems.collect()
    }
}

fn request(skill: &Skill, extension: &Extension) -> Request {
    Request {
        skill: skill.card.name.clone(),
        folder: skill.folder.clone(),
        file: extension.file(),
        engines: skill.engines(),
        environment: skill.environment.clone(),
    }
}
