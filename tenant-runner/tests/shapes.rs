//! The answers that scripts and dashboards were written against, as whole documents.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::path::Path;
use support::Alone;

fn write(root: &Path, path: &str, text: &str) {
    let file = root.join("workspace").join(path);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, text).unwrap();
}

fn small_workspace(data: &Path) {
    write(data, "CLAUDE.md", "We sell tea.\n");
    write(
        data,
        "workspace.yaml",
        "name: Tea\ndescription: A tea shop\nperspectives:\n  - id: main\n    name: Main\n    icon: home\n    default_page: home\n    pages:\n      - id: home\n        name: Home\n        icon: home\n        layout: grid\n        components:\n          - type: stat-cards\n            title: Numbers\n            span: 12\n            config: {cards: [jobs]}\n",
    );
    write(data, "agents/lead/config.yaml", "name: lead\nrole: Lead\ndescription: Leads\ncapabilities: [plan]\n");
    write(data, "agents/lead/prompt.md", "You lead.\n");
    write(data, "agents/brewer/config.yaml", "name: brewer\nrole: Brewer\ndescription: Brews\nparent: lead\n");
    write(data, "agents/brewer/prompt.md", "You brew.\n");
    write(data, "skills/taste.md", "# Taste\n\nTastes the tea.\n");
    write(
        data,
        "registries/teas.yaml",
        "name: teas\ndescription: What we sell\nfields:\n  - {name: title, type: string}\n  - {name: price, type: number}\nentries:\n  - {title: Assam, price: 4}\n",
    );
    write(data, ".mcp.json", r#"{"mcpServers":{"mail":{"command":"mail-mcp","env":{"MAIL_TOKEN":"do-not-show"}}}}"#);
}

#[tokio::test]
async fn the_workspace_is_served_in_the_shapes_of_the_original() {
    let alone = Alone::start_with(&[], small_workspace).await;
    let api = &alone.api;
    let workspace = api.get("/api/workspace").await;
    assert!(!workspace.to_string().contains("do-not-show"), "{workspace}");
    insta::assert_json_snapshot!("workspace", workspace, { ".root" => "[root]", ".revision" => "[revision]" });
    insta::assert_json_snapshot!("agents", api.get("/api/agents").await);
    insta::assert_json_snapshot!("agent", api.get("/api/agents/brewer").await);
    insta::assert_json_snapshot!("skills", api.get("/api/skills").await);
    insta::assert_json_snapshot!("skill", api.get("/api/skills/taste").await);
    insta::assert_json_snapshot!("registries", api.get("/api/registries").await);
    insta::assert_json_snapshot!("registry", api.get("/api/registries/teas").await);
    insta::assert_json_snapshot!("mcp_catalog", api.get("/api/mcp-catalog").await);
    insta::assert_json_snapshot!("usage", api.get("/api/usage").await);
    insta::assert_json_snapshot!("queue", api.get("/api/queue").await);
    insta::assert_json_snapshot!("ops_health", api.get("/api/ops/health").await, {
        ".snapshot_at" => "[time]", ".workers_alive" => "[soon all]", ".database_bytes" => "[bytes]",
        ".wal_bytes" => "[bytes]", ".disk_free_bytes" => "[bytes]", ".memory_bytes" => "[bytes]",
        ".open_alerts" => "[of this machine]"
    });
    alone.stop().await;
}

#[tokio::test]
async fn an_event_has_the_columns_of_the_original() {
    let alone = Alone::start().await;
    let body = serde_json::json!({
        "id": "daily", "type": "report", "condition_type": "cron",
        "condition_expr": {"expr": "0 9 * * 1-5", "timezone": "Europe/Berlin"},
        "action_type": "webhook", "action_config": {"url": "https://example.com/hook"}, "priority": 3,
        "max_retries": 2, "retry_backoff_minutes": 5, "description": "Tells them", "metadata": {"team": "tea"}
    });
    let (status, made) = alone.api.call("POST", "/api/events", Some(body)).await;
    assert_eq!(status, 200, "{made}");
    insta::assert_json_snapshot!("event", alone.api.get("/api/events/daily").await, {
        ".next_eval_at" => "[time]", ".created_at" => "[time]", ".updated_at" => "[time]"
    });
    alone.stop().await;
}

#[tokio::test]
async fn a_skill_runs_and_says_that_no_model_is_configured() {
    let alone = Alone::start_with(&[], small_workspace).await;
    let (status, answer) = alone.api.call("POST", "/api/skills/taste/execute", None).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["skill"], "Taste");
    assert!(!answer["result"].as_str().unwrap().is_empty());
    let input = serde_json::json!({"input": "Assam"});
    assert_eq!(alone.api.call("POST", "/api/skills/Taste/execute", Some(input)).await.0, 200);
    assert_eq!(alone.api.call("POST", "/api/skills/none/execute", None).await.0, 404);
    alone.stop().await;
}
