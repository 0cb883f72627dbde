//! Bringing jobs back that have ended badly. It is the same job again, with a fresh round of attempts; what its steps have
//! finished stays finished.

use super::enqueue::{stand, standing};
use super::memory::{Final, Note};
use super::{JobId, JobState, Queue, source};
use crate::bus::Fact;
use crate::error::{EngineError, Kind, Result};
use crate::store::to_micros;
use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::json;

/// Jobs brought back in one write.
const AT_ONCE: usize = 500;
const MOST_AT_ONCE: u64 = 10_000;

impl Queue {
    /// Queues a dead or cancelled job again, at once.
    pub async fn retry(&self, id: JobId) -> Result<()> {
        let queue = self.clone();
        self.store.write(move |tx| queue.retry_in(tx, id)).await
    }

    /// Queues up to `most` dead jobs again, the longest dead first; answers how many. Those for whose unique key another job
    /// stands are left out.
    pub async fn retry_dead(&self, most: u64) -> Result<u64> {
        let most = most.min(MOST_AT_ONCE);
        let dead: Vec<JobId> = self
            .store
            .read(move |c| {
                let mut statement =
                    c.prepare_cached("SELECT id FROM jobs WHERE state = 'dead' ORDER BY finished_at LIMIT ?1")?;
                let ids = statement.query_map([most], |row| super::job::uuid(row, 0).map(JobId::from_uuid))?;
                Ok(ids.collect::<rusqlite::Result<_>>()?)
            })
            .await?;
        let mut retried = 0;
        for some in dead.chunks(AT_ONCE) {
            let (queue, some) = (self.clone(), some.to_vec());
            retried += self.store.write(move |tx| queue.retry_some(tx, &some)).await?;
        }
        Ok(retried)
    }

    fn retry_some(&self, tx: &Connection, some: &[JobId]) -> Result<u64> {
        let mut retried = 0;
        for id in some {
            match self.retry_in(tx, *id) {
                Ok(()) => retried += 1,
                // Somebody was quicker, or another job stands in its place.
                Err(error) if matches!(error.kind, Kind::Conflict | Kind::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(retried)
    }

    fn retry_in(&self, tx: &Connection, id: JobId) -> Result<()> {
        let found: Option<(i64, JobState, Option<String>, Option<String>)> = tx
            .prepare_cached("SELECT seq, state, event_id, unique_key FROM jobs WHERE id = ?1")?
            .query_row([id.uuid().as_bytes()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
            .optional()?;
        let Some((seq, before, event_id, unique_key)) = found else {
            return Err(EngineError::not_found(format!("job {id}")));
        };
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
        let now = self.clock.now();
        if let Some(key) = &unique_key {
            if let Some(other) = standing(tx, key, now)?.filter(|other| *other != id) {
                return Err(EngineError::conflict(format!("Job {other} stands for the same unique key")));
            }
            stand(tx, key, None, seq, now)?;
        }
        let mut state = self.memory.within(tx)?;
        tx.prepare_cached(
            "UPDATE jobs SET state = 'ready', run_at = ?2, max_attempts = attempt + round_attempts, attempt_id = NULL,
                    interruptions = 0, finished_at = NULL, started_at = NULL
             WHERE seq = ?1",
        )?
        .execute(params![seq, to_micros(now)])?;
        state.ready += 1;
        state.backlog = true;
        state.notes.push(Note::Ended(ended, -1));
        let data = json!({"job_id": id, "event_id": event_id, "was": before.as_str()});
        self.bus.publish(tx, &Fact::new("job.retried", source(event_id.as_deref()), data))?;
        self.ready.raise();
        Ok(())
    }
}
