//! A hundred thousand schedules, all due at once. Run by hand: it measures and prints, and asserts nothing about time.

use super::tests::{event, with};
use super::*;
use crate::testing::Rig;
use serde_json::json;
use std::time::{Duration, Instant};

const MANY: usize = 100_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; prints figures"]
async fn a_hundred_thousand_schedules() {
    let rig = Rig::new().await;
    let started = Instant::now();
    for part in 0..MANY / 1000 {
        let events = rig.events.clone();
        let write = move |tx: &Connection| {
            for n in part * 1000..(part + 1) * 1000 {
                let schedule =
                    with(event(&format!("e{n}"), "cron", "0 * * * *"), json!({"agent": format!("a{}", n % 50)}));
                events.upsert_in(tx, schedule)?;
            }
            Ok(())
        };
        rig.store.write(write).await.unwrap();
    }
    println!("{MANY} made in {:?}", started.elapsed());

    let started = Instant::now();
    let rig = rig.restart().await;
    let next = rig.events.tick().await.unwrap().next;
    println!("opened and looked at in {:?}, next {next:?}", started.elapsed());

    let filter = |agent: Option<&str>| EventFilter { agent: agent.map(ToOwned::to_owned), ..EventFilter::default() };
    for filter in [filter(None), filter(Some("a7"))] {
        let started = Instant::now();
        let found = rig.events.list(filter.clone()).await.unwrap().len();
        println!("listed {found} of {:?} in {:?}", filter.agent, started.elapsed());
    }

    rig.advance(3600);
    let (store, bus) = (rig.store.clone(), rig.bus.clone());
    let mut waits = Vec::new();
    let others = async {
        loop {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let (bus, started) = (bus.clone(), Instant::now());
            let fact = Fact::new("test.write", "test", json!({}));
            store.write(move |tx| bus.publish(tx, &fact)).await.unwrap();
            waits.push(started.elapsed());
        }
    };
    let started = Instant::now();
    let tick = tokio::select! {
        tick = rig.events.tick() => tick.unwrap(),
        () = others => unreachable!(),
    };
    let took = started.elapsed();
    waits.sort();
    let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize];
    println!("{} fired in {took:?}: {:.0} a second", tick.fired, tick.fired as f64 / took.as_secs_f64());
    println!(
        "{} other writes meanwhile waited {:?} (p50), {:?} (p99), {:?} at most",
        waits.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
    assert_eq!(tick.fired as usize, MANY);
}
