//! Looking after runners that are ready: a probe every few seconds, and one listing of the backend in case its news was lost.

use super::{Core, Reconciler};
use crate::domain::TenantId;
use crate::domain::tenant::Desired;
use crate::error::Result;
use crate::orchestrator::ObjectKind;
use futures::StreamExt as _;
use std::collections::HashSet;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// So many probes in a row must fail before a runner is in doubt: one may be bad luck.
const PATIENCE: u32 = 2;
const AT_ONCE: usize = 16;

impl Reconciler {
    pub(super) fn look_at_health(&self, looks: &mut JoinSet<Vec<TenantId>>, token: &CancellationToken) {
        let (core, token) = (self.core.clone(), token.clone());
        looks.spawn(async move {
            match token.run_until_cancelled(core.in_doubt()).await {
                Some(Ok(ids)) => ids,
                Some(Err(error)) => {
                    tracing::debug!(error = %error.chain(), "runners could not be looked at");
                    Vec::new()
                }
                None => Vec::new(),
            }
        });
    }
}

impl Core {
    /// The tenants that should answer and do not.
    async fn in_doubt(&self) -> Result<Vec<TenantId>> {
        let records = self.store.tenants().await?;
        let mut listed: HashSet<(&'static str, TenantId)> = HashSet::new();
        let mut silent: HashSet<&'static str> = HashSet::new();
        for (name, backend) in self.backends.iter() {
            match backend.list().await {
                Ok(found) => listed
                    .extend(found.into_iter().filter(|f| f.kind == ObjectKind::Runner).map(|f| (*name, f.tenant_id))),
                // A backend that does not answer has lost nothing.
                Err(_) => {
                    silent.insert(*name);
                }
            }
        }
        let ready = records
            .into_iter()
            .map(|r| r.tenant)
            .filter(|t| t.desired == Desired::Running && t.is_ready() && self.sessions.is_ready(t.id));
        let doubts = futures::stream::iter(ready).map(|tenant| {
            let kind = tenant.backend.as_str();
            let missing = !silent.contains(kind) && !listed.contains(&(kind, tenant.id));
            async move {
                if missing {
                    return Some(tenant.id);
                }
                let probed = tokio::time::timeout(self.timing.suspicion, self.gate.probe(&tenant)).await;
                if matches!(probed, Ok(Ok(()))) {
                    self.sessions.answered(tenant.id);
                    return None;
                }
                (self.sessions.missed(tenant.id) >= PATIENCE).then_some(tenant.id)
            }
        });
        Ok(doubts.buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await)
    }
}
