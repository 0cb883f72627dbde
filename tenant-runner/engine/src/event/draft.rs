//! From the JSON somebody sent to an event that can be stored. Every refusal names the field and its rule.

use super::model::{Event, EventStatus};
use crate::error::{EngineError, Result};
use crate::schedule::Schedule;
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde_json::{Map, Value};

const LONGEST_ID: usize = 200;
const LONGEST_NAME: usize = 200;
const LONGEST_TEXT: usize = 4096;
const LONGEST_JSON: usize = 256 * 1024;
const MOST_RETRIES: u64 = 100;
const LONGEST_BACKOFF_MINUTES: f64 = 7.0 * 24.0 * 60.0;

/// What a caller may set.
const WRITABLE: &[&str] = &[
    "id",
    "type",
    "condition_type",
    "condition_expr",
    "next_eval_at",
    "action_type",
    "action_config",
    "status",
    "priority",
    "concurrency_key",
    "max_retries",
    "retry_backoff_minutes",
    "expires_at",
    "workspace",
    "agent",
    "client",
    "description",
    "metadata",
];
/// What a caller may send back unread, because it was in the answer.
const READ_ONLY: &[&str] = &["last_run_at", "last_result", "run_count", "fail_count", "created_at", "updated_at"];

/// How to read the request.
pub(super) struct Context<'a> {
    pub id: String,
    pub zone: Tz,
    pub now: DateTime<Utc>,
    /// The event as it is, if it exists.
    pub before: Option<&'a Event>,
    /// A patch leaves alone what it does not name; otherwise that falls back to its default.
    pub patch: bool,
}

pub(super) fn object(json: Value) -> Result<Map<String, Value>> {
    let Value::Object(map) = json else { return Err(EngineError::invalid("body", "must be a JSON object")) };
    for key in map.keys() {
        if !WRITABLE.contains(&key.as_str()) && !READ_ONLY.contains(&key.as_str()) {
            let key: String = key.chars().take(60).collect();
            return Err(EngineError::invalid(key, "is not a field of an event"));
        }
    }
    Ok(map)
}

/// The id that the request names, if any.
pub(super) fn id(map: &Map<String, Value>) -> Result<Option<String>> {
    let rule = "must be 1 to 200 letters, digits or any of . _ : -";
    match map.get("id") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(id))
            if (1..=LONGEST_ID).contains(&id.len())
                && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b)) =>
        {
            Ok(Some(id.clone()))
        }
        Some(_) => Err(EngineError::invalid("id", rule)),
    }
}

pub(super) fn read(map: &Map<String, Value>, context: Context<'_>) -> Result<Event> {
    let before = context.before;
    let base = before.filter(|_| context.patch);
    let fields = Fields { map, patch: context.patch };
    let condition_type = match fields.text("condition_type", 20)? {
        Some(text) => text.parse()?,
        None => base.map(|e| e.condition_type).ok_or_else(|| missing("condition_type"))?,
    };
    let condition_expr = match fields.expression()? {
        Some(text) => text,
        None if condition_type == crate::schedule::ConditionType::Webhook => String::new(),
        None => base.map(|e| e.condition_expr.clone()).ok_or_else(|| missing("condition_expr"))?,
    };
    let action_type = match fields.text("action_type", 20)? {
        Some(text) => text.parse()?,
        None => base.map(|e| e.action_type).ok_or_else(|| missing("action_type"))?,
    };
    let action_config = match fields.object("action_config")? {
        Some(config) => config,
        None => base.map(|e| e.action_config.clone()).ok_or_else(|| missing("action_config"))?,
    };
    crate::action::check(action_type, &action_config)?;

    let schedule = Schedule::parse(condition_type, &condition_expr, context.zone, context.now)?;
    let same_condition =
        before.is_some_and(|e| e.condition_type == condition_type && e.condition_expr == condition_expr);
    let status = match fields.text("status", 20)? {
        Some(text) => text.parse()?,
        // Sending the same event again does not start a finished one anew.
        None => before.filter(|_| same_condition || context.patch).map_or(EventStatus::Active, |e| e.status),
    };
    let expires_at = fields.keep(fields.time("expires_at")?, base.and_then(|e| e.expires_at), "expires_at");
    if status == EventStatus::Active && expires_at.is_some_and(|at| at <= context.now) {
        return Err(EngineError::invalid("expires_at", "must lie in the future for an active event"));
    }
    let asked = fields.time("next_eval_at")?;
    let next_eval_at = match (status, asked, before.and_then(|e| e.next_eval_at)) {
        (EventStatus::Active, Some(at), _) => (!matches!(schedule.rule, crate::schedule::Rule::OnDemand)).then_some(at),
        (EventStatus::Active, None, Some(planned)) if same_condition => Some(planned),
        (EventStatus::Active, None, _) => schedule.first(context.now),
        _ => None,
    };
    Ok(Event {
        kind: fields
            .text("type", LONGEST_NAME)?
            .or_else(|| base.map(|e| e.kind.clone()))
            .ok_or_else(|| missing("type"))?,
        condition_type,
        condition_expr,
        next_eval_at,
        action_type,
        action_config,
        status,
        priority: fields.whole("priority", -1000, 1000)?.or(base.map(|e| e.priority.into())).unwrap_or(5) as i32,
        concurrency_key: fields.keep(
            fields.text("concurrency_key", LONGEST_NAME)?,
            base.and_then(|e| e.concurrency_key.clone()),
            "concurrency_key",
        ),
        max_retries: fields
            .whole("max_retries", 0, MOST_RETRIES as i64)?
            .or(base.map(|e| e.max_retries.into()))
            .unwrap_or(3) as u32,
        retry_backoff_minutes: fields.minutes()?.or(base.map(|e| e.retry_backoff_minutes)).unwrap_or(5.0),
        expires_at,
        workspace: fields.optional_text("workspace", LONGEST_NAME, base.and_then(|e| e.workspace.clone()))?,
        agent: fields.optional_text("agent", LONGEST_NAME, base.and_then(|e| e.agent.clone()))?,
        client: fields.optional_text("client", LONGEST_NAME, base.and_then(|e| e.client.clone()))?,
        description: fields.optional_text("description", LONGEST_TEXT, base.and_then(|e| e.description.clone()))?,
        metadata: fields.keep(fields.object("metadata")?, base.and_then(|e| e.metadata.clone()), "metadata"),
        last_run_at: before.and_then(|e| e.last_run_at),
        last_result: before.and_then(|e| e.last_result.clone()),
        run_count: before.map_or(0, |e| e.run_count),
        fail_count: before.map_or(0, |e| e.fail_count),
        created_at: before.map_or(context.now, |e| e.created_at),
        updated_at: context.now,
        id: context.id,
    })
}

fn missing(field: &str) -> EngineError {
    EngineError::invalid(field, "is needed")
}

struct Fields<'a> {
    map: &'a Map<String, Value>,
    patch: bool,
}

impl Fields<'_> {
    fn get(&self, field: &str) -> Option<&Value> {
        self.map.get(field).filter(|value| !value.is_null())
    }

    /// A patch that does not name a field keeps what was there; one that sets it to null clears it.
    fn keep<T>(&self, given: Option<T>, before: Option<T>, field: &str) -> Option<T> {
        match given {
            Some(value) => Some(value),
            None if self.patch && !self.map.contains_key(field) => before,
            None => None,
        }
    }

    fn text(&self, field: &str, longest: usize) -> Result<Option<String>> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::String(text)) if !text.trim().is_empty() && text.len() <= longest && !text.contains('\0') => {
                Ok(Some(text.clone()))
            }
            Some(_) => Err(EngineError::invalid(field, format!("must be a text of 1 to {longest} bytes"))),
        }
    }

    fn optional_text(&self, field: &str, longest: usize, before: Option<String>) -> Result<Option<String>> {
        // An empty text clears, as null does: forms send it.
        if matches!(self.get(field), Some(Value::String(text)) if text.is_empty()) {
            return Ok(None);
        }
        Ok(self.keep(self.text(field, longest)?, before, field))
    }

    /// Text as it is; a number or an object as its JSON.
    fn expression(&self) -> Result<Option<String>> {
        match self.get("condition_expr") {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.trim().to_owned())),
            Some(value @ (Value::Number(_) | Value::Object(_))) => Ok(Some(value.to_string())),
            Some(_) => Err(EngineError::invalid("condition_expr", "must be a text, a number or an object")),
        }
    }

    /// An object, or the text of one.
    fn object(&self, field: &str) -> Result<Option<Value>> {
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

    fn time(&self, field: &str) -> Result<Option<DateTime<Utc>>> {
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

    fn whole(&self, field: &str, least: i64, most: i64) -> Result<Option<i64>> {
        match self.get(field) {
            None => Ok(None),
            Some(value) => match value.as_i64() {
                Some(number) if (least..=most).contains(&number) => Ok(Some(number)),
                _ => Err(EngineError::invalid(field, format!("must be a whole number from {least} to {most}"))),
            },
        }
    }

    fn minutes(&self) -> Result<Option<f64>> {
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
