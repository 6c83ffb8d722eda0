//! Which threads of a crew are counted on.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// How many threads are on watch, and the number of the watch. All who are stuck when it is relieved
/// have a number that is no more.
#[derive(Default)]
pub(super) struct Watch(AtomicU64);

impl Watch {
    /// Its number, and who is on it.
    pub(super) fn read(&self) -> (u32, u32) {
        let both = self.0.load(SeqCst);
        ((both >> 32) as u32, both as u32)
    }

    fn swap(&self, (number, awake): (u32, u32), next: (u32, u32)) -> bool {
        let both = |(number, awake): (u32, u32)| u64::from(number) << 32 | u64::from(awake);
        self.0.compare_exchange(both((number, awake)), both(next), SeqCst, SeqCst).is_ok()
    }

    /// Counts one more, if `awake` are on it; returns its number.
    pub(super) fn join(&self, awake: u32) -> Option<u32> {
        // Read first: all who submit write here otherwise, and wait for each other.
        let (number, there) = self.read();
        (there == awake && self.swap((number, there), (number, there + 1))).then_some(number)
    }

    /// Counts one more, however many there are.
    pub(super) fn come(&self) -> u32 {
        loop {
            let (_, awake) = self.read();
            if let Some(number) = self.join(awake) {
                return number;
            }
        }
    }

    /// Counts one less, unless that watch is over.
    pub(super) fn leave(&self, number: u32) {
        loop {
            let (now, awake) = self.read();
            if now != number || self.swap((now, awake), (now, awake - 1)) {
                return;
            }
        }
    }

    /// Begins another watch with one on it; returns its number.
    pub(super) fn relieve(&self) -> u32 {
        loop {
            let (number, awake) = self.read();
            let next = number.wrapping_add(1);
            if self.swap((number, awake), (next, 1)) {
                return next;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_stuck_counts_no_more_once_that_is_known() {
        let watch = Watch::default();
        let stuck = watch.join(0).expect("nobody is awake");
        assert_eq!((watch.join(0), watch.read()), (None, (stuck, 1)));
        let other = watch.relieve();
        assert_eq!(watch.read(), (other, 1));
        // The one that has taken over goes to sleep: the next work finds nobody awake, and wakes it.
        watch.leave(other);
        assert_eq!(watch.join(0), Some(other));
        // What was stuck comes back, and is counted out of a watch that is over.
        watch.leave(stuck);
        assert_eq!(watch.read(), (other, 1));
        assert_eq!((watch.come(), watch.read()), (other, (other, 2)));
    }
}
