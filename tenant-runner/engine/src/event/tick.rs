//! The scheduler's look at what is due: slots become jobs, expired events end, and the timer learns when to look again.
//!
//! Always true here: one look costs what is due and nothing else, however many events there are; it writes a bounded
//! number of events at a time, so that whoever else writes never waits for more than one such part.

use super::fire::Occasion;
use super::{Event, EventStatus, Events};
use crate::bus::Fact;
use crate::error::{Kind, Result};
use crate::schedule::{ConditionType, Slot};
use crate::store::{from_micros, to_micros};
use chrono::{DateTime, Utc};
use rusqlite::{Connection, params};
use serde_json::json;

/// Events seen to in one transaction: few enough that the first start early and that others who write wait for some
/// milliseconds only, so many that the commits in between cost little.
const AT_ONCE: u32 = 256;

const DUE: &str = "FROM events WHERE next_eval_at <= ?1 ORDER BY next_eval_at, id LIMIT ?2";
const EXPIRED: &str = "SELECT id FROM events WHERE expires_at <= ?1 AND status IN ('active', 'paused') LIMIT ?2";
const NEXT: &str = "SELECT min(at) FROM (
    SELECT min(next_eval_at) AS at FROM events WHERE next_eval_at IS NOT NULL
    UNION ALL
    SELECT min(expires_at) FROM events WHERE expires_at IS NOT NULL AND status IN ('active', 'paused'))";
const OTHER_ZONE: &str = "FROM events WHERE (planned_zone < ?1 OR planned_zone > ?1) LIMIT ?2";

/// What is asked however little is due.
#[cfg(test)]
pub(super) const QUESTIONS: &[&str] = &[
    "SELECT id FROM events WHERE next_eval_at <= ?1 ORDER BY next_eval_at, id LIMIT ?2",
    EXPIRED,
    NEXT,
    "SELECT id FROM events WHERE (planned_zone < ?1 OR planned_zone > ?1) LIMIT ?2",
    "SELECT count(*) FROM events WHERE condition_type = 'bus' AND status = 'active'",
];

/// What a look at the schedules brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tick {
    pub fired: u64,
    /// When to look again.
    pub next: Option<DateTime<Utc>>,
}

impl Events {
    /// Sees to everything that is due: expires what has expired, queues what is to run, and says when to look again.
    pub async fn tick(&self) -> Result<Tick> {
        let (mut fired, mut most) = (0, AT_ONCE);
        let _over = self.queue.rush().over();
        loop {
            let events = self.clone();
            match self.store.write(move |tx| events.tick_in(tx, most)).await {
                Ok(tick) => {
                    fired += tick.fired;
                    if tick.next.is_none_or(|next| next > self.clock.now()) {
                        return Ok(Tick { fired, next: tick.next });
                    }
                }
                // The queue may have room for some of them.
                Err(error) if error.kind == Kind::Unavailable && most > 1 => most = 1,
                Err(error) => return Err(error),
            }
        }
    }

    fn tick_in(&self, tx: &Connection, most: u32) -> Result<Tick> {
        let now = self.clock.now();
        self.expire(tx, now)?;
        let due: Vec<Event> = tx
            .prepare_cached(&format!("SELECT {} {DUE}", Event::COLUMNS))?
            .query_map(params![to_micros(now), most], Event::from_row)?
            .collect::<rusqlite::Result<_>>()?;
        if due.len() == most as usize {
            self.queue.rush().begin();
        }
        let mut fired = 0;
        for event in &due {
            fired += self.advance(tx, event, now)?;
        }
        let next: Option<i64> = tx.prepare_cached(NEXT)?.query_row([], |row| row.get(0))?;
        Ok(Tick { fired, next: next.map(from_micros) })
    }

    fn expire(&self, tx: &Connection, now: DateTime<Utc>) -> Result<()> {
        let expired: Vec<String> = tx
            .prepare_cached(EXPIRED)?
            .query_map(params![to_micros(now), AT_ONCE], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        if !expired.is_empty() {
            self.watchers.raise();
        }
        for id in expired {
            tx.prepare_cached(
                "UPDATE events SET status = 'expired', next_eval_at = NULL, paused_reason = NULL, updated_at = ?2 WHERE id = ?1",
            )?
            .execute(params![id, to_micros(now)])?;
            let data = json!({"id": id, "status": EventStatus::Expired});
            self.bus.publish(tx, &Fact::new("event.updated", format!("event:{id}"), data))?;
        }
        Ok(())
    }

    /// Queues the slots of `event` that are due and moves it on to its next one.
    fn advance(&self, tx: &Connection, event: &Event, now: DateTime<Utc>) -> Result<u64> {
        let Some(expected) = event.next_eval_at else { return Ok(0) };
        // More expired at once than one part takes; this one's turn comes.
        if event.expires_at.is_some_and(|at| at <= now) {
            self.move_on(tx, event, None, event.status, now)?;
            return Ok(0);
        }
        let schedule = match self.schedules.get(&event.condition(), (self.zone)()) {
            Ok(schedule) => schedule,
            Err(error) => return self.set_aside(tx, event, error.public(), now).map(|()| 0),
        };
        let due = schedule.due(expected, now);
        let mut fired = 0;
        for slot in due.slots {
            match self.fill(tx, event, slot) {
                Ok(filled) => fired += u64::from(filled),
                // What cannot be queued now stays due only if the queue is full; anything else is the event's own fault.
                Err(error) if error.kind == Kind::Unavailable => return Err(error),
                Err(error) => return self.set_aside(tx, event, error.public(), now).map(|()| fired),
            }
        }
        let status = match (due.next, event.condition_type) {
            (None, ConditionType::Once) => EventStatus::Completed,
            _ => event.status,
        };
        self.move_on(tx, event, due.next, status, now)?;
        Ok(fired)
    }

    fn move_on(
        &self,
        tx: &Connection,
        event: &Event,
        next: Option<Slot>,
        status: EventStatus,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let zone = event.planned_zone.is_some().then(|| (self.zone)().name());
        if status == event.status && zone == event.planned_zone.as_deref() {
            // As nearly always; it spares the rules and indices of what stays.
            tx.prepare_cached("UPDATE events SET next_eval_at = ?2, updated_at = ?3 WHERE number = ?1")?
                .execute(params![event.number, next.map(to_micros), to_micros(now)])?;
            return Ok(());
        }
        tx.prepare_cached(
            "UPDATE events SET next_eval_at = ?2, status = ?3, planned_zone = ?4, updated_at = ?5 WHERE number = ?1",
        )?
        .execute(params![event.number, next.map(to_micros), status.as_str(), zone, to_micros(now)])?;
        Ok(())
    }

    /// Queues the job of `slot`, unless that slot was filled before.
    fn fill(&self, tx: &Connection, event: &Event, slot: Slot) -> Result<bool> {
        let taken = tx
            .prepare_cached("SELECT 1 FROM slots WHERE slot = ?1 AND event = ?2")?
            .exists(params![to_micros(slot), event.number])?;
        if taken {
            return Ok(false);
        }
        let (job, outcome) = self.fire(tx, event, Occasion { slot: Some(slot), ..Occasion::default() })?.parts();
        tx.prepare_cached("INSERT INTO slots (slot, event, job_id, outcome) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![to_micros(slot), event.number, job, outcome])?;
        Ok(job.is_some())
    }

    /// An event that can no longer be understood stops, and says why.
    pub(super) fn set_aside(&self, tx: &Connection, event: &Event, why: &str, now: DateTime<Utc>) -> Result<()> {
        tx.prepare_cached(
            "UPDATE events SET status = 'failed', next_eval_at = NULL, last_result = ?2, updated_at = ?3 WHERE id = ?1",
        )?
        .execute(params![event.id, why, to_micros(now)])?;
        let data = json!({"id": event.id, "status": EventStatus::Failed, "error": why});
        self.bus.publish(tx, &Fact::new("event.updated", format!("event:{}", event.id), data))?;
        Ok(())
    }

    /// Plans anew every schedule that leaves its zone to the default and was planned in another one.
    pub async fn replan_default_zone(&self) -> Result<()> {
        loop {
            let events = self.clone();
            let planned = self.store.write(move |tx| events.replan_in(tx)).await?;
            if planned < AT_ONCE as usize {
                return Ok(());
            }
        }
    }

    fn replan_in(&self, tx: &Connection) -> Result<usize> {
        let (now, zone) = (self.clock.now(), (self.zone)());
        let elsewhere: Vec<Event> = tx
            .prepare_cached(&format!("SELECT {} {OTHER_ZONE}", Event::COLUMNS))?
            .query_map(params![zone.name(), AT_ONCE], Event::from_row)?
            .collect::<rusqlite::Result<_>>()?;
        for event in &elsewhere {
            let by_default = event.condition().uses_default_zone();
            // What is due already is due in whatever zone it was planned.
            let next = match event.next_eval_at {
                Some(at) if at > now && by_default => {
                    self.schedules.get(&event.condition(), zone)?.first(now, event.starts_at)
                }
                other => other,
            };
            tx.prepare_cached("UPDATE events SET next_eval_at = ?2, planned_zone = ?3 WHERE number = ?1")?
                .execute(params![event.number, next.map(to_micros), by_default.then(|| zone.name())])?;
        }
        if !elsewhere.is_empty() {
            self.changed.raise();
        }
        Ok(elsewhere.len())
    }
}
