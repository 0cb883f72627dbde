//! Events: the tenant's schedules and triggers.

use super::error::ApiResult;
use super::extract::{Json as Body, Path, Query};
use crate::app::App;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use nexaas_engine::event::EventFilter;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct List {
    status: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    agent: Option<String>,
    limit: Option<u32>,
}

/// The events, the next ones first.
#[utoipa::path(get, path = "/api/events", tag = "events", params(List), responses((status = 200, body = Vec<super::openapi::shapes::Event>)))]
pub async fn list(State(app): State<App>, Query(query): Query<List>) -> ApiResult<Json<Value>> {
    let filter = EventFilter {
        status: query.status.filter(|s| !s.is_empty()),
        kind: query.kind.filter(|s| !s.is_empty()),
        agent: query.agent.filter(|s| !s.is_empty()),
        limit: query.limit,
    };
    Ok(Json(json!(app.engine().events().list(filter).await?)))
}

/// One event.
#[utoipa::path(get, path = "/api/events/{id}", tag = "events", params(("id" = String, Path, description = "The event")), responses((status = 200, body = super::openapi::shapes::Event)))]
pub async fn show(State(app): State<App>, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    Ok(Json(json!(app.engine().events().get(&id).await?)))
}

/// Makes an event, or replaces the one of the same id.
#[utoipa::path(post, path = "/api/events", tag = "events", request_body = super::openapi::shapes::EventInput, responses((status = 200, body = super::openapi::shapes::Upserted)))]
pub async fn upsert(State(app): State<App>, Body(body): Body<Value>) -> ApiResult<impl IntoResponse> {
    let (id, action) = app.engine().events().upsert(body).await?;
    Ok(Json(json!({ "id": id, "action": action })))
}

/// Changes the named fields.
#[utoipa::path(patch, path = "/api/events/{id}", tag = "events", request_body = super::openapi::shapes::EventInput, params(("id" = String, Path, description = "The event")), responses((status = 200, body = super::openapi::shapes::Event)))]
pub async fn patch(State(app): State<App>, Path(id): Path<String>, Body(body): Body<Value>) -> ApiResult<Json<Value>> {
    Ok(Json(json!(app.engine().events().patch(&id, body).await?)))
}

/// Removes an event.
#[utoipa::path(delete, path = "/api/events/{id}", tag = "events", params(("id" = String, Path, description = "The event")), responses((status = 204, description = "It is gone; jobs that are queued run nevertheless")))]
pub async fn delete(State(app): State<App>, Path(id): Path<String>) -> ApiResult<StatusCode> {
    app.engine().events().delete(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Stops an active event until it is resumed. It can still be triggered by hand.
#[utoipa::path(post, path = "/api/events/{id}/pause", tag = "events", params(("id" = String, Path, description = "The event")), responses((status = 200, body = super::openapi::shapes::Event)))]
pub async fn pause(State(app): State<App>, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    Ok(Json(json!(app.engine().events().pause(&id).await?)))
}

/// Sets a paused or failed event going again. Slots that passed meanwhile are not made up for.
#[utoipa::path(post, path = "/api/events/{id}/resume", tag = "events", params(("id" = String, Path, description = "The event")), responses((status = 200, body = super::openapi::shapes::Event)))]
pub async fn resume(State(app): State<App>, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    Ok(Json(json!(app.engine().events().resume(&id).await?)))
}

/// Runs the event's action now, whatever its condition says.
#[utoipa::path(post, path = "/api/events/{id}/trigger", tag = "events", params(("id" = String, Path, description = "The event")), responses((status = 202, body = super::openapi::shapes::Triggered)))]
pub async fn trigger(State(app): State<App>, Path(id): Path<String>) -> ApiResult<impl IntoResponse> {
    let job = app.engine().events().trigger(&id).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "id": id, "job_id": job }))))
}
