//! Signing in and out. What is wrong is never said: not which of the two, nor whether the name exists.

use super::page::{Page, Posted, Result, html};
use crate::error::{Error, Kind};
use crate::http::auth::Caller;
use crate::http::cookies::PanelCookie;
use crate::http::redirect::safe_next;
use crate::http::{RemoteAddr, problem};
use crate::service::Services;
use axum::extract::{Extension, Query, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use nexaas_common::secret::{ExposeSecret as _, SecretString};
use nexaas_dashboard::console::login::LoginPage;
use serde::Deserialize;
use std::net::{IpAddr, Ipv4Addr};

/// Pages a login may lead to.
const PAGES: &[&str] = &["/", "/tenants/new", "/tenants/"];

#[derive(Debug, Default, Deserialize)]
pub struct Next {
    next: Option<String>,
}

#[derive(Deserialize)]
pub struct Credentials {
    #[serde(default)]
    username: String,
    password: SecretString,
    next: Option<String>,
}

fn view(page: &Page, username: &str, error: &str, next: &str) -> LoginPage {
    LoginPage {
        page: page.bare("Log in", "The console of this installation"),
        username: username.chars().take(64).collect(),
        error: error.to_owned(),
        next: next.to_owned(),
    }
}

pub async fn form(
    State(services): State<Services>,
    page: Page,
    query: std::result::Result<Query<Next>, axum::extract::rejection::QueryRejection>,
    headers: HeaderMap,
) -> Result {
    let asked = query.map(|Query(next)| next).unwrap_or_default();
    let next = safe_next(asked.next.as_deref(), PAGES);
    // Whoever is signed in already has no use for the form.
    if let Some(token) = PanelCookie::Console.read(&headers, services.settings.cookie_secure)
        && services.operators.authenticate_session(&token).await.is_ok()
    {
        return Ok(Redirect::to(next).into_response());
    }
    html(StatusCode::OK, &view(&page, "", "", next))
}

pub async fn submit(
    State(services): State<Services>,
    page: Page,
    remote: Option<Extension<RemoteAddr>>,
    Posted(form): Posted<Credentials>,
) -> Result {
    let next = safe_next(form.next.as_deref(), PAGES);
    // Without the edge in front there is only this machine.
    let remote = remote.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |Extension(RemoteAddr(address))| address);
    let secure = services.settings.cookie_secure;
    match services.operators.login(form.username.trim(), &form.password, remote).await {
        Ok(session) => {
            let age = (session.expires - services.clock.now()).num_seconds().max(0);
            let cookie = PanelCookie::Console
                .set(session.token.expose_secret(), age, secure)
                .ok_or_else(|| Error::internal("a session token does not fit a cookie"))?;
            Ok(see_other(next, cookie))
        }
        Err(error) => {
            problem::log(&error);
            let message = match &error.kind {
                Kind::RateLimited { .. } => "Too many tries. Wait a little and try again.",
                Kind::Unauthenticated | Kind::Invalid { .. } | Kind::NotFound | Kind::Forbidden => {
                    "That username and password do not go together."
                }
                _ => return Err(error.into()),
            };
            let kind = match error.kind {
                limited @ Kind::RateLimited { .. } => limited,
                _ => Kind::Unauthenticated,
            };
            let mut response = html(StatusCode::OK, &view(&page, &form.username, message, next))?;
            problem::decorate(&kind, &mut response);
            Ok(response)
        }
    }
}

pub async fn logout(State(services): State<Services>, Caller(by): Caller) -> Result {
    services.operators.logout(&by).await?;
    let cookie = PanelCookie::Console
        .clear(services.settings.cookie_secure)
        .ok_or_else(|| Error::internal("an empty cookie could not be written"))?;
    Ok(see_other("/login", cookie))
}

fn see_other(to: &str, cookie: HeaderValue) -> Response {
    let mut response = Redirect::to(to).into_response();
    response.headers_mut().append(header::SET_COOKIE, cookie);
    response
}
