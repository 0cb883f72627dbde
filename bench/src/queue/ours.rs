//! The engine's queue under load, three ways.

use crate::commits::commits;
use crate::rig::{Folder, Instantly, Rig, job};
use nexaas_test_system::Result;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::task::JoinSet;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Regime {
    /// Producers queue one job each and await its acknowledgement, while the workers run.
    Flow,
    /// The same, a hundred jobs in each call.
    Many,
    /// Everything is queued first, then the workers start; only the second half is timed.
    Backlog,
}

impl Regime {
    pub const ALL: [Self; 3] = [Self::Flow, Self::Many, Self::Backlog];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Flow => "flow",
            Self::Many => "many",
            Self::Backlog => "backlog",
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub jobs: u64,
    pub producers: u64,
    pub workers: usize,
}

/// What a run did, so that the floor can do the same.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub jobs: u64,
    pub seconds: f64,
    pub commits: u64,
    /// Jobs that were held from the moment they were stored, without waiting in the table.
    pub held_at_once: u64,
    /// Rows and bytes of the packed facts.
    pub packs: u64,
    pub pack_bytes: u64,
}

impl Shape {
    pub fn jobs_per_s(&self) -> f64 {
        self.jobs as f64 / self.seconds
    }

    pub fn jobs_per_commit(&self) -> f64 {
        self.jobs as f64 / self.commits.max(1) as f64
    }
}

/// One run on a new file in `dir`.
pub async fn run(dir: &Path, regime: Regime, load: Load) -> Result<Shape> {
    let folder = Folder::new(dir)?;
    run_on(&folder.database(), regime, load).await
}

/// One run on `database`, which may have a past.
pub async fn run_on(database: &Path, regime: Regime, load: Load) -> Result<Shape> {
    let rig = Rig::open(database).await?;
    let before = rig.queue.counts().completed;
    let (old_packs, old_bytes, old_seq) = stored(&rig).await?;
    let mut workers = None;
    if regime != Regime::Backlog {
        workers = Some(rig.work(load.workers, Arc::new(Instantly)));
    }
    let (mut started, mut commits_before) = (Instant::now(), commits());
    match regime {
        Regime::Flow => produce(&rig, load, 1).await?,
        Regime::Many => produce(&rig, load, 100).await?,
        Regime::Backlog => {
            produce(&rig, load, 100).await?;
            (started, commits_before) = (Instant::now(), commits());
            workers = Some(rig.work(load.workers, Arc::new(Instantly)));
        }
    }
    rig.succeeded(before + load.jobs).await?;
    let (seconds, commits) = (started.elapsed().as_secs_f64(), commits() - commits_before);
    let (packs, pack_bytes, _) = stored(&rig).await?;
    let held_at_once = rig
        .store
        .read(move |c| {
            Ok(c.query_row(
                "SELECT count(*) FROM jobs WHERE seq > ?1 AND started_at = created_at AND state = 'succeeded'",
                [old_seq],
                |row| row.get(0),
            )?)
        })
        .await?;
    drop(workers);
    rig.close().await?;
    Ok(Shape {
        jobs: load.jobs,
        seconds,
        commits,
        held_at_once,
        packs: packs - old_packs,
        pack_bytes: pack_bytes - old_bytes,
    })
}

async fn produce(rig: &Rig, load: Load, at_once: u64) -> Result<()> {
    let next = Arc::new(AtomicU64::new(0));
    let mut producers = JoinSet::new();
    for _ in 0..load.producers.min(load.jobs.div_ceil(at_once)).max(1) {
        let (queue, next, jobs) = (rig.queue.clone(), next.clone(), load.jobs);
        producers.spawn(async move {
            loop {
                let first = next.fetch_add(at_once, Ordering::Relaxed);
                if first >= jobs {
                    return Ok::<_, nexaas_engine::EngineError>(());
                }
                if at_once == 1 {
                    queue.enqueue(job()).await?;
                } else {
                    queue.enqueue_many((first..jobs.min(first + at_once)).map(|_| job()).collect()).await?;
                }
            }
        });
    }
    while let Some(ended) = producers.join_next().await {
        ended??;
    }
    Ok(())
}

/// Rows and bytes of the packed facts, and the highest job.
async fn stored(rig: &Rig) -> Result<(u64, u64, i64)> {
    Ok(rig
        .store
        .read(|c| {
            let (packs, bytes) =
                c.query_row("SELECT count(*), coalesce(sum(length(facts)), 0) FROM bus_packs", [], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?;
            let seq = c.query_row("SELECT coalesce(max(seq), 0) FROM jobs", [], |row| row.get(0))?;
            Ok((packs, bytes, seq))
        })
        .await?)
}
