//! What the end of a job means for the event it came from. The queue calls this in the transaction in which the job ends.

use super::pause;
use crate::bus::Bus;
use crate::error::Result;
use crate::store::to_micros;
use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension as _, params};

/// Stored of a result or an error.
const LONGEST_TEXT: usize = 500;

/// How an attempt at a job left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Succeeded,
    /// It failed and is to run again.
    Retrying,
    /// It failed for good.
    Dead,
    Cancelled,
}

/// The end of a job, or of one attempt at it.
#[derive(Debug)]
pub(crate) struct JobEnd<'a> {
    pub event_id: &'a str,
    pub ended: Ended,
    /// What it answered, or why it failed.
    pub text: &'a str,
    pub now: DateTime<Utc>,
}

/// Counts the end in the event, if that still exists, and pauses it after too many failures in a row.
pub(crate) fn job_ended(tx: &Connection, bus: &Bus, end: &JobEnd<'_>) -> Result<()> {
    let failed = matches!(end.ended, Ended::Retrying | Ended::Dead);
    let text = &end.text[..end.text.floor_char_boundary(LONGEST_TEXT)];
    let (reset, dead) = (end.ended == Ended::Succeeded, end.ended == Ended::Dead);
    if !dead {
        // As nearly always; it spares the rules of what stays.
        tx.prepare_cached(
            "UPDATE events SET last_run_at = ?2, last_result = ?3, run_count = run_count + 1, fail_count = fail_count + ?4,
                    failures_in_row = iif(?5, 0, failures_in_row)
             WHERE id = ?1",
        )?
        .execute(params![end.event_id, to_micros(end.now), text, failed, reset])?;
        return Ok(());
    }
    // A schedule lives on after a dead job; an event that had only this one run has failed.
    let counted: Option<(u32, Option<u32>)> = tx
        .prepare_cached(
            "UPDATE events SET last_run_at = ?2, last_result = ?3, run_count = run_count + 1, fail_count = fail_count + 1,
                    status = iif(status = 'completed', 'failed', status), failures_in_row = failures_in_row + 1
             WHERE id = ?1 RETURNING failures_in_row, pause_after_failures",
        )?
        .query_row(params![end.event_id, to_micros(end.now), text], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    if let Some((failures, Some(most))) = counted
        && failures >= most
    {
        let reason = format!("{failures} jobs in a row failed for good; the last: {text}");
        pause::by_engine(tx, bus, end.event_id, &reason, failures, end.now)?;
    }
    Ok(())
}
