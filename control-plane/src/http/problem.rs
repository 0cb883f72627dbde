//! Errors as RFC 9457 problem documents. Here an error is logged, once; what the caller reads is the public message only.

use crate::error::{Error, Kind};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

/// The body of a refusal, `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Problem {
    /// A stable name of the kind of problem.
    pub r#type: String,
    /// The kind in words; the same for every occurrence.
    pub title: String,
    pub status: u16,
    /// What happened this time and what to do about it.
    pub detail: String,
    /// The field of the request that breaks a rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Seconds after which the same call may succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

/// The HTTP status of an error.
pub const fn status(kind: &Kind) -> StatusCode {
    match kind {
        Kind::Invalid { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        Kind::Unauthenticated => StatusCode::UNAUTHORIZED,
        Kind::Forbidden => StatusCode::FORBIDDEN,
        Kind::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
        Kind::Exhausted { .. } | Kind::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        Kind::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
        Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

const fn slug(kind: &Kind) -> &'static str {
    match kind {
        Kind::Invalid { .. } => "invalid",
        Kind::NotFound => "not-found",
        Kind::Conflict => "conflict",
        Kind::PreconditionFailed => "precondition-failed",
        Kind::Unauthenticated => "unauthenticated",
        Kind::Forbidden => "forbidden",
        Kind::RateLimited { .. } => "rate-limited",
        Kind::Exhausted { .. } => "exhausted",
        Kind::Unavailable { .. } => "unavailable",
        Kind::Timeout { .. } => "timeout",
        Kind::Internal => "internal",
    }
}

const fn title(kind: &Kind) -> &'static str {
    match kind {
        Kind::Invalid { .. } => "The request breaks a rule",
        Kind::NotFound => "Not found",
        Kind::Conflict => "Conflict",
        Kind::PreconditionFailed => "The state has changed",
        Kind::Unauthenticated => "Not signed in",
        Kind::Forbidden => "Not allowed",
        Kind::RateLimited { .. } => "Too many requests",
        Kind::Exhausted { .. } => "A limit is reached",
        Kind::Unavailable { .. } => "Temporarily unavailable",
        Kind::Timeout { .. } => "Timed out",
        Kind::Internal => "Internal error",
    }
}

/// How long a caller should wait before trying again, where that helps.
pub const fn retry_after(kind: &Kind) -> Option<u64> {
    match kind {
        Kind::RateLimited { retry_after_s } => Some(*retry_after_s),
        Kind::Unavailable { .. } | Kind::Timeout { .. } => Some(2),
        Kind::Exhausted { .. } => Some(30),
        Kind::Invalid { .. }
        | Kind::NotFound
        | Kind::Conflict
        | Kind::PreconditionFailed
        | Kind::Unauthenticated
        | Kind::Forbidden
        | Kind::Internal => None,
    }
}

/// The one place where an error of a request reaches the log.
pub fn log(error: &Error) {
    let status = status(&error.kind).as_u16();
    if status >= 500 {
        tracing::error!(status, kind = slug(&error.kind), error = error.chain(), "request failed");
    } else {
        tracing::debug!(status, kind = slug(&error.kind), error = error.chain(), "request refused");
    }
}

impl From<&Error> for Problem {
    fn from(error: &Error) -> Self {
        let field = match &error.kind {
            Kind::Invalid { field } => Some(field.clone()),
            _ => None,
        };
        Self {
            r#type: format!("urn:nexaas:problem:{}", slug(&error.kind)),
            title: title(&error.kind).to_owned(),
            status: status(&error.kind).as_u16(),
            detail: error.public().to_owned(),
            field,
            retry_after: retry_after(&error.kind),
        }
    }
}

/// Headers that belong to an error whatever its body's form.
pub fn decorate(kind: &Kind, response: &mut Response) {
    *response.status_mut() = status(kind);
    if let Some(seconds) = retry_after(kind) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        log(&self);
        let body = serde_json::to_vec(&Problem::from(&self)).unwrap_or_default();
        let mut response = Response::new(axum::body::Body::from(body));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        decorate(&self.kind, &mut response);
        response
    }
}

/// A panic in a handler is a defect; the caller gets a plain 500 and the connection lives on.
pub fn after_panic(payload: Box<dyn std::any::Any + Send + 'static>) -> Response {
    let why = payload
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned());
    Error::internal(format!("a handler panicked: {why}")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_field_and_the_rule() {
        insta::assert_json_snapshot!(Problem::from(&Error::invalid("slug", "must start with a letter a-z")), @r#"
        {
          "type": "urn:nexaas:problem:invalid",
          "title": "The request breaks a rule",
          "status": 422,
          "detail": "slug must start with a letter a-z",
          "field": "slug"
        }
        "#);
    }

    #[test]
    fn the_cause_of_an_internal_error_stays_in_the_log() {
        let response = Problem::from(&Error::internal("password=hunter2"));
        assert!(!serde_json::to_string(&response).unwrap().contains("hunter2"));
    }

    #[test]
    fn a_rate_limit_says_when_to_return() {
        let response = Error::new(Kind::RateLimited { retry_after_s: 17 }, "too many tries").into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[header::RETRY_AFTER], "17");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    }
}
