//! Events: the tenant's schedules and triggers, and the live stream of what happens.

use super::error::{ApiError, ApiResult};
use super::extract::{Json as Body, Path, Query};
use crate::app::App;
use crate::principal::only;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::{Stream, StreamExt as _};
use nexaas_engine::event::Filter;
use serde::Deserialize;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::time::Duration;

/// What a query may ask for at most.
const MOST: u32 = 1000;

#[derive(Debug, Deserialize)]
pub struct List {
    status: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    agent: Option<String>,
    limit: Option<u32>,
}

pub async fn list(State(app): State<App>, Query(query): Query<List>) -> ApiResult<Json<Value>> {
    let filter = Filter {
        status: query.status.filter(|s| !s.is_empty()),
        kind: query.kind.filter(|s| !s.is_empty()),
        agent: query.agent.filter(|s| !s.is_empty()),
        limit: query.limit.unwrap_or(100).clamp(1, MOST),
    };
    Ok(Json(json!(app.engine().events().list(filter).await?)))
}

pub async fn show(State(app): State<App>, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    Ok(Json(json!(app.engine().events().get(&id).await?)))
}

pub async fn upsert(State(app): State<App>, Body(body): Body<Value>) -> ApiResult<impl IntoResponse> {
    let (id, action) = app.engine().events().upsert(body).await?;
    Ok(Json(json!({ "id": id, "action": action })))
}

pub async fn patch(State(app): State<App>, Path(id): Path<String>, Body(body): Body<Value>) -> ApiResult<Json<Value>> {
    Ok(Json(json!(app.engine().events().patch(&id, body).await?)))
}

pub async fn delete(State(app): State<App>, Path(id): Path<String>) -> ApiResult<StatusCode> {
    app.engine().events().delete(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn trigger(State(app): State<App>, Path(id): Path<String>) -> ApiResult<impl IntoResponse> {
    let job = app.engine().events().trigger(&id).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "id": id, "job_id": job }))))
}

/// Server-sent events: after `Last-Event-ID`, or from now on. It ends when the runner stops; the client comes back with
/// the last id it saw.
pub async fn stream(
    State(app): State<App>,
    headers: HeaderMap,
) -> ApiResult<Sse<impl Stream<Item = Result<Event, Infallible>>>> {
    const LAST: HeaderName = HeaderName::from_static("last-event-id");
    let after = match only(&headers, &LAST).map(str::trim) {
        Some("") => None,
        Some(text) => Some(text.parse::<u64>().map_err(|_| ApiError::invalid("Last-Event-ID", "must be a number this stream gave"))?),
        None if headers.contains_key(LAST) => return Err(ApiError::invalid("Last-Event-ID", "must be given once")),
        None => None,
    };
    let events = app.engine().bus().subscribe(after).map(|event| {
        let data = json!({ "type": event.kind, "source": event.source, "data": event.data, "created_at": event.created_at });
        Ok(Event::default().id(event.seq.to_string()).event(event.kind).data(data.to_string()))
    });
    // The first line goes out at once, so that the client knows that it is connected.
    let hello = futures::stream::once(async { Ok(Event::default().comment("connected").retry(Duration::from_secs(1))) });
    let draining = app.draining().clone();
    let stream = hello.chain(events).take_until(async move { draining.cancelled().await });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))))
}
