//! What the queue looks like from outside.

use super::{Job, JobId, Queue};
use crate::error::{EngineError, Result};
use crate::store::to_micros;
use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension as _};
use serde::Serialize;

const RECENT: u32 = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    pub queued: u64,
    pub running: u64,
    pub completed: u64,
    pub failed: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QueueView {
    pub counts: Counts,
    /// The most recent jobs, newest first.
    pub recent: Vec<Job>,
}

impl Queue {
    pub async fn view(&self) -> Result<QueueView> {
        self.store
            .read(|c| {
                let recent = c
                    .prepare_cached(&format!("SELECT {} FROM jobs ORDER BY seq DESC LIMIT {RECENT}", Job::COLUMNS))?
                    .query_map([], Job::from_row)?
                    .collect::<rusqlite::Result<_>>()?;
                Ok(QueueView { counts: counts(c)?, recent })
            })
            .await
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

    /// Jobs that have run since before `since`.
    pub async fn running_since(&self, since: DateTime<Utc>) -> Result<Vec<JobId>> {
        self.store
            .read(move |c| {
                let mut statement =
                    c.prepare_cached("SELECT id FROM jobs WHERE state = 'running' AND started_at < ?1")?;
                let ids =
                    statement.query_map([to_micros(since)], |row| super::job::uuid(row, 0).map(JobId::from_uuid))?;
                Ok(ids.collect::<rusqlite::Result<_>>()?)
            })
            .await
    }
}

pub(crate) fn counts(connection: &Connection) -> Result<Counts> {
    let one = |sql: &str| connection.prepare_cached(sql)?.query_row([], |row| row.get::<_, u64>(0));
    Ok(Counts {
        queued: one("SELECT count(*) FROM jobs WHERE state = 'ready'")?,
        running: one("SELECT count(*) FROM jobs WHERE state = 'running'")?,
        completed: one("SELECT count(*) FROM jobs WHERE finished_at IS NOT NULL AND state = 'succeeded'")?,
        failed: one("SELECT count(*) FROM jobs WHERE finished_at IS NOT NULL AND state = 'dead'")?,
    })
}
