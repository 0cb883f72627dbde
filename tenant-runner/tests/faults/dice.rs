//! Seeded randomness.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// SplitMix64: small, and the same everywhere.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// From `NEXAAS_FAULT_SEED`, else from the time; the seed is printed.
    pub fn announced(test: &str) -> Self {
        let seed = match std::env::var("NEXAAS_FAULT_SEED") {
            Ok(text) => text.parse().expect("NEXAAS_FAULT_SEED must be a number"),
            Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64,
        };
        println!("{test}: NEXAAS_FAULT_SEED={seed}");
        Self(seed)
    }

    /// Another stream of numbers that this one decides.
    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// A moment within `most`.
    pub fn within(&mut self, most: Duration) -> Duration {
        Duration::from_micros(self.below(most.as_micros() as u64 + 1))
    }
}
