//! What the reconciler asks of a runner itself. A trait, so that whole loops are tested without one.

use crate::domain::TenantId;
use crate::domain::tenant::Tenant;
use crate::error::Result;
use crate::orchestrator::RunnerIdentity;
use async_trait::async_trait;
use nexaas_common::secret::SecretString;
use std::sync::Arc;

/// Who answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// Differs after every start of the runner, which then has forgotten what it was told.
    pub boot: String,
    pub version: String,
    pub configured: bool,
    pub workspace_initialized: bool,
}

/// What a runner is told at run time.
#[derive(Debug, Clone, Default)]
pub struct RunnerSettings {
    pub secrets: Vec<(String, SecretString)>,
    pub api_key_sha256: Option<String>,
    pub public_url: String,
}

/// Each call is one attempt with a time-out of its own. `Unavailable` and `Timeout` mean: not yet.
#[async_trait]
pub trait RunnerGate: Send + Sync + std::fmt::Debug {
    async fn hello(&self, tenant: &Tenant) -> Result<Greeting>;
    async fn configure(&self, tenant: &Tenant, settings: &RunnerSettings) -> Result<()>;
    /// Answers what was done, for people.
    async fn initialize_workspace(&self, tenant: &Tenant, template: &str) -> Result<String>;
    /// A request through the edge, as a visitor would make it.
    async fn probe(&self, tenant: &Tenant) -> Result<()>;
    /// The tenant is gone: drop what is kept of it.
    fn forget(&self, tenant: TenantId);
}

pub type SharedGate = Arc<dyn RunnerGate>;

/// Issues the certificate by which a runner proves whose it is.
pub type IssueIdentity = Arc<dyn Fn(TenantId) -> Result<RunnerIdentity> + Send + Sync>;
