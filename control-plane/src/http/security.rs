//! Headers that confine a page to what it is: a nonce for its own scripts, no framing, no sniffing, no caching of what is
//! personal. A handler may set a header itself; what it leaves out is filled in strictly.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use base64::Engine as _;
use http::{HeaderMap, HeaderName, HeaderValue, header};

/// The nonce of this response; templates put it on their own `<script>` and `<style>` elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CspNonce(pub String);

impl CspNonce {
    pub fn generate() -> Self {
        Self(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>()))
    }
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn policy(nonce: &CspNonce) -> String {
    let nonce = &nonce.0;
    format!(
        "default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src 'self' 'nonce-{nonce}'; img-src 'self' data:; \
         font-src 'self'; connect-src 'self'; manifest-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'; \
         object-src 'none'"
    )
}

fn fill(headers: &mut HeaderMap, name: HeaderName, value: &'static str) {
    headers.entry(name).or_insert(HeaderValue::from_static(value));
}

/// Puts a fresh nonce into the request and the headers onto the response.
pub async fn headers(mut request: Request, next: Next) -> Response {
    let nonce = CspNonce::generate();
    request.extensions_mut().insert(nonce.clone());
    let mut response = next.run(request).await;
    apply(response.headers_mut(), Some(&nonce));
    response
}

/// Fills in what a response leaves out. Without a nonce it is not a page and may load nothing.
pub fn apply(headers: &mut HeaderMap, nonce: Option<&CspNonce>) {
    let policy = nonce.map_or_else(|| "default-src 'none'; frame-ancestors 'none'".to_owned(), policy);
    if let Ok(value) = HeaderValue::from_str(&policy) {
        headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(value);
    }
    fill(headers, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    fill(headers, header::X_FRAME_OPTIONS, "DENY");
    fill(headers, header::REFERRER_POLICY, "same-origin");
    fill(headers, HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    fill(headers, HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    fill(
        headers,
        HeaderName::from_static("permissions-policy"),
        "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    );
    fill(headers, header::CACHE_CONTROL, "no-store");
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use axum::{Extension, Router};
    use tower::ServiceExt as _;

    #[tokio::test]
    async fn a_page_and_its_policy_share_a_nonce_that_changes_with_every_response() {
        let app: Router = Router::new()
            .route("/", get(|Extension(nonce): Extension<CspNonce>| async move { nonce.0 }))
            .layer(axum::middleware::from_fn(headers));
        let mut seen = Vec::new();
        for _ in 0..2 {
            let response =
                app.clone().oneshot(Request::get("/").body(axum::body::Body::empty()).unwrap()).await.unwrap();
            let csp = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
            assert_eq!(response.headers()[header::X_FRAME_OPTIONS], "DENY");
            assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
            let body = axum::body::to_bytes(response.into_body(), 1024).await.unwrap();
            let nonce = String::from_utf8(body.to_vec()).unwrap();
            assert!(csp.contains(&format!("script-src 'self' 'nonce-{nonce}'")), "{csp}");
            assert!(!csp.contains("unsafe"));
            seen.push(nonce);
        }
        assert_ne!(seen[0], seen[1]);
    }
}
