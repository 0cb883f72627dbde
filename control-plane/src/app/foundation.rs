//! What every command that touches the installation stands on: its folder, its lock, its database, its id, its backends.

use super::secrets::private_dir;
use crate::config::Settings;
use crate::domain::InstallId;
use crate::domain::tenant::BackendKind;
use crate::error::{Error, Kind, Result};
use crate::orchestrator::SharedBackend;
use crate::orchestrator::docker::{DockerBackend, DockerOptions};
use crate::orchestrator::process::{ProcessBackend, ProcessOptions};
use crate::postgres::Cluster;
use crate::store::Store;
use nexaas_common::clock::{SharedClock, SystemClock};
use nexaas_common::secret::ExposeSecret as _;
use nexaas_common::task::Supervisor;
use sqlx::postgres::PgConnectOptions;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug)]
pub struct Foundation {
    pub settings: Arc<Settings>,
    pub store: Store,
    pub install: InstallId,
    cluster: Option<Cluster>,
}

pub fn clock() -> SharedClock {
    SystemClock::shared()
}

/// One server per data folder. The lock goes with the process, however it ends.
pub fn lock(settings: &Settings) -> Result<std::fs::File> {
    prepare_folders(settings)?;
    let path = settings.run_dir().join("nexaas.pid");
    let unusable = |e: std::io::Error| Error::invalid("data_dir", format!("is not usable: '{}': {e}", path.display()));
    let mut file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(unusable)?;
    if rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
        let pid = std::fs::read_to_string(&path).unwrap_or_default();
        return Err(Error::invalid(
            "data_dir",
            format!("'{}' is in use by the server with pid {}", settings.data_dir.display(), pid.trim()),
        ));
    }
    use std::io::Write as _;
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(unusable)?;
    Ok(file)
}

fn prepare_folders(settings: &Settings) -> Result<()> {
    let dir = &settings.data_dir;
    let unusable = |e: std::io::Error| Error::invalid("data_dir", format!("is not usable: '{}': {e}", dir.display()));
    std::fs::create_dir_all(settings.run_dir()).map_err(unusable)?;
    // As root, other users of ours (the database's, the runners') must be able to pass through; they cannot list.
    let mode = if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 };
    for path in [dir.clone(), settings.run_dir()] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(unusable)?;
    }
    private_dir(&settings.secrets_dir())
}

impl Foundation {
    /// Opens the database, private or given, and brings it up to date.
    pub async fn lay(settings: Arc<Settings>, supervisor: &Supervisor) -> Result<Self> {
        prepare_folders(&settings)?;
        let (options, cluster) = match &settings.database_url {
            Some(url) => {
                // The text holds a password: an error must not repeat it.
                let options: PgConnectOptions = url.expose_secret().parse().map_err(|_| {
                    Error::invalid("DATABASE_URL", "is not an address such as postgres://user@host/database")
                })?;
                (options, None)
            }
            None => {
                let cluster = Cluster::start(&settings.data_dir, supervisor).await?;
                (cluster.options(), Some(cluster))
            }
        };
        let connected = tokio::time::timeout(Duration::from_secs(30), Store::connect(options, clock())).await;
        let store = match connected.map_err(|_| Error::timeout("the database")).and_then(|r| r) {
            Ok(store) => store,
            Err(error) => {
                if let Some(cluster) = cluster {
                    cluster.stop().await;
                }
                return Err(error);
            }
        };
        // A new database is a new installation: what another one labelled is never taken for ours.
        let install = store.install_id(InstallId::generate()).await?;
        let path = settings.data_dir.join("install-id");
        super::write_private(&path, format!("{install}\n").as_bytes())?;
        Ok(Self { settings, store, install, cluster })
    }

    /// The configured backend first, then those that tenants still use.
    pub async fn backends_in_use(&self) -> Result<Vec<BackendKind>> {
        let mut kinds = vec![self.settings.backend];
        for record in self.store.tenants().await? {
            if !kinds.contains(&record.tenant.backend) && record.tenant.backend != BackendKind::Fake {
                kinds.push(record.tenant.backend);
            }
        }
        Ok(kinds)
    }

    pub async fn close(self) {
        let _ = tokio::time::timeout(Duration::from_secs(5), self.store.close()).await;
        if let Some(cluster) = self.cluster {
            cluster.stop().await;
        }
    }
}

/// Makes one backend from the settings.
pub async fn backend(
    settings: &Settings,
    kind: BackendKind,
    install: InstallId,
    supervisor: &Supervisor,
) -> Result<SharedBackend> {
    let folder = |path: &std::path::Path| path.is_dir().then(|| path.to_owned());
    match kind {
        BackendKind::Docker => Ok(Arc::new(DockerBackend::new(DockerOptions {
            install,
            host: settings.docker_host.clone(),
            runtime: settings.docker_runtime.clone(),
            image: settings.runner_image.clone(),
        }))),
        BackendKind::Process => {
            let runner_binary = settings.runner_binary.clone().ok_or_else(|| {
                Error::invalid(
                    "runner_binary",
                    "is needed by the process backend and was not found beside this program",
                )
            })?;
            let options = ProcessOptions {
                data_dir: settings.data_dir.clone(),
                runner_binary,
                framework_dir: folder(&settings.framework_dir),
                templates_dir: folder(&settings.templates_dir),
            };
            Ok(Arc::new(ProcessBackend::open(options, supervisor.clone()).await?))
        }
        BackendKind::Fake => Err(Error::new(Kind::Internal, "the backend in memory is for tests")),
    }
}
