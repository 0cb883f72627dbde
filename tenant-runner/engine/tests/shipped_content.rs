//! What ships must load: the templates over the framework, in a real engine, without a single problem.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail this way, in its helpers too")]

use nexaas_common::clock::SystemClock;
use nexaas_common::task::Supervisor;
use nexaas_engine::event::EventFilter;
use nexaas_engine::usage::UsageFilter;
use nexaas_engine::workspace::{AgentNode, validate};
use nexaas_engine::{Engine, EngineConfig};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

struct Made {
    engine: Arc<Engine>,
    supervisor: Supervisor,
    _dir: tempfile::TempDir,
}

/// An engine whose workspace was made from `template`.
async fn made(template: &str) -> Made {
    let dir = tempfile::tempdir().unwrap();
    let mut config = EngineConfig::new("standalone", dir.path().join("nexaas.db"), dir.path().join("workspace"));
    config.framework_root = Some(repository().join("framework"));
    config.templates_root = Some(repository().join("templates"));
    let supervisor = Supervisor::new();
    let engine = Engine::start(config, SystemClock::shared(), supervisor.clone()).await.unwrap();
    let made = engine.workspace().initialize(template).await.unwrap();
    assert!(made.created, "{}", made.detail);
    engine.workspace().reload().await.unwrap();
    Made { engine, supervisor, _dir: dir }
}

impl Made {
    async fn end(self) {
        self.supervisor.shutdown(Duration::from_secs(10)).await.unwrap();
    }
}

fn outline(nodes: &[AgentNode], depth: usize, into: &mut Vec<String>) {
    for node in nodes {
        into.push(format!("{}{}", "  ".repeat(depth), node.agent.name));
        outline(&node.children, depth + 1, into);
    }
}

#[test]
fn the_folders_that_ship_have_no_problem_of_their_own() {
    for folder in ["templates/fresh", "templates/demo"] {
        assert_eq!(validate(&repository().join(folder)), [], "{folder}");
    }
}

#[tokio::test]
async fn a_fresh_workspace_has_the_frameworks_agent_and_skill_and_a_home_page() {
    let made = made("fresh").await;
    let snapshot = made.engine.workspace().snapshot();
    assert_eq!(snapshot.problems, []);
    assert!(snapshot.agent("ops-monitor").is_some());
    assert!(snapshot.skill("health-check").is_some());
    assert!(snapshot.skills.len() == 1 && snapshot.registries.is_empty(), "notes for people are not content");
    let kinds: Vec<_> = snapshot.layout.perspectives[0].pages[0].components.iter().map(|c| c.kind.as_str()).collect();
    assert_eq!(kinds, ["stat-cards", "quick-actions", "queue-status", "agent-chat", "agent-tree", "event-timeline"]);
    made.end().await;
}

#[tokio::test]
async fn the_demonstration_has_its_team_its_tables_and_its_past() {
    let made = made("demo").await;
    let snapshot = made.engine.workspace().snapshot();
    assert_eq!(snapshot.problems, []);
    let mut tree = Vec::new();
    outline(&snapshot.tree, 0, &mut tree);
    assert_eq!(
        tree,
        [
            "account-director",
            "  reporting-analyst",
            "  strategist",
            "    copywriter",
            "    seo-specialist",
            "    social-media-manager",
            "ops-monitor",
        ]
    );
    assert_eq!(snapshot.registries.len(), 10);
    assert!(snapshot.registries.values().all(|r| r.entries.len() >= 8));
    assert_eq!(snapshot.skills.len(), 9);
    assert_eq!(snapshot.layout.perspectives.len(), 4);
    let usage = made.engine.usage().report(UsageFilter::default()).await.unwrap();
    assert!(
        usage.total_calls > 100 && usage.daily.len() >= 14,
        "{} calls on {} days",
        usage.total_calls,
        usage.daily.len()
    );
    let events = made.engine.events().list(EventFilter { limit: Some(100), ..EventFilter::default() }).await.unwrap();
    let ids: BTreeSet<_> = events.iter().map(|e| e.id.as_str()).collect();
    for id in ["morning-briefing", "new-brief", "disk-note", "followup:lumen-calculator", "check:overdue-deliverables"]
    {
        assert!(ids.contains(id), "{id} is missing in {ids:?}");
    }
    let briefing = events.iter().find(|e| e.id == "morning-briefing").unwrap();
    assert!(briefing.run_count > 5 && briefing.next_eval_at.is_some());
    let queue = made.engine.queue().view().await.unwrap();
    assert!(queue.counts.completed > 100 && queue.counts.failed >= 3 && queue.recent.len() == 20);
    assert!(!made.engine.workspace().root().join("seed").exists(), "the seed is not part of the workspace");
    made.end().await;
}
