//! The reconciler's way to a runner: gRPC for the handshake, and the edge's own address for the probe, as a visitor comes.

use crate::domain::TenantId;
use crate::domain::tenant::Tenant;
use crate::error::{Error, Kind, Result};
use crate::reconcile::{Greeting, RunnerGate, RunnerSettings};
use crate::runner_client::{Configuration, Registration, RunnerClients};
use async_trait::async_trait;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpStream;

const PROBE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct EdgeGate {
    clients: RunnerClients,
    edge: SocketAddr,
    base_domain: String,
}

impl EdgeGate {
    pub fn new(clients: RunnerClients, listen: SocketAddr, base_domain: String) -> Self {
        // What listens on every address is asked on the loopback.
        let ip = match listen.ip() {
            IpAddr::V4(v4) if v4.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(v6) if v6.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            ip => ip,
        };
        Self { clients, edge: SocketAddr::new(ip, listen.port()), base_domain }
    }

    async fn ask(&self, tenant: &Tenant) -> Result<http::StatusCode> {
        let silent = |e: std::io::Error| Error::unavailable("the edge", e);
        let stream = TcpStream::connect(self.edge).await.map_err(silent)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| Error::unavailable("the edge", e))?;
        let request = http::Request::get("/api/health")
            .header(http::header::HOST, format!("{}.{}", tenant.slug, self.base_domain))
            .header(http::header::USER_AGENT, "nexaas-probe")
            .header(http::header::CONNECTION, "close")
            .body(Empty::<bytes::Bytes>::new())
            .map_err(Error::internal)?;
        let answer = sender.send_request(request);
        tokio::pin!(connection, answer);
        // The connection moves the bytes while the answer is awaited.
        let response = tokio::select! {
            response = &mut answer => response,
            ended = &mut connection => match ended {
                Ok(()) => answer.await,
                Err(error) => Err(error),
            },
        };
        response.map(|r| r.status()).map_err(|e| Error::unavailable("the edge", e))
    }
}

#[async_trait]
impl RunnerGate for EdgeGate {
    async fn hello(&self, tenant: &Tenant) -> Result<Greeting> {
        let hello = self.clients.control(tenant)?.hello().await?;
        Ok(Greeting {
            boot: hello.boot_id,
            version: hello.version,
            configured: hello.configured,
            workspace_initialized: hello.workspace_initialized,
        })
    }

    async fn configure(&self, tenant: &Tenant, settings: &RunnerSettings) -> Result<()> {
        let configuration = Configuration {
            secrets: settings.secrets.iter().cloned().collect(),
            api_key_sha256: settings.api_key_sha256.clone(),
            display_name: tenant.display_name.clone(),
            public_url: settings.public_url.clone(),
            registration: Registration::Open,
            default_timezone: "UTC".to_owned(),
        };
        self.clients.control(tenant)?.configure(&configuration).await
    }

    async fn initialize_workspace(&self, tenant: &Tenant, template: &str) -> Result<String> {
        let result = self.clients.control(tenant)?.initialize_workspace(template).await?;
        Ok(if result.detail.is_empty() {
            (if result.created { "the workspace was set up" } else { "the workspace was there" }).to_owned()
        } else {
            result.detail
        })
    }

    async fn probe(&self, tenant: &Tenant) -> Result<()> {
        let status = tokio::time::timeout(PROBE, self.ask(tenant)).await.map_err(|_| Error::timeout("the edge"))??;
        if status == http::StatusCode::OK {
            return Ok(());
        }
        Err(Error::new(
            Kind::Unavailable { what: "runner" },
            format!("its health check answers {status} through the edge"),
        ))
    }

    fn forget(&self, tenant: TenantId) {
        self.clients.forget(tenant);
    }
}
