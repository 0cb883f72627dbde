//! Running an agent: its instructions, its model, one turn.

mod prompt;

use crate::action::{AgentActions, RunContext};
use crate::error::{EngineError, Result};
use crate::model::{Call, Completion, DEFAULT_MAX_TOKENS, DEFAULT_MODEL, Gateway, Message, Origin, Stop};
use crate::workspace::{Agent, Skill, Snapshot, Workspace};
use async_trait::async_trait;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// What earlier messages of a conversation may take of a call.
const HISTORY_TOKENS: u64 = 24_000;
/// All reference files of one call together.
const REFERENCE_BYTES: usize = 200 * 1024;
const LONGEST_INPUT: usize = 256 * 1024;
const MOST_TOKENS: u32 = 64_000;

/// Clones share the workspace and the gateway.
#[derive(Debug, Clone)]
pub struct Agents {
    workspace: Workspace,
    gateway: Gateway,
}

/// What a skill answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SkillRun {
    pub skill: String,
    pub result: String,
}

impl Agents {
    pub(crate) fn new(workspace: Workspace, gateway: Gateway) -> Self {
        Self { workspace, gateway }
    }

    /// Fails if there is no such agent.
    pub(crate) fn check(&self, name: &str) -> Result<()> {
        if self.workspace.snapshot().agent(name).is_some() { Ok(()) } else { Err(unknown_agent(name)) }
    }

    /// One turn of a conversation. `history` is what was said before `message`.
    pub(crate) async fn turn(
        &self,
        agent: &str,
        history: Vec<Message>,
        message: String,
        origin: Origin,
        sink: mpsc::Sender<String>,
        cancel: &CancellationToken,
    ) -> Result<Completion> {
        let snapshot = self.workspace.snapshot();
        let agent = snapshot.agent(agent).ok_or_else(|| unknown_agent(agent))?;
        let mut asking = message.clone();
        // A name the agent mentioned in its last answer counts as well: that is how it asks for a file.
        if let Some(last) = history.last() {
            asking.push('\n');
            asking.push_str(&last.content);
        }
        let references = self.references(agent, &asking).await?;
        let mut messages = prompt::bounded(history, HISTORY_TOKENS);
        messages.push(Message::user(message));
        let call = call(&snapshot, Some(agent), &references, messages, origin);
        self.gateway.run(call, sink, cancel).await
    }

    async fn skill(
        &self,
        name: &str,
        input: &str,
        agent: Option<&str>,
        job: Option<String>,
        cancel: &CancellationToken,
    ) -> Result<SkillRun> {
        if input.len() > LONGEST_INPUT {
            return Err(EngineError::invalid("input", format!("must be at most {} KiB", LONGEST_INPUT / 1024)));
        }
        let snapshot = self.workspace.snapshot();
        let skill =
            snapshot.skill(name).ok_or_else(|| EngineError::not_found(format_args!("skill '{}'", clip(name))))?;
        let agent =
            agent.filter(|a| !a.is_empty()).map(|a| snapshot.agent(a).ok_or_else(|| unknown_agent(a))).transpose()?;
        let references = match agent {
            Some(agent) => self.references(agent, &format!("{}\n{input}", skill.body)).await?,
            None => Vec::new(),
        };
        let origin = Origin { agent: agent.map(|a| a.name.clone()), source: "skill", session_id: None, job_id: job };
        let messages = vec![Message::user(prompt::skill_message(skill, input))];
        let completion =
            self.gateway.run(call(&snapshot, agent, &references, messages, origin), unread(), cancel).await?;
        Ok(SkillRun { skill: skill.name.clone(), result: answer(&completion) })
    }

    async fn references(&self, agent: &Agent, text: &str) -> Result<Vec<prompt::Reference>> {
        let mut found = Vec::new();
        let mut left = REFERENCE_BYTES;
        for name in prompt::wanted_references(agent, text) {
            if let Some(content) = self.workspace.reference(agent, &name).await? {
                if content.len() > left {
                    tracing::warn!(
                        agent = agent.name,
                        file = name,
                        "a reference file is left out: too much was asked for at once"
                    );
                    continue;
                }
                left -= content.len();
                found.push((name, content));
            }
        }
        Ok(found)
    }
}

fn call(
    snapshot: &Snapshot,
    agent: Option<&Agent>,
    references: &[prompt::Reference],
    messages: Vec<Message>,
    origin: Origin,
) -> Call {
    let wanted =
        agent.and_then(|a| a.config["max_tokens"].as_u64()).and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
    Call {
        model: agent.and_then(|a| a.model.clone()).unwrap_or_else(|| DEFAULT_MODEL.to_owned()),
        system: prompt::system(snapshot, agent, references),
        messages,
        max_tokens: wanted.unwrap_or(DEFAULT_MAX_TOKENS).min(MOST_TOKENS),
        origin,
    }
}

/// The text, with a word about an end that is not the end of the answer.
pub(crate) fn answer(completion: &Completion) -> String {
    format!("{}{}", completion.text, remark(completion))
}

pub(crate) fn remark(completion: &Completion) -> &'static str {
    match completion.stop {
        Stop::MaxTokens => "\n\n[The answer ends here because it reached its token limit.]",
        Stop::ContextFull => "\n\n[The answer ends here because the model's context is full.]",
        Stop::Refusal => "\n\n[The model declined to go on.]",
        Stop::EndTurn | Stop::Other => "",
    }
}

fn unknown_agent(name: &str) -> EngineError {
    EngineError::not_found(format_args!("agent '{}'", clip(name)))
}

fn clip(name: &str) -> String {
    name.chars().take(64).collect()
}

/// For those who want the whole answer only.
fn unread() -> mpsc::Sender<String> {
    mpsc::channel(1).0
}

#[async_trait]
impl AgentActions for Agents {
    async fn run_skill(&self, skill: &str, input: &str, agent: Option<&str>, context: RunContext) -> Result<String> {
        Ok(self.skill(skill, input, agent, Some(context.job_id.to_string()), &context.cancel).await?.result)
    }

    async fn agent_chat(&self, agent: &str, prompt: &str, context: RunContext) -> Result<String> {
        let job_id = Some(context.job_id.to_string());
        let origin = Origin { agent: Some(agent.to_owned()), source: "agent_chat", session_id: None, job_id };
        let completion = self.turn(agent, Vec::new(), prompt.to_owned(), origin, unread(), &context.cancel).await?;
        Ok(answer(&completion))
    }
}

/// The workspace's skills, to look at and to run.
#[derive(Debug, Clone)]
pub struct Skills {
    agents: Agents,
    stopping: CancellationToken,
}

impl Skills {
    pub(crate) fn new(agents: Agents, stopping: CancellationToken) -> Self {
        Self { agents, stopping }
    }

    pub fn list(&self) -> Vec<Skill> {
        self.agents.workspace.snapshot().skills.clone()
    }

    /// By the file's name or the heading.
    pub fn get(&self, name: &str) -> Result<Skill> {
        let snapshot = self.agents.workspace.snapshot();
        snapshot.skill(name).cloned().ok_or_else(|| EngineError::not_found(format_args!("skill '{}'", clip(name))))
    }

    /// Runs a skill now and waits for its answer.
    pub async fn execute(&self, name: &str, input: &str, agent: Option<&str>) -> Result<SkillRun> {
        self.agents.skill(name, input, agent, None, &self.stopping).await
    }
}
