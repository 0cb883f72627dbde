//! The tree of agents, and one of them.

use super::error::{ApiError, ApiResult};
use super::extract::Path;
use crate::app::App;
use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

pub async fn tree(State(app): State<App>) -> Json<Value> {
    Json(json!(app.engine().workspace().snapshot().tree))
}

pub async fn show(State(app): State<App>, Path(name): Path<String>) -> ApiResult<Json<Value>> {
    let snapshot = app.engine().workspace().snapshot();
    let node = snapshot.node(&name).ok_or_else(|| ApiError::not_found("The agent does not exist"))?;
    Ok(Json(json!(node)))
}
