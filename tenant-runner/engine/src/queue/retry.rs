//! Bringing jobs back that have ended badly. It is the same job again, with a fresh round of attempts; what its steps have
//! finished stays finished.

use super::memory::{Final, Note};
use super::{JobId, JobState, Queue, source};
use crate::bus::Fact;
use crate::error::{EngineError, Result};
use crate::store::to_micros;
use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::json;
use uuid::Uuid;

/// Jobs brought back in one write.
const AT_ONCE: u64 = 500;

impl Queue {
    /// Queues a dead or cancelled job again, at once.
    pub async fn retry(&self, id: JobId) -> Result<()> {
        let queue = self.clone();
        self.store.write(move |tx| queue.retry_in(tx, id)).await
    }

    /// Queues up to `most` dead jobs again, the longest dead first; answers how many.
    pub async fn retry_dead(&self, most: u64) -> Result<u64> {
        let mut done = 0;
        while done < most {
            let (queue, now) = (self.clone(), AT_ONCE.min(most - done));
            let count = self.store.write(move |tx| queue.retry_some(tx, now)).await?;
            done += count;
            if count < now {
                break;
            }
        }
        Ok(done)
    }

    fn retry_some(&self, tx: &Connection, most: u64) -> Result<u64> {
        let ids: Vec<[u8; 16]> = tx
            .prepare_cached("SELECT id FROM jobs WHERE state = 'dead' ORDER BY finished_at LIMIT ?1")?
            .query_map([most], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        for id in &ids {
            self.retry_in(tx, JobId::from_uuid(Uuid::from_bytes(*id)))?;
        }
        Ok(ids.len() as u64)
    }

    fn retry_in(&self, tx: &Connection, id: JobId) -> Result<()> {
        let found: Option<(i64, JobState, Option<String>)> = tx
            .prepare_cached("SELECT seq, state, event_id FROM jobs WHERE id = ?1")?
            .query_row([id.uuid().as_bytes()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let Some((seq, before, event_id)) = found else { return Err(EngineError::not_found(format!("job {id}"))) };
        let ended = match before {
            JobState::Dead => Final::Dead,
            JobState::Cancelled => Final::Cancelled,
            JobState::Ready | JobState::Running | JobState::Succeeded => {
                return Err(EngineError::conflict(format!(
                    "Only a dead or cancelled job can be retried; job {id} is {}",
                    before.as_str()
                )));
            }
        };
        let mut state = self.memory.within(tx)?;
        tx.prepare_cached(
            "UPDATE jobs SET state = 'ready', run_at = ?2, max_attempts = attempt + round_attempts, attempt_id = NULL,
                    interruptions = 0, finished_at = NULL, started_at = NULL
             WHERE seq = ?1",
        )?
        .execute(params![seq, to_micros(self.clock.now())])?;
        state.ready += 1;
        state.backlog = true;
        state.notes.push(Note::Ended(ended, -1));
        let data = json!({"job_id": id, "event_id": event_id, "was": before.as_str()});
        self.bus.publish(tx, &Fact::new("job.retried", source(event_id.as_deref()), data))?;
        self.ready.raise();
        Ok(())
    }
}
