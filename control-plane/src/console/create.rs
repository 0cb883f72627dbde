//! The form that makes a tenant.

use super::page::{Page, Posted, Result, below, html};
use crate::domain::tenant::BackendKind;
use crate::error::{Error, Kind};
use crate::http::auth::Caller;
use crate::http::{PublicUrl, problem};
use crate::service::{CreateTenant, Services};
use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect};
use http::StatusCode;
use nexaas_common::id::RequestId;
use nexaas_dashboard::console::tenants::{NewTenantErrors, NewTenantForm, NewTenantPage};
use serde::Deserialize;

/// Everything as it was typed.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Typed {
    slug: String,
    display_name: String,
    template: String,
    backend: String,
    memory_mb: String,
    cpu_millis: String,
    key: String,
}

fn view(services: &Services, page: &Page, form: NewTenantForm, errors: NewTenantErrors) -> NewTenantPage {
    let public = PublicUrl::from(&*services.settings);
    let suffix = public.tenant("x").split_once("://x").map(|(_, rest)| rest.to_owned()).unwrap_or_default();
    let limits = services.settings.default_limits;
    NewTenantPage {
        page: below(page.shell("New tenant"), "Tenants", "/".to_owned()),
        form,
        errors,
        templates: services.tenants.templates(),
        backends: services.tenants.backends().into_iter().map(str::to_owned).collect(),
        suffix,
        key: RequestId::generate().to_string(),
        default_memory_mb: limits.memory_bytes >> 20,
        default_cpu_millis: limits.cpu_millis,
    }
}

pub async fn form(State(services): State<Services>, page: Page) -> Result {
    let form = NewTenantForm { template: "fresh".to_owned(), ..NewTenantForm::default() };
    html(StatusCode::OK, &view(&services, &page, form, NewTenantErrors::default()))
}

/// An empty field is no wish; anything else must be a number.
fn number<T: std::str::FromStr>(field: &str, text: &str, errors: &mut NewTenantErrors) -> Option<T> {
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    let parsed = text.parse().ok();
    if parsed.is_none() {
        errors.put(field, "must be a whole number".to_owned());
    }
    parsed
}

fn backend(text: &str, errors: &mut NewTenantErrors) -> Option<BackendKind> {
    match text {
        "" => None,
        "docker" => Some(BackendKind::Docker),
        "process" => Some(BackendKind::Process),
        "fake" => Some(BackendKind::Fake),
        _ => {
            errors.put("backend", "is not one of those offered".to_owned());
            None
        }
    }
}

/// Where an error of the service is shown, in words that fit beside the field.
fn place(error: &Error, errors: &mut NewTenantErrors) {
    let message = error.public();
    match &error.kind {
        Kind::Invalid { field } => {
            let rule = message.strip_prefix(field.as_str()).unwrap_or(message).trim_start();
            errors.put(field, rule.to_owned());
        }
        Kind::Conflict => errors.put("slug", message.to_owned()),
        _ => errors.put("", message.to_owned()),
    }
}

pub async fn submit(
    State(services): State<Services>,
    Caller(by): Caller,
    page: Page,
    Posted(typed): Posted<Typed>,
) -> Result {
    let mut errors = NewTenantErrors::default();
    let request = CreateTenant {
        slug: typed.slug.trim().to_owned(),
        display_name: Some(typed.display_name.clone()).filter(|n| !n.trim().is_empty()),
        template: Some(typed.template.clone()).filter(|t| !t.is_empty()),
        backend: backend(&typed.backend, &mut errors),
        memory_mb: number("memory_mb", &typed.memory_mb, &mut errors),
        cpu_millis: number("cpu_millis", &typed.cpu_millis, &mut errors),
    };
    let mut kind = Kind::Invalid { field: "form".to_owned() };
    if !errors.any() {
        let key = Some(typed.key.as_str()).filter(|k| k.parse::<RequestId>().is_ok());
        match services.tenants.create(&by, request, key).await {
            Ok((tenant, _)) => return Ok(Redirect::to(&format!("/tenants/{}", tenant.slug)).into_response()),
            Err(error) if matches!(error.kind, Kind::Internal) => return Err(error.into()),
            Err(error) => {
                problem::log(&error);
                place(&error, &mut errors);
                kind = error.kind;
            }
        }
    }
    let form = NewTenantForm {
        slug: typed.slug,
        display_name: typed.display_name,
        template: typed.template,
        backend: typed.backend,
        memory_mb: typed.memory_mb,
        cpu_millis: typed.cpu_millis,
    };
    let mut response = html(StatusCode::OK, &view(&services, &page, form, errors))?;
    problem::decorate(&kind, &mut response);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_stands_beside_its_field_without_repeating_the_name() {
        let mut errors = NewTenantErrors::default();
        place(&Error::invalid("slug", "must start with a letter a-z"), &mut errors);
        assert_eq!(errors.slug, "must start with a letter a-z");
        place(&Error::new(Kind::Exhausted { resource: "ports" }, "No port is free"), &mut errors);
        assert_eq!(errors.general, "No port is free");
    }

    #[test]
    fn a_number_that_is_none_is_refused_and_an_empty_one_is_no_wish() {
        let mut errors = NewTenantErrors::default();
        assert_eq!(number::<u64>("memory_mb", " 512 ", &mut errors), Some(512));
        assert_eq!(number::<u32>("cpu_millis", "", &mut errors), None);
        assert!(!errors.any());
        assert_eq!(number::<u64>("memory_mb", "lots", &mut errors), None);
        assert_eq!(errors.memory_mb, "must be a whole number");
    }
}
