//! Jobs from outside, and what can be seen of and done with them, over HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use serde_json::{Value, json};
use support::{Alone, Api, answer};

fn echo(text: &str) -> Value {
    json!({"action_type": "script", "action_config": {"command": ["echo", text]}})
}

fn failing() -> Value {
    json!({"action_type": "script", "action_config": {"command": "echo no >&2; exit 3"}})
}

async fn put(api: &Api, spec: Value) -> String {
    let (status, body) = api.call("POST", "/api/queue", Some(spec)).await;
    assert_eq!((status, &body["existed"]), (202, &json!(false)), "{body}");
    body["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_job_is_queued_run_and_looked_into() {
    let alone = Alone::start().await;
    let api = &alone.api;
    let mut live = api.stream(None).await;
    let mut spec = echo("hello");
    spec["description"] = json!("says hello");
    spec["priority"] = json!(1);
    let id = put(api, spec).await;
    live.until("job.succeeded").await;
    let job = api.get(&format!("/api/queue/{id}")).await;
    assert_eq!((&job["state"], &job["description"]), (&json!("succeeded"), &json!("says hello")), "{job}");
    assert_eq!(job["attempts"][0]["number"], 1);
    assert_eq!(job["steps"], json!([]));
    assert_eq!(api.get(&format!("/api/queue/{id}/attempts")).await, job["attempts"]);

    let output = |range: Option<&str>, query: &str| {
        let request = api.request("GET", &format!("/api/queue/{id}/attempts/1/output{query}"));
        let request = range.iter().fold(request, |request, range| request.header("range", *range));
        async move {
            let response = request.send().await.unwrap();
            let range = response.headers().get("content-range").map(|v| v.to_str().unwrap().to_owned());
            (response.status().as_u16(), range, response.text().await.unwrap())
        }
    };
    let (status, range, whole) = output(None, "").await;
    assert_eq!((status, range, whole.trim_end()), (200, None, "hello"));
    let length = whole.len();
    assert_eq!(output(None, "?offset=1&limit=2").await, (206, Some(format!("bytes 1-2/{length}")), "el".into()));
    assert_eq!(output(Some("bytes=1-2"), "").await, (206, Some(format!("bytes 1-2/{length}")), "el".into()));
    assert_eq!(output(Some("bytes=900-"), "").await.0, 416);
    assert_eq!(output(Some("lines=1-2"), "").await.0, 422);
    assert_eq!(api.call("GET", &format!("/api/queue/{id}/attempts/2/output"), None).await.0, 404);
    alone.stop().await;
}

#[tokio::test]
async fn the_same_key_is_the_same_job_and_never_another() {
    let alone = Alone::start().await;
    let post =
        |key: &str, body: Value| alone.api.request("POST", "/api/queue").header("idempotency-key", key).json(&body);
    let (status, first) = answer(post("order 7", echo("a"))).await;
    assert_eq!((status, &first["existed"]), (202, &json!(false)));
    let repeated = (200, json!({"id": first["id"], "existed": true}));
    assert_eq!(answer(post("order 7", echo("a"))).await, repeated);
    assert_eq!(answer(post("order 7", echo("b"))).await.0, 409);
    assert_eq!(answer(post("", echo("b"))).await.1["field"], "Idempotency-Key");
    let alone = alone.restart().await;
    let post =
        |key: &str, body: Value| alone.api.request("POST", "/api/queue").header("idempotency-key", key).json(&body);
    assert_eq!(answer(post("order 7", echo("a"))).await, repeated, "also after a restart");
    assert_eq!(alone.api.get("/api/queue/jobs").await["jobs"].as_array().unwrap().len(), 1);
    alone.stop().await;
}

#[tokio::test]
async fn jobs_are_listed_in_pages() {
    let alone = Alone::start().await;
    let api = &alone.api;
    let mut ids = Vec::new();
    for n in 0..5 {
        let mut spec = echo("x");
        spec["delay_s"] = json!(3600);
        spec["agent"] = json!(if n % 2 == 0 { "even" } else { "odd" });
        ids.insert(0, put(api, spec).await);
    }
    let mut seen = Vec::new();
    let mut at = "/api/queue/jobs?state=ready&limit=2".to_owned();
    loop {
        let page = api.get(&at).await;
        seen.extend(page["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()));
        let Some(next) = page["next_before"].as_str() else { break };
        at = format!("/api/queue/jobs?state=ready&limit=2&before={next}");
    }
    assert_eq!(seen, ids);
    assert_eq!(api.get("/api/queue/jobs?agent=odd").await["jobs"].as_array().unwrap().len(), 2);
    assert_eq!(api.get("/api/queue/jobs?event_id=none").await["jobs"], json!([]));
    for (query, field) in [("state=asleep", "state"), ("before=x", "before"), ("limit=many", "limit")] {
        let (status, body) = api.call("GET", &format!("/api/queue/jobs?{query}"), None).await;
        assert_eq!((status, &body["field"]), (422, &json!(field)), "{body}");
    }
    alone.stop().await;
}

#[tokio::test]
async fn a_dead_job_is_brought_back_alone_or_with_all_others() {
    let alone = Alone::start().await;
    let api = &alone.api;
    let mut live = api.stream(None).await;
    let id = put(api, failing()).await;
    live.until("job.dead").await;
    let (status, job) = api.call("POST", &format!("/api/queue/{id}/retry"), None).await;
    assert_eq!((status, &job["id"]), (200, &json!(id)), "{job}");
    live.until("job.dead").await;
    assert_eq!(api.get(&format!("/api/queue/{id}/attempts")).await.as_array().unwrap().len(), 2);
    assert_eq!(api.call("POST", "/api/queue/dead/retry", None).await, (200, json!({"retried": 1})));
    live.until("job.dead").await;
    assert_eq!(api.call("POST", "/api/queue/dead/retry", Some(json!({"limit": 0}))).await.1, json!({"retried": 0}));
    let good = put(api, echo("x")).await;
    live.until("job.succeeded").await;
    assert_eq!(api.call("POST", &format!("/api/queue/{good}/retry"), None).await.0, 409, "it went well");
    assert_eq!(api.call("POST", "/api/queue/none/retry", None).await.0, 404);
    alone.stop().await;
}

#[tokio::test]
async fn a_key_is_given_limits() {
    let alone = Alone::start().await;
    let api = &alone.api;
    let limits = json!({"concurrency_limit": 3, "rate_limit": {"count": 10, "per_s": 1.5}});
    let (status, set) = api.call("PUT", "/api/queue/keys/mail%2Fout", Some(limits)).await;
    let expected = json!({"key": "mail/out", "concurrency_limit": 3, "rate_limit": {"count": 10, "per_s": 1.5},
                          "running": 0, "blocked": 0});
    assert_eq!((status, &set), (200, &expected));
    assert_eq!(api.get("/api/queue/keys").await, json!([expected]));
    assert_eq!(api.get("/api/queue/keys/mail%2Fout").await, expected);
    assert_eq!(api.call("GET", "/api/queue/keys/other", None).await.0, 404);
    for (body, field) in [
        (json!({"concurrency_limit": 0}), "concurrency_limit"),
        (json!({"rate_limit": {"count": 0, "per_s": 1}}), "rate_limit"),
        (json!({"rate_limit": {"count": 1, "per_s": -1}}), "rate_limit"),
        (json!({"rate_limit": {"count": 1}}), "per_s"),
        (json!({"limit": 1}), "limit"),
    ] {
        let (status, answer) = api.call("PUT", "/api/queue/keys/k", Some(body.clone())).await;
        assert_eq!(status, 422, "{body}: {answer}");
        assert!(answer["detail"].as_str().unwrap().contains(field), "{body}: {answer}");
    }
    assert_eq!(api.call("PUT", "/api/queue/keys/mail%2Fout", Some(json!({}))).await.0, 200);
    assert_eq!(api.get("/api/queue/keys").await, json!([]), "the usual limits are not remembered");
    alone.stop().await;
}

#[tokio::test]
async fn bad_input_is_refused_with_its_field_and_stores_nothing() {
    let alone = Alone::start().await;
    let event = |change: Value| {
        let mut body = json!({"id": "e", "type": "t", "condition_type": "cron", "condition_expr": "0 9 * * *",
                              "action_type": "webhook", "action_config": {"url": "http://example.com"}});
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        ("/api/events", body)
    };
    let job = |change: Value| {
        let mut body = json!({"action_type": "webhook", "action_config": {"url": "http://example.com"}});
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        ("/api/queue", body)
    };
    let url = |url: &str| json!({"action_config": {"url": url}});
    for ((path, body), field) in [
        (event(json!({"condition_expr": "61 * * * *"})), "condition_expr"),
        (event(json!({"condition_expr": "* * *"})), "condition_expr"),
        (event(json!({"condition_expr": "0 0 30 2 *"})), "condition_expr"),
        (event(json!({"condition_expr": "@sometimes"})), "condition_expr"),
        (event(json!({"condition_expr": {"expr": "0 9 * * *", "timezone": "Mars/Olympus"}})), "condition_expr"),
        (event(json!({"condition_type": "interval", "condition_expr": "-5"})), "condition_expr"),
        (event(json!({"condition_type": "once", "condition_expr": "tomorrow"})), "condition_expr"),
        (event(json!({"condition_type": "sometimes"})), "condition_type"),
        (event(json!({"timezone": "Mars/Olympus"})), "timezone"),
        (event(json!({"overlap": "sometimes"})), "overlap"),
        (event(json!({"expires_at": "soon"})), "expires_at"),
        (event(json!({"starts_at": "soon"})), "starts_at"),
        (event(json!({"jitter_s": -1})), "jitter_s"),
        (event(json!({"catch_up": "maybe"})), "catch_up"),
        (event(json!({"action_type": "explode"})), "action_type"),
        (event(json!({"action_config": "{"})), "action_config"),
        (event(json!({"action_config": []})), "action_config"),
        (event(url("file:///etc/passwd")), "action_config.url"),
        (event(url("http://user:pw@example.com")), "action_config.url"),
        (
            event(json!({"action_config": {"url": "http://example.com", "body": "{{nobody.knows}}"}})),
            "action_config.body",
        ),
        (event(json!({"id": "../etc"})), "id"),
        (event(json!({"priority": 1e9})), "priority"),
        (event(json!({"metadata": "{"})), "metadata"),
        (event(json!({"condition_type": "webhook", "metadata": {"token": "short"}})), "metadata.token"),
        (event(json!({"surprise": 1})), "surprise"),
        (("/api/events", json!([])), "body"),
        (job(url("gopher://example.com")), "action_config.url"),
        (
            job(json!({"action_type": "skill", "action_config": {"skill": "x", "input": "{{nobody.knows}}"}})),
            "action_config.input",
        ),
        (job(json!({"run_at": "soon"})), "run_at"),
        (job(json!({"delay_s": -1})), "delay_s"),
        (job(json!({"then": [{"action_type": "no"}]})), "then.0.action_type"),
        (job(json!({"surprise": 1})), "surprise"),
        (("/api/queue", json!([])), "job"),
    ] {
        let (status, answer) = alone.api.call("POST", path, Some(body.clone())).await;
        assert_eq!(status, 422, "{body}: {answer}");
        assert!(answer["field"].as_str().unwrap_or_default().starts_with(field), "{body}: {answer}");
        assert!(answer["detail"].as_str().unwrap().len() > field.len() + 5, "a reason is given: {answer}");
    }
    for path in ["/api/events", "/api/queue", "/api/auth/login"] {
        let broken = alone.api.request("POST", path).header("content-type", "application/json").body("{\"a\":");
        let (status, answer) = answer(broken).await;
        let expected = if path.ends_with("login") { 400 } else { 422 };
        assert_eq!((status, &answer["field"]), (expected, &json!("body")), "{answer}");
    }
    assert_eq!(alone.api.get("/api/events").await, json!([]));
    assert_eq!(alone.api.get("/api/queue/jobs").await["jobs"], json!([]));
    alone.stop().await;
}

#[tokio::test]
async fn what_happened_is_read_backwards_and_watched_on_over_a_restart() {
    let alone = Alone::start().await;
    let mut live = alone.api.stream(None).await;
    put(&alone.api, echo("one")).await;
    let last = live.until("job.succeeded").await;
    let past = alone.api.get("/api/bus?limit=2").await;
    let seqs: Vec<u64> = past["events"].as_array().unwrap().iter().map(|e| e["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs.len(), 2);
    assert!(seqs[0] > seqs[1], "newest first");
    let older = alone.api.get(&format!("/api/bus?before={}", past["next_before"])).await;
    assert!(older["events"].as_array().unwrap().iter().all(|e| e["seq"].as_u64().unwrap() < seqs[1]));
    let since = alone.api.get("/api/bus?since=2999-01-01T00:00:00Z").await;
    assert_eq!(since["events"], json!([]));
    let some = alone.api.get("/api/bus?type=job.succeeded,event.created").await;
    assert_eq!(some["events"].as_array().unwrap().len(), 1);
    assert_eq!(some["events"][0]["seq"], last.id);

    let alone = alone.restart().await;
    put(&alone.api, echo("two")).await;
    let mut resumed = alone.api.stream_of(Some(last.id), "?type=job.succeeded").await;
    let next = resumed.next().await.unwrap();
    assert_eq!(next.event, "job.succeeded");
    assert!(next.id > last.id, "what was seen before is not told again");
    put(&alone.api, echo("three")).await;
    let third = resumed.next().await.unwrap();
    assert_eq!(third.event, "job.succeeded");
    assert!(third.id > next.id);
    alone.stop().await;
}

#[tokio::test]
async fn an_event_is_paused_and_resumed() {
    let alone = Alone::start().await;
    let api = &alone.api;
    let event = json!({"id": "e", "type": "t", "condition_type": "interval", "condition_expr": 3600,
                       "action_type": "script", "action_config": {"command": "true"}});
    assert_eq!(api.call("POST", "/api/events", Some(event)).await.0, 200);
    let (status, paused) = api.call("POST", "/api/events/e/pause", None).await;
    assert_eq!((status, &paused["status"], &paused["next_eval_at"]), (200, &json!("paused"), &Value::Null), "{paused}");
    let (status, resumed) = api.call("POST", "/api/events/e/resume", None).await;
    assert_eq!((status, &resumed["status"]), (200, &json!("active")), "{resumed}");
    assert!(resumed["next_eval_at"].is_string());
    assert_eq!(api.call("POST", "/api/events/none/pause", None).await.0, 404);
    alone.stop().await;
}
