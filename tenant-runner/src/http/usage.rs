//! What the models were asked and what it cost.

use super::error::ApiResult;
use super::extract::Query;
use crate::app::App;
use axum::Json;
use axum::extract::State;
use nexaas_engine::usage::UsageFilter;
use serde_json::{Value, json};

pub async fn report(State(app): State<App>, Query(filter): Query<UsageFilter>) -> ApiResult<Json<Value>> {
    Ok(Json(json!(app.engine().usage().report(filter).await?)))
}
