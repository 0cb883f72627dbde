//! Jobs that are said to have run before this workspace existed: the history of a demo. They are written as ended and never
//! were anything else.

use super::job::{AttemptId, JobId};
use super::memory::{Final, Note};
use super::{JobState, Queue};
use crate::error::{EngineError, Result};
use crate::store::to_micros;
use chrono::{DateTime, Utc};
use rusqlite::{Connection, params};

/// A job of the past.
#[derive(Debug)]
pub(crate) struct Past {
    pub event_id: Option<String>,
    pub action_type: String,
    pub action_config: String,
    pub description: Option<String>,
    pub agent: Option<String>,
    /// One of the final ones.
    pub state: JobState,
    pub attempts: u32,
    pub result: Option<String>,
    pub error: Option<String>,
    pub started_at: DateTime<Utc>,
    pub finished_at: DateTime<Utc>,
}

impl Queue {
    /// Writes a job of the past, inside a write.
    pub(crate) fn plant(&self, tx: &Connection, past: &Past) -> Result<()> {
        let ended = match past.state {
            JobState::Succeeded => Final::Succeeded,
            JobState::Dead => Final::Dead,
            JobState::Cancelled => Final::Cancelled,
            JobState::Ready | JobState::Running => return Err(EngineError::internal("a past job has ended")),
        };
        let (started, finished) = (to_micros(past.started_at), to_micros(past.finished_at));
        let mut state = self.memory.within(tx)?;
        let seq = state.next_seq;
        state.next_seq += 1;
        tx.prepare_cached(
            "INSERT INTO jobs (seq, id, event_id, action_type, action_config, description, agent, priority, state, run_at,
                 attempt, max_attempts, round_attempts, backoff_ms, result, error, created_at, started_at, finished_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 5, ?8, ?9, ?10, ?10, ?10, 0, ?11, ?12, ?9, ?9, ?13)",
        )?
        .execute(params![
            seq,
            JobId::generate().uuid().as_bytes(),
            past.event_id,
            past.action_type,
            past.action_config,
            past.description,
            past.agent,
            past.state.as_str(),
            started,
            past.attempts,
            past.result,
            past.error,
            finished,
        ])?;
        for number in 1..=past.attempts {
            let outcome = match (number == past.attempts, past.state) {
                (true, JobState::Succeeded) => "succeeded",
                (true, JobState::Cancelled) => "cancelled",
                _ => "failed",
            };
            let id = AttemptId::generate();
            tx.prepare_cached(
                "INSERT INTO attempts (job_seq, number, id, outcome, detail, started_at, finished_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                seq,
                number,
                id.uuid().as_bytes(),
                outcome,
                past.error,
                started,
                finished
            ])?;
        }
        state.notes.push(Note::Ended(ended, 1));
        Ok(())
    }
}
