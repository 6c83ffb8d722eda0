//! The children's side: the zygote, which has imported what every tool needs and forks, and the
//! workers it forks, which run one call after the other.
//!
//! Both have one thread and hold the interpreter all the time. What they write to descriptor 1
//! or 2 goes to the log of the process that started them; their messages have descriptors of
//! their own.

use std::io::{self, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pyo3::ffi;
use pyo3::prelude::*;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer};
use tokio_util::sync::CancellationToken;

use super::caller;
use super::confine::confine;
use super::wire::{Cage, Command, Home, Order, Report, Word};
use crate::kernel::bridge::{self, Fault, NativeContext, Own};
use crate::kernel::handle::{Handle, Place, Returned};
use crate::kernel::{Interpreter, interpreter};
use crate::tool::{Context, Output};

/// Where the zygote hears its commands.
pub(super) const CONTROL: RawFd = 3;
/// Bytes of a command.
pub(super) const COMMAND: usize = 64 << 10;

/// Runs the zygote until nobody holds the other end of descriptor 3.
///
/// It imports from `environment`, and `modules` before it forks.
pub fn zygote(
    interpreter: Interpreter,
    environment: Option<&Path>,
    modules: &[String],
) -> Result<(), String> {
    // SAFETY: whoever starts a zygote gives it this descriptor; nobody else here has it.
    let control = unsafe { OwnedFd::from_raw_fd(CONTROL) };
    let told = |error: io::Error| format!("the zygote cannot go on: {error}");
    let signals = signals().map_err(told)?;
    let ready = || Python::attach(|py| ready(py, modules)).map_err(|error| error.to_string());
    let started = interpreter.start_in(environment).and_then(|()| ready());
    if !modules.is_empty() && !is_single() {
        // A thread of theirs does not live on in a fork, and may hold a lock that then stays held.
        return Err(again(interpreter, environment));
    }
    match &started {
        Ok(()) => report(&control, &Report::Ready),
        Err(reason) => report(&control, &Report::Failed { id: None, reason: reason.clone() }),
    }
    .map_err(told)?;
    started?;
    Python::attach(|py| Zygote { control, signals, children: Vec::new(), is_warm: false }.serve(py))
        .map_err(told)
}

/// Becomes a zygote that imports nothing beforehand. Returns only if that cannot be done.
fn again(interpreter: Interpreter, environment: Option<&Path>) -> String {
    let mut command = match interpreter.again() {
        Ok(command) => command,
        Err(reason) => return reason,
    };
    command.args(["worker", "--zygote"]);
    environment.inspect(|environment| interpreter::enter(&mut command, environment));
    command.exec().to_string()
}

/// Whether this process has one thread.
fn is_single() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1)
}

/// Imports what every tool needs, and these modules.
fn ready(py: Python<'_>, modules: &[String]) -> PyResult<()> {
    let gc = py.import("gc")?;
    gc.call_method0("disable")?;
    bridge::Omni::get(py)?;
    for module in modules {
        // What fails here fails again where it is used, and is told there.
        py.import(module.as_str()).ok();
    }
    freeze(&gc)
}

/// Imports what many tools need, so that every fork from now on has it.
fn warm(py: Python<'_>) -> PyResult<()> {
    let gc = py.import("gc")?;
    gc.call_method0("disable")?;
    for module in ["asyncio", "json", "pathlib", "subprocess", "random", "datetime"] {
        py.import(module)?;
    }
    py.import("omni.kernel")?.call_method0("warm")?;
    freeze(&gc)
}

/// What is here already is never looked at again, so its pages stay shared.
fn freeze(gc: &Bound<'_, PyModule>) -> PyResult<()> {
    gc.call_method0("freeze")?;
    gc.call_method0("enable").map(drop)
}

struct Zygote {
    control: OwnedFd,
    /// Readable when a child has ended.
    signals: OwnedFd,
    children: Vec<(u64, libc::pid_t)>,
    /// Whether it has imported what many tools need. Somebody waits for the first fork.
    is_warm: bool,
}

impl Zygote {
    fn serve(mut self, py: Python<'_>) -> io::Result<()> {
        // Whoever loses their parent becomes our child and is ended: nothing outlives its call.
        // SAFETY: plain system call.
        unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
        loop {
            let descriptor =
                |fd: &OwnedFd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            let mut ready = [descriptor(&self.control), descriptor(&self.signals)];
            let waits = self.is_warm || self.children.is_empty();
            // SAFETY: two structures of our own.
            match unsafe { libc::poll(ready.as_mut_ptr(), 2, if waits { -1 } else { 0 }) } {
                0 => {
                    self.is_warm = true;
                    if let Err(error) = warm(py) {
                        let _ = writeln!(io::stderr(), "a zygote stays cold: {error}");
                    }
                    continue;
                }
                count if count < 0 => continue,
                _ => {}
            }
            if ready[1].revents != 0 {
                self.reap()?;
            }
            if ready[0].revents != 0 {
                match receive(&self.control)? {
                    Some((Command::Fork { id, cage }, Some(stream))) => self.fork(py, id, &cage, stream)?,
                    Some((Command::Fork { id, .. }, None)) => {
                        let reason = "it came without a connection".to_owned();
                        report(&self.control, &Report::Failed { id: Some(id), reason })?;
                    }
                    Some((Command::Kill { id }, _)) => self.kill(id),
                    // Our children die with us.
                    None => {
                        self.children.clone().into_iter().for_each(|(id, _)| self.kill(id));
                        return Ok(());
                    }
                }
            }
        }
    }

    fn fork(&mut self, py: Python<'_>, id: u64, cage: &Cage, stream: OwnedFd) -> io::Result<()> {
        // SAFETY: this process has one thread; Python is told before and after, as `os.fork` does.
        let child = unsafe {
            ffi::PyOS_BeforeFork();
            let child = libc::fork();
            match child {
                0 => ffi::PyOS_AfterFork_Child(),
                _ => ffi::PyOS_AfterFork_Parent(),
            }
            child
        };
        match child {
            0 => {
                let code =
                    match become_worker(py, cage, UnixStream::from(stream), &self.control, &self.signals) {
                        Ok(()) => 0,
                        Err(error) => {
                            let _ = writeln!(io::stderr(), "a worker cannot go on: {error}");
                            1
                        }
                    };
                // SAFETY: no destructor is owed anything.
                unsafe { libc::_exit(code) }
            }
            child if child < 0 => {
                let reason = format!("cannot fork: {}", io::Error::last_os_error());
                report(&self.control, &Report::Failed { id: Some(id), reason })
            }
            child => {
                self.children.push((id, child));
                Ok(())
            }
        }
    }

    /// Ends a worker and its group. It has not been waited for, so its id is its own.
    fn kill(&self, id: u64) {
        if let Some((_, child)) = self.children.iter().find(|(other, _)| *other == id) {
            // SAFETY: plain system calls. The worker alone is killed too, in case it dies before
            // it has made its group.
            unsafe {
                libc::kill(-child, libc::SIGKILL);
                libc::kill(*child, libc::SIGKILL);
            }
        }
    }

    fn reap(&mut self) -> io::Result<()> {
        let mut buffer = MaybeUninit::<libc::signalfd_siginfo>::uninit();
        // SAFETY: reads into a structure of our own; what it says is not used.
        unsafe {
            libc::read(self.signals.as_raw_fd(), buffer.as_mut_ptr().cast(), size_of_val(&buffer));
        }
        loop {
            let mut about = MaybeUninit::<libc::siginfo_t>::zeroed();
            // Looked at first: as long as it is not reaped its group cannot be somebody else's.
            // SAFETY: plain system calls on structures of our own.
            let ended = unsafe {
                let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
                if libc::waitid(libc::P_ALL, 0, about.as_mut_ptr(), options) != 0 {
                    return Ok(());
                }
                about.assume_init().si_pid()
            };
            if ended == 0 {
                break;
            }
            let mut status = 0;
            // SAFETY: as above.
            unsafe {
                libc::kill(-ended, libc::SIGKILL);
                libc::waitpid(ended, &raw mut status, 0);
            }
            if let Some(place) = self.children.iter().position(|(_, child)| *child == ended) {
                let (id, _) = self.children.swap_remove(place);
                report(&self.control, &Report::Ended { id, status })?;
                end_orphans(&self.children);
            }
        }
        Ok(())
    }
}

/// Ends the children we have got because their own parent is dead.
fn end_orphans(workers: &[(u64, libc::pid_t)]) {
    let own = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    for child in own.split_whitespace().filter_map(|word| word.parse::<libc::pid_t>().ok()) {
        if !workers.iter().any(|(_, worker)| *worker == child) {
            // SAFETY: plain system call; it is our child and not reaped.
            unsafe { libc::kill(child, libc::SIGKILL) };
        }
    }
}

/// Blocks SIGCHLD and makes it readable.
fn signals() -> io::Result<OwnedFd> {
    // SAFETY: plain system calls on a set of our own.
    unsafe {
        let mut set = MaybeUninit::uninit();
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
        let fd = libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

fn receive(control: &OwnedFd) -> io::Result<Option<(Command, Option<OwnedFd>)>> {
    let mut body = vec![0; COMMAND];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let parts = &mut [IoSliceMut::new(&mut body)];
    let got = rustix::net::recvmsg(control, parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    if got.bytes == 0 || got.flags.contains(ReturnFlags::TRUNC) {
        return Ok(None);
    }
    let stream = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok(Some((serde_json::from_slice(&body[..got.bytes])?, stream)))
}

/// Sends a message and perhaps a descriptor over a connection that keeps messages apart.
pub(super) fn send(
    control: impl AsFd,
    message: &impl serde::Serialize,
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<_> = descriptor.into_iter().collect();
    if !descriptors.is_empty() {
        ancillary.push(rustix::net::SendAncillaryMessage::ScmRights(&descriptors));
    }
    let flags = rustix::net::SendFlags::NOSIGNAL;
    rustix::net::sendmsg(control, &[IoSlice::new(&body)], &mut ancillary, flags)?;
    Ok(())
}

fn report(control: &OwnedFd, report: &Report) -> io::Result<()> {
    send(control, report, None)
}

/// What the child of a fork does to the end of its life.
fn become_worker(
    py: Python<'_>,
    cage: &Cage,
    stream: UnixStream,
    control: &OwnedFd,
    signals: &OwnedFd,
) -> io::Result<()> {
    // SAFETY: plain system calls. The zygote's own descriptors are closed: nobody but the zygote
    // may answer for it. The values that own them are never dropped here.
    unsafe {
        libc::setsid();
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::close(control.as_raw_fd());
        libc::close(signals.as_raw_fd());
        let mut all = MaybeUninit::uninit();
        libc::sigfillset(all.as_mut_ptr());
        libc::sigprocmask(libc::SIG_UNBLOCK, all.as_ptr(), std::ptr::null_mut());
    }
    let told = |error: PyErr| io::Error::other(error.to_string());
    let environ = py.import("os").and_then(|os| os.getattr("environ")).map_err(told)?;
    for (name, value) in &cage.environment {
        environ.set_item(name, value).map_err(told)?;
    }
    confine(cage)?;
    let Some(home) = caller::connect(stream)? else { return Ok(()) };
    let mut house = House::new(home);
    // The interpreter stays ours: threads that a call has left behind stand still until the next.
    while let Some(order) = caller::order() {
        let result = house.play(py, order).map_err(|error| Fault::of(py, &error));
        if let Err(error) = caller::answer(&result) {
            if error.kind() != io::ErrorKind::FileTooLarge {
                return Err(error);
            }
            caller::answer(&Err(Fault::Failed(format!("the result is too large: {error}"))))?;
        }
    }
    // Whoever calls has no more orders: extensions are torn down. It waits for a while.
    py.import("atexit").and_then(|atexit| atexit.call_method0("_run_exitfuncs")).map(drop).map_err(told)
}

/// What a worker knows of the skill it is for.
struct House {
    home: Home,
    own: Arc<Own>,
    workspace: Arc<PathBuf>,
    handles: Vec<(Place, Arc<Handle>)>,
}

impl House {
    fn new(home: Home) -> Self {
        let (data, settings) = (home.data.as_path().into(), home.settings.clone());
        let own = Arc::new(Own { skill: home.skill.as_str().into(), data, settings, runtime: None });
        Self { workspace: Arc::new(home.workspace.clone()), own, home, handles: Vec::new() }
    }

    /// One call.
    fn play(&mut self, py: Python<'_>, order: Order) -> PyResult<Output> {
        let handle = self.handle(py, order.file, order.function)?;
        let context = Context {
            id: order.call,
            session: order.session,
            workspace: self.workspace.clone(),
            // Who calls it off ends this process.
            cancel: CancellationToken::new(),
            request: None,
            progress: Arc::new(|step| {
                caller::say(|| Word::Progress(step));
            }),
            // What it says and asks for is for the caller.
            logger: None,
            nested: None,
        };
        let context = NativeContext::new(context, self.own.clone());
        if !order.is_async {
            return handle.invoke(py, &order.arguments, context).map(Returned::output);
        }
        let coroutine = handle.call.bind(py).call1(handle.arguments(py, &order.arguments, context)?)?;
        bridge::output(&py.import("omni.loop")?.call_method1("run", (coroutine,))?)
    }

    fn handle(&mut self, py: Python<'_>, file: String, function: String) -> PyResult<Arc<Handle>> {
        let is = |place: &Place| place.file == file && place.function == function;
        if let Some((_, handle)) = self.handles.iter().find(|(place, _)| is(place)) {
            return Ok(handle.clone());
        }
        let Home { skill, folder, version, sources, engines, .. } = &self.home;
        let (skill, folder, version) = (skill.clone(), folder.clone(), *version);
        let (sources, engines) = (sources.clone(), engines.clone());
        let place = Place { skill, folder, file, function, version, sources, engines };
        let handle = Handle::resolve(py, &place)?;
        self.handles.push((place, handle.clone()));
        Ok(handle)
    }
}
