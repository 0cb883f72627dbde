//! What the tenant's files say, with secrets of the MCP configuration left out by the engine.

use crate::app::App;
use axum::Json;
use axum::extract::State;
use serde_json::Value;

/// What the tenant's files say.
#[utoipa::path(get, path = "/api/workspace", tag = "workspace", responses((status = 200, body = super::openapi::shapes::Workspace)))]
pub async fn show(State(app): State<App>) -> Json<Value> {
    Json(app.engine().workspace().view())
}
