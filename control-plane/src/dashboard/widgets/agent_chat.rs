//! A conversation with an agent: the stored messages, and whether an answer is under way.

use super::{Place, settings};
use crate::dashboard::describe::line;
use crate::dashboard::shell::segment;
use crate::error::{Error, Kind, Result};
use crate::http::problem;
use crate::runner_client::model::{Agent, ChatSession, Component};
use nexaas_dashboard::widgets::agent_chat::{AgentChat, Choice, Message};
use nexaas_dashboard::widgets::{Html, html};
use serde::Deserialize;

const SESSIONS: u32 = 20;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    agent: Option<String>,
    placeholder: Option<String>,
}

pub async fn draw(place: &Place<'_>, component: &Component) -> Result<Html> {
    let config: Config = settings(component)?;
    let agents = place.api.agents().await?;
    let mut names = super::agent_names(&agents);
    if let Some(wanted) = &config.agent {
        names.retain(|n| n == wanted);
        if names.is_empty() {
            return Err(Error::invalid("agent", format!("names no agent of this workspace: '{wanted}'")));
        }
    }
    conversation(place, names, config.placeholder.unwrap_or_default()).await
}

/// A conversation with one of `agents`: that which the page's query names, or a new one.
pub async fn conversation(place: &Place<'_>, agents: Vec<String>, placeholder: String) -> Result<Html> {
    let id = format!("chat-{}", place.index);
    let only = if agents.len() == 1 { agents[0].clone() } else { String::new() };
    let open = place.query.get(&id).filter(|s| !s.is_empty());
    let (sessions, current) = tokio::join!(place.api.chat_sessions(&only, SESSIONS), async {
        match open {
            Some(session) => Some(place.api.chat_session(session).await),
            None => None,
        }
    });
    let sessions = sessions?;
    let current = match current {
        Some(Ok(session)) if only.is_empty() || session.agent == only => session,
        // Another agent's, or gone: begin anew.
        Some(Ok(_)) | None => ChatSession::default(),
        Some(Err(error)) if error.kind == Kind::NotFound || matches!(error.kind, Kind::Invalid { .. }) => {
            problem::log(&error);
            ChatSession::default()
        }
        Some(Err(error)) => return Err(error),
    };
    let href = |session: &str| format!("{}?{id}={}", place.path, segment(session));
    let view = AgentChat {
        agents: agents
            .into_iter()
            .map(|name| Choice { selected: name == current.agent, label: name.clone(), value: name })
            .collect(),
        last_seq: current.last_seq,
        // A question without its answer is being answered.
        live: current.messages.last().is_some_and(|m| m.from_person),
        messages: current
            .messages
            .iter()
            .map(|m| Message {
                from_person: m.from_person,
                who: if m.from_person { "You".to_owned() } else { current.agent.clone() },
                text: m.content.clone(),
            })
            .collect(),
        sessions: sessions
            .iter()
            .map(|s| Choice {
                value: href(&s.id),
                label: match line(&s.title, 60) {
                    title if title.is_empty() => "Untitled".to_owned(),
                    title => title,
                },
                selected: s.id == current.id,
            })
            .collect(),
        new_href: place.path.to_owned(),
        placeholder: if placeholder.is_empty() { "Write a message".to_owned() } else { placeholder },
        tall: place.single,
        session: current.id,
        id,
    };
    Ok(html(&view))
}

pub(super) fn flatten(agents: &[Agent], names: &mut Vec<String>) {
    for agent in agents {
        names.push(agent.name.clone());
        flatten(&agent.children, names);
    }
}
