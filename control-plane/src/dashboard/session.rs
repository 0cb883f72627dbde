//! Who is looking: the tenant from the host, the user's token from the cookie. The token is the runner's own; it is the runner
//! that decides, at every call, whether it still holds.

use super::AppState;
use super::failure::Failure;
use crate::domain::tenant::Tenant;
use crate::error::{Error, Kind};
use crate::http::cookies::PanelCookie;
use crate::http::{CspNonce, TenantContext};
use crate::runner_client::TenantApi;
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::request::Parts;
use http::{HeaderMap, header};
use nexaas_common::secret::SecretString;
use std::sync::Arc;

/// Longer values are no token of ours.
const MAX_TOKEN: usize = 4096;

/// A request with a session, behind [`require`].
#[derive(Debug, Clone)]
pub struct Session {
    pub tenant: Arc<Tenant>,
    pub api: TenantApi,
    pub nonce: String,
}

/// A request to a tenant's host, with or without a session.
#[derive(Debug, Clone)]
pub struct Visitor {
    pub tenant: Arc<Tenant>,
    /// Without a token.
    pub api: TenantApi,
    pub token: Option<SecretString>,
    pub nonce: String,
}

/// The token of a request. A call with `Authorization` is exempt from the cross-site rule, so it never acts with a cookie.
fn token(headers: &HeaderMap, secure: bool) -> Option<SecretString> {
    if headers.contains_key(header::AUTHORIZATION) {
        return None;
    }
    PanelCookie::Tenant.read(headers, secure).filter(|t| t.len() <= MAX_TOKEN).map(SecretString::from)
}

/// Lets a request with a session through; without one, a person is led to the sign-in form.
pub async fn require(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let visitor = match Visitor::from_request_parts(&mut parts, &state).await {
        Ok(visitor) => visitor,
        Err(failure) => return failure.into_response(),
    };
    let Some(token) = visitor.token else {
        let first = visitor.api.account_status().await.is_ok_and(|s| !s.has_company);
        return if first { Failure::NoCompany } else { Failure::from(Error::unauthenticated("Log in first")) }
            .into_response();
    };
    let api = match state.channels.channel(&visitor.tenant) {
        Ok(channel) => TenantApi::new(channel, Some(token)),
        Err(error) => return Failure::from(error).into_response(),
    };
    parts.extensions.insert(Session { tenant: visitor.tenant, api, nonce: visitor.nonce });
    next.run(Request::from_parts(parts, body)).await
}

impl FromRequestParts<AppState> for Session {
    type Rejection = Failure;
    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Failure> {
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(|| Error::internal("a handler asked for a session on a public route").into())
    }
}

impl FromRequestParts<AppState> for Visitor {
    type Rejection = Failure;
    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Failure> {
        let Some(TenantContext { tenant }) = parts.extensions.get::<TenantContext>().cloned() else {
            return Err(Error::new(Kind::NotFound, "No workspace lives at this address").into());
        };
        let nonce = parts.extensions.get::<CspNonce>().map(|n| n.as_str().to_owned()).unwrap_or_default();
        let api = TenantApi::new(state.channels.channel(&tenant)?, None);
        Ok(Self { tenant, api, token: token(&parts.headers, state.cookie_secure), nonce })
    }
}
