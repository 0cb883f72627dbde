//! How an attempt ends, and what that means for its job, its event and the jobs that follow it.

use super::job::{Chain, Ending};
use super::memory::{Final, Note};
use super::{Claimed, JobId, NewJob, Queue, Retry, source};
use crate::error::{EngineError, Kind, Result};
use crate::event::outcome::{Ended, JobEnd, job_ended};
use crate::store::to_micros;
use chrono::{DateTime, Utc};
use rusqlite::{CachedStatement, Connection, params};
use serde::Serialize;
use serde_json::{Value, json};
use std::time::Duration;

/// Longest wait between two attempts.
const LONGEST_BACKOFF: Duration = Duration::from_secs(24 * 3600);
/// Stored of a result or an error; the rest is cut off.
const LONGEST_TEXT: usize = 64 * 1024;

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Succeeded(String),
    Failed {
        error: String,
        /// Another attempt cannot do better.
        permanent: bool,
        /// Whoever refused asked to be left alone for so long.
        retry_after: Option<Duration>,
    },
    /// It stopped because it was asked to.
    Cancelled,
}

impl Outcome {
    /// A failure that another attempt may mend.
    pub fn failed(error: impl Into<String>) -> Self {
        Self::Failed { error: error.into(), permanent: false, retry_after: None }
    }
}

/// The wait after failed attempt `attempt` (1 is the first): `base`, doubled each time, at most a day.
pub fn retry_delay(base: Duration, attempt: u32) -> Duration {
    let factor = 2u32.checked_pow(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
    base.checked_mul(factor).unwrap_or(LONGEST_BACKOFF).min(LONGEST_BACKOFF)
}

impl Retry {
    /// The wait after failed attempt `attempt` of a round. `spread`, 0 to 255, lengthens a growing wait by up to a fifth, so
    /// that jobs that failed together do not come back together.
    pub fn delay(&self, attempt: u32, spread: u8) -> Duration {
        match self {
            Self::Exponential { base } => {
                retry_delay(*base, attempt).mul_f64(1.0 + 0.2 * f64::from(spread) / 255.0).min(LONGEST_BACKOFF)
            }
            Self::Listed(delays) => {
                let at = (attempt.max(1) as usize - 1).min(delays.len().saturating_sub(1));
                delays.get(at).copied().unwrap_or_default()
            }
        }
    }
}

/// What the job becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Succeeded,
    Again { at: DateTime<Utc> },
    Dead,
    Cancelled,
}

#[derive(Serialize)]
struct Told<'a> {
    job_id: JobId,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<&'a str>,
    action_type: &'static str,
    attempt: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_at: Option<DateTime<Utc>>,
    depth: u32,
}

impl Queue {
    /// Ends the attempt that `job` is. Refused with a conflict when its lease is no longer the one in force.
    pub async fn finish(&self, job: &Claimed, outcome: Outcome) -> Result<()> {
        let (queue, job) = (self.clone(), job.clone());
        self.store.write(move |tx| queue.finish_in(tx, &mut ending(tx)?, &job, &outcome)).await
    }

    /// Ends many attempts in one write; answers those whose lease is no longer in force, whose end is not counted.
    pub(crate) async fn finish_many(&self, ended: std::sync::Arc<Vec<(Claimed, Outcome)>>) -> Result<Vec<JobId>> {
        let queue = self.clone();
        self.store
            .write(move |tx| {
                let (mut late, mut ending) = (Vec::new(), ending(tx)?);
                for (job, outcome) in ended.iter() {
                    match queue.finish_in(tx, &mut ending, job, outcome) {
                        Ok(()) => {}
                        Err(error) if error.kind == Kind::Conflict => late.push(job.id),
                        Err(error) => return Err(error),
                    }
                }
                Ok(late)
            })
            .await
    }

    fn finish_in(
        &self,
        tx: &Connection,
        ending: &mut CachedStatement<'_>,
        job: &Claimed,
        outcome: &Outcome,
    ) -> Result<()> {
        let now = self.clock.now();
        // Known before anything changes: what is counted below is counted once.
        drop(self.memory.within(tx)?);
        let verdict = self.verdict(tx, job, outcome, now)?;
        let (result, error) = match outcome {
            Outcome::Succeeded(result) => (Some(cut(result)), None),
            Outcome::Failed { error, .. } => (None, Some(cut(error))),
            Outcome::Cancelled => (None, Some("cancelled")),
        };
        let changed = match verdict {
            Verdict::Again { at } => tx
                .prepare_cached(
                    "UPDATE jobs SET state = 'ready', boot_id = NULL, attempt_id = NULL, interruptions = 0, cancelling = 0,
                            error = ?4, run_at = ?5
                     WHERE seq = ?1 AND state = 'running' AND boot_id = ?2 AND fence = ?3",
                )?
                .execute(params![
                    job.lease.seq,
                    job.lease.boot.uuid().as_bytes(),
                    job.lease.fence,
                    error,
                    to_micros(at)
                ])?,
            Verdict::Succeeded | Verdict::Dead | Verdict::Cancelled => ending.execute(params![
                job.lease.seq,
                job.lease.boot.uuid().as_bytes(),
                job.lease.fence,
                state_after(verdict),
                result,
                error,
                to_micros(now)
            ])?,
        };
        if changed == 0 {
            return Err(EngineError::conflict("The job is no longer held by this lease; its late end is not counted"));
        }
        // A first attempt that succeeds is told by the job's own row.
        if verdict != Verdict::Succeeded || job.attempt > 1 {
            record_attempt(tx, job, outcome, error, now)?;
        }
        {
            let mut state = self.memory.within(tx)?;
            state.leave(job.lease.seq);
            match verdict {
                Verdict::Succeeded => state.notes.push(Note::Ended(Final::Succeeded, 1)),
                Verdict::Dead => state.notes.push(Note::Ended(Final::Dead, 1)),
                Verdict::Cancelled => state.notes.push(Note::Ended(Final::Cancelled, 1)),
                Verdict::Again { at } => {
                    state.ready += 1;
                    state.backlog |= at <= now;
                }
            }
            // Others may have waited for its key, or it waits itself.
            if job.concurrency_key.is_some() || matches!(verdict, Verdict::Again { .. }) {
                self.ready.raise();
            }
        }
        let event_id = job.event_id.as_deref();
        let told = Told {
            job_id: job.id,
            event_id,
            action_type: job.action.as_str(),
            attempt: job.attempt,
            error: error.map(excerpt),
            result: result.map(excerpt),
            retry_at: match verdict {
                Verdict::Again { at } => Some(at),
                _ => None,
            },
            depth: job.depth,
        };
        self.bus.note_at(now, fact(verdict), &source(event_id), &told)?;
        if let Some(event_id) = event_id {
            let ended = match verdict {
                Verdict::Succeeded => Ended::Succeeded,
                Verdict::Again { .. } => Ended::Retrying,
                Verdict::Dead => Ended::Dead,
                Verdict::Cancelled => Ended::Cancelled,
            };
            let text = result.or(error).map(excerpt).unwrap_or_default();
            job_ended(tx, &self.bus, &JobEnd { event_id, ended, text, now })?;
        }
        if let Some(chain) = &job.ending.chain {
            let how = match verdict {
                Verdict::Succeeded => Some(Final::Succeeded),
                Verdict::Dead => Some(Final::Dead),
                Verdict::Again { .. } | Verdict::Cancelled => None,
            };
            let before = Before {
                id: job.id,
                event_id: job.event_id.clone(),
                depth: job.depth,
                agent: job.agent.clone(),
                traceparent: job.traceparent.clone(),
            };
            if let Some(how) = how {
                self.follow(tx, &before, chain, how, result, error)?;
            }
        }
        metrics::histogram!("nexaas_job_age_seconds").record((now - job.ending.created_at).as_seconds_f64());
        Ok(())
    }

    fn verdict(&self, tx: &Connection, job: &Claimed, outcome: &Outcome, now: DateTime<Utc>) -> Result<Verdict> {
        let Outcome::Failed { permanent, retry_after, .. } = outcome else {
            // The effect of a success has happened, whatever was asked meanwhile.
            return Ok(if *outcome == Outcome::Cancelled { Verdict::Cancelled } else { Verdict::Succeeded });
        };
        let cancelling =
            tx.prepare_cached("SELECT 1 FROM jobs WHERE seq = ?1 AND cancelling = 1")?.exists([job.lease.seq])?;
        if cancelling {
            return Ok(Verdict::Cancelled);
        }
        if *permanent || job.attempt >= job.max_attempts {
            return Ok(Verdict::Dead);
        }
        let Ending { earlier, retry, .. } = &job.ending;
        let spread = spread(job.lease.seq, job.attempt);
        let wait = retry.delay(job.attempt.saturating_sub(*earlier), spread);
        Ok(Verdict::Again { at: now + wait.max(retry_after.unwrap_or_default().min(LONGEST_BACKOFF)) })
    }

    /// Queues what follows a job: in the transaction of its end, hence once.
    pub(super) fn follow(
        &self,
        tx: &Connection,
        job: &Before,
        chain: &str,
        ending: Final,
        result: Option<&str>,
        error: Option<&str>,
    ) -> Result<()> {
        let now = self.clock.now();
        let chain: Chain = serde_json::from_str(chain).map_err(EngineError::internal)?;
        let specs = match ending {
            Final::Succeeded => chain.then,
            Final::Dead => chain.on_failure,
            Final::Cancelled => return Ok(()),
        };
        for spec in specs {
            let mut next = NewJob::from_json(&spec, now)?;
            let before = json!({"job_id": job.id, "result": result.map(as_json), "error": error});
            next.payload = Some(match next.payload {
                None => before,
                Some(Value::Object(mut own)) => {
                    own.insert("previous".to_owned(), before);
                    Value::Object(own)
                }
                Some(own) => json!({"value": own, "previous": before}),
            });
            next.depth = job.depth + 1;
            next.event_id = job.event_id.clone();
            next.traceparent = job.traceparent.clone();
            next.agent = next.agent.or_else(|| job.agent.clone());
            match self.enqueue_in(tx, &next) {
                Ok(_) => {}
                // The end of the job itself stands; what cannot follow is told.
                Err(refused) if matches!(refused.kind, Kind::Invalid { .. } | Kind::Conflict) => {
                    let data = json!({"job_id": job.id, "event_id": job.event_id, "error": refused.public()});
                    self.bus.note("job.chain_refused", &source(job.event_id.as_deref()), &data)?;
                    tracing::warn!(job_id = %job.id, why = refused.public(), "a job that was to follow was refused");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Of a job that has ended, what its followers take over.
pub(super) struct Before {
    pub id: JobId,
    pub event_id: Option<String>,
    pub depth: u32,
    pub agent: Option<String>,
    pub traceparent: Option<String>,
}

/// A number that is the same for an attempt whenever it is asked.
fn spread(seq: i64, attempt: u32) -> u8 {
    let mut mixed = seq.cast_unsigned().wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ u64::from(attempt);
    mixed = (mixed ^ (mixed >> 31)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (mixed >> 56) as u8
}

/// A result as data, if it is JSON.
fn as_json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

/// The statement that ends a job for good.
fn ending(tx: &Connection) -> rusqlite::Result<CachedStatement<'_>> {
    tx.prepare_cached(
        "UPDATE jobs SET state = ?4, boot_id = NULL, cancelling = 0, result = ?5, error = ?6, finished_at = ?7
         WHERE seq = ?1 AND state = 'running' AND boot_id = ?2 AND fence = ?3",
    )
}

fn state_after(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Succeeded => "succeeded",
        Verdict::Again { .. } => "ready",
        Verdict::Dead => "dead",
        Verdict::Cancelled => "cancelled",
    }
}

fn fact(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Succeeded => "job.succeeded",
        Verdict::Again { .. } => "job.failed",
        Verdict::Dead => "job.dead",
        Verdict::Cancelled => "job.cancelled",
    }
}

fn record_attempt(
    tx: &Connection,
    job: &Claimed,
    outcome: &Outcome,
    detail: Option<&str>,
    now: DateTime<Utc>,
) -> Result<()> {
    let name = match outcome {
        Outcome::Succeeded(_) => "succeeded",
        Outcome::Failed { .. } => "failed",
        Outcome::Cancelled => "cancelled",
    };
    tx.prepare_cached(
        "INSERT INTO attempts (job_seq, number, id, outcome, detail, started_at, finished_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (job_seq, number) DO UPDATE SET outcome = ?4, detail = ?5, finished_at = ?7",
    )?
    .execute(params![
        job.lease.seq,
        job.attempt,
        job.attempt_id.uuid().as_bytes(),
        name,
        detail,
        to_micros(job.started_at),
        to_micros(now)
    ])?;
    Ok(())
}

pub(super) fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST_TEXT)]
}

fn excerpt(text: &str) -> &str {
    &text[..text.floor_char_boundary(500)]
}
