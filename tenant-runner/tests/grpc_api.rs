//! The same engine over gRPC: a tenant's runner behind mutual TLS, called as the control plane calls it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use nexaas_common::id::{OperatorId, TenantId};
use nexaas_proto::runner::v1 as wire;
use nexaas_proto::{ACTOR_METADATA, FIELD_METADATA};
use nexaas_runner::app::Runner;
use serde_json::json;
use sha2::Digest as _;
use std::path::Path;
use std::sync::Arc;
use support::{API_KEY, Authority};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};
use tonic::{Code, Request};
use wire::accounts_client::AccountsClient;
use wire::chat_client::ChatClient;
use wire::control_client::ControlClient;
use wire::events_client::EventsClient;
use wire::ops_client::OpsClient;
use wire::queue_client::QueueClient;
use wire::workspace_client::WorkspaceClient;

struct Tenant {
    runner: Runner,
    authority: Authority,
    id: TenantId,
    channel: Channel,
    dir: tempfile::TempDir,
}

fn template(root: &Path) {
    let agent = root.join("small/agents/greeter");
    std::fs::create_dir_all(&agent).unwrap();
    std::fs::write(agent.join("config.yaml"), "name: greeter\nrole: Greets\ndescription: Says hello\n").unwrap();
    std::fs::write(agent.join("prompt.md"), "You greet people.\n").unwrap();
    std::fs::create_dir_all(root.join("small/skills")).unwrap();
    std::fs::write(root.join("small/skills/hello.md"), "# Hello\n\nSays hello.\n").unwrap();
    std::fs::write(
        root.join("small/workspace.yaml"),
        "name: Small\nperspectives:\n  - id: main\n    name: Main\n    pages:\n      - id: home\n        name: Home\n        components:\n          - type: queue-status\n            title: Queue\n            span: 6\n",
    )
    .unwrap();
}

impl Tenant {
    async fn start() -> Self {
        support::provider();
        let (authority, id, dir) = (Authority::new(), TenantId::generate(), tempfile::tempdir().unwrap());
        let (identity, templates) = (dir.path().join("identity"), dir.path().join("templates"));
        authority.write_identity(&identity, &authority.runner(id));
        template(&templates);
        let (tenant, data) = (id.to_string(), dir.path().join("data"));
        let path = |p: &Path| p.to_str().unwrap().to_owned();
        let flags = [
            "--tenant",
            &tenant,
            "--generation",
            "7",
            "--identity-dir",
            &path(&identity),
            "--data-dir",
            &path(&data),
            "--templates-root",
            &path(&templates),
            "--listen",
            "127.0.0.1:0",
        ];
        let config = support::config(&flags, &[]);
        let runner = Runner::start(config, nexaas_common::clock::SystemClock::shared(), None).await.unwrap();
        let leaf = authority.control_plane();
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&authority.pem))
            .identity(Identity::from_pem(&leaf.cert, &leaf.key))
            .domain_name(format!("{id}.runner.nexaas.internal"));
        let endpoint = Channel::from_shared(format!("https://{}", runner.address())).unwrap();
        let channel = endpoint.tls_config(tls).unwrap().connect().await.unwrap();
        Self { runner, authority, id, channel, dir }
    }

    async fn configured() -> Self {
        let tenant = Self::start().await;
        tenant.configure().await;
        tenant
    }

    async fn configure(&self) {
        let mut control = ControlClient::new(self.channel.clone());
        let request = wire::ConfigureRequest {
            api_key_sha256: hex::encode(sha2::Sha256::digest(API_KEY)),
            display_name: "Acme".into(),
            public_url: "http://acme.localhost:8080".into(),
            registration: "open".into(),
            default_timezone: "Europe/Berlin".into(),
            ..wire::ConfigureRequest::default()
        };
        control.configure(request).await.unwrap();
        control.initialize_workspace(wire::InitializeWorkspaceRequest { template: "small".into() }).await.unwrap();
    }

    async fn stop(self) {
        drop(self.channel);
        self.runner.stop().await.unwrap();
    }
}

fn operator<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(ACTOR_METADATA, format!("operator:{}", OperatorId::generate()).parse().unwrap());
    request
}

fn user<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

#[tokio::test]
async fn the_handshake_tells_who_the_runner_is_and_what_it_knows() {
    let tenant = Tenant::start().await;
    let mut control = ControlClient::new(tenant.channel.clone());
    let before = control.hello(wire::HelloRequest::default()).await.unwrap().into_inner();
    assert_eq!(before.tenant_id, tenant.id.to_string());
    assert_eq!((before.generation, before.configured, before.workspace_initialized), (7, false, false));
    assert_eq!(before.boot_id, tenant.runner.app().engine().boot_id().to_string());

    let mut accounts = AccountsClient::new(tenant.channel.clone());
    let early = wire::RegisterRequest {
        company_name: "Acme".into(),
        username: "eve".into(),
        password: "correct horse".into(),
        ..Default::default()
    };
    let status = accounts.register(early).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "nobody registers under rules that are not known yet");

    let wrong = wire::ConfigureRequest { registration: "maybe".into(), ..wire::ConfigureRequest::default() };
    let status = control.configure(wrong).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.metadata().get(FIELD_METADATA).unwrap(), "registration");

    control.configure(wire::ConfigureRequest::default()).await.unwrap();
    let request = wire::InitializeWorkspaceRequest { template: "small".into() };
    assert!(control.initialize_workspace(request.clone()).await.unwrap().into_inner().created);
    assert!(!control.initialize_workspace(request).await.unwrap().into_inner().created, "once");
    let after = control.hello(wire::HelloRequest::default()).await.unwrap().into_inner();
    assert!(after.configured && after.workspace_initialized);
    tenant.stop().await;
}

#[tokio::test]
async fn a_call_without_a_caller_is_refused_unless_it_is_open() {
    let tenant = Tenant::configured().await;
    let channel = || tenant.channel.clone();
    let mut codes = Vec::new();
    codes.push(WorkspaceClient::new(channel()).get_workspace(wire::GetWorkspaceRequest {}).await.unwrap_err().code());
    codes.push(EventsClient::new(channel()).list_events(wire::ListEventsRequest::default()).await.unwrap_err().code());
    codes.push(EventsClient::new(channel()).watch_bus(wire::WatchBusRequest::default()).await.unwrap_err().code());
    codes.push(QueueClient::new(channel()).get_queue(wire::GetQueueRequest {}).await.unwrap_err().code());
    codes.push(ChatClient::new(channel()).send(wire::ChatRequest::default()).await.unwrap_err().code());
    codes.push(OpsClient::new(channel()).get_health(wire::GetHealthRequest {}).await.unwrap_err().code());
    codes.push(AccountsClient::new(channel()).me(user("a.b.c", wire::MeRequest {})).await.unwrap_err().code());
    let mut nobody = Request::new(wire::GetQueueRequest {});
    nobody.metadata_mut().insert(ACTOR_METADATA, "operator:root".parse().unwrap());
    codes.push(QueueClient::new(channel()).get_queue(nobody).await.unwrap_err().code());
    assert!(codes.iter().all(|c| *c == Code::Unauthenticated), "{codes:?}");
    let status = AccountsClient::new(channel()).status(wire::AccountsStatusRequest {}).await.unwrap().into_inner();
    assert!(!status.has_company && status.registration_open);
    tenant.stop().await;
}

#[tokio::test]
async fn a_person_registers_and_runs_a_job_that_the_bus_reports() {
    let tenant = Tenant::configured().await;
    let mut accounts = AccountsClient::new(tenant.channel.clone());
    let request = wire::RegisterRequest {
        company_name: "Acme".into(),
        username: "ada".into(),
        password: "correct horse".into(),
        remote_address: "192.0.2.1".into(),
    };
    let session = accounts.register(request).await.unwrap().into_inner();
    let token = session.token.as_str();
    let me = accounts.me(user(token, wire::MeRequest {})).await.unwrap().into_inner();
    assert_eq!((me.username.as_str(), me.role.as_str(), me.company.as_str()), ("ada", "admin", "Acme"));

    let mut events = EventsClient::new(tenant.channel.clone());
    let mut bus = events
        .watch_bus(user(token, wire::WatchBusRequest { after_seq: 1, ..Default::default() }))
        .await
        .unwrap()
        .into_inner();
    let broken = json!({"type": "t", "condition_type": "cron", "condition_expr": "61 * * * *", "action_type": "script",
                        "action_config": {"command": "true"}});
    let upsert = |body: &serde_json::Value| user(token, wire::UpsertEventRequest { event_json: body.to_string() });
    let status = events.upsert_event(upsert(&broken)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.metadata().get(FIELD_METADATA).unwrap(), "condition_expr");
    let good = json!({"id": "hello", "type": "t", "condition_type": "webhook", "condition_expr": "",
                      "action_type": "script", "action_config": {"command": "echo hello"}});
    let made = events.upsert_event(upsert(&good)).await.unwrap().into_inner();
    assert_eq!((made.id.as_str(), made.action.as_str()), ("hello", "created"));
    let trigger = operator(wire::TriggerEventRequest { id: "hello".into() });
    let job_id = events.trigger_event(trigger).await.unwrap().into_inner().job_id;
    loop {
        let event =
            tokio::time::timeout(std::time::Duration::from_secs(30), bus.message()).await.unwrap().unwrap().unwrap();
        if event.r#type == "job.succeeded" {
            assert!(event.data_json.contains(&job_id), "{event:?}");
            break;
        }
    }
    let mut queue = QueueClient::new(tenant.channel.clone());
    let job = queue.get_job(user(token, wire::GetJobRequest { id: job_id })).await.unwrap().into_inner();
    assert_eq!(job.state, "succeeded");
    let missing = queue.get_job(user(token, wire::GetJobRequest { id: "x".into() })).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    assert_eq!(queue.get_queue(operator(wire::GetQueueRequest {})).await.unwrap().into_inner().completed, 1);

    accounts.logout(user(token, wire::LogoutRequest {})).await.unwrap();
    assert_eq!(accounts.me(user(token, wire::MeRequest {})).await.unwrap_err().code(), Code::Unauthenticated);
    tenant.stop().await;
}

#[tokio::test]
async fn the_workspace_and_its_agents_are_served_and_an_agent_answers() {
    let tenant = Tenant::configured().await;
    let mut workspace = WorkspaceClient::new(tenant.channel.clone());
    let view = workspace.get_workspace(operator(wire::GetWorkspaceRequest {})).await.unwrap().into_inner();
    assert_eq!(view.name, "Small");
    assert_eq!(view.perspectives[0].pages[0].components[0].r#type, "queue-status");
    let agents = workspace.list_agents(operator(wire::ListAgentsRequest {})).await.unwrap().into_inner().agents;
    assert_eq!((agents[0].name.as_str(), agents[0].source.as_str()), ("greeter", "client"));
    let skill =
        workspace.get_skill(operator(wire::GetSkillRequest { name: "hello".into() })).await.unwrap().into_inner();
    assert!(skill.body.contains("Says hello"));
    let absent = workspace.get_agent(operator(wire::GetAgentRequest { name: "nobody".into() })).await.unwrap_err();
    assert_eq!(absent.code(), Code::NotFound);

    let mut chat = ChatClient::new(tenant.channel.clone());
    let request =
        wire::ChatRequest { agent: "greeter".into(), message: "Good morning".into(), session_id: String::new() };
    let mut stream = chat.send(operator(request)).await.unwrap().into_inner();
    let mut seen = Vec::new();
    while let Some(event) = stream.message().await.unwrap() {
        seen.push(event);
    }
    assert_eq!(seen.last().unwrap().r#type, "done", "{seen:?}");
    let resume = wire::ResumeChatRequest { session_id: seen[0].session_id.clone(), after_seq: seen[0].seq };
    let mut stream = chat.resume(operator(resume)).await.unwrap().into_inner();
    let mut rest = Vec::new();
    while let Some(event) = stream.message().await.unwrap() {
        rest.push(event);
    }
    assert_eq!(rest, seen[1..]);
    let health = OpsClient::new(tenant.channel.clone()).get_health(operator(wire::GetHealthRequest {})).await.unwrap();
    assert!(health.into_inner().db_ok);
    tenant.stop().await;
}

#[tokio::test]
async fn health_and_the_http_api_share_the_port() {
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::health_client::HealthClient;
    let tenant = Tenant::start().await;
    let mut health = HealthClient::new(tenant.channel.clone());
    let answer = health.check(tonic_health::pb::HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(answer.status(), ServingStatus::Serving);

    let client = tenant.authority.client(Some(&tenant.authority.control_plane()), b"http/1.1");
    let http = async |request: String| {
        let tcp = tokio::net::TcpStream::connect(tenant.runner.address()).await.unwrap();
        let name = format!("{}.runner.nexaas.internal", tenant.id).try_into().unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client.clone()));
        let mut stream = connector.connect(name, tcp).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    };
    let get = |path: &str, more: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: acme.localhost\r\nConnection: close\r\n{more}\r\n")
    };
    for path in ["/api/health", "/api/queue"] {
        assert!(http(get(path, "")).await.starts_with("HTTP/1.1 503"), "{path}: its settings have not come yet");
    }
    tenant.configure().await;
    assert!(http(get("/api/health", "")).await.starts_with("HTTP/1.1 200"));
    assert!(http(get("/api/queue", &format!("Authorization: Bearer {API_KEY}\r\n"))).await.starts_with("HTTP/1.1 200"));
    let actor = format!("{ACTOR_METADATA}: operator:{}\r\n", OperatorId::generate());
    assert!(http(get("/api/queue", &actor)).await.starts_with("HTTP/1.1 401"), "HTTP knows no operators");
    let smuggled = http(get("/nexaas.runner.v1.Control/Configure", &actor)).await;
    assert!(smuggled.contains("grpc-status: 12"), "gRPC needs HTTP/2: {smuggled}");
    assert!(tenant.dir.path().join("data/workspace/workspace.yaml").exists());
    tenant.stop().await;
}

#[tokio::test]
async fn jobs_keys_and_past_facts_are_reached_as_over_http() {
    let tenant = Tenant::configured().await;
    let mut queue = QueueClient::new(tenant.channel.clone());
    let mut events = EventsClient::new(tenant.channel.clone());
    let mut bus = events.watch_bus(operator(wire::WatchBusRequest { after_seq: 1, kinds: vec!["job.*".into()] })).await;
    let bus = bus.as_mut().unwrap().get_mut();
    let spec = json!({"action_type": "script", "action_config": {"command": "exit 3"}, "concurrency_key": "k"});
    let enqueue = wire::EnqueueJobRequest { job_json: spec.to_string(), idempotency_key: "order 7".into() };
    let made = queue.enqueue_job(operator(enqueue.clone())).await.unwrap().into_inner();
    assert!(!made.existed);
    let again = queue.enqueue_job(operator(enqueue.clone())).await.unwrap().into_inner();
    assert_eq!((again.id, again.existed), (made.id.clone(), true));
    let other = wire::EnqueueJobRequest {
        job_json: json!({"action_type": "script", "action_config": {"command": "a"}}).to_string(),
        ..enqueue
    };
    assert_eq!(queue.enqueue_job(operator(other)).await.unwrap_err().code(), Code::FailedPrecondition);
    let broken = wire::EnqueueJobRequest { job_json: "{}".into(), ..Default::default() };
    let refused = queue.enqueue_job(operator(broken)).await.unwrap_err();
    assert_eq!(refused.metadata().get(FIELD_METADATA).unwrap(), "action_type");
    loop {
        let fact = bus.message().await.unwrap().unwrap();
        assert!(fact.r#type.starts_with("job."), "{fact:?}");
        if fact.r#type == "job.dead" {
            break;
        }
    }

    let page = wire::ListJobsRequest { state: "dead".into(), ..Default::default() };
    let page = queue.list_jobs(operator(page)).await.unwrap().into_inner();
    assert_eq!((page.jobs[0].id.as_str(), page.jobs[0].concurrency_key.as_str()), (made.id.as_str(), "k"));
    let job_id = made.id.clone();
    let attempts = queue.list_attempts(operator(wire::ListAttemptsRequest { job_id: job_id.clone() })).await.unwrap();
    assert_eq!((attempts.get_ref().attempts[0].number, attempts.get_ref().attempts[0].outcome.as_str()), (1, "failed"));
    let output = wire::GetAttemptOutputRequest { job_id: job_id.clone(), attempt: 1, ..Default::default() };
    let output = queue.get_attempt_output(operator(output)).await.unwrap().into_inner();
    assert_eq!(output.output.len() as u64, output.total_bytes);
    let steps = queue.list_steps(operator(wire::ListStepsRequest { job_id })).await.unwrap().into_inner();
    assert!(steps.steps.is_empty());
    let retried = queue.retry_job(operator(wire::RetryJobRequest { id: made.id.clone() })).await.unwrap().into_inner();
    assert_eq!(retried.id, made.id);
    while bus.message().await.unwrap().unwrap().r#type != "job.dead" {}
    let all = queue.retry_dead_jobs(operator(wire::RetryDeadJobsRequest::default())).await.unwrap().into_inner();
    assert_eq!(all.retried, 1);

    let limits = wire::SetKeyRequest { key: "mail".into(), limit: 3, rate_count: 10, rate_per_s: 1.5 };
    let set = queue.set_key(operator(limits)).await.unwrap().into_inner();
    assert_eq!((set.limit, set.rate_count, set.rate_per_s), (3, 10, 1.5));
    let keys = queue.list_keys(operator(wire::ListKeysRequest {})).await.unwrap().into_inner();
    assert!(keys.keys.contains(&set), "{keys:?}");

    let event = json!({"id": "e", "type": "t", "condition_type": "interval", "condition_expr": 3600,
                       "action_type": "script", "action_config": {"command": "true"}});
    let upsert = wire::UpsertEventRequest { event_json: event.to_string() };
    events.upsert_event(operator(upsert)).await.unwrap();
    let paused = events.pause_event(operator(wire::PauseEventRequest { id: "e".into() })).await.unwrap().into_inner();
    assert_eq!(paused.status, "paused");
    let resumed =
        events.resume_event(operator(wire::ResumeEventRequest { id: "e".into() })).await.unwrap().into_inner();
    assert_eq!(resumed.status, "active");
    let shown = events.get_event(operator(wire::GetEventRequest { id: "e".into() })).await.unwrap().into_inner();
    assert_eq!(shown.overlap, "allow");
    let past = wire::ListBusEventsRequest { limit: 1, kinds: vec!["event.*".into()], ..Default::default() };
    let past = events.list_bus_events(operator(past)).await.unwrap().into_inner();
    assert_eq!((past.events.len(), past.events[0].r#type.as_str()), (1, "event.updated"));
    assert_eq!(past.next_before_seq, past.events[0].seq);
    let later = wire::ListBusEventsRequest { since: "2999-01-01T00:00:00Z".into(), ..Default::default() };
    assert!(events.list_bus_events(operator(later)).await.unwrap().into_inner().events.is_empty());
    let never = wire::ListBusEventsRequest { since: "soon".into(), ..Default::default() };
    assert_eq!(events.list_bus_events(operator(never)).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    tenant.stop().await;
}
