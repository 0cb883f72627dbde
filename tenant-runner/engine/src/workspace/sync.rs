//! Keeps the events of the memory files in step with the files.
//!
//! Always true here: an entry that did not change is not touched, so a follow-up that ran stays done over restarts; an entry
//! that went away takes its event with it; events that came from elsewhere are never touched.

use super::memory::MemoryEvent;
use crate::error::{EngineError, Kind, Result};
use crate::event::Events;
use crate::store::Store;
use rusqlite::params;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

pub(super) async fn memory(store: &Store, events: &Events, wanted: &[MemoryEvent], now: i64) -> Result<()> {
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
        let (events, id, json) = (events.clone(), event.id.clone(), event.json.clone());
        let written = store
            .write(move |tx| {
                events.upsert_in(tx, json)?;
                tx.execute(
                    "INSERT INTO memory_sync (event_id, hash, at) VALUES (?1, ?2, ?3)
                     ON CONFLICT (event_id) DO UPDATE SET hash = excluded.hash, at = excluded.at",
                    params![id, hash, now],
                )?;
                Ok(())
            })
            .await;
        match written {
            Ok(()) => {}
            // Its author can mend it; the others must not wait for that.
            Err(error) if matches!(error.kind, Kind::Invalid { .. } | Kind::Conflict) => {
                tracing::warn!(
                    event = event.id,
                    error = error.public(),
                    "an entry of a memory file is not usable as an event"
                );
            }
            Err(error) => return Err(error),
        }
    }
    for id in known.into_keys() {
        let events = events.clone();
        store
            .write(move |tx| {
                tx.execute("DELETE FROM memory_sync WHERE event_id = ?1", [&id])?;
                match events.delete_in(tx, &id) {
                    // Somebody deleted it already.
                    Err(EngineError { kind: Kind::NotFound, .. }) | Ok(()) => Ok(()),
                    Err(error) => Err(error),
                }
            })
            .await?;
    }
    Ok(())
}
