//! Jobs: the clock that runs them, and the tools that plan them.

use std::sync::Arc;

use futures::future::FutureExt;

use super::{App, Error, open_store};
use crate::clock::tools::{self, Tools};
use crate::clock::{Clock, Reach, Setting, webhook};
use crate::hub::Hub;
use crate::hub::budget::Calendar;
use crate::store::job::Jobs;
use crate::tool::Toolset;

impl App {
    /// The jobs in the database.
    pub async fn jobs(&self) -> Result<Jobs, Error> {
        Ok(Jobs::new(self.store().await?.clone()))
    }

    /// A clock that hands jobs to this hub.
    pub fn clock(&self, hub: Arc<Hub>, reach: Reach) -> Result<Arc<Clock>, Error> {
        let config = &self.config().jobs;
        let secret = config.webhook_secret.reveal();
        let secret =
            secret.map_err(|reason| Error::Secret { key: "jobs.webhook_secret".to_owned(), reason })?;
        let setting = Setting {
            tokens: config.tokens,
            calendar: Calendar::default(),
            output: self.paths.output(),
            webhook: webhook::Setting {
                secret: Some(secret).filter(|secret| !secret.is_empty()),
                hosts: config.webhook_hosts.clone(),
            },
        };
        Ok(Clock::new(hub, setting, reach, self.shutdown.clone()))
    }

    /// Runs the jobs of this folder, or those that are asked for in this process, until its end.
    pub fn attend(&self, hub: &Arc<Hub>, reach: Reach) -> Result<(), Error> {
        let clock = self.clock(hub.clone(), reach)?;
        self.shutdown.spawn(clock.run());
        Ok(())
    }

    /// The jobs' tools.
    pub(super) fn job_tools(&self) -> Arc<dyn Toolset> {
        let (store, url, data) =
            (self.store.clone(), self.config().store.url.clone(), self.paths.data.clone());
        let open: tools::Open = Arc::new(move || {
            let (store, url, data) = (store.clone(), url.clone(), data.clone());
            let open = async move {
                let store = open_store(&store, &url, &data).await.map_err(|error| error.to_string())?;
                Ok(Jobs::new(store.clone()))
            };
            open.boxed()
        });
        Arc::new(Tools::new(open))
    }
}
