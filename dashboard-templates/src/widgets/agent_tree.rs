//! Agents and who reports to whom.

use askama::Template;

#[derive(Debug, Clone, Template)]
#[template(path = "widgets/agent_node.html")]
pub struct AgentNode {
    pub name: String,
    pub role: String,
    pub href: String,
    /// Shown as a tag; empty for the workspace's own.
    pub origin: String,
    pub children: Vec<AgentNode>,
}

#[derive(Debug, Clone, Template)]
#[template(path = "widgets/agent_tree.html")]
pub struct AgentTree {
    pub roots: Vec<AgentNode>,
}
