//! What came of jobs, told to the chats that want to know.
//!
//! The hub has added it to the conversation; here it is kept for the chat in the transaction that says it was, so it
//! is told once.

use jiff::Timestamp;

use super::Telegram;
use super::access::Access;
use super::format;
use super::update::Spot;
use crate::hub::report::said;
use crate::store::job::{Error, Job, Run};

impl Telegram {
    /// Tells results as they come.
    pub(super) async fn report(&self) {
        let mut changed = self.hub.jobs().changed();
        loop {
            changed.mark_unchanged();
            if let Err(error) = self.unread().await {
                tracing::warn!("what came of jobs is told later: {error}");
            }
            // Those of other processes are not heard of.
            let _ = tokio::time::timeout(super::LOOK, changed.changed()).await;
        }
    }

    async fn unread(&self) -> Result<(), Error> {
        let (jobs, prefix) = (self.hub.jobs(), self.sessions());
        let unread = jobs.unread(&prefix).await?;
        if unread.is_empty() {
            return Ok(());
        }
        let access = Access::read(&self.config, &self.mail).await?;
        for (session, job, run) in unread {
            // Whoever may no longer talk is told no more, either.
            let spot = Spot::of_lane(&session[prefix.len()..]).filter(|spot| access.admits(*spot, spot.chat));
            self.told(spot, &job, &run).await?;
        }
        Ok(())
    }

    async fn told(&self, spot: Option<Spot>, job: &Job, run: &Run) -> Result<(), Error> {
        let text = said(job, run);
        let turn = format!("job.{}", run.id);
        let mut parcels = Vec::new();
        if let Some(spot) = spot {
            parcels = self.texts(spot, &turn, format::messages(&text), None, false);
            parcels.extend(self.files(spot, &turn, &text, None));
        }
        let mut write = self.mail.store().write().await?;
        self.hub.jobs().read(&mut write, &run.id).await?;
        self.mail.add(&mut write, &parcels, Timestamp::now()).await?;
        write.commit().await?;
        self.outbox.hurry();
        Ok(())
    }
}
