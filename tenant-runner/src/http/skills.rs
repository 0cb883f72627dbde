//! Skills: list them, read one, run one while the caller waits.

use super::error::{ApiError, ApiResult};
use super::extract::{Optional, Path};
use crate::app::App;
use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

/// The skills.
#[utoipa::path(get, path = "/api/skills", tag = "workspace", responses((status = 200, body = Vec<super::openapi::shapes::Skill>)))]
pub async fn list(State(app): State<App>) -> Json<Value> {
    let snapshot = app.engine().workspace().snapshot();
    Json(snapshot.skills.iter().map(|s| json!(s)).collect())
}

/// One skill.
#[utoipa::path(get, path = "/api/skills/{name}", tag = "workspace", params(("name" = String, Path, description = "Its heading or file stem")), responses((status = 200, body = super::openapi::shapes::SkillWithBody)))]
pub async fn show(State(app): State<App>, Path(name): Path<String>) -> ApiResult<Json<Value>> {
    let snapshot = app.engine().workspace().snapshot();
    let skill = snapshot.skill(&name).ok_or_else(|| ApiError::not_found("The skill does not exist"))?;
    let mut answer = json!(skill);
    answer["body"] = json!(skill.body);
    Ok(Json(answer))
}

#[derive(Debug, Default, Deserialize)]
pub struct Execute {
    #[serde(default)]
    input: String,
    #[serde(default)]
    agent: Option<String>,
}

/// Runs a skill while the caller waits.
#[utoipa::path(post, path = "/api/skills/{name}/execute", tag = "workspace", request_body = Option<super::openapi::shapes::SkillInput>, params(("name" = String, Path, description = "Its heading or file stem")), responses((status = 200, body = super::openapi::shapes::SkillRun)))]
pub async fn execute(
    State(app): State<App>,
    Path(name): Path<String>,
    Optional(body): Optional<Execute>,
) -> ApiResult<Json<Value>> {
    let Execute { input, agent } = body;
    let agent = agent.filter(|a| !a.is_empty());
    let run = app.engine().skills().execute(&name, &input, agent.as_deref()).await?;
    Ok(Json(json!({ "skill": run.skill, "result": run.result })))
}
