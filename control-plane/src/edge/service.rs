//! One request: identify, route, answer. Nothing here knows how a connection was accepted.

use super::framing::Connection;
use super::headers::Facts;
use super::host::{self, Authority};
use super::pages::{self, Message};
use super::pool::{Pools, Upstream};
use super::route::{Reach, Route, RouteTable, SharedRoutes, reach};
use super::{EdgeConfig, proxy};
use crate::domain::tenant::Tenant;
use crate::error::Error;
use crate::http::{RemoteAddr, RequestContext, TenantContext, request_id};
use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use hyper::body::Incoming;
use nexaas_common::id::RequestId;
use nexaas_common::telemetry;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tracing::Instrument as _;

/// The edge of one control plane.
#[derive(Debug)]
pub struct Edge {
    pub(super) config: EdgeConfig,
    pub(super) routes: SharedRoutes,
    pub(super) pools: Pools,
    /// The console and the REST API, already hardened.
    console: Router,
    /// The tenants' pages, already hardened; they find their tenant in the request.
    dashboard: Router,
}

impl Edge {
    /// `token` ends tunnels and connections to runners.
    pub fn new(
        config: EdgeConfig,
        upstream: Arc<dyn Upstream>,
        console: Router,
        dashboard: Router,
        token: CancellationToken,
    ) -> Arc<Self> {
        let routes = SharedRoutes::new(Arc::new(RouteTable::build(&config.public.base_domain, [])).into());
        let pools = Pools::new(upstream, &config.limits, token);
        Arc::new(Self { config, routes, pools, console, dashboard })
    }

    pub fn routes(&self) -> &SharedRoutes {
        &self.routes
    }

    /// Puts a new table in force and lets go of connections that nothing leads to any more.
    pub fn install(&self, table: RouteTable) {
        self.pools.retain(&table.tenants().map(|t| t.id).collect());
        self.routes.store(Arc::new(table));
    }

    /// Answers one request of a connection from `peer`.
    pub async fn handle(&self, peer: IpAddr, connection: &Connection, request: Request<Incoming>) -> Response {
        let asked_upgrade = request.headers().contains_key(header::UPGRADE);
        let started = Instant::now();
        let id = RequestId::generate();
        let span = tracing::info_span!(
            "request",
            request_id = %id,
            method = %request.method(),
            host = tracing::field::Empty,
            path = request.uri().path(),
            status = tracing::field::Empty,
        );
        telemetry::adopt(&span, request.headers());
        let (kind, mut response) = self.answer(peer, id, request).instrument(span.clone()).await;
        span.record("status", response.status().as_u16());
        if !response.headers().contains_key(request_id::HEADER)
            && let Ok(value) = HeaderValue::from_str(&id.to_string())
        {
            response.headers_mut().insert(request_id::HEADER, value);
        }
        if asked_upgrade {
            connection.decide(response.status() == StatusCode::SWITCHING_PROTOCOLS);
        }
        let class = match response.status().as_u16() / 100 {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        };
        metrics::counter!("nexaas_edge_requests_total", "route" => kind, "status" => class).increment(1);
        metrics::histogram!("nexaas_edge_request_seconds", "route" => kind).record(started.elapsed().as_secs_f64());
        let _entered = span.enter();
        tracing::debug!(route = kind, elapsed_ms = started.elapsed().as_millis() as u64, "answered");
        response
    }

    async fn answer(&self, peer: IpAddr, id: RequestId, request: Request<Incoming>) -> (&'static str, Response) {
        let authority = match host::of_request(request.version(), request.uri(), request.headers()) {
            Ok(authority) => authority,
            Err(error) => return ("refused", bad_request(error)),
        };
        tracing::Span::current().record("host", tracing::field::display(&authority));
        if matches!(*request.method(), Method::TRACE | Method::CONNECT) {
            return ("refused", StatusCode::METHOD_NOT_ALLOWED.into_response());
        }
        let remote = caller(peer, request.headers(), &self.config.trusted_proxies);
        let route = self.routes.load().resolve(&authority);
        if route != Route::Foreign
            && let Some(asset) = pages::asset(request.method(), request.uri(), request.headers())
        {
            return ("asset", asset);
        }
        match route {
            Route::Console => ("console", self.pages(&self.console, remote, id, None, request).await),
            Route::Base => ("base", self.to_console(request.method())),
            Route::Tenant(tenant) => self.tenant(tenant, &authority, remote, id, request).await,
            Route::NoSuchTenant => {
                let message = Message {
                    status: StatusCode::NOT_FOUND,
                    title: "No such workspace",
                    detail: format!(
                        "Nobody lives at {}. Check the address, or ask whoever gave it to you.",
                        authority.host
                    ),
                    icon: "search",
                    link: None,
                    soon: false,
                };
                ("unknown", message.respond(request.headers()))
            }
            Route::Foreign => {
                let message = Message {
                    status: StatusCode::MISDIRECTED_REQUEST,
                    title: "Not one of our names",
                    detail: format!("{} is not served here.", authority.host),
                    icon: "globe",
                    link: None,
                    soon: false,
                };
                // No page: its assets would have to be served under a name that is not ours.
                ("foreign", message.problem())
            }
        }
    }

    async fn tenant(
        &self,
        tenant: Arc<Tenant>,
        authority: &Authority,
        remote: IpAddr,
        id: RequestId,
        request: Request<Incoming>,
    ) -> (&'static str, Response) {
        let to_runner = proxy::is_runner_path(request.uri().path());
        let (detail, soon) = match reach(&tenant) {
            Reach::Runner if to_runner => {
                let id = id.to_string();
                let facts = Facts { authority, scheme: &self.config.public.scheme, remote, request_id: &id };
                return ("runner", proxy::pass(&self.pools, &self.config.limits, &tenant, &facts, request).await);
            }
            Reach::Runner => {
                let context = TenantContext { tenant };
                return ("dashboard", self.pages(&self.dashboard, remote, id, Some(context), request).await);
            }
            Reach::Soon(why) => (why, true),
            Reach::Closed(why) => (why, false),
        };
        let message = Message {
            status: StatusCode::SERVICE_UNAVAILABLE,
            title: if soon { "Just a moment" } else { "Not available" },
            detail: format!("{} {detail}.", tenant.display_name),
            icon: if soon { "clock" } else { "pause" },
            link: None,
            soon,
        };
        ("waiting", if to_runner { message.problem() } else { message.respond(request.headers()) })
    }

    async fn pages(
        &self,
        router: &Router,
        remote: IpAddr,
        id: RequestId,
        tenant: Option<TenantContext>,
        request: Request<Incoming>,
    ) -> Response {
        let mut request = request.map(Body::new);
        let extensions = request.extensions_mut();
        extensions.insert(RemoteAddr(remote));
        extensions.insert(RequestContext { id });
        if let Some(tenant) = tenant {
            extensions.insert(tenant);
        }
        // The head of a page is made in seconds or not at all; what streams afterwards has its own limits.
        match tokio::time::timeout(PAGE, router.clone().oneshot(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(_) => Error::timeout("the page").into_response(),
        }
    }

    fn to_console(&self, method: &Method) -> Response {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Error::not_found("This address").into_response();
        }
        let mut response = StatusCode::TEMPORARY_REDIRECT.into_response();
        if let Ok(value) = HeaderValue::from_str(&format!("{}/", self.config.public.console())) {
            response.headers_mut().insert(header::LOCATION, value);
        }
        crate::http::security::apply(response.headers_mut(), None);
        response
    }
}

const PAGE: Duration = Duration::from_secs(60);

/// A request that cannot be understood is a 400, and its connection is not used again.
fn bad_request(error: Error) -> Response {
    let mut response = error.into_response();
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The caller's address: the last one in `X-Forwarded-For` that no trusted proxy added, and only if a trusted one sent it.
fn caller(peer: IpAddr, headers: &HeaderMap, trusted: &[ipnet::IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|net| net.contains(address));
    let mut caller = peer.to_canonical();
    if !is_trusted(&caller) {
        return caller;
    }
    let lines: Vec<&str> =
        headers.get_all("x-forwarded-for").iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).collect();
    for text in lines.into_iter().rev() {
        let Ok(address) = text.trim().parse::<IpAddr>() else { break };
        caller = address.to_canonical();
        if !is_trusted(&caller) {
            break;
        }
    }
    caller
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarded_addresses_count_only_from_a_trusted_proxy() {
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", HeaderValue::from_static("203.0.113.9, 198.51.100.4"));
        headers.append("x-forwarded-for", HeaderValue::from_static("10.0.0.2"));
        let peer: IpAddr = "10.0.0.1".parse().unwrap();
        assert_eq!(caller(peer, &headers, &[]), peer);
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        assert_eq!(caller(peer, &headers, &trusted), "198.51.100.4".parse::<IpAddr>().unwrap());
        let stranger: IpAddr = "192.0.2.1".parse().unwrap();
        assert_eq!(caller(stranger, &headers, &trusted), stranger);
    }
}
