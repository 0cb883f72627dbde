//! apalis on SQLite, measured as the engine's queue is: durable jobs a second from push to acknowledged end, in one process.
//! Answers one JSON line on standard output; `--help` names the settings, whose defaults are the fastest that were found.

use apalis::prelude::*;
use apalis_sqlite::{Config, SqliteConnectOptions, SqlitePool, SqlitePoolOptions, SqliteStorage};
use clap::{Parser, ValueEnum};
use sqlx::Row as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::task::JoinSet;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const QUEUE: &str = "bench";

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Mode {
    /// Producers push one job each and wait for it, while the worker runs.
    Flow,
    /// The same in bulks of 100.
    Many,
    /// Everything is pushed first, then the worker starts; only the second half is timed.
    Backlog,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Durability {
    /// `synchronous=FULL` on every connection.
    Full,
    /// Whatever `SqliteStorage::setup` leaves.
    Default,
}

#[derive(Parser)]
struct Arguments {
    #[arg(long)]
    database: PathBuf,
    #[arg(long, value_enum)]
    mode: Mode,
    #[arg(long)]
    jobs: u64,
    #[arg(long, default_value_t = 256)]
    producers: u64,
    #[arg(long, value_enum, default_value_t = Durability::Full)]
    durability: Durability,
    /// Jobs that one fetch takes.
    #[arg(long, default_value_t = 1000)]
    batch: usize,
    #[arg(long, default_value_t = 1)]
    connections: u32,
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Milliseconds between looks at the table.
    #[arg(long, default_value_t = 1)]
    poll_ms: u64,
    /// Whether a job is locked by another write just before it runs.
    #[arg(long)]
    lock_tasks: bool,
}

#[derive(Clone)]
struct Progress {
    done: Arc<AtomicU64>,
    goal: u64,
    reached: Arc<Notify>,
}

async fn perform(_job: u64, progress: Data<Progress>) -> Result<(), BoxDynError> {
    if progress.done.fetch_add(1, Ordering::AcqRel) + 1 == progress.goal {
        progress.reached.notify_one();
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let pool = open(&arguments).await?;
    let progress = Progress { done: Arc::default(), goal: arguments.jobs, reached: Arc::default() };
    let storage = SqliteStorage::<u64>::new(&pool).with_config(
        Config::default().queue(QUEUE).batch_size(arguments.batch).lock_tasks(arguments.lock_tasks).persist_results(true),
    );
    let mut started = Instant::now();
    if arguments.mode == Mode::Backlog {
        push(&storage, arguments.jobs, arguments.producers, 1000).await?;
        started = Instant::now();
    }
    let mut workers = JoinSet::new();
    for number in 0..arguments.workers {
        let backend = storage.clone().poll_with_interval(Duration::from_millis(arguments.poll_ms));
        let worker = WorkerBuilder::new(format!("bench-{number}")).backend(backend).data(progress.clone()).build(perform);
        workers.spawn(async move {
            if let Err(error) = worker.run().await {
                eprintln!("the worker ended: {error}");
                std::process::exit(1);
            }
        });
    }
    match arguments.mode {
        Mode::Flow => push(&storage, arguments.jobs, arguments.producers, 1).await?,
        Mode::Many => push(&storage, arguments.jobs, arguments.producers, 100).await?,
        Mode::Backlog => {}
    }
    progress.reached.notified().await;
    wait_durable(&pool).await?;
    let seconds = started.elapsed().as_secs_f64();
    let pragma = |name: &str| sqlx::query(sqlx::AssertSqlSafe(format!("PRAGMA {name}")));
    let synchronous: i64 = pragma("synchronous").fetch_one(&pool).await?.get(0);
    let journal: String = pragma("journal_mode").fetch_one(&pool).await?.get(0);
    let version: String = sqlx::query("SELECT sqlite_version()").fetch_one(&pool).await?.get(0);
    let answer = serde_json::json!({
        "jobs": arguments.jobs, "seconds": seconds, "jobs_per_s": arguments.jobs as f64 / seconds,
        "synchronous": synchronous, "journal_mode": journal, "sqlite": version,
    });
    println!("{answer}");
    Ok(())
}

async fn open(arguments: &Arguments) -> Result<SqlitePool, Failure> {
    let options = SqliteConnectOptions::new().filename(&arguments.database).create_if_missing(true).busy_timeout(Duration::from_secs(60));
    // The pragmas of `SqliteStorage::setup`, on every connection and not only on the one that it happens to use.
    let options = match arguments.durability {
        Durability::Default => options,
        Durability::Full => options
            .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal)
            .synchronous(sqlx::sqlite::SqliteSynchronous::Full)
            .pragma("temp_store", "MEMORY")
            .pragma("cache_size", "64000")
            .pragma("journal_size_limit", "67108864"),
    };
    let pool = SqlitePoolOptions::new()
        .max_connections(arguments.connections)
        .acquire_timeout(Duration::from_secs(600))
        .connect_with(options)
        .await?;
    match arguments.durability {
        Durability::Default => SqliteStorage::setup(&pool).await?,
        Durability::Full => SqliteStorage::migrations().run(&pool).await?,
    }
    Ok(pool)
}

async fn push(storage: &SqliteStorage<u64>, jobs: u64, producers: u64, at_once: u64) -> Result<(), Failure> {
    let producers = producers.min(jobs.div_ceil(at_once)).max(1);
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..producers {
        let (mut storage, next) = (storage.clone(), next.clone());
        tasks.spawn(async move {
            loop {
                let first = next.fetch_add(at_once, Ordering::Relaxed);
                if first >= jobs {
                    return Ok::<(), Failure>(());
                }
                if at_once == 1 {
                    storage.push(first).await?;
                } else {
                    storage.push_bulk((first..jobs.min(first + at_once)).collect()).await?;
                }
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

/// The last job has run; its end reaches the table a moment later.
async fn wait_durable(pool: &SqlitePool) -> Result<(), Failure> {
    loop {
        let open: i64 =
            sqlx::query("SELECT count(*) FROM Jobs WHERE status IN ('Pending', 'Queued', 'Running')").fetch_one(pool).await?.get(0);
        if open == 0 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
