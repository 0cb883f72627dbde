//! The table of every path: method, who may call, how long it may take, how much it may be sent. The router is made from
//! these rows alone, so a path without an access rule cannot exist; what matches no row needs a caller too, and then does
//! not exist.

use super::error::ApiError;
use super::guard::{self, Access, Guard};
use super::*;
use crate::app::App;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{MethodFilter, MethodRouter, on};
use std::time::Duration;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};

const USUAL: Duration = Duration::from_secs(30);
/// A skill runs while its caller waits.
const SKILL: Duration = Duration::from_secs(600);
/// Some repairs go over the whole database.
const REPAIR: Duration = Duration::from_secs(300);
const KIB: usize = 1024;
const USUAL_BODY: usize = 1024 * KIB;

pub struct Route {
    pub method: Method,
    pub path: &'static str,
    pub access: Access,
    pub deadline: Duration,
    pub body: usize,
    handler: MethodRouter<App>,
}

fn route<H, T>(method: Method, path: &'static str, access: Access, handler: H) -> Route
where
    H: Handler<T, App>,
    T: 'static,
{
    // A method of the table is one of the five that a filter exists for.
    let filter = MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::TRACE);
    Route { method, path, access, deadline: USUAL, body: USUAL_BODY, handler: on(filter, handler) }
}

/// Every path there is.
pub fn table() -> Vec<Route> {
    use Access::{Admin, Caller, Public, Signed};
    const GET: Method = Method::GET;
    const POST: Method = Method::POST;
    const PUT: Method = Method::PUT;
    const PATCH: Method = Method::PATCH;
    const DELETE: Method = Method::DELETE;
    vec![
        route(GET, guard::HEALTH, Public, health::show),
        route(GET, "/api/openapi.json", Caller, openapi::document),
        route(GET, "/metrics", Caller, metrics::show),
        Route { body: 16 * KIB, ..route(POST, "/api/auth/register", Public, auth::register) },
        Route { body: 16 * KIB, ..route(POST, "/api/auth/login", Public, auth::login) },
        route(GET, "/api/auth/me", Caller, auth::me),
        route(POST, "/api/auth/logout", Caller, auth::logout),
        route(GET, "/api/workspace", Caller, workspace::show),
        route(GET, "/api/mcp-catalog", Caller, mcp_catalog::list),
        route(GET, "/api/agents", Caller, agents::tree),
        route(GET, "/api/agents/{name}", Caller, agents::show),
        route(GET, "/api/skills", Caller, skills::list),
        route(GET, "/api/skills/{name}", Caller, skills::show),
        Route { deadline: SKILL, ..route(POST, "/api/skills/{name}/execute", Caller, skills::execute) },
        route(GET, "/api/registries", Caller, registries::list),
        route(GET, "/api/registries/{name}", Caller, registries::show),
        route(GET, "/api/events", Caller, events::list),
        route(POST, "/api/events", Caller, events::upsert),
        route(GET, "/api/events/stream", Caller, stream::events),
        route(GET, "/api/events/{id}", Caller, events::show),
        route(PATCH, "/api/events/{id}", Caller, events::patch),
        route(DELETE, "/api/events/{id}", Caller, events::delete),
        route(POST, "/api/events/{id}/trigger", Caller, events::trigger),
        route(POST, "/api/events/{id}/pause", Caller, events::pause),
        route(POST, "/api/events/{id}/resume", Caller, events::resume),
        route(GET, "/api/queue", Caller, queue::view),
        route(POST, "/api/queue", Caller, queue::enqueue),
        route(GET, "/api/queue/jobs", Caller, queue::list),
        route(POST, "/api/queue/dead/retry", Caller, queue::retry_dead),
        route(GET, "/api/queue/keys", Caller, queue::keys),
        route(GET, "/api/queue/keys/{key}", Caller, queue::key),
        route(PUT, "/api/queue/keys/{key}", Caller, queue::set_key),
        route(GET, "/api/queue/{id}", Caller, queue::show),
        route(POST, "/api/queue/{id}/cancel", Caller, queue::cancel),
        route(POST, "/api/queue/{id}/retry", Caller, queue::retry),
        route(GET, "/api/queue/{id}/attempts", Caller, queue::attempts),
        route(GET, "/api/queue/{id}/attempts/{number}/output", Caller, output::show),
        route(GET, "/api/bus", Caller, bus::past),
        route(GET, "/api/chat", Caller, chat::socket),
        route(GET, "/api/chat/sessions", Caller, chat::sessions),
        route(GET, "/api/chat/sessions/{id}", Caller, chat::session),
        route(GET, "/api/usage", Caller, usage::report),
        route(GET, "/api/ops/health", Caller, ops::health),
        route(GET, "/api/ops/alerts", Caller, ops::alerts),
        route(POST, "/api/ops/alerts/{id}/acknowledge", Caller, ops::acknowledge),
        route(POST, "/api/ops/alerts/{id}/silence", Admin, ops::silence_alert),
        route(DELETE, "/api/ops/alerts/{id}/silence", Admin, ops::unsilence_alert),
        route(GET, "/api/ops/silences", Caller, ops::silences),
        route(POST, "/api/ops/silences", Admin, ops::silence),
        route(DELETE, "/api/ops/silences/{id}", Admin, ops::end_silence),
        route(GET, "/api/ops/checks", Caller, ops::checks),
        route(GET, "/api/ops/snapshots", Caller, ops::snapshots),
        route(GET, "/api/ops/remedies", Caller, ops::remedies),
        Route { deadline: REPAIR, ..route(POST, "/api/ops/heal/{action}", Admin, ops::heal) },
        Route { body: 256 * KIB, ..route(POST, "/hooks/{id}", Signed, hooks::receive) },
    ]
}

/// The whole HTTP API.
pub fn router(app: &App) -> Router {
    let mut router: Router<App> = Router::new();
    for Route { path, access, deadline, body, handler, .. } in table() {
        let guard = Guard { app: app.clone(), access, deadline };
        let handler = handler.route_layer(from_fn_with_state(guard, guard::enforce)).layer(DefaultBodyLimit::max(body));
        router = router.route(path, handler);
    }
    let closed = Guard { app: app.clone(), access: Access::Caller, deadline: USUAL };
    let unknown = on(MethodFilter::GET, not_found)
        .fallback(not_found)
        .layer(from_fn_with_state(closed, guard::enforce))
        .layer(from_fn(unknown_call));
    router
        .method_not_allowed_fallback(not_allowed)
        .fallback_service(unknown.with_state(app.clone()))
        .with_state(app.clone())
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(hardened))
        .layer(cors(app.cors_origins()))
}

async fn not_found() -> ApiError {
    ApiError::not_found("Nothing is at this path")
}

/// A gRPC client of a newer control plane learns in its own terms that a service is not here.
async fn unknown_call(request: axum::extract::Request, next: axum::middleware::Next) -> axum::response::Response {
    let content = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if content.starts_with("application/grpc") {
        return tonic::Status::unimplemented("no such service here").into_http();
    }
    next.run(request).await
}

async fn not_allowed() -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "This path does not know this method")
}

#[allow(clippy::needless_pass_by_value, reason = "the layer hands over the box")]
fn panicked(payload: Box<dyn std::any::Any + Send + 'static>) -> axum::response::Response {
    use axum::response::IntoResponse as _;
    let why =
        payload.downcast_ref::<&str>().map(|s| (*s).to_owned()).or_else(|| payload.downcast_ref::<String>().cloned());
    tracing::error!(why = why.as_deref().unwrap_or("unknown"), "a handler panicked");
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong on our side; the log has the details")
        .into_response()
}

/// Answers are data for programs: no browser should sniff, frame or cache them.
async fn hardened(request: axum::extract::Request, next: axum::middleware::Next) -> axum::response::Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    );
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn cors(origins: &[String]) -> CorsLayer {
    let exact: Vec<HeaderValue> = origins.iter().filter_map(|o| o.parse().ok()).collect();
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(exact))
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE, HeaderName::from_static("last-event-id")])
        .max_age(Duration::from_secs(600))
}
