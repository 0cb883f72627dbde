//! What webhooks are told: a durable outbox, written in the transaction that changes the alert, sent by a task of its own that
//! sleeps until there is something to send.
//!
//! Always true here: each message is tried until it is taken or its time is over; a target gets its messages in order; the
//! same message carries the same `webhook-id`, so that a receiver can tell a repetition; what is sent is signed after Standard
//! Webhooks when there is a secret; the number of waiting messages is bounded.

use super::alerts::{self, Alert, Change, Reconciled};
use super::silences::Silences;
use crate::action::SharedSettings;
use crate::config::OpsConfig;
use crate::error::{EngineError, Result};
use crate::net;
use crate::standard_webhooks;
use crate::store::{Signal, Store, from_micros, to_micros};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use nexaas_common::backoff::Backoff;
use nexaas_common::clock::SharedClock;
use nexaas_common::secret::{ExposeSecret as _, SecretString};
use nexaas_common::task::{OnExit, Supervisor};
use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use url::Url;

const RETRY: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(3600));
const PATIENCE: Duration = Duration::from_secs(10);
/// A message that was not taken by then is not sent any more.
const LIFE: TimeDelta = TimeDelta::hours(24);
/// Waiting messages of one target; beyond it the oldest are given up.
const MOST_WAITING: u32 = 1000;
/// The secret's name in the settings, where the configuration has none.
const SECRET: &str = "OPS_WEBHOOK_SECRET";

/// Puts on their way what changed about alerts, as far as it is bad enough and not silenced.
pub(super) fn fill(
    tx: &Connection,
    config: &OpsConfig,
    tenant: &str,
    done: &mut Reconciled,
    now: DateTime<Utc>,
) -> Result<bool> {
    if config.webhooks.is_empty() {
        return Ok(false);
    }
    let silences = Silences::active(tx, now)?;
    let mut added = false;
    for alert in &mut done.open {
        let news = alert.gone_since.is_none() && alert.severity >= config.webhook_severity;
        if !news || alert.sent >= Some(alert.severity) {
            continue;
        }
        if let Some(until) = silences.until(alert) {
            done.next = Some(done.next.map_or(until, |next| next.min(until)));
            continue;
        }
        let change = if alert.sent.is_none() { Change::Raised } else { Change::Escalated };
        alert.sent = Some(alert.severity);
        added |= tell(tx, config, tenant, alert, change, now)?;
    }
    for alert in &mut done.resolved {
        // Whoever was told of its beginning is told of its end, silenced or not: it is no noise, it ends it.
        if alert.sent.take().is_some() {
            added |= tell(tx, config, tenant, alert, Change::Resolved, now)?;
        }
    }
    Ok(added)
}

fn tell(
    tx: &Connection,
    config: &OpsConfig,
    tenant: &str,
    alert: &Alert,
    change: Change,
    now: DateTime<Utc>,
) -> Result<bool> {
    alerts::mark_sent(tx, &alert.id, alert.sent)?;
    let id = message_id(alert, change);
    let body = body(tenant, alert, change, now);
    for url in &config.webhooks {
        add(tx, &id, &target(url), &body, now)?;
    }
    Ok(true)
}

/// The alert and what became of it; an alert that came back is told again under another id.
fn message_id(alert: &Alert, change: Change) -> String {
    let state = match change {
        Change::Raised | Change::Escalated => alert.severity.as_str(),
        Change::Resolved => "resolved",
    };
    match alert.flaps {
        0 => format!("{}.{state}", alert.id),
        flaps => format!("{}.{state}.{flaps}", alert.id),
    }
}

fn body(tenant: &str, alert: &Alert, change: Change, now: DateTime<Utc>) -> String {
    let at = now.to_rfc3339_opts(SecondsFormat::Secs, true);
    json!({"type": change.kind(), "timestamp": at, "tenant": tenant, "data": alert}).to_string()
}

fn target(url: &Url) -> String {
    hex::encode(&Sha256::digest(url.as_str().as_bytes())[..16])
}

fn add(tx: &Connection, id: &str, target: &str, body: &str, now: DateTime<Utc>) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO ops_outbox (id, target, body, state, next_at, created_at) VALUES (?1, ?2, ?3, 'waiting', ?4, ?4)
         ON CONFLICT (id, target) DO NOTHING",
    )?
    .execute(params![id, target, body, to_micros(now)])?;
    tx.prepare_cached(
        "UPDATE ops_outbox SET state = 'given_up', error = 'too many messages were waiting', done_at = ?3
         WHERE target = ?1 AND state = 'waiting' AND seq <= (
             SELECT seq FROM ops_outbox WHERE target = ?1 AND state = 'waiting' ORDER BY seq DESC LIMIT 1 OFFSET ?2)",
    )?
    .execute(params![target, MOST_WAITING, to_micros(now)])?;
    Ok(())
}

/// Sends what waits.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    pub store: Store,
    pub clock: SharedClock,
    pub settings: SharedSettings,
    pub config: OpsConfig,
    pub filled: Signal,
}

struct Waiting {
    seq: i64,
    id: String,
    body: String,
    attempts: u32,
    next_at: DateTime<Utc>,
    created_at: DateTime<Utc>,
}

impl Sender {
    pub fn start(self, supervisor: &Supervisor) {
        if !self.config.webhooks.is_empty() {
            supervisor.spawn("ops-outbox", OnExit::Shutdown, |token| self.run(token));
        }
    }

    async fn run(self, token: CancellationToken) {
        let mut filled = self.filled.listen();
        loop {
            filled.borrow_and_update();
            let next = tokio::select! {
                () = token.cancelled() => return,
                next = self.pass() => next,
            };
            let wait = match next {
                Ok(next) => next.map(|at| (at - self.clock.now()).to_std().unwrap_or_default()),
                Err(error) => {
                    tracing::error!(error = error.chain(), "messages about alerts cannot be looked up");
                    Some(RETRY.ceiling(4))
                }
            };
            let sleep = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = token.cancelled() => return,
                Ok(()) = filled.changed() => {}
                () = sleep => {}
            }
        }
    }

    /// Sends what is due; answers when the next message is.
    pub async fn pass(&self) -> Result<Option<DateTime<Utc>>> {
        self.give_up_strangers().await?;
        let mut next: Option<DateTime<Utc>> = None;
        for url in &self.config.webhooks {
            let target = target(url);
            while let Some(message) = self.head(target.clone()).await? {
                let now = self.clock.now();
                if message.next_at > now && message.next_at - now <= TimeDelta::hours(1) {
                    next = Some(next.map_or(message.next_at, |next| next.min(message.next_at)));
                    break;
                }
                let outcome = self.send(url, &message, now).await;
                self.record(message, outcome).await?;
            }
        }
        Ok(next)
    }

    async fn head(&self, target: String) -> Result<Option<Waiting>> {
        self.store
            .read(move |c| {
                let found = c
                    .prepare_cached(
                        "SELECT seq, id, body, attempts, next_at, created_at FROM ops_outbox
                         WHERE target = ?1 AND state = 'waiting' ORDER BY seq LIMIT 1",
                    )?
                    .query_row([target], |row| {
                        Ok(Waiting {
                            seq: row.get(0)?,
                            id: row.get(1)?,
                            body: row.get(2)?,
                            attempts: row.get(3)?,
                            next_at: from_micros(row.get(4)?),
                            created_at: from_micros(row.get(5)?),
                        })
                    })
                    .optional()?;
                Ok(found)
            })
            .await
    }

    async fn record(&self, message: Waiting, outcome: Result<(), String>) -> Result<()> {
        let now = self.clock.now();
        let (state, error) = match outcome {
            Ok(()) => ("sent", None),
            Err(why) if now - message.created_at >= LIFE => ("given_up", Some(why)),
            Err(why) => ("waiting", Some(why)),
        };
        if let Some(why) = &error {
            tracing::warn!(
                error = why,
                id = message.id,
                attempt = message.attempts + 1,
                state,
                "an alert could not be sent out"
            );
        }
        let next = now + TimeDelta::from_std(RETRY.delay(message.attempts)).unwrap_or_default();
        self.store
            .write(move |tx| {
                tx.prepare_cached(
                    "UPDATE ops_outbox SET state = ?2, error = ?3, attempts = attempts + 1, next_at = ?4, done_at = ?5
                     WHERE seq = ?1 AND state = 'waiting'",
                )?
                .execute(params![
                    message.seq,
                    state,
                    error,
                    to_micros(next),
                    (state != "waiting").then_some(to_micros(now))
                ])?;
                Ok(())
            })
            .await
    }

    /// Messages for addresses that the configuration no longer names.
    async fn give_up_strangers(&self) -> Result<()> {
        let known: Vec<String> = self.config.webhooks.iter().map(target).collect();
        let now = to_micros(self.clock.now());
        let known = serde_json::to_string(&known).map_err(EngineError::internal)?;
        let sql = "state = 'waiting' AND target NOT IN (SELECT value FROM json_each(?1))";
        let some = {
            let known = known.clone();
            self.store
                .read(move |c| {
                    Ok(c.prepare_cached(&format!("SELECT 1 FROM ops_outbox WHERE {sql}"))?.exists([known])?)
                })
                .await?
        };
        if some {
            self.store
                .write(move |tx| {
                    tx.execute(
                        &format!("UPDATE ops_outbox SET state = 'given_up', error = 'its address is no longer configured', done_at = ?2 WHERE {sql}"),
                        params![known, now],
                    )?;
                    Ok(())
                })
                .await?;
        }
        Ok(())
    }

    async fn send(&self, url: &Url, message: &Waiting, now: DateTime<Utc>) -> Result<(), String> {
        post(url, &message.id, &message.body, self.secret().as_ref(), now).await
    }

    fn secret(&self) -> Option<SecretString> {
        self.config.webhook_secret.clone().or_else(|| self.settings.load().as_ref()?.secrets.get(SECRET).cloned())
    }

    /// Tells of something that cannot be stored, once and without a second try: that the database is away.
    pub async fn send_unstored(&self, id: &str, alert: &Alert, tenant: &str, now: DateTime<Utc>) {
        let body = body(tenant, alert, Change::Raised, now);
        for url in &self.config.webhooks {
            if let Err(why) = post(url, id, &body, self.secret().as_ref(), now).await {
                tracing::error!(error = why, "an alert could not be sent out");
            }
        }
    }
}

/// The address comes from whoever runs the engine, not from a tenant: it may be private.
async fn post(
    url: &Url,
    id: &str,
    body: &str,
    secret: Option<&SecretString>,
    now: DateTime<Utc>,
) -> Result<(), String> {
    let text = |error: reqwest::Error| error.without_url().to_string();
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(net::client_tls().map_err(|error| error.to_string())?)
        .timeout(PATIENCE)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("nexaas/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(text)?;
    let stamp = now.timestamp().to_string();
    let mut request = client
        .post(url.clone())
        .header("content-type", "application/json")
        .header("webhook-id", id)
        .header("webhook-timestamp", &stamp)
        .body(body.to_owned());
    if let Some(secret) = secret {
        request = request.header("webhook-signature", sign(secret.expose_secret(), id, &stamp, body)?);
    }
    let status = request.send().await.map_err(text)?.status();
    if status.is_success() { Ok(()) } else { Err(format!("HTTP {}", status.as_u16())) }
}

/// The key that a secret stands for; here it has to say that it is one, by beginning with `whsec_`.
pub fn signing_key(secret: &str) -> Option<Vec<u8>> {
    standard_webhooks::key(secret).filter(|_| secret.starts_with(standard_webhooks::PREFIX))
}

fn sign(secret: &str, id: &str, stamp: &str, body: &str) -> Result<String, String> {
    let refused = || "the signing secret is not whsec_ and the base64 of 24 to 64 bytes".to_owned();
    let key = signing_key(secret).ok_or_else(refused)?;
    standard_webhooks::sign(&key, id, stamp, body.as_bytes()).ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Standard Webhooks specification's libraries.
    #[test]
    fn a_signature_is_as_the_convention_has_it() {
        let signature = sign(
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "1614265330",
            r#"{"test": 2432232314}"#,
        );
        assert_eq!(signature.unwrap(), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        for weak in ["", "secret", "whsec_", "whsec_YWJj", "whsec_%%%"] {
            assert!(sign(weak, "a", "1", "{}").is_err(), "{weak}");
        }
    }
}
