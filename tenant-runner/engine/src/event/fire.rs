//! From an event to a job on the queue: what the job is made of, and what overlap allows.

use super::{Event, EventStatus, Events, Overlap, not_found};
use crate::bus::Fact;
use crate::error::{EngineError, Result};
use crate::queue::{JobId, NewJob, Retry};
use crate::schedule::Slot;
use crate::store::to_micros;
use chrono::{DateTime, Utc};
use rusqlite::Connection;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::time::Duration;

/// What makes an event fire.
#[derive(Debug, Default)]
pub(super) struct Occasion {
    pub slot: Option<Slot>,
    /// What came along: the action can refer to it.
    pub payload: Option<Value>,
    pub traceparent: Option<String>,
    /// How many jobs led to this.
    pub depth: u32,
}

/// What firing brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fired {
    Job(JobId),
    /// Nothing: a job of the event is not over, and its overlap policy is to skip.
    Overlap,
    /// Nothing new: this job stands for the same unique key.
    Unique(JobId),
}

impl Fired {
    /// As it is stored: the job, or why there is none.
    pub fn parts(self) -> (Option<[u8; 16]>, Option<&'static str>) {
        match self {
            Self::Job(id) => (Some(*id.uuid().as_bytes()), None),
            Self::Overlap => (None, Some("overlap")),
            Self::Unique(_) => (None, Some("unique")),
        }
    }

    /// The answer to somebody who asked event `id` for a job.
    pub fn asked_for(self, id: &str) -> Result<JobId> {
        match self {
            Self::Job(job) | Self::Unique(job) => Ok(job),
            Self::Overlap => Err(EngineError::conflict(format!(
                "A job of event {id} is not over yet, and the event's overlap is skip"
            ))),
        }
    }
}

impl Events {
    /// Runs the event's action now, whatever its condition says, also while it is paused.
    pub async fn trigger(&self, id: &str) -> Result<JobId> {
        self.trigger_with(id, None).await
    }

    /// As `trigger`, with what came along.
    pub async fn trigger_with(&self, id: &str, payload: Option<Value>) -> Result<JobId> {
        let (events, id) = (self.clone(), id.to_owned());
        let traceparent = nexaas_common::telemetry::current_traceparent();
        self.store
            .write(move |tx| {
                let event = Event::load(tx, &id)?.ok_or_else(|| not_found(&id))?;
                if event.status == EventStatus::Expired {
                    return Err(EngineError::conflict(format!("Event {id} has expired")));
                }
                events.fire(tx, &event, Occasion { payload, traceparent, ..Occasion::default() })?.asked_for(&id)
            })
            .await
    }

    /// Queues the event's job, as far as its overlap policy allows.
    pub(super) fn fire(&self, tx: &Connection, event: &Event, occasion: Occasion) -> Result<Fired> {
        let slot = occasion.slot;
        let job = job(event, occasion)?;
        match event.overlap {
            Overlap::Allow | Overlap::Queue => {}
            Overlap::Skip => {
                if !self.queue.live_jobs_of_event(tx, &event.id)?.is_empty() {
                    let data = json!({"id": event.id, "slot": slot, "reason": "overlap"});
                    self.bus.publish(tx, &Fact::new("event.skipped", format!("event:{}", event.id), data))?;
                    return Ok(Fired::Overlap);
                }
            }
            Overlap::CancelPrevious => {
                // What cannot be queued must not have cancelled anything.
                job.check()?;
                for (id, _) in self.queue.live_jobs_of_event(tx, &event.id)? {
                    self.queue.cancel_in(tx, id)?;
                }
            }
        }
        let queued = self.queue.enqueue_in(tx, &job)?;
        if queued.existed {
            return Ok(Fired::Unique(queued.id));
        }
        let data = json!({"id": event.id, "job_id": queued.id, "slot": slot});
        self.bus.publish(tx, &Fact::new("event.fired", format!("event:{}", event.id), data))?;
        Ok(Fired::Job(queued.id))
    }
}

/// The job that the event makes.
pub(super) fn job(event: &Event, occasion: Occasion) -> Result<NewJob> {
    let mut job = NewJob {
        payload: occasion.payload,
        event_id: Some(event.id.clone()),
        slot: occasion.slot,
        depth: occasion.depth,
        description: event.description.clone().or_else(|| Some(event.kind.clone())),
        agent: event.agent.clone(),
        priority: event.priority,
        concurrency_key: concurrency_key(event),
        run_at: occasion.slot.and_then(|slot| spread(event, slot)),
        max_attempts: event.max_retries + 1,
        retry: Retry::Exponential { base: Duration::from_secs_f64(event.retry_backoff_minutes * 60.0) },
        traceparent: occasion.traceparent,
        ..NewJob::new(event.action_type, event.action_config.clone())
    };
    if let Some(Value::Object(more)) = &event.job {
        job.read_limits(more)?;
    }
    Ok(job)
}

/// An event whose jobs must not run side by side has a key of its own, unless it names one.
pub(super) fn concurrency_key(event: &Event) -> Option<String> {
    event.concurrency_key.clone().or_else(|| match event.overlap {
        Overlap::Queue | Overlap::CancelPrevious => Some(format!("event:{}", event.id)),
        Overlap::Allow | Overlap::Skip => None,
    })
}

/// When the job of a slot is to start, if the event spreads its jobs: the same for a slot whenever it is asked.
fn spread(event: &Event, slot: Slot) -> Option<DateTime<Utc>> {
    if event.jitter_s == 0 {
        return None;
    }
    let digest = Sha256::new().chain_update(&event.id).chain_update(to_micros(slot).to_le_bytes()).finalize();
    let mut number = [0; 8];
    number.copy_from_slice(&digest[..8]);
    let late_ms = u64::from_le_bytes(number) % (u64::from(event.jitter_s) * 1000 + 1);
    slot.checked_add_signed(chrono::Duration::milliseconds(late_ms as i64))
}
