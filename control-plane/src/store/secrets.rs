//! Table `tenant_secret`: sealed values, opened only to be handed to the tenant's runner.

use super::{Store, Tx, bounded};
use crate::domain::TenantId;
use crate::error::Result;

impl Store {
    pub async fn put_secret(&self, tx: &mut Tx, tenant: TenantId, name: &str, sealed: &[u8]) -> Result<()> {
        bounded(
            sqlx::query!(
                "INSERT INTO tenant_secret (tenant_id, name, sealed, updated_at) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (tenant_id, name) DO UPDATE SET sealed = $3, updated_at = $4",
                tenant.uuid(),
                name,
                sealed,
                self.clock().now()
            )
            .execute(&mut **tx),
        )
        .await
        .map(|_| ())
    }

    /// Answers whether there was one.
    pub async fn remove_secret(&self, tx: &mut Tx, tenant: TenantId, name: &str) -> Result<bool> {
        bounded(
            sqlx::query!("DELETE FROM tenant_secret WHERE tenant_id = $1 AND name = $2", tenant.uuid(), name)
                .execute(&mut **tx),
        )
        .await
        .map(|done| done.rows_affected() == 1)
    }

    /// Name and sealed value of each.
    pub async fn secrets_of(&self, tenant: TenantId) -> Result<Vec<(String, Vec<u8>)>> {
        let rows = bounded(
            sqlx::query!("SELECT name, sealed FROM tenant_secret WHERE tenant_id = $1 ORDER BY name", tenant.uuid())
                .fetch_all(self.pool()),
        )
        .await?;
        Ok(rows.into_iter().map(|r| (r.name, r.sealed)).collect())
    }

    pub async fn remove_all_secrets(&self, tx: &mut Tx, tenant: TenantId) -> Result<()> {
        bounded(sqlx::query!("DELETE FROM tenant_secret WHERE tenant_id = $1", tenant.uuid()).execute(&mut **tx))
            .await
            .map(|_| ())
    }
}
