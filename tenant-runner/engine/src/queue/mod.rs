//! The durable queue: jobs, who holds them, and what becomes of them.
//!
//! ```text
//!            claim                 success
//!   ready ─────────────► running ─────────────► succeeded
//!     ▲  ◄──────────────   │ │ └─ last failure ─► dead       ┐
//!     │   failure, later   │ └─── cancelled ────► cancelled  ┘ retried by hand: ready again
//!     └── its process ended┘        (also straight from ready)
//! ```
//!
//! Always true here: a job is held by one lease, a boot id and a fence number, and only that lease can finish it; no timer ever
//! takes a job from a live holder; an attempt has its id on disk before it has an effect, and keeps that id when a new process
//! takes it up again; a job that waits for its concurrency key occupies no worker and is not looked at again until its key has
//! room.

mod bundle;
mod cancel;
mod claim;
mod enqueue;
mod finish;
mod handoff;
mod job;
mod keys;
mod leases;
mod memory;
mod past;
mod retry;
mod rush;
mod spec;
mod steps;
mod view;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_limits;

pub use claim::Batch;
pub use finish::{Outcome, retry_delay};
pub(crate) use handoff::Handoff;
pub use job::{AttemptId, Chain, Claimed, Enqueued, Job, JobId, JobState, Lease, NewJob, Rate, Retry, Unique};
pub(crate) use past::Past;
pub use steps::Step;
pub(crate) use view::dead_since;
pub use view::{Attempt, Counts, JobFilter, KeyView, QueueView};

use crate::bus::Bus;
use crate::error::Result;
use crate::store::{Signal, Store};
use bundle::Bundle;
use memory::Memory;
use nexaas_common::clock::SharedClock;
use nexaas_common::id::BootId;
use rush::Rush;
use std::sync::Arc;

/// Clones share one queue.
#[derive(Debug, Clone)]
pub struct Queue {
    store: Store,
    bus: Bus,
    clock: SharedClock,
    boot: BootId,
    /// Raised when a job may have become claimable.
    ready: Signal,
    memory: Arc<Memory>,
    bundle: Arc<Bundle>,
    rush: Rush,
}

impl Queue {
    /// Opens the queue for this boot and takes back, in one transaction, what other boots left running.
    pub async fn open(store: Store, bus: Bus, clock: SharedClock, boot: BootId) -> Result<Self> {
        let ready = store.signal();
        let memory = Arc::new(Memory::new(clock.clone(), ready.clone()));
        let queue = Self { store, bus, clock, boot, ready, memory, bundle: Arc::default(), rush: Rush::default() };
        let opening = queue.memory.clone();
        queue.store.read(move |c| opening.open(c)).await?;
        queue.store.join(queue.memory.clone());
        let recovered = queue.release_foreign().await?;
        if recovered > 0 {
            tracing::info!(jobs = recovered, "took up jobs that an earlier process left running");
        }
        Ok(queue)
    }

    /// Wakes when a job may have become claimable.
    pub fn ready(&self) -> &Signal {
        &self.ready
    }

    pub(crate) fn rush(&self) -> &Rush {
        &self.rush
    }

    pub(crate) fn handoff(&self) -> &Arc<Handoff> {
        &self.memory.handoff
    }
}

/// What the bus names as the origin of a job's facts.
fn source(event_id: Option<&str>) -> std::borrow::Cow<'static, str> {
    event_id.map_or("queue".into(), |id| format!("event:{id}").into())
}
