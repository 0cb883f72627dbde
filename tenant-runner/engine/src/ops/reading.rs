//! What was measured at one moment: plain values, each known or unknown.

use super::policy::Reading;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Debug, Clone, PartialEq)]
pub struct Readings {
    pub now: DateTime<Utc>,
    pub tasks_running: bool,
    pub workers: usize,
    pub workers_alive: usize,
    /// How long a write and a read took together.
    pub database: Reading<Duration>,
    pub files: Reading<Files>,
    pub integrity: Reading<Integrity>,
    /// When the earliest schedule is due; none: nothing is planned.
    pub earliest_due: Reading<Option<DateTime<Utc>>>,
    pub jobs: Reading<Jobs>,
    pub disk: Reading<Disk>,
    pub memory: Reading<Memory>,
    pub clock: Reading<Vec<Jump>>,
    pub model: Reading<Model>,
    pub mcp: Reading<Vec<McpServer>>,
    /// When the certificate ends; none: there is no certificate.
    pub certificate: Option<DateTime<Utc>>,
    pub backup: Backup,
    pub paused: Reading<Vec<Paused>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Files {
    pub database_bytes: u64,
    pub wal_bytes: u64,
    /// Of the database: given back by vacuuming.
    pub free_bytes: u64,
}

/// What the latest examination of the whole file said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Integrity {
    pub at: DateTime<Utc>,
    /// What is broken, in SQLite's words.
    pub fault: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Jobs {
    pub pending: u64,
    pub running: u64,
    /// How long the oldest job that could run has waited.
    pub oldest_ready: Option<Duration>,
    /// Ids of jobs that have run for longer than expected.
    pub stuck: Vec<String>,
    pub failed_last_hour: u64,
    /// How jobs ended within the last hour or since the start, whichever is shorter.
    pub ended: Ended,
    /// Ever.
    pub succeeded_total: u64,
    pub failed_total: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ended {
    pub succeeded: u64,
    pub failed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    pub free: u64,
    pub total: u64,
}

impl Disk {
    pub fn part_free(&self) -> f64 {
        if self.total == 0 { 1.0 } else { self.free as f64 / self.total as f64 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    pub used: u64,
    /// What the process may use at most; none: no limit but the machine's.
    pub limit: Option<u64>,
}

/// The wall clock moved against the machine's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jump {
    pub at: DateTime<Utc>,
    pub seconds: i64,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Model {
    /// No key is configured.
    Offline,
    /// What became of the calls of the last minutes; some were made.
    Asked { answered: u64, failed: u64 },
    /// Nobody asked lately: whether the address answers at all.
    Probed(Result<(), String>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct McpServer {
    pub name: String,
    pub found: Reading<Result<(), String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backup {
    /// None: no backup is expected.
    pub max_age: Option<Duration>,
    /// None: nobody has told.
    pub last: Option<DateTime<Utc>>,
}

/// A schedule that was paused because it kept failing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paused {
    pub event_id: String,
    pub reason: String,
}

#[cfg(test)]
impl Readings {
    /// Nothing wrong with anything.
    pub(super) fn fine() -> Self {
        let now = crate::testing::utc("2026-01-01T00:00:00Z");
        Self {
            now,
            tasks_running: true,
            workers: 4,
            workers_alive: 4,
            database: Reading::Known(Duration::from_millis(3)),
            files: Reading::Known(Files { database_bytes: 1 << 20, wal_bytes: 1 << 20, free_bytes: 0 }),
            integrity: Reading::Known(Integrity { at: now, fault: None }),
            earliest_due: Reading::Known(None),
            jobs: Reading::Known(Jobs::default()),
            disk: Reading::Known(Disk { free: 50, total: 100 }),
            memory: Reading::Known(Memory { used: 10, limit: Some(100) }),
            clock: Reading::Known(vec![]),
            model: Reading::Known(Model::Offline),
            mcp: Reading::Known(vec![]),
            certificate: None,
            backup: Backup { max_age: None, last: None },
            paused: Reading::Known(vec![]),
        }
    }

    pub(super) fn with_jobs(jobs: Jobs) -> Self {
        Self { jobs: Reading::Known(jobs), ..Self::fine() }
    }
}
