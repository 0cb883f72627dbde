//! Table `operation`: requested changes and their steps.

use super::{Fence, Store, Tx, bounded, patient, signed, unsigned};
use crate::domain::operation::{Operation, OperationKind, OperationState, Step};
use crate::domain::{OperationId, TenantId};
use crate::error::{Error, Result};
use chrono::{DateTime, Utc};
use sqlx::types::Json;
use uuid::Uuid;

struct Row {
    id: Uuid,
    tenant_id: Uuid,
    kind: String,
    generation: i64,
    state: String,
    steps: Json<Vec<Step>>,
    error: Option<String>,
    created_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
    deadline: DateTime<Utc>,
}

impl TryFrom<Row> for Operation {
    type Error = Error;
    fn try_from(row: Row) -> Result<Self> {
        use OperationKind::{Create, Delete, Heal, Resume, Suspend, Update};
        use OperationState::{Failed, Running, Succeeded, Superseded};
        let kind = [Create, Suspend, Resume, Delete, Heal, Update].into_iter().find(|k| k.as_str() == row.kind);
        let state = [Running, Succeeded, Failed, Superseded].into_iter().find(|s| s.as_str() == row.state);
        let (Some(kind), Some(state)) = (kind, state) else {
            return Err(Error::internal(format!("operation {} has kind {} and state {}", row.id, row.kind, row.state)));
        };
        Ok(Self {
            id: OperationId::from_uuid(row.id),
            tenant_id: TenantId::from_uuid(row.tenant_id),
            kind,
            generation: unsigned(row.generation),
            state,
            steps: row.steps.0,
            error: row.error,
            created_at: row.created_at,
            finished_at: row.finished_at,
            deadline: row.deadline,
        })
    }
}

impl Store {
    /// Records a new operation and supersedes the tenant's running one.
    pub async fn insert_operation(&self, tx: &mut Tx, op: &Operation) -> Result<()> {
        bounded(
            sqlx::query!(
                "UPDATE operation SET state = 'superseded', finished_at = $2,
                 error = 'a newer change of this tenant replaced it' WHERE tenant_id = $1 AND state = 'running'",
                op.tenant_id.uuid(),
                op.created_at
            )
            .execute(&mut **tx),
        )
        .await?;
        bounded(
            sqlx::query!(
                "INSERT INTO operation (id, tenant_id, kind, generation, state, steps, error, created_at, finished_at, deadline)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
                op.id.uuid(),
                op.tenant_id.uuid(),
                op.kind.as_str(),
                signed(op.generation),
                op.state.as_str(),
                Json(&op.steps) as _,
                op.error,
                op.created_at,
                op.finished_at,
                op.deadline
            )
            .execute(&mut **tx),
        )
        .await
        .map(|_| ())
    }

    pub async fn operation(&self, id: OperationId) -> Result<Option<Operation>> {
        bounded(
            sqlx::query_as!(
                Row,
                r#"SELECT id, tenant_id, kind, generation, state, steps AS "steps: Json<Vec<Step>>", error, created_at,
                   finished_at, deadline FROM operation WHERE id = $1"#,
                id.uuid()
            )
            .fetch_optional(self.pool()),
        )
        .await?
        .map(TryInto::try_into)
        .transpose()
    }

    pub async fn running_operation(&self, tenant: TenantId) -> Result<Option<Operation>> {
        bounded(
            sqlx::query_as!(
                Row,
                r#"SELECT id, tenant_id, kind, generation, state, steps AS "steps: Json<Vec<Step>>", error, created_at,
                   finished_at, deadline FROM operation WHERE tenant_id = $1 AND state = 'running'"#,
                tenant.uuid()
            )
            .fetch_optional(self.pool()),
        )
        .await?
        .map(TryInto::try_into)
        .transpose()
    }

    /// The tenant's operations, newest first.
    pub async fn operations_of(&self, tenant: TenantId, limit: i64) -> Result<Vec<Operation>> {
        bounded(
            sqlx::query_as!(
                Row,
                r#"SELECT id, tenant_id, kind, generation, state, steps AS "steps: Json<Vec<Step>>", error, created_at,
                   finished_at, deadline FROM operation WHERE tenant_id = $1 ORDER BY created_at DESC, id DESC LIMIT $2"#,
                tenant.uuid(),
                limit
            )
            .fetch_all(self.pool()),
        )
        .await?
        .into_iter()
        .map(TryInto::try_into)
        .collect()
    }

    /// Writes an operation's steps and state while it still runs, under `fence`. Progress alone need not reach the disk
    /// before work goes on: after a crash of the database the steps are found done and recorded anew.
    pub async fn write_operation(&self, tx: &mut Tx, op: &Operation, fence: Fence) -> Result<bool> {
        bounded(
            sqlx::query!(
                "UPDATE operation SET steps = $4, state = $5, error = $6, finished_at = $7 WHERE id = $1 AND state = 'running'
                 AND generation = $3 AND EXISTS (SELECT 1 FROM leader WHERE epoch = $2)",
                op.id.uuid(),
                fence.epoch,
                signed(fence.generation),
                Json(&op.steps) as _,
                op.state.as_str(),
                op.error,
                op.finished_at
            )
            .execute(&mut **tx),
        )
        .await
        .map(|done| done.rows_affected() == 1)
    }

    /// Makes this transaction's commit return before the disk has it; only for progress that can be found out again.
    pub async fn relax(&self, tx: &mut Tx) -> Result<()> {
        bounded(sqlx::query!("SET LOCAL synchronous_commit = off").execute(&mut **tx)).await.map(|_| ())
    }

    pub(super) async fn purge_operations(&self, before: DateTime<Utc>) -> Result<u64> {
        patient(sqlx::query!("DELETE FROM operation WHERE finished_at < $1", before).execute(self.pool()))
            .await
            .map(|done| done.rows_affected())
    }
}
