//! A tenant's secrets and API key, and the caller's own tokens. Values are taken or shown once, never listed.

use super::extract::{Json, TenantPath};
use super::view::{CreateTokenBody, Me, Names, NewApiKey, NewToken, SecretBody, TokenList, TokenView};
use crate::error::{Error, Result};
use crate::http::Problem;
use crate::http::auth::Caller;
use crate::service::Services;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use nexaas_common::secret::ExposeSecret as _;

/// The names of a tenant's secrets.
#[utoipa::path(get, path = "/api/v1/tenants/{slug}/secrets", tag = "credentials", params(("slug" = String, Path)),
    responses((status = 200, body = Names), (status = 404, body = Problem, content_type = "application/problem+json")))]
pub async fn secret_names(State(services): State<Services>, TenantPath(slug): TenantPath) -> Result<Response> {
    Ok(axum::Json(Names { items: services.tenants.secret_names(&slug).await? }).into_response())
}

/// Set a secret. The running workspace receives it at once.
#[utoipa::path(put, path = "/api/v1/tenants/{slug}/secrets/{name}", tag = "credentials", request_body = SecretBody,
    params(("slug" = String, Path), ("name" = String, Path)),
    responses((status = 204), (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub async fn set_secret(
    State(services): State<Services>,
    Caller(by): Caller,
    TenantPath(slug): TenantPath,
    Path((_, name)): Path<(String, String)>,
    Json(body): Json<SecretBody>,
) -> Result<StatusCode> {
    services.tenants.set_secret(&by, &slug, &name, body.value).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Remove a secret.
#[utoipa::path(delete, path = "/api/v1/tenants/{slug}/secrets/{name}", tag = "credentials",
    params(("slug" = String, Path), ("name" = String, Path)),
    responses((status = 204), (status = 404, body = Problem, content_type = "application/problem+json")))]
pub async fn delete_secret(
    State(services): State<Services>,
    Caller(by): Caller,
    TenantPath(slug): TenantPath,
    Path((_, name)): Path<(String, String)>,
) -> Result<StatusCode> {
    services.tenants.delete_secret(&by, &slug, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Make a new API key for the workspace's own HTTP API; the one before it ends.
#[utoipa::path(post, path = "/api/v1/tenants/{slug}/api-key", tag = "credentials", params(("slug" = String, Path)),
    responses((status = 200, body = NewApiKey), (status = 404, body = Problem, content_type = "application/problem+json")))]
pub async fn rotate_api_key(
    State(services): State<Services>,
    Caller(by): Caller,
    TenantPath(slug): TenantPath,
) -> Result<Response> {
    let key = services.tenants.rotate_api_key(&by, &slug).await?;
    Ok(axum::Json(NewApiKey { api_key: key.expose_secret().to_owned() }).into_response())
}

/// The caller.
#[utoipa::path(get, path = "/api/v1/me", tag = "credentials", responses((status = 200, body = Me)))]
pub async fn me(Caller(by): Caller) -> Response {
    axum::Json(Me { username: by.username, role: by.role.as_str().to_owned() }).into_response()
}

/// The caller's own API tokens.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "credentials", responses((status = 200, body = TokenList)))]
pub async fn list_tokens(State(services): State<Services>, Caller(by): Caller) -> Result<Response> {
    let tokens = services.operators.list_tokens(&by).await?;
    Ok(axum::Json(TokenList { items: tokens.iter().map(TokenView::from).collect() }).into_response())
}

/// Make an API token of at most the caller's own role.
#[utoipa::path(post, path = "/api/v1/tokens", tag = "credentials", request_body = CreateTokenBody,
    responses((status = 201, body = NewToken), (status = 422, body = Problem, content_type = "application/problem+json")))]
pub async fn create_token(
    State(services): State<Services>,
    Caller(by): Caller,
    Json(body): Json<CreateTokenBody>,
) -> Result<Response> {
    if body.expires_in_days == 0 || body.expires_in_days > 366 {
        return Err(Error::invalid("expires_in_days", "must be 1 to 366"));
    }
    let life = chrono::Duration::days(i64::from(body.expires_in_days));
    let (token, description) = services.operators.create_token(&by, &body.name, body.role, life).await?;
    let body = NewToken { token: token.expose_secret().to_owned(), description: (&description).into() };
    Ok((StatusCode::CREATED, axum::Json(body)).into_response())
}

/// End one of the caller's own tokens.
#[utoipa::path(delete, path = "/api/v1/tokens/{id}", tag = "credentials", params(("id" = String, Path)),
    responses((status = 204), (status = 404, body = Problem, content_type = "application/problem+json")))]
pub async fn revoke_token(
    State(services): State<Services>,
    Caller(by): Caller,
    Path(id): Path<String>,
) -> Result<StatusCode> {
    let id = id.parse().map_err(|_| Error::not_found("This token"))?;
    services.operators.revoke_token(&by, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
