//! The style sheet and scripts, embedded in the binary.

use axum::extract::{Path, Query};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use nexaas_dashboard::assets;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub struct Version {
    v: Option<String>,
}

pub async fn asset(Path(name): Path<String>, Query(version): Query<Version>, headers: HeaderMap) -> Response {
    let Some(asset) = assets::get(&name) else { return StatusCode::NOT_FOUND.into_response() };
    let etag = asset.etag();
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|v| v.as_bytes() == etag.as_bytes());
    let mut response = if known { StatusCode::NOT_MODIFIED.into_response() } else { asset.bytes.into_response() };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(asset.cache_control(version.v.as_deref())));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, etag);
    }
    response
}
