//! Calls from outside that fire a stored event. What runs is what the event says, never what the call says; the body only
//! becomes data that the stored action may refer to. Who may call is decided before: by a key in the event's metadata
//! (`keys.rs`, `signature.rs`), or by whoever asks on behalf of a known caller.
//!
//! Always true here: a call that its sender gave an id fires once, whatever happens in between, because the id is stored in
//! the transaction of the job; a key is shown to nobody.

mod calls;
mod keys;
mod pace;
pub mod signature;

#[cfg(test)]
mod tests;

pub use keys::{Keys, Token};
pub(crate) use keys::{settle, shown};

use crate::error::Result;
use crate::event::Events;
use crate::queue::JobId;
use crate::retention::Keep;
use crate::store::Store;
use chrono::Duration;
use nexaas_common::clock::SharedClock;
use pace::Pace;
use serde_json::Value;
use std::sync::Arc;

/// Longest id of a call, in bytes.
pub const LONGEST_CALL_ID: usize = 256;

pub(crate) const KEEP: Keep = Keep {
    table: "hook_calls",
    sql: "DELETE FROM hook_calls WHERE (event_id, call_id) IN (
              SELECT event_id, call_id FROM hook_calls WHERE received_at < :before OR received_at <= (
                  SELECT received_at FROM hook_calls ORDER BY received_at DESC LIMIT 1 OFFSET :rows)
              ORDER BY received_at LIMIT :at_once)",
    // Signed calls of Standard Webhooks are refused by age after five minutes; the others are remembered this long.
    rows: 200_000,
    age: Duration::days(30),
};

/// A call whose sender has proven itself.
#[derive(Debug)]
pub struct Call {
    pub event_id: String,
    /// How its sender names it; one without a name cannot be told from its repetition.
    pub id: Option<String>,
    pub payload: Option<Value>,
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    Fired(JobId),
    /// It was taken before, and this is the job of then.
    Repeated(JobId),
}

/// Clones share one.
#[derive(Debug, Clone)]
pub struct Hooks {
    store: Store,
    events: Events,
    clock: SharedClock,
    pace: Arc<Pace>,
}

impl Hooks {
    pub(crate) fn new(store: Store, events: Events, clock: SharedClock) -> Self {
        Self { store, events, clock, pace: Arc::default() }
    }

    /// Fires the call's event, unless it did for this call before. Only an active event that waits for calls is there.
    pub async fn deliver(&self, call: Call) -> Result<Delivered> {
        let now = self.clock.now();
        self.pace.admit(&call.event_id, now)?;
        let events = self.events.clone();
        let traceparent = nexaas_common::telemetry::current_traceparent();
        self.store
            .write(move |tx| {
                if let Some(id) = &call.id
                    && let Some(job) = calls::find(tx, &call.event_id, id)?
                {
                    return Ok(Delivered::Repeated(job));
                }
                let job = events.deliver_in(tx, &call.event_id, call.payload, traceparent)?;
                if let Some(id) = &call.id {
                    calls::note(tx, &call.event_id, id, job, now)?;
                }
                Ok(Delivered::Fired(job))
            })
            .await
    }
}
