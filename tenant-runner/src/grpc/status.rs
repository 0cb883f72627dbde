//! The engine's errors as gRPC statuses. The field at fault travels in trailing metadata; sources go to the log, once.

use crate::http::error::ApiError;
use axum::http::StatusCode;
use nexaas_engine::{EngineError, Kind};
use nexaas_proto::{FIELD_METADATA, RETRY_AFTER_METADATA};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

pub fn of(error: EngineError) -> Status {
    let mut metadata = MetadataMap::new();
    let code = match &error.kind {
        Kind::Invalid { field } => {
            if let Ok(value) = field.parse() {
                metadata.insert(FIELD_METADATA, value);
            }
            Code::InvalidArgument
        }
        Kind::NotFound => Code::NotFound,
        Kind::Conflict => Code::FailedPrecondition,
        Kind::Unauthenticated => Code::Unauthenticated,
        Kind::Forbidden => Code::PermissionDenied,
        Kind::RateLimited { retry_after_s } => {
            if let Ok(value) = retry_after_s.to_string().parse() {
                metadata.insert(RETRY_AFTER_METADATA, value);
            }
            Code::ResourceExhausted
        }
        Kind::Unavailable => Code::Unavailable,
        Kind::Internal => Code::Internal,
    };
    if matches!(code, Code::Internal | Code::Unavailable) {
        tracing::error!(error = error.chain(), "call failed");
    }
    Status::with_metadata(code, error.public(), metadata)
}

pub fn invalid(field: &str, rule: &str) -> Status {
    of(EngineError::invalid(field, rule))
}

/// A refusal of the caller, which HTTP and gRPC decide alike.
pub fn of_refusal(error: &ApiError) -> Status {
    error.log();
    let code = match error.status() {
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::TOO_MANY_REQUESTS => Code::ResourceExhausted,
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        _ => Code::Internal,
    };
    Status::new(code, error.detail())
}
