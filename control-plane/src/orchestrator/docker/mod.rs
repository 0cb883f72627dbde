//! Runners as containers of Docker (or Podman, where its API is the same). The only module that knows the engine's API.
//!
//! Always true: it acts only on objects that carry this installation's label; every call has a time-out; what the engine
//! is told comes from `settings` alone.

mod audit;
mod client;
mod error;
mod image;
mod runner;
mod settings;
mod watch;

pub use audit::Violation;
pub use client::resolve_host;

use super::{
    Change, Found, ObjectKind, Observed, RunnerBackend, RunnerIdentity, RunnerMetrics, RunnerSpec, TenantObjects,
    label, object_name,
};
use crate::domain::tenant::BackendKind;
use crate::domain::{InstallId, TenantId};
use crate::error::{Error, Kind, Result};
use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use bollard::query_parameters::{
    InspectContainerOptions, InspectNetworkOptions, ListContainersOptions, ListNetworksOptions, ListVolumesOptions,
    LogsOptions, RemoveVolumeOptions, StatsOptions,
};
use client::Client;
use error::{About, is_not_found, map};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// A look at one object.
const LOOK: Duration = Duration::from_secs(10);
/// Making or removing one object; the engine may be busy with many.
const CHANGE: Duration = Duration::from_secs(60);
/// No more of a runner's output is handed out at once.
const LOG_BYTES: usize = 1 << 20;

#[derive(Debug, Clone)]
pub struct DockerOptions {
    pub install: InstallId,
    /// `unix://…`, a path, or `tcp://…`; `None`: the first socket found.
    pub host: Option<String>,
    /// Another OCI runtime that the engine knows, such as `runsc`.
    pub runtime: Option<String>,
    /// The runner image's tag; runners are made from what it means at that moment, by digest.
    pub image: String,
}

/// The state that a watching stream shares with its backend.
#[derive(Debug)]
struct Shared {
    install: InstallId,
    runtime: Option<String>,
    image: String,
    client: Client,
    /// The local id of `image` as last seen.
    image_id: ArcSwapOption<String>,
}

#[derive(Debug, Clone)]
pub struct DockerBackend(Arc<Shared>);

/// One tenant's container or network with what is wrong about it.
#[derive(Debug, Clone)]
pub struct Audited {
    pub tenant_id: TenantId,
    pub name: String,
    pub violations: Vec<Violation>,
}

impl DockerBackend {
    /// Connects at the first call; an engine that is down is an error of the calls, not of this.
    pub fn new(options: DockerOptions) -> Self {
        Self(Arc::new(Shared {
            install: options.install,
            runtime: options.runtime.filter(|r| !r.is_empty()),
            image: options.image,
            client: Client::new(resolve_host(options.host.as_deref())),
            image_id: ArcSwapOption::empty(),
        }))
    }

    fn name(&self, tenant: TenantId) -> String {
        object_name(self.0.install, tenant)
    }

    fn filter(&self) -> HashMap<String, Vec<String>> {
        HashMap::from([("label".to_owned(), vec![format!("{}={}", label::INSTALL, self.0.install.uuid())])])
    }

    fn is_ours(&self, labels: Option<&HashMap<String, String>>) -> bool {
        labels.and_then(|l| l.get(label::INSTALL)).is_some_and(|v| *v == self.0.install.uuid().to_string())
    }

    fn foreign(&self, what: &str, name: &str) -> Error {
        Error::conflict(format!("a {what} named {name} exists that this installation did not make; remove it by hand"))
    }

    async fn network_seen(&self, tenant: TenantId) -> Result<Option<bollard::models::NetworkInspect>> {
        let name = self.name(tenant);
        let docker = self.0.client.docker().await?;
        let seen = self
            .0
            .client
            .find("inspect a network", LOOK, docker.inspect_network(&name, None::<InspectNetworkOptions>))
            .await?;
        match seen {
            Some(n) if !self.is_ours(n.labels.as_ref()) => Err(self.foreign("network", &name)),
            other => Ok(other),
        }
    }

    async fn volume_seen(&self, tenant: TenantId) -> Result<Option<bollard::models::Volume>> {
        let name = self.name(tenant);
        let docker = self.0.client.docker().await?;
        let seen = self.0.client.find("inspect a volume", LOOK, docker.inspect_volume(&name)).await?;
        match seen {
            Some(v) if !self.is_ours(Some(&v.labels)) => Err(self.foreign("volume", &name)),
            other => Ok(other),
        }
    }

    async fn container_seen(&self, tenant: TenantId) -> Result<Option<bollard::models::ContainerInspectResponse>> {
        let name = self.name(tenant);
        let docker = self.0.client.docker().await?;
        let seen = self
            .0
            .client
            .find("inspect a container", LOOK, docker.inspect_container(&name, None::<InspectContainerOptions>))
            .await?;
        match seen {
            Some(c) if !self.is_ours(c.config.as_ref().and_then(|c| c.labels.as_ref())) => {
                Err(self.foreign("container", &name))
            }
            other => Ok(other),
        }
    }

    /// Everything about this tenant's container and network that is not as it must be. No container: nothing is wrong.
    pub async fn audit(&self, tenant: TenantId) -> Result<Vec<Violation>> {
        let mut violations = Vec::new();
        if let Some(inspect) = self.container_seen(tenant).await? {
            let expected = audit::Expected { name: self.name(tenant), runtime: self.0.runtime.clone(), image_id: None };
            violations.extend(audit::container(&inspect, &expected));
        }
        if let Some(inspect) = self.network_seen(tenant).await? {
            violations.extend(audit::network(&inspect));
        }
        Ok(violations)
    }

    /// The same for every tenant of this installation.
    pub async fn audit_all(&self) -> Result<Vec<Audited>> {
        let mut tenants: Vec<TenantId> = self.list().await?.into_iter().map(|f| f.tenant_id).collect();
        tenants.sort_unstable();
        tenants.dedup();
        let mut all = Vec::with_capacity(tenants.len());
        for tenant_id in tenants {
            let violations = self.audit(tenant_id).await?;
            all.push(Audited { tenant_id, name: self.name(tenant_id), violations });
        }
        Ok(all)
    }

    /// What this host cannot enforce although runners ask for it, in sentences for people.
    pub async fn host_findings(&self) -> Result<Vec<String>> {
        let client = &self.0.client;
        let docker = client.docker().await?;
        let info = client.call("describe itself", About::default(), LOOK, docker.info()).await?;
        let mut findings = Vec::new();
        let options = info.security_options.unwrap_or_default();
        if !options.iter().any(|o| o.contains("seccomp")) || options.iter().any(|o| o.contains("profile=unconfined")) {
            findings.push("the engine runs without its default seccomp profile".to_owned());
        }
        for (supported, what) in [
            (info.memory_limit, "memory limits"),
            (info.swap_limit, "swap limits"),
            (info.pids_limit, "limits on processes"),
            (info.cpu_cfs_quota, "limits on processor time"),
        ] {
            if supported == Some(false) {
                findings.push(format!("the kernel does not enforce {what}"));
            }
        }
        if let Some(runtime) = &self.0.runtime
            && !info.runtimes.unwrap_or_default().contains_key(runtime)
        {
            findings.push(format!("the engine does not know the runtime '{runtime}'"));
        }
        Ok(findings)
    }
}

fn tenant_of(labels: Option<&HashMap<String, String>>) -> Option<TenantId> {
    labels?.get(label::TENANT)?.parse().ok()
}

/// An error of looking means that something may be there.
fn observed<T, U>(what: &str, seen: Result<Option<T>>, map: impl FnOnce(T) -> Observed<U>) -> Observed<U> {
    match seen {
        Ok(Some(found)) => map(found),
        Ok(None) => Observed::Absent,
        Err(error) => {
            tracing::debug!(what, error = error.chain(), "could not look");
            Observed::Unknown
        }
    }
}

#[async_trait]
impl RunnerBackend for DockerBackend {
    fn kind(&self) -> BackendKind {
        BackendKind::Docker
    }

    fn spec_hash(&self, spec: &RunnerSpec) -> String {
        let image = self.0.image_id.load();
        // Before the engine was first seen no hash is right; `observe` looks before it answers.
        let image = image.as_deref().map_or("unknown", String::as_str);
        let runtime = self.0.runtime.as_deref().unwrap_or_default();
        spec.hash(&format!("docker/{}/{image}/{runtime}", settings::REVISION))
    }

    async fn ping(&self) -> Result<String> {
        let client = &self.0.client;
        let docker = client.docker().await?;
        let version = client.call("tell its version", About::default(), LOOK, docker.version()).await?;
        let podman = version.components.iter().flatten().any(|c| c.name.starts_with("Podman"));
        let image = match self.refresh_image().await {
            Ok(id) => format!("image {} ({})", self.0.image, id.chars().take(19).collect::<String>()),
            Err(error) if matches!(error.kind, Kind::Unavailable { what: "runner image" }) => {
                format!("image {} not built yet", self.0.image)
            }
            Err(error) => return Err(error),
        };
        Ok(format!(
            "{} {} with API {} at {}, {image}",
            if podman { "Podman" } else { "Docker" },
            version.version.unwrap_or_default(),
            docker.client_version(),
            client.host(),
        ))
    }

    async fn ensure_network(&self, spec: &RunnerSpec) -> Result<()> {
        if let Some(existing) = self.network_seen(spec.tenant_id).await? {
            let wanted = spec.subnet.map(|s| s.to_string());
            let ranges: Vec<String> =
                existing.ipam.and_then(|i| i.config).unwrap_or_default().into_iter().filter_map(|c| c.subnet).collect();
            if wanted.is_none() || ranges == wanted.into_iter().collect::<Vec<_>>() {
                return Ok(());
            }
            // Leased anew since: the container that is on it must go first.
            self.remove(spec.tenant_id, ObjectKind::Runner).await?;
            self.remove(spec.tenant_id, ObjectKind::Network).await?;
        }
        let client = &self.0.client;
        let docker = client.docker().await?;
        let about = About { subnet: spec.subnet, ..About::default() };
        let request = settings::network(self.0.install, spec);
        match client.attempt(CHANGE, docker.create_network(request)).await? {
            Ok(_) => Ok(()),
            // Made meanwhile by another call.
            Err(e) if error::status(&e) == Some(409) && self.network_seen(spec.tenant_id).await?.is_some() => Ok(()),
            Err(e) => Err(map("make the tenant's network", client.host(), about, e)),
        }
    }

    async fn ensure_volume(&self, spec: &RunnerSpec) -> Result<()> {
        if self.volume_seen(spec.tenant_id).await?.is_some() {
            return Ok(());
        }
        let client = &self.0.client;
        let docker = client.docker().await?;
        let request = settings::volume(self.0.install, spec);
        client.call("make the tenant's volume", About::default(), CHANGE, docker.create_volume(request)).await?;
        Ok(())
    }

    async fn ensure_runner(&self, spec: &RunnerSpec, identity: &RunnerIdentity) -> Result<()> {
        self.make_runner(spec, identity).await
    }

    async fn start(&self, tenant: TenantId) -> Result<()> {
        self.start_runner(tenant).await
    }

    async fn stop(&self, tenant: TenantId) -> Result<()> {
        self.stop_runner(tenant).await
    }

    async fn remove(&self, tenant: TenantId, kind: ObjectKind) -> Result<()> {
        let client = &self.0.client;
        let docker = client.docker().await?;
        let name = self.name(tenant);
        let gone = match kind {
            ObjectKind::Runner => return self.remove_runner(tenant).await,
            ObjectKind::Network => {
                if self.network_seen(tenant).await?.is_none() {
                    return Ok(());
                }
                client.attempt(CHANGE, docker.remove_network(&name)).await?
            }
            ObjectKind::Volume => {
                if self.volume_seen(tenant).await?.is_none() {
                    return Ok(());
                }
                client.attempt(CHANGE, docker.remove_volume(&name, None::<RemoveVolumeOptions>)).await?
            }
        };
        match gone {
            Ok(()) => Ok(()),
            Err(e) if is_not_found(&e) => Ok(()),
            Err(e) => Err(map("remove an object of the tenant", client.host(), About::default(), e)),
        }
    }

    async fn observe(&self, tenant: TenantId) -> TenantObjects {
        if self.0.image_id.load().is_none() {
            // Only to compare hashes; without the image nothing could be remade anyway.
            let _ = self.refresh_image().await;
        }
        let (network, volume, runner) =
            tokio::join!(self.network_seen(tenant), self.volume_seen(tenant), self.container_seen(tenant));
        TenantObjects {
            network: observed("network", network, |_| Observed::Present(())),
            volume: observed("volume", volume, |_| Observed::Present(())),
            runner: observed("container", runner, |c| runner::seen(&c)),
        }
    }

    async fn list(&self) -> Result<Vec<Found>> {
        let client = &self.0.client;
        let docker = client.docker().await?;
        let about = About::default();
        let filters = Some(self.filter());
        let containers = ListContainersOptions { all: true, filters: filters.clone(), ..Default::default() };
        let (containers, networks, volumes) = tokio::try_join!(
            client.call("list containers", about, LOOK, docker.list_containers(Some(containers))),
            client.call(
                "list networks",
                about,
                LOOK,
                docker.list_networks(Some(ListNetworksOptions { filters: filters.clone() }))
            ),
            client.call("list volumes", about, LOOK, docker.list_volumes(Some(ListVolumesOptions { filters }))),
        )?;
        let mut found = Vec::new();
        let mut add = |kind, name: String, labels: Option<&HashMap<String, String>>| {
            if let Some(tenant_id) = tenant_of(labels).filter(|_| self.is_ours(labels)) {
                found.push(Found { tenant_id, kind, name });
            }
        };
        for c in containers {
            let name = c.names.unwrap_or_default().first().map(|n| n.trim_start_matches('/').to_owned());
            add(ObjectKind::Runner, name.unwrap_or_default(), c.labels.as_ref());
        }
        for n in networks {
            add(ObjectKind::Network, n.name.unwrap_or_default(), n.labels.as_ref());
        }
        for v in volumes.volumes.unwrap_or_default() {
            add(ObjectKind::Volume, v.name.clone(), Some(&v.labels));
        }
        Ok(found)
    }

    fn watch(&self) -> BoxStream<'static, Change> {
        watch::changes(self.clone())
    }

    async fn metrics(&self, tenant: TenantId) -> Result<RunnerMetrics> {
        let client = &self.0.client;
        let docker = client.docker().await?;
        let name = self.name(tenant);
        let options = StatsOptions { stream: false, one_shot: true };
        let mut stream = Box::pin(docker.stats(&name, Some(options)));
        let stats = client
            .attempt(LOOK, async { stream.next().await.transpose() })
            .await?
            .map_err(|e| map("measure the runner", client.host(), About::default(), e))?;
        stats.and_then(|s| runner::measured(&s)).ok_or_else(|| {
            Error::new(Kind::Unavailable { what: "runner" }, "the runner does not run, so there is nothing to measure")
        })
    }

    async fn logs(&self, tenant: TenantId, lines: usize) -> Result<String> {
        if self.container_seen(tenant).await?.is_none() {
            return Err(Error::not_found("the tenant's runner"));
        }
        let client = &self.0.client;
        let docker = client.docker().await?;
        let options = LogsOptions { stdout: true, stderr: true, tail: lines.to_string(), ..LogsOptions::default() };
        let mut stream = Box::pin(docker.logs(&self.name(tenant), Some(options)));
        let collect = async {
            let mut bytes = Vec::new();
            while let Some(part) = stream.next().await {
                bytes.extend_from_slice(part?.as_ref());
                // The newest lines matter: what is too much falls off the front.
                if bytes.len() > 2 * LOG_BYTES {
                    bytes.drain(..bytes.len() - LOG_BYTES);
                }
            }
            Ok(bytes)
        };
        let bytes = client.call("read the runner's output", About::default(), CHANGE, collect).await?;
        let tail = &bytes[bytes.len().saturating_sub(LOG_BYTES)..];
        Ok(String::from_utf8_lossy(tail).into_owned())
    }
}
