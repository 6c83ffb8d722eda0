//! One asyncio event loop, on a thread of its own, for `async def` tools.
//!
//! Callers push into a queue and ring an eventfd; the loop drains the queue in one go. No
//! other thread takes the interpreter for it. The Python half is `omni.loop.serve`.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde_json::{Map, Value};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::bridge::{self, NativeContext, Omni};
use super::handle::Handle;
use super::presence;
use crate::tool::{Error, Output};

/// Calls that may wait to be started.
const WAITING: usize = 16_384;
/// A loop that has not looked at a cancelled call for so long is held by one of its tools.
const HELD: Duration = Duration::from_secs(1);

/// The loop, seen from Rust.
pub(super) struct Looper(Arc<Desk>);

struct Desk {
    /// `None` once the loop has ended.
    queue: Mutex<Option<VecDeque<Job>>>,
    cancelled: Mutex<Vec<u64>>,
    bell: OwnedFd,
    rung: AtomicBool,
    stopping: AtomicBool,
    /// The loop's thread as Python names it; 0 before it runs and after it has ended.
    thread: AtomicU64,
    /// Told which tool held the loop.
    blame: Blame,
}

/// Takes the name of a tool that has held the loop.
pub(super) type Blame = Box<dyn Fn(&str) + Send + Sync>;

struct Job {
    ticket: Ticket,
    handle: Arc<Handle>,
    arguments: Map<String, Value>,
    context: NativeContext,
}

type Answer = oneshot::Sender<Result<Output, Error>>;

impl Looper {
    /// Starts the thread and its loop.
    pub(super) fn start(blame: Blame) -> Result<Self, String> {
        let desk = Arc::new(Desk::new(blame)?);
        let (jobs, ended) = (Jobs(desk.clone()), desk.clone());
        let serve = move |py: Python<'_>| {
            // SAFETY: no preconditions.
            jobs.0.thread.store(unsafe { ffi::PyThread_get_thread_ident() }, SeqCst);
            let desk = jobs.0.clone();
            let served = py.import("omni.loop").and_then(|looping| looping.call_method1("serve", (jobs,)));
            desk.thread.store(0, SeqCst);
            served.map(drop)
        };
        std::thread::Builder::new()
            .name("python-async".to_owned())
            .spawn(move || {
                if let Some(Err(error)) = presence::attach(serve) {
                    tracing::error!(target: "kernel", "the event loop for async tools ended: {error}");
                }
                // Those who wait hear of it, and nobody queues up any more.
                drop(ended.queue.lock().expect("no panic while held").take());
            })
            .map_err(|error| format!("cannot start the thread for async tools: {error}"))?;
        Ok(Self(desk))
    }

    /// Runs one call. Dropping the future cancels its task; so does the token, and then the
    /// task's end is waited for.
    pub(super) async fn call(
        &self,
        tool: &str,
        handle: Arc<Handle>,
        arguments: Map<String, Value>,
        context: NativeContext,
        cancel: &CancellationToken,
    ) -> Result<Output, Error> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let (sender, mut receiver) = oneshot::channel();
        let id = NEXT.fetch_add(1, SeqCst);
        let ticket = Ticket { id, tool: tool.to_owned(), answer: Mutex::new(Some(sender)) };
        {
            let mut queue = self.0.queue.lock().expect("no panic while held");
            let Some(queue) = queue.as_mut() else {
                return Err(bridge::broken(tool, "the event loop for async tools has ended"));
            };
            if queue.len() >= WAITING {
                return Err(Error::Failed("too many tool calls are waiting already".to_owned()));
            }
            queue.push_back(Job { ticket, handle, arguments, context });
        }
        self.0.ring();
        let mut guard = Guard { desk: &self.0, id: Some(id) };
        let result = tokio::select! {
            biased;
            result = &mut receiver => result,
            () = cancel.cancelled() => {
                guard.cancel();
                receiver.await
            }
        };
        guard.id = None;
        result.unwrap_or_else(|_| Err(bridge::broken(tool, "the event loop dropped the call")))
    }
}

impl Drop for Looper {
    fn drop(&mut self) {
        self.0.stopping.store(true, SeqCst);
        self.0.ring();
    }
}

impl Desk {
    fn new(blame: Blame) -> Result<Self, String> {
        // SAFETY: plain system call; the descriptor is owned from here on.
        let bell = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if bell < 0 {
            return Err(format!("no eventfd: {}", std::io::Error::last_os_error()));
        }
        Ok(Self {
            queue: Mutex::new(Some(VecDeque::new())),
            cancelled: Mutex::default(),
            // SAFETY: just made, owned by nobody else.
            bell: unsafe { OwnedFd::from_raw_fd(bell) },
            rung: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            thread: AtomicU64::new(0),
            blame,
        })
    }

    fn cancel(self: &Arc<Self>, id: u64) {
        let first = {
            let mut cancelled = self.cancelled.lock().expect("no panic while held");
            cancelled.push(id);
            cancelled.len() == 1
        };
        self.ring();
        if first && let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(self.clone().watch(id));
        }
    }

    /// Frees the loop from a tool that never gives way: as long as it does not take note of
    /// this cancelled call, `ToolCancelled` is raised in its thread. Python in a loop hears
    /// it at once, a blocking call when it returns.
    async fn watch(self: Arc<Self>, id: u64) {
        loop {
            tokio::time::sleep(HELD).await;
            if self.cancelled.lock().expect("no panic while held").first() != Some(&id) {
                return;
            }
            let desk = self.clone();
            // Attaching waits for the interpreter.
            let interrupted =
                tokio::task::spawn_blocking(move || presence::attach(|py| desk.interrupt(py, id)));
            let Some(tool) = interrupted.await.ok().flatten().flatten() else { return };
            (self.blame)(&tool);
        }
    }

    /// Raises `ToolCancelled` in the loop's thread, if it has still not taken note of the call.
    /// Returns the name of the tool that it is at.
    fn interrupt(&self, py: Python<'_>, id: u64) -> Option<String> {
        let class = Omni::get(py).ok()?.tool_cancelled(py);
        let thread = self.thread.load(SeqCst);
        let tool = py.import("omni.loop").and_then(|looping| looping.call_method1("holding", (thread,)));
        let tool = tool.and_then(|tool| tool.extract::<Option<String>>()).ok().flatten();
        let held = self.cancelled.lock().expect("no panic while held").first() == Some(&id);
        if !held || thread == 0 {
            return None;
        }
        // SAFETY: attached; the thread is alive, as it clears its number while attached; a
        // class is passed.
        unsafe { ffi::PyThreadState_SetAsyncExc(thread as _, class.as_ptr()) };
        Some(tool.unwrap_or_else(|| "a coroutine".to_owned()))
    }

    fn ring(&self) {
        if !self.rung.swap(true, SeqCst) {
            let one = 1_u64.to_ne_bytes();
            // SAFETY: eight bytes to an eventfd that we own.
            unsafe { libc::write(self.bell.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        }
    }
}

struct Guard<'a> {
    desk: &'a Arc<Desk>,
    id: Option<u64>,
}

impl Guard<'_> {
    fn cancel(&mut self) {
        if let Some(id) = self.id.take() {
            self.desk.cancel(id);
        }
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// What waits for the event loop; the loop's side of the queue.
#[pyclass(frozen, module = "_omni")]
pub struct Jobs(Arc<Desk>);

#[pymethods]
impl Jobs {
    /// A descriptor that is readable when there is something to do.
    fn fileno(&self) -> RawFd {
        self.0.bell.as_raw_fd()
    }

    /// The ids of tickets that nobody waits for any more. To be asked first: what happens
    /// from here on rings again.
    fn cancelled(&self) -> Vec<u64> {
        self.0.rung.store(false, SeqCst);
        std::mem::take(&mut *self.0.cancelled.lock().expect("no panic while held"))
    }

    /// Everything that waits, as `(ticket, handle, arguments, context)`.
    #[allow(clippy::type_complexity, reason = "the shape of the tuple is the contract")]
    fn drain<'py>(&self, py: Python<'py>) -> Vec<(Ticket, Py<PyAny>, Bound<'py, PyDict>, Bound<'py, PyAny>)> {
        let jobs = self.0.queue.lock().expect("no panic while held").as_mut().map(std::mem::take);
        let jobs = jobs.unwrap_or_default().into_iter();
        jobs.filter_map(|Job { ticket, handle, arguments, context }| {
            match handle.arguments(py, &arguments, context) {
                Ok((arguments, context)) => Some((ticket, handle.call.clone_ref(py), arguments, context)),
                Err(error) => {
                    ticket.send(Err(bridge::error(py, &ticket.tool, &error)));
                    None
                }
            }
        })
        .collect()
    }

    /// Whether the loop is to end.
    fn stopping(&self) -> bool {
        self.0.stopping.load(SeqCst)
    }
}

/// A place for the result of one call.
#[pyclass(frozen, module = "_omni")]
pub struct Ticket {
    /// Names the call in `Jobs.cancelled`.
    #[pyo3(get)]
    id: u64,
    tool: String,
    answer: Mutex<Option<Answer>>,
}

impl Ticket {
    fn send(&self, result: Result<Output, Error>) {
        if let Some(answer) = self.answer.lock().expect("no panic while held").take() {
            let _ = answer.send(result);
        }
    }
}

#[pymethods]
impl Ticket {
    /// The call returned this pair of content and structured value.
    fn done(&self, py: Python<'_>, result: &Bound<'_, PyAny>) {
        self.send(bridge::output(result).map_err(|error| bridge::error(py, &self.tool, &error)));
    }

    /// The call raised this.
    fn failed(&self, py: Python<'_>, exception: Bound<'_, PyAny>) {
        self.send(Err(bridge::error(py, &self.tool, &PyErr::from_value(exception))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Interpreter;

    #[test]
    fn a_cancel_between_two_looks_rings_again() {
        Interpreter::Embedded.start().unwrap();
        let desk = Arc::new(Desk::new(Box::new(|_| ())).unwrap());
        let jobs = Jobs(desk.clone());
        desk.ring();
        assert!(desk.silence(), "rung");
        assert_eq!(jobs.cancelled(), Vec::<u64>::new());
        desk.cancel(1);
        Python::attach(|py| assert!(jobs.drain(py).is_empty()));
        assert!(desk.silence(), "the cancel was not heard of");
        assert_eq!(jobs.cancelled(), [1]);
    }

    impl Desk {
        /// Reads the bell, as the loop does; whether it had rung.
        fn silence(&self) -> bool {
            let mut count = [0; 8];
            // SAFETY: eight bytes from an eventfd that does not block.
            unsafe { libc::read(self.bell.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) == 8 }
        }
    }
}
