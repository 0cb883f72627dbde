//! The shape of an event, as it is stored and shown.

use crate::action::ActionType;
use crate::error::EngineError;
use crate::schedule::ConditionType;
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

/// A schedule or trigger, with what it does and how that went.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub condition_type: ConditionType,
    pub condition_expr: String,
    pub next_eval_at: Option<DateTime<Utc>>,
    pub action_type: ActionType,
    pub action_config: Value,
    pub status: EventStatus,
    /// Lower runs first; 5 is the usual.
    pub priority: i32,
    pub concurrency_key: Option<String>,
    pub max_retries: u32,
    pub retry_backoff_minutes: f64,
    pub expires_at: Option<DateTime<Utc>>,
    pub workspace: Option<String>,
    pub agent: Option<String>,
    pub client: Option<String>,
    pub description: Option<String>,
    pub metadata: Option<Value>,
    pub last_run_at: Option<DateTime<Utc>>,
    pub last_result: Option<String>,
    pub run_count: u64,
    pub fail_count: u64,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl Event {
    pub(super) const COLUMNS: &'static str = "id, type, condition_type, condition_expr, next_eval_at, action_type, action_config, \
         status, priority, concurrency_key, max_retries, retry_backoff_minutes, expires_at, workspace, agent, client, \
         description, metadata, last_run_at, last_result, run_count, fail_count, created_at, updated_at";

    pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let time = |column: usize| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(column)?.map(from_micros));
        Ok(Self {
            id: row.get(0)?,
            kind: row.get(1)?,
            condition_type: parsed(row, 2)?,
            condition_expr: row.get(3)?,
            next_eval_at: time(4)?,
            action_type: parsed(row, 5)?,
            action_config: json(&row.get::<_, String>(6)?, 6)?,
            status: parsed(row, 7)?,
            priority: row.get(8)?,
            concurrency_key: row.get(9)?,
            max_retries: row.get(10)?,
            retry_backoff_minutes: row.get(11)?,
            expires_at: time(12)?,
            workspace: row.get(13)?,
            agent: row.get(14)?,
            client: row.get(15)?,
            description: row.get(16)?,
            metadata: row.get::<_, Option<String>>(17)?.map(|text| json(&text, 17)).transpose()?,
            last_run_at: time(18)?,
            last_result: row.get(19)?,
            run_count: row.get(20)?,
            fail_count: row.get(21)?,
            created_at: from_micros(row.get(22)?),
            updated_at: from_micros(row.get(23)?),
        })
    }

    pub(super) fn load(connection: &Connection, id: &str) -> Result<Option<Self>, EngineError> {
        Ok(connection
            .prepare_cached(&format!("SELECT {} FROM events WHERE id = ?1", Self::COLUMNS))?
            .query_row([id], Self::from_row)
            .optional()?)
    }

    /// Stores everything but the counters, which belong to the queue.
    pub(super) fn save(&self, tx: &Connection) -> Result<(), EngineError> {
        tx.prepare_cached(
            "INSERT INTO events (id, type, condition_type, condition_expr, next_eval_at, action_type, action_config, status,
                 priority, concurrency_key, max_retries, retry_backoff_minutes, expires_at, workspace, agent, client,
                 description, metadata, created_at, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)
             ON CONFLICT (id) DO UPDATE SET type = ?2, condition_type = ?3, condition_expr = ?4, next_eval_at = ?5,
                 action_type = ?6, action_config = ?7, status = ?8, priority = ?9, concurrency_key = ?10, max_retries = ?11,
                 retry_backoff_minutes = ?12, expires_at = ?13, workspace = ?14, agent = ?15, client = ?16, description = ?17,
                 metadata = ?18, updated_at = ?20",
        )?
        .execute(params![
            self.id,
            self.kind,
            self.condition_type.as_str(),
            self.condition_expr,
            self.next_eval_at.map(to_micros),
            self.action_type.as_str(),
            self.action_config.to_string(),
            self.status.as_str(),
            self.priority,
            self.concurrency_key,
            self.max_retries,
            self.retry_backoff_minutes,
            self.expires_at.map(to_micros),
            self.workspace,
            self.agent,
            self.client,
            self.description,
            self.metadata.as_ref().map(|m| m.to_string()),
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
