//! A conversation with an agent.
//!
//! Always true: an agent's text is sanitised markdown, a person's text is shown as typed.

use crate::markdown;
use askama::Template;
use askama::filters::Safe;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub from_person: bool,
    pub who: String,
    pub text: String,
}

impl Message {
    fn html(&self) -> Safe<String> {
        markdown::render(&self.text)
    }
}

/// A name to choose and what to call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    pub value: String,
    pub label: String,
    pub selected: bool,
}

#[derive(Debug, Clone, Template)]
#[template(path = "widgets/agent_chat.html")]
pub struct AgentChat {
    /// Unique on the page; also the name of the query parameter that keeps the session across reloads.
    pub id: String,
    /// One: fixed by the workspace. Several: a choice.
    pub agents: Vec<Choice>,
    /// Empty: a new conversation.
    pub session: String,
    pub last_seq: u64,
    /// A turn is under way: take it up.
    pub live: bool,
    pub messages: Vec<Message>,
    /// Earlier conversations: URL and title.
    pub sessions: Vec<Choice>,
    pub new_href: String,
    pub placeholder: String,
    /// Fills the height of the window.
    pub tall: bool,
}

impl AgentChat {
    fn agent_name(&self) -> &str {
        self.agents.first().map_or("the agent", |a| a.label.as_str())
    }
}
