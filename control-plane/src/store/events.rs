//! Table `tenant_event`: what happened to a tenant, for people. Kept for thirty days, at most 500 a tenant.

use super::{Store, Tx, bounded, patient};
use crate::domain::TenantId;
use crate::error::Result;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Info,
    Warning,
    Error,
}

impl Severity {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantEvent {
    pub at: DateTime<Utc>,
    /// One CamelCase word for machines.
    pub reason: String,
    /// One sentence for people.
    pub message: String,
    pub severity: Severity,
}

impl Store {
    pub async fn insert_event(
        &self,
        tx: &mut Tx,
        tenant: TenantId,
        severity: Severity,
        reason: &str,
        message: &str,
    ) -> Result<()> {
        let message: String = message.chars().take(2000).collect();
        bounded(
            sqlx::query!(
                "INSERT INTO tenant_event (tenant_id, at, severity, reason, message) VALUES ($1, $2, $3, $4, $5)",
                tenant.uuid(),
                self.clock().now(),
                severity.as_str(),
                reason,
                message
            )
            .execute(&mut **tx),
        )
        .await
        .map(|_| ())
    }

    /// Newest first.
    pub async fn events_of(&self, tenant: TenantId, limit: i64) -> Result<Vec<TenantEvent>> {
        let rows = bounded(
            sqlx::query!(
                "SELECT at, severity, reason, message FROM tenant_event WHERE tenant_id = $1 ORDER BY id DESC LIMIT $2",
                tenant.uuid(),
                limit
            )
            .fetch_all(self.pool()),
        )
        .await?;
        Ok(rows
            .into_iter()
            .map(|r| TenantEvent {
                at: r.at,
                reason: r.reason,
                message: r.message,
                severity: match r.severity.as_str() {
                    "info" => Severity::Info,
                    "warning" => Severity::Warning,
                    _ => Severity::Error,
                },
            })
            .collect())
    }

    pub(super) async fn purge_events(&self, before: DateTime<Utc>) -> Result<u64> {
        patient(
            sqlx::query!(
                "DELETE FROM tenant_event WHERE at < $1 OR id IN (
                   SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY tenant_id ORDER BY id DESC) AS n FROM tenant_event) ranked
                   WHERE n > 500)",
                before
            )
            .execute(self.pool()),
        )
        .await
        .map(|done| done.rows_affected())
    }
}
