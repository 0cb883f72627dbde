//! What the API shows. These forms are a promise to programs; the domain may change behind them.

use crate::domain::condition::{Condition, ConditionStatus, ConditionType};
use crate::domain::operation::{Operation, Step, StepState};
use crate::domain::operator::{Operator, Role};
use crate::domain::tenant::{BackendKind, Tenant};
use crate::http::PublicUrl;
use crate::service::{ApiToken, TenantEvent};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

/// One client's workspace.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TenantView {
    pub id: String,
    pub slug: String,
    pub display_name: String,
    /// provisioning, ready, recovering, failed, unknown, stopping, hibernated, suspended or deleting.
    pub phase: String,
    /// What was asked for: running, hibernated, suspended or deleted.
    pub desired: String,
    /// Rises with every change of what is asked for.
    pub generation: u64,
    /// The generation that was last brought about.
    pub observed_generation: u64,
    pub template: String,
    pub backend: String,
    pub memory_mb: u64,
    pub cpu_millis: u32,
    /// The workspace's own address.
    pub url: String,
    pub conditions: Vec<ConditionView>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConditionView {
    /// Provisioned, Ready, UpToDate or BackedUp.
    pub r#type: String,
    /// True, False or Unknown.
    pub status: String,
    pub reason: String,
    pub message: String,
    pub last_transition_time: DateTime<Utc>,
    pub observed_generation: u64,
}

pub const fn condition_type(r#type: ConditionType) -> &'static str {
    match r#type {
        ConditionType::Provisioned => "Provisioned",
        ConditionType::Ready => "Ready",
        ConditionType::UpToDate => "UpToDate",
        ConditionType::BackedUp => "BackedUp",
    }
}

pub const fn condition_status(status: ConditionStatus) -> &'static str {
    match status {
        ConditionStatus::True => "True",
        ConditionStatus::False => "False",
        ConditionStatus::Unknown => "Unknown",
    }
}

impl From<&Condition> for ConditionView {
    fn from(c: &Condition) -> Self {
        Self {
            r#type: condition_type(c.r#type).to_owned(),
            status: condition_status(c.status).to_owned(),
            reason: c.reason.clone(),
            message: c.message.clone(),
            last_transition_time: c.last_transition_time,
            observed_generation: c.observed_generation,
        }
    }
}

impl TenantView {
    pub fn new(t: &Tenant, public: &PublicUrl) -> Self {
        Self {
            id: t.id.to_string(),
            slug: t.slug.to_string(),
            display_name: t.display_name.clone(),
            phase: t.phase().as_str().to_owned(),
            desired: t.desired.as_str().to_owned(),
            generation: t.generation,
            observed_generation: t.observed_generation,
            template: t.template.clone(),
            backend: t.backend.as_str().to_owned(),
            memory_mb: t.limits.memory_bytes >> 20,
            cpu_millis: t.limits.cpu_millis,
            url: public.tenant(t.slug.as_str()),
            conditions: t.conditions.iter().map(ConditionView::from).collect(),
            created_at: t.created_at,
            updated_at: t.updated_at,
        }
    }

    /// Identifies this very state; its first part is the generation, which `If-Match` is compared with.
    pub fn etag(&self) -> String {
        let digest = Sha256::digest(serde_json::to_vec(self).unwrap_or_default());
        format!("\"g{}.{}\"", self.generation, hex::encode(digest.get(..8).unwrap_or_default()))
    }
}

/// One requested change and how far it is.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct OperationView {
    pub id: String,
    pub tenant_id: String,
    /// create, suspend, resume, delete, heal or update.
    pub kind: String,
    pub generation: u64,
    /// running, succeeded, failed or superseded.
    pub state: String,
    pub steps: Vec<StepView>,
    pub error: Option<String>,
    pub created_at: DateTime<Utc>,
    pub finished_at: Option<DateTime<Utc>>,
    /// After this it counts as failed.
    pub deadline: DateTime<Utc>,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct StepView {
    pub name: String,
    /// pending, running, succeeded or failed.
    pub state: String,
    pub attempts: u32,
    pub detail: String,
    pub started_at: Option<DateTime<Utc>>,
    pub finished_at: Option<DateTime<Utc>>,
}

pub const fn step_state(state: StepState) -> &'static str {
    match state {
        StepState::Pending => "pending",
        StepState::Running => "running",
        StepState::Succeeded => "succeeded",
        StepState::Failed => "failed",
    }
}

impl From<&Step> for StepView {
    fn from(s: &Step) -> Self {
        Self {
            name: s.name.as_str().to_owned(),
            state: step_state(s.state).to_owned(),
            attempts: s.attempts,
            detail: s.detail.clone(),
            started_at: s.started_at,
            finished_at: s.finished_at,
        }
    }
}

impl From<&Operation> for OperationView {
    fn from(o: &Operation) -> Self {
        Self {
            id: o.id.to_string(),
            tenant_id: o.tenant_id.to_string(),
            kind: o.kind.as_str().to_owned(),
            generation: o.generation,
            state: o.state.as_str().to_owned(),
            steps: o.steps.iter().map(StepView::from).collect(),
            error: o.error.clone(),
            created_at: o.created_at,
            finished_at: o.finished_at,
            deadline: o.deadline,
        }
    }
}

/// The answer to a change that was accepted and is being brought about.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Accepted {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantView>,
    pub operation: OperationView,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TenantPage {
    pub items: Vec<TenantView>,
    /// Present when there is more; pass it as `cursor`.
    pub next_cursor: Option<String>,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct OperationList {
    pub items: Vec<OperationView>,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct EventView {
    pub at: DateTime<Utc>,
    /// info, warning or error.
    pub severity: String,
    pub reason: String,
    pub message: String,
}

impl From<&TenantEvent> for EventView {
    fn from(e: &TenantEvent) -> Self {
        Self {
            at: e.at,
            severity: e.severity.as_str().to_owned(),
            reason: e.reason.clone(),
            message: e.message.clone(),
        }
    }
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct EventList {
    pub items: Vec<EventView>,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Names {
    pub items: Vec<String>,
}

/// Shown once.
#[derive(Clone, Serialize, ToSchema)]
pub struct NewApiKey {
    pub api_key: String,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TokenView {
    pub id: String,
    pub name: String,
    pub role: String,
    pub created_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
    pub last_used_at: Option<DateTime<Utc>>,
}

impl From<&ApiToken> for TokenView {
    fn from(t: &ApiToken) -> Self {
        Self {
            id: t.id.to_string(),
            name: t.name.clone(),
            role: t.role.as_str().to_owned(),
            created_at: t.created_at,
            expires_at: t.expires_at,
            last_used_at: t.last_used_at,
        }
    }
}

/// A new token; its text is shown once.
#[derive(Clone, Serialize, ToSchema)]
pub struct NewToken {
    pub token: String,
    #[serde(flatten)]
    pub description: TokenView,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TokenList {
    pub items: Vec<TokenView>,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Me {
    pub username: String,
    pub role: String,
}

/// A tenant to create.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateTenantBody {
    /// `^[a-z][a-z0-9-]{1,30}[a-z0-9]$`, not reserved; it becomes the subdomain.
    pub slug: String,
    pub display_name: Option<String>,
    pub template: Option<String>,
    #[schema(value_type = Option<String>)]
    pub backend: Option<BackendKind>,
    pub memory_mb: Option<u64>,
    pub cpu_millis: Option<u32>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretBody {
    #[schema(value_type = String)]
    pub value: nexaas_common::secret::SecretString,
}

#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateTokenBody {
    pub name: String,
    /// At most the caller's own: viewer, operator or owner.
    #[schema(value_type = String)]
    pub role: Role,
    /// Days until it expires, at most 366.
    pub expires_in_days: u32,
}

/// A person who runs the installation.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct OperatorView {
    pub id: String,
    pub username: String,
    /// viewer, operator or owner.
    pub role: String,
    pub created_at: DateTime<Utc>,
}

impl From<&Operator> for OperatorView {
    fn from(o: &Operator) -> Self {
        Self {
            id: o.id.to_string(),
            username: o.username.clone(),
            role: o.role.as_str().to_owned(),
            created_at: o.created_at,
        }
    }
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct OperatorList {
    pub items: Vec<OperatorView>,
}

/// A password that the server made; shown once.
#[derive(Clone, Serialize, ToSchema)]
pub struct NewPassword {
    pub username: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Null when nothing was made.
    pub password: Option<String>,
}

#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateOperatorBody {
    pub username: String,
    /// viewer, operator or owner; operator unless given.
    #[schema(value_type = Option<String>)]
    pub role: Option<Role>,
    /// Only if nobody exists yet; then as owner.
    #[serde(default)]
    pub first: bool,
}
