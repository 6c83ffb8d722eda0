//! What a job came to, put into the conversation that wants to know.

use jiff::Timestamp;

use super::Hub;
use crate::message::Message;
use crate::session::Entry;
use crate::store::job::{Job, Run};

impl Hub {
    /// Adds the result of a run to a session, once, when no turn goes on there: a message that says
    /// what it is, and the answer. The session is begun if there is none.
    pub async fn report(&self, session: &str, job: &Job, run: &Run) -> Result<(), String> {
        let told = |error: &dyn std::fmt::Display| error.to_string();
        let id = self.session(session).await.map_err(|error| told(&error))?;
        let lane = self.lane(&id);
        let cancel = self.shutdown.signal();
        let _alone = tokio::select! {
            alone = lane.turn.lock() => alone,
            () = cancel.cancelled() => return Err("omni is about to stop".to_owned()),
        };
        let lease = self.claim(&id, cancel, &|_| ()).await;
        let lease =
            lease.map_err(|finished| finished.error.unwrap_or_else(|| "omni is about to stop".to_owned()))?;
        let added = self.exchange(&id, job, run).await;
        if let Err(error) = crate::store::lease::release(&self.store, &lease).await {
            tracing::warn!(session = id, "the lease of a session stays until it ends: {error}");
        }
        added
    }

    async fn exchange(&self, id: &str, job: &Job, run: &Run) -> Result<(), String> {
        let note = format!("[note from omni: the job {} has ended; its task was: {}]", job.id, job.task);
        let messages = [Message::user(note), Message::assistant(said(job, run))];
        let entries: Vec<Entry> = messages.into_iter().map(Entry::Message).collect();
        let now = Timestamp::now();
        let mut session = self.sessions.open(id).await.map_err(|error| error.to_string())?;
        let mut write = self.sessions.begin().await.map_err(|error| error.to_string())?;
        let added = self.sessions.add(&mut write, &session, &run.id, &entries, now).await;
        added.map_err(|error| error.to_string())?;
        if !self.jobs.told_chat(&mut write, &run.id, id).await.map_err(|error| error.to_string())? {
            // Somebody else was faster; what was added goes with the transaction.
            return Ok(());
        }
        self.sessions.commit(write, &mut session, entries, now).await.map_err(|error| error.to_string())
    }
}

/// A result as it is told to people.
pub fn said(job: &Job, run: &Run) -> String {
    let Job { id, name, .. } = job;
    match (run.error.is_empty(), run.output.trim()) {
        (true, "") => format!("The job {id} ({name}) is done, without a word."),
        (true, output) => format!("The job {id} ({name}) is done:\n\n{output}"),
        (false, "") => format!("The job {id} ({name}) failed: {}", run.error),
        (false, output) => format!("The job {id} ({name}) failed: {}\n\n{output}", run.error),
    }
}
