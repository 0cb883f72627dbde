//! The durable queue: jobs, who holds them, and what becomes of them.
//!
//! ```text
//!            claim                 success
//!   ready ─────────────► running ─────────────► succeeded
//!     ▲  ◄──────────────   │ │ └─ last failure ─► dead
//!     │   failure, later   │ └─── cancelled ────► cancelled   (also straight from ready)
//!     └── its process ended┘
//! ```
//!
//! Always true here: a job is held by one lease, a boot id and a fence number, and only that lease can finish it; no timer ever
//! takes a job from a live holder; an attempt has its id on disk before it has an effect, and keeps that id when a new process
//! takes it up again; a job that waits for its concurrency key occupies no worker.

mod claim;
mod finish;
mod job;
mod leases;
mod view;

#[cfg(test)]
mod tests;

pub use claim::Batch;
pub use finish::{Outcome, retry_delay};
pub use job::{AttemptId, Claimed, Job, JobId, JobState, Lease, NewJob};
pub(crate) use view::counts;
pub use view::{Counts, QueueView};

use crate::bus::{Bus, Fact};
use crate::error::{EngineError, Result};
use crate::store::{Signal, Store, to_micros};
use leases::Running;
use nexaas_common::clock::SharedClock;
use nexaas_common::id::BootId;
use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// Jobs that may wait; beyond it new ones are refused.
const MOST_READY: i64 = 100_000;

/// How many jobs wait, kept without counting. An undone write may leave it off by a little, so it only decides when to count.
#[derive(Debug, Default)]
struct Depth(AtomicI64);

impl Depth {
    fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
    fn add(&self, change: i64) {
        let depth = self.0.fetch_add(change, Ordering::Relaxed) + change;
        metrics::gauge!("nexaas_queue_depth").set(depth as f64);
    }
    fn recount(&self, connection: &Connection) -> Result<i64> {
        let depth =
            connection.query_row("SELECT count(*) FROM jobs WHERE state = 'ready'", [], |row| row.get::<_, i64>(0))?;
        self.0.store(depth, Ordering::Relaxed);
        Ok(depth)
    }
}

/// Clones share one queue.
#[derive(Debug, Clone)]
pub struct Queue {
    store: Store,
    bus: Bus,
    clock: SharedClock,
    boot: BootId,
    /// Raised when a job may have become claimable.
    ready: Signal,
    running: Arc<Running>,
    depth: Arc<Depth>,
}

impl Queue {
    /// Opens the queue for this boot and takes back, in one transaction, what other boots left running.
    pub async fn open(store: Store, bus: Bus, clock: SharedClock, boot: BootId) -> Result<Self> {
        let ready = store.signal();
        let queue = Self { store, bus, clock, boot, ready, running: Arc::default(), depth: Arc::default() };
        let recovered = queue.release_foreign().await?;
        if recovered > 0 {
            tracing::info!(jobs = recovered, "took up jobs that an earlier process left running");
        }
        let depth = queue.depth.clone();
        queue.store.read(move |c| depth.recount(c)).await?;
        Ok(queue)
    }

    /// Puts a job on the queue.
    pub async fn enqueue(&self, job: NewJob) -> Result<JobId> {
        let queue = self.clone();
        self.store.write(move |tx| queue.enqueue_in(tx, &job)).await
    }

    /// Puts a job on the queue inside a write.
    pub fn enqueue_in(&self, tx: &Connection, job: &NewJob) -> Result<JobId> {
        job.check()?;
        if self.depth.get() >= MOST_READY && self.depth.recount(tx)? >= MOST_READY {
            return Err(EngineError::unavailable(format!("The queue is full: {MOST_READY} jobs are waiting")));
        }
        let id = JobId::generate();
        let now = self.clock.now();
        tx.prepare_cached(
            "INSERT INTO jobs (id, event_id, slot, action_type, action_config, payload, description, agent, priority,
                               concurrency_key, state, run_at, max_attempts, backoff_s, traceparent, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 'ready', ?11, ?12, ?13, ?14, ?15)",
        )?
        .execute(params![
            id.uuid().as_bytes(),
            job.event_id,
            job.slot.map(to_micros),
            job.action.as_str(),
            job.action_config.to_string(),
            job.payload.as_ref().map(|p| p.to_string()),
            job.description,
            job.agent,
            job.priority,
            job.concurrency_key,
            to_micros(job.run_at.unwrap_or(now)),
            job.max_attempts,
            i64::try_from(job.backoff.as_secs()).unwrap_or(i64::MAX),
            job.traceparent,
            to_micros(now),
        ])?;
        let data = json!({"job_id": id, "event_id": job.event_id, "action_type": job.action.as_str(),
                          "description": job.description, "agent": job.agent});
        self.bus.publish(tx, &Fact::new("job.queued", source(job.event_id.as_deref()), data))?;
        self.depth.add(1);
        self.ready.raise();
        Ok(id)
    }

    /// Ends a job that waits, or asks a running one to stop; that one is `cancelled` when its action has ended.
    pub async fn cancel(&self, id: JobId) -> Result<()> {
        let queue = self.clone();
        let asked = self.store.write(move |tx| queue.cancel_in(tx, id)).await?;
        if asked {
            self.running.cancel(id);
        }
        Ok(())
    }

    /// Whether a running job must still be asked.
    fn cancel_in(&self, tx: &Connection, id: JobId) -> Result<bool> {
        let found: Option<(i64, JobState, Option<String>)> = tx
            .prepare_cached("SELECT seq, state, event_id FROM jobs WHERE id = ?1")?
            .query_row([id.uuid().as_bytes()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let Some((seq, state, event_id)) = found else { return Err(EngineError::not_found(format!("job {id}"))) };
        match state {
            JobState::Running => {
                tx.execute("UPDATE jobs SET cancelling = 1 WHERE seq = ?1", [seq])?;
                Ok(true)
            }
            JobState::Ready => {
                tx.execute(
                    "UPDATE jobs SET state = 'cancelled', finished_at = ?2, error = 'cancelled before it ran' WHERE seq = ?1",
                    params![seq, to_micros(self.clock.now())],
                )?;
                let data = json!({"job_id": id, "event_id": event_id});
                self.bus.publish(tx, &Fact::new("job.cancelled", source(event_id.as_deref()), data))?;
                self.depth.add(-1);
                Ok(false)
            }
            JobState::Succeeded | JobState::Dead | JobState::Cancelled => {
                Err(EngineError::conflict(format!("Job {id} has already ended: it is {}", state.as_str())))
            }
        }
    }

    /// Wakes when a job may have become claimable.
    pub fn ready(&self) -> &Signal {
        &self.ready
    }
}

/// What the bus names as the origin of a job's facts.
fn source(event_id: Option<&str>) -> String {
    event_id.map_or_else(|| "queue".to_owned(), |id| format!("event:{id}"))
}
