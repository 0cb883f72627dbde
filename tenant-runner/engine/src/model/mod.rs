//! The model gateway: every model call of a tenant goes through here. It holds the key, reserves the worst case from the
//! budget before the call and settles afterwards, retries, and counts tokens once.

mod anthropic;
mod gateway;
mod ledger;
mod offline;
pub(crate) mod price;

pub use gateway::Gateway;

use serde::Serialize;

/// Used by agents that name no model.
pub const DEFAULT_MODEL: &str = "claude-sonnet-4-5";
/// The longest answer, unless an agent says otherwise.
pub const DEFAULT_MAX_TOKENS: u32 = 4_096;
/// The name of the secret that holds the key.
pub const ANTHROPIC_KEY: &str = "ANTHROPIC_API_KEY";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    User,
    Assistant,
}

impl Role {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Message {
    pub role: Role,
    pub content: String,
}

impl Message {
    pub fn user(content: impl Into<String>) -> Self {
        Self { role: Role::User, content: content.into() }
    }
}

/// What a call is for; it is what usage is reported by.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    pub agent: Option<String>,
    /// `chat`, `agent_chat` or `skill`.
    pub source: &'static str,
    pub session_id: Option<String>,
    pub job_id: Option<String>,
}

/// One call.
#[derive(Debug, Clone)]
pub struct Call {
    pub model: String,
    pub system: String,
    pub messages: Vec<Message>,
    pub max_tokens: u32,
    pub origin: Origin,
}

impl Call {
    /// About how many tokens go out.
    pub fn estimate(&self) -> u64 {
        estimate_tokens(&self.system) + self.messages.iter().map(|m| estimate_tokens(&m.content) + 4).sum::<u64>()
    }
}

/// Counted by the provider. The whole input is the three input counts together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TokenUsage {
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub cache_read_tokens: u64,
    pub cache_creation_tokens: u64,
}

/// Why the model stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    EndTurn,
    MaxTokens,
    Refusal,
    ContextFull,
    /// Anything else: `stop_sequence`, `tool_use`, `pause_turn`, or a reason newer than this program.
    Other,
}

/// A finished call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    pub text: String,
    pub usage: TokenUsage,
    pub stop: Stop,
    /// The model that answered.
    pub model: String,
    /// `anthropic` or `offline`.
    pub backend: &'static str,
}

/// A rough count without the model's own tokenizer: four Latin characters a token, one for each other character. It errs high.
pub fn estimate_tokens(text: &str) -> u64 {
    let (ascii, other) =
        text.chars().fold((0u64, 0u64), |(a, o), c| if c.is_ascii() { (a + 1, o) } else { (a, o + 1) });
    ascii.div_ceil(4) + other
}
