//! Calls to the outside. A call succeeds when, after at most a few redirects, the answer is 2xx.
//!
//! Always true here: every connection goes through the guard; the attempt's id is in `Idempotency-Key` and `webhook-id`, so a
//! receiver can tell a repetition; secrets and signatures never follow a redirect to another origin.

use super::config::Webhook;
use super::guard::Refused;
use super::secrets::{secret, with_secrets};
use super::template::{self, Values};
use super::{Failure, Guard, Run};
use crate::config::Settings;
use crate::error::{EngineError, Result};
use crate::net;
use crate::standard_webhooks;
use base64::Engine as _;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Client, Method, Response, StatusCode};
use std::time::Duration;
use url::Url;

const MOST_REDIRECTS: usize = 5;
/// Read of an answer; the rest is not taken from the network.
const LONGEST_ANSWER: usize = 64 * 1024;
/// A receiver may put us off for so long, and no longer.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);
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
        run: &Run<'_>,
        values: &Values,
        settings: &Settings,
        now: DateTime<Utc>,
    ) -> Result<String, Failure> {
        let body = match &webhook.body {
            Some(body) => Some(Bytes::from(template::fill(body, values)?.to_string())),
            None => None,
        };
        let mut headers = own_headers(run, body.is_some());
        for (name, text) in &webhook.headers {
            headers.insert(name, header(name, &with_secrets(text, settings)?)?);
        }
        if let Some(name) = &webhook.signing_secret {
            let key = secret(name, settings)?;
            let stamp = now.timestamp().to_string();
            let signature =
                standard_webhooks::sign(&signing_key(&key)?, &run.key, &stamp, body.as_deref().unwrap_or_default())
                    .ok_or_else(|| Failure::permanent("the signing secret cannot be used"))?;
            headers.insert(TIMESTAMP, header(&TIMESTAMP, &stamp)?);
            headers.insert(SIGNATURE, header(&SIGNATURE, &signature)?);
        }
        let call = Call { url: webhook.url.clone(), method: webhook.method.clone(), headers, body };
        tokio::time::timeout(webhook.timeout, self.follow(call, run, now))
            .await
            .map_err(|_| Failure::passing(format!("no answer within {} s", webhook.timeout.as_secs())))?
    }

    async fn follow(&self, mut call: Call, run: &Run<'_>, now: DateTime<Utc>) -> Result<String, Failure> {
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
                Some(location) if status.is_redirection() => call = call.redirected(status, location, run)?,
                _ => return answer(status, response, now).await,
            }
        }
        Err(Failure::passing(format!("more than {MOST_REDIRECTS} redirects")))
    }
}

impl Call {
    fn redirected(mut self, status: StatusCode, location: &HeaderValue, run: &Run<'_>) -> Result<Self, Failure> {
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
            // The signature is of a body that is no longer sent.
            for name in [CONTENT_TYPE, TIMESTAMP, SIGNATURE] {
                self.headers.remove(name);
            }
        }
        if self.url.origin() != target.origin() {
            self.headers = own_headers(run, self.body.is_some());
        }
        self.url = target;
        Ok(self)
    }
}

fn own_headers(run: &Run<'_>, has_body: bool) -> HeaderMap {
    let mut headers = HeaderMap::new();
    // It is made of hexadecimal digits and dashes, which a header can always hold.
    if let Ok(id) = HeaderValue::from_str(&run.key) {
        headers.insert("idempotency-key", id.clone());
        headers.insert("webhook-id", id);
    }
    if has_body {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    headers
}

async fn answer(status: StatusCode, mut response: Response, now: DateTime<Utc>) -> Result<String, Failure> {
    let retry_after = retry_after(response.headers(), now);
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
        (false, true) => Err(Failure::passing(line).after(retry_after)),
        (false, false) => Err(Failure::passing(format!("{line}: {text}")).after(retry_after)),
    }
}

/// When the receiver asks to be called again, in seconds or as a date; nonsense is no wish.
fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => (DateTime::parse_from_rfc2822(text).ok()?.with_timezone(&Utc) - now).to_std().ok()?,
    };
    Some(wait.min(LONGEST_WAIT))
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

/// The key that signs. A secret that is not in the convention's form is used as it stands.
fn signing_key(secret: &str) -> Result<Vec<u8>, Failure> {
    match secret.strip_prefix(standard_webhooks::PREFIX) {
        Some(text) => base64::engine::general_purpose::STANDARD
            .decode(text)
            .map_err(|_| Failure::permanent("the signing secret is not valid base64")),
        None => Ok(secret.as_bytes().to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_for_a_later_call_is_seconds_or_a_date_and_never_beyond_a_day() {
        let now = crate::testing::utc("2026-01-01T00:00:00Z");
        for (text, seconds) in [
            ("120", Some(120)),
            ("0", Some(0)),
            ("99999999", Some(24 * 3600)),
            ("Thu, 01 Jan 2026 00:01:30 GMT", Some(90)),
            ("Wed, 31 Dec 2025 00:00:00 GMT", None),
            ("soon", None),
            ("-5", None),
            ("", None),
        ] {
            let headers: HeaderMap = [(RETRY_AFTER, HeaderValue::from_static(text))].into_iter().collect();
            assert_eq!(retry_after(&headers, now).map(|wait| wait.as_secs()), seconds, "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
