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

#[derive(Debug, Deserialize)]
pub struct List {
    status: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    agent: Option<String>,
    limit: Option<u32>,
}

pub async fn list(State(app): State<App>, Query(query): Query<List>) -> ApiResult<Json<Value>> {
    let filter = EventFilter {
        status: query.status.filter(|s| !s.is_empty()),
        kind: query.kind.filter(|s| !s.is_empty()),
        agent: query.agent.filter(|s| !s.is_empty()),
        limit: query.limit,
    };
    Ok(Json(json!(app.engine().events().list(filter).await?)))
}

pub async fn show(State(app): State<App>, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    Ok(Json(json!(app.engine().events().get(&id).await?)))
}

pub async fn upsert(State(app): State<App>, Body(body): Body<Value>) -> ApiResult<impl IntoResponse> {
    let (id, action) = app.engine().events().upsert(body).await?;
    Ok(Json(json!({ "id": id, "action": action })))
}

pub async fn patch(State(app): State<App>, Path(id): Path<String>, Body(body): Body<Value>) -> ApiResult<Json<Value>> {
    Ok(Json(json!(app.engine().events().patch(&id, body).await?)))
}

pub async fn delete(State(app): State<App>, Path(id): Path<String>) -> ApiResult<StatusCode> {
    app.engine().events().delete(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn trigger(State(app): State<App>, Path(id): Path<String>) -> ApiResult<impl IntoResponse> {
    let job = app.engine().events().trigger(&id).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "id": id, "job_id": job }))))
}
