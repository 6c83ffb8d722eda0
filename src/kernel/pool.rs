//! Threads for plain Python functions.
//!
//! A thread stays attached while there is work and detaches only to sleep: creating and
//! destroying a thread state for each call would cost more than most calls. Two threads serve
//! short tools best; when all of them are stuck in long ones, more are started, up to a bound.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError};
use pyo3::ffi;
use pyo3::prelude::*;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::bridge::Omni;

/// Threads that are kept.
const THREADS: usize = 2;
/// Threads there may be at once; more stuck tools than this wait.
const MOST_THREADS: usize = 32;
/// Calls that may wait.
const WAITING: usize = 16_384;
/// After this long without a free thread another one is started.
const STUCK: Duration = Duration::from_millis(5);
/// An extra thread leaves after this long without work.
const IDLE: Duration = Duration::from_secs(10);
/// Time a cancelled tool has to notice `ctx.cancelled` before an exception is raised in it.
const GRACE: Duration = Duration::from_millis(200);

/// The threads and their queue.
pub(super) struct Pool {
    jobs: Sender<Job>,
    crew: Arc<Crew>,
}

struct Crew {
    queue: Receiver<Job>,
    threads: AtomicUsize,
    idle: AtomicUsize,
    taken: AtomicU64,
    growing: AtomicBool,
}

struct Job {
    slot: Arc<Slot>,
    work: Box<dyn FnOnce(Python<'_>) + Send>,
}

/// A call, as its caller holds it.
struct Slot {
    id: u64,
    cancelled: AtomicBool,
    seat: OnceLock<Arc<Seat>>,
}

/// A thread, and the job it is at.
struct Seat {
    thread: std::ffi::c_ulong,
    job: Mutex<u64>,
    fired: AtomicBool,
}

/// Why a call has no result.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// Too many calls wait already.
    Full,
    /// The thread died under it.
    Died,
}

impl Pool {
    pub(super) fn new() -> Self {
        let (jobs, queue) = crossbeam_channel::bounded(WAITING);
        let crew = Crew {
            queue,
            threads: AtomicUsize::new(0),
            idle: AtomicUsize::new(0),
            taken: AtomicU64::new(0),
            growing: AtomicBool::new(false),
        };
        Self { jobs, crew: Arc::new(crew) }
    }

    /// Runs `work` on one of the threads, attached. Cancelling the token, or dropping the
    /// future, raises `ToolCancelled` in it after [`GRACE`]; the result is waited for.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        cancel: &CancellationToken,
        work: impl FnOnce(Python<'_>) -> T + Send + 'static,
    ) -> Result<T, Lost> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let (sender, mut receiver) = oneshot::channel();
        let slot = Arc::new(Slot {
            id: NEXT.fetch_add(1, SeqCst),
            cancelled: AtomicBool::new(false),
            seat: OnceLock::new(),
        });
        let job = Job { slot: slot.clone(), work: Box::new(move |py| drop(sender.send(work(py)))) };
        match self.jobs.try_send(job) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(Lost::Full),
            Err(TrySendError::Disconnected(_)) => unreachable!("the crew holds a receiver"),
        }
        self.staff();
        let mut guard = Guard(Some(slot));
        let result = tokio::select! {
            biased;
            result = &mut receiver => result,
            () = cancel.cancelled() => {
                drop(std::mem::replace(&mut guard, Guard(None)));
                receiver.await
            }
        };
        guard.0 = None;
        result.map_err(|_| Lost::Died)
    }

    /// Sees to it that somebody takes the work.
    fn staff(&self) {
        if self.crew.threads.load(SeqCst) < THREADS {
            hire(&self.crew, THREADS);
        } else if self.crew.idle.load(SeqCst) == 0 && !self.crew.growing.swap(true, SeqCst) {
            tokio::spawn(grow(self.crew.clone()));
        }
    }
}

/// Adds threads for as long as work waits and nobody takes any.
async fn grow(crew: Arc<Crew>) {
    loop {
        let taken = crew.taken.load(SeqCst);
        tokio::time::sleep(STUCK).await;
        if crew.queue.is_empty() {
            break;
        }
        if crew.taken.load(SeqCst) == taken {
            hire(&crew, MOST_THREADS);
        }
    }
    crew.growing.store(false, SeqCst);
}

/// Starts one more thread unless there are `most`.
fn hire(crew: &Arc<Crew>, most: usize) {
    let more = |threads| (threads < most).then_some(threads + 1);
    if crew.threads.fetch_update(SeqCst, SeqCst, more).is_err() {
        return;
    }
    let member = Member(crew.clone());
    let thread = std::thread::Builder::new().name("python".to_owned());
    if let Err(error) = thread.spawn(move || Python::attach(|py| member.serve(py))) {
        tracing::error!(target: "kernel", "cannot start a Python thread: {error}");
    }
}

/// One thread of the crew; counted out when dropped, also by a panic.
struct Member(Arc<Crew>);

impl Drop for Member {
    fn drop(&mut self) {
        self.0.threads.fetch_sub(1, SeqCst);
    }
}

impl Member {
    fn serve(&self, py: Python<'_>) {
        // SAFETY: no preconditions.
        let thread = unsafe { ffi::PyThread_get_thread_ident() };
        let seat = Arc::new(Seat { thread, job: Mutex::new(0), fired: AtomicBool::new(false) });
        while let Some(job) = self.next(py) {
            self.0.taken.fetch_add(1, SeqCst);
            seat.run(py, job);
        }
    }

    fn next(&self, py: Python<'_>) -> Option<Job> {
        if let Ok(job) = self.0.queue.try_recv() {
            return Some(job);
        }
        loop {
            self.0.idle.fetch_add(1, SeqCst);
            let job = py.detach(|| self.0.queue.recv_timeout(IDLE));
            self.0.idle.fetch_sub(1, SeqCst);
            match job {
                Ok(job) => return Some(job),
                Err(RecvTimeoutError::Timeout) if self.0.threads.load(SeqCst) <= THREADS => {}
                Err(_) => return None,
            }
        }
    }
}

impl Seat {
    fn run(self: &Arc<Self>, py: Python<'_>, job: Job) {
        *self.job.lock().expect("no panic while held") = job.slot.id;
        // First the seat, then the flag; the canceller goes the other way round, so one of
        // the two sees the other.
        let _ = job.slot.seat.set(self.clone());
        if !job.slot.cancelled.load(SeqCst) {
            (job.work)(py);
        }
        let mut current = self.job.lock().expect("no panic while held");
        *current = 0;
        if self.fired.swap(false, SeqCst) {
            // Fired but not delivered, it would hit the next job of this thread.
            // SAFETY: attached; NULL clears a pending exception.
            unsafe { ffi::PyThreadState_SetAsyncExc(self.thread as _, std::ptr::null_mut()) };
        }
    }

    /// Raises `ToolCancelled` in the thread if it is still at this job.
    fn interrupt(&self, py: Python<'_>, id: u64) {
        // Both sides take this lock attached and hold it without waiting, so neither can
        // block the other while it has the interpreter.
        let current = self.job.lock().expect("no panic while held");
        if *current != id {
            return;
        }
        if let Ok(class) = Omni::get(py).and_then(|omni| omni.tool_cancelled(py)) {
            self.fired.store(true, SeqCst);
            // SAFETY: attached; the thread is at this job and so alive; a class is passed.
            unsafe { ffi::PyThreadState_SetAsyncExc(self.thread as _, class.as_ptr()) };
        }
    }
}

/// Cancels a call whose future is dropped.
struct Guard(Option<Arc<Slot>>);

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(slot) = self.0.take() else { return };
        slot.cancelled.store(true, SeqCst);
        let Some(seat) = slot.seat.get().cloned() else { return };
        // A thread of its own: attaching waits for the interpreter, which this very tool may hold.
        let canceller = std::thread::Builder::new().name("canceller".to_owned());
        let started = canceller.spawn(move || {
            std::thread::sleep(GRACE);
            Python::attach(|py| seat.interrupt(py, slot.id));
        });
        if let Err(error) = started {
            tracing::error!(target: "kernel", "cannot cancel a tool: {error}");
        }
    }
}
