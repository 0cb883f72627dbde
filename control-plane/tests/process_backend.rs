//! Runners as real processes: started with what the contract says, stopped, noticed when they die, taken over after the
//! control plane's own restart, and gone without a trace when removed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use futures::StreamExt as _;
use nexaas::domain::TenantId;
use nexaas::domain::tenant::Limits;
use nexaas::error::Kind;
use nexaas::orchestrator::process::{ProcessBackend, ProcessOptions};
use nexaas::orchestrator::{ObjectKind, Observed, RunState, RunnerBackend, RunnerIdentity, RunnerSpec};
use nexaas_common::task::Supervisor;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

/// Says what it was given and waits; a stand-in for the runner.
const HELPER: &str = "#!/bin/sh\n\
    echo \"arguments: $*\"\n\
    echo \"environment: $(env | cut -d= -f1 | sort | tr '\\n' ' ')\"\n\
    echo \"user: $(id -u)\"\n\
    cat \"$7/key.pem\"\n\
    trap 'exit 0' TERM\n\
    echo ready > ready\n\
    sleep 600 &\n\
    wait\n";
const LIMIT: Duration = Duration::from_secs(20);

fn spec(port: u16) -> RunnerSpec {
    RunnerSpec {
        tenant_id: TenantId::generate(),
        slug: "acme".parse().unwrap(),
        generation: 3,
        limits: Limits::default(),
        port,
        subnet: None,
    }
}

fn identity() -> RunnerIdentity {
    RunnerIdentity { certificate_pem: "cert".into(), key_pem: "the key\n".to_owned().into(), ca_pem: "ca".into() }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

async fn open(dir: &Path, helper: &str) -> (ProcessBackend, Supervisor) {
    let binary = dir.join("helper");
    if !binary.exists() {
        std::fs::write(&binary, helper).unwrap();
    }
    let supervisor = Supervisor::new();
    let options = ProcessOptions {
        data_dir: dir.join("nexaas"),
        runner_binary: binary,
        framework_dir: None,
        templates_dir: None,
    };
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o711)).unwrap();
    let backend = ProcessBackend::open(options, supervisor.clone()).await.unwrap();
    (backend, supervisor)
}

async fn make(backend: &ProcessBackend, spec: &RunnerSpec) {
    backend.ensure_network(spec).await.unwrap();
    backend.ensure_volume(spec).await.unwrap();
    backend.ensure_runner(spec, &identity()).await.unwrap();
}

async fn until(backend: &ProcessBackend, tenant: TenantId, wanted: impl Fn(&RunState) -> bool) -> RunState {
    let mut changes = backend.watch();
    tokio::time::timeout(LIMIT, async {
        loop {
            if let Some(seen) = backend.observe(tenant).await.runner.present()
                && wanted(&seen.state)
            {
                return seen.state;
            }
            changes.next().await.unwrap();
        }
    })
    .await
    .unwrap()
}

fn ready_path(dir: &Path, tenant: TenantId) -> std::path::PathBuf {
    dir.join(format!("nexaas/process/{tenant}/data/ready"))
}

/// Lays a pipe where the helper writes that it is ready. To be called before the start that `ready` waits for.
fn expect_ready(dir: &Path, tenant: TenantId) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let path = ready_path(dir, tenant);
    mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
}

/// Ends when the helper has written.
async fn ready(dir: &Path, tenant: TenantId) {
    let path = ready_path(dir, tenant);
    let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(path));
    assert_eq!(tokio::time::timeout(LIMIT, read).await.unwrap().unwrap().unwrap(), "ready\n");
}

fn pid_of(dir: &Path, tenant: TenantId) -> i32 {
    let record = std::fs::read(dir.join(format!("nexaas/process/{tenant}/runner.json"))).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    i32::try_from(record["state"]["process"]["pid"].as_i64().unwrap()).unwrap()
}

async fn remove(backend: &ProcessBackend, tenant: TenantId) {
    for kind in [ObjectKind::Runner, ObjectKind::Volume, ObjectKind::Network] {
        backend.remove(tenant, kind).await.unwrap();
    }
    assert_eq!(backend.list().await.unwrap(), []);
}

#[tokio::test]
async fn a_runner_gets_its_arguments_a_bare_environment_and_its_identity() {
    let dir = tempfile::tempdir().unwrap();
    let (backend, _supervisor) = open(dir.path(), HELPER).await;
    let spec = spec(free_port());
    make(&backend, &spec).await;
    // Each verb twice: the second finds the work done.
    make(&backend, &spec).await;
    assert_eq!(backend.observe(spec.tenant_id).await.runner.present().unwrap().state, RunState::Created);
    expect_ready(dir.path(), spec.tenant_id);
    backend.start(spec.tenant_id).await.unwrap();
    ready(dir.path(), spec.tenant_id).await;
    let pid = pid_of(dir.path(), spec.tenant_id);
    backend.start(spec.tenant_id).await.unwrap();
    assert_eq!(pid, pid_of(dir.path(), spec.tenant_id), "a second start starts nothing");

    let log = backend.logs(spec.tenant_id, 10).await.unwrap();
    let root = dir.path().canonicalize().unwrap().join(format!("nexaas/process/{}", spec.tenant_id));
    for part in [
        format!("arguments: serve --tenant {} --generation 3", spec.tenant_id),
        format!("--identity-dir {} --data-dir {}", root.join("identity").display(), root.join("data").display()),
        format!("--listen 127.0.0.1:{}", spec.port),
        "the key".to_owned(),
    ] {
        assert!(log.contains(&part), "{part} is missing in: {log}");
    }
    let environment = log.lines().find(|l| l.starts_with("environment:")).unwrap();
    assert!(!environment.contains("CARGO") && !environment.contains("NEXTEST"), "{environment}");
    assert_eq!(backend.logs(spec.tenant_id, 1).await.unwrap().lines().count(), 1);
    let seen = backend.observe(spec.tenant_id).await;
    let runner = seen.runner.present().unwrap();
    assert_eq!((runner.generation, runner.state), (3, RunState::Running));
    assert_eq!(runner.spec_hash, backend.spec_hash(&spec));
    assert!(backend.metrics(spec.tenant_id).await.unwrap().memory_bytes > 0);

    let key = std::fs::metadata(root.join("identity/key.pem")).unwrap();
    let data = std::fs::metadata(root.join("data")).unwrap();
    assert_eq!(data.mode() & 0o777, 0o700);
    assert_eq!(key.mode() & 0o007, 0, "others cannot read the key");
    if rustix::process::geteuid().is_root() {
        assert!(log.contains(&format!("user: {}", data.uid())), "{log}");
        assert!(data.uid() >= 10001);
        assert_eq!((key.uid(), key.gid()), (0, data.gid()), "the runner can read its key and not change it");
    }

    backend.stop(spec.tenant_id).await.unwrap();
    backend.stop(spec.tenant_id).await.unwrap();
    assert!(!Path::new(&format!("/proc/{pid}/exe")).exists());
    assert!(matches!(backend.observe(spec.tenant_id).await.runner.present().unwrap().state, RunState::Exited { .. }));
    remove(&backend, spec.tenant_id).await;
    remove(&backend, spec.tenant_id).await;
    assert!(!root.exists());
}

#[tokio::test]
async fn a_runner_that_dies_is_noticed_with_its_code_and_starts_again_with_its_data() {
    let dir = tempfile::tempdir().unwrap();
    let (backend, _supervisor) = open(dir.path(), HELPER).await;
    let spec = spec(free_port());
    make(&backend, &spec).await;
    expect_ready(dir.path(), spec.tenant_id);
    backend.start(spec.tenant_id).await.unwrap();
    ready(dir.path(), spec.tenant_id).await;
    let pid = rustix::process::Pid::from_raw(pid_of(dir.path(), spec.tenant_id)).unwrap();
    rustix::process::kill_process_group(pid, rustix::process::Signal::KILL).unwrap();
    let state = until(&backend, spec.tenant_id, |s| matches!(s, RunState::Exited { code } if *code != -1)).await;
    assert_eq!(state, RunState::Exited { code: 137 });
    backend.start(spec.tenant_id).await.unwrap();
    assert_eq!(backend.observe(spec.tenant_id).await.runner.present().unwrap().state, RunState::Running);
    ready(dir.path(), spec.tenant_id).await;
    remove(&backend, spec.tenant_id).await;
}

#[tokio::test]
async fn a_restarted_control_plane_takes_its_runners_over() {
    let dir = tempfile::tempdir().unwrap();
    let (first, supervisor) = open(dir.path(), HELPER).await;
    let spec = spec(free_port());
    make(&first, &spec).await;
    expect_ready(dir.path(), spec.tenant_id);
    first.start(spec.tenant_id).await.unwrap();
    ready(dir.path(), spec.tenant_id).await;
    let pid = pid_of(dir.path(), spec.tenant_id);
    supervisor.shutdown(LIMIT).await.unwrap();
    drop(first);

    let (second, _supervisor) = open(dir.path(), HELPER).await;
    assert_eq!(second.observe(spec.tenant_id).await.runner.present().unwrap().state, RunState::Running);
    assert_eq!(pid_of(dir.path(), spec.tenant_id), pid);
    // It is followed again: its end is noticed, though not by its parent.
    let group = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
    until(&second, spec.tenant_id, |s| matches!(s, RunState::Exited { .. })).await;
    remove(&second, spec.tenant_id).await;
}

#[tokio::test]
async fn a_runner_that_was_started_but_not_recorded_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let (first, supervisor) = open(dir.path(), HELPER).await;
    let spec = spec(free_port());
    make(&first, &spec).await;
    let record = dir.path().join(format!("nexaas/process/{}/runner.json", spec.tenant_id));
    let before = std::fs::read(&record).unwrap();
    expect_ready(dir.path(), spec.tenant_id);
    first.start(spec.tenant_id).await.unwrap();
    ready(dir.path(), spec.tenant_id).await;
    let pid = pid_of(dir.path(), spec.tenant_id);
    supervisor.shutdown(LIMIT).await.unwrap();
    std::fs::write(&record, before).unwrap();

    let (second, _supervisor) = open(dir.path(), HELPER).await;
    assert_eq!(second.observe(spec.tenant_id).await.runner.present().unwrap().state, RunState::Running);
    assert_eq!(pid_of(dir.path(), spec.tenant_id), pid);
    remove(&second, spec.tenant_id).await;
}

#[tokio::test]
async fn a_taken_port_is_a_conflict_that_begins_with_port() {
    let dir = tempfile::tempdir().unwrap();
    let (backend, _supervisor) = open(dir.path(), HELPER).await;
    let holder = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let spec = spec(holder.local_addr().unwrap().port());
    make(&backend, &spec).await;
    let error = backend.start(spec.tenant_id).await.unwrap_err();
    assert_eq!(error.kind, Kind::Conflict);
    assert!(error.public().starts_with(&format!("port {}", spec.port)), "{error}");
    // Leased anew, it starts: the record follows the specification.
    let moved = RunnerSpec { port: free_port(), ..spec };
    backend.ensure_runner(&moved, &identity()).await.unwrap();
    backend.start(moved.tenant_id).await.unwrap();
    remove(&backend, moved.tenant_id).await;
}

#[tokio::test]
async fn two_tenants_run_as_different_users_and_cannot_read_each_other() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can give each runner a user id of its own");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (backend, _supervisor) = open(dir.path(), HELPER).await;
    let (a, b) = (spec(free_port()), spec(free_port()));
    let (made_a, made_b) = tokio::join!(backend.ensure_network(&a), backend.ensure_network(&b));
    made_a.unwrap();
    made_b.unwrap();
    let (made_a, made_b) = tokio::join!(backend.ensure_volume(&a), backend.ensure_volume(&b));
    made_a.unwrap();
    made_b.unwrap();
    let uid = |t: TenantId| std::fs::metadata(dir.path().join(format!("nexaas/process/{t}/data"))).unwrap().uid();
    assert_ne!(uid(a.tenant_id), uid(b.tenant_id));
    for s in [a, b] {
        backend.remove(s.tenant_id, ObjectKind::Volume).await.unwrap();
        backend.remove(s.tenant_id, ObjectKind::Network).await.unwrap();
    }
    assert_eq!(backend.list().await.unwrap(), []);
}

#[tokio::test]
async fn what_was_never_made_is_absent_and_a_volume_in_use_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (backend, _supervisor) = open(dir.path(), HELPER).await;
    let spec = spec(free_port());
    let seen = backend.observe(spec.tenant_id).await;
    assert_eq!((seen.network, seen.volume, seen.runner), (Observed::Absent, Observed::Absent, Observed::Absent));
    assert_eq!(backend.start(spec.tenant_id).await.unwrap_err().kind, Kind::NotFound);
    assert_eq!(backend.ensure_runner(&spec, &identity()).await.unwrap_err().kind, Kind::NotFound);
    make(&backend, &spec).await;
    assert_eq!(backend.remove(spec.tenant_id, ObjectKind::Volume).await.unwrap_err().kind, Kind::Conflict);
    remove(&backend, spec.tenant_id).await;
}

#[tokio::test]
async fn a_missing_runner_binary_is_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let options = ProcessOptions {
        data_dir: dir.path().join("nexaas"),
        runner_binary: dir.path().join("nowhere"),
        framework_dir: None,
        templates_dir: None,
    };
    let error = ProcessBackend::open(options, Supervisor::new()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Invalid { field: "runner_binary".into() });
}

#[tokio::test]
async fn one_damaged_record_is_unknown_and_does_not_keep_the_rest_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    let (first, supervisor) = open(dir.path(), HELPER).await;
    let spec = spec(free_port());
    make(&first, &spec).await;
    supervisor.shutdown(LIMIT).await.unwrap();
    let record = dir.path().join(format!("nexaas/process/{}/runner.json", spec.tenant_id));
    std::fs::write(&record, "{").unwrap();
    let (second, _supervisor) = open(dir.path(), HELPER).await;
    assert_eq!(second.observe(spec.tenant_id).await.runner, Observed::Unknown);
    // It still counts as something that is there.
    assert!(second.list().await.unwrap().iter().any(|f| f.kind == ObjectKind::Runner));
    std::fs::remove_file(&record).unwrap();
    remove(&second, spec.tenant_id).await;
}
