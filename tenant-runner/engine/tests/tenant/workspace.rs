use crate::support::{PATIENCE, WRITER, World, write};
use futures::StreamExt as _;
use nexaas_engine::Kind;
use nexaas_engine::event::EventFilter;
use nexaas_engine::workspace::{Severity, Source, validate};
use serde_json::json;

#[tokio::test]
async fn an_item_of_the_workspace_replaces_the_frameworks_of_the_same_name_whole() {
    let world = World::new(&[
        ("framework/agents/ops/config.yaml", "name: ops\nrole: Framework's\ndescription: from the framework\n"),
        ("framework/agents/base/config.yaml", "name: base\n"),
        ("framework/skills/check.md", "# Check\nframework's"),
        ("workspace/agents/ops/config.yaml", "name: ops\nrole: Client's\nparent: base\n"),
        ("workspace/skills/check.md", "# Check\nclient's"),
    ])
    .await;
    let snapshot = world.engine.workspace().snapshot();
    let ops = snapshot.agent("ops").unwrap();
    assert_eq!((ops.source, ops.role.as_str(), ops.description.as_str()), (Source::Client, "Client's", ""));
    assert_eq!(snapshot.skill("Check").unwrap().description, "client's");
    let tree = serde_json::to_value(&snapshot.tree).unwrap();
    assert_eq!(tree[0]["name"], "base");
    assert_eq!(tree[0]["source"], "framework");
    assert_eq!(tree[0]["children"][0]["name"], "ops");
    world.stop().await;
}

#[tokio::test]
async fn a_saved_file_is_seen_without_asking() {
    let world = World::new(WRITER).await;
    world.write("agents/editor/config.yaml", "name: editor\n");
    world.until(|s| s.agent("editor").is_some()).await;
    // A folder that did not exist at the start, too.
    world.write("registries/clients.yaml", "fields: []\nentries: []\n");
    world.until(|s| s.registry("clients").is_some()).await;
    std::fs::remove_dir_all(world.root().join("agents/editor")).unwrap();
    world.until(|s| s.agent("editor").is_none()).await;
    world.stop().await;
}

#[tokio::test]
async fn a_broken_file_is_a_problem_and_the_last_good_version_stays() {
    let world = World::new(WRITER).await;
    world.write("workspace.yaml", "name: Acme\nperspectives:\n\t- id: x\n");
    world.write("agents/writer/config.yaml", "name: [writer\n");
    world.write("skills/report.md", "---\nname: x\n");
    let snapshot = world.until(|s| s.problems.len() == 3).await;
    assert_eq!(snapshot.layout.name, "Acme");
    assert_eq!(snapshot.agent("writer").unwrap().role, "Copywriter");
    assert!(snapshot.skill("report").unwrap().body.contains("three lines"));
    let problem = snapshot.problems.iter().find(|p| p.file == "workspace.yaml").unwrap();
    assert!(problem.line >= 2 && problem.severity == Severity::Error && problem.reason.contains("tab"), "{problem:?}");
    world.write("workspace.yaml", "name: Acme Two\n");
    world.until(|s| s.layout.name == "Acme Two" && s.problems.len() == 2).await;
    world.stop().await;
}

#[tokio::test]
async fn the_last_good_version_outlives_a_restart() {
    let world = World::new(WRITER).await;
    world.write("workspace.yaml", "name: [Acme\n");
    world.write("skills/other.md", "# Other");
    world.until(|s| !s.problems.is_empty() && s.skill("other").is_some()).await;
    let world = world.restarted(|_| {}).await;
    let snapshot = world.engine.workspace().snapshot();
    assert_eq!((snapshot.layout.name.as_str(), snapshot.problems.len()), ("Acme", 1));
    std::fs::remove_file(world.root().join("workspace.yaml")).unwrap();
    world.until(|s| s.layout.name.is_empty()).await;
    let world = world.restarted(|_| {}).await;
    assert_eq!(world.engine.workspace().snapshot().layout.name, "");
    world.stop().await;
}

#[tokio::test]
async fn a_huge_file_a_bomb_and_a_link_outside_are_problems() {
    let world = World::new(WRITER).await;
    std::fs::File::create(world.root().join("workspace.yaml")).unwrap().set_len(50 * 1024 * 1024).unwrap();
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for n in 1..12 {
        let before = vec![format!("*a{}", n - 1); 9].join(", ");
        bomb.push_str(&format!("a{n}: &a{n} [{before}]\n"));
    }
    world.write("registries/bomb.yaml", &bomb);
    std::fs::create_dir_all(world.root().join("memory")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", world.root().join("skills/leak.md")).unwrap();
    let snapshot = world.until(|s| s.problems.len() >= 3).await;
    assert_eq!(snapshot.layout.name, "Acme");
    for file in ["workspace.yaml", "registries/bomb.yaml", "skills/leak.md"] {
        assert!(snapshot.problems.iter().any(|p| p.file == file), "{file}: {:?}", snapshot.problems);
    }
    assert!(snapshot.skill("leak").is_none());
    world.stop().await;
}

#[tokio::test]
async fn the_view_has_the_fields_scripts_expect_and_no_secret() {
    let world = World::new(&[
        ("workspace/workspace.yaml", "name: Acme\ncustom: {kept: true}\nperspectives:\n  - id: p\n    pages:\n      - {id: home, components: [{type: chart, config: {a: [1]}}]}\n"),
        ("workspace/registries/clients.yaml", "entries: []\n"),
        ("workspace/.mcp.json", r#"{"mcpServers":{"a":{"command":"x","env":{"TOKEN":"sk-canary"}}}}"#),
    ])
    .await;
    let view = world.engine.workspace().view();
    for field in ["root", "config", "perspectives", "pages", "components", "registries", "claude_md", "mcp_config"] {
        assert!(view.get(field).is_some(), "{field}");
    }
    assert_eq!(view["config"]["custom"]["kept"], true);
    assert_eq!(view["components"][0]["config"]["a"][0], 1);
    assert_eq!(view["registries"][0]["name"], "clients");
    assert!(!view.to_string().contains("canary"));
    world.stop().await;
}

#[tokio::test]
async fn a_workspace_that_has_files_is_left_alone() {
    let world = World::new(&[("templates/demo/workspace.yaml", "name: Demo\n"), ("workspace/notes.txt", "mine")]).await;
    let answer = world.engine.workspace().initialize("demo").await.unwrap();
    assert!(!answer.created);
    assert!(!world.root().join("workspace.yaml").exists());
    assert!(world.engine.workspace().is_initialized().await.unwrap());
    world.stop().await;
}

#[tokio::test]
async fn a_template_that_does_not_exist_or_is_no_name_is_refused() {
    let world = World::new(&[]).await;
    for (name, kind) in [
        ("ghost", Kind::NotFound),
        ("../demo", Kind::Invalid { field: "template".into() }),
        ("", Kind::Invalid { field: "template".into() }),
    ] {
        assert_eq!(world.engine.workspace().initialize(name).await.unwrap_err().kind, kind, "{name}");
    }
    assert!(!world.engine.workspace().is_initialized().await.unwrap());
    world.stop().await;
}

#[tokio::test]
async fn a_template_is_copied_once_without_its_seed() {
    let world = World::new(&[
        ("templates/fresh/workspace.yaml", "name: Fresh\n"),
        ("templates/fresh/agents/a/config.yaml", "name: a\n"),
        (
            "templates/fresh/seed/history.yaml",
            "usage:\n  - {ago: 3h, model: claude-sonnet-4-5, source: chat, input_tokens: 10, cost_usd: 0.5}\n",
        ),
    ])
    .await;
    let first = world.engine.workspace().initialize("fresh").await.unwrap();
    assert!(first.created, "{first:?}");
    assert_eq!(world.engine.workspace().snapshot().layout.name, "Fresh");
    assert!(!world.root().join("seed").exists());
    assert!(world.root().join("memory").is_dir());
    let report = world.engine.usage().report(Default::default()).await.unwrap();
    assert_eq!((report.total_calls, report.total_cost_usd, report.daily[0].key.as_str()), (1, 0.5, "2026-05-04"));

    std::fs::remove_file(world.root().join("workspace.yaml")).unwrap();
    let world = world.restarted(|_| {}).await;
    let second = world.engine.workspace().initialize("fresh").await.unwrap();
    assert!(!second.created, "{second:?}");
    assert!(!world.root().join("workspace.yaml").exists());
    assert_eq!(world.engine.usage().report(Default::default()).await.unwrap().total_calls, 1);
    world.stop().await;
}

async fn memory_events(world: &World) -> Vec<(String, String)> {
    let events = world.engine.events().list(EventFilter::default()).await.unwrap();
    events.into_iter().filter(|e| e.kind.starts_with("memory_")).map(|e| (e.id, e.condition_expr)).collect()
}

/// Waits for the bus to tell of an event of `kind` about `id`.
async fn told(world: &World, kind: &str, id: &str) {
    let mut bus = Box::pin(world.engine.bus().subscribe(Some(0)));
    let waiting = async { while bus.next().await.is_some_and(|e| e.kind != kind || e.data["id"] != id) {} };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("nobody told of {kind} {id}"));
}

#[tokio::test]
async fn memory_files_become_events_and_follow_their_files() {
    let followup =
        |due: &str| format!("followups:\n  - {{id: call, agent: writer, due: '{due}', action: Ring them}}\n");
    let mut files = WRITER.to_vec();
    let first = followup("2026-06-01T09:00:00Z");
    files.push(("workspace/memory/followups.yaml", &first));
    files.push((
        "workspace/memory/checks.yaml",
        "checks:\n  - {id: desk, agent: writer, interval: 7200, action: Look}\n",
    ));
    let world = World::new(&files).await;
    told(&world, "event.created", "followup:call").await;
    told(&world, "event.created", "check:desk").await;
    let mut events = memory_events(&world).await;
    events.sort();
    assert_eq!(events[0], ("check:desk".to_owned(), "7200".to_owned()));
    assert!(events[1].1.starts_with("2026-06-01T09:00:00"), "{events:?}");

    world.write("memory/followups.yaml", &followup("2026-07-01T09:00:00Z"));
    told(&world, "event.updated", "followup:call").await;
    // What somebody deleted by hand stays deleted while its entry is the same.
    world.engine.events().delete("check:desk").await.unwrap();
    world.engine.workspace().reload().await.unwrap();
    assert_eq!(memory_events(&world).await.len(), 1);
    world.write("memory/followups.yaml", "followups:\n");
    told(&world, "event.deleted", "followup:call").await;
    // A broken file deletes nothing.
    world.write("memory/checks.yaml", "checks:\n  - {id: stool, agent: writer, action: Look}\n");
    told(&world, "event.created", "check:stool").await;
    world.write("memory/checks.yaml", "checks: [\n");
    world.until(|s| !s.problems.is_empty()).await;
    world.engine.workspace().reload().await.unwrap();
    assert_eq!(memory_events(&world).await, [("check:stool".to_owned(), "3600".to_owned())]);
    world.stop().await;
}

#[tokio::test]
async fn a_job_runs_an_agent_and_a_skill() {
    let world = World::new(WRITER).await;
    for (id, action) in [
        ("ask", json!({"action_type": "claude_chat", "action_config": {"agent": "writer", "prompt": "Say hello"}})),
        ("report", json!({"action_type": "skill", "action_config": {"skill": "report", "input": "May"}})),
    ] {
        let mut event = json!({"id": id, "type": "trigger", "condition_type": "webhook", "condition_expr": ""});
        event.as_object_mut().unwrap().extend(action.as_object().unwrap().clone());
        world.engine.events().upsert(event).await.unwrap();
        let job = world.engine.events().trigger(id).await.unwrap();
        let mut bus = Box::pin(world.engine.bus().subscribe(Some(0)));
        let waiting = async {
            while let Some(event) = bus.next().await {
                if event.kind == "job.succeeded" && event.data.to_string().contains(&job.to_string()) {
                    return;
                }
                assert_ne!(event.kind, "job.failed", "{event:?}");
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap();
        let result = world.engine.queue().get(job).await.unwrap().result.unwrap();
        assert!(result.contains("no model was asked"), "{result}");
    }
    let report = world.engine.usage().report(Default::default()).await.unwrap();
    let mut sources: Vec<&str> = report.by_source.iter().map(|b| b.key.as_str()).collect();
    sources.sort_unstable();
    assert_eq!(sources, ["agent_chat", "skill"]);
    world.stop().await;
}

#[test]
fn a_workspace_can_be_checked_before_it_is_used() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(validate(dir.path())[0].to_string(), "workspace.yaml:0: is missing");
    write(dir.path(), "workspace.yaml", "name: ok\n");
    assert!(validate(dir.path()).is_empty());
    write(dir.path(), "agents/a/config.yaml", "name: a\nparent: b\n");
    write(dir.path(), "agents/b/config.yaml", "name: b\nparent: a\n");
    write(dir.path(), "registries/r.yaml", "entries: 7\n");
    let problems = validate(dir.path());
    let shown: Vec<String> = problems.iter().map(|p| format!("{}:{}", p.file, p.line)).collect();
    assert_eq!(shown, ["agents/a/config.yaml:2", "agents/b/config.yaml:2", "registries/r.yaml:1"], "{problems:?}");
    assert_eq!(validate(&dir.path().join("nowhere"))[0].file, ".");
}
