//! How the engine is, its alerts, and the repairs that can be asked for.

use super::error::{ApiError, ApiResult};
use super::extract::{Path, Query};
use crate::app::App;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

pub async fn health(State(app): State<App>) -> Json<Value> {
    Json(json!(app.engine().ops().health().await))
}

#[derive(Debug, Deserialize)]
pub struct Alerts {
    limit: Option<u32>,
    severity: Option<String>,
}

pub async fn alerts(State(app): State<App>, Query(query): Query<Alerts>) -> ApiResult<Json<Value>> {
    let severity = query.severity.filter(|s| !s.is_empty());
    let limit = query.limit.unwrap_or(50).clamp(1, 500);
    Ok(Json(json!(app.engine().ops().alerts(limit, severity.as_deref()).await?)))
}

pub async fn acknowledge(State(app): State<App>, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    Ok(Json(json!(app.engine().ops().acknowledge(&id).await?)))
}

/// An unknown action was a 400 in the original.
pub async fn heal(State(app): State<App>, Path(action): Path<String>) -> ApiResult<Json<Value>> {
    let outcome = app.engine().ops().heal(&action).await;
    let result = outcome.map_err(|e| ApiError::from(e).with_status_for_invalid(StatusCode::BAD_REQUEST))?;
    Ok(Json(json!(result)))
}
