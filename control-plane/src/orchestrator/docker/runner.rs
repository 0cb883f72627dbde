//! One tenant's container: made with its identity in place, started, stopped, removed, seen, measured.

use super::error::{About, is_not_found, is_unchanged, map};
use super::settings::{self, Placement};
use super::{CHANGE, DockerBackend, LOOK};
use crate::domain::TenantId;
use crate::error::{Error, Result};
use crate::orchestrator::{
    Observed, RUNNER_GID, RUNNER_UID, RunState, RunnerBackend as _, RunnerIdentity, RunnerMetrics, RunnerSeen,
    RunnerSpec, label,
};
use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum, ContainerStatsResponse};
use bollard::query_parameters::{
    CreateContainerOptions, RemoveContainerOptions, StartContainerOptions, StopContainerOptions,
    UploadToContainerOptions, WaitContainerOptions,
};
use futures::StreamExt as _;
use nexaas_common::secret::ExposeSecret as _;
use std::time::Duration;

/// How long a runner may take to end by itself.
const GRACE_S: i32 = 10;

impl DockerBackend {
    pub(super) async fn make_runner(&self, spec: &RunnerSpec, identity: &RunnerIdentity) -> Result<()> {
        let image_id = self.refresh_image().await?;
        let spec_hash = self.spec_hash(spec);
        if let Some(existing) = self.container_seen(spec.tenant_id).await? {
            if hash_of(&existing) == Some(spec_hash.as_str()) {
                return if is_running(&existing) {
                    Ok(())
                } else {
                    self.place_identity(spec.tenant_id, identity).await
                };
            }
            self.stop_runner(spec.tenant_id).await?;
            self.remove_runner(spec.tenant_id).await?;
        }
        let placement = Placement {
            install: self.0.install,
            image_id: &image_id,
            runtime: self.0.runtime.as_deref(),
            spec_hash: &spec_hash,
        };
        let client = &self.0.client;
        let docker = client.docker().await?;
        let options = CreateContainerOptions { name: Some(self.name(spec.tenant_id)), ..Default::default() };
        let body = settings::container(spec, &placement);
        let about = About { port: Some(spec.port), subnet: spec.subnet };
        client.call("make the runner", about, CHANGE, docker.create_container(Some(options), body)).await?;
        if let Err(error) = self.place_identity(spec.tenant_id, identity).await {
            // A runner without its identity must not look finished.
            let _ = self.remove_runner(spec.tenant_id).await;
            return Err(error);
        }
        Ok(())
    }

    /// Puts the certificate, the key and the authority on the tenant's volume before the runner starts. The folder is laid
    /// down as a folder, so that a link left there by the tenant is replaced, not followed.
    async fn place_identity(&self, tenant: TenantId, identity: &RunnerIdentity) -> Result<()> {
        let archive = identity_archive(identity).map_err(Error::internal)?;
        let client = &self.0.client;
        let docker = client.docker().await?;
        let options = UploadToContainerOptions { path: settings::DATA_PATH.to_owned(), ..Default::default() };
        let name = self.name(tenant);
        let upload = docker.upload_to_container(&name, Some(options), bollard::body_full(archive.into()));
        client.call("place the runner's identity", About::default(), CHANGE, upload).await
    }

    pub(super) async fn start_runner(&self, tenant: TenantId) -> Result<()> {
        let Some(seen) = self.container_seen(tenant).await? else {
            return Err(Error::not_found("the tenant's runner"));
        };
        if is_running(&seen) {
            return Ok(());
        }
        let client = &self.0.client;
        let docker = client.docker().await?;
        let about = About { port: host_port(&seen), subnet: None };
        match client.attempt(CHANGE, docker.start_container(&self.name(tenant), None::<StartContainerOptions>)).await? {
            Ok(()) => Ok(()),
            Err(e) if is_unchanged(&e) => Ok(()),
            Err(e) => Err(map("start the runner", client.host(), about, e)),
        }
    }

    pub(super) async fn stop_runner(&self, tenant: TenantId) -> Result<()> {
        let Some(seen) = self.container_seen(tenant).await? else { return Ok(()) };
        if !is_running(&seen) {
            return Ok(());
        }
        let client = &self.0.client;
        let docker = client.docker().await?;
        let options = StopContainerOptions { t: Some(GRACE_S), ..Default::default() };
        match client.attempt(CHANGE, docker.stop_container(&self.name(tenant), Some(options))).await? {
            Ok(()) => Ok(()),
            Err(e) if is_unchanged(&e) || is_not_found(&e) => Ok(()),
            Err(e) => Err(map("stop the runner", client.host(), About::default(), e)),
        }
    }

    pub(super) async fn remove_runner(&self, tenant: TenantId) -> Result<()> {
        if self.container_seen(tenant).await?.is_none() {
            return Ok(());
        }
        let client = &self.0.client;
        let docker = client.docker().await?;
        let name = self.name(tenant);
        let options = RemoveContainerOptions { force: true, v: false, link: false };
        match client.attempt(CHANGE, docker.remove_container(&name, Some(options))).await? {
            Ok(()) => Ok(()),
            Err(e) if is_not_found(&e) => Ok(()),
            // Another removal is on its way: wait for its end.
            Err(e) if super::error::status(&e) == Some(409) => self.until_removed(&name).await,
            Err(e) => Err(map("remove the runner", client.host(), About::default(), e)),
        }
    }

    async fn until_removed(&self, name: &str) -> Result<()> {
        let client = &self.0.client;
        let docker = client.docker().await?;
        let options = WaitContainerOptions { condition: "removed".to_owned() };
        let mut stream = Box::pin(docker.wait_container(name, Some(options)));
        // Any answer means that it is gone; a refusal because it is unknown means the same.
        client.attempt(CHANGE, async { Ok(stream.next().await.map(drop)) }).await?.ok();
        let look = docker.inspect_container(name, None::<bollard::query_parameters::InspectContainerOptions>);
        match client.find("inspect a container", LOOK, look).await? {
            None => Ok(()),
            Some(_) => Err(Error::conflict(format!("the container {name} is being removed but is still there"))),
        }
    }
}

fn identity_archive(identity: &RunnerIdentity) -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind: tar::EntryType, mode: u32, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(u64::from(RUNNER_UID));
        header.set_gid(u64::from(RUNNER_GID));
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content)
    };
    add("identity/", tar::EntryType::Directory, 0o700, b"")?;
    add("identity/cert.pem", tar::EntryType::Regular, 0o600, identity.certificate_pem.as_bytes())?;
    add("identity/key.pem", tar::EntryType::Regular, 0o600, identity.key_pem.expose_secret().as_bytes())?;
    add("identity/ca.pem", tar::EntryType::Regular, 0o600, identity.ca_pem.as_bytes())?;
    tar.into_inner()
}

fn labels(inspect: &ContainerInspectResponse) -> Option<&std::collections::HashMap<String, String>> {
    inspect.config.as_ref()?.labels.as_ref()
}

fn hash_of(inspect: &ContainerInspectResponse) -> Option<&str> {
    labels(inspect)?.get(label::SPEC_HASH).map(String::as_str)
}

fn host_port(inspect: &ContainerInspectResponse) -> Option<u16> {
    let bindings = inspect.host_config.as_ref()?.port_bindings.as_ref()?;
    bindings.get(settings::RUNNER_PORT)?.as_ref()?.first()?.host_port.as_ref()?.parse().ok()
}

fn is_running(inspect: &ContainerInspectResponse) -> bool {
    inspect.state.as_ref().and_then(|s| s.running) == Some(true)
}

pub(super) fn seen(inspect: &ContainerInspectResponse) -> Observed<RunnerSeen> {
    let Some(state) = &inspect.state else { return Observed::Unknown };
    let state = match state.status {
        Some(ContainerStateStatusEnum::CREATED) => RunState::Created,
        Some(
            ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::PAUSED | ContainerStateStatusEnum::RESTARTING,
        ) => RunState::Running,
        Some(ContainerStateStatusEnum::EXITED | ContainerStateStatusEnum::DEAD) if state.oom_killed == Some(true) => {
            RunState::OutOfMemory
        }
        Some(ContainerStateStatusEnum::EXITED | ContainerStateStatusEnum::DEAD) => {
            RunState::Exited { code: state.exit_code.unwrap_or(-1) }
        }
        // On its way out, or a state that this engine invented.
        Some(ContainerStateStatusEnum::REMOVING | ContainerStateStatusEnum::EMPTY) | None => return Observed::Unknown,
        #[allow(unreachable_patterns, reason = "engines add states; one that is not known is not absence")]
        Some(_) => return Observed::Unknown,
    };
    let labels = labels(inspect);
    let generation = labels.and_then(|l| l.get(label::GENERATION)).and_then(|g| g.parse().ok()).unwrap_or(0);
    Observed::Present(RunnerSeen { generation, spec_hash: hash_of(inspect).unwrap_or_default().to_owned(), state })
}

/// `None` when the container does not run. Page cache that can be dropped at once does not count as used; its name differs
/// between the two generations of cgroups.
pub(super) fn measured(stats: &ContainerStatsResponse) -> Option<RunnerMetrics> {
    let memory = stats.memory_stats.as_ref()?;
    let usage = memory.usage?;
    let detail = memory.stats.as_ref();
    let cache =
        detail.and_then(|d| d.get("total_inactive_file").or_else(|| d.get("inactive_file"))).copied().unwrap_or(0);
    let nanoseconds = stats.cpu_stats.as_ref()?.cpu_usage.as_ref()?.total_usage.unwrap_or(0);
    Some(RunnerMetrics {
        memory_bytes: usage.saturating_sub(cache),
        cpu_seconds: Duration::from_nanos(nanoseconds).as_secs_f64(),
        pids: stats.pids_stats.as_ref().and_then(|p| p.current).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_either_generation_of_cgroups() {
        let stats = |key: &str| -> ContainerStatsResponse {
            serde_json::from_value(serde_json::json!({
                "memory_stats": { "usage": 1000, "stats": { key: 400 } },
                "cpu_stats": { "cpu_usage": { "total_usage": 2_500_000_000_u64 } },
                "pids_stats": { "current": 3 },
            }))
            .unwrap()
        };
        for key in ["total_inactive_file", "inactive_file"] {
            let seen = measured(&stats(key)).unwrap();
            assert_eq!((seen.memory_bytes, seen.cpu_seconds, seen.pids), (600, 2.5, 3), "{key}");
        }
        assert_eq!(measured(&serde_json::from_value(serde_json::json!({"memory_stats": {}})).unwrap()), None);
    }
}
