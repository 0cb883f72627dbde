//! One requested change and its steps, recorded so that whoever watches sees each turn green, and so that a control plane
//! that died in the middle goes on where it stopped.

use super::{OperationId, TenantId};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OperationKind {
    Create,
    Suspend,
    Resume,
    Delete,
    /// The runner was lost and is brought back.
    Heal,
    /// The runner is replaced because its specification changed.
    Update,
}

impl OperationKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
            Self::Delete => "delete",
            Self::Heal => "heal",
            Self::Update => "update",
        }
    }
    /// The steps this kind goes through, in order.
    pub const fn steps(self) -> &'static [StepName] {
        use StepName::*;
        match self {
            Self::Create | Self::Resume | Self::Heal | Self::Update => {
                &[Allocate, Network, Volume, Container, Start, Handshake, Workspace, Ready]
            }
            Self::Suspend => &[Stop],
            Self::Delete => &[Stop, RemoveContainer, RemoveVolume, RemoveNetwork, Release],
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepName {
    Allocate,
    Network,
    Volume,
    Container,
    Start,
    Handshake,
    Workspace,
    Ready,
    Stop,
    RemoveContainer,
    RemoveVolume,
    RemoveNetwork,
    Release,
}

impl StepName {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allocate => "allocate",
            Self::Network => "network",
            Self::Volume => "volume",
            Self::Container => "container",
            Self::Start => "start",
            Self::Handshake => "handshake",
            Self::Workspace => "workspace",
            Self::Ready => "ready",
            Self::Stop => "stop",
            Self::RemoveContainer => "remove_container",
            Self::RemoveVolume => "remove_volume",
            Self::RemoveNetwork => "remove_network",
            Self::Release => "release",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepState {
    Pending,
    Running,
    Succeeded,
    /// Tried and failed; will be tried again while the operation runs.
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub name: StepName,
    pub state: StepState,
    /// How often it was begun.
    pub attempts: u32,
    /// What a person should know: what was made, or why it failed.
    pub detail: String,
    pub started_at: Option<DateTime<Utc>>,
    pub finished_at: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OperationState {
    Running,
    Succeeded,
    Failed,
    /// A later change of intent made it pointless.
    Superseded,
}

impl OperationState {
    pub const fn finished(self) -> bool {
        !matches!(self, Self::Running)
    }
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Superseded => "superseded",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    pub id: OperationId,
    pub tenant_id: TenantId,
    pub kind: OperationKind,
    pub generation: u64,
    pub state: OperationState,
    pub steps: Vec<Step>,
    /// Why it failed, for people.
    pub error: Option<String>,
    pub created_at: DateTime<Utc>,
    pub finished_at: Option<DateTime<Utc>>,
    /// After this it is failed, whatever is still being tried.
    pub deadline: DateTime<Utc>,
}
