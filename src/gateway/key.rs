//! The key by which a caller asks for the same answer again: `Idempotency-Key`.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use serde_json::Value;

use super::error::Error;
use super::guard::Caller;
use crate::hub::run::Key;

const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The key of a request, if it has one.
pub(super) struct Again(Option<(String, String)>);

impl Again {
    /// The key, for what is asked.
    pub(super) fn key(&self, what: &Value) -> Option<Key> {
        self.0.as_ref().map(|(caller, name)| Key::new(caller, name, what))
    }
}

/// Says with an answer whether it is that of an earlier request.
pub(super) fn replayed(mut response: Response, is_known: bool) -> Response {
    if is_known {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

/// Where nothing is kept there is nothing to come back to.
pub(super) fn unkept(detail: &str) -> Error {
    Error::unsupported("Idempotency-Key", detail)
}

impl<S: Sync> FromRequestParts<S> for Again {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let mut given = parts.headers.get_all(KEY).iter();
        let name = match (given.next(), given.next()) {
            (None, _) => return Ok(Self(None)),
            (Some(name), None) => name.to_str().unwrap_or_default(),
            (Some(_), Some(_)) => "",
        };
        if !(1..=255).contains(&name.len()) || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            let detail = "`Idempotency-Key` has to be one word of at most 255 visible ASCII characters";
            return Err(Error::invalid(detail).of("Idempotency-Key"));
        }
        // Callers do not share their keys.
        let caller = parts.extensions.get::<Caller>().map(|caller| caller.id.to_string());
        Ok(Self(Some((caller.unwrap_or_default(), name.to_owned()))))
    }
}
