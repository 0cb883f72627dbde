//! Jobs from outside that are put on the queue once: a caller that got no answer sends its request again with the same key and
//! is told the same job.
//!
//! Always true here: the key is stored in the transaction of its job; a key stands for one request only, until it is forgotten.

use crate::Engine;
use crate::error::{EngineError, Result};
use crate::queue::{Enqueued, JobId, NewJob};
use crate::retention::Keep;
use crate::store::to_micros;
use chrono::Duration;
use nexaas_common::clock::SharedClock;
use rusqlite::{OptionalExtension as _, params};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

const LONGEST_KEY: usize = 200;

pub(crate) const KEEP: Keep = Keep {
    table: "intake_keys",
    sql: "DELETE FROM intake_keys WHERE key IN (
              SELECT key FROM intake_keys WHERE created_at < :before OR created_at <= (
                  SELECT created_at FROM intake_keys ORDER BY created_at DESC LIMIT 1 OFFSET :rows)
              ORDER BY created_at LIMIT :at_once)",
    rows: 200_000,
    age: Duration::days(1),
};

impl Engine {
    /// Puts the job that `spec` describes on the queue; with a key, once for that key. Another job under the same key is a
    /// conflict.
    pub async fn enqueue_from(&self, spec: Value, key: Option<String>, clock: &SharedClock) -> Result<Enqueued> {
        let now = clock.now();
        let job = NewJob::from_json(&spec, now)?;
        let Some(key) = key else { return self.queue().enqueue_with(job).await };
        if key.is_empty() || key.len() > LONGEST_KEY || !key.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
            let rule = format!("must be 1 to {LONGEST_KEY} visible characters");
            return Err(EngineError::invalid("Idempotency-Key", rule));
        }
        let hash: [u8; 32] = Sha256::digest(spec.to_string()).into();
        let queue = self.queue().clone();
        self.store()
            .write(move |tx| {
                let known: Option<([u8; 32], [u8; 16])> = tx
                    .prepare_cached("SELECT request, job_id FROM intake_keys WHERE key = ?1")?
                    .query_row([&key], |row| Ok((row.get(0)?, row.get(1)?)))
                    .optional()?;
                if let Some((request, job)) = known {
                    if request != hash {
                        return Err(EngineError::conflict("This Idempotency-Key was used for another job"));
                    }
                    return Ok(Enqueued { id: JobId::from_uuid(Uuid::from_bytes(job)), existed: true });
                }
                let enqueued = queue.enqueue_in(tx, &job)?;
                tx.prepare_cached(
                    "INSERT INTO intake_keys (key, request, job_id, created_at) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![key, hash, enqueued.id.uuid().as_bytes(), to_micros(now)])?;
                Ok(enqueued)
            })
            .await
    }
}
