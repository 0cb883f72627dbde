//! What happened before, newest first. What happens now is at `/api/events/stream`.

use super::error::ApiResult;
use super::extract::{Query, moment};
use super::openapi::shapes;
use super::stream::kinds;
use crate::app::App;
use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Past {
    /// The `next_before` of the page before.
    before: Option<u64>,
    /// 1 to 1000; 100 unless given.
    limit: Option<u32>,
    /// Nothing from before this moment.
    since: Option<String>,
    /// Only facts of these types, with commas between them; `job.*` is a family.
    #[serde(rename = "type", default)]
    kinds: String,
}

/// Past facts, newest first.
#[utoipa::path(get, path = "/api/bus", tag = "events", params(Past), responses((status = 200, body = shapes::FactPage)))]
pub async fn past(State(app): State<App>, Query(query): Query<Past>) -> ApiResult<Json<Value>> {
    let limit = query.limit.unwrap_or(100).clamp(1, 1000);
    let since = moment("since", query.since)?;
    let events = app.engine().bus().history(query.before, since, limit, kinds(&query.kinds)?).await?;
    let next = events.last().map(|event| event.seq).filter(|seq| *seq > 1 && events.len() == limit as usize);
    Ok(Json(json!({ "events": events, "next_before": next })))
}
