//! Calls to the outside. A call succeeds when, after at most a few redirects, the answer is 2xx.
//!
//! Always true here: every connection goes through the guard; the attempt's id is in `Idempotency-Key` and `webhook-id`, so a
//! receiver can tell a repetition; secrets and signatures never follow a redirect to another origin.

use super::config::Webhook;
use super::guard::Refused;
use super::template::{self, Values};
use super::{Failure, Guard};
use crate::config::Settings;
use crate::error::{EngineError, Result};
use crate::net;
use crate::queue::Claimed;
use base64::Engine as _;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit as _, Mac as _};
use nexaas_common::secret::ExposeSecret as _;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Client, Method, Response, StatusCode};
use sha2::Sha256;
use std::time::Duration;
use url::Url;

const MOST_REDIRECTS: usize = 5;
/// Read of an answer; the rest is not taken from the network.
const LONGEST_ANSWER: usize = 64 * 1024;
const CONNECT: Duration = Duration::from_secs(10);

const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

#[derive(Debug)]
pub(super) struct Webhooks {
    client: Client,
    guard: Guard,
}

/// One request on its way, as redirects change it.
struct Call {
    url: Url,
    method: Method,
    /// Of the definition: they stay at the origin they were meant for.
    headers: HeaderMap,
    body: Option<Bytes>,
}

impl Webhooks {
    pub(super) fn new(guard: Guard) -> Result<Self> {
        let client = Client::builder()
            .tls_backend_preconfigured(net::client_tls().map_err(EngineError::internal)?)
            .dns_resolver(guard.clone())
            // A proxy would be asked to go where the guard forbids.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .user_agent(concat!("nexaas/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(EngineError::internal)?;
        Ok(Self { client, guard })
    }

    pub(super) async fn send(
        &self,
        webhook: &Webhook,
        job: &Claimed,
        values: &Values,
        settings: &Settings,
        now: DateTime<Utc>,
    ) -> Result<String, Failure> {
        let body = webhook.body.as_ref().map(|body| Bytes::from(template::fill(body, values).to_string()));
        let mut headers = own_headers(job, body.is_some());
        for (name, text) in &webhook.headers {
            headers.insert(name, header(name, &with_secrets(text, settings)?)?);
        }
        if let Some(name) = &webhook.signing_secret {
            let key = secret(name, settings)?;
            let stamp = now.timestamp().to_string();
            let signature = sign(&key, &job.attempt_id.to_string(), &stamp, body.as_deref().unwrap_or_default())?;
            headers.insert(TIMESTAMP, header(&TIMESTAMP, &stamp)?);
            headers.insert(SIGNATURE, header(&SIGNATURE, &signature)?);
        }
        let call = Call { url: webhook.url.clone(), method: webhook.method.clone(), headers, body };
        tokio::time::timeout(webhook.timeout, self.follow(call, job))
            .await
            .map_err(|_| Failure::passing(format!("no answer within {} s", webhook.timeout.as_secs())))?
    }

    async fn follow(&self, mut call: Call, job: &Claimed) -> Result<String, Failure> {
        for _ in 0..=MOST_REDIRECTS {
            self.guard.check_url(&call.url).map_err(|refused| Failure::permanent(refused.to_string()))?;
            let mut headers = call.headers.clone();
            nexaas_common::telemetry::inject(&mut headers);
            let mut request = self.client.request(call.method.clone(), call.url.clone()).headers(headers);
            if let Some(body) = &call.body {
                request = request.body(body.clone());
            }
            let response = request.send().await.map_err(failure)?;
            let status = response.status();
            match response.headers().get(LOCATION) {
                Some(location) if status.is_redirection() => call = call.redirected(status, location, job)?,
                _ => return answer(status, response).await,
            }
        }
        Err(Failure::passing(format!("more than {MOST_REDIRECTS} redirects")))
    }
}

impl Call {
    fn redirected(mut self, status: StatusCode, location: &HeaderValue, job: &Claimed) -> Result<Self, Failure> {
        let target = location
            .to_str()
            .ok()
            .and_then(|location| self.url.join(location).ok())
            .filter(|url| matches!(url.scheme(), "http" | "https"))
            .ok_or_else(|| {
                Failure::passing(format!("HTTP {} to a place that is not a web address", status.as_u16()))
            })?;
        if self.url.scheme() == "https" && target.scheme() == "http" {
            return Err(Failure::passing(format!("HTTP {} from https to http is not followed", status.as_u16())));
        }
        let keeps_method = matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
        if !keeps_method && self.method != Method::GET {
            self.method = Method::GET;
            self.body = None;
            self.headers.remove(CONTENT_TYPE);
        }
        if self.url.origin() != target.origin() {
            self.headers = own_headers(job, self.body.is_some());
        }
        self.url = target;
        Ok(self)
    }
}

fn own_headers(job: &Claimed, has_body: bool) -> HeaderMap {
    let mut headers = HeaderMap::new();
    // An id is hexadecimal digits and dashes, which a header can always hold.
    if let Ok(id) = HeaderValue::from_str(&job.attempt_id.to_string()) {
        headers.insert("idempotency-key", id.clone());
        headers.insert("webhook-id", id);
    }
    if has_body {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    headers
}

async fn answer(status: StatusCode, mut response: Response) -> Result<String, Failure> {
    let mut body = Vec::new();
    while body.len() < LONGEST_ANSWER {
        match response.chunk().await.map_err(failure)? {
            Some(chunk) => body.extend_from_slice(&chunk[..chunk.len().min(LONGEST_ANSWER - body.len())]),
            None => break,
        }
    }
    let text = String::from_utf8_lossy(&body);
    let text = text.trim();
    let line = format!("HTTP {}", status.as_u16());
    match (status.is_success(), text.is_empty()) {
        (true, true) => Ok(line),
        (true, false) => Ok(text.to_owned()),
        (false, true) => Err(Failure::passing(line)),
        (false, false) => Err(Failure::passing(format!("{line}: {text}"))),
    }
}

/// The innermost cause says what happened; the URL may hold a token and stays out.
fn failure(error: reqwest::Error) -> Failure {
    let error = error.without_url();
    let mut cause: &(dyn std::error::Error + 'static) = &error;
    loop {
        if let Some(refused) = cause.downcast_ref::<Refused>() {
            return Failure::permanent(refused.to_string());
        }
        match cause.source() {
            Some(next) => cause = next,
            None => break,
        }
    }
    Failure::passing(format!("the call failed: {cause}"))
}

fn header(name: &HeaderName, text: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::from_str(text).map_err(|_| Failure::permanent(format!("the header {name} cannot hold its value")))
}

/// Fills `${NAME}` from the settings' secrets.
fn with_secrets(text: &str, settings: &Settings) -> Result<String, Failure> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, after)) = after.split_once('}') else { break };
        filled.push_str(before);
        filled.push_str(&secret(name, settings)?);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

fn secret(name: &str, settings: &Settings) -> Result<String, Failure> {
    let value = settings.secrets.get(name).map(|secret| secret.expose_secret().to_owned());
    value.ok_or_else(|| Failure::permanent(format!("the secret {name} is not set")))
}

/// The signature of the Standard Webhooks convention. A secret that is not in its form is used as it stands.
fn sign(secret: &str, id: &str, stamp: &str, body: &[u8]) -> Result<String, Failure> {
    let base64 = base64::engine::general_purpose::STANDARD;
    let key = match secret.strip_prefix("whsec_") {
        Some(text) => base64.decode(text).map_err(|_| Failure::permanent("the signing secret is not valid base64"))?,
        None => secret.as_bytes().to_vec(),
    };
    let mut mac =
        Hmac::<Sha256>::new_from_slice(&key).map_err(|_| Failure::permanent("the signing secret cannot be used"))?;
    mac.update(id.as_bytes());
    mac.update(b".");
    mac.update(stamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    Ok(format!("v1,{}", base64.encode(mac.finalize().into_bytes())))
}
