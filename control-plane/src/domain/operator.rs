//! The people (and tokens) that run the control plane.

use super::OperatorId;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Ordered: each role may do all that the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Viewer,
    Operator,
    Owner,
}

impl Role {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Owner => "owner",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    pub id: OperatorId,
    pub username: String,
    pub role: Role,
    /// Part of every session; bumped to end them all.
    pub token_version: i64,
    pub created_at: DateTime<Utc>,
}

/// Who is calling, once authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    pub operator_id: OperatorId,
    pub username: String,
    pub role: Role,
    /// How they proved it, for the audit log.
    pub via: Via,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    Session,
    Token,
    /// The command line on the server itself.
    Local,
}
