mod alerting;
mod outbox;
mod remedies;

use super::measure::Reach;
use super::policy::{Finding, Severity};
use super::remedy::MONITOR;
use super::*;
use crate::action::{Actions, NoAgents, SystemNames};
use crate::config::{EngineConfig, OpsLimits};
use crate::testing::{Rig, job};
use arc_swap::ArcSwapOption;
use nexaas_common::clock::Clock as _;
use nexaas_common::secret::SecretString;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration as StdDuration;
use wiremock::matchers::method;
use wiremock::{Mock, MockServer, ResponseTemplate};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

async fn ops_with(rig: &Rig, supervisor: &Supervisor, adjust: impl FnOnce(&mut OpsConfig)) -> Ops {
    let config = EngineConfig::new("standalone", rig.path().join("nexaas.db"), rig.path().join("workspace"));
    let clock: SharedClock = rig.clock.clone();
    let settings = Arc::new(ArcSwapOption::empty());
    let actions =
        Actions::new(&config, settings.clone(), Arc::new(NoAgents), Arc::new(SystemNames), clock.clone()).unwrap();
    let workers = Workers::start(2, rig.queue.clone(), Arc::new(actions), clock.clone(), supervisor);
    let parts = (rig.store.clone(), rig.bus.clone(), rig.events.clone());
    let workspace = Workspace::open(&config, settings.clone(), parts, clock.clone()).await.unwrap();
    let (manual, start) = (rig.clock.clone(), rig.now());
    let sources = Sources {
        store: rig.store.clone(),
        bus: rig.bus.clone(),
        queue: rig.queue.clone(),
        events: rig.events.clone(),
        workers,
        workspace,
        clock,
        // Both clocks go on together.
        monotonic: Arc::new(move || (manual.now() - start).to_std().unwrap_or_default()),
        settings,
        tenant: "standalone".to_owned(),
        database: rig.path().join("nexaas.db"),
        folder: rig.path(),
        rules: [crate::retention::CORE, KEEP].concat(),
        model_url: config.anthropic_base_url,
        allowed: vec![],
        search_path: "/usr/bin:/bin".to_owned(),
    };
    let mut config = OpsConfig {
        enabled: false,
        max_failed_jobs_hour: 1,
        // The disk and the memory of whatever machine this runs on are another matter.
        limits: OpsLimits {
            disk_free_warning: 0.0,
            disk_free_critical: 0.0,
            memory_warning: 2.0,
            database_slow: StdDuration::from_secs(3600),
            ..OpsLimits::default()
        },
        ..OpsConfig::default()
    };
    adjust(&mut config);
    Ops::start(sources, config, supervisor)
}

async fn ops(rig: &Rig, supervisor: &Supervisor) -> Ops {
    ops_with(rig, supervisor, |_| {}).await
}

/// Ends jobs of its own as dead, without the workers.
async fn fail(rig: &Rig, count: usize) {
    for _ in 0..count {
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
}

async fn open(ops: &Ops) -> Vec<Alert> {
    ops.alerts(AlertFilter { open: Some(true), ..AlertFilter::default() }).await.unwrap()
}

async fn look(ops: &Ops) -> Vec<Alert> {
    ops.look(Reach::Known).await.unwrap().open
}

async fn stop(supervisor: Supervisor) {
    supervisor.shutdown(StdDuration::from_secs(10)).await.unwrap();
}

#[tokio::test]
async fn health_is_as_it_is() {
    let (rig, supervisor) = (Rig::new().await, Supervisor::new());
    let ops = ops(&rig, &supervisor).await;
    let health = ops.health().await;
    assert!(health.engine_running && health.db_ok);
    assert_eq!((health.worker_count, health.workers_alive, health.stale_locks), (2, 2, 0));
    assert!(health.database_bytes.is_some_and(|bytes| bytes > 0));
    stop(supervisor).await;
    assert_eq!(ops.health().await.workers_alive, 0);
}

#[tokio::test]
async fn each_check_says_how_it_is_and_since_when() {
    let (rig, supervisor) = (Rig::new().await, Supervisor::new());
    let ops = ops(&rig, &supervisor).await;
    let fresh = ops.checks().await.unwrap();
    assert_eq!(fresh.len(), check::CHECKS.len());
    assert!(fresh.iter().all(|check| check.since.is_none()), "nobody looked before");
    let began = rig.now();
    look(&ops).await;
    rig.advance(600);
    fail(&rig, 2).await;
    let seen = ops.checks().await.unwrap();
    let of = |name: &str| seen.iter().find(|check| check.name == name).unwrap();
    assert_eq!((of("database").status, of("database").since), (Status::Ok, Some(began)));
    assert_eq!((of("job_failures").status, of("job_failures").since), (Status::Warning, Some(rig.now())));
    assert_eq!(of("certificate").status, Status::Off);
    assert_eq!(of("integrity").status, Status::Unknown);
    assert_eq!(of("job_failures").reading["failed_last_hour"], 2);
    stop(supervisor).await;
}

#[tokio::test]
async fn every_look_leaves_a_snapshot() {
    let (rig, supervisor) = (Rig::new().await, Supervisor::new());
    let ops = ops(&rig, &supervisor).await;
    let mut times = Vec::new();
    for _ in 0..4 {
        look(&ops).await;
        times.push(rig.now());
        rig.advance(60);
    }
    let at = async |since, limit| {
        let found = ops.snapshots(since, limit).await.unwrap();
        found.into_iter().map(|snapshot| snapshot.at).collect::<Vec<_>>()
    };
    assert_eq!(at(None, 100).await, times);
    assert_eq!(at(None, 2).await, times[2..], "the latest ones, oldest first");
    assert_eq!(at(Some(times[0]), 2).await, times[1..3], "the first ones after a time");
    let latest = ops.snapshots(None, 1).await.unwrap().remove(0).figures;
    assert_eq!((latest.workers, latest.pending_jobs), (2, Some(0)));
    assert!(latest.database_bytes.is_some() && latest.disk_total_bytes.is_some());
    stop(supervisor).await;
}

#[tokio::test]
async fn the_own_tables_of_the_monitor_have_an_end() {
    let (rig, supervisor) = (Rig::new().await, Supervisor::new());
    let ops = ops(&rig, &supervisor).await;
    for _ in 0..5 {
        look(&ops).await;
        ops.heal("wake_workers", "x").await.unwrap();
        let spec = SilenceSpec {
            category: Some("disk".into()),
            for_s: Some(1),
            reason: Some("r".into()),
            ..SilenceSpec::default()
        };
        ops.silence(spec, "x").await.unwrap();
        rig.advance(60);
    }
    let now = rig.now() + Duration::days(100);
    crate::retention::pass(&rig.store, KEEP, now).await.unwrap();
    for table in ["ops_snapshots", "ops_remedies", "ops_silences", "ops_outbox"] {
        let sql = format!("SELECT count(*) FROM {table}");
        let rows: u32 = rig.store.read(move |c| Ok(c.query_row(&sql, [], |row| row.get(0))?)).await.unwrap();
        assert_eq!(rows, 0, "{table}");
    }
    stop(supervisor).await;
}
