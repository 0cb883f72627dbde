//! Connections to runners. Each tenant has its own pool, found by the tenant's id and port; a connection never moves from one
//! tenant to another. A cap per tenant keeps one busy client from starving the rest.

use super::Limits;
use super::body::ClientBody;
use crate::domain::TenantId;
use crate::domain::tenant::Tenant;
use crate::error::{Error, Kind, Result};
use crate::runner_client::RunnerClients;
use async_trait::async_trait;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A connection to a runner, whatever carries it.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}
pub type BoxIo = Box<dyn Io>;

/// Opens connections to runners.
#[async_trait]
pub trait Upstream: Send + Sync + std::fmt::Debug {
    async fn connect(&self, tenant: &Tenant) -> Result<BoxIo>;
}

#[async_trait]
impl Upstream for RunnerClients {
    async fn connect(&self, tenant: &Tenant) -> Result<BoxIo> {
        Ok(Box::new(self.connect_http(tenant).await?))
    }
}

/// Idle connections are kept this long; a runner keeps them longer.
const KEEP: Duration = Duration::from_secs(20);
const MAX_IDLE: usize = 32;
const CONNECT: Duration = Duration::from_secs(6);

type Sender = SendRequest<ClientBody>;

struct Idle {
    sender: Sender,
    port: Option<u16>,
    since: Instant,
}

struct TenantPool {
    idle: Mutex<Vec<Idle>>,
    requests: Arc<Semaphore>,
    tunnels: Arc<Semaphore>,
}

impl TenantPool {
    fn take(&self, port: Option<u16>) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|i| i.port == port && !i.sender.is_closed() && i.since.elapsed() < KEEP);
        let at = idle.iter().rposition(|i| i.sender.is_ready())?;
        Some(idle.swap_remove(at).sender)
    }
}

/// One request's hold on a connection and on its tenant's allowance.
pub struct Lease {
    sender: Sender,
    port: Option<u16>,
    pool: Arc<TenantPool>,
    _permit: OwnedSemaphorePermit,
}

impl Lease {
    /// The answer was read to its end: the connection may serve the same tenant again.
    pub fn give_back(self) {
        if self.sender.is_closed() {
            return;
        }
        let mut idle = self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE {
            idle.push(Idle { sender: self.sender, port: self.port, since: Instant::now() });
        }
    }
}

/// How a request to a runner failed.
#[derive(Debug)]
pub enum SendError {
    /// It never left: no connection, or no allowance.
    NotSent(Error),
    /// It may have had an effect.
    Sent(hyper::Error),
}

/// All pools, and the tasks that drive their connections.
#[derive(Clone)]
pub struct Pools {
    upstream: Arc<dyn Upstream>,
    tenants: Arc<Mutex<HashMap<TenantId, Arc<TenantPool>>>>,
    tasks: TaskTracker,
    token: CancellationToken,
    requests: usize,
    tunnels: usize,
}

impl std::fmt::Debug for Pools {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pools").field("upstream", &self.upstream).finish_non_exhaustive()
    }
}

impl Pools {
    pub fn new(upstream: Arc<dyn Upstream>, limits: &Limits, token: CancellationToken) -> Self {
        Self {
            upstream,
            tenants: Arc::default(),
            tasks: TaskTracker::new(),
            token,
            requests: limits.per_tenant,
            tunnels: limits.tunnels_per_tenant,
        }
    }

    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    fn of(&self, tenant: TenantId) -> Arc<TenantPool> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        tenants
            .entry(tenant)
            .or_insert_with(|| {
                Arc::new(TenantPool {
                    idle: Mutex::default(),
                    requests: Arc::new(Semaphore::new(self.requests)),
                    tunnels: Arc::new(Semaphore::new(self.tunnels)),
                })
            })
            .clone()
    }

    /// Forgets the pools of tenants that are not routed any more.
    pub fn retain(&self, known: &HashSet<TenantId>) {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner).retain(|id, _| known.contains(id));
    }

    async fn open(&self, tenant: &Tenant) -> Result<BoxIo> {
        match tokio::time::timeout(CONNECT, self.upstream.connect(tenant)).await {
            Ok(opened) => opened,
            Err(_) => Err(Error::timeout("the tenant's runner")),
        }
    }

    /// Sends a request over a kept connection, or a new one. A kept connection that turned out closed before anything was
    /// sent is replaced; a request that may have been sent is never sent twice.
    pub async fn send(
        &self,
        tenant: &Tenant,
        mut request: Request<ClientBody>,
    ) -> Result<(Response<Incoming>, Lease), SendError> {
        let pool = self.of(tenant.id);
        let permit = pool.requests.clone().try_acquire_owned().map_err(|_| SendError::NotSent(too_busy()))?;
        while let Some(mut sender) = pool.take(tenant.port) {
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, Lease { sender, port: tenant.port, pool, _permit: permit })),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(SendError::Sent(error.into_error())),
                },
            }
        }
        let io = self.open(tenant).await.map_err(SendError::NotSent)?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(256 * 1024)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|e| SendError::NotSent(Error::unavailable("the tenant's runner", e)))?;
        let token = self.token.clone();
        self.tasks.spawn(async move {
            // The error also reaches whoever waits for the answer.
            let _ = token.run_until_cancelled(connection).await;
        });
        match sender.try_send_request(request).await {
            Ok(response) => Ok((response, Lease { sender, port: tenant.port, pool, _permit: permit })),
            Err(error) if error.message().is_some() => {
                Err(SendError::NotSent(Error::unavailable("the tenant's runner", error.into_error())))
            }
            Err(error) => Err(SendError::Sent(error.into_error())),
        }
    }

    /// Sends an upgrade request over a connection of its own, which becomes the tunnel.
    pub async fn send_upgrade(
        &self,
        tenant: &Tenant,
        request: Request<http_body_util::Empty<bytes::Bytes>>,
    ) -> Result<(Response<Incoming>, OwnedSemaphorePermit), SendError> {
        let pool = self.of(tenant.id);
        let permit = pool.tunnels.clone().try_acquire_owned().map_err(|_| SendError::NotSent(too_busy()))?;
        let io = self.open(tenant).await.map_err(SendError::NotSent)?;
        let (mut sender, connection) = http1::Builder::new()
            .handshake(TokioIo::new(io))
            .await
            .map_err(|e| SendError::NotSent(Error::unavailable("the tenant's runner", e)))?;
        let token = self.token.clone();
        let driver = connection.with_upgrades();
        self.tasks.spawn(async move {
            tokio::select! {
                _ = driver => {}
                () = token.cancelled() => {}
            }
        });
        let response = sender.send_request(request).await.map_err(SendError::Sent)?;
        Ok((response, permit))
    }
}

fn too_busy() -> Error {
    Error::new(
        Kind::Unavailable { what: "the tenant's runner" },
        "This tenant has too many requests in progress; try again shortly",
    )
}
