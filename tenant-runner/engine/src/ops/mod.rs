//! The ops monitor: measures (`measure`), judges (`check`), keeps alerts, takes remedies, tells others (`outbox`).
//!
//! Always true here: an alert is raised once per trouble and resolves itself; a remedy never ends work that is alive without
//! being told to, and its answer says what really happened; what cannot be known is called unknown and raises nothing; an
//! engine in which nothing happens is measured once in a quarter of an hour and no more (see `monitor`).

mod alerts;
mod breaker;
pub mod check;
mod checks;
mod measure;
mod monitor;
mod outbox;
pub mod policy;
mod reading;
mod remedy;
mod silences;
mod snapshots;

#[cfg(test)]
mod tests;

pub use alerts::{Alert, AlertFilter};
pub use checks::{CheckView, Status};
pub use outbox::signing_key;
pub use policy::Severity;
pub use remedy::{Remedy, Taken};
pub use silences::{Silence, SilenceSpec};
pub use snapshots::{Figures, Snapshot};

pub(crate) use measure::{Monotonic, monotonic};

use crate::action::SharedSettings;
use crate::bus::Bus;
use crate::config::OpsConfig;
use crate::error::{EngineError, Result};
use crate::event::Events;
use crate::queue::Queue;
use crate::retention::Keep;
use crate::store::{Signal, Store};
use crate::worker::Workers;
use crate::workspace::Workspace;
use chrono::{DateTime, Duration, Utc};
use measure::{Probes, Reach, Watch};
use nexaas_common::clock::SharedClock;
use nexaas_common::task::{OnExit, Supervisor};
use policy::Reading;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// What is kept of the monitor's own tables. `ops_checks`, `ops_breakers` and `ops_facts` have a row per name, which the code
/// bounds.
pub const KEEP: &[Keep] = &[
    Keep {
        table: "ops_snapshots",
        sql: "DELETE FROM ops_snapshots WHERE at IN (
                  SELECT at FROM ops_snapshots
                  WHERE at < :before OR at <= (SELECT at FROM ops_snapshots ORDER BY at DESC LIMIT 1 OFFSET :rows)
                  ORDER BY at LIMIT :at_once)",
        rows: 20_000,
        age: Duration::days(14),
    },
    Keep {
        table: "ops_remedies",
        sql: "DELETE FROM ops_remedies WHERE seq IN (
                  SELECT seq FROM ops_remedies
                  WHERE started_at < :before OR seq <= (SELECT max(seq) FROM ops_remedies) - :rows
                  ORDER BY seq LIMIT :at_once)",
        rows: 5_000,
        age: Duration::days(90),
    },
    Keep {
        table: "ops_outbox",
        // What waits is bounded where it is added.
        sql: "DELETE FROM ops_outbox WHERE seq IN (
                  SELECT seq FROM ops_outbox
                  WHERE state <> 'waiting' AND (created_at < :before OR seq <= (SELECT max(seq) FROM ops_outbox) - :rows)
                  ORDER BY seq LIMIT :at_once)",
        rows: 5_000,
        age: Duration::days(14),
    },
    Keep {
        table: "ops_silences",
        sql: "DELETE FROM ops_silences WHERE id IN (
                  SELECT id FROM ops_silences
                  WHERE until < :before OR (ended_at IS NOT NULL AND created_at <= (
                      SELECT created_at FROM ops_silences ORDER BY created_at DESC LIMIT 1 OFFSET :rows))
                  ORDER BY until LIMIT :at_once)",
        rows: 2_000,
        age: Duration::days(90),
    },
];

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
    pub running_jobs: u64,
    /// How long the oldest job that could run has waited.
    pub oldest_ready_s: Option<u64>,
    pub database_bytes: Option<u64>,
    pub wal_bytes: Option<u64>,
    pub disk_free_bytes: Option<u64>,
    pub memory_bytes: Option<u64>,
    pub open_alerts: OpenAlerts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct OpenAlerts {
    pub info: u32,
    pub warning: u32,
    pub critical: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HealResult {
    pub action: String,
    /// What was done, in words.
    pub result: String,
}

/// What the monitor looks at.
#[derive(Clone)]
pub(crate) struct Sources {
    pub store: Store,
    pub bus: Bus,
    pub queue: Queue,
    pub events: Events,
    pub workers: Workers,
    pub workspace: Workspace,
    pub clock: SharedClock,
    pub monotonic: Monotonic,
    pub settings: SharedSettings,
    pub tenant: String,
    /// The database's file, and a folder on its disk.
    pub database: PathBuf,
    pub folder: PathBuf,
    /// What retention keeps.
    pub rules: Vec<Keep>,
    pub model_url: url::Url,
    /// Private networks that may be reached nevertheless.
    pub allowed: Vec<ipnet::IpNet>,
    /// Where scripts find their commands.
    pub search_path: String,
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

/// Clones share one monitor.
#[derive(Debug, Clone)]
pub struct Ops(Arc<Inner>);

#[derive(Debug)]
pub struct Inner {
    sources: Sources,
    config: OpsConfig,
    supervisor: Supervisor,
    /// Raised when there is something to send.
    filled: Signal,
    /// One look at a time.
    looking: tokio::sync::Mutex<()>,
    /// The breakers, once they were read.
    remembered: tokio::sync::Mutex<Option<BTreeMap<String, breaker::Breaker>>>,
    probes: tokio::sync::Mutex<Probes>,
    clock_watch: Mutex<Watch>,
    /// How many jobs had succeeded and failed when the engine started.
    totals_at_start: Arc<OnceLock<(u64, u64)>>,
    /// The database cannot be written: the alert that waits to be stored.
    outage: Mutex<Option<Alert>>,
}

impl std::ops::Deref for Ops {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Ops {
    pub(crate) fn start(sources: Sources, config: OpsConfig, supervisor: &Supervisor) -> Self {
        let ops = Self(Arc::new(Inner {
            filled: sources.store.signal(),
            sources,
            config,
            supervisor: supervisor.clone(),
            looking: tokio::sync::Mutex::default(),
            remembered: tokio::sync::Mutex::default(),
            probes: tokio::sync::Mutex::default(),
            clock_watch: Mutex::default(),
            totals_at_start: Arc::default(),
            outage: Mutex::default(),
        }));
        if ops.config.enabled {
            ops.sender().start(supervisor);
            monitor::start(ops.clone(), supervisor);
        }
        ops
    }

    fn sender(&self) -> outbox::Sender {
        outbox::Sender {
            store: self.sources.store.clone(),
            clock: self.sources.clock.clone(),
            settings: self.sources.settings.clone(),
            config: self.config.clone(),
            filled: self.filled.clone(),
        }
    }

    /// The state of the engine at this moment. A database that does not answer is part of the answer.
    pub async fn health(&self) -> OpsHealth {
        let now = self.sources.clock.now();
        let readings = self.measure(now, Reach::Known).await;
        let open = match readings.database {
            Reading::Known(_) => self.sources.store.read(alerts::open_alerts).await.unwrap_or_default(),
            Reading::Unknown(_) => Vec::new(),
        };
        let count = |severity| open.iter().filter(|alert| alert.severity == severity).count() as u32;
        let jobs = readings.jobs.known().cloned().unwrap_or_default();
        OpsHealth {
            engine_running: readings.tasks_running,
            worker_count: readings.workers as u32,
            workers_alive: readings.workers_alive as u32,
            pending_jobs: jobs.pending,
            failed_jobs_last_hour: jobs.failed_last_hour,
            stale_locks: jobs.stuck.len() as u64,
            db_ok: readings.database.known().is_some(),
            snapshot_at: now,
            running_jobs: jobs.running,
            oldest_ready_s: jobs.oldest_ready.map(|age| age.as_secs()),
            database_bytes: readings.files.known().map(|files| files.database_bytes),
            wal_bytes: readings.files.known().map(|files| files.wal_bytes),
            disk_free_bytes: readings.disk.known().map(|disk| disk.free),
            memory_bytes: readings.memory.known().map(|memory| memory.used),
            open_alerts: OpenAlerts {
                info: count(Severity::Info),
                warning: count(Severity::Warning),
                critical: count(Severity::Critical),
            },
        }
    }

    /// Every check, with its status, its reading and since when it is so.
    pub async fn checks(&self) -> Result<Vec<CheckView>> {
        self.view_checks().await
    }

    /// The newest alerts.
    pub async fn alerts(&self, filter: AlertFilter) -> Result<Vec<Alert>> {
        let now = self.sources.clock.now();
        self.sources.store.read(move |c| alerts::list(c, &filter, now)).await
    }

    /// Somebody takes an alert on: time alone makes it no worse.
    pub async fn acknowledge(&self, id: &str, who: &str) -> Result<Alert> {
        let (id, who, bus, now) = (id.to_owned(), who.to_owned(), self.sources.bus.clone(), self.sources.clock.now());
        self.sources.store.write(move |tx| alerts::acknowledge(tx, &bus, &id, &who, now)).await
    }

    /// Has nobody told of the trouble behind this alert for a while. `spec` names no subject of its own.
    pub async fn silence_alert(&self, id: &str, spec: SilenceSpec, who: &str) -> Result<Silence> {
        if spec.category.is_some() || spec.fingerprint.is_some() {
            return Err(EngineError::invalid("category", "and fingerprint cannot be given here: the alert says it"));
        }
        let (id, who, now) = (id.to_owned(), who.to_owned(), self.sources.clock.now());
        self.sources
            .store
            .write(move |tx| {
                let alert = alerts::get(tx, &id, now)?;
                let spec = SilenceSpec { fingerprint: Some(alert.fingerprint), ..spec };
                silences::add(tx, &spec, &who, now)
            })
            .await
    }

    /// Ends what `silence_alert` began; answers how many silences that were. Those of a category stay.
    pub async fn unsilence_alert(&self, id: &str, who: &str) -> Result<u64> {
        let (id, who, now) = (id.to_owned(), who.to_owned(), self.sources.clock.now());
        self.sources
            .store
            .write(move |tx| {
                let alert = alerts::get(tx, &id, now)?;
                silences::end_of(tx, &alert.fingerprint, &who, now)
            })
            .await
    }

    pub async fn silence(&self, spec: SilenceSpec, who: &str) -> Result<Silence> {
        let (who, now) = (who.to_owned(), self.sources.clock.now());
        self.sources.store.write(move |tx| silences::add(tx, &spec, &who, now)).await
    }

    pub async fn end_silence(&self, id: &str, who: &str) -> Result<Silence> {
        let (id, who, now) = (id.to_owned(), who.to_owned(), self.sources.clock.now());
        self.sources.store.write(move |tx| silences::end(tx, &id, &who, now)).await
    }

    /// The newest silences, ended ones among them.
    pub async fn silences(&self, limit: u32) -> Result<Vec<Silence>> {
        let now = self.sources.clock.now();
        self.sources.store.read(move |c| silences::list(c, limit.clamp(1, 1000), now)).await
    }

    /// What was measured: the first snapshots after `since`, or the latest ones. Oldest first.
    pub async fn snapshots(&self, since: Option<DateTime<Utc>>, limit: u32) -> Result<Vec<Snapshot>> {
        self.sources.store.read(move |c| snapshots::list(c, since, limit.clamp(1, 5000))).await
    }

    /// The latest remedies that were taken.
    pub async fn remedies(&self, limit: u32) -> Result<Vec<Taken>> {
        self.sources.store.read(move |c| remedy::list(c, limit.clamp(1, 1000))).await
    }

    /// Does `action` because `who` asked for it, and says what came of it.
    pub async fn heal(&self, action: &str, who: &str) -> Result<HealResult> {
        let remedy: Remedy = action.parse()?;
        let (answer, outcome) = tokio::sync::oneshot::channel();
        let (ops, who) = (self.clone(), who.to_owned());
        // A task of its own: whoever asked may leave, and it is done and recorded all the same.
        self.supervisor.spawn("ops-remedy", OnExit::Expected, |_| async move {
            let _ = answer.send(ops.take(remedy, &who, None).await);
        });
        let stopping = || EngineError::unavailable("The engine is stopping");
        let result = outcome.await.map_err(|_| stopping())??;
        Ok(HealResult { action: action.to_owned(), result })
    }

    fn stale_before(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        let limit = Duration::from_std(self.config.stale_job_timeout).unwrap_or(Duration::MAX);
        now.checked_sub_signed(limit).unwrap_or(DateTime::<Utc>::MIN_UTC)
    }

    /// The database cannot be written, so the alert about it cannot be stored: it is sent out at once, and stored later.
    async fn tell_that_nothing_can_be_stored(&self, error: &EngineError, now: DateTime<Utc>) {
        let alert = {
            let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
            if outage.is_some() {
                return;
            }
            let alert = alerts::of_outage(error.public(), now);
            *outage = Some(alert.clone());
            alert
        };
        let id = format!("{}.{}", alert.id, alert.severity.as_str());
        self.sender().send_unstored(&id, &alert, &self.sources.tenant, now).await;
    }

    fn outage(&self) -> Option<Alert> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn outage_is_over(&self) {
        *self.outage.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
