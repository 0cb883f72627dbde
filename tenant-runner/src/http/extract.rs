//! Extractors whose refusals have this API's form.

use super::error::ApiError;
use axum::extract::{FromRequest, FromRequestParts, Request};
use chrono::{DateTime, Utc};

#[derive(FromRequest)]
#[from_request(via(axum::Json), rejection(ApiError))]
pub struct Json<T>(pub T);

#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(ApiError))]
pub struct Query<T>(pub T);

#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(ApiError))]
pub struct Path<T>(pub T);

/// A JSON body that may be left out.
pub struct Optional<T>(pub T);

impl<T: Default + serde::de::DeserializeOwned, S: Send + Sync> FromRequest<S> for Optional<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let Bytes(bytes) = Bytes::from_request(Request::from_parts(parts.clone(), body), state).await?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        Json::<T>::from_request(Request::from_parts(parts, bytes.into()), state).await.map(|Json(body)| Self(body))
    }
}

/// A moment in a query; empty is the same as none.
pub fn moment(field: &'static str, text: Option<String>) -> Result<Option<DateTime<Utc>>, ApiError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    match DateTime::parse_from_rfc3339(&text) {
        Ok(at) => Ok(Some(at.with_timezone(&Utc))),
        Err(_) => Err(ApiError::invalid(field, "must be a time such as 2026-01-31T08:00:00Z")),
    }
}

/// The body as it came, up to what its path takes.
pub struct Bytes(pub axum::body::Bytes);

impl<S: Send + Sync> FromRequest<S> for Bytes {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        Ok(Self(axum::body::Bytes::from_request(request, state).await?))
    }
}
