//! OpenAI's responses, as the specification of Open Responses has them.
//!
//! A response that is stored is a run under another name. What was asked is kept in the database; what
//! was answered is told by the run while that is known, and by the log of its session afterwards.

mod reply;
mod request;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response as Answer, sse};
use futures::stream::{self, StreamExt};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use utoipa::IntoParams;

use super::Gateway;
use super::body::{LARGE, Sent};
use super::error::Error;
use super::key::{Again, replayed, unkept};
use super::openai::{MODEL, no_model};
use super::openapi;
use super::stream::stream as streamed;
use super::turn::{Leash, outcome};
use crate::hub::run::Status;
use crate::hub::{Order, Past, Run};
use crate::message::event::EventKind;
use crate::message::{Incoming, Message, Role};
use crate::store::response::Response;
use reply::{Reply, sent};
use request::{Request, Said};

/// How long it takes at most until a turn that is cancelled is over.
const PARTING: Duration = Duration::from_secs(5);

/// Where a response goes on.
struct Place {
    session: Option<String>,
    /// What was said before, where no session has it.
    earlier: Option<Vec<Message>>,
    message: Message,
}

/// Ask for a response, in OpenAI's protocol.
#[utoipa::path(
    post, path = "/v1/responses", request_body = Request,
    responses((status = 200, content((openapi::Response = "application/json"), (openapi::Told = "text/event-stream")))),
)]
pub(super) async fn create(
    State(gateway): State<Arc<Gateway>>,
    again: Again,
    Sent(mut request): Sent<Request, LARGE>,
) -> Result<Answer, Error> {
    let model = request.model.clone().unwrap_or_else(|| MODEL.to_owned());
    if model != MODEL && !gateway.setting.any_model {
        return Err(no_model(&model));
    }
    request.check()?;
    let (instructions, said) = request.said()?;
    let echo = request.echo(&model);
    let key = again.key(&json!({
        "response": said, "instructions": instructions, "echo": echo, "conversation": request.conversation(),
    }));
    if let Some(key) = &key {
        if !request.is_stored() {
            return Err(unkept("a response that is not stored cannot be come back to"));
        }
        if let Some(run) = gateway.hub.asked(key).await? {
            return gateway.kept(Kept { run, echo, is_keyed: true }, &request).await;
        }
    }
    gateway.hub.afford().await?;
    let Place { session, earlier, message } = gateway.place(&request, said).await?;
    let incoming = Incoming { session, message };
    let order = Order { instructions, earlier, ..Order::new(incoming) };
    if !request.is_stored() {
        return gateway.passed(order, echo, request.streams()).await;
    }
    let is_keyed = key.is_some();
    let run = gateway.hub.run(order, key).await?;
    gateway.kept(Kept { run, echo, is_keyed }, &request).await
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Wish {
    /// As events.
    #[serde(default)]
    stream: bool,
    /// Those after the event of this number.
    starting_after: Option<u64>,
}

/// A response, whole, or what comes after an event.
#[utoipa::path(
    get, path = "/v1/responses/{id}", params(("id" = String, Path), Wish),
    responses((status = 200, content((openapi::Response = "application/json"), (openapi::Told = "text/event-stream")))),
)]
pub(super) async fn get(
    State(gateway): State<Arc<Gateway>>,
    Path(id): Path<String>,
    Query(wish): Query<Wish>,
) -> Result<Answer, Error> {
    let (reply, run) = gateway.response(&id).await?;
    let written = gateway.written(&reply, run.as_ref()).await?;
    match (wish.stream, run.filter(|_| !written.is_from_log)) {
        (false, _) => Ok(Json(written.reply.object()).into_response()),
        (true, Some(run)) => Ok(told(reply, &run, wish.starting_after, None)),
        (true, None) => {
            let mut events = written.events;
            // The log does not say in which pieces it was told: who has heard some of them gets the end.
            if let Some(last) = wish.starting_after
                && let Some(mut end) = events.pop()
            {
                end["sequence_number"] = json!(last + 1);
                events = vec![end];
            }
            Ok(streamed(stream::iter(events.iter().map(sent).chain([done()]).collect::<Vec<_>>())))
        }
    }
}

/// End a response early.
#[utoipa::path(
    post, path = "/v1/responses/{id}/cancel", params(("id" = String, Path)),
    responses((status = 200, body = openapi::Response)),
)]
pub(super) async fn cancel(
    State(gateway): State<Arc<Gateway>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Error> {
    let (reply, run) = gateway.response(&id).await?;
    if let Some(run) = &run {
        run.cancel().await?;
        let _ = tokio::time::timeout(PARTING, run.finished()).await;
    }
    Ok(Json(gateway.written(&reply, run.as_ref()).await?.reply.object()))
}

/// Forget a response; what was said stays in its session.
#[utoipa::path(
    delete, path = "/v1/responses/{id}", params(("id" = String, Path)),
    responses((status = 200, body = openapi::Deleted)),
)]
pub(super) async fn delete(
    State(gateway): State<Arc<Gateway>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Error> {
    let (_, run) = gateway.response(&id).await?;
    if let Some(run) = run {
        run.cancel().await?;
    }
    let turn = turn(&id).unwrap_or_default();
    gateway.responses.remove(turn).await.map_err(Error::broken)?;
    Ok(Json(json!({"id": id, "object": "response", "deleted": true})))
}

impl Gateway {
    /// A response that can be asked for later.
    async fn kept(&self, kept: Kept, request: &Request) -> Result<Answer, Error> {
        let Kept { run, echo, is_keyed } = kept;
        let deadline = Instant::now() + self.setting.turn_timeout;
        let run = run.retried().await?;
        let body = Value::Object(echo.clone()).to_string();
        let kept = Response { id: run.id.clone(), session: run.session.clone(), body };
        if let Err(error) = self.responses.add(&kept, Timestamp::now()).await {
            run.cancel().await?;
            return Err(Error::broken(error));
        }
        let reply = Reply::new(&run.id, &run.session, began(&run.id), echo);
        if request.is_background() && !request.streams() {
            let reply = if run.is_known { self.written(&reply, Some(&run)).await?.reply } else { reply };
            return Ok(replayed(Json(reply.object()).into_response(), run.is_known));
        }
        let waiting = (!request.is_background()).then(|| {
            let (leash, timeout) =
                (Leash::new(cancelling(run.clone())), self.setting.turn_timeout.as_secs_f64());
            Waiting { leash: if is_keyed { leash.loose() } else { leash }, deadline, timeout }
        });
        if request.streams() {
            return Ok(replayed(told(reply, &run, None, waiting), run.is_known));
        }
        let Some(Waiting { mut leash, timeout, .. }) = waiting else { return Err(Error::internal()) };
        match tokio::time::timeout_at(deadline, run.finished()).await {
            Ok(finished) => {
                leash.slip();
                outcome(finished?.ok_or_else(Error::draining)?)?;
                let response = Json(self.written(&reply, Some(&run)).await?.reply.object()).into_response();
                Ok(replayed(response, run.is_known))
            }
            Err(_) => {
                leash.slip();
                run.cancel().await?;
                Err(Error::elapsed(timeout))
            }
        }
    }

    /// A response of which nothing is kept.
    async fn passed(
        self: &Arc<Self>,
        order: Order,
        echo: Map<String, Value>,
        streams: bool,
    ) -> Result<Answer, Error> {
        let mut turn = self.begin(order, None).await?;
        let mut reply = Reply::new(&turn.id, "", began(&turn.id), echo);
        let first = reply.begin();
        if streams {
            let first = first.iter().map(sent).collect();
            return Ok(turn.stream(first, move |event| {
                let events = match event {
                    Ok(event) => reply.of(&json!(event)),
                    Err(error) => reply.elapsed(error.detail()),
                };
                let end = reply.is_over().then(done);
                events.iter().map(sent).chain(end).collect()
            }));
        }
        while let Some(event) = turn.next().await {
            let event = event?;
            reply.of(&json!(event));
            if let EventKind::Finished(finished) = event.kind {
                outcome(finished)?;
            }
        }
        Ok(Json(reply.object()).into_response())
    }

    /// Where a request goes on: in a session that has all that was said before, or in none.
    async fn place(&self, request: &Request, said: Vec<Said>) -> Result<Place, Error> {
        let mut messages = Vec::new();
        for said in said {
            match said {
                Said::Message(message) => messages.push(message),
                Said::Reference(id) => messages.extend(self.referred(&id).await?),
            }
        }
        let last = messages.pop().filter(|last| last.role == Role::User && !last.parts.is_empty());
        let message = last.ok_or_else(|| {
            Error::invalid("the last message of `input` has to be the user's, with something in it")
                .of("input")
        })?;
        if let Some(key) = request.conversation() {
            return Ok(Place { session: Some(self.hub.session(key).await?), earlier: None, message });
        }
        if let Some(id) = &request.previous_response_id {
            let (session, past) = self.previous(id).await?;
            if past.is_last && messages.is_empty() && request.is_stored() {
                return Ok(Place { session: Some(session), earlier: None, message });
            }
            messages = past.messages.into_iter().chain(messages).collect();
        }
        match request.is_stored() {
            false => Ok(Place { session: None, earlier: Some(messages), message }),
            true => Ok(Place { session: Some(self.hub.branch(messages).await?), earlier: None, message }),
        }
    }

    /// What was said up to the end of a response, and where.
    async fn previous(&self, id: &str) -> Result<(String, Past), Error> {
        let unknown = || {
            let detail = format!("there is no response `{}`", short(id));
            Error::new(StatusCode::BAD_REQUEST, "previous_response_not_found", detail)
                .of("previous_response_id")
        };
        let found = self.stored(id).await?.ok_or_else(unknown)?;
        match self.hub.past(&found.session, &found.id).await? {
            Some(past) => Ok((found.session, past)),
            None => Err(unknown()),
        }
    }

    /// The message that an item of an earlier response is; `None` for what was thought.
    async fn referred(&self, id: &str) -> Result<Option<Message>, Error> {
        let unknown = || {
            Error::new(StatusCode::BAD_REQUEST, "item_not_found", format!("there is no item `{}`", short(id)))
                .of("input")
        };
        let (kind, rest) = id.split_once('_').ok_or_else(unknown)?;
        let turn = rest.rsplit_once('_').map(|(turn, _)| turn).ok_or_else(unknown)?;
        let (reply, run) = self.response(&format!("resp_{turn}")).await.map_err(|_| unknown())?;
        let object = self.written(&reply, run.as_ref()).await?.reply.object();
        let item = object["output"].as_array().into_iter().flatten().find(|item| item["id"] == id);
        let item = item.ok_or_else(unknown)?;
        let text = item["content"][0]["text"].as_str().unwrap_or_default();
        Ok((kind == "msg").then(|| Message::assistant(text)))
    }

    /// A response that was kept.
    async fn stored(&self, id: &str) -> Result<Option<Response>, Error> {
        let Some(turn) = turn(id) else { return Ok(None) };
        self.responses.find(turn).await.map_err(Error::broken)
    }

    /// A response as it began, and its run if that is known.
    async fn response(&self, id: &str) -> Result<(Reply, Option<Run>), Error> {
        let unknown = || {
            let detail = format!("there is no response `{}`, or it was not stored", short(id));
            Error::unknown("response_not_found", detail)
        };
        let Response { id, session, body } = self.stored(id).await?.ok_or_else(unknown)?;
        let echo = serde_json::from_str(&body).map_err(Error::broken)?;
        let reply = Reply::new(&id, &session, began(&id), echo);
        Ok((reply, self.hub.find_run(&id).await?))
    }

    /// Writes a response as far as it is known: as its run tells it, or the log of its session.
    async fn written(&self, reply: &Reply, run: Option<&Run>) -> Result<Written, Error> {
        if let Some(run) = run {
            // In this order: what is over has no more events than are read then.
            let standing = run.standing().await?;
            let happened: Vec<_> = run.happened().await?.iter().map(|event| json!(event)).collect();
            let written = Written::of(reply, &happened);
            let is_over = standing.is_none_or(|standing| standing.status == Status::Finished);
            if written.reply.is_over() || !is_over {
                return Ok(written);
            }
        }
        let events = self.hub.replay(reply.session(), reply.turn()).await?;
        let events: Vec<_> = events.iter().map(|event| json!(event)).collect();
        let mut written = Written { is_from_log: true, ..Written::of(reply, &events) };
        if !written.reply.is_over() {
            let end = written.reply.abandon();
            written.events.extend(end);
        }
        Ok(written)
    }
}

/// A response that is written, with the events that say how.
struct Written {
    reply: Reply,
    events: Vec<Value>,
    is_from_log: bool,
}

impl Written {
    fn of(reply: &Reply, events: &[Value]) -> Self {
        let mut reply = reply.clone();
        let mut told = reply.begin();
        // A try that came to nothing is not a part of it.
        let earlier = events.iter().rev().skip(1).position(|event| event["type"] == "result");
        let events = &events[earlier.map_or(0, |back| events.len() - 1 - back)..];
        events.iter().for_each(|event| told.extend(reply.of(event)));
        Self { reply, events: told, is_from_log: false }
    }
}

/// A run that is a response.
struct Kept {
    run: Run,
    echo: Map<String, Value>,
    /// Whether its caller may come again.
    is_keyed: bool,
}

/// Somebody who waits for a response, and how long.
struct Waiting {
    leash: Leash,
    deadline: Instant,
    timeout: f64,
}

/// What ends a run early.
fn cancelling(run: Run) -> impl FnOnce() + Send + 'static {
    move || {
        tokio::spawn(async move {
            if let Err(error) = run.cancel().await {
                tracing::warn!("a response that nobody waits for goes on: {error}");
            }
        });
    }
}

/// What happens in a response, from the beginning or after an event, to its end.
fn told(mut reply: Reply, run: &Run, after: Option<u64>, waiting: Option<Waiting>) -> Answer {
    let is_new = move |event: &Value| after.is_none_or(|last| event["sequence_number"].as_u64() > Some(last));
    let told = move |events: Vec<Value>| events.iter().filter(|event| is_new(event)).map(sent).collect();
    let (first, events): (Vec<sse::Event>, _) = (told(reply.begin()), run.events(run.before).boxed());
    let later = stream::unfold(Some((reply, events, waiting)), move |state| async move {
        let (mut reply, mut events, mut waiting) = state?;
        let next = match &waiting {
            Some(waiting) => tokio::time::timeout_at(waiting.deadline, events.next()).await,
            None => Ok(events.next().await),
        };
        let Ok(next) = next else {
            let waiting = waiting.as_mut()?;
            waiting.leash.pull();
            let detail = format!("there was no answer within {} s, and the turn was ended", waiting.timeout);
            return Some((told(reply.elapsed(&detail)), None));
        };
        let events_of = reply.of(&json!(next?));
        if let Some(waiting) = waiting.as_mut().filter(|_| reply.is_over()) {
            waiting.leash.slip();
        }
        Some((told(events_of), Some((reply, events, waiting))))
    });
    let later = later.flat_map(stream::iter);
    streamed(stream::iter(first).chain(later).chain(stream::iter([done()])))
}

fn done() -> sse::Event {
    sse::Event::default().data("[DONE]")
}

/// The turn that a response is.
fn turn(id: &str) -> Option<&str> {
    id.strip_prefix("resp_").filter(|turn| uuid::Uuid::try_parse(turn).is_ok())
}

/// When a turn was accepted: its id says so.
fn began(turn: &str) -> i64 {
    let time = uuid::Uuid::try_parse(turn).ok().and_then(|id| id.get_timestamp());
    time.map_or(0, |time| time.to_unix().0.cast_signed())
}

fn short(id: &str) -> String {
    id.chars().take(80).collect()
}
