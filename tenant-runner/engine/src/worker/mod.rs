//! The workers: a bounded number of jobs at a time, begun as soon as they are stored when there is room.
//!
//! Always true here: nothing runs while nothing is due; a job that panics is a failed job and nothing more; the end of a job
//! is recorded, however long the database needs to come back; when the workers stop, so do their jobs, and the next process
//! (or the next start of the workers) takes them up under the same attempt.
//!
//! Short jobs are taken ahead: as many as the workers have lately done in a few milliseconds, so that the way to the disk and
//! the work itself go on side by side. What was taken ahead and is not begun soon goes back.

mod ahead;
mod recorder;

#[cfg(test)]
mod tests;

use crate::queue::{Claimed, Handoff, Outcome, Queue};
use ahead::Ahead;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use nexaas_common::backoff::Backoff;
use nexaas_common::clock::SharedClock;
use nexaas_common::task::{OnExit, Supervisor};
use recorder::{Ended, Recorder};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

const RETRY: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
/// The timer's arithmetic ends somewhere; looking once a month costs nothing.
const LONGEST_SLEEP: Duration = Duration::from_secs(30 * 24 * 3600);
/// What was taken ahead goes back when nothing was begun for so long.
const PATIENCE: Duration = Duration::from_millis(50);

/// Does what jobs say.
pub trait Perform: Send + Sync + std::fmt::Debug {
    /// Does `job` and says how it ended. Ends soon after `job.cancel` is cancelled; leaves nothing behind when it is dropped.
    fn perform<'a>(&'a self, job: &'a Claimed) -> BoxFuture<'a, Outcome>;
}

/// Asks the workers to start over; answered with the number of jobs that were interrupted.
type Restart = oneshot::Sender<u64>;

/// A handle on the workers.
#[derive(Debug, Clone)]
pub struct Workers {
    size: usize,
    alive: Arc<AtomicUsize>,
    restart: mpsc::Sender<Restart>,
}

impl Workers {
    pub fn start(
        size: usize,
        queue: Queue,
        perform: Arc<dyn Perform>,
        clock: SharedClock,
        supervisor: &Supervisor,
    ) -> Self {
        let size = size.max(1);
        let alive = Arc::new(AtomicUsize::new(size));
        let (restart, restarts) = mpsc::channel(1);
        let recorder = recorder::start(queue.clone(), supervisor);
        let worker = Worker { handoff: queue.handoff().clone(), perform, ahead: Arc::new(Ahead::new(size)), recorder };
        let pool = Pool { size, alive: alive.clone(), queue, worker, clock, restarts };
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

struct Pool {
    size: usize,
    alive: Arc<AtomicUsize>,
    queue: Queue,
    worker: Worker,
    clock: SharedClock,
    restarts: mpsc::Receiver<Restart>,
}

impl Pool {
    async fn run(mut self, token: CancellationToken) {
        let _gone = Gone(self.alive.clone());
        let handoff = self.queue.handoff().clone();
        // Listens from before the first look on, so that what becomes ready meanwhile is not missed.
        let mut ready = self.queue.ready().listen();
        let mut workers = self.hire();
        let mut failures = 0;
        let mut next = self.feed(&mut failures).await;
        loop {
            let begun = handoff.begun();
            let idle_ahead = (handoff.waiting() > 0).then(|| Instant::now() + PATIENCE);
            tokio::select! {
                () = token.cancelled() => break,
                Ok(()) = ready.changed() => {}
                () = handoff.asked() => {}
                () = sleep(next) => {}
                () = handoff.piled() => continue,
                () = sleep(idle_ahead) => {
                    if handoff.begun() == begun {
                        self.put_back().await;
                    }
                    continue;
                }
                Some(answer) = self.restarts.recv() => {
                    workers.shutdown().await;
                    self.start_over(answer).await;
                    workers = self.hire();
                }
                Some(_) = workers.join_next() => {
                    // A worker ends only with its pool; should one break, another takes its place.
                    self.worker.hire_one(&mut workers);
                }
            }
            // Marked as seen before looking, so that what becomes ready meanwhile is not missed.
            ready.borrow_and_update();
            next = self.feed(&mut failures).await;
        }
        handoff.close();
        workers.shutdown().await;
    }

    fn hire(&self) -> JoinSet<()> {
        let mut workers = JoinSet::new();
        for _ in 0..self.size {
            self.worker.hire_one(&mut workers);
        }
        self.worker.handoff.change_room((self.size + self.worker.ahead.get()) as i64);
        workers
    }

    /// Takes what is due, as far as there is room; answers when to look again, if nothing happens before.
    async fn feed(&self, failures: &mut u32) -> Option<Instant> {
        if self.worker.handoff.room_to_look() == 0 {
            return None;
        }
        match self.queue.feed().await {
            Ok(next) => {
                *failures = 0;
                next.map(|due| {
                    Instant::now() + (due - self.clock.now()).to_std().unwrap_or_default().min(LONGEST_SLEEP)
                })
            }
            Err(error) => {
                tracing::error!(error = error.chain(), "the workers cannot take jobs");
                let wait = RETRY.delay(*failures);
                *failures = failures.saturating_add(1);
                Some(Instant::now() + wait)
            }
        }
    }

    /// Gives back what was taken ahead: the jobs that run now are not as short as those before.
    async fn put_back(&self) {
        self.worker.ahead.forget(&self.worker.handoff);
        let jobs = self.worker.handoff.take_back();
        if jobs.is_empty() {
            return;
        }
        let count = jobs.len() as i64;
        match self.queue.put_back(jobs.iter().map(|job| job.id).collect()).await {
            Ok(_) => self.worker.handoff.change_room(count),
            Err(error) => {
                tracing::error!(error = error.chain(), "jobs that were taken ahead could not be put back");
                self.worker.handoff.give(jobs.into_iter());
            }
        }
    }

    async fn start_over(&self, answer: Restart) {
        self.alive.store(0, Ordering::Release);
        self.worker.handoff.close();
        self.worker.recorder.flush().await;
        match self.queue.release_own().await {
            Ok(interrupted) => {
                // Whoever asked may have given up waiting.
                let _ = answer.send(interrupted);
            }
            Err(error) => tracing::error!(error = error.chain(), "interrupted jobs could not be put back"),
        }
        self.worker.handoff.close();
        self.alive.store(self.size, Ordering::Release);
    }
}

struct Gone(Arc<AtomicUsize>);
impl Drop for Gone {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Release);
    }
}

async fn sleep(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// What each worker works with.
#[derive(Debug, Clone)]
struct Worker {
    handoff: Arc<Handoff>,
    perform: Arc<dyn Perform>,
    ahead: Arc<Ahead>,
    recorder: Recorder,
}

impl Worker {
    fn hire_one(&self, workers: &mut JoinSet<()>) {
        let worker = self.clone();
        workers.spawn(async move {
            while let Some(job) = worker.handoff.next().await {
                worker.work(job).await;
            }
        });
    }

    async fn work(&self, job: Claimed) {
        let start = Instant::now();
        let outcome = run(&*self.perform, &job).await;
        self.ahead.learn(start.elapsed(), &self.handoff);
        self.recorder.record(Ended { job, outcome }).await;
        self.handoff.change_room(1);
        if self.handoff.is_wanted() && self.ahead.is_low(&self.handoff) {
            self.handoff.ask();
        }
    }
}

async fn run(perform: &dyn Perform, job: &Claimed) -> Outcome {
    let action = job.action.as_str();
    let span = tracing::info_span!("job", job_id = %job.id, action, attempt = job.attempt, event_id = job.event_id);
    if let Some(traceparent) = &job.traceparent {
        nexaas_common::telemetry::adopt_traceparent(&span, traceparent);
    }
    async {
        let start = Instant::now();
        let outcome = AssertUnwindSafe(within_time(perform, job)).catch_unwind().await.unwrap_or_else(|_| {
            tracing::error!("an action panicked");
            Outcome::failed("the action broke off because of a defect")
        });
        let name = match &outcome {
            Outcome::Succeeded(_) => "succeeded",
            Outcome::Failed { .. } => "failed",
            Outcome::Cancelled => "cancelled",
        };
        metrics::histogram!("nexaas_job_duration_seconds", "action" => action).record(start.elapsed().as_secs_f64());
        metrics::counter!("nexaas_jobs_total", "action" => action, "outcome" => name).increment(1);
        match &outcome {
            // Each success is on the bus; the log is for what somebody may have to look at.
            Outcome::Succeeded(_) => tracing::debug!(outcome = name, "a job ended"),
            Outcome::Failed { .. } | Outcome::Cancelled => tracing::info!(outcome = name, "a job ended"),
        }
        outcome
    }
    .instrument(span)
    .await
}

async fn within_time(perform: &dyn Perform, job: &Claimed) -> Outcome {
    let Some(limit) = job.timeout else { return perform.perform(job).await };
    tokio::time::timeout(limit, perform.perform(job))
        .await
        .unwrap_or_else(|_| Outcome::failed(format!("ended by force after its time-out of {} s", limit.as_secs_f64())))
}
