use super::*;
use crate::action::{Actions, NoAgents, SystemNames};
use crate::config::EngineConfig;
use crate::queue::Outcome;
use crate::testing::{Rig, job};
use arc_swap::ArcSwapOption;
use std::sync::Arc;

fn ops(rig: &Rig, supervisor: &Supervisor) -> Ops {
    let config = EngineConfig::new("standalone", rig.path().join("nexaas.db"), rig.path());
    let clock: SharedClock = rig.clock.clone();
    let settings = Arc::new(ArcSwapOption::empty());
    let actions = Actions::new(&config, settings, Arc::new(NoAgents), Arc::new(SystemNames), clock.clone()).unwrap();
    let workers = Workers::start(2, rig.queue.clone(), Arc::new(actions), clock.clone(), supervisor);
    let sources = Sources {
        store: rig.store.clone(),
        bus: rig.bus.clone(),
        queue: rig.queue.clone(),
        events: rig.events.clone(),
        workers,
        clock,
        folder: rig.path(),
    };
    let config = OpsConfig { enabled: false, max_failed_jobs_hour: 1, ..OpsConfig::default() };
    Ops::start(sources, config, supervisor)
}

/// Ends a job of its own as dead, without the workers.
async fn fail_one(rig: &Rig) {
    let past = crate::queue::Past {
        event_id: None,
        action_type: "script".into(),
        action_config: "{}".into(),
        description: None,
        agent: None,
        state: crate::queue::JobState::Dead,
        attempts: 1,
        result: None,
        error: None,
        started_at: rig.now(),
        finished_at: rig.now(),
    };
    let queue = rig.queue.clone();
    rig.store.write(move |tx| queue.plant(tx, &past)).await.unwrap();
}

/// The alerts that these tests cause; the machine's own, such as a disk that fills up, are another matter.
fn about_jobs(mut alerts: Vec<Alert>) -> Vec<Alert> {
    alerts.retain(|alert| alert.category == "job_failures");
    alerts
}

#[tokio::test]
async fn an_alert_is_raised_once_and_resolves_itself() {
    let (rig, supervisor) = (Rig::new().await, Supervisor::new());
    let ops = ops(&rig, &supervisor);
    for _ in 0..2 {
        fail_one(&rig).await;
    }
    for _ in 0..3 {
        ops.look().await.unwrap();
    }
    let alerts = about_jobs(ops.alerts(10, Some("warning")).await.unwrap());
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    assert_eq!((alerts[0].category.as_str(), alerts[0].resolved_at), ("job_failures", None));
    assert!(ops.acknowledge(&alerts[0].id).await.unwrap().acknowledged);
    rig.advance(2 * 3600);
    ops.look().await.unwrap();
    assert!(about_jobs(ops.alerts(10, None).await.unwrap())[0].resolved_at.is_some());
    assert_eq!(ops.acknowledge("nobody").await.unwrap_err().kind, crate::error::Kind::NotFound);
    supervisor.shutdown(Duration::from_secs(10)).await.unwrap();
}

#[tokio::test]
async fn trouble_that_grows_is_a_new_alert_and_is_handed_on() {
    let (rig, supervisor) = (Rig::new().await, Supervisor::new());
    let ops = ops(&rig, &supervisor);
    for _ in 0..2 {
        fail_one(&rig).await;
    }
    assert!(about_jobs(ops.look().await.unwrap().1).is_empty());
    for _ in 0..4 {
        fail_one(&rig).await;
    }
    let critical = about_jobs(ops.look().await.unwrap().1);
    assert_eq!(critical.len(), 1);
    assert!(about_jobs(ops.look().await.unwrap().1).is_empty(), "handed on once");
    supervisor.shutdown(Duration::from_secs(10)).await.unwrap();
}

#[tokio::test]
async fn health_is_as_it_is() {
    let (rig, supervisor) = (Rig::new().await, Supervisor::new());
    let ops = ops(&rig, &supervisor);
    let health = ops.health().await;
    assert!(health.engine_running && health.db_ok);
    assert_eq!((health.worker_count, health.workers_alive, health.stale_locks), (2, 2, 0));
    supervisor.shutdown(Duration::from_secs(10)).await.unwrap();
    assert_eq!(ops.health().await.workers_alive, 0);
}

#[tokio::test]
async fn healing_says_what_it_did() {
    use futures::StreamExt as _;
    let (rig, supervisor) = (Rig::new().await, Supervisor::new());
    let mut told = Box::pin(rig.bus.subscribe(None));
    let ops = ops(&rig, &supervisor);
    assert_eq!(ops.heal("pray").await.unwrap_err().field(), Some("action"));
    assert!(ops.heal("clear_locks").await.unwrap().result.starts_with("no lease"));
    assert!(ops.heal("fail_stale_jobs").await.unwrap().result.starts_with("no job"));

    let config = serde_json::json!({"command": ["sleep", "1000"]});
    let sleeper = crate::queue::NewJob { action_config: config, ..job() };
    let id = rig.queue.enqueue(sleeper).await.unwrap();
    while told.next().await.unwrap().kind != "job.started" {}
    assert!(ops.heal("restart_workers").await.unwrap().result.contains("1 running jobs were interrupted"));
    while told.next().await.unwrap().kind != "job.started" {}
    assert!(ops.heal("restart_engine").await.unwrap().result.contains("the process itself kept running"));
    while told.next().await.unwrap().kind != "job.started" {}
    rig.advance(24 * 3600);
    assert!(ops.heal("fail_stale_jobs").await.unwrap().result.starts_with("1 jobs"));
    while told.next().await.unwrap().kind != "job.cancelled" {}
    assert_eq!(rig.queue.get(id).await.unwrap().state, crate::queue::JobState::Cancelled);
    supervisor.shutdown(Duration::from_secs(10)).await.unwrap();
}

#[tokio::test]
async fn retention_removes_what_is_old_and_keeps_what_runs() {
    let rig = Rig::new().await;
    rig.queue.enqueue(job()).await.unwrap();
    let done = rig.claim(1).await.remove(0);
    rig.queue.finish(&done, Outcome::Succeeded(String::new())).await.unwrap();
    let waiting = rig.queue.enqueue(job()).await.unwrap();
    rig.advance(40 * 24 * 3600);
    let now = rig.now();
    assert!(crate::retention::pass(&rig.store, crate::retention::CORE, now).await.unwrap() > 0);
    assert_eq!(rig.queue.get(done.id).await.unwrap_err().kind, crate::error::Kind::NotFound);
    rig.queue.get(waiting).await.unwrap();
    assert_eq!(crate::retention::pass(&rig.store, crate::retention::CORE, now).await.unwrap(), 0);
}

#[tokio::test]
async fn retention_keeps_no_more_rows_than_it_may() {
    let rig = Rig::new().await;
    for _ in 0..7 {
        rig.queue.enqueue(job()).await.unwrap();
        rig.advance(1);
    }
    rig.run_all().await;
    let rules: Vec<_> = crate::retention::CORE.iter().map(|rule| crate::retention::Keep { rows: 3, ..*rule }).collect();
    let now = rig.now();
    crate::retention::pass(&rig.store, &rules, now).await.unwrap();
    let counts = rig
        .store
        .read(|c| {
            Ok(c.query_row("SELECT sum(last_seq - first_seq + 1) FROM bus_packs", [], |row| row.get::<_, i64>(0))?)
        })
        .await
        .unwrap();
    assert_eq!(counts, 3);
}
