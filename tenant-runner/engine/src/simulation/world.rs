//! The engine under test, its clock, and how it dies.

use super::faults::Reaper;
use super::picture::{Camera, Picture};
use crate::bus::{Bus, BusEvent};
use crate::error::Result;
use crate::event::Events;
use crate::queue::Queue;
use crate::store::{Store, StoreOptions};
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use futures::{Stream, StreamExt as _};
use nexaas_common::clock::{Clock as _, ManualClock, SharedClock};
use nexaas_common::id::BootId;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use tempfile::TempDir;
use uuid::Uuid;

/// One start of the engine, without workers and timers: the simulation is both.
pub struct Engine {
    pub store: Store,
    pub queue: Queue,
    pub events: Events,
}

pub struct World {
    dir: TempDir,
    pub clock: Arc<ManualClock>,
    pub reaper: Arc<Reaper>,
    /// None between a crash and the next start.
    engine: Option<Engine>,
    camera: Option<Camera>,
    boot: Uuid,
    listener: Option<Pin<Box<dyn Stream<Item = BusEvent> + Send>>>,
    /// What the listener, which takes up where it was after each start, has seen last.
    pub heard: u64,
}

impl World {
    pub fn new(now: DateTime<Utc>) -> Self {
        let memory = PathBuf::from("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let clock = ManualClock::new(now);
        Self {
            dir,
            clock,
            reaper: Arc::default(),
            engine: None,
            camera: None,
            boot: Uuid::nil(),
            listener: None,
            heard: 0,
        }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("nexaas.db")
    }

    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    pub fn engine(&self) -> &Engine {
        self.engine.as_ref().unwrap()
    }

    /// As a process starts: everything new but the files.
    pub async fn start(&mut self) -> Result<()> {
        let boot = BootId::generate();
        self.boot = boot.uuid();
        let shared: SharedClock = self.clock.clone();
        let options = StoreOptions { faults: Some(self.reaper.clone()) };
        let store = Store::open_with(&self.path(), &shared, options).await?;
        let bus = Bus::open(store.clone(), shared.clone()).await?;
        let queue = Queue::open(store.clone(), bus.clone(), shared.clone(), boot).await?;
        let events = Events::new(store.clone(), bus.clone(), queue.clone(), shared, Arc::new(|| Tz::UTC));
        self.listener = Some(Box::pin(bus.subscribe(Some(self.heard))));
        self.engine = Some(Engine { store, queue, events });
        Ok(())
    }

    /// As a process ends, in order or not: what was in memory is gone.
    pub fn stop(&mut self) {
        self.listener = None;
        self.engine = None;
    }

    pub fn picture(&mut self) -> Picture {
        let path = self.path();
        self.camera.get_or_insert_with(|| Camera::open(&path)).take()
    }

    /// The boot that is on, or was on last.
    pub fn boot(&self) -> Uuid {
        self.boot
    }

    pub fn last_seq(&self) -> u64 {
        self.camera.as_ref().unwrap().last_seq()
    }

    /// What the listener hears up to the last event there is.
    pub async fn listen(&mut self, until: u64) -> Vec<BusEvent> {
        let mut heard = Vec::new();
        let listener = self.listener.as_mut().unwrap();
        while self.heard < until {
            let event = listener.next().await.unwrap();
            assert!(event.seq > self.heard, "event {} came after {}", event.seq, self.heard);
            self.heard = event.seq;
            heard.push(event);
        }
        heard
    }
}
