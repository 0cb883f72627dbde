//! The queue: how much waits, runs and is done, and single jobs.

use super::error::{ApiError, ApiResult};
use super::extract::Path;
use crate::app::App;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use nexaas_engine::queue::JobId;
use serde_json::{Value, json};

pub async fn view(State(app): State<App>) -> ApiResult<Json<Value>> {
    Ok(Json(json!(app.engine().queue().view().await?)))
}

pub async fn show(State(app): State<App>, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    Ok(Json(json!(app.engine().queue().get(known(&id)?).await?)))
}

pub async fn cancel(State(app): State<App>, Path(id): Path<String>) -> ApiResult<StatusCode> {
    app.engine().queue().cancel(known(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A text that is no job's id names no job.
fn known(id: &str) -> ApiResult<JobId> {
    id.parse().map_err(|_| ApiError::not_found("The job does not exist"))
}
