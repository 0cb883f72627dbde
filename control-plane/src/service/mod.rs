//! The use cases. Whatever an operator can do goes through here, whether it comes from the console, the API or the
//! command line: roles are checked, input is refused by field, and a change and its audit row are one transaction.

pub mod changes;
pub mod operators;
mod tenant_secrets;
pub mod tenants;
pub mod validate;

pub use crate::store::api_tokens::ApiToken;
pub use crate::store::events::{Severity, TenantEvent};
pub use changes::Changes;
pub use operators::{OperatorService, Session};
pub use tenants::{CreateTenant, Page, PageRequest, TenantService};

use crate::cipher::Cipher;
use crate::config::Settings;
use crate::domain::operator::{Principal, Role};
use crate::domain::tenant::BackendKind;
use crate::error::{Error, Result};
use crate::orchestrator::SharedBackend;
use crate::store::Store;
use nexaas_common::clock::SharedClock;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The backends this control plane can use.
pub type Backends = Arc<BTreeMap<&'static str, SharedBackend>>;

pub fn backends(list: impl IntoIterator<Item = SharedBackend>) -> Backends {
    Arc::new(list.into_iter().map(|b| (b.kind().as_str(), b)).collect())
}

pub fn backend_of(backends: &Backends, kind: BackendKind) -> Result<&SharedBackend> {
    backends
        .get(kind.as_str())
        .ok_or_else(|| Error::invalid("backend", format!("'{}' is not available on this server", kind.as_str())))
}

#[derive(Clone)]
pub struct Services {
    pub settings: Arc<Settings>,
    pub clock: SharedClock,
    pub store: Store,
    pub tenants: TenantService,
    pub operators: OperatorService,
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Services").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Services {
    pub fn new(
        settings: Arc<Settings>,
        store: Store,
        backends: Backends,
        cipher: Cipher,
        session_key: [u8; 32],
        changes: Changes,
    ) -> Result<Self> {
        let clock = store.clock().clone();
        Ok(Self {
            tenants: TenantService::new(settings.clone(), store.clone(), backends, cipher, changes),
            operators: OperatorService::new(store.clone(), session_key)?,
            settings,
            clock,
            store,
        })
    }
}

/// Deny by default: whoever changes something needs at least `role`.
pub fn require(by: &Principal, role: Role) -> Result<()> {
    if by.role >= role {
        Ok(())
    } else {
        Err(Error::forbidden(format!("this needs the role {}; you are {}", role.as_str(), by.role.as_str())))
    }
}

#[cfg(test)]
mod tests;
