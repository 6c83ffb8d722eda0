//! What was learned from earlier turns, for programs that show it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::IntoParams;

use super::Gateway;
use super::error::Error;
use super::openapi;

/// Memories of one list, unless another number is asked for, and at most.
const USUAL: usize = 20;
const MOST: usize = 1000;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Wish {
    /// The question that they should fit; without one the latest are listed.
    q: Option<String>,
    /// At most this many.
    limit: Option<usize>,
}

/// Memories that fit a question, the best first, or the latest.
#[utoipa::path(get, path = "/api/v1/memories", params(Wish), responses((status = 200, body = openapi::Memories)))]
pub(super) async fn list(
    State(gateway): State<Arc<Gateway>>,
    Query(wish): Query<Wish>,
) -> Result<Json<Value>, Error> {
    let limit = wish.limit.unwrap_or(USUAL).clamp(1, MOST);
    let asked = wish.q.as_deref().map(str::trim).filter(|asked| !asked.is_empty());
    match gateway.hub.memories(asked, limit).await.map_err(Error::broken)? {
        Some(memories) => Ok(Json(json!({"memories": memories}))),
        None => Err(Error::unknown("nothing_remembered", "nothing is remembered: see `memory.enabled`")),
    }
}
