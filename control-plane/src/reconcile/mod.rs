//! From wish to reality. `plan` decides, `actions` do, `record` writes down; this module decides who reconciles and when.
//!
//! Always true: one control plane leads at a time and every write carries its epoch; a tenant has one pass at a time, while
//! different tenants proceed side by side within a bound; a pass is begun by a change (of the wish, or of the backend) and
//! a slow sweep stands behind lost news. Killed at any point, the next leader finds out how things are and goes on.

mod actions;
pub mod gate;
mod health;
mod lead;
mod orphans;
mod pass;
pub mod plan;
pub mod progress;
mod record;
mod session;

pub use gate::{Greeting, IssueIdentity, RunnerGate, RunnerSettings, SharedGate};
pub use pass::Outcome;

use crate::cipher::Cipher;
use crate::config::Settings;
use crate::service::{Backends, Changes};
use crate::store::Store;
use nexaas_common::backoff::Backoff;
use nexaas_common::id::BootId;
use nexaas_common::task::{OnExit, Supervisor};
use session::Sessions;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};

/// Every pace and patience of the reconciler.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// How long a new runner may take to answer before it is started anew.
    pub handshake: Duration,
    pub workspace: Duration,
    pub probe: Duration,
    /// How long a runner in doubt may take to answer.
    pub suspicion: Duration,
    /// Between attempts to reach a runner.
    pub connect: Backoff,
    /// Between passes that failed.
    pub retry: Backoff,
    /// Between looks at what cannot be mended from here.
    pub slow: Duration,
    /// Between probes of runners that are ready.
    pub health: Duration,
    /// Between looks at everything, in case news was lost.
    pub sweep: Duration,
    /// Between attempts to take the lead, and checks that it is still held.
    pub lead: Duration,
    /// Passes at once.
    pub parallel: usize,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(30),
            workspace: Duration::from_secs(90),
            probe: Duration::from_secs(30),
            suspicion: Duration::from_secs(3),
            connect: Backoff::new(Duration::from_millis(3), Duration::from_millis(25)),
            retry: Backoff::new(Duration::from_millis(500), Duration::from_secs(30)),
            slow: Duration::from_secs(60),
            health: Duration::from_secs(3),
            sweep: Duration::from_secs(30),
            lead: Duration::from_secs(1),
            parallel: 16,
        }
    }
}

/// What every pass needs.
pub struct Core {
    pub(crate) settings: Arc<Settings>,
    pub(crate) store: Store,
    pub(crate) backends: Backends,
    pub(crate) gate: SharedGate,
    pub(crate) issue: IssueIdentity,
    pub(crate) cipher: Cipher,
    pub(crate) timing: Timing,
    sessions: Sessions,
    permits: Semaphore,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("timing", &self.timing).finish_non_exhaustive()
    }
}

/// What a reconciler is made of.
pub struct Parts {
    pub settings: Arc<Settings>,
    pub store: Store,
    pub backends: Backends,
    pub gate: SharedGate,
    pub issue: IssueIdentity,
    pub cipher: Cipher,
    pub changes: Changes,
    pub timing: Timing,
}

#[derive(Debug, Clone)]
pub struct Reconciler {
    core: Arc<Core>,
    changes: Changes,
    boot: BootId,
    leading: Arc<AtomicBool>,
}

impl Reconciler {
    pub fn new(parts: Parts) -> Self {
        let permits = Semaphore::new(parts.timing.parallel);
        Self {
            core: Arc::new(Core {
                settings: parts.settings,
                store: parts.store,
                backends: parts.backends,
                gate: parts.gate,
                issue: parts.issue,
                cipher: parts.cipher,
                timing: parts.timing,
                sessions: Sessions::default(),
                permits,
            }),
            changes: parts.changes,
            boot: BootId::generate(),
            leading: Arc::default(),
        }
    }

    /// Runs until the supervisor stops.
    pub fn start(&self, supervisor: &Supervisor) {
        let this = self.clone();
        supervisor.spawn("reconciler", OnExit::Shutdown, move |token| async move { this.run(token).await });
    }

    /// Whether this control plane leads now.
    pub fn leads(&self) -> bool {
        self.leading.load(Ordering::Relaxed)
    }
}

/// The way in to one tenant's task.
#[derive(Debug, Default)]
pub struct Slot {
    dirty: AtomicBool,
    wish: Notify,
    hint: Notify,
}

impl Slot {
    /// The wish may have changed: whatever waits looks at once.
    fn wish(&self) {
        self.dirty.store(true, Ordering::SeqCst);
        self.wish.notify_one();
    }
    /// The backend says that something happened: looked at when it is due, but it does not cut a pause short.
    fn hint(&self) {
        self.dirty.store(true, Ordering::SeqCst);
        self.hint.notify_one();
    }
    async fn wished(&self) {
        self.wish.notified().await;
    }
    async fn hinted(&self) {
        self.hint.notified().await;
    }
}

#[cfg(test)]
mod tests;
