//! From the JSON somebody sent to an event that can be stored. Every refusal names the field and its rule.

use super::fields::Fields;
use super::fire::{self, Occasion};
use super::model::{Event, EventStatus, Overlap};
use crate::error::{EngineError, Result};
use crate::schedule::{self, ConditionType, Rule, Schedule};
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde_json::{Map, Value};

const LONGEST_ID: usize = 200;
const LONGEST_NAME: usize = 200;
const LONGEST_TEXT: usize = 4096;
const MOST_RETRIES: u64 = 100;
const MOST_FAILURES: i64 = 1000;
const LONGEST_JITTER_S: i64 = 24 * 3600;

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
    "timezone",
    "overlap",
    "jitter_s",
    "starts_at",
    "pause_after_failures",
    "catch_up",
    "job",
];
/// What a caller may send back unread, because it was in the answer.
const READ_ONLY: &[&str] = &[
    "last_run_at",
    "last_result",
    "run_count",
    "fail_count",
    "failures_in_row",
    "paused_reason",
    "created_at",
    "updated_at",
];

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
        None => match base {
            Some(e) if e.condition_type == condition_type => e.condition_expr.clone(),
            _ if condition_type == ConditionType::Webhook => String::new(),
            Some(e) => e.condition_expr.clone(),
            None => return Err(missing("condition_expr")),
        },
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

    let mut event = Event {
        number: context.before.map_or(0, |before| before.number),
        kind: fields
            .text("type", LONGEST_NAME)?
            .or_else(|| base.map(|e| e.kind.clone()))
            .ok_or_else(|| missing("type"))?,
        condition_type,
        condition_expr,
        timezone: fields.optional_text("timezone", LONGEST_NAME, base.and_then(|e| e.timezone.clone()))?,
        catch_up: fields.keep(fields.catch_up(), base.and_then(|e| e.catch_up.clone()), "catch_up"),
        next_eval_at: None,
        planned_zone: None,
        watch_from: before.and_then(|e| e.watch_from),
        starts_at: fields.keep(fields.time("starts_at")?, base.and_then(|e| e.starts_at), "starts_at"),
        expires_at: fields.keep(fields.time("expires_at")?, base.and_then(|e| e.expires_at), "expires_at"),
        jitter_s: fields.whole("jitter_s", 0, LONGEST_JITTER_S)?.or(base.map(|e| e.jitter_s.into())).unwrap_or(0)
            as u32,
        overlap: match fields.text("overlap", 20)? {
            Some(text) => text.parse()?,
            None => base.map_or(Overlap::Allow, |e| e.overlap),
        },
        action_type,
        action_config,
        job: fields.keep(fields.object("job")?, base.and_then(|e| e.job.clone()), "job"),
        status: EventStatus::Active,
        paused_reason: None,
        pause_after_failures: fields.keep(
            fields.whole("pause_after_failures", 1, MOST_FAILURES)?.map(|number| number as u32),
            base.and_then(|e| e.pause_after_failures),
            "pause_after_failures",
        ),
        failures_in_row: before.map_or(0, |e| e.failures_in_row),
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
        workspace: fields.optional_text("workspace", LONGEST_NAME, base.and_then(|e| e.workspace.clone()))?,
        agent: fields.optional_text("agent", LONGEST_NAME, base.and_then(|e| e.agent.clone()))?,
        client: fields.optional_text("client", LONGEST_NAME, base.and_then(|e| e.client.clone()))?,
        description: fields.optional_text("description", LONGEST_TEXT, base.and_then(|e| e.description.clone()))?,
        metadata: fields.metadata(condition_type, before)?,
        last_run_at: before.and_then(|e| e.last_run_at),
        last_result: before.and_then(|e| e.last_result.clone()),
        run_count: before.map_or(0, |e| e.run_count),
        fail_count: before.map_or(0, |e| e.fail_count),
        created_at: before.map_or(context.now, |e| e.created_at),
        updated_at: context.now,
        id: context.id.clone(),
    };
    check_job(&event)?;
    plan(&mut event, &fields, &context)?;
    Ok(event)
}

/// Status and next slot, which depend on what was there before.
fn plan(event: &mut Event, fields: &Fields<'_>, context: &Context<'_>) -> Result<()> {
    if let Some(name) = &event.timezone {
        schedule::timezone("timezone", name)?;
    }
    let schedule = Schedule::checked(&event.condition(), context.zone, context.now)?;
    let before = context.before;
    let same_plan = before.is_some_and(|e| {
        (e.condition_type, &e.condition_expr, &e.timezone, e.starts_at)
            == (event.condition_type, &event.condition_expr, &event.timezone, event.starts_at)
    });
    event.status = match fields.text("status", 20)? {
        Some(text) => text.parse()?,
        // Sending the same event again does not start a finished one anew.
        None => before.filter(|_| same_plan || context.patch).map_or(EventStatus::Active, |e| e.status),
    };
    match (event.status, before) {
        (EventStatus::Paused, Some(before)) => event.paused_reason.clone_from(&before.paused_reason),
        // Whoever sets it going again gives it a fresh start.
        (EventStatus::Active, Some(before)) if before.status != EventStatus::Active => event.failures_in_row = 0,
        _ => {}
    }
    check_times(event, &schedule, context.now)?;
    let asked = fields.time("next_eval_at")?;
    if let (Some(at), Some(start)) = (asked, event.starts_at)
        && at < start
    {
        return Err(EngineError::invalid("next_eval_at", "must not lie before starts_at"));
    }
    let planned = before.and_then(|e| e.next_eval_at);
    event.next_eval_at = match (event.status, asked, planned) {
        (EventStatus::Active, Some(at), _) => {
            (!matches!(schedule.rule, Rule::OnDemand | Rule::OnFact(_))).then_some(at)
        }
        (EventStatus::Active, None, Some(planned)) if same_plan => Some(planned),
        (EventStatus::Active, None, _) => schedule.first(context.now, event.starts_at),
        _ => None,
    };
    event.planned_zone = match before {
        Some(before) if same_plan && event.next_eval_at == planned => before.planned_zone.clone(),
        _ => (event.next_eval_at.is_some() && event.condition().uses_default_zone())
            .then(|| context.zone.name().to_owned()),
    };
    Ok(())
}

fn check_times(event: &Event, schedule: &Schedule, now: DateTime<Utc>) -> Result<()> {
    if event.status == EventStatus::Active && event.expires_at.is_some_and(|at| at <= now) {
        return Err(EngineError::invalid("expires_at", "must lie in the future for an active event"));
    }
    let Some(start) = event.starts_at else { return Ok(()) };
    if event.expires_at.is_some_and(|at| at <= start) {
        return Err(EngineError::invalid("expires_at", "must lie after starts_at"));
    }
    if matches!(schedule.rule, Rule::Once(at) if at < start) {
        return Err(EngineError::invalid("starts_at", "must not lie after the one moment of the event"));
    }
    Ok(())
}

/// What an event's `job` may hold besides what the event itself says about its jobs.
const JOB_FIELDS: &[&str] = &[
    "timeout_s",
    "concurrency_limit",
    "rate_limit",
    "unique_key",
    "unique_for_s",
    "retry_delays_s",
    "then",
    "on_failure",
];

fn check_job(event: &Event) -> Result<()> {
    let Some(Value::Object(job)) = &event.job else { return Ok(()) };
    if let Some(key) = job.keys().find(|key| !JOB_FIELDS.contains(&key.as_str())) {
        let key: String = key.chars().take(60).collect();
        let rule = format!("is not a field of an event's job; known are {}", JOB_FIELDS.join(", "));
        return Err(EngineError::invalid(format!("job.{key}"), rule));
    }
    if event.overlap == Overlap::Queue
        && job.get("concurrency_limit").and_then(Value::as_u64).is_some_and(|most| most > 1)
    {
        return Err(EngineError::invalid("job.concurrency_limit", "must be 1 for an event whose overlap is queue"));
    }
    let checked = fire::job(event, Occasion::default()).and_then(|job| job.check());
    checked.map_err(|error| match error.field() {
        Some(field) => {
            let rule = error.public().strip_prefix(field).unwrap_or(error.public()).trim_start().to_owned();
            EngineError::invalid(format!("job.{field}"), rule)
        }
        None => error,
    })
}

fn missing(field: &str) -> EngineError {
    EngineError::invalid(field, "is needed")
}
