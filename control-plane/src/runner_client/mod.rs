//! How the control plane reaches runners: gRPC and HTTP over mutual TLS on the runner's one port.
//!
//! Always true: a connection belongs to one tenant; it is usable only after the other end has proven that tenant's
//! certificate. Nothing is pooled across tenants. Wire types stop in this module.

pub mod channel;
pub mod control;
pub mod model;
pub mod tenant_api;
pub mod tls;

pub use control::{Configuration, ControlClient, Hello, Registration, WorkspaceResult};
pub use tenant_api::TenantApi;
pub use tls::RunnerStream;

use crate::domain::TenantId;
use crate::domain::tenant::Tenant;
use crate::error::{Error, Kind, Result};
use crate::pki::Authority;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tonic::transport::Channel;

/// Beyond this many cached channels the cache starts anew; each is remade at its next use.
const MAX_CHANNELS: usize = 4096;

/// Connections to every runner. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RunnerClients(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connector: tls::Connector,
    channels: Mutex<HashMap<TenantId, (u16, Channel)>>,
}

impl RunnerClients {
    pub fn new(authority: Arc<Authority>) -> Result<Self> {
        Ok(Self(Arc::new(Inner { connector: tls::Connector::new(authority)?, channels: Mutex::default() })))
    }

    /// The tenant's gRPC channel: one HTTP/2 connection, made at first use and again after it breaks.
    pub fn channel(&self, tenant: &Tenant) -> Result<Channel> {
        self.channel_to(tenant.id, port_of(tenant)?)
    }

    pub(crate) fn channel_to(&self, tenant: TenantId, port: u16) -> Result<Channel> {
        let mut channels = self.0.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, channel)) = channels.get(&tenant)
            && *known == port
        {
            return Ok(channel.clone());
        }
        if channels.len() >= MAX_CHANNELS {
            channels.clear();
        }
        let channel = channel::build(self.0.connector.clone(), tenant, port)?;
        channels.insert(tenant, (port, channel.clone()));
        Ok(channel)
    }

    /// What only the control plane itself asks of a runner.
    pub fn control(&self, tenant: &Tenant) -> Result<ControlClient> {
        Ok(ControlClient::new(tenant.id, self.channel(tenant)?))
    }

    /// A new TLS connection to the tenant's runner that speaks HTTP/1.1. The caller owns it and its reuse.
    pub async fn connect_http(&self, tenant: &Tenant) -> Result<RunnerStream> {
        self.0.connector.connect(tenant.id, port_of(tenant)?, tls::Protocol::Http1).await
    }

    /// Drops what is cached of a tenant that is gone.
    pub fn forget(&self, tenant: TenantId) {
        self.0.channels.lock().unwrap_or_else(PoisonError::into_inner).remove(&tenant);
    }
}

fn port_of(tenant: &Tenant) -> Result<u16> {
    tenant
        .port
        .ok_or_else(|| Error::new(Kind::Unavailable { what: "runner" }, format!("{} has no runner yet", tenant.slug)))
}
