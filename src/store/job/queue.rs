//! What is due, who does it, and how it ended.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::Row;

use super::row::{job, milliseconds, path_text, run};
use super::{Deliver, Delivery, Error, Job, Jobs, Overlap, Run, Stage, State};
use crate::schedule::Schedule;
use crate::store::Write;
use crate::store::lease::{self, Acquired, Lease, Owner};

/// How long a run stays with a process that says nothing.
pub const LEASE: Duration = Duration::from_secs(10);
/// How long a process that runs the jobs of a folder is taken for alive without a sign.
const PRESENCE: Duration = Duration::from_secs(30);
/// Runs of one job that wait; of [`Overlap::Queue`], more are left out.
const QUEUE: i64 = 8;
/// How often a run is begun, if processes are killed in the middle of it.
const ATTEMPTS: u32 = 3;
/// Runs of a job that are kept.
const KEPT: i64 = 50;
/// Bytes of a result that are kept.
const OUTPUT: usize = 1 << 20;
/// Rows that are looked at in one go.
const PAGE: i64 = 64;

/// What there is to do in a folder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outlook {
    /// When the next job is due.
    pub next: Option<Timestamp>,
    /// Runs that wait or go on.
    pub live: u64,
    /// When the next result is to be delivered.
    pub again: Option<Timestamp>,
}

/// A run that is ours to do.
#[derive(Debug, Clone)]
pub struct Taken {
    /// Its job.
    pub job: Job,
    /// The run.
    pub run: Run,
    /// Holds the job; to be renewed.
    pub lease: Lease,
}

/// How a run ended.
#[derive(Debug, Clone, Default)]
pub struct Ending {
    /// What came of it.
    pub output: String,
    /// What went wrong, if it did.
    pub error: Option<String>,
    /// Whether somebody wanted it to end.
    pub is_cancelled: bool,
    /// Tokens it took.
    pub tokens: u64,
}

impl Jobs {
    /// What there is to do in a folder; one look, for those who look every second.
    pub async fn outlook(&self, workspace: &Path) -> Result<Outlook, Error> {
        let query = sqlx::query(
            "SELECT \
             (SELECT COALESCE(MIN(next), 0) FROM job WHERE workspace = $1 AND state = 'active' AND next > 0) AS next, \
             (SELECT COUNT(*) FROM job_run WHERE workspace = $1 AND state IN ('queued', 'running')) AS live, \
             (SELECT COALESCE(MIN(again), 0) FROM job_run WHERE workspace = $1 AND delivery = 'pending') AS again",
        );
        let rows = self.rows(query.bind(path_text(workspace))).await?;
        let number =
            |column| rows.first().and_then(|row| row.try_get::<i64, _>(column).ok()).unwrap_or_default();
        let time = |column| match number(column) {
            0 => None,
            milliseconds => Timestamp::from_millisecond(milliseconds).ok(),
        };
        Ok(Outlook { next: time("next"), live: number("live").unsigned_abs(), again: time("again") })
    }

    /// Whether there is something left to do of what was made or begun here.
    pub async fn has_own(&self) -> Result<bool, Error> {
        let own = self.shared.own.lock().expect("no panic while held").clone();
        let mut done = Vec::new();
        for id in own {
            let query = sqlx::query(
                "SELECT (SELECT COUNT(*) FROM job WHERE id = $1 AND state = 'active') + \
                 (SELECT COUNT(*) FROM job_run WHERE (job = $1 OR id = $1) \
                 AND (state IN ('queued', 'running') OR delivery = 'pending'))",
            );
            let rows = self.rows(query.bind(id.clone())).await?;
            let count = rows.first().and_then(|row| row.try_get::<i64, _>(0).ok());
            done.extend(count.filter(|count| *count == 0).map(|_| id));
        }
        let mut own = self.shared.own.lock().expect("no panic while held");
        own.retain(|id| !done.contains(id));
        Ok(!own.is_empty())
    }

    /// Gives every job that is due a run, one even if it was due several times, and its next time.
    /// Of several processes that do this at once, one does it. Left out is what is not `wanted`.
    pub async fn fall_due(
        &self,
        workspace: &Path,
        wanted: &(dyn Fn(&str) -> bool + Sync),
        now: Timestamp,
    ) -> Result<(), Error> {
        let query = sqlx::query(
            "SELECT * FROM job WHERE workspace = $1 AND state = 'active' AND next > 0 AND next <= $2 \
             ORDER BY next, id LIMIT $3",
        );
        for row in self.rows(query.bind(path_text(workspace)).bind(now.as_millisecond()).bind(PAGE)).await? {
            match job(&row) {
                Ok(job) if !wanted(&job.id) => {}
                Ok(job) => self.fell_due(&job, now).await?,
                Err(error) => self.spoiled(&row, &error).await?,
            }
        }
        Ok(())
    }

    async fn fell_due(&self, job: &Job, now: Timestamp) -> Result<(), Error> {
        let due = job.next.unwrap_or(now);
        let next = match job.schedule {
            Schedule::Once { .. } => None,
            _ => job.schedule.next(now.max(due)),
        };
        let state = if next.is_some() { State::Active } else { State::Over };
        let mut write = self.store.write().await?;
        let moved = sqlx::query(
            "UPDATE job SET next = $3, state = $4, updated = $5 WHERE id = $1 AND next = $2 AND state = 'active'",
        );
        let moved = moved.bind(job.id.clone()).bind(milliseconds(job.next)).bind(milliseconds(next));
        if self.execute(&mut write, moved.bind(state.word()).bind(now.as_millisecond())).await? == 0 {
            return Ok(());
        }
        let live =
            sqlx::query("SELECT COUNT(*) FROM job_run WHERE job = $1 AND state IN ('queued', 'running')");
        let live = self.number(&mut write, live.bind(job.id.clone())).await?;
        let most = match job.overlap {
            Overlap::Skip => 0,
            Overlap::Queue => QUEUE,
        };
        match live > most {
            true => {
                let skip = sqlx::query("UPDATE job SET skipped = skipped + 1 WHERE id = $1");
                self.execute(&mut write, skip.bind(job.id.clone())).await?;
            }
            false => drop(self.queue(&mut write, job, due).await?),
        }
        write.commit().await?;
        Ok(())
    }

    /// A job that cannot be read must not be looked at every second.
    async fn spoiled(&self, row: &sqlx::any::AnyRow, error: &Error) -> Result<(), Error> {
        tracing::error!("a job is paused: {error}");
        let Ok(id) = row.try_get::<String, _>("id") else { return Ok(()) };
        let pause = sqlx::query("UPDATE job SET state = 'paused' WHERE id = $1");
        self.store.once(pause.bind(id)).await?;
        Ok(())
    }

    /// Gives a job a run now, whatever its schedule says. Returns its id.
    pub async fn hasten(&self, job: &Job, now: Timestamp) -> Result<String, Error> {
        let mut write = self.store.write().await?;
        let live =
            sqlx::query("SELECT COUNT(*) FROM job_run WHERE job = $1 AND state IN ('queued', 'running')");
        if self.number(&mut write, live.bind(job.id.clone())).await? > 0 {
            return Err(Error::Wrong(format!("the job `{}` goes on already", job.id)));
        }
        let id = self.queue(&mut write, job, now).await?;
        write.commit().await?;
        self.shared.own.lock().expect("no panic while held").push(id.clone());
        self.nudge();
        Ok(id)
    }

    async fn queue(&self, write: &mut Write, job: &Job, due: Timestamp) -> Result<String, Error> {
        let id = uuid::Uuid::now_v7().simple().to_string();
        let insert = sqlx::query(
            "INSERT INTO job_run (id, job, workspace, session, state, due, attempt, owner, wish, began, ended, output, \
             error, tokens, delivery, tries, again, refusal, unread) \
             VALUES ($1, $2, $3, '', 'queued', $4, 0, '', 0, 0, 0, '', '', 0, 'none', 0, 0, '', '')",
        );
        let insert = insert.bind(id.clone()).bind(job.id.clone()).bind(path_text(&job.workspace));
        self.execute(write, insert.bind(due.as_millisecond())).await?;
        Ok(id)
    }

    /// Runs that wait, the one that was due first first.
    pub async fn queued(&self, workspace: &Path) -> Result<Vec<Run>, Error> {
        self.at(workspace, Stage::Queued).await
    }

    /// Runs that go on, or did when their process was killed.
    pub async fn running(&self, workspace: &Path) -> Result<Vec<Run>, Error> {
        self.at(workspace, Stage::Running).await
    }

    async fn at(&self, workspace: &Path, stage: Stage) -> Result<Vec<Run>, Error> {
        let query = sqlx::query(
            "SELECT * FROM job_run WHERE workspace = $1 AND state = $2 ORDER BY due, id LIMIT $3",
        );
        let query = query.bind(path_text(workspace)).bind(stage.word()).bind(PAGE);
        self.rows(query).await?.iter().map(run).collect()
    }

    /// Takes a run that waits. `None`: its job goes on, here or elsewhere.
    pub async fn take(&self, run: &Run, owner: &Owner, now: Timestamp) -> Result<Option<Taken>, Error> {
        let Acquired::Mine(lease) = lease::acquire(&self.store, &held(&run.job), owner, LEASE, now).await?
        else {
            return Ok(None);
        };
        let took = self.took(run, owner, now).await;
        match took {
            Ok(Some((job, run))) => Ok(Some(Taken { job, run, lease })),
            other => {
                lease::release(&self.store, &lease).await?;
                other.map(|_| None)
            }
        }
    }

    async fn took(&self, run: &Run, owner: &Owner, now: Timestamp) -> Result<Option<(Job, Run)>, Error> {
        let job = self.find(&run.job).await?;
        let session = match job.task {
            super::Task::Ask { .. } => format!("job:{}:{}", job.id, run.id),
            super::Task::Call { .. } => String::new(),
        };
        let mut write = self.store.write().await?;
        let update = sqlx::query(
            "UPDATE job_run SET state = 'running', attempt = attempt + 1, owner = $2, began = $3, session = $4 \
             WHERE id = $1 AND state = 'queued'",
        );
        let update = update.bind(run.id.clone()).bind(owner.as_str()).bind(now.as_millisecond());
        let took = self.execute(&mut write, update.bind(session.clone())).await?;
        write.commit().await?;
        let attempt = run.attempt + 1;
        let run = Run { session, state: Stage::Running, attempt, began: Some(now), ..run.clone() };
        Ok((took == 1).then_some((job, run)))
    }

    /// Gives a run whose process was killed back to those that wait, or ends it when that has
    /// happened too often. Returns whether it was such a run.
    pub async fn inherit(&self, run: &Run, owner: &Owner, now: Timestamp) -> Result<bool, Error> {
        let Acquired::Mine(lease) = lease::acquire(&self.store, &held(&run.job), owner, LEASE, now).await?
        else {
            return Ok(false);
        };
        let inherited = match run.attempt < ATTEMPTS {
            true => self.put_back(run, run.attempt).await,
            false => {
                let error = format!("the program was killed {} times in the middle of it", run.attempt);
                self.end(run, &Ending { error: Some(error), ..Ending::default() }, now).await
            }
        };
        lease::release(&self.store, &lease).await?;
        inherited
    }

    /// Has a run wait again, as if it had been begun so often.
    async fn put_back(&self, run: &Run, attempts: u32) -> Result<bool, Error> {
        let mut write = self.store.write().await?;
        // Who wanted it to end has what they wanted.
        let cancelled = sqlx::query(
            "UPDATE job_run SET state = 'cancelled', ended = began \
             WHERE id = $1 AND attempt = $2 AND state = 'running' AND wish = 1",
        );
        let cancelled = cancelled.bind(run.id.clone()).bind(i64::from(run.attempt));
        self.execute(&mut write, cancelled).await?;
        let back = sqlx::query(
            "UPDATE job_run SET state = 'queued', owner = '', attempt = $3 \
             WHERE id = $1 AND attempt = $2 AND state = 'running'",
        );
        let back = back.bind(run.id.clone()).bind(i64::from(run.attempt)).bind(i64::from(attempts));
        let back = self.execute(&mut write, back).await?;
        write.commit().await?;
        Ok(back == 1)
    }

    /// Keeps a run that goes on. `None`: another process has it now.
    pub async fn keep(&self, lease: &Lease, now: Timestamp) -> Result<Option<Lease>, Error> {
        Ok(lease::renew(&self.store, lease, LEASE, now).await?)
    }

    /// Whether somebody wants the run to end.
    pub async fn wished(&self, run: &str) -> Result<bool, Error> {
        let query = sqlx::query("SELECT wish FROM job_run WHERE id = $1 AND wish = 1");
        Ok(!self.rows(query.bind(run.to_owned())).await?.is_empty())
    }

    /// Ends a run that was taken, and gives its job free.
    pub async fn ended(&self, taken: &Taken, ending: &Ending, now: Timestamp) -> Result<(), Error> {
        self.end(&taken.run, ending, now).await?;
        lease::release(&self.store, &taken.lease).await?;
        self.nudge();
        Ok(())
    }

    /// Leaves a run to the next process. That is no attempt that failed.
    pub async fn leave(&self, taken: &Taken) -> Result<(), Error> {
        self.put_back(&taken.run, taken.run.attempt.saturating_sub(1)).await?;
        Ok(lease::release(&self.store, &taken.lease).await?)
    }

    async fn end(&self, run: &Run, ending: &Ending, now: Timestamp) -> Result<bool, Error> {
        let job = self.find(&run.job).await?;
        let stage = match (ending.is_cancelled, &ending.error) {
            (true, _) => Stage::Cancelled,
            (false, Some(_)) => Stage::Failed,
            (false, None) => Stage::Done,
        };
        let delivery = match (&job.deliver, stage) {
            (Deliver::Nobody, _) | (_, Stage::Cancelled) => Delivery::None,
            _ => Delivery::Pending,
        };
        let mut write = self.store.write().await?;
        let update = sqlx::query(
            "UPDATE job_run SET state = $3, output = $4, error = $5, tokens = $6, ended = $7, delivery = $8, again = $7 \
             WHERE id = $1 AND state = 'running' AND attempt = $2",
        );
        let update = update.bind(run.id.clone()).bind(i64::from(run.attempt)).bind(stage.word());
        let update = update.bind(fit(&ending.output)).bind(fit(ending.error.as_deref().unwrap_or_default()));
        let update = update.bind(i64::try_from(ending.tokens).unwrap_or(i64::MAX)).bind(now.as_millisecond());
        let ended = self.execute(&mut write, update.bind(delivery.word())).await?;
        self.shorten(&mut write, &run.job, KEPT).await?;
        write.commit().await?;
        Ok(ended == 1)
    }

    /// Results that are to be delivered now, the oldest first, with how often that was tried.
    pub async fn mail(&self, workspace: &Path, now: Timestamp) -> Result<Vec<(Job, Run)>, Error> {
        let query = sqlx::query(
            "SELECT * FROM job_run WHERE workspace = $1 AND delivery = 'pending' AND again <= $2 \
             ORDER BY ended, id LIMIT $3",
        );
        let query = query.bind(path_text(workspace)).bind(now.as_millisecond()).bind(PAGE);
        let mut mail = Vec::new();
        for row in self.rows(query).await? {
            let run = run(&row)?;
            mail.push((self.find(&run.job).await?, run));
        }
        Ok(mail)
    }

    /// Takes note of a try before it is made; it is tried again at `again` unless it works. `false`:
    /// another process tries.
    pub async fn tries(&self, run: &Run, again: Timestamp) -> Result<bool, Error> {
        let update = sqlx::query(
            "UPDATE job_run SET tries = tries + 1, again = $3 WHERE id = $1 AND tries = $2 AND delivery = 'pending'",
        );
        let update = update.bind(run.id.clone()).bind(i64::from(run.tries)).bind(again.as_millisecond());
        Ok(self.store.once(update).await? == 1)
    }

    /// Takes note that somebody was told, or why not; `last` says that it is not tried again.
    pub async fn told(&self, run: &str, outcome: &Result<(), String>, last: bool) -> Result<(), Error> {
        let mut write = self.store.write().await?;
        self.telling(&mut write, run, outcome, last).await?;
        write.commit().await?;
        self.nudge();
        Ok(())
    }

    async fn telling(
        &self,
        write: &mut Write,
        run: &str,
        outcome: &Result<(), String>,
        last: bool,
    ) -> Result<(), Error> {
        let delivery = match (outcome, last) {
            (Ok(()), _) => Delivery::Done,
            (Err(_), true) => Delivery::Failed,
            (Err(_), false) => Delivery::Pending,
        };
        let update = sqlx::query(
            "UPDATE job_run SET delivery = $2, refusal = $3 WHERE id = $1 AND delivery = 'pending'",
        );
        let refusal = outcome.as_ref().err().map(|refusal| fit(refusal)).unwrap_or_default();
        self.execute(write, update.bind(run.to_owned()).bind(delivery.word()).bind(refusal)).await?;
        Ok(())
    }

    /// The same for a chat, in the transaction that adds it to the chat's session: it is there
    /// once. `false`: it is there already.
    pub async fn told_chat(&self, write: &mut Write, run: &str, session: &str) -> Result<bool, Error> {
        let update = sqlx::query(
            "UPDATE job_run SET delivery = 'done', refusal = '', unread = $2 WHERE id = $1 AND delivery = 'pending'",
        );
        let update = update.bind(run.to_owned()).bind(session.to_owned());
        Ok(self.execute(write, update).await? == 1)
    }

    /// Says that this process runs the jobs of a folder, so that others can tell. It is not taken back:
    /// a process that has ended is known to have, and one of another machine is for as long as this lasts.
    pub async fn present(&self, workspace: &Path, owner: &Owner, now: Timestamp) -> Result<(), Error> {
        lease::acquire(&self.store, &presence(workspace), owner, PRESENCE, now).await?;
        Ok(())
    }

    /// Whether a process runs the jobs of a folder.
    pub async fn is_attended(&self, workspace: &Path, now: Timestamp) -> Result<bool, Error> {
        let query = sqlx::query("SELECT owner FROM lease WHERE name = $1 AND expires > $2");
        let rows = self.rows(query.bind(presence(workspace)).bind(now.as_millisecond())).await?;
        let owner = rows.first().and_then(|row| row.try_get::<String, _>(0).ok());
        Ok(owner.is_some_and(|owner| !Owner::named(&owner).is_dead()))
    }
}

fn held(job: &str) -> String {
    format!("job:{job}")
}

fn presence(workspace: &Path) -> String {
    format!("jobs:{}", path_text(workspace))
}

/// What fits a row. NUL, which PostgreSQL refuses in a text, is left out.
fn fit(text: &str) -> String {
    let mut text = text.replace('\0', "");
    if text.len() > OUTPUT {
        let end = (0..=OUTPUT).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
        text.truncate(end);
        text.push_str("\n[the rest was left out]");
    }
    text
}
