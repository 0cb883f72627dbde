//! Events: when something is to happen (`condition`) and what (`action`).
//!
//! Always true here: only a valid event is stored; a slot of a schedule and its job are stored in one transaction, once; so
//! are a fact on the bus and the job of an event that waits for it; a change of an event wakes the timer.

mod deliver;
mod draft;
mod fields;
mod fire;
mod list;
mod model;
pub(crate) mod outcome;
mod pause;
mod tick;
pub(crate) mod watch;

#[cfg(test)]
mod overlap_tests;
#[cfg(test)]
mod rules_tests;
#[cfg(test)]
mod scale_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod watch_tests;

pub use list::EventFilter;
pub use model::{Event, EventStatus, Overlap};
pub use tick::Tick;

use crate::bus::{Bus, Fact};
use crate::error::{EngineError, Result};
use crate::queue::Queue;
use crate::schedule::{Cache, ConditionType};
use crate::store::{Signal, Store};
use chrono_tz::Tz;
use draft::Context;
use nexaas_common::clock::SharedClock;
use nexaas_common::id::{Id, Kind};
use rusqlite::{Connection, OptionalExtension as _};
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;

#[doc(hidden)]
enum EventKind {}
impl Kind for EventKind {
    const NAME: &'static str = "event";
}

/// Most events of one tenant.
const MOST_EVENTS: u64 = 200_000;
/// Most active events that wait for facts on the bus: each fact is compared with all of them.
const MOST_ON_BUS: u64 = 1_000;

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
    /// Raised when an event that waits for facts has come or changed.
    watchers: Signal,
    schedules: Arc<Cache>,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    pub fn new(store: Store, bus: Bus, queue: Queue, clock: SharedClock, zone: DefaultZone) -> Self {
        let (changed, watchers) = (store.signal(), store.signal());
        Self { store, bus, queue, clock, zone, changed, watchers, schedules: Arc::default() }
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
            let count: u64 = tx.prepare_cached("SELECT events FROM event_total")?.query_row([], |row| row.get(0))?;
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
        let gone: Option<String> = tx
            .prepare_cached("DELETE FROM events WHERE id = ?1 RETURNING condition_type")?
            .query_row([id], |row| row.get(0))
            .optional()?;
        match gone {
            None => return Err(not_found(id)),
            Some(condition) if condition == ConditionType::Bus.as_str() => self.watchers.raise(),
            Some(_) => {}
        }
        self.tell(tx, "event.deleted", id, json!({"id": id})).map(|_| ())
    }

    pub(crate) fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Wakes when the earliest due time may have changed.
    pub fn changed(&self) -> &Signal {
        &self.changed
    }

    fn context<'a>(&self, id: String, before: Option<&'a Event>, patch: bool) -> Context<'a> {
        Context { id, zone: (self.zone)(), now: self.clock.now(), before, patch }
    }

    fn put(&self, tx: &Connection, before: Option<Event>, mut event: Event) -> Result<()> {
        let kind = if before.is_some() { "event.updated" } else { "event.created" };
        // Sending again what is there already is not a change.
        if before.as_ref().is_some_and(|before| Event { updated_at: before.updated_at, ..event.clone() } == *before) {
            return Ok(());
        }
        let data = json!({"id": event.id, "type": event.kind, "status": event.status,
            "next_eval_at": event.next_eval_at, "agent": event.agent, "description": event.description});
        let seq = self.tell(tx, kind, &event.id, data)?;
        let watched = before.filter(watches).map(|before| before.condition_expr);
        if watches(&event) && watched.as_ref() != Some(&event.condition_expr) {
            if watched.is_none() {
                room_on_bus(tx)?;
            }
            // It answers to what is told from now on.
            event.watch_from = Some(seq);
        }
        if watched.is_some() || watches(&event) {
            self.watchers.raise();
        }
        event.save(tx)
    }

    fn tell(&self, tx: &Connection, kind: &'static str, id: &str, data: Value) -> Result<u64> {
        let seq = self.bus.publish(tx, &Fact::new(kind, format!("event:{id}"), data))?;
        self.changed.raise();
        Ok(seq)
    }
}

/// Whether the event waits for facts on the bus now.
fn watches(event: &Event) -> bool {
    event.condition_type == ConditionType::Bus && event.status == EventStatus::Active
}

fn room_on_bus(tx: &Connection) -> Result<()> {
    let there: u64 = tx
        .prepare_cached("SELECT count(*) FROM events WHERE condition_type = 'bus' AND status = 'active'")?
        .query_row([], |row| row.get(0))?;
    if there < MOST_ON_BUS {
        return Ok(());
    }
    Err(EngineError::conflict(format!("There are {MOST_ON_BUS} active events on the bus already; pause some first")))
}

fn not_found(id: &str) -> EngineError {
    EngineError::not_found(format!("event {id}"))
}
