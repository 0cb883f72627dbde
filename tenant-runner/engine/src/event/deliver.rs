//! A call from outside, as the write of `hooks` fires it.

use super::fire::Occasion;
use super::{Event, EventStatus, Events, not_found};
use crate::error::{EngineError, Result};
use crate::queue::JobId;
use crate::schedule::ConditionType;
use rusqlite::Connection;
use serde_json::Value;

impl Events {
    /// Fires an active event that waits for calls; any other does not exist for them.
    pub(crate) fn deliver_in(
        &self,
        tx: &Connection,
        id: &str,
        payload: Option<Value>,
        traceparent: Option<String>,
    ) -> Result<JobId> {
        let now = self.clock.now();
        let event = Event::load(tx, id)?
            .filter(|event| event.condition_type == ConditionType::Webhook && event.status == EventStatus::Active)
            .filter(|event| event.expires_at.is_none_or(|at| at > now))
            .ok_or_else(|| not_found(id))?;
        if let Some(at) = event.starts_at.filter(|at| *at > now) {
            return Err(EngineError::conflict(format!("Event {id} does not begin before {at}")));
        }
        self.fire(tx, &event, Occasion { payload, traceparent, ..Occasion::default() })?.asked_for(id)
    }
}
