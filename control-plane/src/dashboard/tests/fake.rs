//! A runner played in this process: the wire is real, what is behind it is a small agency.

use nexaas_common::task::{OnExit, Supervisor};
use nexaas_proto::runner::v1 as wire;
use nexaas_proto::runner::v1::{
    accounts_server, chat_server, events_server, ops_server, queue_server, workspace_server,
};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use tokio::sync::broadcast;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

/// The only token this runner has given.
pub const TOKEN: &str = "good.user.token";
pub const HOSTILE: &str = "<script>alert(1)</script>";

type Answer<T> = Result<Response<T>, Status>;
type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[derive(Clone)]
pub struct Fake {
    pub state: Arc<Mutex<State>>,
    pub bus: broadcast::Sender<wire::BusEvent>,
}

pub struct State {
    pub has_company: bool,
    pub perspectives: Vec<wire::Perspective>,
    pub jobs: Vec<wire::Job>,
    /// Everything that was asked to change something, in order.
    pub deeds: Vec<String>,
    pub chat: Vec<wire::ChatEvent>,
    pub messages: Vec<wire::ChatMessage>,
    /// Registries cannot be read.
    pub registries_down: bool,
}

pub fn component(kind: &str, title: &str, span: u32, config: serde_json::Value) -> wire::Component {
    wire::Component { r#type: kind.into(), title: title.into(), span, config_json: config.to_string() }
}

fn job(id: &str, description: &str, state: &str, result: &str, error: &str, at: &str) -> wire::Job {
    let done = matches!(state, "succeeded" | "dead");
    wire::Job {
        id: id.into(),
        description: description.into(),
        action_type: "skill".into(),
        agent: "reporting-analyst".into(),
        state: state.into(),
        attempt: u32::from(state != "ready"),
        max_attempts: 3,
        result: result.into(),
        error: error.into(),
        created_at: at.into(),
        started_at: if state == "ready" { String::new() } else { at.into() },
        finished_at: if done { at.into() } else { String::new() },
        ..Default::default()
    }
}

impl Fake {
    pub fn new() -> Self {
        let state = State {
            has_company: true,
            perspectives: vec![wire::Perspective {
                id: "studio".into(),
                name: "Studio".into(),
                icon: "home".into(),
                default_page: "today".into(),
                pages: vec![
                    wire::Page {
                        id: "today".into(),
                        name: "Today".into(),
                        icon: "layout-dashboard".into(),
                        layout: "grid".into(),
                        components: super::today(),
                    },
                    wire::Page {
                        id: "talk".into(),
                        name: "Talk".into(),
                        icon: "message-circle".into(),
                        layout: "single".into(),
                        components: vec![component(
                            "agent-chat",
                            "Account director",
                            12,
                            serde_json::json!({"agent": "account-director"}),
                        )],
                    },
                ],
            }],
            jobs: vec![
                job("j4", "Weekly client report", "running", "", "", "2026-11-24T20:58:00Z"),
                job("j3", "Draft next week's posts", "ready", "", "", "2026-11-24T20:57:00Z"),
                job("j2", "Check broken links", "succeeded", "All **42** links answer.", "", "2026-11-24T20:10:00Z"),
                job("j1", "Send invoice reminders", "dead", "", "the mail server answered 550", "2026-11-24T18:00:00Z"),
            ],
            deeds: Vec::new(),
            chat: Vec::new(),
            messages: Vec::new(),
            registries_down: false,
        };
        Self { state: Arc::new(Mutex::new(state)), bus: broadcast::channel(64).0 }
    }

    /// Serves on a free port of the loopback until the supervisor stops.
    pub async fn serve(&self, supervisor: &Supervisor) -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tonic::transport::Server::builder()
            .add_service(accounts_server::AccountsServer::new(self.clone()))
            .add_service(workspace_server::WorkspaceServer::new(self.clone()))
            .add_service(events_server::EventsServer::new(self.clone()))
            .add_service(queue_server::QueueServer::new(self.clone()))
            .add_service(chat_server::ChatServer::new(self.clone()))
            .add_service(ops_server::OpsServer::new(self.clone()));
        supervisor.spawn("fake runner", OnExit::Expected, |token| async move {
            server
                .serve_with_incoming_shutdown(TcpListenerStream::new(listener), token.cancelled_owned())
                .await
                .unwrap();
        });
        port
    }

    pub fn did(&self, deed: impl Into<String>) {
        self.state.lock().unwrap().deeds.push(deed.into());
    }
    pub fn deeds(&self) -> Vec<String> {
        self.state.lock().unwrap().deeds.clone()
    }
}

fn known<T>(request: &Request<T>) -> Result<(), Status> {
    match request.metadata().get("authorization").and_then(|v| v.to_str().ok()) {
        Some(v) if v == format!("Bearer {TOKEN}") => Ok(()),
        _ => Err(Status::unauthenticated("the token is not valid")),
    }
}

fn refused(field: &'static str, message: &str) -> Status {
    let mut status = Status::invalid_argument(message);
    status.metadata_mut().insert("x-nexaas-field", field.parse().unwrap());
    status
}

fn session() -> wire::Session {
    wire::Session { token: TOKEN.into(), user: Some(person()), expires_at: "2026-11-25T09:00:00Z".into() }
}

fn person() -> wire::User {
    wire::User {
        id: "u1".into(),
        username: "nora".into(),
        role: "admin".into(),
        company_id: "c1".into(),
        company: "BrightWave Digital".into(),
    }
}

fn agents() -> Vec<wire::Agent> {
    let agent = |name: &str, role: &str, source: &str, children: Vec<wire::Agent>| wire::Agent {
        name: name.into(),
        role: role.into(),
        description: format!("{role} of the agency"),
        capabilities: vec!["reporting".into(), "planning".into()],
        source: source.into(),
        prompt: format!("You are the {role}. {HOSTILE}"),
        config_json: "{\"model\":\"sonnet\"}".into(),
        children,
        ..Default::default()
    };
    vec![
        agent(
            "account-director",
            "Account director",
            "client",
            vec![
                agent("copywriter", "Writes posts and pages", "client", vec![]),
                agent("seo-specialist", "Search", "client", vec![]),
                agent("reporting-analyst", "Numbers and reports", "client", vec![]),
            ],
        ),
        agent("ops-monitor", "Watches the queue", "framework", vec![]),
    ]
}

#[tonic::async_trait]
impl accounts_server::Accounts for Fake {
    async fn register(&self, request: Request<wire::RegisterRequest>) -> Answer<wire::Session> {
        let r = request.into_inner();
        let mut state = self.state.lock().unwrap();
        if r.password.len() < 8 {
            return Err(refused("password", "password must be at least 8 characters long"));
        }
        if !state.has_company && r.company_name.is_empty() {
            return Err(refused("company_name", "company_name must not be empty"));
        }
        if r.username == "taken" {
            return Err(Status::already_exists("this name is taken"));
        }
        state.has_company = true;
        state.deeds.push(format!("register {} {} from {}", r.company_name, r.username, r.remote_address));
        Ok(Response::new(session()))
    }
    async fn login(&self, request: Request<wire::LoginRequest>) -> Answer<wire::Session> {
        match request.into_inner() {
            r if r.password == "correct horse" => Ok(Response::new(session())),
            _ => Err(Status::unauthenticated("Invalid credentials")),
        }
    }
    async fn me(&self, request: Request<wire::MeRequest>) -> Answer<wire::User> {
        known(&request)?;
        Ok(Response::new(person()))
    }
    async fn logout(&self, request: Request<wire::LogoutRequest>) -> Answer<wire::LogoutResponse> {
        known(&request)?;
        self.did("logout");
        Ok(Response::new(wire::LogoutResponse {}))
    }
    async fn status(&self, _: Request<wire::AccountsStatusRequest>) -> Answer<wire::AccountsStatus> {
        let has_company = self.state.lock().unwrap().has_company;
        let company = if has_company { "BrightWave Digital".to_owned() } else { String::new() };
        Ok(Response::new(wire::AccountsStatus { has_company, company, registration_open: true }))
    }
}

#[tonic::async_trait]
impl workspace_server::Workspace for Fake {
    async fn get_workspace(&self, request: Request<wire::GetWorkspaceRequest>) -> Answer<wire::WorkspaceView> {
        known(&request)?;
        Ok(Response::new(wire::WorkspaceView {
            name: "BrightWave Digital".into(),
            perspectives: self.state.lock().unwrap().perspectives.clone(),
            problems: vec![wire::Problem {
                file: "registries/channels.yaml".into(),
                line: 14,
                reason: "mapping values are not allowed here".into(),
                severity: "error".into(),
            }],
            ..Default::default()
        }))
    }
    async fn list_agents(&self, request: Request<wire::ListAgentsRequest>) -> Answer<wire::ListAgentsResponse> {
        known(&request)?;
        Ok(Response::new(wire::ListAgentsResponse { agents: agents() }))
    }
    async fn get_agent(&self, request: Request<wire::GetAgentRequest>) -> Answer<wire::Agent> {
        known(&request)?;
        let name = request.into_inner().name;
        agents()
            .into_iter()
            .find(|a| a.name == name)
            .map(Response::new)
            .ok_or_else(|| Status::not_found("no such agent"))
    }
    async fn list_skills(&self, request: Request<wire::ListSkillsRequest>) -> Answer<wire::ListSkillsResponse> {
        known(&request)?;
        let skill = |name: &str, description: &str, source: &str| wire::Skill {
            name: name.into(),
            description: description.into(),
            source: source.into(),
            ..Default::default()
        };
        let skills = vec![
            skill("weekly-client-report", "A digest of the week for every active client.", "client"),
            skill("health-check", "Looks at the queue, the failures and the alerts.", "framework"),
        ];
        Ok(Response::new(wire::ListSkillsResponse { skills }))
    }
    async fn get_skill(&self, request: Request<wire::GetSkillRequest>) -> Answer<wire::Skill> {
        known(&request)?;
        Ok(Response::new(wire::Skill {
            name: request.into_inner().name,
            filename: "weekly-client-report.md".into(),
            description: "A digest of the week.".into(),
            body: format!("Collect:\n\n1. finished work\n2. numbers\n\n{HOSTILE}"),
            ..Default::default()
        }))
    }
    async fn execute_skill(&self, request: Request<wire::ExecuteSkillRequest>) -> Answer<wire::ExecuteSkillResponse> {
        known(&request)?;
        let r = request.into_inner();
        self.did(format!("skill {} for {} enqueue={}", r.name, r.agent, r.enqueue));
        Ok(Response::new(wire::ExecuteSkillResponse { job_id: "j9".into(), skill: r.name, ..Default::default() }))
    }
    async fn list_registries(
        &self,
        request: Request<wire::ListRegistriesRequest>,
    ) -> Answer<wire::ListRegistriesResponse> {
        known(&request)?;
        let registries = vec![wire::RegistrySummary {
            name: "clients".into(),
            path: "registries/clients.yaml".into(),
            description: "Whom we work for".into(),
            entry_count: 3,
        }];
        Ok(Response::new(wire::ListRegistriesResponse { registries }))
    }
    async fn get_registry(&self, request: Request<wire::GetRegistryRequest>) -> Answer<wire::Registry> {
        known(&request)?;
        if self.state.lock().unwrap().registries_down {
            return Err(Status::unavailable("reading"));
        }
        let name = request.into_inner().name;
        if name != "clients" {
            return Err(Status::not_found(format!("registry '{name}' does not exist")));
        }
        let field = |name: &str, kind: &str| wire::RegistryField { name: name.into(), r#type: kind.into() };
        let entry = |v: serde_json::Value| v.to_string();
        Ok(Response::new(wire::Registry {
            name,
            description: "Whom we work for".into(),
            fields: vec![
                field("client", "string"),
                field("site", "url"),
                field("retainer_eur", "number"),
                field("since", "date"),
                field("active", "boolean"),
            ],
            entries_json: vec![
                entry(
                    serde_json::json!({"client": "Lumen Energy Advice", "site": "https://lumen.example", "retainer_eur": 4800, "since": "2023-04-01", "active": true}),
                ),
                entry(
                    serde_json::json!({"client": "Harbour Bakery", "site": "http://harbour-bakery.example/about", "retainer_eur": 1250, "since": "2025-01-15", "active": true}),
                ),
                entry(
                    serde_json::json!({"client": HOSTILE, "site": "javascript:alert(1)", "retainer_eur": 900, "since": null, "active": false}),
                ),
            ],
        }))
    }
    async fn get_mcp_catalog(&self, _: Request<wire::GetMcpCatalogRequest>) -> Answer<wire::McpCatalog> {
        Err(Status::unimplemented("not asked for by the dashboard"))
    }
}

#[tonic::async_trait]
impl events_server::Events for Fake {
    async fn list_events(&self, request: Request<wire::ListEventsRequest>) -> Answer<wire::ListEventsResponse> {
        known(&request)?;
        let event = |id: &str, description: &str, condition: (&str, &str), status: &str| wire::Event {
            id: id.into(),
            description: description.into(),
            condition_type: condition.0.into(),
            condition_expr: condition.1.into(),
            next_eval_at: "2026-11-25T08:00:00Z".into(),
            action_type: "skill".into(),
            status: status.into(),
            agent: "reporting-analyst".into(),
            last_run_at: "2026-11-24T08:00:00Z".into(),
            last_result: "Report sent to 10 clients".into(),
            run_count: 128,
            fail_count: 2,
            ..Default::default()
        };
        let events = vec![
            event(
                "weekly-report",
                "Weekly client report",
                ("cron", "{\"expr\":\"0 8 * * 1\",\"timezone\":\"Europe/Lisbon\"}"),
                "active",
            ),
            event("link-check", "Check broken links", ("interval", "3600"), "active"),
            event("lead", "New lead from the website", ("webhook", ""), "paused"),
        ];
        Ok(Response::new(wire::ListEventsResponse { events }))
    }
    async fn upsert_event(&self, request: Request<wire::UpsertEventRequest>) -> Answer<wire::UpsertEventResponse> {
        known(&request)?;
        let body: serde_json::Value = serde_json::from_str(&request.into_inner().event_json).unwrap();
        self.did(format!("upsert {} {} {}", body["action_type"], body["status"], body["action_config"]));
        let id = body["id"].as_str().unwrap().to_owned();
        Ok(Response::new(wire::UpsertEventResponse { id, action: "created".into() }))
    }
    async fn delete_event(&self, _: Request<wire::DeleteEventRequest>) -> Answer<wire::DeleteEventResponse> {
        Err(Status::unimplemented("not asked for by the dashboard"))
    }
    async fn trigger_event(&self, request: Request<wire::TriggerEventRequest>) -> Answer<wire::TriggerEventResponse> {
        known(&request)?;
        self.did(format!("trigger {}", request.into_inner().id));
        Ok(Response::new(wire::TriggerEventResponse { job_id: "j9".into() }))
    }
    async fn list_bus_events(
        &self,
        request: Request<wire::ListBusEventsRequest>,
    ) -> Answer<wire::ListBusEventsResponse> {
        known(&request)?;
        let wire::ListBusEventsRequest { kinds, since, .. } = request.into_inner();
        if !since.is_empty() {
            self.did(format!("facts since {since}"));
        }
        let fact = |seq: u64, kind: &str, data: serde_json::Value, at: &str| wire::BusEvent {
            seq,
            r#type: kind.into(),
            data_json: data.to_string(),
            created_at: at.into(),
            ..Default::default()
        };
        let all = vec![
            fact(9, "job.started", serde_json::json!({"job_id": "j4"}), "2026-11-24T20:58:00Z"),
            fact(
                8,
                "event.skipped",
                serde_json::json!({"id": "link-check", "reason": "overlap"}),
                "2026-11-24T20:50:00Z",
            ),
            fact(
                7,
                "event.paused",
                serde_json::json!({"id": "lead", "reason": format!("3 jobs in a row failed for good; the last: {HOSTILE}")}),
                "2026-11-24T19:00:00Z",
            ),
            fact(6, "workspace.changed", serde_json::json!({"revision": 4, "problems": 1}), "2026-11-24T17:30:00Z"),
            fact(
                5,
                "event.created",
                serde_json::json!({"id": "weekly-report", "description": "Weekly client report", "status": "active"}),
                "2026-11-24T17:00:00Z",
            ),
        ];
        let events = all.into_iter().filter(|e| kinds.contains(&e.r#type) && e.created_at >= since).collect();
        Ok(Response::new(wire::ListBusEventsResponse { events, next_before_seq: 0 }))
    }
    async fn watch_bus(&self, request: Request<wire::WatchBusRequest>) -> Answer<Streamed<wire::BusEvent>> {
        known(&request)?;
        self.did(format!("watch after {}", request.into_inner().after_seq));
        let live = tokio_stream::wrappers::BroadcastStream::new(self.bus.subscribe());
        Ok(Response::new(Box::pin(live.map(|e| e.map_err(|_| Status::data_loss("lagged"))))))
    }
}

#[tonic::async_trait]
impl queue_server::Queue for Fake {
    async fn get_queue(&self, request: Request<wire::GetQueueRequest>) -> Answer<wire::QueueView> {
        known(&request)?;
        let recent = self.state.lock().unwrap().jobs.clone();
        Ok(Response::new(wire::QueueView { queued: 1, running: 1, completed: 214, failed: 3, recent }))
    }
    async fn get_job(&self, request: Request<wire::GetJobRequest>) -> Answer<wire::Job> {
        known(&request)?;
        let id = request.into_inner().id;
        let found = self.state.lock().unwrap().jobs.iter().find(|j| j.id == id).cloned();
        found.map(Response::new).ok_or_else(|| Status::not_found(format!("job '{id}' does not exist")))
    }
    async fn cancel_job(&self, request: Request<wire::CancelJobRequest>) -> Answer<wire::CancelJobResponse> {
        known(&request)?;
        self.did(format!("cancel {}", request.into_inner().id));
        Ok(Response::new(wire::CancelJobResponse {}))
    }
    async fn list_jobs(&self, request: Request<wire::ListJobsRequest>) -> Answer<wire::ListJobsResponse> {
        known(&request)?;
        let wire::ListJobsRequest { state: wanted, limit, .. } = request.into_inner();
        let all = self.state.lock().unwrap().jobs.clone();
        let jobs = all.into_iter().filter(|j| wanted.is_empty() || j.state == wanted).take(limit as usize).collect();
        Ok(Response::new(wire::ListJobsResponse { jobs, ..Default::default() }))
    }
    async fn retry_job(&self, request: Request<wire::RetryJobRequest>) -> Answer<wire::Job> {
        known(&request)?;
        let id = request.into_inner().id;
        let mut state = self.state.lock().unwrap();
        let job = state.jobs.iter_mut().find(|j| j.id == id).ok_or_else(|| Status::not_found("no such job"))?;
        if !matches!(job.state.as_str(), "dead" | "cancelled") {
            return Err(Status::already_exists("Only a dead or cancelled job can be retried"));
        }
        job.state = "ready".into();
        let job = job.clone();
        state.deeds.push(format!("retry {id}"));
        Ok(Response::new(job))
    }
}

#[tonic::async_trait]
impl chat_server::Chat for Fake {
    async fn send(&self, request: Request<wire::ChatRequest>) -> Answer<Streamed<wire::ChatEvent>> {
        known(&request)?;
        let r = request.into_inner();
        self.did(format!("chat {}: {}", r.agent, r.message));
        let events = self.state.lock().unwrap().chat.clone();
        Ok(Response::new(Box::pin(tokio_stream::iter(events.into_iter().map(Ok)))))
    }
    async fn resume(&self, request: Request<wire::ResumeChatRequest>) -> Answer<Streamed<wire::ChatEvent>> {
        known(&request)?;
        let after = request.into_inner().after_seq;
        let events = self.state.lock().unwrap().chat.clone();
        Ok(Response::new(Box::pin(tokio_stream::iter(events.into_iter().filter(move |e| e.seq > after).map(Ok)))))
    }
    async fn list_sessions(&self, request: Request<wire::ListSessionsRequest>) -> Answer<wire::ListSessionsResponse> {
        known(&request)?;
        let agent = request.into_inner().agent;
        let title = format!("How do things stand with Lumen? {HOSTILE}");
        let sessions = vec![wire::ChatSession { id: "s1".into(), agent, title, ..Default::default() }];
        Ok(Response::new(wire::ListSessionsResponse { sessions }))
    }
    async fn get_session(&self, request: Request<wire::GetSessionRequest>) -> Answer<wire::ChatSession> {
        known(&request)?;
        let id = request.into_inner().session_id;
        if id != "s1" {
            return Err(Status::not_found("no such session"));
        }
        let state = self.state.lock().unwrap();
        Ok(Response::new(wire::ChatSession {
            id,
            agent: "account-director".into(),
            messages: state.messages.clone(),
            last_seq: state.chat.last().map_or(0, |e| e.seq),
            ..Default::default()
        }))
    }
}

#[tonic::async_trait]
impl ops_server::Ops for Fake {
    async fn get_usage(&self, request: Request<wire::GetUsageRequest>) -> Answer<wire::UsageReport> {
        known(&request)?;
        Ok(Response::new(wire::UsageReport { total_calls: 1284, total_cost_usd: 18.4, ..Default::default() }))
    }
    async fn get_health(&self, _: Request<wire::GetHealthRequest>) -> Answer<wire::OpsHealth> {
        Err(Status::unimplemented("not asked for by the dashboard"))
    }
    async fn list_alerts(&self, request: Request<wire::ListAlertsRequest>) -> Answer<wire::ListAlertsResponse> {
        known(&request)?;
        let alerts = vec![wire::Alert {
            id: "a1".into(),
            severity: "warning".into(),
            category: "queue".into(),
            message: "Three jobs failed within an hour".into(),
            created_at: "2026-11-24T18:05:00Z".into(),
            ..Default::default()
        }];
        Ok(Response::new(wire::ListAlertsResponse { alerts }))
    }
    async fn acknowledge_alert(&self, _: Request<wire::AcknowledgeAlertRequest>) -> Answer<wire::Alert> {
        Err(Status::unimplemented("not asked for by the dashboard"))
    }
    async fn heal(&self, _: Request<wire::HealRequest>) -> Answer<wire::HealResponse> {
        Err(Status::unimplemented("not asked for by the dashboard"))
    }
}
