//! Compares what the engine really made with what every runner must have. It judges the inspected object, not the request,
//! so that a defect here, an engine that ignores a setting, or a hand that changed a container is found alike.

use super::settings::{DATA_PATH, ICC_OPTION, LOOPBACK, OPEN_FILES, RUNNER_PORT, TMPFS_PATH, user};
use bollard::models::{
    ContainerInspectResponse, HostConfig, HostConfigCgroupnsModeEnum, MountType, NetworkInspect, RestartPolicyNameEnum,
};
use std::fmt::Debug;

/// One setting that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub setting: &'static str,
    pub expected: String,
    pub found: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: expected {}, found {}", self.setting, self.expected, self.found)
    }
}

/// What the installation expects of one tenant's container beyond the settings common to all.
#[derive(Debug, Clone)]
pub struct Expected {
    /// The tenant's object name: its network and its volume.
    pub name: String,
    pub runtime: Option<String>,
    /// `None`: any image, as long as it is named by digest.
    pub image_id: Option<String>,
}

/// Environment names that an image may bring; anything else could carry a secret.
const ENVIRONMENT: &[&str] = &["PATH", "HOME", "HOSTNAME", "TERM", "LANG", "TZ", "TZDIR", "SSL_CERT_FILE", "container"];

#[derive(Default)]
struct Report(Vec<Violation>);

impl Report {
    fn require(&mut self, setting: &'static str, holds: bool, expected: impl Into<String>, found: &dyn Debug) {
        if !holds {
            let mut found = format!("{found:?}");
            if found.len() > 200 {
                let cut = (0..=200).rev().find(|n| found.is_char_boundary(*n)).unwrap_or(0);
                found.truncate(cut);
                found.push('…');
            }
            self.0.push(Violation { setting, expected: expected.into(), found });
        }
    }

    fn none<T: Debug>(&mut self, setting: &'static str, list: Option<&Vec<T>>) {
        self.require(setting, list.is_none_or(Vec::is_empty), "none", &list);
    }

    fn blank(&mut self, setting: &'static str, value: Option<&String>) {
        self.require(setting, value.is_none_or(String::is_empty), "the engine's default", &value);
    }
}

/// Every setting of the container that differs from what it must be; empty when all is well.
pub fn container(inspect: &ContainerInspectResponse, expected: &Expected) -> Vec<Violation> {
    let mut report = Report::default();
    let Some(host) = &inspect.host_config else {
        report.require("HostConfig", false, "present", &"nothing");
        return report.0;
    };
    privileges(&mut report, inspect, host);
    namespaces(&mut report, host, expected);
    resources(&mut report, host);
    files(&mut report, inspect, host, expected);
    network_of(&mut report, inspect, host, expected);
    process(&mut report, inspect, host, expected);
    report.0
}

fn privileges(report: &mut Report, inspect: &ContainerInspectResponse, host: &HostConfig) {
    let config_user = inspect.config.as_ref().and_then(|c| c.user.as_deref());
    report.require("User", config_user == Some(user().as_str()), user(), &config_user);
    report.require("Privileged", host.privileged != Some(true), "false", &host.privileged);
    let dropped = host.cap_drop.as_deref().unwrap_or_default();
    // Podman answers with the list of what "ALL" meant.
    let all_dropped = dropped.iter().any(|c| c.eq_ignore_ascii_case("ALL")) || dropped.len() >= 11;
    report.require("CapDrop", all_dropped, "ALL", &host.cap_drop);
    report.none("CapAdd", host.cap_add.as_ref());
    report.require("ReadonlyRootfs", host.readonly_rootfs == Some(true), "true", &host.readonly_rootfs);
    let options = host.security_opt.as_deref().unwrap_or_default();
    let no_new = options
        .iter()
        .any(|o| matches!(o.as_str(), "no-new-privileges" | "no-new-privileges:true" | "no-new-privileges=true"));
    report.require("SecurityOpt no-new-privileges", no_new, "present", &options);
    let others: Vec<&String> = options.iter().filter(|o| !o.starts_with("no-new-privileges")).collect();
    report.require("SecurityOpt", others.is_empty(), "default seccomp, AppArmor and labels", &others);
    report.require(
        "AppArmorProfile",
        inspect.app_armor_profile.as_deref() != Some("unconfined"),
        "the engine's default",
        &inspect.app_armor_profile,
    );
    let masked = host.masked_paths.as_deref().unwrap_or_default();
    report.require("MaskedPaths", masked.iter().any(|p| p == "/proc/kcore"), "the engine's default list", &masked);
    let readonly = host.readonly_paths.as_deref().unwrap_or_default();
    report.require("ReadonlyPaths", readonly.iter().any(|p| p == "/proc/sys"), "the engine's default list", &readonly);
    report.none("GroupAdd", host.group_add.as_ref());
    report.none("Devices", host.devices.as_ref());
    report.none("DeviceRequests", host.device_requests.as_ref());
    report.none("DeviceCgroupRules", host.device_cgroup_rules.as_ref());
    report.require("Sysctls", host.sysctls.as_ref().is_none_or(|s| s.is_empty()), "none", &host.sysctls);
}

fn namespaces(report: &mut Report, host: &HostConfig, expected: &Expected) {
    report.require("IpcMode", host.ipc_mode.as_deref() == Some("private"), "private", &host.ipc_mode);
    report.require(
        "CgroupnsMode",
        host.cgroupns_mode == Some(HostConfigCgroupnsModeEnum::PRIVATE),
        "private",
        &host.cgroupns_mode,
    );
    for (setting, mode) in [("PidMode", &host.pid_mode), ("UTSMode", &host.uts_mode)] {
        let own = matches!(mode.as_deref(), None | Some("" | "private"));
        report.require(setting, own, "private", mode);
    }
    report.require(
        "UsernsMode",
        host.userns_mode.as_deref() != Some("host"),
        "the engine's default",
        &host.userns_mode,
    );
    report.blank("CgroupParent", host.cgroup_parent.as_ref());
    let runtime = host.runtime.as_deref();
    let right = match &expected.runtime {
        Some(wanted) => runtime == Some(wanted.as_str()),
        // Docker names its default; Podman may say "oci".
        None => matches!(runtime, None | Some("" | "runc" | "crun" | "oci" | "io.containerd.runc.v2")),
    };
    report.require("Runtime", right, expected.runtime.clone().unwrap_or_else(|| "the default".to_owned()), &runtime);
}

fn resources(report: &mut Report, host: &HostConfig) {
    let memory = host.memory.unwrap_or(0);
    report.require("Memory", memory > 0, "a limit", &host.memory);
    report.require("MemorySwap", memory > 0 && host.memory_swap == Some(memory), "equal to Memory", &host.memory_swap);
    report.require("OomKillDisable", host.oom_kill_disable != Some(true), "false", &host.oom_kill_disable);
    report.require("OomScoreAdj", host.oom_score_adj.unwrap_or(0) >= 0, "0 or more", &host.oom_score_adj);
    report.require("NanoCpus", host.nano_cpus.unwrap_or(0) > 0, "a limit", &host.nano_cpus);
    report.require("PidsLimit", host.pids_limit.unwrap_or(0) > 0, "a limit", &host.pids_limit);
    for (name, limit) in [("nofile", OPEN_FILES), ("core", 0)] {
        let found =
            host.ulimits.as_deref().unwrap_or_default().iter().find(|u| {
                u.name.as_deref().is_some_and(|n| n.trim_start_matches("RLIMIT_").eq_ignore_ascii_case(name))
            });
        let holds = found.is_some_and(|u| u.soft == Some(limit) && u.hard == Some(limit));
        let setting = if name == "core" { "Ulimit core" } else { "Ulimit nofile" };
        report.require(setting, holds, limit.to_string(), &found);
    }
}

fn files(report: &mut Report, inspect: &ContainerInspectResponse, host: &HostConfig, expected: &Expected) {
    report.none("Binds", host.binds.as_ref());
    report.none("VolumesFrom", host.volumes_from.as_ref());
    let declared = host.mounts.as_deref().unwrap_or_default();
    let only_volumes = declared.iter().all(|m| m.typ == Some(MountType::VOLUME));
    report.require("HostConfig.Mounts", only_volumes, "one named volume", &declared);
    let mounts = inspect.mounts.as_deref().unwrap_or_default();
    let is_data = |m: &bollard::models::MountPoint| {
        m.typ.as_deref() == Some("volume")
            && m.destination.as_deref() == Some(DATA_PATH)
            && m.name.as_deref() == Some(expected.name.as_str())
    };
    // Some engines list the tmpfs here as well; it is judged below.
    let beyond_tmpfs: Vec<_> = mounts.iter().filter(|m| m.typ.as_deref() != Some("tmpfs")).collect();
    let holds = beyond_tmpfs.len() == 1 && beyond_tmpfs.iter().all(|m| is_data(m));
    report.require("Mounts", holds, format!("only the volume {} at {DATA_PATH}", expected.name), &beyond_tmpfs);
    let tmpfs = host.tmpfs.clone().unwrap_or_default();
    let only_tmp = tmpfs.len() == 1 && tmpfs.contains_key(TMPFS_PATH);
    let options: Vec<&str> = tmpfs.get(TMPFS_PATH).map(|o| o.split(',').collect()).unwrap_or_default();
    let strict = ["noexec", "nosuid", "nodev"].iter().all(|o| options.contains(o))
        && options.iter().any(|o| o.starts_with("size="))
        && !options.iter().any(|o| matches!(*o, "exec" | "suid" | "dev"));
    report.require("Tmpfs", only_tmp && strict, "/tmp with noexec,nosuid,nodev,size", &tmpfs);
    let log = host.log_config.as_ref();
    let limited = |key: &str| log.and_then(|l| l.config.as_ref()).is_some_and(|c| c.contains_key(key));
    let kind = log.and_then(|l| l.typ.as_deref());
    let known = matches!(kind, Some("json-file" | "k8s-file"));
    report.require(
        "LogConfig",
        known && limited("max-size") && limited("max-file"),
        "json-file with max-size, max-file",
        &log,
    );
}

fn network_of(report: &mut Report, inspect: &ContainerInspectResponse, host: &HostConfig, expected: &Expected) {
    let mode = host.network_mode.as_deref();
    let own = mode == Some(expected.name.as_str()) || mode == Some("bridge");
    report.require("NetworkMode", own, expected.name.clone(), &mode);
    let attached: Vec<String> = inspect
        .network_settings
        .as_ref()
        .and_then(|n| n.networks.as_ref())
        .map(|n| n.keys().cloned().collect())
        .unwrap_or_default();
    report.require("Networks", attached == [expected.name.clone()], format!("only {}", expected.name), &attached);
    report.require("PublishAllPorts", host.publish_all_ports != Some(true), "false", &host.publish_all_ports);
    let bindings = host.port_bindings.clone().unwrap_or_default();
    let loopback = bindings.len() == 1
        && bindings
            .get(RUNNER_PORT)
            .and_then(Option::as_ref)
            .is_some_and(|list| list.len() == 1 && list.iter().all(|b| b.host_ip.as_deref() == Some(LOOPBACK)));
    report.require("PortBindings", loopback, format!("{RUNNER_PORT} on {LOOPBACK} only"), &bindings);
    // What the engine really bound, once it runs.
    let bound: Vec<_> = inspect
        .network_settings
        .as_ref()
        .and_then(|n| n.ports.as_ref())
        .into_iter()
        .flatten()
        .filter(|(_, list)| list.as_deref().unwrap_or_default().iter().any(|b| b.host_ip.as_deref() != Some(LOOPBACK)))
        .collect();
    report.require("Ports", bound.is_empty(), format!("bound to {LOOPBACK} only"), &bound);
    report.none("Links", host.links.as_ref());
    report.none("ExtraHosts", host.extra_hosts.as_ref());
}

fn process(report: &mut Report, inspect: &ContainerInspectResponse, host: &HostConfig, expected: &Expected) {
    report.require("Init", host.init == Some(true), "true", &host.init);
    let restart = host.restart_policy.as_ref().and_then(|p| p.name);
    let none = matches!(restart, None | Some(RestartPolicyNameEnum::NO | RestartPolicyNameEnum::EMPTY));
    report.require("RestartPolicy", none, "no", &restart);
    let config = inspect.config.as_ref();
    let named = config.and_then(|c| c.image.as_deref()).unwrap_or_default();
    report.require("Config.Image", named.starts_with("sha256:"), "a digest", &named);
    if let Some(wanted) = &expected.image_id {
        let bare = |id: &str| id.trim_start_matches("sha256:").to_owned();
        let found = inspect.image.as_deref().unwrap_or_default();
        report.require("Image", bare(found) == bare(wanted), wanted.clone(), &found);
    }
    let unknown: Vec<&str> = config
        .and_then(|c| c.env.as_deref())
        .unwrap_or_default()
        .iter()
        .map(|e| e.split('=').next().unwrap_or_default())
        .filter(|name| !ENVIRONMENT.contains(name))
        .collect();
    report.require("Env", unknown.is_empty(), "only what the image sets", &unknown);
}

/// The same for the tenant's network.
pub fn network(inspect: &NetworkInspect) -> Vec<Violation> {
    let mut report = Report::default();
    report.require("Network.Driver", inspect.driver.as_deref() == Some("bridge"), "bridge", &inspect.driver);
    let icc = inspect.options.as_ref().and_then(|o| o.get(ICC_OPTION));
    report.require("Network enable_icc", icc.map(String::as_str) == Some("false"), "false", &icc);
    report.require("Network.Attachable", inspect.attachable != Some(true), "false", &inspect.attachable);
    report.require("Network.EnableIPv6", inspect.enable_ipv6 != Some(true), "false", &inspect.enable_ipv6);
    report.0
}
