//! A simulation of the engine: real files, a clock that is set by hand, one source of chance. It does what clients, workers
//! and the timer do, one thing after another, ends the process at its commits, starts it again, turns the clock forwards and
//! back over changes of summer time, and holds every step against a model of what may have happened.
//!
//! `NEXAAS_SIM_SEEDS=10000` runs more seeds, `NEXAAS_SIM_SEED=7` replays one.

mod check;
mod faults;
mod figures;
mod firing;
mod model;
mod oracle;
mod picture;
mod properties;
pub(crate) mod rng;
mod sim;
mod steps;
mod world;

use figures::Figures;
use sim::Sim;
use std::sync::atomic::{AtomicU64, Ordering};

const SEEDS: u64 = 500;
const STEPS: usize = 60;

fn run(seed: u64) -> Figures {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(Sim::run(seed, STEPS))
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn nothing_is_lost_doubled_or_stuck_whatever_happens_in_whatever_order() {
    if let Some(seed) = setting("NEXAAS_SIM_SEED") {
        println!("seed {seed}: {:?}", run(seed));
        return;
    }
    let seeds = setting("NEXAAS_SIM_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let workers = std::thread::available_parallelism().map_or(2, |n| n.get()).min(8);
    let mut total = Figures::default();
    std::thread::scope(|scope| {
        let work = || {
            let mut figures = Figures::default();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds {
                    return figures;
                }
                figures.add(&run(seed));
            }
        };
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            total.add(&thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
    });
    let crashes: u64 = total.crashes.values().sum();
    println!("seeds: {seeds} steps: {} crashes: {crashes}", total.steps);
    println!(
        "claims: {} slots: {} left out: {} facts answered: {} paused: {}",
        total.claims, total.slots, total.left_out, total.answers, total.paused
    );
    println!("crashed at: {:?}", total.crashes);
    if seeds >= SEEDS {
        // Every kind of write was ended at its commit, before it and after it.
        for kind in steps::WRITES {
            for point in ["before", "after"] {
                assert!(total.crashes.contains_key(&(*kind, point)), "no {kind} was crashed at, {point} its commit");
            }
        }
        for kind in steps::REFUSED {
            assert!(!total.crashes.contains_key(&(*kind, "before")), "a {kind} was refused and committed all the same");
        }
    }
}
