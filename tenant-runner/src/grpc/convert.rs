//! Small conversions that several services use.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

/// RFC 3339 in UTC.
pub fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

pub fn maybe_time(at: Option<DateTime<Utc>>) -> String {
    at.map(time).unwrap_or_default()
}

/// Free-form JSON as text. What the engine hands over can always be written.
pub fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}

/// proto3 has no absent text; empty means not given.
pub fn given(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// A limit of 0 means the usual one.
pub fn limit(asked: u32, usual: u32, most: u32) -> u32 {
    if asked == 0 { usual } else { asked.min(most) }
}

/// A time of the wire; empty means not given.
pub fn parse_time(field: &str, text: &str) -> Result<Option<DateTime<Utc>>, tonic::Status> {
    if text.is_empty() {
        return Ok(None);
    }
    match DateTime::parse_from_rfc3339(text) {
        Ok(at) => Ok(Some(at.with_timezone(&Utc))),
        Err(_) => Err(super::status::invalid(field, "must be a time such as 2026-01-31T08:00:00Z")),
    }
}
