//! The memory is opened when it is first needed: a list of tools must not open a database.

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt, TryFutureExt};

use super::{App, Error, open_store};
use crate::llm::embed::Embedder;
use crate::llm::encoder::Shelf;
use crate::llm::{self, detect};
use crate::memory::tools::{self, Tools};
use crate::memory::{self, Memory};
use crate::tool::Toolset;
use crate::tool::meaning::Meanings;

impl App {
    /// What was learned, whether or not turns use it.
    pub async fn memory(&self) -> Result<Arc<Memory>, Error> {
        (self.memory_opener())().await
    }

    /// Opens the memory when it is first needed.
    fn memory_opener(&self) -> impl Fn() -> BoxFuture<'static, Result<Arc<Memory>, Error>> + use<> {
        let (store, memory) = (self.store.clone(), self.memory.clone());
        let (url, data) = (self.config().store.url.clone(), self.paths.data.clone());
        let settings = memory::Settings::from(&self.config().memory);
        let embedder = self.embedder();
        move || {
            let (store, memory) = (store.clone(), memory.clone());
            let (url, data, embedder) = (url.clone(), data.clone(), embedder.clone());
            Box::pin(async move {
                let make = || async {
                    let store = open_store(&store, &url, &data).await?.clone();
                    let memory = Memory::new(store, &data, settings);
                    Ok::<_, Error>(Arc::new(match embedder? {
                        Some(embedder) => memory.with_embedder(embedder),
                        None => memory,
                    }))
                };
                memory.get_or_try_init(make).await.cloned()
            })
        }
    }

    /// What tools mean to the same encoder, unless the memory is switched off.
    pub(super) fn meanings(&self) -> Option<Arc<Meanings>> {
        let embedder = self.config().memory.enabled.then(|| self.embedder().ok().flatten()).flatten()?;
        let identity = embedder.identity().to_owned();
        let encode = move |texts: Vec<String>| {
            let embedder = embedder.clone();
            async move {
                let said = embedder.embed(&texts).await;
                said.inspect_err(|error| tracing::warn!("tools are found by words alone: {error}")).ok()
            }
            .boxed()
        };
        Some(Arc::new(Meanings::new(&identity, &self.paths.cache, Arc::new(encode))))
    }

    /// What turns texts into vectors, if that is configured. It is the same one for all.
    pub fn embedder(&self) -> Result<Option<Arc<dyn Embedder>>, llm::Error> {
        self.embedder.get_or_init(|| self.found_embedder()).clone()
    }

    fn found_embedder(&self) -> Result<Option<Arc<dyn Embedder>>, llm::Error> {
        let config = self.config();
        match config.memory.encoder.trim() {
            "" => Ok(None),
            name if !name.contains('/') => Ok(Some(Arc::new(self.encoders().open(name)?))),
            name => {
                let environment = |name: &str| std::env::var(name).ok();
                let embedder = detect::embedder(name, &config.model, &config.provider, &environment)?;
                Ok(Some(Arc::new(embedder)))
            }
        }
    }

    /// The encoders that are installed on this machine.
    pub fn encoders(&self) -> Shelf {
        Shelf::new(&self.paths.data)
    }

    /// The memory's tools, unless it is switched off.
    pub(super) fn memory_tools(&self) -> Option<Arc<dyn Toolset>> {
        let open = self.memory_opener();
        let open: tools::Open = Arc::new(move || open().map_err(|error| error.to_string()).boxed());
        let tools = || Arc::new(Tools::new(open)) as Arc<dyn Toolset>;
        self.config().memory.enabled.then(tools)
    }
}
