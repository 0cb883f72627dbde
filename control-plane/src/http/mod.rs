//! What every page and every API of the control plane shares: problem responses, security headers, cookies, the rule
//! against cross-site requests, request ids, and the declarative route table with its guard.
//!
//! Always true: a request reaches a handler only through [`harden`] and a [`routes::RouteSpec`]; what was not declared is refused.

pub mod auth;
pub mod cookies;
pub mod csrf;
pub mod problem;
pub mod rate_limit;
pub mod redirect;
pub mod request_id;
pub mod routes;
pub mod security;

use crate::domain::tenant::Tenant;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

pub use problem::Problem;
pub use rate_limit::AddressLimit;
pub use request_id::RequestContext;
pub use security::CspNonce;

/// Form posts and API calls are small; anything larger is refused before it is read.
pub const MAX_BODY: usize = 256 * 1024;

/// What one address may ask of the pages and the API: far more than a person or a well-behaved program does.
const PER_SECOND: NonZeroU32 = NonZeroU32::new(100).unwrap();
const BURST: NonZeroU32 = NonZeroU32::new(500).unwrap();

/// The tenant a request's host names, put into the request by the edge. A handler takes the tenant from here and nowhere else.
#[derive(Debug, Clone)]
pub struct TenantContext {
    pub tenant: Arc<Tenant>,
}

/// The address of the person or program that called, after trusted proxies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemoteAddr(pub IpAddr);

/// How the outside world addresses this installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl {
    /// `http` or `https`.
    pub scheme: String,
    pub base_domain: String,
    /// As it appears in addresses; absent when it is the scheme's own.
    pub port: Option<u16>,
    /// Whether cookies carry `Secure` and the `__Host-` prefix.
    pub cookie_secure: bool,
}

impl From<&crate::config::Settings> for PublicUrl {
    fn from(settings: &crate::config::Settings) -> Self {
        Self {
            scheme: settings.public_scheme.as_str().to_owned(),
            base_domain: settings.base_domain.clone(),
            port: Some(settings.public_port.unwrap_or(settings.listen.port())),
            cookie_secure: settings.cookie_secure,
        }
    }
}

impl PublicUrl {
    fn authority(&self, host: &str) -> String {
        let default = if self.scheme == "https" { 443 } else { 80 };
        match self.port {
            Some(port) if port != default => format!("{host}:{port}"),
            Some(_) | None => host.to_owned(),
        }
    }
    /// The address of the operators' console, without a trailing slash.
    pub fn console(&self) -> String {
        format!("{}://{}", self.scheme, self.authority(&format!("console.{}", self.base_domain)))
    }
    /// The address of a tenant's dashboard, without a trailing slash.
    pub fn tenant(&self, slug: &str) -> String {
        format!("{}://{}", self.scheme, self.authority(&format!("{slug}.{}", self.base_domain)))
    }
}

/// Wraps a router of pages or API calls in the rules that hold for all of them. The outermost layer comes last.
pub fn harden(router: Router, public: &PublicUrl) -> Router {
    router
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(csrf::Policy::new(&public.scheme), csrf::enforce))
        .layer(middleware::from_fn_with_state(AddressLimit::new(PER_SECOND, BURST), rate_limit::enforce))
        .layer(tower_http::catch_panic::CatchPanicLayer::custom(problem::after_panic))
        .layer(middleware::from_fn(security::headers))
        .layer(middleware::from_fn(request_id::trace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_addresses_name_the_port_only_when_it_is_not_the_schemes_own() {
        let mut public =
            PublicUrl { scheme: "http".into(), base_domain: "localhost".into(), port: Some(8080), cookie_secure: true };
        assert_eq!(public.tenant("acme"), "http://acme.localhost:8080");
        public.scheme = "https".into();
        public.port = Some(443);
        assert_eq!(public.console(), "https://console.localhost");
    }
}
