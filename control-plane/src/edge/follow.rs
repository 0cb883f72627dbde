//! Keeps the route table true to the tenant rows: rebuilt whenever a row changes, and now and then in case a change was missed.
//! While the database is silent the last table stays in force.

use super::route::RouteTable;
use super::service::Edge;
use crate::domain::TenantId;
use crate::domain::tenant::Tenant;
use crate::error::Result;
use async_trait::async_trait;
use nexaas_common::backoff::Backoff;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

/// Where the tenant rows come from.
#[async_trait]
pub trait TenantSource: Send + Sync + std::fmt::Debug {
    async fn tenants(&self) -> Result<Vec<Tenant>>;
    /// Every change of a tenant row from now on.
    fn changes(&self) -> broadcast::Receiver<TenantId>;
}

const SWEEP: Duration = Duration::from_secs(30);
const RETRY: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
const LOAD: Duration = Duration::from_secs(5);

/// Runs until `token` is cancelled.
pub async fn follow(edge: Arc<Edge>, source: Arc<dyn TenantSource>, token: CancellationToken) {
    let _ = token.run_until_cancelled(forever(edge, source)).await;
}

async fn forever(edge: Arc<Edge>, source: Arc<dyn TenantSource>) {
    // Subscribed before the first read, so that nothing falls between the two.
    let mut changes = source.changes();
    let mut failures = 0;
    loop {
        match tokio::time::timeout(LOAD, source.tenants()).await {
            Ok(Ok(tenants)) => {
                failures = 0;
                edge.install(RouteTable::build(&edge.config.public.base_domain, tenants));
            }
            failed => {
                let why =
                    failed.map_or_else(|_| "timed out".to_owned(), |r| r.err().map_or_else(String::new, |e| e.chain()));
                if failures == 0 {
                    tracing::warn!(why, "the tenants could not be read; the last route table stays in force");
                }
                tokio::time::sleep(RETRY.delay(failures)).await;
                failures = failures.saturating_add(1);
                continue;
            }
        }
        match tokio::time::timeout(SWEEP, changes.recv()).await {
            Ok(Ok(_) | Err(RecvError::Lagged(_))) => {
                // One rebuild answers everything that has happened up to now.
                while !matches!(
                    changes.try_recv(),
                    Err(broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed)
                ) {}
            }
            Ok(Err(RecvError::Closed)) => {
                tokio::time::sleep(SWEEP).await;
                changes = source.changes();
            }
            Err(_) => {}
        }
    }
}
