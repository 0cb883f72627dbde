//! Records how jobs ended, many at a time, in the order in which they did: a worker goes on to its next job while the end of
//! the last one is on its way to the disk. Should the process die in between, the job runs again under the same attempt, as if
//! it had died a moment earlier.

use super::RETRY;
use crate::queue::{Claimed, Outcome, Queue};
use nexaas_common::task::{OnExit, Supervisor};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Ends that may be on their way; beyond it the workers wait.
const MOST_WAITING: usize = 4096;
/// Ends recorded in one write.
const AT_ONCE: usize = 512;

#[derive(Debug)]
pub(super) struct Ended {
    pub job: Claimed,
    pub outcome: Outcome,
}

#[derive(Debug)]
enum Message {
    Ended(Box<Ended>),
    /// Answered when everything before it is recorded.
    Flush(oneshot::Sender<()>),
}

#[derive(Debug, Clone)]
pub(super) struct Recorder(mpsc::Sender<Message>);

pub(super) fn start(queue: Queue, supervisor: &Supervisor) -> Recorder {
    let (sender, inbox) = mpsc::channel(MOST_WAITING);
    supervisor.spawn("job-recorder", OnExit::Shutdown, |token| run(queue, inbox, token));
    Recorder(sender)
}

impl Recorder {
    pub async fn record(&self, ended: Ended) {
        if self.0.send(Message::Ended(Box::new(ended))).await.is_err() {
            tracing::error!("the end of a job cannot be recorded: the recorder has ended; the job will run again");
        }
    }

    /// Waits until everything that was handed over is recorded.
    pub async fn flush(&self) {
        let (done, wait) = oneshot::channel();
        if self.0.send(Message::Flush(done)).await.is_ok() {
            let _ = wait.await;
        }
    }
}

/// Ends when the workers are gone and everything they handed over is recorded.
async fn run(queue: Queue, mut inbox: mpsc::Receiver<Message>, token: CancellationToken) {
    let mut messages = Vec::with_capacity(AT_ONCE);
    while inbox.recv_many(&mut messages, AT_ONCE).await > 0 {
        // What is due comes first; meanwhile more ends may have come.
        queue.rush().calm().await;
        while messages.len() < AT_ONCE
            && let Ok(message) = inbox.try_recv()
        {
            messages.push(message);
        }
        let (mut ended, mut flushes) = (Vec::with_capacity(messages.len()), Vec::new());
        for message in messages.drain(..) {
            match message {
                Message::Ended(one) => ended.push((one.job, one.outcome)),
                Message::Flush(done) => flushes.push(done),
            }
        }
        if !ended.is_empty() && !record(&queue, Arc::new(ended), &token).await {
            return;
        }
        for done in flushes {
            // Whoever waited may have given up.
            let _ = done.send(());
        }
    }
}

/// Again and again while the database is away: the effects have happened and must not happen twice. Whether it was done; only
/// the end of the process excuses that it was not.
async fn record(queue: &Queue, ended: Arc<Vec<(Claimed, Outcome)>>, token: &CancellationToken) -> bool {
    for failures in 0.. {
        match queue.finish_many(ended.clone()).await {
            Ok(late) => {
                for id in late {
                    tracing::warn!(job_id = %id, "the job was taken from this run; its late end is not counted");
                }
                return true;
            }
            Err(error) => {
                tracing::error!(error = error.chain(), jobs = ended.len(), "the end of jobs could not be recorded yet");
                tokio::select! {
                    () = tokio::time::sleep(RETRY.delay(failures)) => {}
                    () = token.cancelled() => return false,
                }
            }
        }
    }
    false
}
