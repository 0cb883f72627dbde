//! The HTTP API against a real engine in a directory of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use nexaas_runner::http::guard::Access;
use nexaas_runner::http::routes;
use serde_json::{Value, json};
use support::{API_KEY, Alone, Api, answer};

/// Registers the company and returns its admin's client.
async fn admin(api: &Api) -> Api {
    let body = json!({"company_name": "Acme", "username": "ada", "password": "correct horse"});
    let (status, body) = api.with(None).call("POST", "/api/auth/register", Some(body)).await;
    assert_eq!(status, 200, "{body}");
    api.with(body["token"].as_str())
}

fn script(id: &str, command: &str) -> Value {
    json!({
        "id": id, "type": "report", "condition_type": "webhook", "condition_expr": "", "action_type": "script",
        "action_config": {"command": command}, "description": "says something"
    })
}

#[tokio::test]
async fn every_route_but_three_refuses_a_caller_without_credentials() {
    let alone = Alone::start().await;
    let mut public = Vec::new();
    for route in routes::table() {
        if route.access == Access::Public {
            public.push(route.path);
            continue;
        }
        let path = route
            .path
            .replace("{name}", "x")
            .replace("{id}", "x")
            .replace("{action}", "x")
            .replace("{key}", "x")
            .replace("{number}", "1");
        for token in [None, Some("wrong"), Some("a.b.c"), Some("")] {
            let (status, body) = alone.api.with(token).call(route.method.as_str(), &path, None).await;
            assert_eq!(status, 401, "{} {path} with {token:?}: {body}", route.method);
            assert!(body["detail"].is_string(), "{body}");
        }
    }
    assert_eq!(public, ["/api/health", "/api/auth/register", "/api/auth/login"]);
    let (status, _) = alone.api.with(None).call("GET", "/api/nothing-here", None).await;
    assert_eq!(status, 401, "what does not exist is not told to strangers");
    let (status, body) = alone.api.call("GET", "/api/nothing-here", None).await;
    assert_eq!((status, body), (404, json!({"detail": "Nothing is at this path"})));
    alone.stop().await;
}

#[tokio::test]
async fn health_needs_no_caller() {
    let alone = Alone::start().await;
    let health = alone.api.with(None).get("/api/health").await;
    assert_eq!(health, json!({"status": "ok", "version": nexaas_common::VERSION}));
    assert_eq!(nexaas_runner::probe::ask(alone.dir.path()).await, Ok(()));
    alone.stop().await;
}

#[tokio::test]
async fn a_person_registers_logs_in_and_logs_out() {
    let alone = Alone::start().await;
    let nobody = alone.api.with(None);
    for (body, why) in [
        (json!({"username": "ada", "password": "correct horse"}), "company_name"),
        (json!({"company_name": "Acme", "username": "ada", "password": "short"}), "password"),
        (json!({"company_name": "Acme", "password": "correct horse"}), "username"),
    ] {
        let (status, answer) = nobody.call("POST", "/api/auth/register", Some(body)).await;
        assert_eq!(status, 400, "{answer}");
        assert_eq!(answer["field"], why, "{answer}");
    }
    let ada = admin(&alone.api).await;
    let me = ada.get("/api/auth/me").await;
    assert_eq!(me["username"], "ada");
    assert_eq!(me["role"], "admin");
    assert_eq!(me["company"], "Acme");
    let again = json!({"company_name": "Acme", "username": "ada", "password": "correct horse"});
    assert_eq!(nobody.call("POST", "/api/auth/register", Some(again)).await.0, 409);

    for username in ["ada", "nobody-of-that-name"] {
        let (status, body) = nobody
            .call("POST", "/api/auth/login", Some(json!({"username": username, "password": "wrong password"})))
            .await;
        assert_eq!((status, &body["detail"]), (401, &json!("Invalid credentials")));
    }
    let login = json!({"username": "ada", "password": "correct horse"});
    let (status, session) = nobody.call("POST", "/api/auth/login", Some(login)).await;
    assert_eq!(status, 200, "{session}");
    assert_eq!(session["user"]["company"], "Acme");
    let second = alone.api.with(session["token"].as_str());

    assert_eq!(second.call("POST", "/api/auth/logout", None).await.0, 204);
    for ended in [&ada, &second] {
        assert_eq!(ended.call("GET", "/api/auth/me", None).await.0, 401, "every token of hers has ended");
    }
    assert_eq!(alone.api.call("GET", "/api/auth/me", None).await.0, 403, "a key is not a person");
    alone.stop().await;
}

#[tokio::test]
async fn only_an_admin_may_repair() {
    let alone = Alone::start().await;
    let ada = admin(&alone.api).await;
    let body = json!({"username": "bob", "password": "correct horse"});
    let (status, session) = alone.api.with(None).call("POST", "/api/auth/register", Some(body)).await;
    assert_eq!(status, 200, "{session}");
    assert_eq!(session["user"]["role"], "member");
    let bob = alone.api.with(session["token"].as_str());
    assert_eq!(bob.call("POST", "/api/ops/heal/clear_locks", None).await.0, 403);
    let (status, body) = ada.call("POST", "/api/ops/heal/clear_locks", None).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["action"], "clear_locks");
    assert_eq!(ada.call("POST", "/api/ops/heal/rm_rf", None).await.0, 400);
    assert_eq!(ada.get("/api/ops/health").await["engine_running"], true);
    assert!(ada.get("/api/ops/alerts?limit=5&severity=critical").await.is_array());
    alone.stop().await;
}

#[tokio::test]
async fn the_monitor_shows_what_it_knows_and_can_be_told_to_be_quiet() {
    let alone = Alone::start().await;
    let api = &alone.api;
    let checks = api.get("/api/ops/checks").await;
    let database = checks.as_array().unwrap().iter().find(|check| check["name"] == "database").unwrap();
    assert_eq!(database["status"], "ok", "{database}");
    for path in ["/api/ops/remedies", "/api/ops/silences", "/api/ops/snapshots?since=2026-01-01T00:00:00Z&limit=5"] {
        assert!(api.get(path).await.is_array(), "{path}");
    }
    let open = api.get("/api/ops/alerts?open=true&category=no-such-category").await;
    assert_eq!(open, json!([]));
    for (path, field) in [("/api/ops/alerts?severity=loud", "severity"), ("/api/ops/snapshots?since=soon", "since")] {
        let (status, body) = api.call("GET", path, None).await;
        assert_eq!((status, &body["field"]), (422, &json!(field)), "{body}");
    }

    let spec = json!({"category": "disk", "for_s": 3600, "reason": "moving house"});
    let (status, made) = api.call("POST", "/api/ops/silences", Some(spec.clone())).await;
    assert_eq!((status, &made["created_by"], &made["active"]), (201, &json!("api_key"), &json!(true)), "{made}");
    for (change, field) in [(json!({"for_s": 0}), "for_s"), (json!({"reason": " "}), "reason")] {
        let mut bad = spec.clone();
        bad.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let (status, body) = api.call("POST", "/api/ops/silences", Some(bad)).await;
        assert_eq!((status, &body["field"]), (422, &json!(field)), "{body}");
    }
    let path = format!("/api/ops/silences/{}", made["id"].as_str().unwrap());
    let (status, ended) = api.call("DELETE", &path, None).await;
    assert_eq!((status, &ended["active"], &ended["ended_by"]), (200, &json!(false), &json!("api_key")));
    for (method, path) in [
        ("POST", "/api/ops/alerts/none/silence"),
        ("DELETE", "/api/ops/alerts/none/silence"),
        ("DELETE", "/api/ops/silences/none"),
        ("POST", "/api/ops/alerts/none/acknowledge"),
    ] {
        let body = json!({"for_s": 60, "reason": "r"});
        assert_eq!(api.call(method, path, Some(body)).await.0, 404, "{method} {path}");
    }
    let (status, healed) = api.call("POST", "/api/ops/heal/wake_scheduler", None).await;
    assert_eq!(status, 200, "{healed}");
    let taken = api.get("/api/ops/remedies?limit=1").await;
    assert_eq!((&taken[0]["remedy"], &taken[0]["taken_by"]), (&json!("wake_scheduler"), &json!("api_key")));
    alone.stop().await;
}

#[tokio::test]
async fn a_broken_schedule_is_refused_by_its_field() {
    let alone = Alone::start().await;
    let good = script("e1", "echo hi");
    for (field, value) in [
        ("condition_expr", json!("61 * * * *")),
        ("condition_expr", json!({"expr": "0 9 * * *", "timezone": "Mars/Olympus"})),
        ("condition_type", json!("sometimes")),
        ("action_type", json!("explode")),
    ] {
        let mut body = good.clone();
        body["condition_type"] = json!("cron");
        body["condition_expr"] = json!("0 9 * * *");
        body[field] = value;
        let (status, answer) = alone.api.call("POST", "/api/events", Some(body)).await;
        assert_eq!(status, 422, "{field}: {answer}");
        assert!(answer["field"].as_str().unwrap().starts_with(field), "{answer}");
        assert!(answer["detail"].as_str().unwrap().contains(field), "{answer}");
    }
    assert_eq!(alone.api.get("/api/events").await, json!([]), "nothing of it was stored");
    alone.stop().await;
}

#[tokio::test]
async fn an_event_is_made_changed_triggered_and_removed() {
    let alone = Alone::start().await;
    let api = &alone.api;
    let mut live = api.stream(None).await;
    let (status, made) = api.call("POST", "/api/events", Some(script("greet", "echo hello"))).await;
    assert_eq!((status, made), (200, json!({"id": "greet", "action": "created"})));
    let first = live.until("event.created").await;
    let (_, made) = api.call("POST", "/api/events", Some(script("greet", "echo hello again"))).await;
    assert_eq!(made["action"], "updated");
    let (status, patched) = api.call("PATCH", "/api/events/greet", Some(json!({"description": "greets"}))).await;
    assert_eq!(status, 200, "{patched}");
    assert_eq!(api.get("/api/events/greet").await["description"], "greets");
    assert_eq!(api.get("/api/events?type=report&limit=10").await.as_array().unwrap().len(), 1);
    assert_eq!(api.get("/api/events?type=other").await, json!([]));

    let (status, triggered) = api.call("POST", "/api/events/greet/trigger", None).await;
    assert_eq!(status, 202, "{triggered}");
    let done = live.until("job.succeeded").await;
    assert_eq!(done.data["data"]["job_id"], triggered["job_id"]);
    let queue = api.get("/api/queue").await;
    assert_eq!(queue["counts"]["completed"], 1);
    assert_eq!(queue["recent"][0]["id"], triggered["job_id"]);
    let job = api.get(&format!("/api/queue/{}", triggered["job_id"].as_str().unwrap())).await;
    assert_eq!(job["state"], "succeeded");
    assert!(job["result"].as_str().unwrap().contains("hello again"), "{job}");

    // A watcher that was away misses nothing and sees nothing twice.
    let mut resumed = api.stream(Some(first.id)).await;
    let mut seen = vec![first.id];
    loop {
        let message = resumed.next().await.unwrap();
        assert!(message.id > *seen.last().unwrap());
        seen.push(message.id);
        if message.event == "job.succeeded" {
            assert_eq!(message, done);
            break;
        }
    }

    assert_eq!(api.call("DELETE", "/api/events/greet", None).await.0, 204);
    assert_eq!(api.call("GET", "/api/events/greet", None).await.0, 404);
    assert_eq!(api.call("POST", "/api/events/greet/trigger", None).await.0, 404);
    let (status, _) = answer(api.request("GET", "/api/events/stream").header("last-event-id", "soon")).await;
    assert_eq!(status, 422);
    alone.stop().await;
}

#[tokio::test]
async fn a_stream_ends_when_the_runner_stops() {
    let alone = Alone::start().await;
    let mut live = alone.api.stream(None).await;
    let (stopped, ended) = tokio::join!(alone.runner.stop(), async { while live.next().await.is_some() {} });
    stopped.unwrap();
    assert_eq!(ended, ());
}

#[tokio::test]
async fn a_stream_ends_soon_after_its_user_logged_out() {
    let soon = std::time::Duration::from_millis(20);
    let alone = Alone::start_as(&[], |_| {}, |config| config.recheck = soon).await;
    let ada = admin(&alone.api).await;
    let mut hers = ada.stream(None).await;
    let mut other = alone.api.stream(None).await;
    assert_eq!(ada.call("POST", "/api/auth/logout", None).await.0, 204);
    while hers.next().await.is_some() {}
    assert_eq!(alone.api.call("POST", "/api/events", Some(script("e", "true"))).await.0, 200);
    other.until("event.created").await;
    alone.stop().await;
}

#[tokio::test]
async fn what_is_too_much_or_not_json_is_refused() {
    let alone = Alone::start().await;
    let post =
        |body: Vec<u8>, kind: &str| alone.api.request("POST", "/api/events").header("content-type", kind).body(body);
    for (request, expected) in [
        (post(vec![b'x'; 1024 * 1024 + 1], "application/json"), 413),
        (post(b"{}".to_vec(), "text/plain"), 415),
        (post(b"{}".to_vec(), "multipart/form-data; boundary=x"), 415),
        (post(b"{".to_vec(), "application/json"), 422),
        (post(b"[]".to_vec(), "application/json"), 422),
        (alone.api.request("PUT", "/api/events"), 405),
        (alone.api.request("GET", "/api/events?limit=many"), 422),
        (alone.api.request("GET", "/api/agents/..%2F..%2Fetc"), 404),
        (alone.api.request("GET", "/api/queue/not-an-id"), 404),
    ] {
        let (status, body) = answer(request).await;
        assert_eq!(status, expected, "{body}");
        assert!(body["detail"].is_string(), "{body}");
    }
    alone.stop().await;
}

#[tokio::test]
async fn another_site_may_call_only_if_its_origin_is_listed() {
    let alone = Alone::start_with(&["--cors-origins", "https://app.example.com"], |_| {}).await;
    for (origin, allowed) in [("https://app.example.com", true), ("https://app.example.com.evil.example", false)] {
        let response = alone
            .api
            .with(None)
            .request("OPTIONS", "/api/events")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .send()
            .await
            .unwrap();
        let answered = response.headers().get("access-control-allow-origin").map(|v| v.to_str().unwrap());
        assert_eq!(answered, allowed.then_some(origin));
    }
    alone.stop().await;
}

#[tokio::test]
async fn the_key_of_the_environment_is_the_only_key() {
    let alone = Alone::start().await;
    for wrong in [&API_KEY[1..], &format!("{API_KEY} "), &API_KEY.to_uppercase()] {
        let (status, _) = alone.api.with(Some(wrong)).call("GET", "/api/queue", None).await;
        if wrong.trim() == API_KEY {
            assert_eq!(status, 200, "white space around a header's value is no part of it");
        } else {
            assert_eq!(status, 401);
        }
    }
    alone.stop().await;
}
