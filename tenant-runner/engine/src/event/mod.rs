//! Events: when something is to happen (`condition`) and what (`action`).
//!
//! Always true here: only a valid event is stored; a slot of a schedule and its job are stored in one transaction, once; a
//! change of an event wakes the timer.

mod draft;
mod fire;
mod model;
pub(crate) mod outcome;

#[cfg(test)]
mod tests;

pub use model::{Event, EventStatus};

use crate::bus::{Bus, Fact};
use crate::error::{EngineError, Result};
use crate::queue::{JobId, Queue};
use crate::schedule::ConditionType;
use crate::store::{Signal, Store};
use chrono_tz::Tz;
use draft::Context;
use nexaas_common::clock::SharedClock;
use nexaas_common::id::{Id, Kind};
use rusqlite::{Connection, params};
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;

#[doc(hidden)]
enum EventKind {}
impl Kind for EventKind {
    const NAME: &'static str = "event";
}

/// Most rows of one answer.
const MOST_LISTED: u32 = 1000;
/// Most events of one tenant.
const MOST_EVENTS: u64 = 10_000;

/// Which events to list.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    pub status: Option<String>,
    pub kind: Option<String>,
    pub agent: Option<String>,
    /// 100, if none.
    pub limit: Option<u32>,
}

/// What became of an upsert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Upserted {
    Created,
    Updated,
}

/// The zone of schedules that name none, which may change while the engine runs.
pub type DefaultZone = Arc<dyn Fn() -> Tz + Send + Sync>;

/// Clones share one set of events.
#[derive(Clone)]
pub struct Events {
    store: Store,
    bus: Bus,
    queue: Queue,
    clock: SharedClock,
    zone: DefaultZone,
    /// Raised when the earliest due time may have changed.
    changed: Signal,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    pub fn new(store: Store, bus: Bus, queue: Queue, clock: SharedClock, zone: DefaultZone) -> Self {
        let changed = store.signal();
        Self { store, bus, queue, clock, zone, changed }
    }

    pub async fn list(&self, filter: EventFilter) -> Result<Vec<Event>> {
        let status = filter.status.map(|text| text.parse::<EventStatus>()).transpose()?.map(EventStatus::as_str);
        let limit = filter.limit.unwrap_or(100).clamp(1, MOST_LISTED);
        self.store
            .read(move |c| {
                let mut statement = c.prepare_cached(&format!(
                    "SELECT {} FROM events
                     WHERE (?1 IS NULL OR status = ?1) AND (?2 IS NULL OR type = ?2) AND (?3 IS NULL OR agent = ?3)
                     ORDER BY next_eval_at IS NULL, next_eval_at, id LIMIT ?4",
                    Event::COLUMNS
                ))?;
                let rows = statement.query_map(params![status, filter.kind, filter.agent, limit], Event::from_row)?;
                Ok(rows.collect::<rusqlite::Result<_>>()?)
            })
            .await
    }

    pub async fn get(&self, id: &str) -> Result<Event> {
        let id = id.to_owned();
        self.store.read(move |c| Event::load(c, &id)?.ok_or_else(|| not_found(&id))).await
    }

    /// Creates the event, or replaces the one of the same id. What stays the same keeps its place in time.
    pub async fn upsert(&self, json: Value) -> Result<(String, Upserted)> {
        let events = self.clone();
        self.store.write(move |tx| events.upsert_in(tx, json)).await
    }

    /// `upsert` inside a write.
    pub fn upsert_in(&self, tx: &Connection, json: Value) -> Result<(String, Upserted)> {
        let map = draft::object(json)?;
        let id = draft::id(&map)?.unwrap_or_else(|| Id::<EventKind>::generate().to_string());
        let before = Event::load(tx, &id)?;
        if before.is_none() {
            let count: u64 = tx.query_row("SELECT count(*) FROM events", [], |row| row.get(0))?;
            if count >= MOST_EVENTS {
                return Err(EngineError::conflict(format!(
                    "There are {MOST_EVENTS} events already; delete some first"
                )));
            }
        }
        let context = self.context(id.clone(), before.as_ref(), false);
        let event = draft::read(&map, context)?;
        let outcome = if before.is_some() { Upserted::Updated } else { Upserted::Created };
        self.put(tx, before, event)?;
        Ok((id, outcome))
    }

    /// Changes the named fields and leaves the rest; null clears an optional one.
    pub async fn patch(&self, id: &str, json: Value) -> Result<Event> {
        let (events, id) = (self.clone(), id.to_owned());
        self.store
            .write(move |tx| {
                let map = draft::object(json)?;
                if draft::id(&map)?.is_some_and(|named| named != id) {
                    return Err(EngineError::invalid("id", "cannot be changed"));
                }
                let before = Event::load(tx, &id)?.ok_or_else(|| not_found(&id))?;
                let event = draft::read(&map, events.context(id, Some(&before), true))?;
                events.put(tx, Some(before), event.clone())?;
                Ok(event)
            })
            .await
    }

    pub async fn delete(&self, id: &str) -> Result<()> {
        let (events, id) = (self.clone(), id.to_owned());
        self.store.write(move |tx| events.delete_in(tx, &id)).await
    }

    /// `delete` inside a write. Jobs that were already queued run nevertheless.
    pub fn delete_in(&self, tx: &Connection, id: &str) -> Result<()> {
        if tx.execute("DELETE FROM events WHERE id = ?1", [id])? == 0 {
            return Err(not_found(id));
        }
        self.tell(tx, "event.deleted", id, json!({"id": id}))
    }

    /// Runs the event's action now, whatever its condition says.
    pub async fn trigger(&self, id: &str) -> Result<JobId> {
        self.trigger_with(id, None).await
    }

    /// As `trigger`, with what came along: the action can refer to it.
    pub async fn trigger_with(&self, id: &str, payload: Option<Value>) -> Result<JobId> {
        let (events, id) = (self.clone(), id.to_owned());
        let traceparent = nexaas_common::telemetry::current_traceparent();
        self.store
            .write(move |tx| {
                let event = Event::load(tx, &id)?.ok_or_else(|| not_found(&id))?;
                if event.status == EventStatus::Expired {
                    return Err(EngineError::conflict(format!("Event {id} has expired")));
                }
                events.fire(tx, &event, None, payload, traceparent)
            })
            .await
    }

    /// A delivery from outside: only active events that wait for one.
    pub async fn deliver(&self, id: &str, payload: Option<Value>) -> Result<JobId> {
        let event = self.get(id).await?;
        if event.condition_type != ConditionType::Webhook || event.status != EventStatus::Active {
            return Err(not_found(id));
        }
        self.trigger_with(id, payload).await
    }

    /// Wakes when the earliest due time may have changed.
    pub fn changed(&self) -> &Signal {
        &self.changed
    }

    fn context<'a>(&self, id: String, before: Option<&'a Event>, patch: bool) -> Context<'a> {
        Context { id, zone: (self.zone)(), now: self.clock.now(), before, patch }
    }

    fn put(&self, tx: &Connection, before: Option<Event>, event: Event) -> Result<()> {
        let kind = if before.is_some() { "event.updated" } else { "event.created" };
        // Sending again what is there already is not a change.
        if before.is_some_and(|before| Event { updated_at: before.updated_at, ..event.clone() } == before) {
            return Ok(());
        }
        event.save(tx)?;
        self.tell(
            tx,
            kind,
            &event.id,
            json!({"id": event.id, "type": event.kind, "status": event.status,
            "next_eval_at": event.next_eval_at, "agent": event.agent, "description": event.description}),
        )
    }

    fn tell(&self, tx: &Connection, kind: &'static str, id: &str, data: Value) -> Result<()> {
        self.bus.publish(tx, &Fact::new(kind, format!("event:{id}"), data))?;
        self.changed.raise();
        Ok(())
    }
}

fn not_found(id: &str) -> EngineError {
    EngineError::not_found(format!("event {id}"))
}
