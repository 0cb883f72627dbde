//! What the edge itself says to people: no such tenant, not one of our names, not ready yet. Programs get the same as a problem
//! document. And the assets of these pages, which every host of ours serves.

use crate::error::Error;
use crate::http::{CspNonce, problem, security};
use askama::Template as _;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use nexaas_dashboard::assets;
use nexaas_dashboard::layout::{Bare, Brand, MessagePage};

/// One message in both forms.
#[derive(Debug)]
pub struct Message {
    pub status: StatusCode,
    pub title: &'static str,
    pub detail: String,
    pub icon: &'static str,
    /// Where a person may go on: URL and words.
    pub link: Option<(String, &'static str)>,
    /// It passes by itself.
    pub soon: bool,
}

impl Message {
    /// The form follows what the caller accepts: a browser names `text/html`.
    pub fn respond(self, headers: &HeaderMap) -> Response {
        let wants_html = headers
            .get(header::ACCEPT)
            .and_then(|v| v.to_str().ok())
            .is_some_and(|accept| accept.contains("text/html"));
        if wants_html { self.page() } else { self.problem() }
    }

    pub fn problem(self) -> Response {
        let body = problem::Problem {
            r#type: format!("urn:nexaas:problem:{}", self.title.to_ascii_lowercase().replace(' ', "-")),
            title: self.title.to_owned(),
            status: self.status.as_u16(),
            detail: self.detail,
            field: None,
            retry_after: self.soon.then_some(RETRY_AFTER_S),
        };
        let mut response = Response::new(Body::from(serde_json::to_vec(&body).unwrap_or_default()));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        finish(response, self.status, self.soon, None)
    }

    /// For people.
    pub fn page(self) -> Response {
        let nonce = CspNonce::generate();
        let (href, link) = self.link.map_or((String::new(), String::new()), |(href, link)| (href, link.to_owned()));
        let page = MessagePage {
            page: Bare {
                title: self.title.to_owned(),
                nonce: nonce.0.clone(),
                brand: Brand { name: "Nexaas".to_owned(), product: true, ..Brand::default() },
                lead: String::new(),
            },
            icon: self.icon.to_owned(),
            detail: self.detail,
            href,
            link,
            refresh_s: self.soon.then_some(REFRESH_S),
        };
        match page.render() {
            Ok(html) => {
                let mut response = Response::new(Body::from(html));
                response
                    .headers_mut()
                    .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
                finish(response, self.status, self.soon, Some(&nonce))
            }
            Err(error) => Error::internal(error).into_response(),
        }
    }
}

const RETRY_AFTER_S: u64 = 2;
const REFRESH_S: u32 = 2;

fn finish(mut response: Response, status: StatusCode, soon: bool, nonce: Option<&CspNonce>) -> Response {
    *response.status_mut() = status;
    if soon {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
    }
    security::apply(response.headers_mut(), nonce);
    response
}

/// An embedded asset; `None` when the path is not one.
pub fn asset(method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<Response> {
    let name = uri.path().strip_prefix(assets::PREFIX)?;
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Some(StatusCode::METHOD_NOT_ALLOWED.into_response());
    }
    let Some(asset) = assets::get(name) else {
        return Some(Error::not_found("This file").into_response());
    };
    let version = uri
        .query()
        .and_then(|q| url::form_urlencoded::parse(q.as_bytes()).find(|(k, _)| k == "v").map(|(_, v)| v.into_owned()));
    let etag = asset.etag();
    let fresh = headers.get(header::IF_NONE_MATCH).is_some_and(|v| v.as_bytes() == etag.as_bytes());
    let mut response = if fresh {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let body = if *method == Method::HEAD { Body::empty() } else { Body::from(asset.bytes) };
        let mut response = Response::new(body);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(asset.bytes.len()));
        response
    };
    let out = response.headers_mut();
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static(asset.cache_control(version.as_deref())));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        out.insert(header::ETAG, etag);
    }
    security::apply(out, None);
    Some(response)
}
