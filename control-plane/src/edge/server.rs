//! Accepts connections, gives each to the HTTP server behind its framing guard, and ends them all at shutdown: idle ones at
//! once, busy ones when their request is done or the drain time is over.

use super::framing::{Connection, Guarded};
use super::service::Edge;
use crate::error::{Error, Result};
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Serves until `token` is cancelled, then drains.
pub async fn serve(edge: Arc<Edge>, listener: TcpListener, token: CancellationToken) -> Result<()> {
    let address = listener.local_addr().map_err(Error::internal)?;
    tracing::info!(%address, "the edge listens");
    let slots = Arc::new(Semaphore::new(edge.config.limits.connections));
    let mut connections = JoinSet::new();
    loop {
        // At the limit nobody is accepted: the kernel's queue holds the next ones back.
        let permit = tokio::select! {
            () = token.cancelled() => break,
            permit = slots.clone().acquire_owned() => permit.map_err(Error::internal)?,
        };
        let (stream, peer) = tokio::select! {
            () = token.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    // Out of file descriptors, most likely: give others time to end.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        while connections.try_join_next().is_some() {}
        let (edge, token) = (edge.clone(), token.clone());
        connections.spawn(async move {
            metrics::gauge!("nexaas_edge_connections").increment(1.0);
            connection(edge, stream, peer, token).await;
            metrics::gauge!("nexaas_edge_connections").decrement(1.0);
            drop(permit);
        });
    }
    drop(listener);
    let drained =
        tokio::time::timeout(edge.config.limits.drain, async { while connections.join_next().await.is_some() {} })
            .await;
    if drained.is_err() {
        tracing::info!(open = connections.len(), "closing connections that are still busy");
        connections.abort_all();
    }
    let tasks = edge.pools.tasks();
    tasks.close();
    edge.pools.token().cancel();
    if tokio::time::timeout(edge.config.limits.drain, tasks.wait()).await.is_err() {
        tracing::warn!(open = tasks.len(), "connections to runners did not end in time");
    }
    Ok(())
}

async fn connection(edge: Arc<Edge>, stream: TcpStream, peer: SocketAddr, token: CancellationToken) {
    // Small answers and stream events go out at once; failing that costs only latency.
    let _ = stream.set_nodelay(true);
    let shared = Connection::default();
    let io = TokioIo::new(Guarded::new(stream, shared.clone(), edge.config.limits.client_idle));
    let limits = &edge.config.limits;
    let service = service_fn(|request: Request<Incoming>| {
        let (edge, shared) = (edge.clone(), shared.clone());
        async move { Ok::<_, Infallible>(edge.handle(peer.ip(), &shared, request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_headers(100)
        .max_buf_size(64 * 1024)
        .serve_connection(io, service)
        .with_upgrades();
    tokio::pin!(served);
    let outcome = tokio::select! {
        outcome = served.as_mut() => outcome,
        () = token.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection ended early");
    }
}
