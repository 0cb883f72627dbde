//! Where runners live. A backend is a few idempotent verbs; it decides nothing. It acts only on objects that carry this
//! installation's label, and what it cannot see is `Unknown`, never `Absent`.

pub mod docker;
pub mod fake;
pub mod image;
pub mod process;

use crate::domain::tenant::{BackendKind, Limits, Subnet};
use crate::domain::{InstallId, Slug, TenantId};
use crate::error::Result;
use async_trait::async_trait;
use futures::stream::BoxStream;
use nexaas_common::secret::SecretString;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;

/// Labels on every object that a backend makes.
pub mod label {
    pub const INSTALL: &str = "dev.nexaas.install";
    pub const TENANT: &str = "dev.nexaas.tenant";
    pub const GENERATION: &str = "dev.nexaas.generation";
    pub const SPEC_HASH: &str = "dev.nexaas.spec-hash";
}

/// Everything a backend needs to make one runner. No field comes from a user unchecked: the slug is validated, the rest
/// is configuration, leases and ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerSpec {
    pub tenant_id: TenantId,
    pub slug: Slug,
    pub generation: u64,
    pub limits: Limits,
    /// On 127.0.0.1 of the host.
    pub port: u16,
    /// The tenant's own network; ignored by backends without networks.
    pub subnet: Option<Subnet>,
}

impl RunnerSpec {
    /// Identifies what would have to be remade if it changed: everything but the generation, and the backend's own inputs
    /// (`salt`: image digest, runtime, binary).
    pub fn hash(&self, salt: &str) -> String {
        let mut spec = self.clone();
        spec.generation = 0;
        let mut hasher = Sha256::new();
        hasher.update(serde_json::to_vec(&spec).unwrap_or_default());
        hasher.update([0]);
        hasher.update(salt.as_bytes());
        hex::encode(&hasher.finalize()[..16])
    }
}

/// A runner's certificate and key and the authority it must trust, as PEM. Placed on the tenant's volume, readable by the runner only.
#[derive(Debug, Clone)]
pub struct RunnerIdentity {
    pub certificate_pem: String,
    pub key_pem: SecretString,
    pub ca_pem: String,
}

/// What was seen of one object. `Unknown`: we may have left something there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Observed<T> {
    Absent,
    Present(T),
    #[default]
    Unknown,
}

impl<T> Observed<T> {
    pub fn present(&self) -> Option<&T> {
        match self {
            Self::Present(t) => Some(t),
            Self::Absent | Self::Unknown => None,
        }
    }
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKind {
    Network,
    Volume,
    Runner,
}

/// How a runner's process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    /// Made, never started.
    Created,
    Running,
    /// Ended by itself or was stopped.
    Exited {
        code: i64,
    },
    /// Killed by the kernel for want of memory.
    OutOfMemory,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunnerSeen {
    pub generation: u64,
    pub spec_hash: String,
    pub state: RunState,
}

/// What a backend knows of one tenant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TenantObjects {
    pub network: Observed<()>,
    pub volume: Observed<()>,
    pub runner: Observed<RunnerSeen>,
}

/// One object found by label, for adoption and reaping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub tenant_id: TenantId,
    pub kind: ObjectKind,
    /// The backend's own name of it, for logs.
    pub name: String,
}

/// A hint that something about a tenant's runner changed; the receiver looks for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    pub tenant_id: TenantId,
}

#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct RunnerMetrics {
    pub memory_bytes: u64,
    pub cpu_seconds: f64,
    pub pids: u64,
}

/// Every verb is idempotent: asked twice, the second call finds the work done. Each has its own time-out inside.
/// A failure because the host's port is taken is `Kind::Conflict` with the field `port` in the message start; because the subnet
/// overlaps, `Kind::Conflict` beginning with `subnet`. An engine that does not answer is `Kind::Unavailable`.
#[async_trait]
pub trait RunnerBackend: Send + Sync + std::fmt::Debug {
    fn kind(&self) -> BackendKind;
    /// The hash a runner of `spec` would carry today; compare with `RunnerSeen::spec_hash`.
    fn spec_hash(&self, spec: &RunnerSpec) -> String;
    /// Whether the backend answers at all, with a sentence for people.
    async fn ping(&self) -> Result<String>;

    async fn ensure_network(&self, spec: &RunnerSpec) -> Result<()>;
    async fn ensure_volume(&self, spec: &RunnerSpec) -> Result<()>;
    /// Makes the runner (replacing one of another spec hash), with its identity in place, not yet started.
    async fn ensure_runner(&self, spec: &RunnerSpec, identity: &RunnerIdentity) -> Result<()>;
    async fn start(&self, tenant: TenantId) -> Result<()>;
    /// Asks it to end, waits for a grace of 10 s, then kills it. Absent counts as stopped.
    async fn stop(&self, tenant: TenantId) -> Result<()>;
    /// Removes one kind of object; absent counts as removed.
    async fn remove(&self, tenant: TenantId, kind: ObjectKind) -> Result<()>;

    async fn observe(&self, tenant: TenantId) -> TenantObjects;
    /// Every object of this installation.
    async fn list(&self) -> Result<Vec<Found>>;
    /// Changes from now on; ends when the backend goes away. The caller lists again whenever it (re)subscribes.
    fn watch(&self) -> BoxStream<'static, Change>;
    async fn metrics(&self, tenant: TenantId) -> Result<RunnerMetrics>;
    /// The last `lines` lines of its output.
    async fn logs(&self, tenant: TenantId, lines: usize) -> Result<String>;
}

/// Whom a runner runs as, in a container and (when the control plane is root) as a process.
pub const RUNNER_UID: u32 = 10001;
pub const RUNNER_GID: u32 = 10001;

pub type SharedBackend = Arc<dyn RunnerBackend>;

/// Names of one tenant's objects: by id, so that nothing a person typed reaches the engine.
pub fn object_name(install: InstallId, tenant: TenantId) -> String {
    let install = install.uuid().simple().to_string();
    format!("nexaas-{}-{}", &install[install.len() - 8..], tenant.uuid().simple())
}
