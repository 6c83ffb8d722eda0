//! What a call has changed in files, for people.

use std::sync::Mutex;

use crate::message::Change;

/// Bytes of the texts of one call that are kept.
const MOST: usize = 256 << 10;

/// What a call has changed in files, as far as it is kept: what is too long is left out.
#[derive(Debug, Default)]
pub(super) struct Changes(Mutex<Vec<Change>>);

impl Changes {
    /// Takes note of one.
    pub(super) fn add(&self, change: Change) {
        let size = |change: &Change| change.new.len() + change.old.as_ref().map_or(0, String::len);
        let mut changes = self.0.lock().expect("no panic while held");
        if changes.iter().map(size).sum::<usize>() + size(&change) <= MOST {
            changes.push(change);
        }
    }

    /// What there was until now.
    pub(super) fn take(&self) -> Vec<Change> {
        std::mem::take(&mut *self.0.lock().expect("no panic while held"))
    }
}
