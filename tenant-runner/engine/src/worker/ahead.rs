//! How many jobs to take ahead: as many as the workers have lately done in a few milliseconds. Long jobs are not taken ahead
//! at all, so that an urgent one never waits behind work that somebody merely reserved.

use crate::queue::Handoff;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Work that may be taken ahead, per worker.
const REACH: Duration = Duration::from_millis(5);
const MOST: usize = 2048;

#[derive(Debug)]
pub(super) struct Ahead {
    size: usize,
    /// The moving average of what a job takes, in nanoseconds; 0 before the first.
    average: AtomicU64,
    ahead: AtomicUsize,
}

impl Ahead {
    pub fn new(size: usize) -> Self {
        Self { size, average: AtomicU64::new(0), ahead: AtomicUsize::new(0) }
    }

    pub fn get(&self) -> usize {
        self.ahead.load(Ordering::Acquire)
    }

    /// Notes what a job took, and makes or takes room accordingly.
    pub fn learn(&self, took: Duration, handoff: &Handoff) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1);
        let before = self.average.load(Ordering::Relaxed);
        // A long job counts at once; short ones have to prove themselves.
        let average =
            if before == 0 || took > before.saturating_mul(16) { took } else { before - before / 8 + took / 8 };
        self.average.store(average, Ordering::Relaxed);
        self.set(wanted(average, self.size), handoff);
    }

    /// Takes nothing ahead until jobs have proved short again.
    pub fn forget(&self, handoff: &Handoff) {
        self.average.store(0, Ordering::Relaxed);
        self.set(0, handoff);
    }

    fn set(&self, ahead: usize, handoff: &Handoff) {
        let before = self.get();
        // Small changes are not worth the traffic.
        if ahead != 0 && ahead.abs_diff(before) <= before / 4 {
            return;
        }
        let before = self.ahead.swap(ahead, Ordering::AcqRel);
        handoff.change_room(ahead as i64 - before as i64);
    }

    /// Whether so much room has come free that asking for more is worth a write.
    pub fn is_low(&self, handoff: &Handoff) -> bool {
        handoff.room() * 2 >= (self.size + self.get()) as i64 || handoff.waiting() == 0
    }
}

fn wanted(average_ns: u64, size: usize) -> usize {
    let each = REACH.as_nanos() as u64 / average_ns.max(1);
    usize::try_from(each).unwrap_or(MOST).saturating_mul(size).min(MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_jobs_are_taken_ahead_and_long_ones_are_not() {
        let (ahead, handoff) = (Ahead::new(4), Handoff::default());
        ahead.learn(Duration::from_micros(100), &handoff);
        assert_eq!((ahead.get(), handoff.room()), (200, 200));
        ahead.learn(Duration::from_secs(1), &handoff);
        assert_eq!((ahead.get(), handoff.room()), (0, 0));
    }

    #[test]
    fn what_is_taken_ahead_has_a_bound() {
        assert_eq!(wanted(1, 1000), MOST);
        assert_eq!(wanted(u64::MAX, 1000), 0);
    }
}
