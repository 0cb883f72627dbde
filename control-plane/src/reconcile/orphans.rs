//! Objects that carry our label and that no tenant owns: their row is absent or gone. They are removed, runner first.

use super::{Core, Reconciler};
use crate::domain::TenantId;
use crate::error::Result;
use crate::orchestrator::{ObjectKind, SharedBackend};
use std::collections::BTreeSet;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

impl Reconciler {
    pub(super) fn look_for_orphans(&self, looks: &mut JoinSet<Vec<TenantId>>, token: &CancellationToken) {
        let (core, token) = (self.core.clone(), token.clone());
        looks.spawn(async move {
            if let Some(Err(error)) = token.run_until_cancelled(core.reap()).await {
                tracing::warn!(error = %error.chain(), "could not look for orphans; the next sweep tries again");
            }
            Vec::new()
        });
    }
}

impl Core {
    pub(super) async fn reap(&self) -> Result<()> {
        for backend in self.backends.values() {
            let owners: BTreeSet<TenantId> = backend.list().await?.into_iter().map(|f| f.tenant_id).collect();
            for owner in owners {
                // The row is written before anything is made, so what has no row has no owner. A database that does not
                // answer is an error here, never an absence.
                let owned = self
                    .store
                    .tenant_by_id(owner)
                    .await?
                    .is_some_and(|r| !r.gone && r.tenant.backend == backend.kind());
                if !owned {
                    self.remove_orphan(backend, owner).await?;
                }
            }
        }
        Ok(())
    }

    async fn remove_orphan(&self, backend: &SharedBackend, owner: TenantId) -> Result<()> {
        tracing::warn!(tenant = %owner, backend = backend.kind().as_str(), "removing objects that no tenant owns");
        metrics::counter!("nexaas_orphans_total").increment(1);
        backend.stop(owner).await?;
        for kind in [ObjectKind::Runner, ObjectKind::Volume, ObjectKind::Network] {
            backend.remove(owner, kind).await?;
        }
        Ok(())
    }
}
