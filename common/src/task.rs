//! Every background task is supervised here: it has a name, a policy for what its end means, a token that cancels it, and
//! a deadline by which it is joined at shutdown. Nothing else in the project calls `tokio::spawn` for work that outlives a call.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// What it means when a task ends before shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExit {
    /// The process cannot do its work without it: shut down, so that whoever supervises the process restarts it.
    Shutdown,
    /// It was meant to end: a single piece of work.
    Expected,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    Running,
    Finished,
    Panicked(String),
}

/// The last known state of one task, for `/healthz` and the dashboard.
#[derive(Debug, Clone)]
pub struct TaskStatus {
    pub name: String,
    pub on_exit: OnExit,
    pub state: Ended,
}

#[derive(Debug, Default)]
struct Inner {
    set: JoinSet<()>,
    status: Vec<TaskStatus>,
    closed: bool,
}

/// Owns the tasks of one process (or one test).
#[derive(Debug, Clone)]
pub struct Supervisor {
    inner: Arc<Mutex<Inner>>,
    token: CancellationToken,
}

/// Tasks that did not end before the deadline; they were aborted.
#[derive(Debug, thiserror::Error)]
#[error("tasks did not stop within {deadline:?}: {}", names.join(", "))]
pub struct NotJoined {
    pub deadline: Duration,
    pub names: Vec<String>,
}

impl Default for Supervisor {
    fn default() -> Self {
        Self::new()
    }
}

impl Supervisor {
    pub fn new() -> Self {
        Self { inner: Arc::default(), token: CancellationToken::new() }
    }

    /// Cancelled when the process should stop. Tasks select on it.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts `work`, which must end soon after the token it is given is cancelled. Once shutdown has begun, work is not
    /// started any more and the answer is `None`.
    pub fn spawn<F, Fut>(&self, name: &str, on_exit: OnExit, work: F) -> Option<AbortHandle>
    where
        F: FnOnce(CancellationToken) -> Fut,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let future = work(self.token.clone());
        let mut inner = self.lock();
        if inner.closed {
            return None;
        }
        // Work that is expected to end leaves no row behind, or the list would grow with every request.
        while inner.set.try_join_next().is_some() {}
        inner.status.retain(|s| s.on_exit == OnExit::Shutdown || s.state == Ended::Running);
        let status_name = unique(&inner.status, name);
        inner.status.push(TaskStatus { name: status_name.clone(), on_exit, state: Ended::Running });
        let this = self.clone();
        Some(inner.set.spawn(async move {
            use futures::FutureExt as _;
            let outcome = std::panic::AssertUnwindSafe(future).catch_unwind().await;
            this.ended(&status_name, on_exit, outcome.err());
        }))
    }

    fn ended(&self, name: &str, on_exit: OnExit, panic: Option<Box<dyn std::any::Any + Send>>) {
        let state = match panic {
            None => Ended::Finished,
            Some(payload) => {
                let text = payload
                    .downcast_ref::<&str>()
                    .map(|s| (*s).to_owned())
                    .or_else(|| payload.downcast_ref::<String>().cloned())
                    .unwrap_or_else(|| "a panic without a message".to_owned());
                Ended::Panicked(text)
            }
        };
        if let Ended::Panicked(why) = &state {
            tracing::error!(task = name, why, "a supervised task panicked");
        }
        if let Some(row) = self.lock().status.iter_mut().find(|s| s.name == name) {
            row.state = state;
        }
        if on_exit == OnExit::Shutdown && !self.token.is_cancelled() {
            tracing::error!(task = name, "a task the process depends on ended; shutting down");
            self.token.cancel();
        }
    }

    /// The last known state of every task still of interest.
    pub fn status(&self) -> Vec<TaskStatus> {
        self.lock().status.clone()
    }

    /// Whether every task the process depends on still runs.
    pub fn healthy(&self) -> bool {
        self.lock().status.iter().all(|s| s.on_exit != OnExit::Shutdown || s.state == Ended::Running)
    }

    /// Cancels every task and joins them all. After `deadline` the rest is aborted and named in the error.
    pub async fn shutdown(&self, deadline: Duration) -> Result<(), NotJoined> {
        self.token.cancel();
        let mut set = {
            let mut inner = self.lock();
            inner.closed = true;
            std::mem::take(&mut inner.set)
        };
        let joined = tokio::time::timeout(deadline, async { while set.join_next().await.is_some() {} }).await;
        if joined.is_ok() {
            return Ok(());
        }
        set.abort_all();
        while set.join_next().await.is_some() {}
        let names = self.status().into_iter().filter(|s| s.state == Ended::Running).map(|s| s.name).collect::<Vec<_>>();
        Err(NotJoined { deadline, names })
    }
}

fn unique(rows: &[TaskStatus], name: &str) -> String {
    if rows.iter().all(|r| r.name != name) {
        return name.to_owned();
    }
    (2..).map(|n| format!("{name}#{n}")).find(|c| rows.iter().all(|r| r.name != *c)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn shutdown_joins_every_task() {
        let supervisor = Supervisor::new();
        supervisor.spawn("waits", OnExit::Shutdown, |token| async move { token.cancelled().await });
        assert!(supervisor.healthy());
        supervisor.shutdown(Duration::from_secs(5)).await.unwrap();
        assert!(supervisor.spawn("late", OnExit::Expected, |_| async {}).is_none());
    }

    #[tokio::test]
    async fn a_task_that_ignores_its_token_is_named() {
        let supervisor = Supervisor::new();
        supervisor.spawn("deaf", OnExit::Expected, |_| std::future::pending());
        let error = supervisor.shutdown(Duration::from_millis(20)).await.unwrap_err();
        assert_eq!(error.names, ["deaf"]);
    }

    #[tokio::test]
    async fn the_panic_of_an_essential_task_stops_the_process() {
        let supervisor = Supervisor::new();
        supervisor.spawn("fragile", OnExit::Shutdown, |_| async { panic!("boom") });
        supervisor.token().cancelled().await;
        assert!(!supervisor.healthy());
        assert_eq!(supervisor.status()[0].state, Ended::Panicked("boom".to_owned()));
    }
}
