//! The engine's memory: one SQLite file, one writer thread, a few readers.
//!
//! Always true here: a write that was acknowledged is on disk (`synchronous=FULL`); a write that failed left nothing behind;
//! whoever waits for the store waits no longer than `PATIENCE`; what depends on a write (`Signal`) hears of it after its commit.

mod checkpoint;
mod companion;
mod faults;
mod migrations;
mod pragmas;
mod readers;
mod signal;
mod writer;

#[cfg(test)]
mod tests;

pub(crate) use companion::Companion;
pub use faults::{Fault, Faults, Point};
pub use signal::Signal;
pub(crate) use writer::{Answer, Reserved, answered};

use crate::error::{EngineError, Result};
use chrono::{DateTime, Utc};
use nexaas_common::clock::SharedClock;
use rusqlite::Connection;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long a caller waits for its turn.
const PATIENCE: Duration = Duration::from_secs(10);

/// A handle on the database; clones share it. The file is closed when the last handle is gone.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    writer: writer::Writer,
    readers: readers::Readers,
    signals: Arc<signal::Signals>,
    companions: Arc<companion::Companions>,
}

/// How a store is opened.
#[derive(Debug, Clone, Default)]
pub struct StoreOptions {
    /// For simulations; none in a real engine.
    pub faults: Option<Arc<dyn Faults>>,
}

impl Store {
    /// Opens or creates the database at `path` and brings its schema up to date.
    pub async fn open(path: &Path, clock: &SharedClock) -> Result<Self> {
        Self::open_with(path, clock, StoreOptions::default()).await
    }

    pub async fn open_with(path: &Path, clock: &SharedClock, options: StoreOptions) -> Result<Self> {
        let (path, now) = (path.to_owned(), clock.now());
        tokio::task::spawn_blocking(move || Self::open_blocking(&path, now, options))
            .await
            .map_err(EngineError::internal)?
    }

    fn open_blocking(path: &Path, now: DateTime<Utc>, options: StoreOptions) -> Result<Self> {
        pragmas::create_private(path)?;
        let mut connection = pragmas::open_writer(path)?;
        migrations::apply(&mut connection, now)?;
        let signals = Arc::new(signal::Signals::default());
        let readers = readers::Readers::new(path.to_owned());
        let companions = Arc::new(companion::Companions::default());
        let writer = writer::Writer::start(writer::Setup {
            connection,
            signals: signals.clone(),
            companions: companions.clone(),
            faults: options.faults,
            checkpoints: checkpoint::Checkpoints::new(path.to_owned()),
        })?;
        Ok(Self(Arc::new(Inner { writer, readers, signals, companions })))
    }

    /// Runs `work` in a transaction, together with whatever other writes are waiting, and answers once it is on disk.
    /// An error (or a panic) of `work` undoes this write alone. `work` must not begin or end transactions itself.
    pub async fn write<T, F>(&self, work: F) -> Result<T>
    where
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        self.0.writer.submit(writer::Undo::Savepoint, work).await
    }

    /// As `write`, for `work` that has changed nothing when it fails: it spares the savepoint. Should it have changed
    /// something nevertheless, every write of the same commit is undone and refused.
    pub async fn write_light<T, F>(&self, work: F) -> Result<T>
    where
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        self.0.writer.submit(writer::Undo::Nothing, work).await
    }

    /// A place at the writer, if one is free at once.
    pub(crate) fn try_reserve(&self) -> Option<Reserved<'_>> {
        self.0.writer.try_reserve()
    }

    /// Lets `companion` take part in every transaction from now on.
    pub(crate) fn join(&self, companion: Arc<dyn Companion>) {
        self.0.companions.join(companion);
    }

    /// Runs `work` on one consistent snapshot of what is committed. It cannot write.
    pub async fn read<T, F>(&self, work: F) -> Result<T>
    where
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        self.0.readers.run(work).await
    }

    /// Writes and reads once, to see that both work.
    pub async fn check(&self) -> Result<()> {
        self.write(|tx| Ok(tx.pragma_update(None, "user_version", 1)?)).await?;
        self.read(|c| Ok(c.query_row("SELECT count(*) FROM migrations", [], |_| Ok(()))?)).await
    }

    /// A new signal that, when raised inside a write, is heard after that write is on disk.
    pub fn signal(&self) -> Signal {
        self.0.signals.register()
    }
}

/// A time as it is stored: microseconds since the epoch.
pub fn to_micros(at: DateTime<Utc>) -> i64 {
    at.timestamp_micros()
}

/// The time that `to_micros` stored; a number no calendar holds becomes the nearest end of time.
pub fn from_micros(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(micros).unwrap_or(if micros < 0 {
        DateTime::<Utc>::MIN_UTC
    } else {
        DateTime::<Utc>::MAX_UTC
    })
}
