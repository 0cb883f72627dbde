//! What only an owner asks for and what the command line needs beyond the API for programs: operators.

use crate::domain::operator::Role;
use crate::error::{Error, Result};
use crate::http::auth::{Authenticator, Caller, SharedAuthenticator};
use crate::http::routes::{Access, Audience, RouteSpec, build, route};
use crate::service::{OperatorService, Services};
use crate::store::operators::parse_role;
use async_trait::async_trait;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use nexaas_common::secret::ExposeSecret as _;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

#[derive(Debug)]
struct OperatorAuthenticator(OperatorService);

#[async_trait]
impl Authenticator for OperatorAuthenticator {
    async fn session(&self, token: &str) -> Result<crate::domain::operator::Principal> {
        self.0.authenticate_session(token).await
    }
    async fn token(&self, token: &str) -> Result<crate::domain::operator::Principal> {
        self.0.authenticate_token(token).await
    }
}

static TABLE: &[RouteSpec<Services>] = &[
    route(http::Method::GET, "/api/v1/operators", Access::AtLeast(Role::Owner), || get(list).post(create)),
    route(http::Method::POST, "/api/v1/operators/{username}/reset-password", Access::AtLeast(Role::Owner), || {
        post(reset)
    }),
];

pub fn router(services: Services) -> Router {
    let authenticator: SharedAuthenticator = Arc::new(OperatorAuthenticator(services.operators.clone()));
    build(TABLE, &authenticator, Audience::Program, services.settings.cookie_secure, |spec| (spec.handler)())
        .with_state(services)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewOperator {
    username: String,
    #[serde(default)]
    role: Option<String>,
    /// Only if nobody exists yet; then as owner.
    #[serde(default)]
    first: bool,
}

async fn list(State(services): State<Services>, Caller(by): Caller) -> Result<Json<Value>> {
    let all = services.operators.list(&by).await?;
    let items: Vec<Value> = all
        .iter()
        .map(|o| json!({ "id": o.id, "username": o.username, "role": o.role, "created_at": o.created_at }))
        .collect();
    Ok(Json(json!({ "items": items })))
}

async fn create(
    State(services): State<Services>,
    Caller(by): Caller,
    body: std::result::Result<Json<NewOperator>, axum::extract::rejection::JsonRejection>,
) -> Result<Json<Value>> {
    let Json(new) = body.map_err(|e| Error::invalid("body", e.body_text()))?;
    if new.first {
        let password = services.operators.bootstrap(&new.username).await?;
        return Ok(Json(json!({ "username": new.username, "password": password.as_ref().map(|p| p.expose_secret()) })));
    }
    let role = new.role.as_deref().map_or(Ok(Role::Operator), parse_role)?;
    let password = services.operators.create(&by, &new.username, role).await?;
    Ok(Json(json!({ "username": new.username, "role": role, "password": password.expose_secret() })))
}

async fn reset(
    State(services): State<Services>,
    Caller(by): Caller,
    Path(username): Path<String>,
) -> Result<Json<Value>> {
    let password = services.operators.reset_password(&by, &username).await?;
    Ok(Json(json!({ "username": username, "password": password.expose_secret() })))
}
