//! Doing one action. Each is idempotent and bounded in time; waiting for a runner ends early when its process ends or
//! when the wish changes.

use super::gate::RunnerSettings;
use super::pass::Pass;
use super::plan::{Action, Link};
use crate::domain::tenant::{BackendKind, Tenant};
use crate::error::{Error, Kind, Result};
use crate::orchestrator::{ObjectKind, Observed, RunState, RunnerSeen, RunnerSpec};
use crate::store::bounded;
use std::time::Duration;
use tokio::time::Instant;

/// Why an action did not succeed.
#[derive(Debug)]
pub enum Unmet {
    /// The wish changed or this controller stops: look again.
    Interrupted,
    Failed(Error),
}

impl From<Error> for Unmet {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Answers that a waiting caller tries again after.
fn not_yet(error: &Error) -> bool {
    matches!(error.kind, Kind::Unavailable { .. } | Kind::Timeout { .. } | Kind::RateLimited { .. })
}

pub fn spec_of(tenant: &Tenant) -> Option<RunnerSpec> {
    let networked = networked(tenant.backend);
    if networked && tenant.subnet.is_none() {
        return None;
    }
    Some(RunnerSpec {
        tenant_id: tenant.id,
        slug: tenant.slug.clone(),
        generation: tenant.generation,
        limits: tenant.limits,
        port: tenant.port?,
        subnet: if networked { tenant.subnet } else { None },
    })
}

/// Whether the backend gives each tenant a network of its own.
pub const fn networked(backend: BackendKind) -> bool {
    match backend {
        BackendKind::Docker | BackendKind::Fake => true,
        BackendKind::Process => false,
    }
}

impl Pass<'_> {
    /// Does it; the answer is a detail for people.
    pub(super) async fn perform(&self, action: Action) -> Result<Done, Unmet> {
        let tenant = &self.tenant;
        let backend = &self.backend;
        let done = |detail: &str| Ok(Done { detail: detail.to_owned(), ..Done::default() });
        match action {
            Action::Wait | Action::Settle => done(""),
            Action::Allocate => self.allocate().await,
            Action::EnsureNetwork => {
                let spec = self.spec()?;
                backend.ensure_network(&spec).await?;
                done(&spec.subnet.map_or_else(String::new, |s| format!("network {s}")))
            }
            Action::EnsureVolume => {
                backend.ensure_volume(&self.spec()?).await?;
                done("volume is there")
            }
            Action::EnsureRunner => {
                let spec = self.spec()?;
                let identity = (self.core.issue)(tenant.id)?;
                backend.ensure_runner(&spec, &identity).await?;
                done(&format!("runner made for 127.0.0.1:{}", spec.port))
            }
            Action::Start => {
                backend.start(tenant.id).await?;
                done("started")
            }
            Action::Stop => {
                backend.stop(tenant.id).await?;
                done("stopped")
            }
            Action::RemoveRunner => {
                backend.remove(tenant.id, ObjectKind::Runner).await?;
                done("removed")
            }
            Action::RemoveVolume => {
                backend.remove(tenant.id, ObjectKind::Volume).await?;
                done("removed")
            }
            Action::RemoveNetwork => {
                backend.remove(tenant.id, ObjectKind::Network).await?;
                done("removed")
            }
            Action::Handshake => self.handshake().await,
            Action::InitializeWorkspace => {
                let template = tenant.template.clone();
                let detail = self
                    .until_answered(self.core.timing.workspace, || {
                        self.core.gate.initialize_workspace(tenant, &template)
                    })
                    .await?;
                Ok(Done { detail, ..Done::default() })
            }
            Action::Probe => {
                self.until_answered(self.core.timing.probe, || self.core.gate.probe(tenant)).await?;
                done(&format!("{}/api/health answers", self.core.settings.public_url(tenant.slug.as_str())))
            }
            Action::Release => self.release().await,
        }
    }

    pub(super) fn spec(&self) -> Result<RunnerSpec> {
        spec_of(&self.tenant).ok_or_else(|| Error::internal("a runner was planned before its port was leased"))
    }

    async fn allocate(&self) -> Result<Done, Unmet> {
        let (store, settings, id) = (&self.core.store, &self.core.settings, self.tenant.id);
        let mut tx = store.begin().await?;
        if !store.hold_fence(&mut tx, id, self.fence).await? {
            return Err(Unmet::Interrupted);
        }
        let port = store.lease_port(&mut tx, id, &settings.port_range).await?;
        let subnet = if networked(self.tenant.backend) {
            Some(store.lease_subnet(&mut tx, id, settings.subnet_range, settings.subnet_prefix).await?)
        } else {
            None
        };
        bounded(tx.commit()).await?;
        let detail = match subnet {
            Some(subnet) => format!("port {port}, subnet {subnet}"),
            None => format!("port {port}"),
        };
        Ok(Done { detail, leases: Some((Some(port), subnet)), ..Done::default() })
    }

    async fn release(&self) -> Result<Done, Unmet> {
        let (store, id) = (&self.core.store, self.tenant.id);
        // Leases go only when the backend itself says that nothing is left.
        let left = self.backend.observe(id).await;
        if !left.runner.is_absent() || !left.volume.is_absent() || left.network.present().is_some() {
            return Err(Error::unavailable("the backend", "it still lists objects of a deleted tenant").into());
        }
        let mut tx = store.begin().await?;
        if !store.hold_fence(&mut tx, id, self.fence).await? {
            return Err(Unmet::Interrupted);
        }
        store.release_port(&mut tx, id).await?;
        store.release_subnet(&mut tx, id).await?;
        bounded(tx.commit()).await?;
        Ok(Done { detail: "port and subnet are free again".to_owned(), leases: Some((None, None)), ..Done::default() })
    }

    async fn handshake(&self) -> Result<Done, Unmet> {
        let limit = if self.suspect { self.core.timing.suspicion } else { self.core.timing.handshake };
        let greeting = self.until_answered(limit, || self.core.gate.hello(&self.tenant)).await?;
        self.core.gate.configure(&self.tenant, &self.runner_settings().await?).await?;
        let detail = format!("runner {} answers", greeting.version);
        Ok(Done { detail, boot: Some(greeting.boot), ..Done::default() })
    }

    pub(super) async fn runner_settings(&self) -> Result<RunnerSettings> {
        let mut secrets = Vec::new();
        for (name, sealed) in self.core.store.secrets_of(self.tenant.id).await? {
            let value = self.core.cipher.open(self.tenant.id, &name, &sealed)?;
            secrets.push((name, value));
        }
        Ok(RunnerSettings {
            secrets,
            api_key_sha256: self.api_key_sha256.as_deref().map(hex::encode),
            public_url: self.core.settings.public_url(self.tenant.slug.as_str()),
        })
    }

    /// Tries until the runner answers. The pauses begin at a few milliseconds: a new runner is up within a few hundred.
    async fn until_answered<T, F>(&self, limit: Duration, attempt: impl Fn() -> F) -> Result<T, Unmet>
    where
        F: Future<Output = Result<T>>,
    {
        let deadline = Instant::now() + limit;
        let mut tries = 0;
        loop {
            let error = tokio::select! {
                biased;
                () = self.token.cancelled() => return Err(Unmet::Interrupted),
                answer = tokio::time::timeout_at(deadline, attempt()) => match answer {
                    Ok(Ok(value)) => return Ok(value),
                    Ok(Err(error)) if not_yet(&error) => error,
                    Ok(Err(error)) => return Err(error.into()),
                    Err(_) => Error::timeout("runner"),
                },
                () = self.slot.wished() => { self.check_wish().await?; Error::timeout("runner") },
            };
            if Instant::now() >= deadline {
                return Err(error.into());
            }
            let hinted = tokio::select! {
                biased;
                () = self.token.cancelled() => return Err(Unmet::Interrupted),
                () = self.slot.wished() => { self.check_wish().await?; false },
                () = self.slot.hinted() => true,
                () = tokio::time::sleep(self.core.timing.connect.delay(tries)) => false,
            };
            // The engine said that something happened, or patience is getting long: is the process still there?
            if hinted || tries % 32 == 31 {
                self.still_running().await?;
            }
            tries += 1;
        }
    }

    /// A nudge came: interrupted if the wish is another one now.
    async fn check_wish(&self) -> Result<(), Unmet> {
        match self.core.store.tenant_by_id(self.tenant.id).await? {
            Some(record) if record.tenant.generation == self.fence.generation && !record.gone => Ok(()),
            _ => Err(Unmet::Interrupted),
        }
    }

    async fn still_running(&self) -> Result<(), Unmet> {
        let ended = match self.backend.observe(self.tenant.id).await.runner {
            Observed::Unknown => return Ok(()),
            Observed::Present(RunnerSeen { state: RunState::Running | RunState::Created, .. }) => return Ok(()),
            Observed::Present(RunnerSeen { state: RunState::OutOfMemory, .. }) => {
                "the runner was killed because it used more memory than its limit".to_owned()
            }
            Observed::Present(RunnerSeen { state: RunState::Exited { code }, .. }) => {
                let last = self.backend.logs(self.tenant.id, 3).await.unwrap_or_default();
                let last: String = last.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
                format!("the runner ended with code {code}: {}", last.trim())
            }
            Observed::Absent => "the runner disappeared".to_owned(),
        };
        Err(Error::new(Kind::Unavailable { what: "runner" }, ended).into())
    }
}

/// What an action brought about beyond its own name.
#[derive(Debug, Default)]
pub struct Done {
    pub detail: String,
    pub leases: Option<(Option<u16>, Option<crate::domain::tenant::Subnet>)>,
    pub boot: Option<String>,
}

/// What is known after `action` succeeded, without asking the backend again: its verbs answer only when the work is done.
pub fn learned(pass: &mut Pass<'_>, action: Action, done: &Done) {
    let objects = &mut pass.seen.objects;
    let mut runner = |state| {
        let spec_hash = match objects.runner.present() {
            Some(seen) if action != Action::EnsureRunner => seen.spec_hash.clone(),
            _ => pass.intent.spec_hash.clone().unwrap_or_default(),
        };
        objects.runner = Observed::Present(RunnerSeen { generation: pass.fence.generation, spec_hash, state });
    };
    match action {
        Action::Wait | Action::Settle => {}
        Action::Allocate | Action::Release => {
            if let Some((port, subnet)) = done.leases {
                (pass.tenant.port, pass.tenant.subnet) = (port, subnet);
            }
            pass.refresh_intent();
        }
        Action::EnsureNetwork => objects.network = Observed::Present(()),
        Action::EnsureVolume => objects.volume = Observed::Present(()),
        Action::EnsureRunner => runner(RunState::Created),
        Action::Start => {
            runner(RunState::Running);
            pass.seen.link = Link::Unchecked;
            pass.seen.unresponsive = false;
            pass.suspect = false;
        }
        Action::Stop => {
            runner(RunState::Exited { code: 0 });
            pass.seen.link = Link::Unchecked;
            pass.seen.unresponsive = false;
        }
        Action::Handshake => {
            pass.seen.link = Link::Handshaken;
            pass.boot.clone_from(&done.boot);
            pass.suspect = false;
        }
        Action::InitializeWorkspace => pass.seen.link = Link::WorkspaceReady,
        Action::Probe => pass.seen.link = Link::Ready,
        Action::RemoveRunner => objects.runner = Observed::Absent,
        Action::RemoveVolume => objects.volume = Observed::Absent,
        Action::RemoveNetwork => objects.network = Observed::Absent,
    }
}
