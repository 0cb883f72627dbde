//! Keeps the events of the memory files in step with the files.
//!
//! Always true here: an entry that did not change is not touched, so a follow-up that ran stays done over restarts; an entry
//! that went away takes its event with it; events that came from elsewhere are never touched.

use super::memory::MemoryEvent;
use crate::error::{EngineError, Kind, Result};
use crate::store::Store;
use async_trait::async_trait;
use rusqlite::params;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// Where events are kept, as far as the workspace is concerned.
#[async_trait]
pub trait EventSink: Send + Sync + std::fmt::Debug {
    /// Creates or replaces an event; the form is that of `POST /api/events`.
    async fn put(&self, event: Value) -> Result<()>;
    async fn remove(&self, id: &str) -> Result<()>;
}

pub(super) async fn memory(store: &Store, events: &dyn EventSink, wanted: &[MemoryEvent], now: i64) -> Result<()> {
    let mut known: BTreeMap<String, String> = store
        .read(|c| {
            let mut statement = c.prepare_cached("SELECT event_id, hash FROM memory_sync")?;
            let rows = statement.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await?;
    for event in wanted {
        let hash = hex::encode(Sha256::digest(event.json.to_string()));
        if known.remove(&event.id).as_deref() == Some(hash.as_str()) {
            continue;
        }
        if let Err(error) = events.put(event.json.clone()).await {
            if !matches!(error.kind, Kind::Invalid { .. }) {
                return Err(error);
            }
            tracing::warn!(
                event = event.id,
                error = error.public(),
                "an entry of a memory file is not usable as an event"
            );
            continue;
        }
        let id = event.id.clone();
        store
            .write(move |tx| {
                tx.execute(
                    "INSERT INTO memory_sync (event_id, hash, at) VALUES (?1, ?2, ?3)
                     ON CONFLICT (event_id) DO UPDATE SET hash = excluded.hash, at = excluded.at",
                    params![id, hash, now],
                )?;
                Ok(())
            })
            .await?;
    }
    for id in known.into_keys() {
        match events.remove(&id).await {
            Err(EngineError { kind: Kind::NotFound, .. }) | Ok(()) => {}
            Err(error) => return Err(error),
        }
        store.write(move |tx| Ok(tx.execute("DELETE FROM memory_sync WHERE event_id = ?1", [id])?)).await?;
    }
    Ok(())
}

/// A workspace without a scheduler says so.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoEvents;

#[async_trait]
impl EventSink for NoEvents {
    async fn put(&self, _: Value) -> Result<()> {
        Err(EngineError::unavailable("This engine runs without a scheduler"))
    }
    async fn remove(&self, _: &str) -> Result<()> {
        Err(EngineError::unavailable("This engine runs without a scheduler"))
    }
}
