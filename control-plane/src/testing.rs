//! What the tests of this crate stand on: a database of their own and a control plane over the backend in memory.
//! `TEST_DATABASE_URL` names a server to use; without it each test process runs a private cluster.

use crate::cipher::Cipher;
use crate::config::{Partial, Settings};
use crate::domain::operation::{Operation, OperationState};
use crate::domain::operator::{Principal, Role, Via};
use crate::domain::{OperatorId, TenantId};
use crate::orchestrator::RunnerIdentity;
use crate::orchestrator::fake::FakeBackend;
use crate::postgres::Cluster;
use crate::reconcile::{Parts, Reconciler, Timing};
use crate::service::{Changes, CreateTenant, Services, backends};
use crate::store::Store;
use futures::StreamExt as _;
use nexaas_common::backoff::Backoff;
use nexaas_common::clock::SystemClock;
use nexaas_common::task::Supervisor;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection as _};
use std::sync::Arc;
use std::time::Duration;

pub const PATIENCE: Duration = Duration::from_secs(60);

/// A database of one test. `finish` fails when somebody is still connected to it.
pub struct TestDb {
    admin: PgConnectOptions,
    name: String,
    cluster: Option<(Cluster, Supervisor)>,
    _dir: tempfile::TempDir,
}

impl TestDb {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (admin, cluster) = match std::env::var("TEST_DATABASE_URL") {
            Ok(url) => (url.parse::<PgConnectOptions>().unwrap(), None),
            Err(_) => {
                let supervisor = Supervisor::new();
                let cluster = Cluster::start(dir.path(), &supervisor).await.unwrap();
                (cluster.options(), Some((cluster, supervisor)))
            }
        };
        let name = format!("t_{}", uuid::Uuid::new_v4().simple());
        let mut connection = PgConnection::connect_with(&admin).await.unwrap();
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        Self { admin, name, cluster, _dir: dir }
    }

    pub async fn store(&self) -> Store {
        Store::connect(self.admin.clone().database(&self.name), SystemClock::shared()).await.unwrap()
    }

    pub async fn finish(self) {
        let mut connection = PgConnection::connect_with(&self.admin).await.unwrap();
        // A closed connection leaves the server's list a moment later; one that stays open never does.
        let gone = async {
            loop {
                let drop = sqlx::query(AssertSqlSafe(format!("DROP DATABASE {}", self.name)));
                if drop.execute(&mut connection).await.is_ok() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(10), gone).await.is_ok(), "connections were left open");
        connection.close().await.unwrap();
        if let Some((cluster, supervisor)) = self.cluster {
            cluster.stop().await;
            supervisor.shutdown(Duration::from_secs(30)).await.unwrap();
        }
    }
}

/// Quick paces: nothing here waits for seconds.
pub fn quick() -> Timing {
    Timing {
        handshake: Duration::from_secs(2),
        workspace: Duration::from_secs(2),
        probe: Duration::from_secs(2),
        suspicion: Duration::from_millis(200),
        connect: Backoff::new(Duration::from_millis(1), Duration::from_millis(10)),
        retry: Backoff::new(Duration::from_millis(5), Duration::from_millis(50)),
        slow: Duration::from_millis(50),
        health: Duration::from_millis(50),
        sweep: Duration::from_millis(100),
        lead: Duration::from_millis(20),
        parallel: 8,
    }
}

pub fn settings(dir: &std::path::Path, ports: &str) -> Settings {
    let templates = dir.join("templates");
    for name in ["fresh", "demo"] {
        std::fs::create_dir_all(templates.join(name)).unwrap();
    }
    Partial {
        data_dir: Some(dir.join("data")),
        backend: Some("fake".into()),
        templates_dir: Some(templates),
        port_range: Some(ports.to_owned()),
        ..Partial::default()
    }
    .complete()
    .unwrap()
}

pub fn operator(role: Role) -> Principal {
    Principal {
        operator_id: OperatorId::from_uuid(uuid::Uuid::from_u128(7)),
        username: "ada".into(),
        role,
        via: Via::Session,
    }
}

/// A control plane in this process, over a world that outlives it.
pub struct Plane {
    pub services: Services,
    pub reconciler: Reconciler,
    pub supervisor: Supervisor,
    pub store: Store,
    _dir: tempfile::TempDir,
}

impl Plane {
    pub async fn start(db: &TestDb, world: &FakeBackend) -> Self {
        Self::start_with(db, world, "20000-20019", quick()).await
    }

    pub async fn start_with(db: &TestDb, world: &FakeBackend, ports: &str, timing: Timing) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = Arc::new(settings(dir.path(), ports));
        let store = db.store().await;
        let supervisor = Supervisor::new();
        let changes = Changes::default();
        changes.start(&store, &supervisor);
        let cipher = Cipher::new(&[7; 32]);
        let all = backends([Arc::new(world.clone()) as _]);
        let services =
            Services::new(settings.clone(), store.clone(), all.clone(), cipher.clone(), [9; 32], changes.clone())
                .unwrap();
        let reconciler = Reconciler::new(Parts {
            settings,
            store: store.clone(),
            backends: all,
            gate: Arc::new(world.clone()),
            issue: Arc::new(|_| {
                Ok(RunnerIdentity {
                    certificate_pem: String::new(),
                    key_pem: String::new().into(),
                    ca_pem: String::new(),
                })
            }),
            cipher,
            changes,
            timing,
        });
        reconciler.start(&supervisor);
        Self { services, reconciler, supervisor, store, _dir: dir }
    }

    /// Ends in order; every task must join.
    pub async fn stop(self) {
        self.supervisor.shutdown(PATIENCE).await.unwrap();
        self.store.close().await;
    }

    /// Ends as by SIGKILL: no task is asked to tidy up.
    pub async fn kill(self) {
        let _ = self.supervisor.shutdown(Duration::ZERO).await;
        self.store.close().await;
    }

    pub async fn create(&self, slug: &str) -> Operation {
        let request = CreateTenant { slug: slug.into(), ..CreateTenant::default() };
        self.services.tenants.create(&operator(Role::Operator), request, None).await.unwrap().1
    }

    pub async fn delete(&self, slug: &str) -> Operation {
        self.services.tenants.delete(&operator(Role::Operator), &slug.parse().unwrap(), None, None).await.unwrap()
    }

    /// Follows an operation to its end.
    pub async fn finished(&self, operation: &Operation) -> Operation {
        let mut states = self.services.tenants.watch_operation(operation.id);
        let last = async {
            let mut last = None;
            while let Some(state) = states.next().await {
                last = Some(state.unwrap());
            }
            last.unwrap()
        };
        let last = tokio::time::timeout(PATIENCE, last).await;
        match last {
            Ok(last) if last.state.finished() => last,
            other => panic!(
                "the operation does not end: {other:?} {:?}",
                self.services.tenants.operation(operation.id).await
            ),
        }
    }

    pub async fn succeeded(&self, operation: &Operation) -> Operation {
        let last = self.finished(operation).await;
        assert_eq!(last.state, OperationState::Succeeded, "{last:?}");
        last
    }

    /// Waits until `seen` holds of the tenant, looking whenever something of it changes.
    pub async fn until(&self, id: TenantId, what: &str, seen: impl Fn(&crate::store::tenants::TenantRecord) -> bool) {
        let mut changes = self.services.tenants.changes();
        let wait = async {
            loop {
                if self.store.tenant_by_id(id).await.unwrap().is_some_and(|r| seen(&r)) {
                    return;
                }
                let _ = tokio::time::timeout(Duration::from_millis(200), changes.recv()).await;
            }
        };
        let state = tokio::time::timeout(PATIENCE, wait).await;
        assert!(state.is_ok(), "{what}: {:?}", self.store.tenant_by_id(id).await);
    }
}
