//! Table `audit`: who changed what. Written in the transaction of the change itself; each row's hash covers the one
//! before it, so a changed, missing or inserted row shows when the chain is verified.

use super::{Store, Tx, bounded};
use crate::domain::operator::{Principal, Via};
use crate::error::Result;
use chrono::{DateTime, Utc};
use sha2::{Digest as _, Sha256};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    pub seq: i64,
    pub at: DateTime<Utc>,
    pub actor: String,
    pub via: String,
    pub action: String,
    pub target: String,
    pub detail: String,
}

fn digest(previous: &[u8], row: &AuditRow) -> Vec<u8> {
    let mut hasher = Sha256::new();
    hasher.update(previous);
    // Each part is preceded by its length: no two different rows read the same.
    let micros = row.at.timestamp_micros().to_be_bytes();
    let seq = row.seq.to_be_bytes();
    let parts: [&[u8]; 7] = [
        &seq,
        &micros,
        row.actor.as_bytes(),
        row.via.as_bytes(),
        row.action.as_bytes(),
        row.target.as_bytes(),
        row.detail.as_bytes(),
    ];
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize().to_vec()
}

const fn via(via: Via) -> &'static str {
    match via {
        Via::Session => "session",
        Via::Token => "token",
        Via::Local => "local",
    }
}

impl Store {
    pub async fn audit(&self, tx: &mut Tx, by: &Principal, action: &str, target: &str, detail: &str) -> Result<()> {
        bounded(sqlx::query!("SELECT pg_advisory_xact_lock(7239003)").fetch_one(&mut **tx)).await?;
        let last =
            bounded(sqlx::query!("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetch_optional(&mut **tx))
                .await?;
        let (seq, previous) = last.map_or((1, Vec::new()), |row| (row.seq + 1, row.hash));
        // The database keeps microseconds; the hash must cover what will be read back.
        let at = self.clock().now();
        let at = DateTime::from_timestamp_micros(at.timestamp_micros()).unwrap_or(at);
        let row = AuditRow {
            seq,
            at,
            actor: by.username.clone(),
            via: via(by.via).to_owned(),
            action: action.to_owned(),
            target: target.to_owned(),
            detail: detail.to_owned(),
        };
        let hash = digest(&previous, &row);
        bounded(
            sqlx::query!(
                "INSERT INTO audit (seq, at, actor, via, action, target, detail, previous, hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
                row.seq,
                row.at,
                row.actor,
                row.via,
                row.action,
                row.target,
                row.detail,
                previous,
                hash
            )
            .execute(&mut **tx),
        )
        .await
        .map(|_| ())
    }

    /// Walks the chain; the answer is the number of the first row that does not fit, or `None`.
    pub async fn verify_audit(&self) -> Result<Option<i64>> {
        let mut previous = Vec::new();
        let mut expected = 1;
        loop {
            let rows = bounded(
                sqlx::query!(
                    "SELECT seq, at, actor, via, action, target, detail, previous, hash FROM audit WHERE seq >= $1 ORDER BY seq LIMIT 1000",
                    expected
                )
                .fetch_all(self.pool()),
            )
            .await?;
            if rows.is_empty() {
                return Ok(None);
            }
            for r in rows {
                let row = AuditRow {
                    seq: r.seq,
                    at: r.at,
                    actor: r.actor,
                    via: r.via,
                    action: r.action,
                    target: r.target,
                    detail: r.detail,
                };
                if row.seq != expected || r.previous != previous || r.hash != digest(&previous, &row) {
                    return Ok(Some(expected));
                }
                previous = r.hash;
                expected += 1;
            }
        }
    }

    /// Newest first.
    pub async fn audit_rows(&self, limit: i64) -> Result<Vec<AuditRow>> {
        bounded(
            sqlx::query_as!(
                AuditRow,
                "SELECT seq, at, actor, via, action, target, detail FROM audit ORDER BY seq DESC LIMIT $1",
                limit
            )
            .fetch_all(self.pool()),
        )
        .await
    }
}
