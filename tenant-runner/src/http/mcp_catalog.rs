//! The MCP servers a workspace may enable.

use crate::app::App;
use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

/// The MCP servers a workspace may enable.
#[utoipa::path(get, path = "/api/mcp-catalog", tag = "workspace", responses((status = 200, body = Vec<super::openapi::shapes::CatalogEntry>)))]
pub async fn list(State(app): State<App>) -> Json<Value> {
    let snapshot = app.engine().workspace().snapshot();
    Json(snapshot.mcp_catalog.iter().map(|e| json!(e)).collect())
}
