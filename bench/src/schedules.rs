//! Many active schedules: how late their jobs start, what they cost in memory and at start-up, and what happens when all of
//! them are due at once.

use crate::figures::{percentile, print, print_percentiles};
use crate::processes::resident_mb;
use crate::rig::{Folder, Rig};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use nexaas_common::clock::{Clock as _, SharedClock, SystemClock};
use nexaas_engine::bus::Fact;
use nexaas_engine::event::Events;
use nexaas_engine::queue::{Claimed, Outcome};
use nexaas_engine::schedule::timer;
use nexaas_engine::worker::Perform;
use nexaas_test_system::Result;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Active schedules: half cron with seconds, once a minute; half intervals of 75 s; spread evenly.
    #[arg(long, default_value_t = 100_000)]
    pub schedules: u64,
    /// How long starts are watched.
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// Jobs that may run at once.
    #[arg(long, default_value_t = 16)]
    pub workers: usize,
}

const INTERVAL_S: u64 = 75;
const CHUNK: u64 = 500;
const PATIENCE: Duration = Duration::from_secs(300);

pub async fn run(dir: &Path, options: Options) -> Result<()> {
    let folder = Folder::new(dir)?;
    eprintln!("planting {} schedules", options.schedules);
    let planting = Instant::now();
    plant(&folder, options.schedules).await?;
    eprintln!("planted in {:.1} s", planting.elapsed().as_secs_f64());

    let opening = Instant::now();
    let engine = Engine::open(&folder).await?;
    engine.settle().await?;
    engine.start(options.workers);
    // Ready: the timer runs, and a write goes through.
    engine.write().await?;
    let startup = opening.elapsed();

    eprintln!("watching for {} s", options.seconds);
    let warm_up = Duration::from_secs(options.seconds.min(5));
    tokio::time::sleep(warm_up).await;
    engine.starts.take();
    tokio::time::sleep(Duration::from_secs(options.seconds)).await;
    let late = engine.starts.take();
    let rows = engine.rows_late(options.seconds).await?;
    let memory = resident_mb(std::process::id(), "VmRSS")?;

    println!("schedules: {}", options.schedules);
    print("starts_per_s", late.len() as f64 / options.seconds.max(1) as f64);
    print_percentiles("late", "", &late);
    print_percentiles("row_late", "", &rows);
    print("memory_mb", memory);
    print("startup_ms", startup.as_secs_f64() * 1000.0);

    eprintln!("all of them at once");
    let burst = engine.burst().await?;
    print("burst_s", burst.seconds);
    print("burst_write_p99_ms", burst.write_p99_ms);
    print("memory_after_burst_mb", resident_mb(std::process::id(), "VmRSS")?);
    engine.close().await
}

fn schedule(number: u64) -> Value {
    let (kind, expression) = match number % 2 {
        0 => ("cron", format!("{} * * * * *", number / 2 % 60)),
        _ => ("interval", INTERVAL_S.to_string()),
    };
    json!({
        "id": format!("bench-{number:06}"), "type": "bench", "condition_type": kind, "condition_expr": expression,
        "action_type": "script", "action_config": {"command": "true"},
    })
}

async fn plant(folder: &Folder, schedules: u64) -> Result<()> {
    let rig = Rig::open(&folder.database()).await?;
    let events = events(&rig);
    let mut next = 0;
    while next < schedules {
        let chunk = next..schedules.min(next + CHUNK);
        next = chunk.end;
        let events = events.clone();
        rig.store
            .write(move |tx| {
                for number in chunk {
                    events.upsert_in(tx, schedule(number))?;
                }
                Ok(())
            })
            .await?;
        if next % 10_000 == 0 {
            eprintln!("  {next} of {schedules} schedules planted");
        }
    }
    rig.close().await
}

fn events(rig: &Rig) -> Events {
    Events::new(
        rig.store.clone(),
        rig.bus.clone(),
        rig.queue.clone(),
        rig.clock.clone(),
        Arc::new(|| chrono_tz::Tz::UTC),
    )
}

struct Engine {
    rig: Rig,
    events: Events,
    starts: Arc<Starts>,
}

struct Burst {
    seconds: f64,
    write_p99_ms: f64,
}

impl Engine {
    async fn open(folder: &Folder) -> Result<Self> {
        let rig = Rig::open(&folder.database()).await?;
        let events = events(&rig);
        Ok(Self { rig, events, starts: Arc::new(Starts { clock: SystemClock::shared(), late: Mutex::default() }) })
    }

    /// Puts the intervals evenly over their length, as if they had been made over a while.
    async fn settle(&self) -> Result<()> {
        let now = micros();
        self.rig
            .store
            .write(move |tx| {
                let step = INTERVAL_S * 1_000_000;
                tx.execute(
                    "UPDATE events SET next_eval_at = ?1 + 1000000 + (rowid * 7919 * 1000) % ?2 WHERE condition_type = 'interval'",
                    [now, step as i64],
                )?;
                tx.execute("UPDATE events SET next_eval_at = max(next_eval_at, ?1) WHERE condition_type = 'cron'", [now])?;
                Ok(())
            })
            .await?;
        Ok(())
    }

    fn start(&self, workers: usize) {
        let _workers = self.rig.work(workers, self.starts.clone());
        timer::start(self.events.clone(), self.rig.clock.clone(), &self.rig.supervisor);
    }

    async fn write(&self) -> Result<()> {
        self.rig.bus.announce(Fact::new("bench.written", "bench", json!({}))).await?;
        Ok(())
    }

    /// Milliseconds from each slot of the last `seconds` to the row of its job.
    async fn rows_late(&self, seconds: u64) -> Result<Vec<f64>> {
        let since = micros() - seconds as i64 * 1_000_000;
        Ok(self
            .rig
            .store
            .read(move |c| {
                let mut statement = c.prepare("SELECT created_at - slot FROM jobs WHERE slot >= ?1")?;
                let rows = statement.query_map([since], |row| Ok(row.get::<_, i64>(0)? as f64 / 1000.0))?;
                Ok(rows.collect::<rusqlite::Result<_>>()?)
            })
            .await?)
    }

    /// Every schedule due at one moment: how long until the last of them has its job, and how long a write waits meanwhile
    /// that has nothing to do with them.
    async fn burst(&self) -> Result<Burst> {
        let at = (micros() / 1_000_000 + 3) * 1_000_000;
        let changed = self.events.changed().clone();
        self.rig
            .store
            .write(move |tx| {
                tx.execute("UPDATE events SET next_eval_at = ?1", [at])?;
                changed.raise();
                Ok(())
            })
            .await?;
        let wait = Duration::from_micros(u64::try_from(at - micros()).unwrap_or(0));
        tokio::time::sleep(wait).await;
        let stop = CancellationToken::new();
        let mut waits = JoinSet::new();
        waits.spawn(others(self.rig.bus.clone(), stop.clone()));
        let end = Instant::now() + PATIENCE;
        // Not by their slots: one that is reached late may already have had another, which then stands for both.
        loop {
            let left: bool = self
                .rig
                .store
                .read(move |c| {
                    Ok(c.query_row("SELECT EXISTS (SELECT 1 FROM events WHERE next_eval_at <= ?1)", [at], |r| {
                        r.get(0)
                    })?)
                })
                .await?;
            if !left {
                break;
            }
            if Instant::now() > end {
                return Err(format!("some schedules were not reached within {PATIENCE:?}").into());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let seconds = (micros() - at) as f64 / 1e6;
        stop.cancel();
        let mut waits = waits.join_next().await.ok_or("nobody wrote meanwhile")???;
        waits.sort_by(f64::total_cmp);
        Ok(Burst { seconds, write_p99_ms: percentile(&waits, 99.0) })
    }

    async fn close(self) -> Result<()> {
        self.rig.close().await
    }
}

/// Writes something small again and again; answers how many milliseconds each took.
async fn others(bus: nexaas_engine::Bus, stop: CancellationToken) -> Result<Vec<f64>> {
    let mut waits = Vec::new();
    while !stop.is_cancelled() {
        let asked = Instant::now();
        bus.announce(Fact::new("bench.written", "bench", json!({}))).await?;
        waits.push(asked.elapsed().as_secs_f64() * 1000.0);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(waits)
}

fn micros() -> i64 {
    SystemClock.now().timestamp_micros()
}

/// Notes how long after its slot each job is begun, and succeeds at once.
#[derive(Debug)]
struct Starts {
    clock: SharedClock,
    late: Mutex<Vec<f64>>,
}

impl Starts {
    fn take(&self) -> Vec<f64> {
        std::mem::take(&mut *self.late.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Perform for Starts {
    fn perform<'a>(&'a self, job: &'a Claimed) -> BoxFuture<'a, Outcome> {
        if let Some(slot) = job.slot {
            let late = (self.clock.now() - slot).num_microseconds().unwrap_or(i64::MAX) as f64 / 1000.0;
            self.late.lock().unwrap_or_else(PoisonError::into_inner).push(late);
        }
        std::future::ready(Outcome::Succeeded(String::new())).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn schedules_are_measured() {
        let dir = tempfile::tempdir().unwrap();
        run(dir.path(), Options { schedules: 120, seconds: 1, workers: 4 }).await.unwrap();
    }
}
