//! What a runner says about its tenant, in plain types. Wire messages are turned into these at once and go no further.

use nexaas_common::secret::SecretString;
use serde_json::Value;

/// Before anybody has logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountStatus {
    pub has_company: bool,
    pub company: String,
    pub registration_open: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct User {
    pub id: String,
    pub username: String,
    pub role: String,
    pub company: String,
}

#[derive(Debug, Clone)]
pub struct UserSession {
    pub token: SecretString,
    pub user: User,
    /// RFC 3339.
    pub expires_at: String,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct WorkspaceView {
    pub name: String,
    pub description: String,
    pub perspectives: Vec<Perspective>,
    pub problems: Vec<Problem>,
    pub revision: u64,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Perspective {
    pub id: String,
    pub name: String,
    pub icon: String,
    pub default_page: String,
    pub pages: Vec<Page>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Page {
    pub id: String,
    pub name: String,
    pub icon: String,
    pub single: bool,
    pub components: Vec<Component>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Component {
    pub kind: String,
    pub title: String,
    pub span: u8,
    /// The widget's own settings; `Null` when there are none.
    pub config: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub file: String,
    /// 0: unknown.
    pub line: u32,
    pub reason: String,
    pub is_error: bool,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Agent {
    pub name: String,
    pub role: String,
    pub description: String,
    pub capabilities: Vec<String>,
    pub parent: String,
    pub from_framework: bool,
    pub model: String,
    pub prompt: String,
    pub config_json: String,
    pub children: Vec<Agent>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Skill {
    pub name: String,
    pub filename: String,
    pub description: String,
    pub from_framework: bool,
    pub body: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrySummary {
    pub name: String,
    pub description: String,
    pub entry_count: u32,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Registry {
    pub name: String,
    pub description: String,
    /// Name and type.
    pub fields: Vec<(String, String)>,
    pub entries: Vec<serde_json::Map<String, Value>>,
}

/// A schedule or trigger.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event {
    pub id: String,
    pub kind: String,
    pub condition_type: String,
    pub condition_expr: String,
    pub next_eval_at: String,
    pub action_type: String,
    pub status: String,
    pub agent: String,
    pub description: String,
    pub last_result: String,
    pub last_run_at: String,
    pub run_count: u64,
    pub fail_count: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BusEvent {
    pub seq: u64,
    pub kind: String,
}

/// What happened, as the bus keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct Fact {
    pub kind: String,
    pub data: Value,
    pub at: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QueueView {
    pub queued: u64,
    pub running: u64,
    pub completed: u64,
    pub failed: u64,
    /// Newest first, at most 20.
    pub recent: Vec<Job>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum JobState {
    #[default]
    Ready,
    Running,
    Succeeded,
    Dead,
    Cancelled,
    /// A word that this version does not know.
    Other,
}

impl JobState {
    pub fn of(word: &str) -> Self {
        match word {
            "ready" | "queued" => Self::Ready,
            "running" => Self::Running,
            "succeeded" | "completed" => Self::Succeeded,
            "dead" | "failed" => Self::Dead,
            "cancelled" => Self::Cancelled,
            _ => Self::Other,
        }
    }
    pub const fn finished(self) -> bool {
        matches!(self, Self::Succeeded | Self::Dead | Self::Cancelled)
    }
    /// It ended without its result, and a person may give it one more round of attempts.
    pub const fn retryable(self) -> bool {
        matches!(self, Self::Dead | Self::Cancelled)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Job {
    pub id: String,
    pub event_id: String,
    pub action_type: String,
    pub description: String,
    pub agent: String,
    pub state: JobState,
    pub attempt: u32,
    pub max_attempts: u32,
    pub result: String,
    pub error: String,
    pub created_at: String,
    pub started_at: String,
    pub finished_at: String,
    /// Jobs with the same key run a few at a time; empty: no key.
    pub concurrency_key: String,
    /// It is due, but its key has no room.
    pub blocked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChatKind {
    Chunk,
    Done,
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatEvent {
    pub session_id: String,
    pub seq: u64,
    pub kind: ChatKind,
    pub content: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChatSession {
    pub id: String,
    pub agent: String,
    pub title: String,
    pub updated_at: String,
    pub messages: Vec<ChatMessage>,
    pub last_seq: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatMessage {
    pub from_person: bool,
    pub content: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Usage {
    pub calls: u64,
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub cost_usd: f64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    pub severity: String,
    pub category: String,
    pub message: String,
    pub acknowledged: bool,
    pub created_at: String,
}
