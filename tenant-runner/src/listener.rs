//! One port for everything: HTTP/1.1 (with upgrades for WebSocket) and HTTP/2 (gRPC), over TLS for a tenant and in the
//! clear standing alone. Every connection has a bound on its handshake, its headers and its number; at shutdown no new
//! one is accepted and those that are open get until the deadline.

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

const MAX_CONNECTIONS: usize = 512;
const HANDSHAKE: Duration = Duration::from_secs(10);
const HEADERS: Duration = Duration::from_secs(15);
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const MAX_HEADERS: usize = 64;
const MAX_HEADER_BYTES: usize = 32 * 1024;
/// After an error of `accept` (too many open files), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is known about the connection a request came over.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    pub address: SocketAddr,
    /// True: the peer is the control plane, proven by its certificate.
    pub control_plane: bool,
}

impl Peer {
    /// The address that limits count by.
    pub fn ip(&self) -> IpAddr {
        self.address.ip().to_canonical()
    }
}

pub struct Listener {
    pub tcp: TcpListener,
    pub tls: Option<Arc<rustls::ServerConfig>>,
    pub router: Router,
}

impl Listener {
    /// Serves until `stop`, then lets open connections finish for at most `drain`.
    pub async fn run(self, stop: CancellationToken, drain: Duration) {
        let Self { tcp, tls, router } = self;
        let graceful = GracefulShutdown::new();
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let acceptor = tls.map(TlsAcceptor::from);
        // Connections belong to this loop and are joined by it, so they need no row of their own in the supervisor.
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = next(&tcp, &permits) => accepted,
            };
            let (stream, address, permit) = match accepted {
                Ok(Some(accepted)) => accepted,
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (router, watcher, acceptor, stop) =
                (router.clone(), graceful.watcher(), acceptor.clone(), stop.clone());
            connections.spawn(async move {
                let _permit = permit;
                let _ = stream.set_nodelay(true);
                let peer = Peer { address, control_plane: acceptor.is_some() };
                match acceptor {
                    None => serve(stream, peer, router, watcher).await,
                    Some(acceptor) => {
                        let handshake = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream));
                        let outcome = tokio::select! {
                            () = stop.cancelled() => return,
                            outcome = handshake => outcome,
                        };
                        match outcome {
                            Ok(Ok(stream)) => serve(stream, peer, router, watcher).await,
                            Ok(Err(error)) => tracing::info!(%address, %error, "TLS handshake refused"),
                            Err(_) => tracing::info!(%address, "TLS handshake timed out"),
                        }
                    }
                }
            });
        }
        drop(tcp);
        if tokio::time::timeout(drain, graceful.shutdown()).await.is_err() {
            tracing::warn!(
                open = connections.len(),
                ?drain,
                "connections were still open at the deadline; closing them"
            );
        }
        connections.shutdown().await;
    }
}

type Accepted = (TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit);

/// `None` when the semaphore was closed, which nobody does.
async fn next(tcp: &TcpListener, permits: &Arc<Semaphore>) -> std::io::Result<Option<Accepted>> {
    let Ok(permit) = Arc::clone(permits).acquire_owned().await else { return Ok(None) };
    let (stream, address) = tcp.accept().await?;
    Ok(Some((stream, address, permit)))
}

async fn serve<S>(stream: S, peer: Peer, router: Router, watcher: hyper_util::server::graceful::Watcher)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEADER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEADER_BYTES as u32)
        .max_concurrent_streams(128)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE);
    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let mut request: Request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        router.clone().call(request)
    });
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(address = %peer.address, error, "a connection ended with an error");
    }
}
