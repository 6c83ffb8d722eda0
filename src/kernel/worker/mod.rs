//! Tools in processes of their own: what crashes, hangs, leaks or is not trusted harms itself.
//!
//! A worker is forked from a zygote, this binary with Python and `omni` imported, which takes
//! milliseconds; it is [confined](confine) and runs one call after the other for one skill in
//! one workspace. Its caller has the same as of a call in this process: results, errors,
//! progress, log. Cancelling a call, or its time limit, kills the worker with everything it has
//! started; the next call gets another one.

mod caller;
pub mod child;
pub mod confine;
pub(super) mod wire;
mod zygote;
mod zygotes;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::{AbortHandle, BoxFuture, abortable};
use futures::stream::FuturesUnordered;
use futures::{SinkExt, StreamExt};
use serde::Serialize;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use super::bridge::{Fault, LOG, Own, TOO_MUCH};
use super::handle::Place;
use super::{interpreter, native};
use crate::measure;
use crate::skill::Isolation;
use crate::tool::{Call, Context, Error, Nested, Output, Request, nested};

pub(super) use caller::{Question, ask, say};
use wire::{Cage, Home, Order, Told, Word};
use zygote::Zygote;
use zygotes::Zygotes;

pub(super) use zygotes::Environment;

/// Workers that are at work at once, of calls nested equally deep; more calls than this wait.
const MOST: usize = 16;
/// Workers that are enough for short calls; beyond them a call waits a moment for one to be free.
const ENOUGH: usize = 2;
/// That moment. More workers than processors only take turns, unless they wait for something.
const MOMENT: Duration = Duration::from_millis(3);
/// Calls that may wait for one.
const WAITING: usize = 4096;
/// A worker that nobody has called for so long is ended.
const IDLE: Duration = Duration::from_secs(60);
/// After so many calls a worker is replaced: whatever it leaks is bounded.
const CALLS: u32 = 100_000;
/// What a tool may have asked for at once; a worker keeps to half of it.
const QUESTIONS: usize = 128;
/// Time a worker that is not wanted any more has to tear down its extensions.
const END: Duration = Duration::from_secs(5);
/// Time a dead worker's end has to be told.
const OBITUARY: Duration = Duration::from_secs(1);

/// Makes the command that starts this program once more.
pub(super) type Program = Arc<dyn Fn() -> Result<Command, String> + Send + Sync>;

/// The workers of all skills.
pub(super) struct Workers {
    zygotes: Zygotes,
    idle: Mutex<HashMap<Key, Vec<Worker>>>,
    /// Told when a worker is free.
    freed: Notify,
    busy: AtomicUsize,
    /// For calls by how deep they are nested: those within others never wait for them.
    rooms: [Semaphore; nested::DEPTH],
    waiting: AtomicUsize,
}

/// Counts what goes on, for as long as this is held.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    /// Returns how many there were before as well.
    fn new(counter: &'a AtomicUsize) -> (Self, usize) {
        let before = counter.fetch_add(1, SeqCst);
        (Self(counter), before)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// Calls with the same key may share a worker.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    skill: String,
    folder: String,
    version: u32,
    workspace: Arc<PathBuf>,
}

/// What is to be called, and how.
pub(super) struct Job<'a> {
    pub(super) place: &'a Place,
    pub(super) own: &'a Own,
    pub(super) is_async: bool,
    pub(super) isolation: &'a Isolation,
    /// Its packages.
    pub(super) environment: Option<&'a Environment>,
}

impl Workers {
    pub(super) fn new(program: Program) -> Self {
        Self {
            zygotes: Zygotes::new(program),
            idle: Mutex::default(),
            freed: Notify::new(),
            busy: AtomicUsize::new(0),
            rooms: std::array::from_fn(|_| Semaphore::new(MOST)),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Runs one call. Dropping the future, or cancelling the call, kills its worker.
    pub(super) async fn call(&self, job: Job<'_>, call: Call) -> Result<Output, Error> {
        let Call { spec, arguments, context } = call;
        let _room = tokio::select! {
            biased;
            room = self.room(&context) => room?,
            () = context.cancel.cancelled() => return Err(Error::Cancelled),
        };
        let key = Key {
            skill: job.place.skill.clone(),
            folder: job.place.folder.clone(),
            version: job.place.version,
            workspace: context.workspace.clone(),
        };
        let order = Order {
            file: job.place.file.clone(),
            function: job.place.function.clone(),
            is_async: job.is_async,
            arguments,
            call: context.id.clone(),
            session: context.session.clone(),
        };
        let played = async {
            // The error says why there is no result at all.
            let mut worker = self.worker(&job, &key).await?;
            let _busy = Counted::new(&self.busy);
            let result = worker.play(&order, &context).await.inspect_err(|_| measure::worker_lost())?;
            match job.isolation.keeps_workers() && worker.calls < CALLS {
                true => self.release(key.clone(), worker),
                false => worker.dismiss(),
            }
            Ok::<Result<Output, Fault>, String>(result)
        };
        let played = tokio::select! {
            biased;
            played = played => played,
            () = context.cancel.cancelled() => return Err(Error::Cancelled),
        };
        match played {
            Ok(result) => result.map_err(|fault| refusal(fault, &key.skill).error(&spec.name)),
            Err(reason) => {
                tracing::error!(target: "kernel", tool = spec.name, call = context.id, "{reason}");
                Err(Error::Failed(format!("`{}` came to no result: {reason}", spec.name)))
            }
        }
    }

    /// Waits until one more worker may work.
    async fn room(&self, context: &Context) -> Result<tokio::sync::SemaphorePermit<'_>, Error> {
        let (_waiting, before) = Counted::new(&self.waiting);
        if before >= WAITING {
            return Err(Error::Failed("too many tool calls are waiting already; try again later".to_owned()));
        }
        let depth = context.nested.as_ref().map_or(0, Nested::depth).min(nested::DEPTH - 1);
        Ok(self.rooms[depth].acquire().await.expect("it is never closed"))
    }

    /// A worker for this call: one that is free, or will be in a moment, or another one.
    async fn worker(&self, job: &Job<'_>, key: &Key) -> Result<Worker, String> {
        if !job.isolation.keeps_workers() {
            return self.hire(job, key).await;
        }
        loop {
            let freed = self.freed.notified();
            if let Some(worker) = self.idle(key) {
                return Ok(worker);
            }
            let crowded = self.busy.load(SeqCst) >= ENOUGH;
            if !crowded || tokio::time::timeout(MOMENT, freed).await.is_err() {
                return self.hire(job, key).await;
            }
        }
    }

    /// A worker that waits for such a call. Those that have died or waited too long are no more.
    fn idle(&self, key: &Key) -> Option<Worker> {
        self.tidy().get_mut(key)?.pop()
    }

    /// The workers that wait.
    fn tidy(&self) -> MutexGuard<'_, HashMap<Key, Vec<Worker>>> {
        let mut idle = self.idle.lock().expect("no panic while held");
        for workers in idle.values_mut() {
            workers.retain_mut(Worker::lives);
            let gone = workers.extract_if(.., |worker| worker.since.elapsed() >= IDLE);
            gone.for_each(Worker::dismiss);
        }
        idle.retain(|_, workers| !workers.is_empty());
        idle
    }

    /// Dismisses the workers of a version of a skill that no call can come to any more.
    pub(super) fn retire(&self, skill: &str, version: u32) {
        let mut idle = self.idle.lock().expect("no panic while held");
        let gone = idle.extract_if(|key, _| key.skill == skill && key.version == version);
        gone.flat_map(|(_, workers)| workers).for_each(Worker::dismiss);
    }

    fn release(&self, key: Key, mut worker: Worker) {
        worker.since = Instant::now();
        self.idle.lock().expect("no panic while held").entry(key).or_default().push(worker);
        self.freed.notify_one();
    }

    async fn hire(&self, job: &Job<'_>, key: &Key) -> Result<Worker, String> {
        let temp = tempfile::Builder::new().prefix("omni-worker-").tempdir();
        let temp = temp.map_err(|error| format!("a worker has no folder for temporary files: {error}"))?;
        let data = job.own.data.as_ref();
        std::fs::create_dir_all(data)
            .map_err(|error| format!("cannot make `{}`: {error}", data.display()))?;
        let asked = job.isolation.environment.iter();
        let mut environment: BTreeMap<_, _> =
            asked.filter_map(|name| Some((name.clone(), std::env::var(name).ok()?))).collect();
        environment.insert("TMPDIR".to_owned(), temp.path().to_string_lossy().into_owned());
        let mut read = interpreter::folders();
        read.push(job.place.folder.clone().into());
        read.extend(job.place.engines.values().filter_map(|behind| behind.built.clone()));
        if let Some(environment) = job.environment {
            if !environment.folder.is_dir() {
                return Err(lacking(&key.skill));
            }
            read.push(environment.folder.clone());
        }
        let cage = Cage {
            read,
            write: vec![key.workspace.as_ref().clone(), data.to_owned(), temp.path().to_owned()],
            network: job.isolation.network,
            processes: job.isolation.processes,
            memory: job.isolation.memory,
            environment,
        };
        let zygote = self.zygotes.get(job.environment).await?;
        // It may have taken the place of another one, which ends with the last of its workers.
        drop(self.tidy());
        let (id, stream, ended) = zygote.fork(cage)?;
        measure::worker_started();
        let frames = LengthDelimitedCodec::builder()
            .little_endian()
            .length_field_length(4)
            .max_frame_length(wire::LARGEST)
            .new_framed(stream);
        let (since, is_extended) = (Instant::now(), !job.place.engines.is_empty());
        let mut worker = Worker { id, zygote, frames, ended, calls: 0, since, is_extended, _temp: temp };
        let Place { skill, folder, version, sources, engines, .. } = job.place.clone();
        let (workspace, data) = (key.workspace.as_ref().clone(), data.to_owned());
        let settings = job.own.settings.clone();
        let home = Home { skill, folder, version, sources, engines, workspace, data, settings };
        worker.tell(&home).await?;
        Ok(worker)
    }
}

/// One process that runs calls; killed when dropped.
struct Worker {
    id: u64,
    zygote: Arc<Zygote>,
    frames: Framed<UnixStream, LengthDelimitedCodec>,
    /// Hears how it ended.
    ended: oneshot::Receiver<String>,
    calls: u32,
    since: Instant,
    /// Whether its skill has extensions.
    is_extended: bool,
    _temp: tempfile::TempDir,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.zygote.kill(self.id);
    }
}

impl Worker {
    /// Ends it. Where there are extensions to tear down it has a moment for that.
    fn dismiss(mut self) {
        if self.is_extended {
            tokio::spawn(async move {
                let _ = self.frames.get_mut().shutdown().await;
                let _ = tokio::time::timeout(END, &mut self.ended).await;
            });
        }
    }

    fn lives(&mut self) -> bool {
        let lives = matches!(self.ended.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        lives && !self.zygote.is_retired()
    }

    /// One call. The error says why the worker is of no use any more. What its tool asks for is
    /// done meanwhile, and ends with the call.
    async fn play(&mut self, order: &Order, context: &Context) -> Result<Result<Output, Fault>, String> {
        self.calls += 1;
        self.tell(&Told::Call(order)).await?;
        let (mut room, mut asked) = (LOG, Questions::default());
        loop {
            let frame = tokio::select! {
                frame = self.frames.next() => frame,
                (number, reply) = asked.replied() => {
                    self.tell(&Told::<Order>::Reply(number, reply)).await?;
                    continue;
                }
            };
            let frame = match frame {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Err(format!("its process does not speak our language: {error}")),
                None => return Err(self.obituary().await),
            };
            let word = serde_json::from_slice(&frame)
                .map_err(|error| format!("its process does not speak our language: {error}"))?;
            match word {
                Word::Progress(step) => (context.progress)(step),
                Word::Changed(change) => context.edited(change),
                Word::Log { level, call, text, told } => {
                    let fits = log(&mut room, &level, call.as_deref(), &text);
                    if let Some(logger) = context.logger.as_ref().filter(|_| told && fits) {
                        logger(&level, &text);
                    }
                }
                Word::Ask(number, request) => asked.ask(number, request, context)?,
                Word::Drop(number) => asked.drop(number),
                Word::Done(result) => return Ok(result),
            }
        }
    }

    async fn tell(&mut self, message: &impl Serialize) -> Result<(), String> {
        let message = serde_json::to_vec(message).map_err(|error| error.to_string())?;
        match self.frames.send(Bytes::from(message)).await {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                Err("its arguments are too large".to_owned())
            }
            Err(_) => Err(self.obituary().await),
        }
    }

    /// How it ended.
    async fn obituary(&mut self) -> String {
        match tokio::time::timeout(OBITUARY, &mut self.ended).await {
            Ok(Ok(how)) => format!("its process ended ({how})"),
            Ok(Err(_)) => "the process that starts workers has ended".to_owned(),
            Err(_) => "its process has closed the connection".to_owned(),
        }
    }
}

/// What the tool of a worker has asked for.
#[derive(Default)]
struct Questions<'a> {
    open: FuturesUnordered<BoxFuture<'a, (u64, Result<Value, Fault>)>>,
    handles: HashMap<u64, AbortHandle>,
}

impl<'a> Questions<'a> {
    fn ask(&mut self, number: u64, request: Request, context: &'a Context) -> Result<(), String> {
        if self.open.len() >= QUESTIONS {
            return Err("its process asks for too much at once".to_owned());
        }
        let work = async move {
            match request {
                // A worker has the files that its cage lets it have, and no other way to them.
                Request::Buffer(_) => Ok(Value::Null),
                request => context.ask(request).await,
            }
        };
        let (work, handle) = abortable(work);
        self.handles.insert(number, handle);
        self.open.push(Box::pin(async move {
            let reply = work.await.unwrap_or(Err(Error::Cancelled));
            (number, reply.map_err(super::nested::fault))
        }));
        Ok(())
    }

    fn drop(&mut self, number: u64) {
        if let Some(handle) = self.handles.get(&number) {
            handle.abort();
        }
    }

    /// The next reply; never, where nothing was asked.
    async fn replied(&mut self) -> (u64, Result<Value, Fault>) {
        let Some((number, reply)) = self.open.next().await else { return std::future::pending().await };
        self.handles.remove(&number);
        (number, reply)
    }
}

/// Hands a line on for as long as there is room; then says so, once. Returns whether there was room.
fn log(room: &mut usize, level: &str, call: Option<&str>, text: &str) -> bool {
    match room.checked_sub(text.len() + 1) {
        Some(left) => {
            *room = left;
            native::log(level, call, text);
            return true;
        }
        None if *room > 0 => {
            *room = 0;
            native::log("warning", call, TOO_MUCH);
        }
        None => {}
    }
    false
}

/// A refusal by the cage is nobody's bug: the message says what the skill may ask for.
fn refusal(fault: Fault, skill: &str) -> Fault {
    let Fault::Broken(traceback) = &fault else { return fault };
    let last = traceback.trim_end().lines().next_back().unwrap_or_default();
    // Libraries wrap it, and keep the words.
    let words = ["PermissionError: ", "[Errno 1] Operation not permitted", "[Errno 13] Permission denied"];
    if !words.iter().any(|words| last.contains(words)) {
        return fault;
    }
    tracing::info!(target: "kernel", skill, "{traceback}");
    Fault::Failed(format!(
        "{last}: the skill `{skill}` runs confined to the workspace and its own folders; in the `metadata` of \
         its SKILL.md it can ask for `network: true` and `processes: true`"
    ))
}

/// What is said of a tool whose skill has not got its packages.
pub(super) fn lacking(skill: &str) -> String {
    format!("the packages of its skill are not installed: run `omni skill install {skill}`")
}

/// How well workers are confined on this machine.
pub use confine::Strength;
