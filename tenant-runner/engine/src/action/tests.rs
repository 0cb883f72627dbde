//! Actions against real processes and real HTTP peers on the loopback.

use super::*;
use crate::queue::{AttemptId, JobId};
use crate::testing::{Rig, utc};
use async_trait::async_trait;
use futures::future::BoxFuture;
use nexaas_common::clock::ManualClock;
use nexaas_common::secret::SecretString;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use wiremock::matchers::{body_json, header, header_exists, method, path};
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

struct Bench {
    _dir: tempfile::TempDir,
    actions: Actions,
    rig: Rig,
}

impl Bench {
    /// Actions that may reach the loopback.
    async fn new() -> Self {
        Self::with(&["127.0.0.0/8"], Arc::new(SystemNames), Settings::default()).await
    }

    async fn with(allowed: &[&str], names: Arc<dyn Names>, settings: Settings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = EngineConfig::new("standalone", dir.path().join("x.db"), dir.path().to_owned());
        config.allow_private_webhook_targets = allowed.iter().map(|net| net.parse().unwrap()).collect();
        let settings = Arc::new(ArcSwapOption::from_pointee(settings));
        let clock = ManualClock::new(utc("2026-01-01T00:00:00Z"));
        let rig = Rig::new().await;
        let actions = Actions::new(&config, settings, Arc::new(Echo), names, clock).unwrap();
        Self { _dir: dir, actions: actions.with_queue(rig.queue.clone()), rig }
    }

    async fn job(&self, action: ActionType, config: Value, payload: Option<Value>) -> Claimed {
        let new = crate::queue::NewJob { payload, ..crate::queue::NewJob::new(action, config) };
        self.rig.queue.enqueue(new).await.unwrap();
        self.rig.claim(1).await.remove(0)
    }

    async fn script(&self, config: Value) -> Outcome {
        self.actions.run(&self.job(ActionType::Script, config, None).await).await
    }

    async fn webhook(&self, config: Value) -> Outcome {
        self.actions.run(&self.job(ActionType::Webhook, config, None).await).await
    }
}

#[derive(Debug)]
pub(super) struct Echo;

#[async_trait]
impl AgentActions for Echo {
    async fn run_skill(&self, skill: &str, input: &str, agent: Option<&str>, _: RunContext) -> Result<String> {
        Ok(format!("{skill}|{input}|{}", agent.unwrap_or("-")))
    }
    async fn agent_chat(&self, agent: &str, prompt: &str, _: RunContext) -> Result<String> {
        if prompt == "hang" {
            std::future::pending::<()>().await;
        }
        Ok(format!("{agent}|{prompt}"))
    }
}

fn ok(text: &str) -> Outcome {
    Outcome::Succeeded(text.to_owned())
}

fn error(outcome: Outcome) -> String {
    match outcome {
        Outcome::Failed { error, .. } => error,
        other => panic!("not a failure: {other:?}"),
    }
}

fn is_permanent(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed { permanent: true, .. })
}

// ---- Scripts --------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_script_answers_with_its_output_in_the_workspaces_folder() {
    let bench = Bench::new().await;
    assert_eq!(bench.script(json!({"command": "echo one; echo two"})).await, ok("one\ntwo"));
    assert_eq!(bench.script(json!({"command": ["printf", "%s", "$HOME; rm -rf /"]})).await, ok("$HOME; rm -rf /"));
    let folder = bench._dir.path().canonicalize().unwrap();
    assert_eq!(bench.script(json!({"command": "pwd -P"})).await, ok(folder.to_str().unwrap()));
}

#[tokio::test]
async fn only_the_exit_status_decides() {
    let bench = Bench::new().await;
    assert_eq!(bench.script(json!({"command": "echo error: none at all"})).await, ok("error: none at all"));
    assert_eq!(error(bench.script(json!({"command": "echo fine; exit 3"})).await), "exit status 3: fine");
    assert_eq!(error(bench.script(json!({"command": "echo out; echo why >&2; exit 1"})).await), "exit status 1: why");
    assert_eq!(error(bench.script(json!({"command": "kill -KILL $$"})).await), "ended by signal 9");
    assert!(
        error(bench.script(json!({"command": ["/nonexistent"]})).await).starts_with("the program cannot be started")
    );
}

#[tokio::test]
async fn nothing_of_our_environment_reaches_a_script() {
    let bench = Bench::new().await;
    let job = bench.job(ActionType::Script, json!({"command": ["env"]}), None).await;
    let Outcome::Succeeded(text) = bench.actions.run(&job).await else { panic!("env failed") };
    let mut names: Vec<_> = text.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["LANG", "NEXAAS_ATTEMPT", "NEXAAS_ATTEMPT_ID", "NEXAAS_IDEMPOTENCY_KEY", "NEXAAS_JOB_ID", "PATH"]
    );
    assert!(text.contains(&format!("NEXAAS_ATTEMPT_ID={}", job.attempt_id)));
}

#[tokio::test]
async fn what_came_with_the_trigger_is_on_standard_input() {
    let bench = Bench::new().await;
    let job = bench.job(ActionType::Script, json!({"command": "cat"}), Some(json!({"a": "$(id)"}))).await;
    assert_eq!(bench.actions.run(&job).await, ok(r#"{"a":"$(id)"}"#));
    let big = json!({"a": "x".repeat((1 << 20) - 100)});
    let job = bench.job(ActionType::Script, json!({"command": "true"}), Some(big)).await;
    assert_eq!(bench.actions.run(&job).await, ok(""));
}

#[tokio::test]
async fn a_flood_of_output_is_cut_to_its_beginning_and_its_end() {
    let bench = Bench::new().await;
    let Outcome::Succeeded(text) =
        bench.script(json!({"command": "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end"})).await
    else {
        panic!("the flood failed")
    };
    assert!(text.len() < 66_000 && text.starts_with("xxx") && text.ends_with("end"), "{} bytes", text.len());
    assert!(
        text.contains("[… 2934725 bytes left out; the output of this attempt is kept …]"),
        "{}",
        &text[32_600..32_900]
    );
}

/// A pipe that a script and its children hold open for writing: it ends when the last of them is gone.
async fn until_all_are_gone(fifo: &std::path::Path, run: impl Future<Output = Outcome>) -> Outcome {
    let watch = async {
        let file = tokio::fs::OpenOptions::new().read(true).open(fifo).await.unwrap();
        let mut lines = BufReader::new(file).lines();
        while lines.next_line().await.unwrap().is_some() {}
    };
    let (outcome, ()) = tokio::join!(run, watch);
    outcome
}

fn fifo(bench: &Bench) -> std::path::PathBuf {
    let path = bench._dir.path().join("alive");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    path
}

#[tokio::test]
async fn a_time_out_ends_the_script_and_its_children() {
    let bench = Bench::new().await;
    let fifo = fifo(&bench);
    let config = json!({"command": "exec 3>alive; sleep 1000 & sleep 1000", "timeout_s": 1});
    let outcome = until_all_are_gone(&fifo, bench.script(config)).await;
    assert_eq!(error(outcome), "ended by force after 1 s");
}

#[tokio::test]
async fn children_that_outlive_their_script_are_ended_with_it() {
    let bench = Bench::new().await;
    let fifo = fifo(&bench);
    let outcome =
        until_all_are_gone(&fifo, bench.script(json!({"command": "exec 3>alive; sleep 1000 & echo started"}))).await;
    assert_eq!(outcome, ok("started"));
}

#[tokio::test]
async fn a_cancelled_script_is_ended_with_its_children() {
    let bench = Bench::new().await;
    let fifo = fifo(&bench);
    let job = bench
        .job(ActionType::Script, json!({"command": "exec 3>alive; echo up >&3; sleep 1000 & sleep 1000"}), None)
        .await;
    let cancel = job.cancel.clone();
    let path = fifo.clone();
    let watch = async move {
        let file = tokio::fs::OpenOptions::new().read(true).open(path).await.unwrap();
        let mut lines = BufReader::new(file).lines();
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("up"));
        cancel.cancel();
        assert_eq!(lines.next_line().await.unwrap(), None);
    };
    let (outcome, ()) = tokio::join!(bench.actions.run(&job), watch);
    assert_eq!(outcome, Outcome::Cancelled);
}

// ---- Webhooks -------------------------------------------------------------------------------------------------------

async fn answering(status: u16, body: &str) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(ResponseTemplate::new(status).set_body_string(body)).mount(&server).await;
    server
}

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

// ---- Agents ---------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn skills_and_agents_get_what_the_event_says() {
    let bench = Bench::new().await;
    let job = bench
        .job(ActionType::Skill, json!({"skill": "digest", "input": "for {{payload.who}}"}), Some(json!({"who": "Ada"})))
        .await;
    assert_eq!(bench.actions.run(&job).await, ok("digest|for Ada|-"));
    let job = bench.job(ActionType::AgentChat, json!({"agent": "ops", "prompt": "look"}), None).await;
    assert_eq!(bench.actions.run(&job).await, ok("ops|look"));
    let job = bench.job(ActionType::AgentChat, json!({"prompt": "look"}), None).await;
    assert!(is_permanent(&bench.actions.run(&job).await));
}

// ---- Steps, further jobs, time ----------------------------------------------------------------------------------------

fn step(name: &str, action: &str, config: Value) -> Value {
    json!({"name": name, "action_type": action, "action_config": config})
}

#[tokio::test]
async fn steps_run_one_after_the_other_and_see_what_earlier_ones_answered() {
    let bench = Bench::new().await;
    let config = json!({"steps": [
        step("count", "script", json!({"command": "printf '{\"n\": 3}'"})),
        step("tell", "skill", json!({"skill": "digest", "input": "{{steps.count.n}} for {{payload.who}}"})),
    ]});
    let job = bench.job(ActionType::Steps, config, Some(json!({"who": "Ada"}))).await;
    assert_eq!(bench.actions.run(&job).await, ok("digest|3 for Ada|-"));
    let steps = bench.rig.queue.steps(job.id).await.unwrap();
    let stored: Vec<_> = steps.iter().map(|step| (step.name.as_str(), step.result.as_str())).collect();
    assert_eq!(stored, [("count", "{\"n\": 3}"), ("tell", "digest|3 for Ada|-")]);
}

#[tokio::test]
async fn another_attempt_goes_on_after_the_last_finished_step() {
    let bench = Bench::new().await;
    let config = json!({"steps": [
        step("once", "script", json!({"command": "echo done >> once; cat once"})),
        step("picky", "script", json!({"command": "test -e ready"})),
        step("last", "skill", json!({"skill": "s", "input": "{{steps.once}}"})),
    ]});
    let new = crate::queue::NewJob { max_attempts: 2, ..crate::queue::NewJob::new(ActionType::Steps, config) };
    bench.rig.queue.enqueue(new).await.unwrap();
    let job = bench.rig.claim(1).await.remove(0);
    let outcome = bench.actions.run(&job).await;
    assert_eq!(error(outcome.clone()), "step 'picky': exit status 1");
    bench.rig.queue.finish(&job, outcome).await.unwrap();
    std::fs::write(bench._dir.path().join("ready"), "").unwrap();
    bench.rig.advance(3600);
    let again = bench.rig.claim(1).await.remove(0);
    assert_eq!(again.id, job.id);
    assert_eq!(bench.actions.run(&again).await, ok("s|done|-"), "the first step ran once");
}

#[tokio::test]
async fn a_step_that_is_taken_up_again_calls_with_the_same_key() {
    let (bench, server) = (Bench::new().await, answering(500, "").await);
    let config = json!({"steps": [
        step("first", "script", json!({"command": "true"})),
        step("call", "webhook", json!({"url": server.uri()})),
    ]});
    let job = bench.job(ActionType::Steps, config, None).await;
    for _ in 0..2 {
        assert_eq!(error(bench.actions.run(&job).await), "step 'call': HTTP 500");
    }
    let calls = server.received_requests().await.unwrap();
    let keys: Vec<_> = calls.iter().map(|call| call.headers["idempotency-key"].to_str().unwrap()).collect();
    let expected = format!("{}-1", job.attempt_id);
    assert_eq!(keys, [&expected, &expected]);
}

#[tokio::test]
async fn a_cancelled_job_begins_no_further_step() {
    let bench = Bench::new().await;
    let config = json!({"steps": [
        step("first", "script", json!({"command": "touch begun; sleep 1000"})),
        step("second", "skill", json!({"skill": "s"})),
    ]});
    let job = bench.job(ActionType::Steps, config, None).await;
    let begun = bench._dir.path().join("begun");
    let cancel = async {
        while !begun.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        job.cancel.cancel();
    };
    let (outcome, ()) = tokio::join!(bench.actions.run(&job), cancel);
    assert_eq!(outcome, Outcome::Cancelled);
    assert!(bench.rig.queue.steps(job.id).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_job_is_enqueued_once_for_an_attempt_and_one_deeper() {
    let bench = Bench::new().await;
    let spec =
        json!({"action_type": "agent_chat", "action_config": {"agent": "a", "prompt": "{{payload.q}}"}, "priority": 1});
    let job = bench.job(ActionType::JobEnqueue, spec, Some(json!({"q": "why?"}))).await;
    let mut ids = Vec::new();
    for existed in [false, true] {
        let Outcome::Succeeded(answer) = bench.actions.run(&job).await else { panic!("not enqueued") };
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["existed"], existed);
        ids.push(answer["job_id"].clone());
    }
    assert_eq!(ids[0], ids[1]);
    let queued = bench.rig.claim(10).await;
    assert_eq!(queued.len(), 1);
    assert_eq!((queued[0].depth, &queued[0].action_config["prompt"]), (job.depth + 1, &json!("why?")));
    // Also when it has ended meanwhile.
    bench.rig.queue.finish(&queued[0], ok("")).await.unwrap();
    assert!(matches!(bench.actions.run(&job).await, Outcome::Succeeded(answer) if answer.contains("true")));
    assert!(bench.rig.claim(10).await.is_empty());
}

#[tokio::test]
async fn a_spec_that_its_templates_spoil_is_refused_with_the_field() {
    let bench = Bench::new().await;
    let spec = json!({"action_type": "script", "action_config": {"command": "true"}, "priority": "{{payload.q}}"});
    let job = bench.job(ActionType::JobEnqueue, spec, Some(json!({"q": "high"}))).await;
    let outcome = bench.actions.run(&job).await;
    assert!(is_permanent(&outcome), "{outcome:?}");
    assert!(error(outcome).starts_with("action_config.priority must"));
}

#[tokio::test]
async fn a_job_that_leads_to_itself_ends_at_a_depth() {
    let bench = Bench::new().await;
    let mut job = bench
        .job(ActionType::JobEnqueue, json!({"action_type": "script", "action_config": {"command": "true"}}), None)
        .await;
    job.depth = 32;
    let outcome = bench.actions.run(&job).await;
    assert!(is_permanent(&outcome), "{outcome:?}");
    assert!(error(outcome).contains("depth"));
}

#[tokio::test]
async fn the_jobs_own_time_ends_any_action() {
    let bench = Bench::new().await;
    let deaf = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", deaf.local_addr().unwrap());
    for (action, config) in [
        (ActionType::Script, json!({"command": "sleep 1000"})),
        (ActionType::Webhook, json!({"url": url})),
        (ActionType::AgentChat, json!({"agent": "a", "prompt": "hang"})),
        (ActionType::Steps, json!({"steps": [step("a", "script", json!({"command": "sleep 1000"}))]})),
    ] {
        let timeout = Some(std::time::Duration::from_secs(1));
        let new = crate::queue::NewJob { timeout, ..crate::queue::NewJob::new(action, config) };
        bench.rig.queue.enqueue(new).await.unwrap();
        let job = bench.rig.claim(1).await.remove(0);
        let said = error(bench.actions.run(&job).await);
        assert!(said.contains("ended by force after"), "{action:?}: {said}");
    }
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

#[test]
fn ids_of_jobs_and_attempts_are_not_the_same_kind() {
    assert!(format!("{:?}", JobId::generate()).starts_with("job:"));
    assert!(format!("{:?}", AttemptId::generate()).starts_with("attempt:"));
}
