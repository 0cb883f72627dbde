//! What happens when an event is to fire while a job of it is not over, and what its `job` adds.

use super::tests::{event, with};
use super::*;
use crate::queue::{JobState, Outcome};
use crate::testing::{Rig, failed, utc};
use serde_json::json;

async fn every_minute(rig: &Rig, overlap: &str) {
    rig.events.upsert(with(event("a", "interval", "60"), json!({"overlap": overlap}))).await.unwrap();
}

async fn next_minute(rig: &Rig) -> u64 {
    rig.advance(60);
    rig.events.tick().await.unwrap().fired
}

async fn slots(rig: &Rig) -> Vec<Option<String>> {
    let read = |c: &Connection| {
        let mut statement = c.prepare("SELECT outcome FROM slots ORDER BY slot")?;
        let rows = statement.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    };
    rig.store.read(read).await.unwrap()
}

fn done() -> Outcome {
    Outcome::Succeeded(String::new())
}

#[tokio::test]
async fn allow_lets_both_run() {
    let rig = Rig::new().await;
    every_minute(&rig, "allow").await;
    assert_eq!((next_minute(&rig).await, next_minute(&rig).await), (1, 1));
    assert_eq!(rig.claim(10).await.len(), 2);
}

#[tokio::test]
async fn skip_leaves_out_the_slot_and_remembers_why() {
    let rig = Rig::new().await;
    every_minute(&rig, "skip").await;
    assert_eq!(next_minute(&rig).await, 1);
    let job = rig.claim(1).await.remove(0);
    assert_eq!(next_minute(&rig).await, 0);
    assert_eq!(rig.events.trigger("a").await.unwrap_err().kind, crate::error::Kind::Conflict);
    rig.queue.finish(&job, done()).await.unwrap();
    // Also a clock that is set back does not bring the slot again.
    let back = crate::store::to_micros(utc("2026-01-01T00:02:00Z"));
    rig.store.write(move |tx| Ok(tx.execute("UPDATE events SET next_eval_at = ?1", [back])?)).await.unwrap();
    assert_eq!(rig.events.tick().await.unwrap().fired, 0);
    assert_eq!(next_minute(&rig).await, 1);
    assert_eq!(slots(&rig).await, [None, Some("overlap".to_owned()), None]);
}

#[tokio::test]
async fn queue_lets_the_new_one_wait_for_the_old_one() {
    let rig = Rig::new().await;
    every_minute(&rig, "queue").await;
    next_minute(&rig).await;
    next_minute(&rig).await;
    let first = rig.claim(10).await;
    assert_eq!(first.len(), 1);
    rig.queue.finish(&first[0], done()).await.unwrap();
    assert_eq!(rig.claim(10).await.len(), 1);
}

#[tokio::test]
async fn cancel_previous_ends_what_waits_and_asks_what_runs_to_stop() {
    let rig = Rig::new().await;
    every_minute(&rig, "cancel_previous").await;
    next_minute(&rig).await;
    next_minute(&rig).await;
    let running = rig.claim(10).await;
    assert_eq!(running.len(), 1, "the first one was cancelled before it ran");
    assert_eq!(running[0].slot, Some(utc("2026-01-01T00:02:00Z")));
    next_minute(&rig).await;
    assert!(running[0].cancel.is_cancelled());
    assert!(rig.claim(10).await.is_empty(), "the new one waits until the old one has ended");
    rig.queue.finish(&running[0], Outcome::Cancelled).await.unwrap();
    assert_eq!(rig.queue.get(running[0].id).await.unwrap().state, JobState::Cancelled);
    assert_eq!(rig.claim(10).await[0].slot, Some(utc("2026-01-01T00:03:00Z")));
}

#[tokio::test]
async fn the_further_fields_of_an_event_s_job_reach_the_queue() {
    let rig = Rig::new().await;
    let job = json!({"unique_key": "u", "retry_delays_s": [7], "timeout_s": 30,
                     "then": [{"action_type": "script", "action_config": {"command": "true"}}]});
    rig.events.upsert(with(event("hook", "webhook", ""), json!({"job": job}))).await.unwrap();
    let id = rig.events.trigger("hook").await.unwrap();
    assert_eq!(rig.events.trigger("hook").await.unwrap(), id, "one job stands for the key");
    let claimed = rig.claim(1).await.remove(0);
    rig.queue.finish(&claimed, failed()).await.unwrap();
    assert_eq!(rig.queue.get(id).await.unwrap().run_at, utc("2026-01-01T00:00:07Z"));
    rig.advance(7);
    assert_eq!(rig.run_all().await.len(), 2, "itself and what follows it");
}

#[tokio::test]
async fn a_slot_whose_unique_key_is_taken_is_seen_to_without_a_job() {
    let rig = Rig::new().await;
    rig.events.upsert(with(event("a", "interval", "60"), json!({"job": {"unique_key": "u"}}))).await.unwrap();
    assert_eq!((next_minute(&rig).await, next_minute(&rig).await), (1, 0));
    assert_eq!(slots(&rig).await, [None, Some("unique".to_owned())]);
}

#[tokio::test]
async fn a_bad_field_of_the_job_is_refused_by_its_name() {
    let rig = Rig::new().await;
    for (job, field) in [
        (json!({"timeout_s": 0}), "job.timeout_s"),
        (json!({"retry_delays_s": []}), "job.retry_delays_s"),
        (json!({"rate_limit": 5}), "job.rate_limit"),
        (json!({"rate_limit": {"count": 1, "per_s": 60}}), "job.rate_limit"),
        (json!({"concurrency_limit": 0}), "job.concurrency_limit"),
        (json!({"unique_for_s": 5}), "job.unique_for_s"),
        (json!({"then": [{"action_type": "no"}]}), "job.then.0.action_type"),
        (json!({"on_failure": 5}), "job.on_failure"),
    ] {
        let error = rig.events.upsert(with(event("a", "cron", "@daily"), json!({"job": job}))).await.unwrap_err();
        assert_eq!(error.field(), Some(field), "{job}: {error}");
    }
}
