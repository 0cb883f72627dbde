//! The queue: what waits, runs and is done, jobs from outside, and what can be done with a job.

use super::error::{ApiError, ApiResult};
use super::extract::{Json as Body, Optional, Path, Query};
use super::openapi::shapes;
use crate::app::App;
use crate::principal::only;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use nexaas_engine::EngineError;
use nexaas_engine::queue::{Job, JobFilter, JobId, JobState, KeyView, Rate};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// Dead jobs that one call may bring back.
pub(crate) const MOST_RETRIED: u64 = 10_000;

/// How much waits, runs and is done, and the most recent jobs.
#[utoipa::path(get, path = "/api/queue", tag = "queue", responses((status = 200, body = shapes::Queue)))]
pub async fn view(State(app): State<App>) -> ApiResult<Json<Value>> {
    Ok(Json(json!(app.engine().queue().view().await?)))
}

/// Puts a job on the queue. Its `unique_key`, or the header `Idempotency-Key`, makes sure that it is there once.
#[utoipa::path(post, path = "/api/queue", tag = "queue", request_body = shapes::JobInput,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key and body answer the same job, for a day")),
    responses((status = 202, body = shapes::Enqueued), (status = 200, body = shapes::Enqueued, description = "It was there already")))]
pub async fn enqueue(
    State(app): State<App>,
    headers: HeaderMap,
    Body(spec): Body<Value>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    const KEY: HeaderName = HeaderName::from_static("idempotency-key");
    let key = only(&headers, &KEY).map(str::to_owned);
    if key.is_none() && headers.contains_key(KEY) {
        return Err(ApiError::invalid("Idempotency-Key", "must be given once"));
    }
    let done = app.engine().enqueue_from(spec, key, app.clock()).await?;
    let status = if done.existed { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(json!(done))))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct List {
    /// ready, running, succeeded, dead or cancelled.
    state: Option<String>,
    event_id: Option<String>,
    agent: Option<String>,
    /// The `next_before` of the page before.
    before: Option<String>,
    /// 1 to 500; 50 unless given.
    limit: Option<u32>,
}

/// Jobs, newest first.
#[utoipa::path(get, path = "/api/queue/jobs", tag = "queue", params(List), responses((status = 200, body = shapes::JobPage)))]
pub async fn list(State(app): State<App>, Query(query): Query<List>) -> ApiResult<Json<Value>> {
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let (jobs, next) = page(
        &app,
        JobFilter {
            state: given(query.state).map(|text| state(&text)).transpose()?,
            event_id: given(query.event_id),
            agent: given(query.agent),
            before: given(query.before).map(|text| before(&text)).transpose()?,
            limit: query.limit,
        },
    )
    .await?;
    Ok(Json(json!({ "jobs": jobs, "next_before": next })))
}

/// A page, and where the next one begins.
pub(crate) async fn page(app: &App, filter: JobFilter) -> Result<(Vec<Job>, Option<JobId>), EngineError> {
    let limit = filter.limit.unwrap_or(50).clamp(1, 500);
    let mut jobs = app.engine().queue().list(JobFilter { limit: Some(limit + 1), ..filter }).await?;
    let more = jobs.len() > limit as usize;
    jobs.truncate(limit as usize);
    let next = jobs.last().filter(|_| more).map(|job| job.id);
    Ok((jobs, next))
}

pub(crate) fn state(text: &str) -> Result<JobState, EngineError> {
    use JobState::{Cancelled, Dead, Ready, Running, Succeeded};
    [Ready, Running, Succeeded, Dead, Cancelled]
        .into_iter()
        .find(|state| state.as_str() == text)
        .ok_or_else(|| EngineError::invalid("state", "must be one of ready, running, succeeded, dead, cancelled"))
}

pub(crate) fn before(text: &str) -> Result<JobId, EngineError> {
    text.parse().map_err(|_| EngineError::invalid("before", "must be the id of a job"))
}

/// One job, with its attempts and the steps it has finished.
#[utoipa::path(get, path = "/api/queue/{id}", tag = "queue", params(("id" = String, Path, description = "The job")),
    responses((status = 200, body = shapes::JobWithAll)))]
pub async fn show(State(app): State<App>, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    let (id, queue) = (known(&id)?, app.engine().queue());
    let mut answer = json!(queue.get(id).await?);
    answer["attempts"] = json!(queue.attempts(id).await?);
    answer["steps"] = json!(queue.steps(id).await?);
    Ok(Json(answer))
}

/// Cancels a job that waits or runs.
#[utoipa::path(post, path = "/api/queue/{id}/cancel", tag = "queue", params(("id" = String, Path, description = "The job")),
    responses((status = 204, description = "It is cancelled, or asked to stop")))]
pub async fn cancel(State(app): State<App>, Path(id): Path<String>) -> ApiResult<StatusCode> {
    app.engine().queue().cancel(known(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Puts a dead or cancelled job on the queue again: the same job, with one more round of attempts.
#[utoipa::path(post, path = "/api/queue/{id}/retry", tag = "queue", params(("id" = String, Path, description = "The job")),
    responses((status = 200, body = shapes::Job)))]
pub async fn retry(State(app): State<App>, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    let (id, queue) = (known(&id)?, app.engine().queue());
    queue.retry(id).await?;
    Ok(Json(json!(queue.get(id).await?)))
}

#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryDead {
    /// At most so many, the longest dead first; all that one call may, unless given.
    limit: Option<u64>,
}

/// Puts dead jobs on the queue again.
#[utoipa::path(post, path = "/api/queue/dead/retry", tag = "queue", request_body = Option<RetryDead>,
    responses((status = 200, body = shapes::Retried)))]
pub async fn retry_dead(State(app): State<App>, Optional(body): Optional<RetryDead>) -> ApiResult<Json<Value>> {
    let most = body.limit.unwrap_or(MOST_RETRIED).min(MOST_RETRIED);
    Ok(Json(json!({ "retried": app.engine().queue().retry_dead(most).await? })))
}

/// The attempts at a job, in their order.
#[utoipa::path(get, path = "/api/queue/{id}/attempts", tag = "queue", params(("id" = String, Path, description = "The job")),
    responses((status = 200, body = Vec<shapes::Attempt>)))]
pub async fn attempts(State(app): State<App>, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    Ok(Json(json!(app.engine().queue().attempts(known(&id)?).await?)))
}

/// The concurrency keys in use, or with limits of their own.
#[utoipa::path(get, path = "/api/queue/keys", tag = "queue", responses((status = 200, body = Vec<shapes::Key>)))]
pub async fn keys(State(app): State<App>) -> Json<Value> {
    Json(app.engine().queue().keys().iter().map(shown).collect())
}

/// One concurrency key. One that nothing was ever said about has the usual limits.
#[utoipa::path(get, path = "/api/queue/keys/{key}", tag = "queue", params(("key" = String, Path, description = "The key")),
    responses((status = 200, body = shapes::Key)))]
pub async fn key(State(app): State<App>, Path(key): Path<String>) -> ApiResult<Json<Value>> {
    one_key(&app, &key)
        .map(|view| Json(shown(&view)))
        .ok_or_else(|| ApiError::not_found("No job has this key, and it has no limits of its own"))
}

pub(crate) fn one_key(app: &App, key: &str) -> Option<KeyView> {
    app.engine().queue().keys().into_iter().find(|view| view.key == key)
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// How many of its jobs run at a time, 1 to 10,000; 1 unless given.
    concurrency_limit: Option<u32>,
    rate_limit: Option<RateLimit>,
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// So many starts, 1 to 1000 …
    count: u32,
    /// … in any stretch of so many seconds.
    per_s: f64,
}

/// Sets what a concurrency key allows.
#[utoipa::path(put, path = "/api/queue/keys/{key}", tag = "queue", request_body = Limits,
    params(("key" = String, Path, description = "The key")), responses((status = 200, body = shapes::Key)))]
pub async fn set_key(
    State(app): State<App>,
    Path(key): Path<String>,
    Body(body): Body<Limits>,
) -> ApiResult<Json<Value>> {
    let rate = body.rate_limit.map(|rate| read_rate(rate.count, rate.per_s)).transpose()?;
    let limit = body.concurrency_limit.unwrap_or(1);
    app.engine().queue().set_key(&key, limit, rate).await?;
    Ok(Json(shown(&set(&app, key, limit, rate))))
}

pub(crate) fn read_rate(count: u32, per_s: f64) -> Result<Rate, EngineError> {
    let period =
        Duration::try_from_secs_f64(per_s).ok().filter(|period| (0.001..=86_400.0).contains(&period.as_secs_f64()));
    let rule = "must have a period from 0.001 to 86400 seconds";
    let period = period.ok_or_else(|| EngineError::invalid("rate_limit", rule))?;
    Ok(Rate { count, period })
}

/// The key as it is now; one that has the usual limits and no jobs is not remembered.
pub(crate) fn set(app: &App, key: String, concurrency_limit: u32, rate_limit: Option<Rate>) -> KeyView {
    one_key(app, &key).unwrap_or(KeyView { key, concurrency_limit, rate_limit, running: 0, blocked: 0 })
}

fn shown(view: &KeyView) -> Value {
    let rate = view.rate_limit.map(|rate| json!({ "count": rate.count, "per_s": rate.period.as_secs_f64() }));
    json!({
        "key": view.key, "concurrency_limit": view.concurrency_limit, "rate_limit": rate,
        "running": view.running, "blocked": view.blocked
    })
}

/// A text that is no job's id names no job.
pub(super) fn known(id: &str) -> ApiResult<JobId> {
    id.parse().map_err(|_| ApiError::not_found("The job does not exist"))
}
