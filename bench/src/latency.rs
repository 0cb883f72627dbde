//! From `enqueue` to the first line of the job's work, on an engine that has nothing else to do; and what that engine costs
//! while nothing is due.

use crate::figures::{print, print_percentiles};
use crate::plant::{Planted, plant};
use crate::processes::switches;
use crate::rig::{Folder, Rig, job};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use nexaas_engine::queue::{Claimed, Outcome};
use nexaas_engine::worker::Perform;
use nexaas_test_system::{Result, bin_dir};
use rusqlite::Connection;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Jobs queued one after another.
    #[arg(long, default_value_t = 2000)]
    pub jobs: u64,
    /// Finished jobs, and as many future ones, of the loaded table.
    #[arg(long, default_value_t = 100_000)]
    pub loaded: u64,
    /// How long context switches are counted.
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// Milliseconds between the end of a job and the next.
    #[arg(long, default_value_t = 5)]
    pub pause_ms: u64,
}

const WORKERS: usize = 4;
/// How long a process is left alone before its switches are counted.
const SETTLE: Duration = Duration::from_secs(15);

pub async fn run(dir: &Path, options: Options) -> Result<()> {
    let floor = Floor::open(dir)?;
    let (mut empty, mut loaded, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    eprintln!("planting {} finished and as many future jobs", options.loaded);
    let (small, large) = (Folder::new(dir)?, Folder::new(dir)?);
    plant(&large.database(), Planted { finished: options.loaded, future: options.loaded }).await?;
    let (small, large) = (Engine::open(&small).await?, Engine::open(&large).await?);
    eprintln!("queueing {} jobs, one by one, in turn in an empty and in a loaded table", options.jobs);
    // In turn, so that a noisy machine disturbs all alike. The first few warm caches and are not counted.
    let warm = options.jobs / 20;
    for round in 0..options.jobs + warm {
        let samples = [
            small.once(options.pause_ms).await?,
            large.once(options.pause_ms).await?,
            floor.once(options.pause_ms).await?,
        ];
        if round >= warm {
            for (sample, to) in samples.into_iter().zip([&mut empty, &mut loaded, &mut bare]) {
                to.push(sample);
            }
        }
    }
    small.close().await?;
    large.close().await?;
    println!("jobs: {}", options.jobs);
    print_percentiles("start", "", &empty);
    print_percentiles("start", "_loaded", &loaded);
    print_percentiles("floor_commit", "", &bare);
    let settle = SETTLE.min(Duration::from_secs(options.seconds));
    print("idle_wakeups_per_s", idle_runner(dir, settle, options.seconds).await?);
    print("idle_wakeups_per_s_engine", idle_engine(dir, settle, options.seconds).await?);
    Ok(())
}

struct Engine {
    rig: Rig,
    started: tokio::sync::Mutex<mpsc::UnboundedReceiver<Instant>>,
}

impl Engine {
    async fn open(folder: &Folder) -> Result<Self> {
        let rig = Rig::open(&folder.database()).await?;
        let (tell, started) = mpsc::unbounded_channel();
        let _workers = rig.work(WORKERS, Arc::new(Tell(tell)));
        Ok(Self { rig, started: tokio::sync::Mutex::new(started) })
    }

    /// Milliseconds from the call to the start. Leaves the engine idle: the job's end is on disk, and then a pause.
    async fn once(&self, pause_ms: u64) -> Result<f64> {
        let done = self.rig.queue.counts().completed;
        let asked = Instant::now();
        self.rig.queue.enqueue(job()).await?;
        let started = self.started.lock().await.recv().await.ok_or("the workers are gone")?;
        self.rig.succeeded(done + 1).await?;
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        Ok(started.duration_since(asked).as_secs_f64() * 1000.0)
    }

    async fn close(self) -> Result<()> {
        self.rig.close().await
    }
}

/// Says when it was begun.
#[derive(Debug)]
struct Tell(mpsc::UnboundedSender<Instant>);

impl Perform for Tell {
    fn perform<'a>(&'a self, _: &'a Claimed) -> BoxFuture<'a, Outcome> {
        // Whoever measured may have gone.
        let _ = self.0.send(Instant::now());
        std::future::ready(Outcome::Succeeded(String::new())).boxed()
    }
}

/// One row in one durable commit, on the same disk: less cannot be waited for.
struct Floor {
    connection: std::sync::Mutex<Connection>,
    _folder: Folder,
}

impl Floor {
    fn open(dir: &Path) -> Result<Self> {
        let folder = Folder::new(dir)?;
        let connection = Connection::open(folder.database())?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute("CREATE TABLE rows (row TEXT)", [])?;
        Ok(Self { connection: std::sync::Mutex::new(connection), _folder: folder })
    }

    async fn once(&self, pause_ms: u64) -> Result<f64> {
        let took = tokio::task::block_in_place(|| -> Result<f64> {
            let connection = self.connection.lock().map_err(|_| "the floor's lock is poisoned")?;
            let asked = Instant::now();
            connection.prepare_cached("INSERT INTO rows VALUES (?1)")?.execute(["a row"])?;
            Ok(asked.elapsed().as_secs_f64() * 1000.0)
        })?;
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        Ok(took)
    }
}

/// The real program, alone, without anything to do.
async fn idle_runner(dir: &Path, settle: Duration, seconds: u64) -> Result<f64> {
    let folder = Folder::new(dir)?;
    let log = std::fs::File::create(folder.path().join("log"))?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let program = bin_dir()?.join("nexaas-runner");
    let runner = Command::new(&program)
        .arg("serve")
        .env("NEXAAS_DATA_DIR", folder.path().join("data"))
        .env("HOST", "127.0.0.1")
        .env("PORT", port.to_string())
        .env("API_KEY", "a-key-for-a-measurement")
        .env_remove("DATABASE_URL")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{} does not start: {error}", program.display()))?;
    let url = format!("http://127.0.0.1:{port}/api/health");
    let client = reqwest::Client::new();
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        if client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
            break;
        }
        if Instant::now() > end {
            return Err(
                format!("the runner is not well: {}", std::fs::read_to_string(folder.path().join("log"))?).into()
            );
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // An open connection would be watched.
    drop(client);
    wakeups(runner, "the runner", settle, seconds).await
}

/// This program again, with nothing but the engine in it.
async fn idle_engine(dir: &Path, settle: Duration, seconds: u64) -> Result<f64> {
    let folder = Folder::new(dir)?;
    let mut engine = Command::new(std::env::current_exe()?)
        .arg("engine-alone")
        .arg(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut ready = [0];
    let mut out = engine.stdout.take().ok_or("the engine has no output")?;
    tokio::time::timeout(Duration::from_secs(30), out.read_exact(&mut ready)).await??;
    wakeups(engine, "the engine", settle, seconds).await
}

async fn wakeups(mut process: Child, what: &str, settle: Duration, seconds: u64) -> Result<f64> {
    let pid = process.id().ok_or("the process has ended")?;
    eprintln!("leaving {what} alone for {settle:?}, then counting for {seconds} s");
    tokio::time::sleep(settle).await;
    let before = switches(pid)?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let mut total = 0;
    for (id, (name, count)) in switches(pid)? {
        let woken = count - before.get(&id).map_or(0, |(_, count)| *count);
        total += woken;
        if woken > 0 {
            eprintln!("  {name} ({id}): {woken}");
        }
    }
    process.kill().await?;
    Ok(total as f64 / seconds.max(1) as f64)
}

/// Runs an engine until its input ends.
pub async fn engine_alone(folder: &Path) -> Result<()> {
    use nexaas_common::clock::SystemClock;
    use nexaas_common::task::Supervisor;
    use nexaas_engine::{Engine, EngineConfig};
    use std::io::Write as _;
    let workspace = folder.join("workspace");
    std::fs::create_dir_all(&workspace)?;
    let config = EngineConfig::new("standalone", folder.join("nexaas.db"), workspace);
    let supervisor = Supervisor::new();
    let engine = Engine::start(config, SystemClock::shared(), supervisor.clone()).await?;
    let mut out = std::io::stdout();
    out.write_all(b"!")?;
    out.flush()?;
    // A thread that sleeps in a read is not woken before there is something to read.
    let mut nothing = Vec::new();
    tokio::io::stdin().read_to_end(&mut nothing).await?;
    drop(engine);
    Ok(supervisor.shutdown(Duration::from_secs(10)).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_time_to_a_start_is_measured() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path()).unwrap();
        plant(&folder.database(), Planted { finished: 50, future: 50 }).await.unwrap();
        let engine = Engine::open(&folder).await.unwrap();
        for _ in 0..5 {
            assert!(engine.once(0).await.unwrap() > 0.0);
        }
        engine.close().await.unwrap();
        assert!(Floor::open(dir.path()).unwrap().once(0).await.unwrap() > 0.0);
    }
}
