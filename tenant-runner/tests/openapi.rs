//! The description of the API against the API: no row without a description, no description without a row, and every answer
//! in the shape that was promised.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use nexaas_runner::http::guard::Access;
use nexaas_runner::http::{openapi, routes};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use support::{Alone, Api};

fn declared() -> BTreeSet<String> {
    routes::table().iter().map(|route| format!("{} {}", route.method, route.path)).collect()
}

#[test]
fn the_document_describes_exactly_the_routes_there_are() {
    let document = openapi::whole();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let mut described = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            described.insert(format!("{} {path}", method.to_uppercase()));
            assert!(operation["summary"].is_string() || operation["description"].is_string(), "{method} {path}");
            let named: BTreeSet<&str> = path.split('{').skip(1).filter_map(|rest| rest.split('}').next()).collect();
            let all = operation["parameters"].as_array().cloned().unwrap_or_default();
            let given: BTreeSet<&str> =
                all.iter().filter(|p| p["in"] == "path").map(|p| p["name"].as_str().unwrap()).collect();
            assert_eq!(given, named, "{method} {path}");
        }
    }
    assert_eq!(described, declared());
}

#[test]
fn the_document_says_who_may_call() {
    for route in routes::table() {
        let operation = &openapi::whole()["paths"][route.path][route.method.as_str().to_lowercase()];
        let security = operation["security"].as_array().unwrap();
        assert_eq!(security.is_empty(), route.access == Access::Public, "{} {}", route.method, route.path);
        assert_eq!(
            operation["responses"].get("401").is_some(),
            route.access != Access::Public || route.path.ends_with("login")
        );
        assert!(route.access != Access::Admin || operation["responses"]["403"].is_object());
    }
}

#[test]
fn every_reference_in_the_document_leads_somewhere() {
    let text = openapi::whole().to_string();
    for name in text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(openapi::whole()["components"]["schemas"].get(name).is_some(), "{name}");
    }
}

/// What of `value` is not as `schema` promises. It knows the words that the document uses and fails at any other; a member that
/// the schema does not name is a mistake.
fn mistakes(schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let Some(words) = schema.as_object() else { return };
    let fits = |schema: &Value| {
        let mut inner = Vec::new();
        mistakes(schema, value, at, &mut inner);
        inner
    };
    for (word, meant) in words {
        match word.as_str() {
            "$ref" => {
                let name = meant.as_str().unwrap().strip_prefix("#/components/schemas/").unwrap();
                mistakes(&openapi::whole()["components"]["schemas"][name], value, at, found);
            }
            "type" => {
                let one = [meant.clone()];
                let types = meant.as_array().map_or(&one[..], Vec::as_slice);
                let is = |name: &Value| match name.as_str().unwrap() {
                    "null" => value.is_null(),
                    "string" => value.is_string(),
                    "boolean" => value.is_boolean(),
                    "integer" => value.is_i64() || value.is_u64(),
                    "number" => value.is_number(),
                    "array" => value.is_array(),
                    "object" => value.is_object(),
                    other => panic!("{at}: unknown type {other}"),
                };
                if !types.iter().any(is) {
                    found.push(format!("{at}: {value} is not {meant}"));
                }
            }
            "format" if meant == "date-time" => {
                if let Some(text) = value.as_str()
                    && chrono::DateTime::parse_from_rfc3339(text).is_err()
                {
                    found.push(format!("{at}: {text} is no moment"));
                }
            }
            "minimum" => {
                if value.as_f64().is_some_and(|number| number < meant.as_f64().unwrap()) {
                    found.push(format!("{at}: {value} is less than {meant}"));
                }
            }
            "required" => {
                for name in meant.as_array().unwrap().iter().map(|name| name.as_str().unwrap()) {
                    if value.is_object() && value.get(name).is_none() {
                        found.push(format!("{at}.{name} is missing"));
                    }
                }
            }
            "properties" => {
                for (name, member) in value.as_object().into_iter().flatten() {
                    match meant.get(name) {
                        Some(schema) => mistakes(schema, member, &format!("{at}.{name}"), found),
                        None => found.push(format!("{at}.{name} is not described")),
                    }
                }
            }
            "items" => {
                for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                    mistakes(meant, item, &format!("{at}[{n}]"), found);
                }
            }
            "oneOf" | "anyOf" => {
                let tried: Vec<_> = meant.as_array().unwrap().iter().map(fits).collect();
                if !tried.iter().any(Vec::is_empty) {
                    found.extend(tried.into_iter().flatten());
                }
            }
            "allOf" => found.extend(meant.as_array().unwrap().iter().flat_map(fits)),
            "description" | "format" | "example" | "title" | "default" => {}
            other => panic!("{at}: the checker does not know {other}"),
        }
    }
}

#[test]
fn the_checker_sees_mistakes() {
    let schema = json!({"type": "object", "required": ["a"], "properties": {
        "a": {"type": ["integer", "null"], "minimum": 0}, "b": {"type": "array", "items": {"type": "string"}}}});
    for (value, mistakes_there) in [
        (json!({"a": 1, "b": ["x"]}), 0),
        (json!({"a": null}), 0),
        (json!({"b": [1, "x", 2]}), 3),
        (json!({"a": -1, "c": 1}), 2),
        (json!([]), 1),
    ] {
        let mut found = Vec::new();
        mistakes(&schema, &value, "", &mut found);
        assert_eq!(found.len(), mistakes_there, "{value}: {found:?}");
    }
}

struct Checked {
    api: Api,
    seen: BTreeSet<String>,
}

impl Checked {
    /// Calls a row and holds its answer against the description.
    async fn call(&mut self, method: &str, row: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut request = self.api.request(method, path);
        if let Some(body) = &body {
            request = request.json(body);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let kind = response.headers().get("content-type").map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
        let text = response.text().await.unwrap();
        let operation = &openapi::whole()["paths"][row][method.to_lowercase()];
        let promised = &operation["responses"][status.to_string()];
        assert!(promised.is_object(), "{method} {path} answered {status}, which is not described: {text}");
        if status < 400 {
            self.seen.insert(format!("{method} {row}"));
        }
        let Some(content) = promised["content"].as_object() else {
            assert_eq!(text, "", "{method} {path}: a body where none was promised");
            return (status, Value::Null);
        };
        let (promised_kind, content) = content.iter().next().unwrap();
        assert!(kind.starts_with(promised_kind), "{method} {path}: {kind}");
        if promised_kind != "application/json" {
            return (status, Value::String(text));
        }
        let answer: Value = serde_json::from_str(&text).unwrap();
        let mut problems = Vec::new();
        mistakes(&content["schema"], &answer, "", &mut problems);
        assert!(problems.is_empty(), "{method} {path}: {problems:#?}\n{answer:#}");
        (status, answer)
    }

    async fn good(&mut self, method: &str, row: &str, path: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.call(method, row, path, body).await;
        assert!(status < 300, "{method} {path}: {status} {answer}");
        answer
    }

    async fn get(&mut self, row: &str) -> Value {
        self.good("GET", row, row, None).await
    }
}

#[tokio::test]
async fn every_row_answers_in_the_shape_that_is_described() {
    let alone = Alone::start_with(&[], |data| {
        let write = |path: &str, text: &str| {
            let file = data.join("workspace").join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        };
        write("workspace.yaml", "name: Tea\nbroken: [\n");
        write("agents/lead/config.yaml", "name: lead\n");
        write("agents/brewer/config.yaml", "name: brewer\nparent: lead\n");
        write("skills/taste.md", "# Taste\n\nTastes the tea.\n");
        write(
            "registries/teas.yaml",
            "name: teas\nfields:\n  - {name: title, type: string}\nentries:\n  - {title: Assam}\n",
        );
    })
    .await;
    let mut api = Checked { api: alone.api.clone(), seen: BTreeSet::new() };

    let person = json!({"company_name": "Acme", "username": "ada", "password": "correct horse"});
    let session = api.good("POST", "/api/auth/register", "/api/auth/register", Some(person)).await;
    let person = json!({"username": "ada", "password": "correct horse"});
    api.good("POST", "/api/auth/login", "/api/auth/login", Some(person)).await;
    let mut hers = Checked { api: api.api.with(session["token"].as_str()), seen: BTreeSet::new() };
    hers.get("/api/auth/me").await;
    hers.good("POST", "/api/auth/logout", "/api/auth/logout", None).await;
    api.seen.extend(hers.seen);

    for row in [
        "/api/health",
        "/api/openapi.json",
        "/api/workspace",
        "/api/mcp-catalog",
        "/api/agents",
        "/api/skills",
        "/api/registries",
        "/api/usage",
        "/api/chat/sessions",
        "/api/ops/health",
    ] {
        api.get(row).await;
    }
    api.good("GET", "/api/agents/{name}", "/api/agents/brewer", None).await;
    api.good("GET", "/api/skills/{name}", "/api/skills/taste", None).await;
    api.good("POST", "/api/skills/{name}/execute", "/api/skills/taste/execute", None).await;
    api.good("GET", "/api/registries/{name}", "/api/registries/teas", None).await;

    let mut live = alone.api.stream(None).await;
    api.seen.insert("GET /api/events/stream".to_owned());
    let event = json!({"id": "e", "type": "t", "condition_type": "webhook", "action_type": "script",
                       "action_config": {"command": "echo hello"}, "metadata": {"team": "tea"}});
    api.good("POST", "/api/events", "/api/events", Some(event)).await;
    api.get("/api/events").await;
    api.good("GET", "/api/events/{id}", "/api/events/e", None).await;
    api.good("PATCH", "/api/events/{id}", "/api/events/e", Some(json!({"description": "d"}))).await;
    api.good("POST", "/hooks/{id}", "/hooks/e", None).await;
    let fired = api.good("POST", "/api/events/{id}/trigger", "/api/events/e/trigger", None).await;
    live.until("job.succeeded").await;
    live.until("job.succeeded").await;
    api.get("/api/queue").await;
    let job = fired["job_id"].as_str().unwrap().to_owned();
    api.good("GET", "/api/queue/{id}", &format!("/api/queue/{job}"), None).await;
    let queued = api
        .good(
            "POST",
            "/api/queue",
            "/api/queue",
            Some(json!({
                "action_type": "script", "action_config": {"command": "exit 1"}, "concurrency_key": "k"
            })),
        )
        .await;
    let queued = format!("/api/queue/{}", queued["id"].as_str().unwrap());
    live.until("job.dead").await;
    api.good("POST", "/api/queue/{id}/retry", &format!("{queued}/retry"), None).await;
    live.until("job.dead").await;
    api.get("/api/queue/jobs").await;
    api.good("GET", "/api/queue/{id}", &queued, None).await;
    api.good("GET", "/api/queue/{id}/attempts", &format!("{queued}/attempts"), None).await;
    api.good("GET", "/api/queue/{id}/attempts/{number}/output", &format!("{queued}/attempts/1/output"), None).await;
    api.good("POST", "/api/queue/dead/retry", "/api/queue/dead/retry", None).await;
    live.until("job.dead").await;
    let limits = json!({"concurrency_limit": 2, "rate_limit": {"count": 1, "per_s": 0.5}});
    api.good("PUT", "/api/queue/keys/{key}", "/api/queue/keys/k", Some(limits)).await;
    api.get("/api/queue/keys").await;
    api.good("GET", "/api/queue/keys/{key}", "/api/queue/keys/k", None).await;
    api.get("/api/bus").await;
    let slow = json!({"id": "later", "type": "t", "condition_type": "webhook", "action_type": "script",
                      "action_config": {"command": "sleep 60"}});
    api.good("POST", "/api/events", "/api/events", Some(slow)).await;
    let fired = api.good("POST", "/api/events/{id}/trigger", "/api/events/later/trigger", None).await;
    let cancelled = format!("/api/queue/{}/cancel", fired["job_id"].as_str().unwrap());
    api.good("POST", "/api/queue/{id}/cancel", &cancelled, None).await;
    api.good("POST", "/api/events/{id}/pause", "/api/events/later/pause", None).await;
    api.good("POST", "/api/events/{id}/resume", "/api/events/later/resume", None).await;
    api.good("DELETE", "/api/events/{id}", "/api/events/later", None).await;

    api.get("/api/ops/alerts").await;
    let silence = json!({"category": "disk", "for_s": 3600, "reason": "moving house"});
    let made = api.good("POST", "/api/ops/silences", "/api/ops/silences", Some(silence)).await;
    let made = format!("/api/ops/silences/{}", made["id"].as_str().unwrap());
    for row in ["/api/ops/silences", "/api/ops/checks", "/api/ops/snapshots", "/api/ops/remedies"] {
        api.get(row).await;
    }
    api.good("DELETE", "/api/ops/silences/{id}", &made, None).await;
    api.good("POST", "/api/ops/heal/{action}", "/api/ops/heal/clear_locks", None).await;

    // Without something there, or without a recorder, the refusal is what is described.
    for (method, row, path, expected) in [
        ("GET", "/metrics", "/metrics", 404),
        ("GET", "/api/chat", "/api/chat", 400),
        ("GET", "/api/chat/sessions/{id}", "/api/chat/sessions/none", 404),
        ("DELETE", "/api/ops/alerts/{id}/silence", "/api/ops/alerts/none/silence", 404),
        ("POST", "/api/ops/alerts/{id}/acknowledge", "/api/ops/alerts/none/acknowledge", 404),
        ("POST", "/api/ops/heal/{action}", "/api/ops/heal/none", 400),
        ("GET", "/api/events/{id}", "/api/events/none", 404),
        ("POST", "/api/events", "/api/events", 415),
        ("GET", "/api/events", "/api/events?limit=many", 422),
    ] {
        let (status, _) = api.call(method, row, path, None).await;
        assert_eq!(status, expected, "{method} {path}");
        api.seen.insert(format!("{method} {row}"));
    }
    let (row, silence) = ("/api/ops/alerts/{id}/silence", json!({"for_s": 60, "reason": "r"}));
    assert_eq!(api.call("POST", row, "/api/ops/alerts/none/silence", Some(silence)).await.0, 404);
    api.seen.insert(format!("POST {row}"));
    let missed: Vec<String> = declared().difference(&api.seen).cloned().collect();
    assert!(missed.is_empty(), "not called: {missed:?}");
    alone.stop().await;
}
