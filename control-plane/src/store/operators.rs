//! Table `operator`: the people who run the control plane.

use super::{Store, Tx, bounded};
use crate::domain::OperatorId;
use crate::domain::operator::{Operator, Role};
use crate::error::{Error, Result};
use chrono::{DateTime, Utc};
use uuid::Uuid;

pub fn parse_role(text: &str) -> Result<Role> {
    [Role::Viewer, Role::Operator, Role::Owner]
        .into_iter()
        .find(|r| r.as_str() == text)
        .ok_or_else(|| Error::invalid("role", format!("'{text}' is not one of viewer, operator, owner")))
}

struct Row {
    id: Uuid,
    username: String,
    password_hash: String,
    role: String,
    token_version: i64,
    created_at: DateTime<Utc>,
}

impl Row {
    fn split(self) -> Result<(Operator, String)> {
        let operator = Operator {
            id: OperatorId::from_uuid(self.id),
            username: self.username,
            role: parse_role(&self.role)?,
            token_version: self.token_version,
            created_at: self.created_at,
        };
        Ok((operator, self.password_hash))
    }
}

impl Store {
    /// Locks out other creators and answers how many there are.
    pub async fn count_operators(&self, tx: &mut Tx) -> Result<i64> {
        bounded(sqlx::query!("LOCK TABLE operator IN SHARE ROW EXCLUSIVE MODE").execute(&mut **tx)).await?;
        bounded(sqlx::query_scalar!(r#"SELECT count(*) AS "n!" FROM operator"#).fetch_one(&mut **tx)).await
    }

    pub async fn insert_operator(&self, tx: &mut Tx, operator: &Operator, password_hash: &str) -> Result<()> {
        let work = sqlx::query!(
            "INSERT INTO operator (id, username, password_hash, role, token_version, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
            operator.id.uuid(),
            operator.username,
            password_hash,
            operator.role.as_str(),
            operator.token_version,
            operator.created_at
        )
        .execute(&mut **tx);
        match work.await {
            Ok(_) => Ok(()),
            Err(e) if super::violates(&e, "operator_username_key") => {
                Err(Error::conflict(format!("username '{}' is taken", operator.username)))
            }
            Err(e) => Err(super::from_sqlx(e)),
        }
    }

    /// The operator and the stored hash.
    pub async fn operator_by_name(&self, username: &str) -> Result<Option<(Operator, String)>> {
        bounded(
            sqlx::query_as!(
                Row,
                "SELECT id, username, password_hash, role, token_version, created_at FROM operator WHERE username = $1",
                username
            )
            .fetch_optional(self.pool()),
        )
        .await?
        .map(Row::split)
        .transpose()
    }

    pub async fn operator_by_id(&self, id: OperatorId) -> Result<Option<Operator>> {
        bounded(
            sqlx::query_as!(
                Row,
                "SELECT id, username, password_hash, role, token_version, created_at FROM operator WHERE id = $1",
                id.uuid()
            )
            .fetch_optional(self.pool()),
        )
        .await?
        .map(|row| row.split().map(|(operator, _)| operator))
        .transpose()
    }

    pub async fn operators(&self) -> Result<Vec<Operator>> {
        bounded(
            sqlx::query_as!(
                Row,
                "SELECT id, username, password_hash, role, token_version, created_at FROM operator ORDER BY username"
            )
            .fetch_all(self.pool()),
        )
        .await?
        .into_iter()
        .map(|row| row.split().map(|(operator, _)| operator))
        .collect()
    }

    /// Ends every session of the operator; with `password_hash`, also changes the password.
    pub async fn bump_token_version(&self, tx: &mut Tx, id: OperatorId, password_hash: Option<&str>) -> Result<()> {
        bounded(
            sqlx::query!(
                "UPDATE operator SET token_version = token_version + 1, password_hash = coalesce($2, password_hash) WHERE id = $1",
                id.uuid(),
                password_hash
            )
            .execute(&mut **tx),
        )
        .await
        .map(|_| ())
    }
}
