//! The life of an alert.

use super::*;

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
