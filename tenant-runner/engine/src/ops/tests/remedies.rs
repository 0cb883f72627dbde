//! What heals, by hand and by itself.

use super::*;

#[tokio::test]
async fn healing_says_what_it_did_and_is_on_record() {
    use futures::StreamExt as _;
    let (rig, supervisor) = (Rig::new().await, Supervisor::new());
    let mut told = Box::pin(rig.bus.subscribe(None));
    let ops = ops(&rig, &supervisor).await;
    assert_eq!(ops.heal("pray", "api_key").await.unwrap_err().field(), Some("action"));
    for (action, beginning) in [
        ("clear_locks", "no lease"),
        ("fail_stale_jobs", "no job"),
        ("wake_scheduler", "the scheduler looked again and queued 0"),
        ("wake_workers", "the workers were told"),
        ("run_retention", "0 rows"),
        ("checkpoint", "the log was emptied"),
        ("vacuum", ""),
        ("check_integrity", "the database was examined and is undamaged"),
        ("reload_workspace", "the workspace's files were read again; 0 problems"),
    ] {
        for _ in 0..2 {
            let result = ops.heal(action, "user:ada").await.unwrap().result;
            assert!(result.starts_with(beginning), "{action}: {result}");
        }
    }

    let config = json!({"command": ["sleep", "1000"]});
    let sleeper = crate::queue::NewJob { action_config: config, ..job() };
    let id = rig.queue.enqueue(sleeper).await.unwrap();
    while told.next().await.unwrap().kind != "job.started" {}
    let heal = async |action| ops.heal(action, "api_key").await.unwrap().result;
    assert!(heal("restart_workers").await.contains("1 running jobs were interrupted"));
    while told.next().await.unwrap().kind != "job.started" {}
    assert!(heal("restart_engine").await.contains("the process itself kept running"));
    while told.next().await.unwrap().kind != "job.started" {}
    rig.advance(24 * 3600);
    assert!(heal("fail_stale_jobs").await.starts_with("1 jobs"));
    while told.next().await.unwrap().kind != "job.cancelled" {}
    assert_eq!(rig.queue.get(id).await.unwrap().state, crate::queue::JobState::Cancelled);

    let taken = ops.remedies(100).await.unwrap();
    assert_eq!(taken.len(), 9 * 2 + 3);
    assert_eq!((taken[0].remedy.as_str(), taken[0].taken_by.as_str()), ("fail_stale_jobs", "api_key"));
    assert!(taken.iter().all(|taken| taken.outcome == "done" && taken.fingerprint.is_none()));
    stop(supervisor).await;
}

/// A log that is too large, and shrinks by a checkpoint.
fn small_log(config: &mut OpsConfig) {
    config.limits.max_wal_bytes = 0;
}

#[tokio::test]
async fn a_remedy_that_helps_runs_by_itself_and_the_alert_says_so() {
    let (rig, supervisor) = (Rig::new().await, Supervisor::new());
    let slow = "2025-12-31T23:50:00Z";
    let event = json!({"id": "e", "type": "t", "condition_type": "once", "condition_expr": slow,
        "action_type": "script", "action_config": {"command": "true"}});
    // Nobody runs the timer here, so what is due stays due until the remedy looks.
    rig.events.upsert(event).await.unwrap();
    let ops = ops(&rig, &supervisor).await;
    let seen = look(&ops).await;
    assert!(seen.iter().all(|alert| alert.category != "scheduler"), "{seen:?}");
    let all = ops.alerts(AlertFilter { category: Some("scheduler".into()), ..AlertFilter::default() }).await.unwrap();
    assert_eq!((all.len(), all[0].auto_healed, all[0].remedy.as_deref()), (1, true, Some("wake_scheduler")));
    assert!(all[0].resolved_at.is_some());
    let taken = ops.remedies(10).await.unwrap();
    assert_eq!((taken[0].taken_by.as_str(), taken[0].fingerprint.as_deref()), (MONITOR, Some("scheduler")));
    assert!(taken[0].result.contains("queued 1 jobs"), "{}", taken[0].result);
    stop(supervisor).await;
}

#[tokio::test]
async fn a_remedy_that_does_not_help_is_taken_three_times_and_then_the_alert_is_critical() {
    let (rig, supervisor) = (Rig::new().await, Supervisor::new());
    let ops = ops_with(&rig, &supervisor, small_log).await;
    for run in 1..=3 {
        let alert = look(&ops).await.remove(0);
        assert_eq!((alert.category.as_str(), alert.severity), ("wal", Severity::Warning), "run {run}");
        rig.advance(60);
    }
    let alert = look(&ops).await.remove(0);
    assert_eq!(alert.severity, Severity::Critical);
    assert!(alert.message.contains("checkpoint ran 3 times within 10 minutes and did not help"), "{}", alert.message);
    rig.advance(60);
    look(&ops).await;
    assert_eq!(ops.remedies(10).await.unwrap().len(), 3, "it is left alone");

    // Another process finds the breaker as this one left it.
    let rig = {
        drop(ops);
        stop(supervisor).await;
        rig.restart().await
    };
    let supervisor = Supervisor::new();
    let ops = ops_with(&rig, &supervisor, small_log).await;
    look(&ops).await;
    assert_eq!(ops.remedies(10).await.unwrap().len(), 3);
    rig.advance(3600);
    look(&ops).await;
    assert_eq!(ops.remedies(10).await.unwrap().len(), 4, "one more is tried after a while");
    stop(supervisor).await;
}

#[tokio::test]
async fn an_event_that_was_paused_because_it_failed_is_an_alert_until_it_is_resumed() {
    let (rig, supervisor) = (Rig::new().await, Supervisor::new());
    let ops = ops(&rig, &supervisor).await;
    for id in ["by-engine", "by-hand"] {
        let event = json!({"id": id, "type": "t", "condition_type": "webhook", "pause_after_failures": 2,
            "action_type": "script", "action_config": {"command": "true"}});
        rig.events.upsert(event).await.unwrap();
    }
    rig.store
        .write(|tx| {
            Ok(tx.execute_batch(
                "UPDATE events SET status = 'paused', paused_reason = '2 jobs in a row failed';
                 UPDATE events SET failures_in_row = 2 WHERE id = 'by-engine'",
            )?)
        })
        .await
        .unwrap();
    let alert = look(&ops).await;
    assert_eq!(alert.len(), 1, "{alert:?}");
    assert_eq!(alert[0].fingerprint, "paused_schedules:by-engine");
    assert!(alert[0].message.contains("2 jobs in a row failed"));
    rig.events.patch("by-engine", json!({"status": "active"})).await.unwrap();
    assert_eq!(look(&ops).await, []);
    stop(supervisor).await;
}

#[tokio::test]
async fn nothing_heals_itself_where_that_is_switched_off() {
    let (rig, supervisor) = (Rig::new().await, Supervisor::new());
    let ops = ops_with(&rig, &supervisor, |config| {
        small_log(config);
        config.heal = false;
    })
    .await;
    assert_eq!(look(&ops).await.len(), 1);
    assert_eq!(ops.remedies(10).await.unwrap(), []);
    stop(supervisor).await;
}
