//! A queue and its events on a real database, with a clock that moves only when told and no tasks of their own.

use crate::action::ActionType;
use crate::bus::Bus;
use crate::event::Events;
use crate::queue::{Claimed, JobId, NewJob, Outcome, Queue};
use crate::store::Store;
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use nexaas_common::clock::{Clock as _, ManualClock, SharedClock};
use nexaas_common::id::BootId;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

pub(crate) struct Rig {
    dir: TempDir,
    pub clock: Arc<ManualClock>,
    pub store: Store,
    pub bus: Bus,
    pub queue: Queue,
    pub events: Events,
}

pub(crate) fn utc(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().with_timezone(&Utc)
}

impl Rig {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = ManualClock::new(utc("2026-01-01T00:00:00Z"));
        Self::open(dir, clock).await
    }

    async fn open(dir: TempDir, clock: Arc<ManualClock>) -> Self {
        let shared: SharedClock = clock.clone();
        let store = Store::open(&dir.path().join("nexaas.db"), &shared).await.unwrap();
        let bus = Bus::open(store.clone(), shared.clone()).await.unwrap();
        let queue = Queue::open(store.clone(), bus.clone(), shared.clone(), BootId::generate()).await.unwrap();
        let events = Events::new(store.clone(), bus.clone(), queue.clone(), shared, Arc::new(|| Tz::UTC));
        Self { dir, clock, store, bus, queue, events }
    }

    /// As if the process had died and another had started on the same files.
    pub async fn restart(self) -> Self {
        let Self { dir, clock, store, bus, queue, events } = self;
        drop((store, bus, queue, events));
        Self::open(dir, clock).await
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    pub fn advance(&self, seconds: i64) {
        self.clock.advance(chrono::Duration::seconds(seconds));
    }

    /// A call from outside for an event.
    pub async fn deliver(&self, id: &str, payload: Option<serde_json::Value>) -> crate::error::Result<JobId> {
        let (events, id) = (self.events.clone(), id.to_owned());
        self.store.write(move |tx| events.deliver_in(tx, &id, payload, None)).await
    }

    pub async fn claim(&self, most: usize) -> Vec<Claimed> {
        self.queue.claim(most).await.unwrap().jobs
    }

    /// Claims everything that is due and finishes it well; answers the jobs.
    pub async fn run_all(&self) -> Vec<Claimed> {
        let mut done = Vec::new();
        loop {
            let jobs = self.claim(16).await;
            if jobs.is_empty() {
                return done;
            }
            for job in jobs {
                self.queue.finish(&job, Outcome::Succeeded(String::new())).await.unwrap();
                done.push(job);
            }
        }
    }
}

pub(crate) fn job() -> NewJob {
    NewJob::new(ActionType::Script, json!({"command": "true"}))
}

pub(crate) fn failed() -> Outcome {
    Outcome::failed("no")
}
