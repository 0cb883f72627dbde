//! The ops monitor: measures, judges (`policy`), keeps alerts, and heals when somebody asks.
//!
//! Always true here: an alert is raised once per trouble and resolves itself; healing never ends work that is alive without
//! being told to, and its answer says what really happened; an engine in which nothing happens is not measured.

mod alerts;
mod monitor;
pub mod policy;

#[cfg(test)]
mod tests;

pub use alerts::Alert;
pub use policy::Severity;

use crate::bus::Bus;
use crate::config::OpsConfig;
use crate::error::{EngineError, Result};
use crate::event::Events;
use crate::queue::{Queue, dead_since};
use crate::store::Store;
use crate::worker::Workers;
use chrono::{DateTime, Utc};
use nexaas_common::clock::SharedClock;
use nexaas_common::task::Supervisor;
use policy::{Limits, Readings};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

/// How long the workers may take to react to a restart.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OpsHealth {
    pub engine_running: bool,
    pub worker_count: u32,
    pub workers_alive: u32,
    pub pending_jobs: u64,
    pub failed_jobs_last_hour: u64,
    /// Jobs that have run for longer than expected.
    pub stale_locks: u64,
    pub db_ok: bool,
    pub snapshot_at: DateTime<Utc>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HealResult {
    pub action: String,
    /// What was done, in words.
    pub result: String,
}

/// What the monitor looks at.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    pub store: Store,
    pub bus: Bus,
    pub queue: Queue,
    pub events: Events,
    pub workers: Workers,
    pub clock: SharedClock,
    /// On the disk that holds the database.
    pub folder: PathBuf,
}

/// Clones share one monitor.
#[derive(Debug, Clone)]
pub struct Ops {
    sources: Sources,
    config: OpsConfig,
    supervisor: Supervisor,
}

impl Ops {
    pub(crate) fn start(sources: Sources, config: OpsConfig, supervisor: &Supervisor) -> Self {
        let ops = Self { sources, config, supervisor: supervisor.clone() };
        if ops.config.enabled {
            monitor::start(ops.clone(), supervisor);
        }
        ops
    }

    /// The state of the engine at this moment. A database that does not answer is part of the answer.
    pub async fn health(&self) -> OpsHealth {
        let now = self.sources.clock.now();
        let readings = self.readings(now).await;
        let db_ok = match &readings {
            Ok(_) => self.sources.store.check().await.is_ok(),
            Err(_) => false,
        };
        let known = readings.unwrap_or_else(|_| self.without_database());
        OpsHealth {
            engine_running: known.tasks_running,
            worker_count: known.workers as u32,
            workers_alive: known.workers_alive as u32,
            pending_jobs: known.pending_jobs,
            failed_jobs_last_hour: known.failed_last_hour,
            stale_locks: known.stuck_jobs.len() as u64,
            db_ok,
            snapshot_at: now,
        }
    }

    /// The newest alerts.
    pub async fn alerts(&self, limit: u32, severity: Option<&str>) -> Result<Vec<Alert>> {
        let severity = match severity {
            None | Some("") => None,
            Some(text @ ("info" | "warning" | "critical")) => Some(text.to_owned()),
            Some(_) => return Err(EngineError::invalid("severity", "must be one of info, warning, critical")),
        };
        let limit = limit.clamp(1, 1000);
        self.sources.store.read(move |c| alerts::list(c, limit, severity.as_deref())).await
    }

    pub async fn acknowledge(&self, id: &str) -> Result<Alert> {
        let id = id.to_owned();
        self.sources.store.write(move |tx| alerts::acknowledge(tx, &id)).await
    }

    /// Does `action` and says what came of it.
    pub async fn heal(&self, action: &str) -> Result<HealResult> {
        let result = match action {
            "restart_workers" => self.restart_workers().await?,
            "restart_engine" => {
                let workers = self.restart_workers().await?;
                let tick = self.sources.events.tick().await?;
                self.sources.events.changed().raise_now();
                format!(
                    "{workers}; the scheduler looked again and queued {} jobs; the process itself kept running",
                    tick.fired
                )
            }
            "clear_locks" => match self.sources.queue.release_foreign().await? {
                0 => "no lease of an ended process was left; leases of running jobs are not touched".to_owned(),
                released => format!("{released} leases of ended processes were released; their jobs run again"),
            },
            "fail_stale_jobs" => self.stop_stuck().await?,
            _ => {
                return Err(EngineError::invalid(
                    "action",
                    "must be one of restart_workers, restart_engine, clear_locks, fail_stale_jobs",
                ));
            }
        };
        tracing::warn!(action, result, "the engine was healed by hand");
        Ok(HealResult { action: action.to_owned(), result })
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

    async fn stop_stuck(&self) -> Result<String> {
        let mut asked = 0;
        for job in self.sources.queue.running_since(self.stale_before(self.sources.clock.now())) {
            match self.sources.queue.cancel(job).await {
                Ok(()) => asked += 1,
                // It has ended meanwhile, which is as good.
                Err(error) if error.kind == crate::error::Kind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
        Ok(match asked {
            0 => "no job has run unusually long".to_owned(),
            asked => format!("{asked} jobs that ran unusually long were told to stop and end as cancelled"),
        })
    }

    fn stale_before(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        let limit = chrono::Duration::from_std(self.config.stale_job_timeout).unwrap_or(chrono::Duration::MAX);
        now.checked_sub_signed(limit).unwrap_or(DateTime::<Utc>::MIN_UTC)
    }

    fn limits(&self) -> Limits {
        Limits::new(self.config.max_failed_jobs_hour)
    }

    fn without_database(&self) -> Readings {
        Readings {
            tasks_running: self.supervisor.healthy(),
            workers: self.sources.workers.size(),
            workers_alive: self.sources.workers.alive(),
            pending_jobs: 0,
            failed_last_hour: 0,
            stuck_jobs: Vec::new(),
            disk_free: disk_free(&self.sources.folder),
        }
    }

    async fn readings(&self, now: DateTime<Utc>) -> Result<Readings> {
        let stuck = self.sources.queue.running_since(self.stale_before(now));
        let hour_ago = now - chrono::Duration::hours(1);
        let failed = self.sources.store.read(move |c| dead_since(c, hour_ago)).await?;
        let counts = self.sources.queue.counts();
        Ok(Readings {
            pending_jobs: counts.queued,
            failed_last_hour: failed,
            stuck_jobs: stuck.iter().map(ToString::to_string).collect(),
            ..self.without_database()
        })
    }
}

/// The free part of the file system that holds `folder`.
fn disk_free(folder: &std::path::Path) -> Option<f64> {
    let found = rustix::fs::statvfs(folder).ok()?;
    (found.f_blocks > 0).then(|| found.f_bavail as f64 / found.f_blocks as f64)
}
