//! Stopping an event and setting it going again: by hand, or by the engine when it does more harm than good.

use super::{Event, EventStatus, Events, not_found};
use crate::bus::{Bus, Fact};
use crate::error::{EngineError, Result};
use crate::schedule::Schedule;
use crate::store::to_micros;
use chrono::{DateTime, Utc};
use rusqlite::{Connection, params};
use serde_json::json;

impl Events {
    /// Stops an active event until it is resumed. It can still be triggered by hand.
    pub async fn pause(&self, id: &str) -> Result<Event> {
        self.change(id, |_, event| match event.status {
            EventStatus::Active | EventStatus::Paused => {
                (event.status, event.next_eval_at) = (EventStatus::Paused, None);
                Ok(())
            }
            EventStatus::Completed | EventStatus::Failed | EventStatus::Expired => Err(over(event)),
        })
        .await
    }

    /// Sets a paused event going again, or one that could not be run. Slots that passed meanwhile are not made up for.
    pub async fn resume(&self, id: &str) -> Result<Event> {
        self.change(id, |events, event| {
            let now = events.clock.now();
            match event.status {
                EventStatus::Active => return Ok(()),
                EventStatus::Paused | EventStatus::Failed => {}
                EventStatus::Completed | EventStatus::Expired => return Err(over(event)),
            }
            if event.expires_at.is_some_and(|at| at <= now) {
                return Err(EngineError::invalid("expires_at", "must lie in the future for an active event"));
            }
            let zone = (events.zone)();
            let schedule = Schedule::checked(&event.condition(), zone, now)?;
            event.status = EventStatus::Active;
            event.paused_reason = None;
            event.failures_in_row = 0;
            event.next_eval_at = schedule.first(now, event.starts_at);
            let by_default = event.next_eval_at.is_some() && event.condition().uses_default_zone();
            event.planned_zone = by_default.then(|| zone.name().to_owned());
            Ok(())
        })
        .await
    }

    async fn change(
        &self,
        id: &str,
        change: impl FnOnce(&Self, &mut Event) -> Result<()> + Send + 'static,
    ) -> Result<Event> {
        let (events, id) = (self.clone(), id.to_owned());
        self.store
            .write(move |tx| {
                let before = Event::load(tx, &id)?.ok_or_else(|| not_found(&id))?;
                let mut event = Event { updated_at: events.clock.now(), ..before.clone() };
                change(&events, &mut event)?;
                events.put(tx, Some(before), event)?;
                Event::load(tx, &id)?.ok_or_else(|| not_found(&id))
            })
            .await
    }
}

fn over(event: &Event) -> EngineError {
    EngineError::conflict(format!(
        "Event {} is {}; give it another condition to use it again",
        event.id,
        event.status.as_str()
    ))
}

/// Stops an active event for a reason that somebody must look at.
pub(super) fn by_engine(
    tx: &Connection,
    bus: &Bus,
    id: &str,
    reason: &str,
    failures: u32,
    now: DateTime<Utc>,
) -> Result<()> {
    let paused = tx
        .prepare_cached(
            "UPDATE events SET status = 'paused', next_eval_at = NULL, paused_reason = ?2, updated_at = ?3
             WHERE id = ?1 AND status = 'active'",
        )?
        .execute(params![id, reason, to_micros(now)])?;
    if paused > 0 {
        tracing::warn!(event = id, reason, "an event was paused");
        let data = json!({"id": id, "reason": reason, "failures": failures});
        bus.publish(tx, &Fact::new("event.paused", format!("event:{id}"), data))?;
    }
    Ok(())
}
