//! The tree of agents, and one of them.

use super::error::{ApiError, ApiResult};
use super::extract::Path;
use crate::app::App;
use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

/// The agents, as a tree.
#[utoipa::path(get, path = "/api/agents", tag = "workspace", responses((status = 200, body = Vec<super::openapi::shapes::Agent>)))]
pub async fn tree(State(app): State<App>) -> Json<Value> {
    Json(json!(app.engine().workspace().snapshot().tree))
}

/// One agent.
#[utoipa::path(get, path = "/api/agents/{name}", tag = "workspace", params(("name" = String, Path, description = "The agent")), responses((status = 200, body = super::openapi::shapes::Agent)))]
pub async fn show(State(app): State<App>, Path(name): Path<String>) -> ApiResult<Json<Value>> {
    let snapshot = app.engine().workspace().snapshot();
    let node = snapshot.node(&name).ok_or_else(|| ApiError::not_found("The agent does not exist"))?;
    Ok(Json(json!(node)))
}
