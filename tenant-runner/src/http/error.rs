//! How a refusal looks over HTTP: `{"detail": "…"}` with the right status, and for a broken rule the field's name too.
//! What the caller must not see (sources, paths, SQL) goes to the log, once, when the answer is made.

use axum::Json;
use axum::extract::rejection::{BytesRejection, JsonRejection, PathRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use nexaas_engine::{EngineError, Kind};

#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    detail: String,
    field: Option<String>,
    retry_after_s: Option<u64>,
    /// Only for the log.
    chain: Option<String>,
}

pub type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), field: None, retry_after_s: None, chain: None }
    }

    pub fn invalid(field: &str, rule: impl std::fmt::Display) -> Self {
        Self { field: Some(field.to_owned()), ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, format!("{field} {rule}")) }
    }

    pub fn unauthenticated() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "This needs a valid API key or token: Authorization: Bearer <it>")
    }

    /// A refusal that says nothing about what is there.
    pub fn unproven(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, detail)
    }

    fn too_large() -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "The body is larger than this path takes")
    }

    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// The same refusal under the status the original answered with.
    #[must_use]
    pub fn with_status_for_invalid(mut self, status: StatusCode) -> Self {
        if self.status == StatusCode::UNPROCESSABLE_ENTITY {
            self.status = status;
        }
        self
    }

    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Writes to the log what the caller is not told.
    pub fn log(&self) {
        if self.status.is_server_error() && self.retry_after_s.is_none_or(|_| self.chain.is_some()) {
            tracing::error!(
                status = self.status.as_u16(),
                error = self.chain.as_deref().unwrap_or(&self.detail),
                "request failed"
            );
        }
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        let (status, field, retry_after_s) = match &error.kind {
            Kind::Invalid { field } => (StatusCode::UNPROCESSABLE_ENTITY, Some(field.clone()), None),
            Kind::NotFound => (StatusCode::NOT_FOUND, None, None),
            Kind::Conflict => (StatusCode::CONFLICT, None, None),
            Kind::Unauthenticated => (StatusCode::UNAUTHORIZED, None, None),
            Kind::Forbidden => (StatusCode::FORBIDDEN, None, None),
            Kind::RateLimited { retry_after_s } => (StatusCode::TOO_MANY_REQUESTS, None, Some(*retry_after_s)),
            Kind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, None, Some(1)),
            Kind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, None, None),
        };
        Self { status, detail: error.public().to_owned(), field, retry_after_s, chain: Some(error.chain()) }
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        let status = rejection.status();
        let text = rejection.body_text();
        match rejection {
            JsonRejection::BytesRejection(rejection) => rejection.into(),
            JsonRejection::JsonSyntaxError(_) => {
                let what = text.split_once(": ").map_or(text.as_str(), |(_, rest)| rest);
                Self::invalid("body", format!("must be JSON: {what}"))
            }
            JsonRejection::JsonDataError(_) => {
                // "<preamble>: <path>: <what> at line …"; serde writes a field's name in backquotes when it is missing.
                let what = text.split_once(": ").map_or(text.as_str(), |(_, rest)| rest);
                let field = what
                    .split_once('`')
                    .filter(|(before, _)| before.ends_with("field "))
                    .and_then(|(_, rest)| rest.split_once('`'))
                    .map(|(name, _)| name)
                    .or_else(|| what.split_once(": ").map(|(path, _)| path))
                    .map(str::to_owned);
                Self { field, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, what) }
            }
            _ => Self::new(status, text),
        }
    }
}

impl From<BytesRejection> for ApiError {
    fn from(rejection: BytesRejection) -> Self {
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Self::too_large(),
            status => Self::new(status, rejection.body_text()),
        }
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        let text = rejection.body_text();
        let what = text.split_once(": ").map_or(text.as_str(), |(_, rest)| rest);
        let field = what.split_once(": ").map(|(path, _)| path.to_owned());
        Self { field, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, what) }
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

#[derive(serde::Serialize)]
struct Body<'a> {
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.log();
        let mut response =
            (self.status, Json(Body { detail: &self.detail, field: self.field.as_deref() })).into_response();
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}
