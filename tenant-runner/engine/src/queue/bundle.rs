//! Jobs that come one by one from many callers go to the writer as one write: whoever comes while a bundle waits for its turn
//! joins it. It spares each job its own way through the writer, and each caller still has an answer of its own.
//!
//! Always true here: a bundle that holds somebody is on its way to the writer; everybody in it is answered after the commit,
//! or learns that there was none.

use super::enqueue::{Prepared, insertion};
use super::{Enqueued, NewJob, Queue};
use crate::error::{EngineError, Result};
use crate::store::{Answer, answered};
use rusqlite::Connection;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Jobs of one bundle; beyond it callers go to the writer themselves, and wait there.
const MOST: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Bundle(Mutex<Vec<Waiting>>);

struct Waiting {
    job: NewJob,
    prepared: Prepared,
    answer: oneshot::Sender<Result<Enqueued>>,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting").field("job", &self.job).finish_non_exhaustive()
    }
}

impl Bundle {
    fn lock(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Vec<Waiting> {
        std::mem::take(&mut *self.lock())
    }
}

/// The bundle's place at the writer. Should the writer end before its turn, those who wait hear of it.
struct Turn(Option<Queue>);

impl Turn {
    fn come(mut self) -> Option<Queue> {
        self.0.take()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(queue) = self.0.take() {
            drop(queue.bundle.take());
        }
    }
}

impl Queue {
    /// For a job whose insertion either succeeds or changes nothing.
    pub(super) async fn enqueue_bundled(&self, job: NewJob, prepared: Prepared) -> Result<Enqueued> {
        let (answer, outcome) = oneshot::channel();
        if let Err(alone) = self.join(Waiting { job, prepared, answer }) {
            let (queue, Waiting { job, prepared, .. }) = (self.clone(), *alone);
            return self.store.write_light(move |tx| queue.insert(tx, &mut insertion(tx)?, job, &prepared)).await;
        }
        answered(outcome).await
    }

    /// Given back when the bundle or the writer is full.
    fn join(&self, waiting: Waiting) -> std::result::Result<(), Box<Waiting>> {
        let mut bundle = self.bundle.lock();
        if bundle.len() >= MOST {
            return Err(Box::new(waiting));
        }
        if bundle.is_empty() {
            let Some(place) = self.store.try_reserve() else { return Err(Box::new(waiting)) };
            let turn = Turn(Some(self.clone()));
            place.write_many(move |tx| match turn.come() {
                Some(queue) => queue.insert_bundle(tx, queue.bundle.take()),
                None => Ok(Vec::new()),
            });
        }
        bundle.push(waiting);
        Ok(())
    }

    fn insert_bundle(&self, tx: &Connection, bundle: Vec<Waiting>) -> Result<Vec<Answer<Enqueued>>> {
        let mut insertion = insertion(tx)?;
        let mut answers = Vec::with_capacity(bundle.len());
        for Waiting { job, prepared, answer } in bundle {
            if tx.is_autocommit() {
                // The database has given the transaction up: the writer will find that out, and who is left hears of it.
                break;
            }
            let before = tx.total_changes();
            let what = self.insert(tx, &mut insertion, job, &prepared);
            if what.is_err() && !tx.is_autocommit() && tx.total_changes() != before {
                return Err(EngineError::internal("a job that was refused had changed something"));
            }
            answers.push(Answer { to: answer, what });
        }
        Ok(answers)
    }
}
