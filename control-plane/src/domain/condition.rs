//! Conditions in the Kubernetes form: what is true of a tenant, since when, why, and for which generation.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ConditionType {
    /// Network, volume and runner exist for this generation.
    Provisioned,
    /// A probe through the real route succeeded.
    Ready,
    /// The runner runs the wanted image and settings.
    UpToDate,
    /// A verified backup exists that is younger than the policy allows.
    BackedUp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConditionStatus {
    True,
    False,
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    pub r#type: ConditionType,
    pub status: ConditionStatus,
    /// One CamelCase word for machines.
    pub reason: String,
    /// One sentence for people.
    pub message: String,
    /// When `status` last changed (not when it was last looked at).
    pub last_transition_time: DateTime<Utc>,
    pub observed_generation: u64,
}

/// Writes `next` into `conditions`; the transition time moves only when the status does. Answers whether anything changed.
pub fn set(conditions: &mut Vec<Condition>, mut next: Condition) -> bool {
    match conditions.iter_mut().find(|c| c.r#type == next.r#type) {
        Some(current) => {
            if current.status == next.status {
                next.last_transition_time = current.last_transition_time;
            }
            let changed = *current != next;
            *current = next;
            changed
        }
        None => {
            conditions.push(next);
            conditions.sort_by_key(|c| c.r#type);
            true
        }
    }
}
