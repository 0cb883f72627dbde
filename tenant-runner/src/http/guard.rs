//! What stands before every handler: authentication (deny by default), the deadline, and the span that joins the caller's
//! trace. A handler that needs to know its caller takes `Extension<Principal>`.

use super::error::ApiError;
use crate::app::App;
use crate::principal::{self, Credential, Principal};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use nexaas_common::secret::SecretString;
use std::time::Duration;
use tracing::Instrument as _;

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody. There are three such routes, and a test names them.
    Public,
    /// The handler verifies a signature, or asks for a caller itself.
    Signed,
    /// The API key or any user.
    Caller,
    /// The API key or an admin.
    Admin,
}

/// Answers even before the settings have come.
pub const HEALTH: &str = "/api/health";

#[derive(Clone)]
pub struct Guard {
    pub app: App,
    pub access: Access,
    pub deadline: Duration,
}

pub async fn enforce(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    let span = tracing::info_span!(
        "http", otel.name = %format!("{} {path}", request.method()), otel.kind = "server",
        http.request.method = %request.method(), http.route = %path, http.response.status_code = tracing::field::Empty
    );
    nexaas_common::telemetry::adopt(&span, request.headers());
    let answer = async {
        if guard.app.awaits_settings() && path != HEALTH {
            let detail = "This runner has just started and waits for its settings; try again in a moment";
            return ApiError::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(1).into_response();
        }
        match guard.access {
            Access::Public | Access::Signed => {}
            Access::Caller | Access::Admin => match admit(&guard, request.headers()).await {
                Ok((principal, credential)) => {
                    request.extensions_mut().insert(principal);
                    request.extensions_mut().insert(credential);
                }
                Err(error) => return error.into_response(),
            },
        }
        match tokio::time::timeout(guard.deadline, next.run(request)).await {
            Ok(response) => response,
            Err(_) => ApiError::new(
                StatusCode::GATEWAY_TIMEOUT,
                format!("No answer within {} s; what was started goes on", guard.deadline.as_secs()),
            )
            .into_response(),
        }
    };
    let response = answer.instrument(span.clone()).await;
    span.record("http.response.status_code", response.status().as_u16());
    response
}

async fn admit(guard: &Guard, headers: &HeaderMap) -> Result<(Principal, Credential), ApiError> {
    let (principal, credential) = caller(&guard.app, headers).await?;
    if guard.access == Access::Admin && !principal.is_admin() {
        return Err(ApiError::forbidden("This needs an admin"));
    }
    Ok((principal, credential))
}

/// The caller named by the request's headers.
pub async fn caller(app: &App, headers: &HeaderMap) -> Result<(Principal, Credential), ApiError> {
    let token = match principal::bearer(headers) {
        Some(token) => token,
        None if headers.contains_key(header::AUTHORIZATION) => return Err(ApiError::unauthenticated()),
        None => principal::socket_token(headers)
            .filter(|_| headers.contains_key(header::SEC_WEBSOCKET_KEY))
            .ok_or_else(ApiError::unauthenticated)?,
    };
    let principal = principal::identify(app, token).await?;
    Ok((principal, Credential(Some(SecretString::from(token)))))
}
