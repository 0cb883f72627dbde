//! Skills: list them, read one, run one while the caller waits.

use super::error::{ApiError, ApiResult};
use super::extract::{Json as Body, Path};
use crate::app::App;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest as _, Request, State};
use serde::Deserialize;
use serde_json::{Value, json};

pub async fn list(State(app): State<App>) -> Json<Value> {
    let snapshot = app.engine().workspace().snapshot();
    Json(snapshot.skills.iter().map(|s| json!(s)).collect())
}

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

/// The body is optional: no body at all is no input.
async fn optional_body(request: Request) -> ApiResult<Execute> {
    let (parts, body) = request.into_parts();
    let bytes = Bytes::from_request(Request::from_parts(parts.clone(), body), &())
        .await
        .map_err(|e| ApiError::new(e.status(), e.body_text()))?;
    if bytes.is_empty() {
        return Ok(Execute::default());
    }
    let Body(execute) = Body::<Execute>::from_request(Request::from_parts(parts, bytes.into()), &()).await?;
    Ok(execute)
}

pub async fn execute(State(app): State<App>, Path(name): Path<String>, request: Request) -> ApiResult<Json<Value>> {
    let Execute { input, agent } = optional_body(request).await?;
    let agent = agent.filter(|a| !a.is_empty());
    let run = app.engine().skills().execute(&name, &input, agent.as_deref()).await?;
    Ok(Json(json!({ "skill": run.skill, "result": run.result })))
}
