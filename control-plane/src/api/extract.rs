//! What handlers take from a request, each refusal as a problem document that names the field.

use crate::domain::{OperationId, Slug};
use crate::error::{Error, Result};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;

/// A JSON body under the one content type it may have.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Response;
    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            return Err(with_status(
                Error::invalid("Content-Type", "must be application/json"),
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ));
        }
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            let error =
                Error::invalid("body", format!("must be complete and at most {} KiB", crate::http::MAX_BODY >> 10));
            with_status(error, rejection.status())
        })?;
        parse(&bytes).map(Self).map_err(|error| error.into_response())
    }
}

fn with_status(error: Error, status: StatusCode) -> Response {
    let mut response = error.into_response();
    *response.status_mut() = status;
    response
}

/// Reads JSON; the refusal names the path inside the document.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let text = error.inner().to_string();
        let path = error.path().to_string();
        // For a missing or unknown field the path ends at its parent and the name is in the text.
        let named = text
            .strip_prefix("missing field `")
            .or_else(|| text.strip_prefix("unknown field `"))
            .and_then(|rest| rest.split_once('`'))
            .map(|(name, _)| name.to_owned());
        let field = match (named, path.as_str()) {
            (Some(name), _) => name,
            (None, "." | "?" | "") => "body".to_owned(),
            (None, path) => path.to_owned(),
        };
        Error::invalid(field.chars().take(64).collect::<String>(), format!("is refused: {text}"))
    })?;
    reader.end().map_err(|_| Error::invalid("body", "must be one JSON value and nothing after it"))?;
    Ok(value)
}

/// Query parameters.
#[derive(Debug)]
pub struct Params<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Error;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        Query::<T>::try_from_uri(&parts.uri)
            .map(|Query(value)| Self(value))
            .map_err(|rejection| Error::invalid("query", format!("is refused: {}", rejection.body_text())))
    }
}

/// The tenant that the path names. What is no slug names no tenant.
#[derive(Debug)]
pub struct TenantPath(pub Slug);

impl<S: Send + Sync> FromRequestParts<S> for TenantPath {
    type Rejection = Error;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let slug = segment(parts, state, "slug").await?;
        slug.parse().map(Self).map_err(|_| Error::not_found("This tenant"))
    }
}

/// The operation that the path names.
#[derive(Debug)]
pub struct OperationPath(pub OperationId);

impl<S: Send + Sync> FromRequestParts<S> for OperationPath {
    type Rejection = Error;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let id = segment(parts, state, "id").await?;
        id.parse().map(Self).map_err(|_| Error::not_found("This operation"))
    }
}

async fn segment<S: Send + Sync>(parts: &mut Parts, state: &S, name: &str) -> Result<String> {
    let Path(all) = Path::<Vec<(String, String)>>::from_request_parts(parts, state)
        .await
        .map_err(|_| Error::not_found("This address"))?;
    all.into_iter().find(|(key, _)| key == name).map(|(_, value)| value).ok_or_else(|| Error::not_found("This address"))
}

/// `Idempotency-Key` and `If-Match`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    pub idempotency_key: Option<String>,
    /// The generation the caller has seen.
    pub if_match: Option<u64>,
}

impl<S: Send + Sync> FromRequestParts<S> for Conditions {
    type Rejection = Error;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        Self::read(&parts.headers)
    }
}

impl Conditions {
    fn read(headers: &HeaderMap) -> Result<Self> {
        let idempotency_key = match headers.get("idempotency-key") {
            None => None,
            Some(value) => Some(
                value
                    .to_str()
                    .map_err(|_| Error::invalid("Idempotency-Key", "must be 1 to 255 visible ASCII characters"))?
                    .to_owned(),
            ),
        };
        let if_match = match headers.get(header::IF_MATCH) {
            None => None,
            Some(value) if value.as_bytes() == b"*" => None,
            Some(value) => Some(
                value
                    .to_str()
                    .ok()
                    .and_then(|v| v.strip_prefix("\"g"))
                    .and_then(|v| v.strip_suffix('"'))
                    .and_then(|v| v.split('.').next())
                    .and_then(|v| v.parse().ok())
                    .ok_or_else(|| Error::invalid("If-Match", "must be the ETag of the tenant as it was last read"))?,
            ),
        };
        Ok(Self { idempotency_key, if_match })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        #[allow(dead_code, reason = "only whether it parses is asked")]
        slug: String,
        #[allow(dead_code, reason = "only whether it parses is asked")]
        memory_mb: Option<u64>,
    }

    #[test]
    fn a_refused_body_names_its_field() {
        for (text, field) in [
            ("", "body"),
            ("{", "body"),
            ("[]", "body"),
            ("null", "body"),
            ("{}", "slug"),
            ("{\"slug\": 7}", "slug"),
            ("{\"slug\": \"a\", \"memory_mb\": -1}", "memory_mb"),
            ("{\"slug\": \"a\", \"unknown\": 1}", "unknown"),
            ("{\"slug\": \"a\"} trailing", "body"),
        ] {
            let error = parse::<Body>(text.as_bytes()).unwrap_err();
            assert_eq!(error.kind, crate::error::Kind::Invalid { field: field.to_owned() }, "{text:?}: {error}");
        }
    }

    #[test]
    fn if_match_takes_the_etag_we_gave() {
        let read = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_MATCH, HeaderValue::from_static(value));
            Conditions::read(&headers).map(|c| c.if_match)
        };
        assert_eq!(read("\"g7.0123abcd\"").unwrap(), Some(7));
        assert_eq!(read("*").unwrap(), None);
        for bad in ["7", "\"7\"", "W/\"g7.x\"", "\"gx\"", ""] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
