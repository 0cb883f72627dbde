//! The one writer. It takes every write that waits, runs each in a savepoint of one transaction, commits once and then
//! answers all of them: the cost of reaching the disk is shared by whoever arrives meanwhile.

use super::PATIENCE;
use super::signal::Signals;
use crate::error::{EngineError, Result};
use rusqlite::Connection;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Writes that may wait for the writer.
const QUEUE: usize = 4096;
/// Writes that share one commit.
const BATCH: usize = 1024;

/// Runs one write; the answer holds what to keep and whom to tell.
type Write = Box<dyn FnOnce(&Connection) -> Applied + Send>;

struct Applied {
    keep: bool,
    /// Called with the fate of the batch, once that is known.
    acknowledge: Box<dyn FnOnce(Fate<'_>) + Send>,
}

/// Whether the transaction that held a write reached the disk.
type Fate<'a> = std::result::Result<(), &'a Arc<rusqlite::Error>>;

#[derive(Debug)]
pub(super) struct Writer(mpsc::Sender<Write>);

impl Writer {
    pub(super) fn start(connection: Connection, signals: Arc<Signals>) -> Result<Self> {
        let (sender, inbox) = mpsc::channel(QUEUE);
        std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || run(&connection, inbox, &signals))
            .map_err(|e| EngineError::unavailable("The database's writer cannot start").with_source(e))?;
        Ok(Self(sender))
    }

    pub(super) async fn submit<T, F>(&self, work: F) -> Result<T>
    where
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let (answer, outcome) = oneshot::channel();
        let write: Write = Box::new(move |connection| {
            let result = catch_unwind(AssertUnwindSafe(|| work(connection)))
                .unwrap_or_else(|_| Err(EngineError::internal("a write panicked")));
            let keep = result.is_ok();
            let acknowledge = Box::new(move |fate: Fate<'_>| {
                let result = result.and_then(|value| match fate {
                    Ok(()) => Ok(value),
                    Err(error) => Err(not_written(error)),
                });
                // Whoever asked may have left; the write stands either way.
                let _ = answer.send(result);
            });
            Applied { keep, acknowledge }
        });
        tokio::time::timeout(PATIENCE, self.0.send(write))
            .await
            .map_err(|_| EngineError::unavailable("The database is overloaded"))?
            .map_err(|_| EngineError::unavailable("The database is closed"))?;
        tokio::time::timeout(PATIENCE, outcome)
            .await
            .map_err(|_| EngineError::unavailable("The database does not say whether it stored the change"))?
            .map_err(|_| EngineError::unavailable("The database could not store the change"))?
    }
}

fn not_written(error: &Arc<rusqlite::Error>) -> EngineError {
    EngineError::unavailable("The database could not store the change").with_source(error.clone())
}

fn run(connection: &Connection, mut inbox: mpsc::Receiver<Write>, signals: &Signals) {
    while let Some(first) = inbox.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH {
            match inbox.try_recv() {
                Ok(next) => batch.push(next),
                Err(_) => break,
            }
        }
        metrics::histogram!("nexaas_store_batch_writes").record(batch.len() as f64);
        let mut rest = batch.into_iter().peekable();
        while rest.peek().is_some() {
            transaction(connection, &mut rest);
            signals.deliver();
        }
    }
    // A last checkpoint leaves a single file behind; without it the next open replays the log, which is as good.
    let _ = connection.pragma_update(None, "wal_checkpoint", "TRUNCATE");
}

/// One transaction with as many of `writes` as it can hold: all of them, unless SQLite itself gives the transaction up.
fn transaction(connection: &Connection, writes: &mut impl Iterator<Item = Write>) {
    let mut applied: Vec<Applied> = Vec::new();
    let outcome = statement(connection, "BEGIN IMMEDIATE").and_then(|()| {
        for write in writes.by_ref() {
            statement(connection, "SAVEPOINT write")?;
            let done = write(connection);
            let keep = done.keep;
            applied.push(done);
            if connection.is_autocommit() {
                // A full disk or a lack of memory makes SQLite roll everything back on its own.
                return Err(rusqlite::Error::SqliteFailure(
                    rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ABORT_ROLLBACK),
                    None,
                ));
            }
            if !keep {
                statement(connection, "ROLLBACK TO write")?;
            }
            statement(connection, "RELEASE write")?;
        }
        statement(connection, "COMMIT")
    });
    let outcome = outcome.map_err(Arc::new);
    if outcome.is_err() {
        if !connection.is_autocommit() {
            let _ = connection.execute_batch("ROLLBACK");
        }
        if applied.is_empty() {
            // The database does not even begin: whoever waits learns it at once, by their answer being dropped.
            writes.for_each(drop);
        }
    }
    for done in applied {
        (done.acknowledge)(outcome.as_ref().map(|_| ()));
    }
}

fn statement(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(|_| ())
}
