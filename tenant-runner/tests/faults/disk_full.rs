//! A full disk: what cannot be kept is refused at once, what can be read is read, nothing breaks, and all goes on by itself
//! when there is space again.

use crate::database::copy_of;
use crate::process::{Api, Launch, PATIENCE};
use crate::receiver::{Receiver, Work};
use crate::small_disk::{self, Filler};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

const SIZE: &str = "16m";
/// A refusal comes within the store's patience; some room for a machine that is busy.
const REFUSED_WITHIN: Duration = Duration::from_secs(15);
const HELD: usize = 2;

async fn define_event(api: &Api, id: &str, condition: Value, body: Value, receiver: &Receiver) {
    let mut event = json!({
        "id": id, "type": "load", "action_type": "webhook", "action_config": receiver.action(body), "max_retries": 0,
    });
    event.as_object_mut().unwrap().extend(condition.as_object().unwrap().clone());
    api.done("POST", "/api/events", Some(event)).await;
}

async fn define_events(api: &Api, receiver: &Receiver) {
    let asked = json!({"condition_type": "webhook"});
    define_event(api, "plain", asked.clone(), json!({"work": "{{job.id}}"}), receiver).await;
    define_event(api, "held", asked, json!({"work": "{{job.id}}", "hold": true}), receiver).await;
}

/// The job, or the refusal.
async fn enqueue(api: &Api, event: &str) -> Result<String, (u16, String)> {
    let (status, answer) = api.call("POST", &format!("/api/events/{event}/trigger"), None).await.unwrap();
    match status {
        200..=299 => Ok(answer["job_id"].as_str().unwrap().to_owned()),
        _ => Err((status, answer["detail"].as_str().unwrap_or_default().to_owned())),
    }
}

fn names_the_disk(text: &str) -> bool {
    let text = text.to_lowercase();
    text.contains("disk") || text.contains("space")
}

async fn state(api: &Api, job: &str) -> String {
    api.get(&format!("/api/queue/{job}")).await["state"].as_str().unwrap().to_owned()
}

/// Asks again until `done` says so.
async fn eventually(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_work_and_loses_none() {
    let name = "disk_full::a_full_disk_refuses_work_and_loses_none";
    let Some(disk) = small_disk::inside(name, SIZE).await else { return };
    let receiver = Receiver::start().await;
    let (process, api) = Launch::on(&disk.join("data")).start().await;
    define_events(&api, &receiver).await;
    let every = json!({"condition_type": "interval", "condition_expr": {"seconds": 1, "catch_up": {"all": 100}}});
    define_event(&api, "every", every, json!({"work": "slot {{slot}}"}), &receiver).await;

    let mut acknowledged = BTreeSet::new();
    for _ in 0..20 {
        acknowledged.insert(enqueue(&api, "plain").await.unwrap());
    }
    receiver.open(false);
    let mut held = Vec::new();
    for _ in 0..HELD {
        held.push(enqueue(&api, "held").await.unwrap());
    }
    let arrived = receiver.until(PATIENCE, |works| held.iter().all(|job| works.contains_key(job))).await;
    assert!(arrived, "the jobs that are to be caught running do not run: {}", process.log());
    acknowledged.extend(held.iter().cloned());

    let filler = Filler::fill(&disk);
    // The log may have room that it has taken before.
    let mut refused = 0;
    let mut longest = Duration::ZERO;
    let mut tries = 0;
    while refused < 20 {
        let asked = Instant::now();
        match enqueue(&api, "plain").await {
            Ok(job) => drop(acknowledged.insert(job)),
            Err((status, detail)) => {
                refused += 1;
                assert_eq!(status, 503, "{detail}");
                assert!(names_the_disk(&detail), "this does not help: {detail}");
            }
        }
        longest = longest.max(asked.elapsed());
        tries += 1;
        assert!(tries < 5000, "the disk is full and nothing is refused");
    }
    assert!(longest < REFUSED_WITHIN, "it took {longest:?} to refuse");

    let view = api.get("/api/queue").await;
    assert!(view["counts"]["running"].as_u64().unwrap() >= HELD as u64, "{view}");
    for job in &held {
        assert_eq!(state(&api, job).await, "running");
    }
    assert_eq!(api.get("/api/events").await.as_array().unwrap().len(), 3);
    eventually("health does not tell of the full disk", async || {
        let (status, answer) = api.call("GET", "/api/health", None).await.unwrap();
        status == 503 && names_the_disk(answer["detail"].as_str().unwrap_or_default())
    })
    .await;

    // The effects happen; that they did cannot be written down yet.
    receiver.open(true);
    tokio::time::sleep(Duration::from_secs(1)).await;
    filler.give_back();
    let space = Instant::now();
    eventually("nothing is taken, although there is space", async || match enqueue(&api, "plain").await {
        Ok(job) => acknowledged.insert(job),
        Err((status, _)) => {
            assert_eq!(status, 503);
            false
        }
    })
    .await;
    let taken = space.elapsed();
    let all =
        receiver.until(PATIENCE, |works| acknowledged.iter().all(|job| works.get(job).is_some_and(|w| w.accepted)));
    assert!(all.await, "work that was acknowledged does not go on: {}", process.log());
    eventually("the ends of the jobs are not written down", async || {
        for job in &acknowledged {
            if state(&api, job).await != "succeeded" {
                return false;
            }
        }
        true
    })
    .await;
    api.get("/api/health").await;
    let slots = |works: &HashMap<String, Work>| works.keys().filter(|work| work.starts_with("slot ")).count();
    assert!(
        receiver.until(PATIENCE, |works| slots(works) >= 2).await,
        "the scheduler does not go on: {}",
        process.log()
    );
    api.done("PATCH", "/api/events/every", Some(json!({"status": "paused"}))).await;
    eventually("what the schedule has queued does not end", async || {
        let view = api.get("/api/queue").await;
        view["counts"]["queued"] == 0 && view["counts"]["running"] == 0
    })
    .await;
    process.terminate().await;

    let works = receiver.works();
    let unasked: Vec<_> =
        works.keys().filter(|work| !work.starts_with("slot ") && !acknowledged.contains(*work)).collect();
    assert!(unasked.is_empty(), "what was refused was done: {unasked:?}");
    let twice: Vec<_> = works.iter().filter(|(_, work)| work.duplicates() > 0 || work.repetitions() > 0).collect();
    assert!(twice.is_empty(), "delivered more than once: {twice:?}");
    let left = copy_of(&disk.join("data/nexaas.db"));
    left.assert_whole();
    assert_eq!(left.count("SELECT count(*) FROM jobs WHERE finished_at IS NULL"), 0);
    // Every second has its job: those that came while the disk was full, too.
    let (slots, seconds) = left
        .connection
        .query_row(
            "SELECT count(*), (max(slot) - min(slot)) / 1000000 + 1 FROM jobs WHERE slot IS NOT NULL",
            [],
            |row| Ok((row.get::<_, u64>(0)?, row.get::<_, u64>(1)?)),
        )
        .unwrap();
    assert_eq!(slots, seconds);
    println!(
        "disk full: refused {refused} of {tries}, longest {} ms; taken again after {} ms; acknowledged {}, lost 0; slots {slots}",
        longest.as_millis(),
        taken.as_millis(),
        acknowledged.len(),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_on_a_full_disk_says_why_and_the_next_one_goes_on() {
    let name = "disk_full::a_start_on_a_full_disk_says_why_and_the_next_one_goes_on";
    let Some(disk) = small_disk::inside(name, SIZE).await else { return };
    let launch = Launch::on(&disk.join("data"));

    let filler = Filler::fill(&disk);
    let (status, log) = launch.spawn().end().await;
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(names_the_disk(&log), "this does not help: {log}");
    filler.give_back();

    let receiver = Receiver::start().await;
    receiver.open(false);
    let (mut process, api) = launch.start().await;
    define_events(&api, &receiver).await;
    let mut acknowledged = BTreeSet::new();
    for number in 0..30 {
        acknowledged.insert(enqueue(&api, if number % 3 == 0 { "held" } else { "plain" }).await.unwrap());
    }
    process.kill().await;
    let filler = Filler::fill(&disk);
    // Either it starts and does what can be done, or it says why it does not.
    let mut process = launch.spawn();
    match process.ready_or_ended().await {
        Ok(_) => process.kill().await,
        Err((status, log)) => {
            assert_eq!(status.code(), Some(1), "{log}");
            assert!(names_the_disk(&log), "this does not help: {log}");
        }
    }
    copy_of(&disk.join("data/nexaas.db")).assert_whole();
    filler.give_back();
    receiver.open(true);

    let (process, api) = launch.start().await;
    let all =
        receiver.until(PATIENCE, |works| acknowledged.iter().all(|job| works.get(job).is_some_and(|w| w.accepted)));
    assert!(all.await, "work that was acknowledged does not go on: {}", process.log());
    eventually("the ends of the jobs are not written down", async || {
        let view = api.get("/api/queue").await;
        view["counts"]["completed"] == acknowledged.len()
    })
    .await;
    process.terminate().await;
    assert!(receiver.works().values().all(|work| work.duplicates() == 0), "{:?}", receiver.works());
    copy_of(&disk.join("data/nexaas.db")).assert_whole();
}
