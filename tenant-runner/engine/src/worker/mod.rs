//! The workers: a bounded number of jobs at a time, taken when there is room and something is due.
//!
//! Always true here: nothing runs while nothing is due; a job that panics is a failed job and nothing more; the end of a job
//! is recorded, however long the database needs to come back; when the workers stop, so do their jobs, and the next process
//! (or the next start of the workers) takes them up under the same attempt.

#[cfg(test)]
mod tests;

use crate::action::Actions;
use crate::error::Kind;
use crate::queue::{Claimed, Outcome, Queue};
use futures::FutureExt as _;
use nexaas_common::backoff::Backoff;
use nexaas_common::clock::SharedClock;
use nexaas_common::task::{OnExit, Supervisor};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

const RETRY: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));

/// Asks the workers to start over; answered with the number of jobs that were interrupted.
type Restart = oneshot::Sender<u64>;

/// A handle on the workers.
#[derive(Debug, Clone)]
pub struct Workers {
    size: usize,
    alive: Arc<AtomicUsize>,
    restart: mpsc::Sender<Restart>,
}

struct Pool {
    size: usize,
    alive: Arc<AtomicUsize>,
    queue: Queue,
    actions: Arc<Actions>,
    clock: SharedClock,
    restarts: mpsc::Receiver<Restart>,
}

impl Workers {
    pub fn start(
        size: usize,
        queue: Queue,
        actions: Arc<Actions>,
        clock: SharedClock,
        supervisor: &Supervisor,
    ) -> Self {
        let size = size.max(1);
        let alive = Arc::new(AtomicUsize::new(size));
        let (restart, restarts) = mpsc::channel(1);
        let pool = Pool { size, alive: alive.clone(), queue, actions, clock, restarts };
        supervisor.spawn("workers", OnExit::Shutdown, |token| pool.run(token));
        Self { size, alive, restart }
    }

    /// How many jobs can run at once.
    pub fn size(&self) -> usize {
        self.size
    }

    /// How many of them take jobs: all, or none while the workers are stopped.
    pub fn alive(&self) -> usize {
        self.alive.load(Ordering::Acquire)
    }

    /// Interrupts what runs and starts over; the interrupted jobs run again. `None` if the workers do not react.
    pub async fn restart(&self, patience: Duration) -> Option<u64> {
        let (answer, interrupted) = oneshot::channel();
        let ask = async {
            self.restart.send(answer).await.ok()?;
            interrupted.await.ok()
        };
        tokio::time::timeout(patience, ask).await.ok().flatten()
    }
}

impl Pool {
    async fn run(mut self, token: CancellationToken) {
        let _gone = Gone(self.alive.clone());
        let mut running = JoinSet::new();
        let mut ready = self.queue.ready().listen();
        let mut failures = 0;
        loop {
            // Marked as seen before looking, so that what becomes ready meanwhile is not missed.
            ready.borrow_and_update();
            let wait = self.fill(&mut running, &mut failures).await;
            tokio::select! {
                () = token.cancelled() => break,
                Ok(()) = ready.changed() => {}
                Some(_) = running.join_next() => {}
                Some(answer) = self.restarts.recv() => self.start_over(&mut running, answer).await,
                () = sleep(wait) => {}
            }
        }
        running.shutdown().await;
    }

    /// Takes as many jobs as there is room for; answers how long nothing more will be due by itself.
    async fn fill(&self, running: &mut JoinSet<()>, failures: &mut u32) -> Option<Duration> {
        let room = self.size.saturating_sub(running.len());
        if room == 0 {
            return None;
        }
        let batch = match self.queue.claim(room).await {
            Ok(batch) => batch,
            Err(error) => {
                tracing::error!(error = error.chain(), "the workers cannot take jobs");
                let wait = RETRY.delay(*failures);
                *failures = failures.saturating_add(1);
                return Some(wait);
            }
        };
        *failures = 0;
        for job in batch.jobs {
            let (queue, actions) = (self.queue.clone(), self.actions.clone());
            running.spawn(run(queue, actions, job));
        }
        metrics::gauge!("nexaas_jobs_running").set(running.len() as f64);
        batch.next_due.map(|due| (due - self.clock.now()).to_std().unwrap_or_default())
    }

    async fn start_over(&self, running: &mut JoinSet<()>, answer: Restart) {
        self.alive.store(0, Ordering::Release);
        running.shutdown().await;
        match self.queue.release_own().await {
            Ok(interrupted) => {
                // Whoever asked may have given up waiting.
                let _ = answer.send(interrupted);
            }
            Err(error) => tracing::error!(error = error.chain(), "interrupted jobs could not be put back"),
        }
        self.alive.store(self.size, Ordering::Release);
    }
}

struct Gone(Arc<AtomicUsize>);
impl Drop for Gone {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Release);
    }
}

async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

async fn run(queue: Queue, actions: Arc<Actions>, job: Claimed) {
    let action = job.action.as_str();
    let span = tracing::info_span!("job", job_id = %job.id, action, attempt = job.attempt, event_id = job.event_id);
    if let Some(traceparent) = &job.traceparent {
        nexaas_common::telemetry::adopt_traceparent(&span, traceparent);
    }
    async {
        let start = tokio::time::Instant::now();
        let outcome = AssertUnwindSafe(actions.run(&job)).catch_unwind().await.unwrap_or_else(|_| {
            tracing::error!("an action panicked");
            Outcome::Failed { error: "the action broke off because of a defect".to_owned(), permanent: false }
        });
        let name = match &outcome {
            Outcome::Succeeded(_) => "succeeded",
            Outcome::Failed { .. } => "failed",
            Outcome::Cancelled => "cancelled",
        };
        metrics::histogram!("nexaas_job_duration_seconds", "action" => action).record(start.elapsed().as_secs_f64());
        metrics::counter!("nexaas_jobs_total", "action" => action, "outcome" => name).increment(1);
        tracing::info!(outcome = name, "a job ended");
        record(&queue, &job, outcome).await;
    }
    .instrument(span)
    .await;
}

/// Records the end of a job, again and again while the database is away: the effect has happened and must not happen twice.
async fn record(queue: &Queue, job: &Claimed, outcome: Outcome) {
    for failures in 0.. {
        match queue.finish(job, outcome.clone()).await {
            Ok(()) => return,
            Err(error) if error.kind == Kind::Conflict => {
                tracing::warn!("the job was taken from this run; its late end is not counted");
                return;
            }
            Err(error) => {
                tracing::error!(error = error.chain(), "the end of a job could not be recorded yet");
                tokio::time::sleep(RETRY.delay(failures)).await;
            }
        }
    }
}
