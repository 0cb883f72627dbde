//! Wake-ups that follow commits: a task that waits for a kind of change sleeps until a write that raised its signal is on disk.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// Clones are the same signal.
#[derive(Debug, Clone)]
pub struct Signal(Arc<State>);

#[derive(Debug)]
struct State {
    raised: AtomicBool,
    version: watch::Sender<u64>,
}

impl Signal {
    /// Inside a write: listeners wake once the batch of this write is committed. A spurious wake-up is possible (the write
    /// was undone, its neighbours were not); a lost one is not.
    pub fn raise(&self) {
        self.0.raised.store(true, Ordering::Release);
    }

    /// Outside a write: listeners wake now.
    pub fn raise_now(&self) {
        self.0.version.send_modify(|v| *v = v.wrapping_add(1));
    }

    /// Hears every raise after this call.
    pub fn listen(&self) -> watch::Receiver<u64> {
        self.0.version.subscribe()
    }
}

/// All signals of one store.
#[derive(Debug, Default)]
pub(super) struct Signals(Mutex<Vec<Signal>>);

impl Signals {
    pub(super) fn register(&self) -> Signal {
        let signal = Signal(Arc::new(State { raised: AtomicBool::new(false), version: watch::Sender::new(0) }));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(signal.clone());
        signal
    }

    pub(super) fn deliver(&self) {
        for signal in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if signal.0.raised.swap(false, Ordering::AcqRel) {
                signal.raise_now();
            }
        }
    }
}
