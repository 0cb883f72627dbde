//! `kill -9` while a database of the first released schema is brought up to date. Each step is there wholly or not at all, and
//! the next start goes on: nothing of the old data is missing, and what ran goes on under the key it had.

use crate::database::copy_of;
use crate::dice::Dice;
use crate::old_database::{self, EVENTS, FACTS, FINISHED, LATER, Old, SLOTS, USAGE};
use crate::process::{Api, Launch, PATIENCE, Process};
use crate::receiver::Receiver;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

const ROUNDS: u32 = 12;
/// Kills in a row on the same files, at most.
const MOST_KILLS: u64 = 4;

fn applied(database: &Path) -> u64 {
    copy_of(database).count("SELECT count(*) FROM migrations")
}

fn log_size(database: &Path) -> u64 {
    std::fs::metadata(database.with_extension("db-wal")).map_or(0, |about| about.len())
}

/// Waits until the program has written that much. Looks often: what is waited for takes milliseconds.
fn until_written(database: &Path, bytes: u64, at_most: Duration) {
    let began = Instant::now();
    while log_size(database) <= bytes && began.elapsed() < at_most * 2 {
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Copies the old database to where the program will find it.
fn put(old: &Path, data: &Path) {
    let _ = std::fs::remove_dir_all(data);
    std::fs::create_dir_all(data).unwrap();
    std::fs::copy(old, data.join("nexaas.db")).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_survives_kill_9_at_any_moment() {
    let rounds: u32 = std::env::var("NEXAAS_MIGRATION_ROUNDS").map_or(ROUNDS, |text| text.parse().expect("a number"));
    let mut dice = Dice::announced("kill -9 in a migration");
    let dir = crate::real_disk();
    let (template, data) = (dir.path().join("old.db"), dir.path().join("data"));
    let database = data.join("nexaas.db");
    let launch = Launch::on(&data);

    // Once in peace, to know how long it takes.
    let receiver = Receiver::start().await;
    let old = old_database::make(&template, &receiver);
    let before = applied(&template);
    put(&template, &data);
    let began = Instant::now();
    let mut process = launch.spawn();
    let api = process.ready().await;
    let written = log_size(&database);
    let usual = began.elapsed();
    let started = (process, api);
    finished(&receiver, &old, started, &database).await;
    let after = applied(&database);

    let (mut kills, mut amidst) = (0, 0);
    for _ in 0..rounds {
        put(&template, &data);
        receiver.forget();
        for kill in 0..=dice.below(MOST_KILLS) {
            let mut process = launch.spawn();
            if kill == 0 {
                // The migrations are a small part of a start; how much is written tells how far they are.
                until_written(&database, dice.below(written), usual);
            } else {
                tokio::time::sleep(dice.within(usual)).await;
            }
            process.kill().await;
            kills += 1;
            let copy = copy_of(&database);
            copy.assert_whole();
            let reached = copy.count("SELECT count(*) FROM migrations");
            assert!((before..=after).contains(&reached), "{reached} migrations");
            amidst += u32::from(reached < after);
        }
        let started = launch.start().await;
        finished(&receiver, &old, started, &database).await;
    }
    println!(
        "kill -9 in a migration: rounds {rounds}, kills {kills}, of which before its end {amidst}, lost 0; a start with it takes {} ms",
        usual.as_millis()
    );
}

/// Lets the program finish what was due, ends it, and compares what is there with what was.
async fn finished(receiver: &Receiver, old: &Old, (process, api): (Process, Api), database: &Path) {
    let all = receiver.until(PATIENCE, |works| {
        old.due.iter().chain(old.running.keys()).all(|job| works.get(job).is_some_and(|work| work.accepted))
    });
    assert!(all.await, "what was due is not done: {}", process.log());
    api.idle(LATER as u64).await;
    process.terminate().await;

    for (job, key) in &old.running {
        let work = &receiver.works()[job];
        assert_eq!(
            work.keys.keys().collect::<Vec<_>>(),
            [key],
            "the effect of {job} came under another key than before"
        );
    }
    assert!(receiver.works().values().all(|work| work.duplicates() == 0), "{:?}", receiver.works());
    let left = copy_of(database);
    left.assert_whole();
    let mut rows: BTreeMap<_, _> = left
        .connection
        .prepare(old_database::ROWS)
        .unwrap()
        .query_map([], old_database::row)
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    for job in old.due.iter().chain(old.running.keys()) {
        let row = rows.remove(&job.replace('-', "")).unwrap_or_else(|| panic!("{job} is gone"));
        assert_eq!(row.0, "succeeded", "{job}: {row:?}");
    }
    assert!(rows == old.untouched, "jobs were lost or changed: {} are there of {}", rows.len(), old.untouched.len());
    assert_eq!(left.count("SELECT count(*) FROM attempts WHERE detail = 'said something'"), FINISHED as u64);
    assert_eq!(left.count("SELECT count(*) FROM events WHERE run_count = 7"), EVENTS as u64);
    assert_eq!(left.count("SELECT count(*) FROM slots"), SLOTS as u64);
    assert_eq!(left.count("SELECT count(*) FROM usage"), USAGE as u64);
    assert_eq!(facts(&left), FACTS as u64);
}

/// How many of the old facts the bus still holds.
fn facts(left: &crate::database::Copy) -> u64 {
    let packed = left.count("SELECT count(*) FROM sqlite_schema WHERE name = 'bus_packs'") > 0;
    left.count(&if packed {
        format!("SELECT sum(last_seq - first_seq + 1) FROM bus_packs WHERE last_seq <= {FACTS} AND facts LIKE '%fine%'")
    } else {
        format!("SELECT count(*) FROM bus_events WHERE seq <= {FACTS}")
    })
}
