use super::*;
use crate::testing::{Rig, failed, job};
use proptest::prelude::*;
use std::time::Duration;

#[tokio::test]
async fn a_job_that_succeeds_is_over() {
    let rig = Rig::new().await;
    let id = rig.queue.enqueue(job()).await.unwrap();
    assert_eq!(rig.queue.get(id).await.unwrap().state, JobState::Ready);
    let claimed = rig.claim(4).await;
    assert_eq!(claimed.len(), 1);
    assert_eq!(rig.queue.get(id).await.unwrap().state, JobState::Running);
    rig.queue.finish(&claimed[0], Outcome::Succeeded("done".into())).await.unwrap();
    let done = rig.queue.get(id).await.unwrap();
    assert_eq!((done.state, done.result.as_deref(), done.attempt), (JobState::Succeeded, Some("done"), 1));
    assert!(rig.claim(4).await.is_empty());
    assert_eq!(rig.queue.view().await.unwrap().counts, Counts { completed: 1, ..Counts::default() });
}

#[tokio::test]
async fn a_failure_is_tried_again_after_a_growing_wait_until_the_job_is_dead() {
    let rig = Rig::new().await;
    let id = rig
        .queue
        .enqueue(NewJob { max_attempts: 3, retry: Retry::Exponential { base: Duration::from_secs(60) }, ..job() })
        .await
        .unwrap();
    let mut attempts = Vec::new();
    for wait in [60, 120] {
        let claimed = rig.claim(1).await.remove(0);
        attempts.push(claimed.attempt_id);
        rig.queue.finish(&claimed, failed()).await.unwrap();
        let batch = rig.queue.claim(1).await.unwrap();
        assert!(batch.jobs.is_empty());
        let due = batch.next_due.unwrap() - rig.now();
        assert!((wait * 1000..=wait * 1200).contains(&due.num_milliseconds()), "{due}");
        rig.advance(due.num_seconds() + 1);
    }
    let claimed = rig.claim(1).await.remove(0);
    attempts.push(claimed.attempt_id);
    rig.queue.finish(&claimed, failed()).await.unwrap();
    assert_eq!(rig.queue.get(id).await.unwrap().state, JobState::Dead);
    attempts.sort();
    attempts.dedup();
    assert_eq!(attempts.len(), 3, "each attempt has an id of its own");
}

#[tokio::test]
async fn a_permanent_failure_is_not_tried_again() {
    let rig = Rig::new().await;
    let id = rig.queue.enqueue(NewJob { max_attempts: 5, ..job() }).await.unwrap();
    let claimed = rig.claim(1).await.remove(0);
    rig.queue
        .finish(&claimed, Outcome::Failed { error: "never".into(), permanent: true, retry_after: None })
        .await
        .unwrap();
    assert_eq!(rig.queue.get(id).await.unwrap().state, JobState::Dead);
}

#[tokio::test]
async fn a_new_process_takes_up_what_the_old_one_left_under_the_same_attempt_and_a_late_end_is_refused() {
    let rig = Rig::new().await;
    let id = rig.queue.enqueue(job()).await.unwrap();
    let old = rig.claim(1).await.remove(0);
    let old_queue = rig.queue.clone();
    let rig = rig.restart().await;
    let new = rig.claim(1).await.remove(0);
    assert_eq!((new.id, new.attempt_id, new.attempt), (id, old.attempt_id, 1));
    assert!(new.lease.fence > old.lease.fence);
    let refused = old_queue.finish(&old, failed()).await.unwrap_err();
    assert_eq!(refused.kind, crate::error::Kind::Conflict);
    assert_eq!(rig.queue.get(id).await.unwrap().state, JobState::Running);
    rig.queue.finish(&new, Outcome::Succeeded("once".into())).await.unwrap();
    assert_eq!(rig.queue.get(id).await.unwrap().result.as_deref(), Some("once"));
}

#[tokio::test]
async fn a_job_that_ends_its_process_again_and_again_is_given_up() {
    let mut rig = Rig::new().await;
    let id = rig.queue.enqueue(job()).await.unwrap();
    for _ in 0..10 {
        assert_eq!(rig.claim(1).await.len(), 1);
        rig = rig.restart().await;
    }
    assert_eq!(rig.queue.get(id).await.unwrap().state, JobState::Dead);
}

#[tokio::test]
async fn the_most_urgent_runs_first_and_equals_run_in_their_order() {
    let rig = Rig::new().await;
    for (priority, name) in [(5, "c"), (5, "d"), (1, "a"), (9, "e"), (2, "b")] {
        rig.queue.enqueue(NewJob { priority, agent: Some(name.into()), ..job() }).await.unwrap();
    }
    let order: Vec<_> = rig.claim(10).await.into_iter().filter_map(|job| job.agent).collect();
    assert_eq!(order, ["a", "b", "c", "d", "e"]);
}

#[tokio::test]
async fn a_busy_key_holds_back_its_own_jobs_and_nobody_else() {
    let rig = Rig::new().await;
    let keyed = |key: &str| NewJob { concurrency_key: Some(key.into()), ..job() };
    for new in [keyed("x"), keyed("x"), keyed("y"), job()] {
        rig.queue.enqueue(new).await.unwrap();
    }
    let first = rig.claim(4).await;
    assert_eq!(first.len(), 3, "one of each key, and the one without");
    assert!(rig.claim(4).await.is_empty());
    let mut ready = rig.queue.ready().listen();
    rig.queue.finish(&first[0], Outcome::Succeeded(String::new())).await.unwrap();
    ready.changed().await.unwrap();
    assert_eq!(rig.claim(4).await.len(), 1);
}

#[tokio::test]
async fn a_waiting_job_is_cancelled_at_once_and_a_running_one_when_it_stops() {
    let rig = Rig::new().await;
    let running = rig.queue.enqueue(NewJob { max_attempts: 3, ..job() }).await.unwrap();
    let claimed = rig.claim(1).await.remove(0);
    let waiting = rig.queue.enqueue(job()).await.unwrap();
    rig.queue.cancel(waiting).await.unwrap();
    assert_eq!(rig.queue.get(waiting).await.unwrap().state, JobState::Cancelled);
    assert!(!claimed.cancel.is_cancelled());
    rig.queue.cancel(running).await.unwrap();
    assert!(claimed.cancel.is_cancelled());
    assert_eq!(rig.queue.get(running).await.unwrap().state, JobState::Running);
    rig.queue.finish(&claimed, failed()).await.unwrap();
    assert_eq!(rig.queue.get(running).await.unwrap().state, JobState::Cancelled, "not tried again");
    assert_eq!(rig.queue.cancel(running).await.unwrap_err().kind, crate::error::Kind::Conflict);
    assert_eq!(rig.queue.cancel(JobId::generate()).await.unwrap_err().kind, crate::error::Kind::NotFound);
}

#[tokio::test]
async fn an_effect_that_happened_counts_even_if_somebody_asked_to_stop() {
    let rig = Rig::new().await;
    let id = rig.queue.enqueue(job()).await.unwrap();
    let claimed = rig.claim(1).await.remove(0);
    rig.queue.cancel(id).await.unwrap();
    rig.queue.finish(&claimed, Outcome::Succeeded("sent".into())).await.unwrap();
    assert_eq!(rig.queue.get(id).await.unwrap().state, JobState::Succeeded);
}

#[tokio::test]
async fn interrupted_jobs_of_this_process_run_again() {
    let rig = Rig::new().await;
    rig.queue.enqueue(job()).await.unwrap();
    let first = rig.claim(1).await.remove(0);
    assert_eq!(rig.queue.release_own().await.unwrap(), 1);
    let second = rig.claim(1).await.remove(0);
    assert_eq!(second.attempt_id, first.attempt_id);
    assert!(rig.queue.finish(&first, failed()).await.is_err());
}

#[tokio::test]
async fn the_database_itself_refuses_an_impossible_job() {
    let rig = Rig::new().await;
    rig.queue.enqueue(job()).await.unwrap();
    for impossible in [
        "UPDATE jobs SET state = 'running'",
        "UPDATE jobs SET state = 'succeeded'",
        "UPDATE jobs SET state = 'lost'",
        "UPDATE jobs SET attempt = 9",
        "UPDATE jobs SET cancelling = 1",
    ] {
        rig.store.write(|tx| Ok(tx.execute(impossible, [])?)).await.unwrap_err();
    }
}

#[test]
fn the_wait_doubles_up_to_a_day() {
    let base = Duration::from_secs(300);
    let waits: Vec<u64> = (1..=4).map(|attempt| retry_delay(base, attempt).as_secs()).collect();
    assert_eq!(waits, [300, 600, 1200, 2400]);
    assert_eq!(retry_delay(base, u32::MAX), Duration::from_secs(86_400));
    assert_eq!(retry_delay(Duration::ZERO, 3), Duration::ZERO);
}

/// What may happen to a queue, as the model below understands it.
#[derive(Debug, Clone)]
enum Step {
    Enqueue { attempts: u32 },
    Claim { most: usize },
    Succeed { which: usize },
    Fail { which: usize },
    Cancel { which: usize },
    Crash,
    Wait,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (1u32..4).prop_map(|attempts| Step::Enqueue { attempts }),
        3 => (1usize..4).prop_map(|most| Step::Claim { most }),
        2 => (0usize..8).prop_map(|which| Step::Succeed { which }),
        2 => (0usize..8).prop_map(|which| Step::Fail { which }),
        1 => (0usize..8).prop_map(|which| Step::Cancel { which }),
        1 => Just(Step::Crash),
        2 => Just(Step::Wait),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    /// Whatever happens in whatever order, every job that was accepted ends, exactly once, and no attempt has two ends.
    #[test]
    fn no_job_is_lost_or_ends_twice(steps in steps()) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let mut rig = Rig::new().await;
            let (mut accepted, mut held) = (Vec::new(), Vec::<Claimed>::new());
            let mut stale = Vec::<Claimed>::new();
            for step in steps {
                match step {
                    Step::Enqueue { attempts } => {
                        let retry = Retry::Exponential { base: Duration::from_secs(1) };
                        accepted.push(rig.queue.enqueue(NewJob { max_attempts: attempts, retry, ..job() }).await.unwrap());
                    }
                    Step::Claim { most } => held.extend(rig.claim(most).await),
                    Step::Succeed { which } if !held.is_empty() => {
                        let one = held.swap_remove(which % held.len());
                        rig.queue.finish(&one, Outcome::Succeeded(String::new())).await.unwrap();
                        stale.push(one);
                    }
                    Step::Fail { which } if !held.is_empty() => {
                        let one = held.swap_remove(which % held.len());
                        rig.queue.finish(&one, failed()).await.unwrap();
                        stale.push(one);
                    }
                    Step::Cancel { which } if !accepted.is_empty() => {
                        let _ = rig.queue.cancel(accepted[which % accepted.len()]).await;
                    }
                    Step::Crash => {
                        stale.append(&mut held);
                        rig = rig.restart().await;
                    }
                    Step::Wait => rig.advance(5),
                    Step::Succeed { .. } | Step::Fail { .. } | Step::Cancel { .. } => {}
                }
                for late in &stale {
                    assert!(rig.queue.finish(late, failed()).await.is_err(), "a lease that is over finished a job");
                }
            }
            for late in held {
                rig.queue.finish(&late, failed()).await.unwrap();
            }
            for _ in 0..5 {
                rig.advance(100);
                rig.run_all().await;
            }
            for id in accepted {
                let state = rig.queue.get(id).await.unwrap().state;
                assert!(matches!(state, JobState::Succeeded | JobState::Dead | JobState::Cancelled), "{state:?}");
            }
        });
    }
}

#[tokio::test]
async fn the_jobs_of_an_event_are_listed_newest_first_whether_they_live_or_have_ended() {
    let rig = Rig::new().await;
    let of = |event: &str| NewJob { event_id: Some(event.into()), ..job() };
    let mut ids = Vec::new();
    for n in 0..6 {
        rig.queue.enqueue(of("other")).await.unwrap();
        ids.insert(0, rig.queue.enqueue(of("mine")).await.unwrap());
        // Every other one has ended when the next comes.
        if n % 2 == 0 {
            rig.run_all().await;
        }
    }
    let list = async |state: Option<JobState>, before: Option<JobId>, limit: u32| {
        let filter =
            JobFilter { state, before, limit: Some(limit), event_id: Some("mine".into()), ..JobFilter::default() };
        rig.queue.list(filter).await.unwrap().into_iter().map(|job| job.id).collect::<Vec<_>>()
    };
    assert_eq!(list(None, None, 50).await, ids);
    assert_eq!(list(None, Some(ids[1]), 3).await, ids[2..5]);
    assert_eq!(list(Some(JobState::Ready), None, 50).await, ids[..1]);
    assert_eq!(list(Some(JobState::Succeeded), None, 2).await, ids[1..3]);
}
