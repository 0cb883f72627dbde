//! The list of tenants.

use super::page::{Page, Result, html};
use crate::domain::condition::ConditionType;
use crate::domain::tenant::{Phase, Tenant};
use crate::http::PublicUrl;
use crate::service::Services;
use axum::extract::State;
use chrono::SecondsFormat;
use http::StatusCode;
use nexaas_dashboard::console::tenants::{TenantRow, TenantTable, TenantsPage};
use nexaas_dashboard::layout::Tone;

pub const fn phase_tone(phase: Phase) -> Tone {
    match phase {
        Phase::Ready => Tone::Ok,
        Phase::Provisioning | Phase::Recovering | Phase::Stopping | Phase::Deleting => Tone::Busy,
        Phase::Failed => Tone::Bad,
        Phase::Unknown => Tone::Warn,
        Phase::Hibernated | Phase::Suspended => Tone::Idle,
    }
}

/// What stands behind a phase that is not simply good.
pub fn phase_detail(tenant: &Tenant) -> String {
    match tenant.phase() {
        Phase::Ready | Phase::Suspended | Phase::Hibernated => String::new(),
        Phase::Stopping => "It is being stopped; its data stays.".to_owned(),
        Phase::Deleting => "Everything it holds is being removed.".to_owned(),
        Phase::Provisioning | Phase::Recovering | Phase::Failed | Phase::Unknown => tenant
            .condition(ConditionType::Ready)
            .or_else(|| tenant.condition(ConditionType::Provisioned))
            .map(|c| c.message.clone())
            .unwrap_or_default(),
    }
}

pub fn rfc3339(at: chrono::DateTime<chrono::Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn row(tenant: &Tenant, public: &PublicUrl) -> TenantRow {
    let phase = tenant.phase();
    TenantRow {
        slug: tenant.slug.to_string(),
        name: tenant.display_name.clone(),
        url: public.tenant(tenant.slug.as_str()),
        phase: phase.as_str().to_owned(),
        tone: phase_tone(phase),
        detail: phase_detail(tenant),
        template: tenant.template.clone(),
        backend: tenant.backend.as_str().to_owned(),
        created_at: rfc3339(tenant.created_at),
    }
}

/// The table as it is now. A database that does not answer is said in the table, so that the page stands.
pub async fn table(services: &Services, may_create: bool) -> TenantTable {
    match services.tenants.all().await {
        Ok(tenants) => {
            let public = PublicUrl::from(&*services.settings);
            TenantTable { rows: tenants.iter().map(|t| row(t, &public)).collect(), may_create, problem: String::new() }
        }
        Err(error) => {
            crate::http::problem::log(&error);
            TenantTable { rows: Vec::new(), may_create, problem: error.public().to_owned() }
        }
    }
}

pub async fn list(State(services): State<Services>, page: Page) -> Result {
    let may_create = page.may_change();
    let mut shell = page.shell("Tenants");
    shell.stream = Some("/-/stream/tenants".to_owned());
    let table = table(&services, may_create).await;
    html(StatusCode::OK, &TenantsPage { page: shell, table, may_create })
}

pub async fn partial(State(services): State<Services>, page: Page) -> Result {
    html(StatusCode::OK, &table(&services, page.may_change()).await)
}
