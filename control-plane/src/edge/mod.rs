//! The one door: every request from outside comes through here. A host is read strictly, looked up in one table that is a pure
//! function of the tenant rows, and led to the console, to a tenant's pages, or streamed through to its runner.
//!
//! Always true: no connection to a runner serves two tenants; no header by which the panel identifies anybody crosses in
//! either direction; every wait has a limit.

pub mod body;
pub mod follow;
pub mod framing;
pub mod headers;
pub mod host;
pub mod pages;
pub mod pool;
pub mod proxy;
pub mod route;
pub mod server;
pub mod service;
pub mod tunnel;

pub use follow::TenantSource;
pub use pool::{BoxIo, Io, Upstream};
pub use route::{RouteTable, SharedRoutes};
pub use service::Edge;

use crate::http::PublicUrl;
use ipnet::IpNet;
use std::time::Duration;

/// What the edge allows.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Client connections at once.
    pub connections: usize,
    /// A client must send the head of a request within this time, also of the next one on a kept connection.
    pub head: Duration,
    /// The longest pause in a request body, and in taking our answer.
    pub client_idle: Duration,
    /// The longest wait for a runner's answer to begin, counted from the last progress of the request.
    pub answer: Duration,
    /// The longest silence within a runner's answer or a tunnel.
    pub runner_idle: Duration,
    /// The largest request body that is passed on.
    pub body: u64,
    /// Requests to one tenant's runner at once.
    pub per_tenant: usize,
    /// Tunnels to one tenant's runner at once.
    pub tunnels_per_tenant: usize,
    /// How long open requests may take to end at shutdown.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 8192,
            head: Duration::from_secs(30),
            client_idle: Duration::from_secs(60),
            answer: Duration::from_secs(120),
            runner_idle: Duration::from_secs(600),
            body: 64 << 20,
            per_tenant: 256,
            tunnels_per_tenant: 128,
            drain: Duration::from_secs(5),
        }
    }
}

#[derive(Debug, Clone)]
pub struct EdgeConfig {
    pub public: PublicUrl,
    /// Proxies whose `X-Forwarded-For` is believed. Empty: the peer's address is the caller's.
    pub trusted_proxies: Vec<IpNet>,
    pub limits: Limits,
}

#[cfg(test)]
mod tests;
