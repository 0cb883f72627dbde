use super::*;
use crate::queue::{JobState, Outcome};
use crate::testing::{Rig, failed, utc};
use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeSet;

pub(super) fn event(id: &str, condition: &str, expression: &str) -> Value {
    json!({"id": id, "type": "test", "condition_type": condition, "condition_expr": expression,
           "action_type": "script", "action_config": {"command": "true"}})
}

pub(super) fn with(mut base: Value, more: Value) -> Value {
    for (key, value) in more.as_object().unwrap() {
        base[key] = value.clone();
    }
    base
}

#[tokio::test]
async fn an_event_is_created_shown_changed_and_deleted() {
    let rig = Rig::new().await;
    let (id, outcome) = rig.events.upsert(event("report", "cron", "0 9 * * *")).await.unwrap();
    assert_eq!((id.as_str(), outcome), ("report", Upserted::Created));
    let made = rig.events.get("report").await.unwrap();
    assert_eq!(made.next_eval_at, Some(utc("2026-01-01T09:00:00Z")));
    assert_eq!((made.max_retries, made.priority, made.status), (3, 5, EventStatus::Active));

    let paused = rig.events.patch("report", json!({"status": "paused", "description": "daily"})).await.unwrap();
    assert_eq!(
        (paused.status, paused.next_eval_at, paused.description.as_deref()),
        (EventStatus::Paused, None, Some("daily"))
    );
    let resumed = rig.events.patch("report", json!({"status": "active", "description": null})).await.unwrap();
    assert_eq!((resumed.next_eval_at, resumed.description), (Some(utc("2026-01-01T09:00:00Z")), None));

    rig.events.delete("report").await.unwrap();
    assert_eq!(rig.events.get("report").await.unwrap_err().kind, crate::error::Kind::NotFound);
    assert_eq!(rig.events.delete("report").await.unwrap_err().kind, crate::error::Kind::NotFound);
}

#[tokio::test]
async fn an_answer_can_be_sent_back_as_it_is_and_changes_nothing() {
    let rig = Rig::new().await;
    rig.events.upsert(event("a", "interval", "60")).await.unwrap();
    rig.advance(10);
    let before = rig.events.get("a").await.unwrap();
    let (_, outcome) = rig.events.upsert(serde_json::to_value(&before).unwrap()).await.unwrap();
    assert_eq!(outcome, Upserted::Updated);
    assert_eq!(rig.events.get("a").await.unwrap(), before);
}

#[tokio::test]
async fn sending_an_event_again_does_not_move_its_next_time() {
    let rig = Rig::new().await;
    rig.events.upsert(event("a", "interval", "60")).await.unwrap();
    rig.advance(30);
    rig.events.upsert(with(event("a", "interval", "60"), json!({"description": "new"}))).await.unwrap();
    assert_eq!(rig.events.get("a").await.unwrap().next_eval_at, Some(utc("2026-01-01T00:01:00Z")));
    rig.events.upsert(event("a", "interval", "120")).await.unwrap();
    assert_eq!(rig.events.get("a").await.unwrap().next_eval_at, Some(utc("2026-01-01T00:02:30Z")));
}

#[tokio::test]
async fn every_refusal_names_its_field() {
    let rig = Rig::new().await;
    let base = || event("a", "cron", "@daily");
    for (change, field) in [
        (json!({"id": "../etc"}), "id"),
        (json!({"id": 7}), "id"),
        (json!({"type": null}), "type"),
        (json!({"type": ""}), "type"),
        (json!({"condition_type": "sometimes"}), "condition_type"),
        (json!({"condition_expr": "never"}), "condition_expr"),
        (json!({"condition_expr": null}), "condition_expr"),
        (json!({"condition_expr": ["a"]}), "condition_expr"),
        (json!({"condition_expr": {"expr": "@daily", "timezone": "Nowhere"}}), "condition_expr"),
        (json!({"action_type": "shell"}), "action_type"),
        (json!({"action_config": "{"}), "action_config"),
        (json!({"action_config": "[]"}), "action_config"),
        (json!({"action_config": {}}), "action_config.command"),
        (json!({"status": "sleeping"}), "status"),
        (json!({"priority": 1.5}), "priority"),
        (json!({"max_retries": -1}), "max_retries"),
        (json!({"max_retries": 101}), "max_retries"),
        (json!({"retry_backoff_minutes": "soon"}), "retry_backoff_minutes"),
        (json!({"retry_backoff_minutes": -0.5}), "retry_backoff_minutes"),
        (json!({"expires_at": "2025-01-01T00:00:00Z"}), "expires_at"),
        (json!({"expires_at": "later"}), "expires_at"),
        (json!({"next_eval_at": 5}), "next_eval_at"),
        (json!({"agent": ""}), ""),
        (json!({"agent": 5}), "agent"),
        (json!({"metadata": []}), "metadata"),
        (json!({"surprise": 1}), "surprise"),
    ] {
        let result = rig.events.upsert(with(base(), change.clone())).await;
        if field.is_empty() {
            result.unwrap();
        } else {
            assert_eq!(result.unwrap_err().field(), Some(field), "{change}");
        }
    }
    assert_eq!(rig.events.upsert(json!([])).await.unwrap_err().field(), Some("body"));
    rig.events.upsert(base()).await.unwrap();
    assert_eq!(rig.events.patch("a", json!({"id": "b"})).await.unwrap_err().field(), Some("id"));
    assert_eq!(
        rig.events.list(EventFilter { status: Some("x".into()), ..EventFilter::default() }).await.unwrap_err().field(),
        Some("status")
    );
}

#[tokio::test]
async fn a_schedule_fires_when_it_is_due_and_says_when_to_look_again() {
    let rig = Rig::new().await;
    rig.events.upsert(event("a", "interval", "60")).await.unwrap();
    assert_eq!(rig.events.tick().await.unwrap().next, Some(utc("2026-01-01T00:01:00Z")));
    rig.advance(60);
    let tick = rig.events.tick().await.unwrap();
    assert_eq!((tick.fired, tick.next), (1, Some(utc("2026-01-01T00:02:00Z"))));
    let jobs = rig.run_all().await;
    assert_eq!((jobs.len(), jobs[0].slot), (1, Some(utc("2026-01-01T00:01:00Z"))));
    let after = rig.events.get("a").await.unwrap();
    assert_eq!((after.run_count, after.fail_count), (1, 0));
}

#[tokio::test]
async fn with_nothing_planned_there_is_nothing_to_wake_for() {
    let rig = Rig::new().await;
    rig.events.upsert(event("hook", "webhook", "")).await.unwrap();
    rig.events.upsert(with(event("p", "cron", "@daily"), json!({"status": "paused"}))).await.unwrap();
    assert_eq!(rig.events.tick().await.unwrap().next, None);
}

#[tokio::test]
async fn once_runs_once_and_stays_done() {
    let rig = Rig::new().await;
    let once = event("a", "once", "2026-01-01T00:00:10Z");
    rig.events.upsert(once.clone()).await.unwrap();
    rig.advance(20);
    assert_eq!(rig.events.tick().await.unwrap().fired, 1);
    assert_eq!(rig.events.get("a").await.unwrap().status, EventStatus::Completed);
    // Neither sent again nor made active again does the same moment come twice.
    rig.events.upsert(once.clone()).await.unwrap();
    rig.events.upsert(with(once, json!({"status": "active"}))).await.unwrap();
    assert_eq!(rig.events.tick().await.unwrap().fired, 0);
    assert_eq!(rig.run_all().await.len(), 1);
}

#[tokio::test]
async fn an_event_that_was_deleted_and_comes_again_runs_its_slots_anew() {
    let rig = Rig::new().await;
    let once = event("a", "once", "2026-01-01T00:00:10Z");
    for _ in 0..2 {
        rig.events.upsert(once.clone()).await.unwrap();
        rig.advance(20);
        assert_eq!(rig.events.tick().await.unwrap().fired, 1);
        rig.events.delete("a").await.unwrap();
    }
    assert_eq!(rig.run_all().await.len(), 2);
}

#[tokio::test]
async fn a_single_run_that_fails_for_good_leaves_a_failed_event() {
    let rig = Rig::new().await;
    rig.events.upsert(with(event("a", "once", "2026-01-01T00:00:10Z"), json!({"max_retries": 0}))).await.unwrap();
    rig.advance(20);
    rig.events.tick().await.unwrap();
    let job = rig.claim(1).await.remove(0);
    rig.queue.finish(&job, failed()).await.unwrap();
    let event = rig.events.get("a").await.unwrap();
    assert_eq!((event.status, event.fail_count, event.last_result.as_deref()), (EventStatus::Failed, 1, Some("no")));
}

#[tokio::test]
async fn an_event_expires_at_its_time_and_fires_no_more() {
    let rig = Rig::new().await;
    let more = json!({"expires_at": "2026-01-01T00:00:30Z"});
    rig.events.upsert(with(event("a", "interval", "60"), more.clone())).await.unwrap();
    rig.events.upsert(with(event("hook", "webhook", ""), more)).await.unwrap();
    assert_eq!(rig.events.tick().await.unwrap().next, Some(utc("2026-01-01T00:00:30Z")));
    rig.advance(3600);
    let tick = rig.events.tick().await.unwrap();
    assert_eq!((tick.fired, tick.next), (0, None));
    assert_eq!(rig.events.get("a").await.unwrap().status, EventStatus::Expired);
    assert_eq!(rig.events.trigger("hook").await.unwrap_err().kind, crate::error::Kind::Conflict);
}

#[tokio::test]
async fn a_trigger_runs_the_action_with_what_came_along() {
    let rig = Rig::new().await;
    let more =
        json!({"priority": 2, "max_retries": 4, "retry_backoff_minutes": 0.5, "concurrency_key": "k", "agent": "ada"});
    rig.events.upsert(with(event("hook", "webhook", ""), more)).await.unwrap();
    let id = rig.deliver("hook", Some(json!({"n": 1}))).await.unwrap();
    let job = rig.claim(1).await.remove(0);
    assert_eq!(
        (job.id, job.payload.clone(), job.agent.as_deref(), job.max_attempts),
        (id, Some(json!({"n": 1})), Some("ada"), 5)
    );
    rig.queue.finish(&job, failed()).await.unwrap();
    let again = rig.queue.get(id).await.unwrap().run_at;
    assert!((utc("2026-01-01T00:00:30Z")..=utc("2026-01-01T00:00:36Z")).contains(&again), "{again}");
}

#[tokio::test]
async fn a_delivery_reaches_only_active_events_that_wait_for_one() {
    let rig = Rig::new().await;
    rig.events.upsert(event("cron", "cron", "@daily")).await.unwrap();
    rig.events.upsert(with(event("off", "webhook", ""), json!({"status": "paused"}))).await.unwrap();
    for id in ["cron", "off", "nobody"] {
        assert_eq!(rig.deliver(id, None).await.unwrap_err().kind, crate::error::Kind::NotFound, "{id}");
    }
}

#[tokio::test]
async fn what_happens_is_told_in_order() {
    use futures::StreamExt as _;
    let rig = Rig::new().await;
    rig.events.upsert(event("a", "interval", "60")).await.unwrap();
    rig.advance(60);
    rig.events.tick().await.unwrap();
    rig.run_all().await;
    let told: Vec<String> = rig.bus.subscribe(Some(0)).take(5).map(|e| e.kind).collect().await;
    assert_eq!(told, ["event.created", "job.queued", "event.fired", "job.started", "job.succeeded"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]
    /// The process dies between any two steps, as the seed says: each slot is run, and no slot has two jobs.
    #[test]
    fn no_slot_is_lost_or_doubled_over_crashes(seed in prop::collection::vec((0u8..6, 1i64..90), 1..40)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let mut rig = Rig::new().await;
            let all = r#"{"seconds": 30, "catch_up": {"all": 1000}}"#;
            rig.events.upsert(event("a", "interval", all)).await.unwrap();
            let mut ends = Vec::new();
            for (what, seconds) in seed {
                match what {
                    0 => rig = rig.restart().await,
                    1 => rig.advance(seconds),
                    2 => { rig.events.tick().await.unwrap(); }
                    // Taken, and the process dies before it ends.
                    3 => { rig.claim(2).await; rig = rig.restart().await; }
                    4 => for job in rig.claim(2).await {
                        rig.queue.finish(&job, Outcome::Succeeded(String::new())).await.unwrap();
                        ends.push(job.slot.unwrap());
                    },
                    // The timer's planning is undone and done again, as after a clock that was set back.
                    _ => {
                        let back = crate::store::to_micros(utc("2026-01-01T00:00:30Z"));
                        rig.store.write(move |tx| Ok(tx.execute("UPDATE events SET next_eval_at = ?1", [back])?)).await.unwrap();
                    }
                }
            }
            rig = rig.restart().await;
            let now = rig.now();
            rig.events.tick().await.unwrap();
            ends.extend(rig.run_all().await.into_iter().map(|job| job.slot.unwrap()));
            let unique: BTreeSet<_> = ends.iter().copied().collect();
            assert_eq!(unique.len(), ends.len(), "a slot ran twice");
            let expected = (now - utc("2026-01-01T00:00:00Z")).num_seconds() / 30;
            // A job that ended its process too often is given up, and is still there to be seen.
            let view = rig.queue.view().await.unwrap();
            assert_eq!(unique.len() as u64 + view.counts.failed, expected as u64);
            assert!(view.recent.iter().all(|job| job.state != JobState::Ready));
        });
    }
}
