//! One running runner: the engine, and what HTTP and gRPC share. Started and stopped the same way by the binary and by
//! tests. The port is bound before anything is opened, so that a taken port changes nothing; at the end the port closes
//! first, then the engine.

use crate::config::{Config, Mode, Refusal, Standalone};
use crate::listener::Listener;
use crate::{grpc, http, probe, tls};
use chrono::{DateTime, Utc};
use nexaas_common::clock::SharedClock;
use nexaas_common::id::TenantId;
use nexaas_common::secret::ExposeSecret as _;
use nexaas_common::task::{NotJoined, OnExit, Supervisor};
use nexaas_engine::{Engine, EngineConfig, EngineError, OpsConfig, Settings};
use sha2::{Digest as _, Sha256};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const UPKEEP: Duration = Duration::from_secs(300);

/// What every handler reaches.
#[derive(Clone)]
pub struct App(Arc<Inner>);

struct Inner {
    engine: Arc<Engine>,
    clock: SharedClock,
    tenant: Option<(TenantId, u64)>,
    cors_origins: Vec<String>,
    draining: CancellationToken,
    sockets: TaskTracker,
    recheck: Duration,
    metrics: Option<Render>,
}

/// Writes the process's metrics as Prometheus text.
pub type Render = Arc<dyn Fn() -> String + Send + Sync>;

impl App {
    pub fn engine(&self) -> &Arc<Engine> {
        &self.0.engine
    }
    pub fn clock(&self) -> &SharedClock {
        &self.0.clock
    }
    /// The tenant and the generation this runner was started for; `None` standing alone.
    pub fn tenant(&self) -> Option<(TenantId, u64)> {
        self.0.tenant
    }
    pub fn cors_origins(&self) -> &[String] {
        &self.0.cors_origins
    }
    /// A tenant's rules (who may register, which key is valid) come from its control plane after every start. Until then
    /// nobody is let in, rather than anybody under the defaults.
    pub fn awaits_settings(&self) -> bool {
        self.tenant().is_some() && !self.engine().is_configured()
    }
    /// Cancelled when the runner stops: streams that would go on forever end then.
    pub fn draining(&self) -> &CancellationToken {
        &self.0.draining
    }
    /// Upgraded sockets, which no server waits for by itself.
    pub fn sockets(&self) -> &TaskTracker {
        &self.0.sockets
    }
    /// How often a stream asks whether its caller's credential still holds.
    pub fn recheck(&self) -> Duration {
        self.0.recheck
    }
    /// The process's metrics as text, where they are recorded.
    pub fn metrics(&self) -> Option<String> {
        self.0.metrics.as_ref().map(|render| render())
    }
}

/// Why the runner did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
    #[error("the engine does not start: {}", .0.chain())]
    Engine(EngineError),
}

pub struct Runner {
    address: SocketAddr,
    app: App,
    /// The listener and the health socket.
    edge: Supervisor,
    /// The engine's tasks.
    inner: Supervisor,
    deadline: Duration,
}

impl Runner {
    pub async fn start(config: Config, clock: SharedClock, metrics: Option<Render>) -> Result<Self, StartError> {
        let (tls, not_after) = match &config.mode {
            Mode::Tenant { id, identity_dir, .. } => {
                let identity = tls::Identity::read(identity_dir)?;
                (Some(Arc::new(tls::server_config(&identity, *id)?)), identity.not_after())
            }
            Mode::Standalone(_) => (None, None),
        };
        let tcp = TcpListener::bind(config.listen)
            .await
            .map_err(|source| StartError::Io { what: format!("cannot listen on {}", config.listen), source })?;
        let address =
            tcp.local_addr().map_err(|source| StartError::Io { what: "the listening port".to_owned(), source })?;
        let output = config.data_dir.join("output");
        for dir in [&config.data_dir, &config.workspace_root, &output] {
            private_dir(dir)?;
        }

        let inner = Supervisor::new();
        let engine = Engine::start(engine_config(&config, &output, not_after), clock.clone(), inner.clone())
            .await
            .map_err(StartError::Engine)?;
        let tenant = match &config.mode {
            Mode::Tenant { id, generation, .. } => Some((*id, *generation)),
            Mode::Standalone(alone) => {
                stand_alone(&engine, alone).await.map_err(StartError::Engine)?;
                None
            }
        };

        let edge = Supervisor::new();
        let app = App(Arc::new(Inner {
            engine,
            clock,
            tenant,
            cors_origins: config.cors_origins,
            draining: edge.token().clone(),
            sockets: TaskTracker::new(),
            recheck: config.recheck,
            metrics,
        }));
        let mut router = http::routes::router(&app);
        if tls.is_some() {
            router = router.merge(grpc::router(&app));
        }
        let drain = config.shutdown.mul_f64(0.6);
        let listener = Listener { tcp, tls, router };
        edge.spawn("listener", OnExit::Shutdown, |stop| listener.run(stop, drain));
        match probe::bind(&config.data_dir) {
            Ok(socket) => {
                let engine = Arc::clone(app.engine());
                edge.spawn("health-socket", OnExit::Shutdown, |stop| {
                    probe::serve(socket, stop, move || {
                        let engine = Arc::clone(&engine);
                        async move { engine.healthy().await }
                    })
                });
            }
            Err(error) => {
                tracing::warn!(%error, path = %probe::socket_path(&config.data_dir).display(), "no health socket; `healthcheck` will fail")
            }
        }
        if app.0.metrics.is_some() {
            let app = app.clone();
            // Samples of histograms pile up until somebody renders them, and perhaps nobody ever asks.
            edge.spawn("metrics-upkeep", OnExit::Shutdown, |stop| async move {
                while tokio::time::timeout(UPKEEP, stop.cancelled()).await.is_err() {
                    drop(app.metrics());
                }
            });
        }
        Ok(Self { address, app, edge, inner, deadline: config.shutdown })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn app(&self) -> &App {
        &self.app
    }

    /// Returns when a task without which the runner is useless has ended.
    pub async fn broken(&self) {
        tokio::select! {
            () = self.edge.token().cancelled() => {}
            () = self.inner.token().cancelled() => {}
        }
    }

    /// Stops accepting, lets open requests and running jobs finish, joins every task; what is still there at the deadline
    /// is named in the error.
    pub async fn stop(self) -> Result<(), NotJoined> {
        let half = self.deadline.mul_f64(0.7);
        let edge = self.edge.shutdown(half).await;
        self.app.sockets().close();
        if tokio::time::timeout(self.deadline.mul_f64(0.1), self.app.sockets().wait()).await.is_err() {
            tracing::warn!(open = self.app.sockets().len(), "chat sockets were still open at the deadline");
        }
        let inner = self.inner.shutdown(self.deadline.mul_f64(0.3)).await;
        edge.and(inner)
    }
}

fn private_dir(dir: &Path) -> Result<(), StartError> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| StartError::Io { what: format!("{} cannot be made", dir.display()), source })
}

fn engine_config(config: &Config, output: &Path, not_after: Option<DateTime<Utc>>) -> EngineConfig {
    let tenant = match &config.mode {
        Mode::Tenant { id, .. } => id.to_string(),
        Mode::Standalone(_) => "standalone".to_owned(),
    };
    let mut engine = EngineConfig::new(tenant, config.database_path.clone(), config.workspace_root.clone());
    engine.framework_root.clone_from(&config.framework_root);
    engine.templates_root.clone_from(&config.templates_root);
    engine.worker_pool_size = config.worker_pool_size;
    engine.default_timezone = config.default_timezone;
    engine.shell.clone_from(&config.shell);
    engine.script_host.clone_from(&config.script_host);
    for (name, path) in [("HOME", output), ("NEXAAS_OUTPUT", output), ("NEXAAS_WORKSPACE", &config.workspace_root)] {
        engine.script_env.push((name.to_owned(), path.display().to_string()));
    }
    engine.ops = OpsConfig { certificate_not_after: not_after, ..config.monitor.clone() };
    engine.allow_private_webhook_targets.clone_from(&config.allow_private_webhook_targets);
    engine.jwt_secret.clone_from(&config.jwt_secret);
    engine.anthropic_base_url = config.anthropic_base_url.clone();
    engine
}

/// Standing alone, the environment says what a control plane would.
async fn stand_alone(engine: &Engine, alone: &Standalone) -> Result<(), EngineError> {
    engine.configure(Settings {
        secrets: alone.secrets.clone(),
        api_key_sha256: Some(Sha256::digest(alone.api_key.expose_secret().as_bytes()).into()),
        public_url: alone.public_url.clone(),
        registration: alone.registration,
        ..Settings::default()
    });
    if let Some(template) = &alone.template {
        let outcome = engine.workspace().initialize(template).await?;
        tracing::info!(template, created = outcome.created, detail = outcome.detail, "workspace template");
    }
    Ok(())
}
