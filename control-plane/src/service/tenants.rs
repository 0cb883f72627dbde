//! Tenants: create, look, change the wish, follow an operation.

use super::changes::Changes;
use super::{Backends, backend_of, require, validate};
use crate::cipher::Cipher;
use crate::config::{Settings, checked_cpu, checked_memory};
use crate::domain::condition::{Condition, ConditionStatus, ConditionType};
use crate::domain::operation::{Operation, OperationKind, OperationState};
use crate::domain::operator::{Principal, Role};
use crate::domain::tenant::{BackendKind, Desired, Limits, Tenant};
use crate::domain::{OperationId, Slug, TenantId};
use crate::error::{Error, Kind, Result};
use crate::reconcile::progress;
use crate::store::events::{Severity, TenantEvent};
use crate::store::{Store, Tx};
use base64::Engine as _;
use futures::stream::BoxStream;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;

#[derive(Debug, Clone, Default)]
pub struct CreateTenant {
    pub slug: String,
    pub display_name: Option<String>,
    pub template: Option<String>,
    pub backend: Option<BackendKind>,
    pub memory_mb: Option<u64>,
    pub cpu_millis: Option<u32>,
}

#[derive(Debug, Clone, Default)]
pub struct PageRequest {
    pub cursor: Option<String>,
    /// 0 means the default.
    pub limit: u32,
}

#[derive(Debug, Clone)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub next_cursor: Option<String>,
}

pub const MAX_PAGE: u32 = 200;
const DEFAULT_PAGE: u32 = 50;
const DEFAULT_TEMPLATE: &str = "fresh";
/// Template names are folder names.
const MAX_TEMPLATES: usize = 200;

#[derive(Debug, Clone)]
pub struct TenantService(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) settings: Arc<Settings>,
    pub(super) store: Store,
    pub(super) backends: Backends,
    pub(super) cipher: Cipher,
    pub(super) changes: Changes,
}

impl TenantService {
    pub fn new(settings: Arc<Settings>, store: Store, backends: Backends, cipher: Cipher, changes: Changes) -> Self {
        Self(Arc::new(Inner { settings, store, backends, cipher, changes }))
    }

    pub async fn create(
        &self,
        by: &Principal,
        req: CreateTenant,
        idempotency_key: Option<&str>,
    ) -> Result<(Tenant, Operation)> {
        require(by, Role::Operator)?;
        let key = validate::idempotency_key(idempotency_key)?;
        let Inner { settings, store, .. } = &*self.0;
        let slug = validate::slug(&req.slug)?;
        let display_name = match req.display_name.as_deref().map(str::trim) {
            None | Some("") => slug.as_str().to_owned(),
            Some(name) => validate::line("display_name", name, 80)?,
        };
        let template = req.template.clone().filter(|t| !t.is_empty()).unwrap_or_else(|| DEFAULT_TEMPLATE.to_owned());
        let known = self.templates();
        if !known.contains(&template) {
            return Err(Error::invalid(
                "template",
                format!("'{}' does not exist; known are: {}", clip(&template), known.join(", ")),
            ));
        }
        let backend = req.backend.unwrap_or(settings.backend);
        backend_of(&self.0.backends, backend)?;
        let limits = Limits {
            memory_bytes: match req.memory_mb {
                None => settings.default_limits.memory_bytes,
                Some(mb) => checked_memory("memory_mb", mb)?,
            },
            cpu_millis: match req.cpu_millis {
                None => settings.default_limits.cpu_millis,
                Some(millis) => checked_cpu("cpu_millis", millis)?,
            },
            pids: settings.default_limits.pids,
        };

        let request = request_hash(&[
            "create",
            slug.as_str(),
            &display_name,
            &template,
            backend.as_str(),
            &limits.memory_bytes.to_string(),
            &limits.cpu_millis.to_string(),
        ]);
        let caller = by.operator_id.to_string();
        let mut tx = store.begin().await?;
        if let Some(key) = key
            && let Some(earlier) = store.replayed(&mut tx, &caller, key, &request).await?
        {
            drop(tx);
            let operation = self.operation(earlier).await?;
            let record =
                store.tenant_by_id(operation.tenant_id).await?.ok_or_else(|| Error::not_found("the tenant"))?;
            return Ok((record.tenant, operation));
        }
        if !store.has_free_port(&settings.port_range).await? {
            return Err(crate::store::ports::ports_exhausted(&settings.port_range));
        }
        let now = store.clock().now();
        let tenant = Tenant {
            id: TenantId::generate(),
            slug,
            display_name,
            desired: Desired::Running,
            generation: 1,
            observed_generation: 0,
            template,
            backend,
            limits,
            port: None,
            subnet: None,
            conditions: vec![Condition {
                r#type: ConditionType::Ready,
                status: ConditionStatus::False,
                reason: "Provisioning".to_owned(),
                message: "The workspace is being set up".to_owned(),
                last_transition_time: now,
                observed_generation: 1,
            }],
            created_at: now,
            updated_at: now,
        };
        let operation = progress::begin(tenant.id, OperationKind::Create, 1, now);
        store.insert_tenant(&mut tx, &tenant).await?;
        store.insert_operation(&mut tx, &operation).await?;
        store
            .insert_event(&mut tx, tenant.id, Severity::Info, "Created", &format!("created by {}", by.username))
            .await?;
        if let Some(key) = key {
            store.remember(&mut tx, &caller, key, &request, operation.id).await?;
        }
        store
            .audit(
                &mut tx,
                by,
                "tenant.create",
                tenant.slug.as_str(),
                &format!("id={} template={}", tenant.id, tenant.template),
            )
            .await?;
        commit(tx).await?;
        self.0.changes.nudge(tenant.id);
        Ok((tenant, operation))
    }

    pub async fn list(&self, page: PageRequest) -> Result<Page<Tenant>> {
        let limit = if page.limit == 0 { DEFAULT_PAGE } else { page.limit.min(MAX_PAGE) };
        let after = match page.cursor.as_deref() {
            None | Some("") => String::new(),
            Some(cursor) => decode_cursor(cursor)?,
        };
        let mut items: Vec<Tenant> =
            self.0.store.tenants_after(&after, i64::from(limit) + 1).await?.into_iter().map(|r| r.tenant).collect();
        let more = items.len() > limit as usize;
        items.truncate(limit as usize);
        let next_cursor = if more { items.last().map(|t| encode_cursor(t.slug.as_str())) } else { None };
        Ok(Page { items, next_cursor })
    }

    pub async fn all(&self) -> Result<Vec<Tenant>> {
        Ok(self.0.store.tenants().await?.into_iter().map(|r| r.tenant).collect())
    }

    pub async fn get(&self, slug: &Slug) -> Result<Tenant> {
        let record = self.0.store.tenant_by_slug(slug).await?;
        record.map(|r| r.tenant).ok_or_else(|| Error::not_found(format!("tenant '{slug}'")))
    }

    pub async fn suspend(
        &self,
        by: &Principal,
        slug: &Slug,
        if_match: Option<u64>,
        key: Option<&str>,
    ) -> Result<Operation> {
        self.wish(by, slug, Desired::Suspended, OperationKind::Suspend, if_match, key).await
    }
    pub async fn resume(
        &self,
        by: &Principal,
        slug: &Slug,
        if_match: Option<u64>,
        key: Option<&str>,
    ) -> Result<Operation> {
        self.wish(by, slug, Desired::Running, OperationKind::Resume, if_match, key).await
    }
    pub async fn delete(
        &self,
        by: &Principal,
        slug: &Slug,
        if_match: Option<u64>,
        key: Option<&str>,
    ) -> Result<Operation> {
        self.wish(by, slug, Desired::Deleted, OperationKind::Delete, if_match, key).await
    }

    async fn wish(
        &self,
        by: &Principal,
        slug: &Slug,
        desired: Desired,
        kind: OperationKind,
        if_match: Option<u64>,
        key: Option<&str>,
    ) -> Result<Operation> {
        require(by, Role::Operator)?;
        let key = validate::idempotency_key(key)?;
        let store = &self.0.store;
        let request = request_hash(&[kind.as_str(), slug.as_str()]);
        let caller = by.operator_id.to_string();
        let mut tx = store.begin().await?;
        if let Some(key) = key
            && let Some(earlier) = store.replayed(&mut tx, &caller, key, &request).await?
        {
            drop(tx);
            return self.operation(earlier).await;
        }
        let (id, generation, current) =
            store.lock_tenant(&mut tx, slug).await?.ok_or_else(|| Error::not_found(format!("tenant '{slug}'")))?;
        if let Some(expected) = if_match
            && expected != generation
        {
            return Err(Error::new(
                Kind::PreconditionFailed,
                format!("tenant '{slug}' is at generation {generation}, not {expected}; look at it again"),
            ));
        }
        if current == Desired::Deleted && desired != Desired::Deleted {
            return Err(Error::conflict(format!("tenant '{slug}' is being deleted")));
        }
        // Asked for what is already wished: the change under way is the answer, unless it failed and this is the retry.
        if current == desired
            && let Some(latest) = store.operations_of(id, 1).await?.into_iter().next()
            && latest.generation == generation
            && matches!(latest.state, OperationState::Running | OperationState::Succeeded)
        {
            return Ok(latest);
        }
        let generation = store.set_desired(&mut tx, id, desired).await?;
        let operation = progress::begin(id, kind, generation, store.clock().now());
        store.insert_operation(&mut tx, &operation).await?;
        let message = format!("{} asked for by {}", kind.as_str(), by.username);
        store.insert_event(&mut tx, id, Severity::Info, "Requested", &message).await?;
        if let Some(key) = key {
            store.remember(&mut tx, &caller, key, &request, operation.id).await?;
        }
        store
            .audit(
                &mut tx,
                by,
                &format!("tenant.{}", kind.as_str()),
                slug.as_str(),
                &format!("id={id} generation={generation}"),
            )
            .await?;
        commit(tx).await?;
        self.0.changes.nudge(id);
        Ok(operation)
    }

    pub async fn operation(&self, id: OperationId) -> Result<Operation> {
        self.0.store.operation(id).await?.ok_or_else(|| Error::not_found(format!("operation {id}")))
    }

    pub async fn operations_of(&self, tenant: TenantId, limit: u32) -> Result<Vec<Operation>> {
        self.0.store.operations_of(tenant, i64::from(limit.clamp(1, MAX_PAGE))).await
    }

    /// The present state first, then every change; ends after the finished state.
    pub fn watch_operation(&self, id: OperationId) -> BoxStream<'static, Result<Operation>> {
        let this = self.clone();
        Box::pin(async_stream::stream! {
            // Subscribed before the first look, so that no change falls between.
            let mut news = this.0.changes.any();
            let mut last: Option<Operation> = None;
            loop {
                match this.operation(id).await {
                    Ok(now) => {
                        let finished = now.state.finished();
                        let tenant = now.tenant_id;
                        if last.as_ref() != Some(&now) {
                            last = Some(now.clone());
                            yield Ok(now);
                        }
                        if finished {
                            return;
                        }
                        // The time-out stands behind notifications that never come.
                        let wait = async {
                            loop {
                                match news.recv().await {
                                    Ok(changed) if changed == tenant => return true,
                                    Ok(_) => {}
                                    Err(broadcast::error::RecvError::Lagged(_)) => return true,
                                    Err(broadcast::error::RecvError::Closed) => return false,
                                }
                            }
                        };
                        if let Ok(false) = tokio::time::timeout(Duration::from_secs(15), wait).await {
                            return;
                        }
                    }
                    Err(error) => {
                        yield Err(error);
                        return;
                    }
                }
            }
        })
    }

    /// Any change of a tenant's row, leases, operations or events.
    pub fn changes(&self) -> broadcast::Receiver<TenantId> {
        self.0.changes.any()
    }

    /// What happened to the tenant, newest first.
    pub async fn log_events(&self, tenant: TenantId, limit: u32) -> Result<Vec<TenantEvent>> {
        self.0.store.events_of(tenant, i64::from(limit.clamp(1, 500))).await
    }

    /// The last lines of the runner's output.
    pub async fn runner_logs(&self, slug: &Slug, lines: usize) -> Result<String> {
        let tenant = self.get(slug).await?;
        backend_of(&self.0.backends, tenant.backend)?.logs(tenant.id, lines.clamp(1, 5000)).await
    }

    /// Names of the backends that this server can use.
    pub fn backends(&self) -> Vec<&'static str> {
        self.0.backends.keys().copied().collect()
    }

    /// Names of the workspace templates on this server.
    pub fn templates(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(&self.0.settings.templates_dir) else { return Vec::new() };
        let mut names: Vec<String> = entries
            .flatten()
            .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
            .filter_map(|e| e.file_name().into_string().ok())
            .filter(|n| n.len() <= 64 && n.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'))
            .take(MAX_TEMPLATES)
            .collect();
        names.sort();
        names
    }
}

pub(super) async fn commit(tx: Tx) -> Result<()> {
    crate::store::bounded(tx.commit()).await
}

fn clip(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}

/// Identifies a request for its idempotency key; each part is preceded by its length.
fn request_hash(parts: &[&str]) -> Vec<u8> {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_vec()
}

fn encode_cursor(slug: &str) -> String {
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(slug)
}

fn decode_cursor(cursor: &str) -> Result<String> {
    let bad = || Error::invalid("cursor", "is not one that this server gave out");
    if cursor.len() > 128 {
        return Err(bad());
    }
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(cursor).map_err(|_| bad())?;
    let text = String::from_utf8(bytes).map_err(|_| bad())?;
    text.parse::<Slug>().map_err(|_| bad())?;
    Ok(text)
}
