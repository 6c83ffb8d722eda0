//! The zygotes: one without packages, and one for each environment that is in use.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::Program;
use super::zygote::Zygote;

/// Zygotes that are kept. Beyond them the one that was not used for longest ends.
const MOST: usize = 8;

/// The packages of a skill, as its workers find them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kernel) struct Environment {
    /// Where they are.
    pub(in crate::kernel) folder: PathBuf,
    /// Modules that its scripts import.
    pub(in crate::kernel) modules: Vec<String>,
}

pub(super) struct Zygotes {
    program: Program,
    /// The one that was used last is the last.
    nests: Mutex<Vec<Arc<Nest>>>,
}

/// The place of one zygote, whether it lives or not.
struct Nest {
    environment: Option<Environment>,
    zygote: tokio::sync::Mutex<Option<Arc<Zygote>>>,
}

impl Zygotes {
    pub(super) fn new(program: Program) -> Self {
        Self { program, nests: Mutex::default() }
    }

    /// The zygote of an environment; started at the first call, and again when it has died.
    pub(super) async fn get(&self, environment: Option<&Environment>) -> Result<Arc<Zygote>, String> {
        let nest = self.nest(environment);
        let known = nest.zygote.try_lock().ok().and_then(|zygote| zygote.clone());
        if let Some(zygote) = known.filter(|zygote| zygote.lives()) {
            return Ok(zygote);
        }
        // Goes on when the call that waits for it is cancelled: the next one has it then.
        let program = self.program.clone();
        let started = tokio::spawn(async move { nest.zygote(&program).await });
        started.await.unwrap_or_else(|panic| Err(panic.to_string()))
    }

    fn nest(&self, environment: Option<&Environment>) -> Arc<Nest> {
        let mut nests = self.nests.lock().expect("no panic while held");
        let folder = |environment: Option<&Environment>| environment.map(|at| at.folder.clone());
        let known = nests.iter().position(|nest| folder(nest.environment.as_ref()) == folder(environment));
        let nest = match known {
            Some(place) => nests.remove(place),
            None => {
                Arc::new(Nest { environment: environment.cloned(), zygote: tokio::sync::Mutex::default() })
            }
        };
        nests.push(nest.clone());
        if nests.len() > MOST {
            // Calls in its workers end as they began; the last worker takes it along.
            if let Ok(Some(zygote)) = nests.remove(0).zygote.try_lock().as_deref() {
                zygote.retire();
            }
        }
        nest
    }
}

impl Nest {
    async fn zygote(&self, program: &Program) -> Result<Arc<Zygote>, String> {
        let mut place = self.zygote.lock().await;
        if let Some(zygote) = place.as_ref().filter(|zygote| zygote.lives()) {
            return Ok(zygote.clone());
        }
        let zygote = Arc::new(self.start(program).await?);
        *place = Some(zygote.clone());
        Ok(zygote)
    }

    async fn start(&self, program: &Program) -> Result<Zygote, String> {
        let environment = self.environment.as_ref();
        let started = Zygote::start(program()?, environment).await;
        match (started, environment) {
            (Err(reason), Some(at)) if !at.modules.is_empty() => {
                tracing::warn!(target: "kernel", "{reason}; once more, importing nothing beforehand");
                let plain = Environment { modules: Vec::new(), ..at.clone() };
                Zygote::start(program()?, Some(&plain)).await
            }
            (started, _) => started,
        }
    }
}
