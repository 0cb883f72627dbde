//! Ending jobs before their time.

use super::memory::{Final, Note};
use super::{JobId, JobState, Queue, source};
use crate::bus::Fact;
use crate::error::{EngineError, Result};
use crate::store::to_micros;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde_json::json;

struct Found {
    seq: i64,
    state: JobState,
    event_id: Option<String>,
    key: Option<String>,
    parked: bool,
}

impl Found {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self { seq: row.get(0)?, state: row.get(1)?, event_id: row.get(2)?, key: row.get(3)?, parked: row.get(4)? })
    }
}

impl Queue {
    /// Ends a job that waits, or asks a running one to stop; that one is `cancelled` when its action has ended.
    pub async fn cancel(&self, id: JobId) -> Result<()> {
        let queue = self.clone();
        self.store.write(move |tx| queue.cancel_in(tx, id)).await
    }

    /// `cancel` inside a write.
    pub fn cancel_in(&self, tx: &Connection, id: JobId) -> Result<()> {
        let mut memory = self.memory.within(tx)?;
        let found = tx
            .prepare_cached("SELECT seq, state, event_id, concurrency_key, parked FROM jobs WHERE id = ?1")?
            .query_row([id.uuid().as_bytes()], Found::from_row)
            .optional()?;
        let Some(Found { seq, state, event_id, key, parked }) = found else {
            return Err(EngineError::not_found(format!("job {id}")));
        };
        match state {
            JobState::Running => {
                tx.prepare_cached("UPDATE jobs SET cancelling = 1 WHERE seq = ?1")?.execute([seq])?;
                memory.notes.push(Note::Cancel(id));
                Ok(())
            }
            JobState::Ready => {
                let now = to_micros(self.clock.now());
                tx.prepare_cached(
                    "UPDATE jobs SET state = 'cancelled', parked = 0, finished_at = ?2, error = 'cancelled before it ran'
                     WHERE seq = ?1",
                )?
                .execute(params![seq, now])?;
                memory.ready -= 1;
                if let Some(key) = key.map(Into::into) {
                    if parked {
                        memory.keys.parked(&key, -1);
                    } else {
                        // It may have held the place of one that is parked.
                        memory.keys.stir(&key);
                    }
                    self.ready.raise();
                }
                memory.notes.push(Note::Ended(Final::Cancelled, 1));
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
