//! Table `tenant`: intent, what was last seen, and the leases beside it.

use super::{Fence, Store, Tx, bounded, patient, signed, unsigned};
use crate::domain::condition::Condition;
use crate::domain::tenant::{BackendKind, Desired, Limits, Subnet, Tenant};
use crate::domain::{Slug, TenantId};
use crate::error::{Error, Result};
use chrono::{DateTime, Utc};
use sqlx::types::Json;
use std::net::Ipv4Addr;
use uuid::Uuid;

/// A tenant and what only the reconciler needs of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRecord {
    pub tenant: Tenant,
    pub settings_version: u64,
    pub api_key_sha256: Option<Vec<u8>>,
    /// Nothing of it is left anywhere.
    pub gone: bool,
}

struct Row {
    id: Uuid,
    slug: String,
    display_name: String,
    desired: String,
    generation: i64,
    observed_generation: i64,
    template: String,
    backend: String,
    memory_bytes: i64,
    cpu_millis: i32,
    pids: i32,
    conditions: Json<Vec<Condition>>,
    settings_version: i64,
    api_key_sha256: Option<Vec<u8>>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    deleted_at: Option<DateTime<Utc>>,
    port: Option<i32>,
    subnet_base: Option<i64>,
    subnet_prefix: Option<i16>,
}

impl TryFrom<Row> for TenantRecord {
    type Error = Error;
    fn try_from(row: Row) -> Result<Self> {
        let subnet = match (row.subnet_base, row.subnet_prefix) {
            (Some(base), Some(prefix)) => Some(Subnet {
                base: Ipv4Addr::from(u32::try_from(base).map_err(Error::internal)?),
                prefix: u8::try_from(prefix).map_err(Error::internal)?,
            }),
            _ => None,
        };
        Ok(Self {
            tenant: Tenant {
                id: TenantId::from_uuid(row.id),
                slug: row.slug.parse::<Slug>().map_err(Error::internal)?,
                display_name: row.display_name,
                desired: row.desired.parse()?,
                generation: unsigned(row.generation),
                observed_generation: unsigned(row.observed_generation),
                template: row.template,
                backend: parse_backend(&row.backend)?,
                limits: Limits {
                    memory_bytes: unsigned(row.memory_bytes),
                    cpu_millis: u32::try_from(row.cpu_millis).map_err(Error::internal)?,
                    pids: u32::try_from(row.pids).map_err(Error::internal)?,
                },
                port: row.port.map(u16::try_from).transpose().map_err(Error::internal)?,
                subnet,
                conditions: row.conditions.0,
                created_at: row.created_at,
                updated_at: row.updated_at,
            },
            settings_version: unsigned(row.settings_version),
            api_key_sha256: row.api_key_sha256,
            gone: row.deleted_at.is_some(),
        })
    }
}

pub fn parse_backend(text: &str) -> Result<BackendKind> {
    match text {
        "docker" => Ok(BackendKind::Docker),
        "process" => Ok(BackendKind::Process),
        "fake" => Ok(BackendKind::Fake),
        other => Err(Error::invalid("backend", format!("'{other}' is not one of docker, process"))),
    }
}

impl Store {
    /// Every tenant that is not wholly gone, by slug.
    pub async fn tenants(&self) -> Result<Vec<TenantRecord>> {
        bounded(
            sqlx::query_as!(
                Row,
                r#"SELECT t.id, t.slug, t.display_name, t.desired, t.generation, t.observed_generation, t.template, t.backend,
                   t.memory_bytes, t.cpu_millis, t.pids, t.conditions AS "conditions: Json<Vec<Condition>>", t.settings_version,
                   t.api_key_sha256, t.created_at, t.updated_at, t.deleted_at,
                   p.port AS "port?", s.base AS "subnet_base?", s.prefix AS "subnet_prefix?"
                   FROM tenant t LEFT JOIN port_lease p ON p.tenant_id = t.id LEFT JOIN subnet_lease s ON s.tenant_id = t.id
                   WHERE t.deleted_at IS NULL ORDER BY t.slug"#
            )
            .fetch_all(self.pool()),
        )
        .await?
        .into_iter()
        .map(TryInto::try_into)
        .collect()
    }

    /// A page of tenants by slug, after `after`.
    pub async fn tenants_after(&self, after: &str, limit: i64) -> Result<Vec<TenantRecord>> {
        bounded(
            sqlx::query_as!(
                Row,
                r#"SELECT t.id, t.slug, t.display_name, t.desired, t.generation, t.observed_generation, t.template, t.backend,
                   t.memory_bytes, t.cpu_millis, t.pids, t.conditions AS "conditions: Json<Vec<Condition>>", t.settings_version,
                   t.api_key_sha256, t.created_at, t.updated_at, t.deleted_at,
                   p.port AS "port?", s.base AS "subnet_base?", s.prefix AS "subnet_prefix?"
                   FROM tenant t LEFT JOIN port_lease p ON p.tenant_id = t.id LEFT JOIN subnet_lease s ON s.tenant_id = t.id
                   WHERE t.deleted_at IS NULL AND t.slug > $1 ORDER BY t.slug LIMIT $2"#,
                after,
                limit
            )
            .fetch_all(self.pool()),
        )
        .await?
        .into_iter()
        .map(TryInto::try_into)
        .collect()
    }

    pub async fn tenant_by_slug(&self, slug: &Slug) -> Result<Option<TenantRecord>> {
        bounded(
            sqlx::query_as!(
                Row,
                r#"SELECT t.id, t.slug, t.display_name, t.desired, t.generation, t.observed_generation, t.template, t.backend,
                   t.memory_bytes, t.cpu_millis, t.pids, t.conditions AS "conditions: Json<Vec<Condition>>", t.settings_version,
                   t.api_key_sha256, t.created_at, t.updated_at, t.deleted_at,
                   p.port AS "port?", s.base AS "subnet_base?", s.prefix AS "subnet_prefix?"
                   FROM tenant t LEFT JOIN port_lease p ON p.tenant_id = t.id LEFT JOIN subnet_lease s ON s.tenant_id = t.id
                   WHERE t.slug = $1 AND t.deleted_at IS NULL"#,
                slug.as_str()
            )
            .fetch_optional(self.pool()),
        )
        .await?
        .map(TryInto::try_into)
        .transpose()
    }

    /// Tombstones and gone tenants included.
    pub async fn tenant_by_id(&self, id: TenantId) -> Result<Option<TenantRecord>> {
        bounded(
            sqlx::query_as!(
                Row,
                r#"SELECT t.id, t.slug, t.display_name, t.desired, t.generation, t.observed_generation, t.template, t.backend,
                   t.memory_bytes, t.cpu_millis, t.pids, t.conditions AS "conditions: Json<Vec<Condition>>", t.settings_version,
                   t.api_key_sha256, t.created_at, t.updated_at, t.deleted_at,
                   p.port AS "port?", s.base AS "subnet_base?", s.prefix AS "subnet_prefix?"
                   FROM tenant t LEFT JOIN port_lease p ON p.tenant_id = t.id LEFT JOIN subnet_lease s ON s.tenant_id = t.id
                   WHERE t.id = $1"#,
                id.uuid()
            )
            .fetch_optional(self.pool()),
        )
        .await?
        .map(TryInto::try_into)
        .transpose()
    }

    /// Locks the row for a change of intent until the transaction ends; answers its id, generation and wish.
    pub async fn lock_tenant(&self, tx: &mut Tx, slug: &Slug) -> Result<Option<(TenantId, u64, Desired)>> {
        bounded(
            sqlx::query!(
                "SELECT id, generation, desired FROM tenant WHERE slug = $1 AND deleted_at IS NULL FOR UPDATE",
                slug.as_str()
            )
            .fetch_optional(&mut **tx),
        )
        .await?
        .map(|row| Ok((TenantId::from_uuid(row.id), unsigned(row.generation), row.desired.parse()?)))
        .transpose()
    }

    pub async fn insert_tenant(&self, tx: &mut Tx, t: &Tenant) -> Result<()> {
        let inserted = sqlx::query!(
            "INSERT INTO tenant (id, slug, display_name, desired, generation, observed_generation, template, backend,
             memory_bytes, cpu_millis, pids, conditions, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $13)",
            t.id.uuid(),
            t.slug.as_str(),
            t.display_name,
            t.desired.as_str(),
            signed(t.generation),
            signed(t.observed_generation),
            t.template,
            t.backend.as_str(),
            signed(t.limits.memory_bytes),
            i32::try_from(t.limits.cpu_millis).unwrap_or(i32::MAX),
            i32::try_from(t.limits.pids).unwrap_or(i32::MAX),
            Json(&t.conditions) as _,
            t.created_at
        )
        .execute(&mut **tx);
        match tokio::time::timeout(super::STATEMENT_TIMEOUT, inserted).await {
            Err(_) => Err(Error::timeout("the database")),
            Ok(Err(e)) if super::violates(&e, "tenant_slug_live") => {
                Err(Error::conflict(format!("slug '{}' is taken; choose another", t.slug)).with_source(e))
            }
            Ok(Err(e)) => Err(super::from_sqlx(e)),
            Ok(Ok(_)) => Ok(()),
        }
    }

    /// Writes a new wish; answers the new generation.
    pub async fn set_desired(&self, tx: &mut Tx, id: TenantId, desired: Desired) -> Result<u64> {
        let now = self.clock().now();
        bounded(
            sqlx::query_scalar!(
                "UPDATE tenant SET desired = $2, generation = generation + 1, updated_at = $3 WHERE id = $1 RETURNING generation",
                id.uuid(),
                desired.as_str(),
                now
            )
            .fetch_one(&mut **tx),
        )
        .await
        .map(unsigned)
    }

    /// What was seen, written only under `fence`. Answers whether it was.
    pub async fn write_status(
        &self,
        tx: &mut Tx,
        id: TenantId,
        fence: Fence,
        conditions: &[Condition],
        settled: bool,
    ) -> Result<bool> {
        let now = self.clock().now();
        bounded(
            sqlx::query!(
                "UPDATE tenant SET conditions = $4, updated_at = $5,
                 observed_generation = CASE WHEN $6 THEN $3 ELSE observed_generation END
                 WHERE id = $1 AND generation = $3 AND EXISTS (SELECT 1 FROM leader WHERE epoch = $2)",
                id.uuid(),
                fence.epoch,
                signed(fence.generation),
                Json(conditions) as _,
                now,
                settled
            )
            .execute(&mut **tx),
        )
        .await
        .map(|done| done.rows_affected() == 1)
    }

    /// Locks the row against other writers if `fence` still holds; answers whether it does.
    pub async fn hold_fence(&self, tx: &mut Tx, id: TenantId, fence: Fence) -> Result<bool> {
        bounded(
            sqlx::query!(
                "SELECT 1 AS one FROM tenant WHERE id = $1 AND generation = $3 AND deleted_at IS NULL
                 AND EXISTS (SELECT 1 FROM leader WHERE epoch = $2) FOR UPDATE",
                id.uuid(),
                fence.epoch,
                signed(fence.generation)
            )
            .fetch_optional(&mut **tx),
        )
        .await
        .map(|row| row.is_some())
    }

    /// Ends the tombstone: the backend lists nothing of it any more.
    pub async fn mark_gone(&self, tx: &mut Tx, id: TenantId, fence: Fence) -> Result<bool> {
        let now = self.clock().now();
        bounded(
            sqlx::query!(
                "UPDATE tenant SET deleted_at = $4, updated_at = $4, observed_generation = generation WHERE id = $1
                 AND desired = 'deleted' AND generation = $3 AND EXISTS (SELECT 1 FROM leader WHERE epoch = $2)",
                id.uuid(),
                fence.epoch,
                signed(fence.generation),
                now
            )
            .execute(&mut **tx),
        )
        .await
        .map(|done| done.rows_affected() == 1)
    }

    /// The runner must be told anew: secrets or the API key changed.
    pub async fn bump_settings(&self, tx: &mut Tx, id: TenantId) -> Result<()> {
        let now = self.clock().now();
        bounded(
            sqlx::query!(
                "UPDATE tenant SET settings_version = settings_version + 1, updated_at = $2 WHERE id = $1",
                id.uuid(),
                now
            )
            .execute(&mut **tx),
        )
        .await
        .map(|_| ())
    }

    pub async fn set_api_key(&self, tx: &mut Tx, id: TenantId, sha256: &[u8]) -> Result<()> {
        bounded(
            sqlx::query!("UPDATE tenant SET api_key_sha256 = $2 WHERE id = $1", id.uuid(), sha256).execute(&mut **tx),
        )
        .await?;
        self.bump_settings(tx, id).await
    }

    pub(super) async fn purge_tenants(&self, before: DateTime<Utc>) -> Result<u64> {
        patient(sqlx::query!("DELETE FROM tenant WHERE deleted_at < $1", before).execute(self.pool()))
            .await
            .map(|done| done.rows_affected())
    }
}
