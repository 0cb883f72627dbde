//! Measures at most once per interval, and only while there is something to measure: after a look that finds nothing running
//! and nothing wrong it sleeps until something happens.

use super::alerts::{self, Alert, ESCALATED};
use super::{Ops, policy};
use crate::error::{EngineError, Result};
use crate::net;
use nexaas_common::backoff::Backoff;
use nexaas_common::task::{OnExit, Supervisor};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const ESCALATION_TRIES: u32 = 3;
const ESCALATION_WAIT: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
const ESCALATION_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn start(ops: Ops, supervisor: &Supervisor) {
    supervisor.spawn("ops-monitor", OnExit::Shutdown, |token| run(ops, token));
}

async fn run(ops: Ops, token: CancellationToken) {
    let mut happened = ops.sources.bus.listen();
    loop {
        let (busy, critical) = match ops.look().await {
            Ok(seen) => seen,
            Err(error) => {
                tracing::error!(error = error.chain(), "the ops monitor cannot measure");
                (true, Vec::new())
            }
        };
        if !critical.is_empty() {
            tokio::select! {
                () = token.cancelled() => return,
                () = ops.escalate(&critical) => {}
            }
        }
        // What the look itself published is no reason for another one.
        happened.borrow_and_update();
        tokio::select! {
            () = token.cancelled() => return,
            () = tokio::time::sleep(ops.config.interval) => {}
        }
        if !busy {
            tokio::select! {
                () = token.cancelled() => return,
                Ok(()) = happened.changed() => {}
            }
        }
    }
}

impl Ops {
    /// One look: whether another one is worth while even if nothing happens, and what is new and critical.
    pub(super) async fn look(&self) -> Result<(bool, Vec<Alert>)> {
        let now = self.sources.clock.now();
        let findings = policy::judge(&self.readings(now).await?, &self.limits());
        let bus = self.sources.bus.clone();
        let running = self.sources.queue.counts().running > 0;
        self.sources
            .store
            .write(move |tx| {
                let raised = alerts::reconcile(tx, &bus, &findings, now)?;
                let critical = raised.into_iter().filter(|alert| alert.severity == ESCALATED.as_str()).collect();
                Ok((running || alerts::any_open(tx)?, critical))
            })
            .await
    }

    async fn escalate(&self, alerts: &[Alert]) {
        let Some(url) = &self.config.webhook_url else { return };
        let body = serde_json::json!({"alerts": alerts}).to_string();
        for attempt in 0..ESCALATION_TRIES {
            match send(url.clone(), body.clone()).await {
                Ok(()) => return,
                Err(error) => tracing::error!(error = error.chain(), attempt, "an alert could not be sent out"),
            }
            tokio::time::sleep(ESCALATION_WAIT.delay(attempt)).await;
        }
    }
}

/// The address comes from whoever runs the engine, not from a tenant: it may be private.
async fn send(url: url::Url, body: String) -> Result<()> {
    let fail = |error: reqwest::Error| {
        EngineError::unavailable("The address for alerts does not answer").with_source(error.without_url())
    };
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(net::client_tls().map_err(EngineError::internal)?)
        .timeout(ESCALATION_TIMEOUT)
        .build()
        .map_err(fail)?;
    let request = client.post(url).header("content-type", "application/json").body(body);
    request.send().await.and_then(reqwest::Response::error_for_status).map_err(fail)?;
    Ok(())
}
