//! The engine of one tenant: its schedules, queue, workers, agents, chats and accounts, over one SQLite file and one
//! workspace folder. A library without any network server: the runner puts HTTP and gRPC around it.
//!
//! Always true here: whatever was acknowledged is on disk; every background task belongs to the supervisor that was handed in;
//! time comes from the clock that was handed in.

pub mod action;
pub mod agent;
mod assembly;
pub mod bus;
pub mod chat;
pub mod config;
pub mod error;
mod history;
pub mod model;
pub mod net;
pub mod queue;
pub mod store;
pub mod usage;
pub mod users;
pub mod workspace;

pub use bus::Bus;
pub use config::{EngineConfig, OpsConfig, Registration, Settings};
pub use error::{EngineError, Kind};
pub use store::Store;

use arc_swap::ArcSwapOption;
use assembly::{Base, Parts};
use nexaas_common::clock::SharedClock;
use nexaas_common::id::BootId;
use nexaas_common::task::Supervisor;
use std::sync::Arc;

/// A running engine.
#[derive(Debug)]
pub struct Engine {
    boot_id: BootId,
    settings: Arc<ArcSwapOption<Settings>>,
    supervisor: Supervisor,
    store: Store,
    bus: Bus,
    parts: Parts,
}

impl Engine {
    /// Opens the database, recovers what an earlier process left behind and starts the engine's tasks on `supervisor`.
    pub async fn start(
        config: EngineConfig,
        clock: SharedClock,
        supervisor: Supervisor,
    ) -> Result<Arc<Self>, EngineError> {
        let boot_id = BootId::generate();
        let settings = Arc::new(ArcSwapOption::empty());
        let store = Store::open(&config.database_path, &clock).await?;
        let bus = Bus::open(store.clone(), clock.clone()).await?;
        let parts = Parts::open(Base {
            config: &config,
            settings: settings.clone(),
            store: store.clone(),
            bus: bus.clone(),
            events: Arc::new(workspace::NoEvents),
            clock,
            boot: boot_id,
            supervisor: supervisor.clone(),
        })
        .await?;
        parts.workspace.watch(&supervisor);
        Ok(Arc::new(Self { boot_id, settings, supervisor, store, bus, parts }))
    }

    /// Names this start of the engine; leases belong to it.
    pub fn boot_id(&self) -> BootId {
        self.boot_id
    }

    /// Replaces the settings as a whole.
    pub fn configure(&self, settings: Settings) {
        self.settings.store(Some(Arc::new(settings)));
    }

    /// The settings in force; the defaults until `configure` was called.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.load_full().unwrap_or_default()
    }

    pub fn is_configured(&self) -> bool {
        self.settings.load().is_some()
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Whether the database writes and reads, and every essential task runs; the answer names what does not.
    pub async fn healthy(&self) -> Result<(), String> {
        if !self.supervisor.healthy() {
            return Err("a task the engine depends on has ended".to_owned());
        }
        self.store.check().await.map_err(|error| error.public().to_owned())
    }
}
