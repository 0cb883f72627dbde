//! Bodies on their way through: streamed, never collected. A request body has a size limit and a limit on its pauses; an answer
//! gives its connection back to the pool when it is complete, and to nobody when it is not.

use super::pool::Lease;
use axum::body::Body;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a request body could not be read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Fault {
    None = 0,
    TooLarge = 1,
    Stalled = 2,
    Broken = 3,
}

/// Shared between a request's body and whoever waits for the answer.
#[derive(Debug, Clone)]
pub struct Progress {
    fault: Arc<AtomicU8>,
    moved: watch::Sender<Instant>,
}

impl Progress {
    fn new() -> Self {
        Self { fault: Arc::default(), moved: watch::Sender::new(Instant::now()) }
    }
    pub fn fault(&self) -> Fault {
        match self.fault.load(Ordering::Acquire) {
            1 => Fault::TooLarge,
            2 => Fault::Stalled,
            3 => Fault::Broken,
            _ => Fault::None,
        }
    }
    /// Returns once nothing of the body has moved for `limit`.
    pub async fn stalled(&self, limit: Duration) {
        loop {
            let last = *self.moved.borrow();
            tokio::time::sleep_until(last + limit).await;
            if *self.moved.borrow() == last {
                return;
            }
        }
    }
}

/// A client's body on its way to a runner.
pub struct ClientBody {
    inner: Incoming,
    left: u64,
    idle: Duration,
    sleep: Pin<Box<Sleep>>,
    progress: Progress,
}

impl ClientBody {
    pub fn new(inner: Incoming, limit: u64, idle: Duration) -> (Self, Progress) {
        let progress = Progress::new();
        let sleep = Box::pin(tokio::time::sleep(idle));
        (Self { inner, left: limit, idle, sleep, progress: progress.clone() }, progress)
    }
    fn fail(&self, fault: Fault, error: impl Into<BoxError>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.progress.fault.store(fault as u8, Ordering::Release);
        Poll::Ready(Some(Err(error.into())))
    }
}

impl HttpBody for ClientBody {
    type Data = Bytes;
    type Error = BoxError;
    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let now = Instant::now();
                this.sleep.as_mut().reset(now + this.idle);
                this.progress.moved.send_replace(now);
                let size = frame.data_ref().map_or(0, |d| d.len() as u64);
                match this.left.checked_sub(size) {
                    Some(left) => this.left = left,
                    None => return this.fail(Fault::TooLarge, "the request body is larger than allowed"),
                }
                // Trailers could carry headers around every check; nothing behind us needs them.
                if frame.is_trailers() { Poll::Ready(None) } else { Poll::Ready(Some(Ok(frame))) }
            }
            Poll::Ready(Some(Err(error))) => this.fail(Fault::Broken, error),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                ready!(this.sleep.as_mut().poll(cx));
                this.fail(Fault::Stalled, "the request body stalled")
            }
        }
    }
    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A runner's answer on its way to the client.
pub struct RunnerBody {
    inner: Incoming,
    idle: Duration,
    sleep: Pin<Box<Sleep>>,
    /// Present until the answer is complete; dropped with it, the connection closes.
    lease: Option<Lease>,
}

impl RunnerBody {
    pub fn new(inner: Incoming, lease: Lease, idle: Duration) -> Self {
        let mut this = Self { inner, idle, sleep: Box::pin(tokio::time::sleep(idle)), lease: Some(lease) };
        this.release_at_end();
        this
    }
    fn release_at_end(&mut self) {
        if self.inner.is_end_stream()
            && let Some(lease) = self.lease.take()
        {
            lease.give_back();
        }
    }
}

impl HttpBody for RunnerBody {
    type Data = Bytes;
    type Error = BoxError;
    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.sleep.as_mut().reset(Instant::now() + this.idle);
                if frame.is_trailers() {
                    return Poll::Ready(None);
                }
                this.release_at_end();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.lease = None;
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                if let Some(lease) = this.lease.take() {
                    lease.give_back();
                }
                Poll::Ready(None)
            }
            Poll::Pending => {
                ready!(this.sleep.as_mut().poll(cx));
                this.lease = None;
                Poll::Ready(Some(Err("the runner fell silent".into())))
            }
        }
    }
    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl From<RunnerBody> for Body {
    fn from(body: RunnerBody) -> Self {
        Self::new(body)
    }
}
