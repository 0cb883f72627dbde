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
async fn an_alert_is_raised_once_and_resolves_itself() {
    let (rig, supervisor) = (Rig::new().await, Supervisor::new());
    let ops = ops(&rig, &supervisor).await;
    assert_eq!(look(&ops).await, [], "nothing is wrong");
    fail(&rig, 2).await;
    for _ in 0..3 {
        look(&ops).await;
    }
    let alerts = open(&ops).await;
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    assert_eq!((alerts[0].category.as_str(), alerts[0].severity), ("job_failures", Severity::Warning));
    let known = ops.acknowledge(&alerts[0].id, "user:ada").await.unwrap();
    assert_eq!((known.acknowledged, known.acknowledged_by.as_deref()), (true, Some("user:ada")));
    let again = ops.acknowledge(&alerts[0].id, "user:bob").await.unwrap();
    assert_eq!(again.acknowledged_by.as_deref(), Some("user:ada"), "the first one stays named");
    rig.advance(2 * 3600);
    assert_eq!(look(&ops).await, []);
    let all = ops.alerts(AlertFilter::default()).await.unwrap();
    assert_eq!((all.len(), all[0].auto_healed), (1, false), "nobody healed it");
    assert_eq!(all[0].resolved_at, Some(rig.now()));
    assert_eq!(ops.acknowledge("nobody", "x").await.unwrap_err().kind, crate::error::Kind::NotFound);
    stop(supervisor).await;
}

#[tokio::test]
async fn trouble_that_grows_is_the_same_alert_made_worse_and_must_be_acknowledged_anew() {
    let (rig, supervisor) = (Rig::new().await, Supervisor::new());
    let ops = ops(&rig, &supervisor).await;
    fail(&rig, 2).await;
    let before = look(&ops).await.remove(0);
    ops.acknowledge(&before.id, "user:ada").await.unwrap();
    fail(&rig, 4).await;
    let after = look(&ops).await.remove(0);
    assert_eq!((&after.id, after.severity, after.acknowledged), (&before.id, Severity::Critical, false));
    stop(supervisor).await;
}

#[tokio::test]
async fn trouble_that_lasts_becomes_worse_unless_somebody_has_taken_it_on() {
    let (rig, supervisor) = (Rig::new().await, Supervisor::new());
    let (bus, now) = (rig.bus.clone(), rig.now());
    let found = |category: &'static str| Finding::new(category, Severity::Warning, "trouble");
    let reconcile = async |findings: Vec<Finding>, now: DateTime<Utc>| {
        let bus = bus.clone();
        let done = rig.store.write(move |tx| alerts::reconcile(tx, &bus, &findings, &BTreeSet::new(), now)).await;
        done.unwrap()
    };
    let first = reconcile(vec![found("wal"), found("scheduler")], now).await;
    assert_eq!(first.next, Some(now + Duration::minutes(5)), "the scheduler's comes first");
    let bus2 = rig.bus.clone();
    let id = first.open[0].id.clone();
    rig.store.write(move |tx| alerts::acknowledge(tx, &bus2, &id, "user:ada", now)).await.unwrap();
    let later = reconcile(vec![found("wal"), found("scheduler")], now + Duration::hours(2)).await;
    let severity = |category| later.open.iter().find(|alert| alert.category == category).unwrap().severity;
    assert_eq!((severity("wal"), severity("scheduler")), (Severity::Warning, Severity::Critical));
    stop(supervisor).await;
}

#[tokio::test]
async fn trouble_that_comes_and_goes_is_one_alert_that_resolves_ever_later() {
    let rig = Rig::new().await;
    let bus = rig.bus.clone();
    let step = async |bad: bool| {
        let (bus, now) = (bus.clone(), rig.now());
        let findings = if bad { vec![Finding::new("clock", Severity::Info, "odd")] } else { vec![] };
        rig.store.write(move |tx| alerts::reconcile(tx, &bus, &findings, &BTreeSet::new(), now)).await.unwrap()
    };
    let id = step(true).await.open[0].id.clone();
    rig.advance(60);
    assert_eq!(step(false).await.resolved[0].id, id, "the first time it resolves at once");
    rig.advance(60);
    let again = step(true).await;
    assert_eq!((&again.open[0].id, again.open[0].flaps), (&id, 1));
    rig.advance(60);
    let quiet = step(false).await;
    assert_eq!((quiet.resolved.len(), quiet.next), (0, Some(rig.now() + Duration::minutes(5))));
    rig.advance(4 * 60);
    let back = step(true).await;
    assert_eq!((back.open[0].flaps, back.open[0].gone_since), (2, None));
    rig.advance(60);
    step(false).await;
    rig.advance(14 * 60);
    assert_eq!(step(false).await.resolved.len(), 0);
    rig.advance(60);
    assert_eq!(step(false).await.resolved.len(), 1);
    rig.advance(31 * 60);
    assert_ne!(step(true).await.open[0].id, id, "after a while it is new trouble");
}

#[tokio::test]
async fn what_a_check_cannot_tell_is_not_taken_for_gone() {
    let rig = Rig::new().await;
    let (bus, now) = (rig.bus.clone(), rig.now());
    let findings = vec![Finding::new("disk", Severity::Warning, "full")];
    rig.store
        .write(move |tx| {
            alerts::reconcile(tx, &bus, &findings, &BTreeSet::new(), now)?;
            let blind = alerts::reconcile(tx, &bus, &[], &BTreeSet::from(["disk"]), now)?;
            assert_eq!((blind.open.len(), blind.resolved.len()), (1, 0));
            let seen = alerts::reconcile(tx, &bus, &[], &BTreeSet::new(), now)?;
            assert_eq!((seen.open.len(), seen.resolved.len()), (0, 1));
            Ok(())
        })
        .await
        .unwrap();
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

// ---- what is sent out ----

async fn receiver(answers: &[u16]) -> MockServer {
    let server = MockServer::start().await;
    for (at, status) in answers.iter().enumerate() {
        let mock = Mock::given(method("POST")).respond_with(ResponseTemplate::new(*status)).with_priority(at as u8 + 1);
        if at + 1 < answers.len() { mock.up_to_n_times(1).mount(&server).await } else { mock.mount(&server).await }
    }
    server
}

fn to(server: &MockServer) -> impl FnOnce(&mut OpsConfig) + use<> {
    let url = format!("{}/alerts", server.uri()).parse().unwrap();
    move |config| {
        config.webhooks = vec![url];
        config.webhook_secret = Some(SecretString::from(SECRET));
    }
}

/// Every message that came: its id and its body. The signature of each is verified as a receiver would.
async fn received(server: &MockServer) -> Vec<(String, Value)> {
    use base64::Engine as _;
    use hmac::{KeyInit as _, Mac as _};
    let key = signing_key(SECRET).unwrap();
    let requests = server.received_requests().await.unwrap();
    let verified = requests.iter().map(|request| {
        let header = |name: &str| request.headers[name].to_str().unwrap().to_owned();
        let (id, stamp) = (header("webhook-id"), header("webhook-timestamp"));
        let given = header("webhook-signature");
        let given = base64::engine::general_purpose::STANDARD.decode(given.strip_prefix("v1,").unwrap()).unwrap();
        let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(&key).unwrap();
        mac.update(format!("{id}.{stamp}.").as_bytes());
        mac.update(&request.body);
        mac.verify_slice(&given).unwrap();
        (id, serde_json::from_slice(&request.body).unwrap())
    });
    verified.collect()
}

#[tokio::test]
async fn a_critical_alert_is_sent_signed_and_its_end_too() {
    let (rig, supervisor) = (Rig::new().await, Supervisor::new());
    let server = receiver(&[204]).await;
    let ops = ops_with(&rig, &supervisor, to(&server)).await;
    fail(&rig, 2).await;
    look(&ops).await;
    ops.sender().pass().await.unwrap();
    assert_eq!(received(&server).await, [], "a warning is not bad enough");
    fail(&rig, 4).await;
    let alert = look(&ops).await.remove(0);
    look(&ops).await;
    assert_eq!(ops.sender().pass().await.unwrap(), None, "nothing is left to send");
    let got = received(&server).await;
    assert_eq!(got.len(), 1, "however often it is seen");
    assert_eq!(got[0].0, format!("{}.critical", alert.id));
    assert_eq!((&got[0].1["type"], &got[0].1["tenant"]), (&json!("alert.raised"), &json!("standalone")));
    assert_eq!(got[0].1["data"]["severity"], "critical");
    rig.advance(2 * 3600);
    look(&ops).await;
    ops.sender().pass().await.unwrap();
    let got = received(&server).await;
    assert_eq!((got.len(), &got[1].1["type"]), (2, &json!("alert.resolved")));
    assert_eq!(got[1].0, format!("{}.resolved", alert.id));
    stop(supervisor).await;
}

#[tokio::test]
async fn a_message_is_repeated_under_its_id_until_it_is_taken_and_the_order_stays() {
    let (rig, supervisor) = (Rig::new().await, Supervisor::new());
    let server = receiver(&[500, 404, 200]).await;
    let ops = ops_with(&rig, &supervisor, to(&server)).await;
    fail(&rig, 6).await;
    look(&ops).await;
    rig.advance(2 * 3600);
    look(&ops).await;
    for tries in 1..=2 {
        let next = ops.sender().pass().await.unwrap().unwrap();
        assert!(next > rig.now(), "it waits before it tries again");
        assert_eq!(received(&server).await.len(), tries);
        assert_eq!(ops.sender().pass().await.unwrap(), Some(next), "and does not hurry");
        assert_eq!(received(&server).await.len(), tries);
        rig.clock.set(next);
    }
    assert_eq!(ops.sender().pass().await.unwrap(), None);
    let kinds: Vec<_> = received(&server).await.into_iter().map(|(_, body)| body["type"].clone()).collect();
    assert_eq!(kinds, ["alert.raised", "alert.raised", "alert.raised", "alert.resolved"]);
    let ids: BTreeSet<_> = received(&server).await.into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids.len(), 2, "a repetition can be told");
    stop(supervisor).await;
}

#[tokio::test]
async fn what_was_not_sent_yet_is_sent_by_the_next_process_and_given_up_after_a_day() {
    let (rig, supervisor) = (Rig::new().await, Supervisor::new());
    let server = receiver(&[503, 200]).await;
    let first = ops_with(&rig, &supervisor, to(&server)).await;
    fail(&rig, 6).await;
    look(&first).await;
    first.sender().pass().await.unwrap();
    drop(first);
    stop(supervisor).await;
    let rig = rig.restart().await;
    rig.advance(60);
    let supervisor = Supervisor::new();
    let ops = ops_with(&rig, &supervisor, to(&server)).await;
    ops.sender().pass().await.unwrap();
    assert_eq!(received(&server).await.len(), 2);

    let deaf = receiver(&[500]).await;
    let ops = ops_with(&rig, &supervisor, to(&deaf)).await;
    rig.advance(3 * 3600);
    look(&ops).await;
    rig.advance(3600);
    fail(&rig, 6).await;
    look(&ops).await;
    rig.advance(25 * 3600);
    ops.sender().pass().await.unwrap();
    let states = rig.store.read(|c| {
        let mut statement = c.prepare("SELECT state, count(*) FROM ops_outbox GROUP BY state ORDER BY state")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<rusqlite::Result<Vec<(String, u32)>>>()?)
    });
    assert_eq!(states.await.unwrap(), [("given_up".to_owned(), 2), ("sent".to_owned(), 1)]);
    stop(supervisor).await;
}

#[tokio::test]
async fn messages_for_an_address_that_is_no_longer_configured_are_given_up() {
    let (rig, supervisor) = (Rig::new().await, Supervisor::new());
    let (old, new) = (receiver(&[200]).await, receiver(&[200]).await);
    let before = ops_with(&rig, &supervisor, to(&old)).await;
    fail(&rig, 6).await;
    look(&before).await;
    let after = ops_with(&rig, &supervisor, to(&new)).await;
    assert_eq!(after.sender().pass().await.unwrap(), None);
    assert_eq!((received(&old).await.len(), received(&new).await.len()), (0, 0));
    stop(supervisor).await;
}

#[tokio::test]
async fn a_silenced_alert_is_recorded_and_sent_once_the_silence_ends() {
    let (rig, supervisor) = (Rig::new().await, Supervisor::new());
    let server = receiver(&[200]).await;
    let ops = ops_with(&rig, &supervisor, to(&server)).await;
    let hour = SilenceSpec { for_s: Some(3600), reason: Some("moving house".into()), ..SilenceSpec::default() };
    let spec = SilenceSpec { category: Some("job_failures".into()), ..hour.clone() };
    let silence = ops.silence(spec, "user:ada").await.unwrap();
    fail(&rig, 6).await;
    let seen = ops.look(Reach::Known).await.unwrap();
    assert_eq!(seen.next, Some(silence.until), "the end of the silence is a reason to look");
    ops.sender().pass().await.unwrap();
    assert_eq!(received(&server).await, []);
    let alert = open(&ops).await.remove(0);
    assert_eq!(alert.silenced_until, Some(silence.until));

    let own = ops.silence_alert(&alert.id, hour.clone(), "user:bob").await.unwrap();
    assert_eq!(
        (own.kind.as_str(), own.value.as_str(), own.created_by.as_str()),
        ("fingerprint", "job_failures", "user:bob")
    );
    assert!(!ops.end_silence(&silence.id, "user:bob").await.unwrap().active);
    look(&ops).await;
    ops.sender().pass().await.unwrap();
    assert_eq!(received(&server).await, [], "the other silence still holds");
    assert_eq!(ops.unsilence_alert(&alert.id, "user:bob").await.unwrap(), 1);
    assert_eq!(ops.unsilence_alert(&alert.id, "user:bob").await.unwrap(), 0);
    look(&ops).await;
    ops.sender().pass().await.unwrap();
    assert_eq!(received(&server).await.len(), 1);
    let listed = ops.silences(10).await.unwrap();
    assert!(listed.len() == 2 && listed.iter().all(|s| !s.active && s.ended_by.as_deref() == Some("user:bob")));
    stop(supervisor).await;
}

#[tokio::test]
async fn the_whole_monitor_tells_a_receiver_without_anybody_asking() {
    use futures::StreamExt as _;
    let (rig, supervisor) = (Rig::new().await, Supervisor::new());
    let server = receiver(&[200]).await;
    let mut told = Box::pin(rig.bus.subscribe(None));
    fail(&rig, 6).await;
    let configure = to(&server);
    ops_with(&rig, &supervisor, |config| {
        configure(config);
        config.enabled = true;
        config.interval = StdDuration::from_millis(10);
    })
    .await;
    while told.next().await.unwrap().kind != "alert.raised" {}
    while received(&server).await.is_empty() {
        tokio::task::yield_now().await;
    }
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
