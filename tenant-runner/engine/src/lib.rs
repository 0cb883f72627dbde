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
pub mod event;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod history;
pub mod hooks;
pub mod intake;
pub mod model;
pub mod net;
pub mod ops;
pub mod queue;
pub mod retention;
pub mod schedule;
#[cfg(test)]
mod simulation;
pub mod standard_webhooks;
pub mod store;
#[cfg(test)]
mod testing;
pub mod usage;
pub mod users;
pub mod worker;
pub mod workspace;

pub use bus::Bus;
pub use config::{BackupState, EngineConfig, OpsConfig, OpsLimits, Registration, Settings};
pub use error::{EngineError, Kind};
pub use event::Events;
pub use ops::Ops;
pub use queue::Queue;
pub use store::Store;

pub use config::OutputsConfig;

use action::{Actions, Outputs, SystemNames};
use arc_swap::ArcSwapOption;
use assembly::{Base, Parts};
use nexaas_common::clock::SharedClock;
use nexaas_common::id::BootId;
use nexaas_common::task::{OnExit, Supervisor};
use std::sync::Arc;
use worker::Workers;

/// A running engine.
#[derive(Debug)]
pub struct Engine {
    boot_id: BootId,
    settings: Arc<ArcSwapOption<Settings>>,
    supervisor: Supervisor,
    store: Store,
    bus: Bus,
    queue: Queue,
    events: Events,
    ops: Ops,
    outputs: Outputs,
    parts: Parts,
    fallback_zone: chrono_tz::Tz,
}

impl Engine {
    /// Opens the database, recovers what an earlier process left behind and starts the engine's tasks on `supervisor`.
    pub async fn start(
        config: EngineConfig,
        clock: SharedClock,
        supervisor: Supervisor,
    ) -> Result<Arc<Self>, EngineError> {
        let boot_id = BootId::generate();
        let settings: Arc<ArcSwapOption<Settings>> = Arc::new(ArcSwapOption::empty());
        let store = Store::open(&config.database_path, &clock).await?;
        let bus = Bus::open(store.clone(), clock.clone()).await?;
        let queue = Queue::open(store.clone(), bus.clone(), clock.clone(), boot_id).await?;
        let fallback_zone = config.default_timezone;
        let zone = {
            let settings = settings.clone();
            Arc::new(move || zone_of(settings.load().as_deref(), fallback_zone))
        };
        let events = Events::new(store.clone(), bus.clone(), queue.clone(), clock.clone(), zone);
        let parts = Parts::open(Base {
            config: &config,
            settings: settings.clone(),
            store: store.clone(),
            bus: bus.clone(),
            events: events.clone(),
            clock: clock.clone(),
            boot: boot_id,
            supervisor: supervisor.clone(),
        })
        .await?;
        let agents = Arc::new(parts.agents.clone());
        let actions = Actions::new(&config, settings.clone(), agents, Arc::new(SystemNames), clock.clone())?
            .with_queue(queue.clone());
        let outputs = actions.outputs().clone();
        outputs.start(queue.clone(), &bus, clock.clone(), &supervisor);
        let size = config.worker_pool_size;
        let workers = Workers::start(size, queue.clone(), Arc::new(actions), clock.clone(), &supervisor);
        schedule::timer::start(events.clone(), clock.clone(), &supervisor);
        schedule::clock_change::start(vec![events.changed().clone(), queue.ready().clone()], &supervisor);
        parts.workspace.watch(&supervisor);
        let rules = [retention::CORE, ops::KEEP, usage::KEEP, chat::KEEP].concat();
        retention::start(store.clone(), &bus, clock.clone(), rules.clone(), &supervisor);
        let folder = config.database_path.parent().map(ToOwned::to_owned).unwrap_or_default();
        let ops = Ops::start(
            ops::Sources {
                store: store.clone(),
                bus: bus.clone(),
                queue: queue.clone(),
                events: events.clone(),
                workers,
                workspace: parts.workspace.clone(),
                clock,
                monotonic: ops::monotonic(),
                settings: settings.clone(),
                tenant: config.tenant,
                database: config.database_path,
                folder,
                rules,
                model_url: config.anthropic_base_url,
                allowed: config.allow_private_webhook_targets,
                search_path: search_path(&config.script_env),
            },
            config.ops,
            &supervisor,
        );
        Ok(Arc::new(Self {
            boot_id,
            settings,
            supervisor,
            store,
            bus,
            queue,
            events,
            ops,
            outputs,
            parts,
            fallback_zone,
        }))
    }

    /// Names this start of the engine; leases belong to it.
    pub fn boot_id(&self) -> BootId {
        self.boot_id
    }

    /// Replaces the settings as a whole. Schedules that leave their zone to the default are planned anew if that changed.
    pub fn configure(&self, settings: Settings) {
        let zone = zone_of(Some(&settings), self.fallback_zone);
        let before = zone_of(self.settings.swap(Some(Arc::new(settings))).as_deref(), self.fallback_zone);
        if zone == before {
            return;
        }
        // Follow-ups that name no zone are read in the new one.
        self.parts.workspace.nudge();
        let events = self.events.clone();
        self.supervisor.spawn("replan-schedules", OnExit::Expected, |_| async move {
            if let Err(error) = events.replan_default_zone().await {
                tracing::error!(error = error.chain(), "schedules could not be planned for the new default zone");
            }
        });
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

    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    pub fn events(&self) -> &Events {
        &self.events
    }

    pub fn ops(&self) -> &Ops {
        &self.ops
    }

    /// What scripts wrote beyond their answers.
    pub fn outputs(&self) -> &Outputs {
        &self.outputs
    }

    /// Whether the database writes and reads, and every essential task runs; the answer names what does not.
    pub async fn healthy(&self) -> Result<(), String> {
        if !self.supervisor.healthy() {
            return Err("a task the engine depends on has ended".to_owned());
        }
        self.store.check().await.map_err(|error| error.public().to_owned())
    }
}

/// Where scripts find their commands.
fn search_path(script_env: &[(String, String)]) -> String {
    script_env.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path.clone()).unwrap_or_default()
}

fn zone_of(settings: Option<&Settings>, fallback: chrono_tz::Tz) -> chrono_tz::Tz {
    settings.and_then(|settings| settings.default_timezone).unwrap_or(fallback)
}
