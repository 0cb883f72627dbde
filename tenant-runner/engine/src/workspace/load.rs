//! Loading: one layer per root, merged into what is served. A pure function of the files and of the layer before.
//!
//! Always true here: a file that cannot be used leaves the last good version of its item in force; an item of the workspace
//! replaces the framework's item of the same name whole.

use super::agents::{self, Agent, AgentNode, Source};
use super::files::Root;
use super::layout::{self, Layout};
use super::mcp::{self, CatalogEntry};
use super::memory::{self, MemoryEvent};
use super::problem::{Problem, Severity};
use super::registries::{self, Registry};
use super::skills::{self, Skill};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// The file that names the workspace.
pub const LAYOUT_FILE: &str = "workspace.yaml";
pub const CONTEXT_FILE: &str = "CLAUDE.md";

/// What one root holds.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    pub layout: Option<Layout>,
    pub claude_md: String,
    pub agents: Vec<Agent>,
    pub skills: Vec<Skill>,
    pub registries: Vec<Registry>,
    pub mcp_config: Option<Value>,
    pub catalog: Vec<CatalogEntry>,
    pub followups: Vec<MemoryEvent>,
    pub checks: Vec<MemoryEvent>,
}

/// What the two roots amount to together. Cheap to share, never changed.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Bumped whenever what is served changes.
    pub revision: u64,
    pub problems: Vec<Problem>,
    pub layout: Layout,
    pub agents: BTreeMap<String, Agent>,
    pub tree: Vec<AgentNode>,
    pub skills: Vec<Skill>,
    pub registries: BTreeMap<String, Registry>,
    /// The workspace's own context.
    pub claude_md: String,
    pub framework_claude_md: String,
    /// Secrets are already taken out.
    pub mcp_config: Value,
    pub mcp_catalog: Vec<CatalogEntry>,
    pub(crate) memory: Vec<MemoryEvent>,
    pub(crate) framework: Arc<Layer>,
    pub(crate) workspace: Arc<Layer>,
}

impl Snapshot {
    pub fn agent(&self, name: &str) -> Option<&Agent> {
        self.agents.get(name)
    }

    pub fn skill(&self, name: &str) -> Option<&Skill> {
        self.skills.iter().find(|s| s.filename == name).or_else(|| self.skills.iter().find(|s| s.answers_to(name)))
    }

    pub fn registry(&self, name: &str) -> Option<&Registry> {
        self.registries.get(name)
    }

    /// One agent with those below it.
    pub fn node(&self, name: &str) -> Option<&AgentNode> {
        fn find<'a>(nodes: &'a [AgentNode], name: &str) -> Option<&'a AgentNode> {
            nodes.iter().find_map(|n| if n.agent.name == name { Some(n) } else { find(&n.children, name) })
        }
        find(&self.tree, name)
    }

    /// Whether the same is served, whatever the revision.
    fn serves_the_same(&self, other: &Self) -> bool {
        self.problems == other.problems
            && self.layout.raw == other.layout.raw
            && self.agents == other.agents
            && self.tree == other.tree
            && self.skills == other.skills
            && self.registries == other.registries
            && self.claude_md == other.claude_md
            && self.framework_claude_md == other.framework_claude_md
            && self.mcp_config == other.mcp_config
            && self.mcp_catalog == other.mcp_catalog
            && self.memory == other.memory
    }
}

/// Reads one root. `last` is what it held before.
pub fn layer(root: &Root, source: Source, zone: chrono_tz::Tz, last: &Layer, problems: &mut Vec<Problem>) -> Layer {
    let agents_before = last.agents.iter().map(|a| (a.dir.clone(), a.clone())).collect();
    let skills_before = last.skills.iter().map(|s| (s.path.clone(), s.clone())).collect();
    let registries_before = last.registries.iter().map(|r| (r.path.clone(), r.clone())).collect();
    let catalog_before = last.catalog.iter().map(|c| (c.path.clone(), c.clone())).collect();

    let layout = kept(
        read(root, LAYOUT_FILE, problems, |text, found| layout::parse(LAYOUT_FILE, text, found)),
        || last.layout.clone(),
        problems,
    );
    let claude_md = kept(root.text(CONTEXT_FILE), || Some(last.claude_md.clone()), problems).unwrap_or_default();
    let mcp_config = kept(mcp::load_config(root), || last.mcp_config.clone(), problems);
    let followups = kept(
        read(root, memory::FOLLOWUPS, problems, |text, found| memory::followups(text, zone, found)),
        || Some(last.followups.clone()),
        problems,
    );
    let checks = kept(read(root, memory::CHECKS, problems, memory::checks), || Some(last.checks.clone()), problems);
    Layer {
        layout,
        claude_md,
        agents: agents::load(root, source, &agents_before, problems),
        skills: skills::load(root, source, &skills_before, problems),
        registries: registries::load(root, source, &registries_before, problems),
        mcp_config,
        catalog: mcp::load_catalog(root, &catalog_before, problems),
        followups: followups.unwrap_or_default(),
        checks: checks.unwrap_or_default(),
    }
}

fn read<T>(
    root: &Root,
    file: &str,
    problems: &mut Vec<Problem>,
    parse: impl FnOnce(&str, &mut Vec<Problem>) -> Result<T, Problem>,
) -> Result<Option<T>, Problem> {
    root.text(file)?.map(|text| parse(&text, problems)).transpose()
}

/// The new value, or the last good one with a problem.
fn kept<T>(
    read: Result<Option<T>, Problem>,
    last: impl FnOnce() -> Option<T>,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    read.unwrap_or_else(|problem| {
        problems.push(problem);
        last()
    })
}

/// Merges the layers; `before` gives the revision.
pub fn merge(framework: Layer, workspace: Layer, mut problems: Vec<Problem>, before: &Snapshot) -> Snapshot {
    let mut agents: BTreeMap<String, Agent> = framework.agents.iter().map(|a| (a.name.clone(), a.clone())).collect();
    agents.extend(workspace.agents.iter().map(|a| (a.name.clone(), a.clone())));
    let (agents, tree) = agents::tree(&agents, &mut problems);

    let mut skills: BTreeMap<String, Skill> =
        framework.skills.iter().map(|s| (s.filename.clone(), s.clone())).collect();
    skills.extend(workspace.skills.iter().map(|s| (s.filename.clone(), s.clone())));
    let mut registries: BTreeMap<String, Registry> =
        framework.registries.iter().map(|r| (r.name.clone(), r.clone())).collect();
    registries.extend(workspace.registries.iter().map(|r| (r.name.clone(), r.clone())));
    let mut catalog: BTreeMap<String, CatalogEntry> =
        framework.catalog.iter().map(|c| (c.name.clone(), c.clone())).collect();
    catalog.extend(workspace.catalog.iter().map(|c| (c.name.clone(), c.clone())));

    problems.sort();
    problems.dedup();
    let mut snapshot = Snapshot {
        revision: before.revision,
        problems,
        layout: workspace.layout.clone().or_else(|| framework.layout.clone()).unwrap_or_default(),
        agents,
        tree,
        skills: skills.into_values().collect(),
        registries,
        claude_md: workspace.claude_md.clone(),
        framework_claude_md: framework.claude_md.clone(),
        mcp_config: workspace.mcp_config.clone().unwrap_or_else(mcp::empty),
        mcp_catalog: catalog.into_values().collect(),
        memory: workspace.followups.iter().chain(&workspace.checks).cloned().collect(),
        framework: Arc::new(framework),
        workspace: Arc::new(workspace),
    };
    if before.revision == 0 || !snapshot.serves_the_same(before) {
        snapshot.revision += 1;
    }
    snapshot
}

/// What a load found.
#[derive(Debug)]
pub struct Loaded {
    pub snapshot: Snapshot,
    /// The texts of the workspace's files, by path, and the paths of those that cannot be used.
    pub texts: BTreeMap<String, String>,
    pub broken: BTreeSet<String>,
}

/// The layer that remembered texts stand for.
pub fn remembered(texts: BTreeMap<String, String>, zone: chrono_tz::Tz) -> Layer {
    layer(&Root::remembered(texts), Source::Client, zone, &Layer::default(), &mut Vec::new())
}

/// What a root that only exists in memory amounts to, with its problems.
#[cfg(any(test, feature = "fuzzing"))]
pub fn tried(root: &Root, zone: chrono_tz::Tz) -> (Snapshot, Vec<Problem>) {
    let mut problems = Vec::new();
    let layer = layer(root, Source::Client, zone, &Layer::default(), &mut problems);
    let snapshot = merge(Layer::default(), layer, problems, &Snapshot::default());
    (snapshot.clone(), snapshot.problems)
}

/// Reads both roots again. A root that cannot be opened keeps its last layer, with a problem.
pub fn load(framework: Option<&Path>, workspace: &Path, zone: chrono_tz::Tz, before: &Snapshot) -> Loaded {
    let mut problems = Vec::new();
    let mut texts = BTreeMap::new();
    let workspace_layer = match Root::open(workspace) {
        Ok(root) => {
            let layer = layer(&root, Source::Client, zone, &before.workspace, &mut problems);
            texts = root.into_read();
            layer
        }
        Err(error) => {
            problems.push(Problem::error(".", 0, format!("the workspace cannot be opened: {error}")));
            before.workspace.as_ref().clone()
        }
    };
    let broken = problems.iter().filter(|p| p.severity == Severity::Error).map(|p| p.file.clone()).collect();
    let framework_layer = match framework {
        None => Layer::default(),
        Some(path) => match Root::open(path) {
            Ok(root) => {
                let mut found = Vec::new();
                let layer = layer(&root, Source::Framework, zone, &before.framework, &mut found);
                problems.extend(found.into_iter().map(|mut p| {
                    p.file = format!("framework/{}", p.file);
                    p
                }));
                layer
            }
            Err(error) => {
                problems.push(Problem::error("framework", 0, format!("cannot be opened: {error}")));
                before.framework.as_ref().clone()
            }
        },
    };
    Loaded { snapshot: merge(framework_layer, workspace_layer, problems, before), texts, broken }
}

/// Everything that is wrong with the workspace in `dir`, for whoever checks one before using it.
pub fn validate(dir: &Path) -> Vec<Problem> {
    let mut problems = Vec::new();
    match Root::open(dir) {
        Ok(root) => {
            if matches!(root.text(LAYOUT_FILE), Ok(None)) {
                problems.push(Problem::error(LAYOUT_FILE, 0, "is missing"));
            }
            let layer = layer(&root, Source::Client, chrono_tz::UTC, &Layer::default(), &mut problems);
            merge(Layer::default(), layer, problems, &Snapshot::default()).problems
        }
        Err(error) => {
            problems.push(Problem::error(".", 0, format!("the workspace cannot be opened: {error}")));
            problems
        }
    }
}
