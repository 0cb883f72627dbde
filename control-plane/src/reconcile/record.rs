//! How a pass is written down: steps, conditions and events in one fenced transaction each. A write that the fence refuses
//! means that somebody else decides now; the pass ends there.

use super::progress;
use crate::domain::condition::{self, Condition, ConditionStatus, ConditionType};
use crate::domain::operation::{Operation, OperationKind};
use crate::domain::tenant::{Desired, Tenant};
use crate::error::Result;
use crate::store::events::Severity;
use crate::store::{Fence, Store, Tx, bounded};

/// The fence did not hold: a newer wish or another leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fenced;

pub struct Recorder<'a> {
    pub store: &'a Store,
    pub fence: Fence,
    pub tenant: Tenant,
    pub operation: Option<Operation>,
}

/// A change of what is true of the tenant, for people and machines.
pub struct Verdict<'a> {
    pub r#type: ConditionType,
    pub status: ConditionStatus,
    pub reason: &'a str,
    pub message: &'a str,
}

impl Recorder<'_> {
    fn judge(&mut self, verdict: &Verdict<'_>) -> bool {
        let next = Condition {
            r#type: verdict.r#type,
            status: verdict.status,
            reason: verdict.reason.to_owned(),
            message: verdict.message.to_owned(),
            last_transition_time: self.store.clock().now(),
            observed_generation: self.fence.generation,
        };
        condition::set(&mut self.tenant.conditions, next)
    }

    async fn save_operation(&self, tx: &mut Tx) -> Result<bool> {
        match &self.operation {
            Some(op) => self.store.write_operation(tx, op, self.fence).await,
            None => Ok(true),
        }
    }

    /// Progress alone: cheap, and lost only with the database itself.
    pub async fn progress(&self) -> Result<Result<(), Fenced>> {
        if self.operation.is_none() {
            return Ok(Ok(()));
        }
        let mut tx = self.store.begin().await?;
        self.store.relax(&mut tx).await?;
        let held = self.save_operation(&mut tx).await?;
        bounded(tx.commit()).await?;
        Ok(if held { Ok(()) } else { Err(Fenced) })
    }

    /// Conditions, with the operation as it stands and an event.
    pub async fn verdicts(
        &mut self,
        verdicts: &[Verdict<'_>],
        event: Option<(Severity, &str, &str)>,
    ) -> Result<Result<(), Fenced>> {
        let mut changed = false;
        for verdict in verdicts {
            changed |= self.judge(verdict);
        }
        if !changed && event.is_none() {
            return self.progress().await;
        }
        let mut tx = self.store.begin().await?;
        // The tenant's row first, as whoever changes the intent does: the other order is a deadlock.
        let held = self.store.write_status(&mut tx, self.tenant.id, self.fence, &self.tenant.conditions, false).await?
            && self.save_operation(&mut tx).await?;
        if !held {
            return Ok(Err(Fenced));
        }
        if let Some((severity, reason, message)) = event {
            self.store.insert_event(&mut tx, self.tenant.id, severity, reason, message).await?;
        }
        bounded(tx.commit()).await?;
        Ok(Ok(()))
    }

    /// Begins an operation that nobody asked for: the runner was lost, or its specification changed.
    pub async fn begin(&mut self, kind: OperationKind, reason: &str, message: &str) -> Result<Result<(), Fenced>> {
        let operation = progress::begin(self.tenant.id, kind, self.fence.generation, self.store.clock().now());
        self.judge(&Verdict {
            r#type: ConditionType::Ready,
            status: ConditionStatus::False,
            reason: "Recovering",
            message,
        });
        let mut tx = self.store.begin().await?;
        if !self.store.write_status(&mut tx, self.tenant.id, self.fence, &self.tenant.conditions, false).await? {
            return Ok(Err(Fenced));
        }
        self.store.insert_operation(&mut tx, &operation).await?;
        self.store.insert_event(&mut tx, self.tenant.id, Severity::Warning, reason, message).await?;
        bounded(tx.commit()).await?;
        self.operation = Some(operation);
        Ok(Ok(()))
    }

    /// The change failed for people; behind it, trying goes on slowly.
    pub async fn give_up(&mut self, why: &str) -> Result<Result<(), Fenced>> {
        if let Some(op) = &mut self.operation {
            progress::give_up(op, why, self.store.clock().now());
        }
        let verdict =
            Verdict { r#type: ConditionType::Ready, status: ConditionStatus::False, reason: "Failed", message: why };
        let outcome = self.verdicts(&[verdict], Some((Severity::Error, "Failed", why))).await;
        self.operation = None;
        outcome
    }

    /// Reality is as wished: conditions, generation and operation in one transaction.
    pub async fn settle(&mut self) -> Result<Result<(), Fenced>> {
        let desired = self.tenant.desired;
        let (ready, reason, message) = match desired {
            Desired::Running => (ConditionStatus::True, "Probed", "It answers through its own address"),
            Desired::Suspended => (ConditionStatus::False, "Suspended", "An operator suspended it"),
            Desired::Hibernated => (ConditionStatus::False, "Hibernated", "It sleeps until the next request"),
            Desired::Deleted => (ConditionStatus::False, "Deleted", "Everything of it was removed"),
        };
        let mut changed = self.tenant.observed_generation != self.fence.generation || self.operation.is_some();
        changed |= self.judge(&Verdict { r#type: ConditionType::Ready, status: ready, reason, message });
        if desired == Desired::Running {
            changed |= self.judge(&provisioned());
            changed |= self.judge(&Verdict {
                r#type: ConditionType::UpToDate,
                status: ConditionStatus::True,
                reason: "Current",
                message: "It runs the wanted image and settings",
            });
        }
        if !changed && desired != Desired::Deleted {
            return Ok(Ok(()));
        }
        let now = self.store.clock().now();
        let kind = self.operation.as_mut().map(|op| {
            progress::complete(op, now);
            op.kind
        });
        let mut tx = self.store.begin().await?;
        let mut held =
            self.store.write_status(&mut tx, self.tenant.id, self.fence, &self.tenant.conditions, true).await?
                && self.save_operation(&mut tx).await?;
        if held && desired == Desired::Deleted {
            self.store.remove_all_secrets(&mut tx, self.tenant.id).await?;
            held = self.store.mark_gone(&mut tx, self.tenant.id, self.fence).await?;
        }
        if !held {
            return Ok(Err(Fenced));
        }
        if let Some(kind) = kind {
            let done = format!("{} finished: {message}", kind.as_str());
            self.store.insert_event(&mut tx, self.tenant.id, Severity::Info, reason, &done).await?;
        }
        bounded(tx.commit()).await?;
        self.tenant.observed_generation = self.fence.generation;
        self.operation = None;
        Ok(Ok(()))
    }
}

/// Network, volume and runner exist: from here on the edge may ask the runner.
pub fn provisioned() -> Verdict<'static> {
    Verdict {
        r#type: ConditionType::Provisioned,
        status: ConditionStatus::True,
        reason: "Created",
        message: "Network, volume and runner exist",
    }
}
