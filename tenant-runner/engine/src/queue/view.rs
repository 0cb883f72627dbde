//! What the queue looks like from outside.

use super::enqueue::room_for_key;
use super::job::{Job, JobState, Rate};
use super::keys::Limits;
use super::{AttemptId, JobId, Queue};
use crate::error::{EngineError, Result};
use crate::store::{from_micros, to_micros};
use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::Serialize;
use std::sync::Arc;
use uuid::Uuid;

const RECENT: u32 = 20;
const MOST_LISTED: u32 = 500;

/// Jobs by what they are: waiting and running now; ended since the beginning, also those no longer kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    pub queued: u64,
    pub running: u64,
    pub completed: u64,
    pub failed: u64,
    pub cancelled: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QueueView {
    pub counts: Counts,
    /// The most recent jobs, newest first.
    pub recent: Vec<Job>,
}

/// Which jobs to list.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    pub state: Option<JobState>,
    pub event_id: Option<String>,
    pub agent: Option<String>,
    /// Only those queued before this one.
    pub before: Option<JobId>,
    /// 50, if none; at most 500.
    pub limit: Option<u32>,
}

/// One try at a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attempt {
    pub number: u32,
    /// Sent along with effects, so that a receiver can tell a repetition.
    pub id: AttemptId,
    /// `running`, or how it ended.
    pub outcome: String,
    /// What went wrong.
    pub detail: Option<String>,
    pub started_at: DateTime<Utc>,
    pub finished_at: Option<DateTime<Utc>>,
    pub duration_ms: Option<i64>,
}

/// A concurrency key in use, or with limits of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyView {
    pub key: String,
    pub concurrency_limit: u32,
    pub rate_limit: Option<Rate>,
    pub running: u32,
    /// Due jobs that wait for the key.
    pub blocked: u32,
}

impl Queue {
    /// How many jobs there are, without looking them up.
    pub fn counts(&self) -> Counts {
        let (ready, running, totals) = self.memory.glance();
        let number = |count: i64| u64::try_from(count).unwrap_or(0);
        Counts {
            queued: number(ready),
            running: running as u64,
            completed: number(totals.succeeded),
            failed: number(totals.dead),
            cancelled: number(totals.cancelled),
        }
    }

    pub async fn view(&self) -> Result<QueueView> {
        let counts = self.counts();
        let recent = self
            .store
            .read(|c| {
                let mut statement =
                    c.prepare_cached(&format!("SELECT {} FROM jobs ORDER BY seq DESC LIMIT {RECENT}", Job::COLUMNS))?;
                let jobs = statement.query_map([], Job::from_row)?;
                Ok(jobs.collect::<rusqlite::Result<_>>()?)
            })
            .await?;
        Ok(QueueView { counts, recent })
    }

    pub async fn get(&self, id: JobId) -> Result<Job> {
        self.store
            .read(move |c| {
                c.prepare_cached(&format!("SELECT {} FROM jobs WHERE id = ?1", Job::COLUMNS))?
                    .query_row([id.uuid().as_bytes()], Job::from_row)
                    .optional()?
                    .ok_or_else(|| EngineError::not_found(format!("job {id}")))
            })
            .await
    }

    /// Jobs, newest first.
    pub async fn list(&self, filter: JobFilter) -> Result<Vec<Job>> {
        self.store.read(move |c| list(c, &filter)).await
    }

    /// The tries at a job, in their order.
    pub async fn attempts(&self, id: JobId) -> Result<Vec<Attempt>> {
        self.store.read(move |c| attempts(c, id)).await
    }

    /// Jobs that have run since before `since`.
    pub fn running_since(&self, since: DateTime<Utc>) -> Vec<JobId> {
        self.memory.running_since(since)
    }

    /// Concurrency keys in use or with limits of their own, by name.
    pub fn keys(&self) -> Vec<KeyView> {
        let view = |(key, limits, running, blocked): (Arc<str>, Limits, u32, u32)| KeyView {
            key: key.to_string(),
            concurrency_limit: limits.concurrency,
            rate_limit: limits.rate,
            running,
            blocked,
        };
        self.memory.key_names().into_iter().map(view).collect()
    }

    /// Sets what a concurrency key allows. A limit of 1 without a rate is the usual.
    pub async fn set_key(&self, key: &str, concurrency: u32, rate: Option<Rate>) -> Result<()> {
        if key.is_empty() || key.len() > 200 || key.contains('\0') {
            return Err(EngineError::invalid("key", "must be a text of 1 to 200 bytes"));
        }
        if !(1..=10_000).contains(&concurrency) {
            return Err(EngineError::invalid("concurrency_limit", "must be a whole number from 1 to 10000"));
        }
        if rate.is_some_and(|rate| !(1..=1000).contains(&rate.count) || rate.period.is_zero()) {
            return Err(EngineError::invalid("rate_limit", "must have a count from 1 to 1000 and a period above 0"));
        }
        let (queue, key): (Self, Arc<str>) = (self.clone(), key.into());
        self.store
            .write(move |tx| {
                let limits = Limits { concurrency, rate };
                let mut state = queue.memory.within(tx)?;
                if state.keys.get(&key).is_none_or(|key| key.limits == Limits::default()) && limits != Limits::default()
                {
                    room_for_key(tx)?;
                }
                state.set_limits(tx, &key, limits, queue.clock.now())?;
                queue.ready.raise();
                Ok(())
            })
            .await
    }

    /// The jobs of an event that wait or run.
    pub fn live_jobs_of_event(&self, tx: &Connection, event_id: &str) -> Result<Vec<(JobId, JobState)>> {
        let mut statement = tx.prepare_cached(
            "SELECT id, state FROM jobs WHERE event_id = ?1 AND event_id IS NOT NULL AND finished_at IS NULL ORDER BY seq",
        )?;
        let jobs =
            statement.query_map([event_id], |row| Ok((JobId::from_uuid(super::job::uuid(row, 0)?), row.get(1)?)))?;
        Ok(jobs.collect::<rusqlite::Result<_>>()?)
    }
}

fn list(c: &Connection, filter: &JobFilter) -> Result<Vec<Job>> {
    let limit = filter.limit.unwrap_or(50).clamp(1, MOST_LISTED);
    let before: i64 = match filter.before {
        None => i64::MAX,
        Some(id) => c
            .prepare_cached("SELECT seq FROM jobs WHERE id = ?1")?
            .query_row([id.uuid().as_bytes()], |row| row.get(0))
            .optional()?
            .ok_or_else(|| EngineError::invalid("before", "names a job that does not exist"))?,
    };
    // Each state has an index that holds little else; without a state or an event, the newest are at the end of the table.
    let by_state = match filter.state {
        None => "1",
        Some(JobState::Ready) => "state = 'ready'",
        Some(JobState::Running) => "state = 'running'",
        Some(JobState::Succeeded) => "state = 'succeeded'",
        Some(JobState::Dead) => "state = 'dead'",
        Some(JobState::Cancelled) => "state = 'cancelled'",
    };
    let of = |which: &str| {
        let columns = Job::COLUMNS;
        format!(
            "SELECT {columns}, seq FROM jobs WHERE seq < ?1 AND {which} AND (?3 IS NULL OR agent = ?3) AND {by_state}"
        )
    };
    // An event's jobs are in two indices, each in the order of the list: those that live, and those that have ended.
    let (live, ended) = (
        "event_id = ?2 AND event_id IS NOT NULL AND finished_at IS NULL",
        "event_id = ?2 AND event_id IS NOT NULL AND finished_at IS NOT NULL",
    );
    let jobs = match (&filter.event_id, filter.state) {
        (None, _) => of("?2 IS NULL"),
        (Some(_), Some(JobState::Ready | JobState::Running)) => of(live),
        (Some(_), Some(JobState::Succeeded | JobState::Dead | JobState::Cancelled)) => of(ended),
        (Some(_), None) => format!("{} UNION ALL {}", of(live), of(ended)),
    };
    let mut statement = c.prepare_cached(&format!("{jobs} ORDER BY seq DESC LIMIT ?4"))?;
    let jobs = statement.query_map(params![before, filter.event_id, filter.agent, limit], Job::from_row)?;
    Ok(jobs.collect::<rusqlite::Result<_>>()?)
}

fn attempts(c: &Connection, id: JobId) -> Result<Vec<Attempt>> {
    struct Own {
        seq: i64,
        state: JobState,
        number: u32,
        attempt: Option<[u8; 16]>,
        started_at: Option<i64>,
        finished_at: Option<i64>,
    }
    let own = c
        .prepare_cached("SELECT seq, state, attempt, attempt_id, started_at, finished_at FROM jobs WHERE id = ?1")?
        .query_row([id.uuid().as_bytes()], |row| {
            Ok(Own {
                seq: row.get(0)?,
                state: row.get(1)?,
                number: row.get(2)?,
                attempt: row.get(3)?,
                started_at: row.get(4)?,
                finished_at: row.get(5)?,
            })
        })
        .optional()?
        .ok_or_else(|| EngineError::not_found(format!("job {id}")))?;
    let mut statement = c.prepare_cached(
        "SELECT number, id, outcome, detail, started_at, finished_at FROM attempts WHERE job_seq = ?1 ORDER BY number",
    )?;
    let mut all: Vec<Attempt> = statement.query_map([own.seq], from_row)?.collect::<rusqlite::Result<_>>()?;
    // The one that runs, was left behind, or succeeded at once is in the job's own row.
    if let (Some(attempt), Some(started_at)) = (own.attempt, own.started_at)
        && all.last().is_none_or(|last| last.number < own.number)
    {
        let outcome = match own.state {
            JobState::Running => "running",
            JobState::Ready => "interrupted",
            ended => ended.as_str(),
        };
        all.push(shown(own.number, attempt, outcome.to_owned(), None, started_at, own.finished_at));
    }
    Ok(all)
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Attempt> {
    Ok(shown(row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, Some(row.get(5)?)))
}

fn shown(
    number: u32,
    id: [u8; 16],
    outcome: String,
    detail: Option<String>,
    started_at: i64,
    finished_at: Option<i64>,
) -> Attempt {
    Attempt {
        number,
        id: AttemptId::from_uuid(Uuid::from_bytes(id)),
        outcome,
        detail,
        started_at: from_micros(started_at),
        finished_at: finished_at.map(from_micros),
        duration_ms: finished_at.map(|end| (end - started_at) / 1000),
    }
}

/// Dead jobs since `since`, for whoever watches over failures.
pub(crate) fn dead_since(c: &Connection, since: DateTime<Utc>) -> Result<u64> {
    Ok(c.prepare_cached("SELECT count(*) FROM jobs WHERE state = 'dead' AND finished_at > ?1")?
        .query_row([to_micros(since)], |row| row.get(0))?)
}
