//! How often one may try. Counted in memory: a restart forgives, which costs an attacker more than it gives.
//!
//! Always true here: the tables are bounded, whoever tries under however many names.

use crate::error::{EngineError, Result};
use chrono::{DateTime, Duration, Utc};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// At most `most` in any window of `window` that begins with the first.
#[derive(Debug)]
struct Limit {
    most: u32,
    window: Duration,
    seen: Mutex<HashMap<String, (DateTime<Utc>, u32)>>,
}

const MOST_KEYS: usize = 10_000;

impl Limit {
    fn new(most: u32, window: Duration) -> Self {
        Self { most, window, seen: Mutex::default() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, (DateTime<Utc>, u32)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, key: &str, now: DateTime<Utc>) -> Result<()> {
        let seen = self.lock();
        let Some((since, count)) = seen.get(key) else { return Ok(()) };
        let ends = *since + self.window;
        // A clock that was set back must not lock anybody out for longer than the window.
        if *count < self.most || now >= ends || now < *since {
            return Ok(());
        }
        let wait = u64::try_from((ends - now).num_seconds()).unwrap_or(0).max(1);
        Err(EngineError::rate_limited(wait, format!("Too many attempts; try again in {wait} seconds")))
    }

    fn count(&self, key: &str, now: DateTime<Utc>) {
        let mut seen = self.lock();
        if seen.len() >= MOST_KEYS && !seen.contains_key(key) {
            seen.retain(|_, (since, _)| now < *since + self.window && now >= *since);
            // Full of live entries: forget the oldest tenth rather than stop counting.
            if seen.len() >= MOST_KEYS {
                let mut ages: Vec<(DateTime<Utc>, String)> = seen.iter().map(|(k, (t, _))| (*t, k.clone())).collect();
                ages.sort();
                for (_, key) in ages.into_iter().take(MOST_KEYS / 10) {
                    seen.remove(&key);
                }
            }
        }
        let entry = seen.entry(key.to_owned()).or_insert((now, 0));
        if now >= entry.0 + self.window || now < entry.0 {
            *entry = (now, 0);
        }
        entry.1 = entry.1.saturating_add(1);
    }

    fn forget(&self, key: &str) {
        self.lock().remove(key);
    }
}

#[derive(Debug)]
pub(super) struct Limits {
    /// Failures per account.
    account: Limit,
    /// Logins per address, failed or not.
    address: Limit,
    registrations: Limit,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            account: Limit::new(10, Duration::minutes(5)),
            address: Limit::new(60, Duration::minutes(5)),
            registrations: Limit::new(30, Duration::minutes(10)),
        }
    }
}

impl Limits {
    pub fn login(&self, account: &str, address: Option<&str>, now: DateTime<Utc>) -> Result<()> {
        if let Some(address) = address {
            self.address.check(&clip(address), now)?;
            self.address.count(&clip(address), now);
        }
        self.account.check(&clip(account), now)
    }

    pub fn failed(&self, account: &str, now: DateTime<Utc>) {
        self.account.count(&clip(account), now);
    }

    pub fn succeeded(&self, account: &str) {
        self.account.forget(&clip(account));
    }

    pub fn registration(&self, address: Option<&str>, now: DateTime<Utc>) -> Result<()> {
        let address = clip(address.unwrap_or("unknown"));
        self.registrations.check(&address, now)?;
        self.registrations.count(&address, now);
        Ok(())
    }
}

/// Keys are kept, so a long one is cut.
fn clip(key: &str) -> String {
    key.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_fails_too_often_waits_until_the_window_ends() {
        let limits = Limits::default();
        let now = DateTime::UNIX_EPOCH;
        for _ in 0..10 {
            limits.login("ann", None, now).unwrap();
            limits.failed("ann", now);
        }
        let error = limits.login("ann", None, now + Duration::minutes(1)).unwrap_err();
        assert_eq!(error.kind, crate::error::Kind::RateLimited { retry_after_s: 240 });
        limits.login("bob", None, now).unwrap();
        limits.login("ann", None, now + Duration::minutes(5)).unwrap();
    }

    #[test]
    fn the_table_stays_bounded() {
        let limit = Limit::new(1, Duration::minutes(1));
        for n in 0..MOST_KEYS + 500 {
            limit.count(&n.to_string(), DateTime::UNIX_EPOCH);
        }
        assert!(limit.lock().len() <= MOST_KEYS);
    }
}
