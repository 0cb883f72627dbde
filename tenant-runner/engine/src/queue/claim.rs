//! Taking jobs: as many as there are free workers, in one write, the most urgent first.

use super::{AttemptId, Claimed, JobId, Lease, Queue, source};
use crate::bus::Fact;
use crate::error::{EngineError, Result};
use crate::store::{from_micros, to_micros};
use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde_json::json;
use std::collections::HashSet;
use uuid::Uuid;

/// What a claim brought.
#[derive(Debug, Default)]
pub struct Batch {
    pub jobs: Vec<Claimed>,
    /// When the next waiting job is due, if workers are still free.
    pub next_due: Option<DateTime<Utc>>,
}

impl Queue {
    /// Takes up to `most` jobs for this process.
    pub async fn claim(&self, most: usize) -> Result<Batch> {
        let queue = self.clone();
        self.store.write(move |tx| queue.claim_in(tx, most)).await
    }

    fn claim_in(&self, tx: &Connection, most: usize) -> Result<Batch> {
        let now = self.clock.now();
        let mut batch = Batch::default();
        let mut busy = busy_keys(tx)?;
        let mut priority = top_priority(tx, None)?;
        // Priorities are few: within one, the index gives the jobs that are due in their order, and nothing else is read.
        while let Some(level) = priority {
            let candidates = candidates(tx, level, now, &mut busy, most - batch.jobs.len())?;
            for seq in candidates {
                batch.jobs.push(self.take(tx, seq, now)?);
            }
            if batch.jobs.len() == most {
                return Ok(batch);
            }
            if let Some(due) = next_due(tx, level, now)? {
                batch.next_due = Some(batch.next_due.map_or(due, |known| known.min(due)));
            }
            priority = top_priority(tx, Some(level))?;
        }
        Ok(batch)
    }

    fn take(&self, tx: &Connection, seq: i64, now: DateTime<Utc>) -> Result<Claimed> {
        let fresh = AttemptId::generate();
        let mut claimed = tx
            .prepare_cached(
                "UPDATE jobs SET state = 'running', boot_id = ?2, fence = fence + 1, started_at = ?3,
                        attempt = attempt + (attempt_id IS NULL), attempt_id = coalesce(attempt_id, ?4)
                 WHERE seq = ?1 AND state = 'ready'
                 RETURNING id, fence, attempt_id, attempt, max_attempts, action_type, action_config, payload, event_id, slot,
                           agent, traceparent",
            )?
            .query_row(params![seq, self.boot.uuid().as_bytes(), to_micros(now), fresh.uuid().as_bytes()], |row| {
                Ok(self.claimed(row, seq, now))
            })??;
        let data = json!({"job_id": claimed.id, "event_id": claimed.event_id, "attempt": claimed.attempt});
        self.bus.publish(tx, &Fact::new("job.started", source(claimed.event_id.as_deref()), data))?;
        self.depth.add(-1);
        claimed.cancel = self.running.enter(claimed.id);
        Ok(claimed)
    }

    fn claimed(&self, row: &Row<'_>, seq: i64, now: DateTime<Utc>) -> Result<Claimed> {
        let action: String = row.get(5)?;
        let config: String = row.get(6)?;
        let payload: Option<String> = row.get(7)?;
        Ok(Claimed {
            id: JobId::from_uuid(Uuid::from_bytes(row.get(0)?)),
            lease: Lease { seq, boot: self.boot, fence: row.get(1)? },
            attempt_id: AttemptId::from_uuid(Uuid::from_bytes(row.get(2)?)),
            attempt: row.get(3)?,
            max_attempts: row.get(4)?,
            action: action.parse()?,
            action_config: serde_json::from_str(&config).map_err(EngineError::internal)?,
            payload: payload.map(|p| serde_json::from_str(&p)).transpose().map_err(EngineError::internal)?,
            event_id: row.get(8)?,
            slot: row.get::<_, Option<i64>>(9)?.map(from_micros),
            agent: row.get(10)?,
            traceparent: row.get(11)?,
            started_at: now,
            cancel: tokio_util::sync::CancellationToken::new(),
        })
    }
}

fn busy_keys(tx: &Connection) -> Result<HashSet<String>> {
    let mut statement =
        tx.prepare_cached("SELECT concurrency_key FROM jobs WHERE state = 'running' AND concurrency_key IS NOT NULL")?;
    let keys = statement.query_map([], |row| row.get(0))?;
    Ok(keys.collect::<rusqlite::Result<_>>()?)
}

/// The most urgent level after `after` that any waiting job has.
fn top_priority(tx: &Connection, after: Option<i32>) -> Result<Option<i32>> {
    Ok(tx
        .prepare_cached("SELECT min(priority) FROM jobs WHERE state = 'ready' AND priority > ?1")?
        .query_row([after.map_or(i64::MIN, i64::from)], |row| row.get(0))?)
}

/// Due jobs of one priority whose concurrency key is free; their keys are taken from then on.
fn candidates(
    tx: &Connection,
    priority: i32,
    now: DateTime<Utc>,
    busy: &mut HashSet<String>,
    most: usize,
) -> Result<Vec<i64>> {
    let mut statement = tx.prepare_cached(
        "SELECT seq, concurrency_key FROM jobs WHERE state = 'ready' AND priority = ?1 AND run_at <= ?2 ORDER BY run_at, seq",
    )?;
    let mut rows = statement.query(params![priority, to_micros(now)])?;
    let mut found = Vec::new();
    while found.len() < most
        && let Some(row) = rows.next()?
    {
        let key: Option<String> = row.get(1)?;
        if key.is_none_or(|key| busy.insert(key)) {
            found.push(row.get(0)?);
        }
    }
    Ok(found)
}

fn next_due(tx: &Connection, priority: i32, now: DateTime<Utc>) -> Result<Option<DateTime<Utc>>> {
    let due: Option<i64> = tx
        .prepare_cached(
            "SELECT run_at FROM jobs WHERE state = 'ready' AND priority = ?1 AND run_at > ?2 ORDER BY run_at LIMIT 1",
        )?
        .query_row(params![priority, to_micros(now)], |row| row.get(0))
        .optional()?;
    Ok(due.map(from_micros))
}
