//! The remedies: what can be done about trouble, by the monitor itself or by somebody who asks.
//!
//! Always true here: a remedy may be taken again at any time without harm; its answer says what really happened; each run is on
//! record; by itself only that runs which cannot end live work.

use super::Ops;
use crate::error::{EngineError, Kind, Result};
use crate::retention;
use crate::store::{from_micros, to_micros};
use chrono::{DateTime, Utc};
use rusqlite::{Connection, params};
use serde::Serialize;
use std::time::Duration;

/// How long the workers may take to react to a restart.
const PATIENCE: Duration = Duration::from_secs(30);
const LONGEST_RESULT: usize = 2000;
/// Who takes a remedy that nobody asked for.
pub(super) const MONITOR: &str = "monitor";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Remedy {
    RestartWorkers,
    RestartEngine,
    ClearLocks,
    FailStaleJobs,
    WakeScheduler,
    WakeWorkers,
    RunRetention,
    Checkpoint,
    Vacuum,
    CheckIntegrity,
    ReloadWorkspace,
}

impl Remedy {
    pub const ALL: [Self; 11] = [
        Self::RestartWorkers,
        Self::RestartEngine,
        Self::ClearLocks,
        Self::FailStaleJobs,
        Self::WakeScheduler,
        Self::WakeWorkers,
        Self::RunRetention,
        Self::Checkpoint,
        Self::Vacuum,
        Self::CheckIntegrity,
        Self::ReloadWorkspace,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::RestartWorkers => "restart_workers",
            Self::RestartEngine => "restart_engine",
            Self::ClearLocks => "clear_locks",
            Self::FailStaleJobs => "fail_stale_jobs",
            Self::WakeScheduler => "wake_scheduler",
            Self::WakeWorkers => "wake_workers",
            Self::RunRetention => "run_retention",
            Self::Checkpoint => "checkpoint",
            Self::Vacuum => "vacuum",
            Self::CheckIntegrity => "check_integrity",
            Self::ReloadWorkspace => "reload_workspace",
        }
    }

    /// Whether it may run without anybody asking: only what leaves live work alone.
    pub fn may_run_by_itself(self) -> bool {
        match self {
            Self::RestartWorkers | Self::RestartEngine | Self::FailStaleJobs => false,
            // Somebody has to want it: it takes time, or nothing ever calls for it.
            Self::CheckIntegrity | Self::ReloadWorkspace => false,
            Self::ClearLocks
            | Self::WakeScheduler
            | Self::WakeWorkers
            | Self::RunRetention
            | Self::Checkpoint
            | Self::Vacuum => true,
        }
    }
}

impl std::str::FromStr for Remedy {
    type Err = EngineError;
    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|remedy| remedy.as_str() == text).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.into_iter().map(Self::as_str).collect();
            EngineError::invalid("action", format!("must be one of {}", names.join(", ")))
        })
    }
}

/// A run of a remedy, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Taken {
    pub seq: u64,
    pub remedy: String,
    /// `monitor`, or who asked.
    pub taken_by: String,
    /// The trouble it was taken against; none when somebody asked for it.
    pub fingerprint: Option<String>,
    /// `done` or `failed`.
    pub outcome: String,
    pub result: String,
    pub started_at: DateTime<Utc>,
    pub finished_at: DateTime<Utc>,
}

pub(super) fn list(connection: &Connection, limit: u32) -> Result<Vec<Taken>> {
    let mut statement = connection.prepare_cached(
        "SELECT seq, remedy, taken_by, fingerprint, outcome, result, started_at, finished_at
         FROM ops_remedies ORDER BY seq DESC LIMIT ?1",
    )?;
    let rows = statement.query_map([limit], |row| {
        Ok(Taken {
            seq: row.get(0)?,
            remedy: row.get(1)?,
            taken_by: row.get(2)?,
            fingerprint: row.get(3)?,
            outcome: row.get(4)?,
            result: row.get(5)?,
            started_at: from_micros(row.get(6)?),
            finished_at: from_micros(row.get(7)?),
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

impl Ops {
    /// Takes `remedy` and records what came of it.
    pub(super) async fn take(&self, remedy: Remedy, who: &str, fingerprint: Option<&str>) -> Result<String> {
        let started = self.sources.clock.now();
        let outcome = self.run(remedy).await;
        let (state, mut text) = match &outcome {
            Ok(text) => ("done", text.clone()),
            Err(error) => ("failed", error.public().to_owned()),
        };
        tracing::warn!(remedy = remedy.as_str(), who, state, result = text, "a remedy was taken");
        if text.len() > LONGEST_RESULT {
            text.truncate(text.floor_char_boundary(LONGEST_RESULT));
        }
        let finished = self.sources.clock.now();
        let (who, fingerprint) = (who.to_owned(), fingerprint.map(str::to_owned));
        let recorded = self
            .sources
            .store
            .write(move |tx| {
                tx.prepare_cached(
                    "INSERT INTO ops_remedies (remedy, taken_by, fingerprint, outcome, result, started_at, finished_at)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                )?
                .execute(params![
                    remedy.as_str(),
                    who,
                    fingerprint,
                    state,
                    text,
                    to_micros(started),
                    to_micros(finished)
                ])?;
                Ok(())
            })
            .await;
        if let Err(error) = recorded {
            tracing::error!(error = error.chain(), "a remedy that was taken could not be recorded");
        }
        outcome
    }

    async fn run(&self, remedy: Remedy) -> Result<String> {
        match remedy {
            Remedy::RestartWorkers => self.restart_workers().await,
            Remedy::RestartEngine => {
                let workers = self.restart_workers().await?;
                let scheduler = self.wake_scheduler().await?;
                Ok(format!("{workers}; {scheduler}; the process itself kept running"))
            }
            Remedy::ClearLocks => Ok(match self.sources.queue.release_foreign().await? {
                0 => "no lease of an ended process was left; leases of running jobs are not touched".to_owned(),
                released => format!("{released} leases of ended processes were released; their jobs run again"),
            }),
            Remedy::FailStaleJobs => self.stop_stuck().await,
            Remedy::WakeScheduler => self.wake_scheduler().await,
            Remedy::WakeWorkers => {
                self.sources.queue.ready().raise_now();
                Ok("the workers were told to look at the queue again".to_owned())
            }
            Remedy::RunRetention => self.run_retention().await,
            Remedy::Checkpoint => self.checkpoint().await,
            Remedy::Vacuum => self.vacuum().await,
            Remedy::CheckIntegrity => {
                let stop = self.supervisor.token().child_token();
                let now = self.sources.clock.now();
                let found = super::measure::integrity::examine(&self.sources.store, now, &stop).await?;
                Ok(match found {
                    None => return Err(EngineError::unavailable("The examination was given up: the engine stops")),
                    Some(found) => found.fault.map_or_else(
                        || "the database was examined and is undamaged".to_owned(),
                        |fault| format!("the database is damaged: {fault}"),
                    ),
                })
            }
            Remedy::ReloadWorkspace => {
                let snapshot = self.sources.workspace.reload().await?;
                Ok(format!("the workspace's files were read again; {} problems", snapshot.problems.len()))
            }
        }
    }

    async fn restart_workers(&self) -> Result<String> {
        match self.sources.workers.restart(PATIENCE).await {
            Some(interrupted) => Ok(format!(
                "{} workers started over; {interrupted} running jobs were interrupted and run again",
                self.sources.workers.size()
            )),
            None => Err(EngineError::unavailable("The workers do not react")),
        }
    }

    async fn wake_scheduler(&self) -> Result<String> {
        let tick = self.sources.events.tick().await?;
        self.sources.events.changed().raise_now();
        Ok(format!("the scheduler looked again and queued {} jobs", tick.fired))
    }

    async fn stop_stuck(&self) -> Result<String> {
        let mut asked = 0;
        for job in self.sources.queue.running_since(self.stale_before(self.sources.clock.now())) {
            match self.sources.queue.cancel(job).await {
                Ok(()) => asked += 1,
                // It has ended meanwhile, which is as good.
                Err(error) if error.kind == Kind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
        Ok(match asked {
            0 => "no job has run unusually long".to_owned(),
            asked => format!("{asked} jobs that ran unusually long were told to stop and end as cancelled"),
        })
    }

    async fn run_retention(&self) -> Result<String> {
        let removed = retention::full_pass(&self.sources.store, &self.sources.rules, self.sources.clock.now()).await?;
        Ok(format!("{removed} rows that had passed their time were removed"))
    }

    pub(super) async fn checkpoint(&self) -> Result<String> {
        let (busy, pages) = self.sources.store.read(truncate_log).await?;
        Ok(if busy {
            "the log could not be emptied: the database is in use; what could be moved was moved".to_owned()
        } else {
            format!("the log was emptied into the database ({pages} pages)")
        })
    }

    async fn vacuum(&self) -> Result<String> {
        let pages = retention::give_back(&self.sources.store).await?;
        Ok(format!("{pages} free pages were given back to the file system"))
    }
}

/// Moves the log into the database and empties it. The transaction around it has not begun as long as nothing was read.
fn truncate_log(connection: &Connection) -> Result<(bool, i64)> {
    Ok(connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
        Ok((row.get::<_, i64>(0)? != 0, row.get::<_, i64>(2)?.max(0)))
    })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_for_one_remedy_and_an_unknown_one_is_refused_with_all_names() {
        for remedy in Remedy::ALL {
            assert_eq!(remedy.as_str().parse::<Remedy>().unwrap(), remedy);
        }
        let error = "pray".parse::<Remedy>().unwrap_err();
        assert_eq!(error.field(), Some("action"));
        assert!(error.public().contains("restart_workers") && error.public().contains("reload_workspace"));
    }

    #[test]
    fn what_can_end_live_work_never_runs_by_itself() {
        for remedy in [Remedy::RestartWorkers, Remedy::RestartEngine, Remedy::FailStaleJobs] {
            assert!(!remedy.may_run_by_itself(), "{remedy:?}");
        }
    }
}
