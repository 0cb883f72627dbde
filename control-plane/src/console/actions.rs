//! What an operator does to a tenant: suspend and delete after typing its slug, resume, and set its secrets.

use super::page::{Page, Posted, Result, below, html};
use super::tenant;
use crate::api::extract::TenantPath;
use crate::domain::tenant::Tenant;
use crate::error::{Error, Kind};
use crate::http::auth::Caller;
use crate::http::problem;
use crate::service::Services;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Redirect};
use http::StatusCode;
use nexaas_common::secret::SecretString;
use nexaas_dashboard::console::tenant::{ConfirmPage, Secrets};
use serde::Deserialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Suspend,
    Delete,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Confirmation {
    confirm: String,
    generation: String,
}

type Slugged = std::result::Result<TenantPath, Error>;

fn view(page: &Page, action: Action, tenant: &Tenant, typed: &str, error: &str) -> ConfirmPage {
    let name = &tenant.display_name;
    let (path, what, consequence) = match action {
        Action::Suspend => (
            "suspend",
            "Suspend",
            format!(
                "{name} stops: its people see a notice, its schedules do not run. Its data stays, and you can resume it."
            ),
        ),
        Action::Delete => (
            "delete",
            "Delete for good",
            format!(
                "{name} is removed with everything it holds: files, chats, schedules, people. This cannot be undone."
            ),
        ),
    };
    let slug = tenant.slug.to_string();
    ConfirmPage {
        page: below(page.shell(&format!("{what}: {name}")), name, format!("/tenants/{slug}")),
        slug,
        action: path.to_owned(),
        what: what.to_owned(),
        consequence,
        danger: action == Action::Delete,
        typed: typed.to_owned(),
        error: error.to_owned(),
        generation: tenant.generation,
    }
}

async fn ask(services: Services, page: Page, slug: Slugged, action: Action) -> Result {
    let TenantPath(slug) = slug?;
    let tenant = services.tenants.get(&slug).await?;
    html(StatusCode::OK, &view(&page, action, &tenant, "", ""))
}

async fn act(
    services: Services,
    caller: Caller,
    page: Page,
    slug: Slugged,
    action: Action,
    form: Confirmation,
) -> Result {
    let TenantPath(slug) = slug?;
    if form.confirm.trim() != slug.as_str() {
        let tenant = services.tenants.get(&slug).await?;
        let error = format!("must be exactly {slug}");
        return html(StatusCode::UNPROCESSABLE_ENTITY, &view(&page, action, &tenant, &form.confirm, &error));
    }
    let seen = form.generation.parse().ok();
    let Caller(by) = caller;
    let done = match action {
        Action::Suspend => services.tenants.suspend(&by, &slug, seen, None).await,
        Action::Delete => services.tenants.delete(&by, &slug, seen, None).await,
    };
    match done {
        Ok(_) => Ok(Redirect::to(&format!("/tenants/{slug}")).into_response()),
        // Somebody else changed it meanwhile: what was typed stays, and the person decides again.
        Err(error) if error.kind == Kind::PreconditionFailed => {
            let tenant = services.tenants.get(&slug).await?;
            let said = "This tenant was changed meanwhile. Look again, and confirm once more.";
            html(StatusCode::PRECONDITION_FAILED, &view(&page, action, &tenant, &form.confirm, said))
        }
        Err(error) => Err(error.into()),
    }
}

pub async fn suspend_form(State(services): State<Services>, page: Page, slug: Slugged) -> Result {
    ask(services, page, slug, Action::Suspend).await
}

pub async fn delete_form(State(services): State<Services>, page: Page, slug: Slugged) -> Result {
    ask(services, page, slug, Action::Delete).await
}

pub async fn suspend(
    State(services): State<Services>,
    caller: Caller,
    page: Page,
    slug: Slugged,
    Posted(form): Posted<Confirmation>,
) -> Result {
    act(services, caller, page, slug, Action::Suspend, form).await
}

pub async fn delete(
    State(services): State<Services>,
    caller: Caller,
    page: Page,
    slug: Slugged,
    Posted(form): Posted<Confirmation>,
) -> Result {
    act(services, caller, page, slug, Action::Delete, form).await
}

pub async fn resume(State(services): State<Services>, Caller(by): Caller, slug: Slugged) -> Result {
    let TenantPath(slug) = slug?;
    services.tenants.resume(&by, &slug, None, None).await?;
    Ok(Redirect::to(&format!("/tenants/{slug}")).into_response())
}

#[derive(Deserialize)]
pub struct NewSecret {
    #[serde(default)]
    name: String,
    value: SecretString,
}

pub async fn set_secret(
    State(services): State<Services>,
    Caller(by): Caller,
    page: Page,
    slug: Slugged,
    Posted(form): Posted<NewSecret>,
) -> Result {
    let TenantPath(slug) = slug?;
    let name = form.name.trim();
    match services.tenants.set_secret(&by, &slug, name, form.value).await {
        Ok(()) => Ok(Redirect::to(&format!("/tenants/{slug}#secrets")).into_response()),
        Err(error) => {
            let Kind::Invalid { field } = &error.kind else { return Err(error.into()) };
            problem::log(&error);
            let rule = error.public().strip_prefix(field.as_str()).unwrap_or(error.public()).trim_start().to_owned();
            let mut typed = Secrets { typed: name.to_owned(), ..Secrets::default() };
            // The value is not put back: it would stand in the page.
            if field == "value" {
                typed.value_error = rule
            } else {
                typed.name_error = rule
            }
            html(StatusCode::UNPROCESSABLE_ENTITY, &tenant::view(&services, &page, &slug, Some(typed)).await?)
        }
    }
}

pub async fn delete_secret(
    State(services): State<Services>,
    Caller(by): Caller,
    slug: Slugged,
    Path((_, name)): Path<(String, String)>,
) -> Result {
    let TenantPath(slug) = slug?;
    services.tenants.delete_secret(&by, &slug, &name).await?;
    Ok(Redirect::to(&format!("/tenants/{slug}#secrets")).into_response())
}
