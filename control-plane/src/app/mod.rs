//! Puts the parts together, starts them in order and stops them in reverse. Nothing else knows every part.

mod foundation;
mod gate;
mod listener;
mod ops;
mod routers;
mod secrets;
pub mod teardown;

pub use foundation::{Foundation, backend, clock};
pub use secrets::{private_dir, write_private};

use crate::cipher::Cipher;
use crate::config::Settings;
use crate::domain::TenantId;
use crate::domain::tenant::{BackendKind, Tenant};
use crate::edge::{Edge, EdgeConfig, TenantSource};
use crate::error::{Error, Kind, Result};
use crate::http::PublicUrl;
use crate::orchestrator::SharedBackend;
use crate::orchestrator::fake::FakeBackend;
use crate::pki::Authority;
use crate::reconcile::{Parts, Reconciler, SharedGate, Timing};
use crate::runner_client::RunnerClients;
use crate::service::{Changes, Services, TenantService, backends};
use async_trait::async_trait;
use nexaas_common::secret::ExposeSecret as _;
use nexaas_common::task::{OnExit, Supervisor};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::broadcast;

const STOP: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct Rows(TenantService);

#[async_trait]
impl TenantSource for Rows {
    async fn tenants(&self) -> Result<Vec<Tenant>> {
        self.0.all().await
    }
    fn changes(&self) -> broadcast::Receiver<TenantId> {
        self.0.changes()
    }
}

pub fn public_url(settings: &Settings) -> PublicUrl {
    PublicUrl {
        scheme: settings.public_scheme.as_str().to_owned(),
        base_domain: settings.base_domain.clone(),
        port: Some(settings.public_port.unwrap_or(settings.listen.port())),
        cookie_secure: settings.cookie_secure,
    }
}

/// Runs the control plane until it is told to stop.
pub async fn serve(settings: Settings) -> Result<()> {
    let metrics = nexaas_common::telemetry::install_metrics().map_err(Error::internal)?;
    let settings = Arc::new(settings);
    let _lock = foundation::lock(&settings)?;
    // Bound before anything is started: a taken port is the most likely trouble and should cost nothing.
    let edge_listener = listener::bind("listen", settings.listen).await?;
    let ops_listener = listener::bind("ops_listen", settings.ops_listen).await?;

    // The database outlives everything that uses it.
    let ground = Supervisor::new();
    let foundation = Foundation::lay(settings.clone(), &ground).await?;
    let supervisor = Supervisor::new();
    let outcome = run(&settings, &foundation, &ground, &supervisor, metrics, edge_listener, ops_listener).await;
    tracing::info!("stopping");
    if let Err(error) = supervisor.shutdown(STOP).await {
        tracing::warn!(%error, "some tasks were cut off");
    }
    // From here on its end is expected.
    ground.token().cancel();
    foundation.close().await;
    if let Err(error) = ground.shutdown(STOP).await {
        tracing::warn!(%error, "the database's task was cut off");
    }
    outcome
}

async fn run(
    settings: &Arc<Settings>,
    foundation: &Foundation,
    ground: &Supervisor,
    supervisor: &Supervisor,
    metrics: metrics_exporter_prometheus::PrometheusHandle,
    edge_listener: tokio::net::TcpListener,
    ops_listener: tokio::net::TcpListener,
) -> Result<()> {
    let store = foundation.store.clone();
    let secrets_dir = settings.secrets_dir();
    let cipher = Cipher::new(&secrets::key(&secrets_dir.join("master.key"))?);
    let session_key = secrets::key(&secrets_dir.join("session.key"))?;
    let authority = Arc::new(Authority::load_or_create(&secrets_dir, store.clock().clone())?);
    let clients = RunnerClients::new(authority.clone())?;

    let mut gate: SharedGate =
        Arc::new(gate::EdgeGate::new(clients.clone(), edge_address(&edge_listener)?, settings.base_domain.clone()));
    let mut list: Vec<SharedBackend> = Vec::new();
    for kind in foundation.backends_in_use().await? {
        if kind == BackendKind::Fake {
            let fake = Arc::new(FakeBackend::default());
            gate = fake.clone();
            list.push(fake);
        } else {
            list.push(backend(settings, kind, foundation.install, supervisor).await?);
        }
    }
    let backends = backends(list);
    for (name, backend) in backends.iter() {
        match backend.ping().await {
            Ok(what) => tracing::info!(backend = name, what, "the backend answers"),
            // Not fatal: what runs keeps running and the reconciler waits for it.
            Err(error) => tracing::error!(backend = name, error = %error.chain(), "the backend does not answer"),
        }
    }

    let changes = Changes::default();
    changes.start(&store, supervisor);
    let services =
        Services::new(settings.clone(), store.clone(), backends.clone(), cipher.clone(), session_key, changes.clone())?;
    if services.tenants.templates().is_empty() {
        tracing::warn!(folder = %settings.templates_dir.display(), "there are no templates; tenants cannot be created");
    }

    let public = public_url(settings);
    let (console, dashboard) = routers::routers(&services, &clients, &public);
    let edge_config = EdgeConfig {
        public,
        trusted_proxies: settings.trusted_proxies.clone(),
        limits: crate::edge::Limits::default(),
    };
    let edge = Edge::new(edge_config, Arc::new(clients.clone()), console, dashboard, supervisor.token().clone());
    let source: Arc<dyn TenantSource> = Arc::new(Rows(services.tenants.clone()));
    let following = edge.clone();
    supervisor.spawn("routes", OnExit::Shutdown, move |token| crate::edge::follow::follow(following, source, token));
    let serving = edge.clone();
    supervisor.spawn("edge", OnExit::Shutdown, move |token| async move {
        if let Err(error) = crate::edge::server::serve(serving, edge_listener, token).await {
            tracing::error!(error = %error.chain(), "the edge ended");
        }
    });

    let reconciler = Reconciler::new(Parts {
        settings: settings.clone(),
        store: store.clone(),
        backends,
        gate,
        issue: Arc::new(move |tenant| authority.issue_runner(tenant)),
        cipher,
        changes,
        timing: Timing::default(),
    });
    reconciler.start(supervisor);

    let token = services.operators.new_local_token();
    write_private(&settings.cli_token_path(), token.expose_secret().as_bytes())?;

    let ops = ops::router(ops::Ops { metrics, supervisor: supervisor.clone(), store, reconciler });
    supervisor.spawn("ops", OnExit::Shutdown, move |token| async move {
        let served = axum::serve(ops_listener, ops).with_graceful_shutdown(token.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!(%error, "the address for metrics and health ended");
        }
    });
    tracing::info!(console = %settings.public_url("console"), ops = %settings.ops_listen, version = nexaas_common::VERSION, "nexaas serves");

    let mut terminate = signal(SignalKind::terminate()).map_err(Error::internal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::internal)?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        () = supervisor.token().cancelled() => Err(essential_ended()),
        () = ground.token().cancelled() => Err(essential_ended()),
    }
}

fn essential_ended() -> Error {
    Error::new(Kind::Internal, "a part that the server depends on ended; the log says which and why")
}

fn edge_address(listener: &tokio::net::TcpListener) -> Result<std::net::SocketAddr> {
    listener.local_addr().map_err(Error::internal)
}
