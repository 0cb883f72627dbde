//! Reading single fields of a request. Every refusal names the field and its rule.

use super::Event;
use crate::error::{EngineError, Result};
use crate::schedule::ConditionType;
use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

const LONGEST_JSON: usize = 256 * 1024;
const LONGEST_BACKOFF_MINUTES: f64 = 7.0 * 24.0 * 60.0;

pub(super) struct Fields<'a> {
    pub map: &'a Map<String, Value>,
    /// A patch leaves alone what it does not name.
    pub patch: bool,
}

impl Fields<'_> {
    pub(super) fn get(&self, field: &str) -> Option<&Value> {
        self.map.get(field).filter(|value| !value.is_null())
    }

    /// A patch that does not name a field keeps what was there; one that sets it to null clears it.
    pub(super) fn keep<T>(&self, given: Option<T>, before: Option<T>, field: &str) -> Option<T> {
        match given {
            Some(value) => Some(value),
            None if self.patch && !self.map.contains_key(field) => before,
            None => None,
        }
    }

    pub(super) fn text(&self, field: &str, longest: usize) -> Result<Option<String>> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::String(text)) if !text.trim().is_empty() && text.len() <= longest && !text.contains('\0') => {
                Ok(Some(text.clone()))
            }
            Some(_) => Err(EngineError::invalid(field, format!("must be a text of 1 to {longest} bytes"))),
        }
    }

    pub(super) fn optional_text(&self, field: &str, longest: usize, before: Option<String>) -> Result<Option<String>> {
        // An empty text clears, as null does: forms send it.
        if matches!(self.get(field), Some(Value::String(text)) if text.is_empty()) {
            return Ok(None);
        }
        Ok(self.keep(self.text(field, longest)?, before, field))
    }

    /// The keys of an event that waits for calls are checked; see `hooks`.
    pub(super) fn metadata(&self, waits_for: ConditionType, before: Option<&Event>) -> Result<Option<Value>> {
        let known = before.and_then(|event| event.metadata.as_ref());
        let mut metadata = self.keep(self.object("metadata")?, known.cloned(), "metadata");
        if let Some(metadata) = &mut metadata {
            let new = self.get("metadata").is_some() || before.is_some_and(|event| event.condition_type != waits_for);
            crate::hooks::settle(metadata, known, new && waits_for == ConditionType::Webhook)?;
        }
        Ok(metadata)
    }

    /// Text as it is; a number or an object as its JSON.
    pub(super) fn expression(&self) -> Result<Option<String>> {
        match self.get("condition_expr") {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.trim().to_owned())),
            Some(value @ (Value::Number(_) | Value::Object(_))) => Ok(Some(value.to_string())),
            Some(_) => Err(EngineError::invalid("condition_expr", "must be a text, a number or an object")),
        }
    }

    /// An object, or the text of one.
    pub(super) fn object(&self, field: &str) -> Result<Option<Value>> {
        let invalid = |rule: &str| EngineError::invalid(field, rule);
        let value = match self.get(field) {
            None => return Ok(None),
            Some(Value::String(text)) if text.len() <= LONGEST_JSON => {
                serde_json::from_str(text).map_err(|error| invalid(&format!("must be a JSON object: {error}")))?
            }
            Some(value) => value.clone(),
        };
        if !value.is_object() {
            return Err(invalid("must be a JSON object"));
        }
        if value.to_string().len() > LONGEST_JSON {
            return Err(invalid("must be at most 256 KiB long"));
        }
        Ok(Some(value))
    }

    /// A word or an object, which may come as its text.
    pub(super) fn catch_up(&self) -> Option<Value> {
        match self.get("catch_up")? {
            Value::String(text) if text.is_empty() => None,
            Value::String(text) if text.starts_with('{') => {
                Some(serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone())))
            }
            value => Some(value.clone()),
        }
    }

    pub(super) fn time(&self, field: &str) -> Result<Option<DateTime<Utc>>> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::String(text)) => match DateTime::parse_from_rfc3339(text) {
                Ok(at) => Ok(Some(at.with_timezone(&Utc))),
                Err(_) => {
                    Err(EngineError::invalid(field, "must be a moment with its offset, such as 2026-03-01T09:00:00Z"))
                }
            },
            Some(_) => Err(EngineError::invalid(field, "must be a moment in RFC 3339 form")),
        }
    }

    pub(super) fn whole(&self, field: &str, least: i64, most: i64) -> Result<Option<i64>> {
        match self.get(field) {
            None => Ok(None),
            Some(value) => match value.as_i64() {
                Some(number) if (least..=most).contains(&number) => Ok(Some(number)),
                _ => Err(EngineError::invalid(field, format!("must be a whole number from {least} to {most}"))),
            },
        }
    }

    pub(super) fn minutes(&self) -> Result<Option<f64>> {
        match self.get("retry_backoff_minutes") {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                Some(minutes) if (0.0..=LONGEST_BACKOFF_MINUTES).contains(&minutes) => Ok(Some(minutes)),
                _ => Err(EngineError::invalid(
                    "retry_backoff_minutes",
                    format!("must be a number from 0 to {LONGEST_BACKOFF_MINUTES}"),
                )),
            },
        }
    }
}
