//! An operation and its steps as values: what has begun, what is done, what failed. No I/O.

use crate::domain::operation::{Operation, OperationKind, OperationState, Step, StepName, StepState};
use crate::domain::{OperationId, TenantId};
use chrono::{DateTime, Duration, Utc};

/// How long a change may take before people are told that it failed. Trying goes on behind it, slowly.
pub const fn allowance(kind: OperationKind) -> Duration {
    match kind {
        OperationKind::Create | OperationKind::Update => Duration::seconds(180),
        OperationKind::Resume | OperationKind::Heal => Duration::seconds(120),
        OperationKind::Suspend => Duration::seconds(60),
        OperationKind::Delete => Duration::seconds(180),
    }
}

pub fn begin(tenant: TenantId, kind: OperationKind, generation: u64, now: DateTime<Utc>) -> Operation {
    Operation {
        id: OperationId::generate(),
        tenant_id: tenant,
        kind,
        generation,
        state: OperationState::Running,
        steps: kind
            .steps()
            .iter()
            .map(|&name| Step {
                name,
                state: StepState::Pending,
                attempts: 0,
                detail: String::new(),
                started_at: None,
                finished_at: None,
            })
            .collect(),
        error: None,
        created_at: now,
        finished_at: None,
        deadline: now + allowance(kind),
    }
}

fn step(op: &mut Operation, name: StepName) -> Option<&mut Step> {
    op.steps.iter_mut().find(|s| s.name == name)
}

pub fn started(op: &mut Operation, name: StepName, now: DateTime<Utc>) {
    if let Some(s) = step(op, name) {
        s.state = StepState::Running;
        s.attempts += 1;
        s.started_at.get_or_insert(now);
        s.finished_at = None;
    }
}

pub fn succeeded(op: &mut Operation, name: StepName, detail: String, now: DateTime<Utc>) {
    if let Some(s) = step(op, name) {
        s.state = StepState::Succeeded;
        s.detail = detail;
        s.started_at.get_or_insert(now);
        s.finished_at = Some(now);
    }
}

pub fn failed(op: &mut Operation, name: StepName, why: &str, now: DateTime<Utc>) {
    if let Some(s) = step(op, name) {
        s.state = StepState::Failed;
        s.detail = why.to_owned();
        s.finished_at = Some(now);
    }
}

/// Steps before `name` that never had to run were found done.
pub fn skip_to(op: &mut Operation, name: StepName, now: DateTime<Utc>) {
    let Some(end) = op.steps.iter().position(|s| s.name == name) else { return };
    for s in &mut op.steps[..end] {
        if s.state == StepState::Pending {
            s.state = StepState::Succeeded;
            s.detail = "already done".to_owned();
            s.started_at = Some(now);
            s.finished_at = Some(now);
        }
    }
}

/// Ends it well; whatever was left is found done.
pub fn complete(op: &mut Operation, now: DateTime<Utc>) {
    for s in &mut op.steps {
        if s.state != StepState::Succeeded {
            if s.state == StepState::Pending {
                s.detail = "already done".to_owned();
            }
            s.state = StepState::Succeeded;
            s.started_at.get_or_insert(now);
            s.finished_at = Some(now);
        }
    }
    op.state = OperationState::Succeeded;
    op.error = None;
    op.finished_at = Some(now);
}

pub fn give_up(op: &mut Operation, why: &str, now: DateTime<Utc>) {
    for s in &mut op.steps {
        if s.state == StepState::Running {
            s.state = StepState::Failed;
            s.detail = why.to_owned();
            s.finished_at = Some(now);
        }
    }
    op.state = OperationState::Failed;
    op.error = Some(why.to_owned());
    op.finished_at = Some(now);
}
