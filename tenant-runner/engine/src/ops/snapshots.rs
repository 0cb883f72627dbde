//! Snapshots: what was measured, kept so that it can be drawn. One per look, as long as looks are worth while.

use super::alerts::Alert;
use super::policy::Severity;
use super::reading::{Ended, Readings};
use crate::error::{EngineError, Result};
use crate::store::{from_micros, to_micros};
use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::{Deserialize, Serialize};

/// Figures of one moment. What could not be measured is null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    pub at: DateTime<Utc>,
    #[serde(flatten)]
    pub figures: Figures,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Figures {
    pub workers: u64,
    pub workers_alive: u64,
    pub pending_jobs: Option<u64>,
    pub running_jobs: Option<u64>,
    pub oldest_ready_s: Option<u64>,
    pub stuck_jobs: Option<u64>,
    pub failed_jobs_last_hour: Option<u64>,
    /// Since the database was made.
    pub succeeded_total: Option<u64>,
    pub failed_total: Option<u64>,
    pub database_bytes: Option<u64>,
    pub wal_bytes: Option<u64>,
    pub database_ms: Option<u64>,
    pub disk_free_bytes: Option<u64>,
    pub disk_total_bytes: Option<u64>,
    pub memory_bytes: Option<u64>,
    pub memory_limit_bytes: Option<u64>,
    pub alerts_info: u64,
    pub alerts_warning: u64,
    pub alerts_critical: u64,
}

impl Figures {
    pub(super) fn of(readings: &Readings, open: &[Alert]) -> Self {
        let (jobs, files, disk, memory) =
            (readings.jobs.known(), readings.files.known(), readings.disk.known(), readings.memory.known());
        let alerts = |severity| open.iter().filter(|alert| alert.severity == severity).count() as u64;
        Self {
            workers: readings.workers as u64,
            workers_alive: readings.workers_alive as u64,
            pending_jobs: jobs.map(|jobs| jobs.pending),
            running_jobs: jobs.map(|jobs| jobs.running),
            oldest_ready_s: jobs.and_then(|jobs| jobs.oldest_ready).map(|age| age.as_secs()),
            stuck_jobs: jobs.map(|jobs| jobs.stuck.len() as u64),
            failed_jobs_last_hour: jobs.map(|jobs| jobs.failed_last_hour),
            succeeded_total: jobs.map(|jobs| jobs.succeeded_total),
            failed_total: jobs.map(|jobs| jobs.failed_total),
            database_bytes: files.map(|files| files.database_bytes),
            wal_bytes: files.map(|files| files.wal_bytes),
            database_ms: readings.database.known().map(|took| took.as_millis() as u64),
            disk_free_bytes: disk.map(|disk| disk.free),
            disk_total_bytes: disk.map(|disk| disk.total),
            memory_bytes: memory.map(|memory| memory.used),
            memory_limit_bytes: memory.and_then(|memory| memory.limit),
            alerts_info: alerts(Severity::Info),
            alerts_warning: alerts(Severity::Warning),
            alerts_critical: alerts(Severity::Critical),
        }
    }
}

/// Two looks of the same moment (a remedy ran between them) are one snapshot.
pub(super) fn add(tx: &Connection, at: DateTime<Utc>, figures: &Figures) -> Result<()> {
    let data = serde_json::to_string(figures).map_err(EngineError::internal)?;
    tx.prepare_cached("INSERT OR REPLACE INTO ops_snapshots (at, data) VALUES (?1, ?2)")?
        .execute(params![to_micros(at), data])?;
    Ok(())
}

/// With `since`, the first ones after it; without, the latest ones. Oldest first, either way.
pub(super) fn list(connection: &Connection, since: Option<DateTime<Utc>>, limit: u32) -> Result<Vec<Snapshot>> {
    let sql = match since {
        Some(_) => "SELECT at, data FROM ops_snapshots WHERE at > ?1 ORDER BY at LIMIT ?2",
        None => {
            "SELECT at, data FROM (SELECT at, data FROM ops_snapshots WHERE ?1 IS NULL ORDER BY at DESC LIMIT ?2) ORDER BY at"
        }
    };
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![since.map(to_micros), limit])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let figures = serde_json::from_str(&row.get::<_, String>(1)?).map_err(EngineError::internal)?;
        found.push(Snapshot { at: from_micros(row.get(0)?), figures });
    }
    Ok(found)
}

/// How jobs ended since the oldest snapshot of the last hour, if there is one.
pub(super) fn ended_since(
    connection: &Connection,
    now: DateTime<Utc>,
    (succeeded, failed): (u64, u64),
) -> Result<Option<Ended>> {
    let hour_ago = to_micros(now - TimeDelta::hours(1));
    let text: Option<String> = connection
        .prepare_cached("SELECT data FROM ops_snapshots WHERE at >= ?1 AND at < ?2 ORDER BY at LIMIT 1")?
        .query_row([hour_ago, to_micros(now)], |row| row.get(0))
        .optional()?;
    let Some(text) = text else { return Ok(None) };
    let before: Figures = serde_json::from_str(&text).map_err(EngineError::internal)?;
    Ok(before.succeeded_total.zip(before.failed_total).map(|(old_succeeded, old_failed)| Ended {
        succeeded: succeeded.saturating_sub(old_succeeded),
        failed: failed.saturating_sub(old_failed),
    }))
}
