//! Keys, rates, unique jobs, followers, steps and retries by hand.

use super::*;
use crate::error::Kind;
use crate::testing::{Rig, failed, job};
use serde_json::json;
use std::time::Duration;

fn keyed(key: &str) -> NewJob {
    NewJob { concurrency_key: Some(key.into()), ..job() }
}

fn ok() -> Outcome {
    Outcome::Succeeded("done".into())
}

#[tokio::test]
async fn a_key_runs_as_many_at_once_as_its_limit_and_the_next_when_one_ends() {
    let rig = Rig::new().await;
    for _ in 0..5 {
        rig.queue.enqueue(NewJob { concurrency_limit: Some(2), ..keyed("k") }).await.unwrap();
    }
    let held = rig.claim(10).await;
    assert_eq!(held.len(), 2);
    let key = rig.queue.keys().remove(0);
    assert_eq!((key.concurrency_limit, key.running, key.blocked), (2, 2, 3));
    rig.queue.finish(&held[0], ok()).await.unwrap();
    assert_eq!(rig.claim(10).await.len(), 1);
    rig.queue.set_key("k", 4, None).await.unwrap();
    assert_eq!(rig.claim(10).await.len(), 2, "a raised limit is heard at once");
}

#[tokio::test]
async fn limits_of_a_key_outlive_the_process() {
    let rig = Rig::new().await;
    let rate = Rate { count: 3, period: Duration::from_secs(60) };
    rig.queue.set_key("k", 7, Some(rate)).await.unwrap();
    rig.queue.enqueue(keyed("k")).await.unwrap();
    rig.claim(1).await;
    let rig = rig.restart().await;
    let key = rig.queue.keys().remove(0);
    assert_eq!((key.concurrency_limit, key.rate_limit), (7, Some(rate)));
    for _ in 0..5 {
        rig.queue.enqueue(keyed("k")).await.unwrap();
    }
    assert_eq!(rig.claim(10).await.len(), 2, "the start before the restart counts");
}

/// Keeps the writer within a first write until all of `writes` wait for it, so that they share a commit.
async fn sharing_a_commit<T>(rig: &Rig, writes: impl Future<Output = T>) -> T {
    let (leave, go_on) = std::sync::mpsc::channel();
    let gate = rig.store.write(move |_| go_on.recv().map_err(crate::EngineError::internal));
    let (_, done, ()) = futures::join!(gate, writes, async { leave.send(()).unwrap() });
    done
}

#[tokio::test]
async fn a_start_counts_once_for_its_rate_also_when_another_write_of_its_commit_is_undone() {
    let rig = Rig::new().await;
    let rate = Rate { count: 2, period: Duration::from_secs(10) };
    rig.queue.set_key("k", 100, Some(rate)).await.unwrap();
    for _ in 0..3 {
        rig.queue.enqueue(keyed("k")).await.unwrap();
    }
    let writes = async {
        futures::join!(rig.queue.claim(1), rig.queue.set_key("k", 50, Some(rate)), rig.queue.retry(JobId::generate()))
    };
    let (started, set, refused) = sharing_a_commit(&rig, writes).await;
    set.unwrap();
    assert_eq!((started.unwrap().jobs.len(), refused.unwrap_err().kind), (1, Kind::NotFound));
    assert_eq!(rig.claim(10).await.len(), 1, "one of two starts is left");
}

#[tokio::test]
async fn starts_that_a_lifted_rate_has_forgotten_stay_so_when_another_write_of_the_commit_is_undone() {
    let rig = Rig::new().await;
    let rate = Rate { count: 1, period: Duration::from_secs(10) };
    rig.queue.set_key("k", 100, Some(rate)).await.unwrap();
    for _ in 0..2 {
        rig.queue.enqueue(keyed("k")).await.unwrap();
    }
    let writes = async {
        futures::join!(
            rig.queue.claim(1),
            rig.queue.set_key("k", 50, None),
            rig.queue.retry(JobId::generate()),
            rig.queue.set_key("k", 100, Some(rate))
        )
    };
    let (started, lifted, refused, set) = sharing_a_commit(&rig, writes).await;
    lifted.unwrap();
    set.unwrap();
    assert_eq!((started.unwrap().jobs.len(), refused.unwrap_err().kind), (1, Kind::NotFound));
    assert_eq!(rig.claim(10).await.len(), 1, "the rate counts from when it was set");
}

#[tokio::test]
async fn a_rate_spreads_starts_over_time() {
    let rig = Rig::new().await;
    let rate = Rate { count: 2, period: Duration::from_secs(10) };
    for _ in 0..5 {
        rig.queue.enqueue(NewJob { concurrency_limit: Some(100), rate: Some(rate), ..keyed("k") }).await.unwrap();
    }
    let first = rig.queue.claim(10).await.unwrap();
    assert_eq!(first.jobs.len(), 2);
    assert_eq!(first.next_due, Some(rig.now() + chrono::Duration::seconds(10)), "the workers know when to look again");
    rig.advance(9);
    assert!(rig.claim(10).await.is_empty());
    rig.advance(1);
    assert_eq!(rig.claim(10).await.len(), 2);
    rig.advance(10);
    assert_eq!(rig.claim(10).await.len(), 1);
}

#[tokio::test]
async fn a_cancelled_job_leaves_its_place_to_the_next_of_its_key() {
    let rig = Rig::new().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(rig.queue.enqueue(keyed("k")).await.unwrap());
    }
    let held = rig.claim(10).await;
    rig.queue.finish(&held[0], ok()).await.unwrap();
    rig.queue.enqueue(NewJob { priority: 0, ..job() }).await.unwrap();
    // The only room goes to the urgent one; the second of the key has been put back in its place meanwhile.
    assert_eq!(rig.claim(1).await.len(), 1);
    rig.queue.cancel(ids[1]).await.unwrap();
    assert_eq!(rig.claim(10).await[0].id, ids[2]);
}

#[tokio::test]
async fn a_unique_key_stands_for_one_job_while_it_lives() {
    let rig = Rig::new().await;
    let unique = || NewJob { unique: Some(Unique { key: "u".into(), period: None }), ..job() };
    let first = rig.queue.enqueue_with(unique()).await.unwrap();
    let again = rig.queue.enqueue_with(unique()).await.unwrap();
    assert_eq!((first.existed, again), (false, Enqueued { id: first.id, existed: true }));
    rig.run_all().await;
    assert!(!rig.queue.enqueue_with(unique()).await.unwrap().existed);
}

#[tokio::test]
async fn a_unique_key_with_a_period_stands_until_it_is_over() {
    let rig = Rig::new().await;
    let period = Some(Duration::from_secs(60));
    let unique = || NewJob { unique: Some(Unique { key: "u".into(), period }), ..job() };
    let first = rig.queue.enqueue_with(unique()).await.unwrap();
    rig.run_all().await;
    rig.advance(59);
    assert_eq!(rig.queue.enqueue_with(unique()).await.unwrap(), Enqueued { id: first.id, existed: true });
    rig.advance(1);
    assert!(!rig.queue.enqueue_with(unique()).await.unwrap().existed);
}

#[tokio::test]
async fn followers_come_with_the_end_and_know_what_was_before() {
    let rig = Rig::new().await;
    let follower = |name: &str| json!({"action_type": "script", "action_config": {"command": name}});
    let chain = Chain { then: vec![follower("after")], on_failure: vec![follower("mourn")] };
    rig.queue.enqueue(NewJob { chain: chain.clone(), ..job() }).await.unwrap();
    let first = rig.claim(1).await.remove(0);
    rig.queue.finish(&first, Outcome::Succeeded(r#"{"n": 1}"#.into())).await.unwrap();
    let next = rig.claim(5).await;
    assert_eq!(next.len(), 1);
    assert_eq!(next[0].action_config, json!({"command": "after"}));
    assert_eq!(next[0].payload, Some(json!({"job_id": first.id, "result": {"n": 1}, "error": null})));
    assert_eq!(next[0].depth, 1);

    rig.queue.enqueue(NewJob { chain, ..job() }).await.unwrap();
    let failing = rig.claim(1).await.remove(0);
    rig.queue.finish(&failing, failed()).await.unwrap();
    assert_eq!(rig.claim(5).await[0].action_config, json!({"command": "mourn"}));
}

#[tokio::test]
async fn a_circle_of_jobs_comes_to_an_end() {
    let rig = Rig::new().await;
    let error = rig.queue.enqueue(NewJob { depth: 33, ..job() }).await.unwrap_err();
    assert_eq!(error.field(), Some("depth"));
}

#[tokio::test]
async fn a_dead_job_is_retried_by_hand_with_a_fresh_round_of_attempts() {
    let rig = Rig::new().await;
    let id = rig.queue.enqueue(NewJob { max_attempts: 2, ..job() }).await.unwrap();
    assert_eq!(rig.queue.retry(id).await.unwrap_err().kind, Kind::Conflict);
    for _ in 0..2 {
        let held = rig.claim(1).await.remove(0);
        rig.queue.finish(&held, failed()).await.unwrap();
        rig.advance(3600);
    }
    assert_eq!(rig.queue.counts().failed, 1);
    rig.queue.retry(id).await.unwrap();
    assert_eq!(rig.queue.counts().failed, 0);
    let held = rig.claim(1).await.remove(0);
    assert_eq!((held.id, held.attempt, held.max_attempts), (id, 3, 4));
    rig.queue.finish(&held, failed()).await.unwrap();
    let wait = rig.queue.get(id).await.unwrap().run_at - rig.now();
    assert!((60..=72).contains(&wait.num_seconds()), "the waits begin anew: {wait}");
    let outcomes: Vec<_> = rig.queue.attempts(id).await.unwrap().into_iter().map(|a| (a.number, a.outcome)).collect();
    assert_eq!(outcomes, [1, 2, 3].map(|number| (number, "failed".to_owned())));
}

#[tokio::test]
async fn all_dead_jobs_are_retried_at_once() {
    let rig = Rig::new().await;
    for _ in 0..3 {
        rig.queue.enqueue(job()).await.unwrap();
    }
    for held in rig.claim(3).await {
        rig.queue.finish(&held, failed()).await.unwrap();
    }
    assert_eq!(rig.queue.retry_dead(2).await.unwrap(), 2);
    assert_eq!(rig.queue.retry_dead(100).await.unwrap(), 1);
    assert_eq!(rig.run_all().await.len(), 3);
}

#[tokio::test]
async fn a_retried_job_yields_to_another_of_its_unique_key() {
    let rig = Rig::new().await;
    let unique = || NewJob { unique: Some(Unique { key: "u".into(), period: None }), ..job() };
    let first = rig.queue.enqueue(unique()).await.unwrap();
    let held = rig.claim(1).await.remove(0);
    rig.queue.finish(&held, failed()).await.unwrap();
    rig.queue.enqueue(unique()).await.unwrap();
    assert_eq!(rig.queue.retry(first).await.unwrap_err().kind, Kind::Conflict);
}

#[tokio::test]
async fn finished_steps_are_kept_for_the_next_attempt_and_only_the_holder_adds_to_them() {
    let rig = Rig::new().await;
    let id = rig.queue.enqueue(NewJob { max_attempts: 2, ..job() }).await.unwrap();
    let held = rig.claim(1).await.remove(0);
    rig.queue.save_step(&held, 0, "fetch", "42").await.unwrap();
    rig.queue.finish(&held, failed()).await.unwrap();
    assert_eq!(rig.queue.save_step(&held, 1, "late", "").await.unwrap_err().kind, Kind::Conflict);
    let steps: Vec<_> = rig.queue.steps(id).await.unwrap().into_iter().map(|s| (s.number, s.name, s.result)).collect();
    assert_eq!(steps, [(0, "fetch".to_owned(), "42".to_owned())]);
}

#[tokio::test]
async fn a_refused_write_among_others_leaves_what_the_queue_knows_right() {
    let rig = Rig::new().await;
    rig.queue.enqueue(job()).await.unwrap();
    let held = rig.claim(1).await.remove(0);
    rig.queue.finish(&held, ok()).await.unwrap();
    // These share commits with a late end that is refused.
    let (a, b, c, d) = tokio::join!(
        rig.queue.set_key("k", 3, None),
        rig.queue.finish(&held, ok()),
        rig.queue.enqueue(keyed("k")),
        rig.queue.enqueue(job()),
    );
    a.unwrap();
    c.unwrap();
    d.unwrap();
    assert_eq!(b.unwrap_err().kind, Kind::Conflict);
    assert_eq!(rig.queue.counts(), Counts { queued: 2, completed: 1, ..Counts::default() });
    let rig = rig.restart().await;
    assert_eq!(rig.queue.counts(), Counts { queued: 2, completed: 1, ..Counts::default() });
    assert_eq!(rig.queue.keys()[0].concurrency_limit, 3);
}
