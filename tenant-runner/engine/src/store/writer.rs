//! The one writer. It takes every write that waits, runs them in one transaction, commits once and then answers all of them:
//! the cost of reaching the disk is shared by whoever arrives meanwhile.

use super::PATIENCE;
use super::checkpoint::Checkpoints;
use super::companion::{Companion, Companions};
use super::faults::{Fault, Faults, Point};
use super::signal::Signals;
use crate::error::{EngineError, Kind, Result};
use rusqlite::Connection;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

/// Writes that may wait for the writer.
const QUEUE: usize = 4096;
/// Writes that share one commit.
const BATCH: usize = 1024;
const NOT_STORED: &str = "The database could not store the change";

/// How a write is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Undo {
    /// By a savepoint of its own.
    Savepoint,
    /// Not at all: it changes nothing when it fails.
    Nothing,
    /// By its transaction, in which it is alone: it spares a savepoint, for which SQLite would copy each page that changes.
    Transaction,
}

struct Write {
    undo: Undo,
    /// Runs the write; the answer holds what to keep and whom to tell.
    run: Box<dyn FnOnce(&Connection) -> Applied + Send>,
}

struct Applied {
    keep: bool,
    /// Called with the fate of the batch, once that is known.
    acknowledge: Box<dyn FnOnce(Fate<'_>) + Send>,
}

/// Whether the transaction that held a write reached the disk.
type Fate<'a> = std::result::Result<(), &'a Arc<EngineError>>;

#[derive(Debug)]
pub(super) struct Writer(mpsc::Sender<Write>);

/// A place in the line to the writer.
pub(crate) struct Reserved<'a>(mpsc::Permit<'a, Write>);

/// What to tell one of many callers, if the transaction reaches the disk.
pub(crate) struct Answer<T> {
    pub to: oneshot::Sender<Result<T>>,
    pub what: Result<T>,
}

impl Reserved<'_> {
    /// A write for many callers, each with an answer of its own. `work` as a whole fails only if it must be undone with
    /// everything else in its transaction, or has changed nothing; then nobody's answer is sent.
    pub fn write_many<T, F>(self, work: F)
    where
        F: FnOnce(&Connection) -> Result<Vec<Answer<T>>> + Send + 'static,
        T: Send + 'static,
    {
        let run = Box::new(move |connection: &Connection| {
            let answers = attempt(work, connection);
            let keep = answers.is_ok();
            if let Err(error) = &answers {
                tracing::error!(error = error.chain(), "a write for many callers failed");
            }
            let acknowledge = Box::new(move |fate: Fate<'_>| {
                for Answer { to, what } in answers.into_iter().flatten() {
                    // Whoever asked may have left; the write stands either way.
                    let _ = to.send(what.and_then(|value| fate.map(|()| value).map_err(not_written)));
                }
            });
            Applied { keep, acknowledge }
        });
        self.0.send(Write { undo: Undo::Nothing, run });
    }
}

/// What the writer's thread works with.
pub(super) struct Setup {
    pub connection: Connection,
    pub signals: Arc<Signals>,
    pub companions: Arc<Companions>,
    pub faults: Option<Arc<dyn Faults>>,
    pub checkpoints: Checkpoints,
}

impl Writer {
    pub(super) fn start(setup: Setup) -> Result<Self> {
        let (sender, inbox) = mpsc::channel(QUEUE);
        std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || setup.run(inbox))
            .map_err(|e| EngineError::unavailable("The database's writer cannot start").with_source(e))?;
        Ok(Self(sender))
    }

    pub(super) fn try_reserve(&self) -> Option<Reserved<'_>> {
        self.0.try_reserve().ok().map(Reserved)
    }

    pub(super) async fn submit<T, F>(&self, undo: Undo, work: F) -> Result<T>
    where
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let (answer, outcome) = oneshot::channel();
        let run = Box::new(move |connection: &Connection| {
            let result = attempt(work, connection);
            let keep = result.is_ok();
            let acknowledge = Box::new(move |fate: Fate<'_>| {
                let result = result.and_then(|value| fate.map(|()| value).map_err(not_written));
                // Whoever asked may have left; the write stands either way.
                let _ = answer.send(result);
            });
            Applied { keep, acknowledge }
        });
        let closed = || EngineError::unavailable("The database is closed");
        match self.0.try_send(Write { undo, run }) {
            Ok(()) => {}
            Err(TrySendError::Closed(_)) => return Err(closed()),
            Err(TrySendError::Full(write)) => tokio::time::timeout(PATIENCE, self.0.send(write))
                .await
                .map_err(|_| EngineError::unavailable("The database is overloaded"))?
                .map_err(|_| closed())?,
        }
        answered(outcome).await
    }
}

fn attempt<T>(work: impl FnOnce(&Connection) -> Result<T>, connection: &Connection) -> Result<T> {
    catch_unwind(AssertUnwindSafe(|| work(connection)))
        .unwrap_or_else(|_| Err(EngineError::internal("a write panicked")))
}

/// Waits for what became of a write.
pub(crate) async fn answered<T>(outcome: oneshot::Receiver<Result<T>>) -> Result<T> {
    tokio::time::timeout(PATIENCE, outcome)
        .await
        .map_err(|_| EngineError::unavailable("The database does not say whether it stored the change"))?
        .map_err(|_| EngineError::unavailable(NOT_STORED))?
}

fn not_written(error: &Arc<EngineError>) -> EngineError {
    let public = match error.kind {
        // Says what is missing, such as space on the disk.
        Kind::Unavailable => error.public(),
        _ => NOT_STORED,
    };
    EngineError::unavailable(public).with_source(error.chain())
}

/// What to do with a transaction that was filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filled {
    Commit,
    /// Its only write has failed.
    Undo,
}

/// How a transaction went on.
enum Next {
    Continue,
    Crashed,
}

impl Setup {
    fn run(mut self, mut inbox: mpsc::Receiver<Write>) {
        Checkpoints::watch(&self.connection);
        while let Some(first) = inbox.blocking_recv() {
            let mut batch = Vec::with_capacity(64);
            batch.push(first);
            while batch.len() < BATCH {
                match inbox.try_recv() {
                    Ok(next) => batch.push(next),
                    Err(_) => break,
                }
            }
            metrics::histogram!("nexaas_store_batch_writes").record(batch.len() as f64);
            let mut rest = batch.into_iter().peekable();
            while rest.peek().is_some() {
                match self.transaction(&mut rest) {
                    Next::Continue => {
                        self.signals.deliver();
                        self.checkpoints.after_commit(&self.connection);
                    }
                    Next::Crashed => return,
                }
            }
        }
        drop(self.checkpoints);
        // A last checkpoint leaves a single file behind; without it the next open replays the log, which is as good.
        let _ = self.connection.pragma_update(None, "wal_checkpoint", "TRUNCATE");
    }

    /// One transaction with as many of `writes` as it can hold: all of them, unless SQLite itself gives the transaction up.
    fn transaction(&self, writes: &mut impl ExactSizeIterator<Item = Write>) -> Next {
        let companions = self.companions.all();
        let mut applied: Vec<Applied> = Vec::new();
        let filled = self.fill(writes, &companions, &mut applied);
        if matches!(filled, Ok(Filled::Undo)) {
            return self.undo(&companions, applied);
        }
        let outcome = filled.map(|_| ());
        if outcome.is_ok() && self.fault(Point::BeforeCommit) == Fault::Crash {
            return Next::Crashed;
        }
        let outcome = outcome.and_then(|()| Ok(statement(&self.connection, "COMMIT")?));
        if outcome.is_ok() && self.fault(Point::AfterCommit) == Fault::Crash {
            return Next::Crashed;
        }
        if outcome.is_err() {
            if !self.connection.is_autocommit() {
                let _ = self.connection.execute_batch("ROLLBACK");
            }
            if applied.is_empty() {
                // The database does not even begin: whoever waits learns it at once, by their answer being dropped.
                writes.for_each(drop);
            }
        }
        for companion in &companions {
            companion.settle(outcome.is_ok());
        }
        let outcome = outcome.map_err(Arc::new);
        for done in applied {
            (done.acknowledge)(outcome.as_ref().map(|_| ()));
        }
        Next::Continue
    }

    /// Ends a transaction whose only write has failed: its own answer says why.
    fn undo(&self, companions: &[Arc<dyn Companion>], applied: Vec<Applied>) -> Next {
        if !self.connection.is_autocommit()
            && let Err(error) = statement(&self.connection, "ROLLBACK")
        {
            tracing::error!(%error, "a write that failed could not be undone");
        }
        companions.iter().for_each(|companion| companion.settle(false));
        applied.into_iter().for_each(|done| (done.acknowledge)(Ok(())));
        Next::Continue
    }

    /// Everything of a transaction but its commit.
    fn fill(
        &self,
        writes: &mut impl ExactSizeIterator<Item = Write>,
        companions: &[Arc<dyn Companion>],
        applied: &mut Vec<Applied>,
    ) -> Result<Filled> {
        let connection = &self.connection;
        statement(connection, "BEGIN IMMEDIATE")?;
        let alone = writes.len() == 1;
        for write in writes {
            let undo = if alone { Undo::Transaction } else { write.undo };
            let marks: Vec<usize> = companions.iter().map(|companion| companion.mark()).collect();
            let before = connection.total_changes();
            if undo == Undo::Savepoint {
                statement(connection, "SAVEPOINT write")?;
            }
            let done = (write.run)(connection);
            let keep = done.keep;
            applied.push(done);
            if connection.is_autocommit() {
                // A full disk or a lack of memory makes SQLite roll everything back on its own.
                return Err(EngineError::unavailable("The database gave the transaction up"));
            }
            if !keep && undo == Undo::Transaction {
                return Ok(Filled::Undo);
            }
            if !keep {
                companions.iter().zip(&marks).for_each(|(companion, mark)| companion.rewind(*mark));
            }
            match undo {
                Undo::Savepoint => {
                    if !keep {
                        statement(connection, "ROLLBACK TO write")?;
                    }
                    statement(connection, "RELEASE write")?;
                }
                Undo::Nothing if !keep && connection.total_changes() != before => {
                    return Err(EngineError::internal("a write that failed had changed something"));
                }
                Undo::Nothing | Undo::Transaction => {}
            }
        }
        companions.iter().try_for_each(|companion| companion.seal(connection))?;
        Ok(Filled::Commit)
    }

    fn fault(&self, point: Point) -> Fault {
        self.faults.as_ref().map_or(Fault::None, |faults| faults.at(point))
    }
}

fn statement(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(|_| ())
}
