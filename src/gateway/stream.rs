//! Events as they happen, for as long as somebody listens.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::HeaderName;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt};

/// How often a silent stream shows that it is there.
const SIGN: Duration = Duration::from_secs(15);

/// Events as a response.
pub(super) fn stream(events: impl Stream<Item = sse::Event> + Send + 'static) -> Response {
    let sign = KeepAlive::new().interval(SIGN).text("still here");
    // Proxies must not collect it.
    let whole = (HeaderName::from_static("x-accel-buffering"), "no");
    ([whole], Sse::new(events.map(Ok::<_, Infallible>)).keep_alive(sign)).into_response()
}
