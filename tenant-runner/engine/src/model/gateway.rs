//! The gateway itself: chooses the backend, keeps the books around the call, and is the only holder of the HTTP client for models.

use super::ledger::{self, Settled};
use super::{ANTHROPIC_KEY, Call, Completion, anthropic, offline};
use crate::config::Settings;
use crate::error::{EngineError, Result};
use crate::store::Store;
use crate::workspace::Workspace;
use arc_swap::ArcSwapOption;
use nexaas_common::clock::SharedClock;
use nexaas_common::id::BootId;
use nexaas_common::secret::{ExposeSecret as _, SecretString};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OnceCell, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use url::Url;

/// Calls that run at once; more wait.
const MOST_CALLS: usize = 16;
const TURN_WITHIN: Duration = Duration::from_secs(120);
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Clones share one gateway.
#[derive(Debug, Clone)]
pub struct Gateway(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Arc<ArcSwapOption<Settings>>,
    workspace: Workspace,
    store: Store,
    clock: SharedClock,
    boot: BootId,
    base_url: Url,
    /// Made for the first call that leaves the process: certificate authorities take memory.
    http: OnceCell<reqwest::Client>,
    turns: Semaphore,
}

fn http_client() -> Result<reqwest::Client> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(crate::net::client_tls().map_err(EngineError::internal)?)
        .connect_timeout(CONNECT_WITHIN)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("nexaas/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(EngineError::internal)
}

impl Gateway {
    pub(crate) async fn open(
        settings: Arc<ArcSwapOption<Settings>>,
        workspace: Workspace,
        store: Store,
        clock: SharedClock,
        boot: BootId,
        base_url: Url,
    ) -> Result<Self> {
        let interrupted = store.write(move |tx| ledger::recover(tx, boot)).await?;
        if interrupted > 0 {
            tracing::warn!(
                interrupted,
                "model calls of an earlier process were left open; their input is counted as sent"
            );
        }
        let turns = Semaphore::new(MOST_CALLS);
        Ok(Self(Arc::new(Inner { settings, workspace, store, clock, boot, base_url, http: OnceCell::new(), turns })))
    }

    fn key(&self) -> Option<SecretString> {
        let settings = self.0.settings.load();
        settings.as_ref()?.secrets.get(ANTHROPIC_KEY).filter(|k| !k.expose_secret().trim().is_empty()).cloned()
    }

    async fn http(&self) -> Result<&reqwest::Client> {
        let make = || async { tokio::task::spawn_blocking(http_client).await.map_err(EngineError::internal)? };
        self.0.http.get_or_try_init(make).await
    }

    /// Whether a model would really be asked.
    pub fn is_offline(&self) -> bool {
        self.key().is_none()
    }

    /// Runs one call. Pieces of the answer go to `sink` as they come; when nobody reads them any more, the call goes on.
    pub async fn run(&self, call: Call, sink: mpsc::Sender<String>, cancel: &CancellationToken) -> Result<Completion> {
        let span = tracing::info_span!(
            "model_call",
            otel.name = format!("chat {}", call.model),
            otel.kind = "client",
            gen_ai.operation.name = "chat",
            gen_ai.provider.name = tracing::field::Empty,
            gen_ai.request.model = call.model,
            gen_ai.response.model = tracing::field::Empty,
            gen_ai.agent.name = call.origin.agent,
            gen_ai.conversation.id = call.origin.session_id,
            gen_ai.usage.input_tokens = tracing::field::Empty,
            gen_ai.usage.output_tokens = tracing::field::Empty,
        );
        self.run_in_span(call, sink, cancel, &span).instrument(span.clone()).await
    }

    async fn run_in_span(
        &self,
        call: Call,
        sink: mpsc::Sender<String>,
        cancel: &CancellationToken,
        span: &tracing::Span,
    ) -> Result<Completion> {
        let inner = &self.0;
        let layout = inner.workspace.snapshot();
        let workspace = layout.layout.name.clone();
        let Some(key) = self.key() else {
            span.record("gen_ai.provider.name", "offline");
            let completion = offline::run(&call, &sink).await;
            self.settle(None, workspace, &call, &completion.model, "offline", completion.usage, "ok").await?;
            return Ok(completion);
        };
        span.record("gen_ai.provider.name", "anthropic");
        let _turn = tokio::time::timeout(TURN_WITHIN, inner.turns.acquire())
            .await
            .map_err(|_| EngineError::unavailable("Too many model calls are running"))?
            .map_err(EngineError::internal)?;
        let http = self.http().await?;
        let budget = layout.layout.monthly_budget_usd;
        let reservation =
            ledger::reserve(&inner.store, inner.boot, workspace.clone(), &call, budget, inner.clock.now()).await?;
        let client = anthropic::Client { http, base_url: &inner.base_url, key: &key };
        let started = std::time::Instant::now();
        let outcome = client.run(&call, &sink, cancel).await;
        metrics::histogram!("gen_ai_client_operation_duration_seconds").record(started.elapsed().as_secs_f64());
        match outcome {
            Ok(completion) => {
                let usage = completion.usage;
                let input = usage.input_tokens + usage.cache_creation_tokens + usage.cache_read_tokens;
                span.record("gen_ai.response.model", completion.model.as_str());
                span.record("gen_ai.usage.input_tokens", input);
                span.record("gen_ai.usage.output_tokens", usage.output_tokens);
                self.settle(Some(reservation), workspace, &call, &completion.model, "anthropic", usage, "ok").await?;
                Ok(completion)
            }
            Err(failed) => {
                self.settle(Some(reservation), workspace, &call, &call.model, "anthropic", failed.usage, "failed")
                    .await?;
                Err(failed.error)
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one row of the books has this many columns")]
    async fn settle(
        &self,
        reservation: Option<ledger::Reservation>,
        workspace: String,
        call: &Call,
        model: &str,
        backend: &'static str,
        usage: super::TokenUsage,
        outcome: &'static str,
    ) -> Result<()> {
        let settled = Settled { backend, model, usage, outcome };
        ledger::settle(&self.0.store, reservation, workspace, call, settled, self.0.clock.now()).await
    }
}
