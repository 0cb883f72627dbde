//! A demonstration's past: `seed/history.yaml` of a template, planted once when a workspace is made from it.
//!
//! Always true here: the file is checked whole before anything is planted, and the rows it stands for are written in the
//! same transaction as the mark that the workspace is made.

use crate::error::{EngineError, Result};
use crate::event::Events;
use crate::queue::{JobState, Past, Queue};
use crate::store::to_micros;
use crate::workspace::{files::Root, or_default, parse_yaml, template::SEED};
use cap_std::fs::Dir;
use chrono::{DateTime, Duration, Utc};
use rusqlite::{Connection, params};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use uuid::Uuid;

const FILE: &str = "history.yaml";
const MOST_ROWS: usize = 5_000;

/// What happened before the workspace was made.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct History {
    #[serde(default, deserialize_with = "or_default")]
    events: Vec<Value>,
    #[serde(default, deserialize_with = "or_default")]
    jobs: Vec<PastJob>,
    #[serde(default, deserialize_with = "or_default")]
    usage: Vec<PastUsage>,
    #[serde(default, deserialize_with = "or_default")]
    alerts: Vec<PastAlert>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Succeeded,
    Dead,
    Cancelled,
}

#[derive(Debug, Clone, Deserialize)]
struct PastJob {
    #[serde(default)]
    event: Option<String>,
    ago: Span,
    #[serde(default)]
    took: Span,
    state: State,
    #[serde(default)]
    attempts: Option<u32>,
    #[serde(default)]
    action_type: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    action_config: Value,
    #[serde(default)]
    agent: Option<String>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    result: Option<String>,
    #[serde(default)]
    error: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct PastUsage {
    ago: Span,
    #[serde(default)]
    agent: Option<String>,
    model: String,
    source: String,
    #[serde(default)]
    input_tokens: u32,
    #[serde(default)]
    output_tokens: u32,
    #[serde(default)]
    cache_read_tokens: u32,
    #[serde(default)]
    cache_creation_tokens: u32,
    #[serde(default)]
    cost_usd: f64,
}

#[derive(Debug, Clone, Deserialize)]
struct PastAlert {
    ago: Span,
    severity: Severity,
    category: String,
    message: String,
    #[serde(default)]
    auto_healed: bool,
    #[serde(default)]
    acknowledged: bool,
    #[serde(default, deserialize_with = "or_default")]
    details: Value,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Severity {
    Info,
    Warning,
    Critical,
}

/// A length of time such as `90s`, `5m`, `3h` or `14d`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Span(Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        span(&text).ok_or_else(|| {
            serde::de::Error::custom(format!("'{text}' is not a length of time such as 90s, 5m, 3h or 14d"))
        })
    }
}

fn span(text: &str) -> Option<Span> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    let number: u32 = number.parse().ok()?;
    Duration::try_seconds(i64::from(number).checked_mul(seconds)?).filter(|d| d.num_days() <= 3_660).map(Span)
}

/// Reads the history of a template; a template without one has none.
pub(crate) fn read(template: &Dir) -> Result<History> {
    let dir = match template.open_dir(SEED) {
        Ok(dir) => dir,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(History::default()),
        Err(error) => return Err(EngineError::unavailable("The template's seed cannot be read").with_source(error)),
    };
    let broken = |problem| EngineError::unavailable(format!("The template is broken: {SEED}/{problem}"));
    let Some(text) = Root::from_dir(dir).text(FILE).map_err(broken)? else { return Ok(History::default()) };
    parse(&text).map_err(broken)
}

fn parse(text: &str) -> Result<History, crate::workspace::Problem> {
    let history = parse_yaml::<History>(FILE, text)?.typed;
    if history.jobs.len() + history.usage.len() + history.alerts.len() + history.events.len() > MOST_ROWS {
        return Err(crate::workspace::Problem::error(FILE, 0, format!("has more than {MOST_ROWS} rows")));
    }
    let mut history = history;
    for event in &mut history.events {
        // People write a condition as a map; the scheduler takes it as text.
        if event["condition_expr"].is_object() {
            event["condition_expr"] = Value::String(event["condition_expr"].to_string());
        }
    }
    Ok(history)
}

impl History {
    /// Writes all of it, inside a write.
    pub(crate) fn insert(&self, tx: &Connection, schedules: &Events, now: DateTime<Utc>) -> Result<()> {
        for event in &self.events {
            schedules.upsert_in(tx, event.clone())?;
        }
        let events: BTreeMap<&str, &Value> = self.events.iter().filter_map(|e| Some((e["id"].as_str()?, e))).collect();
        let mut jobs: Vec<&PastJob> = self.jobs.iter().collect();
        // The oldest gets the lowest number.
        jobs.sort_by_key(|j| std::cmp::Reverse(j.ago.0));
        for job in jobs {
            let event = job.event.as_deref().and_then(|id| events.get(id).copied());
            insert_job(tx, schedules.queue(), job, event, now)?;
        }
        for call in &self.usage {
            tx.execute(
                "INSERT INTO usage (at, workspace, agent, source, backend, model, input_tokens, output_tokens, cache_read_tokens,
                                    cache_creation_tokens, cost_nano_usd, outcome)
                 VALUES (?1, NULL, ?2, ?3, 'seed', ?4, ?5, ?6, ?7, ?8, ?9, 'ok')",
                params![
                    to_micros(now - call.ago.0),
                    call.agent,
                    call.source,
                    call.model,
                    call.input_tokens,
                    call.output_tokens,
                    call.cache_read_tokens,
                    call.cache_creation_tokens,
                    (call.cost_usd * 1e9) as i64,
                ],
            )?;
        }
        for alert in &self.alerts {
            let severity = match alert.severity {
                Severity::Info => "info",
                Severity::Warning => "warning",
                Severity::Critical => "critical",
            };
            let id = Uuid::now_v7().to_string();
            let details = if alert.details.is_null() { "{}".to_owned() } else { alert.details.to_string() };
            let at = to_micros(now - alert.ago.0);
            // Past: nothing watches its cause any more, so it is resolved.
            tx.execute(
                "INSERT INTO alerts (id, fingerprint, severity, category, message, auto_healed, acknowledged, details, created_at, resolved_at)
                 VALUES (?1, 'seed:' || ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)",
                params![id, severity, alert.category, alert.message, alert.auto_healed, alert.acknowledged, details, at],
            )?;
        }
        Ok(())
    }
}

fn insert_job(tx: &Connection, queue: &Queue, job: &PastJob, event: Option<&Value>, now: DateTime<Utc>) -> Result<()> {
    let lent = |name: &str| event.and_then(|e| e[name].as_str()).map(str::to_owned);
    let action_type = job.action_type.clone().or_else(|| lent("action_type")).unwrap_or_else(|| "script".to_owned());
    let config = match (&job.action_config, event) {
        (Value::Null, Some(event)) => event["action_config"].to_string(),
        (Value::Null, None) => "{}".to_owned(),
        (config, _) => config.to_string(),
    };
    let started_at = now - job.ago.0;
    let finished_at = (started_at + job.took.0).min(now);
    let state = match job.state {
        State::Succeeded => JobState::Succeeded,
        State::Dead => JobState::Dead,
        State::Cancelled => JobState::Cancelled,
    };
    let past = Past {
        event_id: job.event.clone(),
        action_type,
        action_config: config,
        description: job.description.clone().or_else(|| lent("description")),
        agent: job.agent.clone().or_else(|| lent("agent")),
        state,
        attempts: job.attempts.unwrap_or(1).clamp(1, 100),
        result: job.result.clone(),
        error: job.error.clone(),
        started_at,
        finished_at,
    };
    queue.plant(tx, &past)?;
    let ended = to_micros(finished_at);
    if let Some(event) = &job.event {
        let failed = i64::from(job.state == State::Dead);
        tx.execute(
            "UPDATE events SET run_count = run_count + 1, fail_count = fail_count + ?2, last_run_at = max(coalesce(last_run_at, 0), ?3),
                               last_result = coalesce(?4, last_result) WHERE id = ?1",
            params![event, failed, ended, job.error.as_ref().or(job.result.as_ref())],
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_whole_numbers_with_a_unit() {
        assert_eq!(span("90s"), Some(Span(Duration::seconds(90))));
        assert_eq!(span("14d"), Some(Span(Duration::days(14))));
        for wrong in ["", "5", "h", "-3h", "1.5h", "3 h", "3w", "9999999999d", "4000000000d", "ü"] {
            assert_eq!(span(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_broken_history_is_named_with_its_line() {
        let problem = parse("version: 1\njobs:\n  - {ago: 3h, state: succeeded}\n  - {ago: soon, state: succeeded}\n")
            .unwrap_err();
        assert_eq!(problem.line, 4, "{problem:?}");
        assert!(problem.reason.contains("soon"), "{problem:?}");
    }

    #[test]
    fn a_condition_written_as_a_map_becomes_text() {
        let history =
            parse("events:\n  - {id: a, condition_expr: {expr: '0 9 * * *', timezone: Europe/Berlin}}\n").unwrap();
        assert_eq!(history.events[0]["condition_expr"], r#"{"expr":"0 9 * * *","timezone":"Europe/Berlin"}"#);
    }
}
