//! Hearing of changes to files, while the program runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

use super::files::visible;

/// After a change others follow: an editor writes a file in several steps, `git` many files.
const QUIET: Duration = Duration::from_millis(200);
/// Changes that never end are acted on in between.
const PATIENCE: Duration = Duration::from_secs(2);

/// Hears of changes to files and folders, those that do not exist yet among them.
///
/// However many changes there are, at most one waits to be heard of.
pub struct Watcher {
    inner: RecommendedWatcher,
    places: Vec<PathBuf>,
    watched: Vec<PathBuf>,
    heard: Arc<Notify>,
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
        let mut watcher = Self { inner, places, watched: Vec::new(), heard };
        watcher.arm();
        Ok(watcher)
    }

    /// Waits until something has changed and then been quiet for a moment.
    pub async fn changed(&mut self) {
        self.heard.notified().await;
        let settled = async { while tokio::time::timeout(QUIET, self.heard.notified()).await.is_ok() {} };
        let _ = tokio::time::timeout(PATIENCE, settled).await;
        self.arm();
    }

    /// Watches what is there now: a folder that came into being or was put in another's place
    /// has to be watched anew. What changes after this is heard of.
    fn arm(&mut self) {
        for path in std::mem::take(&mut self.watched) {
            // It may have gone, and its watch with it.
            let _ = self.inner.unwatch(&path);
        }
        // What is above a place hears of it being made, and of another one being put there.
        let inside = self.places.iter().filter(|place| place.is_dir()).map(PathBuf::as_path);
        let inside = inside.map(|place| (place, RecursiveMode::Recursive));
        let outside = self.places.iter().map(|place| (above(place), RecursiveMode::NonRecursive));
        for (path, mode) in inside.chain(outside) {
            if self.watched.iter().any(|watched| watched == path) {
                continue;
            }
            match self.inner.watch(path, mode) {
                Ok(()) => self.watched.push(path.to_owned()),
                Err(error) => tracing::warn!(
                    "changes below `{}` are not seen until the next start: {error}; \
                     if there are too many files, raise `fs.inotify.max_user_watches`",
                    path.display()
                ),
            }
        }
    }
}

/// The nearest folder above that exists.
fn above(path: &Path) -> &Path {
    path.ancestors().skip(1).find(|folder| folder.is_dir()).unwrap_or(Path::new("/"))
}

/// Whether it can have changed one of the places. Reading, which we do ourselves, has not.
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
            // A folder above it came, went or was renamed.
            Err(_) => place.starts_with(path),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matters() {
        let places = [PathBuf::from("/home/skills"), PathBuf::from("/data/trusted.json")];
        let heard = |kind: EventKind, path: &str| matters(&Event::new(kind).add_path(path.into()), &places);
        let any = EventKind::Any;
        for path in ["/home/skills/git/scripts/a.py", "/home/skills", "/home", "/data/trusted.json"] {
            assert!(heard(any, path), "{path}");
        }
        for path in
            ["/home/skills/git/.a.py.swp", "/home/skills/git/__pycache__/a.pyc", "/data/omni.db", "/etc"]
        {
            assert!(!heard(any, path), "{path}");
        }
        assert!(heard(EventKind::Access(AccessKind::Close(AccessMode::Write)), "/home/skills/a"));
        assert!(!heard(EventKind::Access(AccessKind::Open(AccessMode::Any)), "/home/skills/a"));
        let lost = Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan);
        assert!(matters(&lost, &places));
    }
}
