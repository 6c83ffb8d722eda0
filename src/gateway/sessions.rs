//! Conversations that were had, for programs that show them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::IntoParams;

use super::Gateway;
use super::error::Error;
use super::openapi;
use crate::hub::{SessionError, session_id};

/// Sessions of one list, unless another number is asked for, and at most.
const USUAL: usize = 50;
const MOST: usize = 1000;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// At most this many.
    limit: Option<usize>,
}

/// Conversations, those last added to first.
#[utoipa::path(get, path = "/api/v1/sessions", params(Page), responses((status = 200, body = openapi::Sessions)))]
pub(super) async fn list(
    State(gateway): State<Arc<Gateway>>,
    Query(page): Query<Page>,
) -> Result<Json<Value>, Error> {
    let limit = page.limit.unwrap_or(USUAL).clamp(1, MOST);
    Ok(Json(json!({"sessions": gateway.hub.sessions().list(None, limit).await?})))
}

/// What is known of a conversation.
#[utoipa::path(
    get, path = "/api/v1/sessions/{id}", params(("id" = String, Path)),
    responses((status = 200, body = openapi::Session)),
)]
pub(super) async fn get(
    State(gateway): State<Arc<Gateway>>,
    Path(key): Path<String>,
) -> Result<Json<Value>, Error> {
    let id = known(&gateway, &key).await?;
    Ok(Json(json!(gateway.hub.sessions().resolve(&id).await?)))
}

/// The whole log of a conversation, as it was written.
#[utoipa::path(
    get, path = "/api/v1/sessions/{id}/messages", params(("id" = String, Path)),
    responses((status = 200, body = openapi::Log)),
)]
pub(super) async fn messages(
    State(gateway): State<Arc<Gateway>>,
    Path(key): Path<String>,
) -> Result<Json<Value>, Error> {
    let id = known(&gateway, &key).await?;
    Ok(Json(json!({"entries": gateway.hub.sessions().show(&id).await?})))
}

/// Delete a conversation for good.
#[utoipa::path(
    delete, path = "/api/v1/sessions/{id}", params(("id" = String, Path)), responses((status = 204)),
)]
pub(super) async fn delete(
    State(gateway): State<Arc<Gateway>>,
    Path(key): Path<String>,
) -> Result<StatusCode, Error> {
    let id = known(&gateway, &key).await?;
    gateway.hub.sessions().delete(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The id of the session that is called exactly so: no beginning of an id may delete another.
async fn known(gateway: &Gateway, key: &str) -> Result<String, Error> {
    let id = session_id(key);
    match gateway.hub.sessions().resolve(&id).await {
        Ok(summary) if summary.id == id => Ok(id),
        Ok(_) | Err(SessionError::Unknown(_) | SessionError::Ambiguous { .. }) => {
            Err(Error::unknown("session_not_found", format!("there is no session `{key}`")))
        }
        Err(error) => Err(error.into()),
    }
}
