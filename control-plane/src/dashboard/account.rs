//! Signing up, in and out. The first person to come names the company and becomes its administrator.

use super::AppState;
use super::failure::{Failure, said};
use super::session::Visitor;
use crate::error::{Error, Kind};
use crate::http::cookies::PanelCookie;
use crate::http::redirect::safe_next;
use crate::http::{RemoteAddr, problem};
use crate::runner_client::TenantApi;
use crate::runner_client::model::{AccountStatus, UserSession};
use axum::Extension;
use axum::extract::{Form, Query, State};
use axum::response::{Html, IntoResponse as _, Redirect, Response};
use chrono::DateTime;
use http::{HeaderValue, StatusCode, header};
use nexaas_common::secret::{ExposeSecret as _, SecretString};
use nexaas_dashboard::Template;
use nexaas_dashboard::layout::{Bare, Brand};
use nexaas_dashboard::tenant::{LoginPage, RegisterPage};
use serde::Deserialize;
use std::net::IpAddr;

/// Where a login may lead.
const NEXT: &[&str] = &["/", "/p/", "/workspace", "/workspace/"];

type Remote = Option<Extension<RemoteAddr>>;

fn address(remote: Remote) -> Option<IpAddr> {
    remote.map(|Extension(RemoteAddr(address))| address)
}

#[derive(Debug, Deserialize)]
pub struct Next {
    next: Option<String>,
}

#[derive(Deserialize)]
pub struct LoginForm {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: SecretString,
    next: Option<String>,
}

#[derive(Deserialize)]
pub struct RegisterForm {
    #[serde(default)]
    company_name: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: SecretString,
}

fn bare(visitor: &Visitor, status: &AccountStatus, title: &str, lead: &str) -> Bare {
    let name = if status.company.is_empty() { visitor.tenant.display_name.clone() } else { status.company.clone() };
    Bare {
        title: title.to_owned(),
        nonce: visitor.nonce.clone(),
        brand: Brand { name, href: "/".to_owned(), ..Brand::default() },
        lead: lead.to_owned(),
    }
}

fn show(status: StatusCode, page: &impl Template) -> Result<Response, Failure> {
    Ok((status, Html(page.render().map_err(Error::internal)?)).into_response())
}

pub async fn login_form(visitor: Visitor, Query(query): Query<Next>) -> Result<Response, Failure> {
    let status = visitor.api.account_status().await?;
    if !status.has_company {
        return Ok(Redirect::to("/register").into_response());
    }
    let next = safe_next(query.next.as_deref(), NEXT).to_owned();
    show(StatusCode::OK, &login_page(&visitor, &status, next, String::new(), String::new()))
}

fn login_page(visitor: &Visitor, status: &AccountStatus, next: String, username: String, error: String) -> LoginPage {
    let name = if status.company.is_empty() { &visitor.tenant.display_name } else { &status.company };
    LoginPage {
        page: bare(visitor, status, &format!("Welcome to {name}"), ""),
        next,
        username,
        error,
        registration_open: status.registration_open,
    }
}

pub async fn login(
    State(state): State<AppState>,
    visitor: Visitor,
    remote: Remote,
    Form(form): Form<LoginForm>,
) -> Result<Response, Failure> {
    let next = safe_next(form.next.as_deref(), NEXT).to_owned();
    match visitor.api.login(form.username.trim(), &form.password, address(remote)).await {
        Ok(session) => start(&state, &session, &next),
        Err(error) => {
            problem::log(&error);
            let text = match &error.kind {
                Kind::Unauthenticated => "The user name or the password is not right.".to_owned(),
                Kind::Unavailable { .. } | Kind::Timeout { .. } | Kind::Internal => return Err(error.into()),
                _ => said(&error),
            };
            let status = visitor.api.account_status().await?;
            show(problem::status(&error.kind), &login_page(&visitor, &status, next, form.username, text))
        }
    }
}

pub async fn register_form(visitor: Visitor) -> Result<Response, Failure> {
    let status = visitor.api.account_status().await?;
    let page = register_page(&visitor, &status);
    if status.has_company && !status.registration_open {
        return Err(
            Error::forbidden("Registration is closed. Ask an administrator of this workspace for an account.").into()
        );
    }
    show(StatusCode::OK, &page)
}

fn register_page(visitor: &Visitor, status: &AccountStatus) -> RegisterPage {
    let first = !status.has_company;
    let (title, lead) = if first {
        (
            "Set up your workspace".to_owned(),
            "You are the first one here: name your company and become its administrator.",
        )
    } else {
        (format!("Join {}", status.company), "")
    };
    let company = if first { visitor.tenant.display_name.clone() } else { String::new() };
    RegisterPage { page: bare(visitor, status, &title, lead), first, company, ..RegisterPage::default() }
}

pub async fn register(
    State(state): State<AppState>,
    visitor: Visitor,
    remote: Remote,
    Form(form): Form<RegisterForm>,
) -> Result<Response, Failure> {
    let company = form.company_name.trim();
    let username = form.username.trim();
    let error = match visitor.api.register(company, username, &form.password, address(remote)).await {
        Ok(session) => return start(&state, &session, "/"),
        Err(error) => error,
    };
    problem::log(&error);
    let status = visitor.api.account_status().await?;
    let mut page = register_page(&visitor, &status);
    page.company = company.to_owned();
    page.username = username.to_owned();
    let text = sentence(&said(&error));
    match &error.kind {
        Kind::Invalid { field } => match field.as_str() {
            "company_name" if page.first => page.company_error = text,
            "username" => page.username_error = text,
            "password" => page.password_error = text,
            _ => page.error = text,
        },
        Kind::Conflict => page.username_error = text,
        Kind::Unavailable { .. } | Kind::Timeout { .. } | Kind::Internal => return Err(error.into()),
        _ => page.error = text,
    }
    show(problem::status(&error.kind), &page)
}

/// A rule as a person reads it: `company_name must not be empty` becomes `Company name must not be empty`.
fn sentence(rule: &str) -> String {
    let rule = rule.replace("company_name", "company name");
    let mut letters = rule.chars();
    letters.next().map(|c| c.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// Ends the user's sessions at the runner and forgets the cookie. When the runner does not answer, the cookie goes all the same.
pub async fn logout(State(state): State<AppState>, visitor: Visitor) -> Result<Response, Failure> {
    if let Some(token) = visitor.token {
        let api = TenantApi::new(state.channels.channel(&visitor.tenant)?, Some(token));
        if let Err(error) = api.logout().await {
            problem::log(&error);
        }
    }
    let mut response = Redirect::to("/login").into_response();
    set_cookie(&mut response, PanelCookie::Tenant.clear(state.cookie_secure))?;
    Ok(response)
}

fn start(state: &AppState, session: &UserSession, next: &str) -> Result<Response, Failure> {
    let expires = DateTime::parse_from_rfc3339(&session.expires_at).map_err(Error::internal)?;
    let seconds = (expires.to_utc() - state.clock.now()).num_seconds().max(0);
    let mut response = Redirect::to(next).into_response();
    set_cookie(&mut response, PanelCookie::Tenant.set(session.token.expose_secret(), seconds, state.cookie_secure))?;
    Ok(response)
}

fn set_cookie(response: &mut Response, value: Option<HeaderValue>) -> Result<(), Failure> {
    let value = value.ok_or_else(|| Error::internal("the runner's token cannot be a cookie"))?;
    response.headers_mut().append(header::SET_COOKIE, value);
    Ok(())
}
