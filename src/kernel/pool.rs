//! Threads for plain Python functions.
//!
//! One thread serves all calls for as long as they are short: the interpreter runs one thread at
//! a time, and two that take turns cost more in waking and waiting than most calls take. It stays
//! attached while there is work and detaches only to look for more or to sleep: creating and
//! destroying a thread state for each call would cost more than most calls as well. When it is
//! stuck in a long call another one takes over, up to a bound. No thread can be killed: one whose
//! tool never returns is lost, and another one takes its place.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use pyo3::ffi;
use pyo3::prelude::*;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::bridge::Omni;
use super::presence;
use super::watch::Watch;
use crate::measure;

/// Threads that are kept when there is nothing to do.
const THREADS: usize = 1;
/// Threads there may be at once; more stuck tools than this wait.
const MOST_THREADS: usize = 32;
/// Calls that may wait.
const WAITING: usize = 16_384;
/// After this long in which nobody took work that waits, one more thread serves.
const STUCK: Duration = Duration::from_millis(2);
/// So long a thread that had work looks for more before it sleeps: callers that call again at
/// once are spared the time that waking it takes, which is more than that of most calls.
const ALERT: Duration = Duration::from_micros(50);
/// So many looks it takes before it lets other threads run between two: giving way costs more
/// than most work takes to come when there is much of it.
const LOOKS: usize = 100;
/// An extra thread leaves after this long without work.
const IDLE: Duration = Duration::from_secs(10);
/// Time a cancelled tool has to notice `ctx.cancelled` before an exception is raised in it.
const GRACE: Duration = Duration::from_millis(200);

/// After this long a cancelled tool that still runs has swallowed what was raised in it, or is in
/// a call that does not return.
const LOST: Duration = Duration::from_millis(1200);

/// Threads that may wait for what their tools have asked for.
const ASIDE: usize = 256;

thread_local! {
    /// What this thread has to do, if it is one of a crew.
    static DUTY: RefCell<Option<Arc<Duty>>> = const { RefCell::new(None) };
}

/// Told when a tool is lost with its thread.
pub(super) type Blame = Arc<dyn Fn() + Send + Sync>;

/// The threads and their queue.
pub(super) struct Pool {
    jobs: Sender<Job>,
    crew: Arc<Crew>,
    notices: OnceLock<Sender<Notice>>,
}

struct Crew {
    queue: Receiver<Job>,
    /// All threads there are.
    threads: AtomicUsize,
    /// Those that are at work or about to look for some. One that sleeps is never counted, and
    /// one that goes to sleep looks at the queue once more: so work that finds somebody awake is seen.
    /// Those that are stuck in a long call are not counted either, from when that is known.
    watch: Watch,
    asleep: Mutex<Vec<(Thread, Arc<AtomicU32>)>>,
    taken: AtomicU64,
    growing: AtomicBool,
    /// Threads that wait for what their tools have asked for; they count neither as there nor as
    /// awake.
    aside: AtomicUsize,
    /// Whether no more work will come.
    over: AtomicBool,
}

impl Drop for Pool {
    /// Its threads leave.
    fn drop(&mut self) {
        self.crew.over.store(true, SeqCst);
        for (thread, _) in self.crew.asleep.lock().expect("no panic while held").iter() {
            thread.unpark();
        }
    }
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
    at: Mutex<At>,
}

struct At {
    /// The job's id; 0 between two jobs.
    job: u64,
    /// Whether an exception was raised in it.
    fired: bool,
}

/// A job that is to be interrupted, unless it has ended by then.
struct Notice {
    due: Instant,
    seat: Arc<Seat>,
    job: u64,
}

/// Why a call has no result.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// Too many calls wait already.
    Full,
    /// It was cancelled before it began.
    Cancelled,
    /// The work panicked.
    Died,
}

impl Pool {
    pub(super) fn new() -> Self {
        let (jobs, queue) = crossbeam_channel::bounded(WAITING);
        let crew = Crew {
            queue,
            threads: AtomicUsize::new(0),
            watch: Watch::default(),
            asleep: Mutex::default(),
            taken: AtomicU64::new(0),
            growing: AtomicBool::new(false),
            aside: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        };
        Self { jobs, crew: Arc::new(crew), notices: OnceLock::new() }
    }

    /// Runs `work` on one of the threads, attached. Cancelling the token, or dropping the
    /// future, raises `ToolCancelled` in it after [`GRACE`]; the result is waited for. What
    /// `blame` returns is called when it still runs after [`LOST`].
    pub(super) async fn run<T: Send + 'static>(
        &self,
        cancel: &CancellationToken,
        blame: Option<&(dyn Fn() -> Blame + Sync)>,
        work: impl FnOnce(Python<'_>) -> T + Send + 'static,
    ) -> Result<T, Lost> {
        let (slot, mut receiver) = self.submit(work)?;
        let mut guard = Guard { pool: self, slot: Some(slot), blame };
        let result = tokio::select! {
            biased;
            result = &mut receiver => result,
            () = cancel.cancelled() => match guard.cancel() {
                true => (&mut receiver).await,
                false => return Err(Lost::Cancelled),
            }
        };
        guard.slot = None;
        result.map_err(|_| Lost::Died)
    }

    /// Runs `work` to its end, whoever still waits for it.
    pub(super) async fn finish<T: Send + 'static>(
        &self,
        work: impl FnOnce(Python<'_>) -> T + Send + 'static,
    ) -> Result<T, Lost> {
        let (_, receiver) = self.submit(work)?;
        receiver.await.map_err(|_| Lost::Died)
    }

    fn submit<T: Send + 'static>(
        &self,
        work: impl FnOnce(Python<'_>) -> T + Send + 'static,
    ) -> Result<(Arc<Slot>, oneshot::Receiver<T>), Lost> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let (sender, receiver) = oneshot::channel();
        let slot = Arc::new(Slot {
            id: NEXT.fetch_add(1, SeqCst),
            cancelled: AtomicBool::new(false),
            seat: OnceLock::new(),
        });
        let since = measure::now();
        let work = move |py: Python<'_>| {
            measure::python(since);
            drop(sender.send(work(py)));
        };
        let job = Job { slot: slot.clone(), work: Box::new(work) };
        match self.jobs.try_send(job) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(Lost::Full),
            Err(TrySendError::Disconnected(_)) => unreachable!("the crew holds a receiver"),
        }
        self.staff();
        Ok((slot, receiver))
    }

    /// Sees to it that somebody takes the work.
    fn staff(&self) {
        summon(&self.crew);
        // Whether those who are awake are stuck cannot be known from here.
        if let Some(growing) = Growing::claim(&self.crew) {
            tokio::spawn(grow(growing));
        }
    }

    /// Interrupts a job after [`GRACE`]. The waiting is done by one thread for all: attaching
    /// waits for the interpreter, which the very tool may hold.
    fn interrupt(&self, seat: Arc<Seat>, job: u64) {
        let notice = Notice { due: Instant::now() + GRACE, seat, job };
        if let Err(error) = self.notices.get_or_init(canceller).try_send(notice) {
            tracing::error!(target: "kernel", "cannot interrupt a tool: {error}");
        }
    }
}

/// The right to add threads; one task has it.
struct Growing(Arc<Crew>);

impl Growing {
    /// Takes it, if work waits and nobody else has it.
    fn claim(crew: &Arc<Crew>) -> Option<Self> {
        let free = !crew.growing.load(SeqCst) && !crew.queue.is_empty();
        (free && !crew.growing.swap(true, SeqCst)).then(|| Self(crew.clone()))
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        self.0.growing.store(false, SeqCst);
    }
}

/// Puts more threads to work for as long as some waits and nobody takes any.
async fn grow(mut growing: Growing) {
    let crew = growing.0.clone();
    loop {
        while !crew.queue.is_empty() {
            let taken = crew.taken.load(SeqCst);
            tokio::time::sleep(STUCK).await;
            if !crew.queue.is_empty() && crew.taken.load(SeqCst) == taken {
                call(&crew, crew.watch.relieve());
            }
        }
        drop(growing);
        // Work that came before the right was given back has started no other task.
        match Growing::claim(&crew) {
            Some(again) => growing = again,
            None => return,
        }
    }
}

/// Puts a thread to work if none is.
fn summon(crew: &Arc<Crew>) {
    if let Some(number) = crew.watch.join(0) {
        call(crew, number);
    }
}

/// Has a thread come on this watch, which counts it already: one that sleeps, or a new one.
fn call(crew: &Arc<Crew>, number: u32) {
    let sleeper = {
        let mut asleep = crew.asleep.lock().expect("no panic while held");
        // Told before the list is free: it may wake by itself.
        asleep.pop().inspect(|(_, watch)| watch.store(number, SeqCst))
    };
    match sleeper {
        Some((thread, _)) => thread.unpark(),
        None if hire(crew, number) => {}
        None => crew.watch.leave(number),
    }
}

/// Starts one more thread, which counts as awake; `false` if there are enough.
fn hire(crew: &Arc<Crew>, number: u32) -> bool {
    let more = |threads| (threads < MOST_THREADS).then_some(threads + 1);
    if crew.threads.fetch_update(SeqCst, SeqCst, more).is_err() {
        return false;
    }
    let duty = Duty { crew: crew.clone(), watch: Mutex::new(Some(number)) };
    let thread = std::thread::Builder::new().name("python".to_owned());
    // A duty that is dropped counts its thread out.
    if let Err(error) = thread.spawn(move || presence::attach(|py| serve(duty, py))) {
        tracing::error!(target: "kernel", "cannot start a Python thread: {error}");
    }
    true
}

/// Waits on this thread for something that others of its crew may have to do: one of them takes
/// its place meanwhile. `None` if too many wait like this already.
pub(super) fn aside<T>(wait: impl FnOnce() -> T) -> Option<T> {
    let Some(duty) = DUTY.with_borrow(Clone::clone) else { return Some(wait()) };
    let _aside = Aside::step(duty)?;
    Some(wait())
}

/// A thread that has stepped aside; it counts again when this is dropped.
struct Aside(Arc<Duty>);

impl Aside {
    fn step(duty: Arc<Duty>) -> Option<Self> {
        let crew = &duty.crew;
        if crew.aside.fetch_add(1, SeqCst) >= ASIDE {
            crew.aside.fetch_sub(1, SeqCst);
            return None;
        }
        crew.threads.fetch_sub(1, SeqCst);
        duty.rest();
        if !crew.queue.is_empty() {
            summon(crew);
        }
        Some(Self(duty))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        let Duty { crew, .. } = self.0.as_ref();
        *self.0.watch() = Some(crew.watch.come());
        crew.threads.fetch_add(1, SeqCst);
        crew.aside.fetch_sub(1, SeqCst);
    }
}

/// What one thread of the crew has to do; counted out when dropped.
struct Duty {
    crew: Arc<Crew>,
    /// The watch that counts it.
    watch: Mutex<Option<u32>>,
}

impl Drop for Duty {
    fn drop(&mut self) {
        self.rest();
        self.crew.threads.fetch_sub(1, SeqCst);
    }
}

fn serve(duty: Duty, py: Python<'_>) {
    let duty = Arc::new(duty);
    DUTY.set(Some(duty.clone()));
    // SAFETY: no preconditions.
    let thread = unsafe { ffi::PyThread_get_thread_ident() };
    let seat = Arc::new(Seat { thread, at: Mutex::new(At { job: 0, fired: false }) });
    let crew = &duty.crew;
    while let Some(job) = duty.next(py) {
        let taken = crew.taken.fetch_add(1, SeqCst) + 1;
        seat.run(py, job);
        if !duty.is_wanted(taken) && !py.detach(|| duty.sleep()) {
            break;
        }
    }
    DUTY.take();
}

impl Duty {
    /// Whether it is to take more work, after the call that was the crew's `taken`th.
    fn is_wanted(&self, taken: u64) -> bool {
        let (number, awake) = self.crew.watch.read();
        let mut watch = self.watch();
        if *watch == Some(number) {
            // Others have worked meanwhile: this one was stuck, and has been replaced.
            return self.crew.taken.load(SeqCst) == taken || awake <= 1;
        }
        // It was relieved. If nobody is on watch any more, it is.
        *watch = self.crew.watch.join(0);
        watch.is_some()
    }

    fn watch(&self) -> std::sync::MutexGuard<'_, Option<u32>> {
        self.watch.lock().expect("no panic while held")
    }

    /// Counts this thread no more.
    fn rest(&self) {
        if let Some(number) = self.watch().take() {
            self.crew.watch.leave(number);
        }
    }

    fn next(&self, py: Python<'_>) -> Option<Job> {
        loop {
            if let Ok(job) = self.crew.queue.try_recv() {
                return Some(job);
            }
            if let Some(job) = py.detach(|| self.look()) {
                return Some(job);
            }
            if !py.detach(|| self.sleep()) {
                return None;
            }
        }
    }

    /// Looks for work for as long as there might be some at once.
    fn look(&self) -> Option<Job> {
        let began = Instant::now();
        let mut looks = 0;
        while looks < LOOKS || began.elapsed() < ALERT {
            if let Ok(job) = self.crew.queue.try_recv() {
                return Some(job);
            }
            match looks < LOOKS {
                true => std::hint::spin_loop(),
                false => std::thread::yield_now(),
            }
            looks += 1;
        }
        None
    }

    /// Sleeps until it is wanted; `false` if it should leave.
    fn sleep(&self) -> bool {
        let crew = &self.crew;
        let (me, watch) = (std::thread::current(), Arc::new(AtomicU32::new(0)));
        let sleepers = || crew.asleep.lock().expect("no panic while held");
        sleepers().push((me.clone(), watch.clone()));
        self.rest();
        if !crew.queue.is_empty() {
            summon(crew);
        }
        loop {
            let began = Instant::now();
            if !crew.over.load(SeqCst) {
                std::thread::park_timeout(IDLE);
            }
            let mut sleepers = sleepers();
            let Some(place) = sleepers.iter().position(|(thread, _)| thread.id() == me.id()) else {
                // Whoever took it from the list has said for which watch.
                *self.watch() = Some(watch.load(SeqCst));
                return true;
            };
            let is_spare = began.elapsed() >= IDLE && crew.threads.load(SeqCst) > THREADS;
            if is_spare || crew.over.load(SeqCst) {
                sleepers.remove(place);
                return false;
            }
        }
    }
}

impl Seat {
    fn run(self: &Arc<Self>, py: Python<'_>, job: Job) {
        self.at.lock().expect("no panic while held").job = job.slot.id;
        // First the seat, then the flag; the canceller goes the other way round, so one of
        // the two sees the other.
        let _ = job.slot.seat.set(self.clone());
        if !job.slot.cancelled.load(SeqCst) {
            // A panic costs its call, not the thread; the panic hook has told of it.
            let _ = catch_unwind(AssertUnwindSafe(|| (job.work)(py)));
        }
        let mut at = self.at.lock().expect("no panic while held");
        at.job = 0;
        if std::mem::take(&mut at.fired) {
            // Fired but not delivered, it would hit the next job of this thread.
            // SAFETY: attached; NULL clears a pending exception.
            unsafe { ffi::PyThreadState_SetAsyncExc(self.thread as _, std::ptr::null_mut()) };
        }
    }

    fn is_at(&self, job: u64) -> bool {
        self.at.lock().expect("no panic while held").job == job
    }

    /// Raises `ToolCancelled` in the thread if it is still at this job.
    fn interrupt(&self, py: Python<'_>, job: u64) {
        // Looked up before the lock is taken: it may run Python, which may pass the
        // interpreter on to the very thread that then waits for the lock.
        let Ok(class) = Omni::get(py).map(|omni| omni.tool_cancelled(py)) else { return };
        let mut at = self.at.lock().expect("no panic while held");
        if at.job == job {
            at.fired = true;
            // SAFETY: attached; the thread is at this job and so alive; a class is passed.
            unsafe { ffi::PyThreadState_SetAsyncExc(self.thread as _, class.as_ptr()) };
        }
    }
}

/// Cancels a call whose future is dropped.
struct Guard<'a> {
    pool: &'a Pool,
    slot: Option<Arc<Slot>>,
    blame: Option<&'a (dyn Fn() -> Blame + Sync)>,
}

impl Guard<'_> {
    /// Cancels the call; `false` if it has not begun, and now never will.
    fn cancel(&mut self) -> bool {
        let Some(slot) = self.slot.take() else { return false };
        slot.cancelled.store(true, SeqCst);
        let Some(seat) = slot.seat.get() else { return false };
        self.pool.interrupt(seat.clone(), slot.id);
        if let (Some(blame), Ok(runtime)) = (self.blame.take(), tokio::runtime::Handle::try_current()) {
            let (seat, job, blame) = (seat.clone(), slot.id, blame());
            runtime.spawn(async move {
                tokio::time::sleep(LOST).await;
                if seat.is_at(job) {
                    blame();
                }
            });
        }
        true
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// Starts the thread that interrupts jobs; it ends with the sender.
fn canceller() -> Sender<Notice> {
    let (sender, notices) = crossbeam_channel::bounded::<Notice>(WAITING);
    let work = move || {
        // They come in the order in which they are due: all wait equally long.
        for Notice { due, seat, job } in notices {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if seat.is_at(job) {
                presence::attach(|py| seat.interrupt(py, job));
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name("canceller".to_owned()).spawn(work) {
        tracing::error!(target: "kernel", "cannot start the thread that interrupts tools: {error}");
    }
    sender
}
