//! The shapes of the queue.

use crate::action::ActionType;
use crate::store::from_micros;
use chrono::{DateTime, Utc};
use nexaas_common::id::{BootId, Id, Kind};
use rusqlite::Row;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
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

/// How often jobs of a key may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Rate {
    /// So many starts …
    pub count: u32,
    /// … in any stretch of this length.
    #[serde(serialize_with = "seconds")]
    pub period: Duration,
}

fn seconds<S: serde::Serializer>(period: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(period.as_secs_f64())
}

/// At most one job stands for a key: until the period is over or, without one, while that job lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unique {
    pub key: String,
    pub period: Option<Duration>,
}

/// The waits between attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retry {
    /// The wait before the second attempt, doubled with each further one, and up to a fifth longer.
    Exponential { base: Duration },
    /// One by one, exactly; the last one serves for all that follow.
    Listed(Vec<Duration>),
}

/// What is queued when a job has ended: job specs as `NewJob::from_json` reads them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chain {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub then: Vec<Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_failure: Vec<Value>,
}

impl Chain {
    pub fn is_empty(&self) -> bool {
        self.then.is_empty() && self.on_failure.is_empty()
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
    /// How many jobs led to this one; beyond 32 it is refused, because it is most likely a circle.
    pub depth: u32,
    pub description: Option<String>,
    pub agent: Option<String>,
    /// Lower runs first; 5 is the usual.
    pub priority: i32,
    /// Jobs of one key share a limit: one at a time, unless the key says otherwise.
    pub concurrency_key: Option<String>,
    /// Changes how many jobs of the key run at once; none leaves it as it is.
    pub concurrency_limit: Option<u32>,
    /// Changes how often jobs of the key may start; none leaves it as it is.
    pub rate: Option<Rate>,
    pub unique: Option<Unique>,
    /// Not before this; at once, if none.
    pub run_at: Option<DateTime<Utc>>,
    pub max_attempts: u32,
    pub retry: Retry,
    /// Ends an attempt that takes longer; none leaves that to the action.
    pub timeout: Option<Duration>,
    pub chain: Chain,
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
            depth: 0,
            description: None,
            agent: None,
            priority: 5,
            concurrency_key: None,
            concurrency_limit: None,
            rate: None,
            unique: None,
            run_at: None,
            max_attempts: 1,
            retry: Retry::Exponential { base: Duration::from_secs(60) },
            timeout: None,
            chain: Chain::default(),
            traceparent: nexaas_common::telemetry::current_traceparent(),
        }
    }
}

/// What became of an enqueue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Enqueued {
    pub id: JobId,
    /// A job of the same unique key stands already; this is its id, and nothing was queued.
    pub existed: bool,
}

/// A job as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Job {
    pub id: JobId,
    pub event_id: Option<String>,
    pub slot: Option<DateTime<Utc>>,
    pub depth: u32,
    pub action_type: String,
    pub description: Option<String>,
    pub agent: Option<String>,
    pub state: JobState,
    /// It is due, but its concurrency key has no room.
    pub blocked: bool,
    pub priority: i32,
    pub concurrency_key: Option<String>,
    pub attempt: u32,
    pub max_attempts: u32,
    /// When it is due, while it waits.
    pub run_at: DateTime<Utc>,
    pub timeout_ms: Option<u64>,
    pub result: Option<String>,
    pub error: Option<String>,
    pub created_at: DateTime<Utc>,
    pub started_at: Option<DateTime<Utc>>,
    pub finished_at: Option<DateTime<Utc>>,
}

impl Job {
    pub(super) const COLUMNS: &'static str = "id, event_id, action_type, description, agent, state, priority, attempt, \
         max_attempts, run_at, result, error, created_at, started_at, finished_at, slot, depth, parked, concurrency_key, \
         timeout_ms";

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
            slot: row.get::<_, Option<i64>>(15)?.map(from_micros),
            depth: row.get(16)?,
            blocked: row.get(17)?,
            concurrency_key: row.get(18)?,
            timeout_ms: row.get(19)?,
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
    pub depth: u32,
    pub agent: Option<String>,
    pub concurrency_key: Option<Arc<str>>,
    pub timeout: Option<Duration>,
    pub traceparent: Option<String>,
    pub started_at: DateTime<Utc>,
    /// Cancelled when somebody asks the job to stop.
    pub cancel: CancellationToken,
    /// What its end needs to know.
    pub(super) ending: Ending,
}

/// Of a job, what matters when an attempt ends.
#[derive(Debug, Clone)]
pub(super) struct Ending {
    /// Attempts of earlier rounds, which the waits between attempts do not count.
    pub earlier: u32,
    pub retry: Retry,
    pub chain: Option<String>,
    pub created_at: DateTime<Utc>,
}

pub(super) fn uuid(row: &Row<'_>, column: usize) -> rusqlite::Result<Uuid> {
    row.get::<_, [u8; 16]>(column).map(Uuid::from_bytes)
}
