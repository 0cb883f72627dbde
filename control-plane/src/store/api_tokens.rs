//! Table `api_token`: only the hash is kept; an expired token is dead at once and forgotten after a week.

use super::operators::parse_role;
use super::{Store, Tx, bounded, patient};
use crate::domain::OperatorId;
use crate::domain::operator::Role;
use crate::error::Result;
use chrono::{DateTime, Utc};
use uuid::Uuid;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiToken {
    pub id: Uuid,
    pub operator_id: OperatorId,
    pub name: String,
    pub role: Role,
    pub created_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
    pub last_used_at: Option<DateTime<Utc>>,
}

impl Store {
    pub async fn insert_token(&self, tx: &mut Tx, token: &ApiToken, sha256: &[u8]) -> Result<()> {
        bounded(
            sqlx::query!(
                "INSERT INTO api_token (id, operator_id, name, role, sha256, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7)",
                token.id,
                token.operator_id.uuid(),
                token.name,
                token.role.as_str(),
                sha256,
                token.created_at,
                token.expires_at
            )
            .execute(&mut **tx),
        )
        .await
        .map(|_| ())
    }

    /// The operator's id and name, their own role and the token's, when the token lives.
    pub async fn token_owner(&self, sha256: &[u8]) -> Result<Option<(OperatorId, String, Role, Role)>> {
        let row = bounded(
            sqlx::query!(
                "UPDATE api_token t SET last_used_at = $2 FROM operator o
                 WHERE t.operator_id = o.id AND t.sha256 = $1 AND t.expires_at > $2
                 RETURNING o.id, o.username, o.role AS own_role, t.role AS token_role",
                sha256,
                self.clock().now()
            )
            .fetch_optional(self.pool()),
        )
        .await?;
        row.map(|r| Ok((OperatorId::from_uuid(r.id), r.username, parse_role(&r.own_role)?, parse_role(&r.token_role)?)))
            .transpose()
    }

    pub async fn tokens_of(&self, operator: OperatorId) -> Result<Vec<ApiToken>> {
        let rows = bounded(
            sqlx::query!(
                "SELECT id, operator_id, name, role, created_at, expires_at, last_used_at FROM api_token
                 WHERE operator_id = $1 ORDER BY created_at",
                operator.uuid()
            )
            .fetch_all(self.pool()),
        )
        .await?;
        rows.into_iter()
            .map(|r| {
                Ok(ApiToken {
                    id: r.id,
                    operator_id: OperatorId::from_uuid(r.operator_id),
                    name: r.name,
                    role: parse_role(&r.role)?,
                    created_at: r.created_at,
                    expires_at: r.expires_at,
                    last_used_at: r.last_used_at,
                })
            })
            .collect()
    }

    /// Answers whether the operator had it.
    pub async fn remove_token(&self, tx: &mut Tx, operator: OperatorId, id: Uuid) -> Result<bool> {
        bounded(
            sqlx::query!("DELETE FROM api_token WHERE id = $1 AND operator_id = $2", id, operator.uuid())
                .execute(&mut **tx),
        )
        .await
        .map(|done| done.rows_affected() == 1)
    }

    pub(super) async fn purge_tokens(&self, before: DateTime<Utc>) -> Result<u64> {
        patient(sqlx::query!("DELETE FROM api_token WHERE expires_at < $1", before).execute(self.pool()))
            .await
            .map(|done| done.rows_affected())
    }
}
