//! From a slot that is due to a job on the queue, in one transaction.

use super::{Event, EventStatus, Events};
use crate::bus::Fact;
use crate::error::Result;
use crate::queue::{JobId, NewJob};
use crate::schedule::{ConditionType, Schedule, Slot};
use crate::store::{from_micros, to_micros};
use chrono::{DateTime, Utc};
use rusqlite::{Connection, params};
use serde_json::{Value, json};
use std::time::Duration;

/// Events seen to in one transaction.
const AT_ONCE: u32 = 500;

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
        let mut fired = 0;
        loop {
            let events = self.clone();
            let tick = self.store.write(move |tx| events.tick_in(tx)).await?;
            fired += tick.fired;
            if tick.next.is_none_or(|next| next > self.clock.now()) {
                return Ok(Tick { fired, next: tick.next });
            }
        }
    }

    fn tick_in(&self, tx: &Connection) -> Result<Tick> {
        let now = self.clock.now();
        self.expire(tx, now)?;
        let due: Vec<Event> = tx
            .prepare_cached(&format!(
                "SELECT {} FROM events WHERE next_eval_at <= ?1 ORDER BY next_eval_at LIMIT {AT_ONCE}",
                Event::COLUMNS
            ))?
            .query_map([to_micros(now)], Event::from_row)?
            .collect::<rusqlite::Result<_>>()?;
        let mut fired = 0;
        for event in &due {
            fired += self.advance(tx, event, now)?;
        }
        let next: Option<i64> = tx
            .prepare_cached(
                "SELECT min(at) FROM (
                     SELECT min(next_eval_at) AS at FROM events WHERE next_eval_at IS NOT NULL
                     UNION ALL
                     SELECT min(expires_at) FROM events WHERE expires_at IS NOT NULL AND status IN ('active', 'paused'))",
            )?
            .query_row([], |row| row.get(0))?;
        Ok(Tick { fired, next: next.map(from_micros) })
    }

    fn expire(&self, tx: &Connection, now: DateTime<Utc>) -> Result<()> {
        let expired: Vec<String> = tx
            .prepare_cached(
                "UPDATE events SET status = 'expired', next_eval_at = NULL, updated_at = ?1
                 WHERE expires_at <= ?1 AND status IN ('active', 'paused') RETURNING id",
            )?
            .query_map([to_micros(now)], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        for id in expired {
            self.bus.publish(
                tx,
                &Fact::new("event.updated", format!("event:{id}"), json!({"id": id, "status": EventStatus::Expired})),
            )?;
        }
        Ok(())
    }

    /// Queues the slots of `event` that are due and moves it on to its next one.
    fn advance(&self, tx: &Connection, event: &Event, now: DateTime<Utc>) -> Result<u64> {
        let Some(expected) = event.next_eval_at else { return Ok(0) };
        let schedule = match Schedule::parse(event.condition_type, &event.condition_expr, (self.zone)(), now) {
            Ok(schedule) => schedule,
            Err(error) => return self.set_aside(tx, event, error.public(), now).map(|()| 0),
        };
        let due = schedule.due(expected, now);
        let mut fired = 0;
        for slot in due.slots {
            match self.fill(tx, event, slot) {
                Ok(filled) => fired += u64::from(filled),
                // What cannot be queued now stays due only if the queue is full; anything else is the event's own fault.
                Err(error) if error.kind == crate::error::Kind::Unavailable => return Err(error),
                Err(error) => return self.set_aside(tx, event, error.public(), now).map(|()| fired),
            }
        }
        let status = match (due.next, event.condition_type) {
            (None, ConditionType::Once) => EventStatus::Completed,
            _ => event.status,
        };
        tx.prepare_cached("UPDATE events SET next_eval_at = ?2, status = ?3, updated_at = ?4 WHERE id = ?1")?
            .execute(params![event.id, due.next.map(to_micros), status.as_str(), to_micros(now)])?;
        Ok(fired)
    }

    /// Queues the job of `slot`, unless that slot was filled before.
    fn fill(&self, tx: &Connection, event: &Event, slot: Slot) -> Result<bool> {
        let taken = tx
            .prepare_cached("SELECT 1 FROM slots WHERE event_id = ?1 AND slot = ?2")?
            .exists(params![event.id, to_micros(slot)])?;
        if taken {
            return Ok(false);
        }
        let job = self.fire(tx, event, Some(slot), None, None)?;
        tx.prepare_cached("INSERT INTO slots (event_id, slot, job_id) VALUES (?1, ?2, ?3)")?.execute(params![
            event.id,
            to_micros(slot),
            job.uuid().as_bytes()
        ])?;
        Ok(true)
    }

    /// An event that can no longer be understood stops, and says why.
    fn set_aside(&self, tx: &Connection, event: &Event, why: &str, now: DateTime<Utc>) -> Result<()> {
        tx.prepare_cached(
            "UPDATE events SET status = 'failed', next_eval_at = NULL, last_result = ?2, updated_at = ?3 WHERE id = ?1",
        )?
        .execute(params![event.id, why, to_micros(now)])?;
        let data = json!({"id": event.id, "status": EventStatus::Failed, "error": why});
        self.bus.publish(tx, &Fact::new("event.updated", format!("event:{}", event.id), data))?;
        Ok(())
    }

    pub(super) fn fire(
        &self,
        tx: &Connection,
        event: &Event,
        slot: Option<Slot>,
        payload: Option<Value>,
        traceparent: Option<String>,
    ) -> Result<JobId> {
        let job = NewJob {
            payload,
            event_id: Some(event.id.clone()),
            slot,
            description: event.description.clone().or_else(|| Some(event.kind.clone())),
            agent: event.agent.clone(),
            priority: event.priority,
            concurrency_key: event.concurrency_key.clone(),
            max_attempts: event.max_retries + 1,
            backoff: Duration::from_secs_f64(event.retry_backoff_minutes * 60.0),
            traceparent,
            ..NewJob::new(event.action_type, event.action_config.clone())
        };
        let id = self.queue.enqueue_in(tx, &job)?;
        let data = json!({"id": event.id, "job_id": id, "slot": slot});
        self.bus.publish(tx, &Fact::new("event.fired", format!("event:{}", event.id), data))?;
        Ok(id)
    }

    /// Plans anew every schedule that leaves its zone to the default, after that has changed.
    pub async fn replan_default_zone(&self) -> Result<()> {
        let events = self.clone();
        self.store
            .write(move |tx| {
                let now = events.clock.now();
                let planned: Vec<Event> = tx
                    .prepare_cached(&format!(
                        "SELECT {} FROM events WHERE condition_type = 'cron' AND next_eval_at > ?1",
                        Event::COLUMNS
                    ))?
                    .query_map([to_micros(now)], Event::from_row)?
                    .collect::<rusqlite::Result<_>>()?;
                for event in planned {
                    if !Schedule::uses_default_zone(event.condition_type, &event.condition_expr) {
                        continue;
                    }
                    let schedule = Schedule::parse(event.condition_type, &event.condition_expr, (events.zone)(), now)?;
                    tx.prepare_cached("UPDATE events SET next_eval_at = ?2 WHERE id = ?1")?
                        .execute(params![event.id, schedule.first(now).map(to_micros)])?;
                }
                events.changed.raise();
                Ok(())
            })
            .await
    }
}
