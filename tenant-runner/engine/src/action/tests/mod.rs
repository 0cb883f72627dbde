//! Actions against real processes and real HTTP peers on the loopback.

mod jobs;
mod scripts;
mod webhooks;

use super::*;
use crate::queue::{AttemptId, JobId};
use crate::testing::{Rig, utc};
use async_trait::async_trait;
use futures::future::BoxFuture;
use nexaas_common::clock::ManualClock;
use nexaas_common::secret::SecretString;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use wiremock::matchers::{body_json, header, header_exists, method, path};
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

struct Bench {
    _dir: tempfile::TempDir,
    actions: Actions,
    rig: Rig,
}

impl Bench {
    /// Actions that may reach the loopback.
    async fn new() -> Self {
        Self::with(&["127.0.0.0/8"], Arc::new(SystemNames), Settings::default()).await
    }

    async fn with(allowed: &[&str], names: Arc<dyn Names>, settings: Settings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = EngineConfig::new("standalone", dir.path().join("x.db"), dir.path().to_owned());
        config.allow_private_webhook_targets = allowed.iter().map(|net| net.parse().unwrap()).collect();
        let settings = Arc::new(ArcSwapOption::from_pointee(settings));
        let clock = ManualClock::new(utc("2026-01-01T00:00:00Z"));
        let rig = Rig::new().await;
        let actions = Actions::new(&config, settings, Arc::new(Echo), names, clock).unwrap();
        Self { _dir: dir, actions: actions.with_queue(rig.queue.clone()), rig }
    }

    async fn job(&self, action: ActionType, config: Value, payload: Option<Value>) -> Claimed {
        let new = crate::queue::NewJob { payload, ..crate::queue::NewJob::new(action, config) };
        self.rig.queue.enqueue(new).await.unwrap();
        self.rig.claim(1).await.remove(0)
    }

    async fn script(&self, config: Value) -> Outcome {
        self.actions.run(&self.job(ActionType::Script, config, None).await).await
    }

    async fn webhook(&self, config: Value) -> Outcome {
        self.actions.run(&self.job(ActionType::Webhook, config, None).await).await
    }
}

#[derive(Debug)]
pub(super) struct Echo;

#[async_trait]
impl AgentActions for Echo {
    async fn run_skill(&self, skill: &str, input: &str, agent: Option<&str>, _: RunContext) -> Result<String> {
        Ok(format!("{skill}|{input}|{}", agent.unwrap_or("-")))
    }
    async fn agent_chat(&self, agent: &str, prompt: &str, _: RunContext) -> Result<String> {
        if prompt == "hang" {
            std::future::pending::<()>().await;
        }
        Ok(format!("{agent}|{prompt}"))
    }
}

fn ok(text: &str) -> Outcome {
    Outcome::Succeeded(text.to_owned())
}

fn error(outcome: Outcome) -> String {
    match outcome {
        Outcome::Failed { error, .. } => error,
        other => panic!("not a failure: {other:?}"),
    }
}

fn is_permanent(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed { permanent: true, .. })
}

async fn answering(status: u16, body: &str) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(ResponseTemplate::new(status).set_body_string(body)).mount(&server).await;
    server
}

#[tokio::test]
async fn skills_and_agents_get_what_the_event_says() {
    let bench = Bench::new().await;
    let job = bench
        .job(ActionType::Skill, json!({"skill": "digest", "input": "for {{payload.who}}"}), Some(json!({"who": "Ada"})))
        .await;
    assert_eq!(bench.actions.run(&job).await, ok("digest|for Ada|-"));
    let job = bench.job(ActionType::AgentChat, json!({"agent": "ops", "prompt": "look"}), None).await;
    assert_eq!(bench.actions.run(&job).await, ok("ops|look"));
    let job = bench.job(ActionType::AgentChat, json!({"prompt": "look"}), None).await;
    assert!(is_permanent(&bench.actions.run(&job).await));
}

#[test]
fn ids_of_jobs_and_attempts_are_not_the_same_kind() {
    assert!(format!("{:?}", JobId::generate()).starts_with("job:"));
    assert!(format!("{:?}", AttemptId::generate()).starts_with("attempt:"));
}
