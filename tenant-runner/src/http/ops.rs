//! How the engine is, its alerts, who does not want to hear of them, what was measured, and the repairs that can be asked for.

use super::error::{ApiError, ApiResult};
use super::extract::{Json as Body, Path, Query, moment};
use crate::app::App;
use crate::principal::Principal;
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use nexaas_engine::ops::{AlertFilter, SilenceSpec};
use serde::Deserialize;
use serde_json::{Value, json};

pub async fn health(State(app): State<App>) -> Json<Value> {
    Json(json!(app.engine().ops().health().await))
}

#[derive(Debug, Deserialize)]
pub struct Alerts {
    limit: Option<u32>,
    severity: Option<String>,
    category: Option<String>,
    open: Option<bool>,
}

fn given(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

pub async fn alerts(State(app): State<App>, Query(query): Query<Alerts>) -> ApiResult<Json<Value>> {
    let filter = AlertFilter {
        severity: given(query.severity).map(|text| text.parse()).transpose()?,
        category: given(query.category),
        open: query.open,
        limit: Some(query.limit.unwrap_or(50).clamp(1, 500)),
    };
    Ok(Json(json!(app.engine().ops().alerts(filter).await?)))
}

pub async fn acknowledge(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
) -> ApiResult<Json<Value>> {
    Ok(Json(json!(app.engine().ops().acknowledge(&id, &principal.name()).await?)))
}

pub async fn silence_alert(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
    Body(spec): Body<SilenceSpec>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let made = app.engine().ops().silence_alert(&id, spec, &principal.name()).await?;
    Ok((StatusCode::CREATED, Json(json!(made))))
}

pub async fn unsilence_alert(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
) -> ApiResult<Json<Value>> {
    let ended = app.engine().ops().unsilence_alert(&id, &principal.name()).await?;
    Ok(Json(json!({"ended": ended})))
}

#[derive(Debug, Deserialize)]
pub struct Limited {
    limit: Option<u32>,
}

pub async fn silences(State(app): State<App>, Query(query): Query<Limited>) -> ApiResult<Json<Value>> {
    Ok(Json(json!(app.engine().ops().silences(query.limit.unwrap_or(100)).await?)))
}

pub async fn silence(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Body(spec): Body<SilenceSpec>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let made = app.engine().ops().silence(spec, &principal.name()).await?;
    Ok((StatusCode::CREATED, Json(json!(made))))
}

pub async fn end_silence(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
) -> ApiResult<Json<Value>> {
    Ok(Json(json!(app.engine().ops().end_silence(&id, &principal.name()).await?)))
}

pub async fn checks(State(app): State<App>) -> ApiResult<Json<Value>> {
    Ok(Json(json!(app.engine().ops().checks().await?)))
}

#[derive(Debug, Deserialize)]
pub struct Snapshots {
    since: Option<String>,
    limit: Option<u32>,
}

pub async fn snapshots(State(app): State<App>, Query(query): Query<Snapshots>) -> ApiResult<Json<Value>> {
    let since = moment("since", query.since)?;
    Ok(Json(json!(app.engine().ops().snapshots(since, query.limit.unwrap_or(500)).await?)))
}

pub async fn remedies(State(app): State<App>, Query(query): Query<Limited>) -> ApiResult<Json<Value>> {
    Ok(Json(json!(app.engine().ops().remedies(query.limit.unwrap_or(50)).await?)))
}

/// An unknown action was a 400 in the original.
pub async fn heal(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(action): Path<String>,
) -> ApiResult<Json<Value>> {
    let outcome = app.engine().ops().heal(&action, &principal.name()).await;
    let result = outcome.map_err(|e| ApiError::from(e).with_status_for_invalid(StatusCode::BAD_REQUEST))?;
    Ok(Json(json!(result)))
}
