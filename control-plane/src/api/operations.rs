//! One operation, as it is or as it goes.

use super::extract::OperationPath;
use super::view::OperationView;
use crate::error::Result;
use crate::http::Problem;
use crate::service::Services;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use http::HeaderValue;
use std::convert::Infallible;
use std::time::Duration;

/// Show an operation and its steps.
#[utoipa::path(get, path = "/api/v1/operations/{id}", tag = "operations", params(("id" = String, Path)),
    responses((status = 200, body = OperationView), (status = 404, body = Problem, content_type = "application/problem+json")))]
pub async fn show(State(services): State<Services>, OperationPath(id): OperationPath) -> Result<Response> {
    Ok(axum::Json(OperationView::from(&services.tenants.operation(id).await?)).into_response())
}

/// Follow an operation: one `operation` event now and at every change, an `end` event when it is finished.
#[utoipa::path(get, path = "/api/v1/operations/{id}/stream", tag = "operations", params(("id" = String, Path)),
    responses((status = 200, body = String, content_type = "text/event-stream", description = "Each `data` is an operation"),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub async fn stream(State(services): State<Services>, OperationPath(id): OperationPath) -> Result<Response> {
    // A missing operation is a 404, not a stream that begins with an error.
    services.tenants.operation(id).await?;
    let mut changes = services.tenants.watch_operation(id);
    let events = async_stream::stream! {
        let mut number = 0u64;
        while let Some(change) = changes.next().await {
            number += 1;
            let event = Event::default().id(number.to_string());
            match change {
                Ok(operation) => {
                    let view = OperationView::from(&operation);
                    if let Ok(event) = event.event("operation").json_data(&view) {
                        yield Ok::<_, Infallible>(event);
                    }
                    if operation.state.finished() {
                        yield Ok(Event::default().event("end").data(view.state));
                        return;
                    }
                }
                Err(error) => {
                    crate::http::problem::log(&error);
                    if let Ok(event) = event.event("problem").json_data(Problem::from(&error)) {
                        yield Ok(event);
                    }
                    return;
                }
            }
        }
    };
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))).into_response();
    // A proxy in front must not collect the events either.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}
