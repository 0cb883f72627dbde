//! The Anthropic Messages API: one streaming call, with the retries the API asks for.
//!
//! Always true here: a call is retried only while nothing of its answer was passed on; token counts in the stream are
//! cumulative and replace each other; unknown event types are skipped.

use super::{Call, Completion, Stop, TokenUsage};
use crate::error::{EngineError, Kind, Result};
use eventsource_stream::Eventsource as _;
use futures::StreamExt as _;
use nexaas_common::backoff::Backoff;
use nexaas_common::secret::{ExposeSecret as _, SecretString};
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use url::Url;

const VERSION: &str = "2023-06-01";
const MOST_ATTEMPTS: u32 = 5;
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(8));
/// A server that asks for more patience than this is not waited for.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Silence on an open stream; the API sends pings while it thinks.
const SILENCE: Duration = Duration::from_secs(90);
const HEADERS_WITHIN: Duration = Duration::from_secs(120);
/// Caching the instructions pays from about this size on; below it the API ignores the mark.
const CACHE_FROM_TOKENS: u64 = 1_024;
const LARGEST_ANSWER: usize = 4 * 1024 * 1024;

/// Everything a call needs.
pub(super) struct Client<'a> {
    pub http: &'a reqwest::Client,
    pub base_url: &'a Url,
    pub key: &'a SecretString,
}

/// A call that failed, with what it cost nevertheless.
#[derive(Debug)]
pub(super) struct Failed {
    pub error: EngineError,
    pub usage: TokenUsage,
}

/// What became of one attempt.
enum Attempt {
    Done(Box<Completion>),
    Retry { error: EngineError, after: Option<Duration> },
    Give(Failed),
}

impl Attempt {
    fn give(error: EngineError) -> Self {
        Self::Give(Failed { error, usage: TokenUsage::default() })
    }
}

fn body(call: &Call) -> Value {
    let mut system = json!({"type": "text", "text": call.system});
    if super::estimate_tokens(&call.system) >= CACHE_FROM_TOKENS {
        system["cache_control"] = json!({"type": "ephemeral"});
    }
    let mut body = json!({
        "model": call.model,
        "max_tokens": call.max_tokens,
        "stream": true,
        "messages": call.messages,
    });
    if !call.system.is_empty() {
        body["system"] = json!([system]);
    }
    body
}

fn endpoint(base: &Url) -> Url {
    let mut url = base.clone();
    let path = format!("{}/v1/messages", base.path().trim_end_matches('/'));
    url.set_path(&path);
    url
}

impl Client<'_> {
    /// Runs the call; pieces of the answer go to `sink` as they come.
    pub async fn run(
        &self,
        call: &Call,
        sink: &mpsc::Sender<String>,
        cancel: &CancellationToken,
    ) -> Result<Completion, Failed> {
        let body = body(call);
        let mut attempt = 0;
        loop {
            let outcome = self.attempt(call, &body, sink, cancel).await;
            let (error, after) = match outcome {
                Attempt::Done(completion) => return Ok(*completion),
                Attempt::Give(failed) => return Err(failed),
                Attempt::Retry { error, after } => (error, after),
            };
            let wait = after.unwrap_or_else(|| BACKOFF.delay(attempt));
            attempt += 1;
            if attempt >= MOST_ATTEMPTS || wait > LONGEST_WAIT {
                return Err(Failed { error, usage: TokenUsage::default() });
            }
            tracing::warn!(
                attempt,
                wait_ms = wait.as_millis() as u64,
                error = error.chain(),
                "the model did not answer; trying again"
            );
            metrics::counter!("nexaas_model_retries_total").increment(1);
            tokio::select! {
                () = cancel.cancelled() => return Err(Failed { error: cancelled(), usage: TokenUsage::default() }),
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn attempt(
        &self,
        call: &Call,
        body: &Value,
        sink: &mpsc::Sender<String>,
        cancel: &CancellationToken,
    ) -> Attempt {
        let sending = self
            .http
            .post(endpoint(self.base_url))
            .header("x-api-key", self.key.expose_secret())
            .header("anthropic-version", VERSION)
            .json(body)
            .send();
        let sent = tokio::select! {
            biased;
            () = cancel.cancelled() => return Attempt::give(cancelled()),
            sent = tokio::time::timeout(HEADERS_WITHIN, sending) => sent,
        };
        let response = match sent {
            Err(_) => {
                return Attempt::Retry { error: unreachable("The model's server did not answer in time"), after: None };
            }
            Ok(Err(error)) if error.is_builder() => {
                // The only thing that comes from outside here is the key, which must fit into a header.
                return Attempt::give(
                    EngineError::unavailable("The model call cannot be built; is the API key valid?")
                        .with_source(error.without_url()),
                );
            }
            Ok(Err(error)) => {
                let error = unreachable("The model's server cannot be reached").with_source(error.without_url());
                return Attempt::Retry { error, after: None };
            }
            Ok(Ok(response)) => response,
        };
        let status = response.status().as_u16();
        if status != 200 {
            let (retry, after) = (should_retry(status, response.headers()), retry_after(response.headers()));
            let text = tokio::time::timeout(Duration::from_secs(10), limited_text(response)).await.unwrap_or_default();
            let error = refused(status, &api_message(&text));
            return if retry { Attempt::Retry { error, after } } else { Attempt::give(error) };
        }
        self.stream(call, response, sink, cancel).await
    }

    async fn stream(
        &self,
        call: &Call,
        response: reqwest::Response,
        sink: &mpsc::Sender<String>,
        cancel: &CancellationToken,
    ) -> Attempt {
        let mut events = response.bytes_stream().eventsource();
        let mut answer = Answer::new(call);
        loop {
            let next = tokio::select! {
                biased;
                () = cancel.cancelled() => return answer.failed(cancelled()),
                next = tokio::time::timeout(SILENCE, events.next()) => next,
            };
            let next = match next {
                Err(_) => return answer.broke_off(unreachable("The model fell silent")),
                Ok(None) => return answer.broke_off(unreachable("The model's answer ended early")),
                Ok(Some(Err(error))) => {
                    return answer
                        .broke_off(unreachable("The model's answer broke off").with_source(error.to_string()));
                }
                Ok(Some(Ok(event))) => event,
            };
            match answer.take(&next.data) {
                Step::Nothing => {}
                Step::Text(text) => {
                    // Whoever watched has left; the call goes on, since it is paid for and stored.
                    let _ = sink.send(text).await;
                }
                Step::Done => return Attempt::Done(Box::new(answer.completion)),
                Step::Failed(kind, message) => {
                    let error = EngineError::unavailable(format!("The model failed: {message}"));
                    return if retryable_kind(&kind) { answer.broke_off(error) } else { answer.failed(error) };
                }
            }
        }
    }
}

fn cancelled() -> EngineError {
    EngineError::conflict("The model call was cancelled")
}

fn unreachable(message: &str) -> EngineError {
    EngineError::unavailable(message)
}

fn retryable_kind(kind: &str) -> bool {
    matches!(kind, "overloaded_error" | "api_error" | "rate_limit_error" | "timeout_error")
}

/// Whether the API wants to be asked again. It may say so itself; a 429 without a time to come back is a spend limit.
fn should_retry(status: u16, headers: &HeaderMap) -> bool {
    match headers.get("x-should-retry").and_then(|v| v.to_str().ok()) {
        Some("true") => true,
        Some("false") => false,
        _ if status == 429 => retry_after(headers).is_some(),
        _ => matches!(status, 408 | 409) || status >= 500,
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let number = |name: &str| {
        headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0)
    };
    let seconds = number("retry-after-ms").map(|ms| ms / 1000.0).or_else(|| number("retry-after"))?;
    Duration::try_from_secs_f64(seconds).ok()
}

async fn limited_text(response: reqwest::Response) -> String {
    const ENOUGH: usize = 16 * 1024;
    let mut bytes = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(Ok(piece)) = stream.next().await {
        bytes.extend_from_slice(&piece);
        if bytes.len() > ENOUGH {
            break;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `error.message` of an error answer, else nothing: other bodies come from proxies and help nobody.
fn api_message(text: &str) -> String {
    let message =
        serde_json::from_str::<Value>(text).ok().and_then(|v| v["error"]["message"].as_str().map(str::to_owned));
    message.unwrap_or_default().chars().take(300).collect()
}

fn refused(status: u16, message: &str) -> EngineError {
    let with = |text: &str| if message.is_empty() { text.to_owned() } else { format!("{text}: {message}") };
    match status {
        400 | 413 | 422 => EngineError::new(
            Kind::Invalid { field: "message".to_owned() },
            with("The model does not accept this message"),
        ),
        401 | 403 => EngineError::unavailable(with("The model's server refuses the API key")),
        404 => EngineError::new(Kind::Invalid { field: "model".to_owned() }, with("The model does not exist")),
        429 => EngineError::rate_limited(60, with("The model's server limits the rate or the spending")),
        _ => EngineError::unavailable(with(&format!("The model's server answered {status}"))),
    }
}

/// The answer as far as it has come.
struct Answer {
    completion: Completion,
    /// Whether anything was passed on.
    begun: bool,
}

enum Step {
    Nothing,
    Text(String),
    Done,
    Failed(String, String),
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    message: Value,
    #[serde(default)]
    delta: Value,
    #[serde(default)]
    usage: Value,
    #[serde(default)]
    error: Value,
}

impl Answer {
    fn new(call: &Call) -> Self {
        let completion = Completion {
            text: String::new(),
            usage: TokenUsage::default(),
            stop: Stop::Other,
            model: call.model.clone(),
            backend: "anthropic",
        };
        Self { completion, begun: false }
    }

    fn take(&mut self, data: &str) -> Step {
        let Ok(event) = serde_json::from_str::<Event>(data) else { return Step::Nothing };
        match event.kind.as_str() {
            "message_start" => {
                if let Some(model) = event.message["model"].as_str() {
                    self.completion.model = model.to_owned();
                }
                replace(&mut self.completion.usage, &event.message["usage"]);
                Step::Nothing
            }
            "content_block_delta" if event.delta["type"] == "text_delta" => match event.delta["text"].as_str() {
                Some(text) if !text.is_empty() && self.completion.text.len() + text.len() <= LARGEST_ANSWER => {
                    self.completion.text.push_str(text);
                    self.begun = true;
                    Step::Text(text.to_owned())
                }
                _ => Step::Nothing,
            },
            "message_delta" => {
                replace(&mut self.completion.usage, &event.usage);
                if let Some(reason) = event.delta["stop_reason"].as_str() {
                    self.completion.stop = match reason {
                        "end_turn" => Stop::EndTurn,
                        "max_tokens" => Stop::MaxTokens,
                        "refusal" => Stop::Refusal,
                        "model_context_window_exceeded" => Stop::ContextFull,
                        _ => Stop::Other,
                    };
                }
                Step::Nothing
            }
            "message_stop" => Step::Done,
            "error" => {
                let text =
                    |name: &str| event.error[name].as_str().unwrap_or("unknown").chars().take(300).collect::<String>();
                Step::Failed(text("type"), text("message"))
            }
            _ => Step::Nothing,
        }
    }

    /// Worth another attempt, if nobody has seen a part of this one.
    fn broke_off(self, error: EngineError) -> Attempt {
        if self.begun { self.failed(error) } else { Attempt::Retry { error, after: None } }
    }

    fn failed(self, error: EngineError) -> Attempt {
        Attempt::Give(Failed { error, usage: self.completion.usage })
    }
}

/// Counts are cumulative: a count that is present replaces the one before.
fn replace(usage: &mut TokenUsage, counts: &Value) {
    let set = |field: &mut u64, name: &str| {
        if let Some(count) = counts[name].as_u64() {
            *field = count;
        }
    };
    set(&mut usage.input_tokens, "input_tokens");
    set(&mut usage.output_tokens, "output_tokens");
    set(&mut usage.cache_read_tokens, "cache_read_input_tokens");
    set(&mut usage.cache_creation_tokens, "cache_creation_input_tokens");
}

#[cfg(test)]
#[path = "anthropic_tests.rs"]
mod tests;
