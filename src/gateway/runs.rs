//! Turns that go on by themselves: begun, left, come back to, agreed to, cancelled.
//!
//! What happens in a run is written down here, so that whoever comes back can be told from any
//! event on. The last of those that are over stay for a while; their sessions have the rest.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures::{StreamExt, stream};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Gateway;
use super::body::Sent;
use super::error::Error;
use super::message::native;
use super::stream::stream;
use crate::hub::{Events, Order};
use crate::message::event::{Answer, Consent, EventKind, Finished};
use crate::message::{Event, Incoming, Message};

/// Runs that are over and still known.
const KEPT: usize = 64;
/// Bytes of a run's events; when there are more, pieces of text are left out, as its result has it whole.
const RECORD: usize = 1 << 20;

/// How long a question waits for a person; it is refused then.
const PATIENCE: Duration = Duration::from_secs(600);

/// The runs that are known.
#[derive(Default)]
pub(super) struct Runs(Mutex<Known>);

#[derive(Default)]
struct Known {
    runs: HashMap<String, Arc<Run>>,
    over: VecDeque<String>,
}

/// A turn and what happened in it so far.
pub(super) struct Run {
    id: String,
    session: String,
    cancel: CancellationToken,
    record: Mutex<Record>,
    /// How many events there are.
    grown: watch::Sender<usize>,
}

#[derive(Default)]
struct Record {
    events: Vec<Event>,
    bytes: usize,
    waiting: BTreeMap<String, Asked>,
    finished: Option<Finished>,
}

/// A place for what a person says.
enum Asked {
    Consent(Answer),
    Answer(Answer<Option<Map<String, Value>>>),
}

impl Runs {
    fn add(&self, run: &Arc<Run>) {
        self.known().runs.insert(run.id.clone(), run.clone());
    }

    fn get(&self, id: &str) -> Result<Arc<Run>, Error> {
        let unknown = || {
            let detail = format!(
                "there is no run `{id}`, or it has been over for long; its session has what was said"
            );
            Error::unknown("run_not_found", detail)
        };
        self.known().runs.get(id).cloned().ok_or_else(unknown)
    }

    /// Takes note of the end of a run, and forgets the oldest.
    fn over(&self, id: &str) {
        let mut known = self.known();
        known.over.push_back(id.to_owned());
        while known.over.len() > KEPT {
            let oldest = known.over.pop_front();
            oldest.map(|oldest| known.runs.remove(&oldest));
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().expect("no panic while held")
    }
}

impl Run {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().expect("no panic while held")
    }

    /// Writes down what happens until it is over.
    async fn follow(&self, mut events: Events) {
        loop {
            let asked = !self.record().waiting.is_empty();
            let event = tokio::select! {
                event = events.next() => event,
                () = tokio::time::sleep(PATIENCE), if asked => {
                    self.record().refuse();
                    continue;
                }
            };
            let Some(event) = event else { return };
            let mut record = self.record();
            record.add(event);
            let count = record.events.len();
            drop(record);
            self.grown.send_replace(count);
        }
    }

    fn described(&self) -> Value {
        let record = self.record();
        let status = match (&record.finished, record.waiting.is_empty()) {
            (Some(_), _) => "finished",
            (None, false) => "waiting",
            (None, true) => "running",
        };
        let waiting: Vec<_> = record.waiting.keys().collect();
        json!({
            "id": self.id, "session_id": self.session, "status": status, "waiting": waiting, "result": record.finished,
        })
    }

    /// The events after `last`, and those that come.
    fn stream(self: Arc<Self>, last: u64, request: Arc<str>) -> Response {
        let grown = self.grown.subscribe();
        let events = stream::unfold((self, grown, 0), async |(run, mut grown, place)| {
            loop {
                let (next, is_over) = {
                    let record = run.record();
                    (record.events.get(place).cloned(), record.finished.is_some())
                };
                match next {
                    Some(event) => return Some((event, (run, grown, place + 1))),
                    None if is_over => return None,
                    // The sender is a part of the run.
                    None => grown.changed().await.ok()?,
                }
            }
        });
        let later = events.filter(move |event| std::future::ready(event.id > last));
        stream(later.map(move |event| native(Ok(event), &request)))
    }
}

impl Record {
    /// Says no to everything that waits.
    fn refuse(&mut self) {
        for (_, asked) in std::mem::take(&mut self.waiting) {
            match asked {
                Asked::Consent(place) => drop(place.give(Consent::No)),
                Asked::Answer(place) => drop(place.give(None)),
            }
        }
    }

    fn add(&mut self, event: Event) {
        match &event.kind {
            EventKind::Approval(approval) => {
                self.waiting.insert(approval.call.clone(), Asked::Consent(approval.answer.clone()));
            }
            EventKind::Elicitation(question) => {
                self.waiting.insert(question.call.clone(), Asked::Answer(question.answer.clone()));
            }
            EventKind::ToolFinished { call, .. } => drop(self.waiting.remove(call)),
            EventKind::Finished(finished) => {
                self.waiting.clear();
                self.finished = Some(finished.clone());
            }
            _ => {}
        }
        self.bytes += serde_json::to_string(&event).map_or(0, |text| text.len());
        let is_piece = matches!(
            event.kind,
            EventKind::Text { .. } | EventKind::Reasoning { .. } | EventKind::ToolProgress { .. }
        );
        if self.bytes <= RECORD || !is_piece {
            self.events.push(event);
        }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Request {
    message: String,
    instructions: Option<String>,
}

/// `POST /api/v1/sessions/{id}/turns`
pub(super) async fn begin(
    State(gateway): State<Arc<Gateway>>,
    Path(key): Path<String>,
    Extension(request): Extension<super::guard::RequestId>,
    headers: HeaderMap,
    Sent(sent): Sent<Request>,
) -> Result<Response, Error> {
    let message = sent.message.trim();
    if message.is_empty() {
        return Err(Error::invalid("`message` is empty").of("message"));
    }
    let session = Some(gateway.hub.session(&key).await?);
    let incoming = Incoming { session, message: Message::user(message) };
    let order = Order { incoming, asks: true, instructions: sent.instructions, earlier: None };
    let running = gateway.hub.order(order).await?;
    let run = Arc::new(Run {
        id: running.turn,
        session: running.session,
        cancel: running.cancel,
        record: Mutex::default(),
        grown: watch::Sender::new(0),
    });
    gateway.runs.add(&run);
    let (followed, gateway) = (run.clone(), gateway.clone());
    let (events, lane) = (running.events, running.lane);
    tokio::spawn(async move {
        followed.follow(events).await;
        gateway.runs.over(&followed.id);
        drop(lane);
    });
    if headers.get(header::ACCEPT).is_some_and(|kind| kind == "text/event-stream") {
        return Ok(run.stream(0, request.0));
    }
    let place = [(header::LOCATION, format!("/api/v1/runs/{}", run.id))];
    Ok((StatusCode::ACCEPTED, place, Json(run.described())).into_response())
}

/// `GET /api/v1/runs/{id}`
pub(super) async fn get(
    State(gateway): State<Arc<Gateway>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Error> {
    Ok(Json(gateway.runs.get(&id)?.described()))
}

/// `GET /api/v1/runs/{id}/events`, from the one after `Last-Event-ID`.
pub(super) async fn events(
    State(gateway): State<Arc<Gateway>>,
    Path(id): Path<String>,
    Extension(request): Extension<super::guard::RequestId>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let run = gateway.runs.get(&id)?;
    let last = match headers.get("last-event-id") {
        None => 0,
        Some(last) => last
            .to_str()
            .ok()
            .and_then(|last| last.parse().ok())
            .ok_or_else(|| Error::invalid("`Last-Event-ID` is not the number of an event"))?,
    };
    Ok(run.stream(last, request.0))
}

/// `POST /api/v1/runs/{id}/cancel`
pub(super) async fn cancel(
    State(gateway): State<Arc<Gateway>>,
    Path(id): Path<String>,
) -> Result<Response, Error> {
    let run = gateway.runs.get(&id)?;
    run.cancel.cancel();
    Ok((StatusCode::ACCEPTED, Json(run.described())).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Once,
    Always,
    No,
}

/// What a person says: `consent` to an approval, `answer` to a question.
#[derive(Debug, Deserialize)]
pub(super) struct Said {
    consent: Option<Word>,
    answer: Option<Map<String, Value>>,
}

/// `POST /api/v1/runs/{id}/approvals/{call}`
pub(super) async fn approve(
    State(gateway): State<Arc<Gateway>>,
    Path((id, call)): Path<(String, String)>,
    Sent(said): Sent<Said>,
) -> Result<StatusCode, Error> {
    let run = gateway.runs.get(&id)?;
    let mut record = run.record();
    let consent = match (record.waiting.get(&call), said.consent) {
        (None, _) => {
            return Err(Error::unknown(
                "nothing_asked",
                format!("the call `{call}` does not wait for an answer"),
            ));
        }
        (Some(Asked::Consent(_)), None) => {
            return Err(Error::invalid("`consent` has to be once, always or no").of("consent"));
        }
        (Some(Asked::Consent(_)), Some(Word::Once)) => Consent::Once,
        (Some(Asked::Consent(_)), Some(Word::Always)) => Consent::Always,
        (Some(_), _) => Consent::No,
    };
    match record.waiting.remove(&call) {
        Some(Asked::Consent(place)) => drop(place.give(consent)),
        Some(Asked::Answer(place)) => drop(place.give(said.answer)),
        None => {}
    }
    Ok(StatusCode::NO_CONTENT)
}
