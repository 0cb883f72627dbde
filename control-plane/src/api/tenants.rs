//! Tenants: list, create, show, suspend, resume, delete, and what is known of them.

use super::extract::{Conditions, Json, Params, TenantPath};
use super::view::{
    Accepted, CreateTenantBody, EventList, EventView, Names, OperationList, OperationView, TenantPage, TenantView,
};
use crate::domain::operation::Operation;
use crate::domain::tenant::Tenant;
use crate::error::Result;
use crate::http::auth::Caller;
use crate::http::{Problem, PublicUrl};
use crate::service::{CreateTenant, PageRequest, Services};
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use utoipa::IntoParams;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageParams {
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// At most this many, 1 to 200; 50 unless given.
    limit: Option<u32>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LimitParams {
    /// At most this many, newest first; 50 unless given.
    limit: Option<u32>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LogParams {
    /// How many of the last lines, at most 5000; 200 unless given.
    lines: Option<usize>,
}

/// 202 with the operation's address and, for people who read headers only, nothing else.
pub(super) fn accepted(tenant: Option<(&Tenant, &PublicUrl)>, operation: &Operation) -> Response {
    let location = format!("/api/v1/operations/{}", operation.id);
    let body = Accepted { tenant: tenant.map(|(t, public)| TenantView::new(t, public)), operation: operation.into() };
    let mut response = (StatusCode::ACCEPTED, axum::Json(body)).into_response();
    if let Ok(value) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, value);
    }
    response
}

/// List tenants, in the order of their slugs.
#[utoipa::path(get, path = "/api/v1/tenants", tag = "tenants", params(PageParams),
    responses((status = 200, body = TenantPage), (status = 422, body = Problem, content_type = "application/problem+json")))]
pub async fn list(State(services): State<Services>, Params(params): Params<PageParams>) -> Result<Response> {
    let public = PublicUrl::from(&*services.settings);
    let request = PageRequest { cursor: params.cursor, limit: params.limit.unwrap_or_default() };
    let page = services.tenants.list(request).await?;
    let items = page.items.iter().map(|t| TenantView::new(t, &public)).collect();
    Ok(axum::Json(TenantPage { items, next_cursor: page.next_cursor }).into_response())
}

/// Create a tenant. It is provisioned in the background; follow the operation.
#[utoipa::path(post, path = "/api/v1/tenants", tag = "tenants", request_body = CreateTenantBody,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key and body answer with the same operation")),
    responses((status = 202, body = Accepted, headers(("Location" = String, description = "The operation"))),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub async fn create(
    State(services): State<Services>,
    Caller(by): Caller,
    conditions: Conditions,
    Json(body): Json<CreateTenantBody>,
) -> Result<Response> {
    let request = CreateTenant {
        slug: body.slug,
        display_name: body.display_name,
        template: body.template,
        backend: body.backend,
        memory_mb: body.memory_mb,
        cpu_millis: body.cpu_millis,
    };
    let (tenant, operation) = services.tenants.create(&by, request, conditions.idempotency_key.as_deref()).await?;
    Ok(accepted(Some((&tenant, &PublicUrl::from(&*services.settings))), &operation))
}

/// Show a tenant. The ETag serves `If-None-Match` here and `If-Match` on changes.
#[utoipa::path(get, path = "/api/v1/tenants/{slug}", tag = "tenants", params(("slug" = String, Path)),
    responses((status = 200, body = TenantView, headers(("ETag" = String))), (status = 304),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub async fn show(
    State(services): State<Services>,
    TenantPath(slug): TenantPath,
    headers: HeaderMap,
) -> Result<Response> {
    let tenant = services.tenants.get(&slug).await?;
    let view = TenantView::new(&tenant, &PublicUrl::from(&*services.settings));
    let etag = view.etag();
    let seen = headers.get(header::IF_NONE_MATCH).is_some_and(|v| v.as_bytes() == etag.as_bytes());
    let mut response = if seen { StatusCode::NOT_MODIFIED.into_response() } else { axum::Json(view).into_response() };
    if let Ok(value) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(header::ETAG, value);
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

/// Delete a tenant with everything it holds.
#[utoipa::path(delete, path = "/api/v1/tenants/{slug}", tag = "tenants",
    params(("slug" = String, Path), ("If-Match" = Option<String>, Header), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 202, body = Accepted), (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 412, body = Problem, content_type = "application/problem+json")))]
pub async fn delete(
    State(services): State<Services>,
    Caller(by): Caller,
    TenantPath(slug): TenantPath,
    conditions: Conditions,
) -> Result<Response> {
    let key = conditions.idempotency_key.as_deref();
    let operation = services.tenants.delete(&by, &slug, conditions.if_match, key).await?;
    Ok(accepted(None, &operation))
}

/// Stop a tenant until it is resumed. Its data stays.
#[utoipa::path(post, path = "/api/v1/tenants/{slug}/suspend", tag = "tenants",
    params(("slug" = String, Path), ("If-Match" = Option<String>, Header), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 202, body = Accepted), (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 412, body = Problem, content_type = "application/problem+json")))]
pub async fn suspend(
    State(services): State<Services>,
    Caller(by): Caller,
    TenantPath(slug): TenantPath,
    conditions: Conditions,
) -> Result<Response> {
    let key = conditions.idempotency_key.as_deref();
    let operation = services.tenants.suspend(&by, &slug, conditions.if_match, key).await?;
    Ok(accepted(None, &operation))
}

/// Start a suspended tenant again.
#[utoipa::path(post, path = "/api/v1/tenants/{slug}/resume", tag = "tenants",
    params(("slug" = String, Path), ("If-Match" = Option<String>, Header), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 202, body = Accepted), (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 412, body = Problem, content_type = "application/problem+json")))]
pub async fn resume(
    State(services): State<Services>,
    Caller(by): Caller,
    TenantPath(slug): TenantPath,
    conditions: Conditions,
) -> Result<Response> {
    let key = conditions.idempotency_key.as_deref();
    let operation = services.tenants.resume(&by, &slug, conditions.if_match, key).await?;
    Ok(accepted(None, &operation))
}

/// The operations of a tenant, newest first.
#[utoipa::path(get, path = "/api/v1/tenants/{slug}/operations", tag = "tenants", params(("slug" = String, Path), LimitParams),
    responses((status = 200, body = OperationList), (status = 404, body = Problem, content_type = "application/problem+json")))]
pub async fn operations(
    State(services): State<Services>,
    TenantPath(slug): TenantPath,
    Params(params): Params<LimitParams>,
) -> Result<Response> {
    let tenant = services.tenants.get(&slug).await?;
    let found = services.tenants.operations_of(tenant.id, params.limit.unwrap_or(50)).await?;
    Ok(axum::Json(OperationList { items: found.iter().map(OperationView::from).collect() }).into_response())
}

/// What happened to a tenant, newest first.
#[utoipa::path(get, path = "/api/v1/tenants/{slug}/events", tag = "tenants", params(("slug" = String, Path), LimitParams),
    responses((status = 200, body = EventList), (status = 404, body = Problem, content_type = "application/problem+json")))]
pub async fn events(
    State(services): State<Services>,
    TenantPath(slug): TenantPath,
    Params(params): Params<LimitParams>,
) -> Result<Response> {
    let tenant = services.tenants.get(&slug).await?;
    let found = services.tenants.log_events(tenant.id, params.limit.unwrap_or(50)).await?;
    Ok(axum::Json(EventList { items: found.iter().map(EventView::from).collect() }).into_response())
}

/// The last lines of a runner's output, as plain text.
#[utoipa::path(get, path = "/api/v1/tenants/{slug}/logs", tag = "tenants", params(("slug" = String, Path), LogParams),
    responses((status = 200, body = String, content_type = "text/plain"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub async fn logs(
    State(services): State<Services>,
    TenantPath(slug): TenantPath,
    Params(params): Params<LogParams>,
) -> Result<Response> {
    let text = services.tenants.runner_logs(&slug, params.lines.unwrap_or(200)).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}

/// The workspace templates of this server.
#[utoipa::path(get, path = "/api/v1/templates", tag = "tenants", responses((status = 200, body = Names)))]
pub async fn templates(State(services): State<Services>) -> Response {
    axum::Json(Names { items: services.tenants.templates() }).into_response()
}
