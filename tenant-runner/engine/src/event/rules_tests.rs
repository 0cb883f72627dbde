//! Zones, starts, pauses, jitter: what an event's further fields do.

use super::tests::{event, with};
use super::*;
use crate::testing::{Rig, failed, utc};
use serde_json::json;

async fn kinds(rig: &Rig) -> Vec<String> {
    use futures::StreamExt as _;
    let last = rig.bus.announce(Fact::new("test.end", "test", json!({}))).await.unwrap();
    rig.bus.subscribe(Some(0)).take_while(move |e| std::future::ready(e.seq < last)).map(|e| e.kind).collect().await
}

#[tokio::test]
async fn every_refusal_of_a_further_field_names_it() {
    let rig = Rig::new().await;
    for (change, field) in [
        (json!({"timezone": "Mars/Olympus"}), "timezone"),
        (json!({"timezone": 1}), "timezone"),
        (json!({"overlap": "sometimes"}), "overlap"),
        (json!({"overlap": 1}), "overlap"),
        (json!({"jitter_s": -1}), "jitter_s"),
        (json!({"jitter_s": 90_000}), "jitter_s"),
        (json!({"jitter_s": 1.5}), "jitter_s"),
        (json!({"starts_at": "soon"}), "starts_at"),
        (json!({"starts_at": "2026-03-01T00:00:00Z", "expires_at": "2026-02-01T00:00:00Z"}), "expires_at"),
        (json!({"starts_at": "2026-03-01T00:00:00Z", "next_eval_at": "2026-02-01T00:00:00Z"}), "next_eval_at"),
        (json!({"pause_after_failures": 0}), "pause_after_failures"),
        (json!({"pause_after_failures": "often"}), "pause_after_failures"),
        (json!({"catch_up": "never"}), "catch_up"),
        (json!({"catch_up": {"all": 0}}), "catch_up"),
        (json!({"catch_up": {"all": 3, "most": 1}}), "catch_up"),
        (json!({"job": []}), "job"),
        (json!({"job": {"colour": 1}}), "job.colour"),
        (json!({"job": {"priority": 1}}), "job.priority"),
        (json!({"overlap": "queue", "job": {"concurrency_limit": 2}}), "job.concurrency_limit"),
        (json!({"condition_type": "bus", "condition_expr": "*"}), "condition_expr"),
        (json!({"condition_type": "bus", "condition_expr": {"on": "job.*", "match": {"a": []}}}), "condition_expr"),
        (
            json!({"condition_type": "once", "condition_expr": "2026-02-01T00:00:00Z", "starts_at": "2026-03-01T00:00:00Z"}),
            "starts_at",
        ),
    ] {
        let error = rig.events.upsert(with(event("a", "cron", "@daily"), change.clone())).await.unwrap_err();
        assert_eq!(error.field(), Some(field), "{change}: {error}");
    }
}

#[tokio::test]
async fn every_field_is_kept_and_can_be_sent_back_and_cleared() {
    let rig = Rig::new().await;
    let more = json!({
        "timezone": "Europe/Berlin", "overlap": "skip", "jitter_s": 30, "starts_at": "2026-02-01T00:00:00Z",
        "expires_at": "2026-03-01T00:00:00Z", "pause_after_failures": 3, "catch_up": {"all": 5}, "job": {"timeout_s": 60},
    });
    rig.events.upsert(with(event("a", "cron", "0 9 * * *"), more)).await.unwrap();
    let made = rig.events.get("a").await.unwrap();
    assert_eq!((made.overlap, made.jitter_s, made.pause_after_failures), (Overlap::Skip, 30, Some(3)));
    assert_eq!(made.next_eval_at, Some(utc("2026-02-01T08:00:00Z")));
    rig.events.upsert(serde_json::to_value(&made).unwrap()).await.unwrap();
    assert_eq!(rig.events.get("a").await.unwrap(), made);
    rig.events.patch("a", json!({"description": "x"})).await.unwrap();
    assert_eq!(rig.events.get("a").await.unwrap().job, Some(json!({"timeout_s": 60})));
    let cleared = rig
        .events
        .patch(
            "a",
            json!({"timezone": null, "starts_at": null, "job": null, "catch_up": null, "pause_after_failures": null}),
        )
        .await
        .unwrap();
    assert_eq!(
        (cleared.timezone, cleared.job, cleared.catch_up, cleared.pause_after_failures),
        (None, None, None, None)
    );
    assert_eq!(cleared.next_eval_at, Some(utc("2026-01-01T09:00:00Z")), "planned anew, in the default zone");
}

#[tokio::test]
async fn the_zone_in_the_expression_wins_over_the_event_s_and_that_over_the_default() {
    let rig = Rig::new().await;
    let own = json!({"expr": "0 9 * * *", "timezone": "Asia/Kolkata"});
    rig.events
        .upsert(with(event("a", "cron", ""), json!({"condition_expr": own, "timezone": "Europe/Berlin"})))
        .await
        .unwrap();
    rig.events.upsert(with(event("b", "cron", "0 9 * * *"), json!({"timezone": "Europe/Berlin"}))).await.unwrap();
    rig.events.upsert(event("c", "cron", "0 9 * * *")).await.unwrap();
    for (id, at) in [("a", "2026-01-01T03:30:00Z"), ("b", "2026-01-01T08:00:00Z"), ("c", "2026-01-01T09:00:00Z")] {
        assert_eq!(rig.events.get(id).await.unwrap().next_eval_at, Some(utc(at)), "{id}");
    }
}

#[tokio::test]
async fn a_start_lies_before_every_slot_and_an_interval_counts_from_it() {
    let rig = Rig::new().await;
    let start = |at: &str| json!({"starts_at": at});
    for (id, condition, expression, starts, first) in [
        ("cron", "cron", "0 * * * *", "2026-01-01T05:00:00Z", "2026-01-01T05:00:00Z"),
        ("between", "cron", "0 * * * *", "2026-01-01T05:00:00.5Z", "2026-01-01T06:00:00Z"),
        ("every", "interval", "3600", "2026-01-01T05:10:00Z", "2026-01-01T05:10:00Z"),
        ("begun", "interval", "3600", "2025-12-31T20:10:00Z", "2026-01-01T00:10:00Z"),
        ("once", "once", "2026-01-01T07:00:00Z", "2026-01-01T05:00:00Z", "2026-01-01T07:00:00Z"),
    ] {
        rig.events.upsert(with(event(id, condition, expression), start(starts))).await.unwrap();
        assert_eq!(rig.events.get(id).await.unwrap().next_eval_at, Some(utc(first)), "{id}");
    }
    rig.events.upsert(with(event("hook", "webhook", ""), start("2026-01-01T05:00:00Z"))).await.unwrap();
    assert_eq!(rig.deliver("hook", None).await.unwrap_err().kind, crate::error::Kind::Conflict);
    rig.advance(5 * 3600);
    rig.deliver("hook", None).await.unwrap();
}

#[tokio::test]
async fn a_paused_event_waits_runs_by_hand_and_is_resumed_without_what_it_missed() {
    let rig = Rig::new().await;
    rig.events.upsert(with(event("a", "interval", "60"), json!({"catch_up": {"all": 100}}))).await.unwrap();
    let paused = rig.events.pause("a").await.unwrap();
    assert_eq!((paused.status, paused.next_eval_at, paused.paused_reason), (EventStatus::Paused, None, None));
    rig.events.pause("a").await.unwrap();
    rig.advance(600);
    assert_eq!(rig.events.tick().await.unwrap(), Tick { fired: 0, next: None });
    rig.events.trigger("a").await.unwrap();
    assert_eq!(rig.run_all().await.len(), 1);
    let resumed = rig.events.resume("a").await.unwrap();
    assert_eq!((resumed.status, resumed.next_eval_at), (EventStatus::Active, Some(utc("2026-01-01T00:11:00Z"))));
    assert_eq!(rig.events.resume("nobody").await.unwrap_err().kind, crate::error::Kind::NotFound);
    assert!(!kinds(&rig).await.contains(&"event.paused".to_owned()), "whoever pauses by hand needs no alert");
}

#[tokio::test]
async fn what_is_over_is_neither_paused_nor_resumed() {
    let rig = Rig::new().await;
    rig.events.upsert(event("a", "once", "2026-01-01T00:00:10Z")).await.unwrap();
    rig.advance(20);
    rig.events.tick().await.unwrap();
    rig.run_all().await;
    assert_eq!(rig.events.pause("a").await.unwrap_err().kind, crate::error::Kind::Conflict);
    assert_eq!(rig.events.resume("a").await.unwrap_err().kind, crate::error::Kind::Conflict);
}

#[tokio::test]
async fn too_many_failures_in_a_row_pause_an_event_and_say_so() {
    let rig = Rig::new().await;
    let more = json!({"pause_after_failures": 2, "max_retries": 1, "retry_backoff_minutes": 0});
    rig.events.upsert(with(event("a", "interval", "60"), more)).await.unwrap();
    let run = async |succeeds: bool| {
        rig.advance(60);
        rig.events.tick().await.unwrap();
        while let Some(job) = rig.claim(1).await.pop() {
            let outcome = if succeeds { crate::queue::Outcome::Succeeded(String::new()) } else { failed() };
            rig.queue.finish(&job, outcome).await.unwrap();
        }
        rig.events.get("a").await.unwrap()
    };
    assert_eq!(run(false).await.failures_in_row, 1, "attempts that are tried again do not count");
    assert_eq!(run(true).await.failures_in_row, 0);
    assert_eq!(run(false).await.status, EventStatus::Active);
    let paused = run(false).await;
    assert_eq!((paused.status, paused.next_eval_at, paused.failures_in_row), (EventStatus::Paused, None, 2));
    assert!(paused.paused_reason.unwrap().contains("2 jobs in a row failed"));
    assert_eq!(kinds(&rig).await.iter().filter(|kind| *kind == "event.paused").count(), 1);
    let resumed = rig.events.patch("a", json!({"status": "active"})).await.unwrap();
    assert_eq!((resumed.failures_in_row, resumed.paused_reason), (0, None));
}

#[tokio::test]
async fn jitter_delays_the_job_by_an_amount_that_belongs_to_the_slot() {
    let rig = Rig::new().await;
    for id in ["a", "b", "c", "d"] {
        rig.events.upsert(with(event(id, "interval", "60"), json!({"jitter_s": 40}))).await.unwrap();
    }
    rig.advance(60);
    rig.events.tick().await.unwrap();
    let slot = utc("2026-01-01T00:01:00Z");
    let mut waits = Vec::new();
    for job in rig.queue.view().await.unwrap().recent {
        let wait = job.run_at - slot;
        assert!(wait >= chrono::Duration::zero() && wait <= chrono::Duration::seconds(40), "{wait}");
        waits.push(wait);
    }
    waits.sort();
    waits.dedup();
    assert!(waits.len() > 1, "events do not all wait alike");
    rig.advance(41);
    assert!(rig.run_all().await.iter().all(|job| job.slot == Some(slot)));
}

#[tokio::test]
async fn another_default_zone_moves_only_what_leaves_its_zone_to_it() {
    let rig = Rig::new().await;
    rig.events.upsert(event("default", "cron", "0 9 * * *")).await.unwrap();
    rig.events.upsert(with(event("own", "cron", "0 9 * * *"), json!({"timezone": "UTC"}))).await.unwrap();
    rig.events.upsert(event("every", "interval", "60")).await.unwrap();
    let berlin = Events { zone: std::sync::Arc::new(|| chrono_tz::Tz::Europe__Berlin), ..rig.events.clone() };
    for _ in 0..2 {
        berlin.replan_default_zone().await.unwrap();
        for (id, at) in
            [("default", "2026-01-01T08:00:00Z"), ("own", "2026-01-01T09:00:00Z"), ("every", "2026-01-01T00:01:00Z")]
        {
            assert_eq!(rig.events.get(id).await.unwrap().next_eval_at, Some(utc(at)), "{id}");
        }
    }
}

#[tokio::test]
async fn the_number_of_events_is_known_without_counting() {
    let rig = Rig::new().await;
    for id in ["a", "b", "c"] {
        rig.events.upsert(event(id, "interval", "60")).await.unwrap();
        rig.events.upsert(with(event(id, "interval", "60"), json!({"description": "again"}))).await.unwrap();
    }
    rig.events.delete("b").await.unwrap();
    let known = |c: &Connection| Ok(c.query_row("SELECT events FROM event_total", [], |row| row.get::<_, u64>(0))?);
    assert_eq!(rig.store.read(known).await.unwrap(), 2);
    rig.store.write(|tx| Ok(tx.execute("UPDATE event_total SET events = 200000", [])?)).await.unwrap();
    assert_eq!(rig.events.upsert(event("d", "interval", "60")).await.unwrap_err().kind, crate::error::Kind::Conflict);
    rig.events
        .upsert(with(event("a", "interval", "60"), json!({"description": "known ones can change"})))
        .await
        .unwrap();
}

#[tokio::test]
async fn more_events_than_one_part_takes_fire_and_expire_all_at_once() {
    let rig = Rig::new().await;
    let events = rig.events.clone();
    rig.store
        .write(move |tx| {
            for n in 0..600 {
                let expires = json!({"expires_at": "2026-01-01T00:01:30Z"});
                events.upsert_in(tx, with(event(&format!("e{n}"), "interval", "60"), expires))?;
            }
            Ok(())
        })
        .await
        .unwrap();
    rig.advance(60);
    let tick = rig.events.tick().await.unwrap();
    assert_eq!((tick.fired, tick.next), (600, Some(utc("2026-01-01T00:01:30Z"))));
    rig.advance(600);
    assert_eq!(rig.events.tick().await.unwrap(), Tick { fired: 0, next: None });
    let expired = EventFilter { status: Some("expired".into()), limit: Some(1000), ..EventFilter::default() };
    assert_eq!(rig.events.list(expired).await.unwrap().len(), 600);
}

#[tokio::test]
async fn what_each_look_asks_is_answered_by_an_index() {
    let rig = Rig::new().await;
    let questions = super::tick::QUESTIONS;
    let plans: Vec<(String, String)> = rig
        .store
        .read(move |c| {
            let plan = |sql: &str| {
                let mut statement = c.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
                let values = vec![rusqlite::types::Value::Integer(1); statement.parameter_count()];
                let rows = statement.query_map(rusqlite::params_from_iter(values), |row| row.get::<_, String>(3))?;
                rows.collect::<rusqlite::Result<Vec<_>>>().map(|lines| lines.join("; "))
            };
            Ok(questions
                .iter()
                .map(|sql| plan(sql).map(|plan| (sql.to_string(), plan)))
                .collect::<rusqlite::Result<_>>()?)
        })
        .await
        .unwrap();
    for (sql, plan) in plans {
        let whole_table = plan.split("; ").any(|line| line.starts_with("SCAN events") && !line.contains("INDEX"));
        assert!(!whole_table && !plan.contains("TEMP B-TREE"), "{sql}: {plan}");
    }
}

#[test]
fn the_rebuilt_tables_keep_what_was_in_them() {
    let c = Connection::open_in_memory().unwrap();
    c.pragma_update(None, "foreign_keys", "ON").unwrap();
    c.execute_batch(include_str!("../../migrations/001_bus.sql")).unwrap();
    c.execute_batch(include_str!("../../migrations/002_events.sql")).unwrap();
    c.execute_batch(include_str!("../../migrations/003_jobs.sql")).unwrap();
    c.execute_batch(
        "INSERT INTO events (id, type, condition_type, condition_expr, next_eval_at, action_type, action_config, status,
             priority, max_retries, retry_backoff_minutes, run_count, created_at, updated_at)
         VALUES ('a', 't', 'cron', '@daily', 5, 'script', '{\"command\":\"true\"}', 'active', 5, 3, 5.0, 7, 1, 2),
                ('b', 't', 'once', '2026-01-01T00:00:00Z', NULL, 'script', '{}', 'completed', 5, 3, 5.0, 1, 1, 2);
         INSERT INTO slots VALUES ('a', 1, x'01'), ('a', 2, x'02'), ('b', 3, x'03');",
    )
    .unwrap();
    c.execute_batch(include_str!("../../migrations/020_queue.sql")).unwrap();
    c.execute_batch(include_str!("../../migrations/021_schedules.sql")).unwrap();
    c.execute("INSERT INTO slots (event_id, slot, outcome) VALUES ('a', 4, 'overlap')", []).unwrap();
    c.execute_batch(include_str!("../../migrations/027_events_paused.sql")).unwrap();
    c.execute_batch(include_str!("../../migrations/030_cheaper_rules.sql")).unwrap();
    c.execute_batch(include_str!("../../migrations/031_slots_by_time.sql")).unwrap();
    let number = |sql: &str| c.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    let slots_of = |id: &str| {
        let mut statement = c
            .prepare("SELECT s.slot, s.outcome FROM slots s JOIN events e ON e.number = s.event WHERE e.id = ?1")
            .unwrap();
        let rows =
            statement.query_map([id], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Option<String>>(1)?))).unwrap();
        rows.collect::<rusqlite::Result<Vec<_>>>().unwrap()
    };
    assert_eq!(slots_of("a"), [(1, None), (2, None), (4, Some("overlap".to_owned()))]);
    assert_eq!(slots_of("b"), [(3, None)]);
    assert_eq!(number("SELECT events FROM event_total"), 2);
    let kept = Event::load(&c, "a").unwrap().unwrap();
    assert_eq!((kept.run_count, kept.overlap, kept.jitter_s, kept.failures_in_row), (7, Overlap::Allow, 0, 0));
    assert_eq!(kept.next_eval_at, Some(crate::store::from_micros(5)));
    c.execute("DELETE FROM events WHERE id = 'a'", []).unwrap();
    assert_eq!(number("SELECT events FROM event_total"), 1);
    c.execute_batch(
        "INSERT INTO events (id, type, condition_type, condition_expr, action_type, action_config, status, priority,
             max_retries, retry_backoff_minutes, created_at, updated_at)
         VALUES ('a', 't', 'cron', '@daily', 'script', '{}', 'active', 5, 3, 5.0, 1, 2)",
    )
    .unwrap();
    assert_eq!(slots_of("a"), [], "an event that comes again has no past");
}
