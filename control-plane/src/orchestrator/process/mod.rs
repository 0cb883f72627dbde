//! Runners as processes of this host, for machines without a container engine. Each has its own process group, an
//! environment of a few harmless names, and (when the control plane is root) a user id of its own.
//!
//! Always true: a runner outlives the control plane and is recognised again by pid and start time; nothing is signalled that
//! is not that very process; no shell takes part. What it cannot do is limit memory or processor time; containers do that.

mod files;
mod procfs;

use super::{
    Change, Found, ObjectKind, Observed, RunState, RunnerBackend, RunnerIdentity, RunnerMetrics, RunnerSeen,
    RunnerSpec, TenantObjects,
};
use crate::domain::TenantId;
use crate::domain::tenant::BackendKind;
use crate::error::{Error, Kind, Result};
use async_trait::async_trait;
use files::{Record, State, TenantFiles};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use nexaas_common::task::{OnExit, Supervisor};
use procfs::Handle;
use rustix::process::{Pid, Resource, Rlimit, Signal};
use std::collections::{HashMap, HashSet};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast;

/// How long a runner may take to end by itself, and how long its killing may take.
const GRACE: Duration = Duration::from_secs(10);
const KILL: Duration = Duration::from_secs(5);
const OPEN_FILES: u64 = 8192;
/// Names of our own environment that a runner may see; none can hold a secret.
const ENVIRONMENT: &[&str] =
    &["LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "RUST_LOG", "OTEL_EXPORTER_OTLP_ENDPOINT"];
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

#[derive(Debug, Clone)]
pub struct ProcessOptions {
    /// The installation's data folder; everything lies in its subfolder `process`.
    pub data_dir: PathBuf,
    pub runner_binary: PathBuf,
    pub framework_dir: Option<PathBuf>,
    pub templates_dir: Option<PathBuf>,
}

#[derive(Debug)]
struct Inner {
    process_dir: PathBuf,
    /// The staged program that new runners start from.
    program: String,
    privileged: bool,
    supervisor: Supervisor,
    changes: broadcast::Sender<Change>,
    /// One verb at a time per tenant.
    locks: Mutex<HashMap<TenantId, Arc<tokio::sync::Mutex<()>>>>,
}

#[derive(Debug, Clone)]
pub struct ProcessBackend(Arc<Inner>);

impl ProcessBackend {
    /// Copies the program to where runners can reach it and takes over the runners of an earlier control plane.
    pub async fn open(options: ProcessOptions, supervisor: Supervisor) -> Result<Self> {
        let (process_dir, program, privileged) =
            tokio::task::spawn_blocking(move || prepare(&options)).await.map_err(Error::internal)??;
        let (changes, _) = broadcast::channel(256);
        let this =
            Self(Arc::new(Inner { process_dir, program, privileged, supervisor, changes, locks: Mutex::default() }));
        this.adopt().await?;
        Ok(this)
    }

    fn files(&self, tenant: TenantId) -> TenantFiles {
        TenantFiles::new(&self.0.process_dir, tenant)
    }

    fn program_dir(&self, program: &str) -> PathBuf {
        self.0.process_dir.join("program").join(program)
    }

    async fn lock(&self, tenant: TenantId) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.0.locks.lock().unwrap_or_else(PoisonError::into_inner);
            // Locks nobody holds or waits for need not be kept.
            if locks.len() > 1024 {
                locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            }
            locks.entry(tenant).or_default().clone()
        };
        lock.lock_owned().await
    }

    fn changed(&self, tenant_id: TenantId) {
        // Nobody may be watching.
        let _ = self.0.changes.send(Change { tenant_id });
    }

    fn tenants(&self) -> Result<Vec<TenantId>> {
        let directory = &self.0.process_dir;
        let entries = std::fs::read_dir(directory).map_err(|e| files::failed(directory, e))?;
        Ok(entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect())
    }

    async fn adopt(&self) -> Result<()> {
        let mut used = HashSet::from([self.0.program.clone()]);
        for tenant in self.tenants()? {
            let _guard = self.lock(tenant).await;
            let files = self.files(tenant);
            let mut record = match files.record() {
                Ok(Some(record)) => record,
                Ok(None) => continue,
                // One tenant's damaged file must not keep the others from being served.
                Err(error) => {
                    tracing::error!(%tenant, error = error.chain(), "a runner's record cannot be read; it is left alone");
                    continue;
                }
            };
            used.insert(record.program.clone());
            let alive = match &record.state {
                State::Started { process } if process.alive() => Some(process.clone()),
                // The control plane may have died between starting it and writing that down.
                _ => files.owner().ok().and_then(|uid| procfs::find_by_data_dir(&files.data(), uid)),
            };
            let state = match &alive {
                Some(process) => State::Started { process: process.clone() },
                None if matches!(record.state, State::Started { .. }) => State::Exited { code: None },
                None => record.state.clone(),
            };
            if state != record.state {
                record.state = state;
                files.write_record(&record)?;
            }
            if let Some(process) = alive {
                tracing::info!(%tenant, pid = process.pid, "took over a running runner");
                self.follow(tenant, process, None);
            }
        }
        let process_dir = self.0.process_dir.clone();
        tokio::task::spawn_blocking(move || files::remove_unused_programs(&process_dir, &used))
            .await
            .map_err(Error::internal)
    }

    /// Notices the end of a runner. `child` is absent for one that an earlier control plane started.
    fn follow(&self, tenant: TenantId, process: Handle, child: Option<tokio::process::Child>) {
        let this = self.clone();
        self.0.supervisor.spawn("runner process", OnExit::Expected, move |token| async move {
            let ended = async {
                match child {
                    Some(mut child) => child.wait().await.ok().map(exit_code),
                    None => {
                        process.exited().await;
                        None
                    }
                }
            };
            let code = tokio::select! {
                () = token.cancelled() => return,
                code = ended => code,
            };
            let _guard = this.lock(tenant).await;
            let files = this.files(tenant);
            match files.record() {
                Ok(Some(mut record)) if record.state == (State::Started { process }) => {
                    record.state = State::Exited { code };
                    if let Err(error) = files.write_record(&record) {
                        tracing::error!(%tenant, error = error.chain(), "could not record the end of a runner");
                    }
                }
                // Stopped by a verb, or replaced meanwhile.
                Ok(_) => {}
                Err(error) => tracing::error!(%tenant, error = error.chain(), "could not record the end of a runner"),
            }
            this.changed(tenant);
        });
    }

    fn arguments(&self, tenant: TenantId, record: &Record) -> Vec<std::ffi::OsString> {
        let files = self.files(tenant);
        let program = self.program_dir(&record.program);
        let mut all: Vec<std::ffi::OsString> = vec!["serve".into()];
        let mut add = |flag: &str, value: std::ffi::OsString| all.extend([flag.into(), value]);
        add("--tenant", tenant.uuid().to_string().into());
        add("--generation", record.generation.to_string().into());
        add("--identity-dir", files.identity().into());
        add("--data-dir", files.data().into());
        add("--listen", format!("127.0.0.1:{}", record.port).into());
        add("--framework-root", program.join("framework").into());
        add("--templates-root", program.join("templates").into());
        all
    }

    fn spawn(&self, tenant: TenantId, record: &Record) -> Result<(Handle, tokio::process::Child)> {
        let files = self.files(tenant);
        let log = files.open_log()?;
        let errors = log.try_clone().map_err(Error::internal)?;
        let program = self.program_dir(&record.program).join("nexaas-runner");
        let mut command = tokio::process::Command::new(&program);
        command
            .args(self.arguments(tenant, record))
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", files.data())
            .envs(ENVIRONMENT.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))))
            .current_dir(files.data())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .process_group(0)
            .kill_on_drop(false);
        if self.0.privileged {
            let uid = files.owner()?;
            command.uid(uid).gid(uid);
        }
        let child = command.spawn().map_err(|e| {
            Error::new(Kind::Internal, format!("cannot start {}: {e}", program.display())).with_source(e)
        })?;
        let pid = child.id().and_then(|p| i32::try_from(p).ok());
        if let Some(raw) = pid.and_then(Pid::from_raw) {
            let limit = |value| Rlimit { current: Some(value), maximum: Some(value) };
            for (resource, value) in [(Resource::Core, 0), (Resource::Nofile, OPEN_FILES)] {
                if let Err(error) = rustix::process::prlimit(Some(raw), resource, limit(value)) {
                    tracing::warn!(%tenant, ?resource, %error, "a limit of a runner could not be set");
                }
            }
        }
        let handle = pid.and_then(Handle::of).ok_or_else(|| {
            Error::new(Kind::Internal, "the runner ended before it could be recorded; its log may say why")
        })?;
        Ok((handle, child))
    }

    /// Ends a group: politely first when `grace` says so. The lock of the tenant is held by the caller.
    async fn end(&self, process: &Handle, grace: Option<Duration>) -> Result<()> {
        if let Some(grace) = grace
            && process.alive()
        {
            process.signal_group(Signal::TERM);
            let _ = tokio::time::timeout(grace, process.exited()).await;
        }
        // Whatever the runner left in its group goes with it.
        process.signal_group(Signal::KILL);
        if tokio::time::timeout(KILL, process.exited()).await.is_err() {
            return Err(Error::timeout("runner process"));
        }
        Ok(())
    }

    async fn halt(&self, tenant: TenantId, grace: Option<Duration>) -> Result<()> {
        let files = self.files(tenant);
        let Some(mut record) = files.record()? else { return Ok(()) };
        let State::Started { process } = &record.state else { return Ok(()) };
        self.end(process, grace).await?;
        record.state = State::Exited { code: Some(0) };
        files.write_record(&record)?;
        self.changed(tenant);
        Ok(())
    }

    fn seen(record: &Record) -> RunnerSeen {
        let state = match &record.state {
            State::Created => RunState::Created,
            State::Started { process } if process.alive() => RunState::Running,
            State::Started { .. } => RunState::Exited { code: -1 },
            State::Exited { code } => RunState::Exited { code: code.unwrap_or(-1) },
        };
        RunnerSeen { generation: record.generation, spec_hash: record.spec_hash.clone(), state }
    }
}

fn prepare(options: &ProcessOptions) -> Result<(PathBuf, String, bool)> {
    let privileged = rustix::process::geteuid().is_root();
    std::fs::create_dir_all(&options.data_dir).map_err(|e| files::failed(&options.data_dir, e))?;
    let data_dir = options.data_dir.canonicalize().map_err(|e| files::failed(&options.data_dir, e))?;
    let process_dir = data_dir.join("process");
    files::folder(&process_dir, if privileged { 0o711 } else { 0o700 })?;
    if privileged {
        files::allow_passage(&data_dir)?;
        files::require_passage(&data_dir)?;
    }
    let trees: [(&str, Option<&Path>); 2] =
        [("framework", options.framework_dir.as_deref()), ("templates", options.templates_dir.as_deref())];
    let program = files::stage(&process_dir, &options.runner_binary, &trees)?;
    Ok((process_dir, program, privileged))
}

/// As a shell would say it: the code, or 128 and the signal.
fn exit_code(status: std::process::ExitStatus) -> i64 {
    status.code().map_or_else(|| i64::from(status.signal().unwrap_or(0)) + 128, i64::from)
}

#[async_trait]
impl RunnerBackend for ProcessBackend {
    fn kind(&self) -> BackendKind {
        BackendKind::Process
    }

    fn spec_hash(&self, spec: &RunnerSpec) -> String {
        // Limits and subnets are not enforced here; a change of them need not remake the runner.
        let mut effective = spec.clone();
        effective.subnet = None;
        effective.limits = crate::domain::tenant::Limits::default();
        effective.hash(&format!("process/1/{}", self.0.program))
    }

    async fn ping(&self) -> Result<String> {
        let who = if self.0.privileged { "each under a user id of its own" } else { "all under this user" };
        Ok(format!("processes of this host, {who}, in {}", self.0.process_dir.display()))
    }

    async fn ensure_network(&self, spec: &RunnerSpec) -> Result<()> {
        let _guard = self.lock(spec.tenant_id).await;
        let files = self.files(spec.tenant_id);
        files.ensure_root(self.0.privileged)?;
        files.set_network(true)
    }

    async fn ensure_volume(&self, spec: &RunnerSpec) -> Result<()> {
        let _guard = self.lock(spec.tenant_id).await;
        let files = self.files(spec.tenant_id);
        files.ensure_root(self.0.privileged)?;
        // Under one lock for all: two tenants must not be given the same user id.
        let _ids = self.lock(TenantId::from_uuid(uuid::Uuid::nil())).await;
        files.ensure_data(&self.0.process_dir, self.0.privileged)
    }

    async fn ensure_runner(&self, spec: &RunnerSpec, identity: &RunnerIdentity) -> Result<()> {
        let _guard = self.lock(spec.tenant_id).await;
        let files = self.files(spec.tenant_id);
        if !files.has_data().map_err(Error::internal)? {
            return Err(Error::not_found("the tenant's volume"));
        }
        let spec_hash = self.spec_hash(spec);
        if let Some(record) = files.record()? {
            let running = matches!(&record.state, State::Started { process } if process.alive());
            if record.spec_hash == spec_hash {
                return if running { Ok(()) } else { files.place_identity(identity, self.0.privileged) };
            }
            self.halt(spec.tenant_id, Some(GRACE)).await?;
        }
        files.place_identity(identity, self.0.privileged)?;
        files.write_record(&Record {
            generation: spec.generation,
            spec_hash,
            port: spec.port,
            program: self.0.program.clone(),
            state: State::Created,
        })?;
        self.changed(spec.tenant_id);
        Ok(())
    }

    async fn start(&self, tenant: TenantId) -> Result<()> {
        let _guard = self.lock(tenant).await;
        let files = self.files(tenant);
        let Some(mut record) = files.record()? else { return Err(Error::not_found("the tenant's runner")) };
        if let State::Started { process } = &record.state {
            if process.alive() {
                return Ok(());
            }
            // Its leader is gone; what it left in its group must not hold the port.
            self.end(process, None).await?;
        }
        // The runner would only fail in its own log; here it is an error that can be acted on.
        match tokio::net::TcpListener::bind(("127.0.0.1", record.port)).await {
            Ok(listener) => drop(listener),
            Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => {
                return Err(Error::conflict(format!("port {} is taken on this host", record.port)).with_source(e));
            }
            Err(e) => return Err(Error::internal(e)),
        }
        let (process, child) = self.spawn(tenant, &record)?;
        record.state = State::Started { process: process.clone() };
        if let Err(error) = files.write_record(&record) {
            // Unrecorded it would be nobody's.
            self.end(&process, None).await?;
            return Err(error);
        }
        self.follow(tenant, process, Some(child));
        self.changed(tenant);
        Ok(())
    }

    async fn stop(&self, tenant: TenantId) -> Result<()> {
        let _guard = self.lock(tenant).await;
        self.halt(tenant, Some(GRACE)).await
    }

    async fn remove(&self, tenant: TenantId, kind: ObjectKind) -> Result<()> {
        let _guard = self.lock(tenant).await;
        let files = self.files(tenant);
        match kind {
            ObjectKind::Network => {
                files.set_network(false)?;
                files.remove_root_if_empty();
            }
            ObjectKind::Runner => {
                self.halt(tenant, None).await?;
                files.remove_runner()?;
                self.changed(tenant);
            }
            ObjectKind::Volume => {
                if files.record()?.is_some() {
                    return Err(Error::conflict("the tenant's volume is in use by its runner"));
                }
                tokio::task::spawn_blocking(move || files.remove_data()).await.map_err(Error::internal)??;
            }
        }
        Ok(())
    }

    async fn observe(&self, tenant: TenantId) -> TenantObjects {
        let files = self.files(tenant);
        files.cap_log();
        let there = |seen: std::io::Result<bool>| match seen {
            Ok(true) => Observed::Present(()),
            Ok(false) => Observed::Absent,
            Err(_) => Observed::Unknown,
        };
        TenantObjects {
            network: there(files.has_network()),
            volume: there(files.has_data()),
            runner: match files.record() {
                Ok(Some(record)) => Observed::Present(Self::seen(&record)),
                Ok(None) => Observed::Absent,
                Err(error) => {
                    tracing::error!(%tenant, error = error.chain(), "a runner's record cannot be read");
                    Observed::Unknown
                }
            },
        }
    }

    async fn list(&self) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        for tenant_id in self.tenants()? {
            let files = self.files(tenant_id);
            let name = files.root.display().to_string();
            // What cannot be read is listed: something is there.
            for (kind, there) in [
                (ObjectKind::Network, files.has_network().unwrap_or(true)),
                (ObjectKind::Volume, files.has_data().unwrap_or(true)),
                (ObjectKind::Runner, files.record().map_or(true, |r| r.is_some())),
            ] {
                if there {
                    found.push(Found { tenant_id, kind, name: name.clone() });
                }
            }
        }
        Ok(found)
    }

    fn watch(&self) -> BoxStream<'static, Change> {
        let receiver = self.0.changes.subscribe();
        // A watcher that fell behind has missed something: its stream ends, and it lists again.
        tokio_stream::wrappers::BroadcastStream::new(receiver)
            .take_while(|change| std::future::ready(change.is_ok()))
            .filter_map(|change| std::future::ready(change.ok()))
            .boxed()
    }

    async fn metrics(&self, tenant: TenantId) -> Result<RunnerMetrics> {
        let record = self.files(tenant).record()?.ok_or_else(|| Error::not_found("the tenant's runner"))?;
        let measured = match &record.state {
            State::Started { process } => process.measure(),
            State::Created | State::Exited { .. } => None,
        };
        let (memory_bytes, cpu_seconds, pids) = measured.ok_or_else(|| {
            Error::new(Kind::Unavailable { what: "runner" }, "the runner does not run, so there is nothing to measure")
        })?;
        Ok(RunnerMetrics { memory_bytes, cpu_seconds, pids })
    }

    async fn logs(&self, tenant: TenantId, lines: usize) -> Result<String> {
        let files = self.files(tenant);
        if files.record()?.is_none() {
            return Err(Error::not_found("the tenant's runner"));
        }
        files.cap_log();
        files.log_lines(lines)
    }
}
