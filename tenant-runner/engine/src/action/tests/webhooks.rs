//! Calls to real HTTP peers.

use super::*;

#[tokio::test]
async fn the_attempt_is_the_idempotency_key_of_every_call() {
    let (bench, server) = (Bench::new().await, answering(200, "thanks").await);
    let job = bench.job(ActionType::Webhook, json!({"url": server.uri(), "body": {}}), None).await;
    assert_eq!(bench.actions.run(&job).await, ok("thanks"));
    // As a process does that takes the job up again.
    assert_eq!(bench.actions.run(&job).await, ok("thanks"));
    let calls = server.received_requests().await.unwrap();
    assert_eq!(calls.len(), 2);
    for call in calls {
        assert_eq!(call.headers["idempotency-key"], job.attempt_id.to_string());
        assert_eq!(call.headers["webhook-id"], job.attempt_id.to_string());
    }
}

#[tokio::test]
async fn anything_but_2xx_is_a_failure() {
    let bench = Bench::new().await;
    for status in [400, 401, 404, 409, 429, 500, 503, 304] {
        let server = answering(status, "why").await;
        let said = error(bench.webhook(json!({"url": server.uri()})).await);
        assert!(said.starts_with(&format!("HTTP {status}")), "{said}");
    }
    let server = answering(204, "").await;
    assert_eq!(bench.webhook(json!({"url": server.uri()})).await, ok("HTTP 204"));
}

#[tokio::test]
async fn the_body_is_filled_and_headers_get_their_secrets_which_are_stored_nowhere() {
    let settings = Settings {
        secrets: [("CRM_TOKEN".to_owned(), SecretString::from("s3cret-token"))].into(),
        ..Settings::default()
    };
    let bench = Bench::with(&["127.0.0.0/8"], Arc::new(SystemNames), settings).await;
    let server = MockServer::start().await;
    Mock::given(method("PUT"))
        .and(path("/lead"))
        .and(header("authorization", "Bearer s3cret-token"))
        .and(header("content-type", "application/json"))
        .and(body_json(json!({"name": "Ada", "n": 3})))
        .respond_with(ResponseTemplate::new(200).set_body_string("you sent s3cret-token"))
        .expect(1)
        .mount(&server)
        .await;
    let config = json!({"url": format!("{}/lead", server.uri()), "method": "PUT",
        "headers": {"Authorization": "Bearer ${CRM_TOKEN}"}, "body": {"name": "{{payload.name}}", "n": "{{payload.n}}"}});
    let job = bench.job(ActionType::Webhook, config, Some(json!({"name": "Ada", "n": 3}))).await;
    assert_eq!(bench.actions.run(&job).await, ok("you sent [REDACTED]"));
    let missing = bench.webhook(json!({"url": server.uri(), "headers": {"x": "${NONE}"}})).await;
    assert!(is_permanent(&missing));
    assert_eq!(error(missing), "the secret NONE is not set");
}

#[tokio::test]
async fn a_signed_call_carries_the_standard_signature() {
    let settings = Settings {
        secrets: [("KEY".to_owned(), SecretString::from("whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3"))].into(),
        ..Settings::default()
    };
    let bench = Bench::with(&["127.0.0.0/8"], Arc::new(SystemNames), settings).await;
    let server = MockServer::start().await;
    Mock::given(header_exists("webhook-signature"))
        .and(header("webhook-timestamp", "1767225600"))
        .respond_with(|request: &Request| {
            use hmac::{Hmac, KeyInit as _, Mac as _};
            let id = request.headers["webhook-id"].to_str().unwrap();
            let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"0123456789abcdef01234567").unwrap();
            mac.update(format!("{id}.1767225600.").as_bytes());
            mac.update(&request.body);
            let expected =
                base64::Engine::encode(&base64::engine::general_purpose::STANDARD, mac.finalize().into_bytes());
            let given = request.headers["webhook-signature"].to_str().unwrap();
            ResponseTemplate::new(if given == format!("v1,{expected}") { 204 } else { 401 })
        })
        .mount(&server)
        .await;
    let config = json!({"url": server.uri(), "signing_secret": "KEY", "body": {"a": 1}});
    assert_eq!(bench.webhook(config).await, ok("HTTP 204"));
}

#[tokio::test]
async fn a_loop_of_redirects_is_a_failure() {
    let (bench, server) = (Bench::new().await, MockServer::start().await);
    let back = ResponseTemplate::new(307).insert_header("location", "/again");
    Mock::given(method("POST")).respond_with(back).mount(&server).await;
    assert_eq!(error(bench.webhook(json!({"url": server.uri()})).await), "more than 5 redirects");
    assert_eq!(server.received_requests().await.unwrap().len(), 6);
}

#[tokio::test]
async fn a_redirect_into_a_private_network_is_refused() {
    let bench = Bench::with(&["127.0.0.1/32"], Arc::new(SystemNames), Settings::default()).await;
    for target in [
        "http://127.0.0.2/",
        "http://169.254.169.254/latest/meta-data",
        "http://[::ffff:10.0.0.1]/",
        "file:///etc/passwd",
    ] {
        let server = MockServer::start().await;
        Mock::given(method("POST"))
            .respond_with(ResponseTemplate::new(302).insert_header("location", target))
            .mount(&server)
            .await;
        error(bench.webhook(json!({"url": server.uri()})).await);
    }
}

#[tokio::test]
async fn headers_of_a_definition_do_not_follow_to_another_origin() {
    let (bench, first, second) = (Bench::new().await, MockServer::start().await, answering(200, "").await);
    let to = ResponseTemplate::new(307).insert_header("location", second.uri().as_str());
    Mock::given(method("POST")).respond_with(to).mount(&first).await;
    bench
        .webhook(json!({"url": first.uri(), "headers": {"X-Token": "t", "Authorization": "a"}, "body": {"k": 1}}))
        .await;
    let calls = second.received_requests().await.unwrap();
    assert_eq!(calls.len(), 1);
    assert!(calls[0].headers.get("x-token").is_none() && calls[0].headers.get("authorization").is_none());
    assert!(calls[0].headers.get("idempotency-key").is_some());
    assert_eq!(calls[0].body, br#"{"k":1}"#);
}

/// Answers public the first time and private from then on.
#[derive(Debug, Default)]
struct TwoFaced(AtomicUsize, Mutex<Vec<String>>);

impl Names for TwoFaced {
    fn lookup(&self, host: String) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>> {
        let turn = self.0.fetch_add(1, Ordering::SeqCst);
        self.1.lock().unwrap().push(host);
        let address: IpAddr = if turn == 0 { [127, 0, 0, 1] } else { [127, 0, 0, 2] }.into();
        Box::pin(async move { Ok(vec![address]) })
    }
}

#[tokio::test]
async fn a_name_that_answers_twice_differently_is_dialled_where_it_was_judged() {
    let names = Arc::new(TwoFaced::default());
    // 127.0.0.1 stands for the allowed world, 127.0.0.2 for what is forbidden.
    let bench = Bench::with(&["127.0.0.1/32"], names.clone(), Settings::default()).await;
    let server = answering(200, "judged and dialled").await;
    let port = server.address().port();
    let url = format!("http://rebind.example:{port}/");
    assert_eq!(bench.webhook(json!({"url": url})).await, ok("judged and dialled"));
    assert_eq!(names.0.load(Ordering::SeqCst), 1, "looked up once for the connection");
    // A new connection is judged anew.
    let other = answering(200, "").await;
    let refused = bench.webhook(json!({"url": format!("http://rebind.example:{}/", other.address().port())})).await;
    assert!(is_permanent(&refused), "{refused:?}");
    assert!(error(refused).contains("127.0.0.2"));
    assert!(other.received_requests().await.unwrap().is_empty());
}

#[tokio::test]
async fn private_targets_are_refused_before_anything_is_sent() {
    let bench = Bench::with(&[], Arc::new(SystemNames), Settings::default()).await;
    let server = answering(200, "").await;
    let port = server.address().port();
    for host in ["127.0.0.1", "localhost", "0x7f.1", "[::ffff:127.0.0.1]", "0"] {
        let outcome = bench.webhook(json!({"url": format!("http://{host}:{port}/")})).await;
        assert!(is_permanent(&outcome), "{host}: {outcome:?}");
    }
    assert!(server.received_requests().await.unwrap().is_empty());
}

#[tokio::test]
async fn an_endless_answer_is_read_only_so_far() {
    let (bench, server) = (Bench::new().await, answering(200, &"x".repeat(1 << 20)).await);
    let Outcome::Succeeded(text) = bench.webhook(json!({"url": server.uri()})).await else { panic!("failed") };
    assert_eq!(text.len(), 64 * 1024);
}

#[tokio::test]
async fn silence_ends_at_the_time_out() {
    let bench = Bench::new().await;
    let deaf = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", deaf.local_addr().unwrap());
    assert_eq!(error(bench.webhook(json!({"url": url, "timeout_s": 1})).await), "no answer within 1 s");
}

#[tokio::test]
async fn a_receiver_may_ask_to_be_called_later() {
    let (bench, server) = (Bench::new().await, MockServer::start().await);
    let busy = ResponseTemplate::new(503).insert_header("retry-after", "7");
    Mock::given(method("POST")).respond_with(busy).mount(&server).await;
    let outcome = bench.webhook(json!({"url": server.uri()})).await;
    let later = Some(std::time::Duration::from_secs(7));
    assert_eq!(outcome, Outcome::Failed { error: "HTTP 503".into(), permanent: false, retry_after: later });
}

#[tokio::test]
async fn a_signature_does_not_outlive_the_body_it_is_of() {
    let settings = Settings {
        secrets: [("KEY".to_owned(), SecretString::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))].into(),
        ..Settings::default()
    };
    let bench = Bench::with(&["127.0.0.0/8"], Arc::new(SystemNames), settings).await;
    let server = MockServer::start().await;
    let see_other = ResponseTemplate::new(303).insert_header("location", "/done");
    Mock::given(method("POST")).respond_with(see_other).mount(&server).await;
    Mock::given(method("GET")).respond_with(ResponseTemplate::new(200)).mount(&server).await;
    bench.webhook(json!({"url": server.uri(), "signing_secret": "KEY", "body": {"a": 1}})).await;
    let calls = server.received_requests().await.unwrap();
    assert!(calls[0].headers.contains_key("webhook-signature"));
    assert!(!calls[1].headers.contains_key("webhook-signature") && calls[1].body.is_empty());
}
