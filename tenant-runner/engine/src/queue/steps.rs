//! What a job of several steps has finished. A step's result is on disk before the next step begins, so that another attempt
//! goes on after it.

use super::{Claimed, JobId, Queue};
use crate::error::{EngineError, Result};
use crate::store::{from_micros, to_micros};
use chrono::{DateTime, Utc};
use rusqlite::params;
use serde::Serialize;

/// One finished step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// From 0.
    pub number: u32,
    pub name: String,
    pub result: String,
    pub finished_at: DateTime<Utc>,
}

impl Queue {
    /// Stores that step `number` of a job is done. Refused with a conflict when the lease is no longer in force.
    pub async fn save_step(&self, job: &Claimed, number: u32, name: &str, result: &str) -> Result<()> {
        let (lease, name, now) = (job.lease, name.to_owned(), to_micros(self.clock.now()));
        let result = super::finish::cut(result).to_owned();
        self.store
            .write(move |tx| {
                let held = tx
                    .prepare_cached(
                        "SELECT 1 FROM jobs WHERE seq = ?1 AND state = 'running' AND boot_id = ?2 AND fence = ?3",
                    )?
                    .exists(params![lease.seq, lease.boot.uuid().as_bytes(), lease.fence])?;
                if !held {
                    return Err(EngineError::conflict("The job is no longer held by this lease"));
                }
                tx.prepare_cached(
                    "INSERT INTO job_steps (job_seq, number, name, result, finished_at) VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT (job_seq, number) DO UPDATE SET name = ?3, result = ?4, finished_at = ?5",
                )?
                .execute(params![lease.seq, number, name, result, now])?;
                Ok(())
            })
            .await
    }

    /// The steps a job has finished, in their order.
    pub async fn steps(&self, id: JobId) -> Result<Vec<Step>> {
        self.store
            .read(move |c| {
                let mut statement = c.prepare_cached(
                    "SELECT s.number, s.name, s.result, s.finished_at FROM jobs j JOIN job_steps s ON s.job_seq = j.seq
                     WHERE j.id = ?1 ORDER BY s.number",
                )?;
                let steps = statement.query_map([id.uuid().as_bytes()], |row| {
                    Ok(Step {
                        number: row.get(0)?,
                        name: row.get(1)?,
                        result: row.get(2)?,
                        finished_at: from_micros(row.get(3)?),
                    })
                })?;
                Ok(steps.collect::<rusqlite::Result<_>>()?)
            })
            .await
    }
}
