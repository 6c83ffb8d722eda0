//! Conversations that begin anew, go back, or are told in short, when a person wants it.
//!
//! The log keeps all of it. These wait for the session as turns do, so none comes in between.

use std::sync::Arc;

use jiff::Timestamp;

use super::{Error, Hub};
use crate::message::Usage;
use crate::message::event::Finished;
use crate::session::view::names;
use crate::session::{Entry, Mark};

/// Letters of a name.
const NAME: usize = 64;

impl Hub {
    /// Begins a conversation anew; what was said is set aside.
    pub async fn reset(self: &Arc<Self>, session: &str) -> Result<(), Error> {
        self.note(session, Entry::Reset).await
    }

    /// Keeps a conversation as it is now by a name, to go back to.
    pub async fn snapshot(self: &Arc<Self>, session: &str, name: &str) -> Result<(), Error> {
        if !(1..=NAME).contains(&name.chars().count()) || name.chars().any(char::is_control) {
            return Err(Error::Name);
        }
        self.note(session, Entry::Kept(Mark { name: name.to_owned() })).await
    }

    /// Goes back to what was kept by this name, or, without one, to what was set aside last.
    pub async fn restore(self: &Arc<Self>, session: &str, name: &str) -> Result<(), Error> {
        let known = self.snapshots(session).await?;
        if !name.is_empty() && !known.iter().any(|other| other == name) {
            return Err(Error::Snapshot { name: name.to_owned(), known });
        }
        self.note(session, Entry::Restored(Mark { name: name.to_owned() })).await
    }

    /// The names by which a conversation was kept, the oldest first.
    pub async fn snapshots(&self, session: &str) -> Result<Vec<String>, Error> {
        let log = self.sessions.show(session).await?;
        Ok(names(&log).into_iter().map(str::to_owned).collect())
    }

    /// Tells what was said before the last turn in short. Returns how many turns that were.
    pub async fn compact(self: &Arc<Self>, session: &str) -> Result<usize, Error> {
        let id = self.sessions.resolve(session).await?.id;
        let tab = self.tab(&id, None);
        self.alone(&id, async {
            tab.spend(Usage::default()).await?;
            let (turns, usage) = self.agent.compact(&self.sessions, &id).await?;
            match tab.spend(usage).await {
                // It is done; the next one is refused.
                Ok(()) | Err(Error::Spent(_)) => Ok(turns),
                Err(error) => Err(error),
            }
        })
        .await
    }

    async fn note(self: &Arc<Self>, session: &str, entry: Entry) -> Result<(), Error> {
        let id = self.sessions.resolve(session).await?.id;
        self.alone(&id, async {
            let mut session = self.sessions.open(&id).await?;
            let turn = uuid::Uuid::now_v7().to_string();
            Ok(self.sessions.append(&mut session, &turn, vec![entry], Timestamp::now()).await?)
        })
        .await
    }

    /// Does something to a session while no turn of it goes on.
    async fn alone<T>(
        self: &Arc<Self>,
        id: &str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let _place = self.place()?;
        let lane = self.lane(id);
        let _queued = lane.place(id)?;
        let _alone = lane.turn.lock().await;
        let lease = self.claim(id, self.shutdown.signal(), &|_| ()).await;
        let lease = lease.map_err(|Finished { error, .. }| match error {
            Some(reason) => Error::Held(reason),
            None => Error::Draining,
        })?;
        let done = work.await;
        self.release(id, &lease).await;
        done
    }
}
