//! Leases of processes that are gone, or of workers that were just stopped.

use super::finish::Before;
use super::memory::{Final, Note};
use super::{JobId, Queue, source};
use crate::error::Result;
use crate::event::outcome::{Ended, JobEnd, job_ended};
use crate::store::to_micros;
use nexaas_common::id::BootId;
use rusqlite::{Connection, params};
use serde_json::json;
use std::collections::HashSet;
use uuid::Uuid;

/// A job whose process ended this often while it ran is taken to be the cause.
const MOST_INTERRUPTIONS: u32 = 10;

/// Whose leases to release.
#[derive(Debug, Clone)]
enum Of {
    /// Every other boot: those processes are gone, since one process at a time opens the database.
    Others(BootId),
    /// This boot, whose workers were just stopped. The named jobs had not been begun.
    Own(BootId, HashSet<JobId>),
    /// The named jobs of this boot, which were handed out and not begun.
    Unbegun(HashSet<JobId>),
}

struct Held {
    seq: i64,
    id: JobId,
    event_id: Option<String>,
    cancelling: bool,
    interruptions: u32,
    depth: u32,
    agent: Option<String>,
    traceparent: Option<String>,
    chain: Option<String>,
}

impl Queue {
    /// Takes back the jobs of processes that are gone. They keep their attempt, so that whoever receives its effect twice
    /// can tell.
    pub async fn release_foreign(&self) -> Result<u64> {
        self.release(Of::Others(self.boot)).await
    }

    /// Takes back the jobs of this process after its workers were stopped. What had only been handed out is no interruption.
    pub async fn release_own(&self) -> Result<u64> {
        let queue = self.clone();
        self.store
            .write(move |tx| {
                // Within the write: whatever an earlier one handed out is there by now, and nobody begins it any more.
                let unbegun = queue.memory.handoff.take_back().iter().map(|job| job.id).collect();
                queue.release_in(tx, &Of::Own(queue.boot, unbegun))
            })
            .await
    }

    /// Puts jobs back that were handed out too early.
    pub(crate) async fn put_back(&self, unbegun: HashSet<JobId>) -> Result<u64> {
        self.release(Of::Unbegun(unbegun)).await
    }

    async fn release(&self, of: Of) -> Result<u64> {
        let queue = self.clone();
        self.store.write(move |tx| queue.release_in(tx, &of)).await
    }

    fn release_in(&self, tx: &Connection, of: &Of) -> Result<u64> {
        let mut state = self.memory.within(tx)?;
        let seqs: Vec<i64> = state.running.keys().copied().collect();
        let now = self.clock.now();
        let mut released = 0;
        let mut given_up = Vec::new();
        for seq in seqs {
            let Some((held, boot)) = held(tx, seq)? else { continue };
            let (ours, unbegun) = match of {
                Of::Others(own) => (boot != *own, false),
                Of::Own(own, unbegun) => (boot == *own, unbegun.contains(&held.id)),
                Of::Unbegun(unbegun) => (unbegun.contains(&held.id), true),
            };
            if !ours {
                continue;
            }
            released += 1;
            state.leave(seq);
            let (name, kind, why, ended, total) = if held.cancelling {
                ("cancelled", "job.cancelled", "cancelled", Ended::Cancelled, Final::Cancelled)
            } else if !unbegun && held.interruptions + 1 >= MOST_INTERRUPTIONS {
                ("dead", "job.dead", "its process ended too often while it ran", Ended::Dead, Final::Dead)
            } else {
                tx.prepare_cached(
                    "UPDATE jobs SET state = 'ready', boot_id = NULL, run_at = ?2, interruptions = interruptions + ?3
                     WHERE seq = ?1",
                )?
                .execute(params![held.seq, to_micros(now), i64::from(!unbegun)])?;
                state.ready += 1;
                state.backlog = true;
                continue;
            };
            tx.prepare_cached(
                "UPDATE jobs SET state = ?2, boot_id = NULL, cancelling = 0, error = ?3, finished_at = ?4 WHERE seq = ?1",
            )?
            .execute(params![held.seq, name, why, to_micros(now)])?;
            state.notes.push(Note::Ended(total, 1));
            let data = json!({"job_id": held.id, "event_id": held.event_id, "error": why});
            self.bus.note(kind, &source(held.event_id.as_deref()), &data)?;
            if let Some(event_id) = &held.event_id {
                job_ended(tx, &self.bus, &JobEnd { event_id, ended, text: why, now })?;
            }
            if total == Final::Dead
                && let Some(chain) = held.chain
            {
                let Held { id, event_id, depth, agent, traceparent, .. } = held;
                given_up.push((Before { id, event_id, depth, agent, traceparent }, chain, why));
            }
        }
        drop(state);
        for (job, chain, why) in given_up {
            self.follow(tx, &job, &chain, Final::Dead, None, Some(why))?;
        }
        self.ready.raise();
        Ok(released)
    }
}

fn held(tx: &Connection, seq: i64) -> Result<Option<(Held, BootId)>> {
    use rusqlite::OptionalExtension as _;
    Ok(tx
        .prepare_cached(
            "SELECT id, event_id, cancelling, interruptions, boot_id, depth, agent, traceparent, chain
             FROM jobs WHERE seq = ?1 AND state = 'running'",
        )?
        .query_row([seq], |row| {
            let held = Held {
                seq,
                id: JobId::from_uuid(Uuid::from_bytes(row.get(0)?)),
                event_id: row.get(1)?,
                cancelling: row.get(2)?,
                interruptions: row.get(3)?,
                depth: row.get(5)?,
                agent: row.get(6)?,
                traceparent: row.get(7)?,
                chain: row.get(8)?,
            };
            Ok((held, BootId::from_uuid(Uuid::from_bytes(row.get(4)?))))
        })
        .optional()?)
}
