//! The people who run the installation. Only owners come here; a password is made by the server and shown once.

use super::extract::Json;
use super::view::{CreateOperatorBody, NewPassword, OperatorList, OperatorView};
use crate::domain::operator::Role;
use crate::error::Result;
use crate::http::Problem;
use crate::http::auth::Caller;
use crate::service::Services;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use nexaas_common::secret::ExposeSecret as _;

/// All operators.
#[utoipa::path(get, path = "/api/v1/operators", tag = "operators", responses((status = 200, body = OperatorList)))]
pub async fn list(State(services): State<Services>, Caller(by): Caller) -> Result<Response> {
    let all = services.operators.list(&by).await?;
    Ok(axum::Json(OperatorList { items: all.iter().map(OperatorView::from).collect() }).into_response())
}

/// Make an operator; the answer holds the password, once. With `first`, only if nobody exists yet, as owner; otherwise the
/// password is null and nothing happens.
#[utoipa::path(post, path = "/api/v1/operators", tag = "operators", request_body = CreateOperatorBody,
    responses((status = 200, body = NewPassword), (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub async fn create(
    State(services): State<Services>,
    Caller(by): Caller,
    Json(body): Json<CreateOperatorBody>,
) -> Result<Response> {
    let (role, password) = if body.first {
        (Role::Owner, services.operators.bootstrap(&body.username).await?)
    } else {
        let role = body.role.unwrap_or(Role::Operator);
        (role, Some(services.operators.create(&by, &body.username, role).await?))
    };
    let password = password.map(|p| p.expose_secret().to_owned());
    let role = role.as_str().to_owned();
    Ok(axum::Json(NewPassword { username: body.username, role: Some(role), password }).into_response())
}

/// Give an operator a new password; every session of theirs ends.
#[utoipa::path(post, path = "/api/v1/operators/{username}/reset-password", tag = "operators",
    params(("username" = String, Path)),
    responses((status = 200, body = NewPassword), (status = 404, body = Problem, content_type = "application/problem+json")))]
pub async fn reset_password(
    State(services): State<Services>,
    Caller(by): Caller,
    Path(username): Path<String>,
) -> Result<Response> {
    let password = services.operators.reset_password(&by, &username).await?;
    let password = Some(password.expose_secret().to_owned());
    Ok(axum::Json(NewPassword { username, role: None, password }).into_response())
}
