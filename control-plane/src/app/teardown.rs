//! Taking an installation off its host while no server runs: every object that carries its label. Without `purge` the
//! tenants' data stays, and the next start brings the tenants back.

use super::foundation::{Foundation, backend, lock};
use crate::config::Settings;
use crate::domain::TenantId;
use crate::domain::tenant::BackendKind;
use crate::error::Result;
use crate::orchestrator::{ObjectKind, SharedBackend};
use nexaas_common::task::Supervisor;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Removed {
    pub runners: usize,
    pub networks: usize,
    pub volumes: usize,
}

pub async fn teardown(settings: Settings, purge: bool) -> Result<Removed> {
    let settings = Arc::new(settings);
    let _lock = lock(&settings)?;
    let supervisor = Supervisor::new();
    let foundation = Foundation::lay(settings.clone(), &supervisor).await?;
    let outcome = remove(&settings, &foundation, &supervisor, purge).await;
    // From here on the database's end is expected.
    supervisor.token().cancel();
    foundation.close().await;
    if let Err(error) = supervisor.shutdown(Duration::from_secs(30)).await {
        tracing::warn!(%error, "some tasks were cut off");
    }
    outcome
}

async fn remove(settings: &Settings, foundation: &Foundation, supervisor: &Supervisor, purge: bool) -> Result<Removed> {
    let mut removed = Removed::default();
    for kind in foundation.backends_in_use().await? {
        if kind == BackendKind::Fake {
            continue;
        }
        let backend = backend(settings, kind, foundation.install, supervisor).await?;
        let mut owners: BTreeMap<TenantId, Vec<ObjectKind>> = BTreeMap::new();
        for found in backend.list().await? {
            owners.entry(found.tenant_id).or_default().push(found.kind);
        }
        let each = owners.into_iter().map(|(tenant, kinds)| remove_tenant(&backend, tenant, kinds, purge));
        for result in futures::future::join_all(each).await {
            let one = result?;
            removed.runners += one.runners;
            removed.networks += one.networks;
            removed.volumes += one.volumes;
        }
    }
    Ok(removed)
}

async fn remove_tenant(
    backend: &SharedBackend,
    tenant: TenantId,
    kinds: Vec<ObjectKind>,
    purge: bool,
) -> Result<Removed> {
    let mut removed = Removed::default();
    if kinds.contains(&ObjectKind::Runner) {
        backend.stop(tenant).await?;
        backend.remove(tenant, ObjectKind::Runner).await?;
        removed.runners += 1;
    }
    if kinds.contains(&ObjectKind::Network) {
        backend.remove(tenant, ObjectKind::Network).await?;
        removed.networks += 1;
    }
    if purge && kinds.contains(&ObjectKind::Volume) {
        backend.remove(tenant, ObjectKind::Volume).await?;
        removed.volumes += 1;
    }
    Ok(removed)
}
