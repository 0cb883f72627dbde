//! Measurements as ratios within one run: ours beside the floor or a peer, taken in turn, so that a noisy machine disturbs all
//! alike. `bench/run.sh NAME` builds and runs them; each prints `name: value` lines on standard output and its progress on
//! standard error.
#![allow(clippy::print_stdout, reason = "the lines are the product of this program")]

mod commits;
mod figures;
mod floor;
mod idle;
mod latency;
mod plant;
mod processes;
mod provision;
mod queue;
mod rig;
mod schedules;

use clap::{Parser, Subcommand};
use std::path::PathBuf;

#[derive(Parser)]
struct Arguments {
    /// Where databases are made and measured; a disk, not memory.
    #[arg(long, global = true, env = "NEXAAS_BENCH_DIR", default_value = "target/bench")]
    dir: PathBuf,
    #[command(subcommand)]
    measure: Measure,
}

#[derive(Subcommand)]
enum Measure {
    /// Durable jobs a second from enqueue through claim to done, beside three peers and the floor.
    Queue(queue::Options),
    /// From enqueue to start on an idle engine, beside one bare commit; and how often an idle runner wakes.
    Latency(latency::Options),
    /// How late the jobs of many schedules start; memory, start-up, and all of them at once.
    Schedules(schedules::Options),
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
    /// An engine that does nothing, for `latency` to watch.
    #[command(hide = true)]
    EngineAlone { folder: PathBuf },
}

#[tokio::main]
async fn main() -> nexaas_test_system::Result<()> {
    let arguments = Arguments::parse();
    // Once for all that speaks TLS or only might, as the programs do at their start; fails if it is set already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match arguments.measure {
        Measure::Queue(options) => queue::run(&arguments.dir, options).await,
        Measure::Latency(options) => latency::run(&arguments.dir, options).await,
        Measure::Schedules(options) => schedules::run(&arguments.dir, options).await,
        Measure::Provision { rounds } => provision::run(rounds).await,
        Measure::Idle { seconds } => idle::run(seconds).await,
        Measure::EngineAlone { folder } => latency::engine_alone(&folder).await,
    }
}
