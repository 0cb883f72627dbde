//! Taking jobs from the table: as many as there is room for, in one write, the most urgent first.

use super::enqueue::Started;
use super::job::Ending;
use super::keys::Admission;
use super::memory::{Note, RunningJob, State};
use super::{AttemptId, Claimed, JobId, Lease, Queue, Retry, source};
use crate::error::{EngineError, Result};
use crate::store::{from_micros, to_micros};
use chrono::{DateTime, Utc};
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, Row, params};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Jobs that one write takes, at most.
const AT_ONCE: usize = 512;

/// What a claim brought.
#[derive(Debug, Default)]
pub struct Batch {
    pub jobs: Vec<Claimed>,
    /// When the next waiting job is due, if all that is due now was taken.
    pub next_due: Option<DateTime<Utc>>,
}

impl Queue {
    /// Takes up to `most` jobs for the caller.
    pub async fn claim(&self, most: usize) -> Result<Batch> {
        let queue = self.clone();
        self.store
            .write(move |tx| {
                let batch = queue.claim_in(tx, most)?;
                let mut state = queue.memory.within(tx)?;
                state.notes.extend(batch.jobs.iter().map(|job| Note::Enter(job.id, job.cancel.clone())));
                Ok(batch)
            })
            .await
    }

    /// Gives the workers as many jobs as they have room for; answers when the next one is due, if none is due now.
    pub(crate) async fn feed(&self) -> Result<Option<DateTime<Utc>>> {
        let queue = self.clone();
        self.store
            .write(move |tx| {
                let room = queue.memory.handoff.room_to_look().min(AT_ONCE);
                if room == 0 {
                    return Ok(None);
                }
                let batch = queue.claim_in(tx, room)?;
                let mut state = queue.memory.within(tx)?;
                for job in batch.jobs {
                    queue.memory.handoff.change_room(-1);
                    state.notes.push(Note::Start(Box::new(job)));
                }
                Ok(batch.next_due)
            })
            .await
    }

    fn claim_in(&self, tx: &Connection, most: usize) -> Result<Batch> {
        let now = self.clock.now();
        let mut state = self.memory.within(tx)?;
        let paced = unpark(tx, &mut state, now)?;
        let mut batch = Batch { jobs: Vec::new(), next_due: paced };
        let mut priority = top_priority(tx, None)?;
        // Priorities are few: within one, the index gives the jobs that are due in their order, and nothing else is read.
        while let Some(level) = priority {
            let mut taking = taking(tx)?;
            for job in candidates(tx, &mut state, level, now, most - batch.jobs.len())? {
                batch.jobs.push(self.take(&mut taking, &mut state, job, now)?);
            }
            if batch.jobs.len() == most {
                state.backlog = true;
                batch.next_due = None;
                return Ok(batch);
            }
            if let Some(due) = next_due(tx, level, now)? {
                batch.next_due = Some(batch.next_due.map_or(due, |known| known.min(due)));
            }
            priority = top_priority(tx, Some(level))?;
        }
        state.backlog = false;
        if let Some(at) = state.keys.next_start(now) {
            batch.next_due = Some(batch.next_due.map_or(at, |known| known.min(at)));
        }
        Ok(batch)
    }

    fn take(
        &self,
        taking: &mut CachedStatement<'_>,
        state: &mut State,
        mut claimed: Claimed,
        now: DateTime<Utc>,
    ) -> Result<Claimed> {
        taking.execute(params![
            claimed.lease.seq,
            self.boot.uuid().as_bytes(),
            claimed.lease.fence,
            to_micros(now),
            claimed.attempt,
            claimed.attempt_id.uuid().as_bytes()
        ])?;
        claimed.lease.boot = self.boot;
        let event_id = claimed.event_id.as_deref();
        let started = Started { job_id: claimed.id, event_id, attempt: claimed.attempt };
        self.bus.note_at(now, "job.started", &source(event_id), &started)?;
        state.ready -= 1;
        Ok(claimed)
    }
}

/// The statement that takes a job.
fn taking(tx: &Connection) -> rusqlite::Result<CachedStatement<'_>> {
    tx.prepare_cached(
        "UPDATE jobs SET state = 'running', boot_id = ?2, fence = ?3, started_at = ?4, attempt = ?5, attempt_id = ?6
         WHERE seq = ?1",
    )
}

/// Puts parked jobs back in their place as far as their keys have room again; answers when the next may start by the clock.
fn unpark(tx: &Connection, state: &mut State, now: DateTime<Utc>) -> Result<Option<DateTime<Utc>>> {
    let (awake, next) = state.keys.awake(now);
    for (name, room) in awake {
        let mut unpark = tx.prepare_cached(
            "UPDATE jobs SET parked = 0 WHERE seq IN (
                 SELECT seq FROM jobs WHERE parked = 1 AND concurrency_key = ?1 AND run_at <= ?3
                 ORDER BY priority, run_at, seq LIMIT ?2)",
        )?;
        let mut moved = unpark.execute(params![&*name, room, to_micros(now)])?;
        if moved < room as usize {
            // Those that are left were due before the clock was set back; in their place they wait for their time.
            moved += unpark.execute(params![&*name, room as usize - moved, i64::MAX])?;
        }
        state.keys.parked(&name, -(moved as i64));
        state.backlog |= moved > 0;
    }
    Ok(next)
}

/// The most urgent level after `after` that any waiting job has.
fn top_priority(tx: &Connection, after: Option<i32>) -> Result<Option<i32>> {
    Ok(tx
        .prepare_cached("SELECT min(priority) FROM jobs WHERE state = 'ready' AND parked = 0 AND priority > ?1")?
        .query_row([after.map_or(i64::MIN, i64::from)], |row| row.get(0))?)
}

/// Due jobs of one priority whose keys admit them, and have counted them; those whose keys are full are parked.
fn candidates(
    tx: &Connection,
    state: &mut State,
    priority: i32,
    now: DateTime<Utc>,
    most: usize,
) -> Result<Vec<Claimed>> {
    let (mut found, mut blocked) = (Vec::new(), Vec::new());
    {
        let mut statement = tx.prepare_cached(
            "SELECT seq, id, fence, attempt, attempt_id, max_attempts, round_attempts, action_type, action_config, payload,
                    event_id, slot, depth, agent, concurrency_key, timeout_ms, traceparent, backoff_ms, retry_delays_ms, chain,
                    created_at
             FROM jobs WHERE state = 'ready' AND parked = 0 AND priority = ?1 AND run_at <= ?2 ORDER BY run_at, seq",
        )?;
        let mut rows = statement.query(params![priority, to_micros(now)])?;
        while found.len() < most
            && let Some(row) = rows.next()?
        {
            let key: Option<Arc<str>> = row.get::<_, Option<String>>(14)?.map(Into::into);
            match key {
                Some(key) if state.keys.admission(&key, now) != Admission::Now => {
                    blocked.push((row.get::<_, i64>(0)?, key))
                }
                key => {
                    let claimed = read(row, key.clone(), now)?;
                    // Counted at once, so that the next of its key finds it there.
                    state.enter(claimed.lease.seq, RunningJob { id: claimed.id, started_at: to_micros(now), key });
                    found.push(claimed);
                }
            }
        }
    }
    for (seq, key) in blocked {
        tx.prepare_cached("UPDATE jobs SET parked = 1 WHERE seq = ?1")?.execute([seq])?;
        state.keys.parked(&key, 1);
    }
    Ok(found)
}

fn read(row: &Row<'_>, key: Option<Arc<str>>, now: DateTime<Utc>) -> Result<Claimed> {
    let json = |text: String| serde_json::from_str(&text).map_err(EngineError::internal);
    // An attempt that an ended process left behind goes on under its id; any other is a new one.
    let left_behind: Option<[u8; 16]> = row.get(4)?;
    let (before, max_attempts, round): (u32, u32, u32) = (row.get(3)?, row.get(5)?, row.get(6)?);
    let action: String = row.get(7)?;
    let delays: Option<String> = row.get(18)?;
    let retry = match delays {
        None => Retry::Exponential { base: Duration::from_millis(row.get(17)?) },
        Some(text) => {
            let delays: Vec<u64> = serde_json::from_str(&text).map_err(EngineError::internal)?;
            Retry::Listed(delays.into_iter().map(Duration::from_millis).collect())
        }
    };
    Ok(Claimed {
        id: JobId::from_uuid(super::job::uuid(row, 1)?),
        // The boot is set by whoever takes it.
        lease: Lease {
            seq: row.get(0)?,
            boot: nexaas_common::id::BootId::from_uuid(Uuid::nil()),
            fence: row.get::<_, i64>(2)? + 1,
        },
        attempt_id: left_behind.map_or_else(AttemptId::generate, |id| AttemptId::from_uuid(Uuid::from_bytes(id))),
        attempt: before + u32::from(left_behind.is_none()),
        max_attempts,
        action: action.parse()?,
        action_config: json(row.get(8)?)?,
        payload: row.get::<_, Option<String>>(9)?.map(json).transpose()?,
        event_id: row.get(10)?,
        slot: row.get::<_, Option<i64>>(11)?.map(from_micros),
        depth: row.get(12)?,
        agent: row.get(13)?,
        concurrency_key: key,
        timeout: row.get::<_, Option<u64>>(15)?.map(Duration::from_millis),
        traceparent: row.get(16)?,
        started_at: now,
        cancel: CancellationToken::new(),
        ending: Ending {
            earlier: max_attempts.saturating_sub(round),
            retry,
            chain: row.get(19)?,
            created_at: from_micros(row.get(20)?),
        },
    })
}

fn next_due(tx: &Connection, priority: i32, now: DateTime<Utc>) -> Result<Option<DateTime<Utc>>> {
    let due: Option<i64> = tx
        .prepare_cached(
            "SELECT run_at FROM jobs WHERE state = 'ready' AND parked = 0 AND priority = ?1 AND run_at > ?2
             ORDER BY run_at LIMIT 1",
        )?
        .query_row(params![priority, to_micros(now)], |row| row.get(0))
        .optional()?;
    Ok(due.map(from_micros))
}
