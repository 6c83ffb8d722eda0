//! How what is learned gets into the table, and what has no room there any more.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;

use super::episode::{Episode, Kind};
use super::meaning::Unsaved;
use super::mirror::Mirror;
use super::store::{self, Meant, Table};
use super::{BACKGROUND, Error, Memory};
use crate::llm::embed::TEXTS;
use crate::store::lease::{self, Acquired, Lease};

/// Episodes that wait in the database before they are taken to the table: each time is a file.
const BATCH: usize = 64;
/// How long a writer may take, and how long another one waits for it.
const WRITING: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(5);
/// How long vectors are made after one turn, where an embedder is new to what is there: the end of
/// the program waits for it.
const BACKFILL: Duration = Duration::from_secs(2);
/// Turns in which a new episode is not evicted.
const PROTECTED: u64 = 100;

impl Memory {
    /// Takes what is new to the table of episodes if there is much of it.
    pub async fn settle(&self) -> Result<(), Error> {
        self.backfill(BACKFILL).await?;
        let unsaved = self.mirror.lock().await.meanings.unsaved().len();
        // Where this process has added nothing since, others look after what they have added.
        if !self.has_news.swap(false, Ordering::SeqCst) && unsaved < BATCH {
            return Ok(());
        }
        if self.ledger.waiting().await?.len() < BATCH && unsaved < BATCH {
            return Ok(());
        }
        self.flush().await
    }

    /// Takes what is new to the table of episodes. What another process is just doing is left to
    /// it.
    pub async fn flush(&self) -> Result<(), Error> {
        let unsaved = self.mirror.lock().await.meanings.unsaved().len();
        if self.ledger.waiting().await?.is_empty() && unsaved == 0 {
            return Ok(());
        }
        let flushed = self.writing(async |table| {
            let mut mirror = self.mirror.lock().await;
            mirror.refresh(&self.ledger, Some(table)).await?;
            let waiting: Vec<&str> = mirror.waiting.iter().map(String::as_str).collect();
            let pending = self.ledger.pending(&waiting).await?;
            // The same was learned before, to the letter.
            let new: Vec<_> = pending.iter().filter(|episode| mirror.is_new(&episode.id)).cloned().collect();
            table.put(&new).await?;
            let ids: Vec<&str> = pending.iter().map(|episode| episode.id.as_str()).collect();
            self.ledger.arrived(&ids).await?;
            mirror.follow(table.version().await?);
            self.keep_meanings(&mut mirror, table).await?;
            let evicted = self.evict(table).await?;
            table.tend(self.is_large(table).await?).await?;
            if !evicted {
                mirror.follow(table.version().await?);
            }
            Ok(())
        });
        match flushed.await {
            Err(Error::Busy) => Ok(()),
            other => other,
        }
    }

    /// Removes the least valuable episodes where there are too many: those that are pinned, noted
    /// or young stay. Returns whether there were any.
    async fn evict(&self, table: &Table) -> Result<bool, Error> {
        let capacity = self.settings.capacity;
        if capacity == 0 || table.count().await? <= capacity {
            return Ok(false);
        }
        let all = table.all().await?;
        let histories = self.ledger.histories(&all.iter().collect::<Vec<_>>()).await?;
        let tick = self.ledger.look(0).await?.1.now.tick;
        let mut worth: Vec<(f64, &Episode)> = Vec::new();
        for episode in all.iter().filter(|episode| !episode.pinned && episode.kind == Kind::Episode) {
            let history = &histories[&episode.id];
            let known = self.settings.value.value(episode.trust, history.birth, history.uses.iter().copied());
            if history.idle(tick) >= PROTECTED {
                // Little is known of what was tried little.
                worth.push((known.value - 0.3 / (known.tries as f64 + 1.0).sqrt(), episode));
            }
        }
        worth.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        // A tenth more than has to go, so that not every turn evicts.
        let surplus = all.len() - capacity + capacity / 10;
        let gone: Vec<&Episode> = worth.into_iter().take(surplus).map(|(_, episode)| episode).collect();
        self.remove(table, &gone).await?;
        Ok(!gone.is_empty())
    }

    pub(super) async fn remove(&self, table: &Table, episodes: &[&Episode]) -> Result<(), Error> {
        if episodes.is_empty() {
            return Ok(());
        }
        let ids: Vec<&str> = episodes.iter().map(|episode| episode.id.as_str()).collect();
        let turns: Vec<&str> = episodes.iter().map(|episode| episode.turn.as_str()).collect();
        table.erase(&ids).await?;
        store::erase_vectors(&self.folder, &ids).await?;
        self.ledger.forget(&ids, &turns).await
    }

    /// Gives vectors to episodes that have none yet. When so much time is over it begins with no
    /// more.
    pub(super) async fn backfill(&self, time: Duration) -> Result<(), Error> {
        let (table, began) = (self.table().await?, tokio::time::Instant::now());
        while self.meant(None, table.as_ref(), BACKGROUND).await?.1 == TEXTS && began.elapsed() < time {}
        Ok(())
    }

    /// Takes new vectors to their table, but for those of what was forgotten meanwhile.
    async fn keep_meanings(&self, mirror: &mut Mirror, table: &Table) -> Result<(), Error> {
        let unsaved = mirror.meanings.unsaved();
        let count = unsaved.len();
        if count == 0 {
            return Ok(());
        }
        let ids: Vec<&str> = unsaved.iter().map(|unsaved| unsaved.id.as_str()).collect();
        let there: HashSet<String> = table.get(&ids).await?.into_iter().map(|episode| episode.id).collect();
        let kept = unsaved.iter().filter(|unsaved| there.contains(&unsaved.id));
        let kept: Vec<_> = kept.map(|Unsaved { id, scope, vector }| Meant { id, scope, vector }).collect();
        let Some(stored) = self.vectors(Some(mirror.meanings.length())).await? else { return Ok(()) };
        stored.put(&kept, mirror.is_large()).await?;
        let version = stored.version().await?;
        mirror.meanings.saved(count);
        mirror.follow_meanings(version);
        Ok(())
    }

    /// Does something to the table while nobody else does, in this process or another.
    pub(super) async fn writing<T>(
        &self,
        work: impl AsyncFnOnce(&Table) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let _alone = self.writer.lock().await;
        let lease = self.lease().await?;
        let done = async {
            let mut table = self.table.lock().await;
            let open = match table.take() {
                Some(open) => open,
                None => Table::create(&self.folder).await?,
            };
            let open = table.insert(open.renewed().await?).clone();
            drop(table);
            work(&open).await
        };
        // Longer than its lease it must not take.
        let done = tokio::time::timeout(WRITING, done).await.unwrap_or(Err(Error::Busy));
        if let Err(error) = lease::release(&self.store, &lease).await {
            tracing::warn!("the lease of the memory stays until it ends: {error}");
        }
        done
    }

    async fn lease(&self) -> Result<Lease, Error> {
        let name = format!("memory:{}", self.folder.display());
        let began = tokio::time::Instant::now();
        loop {
            let lease =
                lease::acquire(&self.store, &name, &self.owner, 2 * WRITING, Timestamp::now()).await?;
            match lease {
                Acquired::Mine(lease) => return Ok(lease),
                Acquired::Held { .. } if began.elapsed() > PATIENCE => return Err(Error::Busy),
                Acquired::Held { .. } => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}
