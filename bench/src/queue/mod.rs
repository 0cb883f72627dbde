//! Durable jobs a second from enqueue through claim to done, beside the peers and beside the floor, in turn.

pub mod floor;
pub mod ours;
mod peers;

use crate::figures::{median, print};
use crate::plant::{Planted, plant};
use crate::rig::Folder;
use nexaas_test_system::Result;
use ours::{Load, Regime, Shape};
use peers::{Answer, Peer, Programs};
use std::collections::HashMap;
use std::path::Path;

#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Rounds of which the median is printed; everybody has a turn in each.
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// About how long each measurement of a round takes.
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// Jobs of each measurement, instead of as many as fill the seconds.
    #[arg(long)]
    pub jobs: Option<u64>,
    /// Tasks that queue jobs, each awaiting its own acknowledgement.
    #[arg(long, default_value_t = 256)]
    pub producers: u64,
    /// Jobs that may run at once.
    #[arg(long, default_value_t = 64)]
    pub workers: usize,
    /// Measures again in a table that holds so many finished jobs.
    #[arg(long)]
    pub history: Option<u64>,
    /// Leaves the peers out.
    #[arg(long)]
    pub no_peers: bool,
    /// Leaves the other regimes out, ours and the peers'.
    #[arg(long)]
    pub flow_only: bool,
}

impl Options {
    fn regimes(&self) -> impl Iterator<Item = Regime> + use<> {
        let flow_only = self.flow_only;
        Regime::ALL.into_iter().filter(move |regime| !flow_only || *regime == Regime::Flow)
    }
}

/// Jobs with which a rate is guessed before it is measured.
const PILOT: u64 = 20_000;
const PEER_PILOT: u64 = 300;
/// Jobs that may wait in the engine's table are bounded.
const MOST: u64 = 900_000;

pub async fn run(dir: &Path, options: Options) -> Result<()> {
    let programs = if options.no_peers { None } else { Some(Programs::from_environment()?) };
    crate::commits::commits();
    let load = |jobs| Load { jobs, producers: options.producers, workers: options.workers };
    let mut sizes = HashMap::new();
    for regime in options.regimes() {
        let jobs = match options.jobs {
            Some(jobs) => jobs,
            None => {
                let rate = ours::run(dir, regime, load(PILOT)).await?.jobs_per_s();
                ((rate * options.seconds) as u64).clamp(1000, MOST)
            }
        };
        sizes.insert(regime.name(), jobs);
    }
    let history = match options.history {
        None => None,
        Some(finished) => {
            eprintln!("planting {finished} finished jobs");
            let folder = Folder::new(dir)?;
            plant(&folder.database(), Planted { finished, future: 0 }).await?;
            Some(folder)
        }
    };

    let (mut shapes, mut floors, mut with_history) = (HashMap::<_, Vec<Shape>>::new(), Vec::new(), Vec::new());
    for round in 1..=options.rounds {
        for regime in options.regimes() {
            let shape = ours::run(dir, regime, load(sizes[regime.name()])).await?;
            eprintln!(
                "round {round}: ours, {}: {:.0} jobs/s, {:.1} jobs a commit, {} of {} held at once",
                regime.name(),
                shape.jobs_per_s(),
                shape.jobs_per_commit(),
                shape.held_at_once,
                shape.jobs
            );
            shapes.entry(regime.name()).or_default().push(shape);
            if regime == Regime::Flow {
                let floor = floor::run(dir, shape).await?;
                eprintln!("round {round}: floor: {:.0} jobs/s, synchronous {}", floor.jobs_per_s, floor.synchronous);
                floors.push(floor.jobs_per_s);
                if let Some(folder) = &history {
                    let shape = ours::run_on(&folder.database(), regime, load(sizes[regime.name()])).await?;
                    eprintln!("round {round}: ours, flow, with history: {:.0} jobs/s", shape.jobs_per_s());
                    with_history.push(shape.jobs_per_s());
                }
            }
        }
    }
    let measured = match &programs {
        None => HashMap::new(),
        Some(programs) => measure_peers(programs, dir, &options).await?,
    };

    let rate =
        |regime: Regime| median(shapes.get(regime.name()).into_iter().flatten().map(Shape::jobs_per_s).collect());
    let (flow, many, backlog, floor) = (rate(Regime::Flow), rate(Regime::Many), rate(Regime::Backlog), median(floors));
    println!("rounds: {}", options.rounds);
    println!("producers: {}", options.producers);
    println!("workers: {}", options.workers);
    print("jobs_per_s", flow);
    if !options.flow_only {
        print("jobs_per_s_many", many);
        print("backlog_jobs_per_s", backlog);
    }
    print("jobs_per_commit", median(shapes["flow"].iter().map(Shape::jobs_per_commit).collect()));
    print("floor_jobs_per_s", floor);
    print("vs_floor", flow / floor);
    print_peers(&measured, [flow, many, backlog]);
    if !with_history.is_empty() {
        let with_history = median(with_history);
        print("jobs_per_s_with_history", with_history);
        print("history_ratio", with_history / flow);
    }
    Ok(())
}

type Measured = HashMap<(&'static str, &'static str, bool), Vec<Answer>>;

async fn measure_peers(programs: &Programs, dir: &Path, options: &Options) -> Result<Measured> {
    let mut measured = Measured::new();
    let mut sizes = HashMap::new();
    for round in 1..=options.rounds {
        for peer in Peer::ALL {
            for regime in options.regimes() {
                for durable in [true, false] {
                    // By itself only in the plain regime: one line says what the peer's own choice would give.
                    if !peer.can(regime) || !durable && regime != Regime::Flow {
                        continue;
                    }
                    let key = (peer.name(), regime.name(), durable);
                    let jobs = match (options.jobs, sizes.get(&key)) {
                        (Some(jobs), _) => jobs,
                        (None, Some(jobs)) => *jobs,
                        (None, None) => {
                            let rate = peers::run(programs, dir, peer, regime, PEER_PILOT, durable).await?.jobs_per_s;
                            (rate * options.seconds.max(1.0)).max(100.0) as u64
                        }
                    };
                    sizes.insert(key, jobs);
                    let answer = peers::run(programs, dir, peer, regime, jobs, durable).await?;
                    eprintln!(
                        "round {round}: {}, {}: {:.0} jobs/s, synchronous {}, journal mode {}, SQLite {}",
                        peer.name(),
                        regime.name(),
                        answer.jobs_per_s,
                        answer.synchronous,
                        answer.journal,
                        answer.sqlite
                    );
                    if durable && answer.synchronous < 2 {
                        return Err(format!("{} is not durable", peer.name()).into());
                    }
                    measured.entry(key).or_default().push(answer);
                }
            }
        }
    }
    Ok(measured)
}

fn print_peers(measured: &Measured, ours: [f64; 3]) {
    if measured.is_empty() {
        return;
    }
    let rate = |peer: Peer, regime: Regime, durable: bool| {
        let answers = measured.get(&(peer.name(), regime.name(), durable))?;
        Some(median(answers.iter().map(|answer| answer.jobs_per_s).collect()))
    };
    for (regime, suffix) in Regime::ALL.into_iter().zip(["", "_many", "_backlog"]) {
        for peer in Peer::ALL {
            if let Some(rate) = rate(peer, regime, true) {
                print(&format!("{}_jobs_per_s{suffix}", peer.name()), rate);
            }
        }
    }
    for peer in Peer::ALL {
        let own = measured.get(&(peer.name(), "flow", false)).and_then(|answers| answers.first());
        if let (Some(rate), Some(own)) = (rate(peer, Regime::Flow, false), own) {
            print(&format!("{}_jobs_per_s_as_shipped", peer.name()), rate);
            println!("{}_synchronous_as_shipped: {}", peer.name(), own.synchronous);
        }
    }
    // Like with like: each regime against the best peer in that regime, and all durable.
    for ((regime, suffix), ours) in Regime::ALL.into_iter().zip(["", "_many", "_backlog"]).zip(ours) {
        let best = Peer::ALL.into_iter().filter_map(|peer| rate(peer, regime, true)).reduce(f64::max);
        if let Some(best) = best {
            print(&format!("vs_best_peer{suffix}"), ours / best);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_queue_is_measured() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            rounds: 1,
            seconds: 0.1,
            jobs: Some(300),
            producers: 8,
            workers: 4,
            history: Some(1000),
            no_peers: true,
            flow_only: false,
        };
        run(dir.path(), options).await.unwrap();
    }
}
