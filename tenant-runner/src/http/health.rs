//! Whether this runner can do its work: 503 names what cannot.

use super::error::{ApiError, ApiResult};
use crate::app::App;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::time::Duration;

/// Whether this runner can do its work.
#[utoipa::path(get, path = "/api/health", tag = "meta", responses((status = 200, body = super::openapi::shapes::Health)))]
pub async fn show(State(app): State<App>) -> ApiResult<Json<Value>> {
    if app.draining().is_cancelled() {
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "This runner is stopping"));
    }
    if app.awaits_settings() {
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "Waiting for the settings of the control plane"));
    }
    let verdict = tokio::time::timeout(Duration::from_secs(2), app.engine().healthy()).await;
    match verdict {
        Ok(Ok(())) => Ok(Json(json!({ "status": "ok", "version": nexaas_common::VERSION }))),
        Ok(Err(why)) => Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, why)),
        Err(_) => Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "The engine does not answer within 2 s")),
    }
}
