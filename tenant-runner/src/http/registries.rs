//! The tenant's registries: small tables kept in its files.

use super::error::{ApiError, ApiResult};
use super::extract::Path;
use crate::app::App;
use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

/// The registries.
#[utoipa::path(get, path = "/api/registries", tag = "workspace", responses((status = 200, body = Vec<super::openapi::shapes::RegistryName>)))]
pub async fn list(State(app): State<App>) -> Json<Value> {
    let snapshot = app.engine().workspace().snapshot();
    Json(snapshot.registries.values().map(|r| json!({ "name": r.name, "path": r.path })).collect())
}

/// One registry.
#[utoipa::path(get, path = "/api/registries/{name}", tag = "workspace", params(("name" = String, Path, description = "The registry")), responses((status = 200, body = super::openapi::shapes::Registry)))]
pub async fn show(State(app): State<App>, Path(name): Path<String>) -> ApiResult<Json<Value>> {
    let snapshot = app.engine().workspace().snapshot();
    let registry = snapshot.registry(&name).ok_or_else(|| ApiError::not_found("The registry does not exist"))?;
    Ok(Json(json!({ "name": registry.name, "data": registry.data })))
}
