//! Hearing of changes to files, while the program runs.
//!
//! What is in a folder is heard of from the system. That a folder came, went or is another one, and
//! that a single file has changed, is seen by a look now and then: the folder such a place is in may
//! be one where much is written, the database for one.

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

use super::files::visible;

/// After a change others follow: an editor writes a file in several steps, `git` many files.
const QUIET: Duration = Duration::from_millis(200);
/// Changes that never end are acted on in between.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often places are looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Hears of changes to files and folders, those that do not exist yet among them.
///
/// However many changes there are, at most one waits to be heard of.
pub struct Watcher {
    inner: RecommendedWatcher,
    places: Vec<PathBuf>,
    watched: Vec<PathBuf>,
    seen: Vec<Option<Seen>>,
    heard: Arc<Notify>,
}

/// What tells whether a place is another one than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    identity: (u64, u64),
    /// Of a file: what is in a folder is heard of.
    written: Option<(SystemTime, u64)>,
}

impl Seen {
    fn at(place: &Path) -> Option<Self> {
        let found = std::fs::metadata(place).ok()?;
        let written =
            found.is_file().then(|| (found.modified().unwrap_or(SystemTime::UNIX_EPOCH), found.len()));
        Some(Self { identity: identity(&found), written })
    }
}

#[cfg(unix)]
fn identity(found: &Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (found.dev(), found.ino())
}

#[cfg(not(unix))]
fn identity(found: &Metadata) -> (u64, u64) {
    let created = found.created().unwrap_or(SystemTime::UNIX_EPOCH);
    let age = created.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (age.as_secs(), u64::from(age.subsec_nanos()))
}

impl Watcher {
    /// Watches these places: a folder with all that is below it, or a single file.
    pub fn new(places: Vec<PathBuf>) -> Result<Self, notify::Error> {
        let heard = Arc::new(Notify::new());
        let places: Vec<_> =
            places.into_iter().map(|place| std::path::absolute(&place).unwrap_or(place)).collect();
        let (told, ours) = (heard.clone(), places.clone());
        let inner = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // An error may be that changes were lost.
            if event.map_or(true, |event| matters(&event, &ours)) {
                told.notify_one();
            }
        })?;
        let mut watcher = Self { inner, places, watched: Vec::new(), seen: Vec::new(), heard };
        watcher.arm();
        Ok(watcher)
    }

    /// Waits until something has changed and then been quiet for a moment.
    pub async fn changed(&mut self) {
        tokio::select! {
            () = self.heard.notified() => {}
            () = self.moved() => {}
        }
        let settled = async { while tokio::time::timeout(QUIET, self.heard.notified()).await.is_ok() {} };
        let _ = tokio::time::timeout(PATIENCE, settled).await;
        self.arm();
    }

    /// Waits until a place is another one than when it was last looked at.
    async fn moved(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            if self.look() != self.seen {
                return;
            }
        }
    }

    fn look(&self) -> Vec<Option<Seen>> {
        self.places.iter().map(|place| Seen::at(place)).collect()
    }

    /// Watches what is there now: a folder that came into being or was put in another's place
    /// has to be watched anew. What changes after this is heard of.
    fn arm(&mut self) {
        self.seen = self.look();
        for path in std::mem::take(&mut self.watched) {
            // It may have gone, and its watch with it.
            let _ = self.inner.unwatch(&path);
        }
        for path in self.places.iter().filter(|place| place.is_dir()) {
            if self.watched.contains(path) {
                continue;
            }
            match self.inner.watch(path, RecursiveMode::Recursive) {
                Ok(()) => self.watched.push(path.clone()),
                Err(error) => tracing::warn!(
                    "changes below `{}` are not seen until the next start: {error}; \
                     if there are too many files, raise `fs.inotify.max_user_watches`",
                    path.display()
                ),
            }
        }
    }
}

/// Whether it can have changed one of the places, which are folders. Reading, which we do ourselves, has not.
fn matters(event: &Event, places: &[PathBuf]) -> bool {
    if event.need_rescan() {
        return true;
    }
    if matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write)) {
        return false;
    }
    event.paths.iter().any(|path| {
        places.iter().any(|place| match path.strip_prefix(place) {
            Ok(below) => below.iter().all(|name| visible(&name.to_string_lossy())),
            Err(_) => false,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matters() {
        let places = [PathBuf::from("/home/skills")];
        let heard = |kind: EventKind, path: &str| matters(&Event::new(kind).add_path(path.into()), &places);
        let any = EventKind::Any;
        for path in ["/home/skills/git/scripts/a.py", "/home/skills"] {
            assert!(heard(any, path), "{path}");
        }
        for path in
            ["/home/skills/git/.a.py.swp", "/home/skills/git/__pycache__/a.pyc", "/home", "/data/omni.db"]
        {
            assert!(!heard(any, path), "{path}");
        }
        assert!(heard(EventKind::Access(AccessKind::Close(AccessMode::Write)), "/home/skills/a"));
        assert!(!heard(EventKind::Access(AccessKind::Open(AccessMode::Any)), "/home/skills/a"));
        let lost = Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan);
        assert!(matters(&lost, &places));
    }
}
