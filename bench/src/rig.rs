//! The engine's queue as the engine wires it (store, bus, queue, workers on one supervisor), with work that ends at once.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use nexaas_common::clock::{SharedClock, SystemClock};
use nexaas_common::id::BootId;
use nexaas_common::task::Supervisor;
use nexaas_engine::action::ActionType;
use nexaas_engine::queue::{Claimed, NewJob, Outcome};
use nexaas_engine::worker::{Perform, Workers};
use nexaas_engine::{Bus, Queue, Store};
use nexaas_test_system::Result;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

/// A folder of its own on the disk that is measured; gone when dropped.
pub struct Folder(TempDir);

impl Folder {
    pub fn new(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        Ok(Self(tempfile::Builder::new().prefix("bench-").tempdir_in(dir)?))
    }

    pub fn database(&self) -> PathBuf {
        self.0.path().join("nexaas.db")
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

pub struct Rig {
    pub clock: SharedClock,
    pub store: Store,
    pub bus: Bus,
    pub queue: Queue,
    pub supervisor: Supervisor,
}

impl Rig {
    pub async fn open(database: &Path) -> Result<Self> {
        let clock = SystemClock::shared();
        let store = Store::open(database, &clock).await?;
        let bus = Bus::open(store.clone(), clock.clone()).await?;
        let queue = Queue::open(store.clone(), bus.clone(), clock.clone(), BootId::generate()).await?;
        Ok(Self { clock, store, bus, queue, supervisor: Supervisor::new() })
    }

    pub fn work(&self, size: usize, perform: Arc<dyn Perform>) -> Workers {
        Workers::start(size, self.queue.clone(), perform, self.clock.clone(), &self.supervisor)
    }

    /// Waits until `jobs` jobs have succeeded since the beginning, as the disk has it: the counts follow commits.
    pub async fn succeeded(&self, jobs: u64) -> Result<()> {
        // Every commit of a job's end has a fact on the bus.
        let mut told = self.bus.listen();
        loop {
            told.borrow_and_update();
            let counts = self.queue.counts();
            if counts.failed > 0 {
                return Err(format!("{} jobs failed", counts.failed).into());
            }
            if counts.completed >= jobs {
                return Ok(());
            }
            match tokio::time::timeout(PATIENCE, told.changed()).await {
                Ok(heard) => heard?,
                Err(_) => return Err(format!("nothing ended for {PATIENCE:?}; {} of {jobs}", counts.completed).into()),
            }
        }
    }

    pub async fn close(self) -> Result<()> {
        Ok(self.supervisor.shutdown(PATIENCE).await?)
    }
}

/// The job that every measurement uses: about what a script's schedule would queue.
pub fn job() -> NewJob {
    NewJob::new(ActionType::Script, json!({"command": "true"}))
}

/// Succeeds at once.
#[derive(Debug)]
pub struct Instantly;

impl Perform for Instantly {
    fn perform<'a>(&'a self, _: &'a Claimed) -> BoxFuture<'a, Outcome> {
        std::future::ready(Outcome::Succeeded(String::new())).boxed()
    }
}
