//! Putting jobs on the queue. A job that is due while a worker has room is held at once, in the write that stores it; a job
//! whose key is full is parked; any other waits in the order of the table.

use super::job::{Claimed, Ending, Enqueued, JobId, NewJob, Retry};
use super::keys::{Admission, Limits};
use super::memory::{Note, RunningJob};
use super::{AttemptId, Lease, Queue, source};
use crate::error::{EngineError, Result};
use crate::store::to_micros;
use chrono::{DateTime, Utc};
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, params};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Jobs that may wait; beyond it new ones are refused.
const MOST_READY: i64 = 1_000_000;
/// Keys that may differ from the usual.
const MOST_KEYS: i64 = 10_000;

/// Of a new job, what is made before the writer's turn.
pub(super) struct Prepared {
    id: JobId,
    /// Of its first attempt, should it be held at once.
    attempt_id: AttemptId,
    config: String,
    payload: Option<String>,
    retry_delays: Option<String>,
    chain: Option<String>,
}

impl Prepared {
    pub fn of(job: &NewJob) -> Result<Self> {
        let retry_delays = match &job.retry {
            Retry::Exponential { .. } => None,
            Retry::Listed(delays) => {
                let delays: Vec<u64> = delays.iter().map(|delay| millis(*delay) as u64).collect();
                Some(serde_json::to_string(&delays).map_err(EngineError::internal)?)
            }
        };
        let chain = (!job.chain.is_empty()).then(|| serde_json::to_string(&job.chain)).transpose();
        Ok(Self {
            id: JobId::generate(),
            attempt_id: AttemptId::generate(),
            config: job.action_config.to_string(),
            payload: job.payload.as_ref().map(|payload| payload.to_string()),
            retry_delays,
            chain: chain.map_err(EngineError::internal)?,
        })
    }
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Where a new job goes.
enum Place {
    /// To the workers.
    Held,
    Parked,
    Table,
}

#[derive(Serialize)]
struct Queued<'a> {
    job_id: JobId,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<&'a str>,
    action_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<&'a str>,
}

#[derive(Serialize)]
pub(super) struct Started<'a> {
    pub job_id: JobId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_id: Option<&'a str>,
    pub attempt: u32,
}

impl Queue {
    /// Puts a job on the queue; answers the id of the one that stands already, if its unique key is taken.
    pub async fn enqueue(&self, job: NewJob) -> Result<JobId> {
        Ok(self.enqueue_with(job).await?.id)
    }

    /// As `enqueue`, and says whether the job stood already.
    pub async fn enqueue_with(&self, job: NewJob) -> Result<Enqueued> {
        job.check()?;
        let prepared = Prepared::of(&job)?;
        // Several rows change when a key or a unique key comes along; then an error in between must be undone.
        if job.concurrency_limit.is_some() || job.rate.is_some() || job.unique.is_some() {
            let queue = self.clone();
            self.store.write(move |tx| queue.insert(tx, &mut insertion(tx)?, job, &prepared)).await
        } else {
            self.enqueue_bundled(job, prepared).await
        }
    }

    /// Puts many jobs on the queue in one write: all of them, or none.
    pub async fn enqueue_many(&self, jobs: Vec<NewJob>) -> Result<Vec<Enqueued>> {
        let mut checked = Vec::with_capacity(jobs.len());
        for job in jobs {
            job.check()?;
            checked.push((Prepared::of(&job)?, job));
        }
        let queue = self.clone();
        self.store
            .write(move |tx| {
                let mut insertion = insertion(tx)?;
                checked.into_iter().map(|(prepared, job)| queue.insert(tx, &mut insertion, job, &prepared)).collect()
            })
            .await
    }

    /// Puts a job on the queue inside a write.
    pub fn enqueue_in(&self, tx: &Connection, job: &NewJob) -> Result<Enqueued> {
        job.check()?;
        self.insert(tx, &mut insertion(tx)?, job.clone(), &Prepared::of(job)?)
    }

    /// Without keys and limits of its own, `job` is there as a whole or, after an error, not at all.
    pub(super) fn insert(
        &self,
        tx: &Connection,
        insertion: &mut CachedStatement<'_>,
        job: NewJob,
        prepared: &Prepared,
    ) -> Result<Enqueued> {
        let now = self.clock.now();
        if let Some(unique) = &job.unique
            && let Some(id) = standing(tx, &unique.key, now)?
        {
            return Ok(Enqueued { id, existed: true });
        }
        let mut state = self.memory.within(tx)?;
        if state.ready >= MOST_READY {
            return Err(EngineError::unavailable(format!("The queue is full: {MOST_READY} jobs are waiting")));
        }
        let key: Option<Arc<str>> = job.concurrency_key.as_deref().map(Into::into);
        if let Some(key) = &key
            && (job.concurrency_limit.is_some() || job.rate.is_some())
        {
            let known = state.keys.get(key).map(|key| key.limits).unwrap_or_default();
            let limits = Limits {
                concurrency: job.concurrency_limit.unwrap_or(known.concurrency),
                rate: job.rate.or(known.rate),
            };
            if known == Limits::default() && limits != known {
                room_for_key(tx)?;
            }
            if limits != known {
                state.set_limits(tx, key, limits, now)?;
            }
        }
        let run_at = job.run_at.unwrap_or(now);
        let due = run_at <= now;
        let place = match &key {
            _ if !due => Place::Table,
            Some(key) if state.keys.admission(key, now) != Admission::Now => Place::Parked,
            Some(key) if state.keys.get(key).is_some_and(|key| key.parked > 0) => Place::Parked,
            _ if !state.backlog && self.memory.handoff.take() => Place::Held,
            _ => Place::Table,
        };
        let held = matches!(place, Place::Held);
        let (id, attempt_id, seq) = (prepared.id, prepared.attempt_id, state.next_seq);
        state.next_seq += 1;
        let stored = insertion.execute(params![
            seq,
            id.uuid().as_bytes(),
            job.event_id,
            job.slot.map(to_micros),
            job.depth,
            job.action.as_str(),
            prepared.config,
            prepared.payload,
            job.description,
            job.agent,
            job.priority,
            job.concurrency_key,
            if held { "running" } else { "ready" },
            matches!(place, Place::Parked),
            to_micros(run_at),
            i64::from(held),
            job.max_attempts,
            match job.retry {
                Retry::Exponential { base } => millis(base),
                Retry::Listed(_) => 0,
            },
            prepared.retry_delays,
            job.timeout.map(millis),
            prepared.chain,
            held.then_some(attempt_id.uuid().as_bytes()),
            held.then_some(self.boot.uuid().as_bytes()),
            i64::from(held),
            job.traceparent,
            to_micros(now),
            held.then_some(to_micros(now)),
            job.unique.as_ref().map(|unique| &unique.key),
        ]);
        if let Err(error) = stored {
            if held {
                self.memory.handoff.change_room(1);
            }
            return Err(error.into());
        }
        if let Some(unique) = &job.unique {
            stand(tx, &unique.key, unique.period, seq, now)?;
        }
        let event_id = job.event_id.as_deref();
        let origin = source(event_id);
        let (action_type, description, agent) = (job.action.as_str(), job.description.as_deref(), job.agent.as_deref());
        self.bus.note_at(
            now,
            "job.queued",
            &origin,
            &Queued { job_id: id, event_id, action_type, description, agent },
        )?;
        match place {
            Place::Held => {
                self.bus.note_at(now, "job.started", &origin, &Started { job_id: id, event_id, attempt: 1 })?;
                state.enter(seq, RunningJob { id, started_at: to_micros(now), key: key.clone() });
                let lease = Lease { seq, boot: self.boot, fence: 1 };
                let claimed = held_at_once(job, prepared, key, (id, attempt_id, lease), now);
                state.notes.push(Note::Start(Box::new(claimed)));
            }
            Place::Parked => {
                state.ready += 1;
                if let Some(key) = &key {
                    state.keys.parked(key, 1);
                    // A rate lets it start by the clock alone: whoever waits must hear of the time.
                    self.ready.raise();
                }
            }
            Place::Table => {
                state.ready += 1;
                state.backlog |= due;
                self.ready.raise();
            }
        }
        Ok(Enqueued { id, existed: false })
    }
}

/// The statement that stores a job.
pub(super) fn insertion(tx: &Connection) -> rusqlite::Result<CachedStatement<'_>> {
    tx.prepare_cached(
        "INSERT INTO jobs (seq, id, event_id, slot, depth, action_type, action_config, payload, description, agent,
             priority, concurrency_key, state, parked, run_at, attempt, max_attempts, round_attempts, backoff_ms,
             retry_delays_ms, timeout_ms, chain, attempt_id, boot_id, fence, traceparent, created_at, started_at, unique_key)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?17, ?18, ?19, ?20, ?21,
             ?22, ?23, ?24, ?25, ?26, ?27, ?28)",
    )
}

fn held_at_once(
    job: NewJob,
    prepared: &Prepared,
    key: Option<Arc<str>>,
    (id, attempt_id, lease): (JobId, AttemptId, Lease),
    now: DateTime<Utc>,
) -> Claimed {
    Claimed {
        id,
        lease,
        attempt_id,
        attempt: 1,
        max_attempts: job.max_attempts,
        action: job.action,
        action_config: job.action_config,
        payload: job.payload,
        event_id: job.event_id,
        slot: job.slot,
        depth: job.depth,
        agent: job.agent,
        concurrency_key: key,
        timeout: job.timeout,
        traceparent: job.traceparent,
        started_at: now,
        cancel: CancellationToken::new(),
        ending: Ending { earlier: 0, retry: job.retry, chain: prepared.chain.clone(), created_at: now },
    }
}

/// The job that stands for a unique key.
pub(super) fn standing(tx: &Connection, key: &str, now: DateTime<Utc>) -> Result<Option<JobId>> {
    let found: Option<Vec<u8>> = tx
        .prepare_cached(
            "SELECT j.id FROM unique_jobs u JOIN jobs j ON j.seq = u.job_seq
             WHERE u.key = ?1 AND iif(u.expires_at IS NULL, j.finished_at IS NULL, u.expires_at > ?2)",
        )?
        .query_row(params![key, to_micros(now)], |row| row.get(0))
        .optional()?;
    Ok(found.and_then(|bytes| Uuid::from_slice(&bytes).ok()).map(JobId::from_uuid))
}

pub(super) fn stand(tx: &Connection, key: &str, period: Option<Duration>, seq: i64, now: DateTime<Utc>) -> Result<()> {
    let expires = period.map(|period| to_micros(now).saturating_add(millis(period).saturating_mul(1000)));
    tx.prepare_cached(
        "INSERT INTO unique_jobs (key, job_seq, expires_at, created_at) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (key) DO UPDATE SET job_seq = ?2, expires_at = ?3, created_at = ?4",
    )?
    .execute(params![key, seq, expires, to_micros(now)])?;
    Ok(())
}

pub(super) fn room_for_key(tx: &Connection) -> Result<()> {
    let count: i64 = tx.prepare_cached("SELECT count(*) FROM queue_keys")?.query_row([], |row| row.get(0))?;
    if count >= MOST_KEYS {
        return Err(EngineError::conflict(format!(
            "{MOST_KEYS} concurrency keys have limits of their own already; set some back first"
        )));
    }
    Ok(())
}
