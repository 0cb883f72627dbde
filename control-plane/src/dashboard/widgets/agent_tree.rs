//! Agents and who reports to whom.

use super::{Place, settings};
use crate::dashboard::shell::segment;
use crate::error::{Error, Result};
use crate::runner_client::model::{Agent, Component};
use nexaas_dashboard::widgets::agent_tree::{AgentNode, AgentTree};
use nexaas_dashboard::widgets::{Html, html};
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    root: Option<String>,
}

pub async fn draw(place: &Place<'_>, component: &Component) -> Result<Html> {
    let config: Config = settings(component)?;
    let agents = place.api.agents().await?;
    let roots = match &config.root {
        None => agents.iter().map(node).collect(),
        Some(name) => {
            let root =
                find(&agents, name).ok_or_else(|| Error::invalid("root", format!("names no agent: '{name}'")))?;
            vec![node(root)]
        }
    };
    Ok(html(&AgentTree { roots }))
}

fn find<'a>(agents: &'a [Agent], name: &str) -> Option<&'a Agent> {
    agents.iter().find_map(|a| if a.name == name { Some(a) } else { find(&a.children, name) })
}

pub fn node(agent: &Agent) -> AgentNode {
    AgentNode {
        name: agent.name.clone(),
        role: if agent.role.is_empty() { agent.description.clone() } else { agent.role.clone() },
        href: format!("/workspace/agents/{}", segment(&agent.name)),
        origin: if agent.from_framework { "built in".to_owned() } else { String::new() },
        children: agent.children.iter().map(node).collect(),
    }
}
