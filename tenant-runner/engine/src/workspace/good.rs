//! Remembers the last usable text of each file over restarts, so that a file that is broken when the engine starts still has
//! a last good version.
//!
//! Always true here: a file that is broken keeps what is remembered of it; a file that is gone is forgotten; files that may
//! hold secrets are never remembered.

use super::load::Loaded;
use super::mcp;
use crate::error::Result;
use crate::store::Store;
use rusqlite::params;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// What is remembered, as hashes of the texts.
pub(super) type Remembered = BTreeMap<String, [u8; 32]>;

fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

pub(super) async fn recall(store: &Store) -> Result<(BTreeMap<String, String>, Remembered)> {
    let texts: BTreeMap<String, String> = store
        .read(|c| {
            let mut statement = c.prepare("SELECT path, content FROM workspace_good")?;
            let rows = statement.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await?;
    let hashes = texts.iter().map(|(path, text)| (path.clone(), hash(text))).collect();
    Ok((texts, hashes))
}

/// Brings what is remembered in step with a load.
pub(super) async fn remember(store: &Store, known: &mut Remembered, loaded: Loaded, now: i64) -> Result<()> {
    // A folder that cannot be listed, or a root that cannot be opened, says nothing about the files in it.
    let unsure = |path: &str| loaded.broken.iter().any(|b| b == "." || b == path || path.starts_with(&format!("{b}/")));
    let gone: Vec<String> = known.keys().filter(|p| !loaded.texts.contains_key(*p) && !unsure(p)).cloned().collect();
    let changed: Vec<(String, String)> = loaded
        .texts
        .iter()
        .filter(|(path, text)| path.as_str() != mcp::FILE && !unsure(path) && known.get(*path) != Some(&hash(text)))
        .map(|(path, text)| (path.clone(), text.clone()))
        .collect();
    if gone.is_empty() && changed.is_empty() {
        return Ok(());
    }
    for path in &gone {
        known.remove(path);
    }
    known.extend(changed.iter().map(|(path, text)| (path.clone(), hash(text))));
    store
        .write(move |tx| {
            let mut forget = tx.prepare_cached("DELETE FROM workspace_good WHERE path = ?1")?;
            for path in &gone {
                forget.execute([path])?;
            }
            let mut keep = tx.prepare_cached(
                "INSERT INTO workspace_good (path, content, at) VALUES (?1, ?2, ?3)
                 ON CONFLICT (path) DO UPDATE SET content = excluded.content, at = excluded.at",
            )?;
            for (path, text) in &changed {
                keep.execute(params![path, text, now])?;
            }
            Ok(())
        })
        .await
}
