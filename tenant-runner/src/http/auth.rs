//! Accounts. A missing field or a short password was a 400 in the original, so it stays one here.

use super::error::{ApiError, ApiResult};
use super::extract::Json as Body;
use crate::app::App;
use crate::listener::Peer;
use crate::principal::{Principal, only};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::{Extension, Json};
use nexaas_common::secret::SecretString;
use nexaas_engine::users::{NewUser, Session};
use serde::Deserialize;
use serde_json::{Value, json};
use std::net::IpAddr;

#[derive(Debug, Deserialize)]
pub struct Registration {
    #[serde(default)]
    company_name: Option<String>,
    username: String,
    password: SecretString,
}

#[derive(Debug, Deserialize)]
pub struct Login {
    username: String,
    password: SecretString,
}

fn bad_request(error: impl Into<ApiError>) -> ApiError {
    error.into().with_status_for_invalid(StatusCode::BAD_REQUEST)
}

/// The address that limits count by. The control plane stands before a tenant's runner and says who called it, in a header
/// that it rewrites itself; from anybody else the header means nothing.
fn remote(peer: Peer, headers: &HeaderMap) -> Option<String> {
    const FORWARDED: HeaderName = HeaderName::from_static("x-forwarded-for");
    let address = if peer.control_plane {
        only(headers, &FORWARDED)?.rsplit(',').next()?.trim().parse::<IpAddr>().ok()?.to_canonical()
    } else {
        peer.ip()
    };
    Some(address.to_string())
}

fn answer(session: &Session) -> Json<Value> {
    Json(json!({ "token": session.token, "user": session.user, "expires_at": session.expires_at }))
}

/// The first one founds the company and becomes its admin.
#[utoipa::path(post, path = "/api/auth/register", tag = "accounts", request_body = super::openapi::shapes::Registration, responses((status = 200, body = super::openapi::shapes::Session), (status = 400, body = super::openapi::shapes::Problem)))]
pub async fn register(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: ApiResult<Body<Registration>>,
) -> ApiResult<Json<Value>> {
    let Body(body) = body.map_err(bad_request)?;
    let request = NewUser {
        company_name: body.company_name,
        username: body.username,
        password: body.password,
        remote_address: remote(peer, &headers),
    };
    let session = app.engine().users().register(request).await.map_err(bad_request)?;
    Ok(answer(&session))
}

/// A token for a name and its password.
#[utoipa::path(post, path = "/api/auth/login", tag = "accounts", request_body = super::openapi::shapes::Login, responses((status = 200, body = super::openapi::shapes::Session), (status = 400, body = super::openapi::shapes::Problem), (status = 401, body = super::openapi::shapes::Problem), (status = 429, body = super::openapi::shapes::Problem)))]
pub async fn login(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: ApiResult<Body<Login>>,
) -> ApiResult<Json<Value>> {
    let Body(body) = body.map_err(bad_request)?;
    let address = remote(peer, &headers);
    let session =
        app.engine().users().login(&body.username, body.password, address.as_deref()).await.map_err(bad_request)?;
    Ok(answer(&session))
}

/// Whose token this is.
#[utoipa::path(get, path = "/api/auth/me", tag = "accounts", responses((status = 200, body = super::openapi::shapes::User), (status = 403, body = super::openapi::shapes::Problem)))]
pub async fn me(Extension(principal): Extension<Principal>) -> ApiResult<Json<Value>> {
    Ok(Json(json!(principal.user()?)))
}

/// Ends every token of the caller.
#[utoipa::path(post, path = "/api/auth/logout", tag = "accounts", responses((status = 204, description = "Every token of the caller has ended"), (status = 403, body = super::openapi::shapes::Problem)))]
pub async fn logout(State(app): State<App>, Extension(principal): Extension<Principal>) -> ApiResult<StatusCode> {
    app.engine().users().logout(principal.user()?).await?;
    Ok(StatusCode::NO_CONTENT)
}
