//! Agents: one folder each, with `config.yaml`, `prompt.md` and a `reference` folder that is only read when asked for; and the
//! tree they form.
//!
//! Always true here: every agent appears in the tree exactly once, whatever its files say about parents.

use super::files::{Root, stem};
use super::layout::line_of;
use super::problem::Problem;
use super::yaml::{self, or_default};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_saphyr::Spanned;
use std::collections::{BTreeMap, BTreeSet};

/// How deep agents may lie in folders below `agents/`.
const DEEPEST: usize = 4;

/// Where an item comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    Framework,
    Client,
}

impl Source {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Framework => "framework",
            Self::Client => "client",
        }
    }
}

/// One agent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Agent {
    pub name: String,
    /// The folder, relative to the root it comes from.
    pub dir: String,
    /// `config.yaml` as JSON.
    pub config: Value,
    pub prompt: String,
    pub parent: Option<String>,
    pub source: Source,
    #[serde(skip)]
    pub role: String,
    #[serde(skip)]
    pub description: String,
    #[serde(skip)]
    pub capabilities: Vec<String>,
    #[serde(skip)]
    pub model: Option<String>,
    #[serde(skip)]
    pub sub_agents: Vec<String>,
    /// Names of the files in `reference/`, without their content.
    #[serde(skip)]
    pub references: Vec<String>,
    /// Where `parent` is written, for problems.
    #[serde(skip)]
    pub parent_line: u32,
}

/// An agent with those below it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AgentNode {
    #[serde(flatten)]
    pub agent: Agent,
    pub children: Vec<AgentNode>,
}

#[derive(Debug, Default, Deserialize)]
struct File {
    #[serde(default, deserialize_with = "or_default")]
    name: String,
    #[serde(default, deserialize_with = "or_default")]
    role: String,
    #[serde(default, deserialize_with = "or_default")]
    description: String,
    #[serde(default, deserialize_with = "or_default")]
    capabilities: Vec<String>,
    #[serde(default)]
    parent: Option<Spanned<String>>,
    #[serde(default, deserialize_with = "or_default")]
    sub_agents: Vec<SubAgent>,
    #[serde(default, deserialize_with = "or_default")]
    model: String,
}

/// A name, or a map that has one.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "must be an agent's name, or a map with a name")]
enum SubAgent {
    Name(String),
    Map { name: String },
}

/// Reads every agent of one root. For a folder whose files are broken, `last_good` is asked by folder.
pub fn load(
    root: &Root,
    source: Source,
    last_good: &BTreeMap<String, Agent>,
    problems: &mut Vec<Problem>,
) -> Vec<Agent> {
    let mut agents = Vec::new();
    walk(root, "agents", 0, source, last_good, &mut agents, problems);
    agents
}

fn walk(
    root: &Root,
    path: &str,
    depth: usize,
    source: Source,
    last_good: &BTreeMap<String, Agent>,
    agents: &mut Vec<Agent>,
    problems: &mut Vec<Problem>,
) {
    for entry in root.list(path, problems).into_iter().filter(|e| e.is_dir) {
        if depth > 0 && entry.name == "reference" {
            continue;
        }
        let dir = format!("{path}/{}", entry.name);
        match one(root, &dir, &entry.name, source, problems) {
            Ok(Some(agent)) => {
                let file = format!("{dir}/config.yaml");
                if agents.iter().any(|a| a.name == agent.name) {
                    let reason =
                        format!("agent '{}' is already defined in another folder; this one is ignored", agent.name);
                    problems.push(Problem::error(file, 0, reason));
                } else {
                    agents.push(agent);
                }
            }
            Ok(None) => {}
            Err(problem) => {
                problems.push(problem);
                agents.extend(last_good.get(&dir).cloned());
            }
        }
        if depth + 1 < DEEPEST {
            walk(root, &dir, depth + 1, source, last_good, agents, problems);
        }
    }
}

fn one(
    root: &Root,
    dir: &str,
    folder: &str,
    source: Source,
    problems: &mut Vec<Problem>,
) -> Result<Option<Agent>, Problem> {
    let file = format!("{dir}/config.yaml");
    let Some(text) = root.text(&file)? else { return Ok(None) };
    let document = yaml::parse::<File>(&file, &text)?;
    let typed = document.typed;
    let prompt = root.text(&format!("{dir}/prompt.md"))?.unwrap_or_default();
    let references = root
        .list(&format!("{dir}/reference"), problems)
        .into_iter()
        .filter(|e| !e.is_dir && stem(&e.name, &[".md", ".txt"]).is_some())
        .map(|e| e.name)
        .collect();
    let parent_line = typed.parent.as_ref().map_or(0, line_of);
    Ok(Some(Agent {
        name: if typed.name.is_empty() { folder.to_owned() } else { typed.name },
        dir: dir.to_owned(),
        config: document.json,
        prompt,
        parent: typed.parent.map(|p| p.value).filter(|p| !p.is_empty()),
        source,
        role: typed.role,
        description: typed.description,
        capabilities: typed.capabilities,
        model: Some(typed.model).filter(|m| !m.is_empty()),
        sub_agents: typed
            .sub_agents
            .into_iter()
            .map(|s| match s {
                SubAgent::Name(name) | SubAgent::Map { name } => name,
            })
            .collect(),
        references,
        parent_line,
    }))
}

/// Arranges agents under their parents. A parent is what `parent` names, else whoever lists the agent in `sub_agents`.
/// Whoever's parents form a circle, or name nobody, is a root, with a problem.
pub fn tree(
    agents: &BTreeMap<String, Agent>,
    problems: &mut Vec<Problem>,
) -> (BTreeMap<String, Agent>, Vec<AgentNode>) {
    let mut agents = agents.clone();
    let listed: Vec<(String, String)> =
        agents.values().flat_map(|a| a.sub_agents.iter().map(|s| (s.clone(), a.name.clone()))).collect();
    for (child, parent) in listed {
        match agents.get_mut(&child) {
            Some(agent) if agent.parent.is_none() => agent.parent = Some(parent),
            Some(_) => {}
            None => {
                let dir = agents.get(&parent).map(|a| a.dir.clone()).unwrap_or_default();
                let reason = format!("sub_agents names '{child}', which does not exist");
                problems.push(Problem::warning(format!("{dir}/config.yaml"), 0, reason));
            }
        }
    }
    let mut cut = BTreeSet::new();
    for agent in agents.values() {
        let Some(parent) = &agent.parent else { continue };
        let file = format!("{}/config.yaml", agent.dir);
        if !agents.contains_key(parent) {
            problems.push(Problem::warning(file, agent.parent_line, format!("parent '{parent}' does not exist")));
            cut.insert(agent.name.clone());
        } else if on_a_circle(&agents, &agent.name) {
            problems.push(Problem::error(
                file,
                agent.parent_line,
                format!("agent '{}' is its own ancestor through '{parent}'", agent.name),
            ));
            cut.insert(agent.name.clone());
        }
    }
    for name in cut {
        if let Some(agent) = agents.get_mut(&name) {
            agent.parent = None;
        }
    }
    let roots = agents.values().filter(|a| a.parent.is_none()).map(|a| node(&agents, a)).collect();
    (agents, roots)
}

fn on_a_circle(agents: &BTreeMap<String, Agent>, name: &str) -> bool {
    let mut at = name;
    for _ in 0..agents.len() {
        match agents.get(at).and_then(|a| a.parent.as_deref()) {
            Some(parent) if parent == name => return true,
            Some(parent) => at = parent,
            None => return false,
        }
    }
    // Leads into a circle of others.
    false
}

// The recursion is bounded: circles were cut, and a chain is at most as long as the number of agents, which files cap.
fn node(agents: &BTreeMap<String, Agent>, agent: &Agent) -> AgentNode {
    let children =
        agents.values().filter(|a| a.parent.as_deref() == Some(agent.name.as_str())).map(|a| node(agents, a)).collect();
    AgentNode { agent: agent.clone(), children }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(name: &str, parent: Option<&str>, sub_agents: &[&str]) -> (String, Agent) {
        let agent = Agent {
            name: name.to_owned(),
            dir: format!("agents/{name}"),
            config: Value::Null,
            prompt: String::new(),
            parent: parent.map(str::to_owned),
            source: Source::Client,
            role: String::new(),
            description: String::new(),
            capabilities: vec![],
            model: None,
            sub_agents: sub_agents.iter().map(|s| (*s).to_owned()).collect(),
            references: vec![],
            parent_line: 2,
        };
        (name.to_owned(), agent)
    }

    fn count(nodes: &[AgentNode]) -> usize {
        nodes.iter().map(|n| 1 + count(&n.children)).sum()
    }

    #[test]
    fn children_come_from_either_end() {
        let all =
            [agent("lead", None, &["writer"]), agent("writer", None, &[]), agent("editor", Some("lead"), &[])].into();
        let mut problems = vec![];
        let (_, roots) = tree(&all, &mut problems);
        assert!(problems.is_empty());
        assert_eq!(roots.len(), 1);
        assert_eq!(roots[0].children.iter().map(|c| c.agent.name.as_str()).collect::<Vec<_>>(), ["editor", "writer"]);
    }

    #[test]
    fn a_circle_of_parents_is_a_problem_and_nobody_is_lost() {
        let all = [
            agent("a", Some("b"), &[]),
            agent("b", Some("a"), &[]),
            agent("c", Some("a"), &[]),
            agent("s", Some("s"), &[]),
        ]
        .into();
        let mut problems = vec![];
        let (_, roots) = tree(&all, &mut problems);
        assert_eq!(count(&roots), 4);
        assert_eq!(problems.iter().filter(|p| p.reason.contains("own ancestor")).count(), 3, "{problems:?}");
        assert_eq!(problems[0].line, 2);
    }

    #[test]
    fn a_parent_that_does_not_exist_makes_a_root_with_a_warning() {
        let all = [agent("a", Some("ghost"), &[])].into();
        let mut problems = vec![];
        let (agents, roots) = tree(&all, &mut problems);
        assert_eq!((roots.len(), agents["a"].parent.as_deref()), (1, None));
        assert!(problems[0].reason.contains("ghost"));
    }

    proptest::proptest! {
        #[test]
        fn every_agent_is_in_the_tree_once(parents in proptest::collection::vec(proptest::option::of(0usize..12), 12)) {
            let all: BTreeMap<_, _> = parents.iter().enumerate()
                .map(|(n, p)| agent(&format!("a{n}"), p.map(|p| format!("a{p}")).as_deref(), &[])).collect();
            let (_, roots) = tree(&all, &mut vec![]);
            proptest::prop_assert_eq!(count(&roots), 12);
        }
    }
}
