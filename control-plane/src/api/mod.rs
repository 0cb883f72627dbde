//! The REST API under `/api/v1` of the console's host. Changes answer 202 with an operation to follow; refusals are problem
//! documents; lists come in pages.
//!
//! Always true: every route is in [`TABLE`] with its minimum role, and the OpenAPI document describes exactly these routes.

pub mod credentials;
pub mod extract;
pub mod openapi;
pub mod operations;
pub mod operators;
pub mod tenants;
pub mod view;

use crate::domain::operator::Role::{Operator, Owner, Viewer};
use crate::error::Error;
use crate::http::auth::{ServiceAuthenticator, SharedAuthenticator};
use crate::http::routes::{Access, Audience, RouteSpec, build, route};
use crate::service::Services;
use axum::Router;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, post, put};
use http::{Method, StatusCode};
use std::sync::Arc;

/// Who may do what.
pub const TABLE: &[RouteSpec<Services>] = &[
    route(Method::GET, "/api/v1/openapi.json", Access::Public, || get(openapi::document)),
    route(Method::GET, "/api/v1/me", Access::AtLeast(Viewer), || get(credentials::me)),
    route(Method::GET, "/api/v1/templates", Access::AtLeast(Viewer), || get(tenants::templates)),
    route(Method::GET, "/api/v1/tenants", Access::AtLeast(Viewer), || get(tenants::list)),
    route(Method::POST, "/api/v1/tenants", Access::AtLeast(Operator), || post(tenants::create)),
    route(Method::GET, "/api/v1/tenants/{slug}", Access::AtLeast(Viewer), || get(tenants::show)),
    route(Method::DELETE, "/api/v1/tenants/{slug}", Access::AtLeast(Operator), || delete(tenants::delete)),
    route(Method::POST, "/api/v1/tenants/{slug}/suspend", Access::AtLeast(Operator), || post(tenants::suspend)),
    route(Method::POST, "/api/v1/tenants/{slug}/resume", Access::AtLeast(Operator), || post(tenants::resume)),
    route(Method::GET, "/api/v1/tenants/{slug}/operations", Access::AtLeast(Viewer), || get(tenants::operations)),
    route(Method::GET, "/api/v1/tenants/{slug}/events", Access::AtLeast(Viewer), || get(tenants::events)),
    // A runner's output may quote its clients' data.
    route(Method::GET, "/api/v1/tenants/{slug}/logs", Access::AtLeast(Operator), || get(tenants::logs)),
    route(Method::GET, "/api/v1/tenants/{slug}/secrets", Access::AtLeast(Operator), || get(credentials::secret_names)),
    route(Method::PUT, "/api/v1/tenants/{slug}/secrets/{name}", Access::AtLeast(Operator), || {
        put(credentials::set_secret)
    }),
    route(Method::DELETE, "/api/v1/tenants/{slug}/secrets/{name}", Access::AtLeast(Operator), || {
        delete(credentials::delete_secret)
    }),
    route(Method::POST, "/api/v1/tenants/{slug}/api-key", Access::AtLeast(Operator), || {
        post(credentials::rotate_api_key)
    }),
    route(Method::GET, "/api/v1/operations/{id}", Access::AtLeast(Viewer), || get(operations::show)),
    route(Method::GET, "/api/v1/operations/{id}/stream", Access::AtLeast(Viewer), || get(operations::stream)),
    route(Method::GET, "/api/v1/tokens", Access::AtLeast(Viewer), || get(credentials::list_tokens)),
    route(Method::POST, "/api/v1/tokens", Access::AtLeast(Viewer), || post(credentials::create_token)),
    route(Method::DELETE, "/api/v1/tokens/{id}", Access::AtLeast(Viewer), || delete(credentials::revoke_token)),
    route(Method::GET, "/api/v1/operators", Access::AtLeast(Owner), || get(operators::list)),
    route(Method::POST, "/api/v1/operators", Access::AtLeast(Owner), || post(operators::create)),
    route(Method::POST, "/api/v1/operators/{username}/reset-password", Access::AtLeast(Owner), || {
        post(operators::reset_password)
    }),
];

/// The API, to be merged into the console's router. Unknown addresses below `/api` and wrong methods are problem documents too.
pub fn router(services: Services) -> Router {
    let authenticator: SharedAuthenticator = Arc::new(ServiceAuthenticator(services.operators.clone()));
    build(TABLE, &authenticator, Audience::Program, services.settings.cookie_secure, |spec| (spec.handler)())
        .route("/api/{*rest}", axum::routing::any(nothing_here))
        .method_not_allowed_fallback(wrong_method)
        .with_state(services)
}

async fn nothing_here() -> Response {
    Error::not_found("This address").into_response()
}

async fn wrong_method() -> Response {
    let mut response =
        Error::new(crate::error::Kind::NotFound, "This address does not answer that method").into_response();
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response
}

#[cfg(test)]
mod tests;
