//! What came of a job, on its way to whoever wants to know.

use jiff::SignedDuration;

use super::{Clock, file, webhook};
use crate::store::job::{Deliver, Error, Job, Run};

/// How long it waits after each try before the next one; there is one more try than that.
const WAITS: [SignedDuration; 4] = [
    SignedDuration::from_secs(10),
    SignedDuration::from_mins(1),
    SignedDuration::from_mins(5),
    SignedDuration::from_mins(30),
];

/// Why somebody was not told.
pub(super) enum Failure {
    /// Another time it may work.
    Later(String),
    /// It will never work.
    Never(String),
}

impl Clock {
    /// One try to tell somebody. It is written down before it is made, so that there is an end to
    /// them, whatever happens in the middle of one.
    pub(super) async fn delivered(&self, job: &Job, run: &Run) -> Result<(), Error> {
        let wait = WAITS.get(run.tries as usize);
        let again = self.now().checked_add(wait.copied().unwrap_or(WAITS[0])).unwrap_or(self.now());
        if !self.jobs().tries(run, again).await? {
            return Ok(());
        }
        let outcome = match &job.deliver {
            Deliver::Nobody => Ok(()),
            Deliver::Chat(session) => self.hub.report(session, job, run).await.map_err(Failure::Later),
            Deliver::File(path) => {
                let zone = self.setting.calendar.zone.clone();
                file::write(&self.setting.output, path, run, &zone).await.map_err(Failure::Later)
            }
            Deliver::Webhook(url) => webhook::post(&self.setting.webhook, url, job, run, self.now()).await,
        };
        let (outcome, last) = match outcome {
            Ok(()) => (Ok(()), true),
            Err(Failure::Later(why)) => (Err(why), wait.is_none()),
            Err(Failure::Never(why)) => (Err(why), true),
        };
        if let Err(why) = &outcome {
            tracing::warn!(job = job.id, run = run.id, "{} was not told: {why}", job.deliver);
        }
        self.jobs().told(&run.id, &outcome, last).await
    }
}
