//! Leases of processes that are gone, and the live jobs of this one.

use super::{JobId, Queue, source};
use crate::bus::Fact;
use crate::error::Result;
use crate::store::to_micros;
use nexaas_common::id::BootId;
use rusqlite::{Connection, params};
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// A job whose process ended this often while it ran is taken to be the cause.
const MOST_INTERRUPTIONS: u32 = 10;

/// How to stop the jobs that run in this process. A job is entered by the write that claims it, so that whoever cancels it in
/// a later write finds it here.
#[derive(Debug, Default)]
pub(super) struct Running(Mutex<HashMap<JobId, CancellationToken>>);

impl Running {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<JobId, CancellationToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    pub(super) fn enter(&self, id: JobId) -> CancellationToken {
        let token = CancellationToken::new();
        self.lock().insert(id, token.clone());
        token
    }
    pub(super) fn leave(&self, id: JobId) {
        self.lock().remove(&id);
    }
    pub(super) fn cancel(&self, id: JobId) {
        if let Some(token) = self.lock().get(&id) {
            token.cancel();
        }
    }
}

/// Whose leases to release.
#[derive(Debug, Clone, Copy)]
enum Of {
    /// Every other boot: those processes are gone, since one process at a time opens the database.
    Others(BootId),
    /// This boot, whose workers were just stopped.
    Own(BootId),
}

impl Queue {
    /// Takes back the jobs of processes that are gone. They keep their attempt, so that whoever receives its effect twice
    /// can tell.
    pub async fn release_foreign(&self) -> Result<u64> {
        self.release(Of::Others(self.boot)).await
    }

    /// Takes back the jobs of this process after its workers were stopped.
    pub async fn release_own(&self) -> Result<u64> {
        self.release(Of::Own(self.boot)).await
    }

    async fn release(&self, of: Of) -> Result<u64> {
        let queue = self.clone();
        self.store.write(move |tx| queue.release_in(tx, of)).await
    }

    fn release_in(&self, tx: &Connection, of: Of) -> Result<u64> {
        struct Held {
            seq: i64,
            id: JobId,
            event_id: Option<String>,
            cancelling: bool,
            interruptions: u32,
        }
        let (sql, boot) = match of {
            Of::Others(boot) => ("boot_id <> ?1", boot),
            Of::Own(boot) => ("boot_id = ?1", boot),
        };
        let held: Vec<Held> = tx
            .prepare(&format!(
                "SELECT seq, id, event_id, cancelling, interruptions FROM jobs WHERE state = 'running' AND {sql}"
            ))?
            .query_map([boot.uuid().as_bytes()], |row| {
                Ok(Held {
                    seq: row.get(0)?,
                    id: JobId::from_uuid(Uuid::from_bytes(row.get(1)?)),
                    event_id: row.get(2)?,
                    cancelling: row.get(3)?,
                    interruptions: row.get(4)?,
                })
            })?
            .collect::<rusqlite::Result<_>>()?;
        let now = to_micros(self.clock.now());
        for job in &held {
            self.running.leave(job.id);
            let data = json!({"job_id": job.id, "event_id": job.event_id});
            let (state, kind, why) = if job.cancelling {
                ("cancelled", "job.cancelled", "cancelled")
            } else if job.interruptions + 1 >= MOST_INTERRUPTIONS {
                ("dead", "job.dead", "its process ended too often while it ran")
            } else {
                tx.prepare_cached(
                    "UPDATE jobs SET state = 'ready', boot_id = NULL, run_at = ?2, interruptions = interruptions + 1
                     WHERE seq = ?1",
                )?
                .execute(params![job.seq, now])?;
                self.depth.add(1);
                continue;
            };
            tx.prepare_cached(
                "UPDATE jobs SET state = ?2, boot_id = NULL, cancelling = 0, error = ?3, finished_at = ?4 WHERE seq = ?1",
            )?
            .execute(params![job.seq, state, why, now])?;
            self.bus.publish(tx, &Fact::new(kind, source(job.event_id.as_deref()), data))?;
        }
        self.ready.raise();
        Ok(held.len() as u64)
    }
}
