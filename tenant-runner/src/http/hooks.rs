//! Calls from outside that fire a stored event. What runs is what the event says, never what the call says; the
//! body only becomes data that the stored action may refer to. An event with
//! a secret in its metadata (`{"secret": "whsec_…"}`, or `"${NAME}"` for one of the tenant's secrets) takes calls signed
//! after Standard Webhooks; any other needs the API key or a user. A caller without either learns nothing about which
//! events exist.

use super::error::{ApiError, ApiResult};
use super::extract::Path;
use super::{guard, signature};
use crate::app::App;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use nexaas_common::secret::ExposeSecret as _;
use nexaas_engine::Kind;
use nexaas_engine::schedule::ConditionType;
use serde_json::{Value, json};

/// The event's secret, with a reference to the tenant's secrets resolved.
fn secret(app: &App, metadata: &Value) -> Option<String> {
    let text = metadata.get("secret")?.as_str()?;
    match text.strip_prefix("${").and_then(|t| t.strip_suffix('}')) {
        // A reference to nothing is a secret that nobody knows, not the absence of one.
        Some(name) => {
            Some(app.engine().settings().secrets.get(name).map(|s| s.expose_secret().to_owned()).unwrap_or_default())
        }
        None => Some(text.to_owned()),
    }
}

/// The body as data: JSON if it says so, else text.
fn payload(headers: &HeaderMap, body: &Bytes) -> ApiResult<Option<Value>> {
    if body.is_empty() {
        return Ok(None);
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence == "application/json" || essence.ends_with("+json") {
        let value = serde_json::from_slice(body)
            .map_err(|e| ApiError::new(StatusCode::BAD_REQUEST, format!("The body is not JSON: {e}")))?;
        return Ok(Some(value));
    }
    match std::str::from_utf8(body) {
        Ok(text) => Ok(Some(Value::String(text.to_owned()))),
        Err(_) => Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body must be JSON or UTF-8 text")),
    }
}

pub async fn receive(
    State(app): State<App>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let event = match app.engine().events().get(&id).await {
        Ok(event) => Some(event),
        Err(error) if error.kind == Kind::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    let secret = event.as_ref().and_then(|e| secret(&app, e.metadata.as_ref()?));
    let now = app.clock().now().timestamp();
    let call = match &secret {
        Some(secret) if headers.contains_key("webhook-signature") => Some(
            signature::verify(secret, &headers, &body, now)
                .map_err(|why| ApiError::new(StatusCode::UNAUTHORIZED, format!("The signature was refused: {why}")))?,
        ),
        _ => {
            guard::caller(&app, &headers).await?;
            None
        }
    };
    let event = event.ok_or_else(|| ApiError::not_found("The event does not exist"))?;
    if event.condition_type != ConditionType::Webhook {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            "The event's condition_type is not webhook; use /api/events/{id}/trigger",
        ));
    }
    let payload = payload(&headers, &body)?;
    if let Some(call) = call
        && !app.hooks_seen().first(&id, call, now)
    {
        return Ok((StatusCode::OK, Json(json!({ "id": id, "duplicate": true }))));
    }
    match app.engine().events().deliver(&id, payload).await {
        Ok(job) => Ok((StatusCode::ACCEPTED, Json(json!({ "id": id, "job_id": job })))),
        Err(error) => {
            if let Some(call) = call {
                app.hooks_seen().forget(&id, call);
            }
            Err(error.into())
        }
    }
}
