//! The body of a request: JSON, not too much of it, and in time.

use std::time::Duration;

use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use futures::StreamExt;
use serde::de::DeserializeOwned;

use super::error::Error;

/// Bytes of most requests, and of those that may have pictures in them.
pub(super) const SMALL: usize = 1 << 20;
pub(super) const LARGE: usize = 20 << 20;
/// How long a body may take to arrive, and how long nothing of it may come.
const PATIENCE: Duration = Duration::from_secs(120);
const SILENCE: Duration = Duration::from_secs(10);

/// A body of at most `LIMIT` bytes.
pub(super) struct Sent<T, const LIMIT: usize = SMALL>(pub(super) T);

impl<T: DeserializeOwned, S: Sync, const LIMIT: usize> FromRequest<S> for Sent<T, LIMIT> {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self, Error> {
        // A form of a web page could not say so.
        if !is_json(request.headers()) {
            let detail = "the body has to be JSON, with `Content-Type: application/json`";
            return Err(Error::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
        }
        let bytes = tokio::time::timeout(PATIENCE, read(request, LIMIT)).await.map_err(|_| slow())??;
        match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Self(value)),
            Err(error) => Err(Error::invalid(format!("the body is not as it should be: {error}"))),
        }
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

fn slow() -> Error {
    Error::new(StatusCode::REQUEST_TIMEOUT, "slow_body", "the body did not arrive in time")
}

async fn read(request: Request, limit: usize) -> Result<Vec<u8>, Error> {
    let large = || {
        let detail = format!("the body has more than {limit} bytes");
        Error::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
    };
    let said = request.headers().get(header::CONTENT_LENGTH);
    let said = said.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if said.is_some_and(|length| length > limit) {
        return Err(large());
    }
    let mut bytes = Vec::with_capacity(said.unwrap_or_default());
    let mut pieces = request.into_body().into_data_stream();
    while let Some(piece) = tokio::time::timeout(SILENCE, pieces.next()).await.map_err(|_| slow())? {
        let piece = piece.map_err(|error| Error::invalid(format!("the body broke off: {error}")))?;
        if bytes.len() + piece.len() > limit {
            return Err(large());
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}
