//! Which threads of ours are in Python, and waiting until none is.
//!
//! A Python that is somebody else's ends when its program does. A thread that comes back to it then is ended by
//! it in the middle of whatever it is at, which takes the process down: so nobody is inside any more by then.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

/// How often is looked whether all have left.
const LOOK: Duration = Duration::from_millis(1);

static PRESENT: AtomicUsize = AtomicUsize::new(0);
static CLOSED: AtomicBool = AtomicBool::new(false);

/// Somebody who is inside, or will have to be.
pub struct Presence(());

impl Presence {
    /// Comes in, unless Python is about to end.
    pub fn come() -> Option<Self> {
        PRESENT.fetch_add(1, SeqCst);
        // Made first: it is counted out in any case.
        let presence = Self(());
        (!CLOSED.load(SeqCst)).then_some(presence)
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        PRESENT.fetch_sub(1, SeqCst);
    }
}

/// Runs `work` attached; `None` where Python is about to end.
pub fn attach<T>(work: impl FnOnce(Python<'_>) -> T) -> Option<T> {
    let _presence = Presence::come()?;
    Some(Python::attach(work))
}

/// Lets nobody in any more, and waits for those who are inside. Returns whether all have left in time.
pub fn close(patience: Duration) -> bool {
    CLOSED.store(true, SeqCst);
    let began = Instant::now();
    while PRESENT.load(SeqCst) > 0 {
        if began.elapsed() > patience {
            return false;
        }
        std::thread::sleep(LOOK);
    }
    true
}
