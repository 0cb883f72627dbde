//! One tenant: what it is, how its last change goes, and what an operator can do about it.

use crate::layout::{Shell, Tone};
use askama::Template;

#[derive(Debug, Clone, Template)]
#[template(path = "console/tenant/page.html")]
pub struct TenantPage {
    pub page: Shell,
    pub slug: String,
    pub url: String,
    pub summary: Summary,
    pub progress: Progress,
    pub conditions: Conditions,
    pub operations: Operations,
    pub events: Events,
    /// Absent for those who may not see or change secrets.
    pub secrets: Option<Secrets>,
    pub may_change: bool,
    /// The page loads itself again where scripts are off.
    pub moving: bool,
}

/// State, facts and actions. Renewed live.
#[derive(Debug, Clone, Default, PartialEq, Eq, Template)]
#[template(path = "console/tenant/summary.html")]
pub struct Summary {
    pub slug: String,
    pub url: String,
    pub phase: String,
    pub tone: Tone,
    pub detail: String,
    pub ready: bool,
    /// (name, value)
    pub facts: Vec<(String, String)>,
    pub created_at: String,
    pub may_suspend: bool,
    pub may_resume: bool,
    pub may_delete: bool,
    /// It is not there any more.
    pub gone: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StepTone {
    #[default]
    Pending,
    Running,
    Done,
    Failed,
}

impl StepTone {
    pub const fn class(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
    pub const fn icon(self) -> &'static str {
        match self {
            Self::Failed => "x",
            Self::Pending | Self::Running | Self::Done => "check",
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StepRow {
    pub name: String,
    pub tone: StepTone,
    pub detail: String,
    /// How long it took or has taken, in words; empty before it began.
    pub took: String,
    pub attempts: u32,
}

/// The latest operation, step by step. Renewed live.
#[derive(Debug, Clone, Default, PartialEq, Eq, Template)]
#[template(path = "console/tenant/progress.html")]
pub struct Progress {
    pub title: String,
    pub state: String,
    pub tone: Tone,
    pub error: String,
    pub steps: Vec<StepRow>,
    pub started_at: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConditionRow {
    pub name: String,
    pub tone: Tone,
    pub status: String,
    pub reason: String,
    pub message: String,
    pub since: String,
}

/// Renewed live.
#[derive(Debug, Clone, Default, PartialEq, Eq, Template)]
#[template(path = "console/tenant/conditions.html")]
pub struct Conditions {
    pub rows: Vec<ConditionRow>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OperationRow {
    pub kind: String,
    pub state: String,
    pub tone: Tone,
    pub detail: String,
    pub started_at: String,
    pub took: String,
}

/// Renewed live.
#[derive(Debug, Clone, Default, PartialEq, Eq, Template)]
#[template(path = "console/tenant/operations.html")]
pub struct Operations {
    pub rows: Vec<OperationRow>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventRow {
    pub at: String,
    pub tone: Tone,
    pub severity: String,
    pub reason: String,
    pub message: String,
}

/// Renewed live.
#[derive(Debug, Clone, Default, PartialEq, Eq, Template)]
#[template(path = "console/tenant/events.html")]
pub struct Events {
    pub rows: Vec<EventRow>,
}

/// Names only: a value goes in and never comes out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Template)]
#[template(path = "console/tenant/secrets.html")]
pub struct Secrets {
    pub slug: String,
    pub names: Vec<String>,
    /// The name as it was typed.
    pub typed: String,
    pub name_error: String,
    pub value_error: String,
}

/// The last lines of the runner's output.
#[derive(Debug, Clone, Default, PartialEq, Eq, Template)]
#[template(path = "console/tenant/logs.html")]
pub struct Logs {
    pub slug: String,
    pub text: String,
    /// Why there is nothing to show.
    pub problem: String,
}

#[derive(Debug, Clone, Template)]
#[template(path = "console/tenant/logs_page.html")]
pub struct LogsPage {
    pub page: Shell,
    pub logs: Logs,
}

/// Asks for the slug to be typed before something is stopped or removed.
#[derive(Debug, Clone, Template)]
#[template(path = "console/tenant/confirm.html")]
pub struct ConfirmPage {
    pub page: Shell,
    pub slug: String,
    /// The last part of the address that the form posts to.
    pub action: String,
    pub what: String,
    pub consequence: String,
    pub danger: bool,
    pub typed: String,
    pub error: String,
    /// The generation that was looked at; the change is refused if it moved on.
    pub generation: u64,
}

impl ConfirmPage {
    fn label(&self) -> String {
        format!("Type {} to confirm", self.slug)
    }
}
