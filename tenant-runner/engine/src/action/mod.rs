//! What a job does. Each kind of action turns a stored configuration into an effect and an answer.
//!
//! Always true here: a configuration is checked before it is stored, so that a run fails for what the world did and not for a
//! typing mistake; an action ends soon after its token is cancelled; what it answers is bounded and holds no secret value.

mod agent;
mod config;
mod guard;
mod script;
pub(crate) mod template;
mod webhook;

#[cfg(test)]
mod tests;

pub use agent::{AgentActions, NoAgents, RunContext};
pub use config::check;
pub use guard::{Guard, Names, SystemNames};

use crate::config::{EngineConfig, Settings};
use crate::error::{EngineError, Kind, Result};
use crate::queue::{Claimed, Outcome};
use crate::worker::Perform;
use arc_swap::ArcSwapOption;
use config::Action;
use futures::future::BoxFuture;
use nexaas_common::clock::SharedClock;
use nexaas_common::secret::ExposeSecret as _;
use std::sync::Arc;

/// The kinds of action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionType {
    Webhook,
    Script,
    Skill,
    AgentChat,
}

impl ActionType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Script => "script",
            Self::Skill => "skill",
            Self::AgentChat => "agent_chat",
        }
    }
}

impl std::str::FromStr for ActionType {
    type Err = EngineError;
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "webhook" => Ok(Self::Webhook),
            "script" => Ok(Self::Script),
            "skill" => Ok(Self::Skill),
            "agent_chat" | "claude_chat" => Ok(Self::AgentChat),
            _ => Err(EngineError::invalid("action_type", "must be one of webhook, script, skill, agent_chat")),
        }
    }
}

/// Why an action did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Failure {
    error: String,
    /// Another attempt cannot do better.
    permanent: bool,
}

impl Failure {
    fn passing(error: impl Into<String>) -> Self {
        Self { error: error.into(), permanent: false }
    }
    fn permanent(error: impl Into<String>) -> Self {
        Self { error: error.into(), permanent: true }
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let permanent = matches!(error.kind, Kind::Invalid { .. } | Kind::NotFound | Kind::Forbidden);
        if error.kind == Kind::Internal {
            tracing::error!(error = error.chain(), "an action failed on our side");
        }
        Self { error: error.public().to_owned(), permanent }
    }
}

/// The settings that may change while the engine runs.
pub type SharedSettings = Arc<ArcSwapOption<Settings>>;

/// Does what jobs say.
#[derive(Debug)]
pub struct Actions {
    scripts: script::Scripts,
    webhooks: webhook::Webhooks,
    agents: Arc<dyn AgentActions>,
    settings: SharedSettings,
    clock: SharedClock,
}

impl Actions {
    pub fn new(
        config: &EngineConfig,
        settings: SharedSettings,
        agents: Arc<dyn AgentActions>,
        names: Arc<dyn Names>,
        clock: SharedClock,
    ) -> Result<Self> {
        let guard = Guard::new(names, config.allow_private_webhook_targets.clone());
        Ok(Self {
            scripts: script::Scripts::new(config),
            webhooks: webhook::Webhooks::new(guard)?,
            agents,
            settings,
            clock,
        })
    }

    /// Does `job` and says how it ended.
    pub async fn run(&self, job: &Claimed) -> Outcome {
        let outcome = tokio::select! {
            biased;
            () = job.cancel.cancelled() => Outcome::Cancelled,
            result = self.act(job) => match result {
                Ok(text) => Outcome::Succeeded(text),
                Err(failure) => Outcome::Failed { error: failure.error, permanent: failure.permanent, retry_after: None },
            },
        };
        self.without_secrets(outcome)
    }

    async fn act(&self, job: &Claimed) -> Result<String, Failure> {
        let values = template::Values::of(job, self.clock.now());
        match Action::read(job.action, &job.action_config)? {
            Action::Webhook(webhook) => {
                let settings = self.settings.load_full().unwrap_or_default();
                self.webhooks.send(&webhook, job, &values, &settings, self.clock.now()).await
            }
            Action::Script(script) => self.scripts.run(&script, job).await,
            Action::Skill(skill) => {
                let input = template::text(&skill.input, &values);
                let agent = skill.agent.as_deref().or(job.agent.as_deref());
                Ok(self.agents.run_skill(&skill.skill, &input, agent, context(job)).await?)
            }
            Action::AgentChat(chat) => {
                let agent = chat
                    .agent
                    .as_deref()
                    .or(job.agent.as_deref())
                    .ok_or_else(|| Failure::permanent("action_config.agent must name an agent"))?;
                let prompt = template::text(&chat.prompt, &values);
                Ok(self.agents.agent_chat(agent, &prompt, context(job)).await?)
            }
        }
    }

    fn without_secrets(&self, outcome: Outcome) -> Outcome {
        let Some(settings) = self.settings.load_full() else { return outcome };
        let clean = |text: String| {
            settings.secrets.values().map(|s| s.expose_secret()).filter(|s| s.len() >= 6).fold(text, |text, secret| {
                if text.contains(secret) { text.replace(secret, "[REDACTED]") } else { text }
            })
        };
        match outcome {
            Outcome::Succeeded(text) => Outcome::Succeeded(clean(text)),
            Outcome::Failed { error, permanent, retry_after } => {
                Outcome::Failed { error: clean(error), permanent, retry_after }
            }
            Outcome::Cancelled => Outcome::Cancelled,
        }
    }
}

impl Perform for Actions {
    fn perform<'a>(&'a self, job: &'a Claimed) -> BoxFuture<'a, Outcome> {
        Box::pin(self.run(job))
    }
}

fn context(job: &Claimed) -> RunContext {
    RunContext {
        job_id: job.id,
        attempt_id: job.attempt_id,
        cancel: job.cancel.clone(),
        traceparent: job.traceparent.clone(),
    }
}
