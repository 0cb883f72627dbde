//! Passes one request through to a tenant's runner and its answer back, both streamed.

use super::body::{ClientBody, Fault, RunnerBody};
use super::headers::{self, Facts};
use super::pool::{Pools, SendError};
use super::{Limits, tunnel};
use crate::domain::tenant::Tenant;
use crate::error::{Error, Kind};
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::uri::{PathAndQuery, Uri};
use http::{HeaderValue, Method, Request, StatusCode, Version, header};
use hyper::body::{Body as _, Incoming};

/// Whether a path of a tenant's host belongs to its runner's API.
pub fn is_runner_path(path: &str) -> bool {
    ["/api", "/mcp", "/hooks"]
        .iter()
        .any(|prefix| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

pub async fn pass(
    pools: &Pools,
    limits: &Limits,
    tenant: &Tenant,
    facts: &Facts<'_>,
    request: Request<Incoming>,
) -> Response {
    let upgrade = (*request.method() == Method::GET).then(|| headers::websocket_upgrade(request.headers())).flatten();
    match upgrade {
        Some(protocol) => websocket(pools, limits, tenant, facts, request, &protocol).await,
        None => exchange(pools, limits, tenant, facts, request).await,
    }
}

/// The origin form is all that goes on: a runner sees a path, never a host of the caller's choosing.
fn origin_form(uri: &Uri) -> Uri {
    let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).unwrap_or_default()
}

async fn exchange(
    pools: &Pools,
    limits: &Limits,
    tenant: &Tenant,
    facts: &Facts<'_>,
    request: Request<Incoming>,
) -> Response {
    if request.body().size_hint().lower() > limits.body {
        return too_large(limits.body);
    }
    let (mut parts, body) = request.into_parts();
    let head = parts.method == Method::HEAD;
    parts.uri = origin_form(&parts.uri);
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    headers::to_runner(&mut parts.headers, facts, None);
    let (body, progress) = ClientBody::new(body, limits.body, limits.client_idle);
    let request = Request::from_parts(parts, body);

    let sent = tokio::select! {
        sent = pools.send(tenant, request) => sent,
        () = progress.stalled(limits.answer) => return Error::timeout("the tenant's runner").into_response(),
    };
    match sent {
        Ok((answer, _)) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
            bad_gateway(Error::unavailable("the tenant's runner", "it switched protocols without being asked"))
        }
        Ok((answer, lease)) => {
            let (mut parts, body) = answer.into_parts();
            headers::to_client(&mut parts.headers, false, facts.request_id);
            parts.extensions.clear();
            parts.version = Version::HTTP_11;
            if head {
                // The length belongs to the answer that was not asked for; there is no body to release the connection.
                lease.give_back();
                return Response::from_parts(parts, Body::empty());
            }
            Response::from_parts(parts, RunnerBody::new(body, lease, limits.runner_idle).into())
        }
        Err(SendError::NotSent(error)) => error.into_response(),
        Err(SendError::Sent(error)) => match progress.fault() {
            Fault::TooLarge => too_large(limits.body),
            Fault::Stalled => closing(
                Error::new(Kind::Timeout { what: "the request" }, "The request body stalled"),
                StatusCode::REQUEST_TIMEOUT,
            ),
            Fault::Broken => closing(Error::invalid("body", "ended before it was complete"), StatusCode::BAD_REQUEST),
            Fault::None => bad_gateway(Error::unavailable("the tenant's runner", error)),
        },
    }
}

async fn websocket(
    pools: &Pools,
    limits: &Limits,
    tenant: &Tenant,
    facts: &Facts<'_>,
    mut request: Request<Incoming>,
    protocol: &HeaderValue,
) -> Response {
    // A browser names the page that opens the socket, and no cross-site rule of its own protects sockets.
    let mut origins = request.headers().get_all(header::ORIGIN).iter();
    let ours = format!("{}://{}", facts.scheme, facts.authority);
    let foreign = match (origins.next(), origins.next()) {
        (None, _) => false,
        (Some(origin), None) => !origin.as_bytes().eq_ignore_ascii_case(ours.as_bytes()),
        (Some(_), Some(_)) => true,
    };
    if foreign {
        return Error::forbidden("This socket was opened from another site").into_response();
    }
    let client = hyper::upgrade::on(&mut request);
    let (mut parts, _) = request.into_parts();
    parts.uri = origin_form(&parts.uri);
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    headers::to_runner(&mut parts.headers, facts, Some(protocol));
    parts.headers.remove(header::CONTENT_LENGTH);
    let request = Request::from_parts(parts, http_body_util::Empty::new());

    let sent = tokio::select! {
        sent = pools.send_upgrade(tenant, request) => sent,
        () = tokio::time::sleep(limits.answer) => return Error::timeout("the tenant's runner").into_response(),
    };
    match sent {
        Ok((mut answer, permit)) => {
            let switches = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
            if switches && headers::accepts_websocket(answer.headers()) {
                tunnel::join(pools, client, hyper::upgrade::on(&mut answer), permit, limits.runner_idle);
                let (mut parts, _) = answer.into_parts();
                headers::to_client(&mut parts.headers, true, facts.request_id);
                parts.extensions.clear();
                return Response::from_parts(parts, Body::empty());
            }
            if switches {
                return bad_gateway(Error::unavailable("the tenant's runner", "it switched to another protocol"));
            }
            // A refusal is an ordinary answer; its connection is not kept.
            let (mut parts, body) = answer.into_parts();
            headers::to_client(&mut parts.headers, false, facts.request_id);
            parts.extensions.clear();
            let body = http_body_util::Limited::new(body, 1 << 20);
            Response::from_parts(parts, Body::new(body))
        }
        Err(SendError::NotSent(error)) => error.into_response(),
        Err(SendError::Sent(error)) => bad_gateway(Error::unavailable("the tenant's runner", error)),
    }
}

fn too_large(limit: u64) -> Response {
    closing(
        Error::invalid("body", format!("must not be larger than {} MiB", limit >> 20)),
        StatusCode::PAYLOAD_TOO_LARGE,
    )
}

fn bad_gateway(error: Error) -> Response {
    let mut response = error.into_response();
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response
}

/// The rest of the body is not read, so the connection cannot serve another request.
fn closing(error: Error, status: StatusCode) -> Response {
    let mut response = error.into_response();
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_runners_own_paths_reach_it() {
        for path in ["/api", "/api/", "/api/health", "/mcp", "/mcp/x", "/hooks/a"] {
            assert!(is_runner_path(path), "{path}");
        }
        for path in ["/", "/apix", "//api/health", "/%61pi/health", "/API/health", "/p/api/x", "/-/stream/bus", "/mcpx"]
        {
            assert!(!is_runner_path(path), "{path}");
        }
    }

    #[test]
    fn a_runner_sees_a_path_and_no_host() {
        assert_eq!(origin_form(&"http://evil.example/api/x?y=1".parse().unwrap()), "/api/x?y=1");
    }
}
