//! Whole loops over a real database and a world in memory.

use crate::domain::operation::{OperationKind, OperationState, StepState};
use crate::domain::operator::Role;
use crate::domain::tenant::{Desired, Phase};
use crate::domain::{OperationId, Slug, TenantId};
use crate::error::Kind;
use crate::orchestrator::fake::{FakeBackend, Manner, Verb};
use crate::service::CreateTenant;
use crate::testing::{PATIENCE, Plane, TestDb, operator, quick};
use nexaas_common::secret::{ExposeSecret as _, SecretString};
use std::time::Duration;

fn slug(text: &str) -> Slug {
    text.parse().unwrap()
}

/// Deletes the tenant and checks that nothing of it is left anywhere.
async fn leaves_nothing(plane: &Plane, world: &FakeBackend, name: &str) {
    let operation = plane.delete(name).await;
    let done = plane.succeeded(&operation).await;
    assert!(done.steps.iter().all(|s| s.state == StepState::Succeeded), "{done:?}");
    assert!(world.is_empty());
    assert_eq!(plane.services.tenants.get(&slug(name)).await.unwrap_err().kind, Kind::NotFound);
    assert!(plane.store.has_free_port(&plane.services.settings.port_range).await.unwrap());
}

async fn tenant_id(plane: &Plane, name: &str) -> TenantId {
    plane.services.tenants.get(&slug(name)).await.unwrap().id
}

#[tokio::test]
async fn a_tenant_becomes_ready_step_by_step_and_its_deletion_leaves_nothing() {
    let (db, world) = (TestDb::new().await, FakeBackend::default());
    let plane = Plane::start(&db, &world).await;
    let done = plane.succeeded(&plane.create("acme").await).await;
    assert_eq!(done.steps.len(), OperationKind::Create.steps().len());
    assert!(done.steps.iter().all(|s| s.state == StepState::Succeeded && s.attempts <= 1), "{done:?}");
    let tenant = plane.services.tenants.get(&slug("acme")).await.unwrap();
    assert_eq!((tenant.phase(), tenant.port), (Phase::Ready, Some(20000)));
    assert!(tenant.is_ready() && world.has_data(tenant.id));
    leaves_nothing(&plane, &world, "acme").await;
    plane.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn killed_at_any_step_the_next_controller_finishes_and_nothing_is_left_behind() {
    let db = TestDb::new().await;
    let verbs = [
        Verb::EnsureNetwork,
        Verb::EnsureVolume,
        Verb::EnsureRunner,
        Verb::Start,
        Verb::Hello,
        Verb::Workspace,
        Verb::Probe,
    ];
    for (n, (verb, after)) in verbs.iter().flat_map(|v| [(*v, false), (*v, true)]).enumerate() {
        if after && matches!(verb, Verb::Hello | Verb::Workspace | Verb::Probe) {
            continue;
        }
        let world = FakeBackend::default();
        let name = format!("acme-{n}");
        world.block(verb, after);
        let first = Plane::start(&db, &world).await;
        let operation = first.create(&name).await;
        tokio::time::timeout(PATIENCE, world.blocked()).await.unwrap_or_else(|_| panic!("{verb:?} was not reached"));
        first.kill().await;
        world.unblock();
        let second = Plane::start(&db, &world).await;
        second.succeeded(&operation).await;
        assert!(second.services.tenants.get(&slug(&name)).await.unwrap().is_ready(), "{verb:?} {after}");
        leaves_nothing(&second, &world, &name).await;
        second.stop().await;
    }
    db.finish().await;
}

#[tokio::test]
async fn killed_while_deleting_the_next_controller_removes_the_rest() {
    let db = TestDb::new().await;
    for (n, verb) in [Verb::Stop, Verb::Remove].into_iter().enumerate() {
        let world = FakeBackend::default();
        let name = format!("acme-{n}");
        let first = Plane::start(&db, &world).await;
        first.succeeded(&first.create(&name).await).await;
        world.block(verb, true);
        let operation = first.delete(&name).await;
        tokio::time::timeout(PATIENCE, world.blocked()).await.unwrap();
        first.kill().await;
        world.unblock();
        let second = Plane::start(&db, &world).await;
        second.succeeded(&operation).await;
        assert!(world.is_empty());
        second.stop().await;
    }
    db.finish().await;
}

#[tokio::test]
async fn deletion_overtakes_a_creation_that_never_ends() {
    let (db, world) = (TestDb::new().await, FakeBackend::default());
    world.manner("acme", Manner::Never);
    let mut timing = quick();
    timing.handshake = Duration::from_secs(3600);
    let plane = Plane::start_with(&db, &world, "20000-20009", timing).await;
    let creation = plane.create("acme").await;
    let id = tenant_id(&plane, "acme").await;
    plane.until(id, "a runner was started", |_| world.count(id, Verb::Start) > 0).await;
    leaves_nothing(&plane, &world, "acme").await;
    assert_eq!(plane.finished(&creation).await.state, OperationState::Superseded);
    plane.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn what_cannot_be_made_fails_with_its_reason_and_can_be_deleted() {
    let (db, world) = (TestDb::new().await, FakeBackend::default());
    world.manner("acme", Manner::Bad);
    world.manner("slow", Manner::SlowBad(Duration::from_millis(30)));
    let plane = Plane::start(&db, &world).await;
    for name in ["acme", "slow"] {
        let failed = plane.finished(&plane.create(name).await).await;
        assert_eq!(failed.state, OperationState::Failed);
        assert!(failed.error.unwrap().contains("image"), "{name}");
        let tenant = plane.services.tenants.get(&slug(name)).await.unwrap();
        assert_eq!(tenant.phase(), Phase::Failed);
    }
    // Once the cause is gone it becomes ready without anybody asking again.
    let id = tenant_id(&plane, "acme").await;
    world.manner("acme", Manner::Good);
    plane.until(id, "it recovers by itself", |r| r.tenant.is_ready()).await;
    plane.succeeded(&plane.delete("acme").await).await;
    leaves_nothing(&plane, &world, "slow").await;
    plane.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn a_slow_backend_is_waited_for() {
    let (db, world) = (TestDb::new().await, FakeBackend::default());
    world.manner("acme", Manner::Slow(Duration::from_millis(40)));
    let plane = Plane::start(&db, &world).await;
    plane.succeeded(&plane.create("acme").await).await;
    leaves_nothing(&plane, &world, "acme").await;
    plane.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn a_taken_port_and_a_taken_subnet_are_replaced() {
    let (db, world) = (TestDb::new().await, FakeBackend::default());
    world.take_port(20000);
    world.take_port(20001);
    world.take_subnet("10.209.0.0/29");
    let plane = Plane::start(&db, &world).await;
    plane.succeeded(&plane.create("acme").await).await;
    let tenant = plane.services.tenants.get(&slug("acme")).await.unwrap();
    assert_eq!(tenant.port, Some(20002));
    assert_eq!(tenant.subnet.unwrap().to_string(), "10.209.0.8/29");
    let events = plane.services.tenants.log_events(tenant.id, 50).await.unwrap();
    assert_eq!(events.iter().filter(|e| e.reason == "LeaseTaken").count(), 3);
    leaves_nothing(&plane, &world, "acme").await;
    plane.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn a_full_port_range_is_refused_at_once_and_a_deletion_makes_room() {
    let (db, world) = (TestDb::new().await, FakeBackend::default());
    let plane = Plane::start_with(&db, &world, "20000-20000", quick()).await;
    plane.succeeded(&plane.create("acme").await).await;
    let request = CreateTenant { slug: "other".into(), ..CreateTenant::default() };
    let refused = plane.services.tenants.create(&operator(Role::Operator), request, None).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Exhausted { resource: "ports" });
    assert!(refused.public().contains("20000-20000"));
    plane.succeeded(&plane.delete("acme").await).await;
    plane.succeeded(&plane.create("other").await).await;
    leaves_nothing(&plane, &world, "other").await;
    plane.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn a_silent_backend_is_unknown_never_absent() {
    let (db, world) = (TestDb::new().await, FakeBackend::default());
    let plane = Plane::start(&db, &world).await;
    plane.succeeded(&plane.create("acme").await).await;
    let id = tenant_id(&plane, "acme").await;
    let starts = world.count(id, Verb::Start);
    world.silent(true);
    plane.until(id, "it is unknown", |r| r.tenant.phase() == Phase::Unknown).await;
    let deletion = plane.delete("acme").await;
    plane.until(id, "the wish is written", |r| r.tenant.desired == Desired::Deleted && !r.gone).await;
    assert_eq!(world.count(id, Verb::Start), starts, "nothing was made again");
    world.silent(false);
    plane.succeeded(&deletion).await;
    assert!(world.is_empty());
    plane.stop().await;
    db.finish().await;
}

async fn healed(plane: &Plane, id: TenantId, not: &[OperationId]) -> OperationId {
    let wait = async {
        loop {
            let operations = plane.services.tenants.operations_of(id, 20).await.unwrap();
            let heal = operations.into_iter().find(|o| {
                o.kind == OperationKind::Heal && o.state == OperationState::Succeeded && !not.contains(&o.id)
            });
            if let Some(heal) = heal {
                return heal.id;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap()
}

#[tokio::test]
async fn a_lost_runner_is_healed_and_its_data_is_still_there() {
    let (db, world) = (TestDb::new().await, FakeBackend::default());
    let plane = Plane::start(&db, &world).await;
    plane.succeeded(&plane.create("acme").await).await;
    let id = tenant_id(&plane, "acme").await;
    world.lose_runner(id);
    let first = healed(&plane, id, &[]).await;
    assert!(world.has_data(id));
    plane.until(id, "it is ready again", |r| r.tenant.is_ready()).await;
    world.lose_runner(id);
    healed(&plane, id, &[first]).await;
    leaves_nothing(&plane, &world, "acme").await;
    plane.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn a_runner_that_hangs_or_dies_is_healed() {
    let (db, world) = (TestDb::new().await, FakeBackend::default());
    let plane = Plane::start(&db, &world).await;
    plane.succeeded(&plane.create("acme").await).await;
    let id = tenant_id(&plane, "acme").await;
    let stops = world.count(id, Verb::Stop);
    world.manner("acme", Manner::Never);
    plane.until(id, "it is found out", |r| !r.tenant.is_ready()).await;
    let stopped = async {
        while world.count(id, Verb::Stop) == stops {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, stopped).await.unwrap();
    world.manner("acme", Manner::Good);
    plane.until(id, "it is ready again", |r| r.tenant.is_ready()).await;
    world.manner("acme", Manner::CrashAfter(8));
    let first = healed(&plane, id, &[]).await;
    world.manner("acme", Manner::Good);
    plane.until(id, "it is ready again", |r| r.tenant.is_ready()).await;
    let _ = first;
    leaves_nothing(&plane, &world, "acme").await;
    plane.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn objects_without_an_owner_are_reaped_at_start_and_later() {
    let (db, world) = (TestDb::new().await, FakeBackend::default());
    world.plant(TenantId::generate());
    let plane = Plane::start(&db, &world).await;
    let reaped = async {
        while !world.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reaped).await.unwrap();
    world.plant(TenantId::generate());
    let reaped = async {
        while !world.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reaped).await.unwrap();
    plane.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn a_suspended_tenant_stops_and_resumes_with_its_data() {
    let (db, world) = (TestDb::new().await, FakeBackend::default());
    let plane = Plane::start(&db, &world).await;
    plane.succeeded(&plane.create("acme").await).await;
    let by = operator(Role::Operator);
    let tenants = &plane.services.tenants;
    let suspension = tenants.suspend(&by, &slug("acme"), Some(1), None).await.unwrap();
    plane.succeeded(&suspension).await;
    let tenant = tenants.get(&slug("acme")).await.unwrap();
    assert_eq!((tenant.phase(), tenant.generation), (Phase::Suspended, 2));
    assert!(world.has_data(tenant.id));
    // Asked again, the same operation is the answer; with an old generation it is refused.
    assert_eq!(tenants.suspend(&by, &slug("acme"), None, None).await.unwrap().id, suspension.id);
    let stale = tenants.resume(&by, &slug("acme"), Some(1), None).await.unwrap_err();
    assert_eq!(stale.kind, Kind::PreconditionFailed);
    let resumption = tenants.resume(&by, &slug("acme"), Some(2), None).await.unwrap();
    plane.succeeded(&resumption).await;
    assert!(tenants.get(&slug("acme")).await.unwrap().is_ready());
    leaves_nothing(&plane, &world, "acme").await;
    plane.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn a_changed_secret_reaches_the_runner_without_a_restart() {
    let (db, world) = (TestDb::new().await, FakeBackend::default());
    let plane = Plane::start(&db, &world).await;
    plane.succeeded(&plane.create("acme").await).await;
    let id = tenant_id(&plane, "acme").await;
    let starts = world.count(id, Verb::Start);
    let by = operator(Role::Operator);
    plane.services.tenants.set_secret(&by, &slug("acme"), "API_KEY", SecretString::from("v".to_owned())).await.unwrap();
    let told = async {
        while !world.told(id).is_some_and(|t| t.secrets.iter().any(|(n, v)| n == "API_KEY" && v.expose_secret() == "v"))
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.unwrap();
    assert_eq!(world.count(id, Verb::Start), starts);
    leaves_nothing(&plane, &world, "acme").await;
    plane.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn one_control_plane_leads_and_another_takes_over() {
    let (db, world) = (TestDb::new().await, FakeBackend::default());
    let first = Plane::start(&db, &world).await;
    first.succeeded(&first.create("acme").await).await;
    let second = Plane::start(&db, &world).await;
    // A wish written at the one that does not lead is carried out by the one that does.
    second.succeeded(&second.create("other").await).await;
    assert!(first.reconciler.leads() && !second.reconciler.leads());
    first.kill().await;
    second.succeeded(&second.delete("acme").await).await;
    assert!(second.reconciler.leads());
    leaves_nothing(&second, &world, "other").await;
    second.stop().await;
    db.finish().await;
}
