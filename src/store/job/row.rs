//! Jobs and runs as rows: made, looked at, changed by people.

use std::path::Path;

use jiff::Timestamp;
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::{Any, AssertSqlSafe, Row};

use super::{Delivery, Error, Job, Jobs, MOST, New, Overlap, Run, Stage, State};
use crate::store::Write;

type Query<'q> = sqlx::query::Query<'q, Any, AnyArguments>;

/// Runs that a face is told of at once.
const UNREAD: i64 = 100;
/// Days that a job which is over is kept.
const KEPT: i64 = 30;

impl Jobs {
    /// Makes a job. It is durable when this returns.
    pub async fn add(&self, new: &New, now: Timestamp) -> Result<Job, Error> {
        new.check()?;
        let next = new.schedule.first(now);
        let next = next.ok_or_else(|| Error::Wrong(format!("`{}` never comes", new.schedule)))?;
        let job = Job {
            id: uuid::Uuid::new_v4().simple().to_string()[..8].to_owned(),
            name: new.title(),
            workspace: new.workspace.clone(),
            session: new.session.clone(),
            task: new.task.clone(),
            schedule: new.schedule.clone(),
            overlap: new.overlap,
            deliver: new.deliver.clone(),
            state: State::Active,
            next: Some(next),
            skipped: 0,
            created: now,
        };
        let json = |value: Result<String, serde_json::Error>| value.expect("keys are texts");
        let mut write = self.store.write().await?;
        let many = sqlx::query("SELECT COUNT(*) FROM job WHERE workspace = $1 AND state <> 'over'");
        if self.number(&mut write, many.bind(path_text(&job.workspace))).await? >= MOST {
            return Err(Error::Wrong(format!(
                "this folder has {MOST} jobs already; `omni job remove` ends some"
            )));
        }
        let insert = sqlx::query(
            "INSERT INTO job (id, name, workspace, session, task, schedule, overlap, deliver, state, next, skipped, \
             created, updated) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0, $11, $11)",
        );
        let insert = insert.bind(job.id.clone()).bind(job.name.clone()).bind(path_text(&job.workspace));
        let insert = insert.bind(job.session.clone()).bind(json(serde_json::to_string(&job.task)));
        let insert = insert.bind(json(serde_json::to_string(&job.schedule))).bind(job.overlap.word());
        let insert = insert.bind(json(serde_json::to_string(&job.deliver))).bind(job.state.word());
        self.execute(&mut write, insert.bind(milliseconds(Some(next))).bind(now.as_millisecond())).await?;
        write.commit().await?;
        self.shared.own.lock().expect("no panic while held").push(job.id.clone());
        self.nudge();
        Ok(job)
    }

    /// The jobs of a folder, or of all, those that are due next first and those that are over last.
    pub async fn list(&self, workspace: Option<&Path>) -> Result<Vec<Job>, Error> {
        let query = match workspace {
            Some(folder) => sqlx::query("SELECT * FROM job WHERE workspace = $1 ORDER BY created, id")
                .bind(path_text(folder)),
            None => sqlx::query("SELECT * FROM job ORDER BY created, id"),
        };
        let mut jobs: Vec<Job> = self.rows(query).await?.iter().map(job).collect::<Result<_, _>>()?;
        let place = |job: &Job| (job.state == State::Over, job.next.is_none(), job.next);
        jobs.sort_by_key(place);
        Ok(jobs)
    }

    /// The job of this id, or the only one whose id begins so.
    pub async fn find(&self, id: &str) -> Result<Job, Error> {
        let unknown = || Err(Error::Unknown(id.to_owned()));
        if id.is_empty() {
            return unknown();
        }
        let query = sqlx::query("SELECT * FROM job WHERE substr(id, 1, length($1)) = $1 ORDER BY id LIMIT 2");
        let mut found = self.rows(query.bind(id.to_owned())).await?;
        match found.len() {
            0 => unknown(),
            1 => job(&found.remove(0)),
            _ => Err(Error::Ambiguous(id.to_owned())),
        }
    }

    /// The same, if it is one of this folder.
    pub async fn find_in(&self, workspace: &Path, id: &str) -> Result<Job, Error> {
        let job = self.find(id).await?;
        match path_text(&job.workspace) == path_text(workspace) {
            true => Ok(job),
            false => Err(Error::Unknown(id.to_owned())),
        }
    }

    /// Its last runs, the latest first.
    pub async fn runs(&self, job: &str, limit: usize) -> Result<Vec<Run>, Error> {
        let query = sqlx::query("SELECT * FROM job_run WHERE job = $1 ORDER BY due DESC, id DESC LIMIT $2");
        let query = query.bind(job.to_owned()).bind(i64::try_from(limit).unwrap_or(i64::MAX));
        self.rows(query).await?.iter().map(run).collect()
    }

    /// A run.
    pub async fn run(&self, id: &str) -> Result<Option<Run>, Error> {
        let query = sqlx::query("SELECT * FROM job_run WHERE id = $1").bind(id.to_owned());
        self.rows(query).await?.first().map(run).transpose()
    }

    /// Stops a schedule until [`Jobs::resume`]; what goes on goes on.
    pub async fn pause(&self, job: &Job, now: Timestamp) -> Result<(), Error> {
        self.only(job.state == State::Active && job.next.is_some(), job, "does not wait for a time")?;
        self.turn(job, State::Paused, None, now).await
    }

    /// Takes a schedule up again, with its next time; what was missed meanwhile is.
    pub async fn resume(&self, job: &Job, now: Timestamp) -> Result<Option<Timestamp>, Error> {
        self.only(job.state == State::Paused, job, "is not paused")?;
        let next = job.schedule.next(now);
        self.turn(job, if next.is_some() { State::Active } else { State::Over }, next, now).await?;
        Ok(next)
    }

    /// Ends what goes on and what waits of a job. A schedule keeps its next time; what was to be
    /// done once is not done any more. Returns how many runs that were.
    pub async fn cancel(&self, job: &Job, now: Timestamp) -> Result<u64, Error> {
        let mut write = self.store.write().await?;
        let queued = sqlx::query(
            "UPDATE job_run SET state = 'cancelled', ended = $2, error = 'cancelled before it began' \
             WHERE job = $1 AND state = 'queued'",
        );
        let queued = self.execute(&mut write, queued.bind(job.id.clone()).bind(now.as_millisecond())).await?;
        let running = sqlx::query("UPDATE job_run SET wish = 1 WHERE job = $1 AND state = 'running'");
        let running = self.execute(&mut write, running.bind(job.id.clone())).await?;
        if matches!(job.schedule, crate::schedule::Schedule::Once { .. }) {
            let over = sqlx::query("UPDATE job SET state = 'over', next = 0, updated = $2 WHERE id = $1");
            self.execute(&mut write, over.bind(job.id.clone()).bind(now.as_millisecond())).await?;
        }
        write.commit().await?;
        self.nudge();
        Ok(queued + running)
    }

    /// Deletes a job with all that came of it. One that goes on is to be cancelled first.
    pub async fn remove(&self, job: &Job) -> Result<(), Error> {
        let mut write = self.store.write().await?;
        let live = sqlx::query("SELECT COUNT(*) FROM job_run WHERE job = $1 AND state = 'running'");
        if self.number(&mut write, live.bind(job.id.clone())).await? > 0 {
            let reason =
                format!("the job `{}` goes on; cancel it first, with `omni job cancel` or `/job`", job.id);
            return Err(Error::Wrong(reason));
        }
        let sessions = sqlx::query(
            "DELETE FROM session WHERE id IN (SELECT session FROM job_run WHERE job = $1 AND session <> '')",
        );
        self.execute(&mut write, sessions.bind(job.id.clone())).await?;
        // Its runs go with it.
        self.execute(&mut write, sqlx::query("DELETE FROM job WHERE id = $1").bind(job.id.clone())).await?;
        write.commit().await?;
        self.nudge();
        Ok(())
    }

    /// Forgets jobs that have been over for long.
    pub async fn tidy(&self, now: Timestamp) -> Result<(), Error> {
        let before = now.as_millisecond() - KEPT * 86_400_000;
        let query = sqlx::query(
            "SELECT * FROM job WHERE state = 'over' AND updated < $1 AND NOT EXISTS \
             (SELECT 1 FROM job_run WHERE job_run.job = job.id AND state IN ('queued', 'running')) LIMIT 100",
        );
        for row in self.rows(query.bind(before)).await? {
            self.remove(&job(&row)?).await?;
        }
        Ok(())
    }

    /// Runs that were added to sessions whose id begins so, and that no face has shown there yet: the
    /// session, the job and the run, the oldest first.
    pub async fn unread(&self, session: &str) -> Result<Vec<(String, Job, Run)>, Error> {
        let query = sqlx::query(
            "SELECT * FROM job_run WHERE unread <> '' AND substr(unread, 1, length($1)) = $1 ORDER BY ended, id LIMIT $2",
        );
        let mut unread = Vec::new();
        for row in self.rows(query.bind(session.to_owned()).bind(UNREAD)).await? {
            let run = run(&row)?;
            let session: String = row.try_get("unread").map_err(|error| self.store.explain(error))?;
            unread.push((session, self.find(&run.job).await?, run));
        }
        Ok(unread)
    }

    /// Takes note that a face has shown a run, in the transaction that keeps it for that face.
    pub async fn read(&self, write: &mut Write, run: &str) -> Result<(), Error> {
        let read = sqlx::query("UPDATE job_run SET unread = '' WHERE id = $1").bind(run.to_owned());
        self.execute(write, read).await.map(drop)
    }

    /// Begins a transaction for [`Jobs::read`].
    pub async fn begin(&self) -> Result<Write, Error> {
        Ok(self.store.write().await?)
    }

    fn only(&self, fine: bool, job: &Job, what: &str) -> Result<(), Error> {
        match fine {
            true => Ok(()),
            false => Err(Error::Wrong(format!("the job `{}` {what}; it is {}", job.id, job.state))),
        }
    }

    /// Compare and set: a job that has moved meanwhile is left alone.
    async fn turn(
        &self,
        job: &Job,
        state: State,
        next: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), Error> {
        let update =
            sqlx::query("UPDATE job SET state = $3, next = $4, updated = $5 WHERE id = $1 AND state = $2");
        let update = update.bind(job.id.clone()).bind(job.state.word()).bind(state.word());
        let update = update.bind(milliseconds(next)).bind(now.as_millisecond());
        let done = self.store.once(update).await?;
        self.nudge();
        match done {
            1 => Ok(()),
            _ => Err(Error::Wrong(format!(
                "somebody else has changed the job `{}` meanwhile; look again",
                job.id
            ))),
        }
    }

    /// Deletes the runs of a job that are over and told, with their sessions; the last ones stay.
    pub(super) async fn shorten(&self, write: &mut Write, job: &str, keep: i64) -> Result<(), Error> {
        let old = "SELECT id FROM job_run WHERE job = $1 AND state NOT IN ('queued', 'running') \
                   AND delivery <> 'pending' ORDER BY due DESC, id DESC LIMIT 1000 OFFSET $2";
        let sessions = format!(
            "DELETE FROM session WHERE id IN (SELECT session FROM job_run WHERE id IN ({old}) AND session <> '')"
        );
        let runs = format!("DELETE FROM job_run WHERE id IN ({old})");
        for statement in [sessions, runs] {
            let query = sqlx::query(AssertSqlSafe(statement)).bind(job.to_owned()).bind(keep);
            self.execute(write, query).await?;
        }
        Ok(())
    }

    pub(super) async fn execute(&self, write: &mut Write, query: Query<'_>) -> Result<u64, Error> {
        let done = query.execute(&mut **write).await.map_err(|error| self.store.explain(error))?;
        Ok(done.rows_affected())
    }

    pub(super) async fn number(&self, write: &mut Write, query: Query<'_>) -> Result<i64, Error> {
        let explain = |error| self.store.explain(error);
        let row = query.fetch_one(&mut **write).await.map_err(explain)?;
        Ok(row.try_get(0).map_err(explain)?)
    }

    pub(super) async fn rows(&self, query: Query<'_>) -> Result<Vec<AnyRow>, Error> {
        Ok(query.fetch_all(self.store.pool()).await.map_err(|error| self.store.explain(error))?)
    }
}

pub(super) fn job(row: &AnyRow) -> Result<Job, Error> {
    let id: String = text(row, "id").unwrap_or_default();
    let read = || -> Result<Job, String> {
        let json = |error: serde_json::Error| error.to_string();
        Ok(Job {
            id: text(row, "id")?,
            name: text(row, "name")?,
            workspace: text(row, "workspace")?.into(),
            session: text(row, "session")?,
            task: serde_json::from_str(&text(row, "task")?).map_err(json)?,
            schedule: serde_json::from_str(&text(row, "schedule")?).map_err(json)?,
            overlap: Overlap::read(&text(row, "overlap")?)?,
            deliver: serde_json::from_str(&text(row, "deliver")?).map_err(json)?,
            state: State::read(&text(row, "state")?)?,
            next: time(row, "next")?,
            skipped: count(row, "skipped")?,
            created: time(row, "created")?.unwrap_or_default(),
        })
    };
    read().map_err(|reason| Error::Unreadable { id, reason })
}

pub(super) fn run(row: &AnyRow) -> Result<Run, Error> {
    let id: String = text(row, "job").unwrap_or_default();
    let read = || -> Result<Run, String> {
        let small = |column| Ok::<_, String>(u32::try_from(count(row, column)?).unwrap_or(u32::MAX));
        Ok(Run {
            id: text(row, "id")?,
            job: text(row, "job")?,
            session: text(row, "session")?,
            state: Stage::read(&text(row, "state")?)?,
            due: time(row, "due")?.unwrap_or_default(),
            attempt: small("attempt")?,
            began: time(row, "began")?,
            ended: time(row, "ended")?,
            output: text(row, "output")?,
            error: text(row, "error")?,
            tokens: count(row, "tokens")?,
            delivery: Delivery::read(&text(row, "delivery")?)?,
            tries: small("tries")?,
            refusal: text(row, "refusal")?,
        })
    };
    read().map_err(|reason| Error::Unreadable { id, reason })
}

fn text(row: &AnyRow, column: &str) -> Result<String, String> {
    row.try_get(column).map_err(|error| error.to_string())
}

fn count(row: &AnyRow, column: &str) -> Result<u64, String> {
    let count: i64 = row.try_get(column).map_err(|error| error.to_string())?;
    Ok(count.unsigned_abs())
}

/// A time; 0 is none.
fn time(row: &AnyRow, column: &str) -> Result<Option<Timestamp>, String> {
    let milliseconds: i64 = row.try_get(column).map_err(|error| error.to_string())?;
    let time = Timestamp::from_millisecond(milliseconds).map_err(|error| error.to_string())?;
    Ok(Some(time).filter(|_| milliseconds != 0))
}

pub(super) fn milliseconds(time: Option<Timestamp>) -> i64 {
    time.map_or(0, Timestamp::as_millisecond)
}

pub(super) fn path_text(path: &Path) -> String {
    path.to_string_lossy().replace('\0', "")
}
