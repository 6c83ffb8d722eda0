//! Who may come in, and with what.
//!
//! Whoever has a token comes in with its scopes, by any name of ours. Without any token there is
//! only this machine, and of it no browser: a page must not be able to talk to the assistant, not
//! even one whose own name was pointed at this machine (DNS rebinding).

use std::num::NonZeroU32;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tracing::{Instrument, field};

use super::Gateway;
use super::error::{self, Error, REQUEST_ID};
use crate::store::token::{Scope, Scopes, Tokens};
use crate::{measure, trace};

/// What is told to everybody.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];
/// What a browser says about where a request comes from, and nobody else does.
const BROWSER: [&str; 2] = ["origin", "sec-fetch-site"];

/// Whoever sent a request.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// The id of the token; empty without one.
    pub(super) id: Arc<str>,
    pub(super) scopes: Scopes,
}

/// The id of a request: the caller's own, or a new one.
#[derive(Debug, Clone)]
pub(super) struct RequestId(pub(super) Arc<str>);

/// What is asked at the door.
pub(super) struct Guard {
    /// The digest of the token that is in the settings.
    token: Option<[u8; 32]>,
    tokens: Tokens,
    /// Nobody has a token, so this machine comes in without.
    free: bool,
    limiter: Option<DefaultKeyedRateLimiter<Arc<str>>>,
}

impl Guard {
    pub(super) async fn new(tokens: Tokens, token: Option<&str>, rate: u32) -> Result<Self, String> {
        let free =
            token.is_none() && !tokens.any(Timestamp::now()).await.map_err(|error| error.to_string())?;
        let limiter = NonZeroU32::new(rate).map(|rate| RateLimiter::keyed(Quota::per_minute(rate)));
        Ok(Self { token: token.map(digest), tokens, free, limiter })
    }

    /// Whether callers come in without a token.
    pub(super) fn is_free(&self) -> bool {
        self.free
    }

    async fn admit(&self, uri: &Uri, headers: &HeaderMap) -> Result<Caller, Error> {
        if self.free {
            at_home(uri, headers)?;
            return Ok(Caller { id: "".into(), scopes: Scopes::all() });
        }
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        let bearer = match (given.next().map(bearer), given.next()) {
            (None, _) => return Err(Error::unauthorized("a token is needed: `Authorization: Bearer …`")),
            (Some(Some(bearer)), None) => bearer,
            _ => return Err(Error::unauthorized("the header `Authorization` cannot be read")),
        };
        let caller = self.known(bearer).await?;
        self.paced(&caller)?;
        Ok(caller)
    }

    async fn known(&self, bearer: &str) -> Result<Caller, Error> {
        let given = digest(bearer);
        if self.token.is_some_and(|token| same(&token, &given)) {
            return Ok(Caller { id: "settings".into(), scopes: Scopes::all() });
        }
        let wrong = || Error::unauthorized("the token is unknown, revoked or expired");
        let id = bearer.strip_prefix("omni_").and_then(|rest| rest.split('_').next()).ok_or_else(wrong)?;
        let token = self.tokens.find(id, Timestamp::now()).await.map_err(Error::broken)?.ok_or_else(wrong)?;
        match same(&token.digest, &given) {
            true => Ok(Caller { id: token.id.into(), scopes: token.scopes }),
            false => Err(wrong()),
        }
    }

    /// Refuses what is too much for one token.
    fn paced(&self, caller: &Caller) -> Result<(), Error> {
        let Some(limiter) = &self.limiter else { return Ok(()) };
        limiter.check_key(&caller.id).map_err(|until| {
            let wait = until.wait_time_from(DefaultClock::default().now()).as_secs() + 1;
            let detail = format!("too many requests with this token; wait {wait} s");
            Error::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail).after(wait)
        })
    }
}

/// Whether it is a program of this machine that calls us by the machine's own name.
fn at_home(uri: &Uri, headers: &HeaderMap) -> Result<(), Error> {
    // Which of them counts depends on whom one asks, and on the version of HTTP.
    let hosts = headers.get_all(header::HOST).iter().map(|host| host.to_str().unwrap_or_default());
    let hosts: Vec<_> = hosts.chain(uri.authority().map(Authority::as_str)).collect();
    if hosts.is_empty() || !hosts.iter().all(|host| is_local(host)) {
        return Err(Error::forbidden("wrong_host", "without a token it answers to `localhost` only"));
    }
    if BROWSER.iter().any(|name| headers.contains_key(*name)) {
        return Err(Error::forbidden("browser", "pages in a browser need a token: see `omni token new`"));
    }
    Ok(())
}

fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

fn bearer(header: &HeaderValue) -> Option<&str> {
    let (scheme, token) = header.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

pub(super) fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// Compares in a time that does not depend on where they differ.
pub(super) fn same(one: &[u8; 32], other: &[u8; 32]) -> bool {
    one.iter().zip(other).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

/// Gives a request its id, writes down why it got no answer if it got none, and catches what broke.
pub(super) async fn named(mut request: Request, next: Next) -> Response {
    let own = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let own =
        own.filter(|id| (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()));
    let id: Arc<str> = own.map_or_else(|| uuid::Uuid::now_v7().to_string().into(), Into::into);
    let (path, began) = (request.uri().path().to_owned(), Instant::now());
    request.extensions_mut().insert(RequestId(id.clone()));
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let method = request.method().clone();
    let span = tracing::info_span!("request", id = &*id);
    let detail = span.in_scope(|| {
        tracing::debug_span!(
            target: trace::DETAIL, "server", otel.name = format!("{method} {route}"), otel.kind = "server",
            http.request.method = method.as_str(), http.route = route,
            http.response.status_code = field::Empty, omni.request = &*id,
        )
    });
    if let Some(parent) = request.headers().get("traceparent").and_then(|parent| parent.to_str().ok()) {
        trace::adopt(&detail, parent);
    }
    let work = trace::within(id.clone(), AssertUnwindSafe(next.run(request)).catch_unwind());
    let answered = work.instrument(detail.clone()).instrument(span.clone()).await;
    let response =
        answered.unwrap_or_else(|_| span.in_scope(|| Error::broken("it panicked")).into_response());
    let mut response = error::told(response, &path, &id);
    detail.record("http.response.status_code", response.status().as_u16());
    measure::request(&route, response.status().as_u16(), began.elapsed());
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// Lets those pass who may come in.
pub(super) async fn guarded(
    State(gateway): State<Arc<Gateway>>,
    mut request: Request,
    next: Next,
) -> Response {
    if OPEN.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    match gateway.guard.admit(request.uri(), request.headers()).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

/// Lets those pass whose token is good for this.
pub(super) async fn scoped(needed: Scope, request: Request, next: Next) -> Response {
    let caller = request.extensions().get::<Caller>();
    match caller.is_some_and(|caller| caller.scopes.have(needed)) {
        true => next.run(request).await,
        false => {
            let detail = format!("the token has not the scope `{needed}`, which this needs");
            Error::forbidden("missing_scope", detail).into_response()
        }
    }
}
