//! WebSockets. The client's side becomes a tunnel only after the runner has answered 101 to a well-formed request; from then on
//! bytes are passed both ways until either side ends, falls silent for too long, or the edge shuts down.

use super::pool::Pools;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

/// Joins the two sides as soon as both have switched.
pub fn join(pools: &Pools, client: OnUpgrade, runner: OnUpgrade, permit: OwnedSemaphorePermit, idle: Duration) {
    let token = pools.token().clone();
    pools.tasks().spawn(async move {
        let _permit = permit;
        let work = async {
            let switched =
                tokio::time::timeout(Duration::from_secs(10), async { tokio::try_join!(client, runner) }).await;
            let Ok(Ok((client, runner))) = switched else {
                tracing::debug!("a tunnel was agreed on but one side did not switch");
                return;
            };
            metrics::gauge!("nexaas_edge_tunnels").increment(1.0);
            copy(client, runner, idle).await;
            metrics::gauge!("nexaas_edge_tunnels").decrement(1.0);
        };
        token.run_until_cancelled(work).await;
    });
}

async fn copy(client: Upgraded, runner: Upgraded, idle: Duration) {
    let (client_read, client_write) = tokio::io::split(TokioIo::new(client));
    let (runner_read, runner_write) = tokio::io::split(TokioIo::new(runner));
    let moved = watch::Sender::new(Instant::now());
    tokio::select! {
        // One direction may end first; what is under way in the other still arrives.
        _ = async { tokio::join!(one_way(client_read, runner_write, &moved), one_way(runner_read, client_write, &moved)) } => {}
        () = silence(&moved, idle) => tracing::debug!("a tunnel was silent for too long"),
    }
}

async fn one_way(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, moved: &watch::Sender<Instant>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(n) => {
                let Some(bytes) = buffer.get(..n) else { break };
                if to.write_all(bytes).await.is_err() || to.flush().await.is_err() {
                    break;
                }
                moved.send_replace(Instant::now());
            }
        }
    }
    // An error here means the other side is gone already.
    let _ = to.shutdown().await;
}

async fn silence(moved: &watch::Sender<Instant>, idle: Duration) {
    loop {
        let last = *moved.borrow();
        tokio::time::sleep_until(last + idle).await;
        if *moved.borrow() == last {
            return;
        }
    }
}
