//! The calls that were taken. One table, and all of its SQL but its retention.

use crate::error::Result;
use crate::queue::JobId;
use crate::store::to_micros;
use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension as _, params};
use uuid::Uuid;

/// The job that a call was given, if it was taken before.
pub(super) fn find(tx: &Connection, event: &str, call: &str) -> Result<Option<JobId>> {
    let job: Option<[u8; 16]> = tx
        .prepare_cached("SELECT job_id FROM hook_calls WHERE event_id = ?1 AND call_id = ?2")?
        .query_row(params![event, call], |row| row.get(0))
        .optional()?;
    Ok(job.map(|bytes| JobId::from_uuid(Uuid::from_bytes(bytes))))
}

pub(super) fn note(tx: &Connection, event: &str, call: &str, job: JobId, now: DateTime<Utc>) -> Result<()> {
    tx.prepare_cached("INSERT INTO hook_calls (event_id, call_id, job_id, received_at) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![event, call, job.uuid().as_bytes(), to_micros(now)])?;
    Ok(())
}
