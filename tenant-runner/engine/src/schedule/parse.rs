//! Reading `condition_type` and `condition_expr`. Every refusal names the field and says what is wrong.
//!
//! An expression is plain text (`0 9 * * 1-5`, `3600`, `2026-03-01T09:00:00Z`) or a JSON object with `expr`, `seconds` or `at`,
//! and optionally `timezone` and `catch_up` (`skip`, `latest`, or `{"all": 10}`).

use super::{CatchUp, MOST_CAUGHT_UP, Rule, Schedule};
use crate::error::{EngineError, Result};
use chrono::{DateTime, Duration, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use serde_json::{Map, Value};

const FIELD: &str = "condition_expr";
const LONGEST: usize = 512;
const LONGEST_PERIOD_S: i64 = 366 * 24 * 3600;
/// A schedule must run at least once before this; it also keeps `29 2 * *` alive over the longest gap of leap years.
const HORIZON: Duration = Duration::days(9 * 366);

/// How an event comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConditionType {
    Cron,
    Interval,
    Once,
    Webhook,
}

impl ConditionType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cron => "cron",
            Self::Interval => "interval",
            Self::Once => "once",
            Self::Webhook => "webhook",
        }
    }
}

impl std::str::FromStr for ConditionType {
    type Err = EngineError;
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "cron" => Ok(Self::Cron),
            "interval" => Ok(Self::Interval),
            "once" => Ok(Self::Once),
            "webhook" => Ok(Self::Webhook),
            _ => Err(EngineError::invalid("condition_type", "must be one of cron, interval, once, webhook")),
        }
    }
}

impl Schedule {
    /// Reads an expression; `zone` is for those that name none.
    pub fn parse(condition: ConditionType, expression: &str, zone: Tz, now: DateTime<Utc>) -> Result<Self> {
        if expression.len() > LONGEST {
            return refuse(format!("must be at most {LONGEST} bytes long"));
        }
        let text = expression.trim();
        let parts = Parts::read(text)?;
        let rule = match condition {
            ConditionType::Cron => {
                let zone = parts.zone()?.unwrap_or(zone);
                let cron = cron(parts.text("expr", text)?.as_str())?;
                Rule::Cron { cron: Box::new(cron), zone }
            }
            ConditionType::Interval => Rule::Every(period(parts.value("seconds", text)?)?),
            ConditionType::Once => Rule::Once(moment(&parts.text("at", text)?)?),
            ConditionType::Webhook => Rule::OnDemand,
        };
        let schedule = Self { rule, catch_up: parts.catch_up()? };
        if let Rule::Cron { .. } = schedule.rule
            && schedule.next_after(now).is_none_or(|next| next - now > HORIZON)
        {
            return refuse("never comes true: no such date in the next years");
        }
        Ok(schedule)
    }

    /// Whether the expression leaves the zone to the default.
    pub fn uses_default_zone(condition: ConditionType, expression: &str) -> bool {
        condition == ConditionType::Cron
            && Parts::read(expression.trim()).is_ok_and(|parts| parts.0.is_none_or(|map| !map.contains_key("timezone")))
    }
}

fn refuse<T>(rule: impl std::fmt::Display) -> Result<T> {
    Err(EngineError::invalid(FIELD, rule))
}

/// The members of an expression in JSON; none, if it is plain text.
struct Parts(Option<Map<String, Value>>);

impl Parts {
    fn read(text: &str) -> Result<Self> {
        if !text.starts_with('{') {
            return Ok(Self(None));
        }
        let map: Map<String, Value> =
            serde_json::from_str(text).or_else(|error| refuse(format!("looks like JSON but is not: {error}")))?;
        for key in map.keys() {
            if !["expr", "seconds", "at", "timezone", "catch_up"].contains(&key.as_str()) {
                return refuse(format!("has an unknown member '{}'", key.chars().take(40).collect::<String>()));
            }
        }
        Ok(Self(Some(map)))
    }

    fn value(&self, key: &str, plain: &str) -> Result<Value> {
        match &self.0 {
            None => Ok(Value::String(plain.to_owned())),
            Some(map) => map.get(key).cloned().map_or_else(|| refuse(format!("needs the member '{key}'")), Ok),
        }
    }

    fn text(&self, key: &str, plain: &str) -> Result<String> {
        match self.value(key, plain)? {
            Value::String(text) => Ok(text.trim().to_owned()),
            _ => refuse(format!("needs a text in '{key}'")),
        }
    }

    fn zone(&self) -> Result<Option<Tz>> {
        match self.0.as_ref().and_then(|map| map.get("timezone")) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(name)) => match name.parse() {
                Ok(zone) => Ok(Some(zone)),
                Err(_) => refuse(format!(
                    "names an unknown timezone '{}'; use an IANA name such as Europe/Berlin",
                    name.chars().take(40).collect::<String>()
                )),
            },
            Some(_) => refuse("needs a text in 'timezone'"),
        }
    }

    fn catch_up(&self) -> Result<CatchUp> {
        let rule = format!("has a 'catch_up' that is none of \"skip\", \"latest\", {{\"all\": 1 to {MOST_CAUGHT_UP}}}");
        match self.0.as_ref().and_then(|map| map.get("catch_up")) {
            None => Ok(CatchUp::Latest),
            Some(Value::String(word)) if word == "skip" => Ok(CatchUp::Skip),
            Some(Value::String(word)) if word == "latest" => Ok(CatchUp::Latest),
            Some(Value::Object(map)) if map.len() == 1 => match map.get("all").and_then(Value::as_u64) {
                Some(max @ 1..) if max <= u64::from(MOST_CAUGHT_UP) => Ok(CatchUp::All { max: max as u32 }),
                _ => refuse(rule),
            },
            Some(_) => refuse(rule),
        }
    }
}

fn cron(text: &str) -> Result<Cron> {
    let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
    match parser.parse(text) {
        Ok(cron) => Ok(cron),
        Err(error) => refuse(format!(
            "must be a cron expression of five or six fields, or @hourly, @daily, @weekly, @monthly, @yearly: {error}"
        )),
    }
}

fn period(value: Value) -> Result<Duration> {
    let seconds = match &value {
        Value::String(text) => text.parse::<i64>().ok(),
        other => other.as_i64(),
    };
    match seconds {
        Some(seconds @ 1..=LONGEST_PERIOD_S) => Ok(Duration::seconds(seconds)),
        _ => refuse(format!("must be a whole number of seconds from 1 to {LONGEST_PERIOD_S}")),
    }
}

fn moment(text: &str) -> Result<DateTime<Utc>> {
    match DateTime::parse_from_rfc3339(text) {
        Ok(at) => Ok(at.with_timezone(&Utc)),
        Err(_) => refuse("must be a moment with its offset, such as 2026-03-01T09:00:00Z"),
    }
}
