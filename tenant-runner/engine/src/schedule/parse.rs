//! Reading `condition_type` and `condition_expr`. Every refusal names the field and says what is wrong.
//!
//! An expression is plain text (`0 9 * * 1-5`, `3600`, `2026-03-01T09:00:00Z`, `job.failed`) or a JSON object with `expr`,
//! `seconds` or `at`, and optionally `timezone` and `catch_up` (`skip`, `latest`, or `{"all": 10}`), which win over the event's
//! fields of the same names; of a fact on the bus it is an object with `on` and `match`.

use super::fact::FactRule;
use super::local::LocalTimes;
use super::{CatchUp, MOST_CAUGHT_UP, Rule, Schedule};
use crate::error::{EngineError, Result};
use chrono::{DateTime, Duration, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use serde_json::{Map, Value};

pub(super) const FIELD: &str = "condition_expr";
const LONGEST: usize = 512;
const LONGEST_PERIOD_S: i64 = 366 * 24 * 3600;
/// A schedule must run at least once before this; it also keeps `29 2 * *` alive over the longest gap of leap years.
const HORIZON: Duration = Duration::days(9 * 366);

/// How an event comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConditionType {
    Cron,
    Interval,
    Once,
    Webhook,
    /// A fact on the engine's own bus.
    Bus,
}

impl ConditionType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cron => "cron",
            Self::Interval => "interval",
            Self::Once => "once",
            Self::Webhook => "webhook",
            Self::Bus => "bus",
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
            "bus" => Ok(Self::Bus),
            _ => Err(EngineError::invalid("condition_type", "must be one of cron, interval, once, webhook, bus")),
        }
    }
}

/// An event's condition as it is stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Condition<'a> {
    pub kind: ConditionType,
    pub expression: &'a str,
    /// The event's own zone, if it names one outside its expression.
    pub timezone: Option<&'a str>,
    pub catch_up: Option<&'a Value>,
}

impl Condition<'_> {
    /// Whether the zone is left to the default.
    pub(crate) fn uses_default_zone(&self) -> bool {
        self.kind == ConditionType::Cron
            && self.timezone.is_none()
            && Parts::read(self.expression.trim())
                .is_ok_and(|parts| parts.0.is_none_or(|map| map.get("timezone").is_none_or(Value::is_null)))
    }
}

impl Schedule {
    /// Reads an expression that somebody sent; `zone` is for those that name none.
    pub fn parse(kind: ConditionType, expression: &str, zone: Tz, now: DateTime<Utc>) -> Result<Self> {
        Self::checked(&Condition { kind, expression, timezone: None, catch_up: None }, zone, now)
    }

    /// Reads a condition and makes sure that it can come true.
    pub(crate) fn checked(condition: &Condition<'_>, zone: Tz, now: DateTime<Utc>) -> Result<Self> {
        let schedule = Self::of(condition, zone)?;
        if let Rule::Cron(_) = schedule.rule
            && schedule.next_after(now).is_none_or(|next| next - now > HORIZON)
        {
            return refuse("never comes true: no such date in the next years");
        }
        Ok(schedule)
    }

    /// Reads a condition.
    pub(crate) fn of(condition: &Condition<'_>, zone: Tz) -> Result<Self> {
        if condition.expression.len() > LONGEST {
            return refuse(format!("must be at most {LONGEST} bytes long"));
        }
        let text = condition.expression.trim();
        let given = condition.catch_up.map(|value| catch_up("catch_up", value)).transpose()?;
        if condition.kind == ConditionType::Bus {
            let rule = Rule::OnFact(Box::new(FactRule::parse(text)?));
            return Ok(Self { rule, catch_up: given.unwrap_or(CatchUp::Latest) });
        }
        let parts = Parts::read(text)?;
        let rule = match condition.kind {
            ConditionType::Cron => {
                let zone = match (parts.zone()?, condition.timezone) {
                    (Some(zone), _) => zone,
                    (None, Some(name)) => timezone("timezone", name)?,
                    (None, None) => zone,
                };
                let text = parts.text("expr", text)?;
                Rule::Cron(LocalTimes::new(cron(&text)?, &text, zone))
            }
            ConditionType::Interval => Rule::Every(period(parts.value("seconds", text)?)?),
            ConditionType::Once => Rule::Once(moment(&parts.text("at", text)?)?),
            ConditionType::Webhook | ConditionType::Bus => Rule::OnDemand,
        };
        let own =
            parts.0.as_ref().and_then(|map| map.get("catch_up")).map(|value| catch_up(FIELD, value)).transpose()?;
        Ok(Self { rule, catch_up: own.or(given).unwrap_or(CatchUp::Latest) })
    }
}

/// A zone by its IANA name.
pub(crate) fn timezone(field: &str, name: &str) -> Result<Tz> {
    name.parse().map_err(|_| {
        let name: String = name.chars().take(40).collect();
        let rule = format!("names an unknown timezone '{name}'; use an IANA name such as Europe/Berlin");
        EngineError::invalid(field, rule)
    })
}

/// What to do about missed slots.
fn catch_up(field: &str, value: &Value) -> Result<CatchUp> {
    let all = |map: &Map<String, Value>| match map.get("all").and_then(Value::as_u64) {
        Some(max @ 1..) if map.len() == 1 && max <= u64::from(MOST_CAUGHT_UP) => Some(CatchUp::All { max: max as u32 }),
        _ => None,
    };
    let read = match value {
        Value::String(word) if word == "skip" => Some(CatchUp::Skip),
        Value::String(word) if word == "latest" => Some(CatchUp::Latest),
        Value::Object(map) => all(map),
        _ => None,
    };
    read.ok_or_else(|| {
        let rule = format!("must be \"skip\", \"latest\" or {{\"all\": 1 to {MOST_CAUGHT_UP}}}");
        match field {
            FIELD => EngineError::invalid(FIELD, format!("has a 'catch_up' that {rule}")),
            other => EngineError::invalid(other, rule),
        }
    })
}

pub(super) fn refuse<T>(rule: impl std::fmt::Display) -> Result<T> {
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
            Some(Value::String(name)) => timezone(FIELD, name).map(Some),
            Some(_) => refuse("needs a text in 'timezone'"),
        }
    }
}

fn cron(text: &str) -> Result<Cron> {
    let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
    // The one usual name that the library does not know.
    let text = if text.eq_ignore_ascii_case("@midnight") { "@daily" } else { text };
    // The library takes an empty place in a list for nothing at all, and then looks for a moment that never comes.
    if let Some(field) = text.split_whitespace().find(|field| field.split(',').any(str::is_empty)) {
        let field: String = field.chars().take(40).collect();
        return refuse(format!("has an empty place in the list '{field}'"));
    }
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
