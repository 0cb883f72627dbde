//! How long to wait before the next attempt. One shape for every retry in the project, so that no loop invents its own.

use std::time::Duration;

/// Exponential back-off with full jitter on the upper half: the n-th delay lies between half of and the whole of
/// `min(cap, base * 2^n)`, so that callers that failed together do not return together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    pub base: Duration,
    pub cap: Duration,
}

impl Backoff {
    pub const fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap }
    }

    /// The delay before attempt `attempt` (0 is the first retry) without jitter.
    pub fn ceiling(&self, attempt: u32) -> Duration {
        let factor = 1u32.checked_shl(attempt.min(31)).unwrap_or(u32::MAX);
        self.base.checked_mul(factor).unwrap_or(self.cap).min(self.cap)
    }

    /// The delay before attempt `attempt`, for a random number `unit` in `0.0..1.0`.
    pub fn delay_with(&self, attempt: u32, unit: f64) -> Duration {
        let ceiling = self.ceiling(attempt);
        ceiling.mul_f64(0.5 + 0.5 * unit.clamp(0.0, 1.0))
    }

    /// The delay before attempt `attempt`, with the thread's random numbers.
    pub fn delay(&self, attempt: u32) -> Duration {
        self.delay_with(attempt, rand::random::<f64>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_delay_stays_between_half_and_whole_of_its_ceiling(attempt in 0u32..200, unit in 0.0f64..1.0) {
            let b = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
            let d = b.delay_with(attempt, unit);
            prop_assert!(d <= b.ceiling(attempt));
            prop_assert!(d >= b.ceiling(attempt) / 2);
            prop_assert!(b.ceiling(attempt) <= b.cap);
        }
    }

    #[test]
    fn the_ceiling_doubles_until_the_cap() {
        let b = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        let seen: Vec<u64> = (0..5).map(|n| b.ceiling(n).as_secs()).collect();
        assert_eq!(seen, [1, 2, 4, 5, 5]);
    }
}
