//! Measurements as ratios within one run: ours beside the floor, taken in turn, so that a noisy machine disturbs both alike.
//! `bench/run.sh NAME` builds and runs them; each prints `name: value` lines on standard output and its progress on
//! standard error.
#![allow(clippy::print_stdout, reason = "the lines are the product of this program")]

mod floor;
mod idle;
mod provision;

use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    measure: Measure,
}

#[derive(Subcommand)]
enum Measure {
    /// From the request for a tenant to the first answer of its subdomain, beside plain calls of the container engine.
    Provision {
        #[arg(long, default_value_t = 20)]
        rounds: usize,
    },
    /// Resident memory of an idle runner and of the control plane.
    Idle {
        /// How long both are left alone first.
        #[arg(long, default_value_t = 20)]
        seconds: u64,
    },
}

#[tokio::main]
async fn main() -> nexaas_test_system::Result<()> {
    match Arguments::parse().measure {
        Measure::Provision { rounds } => provision::run(rounds).await,
        Measure::Idle { seconds } => idle::run(seconds).await,
    }
}

/// The value below which `percent` of the sorted samples lie (nearest rank).
pub fn percentile(sorted: &[f64], percent: f64) -> f64 {
    if sorted.is_empty() {
        return f64::NAN;
    }
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn percentiles_take_the_nearest_rank() {
        let samples: Vec<f64> = (1..=20).map(f64::from).collect();
        assert_eq!(percentile(&samples, 50.0), 10.0);
        assert_eq!(percentile(&samples, 99.0), 20.0);
        assert_eq!(percentile(&[3.0], 50.0), 3.0);
        assert!(percentile(&[], 50.0).is_nan());
    }
}
