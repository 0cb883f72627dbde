//! The shape of an event, as it is stored and shown.

use crate::action::ActionType;
use crate::error::EngineError;
use crate::schedule::{Condition, ConditionType};
use crate::store::{from_micros, to_micros};
use chrono::{DateTime, Utc};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::Serialize;
use serde_json::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EventStatus {
    Active,
    Paused,
    /// It had one slot, and that was run.
    Completed,
    /// It had one slot, and its job failed for good.
    Failed,
    Expired,
}

impl EventStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Expired => "expired",
        }
    }
}

impl std::str::FromStr for EventStatus {
    type Err = EngineError;
    fn from_str(text: &str) -> Result<Self, EngineError> {
        match text {
            "active" => Ok(Self::Active),
            "paused" => Ok(Self::Paused),
            "completed" => Ok(Self::Completed),
            "failed" => Ok(Self::Failed),
            "expired" => Ok(Self::Expired),
            _ => Err(EngineError::invalid("status", "must be one of active, paused, completed, failed, expired")),
        }
    }
}

/// What happens when an event is to fire while a job of it is not over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// Both run.
    Allow,
    /// Nothing is queued; the slot counts as seen to.
    Skip,
    /// The new one waits for the old one.
    Queue,
    /// The old ones are cancelled, and the new one waits until they have ended.
    CancelPrevious,
}

impl Overlap {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Skip => "skip",
            Self::Queue => "queue",
            Self::CancelPrevious => "cancel_previous",
        }
    }
}

impl std::str::FromStr for Overlap {
    type Err = EngineError;
    fn from_str(text: &str) -> Result<Self, EngineError> {
        match text {
            "allow" => Ok(Self::Allow),
            "skip" => Ok(Self::Skip),
            "queue" => Ok(Self::Queue),
            "cancel_previous" => Ok(Self::CancelPrevious),
            _ => Err(EngineError::invalid("overlap", "must be one of allow, skip, queue, cancel_previous")),
        }
    }
}

/// A schedule or trigger, with what it does and how that went.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// Its own for good: an event that comes again under the same id has another. 0 until it is stored.
    #[serde(skip)]
    pub(super) number: i64,
    pub id: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub condition_type: ConditionType,
    pub condition_expr: String,
    /// The zone of a cron expression that names none itself; the workspace's, if none.
    pub timezone: Option<String>,
    /// What to do about missed slots, unless the expression says it: `"skip"`, `"latest"`, `{"all": 10}`.
    pub catch_up: Option<Value>,
    pub next_eval_at: Option<DateTime<Utc>>,
    /// The default zone in which `next_eval_at` was worked out.
    #[serde(skip)]
    pub(super) planned_zone: Option<String>,
    /// Facts up to this one are older than the event's watch on the bus.
    #[serde(skip)]
    pub(super) watch_from: Option<u64>,
    /// No slot before this.
    pub starts_at: Option<DateTime<Utc>>,
    /// No slot from then on.
    pub expires_at: Option<DateTime<Utc>>,
    /// Jobs start up to so many seconds after their slot, each by an amount of its own.
    pub jitter_s: u32,
    pub overlap: Overlap,
    pub action_type: ActionType,
    pub action_config: Value,
    /// Further fields of its jobs, as a job's spec has them.
    pub job: Option<Value>,
    pub status: EventStatus,
    /// Why it is paused, if the engine did that.
    pub paused_reason: Option<String>,
    /// It pauses when so many jobs in a row fail for good.
    pub pause_after_failures: Option<u32>,
    pub failures_in_row: u32,
    /// Lower runs first; 5 is the usual.
    pub priority: i32,
    pub concurrency_key: Option<String>,
    pub max_retries: u32,
    pub retry_backoff_minutes: f64,
    pub workspace: Option<String>,
    pub agent: Option<String>,
    pub client: Option<String>,
    pub description: Option<String>,
    #[serde(serialize_with = "crate::hooks::shown")]
    pub metadata: Option<Value>,
    pub last_run_at: Option<DateTime<Utc>>,
    pub last_result: Option<String>,
    pub run_count: u64,
    pub fail_count: u64,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl Event {
    pub(super) const COLUMNS: &'static str = "id, type, condition_type, condition_expr, timezone, catch_up, next_eval_at, \
         planned_zone, watch_from, starts_at, expires_at, jitter_s, overlap, action_type, action_config, job, status, \
         paused_reason, pause_after_failures, failures_in_row, priority, concurrency_key, max_retries, retry_backoff_minutes, \
         workspace, agent, client, description, metadata, last_run_at, last_result, run_count, fail_count, created_at, \
         updated_at, number";

    pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let time = |column: usize| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(column)?.map(from_micros));
        let maybe_json =
            |column: usize| row.get::<_, Option<String>>(column)?.map(|text| json(&text, column)).transpose();
        Ok(Self {
            number: row.get(35)?,
            id: row.get(0)?,
            kind: row.get(1)?,
            condition_type: parsed(row, 2)?,
            condition_expr: row.get(3)?,
            timezone: row.get(4)?,
            catch_up: maybe_json(5)?,
            next_eval_at: time(6)?,
            planned_zone: row.get(7)?,
            watch_from: row.get(8)?,
            starts_at: time(9)?,
            expires_at: time(10)?,
            jitter_s: row.get(11)?,
            overlap: parsed(row, 12)?,
            action_type: parsed(row, 13)?,
            action_config: json(&row.get::<_, String>(14)?, 14)?,
            job: maybe_json(15)?,
            status: parsed(row, 16)?,
            paused_reason: row.get(17)?,
            pause_after_failures: row.get(18)?,
            failures_in_row: row.get(19)?,
            priority: row.get(20)?,
            concurrency_key: row.get(21)?,
            max_retries: row.get(22)?,
            retry_backoff_minutes: row.get(23)?,
            workspace: row.get(24)?,
            agent: row.get(25)?,
            client: row.get(26)?,
            description: row.get(27)?,
            metadata: maybe_json(28)?,
            last_run_at: time(29)?,
            last_result: row.get(30)?,
            run_count: row.get(31)?,
            fail_count: row.get(32)?,
            created_at: from_micros(row.get(33)?),
            updated_at: from_micros(row.get(34)?),
        })
    }

    /// The metadata with its literal keys left out.
    pub fn shown_metadata(&self) -> Option<Value> {
        serde_json::to_value(self).ok()?.get_mut("metadata").map(Value::take).filter(|metadata| !metadata.is_null())
    }

    pub(super) fn condition(&self) -> Condition<'_> {
        Condition {
            kind: self.condition_type,
            expression: &self.condition_expr,
            timezone: self.timezone.as_deref(),
            catch_up: self.catch_up.as_ref(),
        }
    }

    pub(super) fn load(connection: &Connection, id: &str) -> Result<Option<Self>, EngineError> {
        Ok(connection
            .prepare_cached(&format!("SELECT {} FROM events WHERE id = ?1", Self::COLUMNS))?
            .query_row([id], Self::from_row)
            .optional()?)
    }

    /// Stores everything but the counts of runs, which belong to the ends of jobs.
    pub(super) fn save(&self, tx: &Connection) -> Result<(), EngineError> {
        tx.prepare_cached(
            "INSERT INTO events (id, type, condition_type, condition_expr, timezone, catch_up, next_eval_at, planned_zone,
                 watch_from, starts_at, expires_at, jitter_s, overlap, action_type, action_config, job, status, paused_reason,
                 pause_after_failures, failures_in_row, priority, concurrency_key, max_retries, retry_backoff_minutes,
                 workspace, agent, client, description, metadata, created_at, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22,
                 ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31)
             ON CONFLICT (id) DO UPDATE SET type = ?2, condition_type = ?3, condition_expr = ?4, timezone = ?5, catch_up = ?6,
                 next_eval_at = ?7, planned_zone = ?8, watch_from = ?9, starts_at = ?10, expires_at = ?11, jitter_s = ?12,
                 overlap = ?13, action_type = ?14, action_config = ?15, job = ?16, status = ?17, paused_reason = ?18,
                 pause_after_failures = ?19, failures_in_row = ?20, priority = ?21, concurrency_key = ?22, max_retries = ?23,
                 retry_backoff_minutes = ?24, workspace = ?25, agent = ?26, client = ?27, description = ?28, metadata = ?29,
                 updated_at = ?31",
        )?
        .execute(params![
            self.id,
            self.kind,
            self.condition_type.as_str(),
            self.condition_expr,
            self.timezone,
            self.catch_up.as_ref().map(Value::to_string),
            self.next_eval_at.map(to_micros),
            self.planned_zone,
            self.watch_from,
            self.starts_at.map(to_micros),
            self.expires_at.map(to_micros),
            self.jitter_s,
            self.overlap.as_str(),
            self.action_type.as_str(),
            self.action_config.to_string(),
            self.job.as_ref().map(Value::to_string),
            self.status.as_str(),
            self.paused_reason,
            self.pause_after_failures,
            self.failures_in_row,
            self.priority,
            self.concurrency_key,
            self.max_retries,
            self.retry_backoff_minutes,
            self.workspace,
            self.agent,
            self.client,
            self.description,
            self.metadata.as_ref().map(Value::to_string),
            to_micros(self.created_at),
            to_micros(self.updated_at),
        ])?;
        Ok(())
    }
}

fn parsed<T: std::str::FromStr<Err = EngineError>>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    text.parse().map_err(|e: EngineError| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(e)))
}

fn json(text: &str, column: usize) -> rusqlite::Result<Value> {
    serde_json::from_str(text).map_err(|e| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(e)))
}
