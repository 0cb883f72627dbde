//! The shapes of the queue.

use crate::action::ActionType;
use crate::error::{EngineError, Result};
use crate::store::from_micros;
use chrono::{DateTime, Utc};
use nexaas_common::id::{BootId, Id, Kind};
use rusqlite::Row;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use serde::Serialize;
use serde_json::Value;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

#[doc(hidden)]
pub enum JobKind {}
impl Kind for JobKind {
    const NAME: &'static str = "job";
}
#[doc(hidden)]
pub enum AttemptKind {}
impl Kind for AttemptKind {
    const NAME: &'static str = "attempt";
}
/// One piece of work.
pub type JobId = Id<JobKind>;
/// One try at a job.
pub type AttemptId = Id<AttemptKind>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    Ready,
    Running,
    Succeeded,
    Dead,
    Cancelled,
}

impl JobState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
        }
    }
}

impl FromSql for JobState {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_str()? {
            "ready" => Ok(Self::Ready),
            "running" => Ok(Self::Running),
            "succeeded" => Ok(Self::Succeeded),
            "dead" => Ok(Self::Dead),
            "cancelled" => Ok(Self::Cancelled),
            other => Err(FromSqlError::Other(format!("unknown job state {other}").into())),
        }
    }
}

/// Work to be queued.
#[derive(Debug, Clone)]
pub struct NewJob {
    pub action: ActionType,
    pub action_config: Value,
    pub payload: Option<Value>,
    pub event_id: Option<String>,
    pub slot: Option<DateTime<Utc>>,
    pub description: Option<String>,
    pub agent: Option<String>,
    /// Lower runs first; 5 is the usual.
    pub priority: i32,
    /// At most one job of a key runs at a time.
    pub concurrency_key: Option<String>,
    /// Not before this; at once, if none.
    pub run_at: Option<DateTime<Utc>>,
    pub max_attempts: u32,
    /// The wait before the second attempt; it doubles with each further one.
    pub backoff: Duration,
    pub traceparent: Option<String>,
}

impl NewJob {
    /// A job that runs at once, once; it continues the trace of whoever makes it.
    pub fn new(action: ActionType, action_config: Value) -> Self {
        Self {
            action,
            action_config,
            payload: None,
            event_id: None,
            slot: None,
            description: None,
            agent: None,
            priority: 5,
            concurrency_key: None,
            run_at: None,
            max_attempts: 1,
            backoff: Duration::from_secs(60),
            traceparent: nexaas_common::telemetry::current_traceparent(),
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        crate::action::check(self.action, &self.action_config)?;
        if self.max_attempts == 0 {
            return Err(EngineError::invalid("max_attempts", "must be at least 1"));
        }
        Ok(())
    }
}

/// A job as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Job {
    pub id: JobId,
    pub event_id: Option<String>,
    pub action_type: String,
    pub description: Option<String>,
    pub agent: Option<String>,
    pub state: JobState,
    pub priority: i32,
    pub attempt: u32,
    pub max_attempts: u32,
    /// When it is due, while it waits.
    pub run_at: DateTime<Utc>,
    pub result: Option<String>,
    pub error: Option<String>,
    pub created_at: DateTime<Utc>,
    pub started_at: Option<DateTime<Utc>>,
    pub finished_at: Option<DateTime<Utc>>,
}

impl Job {
    pub(super) const COLUMNS: &'static str = "id, event_id, action_type, description, agent, state, priority, attempt, \
         max_attempts, run_at, result, error, created_at, started_at, finished_at";

    pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: JobId::from_uuid(uuid(row, 0)?),
            event_id: row.get(1)?,
            action_type: row.get(2)?,
            description: row.get(3)?,
            agent: row.get(4)?,
            state: row.get(5)?,
            priority: row.get(6)?,
            attempt: row.get(7)?,
            max_attempts: row.get(8)?,
            run_at: from_micros(row.get(9)?),
            result: row.get(10)?,
            error: row.get(11)?,
            created_at: from_micros(row.get(12)?),
            started_at: row.get::<_, Option<i64>>(13)?.map(from_micros),
            finished_at: row.get::<_, Option<i64>>(14)?.map(from_micros),
        })
    }
}

/// Who holds a job: only the lease that was given last can finish it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    pub(super) seq: i64,
    pub boot: BootId,
    pub fence: i64,
}

/// A job that this process holds and must now do.
#[derive(Debug, Clone)]
pub struct Claimed {
    pub id: JobId,
    pub lease: Lease,
    pub attempt_id: AttemptId,
    pub attempt: u32,
    pub max_attempts: u32,
    pub action: ActionType,
    pub action_config: Value,
    pub payload: Option<Value>,
    pub event_id: Option<String>,
    pub slot: Option<DateTime<Utc>>,
    pub agent: Option<String>,
    pub traceparent: Option<String>,
    pub started_at: DateTime<Utc>,
    /// Cancelled when somebody asks the job to stop.
    pub cancel: CancellationToken,
}

pub(super) fn uuid(row: &Row<'_>, column: usize) -> rusqlite::Result<Uuid> {
    row.get::<_, [u8; 16]>(column).map(Uuid::from_bytes)
}
