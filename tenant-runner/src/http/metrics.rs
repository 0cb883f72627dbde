//! The process's metrics as Prometheus text.

use super::error::{ApiError, ApiResult};
use crate::app::App;
use axum::extract::State;
use axum::http::{HeaderName, header};

/// The metrics of the process, for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "meta", responses((status = 200, body = String, content_type = "text/plain"), (status = 404, body = super::openapi::shapes::Problem)))]
pub async fn show(State(app): State<App>) -> ApiResult<([(HeaderName, &'static str); 1], String)> {
    let text = app.metrics().ok_or_else(|| ApiError::not_found("This process records no metrics"))?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text))
}
