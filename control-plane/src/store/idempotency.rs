//! Table `idempotency`: the answer a repeated request gets again. Kept for a day.

use super::{Store, Tx, bounded, patient};
use crate::domain::OperationId;
use crate::error::{Error, Result};
use chrono::{DateTime, Utc};

impl Store {
    /// The operation that the same caller's same request began earlier. The same key with another request is refused.
    pub async fn replayed(
        &self,
        tx: &mut Tx,
        caller: &str,
        key: &str,
        request_hash: &[u8],
    ) -> Result<Option<OperationId>> {
        let row = bounded(
            sqlx::query!(
                "SELECT request_hash, operation_id FROM idempotency WHERE caller = $1 AND key = $2",
                caller,
                key
            )
            .fetch_optional(&mut **tx),
        )
        .await?;
        match row {
            None => Ok(None),
            Some(row) if row.request_hash == request_hash => Ok(Some(OperationId::from_uuid(row.operation_id))),
            Some(_) => Err(Error::invalid("Idempotency-Key", "was already used for a different request")),
        }
    }

    pub async fn remember(
        &self,
        tx: &mut Tx,
        caller: &str,
        key: &str,
        request_hash: &[u8],
        operation: OperationId,
    ) -> Result<()> {
        bounded(
            sqlx::query!(
                "INSERT INTO idempotency (caller, key, request_hash, operation_id, created_at) VALUES ($1, $2, $3, $4, $5)",
                caller,
                key,
                request_hash,
                operation.uuid(),
                self.clock().now()
            )
            .execute(&mut **tx),
        )
        .await
        .map(|_| ())
    }

    pub(super) async fn purge_idempotency(&self, before: DateTime<Utc>) -> Result<u64> {
        patient(sqlx::query!("DELETE FROM idempotency WHERE created_at < $1", before).execute(self.pool()))
            .await
            .map(|done| done.rows_affected())
    }
}
