//! The two actions that involve an agent, as the queue sees them.

use crate::error::{EngineError, Result};
use crate::queue::{AttemptId, JobId};
use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

/// Which run asks.
#[derive(Debug, Clone)]
pub struct RunContext {
    pub job_id: JobId,
    /// The same id for the same attempt, also after a restart: an idempotency key.
    pub attempt_id: AttemptId,
    /// Cancelled when the job is; the action then ends soon, with whatever answer.
    pub cancel: CancellationToken,
    /// The trace this run continues.
    pub traceparent: Option<String>,
}

#[async_trait]
pub trait AgentActions: Send + Sync + std::fmt::Debug {
    /// Runs a skill on `input`, in the name of `agent` if one is given.
    async fn run_skill(&self, skill: &str, input: &str, agent: Option<&str>, context: RunContext) -> Result<String>;
    /// One turn of a new conversation with `agent`.
    async fn agent_chat(&self, agent: &str, prompt: &str, context: RunContext) -> Result<String>;
}

/// An engine without agents says so.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoAgents;

#[async_trait]
impl AgentActions for NoAgents {
    async fn run_skill(&self, _: &str, _: &str, _: Option<&str>, _: RunContext) -> Result<String> {
        Err(EngineError::unavailable("This engine runs without agents"))
    }
    async fn agent_chat(&self, _: &str, _: &str, _: RunContext) -> Result<String> {
        Err(EngineError::unavailable("This engine runs without agents"))
    }
}
