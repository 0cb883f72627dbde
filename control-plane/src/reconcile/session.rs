//! What this controller remembers of a runner between passes. Nothing here is needed after a restart: it is found out again.

use super::plan::Link;
use crate::domain::TenantId;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Default)]
pub struct Session {
    pub link: Link,
    pub boot: Option<String>,
    pub settings_version: u64,
    pub unresponsive: bool,
    /// Probes failed in a row since it was ready.
    pub misses: u32,
    /// When it was last found ready.
    pub ready_at: Option<Instant>,
    /// How often it was lost shortly after it had been ready.
    pub relapses: u32,
    /// It is not healed before this.
    pub not_before: Option<Instant>,
}

/// Lost again this soon after it was ready counts as a relapse.
const RELAPSE: Duration = Duration::from_secs(60);

impl Session {
    /// Called when it is found lost; answers how long to hold back before healing it, so that a runner that dies at
    /// once whenever it is started does not keep the host busy.
    pub fn hold_back(&mut self, delay: impl Fn(u32) -> Duration) -> Option<Duration> {
        let now = Instant::now();
        if let Some(until) = self.not_before {
            return until.checked_duration_since(now).filter(|d| !d.is_zero());
        }
        let relapsed = self.ready_at.is_some_and(|at| now.duration_since(at) < RELAPSE);
        // The first loss is healed at once, however young the runner is.
        let wait = match (relapsed, self.relapses) {
            (false, _) => {
                self.relapses = 0;
                Duration::ZERO
            }
            (true, 0) => Duration::ZERO,
            (true, n) => delay(n - 1),
        };
        self.relapses += 1;
        self.not_before = Some(now + wait);
        (!wait.is_zero()).then_some(wait)
    }

    pub fn ready(&mut self) {
        self.misses = 0;
        self.unresponsive = false;
        self.ready_at = Some(Instant::now());
        self.not_before = None;
    }
}

#[derive(Debug, Default)]
pub struct Sessions(Mutex<HashMap<TenantId, Session>>);

impl Sessions {
    pub fn get(&self, id: TenantId) -> Session {
        self.lock().get(&id).cloned().unwrap_or_default()
    }
    pub fn put(&self, id: TenantId, session: Session) {
        self.lock().insert(id, session);
    }
    pub fn forget(&self, id: TenantId) {
        self.lock().remove(&id);
    }
    /// Counts a failed probe; answers how many there were in a row.
    pub fn missed(&self, id: TenantId) -> u32 {
        let mut all = self.lock();
        let session = all.entry(id).or_default();
        session.misses += 1;
        session.misses
    }
    pub fn answered(&self, id: TenantId) {
        if let Some(session) = self.lock().get_mut(&id) {
            session.misses = 0;
        }
    }
    /// Whether this controller found it ready.
    pub fn is_ready(&self, id: TenantId) -> bool {
        self.lock().get(&id).is_some_and(|s| s.link == Link::Ready)
    }
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<TenantId, Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_loss_is_healed_at_once_and_relapses_wait_longer() {
        let delay = |n: u32| Duration::from_secs(10 * u64::from(n + 1));
        let mut s = Session::default();
        s.ready();
        assert_eq!(s.hold_back(delay), None);
        s.ready();
        assert_eq!(s.hold_back(delay), Some(Duration::from_secs(10)));
        assert!(s.hold_back(delay).is_some(), "asked again before the time is over, it still waits");
        s.ready();
        assert_eq!(s.hold_back(delay), Some(Duration::from_secs(20)));
    }
}
