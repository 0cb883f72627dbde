//! One tenant's page, and its parts as they are at one moment.

use super::page::{Page, Result, below, html};
use super::tenants::{phase_detail, phase_tone, rfc3339};
use crate::api::extract::TenantPath;
use crate::api::view::{condition_status, condition_type};
use crate::domain::Slug;
use crate::domain::condition::{ConditionStatus, ConditionType};
use crate::domain::operation::{Operation, OperationKind, OperationState, Step, StepName, StepState};
use crate::domain::tenant::{Desired, Phase, Tenant};
use crate::error::Error;
use crate::http::PublicUrl;
use crate::service::{Services, Severity, TenantEvent};
use axum::extract::State;
use chrono::{DateTime, Utc};
use http::StatusCode;
use nexaas_dashboard::console::tenant::{
    ConditionRow, Conditions, EventRow, Events, Logs, LogsPage, OperationRow, Operations, Progress, Secrets, StepRow,
    StepTone, Summary, TenantPage,
};
use nexaas_dashboard::layout::Tone;

/// Everything of a tenant that changes while it is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    pub summary: Summary,
    pub progress: Progress,
    pub conditions: Conditions,
    pub operations: Operations,
    pub events: Events,
}

pub async fn parts(services: &Services, tenant: &Tenant, may_change: bool) -> Result<Parts, Error> {
    let operations = services.tenants.operations_of(tenant.id, 10).await?;
    let events = services.tenants.log_events(tenant.id, 30).await?;
    Ok(Parts {
        summary: summary(tenant, &PublicUrl::from(&*services.settings), may_change),
        progress: operations
            .first()
            .map(progress)
            .unwrap_or_else(|| Progress { title: "Latest change".to_owned(), ..Progress::default() }),
        conditions: conditions(tenant),
        operations: Operations { rows: operations.iter().map(operation_row).collect() },
        events: Events { rows: events.iter().map(event_row).collect() },
    })
}

type Slugged = std::result::Result<TenantPath, Error>;

fn summary(tenant: &Tenant, public: &PublicUrl, may_change: bool) -> Summary {
    let phase = tenant.phase();
    let fact = |name: &str, value: String| (name.to_owned(), value);
    let memory = tenant.limits.memory_bytes >> 20;
    let cores = f64::from(tenant.limits.cpu_millis) / 1000.0;
    let mut facts = vec![
        fact("Name", tenant.display_name.clone()),
        fact("Template", tenant.template.clone()),
        fact("Runs as", tenant.backend.as_str().to_owned()),
        fact("Limits", format!("{memory} MB of memory, {cores} of a core, {} processes", tenant.limits.pids)),
    ];
    if let Some(port) = tenant.port {
        facts.push(fact("Port", format!("127.0.0.1:{port}")));
    }
    if let Some(subnet) = tenant.subnet {
        facts.push(fact("Network", subnet.to_string()));
    }
    facts.push(fact("Generation", format!("{} asked for, {} reached", tenant.generation, tenant.observed_generation)));
    Summary {
        slug: tenant.slug.to_string(),
        url: public.tenant(tenant.slug.as_str()),
        phase: phase.as_str().to_owned(),
        tone: phase_tone(phase),
        detail: phase_detail(tenant),
        ready: phase == Phase::Ready,
        facts,
        created_at: rfc3339(tenant.created_at),
        may_suspend: may_change && tenant.desired == Desired::Running,
        may_resume: may_change && matches!(tenant.desired, Desired::Suspended | Desired::Hibernated),
        may_delete: may_change && tenant.desired != Desired::Deleted,
        gone: false,
    }
}

/// What is shown once the tenant's last trace is gone.
pub fn gone(slug: &Slug) -> Summary {
    Summary { slug: slug.to_string(), phase: "deleted".to_owned(), tone: Tone::Idle, gone: true, ..Summary::default() }
}

const fn kind_words(kind: OperationKind) -> &'static str {
    match kind {
        OperationKind::Create => "Create",
        OperationKind::Suspend => "Suspend",
        OperationKind::Resume => "Resume",
        OperationKind::Delete => "Delete",
        OperationKind::Heal => "Bring back",
        OperationKind::Update => "Update",
    }
}

const fn step_words(name: StepName) -> &'static str {
    match name {
        StepName::Allocate => "Reserve a port and a subnet",
        StepName::Network => "Make its network",
        StepName::Volume => "Make its volume",
        StepName::Container => "Make its runner",
        StepName::Start => "Start the runner",
        StepName::Handshake => "Meet over mutual TLS",
        StepName::Workspace => "Fill the workspace",
        StepName::Ready => "Answer at its address",
        StepName::Stop => "Stop the runner",
        StepName::RemoveContainer => "Remove the runner",
        StepName::RemoveVolume => "Remove the volume",
        StepName::RemoveNetwork => "Remove the network",
        StepName::Release => "Give back port and subnet",
    }
}

const fn state_tone(state: OperationState) -> Tone {
    match state {
        OperationState::Running => Tone::Busy,
        OperationState::Succeeded => Tone::Ok,
        OperationState::Failed => Tone::Bad,
        OperationState::Superseded => Tone::Idle,
    }
}

/// How long something took, or has taken until now when it is not finished.
fn took(from: Option<DateTime<Utc>>, to: Option<DateTime<Utc>>) -> String {
    let (Some(from), Some(to)) = (from, to) else { return String::new() };
    let ms = (to - from).num_milliseconds().max(0);
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{:.1} s", ms as f64 / 1000.0),
        _ => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1000),
    }
}

fn step_row(step: &Step) -> StepRow {
    StepRow {
        name: step_words(step.name).to_owned(),
        tone: match step.state {
            StepState::Pending => StepTone::Pending,
            StepState::Running => StepTone::Running,
            StepState::Succeeded => StepTone::Done,
            StepState::Failed => StepTone::Failed,
        },
        detail: step.detail.clone(),
        took: took(step.started_at, step.finished_at),
        attempts: step.attempts,
    }
}

fn progress(operation: &Operation) -> Progress {
    Progress {
        title: kind_words(operation.kind).to_owned(),
        state: operation.state.as_str().to_owned(),
        tone: state_tone(operation.state),
        error: operation.error.clone().unwrap_or_default(),
        steps: operation.steps.iter().map(step_row).collect(),
        started_at: rfc3339(operation.created_at),
    }
}

fn operation_row(operation: &Operation) -> OperationRow {
    OperationRow {
        kind: kind_words(operation.kind).to_owned(),
        state: operation.state.as_str().to_owned(),
        tone: state_tone(operation.state),
        detail: operation.error.clone().unwrap_or_default(),
        started_at: rfc3339(operation.created_at),
        took: took(Some(operation.created_at), operation.finished_at),
    }
}

fn conditions(tenant: &Tenant) -> Conditions {
    let rows = tenant
        .conditions
        .iter()
        .map(|c| ConditionRow {
            name: condition_type(c.r#type).to_owned(),
            tone: match (c.status, c.r#type) {
                (ConditionStatus::True, _) => Tone::Ok,
                (ConditionStatus::Unknown, _) => Tone::Warn,
                // Not having a backup yet, or being stopped on purpose, is nothing alarming.
                (ConditionStatus::False, ConditionType::BackedUp) => Tone::Idle,
                (ConditionStatus::False, _) if tenant.desired != Desired::Running => Tone::Idle,
                (ConditionStatus::False, _) if c.reason == "Failed" => Tone::Bad,
                (ConditionStatus::False, _) => Tone::Busy,
            },
            status: condition_status(c.status).to_owned(),
            reason: c.reason.clone(),
            message: c.message.clone(),
            since: rfc3339(c.last_transition_time),
        })
        .collect();
    Conditions { rows }
}

fn event_row(event: &TenantEvent) -> EventRow {
    EventRow {
        at: rfc3339(event.at),
        tone: match event.severity {
            Severity::Info => Tone::Idle,
            Severity::Warning => Tone::Warn,
            Severity::Error => Tone::Bad,
        },
        severity: event.severity.as_str().to_owned(),
        reason: event.reason.clone(),
        message: event.message.clone(),
    }
}

/// The whole page; `secrets` carries what was typed into that form when it was refused.
pub async fn view(services: &Services, page: &Page, slug: &Slug, typed: Option<Secrets>) -> Result<TenantPage, Error> {
    let tenant = services.tenants.get(slug).await?;
    let may_change = page.may_change();
    let parts = parts(services, &tenant, may_change).await?;
    let secrets = if may_change && tenant.desired != Desired::Deleted {
        let names = services.tenants.secret_names(slug).await?;
        Some(Secrets { slug: slug.to_string(), names, ..typed.unwrap_or_default() })
    } else {
        None
    };
    let mut shell = below(page.shell(&tenant.display_name), "Tenants", "/".to_owned());
    shell.stream = Some(format!("/-/stream/tenants/{slug}"));
    let moving = parts.progress.state == OperationState::Running.as_str();
    Ok(TenantPage {
        page: shell,
        slug: slug.to_string(),
        url: parts.summary.url.clone(),
        summary: parts.summary,
        progress: parts.progress,
        conditions: parts.conditions,
        operations: parts.operations,
        events: parts.events,
        secrets,
        may_change,
        moving,
    })
}

pub async fn show(State(services): State<Services>, page: Page, slug: Slugged) -> Result {
    let TenantPath(slug) = slug?;
    html(StatusCode::OK, &view(&services, &page, &slug, None).await?)
}

async fn lines(services: &Services, slug: &Slug, count: usize) -> Result<Logs, Error> {
    let found = services.tenants.runner_logs(slug, count).await;
    Ok(match found {
        Ok(text) => Logs { slug: slug.to_string(), text, problem: String::new() },
        // No such tenant is a missing page; a runner without output is a state of this one.
        Err(error) if error.kind == crate::error::Kind::NotFound && services.tenants.get(slug).await.is_err() => {
            return Err(error);
        }
        Err(error) => {
            crate::http::problem::log(&error);
            Logs { slug: slug.to_string(), text: String::new(), problem: error.public().to_owned() }
        }
    })
}

pub async fn logs(State(services): State<Services>, page: Page, slug: Slugged) -> Result {
    let TenantPath(slug) = slug?;
    let logs = lines(&services, &slug, 2000).await?;
    let shell = below(page.shell("Output"), slug.as_str(), format!("/tenants/{slug}"));
    html(StatusCode::OK, &LogsPage { page: shell, logs })
}

pub async fn logs_partial(State(services): State<Services>, slug: Slugged) -> Result {
    let TenantPath(slug) = slug?;
    html(StatusCode::OK, &lines(&services, &slug, 60).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_said_in_the_unit_that_fits() {
        let at = |ms: i64| DateTime::from_timestamp_millis(1_700_000_000_000 + ms);
        for (ms, words) in [(0, "0 ms"), (999, "999 ms"), (1500, "1.5 s"), (61_000, "1 min 1 s"), (-5, "0 ms")] {
            assert_eq!(took(at(0), at(ms)), words);
        }
        assert_eq!(took(at(0), None), "");
    }

    #[test]
    fn only_sensible_actions_are_offered() {
        let public =
            PublicUrl { scheme: "http".into(), base_domain: "localhost".into(), port: None, cookie_secure: true };
        let mut t = crate::edge::route::tests::tenant("acme");
        let offered = |t: &Tenant, may| {
            let s = summary(t, &public, may);
            (s.may_suspend, s.may_resume, s.may_delete)
        };
        assert_eq!(offered(&t, true), (true, false, true));
        assert_eq!(offered(&t, false), (false, false, false));
        t.desired = Desired::Suspended;
        assert_eq!(offered(&t, true), (false, true, true));
        t.desired = Desired::Deleted;
        assert_eq!(offered(&t, true), (false, false, false));
    }
}
