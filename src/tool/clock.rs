//! The time of a call: what it may take, how it is kept, and when it stands still.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::changes::Changes;
use super::{Call, Error, Output, Toolset};

/// How long a tool may take to let go after its time limit.
const LET_GO: Duration = Duration::from_secs(2);
/// The same after a cancel, where somebody is waiting.
const LET_GO_CANCELLED: Duration = Duration::from_millis(200);
/// How often a call whose clock stands still is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// How long a call may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) total: Option<Duration>,
    /// Without a sign of life.
    pub(super) idle: Option<Duration>,
}

/// Runs a call until it ends, is cancelled, its time is up or it was silent for too long. Then
/// `cancel`, the token it has, is cancelled and it has a moment to let go, before it is dropped.
pub(super) async fn timed(
    set: &dyn Toolset,
    call: Call,
    cancel: &CancellationToken,
    limits: Limits,
    clock: &Clock,
) -> Result<Output, Error> {
    let name = Arc::clone(&call.spec);
    let mut work = pin!(AssertUnwindSafe(async { set.call(call).await }).catch_unwind());
    let (error, patience) = tokio::select! {
        biased;
        ended = &mut work => {
            return ended.unwrap_or_else(|panic| Err(broken(&name.name, panic.as_ref())));
        }
        () = cancel.cancelled() => (Error::Cancelled, LET_GO_CANCELLED),
        limit = elapsed(limits.total, clock) => (Error::Elapsed(limit), LET_GO),
        limit = silent(limits.idle, clock) => (Error::Idle(limit), LET_GO),
    };
    cancel.cancel();
    // Whatever it still says comes too late.
    let _ = tokio::time::timeout(patience, work).await;
    Err(error)
}

/// Ends when the call has taken its time, that in which a person was asked left out.
async fn elapsed(limit: Option<Duration>, clock: &Clock) -> Duration {
    let Some(limit) = limit else { return std::future::pending().await };
    let (began, mut left) = (Instant::now(), limit);
    loop {
        tokio::time::sleep(left).await;
        let used = began.elapsed().saturating_sub(clock.stopped());
        if used >= limit {
            return limit;
        }
        left = (limit - used).max(LOOK);
    }
}

/// Ends when the call has given no sign of life for so long.
async fn silent(limit: Option<Duration>, clock: &Clock) -> Duration {
    let Some(limit) = limit else { return std::future::pending().await };
    while tokio::time::timeout(limit, clock.signed()).await.is_ok() || clock.stands() {}
    limit
}

/// What is counted of one call: its signs of life, for how long it stood still because a person was
/// asked, the calls it has made, and what it has changed.
#[derive(Debug, Default)]
pub(super) struct Clock {
    calls: AtomicU32,
    signs: Notify,
    pub(super) changes: Changes,
    stops: Mutex<Stops>,
}

#[derive(Debug, Default)]
struct Stops {
    open: usize,
    since: Option<Instant>,
    total: Duration,
}

impl Clock {
    /// The number of one more call that it makes.
    pub(super) fn call(&self) -> u32 {
        self.calls.fetch_add(1, SeqCst) + 1
    }

    /// Takes note of a sign of life.
    pub(super) fn sign(&self) {
        self.signs.notify_one();
    }

    /// Waits for one.
    pub(super) async fn signed(&self) {
        self.signs.notified().await;
    }

    /// How long it has stood still.
    pub(super) fn stopped(&self) -> Duration {
        let stops = self.stops.lock().expect("no panic while held");
        stops.total + stops.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Whether it stands still.
    pub(super) fn stands(&self) -> bool {
        self.stops.lock().expect("no panic while held").open > 0
    }

    /// Has it stand still for as long as what is returned is held.
    pub(super) fn stop(self: &Arc<Self>) -> Stop {
        let mut stops = self.stops.lock().expect("no panic while held");
        stops.open += 1;
        stops.since.get_or_insert_with(Instant::now);
        Stop(self.clone())
    }
}

/// Keeps a clock from going on.
pub(super) struct Stop(Arc<Clock>);

impl Drop for Stop {
    fn drop(&mut self) {
        let mut stops = self.0.stops.lock().expect("no panic while held");
        stops.open -= 1;
        if stops.open == 0
            && let Some(since) = stops.since.take()
        {
            stops.total += since.elapsed();
        }
        drop(stops);
        self.0.sign();
    }
}

fn broken(tool: &str, panic: &(dyn std::any::Any + Send)) -> Error {
    let id = uuid::Uuid::now_v7().simple().to_string();
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("(no message)");
    tracing::error!(id, tool, panic = text, "a toolset panicked");
    Error::Broken { id }
}
