//! Cross-site requests change nothing. A browser says where a request comes from: `Sec-Fetch-Site` must be `same-origin` (or
//! `none`: typed by the person); where it is not sent, `Origin` must be exactly the address that was called. A sibling
//! subdomain is another site. Calls with `Authorization` are exempt: another site cannot add that header, and the guard
//! then ignores cookies.

use crate::error::Error;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, Method, Uri, header};

#[derive(Debug, Clone)]
pub struct Policy {
    scheme: String,
}

impl Policy {
    pub fn new(scheme: &str) -> Self {
        Self { scheme: scheme.to_owned() }
    }

    /// Whether this request may change something on the strength of a cookie.
    pub fn allows(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> bool {
        if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
            || headers.contains_key(header::AUTHORIZATION)
        {
            return true;
        }
        if let Some(site) = one(headers, "sec-fetch-site") {
            return site.is_some_and(|s| s == "same-origin" || s == "none");
        }
        let host = match one(headers, header::HOST.as_str()) {
            Some(host) => host.and_then(|h| h.to_str().ok()),
            None => uri.authority().map(http::uri::Authority::as_str),
        };
        let (Some(host), Some(Some(origin))) = (host, one(headers, header::ORIGIN.as_str())) else { return false };
        origin.as_bytes().eq_ignore_ascii_case(format!("{}://{host}", self.scheme).as_bytes())
    }
}

/// `Some(None)` when the header comes more than once: ambiguity is refusal.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Option<Option<&'a HeaderValue>> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    Some(if values.next().is_some() { None } else { Some(first) })
}

pub async fn enforce(State(policy): State<Policy>, request: Request, next: Next) -> Response {
    if policy.allows(request.method(), request.uri(), request.headers()) {
        return next.run(request).await;
    }
    Error::forbidden("This request came from another site, so nothing was changed. Reload the page and try again.")
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn post(headers: &[(&str, &str)]) -> bool {
        let mut map = HeaderMap::new();
        map.insert(header::HOST, HeaderValue::from_static("console.base.example:8080"));
        for (name, value) in headers {
            map.append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        Policy::new("http").allows(&Method::POST, &Uri::from_static("/x"), &map)
    }

    #[test]
    fn only_the_page_itself_may_post() {
        assert!(post(&[("sec-fetch-site", "same-origin")]));
        assert!(post(&[("sec-fetch-site", "none")]));
        assert!(post(&[("origin", "http://console.base.example:8080")]));
        for refused in [
            vec![],
            vec![("sec-fetch-site", "same-site")],
            vec![("sec-fetch-site", "cross-site"), ("origin", "http://console.base.example:8080")],
            vec![("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")],
            vec![("origin", "null")],
            vec![("origin", "https://console.base.example:8080")],
            vec![("origin", "http://console.base.example")],
            vec![("origin", "http://console.base.example:8080.evil.example")],
            vec![("origin", "http://console.base.example:80800")],
            vec![("origin", "http://acme.base.example:8080")],
        ] {
            assert!(!post(&refused), "{refused:?}");
        }
    }

    #[test]
    fn a_token_in_authorization_needs_no_origin() {
        assert!(post(&[("authorization", "Bearer x"), ("sec-fetch-site", "cross-site")]));
    }
}
