//! How often one event may be called: so many at once, then so many a second. Counted in memory: a restart forgives.
//!
//! Always true here: the table is bounded; a clock that was set back locks nobody out for longer than a full burst takes.

use crate::error::{EngineError, Result};
use chrono::{DateTime, Duration, Utc};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Calls of one event that may come at once.
const BURST: i32 = 200;
/// And from then on, one per this.
const STEP_MS: i64 = 50;
const MOST_KEYS: usize = 10_000;

/// For each event, when what it was granted so far is used up (the generic cell rate algorithm).
#[derive(Debug, Default)]
pub(super) struct Pace(Mutex<HashMap<String, DateTime<Utc>>>);

impl Pace {
    pub fn admit(&self, event: &str, now: DateTime<Utc>) -> Result<()> {
        let step = Duration::milliseconds(STEP_MS);
        let reach = step * BURST;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let used = all.get(event).copied().filter(|used| *used > now && *used - now <= reach).unwrap_or(now);
        let over = used + step - (now + reach);
        if over > Duration::zero() {
            let wait = u64::try_from(over.num_seconds()).unwrap_or(0).max(1);
            return Err(EngineError::rate_limited(wait, format!("Too many calls; try again in {wait} s")));
        }
        if all.len() >= MOST_KEYS && !all.contains_key(event) {
            all.retain(|_, used| *used > now && *used - now <= reach);
            if all.len() >= MOST_KEYS {
                return Err(EngineError::rate_limited(1, "Too many calls; try again in 1 s"));
            }
        }
        all.insert(event.to_owned(), used + step);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_taken_and_then_one_per_step() {
        let (pace, now) = (Pace::default(), DateTime::UNIX_EPOCH);
        for _ in 0..BURST {
            pace.admit("e", now).unwrap();
        }
        assert!(pace.admit("e", now).is_err());
        pace.admit("f", now).unwrap();
        let later = now + Duration::milliseconds(STEP_MS);
        pace.admit("e", later).unwrap();
        assert!(pace.admit("e", later).is_err());
    }

    #[test]
    fn a_clock_that_was_set_back_locks_nobody_out() {
        let (pace, now) = (Pace::default(), DateTime::UNIX_EPOCH);
        for _ in 0..BURST {
            pace.admit("e", now).unwrap();
        }
        pace.admit("e", now - Duration::hours(1)).unwrap();
    }

    #[test]
    fn the_table_stays_bounded() {
        let (pace, now) = (Pace::default(), DateTime::UNIX_EPOCH);
        for n in 0..MOST_KEYS {
            pace.admit(&n.to_string(), now).unwrap();
        }
        assert!(pace.admit("one more", now).is_err());
        pace.admit("one more", now + Duration::seconds(1)).unwrap();
        assert_eq!(pace.0.lock().unwrap().len(), 1);
    }
}
