//! Ending jobs before their time.

use super::memory::{Final, Note};
use super::{JobId, JobState, Queue, source};
use crate::bus::Fact;
use crate::error::{EngineError, Result};
use crate::store::to_micros;
use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::json;

impl Queue {
    /// Ends a job that waits, or asks a running one to stop; that one is `cancelled` when its action has ended.
    pub async fn cancel(&self, id: JobId) -> Result<()> {
        let queue = self.clone();
        self.store.write(move |tx| queue.cancel_in(tx, id)).await
    }

    /// `cancel` inside a write.
    pub fn cancel_in(&self, tx: &Connection, id: JobId) -> Result<()> {
        let found: Option<(i64, JobState, Option<String>, Option<String>)> = tx
            .prepare_cached(
                "SELECT seq, state, event_id, iif(parked = 1, concurrency_key, NULL) FROM jobs WHERE id = ?1",
            )?
            .query_row([id.uuid().as_bytes()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
            .optional()?;
        let Some((seq, state, event_id, parked)) = found else {
            return Err(EngineError::not_found(format!("job {id}")));
        };
        match state {
            JobState::Running => {
                tx.prepare_cached("UPDATE jobs SET cancelling = 1 WHERE seq = ?1")?.execute([seq])?;
                self.memory.within(tx)?.notes.push(Note::Cancel(id));
                Ok(())
            }
            JobState::Ready => {
                let now = to_micros(self.clock.now());
                let mut state = self.memory.within(tx)?;
                tx.prepare_cached(
                    "UPDATE jobs SET state = 'cancelled', parked = 0, finished_at = ?2, error = 'cancelled before it ran'
                     WHERE seq = ?1",
                )?
                .execute(params![seq, now])?;
                state.ready -= 1;
                if let Some(key) = parked {
                    state.keys.parked(&key.into(), -1);
                }
                state.notes.push(Note::Ended(Final::Cancelled, 1));
                let data = json!({"job_id": id, "event_id": event_id});
                self.bus.publish(tx, &Fact::new("job.cancelled", source(event_id.as_deref()), data))?;
                Ok(())
            }
            JobState::Succeeded | JobState::Dead | JobState::Cancelled => {
                Err(EngineError::conflict(format!("Job {id} has already ended: it is {}", state.as_str())))
            }
        }
    }
}
