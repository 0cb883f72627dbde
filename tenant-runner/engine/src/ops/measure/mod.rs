//! From the engine to readings. Whatever cannot be measured, or not in time, is unknown; nothing here waits for longer than
//! `PATIENCE`, and nothing is changed.

mod clock;
pub(super) mod integrity;
mod memory;
mod reach;

pub(super) use clock::Watch;
pub(crate) use clock::{Monotonic, monotonic};

use super::policy::Reading;
use super::reading::{Backup, Disk, Ended, Files, Integrity, Jobs, Jump, McpServer, Model, Paused, Readings};
use super::{Ops, snapshots};
use crate::action::{Guard, SystemNames};
use crate::error::{EngineError, Result};
use crate::queue::dead_since;
use crate::store::{from_micros, to_micros};
use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{Connection, params};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);
/// Calls of the model within this time tell more than a probe.
const RECENT_CALLS: TimeDelta = TimeDelta::minutes(15);
/// How long what a probe of the network found is good for.
const PROBE_AGE: TimeDelta = TimeDelta::minutes(5);

/// Whether something answers, or why not.
type Reachability = Reading<Result<(), String>>;

/// What was found out about the network, and when.
#[derive(Debug, Default)]
pub(super) struct Probes {
    model: Option<(DateTime<Utc>, Reachability)>,
    mcp: Option<(DateTime<Utc>, u64, Vec<McpServer>)>,
}

/// Whether a look may use the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    Probe,
    /// What is known already must do.
    Known,
}

/// What one look into the database brings.
struct Stored {
    jobs: Jobs,
    earliest_due: Option<DateTime<Utc>>,
    integrity: Option<Integrity>,
    page_bytes: u64,
    free_pages: u64,
    /// Model calls lately: answered, failed.
    calls: (u64, u64),
    paused: Reading<Vec<Paused>>,
}

impl Ops {
    pub(super) async fn measure(&self, now: DateTime<Utc>, reach: Reach) -> Readings {
        let sources = &self.sources;
        let database = self.database().await;
        let stored = match &database {
            // Nothing more is asked of a database that does not answer.
            Reading::Unknown(why) => Err(why.clone()),
            Reading::Known(_) => in_time(self.stored(now)).await,
        };
        let stored = stored.as_ref();
        let (folder, path) = (sources.folder.clone(), sources.database.clone());
        let on_disk = tokio::task::spawn_blocking(move || {
            (disk(&folder), size(&path), size(&log_of(&path)), memory::measure(Path::new("/")))
        });
        let (disk, database_bytes, wal_bytes, memory) = in_time(async { on_disk.await.map_err(EngineError::internal) })
            .await
            .unwrap_or_else(|why| (Reading::Unknown(why.clone()), None, None, Reading::Unknown(why)));
        let settings = sources.settings.load_full();
        let backup = settings.as_ref().map(|settings| settings.backup).unwrap_or_default();
        let jumps = self.jumps(now);
        Readings {
            now,
            tasks_running: self.supervisor.healthy(),
            workers: sources.workers.size(),
            workers_alive: sources.workers.alive(),
            files: match database_bytes {
                Some(database_bytes) => of(stored, |stored| {
                    Reading::Known(Files {
                        database_bytes,
                        wal_bytes: wal_bytes.unwrap_or(0),
                        free_bytes: stored.free_pages * stored.page_bytes,
                    })
                }),
                None => Reading::unknown("the database's file cannot be looked at"),
            },
            integrity: of(stored, |stored| match &stored.integrity {
                Some(latest) => Reading::Known(latest.clone()),
                None => Reading::unknown("the database was not examined yet"),
            }),
            earliest_due: of(stored, |stored| Reading::Known(stored.earliest_due)),
            jobs: of(stored, |stored| Reading::Known(stored.jobs.clone())),
            paused: of(stored, |stored| stored.paused.clone()),
            model: self.model(now, reach, stored.map_or((0, 0), |stored| stored.calls)).await,
            mcp: self.mcp(now, reach).await,
            disk,
            memory,
            clock: Reading::Known(jumps),
            certificate: self.config.certificate_not_after,
            backup: Backup { max_age: backup.max_age.or(self.config.limits.backup_max_age), last: backup.last },
            database,
        }
    }

    async fn database(&self) -> Reading<Duration> {
        let started = std::time::Instant::now();
        match in_time(self.sources.store.check()).await {
            Ok(()) => Reading::Known(started.elapsed()),
            Err(why) => Reading::Unknown(why),
        }
    }

    async fn stored(&self, now: DateTime<Utc>) -> Result<Stored> {
        let stuck = self.sources.queue.running_since(self.stale_before(now));
        let counts = self.sources.queue.counts();
        let at_start = self.totals_at_start.clone();
        self.sources
            .store
            .read(move |c| {
                let totals = (counts.completed, counts.failed);
                let first = *at_start.get_or_init(|| totals);
                let ended = snapshots::ended_since(c, now, totals)?.unwrap_or(Ended {
                    succeeded: totals.0.saturating_sub(first.0),
                    failed: totals.1.saturating_sub(first.1),
                });
                let pragma = |name| c.pragma_query_value(None, name, |row| row.get::<_, u64>(0));
                Ok(Stored {
                    jobs: Jobs {
                        pending: counts.queued,
                        running: counts.running,
                        oldest_ready: oldest_ready(c, now)?,
                        stuck: stuck.iter().map(ToString::to_string).collect(),
                        failed_last_hour: dead_since(c, now - TimeDelta::hours(1))?,
                        ended,
                        succeeded_total: totals.0,
                        failed_total: totals.1,
                    },
                    earliest_due: earliest_due(c)?,
                    integrity: integrity::latest(c)?,
                    page_bytes: pragma("page_size")?,
                    free_pages: pragma("freelist_count")?,
                    calls: calls(c, now)?,
                    paused: paused(c)?,
                })
            })
            .await
    }

    fn jumps(&self, now: DateTime<Utc>) -> Vec<Jump> {
        let machine = (self.sources.monotonic)();
        let mut watch = self.clock_watch.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        watch.look(now, machine, self.config.limits.clock_jump)
    }

    async fn model(&self, now: DateTime<Utc>, reach: Reach, (answered, failed): (u64, u64)) -> Reading<Model> {
        let key = crate::model::ANTHROPIC_KEY;
        let configured =
            self.sources.settings.load().as_ref().is_some_and(|settings| settings.secrets.contains_key(key));
        if !configured {
            return Reading::Known(Model::Offline);
        }
        if answered + failed > 0 {
            return Reading::Known(Model::Asked { answered, failed });
        }
        let mut probes = self.probes.lock().await;
        let stale = probes.model.as_ref().is_none_or(|(at, _)| is_stale(*at, now));
        if reach == Reach::Probe && stale {
            let found = reach::answers(&self.sources.model_url, None).await;
            probes.model = Some((now, found));
        }
        match probes.model.as_ref().map(|(_, found)| found.clone()) {
            None => Reading::unknown("not looked at yet"),
            Some(Reading::Unknown(why)) => Reading::Unknown(why),
            Some(Reading::Known(found)) => Reading::Known(Model::Probed(found)),
        }
    }

    async fn mcp(&self, now: DateTime<Utc>, reach: Reach) -> Reading<Vec<McpServer>> {
        let workspace = self.sources.workspace.snapshot();
        let mut probes = self.probes.lock().await;
        let stale =
            probes.mcp.as_ref().is_none_or(|(at, revision, _)| is_stale(*at, now) || *revision != workspace.revision);
        if reach == Reach::Probe && stale {
            let guard = Guard::new(Arc::new(SystemNames), self.sources.allowed.clone());
            let root = self.sources.workspace.root().to_owned();
            let look = reach::mcp(&workspace, &root, &self.sources.search_path, &guard);
            match tokio::time::timeout(PATIENCE, look).await {
                Ok(found) => probes.mcp = Some((now, workspace.revision, found)),
                Err(_) => return Reading::unknown("the servers do not answer in time"),
            }
        }
        match &probes.mcp {
            Some((_, _, found)) => Reading::Known(found.clone()),
            None => Reading::unknown("not looked at yet"),
        }
    }
}

/// A reading of what was found, or why nothing was.
fn of<T>(stored: Result<&Stored, &String>, reading: impl FnOnce(&Stored) -> Reading<T>) -> Reading<T> {
    match stored {
        Ok(stored) => reading(stored),
        Err(why) => Reading::Unknown(why.clone()),
    }
}

fn is_stale(at: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    at > now || now - at >= PROBE_AGE
}

/// The outcome, or why there is none.
async fn in_time<T>(work: impl Future<Output = Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(outcome) => outcome.map_err(|error| error.public().to_owned()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

/// The file system that holds `folder`.
fn disk(folder: &Path) -> Reading<Disk> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    match rustix::fs::statvfs(folder) {
        Ok(found) => Reading::Known(Disk {
            free: found.f_bavail.saturating_mul(found.f_frsize),
            total: found.f_blocks.saturating_mul(found.f_frsize),
        }),
        Err(error) => Reading::unknown(format!("the file system does not tell: {error}")),
    }
}

fn size(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|meta| meta.len())
}

fn log_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    PathBuf::from(name)
}

/// Jobs whose key has no room are not among those that could run.
fn oldest_ready(connection: &Connection, now: DateTime<Utc>) -> Result<Option<Duration>> {
    let due: Option<i64> = connection
        .prepare_cached("SELECT min(run_at) FROM jobs WHERE state = 'ready' AND parked = 0 AND run_at <= ?1")?
        .query_row([to_micros(now)], |row| row.get(0))?;
    Ok(due.and_then(|due| (now - from_micros(due)).to_std().ok()))
}

fn earliest_due(connection: &Connection) -> Result<Option<DateTime<Utc>>> {
    let due: Option<i64> = connection
        .prepare_cached("SELECT min(next_eval_at) FROM events WHERE next_eval_at IS NOT NULL")?
        .query_row([], |row| row.get(0))?;
    Ok(due.map(from_micros))
}

fn calls(connection: &Connection, now: DateTime<Utc>) -> Result<(u64, u64)> {
    Ok(connection
        .prepare_cached(
            "SELECT count(*) FILTER (WHERE outcome = 'ok'), count(*) FILTER (WHERE outcome = 'failed')
             FROM usage WHERE at > ?1 AND backend <> 'offline'",
        )?
        .query_row(params![to_micros(now - RECENT_CALLS)], |row| Ok((row.get(0)?, row.get(1)?)))?)
}

/// Events that were paused because they kept failing; not those that somebody paused.
fn paused(connection: &Connection) -> Result<Reading<Vec<Paused>>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, coalesce(paused_reason, '') FROM events
         WHERE status = 'paused' AND failures_in_row >= pause_after_failures ORDER BY id LIMIT 1000",
    )?;
    let rows = statement.query_map([], |row| Ok(Paused { event_id: row.get(0)?, reason: row.get(1)? }))?;
    Ok(Reading::Known(rows.collect::<rusqlite::Result<_>>()?))
}
