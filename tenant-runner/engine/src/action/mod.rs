//! What a job does. Each kind of action turns a stored configuration into an effect and an answer.
//!
//! Always true here: a configuration is checked before it is stored, so that a run fails for what the world did and not for a
//! typing mistake; an action ends soon after its token is cancelled; what it answers is bounded and holds no secret value.

mod agent;
mod config;
mod enqueue;
mod guard;
mod host;
mod once;
mod outputs;
mod redact;
mod registry;
mod script;
mod secrets;
mod steps;
pub(crate) mod template;
mod webhook;

#[cfg(test)]
mod tests;

pub use agent::{AgentActions, NoAgents, RunContext};
pub use config::check;
pub use guard::{Guard, Names, SystemNames};
pub use host::run as script_host;
pub use outputs::{Outputs, Part};

use crate::config::{EngineConfig, Settings};
use crate::error::{EngineError, Kind, Result};
use crate::queue::{Claimed, Outcome, Queue};
use crate::worker::Perform;
use arc_swap::ArcSwapOption;
use config::Action;
use futures::future::BoxFuture;
use nexaas_common::clock::SharedClock;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The kinds of action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionType {
    Webhook,
    Script,
    Skill,
    AgentChat,
    RegistryUpdate,
    JobEnqueue,
    Steps,
}

impl ActionType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Script => "script",
            Self::Skill => "skill",
            Self::AgentChat => "agent_chat",
            Self::RegistryUpdate => "registry_update",
            Self::JobEnqueue => "job_enqueue",
            Self::Steps => "steps",
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
            "registry_update" | "registry.update" => Ok(Self::RegistryUpdate),
            "job_enqueue" | "job.enqueue" => Ok(Self::JobEnqueue),
            "steps" => Ok(Self::Steps),
            _ => Err(EngineError::invalid(
                "action_type",
                "must be one of webhook, script, skill, agent_chat, registry_update, job_enqueue, steps",
            )),
        }
    }
}

/// Why an action did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Failure {
    error: String,
    kind: Fails,
    /// When another attempt was asked for.
    retry_after: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fails {
    /// Another attempt may do better.
    Passing,
    Permanent,
    /// Nothing failed: the job was cancelled.
    Cancelled,
}

impl Failure {
    fn passing(error: impl Into<String>) -> Self {
        Self { error: error.into(), kind: Fails::Passing, retry_after: None }
    }
    fn permanent(error: impl Into<String>) -> Self {
        Self { error: error.into(), kind: Fails::Permanent, retry_after: None }
    }
    fn after(self, retry_after: Option<Duration>) -> Self {
        Self { retry_after, ..self }
    }
    /// The same failure, of a part of what was to be done.
    fn within(self, part: &str) -> Self {
        Self { error: format!("{part}: {}", self.error), ..self }
    }
    fn cancelled() -> Self {
        Self { error: String::new(), kind: Fails::Cancelled, retry_after: None }
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let permanent = matches!(error.kind, Kind::Invalid { .. } | Kind::NotFound | Kind::Forbidden);
        if error.kind == Kind::Internal {
            tracing::error!(error = error.chain(), "an action failed on our side");
        }
        let error = error.public().to_owned();
        if permanent { Self::permanent(error) } else { Self::passing(error) }
    }
}

impl From<template::TooLong> for Failure {
    fn from(error: template::TooLong) -> Self {
        Self::permanent(error.to_string())
    }
}

/// One run of an action.
struct Run<'a> {
    job: &'a Claimed,
    /// The same whenever this very thing is done again: a receiver can tell a repetition by it.
    key: String,
    deadline: Option<Instant>,
}

impl<'a> Run<'a> {
    fn of(job: &'a Claimed) -> Self {
        let deadline = job.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        Self { job, key: job.attempt_id.to_string(), deadline }
    }

    /// What is left of the job's own time, if it has one.
    fn time_left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Comes when the job's own time is over; answers how long that was.
    async fn time_is_over(&self) -> u64 {
        match self.deadline {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
        self.job.timeout.unwrap_or_default().as_secs()
    }
}

/// The settings that may change while the engine runs.
pub type SharedSettings = Arc<ArcSwapOption<Settings>>;

/// Does what jobs say.
#[derive(Debug)]
pub struct Actions {
    outputs: Outputs,
    scripts: script::Scripts,
    webhooks: webhook::Webhooks,
    registries: registry::Registries,
    appends: once::Notes,
    /// Where further jobs go and finished steps are stored; without one, the actions that need it fail.
    queue: Option<Queue>,
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
        let outputs = Outputs::new(&config.database_path, config.outputs.clone());
        let guard = Guard::new(names, config.allow_private_webhook_targets.clone());
        Ok(Self {
            scripts: script::Scripts::new(config, outputs.clone()),
            outputs,
            webhooks: webhook::Webhooks::new(guard)?,
            registries: registry::Registries::new(config.workspace_root.clone()),
            appends: once::Notes::new(&config.database_path),
            queue: None,
            agents,
            settings,
            clock,
        })
    }

    /// For the actions that put jobs on the queue or store steps in it.
    #[must_use]
    pub fn with_queue(self, queue: Queue) -> Self {
        Self { queue: Some(queue), ..self }
    }

    fn queue(&self) -> Result<&Queue, Failure> {
        self.queue.as_ref().ok_or_else(|| Failure::permanent("these actions were set up without a queue"))
    }

    /// What scripts wrote beyond their answers.
    pub fn outputs(&self) -> &Outputs {
        &self.outputs
    }

    /// Does `job` and says how it ended.
    pub async fn run(&self, job: &Claimed) -> Outcome {
        let settings = self.settings.load_full().unwrap_or_default();
        let secrets = redact::Secrets::of(&settings);
        match self.act(&Run::of(job), &settings).await {
            Ok(text) => Outcome::Succeeded(secrets.clean(text)),
            Err(Failure { kind: Fails::Cancelled, .. }) => Outcome::Cancelled,
            Err(Failure { error, kind, retry_after }) => {
                Outcome::Failed { error: secrets.clean(error), permanent: kind == Fails::Permanent, retry_after }
            }
        }
    }

    async fn act(&self, run: &Run<'_>, settings: &Settings) -> Result<String, Failure> {
        let action = Action::read(run.job.action, &run.job.action_config, template::Within::Nothing)?;
        let values = template::Values::of(run.job, self.clock.now());
        match action {
            Action::Steps(steps) => self.steps(steps, run, settings, values).await,
            action => self.bounded(action, run, settings, &values).await,
        }
    }

    /// One action, until the job is cancelled or its time is over.
    async fn bounded(
        &self,
        action: Action,
        run: &Run<'_>,
        settings: &Settings,
        values: &template::Values,
    ) -> Result<String, Failure> {
        if let Action::Script(script) = &action {
            // Is told itself: it answers when the script is gone.
            return self.scripts.run(script, run, settings).await;
        }
        tokio::select! {
            biased;
            () = run.job.cancel.cancelled() => Err(Failure::cancelled()),
            seconds = run.time_is_over() => Err(Failure::passing(format!("ended by force after {seconds} s"))),
            result = self.call(action, run, settings, values) => result,
        }
    }

    async fn call(
        &self,
        action: Action,
        run: &Run<'_>,
        settings: &Settings,
        values: &template::Values,
    ) -> Result<String, Failure> {
        let job = run.job;
        match action {
            Action::Script(script) => self.scripts.run(&script, run, settings).await,
            Action::Steps(_) => Err(Failure::permanent("steps cannot be within steps")),
            Action::JobEnqueue(spec) => enqueue::run(&spec, run, values, self.queue()?, self.clock.now()).await,
            Action::Webhook(webhook) => self.webhooks.send(&webhook, run, values, settings, self.clock.now()).await,
            Action::RegistryUpdate(update) => {
                if let Some(queue) = &self.queue
                    && update.op == config::Change::Append
                {
                    self.appends.sweep_at_times(self.registries.workspace(), queue).await;
                }
                self.registries.update(&update, values, self.appends.of(job.id, &run.key)).await
            }
            Action::Skill(skill) => {
                let input = template::text(&skill.input, values)?;
                let agent = skill.agent.as_deref().or(job.agent.as_deref());
                Ok(self.agents.run_skill(&skill.skill, &input, agent, context(job)).await?)
            }
            Action::AgentChat(chat) => {
                let agent = chat
                    .agent
                    .as_deref()
                    .or(job.agent.as_deref())
                    .ok_or_else(|| Failure::permanent("action_config.agent must name an agent"))?;
                let prompt = template::text(&chat.prompt, values)?;
                Ok(self.agents.agent_chat(agent, &prompt, context(job)).await?)
            }
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
