//! State in memory that goes with the database. What a queue or a bus remembers between writes must never differ from what is
//! on disk: a companion hears of each undone write, may write once more before the commit, and learns what became of it.

use crate::error::Result;
use rusqlite::Connection;
use std::sync::{Arc, PoisonError, RwLock};

/// Called on the writer's thread only.
pub(crate) trait Companion: Send + Sync + std::fmt::Debug {
    /// A point to come back to, taken before each write.
    fn mark(&self) -> usize;
    /// A write was undone: forgets what it noted since `mark`.
    fn rewind(&self, mark: usize);
    /// Stores what belongs to this transaction, right before its commit.
    fn seal(&self, tx: &Connection) -> Result<()>;
    /// The transaction is over: on disk, or undone as a whole.
    fn settle(&self, kept: bool);
}

/// All companions of one store.
#[derive(Debug, Default)]
pub(super) struct Companions(RwLock<Vec<Arc<dyn Companion>>>);

impl Companions {
    pub(super) fn join(&self, companion: Arc<dyn Companion>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(companion);
    }

    pub(super) fn all(&self) -> Vec<Arc<dyn Companion>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
