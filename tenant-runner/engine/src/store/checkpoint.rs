//! Bringing what the log holds back into the file. That takes tens of milliseconds after a burst, and SQLite would have the
//! writer do it within a commit, before anybody is answered. Here a helper does the bulk of it beside the writer, over a
//! connection of its own, and the writer the little that came meanwhile: only it can see to it that nothing is left, so that
//! the log begins anew.
//!
//! Always true here: the log grows beyond `MOST` pages only by what a single transaction adds, or while a reader holds on to an
//! old state.

use super::pragmas;
use crate::error::Result;
use rusqlite::Connection;
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// The helper is called whenever the log has grown by so many pages (16 MiB): rarely enough to share the work of pages that
/// change often, early enough to stay small.
const STEP: u32 = 4000;
/// The writer waits for no helper any longer (64 MiB).
const MOST: u32 = 4 * STEP;
/// So few pages the writer does itself in passing.
const FEW: u32 = 256;
/// Times that the helper tries to catch up with the writer, each time with less to do.
const ROUNDS: usize = 4;

thread_local! {
    /// The length of the log after the last commit of this thread's connection. A hook can hold nothing.
    static LENGTH: Cell<u32> = const { Cell::new(0) };
}

/// Used by the writer's thread alone.
#[derive(Debug)]
pub(super) struct Checkpoints {
    path: PathBuf,
    helper: Option<Helper>,
    /// The helper has left the writer little to do.
    nearly_done: Arc<AtomicBool>,
    /// The length at which the helper was last called.
    called_at: u32,
}

#[derive(Debug)]
struct Helper {
    call: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl Checkpoints {
    pub fn new(path: PathBuf) -> Self {
        Self { path, helper: None, nearly_done: Arc::default(), called_at: 0 }
    }

    /// From now on commits of `connection` are counted, and bring nothing back by themselves.
    pub fn watch(connection: &Connection) {
        connection.wal_hook(Some(|_, pages| {
            LENGTH.set(u32::try_from(pages).unwrap_or(u32::MAX));
            Ok(())
        }));
    }

    /// After a transaction, when everybody was answered.
    pub fn after_commit(&mut self, connection: &Connection) {
        let length = LENGTH.get();
        if length < self.called_at {
            // The log has begun anew.
            self.called_at = 0;
        }
        if length >= MOST || self.nearly_done.swap(false, Ordering::AcqRel) {
            if let Err(error) = bring_back(connection) {
                tracing::warn!(%error, "the database's log could not be brought back into its file yet");
            }
        } else if length >= self.called_at + STEP {
            self.called_at = length;
            self.call();
        }
    }

    fn call(&mut self) {
        if self.helper.is_none() {
            let (call, calls) = sync_channel(1);
            let (path, nearly_done) = (self.path.clone(), self.nearly_done.clone());
            match std::thread::Builder::new()
                .name("store-checkpoint".into())
                .spawn(move || help(&path, &calls, &nearly_done))
            {
                Ok(thread) => self.helper = Some(Helper { call, thread }),
                // The writer does it when the log is at its longest.
                Err(error) => tracing::warn!(%error, "no helper for the database's log"),
            }
        }
        if let Some(helper) = &self.helper {
            // One that is at work already will look again.
            let _ = helper.call.try_send(());
        }
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        if let Some(Helper { call, thread }) = self.helper.take() {
            drop(call);
            // It does not panic; and if it did, nothing of it would be missed.
            let _ = thread.join();
        }
    }
}

fn help(path: &Path, calls: &Receiver<()>, nearly_done: &AtomicBool) {
    let mut connection = None;
    while calls.recv().is_ok() {
        match catch_up(path, &mut connection) {
            Ok(left) => nearly_done.store(left <= FEW, Ordering::Release),
            Err(error) => {
                tracing::warn!(error = error.chain(), "the database's log could not be brought back beside the writer");
                connection = None;
            }
        }
    }
}

/// Answers how many pages are left.
fn catch_up(path: &Path, connection: &mut Option<Connection>) -> Result<u32> {
    let connection = match connection {
        Some(connection) => connection,
        none => none.insert(pragmas::open_helper(path)?),
    };
    let mut left = u32::MAX;
    for _ in 0..ROUNDS {
        let still = bring_back(connection)?;
        if still <= FEW || still >= left {
            return Ok(still);
        }
        left = still;
    }
    Ok(left)
}

/// As much as goes without waiting for anybody; answers how many pages are left.
fn bring_back(connection: &Connection) -> rusqlite::Result<u32> {
    let mut statement = connection.prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")?;
    statement.query_row([], |row| {
        let (busy, length, back): (bool, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        // Somebody else is at it, and nothing is known.
        Ok(if busy { u32::MAX } else { u32::try_from(length - back).unwrap_or(u32::MAX) })
    })
}
