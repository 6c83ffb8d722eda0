//! A worker's way to the process that calls it: what it is told, what it tells, what it asks.

use std::collections::HashMap;
use std::io::{self, BufReader};
use std::os::unix::net::UnixStream;
use std::sync::{Condvar, Mutex, OnceLock};

use serde_json::Value;

use super::wire::{self, Home, Order, Told, Word};
use crate::kernel::bridge::Fault;
use crate::tool::{Output, Request};

/// Questions that may wait for their replies.
const QUESTIONS: usize = 64;

/// A worker's way to the process that calls it.
static CALLER: OnceLock<Mutex<UnixStream>> = OnceLock::new();
/// What it has heard from there.
static DESK: OnceLock<Desk> = OnceLock::new();

/// Tells the caller, if this process is a worker; `false` if it is none.
pub(in crate::kernel) fn say(word: impl FnOnce() -> Word) -> bool {
    let Some(caller) = CALLER.get() else { return false };
    // A caller that is gone has killed us already, or is about to.
    let _ = wire::write(&mut *caller.lock().expect("no panic while held"), &word());
    true
}

/// Makes this process a worker. Returns whose it is; `None` if nobody wants it any more.
pub(super) fn connect(stream: UnixStream) -> io::Result<Option<Home>> {
    let mut orders = BufReader::new(stream.try_clone()?);
    CALLER.set(Mutex::new(stream)).expect("the zygote is no worker");
    let home = wire::read::<Home>(&mut orders)?;
    DESK.get_or_init(|| Desk::new(orders));
    Ok(home)
}

/// The next call; `None` at the end.
pub(super) fn order() -> Option<Order> {
    desk().wait(|heard| heard.order.take(), |_| ())
}

/// Tells what a call came to.
pub(super) fn answer(result: &Result<Output, Fault>) -> io::Result<()> {
    #[derive(serde::Serialize)]
    enum Word<'a> {
        Done(&'a Result<Output, Fault>),
    }
    let caller = CALLER.get().expect("set by whoever became a worker");
    wire::write(&mut *caller.lock().expect("no panic while held"), &Word::Done(result))
}

fn desk() -> &'static Desk {
    DESK.get().expect("whoever waits is a worker")
}

/// Asks the caller for something, if this process is a worker.
pub(in crate::kernel) fn ask(request: &Request) -> Option<Result<Question, Fault>> {
    CALLER.get()?;
    Some(DESK.get()?.open().inspect(|question| {
        say(|| Word::Ask(question.0, request.clone()));
    }))
}

/// A question to the caller, by its number.
#[derive(Debug, Clone)]
pub(in crate::kernel) struct Question(u64);

impl Question {
    /// Waits for the reply. Not to be called while the interpreter is held.
    pub(in crate::kernel) fn wait(self) -> Result<Value, Fault> {
        desk()
            .wait(
                |heard| heard.replies.get_mut(&self.0).and_then(Option::take),
                |heard| {
                    heard.replies.remove(&self.0);
                },
            )
            .unwrap_or(Err(Fault::Cancelled))
    }

    /// Does without the reply; whoever waits for it hears that it was cancelled.
    pub(in crate::kernel) fn drop(&self) {
        say(|| Word::Drop(self.0));
    }
}

/// Where a worker's threads wait for what they are told. One of those who wait reads for all.
struct Desk {
    heard: Mutex<Heard>,
    changed: Condvar,
}

struct Heard {
    /// `None` while somebody reads, or when there is nothing more to read.
    stream: Option<BufReader<UnixStream>>,
    ended: bool,
    order: Option<Order>,
    questions: u64,
    /// Of the questions that are open, by their numbers.
    replies: HashMap<u64, Option<Result<Value, Fault>>>,
}

impl Desk {
    fn new(stream: BufReader<UnixStream>) -> Self {
        let (stream, replies) = (Some(stream), HashMap::new());
        let heard = Heard { stream, ended: false, order: None, questions: 0, replies };
        Self { heard: Mutex::new(heard), changed: Condvar::new() }
    }

    fn open(&self) -> Result<Question, Fault> {
        let mut heard = self.heard.lock().expect("no panic while held");
        if heard.replies.len() >= QUESTIONS {
            return Err(Fault::Failed(format!("{QUESTIONS} questions wait for their replies already")));
        }
        heard.questions += 1;
        let number = heard.questions;
        heard.replies.insert(number, None);
        Ok(Question(number))
    }

    /// Waits until `take` has something, then tidies up; `None` when nothing more will come.
    fn wait<T>(&self, take: impl Fn(&mut Heard) -> Option<T>, tidy: impl Fn(&mut Heard)) -> Option<T> {
        let mut heard = self.heard.lock().expect("no panic while held");
        loop {
            let found = take(&mut heard);
            if found.is_some() || heard.ended {
                tidy(&mut heard);
                return found;
            }
            let Some(mut stream) = heard.stream.take() else {
                heard = self.changed.wait(heard).expect("no panic while held");
                continue;
            };
            drop(heard);
            let told = wire::read::<Told>(&mut stream);
            heard = self.heard.lock().expect("no panic while held");
            match told {
                Ok(Some(Told::Call(order))) => heard.order = Some(order),
                Ok(Some(Told::Reply(number, reply))) => {
                    if let Some(place) = heard.replies.get_mut(&number) {
                        *place = Some(reply);
                    }
                }
                // The caller is gone, and has killed us or is about to.
                Ok(None) | Err(_) => heard.ended = true,
            }
            heard.stream = Some(stream);
            self.changed.notify_all();
        }
    }
}
