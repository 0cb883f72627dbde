//! A tenant as the operator wants it, and what was last seen of it.

use super::condition::{Condition, ConditionStatus, ConditionType};
use super::{Slug, TenantId};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// What the operator wants. Any value can be written at any time; the reconciler follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Desired {
    Running,
    /// Stopped, woken by the next request.
    Hibernated,
    /// Stopped until an operator resumes it; its subdomain says so.
    Suspended,
    /// Everything is removed; the row stays as a tombstone until the backend lists nothing.
    Deleted,
}

impl Desired {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Hibernated => "hibernated",
            Self::Suspended => "suspended",
            Self::Deleted => "deleted",
        }
    }
}

impl std::str::FromStr for Desired {
    type Err = crate::error::Error;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "running" => Ok(Self::Running),
            "hibernated" => Ok(Self::Hibernated),
            "suspended" => Ok(Self::Suspended),
            "deleted" => Ok(Self::Deleted),
            other => Err(crate::error::Error::invalid(
                "desired",
                format!("'{other}' is not one of running, hibernated, suspended, deleted"),
            )),
        }
    }
}

/// Which backend runs the tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendKind {
    Docker,
    Process,
    /// Only for tests.
    Fake,
}

impl BackendKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Process => "process",
            Self::Fake => "fake",
        }
    }
}

/// What a runner may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub memory_bytes: u64,
    /// Thousandths of a core.
    pub cpu_millis: u32,
    pub pids: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_bytes: 512 << 20, cpu_millis: 500, pids: 256 }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    pub id: TenantId,
    pub slug: Slug,
    pub display_name: String,
    pub desired: Desired,
    /// Bumped by every change of intent; every write of the reconciler is fenced by it.
    pub generation: u64,
    /// The generation the reconciler last finished with.
    pub observed_generation: u64,
    pub template: String,
    pub backend: BackendKind,
    pub limits: Limits,
    /// Leased, absent before `allocate` and after deletion.
    pub port: Option<u16>,
    pub subnet: Option<Subnet>,
    pub conditions: Vec<Condition>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl Tenant {
    pub fn condition(&self, r#type: ConditionType) -> Option<&Condition> {
        self.conditions.iter().find(|c| c.r#type == r#type)
    }
    /// Ready for the generation the operator last asked for.
    pub fn is_ready(&self) -> bool {
        self.desired == Desired::Running
            && self
                .condition(ConditionType::Ready)
                .is_some_and(|c| c.status == ConditionStatus::True && c.observed_generation == self.generation)
    }
    /// One word for lists: what a person should think of this tenant now.
    pub fn phase(&self) -> Phase {
        match self.desired {
            Desired::Deleted => Phase::Deleting,
            Desired::Suspended if self.observed_generation == self.generation => Phase::Suspended,
            Desired::Hibernated if self.observed_generation == self.generation => Phase::Hibernated,
            Desired::Suspended | Desired::Hibernated => Phase::Stopping,
            Desired::Running if self.is_ready() => Phase::Ready,
            Desired::Running => match self.condition(ConditionType::Ready) {
                Some(c) if c.reason == "Failed" => Phase::Failed,
                Some(c) if c.status == ConditionStatus::Unknown => Phase::Unknown,
                // What was true of an earlier generation says nothing: that runner may be on its way out.
                _ if self
                    .condition(ConditionType::Provisioned)
                    .is_some_and(|c| c.status == ConditionStatus::True && c.observed_generation == self.generation) =>
                {
                    Phase::Recovering
                }
                _ => Phase::Provisioning,
            },
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    Provisioning,
    Ready,
    Recovering,
    Failed,
    /// The backend does not answer: it may or may not run.
    Unknown,
    Stopping,
    Hibernated,
    Suspended,
    Deleting,
}

impl Phase {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Provisioning => "provisioning",
            Self::Ready => "ready",
            Self::Recovering => "recovering",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
            Self::Stopping => "stopping",
            Self::Hibernated => "hibernated",
            Self::Suspended => "suspended",
            Self::Deleting => "deleting",
        }
    }
}

/// A tenant's own network, as leased from the configured range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Subnet {
    pub base: Ipv4Addr,
    pub prefix: u8,
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}
