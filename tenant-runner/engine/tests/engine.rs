//! A whole engine, from its start to its end and over its death.
#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use futures::StreamExt as _;
use nexaas_common::clock::SystemClock;
use nexaas_common::task::Supervisor;
use nexaas_engine::queue::JobState;
use nexaas_engine::{Engine, EngineConfig};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

async fn start(dir: &Path) -> (Arc<Engine>, Supervisor) {
    let workspace = dir.join("workspace");
    std::fs::create_dir_all(&workspace).unwrap();
    let config = EngineConfig::new("standalone", dir.join("nexaas.db"), workspace);
    let supervisor = Supervisor::new();
    let engine = Engine::start(config, SystemClock::shared(), supervisor.clone()).await.unwrap();
    (engine, supervisor)
}

/// The first `kind` on the bus after `seq`, which becomes the new `seq`.
async fn wait_for(engine: &Engine, seq: &mut u64, kind: &str) -> Value {
    let mut told = Box::pin(engine.bus().subscribe(Some(*seq)));
    loop {
        let event = told.next().await.unwrap();
        *seq = event.seq;
        if event.kind == kind {
            return event.data;
        }
    }
}

#[tokio::test]
async fn an_event_that_is_due_runs_to_its_end_without_anybody_asking() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, supervisor) = start(dir.path()).await;
    engine.healthy().await.unwrap();
    let event = json!({"id": "now", "type": "test", "condition_type": "once", "condition_expr": "2026-01-01T00:00:00Z",
        "action_type": "script", "action_config": {"command": "echo hello"}});
    engine.events().upsert(event).await.unwrap();
    let done = wait_for(&engine, &mut 0, "job.succeeded").await;
    assert_eq!((&done["event_id"], &done["result"]), (&json!("now"), &json!("hello")));
    supervisor.shutdown(Duration::from_secs(30)).await.unwrap();
    assert_eq!(engine.ops().health().await.workers_alive, 0);
}

#[tokio::test]
async fn a_job_that_was_running_when_the_engine_died_is_done_by_the_next_one_under_the_same_attempt() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, supervisor) = start(dir.path()).await;
    let command = "echo $NEXAAS_ATTEMPT_ID >> ids; test $(wc -l < ids) -ge 2 || { echo up > up; sleep 1000; }";
    let event = json!({"id": "long", "type": "test", "condition_type": "webhook", "action_type": "script",
        "action_config": {"command": command}});
    engine.events().upsert(event).await.unwrap();
    let id = engine.events().trigger("long").await.unwrap();
    let mut seq = 0;
    wait_for(&engine, &mut seq, "job.started").await;
    while !dir.path().join("workspace/up").exists() {
        tokio::task::yield_now().await;
    }
    supervisor.shutdown(Duration::from_secs(30)).await.unwrap();
    assert_eq!(engine.queue().get(id).await.unwrap().state, JobState::Running, "nobody said that it had ended");
    drop(engine);

    let (engine, supervisor) = start(dir.path()).await;
    wait_for(&engine, &mut seq, "job.succeeded").await;
    let job = engine.queue().get(id).await.unwrap();
    assert_eq!((job.state, job.attempt), (JobState::Succeeded, 1));
    let ids = std::fs::read_to_string(dir.path().join("workspace/ids")).unwrap();
    let ids: Vec<_> = ids.lines().collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(ids[0], ids[1]);
    supervisor.shutdown(Duration::from_secs(30)).await.unwrap();
}

#[tokio::test]
async fn a_running_job_can_be_told_to_stop() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, supervisor) = start(dir.path()).await;
    let event = json!({"id": "long", "type": "test", "condition_type": "webhook", "action_type": "script",
        "action_config": {"command": ["sleep", "1000"]}});
    engine.events().upsert(event).await.unwrap();
    let id = engine.events().trigger("long").await.unwrap();
    let mut seq = 0;
    wait_for(&engine, &mut seq, "job.started").await;
    engine.queue().cancel(id).await.unwrap();
    wait_for(&engine, &mut seq, "job.cancelled").await;
    assert_eq!(engine.queue().get(id).await.unwrap().state, JobState::Cancelled);
    supervisor.shutdown(Duration::from_secs(30)).await.unwrap();
}
