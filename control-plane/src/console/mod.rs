//! The operators' console: pages, their live parts, and the forms behind them. Everything works without scripts (forms and
//! redirects); with them, what changes is streamed and swapped in.
//!
//! Always true: every route is in [`TABLE`] with its minimum role, no page carries a secret, and a refused form comes back as it
//! was typed, with the rule beside the field.

mod actions;
mod create;
mod live;
mod login;
mod page;
mod tenant;
mod tenants;

use crate::api;
use crate::domain::operator::Role::{Operator, Viewer};
use crate::edge::pages::Message;
use crate::http::auth::{ServiceAuthenticator, SharedAuthenticator};
use crate::http::routes::{Access, Audience, RouteSpec, build, route};
use crate::http::{PublicUrl, harden};
use crate::service::Services;
use axum::Router;
use axum::response::Response;
use axum::routing::{get, post};
use http::{HeaderMap, Method, StatusCode};
use std::sync::Arc;

/// Who may do what.
pub const TABLE: &[RouteSpec<Services>] = &[
    route(Method::GET, "/login", Access::Public, || get(login::form)),
    route(Method::POST, "/login", Access::Public, || post(login::submit)),
    route(Method::POST, "/logout", Access::AtLeast(Viewer), || post(login::logout)),
    route(Method::GET, "/", Access::AtLeast(Viewer), || get(tenants::list)),
    route(Method::GET, "/tenants/new", Access::AtLeast(Operator), || get(create::form)),
    route(Method::POST, "/tenants", Access::AtLeast(Operator), || post(create::submit)),
    route(Method::GET, "/tenants/{slug}", Access::AtLeast(Viewer), || get(tenant::show)),
    route(Method::GET, "/tenants/{slug}/logs", Access::AtLeast(Operator), || get(tenant::logs)),
    route(Method::POST, "/tenants/{slug}/resume", Access::AtLeast(Operator), || post(actions::resume)),
    route(Method::GET, "/tenants/{slug}/suspend", Access::AtLeast(Operator), || get(actions::suspend_form)),
    route(Method::POST, "/tenants/{slug}/suspend", Access::AtLeast(Operator), || post(actions::suspend)),
    route(Method::GET, "/tenants/{slug}/delete", Access::AtLeast(Operator), || get(actions::delete_form)),
    route(Method::POST, "/tenants/{slug}/delete", Access::AtLeast(Operator), || post(actions::delete)),
    route(Method::POST, "/tenants/{slug}/secrets", Access::AtLeast(Operator), || post(actions::set_secret)),
    route(Method::POST, "/tenants/{slug}/secrets/{name}/delete", Access::AtLeast(Operator), || {
        post(actions::delete_secret)
    }),
    route(Method::GET, "/-/partial/tenants", Access::AtLeast(Viewer), || get(tenants::partial)),
    route(Method::GET, "/-/partial/tenants/{slug}/logs", Access::AtLeast(Operator), || get(tenant::logs_partial)),
    route(Method::GET, "/-/stream/tenants", Access::AtLeast(Viewer), || get(live::tenants)),
    route(Method::GET, "/-/stream/tenants/{slug}", Access::AtLeast(Viewer), || get(live::tenant)),
];

/// The console and the REST API, hardened, as the edge serves them.
pub fn router(services: Services) -> Router {
    let public = PublicUrl::from(&*services.settings);
    let authenticator: SharedAuthenticator = Arc::new(ServiceAuthenticator(services.operators.clone()));
    let pages = build(TABLE, &authenticator, Audience::Browser, public.cookie_secure, |spec| (spec.handler)())
        .fallback(not_found)
        .with_state(services.clone());
    harden(pages.merge(api::router(services)), &public)
}

async fn not_found(headers: HeaderMap) -> Response {
    Message {
        status: StatusCode::NOT_FOUND,
        title: "There is no such page",
        detail: "The address may be mistyped, or what it showed has been removed.".to_owned(),
        icon: "search",
        link: Some(("/".to_owned(), "To the tenants")),
        soon: false,
    }
    .respond(&headers)
}

#[cfg(test)]
mod tests;
