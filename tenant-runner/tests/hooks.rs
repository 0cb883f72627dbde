//! Calls from outside at `/hooks/{id}`: who may fire what, with which body, and what is never told or written down.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock, Mutex};
use support::{Alone, Api, answer};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const GITHUB: &str = "a-secret-that-GitHub-knows-too";
const TOKEN: &str = "canary-0123456789abcdef0123456789abcdef";

fn event(id: &str, metadata: Value) -> Value {
    json!({
        "id": id, "type": "report", "condition_type": "webhook", "action_type": "script",
        "action_config": {"command": "cat"}, "metadata": metadata
    })
}

fn mac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key).unwrap();
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

fn signed(api: &Api, id: &str, call: &str, body: &str) -> reqwest::RequestBuilder {
    let key = STANDARD.decode(SECRET.strip_prefix("whsec_").unwrap()).unwrap();
    let now = nexaas_common::clock::Clock::now(&nexaas_common::clock::SystemClock).timestamp();
    let signature = STANDARD.encode(mac(&key, format!("{call}.{now}.{body}").as_bytes()));
    api.with(None)
        .request("POST", &format!("/hooks/{id}"))
        .header("webhook-id", call)
        .header("webhook-timestamp", now.to_string())
        .header("webhook-signature", format!("v1,{signature}"))
        .body(body.to_owned())
}

fn github(api: &Api, id: &str, body: &str) -> reqwest::RequestBuilder {
    api.with(None)
        .request("POST", &format!("/hooks/{id}"))
        .header("x-hub-signature-256", format!("sha256={}", hex::encode(mac(GITHUB.as_bytes(), body.as_bytes()))))
        .header("content-type", "application/json")
        .body(body.to_owned())
}

async fn put(api: &Api, event: Value) {
    let (status, body) = api.call("POST", "/api/events", Some(event)).await;
    assert_eq!(status, 200, "{body}");
}

#[tokio::test]
async fn a_signed_call_fires_its_event_once_also_after_a_restart() {
    let alone = Alone::start().await;
    put(&alone.api, event("deploy", json!({"secret": SECRET}))).await;
    let mut live = alone.api.stream(None).await;
    let (status, fired) = answer(signed(&alone.api, "deploy", "call-1", "{}")).await;
    assert_eq!(status, 202, "{fired}");
    assert_eq!(live.until("job.succeeded").await.data["data"]["job_id"], fired["job_id"]);
    let repeated = json!({"id": "deploy", "job_id": fired["job_id"], "duplicate": true});
    assert_eq!(answer(signed(&alone.api, "deploy", "call-1", "{}")).await, (200, repeated.clone()));

    let alone = alone.restart().await;
    assert_eq!(answer(signed(&alone.api, "deploy", "call-1", "{}")).await, (200, repeated));
    assert_eq!(alone.api.get("/api/queue").await["counts"]["completed"], 1);
    assert_eq!(answer(signed(&alone.api, "deploy", "call-2", "{}")).await.0, 202);
    alone.stop().await;
}

#[tokio::test]
async fn whoever_proves_nothing_learns_nothing() {
    let alone = Alone::start().await;
    let api = &alone.api;
    let all = json!({"secret": SECRET, "github_secret": GITHUB, "token": TOKEN});
    put(api, event("locked", all)).await;
    put(api, event("dangling", json!({"secret": "${NONE}", "token": "${NONE}", "github_secret": "${NONE}"}))).await;
    put(api, event("plain", Value::Null)).await;
    let mut cron = event("cron", Value::Null);
    cron["condition_type"] = json!("cron");
    cron["condition_expr"] = json!("0 9 1 1 *");
    put(api, cron).await;
    let nobody = api.with(None);
    let mut seen = Vec::new();
    for id in ["locked", "dangling", "plain", "cron", "no-such-event"] {
        let at = format!("/hooks/{id}");
        let post = |path: &str| nobody.request("POST", path).body("{}");
        let wrong = "wrong-0123456789abcdef0123456789abcdef0";
        for request in [
            post(&at),
            signed(api, id, "call", "{}").body("{\"other\":1}"),
            signed(api, id, "call", "{}").header("webhook-id", "twice"),
            github(api, id, "{}").body("{\"other\":1}"),
            post(&at).header("x-hub-signature-256", "sha256="),
            post(&at).header("authorization", format!("Bearer {wrong}")),
            post(&at).header("x-webhook-token", wrong),
            post(&at).header("x-webhook-token", ""),
            post(&format!("{at}?token={wrong}")),
            post(&format!("{at}?token=")),
            post(&format!("{at}?token={TOKEN}&token={TOKEN}")),
        ] {
            let response = request.send().await.unwrap();
            let mut headers: Vec<String> =
                response.headers().iter().filter(|(name, _)| *name != "date").map(|h| format!("{h:?}")).collect();
            headers.sort();
            seen.push((response.status(), headers, response.text().await.unwrap()));
        }
    }
    assert_eq!(seen[0].0, 401);
    for other in &seen {
        assert_eq!(*other, seen[0]);
    }
    assert_eq!(api.call("POST", "/hooks/plain", None).await.0, 202, "the API key fires it too");
    assert_eq!(api.call("POST", "/hooks/no-such-event", None).await.0, 404, "a known caller is told");
    assert_eq!(api.call("POST", "/hooks/cron", None).await.0, 409);
    alone.stop().await;
}

#[tokio::test]
async fn a_sender_that_cannot_sign_shows_a_token() {
    let alone = Alone::start().await;
    put(&alone.api, event("form", json!({"token": TOKEN}))).await;
    let nobody = alone.api.with(None);
    let post = |path: &str| nobody.request("POST", path);
    for request in [
        post("/hooks/form").bearer_auth(TOKEN),
        post("/hooks/form").header("x-webhook-token", TOKEN),
        post(&format!("/hooks/form?token={TOKEN}")),
    ] {
        let (status, body) = answer(request).await;
        assert_eq!(status, 202, "{body}");
    }
    let named = || post("/hooks/form").bearer_auth(TOKEN).header("idempotency-key", "order 7");
    let (_, first) = answer(named()).await;
    let (status, again) = answer(named()).await;
    assert_eq!((status, &again["job_id"]), (200, &first["job_id"]), "a call that has a name is taken once");
    let (status, body) = answer(named().header("webhook-id", "x".repeat(257))).await;
    assert_eq!((status, &body["field"]), (422, &json!("webhook-id")));
    alone.stop().await;
}

#[tokio::test]
async fn github_signs_in_its_own_way() {
    let alone = Alone::start().await;
    put(&alone.api, event("push", json!({"github_secret": GITHUB}))).await;
    let (status, fired) =
        answer(github(&alone.api, "push", r#"{"ref":"main"}"#).header("x-github-delivery", "1")).await;
    assert_eq!(status, 202, "{fired}");
    let replayed = github(&alone.api, "push", r#"{"ref":"main"}"#).header("x-github-delivery", "2");
    assert_eq!(answer(replayed).await.1["duplicate"], true, "the id is not signed, so the signature counts");
    assert_eq!(answer(signed(&alone.api, "push", "1", "{}")).await.0, 401);
    alone.stop().await;
}

#[tokio::test]
async fn a_body_is_what_its_type_says_and_nothing_else() {
    let alone = Alone::start().await;
    put(&alone.api, event("e", Value::Null)).await;
    let mut live = alone.api.stream(None).await;
    let (object, text, binary) = (br#"{"a":1}"#.as_slice(), b"a=1".as_slice(), b"\xff\xfe".as_slice());
    for (kind, expected) in [
        (Some("application/json"), [202, 422, 422]),
        (Some("Application/JSON; charset=utf-8"), [202, 422, 422]),
        (Some("application/cloudevents+json"), [202, 422, 422]),
        (Some("text/plain"), [202, 202, 415]),
        (Some("application/x-www-form-urlencoded"), [202, 202, 415]),
        (Some("application/soap+xml"), [202, 202, 415]),
        (None, [202, 202, 415]),
        (Some("application/json; charset=utf-16"), [415, 415, 415]),
        (Some("multipart/form-data; boundary=x"), [415, 415, 415]),
        (Some("application/octet-stream"), [415, 415, 415]),
        (Some("application/jsonp"), [415, 415, 415]),
        (Some("image/svg"), [415, 415, 415]),
        (Some("text/"), [415, 415, 415]),
        (Some(""), [415, 415, 415]),
    ] {
        for (body, expected) in [object, text, binary].into_iter().zip(expected) {
            let mut request = alone.api.request("POST", "/hooks/e").body(body);
            if let Some(kind) = kind {
                request = request.header("content-type", kind);
            }
            let (status, answered) = answer(request).await;
            assert_eq!(status, expected, "{kind:?} {body:?}: {answered}");
            if status != 202 {
                assert!(answered["detail"].is_string(), "{answered}");
                continue;
            }
            live.until("job.succeeded").await;
            let job = alone.api.get(&format!("/api/queue/{}", answered["job_id"].as_str().unwrap())).await;
            let is_json = kind.is_some_and(|kind| kind.to_lowercase().contains("json"));
            let data = if is_json { json!({"a": 1}) } else { json!(std::str::from_utf8(body).unwrap()) };
            assert_eq!(serde_json::from_str::<Value>(job["result"].as_str().unwrap().trim()).unwrap(), data);
        }
    }
    let twice = alone.api.request("POST", "/hooks/e").header("content-type", "text/plain");
    assert_eq!(answer(twice.header("content-type", "application/json").body("{}")).await.0, 415);
    let (status, body) = answer(alone.api.request("POST", "/hooks/e").body(vec![b'x'; 256 * 1024 + 1])).await;
    assert_eq!((status, body), (413, json!({"detail": "The body is larger than this path takes"})));
    assert_eq!(answer(alone.api.request("POST", "/hooks/..%2F..%2Fetc%2Fpasswd").body("{}")).await.0, 404);
    alone.stop().await;
}

static LOG: LazyLock<Arc<Mutex<Vec<u8>>>> = LazyLock::new(Arc::default);

struct Log;

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_token_is_in_no_log_no_answer_and_no_file() {
    use tracing_subscriber::fmt::format::FmtSpan;
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_ansi(false)
        .with_span_events(FmtSpan::FULL)
        .with_writer(|| Log)
        .init();
    let alone = Alone::start().await;
    put(&alone.api, event("form", json!({"token": TOKEN}))).await;
    let mut live = alone.api.stream(Some(0)).await;
    let nobody = alone.api.with(None);
    assert_eq!(answer(nobody.request("POST", &format!("/hooks/form?token={TOKEN}")).body("hello")).await.0, 202);
    assert_eq!(answer(nobody.request("POST", &format!("/hooks/other?token={TOKEN}"))).await.0, 401);
    assert_eq!(answer(nobody.request("POST", "/hooks/form").bearer_auth(TOKEN)).await.0, 202);
    loop {
        let told = live.next().await.unwrap();
        assert!(!told.data.to_string().contains("canary"), "{told:?}");
        if told.event == "job.succeeded" {
            break;
        }
    }
    for path in ["/api/events", "/api/events/form", "/api/queue"] {
        assert!(!alone.api.get(path).await.to_string().contains("canary"), "{path}");
    }
    let dir = alone.dir.path().to_owned();
    let mut folders = vec![dir];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.is_file() {
                let bytes = std::fs::read(&path).unwrap();
                assert!(!bytes.windows(6).any(|w| w == b"canary"), "{}", path.display());
            }
        }
    }
    let log = String::from_utf8_lossy(&LOG.lock().unwrap()).into_owned();
    assert!(log.contains("http.route=/hooks/{id}"), "the calls were logged: {log}");
    assert!(!log.contains("canary"), "{log}");
    alone.stop().await;
}
