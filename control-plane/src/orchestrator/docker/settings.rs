//! The one place where a tenant's network, volume and container get their settings. Pure functions of the specification
//! and the installation: nothing a person typed becomes part of what the engine is told.

use crate::domain::InstallId;
use crate::orchestrator::{RUNNER_GID, RUNNER_UID, RunnerSpec, label, object_name};
use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig, Ipam, IpamConfig, Mount,
    MountType, NetworkCreateRequest, PortBinding, ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
    VolumeCreateRequest,
};
use std::collections::HashMap;

/// Where the runner listens inside its container.
pub(super) const RUNNER_PORT: &str = "8400/tcp";
pub(super) const DATA_PATH: &str = "/data";
pub(super) const TMPFS_PATH: &str = "/tmp";
pub(super) const TMPFS_OPTIONS: &str = "rw,noexec,nosuid,nodev,size=67108864,mode=1777";
pub(super) const LOG_MAX_SIZE: &str = "10m";
pub(super) const LOG_MAX_FILES: &str = "3";
pub(super) const OPEN_FILES: i64 = 8192;
pub(super) const LOOPBACK: &str = "127.0.0.1";
/// The bridge option that keeps containers of one network from talking to each other.
pub(super) const ICC_OPTION: &str = "com.docker.network.bridge.enable_icc";
/// Part of every spec hash: bumped when these settings change, so that runners are remade with them.
pub(super) const REVISION: &str = "1";

/// What the installation adds to a specification.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placement<'a> {
    pub install: InstallId,
    /// `sha256:…` of the local image, never a tag.
    pub image_id: &'a str,
    /// Another OCI runtime, such as gVisor's `runsc`.
    pub runtime: Option<&'a str>,
    pub spec_hash: &'a str,
}

pub(super) fn user() -> String {
    format!("{RUNNER_UID}:{RUNNER_GID}")
}

fn labels(install: InstallId, spec: &RunnerSpec) -> HashMap<String, String> {
    HashMap::from([
        (label::INSTALL.to_owned(), install.uuid().to_string()),
        (label::TENANT.to_owned(), spec.tenant_id.uuid().to_string()),
        (label::GENERATION.to_owned(), spec.generation.to_string()),
    ])
}

/// Everything the kernel and the engine are asked to enforce for a runner.
pub(super) fn host_config(spec: &RunnerSpec, placement: &Placement<'_>) -> HostConfig {
    let name = object_name(placement.install, spec.tenant_id);
    let memory = i64::try_from(spec.limits.memory_bytes).unwrap_or(i64::MAX);
    let ulimit =
        |name: &str, value: i64| ResourcesUlimits { name: Some(name.to_owned()), soft: Some(value), hard: Some(value) };
    HostConfig {
        // Privileges.
        privileged: Some(false),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        readonly_rootfs: Some(true),
        runtime: placement.runtime.map(str::to_owned),
        // Namespaces.
        ipc_mode: Some("private".to_owned()),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        init: Some(true),
        // Resources. Swap equals memory: the runner gets no swap on top.
        memory: Some(memory),
        memory_swap: Some(memory),
        nano_cpus: Some(i64::from(spec.limits.cpu_millis) * 1_000_000),
        pids_limit: Some(i64::from(spec.limits.pids)),
        oom_kill_disable: Some(false),
        ulimits: Some(vec![ulimit("nofile", OPEN_FILES), ulimit("core", 0)]),
        // Files: one volume, one small tmpfs, nothing of the host.
        mounts: Some(vec![Mount {
            typ: Some(MountType::VOLUME),
            source: Some(name.clone()),
            target: Some(DATA_PATH.to_owned()),
            read_only: Some(false),
            ..Mount::default()
        }]),
        tmpfs: Some(HashMap::from([(TMPFS_PATH.to_owned(), TMPFS_OPTIONS.to_owned())])),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([
                ("max-size".to_owned(), LOG_MAX_SIZE.to_owned()),
                ("max-file".to_owned(), LOG_MAX_FILES.to_owned()),
            ])),
        }),
        // Network: the tenant's own, reachable from this host only.
        network_mode: Some(name),
        port_bindings: Some(HashMap::from([(
            RUNNER_PORT.to_owned(),
            Some(vec![PortBinding { host_ip: Some(LOOPBACK.to_owned()), host_port: Some(spec.port.to_string()) }]),
        )])),
        publish_all_ports: Some(false),
        // The reconciler decides about restarts.
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        auto_remove: Some(false),
        ..HostConfig::default()
    }
}

pub(super) fn container(spec: &RunnerSpec, placement: &Placement<'_>) -> ContainerCreateBody {
    let mut labels = labels(placement.install, spec);
    labels.insert(label::SPEC_HASH.to_owned(), placement.spec_hash.to_owned());
    let arguments = [
        "--tenant",
        &spec.tenant_id.uuid().to_string(),
        "--generation",
        &spec.generation.to_string(),
        "--identity-dir",
        "/data/identity",
        "--data-dir",
        DATA_PATH,
        "--listen",
        "0.0.0.0:8400",
    ];
    ContainerCreateBody {
        image: Some(placement.image_id.to_owned()),
        user: Some(user()),
        hostname: Some("runner".to_owned()),
        working_dir: Some(DATA_PATH.to_owned()),
        cmd: Some(arguments.iter().map(|a| (*a).to_owned()).collect()),
        exposed_ports: Some(vec![RUNNER_PORT.to_owned()]),
        stop_signal: Some("SIGTERM".to_owned()),
        tty: Some(false),
        open_stdin: Some(false),
        labels: Some(labels),
        host_config: Some(host_config(spec, placement)),
        ..ContainerCreateBody::default()
    }
}

pub(super) fn network(install: InstallId, spec: &RunnerSpec) -> NetworkCreateRequest {
    NetworkCreateRequest {
        name: object_name(install, spec.tenant_id),
        driver: Some("bridge".to_owned()),
        internal: Some(false),
        attachable: Some(false),
        enable_ipv6: Some(false),
        ipam: spec.subnet.map(|subnet| Ipam {
            driver: Some("default".to_owned()),
            config: Some(vec![IpamConfig { subnet: Some(subnet.to_string()), ..IpamConfig::default() }]),
            options: None,
        }),
        options: Some(HashMap::from([(ICC_OPTION.to_owned(), "false".to_owned())])),
        labels: Some(labels(install, spec)),
        ..NetworkCreateRequest::default()
    }
}

pub(super) fn volume(install: InstallId, spec: &RunnerSpec) -> VolumeCreateRequest {
    VolumeCreateRequest {
        name: Some(object_name(install, spec.tenant_id)),
        driver: Some("local".to_owned()),
        labels: Some(labels(install, spec)),
        ..VolumeCreateRequest::default()
    }
}
