//! A path at which another server brings something, and shows that it is the one.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use futures::future::BoxFuture;

use super::guard::{digest, same};

/// Such a path.
#[derive(Clone)]
pub struct Hook {
    /// Where it is, from the first `/` on.
    pub path: String,
    /// The header with the secret.
    pub header: &'static str,
    /// What only that server knows.
    pub secret: String,
    /// Takes what is brought; an error has it brought again.
    pub take: Take,
}

/// Takes what is brought.
pub type Take = Arc<dyn Fn(Bytes) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

impl Hook {
    pub(super) fn join(self, router: Router) -> Router {
        let hook = Arc::new(self);
        let path = hook.path.clone();
        let take = move |headers: HeaderMap, body: Bytes| {
            let hook = hook.clone();
            async move { hook.taken(&headers, body).await }
        };
        router.route(&path, post(take))
    }

    async fn taken(&self, headers: &HeaderMap, body: Bytes) -> StatusCode {
        let mut given = headers.get_all(self.header).iter();
        let first = given.next().and_then(|secret| secret.to_str().ok()).filter(|_| given.next().is_none());
        if !first.is_some_and(|secret| same(&digest(secret), &digest(&self.secret))) {
            return StatusCode::UNAUTHORIZED;
        }
        match (self.take)(body).await {
            Ok(()) => StatusCode::OK,
            Err(reason) => {
                tracing::warn!("what was brought to {} is not taken: {reason}", self.header);
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }
}
