//! Reading a job from the JSON that somebody sent, and checking one before it is stored. Every refusal names the field.

use super::job::{Chain, NewJob, Rate, Retry, Unique};
use crate::error::{EngineError, Result};
use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use std::time::Duration;

const FIELDS: &[&str] = &[
    "action_type",
    "action_config",
    "payload",
    "description",
    "agent",
    "priority",
    "run_at",
    "delay_s",
    "concurrency_key",
    "concurrency_limit",
    "rate_limit",
    "unique_key",
    "unique_for_s",
    "max_retries",
    "retry_backoff_minutes",
    "retry_delays_s",
    "timeout_s",
    "then",
    "on_failure",
];
const LONGEST_NAME: usize = 200;
const LONGEST_TEXT: usize = 4096;
const LONGEST_PAYLOAD: usize = 1024 * 1024;
const LONGEST_CHAIN: usize = 256 * 1024;
const MOST_FOLLOWERS: usize = 32;
/// Jobs that may lead to one another.
const DEEPEST: u32 = 32;
const MOST_RETRIES: i64 = 100;
const LONGEST_DELAY_S: f64 = 366.0 * 24.0 * 3600.0;
const LONGEST_TIMEOUT_S: f64 = 24.0 * 3600.0;
const MOST_AT_ONCE: i64 = 10_000;
const MOST_PER_PERIOD: i64 = 1000;

impl NewJob {
    /// Reads a job spec; `now` is what `delay_s` counts from.
    pub fn from_json(spec: &Value, now: DateTime<Utc>) -> Result<Self> {
        let Value::Object(map) = spec else { return Err(EngineError::invalid("job", "must be a JSON object")) };
        if let Some(key) = map.keys().find(|key| !FIELDS.contains(&key.as_str())) {
            let key: String = key.chars().take(60).collect();
            return Err(EngineError::invalid(key, format!("is not a field of a job; known are {}", FIELDS.join(", "))));
        }
        let fields = Fields(map);
        let action = fields.text("action_type", LONGEST_NAME)?.ok_or_else(|| missing("action_type"))?.parse()?;
        let mut job = Self::new(action, fields.get("action_config").cloned().ok_or_else(|| missing("action_config"))?);
        job.payload = fields.get("payload").cloned();
        job.description = fields.text("description", LONGEST_TEXT)?;
        job.agent = fields.text("agent", LONGEST_NAME)?;
        job.priority = fields.whole("priority", -1000, 1000)?.unwrap_or(5) as i32;
        job.run_at = fields.run_at(now)?;
        job.read_limits(map)?;
        job.max_attempts = fields.whole("max_retries", 0, MOST_RETRIES)?.unwrap_or(0) as u32 + 1;
        if let Some(minutes) = fields.number("retry_backoff_minutes", 0.0, LONGEST_DELAY_S / 60.0)? {
            job.retry = Retry::Exponential { base: Duration::from_secs_f64(minutes * 60.0) };
        }
        job.check()?;
        Ok(job)
    }

    /// Reads the fields that an event's `job` may hold as well: limits, uniqueness, time-out, the list of waits, followers.
    pub fn read_limits(&mut self, map: &Map<String, Value>) -> Result<()> {
        let fields = Fields(map);
        if let Some(key) = fields.text("concurrency_key", LONGEST_NAME)? {
            self.concurrency_key = Some(key);
        }
        self.concurrency_limit = fields.whole("concurrency_limit", 1, MOST_AT_ONCE)?.map(|limit| limit as u32);
        self.rate = fields.rate()?;
        let period = fields.seconds("unique_for_s", LONGEST_DELAY_S)?;
        self.unique = fields.text("unique_key", LONGEST_NAME)?.map(|key| Unique { key, period });
        if self.unique.is_none() && period.is_some() {
            return Err(EngineError::invalid("unique_for_s", "needs a unique_key"));
        }
        if let Some(delays) = fields.delays()? {
            self.retry = Retry::Listed(delays);
        }
        self.timeout = fields.seconds("timeout_s", LONGEST_TIMEOUT_S)?;
        self.chain = Chain { then: fields.specs("then")?, on_failure: fields.specs("on_failure")? };
        Ok(())
    }

    /// Whether the job may be stored.
    pub fn check(&self) -> Result<()> {
        crate::action::check(self.action, &self.action_config)?;
        if self.max_attempts == 0 {
            return Err(EngineError::invalid("max_attempts", "must be at least 1"));
        }
        if self.depth > DEEPEST {
            return Err(EngineError::invalid(
                "depth",
                format!("must be at most {DEEPEST}: more jobs than that led to one another, most likely in a circle"),
            ));
        }
        if self.concurrency_key.is_none() {
            for (there, field) in
                [(self.concurrency_limit.is_some(), "concurrency_limit"), (self.rate.is_some(), "rate_limit")]
            {
                if there {
                    return Err(EngineError::invalid(field, "needs a concurrency_key"));
                }
            }
        }
        if self.payload.as_ref().is_some_and(|payload| payload.to_string().len() > LONGEST_PAYLOAD) {
            return Err(EngineError::invalid("payload", format!("must be at most {LONGEST_PAYLOAD} bytes of JSON")));
        }
        if !self.chain.is_empty() {
            self.check_chain()?;
        }
        Ok(())
    }

    fn check_chain(&self) -> Result<()> {
        let size: usize = self.chain.then.iter().chain(&self.chain.on_failure).map(|spec| spec.to_string().len()).sum();
        if size > LONGEST_CHAIN {
            return Err(EngineError::invalid(
                "then",
                format!("must be at most {LONGEST_CHAIN} bytes, with all it holds"),
            ));
        }
        for (field, specs) in [("then", &self.chain.then), ("on_failure", &self.chain.on_failure)] {
            for (at, spec) in specs.iter().enumerate() {
                Self::from_json(spec, DateTime::<Utc>::UNIX_EPOCH)
                    .map_err(|error| within(&format!("{field}.{at}"), error))?;
            }
        }
        Ok(())
    }
}

/// The same refusal, of a field inside `outer`.
fn within(outer: &str, error: EngineError) -> EngineError {
    match error.field() {
        Some(field) => {
            let rule = error.public().strip_prefix(field).unwrap_or(error.public()).trim_start().to_owned();
            EngineError::invalid(format!("{outer}.{field}"), rule)
        }
        None => error,
    }
}

fn missing(field: &str) -> EngineError {
    EngineError::invalid(field, "is needed")
}

struct Fields<'a>(&'a Map<String, Value>);

impl Fields<'_> {
    fn get(&self, field: &str) -> Option<&Value> {
        self.0.get(field).filter(|value| !value.is_null())
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

    fn whole(&self, field: &str, least: i64, most: i64) -> Result<Option<i64>> {
        match self.get(field) {
            None => Ok(None),
            Some(value) => match value.as_i64() {
                Some(number) if (least..=most).contains(&number) => Ok(Some(number)),
                _ => Err(EngineError::invalid(field, format!("must be a whole number from {least} to {most}"))),
            },
        }
    }

    fn number(&self, field: &str, least: f64, most: f64) -> Result<Option<f64>> {
        match self.get(field) {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) if (least..=most).contains(&number) => Ok(Some(number)),
                _ => Err(EngineError::invalid(field, format!("must be a number from {least} to {most}"))),
            },
        }
    }

    fn seconds(&self, field: &str, most: f64) -> Result<Option<Duration>> {
        Ok(self.number(field, 0.001, most)?.map(Duration::from_secs_f64))
    }

    fn run_at(&self, now: DateTime<Utc>) -> Result<Option<DateTime<Utc>>> {
        let delay = self.number("delay_s", 0.0, LONGEST_DELAY_S)?;
        match (self.get("run_at"), delay) {
            (Some(_), Some(_)) => Err(EngineError::invalid("delay_s", "cannot go with run_at")),
            (None, None) => Ok(None),
            (None, Some(delay)) => Ok(Some(now + Duration::from_secs_f64(delay))),
            (Some(Value::String(text)), None) => match DateTime::parse_from_rfc3339(text) {
                Ok(at) => Ok(Some(at.with_timezone(&Utc))),
                Err(_) => Err(moment()),
            },
            (Some(_), None) => Err(moment()),
        }
    }

    fn rate(&self) -> Result<Option<Rate>> {
        let rule = format!(
            "must be an object with count (1 to {MOST_PER_PERIOD}) and per_s (0.001 to {LONGEST_TIMEOUT_S}, in seconds)"
        );
        let refuse = || EngineError::invalid("rate_limit", &rule);
        let map = match self.get("rate_limit") {
            None => return Ok(None),
            Some(Value::Object(map)) if map.keys().all(|key| matches!(key.as_str(), "count" | "per_s")) => map,
            Some(_) => return Err(refuse()),
        };
        let inside = Fields(map);
        let count = inside.whole("count", 1, MOST_PER_PERIOD).map_err(|_| refuse())?.ok_or_else(refuse)?;
        let period = inside.seconds("per_s", LONGEST_TIMEOUT_S).map_err(|_| refuse())?.ok_or_else(refuse)?;
        Ok(Some(Rate { count: count as u32, period }))
    }

    fn delays(&self) -> Result<Option<Vec<Duration>>> {
        let rule = format!("must be a list of 1 to {MOST_RETRIES} numbers of seconds from 0 to {LONGEST_DELAY_S}");
        let refuse = || EngineError::invalid("retry_delays_s", &rule);
        match self.get("retry_delays_s") {
            None => Ok(None),
            Some(Value::Array(items)) if (1..=MOST_RETRIES as usize).contains(&items.len()) => items
                .iter()
                .map(|item| {
                    let seconds = item.as_f64().filter(|s| (0.0..=LONGEST_DELAY_S).contains(s));
                    seconds.map(Duration::from_secs_f64).ok_or_else(refuse)
                })
                .collect::<Result<_>>()
                .map(Some),
            Some(_) => Err(refuse()),
        }
    }

    /// One job spec, or a list of them.
    fn specs(&self, field: &str) -> Result<Vec<Value>> {
        match self.get(field) {
            None => Ok(Vec::new()),
            Some(spec @ Value::Object(_)) => Ok(vec![spec.clone()]),
            Some(Value::Array(specs)) if specs.len() <= MOST_FOLLOWERS => Ok(specs.clone()),
            Some(_) => {
                Err(EngineError::invalid(field, format!("must be a job or a list of at most {MOST_FOLLOWERS} jobs")))
            }
        }
    }
}

fn moment() -> EngineError {
    EngineError::invalid("run_at", "must be a moment with its offset, such as 2026-03-01T09:00:00Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(extra: Value) -> Result<NewJob> {
        let mut spec = json!({"action_type": "script", "action_config": {"command": "true"}});
        if let (Value::Object(spec), Value::Object(extra)) = (&mut spec, extra) {
            spec.extend(extra);
        }
        NewJob::from_json(&spec, DateTime::<Utc>::UNIX_EPOCH)
    }

    #[test]
    fn a_mistake_is_named_by_its_field() {
        for (extra, field) in [
            (json!({"surprise": 1}), "surprise"),
            (json!({"action_type": "magic"}), "action_type"),
            (json!({"action_config": {}}), "action_config.command"),
            (json!({"priority": 1001}), "priority"),
            (json!({"run_at": "tomorrow"}), "run_at"),
            (json!({"run_at": "2026-01-01T00:00:00Z", "delay_s": 1}), "delay_s"),
            (json!({"concurrency_limit": 2}), "concurrency_limit"),
            (json!({"concurrency_key": "k", "concurrency_limit": 0}), "concurrency_limit"),
            (json!({"concurrency_key": "k", "rate_limit": {"count": 1}}), "rate_limit"),
            (json!({"rate_limit": {"count": 1, "per_s": 1}}), "rate_limit"),
            (json!({"unique_for_s": 3}), "unique_for_s"),
            (json!({"max_retries": -1}), "max_retries"),
            (json!({"retry_delays_s": []}), "retry_delays_s"),
            (json!({"retry_delays_s": [1, "2"]}), "retry_delays_s"),
            (json!({"timeout_s": 0}), "timeout_s"),
            (json!({"then": "x"}), "then"),
            (json!({"then": [{"action_type": "script", "action_config": {}}]}), "then.0.action_config.command"),
            (
                json!({"on_failure": {"action_type": "script", "action_config": {"command": "a"},
                                      "then": {"action_type": "no"}}}),
                "on_failure.0.then.0.action_type",
            ),
        ] {
            let error = read(extra.clone()).unwrap_err();
            assert_eq!(error.field(), Some(field), "{extra}: {}", error.public());
        }
    }

    #[test]
    fn a_whole_spec_is_understood() {
        let job = read(json!({
            "payload": {"a": 1}, "priority": 1, "delay_s": 1.5, "concurrency_key": "k", "concurrency_limit": 3,
            "rate_limit": {"count": 10, "per_s": 60}, "unique_key": "u", "unique_for_s": 60, "max_retries": 2,
            "retry_delays_s": [1, 5], "timeout_s": 30, "then": {"action_type": "script", "action_config": {"command": "b"}},
        }))
        .unwrap();
        assert_eq!(job.run_at, Some(DateTime::<Utc>::UNIX_EPOCH + Duration::from_millis(1500)));
        assert_eq!((job.max_attempts, job.concurrency_limit), (3, Some(3)));
        assert_eq!(job.rate, Some(Rate { count: 10, period: Duration::from_secs(60) }));
        assert_eq!(job.unique, Some(Unique { key: "u".into(), period: Some(Duration::from_secs(60)) }));
        assert_eq!(job.retry, Retry::Listed(vec![Duration::from_secs(1), Duration::from_secs(5)]));
        assert_eq!(job.chain.then.len(), 1);
    }
}
