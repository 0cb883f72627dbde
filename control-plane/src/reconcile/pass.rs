//! One pass over one tenant: read the wish, look at reality, do what the plan says until it settles or something fails.
//!
//! Always true: a tenant has one pass at a time; a pass writes only under its fence; after a failure the backend is looked
//! at anew before anything else is done.

use super::actions::{Done, Unmet, learned, networked, spec_of};
use super::plan::{Action, Intent, Link, Seen, plan};
use super::record::{Fenced, Recorder, Verdict, provisioned};
use super::{Core, Slot, progress};
use crate::domain::TenantId;
use crate::domain::condition::{ConditionStatus, ConditionType};
use crate::domain::operation::{OperationKind, StepName};
use crate::domain::tenant::{Desired, Tenant};
use crate::error::{Error, Kind, Result};
use crate::orchestrator::{Observed, RunState, SharedBackend};
use crate::service::backend_of;
use crate::store::Fence;
use crate::store::events::Severity;
use futures::future::join_all;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How a pass ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is left to do.
    Settled,
    /// Look again at once.
    Again,
    /// Something failed or is unknown: look again after a growing pause.
    Retry,
    /// A failure that time does not heal, or one that was reported already: look again now and then.
    Slowly,
    /// Look again after exactly this.
    After(Duration),
}

pub struct Pass<'a> {
    pub(super) core: &'a Core,
    pub(super) slot: &'a Slot,
    pub(super) token: &'a CancellationToken,
    pub(super) backend: SharedBackend,
    pub(super) fence: Fence,
    pub(super) tenant: Tenant,
    pub(super) api_key_sha256: Option<Vec<u8>>,
    pub(super) settings_version: u64,
    pub(super) intent: Intent,
    pub(super) seen: Seen,
    pub(super) boot: Option<String>,
    /// It missed probes: it gets less time to answer.
    pub(super) suspect: bool,
}

impl Core {
    pub(super) async fn pass(
        &self,
        id: TenantId,
        epoch: i64,
        slot: &Slot,
        token: &CancellationToken,
    ) -> Result<Outcome> {
        let Some(record) = self.store.tenant_by_id(id).await?.filter(|r| !r.gone) else {
            self.sessions.forget(id);
            self.gate.forget(id);
            return Ok(Outcome::Settled);
        };
        let tenant = record.tenant;
        let fence = Fence { epoch, generation: tenant.generation };
        let backend = backend_of(&self.backends, tenant.backend)?.clone();
        let (objects, operation) = tokio::join!(backend.observe(id), self.store.running_operation(id));
        let operation = operation?.filter(|op| op.generation == fence.generation);
        let session = self.sessions.get(id);
        let mut pass = Pass {
            core: self,
            slot,
            token,
            backend,
            fence,
            intent: Intent {
                desired: tenant.desired,
                networked: networked(tenant.backend),
                spec_hash: None,
                leased: false,
            },
            tenant: tenant.clone(),
            api_key_sha256: record.api_key_sha256,
            settings_version: record.settings_version,
            seen: Seen { objects, link: session.link, unresponsive: session.unresponsive },
            boot: session.boot.clone(),
            suspect: session.misses > 0,
        };
        pass.refresh_intent();
        let mut recorder = Recorder { store: &self.store, fence, tenant, operation };
        let outcome = pass.run(&mut recorder).await;
        // What was found out is kept whatever came of the pass.
        let mut session = self.sessions.get(id);
        session.link = pass.seen.link;
        session.unresponsive = pass.seen.unresponsive;
        session.boot.clone_from(&pass.boot);
        if pass.seen.link >= Link::Handshaken {
            session.settings_version = pass.settings_version;
        }
        match outcome {
            Ok(Outcome::Settled) if pass.intent.desired == Desired::Deleted => {
                self.sessions.forget(id);
                self.gate.forget(id);
            }
            Ok(Outcome::Settled) => {
                if pass.seen.link == Link::Ready {
                    session.ready();
                }
                self.sessions.put(id, session);
            }
            _ => self.sessions.put(id, session),
        }
        outcome
    }
}

impl Pass<'_> {
    pub(super) fn refresh_intent(&mut self) {
        self.intent.spec_hash = spec_of(&self.tenant).map(|spec| self.backend.spec_hash(&spec));
        self.intent.leased = self.tenant.port.is_some() || self.tenant.subnet.is_some();
    }

    async fn run(&mut self, recorder: &mut Recorder<'_>) -> Result<Outcome> {
        let now = self.core.store.clock().now();
        if let Some(op) = &recorder.operation
            && op.deadline <= now
        {
            let why = format!("{} did not finish in time; {}", op.kind.as_str(), last_trouble(op));
            tracing::warn!(tenant = %self.tenant.slug, why, "an operation reached its deadline");
            if recorder.give_up(&why).await? == Err(Fenced) {
                return Ok(Outcome::Again);
            }
        }
        self.verify().await;
        loop {
            let actions = plan(&self.intent, &self.seen);
            match actions.as_slice() {
                [Action::Settle] => {
                    return Ok(match recorder.settle().await? {
                        Ok(()) => Outcome::Settled,
                        Err(Fenced) => Outcome::Again,
                    });
                }
                [Action::Wait] => return self.unknown(recorder).await,
                _ => {}
            }
            if let Some(outcome) = self.announce_loss(recorder, &actions).await? {
                return Ok(outcome);
            }
            // A tenant that is merely looked at again keeps its good word until it fails.
            let probing = actions.contains(&Action::Probe) && !recorder.tenant.is_ready();
            if let Some(op) = &mut recorder.operation {
                for action in &actions {
                    if let Some(step) = action.step(self.intent.desired) {
                        let now = self.core.store.clock().now();
                        progress::skip_to(op, first_of_round(step), now);
                        progress::started(op, step, now);
                    }
                }
            }
            // The edge must ask the runner before the probe can pass.
            let written = async {
                if probing {
                    recorder.verdicts(&[provisioned(), probing_now()], None).await
                } else {
                    recorder.progress().await
                }
            };
            let results;
            let held;
            {
                let this = &*self;
                let work = join_all(actions.iter().map(|&action| async move { (action, this.perform(action).await) }));
                // Writing progress and doing the work need not wait for each other.
                let (h, r) = tokio::join!(written, work);
                held = h?;
                results = r;
            }
            let mut trouble = None;
            for (action, result) in results {
                let now = self.core.store.clock().now();
                match result {
                    Ok(done) => {
                        if let (Some(op), Some(step)) = (&mut recorder.operation, action.step(self.intent.desired)) {
                            progress::succeeded(op, step, done.detail.clone(), now);
                        }
                        self.learn(recorder, action, &done);
                    }
                    Err(Unmet::Interrupted) => trouble = trouble.or(Some((action, None))),
                    Err(Unmet::Failed(error)) => {
                        if let (Some(op), Some(step)) = (&mut recorder.operation, action.step(self.intent.desired)) {
                            progress::failed(op, step, error.public(), now);
                        }
                        trouble = Some((action, Some(error)));
                    }
                }
            }
            if held == Err(Fenced) {
                return Ok(Outcome::Again);
            }
            match trouble {
                None => {}
                Some((_, None)) => return Ok(Outcome::Again),
                Some((action, Some(error))) => return self.failed(recorder, action, error).await,
            }
        }
    }

    fn learn(&mut self, recorder: &mut Recorder<'_>, action: Action, done: &Done) {
        learned(self, action, done);
        (recorder.tenant.port, recorder.tenant.subnet) = (self.tenant.port, self.tenant.subnet);
    }

    /// Whether a runner that was fine is still the same one, and was told the present settings.
    async fn verify(&mut self) {
        if self.intent.desired != Desired::Running || self.seen.link < Link::Handshaken {
            return;
        }
        let session = self.core.sessions.get(self.tenant.id);
        let running = self.seen.objects.runner.present().is_some_and(|r| r.state == RunState::Running);
        let same = running
            && session.settings_version == self.settings_version
            && match tokio::time::timeout(self.core.timing.suspicion, self.core.gate.hello(&self.tenant)).await {
                Ok(Ok(greeting)) => greeting.configured && Some(greeting.boot) == session.boot,
                Ok(Err(_)) | Err(_) => false,
            };
        if !same {
            self.seen.link = Link::Unchecked;
        } else if session.misses > 0 {
            // It answers us; whether it answers visitors is asked again.
            self.seen.link = Link::WorkspaceReady;
        }
    }

    /// A tenant that had settled needs repair: an operation says so. Answers an outcome when it has to wait.
    async fn announce_loss(&mut self, recorder: &mut Recorder<'_>, actions: &[Action]) -> Result<Option<Outcome>> {
        let settled = recorder.tenant.observed_generation == self.fence.generation;
        let reported = recorder.tenant.condition(ConditionType::Ready).is_some_and(|c| c.reason == "Failed");
        if recorder.operation.is_some()
            || !settled
            || reported
            || self.intent.desired != Desired::Running
            || !actions.iter().any(|a| a.repairs())
        {
            return Ok(None);
        }
        let mut session = self.core.sessions.get(self.tenant.id);
        let wait = session.hold_back(|n| self.core.timing.retry.delay(n));
        self.core.sessions.put(self.tenant.id, session);
        let outdated =
            self.seen.objects.runner.present().is_some_and(|r| Some(&r.spec_hash) != self.intent.spec_hash.as_ref());
        let (kind, reason, message) = if outdated {
            (
                OperationKind::Update,
                "SpecChanged",
                "the runner is replaced because its specification changed".to_owned(),
            )
        } else {
            (OperationKind::Heal, "RunnerLost", format!("{}; it is brought back", self.loss()))
        };
        if let Some(wait) = wait {
            let verdict = Verdict {
                r#type: ConditionType::Ready,
                status: ConditionStatus::False,
                reason: "CrashLoop",
                message: "the runner ends again and again; it is started after a growing pause",
            };
            return Ok(Some(match recorder.verdicts(&[verdict], None).await? {
                Ok(()) => Outcome::After(wait),
                Err(Fenced) => Outcome::Again,
            }));
        }
        tracing::warn!(tenant = %self.tenant.slug, reason, message, "a runner needs repair");
        metrics::counter!("nexaas_heals_total", "kind" => kind.as_str()).increment(1);
        self.core.gate.forget(self.tenant.id);
        Ok(match recorder.begin(kind, reason, &message).await? {
            Ok(()) => None,
            Err(Fenced) => Some(Outcome::Again),
        })
    }

    fn loss(&self) -> String {
        match &self.seen.objects.runner {
            Observed::Present(seen) => match seen.state {
                RunState::OutOfMemory => "the runner was killed because it used more memory than its limit".to_owned(),
                RunState::Exited { code } => format!("the runner ended with code {code}"),
                RunState::Created => "the runner had not been started".to_owned(),
                RunState::Running => "the runner does not answer".to_owned(),
            },
            Observed::Absent | Observed::Unknown => "the runner disappeared".to_owned(),
        }
    }

    async fn unknown(&mut self, recorder: &mut Recorder<'_>) -> Result<Outcome> {
        let message =
            format!("the {} backend does not answer; nothing is known of the runner", self.tenant.backend.as_str());
        let verdict = Verdict {
            r#type: ConditionType::Ready,
            status: ConditionStatus::Unknown,
            reason: "BackendSilent",
            message: &message,
        };
        let outcome = recorder.verdicts(&[verdict], None).await?;
        Ok(if outcome == Err(Fenced) { Outcome::Again } else { Outcome::Retry })
    }

    async fn failed(&mut self, recorder: &mut Recorder<'_>, action: Action, error: Error) -> Result<Outcome> {
        let why = error.public().to_owned();
        tracing::warn!(tenant = %self.tenant.slug, ?action, error = %error.chain(), "a step failed");
        metrics::counter!("nexaas_step_failures_total").increment(1);
        if error.kind == Kind::Conflict && (why.starts_with("port") || why.starts_with("subnet")) {
            return self.lease_again(recorder, &why).await;
        }
        if matches!(action, Action::Handshake) && running(&self.seen.objects.runner) && time_ran_out(&error) {
            self.seen.unresponsive = true;
        }
        if permanent(action, &error) {
            let outcome = recorder.give_up(&why).await?;
            return Ok(if outcome == Err(Fenced) { Outcome::Again } else { Outcome::Slowly });
        }
        if recorder.operation.is_none() {
            // Without an operation there are two cases: the runner had been fine, or its failure was reported already.
            let fine = recorder.tenant.is_ready();
            let verdict = Verdict {
                r#type: ConditionType::Ready,
                status: ConditionStatus::False,
                reason: if fine { "NotAnswering" } else { "Failed" },
                message: &why,
            };
            let outcome = recorder.verdicts(&[verdict], None).await?;
            return Ok(match outcome {
                Err(Fenced) => Outcome::Again,
                Ok(()) if fine => Outcome::Retry,
                Ok(()) => Outcome::Slowly,
            });
        }
        Ok(if recorder.progress().await? == Err(Fenced) { Outcome::Again } else { Outcome::Retry })
    }

    /// The host says that somebody else has the port or the addresses: others are leased.
    async fn lease_again(&mut self, recorder: &mut Recorder<'_>, why: &str) -> Result<Outcome> {
        let (store, id) = (&self.core.store, self.tenant.id);
        let mut tx = store.begin().await?;
        if !store.hold_fence(&mut tx, id, self.fence).await? {
            return Ok(Outcome::Again);
        }
        if why.starts_with("port") {
            store.block_port(&mut tx, id).await?;
        } else {
            store.block_subnet(&mut tx, id).await?;
        }
        store
            .insert_event(&mut tx, id, Severity::Warning, "LeaseTaken", &format!("{why}; another one is used"))
            .await?;
        crate::store::bounded(tx.commit()).await?;
        self.core.gate.forget(id);
        // Whether or not this last word is taken: the next pass reads what holds.
        let _ = recorder.progress().await?;
        Ok(Outcome::Again)
    }
}

fn running(runner: &Observed<crate::orchestrator::RunnerSeen>) -> bool {
    runner.present().is_some_and(|r| r.state == RunState::Running)
}

fn time_ran_out(error: &Error) -> bool {
    matches!(error.kind, Kind::Timeout { what: "runner" } | Kind::Unavailable { what: "runner" })
        && !error.public().starts_with("the runner ended")
}

/// What no later attempt can mend before somebody changes something.
fn permanent(action: Action, error: &Error) -> bool {
    match error.kind {
        Kind::Invalid { .. } | Kind::Forbidden => true,
        Kind::NotFound => matches!(action, Action::EnsureRunner | Action::InitializeWorkspace),
        _ => false,
    }
}

/// The first of the steps that are done together.
const fn first_of_round(step: StepName) -> StepName {
    match step {
        StepName::Volume => StepName::Network,
        StepName::RemoveNetwork => StepName::RemoveVolume,
        other => other,
    }
}

fn probing_now() -> Verdict<'static> {
    Verdict {
        r#type: ConditionType::Ready,
        status: ConditionStatus::False,
        reason: "Probing",
        message: "The runner is up; its address is being tried",
    }
}

fn last_trouble(op: &crate::domain::operation::Operation) -> String {
    use crate::domain::operation::StepState;
    op.steps.iter().find(|s| s.state != StepState::Succeeded).map_or_else(String::new, |s| {
        let detail = if s.detail.is_empty() { "it was not reached" } else { &s.detail };
        format!("step {}: {detail}", s.name.as_str())
    })
}
