//! How an attempt ends, and what that means for its job and its event.

use super::{Claimed, JobId, Lease, Queue, source};
use crate::bus::Fact;
use crate::error::{EngineError, Result};
use crate::event::outcome::{Ended, JobEnd, job_ended};
use crate::store::to_micros;
use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::json;
use std::time::Duration;
use uuid::Uuid;

/// Longest wait between two attempts.
const LONGEST_BACKOFF: Duration = Duration::from_secs(24 * 3600);
/// Stored of a result or an error; the rest is cut off.
const LONGEST_TEXT: usize = 64 * 1024;

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Succeeded(String),
    /// `permanent`: another attempt cannot do better.
    Failed {
        error: String,
        permanent: bool,
    },
    /// It stopped because it was asked to.
    Cancelled,
}

/// The wait after failed attempt `attempt` (1 is the first): `base`, doubled each time, at most a day.
pub fn retry_delay(base: Duration, attempt: u32) -> Duration {
    let factor = 2u32.checked_pow(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
    base.checked_mul(factor).unwrap_or(LONGEST_BACKOFF).min(LONGEST_BACKOFF)
}

/// What the job becomes.
enum Verdict {
    Succeeded,
    Again { at: DateTime<Utc> },
    Dead,
    Cancelled,
}

struct Held {
    id: JobId,
    event_id: Option<String>,
    action: String,
    attempt_id: [u8; 16],
    attempt: u32,
    max_attempts: u32,
    backoff: Duration,
    cancelling: bool,
    started_at: i64,
}

impl Queue {
    /// Ends the attempt that `job` is. Refused with a conflict when its lease is no longer the one in force.
    pub async fn finish(&self, job: &Claimed, outcome: Outcome) -> Result<()> {
        let (queue, lease) = (self.clone(), job.lease);
        self.store.write(move |tx| queue.finish_in(tx, lease, &outcome)).await?;
        self.running.leave(job.id);
        Ok(())
    }

    fn finish_in(&self, tx: &Connection, lease: Lease, outcome: &Outcome) -> Result<()> {
        let Some(held) = held(tx, lease)? else {
            return Err(EngineError::conflict("The job is no longer held by this lease; its late end is not counted"));
        };
        let now = self.clock.now();
        let verdict = verdict(outcome, &held, now);
        let (attempt_outcome, text) = match outcome {
            Outcome::Succeeded(result) => ("succeeded", Some(cut(result))),
            Outcome::Failed { error, .. } => ("failed", Some(cut(error))),
            Outcome::Cancelled => ("cancelled", None),
        };
        tx.prepare_cached(
            "INSERT INTO attempts (job_seq, number, id, outcome, detail, started_at, finished_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            lease.seq,
            held.attempt,
            held.attempt_id,
            attempt_outcome,
            matches!(outcome, Outcome::Failed { .. }).then_some(text).flatten(),
            held.started_at,
            to_micros(now)
        ])?;
        let (result, error) = match outcome {
            Outcome::Succeeded(_) => (text, None),
            Outcome::Failed { .. } => (None, text),
            Outcome::Cancelled => (None, Some("cancelled")),
        };
        let (state, kind, again) = match &verdict {
            Verdict::Succeeded => ("succeeded", "job.succeeded", None),
            Verdict::Again { at } => ("ready", "job.failed", Some(to_micros(*at))),
            Verdict::Dead => ("dead", "job.dead", None),
            Verdict::Cancelled => ("cancelled", "job.cancelled", None),
        };
        tx.prepare_cached(
            "UPDATE jobs SET state = ?2, boot_id = NULL, attempt_id = NULL, interruptions = 0, cancelling = 0, result = ?3,
                    error = ?4, run_at = coalesce(?5, run_at), finished_at = iif(?5 IS NULL, ?6, NULL)
             WHERE seq = ?1",
        )?
        .execute(params![lease.seq, state, result, error, again, to_micros(now)])?;
        if let Some(event_id) = &held.event_id {
            let ended = match verdict {
                Verdict::Succeeded => Ended::Succeeded,
                Verdict::Again { .. } => Ended::Retrying,
                Verdict::Dead => Ended::Dead,
                Verdict::Cancelled => Ended::Cancelled,
            };
            job_ended(tx, &self.bus, &JobEnd { event_id, ended, text: text.unwrap_or("cancelled"), now })?;
        }
        let data = json!({
            "job_id": held.id, "event_id": held.event_id, "action_type": held.action, "attempt": held.attempt,
            "error": error.map(excerpt), "result": result.map(excerpt),
            "retry_at": match &verdict { Verdict::Again { at } => Some(at), _ => None },
        });
        self.bus.publish(tx, &Fact::new(kind, source(held.event_id.as_deref()), data))?;
        if again.is_some() {
            self.depth.add(1);
        }
        // Also when the job is over: another may have waited for its concurrency key.
        self.ready.raise();
        Ok(())
    }
}

fn verdict(outcome: &Outcome, held: &Held, now: DateTime<Utc>) -> Verdict {
    match outcome {
        // The effect has happened, whatever was asked meanwhile.
        Outcome::Succeeded(_) => Verdict::Succeeded,
        Outcome::Cancelled => Verdict::Cancelled,
        Outcome::Failed { .. } if held.cancelling => Verdict::Cancelled,
        Outcome::Failed { permanent: true, .. } => Verdict::Dead,
        Outcome::Failed { .. } if held.attempt >= held.max_attempts => Verdict::Dead,
        Outcome::Failed { .. } => Verdict::Again { at: now + retry_delay(held.backoff, held.attempt) },
    }
}

fn held(tx: &Connection, lease: Lease) -> Result<Option<Held>> {
    Ok(tx
        .prepare_cached(
            "SELECT id, event_id, action_type, attempt_id, attempt, max_attempts, backoff_s, cancelling, started_at
             FROM jobs WHERE seq = ?1 AND state = 'running' AND boot_id = ?2 AND fence = ?3",
        )?
        .query_row(params![lease.seq, lease.boot.uuid().as_bytes(), lease.fence], |row| {
            Ok(Held {
                id: JobId::from_uuid(Uuid::from_bytes(row.get(0)?)),
                event_id: row.get(1)?,
                action: row.get(2)?,
                attempt_id: row.get(3)?,
                attempt: row.get(4)?,
                max_attempts: row.get(5)?,
                backoff: Duration::from_secs(row.get(6)?),
                cancelling: row.get(7)?,
                started_at: row.get(8)?,
            })
        })
        .optional()?)
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST_TEXT)]
}

fn excerpt(text: &str) -> &str {
    &text[..text.floor_char_boundary(500)]
}
