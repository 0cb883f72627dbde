//! What of a request's headers a runner sees, and what of its answer a client sees. Hop-by-hop headers end here; what says who
//! is calling is written by us and by nobody else; the panel's cookies and `x-nexaas-*` stay on this side.

use super::host::Authority;
use crate::http::{cookies, request_id};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use std::net::IpAddr;

/// What we know of a request for sure.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    pub authority: &'a Authority,
    pub scheme: &'a str,
    pub remote: IpAddr,
    pub request_id: &'a str,
}

const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Removes the hop-by-hop headers and those that `Connection` names.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        // `Connection: host` must not be a way to remove what the message needs.
        .filter(|name| ![header::HOST, header::CONTENT_LENGTH, header::AUTHORIZATION].contains(name))
        .collect();
    for name in named.iter().chain(HOP_BY_HOP.iter()) {
        headers.remove(name);
    }
}

/// Whether a header claims to know what only we know, or belongs to the panel.
fn is_reserved(name: &str) -> bool {
    name == "forwarded"
        || name.starts_with("x-forwarded-")
        || name.starts_with("x-nexaas-")
        || matches!(
            name,
            "x-real-ip"
                | "x-client-ip"
                | "true-client-ip"
                | "cf-connecting-ip"
                | "x-original-url"
                | "x-rewrite-url"
                | "via"
        )
}

fn remove_reserved(headers: &mut HeaderMap) {
    // Underscores are turned into dashes by some servers, so `X_Nexaas_Tenant` is the same claim.
    let names: Vec<HeaderName> =
        headers.keys().filter(|n| is_reserved(&n.as_str().replace('_', "-"))).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// Makes a client's request headers those of a request to a runner. `upgrade` is the protocol asked for, already checked.
pub fn to_runner(headers: &mut HeaderMap, facts: &Facts<'_>, upgrade: Option<&HeaderValue>) {
    strip_hop_by_hop(headers);
    remove_reserved(headers);
    cookies::strip_from_request(headers);
    let mut put = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    put("host", &facts.authority.to_string());
    put("x-forwarded-host", &facts.authority.to_string());
    put("x-forwarded-proto", facts.scheme);
    put("x-forwarded-for", &facts.remote.to_string());
    put("x-request-id", facts.request_id);
    // Announced to us, and the body is passed on as it comes: the client is answered by us already.
    headers.remove(header::EXPECT);
    if let Some(protocol) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol.clone());
    }
    nexaas_common::telemetry::inject(headers);
}

/// Makes a runner's response headers those of our answer.
pub fn to_client(headers: &mut HeaderMap, tunnel: bool, request_id: &str) {
    let upgrade = headers.get(header::UPGRADE).cloned();
    strip_hop_by_hop(headers);
    remove_reserved(headers);
    cookies::strip_from_response(headers);
    for name in ["server", "alt-svc", "x-powered-by", "clear-site-data", "service-worker-allowed"] {
        headers.remove(name);
    }
    headers.entry(header::X_CONTENT_TYPE_OPTIONS).or_insert(HeaderValue::from_static("nosniff"));
    // What a runner answers shares its host with the dashboard, so it may not act as a page of it.
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
    if let Ok(value) = HeaderValue::from_str(request_id) {
        headers.insert(request_id::HEADER, value);
    }
    if let (true, Some(protocol)) = (tunnel, upgrade) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
}

/// The protocol of a well-formed WebSocket upgrade. Nothing else is tunnelled.
pub fn websocket_upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let asks = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    let mut upgrades = headers.get_all(header::UPGRADE).iter();
    let protocol = upgrades.next().filter(|_| upgrades.next().is_none())?;
    (asks && protocol.as_bytes().eq_ignore_ascii_case(b"websocket") && headers.contains_key(header::SEC_WEBSOCKET_KEY))
        .then(|| protocol.clone())
}

/// Whether a 101 answers that upgrade and no other.
pub fn accepts_websocket(headers: &HeaderMap) -> bool {
    let mut upgrades = headers.get_all(header::UPGRADE).iter();
    matches!((upgrades.next(), upgrades.next()), (Some(p), None) if p.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && headers.contains_key(header::SEC_WEBSOCKET_ACCEPT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn shown(headers: &HeaderMap) -> Vec<String> {
        let mut lines: Vec<String> =
            headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap_or("?"))).collect();
        lines.sort();
        lines
    }

    #[test]
    fn a_runner_learns_who_calls_from_us_alone() {
        let authority = "acme.base.example:8080".parse().unwrap();
        let facts =
            Facts { authority: &authority, scheme: "https", remote: "192.0.2.7".parse().unwrap(), request_id: "r-1" };
        let mut headers = map(&[
            ("host", "ACME.base.example:8080"),
            ("authorization", "Bearer key"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-user", "root"),
            ("x_forwarded_proto", "http"),
            ("forwarded", "for=10.0.0.1"),
            ("x-real-ip", "10.0.0.1"),
            ("x-nexaas-tenant", "other"),
            ("x_nexaas_role", "owner"),
            ("x-request-id", "forged"),
            ("connection", "close, x-private, authorization"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("proxy-authorization", "Basic x"),
            ("upgrade", "h2c"),
            ("cookie", "__Host-nexaas_session=s; own=1"),
            ("accept", "*/*"),
        ]);
        to_runner(&mut headers, &facts, None);
        insta::assert_snapshot!(shown(&headers).join("\n"), @r"
        accept: */*
        authorization: Bearer key
        cookie: own=1
        host: acme.base.example:8080
        x-forwarded-for: 192.0.2.7
        x-forwarded-host: acme.base.example:8080
        x-forwarded-proto: https
        x-request-id: r-1
        ");
    }

    #[test]
    fn a_runner_cannot_act_as_the_panel() {
        let mut headers = map(&[
            ("content-type", "application/json"),
            ("set-cookie", "__Host-nexaas_session=evil"),
            ("set-cookie", "own=1"),
            ("x-nexaas-role", "owner"),
            ("transfer-encoding", "chunked"),
            ("connection", "keep-alive"),
            ("content-security-policy", "default-src *"),
            ("clear-site-data", "\"cookies\""),
        ]);
        to_client(&mut headers, false, "r-1");
        insta::assert_snapshot!(shown(&headers).join("\n"), @r"
        content-security-policy: default-src 'none'; sandbox
        content-type: application/json
        set-cookie: own=1
        x-content-type-options: nosniff
        x-request-id: r-1
        ");
    }

    #[test]
    fn only_a_websocket_is_an_upgrade() {
        let key = ("sec-websocket-key", "x");
        assert!(
            websocket_upgrade(&map(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket"), key])).is_some()
        );
        assert!(websocket_upgrade(&map(&[("connection", "upgrade"), ("upgrade", "h2c"), key])).is_none());
        assert!(websocket_upgrade(&map(&[("upgrade", "websocket"), key])).is_none());
        assert!(
            websocket_upgrade(&map(&[("connection", "upgrade"), ("upgrade", "websocket"), ("upgrade", "h2c"), key]))
                .is_none()
        );
    }
}
