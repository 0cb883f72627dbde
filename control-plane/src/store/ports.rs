//! Table `port_lease`: which tenant answers on which port of this host, and which ports somebody else holds.

use super::{Store, Tx, bounded};
use crate::domain::TenantId;
use crate::error::{Error, Kind, Result};
use std::ops::RangeInclusive;

impl Store {
    /// The tenant's port; leases the lowest free one of `range` when it has none.
    pub async fn lease_port(&self, tx: &mut Tx, tenant: TenantId, range: &RangeInclusive<u16>) -> Result<u16> {
        let (low, high) = (i32::from(*range.start()), i32::from(*range.end()));
        let now = self.clock().now();
        let existing = bounded(
            sqlx::query_scalar!("SELECT port FROM port_lease WHERE tenant_id = $1", tenant.uuid())
                .fetch_optional(&mut **tx),
        )
        .await?;
        if let Some(port) = existing {
            return u16::try_from(port).map_err(Error::internal);
        }
        // One lease at a time, so that two never choose the same number.
        bounded(sqlx::query!("SELECT pg_advisory_xact_lock(7239001)").fetch_one(&mut **tx)).await?;
        bounded(sqlx::query!("DELETE FROM port_lease WHERE blocked_until < $1", now).execute(&mut **tx)).await?;
        let port = bounded(
            sqlx::query_scalar!(
                r#"INSERT INTO port_lease (port, tenant_id)
                   SELECT n, $3 FROM generate_series($1::int, $2::int) AS n
                   WHERE NOT EXISTS (SELECT 1 FROM port_lease l WHERE l.port = n) ORDER BY n LIMIT 1 RETURNING port"#,
                low,
                high,
                tenant.uuid()
            )
            .fetch_optional(&mut **tx),
        )
        .await?
        .ok_or_else(|| ports_exhausted(range))?;
        u16::try_from(port).map_err(Error::internal)
    }

    /// Whether any port of `range` can still be leased.
    pub async fn has_free_port(&self, range: &RangeInclusive<u16>) -> Result<bool> {
        let (low, high) = (i32::from(*range.start()), i32::from(*range.end()));
        let taken = bounded(
            sqlx::query_scalar!(
                r#"SELECT count(*) AS "n!" FROM port_lease WHERE port BETWEEN $1 AND $2 AND (blocked_until IS NULL OR blocked_until >= $3)"#,
                low,
                high,
                self.clock().now()
            )
            .fetch_one(self.pool()),
        )
        .await?;
        Ok(taken <= i64::from(high - low))
    }

    /// The host says somebody else holds the tenant's port: sets it aside for a while and frees the tenant for another.
    pub async fn block_port(&self, tx: &mut Tx, tenant: TenantId) -> Result<()> {
        let until = self.clock().now() + chrono::Duration::minutes(10);
        bounded(
            sqlx::query!(
                "UPDATE port_lease SET tenant_id = NULL, blocked_until = $2 WHERE tenant_id = $1",
                tenant.uuid(),
                until
            )
            .execute(&mut **tx),
        )
        .await
        .map(|_| ())
    }

    pub async fn release_port(&self, tx: &mut Tx, tenant: TenantId) -> Result<()> {
        bounded(sqlx::query!("DELETE FROM port_lease WHERE tenant_id = $1", tenant.uuid()).execute(&mut **tx))
            .await
            .map(|_| ())
    }
}

pub fn ports_exhausted(range: &RangeInclusive<u16>) -> Error {
    Error::new(
        Kind::Exhausted { resource: "ports" },
        format!("every port of {}-{} is in use; delete a tenant or widen port_range", range.start(), range.end()),
    )
}
