//! What the models were asked and what it cost.

use super::error::ApiResult;
use super::extract::Query;
use crate::app::App;
use axum::Json;
use axum::extract::State;
use nexaas_engine::usage::UsageFilter;
use serde_json::{Value, json};

/// What the models were asked and what it cost.
#[utoipa::path(get, path = "/api/usage", tag = "usage", params(("workspace" = Option<String>, Query), ("agent" = Option<String>, Query), ("source" = Option<String>, Query), ("since" = Option<String>, Query, description = "A moment or a date; inclusive"), ("until" = Option<String>, Query, description = "A moment or a date; a date includes its whole day")), responses((status = 200, body = super::openapi::shapes::UsageReport)))]
pub async fn report(State(app): State<App>, Query(filter): Query<UsageFilter>) -> ApiResult<Json<Value>> {
    Ok(Json(json!(app.engine().usage().report(filter).await?)))
}
