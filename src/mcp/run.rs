//! A call under way: what it comes to, what it tells and asks for meanwhile, and where it waits for
//! answers.
//!
//! In the older era a server asks the client while the call goes on. In the newer it answers the
//! request with its questions, and the client comes back with a request that has the answers. The
//! call itself goes on all the while: it is parked, and found again by a word that only its client
//! knows. A call may also become a task, which its client looks after instead of waiting.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use rmcp::model::{
    CallToolResult, ErrorData, InputRequiredResult, InputResponses, ProgressNotificationParam, ProgressToken,
    Task,
};
#[allow(deprecated, reason = "clients have it, and there is nothing else for them")]
use rmcp::model::{LoggingLevel, LoggingMessageNotificationParam};
use rmcp::service::{Peer, RoleServer};
use rmcp::task_manager::{TaskContext, TaskExit, TaskManager, TaskOptions};
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::ask::{Lacks, Question, Word};
use super::convert;
use crate::tool::{Error, Output};

/// How long a call may ask nothing more until what it has asked goes to the client: a tool that asks
/// several things side by side has them all answered at once.
const QUIET: Duration = Duration::from_millis(50);
/// How long a client that knows tasks waits for a call that is none.
const PATIENCE: Duration = Duration::from_secs(10);
/// Calls that wait for their clients at a time; the one that has waited longest gives way.
const PARKED: usize = 256;
/// How long one waits.
const RETURN: Duration = Duration::from_secs(600);
/// Tasks that run at a time.
const TASKS: usize = 256;
/// Milliseconds that a task may take, and for which its result is kept.
const KEPT: u64 = 3_600_000;
/// Milliseconds after which a client may look again.
const POLL: u64 = 500;

/// What is called, and with what: a client that comes back says so again.
pub(super) type Subject = (&'static str, String, Map<String, Value>);

/// What a tool tells while it runs.
pub(super) enum Report {
    Progress { progress: f64, total: Option<f64>, message: Option<String> },
    Said { level: String, text: String },
}

/// How a call stands.
pub(super) enum Step {
    Done(Result<Output, Error>),
    /// It waits for the client's answers.
    Asks,
    /// The client need not wait: the tool says so, and hears whether it does not, or it takes long.
    Detaches(Option<oneshot::Sender<bool>>),
}

/// A call. Dropping it stops the work.
pub(super) struct Run {
    work: BoxFuture<'static, Result<Output, Error>>,
    reports: mpsc::Receiver<Report>,
    words: mpsc::Receiver<Word>,
    lacks: Lacks,
    subject: Subject,
    /// What was asked and is not answered, by keys.
    open: BTreeMap<String, Box<Question>>,
    /// Keys that were used, and how often.
    keys: HashMap<String, usize>,
    /// Answers to what was not asked yet.
    given: InputResponses,
    cancel: CancellationToken,
    _over: DropGuard,
}

/// The client that waits for a call, in one request.
pub(super) struct Waiting {
    pub(super) peer: Peer<RoleServer>,
    /// Whether it is one of the older era, which may be asked.
    pub(super) is_older: bool,
    pub(super) knows_tasks: bool,
    /// When it wants to wait no longer.
    pub(super) gone: CancellationToken,
    pub(super) token: Option<ProgressToken>,
    /// The least grave of what it wants to hear of what the tool says.
    #[allow(deprecated, reason = "as above")]
    pub(super) level: Option<LoggingLevel>,
    /// Progress never goes back; a sign of life repeats it.
    pub(super) last: f64,
}

impl Run {
    pub(super) fn new(
        subject: Subject,
        work: BoxFuture<'static, Result<Output, Error>>,
        reports: mpsc::Receiver<Report>,
        (words, lacks): (mpsc::Receiver<Word>, Lacks),
        cancel: CancellationToken,
    ) -> Self {
        let (open, keys, given) = (BTreeMap::new(), HashMap::new(), InputResponses::new());
        let _over = cancel.clone().drop_guard();
        Self { work, reports, words, lacks, subject, open, keys, given, cancel, _over }
    }

    /// What the client is told if this ended the call because of what it cannot do.
    pub(super) fn lack(&self, error: &Error) -> Option<ErrorData> {
        self.lacks.error(error)
    }

    /// Takes a client's answers. What is none stays asked.
    pub(super) fn answer(&mut self, responses: InputResponses) {
        self.given.extend(responses);
        for (key, question) in std::mem::take(&mut self.open) {
            if let Some(question) = self.answered(&key, question) {
                self.open.insert(key, question);
            }
        }
    }

    /// Answers a question if the answer was given; gives it back if not.
    fn answered(&mut self, key: &str, question: Box<Question>) -> Option<Box<Question>> {
        match self.given.remove(key) {
            Some(result) if question.fits(&result) => {
                (question.answer)(result);
                None
            }
            _ => Some(question),
        }
    }

    /// A question under a key of its own, unless it is answered.
    fn heard(&mut self, question: Box<Question>) -> Option<(String, Box<Question>)> {
        let count = self.keys.entry(question.key.clone()).or_default();
        *count += 1;
        let key = match *count {
            1 => question.key.clone(),
            count => format!("{}_{count}", question.key),
        };
        self.answered(&key, question).map(|question| (key, question))
    }

    /// Goes on until there is something to tell the client.
    pub(super) async fn go(&mut self, client: &mut Waiting) -> Step {
        let mut asking = FuturesUnordered::new();
        let mut quiet = Instant::now() + QUIET;
        let patience = Instant::now() + PATIENCE;
        loop {
            tokio::select! {
                biased;
                Some(report) = self.reports.recv() => client.hear(report).await,
                Some(word) = self.words.recv() => match word {
                    Word::Detach(reply) => return Step::Detaches(Some(reply)),
                    Word::Ask(question) => match self.heard(question) {
                        Some((_, question)) if client.is_older => asking.push(question.put(client.peer.clone())),
                        Some((key, question)) => {
                            self.open.insert(key, question);
                            quiet = Instant::now() + QUIET;
                        }
                        None => {}
                    },
                },
                outcome = &mut self.work => {
                    // What it has reported comes before its result.
                    while let Ok(report) = self.reports.try_recv() {
                        client.hear(report).await;
                    }
                    return Step::Done(outcome);
                }
                Some(()) = asking.next() => {}
                () = client.gone.cancelled(), if !self.cancel.is_cancelled() => self.cancel.cancel(),
                () = sleep_until(quiet), if !self.open.is_empty() => return Step::Asks,
                () = sleep_until(patience), if client.knows_tasks => return Step::Detaches(None),
            }
        }
    }

    /// Goes on as a task, if there is room for one more; gives back what it was given if there is not.
    pub(super) fn entrust(
        self,
        tasks: &TaskManager,
        reply: Option<oneshot::Sender<bool>>,
    ) -> Result<Task, (Box<Self>, Option<oneshot::Sender<bool>>)> {
        if tasks.running_task_count() >= TASKS {
            return Err((Box::new(self), reply));
        }
        let options = TaskOptions::new().with_ttl_ms(KEPT).with_poll_interval_ms(POLL);
        Ok(tasks.spawn(options, |context| {
            if let Some(reply) = reply {
                let _ = reply.send(true);
            }
            Box::pin(self.finish(context))
        }))
    }

    async fn finish(mut self, context: TaskContext) -> Result<CallToolResult, TaskExit> {
        let mut asking = FuturesUnordered::new();
        let mut said = "at work".to_owned();
        let open = std::mem::take(&mut self.open);
        asking.extend(open.into_iter().map(|(key, question)| put(context.clone(), key, question)));
        loop {
            tokio::select! {
                biased;
                Some(report) = self.reports.recv() => {
                    if let Report::Progress { progress, total, message } = report {
                        let share = || total.map(|total| format!("{progress} of {total}"));
                        // A sign of life says the same again, which is news all the same.
                        said = message.or_else(share).unwrap_or(said);
                        context.set_status_message(said.clone());
                    }
                }
                Some(word) = self.words.recv() => match word {
                    Word::Detach(reply) => drop(reply.send(true)),
                    Word::Ask(question) => {
                        if let Some((key, question)) = self.heard(question) {
                            asking.push(put(context.clone(), key, question));
                        }
                    }
                },
                outcome = &mut self.work => return ended(outcome),
                Some(()) = asking.next() => {}
                // It has a moment to let go, as any call has.
                () = context.cancelled(), if !self.cancel.is_cancelled() => self.cancel.cancel(),
            }
        }
    }
}

/// Asks whoever looks after a task.
async fn put(context: TaskContext, key: String, question: Box<Question>) {
    if let Ok(result) = context.request_input(key, question.request.clone()).await
        && question.fits(&result)
    {
        (question.answer)(result);
    }
}

/// How a task ends. What is nobody's but ours to mend is no result.
fn ended(outcome: Result<Output, Error>) -> Result<CallToolResult, TaskExit> {
    match outcome {
        Err(Error::Cancelled) => Err(TaskExit::Cancelled),
        Err(error @ Error::Broken { .. }) => {
            Err(TaskExit::Error(ErrorData::internal_error(error.to_string(), None)))
        }
        outcome => Ok(convert::to_result(outcome)),
    }
}

impl Waiting {
    async fn hear(&mut self, report: Report) {
        match report {
            Report::Progress { progress, total, message } => {
                let Some(token) = self.token.clone() else { return };
                self.last = self.last.max(progress);
                let mut notification = ProgressNotificationParam::new(token, self.last);
                (notification.total, notification.message) = (total, message);
                let _ = self.peer.notify_progress(notification).await;
            }
            Report::Said { level, text } => self.log(&level, text).await,
        }
    }

    #[allow(deprecated, reason = "as above")]
    async fn log(&self, level: &str, text: String) {
        let level = match level {
            "debug" => LoggingLevel::Debug,
            "warning" => LoggingLevel::Warning,
            "error" => LoggingLevel::Error,
            _ => LoggingLevel::Info,
        };
        if self.level.is_some_and(|least| level as u8 >= least as u8) {
            let notification = LoggingMessageNotificationParam::new(level, text.into());
            let _ = self.peer.notify_logging_message(notification).await;
        }
    }
}

/// Calls that wait for their clients to come back, by the word they come back with.
#[derive(Default)]
pub(super) struct Parked(Mutex<HashMap<String, (Instant, Run)>>);

impl Parked {
    /// Keeps a call, and says what it waits for.
    pub(super) fn park(&self, run: Run) -> InputRequiredResult {
        let requests =
            run.open.iter().map(|(key, question)| (key.clone(), question.request.clone())).collect();
        let word = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
        let given_way = {
            let mut parked = self.0.lock().expect("no panic while held");
            let oldest = parked.iter().min_by_key(|(_, (since, _))| *since).map(|(word, _)| word.clone());
            let oldest = oldest.filter(|_| parked.len() >= PARKED);
            let given_way = oldest.and_then(|oldest| parked.remove(&oldest));
            parked.insert(word.clone(), (Instant::now(), run));
            given_way
        };
        // Stopped when nothing is held.
        drop(given_way);
        InputRequiredResult::new(Some(requests), Some(word))
    }

    /// The call that a client comes back to.
    pub(super) fn resume(&self, word: &str, subject: &Subject) -> Result<Run, ErrorData> {
        let mut parked = self.0.lock().expect("no panic while held");
        match parked.get(word) {
            Some((_, run)) if run.subject == *subject => Ok(parked.remove(word).expect("it is there").1),
            Some(_) => Err(ErrorData::invalid_params("the `requestState` is that of another request", None)),
            None => Err(ErrorData::invalid_params(
                "nothing waits under this `requestState`, or not any more; leave it out to begin anew",
                None,
            )),
        }
    }

    /// Stops those whose clients did not come back.
    pub(super) fn sweep(&self, now: Instant) {
        let late: Vec<_> = {
            let mut parked = self.0.lock().expect("no panic while held");
            parked.extract_if(|_, (since, _)| now.duration_since(*since) >= RETURN).collect()
        };
        drop(late);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn run() -> (Run, CancellationToken) {
        let cancel = CancellationToken::new();
        let subject = ("tool", "test".to_owned(), Map::new());
        let work = std::future::pending().boxed();
        let words = (mpsc::channel(1).1, Lacks::default());
        (Run::new(subject, work, mpsc::channel(1).1, words, cancel.clone()), cancel)
    }

    #[test]
    fn the_call_that_has_waited_longest_gives_way() {
        let parked = Parked::default();
        let calls: Vec<_> = (0..PARKED + 2).map(|_| run()).collect();
        let over: Vec<_> = calls.iter().map(|(_, cancel)| cancel.clone()).collect();
        let words: Vec<_> =
            calls.into_iter().map(|(run, _)| parked.park(run).request_state.unwrap()).collect();
        let stopped = over.iter().map(CancellationToken::is_cancelled);
        assert_eq!(stopped.collect::<Vec<_>>(), [&[true; 2][..], &[false; PARKED][..]].concat());
        let subject = ("tool", "test".to_owned(), Map::new());
        assert!(parked.resume(&words[0], &subject).is_err());
        assert!(parked.resume(&words[2], &subject).is_ok());
    }

    #[test]
    fn a_call_whose_client_stays_away_is_stopped() {
        let parked = Parked::default();
        let (run, over) = run();
        parked.park(run);
        parked.sweep(Instant::now());
        assert!(!over.is_cancelled());
        parked.sweep(Instant::now() + RETURN);
        assert!(over.is_cancelled());
    }
}
