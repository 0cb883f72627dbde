//! What a workspace holds: agents, skills, registries, schedules, jobs and problems.

use crate::layout::{Shell, Tone};
use crate::markdown;
use crate::widgets::Html;
use crate::widgets::agent_tree::AgentTree;
use crate::widgets::registry_table::RegistryTable;
use askama::Template;
use askama::filters::Safe;

#[derive(Debug, Clone, Template)]
#[template(path = "tenant/workspace/agents.html")]
pub struct AgentsPage {
    pub page: Shell,
    pub tree: AgentTree,
}

#[derive(Debug, Clone, Template)]
#[template(path = "tenant/workspace/agent.html")]
pub struct AgentPage {
    pub page: Shell,
    pub role: String,
    pub description: String,
    pub capabilities: Vec<String>,
    /// Name and value.
    pub facts: Vec<(String, String)>,
    pub prompt: String,
    pub config: String,
    /// The rendered conversation.
    pub chat: Html,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkillRow {
    pub name: String,
    pub description: String,
    pub origin: String,
    pub href: String,
}

#[derive(Debug, Clone, Template)]
#[template(path = "tenant/workspace/skills.html")]
pub struct SkillsPage {
    pub page: Shell,
    pub skills: Vec<SkillRow>,
}

#[derive(Debug, Clone, Template)]
#[template(path = "tenant/workspace/skill.html")]
pub struct SkillPage {
    pub page: Shell,
    pub description: String,
    pub file: String,
    pub origin: String,
    pub body: String,
    pub run_url: String,
    /// Who may run it; empty names nobody in particular.
    pub agents: Vec<String>,
}

impl SkillPage {
    fn html(&self) -> Safe<String> {
        markdown::render(&self.body)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryRow {
    pub name: String,
    pub description: String,
    pub entries: u32,
    pub href: String,
}

#[derive(Debug, Clone, Template)]
#[template(path = "tenant/workspace/registries.html")]
pub struct RegistriesPage {
    pub page: Shell,
    pub registries: Vec<RegistryRow>,
}

#[derive(Debug, Clone, Template)]
#[template(path = "tenant/workspace/registry.html")]
pub struct RegistryPage {
    pub page: Shell,
    pub description: String,
    pub table: RegistryTable,
}

/// One schedule or trigger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRow {
    pub name: String,
    pub id: String,
    /// In words: "every 15 minutes", "cron 0 9 * * 1", "when its webhook is called".
    pub condition: String,
    pub action: String,
    pub tone: Tone,
    pub status: String,
    pub next_at: String,
    pub last_at: String,
    pub last_result: String,
    pub runs: u64,
    pub failures: u64,
    pub trigger_url: String,
}

#[derive(Debug, Clone, Template)]
#[template(path = "tenant/workspace/events_table.html")]
pub struct EventsTable {
    pub rows: Vec<EventRow>,
}

#[derive(Debug, Clone, Template)]
#[template(path = "tenant/workspace/events.html")]
pub struct EventsPage {
    pub page: Shell,
    pub table: EventsTable,
}

#[derive(Debug, Clone, Template)]
#[template(path = "tenant/workspace/job_detail.html")]
pub struct JobDetail {
    pub id: String,
    pub tone: Tone,
    pub state: String,
    pub action: String,
    pub agent: String,
    pub event: String,
    pub attempt: u32,
    pub max_attempts: u32,
    pub created_at: String,
    pub started_at: String,
    pub finished_at: String,
    /// In words; empty while it has not finished.
    pub took: String,
    pub result: String,
    pub error: String,
    pub cancel_url: Option<String>,
    pub retry_url: Option<String>,
    pub url: String,
    /// False once it has ended; only a retry changes it then.
    pub live: bool,
}

impl JobDetail {
    fn result_html(&self) -> Safe<String> {
        markdown::render(&self.result)
    }
}

#[derive(Debug, Clone, Template)]
#[template(path = "tenant/workspace/job.html")]
pub struct JobPage {
    pub page: Shell,
    pub job: JobDetail,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProblemRow {
    pub file: String,
    /// 0: unknown.
    pub line: u32,
    pub reason: String,
    pub tone: Tone,
    pub severity: String,
}

#[derive(Debug, Clone, Template)]
#[template(path = "tenant/workspace/problems.html")]
pub struct ProblemsPage {
    pub page: Shell,
    pub problems: Vec<ProblemRow>,
}
