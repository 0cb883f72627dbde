//! A backend and its runners in memory, with the manners of bad ones: slow, never up, broken, slow and broken, dying.
//! The world outlives whoever controls it, as a container engine does.

use super::{
    Change, Found, ObjectKind, Observed, RunState, RunnerBackend, RunnerIdentity, RunnerMetrics, RunnerSeen,
    RunnerSpec, TenantObjects,
};
use crate::domain::TenantId;
use crate::domain::tenant::{BackendKind, Subnet, Tenant};
use crate::error::{Error, Kind, Result};
use crate::reconcile::gate::{Greeting, RunnerGate, RunnerSettings};
use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{broadcast, watch};

/// How a tenant's runner behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Manner {
    #[default]
    Good,
    /// Every verb and every answer takes this long.
    Slow(Duration),
    /// It starts and never answers.
    Never,
    /// It cannot be made.
    Bad,
    /// It cannot be made, and that takes this long.
    SlowBad(Duration),
    /// It dies after it has answered so many times.
    CrashAfter(u32),
}

/// A verb at which a test can stop the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    EnsureNetwork,
    EnsureVolume,
    EnsureRunner,
    Start,
    Stop,
    Remove,
    Hello,
    Workspace,
    Probe,
}

#[derive(Debug, Clone)]
struct Runner {
    spec: RunnerSpec,
    state: RunState,
    boot: u64,
    configured: Option<RunnerSettings>,
    answers: u32,
}

#[derive(Debug, Default)]
struct State {
    networks: BTreeMap<TenantId, Option<Subnet>>,
    volumes: BTreeMap<TenantId, bool>,
    runners: BTreeMap<TenantId, Runner>,
    manners: BTreeMap<String, Manner>,
    taken_ports: BTreeSet<u16>,
    taken_subnets: BTreeSet<String>,
    silent: bool,
    boots: u64,
    calls: Vec<(TenantId, Verb)>,
    /// Verbs that block before or after their effect until let go.
    blocked: BTreeMap<Verb, bool>,
}

/// The world. Clones share it.
#[derive(Debug, Clone)]
pub struct FakeBackend {
    state: Arc<Mutex<State>>,
    changes: broadcast::Sender<Change>,
    /// Moves whenever a verb reaches a block.
    reached: Arc<watch::Sender<u64>>,
    let_go: Arc<watch::Sender<u64>>,
}

impl Default for FakeBackend {
    fn default() -> Self {
        Self {
            state: Arc::default(),
            changes: broadcast::channel(256).0,
            reached: Arc::new(watch::channel(0).0),
            let_go: Arc::new(watch::channel(0).0),
        }
    }
}

impl FakeBackend {
    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
    fn changed(&self, tenant_id: TenantId) {
        // Nobody watching is fine.
        let _ = self.changes.send(Change { tenant_id });
    }

    /// How the runner of `slug` behaves from now on.
    pub fn manner(&self, slug: &str, manner: Manner) {
        self.with(|s| s.manners.insert(slug.to_owned(), manner));
    }
    /// Somebody else holds this port.
    pub fn take_port(&self, port: u16) {
        self.with(|s| s.taken_ports.insert(port));
    }
    /// Somebody else uses this subnet.
    pub fn take_subnet(&self, subnet: &str) {
        self.with(|s| s.taken_subnets.insert(subnet.to_owned()));
    }
    /// While silent, nothing is known and no verb works.
    pub fn silent(&self, silent: bool) {
        self.with(|s| s.silent = silent);
    }
    /// Removes the runner behind everybody's back.
    pub fn lose_runner(&self, tenant: TenantId) {
        self.with(|s| s.runners.remove(&tenant));
        self.changed(tenant);
    }
    /// Puts down objects that nobody asked for.
    pub fn plant(&self, tenant: TenantId) {
        self.with(|s| {
            s.networks.insert(tenant, None);
            s.volumes.insert(tenant, false);
        });
    }
    /// From now on `verb` stops before (or, with `after`, after) its effect, until `unblock`.
    pub fn block(&self, verb: Verb, after: bool) {
        self.with(|s| s.blocked.insert(verb, after));
    }
    pub fn unblock(&self) {
        self.with(|s| s.blocked.clear());
        self.let_go.send_modify(|n| *n += 1);
    }
    /// Waits until some verb stands at a block.
    pub async fn blocked(&self) {
        let mut reached = self.reached.subscribe();
        let seen = *reached.borrow_and_update();
        if seen > 0 {
            return;
        }
        // The sender lives as long as this world.
        let _ = reached.changed().await;
    }
    pub fn forget_blocks(&self) {
        self.reached.send_replace(0);
    }
    /// Whether nothing at all is left.
    pub fn is_empty(&self) -> bool {
        self.with(|s| s.networks.is_empty() && s.volumes.is_empty() && s.runners.is_empty())
    }
    pub fn count(&self, tenant: TenantId, verb: Verb) -> usize {
        self.with(|s| s.calls.iter().filter(|c| **c == (tenant, verb)).count())
    }
    /// What the runner was told, if it runs and was.
    pub fn told(&self, tenant: TenantId) -> Option<RunnerSettings> {
        self.with(|s| s.runners.get(&tenant).and_then(|r| r.configured.clone()))
    }
    /// Whether the tenant's data is there.
    pub fn has_data(&self, tenant: TenantId) -> bool {
        self.with(|s| s.volumes.get(&tenant).copied().unwrap_or(false))
    }

    fn manner_of(&self, slug: &str) -> Manner {
        self.with(|s| s.manners.get(slug).copied().unwrap_or_default())
    }

    async fn stand(&self, verb: Verb, after: bool) {
        let mut let_go = self.let_go.subscribe();
        let_go.borrow_and_update();
        if self.with(|s| s.blocked.get(&verb).copied()) == Some(after) {
            self.reached.send_modify(|n| *n += 1);
            let _ = let_go.changed().await;
        }
    }

    async fn verb<T>(
        &self,
        tenant: TenantId,
        verb: Verb,
        manner: Manner,
        effect: impl FnOnce(&mut State) -> Result<T>,
    ) -> Result<T> {
        self.stand(verb, false).await;
        if let Manner::Slow(time) | Manner::SlowBad(time) = manner {
            tokio::time::sleep(time).await;
        }
        let result = self.with(|s| {
            s.calls.push((tenant, verb));
            if s.silent {
                return Err(silence());
            }
            effect(s)
        });
        self.stand(verb, true).await;
        result
    }

    fn answer<T>(&self, tenant: &Tenant, effect: impl FnOnce(&mut Runner) -> T) -> Result<T> {
        let manner = self.manner_of(tenant.slug.as_str());
        let (result, died) = self.with(|s| {
            let refused = || Error::unavailable("runner", "connection refused");
            let Some(runner) = s.runners.get_mut(&tenant.id) else { return (Err(refused()), false) };
            if runner.state != RunState::Running || Some(runner.spec.port) != tenant.port || manner == Manner::Never {
                return (Err(refused()), false);
            }
            runner.answers += 1;
            if let Manner::CrashAfter(n) = manner
                && runner.answers > n
            {
                runner.state = RunState::Exited { code: 101 };
                return (Err(refused()), true);
            }
            (Ok(effect(runner)), false)
        });
        if died {
            self.changed(tenant.id);
        }
        result
    }
}

fn silence() -> Error {
    Error::unavailable("the fake backend", "it was told to be silent")
}

#[async_trait]
impl RunnerBackend for FakeBackend {
    fn kind(&self) -> BackendKind {
        BackendKind::Fake
    }
    fn spec_hash(&self, spec: &RunnerSpec) -> String {
        spec.hash("fake")
    }
    async fn ping(&self) -> Result<String> {
        if self.with(|s| s.silent) { Err(silence()) } else { Ok("in memory".to_owned()) }
    }
    async fn ensure_network(&self, spec: &RunnerSpec) -> Result<()> {
        let manner = self.manner_of(spec.slug.as_str());
        self.verb(spec.tenant_id, Verb::EnsureNetwork, manner, |s| {
            if let Some(subnet) = spec.subnet
                && s.taken_subnets.contains(&subnet.to_string())
            {
                return Err(Error::conflict(format!("subnet {subnet} overlaps with another network")));
            }
            s.networks.insert(spec.tenant_id, spec.subnet);
            Ok(())
        })
        .await
    }
    async fn ensure_volume(&self, spec: &RunnerSpec) -> Result<()> {
        let manner = self.manner_of(spec.slug.as_str());
        self.verb(spec.tenant_id, Verb::EnsureVolume, manner, |s| {
            s.volumes.entry(spec.tenant_id).or_default();
            Ok(())
        })
        .await
    }
    async fn ensure_runner(&self, spec: &RunnerSpec, _identity: &RunnerIdentity) -> Result<()> {
        let manner = self.manner_of(spec.slug.as_str());
        self.verb(spec.tenant_id, Verb::EnsureRunner, manner, |s| {
            if matches!(manner, Manner::Bad | Manner::SlowBad(_)) {
                return Err(Error::new(Kind::NotFound, "the image does not exist; build it first"));
            }
            if !s.networks.contains_key(&spec.tenant_id) || !s.volumes.contains_key(&spec.tenant_id) {
                return Err(Error::internal("a runner was made before its network or volume"));
            }
            let same = s.runners.get(&spec.tenant_id).is_some_and(|r| r.spec.hash("") == spec.hash(""));
            if !same {
                let runner =
                    Runner { spec: spec.clone(), state: RunState::Created, boot: 0, configured: None, answers: 0 };
                s.runners.insert(spec.tenant_id, runner);
            }
            Ok(())
        })
        .await
    }
    async fn start(&self, tenant: TenantId) -> Result<()> {
        let result = self
            .verb(tenant, Verb::Start, Manner::Good, |s| {
                let (taken, boots) = (s.taken_ports.clone(), s.boots + 1);
                let runner = s.runners.get_mut(&tenant).ok_or_else(|| Error::not_found("the runner"))?;
                if taken.contains(&runner.spec.port) {
                    return Err(Error::conflict(format!("port {} is taken", runner.spec.port)));
                }
                if runner.state != RunState::Running {
                    (runner.state, runner.boot, runner.configured, runner.answers) =
                        (RunState::Running, boots, None, 0);
                    s.boots = boots;
                }
                Ok(())
            })
            .await;
        self.changed(tenant);
        result
    }
    async fn stop(&self, tenant: TenantId) -> Result<()> {
        let result = self
            .verb(tenant, Verb::Stop, Manner::Good, |s| {
                if let Some(runner) = s.runners.get_mut(&tenant) {
                    (runner.state, runner.configured) = (RunState::Exited { code: 0 }, None);
                }
                Ok(())
            })
            .await;
        self.changed(tenant);
        result
    }
    async fn remove(&self, tenant: TenantId, kind: ObjectKind) -> Result<()> {
        self.verb(tenant, Verb::Remove, Manner::Good, |s| {
            match kind {
                ObjectKind::Network => {
                    s.networks.remove(&tenant);
                }
                ObjectKind::Volume => {
                    s.volumes.remove(&tenant);
                }
                ObjectKind::Runner => {
                    s.runners.remove(&tenant);
                }
            }
            Ok(())
        })
        .await
    }
    async fn observe(&self, tenant: TenantId) -> TenantObjects {
        self.with(|s| {
            if s.silent {
                return TenantObjects::default();
            }
            let there = |present: bool| if present { Observed::Present(()) } else { Observed::Absent };
            TenantObjects {
                network: there(s.networks.contains_key(&tenant)),
                volume: there(s.volumes.contains_key(&tenant)),
                runner: s.runners.get(&tenant).map_or(Observed::Absent, |r| {
                    Observed::Present(RunnerSeen {
                        generation: r.spec.generation,
                        spec_hash: r.spec.hash("fake"),
                        state: r.state,
                    })
                }),
            }
        })
    }
    async fn list(&self) -> Result<Vec<Found>> {
        self.with(|s| {
            if s.silent {
                return Err(silence());
            }
            let found =
                |kind: ObjectKind| move |id: &TenantId| Found { tenant_id: *id, kind, name: format!("{kind:?}-{id}") };
            Ok(s.runners
                .keys()
                .map(found(ObjectKind::Runner))
                .chain(s.volumes.keys().map(found(ObjectKind::Volume)))
                .chain(s.networks.keys().map(found(ObjectKind::Network)))
                .collect())
        })
    }
    fn watch(&self) -> BoxStream<'static, Change> {
        let changes = tokio_stream::wrappers::BroadcastStream::new(self.changes.subscribe());
        Box::pin(changes.filter_map(|change| async move { change.ok() }))
    }
    async fn metrics(&self, _tenant: TenantId) -> Result<RunnerMetrics> {
        Ok(RunnerMetrics::default())
    }
    async fn logs(&self, _tenant: TenantId, _lines: usize) -> Result<String> {
        Ok("a runner in memory says nothing".to_owned())
    }
}

#[async_trait]
impl RunnerGate for FakeBackend {
    async fn hello(&self, tenant: &Tenant) -> Result<Greeting> {
        self.stand(Verb::Hello, false).await;
        if let Manner::Slow(time) = self.manner_of(tenant.slug.as_str()) {
            tokio::time::sleep(time).await;
        }
        let data = self.has_data(tenant.id);
        self.answer(tenant, |r| Greeting {
            boot: r.boot.to_string(),
            version: "0".to_owned(),
            configured: r.configured.is_some(),
            workspace_initialized: data,
        })
    }
    async fn configure(&self, tenant: &Tenant, settings: &RunnerSettings) -> Result<()> {
        self.answer(tenant, |r| r.configured = Some(settings.clone()))
    }
    async fn initialize_workspace(&self, tenant: &Tenant, _template: &str) -> Result<String> {
        self.stand(Verb::Workspace, false).await;
        self.answer(tenant, |_| ())?;
        self.with(|s| s.volumes.insert(tenant.id, true));
        Ok("the workspace was set up".to_owned())
    }
    async fn probe(&self, tenant: &Tenant) -> Result<()> {
        self.stand(Verb::Probe, false).await;
        self.answer(tenant, |_| ())
    }
    fn forget(&self, _tenant: TenantId) {}
}
