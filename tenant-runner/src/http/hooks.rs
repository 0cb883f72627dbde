//! Calls from outside that fire a stored event. What runs is what the event says, never what the call says; the body only
//! becomes data that the stored action may refer to.
//!
//! A sender proves itself by a key in the event's metadata: `secret` (signed after Standard Webhooks), `github_secret` (signed
//! as GitHub does) or `token` (shown as `Authorization: Bearer`, `X-Webhook-Token` or `?token=`); without one it takes the API
//! key or a user. Whoever proves nothing learns nothing: a wrong key, an event without keys and an event that does not exist
//! are answered alike, after the same work.

use super::error::{ApiError, ApiResult};
use super::extract::{Bytes, Path};
use super::guard;
use crate::app::App;
use crate::principal::{bearer, only};
use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use nexaas_common::secret::ExposeSecret as _;
use nexaas_engine::Kind;
use nexaas_engine::hooks::{Call, Delivered, Keys, LONGEST_CALL_ID, signature};
use nexaas_engine::schedule::ConditionType;
use serde_json::{Value, json};

/// What a key that is not there is compared as; nothing can be proven with these.
const NO_SECRET: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const NO_PROOF: &str = "This call needs a valid signature, token or API key";
const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-webhook-token");
/// How senders that do not sign name a call, if they do.
const CALL_IDS: [HeaderName; 3] = [
    HeaderName::from_static("webhook-id"),
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("x-github-delivery"),
];

/// A call from outside that fires a stored event.
#[utoipa::path(post, path = "/hooks/{id}", tag = "events", request_body(content = String, description = "JSON or text; data for the action"), params(("id" = String, Path, description = "The event"), ("token" = Option<String>, Query, description = "For senders that can neither sign nor set a header"), ("webhook-id" = Option<String>, Header, description = "The name of the call, which is taken once")), responses((status = 202, body = super::openapi::shapes::HookAnswer), (status = 200, body = super::openapi::shapes::HookAnswer, description = "A repetition"), (status = 429, body = super::openapi::shapes::Problem)))]
pub async fn receive(
    State(app): State<App>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    Bytes(body): Bytes,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let event = match app.engine().events().get(&id).await {
        Ok(event) => Some(event),
        Err(error) if error.kind == Kind::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    let settings = app.engine().settings();
    let keys = Keys::of(event.as_ref().and_then(|event| event.metadata.as_ref()), &settings.secrets);
    let shown = Shown { headers: &headers, query: query.as_deref(), body: &body };
    let proven = match shown.prove(&keys, app.clock().now().timestamp()) {
        Ok(call) => call,
        Err(why) => {
            if event.is_some() {
                tracing::info!(event = id, why, "a call was not proven by a key of its event");
            }
            match guard::caller(&app, &headers).await {
                Ok(_) => shown.call_id(),
                Err(error) if error.status() == StatusCode::UNAUTHORIZED => return Err(ApiError::unproven(NO_PROOF)),
                Err(error) => return Err(error),
            }
        }
    };
    let event = event.ok_or_else(|| ApiError::not_found("The event does not exist"))?;
    if event.condition_type != ConditionType::Webhook {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            "The event's condition_type is not webhook; use /api/events/{id}/trigger",
        ));
    }
    if proven.as_ref().is_some_and(|call| call.is_empty() || call.len() > LONGEST_CALL_ID) {
        return Err(ApiError::invalid("webhook-id", format!("must have 1 to {LONGEST_CALL_ID} characters")));
    }
    let payload = payload(&headers, &body)?;
    match app.engine().hooks().deliver(Call { event_id: id.clone(), id: proven, payload }).await? {
        Delivered::Fired(job) => Ok((StatusCode::ACCEPTED, Json(json!({ "id": id, "job_id": job })))),
        Delivered::Repeated(job) => Ok((StatusCode::OK, Json(json!({ "id": id, "job_id": job, "duplicate": true })))),
    }
}

/// What a sender shows to prove itself.
struct Shown<'a> {
    headers: &'a HeaderMap,
    query: Option<&'a str>,
    body: &'a [u8],
}

impl Shown<'_> {
    /// Answers the call's id, if it has one. A key that the event does not have is worked with all the same, so that the time
    /// an answer takes does not tell which keys there are.
    fn prove(&self, keys: &Keys, now_s: i64) -> Result<Option<String>, &'static str> {
        let mut why = "it shows no proof";
        if self.headers.contains_key(signature::STANDARD_WEBHOOKS) {
            let secret = keys.signing.as_ref().map_or(NO_SECRET, |secret| secret.expose_secret());
            match signature::verify(secret, self.headers, self.body, now_s) {
                Ok(id) if keys.signing.is_some() => return Ok(Some(id.to_owned())),
                Ok(_) => why = "the event has no secret",
                Err(error) => why = error,
            }
        }
        if self.headers.contains_key(signature::GITHUB) {
            let secret = keys.github.as_ref().map_or(NO_SECRET, |secret| secret.expose_secret());
            match signature::verify_github(secret, self.headers, self.body) {
                Ok(id) if keys.github.is_some() => return Ok(Some(id)),
                Ok(_) => why = "the event has no github_secret",
                Err(error) => why = error,
            }
        }
        if let Some(given) = self.token() {
            if keys.token.is_some_and(|token| token.is(&given)) {
                return Ok(self.call_id());
            }
            why = "its token is not the event's";
        }
        Err(why)
    }

    fn token(&self) -> Option<String> {
        let header = || bearer(self.headers).or_else(|| only(self.headers, &TOKEN_HEADER)).map(str::to_owned);
        header().or_else(|| {
            let pairs = url::form_urlencoded::parse(self.query?.as_bytes());
            let mut tokens = pairs.filter(|(name, _)| name == "token");
            // Two tokens are none.
            tokens.next().filter(|_| tokens.next().is_none()).map(|(_, token)| token.into_owned())
        })
    }

    /// The id that its sender gave the call, where no signature covers one.
    fn call_id(&self) -> Option<String> {
        CALL_IDS.iter().find_map(|name| only(self.headers, name)).map(str::to_owned)
    }
}

/// The body as data, by what it says to be and by nothing else: JSON is read, text stays text, and there is no third.
fn payload(headers: &HeaderMap, body: &[u8]) -> ApiResult<Option<Value>> {
    if body.is_empty() {
        return Ok(None);
    }
    match Content::of(headers) {
        Some(Content::Json) => {
            let value = serde_json::from_slice(body).map_err(|error| {
                ApiError::invalid("body", format!("must be JSON, as its content type says: {error}"))
            })?;
            Ok(Some(value))
        }
        Some(Content::Text) => match std::str::from_utf8(body) {
            Ok(text) => Ok(Some(Value::String(text.to_owned()))),
            Err(_) => Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body must be UTF-8")),
        },
        None => Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "The content type must be JSON, text, XML or a form, in UTF-8",
        )),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Json,
    Text,
}

impl Content {
    fn of(headers: &HeaderMap) -> Option<Self> {
        if !headers.contains_key(header::CONTENT_TYPE) {
            return Some(Self::Text);
        }
        let text = only(headers, &header::CONTENT_TYPE)?.to_ascii_lowercase();
        let mut parts = text.split(';').map(str::trim);
        let essence = parts.next()?;
        let utf8 = |charset: &str| matches!(charset.trim_matches('"'), "utf-8" | "utf8" | "us-ascii");
        if !parts.filter_map(|part| part.strip_prefix("charset=")).all(utf8) {
            return None;
        }
        match essence {
            "application/json" => Some(Self::Json),
            "application/x-www-form-urlencoded" | "application/xml" => Some(Self::Text),
            _ if essence.starts_with("application/") && essence.ends_with("+json") => Some(Self::Json),
            _ if essence.starts_with("application/") && essence.ends_with("+xml") => Some(Self::Text),
            _ if essence.strip_prefix("text/").is_some_and(|rest| !rest.is_empty()) => Some(Self::Text),
            _ => None,
        }
    }
}
