//! Table `subnet_lease`: which tenant's network has which addresses, and which networks overlap with somebody else's.

use super::{Store, Tx, bounded};
use crate::domain::TenantId;
use crate::domain::tenant::Subnet;
use crate::error::{Error, Kind, Result};
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

impl Store {
    /// The tenant's subnet; leases the lowest free one of `range` when it has none.
    pub async fn lease_subnet(&self, tx: &mut Tx, tenant: TenantId, range: Ipv4Net, prefix: u8) -> Result<Subnet> {
        let existing = bounded(
            sqlx::query!("SELECT base, prefix FROM subnet_lease WHERE tenant_id = $1", tenant.uuid())
                .fetch_optional(&mut **tx),
        )
        .await?;
        if let Some(row) = existing {
            return subnet(row.base, row.prefix);
        }
        let now = self.clock().now();
        bounded(sqlx::query!("SELECT pg_advisory_xact_lock(7239002)").fetch_one(&mut **tx)).await?;
        bounded(sqlx::query!("DELETE FROM subnet_lease WHERE blocked_until < $1", now).execute(&mut **tx)).await?;
        let low = i64::from(u32::from(range.network()));
        let high = i64::from(u32::from(range.broadcast()));
        let size = 1_i64 << (32 - u32::from(prefix.min(32)));
        // A lease made under another prefix may be larger or smaller: overlap decides, not equality.
        let row = bounded(
            sqlx::query!(
                r#"INSERT INTO subnet_lease (base, prefix, tenant_id)
                   SELECT n, $4::smallint, $5 FROM generate_series($1::bigint, $2::bigint - $3::bigint + 1, $3::bigint) AS n
                   WHERE NOT EXISTS (SELECT 1 FROM subnet_lease l WHERE l.base < n + $3 AND n < l.base + (1::bigint << (32 - l.prefix)))
                   ORDER BY n LIMIT 1 RETURNING base, prefix"#,
                low,
                high,
                size,
                i16::from(prefix),
                tenant.uuid()
            )
            .fetch_optional(&mut **tx),
        )
        .await?
        .ok_or_else(|| {
            Error::new(
                Kind::Exhausted { resource: "subnets" },
                format!("every /{prefix} of {range} is in use; delete a tenant or widen subnet_range"),
            )
        })?;
        subnet(row.base, row.prefix)
    }

    /// The engine says the subnet overlaps with a network that is not ours: sets it aside and frees the tenant for another.
    pub async fn block_subnet(&self, tx: &mut Tx, tenant: TenantId) -> Result<()> {
        let until = self.clock().now() + chrono::Duration::minutes(10);
        bounded(
            sqlx::query!(
                "UPDATE subnet_lease SET tenant_id = NULL, blocked_until = $2 WHERE tenant_id = $1",
                tenant.uuid(),
                until
            )
            .execute(&mut **tx),
        )
        .await
        .map(|_| ())
    }

    pub async fn release_subnet(&self, tx: &mut Tx, tenant: TenantId) -> Result<()> {
        bounded(sqlx::query!("DELETE FROM subnet_lease WHERE tenant_id = $1", tenant.uuid()).execute(&mut **tx))
            .await
            .map(|_| ())
    }
}

fn subnet(base: i64, prefix: i16) -> Result<Subnet> {
    Ok(Subnet {
        base: Ipv4Addr::from(u32::try_from(base).map_err(Error::internal)?),
        prefix: u8::try_from(prefix).map_err(Error::internal)?,
    })
}
