//! Who is calling, from a bearer token or the console's cookie. When `Authorization` is present the cookie is not looked at,
//! so that a call exempt from the cross-site rule can never act with a session.

use super::cookies::PanelCookie;
use crate::domain::operator::Principal;
use crate::error::{Error, Result};
use async_trait::async_trait;
use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, header};
use std::sync::Arc;

/// Turns what a caller presents into a principal, or refuses.
#[async_trait]
pub trait Authenticator: Send + Sync + std::fmt::Debug {
    async fn session(&self, token: &str) -> Result<Principal>;
    async fn token(&self, token: &str) -> Result<Principal>;
}

pub type SharedAuthenticator = Arc<dyn Authenticator>;

/// The caller of `headers`.
pub async fn authenticate(with: &dyn Authenticator, headers: &HeaderMap, secure: bool) -> Result<Principal> {
    if headers.contains_key(header::AUTHORIZATION) {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let token = values
            .next()
            .filter(|_| values.next().is_none())
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .filter(|token| !token.is_empty() && token.len() <= 4096)
            .ok_or_else(|| Error::unauthenticated("Authorization must be 'Bearer <token>'"))?;
        return with.token(token).await;
    }
    match PanelCookie::Console.read(headers, secure) {
        Some(token) if token.len() <= 4096 => with.session(&token).await,
        _ => Err(Error::unauthenticated("Sign in first, or send an API token")),
    }
}

/// The authenticated caller. Present only behind the guard of a declared route.
#[derive(Debug, Clone)]
pub struct Caller(pub Principal);

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Error;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(|| Error::internal("a handler asked for its caller on a route that declares none"))
    }
}

/// The operators of this installation.
#[derive(Clone)]
pub struct ServiceAuthenticator(pub crate::service::OperatorService);

impl std::fmt::Debug for ServiceAuthenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServiceAuthenticator")
    }
}

#[async_trait]
impl Authenticator for ServiceAuthenticator {
    async fn session(&self, token: &str) -> Result<Principal> {
        self.0.authenticate_session(token).await
    }
    async fn token(&self, token: &str) -> Result<Principal> {
        self.0.authenticate_token(token).await
    }
}
